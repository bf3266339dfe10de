//! The metadata of the local repository that a node's package manager reads.
//!
//! apt: a flat one (`deb … file:/DIR ./`), Packages and Release. Nothing but SHA-256, no compressed copies: what a Release
//! file names must be there, and the bundle compresses. RPM: repodata as every yum and dnf since EL6 reads it: gzip, no
//! SQLite, no zchunk; module metadata only where a package is of a module.

use std::io;

use format::container::{Encoding, gzip};
use format::digest::Sha256;
use format::index::Family;
use format::name::CycleId;

use crate::collect::Collected;
use crate::collect::control::Stanza;
use crate::rfc2822;

/// Fields that do not come along: other digests, and those by which Ubuntu lets a share of machines wait, which would
/// make a node wait for ever.
const DROPPED: [&str; 6] =
    ["MD5sum", "SHA1", "SHA512", "Phased-Update-Percentage", "Phased-Updates", "Filename"];

/// A file of the metadata.
pub struct MetadataFile {
    /// Its path in the repository.
    pub name: &'static str,
    /// What it holds.
    pub content: Vec<u8>,
    /// How it goes into the bundle: what is compressed already is not compressed again.
    pub encoding: Encoding,
}

/// All of it, in the order in which it goes into the bundle.
///
/// # Errors
/// Those of compressing.
pub fn files(collected: &Collected, cycle: &CycleId) -> io::Result<Vec<MetadataFile>> {
    let file = |name, content, encoding| MetadataFile { name, content, encoding };
    match collected.family {
        Family::Apt => {
            let packages = packages(collected);
            let release = release(collected, cycle, &packages);
            Ok(vec![
                file("Packages", packages.into_bytes(), Encoding::Deflate),
                file("Release", release.into_bytes(), Encoding::Deflate),
            ])
        }
        Family::Rpm => {
            let mut parts = vec![
                ("primary", "repodata/primary.xml.gz", primary(collected)),
                ("filelists", "repodata/filelists.xml.gz", filelists(collected)),
            ];
            if !collected.modules.is_empty() {
                parts.push(("modules", "repodata/modules.yaml.gz", collected.modules.concat()));
            }
            let (mut out, mut listed) = (Vec::new(), String::new());
            for (kind, name, text) in parts {
                let content = gzip(text.as_bytes())?;
                listed.push_str(&repomd_entry(kind, name, &text, &content, collected));
                out.push(file(name, content, Encoding::Stored));
            }
            let repomd = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\" \
                 xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n  <revision>{}</revision>\n{listed}</repomd>\n",
                collected.created.0
            );
            out.push(file("repodata/repomd.xml", repomd.into_bytes(), Encoding::Deflate));
            Ok(out)
        }
    }
}

/// primary.xml: the elements as createrepo_c wrote them, with the places that packages have in the bundle.
fn primary(collected: &Collected) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
         xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"{}\">\n",
        collected.packages.len()
    );
    for package in &collected.packages {
        for line in package.stanza.lines() {
            if line.trim_start().starts_with("<location ") {
                // File names are words: nothing in them needs escaping.
                out.push_str(&format!("  <location href=\"pool/{}\"/>", package.file));
            } else {
                out.push_str(line);
            }
            out.push('\n');
        }
    }
    out.push_str("</metadata>\n");
    out
}

fn filelists(collected: &Collected) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<filelists xmlns=\"http://linux.duke.edu/metadata/filelists\" \
         packages=\"{}\">\n",
        collected.packages.len()
    );
    out.extend(collected.packages.iter().map(|package| package.files.as_str()));
    out.push_str("</filelists>\n");
    out
}

fn repomd_entry(kind: &str, name: &str, open: &str, packed: &[u8], collected: &Collected) -> String {
    format!(
        "  <data type=\"{kind}\">\n    <checksum type=\"sha256\">{}</checksum>\n    <open-checksum type=\"sha256\">{}</open-checksum>\n    \
         <location href=\"{name}\"/>\n    <timestamp>{}</timestamp>\n    <size>{}</size>\n    <open-size>{}</open-size>\n  </data>\n",
        Sha256::of(packed),
        Sha256::of(open.as_bytes()),
        collected.created.0,
        packed.len(),
        open.len(),
    )
}

/// The Packages file.
fn packages(collected: &Collected) -> String {
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
fn release(collected: &Collected, cycle: &CycleId, packages: &str) -> String {
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
