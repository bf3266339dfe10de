//! The node's program: patches a node from a signed, staged bundle, with the network cut off.
//!
//! One-shot: started by systemd timers or by hand, does what is due, says how it ended, exits. The order of the work
//! stands in [`run`].

mod account; // what a step was about and how it ended, into status and report
mod aside; // who served wrong bytes, put aside for a while
pub mod backoff; // when to come again after a failure: pure
mod bundle; // the index of an offered bundle, verified and for this node
mod by_hand; // what a person asks for and no timer does
mod cli; // what was typed, one struct for each verb
mod config; // agent.toml and drop-ins: as typed → merged → valid
mod decide; // which bundle, and whether now: pure
mod delays; // how fast mirrors answer on an idle line, from run to run
mod delta; // packages made of what is installed and a patch
mod doctor; // what is configured, what is missing, what comes next, in plain words
mod enroll; // which repository this node belongs to, and where trust begins
mod error; // exit codes, and errors that name the cure
mod fetch; // bytes in: transports, ranges, resume, throttle
mod fleet; // what this node tells prestage-fleet, and what that answers
mod heal; // what is cured without hands before an install
pub mod help; // what is said about each verb, option and exit code
mod incoming; // what was pushed here, whole or not yet
mod key; // the key that this node signs its reports with
mod logging; // to the journal, syslog or the terminal
mod node; // this machine: paths, identity, clock, settings, in one value
mod pace; // this node's own time to fetch, kept from run to run
mod packages; // the package manager, behind one trait
mod plan; // what this node needs of a bundle
mod policy; // what the centre has signed for this node
mod progress; // how a transfer is going, for those who watch
mod quarantine; // bundles that this node refuses
mod queue; // reports that wait: in order, bounded, on a full disk too
mod reboot; // the boot that an install or a rollback needs
mod recover; // an install that has begun, to its end or back
mod refresh; // trusted metadata, from any transport
mod render; // templates that an operator can override
mod report; // outcomes on their way to the centre
mod restore; // restore points, behind one trait
mod run; // the verbs, from top to bottom
mod share; // what one node of a site has fetched, given to the others
mod space; // enough of it, asked before anything is written
pub mod spread; // when this node acts, so that not all act at once: pure
mod stage; // verified members as a local package repository
mod status; // status.json and its faces
mod store; // content by its hash, whole or partial
#[cfg(test)]
mod test_clock; // a clock that moves only when somebody sleeps
mod transaction; // the install as a state machine
mod transfer; // what surrounds the fetching of one step: rule, watchers, order of mirrors
mod verify; // an export or repository, checked to the last byte
mod window; // when an install may begin, and whether it fits

#[cfg(fuzzing)]
pub mod fuzzing; // the readers below, for fuzz/

/// The TUF client as nodes run it: for the conformance front, which must judge this code and no other.
pub mod client {
    pub use crate::config::load as settings;
    pub use crate::error::{Error, Exit};
    pub use crate::fetch::{
        Changed, Client, HttpMirror, Range, Traffic, Transport, TransportError, read_all,
    };
    pub use crate::refresh::{Keep, Refusal, Source};
}

use std::process::ExitCode;

use error::Exit;

/// The program `prestage`: parses what was typed, does it, and says how it ended.
pub fn main() -> ExitCode {
    let exit = match cli::parse(std::env::args_os()) {
        Ok(cli::Action::Print(text)) => {
            print(&text);
            Exit::Done
        }
        Ok(cli::Action::Run(options, verb)) => {
            logging::start(options.verbose);
            run::run(&options, &verb).unwrap_or_else(|error| say(&error))
        }
        Err(error) => say(&error),
    };
    ExitCode::from(exit as u8)
}

/// Says why it ended, in one line; what is only put off is not called an error.
fn say(error: &error::Error) -> Exit {
    let kind = if error.exit == Exit::Deferred { "deferred" } else { "error" };
    eprintln!("{kind}: {error}");
    error.exit
}

/// Writes to standard output; a closed pipe is no error.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
