//! Making the bundle file and its index from a collection; the same collection always gives the same bytes.
//!
//! Packages are streamed from `pool/` through digests into the file, so memory does not grow with them. What is not
//! here: how a member is framed ([`format::container`]), what the repository metadata says ([`crate::local_repo`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use format::API_VERSION;
use format::container::{Encoding, Entry, write_deflated, write_end, write_stored};
use format::digest::{Hasher, Sha256};
use format::index::{self, Advisory, BundleFile, Delta, Index, Member, MemberKind, Package, Source};
use format::name::{BundleVersion, CycleId, InvalidName, MemberPath};
use serde_json::json;

use crate::blocks::Blocks;
use crate::collect::{Collected, CollectedPackage, version};
use crate::delta::{self, Made};
use crate::editor::Release;
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::local_repo;
use crate::progress::Progress;

/// The bundle file that is written.
pub const BUNDLE: &str = "bundle.tar.gz";

/// The index file that is written.
pub const INDEX: &str = "index.json";

/// Writes `out/bundle.tar.gz` and `out/index.json`.
///
/// # Errors
/// If a package is not what the collection says, or reading or writing fails. Then neither file is new.
pub fn write(
    collected: &Collected,
    folder: &Path,
    version: &BundleVersion,
    cycle: &CycleId,
    out: &Path,
    options: &delta::Options,
    progress: Progress,
) -> Result<Index> {
    let what = "the bundle cannot be written";
    host::file::make_folder(out, 0o755).during(what)?;
    let work = out.join(".deltas.new");
    let made = delta::make(collected, folder, options, &work, progress);
    let written = made.and_then(|made| write_with(collected, folder, version, cycle, out, &made, progress));
    host::file::remove(&work).during(what)?;
    written
}

fn write_with(
    collected: &Collected,
    folder: &Path,
    version: &BundleVersion,
    cycle: &CycleId,
    out: &Path,
    deltas: &BTreeMap<String, Made>,
    progress: Progress,
) -> Result<Index> {
    let what = "the bundle cannot be written";
    let aside = out.join(format!(".{BUNDLE}.new"));
    // The index is what makes a bundle of the file; without it, a half-written one is nothing.
    host::file::remove(&out.join(INDEX)).during(what)?;
    host::file::remove(&aside).during(what)?;
    let file = File::create_new(&aside).at(what, &aside)?;
    let mut writer = DigestWriter::new(BufWriter::with_capacity(256 * 1024, file));

    let mut members = write_members(collected, folder, cycle, &mut writer, progress)?;
    write_deltas(collected, &mut members, deltas, &mut writer)?;
    write_end(&mut writer).at(what, &aside)?;
    let (length, sha256, buffer) = writer.finish();
    let file = buffer.into_inner().map_err(io::IntoInnerError::into_error).at(what, &aside)?;
    file.sync_all().at(what, &aside)?;
    std::fs::rename(&aside, out.join(BUNDLE)).at(what, &out.join(BUNDLE))?;

    let index = Index {
        api_version: API_VERSION.into(),
        kind: index::KIND.into(),
        variant: collected.variant.clone(),
        version: version.clone(),
        cycle: cycle.clone(),
        family: collected.family,
        created: collected.created,
        bundle: BundleFile {
            path: index::bundle_path(&collected.variant, version)
                .map_err(|e| Error::new(Kind::Usage, what, e))?,
            length,
            sha256,
        },
        members,
        advisories: advisories_by_source(collected),
    };
    let bytes = index.to_bytes().map_err(|e| Error::new(Kind::Data, what, e))?;
    host::file::replace(&out.join(INDEX), &bytes, 0o644).during(what)?;
    Ok(index)
}

/// What `bundle` wrote, checked, in the form in which the bundles role lists it.
///
/// # Errors
/// If it is not there, or the file is not the one that its index describes.
pub fn read_release(out: &Path) -> Result<Release> {
    let what = "the bundle cannot be signed";
    let path = out.join(INDEX);
    let bytes = host::file::read_limited(&path, index::MAX_INDEX).during(what)?.ok_or_else(|| {
        Error::new(Kind::Usage, what, format!("{}: there is no such file", path.display()))
            .cure("make it with bundle")
    })?;
    let wrong = |why: String| Error::new(Kind::Data, what, why);
    let index = Index::parse(&bytes).map_err(|e| wrong(format!("{}: {e}", path.display())))?;
    let file = out.join(BUNDLE);
    let mut reader = File::open(&file).at(what, &file)?;
    let (sha256, length) = Sha256::of_reader(&mut reader).at(what, &file)?;
    if (sha256, length) != (index.bundle.sha256, index.bundle.length) {
        return Err(wrong(format!("{} is not the file that its index describes", file.display()))
            .cure("bundle again"));
    }
    let index_path = index::index_path(&index.variant, &index.version).map_err(|e| wrong(e.to_string()))?;
    let entry = |length: u64, sha256: Sha256| json!({"length": length, "hashes": {"sha256": sha256}});
    Ok(Release {
        index: (index_path.to_string(), entry(bytes.len() as u64, Sha256::of(&bytes))),
        bundle: (index.bundle.path.to_string(), entry(length, sha256)),
        prefix: format!("bundles/{}/", index.variant),
        cycle: index.cycle,
    })
}

/// What each source repairs: all that its packages repair, once.
fn advisories_by_source(collected: &Collected) -> BTreeMap<String, Vec<Advisory>> {
    let mut by_source: BTreeMap<String, BTreeSet<Advisory>> = BTreeMap::new();
    for package in collected.packages.iter().filter(|p| !p.advisories.is_empty()) {
        by_source.entry(package.source.clone()).or_default().extend(package.advisories.iter().cloned());
    }
    by_source.into_iter().map(|(source, found)| (source, found.into_iter().collect())).collect()
}

fn write_members(
    collected: &Collected,
    folder: &Path,
    cycle: &CycleId,
    writer: &mut DigestWriter<impl Write>,
    progress: Progress,
) -> Result<Vec<Member>> {
    let what = "the bundle cannot be written";
    let mut members = Vec::new();
    for file in local_repo::files(collected, cycle).map_err(|e| Error::io(what, &e))? {
        let path: MemberPath = parse(file.name)?;
        let (offset, size) = (writer.length, file.content.len() as u64);
        let entry = Entry::new(&path, size, collected.created);
        let written = match file.encoding {
            Encoding::Deflate => write_deflated(&entry, &file.content, writer),
            Encoding::Stored => write_stored(&entry, &mut file.content.as_slice(), writer),
        };
        let (length, sha256) = written.map_err(|e| Error::io(what, &e))?;
        members.push(Member {
            path,
            kind: MemberKind::Metadata,
            size,
            sha256,
            blocks: Blocks::of(&file.content),
            package: None,
            sources: vec![Source::Whole { offset, length, encoding: file.encoding }],
            plain: None,
        });
    }
    let mut sorted: Vec<&CollectedPackage> = collected.packages.iter().collect();
    sorted.sort_by(|a, b| a.file.cmp(&b.file));
    let bar = progress.bytes("bundling", sorted.iter().map(|p| p.size).sum());
    for package in sorted {
        members.push(write_package(package, collected, folder, writer)?);
        bar.add(package.size);
    }
    bar.done();
    Ok(members)
}

fn write_package(
    package: &CollectedPackage,
    collected: &Collected,
    folder: &Path,
    writer: &mut DigestWriter<impl Write>,
) -> Result<Member> {
    let path: MemberPath = parse(&format!("pool/{}", package.file))?;
    let from = folder.join(path.as_str());
    let what = "a package cannot be bundled";
    let damaged = |why: &dyn std::fmt::Display| {
        Error::new(Kind::Data, what, format!("{}: {why}", from.display())).cure("collect again")
    };
    let file = File::open(&from).at(what, &from)?;
    let mut reader = BlockReader { inner: file, blocks: Blocks::new(package.size) };
    let entry = Entry::new(&path, package.size, collected.created);
    let offset = writer.length;
    let (length, sha256) = write_stored(&entry, &mut reader, writer).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => damaged(&e),
        _ => Error::io(what, &io::Error::new(e.kind(), format!("{}: {e}", from.display()))),
    })?;
    if sha256 != package.sha256 {
        return Err(damaged(&format_args!("its sha256 is {sha256}, but {} was collected", package.sha256)));
    }
    let (epoch, upstream, revision) = version::split(&package.version);
    Ok(Member {
        path,
        kind: MemberKind::Package,
        size: package.size,
        sha256,
        blocks: reader.blocks.finish(),
        package: Some(Package {
            name: package.name.clone(),
            epoch,
            version: upstream.to_owned(),
            release: revision.to_owned(),
            arch: package.arch.clone(),
            source: package.source.clone(),
            origin: package.origin.clone(),
        }),
        sources: vec![Source::Whole { offset, length, encoding: Encoding::Stored }],
        plain: None,
    })
}

/// The patches, behind all members and in their order, each beside what it leads to.
fn write_deltas(
    collected: &Collected,
    members: &mut [Member],
    deltas: &BTreeMap<String, Made>,
    writer: &mut DigestWriter<impl Write>,
) -> Result<()> {
    let what = "a delta cannot be bundled";
    for member in members {
        let file = member.path.as_str().strip_prefix("pool/").unwrap_or_default().to_owned();
        let Some(Made { plain, patches }) = deltas.get(&file) else { continue };
        member.plain = Some(*plain);
        for patch in patches {
            let path: MemberPath = parse(&delta_path(&file, &patch.base.sha256))?;
            let entry = Entry::new(&path, patch.size, collected.created);
            let input = File::open(&patch.file).at(what, &patch.file)?;
            let mut reader = BlockReader { inner: input, blocks: Blocks::new(patch.size) };
            let offset = writer.length;
            let (length, sha256) =
                write_stored(&entry, &mut reader, writer).map_err(|e| Error::io(what, &e))?;
            if sha256 != patch.sha256 {
                let why = format!("{}: its content has changed", patch.file.display());
                return Err(Error::new(Kind::Data, what, why).cure("bundle again"));
            }
            member.sources.push(Source::Delta(Box::new(Delta {
                path,
                offset,
                length,
                size: patch.size,
                sha256,
                blocks: reader.blocks.finish(),
                base: patch.base.clone(),
            })));
        }
    }
    Ok(())
}

/// What a patch is called in the bundle: the package, and a part of the digest of what it starts from.
fn delta_path(file: &str, base: &Sha256) -> String {
    // A name in a tar header has at most 100 bytes.
    const MOST: usize = 70;
    let stem = file.strip_suffix(".deb").unwrap_or(file);
    format!("delta/{}.{}.delta", &stem[..stem.len().min(MOST)], base.short())
}

fn parse(path: &str) -> Result<MemberPath> {
    path.parse().map_err(|e: InvalidName| Error::new(Kind::Data, "a package cannot be bundled", e))
}

/// Counts and hashes what is written through it.
struct DigestWriter<W> {
    inner: W,
    length: u64,
    digest: Hasher,
}

impl<W: Write> DigestWriter<W> {
    fn new(inner: W) -> Self {
        DigestWriter { inner, length: 0, digest: Hasher::new() }
    }

    fn finish(self) -> (u64, Sha256, W) {
        (self.length, self.digest.finish(), self.inner)
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.digest.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes the blocks of what is read through it.
struct BlockReader<R> {
    inner: R,
    blocks: Blocks,
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.blocks.update(&buffer[..n]);
        Ok(n)
    }
}
