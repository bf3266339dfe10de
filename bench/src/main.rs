//! `make bench-fleet`: hundreds of real agents on thin lines that fail, beside the usual scripts; then the simulation of
//! fleets that no machine can run.

mod contender; // ways to bring a fleet its patches
mod faults; // what goes wrong, and when
mod machine; // power, and what runs while there is some
mod meter; // bytes on the lines
mod network; // stores, a wide-area network and a data centre
mod plot; // curves
mod record; // what was seen, and the figures of it
mod report; // tables and plots
mod run; // one contender's run
mod scale; // how large
mod server; // the data centre's HTTP server
mod sim; // the same for fleets that no machine can run
mod stock; // what is distributed
mod wire; // delay and loss

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use contender::{Apt, Contender, Curl, Prestage, Rsync};
use network::Network;
use record::Record;
use report::Findings;
use run::{Bench, Course};
use scale::Scale;
use server::Server;
use sim::Way;
use sim::fleet::{Calibration, Fleet};
use stock::Stock;

/// The bench's own failures are for people to read.
type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result with such a failure.
type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(work), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: prestage-fleet-bench WORK OUT; scripts/bench-fleet.sh calls it".into());
    };
    let scale = Scale::read(|name| std::env::var(name).ok())?;
    network::enter_own_world(&work)?;
    let began = Instant::now();
    let root = work.join("node");
    std::fs::create_dir(&root)?;
    let stock = Stock::make(&scale, &root, |folder| {
        std::fs::write(out.join("sandbox"), folder.as_os_str().as_encoded_bytes())
    })?;
    say(began, &format!("a bundle of {} bytes; a node needs {}", stock.bundle_bytes, stock.kinds[0].bytes));
    let network = Network::build(&scale, &work)?;
    say(began, &format!("{} stores are connected", scale.stores));
    let server = Server::new(&stock, &work.join("nginx"))?;
    let bench = Bench { scale, stock, network, server, root, logs: out.join("logs"), work };
    let calibration = calibrate(&bench)?;
    say(began, &format!("one node alone: {calibration:?}"));
    let rsync = Rsync::new(&bench.scale);
    let contenders: [&dyn Contender; 5] = [&Prestage::Paced, &Curl, &rsync, &Apt, &Prestage::Sharing];
    let mut measured = Vec::new();
    for contender in contenders
        .into_iter()
        .filter(|c| bench.scale.contenders.iter().any(|n| n.as_str() == c.name().replace(' ', "-")))
    {
        say(began, contender.name());
        measured.push(run::run(&bench, contender, Course::Fleet)?);
    }
    let fleet = Fleet::of_bench(&bench.scale, &bench.stock, calibration);
    let way = |record: &Record| Way::ALL.into_iter().find(|way| way.name() == record.name);
    let predicted: Vec<Record> =
        measured.iter().filter_map(way).map(|way| sim::simulate(&fleet, way)).collect::<Result<_>>()?;
    let mut simulated = Vec::new();
    for nodes in &bench.scale.simulated {
        say(began, &format!("simulating {nodes} nodes"));
        let fleet = Fleet::of(*nodes, calibration, bench.scale.seed);
        let mut records = simulate_all(&fleet)?;
        // What an operator can say who has no two days.
        let mut hurried = fleet.clone();
        hurried.pace.spread_over /= 2;
        let name = format!("prestage, {} h", hurried.pace.spread_over / 3600);
        records.insert(1, Record { name, ..sim::simulate(&hurried, Way::Prestage)? });
        simulated.push((fleet, records));
    }
    let findings = Findings {
        scale: &bench.scale,
        stock: &bench.stock,
        calibration,
        measured: &measured,
        predicted: &predicted,
        simulated: &simulated,
    };
    let text = findings.write(&out)?;
    std::fs::write(out.join("records.json"), serde_json::to_vec(&[&measured, &predicted])?)?;
    print!("{text}");
    say(began, &format!("done; tables and plots are in {}", out.display()));
    Ok(())
}

/// Measures what the simulation takes as given: one node alone, with curl and with the agent.
fn calibrate(bench: &Bench) -> Result<Calibration> {
    let alone = |contender: &dyn Contender| -> Result<(f64, f64)> {
        let record = run::run(bench, contender, Course::Alone)?;
        let seconds = record.done.first().copied().flatten();
        let seconds =
            seconds.ok_or_else(|| format!("{}: one node alone did not get everything", record.name))?;
        Ok((record.sent.iter().sum(), seconds))
    };
    let (line, round_trip) = (bench.scale.store_rate as f64 / 8.0, bench.scale.round_trip.as_secs_f64());
    // A full segment on Ethernet, and once more whatever the wire loses.
    let wire = 1514.0 / 1448.0 * (1.0 + f64::from(bench.scale.loss_ppm) / 1e6);
    // Connecting and asking take two round trips, and starting slowly about two more.
    let (_, seconds) = alone(&Curl)?;
    let usable = bench.stock.bundle_bytes as f64 * wire / (seconds - 4.0 * round_trip) / line;
    let usable = usable.min(1.0);
    let (bytes, seconds) = alone(&Prestage::Hurried)?;
    Ok(Calibration {
        wire,
        usable,
        metadata: (bytes - bench.stock.kind(0).bytes as f64 * wire).max(0.0),
        run: (seconds - bytes / (line * usable)).max(0.0),
    })
}

fn simulate_all(fleet: &Fleet) -> Result<Vec<Record>> {
    Way::ALL.into_iter().map(|way| sim::simulate(fleet, way)).collect()
}

/// One line to the terminal, apart from the table.
fn say(began: Instant, text: &str) {
    eprintln!("== {:5.1} s  {text}", began.elapsed().as_secs_f64());
}
