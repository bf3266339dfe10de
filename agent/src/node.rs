//! This machine in one value: its root, paths, identity, settings and clock, handed down to every step.

use std::path::{Path, PathBuf};
use std::time::Duration;

use format::digest::Sha256;
use format::name::{NodeId, Variant};
use format::time::UnixTime;
use host::clock::{Clock, SystemClock};
use host::file::{self, Lock};
use host::rights::{as_owner_of, with_rights_of};

use crate::cli::Options;
use crate::config::{self, Mirror, Settings};
use crate::error::{Error, Exit, Result};
use crate::fetch::{Client, Folder, HttpMirror, Transport, authorization};
use crate::packages::{Apt, DNF5_ALONE, Dnf, Flavour, Kept, PackageManager};
use crate::render::Renderer;
use host::zone::Zone;

/// A node.
pub struct Node {
    /// `/`, or what `--root` says.
    pub root: PathBuf,
    /// The configuration.
    pub settings: Settings,
    /// Who it is.
    pub id: NodeId,
    /// What its bundles are built for.
    pub variant: Variant,
    /// The machine's clock.
    pub clock: SystemClock,
}

impl Node {
    /// Reads the configuration and finds out who this is.
    ///
    /// # Errors
    /// With exit code 78, if the configuration is wrong or the identity cannot be found out.
    pub fn load(options: &Options) -> Result<Self> {
        let mut node = Node::unidentified(options)?;
        node.id = match &node.settings.id {
            Some(id) => id.clone(),
            None => machine_id(&node.root)?,
        };
        node.variant = match &node.settings.variant {
            Some(variant) => variant.clone(),
            None => variant_of(&node.root)?,
        };
        Ok(node)
    }

    /// As [`Node::load`], without finding out who this is: for explaining what is wrong.
    ///
    /// # Errors
    /// With exit code 78, if the configuration is wrong.
    pub fn unidentified(options: &Options) -> Result<Self> {
        let root = match &options.root {
            None => PathBuf::from("/"),
            Some(root) => std::fs::canonicalize(root)
                .map_err(|e| Error::config(format!("--root {}: {e}", root.display())))?,
        };
        let settings = config::load(&root, options.config.as_deref())?;
        let (id, variant) = ("unidentified".parse(), "unidentified".parse());
        Ok(Node {
            root,
            settings,
            id: id.map_err(Error::config)?,
            variant: variant.map_err(Error::config)?,
            clock: SystemClock::new(),
        })
    }

    /// The time, which is never before this program was built: a clock that lost its battery is no reason to trust
    /// what expired long ago.
    pub fn now(&self) -> UnixTime {
        let built = option_env!("SOURCE_DATE_EPOCH").and_then(|t| t.parse().ok()).unwrap_or(0);
        self.clock.now().max(UnixTime(built))
    }

    /// The zone of the maintenance windows.
    pub fn zone(&self) -> Zone {
        match &self.settings.timezone {
            Some(name) => Zone::named(name).unwrap_or(Zone::UTC),
            None => Zone::system(),
        }
    }

    /// Whether there is anything to work with. A node need have no mirror: there are sites with no line, where bundles come
    /// on sticks or are pushed.
    pub fn is_configured(&self) -> bool {
        self.initial_root().exists()
    }

    /// `/etc/prestage/root.json`: where trust begins.
    pub fn initial_root(&self) -> PathBuf {
        self.root.join("etc/prestage/root.json")
    }

    /// `/var/lib/prestage`.
    pub fn state(&self) -> PathBuf {
        self.root.join("var/lib/prestage")
    }

    /// What the unprivileged steps write.
    pub fn fetched(&self, name: &str) -> PathBuf {
        self.state().join("fetch").join(name)
    }

    /// What only root writes and believes.
    pub fn private(&self, name: &str) -> PathBuf {
        self.state().join("private").join(name)
    }

    /// The queue of reports.
    pub fn reports(&self) -> PathBuf {
        self.state().join("reports")
    }

    /// Takes the lock that lets one step run at a time.
    ///
    /// # Errors
    /// Deferred, if another one runs.
    pub fn lock(&self) -> Result<Lock> {
        let folder = self.root.join("run/prestage");
        file::make_folder(&folder, 0o755)?;
        let path = folder.join("lock");
        Lock::take(&path)?.ok_or_else(|| {
            Error::deferred(format!("another prestage is at work ({} is locked)", path.display()))
        })
    }

    /// The same for an install, which does not wait for a slow mirror: where it is due, a fetch that is under way makes way
    /// for it. What comes of that is at most one connection's worth of patience away.
    ///
    /// # Errors
    /// Deferred, if another one runs and does not make way.
    pub fn lock_for_install(&self, is_due: bool) -> Result<Lock> {
        /// Between two looks at the lock.
        const PAUSE: Duration = Duration::from_millis(200);
        let refused = match self.lock() {
            Err(error) if is_due && error.exit == Exit::Deferred => error,
            other => return other,
        };
        log::info!("waiting for a fetch to make way");
        // Whoever fetches is not trusted: he may hold this lock too, or not make way. Neither keeps an install for ever.
        let mut waiting = None;
        let end = self.clock.instant() + 2 * self.settings.stall_timeout + Duration::from_secs(10);
        while self.clock.instant() < end {
            if waiting.is_none() {
                waiting = Lock::take_seen(&self.install_waits())?;
            }
            self.clock.sleep(PAUSE);
            match self.lock() {
                Err(error) if error.exit == Exit::Deferred => {}
                other => return other,
            }
        }
        Err(refused)
    }

    /// Whether an install waits for whoever fetches.
    pub fn is_install_waiting(&self) -> bool {
        file::is_locked(&self.install_waits())
    }

    fn install_waits(&self) -> PathBuf {
        self.root.join("run/prestage/install-waits")
    }

    /// Makes the folders that the unprivileged steps write. They belong to whoever runs those steps; what root does in
    /// them later, it does with his rights.
    ///
    /// # Errors
    /// If they cannot be made; trust, if something else is in their place, such as a link to where root could write.
    pub fn make_folders(&self) -> Result<()> {
        file::make_folder(&self.state(), 0o755)?;
        for folder in [self.state().join("fetch"), self.reports()] {
            match std::fs::symlink_metadata(&folder) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => {
                    let what = format!("{} is not a folder", folder.display());
                    return Err(Error::new(
                        Exit::Trust,
                        what,
                        "find out who put it there, remove it and try again",
                    ));
                }
                Err(_) => file::make_folder(&folder, 0o755)?,
            }
        }
        let fetch = self.state().join("fetch");
        Ok(with_rights_of(&fetch, || file::make_folder(&fetch.join("metadata"), 0o755))?)
    }

    /// Does what the fetch step does as whom it belongs to, if root has called it by hand: in a folder of the fetch user's
    /// root would write through his links, and leave files that he cannot replace. Below another root its users mean
    /// nothing here, and what is done is done as who calls.
    ///
    /// # Errors
    /// Those of `act`; if this process cannot become that user.
    pub fn as_fetch_user<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.root != Path::new("/") {
            return act();
        }
        as_owner_of(&self.fetched(""), act)?
    }

    /// Makes the folder that only root writes, and makes sure that it is.
    ///
    /// # Errors
    /// If it cannot be made, or somebody else could have put it there or write in it.
    pub fn make_private_folder(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let folder = self.state().join("private");
        file::make_folder(&folder, 0o700)?;
        let meta = std::fs::symlink_metadata(&folder).map_err(|e| Error::file(&folder, &e))?;
        if meta.is_dir() && meta.uid() == 0 && meta.mode() & 0o077 == 0 {
            return Ok(());
        }
        let what = format!("{} is not a folder of root's alone", folder.display());
        Err(Error::new(Exit::Trust, what, "find out who made it, remove it and try again"))
    }

    /// The node's package manager.
    ///
    /// # Errors
    /// With exit code 78, if it is one that this program does not know.
    pub fn package_manager(&self) -> Result<Box<dyn PackageManager + '_>> {
        let (root, renderer) = (self.root.clone(), self.renderer());
        let (allow_network, lock_timeout) = (self.settings.allow_network, self.settings.lock_timeout);
        match family(&self.root)? {
            Found::Apt => {
                Ok(Box::new(Apt { root, allow_network, lock_timeout, renderer, clock: &self.clock }))
            }
            Found::Rpm(flavour) => Ok(Box::new(Dnf {
                flavour,
                root,
                allow_network,
                gpgcheck: self.settings.gpgcheck,
                lock_timeout,
                renderer,
                clock: &self.clock,
            })),
        }
    }

    /// The packages that are kept for the way back.
    pub fn kept(&self) -> Kept {
        Kept::new(self.private("kept"), self.settings.keep_packages)
    }

    /// Templates, the operator's first.
    pub fn renderer(&self) -> Renderer {
        Renderer::new(self.root.join("etc/prestage/templates"))
    }

    /// A client for http and https; none is made when nothing needs it.
    ///
    /// # Errors
    /// With exit code 78, if its settings cannot be used.
    pub fn client(&self) -> Result<Client> {
        let mirrors = self.settings.mirrors.iter().filter_map(|m| match m {
            Mirror::Http(url) => Some(url),
            Mirror::Folder(_) => None,
        });
        let needs_tls = mirrors
            .chain(&self.settings.report_url)
            .chain(&self.settings.health.url)
            .any(|url| url.starts_with("https://"));
        Client::new(&self.settings, &self.root, needs_tls)
    }

    /// The configured mirrors.
    ///
    /// # Errors
    /// With exit code 78, if the secret for one cannot be read.
    pub fn mirrors<'c>(&self, client: &'c Client) -> Result<Vec<Box<dyn Transport + 'c>>> {
        let mirror = |mirror: &Mirror| -> Result<Box<dyn Transport + 'c>> {
            Ok(match mirror {
                Mirror::Http(url) => {
                    let credential = self.settings.credentials.get(url);
                    let secret = credential.map(|c| authorization(c, &self.root)).transpose()?;
                    Box::new(HttpMirror::new(client, url).authorized(secret))
                }
                Mirror::Folder(path) => Box::new(Folder::new(path)),
            })
        };
        self.settings.mirrors.iter().map(mirror).collect()
    }
}

/// The package manager of a node.
enum Found {
    Apt,
    Rpm(Flavour),
}

/// By the database that the node has, and then by the programs: apt can be a guest on a node of rpm, and dnf on one of dpkg.
fn family(root: &Path) -> Result<Found> {
    if root.join("var/lib/dpkg/status").exists() && host::command::Command::exists(root, "apt-get") {
        return Ok(Found::Apt);
    }
    Flavour::detect(root).map(Found::Rpm).ok_or_else(|| {
        let what = "no package manager that prestage knows (apt, dnf 4, yum) was found";
        let cure = if host::command::Command::exists(root, "dnf5") {
            DNF5_ALONE
        } else {
            "zypper and others are not supported yet"
        };
        Error::new(Exit::Config, what, cure)
    })
}

/// A node id from machine-id(5), which must not be told to others as it is: a digest of it, for this purpose only.
fn machine_id(root: &Path) -> Result<NodeId> {
    let path = root.join("etc/machine-id");
    let text = file::read_limited(&path, 1024).ok().flatten().unwrap_or_default();
    if text.len() < 32 {
        return Err(Error::config(format!(
            "{} does not identify this machine, and [node] id is not set",
            path.display()
        )));
    }
    let digest = Sha256::of(&[b"prestage node id\n", text.trim_ascii()].concat());
    format!("node-{}", digest.short()).parse().map_err(Error::config)
}

/// The variant from os-release(5) and the package manager's architecture.
fn variant_of(root: &Path) -> Result<Variant> {
    let files = ["etc/os-release", "usr/lib/os-release"];
    let text = files.iter().find_map(|f| std::fs::read_to_string(root.join(f)).ok());
    let text = text.ok_or_else(|| Error::config("there is no os-release, and [node] variant is not set"))?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|v| v.trim().trim_matches(['"', '\'']).to_owned())
    };
    match (field("ID"), field("VERSION_ID")) {
        (Some(id), Some(version)) => {
            let architecture = match family(root)? {
                Found::Apt => Apt::architecture(root)?,
                Found::Rpm(_) => Dnf::architecture(root)?,
            };
            format!("{id}-{version}-{architecture}").parse().map_err(Error::config)
        }
        _ => Err(Error::config("os-release has no ID and VERSION_ID, and [node] variant is not set")),
    }
}
