//! Verified members as a local package repository.
//!
//! [`link`] makes it for the fetch step, of hard links into the store. [`StagedRepo::copy_verified`] makes it for the
//! install, as root and where only root can write, hashing every byte on the way: what was swapped since the fetch is
//! caught here. Only the second is ever given to a package manager that installs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use format::digest::Hasher;
use format::index::{Index, Member, MemberKind};
use host::file;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::packages::PackageManager;
use crate::plan::Plan;
use crate::space;
use crate::store::Store;

/// The folder of metadata as the index has it, where the package manager must read other.
const SIGNED: &str = "signed";

/// Copied at once.
const CHUNK: usize = 128 * 1024;

/// Makes `folder` hold exactly `members`, as links to the store's content; the last step is one rename.
///
/// # Errors
/// If the file system refuses.
pub fn link(store: &Store, members: &[&Member], folder: &Path) -> Result<()> {
    let aside = folder.with_extension("new");
    file::remove(&aside)?;
    file::make_folder(&aside, 0o755)?;
    for member in members {
        let target = aside.join(member.path.as_str());
        if let Some(parent) = target.parent() {
            file::make_folder(parent, 0o755)?;
        }
        let source = store.path(&member.sha256);
        fs::hard_link(&source, &target).map_err(|e| Error::file(&source, &e))?;
    }
    file::remove(folder)?;
    fs::rename(&aside, folder).map_err(|e| Error::file(folder, &e))?;
    Ok(file::sync_folder_of(folder)?)
}

/// Whether `folder` holds `members` as links to what the store has now.
pub fn is_linked(store: &Store, members: &[&Member], folder: &Path) -> bool {
    let inode = |path: PathBuf| fs::symlink_metadata(path).map(|meta| meta.ino());
    members.iter().all(|member| {
        match (inode(store.path(&member.sha256)), inode(folder.join(member.path.as_str()))) {
            (Ok(stored), Ok(staged)) => stored == staged,
            _ => false,
        }
    })
}

/// Removes what neither this plan nor an idle poll needs. Only called when the plan is complete, so the bundle before
/// stays until its successor is whole.
///
/// # Errors
/// If the file system refuses.
pub fn tidy(node: &Node, store: &Store, index: &Index, plan: &Plan) -> Result<()> {
    let keep: BTreeSet<_> = index
        .metadata()
        .map(|m| m.sha256)
        .chain([plan.bundle.index])
        .chain(
            plan.members(index)
                .into_iter()
                .flat_map(|m| [Some(m.sha256), m.plain.map(|p| p.sha256)])
                .flatten(),
        )
        // What is installed here may still be on its way to another node of the site.
        .chain(index.packages().filter(|_| node.settings.share.serve).flat_map(space::digests))
        .collect();
    store.prune(&keep)?;
    let current = if plan.is_empty() { String::new() } else { plan.bundle.index.to_string() };
    for entry in std::fs::read_dir(node.fetched("staged")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy() != current {
            file::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A local package repository in which every byte was verified by this process, in a folder that only root can write.
pub struct StagedRepo {
    folder: PathBuf,
}

impl StagedRepo {
    /// Begins an empty one in `folder`, which only this user can enter.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn begin(folder: PathBuf) -> Result<Self> {
        file::remove(&folder)?;
        file::make_folder(&folder, 0o700)?;
        Ok(StagedRepo { folder })
    }

    /// The one that an interrupted run has made there, as far as it came: what is in it counts only once
    /// [`StagedRepo::copy_verified`] has read it again. The store may not have it any more.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn again(folder: PathBuf) -> Result<Self> {
        file::make_folder(&folder, 0o700)?;
        Ok(StagedRepo { folder })
    }

    /// Copies `members` from the store and verifies them meanwhile; what is here already is read again. A package may be here
    /// in its plain form, which the index vouches for as well; then what describes it to `packages` is made to say so.
    ///
    /// # Errors
    /// Deferred, if one is missing; integrity, if one is not what the index says.
    pub fn copy_verified(
        &self,
        store: &Store,
        index: &Index,
        members: &[&Member],
        packages: &dyn PackageManager,
    ) -> Result<()> {
        let mut plain = Vec::new();
        for &member in members {
            let target = self.folder.join(member.path.as_str());
            if let Some(parent) = target.parent() {
                file::make_folder(parent, 0o700)?;
            }
            if is_whole(&target, member) {
                continue;
            }
            // Metadata that was put aside when it was changed, by a run that was interrupted.
            let signed = self.signed(member);
            if member.kind == MemberKind::Metadata && is_whole(&signed, member) {
                fs::rename(&signed, &target).map_err(|e| Error::file(&signed, &e))?;
                continue;
            }
            let as_plain = member.as_plain();
            if let Some(form) = &as_plain
                && is_whole(&target, form)
            {
                plain.extend(as_plain);
                continue;
            }
            let form = store.form_of(member);
            if form.sha256 != member.sha256 {
                plain.extend(as_plain);
            }
            let member = form.as_ref();
            file::remove(&target)?;
            copy_verified(store, &target, index, member).inspect_err(|_| {
                // What is not verified does not stay where a package manager could ever see it.
                if let Err(error) = file::remove(&target) {
                    log::error!("{error}");
                }
            })?;
        }
        if plain.is_empty() {
            return Ok(());
        }
        for member in index.metadata() {
            let signed = self.signed(member);
            if let Some(parent) = signed.parent() {
                file::make_folder(parent, 0o700)?;
            }
            let target = self.folder.join(member.path.as_str());
            fs::rename(&target, &signed).map_err(|e| Error::file(&target, &e))?;
        }
        packages.describe(&self.folder.join(SIGNED), &self.folder, &plain)
    }

    /// Where metadata of the index stands when the package manager reads other.
    fn signed(&self, member: &Member) -> PathBuf {
        self.folder.join(SIGNED).join(member.path.as_str())
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn copy_verified(store: &Store, target: &Path, index: &Index, member: &Member) -> Result<()> {
    let source = store.path(&member.sha256);
    let mut input = match file::open_regular(&source) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::deferred(format!(
                "member {} of bundle {} is not staged any more; the next fetch gets it again",
                member.path, index.version
            )));
        }
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
            return Err(altered(store, member, "it is not a regular file"));
        }
        other => other?,
    };
    let mut out = File::create_new(target).map_err(|e| Error::file(target, &e))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = member.size;
    loop {
        let n = input.read(&mut buffer).map_err(|e| Error::file(&source, &e))?;
        if n as u64 > left {
            return Err(altered(store, member, "it is longer than the index says"));
        }
        if n == 0 {
            break;
        }
        left -= n as u64;
        hasher.update(&buffer[..n]);
        out.write_all(&buffer[..n]).map_err(|e| Error::file(target, &e))?;
    }
    let digest = hasher.finish();
    if digest != member.sha256 {
        return Err(altered(store, member, &format!("its sha256 is {digest}, not {}", member.sha256)));
    }
    Ok(())
}

/// Whether a file that only root can write is the member, to the last byte: not torn by a power cut.
fn is_whole(path: &Path, member: &Member) -> bool {
    let digest = file::open_regular(path).and_then(|mut file| format::digest::Sha256::of_reader(&mut file));
    digest.is_ok_and(|(digest, size)| (digest, size) == (member.sha256, member.size))
}

/// What was altered goes, so that the next fetch gets it again.
fn altered(store: &Store, member: &Member, why: &str) -> Error {
    store.discard(&member.sha256);
    let source = store.path(&member.sha256);
    let what =
        format!("{}: member {} was altered after it had been verified: {why}", source.display(), member.path);
    Error::new(
        Exit::Integrity,
        what,
        "nothing was installed; the next fetch replaces it. Find out who can write there",
    )
}
