//! What is mounted where (proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Device number, `MAJOR:MINOR`: the same for the same file system.
    pub device: String,
    /// Which folder of the file system is mounted; of btrfs the subvolume.
    pub subtree: String,
    /// Where.
    pub point: PathBuf,
    /// Its type, such as `ext4`.
    pub filesystem: String,
    /// The device file.
    pub source: String,
    /// Whether nothing can be written.
    pub is_read_only: bool,
}

/// Everything that is mounted, as seen from a node's root.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    root: PathBuf,
    all: Vec<Mount>,
}

impl Mounts {
    /// What is mounted now; nothing, if that cannot be read.
    pub fn read(root: &Path) -> Mounts {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Mounts { root: root.to_owned(), all: parse(&text) }
    }

    /// The same of a text.
    #[cfg(test)]
    pub fn of(root: &str, text: &str) -> Mounts {
        Mounts { root: root.into(), all: parse(text) }
    }

    /// What is mounted at `path` of the node, itself; the last one hides those before.
    pub fn at(&self, path: &str) -> Option<&Mount> {
        let path = self.root.join(path.trim_start_matches('/'));
        // `/` joined with nothing has no slash at its end, and neither has a mount point.
        let path: PathBuf = path.components().collect();
        self.all.iter().rev().find(|mount| mount.point == path)
    }

    /// What the node's root is on.
    pub fn root(&self) -> Option<&Mount> {
        self.at("/")
    }

    /// The mount that holds `path` of the node.
    pub fn holding(&self, path: &str) -> Option<&Mount> {
        let path = self.root.join(path.trim_start_matches('/'));
        let holds = |mount: &&Mount| path.starts_with(&mount.point);
        // The longest; of those with the same point the last, which is what is seen.
        self.all.iter().filter(holds).max_by_key(|mount| mount.point.components().count())
    }
}

fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(2);
    let (device, subtree, point, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let mut fields = after.split(' ');
    let (filesystem, source, of_device) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let is_read_only = [options, of_device].iter().any(|list| list.split(',').any(|option| option == "ro"));
    Some(Mount {
        device: device.to_owned(),
        subtree: unescape(subtree),
        point: unescape(point).into(),
        filesystem: filesystem.to_owned(),
        source: unescape(source),
        is_read_only,
    })
}

/// `\040` and the like: space, tab, newline and backslash are written in octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 254:3 / / rw,relatime shared:1 - ext4 /dev/mapper/vg0-root rw,errors=remount-ro
30 22 254:17 / /boot ro,relatime shared:2 - ext4 /dev/vda1 rw
31 30 254:18 / /boot/efi rw - vfat /dev/vda2 rw,fmask=0077
40 22 0:44 /@ /mnt/a\\040b rw - btrfs /dev/vdb rw,subvol=/@
50 22 0:5 / /proc rw - proc proc rw
";

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let mounts = Mounts::of("/", TEXT);
        let root = mounts.root().unwrap();
        assert_eq!((root.source.as_str(), root.filesystem.as_str()), ("/dev/mapper/vg0-root", "ext4"));
        assert!(!root.is_read_only && mounts.at("/boot").unwrap().is_read_only);
        assert_eq!(mounts.holding("/boot/efi/EFI").unwrap().filesystem, "vfat");
        assert_eq!(mounts.holding("/var/lib").unwrap().device, "254:3");
        assert!(mounts.at("/var").is_none());
        let node = Mounts::of("/mnt/a b", TEXT);
        assert_eq!(node.root().unwrap().subtree, "/@");
        assert!(Mounts::of("/", "nonsense\n1 2 3 - x\n").root().is_none());
    }
}
