//! A mirror that is a folder, or one `.tar` file as `prestage-build export` makes it: a USB stick, an rsync target, a
//! network share.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use format::export::{self, Place};

use super::transport::{Range, Transport, TransportError};
use crate::error::{Error, Exit, Result};

/// An export: a folder, or one tar file.
///
/// # Errors
/// If it cannot be read, or is neither.
pub fn open_export(path: &Path) -> Result<Box<dyn Transport>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(Box::new(Folder::new(path))),
        Ok(_) => Ok(Box::new(Archive::open(path)?)),
        Err(e) => Err(Error::file(path, &e)),
    }
}

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
            // A stick may hold a pipe, at whose other end nobody is.
            // Root may have named a folder that the fetch user, as whom it is read, cannot enter.
            let mut file = host::rights::with_own_rights(|| host::file::open_followed(&full))?;
            let Range { from, to } = range.unwrap_or(Range { from: 0, to: u64::MAX });
            file.seek(SeekFrom::Start(from))?;
            Ok(file.take(to - from))
        };
        match open() {
            Ok(reader) => Ok(Box::new(reader)),
            Err(e) => Err(explain(&full, &e)),
        }
    }
}

/// Without the path, which whoever asked says.
fn explain(path: &Path, error: &io::Error) -> TransportError {
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::NotFound => TransportError::NotFound,
        _ => TransportError::failed(text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text)),
    }
}

/// One uncompressed tar file that holds a repository.
pub struct Archive {
    file: File,
    name: String,
    files: BTreeMap<String, Place>,
}

impl Archive {
    /// Opens `path` and lists it by its headers; contents stay where they are.
    ///
    /// # Errors
    /// If it cannot be read, or is not a tar file of regular files.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::file(path, &e))?;
        let length = file.metadata().map_err(|e| Error::file(path, &e))?.len();
        let files =
            export::list(length, &mut |buffer, at| file.read_exact_at(buffer, at)).map_err(|why| {
                Error::new(
                    Exit::Integrity,
                    format!("{}: {why}", path.display()),
                    "make the export again, or copy it again",
                )
            })?;
        Ok(Archive { file, name: path.display().to_string(), files })
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
        let Place { offset, length } = *self.files.get(path).ok_or(TransportError::NotFound)?;
        let Range { from, to } = range.unwrap_or(Range { from: 0, to: length });
        let (from, to) = (from.min(length), to.min(length));
        Ok(Box::new(At { file: &self.file, position: offset + from, end: offset + to }))
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
