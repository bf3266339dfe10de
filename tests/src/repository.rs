//! An upstream archive, and the centre that makes a repository of it: all with the real tools.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use format::container::Entry;
use format::index::{Index, Member};
use format::name::Variant;
use serde_json::{Value, json};

use crate::debs::Deb;
use crate::gpg::Gpg;
use crate::sandbox::{Sandbox, command, program, succeed};
use crate::server::Server;

/// An apt archive with a suite `stable-security`, signed by a key of its own, served over HTTP.
pub struct Archive {
    folder: PathBuf,
    gpg: Gpg,
    server: Server,
}

impl Archive {
    /// An empty archive.
    ///
    /// # Panics
    /// If gpg cannot make a key.
    pub fn new(sandbox: &Sandbox) -> Archive {
        let folder = sandbox.path().join("archive");
        fs::create_dir_all(folder.join("pool")).expect("a folder for the archive");
        let gpg = Gpg::new(sandbox, "Test Archive", "ed25519");
        let archive = Archive { server: Server::start(&folder).expect("a port"), folder, gpg };
        archive.gpg.run(&["--output", &archive.keyring().to_string_lossy(), "--export"]);
        archive
    }

    /// The keyring that the archive's signature is verified with.
    pub fn keyring(&self) -> PathBuf {
        self.folder.join("keyring.gpg")
    }

    /// A sources list that names it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn sources(&self) -> PathBuf {
        let path = self.folder.join("sources.list");
        fs::write(&path, format!("deb {} stable-security main\n", self.server.url()))
            .expect("a sources list");
        path
    }

    /// Takes a package that is made already; [`Archive::publish`] publishes it.
    ///
    /// # Panics
    /// If it is not there.
    pub fn add(&self, deb: &Path) {
        fs::copy(deb, self.folder.join("pool").join(deb.file_name().unwrap_or_default())).expect("a package");
    }

    /// Adds packages and publishes.
    ///
    /// # Panics
    /// If a tool fails.
    pub fn publish(&self, debs: &[Deb]) {
        for deb in debs {
            deb.build(&self.folder.join("pool"));
        }
        let arch = succeed(command("dpkg").arg("--print-architecture"));
        let arch = arch.trim();
        let dist = self.folder.join("dists/stable-security");
        let binary = dist.join(format!("main/binary-{arch}"));
        fs::create_dir_all(&binary).expect("folders of the archive");
        let ftparchive =
            |args: &[&str]| succeed(command("apt-ftparchive").args(args).current_dir(&self.folder));
        fs::write(binary.join("Packages"), ftparchive(&["packages", "pool"])).expect("Packages");
        let release = ftparchive(&[
            "-o=APT::FTPArchive::Release::Origin=Test",
            "-o=APT::FTPArchive::Release::Label=Test-Security",
            "-o=APT::FTPArchive::Release::Suite=stable-security",
            "-o=APT::FTPArchive::Release::Codename=stable-security",
            "-o=APT::FTPArchive::Release::Components=main",
            &format!("-o=APT::FTPArchive::Release::Architectures={arch}"),
            "release",
            "dists/stable-security",
        ]);
        fs::write(dist.join("Release"), release).expect("Release");
        let (signed, plain) = (dist.join("InRelease"), dist.join("Release"));
        self.gpg.run(&["--output", &signed.to_string_lossy(), "--clearsign", &plain.to_string_lossy()]);
    }
}

/// A part of what a node reads, to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// timestamp.json
    Timestamp,
    /// V.snapshot.json
    Snapshot,
    /// V.targets.json
    Targets,
    /// V.bundles.json
    Bundles,
    /// The bundle's index.
    Index,
    /// The gzip header of the bundle's first member.
    BundleHeader,
    /// The content of a package in the bundle.
    BundleData,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 7] = [
        Part::Timestamp,
        Part::Snapshot,
        Part::Targets,
        Part::Bundles,
        Part::Index,
        Part::BundleHeader,
        Part::BundleData,
    ];
}

/// The centre: its keys and its repository.
pub struct Centre {
    folder: PathBuf,
    /// How many keys root, bundles and policies have, of which all must sign. Where it is one, there are no policies.
    signers: usize,
    /// The ids of keys, and their TUF objects, that were asked for before.
    shown: Mutex<BTreeMap<String, (String, Value)>>,
}

impl Centre {
    /// A centre with new keys and an empty repository.
    pub fn new(sandbox: &Sandbox) -> Centre {
        Centre::with_signers(sandbox, "centre", 1)
    }

    /// A centre in the sandbox's folder `name` in which root, bundles and policies have so many keys, of which all must
    /// sign. The role policies is there where it is more than one.
    pub fn with_signers(sandbox: &Sandbox, name: &str, signers: usize) -> Centre {
        let centre = Centre { folder: sandbox.path().join(name), signers, shown: Mutex::default() };
        fs::create_dir_all(&centre.folder).expect("a folder for the centre");
        let mut init = centre.build(["root", "init"]);
        init.arg(centre.repository());
        let policies = ["policies"].into_iter().filter(|_| signers > 1);
        for role in ["root", "targets", "bundles", "snapshot", "timestamp"].into_iter().chain(policies) {
            let keys = centre.keys(role);
            for key in &keys {
                centre.make_key(key);
                init.arg(format!("--{role}-key")).arg(centre.key(key));
            }
            if keys.len() > 1 {
                init.arg(format!("--{role}-threshold")).arg(keys.len().to_string());
            }
        }
        succeed(&mut init);
        centre
    }

    /// Makes one more key, unless it is there.
    pub fn make_key(&self, name: &str) {
        if self.key(name).exists() {
            return;
        }
        succeed(self.build(["key", "new"]).arg(self.key(name)));
    }

    /// A key's id and its TUF key object.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn key_object(&self, name: &str) -> (String, Value) {
        let mut shown = self.shown.lock().expect("no thread panics with it");
        let show = || {
            let shown = succeed(self.build(["--json", "key", "show"]).arg(self.key(name)));
            let shown: Value = serde_json::from_str(&shown).expect("JSON");
            let public = json!({ "public": shown["public"] });
            let object = json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": public });
            (shown["keyid"].as_str().expect("a key id").to_owned(), object)
        };
        shown.entry(name.to_owned()).or_insert_with(show).clone()
    }

    /// The names of a role's keys.
    pub fn keys(&self, role: &str) -> Vec<String> {
        let more = if ["root", "bundles", "policies"].contains(&role) { self.signers } else { 1 };
        std::iter::once(role.to_owned()).chain((2..=more).map(|n| format!("{role}-{n}"))).collect()
    }

    /// The build tool.
    pub fn build<const N: usize>(&self, args: [&str; N]) -> std::process::Command {
        let mut command = command(program("prestage-build"));
        command.args(args);
        command
    }

    /// The file of a key; a role's first one has the role's name.
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    /// The repository.
    pub fn repository(&self) -> PathBuf {
        self.folder.join("repository")
    }

    /// Collects from `archive` what the nodes of these inventories need.
    pub fn collect(&self, archive: &Archive, variant: &Variant, inventories: &[&Path]) -> PathBuf {
        let collected = self.folder.join("collected");
        let _ = fs::remove_dir_all(&collected);
        let mut collect = self.build(["collect", "apt", "--variant", variant.as_str()]);
        collect.arg("--sources").arg(archive.sources()).arg("--keyring").arg(archive.keyring());
        for inventory in inventories {
            collect.arg("--inventory").arg(inventory);
        }
        succeed(collect.arg("--output").arg(&collected));
        collected
    }

    /// Bundles what was collected.
    pub fn bundle(&self, collected: &Path, version: &str) -> PathBuf {
        let out = self.folder.join(format!("bundle-{version}"));
        let mut bundle = self.build(["bundle"]);
        bundle.arg(collected).args(["--version", version, "--cycle", "2026-11", "--output"]).arg(&out);
        succeed(&mut bundle);
        out
    }

    /// Signs and publishes a bundle.
    pub fn publish(&self, bundle: &Path) {
        let repository = self.repository();
        let sign = |verb: &str| {
            let mut command = self.build([verb]);
            command.arg(&repository).arg(bundle);
            command
        };
        for key in self.keys("bundles") {
            succeed(sign("sign").arg("--key").arg(self.key(&key)));
        }
        succeed(
            sign("publish")
                .arg("--snapshot-key")
                .arg(self.key("snapshot"))
                .arg("--timestamp-key")
                .arg(self.key("timestamp")),
        );
    }

    /// The newest file of a kind, by the end of its name.
    pub(crate) fn newest(&self, folder: &str, suffix: &str) -> PathBuf {
        let mut found = Vec::new();
        find(&self.repository().join(folder), suffix, &mut found);
        found.sort_by_key(|p| {
            // `12.snapshot.json` after `9.snapshot.json`; targets by when they were made.
            let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let version = name.split('.').next().and_then(|v| v.parse::<u64>().ok());
            (version, fs::metadata(p).and_then(|m| m.modified()).ok())
        });
        found.pop().unwrap_or_else(|| panic!("no file {suffix} in {folder} of the repository"))
    }

    /// The file that holds a part of the newest bundle's chain.
    pub fn file(&self, part: Part) -> PathBuf {
        match part {
            Part::Timestamp => self.repository().join("metadata/timestamp.json"),
            Part::Snapshot => self.newest("metadata", ".snapshot.json"),
            Part::Targets => self.newest("metadata", ".targets.json"),
            Part::Bundles => self.newest("metadata", ".bundles.json"),
            Part::Index => self.newest("targets", ".index.json"),
            Part::BundleHeader | Part::BundleData => self.newest("targets", ".bundle.tar.gz"),
        }
    }

    /// The newest index.
    ///
    /// # Panics
    /// If it is not valid.
    pub fn index(&self) -> Index {
        Index::parse(&fs::read(self.file(Part::Index)).expect("an index")).expect("a valid index")
    }

    /// The member that is the package `name`.
    ///
    /// # Panics
    /// If there is none.
    pub fn member(&self, name: &str) -> Member {
        let index = self.index();
        let found = index.packages().find(|m| m.package.as_ref().is_some_and(|p| p.name == name));
        found.unwrap_or_else(|| panic!("the bundle has no package {name}")).clone()
    }

    /// Where in the bundle file a byte of a package's content stands.
    pub fn offset_of(&self, name: &str, byte: u64) -> u64 {
        let member = self.member(name);
        let entry: Entry = self.index().entry(&member);
        member.whole().map_or(0, |extent| extent.offset) + entry.stored_position(byte)
    }

    /// Flips one bit of a byte in a file of the repository; a second time puts it right again.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn flip(&self, part: Part, at: u64) {
        use std::os::unix::fs::FileExt as _;
        let path = self.file(part);
        let file = fs::File::options().read(true).write(true).open(&path).expect("a file of the repository");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte of it");
        byte[0] ^= 1;
        file.write_all_at(&byte, at).expect("a byte of it");
    }
}

/// The files below `folder` whose names end with `suffix`.
pub fn find(folder: &Path, suffix: &str, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, suffix, out);
        } else if path.to_string_lossy().ends_with(suffix) {
            out.push(path);
        }
    }
}
