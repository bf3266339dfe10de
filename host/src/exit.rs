//! The exit codes of the programs of the centre: those of sysexits(3), and 1 for "no". The agent's, which say how a node
//! stands, are its own (`agent::error::Exit`); where both have a code it means the same.

use std::process::ExitCode;

/// What kind of failure it is; decides the exit code and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The answer is no: thresholds are not met, problems were found. Exit 1.
    No,
    /// The command line asks for what cannot be. Exit 64.
    Usage,
    /// An input is not what it must be: damaged, unsigned, contradictory. Exit 65.
    Data,
    /// Another program, an archive, a database or an address is not available. Exit 69.
    Unavailable,
    /// Reading or writing failed. Exit 74.
    Io,
    /// A configuration file is wrong. Exit 78.
    Config,
}

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Kind::No => 1,
            Kind::Usage => 64,
            Kind::Data => 65,
            Kind::Unavailable => 69,
            Kind::Io => 74,
            Kind::Config => 78,
        })
    }
}
