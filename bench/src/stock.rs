//! What is distributed: packages of the sizes that packages have, an apt archive of them, and the repository that the
//! build tool makes of that archive. And what each kind of node needs of it, planned by a real agent with real apt.
//!
//! The resolver is not what is measured here: one node of each kind plans, and the others get a copy of its plan, which
//! the agent accepts because the package state that it was made for is the same.

use std::fs;
use std::path::{Path, PathBuf};

use format::digest::Sha256;
use format::name::Variant;
use lab::debs::Deb;
use lab::node::Node;
use lab::random::Random;
use lab::repository::{Archive, Centre, Part};
use lab::sandbox::{Sandbox, command, program, succeed};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Result;
use crate::scale::Scale;

/// Packages in the bundle.
const PACKAGES: usize = 50;

/// Of these, what every node has (the first), and what each kind of node has beside (the next); the rest is for nodes
/// of kinds that are not in this fleet. Together a node needs about three tenths of the bundle.
const COMMON: usize = 6;
const OF_A_KIND: usize = 9;

/// Kinds of nodes: distinct inventories.
pub const KINDS: usize = 3;

/// The largest package is about so many times the smallest.
const SIZE_RANGE: f64 = 64.0;

/// The bundle's version.
const VERSION: &str = "20261123-1";

/// What a kind of node has and needs.
pub struct Kind {
    /// The agent's plan.
    plan: Vec<u8>,
    /// Its package files: name and digest.
    pub needs: Vec<(String, Sha256)>,
    /// Their sizes together.
    pub bytes: u64,
    /// The node that planned.
    node: Node,
}

/// Everything that the data centre has to give.
pub struct Stock {
    /// What its nodes' bundles are built for.
    pub variant: Variant,
    /// The repository.
    pub repository: PathBuf,
    /// The bundle in it.
    pub bundle: PathBuf,
    /// Its size.
    pub bundle_bytes: u64,
    /// Its digest.
    pub bundle_digest: Sha256,
    /// Its index's digest, by which nodes know it.
    pub index: Sha256,
    /// The apt archive of the same packages.
    pub archive: PathBuf,
    /// Its keyring.
    pub keyring: PathBuf,
    /// The kinds of nodes.
    pub kinds: Vec<Kind>,
    _sandbox: Sandbox,
}

impl Stock {
    /// Makes all of it. `root`: where every node has its root when its agent runs. `tell`: is given the folder that must be removed if this process does not come to that.
    ///
    /// # Errors
    /// If a file cannot be read or written; the laboratory panics where one of its tools fails.
    pub fn make(
        scale: &Scale,
        root: &Path,
        tell: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<Stock> {
        let sandbox = Sandbox::new();
        tell(sandbox.path())?;
        let archive = Archive::new(&sandbox);
        archive.publish(&packages(scale));

        // Each node has the old version of what its kind has.
        let nodes: Vec<Node> = (0..KINDS).map(|kind| Node::new(&sandbox, &format!("kind-{kind}"))).collect();
        for (kind, node) in nodes.iter().enumerate() {
            let status = node.read("/var/lib/dpkg/status");
            node.write(
                "/var/lib/dpkg/status",
                format!("{}\n\n{}", status.trim_end(), installed(members(kind))),
            );
        }
        let others = sandbox.path().join("others");
        fs::write(&others, installed(COMMON + KINDS * OF_A_KIND..PACKAGES))?;
        let variant = nodes[0].variant();
        let mut inventories: Vec<PathBuf> = nodes.iter().map(|n| n.path("/var/lib/dpkg/status")).collect();
        inventories.push(others);
        let inventories: Vec<&Path> = inventories.iter().map(PathBuf::as_path).collect();

        let centre = Centre::new(&sandbox);
        let collected = centre.collect(&archive, &variant, &inventories);
        centre.publish(&centre.bundle(&collected, VERSION));
        let repository = centre.repository();
        let bundle = centre.file(Part::BundleData);
        let (bundle_digest, bundle_bytes) = Sha256::of_reader(&mut fs::File::open(&bundle)?)?;
        let index = Sha256::of(&fs::read(centre.file(Part::Index))?);
        let kinds = nodes.into_iter().map(|node| plan(node, root, &repository)).collect::<Result<_>>()?;
        let (keyring, archive) = (archive.keyring(), sandbox.path().join("archive"));
        Ok(Stock {
            variant,
            repository,
            bundle,
            bundle_bytes,
            bundle_digest,
            index,
            archive,
            keyring,
            kinds,
            _sandbox: sandbox,
        })
    }

    /// The kind of a node.
    pub fn kind(&self, node: usize) -> &Kind {
        &self.kinds[node % KINDS]
    }

    /// What a node needs on average, in bytes.
    pub fn needs(&self) -> f64 {
        self.kinds.iter().map(|kind| kind.bytes as f64).sum::<f64>() / self.kinds.len().max(1) as f64
    }
}

impl Kind {
    /// Its inventory, as dpkg keeps it.
    pub fn inventory(&self) -> PathBuf {
        self.node.path("/var/lib/dpkg/status")
    }

    /// Makes `root` a node of this kind, as far as the agent looks: its package state, which is shared and read only,
    /// and its plan.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn furnish(&self, root: &Path) -> Result<()> {
        for folder in ["var/lib/dpkg", "var/lib/apt", "usr/bin", "etc/prestage", "var/lib/prestage/fetch"] {
            fs::create_dir_all(root.join(folder))?;
        }
        // Everything that the plan's fingerprint is made of.
        for name in [
            "var/lib/dpkg/status",
            "var/lib/apt/extended_states",
            "etc/apt",
            "usr/bin/apt-get",
            "etc/prestage/root.json",
        ] {
            if self.node.path(name).exists() {
                std::os::unix::fs::symlink(self.node.path(name), root.join(name))?;
            }
        }
        Ok(fs::write(root.join("var/lib/prestage/fetch/plan.json"), &self.plan)?)
    }
}

/// The new packages: sizes spread evenly over a logarithmic scale, and together those of the bundle.
fn packages(scale: &Scale) -> Vec<Deb> {
    let mut random = Random::new(scale.seed);
    let mut weight = || SIZE_RANGE.powf(random.below(1 << 20) as f64 / f64::from(1 << 20));
    let weights: Vec<f64> = (0..PACKAGES).map(|_| weight()).collect();
    let sum: f64 = weights.iter().sum();
    let size = |weight: &f64| (scale.bundle as f64 * weight / sum) as usize;
    weights.iter().enumerate().map(|(i, w)| Deb::new(&name(i), "2.0").payload(size(w))).collect()
}

/// Puts a node's root where every node has it, in this thread's mount namespace.
///
/// # Errors
/// If the kernel does not let it.
pub fn put(folder: &Path, root: &Path) -> Result<()> {
    let (none, bind) = (None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC);
    mount(Some(folder), root, none, bind, none).map_err(|e| format!("{}: {e}", root.display()).into())
}

fn name(package: usize) -> String {
    format!("fleet-{package}")
}

/// What a kind of node has.
fn members(kind: usize) -> impl Iterator<Item = usize> {
    let own = COMMON + kind * OF_A_KIND;
    (0..COMMON).chain(own..own + OF_A_KIND)
}

/// The old versions of these packages, as dpkg's status file has them.
fn installed(packages: impl IntoIterator<Item = usize>) -> String {
    let paragraph = |package: usize| {
        format!(
            "Package: {}\nStatus: install ok installed\nVersion: 1.0\nArchitecture: all\n\
             Maintainer: Nobody <nobody@example.org>\nDescription: made for a bench\n\n",
            name(package)
        )
    };
    packages.into_iter().map(paragraph).collect()
}

/// Lets a node plan and fetch from the folder itself, and keeps what it found out. A plan is good for a root at one
/// path only.
fn plan(node: Node, root: &Path, repository: &Path) -> Result<Kind> {
    node.configure(&[&repository.to_string_lossy()], "");
    node.trust(repository);
    put(node.root(), root)?;
    succeed(command(program("prestage")).arg("--root").arg(root).arg("fetch"));
    // With what the laboratory has mounted below it.
    umount2(root, MntFlags::MNT_DETACH)?;
    let plan = fs::read(node.path("/var/lib/prestage/fetch/plan.json"))?;
    let (mut needs, mut bytes) = (Vec::new(), 0);
    for staged in fs::read_dir(node.path("/var/lib/prestage/fetch/staged"))? {
        for package in fs::read_dir(staged?.path().join("pool"))? {
            let package = package?;
            let (digest, size) = Sha256::of_reader(&mut fs::File::open(package.path())?)?;
            needs.push((package.file_name().to_string_lossy().into_owned(), digest));
            bytes += size;
        }
    }
    if needs.len() != COMMON + OF_A_KIND {
        return Err(
            format!("a node needs {} packages and was planned {}", COMMON + OF_A_KIND, needs.len()).into()
        );
    }
    needs.sort();
    Ok(Kind { plan, needs, bytes, node })
}
