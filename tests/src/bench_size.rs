//! The budget of the agent as it is shipped: size of the program, peak memory of each verb over TLS, CPU of a run that has
//! nothing to do. `make bench-size` prints it and fails where it is exceeded.

use std::fs;
use std::process::Command;

use crate::debs::Deb;
use crate::measure::{measure, measure_apart};
use crate::sandbox::{command, program, run};
use crate::services::{Authority, Nginx};
use crate::world::{VERSION, World};

/// Bytes of the program, and what it should come to.
const SIZE: (u64, u64) = (2_359_296, 1_835_008);

/// KiB of any verb, and what it should come to.
const MEMORY: (u64, u64) = (6 * 1024, 3 * 1024);

/// Milliseconds of CPU of a run that has nothing to do.
const CPU: f64 = 10.0;

/// Runs of a verb that is quick to repeat: the most of all counts.
const ROUNDS: usize = 10;

/// Packages of the bundle, and bytes of the largest.
const PACKAGES: usize = 60;
const LARGEST: usize = 64 * 1024 * 1024;

/// Prints the table; what exceeds the budget.
///
/// # Panics
/// If a verb does not end as it should.
pub fn print() -> Vec<String> {
    let mut over = Vec::new();
    let size = fs::metadata(program("prestage")).expect("the program").len();
    println!("| | measured | at most | goal |\n| --- | ---: | ---: | ---: |");
    println!("| program, bytes | {size} | {} | {} |", SIZE.0, SIZE.1);
    if size > SIZE.0 {
        over.push(format!("the program has {size} bytes, of at most {}", SIZE.0));
    }
    // First: a file system from which much was removed just before looks long for a place for each file that is written.
    let milliseconds = idle_run();
    println!("| CPU of a run that has nothing to do, ms | {milliseconds:.1} | {CPU} | |");
    if milliseconds > CPU {
        over.push(format!(
            "a run that has nothing to do takes {milliseconds:.1} ms of CPU, of at most {CPU}"
        ));
    }
    for (verb, kib) in memory() {
        println!("| peak memory of {verb}, KiB | {kib} | {} | {} |", MEMORY.0, MEMORY.1);
        if kib > MEMORY.0 {
            over.push(format!("{verb} takes {kib} KiB, of at most {}", MEMORY.0));
        }
    }
    over
}

fn bundle() -> World {
    let name = |i: usize| format!("till-{i:03}");
    let old: Vec<Deb> = (0..PACKAGES).map(|i| Deb::new(&name(i), "1.0")).collect();
    let new = |i| Deb::new(&name(i), "2.0").payload(if i == 0 { LARGEST } else { 20_000 });
    World::with(&old, &(0..PACKAGES).map(new).collect::<Vec<_>>())
}

/// Each verb with its peak, in the order of a node's life.
fn memory() -> Vec<(String, u64)> {
    let world = bundle();
    let authority = Authority::new(&world.sandbox, "authority");
    let nginx = Nginx::tls(&authority, &world.centre.repository(), false);
    world.node.write("/etc/prestage/ca.pem", fs::read(authority.certificate()).expect("a certificate"));
    let more = format!("ca-file = \"/etc/prestage/ca.pem\"\n[report]\nurl = \"{}\"\n", world.receiver.url());
    world.node.configure(&[&nginx.url()], &more);
    let tar = world.export("export.tar");

    let mut out = Vec::new();
    let mut peak = |name: &str, rounds: usize, before: &dyn Fn(), mut verb: Command| {
        let mut most = 0;
        for _ in 0..rounds {
            before();
            let measured = measure(verb.stdout(std::process::Stdio::null())).expect("the agent");
            assert!(measured.status.success(), "{name}: {:?}", measured.status);
            most = most.max(measured.own_kib);
        }
        assert_ne!(most, 0, "{name}: ended each time before it could be looked at");
        out.push((name.to_owned(), most));
    };
    let nothing = || ();
    let forget = || drop(fs::remove_dir_all(world.node.path("/var/lib/prestage")));
    let node = &world.node;
    let with = |args: &[&str], path: &std::path::Path| {
        let mut command = node.prestage([]);
        command.args(args).arg(path);
        command
    };
    peak("`config check`", ROUNDS, &nothing, node.prestage(["config", "check"]));
    peak("`doctor`", ROUNDS, &nothing, node.prestage(["doctor"]));
    peak("`verify` (file)", 2, &nothing, with(&["verify"], &tar));
    peak("`import` (file)", 2, &forget, with(&["import"], &tar));
    peak("`import` (folder)", 2, &forget, with(&["import"], &world.centre.repository()));
    peak("`fetch`, https", 2, &forget, node.prestage(["fetch"]));
    peak("`fetch` again, https", ROUNDS, &nothing, node.prestage(["fetch"]));
    peak("`install`", 1, &nothing, node.prestage(["install", "--now"]));
    peak("`report`", 1, &nothing, node.prestage(["report"]));
    peak("`run` with nothing to do, https", ROUNDS, &nothing, node.prestage(["run"]));
    peak("`status`", ROUNDS, &nothing, node.prestage(["status"]));
    peak("`status --json`", ROUNDS, &nothing, node.prestage(["status", "--json"]));
    peak("`release`", ROUNDS, &nothing, node.prestage(["release", VERSION]));
    out
}

/// Milliseconds of CPU, the median of many: what the timers cost a node that is patched, with a mirror that is asked.
fn idle_run() -> f64 {
    let world = World::new();
    let nginx = Nginx::start(&world.sandbox, &world.centre.repository());
    world.node.configure(&[&nginx.url()], "");
    // Its own pacing, which is what makes most calls of a timer free; and the first call asks.
    for verb in [["fetch", "--now"], ["install", "--now"]] {
        run(&mut world.node.prestage(verb)).expect(0);
    }
    let mut times: Vec<f64> = (0..31)
        .map(|_| {
            let mut run = world.node.prestage(["run"]);
            measure(run.stdout(std::process::Stdio::null())).expect("the agent").cpu_seconds * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The agent's rows for the table beside others: 64 MiB in one package, looked at and installed.
///
/// # Panics
/// If a verb does not end as it should.
pub fn print_peer_rows() {
    let world =
        World::with(&[Deb::new("till-data", "1.0")], &[Deb::new("till-data", "2.0").payload(LARGEST)]);
    let size = fs::metadata(program("prestage")).expect("the program").len();
    let tar = world.export("export.tar");
    let row = |what: &str, verb: Command| {
        let mut measured = measure_apart(&verb).expect("the agent");
        // `status` may be gone before it can be looked at.
        for _ in 0..ROUNDS {
            if measured.own_kib > 0 {
                break;
            }
            measured = measure_apart(&verb).expect("the agent");
        }
        assert!(measured.status.success(), "{what}: {:?}", measured.status);
        println!(
            "| prestage | {size} | {what} | {} | {} | {:.3} |",
            measured.tree_kib, measured.own_kib, measured.cpu_seconds
        );
    };
    let mut verify = world.node.prestage(["verify"]);
    verify.arg(&tar);
    row("verify (prestage verify)", verify);
    let mut import = world.node.prestage(["import"]);
    import.arg(&tar);
    row("plan with apt, verify and stage (prestage import)", import);
    row("verify again and install with dpkg (prestage install)", world.node.prestage(["install", "--now"]));
    row("status", world.node.prestage(["status"]));
}

/// The largest functions and data of a program that was not stripped, by crate: where its bytes are.
pub fn by_crate(symbols: &str) -> Vec<(String, u64)> {
    let mut sizes = std::collections::BTreeMap::<String, u64>::new();
    for line in symbols.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(_), Some(size), Some(_), Some(name)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let size = u64::from_str_radix(size, 16).unwrap_or(0);
        let name = name
            .trim_start_matches(['<', '&', '(', '*'])
            .trim_start_matches("dyn ")
            .trim_start_matches("mut ");
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let owner = if name[end..].starts_with("::") { &name[..end] } else { "C, assembly and the rest" };
        *sizes.entry(owner.to_owned()).or_default() += size;
    }
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    sizes
}

/// `nm` of a program, by crate, as a table.
///
/// # Panics
/// If nm cannot read it.
pub fn print_by_crate(unstripped: &str) {
    let symbols = crate::sandbox::succeed(
        command("nm").args(["--print-size", "--demangle=rust", "--defined-only"]).arg(unstripped),
    );
    println!("\n| crate | bytes of code and data |\n| --- | ---: |");
    for (name, size) in by_crate(&symbols).into_iter().filter(|(_, size)| *size >= 4096) {
        println!("| {name} | {size} |");
    }
}
