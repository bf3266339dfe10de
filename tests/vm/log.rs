//! What a case leaves behind: a folder with its log, the serial console, QEMU's messages, and whatever it puts there.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The log of one case.
#[derive(Clone)]
pub struct Log {
    folder: Arc<PathBuf>,
    file: Arc<Mutex<File>>,
    began: Instant,
    is_loud: bool,
}

impl Log {
    /// An empty folder for a case; `is_loud`: on the terminal too.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn begin(folder: &Path, is_loud: bool) -> Log {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).expect("a folder for the log");
        let file = File::create(folder.join("log")).expect("a log");
        Log {
            folder: Arc::new(folder.into()),
            file: Arc::new(Mutex::new(file)),
            began: Instant::now(),
            is_loud,
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of this case.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Adds a paragraph, with the seconds since the case began.
    pub fn say(&self, text: &str) {
        let line = format!("{:7.1} {text}\n", self.began.elapsed().as_secs_f32());
        if let Ok(mut file) = self.file.lock() {
            let _ = file.write_all(line.as_bytes());
        }
        if self.is_loud {
            eprint!("{line}");
        }
    }

    /// Keeps a file.
    pub fn keep(&self, name: &str, content: &[u8]) {
        let _ = fs::write(self.file(name), content);
    }
}
