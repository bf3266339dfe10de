//! What was typed: a struct or variant for each verb, so that an option that does not belong to a verb cannot reach
//! it. No I/O.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use format::name::BundleVersion;
use lexopt::{Arg, Parser};

use crate::error::{Error, Exit};

/// `prestage --help`.
pub const HELP: &str = "\
prestage: patches this node from a signed, staged bundle, with the network cut off

Usage: prestage [--root DIR] [--config FILE] [-v] VERB

Verbs:
  run              what the timers call: fetch, then install if the window is open, then report
  fetch [--now]    get what this node needs of its bundle: resumable, throttled, verified;
                   --now: whatever turn, backoff and transfer windows say
  install [--now]  install what is staged; --now: whatever the maintenance window says
  recover          go on with an install that a power cut or a boot interrupted; at boot
  rollback [--now] take this node back to before the last install; --now: boot at once if needed
  import PATH|--incoming [--everything]
                   as fetch, from an export: a folder, one .tar file, or what was pushed here
  share [--listen ADDRESS]
                   give what is here to the other nodes of the site ([share] serve)
  verify PATH      check an export or repository to the last byte; changes nothing
  release VERSION  have a bundle again that this node refuses (quarantine)
  report           send queued reports to the centre
  status [--json]  how this node is
  doctor           what is configured, what is missing, what comes next

Options:
  --root DIR       put everything below DIR, and use the package manager there
  --config FILE    read this file instead of /etc/prestage/agent.toml and its drop-ins
  -v, --verbose    say more on stderr
  -h, --help       print this
  -V, --version    print the version

Exit codes: 0 done or nothing to do, 1 deferred, 2 integrity, 3 trust, 4 install failed
(node as before), 5 rolled back, 6 needs a person, 64 usage, 69 unavailable, 74 I/O,
78 configuration.
";

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
    Report,
    /// How the node is.
    Status {
        /// As JSON.
        json: bool,
    },
    /// Explain.
    Doctor,
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
    let mut path: Option<PathBuf> = None;
    let (mut now, mut json, mut everything, mut incoming) = (false, false, false, false);
    let mut listen = None;
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Action::Print(HELP.into())),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Action::Print(format!("prestage {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Arg::Short('v') | Arg::Long("verbose") => options.verbose = true,
            Arg::Long("root") => options.root = Some(parser.value().map_err(usage)?.into()),
            Arg::Long("config") => options.config = Some(parser.value().map_err(usage)?.into()),
            Arg::Long("now") if matches!(verb.as_deref(), Some("fetch" | "install" | "rollback")) => {
                now = true
            }
            Arg::Long("json") if verb.as_deref() == Some("status") => json = true,
            Arg::Long("incoming") if verb.as_deref() == Some("import") && path.is_none() => incoming = true,
            Arg::Long("listen") if verb.as_deref() == Some("share") => {
                let text = parser.value().map_err(usage)?.to_string_lossy().into_owned();
                let wrong = |_| usage(format!("--listen {text:?} is not an address and port"));
                listen = Some(text.parse().map_err(wrong)?);
            }
            Arg::Long("everything") if verb.as_deref() == Some("import") => everything = true,
            Arg::Value(value) if verb.is_none() => verb = Some(value.to_string_lossy().into_owned()),
            Arg::Value(value)
                if path.is_none()
                    && !incoming
                    && matches!(verb.as_deref(), Some("import" | "verify" | "release")) =>
            {
                path = Some(value.into())
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let mut needs_path =
        |verb: &str| path.take().ok_or_else(|| usage(format!("`prestage {verb}` needs a PATH")));
    let verb = match verb.as_deref() {
        Some("run") => Verb::Run,
        Some("fetch") => Verb::Fetch { now },
        Some("install") => Verb::Install { now },
        Some("recover") => Verb::Recover,
        Some("rollback") => Verb::Rollback { now },
        Some("import") if incoming => Verb::Import { path: None, everything },
        Some("import") => Verb::Import { path: Some(needs_path("import")?), everything },
        Some("share") => Verb::Share { listen },
        Some("verify") => Verb::Verify { path: needs_path("verify")? },
        Some("release") => {
            let name =
                path.take().ok_or_else(|| usage("`prestage release` needs the VERSION of a bundle"))?;
            Verb::Release { version: name.to_string_lossy().parse().map_err(usage)? }
        }
        Some("report") => Verb::Report,
        Some("status") => Verb::Status { json },
        Some("doctor") => Verb::Doctor,
        Some(other) => return Err(usage(format!("there is no verb {other:?}"))),
        None => return Err(usage("a verb is missing")),
    };
    Ok(Action::Run(options, verb))
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
            "report --now",
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
            "",
            "--root",
        ] {
            assert_eq!(parsed(line).unwrap_err().exit, Exit::Usage, "{line}");
        }
    }

    #[test]
    fn help_fits_one_screen() {
        assert!(HELP.lines().count() <= 38 && HELP.lines().all(|l| l.chars().count() <= 100));
    }
}
