//! Every node fetches from an archive with apt, when it is time to patch: all at once, but only what it needs.
//!
//! The archive has the same packages and no others, so what `apt-get update` costs is next to nothing here; from a real
//! archive it is some ten megabytes for each node. As with curl, nobody starts it again on a node that lost its power.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use format::digest::Sha256;

use super::{Contender, counted, until_it_works};
use crate::Result;
use crate::machine::Ended;
use crate::network::CENTRE;
use crate::run::Seat;

/// apt.
pub struct Apt;

impl Contender for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn furnish(&self, seat: &Seat<'_>) -> Result<()> {
        let stock = &seat.run.bench.stock;
        for folder in ["etc/parts", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(seat.folder.join(folder))?;
        }
        let keyring = stock.keyring.display();
        fs::write(
            seat.folder.join("etc/sources.list"),
            format!("deb [signed-by={keyring}] http://{CENTRE}/apt/ stable-security main\n"),
        )?;
        // Its own copy: apt keeps its lock beside it.
        fs::copy(stock.kind(seat.node).inventory(), seat.folder.join("state/status"))?;
        let folder = seat.folder.display();
        let configuration = format!(
            "Dir \"{folder}/\";\nDir::State \"state/\";\nDir::State::status \"status\";\nDir::Cache \"cache/\";\n\
             Dir::Etc \"etc/\";\nDir::Etc::sourceparts \"parts/\";\nDir::Etc::parts \"parts/\";\n\
             Dir::Etc::preferencesparts \"parts/\";\nDir::Log \"state/\";\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n"
        );
        Ok(fs::write(seat.folder.join("apt.conf"), configuration)?)
    }

    fn live(&self, seat: &Seat<'_>) -> Result<()> {
        let apt = "{ apt-get -qq update -o APT::Update::Error-Mode=any && \
                   apt-get -qq --yes --download-only upgrade --with-new-pkgs; }";
        let script = until_it_works(apt, &seat.run.bench.scale);
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("APT_CONFIG", seat.folder.join("apt.conf"));
        shell.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        seat.busy(true);
        if seat.run(&mut shell)? == Ended::Code(0) {
            seat.done();
        }
        Ok(())
    }

    fn tries_of(&self, seat: &Seat<'_>) -> Option<u32> {
        counted(seat)
    }

    fn holds(&self, seat: &Seat<'_>) -> Result<bool> {
        has_packages(&seat.folder.join("cache/archives"), &seat.run.bench.stock.kind(seat.node).needs)
    }
}

/// Whether a folder has these packages, whatever else is in it.
pub fn has_packages(folder: &std::path::Path, needs: &[(String, Sha256)]) -> Result<bool> {
    for (name, digest) in needs {
        let path: PathBuf = folder.join(name);
        let Ok(mut file) = fs::File::open(&path) else { return Ok(false) };
        if Sha256::of_reader(&mut file)?.0 != *digest {
            return Ok(false);
        }
    }
    Ok(true)
}
