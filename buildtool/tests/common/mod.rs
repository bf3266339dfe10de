//! A whole valid world for each test to break one thing in: a small signed archive, keys, a repository, and a node that
//! judges it. Everything real: dpkg-deb, apt-ftparchive, gpg, the built binary.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot make its world fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use format::digest::Sha256;
use format::time::UnixTime;
use format::trust::TrustedMetadataSet;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const VARIANT: &str = "debian-12-amd64";

/// What a run of the binary ended with.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: {:?} {:?}", self.stdout, self.stderr))
    }
}

pub struct World {
    folder: TempDir,
}

impl World {
    pub fn new() -> Self {
        World { folder: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the binary in the world's folder.
    pub fn run(&self, args: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_prestage-build"))
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Run {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs the binary and expects success.
    pub fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}{}", run.stdout, run.stderr);
        run
    }

    /// Runs the binary and expects an exit code; returns stderr.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, code, "{args:?}: {}{}", run.stdout, run.stderr);
        run.stderr + &run.stdout
    }

    /// Makes keys of these names.
    pub fn keys(&self, names: &[&str]) {
        fs::create_dir_all(self.path("keys")).unwrap();
        for name in names {
            self.ok(&["key", "new", &format!("keys/{name}")]);
        }
    }

    /// A repository with one key for each role, all signed.
    pub fn repository(&self) {
        self.keys(&["root", "targets", "bundles", "snapshot", "timestamp"]);
        self.ok(&[
            "root",
            "init",
            "repo",
            "--root-key",
            "keys/root",
            "--targets-key",
            "keys/targets",
            "--bundles-key",
            "keys/bundles",
            "--snapshot-key",
            "keys/snapshot",
            "--timestamp-key",
            "keys/timestamp",
        ]);
    }

    /// A collection without an archive: packages of the given names and sizes. For what comes after collecting.
    pub fn collection(&self, folder: &str, packages: &[(&str, usize)]) {
        let folder = self.path(folder);
        fs::create_dir_all(folder.join("pool")).unwrap();
        let mut list = Vec::new();
        for (name, size) in packages {
            let content: Vec<u8> = (0..*size).map(|i| (i * 7 % 253) as u8).collect();
            let file = format!("{name}_1.0-1_amd64.deb");
            fs::write(folder.join("pool").join(&file), &content).unwrap();
            list.push(json!({
                "file": file, "name": name, "version": "1:1.0-1", "arch": "amd64", "source": name, "sourceVersion": "1.0-1",
                "origin": "Test:stable", "size": size, "sha256": Sha256::of(&content),
                "stanza": format!("Package: {name}\nVersion: 1:1.0-1\nArchitecture: amd64\nFilename: old/x.deb\nMD5sum: 00\nDescription: x\n"),
            }));
        }
        let collected = json!({
            "apiVersion": "patchmgmt.io/v1", "kind": "CollectedPackages", "variant": VARIANT, "family": "apt",
            "architecture": "amd64", "created": "2026-11-20T00:00:00Z", "securityOnly": false, "releases": [],
            "inventories": [], "packages": list,
        });
        fs::write(folder.join("collected.json"), collected.to_string()).unwrap();
    }

    /// Makes a bundle of a fresh collection.
    pub fn bundle(&self, out: &str, version: &str) {
        let collection = format!("{out}.collection");
        self.collection(&collection, &[("alpha", 3000), (&format!("beta{version}"), 2_500_000)]);
        self.ok(&["bundle", &collection, "--version", version, "--cycle", "2026-11", "--output", out]);
    }

    /// Signs and publishes a bundle with the keys of [`World::repository`].
    pub fn release(&self, version: &str) {
        let out = format!("out-{version}");
        self.bundle(&out, version);
        self.ok(&["sign", "repo", &out, "--key", "keys/bundles"]);
        self.publish(&[&out]);
    }

    /// Makes the pending next `policies` of these contents, as the verb that reads policies will, and the folder
    /// `policies-out` to publish them from.
    pub fn policies(&self, policies: &[(&str, &str)]) {
        let newest = files(&self.path("repo/metadata"))
            .into_iter()
            .filter(|f| f.to_string_lossy().ends_with(".policies.json"))
            .max_by_key(|f| fs::metadata(f).unwrap().modified().unwrap())
            .unwrap();
        let mut document: Value = serde_json::from_slice(&fs::read(newest).unwrap()).unwrap();
        let next = document["signed"]["version"].as_u64().unwrap() + 1;
        document["signed"]["version"] = json!(next);
        document["signed"]["targets"] = json!({});
        document["signatures"] = json!([]);
        for (path, content) in policies {
            document["signed"]["targets"][path] =
                json!({"length": content.len(), "hashes": {"sha256": Sha256::of(content.as_bytes())}});
            let file = self.path("policies-out").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        fs::write(self.path("repo.pending/policies.json"), document.to_string()).unwrap();
    }

    pub fn publish(&self, outs: &[&str]) -> Run {
        let keys = ["--snapshot-key", "keys/snapshot", "--timestamp-key", "keys/timestamp"];
        self.ok(&[&["publish", "repo"], outs, &keys].concat())
    }

    /// What a node that trusts this version of the root sees now.
    pub fn node(&self, root: u64) -> Result<TrustedMetadataSet, String> {
        node(&self.path("repo"), root)
    }

    /// The only file below the repository whose name ends so.
    pub fn find(&self, ending: &str) -> PathBuf {
        let found: Vec<PathBuf> =
            files(&self.path("repo")).into_iter().filter(|f| f.to_string_lossy().ends_with(ending)).collect();
        assert_eq!(found.len(), 1, "{ending}: {found:?}");
        found[0].clone()
    }
}

pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64)
}

/// The client workflow over a folder, with the code that nodes run.
pub fn node(repo: &Path, root: u64) -> Result<TrustedMetadataSet, String> {
    let read = |name: &str| fs::read(repo.join("metadata").join(name)).map_err(|e| format!("{name}: {e}"));
    let words = |e: format::trust::TrustError| e.to_string();
    let mut set = TrustedMetadataSet::new(&read(&format!("{root}.root.json"))?, now()).map_err(words)?;
    while let Ok(bytes) = read(&set.wanted_root().file) {
        set.update_root(&bytes).map_err(words)?;
    }
    set.finish_root().map_err(words)?;
    set.update_timestamp(&read("timestamp.json")?).map_err(words)?;
    let wanted = set.wanted_snapshot().map_err(words)?;
    set.update_snapshot(&read(&wanted.file)?).map_err(words)?;
    let mut roles = vec![("targets".to_owned(), "root")];
    while let Some((role, delegator)) = roles.pop() {
        let wanted = set.wanted_targets(&role).map_err(words)?;
        set.update_targets(&role, delegator, &read(&wanted.file)?).map_err(words)?;
        roles.extend(set.targets(&role).unwrap().delegations.iter().map(|d| (d.role.clone(), "targets")));
    }
    let listed = |role| set.targets(role).map(|t| &t.targets).into_iter().flatten();
    for (path, file) in listed("bundles").chain(listed("policies")) {
        let target: format::name::TargetPath = path.parse().unwrap();
        let bytes =
            fs::read(repo.join("targets").join(target.with_digest(&file.blob().unwrap().sha256.to_string())));
        if bytes.map_err(|e| format!("{path}: {e}"))?.len() as u64 != file.length {
            return Err(format!("{path}: wrong length"));
        }
    }
    Ok(set)
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path));
        } else {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// Runs another program and expects success.
pub fn tool(program: &str, args: &[&str], folder: &Path) -> Output {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// One .deb: control fields beside name and version, and the text of its changelog.
pub struct Deb<'d> {
    pub name: &'d str,
    pub version: &'d str,
    pub fields: &'d str,
    pub changelog: &'d str,
}

pub fn deb<'d>(name: &'d str, version: &'d str, fields: &'d str) -> Deb<'d> {
    Deb { name, version, fields, changelog: "" }
}

/// An archive of two flat releases, `main` and `security`, signed by a throw-away key.
pub struct Archive {
    folder: TempDir,
}

impl Archive {
    pub fn new(main: &[Deb<'_>], security: &[Deb<'_>]) -> Self {
        let archive = Archive { folder: TempDir::new().unwrap() };
        let gnupg = archive.path("gnupg");
        fs::create_dir(&gnupg).unwrap();
        fs::set_permissions(&gnupg, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        archive.gpg(&["--passphrase", "", "--quick-gen-key", "archive@example.org", "ed25519"]);
        archive.gpg(&["--output", "keyring.gpg", "--export", "archive@example.org"]);
        for (release, codename, debs) in
            [("main", "bookworm", main), ("security", "bookworm-security", security)]
        {
            fs::create_dir(archive.path(release)).unwrap();
            for deb in debs {
                archive.build(release, deb);
            }
            archive.sign(release, codename);
        }
        archive
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn gpg(&self, args: &[&str]) {
        let home = self.path("gnupg");
        let fixed = ["--homedir", home.to_str().unwrap(), "--batch", "--yes", "--quiet"];
        tool("gpg", &[&fixed, args].concat(), self.folder.path());
    }

    fn build(&self, release: &str, deb: &Deb<'_>) {
        let tree = self.path("tree");
        let doc = tree.join("usr/share/doc").join(deb.name);
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(&doc).unwrap();
        let arch = if deb.fields.contains("Architecture:") { "" } else { "Architecture: amd64\n" };
        let control = format!(
            "Package: {}\nVersion: {}\n{arch}Maintainer: T <t@example.org>\n{}Description: for tests\n",
            deb.name, deb.version, deb.fields
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        if !deb.changelog.is_empty() {
            fs::write(doc.join("changelog.Debian"), deb.changelog).unwrap();
            tool("gzip", &["-9n", "changelog.Debian"], &doc);
        }
        let out = self.path(release);
        tool(
            "dpkg-deb",
            &["--root-owner-group", "-Zgzip", "--build", tree.to_str().unwrap(), out.to_str().unwrap()],
            &tree,
        );
        fs::remove_dir_all(tree).unwrap();
    }

    /// Makes and signs the metadata of one release.
    pub fn sign(&self, release: &str, codename: &str) {
        let folder = self.path(release);
        for old in ["Release", "InRelease"] {
            let _ = fs::remove_file(folder.join(old));
        }
        let packages = tool("apt-ftparchive", &["packages", "."], &folder);
        fs::write(folder.join("Packages"), packages.stdout).unwrap();
        let option = |name: &str, value: &str| format!("-oAPT::FTPArchive::Release::{name}={value}");
        let label = if release == "security" { "Test-Security" } else { "Test" };
        let release = tool(
            "apt-ftparchive",
            &[
                &option("Origin", "Test"),
                &option("Label", label),
                &option("Codename", codename),
                "release",
                ".",
            ],
            &folder,
        );
        fs::write(folder.join("Release"), release.stdout).unwrap();
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        self.gpg(&["--output", &file("InRelease"), "--clearsign", &file("Release")]);
    }

    /// A sources file of both releases.
    pub fn sources(&self) -> String {
        let at = |release| format!("deb file:{} ./\n", self.path(release).display());
        at("main") + &at("security")
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // The agent that gpg started for this folder alone.
        let home = self.path("gnupg");
        let _ = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).status();
    }
}

/// A dpkg status file.
pub fn status(packages: &[(&str, &str, &str)]) -> String {
    let mut out = String::new();
    for (name, version, fields) in packages {
        let state = if fields.contains("Status:") { "" } else { "Status: install ok installed\n" };
        out += &format!(
            "Package: {name}\n{state}Maintainer: T <t@example.org>\nArchitecture: amd64\nVersion: {version}\n{fields}Description: x\n\n"
        );
    }
    out
}

/// The Debian packages in a collection, `NAME VERSION`.
pub fn collected(folder: &Path) -> BTreeMap<String, Value> {
    let text = fs::read(folder.join("collected.json")).unwrap();
    let value: Value = serde_json::from_slice(&text).unwrap();
    let packages = value["packages"].as_array().unwrap().clone();
    packages.into_iter().map(|p| (p["name"].as_str().unwrap().to_owned(), p)).collect()
}
