//! Reports that wait for the centre: a folder with a file for each, in the order of events.
//!
//! Bounded in number and bytes: what goes first are lists of changes, oldest first; then reports that only say that the node
//! waits; outcomes last. What was dropped is said in the report for which room was made. On a full disk an outcome is written
//! over a file that was made while there was room, so that it needs no new block.
//!
//! The folder belongs to the fetch user, and so does every act in it, whoever calls.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use format::envelope::MAX_BATCH;
use format::report::Report;
use host::file;
use host::rights::with_rights_of;

use crate::error::{Error, Result};
use crate::node::Node;

/// The most reports that wait. An export of all of them, and of the status, is one batch.
const MAX_QUEUED: usize = 450;

/// The most bytes that wait: with what a signature adds they are still one batch.
const MAX_BYTES: u64 = (MAX_BATCH - 512 * 1024 - MAX_QUEUED * 512) as u64;

/// The largest report. It is sent in one piece, which is in memory; with more it goes without its list of changes.
pub const MAX_REPORT: u64 = 256 * 1024;

/// The longest message, in bytes: more is no sentence.
const MAX_MESSAGE: usize = 4096;

/// The most reports that are kept aside because nobody can use them.
const MAX_ASIDE: usize = 20;

/// The largest number that a report's name begins with: what is written with fifteen digits, so that names stay in the
/// order of numbers.
const MAX_NUMBER: i64 = 999_999_999_999_999;

/// What is kept for a full disk: a fetch and an install, each with its end told twice.
const RESERVES: usize = 4;

/// Bytes of each: a report without its changes.
const RESERVE: usize = 8 * 1024;

/// The message as it is told: on a full disk it must fit into a reserve.
pub fn message(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Puts a report into the queue. One that is there already, told again after an interruption, stays as it is.
///
/// # Errors
/// If it cannot be written, and nothing could be dropped for it.
pub fn put(node: &Node, report: Report) -> Result<()> {
    let folder = node.reports();
    let name = format!("-{}.json", report.id.short());
    let waiting = files(node);
    if waiting.iter().any(|path| path.to_string_lossy().ends_with(&name)) {
        return Ok(());
    }
    // Milliseconds first, so that names are in the order of events; and never before what is queued already, whatever
    // the clock does.
    let after_last = waiting.last().and_then(|last| number_of(last)).map_or(0, |last| last + 1);
    let number = after_last.max(report.at.0.max(0).saturating_mul(1000)).min(MAX_NUMBER);
    let path = folder.join(format!("{number:015}{name}"));
    let reserve = reserve(node);
    Ok(with_rights_of(&folder, || write(report, &path, waiting, &reserve))?)
}

fn write(mut report: Report, path: &Path, waiting: Vec<PathBuf>, reserve: &Path) -> io::Result<()> {
    let mut bytes = to_bytes(&report)?;
    if bytes.len() as u64 > MAX_REPORT {
        report.omit_changes();
        bytes = to_bytes(&report)?;
    }
    let sizes = waiting.into_iter().map(|path| {
        let bytes = fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
        (path, bytes)
    });
    let cut = Cut::of(sizes.collect(), bytes.len() as u64, &mut |path| read(path).ok().flatten());
    if cut.reports > 0 {
        report.omitted.get_or_insert_default().reports += cut.reports;
        bytes = to_bytes(&report)?;
    }
    match file::replace(path, &bytes, 0o644) {
        // Too little room for what is new is too little for anything that is rewritten.
        Err(e) if is_full(&e) => return write_on_full_disk(report, path, reserve),
        other => other?,
    }
    cut.make()?;
    make_reserve(reserve);
    Ok(())
}

/// The outcome goes where room was kept; otherwise to where something of less worth was.
fn write_on_full_disk(mut report: Report, path: &Path, reserve: &Path) -> io::Result<()> {
    report.omit_changes();
    if write_over_reserve(&to_bytes(&report)?, path, reserve).is_ok() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    let mut worthless = aside(folder);
    if !report.outcome.is_waiting() {
        worthless.extend(
            list(folder, "json")
                .into_iter()
                .filter(|path| read(path).ok().flatten().is_some_and(|report| report.outcome.is_waiting())),
        );
    }
    let mut worthless = worthless.into_iter();
    loop {
        let full = match file::replace(path, &to_bytes(&report)?, 0o644) {
            Err(e) if is_full(&e) => e,
            other => return other,
        };
        let Some(next) = worthless.next() else { return Err(full) };
        log::warn!("the disk is full; {} is dropped", next.display());
        if next.extension().is_some_and(|e| e == "json") {
            report.omitted.get_or_insert_default().reports += 1 + dropped_for(&next);
        }
        file::remove(&next)?;
    }
}

/// How many reports were dropped for the one at `path`.
fn dropped_for(path: &Path) -> u64 {
    read(path).ok().flatten().and_then(|report| report.omitted).map_or(0, |omitted| omitted.reports)
}

/// Writes over a file that has its blocks already, and gives it the name.
fn write_over_reserve(bytes: &[u8], path: &Path, reserve: &Path) -> io::Result<()> {
    if bytes.len() > RESERVE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let reserved = fs::read_dir(reserve)?.next().ok_or(io::ErrorKind::NotFound)??.path();
    let mut file = File::options().write(true).open(&reserved)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    fs::rename(&reserved, path)?;
    file::sync_folder_of(path)
}

/// Makes what is missing of the reserve, as long as there is room.
fn make_reserve(folder: &Path) {
    let make = || {
        file::make_folder(folder, 0o755)?;
        for n in 0..RESERVES {
            let path = folder.join(n.to_string());
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() == RESERVE as u64) {
                continue;
            }
            file::replace(&path, &[b' '; RESERVE], 0o644)?;
        }
        Ok(())
    };
    if let Err::<(), io::Error>(error) = make() {
        log::debug!("no reserve for a full disk: {error}");
    }
}

fn reserve(node: &Node) -> PathBuf {
    node.fetched("reserve")
}

/// What goes so that a new report has room.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cut {
    /// These are written again without their changes.
    strip: Vec<PathBuf>,
    /// These go.
    drop: Vec<PathBuf>,
    /// How many reports that are, with those that were dropped for them.
    reports: u64,
}

impl Cut {
    /// `waiting`: oldest first, with their sizes. `more`: the size of the new one. `read`: one of them, if it can be read.
    fn of(waiting: Vec<(PathBuf, u64)>, more: u64, read: &mut dyn FnMut(&Path) -> Option<Report>) -> Cut {
        /// What a report is without its changes, about.
        const SMALL: u64 = 2048;
        let mut cut = Cut::default();
        let mut bytes = waiting.iter().map(|(_, bytes)| bytes).sum::<u64>() + more;
        let mut number = waiting.len() + 1;
        for (path, size) in &waiting {
            if bytes <= MAX_BYTES {
                break;
            }
            if *size > SMALL && read(path).is_some_and(|report| !report.changes.is_empty()) {
                cut.strip.push(path.clone());
                bytes = bytes - size + SMALL;
            }
        }
        if bytes <= MAX_BYTES && number <= MAX_QUEUED {
            return cut;
        }
        let (waits, outcomes): (Vec<_>, Vec<_>) =
            waiting.iter().partition(|(path, _)| read(path).is_none_or(|report| report.outcome.is_waiting()));
        for (path, size) in waits.into_iter().chain(outcomes) {
            if bytes <= MAX_BYTES && number <= MAX_QUEUED {
                break;
            }
            let is_stripped = cut.strip.contains(path);
            cut.strip.retain(|stripped| stripped != path);
            bytes -= if is_stripped { SMALL } else { *size };
            number -= 1;
            let carried = read(path).and_then(|report| report.omitted).map_or(0, |omitted| omitted.reports);
            cut.reports += 1 + carried;
            cut.drop.push(path.clone());
        }
        cut
    }

    fn make(self) -> io::Result<()> {
        for path in self.strip {
            let Some(mut report) = read(&path)? else { continue };
            log::warn!("too much waits; {} goes without its list of changes", path.display());
            report.omit_changes();
            file::replace(&path, &to_bytes(&report)?, 0o644)?;
        }
        for path in self.drop {
            log::warn!(
                "more than {MAX_QUEUED} reports or {MAX_BYTES} bytes wait; {} is dropped",
                path.display()
            );
            file::remove(&path)?;
        }
        Ok(())
    }
}

/// A report of the queue; none, if it is no report or is gone meanwhile.
fn read(path: &Path) -> io::Result<Option<Report>> {
    let bytes = file::read_limited(path, 2 * MAX_REPORT)?;
    Ok(bytes.and_then(|bytes| Report::parse(&bytes).ok()))
}

fn to_bytes(report: &Report) -> io::Result<Vec<u8>> {
    serde_json::to_vec(report).map_err(Into::into)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// One report that waits, as it is on the disk.
pub struct Waiting {
    /// Where.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub report: Report,
}

/// The report at `path`. One that cannot be used is put aside; none then, and if it is gone meanwhile.
///
/// # Errors
/// If it cannot be read, or not put aside.
pub fn take(node: &Node, path: PathBuf) -> Result<Option<Waiting>> {
    let folder = node.reports();
    let read = with_rights_of(&folder, || file::read_limited(&path, 2 * MAX_REPORT));
    let bytes = match read {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        // Larger than any that is written here, or no file: somebody's game.
        Err(e) if matches!(e.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput) => {
            put_aside(node, &path, &e.to_string())?;
            return Ok(None);
        }
        Err(e) => return Err(e.into()),
    };
    match Report::parse(&bytes) {
        Ok(report) => Ok(Some(Waiting { path, bytes, report })),
        Err(why) => {
            put_aside(node, &path, &why)?;
            Ok(None)
        }
    }
}

/// Removes a report that the centre has.
///
/// # Errors
/// If it cannot be removed.
pub fn remove(node: &Node, path: &Path) -> Result<()> {
    Ok(with_rights_of(&node.reports(), || file::remove(path))?)
}

/// Keeps a report aside that nobody takes, with the reason, and the newest of them only.
///
/// # Errors
/// If it cannot be renamed.
pub fn put_aside(node: &Node, path: &Path, why: &str) -> Result<()> {
    let why = crate::error::one_line(why);
    log::warn!("{}: {why}; it is kept aside", path.display());
    let folder = node.reports();
    let rename = || {
        fs::rename(path, path.with_extension("refused"))?;
        // Worth having, but not a failure where the disk is full.
        let _ = file::replace(&path.with_extension("reason"), format!("{why}\n").as_bytes(), 0o644);
        for old in aside(&folder).iter().rev().skip(MAX_ASIDE) {
            file::remove(old)?;
            file::remove(&old.with_extension("reason"))?;
        }
        Ok(())
    };
    with_rights_of(&folder, rename).map_err(|e| Error::file(path, &e))
}

/// How many are aside.
pub fn refused(node: &Node) -> u64 {
    aside(&node.reports()).len() as u64
}

/// The queue, oldest first.
pub fn files(node: &Node) -> Vec<PathBuf> {
    list(&node.reports(), "json")
}

fn aside(folder: &Path) -> Vec<PathBuf> {
    list(folder, "refused")
}

fn list(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// When the newest report was made, in seconds.
pub fn newest(node: &Node) -> Option<i64> {
    files(node).last().and_then(|path| number_of(path)).map(|number| number / 1000)
}

/// The number that a queued report's name begins with. The queue belongs to the fetch user: another name is no number.
fn number_of(path: &Path) -> Option<i64> {
    let number = path.file_name()?.to_str()?.split('-').next()?.parse().ok()?;
    (0..MAX_NUMBER).contains(&number).then_some(number)
}
