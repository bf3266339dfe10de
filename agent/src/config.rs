//! The configuration in three stages: as typed ([`Fragment`], one for each file) → merged → valid ([`Settings`]).
//!
//! Files, later ones winning key by key: `/usr/lib/prestage/agent.d/*.toml`, `/etc/prestage/agent.toml`,
//! `/run/prestage/agent.d/*.toml`, `/etc/prestage/agent.d/*.toml`. A drop-in hides one of the same name in an earlier
//! folder, and a link to /dev/null masks it. The shipped `packaging/config/agent.toml` is the documentation of every key.

mod fetch;
mod fleet;
mod keys;
mod safety;
mod share;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use format::name::{NodeId, Variant};
use format::rate::Rate;
use format::status::QuarantineEnd;
use format::window::Window;

use crate::error::{Error, Result};

use fetch::FetchFragment;
pub use fetch::{FetchSettings, Metered};
use fleet::FleetFragment;
pub use fleet::{FleetSettings, TOKEN_FILE};
use keys::{Keys, Table, Value};
use safety::{HealthFragment, RebootFragment, RestoreFragment};
pub use safety::{HealthSettings, RebootSettings, RestoreKind, RestoreSettings};
use share::ShareFragment;
pub use share::ShareSettings;

/// A configuration file as typed. Every key may be missing; a key that is not known is refused.
#[derive(Debug)]
struct Fragment {
    node: NodeFragment,
    repository: RepositoryFragment,
    fetch: FetchFragment,
    share: ShareFragment,
    import: ImportFragment,
    schedule: ScheduleFragment,
    install: InstallFragment,
    health: HealthFragment,
    restore: RestoreFragment,
    reboot: RebootFragment,
    report: ReportFragment,
    fleet: FleetFragment,
}

impl Fragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        Fragment {
            node: keys.section("node", NodeFragment::read),
            repository: keys.section("repository", RepositoryFragment::read),
            fetch: keys.section("fetch", FetchFragment::read),
            share: keys.section("share", ShareFragment::read),
            import: keys.section("import", ImportFragment::read),
            schedule: keys.section("schedule", ScheduleFragment::read),
            install: keys.section("install", InstallFragment::read),
            health: keys.section("health", HealthFragment::read),
            restore: keys.section("restore", RestoreFragment::read),
            reboot: keys.section("reboot", RebootFragment::read),
            report: keys.section("report", ReportFragment::read),
            fleet: keys.section("fleet", FleetFragment::read),
        }
    }
}

#[derive(Debug)]
struct NodeFragment {
    id: Option<String>,
    variant: Option<String>,
    labels: BTreeMap<String, String>,
}

impl NodeFragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        NodeFragment {
            id: keys.text("id"),
            variant: keys.text("variant"),
            labels: keys.named_texts("labels"),
        }
    }
}

#[derive(Debug)]
struct RepositoryFragment {
    mirrors: Vec<String>,
    ca_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    proxy: Option<String>,
    redirects: Vec<String>,
    credentials: Vec<CredentialFragment>,
}

impl RepositoryFragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        RepositoryFragment {
            mirrors: keys.texts("mirrors").unwrap_or_default(),
            ca_file: keys.path("ca-file"),
            client_cert: keys.path("client-cert"),
            client_key: keys.path("client-key"),
            proxy: keys.text("proxy"),
            redirects: keys.texts("redirects").unwrap_or_default(),
            credentials: keys.sections("credentials", CredentialFragment::read),
        }
    }
}

#[derive(Debug)]
struct CredentialFragment {
    mirror: String,
    bearer_file: Option<PathBuf>,
    basic_file: Option<PathBuf>,
}

impl CredentialFragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        CredentialFragment {
            mirror: keys.required("mirror"),
            bearer_file: keys.path("bearer-file"),
            basic_file: keys.path("basic-file"),
        }
    }
}

#[derive(Debug)]
struct ImportFragment {
    incoming: Option<PathBuf>,
}

impl ImportFragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        ImportFragment { incoming: keys.path("incoming") }
    }
}

#[derive(Debug)]
struct ScheduleFragment {
    maintenance_window: Option<Vec<String>>,
    timezone: Option<String>,
}

impl ScheduleFragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        ScheduleFragment {
            maintenance_window: keys.texts("maintenance-window"),
            timezone: keys.text("timezone"),
        }
    }
}

#[derive(Debug)]
struct InstallFragment {
    allow_network: Option<bool>,
    gpgcheck: Option<bool>,
    lock_timeout_seconds: Option<u64>,
    keep_packages: Option<String>,
}

impl InstallFragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        InstallFragment {
            allow_network: keys.truth("allow-network"),
            gpgcheck: keys.truth("gpgcheck"),
            lock_timeout_seconds: keys.number("lock-timeout-seconds"),
            keep_packages: keys.text("keep-packages"),
        }
    }
}

#[derive(Debug)]
struct ReportFragment {
    url: Option<String>,
}

impl ReportFragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        ReportFragment { url: keys.text("url") }
    }
}

/// The valid configuration.
#[derive(Debug)]
pub struct Settings {
    /// `[node] id`, where it is set.
    pub id: Option<NodeId>,
    /// `[node] variant`, where it is set.
    pub variant: Option<Variant>,
    /// `[node] labels`.
    pub labels: BTreeMap<String, String>,
    /// `[repository] mirrors`, in order.
    pub mirrors: Vec<Mirror>,
    /// `[repository] ca-file`: PEM certificates to trust for https instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `[repository] proxy`: an http proxy. The environment is not asked.
    pub proxy: Option<String>,
    /// `[repository] client-cert` and `client-key`: PEM files that say who asks.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// `[repository] redirects`: origins beside a mirror's own that it may send us to.
    pub redirects: Vec<String>,
    /// `[repository] credentials`: by mirror URL, ending in `/`.
    pub credentials: BTreeMap<String, Credential>,
    /// `[fetch] rate`, in bytes a second.
    pub rate: Option<u64>,
    /// `[fetch] receive-buffer`, in bytes.
    pub receive_buffer: usize,
    /// `[fetch] stall-timeout-seconds`.
    pub stall_timeout: Duration,
    /// `[fetch] quarantine`: what ends the refusal of a bundle that could not be verified.
    pub quarantine: QuarantineEnd,
    /// The rest of `[fetch]`.
    pub fetch: FetchSettings,
    /// `[share]`.
    pub share: ShareSettings,
    /// `[import] incoming`: where exports are pushed to; a path as the node sees it.
    pub incoming: PathBuf,
    /// `[schedule] maintenance-window`; none: always open.
    pub windows: Option<Vec<Window>>,
    /// `[schedule] timezone`, an IANA name; none: the system's.
    pub timezone: Option<String>,
    /// `[install] allow-network`: install even where no empty network namespace can be made.
    pub allow_network: bool,
    /// `[install] gpgcheck`: whether RPM packages must be signed by a key of the node's keyring; none: as its dnf or yum says.
    pub gpgcheck: Option<bool>,
    /// `[install] lock-timeout-seconds`: how long to wait for another package manager.
    pub lock_timeout: Duration,
    /// `[install] keep-packages`: bytes of packages that may be kept for the way back.
    pub keep_packages: u64,
    /// `[health]`.
    pub health: HealthSettings,
    /// `[restore]`.
    pub restore: RestoreSettings,
    /// `[reboot]`.
    pub reboot: RebootSettings,
    /// `[report] url`.
    pub report_url: Option<String>,
    /// `[fleet]`, where there is a server.
    pub fleet: Option<FleetSettings>,
}

/// Where a copy of the repository is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// An http or https URL, ending in `/`.
    Http(String),
    /// A folder.
    Folder(PathBuf),
}

/// Where the secret is that a mirror wants to see. The files are read when they are needed, by the user that fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token (RFC 6750).
    Bearer(PathBuf),
    /// `user:password` (RFC 7617).
    Basic(PathBuf),
}

/// What came over one connection and is not read yet is lost when the agent is killed; this bounds it. 32 KiB keep a
/// link of 5 Mbit/s and 50 ms full, and a thin one always.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// A kiosk's updates of one cycle are some 50 MiB; this is several cycles of them, and a part of the smallest disk.
const KEEP_PACKAGES: u64 = 512 * 1024 * 1024;

/// Where exports are pushed to.
const INCOMING: &str = "/var/lib/prestage/incoming";

/// The configuration file.
pub const FILE: &str = "etc/prestage/agent.toml";

/// Folders of drop-ins, in order.
const VENDOR: &str = "usr/lib/prestage/agent.d";
const RUNTIME: &str = "run/prestage/agent.d";
const LOCAL: &str = "etc/prestage/agent.d";

/// Reads the configuration of the node below `root`, or `file` alone.
///
/// # Errors
/// With exit code 78, the file, and what is wrong with it.
pub fn load(root: &Path, file: Option<&Path>) -> Result<Settings> {
    load_with(root, file, "")
}

/// The same as if one more drop-in were there, that is read last and has this text.
///
/// # Errors
/// As [`load`].
pub fn load_with(root: &Path, file: Option<&Path>, added: &str) -> Result<Settings> {
    let mut merged = Table::new();
    for fragment in fragments(root, file) {
        keys::merge(&mut merged, fragment?.1);
    }
    keys::merge(&mut merged, parse_fragment(added).map_err(Error::config)?);
    settings_of(&merged).map_err(Error::config)
}

fn settings_of(merged: &Table) -> std::result::Result<Settings, String> {
    validate(keys::read(merged, Fragment::read)?)
}

/// The files that are there, in the order in which they are merged, each with what it says or what is wrong with it.
fn fragments(root: &Path, file: Option<&Path>) -> Vec<Result<(PathBuf, Table)>> {
    let paths = match file {
        Some(file) => vec![file.to_owned()],
        None => files(root),
    };
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => match parse_fragment(&text) {
            Ok(table) => Some(Ok((path, table))),
            Err(e) => Some(Err(Error::config(format!("{}: {e}", path.display())))),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && file.is_none() => None,
        Err(e) => Some(Err(Error::config(format!("{}: {e}", path.display())))),
    };
    paths.into_iter().filter_map(read).collect()
}

/// `config check`: the files that count, in their order.
///
/// # Errors
/// Each thing that is wrong: all of the files, or what is wrong with them together.
pub fn check(root: &Path, file: Option<&Path>) -> std::result::Result<Vec<PathBuf>, Vec<Error>> {
    let (mut paths, mut errors, mut merged) = (Vec::new(), Vec::new(), Table::new());
    for fragment in fragments(root, file) {
        match fragment {
            Ok((path, table)) => {
                paths.push(path);
                keys::merge(&mut merged, table);
            }
            Err(error) => errors.push(error),
        }
    }
    match settings_of(&merged).map_err(Error::config) {
        _ if !errors.is_empty() => Err(errors),
        Err(error) => Err(vec![error]),
        Ok(_) => Ok(paths),
    }
}

/// `config show`: each key that is set, with the file that it has its value from.
///
/// # Errors
/// As [`load`].
pub fn show(root: &Path, file: Option<&Path>) -> Result<String> {
    let (mut merged, mut from) = (Table::new(), BTreeMap::new());
    for fragment in fragments(root, file) {
        let (path, table) = fragment?;
        let mut values = Vec::new();
        leaves("", &table, &mut values);
        for (key, value) in values {
            from.insert(key, (typed(value), path.clone()));
        }
        keys::merge(&mut merged, table);
    }
    settings_of(&merged).map_err(Error::config)?;
    let line = |(key, (value, path)): (&String, &(String, PathBuf))| {
        format!("{key} = {value}  # {}\n", path.display())
    };
    Ok(from.iter().map(line).collect())
}

/// The values of a table by their dotted keys, below `prefix`.
fn leaves<'t>(prefix: &str, table: &'t Table, into: &mut Vec<(String, &'t Value)>) {
    for (key, typed) in table {
        match &typed.value {
            Value::Table(table) => leaves(&format!("{prefix}{key}."), table, into),
            value => into.push((format!("{prefix}{key}"), value)),
        }
    }
}

/// A value as it is typed. A password in a URL is not shown.
fn typed(value: &Value) -> String {
    match value {
        // JSON's strings are TOML's basic strings.
        Value::String(text) => serde_json::to_string(&without_password(text)).unwrap_or_default(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(|item| typed(&item.value)).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key} = {}", typed(&value.value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Integer(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Other(text) => text.clone(),
    }
}

fn without_password(text: &str) -> String {
    let hidden = || {
        let (scheme, rest) = text.split_once("://")?;
        let (secret, host) = rest.split('/').next()?.rsplit_once('@')?;
        let (user, _) = secret.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}{}", &rest[secret.len() + 1 + host.len()..]))
    };
    hidden().unwrap_or_else(|| text.to_owned())
}

/// The same for files that are in memory.
#[cfg(any(fuzzing, test))]
pub fn from_texts(texts: &[&str]) -> std::result::Result<Settings, String> {
    let mut merged = Table::new();
    for text in texts {
        keys::merge(&mut merged, parse_fragment(text)?);
    }
    settings_of(&merged)
}

/// The files in the order in which they are merged.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut drop_ins: BTreeMap<String, (usize, PathBuf)> = BTreeMap::new();
    for (rank, folder) in [VENDOR, RUNTIME, LOCAL].into_iter().enumerate() {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".toml") && !name.starts_with('.') {
                drop_ins.insert(name, (rank, entry.path()));
            }
        }
    }
    let masked =
        |path: &PathBuf| std::fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"));
    let of = |ranks: std::ops::RangeInclusive<usize>| {
        let chosen = drop_ins.values().filter(move |(rank, path)| ranks.contains(rank) && !masked(path));
        chosen.map(|(_, path)| path.clone()).collect::<Vec<_>>()
    };
    [of(0..=0), vec![root.join(FILE)], of(1..=2)].concat()
}

/// Parses one file, so that what is wrong in it is found with its line in this file.
fn parse_fragment(text: &str) -> std::result::Result<Table, String> {
    let table = keys::parse(text)?;
    keys::read(&table, Fragment::read)?;
    Ok(table)
}

fn validate(fragment: Fragment) -> std::result::Result<Settings, String> {
    let Fragment {
        node,
        repository,
        fetch,
        share,
        import,
        schedule,
        install,
        health,
        restore,
        reboot,
        report,
        fleet,
    } = fragment;
    let windows = schedule
        .maintenance_window
        .map(|list| list.iter().map(|w| w.parse::<Window>()).collect::<std::result::Result<Vec<_>, _>>());
    if let Some(zone) = &schedule.timezone {
        host::zone::Zone::named(zone).map_err(|e| format!("[schedule] timezone: {e}"))?;
    }
    if let Some(url) = report.url.as_ref().filter(|url| !is_http(url)) {
        return Err(format!("[report] url: {url:?} is not an http or https URL"));
    }
    let fleet = fleet.validate()?;
    if fleet.is_some() && report.url.is_some() {
        return Err("[report] url and [fleet] url are two places for one thing; keep one of them".into());
    }
    let mut mirrors = Vec::new();
    for mirror in &repository.mirrors {
        mirrors.push(parse_mirror(mirror)?);
    }
    let mut redirects = Vec::new();
    for url in &repository.redirects {
        redirects.push(
            crate::fetch::origin(url)
                .ok_or_else(|| format!("[repository] redirects: {url:?} is not an http or https origin"))?,
        );
    }
    let mut credentials = BTreeMap::new();
    for CredentialFragment { mirror, bearer_file, basic_file } in repository.credentials {
        let credential = match (bearer_file, basic_file) {
            (Some(file), None) => Credential::Bearer(file),
            (None, Some(file)) => Credential::Basic(file),
            _ => return Err(format!("[repository] credentials: {mirror}: either bearer-file or basic-file")),
        };
        let Mirror::Http(url) = parse_mirror(&mirror)? else {
            return Err(format!("[repository] credentials: {mirror:?} is not an http or https URL"));
        };
        if !mirrors.contains(&Mirror::Http(url.clone())) {
            return Err(format!("[repository] credentials: {mirror} is not one of the mirrors"));
        }
        credentials.insert(url, credential);
    }
    let client_cert = match (repository.client_cert, repository.client_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => return Err("[repository] client-cert and client-key belong together".into()),
    };
    Ok(Settings {
        id: node.id.map(|id| id.parse()).transpose().map_err(|e| format!("[node] id: {e}"))?,
        variant: node.variant.map(|v| v.parse()).transpose().map_err(|e| format!("[node] variant: {e}"))?,
        labels: node.labels,
        mirrors,
        ca_file: repository.ca_file,
        client_cert,
        proxy: repository.proxy,
        redirects,
        credentials,
        rate: fetch
            .rate
            .as_deref()
            .map(str::parse::<Rate>)
            .transpose()
            .map_err(|e| format!("[fetch] rate: {e}"))?
            .and_then(Rate::bytes_per_second),
        receive_buffer: match fetch
            .receive_buffer
            .as_deref()
            .map(parse_size)
            .transpose()
            .map_err(|e| format!("[fetch] receive-buffer: {e}"))?
        {
            None => RECEIVE_BUFFER,
            Some(bytes) if (4096..=64 * 1024 * 1024).contains(&bytes) => bytes as usize,
            Some(_) => return Err("[fetch] receive-buffer: from 4KiB to 64MiB".into()),
        },
        stall_timeout: Duration::from_secs(fetch.stall_timeout_seconds.unwrap_or(60).max(1)),
        quarantine: match fetch.quarantine.as_deref() {
            None | Some("until-verified") => QuarantineEnd::Verified,
            Some("until-released") => QuarantineEnd::Released,
            Some(other) => {
                return Err(format!(
                    "[fetch] quarantine: {other:?} is neither \"until-verified\" nor \"until-released\""
                ));
            }
        },
        fetch: fetch.validate()?,
        share: share.validate()?,
        incoming: match import.incoming {
            None => INCOMING.into(),
            Some(path) if path.is_absolute() => path,
            Some(path) => return Err(format!("[import] incoming: {path:?} is not an absolute path")),
        },
        windows: windows.transpose().map_err(|e| format!("[schedule] maintenance-window: {e}"))?,
        timezone: schedule.timezone,
        allow_network: install.allow_network.unwrap_or(false),
        gpgcheck: install.gpgcheck,
        lock_timeout: Duration::from_secs(install.lock_timeout_seconds.unwrap_or(60)),
        keep_packages: match install.keep_packages.as_deref() {
            None => KEEP_PACKAGES,
            Some(text) => parse_size(text).map_err(|e| format!("[install] keep-packages: {e}"))?,
        },
        health: health.validate()?,
        restore: restore.validate()?,
        reboot: reboot.validate()?,
        report_url: report.url,
        fleet,
    })
}

fn is_http(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

fn parse_mirror(text: &str) -> std::result::Result<Mirror, String> {
    if is_http(text) {
        return Ok(Mirror::Http(format!("{}/", text.trim_end_matches('/'))));
    }
    let path = text.strip_prefix("file://").unwrap_or(text);
    if path.starts_with('/') {
        Ok(Mirror::Folder(path.into()))
    } else {
        Err(format!("[repository] mirrors: {text:?} is neither an http or https URL nor an absolute folder"))
    }
}

fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let units = [
        ("KiB", 1024u64),
        ("MiB", 1024 * 1024),
        ("GiB", 1024 * 1024 * 1024),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let size = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*factor));
    size.ok_or_else(|| format!("{text:?} is not a number with KiB, MiB, GiB, kB, MB or GB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> std::result::Result<Settings, String> {
        from_texts(&[text])
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = parse_fragment("[fetch]\nrate = \"1MB/s\"\nburst = 1\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("burst"), "{error}");
        assert!(error.contains("spread-over"), "no key is near, so all are named: {error}");
    }

    #[test]
    fn a_slip_in_a_key_is_understood() {
        for (text, meant) in [
            ("[fetch]\nratte = '1MB/s'", "`rate`"),
            ("[repositroy]\nmirrors = []", "`repository`"),
            ("[schedule]\nmaintenance_window = []", "`maintenance-window`"),
            (
                "repository.credentials = [{ mirror = 'https://m/', bearer = '/t', baerer-file = '/t' }]",
                "`bearer-file`",
            ),
        ] {
            let error = parse_fragment(text).unwrap_err();
            assert!(error.contains("did you mean") && error.contains(meant), "{error}");
        }
    }

    #[test]
    fn a_value_of_another_kind_is_refused_with_its_line_and_what_is_wanted() {
        for (text, line, what) in [
            ("[fetch]\nrate = 5", 2, "`rate` must be a text in quotes, and is a number"),
            ("\n\nfetch = 1", 3, "`fetch` must be a section, and is a number"),
            ("[install]\ngpgcheck = 'yes'", 2, "`gpgcheck` must be true or false, and is text"),
            ("[health]\n\nstatus = 70000", 3, "`status` cannot be 70000"),
            ("[health]\ntimeout-seconds = -1", 2, "`timeout-seconds` cannot be -1"),
            ("[health]\nstatus = 2.5", 2, "`status` must be a whole number, and is a fraction or a date"),
            ("[health]\nstatus = 99999999999999999999", 2, "a number beyond 2^63"),
            ("[repository]\nmirrors = 'https://m/'", 2, "`mirrors` must be a list of texts"),
            ("[repository]\nmirrors = ['https://m/', 1]", 2, "`mirrors` must be a list of texts"),
            ("[node.labels]\nsite = 7", 2, "`labels.site` must be a text in quotes, and is a number"),
            ("[fetch]\nrates = [{ window = '02:00-04:00' }]", 2, "the key `rate` is missing"),
            ("[fetch]\nrates = ['1MB/s']", 2, "`rates` must be a list of sections"),
            ("[[repository.credentials]]\nbearer-file = '/t'", 2, "the key `mirror` is missing"),
            ("[fetch]\nrate = '1MB/s'\nrate = '2MB/s'", 3, "duplicate"),
            ("[fetch\n", 1, "line 1"),
        ] {
            let error = parse_fragment(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")) && error.contains(what), "{error}");
        }
    }

    #[test]
    fn what_counts_is_shown_with_its_file_and_without_passwords() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join(LOCAL)).unwrap();
        let first = "[fetch]\nrate = '1MB/s'\n[repository]\nproxy = 'http://till:secret@proxy:3128/'\n";
        std::fs::write(root.path().join(FILE), first).unwrap();
        std::fs::write(root.path().join(LOCAL).join("a.toml"), "fetch.rate = '2MB/s'\nnode.labels.x = '1'")
            .unwrap();
        let shown = show(root.path(), None).unwrap();
        let lines: Vec<_> = shown.lines().map(|l| l.split("  # ").next().unwrap()).collect();
        let proxy = "repository.proxy = \"http://till:***@proxy:3128/\"";
        assert_eq!(lines, ["fetch.rate = \"2MB/s\"", "node.labels.x = \"1\"", proxy]);
        assert!(shown.lines().next().unwrap().ends_with("agent.d/a.toml"), "{shown}");
        std::fs::write(root.path().join(LOCAL).join("b.toml"), "fetch.rate = 1").unwrap();
        std::fs::write(root.path().join(LOCAL).join("c.toml"), "x = 1").unwrap();
        assert_eq!(check(root.path(), None).unwrap_err().len(), 2, "one wrong file hides no other");
    }

    #[test]
    fn rates_say_bits_or_bytes() {
        assert_eq!(settings("fetch.rate = '2Mbit/s'").unwrap().rate, Some(250_000));
        assert_eq!(settings("fetch.rate = '256KiB/s'").unwrap().rate, Some(262_144));
        assert_eq!(settings("fetch.rate = 'unlimited'").unwrap().rate, None);
        for bad in ["2048", "2 Mbps", "0kB/s", "-1MB/s", "99999999999999999999MB/s"] {
            assert!(settings(&format!("fetch.rate = '{bad}'")).is_err(), "{bad}");
        }
    }

    #[test]
    fn how_much_is_kept_is_said_or_512_mib() {
        assert_eq!(settings("").unwrap().keep_packages, KEEP_PACKAGES);
        assert_eq!(settings("install.keep-packages = '0MiB'").unwrap().keep_packages, 0);
    }

    #[test]
    fn later_files_win_key_by_key() {
        let settings =
            from_texts(&["[node]\nid = 'a'\nlabels = { x = '1' }", "[node]\nid = 'b'\nlabels = { y = '2' }"])
                .unwrap();
        assert_eq!(settings.id.unwrap().as_str(), "b");
        assert_eq!(settings.labels.len(), 2);
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (text, key) in [
            ("node.id = '../x'", "[node] id"),
            ("repository.mirrors = ['ftp://x']", "mirrors"),
            ("schedule.maintenance-window = ['Tuesday night']", "maintenance-window"),
            ("schedule.timezone = 'Mars/Olympus'", "timezone"),
            ("fetch.quarantine = 'never'", "[fetch] quarantine"),
            ("repository.redirects = ['cdn.example']", "redirects"),
            ("repository.client-cert = '/x'", "client-key"),
            ("repository.credentials = [{ mirror = 'https://m/', bearer-file = '/t' }]", "credentials"),
            ("report.url = 'report.example'", "[report] url"),
            ("fetch.rates = [{ window = 'Mon', rate = '1MB/s' }]", "[fetch] rates"),
            ("fetch.transfer-windows = ['at night']", "[fetch] transfer-windows"),
            ("fetch.metered = 'yes'", "[fetch] metered"),
            ("fetch.floor = 'unlimited'", "[fetch] floor"),
            ("fetch.poll-every = '90'", "[fetch] poll-every"),
            ("fetch.spread-over = '8d'", "[fetch] spread-over"),
            ("fetch.disk-quota = '2G'", "[fetch] disk-quota"),
            ("share.listen = '8571'", "[share] listen"),
            ("share.rate = '2048'", "[share] rate"),
            ("share.max-clients = 0", "[share] max-clients"),
            ("share.peers = ['https://till/']", "[share] peers"),
            ("share.allow = ['till']", "[share] allow"),
            ("share.patience-seconds = 0", "[share] patience-seconds"),
            ("install.keep-packages = '1G'", "[install] keep-packages"),
            ("import.incoming = 'incoming'", "[import] incoming"),
            ("health.url = 'localhost'", "[health] url"),
            ("health.status = 1000", "[health] status"),
            ("restore.kind = 'zfs'", "[restore] kind"),
            ("restore = { kind = 'none', required = true }", "[restore] required"),
            ("restore.keep = 21", "[restore] keep"),
            ("restore.size = '2G'", "[restore] size"),
            ("restore.pool-limit-percent = 96", "[restore] pool-limit-percent"),
            ("restore.data = ['till']", "[restore] data"),
            ("reboot.policy = 'sometimes'", "[reboot] policy"),
            ("reboot.lock-url = 'fleet'", "[reboot] lock-url"),
            ("reboot.lock-group = 'a b'", "[reboot] lock-group"),
            ("fleet.url = 'fleet'", "[fleet] url"),
            ("fleet.url = 'https://me:secret@fleet/'", "[fleet] url"),
            ("fleet = { url = 'https://fleet', report-every = '1s' }", "[fleet] report-every"),
            ("fleet.url = 'https://fleet'\nreport.url = 'https://fleet/r'", "[report] url and [fleet] url"),
        ] {
            let error = settings(text).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_published_schema_knows_the_same_keys() {
        let schema = include_str!("../../packaging/schema/agent.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let known = |text: &str| -> std::collections::BTreeSet<String> {
            // A key that is near to none: all are named.
            let error = parse_fragment(text).unwrap_err();
            let list = error.rsplit_once("here, but ").unwrap_or_else(|| panic!("{error}")).1;
            list.split(", ").map(str::to_owned).collect()
        };
        let in_schema =
            |at: &serde_json::Value| at["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(known("qqqqqqqqqqqqqqqqqqqq = 1"), in_schema(&schema));
        for section in known("qqqqqqqqqqqqqqqqqqqq = 1") {
            let of = &schema["properties"][&section];
            assert_eq!(
                known(&format!("[{section}]\nqqqqqqqqqqqqqqqqqqqq = 1")),
                in_schema(of),
                "[{section}]"
            );
        }
    }

    #[test]
    fn the_shipped_configuration_is_valid() {
        parse_fragment(include_str!("../../packaging/config/agent.toml")).unwrap();
    }
}
