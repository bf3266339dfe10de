//! Deltas of a bundle: for each package and each older version that matters, a patch from what that has installed.
//!
//! Which bases matter is decided in [`bases`], what is alike is found in [`alike`], written in [`patch`]; a .deb is read in
//! [`deb`]. Every patch is applied once before it counts, as a node applies it: none that is wrong is ever published.
//!
//! Memory is bounded by the worker, not by the package: files are compared one by one, and large ones in blocks. Work is
//! kept in a cache under the digests of both packages, so that a cycle costs what is new in it.
//!
//! RPM packages are sent whole: what their vendor has signed covers the compressed payload, which a node would have to
//! compress again to the bit (docs/development/delta.md).

mod alike; // what two files have in common
mod bases; // which older versions matter
mod deb; // what is in a .deb, its plain form, and what it installs
pub mod explain; // what the fleet would fetch
mod patch; // writing a patch

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use format::delta::{self, Header};
use format::digest::{Hasher, Sha256};
use format::index::{DeltaBase, Family, Plain};

use crate::collect::{Collected, CollectedPackage};
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::progress::Progress;
use bases::Base;
use deb::Deb;

pub use bases::Fleet;

/// A delta is worth its place in a bundle if it is at most so much of the whole package, in percent.
const AT_MOST_PERCENT: u64 = 80;

/// ... and saves so many bytes: two requests more cost a few kilobytes.
const AT_LEAST: u64 = 16 * 1024;

/// Changes whenever the same two packages would give another patch: what is in the cache is of one engine.
const ENGINE: u32 = 2;

const WHAT: &str = "deltas cannot be made";

/// So many bytes may a delta have, of a package that has `whole`.
fn worth_it(whole: u64) -> u64 {
    (whole / 100 * AT_MOST_PERCENT).min(whole.saturating_sub(AT_LEAST))
}

/// What deltas are made of.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folders with packages of older versions, or collections.
    pub bases: Vec<PathBuf>,
    /// What nodes have installed: decides which bases matter. None: every one that is there.
    pub fleet: Fleet,
    /// Keeps patches for the next cycle.
    pub cache: Option<PathBuf>,
    /// So many bases for each package, at most.
    pub per_package: usize,
}

/// The deltas of one package.
#[derive(Clone, Debug)]
pub struct Made {
    /// What they lead to.
    pub plain: Plain,
    /// The patches, sorted by their bases.
    pub patches: Vec<Patch>,
}

/// One patch.
#[derive(Clone, Debug)]
pub struct Patch {
    /// What it starts from.
    pub base: DeltaBase,
    /// Where it is.
    pub file: PathBuf,
    /// Its size.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// What is kept of a pair of packages in the cache, beside the patch.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    plain: Plain,
    base: DeltaBase,
    /// None: it was not worth it.
    patch: Option<(u64, Sha256)>,
}

/// One pair of packages to compare.
struct Job<'c> {
    target: &'c CollectedPackage,
    base: Base,
}

/// Makes all deltas of a collection that are worth it, as many at a time as there are cores; by the file name of the package
/// that they lead to. `work` is a folder for this alone, in which the patches stay.
///
/// # Errors
/// If a package cannot be read, or a patch does not lead where it must.
pub fn make(
    collected: &Collected,
    folder: &Path,
    options: &Options,
    work: &Path,
    progress: Progress,
) -> Result<BTreeMap<String, Made>> {
    if options.bases.is_empty() {
        return Ok(BTreeMap::new());
    }
    if collected.family != Family::Apt {
        return Err(Error::new(Kind::Usage, WHAT, "the packages of this collection are RPM packages")
            .cure("bundle without --bases: RPM packages are sent whole"));
    }
    host::file::make_folder(work, 0o755).during(WHAT)?;
    let mut jobs: Vec<Job<'_>> = Vec::new();
    let found = bases::find(&options.bases, collected)?;
    for target in &collected.packages {
        let chosen = bases::choose(target, &found, &options.fleet, options.per_package);
        jobs.extend(chosen.into_iter().map(|base| Job { target, base }));
    }
    // The largest first, so that no core waits for one at the end.
    jobs.sort_by_key(|job| std::cmp::Reverse((job.target.size, job.base.deb.version.clone())));
    let bar = progress.bytes("deltas", jobs.iter().map(|job| job.target.size).sum());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (queue, done) = (Mutex::new(VecDeque::from(jobs)), Mutex::new(Vec::new()));
    let one_after_the_other = |worker: usize| {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(job) = next else { return };
            let result = job.make(folder, options, work, worker);
            bar.add(job.target.size);
            let failed = result.is_err();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((job.target.file.clone(), result));
            if failed {
                queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let work = &one_after_the_other;
            scope.spawn(move || work(worker));
        }
    });
    bar.done();
    let mut made: BTreeMap<String, Made> = BTreeMap::new();
    for (file, result) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let Some((plain, patch)) = result? else { continue };
        made.entry(file).or_insert_with(|| Made { plain, patches: Vec::new() }).patches.push(patch);
    }
    for made in made.values_mut() {
        made.patches.sort_by(|a, b| (&a.base.name, &a.base.version).cmp(&(&b.base.name, &b.base.version)));
    }
    Ok(made)
}

impl Job<'_> {
    /// From the cache or made anew; none if it is not worth it.
    fn make(
        &self,
        folder: &Path,
        options: &Options,
        work: &Path,
        worker: usize,
    ) -> Result<Option<(Plain, Patch)>> {
        let mut key = Hasher::new();
        key.update(&ENGINE.to_le_bytes());
        key.update(&self.base.sha256()?.0);
        key.update(&self.target.sha256.0);
        let key = key.finish();
        let kept_in = options.cache.as_deref().unwrap_or(work);
        host::file::make_folder(kept_in, 0o755).during(WHAT)?;
        let (file, note) = (kept_in.join(format!("{key}.delta")), kept_in.join(format!("{key}.json")));
        let kept = match read_note(&note, &file) {
            Some(kept) => kept,
            None => {
                let scratch = work.join(format!("worker-{worker}"));
                let kept = self.make_anew(&folder.join("pool").join(&self.target.file), &scratch, &file)?;
                host::file::remove(&scratch).during(WHAT)?;
                let bytes = serde_json::to_vec(&kept).map_err(|e| Error::new(Kind::Io, WHAT, e))?;
                host::file::replace(&note, &bytes, 0o644).during(WHAT)?;
                kept
            }
        };
        let Kept { plain, base, patch } = kept;
        Ok(patch.map(|(size, sha256)| (plain, Patch { base, file, size, sha256 })))
    }

    fn make_anew(&self, target: &Path, scratch: &Path, file: &Path) -> Result<Kept> {
        host::file::remove(scratch).during(WHAT)?;
        host::file::make_folder(scratch, 0o755).during(WHAT)?;
        let old = Deb::open(&self.base.file, &scratch.join("old"))?;
        let new = Deb::open(target, &scratch.join("new"))?;
        let plain_file = scratch.join("plain");
        let plain = new.write_plain(&plain_file)?;
        let installed = old.installed()?;
        let limit = worth_it(self.target.size);
        let bytes = patch::make(&installed, &new, &plain_file, plain.size, limit)?;
        let base = DeltaBase {
            name: self.base.deb.name.clone(),
            arch: self.base.deb.arch.clone(),
            version: self.base.deb.version.clone(),
            size: installed.size,
            sha256: installed.sha256,
        };
        let Some(bytes) = bytes else { return Ok(Kept { plain, base, patch: None }) };
        self.prove(&bytes, &installed, plain)?;
        host::file::replace(file, &bytes, 0o644).during(WHAT)?;
        Ok(Kept { plain, base, patch: Some((bytes.len() as u64, Sha256::of(&bytes))) })
    }

    /// Applies what was made, as a node does.
    fn prove(&self, bytes: &[u8], installed: &deb::Installed, plain: Plain) -> Result<()> {
        let wrong = |why: &dyn std::fmt::Display| {
            Error::new(Kind::Data, format!("the delta to {} cannot be made", self.target.file), why)
        };
        let header = Header::read(&mut &*bytes, bytes.len() as u64, installed.size, plain.size)
            .map_err(|e| wrong(&e))?;
        let part = |(from, length): (u64, u64)| &bytes[from as usize..(from + length) as usize];
        let mut hasher = Hasher::new();
        let mut base = installed.open()?;
        let mut sink = |bytes: &[u8]| {
            hasher.update(bytes);
            Ok(())
        };
        delta::apply(&header, header.places().map(part), &mut base, &mut sink).map_err(|e| wrong(&e))?;
        match hasher.finish() == plain.sha256 {
            true => Ok(()),
            false => Err(wrong(&"what comes of it is not the package")),
        }
    }
}

/// A note of the cache, if the patch that it is about is there and right.
fn read_note(note: &Path, file: &Path) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(note).ok()?).ok()?;
    if let Some((size, sha256)) = kept.patch {
        let found = Sha256::of_reader(&mut File::open(file).ok()?).ok()?;
        return (found == (sha256, size)).then_some(kept);
    }
    Some(kept)
}

/// Reads `length` bytes of a file from `offset` on.
fn read_part(file: &File, path: &Path, offset: u64, length: u64) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, offset).at(WHAT, path)?;
    Ok(bytes)
}

/// Copies a file into another one.
fn copy_into(from: &Path, out: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<u64> {
    let mut input = File::open(from).at(WHAT, from)?;
    let (mut buffer, mut length) = (vec![0; 128 * 1024], 0);
    loop {
        match input.read(&mut buffer).at(WHAT, from)? {
            0 => return Ok(length),
            n => {
                out(&buffer[..n]).map_err(|e| Error::io(WHAT, &e))?;
                length += n as u64;
            }
        }
    }
}
