//! What was typed: a struct or variant for each verb, so that an option that does not belong to a verb cannot reach
//! it. No I/O.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use format::digest::Sha256;
use format::name::{BundleVersion, NodeId};
use format::near::nearest;
use lexopt::{Arg, Parser};

use crate::error::{Error, Exit};
use crate::help;

/// What holds for every verb.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The root of the node's file system.
    pub root: Option<PathBuf>,
    /// One configuration file instead of the usual ones.
    pub config: Option<PathBuf>,
    /// Say more.
    pub verbose: bool,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    /// Whatever is due.
    Run,
    /// Refresh, plan, fetch, verify, stage.
    Fetch {
        /// Whether or not it is this node's time.
        now: bool,
    },
    /// Install what is staged.
    Install {
        /// Whatever the window says.
        now: bool,
    },
    /// Go on with what was interrupted.
    Recover,
    /// Go back to before the last install.
    Rollback {
        /// Whatever the window says.
        now: bool,
    },
    /// Give content to the site.
    Share {
        /// Where to listen, whatever is configured.
        listen: Option<SocketAddr>,
    },
    /// As fetch, from a folder or file.
    Import {
        /// The export; none: what was pushed to this node.
        path: Option<PathBuf>,
        /// Stage every member, needed here or not.
        everything: bool,
    },
    /// Check an export or repository.
    Verify {
        /// The export.
        path: PathBuf,
    },
    /// Have a bundle again that this node refuses.
    Release {
        /// Its name.
        version: BundleVersion,
    },
    /// Send queued reports.
    Report {
        /// Whether or not it is this node's time.
        now: bool,
        /// Not over the network, but on a stick.
        carried: Carried,
    },
    /// How the node is.
    Status {
        /// As JSON.
        json: bool,
        /// As a plug-in of a monitoring system.
        check: bool,
    },
    /// Explain.
    Doctor,
    /// Say which repository this node belongs to, and where trust begins.
    Enroll(Box<Enrol>),
    /// Look at the configuration.
    Config {
        /// What counts, and whence; otherwise only whether it is right.
        show: bool,
    },
}

/// Reports that somebody carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Carried {
    /// Nobody does.
    #[default]
    No,
    /// To the centre: write them to this file.
    Out(PathBuf),
    /// Its receipt, back.
    Back(PathBuf),
}

/// What `enroll` is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Enrol {
    /// The repository: an http or https URL, or a folder.
    pub repository: Option<String>,
    /// The digest of its first root.
    pub fingerprint: Option<Sha256>,
    /// What the node is to be called.
    pub id: Option<NodeId>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// PEM certificates to trust for https.
    pub ca_file: Option<PathBuf>,
    /// The fleet server: an http or https URL.
    pub fleet: Option<String>,
    /// The file with what an operator gave to enrol there.
    pub token_file: Option<PathBuf>,
    /// Make and show the node's key, and nothing else.
    pub key_only: bool,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Print this and end.
    Print(String),
    /// Run a verb.
    Run(Options, Verb),
}

/// Reads the command line, program name first.
///
/// # Errors
/// With exit code 64, and what would be right.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, Error> {
    let mut parser = Parser::from_iter(args);
    let mut options = Options::default();
    let mut verb: Option<String> = None;
    let mut value: Option<PathBuf> = None;
    let (mut now, mut json, mut check, mut everything, mut incoming) = (false, false, false, false, false);
    let mut listen = None;
    let mut enrol = Enrol::default();
    let mut carried = Carried::No;
    while let Some(arg) = parser.next().map_err(usage)? {
        let of = |verbs: &[&str]| verb.as_deref().is_some_and(|verb| verbs.contains(&verb));
        match arg {
            Arg::Short('h') | Arg::Long("help") => {
                return Ok(Action::Print(verb.as_deref().map_or_else(help::program, help::verb)));
            }
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Action::Print(format!("prestage {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Arg::Short('v') | Arg::Long("verbose") => options.verbose = true,
            Arg::Long("root") => options.root = Some(parser.value().map_err(usage)?.into()),
            Arg::Long("config") => options.config = Some(parser.value().map_err(usage)?.into()),
            Arg::Long("now") if of(&["fetch", "install", "rollback"]) => now = true,
            Arg::Long("now") if of(&["report"]) && carried == Carried::No => now = true,
            Arg::Long("export") if of(&["report"]) && carried == Carried::No && !now => {
                carried = Carried::Out(parser.value().map_err(usage)?.into())
            }
            Arg::Long("import") if of(&["report"]) && carried == Carried::No && !now => {
                carried = Carried::Back(parser.value().map_err(usage)?.into())
            }
            Arg::Long("json") if of(&["status"]) && !check => json = true,
            Arg::Long("check") if of(&["status"]) && !json => check = true,
            Arg::Long("incoming") if of(&["import"]) && value.is_none() => incoming = true,
            Arg::Long("everything") if of(&["import"]) => everything = true,
            Arg::Long("listen") if of(&["share"]) => {
                listen = Some(read(&mut parser, "--listen", "an address and port")?)
            }
            Arg::Long("repository") if of(&["enroll"]) => {
                enrol.repository = Some(read(&mut parser, "--repository", "text")?)
            }
            Arg::Long("root-fingerprint") if of(&["enroll"]) => {
                let text: String = read(&mut parser, "--root-fingerprint", "text")?;
                let digits = text.strip_prefix("sha256:").unwrap_or(&text).to_ascii_lowercase();
                let wrong = |_| usage(format!("--root-fingerprint {text:?} is not sha256: and 64 digits"));
                enrol.fingerprint = Some(digits.parse().map_err(wrong)?);
            }
            Arg::Long("label") if of(&["enroll"]) => {
                let text: String = read(&mut parser, "--label", "text")?;
                let wrong = || usage(format!("--label {text:?} is not KEY=VALUE"));
                let (key, value) = text.split_once('=').ok_or_else(wrong)?;
                enrol.labels.insert(key.to_owned(), value.to_owned());
            }
            Arg::Long("id") if of(&["enroll"]) => enrol.id = Some(read(&mut parser, "--id", "a node id")?),
            Arg::Long("ca-file") if of(&["enroll"]) => {
                enrol.ca_file = Some(parser.value().map_err(usage)?.into())
            }
            Arg::Long("fleet") if of(&["enroll"]) => {
                enrol.fleet = Some(read(&mut parser, "--fleet", "text")?)
            }
            Arg::Long("token-file") if of(&["enroll"]) => {
                enrol.token_file = Some(parser.value().map_err(usage)?.into())
            }
            Arg::Long("key-only") if of(&["enroll"]) => enrol.key_only = true,
            Arg::Value(typed) if verb.is_none() => verb = Some(typed.to_string_lossy().into_owned()),
            Arg::Value(typed)
                if value.is_none() && !incoming && of(&["import", "verify", "release", "config"]) =>
            {
                value = Some(typed.into())
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let needed = |what: &str| {
        let verb = verb.as_deref().unwrap_or_default();
        value.clone().ok_or_else(|| usage(format!("`prestage {verb}` needs {what}")))
    };
    let verb = match verb.as_deref() {
        Some("run") => Verb::Run,
        Some("fetch") => Verb::Fetch { now },
        Some("install") => Verb::Install { now },
        Some("recover") => Verb::Recover,
        Some("rollback") => Verb::Rollback { now },
        Some("import") if incoming => Verb::Import { path: None, everything },
        Some("import") => Verb::Import { path: Some(needed("a PATH")?), everything },
        Some("share") => Verb::Share { listen },
        Some("verify") => Verb::Verify { path: needed("a PATH")? },
        Some("release") => Verb::Release {
            version: needed("the VERSION of a bundle")?.to_string_lossy().parse().map_err(usage)?,
        },
        Some("report") => Verb::Report { now, carried },
        Some("status") => Verb::Status { json, check },
        Some("doctor") => Verb::Doctor,
        Some("enroll") => Verb::Enroll(Box::new(enrol)),
        Some("config") => match needed("check or show")?.to_str() {
            Some("check") => Verb::Config { show: false },
            Some("show") => Verb::Config { show: true },
            _ => return Err(usage("`prestage config` knows check and show")),
        },
        Some(other) => {
            let meant = nearest(other, help::VERBS.iter().map(|v| v.name));
            let meant = meant.map(|verb| format!("; did you mean {verb}?")).unwrap_or_default();
            return Err(usage(format!("there is no verb {other:?}{meant}")));
        }
        None => return Err(usage("a verb is missing")),
    };
    Ok(Action::Run(options, verb))
}

/// The value of an option.
fn read<T: FromStr>(parser: &mut Parser, option: &str, what: &str) -> Result<T, Error> {
    let text = parser.value().map_err(usage)?.to_string_lossy().into_owned();
    text.parse().map_err(|_| usage(format!("{option} {text:?} is not {what}")))
}

fn usage(what: impl std::fmt::Display) -> Error {
    Error::new(Exit::Usage, what, "`prestage --help` lists verbs and options")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Action, Error> {
        parse(std::iter::once("prestage").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn verbs_and_options() {
        assert_eq!(
            parsed("--root /x -v install --now").unwrap(),
            Action::Run(
                Options { root: Some("/x".into()), config: None, verbose: true },
                Verb::Install { now: true }
            )
        );
        assert_eq!(
            parsed("import /usb --everything").unwrap(),
            Action::Run(Options::default(), Verb::Import { path: Some("/usb".into()), everything: true })
        );
        assert_eq!(
            parsed("import --incoming").unwrap(),
            Action::Run(Options::default(), Verb::Import { path: None, everything: false })
        );
        assert_eq!(
            parsed("share --listen 127.0.0.2:0").unwrap(),
            Action::Run(Options::default(), Verb::Share { listen: "127.0.0.2:0".parse().ok() })
        );
    }

    #[test]
    fn an_option_of_another_verb_is_refused_with_exit_64() {
        for line in [
            "report --json",
            "report --now --export x",
            "report --export x --import y",
            "report --export",
            "fetch --export x",
            "fetch --key-only",
            "recover --now",
            "install --json",
            "status --everything",
            "import",
            "import --incoming /usb",
            "import /usb --incoming",
            "share --listen till",
            "fetch --listen 127.0.0.1:1",
            "verify a b",
            "release",
            "release ../x",
            "frobnicate",
            "enroll --label x",
            "enroll --root-fingerprint sha256:12",
            "fetch --id x",
            "config",
            "status --json --check",
            "config frob",
            "",
            "--root",
        ] {
            assert_eq!(parsed(line).unwrap_err().exit, Exit::Usage, "{line}");
        }
    }

    #[test]
    fn an_enrolment_takes_a_fingerprint_in_either_spelling() {
        let digits = "ab".repeat(32);
        for spelling in [format!("sha256:{digits}"), digits.to_uppercase()] {
            let line =
                format!("enroll --repository https://p/ --root-fingerprint {spelling} --label a=b=c --id x");
            let Action::Run(_, Verb::Enroll(enrol)) = parsed(&line).unwrap() else { panic!("{line}") };
            assert_eq!(enrol.fingerprint, digits.parse().ok());
            assert_eq!(enrol.labels, BTreeMap::from([("a".into(), "b=c".into())]));
        }
    }

    #[test]
    fn help_after_a_verb_is_about_that_verb_and_knows_all_that_parse_knows() {
        for verb in help::VERBS {
            let Action::Print(text) = parsed(&format!("{} --help", verb.name)).unwrap() else { panic!() };
            assert!(text.contains(&format!("prestage {}", verb.name)), "{text}");
            let known = parsed(verb.name).map_or_else(|e| e.to_string(), |_| String::new());
            assert!(!known.contains("there is no verb"), "{known}");
            for (option, _) in verb.options.iter().filter(|(o, _)| o.starts_with("--")) {
                // Whatever is wrong with the value, the option is one of this verb.
                let name = option.split(' ').next().unwrap_or_default();
                let said = parsed(&format!("{} {name} x", verb.name))
                    .map_or_else(|e| e.to_string(), |_| String::new());
                assert!(!said.contains("invalid option"), "{name}: {said}");
            }
        }
    }
}
