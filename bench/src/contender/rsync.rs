//! The whole bundle, pushed from the data centre with rsync to twenty nodes at a time, as the usual scripts do it.
//!
//! To be kind to it: every node runs an rsync daemon, which is cheaper than ssh; the list is shuffled, so that twenty
//! transfers do not share four lines; and nodes that failed get two more passes, each after the one before.

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use format::digest::Sha256;
use lab::random::Random;

use super::Contender;
use crate::Result;
use crate::faults::choose;
use crate::machine::{Ended, Machine};
use crate::network::address;
use crate::run::{Run, Seat};
use crate::scale::Scale;

/// Transfers at a time.
const PARALLEL: usize = 20;

/// `--bwlimit`, in KiB/s.
const LIMIT: u32 = 2048;

/// Passes over the list.
const PASSES: u32 = 3;

/// A daemon that does not listen by then has no power.
const START: Duration = Duration::from_secs(1);

/// Between two looks for work, while others are at the last transfers of a pass.
const PAUSE: Duration = Duration::from_millis(100);

/// rsync, and who is left to be sent to.
pub struct Rsync {
    list: Mutex<VecDeque<(usize, u32)>>,
}

impl Rsync {
    /// For a fleet.
    pub fn new(scale: &Scale) -> Rsync {
        let nodes = choose(scale.nodes(), &mut Random::new(scale.seed));
        Rsync { list: Mutex::new(nodes.into_iter().map(|node| (node, 1)).collect()) }
    }

    fn next(&self) -> Option<(usize, u32)> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn again(&self, node: usize, pass: u32) {
        if pass < PASSES {
            self.list.lock().unwrap_or_else(PoisonError::into_inner).push_back((node, pass + 1));
        }
    }
}

/// Where the daemons listen.
const PORT: u16 = 8730;

/// The release finds daemons that have long been there.
fn wait_for_daemon(address: &str) {
    let end = Instant::now() + START;
    let address = (address, PORT);
    while TcpStream::connect(address).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
        if Instant::now() > end {
            break;
        }
        std::thread::sleep(PAUSE / 4);
    }
}

impl Contender for Rsync {
    fn name(&self) -> &'static str {
        "rsync"
    }

    fn furnish(&self, seat: &Seat<'_>) -> Result<()> {
        fs::create_dir(seat.folder.join("incoming"))?;
        let folder = seat.folder.display();
        let text = format!(
            "use chroot = no\nuid = root\ngid = root\nlog file = {folder}/rsyncd.log\nreverse lookup = no\n\
             [incoming]\npath = {folder}/incoming\nread only = no\n"
        );
        Ok(fs::write(seat.folder.join("rsyncd.conf"), text)?)
    }

    fn live(&self, seat: &Seat<'_>) -> Result<()> {
        let scale = &seat.run.bench.scale;
        let address = address(scale.store_of(seat.node), seat.node % scale.nodes_per_store);
        loop {
            let mut daemon = Command::new("rsync");
            daemon.args(["--daemon", "--no-detach", "--port", &PORT.to_string(), "--address", &address]);
            daemon.arg("--config").arg(seat.folder.join("rsyncd.conf"));
            match seat.run(&mut daemon)? {
                Ended::Over => return Ok(()),
                Ended::Cut => {} // it is a service: it is there again after boot
                Ended::Code(code) => return Err(format!("an rsync daemon ended with code {code}").into()),
            }
        }
    }

    fn senders(&self) -> usize {
        PARALLEL
    }

    fn send(&self, run: &Run<'_>, machine: &Machine) -> Result<()> {
        let scale = &run.bench.scale;
        loop {
            let Some((node, pass)) = self.next() else {
                // Somebody else's transfer may fail yet.
                if machine.wait(PAUSE) || machine.boot() {
                    continue;
                }
                return Ok(());
            };
            let seat = run.seat(node);
            let address = address(scale.store_of(node), node % scale.nodes_per_store);
            match pass {
                1 => wait_for_daemon(&address),
                _ => _ = machine.wait(scale.pause()),
            }
            // 300 seconds in the scripts, for a window of days; but what waits in a thin line takes its time.
            let timeout = (scale.window.as_secs() / 12).max(10);
            let mut rsync = Command::new("rsync");
            rsync.args(["-a", "--partial", &format!("--bwlimit={LIMIT}"), &format!("--timeout={timeout}")]);
            rsync.arg(format!("--contimeout={timeout}")).arg(&run.bench.stock.bundle);
            rsync.arg(format!("rsync://{address}:{PORT}/incoming/bundle.tar.gz"));
            let log = fs::File::options().create(true).append(true).open(seat.folder.join("log"))?;
            rsync.stdout(Stdio::null()).stderr(log);
            seat.busy(true);
            let ended = machine.run(&mut rsync)?;
            seat.busy(false);
            seat.tried();
            match ended {
                Ended::Code(0) => seat.done(),
                Ended::Over => return Ok(()),
                Ended::Code(_) | Ended::Cut => self.again(node, pass),
            }
        }
    }

    fn holds(&self, seat: &Seat<'_>) -> Result<bool> {
        let mut file = fs::File::open(seat.folder.join("incoming/bundle.tar.gz"))?;
        Ok(Sha256::of_reader(&mut file)?.0 == seat.run.bench.stock.bundle_digest)
    }
}
