//! The whole bundle to every node, all at once, with curl and the usual loop around it; a careful person's loop, that
//! goes on where it stopped. It is started once, by cron or from afar; a node that loses its power meanwhile is not started again by anybody.

use std::fs::File;
use std::process::Command;

use format::digest::Sha256;

use super::{Contender, counted, until_it_works};
use crate::Result;
use crate::machine::Ended;
use crate::network::CENTRE;
use crate::run::Seat;

/// curl.
pub struct Curl;

const FILE: &str = "bundle.tar.gz";

impl Contender for Curl {
    fn name(&self) -> &'static str {
        "curl"
    }

    fn furnish(&self, seat: &Seat<'_>) -> Result<()> {
        let digest = seat.run.bench.stock.bundle_digest;
        Ok(std::fs::write(seat.folder.join("sum"), format!("{digest}  {FILE}\n"))?)
    }

    fn live(&self, seat: &Seat<'_>) -> Result<()> {
        let curl = format!(
            "curl --fail --silent --show-error --connect-timeout 10 --continue-at - -o {FILE} http://{CENTRE}/{FILE} && \
             sha256sum --status -c sum"
        );
        let script = until_it_works(&curl, &seat.run.bench.scale);
        seat.busy(true);
        if seat.run(Command::new("sh").args(["-c", &script]))? == Ended::Code(0) {
            seat.done();
        }
        Ok(())
    }

    fn tries_of(&self, seat: &Seat<'_>) -> Option<u32> {
        counted(seat)
    }

    fn holds(&self, seat: &Seat<'_>) -> Result<bool> {
        let digest = Sha256::of_reader(&mut File::open(seat.folder.join(FILE))?)?.0;
        Ok(digest == seat.run.bench.stock.bundle_digest)
    }
}
