//! What a package repairs: the CVE ids in the changelog entries that are newer than what nodes have.
//!
//! Best effort. A changelog that is missing, shortened or of another form yields less, never an error; the bundle is
//! the same set of packages either way.

use std::collections::BTreeMap;
use std::path::Path;

use format::index::Advisory;
use host::command::Command;

use super::version;

/// Unpacks one member of a .deb through a pipe, so that nothing else of it touches the disk. Arguments: the .deb and
/// the member. A package without it is no failure.
const READ_MEMBER: &str = r#"dpkg-deb --fsys-tarfile "$1" 2>/dev/null | tar -xO --occurrence=1 "$2" 2>/dev/null | gzip -dc 2>/dev/null || true"#;

/// The Debian changelog in `deb`; empty where it has none.
pub fn changelog(deb: &Path, package: &str) -> String {
    // Native packages have theirs under the name that is the upstream changelog of others, and only then it counts.
    for name in ["changelog.Debian.gz", "changelog.gz"] {
        let member = format!("./usr/share/doc/{package}/{name}");
        let command = Command::new("sh").args(["-c", READ_MEMBER, "sh"]).arg(deb).arg(member);
        let text = command.output().map(|o| o.stdout).unwrap_or_default();
        if !text.is_empty() {
            return text;
        }
    }
    String::new()
}

/// The advisories in the entries of `source` above `oldest`.
pub fn advisories(changelog: &str, source: &str, oldest: &str) -> Vec<Advisory> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut urgency = String::new();
    for line in changelog.lines() {
        if let Some((version, of_entry)) = entry(line, source) {
            if version::compare(version, oldest).is_le() {
                break;
            }
            urgency = of_entry;
            continue;
        }
        for id in cve_ids(line) {
            found.entry(id).or_insert_with(|| urgency.clone());
        }
    }
    found.into_iter().map(|(id, severity)| Advisory { id, severity }).collect()
}

/// The head of an entry, `SOURCE (VERSION) SUITES; urgency=U`: its version and urgency.
fn entry<'l>(line: &'l str, source: &str) -> Option<(&'l str, String)> {
    let rest = line.strip_prefix(source)?.strip_prefix(" (")?;
    let (version, rest) = rest.split_once(')')?;
    let urgency = rest.split("urgency=").nth(1).unwrap_or_default();
    let urgency = urgency.split([',', ' ', ';']).next().unwrap_or_default();
    Some((version, urgency.to_ascii_lowercase()))
}

/// The ids of the form CVE-YYYY-NNNN in a line.
fn cve_ids(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, _) in line.match_indices("CVE-") {
        let id = &line[at..];
        let end = id[4..].find(|c: char| !c.is_ascii_digit() && c != '-').map_or(id.len(), |n| n + 4);
        let id = id[..end].trim_end_matches('-');
        let parts: Vec<&str> = id.split('-').collect();
        if parts.len() == 3 && parts[1].len() == 4 && parts[2].len() >= 4 {
            out.push(id.to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str = "\
curl (7.88.1-10+deb12u3) bookworm-security; urgency=high

  * Fix CVE-2023-38545, CVE-2023-38546 (see CVE-2023-).

 -- A <a@example.org>  Tue, 03 Oct 2023 20:00:00 +0200

curl (7.88.1-10+deb12u2) bookworm; urgency=medium

  * Fix CVE-2023-28320

 -- A <a@example.org>  Tue, 01 Aug 2023 20:00:00 +0200

curl (7.88.1-10) unstable; urgency=medium

  * Fix CVE-2022-00001
";

    #[test]
    fn only_entries_above_the_oldest_installed_version_count() {
        let ids = |oldest| -> Vec<String> {
            let found = advisories(CHANGELOG, "curl", oldest);
            found.into_iter().map(|a| format!("{} {}", a.id, a.severity)).collect()
        };
        assert_eq!(ids("7.88.1-10+deb12u2"), ["CVE-2023-38545 high", "CVE-2023-38546 high"]);
        assert_eq!(ids("7.88.1-10").len(), 3);
        assert!(ids("7.88.1-10+deb12u3").is_empty());
    }
}
