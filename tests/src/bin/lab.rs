//! What the demo and the benches need beside the two programs.
//!
//! ```text
//! prestage-lab measure FILE COMMAND...   runs it; writes "seconds cpu-seconds tree-KiB own-KiB" to FILE
//! prestage-lab bench-fetch [PART]        caps, speed and idle polls, as tables, or one of them
//! prestage-lab bench-share               memory of `prestage share` while it serves ten peers
//! prestage-lab bench-size                the budget of the agent, as a table; 1 if it is exceeded
//! prestage-lab peer-rows                 the agent's rows of the table beside others
//! prestage-lab size-by-crate FILE        where the bytes of an unstripped program are
//! prestage-lab receive FOLDER            accepts reports on loopback, a file each, until it is ended
//! prestage-lab failure-table             runs the common suite for every package manager and prints what came of it
//! prestage-lab kill KILLS [BACKEND...]   kill -9 at random, so often, and prints where each fell and how it ended
//! prestage-lab demo-fleet FOLDER NODES   a rollout over so many real agents, halted and reverted; pictures go to FOLDER
//! prestage-lab tap ADDRESS:PORT          relays to it from another port, writing down requests and counting bytes
//! ```

use std::process::{Command, ExitCode};

use lab::backend::Backend;
use lab::suite::{CASES, Row};
use lab::{measure::measure, receiver::Receiver};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["measure", file, program, rest @ ..] => run_measured(file, program, rest),
        ["bench-fetch"] if lab::bench_fetch::print(None) => Ok(ExitCode::SUCCESS),
        ["bench-fetch", part] if lab::bench_fetch::print(Some(part)) => Ok(ExitCode::SUCCESS),
        ["bench-share"] => {
            lab::bench_share::print();
            Ok(ExitCode::SUCCESS)
        }
        ["bench-size"] => {
            let over = lab::bench_size::print();
            over.iter().for_each(|what| eprintln!("over the budget: {what}"));
            Ok(ExitCode::from(u8::from(!over.is_empty())))
        }
        ["peer-rows"] => {
            lab::bench_size::print_peer_rows();
            Ok(ExitCode::SUCCESS)
        }
        ["size-by-crate", unstripped] => {
            lab::bench_size::print_by_crate(unstripped);
            Ok(ExitCode::SUCCESS)
        }
        ["receive", folder] => receive(folder),
        ["failure-table", only @ ..] => Ok(failure_table(only)),
        ["kill", kills, only @ ..] => return lab::kill::print(kills, only),
        ["demo-fleet", pictures, nodes] => return lab::demo_fleet::print(pictures, nodes),
        ["tap", upstream] => tap(upstream),
        _ => {
            eprintln!(
                "usage: prestage-lab measure FILE COMMAND... | bench-fetch [caps|speed|poll] | bench-share | bench-size | peer-rows | size-by-crate FILE | receive FOLDER | failure-table [BACKEND...] | kill KILLS [BACKEND...] | demo-fleet FOLDER NODES | tap ADDRESS:PORT"
            );
            return ExitCode::from(64);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("prestage-lab: {error}");
        ExitCode::from(74)
    })
}

fn run_measured(file: &str, program: &str, args: &[&str]) -> std::io::Result<ExitCode> {
    let m = measure(Command::new(program).args(args))?;
    let line = format!("{:.3} {:.3} {} {}\n", m.seconds, m.cpu_seconds, m.tree_kib, m.own_kib);
    std::fs::write(file, line)?;
    Ok(ExitCode::from(m.status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(70)))
}

fn receive(folder: &str) -> std::io::Result<ExitCode> {
    let receiver = Receiver::start(Some(folder.into()))?;
    println!("listening on {}", receiver.url());
    loop {
        std::thread::park();
    }
}

/// Each case for each back-end, in markdown. A case that does not hold is said in its row, and the exit code.
fn failure_table(only: &[&str]) -> ExitCode {
    println!(
        "| case | package manager | step | exit | node | proved by |\n| --- | --- | --- | ---: | --- | --- |"
    );
    let mut failed = false;
    for (name, case) in CASES {
        for backend in Backend::ALL.into_iter().filter(|b| only.is_empty() || only.contains(&b.name())) {
            match std::panic::catch_unwind(|| case(backend)) {
                Ok(Row { step, exit, state, proof }) => {
                    println!("| {name} | {} | {step} | {exit} | {state} | {proof} |", backend.name());
                }
                Err(_) => {
                    failed = true;
                    println!("| {name} | {} | | | DOES NOT HOLD | |", backend.name());
                }
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

fn tap(upstream: &str) -> std::io::Result<ExitCode> {
    let upstream = upstream.parse().map_err(std::io::Error::other)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    println!("listening on http://{}", listener.local_addr()?);
    lab::tap::relay(&listener, upstream, &std::sync::Mutex::new(std::io::stdout()))?;
    Ok(ExitCode::SUCCESS)
}
