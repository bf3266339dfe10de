//! What deltas start from and lead to, in the words of dpkg and apt: the files of an installed package, and the description
//! of packages in their plain form. Pure but for the two files of [`describe`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write as _};
use std::path::{Path, PathBuf};

use format::digest::{Hasher, Sha256};
use format::index::Member;

use crate::error::{Error, Exit, Result};

/// A Release file of ours has some lines.
const MAX_RELEASE: u64 = 64 * 1024;

/// Writes Packages and Release into `repo`: those of `signed`, in which `plain` are as they stand there.
///
/// # Errors
/// Integrity, if Packages does not have them all; those of the file system.
pub(super) fn describe(signed: &Path, repo: &Path, plain: &[Member]) -> Result<()> {
    let (from, to) = (signed.join("Packages"), repo.join("Packages"));
    let input = std::fs::File::open(&from).map(io::BufReader::new).map_err(|e| Error::file(&from, &e))?;
    let output = std::fs::File::create(&to).map_err(|e| Error::file(&to, &e))?;
    let by_path: BTreeMap<&str, &Member> = plain.iter().map(|m| (m.path.as_str(), m)).collect();
    let mut output = Digesting { inner: io::BufWriter::new(output), digest: Hasher::new(), length: 0 };
    let described = describe_packages(input, &by_path, &mut output).map_err(|e| Error::file(&to, &e))?;
    output.flush().map_err(|e| Error::file(&to, &e))?;
    if described != plain.len() {
        let what = "the bundle's Packages does not have all packages that are here in their plain form";
        return Err(Error::new(Exit::Integrity, what, "build and publish the bundle again"));
    }
    let (digest, length) = (output.digest.finish(), output.length);
    let path = signed.join("Release");
    let release = host::file::read_limited(&path, MAX_RELEASE)?.unwrap_or_default();
    let release = describe_release(&String::from_utf8_lossy(&release), digest, length);
    Ok(host::file::replace(&repo.join("Release"), release.as_bytes(), 0o600)?)
}

/// The answer of `dpkg-query` about one package: its conffiles, `--`, its files, each line with a space in front.
#[derive(Default)]
pub(super) struct InstalledFiles {
    conffiles: BTreeSet<PathBuf>,
    pub(super) files: Vec<PathBuf>,
    in_files: bool,
}

impl InstalledFiles {
    /// The next line of it.
    pub(super) fn line(&mut self, line: &str) {
        let Some(entry) = line.strip_prefix(' ') else {
            self.in_files |= line == "--";
            return;
        };
        if !self.in_files {
            // PATH DIGEST, and more words for one that is obsolete. A path may hold spaces, a digest none.
            let entry = entry.strip_suffix(" obsolete").unwrap_or(entry);
            let path = entry.rsplit_once(' ').map_or(entry, |(path, _)| path);
            self.conffiles.insert(PathBuf::from(path));
        } else if !self.conffiles.contains(Path::new(entry)) {
            self.files.push(PathBuf::from(entry));
        }
    }
}

/// A Packages file with the size and the digest that the packages of `plain`, by path, have in their plain form; how many of
/// them it has.
fn describe_packages(
    packages: impl BufRead,
    plain: &BTreeMap<&str, &Member>,
    out: &mut dyn io::Write,
) -> io::Result<usize> {
    let (mut stanza, mut described) = (Vec::new(), 0);
    for line in packages.lines().chain([Ok(String::new())]) {
        let line = line?;
        if !line.is_empty() {
            stanza.push(line);
            continue;
        }
        let path = stanza.iter().find_map(|line| line.strip_prefix("Filename: "));
        let member = path.and_then(|path| plain.get(path)).copied();
        described += usize::from(member.is_some());
        for line in &stanza {
            match (member, line.split_once(": ").map(|(field, _)| field)) {
                (Some(member), Some("Size")) => writeln!(out, "Size: {}", member.size)?,
                (Some(member), Some("SHA256")) => writeln!(out, "SHA256: {}", member.sha256)?,
                _ => writeln!(out, "{line}")?,
            }
        }
        if !stanza.is_empty() {
            writeln!(out)?;
        }
        stanza.clear();
    }
    Ok(described)
}

/// A Release file of ours with another Packages file.
fn describe_release(release: &str, digest: Sha256, length: u64) -> String {
    let line = |line: &str| match line.starts_with(' ') && line.ends_with(" Packages") {
        true => format!(" {digest} {length} Packages\n"),
        false => format!("{line}\n"),
    };
    release.lines().map(line).collect()
}

/// A writer that hashes and counts.
struct Digesting<W> {
    inner: W,
    digest: Hasher,
    length: u64,
}

impl<W: io::Write> io::Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.digest.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_dpkg_lists_conffiles_are_no_base() {
        let mut files = InstalledFiles::default();
        let said = " /etc/till.conf 9e10\n /etc/with a space 9e11 obsolete\n /etc/new newconffile\n--\n /.\n /etc\n \
                    /etc/till.conf\n /etc/with a space\n /etc/new\n /usr/lib/till/with a space\n\n";
        said.lines().for_each(|line| files.line(line));
        let paths: Vec<_> = files.files.iter().map(|path| path.to_string_lossy()).collect();
        assert_eq!(paths, ["/.", "/etc", "/usr/lib/till/with a space"]);
    }

    #[test]
    fn packages_in_their_plain_form_are_described_as_they_are_and_no_others() {
        let digest = |text: &str| Sha256::of(text.as_bytes());
        let package = |name: &str, digest: Sha256, size: u64| {
            format!(
                "Package: {name}\nVersion: 1\nDescription: Size: 1\n SHA256: x\nFilename: pool/{name}.deb\nSize: {size}\nSHA256: {digest}\n\n"
            )
        };
        let member = Member {
            path: "pool/b.deb".parse().unwrap(),
            kind: format::index::MemberKind::Package,
            size: 9000,
            sha256: digest("plain"),
            blocks: Vec::new(),
            package: None,
            sources: Vec::new(),
            plain: None,
        };
        let packages = package("a", digest("a"), 1) + &package("b", digest("b"), 2);
        let mut out = Vec::new();
        let plain = BTreeMap::from([("pool/b.deb", &member)]);
        assert_eq!(describe_packages(packages.as_bytes(), &plain, &mut out).unwrap(), 1);
        let expected = package("a", digest("a"), 1) + &package("b", digest("plain"), 9000);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let release = format!("Origin: Prestage\nSHA256:\n {} 10 Packages\n", digest("x"));
        let described = describe_release(&release, digest("y"), 77);
        assert_eq!(described, format!("Origin: Prestage\nSHA256:\n {} 77 Packages\n", digest("y")));
    }
}
