//! dnf and yum on top of rpm: this folder alone knows their words, and of it `flavour.rs` alone where they differ.
//!
//! What their exit codes are worth was measured, not read: dnf ends with 0 when a %post failed, and after a crash the next
//! `upgrade` ends with 0 beside the duplicates that it left. So the log is read, and success is proved by inventory.
//!
//! dnf writes to a file and never to a pipe of ours: Python ends at the first line it cannot write, and a package manager
//! must not die half-way because its agent did.

mod database; // what is installed
mod flavour; // where dnf 4, yum and dnf 5 differ
mod options; // the node's own, and ours
mod plan; // what would change
mod said; // what they print, and what it means

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use format::digest::{Hasher, Sha256};
use format::index::Member;
use format::inventory::{Inventory, PackageId};
use host::clock::Clock;
use host::command::{Command, CommandError};
use host::isolation::Seen;

use super::{PackageManager, Resolution, WayBack, Words, hash_file, hash_folder, in_root, inside};
use crate::error::{Error, Exit, Result};
use crate::render::Renderer;
use database::{Packages, QUERY, is_install_only, parse_inventory};
use flavour::interpreter;
pub use flavour::{DNF5_ALONE, Flavour};
use options::Options;
use plan::{Begun, Entry, Plan, resolution};
use said::{MAX_LOG, essence, explain, failed_package, is_locked, is_script_failure, read_log};

/// Between two looks at a lock.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// dnf or yum, and rpm, of a node.
pub struct Dnf<'c> {
    /// Which of the two.
    pub flavour: Flavour,
    /// The node's root.
    pub root: PathBuf,
    /// Install even where no empty network namespace can be made.
    pub allow_network: bool,
    /// Whether packages must be signed by a key in the node's own keyring; `None`: as the node's main section says.
    pub gpgcheck: Option<bool>,
    /// How long to wait for another package manager.
    pub lock_timeout: Duration,
    /// For the repository file.
    pub renderer: Renderer,
    /// For waiting.
    pub clock: &'c dyn Clock,
}

impl Dnf<'_> {
    /// The RPM architecture of the node below `root`.
    ///
    /// # Errors
    /// If there is no rpm that works.
    pub fn architecture(root: &Path) -> Result<String> {
        // What this program runs on, where the node's own programs are of the same kind: no rpm has to be started for it.
        if let own @ ("x86_64" | "aarch64") = std::env::consts::ARCH
            && root == Path::new("/")
            && root.join("usr/lib64/rpm-plugins").is_dir()
        {
            return Ok(own.to_owned());
        }
        let command = in_root(root, Command::new("rpm").args(["--eval", "%{_arch}"]), false);
        let output = command.output().map_err(|e| match e {
            CommandError::Isolation { .. } => explain(&e, ""),
            _ => Error::new(Exit::Config, e, "set [node] variant"),
        })?;
        Ok(output.stdout.trim().to_owned())
    }

    fn command(&self, program: &str) -> Command {
        in_root(&self.root, Command::new(program), false)
    }

    /// Every installed package: with several versions, where it may have them or a crash has left them.
    fn installed(&self) -> Result<Packages> {
        let output =
            self.command("rpm").args(["-qa", "--qf", QUERY]).output().map_err(|e| explain(&e, ""))?;
        Ok(parse_inventory(&output.stdout))
    }

    /// The node's own main section, with what we need in place of it, and `repo` as the only repository if there is one.
    fn configuration(&self, repo: Option<&Path>, scratch: &Path) -> Result<PathBuf> {
        host::file::make_folder(scratch, 0o755)?;
        let own = std::fs::read_to_string(self.root.join(self.flavour.configuration())).unwrap_or_default();
        let options = Options::merge(&own, self.gpgcheck, &inside(&self.root, &scratch.join("cache")));
        let mut text = options.text;
        if let Some(repo) = repo {
            let gpgcheck = u8::from(options.gpgcheck);
            let values = minijinja::context! { path => inside(&self.root, repo), gpgcheck => gpgcheck };
            text.push('\n');
            text.push_str(&self.renderer.render("prestage.repo", values)?);
        }
        let path = scratch.join("dnf.conf");
        host::file::replace(&path, text.as_bytes(), 0o644)?;
        Ok(path)
    }

    fn plan(&self, repo: &Path, scratch: &Path) -> Result<Plan> {
        let configuration = self.configuration(Some(repo), scratch)?;
        // Metadata of an earlier bundle has the same name.
        host::file::remove(&scratch.join("cache"))?;
        // A planner that was killed while it made its database leaves one that no later one can read.
        host::file::remove(&scratch.join("persist"))?;
        let python = interpreter(&self.root, self.flavour.program()).ok_or_else(|| {
            let what = format!("{} is no Python script", self.flavour.program());
            Error::new(Exit::Config, what, "install the distribution's own dnf or yum")
        })?;
        let planner = scratch.join("plan.py");
        host::file::replace(&planner, self.flavour.planner().as_bytes(), 0o644)?;
        let output = self
            .command(&python)
            .arg(inside(&self.root, &planner))
            .args([inside(&self.root, &configuration), inside(&self.root, scratch)])
            .output()
            // A plan that cannot be made is a deferral: nothing was touched.
            .map_err(|e| {
                let error = explain(&e, e.stderr());
                if error.exit == Exit::InstallFailed {
                    Error::new(Exit::Deferred, e, "dnf cannot plan on this node; see `dnf check`")
                } else {
                    error
                }
            })?;
        // Plugins may have talked before.
        let json = output.stdout.find('{').map_or("", |at| &output.stdout[at..]);
        format::json::read(json.as_bytes()).map_err(|e| {
            let what = format!("the plan of {} cannot be read: {e}", self.flavour.program());
            Error::new(Exit::Deferred, what, "report it with the version of dnf")
        })
    }

    /// Runs dnf without a network, its output in the log, waiting for its lock. What it said, and what it saw.
    fn transact(&self, configuration: &Path, log: &Path, args: &[&str]) -> Result<(String, Seen)> {
        let end = self.clock.instant() + self.lock_timeout;
        loop {
            host::file::remove(log)?;
            let command = Command::new("sh")
                .args(["-c", "log=$1; shift; exec \"$@\" >\"$log\" 2>&1", "sh"])
                .arg(inside(&self.root, log))
                .args([self.flavour.program(), "-c", &inside(&self.root, configuration)])
                .args(["-y", "--disableplugin=*", "--enableplugin=versionlock"])
                .args(args);
            let result = in_root(&self.root, command, !self.allow_network).lines(&mut |_| Ok(()));
            let said = read_log(log);
            for line in said.lines() {
                host::detail!("{}: {line}", self.flavour.program());
            }
            match result {
                Ok(seen) => return Ok((said, seen.unwrap_or_default())),
                Err(e) if is_locked(&e, &said) && self.clock.instant() < end => self.clock.sleep(LOCK_PAUSE),
                Err(e) => return Err(explain(&e, &said)),
            }
        }
    }

    /// Does again what a transaction that was interrupted has done of `begun`: runs the scripts that it may not have come
    /// to, and writes the files anew that it may have torn.
    fn redo(&self, begun: &Plan, configuration: &Path, scratch: &Path) -> Result<()> {
        let installed = self.installed()?;
        let again: Vec<String> =
            begun.install.iter().filter(|e| installed.has(e)).map(Entry::nevra).collect();
        if again.is_empty() {
            return Ok(());
        }
        log::warn!(
            "installing {} packages again, in which an earlier transaction was interrupted",
            again.len()
        );
        let args: Vec<&str> = std::iter::once("reinstall").chain(again.iter().map(String::as_str)).collect();
        let (said, _) = self.transact(configuration, &scratch.join("again.log"), &args)?;
        self.scripts_went_well(&said)
    }

    /// dnf and yum go on when a script of a package fails, and say 0; rpm's database does not know of it either. So it is
    /// written down, for [`PackageManager::audit`] to tell until somebody has installed the package again.
    fn scripts_went_well(&self, said: &str) -> Result<()> {
        let failed: Vec<&str> = said.lines().map(str::trim).filter(|line| is_script_failure(line)).collect();
        let Some(first) = failed.first() else { return Ok(()) };
        let names: BTreeSet<&str> = failed.iter().filter_map(|line| failed_package(line)).collect();
        let installed = self.instances()?;
        // yum tells name, version and architecture where dnf tells the name.
        let is_named = |line: &&String| {
            let (name, rest) = line.split_once('\t').unwrap_or((line, ""));
            let nevra = format!("{name}-{}", rest.split(' ').next().unwrap_or_default());
            names.contains(name) || names.contains(nevra.as_str())
        };
        let broken: Vec<&String> = installed.iter().filter(is_named).collect();
        let text: String = broken.iter().map(|line| format!("{line}\n")).collect();
        host::file::replace(&self.root.join(FAILED_SCRIPTS), text.as_bytes(), 0o644)?;
        let what = format!(
            "a script of a package failed: {}",
            failed.iter().take(3).copied().collect::<Vec<_>>().join("; ")
        );
        host::detail!("{first}");
        Err(Error::new(Exit::InstallFailed, what, self.words().log))
    }

    /// Every installed package with what tells this installation of it from another one: `NAME\tID`.
    fn instances(&self) -> Result<BTreeSet<String>> {
        let query = ["-qa", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}.%{ARCH} %{INSTALLTID}\\n"];
        let output = self.command("rpm").args(query).output().map_err(|e| explain(&e, ""))?;
        Ok(output.stdout.lines().map(str::to_owned).collect())
    }

    /// Packages with a script that failed and that are still installed as they were then.
    fn failed_scripts(&self) -> Result<Vec<String>> {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.root.join(FAILED_SCRIPTS);
        // The unprivileged step can write in that folder as well; only root knows what became of an install.
        if !std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.uid() == 0) {
            return Ok(Vec::new());
        }
        let text = String::from_utf8_lossy(&host::file::read_limited(&path, MAX_LOG)?.unwrap_or_default())
            .into_owned();
        let installed = self.instances()?;
        let still = text.lines().filter(|line| installed.contains(*line));
        Ok(still
            .map(|line| format!("a script of {} failed", line.split('\t').next().unwrap_or_default()))
            .collect())
    }

    /// Takes away what an interrupted transaction has replaced and not yet removed.
    fn remove_replaced(&self, begun: &Plan) -> Result<()> {
        let installed = self.installed()?;
        let left: Vec<String> = begun.remove.iter().filter(|e| installed.has(e)).map(Entry::nvra).collect();
        if left.is_empty() {
            return Ok(());
        }
        let command = in_root(&self.root, Command::new("rpm").arg("-e").args(&left), !self.allow_network);
        command.output().map(|_| ()).map_err(|e| explain(&e, e.stderr()))
    }
}

impl PackageManager for Dnf<'_> {
    fn words(&self) -> Words {
        Words {
            name: self.flavour.program(),
            log: "see /var/log/dnf.rpm.log and /var/lib/prestage/private/packages/transaction.log on the node",
            by_hand: "run `dnf check`, `dnf history info last` and `dnf remove --duplicates`",
        }
    }

    fn inventory(&self) -> Result<Inventory> {
        Ok(self.installed()?.inventory())
    }

    fn fingerprint(&self) -> Result<Sha256> {
        let mut hasher = Hasher::new();
        // Not the database's files: they change without a package having changed.
        hasher.update(self.inventory()?.to_text().as_bytes());
        for path in [self.flavour.configuration(), "etc/os-release"] {
            hash_file(&mut hasher, &self.root.join(path));
        }
        for folder in [
            "etc/dnf/plugins",
            "etc/dnf/vars",
            "etc/dnf/modules.d",
            "etc/dnf/protected.d",
            "etc/yum/pluginconf.d",
            "etc/yum/vars",
        ] {
            hash_folder(&mut hasher, &self.root.join(folder));
        }
        Ok(hasher.finish())
    }

    fn resolve(&self, repo: &Path, scratch: &Path) -> Result<Resolution> {
        let plan = self.plan(repo, scratch)?;
        resolution(&plan, &self.installed()?)
            .map_err(|what| Error::new(Exit::Integrity, what, "build and publish the bundle again"))
    }

    fn audit(&self) -> Result<Vec<String>> {
        let mut broken = self.failed_scripts()?;
        let twice = self.installed()?.twice();
        if twice.is_empty() {
            return Ok(broken);
        }
        // Kernels may be there more than once: what may is known to rpm by what they provide, and to dnf by their names.
        let output = self.command("rpm").args(["-q", "--qf", "[%{=NAME}\\t%{PROVIDENAME}\\n]"]).args(&twice);
        let provides = output.output().map_err(|e| explain(&e, e.stderr()))?.stdout;
        let may = |name: &str| {
            provides
                .lines()
                .filter_map(|l| l.split_once('\t'))
                .any(|(n, provided)| n == name && is_install_only(provided))
        };
        let twice = twice.into_iter().filter(|name| !may(name));
        broken.extend(twice.map(|name| format!("{name} is installed more than once")));
        Ok(broken)
    }

    fn repair(&self) -> Result<()> {
        let scratch = self.root.join("var/lib/prestage/private/packages");
        let configuration = self.configuration(None, &scratch)?;
        let log = scratch.join("repair.log");
        // Whatever there is to repair, nobody else may be at work.
        match self.transact(&configuration, &log, self.flavour.deduplicate()) {
            Ok(_) => Ok(()),
            Err(e) if e.exit == Exit::Deferred => Err(e),
            Err(_) if read_log(&log).contains("No duplicated packages") => Ok(()),
            Err(e) => {
                let Some(command) = self.flavour.deduplicate_apart() else { return Err(e) };
                let command = in_root(&self.root, command, !self.allow_network);
                command.output().map(|_| ()).map_err(|e| explain(&e, e.stderr()))
            }
        }
    }

    fn reinstall(&self, _repo: &Path) -> Result<()> {
        // An install begins with it: what was begun is written down.
        Ok(())
    }

    fn remove_old_kernels(&self) -> Result<u64> {
        let count = || -> Result<u64> {
            let query = self.command("rpm").args(["-q", "--whatprovides", "kernel", "--qf", "%{NAME}\\n"]);
            Ok(query.output().map_err(|e| explain(&e, e.stderr()))?.stdout.lines().count() as u64)
        };
        let before = count().unwrap_or(0);
        let command = match self.flavour {
            Flavour::Dnf4 => Command::new(self.flavour.program()).args(["-y", "remove", "--oldinstallonly"]),
            Flavour::Yum => Command::new("package-cleanup").args(["-y", "--oldkernels", "--count=2"]),
        };
        in_root(&self.root, command, !self.allow_network).output().map_err(Error::deferred)?;
        Ok(before.saturating_sub(count().unwrap_or(before)))
    }

    fn installed_files(&self, _: &PackageId) -> Result<Option<Vec<PathBuf>>> {
        // What a vendor signs of an RPM package covers its compressed payload: it comes whole.
        Ok(None)
    }

    fn describe(&self, _: &Path, _: &Path, plain: &[Member]) -> Result<()> {
        match plain {
            [] => Ok(()),
            [first, ..] => Err(Error::new(
                Exit::Integrity,
                format!("{} is here in a plain form, which RPM packages do not have", first.path),
                "build and publish the bundle again",
            )),
        }
    }

    fn install(&self, repo: &Path, scratch: &Path) -> Result<Seen> {
        let configuration = self.configuration(Some(repo), scratch)?;
        let marker = scratch.join("begun.json");
        let repomd = repo.join("repodata/repomd.xml");
        let (digest, _) = std::fs::File::open(&repomd)
            .and_then(|mut f| Sha256::of_reader(&mut f))
            .map_err(|e| Error::file(&repomd, &e))?;
        let earlier: Option<Begun> = host::file::read_limited(&marker, MAX_LOG)?
            .and_then(|bytes| format::json::read(&bytes).ok())
            .filter(|begun: &Begun| begun.repo == digest);
        let begun = match earlier {
            Some(begun) => {
                // The agent died, and dnf perhaps not: what it wrote to the end, it did.
                let said = read_log(&scratch.join(LOG));
                if !said.lines().any(|line| line == "Complete!") {
                    self.redo(&begun.plan, &configuration, scratch)?;
                }
                begun
            }
            None => {
                let begun = Begun { repo: digest, plan: self.plan(repo, scratch)? };
                let bytes = serde_json::to_vec(&begun).map_err(|e| Error::io("transaction", &e.into()))?;
                host::file::replace(&marker, &bytes, 0o600)?;
                begun
            }
        };
        let result = self.transact(&configuration, &scratch.join(LOG), &["upgrade"]);
        // A transaction that ended has ended, well or not.
        let (said, seen) = match result {
            Ok(ended) => ended,
            Err(e) if e.exit == Exit::Deferred => return Err(e),
            Err(e) => {
                host::file::remove(&marker)?;
                return Err(e);
            }
        };
        self.remove_replaced(&begun.plan)?;
        host::file::remove(&marker)?;
        self.scripts_went_well(&said)?;
        Ok(seen)
    }

    fn file_of(&self, kept: &Path, id: &PackageId, version: &str) -> Option<PathBuf> {
        let without = version.split_once(':').map_or(version, |(_, rest)| rest);
        let name = format!("{}-{without}.{}.rpm", id.name, id.arch);
        // With keepcache, dnf keeps them in a folder for each repository, and yum in one below those of its variables.
        let caches = ["var/cache/dnf", "var/cache/yum"].map(|cache| self.root.join(cache));
        std::iter::once(kept.join(&name))
            .chain(caches.iter().filter_map(|cache| find_in_cache(cache, &name, CACHE_DEPTH)))
            .find(|file| file.is_file())
    }

    fn put_back(&self, back: &WayBack, scratch: &Path) -> Result<()> {
        if !self.flavour.can_put_back() {
            let what = "putting back packages has not been tried with yum, and nothing was touched";
            return Err(Error::new(
                Exit::NeedsPerson,
                what,
                "run `yum history undo last` with the packages from before",
            ));
        }
        let configuration = self.configuration(None, scratch)?;
        let script = scratch.join("back.dnf");
        host::file::replace(&script, back_script(back, &self.root).as_bytes(), 0o600)?;
        let options = [
            // What is removed is said, and nothing goes because nobody needs it any more.
            "--setopt=clean_requirements_on_remove=0",
            // An old kernel comes back beside the others; a package that was replaced is no update of the one that did it.
            "--setopt=installonly_limit=0",
            "--setopt=obsoletes=0",
        ];
        let script = inside(&self.root, &script);
        let args: Vec<&str> = options.into_iter().chain(["shell", script.as_str()]).collect();
        let (said, _) = self.transact(&configuration, &scratch.join("back.log"), &args)?;
        // Its shell ends with 0 whatever became of what it was told.
        if !said.lines().any(|line| line == "Complete!") {
            let what = format!("{} did not go back: {}", self.flavour.program(), essence(&said));
            let log = "see /var/lib/prestage/private/packages/back.log on the node";
            return Err(Error::new(Exit::InstallFailed, what, log));
        }
        self.scripts_went_well(&said)
    }

    fn reboot_required(&self) -> bool {
        let command = in_root(&self.root, self.flavour.needs_restarting(), false);
        let mut required = false;
        let _ = command.lines(&mut |line| {
            required |= line.contains("Reboot is required");
            Ok(())
        });
        required
    }
}

/// Packages with a script that failed, where the unprivileged step can read it.
const FAILED_SCRIPTS: &str = "var/lib/prestage/failed-scripts";

/// The log of the last transaction, in the folder for dnf's own files.
const LOG: &str = "transaction.log";

/// How deep below the caches of dnf (REPOSITORY/packages) and yum (ARCHITECTURE/RELEASE/REPOSITORY/packages) packages are.
const CACHE_DEPTH: u8 = 4;

/// A file of this name in a folder `packages` below `folder`.
fn find_in_cache(folder: &Path, name: &str, depth: u8) -> Option<PathBuf> {
    let file = folder.join("packages").join(name);
    if file.is_file() {
        return Some(file);
    }
    let deeper = depth.checked_sub(1)?;
    let folders =
        std::fs::read_dir(folder).ok()?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    folders.into_iter().find_map(|entry| find_in_cache(&entry.path(), name, deeper))
}

/// What dnf's shell is told: one transaction. All files come first and at once, as it takes none after another command;
/// `install` of a file takes an older version as well as a newer one.
fn back_script(back: &WayBack, root: &Path) -> String {
    let mut script = String::new();
    let files: Vec<String> = back.files().map(|kept| inside(root, &kept.file)).collect();
    if !files.is_empty() {
        script.push_str(&format!("install {}\n", files.join(" ")));
    }
    for (id, evr) in &back.remove {
        let epoch = if evr.contains(':') { "" } else { "0:" };
        script.push_str(&format!("remove {}-{epoch}{evr}.{}\n", id.name, id.arch));
    }
    script.push_str("run\nexit\n");
    script
}

/// Reads `text` as everything that is read here; nothing of it may panic.
#[cfg(fuzzing)]
pub fn read_everything(text: &str) {
    let installed = parse_inventory(text);
    let inventory = installed.inventory();
    if let Ok(plan) = format::json::read::<Plan>(text.as_bytes())
        && let Ok(resolution) = resolution(&plan, &installed)
    {
        // What is done to the inventory is what the difference says.
        let after = inventory.after(&resolution.changes);
        assert_eq!(inventory.after(&inventory.changes_to(&after)), after);
    }
    for line in text.lines() {
        let _ = (is_script_failure(line), failed_package(line));
    }
    let _ = (Options::merge(text, None, "/"), essence(text), installed.twice());
}
