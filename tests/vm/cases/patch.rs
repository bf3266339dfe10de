//! The good case.

use std::time::Duration;

use format::report::Outcome;
use format::status::{NodeStatus, State};

use crate::log::Log;
use crate::machine::Disks;
use crate::packages::{good, kernel};
use crate::ready::Ready;
use crate::world::{STEP, World};

const FAILED_UNITS: &str = "systemctl list-units --state=failed --plain --no-legend | cut -d' ' -f1";

pub fn by_timers(ready: &Ready, log: &Log) -> Vec<String> {
    let mut world = World::new(ready, Disks::Durable, log);
    let mut debs = good("2.0");
    debs.push(kernel("2.0"));
    world.release("20261123-1", &debs);
    let failed = world.node().sh(FAILED_UNITS);
    world.hurry_timers();
    world.stage_by_timer();
    // From here on nothing comes over the wire.
    world.cut_link();
    let requests = world.mirror.exchanges().len();
    world.node().sh("systemctl start prestage-install.timer");
    let mut told = None;
    world.wait("the bundle is installed", STEP, |world| {
        // At the moment when it says so: the next run of the timer finds nothing more to do, and says that.
        let said = world.node().quiet_shell("cat /var/lib/prestage/status.json", Duration::from_secs(20));
        told = said.ok().and_then(|said| NodeStatus::parse(said.text.as_bytes()).ok()).map(|s| s.status);
        told.as_ref().and_then(|s| s.install.as_ref()).is_some_and(|i| i.outcome == Outcome::Installed)
    });
    let status = told.expect("a status");
    assert_eq!(status.state, State::UpToDate, "{}", status.summary);
    world.assert_has("2.0");
    let install = status.install.expect("the install step");
    assert_eq!(install.outcome, Outcome::Installed, "{}", install.message);
    assert_eq!(install.network_seen.as_deref(), Some(["lo down".to_owned()].as_slice()));
    assert!(status.reports_queued > 0, "the report waits for the link");
    assert_eq!(world.mirror.exchanges().len(), requests, "the mirror was not asked");
    assert!(!world.has_report("20261123-1", &[Outcome::Installed]), "no report can have come");

    // The link comes back, and with it the report.
    world.node().link(true);
    world.wait("the report arrives", STEP, |world| world.has_report("20261123-1", &[Outcome::Installed]));
    assert_eq!(world.receiver.refused(), Vec::<String>::new());

    // And the node boots, with the kernel that the bundle brought.
    world.node().reboot().expect("the node boots");
    world.assert_has("2.0");
    let command_line = world.node().sh("cat /proc/cmdline");
    assert!(command_line.contains("vmlinuz-99-till2.0"), "{command_line}");
    let fails = world.node().sh(FAILED_UNITS);
    let new: Vec<&str> = fails.lines().filter(|unit| !failed.lines().any(|known| known == *unit)).collect();
    assert!(new.is_empty(), "no unit has failed that had not before: {new:?}");
    vec![
        format!("{} packages", install.message.split(' ').nth(2).unwrap_or("?")),
        format!("installed in {} s without a link", install.seconds),
        format!("the package manager saw {:?}", install.network_seen.unwrap_or_default()),
    ]
}
