//! The configuration: as typed ([`Typed`]) → valid ([`Settings`]). `packaging/config/fleet.toml` is the documentation of
//! every key; a test reads it with every default switched on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::auth::Role;
use crate::error::{Error, Kind, Result};
use crate::store::Location;

/// Where the configuration is, if the command line does not say.
pub const PATH: &str = "/etc/prestage/fleet.toml";

/// A configuration file has some hundred bytes.
const MAX_FILE: u64 = 256 * 1024;

/// As typed. Every key may be missing; one that is not known is refused.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Typed {
    server: Server,
    tls: Tls,
    database: Database,
    repository: Repository,
    control: Control,
    nodes: Nodes,
    auth: Auth,
    limits: Limits,
    retention: Retention,
    metrics: Metrics,
    fleetlock: FleetLock,
}

macro_rules! section {
    ($name:ident { $($field:ident: $type:ty = $default:expr),* $(,)? }) => {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        struct $name { $($field: $type,)* }
        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }
    };
}

section!(Server {
    listen: String = "127.0.0.1:8470".into(),
    max_connections: usize = 20_000,
    request_timeout_seconds: u64 = 30,
    secure_cookies: bool = false,
    numbers_seconds: u64 = 2,
});
section!(Tls { certificate: Option<PathBuf> = None, key: Option<PathBuf> = None, });
section!(Database {
    url: Option<String> = None,
    url_file: Option<PathBuf> = None,
    ca_file: Option<PathBuf> = None,
    connections: usize = 8,
});
section!(Repository {
    location: Option<String> = None,
    root: PathBuf = "/etc/prestage/root.json".into(),
    ca_file: PathBuf = "/etc/ssl/certs/ca-certificates.crt".into(),
    every_seconds: u64 = 60,
});
section!(Control {
    command: Vec<String> = Vec::new(),
    release_command: Vec<String> = Vec::new(),
    timeout_seconds: u64 = 60,
    automatic_halt: bool = true,
    smallest_sample: u64 = 5,
});
section!(Nodes { silent_after_hours: i64 = 26, stuck_after_hours: i64 = 24 });
section!(Auth { session_hours: i64 = 12, proxy: ProxyTyped = ProxyTyped::default() });
section!(ProxyTyped {
    addresses: Vec<IpAddr> = Vec::new(),
    user_header: String = "x-forwarded-user".into(),
    groups_header: String = "x-forwarded-groups".into(),
    roles: BTreeMap<String, Vec<String>> = BTreeMap::new(),
});
section!(Limits { requests: u32 = 6000, enrollments: u32 = 600, logins: u32 = 20 });
section!(Retention { reports_days: i64 = 400, audit_days: i64 = 1100 });
section!(Metrics { listen: Option<String> = None, });
section!(FleetLock { enabled: bool = false, per_group: i64 = 1, hold_hours: i64 = 2 });

/// A reverse proxy that is believed.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// From these addresses.
    pub addresses: Vec<IpAddr>,
    /// Who: in lower case, as headers are looked up.
    pub user_header: String,
    /// Their groups, separated by commas.
    pub groups_header: String,
    /// The groups that have each role; `*` is everybody.
    pub roles: BTreeMap<Role, Vec<String>>,
}

/// The published repository.
#[derive(Clone, Debug)]
pub struct RepositorySettings {
    /// A folder, or an http or https URL that ends in `/`.
    pub location: String,
    /// The root where trust begins.
    pub root: PathBuf,
    /// Certificates for https.
    pub ca_file: PathBuf,
    /// How often it is read.
    pub every: Duration,
}

/// How plans are published.
#[derive(Clone, Debug, Default)]
pub struct ControlSettings {
    /// Program and arguments, with `{action}`, `{policy}`, `{reason}`, `{by}`; empty: it cannot be done from here.
    pub command: Vec<String>,
    /// The same for releases, with `{bundle}` and `{before}`.
    pub release_command: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether a crossed threshold halts a rollout.
    pub automatic_halt: bool,
    /// So many finished nodes before a share of failures is believed.
    pub smallest_sample: u64,
}

/// FleetLock.
#[derive(Clone, Copy, Debug)]
pub struct FleetLockSettings {
    /// Nodes of a group at the same time.
    pub per_group: i64,
    /// Seconds after which a place is lost.
    pub hold: i64,
}

/// Valid.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where nodes and operators come.
    pub listen: SocketAddr,
    /// Connections at the same time.
    pub max_connections: usize,
    /// From the head of a request to the end of its body.
    pub request_timeout: Duration,
    /// Certificate chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether browsers send the cookie over TLS alone.
    pub secure_cookies: bool,
    /// How old the numbers of the overview may be.
    pub numbers: Duration,
    /// The database.
    pub database: Location,
    /// Transactions at the same time.
    pub connections: usize,
    /// The repository, if it is known.
    pub repository: Option<RepositorySettings>,
    /// How plans are published.
    pub control: ControlSettings,
    /// Seconds after which a node is silent.
    pub silent_after: i64,
    /// Seconds after which a rollout is stuck.
    pub stuck_after: i64,
    /// Seconds that a session lasts.
    pub session: i64,
    /// The proxy that is believed.
    pub proxy: Proxy,
    /// Requests a minute from an address.
    pub requests: u32,
    /// Enrolments a minute from an address.
    pub enrollments: u32,
    /// Logins a minute from an address.
    pub logins: u32,
    /// Seconds that reports are kept.
    pub reports_kept: i64,
    /// Seconds that the audit log is kept.
    pub audit_kept: i64,
    /// Where metrics are given without a token.
    pub metrics: Option<SocketAddr>,
    /// FleetLock, if it is on.
    pub fleetlock: Option<FleetLockSettings>,
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

impl Settings {
    /// Reads and checks a configuration file. Without one at the usual place the defaults are in force.
    ///
    /// # Errors
    /// With all that is wrong with it.
    pub fn load(path: Option<&Path>) -> Result<Settings> {
        let given = path.unwrap_or(Path::new(PATH));
        let bytes = host::file::read_limited(given, MAX_FILE)
            .map_err(|e| Error::new(Kind::Config, format!("the configuration cannot be read: {e}")))?;
        let text = match bytes {
            Some(bytes) => String::from_utf8(bytes)
                .map_err(|_| Error::new(Kind::Config, format!("{}: it is not UTF-8", given.display())))?,
            None if path.is_none() => String::new(),
            None => {
                return Err(Error::new(Kind::Config, format!("{}: there is no such file", given.display())));
            }
        };
        Settings::parse(&text).map_err(|why| Error::new(Kind::Config, format!("{}: {why}", given.display())))
    }

    /// Checks a configuration.
    ///
    /// # Errors
    /// With all that is wrong with it, one sentence each, separated by semicolons.
    pub fn parse(text: &str) -> std::result::Result<Settings, String> {
        let typed: Typed = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let mut wrong: Vec<String> = Vec::new();
        let mut address = |key: &str, text: &str| -> Option<SocketAddr> {
            let parsed = text.parse();
            if parsed.is_err() {
                wrong.push(format!("{key} = {text:?} is no ADDRESS:PORT"));
            }
            parsed.ok()
        };
        let listen = address("[server] listen", &typed.server.listen);
        let metrics = typed.metrics.listen.as_deref().and_then(|text| address("[metrics] listen", text));
        let tls = match (typed.tls.certificate, typed.tls.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                wrong.push("[tls] needs both certificate and key".into());
                None
            }
        };
        let database = database(&typed.database).map_err(|why| wrong.push(why)).ok();
        let proxy = proxy(typed.auth.proxy).map_err(|why| wrong.push(why)).ok();
        let repository = typed.repository.location.map(|location| RepositorySettings {
            location,
            root: typed.repository.root,
            ca_file: typed.repository.ca_file,
            every: Duration::from_secs(typed.repository.every_seconds.max(1)),
        });
        if repository.as_ref().is_some_and(|it| {
            let url = it.location.starts_with("http://") || it.location.starts_with("https://");
            !(it.location.starts_with('/') || url && it.location.ends_with('/'))
        }) {
            wrong.push(
                "[repository] location is neither an absolute path nor an http(s) URL that ends in /".into(),
            );
        }
        for (key, command, needs) in [
            ("command", &typed.control.command, ["{action}", "{policy}", "{reason}", "{by}"].as_slice()),
            ("release-command", &typed.control.release_command, &["{policy}", "{bundle}", "{before}"]),
        ] {
            if let Some(program) = command.first() {
                if !program.starts_with('/') {
                    wrong.push(format!("[control] {key}: {program:?} is no absolute path"));
                }
                for place in needs.iter().filter(|place| !command.iter().any(|part| part.contains(**place))) {
                    wrong.push(format!("[control] {key} does not say where {place} goes"));
                }
            }
        }
        for (key, value) in [
            ("[nodes] silent-after-hours", typed.nodes.silent_after_hours),
            ("[nodes] stuck-after-hours", typed.nodes.stuck_after_hours),
            ("[auth] session-hours", typed.auth.session_hours),
            ("[retention] reports-days", typed.retention.reports_days),
            ("[retention] audit-days", typed.retention.audit_days),
            ("[fleetlock] per-group", typed.fleetlock.per_group),
            ("[fleetlock] hold-hours", typed.fleetlock.hold_hours),
        ] {
            if !(1..=100_000).contains(&value) {
                wrong.push(format!("{key} = {value} is not from 1 to 100000"));
            }
        }
        if !(1..=3600).contains(&typed.server.request_timeout_seconds) {
            wrong.push("[server] request-timeout-seconds is not from 1 to 3600".into());
        }
        if !(1..=1000).contains(&typed.database.connections) {
            wrong.push("[database] connections is not from 1 to 1000".into());
        }
        let (Some(listen), Some(database), Some(proxy), true) = (listen, database, proxy, wrong.is_empty())
        else {
            return Err(wrong.join("; "));
        };
        Ok(Settings {
            listen,
            max_connections: typed.server.max_connections.max(16),
            request_timeout: Duration::from_secs(typed.server.request_timeout_seconds),
            secure_cookies: typed.server.secure_cookies || tls.is_some(),
            tls,
            numbers: Duration::from_secs(typed.server.numbers_seconds.min(60)),
            database,
            connections: typed.database.connections,
            repository,
            control: ControlSettings {
                command: typed.control.command,
                release_command: typed.control.release_command,
                timeout: Duration::from_secs(typed.control.timeout_seconds.clamp(1, 3600)),
                automatic_halt: typed.control.automatic_halt,
                smallest_sample: typed.control.smallest_sample.max(1),
            },
            silent_after: typed.nodes.silent_after_hours * HOUR,
            stuck_after: typed.nodes.stuck_after_hours * HOUR,
            session: typed.auth.session_hours * HOUR,
            proxy,
            requests: typed.limits.requests,
            enrollments: typed.limits.enrollments,
            logins: typed.limits.logins,
            reports_kept: typed.retention.reports_days * DAY,
            audit_kept: typed.retention.audit_days * DAY,
            metrics,
            fleetlock: typed.fleetlock.enabled.then_some(FleetLockSettings {
                per_group: typed.fleetlock.per_group,
                hold: typed.fleetlock.hold_hours * HOUR,
            }),
        })
    }
}

fn database(typed: &Database) -> std::result::Result<Location, String> {
    let url = match (&typed.url, &typed.url_file) {
        (Some(_), Some(_)) => return Err("[database] has both url and url-file".into()),
        (Some(url), None) => url.clone(),
        (None, Some(path)) => {
            let bytes =
                host::file::read_limited(path, MAX_FILE).map_err(|e| format!("[database] url-file: {e}"))?;
            let bytes =
                bytes.ok_or_else(|| format!("[database] url-file: {} is not there", path.display()))?;
            let text = String::from_utf8(bytes).map_err(|_| "[database] url-file is not UTF-8")?;
            text.trim().to_owned()
        }
        (None, None) => "sqlite:/var/lib/prestage-fleet/fleet.db".into(),
    };
    if let Some(path) = url.strip_prefix("sqlite:") {
        return match Path::new(path).is_absolute() {
            true => Ok(Location::File(path.into())),
            false => Err("[database] url: sqlite: needs an absolute path".into()),
        };
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Location::Server { url, ca_file: typed.ca_file.clone() });
    }
    // The URL may hold a password: it is not repeated.
    Err("[database] url begins neither with sqlite: nor with postgres://".into())
}

fn proxy(typed: ProxyTyped) -> std::result::Result<Proxy, String> {
    let mut roles = BTreeMap::new();
    for (name, groups) in typed.roles {
        roles.insert(name.parse::<Role>().map_err(|why| format!("[auth.proxy] roles: {why}"))?, groups);
    }
    if !typed.addresses.is_empty() && roles.is_empty() {
        return Err("[auth.proxy] has addresses and no roles: nobody could do anything".into());
    }
    Ok(Proxy {
        addresses: typed.addresses,
        user_header: typed.user_header.to_ascii_lowercase(),
        groups_header: typed.groups_header.to_ascii_lowercase(),
        roles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_names_every_key_and_its_default() {
        let shipped = include_str!("../../packaging/config/fleet.toml");
        assert!(Settings::parse(shipped).is_ok());
        // What looks like a key behind a "# " is one.
        let mut depth = 0i32;
        let mut on = String::new();
        for line in shipped.lines() {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let key = bare.split_once(" = ").is_some_and(|(key, _)| {
                !key.is_empty() && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'-')
            });
            if key || depth > 0 || line.starts_with('[') {
                let unset = ["url-file", "certificate", "key ="].iter().any(|it| bare.starts_with(it));
                depth += bare.matches('[').count() as i32 - bare.matches(']').count() as i32;
                if !unset {
                    on += &format!("{bare}\n");
                }
            }
        }
        let settings = Settings::parse(&on).unwrap_or_else(|why| panic!("{why}\n{on}"));
        assert_eq!(settings.listen.port(), 8470);
        assert_eq!(settings.control.command.len(), 10, "{on}");
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once_and_no_password_is_repeated() {
        let why = Settings::parse(
            "[server]\nlisten = \"here\"\n[tls]\nkey = \"/x\"\n[database]\nurl = \"mysql://u:secret@h/d\"\n\
             [control]\ncommand = [\"build\", \"{action}\"]\n",
        )
        .unwrap_err();
        for word in ["listen", "both certificate and key", "postgres://", "absolute path", "{policy}"] {
            assert!(why.contains(word), "{word}: {why}");
        }
        assert!(!why.contains("secret"));
        assert!(Settings::parse("[server]\nlissten = 1\n").unwrap_err().contains("lissten"));
    }
}
