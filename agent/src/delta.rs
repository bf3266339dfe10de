//! Packages as deltas: which of those that are needed can be made of what is installed and a small patch, and making them.
//!
//! What comes of it is the package's plain form, whose digest the index signs: it is proved like anything that is fetched,
//! and read again by root before it is installed. So nothing here has to be right. Whatever is not as it should be (a file
//! that somebody edited, a package half upgraded, a patch that lies, a disk that is too small) costs the saving and no
//! more: the package comes whole, and the status says why.
//!
//! Not here: the patch itself ([`format::delta`]), and which files a package has (its package manager says).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use format::delta::{self, Base, BaseDigest, DeltaError, Header};
use format::digest::Hasher;
use format::index::{Delta, DeltaBase, Member, Plain};
use format::inventory::PackageId;
use format::status::{DeltaStatus, NotUsed};
use host::file;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::packages::PackageManager;
use crate::plan::Plan;
use crate::space;
use crate::store::Store;

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// So many packages that came whole are named in the status; the others are counted.
const NAMED: usize = 20;

/// A package that will be made of a patch.
struct Chosen<'i> {
    member: &'i Member,
    delta: &'i Delta,
    plain: Plain,
    /// The patch, as it is fetched.
    patch: Member,
}

/// What comes how.
#[derive(Default)]
pub struct Ways<'i> {
    /// What is fetched whole.
    whole: Vec<&'i Member>,
    /// What is made of patches.
    chosen: Vec<Chosen<'i>>,
    /// For the status.
    told: DeltaStatus,
}

impl<'i> Ways<'i> {
    /// What the status says of all runs for this bundle, of which `before` is what the earlier ones have told.
    pub fn tell(&self, before: Option<DeltaStatus>) -> Option<DeltaStatus> {
        let mut told = before.unwrap_or_default();
        told.packages += self.told.packages;
        told.bytes_saved += self.told.bytes_saved;
        if self.told.whole > 0 {
            told.whole = told.whole.max(self.told.whole);
            told.not_used = self.told.not_used.clone();
        }
        (told != DeltaStatus::default()).then_some(told)
    }

    fn not_used(&mut self, member: &Member, why: impl Into<String>) {
        let package = member.package.as_ref().map_or_else(|| member.path.to_string(), |p| p.name.clone());
        let why = why.into();
        log::debug!("{package} comes whole: {why}");
        self.told.whole += 1;
        if self.told.not_used.len() < NAMED {
            self.told.not_used.push(NotUsed { package, why });
        }
    }
}

/// Decides how each of `needed` comes that is not here yet: as a delta where the node has what it starts from, where it is
/// smaller than what is missing of the whole, and where there is room for what it makes.
///
/// # Errors
/// If the package manager cannot say what is installed, or the store cannot be read.
pub fn choose<'i>(
    node: &Node,
    store: &Store,
    packages: &dyn PackageManager,
    plan: &Plan,
    needed: &[&'i Member],
    is_remote: bool,
) -> Result<Ways<'i>> {
    let mut ways = Ways::default();
    let missing: Vec<&Member> = needed.iter().copied().filter(|m| !store.has_form(m)).collect();
    // A stick costs nothing by the byte, and who takes everything takes it for others.
    let is_of_use = is_remote && !plan.everything;
    if !is_of_use || !missing.iter().any(|member| member.deltas().next().is_some()) {
        ways.whole = missing;
        return Ok(ways);
    }
    let inventory = packages.inventory()?;
    let is_installed = |base: &DeltaBase| {
        let id = PackageId { name: base.name.clone(), arch: base.arch.clone() };
        inventory.0.get(&id).is_some_and(|version| *version == base.version)
    };
    let mut candidates = Vec::new();
    for member in missing {
        let Some(plain) = member.plain.filter(|_| member.deltas().next().is_some()) else {
            ways.whole.push(member);
            continue;
        };
        let left = member.size - store.length_of_partial(&member.sha256).min(member.size);
        let usable = member.deltas().filter(|delta| is_installed(&delta.base));
        let why = match usable.min_by_key(|delta| delta.size) {
            None => "no delta starts from the version that is installed",
            Some(_) if !node.settings.fetch.deltas => "[fetch] deltas is false",
            Some(delta) if delta.size >= left => "most of it is here already",
            Some(delta) if store.is_spoilt(&delta.sha256) => "its delta was tried, and did not lead to it",
            Some(delta) => {
                candidates.push((member, delta, plain));
                continue;
            }
        };
        ways.not_used(member, why);
        ways.whole.push(member);
    }
    // What saves most first: it has the first claim on the room.
    candidates.sort_by_key(|(member, delta, _)| std::cmp::Reverse(member.size.saturating_sub(delta.size)));
    let mut room = space::beside(node, store, plan, needed)?;
    for (member, delta, plain) in candidates {
        if !room.take(member.size, delta.size, plain.size) {
            ways.not_used(
                member,
                format!("there is no room for its {} bytes that are not compressed", plain.size),
            );
            ways.whole.push(member);
            continue;
        }
        // What was found is not kept: a kernel alone has thousands of files, and there may be many packages.
        match Installed::find(&node.root, packages, &delta.base).and_then(|base| base.check(&delta.base)) {
            Ok(()) => ways.chosen.push(Chosen { member, delta, plain, patch: delta.patch() }),
            Err(why) => {
                room.give_back(member.size, delta.size, plain.size);
                ways.not_used(member, why);
                ways.whole.push(member);
            }
        }
    }
    Ok(ways)
}

/// Gets everything by `get`, and makes what was chosen. What does not come right is told, and comes whole after all.
///
/// # Errors
/// Those of `get` for whole packages, and of this machine: what is wrong with a patch or with the base is none.
pub fn fetch_and_make(
    node: &Node,
    store: &Store,
    packages: &dyn PackageManager,
    ways: &mut Ways<'_>,
    get: &mut dyn FnMut(&[&Member]) -> Result<()>,
) -> Result<()> {
    get(&ways.whole)?;
    let patches: Vec<&Member> = ways.chosen.iter().map(|chosen| &chosen.patch).collect();
    if patches.is_empty() {
        return Ok(());
    }
    match get(&patches) {
        // A damaged patch is no reason to go without the package, which stands elsewhere in the file.
        Err(error) if error.exit == Exit::Integrity => log::warn!("{error}"),
        other => other?,
    }
    let mut left = Vec::new();
    for chosen in std::mem::take(&mut ways.chosen) {
        let is_here = store.has(&chosen.delta.sha256, chosen.delta.size);
        let damaged = || Err(Failure::Delta("its delta came damaged".into()));
        let make = || {
            let base = Installed::find(&node.root, packages, &chosen.delta.base).map_err(Failure::Delta)?;
            chosen.make(store, base)
        };
        match if is_here { make() } else { damaged() } {
            Ok(()) => {
                ways.told.packages += 1;
                ways.told.bytes_saved += chosen.member.size.saturating_sub(chosen.delta.size);
                // A node that shares keeps the patch for its site.
                if !node.settings.share.serve {
                    store.discard(&chosen.delta.sha256);
                }
            }
            Err(Failure::Here(error)) => return Err(error),
            Err(Failure::Delta(why)) => {
                store.spoil(&chosen.delta.sha256)?;
                file::remove(&store.partial(&chosen.plain.sha256))?;
                ways.not_used(chosen.member, why);
                left.push(chosen.member);
            }
        }
    }
    store.sync()?;
    get(&left)
}

/// Why a package could not be made.
enum Failure {
    /// The patch, or what it starts from.
    Delta(String),
    /// This machine.
    Here(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Here(error)
    }
}

impl Chosen<'_> {
    /// Applies the patch; what comes of it gets its name when its digest is right.
    fn make(&self, store: &Store, mut base: Installed) -> std::result::Result<(), Failure> {
        let (path, to) = (store.path(&self.delta.sha256), store.partial(&self.plain.sha256));
        file::remove(&to).map_err(Error::from)?;
        let out = store.open_partial(&to)?;
        let open = || -> io::Result<File> { file::open_regular(&path) };
        let part = |(from, length): (u64, u64)| -> io::Result<io::Take<File>> {
            let mut file = open()?;
            file.seek(SeekFrom::Start(from))?;
            Ok(file.take(length))
        };
        let failed = |e: io::Error| Failure::Here(Error::file(&path, &e));
        let mut file = open().map_err(failed)?;
        let header = Header::read(&mut file, self.delta.size, base.size, self.plain.size);
        let header = header.map_err(|e| Failure::Delta(e.to_string()))?;
        let [steps, differences, new] = header.places();
        let streams = [part(steps), part(differences), part(new)];
        let [steps, differences, new] = streams;
        let streams = [steps.map_err(failed)?, differences.map_err(failed)?, new.map_err(failed)?];
        let mut hasher = Hasher::new();
        let mut sink = |bytes: &[u8]| {
            hasher.update(bytes);
            (&out).write_all(bytes)
        };
        match delta::apply(&header, streams, &mut base, &mut sink) {
            Ok(()) => {}
            Err(DeltaError::Sink(e)) => return Err(Error::file(&to, &e).into()),
            Err(error) => return Err(Failure::Delta(error.to_string())),
        }
        if hasher.finish() != self.plain.sha256 {
            return Err(Failure::Delta("what its delta made is not the package".into()));
        }
        store.finish(&out, &to, &self.plain.sha256)?;
        Ok(())
    }
}

/// The installed files of a package, as one row of bytes. What is held of each is its path and where it ends.
struct Installed {
    root: PathBuf,
    /// The paths below the root, one after the other.
    paths: Vec<u8>,
    /// Of each file, in the order of the paths: where it ends in the row, and where its path ends in `paths`.
    ends: Vec<(u64, usize)>,
    size: u64,
    /// The one that was read last.
    open: Option<(usize, File)>,
}

/// Why a package is not what a patch starts from.
fn changed(base: &DeltaBase) -> String {
    format!("the installed files of {} {} are not as they were packed", base.name, base.version)
}

impl Installed {
    /// What a package has installed below `root`, if it is as long as what a patch starts from. If not: why, in words.
    fn find(
        root: &Path,
        packages: &dyn PackageManager,
        base: &DeltaBase,
    ) -> std::result::Result<Installed, String> {
        let id = PackageId { name: base.name.clone(), arch: base.arch.clone() };
        let Some(mut listed) = packages.installed_files(&id).map_err(|e| e.to_string())? else {
            return Err("the package manager does not say which files are installed".into());
        };
        // By the bytes of their paths; a path sorts otherwise, by its parts.
        listed.sort_unstable_by(|a, b| below(a).cmp(below(b)));
        listed.dedup();
        let mut found =
            Installed { root: root.to_owned(), paths: Vec::new(), ends: Vec::new(), size: 0, open: None };
        for path in listed {
            let below = below(&path);
            let meta = std::fs::symlink_metadata(root.join(OsStr::from_bytes(below)))
                .map_err(|e| format!("{} is not as it was installed: {e}", path.display()))?;
            // As the builder took them: regular files that everybody may read, conffiles apart.
            if meta.is_file() && meta.mode() & 0o004 != 0 {
                found.paths.extend_from_slice(below);
                found.size += meta.len();
                found.ends.push((found.size, found.paths.len()));
            }
        }
        if found.size == base.size { Ok(found) } else { Err(changed(base)) }
    }

    /// Whether it is so to the last byte. If not: why, in words.
    fn check(&self, base: &DeltaBase) -> std::result::Result<(), String> {
        let (mut digest, mut buffer) = (BaseDigest::default(), vec![0; CHUNK]);
        for place in 0..self.ends.len() {
            let (from, to) = self.span(place);
            digest.file(self.below(place), to - from);
            let path = self.path(place);
            let unreadable = |e: io::Error| format!("{}: {e}", path.display());
            let mut file = file::open_regular(&path).map_err(unreadable)?;
            loop {
                match file.read(&mut buffer).map_err(unreadable)? {
                    0 => break,
                    n => digest.content(&buffer[..n]),
                }
            }
        }
        if digest.finish() == base.sha256 { Ok(()) } else { Err(changed(base)) }
    }

    /// Where a file begins in the row, and where it ends.
    fn span(&self, place: usize) -> (u64, u64) {
        let before = place.checked_sub(1).map_or(0, |before| self.ends[before].0);
        (before, self.ends[place].0)
    }

    fn below(&self, place: usize) -> &[u8] {
        let from = place.checked_sub(1).map_or(0, |before| self.ends[before].1);
        &self.paths[from..self.ends[place].1]
    }

    fn path(&self, place: usize) -> PathBuf {
        self.root.join(OsStr::from_bytes(self.below(place)))
    }
}

/// The bytes of a path without its leading slash.
fn below(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes)
}

impl Base for Installed {
    fn read_at(&mut self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        // The first that ends behind it; an empty file never does.
        let mut place = self.ends.partition_point(|(end, _)| *end <= offset);
        while !buffer.is_empty() {
            if place == self.ends.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (begins, ends) = self.span(place);
            let n = buffer.len().min(usize::try_from(ends - offset).unwrap_or(usize::MAX));
            let (part, rest) = buffer.split_at_mut(n);
            if n > 0 {
                let file = match self.open.take() {
                    Some((open, file)) if open == place => file,
                    _ => file::open_regular(&self.path(place))?,
                };
                file.read_exact_at(part, offset - begins)?;
                self.open = Some((place, file));
            }
            (buffer, offset, place) = (rest, offset + n as u64, place + 1);
        }
        Ok(())
    }
}
