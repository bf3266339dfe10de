//! The command line: serve, and what an administrator does beside it. All of it works on the database directly, whether the
//! server runs or not.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use format::digest::unhex;
use format::envelope::Answer as Receipt;
use format::node_key::NodePublicKey;
use format::time::UnixTime;
use serde_json::json;

use crate::api::{self, Format, Wanted};
use crate::app::now;
use crate::auth::Role;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::ingest::check;
use crate::store::audit::{self, Entry};
use crate::store::compliance::Asked;
use crate::store::keys::{self, Enrolled};
use crate::store::{Store, reports, tokens};

/// The longest file that is imported: what a site of a thousand nodes carries in a month.
const MAX_IMPORT: u64 = 1024 * 1024 * 1024;

/// Documents of an import that are stored in one transaction.
const PIECE: usize = 500;

/// Prestage's fleet server: reports in, rollout control, dashboard, metrics.
#[derive(Debug, Parser)]
#[command(name = "prestage-fleet", version, about, long_about = None)]
pub struct Cli {
    /// The configuration.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Listens until it is told to end.
    Serve,
    /// Checks or shows the configuration.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Makes, lists and revokes tokens of operators and for enrolment.
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Registers or revokes keys of nodes.
    Node {
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// Takes what `prestage report --export` has written at a site without a network.
    Import(Import),
    /// Writes which bundle, packages and advisories each node had at a time.
    Export(Export),
    /// Copies a SQLite database while it is in use; PostgreSQL has pg_dump.
    Backup {
        /// The copy. Must not be there yet.
        file: PathBuf,
    },
    /// Writes how rollouts go into the status of PatchPolicies that a Kubernetes API server keeps.
    #[cfg(feature = "kube")]
    Kube(Kube),
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Says what is wrong with it; 78 if something is.
    Check,
    /// Shows what is in force, without secrets.
    Show,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Makes a token of an operator, and prints it: it is shown once.
    New {
        /// Whose it is.
        #[arg(long)]
        name: String,
        /// viewer, operator or admin.
        #[arg(long)]
        role: Role,
        /// How long it counts, in hours.
        #[arg(long, value_name = "HOURS", default_value_t = 8760)]
        hours: i64,
    },
    /// Makes a token with which nodes enrol, and prints it: it is shown once.
    Enroll {
        /// What it is for.
        #[arg(long)]
        name: String,
        /// Only for this node.
        #[arg(long)]
        node: Option<String>,
        /// Only for nodes with this label; may be given several times.
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// How many nodes may use it.
        #[arg(long, default_value_t = 1)]
        uses: i64,
        /// How long it counts, in hours.
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        hours: i64,
    },
    /// Lists tokens, without their secrets.
    List,
    /// The token counts no more.
    Revoke {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
enum NodeVerb {
    /// Registers a key before its node enrols, which then needs no token.
    Register {
        /// The node's id.
        node: String,
        /// Its public key, 64 hexadecimal digits.
        key: String,
    },
    /// The node's key counts no more: stolen, or taken out of service.
    Revoke {
        /// The node's id.
        node: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
struct Import {
    /// A batch, or an envelope on each line.
    file: PathBuf,
    /// Where the receipt goes, for `prestage report --import` at the site; without it to standard output.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Export {
    /// At which time; now, if it is not given.
    #[arg(long, value_name = "RFC3339")]
    at: Option<UnixTime>,
    /// Only this node.
    #[arg(long)]
    node: Option<String>,
    /// Only nodes with this label; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// csv or ndjson.
    #[arg(long, default_value = "csv")]
    format: String,
    /// Also the packages; ndjson only.
    #[arg(long)]
    packages: bool,
    /// Where it goes; without it to standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The API server is found as kubectl finds it: KUBECONFIG, ~/.kube/config, or from within a pod.
#[cfg(feature = "kube")]
#[derive(Debug, Args)]
struct Kube {
    /// The fleet server.
    #[arg(long, value_name = "URL")]
    server: String,
    /// A file with the token of a viewer.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Certificates that vouch for an https URL.
    #[arg(long, value_name = "FILE", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    ca_file: PathBuf,
    /// Only policies of this namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// How often to ask the fleet server, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Once, and no more.
    #[arg(long)]
    once: bool,
}

/// The command line as a value: for the manual.
pub fn command() -> clap::Command {
    Cli::command()
}

/// One line to standard error for each message; with the level as the journal wants it where it listens.
pub fn start_log() {
    struct Log;
    impl log::Log for Log {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::max_level()
        }
        fn log(&self, record: &log::Record<'_>) {
            // What libraries say is worth a line where it is a warning.
            let ours = record.target().starts_with("fleet");
            if !self.enabled(record.metadata()) || !(ours || record.level() <= log::Level::Warn) {
                return;
            }
            let text: String =
                record.args().to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let level = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                _ => 7,
            };
            let mut stderr = std::io::stderr().lock();
            // To whom should it be said that nothing can be said?
            let _ = match std::env::var_os("JOURNAL_STREAM") {
                Some(_) => writeln!(stderr, "<{level}>{text}"),
                None => writeln!(stderr, "{}: {text}", record.level().as_str().to_lowercase()),
            };
        }
        fn flush(&self) {}
    }
    let level = std::env::var("PRESTAGE_FLEET_LOG").ok().and_then(|text| text.parse().ok());
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(level.unwrap_or(log::LevelFilter::Info));
    }
}

/// Does what the command line says.
///
/// # Errors
/// With the exit code that belongs to it.
pub fn run() -> Result<()> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            error.print().map_err(|e| Error::new(Kind::Io, e))?;
            if asked {
                return Ok(());
            }
            return Err(Error::new(Kind::Usage, "the command line was not understood"));
        }
    };
    let settings = Settings::load(cli.config.as_deref())?;
    match cli.verb {
        Verb::Serve => crate::serve::serve(settings),
        Verb::Config { verb: ConfigVerb::Check } => Ok(()),
        Verb::Config { verb: ConfigVerb::Show } => show(&settings),
        Verb::Token { verb } => token(&open(&settings)?, verb),
        Verb::Node { verb } => node(&open(&settings)?, verb),
        Verb::Import(import) => take(&open(&settings)?, &import),
        Verb::Export(wanted) => export(&open(&settings)?, wanted),
        Verb::Backup { file } => backup(&open(&settings)?, &file),
        #[cfg(feature = "kube")]
        Verb::Kube(kube) => crate::kube::bridge::run(&crate::kube::bridge::Bridge {
            server: kube.server,
            token_file: kube.token_file,
            ca_file: kube.ca_file,
            namespace: kube.namespace,
            every: std::time::Duration::from_secs(kube.every),
            once: kube.once,
        }),
    }
}

fn open(settings: &Settings) -> Result<Store> {
    // A second provider in one process is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(Store::open(&settings.database, settings.connections)?)
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Error::new(Kind::Io, e))
}

fn show(settings: &Settings) -> Result<()> {
    let database = match &settings.database {
        crate::store::Location::File(path) => format!("sqlite:{}", path.display()),
        // A password may be in it.
        crate::store::Location::Server { .. } => "postgres (its URL is not shown)".into(),
    };
    let shown = json!({
        "listen": settings.listen.to_string(),
        "tls": settings.tls.as_ref().map(|(certificate, _)| certificate),
        "database": database,
        "connections": settings.connections,
        "repository": settings.repository.as_ref().map(|it| &it.location),
        "control": settings.control.command,
        "releaseControl": settings.control.release_command,
        "automaticHalt": settings.control.automatic_halt,
        "silentAfterHours": settings.silent_after / 3600,
        "stuckAfterHours": settings.stuck_after / 3600,
        "sessionHours": settings.session / 3600,
        "proxies": settings.proxy.addresses,
        "requestsPerMinute": settings.requests,
        "reportsKeptDays": settings.reports_kept / 86_400,
        "auditKeptDays": settings.audit_kept / 86_400,
        "metrics": settings.metrics.map(|it| it.to_string()),
        "fleetlock": settings.fleetlock.is_some(),
    });
    print(&serde_json::to_string_pretty(&shown).map_err(|e| Error::new(Kind::Io, e))?)
}

/// Who is at the command line, for the audit log.
fn administrator() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_default();
    let user: String = user.chars().filter(|c| !c.is_control()).take(64).collect();
    format!("{} at the command line", if user.is_empty() { "somebody" } else { &user })
}

fn entry(action: &str, target: &str, reason: &str) -> Entry {
    Entry {
        id: 0,
        at: now(),
        who: administrator(),
        role: "admin".into(),
        from: String::new(),
        action: action.into(),
        target: target.into(),
        reason: reason.into(),
        outcome: "done".into(),
    }
}

fn labels(given: &[String]) -> Result<Vec<(String, String)>> {
    let split = |text: &String| {
        let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        pair.ok_or_else(|| Error::new(Kind::Usage, format!("--label {text:?} is not KEY=VALUE")))
    };
    given.iter().map(split).collect()
}

fn token(store: &Store, verb: TokenVerb) -> Result<()> {
    let wanted = match verb {
        TokenVerb::List => {
            for it in store.read_now(tokens::list)? {
                let state = match (it.revoked != 0, it.expires <= now()) {
                    (true, _) => "revoked",
                    (_, true) => "expired",
                    _ => "counts",
                };
                let role = it.role.map_or("-", Role::as_str);
                let expires = UnixTime(it.expires);
                print(&format!(
                    "{} {} {role} {state} until {expires} {}/{} {}",
                    it.id, it.kind, it.used, it.uses, it.name
                ))?;
            }
            return Ok(());
        }
        TokenVerb::Revoke { id } => {
            let revoked = store.write_now(|sql| {
                let revoked = tokens::revoke(sql, &id, now())?;
                if revoked {
                    audit::record(sql, &entry("token revoked", &id, ""))?;
                }
                Ok(revoked)
            })?;
            return match revoked {
                true => Ok(()),
                false => Err(Error::new(Kind::No, format!("there is no token {id:?} that counts"))),
            };
        }
        TokenVerb::New { name, role, hours } => Wanted {
            kind: "operator".into(),
            name,
            role: Some(role),
            node: None,
            labels: Default::default(),
            uses: None,
            expires_in_hours: Some(hours),
        },
        TokenVerb::Enroll { name, node, label, uses, hours } => Wanted {
            kind: "enrollment".into(),
            name,
            role: None,
            node,
            labels: labels(&label)?.into_iter().collect(),
            uses: Some(uses),
            expires_in_hours: Some(hours),
        },
    };
    let designed = api::design(wanted, &administrator(), now());
    let (token, secret, hash) = designed.map_err(|problem| Error::new(Kind::Usage, problem.detail()))?;
    store.write_now(|sql| {
        tokens::insert(sql, &token, &hash)?;
        audit::record(sql, &entry("token made", &format!("{} {} ({})", token.kind, token.id, token.name), ""))
    })?;
    if std::io::stdout().is_terminal() {
        eprintln!("{} {}; it is shown once:", token.kind, token.id);
    }
    print(&secret)
}

fn node(store: &Store, verb: NodeVerb) -> Result<()> {
    match verb {
        NodeVerb::Register { node, key } => {
            let wrong = |why: &dyn std::fmt::Display| Error::new(Kind::Usage, why);
            let node: format::name::NodeId = node.parse().map_err(|e| wrong(&e))?;
            let bytes = unhex(&key).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let key = bytes.ok_or_else(|| wrong(&"a key is 64 lower-case hexadecimal digits"))?;
            let outcome = store.write_now(|sql| {
                let outcome =
                    keys::register(sql, node.as_str(), &NodePublicKey(key), &administrator(), now())?;
                if outcome == Enrolled::New {
                    audit::record(sql, &entry("register key", node.as_str(), ""))?;
                }
                Ok(outcome)
            })?;
            match outcome {
                Enrolled::New | Enrolled::Same => Ok(()),
                Enrolled::Conflict(why) | Enrolled::Forbidden(why) => Err(Error::new(Kind::No, why)),
            }
        }
        NodeVerb::Revoke { node, reason } => {
            let revoked = store.write_now(|sql| {
                let revoked = keys::revoke(sql, &node, &reason, now())?;
                if revoked {
                    audit::record(sql, &entry("revoke", &node, &reason))?;
                }
                Ok(revoked)
            })?;
            match revoked {
                true => Ok(()),
                false => Err(Error::new(Kind::No, format!("there is no node {node:?} whose key counts"))),
            }
        }
    }
}

/// The envelopes of a file: of a batch, or one on each line.
fn envelopes(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect()
}

fn take(store: &Store, import: &Import) -> Result<()> {
    let read = host::file::read_limited(&import.file, MAX_IMPORT).map_err(|e| Error::new(Kind::Io, e))?;
    let bytes = read
        .ok_or_else(|| Error::new(Kind::Io, format!("{}: there is no such file", import.file.display())))?;
    let mut receipt = Receipt::default();
    let whole = format::envelope::read_batch(&bytes).is_ok();
    let batches: Vec<Vec<u8>> = if whole {
        vec![bytes]
    } else {
        let lines: Vec<Vec<u8>> = envelopes(&bytes).into_iter().map(<[u8]>::to_vec).collect();
        pieces(&lines)
    };
    let (mut unknown, mut revoked) = (0, 0);
    for batch in batches {
        let unreadable = |e: format::json::JsonError| {
            Error::new(Kind::Data, format!("{}: no export of reports: {e}", import.file.display()))
        };
        let speakers: Vec<String> = check::speakers(&batch).map_err(unreadable)?.into_iter().collect();
        let keys = store.read_now(|sql| keys::of(sql, &speakers))?.into_iter().collect();
        let checked = check::batch(&batch, &keys, now(), true).map_err(unreadable)?;
        let written = reports::write(store, &checked.received)?;
        let digest = |text: &str| text.parse().map_err(|e| Error::new(Kind::Data, e));
        for it in checked.received.iter().filter(|it| !written.unknown.contains(&it.node)) {
            receipt.accepted.push(digest(&it.id)?);
        }
        for (id, reason) in checked.refused {
            receipt.refused.push(format::envelope::Refusal { id: digest(&id)?, reason });
        }
        for wanted in &written.wanted {
            receipt.wants_inventory.push(digest(wanted)?);
        }
        unknown += checked.unknown.len();
        revoked += checked.revoked.len();
    }
    let reason = format!(
        "{} accepted, {} refused, {unknown} of nodes that are not enrolled, {revoked} of revoked ones",
        receipt.accepted.len(),
        receipt.refused.len()
    );
    store.write_now(|sql| audit::record(sql, &entry("import", &import.file.to_string_lossy(), &reason)))?;
    eprintln!("{reason}");
    let text = serde_json::to_string(&receipt).map_err(|e| Error::new(Kind::Io, e))?;
    match &import.receipt {
        Some(path) => host::file::replace(path, format!("{text}\n").as_bytes(), 0o644)
            .map_err(|e| Error::new(Kind::Io, e)),
        None => print(&text),
    }
}

/// Envelopes in batches that are within the limits of one.
fn pieces(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut out, mut open, mut size) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        if open.len() >= PIECE || size + line.len() + 64 > format::envelope::MAX_BATCH {
            out.push(format::envelope::write_batch(&open));
            (open, size) = (Vec::new(), 0);
        }
        size += line.len() + 1;
        open.push(line.clone());
    }
    if !open.is_empty() {
        out.push(format::envelope::write_batch(&open));
    }
    out
}

fn export(store: &Store, wanted: Export) -> Result<()> {
    let format = match wanted.format.as_str() {
        "csv" => Format::Csv,
        "ndjson" => Format::Ndjson,
        other => return Err(Error::new(Kind::Usage, format!("--format {other:?} is not csv or ndjson"))),
    };
    let asked = Asked {
        at: wanted.at.map_or_else(now, |time| time.0),
        node: wanted.node,
        labels: labels(&wanted.label)?,
        ..Asked::default()
    };
    let failed = |e: std::io::Error| Error::new(Kind::Io, format!("the export: {e}"));
    match &wanted.output {
        None => {
            api::export(store, asked, format, wanted.packages, &mut std::io::stdout().lock()).map_err(failed)
        }
        Some(path) => {
            let mut bytes = Vec::new();
            api::export(store, asked, format, wanted.packages, &mut bytes).map_err(failed)?;
            host::file::replace(path, &bytes, 0o644).map_err(failed)
        }
    }
}

fn backup(store: &Store, file: &Path) -> Result<()> {
    if file.exists() {
        return Err(Error::new(Kind::Usage, format!("{} is there already", file.display())));
    }
    Ok(store.backup(file)?)
}
