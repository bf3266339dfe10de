//! LVM: a thin snapshot of the root volume, or a classic one. The only file that knows the words of lvm(8).
//!
//! | | thin | classic |
//! | --- | --- | --- |
//! | costs | what changes, of the pool | a size of its own, of the volume group; it dies when that is full |
//! | restored | at the next activation, at once | from the next activation on, in the background |
//!
//! A merge of the root volume happens when it is activated next, so at the next boot; until then the running system shows
//! the new state, and what it writes is lost. A pool that is full kills every volume in it: after `no_space_timeout` writes
//! fail, ext4 stays writable all the same, and `lvextend` brings it back. So its filling is looked at before and during.
//!
//! A keepsake goes into tags of both volumes: after the merge the one is the other, and which of them gives the tags is
//! nothing to rely on.

use std::path::{Path, PathBuf};

use host::command::{Command, CommandError};

use super::keepsake::{Keepsake, from_hex, to_hex};
use super::{Mounts, PREFIX, RestorePoint, RestorePoints, Restored, name_of, not_made, not_restored};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::packages::in_root;

/// The columns that are asked for, of all volumes.
const COLUMNS: &str = "vg_name,lv_name,lv_attr,lv_size,origin,pool_lv,data_percent,metadata_percent,lv_merging,lv_tags,\
                       vg_free,lv_time";

/// A pool that is fuller than this while a package manager works loses its restore points: the volumes in it come first.
const POOL_DANGER: f64 = 95.0;

/// A classic snapshot that is fuller than this is made larger, by half of its size.
const GROW_AT: f64 = 70.0;

/// The least size of a classic snapshot.
const LEAST_SIZE: u64 = 256 * 1024 * 1024;

/// What a tag of a keepsake begins with. Tags hold letters, digits and `_+.-/=!:#&`, up to 1024 of them (lvm(8)).
const TAG: &str = "prestage.keepsake";

/// Hexadecimal digits in one tag.
const DIGITS: usize = 900;

/// One logical volume, as `lvs` tells it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Volume {
    group: String,
    name: String,
    attr: String,
    size: u64,
    origin: String,
    pool: String,
    /// Percent; of a pool, a thin volume or a classic snapshot.
    data: Option<f64>,
    metadata: Option<f64>,
    is_merging: bool,
    tags: Vec<String>,
    /// Bytes that no volume of the group has.
    group_free: u64,
    time: String,
}

impl Volume {
    fn path(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }
}

/// Reads `lvs --reportformat json --units b --nosuffix`.
fn parse(text: &str) -> std::result::Result<Vec<Volume>, String> {
    let report: serde_json::Value =
        serde_json::from_slice(text.as_bytes()).map_err(|e| format!("lvs wrote no JSON: {e}"))?;
    let lists = report.get("report").and_then(|r| r.as_array()).ok_or("lvs wrote no report")?;
    let volumes = lists.iter().filter_map(|list| list.get("lv")?.as_array()).flatten();
    let volume = |row: &serde_json::Value| {
        let field = |name: &str| row.get(name).and_then(|v| v.as_str()).unwrap_or_default().trim().to_owned();
        let bytes = |name: &str| field(name).parse().unwrap_or(0);
        let percent = |name: &str| field(name).parse().ok();
        Volume {
            group: field("vg_name"),
            // Hidden ones are in brackets.
            name: field("lv_name").trim_matches(['[', ']']).to_owned(),
            attr: field("lv_attr"),
            size: bytes("lv_size"),
            origin: field("origin").trim_matches(['[', ']']).to_owned(),
            pool: field("pool_lv").trim_matches(['[', ']']).to_owned(),
            data: percent("data_percent"),
            metadata: percent("metadata_percent"),
            is_merging: !field("lv_merging").is_empty(),
            tags: field("lv_tags").split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect(),
            group_free: bytes("vg_free"),
            time: field("lv_time"),
        }
    };
    Ok(volumes.map(volume).collect())
}

/// Restore points of a root that is a logical volume.
struct Lvm {
    root: PathBuf,
    is_thin: bool,
    /// `GROUP/NAME` of the root volume.
    origin: String,
    /// Of the file system on it.
    filesystem: String,
    /// A pool that is fuller than this, in percent, takes no restore point.
    pool_limit: f64,
    /// `[restore] size`.
    size: Option<u64>,
}

pub(super) fn detect_thin(
    node: &Node,
    mounts: &Mounts,
) -> std::result::Result<(Box<dyn RestorePoints>, String), String> {
    let (lvm, volumes) = detect(node, mounts, true)?;
    let origin = find(&volumes, &lvm.origin).ok_or("lvs does not list the root volume")?;
    if origin.pool.is_empty() {
        return Err(format!("{} is no thin volume", lvm.origin));
    }
    let pool = find(&volumes, &format!("{}/{}", origin.group, origin.pool))
        .ok_or_else(|| format!("lvs does not list the pool {}", origin.pool))?;
    let fill = |p: Option<f64>| p.map_or("?".to_owned(), |p| format!("{p:.0} %"));
    let what = format!(
        "{} is a thin volume; its pool {} has data {}, metadata {} full",
        lvm.origin,
        pool.path(),
        fill(pool.data),
        fill(pool.metadata)
    );
    Ok((Box::new(lvm), what))
}

pub(super) fn detect_classic(
    node: &Node,
    mounts: &Mounts,
) -> std::result::Result<(Box<dyn RestorePoints>, String), String> {
    let (lvm, volumes) = detect(node, mounts, false)?;
    let origin = find(&volumes, &lvm.origin).ok_or("lvs does not list the root volume")?;
    if !origin.pool.is_empty() {
        return Err(format!("{} is a thin volume: see lvm-thin", lvm.origin));
    }
    if origin.group_free < LEAST_SIZE {
        return Err(format!(
            "the volume group {} has {} MiB that no volume has, and a snapshot needs {} MiB at least",
            origin.group,
            origin.group_free / 1024 / 1024,
            LEAST_SIZE / 1024 / 1024
        ));
    }
    let free = origin.group_free / 1024 / 1024;
    let what = format!("{} is a logical volume, and its group has {free} MiB for a snapshot", lvm.origin);
    Ok((Box::new(lvm), what))
}

fn detect(node: &Node, mounts: &Mounts, is_thin: bool) -> std::result::Result<(Lvm, Vec<Volume>), String> {
    let settings = &node.settings.restore;
    let mount = mounts.root();
    let filesystem = mount.map(|m| m.filesystem.clone()).unwrap_or_default();
    let source = match (&settings.volume, mount) {
        (Some(volume), _) => volume.clone(),
        (None, Some(mount)) if mount.source.starts_with("/dev/") => mount.source.clone(),
        _ => return Err("the root file system is on no block device".to_owned()),
    };
    if !Command::exists(&node.root, "lvs") {
        return Err("there is no lvs (package lvm2)".to_owned());
    }
    let mut lvm = Lvm {
        root: node.root.clone(),
        is_thin,
        origin: String::new(),
        filesystem,
        pool_limit: f64::from(settings.pool_limit),
        size: settings.size,
    };
    let named = lvm.list(&[source.as_str()]).map_err(|e| format!("{source} is no logical volume ({e})"))?;
    let origin = named.first().ok_or_else(|| format!("{source} is no logical volume"))?;
    lvm.origin = origin.path();
    // A snapshot has the same UUID and label: a kernel that looks for these could boot the restore point.
    let cmdline = std::fs::read_to_string(node.root.join("proc/cmdline")).unwrap_or_default();
    if let Some(root) = cmdline.split_whitespace().find_map(|word| word.strip_prefix("root="))
        && (root.starts_with("UUID=") || root.starts_with("LABEL=") || root.starts_with("/dev/disk/"))
    {
        return Err(format!(
            "the kernel is told root={root}, which a snapshot would have as well; tell it root=/dev/mapper/…"
        ));
    }
    let volumes = lvm.list(&[&origin.group]).map_err(|e| e.to_string())?;
    Ok((lvm, volumes))
}

fn find<'v>(volumes: &'v [Volume], path: &str) -> Option<&'v Volume> {
    volumes.iter().find(|v| v.path() == path)
}

/// The size of a classic snapshot that an install of `needed` bytes may fill: what it writes, twice, for the package
/// manager writes what it unpacks once more aside, and its own files.
fn size_for(needed: u64, origin: u64) -> u64 {
    let wanted = needed.saturating_mul(2).saturating_add(LEAST_SIZE);
    // More than the origin, and a little for the tables, can never be filled.
    wanted.min(origin.saturating_add(origin / 50)).max(LEAST_SIZE)
}

impl Lvm {
    fn command(&self, program: &str) -> Command {
        in_root(&self.root, Command::new(program), false)
    }

    /// A command that changes something. Without LVM's copies of its metadata in /etc: where a full pool is under the root,
    /// writing them hangs, and where it has made the root read-only, nothing can be changed any more, least of all back.
    /// Whoever changes something next makes the copies (lvm.conf(5), backup). `-An` says the same, and lvconvert refuses it.
    fn change(&self, program: &str) -> Command {
        self.command(program).args(["--config", "backup { backup = 0 archive = 0 }"])
    }

    fn list(&self, of: &[&str]) -> std::result::Result<Vec<Volume>, String> {
        let command = self
            .command("lvs")
            .args(["-a", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", COLUMNS])
            .args(of);
        parse(&command.output().map_err(|e| e.to_string())?.stdout)
    }

    fn volumes(&self) -> std::result::Result<Vec<Volume>, String> {
        let group = self.origin.split('/').next().unwrap_or_default();
        self.list(&[group])
    }

    fn origin_and_pool(&self) -> std::result::Result<(Volume, Option<Volume>, Vec<Volume>), String> {
        let volumes = self.volumes()?;
        let origin = find(&volumes, &self.origin).cloned().ok_or("lvs does not list the root volume")?;
        let pool = find(&volumes, &format!("{}/{}", origin.group, origin.pool)).cloned();
        Ok((origin, pool, volumes))
    }

    /// Ours, of this origin, the newest first.
    fn ours(&self, volumes: &[Volume]) -> Vec<Volume> {
        let origin = self.origin.rsplit('/').next().unwrap_or_default();
        let mut ours: Vec<Volume> = volumes
            .iter()
            .filter(|v| v.name.starts_with(PREFIX) && v.origin == origin && !v.is_merging)
            .cloned()
            .collect();
        // lv_time begins with the date, in the order of time.
        ours.sort_by(|a, b| b.time.cmp(&a.time));
        ours
    }

    fn remove(&self, path: &str) -> std::result::Result<(), CommandError> {
        log::info!("removing the restore point {path}");
        self.change("lvremove").args(["-y", "-f", path]).output().map(|_| ())
    }

    /// What stands against one more restore point of a pool.
    fn no_room(&self, pool: &Volume, needed: u64) -> Option<String> {
        let data = pool.data?;
        let used = pool.size as f64 * data / 100.0;
        let after = if pool.size == 0 { 100.0 } else { (used + needed as f64) * 100.0 / pool.size as f64 };
        let worst = [Some(("data", after)), pool.metadata.map(|p| ("metadata", p))];
        let (what, percent) = worst.into_iter().flatten().find(|(_, percent)| *percent > self.pool_limit)?;
        Some(format!(
            "the {what} of the thin pool {} would be {percent:.0} % full, and [restore] pool-limit-percent is {:.0}",
            pool.path(),
            self.pool_limit
        ))
    }
}

impl RestorePoints for Lvm {
    fn kind(&self) -> &'static str {
        if self.is_thin { "lvm-thin" } else { "lvm" }
    }

    fn ready(&self, needed: u64) -> Result<()> {
        let (origin, pool, _) = self.origin_and_pool().map_err(|e| not_made(self.kind(), e))?;
        let why = match &pool {
            Some(pool) => self.no_room(pool, needed),
            None => {
                let size = self.size.unwrap_or_else(|| size_for(needed, origin.size));
                (size > origin.group_free).then(|| {
                    format!(
                        "{} MiB are needed of the volume group {}, and it has {}",
                        size / 1024 / 1024,
                        origin.group,
                        origin.group_free / 1024 / 1024
                    )
                })
            }
        };
        why.map_or(Ok(()), |why| Err(not_made(self.kind(), why)))
    }

    fn create(&self, label: &str, needed: u64) -> Result<Option<RestorePoint>> {
        let failed = |why: String| not_made(self.kind(), why);
        let (origin, _, volumes) = self.origin_and_pool().map_err(failed)?;
        let name = name_of(label);
        let path = format!("{}/{name}", origin.group);
        if find(&volumes, &path).is_none() {
            let create =
                self.change("lvcreate").args(["-y", "-s", "-kn", "-n", &name, "--addtag", "prestage"]);
            // With a size it would be a classic snapshot, of a thin volume too.
            let create = match self.is_thin {
                true => create,
                false => {
                    let size = self.size.unwrap_or_else(|| size_for(needed, origin.size));
                    create.arg("-L").arg(format!("{size}b"))
                }
            };
            create.arg(&self.origin).output().map_err(|e| failed(e.to_string()))?;
            // lvcreate's exit code is not the proof.
            let volumes = self.volumes().map_err(failed)?;
            find(&volumes, &path).ok_or_else(|| failed(format!("lvcreate made no {path}")))?;
        }
        Ok(Some(RestorePoint { kind: self.kind().to_owned(), id: path }))
    }

    fn is_there(&self, point: &RestorePoint) -> Result<bool> {
        let volumes = self.volumes().map_err(|e| not_restored(point, e))?;
        // `I` in the fifth place, or `S` in the first: invalid, for it was full (lvs(8)).
        Ok(find(&volumes, &point.id).is_some_and(|v| v.attr.chars().nth(4) != Some('I')))
    }

    fn watch(&self, point: &RestorePoint) -> Result<()> {
        let (_, pool, volumes) = match self.origin_and_pool() {
            Ok(found) => found,
            Err(why) => {
                log::warn!("{why}");
                return Ok(());
            }
        };
        if let Some(pool) = pool {
            let full = [pool.data, pool.metadata].into_iter().flatten().fold(0.0, f64::max);
            if full < POOL_DANGER {
                return Ok(());
            }
            // The oldest of the others first.
            if let Some(old) = self.ours(&volumes).iter().rfind(|v| v.path() != point.id) {
                log::warn!("the thin pool {} is {full:.0} % full", pool.path());
                match self.remove(&old.path()) {
                    Ok(()) => return Ok(()),
                    Err(error) => log::warn!("{error}"),
                }
            }
            self.remove(&point.id).map_err(|e| not_made(self.kind(), e))?;
            let what = format!(
                "the thin pool {} was {full:.0} % full, so the restore point was given up to save the volumes in it",
                pool.path()
            );
            return Err(Error::deferred(what));
        }
        let Some(snapshot) = find(&volumes, &point.id) else { return Ok(()) };
        if snapshot.data.is_some_and(|full| full > GROW_AT) {
            let more = (snapshot.size / 2).min(snapshot.group_free);
            let grown = self.change("lvextend").args(["-y", "-L", &format!("+{more}b"), &point.id]).output();
            if let Err(error) = grown {
                log::warn!("the restore point {} is filling up: {error}", point.id);
            }
        }
        Ok(())
    }

    fn leave(&self, point: &RestorePoint, keepsake: &Keepsake) -> Result<()> {
        let failed = |why: String| not_restored(point, why);
        self.forget()?;
        let digits = to_hex(&keepsake.to_bytes());
        let parts: Vec<&str> = (0..digits.len())
            .step_by(DIGITS)
            .map(|at| &digits[at..(at + DIGITS).min(digits.len())])
            .collect();
        for volume in [&self.origin, &point.id] {
            // All in one command: either all of them are there or none.
            let tags: Vec<String> = parts
                .iter()
                .enumerate()
                .map(|(number, part)| format!("{TAG}.{number}.{}.{part}", parts.len()))
                .collect();
            let args: Vec<&str> =
                tags.iter().flat_map(|tag| ["--addtag", tag.as_str()]).chain([volume.as_str()]).collect();
            self.change("lvchange").args(args).output().map_err(|e| failed(e.to_string()))?;
        }
        Ok(())
    }

    fn needs_no_file(&self) -> bool {
        true
    }

    fn keepsake(&self) -> Result<Option<Keepsake>> {
        let volumes = match self.volumes() {
            Ok(volumes) => volumes,
            Err(why) => {
                log::warn!("what an earlier rollback has left cannot be looked for: {why}");
                return Ok(None);
            }
        };
        let Some(origin) = find(&volumes, &self.origin) else { return Ok(None) };
        Ok(read_tags(&origin.tags).and_then(|bytes| {
            Keepsake::parse(&bytes).map_err(|e| log::error!("the tags of {}: {e}", self.origin)).ok()
        }))
    }

    fn forget(&self) -> Result<()> {
        let failed = |why: String| Error::deferred(format!("the tags of {}: {why}", self.origin));
        let volumes = self.volumes().map_err(failed)?;
        let ours = |v: &&Volume| v.path() == self.origin || v.name.starts_with(PREFIX);
        for volume in volumes.iter().filter(ours) {
            let tags: Vec<&String> = volume.tags.iter().filter(|t| t.starts_with(TAG)).collect();
            if tags.is_empty() {
                continue;
            }
            let command = tags.iter().fold(self.change("lvchange"), |c, tag| c.arg("--deltag").arg(tag));
            command.arg(volume.path()).output().map_err(|e| failed(e.to_string()))?;
        }
        Ok(())
    }

    fn carry(&self, point: &RestorePoint, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        let failed = |why: String| not_restored(point, why);
        let folder = self.root.join("run/prestage/restore-point");
        host::file::make_folder(&folder, 0o700)?;
        // One that an interrupted run has left.
        let _ = self.command("umount").arg("/run/prestage/restore-point").output();
        let activate = self.command("lvchange").args(["-ay", "-K", &point.id]);
        activate.output().map_err(|e| failed(e.to_string()))?;
        // XFS does not mount two file systems of the same UUID (xfs(5)).
        let options = if self.filesystem == "xfs" { "rw,nouuid" } else { "rw" };
        let device = format!("/dev/{}", point.id);
        let mount = self.command("mount").args(["-o", options, &device, "/run/prestage/restore-point"]);
        mount.output().map_err(|e| failed(e.to_string()))?;
        let written = write(&folder);
        let unmounted = self.command("umount").arg("/run/prestage/restore-point").output();
        written?;
        unmounted.map(|_| ()).map_err(|e| failed(e.to_string()))
    }

    fn restore(&self, point: &RestorePoint) -> Result<Restored> {
        let failed = |why: String| not_restored(point, why);
        let volumes = self.volumes().map_err(failed)?;
        let snapshot = find(&volumes, &point.id).ok_or_else(|| failed("it is not there any more".into()))?;
        if !snapshot.is_merging {
            let merge = self.change("lvconvert").args(["-y", "--merge", &point.id]);
            merge.output().map_err(|e| failed(e.to_string()))?;
            let volumes = self.volumes().map_err(failed)?;
            // Gone at once, where the origin was not in use; otherwise waiting for its next activation.
            match find(&volumes, &point.id) {
                None => return Ok(Restored::Now),
                Some(snapshot) if snapshot.is_merging => {}
                Some(_) => return Err(failed("lvconvert has begun no merge".into())),
            }
        }
        Ok(Restored::OnNextBoot)
    }

    fn has_returned(&self, point: &RestorePoint) -> Result<bool> {
        let volumes = self.volumes().map_err(|e| not_restored(point, e))?;
        Ok(match find(&volumes, &point.id) {
            None => true,
            // A classic one goes on in the background; whoever reads gets the old content from the first moment on.
            Some(snapshot) => {
                let merges = find(&volumes, &self.origin).is_some_and(|o| o.attr.starts_with('O'));
                !self.is_thin && snapshot.is_merging && merges
            }
        })
    }

    fn prune(&self, keep: usize, newest: Option<&RestorePoint>) -> Result<()> {
        let volumes = self.volumes().map_err(Error::deferred)?;
        let is_newest = |v: &&Volume| newest.is_some_and(|n| n.id == v.path());
        let ours = self.ours(&volumes);
        let others = ours.iter().filter(|v| !is_newest(v));
        let kept = keep.saturating_sub(ours.iter().filter(is_newest).count());
        for old in others.skip(kept) {
            self.remove(&old.path()).map_err(Error::deferred)?;
        }
        Ok(())
    }

    fn tend(&self) -> Result<Option<String>> {
        let (_, pool, volumes) = self.origin_and_pool().map_err(Error::deferred)?;
        let ours = self.ours(&volumes);
        // A classic snapshot that was full is of no use any more, and slows every write.
        let dead = ours.iter().find(|v| v.attr.chars().nth(4) == Some('I'));
        let full = pool.as_ref().map_or(0.0, |p| p.data.unwrap_or(0.0).max(p.metadata.unwrap_or(0.0)));
        let danger = ours.last().filter(|_| full >= POOL_DANGER);
        let Some(old) = dead.or(danger) else { return Ok(None) };
        self.remove(&old.path()).map_err(Error::deferred)?;
        Ok(Some(match dead {
            Some(_) => format!("the restore point {} was full and was removed", old.path()),
            None => {
                format!("the thin pool is {full:.0} % full, so the restore point {} was removed", old.path())
            }
        }))
    }
}

/// The keepsake in the tags of a volume.
fn read_tags(tags: &[String]) -> Option<Vec<u8>> {
    let mut parts: Vec<(usize, usize, &str)> = tags
        .iter()
        .filter_map(|tag| {
            let mut fields = tag.strip_prefix(TAG)?.strip_prefix('.')?.splitn(3, '.');
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?))
        })
        .collect();
    parts.sort_unstable();
    parts.dedup();
    let is_whole = !parts.is_empty()
        && parts.iter().enumerate().all(|(at, (number, of, _))| at == *number && *of == parts.len());
    if !is_whole {
        return None;
    }
    from_hex(&parts.iter().map(|(_, _, digits)| *digits).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::keepsake::tests::keepsake;
    use super::*;

    /// LVM 2.03.16 of Debian 12, as it was recorded on a node with a thin root: with a restore point and a tag on both, ...
    const TAGGED: &str = include_str!("../../tests/data/lvm/tagged.json");

    /// ... and when another volume had filled the pool.
    const FULL: &str = include_str!("../../tests/data/lvm/pool-full.json");

    fn lvm(is_thin: bool) -> Lvm {
        Lvm {
            root: "/".into(),
            is_thin,
            origin: "vg0/root".into(),
            filesystem: "ext4".into(),
            pool_limit: 80.0,
            size: None,
        }
    }

    #[test]
    fn what_lvs_says_is_read() {
        let volumes = parse(TAGGED).unwrap();
        let root = find(&volumes, "vg0/root").unwrap();
        assert_eq!((root.pool.as_str(), root.size, root.data), ("pool", 3_221_225_472, Some(18.87)));
        assert_eq!(read_tags(&root.tags), Some(b"{}".to_vec()));
        let ours: Vec<String> = lvm(true).ours(&volumes).iter().map(Volume::path).collect();
        assert_eq!(ours, ["vg0/prestage_1"]);
        // What waits for its merge is no restore point any more.
        let merging = TAGGED.replace(
            r#""origin":"root", "pool_lv":"pool", "data_percent":"18.85", "metadata_percent":"", "lv_merging":"""#,
            r#""origin":"root", "pool_lv":"pool", "data_percent":"18.85", "metadata_percent":"", "lv_merging":"merging""#,
        );
        let volumes = parse(&merging.replace("\"prestage_1\"", "\"[prestage_1]\"")).unwrap();
        assert!(find(&volumes, "vg0/prestage_1").unwrap().is_merging && lvm(true).ours(&volumes).is_empty());
        assert!(parse("not json").is_err() && parse("{}").is_err());
        assert_eq!(parse(r#"{"report":[{"lv":[]}]}"#), Ok(vec![]));
    }

    #[test]
    fn a_pool_with_too_little_room_takes_no_restore_point() {
        let no_room = |text: &str, needed: u64| {
            let volumes = parse(text).unwrap();
            lvm(true).no_room(find(&volumes, "vg0/pool").unwrap(), needed)
        };
        assert_eq!(no_room(TAGGED, 1 << 30), None);
        assert!(
            no_room(TAGGED, 4 << 30)
                .unwrap()
                .contains("the data of the thin pool vg0/pool would be 91 % full")
        );
        assert!(no_room(FULL, 0).unwrap().contains("100 % full"));
        let metadata = TAGGED.replace("\"11.43\"", "\"81.00\"");
        assert!(no_room(&metadata, 0).unwrap().contains("the metadata"));
    }

    #[test]
    fn a_classic_snapshot_has_room_for_the_install_and_is_never_larger_than_its_origin() {
        const GIB: u64 = 1 << 30;
        assert_eq!(size_for(0, 10 * GIB), LEAST_SIZE);
        assert_eq!(size_for(GIB, 10 * GIB), 2 * GIB + LEAST_SIZE);
        assert_eq!(size_for(100 * GIB, 10 * GIB), 10 * GIB + 10 * GIB / 50);
    }

    #[test]
    fn a_keepsake_fits_into_tags_and_half_of_one_is_none() {
        let keepsake = keepsake(&"the till says: ö ".repeat(100));
        let digits = to_hex(&keepsake.to_bytes());
        let parts: Vec<&str> = (0..digits.len())
            .step_by(DIGITS)
            .map(|at| &digits[at..(at + DIGITS).min(digits.len())])
            .collect();
        let mut tags: Vec<String> =
            parts.iter().enumerate().map(|(n, part)| format!("{TAG}.{n}.{}.{part}", parts.len())).collect();
        assert!(tags.len() > 1 && tags.iter().all(|tag| tag.len() <= 1024));
        tags.reverse();
        assert_eq!(Keepsake::parse(&read_tags(&tags).unwrap()).unwrap(), keepsake);
        tags.pop();
        assert_eq!(read_tags(&tags), None);
    }
}
