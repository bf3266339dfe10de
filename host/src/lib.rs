//! The machine: durable files, commands, the clock, namespaces.
//!
//! The only crate that knows `nix`. It decides nothing: what to write, run or wait for is its callers' business.

/// The `target` of what [`detail!`] says.
pub const DETAIL: &str = "detail";

/// Says what a person sees who asks for every step (`--verbose`). Not `log::debug!`, of which the program has none: the
/// libraries have far more to say there than we, and nobody has asked them.
#[macro_export]
macro_rules! detail {
    ($($words:tt)+) => { $crate::log::info!(target: $crate::DETAIL, $($words)+) };
}

#[doc(hidden)]
pub use log; // for the macro

pub mod clock; // what time it is, and waiting: one trait, so that tests give the time
pub mod command; // another program: fixed environment, its output, the end of its stderr in the error
pub mod dialogue; // another program that is asked one thing, within a time, and may ask the operator
pub mod exit; // exit codes of the programs of the centre
pub mod file; // replaced files, locks, free space
pub mod inhibit; // nobody powers the machine off meanwhile
pub mod isolation; // an empty network namespace, and another root directory, for one child process
pub mod link; // the links of this machine
pub mod notify; // one line of status for the service manager
pub mod rights; // root's hand in somebody else's folder
pub mod schedule; // windows as moments, in a time zone: pure
pub mod zone; // what the clocks of a time zone show, from the system's database
