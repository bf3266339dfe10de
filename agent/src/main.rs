//! `prestage`. Everything is in the library beside it, so that the conformance front can judge the same code.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main()
}
