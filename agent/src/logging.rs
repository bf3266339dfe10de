//! Where log lines go: under systemd to stderr with `<N>` in front (sd-daemon(3), the journal reads the level from
//! it), otherwise to syslog, and to the terminal where somebody is looking. The only `syslog`.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;

use log::{Level, LevelFilter, Metadata, Record};

use crate::error::one_line;

type Syslog = syslog::Logger<syslog::LoggerBackend, syslog::Formatter3164>;

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
    own: LevelFilter,
}

/// Starts logging: state changes at info, and with `verbose` every step.
pub fn start(verbose: bool) {
    let terminal = verbose || std::io::stderr().is_terminal();
    let sink = if std::env::var_os("JOURNAL_STREAM").is_some() {
        Sink::Journal
    } else {
        let formatter = syslog::Formatter3164 {
            facility: syslog::Facility::LOG_DAEMON,
            hostname: None,
            process: "prestage".into(),
            pid: std::process::id(),
        };
        match syslog::unix(formatter) {
            Ok(logger) => Sink::Syslog(Box::new(Mutex::new(logger)), terminal),
            Err(_) => Sink::Stderr,
        }
    };
    let own = if verbose { LevelFilter::Debug } else { LevelFilter::Info };
    if log::set_boxed_logger(Box::new(Logger { sink, own })).is_ok() {
        log::set_max_level(own);
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak only when something is wrong.
        let ours = ["agent", "host", "format"].iter().any(|name| metadata.target().starts_with(name));
        metadata.level() <= if ours { self.own } else { LevelFilter::Warn }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = one_line(&record.args().to_string());
        match &self.sink {
            // A line that cannot be written must not stop the work.
            Sink::Journal => drop(writeln!(std::io::stderr(), "<{}>{text}", priority(record.level()))),
            Sink::Stderr => drop(writeln!(std::io::stderr(), "{text}")),
            Sink::Syslog(logger, terminal) => {
                if let Ok(mut logger) = logger.lock() {
                    let _ = match record.level() {
                        Level::Error => logger.err(&text),
                        Level::Warn => logger.warning(&text),
                        Level::Info => logger.info(&text),
                        Level::Debug | Level::Trace => logger.debug(&text),
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
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
