//! What the nodes of one variant need, as a folder or as one plain tar file: for USB sticks, rsync, branch servers.
//!
//! All metadata byte for byte, so that a node verifies it as it would the repository itself; of the targets only one
//! bundle and its index, and all that other roles list (policies, which are small). A stick is an untrusted mirror like any other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::index::{self, Index, IndexCustom};
use format::metadata::{Blob, TargetFile};
use format::name::{BundleVersion, TargetPath, Variant};
use format::release::Release;

use crate::delegated::BUNDLES;
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::progress::{Bar, Progress};
use crate::repository::{Repository, View};

/// A published bundle.
#[derive(Clone, Debug)]
pub struct Published {
    /// What it is for.
    pub variant: Variant,
    /// Its name.
    pub version: BundleVersion,
    /// Serial and cycle.
    pub custom: IndexCustom,
    /// Its index.
    pub index: (TargetPath, Blob),
    /// Its file.
    pub bundle: (TargetPath, Blob),
}

impl Published {
    /// The target of `metadata` under `path`, if that is an index of ours that has its bundle beside it.
    fn read(view: &View, path: &str, file: &TargetFile) -> Option<Self> {
        let mut parts = path.strip_prefix("bundles/")?.strip_suffix("/index.json")?.split('/');
        let (variant, version) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let bundle: TargetPath = index::bundle_path(&variant, &version).ok()?;
        let of_bundle = view.bundles()?.targets.get(bundle.as_str())?.blob()?;
        Some(Published {
            variant,
            version,
            custom: serde_json::from_slice(&file.custom.canonical()).ok()?,
            index: (path.parse().ok()?, file.blob()?),
            bundle: (bundle, of_bundle),
        })
    }
}

/// The published bundles, by variant and serial.
pub fn bundles(view: &View) -> Vec<Published> {
    let targets = view.bundles().map(|t| &t.targets).into_iter().flatten();
    let mut out: Vec<Published> =
        targets.filter_map(|(path, file)| Published::read(view, path, file)).collect();
    out.sort_by(|a, b| (&a.variant, a.custom.serial).cmp(&(&b.variant, b.custom.serial)));
    out
}

/// The release of a version: what a policy's checksum is of, where it is for more than one variant.
pub fn release(bundles: &[Published], version: &BundleVersion) -> Option<Release> {
    let of_version = bundles.iter().filter(|bundle| bundle.version == *version);
    let bundles: BTreeMap<_, _> =
        of_version.map(|bundle| (bundle.variant.clone(), (bundle.index.1, bundle.bundle.1))).collect();
    (!bundles.is_empty()).then(|| Release { version: version.clone(), bundles })
}

/// Where the content of a target is, below the targets folder.
pub fn published_name((path, file): &(TargetPath, Blob)) -> String {
    path.with_digest(&file.sha256.to_string())
}

/// The index of a published bundle, verified.
///
/// # Errors
/// If it is missing, damaged, or breaks a rule.
pub fn read_index(repository: &Repository, bundle: &Published) -> Result<Index> {
    let path = repository.targets().join(published_name(&bundle.index));
    let what = "an index cannot be used";
    let wrong =
        |why: &dyn std::fmt::Display| Error::new(Kind::Data, what, format!("{}: {why}", path.display()));
    let bytes = host::file::read_limited(&path, bundle.index.1.length.min(index::MAX_INDEX))
        .during(what)?
        .ok_or_else(|| wrong(&"there is no such file"))?;
    let found = Sha256::of(&bytes);
    if found != bundle.index.1.sha256 {
        return Err(wrong(&format_args!("its sha256 is {found}, but {} was signed", bundle.index.1.sha256)));
    }
    Index::parse(&bytes).map_err(|e| wrong(&e))
}

/// What was exported.
#[derive(Debug)]
pub struct Written {
    /// The bundle.
    pub version: BundleVersion,
    /// Number of files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// One file of an export: its path, and its bytes or where they are.
enum Content {
    Bytes(Vec<u8>),
    File { from: PathBuf, sha256: Sha256, length: u64 },
}

/// Writes an export of the newest or the named bundle of `variant` to `output`.
///
/// # Errors
/// If there is no such bundle, a target is damaged, or writing fails.
pub fn export(
    repository: &Repository,
    view: &View,
    variant: &Variant,
    version: Option<&BundleVersion>,
    output: &Path,
    progress: Progress,
) -> Result<Written> {
    let bundle = choose(view, variant, version)?;
    let mut entries: Vec<(String, Content)> = Vec::new();
    for (version, bytes) in &view.roots {
        entries.push((format!("metadata/{version}.root.json"), Content::Bytes(bytes.clone())));
    }
    for (name, bytes) in view.files.values() {
        entries.push((format!("metadata/{name}"), Content::Bytes(bytes.clone())));
    }
    let mut targets = vec![bundle.index, bundle.bundle];
    for (_, path, file) in view.listed().filter(|(role, ..)| **role != BUNDLES) {
        let path: TargetPath = path.parse().map_err(|e| Error::new(Kind::Data, "nothing was exported", e))?;
        let file = file.blob().ok_or_else(|| {
            Error::new(Kind::Data, "nothing was exported", format!("{path} is listed without a sha256"))
        })?;
        targets.push((path, file));
    }
    for target in &targets {
        let name = published_name(target);
        entries.push((
            format!("targets/{name}"),
            Content::File {
                from: repository.targets().join(&name),
                sha256: target.1.sha256,
                length: target.1.length,
            },
        ));
    }
    // "metadata" sorts before "targets", and the index has to come before its bundle, whatever their digests.
    entries.sort_by_key(|(path, _)| (path.clone(), 0));
    entries.sort_by_key(|(path, _)| (path.starts_with("targets/"), path.ends_with(".bundle.tar.gz")));
    let bytes = entries.iter().map(|(_, content)| content.length()).sum();
    let bar = progress.bytes("exporting", bytes);
    let mtime = view.set.issued().map_or(0, |t| u64::try_from(t.0).unwrap_or(0));
    if output.extension().is_some_and(|e| e == "tar") {
        write_tar(&entries, output, mtime, &bar)?;
    } else {
        write_folder(&entries, output, &bar)?;
    }
    bar.done();
    Ok(Written { version: bundle.version, files: entries.len(), bytes })
}

fn choose(view: &View, variant: &Variant, version: Option<&BundleVersion>) -> Result<Published> {
    let mut of_variant = bundles(view).into_iter().filter(|b| b.variant == *variant);
    let chosen = match version {
        Some(version) => of_variant.find(|b| b.version == *version),
        None => of_variant.max_by_key(|b| b.custom.serial),
    };
    chosen.ok_or_else(|| {
        let named = version.map(|v| format!(" {v}")).unwrap_or_default();
        Error::new(Kind::Usage, "nothing was exported", format!("there is no bundle {variant}{named}"))
            .cure("bundles list shows what there is")
    })
}

impl Content {
    fn length(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { length, .. } => *length,
        }
    }

    /// Writes it all to `out`.
    fn copy(&self, out: &mut dyn Write, what: &str, bar: &Bar) -> Result<()> {
        match self {
            Content::Bytes(bytes) => out.write_all(bytes).map_err(|e| Error::io(what, &e)),
            Content::File { from, sha256, length } => {
                let file = File::open(from).at(what, from)?;
                // No more than was announced: in a tar file it would run into the next entry.
                let mut reader = CopyingReader { inner: io::Read::take(file, *length), out, bar };
                let (found, copied) = Sha256::of_reader(&mut reader).at(what, from)?;
                if (found, copied) == (*sha256, *length) {
                    return Ok(());
                }
                Err(Error::new(
                    Kind::Data,
                    what,
                    format!("{}: it is not the file that was signed ({sha256})", from.display()),
                )
                .cure("prestage-build check --full shows everything that is wrong"))
            }
        }
    }
}

/// Writes on what is read through it.
struct CopyingReader<'o, R> {
    inner: R,
    out: &'o mut dyn Write,
    bar: &'o Bar,
}

impl<R: io::Read> io::Read for CopyingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.out.write_all(&buffer[..n])?;
        self.bar.add(n as u64);
        Ok(n)
    }
}

/// Timestamp last, as in a publication: an interrupted export is not taken for a newer one.
fn write_folder(entries: &[(String, Content)], output: &Path, bar: &Bar) -> Result<()> {
    let what = "the export cannot be written";
    let is_metadata = |entry: &&(String, Content)| entry.0.starts_with("metadata/");
    let is_timestamp = |entry: &&(String, Content)| entry.0 == "metadata/timestamp.json";
    let targets = entries.iter().filter(|e| !is_metadata(e));
    let metadata = entries.iter().filter(|e| is_metadata(e) && !is_timestamp(e));
    for (path, content) in targets.chain(metadata).chain(entries.iter().filter(is_timestamp)) {
        let to = output.join(path);
        host::file::make_folder(to.parent().unwrap_or(output), 0o755).during(what)?;
        match content {
            Content::Bytes(bytes) => host::file::replace(&to, bytes, 0o644).during(what)?,
            Content::File { .. } => write_aside(&to, what, &mut |out| content.copy(out, what, bar))?,
        }
    }
    Ok(())
}

fn write_tar(entries: &[(String, Content)], output: &Path, mtime: u64, bar: &Bar) -> Result<()> {
    let what = "the export cannot be written";
    write_aside(output, what, &mut |out| {
        for (path, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_path(path).map_err(|e| Error::new(Kind::Data, what, format!("{path}: {e}")))?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(mtime);
            header.set_size(content.length());
            header.set_cksum();
            out.write_all(header.as_bytes()).map_err(|e| Error::io(what, &e))?;
            content.copy(out, what, bar)?;
            let padding = content.length().next_multiple_of(512) - content.length();
            out.write_all(&[0; 512][..padding as usize]).map_err(|e| Error::io(what, &e))?;
        }
        out.write_all(&[0; 1024]).map_err(|e| Error::io(what, &e))
    })
}

/// Writes a file aside, syncs and renames it.
fn write_aside(to: &Path, what: &str, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let aside = to.with_file_name(format!(".{name}.new"));
    let mut out = BufWriter::with_capacity(256 * 1024, File::create(&aside).at(what, &aside)?);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error).at(what, &aside)?;
    file.sync_all().at(what, &aside)?;
    fs::rename(&aside, to).at(what, to)?;
    host::file::sync_folder_of(to).during(what)
}
