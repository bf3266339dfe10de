//! Trusted metadata: drives the TUF client workflow (`format::trust`) over the mirrors, and keeps what was accepted,
//! byte for byte.
//!
//! The install runs the same function with the fetch step's own folder as its only mirror and a folder of its own that
//! only root can write: what the unprivileged fetch stored is no more believed than what a server says.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::time::UnixTime;
use format::trust::{
    MAX_ROOT, MAX_ROOT_ROTATIONS, MAX_TARGETS, SearchStep, TimestampUpdate, TrustError, TrustedMetadataSet,
    Wanted,
};
use host::clock::Clock;
use host::file;

use crate::error::{Error, Exit, Result};
use crate::fetch::{Changed, Range, Transport, TransportError, Tries, read_all, read_limited};

/// Where trusted copies are kept, and where trust begins.
pub struct Keep {
    /// `metadata/`: one file for each role.
    pub folder: PathBuf,
    /// The root that the node was enrolled with.
    pub initial_root: PathBuf,
}

/// Where the validator of the last timestamp is kept.
const VALIDATOR: &str = ".timestamp.validator";

/// Where the roots are kept under their versions, below the folder of a [`Keep`]: the install walks the same chain
/// from what the fetch kept. Apart from the roles, because a delegated role may be called `2.root`.
const ROOTS: &str = "roots";

/// Why a mirror's metadata was not taken.
#[derive(Debug)]
pub enum Refusal {
    /// It did not deliver.
    Transport(String, TransportError),
    /// What it delivered was refused.
    Trust(TrustError),
    /// This machine.
    Here(Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Transport(what, error) => write!(f, "{what}: {error}"),
            Refusal::Trust(error) => error.fmt(f),
            Refusal::Here(error) => error.fmt(f),
        }
    }
}

impl From<TrustError> for Refusal {
    fn from(error: TrustError) -> Self {
        Refusal::Trust(error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Here(error)
    }
}

/// Refreshes from the first mirror whose metadata can be trusted, and loads every role that may speak of one of `probes`.
///
/// # Errors
/// Trust or integrity, if a mirror answered and none could be trusted; unavailable, if none answered; configuration, if
/// there is no trusted root.
pub fn refresh(
    mirrors: &[Box<dyn Transport + '_>],
    keep: &Keep,
    probes: &[&str],
    now: UnixTime,
    clock: &dyn Clock,
) -> Result<TrustedMetadataSet> {
    let mut refused: Option<Error> = None;
    let mut unreachable: Vec<String> = Vec::new();
    for mirror in mirrors {
        match refresh_from(mirror.as_ref(), keep, probes, now, clock) {
            Ok(set) => return Ok(set),
            Err(Refusal::Here(error)) => return Err(error),
            Err(Refusal::Trust(error)) => {
                log::error!("{}: {error}", mirror.name());
                refused = refused.or_else(|| Some(refusal(mirror.name(), &error)));
            }
            Err(Refusal::Transport(what, error)) => {
                log::warn!("{}: {what}: {error}", mirror.name());
                unreachable.push(format!("{}: {what}: {error}", mirror.name()));
            }
        }
    }
    Err(refused.unwrap_or_else(|| {
        let all = if unreachable.is_empty() {
            "no mirror is configured".to_owned()
        } else {
            unreachable.join("; ")
        };
        Error::new(
            Exit::Unavailable,
            format!("no mirror delivers the repository's metadata: {all}"),
            "it is tried again by itself",
        )
    }))
}

/// Says what was refused and what to do about it.
fn refusal(mirror: &str, error: &TrustError) -> Error {
    let exit = if error.is_integrity() { Exit::Integrity } else { Exit::Trust };
    let cure = match error {
        TrustError::Expired { .. } => {
            "re-sign the repository (prestage-build refresh-timestamp), update this mirror, or set this node's clock"
        }
        TrustError::Rollback { .. } => "this mirror serves an old copy: bring it up to date",
        _ => "nothing of it is used; replace this mirror's copy by what the centre published",
    };
    Error::new(exit, format!("{mirror}: {error}"), cure)
}

fn refresh_from(
    mirror: &dyn Transport,
    keep: &Keep,
    probes: &[&str],
    now: UnixTime,
    clock: &dyn Clock,
) -> std::result::Result<TrustedMetadataSet, Refusal> {
    let source = Source { mirror, keep, clock };
    let mut set = source.refresh(now)?;
    probes.iter().try_for_each(|probe| source.load_roles(&mut set, probe))?;
    Ok(set)
}

/// One mirror, and where what it delivers is kept once it is trusted.
pub struct Source<'s> {
    /// The mirror.
    pub mirror: &'s dyn Transport,
    /// The copies.
    pub keep: &'s Keep,
    /// For the pauses between tries.
    pub clock: &'s dyn Clock,
}

impl Source<'_> {
    /// Updates the four top-level roles, in the order that the specification gives (section 5), each stored as soon as
    /// it is trusted, so that an update that breaks off goes on from there.
    ///
    /// # Errors
    /// At the first file that does not come or is refused.
    pub fn refresh(&self, now: UnixTime) -> std::result::Result<TrustedMetadataSet, Refusal> {
        let Source { mirror, keep, clock } = *self;
        let mut set = TrustedMetadataSet::new(&keep.trusted_root(now)?, now)?;
        // 5.3: the chain of roots.
        for _ in 0..MAX_ROOT_ROTATIONS {
            match self.fetch(&set.wanted_root()) {
                Err(Refusal::Transport(_, TransportError::NotFound)) => break,
                Err(other) => return Err(other),
                Ok(bytes) => {
                    set.update_root(&bytes)?;
                    let version = set.root().header.version;
                    keep.store_root(version, &bytes)?;
                    log::info!("root version {version} is trusted now");
                }
            }
        }
        set.finish_root()?;
        // 5.4: the timestamp.
        let known = keep.load("timestamp")?;
        if let Some(bytes) = &known {
            set.local_timestamp(bytes);
        }
        let validator = known.as_ref().and_then(|bytes| keep.validator(mirror, bytes));
        match patiently(clock, || fetch_if_changed(mirror, &set.wanted_timestamp(), validator.as_deref()))? {
            // Not changed: what is known is judged again, so that a mirror cannot freeze a node beyond the expiry.
            None => drop(set.update_timestamp(&known.unwrap_or_default())?),
            Some((bytes, validator)) => {
                if set.update_timestamp(&bytes)? == TimestampUpdate::New {
                    keep.store("timestamp", &bytes)?;
                }
                keep.store_validator(mirror, &bytes, validator)?;
            }
        }
        // 5.5: the snapshot.
        let is_current = keep.load("snapshot")?.is_some_and(|bytes| set.local_snapshot(&bytes));
        if !is_current {
            let bytes = self.fetch(&set.wanted_snapshot()?)?;
            set.update_snapshot(&bytes)?;
            keep.store("snapshot", &bytes)?;
        }
        // 5.6: the top-level targets.
        self.load_role(&mut set, "targets", "root")?;
        Ok(set)
    }

    /// Loads every delegated role that may speak of `target`, in the order of the search (step 5.6.7).
    ///
    /// # Errors
    /// At the first role that does not come or is refused: what is behind it must not speak in its place.
    pub fn load_roles(&self, set: &mut TrustedMetadataSet, target: &str) -> std::result::Result<(), Refusal> {
        let mut search = set.search(target);
        while let SearchStep::Load { role, delegator } = search.step(set) {
            self.load_role(set, &role, &delegator)?;
        }
        Ok(())
    }

    /// A targets role: the stored copy, if it is the current one, or the mirror's (steps 5.6.1 to 5.6.6).
    fn load_role(
        &self,
        set: &mut TrustedMetadataSet,
        role: &str,
        delegator: &str,
    ) -> std::result::Result<(), Refusal> {
        let name = format::name::encode_role(role);
        let stored = self.keep.load(&name)?;
        let is_current = stored.is_some_and(|bytes| set.update_targets(role, delegator, &bytes).is_ok());
        if !is_current {
            let bytes = self.fetch(&set.wanted_targets(role)?)?;
            set.update_targets(role, delegator, &bytes)?;
            self.keep.store(&name, &bytes)?;
        }
        Ok(())
    }

    /// Fetches a metadata file with its size limit.
    fn fetch(&self, wanted: &Wanted) -> std::result::Result<Vec<u8>, Refusal> {
        let path = format!("metadata/{}", wanted.file);
        patiently(self.clock, || within(wanted, read_all(self.mirror, &path, wanted.limit)))
    }
}

/// Tries a few times what only failed: one lost packet must not cost an hour.
fn patiently<T>(
    clock: &dyn Clock,
    attempt: impl Fn() -> std::result::Result<T, Refusal>,
) -> std::result::Result<T, Refusal> {
    let mut tries = Tries::new(1);
    loop {
        match attempt() {
            Err(Refusal::Transport(what, error)) => {
                let pause = tries.failed(0, &error);
                if tries.choose().is_none() {
                    return Err(Refusal::Transport(what, error));
                }
                clock.sleep(pause);
            }
            other => return other,
        }
    }
}

/// A file's content, and what stands for it in the next request.
type Known = (Vec<u8>, Option<String>);

/// The same unless the file is the one that `validator` stands for; with what to ask with next time.
fn fetch_if_changed(
    mirror: &dyn Transport,
    wanted: &Wanted,
    validator: Option<&str>,
) -> std::result::Result<Option<Known>, Refusal> {
    let path = format!("metadata/{}", wanted.file);
    match mirror.get_if_changed(&path, validator) {
        Ok(None) => Ok(None),
        Ok(Some(Changed { reader, validator })) => {
            within(wanted, read_limited(reader, wanted.limit)).map(|bytes| Some((bytes, validator)))
        }
        Err(error) => Err(Refusal::Transport(path, error)),
    }
}

/// A file over its limit counts as damaged: endless data.
fn within(
    wanted: &Wanted,
    read: std::result::Result<std::result::Result<Vec<u8>, u64>, TransportError>,
) -> std::result::Result<Vec<u8>, Refusal> {
    match read {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(limit)) => {
            let role = wanted.file.trim_end_matches(".json").to_owned();
            Err(Refusal::Trust(TrustError::Content { role, why: format!("it is larger than {limit} bytes") }))
        }
        Err(error) => Err(Refusal::Transport(format!("metadata/{}", wanted.file), error)),
    }
}

/// What a refresh kept, as a mirror for the next one who trusts nobody: the install.
pub struct KeptMetadata {
    folder: PathBuf,
    name: String,
}

impl KeptMetadata {
    /// The `metadata/` folder of a [`Keep`].
    pub fn new(folder: &Path) -> Self {
        KeptMetadata { folder: folder.to_owned(), name: folder.display().to_string() }
    }
}

impl Transport for KeptMetadata {
    fn name(&self) -> &str {
        &self.name
    }

    fn get(&self, path: &str, _: Option<Range>) -> std::result::Result<Box<dyn Read + '_>, TransportError> {
        let file = path.strip_prefix("metadata/").unwrap_or(path);
        // Kept without the version, all but the roots.
        let path = match file.split_once('.') {
            Some((version, "root.json")) if is_number(version) => self.folder.join(ROOTS).join(file),
            Some((version, rest)) if is_number(version) => self.folder.join(rest),
            _ => self.folder.join(file),
        };
        match host::file::open_regular(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(TransportError::NotFound),
            Err(e) => Err(TransportError::failed(e)),
        }
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

impl Keep {
    /// The root to begin with: the last one accepted, or the one the node was enrolled with. A stored one that cannot be
    /// read any more is kept aside, and the chain is walked again from the beginning. Where the node was enrolled anew,
    /// everything else that is kept goes.
    ///
    /// # Errors
    /// If there is no root to begin with, or it is not signed by itself.
    pub fn trusted_root(&self, now: UnixTime) -> Result<Vec<u8>> {
        let initial = file::read_limited(&self.initial_root, MAX_ROOT)?;
        let initial = initial.ok_or_else(|| {
            let what = format!("{}: there is no trusted root", self.initial_root.display());
            Error::new(
                Exit::Config,
                what,
                "copy the repository's metadata/1.root.json there, over a way that you trust",
            )
        })?;
        let usable = |bytes: &[u8], path: &Path| match TrustedMetadataSet::new(bytes, now) {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::new(
                Exit::Trust,
                format!("{}: {e}", path.display()),
                "copy the repository's 1.root.json there again",
            )),
        };
        usable(&initial, &self.initial_root)?;
        // Enrolled anew with another root: what was trusted under the old one means nothing any more.
        let (mark, digest) = (self.folder.join(".enrolled"), Sha256::of(&initial).to_string());
        let enrolled = file::read_limited(&mark, 64).unwrap_or_default();
        if enrolled.as_deref() != Some(digest.as_bytes()) {
            file::remove(&self.folder)?;
            file::make_folder(&self.folder, 0o755)?;
            file::replace(&mark, digest.as_bytes(), 0o644)?;
            return Ok(initial);
        }
        let path = self.path("root");
        match file::read_limited(&path, MAX_ROOT) {
            Ok(None) => Ok(initial),
            Ok(Some(bytes)) if usable(&bytes, &path).is_ok() => Ok(bytes),
            _ => {
                log::warn!(
                    "{} cannot be read any more; it is kept aside and the chain of roots is walked again",
                    path.display()
                );
                std::fs::rename(&path, path.with_extension("json.broken"))
                    .map_err(|e| Error::file(&path, &e))?;
                Ok(initial)
            }
        }
    }

    fn path(&self, role: &str) -> PathBuf {
        self.folder.join(format!("{role}.json"))
    }

    fn load(&self, role: &str) -> Result<Option<Vec<u8>>> {
        Ok(file::read_limited(&self.path(role), MAX_TARGETS)?)
    }

    /// What stands for the stored timestamp at this mirror.
    fn validator(&self, mirror: &dyn Transport, timestamp: &[u8]) -> Option<String> {
        let text = file::read_limited(&self.folder.join(VALIDATOR), 4096).ok()??;
        let text = String::from_utf8(text).ok()?;
        let (of, validator) = text.split_once('\n')?;
        (of == Self::validated(mirror, timestamp)).then(|| validator.to_owned())
    }

    fn store_validator(
        &self,
        mirror: &dyn Transport,
        timestamp: &[u8],
        validator: Option<String>,
    ) -> Result<()> {
        let path = self.folder.join(VALIDATOR);
        match validator {
            None => Ok(file::remove(&path)?),
            Some(validator) => Ok(file::replace(
                &path,
                format!("{}\n{validator}", Self::validated(mirror, timestamp)).as_bytes(),
                0o644,
            )?),
        }
    }

    /// A validator counts for one mirror and for the very bytes that are stored.
    fn validated(mirror: &dyn Transport, timestamp: &[u8]) -> String {
        format!("{} {}", mirror.name(), Sha256::of(timestamp))
    }

    fn store(&self, role: &str, bytes: &[u8]) -> Result<()> {
        Ok(file::replace(&self.path(role), bytes, 0o644)?)
    }

    /// Under its version first: the last one is never without those before it (step 5.3.8).
    fn store_root(&self, version: u64, bytes: &[u8]) -> Result<()> {
        let roots = self.folder.join(ROOTS);
        file::make_folder(&roots, 0o755)?;
        file::replace(&roots.join(format!("{version}.root.json")), bytes, 0o644)?;
        self.store("root", bytes)
    }
}
