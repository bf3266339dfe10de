//! Everything that is wrong with a published repository, as a list: not the first failure.
//!
//! For operators and CI. Not for deciding whether to trust something: that is [`format::trust`]'s, which stops at the
//! first doubt, and which judges here too.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use format::container::{Decoder, write_end};
use format::digest::Sha256;
use format::index::{Index, Member};
use format::metadata::Blob;
use format::name::TargetPath;
use format::policy::PatchPolicy;
use format::rollout::RolloutPlan;
use format::time::UnixTime;

use crate::blocks::Blocks;
use crate::delegated::POLICIES;
use crate::document::{Approval, Signed, is_canonical};
use crate::error::Result;
use crate::export::{self, Published};
use crate::policy::{self, PLAN_FILE};
use crate::progress::Progress;
use crate::repository::{self, IGNORE_EXPIRY, LoadError, Repository, View};

/// Roles that expire within this many seconds (a week) are warned about.
const SOON: i64 = 7 * 86_400;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nodes refuse the metadata.
    Refused {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// A role has expired.
    Expired {
        /// The file.
        file: String,
        /// When.
        expires: UnixTime,
    },
    /// A role expires within a week.
    ExpiresSoon {
        /// The file.
        file: String,
        /// When.
        expires: UnixTime,
    },
    /// A target is listed and not there.
    TargetMissing {
        /// Its published path.
        path: String,
    },
    /// A target is there and not what was signed.
    TargetDamaged {
        /// Its published path.
        path: String,
        /// How.
        why: String,
    },
    /// An index breaks a rule or does not fit its place.
    Index {
        /// Its published path.
        path: String,
        /// Which rule.
        why: String,
    },
    /// A bundle's bytes are not what its index says.
    Member {
        /// The bundle's published path.
        bundle: String,
        /// The member.
        member: String,
        /// What is wrong.
        why: String,
    },
    /// A policy breaks a rule, or names what is not there.
    Policy {
        /// Its published path.
        path: String,
        /// Which rule, or what.
        why: String,
    },
    /// A file that nothing refers to.
    Stray {
        /// Its path in the repository.
        path: String,
    },
    /// A metadata file is not written in canonical form; it is valid all the same.
    NotCanonical {
        /// The file.
        file: String,
    },
}

impl Problem {
    /// Whether it keeps nodes from patching; the others are warnings.
    pub fn is_error(&self) -> bool {
        !matches!(self, Problem::ExpiresSoon { .. } | Problem::Stray { .. } | Problem::NotCanonical { .. })
    }

    /// A short name of the kind, for machines.
    fn kind(&self) -> &'static str {
        match self {
            Problem::Refused { .. } => "refused",
            Problem::Expired { .. } => "expired",
            Problem::ExpiresSoon { .. } => "expires-soon",
            Problem::TargetMissing { .. } => "target-missing",
            Problem::TargetDamaged { .. } => "target-damaged",
            Problem::Index { .. } => "index",
            Problem::Member { .. } => "member",
            Problem::Policy { .. } => "policy",
            Problem::Stray { .. } => "stray",
            Problem::NotCanonical { .. } => "not-canonical",
        }
    }

    /// For `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"kind": self.kind(), "error": self.is_error(), "text": self.to_string()})
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_error() { "problem: " } else { "warning: " })?;
        match self {
            Problem::Refused { file, why } => write!(f, "nodes refuse {file}: {why}"),
            Problem::Expired { file, expires } => write!(f, "{file} expired at {expires}: sign it anew"),
            Problem::ExpiresSoon { file, expires } => {
                write!(f, "{file} expires at {expires}: sign it anew in time")
            }
            Problem::TargetMissing { path } => {
                write!(f, "targets/{path} is missing: publish it again")
            }
            Problem::TargetDamaged { path, why } => write!(f, "targets/{path} is damaged: {why}"),
            Problem::Index { path, why } => write!(f, "targets/{path} is not a valid index: {why}"),
            Problem::Member { bundle, member, why } => write!(f, "targets/{bundle}: member {member}: {why}"),
            Problem::Policy { path, why } => {
                write!(f, "targets/{path} is of no use: {why}: publish the policies again")
            }
            Problem::Stray { path } => write!(f, "{path} is referred to by nothing"),
            Problem::NotCanonical { file } => write!(f, "{file} is not canonical JSON"),
        }
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Errors and warnings.
    pub problems: Vec<Problem>,
    /// Who has signed each role.
    pub signers: Vec<Approval>,
}

/// Checks everything; `full` also hashes every target and decodes every member.
///
/// # Errors
/// If a file that is there cannot be read at all.
pub fn check(repository: &Repository, full: bool, now: UnixTime, progress: Progress) -> Result<Report> {
    let mut report = Report::default();
    let view = match repository::load(repository, 1, IGNORE_EXPIRY) {
        Ok(view) => view,
        Err(LoadError::Read(error)) => return Err(error),
        Err(LoadError::Missing(file)) => {
            report.problems.push(Problem::Refused { file, why: "it is missing".into() });
            return Ok(report);
        }
        Err(LoadError::Refused { file, error }) => {
            report.problems.push(Problem::Refused { file, why: error.to_string() });
            return Ok(report);
        }
    };
    check_metadata(&view, now, &mut report)?;
    let known = check_targets(repository, &view, full, progress, &mut report);
    check_policies(repository, &view, &mut report);
    check_strays(repository, &view, &known, &mut report);
    Ok(report)
}

fn check_metadata(view: &View, now: UnixTime, report: &mut Report) -> Result<()> {
    let mut roles: Vec<(String, &str, &[u8])> = Vec::new();
    if let Some((version, bytes)) = view.root() {
        roles.push((format!("{version}.root.json"), "root", bytes));
    }
    roles.extend(
        view.files.iter().map(|(role, (file, bytes))| (file.clone(), role.as_str(), bytes.as_slice())),
    );
    for (file, role, bytes) in roles {
        let document = Signed::parse(role, bytes)?;
        let expires = document.signed()["expires"].as_str().and_then(|t| t.parse::<UnixTime>().ok());
        if let Some(expires) = expires {
            if expires <= now {
                report.problems.push(Problem::Expired { file: file.clone(), expires });
            } else if expires.since(now) < SOON {
                report.problems.push(Problem::ExpiresSoon { file: file.clone(), expires });
            }
        }
        if !is_canonical(bytes) {
            report.problems.push(Problem::NotCanonical { file: file.clone() });
        }
        if let Some(keys) = view.keys_of(role) {
            report.signers.push(document.approval(keys)?);
        }
    }
    Ok(())
}

/// Checks each target and returns the published paths that are referred to.
fn check_targets(
    repository: &Repository,
    view: &View,
    full: bool,
    progress: Progress,
    report: &mut Report,
) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    let bar = progress.items("checking", view.listed().count() as u64);
    for (role, path, file) in view.listed() {
        bar.add(1);
        let refused = |why: String| Problem::Refused { file: format!("{}.json", role.name), why };
        let target: TargetPath = match path.parse() {
            Ok(target) => target,
            Err(error) => {
                report.problems.push(refused(format!("{error}")));
                continue;
            }
        };
        let Some(file) = file.blob() else {
            report.problems.push(refused(format!("{path} has no sha256")));
            continue;
        };
        let name = target.with_digest(&file.sha256.to_string());
        known.insert(name.clone());
        // A bundle's content is checked by its members below, and once as a whole.
        if let Some(problem) =
            check_target(&repository.targets().join(&name), &name, &file, full || name.ends_with(".json"))
        {
            report.problems.push(problem);
        }
    }
    bar.done();
    for bundle in export::bundles(view) {
        check_bundle(repository, &bundle, full, progress, report);
    }
    known
}

fn check_target(path: &Path, name: &str, file: &Blob, hash: bool) -> Option<Problem> {
    let damaged = |why: String| Some(Problem::TargetDamaged { path: name.to_owned(), why });
    let mut content = match File::open(path) {
        Ok(content) => content,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Some(Problem::TargetMissing { path: name.to_owned() });
        }
        Err(e) => return damaged(e.to_string()),
    };
    let length = content.metadata().map_or(0, |m| m.len());
    if length != file.length {
        return damaged(format!("it is {length} bytes long, not {}", file.length));
    }
    if hash {
        return match Sha256::of_reader(&mut content) {
            Err(e) => damaged(e.to_string()),
            Ok((found, _)) if found != file.sha256 => {
                damaged(format!("its sha256 is {found}, not {}", file.sha256))
            }
            Ok(_) => None,
        };
    }
    None
}

/// Checks that an index fits its place and its bundle, and with `full` every member's bytes.
fn check_bundle(
    repository: &Repository,
    bundle: &Published,
    full: bool,
    progress: Progress,
    report: &mut Report,
) {
    let index_name = export::published_name(&bundle.index);
    let bundle_name = export::published_name(&bundle.bundle);
    // Missing or damaged: said already.
    let Ok(bytes) = fs::read(repository.targets().join(&index_name)) else {
        return;
    };
    if Sha256::of(&bytes) != bundle.index.1.sha256 {
        return;
    }
    let mut wrong = |why: String| {
        report.problems.push(Problem::Index { path: index_name.clone(), why });
    };
    let index = match Index::parse(&bytes) {
        Ok(index) => index,
        Err(error) => return wrong(error.to_string()),
    };
    if (&index.variant, &index.version, &index.cycle)
        != (&bundle.variant, &bundle.version, &bundle.custom.cycle)
    {
        wrong(format!(
            "it calls itself {} {} of cycle {}, which is not where it is published",
            index.variant, index.version, index.cycle
        ));
    }
    let listed = &bundle.bundle;
    if (&index.bundle.path, index.bundle.length, index.bundle.sha256)
        != (&listed.0, listed.1.length, listed.1.sha256)
    {
        wrong("it describes another bundle file than the one that is listed".into());
    }
    if !full {
        return;
    }
    let Ok(mut file) = File::open(repository.targets().join(&bundle_name)) else {
        return;
    };
    let bar = progress.items("decoding", index.entries().count() as u64);
    for member in index.entries() {
        bar.add(1);
        if let Err(why) = check_member(&mut file, &index, &member) {
            report.problems.push(Problem::Member {
                bundle: bundle_name.clone(),
                member: member.path.to_string(),
                why,
            });
        }
    }
    bar.done();
    if let Err(why) = check_layout(&mut file, &index) {
        report.problems.push(Problem::TargetDamaged { path: bundle_name, why });
    }
}

/// Decodes one member as a node does.
fn check_member(file: &mut File, index: &Index, member: &Member) -> std::result::Result<(), String> {
    let extent = member.whole().ok_or("it has no source of kind whole")?;
    let mut decoder = Decoder::new(index.entry(member), extent.encoding);
    let mut blocks = Blocks::new(member.size);
    file.seek(SeekFrom::Start(extent.offset)).map_err(|e| e.to_string())?;
    let mut reader = Read::by_ref(file).take(extent.length);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let n = reader.read(&mut buffer).map_err(|e| e.to_string())?;
        if n == 0 {
            break;
        }
        let mut sink = |bytes: &[u8]| {
            blocks.update(bytes);
            Ok(())
        };
        decoder.push(&buffer[..n], &mut sink).map_err(|e| e.to_string())?;
    }
    let found = decoder.finish().map_err(|e| e.to_string())?;
    if found != member.sha256 {
        return Err(format!("its sha256 is {found}, not {}", member.sha256));
    }
    match blocks.finish() == member.blocks {
        true => Ok(()),
        false => Err("its block digests are not those of its content".into()),
    }
}

/// Members follow each other without gaps, and tar's end mark ends the file: otherwise ordinary tools cannot read it.
fn check_layout(file: &mut File, index: &Index) -> std::result::Result<(), String> {
    let mut at = 0;
    for member in index.entries() {
        let extent = member.whole().ok_or("a member has no source of kind whole")?;
        if extent.offset != at {
            return Err(format!("there is a gap before member {}", member.path));
        }
        at += extent.length;
    }
    let mut end = Vec::new();
    write_end(&mut end).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.take(end.len() as u64 + 1).read_to_end(&mut found))
        .map_err(|e| e.to_string())?;
    match found == end {
        true => Ok(()),
        false => Err("it does not end with tar's end mark".into()),
    }
}

/// Checks that each policy can be read, where it is, and is for a bundle that there is.
fn check_policies(repository: &Repository, view: &View, report: &mut Report) {
    let bundles = export::bundles(view);
    let listed = view.set.targets(POLICIES.name).map(|t| &t.targets).into_iter().flatten();
    for (path, file) in listed {
        let target = path.parse().ok().zip(file.blob());
        let Some(name) = target.as_ref().map(export::published_name) else {
            continue;
        };
        // Missing or damaged: said already.
        let Some(bytes) = fs::read(repository.targets().join(&name)).ok().filter(|b| file.check(b).is_ok())
        else {
            continue;
        };
        if path.ends_with(PLAN_FILE) {
            let why = match RolloutPlan::from_json(&bytes) {
                Err(error) => error.to_string(),
                Ok(plan) if plan.target_path().map(|p| p.to_string()).as_deref() != Ok(path) => {
                    format!("it is the plan of {}, which is not where it is published", plan.policy())
                }
                Ok(_) => continue,
            };
            report.problems.push(Problem::Policy { path: name, why });
            continue;
        }
        let why = match PatchPolicy::from_json(&bytes) {
            Err(error) => error.to_string(),
            Ok(policy) if policy.target_path().map(|p| p.to_string()).as_deref() != Ok(path) => {
                format!("it calls itself {}, which is not where it is published", policy.id())
            }
            Ok(policy) if !bundles.iter().any(|bundle| bundle.version == policy.bundle.version) => {
                format!("there is no bundle {}", policy.bundle.version)
            }
            Ok(policy) if policy.needs_plan() && !has_plan(repository, view, &policy) => format!(
                "its rolloutStrategy has no plan for bundle {}, so its nodes wait",
                policy.bundle.version
            ),
            Ok(_) => continue,
        };
        report.problems.push(Problem::Policy { path: name, why });
    }
}

/// Whether the plan beside a policy is that of its bundle; what is wrong with the plan itself is said where it stands.
fn has_plan(repository: &Repository, view: &View, policy: &PatchPolicy) -> bool {
    let plan = policy::plan_of(repository, view, policy);
    plan.is_ok_and(|plan| plan.is_some_and(|plan| plan.is_of(policy)))
}

/// What versions of the role policies before the current one listed: a policy has one place and many contents.
fn superseded_policies(repository: &Repository) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let suffix = format!(".{}.json", POLICIES.name);
    walk(&repository.metadata(), "", &mut |file| {
        let document = file
            .ends_with(&suffix)
            .then(|| fs::read(repository.metadata().join(file)).ok())
            .flatten()
            .and_then(|bytes| Signed::parse(POLICIES.name, &bytes).ok());
        let targets = document.as_ref().and_then(|document| document.signed()["targets"].as_object());
        for (path, entry) in targets.into_iter().flatten() {
            let digest = entry["hashes"]["sha256"].as_str().unwrap_or_default();
            names.extend(path.parse::<TargetPath>().ok().map(|path| path.with_digest(digest)));
        }
    });
    names
}

/// Files that nothing refers to: left by an interrupted publication, or put there by somebody else. Superseded versions
/// are no strays, as nodes may be reading them.
fn check_strays(repository: &Repository, view: &View, known: &BTreeSet<String>, report: &mut Report) {
    let mut strays = Vec::new();
    let superseded = superseded_policies(repository);
    walk(&repository.targets(), "", &mut |path| {
        if !known.contains(path) && !superseded.contains(path) {
            strays.push(format!("targets/{path}"));
        }
    });
    walk(&repository.metadata(), "", &mut |name| {
        if !is_current_or_older(name, view) {
            strays.push(format!("metadata/{name}"));
        }
    });
    report.problems.extend(strays.into_iter().map(|path| Problem::Stray { path }));
}

fn is_current_or_older(name: &str, view: &View) -> bool {
    let current = |role: &str| match role {
        "root" => Some(view.set.root().header.version),
        role => {
            let (file, _) = view.files.get(role)?;
            file.split('.').next()?.parse().ok()
        }
    };
    let mut parts = name.split('.');
    let of_version = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(version), Some(role), Some("json"), None) => {
            version.parse::<u64>().ok().zip(current(role)).is_some_and(|(v, c)| v >= 1 && v <= c)
        }
        _ => false,
    };
    of_version || name == "timestamp.json"
}

fn walk(folder: &Path, prefix: &str, each: &mut dyn FnMut(&str)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.filter_map(std::result::Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), &format!("{name}/"), each),
            _ => each(&name),
        }
    }
}
