//! Timeshift in rsync mode: a copy of the root on another file system. The only file that knows its words.
//!
//! Its restore boots the machine by itself and does not come back; so what is intended is on the disk before. The agent's
//! own state is excluded, by a line in Timeshift's configuration that is added where it is missing: journal, reports and
//! refusals do not go back. Whether a restore came to its end is told by a file that only the deletion of what the restore
//! point has not, Timeshift's last pass over the files (`rsync --delete-after`), takes away.
//!
//! | Timeshift 22.11 | |
//! | --- | --- |
//! | `--list` without any | exit code 1 |
//! | `--tags` | refused in some versions: not given |
//! | btrfs mode | not used here: the kind `btrfs` does the same without a boot in between |

use std::path::PathBuf;

use std::os::unix::fs::MetadataExt as _;

use format::json::Json;
use format::time::UnixTime;
use host::command::{Command, CommandError};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::{Mounts, RestorePoint, RestorePoints, Restored, not_made, not_restored};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::packages::in_root;

/// Its configuration.
const CONFIGURATION: &str = "etc/timeshift/timeshift.json";

/// What must not go back: so the journal stands after a restore, and no keepsake is needed.
const OWN: &str = "/var/lib/prestage/**";

/// Outside of what is excluded, and in no restore point.
const MARKER: &str = "var/lib/prestage-restoring";

/// What a comment of ours begins with, before the label.
const COMMENT: &str = "prestage";

struct Timeshift {
    root: PathBuf,
    device: String,
    /// Patterns of what must not go back.
    excluded: Vec<String>,
}

pub(super) fn detect(
    node: &Node,
    mounts: &Mounts,
) -> std::result::Result<(Box<dyn RestorePoints>, String), String> {
    if !Command::exists(&node.root, "timeshift") {
        return Err("there is no timeshift".to_owned());
    }
    let path = node.root.join(CONFIGURATION);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let configuration = parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let device = match (&node.settings.restore.volume, mounts.root()) {
        (Some(volume), _) => volume.clone(),
        (None, Some(mount)) if mount.source.starts_with("/dev/") => mount.source.clone(),
        _ => return Err("the root file system is on no block device".to_owned()),
    };
    let mut excluded = vec![OWN.to_owned()];
    excluded.extend(node.settings.restore.data.iter().map(|path| format!("{}/**", path.display())));
    let what = format!("timeshift keeps copies of {device} on the device {configuration}");
    Ok((Box::new(Timeshift { root: node.root.clone(), device, excluded }), what))
}

/// The UUID of the device that its configuration names.
fn parse(text: &str) -> std::result::Result<String, String> {
    let value = Json::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    let field = |name: &str| value.member(name).and_then(Json::as_str).unwrap_or_default();
    if field("btrfs_mode") == "true" {
        return Err("it is in btrfs mode; the kind btrfs does the same".to_owned());
    }
    match field("backup_device_uuid") {
        "" => Err("backup_device_uuid is empty: choose where its copies go".to_owned()),
        uuid => Ok(uuid.to_owned()),
    }
}

/// The configuration with `patterns` among what it excludes; none if they are there.
fn with_excluded(text: &str, patterns: &[String]) -> std::result::Result<Option<String>, String> {
    let mut value = Json::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    let mut list = match value.take("exclude") {
        Some(Json::Array(list)) => list,
        None => Vec::new(),
        Some(_) => return Err("exclude is no list".to_owned()),
    };
    let before = list.len();
    for pattern in patterns {
        let pattern = Json::String(pattern.as_str().into());
        if !list.contains(&pattern) {
            list.push(pattern);
        }
    }
    if list.len() == before {
        return Ok(None);
    }
    value.insert("exclude", Json::Array(list)).map_err(|e| e.to_string())?;
    let mut text = format::json::indented(&value.to_text());
    text.push(b'\n');
    String::from_utf8(text).map(Some).map_err(|e| e.to_string())
}

/// The names and comments in what `--list` says: `0    >  2026-11-23_04-09-44  O  prestage ab12`. The oldest first.
fn parse_list(text: &str) -> Vec<(String, String)> {
    let is_name = |word: &&str| {
        word.len() == 19
            && word.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 | 13 | 16 => byte == b'-',
                10 => byte == b'_',
                _ => byte.is_ascii_digit(),
            })
    };
    let mut found: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| {
            let name = line.split_whitespace().find(is_name)?;
            let comment = line.split_once(COMMENT).map_or("", |(_, rest)| rest.trim());
            Some((name.to_owned(), comment.to_owned())).filter(|_| line.contains(COMMENT))
        })
        .collect();
    found.sort();
    found
}

impl Timeshift {
    fn command(&self, args: &[&str]) -> Command {
        in_root(&self.root, Command::new("timeshift").args(args).arg("--scripted"), false)
    }

    fn list(&self) -> std::result::Result<Vec<(String, String)>, String> {
        let mut text = String::new();
        let result = self.command(&["--list"]).lines(&mut |line| {
            text.push_str(line);
            text.push('\n');
            Ok(())
        });
        match result {
            // None at all: 1.
            Ok(_) | Err(CommandError::Failed { .. }) => Ok(parse_list(&text)),
            Err(other) => Err(other.to_string()),
        }
    }

    /// What must not go back is not in the restore points.
    fn exclude(&self) -> std::result::Result<(), String> {
        let path = self.root.join(CONFIGURATION);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let Some(text) = with_excluded(&text, &self.excluded)? else { return Ok(()) };
        log::info!("{}: {} are excluded from now on", path.display(), self.excluded.join(" and "));
        host::file::replace(&path, text.as_bytes(), 0o644).map_err(|e| e.to_string())
    }

    fn find(&self, label: &str) -> std::result::Result<Option<RestorePoint>, String> {
        let found = self.list()?.into_iter().find(|(_, comment)| comment == label);
        Ok(found.map(|(id, _)| RestorePoint { kind: "timeshift".to_owned(), id }))
    }

    fn delete(&self, id: &str) -> std::result::Result<(), String> {
        log::info!("removing the restore point {id}");
        self.command(&["--delete", "--snapshot", id]).output().map(|_| ()).map_err(|e| e.to_string())
    }
}

impl Timeshift {
    /// Gives every file that was written since `point` a time of its own.
    ///
    /// Timeshift restores with rsync, which takes a file of the same length and time of modification for the same
    /// (rsync(1), "quick check"), and a package manager gives files the times of their package: what differs in content
    /// alone would stay as the update has left it. The time of change (ctime, inode(7)) is nobody's to set, and tells.
    fn show_changes(&self, point: &RestorePoint) -> std::result::Result<(), String> {
        let since = taken(&point.id).ok_or_else(|| format!("{:?} has no time in it", point.id))?;
        let path = self.root.join(CONFIGURATION);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut apart: Vec<PathBuf> = excluded_folders(&text)?;
        apart.extend(NOT_OF_PACKAGES.map(PathBuf::from));
        let apart: Vec<PathBuf> =
            apart.iter().map(|path| self.root.join(path.strip_prefix("/").unwrap_or(path))).collect();
        let device = std::fs::metadata(&self.root).map_err(|e| e.to_string())?.dev();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let Ok(meta) = entry.metadata() else { continue };
                if meta.dev() != device || apart.contains(&path) {
                    continue;
                }
                if meta.is_dir() {
                    folders.push(path);
                } else if meta.is_file() && meta.ctime() >= since {
                    // A file that cannot have it is found by whoever proves the node's return.
                    let now = TimeSpec::UTIME_NOW;
                    if let Err(e) = utimensat(
                        AT_FDCWD,
                        &path,
                        &TimeSpec::UTIME_OMIT,
                        &now,
                        UtimensatFlags::NoFollowSymlink,
                    ) {
                        log::warn!("{}: {e}", path.display());
                    }
                }
            }
        }
        Ok(())
    }
}

/// No package manager writes here; what has changed is somebody's own.
const NOT_OF_PACKAGES: [&str; 4] = ["/home", "/root", "/srv", "/tmp"];

/// The earliest moment at which a restore point of this name can have been taken, in seconds since 1970: names are in
/// local time, so that is a day before what it would be in UTC. Earlier is safe: more is restored than need be.
fn taken(name: &str) -> Option<i64> {
    let (date, time) = name.split_once('_')?;
    let utc: UnixTime = format!("{date}T{}Z", time.replace('-', ":")).parse().ok()?;
    Some(utc.0 - 24 * 60 * 60)
}

/// The folders that the configuration leaves out with all that is in them.
fn excluded_folders(text: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let value = Json::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    let Some(Json::Array(list)) = value.member("exclude") else { return Ok(Vec::new()) };
    let folders = list.iter().filter_map(Json::as_str).filter_map(|pattern| pattern.strip_suffix("/**"));
    Ok(folders.map(PathBuf::from).collect())
}

impl RestorePoints for Timeshift {
    fn kind(&self) -> &'static str {
        "timeshift"
    }

    fn ready(&self, _needed: u64) -> Result<()> {
        // Whether there is room on its device, Timeshift looks itself before it writes.
        self.list().map(|_| ()).map_err(|e| not_made(self.kind(), e))
    }

    fn create(&self, label: &str, _needed: u64) -> Result<Option<RestorePoint>> {
        let failed = |why: String| not_made(self.kind(), why);
        self.exclude().map_err(failed)?;
        // One that was interrupted is in the list as well, and may not be whole: it is made again.
        if let Some(half) = self.find(label).map_err(failed)? {
            self.delete(&half.id).map_err(failed)?;
        }
        let comment = format!("{COMMENT} {label}");
        self.command(&["--create", "--comments", &comment]).output().map_err(|e| failed(e.to_string()))?;
        let point = self.find(label).map_err(failed)?;
        point.map(Some).ok_or_else(|| failed("timeshift --create has ended well, and there is none".into()))
    }

    fn is_there(&self, point: &RestorePoint) -> Result<bool> {
        let list = self.list().map_err(|e| not_restored(point, e))?;
        Ok(list.iter().any(|(id, _)| *id == point.id))
    }

    fn restore(&self, point: &RestorePoint) -> Result<Restored> {
        let failed = |why: String| not_restored(point, why);
        if !self.is_there(point)? {
            return Err(failed("it is not there any more".into()));
        }
        // Also where an operator has taken it out since.
        self.exclude().map_err(failed)?;
        self.show_changes(point).map_err(failed)?;
        host::file::replace(&self.root.join(MARKER), b"removed when the restore has ended\n", 0o600)?;
        self.command(&[
            "--restore",
            "--yes",
            "--snapshot",
            &point.id,
            "--target-device",
            &self.device,
            "--skip-grub",
        ])
        .output()
        .map_err(|e| failed(e.to_string()))?;
        Ok(Restored::OnNextBoot)
    }

    fn has_returned(&self, _point: &RestorePoint) -> Result<bool> {
        Ok(!self.root.join(MARKER).exists())
    }

    fn prune(&self, keep: usize, newest: Option<&RestorePoint>) -> Result<()> {
        let mut ids: Vec<String> =
            self.list().map_err(Error::deferred)?.into_iter().map(|(id, _)| id).collect();
        let before = ids.len();
        ids.retain(|id| newest.is_none_or(|n| n.id != *id));
        let kept = keep.saturating_sub(before - ids.len());
        ids.reverse();
        for id in ids.iter().skip(kept) {
            self.delete(id).map_err(Error::deferred)?;
        }
        Ok(())
    }

    fn tend(&self) -> Result<Option<String>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Timeshift 22.11.2 on Debian 12.
    const LIST: &str = "\
Mounted '/dev/vdb' at '/run/timeshift/1234/backup'
Device : /dev/vdb
UUID   : 0d3e1f6e-7c4f-4a6b-9d0e-0f2c1c6f0c11
Path   : /run/timeshift/1234/backup
Mode   : RSYNC
Status : OK
3 snapshots, 1.9 GB free

Num     Name                 Tags  Description
------------------------------------------------------------------------------
0    >  2026-11-23_04-09-44  O     prestage ab12
1    >  2026-11-23_04-20-01  O     before I tried something
2    >  2026-11-22_04-30-00  O     prestage 00ff
";

    #[test]
    fn what_was_written_since_shows_by_its_time_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        for path in ["usr/share/till", "home/till", "var/lib/till/sales", "etc/timeshift/timeshift.json"] {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, br#"{"exclude": ["/var/lib/till/**", "*.log"]}"#).unwrap();
            // As a package manager does it: the content is new, its time is the package's.
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        }
        let points = Timeshift { root: root.to_owned(), device: String::new(), excluded: Vec::new() };
        let modified = |path: &str| std::fs::metadata(root.join(path)).unwrap().modified().unwrap();
        let point = |id: &str| RestorePoint { kind: "timeshift".to_owned(), id: id.to_owned() };
        // Nothing was written since.
        points.show_changes(&point("2999-01-01_00-00-00")).unwrap();
        assert_eq!(modified("usr/share/till"), old);
        points.show_changes(&point("2020-01-01_00-00-00")).unwrap();
        assert_ne!(modified("usr/share/till"), old);
        assert_eq!((modified("home/till"), modified("var/lib/till/sales")), (old, old));
        assert!(points.show_changes(&point("yesterday")).is_err());
    }

    #[test]
    fn only_our_own_are_taken_from_the_list() {
        let list = parse_list(LIST);
        assert_eq!(
            list,
            [
                ("2026-11-22_04-30-00".to_owned(), "00ff".to_owned()),
                ("2026-11-23_04-09-44".to_owned(), "ab12".to_owned())
            ]
        );
        assert_eq!(parse_list("No snapshots found\n"), []);
    }

    #[test]
    fn our_own_state_is_excluded_once_and_nothing_else_of_the_configuration_changes() {
        let text = r#"{"backup_device_uuid":"0d3e","exclude":["/root/**"],"schedule_daily":"false"}"#;
        let patterns = [OWN.to_owned(), "/var/lib/till/**".to_owned()];
        let changed = with_excluded(text, &patterns).unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_str(&changed).unwrap();
        assert_eq!(value["exclude"], serde_json::json!(["/root/**", OWN, "/var/lib/till/**"]));
        assert_eq!(
            (value["backup_device_uuid"].as_str(), value["schedule_daily"].as_str()),
            (Some("0d3e"), Some("false"))
        );
        assert_eq!(with_excluded(&changed, &patterns), Ok(None));
        assert!(with_excluded("[]", &patterns).is_err());
        assert_eq!(parse(text).as_deref(), Ok("0d3e"));
        assert!(parse(r#"{"backup_device_uuid":""}"#).is_err());
        assert!(parse(r#"{"backup_device_uuid":"0d3e","btrfs_mode":"true"}"#).is_err());
    }
}
