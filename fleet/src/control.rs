//! What an operator or a crossed threshold asks for is published by another program, which has the keys: `prestage-build`.
//!
//! This server has no key that any node believes. What it may have done is what the configured command does, with arguments
//! that are filled in one by one; no shell sees them.

use std::fmt;
use std::process::{Command, Stdio};

use crate::app::Shared;
use crate::config::ControlSettings;

/// The most that the command may say.
const MAX_OUTPUT: u64 = 64 * 1024;

/// So much of it is kept.
const MAX_MESSAGE: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `pause`, `halt`, `resume`, `rollback`, `release`.
    pub action: String,
    /// `NAMESPACE/NAME`.
    pub policy: String,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub by: String,
    /// Which bundle, for a release.
    pub bundle: String,
    /// For refusals before this time, for a release.
    pub before: String,
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// Nobody has said how.
    NotConfigured(&'static str),
    /// The command failed.
    Failed(String),
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotDone::NotConfigured(key) => {
                write!(f, "this server cannot publish: [control] {key} is not set (docs/usage/fleet.md)")
            }
            NotDone::Failed(why) => write!(f, "the control command failed: {why}"),
        }
    }
}

/// The program and its arguments, each place filled in. What is filled in is never looked at for places again.
fn fill(template: &[String], asked: &Asked) -> Vec<String> {
    let places = [
        ("{action}", &asked.action),
        ("{policy}", &asked.policy),
        ("{reason}", &asked.reason),
        ("{by}", &asked.by),
        ("{bundle}", &asked.bundle),
        ("{before}", &asked.before),
    ];
    let fill = |part: &String| {
        let mut out = String::new();
        let mut rest = part.as_str();
        while let Some(at) = rest.find('{') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            match places.iter().find(|(place, _)| rest.starts_with(place)) {
                Some((place, value)) => {
                    // A program reads its arguments up to a NUL; and a reason is one line.
                    out.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
                    rest = &rest[place.len()..];
                }
                None => {
                    out.push('{');
                    rest = &rest[1..];
                }
            }
        }
        out + rest
    };
    template.iter().map(fill).collect()
}

/// Has it published; what the command said.
///
/// # Errors
/// If it is not configured, or failed.
pub async fn run(app: &Shared, asked: Asked) -> Result<String, NotDone> {
    let settings = app.settings.control.clone();
    let failed = |e: tokio::task::JoinError| NotDone::Failed(e.to_string());
    let result = tokio::task::spawn_blocking(move || run_now(&settings, &asked)).await.map_err(failed)?;
    // What was published is to be seen at once.
    app.wake.notify_one();
    result
}

fn run_now(settings: &ControlSettings, asked: &Asked) -> Result<String, NotDone> {
    let (template, key) = match asked.action.as_str() {
        "release" => (&settings.release_command, "release-command"),
        _ => (&settings.command, "command"),
    };
    let arguments = fill(template, asked);
    let Some((program, arguments)) = arguments.split_first() else {
        return Err(NotDone::NotConfigured(key));
    };
    log::info!("{} {} for {}: {}", asked.action, asked.policy, asked.by, asked.reason);
    let errors = tempfile().map_err(|e| NotDone::Failed(e.to_string()))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stderr(Stdio::from(errors.try_clone().map_err(|e| NotDone::Failed(e.to_string()))?));
    let answer = host::dialogue::ask(command, Vec::new(), MAX_OUTPUT, settings.timeout);
    let said = read_back(errors);
    match answer {
        Ok(output) => Ok(short(&String::from_utf8_lossy(&output))),
        Err(why) => Err(NotDone::Failed(short(&format!("{program} {why}: {said}")))),
    }
}

/// A file without a name, for what the command writes to stderr.
fn tempfile() -> std::io::Result<std::fs::File> {
    let mut last = std::io::Error::other("no free name");
    for _ in 0..16 {
        let name = crate::auth::new_id().map_err(std::io::Error::other)?;
        let path = std::env::temp_dir().join(format!("prestage-fleet-{name}"));
        match std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn read_back(mut file: std::fs::File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut text = Vec::new();
    let end = file.seek(std::io::SeekFrom::End(0)).unwrap_or(0);
    let start = end.saturating_sub(MAX_MESSAGE as u64);
    let read = file.seek(std::io::SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut text));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// One line, not too long.
fn short(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            action: "halt".into(),
            policy: "ops/tills".into(),
            reason: "--key=/etc/passwd; {by} $(reboot)\n".into(),
            by: "ann".into(),
            ..Asked::default()
        }
    }

    #[test]
    fn what_is_filled_in_stays_one_argument_and_is_not_filled_again() {
        let template = ["/bin/x", "{action}", "{policy}", "--reason={reason}", "--by={by}", "{other}"];
        let filled = fill(&template.map(str::to_owned), &asked());
        assert_eq!(
            filled,
            [
                "/bin/x",
                "halt",
                "ops/tills",
                "--reason=--key=/etc/passwd; {by} $(reboot) ",
                "--by=ann",
                "{other}"
            ]
        );
    }

    #[test]
    fn a_command_that_fails_says_why_and_one_that_hangs_is_killed() {
        let command = |script: &str| ControlSettings {
            command: ["/bin/sh", "-c", script, "{action}"].map(str::to_owned).to_vec(),
            timeout: std::time::Duration::from_millis(300),
            ..ControlSettings::default()
        };
        assert_eq!(run_now(&command("echo done"), &asked()), Ok("done".into()));
        let Err(NotDone::Failed(why)) = run_now(&command("echo because >&2; exit 3"), &asked()) else {
            panic!()
        };
        assert!(why.contains("because") && why.contains('3'), "{why}");
        let Err(NotDone::Failed(why)) = run_now(&command("sleep 60"), &asked()) else { panic!() };
        assert!(why.contains("killed"), "{why}");
        assert!(matches!(run_now(&ControlSettings::default(), &asked()), Err(NotDone::NotConfigured(_))));
    }
}
