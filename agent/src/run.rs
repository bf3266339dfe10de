//! The verbs, from top to bottom. Whoever wants to know what this program does reads this file; nothing else knows the
//! order of the steps.

use std::io::IsTerminal as _;
use std::path::Path;

use format::digest::Sha256;
use format::index::MAX_INDEX;
use format::name::{BundleVersion, TargetPath};
use format::policy::PatchPolicy;
use format::report::{Outcome, Step};
use format::status::{InstalledStatus, QuarantineEnd, Quarantined, State as NodeState};
use format::time::UnixTime;
use format::trust::TrustedMetadataSet;
use host::file;

use crate::account::Account;
use crate::bundle::{check_index, copy_index, read_index, reread_index};
use crate::cli::{Options, Verb};
use crate::decide::{self, Decision, Offer};
use crate::error::{Error, Exit, Result};
use crate::fetch::{Archive, Folder, Transport};
use crate::incoming::Push;
use crate::node::Node;
use crate::pace::Keeper;
use crate::plan::Plan;
use crate::policy::Rule;
use crate::quarantine::{self, Quarantine, Release, is_unverified};
use crate::refresh::{Keep, KeptMetadata, refresh};
use crate::report::Said;
use crate::restore::NoRestorePoints;
use crate::schedule::{self, Gate};
use crate::share::Site;
use crate::spread::{self, Why};
use crate::stage::{self, StagedRepo};
use crate::store::Store;
use crate::transaction::health::HealthCheck;
use crate::transaction::journal::Journal;
use crate::transaction::state::{Event, State};
use crate::transaction::{self, Transaction};
use crate::{doctor, incoming, plan, policy, print, report, share, space, status, transfer, verify};

/// Runs one verb.
///
/// # Errors
/// Whatever keeps it from doing what it is for; the error carries the exit code.
pub fn run(options: &Options, verb: &Verb) -> Result<Exit> {
    if *verb == Verb::Doctor {
        print(&doctor::explain(options));
        return Ok(Exit::Done);
    }
    let node = Node::load(options)?;
    match verb {
        Verb::Run => whatever_is_due(&node),
        Verb::Fetch { now } => fetch(&node, *now).map(|()| Exit::Done),
        Verb::Install { now } => install(&node, *now).map(|()| Exit::Done),
        Verb::Import { path, everything } => import(&node, path.as_deref(), *everything).map(|()| Exit::Done),
        Verb::Share { listen } => share::serve(&node, *listen).map(|()| Exit::Done),
        Verb::Verify { path } => verify::verify(&node, path).map(|text| print(&text)).map(|()| Exit::Done),
        Verb::Release { version } => release(&node, version).map(|()| Exit::Done),
        Verb::Report => send_reports(&node).map(|()| Exit::Done),
        Verb::Status { json } => show_status(&node, *json).map(|()| Exit::Done),
        Verb::Doctor => Ok(Exit::Done),
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
    let installed = match &fetched {
        // What could not be trusted or verified stops here; what merely could not be reached does not.
        Err(error) if matches!(error.exit, Exit::Integrity | Exit::Trust) => Ok(()),
        _ => install(node, false),
    };
    let reported = send_reports(node);
    // The node's own state is worth more than the way to the centre.
    installed.and(fetched).and(reported).map(|()| Exit::Done)
}

/// `fetch`: get from the configured mirrors what this node needs, if it is this node's time; `now`: whatever the time.
fn fetch(node: &Node, now: bool) -> Result<()> {
    if node.settings.mirrors.is_empty() {
        return Err(Error::config("[repository] mirrors is not set"));
    }
    node.make_folders()?;
    let mut keeper = Keeper::open(node, now);
    match keeper.poll()? {
        spread::Decision::Go => {}
        // The timer comes more often than the node wants to look: that is no news.
        spread::Decision::Wait { until, why: why @ (Why::Polled | Why::Back | Why::Turn) } => {
            let level = if std::io::stderr().is_terminal() { log::Level::Info } else { log::Level::Debug };
            log::log!(level, "the next fetch is at {until}: {why}; `prestage fetch --now` does not wait");
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

/// An export: a folder, or one tar file.
pub fn open_export(path: &Path) -> Result<Box<dyn Transport>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(Box::new(Folder::new(path))),
        Ok(_) => Ok(Box::new(Archive::open(path)?)),
        Err(e) => Err(Error::file(path, &e)),
    }
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
        let asked = mirrors.iter().filter_map(|m| m.asked()).max();
        keeper.close(&result, asked, line.has_progressed())?;
        account.status().next_fetch = keeper.next();
    }
    match (&result, account.bundle()) {
        (Ok(_), _) => quarantine.retain(|_| false)?,
        (Err(error), Some(bundle)) if is_unverified(error.exit as u8) => {
            quarantine.put(bundle, error, node.now(), node.settings.quarantine)?;
        }
        _ => {}
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
    policy::fetch(&set, &transfer::Line::new(node, true).fetcher(mirrors, &policies))?;
    let rule = policy::read(&set, &policies, &node.settings.labels)?;
    let transfer = rule.policy().and_then(|p| p.transfer.clone()).unwrap_or_default();
    account.status().policy = rule.policy().map(PatchPolicy::id);
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
        keeper.turn(offer.bundle.index, transfer.schedule.as_ref()).inspect_err(|_| account.nothing_new())?;
    }
    line.obey(transfer);

    // Plan: with the index and the small metadata members, let the node's own package manager say what it needs.
    let store = Store::open(node.fetched("store"))?;
    let fetcher = line.fetcher(mirrors, &store);
    let remote = |path: &TargetPath, digest: Sha256| set.target_file(path, digest);
    fetcher.target(&remote(&offer.path, offer.bundle.index), offer.bundle.index, offer.length)?;
    let index = read_index(&store, &offer)?;
    check_index(node, &set, &offer, &index)?;
    rule.check(&index)?;
    let bundle_file = remote(&index.bundle.path, index.bundle.sha256);
    let metadata: Vec<_> = index.metadata().collect();
    fetcher.members(&bundle_file, &index, &metadata)?;
    let plan = plan::make(node, &store, &offer, &index, everything)?;
    let staged = node.fetched("staged").join(offer.bundle.index.to_string());
    account.plan(plan::status(&store, &plan, &index, staged.exists()));
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
    // verified on its way in.
    let needed = plan.members(&index);
    space::make_room(node, &store, &index, &plan)?;
    let mut site = Site::new(node, &store, offer.bundle.index, mirrors);
    let fetched = site.members(&needed, &mut |some| fetcher.members(&bundle_file, &index, some));
    account.site(&site);
    account.plan(plan::status(&store, &plan, &index, false));
    fetched?;

    // Stage: a local package repository, with one rename.
    let members = [metadata, needed].concat();
    let is_new = !stage::is_linked(&store, &members, &staged);
    if is_new {
        file::make_folder(&node.fetched("staged"), 0o755)?;
        stage::link(&store, &members, &staged)?;
    }
    stage::tidy(node, &store, &index, &plan)?;
    account.plan(plan::status(&store, &plan, &index, true));
    // Prepared days ahead: what would fail at night is said now.
    if let Err(error) = space::for_install(node, &plan) {
        log::warn!("the install would not begin: {error}");
    }
    let message = format!(
        "bundle {}: {} packages ({} bytes) are staged",
        offer.bundle.version,
        plan.packages.len(),
        plan.bytes_needed
    );
    let said = account.said(Outcome::Staged, NodeState::Staged, message);
    if !is_new {
        account.nothing_new();
    }
    Ok(said)
}

/// `install`: install what is staged; `now`: whatever the window says.
fn install(node: &Node, now: bool) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Exit::Io, "an install needs root", "run it as root; the systemd unit does"));
    }
    node.make_folders()?;
    node.make_private_folder()?;
    let _lock = node.lock()?;
    let mut account = Account::open(node, Step::Install);
    let mut refused = Quarantine::open(node.private("refused.json"), Step::Install)?;
    let result = match Journal::open(&node.private("journal.json"))? {
        Some(journal) => go_on(node, journal, &mut account),
        None => verify_and_install(node, now, &mut refused, &mut account),
    };
    match (&result, account.bundle()) {
        (Ok(said), _) if said.outcome == Outcome::Installed => refused.retain(|_| false)?,
        (Err(error), Some(bundle))
            if matches!(error.exit, Exit::InstallFailed | Exit::RolledBack | Exit::NeedsPerson) =>
        {
            refused.put(bundle, error, node.now(), QuarantineEnd::ByHand)?;
        }
        _ => {}
    }
    account.close(result)
}

/// Re-verify everything as root, then the transaction.
fn verify_and_install(
    node: &Node,
    now: bool,
    refused: &mut Quarantine,
    account: &mut Account<'_>,
) -> Result<Said> {
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
    let rule = policy::read(&set, &Store::open(node.fetched("policies"))?, &node.settings.labels)?;
    account.status().policy = rule.policy().map(PatchPolicy::id);
    refused.release(&rule.releases())?;
    let (wanted, otherwise) = match decide::decide(&set, &node.variant, &rule) {
        Decision::Take { offer, otherwise } => (offer, otherwise),
        Decision::Wait(why) => return Err(Error::deferred(why)),
        Decision::Nothing(why) => {
            account.nothing_new();
            return Ok(account.said(Outcome::UpToDate, NodeState::UpToDate, why));
        }
    };
    let staged = |offer: &&Offer| node.fetched("staged").join(offer.bundle.index.to_string()).exists();
    let Some(offer) = std::iter::once(&wanted).chain(&otherwise).find(staged) else {
        return nothing_is_staged(node, &wanted, &rule, now, refused, account);
    };
    account.about(&offer.bundle);
    may_install(node, offer, &rule, now, refused)?;

    let (repo, plan) = verify_staged(node, &set, offer, &rule).inspect_err(|error| {
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

    // Check the node before it is touched, write down where it stands, and begin.
    let health = HealthCheck::of(node, rule.policy());
    transaction::check_baseline(node, &health)?;
    let before = node.package_manager()?.inventory()?;
    file::replace(&node.private("before"), before.to_text().as_bytes(), 0o600)?;
    let journal = Journal::begin(
        &node.private("journal.json"),
        offer.bundle.clone(),
        node.now(),
        plan.packages,
        plan.changes,
        health,
    )?;
    transact(node, repo, before, journal, account)
}

/// Copies what is staged to where only root can write, verifying every byte on the way, and plans anew from that. The
/// copy is complete unless the plan is empty.
fn verify_staged(
    node: &Node,
    set: &TrustedMetadataSet,
    offer: &Offer,
    rule: &Rule,
) -> Result<(StagedRepo, Plan)> {
    let store = Store::open(node.fetched("store"))?;
    let index = copy_index(&store, offer, &node.private("index.json"))?;
    check_index(node, set, offer, &index)?;
    rule.check(&index)?;
    let repo = StagedRepo::begin(node.private("staged"))?;
    repo.copy_verified(&store, &index, &index.metadata().collect::<Vec<_>>())?;
    let packages = node.package_manager()?;
    if !packages.audit()?.is_empty() {
        log::warn!("an earlier run of the package manager was interrupted; finishing it first");
        packages.repair()?;
    }
    let resolution = packages.resolve(repo.folder(), &node.private("packages"))?;
    let plan = Plan::new(&offer.bundle, &index, packages.fingerprint()?, resolution, false)?;
    if !plan.is_empty() {
        space::for_install(node, &plan)?;
        repo.copy_verified(&store, &index, &plan.members(&index))?;
    }
    Ok((repo, plan))
}

/// Nothing is staged: because nothing is needed, or not yet. What an earlier run left half done is finished all the same.
fn nothing_is_staged(
    node: &Node,
    wanted: &Offer,
    rule: &Rule,
    now: bool,
    refused: &Quarantine,
    account: &mut Account<'_>,
) -> Result<Said> {
    account.nothing_new();
    account.about(&wanted.bundle);
    if Plan::load(&node.fetched("plan.json"))
        .is_none_or(|plan| plan.bundle.index != wanted.bundle.index || !plan.is_empty())
    {
        return Err(Error::deferred(format!("bundle {} is not staged yet", wanted.bundle.version)));
    }
    let packages = node.package_manager()?;
    if !packages.audit()?.is_empty() {
        may_install(node, wanted, rule, now, refused)?;
        packages.repair()?;
    }
    match packages.audit()?.as_slice() {
        [] => {
            let message =
                format!("this node has everything that bundle {} has for it", wanted.bundle.version);
            Ok(account.said(Outcome::UpToDate, NodeState::UpToDate, message))
        }
        left => Err(half_done(left, packages.words().by_hand)),
    }
}

fn half_done(packages: &[String], by_hand: &str) -> Error {
    let what = format!("these packages are half configured: {}; {by_hand}", packages.join("; "));
    Error::new(Exit::Deferred, what, "the next install tries to finish them")
}

/// Whether the bundle may be installed here and now.
fn may_install(node: &Node, offer: &Offer, rule: &Rule, now: bool, refused: &Quarantine) -> Result<()> {
    let unverified = Quarantine::open(node.fetched("quarantine.json"), Step::Fetch)?;
    let by_hand = |q: &&Quarantined| now && q.ends == QuarantineEnd::ByHand;
    let entries = [unverified.of(&offer.bundle.index), refused.of(&offer.bundle.index)];
    if let Some(q) = entries.into_iter().flatten().find(|q| !by_hand(q)) {
        return Err(quarantine::refusal(q));
    }
    match maintenance_gate(node, rule)? {
        Gate::Closed { until } if !now => Err(Error::new(
            Exit::Deferred,
            format!(
                "bundle {} is staged; the next maintenance window opens at {until}",
                offer.bundle.version
            ),
            "",
        )),
        _ => Ok(()),
    }
}

/// The maintenance window: the node's own and, where its policy has one, that as well.
fn maintenance_gate(node: &Node, rule: &Rule) -> Result<Gate> {
    let own = schedule::gate(node.settings.windows.as_deref(), &node.zone(), node.now());
    let Some((policy, schedule)) = rule.policy().and_then(|p| Some((p, p.schedule.as_ref()?))) else {
        return Ok(own);
    };
    let zone = match &schedule.timezone {
        None => node.zone(),
        Some(name) => schedule::zone(name.as_str())
            .map_err(|e| Error::deferred(format!("policy {}: {e}", policy.id())))?,
    };
    Ok(schedule::both(own, schedule::gate(Some(&schedule.windows), &zone, node.now())))
}

/// The targets that every role which has something to say to this node covers.
fn probes(node: &Node) -> [String; 2] {
    [decide::probe(&node.variant), policy::PROBE.to_owned()]
}

/// Goes on with an install that was interrupted: everything it needs was verified and is in root's own folder.
fn go_on(node: &Node, mut journal: Journal, account: &mut Account<'_>) -> Result<Said> {
    log::warn!("transaction {} was interrupted in {:?}; going on", journal.id, journal.state);
    account.about(&journal.bundle);
    let index = reread_index(&node.private("index.json")).map_err(|e| {
        let what = format!("an install was interrupted, and what it was doing cannot be read any more: {e}");
        Error::new(
            Exit::NeedsPerson,
            what,
            "repair the packages, then remove /var/lib/prestage/private/journal.json",
        )
    })?;
    // What the agent that died has left at work is waited for, and if it takes longer, another run goes on.
    if let Err(error) = node.package_manager()?.repair()
        && error.exit == Exit::Deferred
    {
        return Err(error);
    }
    let before = file::read_limited(&node.private("before"), MAX_INDEX)?.unwrap_or_default();
    let before = format::inventory::Inventory::from_text(&String::from_utf8_lossy(&before));
    // Copied again: a file that was being written when the power went may be torn.
    let repo = StagedRepo::begin(node.private("staged"))?;
    let store = Store::open(node.fetched("store"))?;
    let members: Vec<_> =
        index.metadata().chain(index.packages().filter(|m| journal.packages.contains(&m.sha256))).collect();
    repo.copy_verified(&store, &index, &members)?;
    journal.record(Event::Restarted { rebooted: false })?;
    transact(node, repo, before, journal, account)
}

/// restore point → install → check → commit | roll back.
fn transact(
    node: &Node,
    repo: StagedRepo,
    before: format::inventory::Inventory,
    mut journal: Journal,
    account: &mut Account<'_>,
) -> Result<Said> {
    account.transaction(&journal.id);
    account.now(
        NodeState::Installing,
        format!("installing bundle {} (transaction {})", journal.bundle.version, journal.id),
    )?;
    let packages = node.package_manager()?;
    let mut transaction = Transaction {
        node,
        packages: packages.as_ref(),
        restore_points: &NoRestorePoints,
        repo,
        before,
        seen: None,
        failure: None,
    };
    let end = match transaction.run(&mut journal)? {
        State::Finished { end } => end,
        waiting => {
            return Err(Error::new(
                Exit::Deferred,
                format!("transaction {}: {waiting:?}", journal.id),
                "it goes on after the next boot",
            ));
        }
    };
    let now = packages.inventory()?;
    account.changed(transaction.before.changes_to(&now), now.digest());
    account.status().reboot_required = packages.reboot_required();
    account.seen(transaction.seen.take());
    file::remove(transaction.repo.folder())?;
    let concluded =
        transaction::conclude(end, &journal, transaction.failure.take(), packages.words().by_hand);
    let (bundle, changes) = (journal.bundle.clone(), journal.changes.len() as u64);
    let message =
        format!("bundle {}: {changes} packages changed (transaction {})", bundle.version, journal.id);
    journal.close()?;
    concluded?;
    account.status().installed =
        Some(InstalledStatus { bundle, at: node.now(), packages: changes, inventory: now.digest() });
    account.status().plan = None;
    Ok(account.said(Outcome::Installed, NodeState::UpToDate, message))
}

/// `release`: have a bundle again that this node refuses.
fn release(node: &Node, version: &BundleVersion) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Exit::Io, "a release needs root", "run it as root"));
    }
    node.make_folders()?;
    node.make_private_folder()?;
    let _lock = node.lock()?;
    // By whoever is here, and now: everything that was refused until this moment.
    let releases = [Release { version: version.clone(), before: UnixTime(i64::MAX) }];
    let lists =
        [(node.fetched("quarantine.json"), Step::Fetch), (node.private("refused.json"), Step::Install)];
    let mut status = status::load(node);
    let mut released = 0;
    for (path, step) in lists {
        released += Quarantine::open(path, step)?.release(&releases)?.len();
    }
    status.status.quarantine.retain(|q| q.bundle.version != *version);
    status::save(node, &mut status)?;
    print(&match released {
        0 => format!("bundle {version} is not refused here\n"),
        _ => format!("bundle {version} is released; the next `prestage run` tries it again\n"),
    });
    Ok(())
}

/// `report`: send what waits.
fn send_reports(node: &Node) -> Result<()> {
    let sent = report::send(node);
    if node.state().exists() {
        status::save(node, &mut status::load(node))?;
    }
    let sent = sent?;
    if sent > 0 {
        log::info!("{sent} reports were accepted by the centre");
    }
    Ok(())
}

/// `status`.
fn show_status(node: &Node, json: bool) -> Result<()> {
    let status = status::load(node);
    if json {
        print(&serde_json::to_string_pretty(&status).map_err(|e| Error::io("status", &e.into()))?);
        print("\n");
    } else {
        print(&status::text(node, &status)?);
    }
    Ok(())
}
