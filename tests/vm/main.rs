//! The virtual machine laboratory: a real node, with systemd, GRUB and its root on an LVM thin volume, patched, broken,
//! rolled back, and switched off at any moment. How it works: docs/development/vm-lab.md.
//!
//! ```text
//! prestage-vm                  every case
//! prestage-vm WORD...          those whose names contain one of the words
//! prestage-vm --list           their names and promises
//! prestage-vm --prepare        only what all cases begin with
//! ```
//!
//! From the environment: `PRESTAGE_VM_LOGS` (the folder of logs), `PRESTAGE_VM_CUTS` (how many power cuts),
//! `PRESTAGE_SEED` (where they fall), `PRESTAGE_VM_QUIET` (nothing of the logs on the terminal), `PRESTAGE_VM_AGENT` (an
//! agent other than `target/dist/prestage`, such as one that was built for this distribution), `PRESTAGE_VM_NICE` (10), `PRESTAGE_VM_SLOT` (a number for each
//! laboratory, where several are to run at a time).

mod cases;
mod log;
mod machine;
mod packages;
mod ready;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cases::{CASES, Standing};
use log::Log;
use nix::fcntl::{Flock, FlockArg};
use ready::Ready;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        for case in CASES {
            println!("{:<28} {}", case.name, case.promise);
        }
        return ExitCode::SUCCESS;
    }
    let project =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the project").to_owned();
    let logs = std::env::var_os("PRESTAGE_VM_LOGS").map_or_else(|| project.join("target/vm"), PathBuf::from);
    let only_prepare = words.iter().any(|word| word == "--prepare");
    let chosen: Vec<_> = CASES
        .iter()
        .filter(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())))
        .collect();
    if chosen.is_empty() && !only_prepare {
        eprintln!("prestage-vm: no case has {words:?} in its name; --list shows them");
        return ExitCode::from(64);
    }
    // One machine at a time: two would only be slower, and run into time limits. Who has the processors for it says so.
    let cache = project.join(".cache/vm");
    std::fs::create_dir_all(&cache).expect("a folder for what is kept");
    let lock = std::fs::File::create(cache.join(format!("lab{}.lock", world::slot()))).expect("a lock file");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("the lock");
    let began = Instant::now();
    let ready = Ready::get(&project, &logs);
    eprintln!("== the node {} is ready after {} s", ready.key, began.elapsed().as_secs());
    if only_prepare {
        return ExitCode::SUCCESS;
    }

    let is_loud = std::env::var_os("PRESTAGE_VM_QUIET").is_none();
    println!("| case | seconds | ended | facts |\n| --- | ---: | --- | --- |");
    let mut has_failed = false;
    for case in chosen {
        let began = Instant::now();
        let log = Log::begin(&logs.join(case.name), is_loud);
        log.say(&format!("== {}: {}", case.name, case.promise));
        let result = catch_unwind(AssertUnwindSafe(|| (case.run)(&ready, &log)));
        let result = result.map_err(|why| text_of(why.as_ref()));
        if let Err(why) = &result {
            log.say(&format!("== {why}"));
        }
        let (is_failure, ended, facts) = match (result, case.standing) {
            (Ok(facts), Standing::Holds) => (false, "holds", facts.join("; ")),
            (Err(why), Standing::Holds) => (true, "DOES NOT HOLD", first_line(&why)),
            // A mark that is not true any more hides the next failure.
            (Ok(_), Standing::NotYet(_)) => (true, "HOLDS, AND IS MARKED AS NOT YET", String::new()),
            (Err(_), Standing::NotYet(reason)) => (false, "not yet", reason.to_owned()),
        };
        has_failed |= is_failure;
        println!("| {} | {} | {ended} | {facts} |", case.name, began.elapsed().as_secs());
    }
    eprintln!("== logs: {}", logs.display());
    ExitCode::from(u8::from(has_failed))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().replace('|', "/")
}
