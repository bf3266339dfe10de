//! The TUF client workflow (specification 1.0.34, section 5) as a state without I/O: bytes in, trusted values out.
//!
//! The caller fetches and stores; this module decides. It is fed in the order root chain → timestamp → snapshot →
//! targets → delegated roles, and refuses any other order. `now` is given once, at the beginning, and used for every
//! expiry check of the run (step 5.1). Deviations from the specification are marked "Off-spec".

use std::collections::BTreeSet;
use std::fmt;

use crate::digest::Sha256;
use crate::key::PublicKey;
use crate::metadata::{
    Delegation, Envelope, Header, MetaFile, RoleKeys, RoleKind, Root, Snapshot, TargetFile, Targets,
    Timestamp, read_root, read_snapshot, read_timestamp, take_targets,
};
use crate::name::TargetPath;
use crate::time::UnixTime;

/// How large a metadata file may be where its referrer does not say: the specification leaves W, X, Y and Z to the
/// application; these are python-tuf's values, but for root's: it is parsed before anything is known of it, and costs
/// about twenty times its size in memory meanwhile. 128 KiB hold the keys of hundreds of people.
pub const MAX_ROOT: u64 = 128 * 1024;
/// X: timestamp.json names one file.
pub const MAX_TIMESTAMP: u64 = 16_384;
/// Y: a snapshot lists every targets role.
pub const MAX_SNAPSHOT: u64 = 2_000_000;
/// Z: a targets role lists every bundle.
pub const MAX_TARGETS: u64 = 5_000_000;
/// How many root versions one run follows (step 5.3.3 asks for a limit).
pub const MAX_ROOT_ROTATIONS: u32 = 256;
/// How many delegated roles one search visits (step 5.6.7.1 asks for a limit).
pub const MAX_DELEGATIONS: usize = 32;

/// Why metadata was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustError {
    /// The file cannot be read as what it claims to be.
    Malformed {
        /// Role name.
        role: String,
        /// What is wrong.
        why: String,
    },
    /// Too few valid signatures by the role's keys.
    Signatures {
        /// Role name.
        role: String,
        /// How many keys signed validly.
        valid: usize,
        /// How many must.
        threshold: u64,
    },
    /// The version is not the one that its referrer names.
    Version {
        /// Role name.
        role: String,
        /// The version found.
        found: u64,
        /// The version expected.
        expected: u64,
    },
    /// Older than what was trusted before: a rollback attack, or a mirror restored from an old backup.
    Rollback {
        /// Role name.
        role: String,
        /// The version offered.
        offered: u64,
        /// The version trusted.
        trusted: u64,
    },
    /// Past its expiry: a freeze attack, a repository that is not re-signed, or a wrong clock.
    Expired {
        /// Role name.
        role: String,
        /// When it expired.
        expires: UnixTime,
        /// What time it is here.
        now: UnixTime,
    },
    /// Length or digest differ from what the referrer names.
    Content {
        /// Role name.
        role: String,
        /// Which, and by how much.
        why: String,
    },
    /// The snapshot does not list this role, or no longer.
    NotListed {
        /// Role name.
        role: String,
    },
    /// The caller fed a role before the one it depends on: a fault in this program, never an attack.
    Order {
        /// Role name.
        role: String,
    },
}

impl TrustError {
    /// Whether only length or digest are wrong (exit code 2), not signature, version or expiry (exit code 3).
    pub fn is_integrity(&self) -> bool {
        matches!(self, TrustError::Content { .. })
    }

    fn malformed(role: &str, why: impl fmt::Display) -> Self {
        TrustError::Malformed { role: role.to_owned(), why: why.to_string() }
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrustError::Malformed { role, why } => write!(f, "{role}.json is malformed: {why}"),
            TrustError::Signatures { role, valid, threshold } => {
                write!(
                    f,
                    "{role}.json has {valid} valid signatures by the keys of its role, and needs {threshold}"
                )
            }
            TrustError::Version { role, found, expected } => {
                write!(f, "{role}.json is version {found}, but version {expected} was announced")
            }
            TrustError::Rollback { role, offered, trusted } => {
                write!(
                    f,
                    "{role}.json is version {offered}, older than version {trusted} which this node already trusts"
                )
            }
            TrustError::Expired { role, expires, now } => {
                write!(f, "{role}.json expired at {expires} (the time here is {now})")
            }
            TrustError::Content { role, why } => write!(f, "{role}.json is damaged: {why}"),
            TrustError::NotListed { role } => write!(f, "{role}.json is not listed in the snapshot"),
            TrustError::Order { role } => {
                write!(f, "{role}.json was given before the role that it depends on")
            }
        }
    }
}

impl std::error::Error for TrustError {}

/// What a fed timestamp changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampUpdate {
    /// It is newer: store these bytes.
    New,
    /// Same version as before: keep the old bytes, discard these (step 5.4.3.1).
    Unchanged,
}

/// What to ask the repository for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// File name below `metadata/`.
    pub file: String,
    /// Read at most this many bytes.
    pub limit: u64,
}

/// Everything that is trusted so far in one run.
#[derive(Debug)]
pub struct TrustedMetadataSet {
    now: UnixTime,
    root: Root,
    root_finished: bool,
    timestamp: Option<Timestamp>,
    timestamp_is_current: bool,
    snapshot: Option<Snapshot>,
    snapshot_is_current: bool,
    /// Each role once, and never more than [`MAX_DELEGATIONS`] or so.
    targets: Vec<Loaded>,
}

/// A targets role, verified by the delegator that stands here.
#[derive(Debug)]
struct Loaded {
    role: String,
    delegator: String,
    says: Targets,
}

/// Who delegates to the top-level targets role.
const ROOT: &str = "root";
/// The top-level targets role.
const TARGETS: &str = "targets";

impl TrustedMetadataSet {
    /// Begins with the trusted root that the node was given or has stored (step 5.2). Its expiry does not matter yet.
    ///
    /// # Errors
    /// If it is not a root signed by its own threshold. (Off-spec: the specification trusts it as it is; we check, so
    /// that a damaged file is found before anything is asked of the network.)
    pub fn new(root: &[u8], now: UnixTime) -> Result<Self, TrustError> {
        let (root, envelope) = parse_root(root)?;
        verify(RoleKind::Root.as_str(), &root.root, &envelope)?;
        Ok(TrustedMetadataSet {
            now,
            root,
            root_finished: false,
            timestamp: None,
            timestamp_is_current: false,
            snapshot: None,
            snapshot_is_current: false,
            targets: Vec::new(),
        })
    }

    /// The trusted root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The file that the next root would have (step 5.3.3).
    pub fn wanted_root(&self) -> Wanted {
        Wanted { file: format!("{}.root.json", self.root.header.version + 1), limit: MAX_ROOT }
    }

    /// Takes the next root of the chain (steps 5.3.4 to 5.3.8). Store it at once, under its version.
    ///
    /// # Errors
    /// Unless it is version N+1 and signed by the thresholds of both root N and itself.
    pub fn update_root(&mut self, bytes: &[u8]) -> Result<(), TrustError> {
        if self.root_finished {
            return Err(TrustError::Order { role: ROOT.into() });
        }
        let (new, envelope) = parse_root(bytes)?;
        // 5.3.4: signed by the threshold of the trusted root's keys and by its own.
        verify(ROOT, &self.root.root, &envelope)?;
        verify(ROOT, &new.root, &envelope)?;
        // 5.3.5: exactly the next version.
        let expected = self.root.header.version + 1;
        if new.header.version != expected {
            return Err(TrustError::Version { role: ROOT.into(), found: new.header.version, expected });
        }
        // 5.3.6: its expiry does not matter while the chain goes on. 5.3.7: it is trusted now.
        self.root = new;
        Ok(())
    }

    /// Ends the root chain: now the last root's expiry counts (step 5.3.10).
    ///
    /// # Errors
    /// If it has expired.
    pub fn finish_root(&mut self) -> Result<(), TrustError> {
        self.unexpired(ROOT, &self.root.header)?;
        // 5.3.11, key rotation: instead of deleting local timestamp and snapshot here, they are verified with the
        // current root each time they are loaded, which survives an interruption at any point.
        self.root_finished = true;
        Ok(())
    }

    /// Takes the stored timestamp as the floor for versions. What does not verify with the current root counts as
    /// absent; that it has expired does not matter here (step 5.4.3 compares with it).
    pub fn local_timestamp(&mut self, bytes: &[u8]) {
        if self.root_finished
            && let Ok((timestamp, _)) = self.read_top(RoleKind::Timestamp, bytes, read_timestamp)
        {
            // Off-spec, and stricter: a clock that lags behind what this repository has signed is wrong.
            self.now = self.now.max(timestamp.issued.unwrap_or(self.now));
            self.timestamp = Some(timestamp);
        }
    }

    /// timestamp.json, which never has a version in its name (step 5.4.1).
    pub fn wanted_timestamp(&self) -> Wanted {
        Wanted { file: "timestamp.json".into(), limit: MAX_TIMESTAMP }
    }

    /// Takes the repository's timestamp (steps 5.4.2 to 5.4.5).
    ///
    /// # Errors
    /// If it is not signed by the threshold, older than the local one, names an older snapshot, or has expired.
    pub fn update_timestamp(&mut self, bytes: &[u8]) -> Result<TimestampUpdate, TrustError> {
        let role = RoleKind::Timestamp.as_str();
        if !self.root_finished || self.snapshot.is_some() {
            return Err(TrustError::Order { role: role.into() });
        }
        // 5.4.2
        let (new, _) = self.read_top(RoleKind::Timestamp, bytes, read_timestamp)?;
        if let Some(old) = &self.timestamp {
            // 5.4.3.1
            rollback(role, new.header.version, old.header.version)?;
            if new.header.version == old.header.version {
                // Off-spec: the text ends the cycle here without an error. A client that was interrupted after storing
                // this timestamp would then never get the snapshot that it names; so keep the old one and go on.
                self.unexpired(role, &old.header)?;
                self.timestamp_is_current = true;
                return Ok(TimestampUpdate::Unchanged);
            }
            // 5.4.3.2
            rollback("snapshot", new.snapshot.version, old.snapshot.version)?;
        }
        // 5.4.4
        self.unexpired(role, &new.header)?;
        self.timestamp = Some(new);
        self.timestamp_is_current = true;
        Ok(TimestampUpdate::New)
    }

    /// When the repository signed its timestamp, if it says so: the true time cannot be earlier.
    pub fn issued(&self) -> Option<UnixTime> {
        self.timestamp.as_ref().filter(|_| self.timestamp_is_current).and_then(|t| t.issued)
    }

    /// When the first of the files that are current here expires.
    pub fn expires(&self) -> UnixTime {
        let roles = self.targets.iter().map(|loaded| loaded.says.header.expires);
        let snapshot = self.snapshot.iter().map(|s| s.header.expires);
        let timestamp = self.timestamp.iter().map(|t| t.header.expires);
        roles.chain(snapshot).chain(timestamp).fold(self.root.header.expires, UnixTime::min)
    }

    /// Takes the stored snapshot as the floor for versions; what does not verify counts as absent. True if it is the
    /// current one, so that nothing needs to be fetched.
    pub fn local_snapshot(&mut self, bytes: &[u8]) -> bool {
        let Some(timestamp) = self.timestamp.as_ref().filter(|_| self.timestamp_is_current) else {
            return false;
        };
        let wanted = timestamp.snapshot.clone();
        let Ok((snapshot, _)) = self.read_top(RoleKind::Snapshot, bytes, read_snapshot) else {
            return false;
        };
        self.snapshot_is_current = snapshot.header.version == wanted.version
            && content("snapshot", &wanted, bytes).is_ok()
            && self.unexpired("snapshot", &snapshot.header).is_ok();
        self.snapshot = Some(snapshot);
        self.snapshot_is_current
    }

    /// The snapshot that the timestamp names (step 5.5.1).
    ///
    /// # Errors
    /// Before there is a current timestamp.
    pub fn wanted_snapshot(&self) -> Result<Wanted, TrustError> {
        let timestamp = self.timestamp.as_ref().filter(|_| self.timestamp_is_current);
        let meta = &timestamp.ok_or(TrustError::Order { role: "snapshot".into() })?.snapshot;
        Ok(self.wanted("snapshot", meta, MAX_SNAPSHOT))
    }

    /// Takes the snapshot that the timestamp names (steps 5.5.2 to 5.5.7).
    ///
    /// # Errors
    /// If it is not that one, not signed, takes back a role or a version, or has expired.
    pub fn update_snapshot(&mut self, bytes: &[u8]) -> Result<(), TrustError> {
        let role = RoleKind::Snapshot.as_str();
        let timestamp = self.timestamp.as_ref().filter(|_| self.timestamp_is_current);
        let Some(timestamp) = timestamp.filter(|_| self.targets.is_empty() && !self.snapshot_is_current)
        else {
            return Err(TrustError::Order { role: role.into() });
        };
        // 5.5.2: digest and length over the bytes as received, before anything is parsed.
        let wanted = &timestamp.snapshot;
        content(role, wanted, bytes)?;
        // 5.5.3, 5.5.4
        let (new, _) = self.read_top(RoleKind::Snapshot, bytes, read_snapshot)?;
        announced(role, &new.header, wanted)?;
        // 5.5.5: no role that was there before goes back or away.
        for (name, old) in self.snapshot.iter().flat_map(|s| &s.meta) {
            let name_of_role = name.strip_suffix(".json").unwrap_or(name);
            let new =
                new.meta.get(name).ok_or_else(|| TrustError::NotListed { role: name_of_role.into() })?;
            rollback(name_of_role, new.version, old.version)?;
        }
        // 5.5.6
        self.unexpired(role, &new.header)?;
        self.snapshot = Some(new);
        self.snapshot_is_current = true;
        Ok(())
    }

    /// The file of a targets role that the snapshot names (steps 5.6.1 and 5.6.7).
    ///
    /// # Errors
    /// Before there is a current snapshot, or if the snapshot does not list the role.
    pub fn wanted_targets(&self, role: &str) -> Result<Wanted, TrustError> {
        Ok(self.wanted(role, self.meta(role)?, MAX_TARGETS))
    }

    /// Takes a targets role, stored or fetched (steps 5.6.2 to 5.6.6): `targets` itself, or one that `delegator`
    /// delegates to.
    ///
    /// # Errors
    /// If it is not the one that the snapshot names, not signed by the keys that `delegator` gives it, or expired.
    pub fn update_targets(&mut self, role: &str, delegator: &str, bytes: &[u8]) -> Result<(), TrustError> {
        let meta = self.meta(role)?;
        // 5.6.2
        content(role, meta, bytes)?;
        // 5.6.3
        let keys = match delegator {
            ROOT if role == TARGETS => &self.root.targets,
            _ => &self.delegation(role, delegator)?.keys,
        };
        let envelope = Envelope::parse(bytes).map_err(|e| TrustError::malformed(role, e))?;
        verify(role, keys, &envelope)?;
        let new = take_targets(envelope.signed).map_err(|e| TrustError::malformed(role, e))?;
        // 5.6.4
        announced(role, &new.header, meta)?;
        // 5.6.5
        self.unexpired(role, &new.header)?;
        // Whom this role delegates to was verified by what stood here before, which may have said something else.
        self.targets.retain(|loaded| loaded.delegator != role && loaded.role != role);
        self.targets.push(Loaded { role: role.to_owned(), delegator: delegator.to_owned(), says: new });
        Ok(())
    }

    /// What a loaded role says.
    pub fn targets(&self, role: &str) -> Option<&Targets> {
        self.loaded(role).map(|loaded| &loaded.says)
    }

    fn loaded(&self, role: &str) -> Option<&Loaded> {
        self.targets.iter().find(|loaded| loaded.role == role)
    }

    /// The file below the repository's top under which a target's content is published (specification section 6.2).
    pub fn target_file(&self, path: &TargetPath, digest: Sha256) -> String {
        if self.root.consistent_snapshot {
            format!("targets/{}", path.with_digest(&digest.to_string()))
        } else {
            format!("targets/{path}")
        }
    }

    /// As [`TrustedMetadataSet::target_file`], for a path of any shape, as repositories of others have them. `None` if
    /// no digest of it is known. What comes of it is neither a safe file name nor ready for a URL.
    pub fn any_target_file(&self, path: &str, file: &TargetFile) -> Option<String> {
        let prefix = file.hashes.prefix()?;
        Some(match path.rsplit_once('/') {
            _ if !self.root.consistent_snapshot => format!("targets/{path}"),
            Some((folder, name)) => format!("targets/{folder}/{prefix}.{name}"),
            None => format!("targets/{prefix}.{path}"),
        })
    }

    /// Begins the search for one target (step 5.6.7).
    pub fn search(&self, target: &str) -> Search {
        Search {
            target: target.to_owned(),
            open: vec![(TARGETS.into(), ROOT.into())],
            visited: BTreeSet::new(),
            order: Vec::new(),
        }
    }

    fn delegation(&self, role: &str, delegator: &str) -> Result<&Delegation, TrustError> {
        let delegations =
            self.targets(delegator).map(|targets| targets.delegations.as_slice()).unwrap_or_default();
        delegations.iter().find(|d| d.role == role).ok_or_else(|| TrustError::Order { role: role.into() })
    }

    fn meta(&self, role: &str) -> Result<&MetaFile, TrustError> {
        let snapshot = self.snapshot.as_ref().filter(|_| self.snapshot_is_current);
        let snapshot = snapshot.ok_or_else(|| TrustError::Order { role: role.into() })?;
        snapshot.meta.get(&format!("{role}.json")).ok_or_else(|| TrustError::NotListed { role: role.into() })
    }

    fn wanted(&self, role: &str, meta: &MetaFile, limit: u64) -> Wanted {
        let name = crate::name::encode_role(role);
        let file = if self.root.consistent_snapshot {
            format!("{}.{name}.json", meta.version)
        } else {
            format!("{name}.json")
        };
        // Off-spec, and stricter: a length that the referrer names lowers the limit, but never raises it, so that no key
        // can make a node read without end.
        Wanted { file, limit: meta.length.unwrap_or(limit).min(limit) }
    }

    fn read_top<'a, T>(
        &self,
        kind: RoleKind,
        bytes: &'a [u8],
        read: impl Fn(&crate::json::Json<'a>) -> Result<T, crate::json::JsonError>,
    ) -> Result<(T, Envelope<'a>), TrustError> {
        let role = kind.as_str();
        let envelope = Envelope::parse(bytes).map_err(|e| TrustError::malformed(role, e))?;
        verify(role, self.root.keys_of(kind), &envelope)?;
        let value = read(&envelope.signed).map_err(|e| TrustError::malformed(role, e))?;
        Ok((value, envelope))
    }

    fn unexpired(&self, role: &str, header: &Header) -> Result<(), TrustError> {
        if header.expires > self.now {
            Ok(())
        } else {
            Err(TrustError::Expired { role: role.into(), expires: header.expires, now: self.now })
        }
    }
}

/// The next thing that a search needs.
#[derive(Debug, PartialEq, Eq)]
pub enum SearchStep<'s> {
    /// Load this role with [`TrustedMetadataSet::update_targets`], then ask again.
    Load {
        /// The role.
        role: String,
        /// The role that delegates to it.
        delegator: String,
    },
    /// The target.
    Found(&'s TargetFile),
    /// No role that may speak of this path lists it.
    NotFound,
}

/// A search for one target: depth first, in the order of the delegations, each role once, ending at a terminating
/// delegation (step 5.6.7).
#[derive(Debug)]
pub struct Search {
    target: String,
    /// Roles to look at, the next one last, each with its delegator.
    open: Vec<(String, String)>,
    visited: BTreeSet<String>,
    order: Vec<String>,
}

impl Search {
    /// Goes on until a role is missing, the target is found, or nothing is left.
    pub fn step<'s>(&mut self, set: &'s TrustedMetadataSet) -> SearchStep<'s> {
        while let Some((role, delegator)) = self.open.last() {
            if self.visited.contains(role) {
                // 5.6.7.1: a cycle, or a second way to the same role.
                self.open.pop();
                continue;
            }
            // 5.6.7.1: nor more roles than that.
            if self.visited.len() > MAX_DELEGATIONS {
                return SearchStep::NotFound;
            }
            // A role counts only as verified by the delegator through which it is reached now.
            let Some(loaded) = set.loaded(role).filter(|loaded| loaded.delegator == *delegator) else {
                return SearchStep::Load { role: role.clone(), delegator: delegator.clone() };
            };
            let targets = &loaded.says;
            let role = role.clone();
            self.open.pop();
            self.visited.insert(role.clone());
            self.order.push(role.clone());
            // 5.6.7.2
            if let Some(file) = targets.targets.get(&self.target) {
                return SearchStep::Found(file);
            }
            let mut next = Vec::new();
            for delegation in targets.delegations.iter().filter(|d| d.paths.matches(&self.target)) {
                next.push((delegation.role.clone(), role.clone()));
                if delegation.terminating {
                    // 5.6.7.2.1: nothing else is looked at, in any ancestor either.
                    self.open.clear();
                    break;
                }
            }
            self.open.extend(next.into_iter().rev());
        }
        SearchStep::NotFound
    }

    /// The roles visited so far, in order of priority.
    pub fn visited(&self) -> &[String] {
        &self.order
    }
}

fn parse_root(bytes: &[u8]) -> Result<(Root, Envelope<'_>), TrustError> {
    let envelope = Envelope::parse(bytes).map_err(|e| TrustError::malformed(ROOT, e))?;
    let root = read_root(&envelope.signed).map_err(|e| TrustError::malformed(ROOT, e))?;
    Ok((root, envelope))
}

/// Counts the role's keys that signed validly. Signatures by other keys, of unknown kinds or wrong ones do not
/// count and do no harm; one key counts once, though it may stand there under several ids (an id covers fields that
/// make no other key of it).
fn verify(role: &str, keys: &RoleKeys, envelope: &Envelope<'_>) -> Result<(), TrustError> {
    let message = envelope.message();
    let mut valid: Vec<&PublicKey> = Vec::new();
    for (id, key) in &keys.keys {
        let signed = || {
            envelope.signatures.iter().any(|(by, signature)| by == id && key.verifies(&message, signature))
        };
        if !valid.contains(&key) && signed() {
            valid.push(key);
        }
    }
    if valid.len() as u64 >= keys.threshold {
        Ok(())
    } else {
        Err(TrustError::Signatures { role: role.into(), valid: valid.len(), threshold: keys.threshold })
    }
}

fn rollback(role: &str, offered: u64, trusted: u64) -> Result<(), TrustError> {
    if offered < trusted { Err(TrustError::Rollback { role: role.into(), offered, trusted }) } else { Ok(()) }
}

fn announced(role: &str, header: &Header, meta: &MetaFile) -> Result<(), TrustError> {
    if header.version == meta.version {
        Ok(())
    } else {
        Err(TrustError::Version { role: role.into(), found: header.version, expected: meta.version })
    }
}

fn content(role: &str, meta: &MetaFile, bytes: &[u8]) -> Result<(), TrustError> {
    if let Some(length) = meta.length.filter(|length| *length != bytes.len() as u64) {
        let why = format!("it is {} bytes long, not {length}", bytes.len());
        return Err(TrustError::Content { role: role.into(), why });
    }
    let checked = meta.hashes.as_ref().map_or(Ok(()), |hashes| hashes.check(bytes));
    checked.map_err(|why| TrustError::Content { role: role.into(), why })
}
