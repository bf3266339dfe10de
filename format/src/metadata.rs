//! The TUF roles as documents: root, timestamp, snapshot, targets (and delegated targets).
//!
//! Reading only, from the strict tree of [`crate::json`], so that unknown fields stay part of what was signed. That
//! a document can be read says nothing about whether it can be trusted: that is [`crate::trust`].
//! Field names and rules: TUF specification 1.0.34, section 4.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{Sha256, hex, sha512, unhex};
use crate::json::{Json, JsonError};
use crate::key::{KeyId, PublicKey, read_key};
use crate::time::UnixTime;

/// The four top-level roles; a delegated role is of the kind `Targets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Says which keys count.
    Root,
    /// Says what the current snapshot is; signed often.
    Timestamp,
    /// Says which versions of all targets roles belong together.
    Snapshot,
    /// Says which files exist, or delegates that.
    Targets,
}

impl RoleKind {
    /// The value of `_type`, which is also the name of the top-level role.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleKind::Root => "root",
            RoleKind::Timestamp => "timestamp",
            RoleKind::Snapshot => "snapshot",
            RoleKind::Targets => "targets",
        }
    }
}

/// A signed file, taken apart but not verified.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The part that the signatures cover.
    pub signed: Json<'a>,
    /// Key id and signature bytes, in file order. What is not hexadecimal became empty, which verifies nowhere.
    pub signatures: Vec<(KeyId, Vec<u8>)>,
    /// The file.
    bytes: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Takes a metadata file apart.
    ///
    /// # Errors
    /// If it is not strict JSON, not an envelope, or lists one key id twice in `signatures` (specification
    /// section 4.2: "Clients MUST ensure that ... a keyid ... is unique").
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let (signed, signatures) = take_apart(Json::parse(bytes)?)?;
        Ok(Envelope { signed, signatures, bytes })
    }

    /// The bytes that the signatures are of: the canonical form of `signed`.
    pub fn message(&self) -> Cow<'_, [u8]> {
        self.signed.canonical_within(self.bytes)
    }
}

/// Each signature, with the id of the key that is said to have made it.
pub(crate) type Signatures = Vec<(KeyId, Vec<u8>)>;

/// What is signed, and its signatures.
///
/// # Errors
/// If it is not an envelope, or lists one key id twice.
pub(crate) fn take_apart(tree: Json<'_>) -> Result<(Json<'_>, Signatures), JsonError> {
    let mut signatures = Vec::new();
    // Nothing is verified yet: looking each one up in a list would let a mirror cost minutes with a long one.
    let mut signers = BTreeSet::new();
    for signature in array(field(&tree, "signatures")?, "signatures")? {
        let key_id = text(field(signature, "keyid")?, "keyid")?;
        if !signers.insert(key_id) {
            return Err(JsonError(format!("the key {key_id} signs twice in one file")));
        }
        signatures.push((
            KeyId(key_id.to_owned()),
            unhex(text(field(signature, "sig")?, "sig")?).unwrap_or_default(),
        ));
    }
    let Json::Object(members) = tree else {
        return Err(JsonError("not an object".into()));
    };
    let signed = members.into_iter().find(|(key, _)| key == "signed").map(|(_, value)| value);
    Ok((signed.ok_or_else(|| missing("signed"))?, signatures))
}

/// What every role has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Counts up by one with each change; at least 1.
    pub version: u64,
    /// From this moment on the file is refused.
    pub expires: UnixTime,
}

/// The keys of a role and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleKeys {
    /// Each key once, however often it was listed.
    pub keys: Vec<(KeyId, PublicKey)>,
    /// At least 1.
    pub threshold: u64,
}

/// The root of trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Version and expiry.
    pub header: Header,
    /// Whether file names carry versions and digests.
    pub consistent_snapshot: bool,
    /// Keys of the root role itself.
    pub root: RoleKeys,
    /// Keys of timestamp.
    pub timestamp: RoleKeys,
    /// Keys of snapshot.
    pub snapshot: RoleKeys,
    /// Keys of the top-level targets.
    pub targets: RoleKeys,
}

impl Root {
    /// The keys of a top-level role.
    pub fn keys_of(&self, role: RoleKind) -> &RoleKeys {
        match role {
            RoleKind::Root => &self.root,
            RoleKind::Timestamp => &self.timestamp,
            RoleKind::Snapshot => &self.snapshot,
            RoleKind::Targets => &self.targets,
        }
    }
}

/// The digests of one file as its referrer lists them: those of the kinds that this program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// SHA-256.
    pub sha256: Option<Sha256>,
    /// SHA-512: what others write beside it or instead. Boxed, because ours never have one.
    pub sha512: Option<Box<[u8; 64]>>,
}

impl Hashes {
    /// Whether `bytes` have every digest that is listed and known.
    ///
    /// # Errors
    /// Which one differs; or that none is known, so that nothing would have been checked.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if self.sha256.is_none() && self.sha512.is_none() {
            return Err("none of its digests is of a kind that this program knows (sha256, sha512)".into());
        }
        if let Some(expected) = self.sha256 {
            let found = Sha256::of(bytes);
            if found != expected {
                return Err(format!("its sha256 is {found}, not {expected}"));
            }
        }
        if let Some(expected) = &self.sha512 {
            let found = sha512(bytes);
            if found != **expected {
                return Err(format!("its sha512 is {}, not {}", hex(&found), hex(&**expected)));
            }
        }
        Ok(())
    }

    /// One of the digests in hexadecimal, as it stands before the name of a target file in a repository with consistent
    /// snapshots: such a repository has a copy for each that it lists (specification section 6.2).
    pub fn prefix(&self) -> Option<String> {
        let sha256 = self.sha256.map(|digest| digest.to_string());
        sha256.or_else(|| self.sha512.as_ref().map(|digest| hex(&**digest)))
    }
}

/// One metadata file as its referrer describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaFile {
    /// The version that the file must have.
    pub version: u64,
    /// Its exact length in bytes, where the referrer says it.
    pub length: Option<u64>,
    /// Its digests, where the referrer lists any.
    pub hashes: Option<Hashes>,
}

/// What is current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Version and expiry.
    pub header: Header,
    /// The current snapshot.
    pub snapshot: MetaFile,
    /// When it was signed: an extra field of ours, a lower bound for the true time.
    pub issued: Option<UnixTime>,
}

/// Which versions of the targets roles belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Version and expiry.
    pub header: Header,
    /// `NAME.json` → that role's file.
    pub meta: BTreeMap<String, MetaFile>,
}

/// Which files exist, and who else may say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Version and expiry.
    pub header: Header,
    /// Target path → file.
    pub targets: BTreeMap<String, TargetFile>,
    /// In order of priority.
    pub delegations: Vec<Delegation>,
}

/// One target file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFile {
    /// Exact length in bytes.
    pub length: u64,
    /// Its digests. A target without one that is known can be listed, but never had.
    pub hashes: Hashes,
    /// Whatever the publisher added.
    pub custom: Json<'static>,
}

/// A file by length and SHA-256, which is how our own programs name content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Exact length in bytes.
    pub length: u64,
    /// The digest of its content.
    pub sha256: Sha256,
}

impl TargetFile {
    /// The file by length and SHA-256; `None` if no SHA-256 of it is listed, which is never so in our repositories.
    pub fn blob(&self) -> Option<Blob> {
        self.hashes.sha256.map(|sha256| Blob { length: self.length, sha256 })
    }

    /// Whether `bytes` are this file (specification section 5.7.2).
    ///
    /// # Errors
    /// Whether length or digest differ, and how.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 != self.length {
            return Err(format!("it is {} bytes long, not {}", bytes.len(), self.length));
        }
        self.hashes.check(bytes)
    }
}

/// One delegated role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The role's name.
    pub role: String,
    /// Its keys and threshold, as this delegator sees them.
    pub keys: RoleKeys,
    /// Which target paths it may speak of.
    pub paths: DelegatedPaths,
    /// After it nothing else is looked at for a path that it matches.
    pub terminating: bool,
}

/// Which target paths a delegation covers: exactly one of the two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DelegatedPaths {
    /// Shell patterns in which `*` and `?` never match `/`.
    Patterns(Vec<String>),
    /// Prefixes of the hexadecimal SHA-256 of the target path.
    HashPrefixes(Vec<String>),
}

impl DelegatedPaths {
    /// Whether `target` is covered.
    pub fn matches(&self, target: &str) -> bool {
        match self {
            DelegatedPaths::Patterns(patterns) => patterns.iter().any(|p| matches_pattern(p, target)),
            DelegatedPaths::HashPrefixes(prefixes) => {
                let digest = Sha256::of(target.as_bytes()).to_string();
                prefixes.iter().any(|p| digest.starts_with(p.as_str()))
            }
        }
    }
}

/// Component by component: as many components on both sides, each a glob of `*` and `?`.
fn matches_pattern(pattern: &str, target: &str) -> bool {
    let (mut patterns, mut components) = (pattern.split('/'), target.split('/'));
    loop {
        match (patterns.next(), components.next()) {
            (None, None) => return true,
            (Some(p), Some(c)) if matches_glob(p.as_bytes(), c.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// `*` is any run of bytes, `?` one character. Remembers only the last `*`, so that a hostile pattern costs at most
/// the product of the two lengths.
fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(b'?') => {
                // One character, not one byte.
                t += 1;
                while text.get(t).is_some_and(|b| b & 0xC0 == 0x80) {
                    t += 1;
                }
                p += 1;
            }
            Some(c) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The specification's major version that this client speaks.
const SPEC_MAJOR: &str = "1";

/// Checks `_type` and `spec_version` and reads version and expiry (specification section 4.3 to 4.6).
pub(crate) fn read_header(signed: &Json<'_>, kind: RoleKind) -> Result<Header, JsonError> {
    let found = text(field(signed, "_type")?, "_type")?;
    if found != kind.as_str() {
        return Err(JsonError(format!("its _type is {found:?}, not {:?}", kind.as_str())));
    }
    let spec = text(field(signed, "spec_version")?, "spec_version")?;
    if spec.split('.').next() != Some(SPEC_MAJOR) {
        return Err(JsonError(format!(
            "it follows version {spec:?} of the specification; this program knows {SPEC_MAJOR}.x"
        )));
    }
    let expires = text(field(signed, "expires")?, "expires")?.parse().map_err(JsonError)?;
    Ok(Header { version: read_version(signed)?, expires })
}

/// A version: one that has a next one, so that a signed version at the end of the numbers is refused here and overflows
/// nowhere.
fn read_version(of: &Json<'_>) -> Result<u64, JsonError> {
    match positive(field(of, "version")?, "version")? {
        u64::MAX => Err(wrong("version", "below 2^64-1")),
        version => Ok(version),
    }
}

/// Reads the root role from what signatures cover, without judging them.
///
/// # Errors
/// If it is not a root.
pub fn read_root(signed: &Json<'_>) -> Result<Root, JsonError> {
    let header = read_header(signed, RoleKind::Root)?;
    let keys = read_keys(field(signed, "keys")?)?;
    let roles = field(signed, "roles")?;
    let role = |name: &str| read_role_keys(field(roles, name)?, &keys);
    Ok(Root {
        header,
        consistent_snapshot: match signed.member("consistent_snapshot") {
            None => false,
            Some(Json::Bool(value)) => *value,
            Some(_) => return Err(wrong("consistent_snapshot", "true or false")),
        },
        root: role("root")?,
        timestamp: role("timestamp")?,
        snapshot: role("snapshot")?,
        targets: role("targets")?,
    })
}

/// Reads the timestamp role.
pub(crate) fn read_timestamp(signed: &Json<'_>) -> Result<Timestamp, JsonError> {
    let header = read_header(signed, RoleKind::Timestamp)?;
    let snapshot = read_meta_file(field(field(signed, "meta")?, "snapshot.json")?)?;
    // A value of another kind is somebody else's field of the same name, not an error.
    let issued = match signed.member("issued") {
        Some(Json::String(value)) => value.parse().ok(),
        _ => None,
    };
    Ok(Timestamp { header, snapshot, issued })
}

/// Reads the snapshot role.
pub(crate) fn read_snapshot(signed: &Json<'_>) -> Result<Snapshot, JsonError> {
    let header = read_header(signed, RoleKind::Snapshot)?;
    let meta = object(field(signed, "meta")?, "meta")?;
    let meta = meta
        .iter()
        .map(|(name, file)| Ok((name.to_string(), read_meta_file(file)?)))
        .collect::<Result<_, JsonError>>()?;
    Ok(Snapshot { header, meta })
}

/// Reads a targets role, top-level or delegated, from what signatures cover, without judging them.
///
/// # Errors
/// If it is not one.
pub fn read_targets(signed: &Json<'_>) -> Result<Targets, JsonError> {
    take_targets(signed.clone())
}

/// As [`read_targets`], giving back the memory of the tree on the way: a role may list thousands of files.
pub(crate) fn take_targets(mut signed: Json<'_>) -> Result<Targets, JsonError> {
    let header = read_header(&signed, RoleKind::Targets)?;
    let files = match signed.take("targets") {
        Some(Json::Object(files)) => files,
        Some(_) => return Err(wrong("targets", "an object")),
        None => return Err(missing("targets")),
    };
    let mut targets = Vec::with_capacity(files.len());
    for (path, file) in files {
        let file = read_target_file(&file).map_err(|e| JsonError(format!("target {path:?}: {e}")))?;
        targets.push((path.into_owned(), file));
    }
    let targets = targets.into_iter().collect();
    let delegations = match signed.member("delegations") {
        None => Vec::new(),
        Some(delegations) => {
            let keys = read_keys(field(delegations, "keys")?)?;
            let roles = array(field(delegations, "roles")?, "roles")?;
            read_delegations(roles, &keys)?
        }
    };
    Ok(Targets { header, targets, delegations })
}

fn read_target_file(file: &Json<'_>) -> Result<TargetFile, JsonError> {
    Ok(TargetFile {
        length: unsigned(field(file, "length")?, "length")?,
        hashes: read_hashes(field(file, "hashes")?)?,
        custom: file.member("custom").map_or(Json::Null, |custom| custom.clone().into_owned()),
    })
}

fn read_meta_file(file: &Json<'_>) -> Result<MetaFile, JsonError> {
    Ok(MetaFile {
        version: read_version(file)?,
        length: file.member("length").map(|length| unsigned(length, "length")).transpose()?,
        hashes: file.member("hashes").map(read_hashes).transpose()?,
    })
}

/// Reads a table of digests; other algorithms are left alone.
fn read_hashes(hashes: &Json<'_>) -> Result<Hashes, JsonError> {
    object(hashes, "hashes")?;
    let sha256 = hashes.member("sha256").map(|value| text(value, "sha256")?.parse().map_err(JsonError));
    let sha512 = hashes.member("sha512").map(|value| {
        let bytes = unhex(text(value, "sha512")?).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Box::new).ok_or_else(|| wrong("sha512", "128 lower-case hexadecimal digits"))
    });
    Ok(Hashes { sha256: sha256.transpose()?, sha512: sha512.transpose()? })
}

type Keys = BTreeMap<KeyId, PublicKey>;

/// Reads a table of keys; the id under which each stands must be the one computed from it (specification
/// section 4.2: clients must verify it).
fn read_keys(keys: &Json<'_>) -> Result<Keys, JsonError> {
    let mut out = Keys::new();
    for (claimed, key) in object(keys, "keys")? {
        let (id, key) = read_key(key)?;
        if id.0 != *claimed {
            return Err(JsonError(format!("the key listed as {claimed:?} really has the id {id}")));
        }
        out.insert(id, key);
    }
    Ok(out)
}

fn read_role_keys(role: &Json<'_>, keys: &Keys) -> Result<RoleKeys, JsonError> {
    let mut found: Vec<(KeyId, PublicKey)> = Vec::new();
    for id in array(field(role, "keyids")?, "keyids")? {
        let id = KeyId(text(id, "keyids")?.to_owned());
        // An id without a key can sign nothing; an id listed twice counts once.
        if let Some(key) = keys.get(&id)
            && !found.iter().any(|(known, _)| *known == id)
        {
            found.push((id, key.clone()));
        }
    }
    Ok(RoleKeys { keys: found, threshold: positive(field(role, "threshold")?, "threshold")? })
}

/// Reads delegations in their order.
///
/// Off-spec, and stricter: a name may stand there once, so that it is clear which keys count, and a delegated role is
/// never called as a top-level role is, because both would be the same file.
fn read_delegations(roles: &[Json<'_>], keys: &Keys) -> Result<Vec<Delegation>, JsonError> {
    let mut out: Vec<Delegation> = Vec::with_capacity(roles.len());
    let mut names = BTreeSet::from(["root", "timestamp", "snapshot", "targets"].map(str::to_owned));
    for role in roles {
        let delegation = read_delegation(role, keys)?;
        if !names.insert(delegation.role.clone()) {
            return Err(JsonError(format!(
                "it delegates to {:?} twice, or that is a top-level role",
                delegation.role
            )));
        }
        out.push(delegation);
    }
    Ok(out)
}

fn read_delegation(role: &Json<'_>, keys: &Keys) -> Result<Delegation, JsonError> {
    let strings = |list: &Json<'_>, name: &str| -> Result<Vec<String>, JsonError> {
        array(list, name)?.iter().map(|item| Ok(text(item, name)?.to_owned())).collect()
    };
    let paths = match (role.member("paths"), role.member("path_hash_prefixes")) {
        (Some(patterns), None) => DelegatedPaths::Patterns(strings(patterns, "paths")?),
        (None, Some(prefixes)) => DelegatedPaths::HashPrefixes(strings(prefixes, "path_hash_prefixes")?),
        _ => {
            return Err(JsonError("a delegation has exactly one of paths and path_hash_prefixes".into()));
        }
    };
    Ok(Delegation {
        role: text(field(role, "name")?, "name")?.to_owned(),
        keys: read_role_keys(role, keys)?,
        paths,
        terminating: match role.member("terminating") {
            // The specification's own example leaves it out.
            None => false,
            Some(Json::Bool(value)) => *value,
            Some(_) => return Err(wrong("terminating", "true or false")),
        },
    })
}

fn field<'j, 'a>(object: &'j Json<'a>, name: &str) -> Result<&'j Json<'a>, JsonError> {
    object.member(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> JsonError {
    JsonError(format!("it has no {name:?}"))
}

fn wrong(name: &str, expected: &str) -> JsonError {
    JsonError(format!("its {name:?} is not {expected}"))
}

fn text<'j>(value: &'j Json<'_>, name: &str) -> Result<&'j str, JsonError> {
    match value {
        Json::String(s) => Ok(s),
        _ => Err(wrong(name, "a string")),
    }
}

fn array<'j, 'a>(value: &'j Json<'a>, name: &str) -> Result<&'j [Json<'a>], JsonError> {
    match value {
        Json::Array(items) => Ok(items),
        _ => Err(wrong(name, "an array")),
    }
}

fn object<'j, 'a>(value: &'j Json<'a>, name: &str) -> Result<&'j [(Cow<'a, str>, Json<'a>)], JsonError> {
    match value {
        Json::Object(members) => Ok(members),
        _ => Err(wrong(name, "an object")),
    }
}

fn unsigned(value: &Json<'_>, name: &str) -> Result<u64, JsonError> {
    match value {
        Json::Integer(n) => u64::try_from(*n).map_err(|_| wrong(name, "a number from 0 to 2^64-1")),
        Json::Large(n) => Ok(*n),
        _ => Err(wrong(name, "an integer")),
    }
}

fn positive(value: &Json<'_>, name: &str) -> Result<u64, JsonError> {
    match unsigned(value, name)? {
        0 => Err(wrong(name, "at least 1")),
        n => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_never_crosses_a_slash() {
        for (pattern, target, expected) in [
            ("bundles/*/*/*", "bundles/debian-12-amd64/1/index.json", true),
            ("bundles/*", "bundles/debian-12-amd64/1/index.json", false),
            ("*", "a/b", false),
            ("*.json", "x.json", true),
            ("?.json", "xy.json", false),
            ("?.json", "ü.json", true),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "a--c--b", false),
            ("A", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(matches_pattern(pattern, target), expected, "{pattern} {target}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        assert!(!matches_glob("*a".repeat(2000).as_bytes(), "a".repeat(1999).as_bytes()));
    }

    #[test]
    fn a_version_without_a_next_one_is_refused() {
        let header = |version: u64| {
            let text = format!(
                r#"{{"_type":"root","spec_version":"1.0","version":{version},"expires":"2026-11-23T05:29:13Z"}}"#
            );
            read_header(&Json::parse(text.as_bytes()).unwrap(), RoleKind::Root).map(|header| header.version)
        };
        assert_eq!(header(u64::MAX - 1), Ok(u64::MAX - 1));
        assert!(header(u64::MAX).is_err());
        assert!(header(0).is_err());
    }

    #[test]
    fn as_many_signatures_as_fit_into_a_file_are_read_soon() {
        // 5 MB, the largest file that is read: minutes, if each were compared with all before it.
        let signatures: Vec<String> =
            (0..170_000).map(|n| format!(r#"{{"keyid":"{n:06}","sig":""}}"#)).collect();
        let file = format!(r#"{{"signed":{{}},"signatures":[{}]}}"#, signatures.join(","));
        assert_eq!(Envelope::parse(file.as_bytes()).unwrap().signatures.len(), 170_000);
    }

    #[test]
    fn a_key_id_listed_twice_in_signatures_makes_the_file_invalid() {
        let file = br#"{"signed":{},"signatures":[{"keyid":"a","sig":"00"},{"keyid":"a","sig":"01"}]}"#;
        assert!(Envelope::parse(file).is_err());
    }
}
