//! What is in a .deb: its archives, its plain form, and the files that it installs.
//!
//! dpkg-deb opens it, whatever it is compressed with; nothing here knows of compression.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use format::delta::{Base, BaseDigest};
use format::digest::{Hasher, Sha256};
use format::index::Plain;
use host::command::Command;

use super::{WHAT, copy_into};
use crate::error::{AtPath, During, Error, Kind, Result};

/// Writes one archive of a .deb, not compressed, to a file. Arguments: which archive, the .deb, the file.
const OPEN: &str = r#"exec dpkg-deb "$1" "$2" >"$3""#;

/// Length of the header of an ar member (ar(5)).
const AR_HEADER: u64 = 60;

/// Where data.tar begins in a plain form whose control.tar has so many bytes.
fn data_starts(control: u64) -> u64 {
    // Magic; debian-binary, four bytes; control.tar, which is even as all tar files are.
    8 + AR_HEADER + 4 + AR_HEADER + control + AR_HEADER
}

/// A .deb, its archives opened in a folder.
pub struct Deb {
    path: PathBuf,
    control: PathBuf,
    data: PathBuf,
    control_size: u64,
    data_size: u64,
    /// The regular files of data.tar, in its order.
    pub files: Vec<Content>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
    conffiles: BTreeSet<Vec<u8>>,
}

/// A regular file of data.tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Without `./` or `/` before it.
    pub path: Vec<u8>,
    /// Where its content begins in data.tar.
    pub offset: u64,
    /// Its size.
    pub size: u64,
    mode: u32,
}

/// The files that a package has installed and that everybody may read, conffiles apart: a base.
pub struct Installed {
    /// Bytes, together.
    pub size: u64,
    /// Their digest.
    pub sha256: Sha256,
    /// By path, in its order: where it begins in the base, and where its content is in data.tar.
    pub files: Vec<(u64, Content)>,
    data: PathBuf,
}

impl Deb {
    /// Opens the archives of `deb` into `folder`.
    ///
    /// # Errors
    /// If dpkg-deb or tar cannot read it.
    pub fn open(deb: &Path, folder: &Path) -> Result<Deb> {
        host::file::make_folder(folder, 0o755).during(WHAT)?;
        let (control, data) = (folder.join("control.tar"), folder.join("data.tar"));
        for (which, to) in [("--ctrl-tarfile", &control), ("--fsys-tarfile", &data)] {
            let command = Command::new("sh").args(["-c", OPEN, "sh", which]).arg(deb).arg(to);
            command.output().map_err(|e| Error::new(Kind::Data, WHAT, format!("{}: {e}", deb.display())))?;
        }
        let size = |path: &Path| std::fs::metadata(path).map(|meta| meta.len()).at(WHAT, path);
        let (control_size, data_size) = (size(&control)?, size(&data)?);
        if (control_size | data_size) & 1 == 1 || data_size >= 10_000_000_000 {
            return Err(Error::new(
                Kind::Data,
                WHAT,
                format!("{}: its archives have sizes that an ar file cannot have", deb.display()),
            ));
        }
        let conffiles = conffiles(&control)?;
        let (files, links) = contents(&data)?;
        Ok(Deb { path: deb.to_owned(), control, data, control_size, data_size, files, links, conffiles })
    }

    /// Where in the plain form the content of its files begins: to be added to their offsets.
    pub fn data_starts(&self) -> u64 {
        data_starts(self.control_size)
    }

    /// Writes the plain form: the same for the same archives, whoever makes it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_plain(&self, to: &Path) -> Result<Plain> {
        let file = File::create(to).at(WHAT, to)?;
        let (mut out, mut hasher, mut size) = (BufWriter::new(file), Hasher::new(), 0u64);
        let mut put = |bytes: &[u8]| -> io::Result<()> {
            out.write_all(bytes)?;
            hasher.update(bytes);
            size += bytes.len() as u64;
            Ok(())
        };
        let header =
            |name: &str, size: u64| format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644);
        let failed = |e: io::Error| Error::io(WHAT, &e);
        put(b"!<arch>\n").map_err(failed)?;
        put(header("debian-binary", 4).as_bytes()).map_err(failed)?;
        put(b"2.0\n").map_err(failed)?;
        for (name, path, size) in
            [("control.tar", &self.control, self.control_size), ("data.tar", &self.data, self.data_size)]
        {
            put(header(name, size).as_bytes()).map_err(failed)?;
            copy_into(path, &mut put)?;
        }
        out.flush().at(WHAT, to)?;
        Ok(Plain { size, sha256: hasher.finish() })
    }

    /// What it has installed on a node.
    ///
    /// # Errors
    /// If its archives cannot be read.
    pub fn installed(&self) -> Result<Installed> {
        const EVERYBODY_READS: u32 = 0o004;
        let mut by_path: BTreeMap<&[u8], &Content> =
            self.files.iter().map(|file| (file.path.as_slice(), file)).collect();
        for (path, target) in &self.links {
            let Some(file) = by_path.get(target.as_slice()).copied() else {
                return Err(Error::new(
                    Kind::Data,
                    WHAT,
                    format!("{}: a hard link in it leads to nothing", self.path.display()),
                ));
            };
            by_path.insert(path, file);
        }
        let (mut at, mut files) = (0, Vec::new());
        let mut digest = BaseDigest::default();
        let data = File::open(&self.data).at(WHAT, &self.data)?;
        let mut buffer = vec![0; 128 * 1024];
        for (path, content) in by_path {
            if content.mode & EVERYBODY_READS == 0 || self.conffiles.contains(path) {
                continue;
            }
            digest.file(path, content.size);
            let mut done = 0;
            while done < content.size {
                let n = buffer.len().min(usize::try_from(content.size - done).unwrap_or(usize::MAX));
                data.read_exact_at(&mut buffer[..n], content.offset + done).at(WHAT, &self.data)?;
                digest.content(&buffer[..n]);
                done += n as u64;
            }
            files.push((at, Content { path: path.to_vec(), ..content.clone() }));
            at += content.size;
        }
        Ok(Installed { size: at, sha256: digest.finish(), files, data: self.data.clone() })
    }
}

impl Installed {
    /// Its bytes.
    ///
    /// # Errors
    /// If data.tar is gone.
    pub fn open(&self) -> Result<OpenBase<'_>> {
        Ok(OpenBase { files: &self.files, data: File::open(&self.data).at(WHAT, &self.data)? })
    }

    /// Reads a part of one of its files.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, content: &Content, from: u64, length: u64) -> Result<Vec<u8>> {
        let data = File::open(&self.data).at(WHAT, &self.data)?;
        super::read_part(&data, &self.data, content.offset + from, length)
    }

    /// All of it, in one row.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_all(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.size).unwrap_or(usize::MAX)];
        self.open()?.read_at(0, &mut bytes).at(WHAT, &self.data)?;
        Ok(bytes)
    }
}

/// A base that is read at any byte.
pub struct OpenBase<'i> {
    files: &'i [(u64, Content)],
    data: File,
}

impl Base for OpenBase<'_> {
    fn read_at(&mut self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let mut place = self.files.partition_point(|(at, _)| *at <= offset).saturating_sub(1);
        while !buffer.is_empty() {
            let (at, content) = self.files.get(place).ok_or(io::ErrorKind::UnexpectedEof)?;
            let within = offset - at;
            let n = buffer.len().min(usize::try_from(content.size - within).unwrap_or(usize::MAX));
            let (part, rest) = buffer.split_at_mut(n);
            self.data.read_exact_at(part, content.offset + within)?;
            (buffer, offset, place) = (rest, offset + n as u64, place + 1);
        }
        Ok(())
    }
}

/// A path of a tar file or of a list of conffiles, as it is named here.
fn bare(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b".").unwrap_or(path);
    path.strip_prefix(b"/").unwrap_or(path)
}

fn conffiles(control: &Path) -> Result<BTreeSet<Vec<u8>>> {
    let mut archive = tar::Archive::new(File::open(control).at(WHAT, control)?);
    for entry in archive.entries().at(WHAT, control)? {
        let mut entry = entry.at(WHAT, control)?;
        if bare(&entry.path_bytes()) == b"conffiles" {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).at(WHAT, control)?;
            // A line may begin with a flag (deb-conffiles(5)); the path is its last word.
            let path = |line: &[u8]| line.rsplit(|b| *b == b' ').next().map(|path| bare(path).to_vec());
            return Ok(text
                .split(|b| *b == b'\n')
                .filter(|line| !line.is_empty())
                .filter_map(path)
                .collect());
        }
    }
    Ok(BTreeSet::new())
}

/// The regular files of a tar file in its order, and its hard links with what they lead to.
#[allow(clippy::type_complexity)]
fn contents(data: &Path) -> Result<(Vec<Content>, Vec<(Vec<u8>, Vec<u8>)>)> {
    let (mut files, mut links) = (Vec::new(), Vec::new());
    let mut archive = tar::Archive::new(File::open(data).at(WHAT, data)?);
    for entry in archive.entries_with_seek().at(WHAT, data)? {
        let entry = entry.at(WHAT, data)?;
        let path = bare(&entry.path_bytes()).to_vec();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => files.push(Content {
                path,
                offset: entry.raw_file_position(),
                size: entry.size(),
                mode: entry.header().mode().at(WHAT, data)?,
            }),
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                links.push((path, bare(&target).to_vec()));
            }
            _ => {}
        }
    }
    Ok((files, links))
}

/// The three fields by which a package is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Name.
    pub name: String,
    /// Whole version.
    pub version: String,
    /// Architecture.
    pub arch: String,
}

impl Fields {
    /// What a .deb says of itself.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(deb: &Path) -> Result<Fields> {
        let wrong =
            |why: &dyn std::fmt::Display| Error::new(Kind::Data, WHAT, format!("{}: {why}", deb.display()));
        let command = Command::new("dpkg-deb").args(["--show", "--showformat"]);
        let output = command
            .arg("${Package}\\n${Version}\\n${Architecture}\\n")
            .arg(deb)
            .output()
            .map_err(|e| wrong(&e))?;
        let mut lines = BufReader::new(output.stdout.as_bytes()).lines().map_while(io::Result::ok);
        match (lines.next(), lines.next(), lines.next()) {
            (Some(name), Some(version), Some(arch)) => Ok(Fields { name, version, arch }),
            _ => Err(wrong(&"dpkg-deb does not say what it is")),
        }
    }
}
