//! The way back without a restore point: the packages that this node was patched with are kept when an install is
//! committed, and one that fails later is undone by putting their versions in place of the new ones.
//!
//! It is the weaker way, and no restore point: it brings back packages and nothing else. What their scripts did outside of
//! their own files, data that the newer version has migrated, and configuration that somebody edited meanwhile stay as they
//! are. It needs the file of every version from before, and touches nothing where one is missing: half a way back is none.
//! Nothing is made up for it: no package is packed again from what is installed, which would not be its vendor's any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use format::inventory::{Inventory, PackageId};

use super::PackageManager;
use crate::error::{Error, Exit, Result};

/// A package, and its file on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPackage {
    /// Name and architecture.
    pub id: PackageId,
    /// Version, as the inventory has it.
    pub version: String,
    /// Where its file is.
    pub file: PathBuf,
}

/// What leads from one inventory back to an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WayBack {
    /// To be installed in place of another version.
    pub replace: Vec<KeptPackage>,
    /// To be installed anew, or beside other versions.
    pub add: Vec<KeptPackage>,
    /// To be removed, with the version.
    pub remove: Vec<(PackageId, String)>,
}

impl WayBack {
    /// Decides: every difference between `now` and `before`, with the file that `find` knows for it.
    ///
    /// # Errors
    /// The packages of which no file is kept, `NAME VERSION` each, if there is one.
    pub fn decide(
        now: &Inventory,
        before: &Inventory,
        find: impl Fn(&PackageId, &str) -> Option<PathBuf>,
    ) -> std::result::Result<WayBack, Vec<String>> {
        let (mut back, mut missing) = (WayBack::default(), Vec::new());
        // Kernels of an RPM node: several versions of one package are one text, joined by commas.
        let split = |text: &Option<String>| -> BTreeSet<String> {
            text.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect()
        };
        for change in now.changes_to(before) {
            let id = PackageId { name: change.name, arch: change.arch };
            let (is, was) = (split(&change.from), split(&change.to));
            let is_replaced = is.len() == 1 && was.len() == 1;
            for version in was.difference(&is) {
                let Some(file) = find(&id, version) else {
                    missing.push(format!("{} {version}", id.name));
                    continue;
                };
                let kept = KeptPackage { id: id.clone(), version: version.clone(), file };
                if is_replaced { back.replace.push(kept) } else { back.add.push(kept) }
            }
            if !is_replaced {
                back.remove.extend(is.difference(&was).map(|version| (id.clone(), version.clone())));
            }
        }
        if missing.is_empty() { Ok(back) } else { Err(missing) }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == WayBack::default()
    }

    /// All files, those that replace another version first.
    pub fn files(&self) -> impl Iterator<Item = &KeptPackage> {
        self.replace.iter().chain(&self.add)
    }
}

/// The folder of the packages that are kept. Only root can write there.
pub struct Kept {
    folder: PathBuf,
    /// Bytes that it may hold; 0: nothing is kept.
    limit: u64,
}

impl Kept {
    /// `folder` need not exist.
    pub fn new(folder: PathBuf, limit: u64) -> Kept {
        Kept { folder, limit }
    }

    /// Keeps the packages of `repo`, from which the node was just patched, and drops those that are neither installed now
    /// nor were `before`. The files are taken out of `repo`, so nothing is copied; done twice it does no harm. After the
    /// commit of an install.
    ///
    /// # Errors
    /// If the file system refuses. The node is patched all the same.
    pub fn keep(&self, packages: &dyn PackageManager, repo: &Path, before: &Inventory) -> Result<()> {
        host::file::make_folder(&self.folder, 0o700)?;
        if self.limit > 0 {
            let pool = repo.join("pool");
            for entry in fs::read_dir(&pool).into_iter().flatten() {
                let entry = entry.map_err(|e| Error::file(&pool, &e))?;
                let to = self.folder.join(entry.file_name());
                fs::rename(entry.path(), &to).map_err(|e| Error::file(&to, &e))?;
            }
        }
        let now = packages.inventory()?;
        let wanted: BTreeSet<PathBuf> = [before, &now]
            .into_iter()
            .flat_map(|inventory| &inventory.0)
            .flat_map(|(id, versions)| versions.split(',').map(move |version| (id, version)))
            .filter_map(|(id, version)| packages.file_of(&self.folder, id, version))
            .collect();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| Error::file(&self.folder, &e))? {
            let path = entry.map_err(|e| Error::file(&self.folder, &e))?.path();
            let meta = fs::symlink_metadata(&path).map_err(|e| Error::file(&path, &e))?;
            if wanted.contains(&path) {
                files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), path));
            } else {
                host::file::remove(&path)?;
            }
        }
        for path in too_much(files, self.limit) {
            log::info!("{} is not kept any more: [install] keep-packages is reached", path.display());
            host::file::remove(&path)?;
        }
        Ok(host::file::sync_folder_of(&self.folder.join("any"))?)
    }

    /// The way back to `before` from what is installed now. Nothing is touched.
    ///
    /// # Errors
    /// That a person must look, with the packages of which no file is kept.
    pub fn way_back(&self, packages: &dyn PackageManager, before: &Inventory) -> Result<WayBack> {
        let find = |id: &PackageId, version: &str| packages.file_of(&self.folder, id, version);
        WayBack::decide(&packages.inventory()?, before, find).map_err(|missing| {
            /// As many as a person can use.
            const NAMED: usize = 5;
            let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let what = format!(
                "there is no way back to the packages from before: no file is kept of {} of them, such as {named}",
                missing.len()
            );
            Error::new(Exit::NeedsPerson, what, "")
        })
    }

    /// Brings the node's packages back to `before` and proves it by inventory and audit. `scratch` is a folder for the
    /// package manager's own files. Done twice it does no harm. After a failed install or health check on a node without
    /// a restore point.
    ///
    /// # Errors
    /// Deferred, if another package manager is at work; that a person must look, if there is no way back, before anything
    /// is touched, or if the node is not as it was afterwards.
    pub fn go_back(&self, packages: &dyn PackageManager, before: &Inventory, scratch: &Path) -> Result<()> {
        let back = self.way_back(packages, before)?;
        let said = if back.is_empty() {
            Ok(())
        } else {
            log::warn!(
                "putting back {} packages from before, and removing {} that came",
                back.files().count(),
                back.remove.len()
            );
            packages.put_back(&back, scratch)
        };
        // Whatever it said: what is installed counts.
        let (wrong, broken) = (packages.inventory()?.changes_to(before), packages.audit()?);
        if wrong.is_empty() && broken.is_empty() {
            return Ok(());
        }
        let mut what =
            format!("{} packages are not as before, and these are half done: {broken:?}", wrong.len());
        if let Err(error) = said {
            if error.exit == Exit::Deferred {
                return Err(error);
            }
            what = format!("{error}; {what}");
        }
        Err(Error::new(Exit::NeedsPerson, what, packages.words().by_hand))
    }
}

/// The files, of a time, a size and a path each, that must go so that the rest is within `limit` bytes: the oldest.
fn too_much(mut files: Vec<(SystemTime, u64, PathBuf)>, limit: u64) -> Vec<PathBuf> {
    files.sort();
    let mut all: u64 = files.iter().map(|(_, size, _)| size).sum();
    let mut out = Vec::new();
    for (_, size, path) in files {
        if all <= limit {
            break;
        }
        all -= size;
        out.push(path);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn inventory(list: &[(&str, &str)]) -> Inventory {
        let id = |name: &str| PackageId { name: name.into(), arch: "noarch".into() };
        Inventory(list.iter().map(|(name, version)| (id(name), (*version).into())).collect())
    }

    fn find(id: &PackageId, version: &str) -> Option<PathBuf> {
        (version != "lost").then(|| format!("{}-{version}", id.name).into())
    }

    #[test]
    fn what_changed_goes_back_what_came_goes_and_what_went_comes() {
        let before = inventory(&[("app", "1"), ("same", "1"), ("gone", "1")]);
        let now = inventory(&[("app", "2"), ("same", "1"), ("new", "1")]);
        let back = WayBack::decide(&now, &before, find).unwrap();
        let files =
            |kept: &[KeptPackage]| kept.iter().map(|k| k.file.display().to_string()).collect::<Vec<_>>();
        assert_eq!((files(&back.replace), files(&back.add)), (vec!["app-1".into()], vec!["gone-1".into()]));
        assert_eq!(back.remove.len(), 1);
        assert_eq!((back.remove[0].0.name.as_str(), back.remove[0].1.as_str()), ("new", "1"));
        assert!(WayBack::decide(&before, &before, find).unwrap().is_empty());
    }

    #[test]
    fn kernels_go_back_one_by_one() {
        let back =
            WayBack::decide(&inventory(&[("kernel", "2,3,4")]), &inventory(&[("kernel", "1,2,3")]), find);
        let back = back.unwrap();
        assert!(back.replace.is_empty());
        assert_eq!((back.add[0].version.as_str(), back.add.len()), ("1", 1));
        assert_eq!((back.remove[0].1.as_str(), back.remove.len()), ("4", 1));
    }

    #[test]
    fn half_a_way_back_is_none() {
        let before = inventory(&[("app", "1"), ("lib", "lost")]);
        let now = inventory(&[("app", "2"), ("lib", "2")]);
        assert_eq!(WayBack::decide(&now, &before, find), Err(vec!["lib lost".to_owned()]));
    }

    #[test]
    fn the_oldest_go_when_there_is_too_much() {
        let file = |age: u64, size: u64, name: &str| {
            (SystemTime::UNIX_EPOCH + Duration::from_secs(age), size, PathBuf::from(name))
        };
        let files = vec![file(3, 10, "c"), file(1, 10, "a"), file(2, 10, "b")];
        assert_eq!(too_much(files.clone(), 30), Vec::<PathBuf>::new());
        assert_eq!(too_much(files.clone(), 29), [PathBuf::from("a")]);
        assert_eq!(too_much(files, 0).len(), 3);
    }
}
