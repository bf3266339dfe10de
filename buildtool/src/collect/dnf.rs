//! RPM repositories, asked by dnf's own resolver (`dnf_resolve.py`, run by the Python that dnf is written for) and described
//! by createrepo_c, which writes the same of a package whatever made the repository that it came from.
//!
//! What came from a repository counts only if one of the given keys has signed it: each package is checked with rpmkeys
//! against a keyring that holds these keys and no others. What a `.repo` file says of keys gives way to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use format::digest::{Hasher, Sha256};
use format::index::{Advisory, Family};
use format::name::{MemberPath, Variant};
use format::time::UnixTime;
use host::command::Command;
use serde_json::json;

use super::run::{Asked, Found, Work, bring};
use super::{Collected, CollectedPackage, Release, ResolvedInventory};
use crate::cli::CollectDnfArgs;
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::progress::Progress;

const RESOLVE: &str = include_str!("dnf_resolve.py");

/// An RPM database of a large machine is some 300 MiB; an export or a list is far smaller.
const MAX_INVENTORY: u64 = 1024 * 1024 * 1024;

/// The names that rpm's database has in its folder, by backend: sqlite, ndb, Berkeley DB.
const DATABASES: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];

/// With what an export of `rpmdb --exportdb` begins: the magic of an RPM header.
const HEADER_MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];

/// Distributions whose modules are of the platform `el`.
const ENTERPRISE: [&str; 6] = ["rhel", "rocky", "almalinux", "centos", "ol", "rpmlab"];

/// Collects and writes `args.output`.
///
/// # Errors
/// If an input is wrong, a repository cannot be reached or has no solution, or a package is not signed by a given key.
pub fn collect(args: &CollectDnfArgs, progress: Progress) -> Result<Collected> {
    let what = "nothing was collected";
    let architecture = match &args.architecture {
        Some(architecture) => architecture.clone(),
        None => args.variant.as_str().rsplit('-').next().unwrap_or_default().to_owned(),
    };
    let work = Work::begin(&args.output, args.cache.as_deref(), ".dnf")?;
    let tools = Tools::prepare(&work.folder, &args.keys)?;
    let repos = work.folder.join("repos");
    host::file::make_folder(&repos, 0o755).during(what)?;
    let sources = host::file::read_limited(&args.sources, 1024 * 1024).during(what)?.ok_or_else(|| {
        Error::new(Kind::Config, what, format!("{}: there is no such file", args.sources.display()))
    })?;
    host::file::replace(&repos.join("sources.repo"), &sources, 0o644).during(what)?;

    let (mut inventories, mut releases) = (Vec::new(), BTreeSet::new());
    let mut needed: BTreeMap<(String, String, String), Needed> = BTreeMap::new();
    let mut modules = BTreeSet::new();
    for (number, path) in args.inventories.iter().enumerate() {
        progress.say(&format!("{}: resolving and downloading ...", path.display()));
        let inventory = tools.inventory(path, &work.folder.join(format!("root.{number}")))?;
        let ask = json!({
            "root": inventory.root, "cache": work.folder.join("cache"), "state": work.folder.join("state"),
            "repos": repos, "keys": tools.keys, "arch": architecture, "releasever": releasever(args),
            "platform": platform(args), "refresh": number == 0, "security": args.security_only,
            "list": inventory.list,
        });
        let answer = tools.resolve(&ask, &work.folder)?;
        progress.say(&format!("{}: {} packages needed", path.display(), answer.needed.len()));
        inventories.push(ResolvedInventory {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            sha256: inventory.sha256,
            installed: answer.installed,
            needed: answer.needed.len(),
            kept_back: answer.kept_back,
            removed: answer.removed,
        });
        releases.extend(answer.releases.into_iter().map(|r| Release {
            origin: r.name,
            label: r.id,
            suite: String::new(),
            codename: String::new(),
            date: UnixTime(r.date),
        }));
        modules.extend(answer.modules);
        for package in answer.needed {
            let merged = needed.entry(package.key()).or_insert_with(|| package.clone());
            // Each inventory lacks other repairs.
            let all: BTreeSet<_> = merged.advisories.iter().chain(&package.advisories).cloned().collect();
            merged.advisories = all.into_iter().collect();
        }
    }
    let needed: Vec<Needed> = needed.into_values().collect();
    progress.say("checking signatures ...");
    tools.check_signatures(&needed)?;
    let packages = fill_pool(&tools, &work, needed, args, progress)?;

    let asked = Asked {
        variant: &args.variant,
        family: Family::Rpm,
        architecture,
        security_only: args.security_only,
        sources: &args.sources,
        output: &args.output,
    };
    let (releases, modules) = (releases.into_iter().collect(), modules.into_iter().collect());
    work.finish(asked, Found { releases, inventories, packages, modules })
}

/// VERSION_ID of the variant, as far as the first dot: what `$releasever` is on its nodes.
fn releasever(args: &CollectDnfArgs) -> String {
    args.releasever.clone().unwrap_or_else(|| major(&args.variant).to_owned())
}

fn major(variant: &Variant) -> &str {
    let version = variant.as_str().split('-').rev().nth(1).unwrap_or_default();
    version.split('.').next().unwrap_or_default()
}

/// The platform that modules are for.
fn platform(args: &CollectDnfArgs) -> String {
    let id = args.variant.as_str().split('-').next().unwrap_or_default();
    let kind = if ENTERPRISE.contains(&id) { "el" } else { "f" };
    format!("platform:{kind}{}", major(&args.variant))
}

/// A package that an inventory needs.
#[derive(Clone, Debug, serde::Deserialize)]
struct Needed {
    name: String,
    epoch: u32,
    version: String,
    release: String,
    arch: String,
    source: String,
    source_version: String,
    repo: String,
    path: PathBuf,
    /// SHA-256 as the repository says it; empty where it says another digest, which dnf has checked.
    digest: String,
    size: u64,
    advisories: Vec<Advisory>,
}

impl Needed {
    fn evr(&self) -> String {
        let epoch = if self.epoch > 0 { format!("{}:", self.epoch) } else { String::new() };
        format!("{epoch}{}-{}", self.version, self.release)
    }

    fn key(&self) -> (String, String, String) {
        (self.name.clone(), self.arch.clone(), self.evr())
    }

    /// Its name in `pool/`, whatever the repository calls it.
    fn file(&self) -> String {
        format!("{}-{}-{}.{}.rpm", self.name, self.version, self.release, self.arch)
    }
}

#[derive(serde::Deserialize)]
struct Answer {
    releases: Vec<RepoRelease>,
    needed: Vec<Needed>,
    kept_back: Vec<String>,
    removed: Vec<String>,
    installed: usize,
    modules: Vec<String>,
}

#[derive(serde::Deserialize)]
struct RepoRelease {
    id: String,
    name: String,
    date: i64,
}

/// An inventory as dnf can resolve for it: a root with its database, or a list.
struct Inventory {
    root: PathBuf,
    list: Vec<(String, String, String)>,
    sha256: Sha256,
}

/// rpm, dnf and createrepo_c of this machine, with a home of their own.
struct Tools {
    home: PathBuf,
    /// The given keys, copied.
    keys: Vec<PathBuf>,
    python: String,
}

impl Tools {
    /// # Errors
    /// If one of them is missing, or a key is none.
    fn prepare(work: &Path, keys: &[PathBuf]) -> Result<Tools> {
        let what = "nothing was collected";
        for (program, package) in
            [("rpm", "rpm"), ("rpmkeys", "rpm"), ("createrepo_c", "createrepo-c or createrepo_c")]
        {
            if !Command::exists(Path::new("/"), program) {
                return Err(Error::new(Kind::Unavailable, what, format!("{program} is not on this machine"))
                    .cure(format!("install the package {package}")));
            }
        }
        let python = shebang(Path::new("/usr/bin/dnf-3"))
            .or_else(|| shebang(Path::new("/usr/bin/dnf")))
            .ok_or_else(|| {
                Error::new(Kind::Unavailable, what, "dnf 4 is not on this machine")
                    .cure("install the package dnf")
            })?;
        let home = work.join("home");
        host::file::remove(&home).during(what)?;
        host::file::make_folder(&home.join("keyring"), 0o700).during(what)?;
        // Debian's rpm looks for databases below the home, Fedora's in /usr/lib/sysimage.
        let macros = "%_dbpath /var/lib/rpm\n%_pkgverify_level all\n";
        host::file::replace(&home.join(".rpmmacros"), macros.as_bytes(), 0o644).during(what)?;
        let mut copies = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let copy = home.join(format!("key.{number}"));
            fs::copy(key, &copy).at("the key cannot be used", key)?;
            copies.push(copy);
        }
        let tools = Tools { home, keys: copies, python };
        for key in &tools.keys {
            tools.run(tools.keyring().arg("--import").arg(key), "the key cannot be used")?;
        }
        Ok(tools)
    }

    fn command(&self, program: &str) -> Command {
        Command::new(program).env("HOME", &self.home)
    }

    /// rpmkeys with a keyring of the given keys alone.
    fn keyring(&self) -> Command {
        self.command("rpmkeys").arg("--dbpath").arg(self.home.join("keyring"))
    }

    fn run(&self, command: Command, what: &str) -> Result<String> {
        command.output().map(|o| o.stdout).map_err(|e| Error::new(Kind::Unavailable, what, e))
    }

    /// Brings an inventory of any kind into `root`.
    fn inventory(&self, path: &Path, root: &Path) -> Result<Inventory> {
        let what = "the inventory cannot be used";
        let wrong = |why: &str| Error::new(Kind::Config, what, format!("{}: {why}", path.display()));
        host::file::remove(root).during(what)?;
        let database = root.join("var/lib/rpm");
        host::file::make_folder(&database, 0o755).during(what)?;
        let none = Vec::new();
        if path.is_dir() {
            // The root of a node, or a copy of part of one, or its database's folder alone.
            let folders = ["var/lib/rpm", "usr/lib/sysimage/rpm", ""].map(|f| path.join(f));
            let found = folders.iter().find(|f| DATABASES.iter().any(|d| f.join(d).exists()));
            let from = found.ok_or_else(|| wrong("it has no RPM database"))?;
            let sha256 = copy_folder(from, &database)?;
            let streams = path.join("etc/dnf/modules.d");
            if streams.is_dir() {
                let to = root.join("etc/dnf/modules.d");
                host::file::make_folder(&to, 0o755).during(what)?;
                copy_folder(&streams, &to)?;
            } else {
                self.enable_installed_streams(root)?;
            }
            return Ok(Inventory { root: root.to_owned(), list: none, sha256 });
        }
        let bytes = host::file::read_limited(path, MAX_INVENTORY).during(what)?;
        let bytes = bytes.ok_or_else(|| wrong("there is no such file"))?;
        let sha256 = Sha256::of(&bytes);
        if bytes.starts_with(&HEADER_MAGIC) {
            let command =
                self.command("sh").args(["-c", "exec rpmdb --root \"$1\" --importdb <\"$2\"", "sh"]);
            self.run(command.arg(root).arg(absolute(path)?), what)?;
        } else if bytes.starts_with(b"SQLite format 3\0") {
            fs::write(database.join("rpmdb.sqlite"), &bytes).at(what, path)?;
        } else {
            let text = String::from_utf8(bytes).map_err(|_| {
                wrong("it is neither a list, nor an export of rpmdb, nor a database; a Berkeley DB must come with its folder")
            })?;
            let list = parse_list(&text).map_err(|e| wrong(&e))?;
            return Ok(Inventory { root: root.to_owned(), list, sha256 });
        }
        self.enable_installed_streams(root)?;
        Ok(Inventory { root: root.to_owned(), list: none, sha256 })
    }

    /// A module stream of which packages are installed is one that the node has enabled.
    fn enable_installed_streams(&self, root: &Path) -> Result<()> {
        let what = "the inventory cannot be used";
        let query =
            self.command("rpm").arg("--root").arg(root).args(["-qa", "--qf", "%{MODULARITYLABEL}\\n"]);
        let labels = self.run(query, what)?;
        for label in labels.lines().collect::<BTreeSet<_>>() {
            let mut parts = label.split(':');
            if let (Some(name), Some(stream), Some(_)) = (parts.next(), parts.next(), parts.next())
                && format!("{name}.module").parse::<MemberPath>().is_ok_and(|p| !p.as_str().contains('/'))
            {
                let folder = root.join("etc/dnf/modules.d");
                host::file::make_folder(&folder, 0o755).during(what)?;
                let text = format!("[{name}]\nname={name}\nstream={stream}\nprofiles=\nstate=enabled\n");
                host::file::replace(&folder.join(format!("{name}.module")), text.as_bytes(), 0o644)
                    .during(what)?;
            }
        }
        Ok(())
    }

    fn resolve(&self, ask: &serde_json::Value, work: &Path) -> Result<Answer> {
        let what = "nothing was collected";
        let path = work.join("ask.json");
        host::file::replace(&path, ask.to_string().as_bytes(), 0o644).during(what)?;
        let script = work.join("resolve.py");
        host::file::replace(&script, RESOLVE.as_bytes(), 0o644).during(what)?;
        host::file::make_folder(&work.join("state"), 0o755).during(what)?;
        let said = self.run(self.command(&self.python).arg(&script).arg(&path), what)?;
        let json = said.find('{').map_or("", |at| &said[at..]);
        serde_json::from_str(json)
            .map_err(|e| Error::new(Kind::Unavailable, what, format!("dnf's answer cannot be read: {e}")))
    }

    /// Each package is signed by one of the given keys.
    fn check_signatures(&self, packages: &[Needed]) -> Result<()> {
        let what = "a package cannot be collected";
        /// File names that fit one command line.
        const AT_ONCE: usize = 200;
        for some in packages.chunks(AT_ONCE) {
            // What it says counts, and not its exit code: versions differ in what that is for a package without a signature.
            let mut verdicts = BTreeMap::new();
            let mut take = |line: &str| {
                if let Some((file, verdict)) = line.rsplit_once(": ") {
                    verdicts.insert(file.to_owned(), verdict.to_owned());
                }
                Ok(())
            };
            let checked =
                self.keyring().arg("--checksig").args(some.iter().map(|p| &p.path)).lines(&mut take);
            let unsigned = some.iter().find(|p| {
                let verdict = verdicts.get(p.path.to_string_lossy().as_ref());
                !verdict.is_some_and(|v| {
                    v.ends_with(" OK")
                        && !v.contains("NOT")
                        && (v.contains("signatures") || v.contains("pgp"))
                })
            });
            if let Some(package) = unsigned {
                let verdict = verdicts.get(package.path.to_string_lossy().as_ref()).cloned();
                let why = format!(
                    "{} of the repository {} is not signed by a given key: {}",
                    package.file(),
                    package.repo,
                    verdict.unwrap_or_else(|| checked
                        .err()
                        .map_or("rpmkeys says nothing of it".into(), |e| e.to_string()))
                );
                return Err(Error::new(Kind::Data, what, why)
                    .cure("give its vendor's key with --key, or leave the repository out"));
            }
        }
        Ok(())
    }

    /// What createrepo_c says of each file in `pool`: its elements in primary and filelists.
    fn describe(&self, pool: &Path, work: &Path) -> Result<BTreeMap<String, (String, String)>> {
        let what = "the packages cannot be described";
        let out = work.join("described");
        host::file::remove(&out).during(what)?;
        host::file::make_folder(&out, 0o755).during(what)?;
        let command =
            self.command("createrepo_c").args(["--quiet", "--no-database", "--simple-md-filenames"]);
        let command = command.args(["--general-compress-type", "gz", "--checksum", "sha256", "--outputdir"]);
        self.run(command.arg(&out).arg(pool), what)?;
        let mut found: BTreeMap<String, (String, String)> = BTreeMap::new();
        for element in self.elements(&out.join("repodata/primary.xml.gz"))? {
            let id = between(&element, "<checksum type=\"sha256\" pkgid=\"YES\">", "</checksum>");
            found.insert(id.unwrap_or_default().to_owned(), (element, String::new()));
        }
        for element in self.elements(&out.join("repodata/filelists.xml.gz"))? {
            let id = between(&element, "pkgid=\"", "\"").unwrap_or_default().to_owned();
            if let Some((_, files)) = found.get_mut(&id) {
                *files = element;
            }
        }
        Ok(found)
    }

    /// The `package` elements of a file that createrepo_c wrote, which begins and ends each on a line of its own.
    fn elements(&self, path: &Path) -> Result<Vec<String>> {
        let (mut out, mut current) = (Vec::new(), None::<String>);
        let mut take = |line: &str| {
            if line.starts_with("<package ") {
                current = Some(String::new());
            }
            if let Some(text) = &mut current {
                text.push_str(line);
                text.push('\n');
            }
            if line == "</package>" {
                out.extend(current.take());
            }
            Ok(())
        };
        let command = Command::new("gzip").arg("-dc").arg(path);
        command
            .lines(&mut take)
            .map_err(|e| Error::new(Kind::Unavailable, "the packages cannot be described", e))?;
        Ok(out)
    }
}

/// Brings each package into `output/pool`, verified, and takes away what does not belong there.
fn fill_pool(
    tools: &Tools,
    work: &Work,
    needed: Vec<Needed>,
    args: &CollectDnfArgs,
    progress: Progress,
) -> Result<Vec<CollectedPackage>> {
    let what = "a package cannot be collected";
    let wrong = |why: String| Error::new(Kind::Data, what, why);
    let pool = args.output.join("pool");
    host::file::remove(&pool).during(what)?;
    host::file::make_folder(&pool, 0o755).during(what)?;
    let pool = fs::canonicalize(&pool).at(what, &pool)?;
    let bar = progress.items("verifying", needed.len() as u64);
    let mut brought = Vec::new();
    for package in needed {
        let file = package.file();
        format!("pool/{file}").parse::<MemberPath>().map_err(|e| wrong(e.to_string()))?;
        let to = pool.join(&file);
        if to.exists() {
            return Err(wrong(format!("two versions of {} differ only in their epoch", package.name))
                .cure("collect for the inventories one by one"));
        }
        let digest = (!package.digest.is_empty()).then(|| package.digest.parse::<Sha256>()).transpose();
        let digest = digest.map_err(|e| wrong(format!("{file}: {e}")))?;
        let (sha256, size) = bring(&package.path, &to, digest, package.size)?;
        brought.push((package, file, sha256, size));
        bar.add(1);
    }
    bar.done();
    let mut described = tools.describe(&pool, &work.folder)?;
    brought
        .into_iter()
        .map(|(package, file, sha256, size)| {
            let (stanza, files) = described
                .remove(&sha256.to_string())
                .ok_or_else(|| wrong(format!("createrepo_c says nothing of {file}")))?;
            Ok(CollectedPackage {
                version: package.evr(),
                file,
                name: package.name,
                arch: package.arch,
                source: package.source,
                source_version: package.source_version,
                origin: package.repo,
                size,
                sha256,
                advisories: package.advisories,
                stanza: tidy(&stanza),
                files,
            })
        })
        .collect()
}

/// Takes out of an element of primary what is of this machine: when its file was made here.
fn tidy(element: &str) -> String {
    let mut out = String::with_capacity(element.len());
    for line in element.lines() {
        let time =
            line.trim_start().strip_prefix("<time file=\"").and_then(|rest| rest.split_once("\" build=\""));
        match time.and_then(|(_, rest)| rest.split_once('"')) {
            Some((build, _)) => out.push_str(&format!("  <time file=\"{build}\" build=\"{build}\"/>")),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Copies the files of a folder, and digests them, sorted by name.
fn copy_folder(from: &Path, to: &Path) -> Result<Sha256> {
    let what = "the inventory cannot be used";
    let mut names = Vec::new();
    for entry in fs::read_dir(from).at(what, from)? {
        let entry = entry.at(what, from)?;
        if entry.file_type().at(what, from)?.is_file() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    let mut hasher = Hasher::new();
    for name in names {
        let (source, target) = (from.join(&name), to.join(&name));
        fs::copy(&source, &target).at(what, &source)?;
        let (digest, _) =
            Sha256::of_reader(&mut fs::File::open(&target).at(what, &target)?).at(what, &target)?;
        hasher.update(&digest.0);
    }
    Ok(hasher.finish())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).at("the inventory cannot be used", path)
}

/// The program that a script is written for.
fn shebang(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.strip_prefix("#!")?.split_whitespace().next()?.to_owned())
}

fn between<'t>(text: &'t str, open: &str, close: &str) -> Option<&'t str> {
    let start = text.find(open)? + open.len();
    let length = text[start..].find(close)?;
    Some(&text[start..start + length])
}

/// Reads a list: `NAME-[EPOCH:]VERSION-RELEASE.ARCH` on each line, as `rpm -qa` prints it, or `NAME ARCH VERSION`.
fn parse_list(text: &str) -> std::result::Result<Vec<(String, String, String)>, String> {
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with("gpg-pubkey-") || line.starts_with("gpg-pubkey ") {
            continue;
        }
        let parsed = match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [name, arch, version] => Some(((*name).to_owned(), (*arch).to_owned(), (*version).to_owned())),
            [nevra] => nevra_parts(nevra),
            _ => None,
        };
        out.push(parsed.ok_or_else(|| {
            format!(
                "line {}: {line:?} is neither \"name-version-release.arch\" nor \"name arch version\"",
                number + 1
            )
        })?);
    }
    if out.is_empty() {
        return Err("it lists no package".into());
    }
    // dnf is asked with an epoch; a list without one is of packages that have none, or does not tell.
    for (_, _, version) in &mut out {
        if !version.contains(':') {
            version.insert_str(0, "0:");
        }
    }
    out.sort();
    out.dedup();
    Ok(out)
}

fn nevra_parts(nevra: &str) -> Option<(String, String, String)> {
    let (rest, arch) = nevra.rsplit_once('.')?;
    let (rest, release) = rest.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    (!name.is_empty()).then(|| (name.to_owned(), arch.to_owned(), format!("{version}-{release}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_rpm_prints_or_three_words() {
        let list =
            parse_list("bash-5.1.8-9.el9.x86_64\ngpg-pubkey-1-2\ntzdata noarch 1:2024a-1.el9 # time\n")
                .unwrap();
        let triple = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            list,
            [triple("bash", "x86_64", "0:5.1.8-9.el9"), triple("tzdata", "noarch", "1:2024a-1.el9")]
        );
        for bad in ["", "bash", "a b", "a b c d"] {
            assert!(parse_list(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn when_a_file_was_downloaded_does_not_come_along() {
        let element =
            "<package type=\"rpm\">\n  <time file=\"1795222382\" build=\"1700000000\"/>\n</package>\n";
        assert_eq!(
            tidy(element),
            "<package type=\"rpm\">\n  <time file=\"1700000000\" build=\"1700000000\"/>\n</package>\n"
        );
    }
}
