//! `make bench-fleet`: hundreds of real agents on thin lines that fail, beside the usual scripts; then the simulation of
//! fleets that no machine can run.

mod contender; // ways to bring a fleet its patches
mod faults; // what goes wrong, and when
mod machine; // power, and what runs while there is some
mod meter; // bytes on the lines
mod network; // stores, a wide-area network and a data centre
mod record; // what was seen, and the figures of it
mod run; // one contender's run
mod scale; // how large
mod server; // the data centre's HTTP server
mod stock; // what is distributed
mod wire; // delay and loss

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use contender::{Apt, Contender, Curl, Prestage, Rsync};
use network::Network;
use run::Bench;
use scale::Scale;
use server::Server;
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
    let stock = Stock::make(&scale, &root, |folder| std::fs::write(out.join("sandbox"), folder.as_os_str().as_encoded_bytes()))?;
    say(began, &format!("a bundle of {} bytes; a node needs {}", stock.bundle_bytes()?, stock.kinds[0].bytes));
    let network = Network::build(&scale, &work)?;
    say(began, &format!("{} stores are connected", scale.stores));
    let server = Server::new(&stock, &work.join("nginx"))?;
    let bench = Bench { scale, stock, network, server, root, logs: out.join("logs"), work };
    let contenders: [&dyn Contender; 4] = [&Prestage, &Curl, &Rsync::new(&bench.scale), &Apt];
    let mut records = Vec::new();
    for contender in contenders {
        let lost = bench.network.wire.lost();
        let record = run::run(&bench, contender)?;
        let figures = record.figures();
        say(began, &format!("{}: {figures:?}, {} frames lost", record.name, bench.network.wire.lost() - lost));
        records.push(record);
    }
    std::fs::write(out.join("records.json"), serde_json::to_vec(&records)?)?;
    Ok(())
}

/// One line to the terminal, apart from the table.
fn say(began: Instant, text: &str) {
    eprintln!("== {:5.1} s  {text}", began.elapsed().as_secs_f64());
}
