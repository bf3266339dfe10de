//! The index of an offered bundle: read from the store, verified, and for this node.

use format::digest::Sha256;
use format::index::{Index, MAX_INDEX};
use format::metadata::Blob;
use format::trust::{SearchStep, TrustedMetadataSet};
use host::file;

use crate::decide::Offer;
use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::store::Store;

/// The bytes of an offer's index, from the store, verified again.
///
/// # Errors
/// Deferred, if it is not there; integrity, if it is not what the offer says.
pub fn read_index_bytes(store: &Store, offer: &Offer) -> Result<Vec<u8>> {
    let path = store.path(&offer.bundle.index);
    let bytes = file::read_limited(&path, MAX_INDEX)?;
    let bytes = bytes.ok_or_else(|| {
        Error::deferred(format!("the index of bundle {} is not here any more", offer.bundle.version))
    })?;
    if Sha256::of(&bytes) == offer.bundle.index {
        return Ok(bytes);
    }
    file::remove(&path)?;
    Err(Error::new(
        Exit::Integrity,
        format!("{}: the index {} was altered after it had been verified", path.display(), offer.path),
        "the next fetch replaces it. Find out who can write there",
    ))
}

/// The index of an offer.
///
/// # Errors
/// As [`read_index_bytes`]; integrity, if it cannot be read.
pub fn read_index(store: &Store, offer: &Offer) -> Result<Index> {
    Index::parse(&read_index_bytes(store, offer)?).map_err(|e| {
        Error::new(Exit::Integrity, format!("{}: {e}", offer.path), "build and publish the bundle again")
    })
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
