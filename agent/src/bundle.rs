//! The index of an offered bundle: read from the store, verified, and for this node.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;

use format::digest::Sha256;
use format::index::{Index, MAX_INDEX};
use format::metadata::Blob;
use format::trust::{SearchStep, TrustedMetadataSet};
use host::file;

use crate::decide::Offer;
use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::store::Store;

/// The index of an offer, from the store, verified again.
///
/// # Errors
/// Deferred, if it is not there; integrity, if it is not what the offer says or cannot be read.
pub fn read_index(store: &Store, offer: &Offer) -> Result<Index> {
    let path = store.path(&offer.bundle.index);
    let mut file = open(store, offer)?;
    let (digest, _) = Sha256::of_reader(&mut file).map_err(|e| Error::file(&path, &e))?;
    if digest != offer.bundle.index {
        return Err(altered(store, offer));
    }
    parse(&mut file, &path)
}

/// The same for the install: copied to `target`, which only root can write, hashed on the way, and read from there.
/// Hashing and then reading what another user can write would let him put something else there in between.
///
/// # Errors
/// As [`read_index`].
pub fn copy_index(store: &Store, offer: &Offer, target: &Path) -> Result<Index> {
    let path = store.path(&offer.bundle.index);
    let mut bytes = Vec::new();
    open(store, offer)?.take(offer.length + 1).read_to_end(&mut bytes).map_err(|e| Error::file(&path, &e))?;
    if Sha256::of(&bytes) != offer.bundle.index {
        return Err(altered(store, offer));
    }
    file::replace(target, &bytes, 0o600)?;
    drop(bytes);
    reread_index(target)
}

/// An index that [`copy_index`] has made.
///
/// # Errors
/// Integrity, if it cannot be read.
pub fn reread_index(path: &Path) -> Result<Index> {
    parse(&mut file::open_regular(path)?, path)
}

fn open(store: &Store, offer: &Offer) -> Result<File> {
    let path = store.path(&offer.bundle.index);
    match file::open_regular(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::deferred(format!("the index of bundle {} is not here any more", offer.bundle.version)))
        }
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Err(altered(store, offer)),
        other => {
            let file = other?;
            let length = file.metadata().map_err(|e| Error::file(&path, &e))?.len();
            if length > MAX_INDEX { Err(altered(store, offer)) } else { Ok(file) }
        }
    }
}

fn parse(file: &mut File, path: &Path) -> Result<Index> {
    file.rewind().map_err(|e| Error::file(path, &e))?;
    Index::read_for_node(file).map_err(|e| {
        Error::new(Exit::Integrity, format!("{}: {e}", path.display()), "build and publish the bundle again")
    })
}

/// What was altered goes, so that the next fetch gets it again.
fn altered(store: &Store, offer: &Offer) -> Error {
    store.discard(&offer.bundle.index);
    let path = store.path(&offer.bundle.index);
    let what = format!("{}: the index {} was altered after it had been verified", path.display(), offer.path);
    Error::new(Exit::Integrity, what, "the next fetch replaces it. Find out who can write there")
}

/// The index is of the bundle that was offered, for this node, and names the bundle file that the metadata signs.
///
/// # Errors
/// Trust, with what does not fit.
pub fn check_index(node: &Node, set: &TrustedMetadataSet, offer: &Offer, index: &Index) -> Result<()> {
    let wrong = |why: String| {
        Err(Error::new(Exit::Trust, format!("{}: {why}", offer.path), "build and publish the bundle again"))
    };
    if index.variant != node.variant {
        return wrong(format!("it is for the variant {}, and this node is {}", index.variant, node.variant));
    }
    if index.version != offer.bundle.version {
        return wrong(format!("it says that it is version {}", index.version));
    }
    match set.search(index.bundle.path.as_str()).step(set) {
        SearchStep::Found(file)
            if file.blob() == Some(Blob { length: index.bundle.length, sha256: index.bundle.sha256 }) =>
        {
            Ok(())
        }
        _ => wrong(format!(
            "the bundle file {} that it names is not the one in the signed metadata",
            index.bundle.path
        )),
    }
}
