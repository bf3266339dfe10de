//! What a policy may say, as tables: the reader takes the keys that it knows from here, and the schema for Kubernetes
//! (`prestage-build policy crd`) is made of them, so that neither knows a key that the other does not.

/// One key of an object.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub key: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What its value is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub enum Kind {
    /// Text that matches this regular expression (RE2 and ECMA 262, whole), of at most so many bytes. The reader's own rule
    /// may be narrower.
    Text(&'static str, usize),
    /// One of these words.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Truth,
    /// A whole number, from and to.
    Number(u32, u32),
    /// A number of nodes from 1 to this, or a share of them such as `10%`.
    Amount(u32),
    /// One window, or a list of them.
    Windows,
    /// A map of labels.
    Labels,
    /// A list.
    List(&'static Kind),
    /// An object.
    Object(&'static [Field]),
}

const fn must(key: &'static str, kind: Kind) -> Field {
    Field { key, required: true, kind }
}

const fn may(key: &'static str, kind: Kind) -> Field {
    Field { key, required: false, kind }
}

/// The most nodes of a batch.
pub(crate) const MAX_NODES: u32 = 1_000_000;

/// The longest pause between batches: four weeks.
pub(crate) const MAX_DELAY_MINUTES: u32 = 4 * 7 * 24 * 60;

/// The longest wait for health: an hour; a window has not much more.
pub(crate) const MAX_TIMEOUT_SECONDS: u32 = 3600;

const VERSION: Kind = Kind::Text("^[0-9A-Za-z][0-9A-Za-z._+~-]*$", 255);
const CHECKSUM: Kind = Kind::Text("^sha256:[0-9a-f]{6,64}(\\.\\.\\.)?$", 74);
const ZONE: Kind = Kind::Text("^[A-Za-z][0-9A-Za-z_+-]*(/[A-Za-z][0-9A-Za-z_+-]*)*$", 64);
const LABEL_KEY: Kind = Kind::Text("^([a-z0-9.-]+/)?[0-9A-Za-z]([0-9A-Za-z_.-]*[0-9A-Za-z])?$", 317);
const LABEL_VALUE: Kind = Kind::Text("^([0-9A-Za-z]([0-9A-Za-z_.-]*[0-9A-Za-z])?)?$", 63);
const URL: Kind = Kind::Text("^https?://[!-~]+$", 2048);
const RATE: Kind = Kind::Text("^(unlimited|[0-9].*)$", 32);
const SHARE: Kind = Kind::Text("^(100|[0-9]{1,2})%$", 4);
const TIME: Kind = Kind::Text("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$", 20);

/// `metadata`, of which Kubernetes has more.
pub(crate) const METADATA: &[Field] = &[
    may("namespace", Kind::Text("^[0-9a-z]([0-9a-z-]*[0-9a-z])?$", 63)),
    must("name", Kind::Text("^[0-9a-z]([0-9a-z.-]*[0-9a-z])?$", 253)),
];

/// `spec`.
pub const SPEC: &[Field] = &[
    must("bundleRef", Kind::Object(BUNDLE)),
    must("targets", Kind::Object(TARGETS)),
    may("schedule", Kind::Object(SCHEDULE)),
    may("rolloutStrategy", Kind::Object(ROLLOUT)),
    may("rollback", Kind::Object(ROLLBACK)),
    may("transfer", Kind::Object(TRANSFER)),
    may("reboot", Kind::Word(&["never", "if-needed", "always"])),
    may("quarantine", Kind::Object(QUARANTINE)),
    may("paused", Kind::Truth),
];

pub(crate) const BUNDLE: &[Field] = &[must("version", VERSION), may("checksum", CHECKSUM)];

pub(crate) const TARGETS: &[Field] = &[must("selector", Kind::Object(SELECTOR))];

pub(crate) const SELECTOR: &[Field] =
    &[may("matchLabels", Kind::Labels), may("matchExpressions", Kind::List(&Kind::Object(EXPRESSION)))];

pub(crate) const EXPRESSION: &[Field] = &[
    must("key", LABEL_KEY),
    must("operator", Kind::Word(&["In", "NotIn", "Exists", "DoesNotExist"])),
    may("values", Kind::List(&LABEL_VALUE)),
];

pub(crate) const SCHEDULE: &[Field] = &[must("maintenanceWindow", Kind::Windows), may("timezone", ZONE)];

pub(crate) const ROLLOUT: &[Field] = &[
    must("type", Kind::Word(&["RollingUpdate", "AllAtOnce"])),
    may("batchSize", Kind::Amount(MAX_NODES)),
    may("batchDelayMinutes", Kind::Number(0, MAX_DELAY_MINUTES)),
    may("canary", Kind::Object(SELECTOR)),
    may("failureThreshold", SHARE),
    may("maxUnavailablePerSite", Kind::Amount(MAX_NODES)),
];

pub(crate) const ROLLBACK: &[Field] = &[
    must("enabled", Kind::Truth),
    may("healthCheckUrl", URL),
    may("healthCheckTimeoutSeconds", Kind::Number(1, MAX_TIMEOUT_SECONDS)),
];

pub(crate) const TRANSFER: &[Field] =
    &[may("windows", Kind::Windows), may("timezone", ZONE), may("rate", RATE)];

pub(crate) const QUARANTINE: &[Field] = &[must("release", Kind::List(&Kind::Object(RELEASE)))];

pub(crate) const RELEASE: &[Field] = &[must("version", VERSION), must("before", TIME)];
