//! The metadata of the local repository that a node's apt reads: a flat one (`deb … file:/DIR ./`), Packages and Release.
//!
//! Nothing but SHA-256, no compressed copies: what a Release file names must be there, and the bundle compresses.

use format::digest::Sha256;
use format::name::CycleId;

use crate::collect::Collected;
use crate::collect::control::Stanza;
use crate::rfc2822;

/// Fields that do not come along: other digests, and those by which Ubuntu lets a share of machines wait, which would
/// make a node wait for ever.
const DROPPED: [&str; 6] =
    ["MD5sum", "SHA1", "SHA512", "Phased-Update-Percentage", "Phased-Updates", "Filename"];

/// The Packages file.
pub fn packages(collected: &Collected) -> String {
    let mut out = String::new();
    for package in &collected.packages {
        let mut stanza = Stanza::parse(&package.stanza);
        for field in DROPPED {
            stanza.remove(field);
        }
        stanza.set("Filename", format!("pool/{}", package.file));
        stanza.set("Size", package.size.to_string());
        stanza.set("SHA256", package.sha256.to_string());
        out.push_str(&stanza.to_string());
        out.push('\n');
    }
    out
}

/// The Release file that belongs to `packages`.
pub fn release(collected: &Collected, cycle: &CycleId, packages: &str) -> String {
    let mut architectures = vec![collected.architecture.as_str()];
    for package in &collected.packages {
        if package.arch != "all" && !architectures.contains(&package.arch.as_str()) {
            architectures.push(&package.arch);
        }
    }
    format!(
        "Origin: Prestage\nLabel: {}\nSuite: {cycle}\nCodename: {cycle}\nDate: {}\nArchitectures: {}\nSHA256:\n {} {} Packages\n",
        collected.variant,
        rfc2822::format(collected.created),
        architectures.join(" "),
        Sha256::of(packages.as_bytes()),
        packages.len(),
    )
}
