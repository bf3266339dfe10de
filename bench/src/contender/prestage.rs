//! The agent, as it is shipped, started by timers like those of its systemd units.

use std::fs;
use std::process::Command;
use std::time::Duration;

use format::status::{NodeStatus, State};
use lab::random::Random;
use lab::sandbox::program;

use nix::sched::{CloneFlags, unshare};

use super::Contender;
use super::apt::has_packages;
use crate::Result;
use crate::machine::Ended;
use crate::network::{CENTRE, address};
use crate::run::Seat;
use crate::scale::Scale;
use crate::stock::put;

/// The agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prestage {
    /// It waits for its turn and keeps to its rate.
    Paced,
    /// The same, and the nodes of a store give each other what one of them has.
    Sharing,
    /// It is as fast as it can be, at once.
    Hurried,
}

/// Where the nodes of a store give what they have.
const SHARE: u16 = 8571;

impl Contender for Prestage {
    fn name(&self) -> &'static str {
        match self {
            Prestage::Paced | Prestage::Hurried => "prestage",
            Prestage::Sharing => "prestage sharing",
        }
    }

    fn furnish(&self, seat: &Seat<'_>) -> Result<()> {
        let bench = seat.run.bench;
        let kind = bench.stock.kind(seat.node);
        kind.furnish(&seat.folder)?;
        let needs = (*self != Prestage::Hurried).then(|| bench.stock.needs());
        let mut text = configuration(&bench.scale, seat.node, bench.stock.variant.as_str(), needs);
        if *self == Prestage::Sharing {
            text += &sharing(&bench.scale, seat.node);
        }
        Ok(fs::write(seat.folder.join("etc/prestage/agent.toml"), text)?)
    }

    fn live(&self, seat: &Seat<'_>) -> Result<()> {
        let bench = seat.run.bench;
        // Each node has its root at the same path, as real ones do: the plan that is copied holds for that path.
        unshare(CloneFlags::CLONE_NEWNS)?;
        put(&seat.folder, &bench.root)?;
        std::thread::scope(|scope| {
            // In the same namespaces as this thread; with power and bench it ends.
            let giver = (*self == Prestage::Sharing).then(|| scope.spawn(|| give(seat)));
            let fetched = self.call(seat);
            let gave = giver.map_or(Ok(()), |giver| {
                giver.join().unwrap_or_else(|_| Err("a thread that gives to the site died".into()))
            });
            fetched.and(gave)
        })
    }

    fn holds(&self, seat: &Seat<'_>) -> Result<bool> {
        for staged in fs::read_dir(seat.folder.join("var/lib/prestage/fetch/staged"))? {
            if has_packages(&staged?.path().join("pool"), &seat.run.bench.stock.kind(seat.node).needs)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Prestage {
    /// Calls the agent by its timer until it has everything or the bench is over.
    fn call(self, seat: &Seat<'_>) -> Result<()> {
        let bench = seat.run.bench;
        let (timer, mut random) = (bench.scale.timer(), Random::new(bench.scale.seed ^ seat.node as u64));
        let mut upto = |seconds: f64| random.below(1 << 20) as f64 / f64::from(1 << 20) * seconds;
        let seconds = Duration::from_secs_f64;
        // The release finds a fleet whose polls have long been spread.
        let first = if self != Prestage::Hurried { bench.scale.pace().poll_every as f64 } else { 0.0 };
        let mut going = seat.machine.wait(seconds(upto(first)));
        loop {
            while going {
                let mut agent = Command::new(program("prestage"));
                agent.arg("--root").arg(&bench.root).arg("fetch");
                seat.busy(true);
                let ended = seat.run(&mut agent)?;
                seat.busy(false);
                let done = ended == Ended::Code(0) && is_staged(seat);
                // Otherwise it has only looked, or waits for its turn.
                if done || !matches!(ended, Ended::Code(0 | 1)) {
                    seat.tried();
                }
                if done {
                    seat.done();
                    return Ok(());
                }
                if matches!(ended, Ended::Cut | Ended::Over) {
                    break;
                }
                going = seat.machine.wait(seconds(timer.every + upto(timer.jitter)));
            }
            if !seat.machine.boot() {
                return Ok(());
            }
            going = seat.machine.wait(seconds(timer.boot + upto(timer.jitter)));
        }
    }
}

/// What systemd does for a node that gives: the program is there whenever there is power.
fn give(seat: &Seat<'_>) -> Result<()> {
    let scale = &seat.run.bench.scale;
    let address = address(scale.store_of(seat.node), seat.node % scale.nodes_per_store);
    while seat.machine.boot() {
        let mut share = Command::new(program("prestage"));
        share.arg("--root").arg(&seat.run.bench.root);
        share.args(["share", "--listen", &format!("{address}:{SHARE}")]);
        if let Ended::Code(code @ 1..) = seat.run(&mut share)? {
            return Err(format!("prestage share ended with code {code}; see its node's log").into());
        }
    }
    Ok(())
}

/// The part of agent.toml about the site.
fn sharing(scale: &Scale, node: usize) -> String {
    let peers = (0..scale.nodes_per_store).map(|n| format!("{}:{SHARE}", address(scale.store_of(node), n)));
    let patience = scale.stall().as_secs();
    format!("[share]\nserve = true\npeers = {:?}\npatience-seconds = {patience}\n", peers.collect::<Vec<_>>())
}

/// A node's agent.toml; `needs`: what its rate is to be made for.
fn configuration(scale: &Scale, node: usize, variant: &str, needs: Option<f64>) -> String {
    let pace = scale.pace();
    let rate = needs.map(|needs| format!("{}kbit/s", (scale.rate(needs) / 1000.0).ceil()));
    format!(
        "[node]\nid = \"{}\"\nvariant = \"{variant}\"\n[repository]\nmirrors = [\"http://{CENTRE}/\"]\n\
         [fetch]\nrate = \"{}\"\npaced = {}\nstall-timeout-seconds = {}\npoll-every = \"{}s\"\n\
         spread-over = \"{}s\"\nretry-first = \"{}s\"\nretry-cap = \"{}s\"\n",
        scale.id(node),
        rate.as_deref().unwrap_or("unlimited"),
        rate.is_some(),
        scale.stall().as_secs(),
        pace.poll_every,
        pace.spread_over,
        pace.retry_first,
        pace.retry_cap,
    )
}

/// Whether the agent says that it has staged what it needs.
fn is_staged(seat: &Seat<'_>) -> bool {
    let status = fs::read(seat.folder.join("var/lib/prestage/status.json")).unwrap_or_default();
    NodeStatus::parse(&status).is_ok_and(|status| status.status.state == State::Staged)
}
