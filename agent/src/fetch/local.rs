//! A mirror that is a folder, or one `.tar` file as `prestage-build export` makes it: a USB stick, an rsync target, a
//! network share.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::transport::{Range, Traffic, Transport, TransportError};
use crate::error::{Error, Exit, Result};

/// The most files that an export may hold, so that a hostile one cannot cost memory: a bundle's export holds about a
/// dozen, and every root version.
const MAX_FILES: usize = 10_000;

/// A folder with the layout of a repository.
pub struct Folder {
    path: PathBuf,
    name: String,
}

impl Folder {
    /// The mirror in `path`.
    pub fn new(path: &Path) -> Self {
        Folder { path: path.to_owned(), name: path.display().to_string() }
    }
}

impl Transport for Folder {
    fn name(&self) -> &str {
        &self.name
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range>,
    ) -> std::result::Result<Box<dyn Read + '_>, TransportError> {
        let full = self.path.join(path);
        let open = || {
            let mut file = File::open(&full)?;
            let Range { from, to } = range.unwrap_or(Range { from: 0, to: u64::MAX });
            file.seek(SeekFrom::Start(from))?;
            Ok(file.take(to - from))
        };
        match open() {
            Ok(reader) => Ok(Box::new(reader)),
            Err(e) => Err(explain(&full, &e)),
        }
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn is_remote(&self) -> bool {
        false
    }
}

fn explain(path: &Path, error: &io::Error) -> TransportError {
    match error.kind() {
        io::ErrorKind::NotFound => TransportError::NotFound,
        _ => TransportError::failed(format!("{}: {error}", path.display())),
    }
}

/// One uncompressed tar file that holds a repository.
pub struct Archive {
    file: File,
    name: String,
    /// Path → first byte and length of its content.
    files: BTreeMap<String, (u64, u64)>,
}

impl Archive {
    /// Opens `path` and lists it by its headers; contents stay where they are.
    ///
    /// # Errors
    /// If it cannot be read, or is not a tar file of regular files.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::file(path, &e))?;
        let length = file.metadata().map_err(|e| Error::file(path, &e))?.len();
        let files = list(&file, length).map_err(|why| {
            Error::new(
                Exit::Integrity,
                format!("{}: {why}", path.display()),
                "make the export again, or copy it again",
            )
        })?;
        Ok(Archive { file, name: path.display().to_string(), files })
    }
}

/// Walks the headers. By hand over the tar crate's header type, because its iterator reads long names without a bound.
fn list(file: &File, length: u64) -> std::result::Result<BTreeMap<String, (u64, u64)>, String> {
    let mut files = BTreeMap::new();
    let mut at = 0u64;
    let mut header = tar::Header::new_old();
    loop {
        file.read_exact_at(header.as_mut_bytes(), at)
            .map_err(|_| "the tar file ends too early".to_owned())?;
        if header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(files);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(i, b)| u32::from(if (148..156).contains(&i) { b' ' } else { *b }))
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(format!("there is no tar header at byte {at}"));
        }
        let size = header.entry_size().map_err(|e| e.to_string())?;
        let name = String::from_utf8_lossy(&header.path_bytes()).trim_start_matches("./").to_owned();
        let content = at + 512;
        at = size
            .checked_next_multiple_of(512)
            .and_then(|s| content.checked_add(s))
            .filter(|end| *end <= length)
            .ok_or("the tar file ends too early")?;
        match header.entry_type() {
            tar::EntryType::Regular => {
                files.insert(name, (content, size));
            }
            tar::EntryType::Directory => {}
            other => {
                return Err(format!("{name:?} is a {other:?}; an export holds regular files only"));
            }
        }
        if files.len() > MAX_FILES {
            return Err(format!("more than {MAX_FILES} files"));
        }
    }
}

impl Transport for Archive {
    fn name(&self) -> &str {
        &self.name
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range>,
    ) -> std::result::Result<Box<dyn Read + '_>, TransportError> {
        let (start, length) = *self.files.get(path).ok_or(TransportError::NotFound)?;
        let Range { from, to } = range.unwrap_or(Range { from: 0, to: length });
        let (from, to) = (from.min(length), to.min(length));
        Ok(Box::new(At { file: &self.file, position: start + from, end: start + to }))
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn is_remote(&self) -> bool {
        false
    }
}

/// Reads a part of a file without moving its position.
struct At<'f> {
    file: &'f File,
    position: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n =
            buffer.len().min(usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..n], self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}
