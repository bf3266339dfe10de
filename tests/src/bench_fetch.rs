//! What fetching costs and how well it keeps to its cap, measured beside curl in the same run: `make bench-fetch`.
//!
//! The programs are those of `PRESTAGE_BIN`. Rates are counted by a tap on the wire; speeds are taken from nginx's own
//! log of how long each request took, for the agent and for curl alike.

use std::fs;
use std::time::Duration;

use crate::debs::Deb;
use crate::measure::measure;
use crate::sandbox::{command, run, succeed};
use crate::services::Nginx;
use crate::tap::Meter;
use crate::world::World;

const MIB: usize = 1024 * 1024;

/// In how much time a cap must hold.
const WINDOW: Duration = Duration::from_secs(10);

/// Rounds of what is compared.
const ROUNDS: usize = 21;

/// Prints the tables: all, or one of `caps`, `speed` and `poll`. False, if there is none of that name.
///
/// # Panics
/// If anything does not end as it should.
pub fn print(only: Option<&str>) -> bool {
    let parts: [(&str, fn()); 3] = [("caps", caps), ("speed", speed), ("poll", idle_poll)];
    let chosen = parts.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    chosen.map(|(_, part)| part()).count() > 0
}

fn world(bytes: usize) -> (World, Nginx) {
    let world = World::with(&[Deb::new("till-data", "1.0")], &[Deb::new("till-data", "2.0").payload(bytes)]);
    let nginx = Nginx::start(&world.sandbox, &world.centre.repository());
    (world, nginx)
}

fn forget(world: &World) {
    let _ = fs::remove_dir_all(world.node.path("/var/lib/prestage"));
}

fn caps() {
    println!("| cap | most in any 10 s | of the cap | average | of the cap |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (text, cap, bytes) in
        [("256kbit/s", 32_000u64, MIB), ("2Mbit/s", 250_000, 8 * MIB), ("40Mbit/s", 5_000_000, 96 * MIB)]
    {
        let (world, nginx) = world(bytes);
        let buffer = (cap / 20) as usize;
        let meter = Meter::start(nginx.address(), buffer).expect("a port");
        // The kernel's usual bound would be what limits a fast one.
        world
            .node
            .configure(&[&meter.url()], &format!("[fetch]\nrate = \"{text}\"\nreceive-buffer = \"1MiB\"\n"));
        run(&mut world.node.prestage(["fetch"])).expect(0);
        let seen = meter.seen();
        let total: u64 = seen.iter().map(|(_, n)| n).sum();
        let seconds = seen.last().map_or(0.0, |last| last.0.saturating_sub(seen[0].0).as_secs_f64());
        let (most, average) = (most(&seen), total as f64 / seconds);
        println!(
            "| {text} | {most} B | {:.1} % | {average:.0} B/s | {:.1} % |",
            most as f64 * 100.0 / (cap * WINDOW.as_secs()) as f64,
            average * 100.0 / cap as f64
        );
    }
    println!();
}

/// The most bytes in any [`WINDOW`] of what a meter has seen.
pub fn most(seen: &[(Duration, u64)]) -> u64 {
    let (mut first, mut sum, mut most) = (0, 0, 0);
    for (at, bytes) in seen {
        sum += bytes;
        while seen[first].0 + WINDOW <= *at {
            sum -= seen[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

fn speed() {
    let (world, nginx) = world(256 * MIB);
    world.node.configure(&[&nginx.url()], "[fetch]\nreceive-buffer = \"4MiB\"\n");
    let member = world.centre.member("till-data");
    let extent = member.whole().expect("a whole source");
    let repository = world.centre.repository();
    let bundle = world.centre.file(crate::repository::Part::BundleData);
    let path = bundle.strip_prefix(&repository).expect("a file of the repository").display().to_string();
    let ours = || {
        forget(&world);
        let before = nginx.log().len();
        run(&mut world.node.prestage(["fetch"])).expect(0);
        fastest(&nginx.log()[before..], extent.length)
    };
    // On the file system that the node writes to.
    let out = world.node.path("/var/tmp/curl.out");
    let range = format!("{}-{}", extent.offset, extent.offset + extent.length - 1);
    let url = format!("{}{path}", nginx.url());
    let curls = || {
        let before = nginx.log().len();
        succeed(command("curl").args(["-s", "-S", "-r", &range, "-o"]).arg(&out).arg(&url));
        fs::remove_file(&out).expect("what curl fetched");
        fastest(&nginx.log()[before..], extent.length)
    };
    // Neither is to wait for what made the repository.
    succeed(&mut command("sync"));
    // Each goes first in every other round: whoever comes second finds a disk that is still busy with the first.
    let rounds = (0..ROUNDS).map(|round| {
        if round % 2 == 0 {
            let ours = ours();
            (ours, curls())
        } else {
            let curls = curls();
            (ours(), curls)
        }
    });
    let (ours, curls): (Vec<_>, Vec<_>) = rounds.unzip();
    // Of each round, because what else a machine does changes from one to the next.
    let ratio = median(ours.iter().zip(&curls).map(|(ours, curl)| ours / curl).collect());
    let (ours, curls) = (median(ours), median(curls));
    println!(
        "| without a cap, {} MB, median of {ROUNDS} rounds | MB/s | of curl in its round |",
        extent.length / 1_000_000
    );
    println!("| --- | ---: | ---: |");
    println!("| curl | {:.0} | 100 % |", curls / 1e6);
    println!(
        "| prestage: each block hashed as it comes, synced | {:.0} | {:.0} % |",
        ours / 1e6,
        ratio * 100.0
    );
    println!();
}

/// Bytes a second of the largest request in these lines of nginx's log.
fn fastest(lines: &[String], least: u64) -> f64 {
    let rates = lines.iter().filter_map(|line| {
        let mut words = line.split_whitespace().rev();
        let bytes: u64 = words.next()?.parse().ok()?;
        let seconds: f64 = words.next()?.parse().ok()?;
        (bytes >= least).then_some(bytes as f64 / seconds)
    });
    rates.fold(0.0, f64::max)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn idle_poll() {
    let world = World::new();
    run(&mut world.node.prestage(["run"])).expect(0);
    run(&mut world.node.prestage(["fetch"])).expect(0);
    world.mirror.forget();
    let mut cpu = Vec::new();
    const POLLS: usize = 20;
    for _ in 0..POLLS {
        let mut poll = world.node.prestage(["fetch"]);
        cpu.push(measure(poll.stderr(std::process::Stdio::null())).expect("a poll").cpu_seconds * 1000.0);
    }
    let asked = world.mirror.exchanges();
    let bytes_up: usize = asked
        .iter()
        .map(|e| e.path.len() + 16 + e.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum::<usize>())
        .sum();
    let down = world.node.status().status.fetch.map_or(0, |fetch| fetch.bytes_received);
    println!("| an idle poll | |");
    println!("| --- | ---: |");
    println!("| requests | {} |", asked.len() / POLLS);
    println!("| bytes, both ways | {} |", bytes_up as u64 / POLLS as u64 + down);
    println!("| CPU, median of {POLLS} | {:.1} ms |", median(cpu));
}
