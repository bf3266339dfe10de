//! dnf and yum on top of rpm: the only file that knows their words. Parsing is apart from running.
//!
//! | | dnf 4 (EL8, EL9, Fedora to 40) | yum 3.4 (EL7) | dnf 5 |
//! | --- | --- | --- | --- |
//! | planning | its Python API (`dnf4.py`) | its Python API (`yum.py`) | not yet: it comes without Python |
//! | an update that cannot be | left out and named | fails the plan | |
//! | lock held | exit 200 | exit 1 and words | |
//! | duplicates after a crash | `remove --duplicates` | `package-cleanup --cleandupes` | |
//!
//! What their exit codes are worth was measured, not read: dnf ends with 0 when a %post failed, and after a crash the next
//! `upgrade` ends with 0 beside the duplicates that it left. So the log is read, and success is proved by inventory.
//!
//! dnf writes to a file and never to a pipe of ours: Python ends at the first line it cannot write, and a package manager
//! must not die half-way because its agent did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use format::digest::{Hasher, Sha256};
use format::inventory::{Inventory, PackageId};
use host::clock::Clock;
use host::command::{Command, CommandError};
use host::isolation::Seen;

use super::{PackageManager, Resolution, WayBack, Words, hash_file, hash_folder, in_root, inside};
use crate::error::{Error, Exit, Result};
use crate::render::Renderer;

/// One line for each package, in every rpm since EL6 (`EPOCHNUM` is younger).
const QUERY: &str = "%{NAME}\\t%{ARCH}\\t%|EPOCH?{%{EPOCH}}:{0}|:%{VERSION}-%{RELEASE}\\n";

/// dnf's exit code for a lock that somebody else has, with `exit_on_lock`.
const LOCKED: i32 = 200;

/// Between two looks at a lock.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// What the log of a transaction may be at most; a %post that talks more is cut.
const MAX_LOG: u64 = 16 * 1024 * 1024;

/// Options of the node's own main section that give way to ours: what they say is about other repositories, or about where
/// dnf keeps its files.
const OURS: [(&str, &str); 10] = [
    ("reposdir", "/dev/null"),
    ("localpkg_gpgcheck", ""),
    ("best", "0"),
    ("skip_if_unavailable", "0"),
    ("metadata_expire", "1"),
    ("exit_on_lock", "1"),
    ("keepcache", "0"),
    ("assumeyes", "1"),
    ("color", "never"),
    ("cachedir", ""),
];

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// dnf 4, whose program is called `dnf-3` for the Python that it runs on.
    Dnf4,
    /// yum 3.4.
    Yum,
}

impl Flavour {
    /// The one of the node below `root`; `None` if it has neither.
    pub fn detect(root: &Path) -> Option<Flavour> {
        if Command::exists(root, "dnf-3") {
            return Some(Flavour::Dnf4);
        }
        // Where `yum` is dnf under its old name, dnf-3 was found above; where it is dnf 5, it is no script.
        (interpreter(root, "yum").is_some() && !Command::exists(root, "dnf5")).then_some(Flavour::Yum)
    }

    fn program(self) -> &'static str {
        match self {
            Flavour::Dnf4 => "dnf-3",
            Flavour::Yum => "yum",
        }
    }

    fn planner(self) -> &'static str {
        match self {
            Flavour::Dnf4 => include_str!("dnf4.py"),
            Flavour::Yum => include_str!("yum.py"),
        }
    }

    /// Where its main section stands.
    fn configuration(self) -> &'static str {
        match self {
            Flavour::Dnf4 => "etc/dnf/dnf.conf",
            Flavour::Yum => "etc/yum.conf",
        }
    }
}

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

/// What the planner says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Plan {
    install: Vec<Entry>,
    remove: Vec<Entry>,
    kept_back: Vec<(String, String)>,
}

/// A package that comes or goes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Entry {
    name: String,
    epoch: u32,
    version: String,
    release: String,
    arch: String,
    installed_size: u64,
    /// The digest of the file; of a package that comes.
    #[serde(default)]
    sha256: String,
}

impl Entry {
    fn id(&self) -> PackageId {
        PackageId { name: self.name.clone(), arch: self.arch.clone() }
    }

    fn evr(&self) -> String {
        canonical(&format!("{}:{}-{}", self.epoch, self.version, self.release))
    }

    /// As rpm and dnf take it on the command line.
    fn nevra(&self) -> String {
        format!("{}-{}:{}-{}.{}", self.name, self.epoch, self.version, self.release, self.arch)
    }
}

/// A transaction that was begun, on the disk until it has ended: rpm marks no package as half-configured, so this is how
/// the next run knows what to do again.
#[derive(serde::Serialize, serde::Deserialize)]
struct Begun {
    /// Digest of the repository's repomd.xml.
    repo: Sha256,
    plan: Plan,
}

impl Dnf<'_> {
    /// The RPM architecture of the node below `root`.
    ///
    /// # Errors
    /// If there is no rpm that works.
    pub fn architecture(root: &Path) -> Result<String> {
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
        let main = main_section(&own);
        let mut text = String::from("[main]\n");
        for (key, line) in &main {
            if !OURS.iter().any(|(ours, _)| ours == key) {
                text.push_str(line);
            }
        }
        let cache = inside(&self.root, &scratch.join("cache"));
        let gpgcheck =
            self.gpgcheck.unwrap_or_else(|| main.iter().any(|(k, line)| k == "gpgcheck" && is_true(line)));
        for (key, value) in OURS {
            let value = match key {
                "cachedir" => &cache,
                "localpkg_gpgcheck" if gpgcheck => "1",
                "localpkg_gpgcheck" => "0",
                _ => value,
            };
            text.push_str(&format!("{key}={value}\n"));
        }
        if let Some(repo) = repo {
            let values =
                minijinja::context! { path => inside(&self.root, repo), gpgcheck => u8::from(gpgcheck) };
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
        serde_json::from_str(json).map_err(|e| {
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
                log::debug!("{}: {line}", self.flavour.program());
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
        log::debug!("{first}");
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
        let left: Vec<String> = begun
            .remove
            .iter()
            .filter(|e| installed.has(e))
            .map(|e| {
                // rpm, unlike dnf, takes no epoch in front of the version.
                format!("{}-{}-{}.{}", e.name, e.version, e.release, e.arch)
            })
            .collect();
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
        let result = match self.flavour {
            Flavour::Dnf4 => self.transact(&configuration, &log, &["remove", "--duplicates"]),
            Flavour::Yum => self.transact(&configuration, &log, &["check", "duplicates"]),
        };
        match result {
            Ok(_) => Ok(()),
            Err(e) if e.exit == Exit::Deferred => Err(e),
            Err(_) if read_log(&log).contains("No duplicated packages") => Ok(()),
            Err(_) if self.flavour == Flavour::Yum => {
                let command = Command::new("package-cleanup").args(["-y", "--cleandupes"]);
                let command = in_root(&self.root, command, !self.allow_network);
                command.output().map(|_| ()).map_err(|e| explain(&e, e.stderr()))
            }
            Err(e) => Err(e),
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
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
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
        if self.flavour == Flavour::Yum {
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
            return Err(Error::new(Exit::InstallFailed, what, self.words().log));
        }
        self.scripts_went_well(&said)
    }

    fn reboot_required(&self) -> bool {
        let command = match self.flavour {
            Flavour::Dnf4 => {
                self.command(self.flavour.program()).args(["-q", "--disablerepo=*", "needs-restarting", "-r"])
            }
            Flavour::Yum => self.command("needs-restarting").arg("-r"),
        };
        // Both end with 1 when one is needed, and when they cannot tell.
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

fn read_log(path: &Path) -> String {
    let bytes = host::file::read_limited(path, MAX_LOG).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

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

/// The Python that `program` of the node is written for; `None` if it is no script.
fn interpreter(root: &Path, program: &str) -> Option<String> {
    let paths = ["usr/bin", "usr/local/bin"].map(|folder| root.join(folder).join(program));
    let file = paths.iter().find_map(|path| std::fs::File::open(path).ok())?;
    let mut first = Vec::new();
    std::io::BufRead::read_until(
        &mut std::io::BufReader::new(std::io::Read::take(file, 256)),
        b'\n',
        &mut first,
    )
    .ok()?;
    let line = String::from_utf8(first).ok()?;
    Some(line.strip_prefix("#!")?.split_whitespace().next()?.to_owned())
}

/// The main section of a configuration file: each option with its lines, as they stand.
fn main_section(text: &str) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut in_main = false;
    for line in text.lines() {
        if line.starts_with('[') {
            in_main = line.trim() == "[main]";
        } else if !in_main || line.starts_with(['#', ';']) || line.trim().is_empty() {
            continue;
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, lines)) = out.last_mut() {
                lines.push_str(line);
                lines.push('\n');
            }
        } else {
            let key = line.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            out.push((key, format!("{line}\n")));
        }
    }
    out
}

/// Whether an option's line says yes.
fn is_true(line: &str) -> bool {
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    ["1", "yes", "true", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

/// An epoch of 0 may be written or left out.
fn canonical(evr: &str) -> String {
    evr.strip_prefix("0:").unwrap_or(evr).to_owned()
}

/// What rpm's database holds: of some packages more than one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Packages(BTreeMap<PackageId, BTreeSet<String>>);

impl Packages {
    fn has(&self, entry: &Entry) -> bool {
        self.0.get(&entry.id()).is_some_and(|versions| versions.contains(&entry.evr()))
    }

    /// Names of those with more than one version.
    fn twice(&self) -> BTreeSet<String> {
        self.0.iter().filter(|(_, versions)| versions.len() > 1).map(|(id, _)| id.name.clone()).collect()
    }

    /// As the fleet compares it: several versions of one package are one version text, joined by commas.
    fn inventory(&self) -> Inventory {
        let join =
            |versions: &BTreeSet<String>| versions.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        Inventory(self.0.iter().map(|(id, versions)| (id.clone(), join(versions))).collect())
    }
}

/// Reads what [`QUERY`] prints. Keys in the keyring look like packages and are none.
fn parse_inventory(text: &str) -> Packages {
    let mut packages = Packages::default();
    for line in text.lines() {
        let mut fields = line.split('\t');
        if let (Some(name), Some(arch), Some(evr)) = (fields.next(), fields.next(), fields.next())
            && name != "gpg-pubkey"
        {
            let id = PackageId { name: name.to_owned(), arch: arch.to_owned() };
            packages.0.entry(id).or_default().insert(canonical(evr));
        }
    }
    packages
}

/// What a plan means for a node that has `installed`.
fn resolution(plan: &Plan, installed: &Packages) -> std::result::Result<Resolution, String> {
    let mut after = installed.clone();
    let (mut growth, mut shrink, mut largest) = (0u64, 0u64, 0u64);
    for entry in &plan.remove {
        if let Some(versions) = after.0.get_mut(&entry.id()) {
            versions.remove(&entry.evr());
        }
        shrink = shrink.saturating_add(entry.installed_size);
    }
    let mut files = Vec::new();
    for entry in &plan.install {
        after.0.entry(entry.id()).or_default().insert(entry.evr());
        growth = growth.saturating_add(entry.installed_size);
        largest = largest.max(entry.installed_size);
        let digest = entry.sha256.parse();
        files.push(digest.map_err(|_| format!("the bundle's repodata has no SHA-256 of {}", entry.nevra()))?);
    }
    after.0.retain(|_, versions| !versions.is_empty());
    Ok(Resolution {
        files,
        changes: installed.inventory().changes_to(&after.inventory()),
        disk_bytes: growth.saturating_sub(shrink).saturating_add(largest),
        kept_back: plan.kept_back.iter().map(|(name, why)| format!("{name}: {why}")).collect(),
    })
}

/// What dnf takes for a package of which more than one version may be installed (its default `installonlypkgs`).
fn is_install_only(provided: &str) -> bool {
    let base = provided.split('(').next().unwrap_or(provided);
    matches!(base, "kernel" | "kernel-PAE" | "installonlypkg" | "multiversion")
        || base.starts_with("kernel-uname")
}

fn is_locked(error: &CommandError, said: &str) -> bool {
    error.code() == Some(LOCKED)
        || said.contains("can't create transaction lock")
        || said.contains("Existing lock ")
        || said.contains("Another app is currently holding the yum lock")
}

fn is_script_failure(line: &str) -> bool {
    line.contains("scriptlet failed, exit status")
        || line.starts_with("Error in ") && line.contains(" scriptlet in rpm package")
        || line.starts_with("Non-fatal ") && line.contains(" scriptlet failure in rpm package")
}

/// The package of such a line: `Error in POSTIN scriptlet in rpm package NAME`, or
/// `warning: %post(NAME-VERSION-RELEASE.ARCH) scriptlet failed, exit status 1`.
fn failed_package(line: &str) -> Option<&str> {
    if let Some((_, name)) = line.rsplit_once("in rpm package ") {
        return name.split_whitespace().next();
    }
    let (_, nevra) = line.split_once("%")?.1.split_once('(')?;
    nevra.split_once(')')?.0.rsplitn(3, '-').nth(2)
}

/// What an error of dnf or rpm means for the node; `said` is what it wrote.
fn explain(error: &CommandError, said: &str) -> Error {
    let CommandError::Failed { status, .. } = error else {
        let cure = match error {
            CommandError::Isolation { .. } => {
                "nothing was installed: run it as root where namespaces are allowed, or set [install] allow-network = true"
            }
            _ => "repair this node's rpm and dnf",
        };
        return Error::new(Exit::Deferred, error, cure);
    };
    let what = format!("the package manager ended with {status}: {}", essence(said));
    if is_locked(error, said) {
        let what = format!("another package manager is at work and has the lock: {what}");
        Error::new(Exit::Deferred, what, "it is tried again by itself")
    } else if ["NOKEY", "do not have any GPG public keys", "GPG check FAILED", "is not signed"]
        .iter()
        .any(|t| said.contains(t))
    {
        let what = format!("a package is not signed by a key in this node's keyring: {what}");
        Error::new(
            Exit::InstallFailed,
            what,
            "import its vendor's key with `rpm --import`, or set [install] gpgcheck = false",
        )
    } else if said.contains("No space left on device") || said.contains("more space needed on") {
        Error::new(Exit::Deferred, what, "free some space; it is tried again by itself")
    } else {
        Error::new(Exit::InstallFailed, what, "see /var/log/dnf.log on the node")
    }
}

/// The lines that say what went wrong first, and not what came of it.
fn essence(said: &str) -> String {
    let is_cause = |line: &&str| {
        ["Error", "error:", "Problem", "Failed to", "Public key for", "Package "]
            .iter()
            .any(|p| line.starts_with(p))
            && (!line.starts_with("Package ") || line.contains("is not signed"))
            || is_script_failure(line)
            || line.contains("more space needed on")
    };
    let causes: Vec<&str> = said.lines().map(str::trim).filter(is_cause).take(4).collect();
    if causes.is_empty() {
        said.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or_default().to_owned()
    } else {
        causes.join("; ")
    }
}

/// Reads `text` as everything that is read here; nothing of it may panic.
#[cfg(fuzzing)]
pub fn read_everything(text: &str) {
    let installed = parse_inventory(text);
    let inventory = installed.inventory();
    if let Ok(plan) = serde_json::from_str::<Plan>(text)
        && let Ok(resolution) = resolution(&plan, &installed)
    {
        // What is done to the inventory is what the difference says.
        let after = inventory.after(&resolution.changes);
        assert_eq!(inventory.after(&inventory.changes_to(&after)), after);
    }
    for line in text.lines() {
        let _ = (is_script_failure(line), failed_package(line), is_true(line));
    }
    let _ = (main_section(text), essence(text), installed.twice());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, version: &str, size: u64, digest: &str) -> Entry {
        Entry {
            name: name.into(),
            epoch: 0,
            version: version.into(),
            release: "1".into(),
            arch: "noarch".into(),
            installed_size: size,
            sha256: digest.into(),
        }
    }

    #[test]
    fn a_kernel_that_comes_beside_another_is_one_package_with_two_versions() {
        let installed =
            parse_inventory("kernel\tnoarch\t0:5-1\nold\tnoarch\t2:1-1\ngpg-pubkey\t(none)\t0:1-2\n");
        let digest = Sha256::of(b"kernel");
        let plan = Plan {
            install: vec![entry("kernel", "6", 70, &digest.to_string())],
            remove: vec![Entry { epoch: 2, ..entry("old", "1", 10, "") }],
            kept_back: vec![("held".into(), "why".into())],
        };
        let made = resolution(&plan, &installed).unwrap();
        assert_eq!(made.files, [digest]);
        let changes: Vec<_> =
            made.changes.iter().map(|c| (c.name.as_str(), c.from.as_deref(), c.to.as_deref())).collect();
        assert_eq!(changes, [("kernel", Some("5-1"), Some("5-1,6-1")), ("old", Some("2:1-1"), None)]);
        assert_eq!((made.disk_bytes, made.kept_back), (60 + 70, vec!["held: why".into()]));
        assert!(resolution(&Plan { install: vec![entry("x", "1", 0, "md5")], ..plan }, &installed).is_err());
    }

    #[test]
    fn scripts_that_failed_are_found_in_what_dnf_and_yum_print() {
        for (line, package) in [
            ("Error in POSTIN scriptlet in rpm package till-data", "till-data"),
            (
                "Non-fatal POSTIN scriptlet failure in rpm package till-data-2.0-1.noarch",
                "till-data-2.0-1.noarch",
            ),
            ("warning: %post(till-data-2.0-1.noarch) scriptlet failed, exit status 1", "till-data"),
        ] {
            assert!(is_script_failure(line), "{line}");
            assert_eq!(failed_package(line), Some(package), "{line}");
        }
        assert!(!is_script_failure("  Running scriptlet: till-data-2.0-1.noarch    1/1"));
    }

    #[test]
    fn the_operators_options_stay_and_repositories_do_not() {
        let text = "# x\n[main]\ngpgcheck = True\nexclude=a\n b\nbest=1\n[baseos]\nbaseurl=http://x/\n";
        let main = main_section(text);
        let keys: Vec<&str> = main.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["gpgcheck", "exclude", "best"]);
        assert_eq!(main[1].1, "exclude=a\n b\n");
        assert!(is_true(&main[0].1) && !is_true("gpgcheck=0"));
    }
}
