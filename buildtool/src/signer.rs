//! Signer files: keys that another program holds (an HSM, a KMS, an ssh-agent), and asking it for a signature.
//!
//! The protocol is in docs/usage/signer.md. Nothing that the program answers is believed: what it signed is verified
//! with the public key that the file pins, by the code that nodes verify with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use format::digest::{hex, unhex};
use format::key::PublicKey;
use host::dialogue::{self, NoAnswer};
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::keys::Public;

/// The version of file and protocol.
const VERSION: i64 = 1;

/// Seconds that a program has unless the file says otherwise: enough to find and touch a token.
pub const DEFAULT_SECONDS: u64 = 60;

/// The most that a file may give it: longer, and a person has forgotten it.
const MAX_SECONDS: u64 = 3600;

/// The most that a program may answer: a signature has 128 digits, an error some lines.
const MAX_ANSWER: u64 = 64 * 1024;

/// How much of an error that a program answers is shown.
const MAX_SHOWN: usize = 400;

/// What is to be signed, and what its holder should know of it.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'s> {
    /// Role name.
    pub role: &'s str,
    /// Version of the role's file.
    pub version: u64,
    /// The bytes to be signed: the canonical JSON of the file's content.
    pub message: &'s [u8],
}

impl fmt::Display for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.json version {}", self.role, self.version)
    }
}

/// A key that an external program signs with.
#[derive(Clone, Debug)]
pub struct Signer {
    file: PathBuf,
    /// The folder of the file, where the program runs and relative paths begin.
    folder: PathBuf,
    command: Vec<String>,
    time: Duration,
    public: Public,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SignerFile {
    /// Checked before the rest is looked at.
    #[serde(rename = "signer")]
    _version: i64,
    command: Vec<String>,
    public_key: String,
    #[serde(default = "default_seconds")]
    timeout_seconds: u64,
}

fn default_seconds() -> u64 {
    DEFAULT_SECONDS
}

/// What a program answers: one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    signature: Option<String>,
    error: Option<String>,
}

impl Signer {
    /// Reads the text of a signer file that stands at `file`, in the folder `folder` (an absolute path).
    ///
    /// # Errors
    /// Which rule it breaks, in words.
    pub fn parse(text: &str, file: &Path, folder: &Path) -> std::result::Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| one_line(&e))?;
        match table.get("signer").map(toml::Value::as_integer) {
            Some(Some(VERSION)) => {}
            Some(_) => return Err(format!("this program reads version {VERSION} of signer files only")),
            None => return Err(format!("it does not say signer = {VERSION}")),
        }
        let read: SignerFile = table.try_into().map_err(|e| one_line(&e))?;
        let program = read.command.first().ok_or("its command is empty")?;
        // A name alone would be looked up in PATH, and what signs would depend on who runs it.
        if !program.contains('/') {
            return Err(format!(
                "its command {program:?} is a name: give a path (a relative one begins at this file's folder)"
            ));
        }
        if read.command.iter().any(|word| word.contains('\0')) {
            return Err("its command holds a NUL byte".into());
        }
        if !(1..=MAX_SECONDS).contains(&read.timeout_seconds) {
            return Err(format!("its timeout-seconds is not from 1 to {MAX_SECONDS}"));
        }
        Ok(Signer {
            file: file.to_owned(),
            folder: folder.to_owned(),
            command: read.command,
            time: Duration::from_secs(read.timeout_seconds),
            public: public(&read.public_key).ok_or("its public-key is not 64 hexadecimal digits")?,
        })
    }

    /// The key that it signs with.
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// The command line.
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// Asks for the signature of a statement.
    ///
    /// # Errors
    /// If the program gives none, or one that the pinned key does not verify.
    pub fn sign(&self, statement: &Statement<'_>) -> Result<Vec<u8>> {
        let failed = |kind, why: &dyn fmt::Display| {
            Error::new(
                kind,
                format_args!("{statement} was not signed"),
                format!("{}: {why}", self.file.display()),
            )
        };
        let [program, args @ ..] = &self.command[..] else {
            return Err(failed(Kind::Config, &"its command is empty"));
        };
        // With the operator's whole environment: it is his program, and agents and KMS clients are configured by it.
        let mut command = Command::new(self.folder.join(program));
        command.args(args).current_dir(&self.folder);
        let answer =
            dialogue::ask(command, self.question(statement), MAX_ANSWER, self.time).map_err(|e| {
                let kind = if matches!(e, NoAnswer::Endless(_)) { Kind::Data } else { Kind::Unavailable };
                let error = failed(kind, &format_args!("its command {program} {e}"));
                match e {
                    NoAnswer::Start(_) => error.cure("the command begins with the path of a program"),
                    NoAnswer::Late(_) => error.cure("if a person needs longer, raise timeout-seconds"),
                    NoAnswer::Failed(_) => error.cure("what it said about that stands above"),
                    NoAnswer::Endless(_) | NoAnswer::Output(_) => error,
                }
            })?;
        let garbled = |why: &dyn fmt::Display| {
            failed(Kind::Data, &format_args!("what its command {program} answered is no answer: {why}"))
                .cure("docs/usage/signer.md says what one is")
        };
        let answer: Answer = serde_json::from_slice(&answer).map_err(|e| garbled(&e))?;
        let signature = match (answer.signature, answer.error) {
            (Some(signature), None) => signature,
            (None, Some(error)) => {
                return Err(failed(
                    Kind::Unavailable,
                    &format_args!("its command {program} says: {}", shown(&error)),
                ));
            }
            _ => return Err(garbled(&"it holds not exactly one of signature and error")),
        };
        let signature = unhex(&signature)
            .filter(|signature| signature.len() == 64)
            .ok_or_else(|| garbled(&"its signature is not 128 hexadecimal digits"))?;
        if !PublicKey::Ed25519(self.public.bytes).verifies(statement.message, &signature) {
            return Err(failed(
                Kind::Data,
                &format_args!("the signature that its command {program} gave is wrong: the pinned key {} does not verify it", self.public.id),
            )
            .cure("it must sign with that key the very bytes that it is given (Ed25519 without prehash)"));
        }
        Ok(signature)
    }

    /// What the program reads on its standard input.
    fn question(&self, statement: &Statement<'_>) -> Vec<u8> {
        let question = json!({
            "signer": VERSION,
            "role": statement.role,
            "file": statement.to_string(),
            "keyid": self.public.id,
            "publicKey": hex(&self.public.bytes),
            "scheme": "ed25519",
            "message": Base64::encode_string(statement.message),
        });
        format!("{question}\n").into_bytes()
    }
}

/// The text of a signer file.
pub fn text(command: &[String], public: &Public, seconds: u64) -> String {
    // A JSON string is a TOML basic string.
    let command: Vec<String> = command.iter().map(|word| json!(word).to_string()).collect();
    format!(
        "# prestage signer: docs/usage/signer.md\nsigner = {VERSION}\ncommand = [{}]\npublic-key = \"{}\"\ntimeout-seconds = {seconds}\n",
        command.join(", "),
        hex(&public.bytes),
    )
}

/// The key of these 64 digits.
pub fn public(digits: &str) -> Option<Public> {
    Public::new(unhex(digits)?.try_into().ok()?).ok()
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

/// Foreign text as it may stand on a terminal.
fn shown(text: &str) -> String {
    let line: String = text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}
