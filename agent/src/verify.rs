//! `prestage verify PATH`: an export or a copy of the repository, checked to the last byte, before it is carried to a
//! site or put on a server. Changes nothing on the node.

use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use format::container::Decoder;
use format::digest::Hasher;
use format::index::Index;

use crate::bundle::read_index;
use crate::decide;
use crate::error::{Error, Exit, Result};
use crate::fetch::open_export;
use crate::fetch::{Fetcher, Range, Throttle, Transport, TransportError};
use crate::node::Node;
use crate::policy;
use crate::progress::Progress;
use crate::refresh::{Keep, refresh};
use crate::store::Store;

/// Read at once.
const CHUNK: usize = 128 * 1024;

/// Checks everything in PATH that is for this node's variant, and says what it found.
///
/// # Errors
/// With the file or member that is wrong, and exit code 2 or 3.
pub fn verify(node: &Node, path: &Path) -> Result<String> {
    let export = [open_export(path)?];
    // A folder of its own, so that nothing this node trusts changes.
    let scratch = std::env::temp_dir().join(format!("prestage-verify-{}", std::process::id()));
    // Not made by somebody else before: the folder for temporary files is everybody's.
    std::fs::DirBuilder::new().mode(0o700).create(&scratch).map_err(|e| Error::file(&scratch, &e))?;
    let result = verify_with(node, &export, &scratch);
    host::file::remove(&scratch)?;
    result
}

fn verify_with(node: &Node, export: &[Box<dyn Transport>; 1], scratch: &Path) -> Result<String> {
    let keep = Keep { folder: scratch.join("metadata"), initial_root: node.initial_root() };
    let set =
        refresh(export, &keep, &[&decide::probe(&node.variant), policy::PROBE], node.now(), &node.clock)?;
    let offers = decide::offers(&set, &node.variant);
    let mirror = export[0].as_ref();
    let remote = |path: &format::name::TargetPath, digest| set.target_file(path, digest);
    let store = Store::open(scratch.join("store"))?;
    let (throttle, progress) = (Throttle::none(&node.clock), Progress::none());
    let fetcher = Fetcher {
        mirrors: export,
        store: &store,
        throttle: &throttle,
        clock: &node.clock,
        progress: &progress,
        aside: None,
    };
    let mut text = format!("metadata of {} is valid until {}\n", mirror.name(), set.expires());
    let policies = Store::open(scratch.join("policies"))?;
    policy::fetch(&set, &Fetcher { store: &policies, ..fetcher })?;
    let mut checked = 0;
    for offer in &offers {
        let file = remote(&offer.path, offer.bundle.index);
        // An export holds one bundle, a repository all of them.
        if matches!(mirror.get(&file, None), Err(TransportError::NotFound)) {
            text += &format!("bundle {} is not in it\n", offer.bundle.version);
            continue;
        }
        fetcher.target(&file, offer.bundle.index, offer.length)?;
        let index = read_index(&store, offer)?;
        verify_bundle(mirror, &remote(&index.bundle.path, index.bundle.sha256), &index)?;
        text += &format!(
            "bundle {}: {} members, {} bytes, all correct\n",
            offer.bundle.version,
            index.members.len(),
            index.bundle.length
        );
        checked += 1;
    }
    if checked == 0 {
        return Err(Error::new(
            Exit::Deferred,
            format!("{}: there is no bundle for the variant {} in it", mirror.name(), node.variant),
            "export the right variant",
        ));
    }
    Ok(text)
}

/// Every byte of the bundle file, and every member's content.
fn verify_bundle(mirror: &dyn Transport, file: &str, index: &Index) -> Result<()> {
    let damaged = |what: String| Error::new(Exit::Integrity, what, "copy it again from the repository");
    let range = Range { from: 0, to: index.bundle.length };
    let mut reader = mirror.get(file, Some(range)).map_err(|e| damaged(format!("{file}: {e}")))?;
    let mut whole = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let mut position = 0u64;
    let mut read_to =
        |end: u64, whole: &mut Hasher, take: &mut dyn FnMut(&[u8]) -> Result<()>| -> Result<()> {
            while position < end {
                let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
                match reader.read(&mut buffer[..wanted]).map_err(|e| Error::io(file, &e))? {
                    0 => {
                        return Err(damaged(format!(
                            "{file}: it ends after {position} bytes instead of {}",
                            index.bundle.length
                        )));
                    }
                    n => {
                        whole.update(&buffer[..n]);
                        take(&buffer[..n])?;
                        position += n as u64;
                    }
                }
            }
            Ok(())
        };
    for member in index.entries() {
        let Some(extent) = member.whole() else { continue };
        let mut decoder = Decoder::new(index.entry(&member), extent.encoding);
        read_to(extent.offset, &mut whole, &mut |_| Ok(()))?;
        read_to(extent.offset + extent.length, &mut whole, &mut |bytes| {
            decoder
                .push(bytes, &mut |_| Ok(()))
                .map_err(|e| damaged(format!("{file}: member {}: {e}", member.path)))
        })?;
        let digest = decoder.finish().map_err(|e| damaged(format!("{file}: member {}: {e}", member.path)))?;
        if digest != member.sha256 {
            return Err(damaged(format!(
                "{file}: member {}: its sha256 is {digest}, not {}",
                member.path, member.sha256
            )));
        }
    }
    read_to(index.bundle.length, &mut whole, &mut |_| Ok(()))?;
    match whole.finish() {
        digest if digest == index.bundle.sha256 => Ok(()),
        digest => Err(damaged(format!("{file}: its sha256 is {digest}, not {}", index.bundle.sha256))),
    }
}
