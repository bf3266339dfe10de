//! Content by its hash: whole under its SHA-256, partial beside it until it is whole.
//!
//! A file that has a digest for a name was complete and correct when it got it. Nobody relies on that alone: the
//! install reads and hashes every byte again.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::index::Member;
use host::file;
use host::rights::with_rights_of;

use crate::error::{Error, Result};

/// The folder `store`.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store in `folder`, made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: PathBuf) -> Result<Self> {
        let store = Store { folder };
        with_rights_of(store.above(), || file::make_folder(&store.folder, 0o755))?;
        Ok(store)
    }

    /// The folder of whom the store belongs to, which may not be this user.
    fn above(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// Removes content that is not what its name says, so that the next fetch gets it again.
    pub fn discard(&self, digest: &Sha256) {
        if let Err(error) = with_rights_of(self.above(), || file::remove(&self.path(digest))) {
            log::error!("{error}");
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where whole content is.
    pub fn path(&self, digest: &Sha256) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Where content is while it is incomplete.
    pub fn partial(&self, digest: &Sha256) -> PathBuf {
        self.folder.join(format!("{digest}.partial"))
    }

    /// Where the encoded form of a compressed member is while it is fetched.
    pub fn encoded(&self, digest: &Sha256) -> PathBuf {
        self.folder.join(format!("{digest}.gz.partial"))
    }

    /// Where content is while a peer gives it: apart from what mirrors have sent, which costs more to get again.
    pub fn peer_partial(&self, digest: &Sha256) -> PathBuf {
        self.folder.join(format!("{digest}.peer.partial"))
    }

    /// Whether content of this digest and size is here whole.
    pub fn has(&self, digest: &Sha256, size: u64) -> bool {
        fs::symlink_metadata(self.path(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Whether a package is here whole: as it is published, or in its plain form.
    pub fn has_form(&self, member: &Member) -> bool {
        self.has(&member.sha256, member.size) || self.has_plain(member)
    }

    /// Whether the plain form of a package is here.
    pub fn has_plain(&self, member: &Member) -> bool {
        member.plain.is_some_and(|plain| self.has(&plain.sha256, plain.size))
    }

    /// The form in which a package is here; as it is published, if in none.
    pub fn form_of<'m>(&self, member: &'m Member) -> Cow<'m, Member> {
        match member.as_plain() {
            Some(plain) if !self.has(&member.sha256, member.size) && self.has_plain(member) => {
                Cow::Owned(plain)
            }
            _ => Cow::Borrowed(member),
        }
    }

    /// How much of content is here that is not complete.
    pub fn length_of_partial(&self, digest: &Sha256) -> u64 {
        fs::symlink_metadata(self.partial(digest)).map_or(0, |meta| meta.len())
    }

    /// Where it stands that a patch did not lead where it should.
    fn spoilt(&self, digest: &Sha256) -> PathBuf {
        self.folder.join(format!("{digest}.spoilt"))
    }

    /// Whether a patch was tried, and did not lead where it should.
    pub fn is_spoilt(&self, digest: &Sha256) -> bool {
        self.spoilt(digest).exists()
    }

    /// Drops a patch, and remembers it for as long as its bundle is fetched.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn spoil(&self, digest: &Sha256) -> Result<()> {
        file::replace(&self.spoilt(digest), b"", 0o644)?;
        file::remove(&self.partial(digest))?;
        Ok(file::remove(&self.path(digest))?)
    }

    /// Opens a partial file to go on with it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_partial(&self, path: &Path) -> Result<File> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o644).open(path);
        file.map_err(|e| Error::file(path, &e))
    }

    /// Gives complete content its name. Its bytes are on the disk before its name is.
    ///
    /// # Errors
    /// If it cannot be synced or renamed.
    pub fn finish(&self, file: &File, partial: &Path, digest: &Sha256) -> Result<()> {
        let result = file.sync_data().and_then(|()| fs::rename(partial, self.path(digest)));
        result.map_err(|e| Error::file(partial, &e))
    }

    /// Makes all names durable. Called once after a run of members, instead of after each.
    ///
    /// # Errors
    /// If the folder cannot be synced.
    pub fn sync(&self) -> Result<()> {
        Ok(file::sync_folder_of(&self.folder.join("x"))?)
    }

    /// Removes everything that does not belong to `keep`, whole or partial.
    ///
    /// # Errors
    /// If the folder cannot be listed or something cannot be removed.
    pub fn prune(&self, keep: &BTreeSet<Sha256>) -> Result<()> {
        let entries = fs::read_dir(&self.folder).map_err(|e| Error::file(&self.folder, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e: io::Error| Error::file(&self.folder, &e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest: Option<Sha256> = name.split('.').next().and_then(|d| d.parse().ok());
            if digest.is_none_or(|d| !keep.contains(&d)) {
                file::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes what neither belongs to `keep` nor is part of a staged repository, whose links keep it alive anyway. Says
    /// how many bytes that were.
    ///
    /// # Errors
    /// As [`Store::prune`].
    pub fn evict(&self, keep: &BTreeSet<Sha256>) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let mut freed = 0;
        for entry in fs::read_dir(&self.folder).map_err(|e| Error::file(&self.folder, &e))? {
            let path = entry.map_err(|e: io::Error| Error::file(&self.folder, &e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let digest: Option<Sha256> = name.split('.').next().and_then(|d| d.parse().ok());
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.nlink() > 1 || digest.is_some_and(|d| keep.contains(&d)) {
                continue;
            }
            file::remove(&path)?;
            freed += meta.len();
        }
        Ok(freed)
    }
}
