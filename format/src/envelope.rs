//! What a node tells the centre, each document signed by the node's own key, and what the centre answers.
//!
//! A document is sent as `{"signatures": [{"keyid", "sig"}], "signed": {…}}`, as TUF's metadata is, with exactly one
//! signature, of the canonical form of `signed`. Its kinds are those of [`Document`]. Several go in one batch
//! (`POST /api/v1/reports`), and each has an answer of its own, by its id.
//!
//! Every limit stands here, because a node must keep to what the centre refuses. What the two do with a document is
//! not here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::API_VERSION;
use crate::digest::Sha256;
use crate::inventory::{Inventory, PackageId};
use crate::json::{self, Json, JsonError};
use crate::key::KeyId;
use crate::metadata;
use crate::name::{NodeId, Variant};
use crate::node_key::NodePublicKey;
use crate::report::{self, Report};
use crate::status::{self, NodeStatus};
use crate::time::UnixTime;

/// The most bytes of one envelope. An inventory of 10,000 packages, or a report that changes as many, is below it.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// The most bytes of a batch, inflated.
pub const MAX_BATCH: usize = 4 * 1024 * 1024;

/// The most documents of a batch.
pub const MAX_DOCUMENTS: usize = 500;

/// The most bytes of an answer.
pub const MAX_ANSWER: usize = 512 * 1024;

/// The most bytes of the reason of a refusal, so that an answer to a whole batch is below [`MAX_ANSWER`].
pub const MAX_REASON: usize = 512;

/// The most labels of a node, and the most bytes of a key and of a value.
pub const MAX_LABELS: usize = 100;
/// The longest key of a label, in bytes: that of a label of a policy's selector.
pub const MAX_LABEL_KEY: usize = 317;
/// The longest value of a label, in bytes.
pub const MAX_LABEL_VALUE: usize = 1024;

/// The label that says which site a node is at.
pub const SITE_LABEL: &str = "site";

/// The `kind` of an enrolment.
pub const ENROLLMENT: &str = "NodeEnrollment";

/// The `kind` of an inventory.
pub const INVENTORY: &str = "NodeInventory";

/// A document as it was sent, taken apart: nobody knows yet who wrote it.
pub struct Sealed<'a> {
    signed: Json<'a>,
    message: Vec<u8>,
    key: KeyId,
    signature: Vec<u8>,
}

/// A document that the key of its node has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What the answer calls it.
    pub id: Sha256,
    /// Which node says it.
    pub node: NodeId,
    /// What it says.
    pub document: Document,
    /// What was signed: the canonical form.
    pub message: Vec<u8>,
    /// The signature of [`Opened::message`], to be kept as evidence.
    pub signature: Vec<u8>,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// How a step ended.
    Report(Box<Report>),
    /// How the node is.
    Status(Box<SentStatus>),
    /// Who the node is, and by which key it will be known.
    Enrollment(Enrollment),
    /// Which packages it has.
    Inventory(NodeInventory),
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another key, or not this key's signature.
    Signature(String),
    /// It speaks for another node than the key's.
    OtherNode(String),
    /// It is no document that this program reads.
    Content(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Signature(why) | Refused::OtherNode(why) | Refused::Content(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refused {}

impl<'a> Sealed<'a> {
    /// Takes one envelope apart.
    ///
    /// # Errors
    /// If it is too long, not strict JSON, or has not exactly one signature.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        within(bytes.len(), MAX_DOCUMENT, "a document")?;
        Sealed::take(Json::parse(bytes)?)
    }

    /// The same for one that has been read, as part of a batch.
    ///
    /// # Errors
    /// As [`Sealed::parse`].
    pub fn take(envelope: Json<'a>) -> Result<Self, JsonError> {
        let (signed, mut signatures) = metadata::take_apart(envelope)?;
        let message = signed.canonical();
        within(message.len(), MAX_DOCUMENT, "a document")?;
        match signatures.pop() {
            Some((key, signature)) if signatures.is_empty() => Ok(Sealed { signed, message, key, signature }),
            _ => Err(JsonError("a node's document has exactly one signature".into())),
        }
    }

    /// The key that is said to have signed it: for looking up, not for believing.
    pub fn key(&self) -> &KeyId {
        &self.key
    }

    /// The node that is said to speak: for looking up, not for believing.
    ///
    /// # Errors
    /// If it says none.
    pub fn node(&self) -> Result<NodeId, Refused> {
        let name = match self.text("kind") {
            Some(status::KIND) => self.signed.member("metadata").and_then(|metadata| metadata.member("name")),
            _ => self.signed.member("node"),
        };
        match name {
            Some(Json::String(name)) => name.parse().map_err(|e| Refused::Content(format!("{e}"))),
            _ => Err(Refused::Content("it does not say which node speaks".into())),
        }
    }

    /// What an answer calls it: a report's own id; of everything else, the digest of what is signed.
    pub fn id(&self) -> Sha256 {
        let own = || -> Option<Sha256> {
            self.text("id").filter(|_| self.text("kind") == Some(report::KIND))?.parse().ok()
        };
        own().unwrap_or_else(|| Sha256::of(&self.message))
    }

    /// What it says, if `key`, which is the key of `node`, has signed it and it speaks for that node.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn open(self, node: &NodeId, key: &NodePublicKey) -> Result<Opened, Refused> {
        if self.key != key.id() {
            return Err(Refused::Signature(format!("it is signed by another key than that of {node}")));
        }
        if !key.verifies(&self.message, &self.signature) {
            return Err(Refused::Signature("its signature is not of what it says".into()));
        }
        let speaker = self.node()?;
        if speaker != *node {
            return Err(Refused::OtherNode(format!(
                "it speaks for {speaker}, and its key is that of {node}"
            )));
        }
        let document = self.document().map_err(Refused::Content)?;
        Ok(Opened {
            id: self.id(),
            node: speaker,
            document,
            message: self.message,
            signature: self.signature,
        })
    }

    /// The enrolment that this is, signed by the very key that it names: whoever sent it has the private half.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn open_enrollment(self) -> Result<(Enrollment, Opened), Refused> {
        let Document::Enrollment(enrollment) = self.document().map_err(Refused::Content)? else {
            return Err(Refused::Content(format!("it is no {ENROLLMENT}")));
        };
        let opened = self.open(&enrollment.node, &enrollment.public_key)?;
        Ok((enrollment, opened))
    }

    fn text(&self, member: &str) -> Option<&str> {
        match self.signed.member(member) {
            Some(Json::String(text)) => Some(text),
            _ => None,
        }
    }

    fn document(&self) -> Result<Document, String> {
        // Not the canonical form, in which a control character stands as it is.
        let text = self.signed.to_text();
        match self.text("kind") {
            Some(report::KIND) => {
                let report = Report::parse(&text)?;
                let id = Report::make_id(
                    &report.node,
                    report.at,
                    report.transaction.as_deref(),
                    report.step,
                    &report.message,
                );
                // Or one could take the id that another's report will have.
                if report.id != id {
                    return Err("its id is not that of its content".into());
                }
                Ok(Document::Report(Box::new(report)))
            }
            Some(status::KIND) => SentStatus::parse(&text).map(|status| Document::Status(Box::new(status))),
            Some(ENROLLMENT) => Enrollment::parse(&text).map(Document::Enrollment),
            Some(INVENTORY) => NodeInventory::parse(&text).map(Document::Inventory),
            other => Err(format!("it is of the kind {other:?}, which this program does not know")),
        }
    }
}

/// A status on its way to the centre: status.json, and when it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentStatus {
    /// As it is.
    pub status: NodeStatus,
    /// When it was sent, by the node's clock. Of two, the later one counts.
    pub sent_at: UnixTime,
    /// The digest of what was installed then: what somebody has installed by hand shows here, and not in what an install
    /// of ours has left.
    pub inventory: Option<Sha256>,
}

impl SentStatus {
    /// The document of a status file.
    ///
    /// # Errors
    /// If `status` is not a JSON object.
    pub fn write(status: &[u8], sent_at: UnixTime, inventory: Option<Sha256>) -> Result<Vec<u8>, JsonError> {
        let mut tree = Json::parse(status)?;
        tree.insert("sentAt", Json::String(sent_at.to_string().into()))?;
        if let Some(inventory) = inventory {
            tree.insert("inventory", Json::String(inventory.to_string().into()))?;
        }
        Ok(tree.to_text())
    }

    /// Reads what [`SentStatus::write`] has written.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Sent {
            sent_at: UnixTime,
            inventory: Option<Sha256>,
        }
        let status = NodeStatus::parse(bytes)?;
        check_labels(&status.metadata.labels)?;
        let sent: Sent = json::read(bytes).map_err(|e| e.to_string())?;
        Ok(SentStatus { status, sent_at: sent.sent_at, inventory: sent.inventory })
    }
}

/// A node asks to be known by its key (`POST /api/v1/enrollments`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrollment {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`ENROLLMENT`].
    pub kind: String,
    /// Who.
    pub node: NodeId,
    /// Its key, which signs this.
    pub public_key: NodePublicKey,
    /// What its bundles are built for.
    pub variant: Variant,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is: the label [`SITE_LABEL`], if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// When it was sent, by the node's clock.
    pub sent_at: UnixTime,
    /// What an operator gave for it; not needed where the key is registered already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

impl Enrollment {
    /// The enrolment of a node.
    pub fn new(
        node: NodeId,
        public_key: NodePublicKey,
        variant: Variant,
        labels: BTreeMap<String, String>,
        token: Option<Token>,
        sent_at: UnixTime,
    ) -> Self {
        let (api_version, kind) = (API_VERSION.into(), ENROLLMENT.into());
        let site = labels.get(SITE_LABEL).cloned();
        Enrollment { api_version, kind, node, public_key, variant, labels, site, sent_at, token }
    }

    /// Reads an enrolment.
    ///
    /// # Errors
    /// If it is not one, or its labels are too many, too long, or say another site.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let enrollment: Enrollment = json::read(bytes).map_err(|e| e.to_string())?;
        check_kind(&enrollment.api_version, &enrollment.kind, ENROLLMENT)?;
        check_labels(&enrollment.labels)?;
        if enrollment.site.as_ref() != enrollment.labels.get(SITE_LABEL) {
            return Err(format!("its site is not its label {SITE_LABEL:?}"));
        }
        Ok(enrollment)
    }
}

/// What an operator gives a node to enrol with: 1 to 256 printable ASCII characters without spaces. Shown nowhere.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

impl Token {
    /// The secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=256).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic()) {
            Ok(Token(text.to_owned()))
        } else {
            Err("a token is 1 to 256 printable ASCII characters without spaces")
        }
    }
}

impl TryFrom<String> for Token {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Which packages a node has, when the centre has asked for it (`PUT /api/v1/inventories/{sha256}`): known by its digest,
/// so that nodes which are alike send it once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeInventory {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`INVENTORY`].
    pub kind: String,
    /// Who has them.
    pub node: NodeId,
    /// [`Inventory::digest`] of them.
    pub inventory: Sha256,
    /// All of them.
    pub packages: Vec<InstalledPackage>,
    /// When it was sent, by the node's clock.
    pub sent_at: UnixTime,
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstalledPackage {
    /// Name.
    pub name: String,
    /// Architecture.
    pub arch: String,
    /// Version; all of them, joined by commas, where there are several.
    pub version: String,
}

impl NodeInventory {
    /// What `node` says that it has.
    pub fn new(node: NodeId, inventory: &Inventory, sent_at: UnixTime) -> Self {
        let packages = inventory.0.iter().map(|(id, version)| InstalledPackage {
            name: id.name.clone(),
            arch: id.arch.clone(),
            version: version.clone(),
        });
        NodeInventory {
            api_version: API_VERSION.into(),
            kind: INVENTORY.into(),
            node,
            inventory: inventory.digest(),
            packages: packages.collect(),
            sent_at,
        }
    }

    /// Reads an inventory.
    ///
    /// # Errors
    /// If it is not one, or its digest is that of other packages.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let inventory: NodeInventory = json::read(bytes).map_err(|e| e.to_string())?;
        check_kind(&inventory.api_version, &inventory.kind, INVENTORY)?;
        // A space or a newline would make two lists of one digest.
        let word = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic());
        if let Some(bad) =
            inventory.packages.iter().find(|p| !(word(&p.name) && word(&p.arch) && word(&p.version)))
        {
            return Err(format!("{bad:?} is no installed package"));
        }
        let found = inventory.packages();
        if found.0.len() != inventory.packages.len() {
            return Err("it names a package twice".into());
        }
        if found.digest() != inventory.inventory {
            return Err(format!("its packages are the inventory {}", found.digest()));
        }
        Ok(inventory)
    }

    /// The packages as a value that can be compared.
    pub fn packages(&self) -> Inventory {
        let packages = self.packages.iter();
        Inventory(
            packages
                .map(|p| (PackageId { name: p.name.clone(), arch: p.arch.clone() }, p.version.clone()))
                .collect(),
        )
    }
}

/// Reads a batch: its documents, each still to be taken apart ([`Sealed::take`]), so that one that is bad is refused alone.
///
/// # Errors
/// If it is longer than [`MAX_BATCH`], not strict JSON, or has no list `documents` of at most [`MAX_DOCUMENTS`].
pub fn read_batch(bytes: &[u8]) -> Result<Vec<Json<'_>>, JsonError> {
    within(bytes.len(), MAX_BATCH, "a batch")?;
    match Json::parse(bytes)?.take("documents") {
        Some(Json::Array(documents)) if documents.len() <= MAX_DOCUMENTS => Ok(documents),
        Some(Json::Array(documents)) => {
            Err(JsonError(format!("{} documents are more than {MAX_DOCUMENTS}", documents.len())))
        }
        _ => Err(JsonError("it has no list \"documents\"".into())),
    }
}

/// The batch of some envelopes.
pub fn write_batch(envelopes: &[Vec<u8>]) -> Vec<u8> {
    [br#"{"documents":["#, envelopes.join(&b',').as_slice(), b"]}"].concat()
}

/// What the centre says to a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The ids of what is stored durably, or was already.
    pub accepted: Vec<Sha256>,
    /// What will never be accepted.
    #[serde(default)]
    pub refused: Vec<Refusal>,
    /// Inventories that the centre would like to have: of those that the documents name.
    #[serde(default)]
    pub wants_inventory: Vec<Sha256>,
}

/// A document that will never be accepted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// Which.
    pub id: Sha256,
    /// Why, in at most [`MAX_REASON`] bytes.
    pub reason: String,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// If it is longer than [`MAX_ANSWER`], or something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        within(bytes.len(), MAX_ANSWER, "an answer")?;
        json::read(bytes)
    }
}

fn within(length: usize, limit: usize, what: &str) -> Result<(), JsonError> {
    if length <= limit {
        return Ok(());
    }
    Err(JsonError(format!("{what} of {length} bytes is longer than {limit}")))
}

fn check_kind(version: &str, kind: &str, expected: &str) -> Result<(), String> {
    if (version, kind) == (API_VERSION, expected) {
        return Ok(());
    }
    Err(format!("it is a {kind} of version {version}; this program reads {expected} of {API_VERSION}"))
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    if labels.len() > MAX_LABELS {
        return Err(format!("{} labels are more than {MAX_LABELS}", labels.len()));
    }
    let bad = |(key, value): &(&String, &String)| {
        key.is_empty() || key.len() > MAX_LABEL_KEY || value.len() > MAX_LABEL_VALUE
    };
    match labels.iter().find(bad) {
        Some((key, _)) => Err(format!(
            "the label {:?} has a key that is empty or longer than {MAX_LABEL_KEY} bytes, or a value longer than \
             {MAX_LABEL_VALUE}",
            key.chars().take(80).collect::<String>()
        )),
        None => Ok(()),
    }
}
