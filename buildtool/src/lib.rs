//! `prestage-build`: Prestage at the centre. Collects updates from an upstream archive, makes bundles of them, signs and
//! publishes them.

mod blocks; // digests of blocks
mod build_file; // prestage.toml: all variants of a cycle, side by side
mod bundle; // the bundle file and its index
mod check; // everything that is wrong with a published repository
mod cli; // the command line
mod collect; // from an archive and inventories, the packages that are needed
mod delegated; // the roles that targets delegates to
mod delta; // patches from older versions to the packages of a bundle
mod document; // a signed metadata file: content, signatures, who has signed
mod editor; // published state, pending changes, and the edits between them
mod error; // what failed, why, and what to do
mod export; // what one variant needs, as a folder or one tar file
mod keys; // key files
mod local_repo; // Packages and Release of the local repository
mod pending; // documents that wait for signatures
mod policy; // policies from YAML: checked, compared, published
mod progress; // bars and lines
mod publish; // targets first, timestamp last
mod repository; // where files are, and reading them as a node does
mod rfc2822; // the dates of Release files
mod roles; // which keys count: first version and edits
mod root; // key ceremonies in words
mod run; // the verbs
mod serve; // HTTP, for trying things out
mod signer; // keys that another program holds

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use host::clock::{Clock, SystemClock};

use crate::error::Kind;
use crate::progress::Progress;
use crate::run::Context;

/// The command line, for the manual.
pub fn command() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
}

/// The program `prestage-build`: parses what was typed, does it, and says how it ended.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a closed pipe is none either.
            let _ = error.print();
            return if error.use_stderr() { Kind::Usage.exit_code() } else { ExitCode::SUCCESS };
        }
    };
    let context = Context { now: SystemClock::new().now(), progress: Progress::detect(cli.quiet) };
    let answer = match run::run(cli.verb, &context) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("error: {error}");
            return error.kind.exit_code();
        }
    };
    let text = if cli.json {
        format!("{}\n", answer.json)
    } else if cli.quiet {
        String::new()
    } else {
        answer.lines.iter().map(|line| format!("{line}\n")).collect()
    };
    // Who closed the pipe has read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if answer.ok { ExitCode::SUCCESS } else { Kind::No.exit_code() }
}
