//! The folder beside a repository, never served, where documents wait for signatures; and the lock that keeps two runs
//! on one repository apart.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::name::TargetPath;
use format::trust;

use crate::delegated::{BUNDLES, POLICIES};
use crate::document::{Signed, Unsigned};
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::repository::{TARGETS, View};

/// The roles that wait here, in the order in which they depend on each other.
pub const PENDING_ROLES: [&str; 4] = ["root", TARGETS, BUNDLES.name, POLICIES.name];

/// The pending documents. Whoever has this value holds the lock.
pub struct Pending {
    folder: PathBuf,
    documents: BTreeMap<String, Signed>,
    /// Where it is about one role alone.
    only: Option<String>,
    _lock: host::file::Lock,
}

impl Pending {
    /// Opens the folder, making it if need be, and takes the lock.
    ///
    /// # Errors
    /// If another run holds the lock, or a document in it is damaged.
    pub fn open(folder: PathBuf) -> Result<Self> {
        host::file::make_folder(&folder, 0o755).during("the pending folder cannot be made")?;
        let what = "the repository cannot be locked";
        let lock = host::file::Lock::take(&folder.join("lock")).during(what)?.ok_or_else(|| {
            Error::new(
                Kind::Unavailable,
                what,
                format!("{}: another prestage-build works on it", folder.display()),
            )
            .cure("wait until it has ended")
        })?;
        let mut documents = BTreeMap::new();
        for role in PENDING_ROLES {
            let path = folder.join(format!("{role}.json"));
            let bytes = host::file::read_limited(&path, trust::MAX_TARGETS)
                .during("pending metadata cannot be read")?;
            if let Some(bytes) = bytes {
                documents.insert(role.to_owned(), Signed::parse(role, &bytes)?);
            }
        }
        Ok(Pending { folder, documents, only: None, _lock: lock })
    }

    /// Takes away what an interrupted run published and could not take away any more.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn drop_published(&mut self, view: &View) -> Result<()> {
        let is_published = |role: &str, document: &Signed| {
            let there = Signed::parse(role, view.newest(role)?).ok()?;
            Some(there.signed() == document.signed())
        };
        let done: Vec<String> = self
            .documents
            .iter()
            .filter(|(role, document)| is_published(role, document) == Some(true))
            .map(|(role, _)| role.clone())
            .collect();
        done.iter().try_for_each(|role| self.remove(role))
    }

    /// Where they wait.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All of them.
    pub fn documents(&self) -> &BTreeMap<String, Signed> {
        &self.documents
    }

    /// One of them, to be signed; [`Pending::save`] it then.
    pub fn document_mut(&mut self, role: &str) -> Option<&mut Signed> {
        self.documents.get_mut(role)
    }

    /// Puts a document in its place and writes it. True if that costs signatures that were there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set(&mut self, document: Unsigned) -> Result<bool> {
        let role = document.role.clone();
        let document = document.sign(&[])?;
        let before = self.documents.insert(role, document.clone());
        self.save()?;
        Ok(before.is_some_and(|before| before.is_signed() && before.signed() != document.signed()))
    }

    /// Writes the documents.
    ///
    /// # Errors
    /// If that fails.
    pub fn save(&self) -> Result<()> {
        for (role, document) in &self.documents {
            let path = self.folder.join(format!("{role}.json"));
            host::file::replace(&path, &document.to_bytes()?, 0o644)
                .during("pending metadata cannot be written")?;
        }
        Ok(())
    }

    /// The folder of contents that the pending documents list, under their published names; those of bundles are where
    /// they were made.
    pub fn contents(&self) -> PathBuf {
        self.folder.join("targets")
    }

    /// Keeps the content of a target until it is published. Named by its digest, so that it replaces no other.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_content(&self, path: &TargetPath, bytes: &[u8]) -> Result<()> {
        let what = "a pending target cannot be written";
        let to = self.contents().join(path.with_digest(&Sha256::of(bytes).to_string()));
        if let Some(folder) = to.parent() {
            host::file::make_folder(folder, 0o755).during(what)?;
        }
        host::file::replace(&to, bytes, 0o644).during(what)
    }

    /// Lets go of all but one role, whose own pending document is forgotten: what is published of that role is changed now,
    /// and what waits of the others goes on waiting, on the disk. True if something of that role was forgotten.
    ///
    /// # Errors
    /// If its file cannot be removed.
    pub fn set_aside_but(&mut self, role: &str) -> Result<bool> {
        let had = self.documents.contains_key(role);
        self.remove(role)?;
        self.documents.clear();
        self.only = Some(role.to_owned());
        Ok(had)
    }

    /// Forgets all of them, after they have been published.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn clear(&mut self) -> Result<()> {
        // Delegated roles first and root last: what an interruption leaves still makes sense together.
        let mine = |role: &&str| self.only.as_ref().is_none_or(|only| only == role);
        let roles: Vec<&str> = PENDING_ROLES.into_iter().rev().filter(mine).collect();
        roles.into_iter().try_for_each(|role| self.remove(role))?;
        match fs::remove_dir_all(self.contents()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).at("pending targets cannot be removed", &self.contents())
            }
            _ => Ok(()),
        }
    }

    fn remove(&mut self, role: &str) -> Result<()> {
        host::file::remove(&self.folder.join(format!("{role}.json")))
            .during("pending metadata cannot be removed")?;
        self.documents.remove(role);
        Ok(())
    }
}
