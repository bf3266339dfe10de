//! btrfs: a snapshot of the root's subvolume, beside it. The only file that knows the words of btrfs(8).
//!
//! Going back is one exchange of two names (renameat2(2)): the root's subvolume and a fresh snapshot of the restore point.
//! The kernel finds the root by its name (`rootflags=subvol=`) or as the default subvolume; both are served. Subvolumes
//! inside the root are in no snapshot of it: they stay as they are, and are moved over.

use std::path::{Path, PathBuf};

use host::command::Command;

use super::{
    Keepsake, Mounts, PREFIX, RestorePoint, RestorePoints, Restored, name_of, not_made, not_restored,
};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::space;

/// What the root that was gone back from is called, before the label.
const REPLACED: &str = "prestage-replaced_";

/// The keepsake, beside the subvolumes.
const KEEPSAKE: &str = "prestage-keepsake.json";

/// The name of the root's subvolume, beside the subvolumes: while a boot is waited for, the running root has another one.
const ROOT_NAME: &str = "prestage-root-name";

/// Restore points of a root that is a subvolume.
struct Btrfs {
    root: PathBuf,
    device: String,
    /// What the running root's subvolume is called now, without a slash before it.
    running: String,
}

pub(super) fn detect(
    node: &Node,
    mounts: &Mounts,
) -> std::result::Result<(Box<dyn RestorePoints>, String), String> {
    let mount = mounts.root().ok_or("the root is no mount of its own")?;
    if mount.filesystem != "btrfs" {
        return Err(format!("the root file system is {}", mount.filesystem));
    }
    let subvolume = mount.subtree.trim_start_matches('/').to_owned();
    if subvolume.is_empty() {
        return Err("the root is the whole file system and not a subvolume of it".to_owned());
    }
    if !Command::exists(Path::new("/"), "btrfs") {
        return Err("there is no btrfs (package btrfs-progs)".to_owned());
    }
    let what = format!("the root is the subvolume {subvolume} of {}", mount.source);
    let btrfs = Btrfs { root: node.root.clone(), device: mount.source.clone(), running: subvolume };
    Ok((Box::new(btrfs), what))
}

/// The whole file system, mounted as long as the value lives.
struct Top {
    folder: PathBuf,
}

impl Drop for Top {
    fn drop(&mut self) {
        if let Err(error) = Command::new("umount").arg(&self.folder).output() {
            log::warn!("{error}");
        }
    }
}

impl Btrfs {
    fn top(&self) -> std::result::Result<Top, String> {
        let folder = self.root.join("run/prestage/btrfs");
        host::file::make_folder(&folder, 0o700).map_err(|e| e.to_string())?;
        // One that an interrupted run has left.
        let _ = Command::new("umount").arg(&folder).output();
        Command::new("mount")
            .args(["-t", "btrfs", "-o", "subvolid=5", &self.device])
            .arg(&folder)
            .output()
            .map_err(|e| e.to_string())?;
        Ok(Top { folder })
    }

    fn run(&self, args: &[&str], paths: &[&Path]) -> std::result::Result<String, String> {
        let output = Command::new("btrfs").args(args).args(paths).output();
        output.map(|o| o.stdout).map_err(|e| e.to_string())
    }

    /// What tells a subvolume from every other one, whatever it is called.
    fn id(&self, path: &Path) -> std::result::Result<String, String> {
        self.run(&["inspect-internal", "rootid"], &[path]).map(|id| id.trim().to_owned())
    }

    /// What the node boots, whatever the running root is called now.
    fn named(&self, top: &Top) -> std::result::Result<PathBuf, String> {
        if !self.running.starts_with(REPLACED) {
            return Ok(top.folder.join(&self.running));
        }
        let name = std::fs::read_to_string(top.folder.join(ROOT_NAME));
        name.map(|name| top.folder.join(name.trim_end())).map_err(|e| format!("{ROOT_NAME}: {e}"))
    }

    fn replaced(top: &Top, point: &RestorePoint) -> PathBuf {
        top.folder.join(point.id.replacen(PREFIX, REPLACED, 1))
    }

    /// Moves what stays as it is from the root that was gone back from into the one that was gone back to.
    fn move_nested(&self, top: &Top, point: &RestorePoint) -> std::result::Result<(), String> {
        let (old, new) = (Self::replaced(top, point), self.named(top)?);
        let listed = self.run(&["subvolume", "list", "-o"], &[&old])?;
        let prefix = format!("{}/", old.file_name().unwrap_or_default().to_string_lossy());
        for path in listed.lines().filter_map(|line| line.split_once(" path ")?.1.strip_prefix(&prefix)) {
            let target = new.join(path);
            // In a snapshot an empty folder stands in its place.
            let _ = std::fs::remove_dir(&target);
            std::fs::rename(old.join(path), &target).map_err(|e| format!("{}: {e}", target.display()))?;
        }
        Ok(())
    }

    fn delete(&self, path: &Path) -> std::result::Result<(), String> {
        // Whatever led here.
        if self.id(path)? == self.id(&self.root)? {
            return Err(format!("{} is the running root, and is not removed", path.display()));
        }
        log::info!("removing the subvolume {}", path.display());
        self.run(&["-q", "subvolume", "delete"], &[path]).map(|_| ())
    }

    /// Subvolumes beside the root's whose names begin so; in the order of their making, the newest first.
    fn beside(&self, top: &Top, prefix: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&top.folder).into_iter().flatten().flatten();
        let mut found: Vec<(u64, PathBuf)> = entries
            .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
            .filter_map(|e| Some((self.id(&e.path()).ok()?.parse().ok()?, e.path())))
            .collect();
        // Their numbers only grow.
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, path)| path).collect()
    }

    fn take(&self, label: &str) -> std::result::Result<RestorePoint, String> {
        let top = self.top()?;
        let point = RestorePoint { kind: self.kind().to_owned(), id: name_of(label) };
        let path = top.folder.join(&point.id);
        if !path.exists() {
            if !self.running.starts_with(REPLACED) {
                let name = top.folder.join(ROOT_NAME);
                host::file::replace(&name, self.running.as_bytes(), 0o600).map_err(|e| e.to_string())?;
            }
            self.run(&["-q", "subvolume", "snapshot"], &[&self.root, &path])?;
            self.run(&["filesystem", "sync"], &[&top.folder])?;
        }
        Ok(point)
    }

    fn exchange(&self, point: &RestorePoint) -> std::result::Result<(), String> {
        let top = self.top()?;
        let (named, replaced) = (self.named(&top)?, Self::replaced(&top, point));
        let old = self.id(&named)?;
        if self.id(&self.root)? == old {
            if replaced.exists() {
                // Of a run that did not come to the exchange.
                self.delete(&replaced)?;
            }
            self.run(&["-q", "subvolume", "snapshot"], &[&top.folder.join(&point.id), &replaced])?;
            let new = self.id(&replaced)?;
            self.run(&["filesystem", "sync"], &[&top.folder])?;
            host::file::exchange(&replaced, &named).map_err(|e| e.to_string())?;
            let default = self.run(&["subvolume", "get-default"], &[&top.folder])?;
            if default.split_whitespace().nth(1) == Some(&old) {
                self.run(&["subvolume", "set-default", &new], &[&top.folder])?;
            }
            self.run(&["filesystem", "sync"], &[&top.folder])?;
        }
        self.move_nested(&top, point)
    }
}

impl RestorePoints for Btrfs {
    fn kind(&self) -> &'static str {
        "btrfs"
    }

    fn ready(&self, needed: u64) -> Result<()> {
        space::enough(&self.root, needed, "for the restore point, which keeps what the install replaces")
    }

    fn create(&self, label: &str, _needed: u64) -> Result<Option<RestorePoint>> {
        self.take(label).map(Some).map_err(|e| not_made(self.kind(), e))
    }

    fn is_there(&self, point: &RestorePoint) -> Result<bool> {
        let top = self.top().map_err(|e| not_restored(point, e))?;
        Ok(top.folder.join(&point.id).exists())
    }

    fn watch(&self, _point: &RestorePoint) -> Result<()> {
        Ok(())
    }

    fn leave(&self, point: &RestorePoint, keepsake: &Keepsake) -> Result<()> {
        let top = self.top().map_err(|e| not_restored(point, e))?;
        Ok(host::file::replace(&top.folder.join(KEEPSAKE), &keepsake.to_bytes(), 0o600)?)
    }

    fn keepsake(&self) -> Result<Option<Keepsake>> {
        let top = match self.top() {
            Ok(top) => top,
            Err(why) => {
                log::warn!("what an earlier rollback has left cannot be looked for: {why}");
                return Ok(None);
            }
        };
        let path = top.folder.join(KEEPSAKE);
        let bytes = host::file::read_limited(&path, 64 * 1024)?;
        Ok(bytes.and_then(|bytes| {
            Keepsake::parse(&bytes).map_err(|e| log::error!("{}: {e}", path.display())).ok()
        }))
    }

    fn forget(&self) -> Result<()> {
        let top = self.top().map_err(Error::deferred)?;
        Ok(host::file::remove(&top.folder.join(KEEPSAKE))?)
    }

    fn carry(&self, point: &RestorePoint, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        let top = self.top().map_err(|e| not_restored(point, e))?;
        write(&top.folder.join(&point.id))
    }

    fn restore(&self, point: &RestorePoint) -> Result<Restored> {
        self.exchange(point).map(|()| Restored::OnNextBoot).map_err(|e| not_restored(point, e))
    }

    fn has_returned(&self, point: &RestorePoint) -> Result<bool> {
        let look = || {
            let top = self.top()?;
            let replaced = Self::replaced(&top, point);
            let current = self.id(&self.root)?;
            if !replaced.exists() || current == self.id(&replaced)? {
                return Ok(false);
            }
            self.move_nested(&top, point)?;
            Ok(current == self.id(&self.named(&top)?)?)
        };
        look().map_err(|e: String| not_restored(point, e))
    }

    fn prune(&self, keep: usize, newest: Option<&RestorePoint>) -> Result<()> {
        let top = self.top().map_err(Error::deferred)?;
        let ours = self.beside(&top, PREFIX);
        let newest = newest.map(|n| top.folder.join(&n.id));
        let others = ours.iter().filter(|path| Some(*path) != newest.as_ref());
        let kept = keep.saturating_sub(usize::from(newest.as_ref().is_some_and(|n| ours.contains(n))));
        for old in others.skip(kept) {
            self.delete(old).map_err(Error::deferred)?;
        }
        Ok(())
    }

    fn tend(&self) -> Result<Option<String>> {
        let top = self.top().map_err(Error::deferred)?;
        let current = self.id(&self.root).map_err(Error::deferred)?;
        let mut said = None;
        for old in self.beside(&top, REPLACED) {
            // The root that was gone back from; not before the node has left it.
            if self.id(&old).map_err(Error::deferred)? != current {
                self.delete(&old).map_err(Error::deferred)?;
                said = Some(format!("{} was removed: the node went back from it", old.display()));
            }
        }
        Ok(said)
    }
}
