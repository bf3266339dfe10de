//! `prestage-build`. Everything is in the library beside it, so that the manual can be made of the same command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    buildtool::main()
}
