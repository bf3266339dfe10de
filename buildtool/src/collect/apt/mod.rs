//! Debian archives, asked by apt itself: its resolver, its verification of signatures and hashes, its downloads.
//!
//! The only folder that knows apt's commands and options. apt works in a private root: its own sources, keyrings, lists
//! and cache, and a dpkg status file that is a node's; nothing of this machine's apt is read but how to reach archives.

mod answer; // what apt writes, read

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use host::command::Command;

pub use answer::{Resolution, Wanted};
use answer::{parse_resolution, release_stanza, unescape};

use super::Release;
use super::control::{Stanza, for_each_stanza};
use super::inventory::Listed;
use super::sources::Sources;
use super::version;
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::progress::Progress;
use crate::rfc2822;

/// A Release file of a large archive is about 1 MiB.
const MAX_RELEASE: u64 = 64 * 1024 * 1024;

/// What of this machine's apt configuration is kept: how archives are reached, and whether their Valid-Until counts.
const KEPT: [&str; 6] =
    ["proxy", "proxy-auto-detect", "retries", "timeout", "check-valid-until", "check-date"];

/// The environment in which apt looks for proxies; all else is kept from it.
const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"];

/// Lower than an installed version (100, apt_preferences(5)): installed packages are not updated from there, but what
/// an update newly needs may come from there.
const PIN_OTHERS: u32 = 50;

/// A private apt.
pub struct AptRoot {
    folder: PathBuf,
}

/// A Packages file of an archive, verified by apt.
#[derive(Clone, Debug)]
pub struct IndexFile {
    path: PathBuf,
    /// `ORIGIN:CODENAME`.
    pub origin: String,
}

impl AptRoot {
    /// Prepares the private root in `folder`, which may have been used before.
    ///
    /// # Errors
    /// If a keyring cannot be used or the folder not be written.
    pub fn prepare(
        folder: &Path,
        sources: &Sources,
        keyrings: &[PathBuf],
        architecture: &str,
        foreign: &BTreeSet<String>,
    ) -> Result<Self> {
        let what = "apt's private root cannot be made";
        let folder = fs::canonicalize(folder).at(what, folder)?;
        // All of these end up inside quotation marks in apt's configuration, where a quotation mark would begin settings
        // of its own, commands included; and architectures come from inventories, which nodes sent.
        for text in foreign.iter().map(String::as_str).chain([architecture]) {
            if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
                return Err(Error::new(Kind::Config, what, format!("{text:?} is no architecture")));
            }
        }
        if folder.to_str().is_none_or(|path| path.contains(['"', '\\', '\n', ';'])) {
            return Err(Error::new(Kind::Usage, what, format!("apt cannot work in {}", folder.display()))
                .cure("choose a path without quotation marks, backslashes and semicolons"));
        }
        for old in ["etc", "resolve"] {
            host::file::remove(&folder.join(old)).during(what)?;
        }
        for sub in [
            "etc/sources.list.d",
            "etc/trusted.gpg.d",
            "etc/preferences.d",
            "etc/apt.conf.d",
            "state/lists/partial",
            "cache/archives/partial",
            "resolve/partial",
            "log",
        ] {
            host::file::make_folder(&folder.join(sub), 0o755).during(what)?;
        }
        let write =
            |name: &str, bytes: &[u8]| host::file::replace(&folder.join(name), bytes, 0o644).during(what);
        write(&format!("etc/sources.list.d/upstream.{}", sources.ending), sources.text.as_bytes())?;
        for (number, keyring) in keyrings.iter().enumerate() {
            let bytes = fs::read(keyring).at("the keyring cannot be read", keyring)?;
            // apt knows the two forms of a keyring by their endings.
            let ending = if bytes.starts_with(b"-----BEGIN") { "asc" } else { "gpg" };
            write(&format!("etc/trusted.gpg.d/{number}.{ending}"), &bytes)?;
        }
        let root = folder.display();
        let mut architectures = format!("\"{architecture}\"; ");
        for other in foreign.iter().filter(|a| *a != architecture) {
            architectures.push_str(&format!("\"{other}\"; "));
        }
        let mut conf = format!(
            r#"Dir "{root}/";
Dir::State "{root}/state/";
Dir::State::lists "{root}/state/lists/";
Dir::State::extended_states "{root}/state/extended_states";
Dir::Cache "{root}/cache/";
Dir::Cache::archives "{root}/cache/archives/";
Dir::Etc "{root}/etc/";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/etc/sources.list.d/";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "{root}/etc/trusted.gpg.d/";
Dir::Etc::preferences "{root}/etc/preferences";
Dir::Etc::preferencesparts "{root}/etc/preferences.d/";
Dir::Log "{root}/log/";
APT::Architecture "{architecture}";
APT::Architectures {{ {architectures}}};
APT::Sandbox::User "root";
APT::Get::Always-Include-Phased-Updates "true";
APT::Get::AllowUnauthenticated "false";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::GzipIndexes "false";
Acquire::ForceHash "sha256";
Acquire::Languages "none";
Debug::NoLocking "true";
"#
        );
        conf.push_str(&kept_settings());
        write("apt.conf", conf.as_bytes())?;
        Ok(AptRoot { folder })
    }

    fn apt_get(&self) -> Command {
        let command = Command::new("apt-get")
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive");
        let proxies = PROXIES.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        proxies.fold(command, |command, (name, value)| command.env(name, value))
    }

    /// Fetches the archive's metadata; apt verifies its signatures with the given keyrings alone.
    ///
    /// # Errors
    /// If a source cannot be reached or its signature is not good.
    pub fn update(&self) -> Result<()> {
        self.apt_get().args(["update", "-q"]).output().map(|_| ()).map_err(|e| {
            let kind = match e.stderr() {
                text if text.contains("GPG error") || text.contains("is not signed") => Kind::Data,
                _ => Kind::Unavailable,
            };
            Error::new(kind, "the archive's metadata was not accepted", e)
                .cure("check the sources and that the keyring is the archive's")
        })
    }

    /// The releases that were fetched, sorted.
    ///
    /// # Errors
    /// If one has no date.
    pub fn releases(&self) -> Result<Vec<Release>> {
        let what = "the archive's metadata cannot be read";
        let lists = self.folder.join("state/lists");
        let mut out = BTreeSet::new();
        for entry in fs::read_dir(&lists).at(what, &lists)? {
            let path = entry.at(what, &lists)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !(name.ends_with("_InRelease") || name.ends_with("_Release")) {
                continue;
            }
            let bytes = host::file::read_limited(&path, MAX_RELEASE).during(what)?.unwrap_or_default();
            let stanza = release_stanza(&String::from_utf8_lossy(&bytes));
            let field = |name| stanza.field(name).unwrap_or_default().to_owned();
            let date = rfc2822::parse(&field("Date")).ok_or_else(|| {
                Error::new(
                    Kind::Data,
                    what,
                    format!("{name} has no date of the usual form ({:?})", field("Date")),
                )
            })?;
            out.insert(Release {
                origin: field("Origin"),
                label: field("Label"),
                suite: field("Suite"),
                codename: field("Codename"),
                date,
            });
        }
        Ok(out.into_iter().collect())
    }

    /// From now on, updates come from security sources only.
    ///
    /// # Errors
    /// If there are none, or a source cannot be told from them.
    pub fn only_security(&self, releases: &[Release]) -> Result<()> {
        let what = "the sources cannot be narrowed to security";
        if !releases.iter().any(Release::is_security) {
            return Err(Error::new(
                Kind::Config,
                what,
                "none has \"security\" in its Label, Suite or Codename",
            )
            .cure("add the security archive to the sources"));
        }
        let mut preferences = String::new();
        for release in releases.iter().filter(|r| !r.is_security()) {
            let fields = [
                ('o', &release.origin),
                ('l', &release.label),
                ('a', &release.suite),
                ('n', &release.codename),
            ];
            let named: Vec<String> = fields
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(letter, value)| format!("{letter}={value}"))
                .collect();
            if named.is_empty() {
                return Err(Error::new(
                    Kind::Config,
                    what,
                    "a source has no Origin, Label, Suite or Codename",
                ));
            }
            let pin = named.join(",");
            preferences.push_str(&format!("Package: *\nPin: release {pin}\nPin-Priority: {PIN_OTHERS}\n\n"));
        }
        host::file::replace(&self.folder.join("etc/preferences"), preferences.as_bytes(), 0o644).during(what)
    }

    /// The Packages files that were fetched.
    ///
    /// # Errors
    /// If apt cannot list them.
    pub fn index_files(&self) -> Result<Vec<IndexFile>> {
        let output = self
            .apt_get()
            .args([
                "indextargets",
                "--format",
                "$(FILENAME)|$(ORIGIN)|$(CODENAME)|$(SUITE)",
                "Identifier: Packages",
            ])
            .output()
            .map_err(|e| Error::new(Kind::Unavailable, "the archive's metadata cannot be read", e))?;
        let mut out = Vec::new();
        for line in output.stdout.lines() {
            let parts: Vec<&str> = line.split('|').collect();
            let [path, origin, codename, suite] = parts[..] else {
                continue;
            };
            // Listed, but empty at the archive: apt makes no file.
            if !Path::new(path).exists() {
                continue;
            }
            let name = if codename.is_empty() { suite } else { codename };
            out.push(IndexFile { path: path.into(), origin: format!("{origin}:{name}") });
        }
        Ok(out)
    }

    /// The stanzas of `listed` packages: that of the listed version if the archive has it, else the newest.
    ///
    /// # Errors
    /// If a Packages file cannot be read.
    pub fn stanzas_of(
        &self,
        listed: &[Listed],
        architecture: &str,
    ) -> Result<BTreeMap<(String, String), Stanza>> {
        let by_name: BTreeMap<&str, Vec<&Listed>> = listed.iter().fold(BTreeMap::new(), |mut map, l| {
            map.entry(l.name.as_str()).or_insert_with(Vec::new).push(l);
            map
        });
        let mut out: BTreeMap<(String, String), Stanza> = BTreeMap::new();
        for index in self.index_files()? {
            each_stanza(&index.path, &mut |text| {
                let name = text.strip_prefix("Package: ").and_then(|t| t.lines().next()).unwrap_or_default();
                let Some(wanted) = by_name.get(name) else { return };
                let stanza = Stanza::parse(text);
                let (version, arch) = (
                    stanza.field("Version").unwrap_or_default(),
                    stanza.field("Architecture").unwrap_or_default(),
                );
                for listed in wanted {
                    let wanted_arch = listed.arch.as_deref().unwrap_or(architecture);
                    if arch != wanted_arch && arch != "all" {
                        continue;
                    }
                    let key = (listed.name.clone(), listed.arch.clone().unwrap_or_default());
                    let better = out.get(&key).is_none_or(|there| {
                        let there = there.field("Version").unwrap_or_default();
                        listed.version.as_deref() == Some(version)
                            || (listed.version.as_deref() != Some(there)
                                && version::compare(version, there).is_gt())
                    });
                    if better {
                        out.insert(key, stanza.clone());
                    }
                }
            })?;
        }
        Ok(out)
    }

    /// What a node with this status file needs, by `apt-get dist-upgrade`. Nothing is downloaded.
    ///
    /// # Errors
    /// If apt finds no solution.
    pub fn resolve(&self, status: &Path, inventory: &str) -> Result<Resolution> {
        // Packages that are in the cache would be missing in the list: so another, empty cache.
        let archives = self.folder.join("resolve");
        let output = self
            .with_status(status)
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}/", archives.display()))
            .args(["-q", "-y", "--print-uris", "dist-upgrade"])
            .output()
            .map_err(|e| {
                Error::new(Kind::Data, format_args!("the inventory {inventory} has no solution"), e)
                    .cure("the node itself is probably in the same state; see apt-get -f install there")
            })?;
        parse_resolution(&output.stdout)
    }

    /// Downloads what a node with this status file needs; apt verifies size and digest.
    ///
    /// # Errors
    /// If that fails.
    pub fn download(&self, status: &Path, progress: Progress, count: u64) -> Result<()> {
        let bar = progress.items("downloading", count);
        self.with_status(status)
            .args(["-q", "-y", "--download-only", "dist-upgrade"])
            .lines(&mut |line| {
                if line.starts_with("Get:") {
                    bar.add(1);
                }
                Ok(())
            })
            .map_err(|e| {
                let damaged = ["Hash Sum mismatch", "[weak]", "unexpected size"];
                let (kind, cure) = match damaged.iter().any(|words| e.stderr().contains(words)) {
                    true => {
                        (Kind::Data, "the archive, or a cache on the way, holds other bytes than it signed")
                    }
                    false => (Kind::Unavailable, "run it again; with --cache, what is there already is kept"),
                };
                Error::new(kind, "packages could not be downloaded", e).cure(cure)
            })?;
        bar.done();
        Ok(())
    }

    fn with_status(&self, status: &Path) -> Command {
        self.apt_get().arg("-o").arg(format!("Dir::State::status={}", status.display()))
    }

    /// Where the content of a resolved package is now.
    pub fn file_of(&self, wanted: &Wanted) -> PathBuf {
        // apt does not copy what `file:` names.
        match wanted.uri.strip_prefix("file:") {
            Some(path) => PathBuf::from(unescape(path.strip_prefix("//").unwrap_or(path))),
            None => self.folder.join("cache/archives").join(&wanted.file),
        }
    }

    /// Stanza and origin of each wanted package.
    ///
    /// # Errors
    /// If the archive's own metadata lacks one: then it changed while we looked.
    pub fn describe(&self, wanted: &[Wanted]) -> Result<BTreeMap<Wanted, (Stanza, String)>> {
        let by_name: BTreeMap<&str, Vec<&Wanted>> = wanted.iter().fold(BTreeMap::new(), |mut map, w| {
            map.entry(w.name.as_str()).or_insert_with(Vec::new).push(w);
            map
        });
        let mut out = BTreeMap::new();
        let mut index_files = self.index_files()?;
        // A package may be in several releases; the security archive is named then, whatever the order of sources.
        index_files.sort_by_key(|i| (!i.origin.contains("security"), i.origin.clone()));
        for index in &index_files {
            each_stanza(&index.path, &mut |text| {
                let name = text.strip_prefix("Package: ").and_then(|t| t.lines().next()).unwrap_or_default();
                let Some(candidates) = by_name.get(name) else {
                    return;
                };
                let stanza = Stanza::parse(text);
                for wanted in candidates {
                    if stanza.field("Version") == Some(&wanted.version)
                        && stanza.field("SHA256") == Some(&wanted.sha256.to_string())
                    {
                        out.entry((*wanted).clone())
                            .or_insert_with(|| (stanza.clone(), index.origin.clone()));
                    }
                }
            })?;
        }
        match wanted.iter().find(|w| !out.contains_key(w)) {
            None => Ok(out),
            Some(missing) => Err(Error::new(
                Kind::Unavailable,
                "the archive contradicts itself",
                format!("{} {} is in none of its Packages files", missing.name, missing.version),
            )
            .cure("it was probably being updated; run it again")),
        }
    }
}

/// The settings of this machine's apt that are kept; none where there is no apt-config.
fn kept_settings() -> String {
    let dump = Command::new("apt-config").args(["dump", "Acquire"]).output();
    let dump = dump.map(|o| o.stdout).unwrap_or_default();
    let kept = dump.lines().filter(|line| {
        let name = line.split(' ').next().unwrap_or_default().to_ascii_lowercase();
        // Acquire::http::Proxy and Acquire::http::Proxy::HOST alike.
        name.starts_with("acquire::") && name.split("::").any(|part| KEPT.contains(&part))
    });
    kept.fold(String::new(), |text, line| text + line + "\n")
}

fn each_stanza(path: &Path, each: &mut dyn FnMut(&str)) -> Result<()> {
    let what = "the archive's metadata cannot be read";
    let file = fs::File::open(path).at(what, path)?;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    for_each_stanza(&mut reader, &mut |text| -> io::Result<()> {
        each(text);
        Ok(())
    })
    .at(what, path)
}
