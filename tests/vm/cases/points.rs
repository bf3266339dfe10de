//! Rollback by restore points, through a real boot.

use std::time::{Duration, Instant};

use format::report::Outcome;
use format::status::State;

use super::recordings::TIMESHIFT_SETUP;
use crate::log::Log;
use crate::machine::Disks;
use crate::packages::{Till, good, goods, kernel, till};
use crate::ready::Ready;
use crate::world::{STEP, World};

const BAD: &str = "20261123-1";
const GOOD: &str = "20261123-2";

pub fn thin(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    let facts = bad_then_good(&mut world, super::THIN);
    let volumes = world.node().sh("lvs --noheadings -o lv_name,lv_merging vg0");
    assert!(!volumes.contains("merging"), "{volumes}");
    facts
}

pub fn timeshift(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.node().sh(TIMESHIFT_SETUP);
    // It writes its configuration anew whenever it is called.
    let _ = world.node().shell("timeshift --list --scripted", STEP);
    bad_then_good(&mut world, super::TIMESHIFT)
}

/// How long an install, a way back and a boot may take; Timeshift copies the whole root.
const WAY_BACK: Duration = Duration::from_secs(3600);

/// Everything by the package's own timers: a bundle whose till is unhealthy, with the link cut once it is staged; and the one
/// after it that is well.
fn bad_then_good(world: &mut World, restore: &str) -> Vec<String> {
    world.configure(restore);
    world.hurry_timers();
    let before = world.files("before");
    world.release(BAD, &[till("2.0", Till::Unhealthy), goods("2.0", 120)]);
    world.stage_by_timer();
    world.cut_link();
    let requests = world.mirror.exchanges().len();
    let began = Instant::now();
    world.node().sh("systemctl start prestage-install.timer");
    // It installs, finds the till unhealthy, goes back and boots, and nobody lays a hand on it.
    let booted = world.node().wait_for_boot_within(WAY_BACK);
    booted.unwrap_or_else(|silence| panic!("it does not go back and boot: {silence}"));
    let back = began.elapsed().as_secs();
    assert_eq!(world.mirror.exchanges().len(), requests, "the mirror was asked without a link");
    assert!(!world.has_report(BAD, &[Outcome::RolledBack]), "no report can have come");
    world.node().link(true);
    world.wait("the report arrives", STEP, |world| world.has_report(BAD, &[Outcome::RolledBack]));
    is_back(world, &before, Outcome::RolledBack);

    // The bad one is not tried again, whatever the timers do.
    world.wait_for_runs(2);
    world.assert_has("1.0");
    assert_eq!(world.install_reports().iter().filter(|r| r.outcome == Outcome::RolledBack).count(), 1);

    // The good one goes through.
    world.release(GOOD, &good("3.0"));
    world.wait("the good bundle", WAY_BACK, |world| world.has_report(GOOD, &[Outcome::Installed]));
    world.assert_has("3.0");
    let status = world.status().status;
    assert_eq!(status.state, State::UpToDate, "{}", status.summary);
    assert_eq!(world.receiver.refused(), Vec::<String>::new());
    vec![format!("{} files as before", before.len()), format!("bad bundle, way back and boot: {back} s")]
}

pub fn failed_install(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.configure(super::THIN);
    world.release(BAD, &[till("2.0", Till::Unconfigurable), goods("2.0", 120)]);
    roll_back(&mut world, Outcome::InstallFailed)
}

/// Installs the bad bundle, which ends so, and proves that the node is as it was.
fn roll_back(world: &mut World, outcome: Outcome) -> Vec<String> {
    let before = world.files("before");
    assert_eq!(world.step("fetch"), Ok(0));
    // It boots by itself, in the middle of the step or after it.
    let installed = world.step("install");
    world
        .node()
        .wait_for_boot()
        .unwrap_or_else(|silence| panic!("after {installed:?} it does not boot: {silence}"));
    // What it does at the boot tells of it.
    world.step("report").expect("the node stays on");
    is_back(world, &before, outcome);
    assert_ne!(world.step("install"), Ok(0), "it is tried again");
    vec![format!("{} files as before", before.len())]
}

/// The node is as it was, and says why; the centre has heard of it.
fn is_back(world: &mut World, before: &[String], outcome: Outcome) {
    world.assert_has("1.0");
    world.assert_files(before, "after");
    let status = world.status().status;
    assert_eq!(status.state, State::Failed, "{}", status.summary);
    assert!(
        status.quarantine.iter().any(|q| q.bundle.version.as_str() == BAD),
        "the bundle is not refused: {:?}",
        status.quarantine
    );
    assert!(world.has_report(BAD, &[outcome]), "{:?}", world.install_reports());
    let journal =
        world.node().sh("journalctl -b -q --no-pager -o cat -u prestage-install -u prestage-recover");
    // The journal of before the boot went back too: what tells the story is what was said after it.
    assert!(journal.contains("rolled back") || journal.contains("as it was"), "{journal}");
}

pub fn kernel_case(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    world.configure(super::THIN);
    world.release(BAD, &[till("2.0", Till::Unhealthy), goods("2.0", 40), kernel("2.0")]);
    let facts = roll_back(&mut world, Outcome::RolledBack);
    let left = world.node().sh("ls /boot /lib/modules; grep -c till2.0 /boot/grub/grub.cfg || true");
    assert!(!left.contains("99-till2.0"), "{left}");
    // Also after one more boot, whatever the menu says.
    world.node().reboot().expect("the node boots");
    world.assert_has("1.0");
    facts
}
