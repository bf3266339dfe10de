//! What was pushed to this node: a folder that somebody writes with rsync while we look.
//!
//! Whether a push is whole is decided by its content, as for any mirror: metadata names every file with its hash, so a
//! file that is missing or short is found, and nothing has to be agreed with whoever pushes. rsync's temporary files only
//! explain why. Nothing here is removed: what stays is what the next push need not send again, and `--delete` of that
//! push takes away what is old.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use format::trust::MAX_TIMESTAMP;

use crate::error::{Error, Exit, Result};
use crate::fetch::open_export;
use crate::fetch::{Transport, read_all};

/// How deep a push is looked through for temporary files, in folders: an export is no deeper.
const DEPTH: u32 = 6;

/// Entries that are looked at, at most.
const MAX_ENTRIES: usize = 10_000;

/// Temporary files that are named in a message.
const NAMED: usize = 3;

/// A look at the folder.
pub struct Push {
    folder: PathBuf,
    exports: Vec<PathBuf>,
    /// Files that rsync has not finished.
    unfinished: Vec<String>,
    /// Files that are no exports, or not yet.
    unreadable: Vec<String>,
    /// Exports of a repository as it was before what this node knows.
    old: Vec<String>,
}

/// The version of a mirror's timestamp, as it says itself: nothing is taken because of it, only left alone. None, if it
/// does not say.
pub fn version_of(mirror: &dyn Transport) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Timestamp {
        signed: Signed,
    }
    #[derive(serde::Deserialize)]
    struct Signed {
        version: u64,
    }
    let bytes = read_all(mirror, "metadata/timestamp.json", MAX_TIMESTAMP).ok()?.ok()?;
    let timestamp: Timestamp = format::json::read(&bytes).ok()?;
    Some(timestamp.signed.version)
}

impl Push {
    /// Looks at `folder`: it is an export itself, or holds folders and `.tar` files that are.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn look(folder: &Path) -> Result<Push> {
        let mut push = Push {
            folder: folder.to_owned(),
            exports: Vec::new(),
            unfinished: Vec::new(),
            unreadable: Vec::new(),
            old: Vec::new(),
        };
        let mut left = MAX_ENTRIES;
        find_unfinished(folder, DEPTH, &mut left, &mut push.unfinished);
        if is_export(folder) {
            push.exports.push(folder.to_owned());
            return Ok(push);
        }
        let entries = match std::fs::read_dir(folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(push),
            other => other.map_err(|e| Error::file(folder, &e))?,
        };
        for entry in entries.flatten().take(MAX_ENTRIES) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if !name.starts_with('.') && ((is_file && name.ends_with(".tar")) || is_export(&path)) {
                push.exports.push(path);
            }
        }
        // The newest first: the first whose metadata is accepted is the one that is followed.
        push.exports.sort_by_key(|path| std::cmp::Reverse(age(path)));
        Ok(push)
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.exports.is_empty() && self.unfinished.is_empty()
    }

    /// The exports, to be read like mirrors. One that cannot be read is not whole yet, which [`Push::explain`] says if
    /// the others are not enough. One that is older than `known` is no mirror that wants to take this node back: it was
    /// pushed long ago and has stayed.
    pub fn open(&mut self, known: u64) -> Vec<Box<dyn Transport>> {
        let mut opened = Vec::new();
        for path in &self.exports {
            match open_export(path) {
                Ok(export) => match version_of(export.as_ref()) {
                    Some(version) if version < known => {
                        self.old.push(format!("{} (version {version}, here {known})", path.display()));
                    }
                    _ => opened.push(export),
                },
                Err(error) => self.unreadable.push(error.to_string()),
            }
        }
        opened
    }

    /// If all that was pushed is older than what this node has: that, in words.
    pub fn only_old(&self) -> Option<String> {
        let is_all =
            self.old.len() == self.exports.len() && !self.old.is_empty() && self.unfinished.is_empty();
        is_all
            .then(|| format!("this node already knows newer than what was pushed: {}\n", self.old.join("; ")))
    }

    /// What is missing of a push is no failure of a mirror: it may come at any moment.
    pub fn explain(&self, error: Error) -> Error {
        if error.exit != Exit::Unavailable {
            return error;
        }
        let mut what = format!("what was pushed to {} is not whole yet: ", self.folder.display());
        what += &match (self.unreadable.is_empty(), self.exports.is_empty()) {
            (false, _) => self.unreadable.join("; "),
            (true, true) => "there is no export in it yet".to_owned(),
            (true, false) => error.to_string(),
        };
        if !self.unfinished.is_empty() {
            let named: Vec<&str> = self.unfinished.iter().take(NAMED).map(String::as_str).collect();
            what += &format!("; {} files are being pushed ({} …)", self.unfinished.len(), named.join(", "));
        }
        Error::new(Exit::Deferred, what, "push again until rsync ends well; what is here is not sent again")
    }
}

/// Whether there is metadata in it, whole or not.
fn is_export(path: &Path) -> bool {
    path.join("metadata").is_dir()
}

/// When its metadata was written.
fn age(export: &Path) -> Option<SystemTime> {
    let timestamp = export.join("metadata/timestamp.json");
    [timestamp.as_path(), export].iter().find_map(|path| std::fs::metadata(path).ok()?.modified().ok())
}

/// Finds what rsync writes before it gives a file its name: `.NAME.XXXXXX`, and the folders of `--partial-dir` and
/// `--delay-updates` under their usual names.
fn find_unfinished(folder: &Path, depth: u32, left: &mut usize, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_temporary(&name) || (is_folder && matches!(name.as_str(), ".rsync-partial" | ".~tmp~")) {
            out.push(name);
        } else if is_folder && depth > 0 {
            find_unfinished(&entry.path(), depth - 1, left, out);
        }
    }
}

/// rsync(1), `--temp-dir`: a dot, the name, a dot, six characters of mkstemp(3).
fn is_temporary(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|rest| rest.rsplit_once('.'));
    parts.is_some_and(|(name, end)| {
        !name.is_empty() && end.len() == 6 && end.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_of_rsync_are_known() {
        for temporary in [".timestamp.json.Ab12Cd", ".x.000000"] {
            assert!(is_temporary(temporary), "{temporary}");
        }
        for whole in ["timestamp.json", ".json.Ab1", "1.root.json", ".Ab12Cd", "..Ab12Cd", ".x.Ab-2Cd"] {
            assert!(!is_temporary(whole), "{whole}");
        }
    }
}
