//! The verbs of policies: check, diff, publish, and what can be done with a rollout that is published.

use std::path::{Path, PathBuf};

use format::rollout::{MAX_BY, MAX_REASON, PlanState, one_line};
use serde_json::{Value, json};

use super::{
    Answer, Context, must_be_published, nothing_published, online_keys, pending_answer, published_answer,
};
use crate::cli::{ControlArgs, FleetArgs, PolicyPublishArgs, PolicyVerb};
use crate::delegated::POLICIES;
use crate::document::Approval;
use crate::editor::RepositoryEditor;
use crate::error::{Error, Kind, Result};
use crate::export;
use crate::keys::{self, Secret};
use crate::policy::{self, Control, Fleet, Publication, Published};
use crate::publish;
use crate::repository::Repository;

/// Does what the command line says.
///
/// # Errors
/// What failed, on one line.
pub fn run(verb: PolicyVerb, context: &Context) -> Result<Answer> {
    match verb {
        PolicyVerb::Check { paths, repo } => check(&paths, repo.as_deref()),
        PolicyVerb::Publish(args) => publish_all(&args, context),
        PolicyVerb::Diff { repo, paths, fleet } => diff(&repo, &paths, &fleet, context),
        PolicyVerb::Show { repo, policy } => show(&repo, policy.as_deref(), context),
        PolicyVerb::Pause(args) => control(&args, &Control::Pause, context),
        PolicyVerb::Halt(args) => control(&args, &Control::Halt, context),
        PolicyVerb::Resume(args) => control(&args, &Control::Resume, context),
        PolicyVerb::Rollback { to, args } => control(&args, &Control::Rollback(to), context),
        PolicyVerb::Release { args, bundle: version, before } => {
            let before = before.unwrap_or(context.now);
            control(&args, &Control::Release { version, before }, context)
        }
        PolicyVerb::Crd => {
            let text = policy::crd();
            let json = json!({ "yaml": text });
            Ok(Answer::new(json, text.lines().map(str::to_owned).collect()))
        }
    }
}

fn check(paths: &[PathBuf], repo: Option<&Path>) -> Result<Answer> {
    let bundles = match repo {
        Some(repo) => Some(export::bundles(&must_be_published(&Repository::at(repo))?)),
        None => None,
    };
    Ok(checked_answer(&policy::check(paths, bundles.as_deref())?))
}

/// What is wrong with policies; that is the answer of every verb that is given wrong ones.
fn checked_answer(checked: &policy::Checked) -> Answer {
    let mut lines: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    lines.push(format!("{} policies, {} problems", checked.policies.len(), checked.problems.len()));
    let ok = checked.problems.is_empty();
    let json = json!({"ok": ok, "policies": checked.policies, "problems": checked.problems});
    Answer { ok, json, lines }
}

fn diff(repo: &Path, paths: &[PathBuf], fleet: &FleetArgs, context: &Context) -> Result<Answer> {
    let repository = Repository::at(repo);
    let view = must_be_published(&repository)?;
    let bundles = export::bundles(&view);
    let checked = policy::check(paths, Some(&bundles))?;
    if !checked.problems.is_empty() {
        return Ok(checked_answer(&checked));
    }
    let fleet = Fleet::read(fleet.nodes, fleet.inventory.as_ref())?;
    let published = policy::published(&repository, &view)?;
    let next =
        policy::prepare(checked.into_policies(), &published, fleet.as_ref(), "policy diff", context.now);
    let (mut lines, mut json) = described(&published, &next, fleet.as_ref(), &bundles);
    lines.extend(next.problems.iter().map(|problem| format!("note: {problem}")));
    json["notes"] = json!(next.notes.iter().chain(&next.problems).collect::<Vec<_>>());
    Ok(Answer::new(json, lines))
}

/// What would change, in words and for machines.
fn described(
    published: &[Published],
    next: &Publication,
    fleet: Option<&Fleet>,
    bundles: &[export::Published],
) -> (Vec<String>, Value) {
    let changes = policy::diff(published, &next.policies, bundles, fleet);
    let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    if changes.is_empty() {
        lines.push("no policy changes".to_owned());
    }
    lines.extend(next.notes.iter().map(|note| format!("note: {note}")));
    (lines, json!({"changes": changes, "notes": next.notes}))
}

fn publish_all(args: &PolicyPublishArgs, context: &Context) -> Result<Answer> {
    let secrets = secrets(&args.keys, args.passphrase_file.as_deref())?;
    let mut editor = RepositoryEditor::open(Repository::at(&args.repo))?;
    let view = editor.published().ok_or_else(|| nothing_published(editor.repository()))?;
    let bundles = export::bundles(view);
    let checked = policy::check(&args.paths, Some(&bundles))?;
    if !checked.problems.is_empty() {
        return Ok(checked_answer(&checked));
    }
    let fleet = Fleet::read(args.fleet.nodes, args.fleet.inventory.as_ref())?;
    let published = policy::published(editor.repository(), view)?;
    let by = one_line(&args.by, MAX_BY);
    let next = policy::prepare(checked.into_policies(), &published, fleet.as_ref(), &by, context.now);
    if !next.problems.is_empty() {
        return Err(Error::new(Kind::Usage, "the policies were not published", next.problems.join("; ")));
    }
    let (mut lines, described) = described(&published, &next, fleet.as_ref(), &bundles);
    editor.may_sign(POLICIES.name, &secrets)?;
    policy::list(&mut editor, &next.policies, args.days, context.now)?;
    let mut answer = if editor.pending().documents().contains_key(POLICIES.name) {
        editor.sign(&[POLICIES.name], &secrets.iter().collect::<Vec<_>>())?;
        pending_answer(&editor, lines)?
    } else {
        lines.push("these policies are published already; nothing to sign".to_owned());
        Answer::new(json!({"state": "published"}), lines)
    };
    for key in ["changes", "notes"] {
        answer.json[if key == "notes" { "policyNotes" } else { key }] = described[key].clone();
    }
    Ok(answer)
}

fn secrets(keys: &[PathBuf], passphrase_file: Option<&Path>) -> Result<Vec<Secret>> {
    let passphrase = passphrase_file.map(keys::read_passphrase).transpose()?;
    keys::read_secrets(keys, passphrase.as_deref())
}

/// The published policies and how far their rollouts are.
fn show(repo: &Path, wanted: Option<&str>, context: &Context) -> Result<Answer> {
    let repository = Repository::at(repo);
    let view = must_be_published(&repository)?;
    let published = policy::published(&repository, &view)?;
    let (mut lines, mut listed) = (Vec::new(), Vec::new());
    for Published { policy, plan } in published.iter().filter(|p| wanted.is_none_or(|w| w == p.policy.id())) {
        let id = policy.id();
        let mut line = format!("{id}: bundle {}", policy.bundle.version);
        match plan.as_ref().filter(|plan| plan.is_of(policy)) {
            Some(plan) => {
                let begun = plan.begun(context.now);
                line += &format!(", {}, {begun} of {} steps begun", plan.state, plan.steps.len());
                if let Some(next) = plan.steps.get(begun).filter(|_| plan.state == PlanState::Running) {
                    line += &format!(", {} from {}", plan.step_name(begun), next.not_before);
                }
                lines.push(line);
                lines.extend(plan.history.iter().map(|act| {
                    format!("  {} {} by {}: {}", act.at, act.action.as_str(), act.by, act.reason)
                }));
            }
            None if policy.rollout.is_some() => {
                lines.push(line + ", and no plan: publish the policies again")
            }
            None => lines.push(line + ", all nodes at once"),
        }
        let as_json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
        listed.push(json!({
            "id": id,
            "policy": as_json(policy.to_json()),
            "plan": plan.as_ref().map(|plan| as_json(plan.to_json())),
        }));
    }
    match wanted.filter(|_| listed.is_empty()) {
        Some(wanted) => Err(no_such_policy(wanted, &published)),
        None => Ok(Answer::new(json!({ "policies": listed }), lines)),
    }
}

fn no_such_policy(wanted: &str, published: &[Published]) -> Error {
    let ids: Vec<String> = published.iter().map(|p| p.policy.id()).collect();
    let cure = match format::near::nearest(wanted, ids.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there are {}", if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }),
    };
    Error::new(Kind::Usage, "there is no such policy", format!("{wanted} is not published")).cure(cure)
}

/// Stops, resumes or takes back a published rollout, and publishes that at once: the fleet server calls this when too many
/// nodes failed, and cannot wait for anybody.
fn control(args: &ControlArgs, what: &Control, context: &Context) -> Result<Answer> {
    let (by, reason) = (one_line(&args.by, MAX_BY), one_line(&args.reason, MAX_REASON));
    if by.is_empty() || reason.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing was done", "--by and --reason must say something"));
    }
    let secrets = secrets(&args.keys, args.passphrase_file.as_deref())?;
    let online =
        online_keys(&args.snapshot_keys, &args.timestamp_keys, args.passphrase_file.as_deref(), args.online)?;
    let mut editor = RepositoryEditor::open(Repository::at(&args.repo))?;
    editor.set_aside_but_policies()?;
    let view = editor.published().ok_or_else(|| nothing_published(editor.repository()))?;
    let bundles = export::bundles(view);
    let mut published = policy::published(editor.repository(), view)?;
    let Some(at) = published.iter().position(|p| p.policy.id() == args.policy) else {
        return Err(no_such_policy(&args.policy, &published));
    };
    let begun = policy::act(&by, &reason, context.now);
    let (changed, said) = policy::control(&published[at], what, &begun, &bundles)
        .map_err(|why| Error::new(Kind::No, "nothing was done", why))?;
    let Some(changed) = changed else {
        return Ok(Answer::new(controlled(&published[at], "unchanged"), vec![said]));
    };
    published[at] = changed;
    editor.may_sign(POLICIES.name, &secrets)?;
    policy::list(&mut editor, &published, args.days, context.now)?;
    editor.sign(&[POLICIES.name], &secrets.iter().collect::<Vec<_>>())?;
    if !editor.approvals()?.iter().all(Approval::is_met) {
        let mut answer = pending_answer(&editor, vec![said])?;
        // Whoever calls this must not take it for done.
        answer.ok = false;
        return Ok(answer);
    }
    let plan = publish::plan(&editor, &[], &online, context.now)?;
    let mut repository = editor.repository().clone();
    publish::perform(&plan, &mut repository, context.progress)?;
    editor.clear()?;
    let mut answer = published_answer(&plan);
    answer.lines.insert(0, said);
    let described = controlled(&published[at], "published");
    for (key, value) in described.as_object().into_iter().flatten() {
        answer.json[key] = value.clone();
    }
    Ok(answer)
}

fn controlled(published: &Published, state: &str) -> Value {
    let plan = published.plan.as_ref();
    json!({
        "state": state,
        "policy": published.policy.id(),
        "bundleVersion": published.policy.bundle.version,
        "rollout": plan.map(|plan| plan.state.as_str()),
        "plan": plan.and_then(|plan| serde_json::from_slice::<Value>(&plan.to_json()).ok()),
    })
}
