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
use crate::network::CENTRE;
use crate::run::Seat;
use crate::scale::Scale;
use crate::stock::put;

/// The agent.
pub struct Prestage;

/// A node's own transfer takes this part of the window at the rate that it is allowed, if nothing fails.
const TRANSFER: f64 = 1.0 / 8.0;

/// How often in a window the timer fires.
const TICKS: u32 = 40;

impl Contender for Prestage {
    fn name(&self) -> &'static str {
        "prestage"
    }

    fn furnish(&self, seat: &Seat<'_>) -> Result<()> {
        let bench = seat.run.bench;
        let kind = bench.stock.kind(seat.node);
        kind.furnish(&seat.folder)?;
        let text = configuration(&bench.scale, seat.node, bench.stock.variant.as_str(), kind.bytes);
        Ok(fs::write(seat.folder.join("etc/prestage/agent.toml"), text)?)
    }

    fn live(&self, seat: &Seat<'_>) -> Result<()> {
        let bench = seat.run.bench;
        // Each node has its root at the same path, as real ones do: the plan that is copied holds for that path.
        unshare(CloneFlags::CLONE_NEWNS)?;
        put(&seat.folder, &bench.root)?;
        let scale = &bench.scale;
        let tick = scale.window / TICKS;
        let mut random = Random::new(scale.seed ^ seat.node as u64);
        let mut pause = |least: Duration| least + tick.mul_f64(random.below(1000) as f64 / 1000.0);
        while seat.machine.boot() {
            let mut going = seat.machine.wait(pause(Duration::ZERO));
            while going {
                seat.tries();
                let mut agent = Command::new(program("prestage"));
                agent.arg("--root").arg(&bench.root).arg("fetch");
                match seat.run(&mut agent)? {
                    Ended::Code(0) if is_staged(seat) => {
                        seat.done();
                        return Ok(());
                    }
                    Ended::Code(0 | 1) => {}
                    Ended::Code(_) => seat.failed(),
                    Ended::Cut | Ended::Over => break,
                }
                going = seat.machine.wait(pause(tick));
            }
        }
        Ok(())
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

/// A node's agent.toml.
fn configuration(scale: &Scale, node: usize, variant: &str, needs: u64) -> String {
    format!(
        "[node]\nid = \"{}\"\nvariant = \"{variant}\"\n[repository]\nmirrors = [\"http://{CENTRE}/\"]\n\
         [fetch]\nrate = \"{}kbit/s\"\nstall-timeout-seconds = {}\n",
        scale.id(node),
        (needs as f64 * 8.0 / 1000.0 / (scale.window.as_secs_f64() * TRANSFER)).ceil(),
        (scale.window.as_secs() / 24).max(2),
    )
}

/// Whether the agent says that it has staged what it needs.
fn is_staged(seat: &Seat<'_>) -> bool {
    let status = fs::read(seat.folder.join("var/lib/prestage/status.json")).unwrap_or_default();
    NodeStatus::parse(&status).is_ok_and(|status| status.status.state == State::Staged)
}
