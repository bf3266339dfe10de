//! Where log lines go: under systemd to stderr with `<N>` in front (sd-daemon(3), the journal reads the level from
//! it), otherwise to syslog, and to the terminal where somebody is looking. The only `syslog`.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;

use log::{Level, LevelFilter, Metadata, Record};

use crate::error::one_line;

type Syslog = syslog::Logger<syslog::LoggerBackend, Line>;

/// A line as programs give it to the syslog daemon of their own machine, which puts the time in front, in its own zone
/// (what the C library's time would say in UTC, the daemon would take for local).
#[derive(Clone)]
struct Line;

impl syslog::LogFormat<&str> for Line {
    fn format<W: std::io::Write>(
        &self,
        to: &mut W,
        severity: syslog::Severity,
        text: &str,
    ) -> syslog::Result<()> {
        let priority = syslog::Facility::LOG_DAEMON as u8 | severity as u8;
        write!(to, "<{priority}>prestage[{}]: {text}", std::process::id()).map_err(syslog::Error::Write)
    }
}

enum Sink {
    /// stderr is the journal.
    Journal,
    /// syslogd, and stderr too if somebody is looking.
    Syslog(Box<Mutex<Syslog>>, bool),
    /// Neither: plain lines on stderr.
    Stderr,
}

struct Logger {
    sink: Sink,
    /// Every step, or what changed alone.
    is_verbose: bool,
}

/// Starts logging: state changes at info, and with `verbose` every step.
pub fn start(verbose: bool) {
    let terminal = verbose || std::io::stderr().is_terminal();
    let sink = if std::env::var_os("JOURNAL_STREAM").is_some() {
        Sink::Journal
    } else {
        match syslog::unix(Line) {
            Ok(logger) => Sink::Syslog(Box::new(Mutex::new(logger)), terminal),
            Err(_) => Sink::Stderr,
        }
    };
    if log::set_boxed_logger(Box::new(Logger { sink, is_verbose: verbose })).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target() == host::DETAIL {
            return self.is_verbose;
        }
        // Libraries speak only when something is wrong.
        let ours = ["agent", "host", "format"].iter().any(|name| metadata.target().starts_with(name));
        metadata.level() <= if ours { Level::Info } else { Level::Warn }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = one_line(&record.args().to_string());
        match &self.sink {
            // A line that cannot be written must not stop the work.
            Sink::Journal => drop(writeln!(std::io::stderr(), "<{}>{text}", priority(record))),
            Sink::Stderr => drop(writeln!(std::io::stderr(), "{text}")),
            Sink::Syslog(logger, terminal) => {
                if let Ok(mut logger) = logger.lock() {
                    let _ = match priority(record) {
                        3 => logger.err(text.as_str()),
                        4 => logger.warning(text.as_str()),
                        6 => logger.info(text.as_str()),
                        _ => logger.debug(text.as_str()),
                    };
                }
                if *terminal {
                    drop(writeln!(std::io::stderr(), "{text}"));
                }
            }
        }
    }

    fn flush(&self) {}
}

/// The levels of syslog(3).
fn priority(record: &Record<'_>) -> u8 {
    match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info if record.target() != host::DETAIL => 6,
        _ => 7,
    }
}
