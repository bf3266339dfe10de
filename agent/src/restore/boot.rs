//! /boot and what is mounted below it, where that is another file system than the root: no restore point of the root brings
//! it back, and a new kernel whose modules are gone is a dead node. So it is copied before the install and put back with
//! the root.
//!
//! Put back before the root goes back: the old kernel finds its modules in the new root too, and not the other way round.
//! Within it, what a boot loader reads comes last, and what was not there before goes when all else is in place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use format::digest::Sha256;

use super::Mounts;
use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::space;

/// Where kernels and boot loaders are.
const PLACES: [&str; 3] = ["boot", "boot/efi", "efi"];

/// The copies of this node's boot files.
pub struct Boot {
    root: PathBuf,
    folder: PathBuf,
    /// Those of [`PLACES`] that are file systems of their own.
    places: Vec<&'static str>,
}

impl Boot {
    /// Looks what is mounted.
    pub fn of(node: &Node) -> Boot {
        Boot::with(node, &Mounts::read(&node.root))
    }

    fn with(node: &Node, mounts: &Mounts) -> Boot {
        let device = mounts.root().map(|m| m.device.clone());
        let is_apart = |place: &&str| mounts.at(place).is_some_and(|m| Some(&m.device) != device.as_ref());
        let places = PLACES.into_iter().filter(|place| is_apart(place)).collect();
        Boot { root: node.root.clone(), folder: node.private("boot"), places }
    }

    /// What is copied, for people.
    pub fn places(&self) -> &[&'static str] {
        &self.places
    }

    /// The folders whose files are in none of the others.
    fn files(&self, place: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let top = self.root.join(place);
        let mut folders = vec![top.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(|e| Error::file(&folder, &e))? {
                let path = entry.map_err(|e| Error::file(&folder, &e))?.path();
                let meta = fs::symlink_metadata(&path).map_err(|e| Error::file(&path, &e))?;
                let is_other = PLACES.iter().any(|p| *p != place && path == self.root.join(p));
                if meta.is_dir() && !is_other && path.file_name().is_none_or(|n| n != "lost+found") {
                    folders.push(path);
                } else if meta.is_file() || meta.is_symlink() {
                    found.push(path.strip_prefix(&top).unwrap_or(&path).to_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Copies all of it under `label`, in place of what was copied before.
    ///
    /// # Errors
    /// Deferred, if there is no room; or if a file cannot be read or written.
    pub fn save(&self, label: &str) -> Result<()> {
        host::file::remove(&self.folder)?;
        if self.places.is_empty() {
            return Ok(());
        }
        let mut needed = 0;
        for place in &self.places {
            needed += host::file::used_space(&self.root.join(place))?;
        }
        let folder = self.folder.join(label);
        host::file::make_folder(&folder, 0o700)?;
        space::enough(&folder, needed, "for a copy of /boot")?;
        for place in &self.places {
            let target = folder.join(place.replace('/', "-"));
            host::file::make_folder(&target, 0o700)?;
            for file in self.files(place)? {
                let (from, to) = (self.root.join(place).join(&file), target.join(&file));
                if let Some(parent) = to.parent() {
                    host::file::make_folder(parent, 0o700)?;
                }
                copy(&from, &to).map_err(|e| Error::file(&from, &e))?;
            }
        }
        // Whole, or not there.
        Ok(host::file::replace(&folder.join("whole"), b"", 0o600)?)
    }

    /// Puts back what was copied under `label`. Done again it changes nothing.
    ///
    /// # Errors
    /// Needs a person: if there was something to copy and the copy is not whole, or a file cannot be written.
    pub fn bring_back(&self, label: &str) -> Result<()> {
        let folder = self.folder.join(label);
        if self.places.is_empty() {
            return Ok(());
        }
        if !folder.join("whole").exists() {
            let what = format!("{}: there is no whole copy of /boot", folder.display());
            return Err(Error::new(
                Exit::NeedsPerson,
                what,
                "put the kernel back by hand before the next boot",
            ));
        }
        for place in &self.places {
            let (saved, live) = (folder.join(place.replace('/', "-")), self.root.join(place));
            let copies =
                Boot { root: saved.clone(), folder: PathBuf::new(), places: Vec::new() }.files("")?;
            let (configuration, content): (Vec<&PathBuf>, Vec<&PathBuf>) =
                copies.iter().partition(|file| is_configuration(file));
            for file in content.into_iter().chain(configuration) {
                put_back(&saved.join(file), &live.join(file))?;
            }
            for file in self.files(place)?.iter().filter(|file| !copies.contains(file)) {
                log::info!("{}: was not there before the install; removed", live.join(file).display());
                host::file::remove(&live.join(file))?;
            }
        }
        Ok(())
    }

    /// Whether what is there is what was copied under `label`: what differs, for people.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn differs(&self, label: &str) -> Result<Option<String>> {
        let folder = self.folder.join(label);
        for place in &self.places {
            let saved = folder.join(place.replace('/', "-"));
            let of = |root: PathBuf, place: &str| -> Result<BTreeMap<PathBuf, Sha256>> {
                let boot = Boot { root: root.clone(), folder: PathBuf::new(), places: Vec::new() };
                let files = boot.files(place)?;
                let digest = |file: PathBuf| Ok((file.clone(), digest(&root.join(place).join(&file))?));
                files.into_iter().map(digest).collect()
            };
            let (before, now) = (of(saved, "")?, of(self.root.clone(), place)?);
            let names = before.keys().chain(now.keys());
            if let Some(name) = names.into_iter().find(|name| before.get(*name) != now.get(*name)) {
                return Ok(Some(format!("/{place}/{}", name.display())));
            }
        }
        Ok(None)
    }
}

/// What tells the content of a file, or the target of a link.
fn digest(path: &Path) -> Result<Sha256> {
    let meta = fs::symlink_metadata(path).map_err(|e| Error::file(path, &e))?;
    if meta.is_symlink() {
        let target = fs::read_link(path).map_err(|e| Error::file(path, &e))?;
        return Ok(Sha256::of(format!("link {}", target.display()).as_bytes()));
    }
    let digest = fs::File::open(path).and_then(|mut f| Sha256::of_reader(&mut f));
    digest.map(|(digest, _)| digest).map_err(|e| Error::file(path, &e))
}

/// Copies a file, synced, or a link.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(from)?.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    fs::copy(from, to)?;
    fs::File::open(to)?.sync_all()
}

/// What a boot loader reads to find the rest.
fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "cfg" || e == "conf") || path.ends_with("grubenv")
}

/// Aside, synced, renamed; nothing where it is the same already.
fn put_back(saved: &Path, live: &Path) -> Result<()> {
    if fs::symlink_metadata(live).is_ok_and(|m| !m.is_dir()) && digest(saved)? == digest(live)? {
        return Ok(());
    }
    log::info!("{} is put back as it was before the install", live.display());
    if let Some(parent) = live.parent() {
        host::file::make_folder(parent, 0o755)?;
    }
    let name = live.file_name().unwrap_or_default().to_string_lossy();
    let aside = live.with_file_name(format!("{name}.prestage"));
    let replace = || {
        host::file::remove(&aside)?;
        copy(saved, &aside)?;
        fs::rename(&aside, live)
    };
    replace().map_err(|e| Error::file(live, &e))?;
    Ok(host::file::sync_folder_of(live)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(name: &str) -> (PathBuf, Boot) {
        let top = std::env::temp_dir().join(format!("prestage-boot-{name}-{}", std::process::id()));
        host::file::remove(&top).unwrap();
        let write = |path: &str, content: &str| {
            let path = top.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("boot/vmlinuz-1", "kernel 1");
        write("boot/grub/grub.cfg", "boot 1");
        write("boot/efi/EFI/grubx64.efi", "loader");
        std::os::unix::fs::symlink("vmlinuz-1", top.join("boot/vmlinuz")).unwrap();
        let boot =
            Boot { root: top.clone(), folder: top.join("private/boot"), places: vec!["boot", "boot/efi"] };
        (top, boot)
    }

    #[test]
    fn a_new_kernel_goes_and_the_old_one_comes_back() {
        let (top, boot) = boot("back");
        boot.save("t1").unwrap();
        assert_eq!(boot.differs("t1").unwrap(), None);
        fs::write(top.join("boot/vmlinuz-2"), "kernel 2").unwrap();
        fs::write(top.join("boot/grub/grub.cfg"), "boot 2").unwrap();
        fs::write(top.join("boot/efi/EFI/grubx64.efi"), "torn").unwrap();
        fs::remove_file(top.join("boot/vmlinuz-1")).unwrap();
        fs::remove_file(top.join("boot/vmlinuz")).unwrap();
        std::os::unix::fs::symlink("vmlinuz-2", top.join("boot/vmlinuz")).unwrap();
        assert!(boot.differs("t1").unwrap().is_some());
        boot.bring_back("t1").unwrap();
        boot.bring_back("t1").unwrap();
        assert_eq!(boot.differs("t1").unwrap(), None);
        assert!(!top.join("boot/vmlinuz-2").exists());
        assert_eq!(fs::read_to_string(top.join("boot/vmlinuz")).unwrap(), "kernel 1");
        assert_eq!(fs::read_to_string(top.join("boot/grub/grub.cfg")).unwrap(), "boot 1");
        assert_eq!(fs::read_to_string(top.join("boot/efi/EFI/grubx64.efi")).unwrap(), "loader");
        host::file::remove(&top).unwrap();
    }

    #[test]
    fn half_a_copy_is_never_put_back() {
        let (top, boot) = boot("half");
        boot.save("t1").unwrap();
        fs::remove_file(top.join("private/boot/t1/whole")).unwrap();
        fs::write(top.join("boot/vmlinuz-1"), "new").unwrap();
        assert_eq!(boot.bring_back("t1").unwrap_err().exit, Exit::NeedsPerson);
        assert_eq!(fs::read_to_string(top.join("boot/vmlinuz-1")).unwrap(), "new");
        host::file::remove(&top).unwrap();
    }
}
