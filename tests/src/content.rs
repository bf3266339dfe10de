//! What a package to be made has in it, whoever packs it.

use std::fs;
use std::path::Path;

use crate::random::Random;

/// Files, with their absolute paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Those that an operator may edit.
    pub(crate) configs: Vec<String>,
}

impl Content {
    pub(crate) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.push((path.into(), content.into()));
    }

    pub(crate) fn config(&mut self, path: &str, content: &str) {
        self.configs.push(path.into());
        self.file(path, content);
    }

    /// So many bytes that do not compress; other bytes for each name and version.
    pub(crate) fn payload(&mut self, name: &str, version: &str, size: usize) {
        let seed = format!("{name} {version}");
        let seed = seed.bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        self.file(&format!("/usr/share/{name}/payload"), Random::new(seed).bytes(size));
    }

    /// Writes the files below `tree`.
    pub(crate) fn write(&self, tree: &Path) {
        for (path, content) in &self.files {
            let target = tree.join(path.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap_or(tree)).expect("a folder in the package");
            fs::write(&target, content).expect("a file in the package");
        }
    }
}
