//! What a person asks for and no timer does: what the configuration says, how the node stands, a refused bundle again,
//! reports on a stick. None of it is a step of the work, whose order stands in `run`.

use std::path::Path;

use format::name::BundleVersion;
use format::report::Step;
use format::time::UnixTime;

use crate::cli::{Carried, Options};
use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::quarantine::{Quarantine, Release};
use crate::{config, fleet, print, queue, status};

/// `config`: say what is wrong, or what counts.
pub(crate) fn look_at_configuration(options: &Options, show: bool) -> Result<Exit> {
    let root = options.root.as_deref().unwrap_or(Path::new("/"));
    let file = options.config.as_deref();
    if show {
        print(&config::show(root, file)?);
        return Ok(Exit::Done);
    }
    let mut errors = match config::check(root, file) {
        Ok(files) => {
            files.iter().for_each(|file| print(&format!("ok  {}\n", file.display())));
            return Ok(Exit::Done);
        }
        Err(errors) => errors.into_iter(),
    };
    let last = errors.next_back();
    errors.for_each(|error| eprintln!("error: {error}"));
    last.map_or(Ok(Exit::Done), Err)
}

/// `release`: have a bundle again that this node refuses.
pub(crate) fn release(node: &Node, version: &BundleVersion) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Exit::Io, "a release needs root", "run it as root"));
    }
    node.make_folders()?;
    node.make_private_folder()?;
    let _lock = node.lock()?;
    // By whoever is here, and now: everything that was refused until this moment.
    let releases = [Release { version: version.clone(), before: UnixTime(i64::MAX) }];
    let lists =
        [(node.fetched("quarantine.json"), Step::Fetch), (node.private("refused.json"), Step::Install)];
    let mut status = status::load(node);
    let mut released = 0;
    for (path, step) in lists {
        released += Quarantine::open(path, step)?.release(&releases)?.len();
    }
    status.status.quarantine.retain(|q| q.bundle.version != *version);
    status::save(node, &mut status)?;
    print(&match released {
        0 => format!("bundle {version} is not refused here\n"),
        _ => format!("bundle {version} is released; the next `prestage run` tries it again\n"),
    });
    Ok(())
}

/// `report --export` and `--import`: what waits goes to the centre on a stick, and its answer comes back on one.
pub(crate) fn carry_reports(node: &Node, carried: &Carried) -> Result<()> {
    match carried {
        Carried::Out(path) => {
            let reports = fleet::export(node, path)?;
            print(&format!(
                "{}: this node's status and {reports} reports, which stay here until their receipt is imported\n",
                path.display()
            ));
        }
        Carried::Back(path) => {
            let accepted = fleet::import(node, path)?;
            status::save(node, &mut status::load(node))?;
            let left = queue::files(node).len();
            print(&format!("{accepted} reports were accepted by the centre; {left} wait\n"));
        }
        Carried::No => {}
    }
    Ok(())
}

/// `status`.
pub(crate) fn show_status(node: &Node, json: bool) -> Result<()> {
    let status = status::load(node);
    if json {
        let text = format::json::pretty(&status).map_err(|e| Error::io("status", &e.into()))?;
        print(&String::from_utf8_lossy(&text));
        print("\n");
    } else {
        print(&status::text(node, &status)?);
    }
    Ok(())
}
