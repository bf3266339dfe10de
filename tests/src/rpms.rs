//! RPM packages on order, made by the real rpmbuild.

use std::fs;
use std::path::{Path, PathBuf};

use crate::content::Content;
use crate::sandbox::{command, succeed};

/// A package to be made. Its release is always 1.
#[derive(Clone, Debug)]
pub struct Rpm {
    name: String,
    version: String,
    tags: String,
    content: Content,
    scripts: String,
}

impl Rpm {
    /// An empty package for all architectures.
    pub fn new(name: &str, version: &str) -> Self {
        Rpm {
            name: name.into(),
            version: version.into(),
            tags: String::new(),
            content: Content::default(),
            scripts: String::new(),
        }
    }

    /// Any tag, such as `Requires` or `Obsoletes`.
    #[must_use]
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.push_str(&format!("{name}: {value}\n"));
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

    /// A configuration file that rpm must not overwrite when the operator has edited it.
    #[must_use]
    pub fn config(mut self, path: &str, content: &str) -> Self {
        self.content.config(path, content);
        self
    }

    /// A scriptlet: `pre`, `post`, `preun` or `postun`.
    #[must_use]
    pub fn script(mut self, name: &str, body: &str) -> Self {
        self.scripts.push_str(&format!("%{name}\n{body}\n"));
        self
    }

    /// Its file name.
    pub fn file_name(&self) -> String {
        format!("{}-{}-1.noarch.rpm", self.name, self.version)
    }

    /// Makes the package in `folder` and returns its path.
    ///
    /// # Panics
    /// If rpmbuild cannot.
    pub fn build(&self, folder: &Path) -> PathBuf {
        let work = tempfile::tempdir_in("/var/tmp").expect("a temporary folder");
        let tree = work.path().join("tree");
        fs::create_dir_all(&tree).expect("a tree");
        let mut listed = String::new();
        self.content.write(&tree);
        for (path, _) in &self.content.files {
            let is_config = self.content.configs.contains(path);
            listed.push_str(&format!("{}{path}\n", if is_config { "%config(noreplace) " } else { "" }));
        }
        // As packages do with folders of their own, so that they go with them.
        let own = format!("/usr/share/{}", self.name);
        if self.content.files.iter().any(|(path, _)| path.starts_with(&format!("{own}/"))) {
            listed.push_str(&format!("%dir {own}\n"));
        }
        let spec = work.path().join("package.spec");
        let text = format!(
            "Name: {}\nVersion: {}\nRelease: 1\nSummary: made for a test\nLicense: none\nBuildArch: noarch\nAutoReqProv: no\n{}\
             %description\nMade for a test.\n%install\ncp -a {}/. %{{buildroot}}/\n{}%files\n%defattr(-,root,root)\n{listed}",
            self.name,
            self.version,
            self.tags,
            tree.display(),
            self.scripts,
        );
        fs::write(&spec, text).expect("a spec");
        fs::create_dir_all(folder).expect("the folder for packages");
        let define = |name: &str, value: &str| ["--define".to_owned(), format!("{name} {value}")];
        let mut build = command("rpmbuild");
        build
            .args(["--quiet", "-bb"])
            .arg(&spec)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .env("HOME", work.path());
        for [option, value] in [
            define("_topdir", &work.path().to_string_lossy()),
            define("_rpmdir", &folder.to_string_lossy()),
            define("_build_name_fmt", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"),
            define("__os_install_post", "%{nil}"),
            define("_binary_payload", "w1.gzdio"),
            define("_buildhost", "localhost"),
            define("use_source_date_epoch_as_buildtime", "1"),
            define("clamp_mtime_to_source_date_epoch", "1"),
        ] {
            build.args([option, value]);
        }
        succeed(&mut build);
        folder.join(self.file_name())
    }
}
