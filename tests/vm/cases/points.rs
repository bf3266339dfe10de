//! Rollback by restore points, through a real boot.

use format::report::Outcome;
use format::status::State;

use super::recordings::TIMESHIFT_SETUP;
use crate::log::Log;
use crate::machine::Disks;
use crate::packages::{Till, good, goods, kernel, till};
use crate::ready::Ready;
use crate::world::World;

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
    bad_then_good(&mut world, super::TIMESHIFT)
}

/// A bundle whose till is unhealthy, and the one after it that is not.
fn bad_then_good(world: &mut World, restore: &str) -> Vec<String> {
    world.configure(restore);
    world.release(BAD, &[till("2.0", Till::Unhealthy), goods("2.0", 120)]);
    let facts = roll_back(world, Outcome::RolledBack);

    // The bad one is not tried again, whatever the timers do.
    for _ in 0..2 {
        world.step("fetch").expect("the node stays on");
        world.step("install").expect("the node stays on");
        world.assert_has("1.0");
    }
    assert_eq!(world.install_reports().iter().filter(|r| r.outcome == Outcome::RolledBack).count(), 1);

    // The good one goes through.
    world.release(GOOD, &good("3.0"));
    assert_eq!(world.step("fetch"), Ok(0));
    assert_eq!(world.step("install"), Ok(0));
    world.assert_has("3.0");
    world.step("report").expect("the node stays on");
    assert!(world.has_report(GOOD, &[Outcome::Installed]));
    assert_eq!(world.status().status.state, State::UpToDate);
    facts
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
    // The next runs tell of it.
    for verb in ["install", "report"] {
        world.step(verb).expect("the node stays on");
    }
    world.assert_has("1.0");
    world.assert_files(&before, "after");
    let status = world.status().status;
    assert_eq!(status.state, State::Failed, "{}", status.summary);
    assert!(
        status.quarantine.iter().any(|q| q.bundle.version.as_str() == BAD),
        "the bundle is not refused: {:?}",
        status.quarantine
    );
    assert!(world.has_report(BAD, &[outcome]), "{:?}", world.install_reports());
    let journal = world.node().sh("journalctl -q --no-pager -o cat -u prestage-install");
    // The journal of before the boot went back too: what tells the story is what was said after it.
    assert!(journal.contains("rolled back") || journal.contains("as it was"), "{journal}");
    vec![format!("{} files as before", before.len())]
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
