//! Ways to bring a fleet its patches.

mod apt; // every node from the archive, when it is time to patch
mod curl; // every node the whole bundle, all at once
mod prestage; // the agent
mod rsync; // the whole bundle pushed to every node, twenty at a time

pub use apt::Apt;
pub use curl::Curl;
pub use prestage::Prestage;
pub use rsync::Rsync;

use crate::Result;
use crate::machine::Machine;
use crate::run::{Run, Seat};
use crate::scale::Scale;

/// One way.
pub trait Contender: Sync {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Makes a node of its kind, before anything runs.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn furnish(&self, seat: &Seat<'_>) -> Result<()>;

    /// What happens on a node from the release on, until it has everything or the bench is over; called in the network
    /// of the node's store, in a thread of its own. Says to the seat what is to be counted.
    ///
    /// # Errors
    /// If a program cannot be started.
    fn live(&self, seat: &Seat<'_>) -> Result<()>;

    /// How many senders it has in the data centre.
    fn senders(&self) -> usize {
        0
    }

    /// What one of them does; called in the data centre's network.
    ///
    /// # Errors
    /// If a program cannot be started.
    fn send(&self, run: &Run<'_>, machine: &Machine) -> Result<()> {
        let _ = (run, machine);
        Ok(())
    }

    /// How often the node has tried, where that is counted by a script of its own.
    fn tries_of(&self, seat: &Seat<'_>) -> Option<u32> {
        let _ = seat;
        None
    }

    /// Whether the node has everything that it needs, to the last byte; asked when all is over.
    ///
    /// # Errors
    /// If it cannot be read.
    fn holds(&self, seat: &Seat<'_>) -> Result<bool>;
}

/// The usual loop around a command that may fail, in sh(1): again after a pause, until it works. Counts its tries.
fn until_it_works(command: &str, scale: &Scale) -> String {
    let pause = scale.pause().as_secs_f64();
    format!("echo >>tries\nuntil {command}\ndo\nsleep {pause:.2}\necho >>tries\ndone\n")
}

/// The number of tries that such a loop has counted.
fn counted(seat: &Seat<'_>) -> Option<u32> {
    let tries = std::fs::read(seat.folder.join("tries")).unwrap_or_default();
    u32::try_from(tries.len()).ok()
}
