//! apt and dpkg: the only file that knows their words. Parsing is apart from running.
//!
//! What their exit codes are worth was measured, not read: apt-get ends with 0 when packages are kept back, and
//! `dpkg --audit` ends with 0 when there are problems. So success is proved by inventory and audit, by the caller.

mod plain; // what deltas start from and lead to

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::time::Duration;

use format::digest::{Hasher, Sha256};
use format::index::Member;
use format::inventory::{Inventory, PackageChange, PackageId};
use host::clock::Clock;
use host::command::{Command, CommandError};
use host::isolation::Seen;

use super::{
    PackageManager, Resolution, WantedFile, WayBack, Words, hash_file, hash_folder, in_root, inside,
};
use crate::error::{Error, Exit, Result};
use crate::render::Renderer;

/// The resolver's verb: every update, with the new packages that it needs, and never a removal.
const UPGRADE: [&str; 2] = ["upgrade", "--with-new-pkgs"];

/// What dpkg says when another one has its lock.
const DPKG_LOCKED: &str = "locked by another process";

/// What apt says where a repository's files do not fit together.
const HASH_MISMATCH: &str = "Hash Sum mismatch";

/// Between two looks at a lock.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// apt and dpkg of a node.
pub struct Apt<'c> {
    /// The node's root.
    pub root: PathBuf,
    /// Install even where no empty network namespace can be made.
    pub allow_network: bool,
    /// How long to wait for another package manager.
    pub lock_timeout: Duration,
    /// For the sources list.
    pub renderer: Renderer,
    /// For waiting.
    pub clock: &'c dyn Clock,
}

/// That of dpkg itself, as its database has it. To start dpkg for it was half the CPU of a run that has nothing to do.
fn own_architecture(mut status: impl BufRead) -> Option<String> {
    let (mut line, mut is_own, mut is_installed) = (Vec::new(), false, false);
    while status.read_until(b'\n', &mut line).ok()? > 0 {
        match line.trim_ascii_end() {
            b"Package: dpkg" => is_own = true,
            b"" if is_own => return None,
            field if is_own => {
                is_installed |= field.starts_with(b"Status: ") && field.ends_with(b" installed");
                if let Some(value) = field.strip_prefix(b"Architecture: ").filter(|_| is_installed) {
                    return String::from_utf8(value.to_owned()).ok();
                }
            }
            _ => {}
        }
        line.clear();
    }
    None
}

impl Apt<'_> {
    /// The Debian architecture of the node below `root`.
    ///
    /// # Errors
    /// If there is no dpkg that works.
    pub fn architecture(root: &Path) -> Result<String> {
        let status = std::fs::File::open(root.join("var/lib/dpkg/status"));
        if let Some(recorded) = status.ok().and_then(|file| own_architecture(io::BufReader::new(file))) {
            return Ok(recorded);
        }
        let command = in_root(root, Command::new("dpkg").arg("--print-architecture"), false);
        let output = command.output().map_err(|e| match e {
            CommandError::Isolation { .. } => explain(&e),
            _ => Error::new(Exit::Config, e, "set [node] variant"),
        })?;
        Ok(output.stdout.trim().to_owned())
    }

    fn inside(&self, path: &Path) -> String {
        inside(&self.root, path)
    }

    fn command(&self, program: &str) -> Command {
        in_root(&self.root, Command::new(program), false)
    }

    /// apt-get with `repo` as its only source and every file of its own in `scratch`.
    fn apt_get(&self, repo: &Path, scratch: &Path) -> Result<Command> {
        let source =
            self.renderer.render("sources.list", minijinja::context! { path => self.inside(repo) })?;
        let list = scratch.join("sources.list");
        host::file::make_folder(scratch, 0o755)?;
        host::file::replace(&list, source.as_bytes(), 0o644)?;
        self.apt_get_from(&self.inside(&list), scratch)
    }

    /// The same with the sources list `list`, a path inside the root.
    fn apt_get_from(&self, list: &str, scratch: &Path) -> Result<Command> {
        let lists = scratch.join("lists");
        host::file::make_folder(&lists.join("partial"), 0o755)?;
        host::file::make_folder(&scratch.join("cache/archives/partial"), 0o755)?;
        let options = [
            format!("Dir::Etc::sourcelist={list}"),
            "Dir::Etc::sourceparts=/dev/null".into(),
            format!("Dir::State::lists={}", self.inside(&lists)),
            format!("Dir::Cache={}", self.inside(&scratch.join("cache"))),
            // The files are already where only this user writes; there is nobody else to become.
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
            // The rollout is spread by Prestage, not a second time by the archive.
            "APT::Get::Always-Include-Phased-Updates=true".into(),
            "APT::Get::List-Cleanup=false".into(),
            // Without it --print-uris says no digest for a repository that needs no signature.
            "Acquire::ForceHash=sha256".into(),
            "Dpkg::Use-Pty=false".into(),
        ];
        let mut command = self.command("apt-get").arg("-q");
        for option in options {
            command = command.arg("-o").arg(option);
        }
        Ok(command)
    }

    /// Runs an apt-get that changes the node: without a network, asking nobody, keeping the operator's edits.
    fn change(&self, command: Command) -> Result<Seen> {
        let command = command
            .arg("-o")
            .arg(format!("DPkg::Lock::Timeout={}", self.lock_timeout.as_secs()))
            .args(["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]);
        let command = in_root(&self.root, noninteractive(command), !self.allow_network);
        let seen = command.lines(&mut |line| {
            host::detail!("apt: {line}");
            Ok(())
        });
        Ok(seen.map_err(|e| explain(&e))?.unwrap_or_default())
    }

    /// Reads the repository's metadata into `scratch`.
    fn update(&self, repo: &Path, scratch: &Path) -> Result<()> {
        host::file::remove(&scratch.join("lists"))?;
        let command = self.apt_get(repo, scratch)?.args(["-o", "Debug::NoLocking=true", "update"]);
        // Nothing was touched yet, whatever apt says: no install has failed.
        command.output().map(|_| ()).map_err(|e| match explain(&e) {
            error if error.exit != Exit::InstallFailed => error,
            _ if e.stderr().contains(HASH_MISMATCH) => Error::new(
                Exit::Integrity,
                format!("the bundle's Packages is not the one of its Release: {}", essence(e.stderr())),
                "build and publish the bundle again",
            ),
            _ => {
                let what = format!("apt cannot read the bundle's metadata: {}", essence(e.stderr()));
                Error::new(Exit::Deferred, what, "build the bundle again, or repair this node's apt")
            }
        })
    }
}

/// What an error of apt or dpkg means for the node.
fn explain(error: &CommandError) -> Error {
    let CommandError::Failed { status, stderr, .. } = error else {
        let cure = match error {
            CommandError::Isolation { .. } => {
                "nothing was installed: run it as root where namespaces are allowed, or set [install] allow-network = true"
            }
            _ => "repair this node's apt and dpkg",
        };
        return Error::new(Exit::Deferred, error, cure);
    };
    let says = |text: &str| stderr.contains(text);
    let what = format!("the package manager ended with {status}: {}", essence(stderr));
    if says("Could not get lock") || says("Unable to acquire the dpkg frontend lock") || says(DPKG_LOCKED) {
        Error::new(
            Exit::Deferred,
            format!("another package manager is at work: {what}"),
            "it is tried again by itself",
        )
    } else if says("No space left on device") || says("enough free space") {
        Error::new(Exit::Deferred, what, "free some space; it is tried again by itself")
    } else if says("dpkg was interrupted") || says("Unmet dependencies") {
        Error::new(
            Exit::Deferred,
            what,
            "the node's own packages are broken: run `dpkg --configure -a` and `apt-get -f install`",
        )
    } else {
        Error::new(Exit::InstallFailed, what, "see /var/log/apt/term.log on the node")
    }
}

/// The lines of stderr that say what went wrong first: of hundreds that dpkg may write, those that are not consequences.
fn essence(stderr: &str) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut package = None;
    for line in stderr.lines().map(str::trim) {
        let is_cause = line.contains("subprocess returned error")
            || line.starts_with("E: ")
            || line.contains("No space left");
        // dpkg's reason stands below the package: `dpkg: error processing package till (--configure):`.
        match package.take() {
            Some(package) if !is_cause => causes.push(format!("{package}: {line}")),
            _ if is_cause => causes.push(line.to_owned()),
            _ => {}
        }
        package = line.strip_prefix("dpkg: error processing ").and_then(|rest| rest.split(" (").next());
    }
    match causes.as_slice() {
        [] => stderr.lines().last().unwrap_or_default().trim().to_owned(),
        causes => causes[..causes.len().min(3)].join("; "),
    }
}

impl PackageManager for Apt<'_> {
    fn words(&self) -> Words {
        Words {
            name: "apt",
            log: "see /var/log/apt/term.log on the node",
            by_hand: "run `dpkg --audit`, `dpkg --configure -a` and `apt-get -f install`",
        }
    }

    fn inventory(&self) -> Result<Inventory> {
        let format = "${Package}\\t${Architecture}\\t${Version}\\t${db:Status-Status}\\n";
        let output =
            self.command("dpkg-query").args(["-W", "-f", format]).output().map_err(|e| explain(&e))?;
        Ok(parse_inventory(&output.stdout))
    }

    fn fingerprint(&self) -> Result<Sha256> {
        let mut hasher = Hasher::new();
        for path in
            ["var/lib/dpkg/status", "var/lib/apt/extended_states", "etc/apt/preferences", "etc/apt/apt.conf"]
        {
            hash_file(&mut hasher, &self.root.join(path));
        }
        // What dpkg has not written into its status yet, because it was interrupted, is in the last of these.
        for folder in ["etc/apt/preferences.d", "etc/apt/apt.conf.d", "var/lib/dpkg/updates"] {
            hash_folder(&mut hasher, &self.root.join(folder));
        }
        Ok(hasher.finish())
    }

    fn resolve(&self, repo: &Path, scratch: &Path) -> Result<Resolution> {
        self.update(repo, scratch)?;
        // A simulation leaves no trace: not even the resolver's log in /var/log.
        host::file::make_folder(&scratch.join("log"), 0o755)?;
        let log = format!("Dir::Log={}", self.inside(&scratch.join("log")));
        let apt = self.apt_get(repo, scratch)?.args(["-o", "Debug::NoLocking=true", "-o", &log, "-y"]);
        // A plan that cannot be made is a deferral: nothing was touched.
        let defer = |e: CommandError| {
            let error = explain(&e);
            if error.exit == Exit::InstallFailed {
                Error::new(Exit::Deferred, e, "apt cannot plan on this node; see `apt-get check`")
            } else {
                error
            }
        };
        // Read line by line: both are as long as the list of packages.
        let mut simulation = Simulation::default();
        let mut take = |line: &str| simulation.line(line).map_err(io::Error::other);
        apt.clone().arg("--simulate").args(UPGRADE).lines(&mut take).map_err(defer)?;
        let (mut files, mut elsewhere) = (Vec::new(), None);
        let below = format!("{}/", self.inside(repo));
        let mut take = |line: &str| {
            let Some((uri, sha256)) = parse_uri(line).map_err(io::Error::other)? else { return Ok(()) };
            let path = path_of(uri).and_then(|path| Some(path.strip_prefix(&below)?.to_owned()));
            match path {
                Some(path) => files.push(WantedFile { sha256, path: Some(path) }),
                // Not below the repository, in which all was verified.
                None => drop(elsewhere.get_or_insert_with(|| line.to_owned())),
            }
            Ok(())
        };
        apt.arg("--print-uris").args(UPGRADE).lines(&mut take).map_err(defer)?;
        if let Some(line) = elsewhere {
            let what = format!("the bundle's Packages names a file that is not in the bundle: {line}");
            return Err(Error::new(Exit::Integrity, what, "build and publish the bundle again"));
        }
        let held = self
            .command("dpkg-query")
            .args(["-W", "-f", "${Package}\\t${db:Status-Want}\\n"])
            .output()
            .map_err(defer)?;
        let mut resolution = simulation.finish();
        let is_held =
            |name: &str| held.stdout.lines().any(|line| line.split_once('\t') == Some((name, "hold")));
        for name in &mut resolution.kept_back {
            let reason = if is_held(name.split(':').next().unwrap_or(name)) {
                "held by the operator"
            } else {
                "apt keeps it back"
            };
            *name = format!("{name}: {reason}");
        }
        resolution.changes = split_architecture_changes(resolution.changes, &self.inventory()?);
        resolution.files = files;
        let sizes = self.command("dpkg-query").args([
            "-W",
            "-f",
            "${Package}:${Architecture}\\t${Installed-Size}\\n",
        ]);
        let sizes = sizes.output().map_err(|e| explain(&e))?.stdout;
        let packages = repo.join("Packages");
        let offered = std::fs::File::open(&packages)
            .map(std::io::BufReader::new)
            .map_err(|e| Error::file(&packages, &e))?;
        resolution.disk_bytes =
            disk_bytes(&resolution.changes, offered, &sizes).map_err(|e| Error::file(&packages, &e))?;
        Ok(resolution)
    }

    fn audit(&self) -> Result<Vec<String>> {
        let output = self.command("dpkg").arg("--audit").output().map_err(|e| explain(&e))?;
        Ok(output.stdout.lines().filter(|l| l.starts_with(' ')).map(|l| l.trim().to_owned()).collect())
    }

    fn repair(&self) -> Result<()> {
        let command = Command::new("dpkg").args(["--force-confdef", "--force-confold", "--configure", "-a"]);
        let command = in_root(&self.root, noninteractive(command), !self.allow_network);
        let end = self.clock.instant() + self.lock_timeout;
        loop {
            match command.output() {
                Ok(_) => return Ok(()),
                // dpkg, unlike apt, does not wait for a lock; the holder may be what an agent that died has left at work.
                Err(e) if e.stderr().contains(DPKG_LOCKED) && self.clock.instant() < end => {
                    self.clock.sleep(LOCK_PAUSE)
                }
                Err(e) => return Err(explain(&e)),
            }
        }
    }

    fn reinstall(&self, repo: &Path) -> Result<()> {
        let states = self
            .command("dpkg-query")
            .args(["-W", "-f", "${Package}\\t${Architecture}\\t${db:Status-Abbrev}\\n"])
            .output()
            .map_err(|e| explain(&e))?;
        let broken = unfinished(&states.stdout);
        let path = repo.join("Packages");
        let offered = std::fs::File::open(&path).map_err(|e| Error::file(&path, &e))?;
        let files = files_of(&broken, io::BufReader::new(offered)).map_err(|e| Error::file(&path, &e))?;
        if files.is_empty() {
            return Ok(());
        }
        log::warn!("installing {} packages again that dpkg could not finish", files.len());
        let command = Command::new("dpkg")
            .args(["--force-confdef", "--force-confold", "-i"])
            .args(files.iter().map(|file| self.inside(&repo.join(file))));
        let command = in_root(&self.root, noninteractive(command), !self.allow_network);
        // What is missing of others comes with the install that follows; whether all is well is proved after that.
        match command.output().map_err(|e| explain(&e)) {
            Err(error) if error.exit == Exit::Deferred => Err(error),
            Err(error) => {
                log::warn!("{error}");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    fn remove_old_kernels(&self) -> Result<u64> {
        // What apt takes for superfluous, of which kernels alone: APT::NeverAutoRemove and its rules for kernels hold.
        let mut kernels = Vec::new();
        let simulation =
            self.command("apt-get").args(["--simulate", "-o", "Debug::NoLocking=true", "autoremove"]);
        simulation
            .lines(&mut |line| {
                kernels.extend(
                    line.strip_prefix("Remv ").and_then(|rest| rest.split(' ').next()).map(str::to_owned),
                );
                Ok(())
            })
            .map_err(Error::deferred)?;
        kernels.retain(|name| is_kernel(name));
        if kernels.is_empty() {
            return Ok(0);
        }
        log::warn!("removing old kernels, for /boot is full: {}", kernels.join(", "));
        let command = Command::new("apt-get").args(["-y", "-q", "purge"]).args(&kernels);
        let command = in_root(&self.root, noninteractive(command), !self.allow_network);
        command.output().map_err(Error::deferred)?;
        Ok(kernels.len() as u64)
    }

    fn installed_files(&self, id: &PackageId) -> Result<Option<Vec<PathBuf>>> {
        let format = "${Conffiles}\\n--\\n${db-fsys:Files}\\n";
        let name = format!("{}:{}", id.name, id.arch);
        let mut files = plain::InstalledFiles::default();
        self.command("dpkg-query")
            .args(["-W", "-f", format, &name])
            .lines(&mut |line| {
                files.line(line);
                Ok(())
            })
            .map_err(|e| explain(&e))?;
        Ok(Some(files.files))
    }

    fn describe(&self, signed: &Path, repo: &Path, plain: &[Member]) -> Result<()> {
        plain::describe(signed, repo, plain)
    }

    fn install(&self, repo: &Path, scratch: &Path) -> Result<Seen> {
        self.update(repo, scratch)?;
        let command = self.apt_get(repo, scratch)?.args(["-y", "--no-remove"]).args(UPGRADE);
        self.change(command)
    }

    fn file_of(&self, kept: &Path, id: &PackageId, version: &str) -> Option<PathBuf> {
        // A bundle's file names have no epoch, and apt's cache writes the colon after it as in a URL.
        let without = version.split_once(':').map_or(version, |(_, rest)| rest);
        let cached = format!("{}_{}_{}.deb", id.name, version.replace(':', "%3a"), id.arch);
        let files = [
            kept.join(format!("{}_{without}_{}.deb", id.name, id.arch)),
            self.root.join("var/cache/apt/archives").join(cached),
        ];
        files.into_iter().find(|file| file.is_file())
    }

    fn put_back(&self, back: &WayBack, scratch: &Path) -> Result<()> {
        let files = back.files().map(|kept| self.inside(&kept.file));
        let going = back.remove.iter().map(|(id, _)| match id.arch.as_str() {
            "all" => format!("{}-", id.name),
            arch => format!("{}:{arch}-", id.name),
        });
        // A node that a failed install has left is broken, and this is what mends it: hence `-f`.
        let args = ["-y", "-f", "--allow-downgrades", "--allow-change-held-packages", "install"];
        let command = self.apt_get_from("/dev/null", scratch)?.args(args).args(files).args(going);
        // The solver may know another way than ours; then a person decides.
        let mut more = Vec::new();
        command
            .clone()
            .args(["-o", "Debug::NoLocking=true", "--simulate"])
            .lines(&mut |line| {
                more.extend(not_asked_for(line, back));
                Ok(())
            })
            .map_err(|e| explain(&e))?;
        if let Some(first) = more.first() {
            let what = format!("apt would do more on the way back than undo the install: {first}");
            return Err(Error::new(Exit::NeedsPerson, what, self.words().by_hand));
        }
        self.change(command).map(|_| ())
    }

    fn reboot_required(&self) -> bool {
        self.root.join("run/reboot-required").exists() || self.root.join("var/run/reboot-required").exists()
    }
}

/// The packages that are not completely installed, `NAME`, architecture; of `dpkg-query` lines `NAME\tARCH\tABBREV`. Those
/// that only wait to be configured or triggered are not among them: their files are there.
fn unfinished(text: &str) -> Vec<(&str, &str)> {
    let broken = |line: &'_ str| -> Option<(usize, usize, bool)> {
        let name = line.find('\t')?;
        let arch = name + 1 + line[name + 1..].find('\t')?;
        let state = line.as_bytes().get(arch + 2)?;
        Some((name, arch, b"HU".contains(state) || line[arch + 1..].contains('R')))
    };
    text.lines()
        .filter_map(|line| {
            let (name, arch, is_broken) = broken(line)?;
            is_broken.then(|| (&line[..name], &line[name + 1..arch]))
        })
        .collect()
}

/// The files of packages in a Packages file, as it names them.
fn files_of(packages: &[(&str, &str)], offered: impl BufRead) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    let (mut name, mut arch, mut file) = (String::new(), String::new(), String::new());
    for line in offered.lines().chain([Ok(String::new())]) {
        let line = line?;
        match line.split_once(": ") {
            Some(("Package", value)) => name = value.to_owned(),
            Some(("Architecture", value)) => arch = value.to_owned(),
            Some(("Filename", value)) => file = value.trim_start_matches("./").to_owned(),
            _ if line.is_empty() => {
                // A package of which dpkg knows nothing yet has no architecture.
                let is_wanted = packages.iter().any(|(n, a)| *n == name && (a.is_empty() || *a == arch));
                if is_wanted && !file.is_empty() && !file.contains("..") {
                    files.push(std::mem::take(&mut file));
                }
            }
            _ => {}
        }
    }
    Ok(files)
}

/// Whether a package of Debian or Ubuntu is a kernel or belongs to one.
fn is_kernel(name: &str) -> bool {
    ["linux-image-", "linux-headers-", "linux-modules-", "linux-modules-extra-"].iter().any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// The environment in which nothing asks and nothing mails.
fn noninteractive(command: Command) -> Command {
    [
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBIAN_PRIORITY", "critical"),
        ("UCF_FORCE_CONFFOLD", "1"),
        ("APT_LISTCHANGES_FRONTEND", "none"),
        ("NEEDRESTART_SUSPEND", "1"),
    ]
    .iter()
    .fold(command, |command, (name, value)| command.env(name, value))
}

/// An epoch of 0 may be written or left out, and dpkg and apt do not do the same (deb-version(7)).
fn canonical(version: &str) -> String {
    version.strip_prefix("0:").unwrap_or(version).to_owned()
}

/// Reads `dpkg-query` output. Removed packages whose configuration stayed are not installed.
fn parse_inventory(text: &str) -> Inventory {
    let mut packages = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        if let (Some(name), Some(arch), Some(version), Some(status)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
            && !matches!(status, "not-installed" | "config-files")
        {
            packages.insert(PackageId { name: name.to_owned(), arch: arch.to_owned() }, canonical(version));
        }
    }
    Inventory(packages)
}

/// Reads `apt-get --simulate` line by line: `Inst NAME[:ARCH] [OLD] (NEW ORIGIN [ARCH]) …` and the list of what is kept
/// back.
#[derive(Default)]
struct Simulation {
    resolution: Resolution,
    in_kept_back: bool,
}

impl Simulation {
    fn line(&mut self, line: &str) -> std::result::Result<(), String> {
        if self.in_kept_back && line.starts_with(' ') {
            self.resolution.kept_back.extend(line.split_whitespace().map(str::to_owned));
            return Ok(());
        }
        self.in_kept_back = line.starts_with("The following packages have been kept back");
        if let Some(rest) = line.strip_prefix("Inst ") {
            let change = parse_inst(rest);
            self.resolution.changes.push(
                change.ok_or_else(|| format!("apt-get wrote a line that is not understood: {line:?}"))?,
            );
        } else if line.starts_with("Remv ") {
            return Err(format!("apt-get would remove a package, which is never done here: {line:?}"));
        }
        Ok(())
    }

    fn finish(mut self) -> Resolution {
        // apt may order the same package twice.
        self.resolution.changes.sort_by(|a, b| (&a.name, &a.arch).cmp(&(&b.name, &b.arch)));
        self.resolution.changes.dedup();
        self.resolution
    }
}

fn parse_inst(rest: &str) -> Option<PackageChange> {
    let (name, rest) = rest.split_once(' ')?;
    let (from, rest) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (from, rest) = rest.split_once(']')?;
            (Some(canonical(from)), rest.trim_start())
        }
        None => (None, rest),
    };
    let (inner, _) = rest.strip_prefix('(')?.split_once(')')?;
    let to = canonical(inner.split(' ').next()?);
    let arch = inner.rsplit_once('[')?.1.strip_suffix(']')?.to_owned();
    let name = name.split(':').next()?.to_owned();
    Some(PackageChange { name, arch, from, to: Some(to) })
}

/// What a line of `apt-get --simulate` says that `back` does not: a package that would come or go beside it.
fn not_asked_for(line: &str, back: &WayBack) -> Option<String> {
    let name = |rest: &str| rest.split([' ', ':']).next().unwrap_or_default().to_owned();
    let is_known = match (line.strip_prefix("Inst "), line.strip_prefix("Remv ")) {
        (Some(rest), _) => back.files().any(|kept| kept.id.name == name(rest)),
        (_, Some(rest)) => back.remove.iter().any(|(id, _)| id.name == name(rest)),
        _ => true,
    };
    (!is_known).then(|| line.to_owned())
}

/// Space that `changes` take: what they grow by, and room for the largest beside its old version while it is unpacked.
/// `offered` is a Packages file, read line by line because it may be large; `installed` has lines `NAME:ARCH\tKIB`.
fn disk_bytes(changes: &[PackageChange], offered: impl BufRead, installed: &str) -> io::Result<u64> {
    let old: BTreeMap<&str, u64> = installed
        .lines()
        .filter_map(|l| l.split_once('\t'))
        .filter_map(|(id, kib)| Some((id, kib.parse().ok()?)))
        .collect();
    let wanted = |name: &str, arch: &str, version: &str| {
        let version = canonical(version);
        changes.iter().any(|c| {
            (c.name.as_str(), c.arch.as_str(), c.to.as_deref()) == (name, arch, Some(version.as_str()))
        })
    };
    let (mut growth, mut largest) = (0u64, 0u64);
    let mut fields = [const { String::new() }; 4];
    const NAMES: [&str; 4] = ["Package", "Architecture", "Version", "Installed-Size"];
    // An empty line ends a stanza, and so does the end of the file.
    for line in offered.lines().chain([Ok(String::new())]) {
        let line = line?;
        if let Some((name, value)) = line.split_once(": ") {
            if let Some(at) = NAMES.iter().position(|n| *n == name) {
                fields[at] = value.to_owned();
            }
        } else if line.is_empty() {
            let [name, arch, version, size] = &fields;
            if wanted(name, arch, version) {
                let new: u64 = size.parse().unwrap_or(0);
                let before = old.get(format!("{name}:{arch}").as_str()).copied().unwrap_or(0);
                growth = growth.saturating_add(new.saturating_sub(before));
                largest = largest.max(new);
            }
            fields = [const { String::new() }; 4];
        }
    }
    Ok(growth.saturating_add(largest).saturating_mul(1024))
}

/// A package that goes from `all` to an architecture, or back, is one that goes and one that comes: name and
/// architecture together are what identifies it.
fn split_architecture_changes(changes: Vec<PackageChange>, inventory: &Inventory) -> Vec<PackageChange> {
    let has = |name: &str, arch: &str| {
        inventory.0.contains_key(&PackageId { name: name.to_owned(), arch: arch.to_owned() })
    };
    let mut out = Vec::new();
    for change in changes {
        let moved = change.from.is_some() && !has(&change.name, &change.arch);
        let old = inventory
            .0
            .keys()
            .find(|id| moved && id.name == change.name && (id.arch == "all" || change.arch == "all"));
        match old {
            Some(old) => {
                out.push(PackageChange { arch: old.arch.clone(), to: None, ..change.clone() });
                out.push(PackageChange { from: None, ..change });
            }
            None => out.push(change),
        }
    }
    out
}

/// Reads a line of `apt-get --print-uris`, `'URI' FILE SIZE SHA256:DIGEST`: the URI and the digest. Other lines are talk.
fn parse_uri(line: &str) -> std::result::Result<Option<(&str, Sha256)>, String> {
    let Some(rest) = line.strip_prefix('\'') else { return Ok(None) };
    let uri = rest.split_once("' ").map(|(uri, _)| uri);
    let digest = line.rsplit_once(" SHA256:").and_then(|(_, digest)| digest.trim().parse().ok());
    match (uri, digest) {
        (Some(uri), Some(digest)) => Ok(Some((uri, digest))),
        _ => Err(format!("apt-get wrote a line without a SHA-256: {line:?}")),
    }
}

/// The path that a `file:` URI of apt names (RFC 8089), with what apt writes as `%2b` read back; none for any other.
fn path_of(uri: &str) -> Option<String> {
    let path = uri.strip_prefix("file:")?;
    let path = path.strip_prefix("//").unwrap_or(path).as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        if byte == b'%' {
            let hex = std::str::from_utf8(path.get(at + 1..at + 3)?).ok()?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8(out).ok().filter(|path| path.starts_with('/'))
}

/// Reads `text` as everything that is read here, and checks what must hold whatever it is.
#[cfg(fuzzing)]
pub fn read_everything(text: &str) {
    let inventory = parse_inventory(text);
    // dpkg lets no field have white space in it, and the text of an inventory relies on that.
    if inventory
        .0
        .iter()
        .all(|(id, version)| !format!("{}{}{version}", id.name, id.arch).contains(char::is_whitespace))
    {
        assert_eq!(Inventory::from_text(&inventory.to_text()), inventory);
    }
    let mut simulation = Simulation::default();
    if text.lines().try_for_each(|line| simulation.line(line)).is_ok() {
        let resolution = simulation.finish();
        let mut names: Vec<_> = resolution.changes.iter().map(|c| (&c.name, &c.arch)).collect();
        assert!(names.is_sorted());
        names.dedup();
        let _ = disk_bytes(&resolution.changes, text.as_bytes(), text);
        let changes = split_architecture_changes(resolution.changes, &inventory);
        // What is done to the inventory is what the difference says.
        let after = inventory.after(&changes);
        assert_eq!(inventory.after(&inventory.changes_to(&after)), after);
    }
    for line in text.lines() {
        let _ = (parse_uri(line), essence(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_simulation(text: &str) -> std::result::Result<Resolution, String> {
        let mut simulation = Simulation::default();
        text.lines().try_for_each(|line| simulation.line(line))?;
        Ok(simulation.finish())
    }

    #[test]
    fn the_architecture_is_that_of_an_installed_dpkg_or_is_asked_for() {
        let of = |text: &str| own_architecture(text.as_bytes());
        let other = "Package: dpkg-dev\nStatus: install ok installed\nArchitecture: all\n\n";
        let dpkg = |status: &str| {
            format!("{other}Package: dpkg\nStatus: {status}\nPriority: required\nArchitecture: armhf\n\n")
        };
        assert_eq!(of(&dpkg("install ok installed")).as_deref(), Some("armhf"));
        assert_eq!(of(&dpkg("deinstall ok config-files")), None);
        assert_eq!(of(other), None);
        assert_eq!(of("Package: dpkg\nStatus: install ok installed\n\nArchitecture: amd64\n"), None);
    }

    #[test]
    fn of_what_dpkg_says_the_causes_are_quoted_and_not_the_consequences() {
        let not_ready = "dpkg: error processing package till (--configure):\n package till is not ready for configuration\n\
                         Errors were encountered while processing:\n till\n";
        assert_eq!(essence(not_ready), "package till: package till is not ready for configuration");
        let failed = "cp: error writing '/boot/vmlinuz': No space left on device\n\
                      dpkg: error processing package till-kernel (--configure):\n \
                      installed till-kernel package post-installation script subprocess returned error exit status 1\n\
                      Errors were encountered while processing:\n till-kernel\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n";
        let said = essence(failed);
        assert!(
            said.starts_with("cp: error writing") && said.contains("; installed till-kernel package"),
            "{said}"
        );
        assert_eq!(essence("something else\n"), "something else");
    }

    #[test]
    fn a_simulation_is_read() {
        let text = "NOTE: This is only a simulation!\nThe following packages have been kept back:\n  held1 held2:i386\n  held3\nThe following packages will be upgraded:\n  libc6\n\
            Inst libc6 [2.36-9] (2.36-9+deb12u1 Prestage:12/2026-11 [amd64]) []\nInst new (1:2.0~rc1 Prestage:12 [all])\nConf libc6 (2.36-9+deb12u1 Prestage [amd64])\n\
            Inst libz:i386 [1] (2 Prestage [i386])\n";
        let resolution = parse_simulation(text).unwrap();
        let change = |name: &str, arch: &str, from: Option<&str>, to: &str| PackageChange {
            name: name.into(),
            arch: arch.into(),
            from: from.map(Into::into),
            to: Some(to.into()),
        };
        assert_eq!(
            resolution.changes,
            [
                change("libc6", "amd64", Some("2.36-9"), "2.36-9+deb12u1"),
                change("libz", "i386", Some("1"), "2"),
                change("new", "all", None, "1:2.0~rc1"),
            ]
        );
        assert_eq!(resolution.kept_back, ["held1", "held2:i386", "held3"]);
    }

    #[test]
    fn a_removal_and_a_strange_line_are_refused() {
        assert!(parse_simulation("Remv foo [1]\n").is_err());
        assert!(parse_simulation("Inst foo\n").is_err());
        assert!(parse_uri("'file:/x.deb' x.deb 10 ").is_err());
        assert_eq!(parse_uri("Reading package lists..."), Ok(None));
        for elsewhere in ["http://m/x.deb", "file:x.deb", "file:/x%2", "file:/x%zz", "copy:/x.deb"] {
            assert_eq!(path_of(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(path_of("file:/r/pool/g%2b%2b_1%3a2.deb").as_deref(), Some("/r/pool/g++_1:2.deb"));
        assert_eq!(path_of("file:///r/x.deb").as_deref(), Some("/r/x.deb"));
    }

    #[test]
    fn a_package_that_changes_its_architecture_goes_and_comes() {
        let before = parse_inventory("a\tall\t1\tinstalled\n");
        let change = PackageChange {
            name: "a".into(),
            arch: "amd64".into(),
            from: Some("1".into()),
            to: Some("2".into()),
        };
        let changes = split_architecture_changes(vec![change], &before);
        assert_eq!(before.after(&changes), parse_inventory("a\tamd64\t2\tinstalled\n"));
    }

    #[test]
    fn space_is_what_packages_grow_by_and_the_largest_once_more() {
        let offered = "Package: a\nArchitecture: amd64\nVersion: 2\nInstalled-Size: 300\nDescription: x\n y: z\n\n\
            Package: b\nArchitecture: all\nVersion: 1\nInstalled-Size: 50\n\nPackage: c\nArchitecture: all\nVersion: 1\nInstalled-Size: 9999\n";
        let change = |name: &str, arch: &str, to: &str| PackageChange {
            name: name.into(),
            arch: arch.into(),
            from: None,
            to: Some(to.into()),
        };
        let changes = [change("a", "amd64", "2"), change("b", "all", "1")];
        assert_eq!(
            disk_bytes(&changes, offered.as_bytes(), "a:amd64\t200\n").unwrap(),
            (100 + 50 + 300) * 1024
        );
    }

    #[test]
    fn what_the_way_back_did_not_ask_for_is_seen() {
        let id = |name: &str| PackageId { name: name.into(), arch: "amd64".into() };
        let kept =
            crate::packages::kept::KeptPackage { id: id("app"), version: "1".into(), file: "app.deb".into() };
        let back = WayBack { replace: vec![kept], add: Vec::new(), remove: vec![(id("new"), "2".into())] };
        for known in [
            "Inst app [2] (1 local-deb [amd64])",
            "Remv new:amd64 [2]",
            "Conf app (1 local-deb [amd64])",
            "Reading",
        ] {
            assert_eq!(not_asked_for(known, &back), None, "{known}");
        }
        for other in ["Inst lib [2] (1 local-deb [amd64])", "Remv app [2]", "Remv shop [1]"] {
            assert_eq!(not_asked_for(other, &back).as_deref(), Some(other));
        }
    }

    #[test]
    fn removed_packages_are_not_in_the_inventory() {
        let text = "a\tamd64\t1\tinstalled\nb\tall\t2\tconfig-files\nc\tamd64\t3\thalf-configured\n";
        assert_eq!(parse_inventory(text).0.len(), 2);
    }
}
