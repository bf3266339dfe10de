//! A published repository on disk: where its files are, and reading it through the same verification as a node's.
//!
//! Nothing is written here. What is about to be published is read through an [`Overlay`], so that it is judged
//! before it is there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use format::metadata::{RoleKeys, RoleKind, TargetFile, Targets};
use format::time::UnixTime;
use format::trust::{self, TrustError, TrustedMetadataSet, Wanted};

use crate::delegated::{BUNDLES, DELEGATED, Delegated};
use crate::error::{During, Error, Kind, Result};

/// The role that delegates to the others.
pub const TARGETS: &str = "targets";

/// The roles whose keys stand in the root, in the order in which people ask for them.
pub const TOP_LEVEL: [RoleKind; 4] =
    [RoleKind::Root, RoleKind::Targets, RoleKind::Snapshot, RoleKind::Timestamp];

/// A moment before all expiries: with it a repository loads whose signatures are right but which has expired, as
/// is needed to repair one.
pub const IGNORE_EXPIRY: UnixTime = UnixTime(i64::MIN);

/// Where a repository's files are.
#[derive(Clone, Debug)]
pub struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// The repository in `folder`, which may not be there yet.
    pub fn at(folder: &Path) -> Self {
        Repository { folder: folder.to_owned() }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of metadata.
    pub fn metadata(&self) -> PathBuf {
        self.folder.join("metadata")
    }

    /// The folder of targets.
    pub fn targets(&self) -> PathBuf {
        self.folder.join("targets")
    }

    /// The folder beside it, never served, where what is not yet signed by enough keys waits.
    ///
    /// # Errors
    /// If the repository's path has no last component to stand beside.
    pub fn pending(&self) -> Result<PathBuf> {
        let name = self.folder.file_name().ok_or_else(|| {
            Error::new(
                Kind::Usage,
                "the repository cannot be used",
                format!("{} has no name of its own", self.folder.display()),
            )
            .cure("give the path of a folder, not . or /")
        })?;
        let mut pending = name.to_owned();
        pending.push(".pending");
        Ok(self.folder.with_file_name(pending))
    }
}

/// Where metadata files come from.
pub trait MetadataSource {
    /// The bytes of the file `name` of the metadata folder, of which at most `limit` are read; `None` if it is absent.
    ///
    /// # Errors
    /// If it cannot be read or is larger.
    fn metadata_file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>>;
}

impl MetadataSource for Repository {
    fn metadata_file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        host::file::read_limited(&self.metadata().join(name), limit).during("metadata cannot be read")
    }
}

/// A repository as it will be once `files` are in its metadata folder and those in `hidden` are not.
pub struct Overlay<'r> {
    /// What is there.
    pub base: &'r Repository,
    /// Name → bytes of what will be there.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What is not to be seen, there or not.
    pub hidden: Vec<String>,
}

impl MetadataSource for Overlay<'_> {
    fn metadata_file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if self.hidden.iter().any(|hidden| hidden == name) {
            return Ok(None);
        }
        match self.files.get(name) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => self.base.metadata_file(name, limit),
        }
    }
}

/// Everything that a node sees of a repository's metadata, verified, byte for byte.
#[derive(Debug)]
pub struct View {
    /// What was verified.
    pub set: TrustedMetadataSet,
    /// Each root, by version.
    pub roots: BTreeMap<u64, Vec<u8>>,
    /// Role → file name and bytes, for all others.
    pub files: BTreeMap<String, (String, Vec<u8>)>,
}

impl View {
    /// What the role `bundles` says.
    pub fn bundles(&self) -> Option<&Targets> {
        self.set.targets(BUNDLES.name)
    }

    /// The delegated roles that this repository has.
    pub fn delegated(&self) -> impl Iterator<Item = &'static Delegated> {
        DELEGATED.into_iter().filter(|role| self.set.targets(role.name).is_some())
    }

    /// Every target that is listed, with the role that lists it.
    pub fn listed(&self) -> impl Iterator<Item = (&'static Delegated, &str, &TargetFile)> {
        self.delegated().flat_map(|role| {
            let targets = self.set.targets(role.name).map(|targets| &targets.targets);
            targets.into_iter().flatten().map(move |(path, file)| (role, path.as_str(), file))
        })
    }

    /// The bytes of a role other than root.
    pub fn bytes(&self, role: &str) -> Option<&[u8]> {
        self.files.get(role).map(|(_, bytes)| bytes.as_slice())
    }

    /// The newest bytes of a role, root included.
    pub fn newest(&self, role: &str) -> Option<&[u8]> {
        match role {
            "root" => self.root().map(|(_, bytes)| bytes),
            other => self.bytes(other),
        }
    }

    /// The newest root's version and bytes.
    pub fn root(&self) -> Option<(u64, &[u8])> {
        self.roots.last_key_value().map(|(version, bytes)| (*version, bytes.as_slice()))
    }

    /// The keys that count for a role, top-level or delegated; `None` if this repository has no such role.
    pub fn keys_of(&self, role: &str) -> Option<&RoleKeys> {
        match TOP_LEVEL.into_iter().find(|kind| kind.as_str() == role) {
            Some(kind) => Some(self.set.root().keys_of(kind)),
            None => Delegated::named(role)?.keys_in(self.set.targets(TARGETS)?),
        }
    }
}

/// Why a repository did not load.
#[derive(Debug)]
pub enum LoadError {
    /// A file that must be there is not.
    Missing(String),
    /// A file was refused.
    Refused {
        /// Its name.
        file: String,
        /// Why.
        error: TrustError,
    },
    /// Reading failed.
    Read(Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Missing(file) => write!(f, "{file} is missing"),
            LoadError::Refused { file, error } => {
                let why = error.to_string();
                // timestamp.json says its own name.
                if why.starts_with(file.as_str()) { f.write_str(&why) } else { write!(f, "{file}: {why}") }
            }
            LoadError::Read(error) => error.fmt(f),
        }
    }
}

impl LoadError {
    /// As an error of the act `what`.
    pub fn during(self, what: &str) -> Error {
        match self {
            LoadError::Read(error) => error,
            other => Error::new(Kind::Data, what, other),
        }
    }
}

/// Loads and verifies everything as a node does that starts from root `from`.
///
/// # Errors
/// At the first file that is missing or that a node would refuse.
pub fn load(source: &dyn MetadataSource, from: u64, now: UnixTime) -> std::result::Result<View, LoadError> {
    let read = |wanted: &Wanted| source.metadata_file(&wanted.file, wanted.limit).map_err(LoadError::Read);
    let must = |wanted: &Wanted| read(wanted)?.ok_or_else(|| LoadError::Missing(wanted.file.clone()));
    let refused = |file: &str, error| LoadError::Refused { file: file.to_owned(), error };

    let first = Wanted { file: format!("{from}.root.json"), limit: trust::MAX_ROOT };
    let bytes = must(&first)?;
    let mut set = TrustedMetadataSet::new(&bytes, now).map_err(|e| refused(&first.file, e))?;
    if set.root().header.version != from {
        return Err(refused(
            &first.file,
            TrustError::Version { role: "root".into(), found: set.root().header.version, expected: from },
        ));
    }
    let mut roots = BTreeMap::from([(from, bytes)]);
    for _ in 0..trust::MAX_ROOT_ROTATIONS {
        let wanted = set.wanted_root();
        let Some(bytes) = read(&wanted)? else { break };
        set.update_root(&bytes).map_err(|e| refused(&wanted.file, e))?;
        roots.insert(set.root().header.version, bytes);
    }
    let last = format!("{}.root.json", set.root().header.version);
    set.finish_root().map_err(|e| refused(&last, e))?;

    let mut files = BTreeMap::new();
    let wanted = set.wanted_timestamp();
    let bytes = must(&wanted)?;
    set.update_timestamp(&bytes).map_err(|e| refused(&wanted.file, e))?;
    files.insert("timestamp".to_owned(), (wanted.file, bytes));

    let wanted = set.wanted_snapshot().map_err(|e| refused("timestamp.json", e))?;
    let bytes = must(&wanted)?;
    set.update_snapshot(&bytes).map_err(|e| refused(&wanted.file, e))?;
    let snapshot_file = wanted.file.clone();
    files.insert("snapshot".to_owned(), (wanted.file, bytes));

    let mut targets = |role: &str, delegator: &str| {
        let wanted = set.wanted_targets(role).map_err(|e| refused(&snapshot_file, e))?;
        let bytes = must(&wanted)?;
        set.update_targets(role, delegator, &bytes).map_err(|e| refused(&wanted.file, e))?;
        files.insert(role.to_owned(), (wanted.file, bytes));
        Ok(DELEGATED.map(|role| set.targets(TARGETS).and_then(|t| role.keys_in(t)).is_some()))
    };
    let delegates = targets(TARGETS, "root")?;
    for (role, delegates) in DELEGATED.into_iter().zip(delegates) {
        if delegates || !role.optional {
            targets(role.name, TARGETS)?;
        }
    }
    Ok(View { set, roots, files })
}

/// The published state, whether it has expired or not; `None` where nothing is published yet.
///
/// A publication that was interrupted may have left a new root, of the version `pending_root`, before the files that
/// belong to it. If what is there does not fit that root, it is read without it.
///
/// # Errors
/// If something is published that does not verify.
pub fn published(repository: &Repository, pending_root: Option<u64>) -> Result<Option<View>> {
    if repository.metadata_file("timestamp.json", trust::MAX_TIMESTAMP)?.is_none() {
        return Ok(None);
    }
    let without_pending = |version: u64| Overlay {
        base: repository,
        files: BTreeMap::new(),
        hidden: vec![format!("{version}.root.json")],
    };
    load(repository, 1, IGNORE_EXPIRY)
        .or_else(|error| match pending_root {
            Some(version) => load(&without_pending(version), 1, IGNORE_EXPIRY),
            None => Err(error),
        })
        .map(Some)
        .map_err(unusable)
}

fn unusable(error: LoadError) -> Error {
    error
        .during("the published repository cannot be used")
        .cure("prestage-build check shows everything that is wrong")
}
