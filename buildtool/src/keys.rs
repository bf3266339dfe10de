//! Key files: PKCS#8 and SubjectPublicKeyInfo in PEM, as openssl reads and writes them (RFC 8410), Ed25519 only; or a
//! reference to a key that another program holds ([`crate::signer`]).
//!
//! The only place where a private key is in memory. What is signed with it is decided in [`crate::editor`].

use std::fmt;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use format::digest::hex;
use format::json::Json;
use format::key::{KeyId, PublicKey, key_id};
use pkcs8::der::Encode;
use pkcs8::der::asn1::{BitStringRef, OctetStringRef};
use pkcs8::der::pem::LineEnding;
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use pkcs8::{
    Document, EncryptedPrivateKeyInfoRef, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument, pkcs5,
};

use crate::error::{AtPath, During, Error, Kind, Result};
use crate::signer::{self, Signer, Statement};

/// id-Ed25519 (RFC 8410 section 3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Rounds of PBKDF2 with SHA-256 for a passphrase: OWASP's recommendation of 2023. PBKDF2 and not scrypt, because
/// every openssl since 1.0 reads it.
const PBKDF2_ROUNDS: u32 = 600_000;

/// A key file holds some hundred bytes; more is not a key file.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// The DER of the octet string that is inside a PKCS#8 private key (RFC 8410 section 7): tag, length, seed.
const SEED_HEADER: [u8; 2] = [0x04, 32];

/// A public key with its TUF name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// The 32 bytes.
    pub bytes: [u8; 32],
    /// The TUF key id.
    pub id: KeyId,
}

impl Public {
    /// The key of these bytes.
    ///
    /// # Errors
    /// If it has no TUF form.
    pub fn new(bytes: [u8; 32]) -> Result<Self> {
        let object = serde_json::to_vec(&PublicKey::ed25519_object(&bytes)).unwrap_or_default();
        let object =
            Json::parse(&object).map_err(|e| Error::new(Kind::Data, "the key has no TUF form", e))?;
        Ok(Public { bytes, id: key_id(&object) })
    }

    /// The TUF key object.
    pub fn object(&self) -> serde_json::Value {
        PublicKey::ed25519_object(&self.bytes)
    }
}

/// For people: the first 12 digits of a key id.
pub fn short(id: &KeyId) -> &str {
    id.0.get(..12).unwrap_or(&id.0)
}

/// A key that can sign.
#[derive(Clone, Debug)]
pub enum Secret {
    /// It is in our hands.
    Local(LocalKey),
    /// Another program holds it.
    External(Signer),
}

impl Secret {
    /// Its public half.
    pub fn public(&self) -> &Public {
        match self {
            Secret::Local(key) => &key.public,
            Secret::External(signer) => signer.public(),
        }
    }

    /// The signature of a statement's message (RFC 8032, pure).
    ///
    /// # Errors
    /// If another program holds the key and does not sign.
    pub fn sign(&self, statement: &Statement<'_>) -> Result<Vec<u8>> {
        match self {
            Secret::Local(key) => Ok(key.pair.sk.sign(statement.message, None).to_vec()),
            Secret::External(signer) => signer.sign(statement),
        }
    }

    /// A new key, for tests.
    #[cfg(test)]
    pub fn generate() -> Result<Self> {
        LocalKey::generate().map(Secret::Local)
    }
}

/// A private key in memory.
#[derive(Clone)]
pub struct LocalKey {
    pair: ed25519_compact::KeyPair,
    public: Public,
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKey({})", self.public.id)
    }
}

impl LocalKey {
    fn from_seed(seed: [u8; 32]) -> Result<Self> {
        let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(seed));
        let public = Public::new(*pair.pk)?;
        Ok(LocalKey { pair, public })
    }

    /// A new key, its seed from the kernel.
    ///
    /// # Errors
    /// If the kernel gives no random bytes.
    pub fn generate() -> Result<Self> {
        LocalKey::from_seed(random()?)
    }

    /// Its public half.
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// PKCS#8 PEM, encrypted if there is a passphrase.
    fn to_pem(&self, passphrase: Option<&[u8]>) -> Result<String> {
        let failed = |e: &dyn fmt::Display| Error::new(Kind::Data, "the key cannot be encoded", e);
        let inner = [&SEED_HEADER[..], &self.pair.sk.seed()[..]].concat();
        let info = PrivateKeyInfoRef::new(algorithm(), OctetStringRef::new(&inner).map_err(|e| failed(&e))?);
        let (label, document) = match passphrase {
            None => ("PRIVATE KEY", SecretDocument::encode_msg(&info).map_err(|e| failed(&e))?),
            Some(passphrase) => {
                let salt: [u8; 16] = random()?;
                let parameters = pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(
                    PBKDF2_ROUNDS,
                    &salt,
                    random()?,
                )
                .map_err(|e| failed(&e))?;
                let document = info.encrypt_with_params(parameters, passphrase).map_err(|e| failed(&e))?;
                ("ENCRYPTED PRIVATE KEY", document)
            }
        };
        Ok(document.to_pem(label, LineEnding::LF).map_err(|e| failed(&e))?.to_string())
    }
}

/// What a key file holds.
#[derive(Debug)]
pub enum Key {
    /// What can sign.
    Secret(Secret),
    /// Only what verifies.
    Public(Public),
}

impl Key {
    /// The public half.
    pub fn public(&self) -> &Public {
        match self {
            Key::Secret(secret) => secret.public(),
            Key::Public(public) => public,
        }
    }
}

/// The passphrase in `file`: its first line.
///
/// # Errors
/// If the file cannot be read or the passphrase is empty.
pub fn read_passphrase(file: &Path) -> Result<Vec<u8>> {
    let bytes = host::file::read_limited(file, MAX_KEY_FILE)
        .during("the passphrase cannot be read")?
        .ok_or_else(|| Error::new(Kind::Config, "the passphrase cannot be read", missing(file)))?;
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Error::new(
            Kind::Config,
            "the passphrase cannot be read",
            format!("{}: its first line is empty", file.display()),
        ));
    }
    Ok(line.to_vec())
}

/// Reads a private or public key file, or a signer file.
///
/// # Errors
/// If it is none, is encrypted and `passphrase` is missing or wrong, is a private key that others may read, or a signer
/// file that others may write.
pub fn read(file: &Path, passphrase: Option<&[u8]>) -> Result<Key> {
    let refused = |why: &dyn fmt::Display| {
        Error::new(Kind::Config, "the key cannot be read", format!("{}: {why}", file.display()))
    };
    let bytes = host::file::read_limited(file, MAX_KEY_FILE)
        .during("the key cannot be read")?
        .ok_or_else(|| refused(&"there is no such file"))?;
    let text = std::str::from_utf8(&bytes).map_err(|e| refused(&e))?;
    if !text.lines().any(|line| line.starts_with("-----BEGIN ")) {
        return read_signer(file, text);
    }
    let (label, document) = SecretDocument::from_pem(text)
        .map_err(|e| refused(&format_args!("it is not a PEM key file: {e}")))?;
    if label == "PUBLIC KEY" {
        let info = document.decode_msg::<SubjectPublicKeyInfoRef<'_>>().map_err(|e| refused(&e))?;
        info.algorithm
            .assert_algorithm_oid(ED25519)
            .map_err(|_| refused(&"it is not an Ed25519 key, the only kind that nodes can verify"))?;
        let bytes = info
            .subject_public_key
            .as_bytes()
            .and_then(|b| <[u8; 32]>::try_from(b).ok())
            .ok_or_else(|| refused(&"its public key is not 32 bytes long"))?;
        return Ok(Key::Public(Public::new(bytes)?));
    }
    refuse_if(file, 0o077, "read", "chmod 600, and replace the key if it may have been seen")?;
    let decrypted;
    let plain = match label {
        "PRIVATE KEY" => &document,
        "ENCRYPTED PRIVATE KEY" => {
            let passphrase =
                passphrase.ok_or_else(|| refused(&"it is encrypted").cure("give --passphrase-file"))?;
            let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|e| refused(&e))?;
            decrypted = info.decrypt(passphrase).map_err(|_| refused(&"the passphrase does not open it"))?;
            &decrypted
        }
        _ => return Err(refused(&format_args!("it holds a {label:?}, not a key"))),
    };
    let info = PrivateKeyInfoRef::try_from(plain.as_bytes()).map_err(|e| refused(&e))?;
    info.algorithm
        .assert_algorithm_oid(ED25519)
        .map_err(|_| refused(&"it is not an Ed25519 key, the only kind that nodes can verify"))?;
    let seed = info
        .private_key
        .as_bytes()
        .strip_prefix(&SEED_HEADER[..])
        .and_then(|seed| <[u8; 32]>::try_from(seed).ok())
        .ok_or_else(|| refused(&"its private key is not 32 bytes long"))?;
    Ok(Key::Secret(Secret::Local(LocalKey::from_seed(seed)?)))
}

/// Reads what is no PEM file.
fn read_signer(file: &Path, text: &str) -> Result<Key> {
    let what = "the key cannot be read";
    let folder = folder_of(file).canonicalize().at(what, file)?;
    let signer = Signer::parse(text, file, &folder).map_err(|why| {
        Error::new(
            Kind::Config,
            what,
            format!("{}: it is neither a PEM key file nor a signer file: {why}", file.display()),
        )
    })?;
    refuse_if(file, 0o022, "write", "chmod go-w, and look whether it still says what it should")?;
    Ok(Key::Secret(Secret::External(signer)))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads the public half: of a public key file, of a private one, or of the `.pub` beside an encrypted one.
///
/// # Errors
/// Those of [`read`].
pub fn read_public(file: &Path) -> Result<Public> {
    let beside = public_file(file);
    let file = if beside.is_file() { &beside } else { file };
    let key = read(file, None).map_err(|e| e.cure("the public half is enough: give its .pub file"))?;
    Ok(key.public().clone())
}

/// Reads keys that must be able to sign, all with the same passphrase.
///
/// # Errors
/// Those of [`read`], and if a file holds only a public key.
pub fn read_secrets(files: &[PathBuf], passphrase: Option<&[u8]>) -> Result<Vec<Secret>> {
    let secret = |file: &PathBuf| match read(file, passphrase)? {
        Key::Secret(secret) => Ok(secret),
        Key::Public(_) => Err(Error::new(
            Kind::Usage,
            "nothing can be signed",
            format!("{} holds a public key", file.display()),
        )
        .cure("give the private key")),
    };
    files.iter().map(secret).collect()
}

/// Writes a new key (0600, never over a file that is there) and its public half beside it as `FILE.pub`.
///
/// # Errors
/// If one of the two exists or cannot be written.
pub fn write_new(file: &Path, key: &LocalKey, passphrase: Option<&[u8]>) -> Result<PathBuf> {
    let public = public_file(file);
    refuse_to_overwrite(&[file, &public])?;
    create(file, &key.to_pem(passphrase)?, 0o600)?;
    create(&public, &public_pem(&key.public.bytes)?, 0o644)?;
    Ok(public)
}

/// Writes a new signer file, never over a file that is there, and reads it again.
///
/// # Errors
/// If it exists or cannot be written, or if nobody could read it: then it is not written.
pub fn write_signer(file: &Path, command: &[String], public: &Public, seconds: u64) -> Result<Signer> {
    refuse_to_overwrite(&[file])?;
    let text = signer::text(command, public, seconds);
    let folder = folder_of(file).canonicalize().at("no key was made", file)?;
    let signer =
        Signer::parse(&text, file, &folder).map_err(|why| Error::new(Kind::Usage, "no key was made", why))?;
    create(file, &text, 0o644)?;
    Ok(signer)
}

fn refuse_to_overwrite(files: &[&Path]) -> Result<()> {
    match files.iter().find(|path| path.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(path) => Err(Error::new(Kind::Usage, "no key was made", format!("{} exists", path.display()))
            .cure("keys are never overwritten; choose another name")),
    }
}

fn create(path: &Path, text: &str, mode: u32) -> Result<()> {
    let what = "the key cannot be written";
    let mut out =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).at(what, path)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).at(what, path)?;
    host::file::sync_folder_of(path).during(what)
}

/// `FILE.pub`.
fn public_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn public_pem(public: &[u8; 32]) -> Result<String> {
    let failed = |e: pkcs8::der::Error| Error::new(Kind::Data, "the key cannot be encoded", e);
    let info = SubjectPublicKeyInfoRef {
        algorithm: algorithm(),
        subject_public_key: BitStringRef::from_bytes(public).map_err(failed)?,
    };
    let der = info.to_der().map_err(failed)?;
    Document::try_from(der.as_slice()).and_then(|d| d.to_pem("PUBLIC KEY", LineEnding::LF)).map_err(failed)
}

fn algorithm() -> AlgorithmIdentifierRef<'static> {
    AlgorithmIdentifierRef { oid: ED25519, parameters: None }
}

/// A private key that others may read is not private, and of a signer file that others may write they choose the
/// program. Refused and not mended: who could do it may have.
fn refuse_if(file: &Path, forbidden: u32, deed: &str, cure: &str) -> Result<()> {
    let mode = std::fs::metadata(file).at("the key cannot be read", file)?.permissions().mode();
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(Error::new(
        Kind::Config,
        "the key is refused",
        format!("{}: others may {deed} it (mode {:o})", file.display(), mode & 0o777),
    )
    .cure(cure))
}

fn missing(file: &Path) -> String {
    format!("{}: there is no such file", file.display())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(Kind::Unavailable, "the kernel gave no random bytes", e))?;
    Ok(bytes)
}

/// The public key in hexadecimal.
pub fn public_hex(public: &Public) -> String {
    hex(&public.bytes)
}
