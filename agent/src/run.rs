//! The verbs, from top to bottom. Whoever wants to know what this program does reads this file; nothing else knows the
//! order of the steps.

use std::io::IsTerminal as _;
use std::path::Path;

use format::digest::Sha256;
use format::index::Member;
use format::name::TargetPath;
use format::policy::PatchPolicy;
use format::report::{Outcome, Step};
use format::rollout::RolloutPlan;
use format::status::{DeltaStatus, QuarantineEnd, Quarantined, RolloutStatus, State as NodeState};
use format::trust::TrustedMetadataSet;
use host::file;

use crate::account::Account;
use crate::bundle::{check_index, copy_index, read_index};
use crate::cli::{Carried, Options, Verb};
use crate::decide::{self, Decision, Hold, Offer, Place};
use crate::error::{Error, Exit, Result};
use crate::fetch::{Transport, open_export};
use crate::incoming::Push;
use crate::node::Node;
use crate::pace::Keeper;
use crate::plan::Plan;
use crate::policy::Rule;
use crate::quarantine::{self, Quarantine, is_unverified};
use crate::recover::{self, Around, Left};
use crate::refresh::{Keep, KeptMetadata, refresh};
use crate::report::Said;
use crate::restore;
use crate::share::Site;
use crate::spread::{self, Why};
use crate::stage::{self, StagedRepo};
use crate::store::Store;
use crate::transaction::health;
use crate::transaction::health::HealthCheck;
use crate::transaction::journal::{Intent, Journal};
use crate::transaction::state::{Cause, Event, State};
use crate::{
    by_hand, delta, doctor, enroll, fleet, heal, incoming, key, plan, policy, print, reboot, report, share,
    space, status, transfer, verify, window,
};
use host::schedule::{self, Gate};

/// Runs one verb.
///
/// # Errors
/// Whatever keeps it from doing what it is for; the error carries the exit code.
pub fn run(options: &Options, verb: &Verb) -> Result<Exit> {
    if *verb == Verb::Doctor {
        print(&doctor::explain(options));
        return Ok(Exit::Done);
    }
    if let Verb::Config { show } = verb {
        return by_hand::look_at_configuration(options, *show);
    }
    if let Verb::Enroll(enrol) = verb {
        print(&enroll::enroll(options, enrol)?);
        return Ok(Exit::Done);
    }
    let node = Node::load(options)?;
    match verb {
        Verb::Run => whatever_is_due(&node),
        Verb::Fetch { now } => fetch(&node, *now).map(|()| Exit::Done),
        Verb::Install { now } => install(&node, *now).map(|()| Exit::Done),
        Verb::Recover => recover(&node).map(|()| Exit::Done),
        Verb::Rollback { now } => rollback(&node, *now).map(|()| Exit::Done),
        Verb::Import { path, everything } => import(&node, path.as_deref(), *everything).map(|()| Exit::Done),
        Verb::Share { listen } => share::serve(&node, *listen).map(|()| Exit::Done),
        Verb::Verify { path } => verify::verify(&node, path).map(|text| print(&text)).map(|()| Exit::Done),
        Verb::Release { version } => by_hand::release(&node, version).map(|()| Exit::Done),
        Verb::Report { now, carried: Carried::No } => send_reports(&node, *now).map(|()| Exit::Done),
        Verb::Report { carried, .. } => by_hand::carry_reports(&node, carried).map(|()| Exit::Done),
        Verb::Status { check: true, .. } => {
            let (exit, line) = status::check(&status::load(&node), node.now());
            print(&line);
            Ok(exit)
        }
        Verb::Status { json, .. } => by_hand::show_status(&node, *json).map(|()| Exit::Done),
        // Done above, where no node is needed.
        Verb::Doctor | Verb::Config { .. } | Verb::Enroll(_) => Ok(Exit::Done),
    }
}

/// `run`: fetch, then install if the window is open, then report. The first failure is the exit code, but an install
/// does not wait for a mirror, and a report is sent whatever happened.
fn whatever_is_due(node: &Node) -> Result<Exit> {
    if !node.is_configured() {
        print(
            "prestage is not configured yet, so there is nothing to do; `prestage doctor` says what is missing\n",
        );
        return Ok(Exit::Done);
    }
    let fetched = fetch(node, false);
    // Of a node that takes what is brought, nobody has brought anything yet: no news.
    let waits_for_a_stick =
        node.settings.mirrors.is_empty() && !node.fetched("metadata/timestamp.json").exists();
    let installed = match &fetched {
        _ if waits_for_a_stick => Ok(()),
        // What could not be trusted or verified stops here; what merely could not be reached does not.
        Err(error) if matches!(error.exit, Exit::Integrity | Exit::Trust) => Ok(()),
        _ => install(node, false),
    };
    let reported = send_reports(node, false);
    // The node's own state is worth more than the way to the centre.
    installed.and(fetched).and(reported).map(|()| Exit::Done)
}

/// `fetch`: get from the configured mirrors what this node needs, if it is this node's time; `now`: whatever the time.
fn fetch(node: &Node, now: bool) -> Result<()> {
    if node.settings.mirrors.is_empty() {
        if !node.is_configured() {
            return Err(Error::config("[repository] mirrors is not set"));
        }
        aside("there is no mirror to fetch from: this node takes what is given to `prestage import`");
        return Ok(());
    }
    node.make_folders()?;
    let mut keeper = Keeper::open(node, now);
    match keeper.poll()? {
        spread::Decision::Go => {}
        // The timer comes more often than the node wants to look: that is no news.
        spread::Decision::Wait { until, why: why @ (Why::Polled | Why::Back | Why::Turn) } => {
            aside(&format!("the next fetch is at {until}: {why}; `prestage fetch --now` does not wait"));
            return Ok(());
        }
        spread::Decision::Wait { until, why } => {
            let what = format!("the next fetch is at {until}: {why}");
            return Err(Error::new(Exit::Deferred, what, "`prestage fetch --now` does not wait"));
        }
    }
    let client = node.client()?;
    let mirrors = transfer::in_order(node, node.mirrors(&client)?);
    fetch_step(node, &mirrors, false, Some(&mut keeper), None)
}

/// Says what is news to a person who calls, and none to a log that a timer fills.
fn aside(text: &str) {
    match std::io::stderr().is_terminal() {
        true => log::info!("{text}"),
        false => host::detail!("{text}"),
    }
}

/// `import`: the same from an export, or from what was pushed to this node.
fn import(node: &Node, path: Option<&Path>, everything: bool) -> Result<()> {
    if let Some(path) = path {
        return fetch_step(node, &[open_export(path)?], everything, None, None);
    }
    let incoming = &node.settings.incoming;
    let mut push = Push::look(&node.root.join(incoming.strip_prefix("/").unwrap_or(incoming)))?;
    if push.is_empty() {
        print(&format!("nothing was pushed to {}\n", incoming.display()));
        return Ok(());
    }
    let exports = push.open(known_version(node));
    if let Some(text) = push.only_old() {
        print(&text);
        return Ok(());
    }
    fetch_step(node, &exports, everything, None, Some(&push))
}

/// The version of the timestamp that this node trusts; 0, if there is none yet.
fn known_version(node: &Node) -> u64 {
    let kept = KeptMetadata::new(&node.fetched("metadata"));
    incoming::version_of(&kept).unwrap_or(0)
}

/// The fetch step: does it, and accounts for it. What comes on a stick comes when it is there: without a keeper.
/// `push`: what the mirrors are parts of, where somebody may still be writing them.
fn fetch_step(
    node: &Node,
    mirrors: &[Box<dyn Transport + '_>],
    everything: bool,
    keeper: Option<&mut Keeper<'_>>,
    push: Option<&Push>,
) -> Result<()> {
    node.make_folders()?;
    let _lock = node.lock()?;
    node.as_fetch_user(|| fetch_as_its_user(node, mirrors, everything, keeper, push))
}

fn fetch_as_its_user(
    node: &Node,
    mirrors: &[Box<dyn Transport + '_>],
    everything: bool,
    mut keeper: Option<&mut Keeper<'_>>,
    push: Option<&Push>,
) -> Result<()> {
    let mut account = Account::open(node, Step::Fetch);
    let mut quarantine = Quarantine::open(node.fetched("quarantine.json"), Step::Fetch)?;
    let line = transfer::Line::new(node, keeper.as_deref().is_none_or(Keeper::is_hurried));
    let mut result = refresh_plan_fetch_stage(
        node,
        mirrors,
        everything,
        &line,
        keeper.as_deref_mut(),
        &mut quarantine,
        &mut account,
    );
    if let Some(push) = push {
        result = result.map_err(|error| push.explain(error));
    }
    line.close(&mut result, account.status());
    account.traffic(mirrors);
    if let Some(keeper) = keeper {
        if node.is_install_waiting() {
            keeper.soon();
        }
        let asked = mirrors.iter().filter_map(|m| m.asked()).max();
        // What cannot be kept, on a full disk say, does not keep the outcome from being told.
        if let Err(error) = keeper.close(&result, asked, line.has_progressed()) {
            log::error!("{error}");
        }
        account.status().next_fetch = keeper.next();
    }
    let kept = match (&result, account.bundle()) {
        (Ok(_), _) => quarantine.retain(|_| false),
        (Err(error), Some(bundle)) if is_unverified(error.exit as u8) => {
            quarantine.put(bundle, error, node.now(), node.settings.quarantine)
        }
        _ => Ok(()),
    };
    match kept {
        Err(error) if result.is_ok() => result = Err(error),
        Err(error) => log::error!("{error}"),
        Ok(()) => {}
    }
    account.close(result)
}

/// refresh → decide → plan → fetch → verify → stage.
fn refresh_plan_fetch_stage(
    node: &Node,
    mirrors: &[Box<dyn Transport + '_>],
    everything: bool,
    line: &transfer::Line<'_>,
    keeper: Option<&mut Keeper<'_>>,
    quarantine: &mut Quarantine,
    account: &mut Account<'_>,
) -> Result<Said> {
    space::enough(&node.state(), 0, "to work")?;

    // Refresh: trusted metadata, from the first mirror that has it.
    let keep = Keep { folder: node.fetched("metadata"), initial_root: node.initial_root() };
    let set = refresh(mirrors, &keep, &probes(node).each_ref().map(String::as_str), node.now(), &node.clock)?;
    account.status().metadata_expires = Some(set.expires());

    // Decide: what the policy for this node says, or the newest bundle.
    let policies = Store::open(node.fetched("policies"))?;
    // Over a line of its own, whatever the hour: some kilobytes, and they say what the rest may do.
    let small = transfer::Line::new(node, true);
    policy::fetch(&set, &small.fetcher(mirrors, &policies))?;
    let rule = policy::read(&set, &policies, &node.settings.labels)?;
    policy::fetch_plan(&set, &small.fetcher(mirrors, &policies), &rule)?;
    let transfer = rule.policy().and_then(|p| p.transfer.clone()).unwrap_or_default();
    let hours =
        transfer.schedule.as_ref().map(|schedule| window::hours_of(node, &rule, schedule)).transpose()?;
    account.status().policy = rule.policy().map(PatchPolicy::id);
    // The bundle is fetched whatever batch the node is in; only its install waits.
    let (held, standing) = rolled_out(node, &rule, policy::plan(&set, &policies, &rule)?.as_ref());
    account.status().rollout = standing;
    quarantine.release(&rule.releases())?;
    let offer = match decide::decide(&set, &node.variant, &rule) {
        Decision::Take { offer, .. } => offer,
        Decision::Wait(why) => return Err(Error::deferred(why)),
        Decision::Nothing(why) => return Ok(account.said(Outcome::UpToDate, NodeState::UpToDate, why)),
    };
    account.about(&offer.bundle);
    if let Some(q) = quarantine.of(&offer.bundle.index).filter(|q| q.ends == QuarantineEnd::Released) {
        return Err(quarantine::refusal(q));
    }

    // Nothing has changed since nothing was needed: an idle poll ends here.
    let everything_is_here =
        format!("this node has everything that bundle {} has for it", offer.bundle.version);
    if !everything && plan::still_valid(node, &offer)?.is_some_and(|plan| plan.is_done()) {
        account.nothing_new();
        return Ok(account.said(Outcome::UpToDate, NodeState::UpToDate, everything_is_here));
    }

    // A fleet does not fetch all at once: whose turn it is not yet waits for it.
    if let Some(keeper) = keeper {
        keeper.turn(offer.bundle.index, hours.as_ref()).inspect_err(|_| account.nothing_new())?;
    }
    line.obey(hours, transfer.rate);

    // Plan: with the index and the small metadata members, let the node's own package manager say what it needs.
    let store = Store::open(node.fetched("store"))?;
    let fetcher = line.fetcher(mirrors, &store);
    let remote = |path: &TargetPath, digest: Sha256| set.target_file(path, digest);
    fetcher.target(&remote(&offer.path, offer.bundle.index), offer.bundle.index, offer.length)?;
    let index = read_index(&store, &offer)?;
    check_index(node, &set, &offer, &index)?;
    rule.check(&set, &index)?;
    let bundle_file = remote(&index.bundle.path, index.bundle.sha256);
    let metadata: Vec<_> = index.metadata().collect();
    fetcher.members(&bundle_file, &index, &metadata)?;
    let plan = plan::make(node, &store, &offer, &index, everything)?;
    let staged = node.fetched("staged").join(offer.bundle.index.to_string());
    // What earlier runs have made of patches for this bundle stays told.
    let told = account.status().plan.take().filter(|before| before.bundle == offer.bundle);
    let told = told.and_then(|before| before.deltas);
    account.plan(plan::status(&store, &plan, &index, staged.exists(), &told));
    if plan.is_empty() {
        stage::tidy(node, &store, &index, &plan)?;
        if account.status().installed.as_ref().is_some_and(|i| i.bundle.index == offer.bundle.index) {
            account.nothing_new(); // the centre heard it when it was installed
        }
        if !plan.half_done.is_empty() {
            return Err(half_done(&plan.half_done, node.package_manager()?.words().by_hand));
        }
        return Ok(account.said(Outcome::UpToDate, NodeState::UpToDate, everything_is_here));
    }

    // Fetch: exactly these members, from the site where it has them and by ranges from a mirror where not; each is
    // verified on its way in. Of a package that can be made of what is installed, only the patch.
    let needed = plan.members(&index);
    space::make_room(node, &store, &index, &plan)?;
    let is_remote = mirrors.iter().any(|mirror| mirror.is_remote());
    let packages = node.package_manager()?;
    let mut ways = delta::choose(node, &store, packages.as_ref(), &plan, &needed, is_remote)?;
    let mut site = Site::new(node, &store, offer.bundle.index, mirrors);
    let mut get =
        |some: &[&Member]| site.members(some, &mut |some| fetcher.members(&bundle_file, &index, some));
    let fetched = delta::fetch_and_make(node, &store, packages.as_ref(), &mut ways, &mut get);
    account.site(&site);
    let told = ways.tell(told);
    account.plan(plan::status(&store, &plan, &index, false, &told));
    fetched?;

    // Stage: a local package repository, with one rename.
    let forms: Vec<_> = needed.iter().map(|member| store.form_of(member)).collect();
    let members: Vec<&Member> = metadata.into_iter().chain(forms.iter().map(AsRef::as_ref)).collect();
    let is_new = !stage::is_linked(&store, &members, &staged);
    if is_new {
        file::make_folder(&node.fetched("staged"), 0o755)?;
        stage::link(&store, &members, &staged)?;
    }
    stage::tidy(node, &store, &index, &plan)?;
    account.plan(plan::status(&store, &plan, &index, true, &told));
    // Prepared days ahead: what would fail at night is said now.
    if let Err(error) = space::for_install(node, &store, &index, &plan) {
        log::warn!("the install would not begin: {error}");
    }
    let waits = match &held {
        Err(Hold::Stopped(why) | Hold::Wait(why)) => format!("; {why}"),
        Ok(()) => String::new(),
    };
    let mut message = format!(
        "bundle {}: {} packages ({} bytes) are staged{waits}",
        offer.bundle.version,
        plan.packages.len(),
        plan.bytes_needed
    );
    if let Some(DeltaStatus { packages: made @ 1.., bytes_saved, .. }) = told {
        message += &format!("; {made} of them were made of deltas, which saved {bytes_saved} bytes");
        account.saved(bytes_saved);
    }
    let said = account.said(Outcome::Staged, NodeState::Staged, message);
    if !is_new {
        account.nothing_new();
    }
    Ok(said)
}

/// `install`: install what is staged; `now`: whatever the window says. What an earlier run has left comes first.
fn install(node: &Node, now: bool) -> Result<()> {
    as_root(node, "an install")?;
    // The report step cannot make what it needs.
    if node.settings.fleet.is_some()
        && let Err(error) = key::of(node)
    {
        log::error!("{error}");
    }
    let _lock = node.lock_for_install(is_install_due(node, now))?;
    let mut account = Account::open(node, Step::Install);
    let mut refused = Quarantine::open(node.private("refused.json"), Step::Install)?;
    let restore = restore::find(node);
    let around = Around { node, restore: &restore, gate: window::own(node), now };
    let result = match recover::left_over(node, &restore)? {
        Left::Open(journal) => around.go_on(*journal, &mut account),
        Left::Damaged(what) => Err(damaged(what, &mut account)),
        Left::Nothing => {
            tend(&restore);
            verify_and_install(&around, &mut refused, &mut account)
        }
    };
    around.close(&mut refused, account, result)
}

/// `recover`: go on with what a power cut or a boot has interrupted, and nothing else. At boot.
fn recover(node: &Node) -> Result<()> {
    as_root(node, "going on with an install")?;
    let _lock = node.lock_for_install(true)?;
    let restore = restore::find(node);
    let left = recover::left_over(node, &restore)?;
    if let Left::Nothing = left {
        print("nothing was interrupted\n");
        return Ok(());
    }
    let mut account = Account::open(node, Step::Install);
    let mut refused = Quarantine::open(node.private("refused.json"), Step::Install)?;
    let around = Around { node, restore: &restore, gate: window::own(node), now: false };
    let result = match left {
        Left::Open(journal) => around.go_on(*journal, &mut account),
        Left::Damaged(what) => Err(damaged(what, &mut account)),
        Left::Nothing => return Ok(()),
    };
    around.close(&mut refused, account, result)
}

/// `rollback`: take the node back to before the last install; `now`: boot at once where that is needed.
fn rollback(node: &Node, now: bool) -> Result<()> {
    as_root(node, "a rollback")?;
    let _lock = node.lock_for_install(true)?;
    let mut account = Account::open(node, Step::Install);
    let mut refused = Quarantine::open(node.private("refused.json"), Step::Install)?;
    let restore = restore::find(node);
    let around = Around { node, restore: &restore, gate: window::own(node), now };
    let result = match recover::left_over(node, &restore)? {
        Left::Open(mut journal) if journal.state == State::Rebooting => {
            journal.message = Some("somebody on the node has asked for it".into());
            journal.wanted_by = Some(Cause::Operator);
            journal.record(Event::Asked)?;
            around.go_on(*journal, &mut account)
        }
        // Going back already, or half-way in an install: that comes to its end first.
        Left::Open(journal) => around.go_on(*journal, &mut account),
        Left::Damaged(what) => Err(damaged(what, &mut account)),
        Left::Nothing => match recover::last(node) {
            Some(last) => {
                let why = "somebody on the node has asked for it".to_owned();
                around.undo(last, Cause::Operator, why, &mut account)
            }
            None => Err(Error::new(
                Exit::Deferred,
                "there is nothing to go back from: no bundle was installed here, or the node went back already",
                "",
            )),
        },
    };
    around.close(&mut refused, account, result)
}

fn as_root(node: &Node, what: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(
            Exit::Io,
            format!("{what} needs root"),
            "run it as root; the systemd unit does",
        ));
    }
    node.make_folders()?;
    node.make_private_folder()
}

/// Whether an install would have something to do, as far as can be seen without the lock: then who fetches makes way.
fn is_install_due(node: &Node, now: bool) -> bool {
    if node.private("journal.json").exists() {
        return true;
    }
    // Neither what is installed nor what is refused has anything to do.
    let refused = Quarantine::open(node.private("refused.json"), Step::Install);
    let refused = refused.iter().flat_map(|q| q.list()).map(|q| q.bundle.index.to_string());
    let done: Vec<String> =
        recover::last(node).map(|last| last.bundle.index.to_string()).into_iter().chain(refused).collect();
    let staged = std::fs::read_dir(node.fetched("staged")).into_iter().flatten().flatten();
    let is_new =
        staged.map(|e| e.file_name().to_string_lossy().into_owned()).any(|name| !done.contains(&name));
    is_new && (now || matches!(window::own(node), Gate::Open { .. }))
}

/// A journal that could not be read: what it was about is not known any more, and that is told.
fn damaged(what: String, account: &mut Account<'_>) -> Error {
    account.healed("damaged-journal");
    Error::new(
        Exit::Deferred,
        format!("an install was interrupted, and its journal was damaged: {what}"),
        "the next install mends what is half done and begins anew",
    )
}

/// Restore points that have become a danger go, before anything else takes their place.
fn tend(restore: &restore::Found) {
    match restore.points.tend() {
        Ok(Some(what)) => log::warn!("{what}"),
        Ok(None) => {}
        Err(error) => log::warn!("{error}"),
    }
}

/// Re-verify everything as root, then the transaction.
fn verify_and_install(
    around: &Around<'_>,
    refused: &mut Quarantine,
    account: &mut Account<'_>,
) -> Result<Said> {
    let (node, now) = (around.node, around.now);
    // Trust anew: what the fetch step kept is only a mirror.
    let keep = Keep { folder: node.private("metadata"), initial_root: node.initial_root() };
    let kept: [Box<dyn Transport>; 1] = [Box::new(KeptMetadata::new(&node.fetched("metadata")))];
    let set = refresh(&kept, &keep, &probes(node).each_ref().map(String::as_str), node.now(), &node.clock)
        .map_err(|e| match e.exit {
            Exit::Unavailable if !node.fetched("metadata/timestamp.json").exists() => {
                Error::deferred("nothing has been fetched yet")
            }
            Exit::Unavailable => {
                let what = format!("what was fetched cannot be used: {e}");
                Error::new(Exit::Deferred, what, "the next fetch gets what is missing")
            }
            _ => e,
        })?;

    // Decide: the first bundle of those it may have that is staged.
    let policies = Store::open(node.fetched("policies"))?;
    let rule = policy::read(&set, &policies, &node.settings.labels)?;
    account.status().policy = rule.policy().map(PatchPolicy::id);
    let (held, standing) = rolled_out(node, &rule, policy::plan(&set, &policies, &rule)?.as_ref());
    account.status().rollout = standing;
    refused.release(&rule.releases())?;
    let (wanted, otherwise) = match decide::decide(&set, &node.variant, &rule) {
        Decision::Take { offer, otherwise } => (offer, otherwise),
        Decision::Wait(why) => return Err(Error::deferred(why)),
        Decision::Nothing(why) => {
            account.nothing_new();
            return Ok(account.said(Outcome::UpToDate, NodeState::UpToDate, why));
        }
    };

    // Back: the policy names an older bundle than the one that is here.
    if rule.policy().is_some()
        && let Some(last) = recover::goes_back(node, &wanted.bundle, refused)?
    {
        account.about(&last.bundle);
        // What is wrong is not put right batch by batch; but a halt is a halt.
        if let Err(Hold::Stopped(why)) = held {
            return Err(Error::deferred(why));
        }
        window::open_until(node, &wanted, &rule, now)?;
        let why = format!("the policy has gone back to bundle {}", wanted.bundle.version);
        return around.undo(last, Cause::Policy, why, account);
    }

    let staged = |offer: &&Offer| node.fetched("staged").join(offer.bundle.index.to_string()).exists();
    let Some(offer) = std::iter::once(&wanted).chain(&otherwise).find(staged) else {
        return nothing_is_staged(node, &set, &wanted, &rule, now, refused, account);
    };
    account.about(&offer.bundle);
    not_refused(node, offer, now, refused)?;
    match held {
        Err(Hold::Stopped(why)) => return Err(Error::deferred(why)),
        Err(Hold::Wait(why)) if !now => return Err(Error::deferred(why)),
        Err(Hold::Wait(_)) | Ok(()) => {}
    }
    let window_ends = window::open_until(node, offer, &rule, now)?;

    let (mut repo, mut plan) =
        verify_staged(node, &set, offer, &rule, Some(account)).inspect_err(|error| {
            // The fetch step has verified all of this: whoever has changed it since may still be at work.
            if is_unverified(error.exit as u8)
                && let Err(e) = refused.put(&offer.bundle, error, node.now(), QuarantineEnd::Released)
            {
                log::error!("{e}");
            }
        })?;
    if plan.is_empty() {
        let message = format!("this node has everything that bundle {} has for it", offer.bundle.version);
        return Ok(account.said(Outcome::UpToDate, NodeState::UpToDate, message));
    }

    if heal::make_room_for_kernels(node, &plan)? {
        account.healed("full-boot");
        (repo, plan) = verify_staged(node, &set, offer, &rule, Some(account))?;
    }

    // Check the node before it is touched, write down where it stands, and begin.
    window::fits(node, window_ends, plan.changes.len() as u64, now)?;
    around.restore.check(node, plan.disk_bytes)?;
    let mut health = HealthCheck::of(node, rule.policy());
    health::baseline(node, &mut health, offer.bundle.version.as_str())?;
    let before = node.package_manager()?.inventory()?;
    file::replace(&node.private("before"), before.to_text().as_bytes(), 0o600)?;
    let intent = Intent {
        bundle: offer.bundle.clone(),
        started: node.now(),
        packages: plan.packages,
        changes: plan.changes,
        health,
        previous: recover::last(node).map(|last| last.bundle),
        may_go_back: rule.policy().and_then(|p| p.rollback.as_ref()).is_none_or(|r| r.enabled),
        disk_bytes: plan.disk_bytes,
        window_ends,
        reboot: reboot::policy(node, rule.policy()),
    };
    // Not all nodes of a site at once: the same lock as for a boot, given back when the node is well again.
    let has_budget =
        rule.policy().and_then(|p| p.rollout.as_ref()).is_some_and(|r| r.max_unavailable_per_site.is_some());
    if has_budget {
        reboot::take_slot(node)?;
    }
    let journal = Journal::begin(&node.private("journal.json"), intent).inspect_err(|_| {
        if has_budget {
            reboot::steady(node);
        }
    })?;
    around.transact(Some(repo), before, journal, account)
}

/// Copies what is staged to where only root can write, verifying every byte on the way, and plans anew from that. The
/// copy is complete unless the plan is empty. With an account, what is half done is finished first, and counted there.
fn verify_staged(
    node: &Node,
    set: &TrustedMetadataSet,
    offer: &Offer,
    rule: &Rule,
    account: Option<&mut Account<'_>>,
) -> Result<(StagedRepo, Plan)> {
    let store = Store::open(node.fetched("store"))?;
    let index = copy_index(&store, offer, &node.private("index.json"))?;
    check_index(node, set, offer, &index)?;
    rule.check(set, &index)?;
    let repo = StagedRepo::begin(node.private("staged"))?;
    let packages = node.package_manager()?;
    repo.copy_verified(&store, &index, &index.metadata().collect::<Vec<_>>(), packages.as_ref())?;
    if let Some(account) = account
        && !packages.audit()?.is_empty()
    {
        log::warn!("an earlier run of the package manager was interrupted; finishing it first");
        packages.repair()?;
        account.healed("interrupted-packages");
    }
    let resolution = packages.resolve(repo.folder(), &node.private("packages"))?;
    let plan = Plan::new(&offer.bundle, &index, packages.fingerprint()?, resolution, false)?;
    if !plan.is_empty() {
        space::for_install(node, &store, &index, &plan)?;
        repo.copy_verified(&store, &index, &plan.members(&index), packages.as_ref())?;
    }
    Ok((repo, plan))
}

/// Nothing is staged: because nothing is needed, or not yet. Which of the two, root finds out itself, from the bundle's
/// metadata; what it found holds as long as bundle and packages are the same. What an earlier run left half done is finished
/// all the same.
fn nothing_is_staged(
    node: &Node,
    set: &TrustedMetadataSet,
    wanted: &Offer,
    rule: &Rule,
    now: bool,
    refused: &Quarantine,
    account: &mut Account<'_>,
) -> Result<Said> {
    account.nothing_new();
    account.about(&wanted.bundle);
    let not_yet = || Error::deferred(format!("bundle {} is not staged yet", wanted.bundle.version));
    let packages = node.package_manager()?;
    let (kept, fingerprint) = (node.private("plan.json"), packages.fingerprint()?);
    let known = Plan::load(&kept).filter(|plan| {
        plan.is_empty() && (plan.bundle.index, plan.fingerprint) == (wanted.bundle.index, fingerprint)
    });
    let plan = match known {
        Some(plan) => plan,
        // Nothing is mended before it is known that it may be.
        None => match verify_staged(node, set, wanted, rule, None) {
            Ok((_, mut plan)) if plan.is_empty() => {
                plan.half_done = packages.audit()?;
                plan.save(&kept)?;
                plan
            }
            // It needs packages that are not here, or not even the metadata is.
            Ok(_) => return Err(not_yet()),
            Err(error) if error.exit == Exit::Deferred => return Err(not_yet()),
            Err(error) => return Err(error),
        },
    };
    if !plan.half_done.is_empty() && !packages.audit()?.is_empty() {
        not_refused(node, wanted, now, refused)?;
        window::open_until(node, wanted, rule, now)?;
        packages.repair()?;
        account.healed("interrupted-packages");
        let left = packages.audit()?;
        if !left.is_empty() {
            return Err(half_done(&left, packages.words().by_hand));
        }
    }
    let message = format!("this node has everything that bundle {} has for it", wanted.bundle.version);
    Ok(account.said(Outcome::UpToDate, NodeState::UpToDate, message))
}

fn half_done(packages: &[String], by_hand: &str) -> Error {
    let what = format!("these packages are half configured: {}; {by_hand}", packages.join("; "));
    Error::new(Exit::Deferred, what, "the next install tries to finish them")
}

/// What the rollout of the node's policy says of it now.
fn rolled_out(
    node: &Node,
    rule: &Rule,
    plan: Option<&RolloutPlan>,
) -> (std::result::Result<(), Hold>, Option<RolloutStatus>) {
    let Some(policy) = rule.policy() else { return (Ok(()), None) };
    let now = node.now();
    let place = Place {
        node: &node.id,
        labels: &node.settings.labels,
        now,
        wall: schedule::on_the_wall(now, &node.zone()),
        has_lock: node.settings.reboot.lock_url.is_some(),
    };
    decide::may_begin(policy, plan, &place)
}

/// Whether this node does not refuse the bundle.
fn not_refused(node: &Node, offer: &Offer, now: bool, refused: &Quarantine) -> Result<()> {
    let unverified = Quarantine::open(node.fetched("quarantine.json"), Step::Fetch)?;
    let by_hand = |q: &&Quarantined| now && q.ends == QuarantineEnd::ByHand;
    let entries = [unverified.of(&offer.bundle.index), refused.of(&offer.bundle.index)];
    match entries.into_iter().flatten().find(|q| !by_hand(q)) {
        Some(q) => Err(quarantine::refusal(q)),
        None => Ok(()),
    }
}

/// The targets that every role which has something to say to this node covers.
fn probes(node: &Node) -> [String; 2] {
    [decide::probe(&node.variant), policy::PROBE.to_owned()]
}

/// `report`: send what waits, if it is this node's time; `now`: whatever the time.
fn send_reports(node: &Node, now: bool) -> Result<()> {
    let sent = match &node.settings.fleet {
        Some(fleet) => fleet::report(node, fleet, now),
        None => report::send(node),
    };
    let mut status = status::load(node);
    if node.state().exists() && status::reports_differ(node, &status) {
        status::save(node, &mut status)?;
    }
    let sent = sent?;
    if sent > 0 {
        log::info!("{sent} reports were accepted by the centre");
    }
    Ok(())
}
