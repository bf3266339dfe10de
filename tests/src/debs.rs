//! Packages on order, made by the real dpkg-deb.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::content::Content;

/// A package to be made.
#[derive(Clone, Debug)]
pub struct Deb {
    name: String,
    version: String,
    arch: String,
    fields: String,
    content: Content,
    holes: Vec<(String, u64)>,
    scripts: Vec<(&'static str, String)>,
}

impl Deb {
    /// An empty package for all architectures.
    pub fn new(name: &str, version: &str) -> Self {
        Deb {
            name: name.into(),
            version: version.into(),
            arch: "all".into(),
            fields: String::new(),
            content: Content::default(),
            holes: Vec::new(),
            scripts: Vec::new(),
        }
    }

    /// The dependencies.
    #[must_use]
    pub fn depends(self, on: &str) -> Self {
        self.field("Depends", on)
    }

    /// Any other field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push_str(&format!("{name}: {value}\n"));
        self
    }

    /// A file, with its absolute path.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.content.file(path, content);
        self
    }

    /// A file of so many bytes that do not compress; other bytes for each name and version.
    #[must_use]
    pub fn payload(mut self, size: usize) -> Self {
        self.content.payload(&self.name, &self.version, size);
        self
    }

    /// A file of so many zeros. The package is not compressed, so it is as large as the file.
    #[must_use]
    pub fn zeros(mut self, size: u64) -> Self {
        let path = format!("/usr/share/{}/zeros", self.name);
        self.holes.push((path, size));
        self
    }

    /// A configuration file that dpkg must not overwrite when the operator has edited it.
    #[must_use]
    pub fn conffile(mut self, path: &str, content: &str) -> Self {
        self.content.config(path, content);
        self
    }

    /// A maintainer script: `preinst`, `postinst`, `prerm` or `postrm`; `body` without the `#!` line.
    #[must_use]
    pub fn script(mut self, name: &'static str, body: &str) -> Self {
        self.scripts.push((name, format!("#!/bin/sh\nset -e\n{body}\n")));
        self
    }

    /// Makes the package in `folder` and returns its path.
    ///
    /// # Panics
    /// If dpkg-deb cannot.
    pub fn build(&self, folder: &Path) -> PathBuf {
        let tree = tempfile::tempdir_in("/var/tmp").expect("a temporary folder");
        let control = tree.path().join("DEBIAN");
        fs::create_dir_all(&control).expect("DEBIAN");
        self.content.write(tree.path());
        for (path, size) in &self.holes {
            let target = tree.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap_or(tree.path())).expect("a folder in the package");
            let file = fs::File::create(&target).expect("a file in the package");
            file.set_len(*size).expect("a sparse file");
        }
        let text = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: Nobody <nobody@example.org>\n{}\
             Description: made for a test\n",
            self.name, self.version, self.arch, self.fields
        );
        fs::write(control.join("control"), text).expect("control");
        if !self.content.configs.is_empty() {
            fs::write(control.join("conffiles"), self.content.configs.join("\n") + "\n").expect("conffiles");
        }
        for (name, body) in &self.scripts {
            let path = control.join(name);
            fs::write(&path, body).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable script");
        }
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).expect("a readable tree");
        fs::create_dir_all(folder).expect("the folder for packages");
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, v)| v);
        let deb = folder.join(format!("{}_{version}_{}.deb", self.name, self.arch));
        let output = Command::new("dpkg-deb")
            .args(["--root-owner-group", if self.holes.is_empty() { "-Zgzip" } else { "-Znone" }])
            .args(["-z1", "--build"])
            .arg(tree.path())
            .arg(&deb)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .expect("dpkg-deb");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        deb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_what_was_ordered_and_the_same_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let order = Deb::new("till-app", "1:2.0-1").depends("libc6").payload(100_000);
        let deb = order.build(folder.path());
        let bytes = fs::read(&deb).unwrap();
        assert!(bytes.len() > 100_000);
        assert_eq!(bytes, fs::read(order.build(folder.path())).unwrap());
        let fields = Command::new("dpkg-deb").arg("-f").arg(&deb).output().unwrap().stdout;
        let fields = String::from_utf8(fields).unwrap();
        assert!(fields.contains("Version: 1:2.0-1") && fields.contains("Depends: libc6"), "{fields}");
    }
}
