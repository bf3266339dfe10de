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

use format::json::Json;
use host::command::{Command, CommandError};

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
