//! The verbs, from the top down as the work goes: keys → root → collect → bundle → sign → publish, then what looks after
//! a published repository. Each reads its inputs, calls the module that does the work, and says what came of it.

mod policies; // the verbs of policies

use std::path::{Path, PathBuf};

use format::name::BundleVersion;
use format::time::UnixTime;
use serde_json::{Value, json};

use crate::build_file::{BuildFile, Built};
use crate::cli::{self, BundlesVerb, CollectVerb, KeyVerb, RootVerb, Verb};
use crate::collect::Collected;
use crate::delegated::{BUNDLES, POLICIES};
use crate::delta::explain::explain;
use crate::delta::{self, Fleet};
use crate::document::Approval;
use crate::editor::RepositoryEditor;
use crate::error::{Error, Kind, Result};
use crate::keys::{self, Key, LocalKey, Secret};
use crate::pending::PENDING_ROLES;
use crate::progress::Progress;
use crate::publish::{self, OnlineKeys, Plan};
use crate::repository::{self, Repository, TARGETS, View};
use crate::roles::RoleEdit;
use crate::signer::Signer;
use crate::{bundle, check, collect, export, policy, root, serve, signer};

/// What every verb is given.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// What time it is; read once.
    pub now: UnixTime,
    /// How progress is shown.
    pub progress: Progress,
}

/// What a verb found or did.
#[derive(Debug)]
pub struct Answer {
    /// False: the answer is no, exit code 1.
    pub ok: bool,
    /// For machines.
    pub json: Value,
    /// For people.
    pub lines: Vec<String>,
}

impl Answer {
    fn new(json: Value, lines: Vec<String>) -> Self {
        Answer { ok: true, json, lines }
    }
}

/// Does what the command line says.
///
/// # Errors
/// What failed, on one line.
pub fn run(verb: Verb, context: &Context) -> Result<Answer> {
    match verb {
        Verb::Key(KeyVerb::New { file, passphrase_file }) => key_new(&file, passphrase_file.as_deref()),
        Verb::Key(KeyVerb::Signer { file, public, timeout_seconds, command }) => {
            key_signer(&file, &public, timeout_seconds, &command)
        }
        Verb::Key(KeyVerb::Show { file, passphrase_file }) => key_show(&file, passphrase_file.as_deref()),
        Verb::Root(verb) => root_verb(verb, context),
        Verb::Collect(CollectVerb::Apt(args)) => {
            Ok(collected_answer(&collect::run::collect(&args, context.progress)?, &args.output))
        }
        Verb::Collect(CollectVerb::Dnf(args)) => {
            Ok(collected_answer(&collect::dnf::collect(&args, context.progress)?, &args.output))
        }
        Verb::Build(args) => build(&args, context),
        Verb::Bundle(args) => make_bundle(&args, context),
        Verb::Sign(args) => sign(&args, context),
        Verb::Publish(args) => publish(&args, context),
        Verb::RefreshTimestamp(args) => refresh_timestamp(&args, context),
        Verb::Check(args) => check_repository(&args, context),
        Verb::Serve(args) => {
            serve::serve(&args.repo, args.listen)?;
            Ok(Answer::new(json!({}), Vec::new()))
        }
        Verb::Export(args) => export_variant(&args, context),
        Verb::Bundles(BundlesVerb::List { repo }) => list_bundles(&repo),
        Verb::Bundles(BundlesVerb::Release { repo, bundle_version }) => show_release(&repo, &bundle_version),
        Verb::Policy(verb) => policies::run(verb, context),
    }
}

fn key_new(file: &Path, passphrase_file: Option<&Path>) -> Result<Answer> {
    let passphrase = passphrase_file.map(keys::read_passphrase).transpose()?;
    let key = LocalKey::generate()?;
    let public_file = keys::write_new(file, &key, passphrase.as_deref())?;
    let mut answer = describe_key(key.public());
    answer.json["file"] = json!(file);
    answer.json["publicFile"] = json!(public_file);
    answer.lines.push(format!("private key: {} (keep it where only its role's holder is)", file.display()));
    answer.lines.push(format!("public key:  {}", public_file.display()));
    Ok(answer)
}

fn key_show(file: &Path, passphrase_file: Option<&Path>) -> Result<Answer> {
    let passphrase = passphrase_file.map(keys::read_passphrase).transpose()?;
    let key = keys::read(file, passphrase.as_deref())?;
    let mut answer = describe_key(key.public());
    if let Key::Secret(Secret::External(signer)) = &key {
        describe_signer(&mut answer, signer);
    }
    Ok(answer)
}

fn key_signer(file: &Path, public: &str, seconds: u64, command: &[String]) -> Result<Answer> {
    let public = match signer::public(public) {
        Some(public) => public,
        None => keys::read_public(Path::new(public))?,
    };
    let signer = keys::write_signer(file, command, &public, seconds)?;
    let mut answer = describe_key(&public);
    describe_signer(&mut answer, &signer);
    answer.json["file"] = json!(file);
    answer.lines.push(format!("signer file: {}", file.display()));
    Ok(answer)
}

fn describe_signer(answer: &mut Answer, signer: &Signer) {
    answer.json["command"] = json!(signer.command());
    answer.lines.push(format!("signed by:   {}", signer.command().join(" ")));
}

fn describe_key(public: &keys::Public) -> Answer {
    let hex = keys::public_hex(public);
    Answer::new(
        json!({"keyid": public.id, "public": hex}),
        vec![format!("key id:      {}", public.id), format!("public:      {hex}")],
    )
}

fn root_verb(verb: RootVerb, context: &Context) -> Result<Answer> {
    let now = context.now;
    match verb {
        RootVerb::Init(args) => root_init(&args, context),
        RootVerb::AddKey { repo, role, key, edit } => {
            let key = keys::read_public(&key)?;
            edit_root(&repo, &|editor| editor.edit_role(&role, &RoleEdit::Add(key.clone()), edit.days, now))
        }
        RootVerb::Rotate { repo, role, old, new, edit } => {
            let (old, new) = (root::old_key_id(&old)?, keys::read_public(&new)?);
            edit_root(&repo, &|editor| {
                editor.edit_role(&role, &RoleEdit::Rotate(old.clone(), new.clone()), edit.days, now)
            })
        }
        RootVerb::SetThreshold { repo, role, threshold, edit } => edit_root(&repo, &|editor| {
            editor.edit_role(&role, &RoleEdit::Threshold(threshold), edit.days, now)
        }),
        RootVerb::Renew { repo, role, edit } => {
            edit_root(&repo, &|editor| editor.renew(&role, edit.days, now))
        }
        RootVerb::Sign { repo, keys, passphrase_file } => {
            let passphrase = passphrase_file.as_deref().map(keys::read_passphrase).transpose()?;
            let secrets = keys::read_secrets(&keys, passphrase.as_deref())?;
            let mut editor = RepositoryEditor::open(Repository::at(&repo))?;
            let signed = editor.sign(&PENDING_ROLES, &secrets.iter().collect::<Vec<_>>())?;
            pending_answer(&editor, vec![format!("signed: {}", signed.join(", "))])
        }
        RootVerb::Show { repo } => {
            let (json, lines) = root::show(&RepositoryEditor::open(Repository::at(&repo))?)?;
            Ok(Answer::new(json, lines))
        }
    }
}

fn root_init(args: &cli::RootInitArgs, context: &Context) -> Result<Answer> {
    let ceremony = root::read_ceremony(args)?;
    let mut editor = RepositoryEditor::create(Repository::at(&args.repo), &ceremony.first, context.now)?;
    let secrets: Vec<&Secret> = ceremony.secrets.iter().collect();
    if !secrets.is_empty()
        && let Err(error) = editor.sign(&PENDING_ROLES, &secrets)
    {
        // Nothing is left begun, so that the same command can be given again.
        editor.clear()?;
        return Err(error);
    }
    let met = editor.approvals()?.iter().all(Approval::is_met);
    match ceremony.online {
        Some(online) if met => {
            let mut answer = publish_pending(editor, &[], &online, context)?;
            answer.lines.push(format!(
                "give {} to every node as its trusted root",
                Repository::at(&args.repo).metadata().join("1.root.json").display()
            ));
            answer.lines.push(root::OFFLINE.to_owned());
            Ok(answer)
        }
        _ => pending_answer(&editor, vec![root::OFFLINE.to_owned()]),
    }
}

fn edit_root(repo: &Path, edit: &dyn Fn(&mut RepositoryEditor) -> Result<()>) -> Result<Answer> {
    let mut editor = RepositoryEditor::open(Repository::at(repo))?;
    edit(&mut editor)?;
    pending_answer(&editor, vec![root::OFFLINE.to_owned()])
}

/// What is pending, who has signed it, and what comes next.
fn pending_answer(editor: &RepositoryEditor, mut lines: Vec<String>) -> Result<Answer> {
    let approvals = editor.approvals()?;
    let ready = approvals.iter().all(Approval::is_met);
    lines.extend(editor.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(approvals.iter().map(Approval::to_string));
    lines.push(match ready {
        true => "next: publish (with the online keys)".to_owned(),
        false => "next: the missing keys sign (sign for bundles, root sign for all others)".to_owned(),
    });
    let json = json!({
        "state": if ready { "ready" } else { "pending" },
        "pendingFolder": editor.pending().folder(),
        "pending": approvals,
        "notes": editor.notes,
    });
    Ok(Answer::new(json, lines))
}

fn collected_answer(collected: &Collected, output: &Path) -> Answer {
    let bytes: u64 = collected.packages.iter().map(|p| p.size).sum();
    let mut lines = Vec::new();
    for inventory in &collected.inventories {
        lines.push(format!(
            "{}: {} installed, {} needed",
            inventory.name, inventory.installed, inventory.needed
        ));
        for (what, names) in [("kept back", &inventory.kept_back), ("to be removed", &inventory.removed)] {
            if !names.is_empty() {
                lines.push(format!("{}: {what}: {}", inventory.name, names.join(", ")));
            }
        }
    }
    lines.push(format!(
        "collected {} packages, {bytes} bytes, newest source of {}",
        collected.packages.len(),
        collected.created
    ));
    let json = json!({
        "output": output,
        "packages": collected.packages.len(),
        "bytes": bytes,
        "created": collected.created,
        "inventories": collected.inventories,
        "releases": collected.releases,
    });
    Answer::new(json, lines)
}

/// Says what came of every variant; the answer is no if one of them has no bundle.
fn build(args: &cli::BuildArgs, context: &Context) -> Result<Answer> {
    let built = BuildFile::read(&args.file)?.build(&args.version, &args.cycle, context.progress);
    let (mut lines, mut json) = (Vec::new(), Vec::new());
    let ok = built.iter().all(|b| b.result.is_ok());
    for Built { variant, bundle, result } in &built {
        match result {
            Ok(index) => {
                let (packages, length) = (index.packages().count(), index.bundle.length);
                lines.push(format!("{variant}: {packages} packages, {length} bytes, {}", bundle.display()));
                json.push(
                    json!({"variant": variant, "bundle": bundle, "packages": packages, "length": length}),
                );
            }
            Err(error) => {
                lines.push(format!("{variant}: {error}"));
                json.push(json!({"variant": variant, "error": error.to_string()}));
            }
        }
    }
    Ok(Answer { ok, json: json!({"version": args.version, "cycle": args.cycle, "variants": json}), lines })
}

fn make_bundle(args: &cli::BundleArgs, context: &Context) -> Result<Answer> {
    let collected = Collected::read(&args.collected)?;
    let fleet = Fleet::read(&args.inventories, &collected.architecture)?;
    let options = delta::Options {
        bases: args.bases.clone(),
        fleet: fleet.clone(),
        cache: args.delta_cache.clone(),
        per_package: args.max_bases,
    };
    let index = bundle::write(
        &collected,
        &args.collected,
        &args.version,
        &args.cycle,
        &args.output,
        &options,
        context.progress,
    )?;
    let deltas: Vec<u64> = index.deltas().map(|(_, delta)| delta.size).collect();
    let mut json = json!({
        "output": args.output,
        "variant": index.variant,
        "version": index.version,
        "cycle": index.cycle,
        "packages": index.packages().count(),
        "deltas": deltas.len(),
        "length": index.bundle.length,
        "sha256": index.bundle.sha256,
    });
    let mut lines = vec![format!(
        "bundle {} {}: {} packages, {} bytes, sha256 {}",
        index.variant,
        index.version,
        index.packages().count(),
        index.bundle.length,
        index.bundle.sha256
    )];
    if !deltas.is_empty() {
        lines.push(format!("{} deltas, {} bytes", deltas.len(), deltas.iter().sum::<u64>()));
    }
    if args.explain {
        let explained = explain(&index, &fleet);
        lines.extend(explained.lines());
        json["explained"] = explained.json();
    }
    Ok(Answer::new(json, lines))
}

fn sign(args: &cli::SignArgs, context: &Context) -> Result<Answer> {
    let passphrase = args.passphrase_file.as_deref().map(keys::read_passphrase).transpose()?;
    let secrets = keys::read_secrets(&args.keys, passphrase.as_deref())?;
    let release = bundle::read_release(&args.out)?;
    let mut editor = RepositoryEditor::open(Repository::at(&args.repo))?;
    editor.may_sign(BUNDLES.name, &secrets)?;
    let is_new = editor.add_release(&release, args.days, context.now)?;
    let path = &release.index.0;
    if !is_new && !editor.pending().documents().contains_key(BUNDLES.name) {
        return Ok(Answer::new(
            json!({"state": "published", "index": path}),
            vec![format!("{path} is published already, with this content; nothing to sign")],
        ));
    }
    editor.sign(&[BUNDLES.name], &secrets.iter().collect::<Vec<_>>())?;
    let said = if is_new { "listed and signed" } else { "signed, as listed before" };
    let mut answer = pending_answer(&editor, vec![format!("{path}: {said}")])?;
    answer.json["index"] = json!(path);
    Ok(answer)
}

fn publish(args: &cli::PublishArgs, context: &Context) -> Result<Answer> {
    let online =
        online_keys(&args.snapshot_keys, &args.timestamp_keys, args.passphrase_file.as_deref(), args.online)?;
    let editor = RepositoryEditor::open(Repository::at(&args.repo))?;
    if editor.pending().documents().is_empty() {
        let published = editor.published().is_some();
        let line = match published {
            true => "nothing is pending; refresh-timestamp signs anew what is published",
            false => "nothing is pending; begin with root init",
        };
        return Ok(Answer {
            ok: published,
            json: json!({"state": "unchanged"}),
            lines: vec![line.to_owned()],
        });
    }
    publish_pending(editor, &args.outs, &online, context)
}

fn publish_pending(
    mut editor: RepositoryEditor,
    outs: &[PathBuf],
    online: &OnlineKeys,
    context: &Context,
) -> Result<Answer> {
    let plan = publish::plan(&editor, outs, online, context.now)?;
    let mut repository = editor.repository().clone();
    publish::perform(&plan, &mut repository, context.progress)?;
    editor.clear()?;
    Ok(published_answer(&plan))
}

fn refresh_timestamp(args: &cli::RefreshArgs, context: &Context) -> Result<Answer> {
    let online =
        online_keys(&args.snapshot_keys, &args.timestamp_keys, args.passphrase_file.as_deref(), args.online)?;
    let editor = RepositoryEditor::open(Repository::at(&args.repo))?;
    let plan = publish::plan_refresh(&editor, &online, context.now)?;
    let mut repository = editor.repository().clone();
    publish::perform(&plan, &mut repository, context.progress)?;
    Ok(published_answer(&plan))
}

fn published_answer(plan: &Plan) -> Answer {
    let version = |role: &str| plan.after.files.get(role).map(|(name, _)| name.clone()).unwrap_or_default();
    let root = plan.after.set.root().header.version;
    let bundles = plan.after.bundles().map_or(0, |t| t.targets.len() / 2);
    let policies = plan.after.set.targets(POLICIES.name);
    let policies =
        policies.map(|t| t.targets.keys().filter(|path| path.ends_with(policy::POLICY_FILE)).count());
    let expires = plan.after.set.expires();
    let delegated = plan.after.delegated().map(|role| role.name);
    let roles: Vec<String> =
        std::iter::once(TARGETS).chain(delegated).chain(["snapshot"]).map(version).collect();
    let counted = policies.map(|n| format!(", {n} policies")).unwrap_or_default();
    let mut lines = vec![format!(
        "published: root {root}, {}; {bundles} bundles{counted}; valid until {expires}",
        roles.join(", ")
    )];
    lines.extend(plan.notes.iter().map(|note| format!("note: {note}")));
    let json = json!({
        "state": "published",
        "root": root,
        "files": plan.after.files.values().map(|(name, _)| name).collect::<Vec<_>>(),
        "bundles": bundles,
        "policies": policies,
        "expires": expires,
        "notes": plan.notes,
    });
    Answer::new(json, lines)
}

fn online_keys(
    snapshot: &[PathBuf],
    timestamp: &[PathBuf],
    passphrase_file: Option<&Path>,
    days: cli::OnlineDays,
) -> Result<OnlineKeys> {
    let passphrase = passphrase_file.map(keys::read_passphrase).transpose()?;
    Ok(OnlineKeys {
        snapshot: keys::read_secrets(snapshot, passphrase.as_deref())?,
        timestamp: keys::read_secrets(timestamp, passphrase.as_deref())?,
        snapshot_days: days.snapshot_days,
        timestamp_days: days.timestamp_days,
    })
}

fn check_repository(args: &cli::CheckArgs, context: &Context) -> Result<Answer> {
    let report = check::check(&Repository::at(&args.repo), args.full, context.now, context.progress)?;
    let mut lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    lines.extend(report.signers.iter().map(ToString::to_string));
    let errors = report.problems.iter().filter(|p| p.is_error()).count();
    lines.push(format!("{errors} problems, {} warnings", report.problems.len() - errors));
    Ok(Answer {
        ok: errors == 0,
        json: json!({
            "ok": errors == 0,
            "problems": report.problems.iter().map(check::Problem::to_json).collect::<Vec<_>>(),
            "signers": report.signers,
        }),
        lines,
    })
}

fn export_variant(args: &cli::ExportArgs, context: &Context) -> Result<Answer> {
    let repository = Repository::at(&args.repo);
    let view = must_be_published(&repository)?;
    let written = export::export(
        &repository,
        &view,
        &args.variant,
        args.bundle_version.as_ref(),
        &args.output,
        context.progress,
    )?;
    let line = format!(
        "exported {} {}: {} files, {} bytes, to {}",
        args.variant,
        written.version,
        written.files,
        written.bytes,
        args.output.display()
    );
    let json = json!({
        "variant": args.variant,
        "version": written.version,
        "files": written.files,
        "bytes": written.bytes,
        "output": args.output,
        "expires": view.set.expires(),
    });
    Ok(Answer::new(json, vec![line, format!("nodes take it until {}", view.set.expires())]))
}

fn list_bundles(repo: &Path) -> Result<Answer> {
    let repository = Repository::at(repo);
    let view = must_be_published(&repository)?;
    let mut lines = vec![format!(
        "{:24} {:20} {:>6} {:10} {:>9} {:>14}",
        "VARIANT", "VERSION", "SERIAL", "CYCLE", "PACKAGES", "BYTES"
    )];
    let mut listed = Vec::new();
    for bundle in export::bundles(&view) {
        let index = export::read_index(&repository, &bundle)?;
        let (packages, length) = (index.packages().count(), index.bundle.length);
        lines.push(format!(
            "{:24} {:20} {:>6} {:10} {packages:>9} {length:>14}",
            bundle.variant.as_str(),
            bundle.version.as_str(),
            bundle.custom.serial,
            bundle.custom.cycle.as_str()
        ));
        listed.push(json!({
            "variant": bundle.variant, "version": bundle.version, "serial": bundle.custom.serial,
            "cycle": bundle.custom.cycle, "packages": packages, "length": length, "sha256": index.bundle.sha256,
        }));
    }
    Ok(Answer::new(json!({ "bundles": listed }), lines))
}

/// The very bytes of the document, so that its digest can be taken with any tool.
fn show_release(repo: &Path, version: &BundleVersion) -> Result<Answer> {
    let view = must_be_published(&Repository::at(repo))?;
    let release = export::release(&export::bundles(&view), version).ok_or_else(|| {
        let what = format!("there is no release {version}");
        Error::new(Kind::Usage, what, "no bundle of that version is published")
            .cure("bundles list shows what there is")
    })?;
    let text = String::from_utf8_lossy(&release.to_json()).into_owned();
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    let json = json!({"checksum": format!("sha256:{}", release.digest()), "release": document});
    Ok(Answer::new(json, vec![text, format!("checksum: sha256:{}", release.digest())]))
}

fn must_be_published(repository: &Repository) -> Result<View> {
    repository::published(repository, None)?.ok_or_else(|| nothing_published(repository))
}

fn nothing_published(repository: &Repository) -> Error {
    Error::new(
        Kind::Usage,
        "there is no repository",
        format!("{}: nothing is published in it", repository.folder().display()),
    )
    .cure("make one with root init")
}
