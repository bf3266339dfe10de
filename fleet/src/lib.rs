//! The fleet server: reports in, and everything that is asked about a fleet out.
//!
//! `serve` listens, `api` answers, `ingest` takes what nodes send, `store` remembers, `watch` does what must be done unasked,
//! `control` has another program publish. It holds no key that a node believes: what it can do to a node at most is to
//! have a rollout held back, or one of the bundles chosen that `bundles` has signed.

pub mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod error;
pub mod events;
pub mod ingest;
pub mod kube;
pub mod limits;
pub mod metrics;
pub mod repository;
pub mod rollout;
pub mod serve;
pub mod store;
pub mod watch;

use std::process::ExitCode;

/// `prestage-fleet`: reads the command line, does it, says how it ended.
pub fn main() -> ExitCode {
    cli::start_log();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.kind.exit_code()
        }
    }
}
