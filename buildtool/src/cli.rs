//! The command line: one struct for each verb, so that an option of another verb cannot reach it.
//!
//! Nothing is decided here; [`crate::run`] does what each struct says.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use format::name::{BundleVersion, CycleId, Variant};
use format::time::UnixTime;

use crate::delegated::{BUNDLES, POLICIES};
use crate::signer::DEFAULT_SECONDS;

/// Collects updates, makes bundles of them, signs and publishes them for the nodes of a fleet.
#[derive(Debug, Parser)]
#[command(name = "prestage-build", version)]
pub struct Cli {
    /// Print one JSON object of the result on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no result in words; errors still go to standard error.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make and look at keys.
    #[command(subcommand)]
    Key(KeyVerb),
    /// Key ceremonies: which keys count. Root and targets keys must stay offline.
    #[command(subcommand)]
    Root(RootVerb),
    /// Collect the packages that inventories need from an upstream archive.
    #[command(subcommand)]
    Collect(CollectVerb),
    /// Collect and bundle every variant that a build file names, side by side. Nothing is signed.
    Build(BuildArgs),
    /// Make a bundle and its index of a collection. Same collection, same bytes.
    Bundle(BundleArgs),
    /// Approve a bundle with a key of the bundles role. Each approver runs it once.
    Sign(SignArgs),
    /// Publish what enough keys have signed: targets first, timestamp last. Safe to run again after any interruption.
    Publish(PublishArgs),
    /// Sign the timestamp anew (and the snapshot, when half of its time is over). For cron.
    RefreshTimestamp(RefreshArgs),
    /// List everything that is wrong with a published repository. Exit code 1 if there is anything.
    Check(CheckArgs),
    /// Serve a repository over HTTP, for trying things out.
    Serve(ServeArgs),
    /// Write all that the nodes of one variant need to a folder or one tar file, for USB and rsync.
    Export(ExportArgs),
    /// Look at bundles.
    #[command(subcommand)]
    Bundles(BundlesVerb),
    /// Check, compare and publish policies: which bundle goes to which nodes, when and how.
    #[command(subcommand)]
    Policy(PolicyVerb),
}

/// Make and look at keys.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make an Ed25519 key: FILE (PKCS#8 PEM, mode 0600) and FILE.pub. Nothing is overwritten.
    New {
        /// Where the private key goes.
        file: PathBuf,
        /// Encrypt it with the passphrase in the first line of this file.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Make a signer file: it stands for a key that another program holds (HSM, KMS, ssh-agent), and is given wherever a
    /// private key file is. Nothing is overwritten.
    ///
    /// docs/usage/signer.md says what the program is asked and must answer; two are in packaging/signers.
    Signer {
        /// Where the signer file goes.
        file: PathBuf,
        /// The key: 64 hexadecimal digits or a public key file. What the program signs is verified with it.
        #[arg(long, value_name = "KEY")]
        public: String,
        /// Seconds that the program has for each signature.
        #[arg(long, default_value_t = DEFAULT_SECONDS)]
        timeout_seconds: u64,
        /// The program and its arguments, after `--`. It runs in FILE's folder, where relative paths begin.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show the TUF key id and public key of a key file, private or public, or of a signer file.
    Show {
        /// The key or signer file.
        file: PathBuf,
        /// Holds the passphrase of an encrypted key.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
}

/// Key ceremonies.
#[derive(Debug, Subcommand)]
pub enum RootVerb {
    /// Make a repository. Keys may be private, public or signer files; what can be signed with them is signed.
    ///
    /// Root and targets keys must stay offline; bundles keys belong to those who build and approve; only snapshot and
    /// timestamp keys may be on a machine that is always on.
    Init(Box<RootInitArgs>),
    /// Give a role one more key. Makes a pending change, to be signed with `root sign` and published.
    ///
    /// The first key of the role policies makes that role.
    AddKey {
        /// The repository.
        repo: PathBuf,
        /// root, targets, bundles, policies, snapshot or timestamp.
        #[arg(long)]
        role: String,
        /// The new key: a private, public or signer file.
        #[arg(long)]
        key: PathBuf,
        #[command(flatten)]
        edit: EditArgs,
    },
    /// Replace a key of a role. Makes a pending change, to be signed with `root sign` and published.
    Rotate {
        /// The repository.
        repo: PathBuf,
        /// root, targets, bundles, policies, snapshot or timestamp.
        #[arg(long)]
        role: String,
        /// The key that goes: its id, the beginning of its id, or a key or signer file.
        #[arg(long)]
        old: String,
        /// The key that comes: a private, public or signer file.
        #[arg(long)]
        new: PathBuf,
        #[command(flatten)]
        edit: EditArgs,
    },
    /// Change how many keys of a role must sign. Makes a pending change, to be signed with `root sign` and published.
    SetThreshold {
        /// The repository.
        repo: PathBuf,
        /// root, targets, bundles, policies, snapshot or timestamp.
        #[arg(long)]
        role: String,
        /// How many.
        #[arg(long)]
        threshold: u64,
        #[command(flatten)]
        edit: EditArgs,
    },
    /// Let a role expire later. Makes a pending new version, to be signed with `root sign` and published.
    Renew {
        /// The repository.
        repo: PathBuf,
        /// root, targets, bundles or policies; publish and refresh-timestamp renew the others.
        #[arg(long)]
        role: String,
        #[command(flatten)]
        edit: EditArgs,
    },
    /// Sign everything pending that the given keys may sign. Each holder of a key runs it once.
    Sign {
        /// The repository.
        repo: PathBuf,
        /// A private key or signer file; may be given more than once.
        #[arg(long = "key", value_name = "FILE", required = true)]
        keys: Vec<PathBuf>,
        /// Holds the passphrase of encrypted keys.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Show which keys count, published and pending, and who has signed what is pending.
    Show {
        /// The repository.
        repo: PathBuf,
    },
}

/// What every pending change has.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// Days until the changed metadata expires.
    #[arg(long, default_value_t = 365)]
    pub days: u32,
}

/// `root init`.
#[derive(Debug, Args)]
pub struct RootInitArgs {
    /// The repository to make.
    pub repo: PathBuf,
    /// A key of the root role; OFFLINE. May be given more than once.
    #[arg(long = "root-key", value_name = "FILE", required = true)]
    pub root_keys: Vec<PathBuf>,
    /// How many of them must sign.
    #[arg(long, default_value_t = 1)]
    pub root_threshold: u64,
    /// A key of the targets role; OFFLINE. May be given more than once.
    #[arg(long = "targets-key", value_name = "FILE", required = true)]
    pub targets_keys: Vec<PathBuf>,
    /// How many of them must sign.
    #[arg(long, default_value_t = 1)]
    pub targets_threshold: u64,
    /// A key of the bundles role (builder, approver). May be given more than once.
    #[arg(long = "bundles-key", value_name = "FILE", required = true)]
    pub bundles_keys: Vec<PathBuf>,
    /// How many of them must sign.
    #[arg(long, default_value_t = 1)]
    pub bundles_threshold: u64,
    /// A key of the policies role (who says which bundle goes where and when). Without one there is no such role yet; root
    /// add-key makes it later. May be given more than once.
    #[arg(long = "policies-key", value_name = "FILE")]
    pub policies_keys: Vec<PathBuf>,
    /// How many of them must sign.
    #[arg(long, default_value_t = 1)]
    pub policies_threshold: u64,
    /// A key of the snapshot role; online.
    #[arg(long = "snapshot-key", value_name = "FILE", required = true)]
    pub snapshot_keys: Vec<PathBuf>,
    /// A key of the timestamp role; online.
    #[arg(long = "timestamp-key", value_name = "FILE", required = true)]
    pub timestamp_keys: Vec<PathBuf>,
    /// Days until the root expires.
    #[arg(long, default_value_t = 365)]
    pub root_days: u32,
    /// Days until targets expires.
    #[arg(long, default_value_t = 365)]
    pub targets_days: u32,
    /// Days until bundles expires.
    #[arg(long, default_value_t = BUNDLES.days)]
    pub bundles_days: u32,
    /// Days until policies expires.
    #[arg(long, default_value_t = POLICIES.days)]
    pub policies_days: u32,
    #[command(flatten)]
    pub online: OnlineDays,
    /// Holds the passphrase of encrypted keys.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
}

/// How long what online keys sign is valid.
#[derive(Clone, Copy, Debug, Args)]
pub struct OnlineDays {
    /// Days until the snapshot expires.
    #[arg(long, default_value_t = 14)]
    pub snapshot_days: u32,
    /// Days until the timestamp expires: how long a node may be kept from news without noticing.
    #[arg(long, default_value_t = 14)]
    pub timestamp_days: u32,
}

/// Collect packages.
#[derive(Debug, Subcommand)]
pub enum CollectVerb {
    /// From Debian archives, by apt's own resolver. What is no update (or new dependency of one) for any inventory is
    /// not collected.
    Apt(CollectAptArgs),
    /// From RPM repositories, by dnf's own resolver; needs dnf 4, rpm and createrepo_c on this machine, Debian or not.
    Dnf(CollectDnfArgs),
}

/// `collect dnf`.
#[derive(Debug, Args)]
pub struct CollectDnfArgs {
    /// What it is for, such as rocky-9-x86_64.
    #[arg(long)]
    pub variant: Variant,
    /// A .repo file. What it says of keys gives way to --key.
    #[arg(long)]
    pub sources: PathBuf,
    /// The vendors' keys, the only ones that count: each package must be signed by one. May be given more than once.
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub keys: Vec<PathBuf>,
    /// A node's RPM database (its folder, a copy of its root, or rpmdb.sqlite), what `rpmdb --exportdb` wrote, or a list as
    /// `rpm -qa` prints it. May be given more than once.
    #[arg(long = "inventory", value_name = "PATH", required = true)]
    pub inventories: Vec<PathBuf>,
    /// Only updates that a security advisory names; new dependencies may be others.
    #[arg(long, visible_alias = "security")]
    pub security_only: bool,
    /// Main architecture; the default is the variant's.
    #[arg(long)]
    pub architecture: Option<String>,
    /// What $releasever is in the sources; the default is the variant's major version.
    #[arg(long)]
    pub releasever: Option<String>,
    /// Where the collection goes.
    #[arg(long)]
    pub output: PathBuf,
    /// Keeps dnf's metadata and downloads here for the next time.
    #[arg(long)]
    pub cache: Option<PathBuf>,
}

/// `collect apt`.
#[derive(Debug, Args)]
pub struct CollectAptArgs {
    /// What it is for, such as debian-12-amd64.
    #[arg(long)]
    pub variant: Variant,
    /// A sources.list file, one-line or deb822. Its Signed-By gives way to --keyring.
    #[arg(long)]
    pub sources: PathBuf,
    /// The archive's keys, the only ones that count. May be given more than once.
    #[arg(long = "keyring", value_name = "FILE", required = true)]
    pub keyrings: Vec<PathBuf>,
    /// A node's dpkg status file, or a list with `name[:arch] [version]` on each line. May be given more than once.
    #[arg(long = "inventory", value_name = "FILE", required = true)]
    pub inventories: Vec<PathBuf>,
    /// Updates from security sources only; new dependencies may come from all.
    #[arg(long)]
    pub security_only: bool,
    /// Main architecture in apt's spelling; the default is the variant's.
    #[arg(long)]
    pub architecture: Option<String>,
    /// Where the collection goes.
    #[arg(long)]
    pub output: PathBuf,
    /// Keeps apt's lists and downloads here for the next time.
    #[arg(long)]
    pub cache: Option<PathBuf>,
}

/// `build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The build file; docs/usage/build-file.md has all keys.
    #[arg(default_value = "prestage.toml")]
    pub file: PathBuf,
    /// The bundles' name, such as 20261123-42.
    #[arg(long, value_name = "VERSION")]
    pub version: BundleVersion,
    /// The patch cycle, such as 2026-11.
    #[arg(long)]
    pub cycle: CycleId,
}

/// `bundle`.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// What collect wrote.
    pub collected: PathBuf,
    /// The bundle's name, such as 20261123-42.
    #[arg(long, value_name = "VERSION")]
    pub version: BundleVersion,
    /// The patch cycle, such as 2026-11.
    #[arg(long)]
    pub cycle: CycleId,
    /// The folder that bundle.tar.gz and index.json go to.
    #[arg(long)]
    pub output: PathBuf,
    /// A folder with packages of older versions (or an earlier collection): deltas from them go into the bundle. May be given
    /// more than once.
    #[arg(long, value_name = "DIR")]
    pub bases: Vec<PathBuf>,
    /// What nodes have installed, as for collect: only the bases that they have count, and --explain counts them. May be given
    /// more than once.
    #[arg(long = "inventory", value_name = "FILE")]
    pub inventories: Vec<PathBuf>,
    /// Keeps deltas for the next time.
    #[arg(long, value_name = "DIR")]
    pub delta_cache: Option<PathBuf>,
    /// So many bases for each package, at most: those that most nodes have.
    #[arg(long, value_name = "N", default_value_t = BASES)]
    pub max_bases: usize,
    /// Say of each package how large it is whole and as a delta, and what the nodes of the inventories would fetch.
    #[arg(long)]
    pub explain: bool,
}

/// More bases for a package than this are rarely worth their place: nodes that are patched every cycle have one or two versions.
pub const BASES: usize = 3;

/// `sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The repository.
    pub repo: PathBuf,
    /// What bundle wrote.
    pub out: PathBuf,
    /// A private key or signer file of the bundles role; may be given more than once.
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub keys: Vec<PathBuf>,
    /// Holds the passphrase of encrypted keys.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
    /// Days until the bundles role expires.
    #[arg(long, default_value_t = BUNDLES.days)]
    pub days: u32,
}

/// `publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The repository.
    pub repo: PathBuf,
    /// Where the contents of new targets are: what bundle wrote, for each bundle that is new.
    pub outs: Vec<PathBuf>,
    /// A key (or signer file) of the snapshot role; while it is rotated, give the old and the new one.
    #[arg(long = "snapshot-key", value_name = "FILE", required = true)]
    pub snapshot_keys: Vec<PathBuf>,
    /// A key (or signer file) of the timestamp role; while it is rotated, give the old and the new one.
    #[arg(long = "timestamp-key", value_name = "FILE", required = true)]
    pub timestamp_keys: Vec<PathBuf>,
    #[command(flatten)]
    pub online: OnlineDays,
    /// Holds the passphrase of encrypted keys.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
}

/// `refresh-timestamp`.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// The repository.
    pub repo: PathBuf,
    /// A key (or signer file) of the snapshot role; without it, only the timestamp is signed anew.
    #[arg(long = "snapshot-key", value_name = "FILE")]
    pub snapshot_keys: Vec<PathBuf>,
    /// A key (or signer file) of the timestamp role.
    #[arg(long = "timestamp-key", value_name = "FILE", required = true)]
    pub timestamp_keys: Vec<PathBuf>,
    #[command(flatten)]
    pub online: OnlineDays,
    /// Holds the passphrase of encrypted keys.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The repository.
    pub repo: PathBuf,
    /// Also hash every target and decode every member of every bundle.
    #[arg(long)]
    pub full: bool,
}

/// `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The repository.
    pub repo: PathBuf,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
}

/// `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The repository.
    pub repo: PathBuf,
    /// For the nodes of this variant.
    #[arg(long)]
    pub variant: Variant,
    /// This bundle; the default is the newest.
    #[arg(long)]
    pub bundle_version: Option<BundleVersion>,
    /// A folder, or one file if it ends in .tar. What else a folder holds stays in it.
    #[arg(long)]
    pub output: PathBuf,
}

/// Look at bundles.
#[derive(Debug, Subcommand)]
pub enum BundlesVerb {
    /// List the published bundles.
    List {
        /// The repository.
        repo: PathBuf,
    },
    /// Print the release of a version: the digests of its bundles for all variants. Its own SHA-256 is what bundleRef.checksum
    /// of a policy may say.
    Release {
        /// The repository.
        repo: PathBuf,
        /// The version.
        bundle_version: BundleVersion,
    },
}

/// Check, compare and publish policies.
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// List everything that is wrong with policies in YAML. Exit code 1 if there is anything.
    ///
    /// Each problem is one line, FILE:LINE:COLUMN: what is wrong. Two policies that could both be for one node are a
    /// problem too, so what is checked should be all there are.
    Check {
        /// Folders with *.yaml and *.yml, and files.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Also check that the bundles are published in this repository, with these checksums.
        #[arg(long)]
        repo: Option<PathBuf>,
    },
    /// Let the repository's policies be these and no others, and sign that. `publish` then publishes it.
    ///
    /// Where more keys of the role must sign, their holders do it with root sign.
    Publish(PolicyPublishArgs),
    /// Say in words what publishing these policies would change.
    Diff {
        /// The repository.
        repo: PathBuf,
        /// Folders with *.yaml and *.yml, and files: all the policies that there are to be.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        fleet: FleetArgs,
    },
    /// Show the published policies, how far their rollouts are, and what was done with them.
    Show {
        /// The repository.
        repo: PathBuf,
        /// Only this one.
        #[arg(value_name = "NAMESPACE/NAME")]
        policy: Option<String>,
    },
    /// Let no further node begin, for now. Published at once; installs that have begun go on.
    Pause(ControlArgs),
    /// Let no further node begin, because something is wrong. Published at once; installs that have begun go on.
    Halt(ControlArgs),
    /// Let a paused or halted rollout go on: the next batch begins one batchDelayMinutes from now. Published at once.
    ///
    /// After a rollback: let what Git says of this policy count again.
    Resume(ControlArgs),
    /// Take a policy back to the bundle before. Published at once; it stays there while Git still names the bundle that was
    /// left.
    Rollback {
        /// To this bundle, which must be an older one.
        #[arg(long, value_name = "VERSION")]
        to: Option<BundleVersion>,
        #[command(flatten)]
        args: ControlArgs,
    },
    /// Let nodes that refused the policy's bundle try it again. Published at once.
    Release {
        #[command(flatten)]
        args: ControlArgs,
        /// The bundle, which must be the policy's.
        #[arg(long, value_name = "VERSION")]
        bundle: BundleVersion,
        /// Only where it was refused before this time (RFC 3339, UTC); now, without it.
        #[arg(long, value_name = "TIME")]
        before: Option<UnixTime>,
    },
    /// Print the CustomResourceDefinition that lets a Kubernetes API server keep policies.
    Crd,
}

/// How many nodes there are: for batches of so many nodes, and to say what a change comes to.
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// Each policy is for so many nodes. Without it, for as many as when it was published before.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=format::rollout::MAX_NODES), conflicts_with = "inventory")]
    pub nodes: Option<u64>,
    /// The fleet's nodes and their labels, as JSON or CSV: then each policy's nodes are counted.
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
}

/// What can be done with a published rollout.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// The repository.
    pub repo: PathBuf,
    /// The policy.
    #[arg(value_name = "NAMESPACE/NAME")]
    pub policy: String,
    /// Why: nodes and dashboards show it.
    #[arg(long)]
    pub reason: String,
    /// Who wants it.
    #[arg(long)]
    pub by: String,
    /// A private key or signer file of the policies role; may be given more than once.
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub keys: Vec<PathBuf>,
    /// A key (or signer file) of the snapshot role.
    #[arg(long = "snapshot-key", value_name = "FILE", required = true)]
    pub snapshot_keys: Vec<PathBuf>,
    /// A key (or signer file) of the timestamp role.
    #[arg(long = "timestamp-key", value_name = "FILE", required = true)]
    pub timestamp_keys: Vec<PathBuf>,
    /// Holds the passphrase of encrypted keys.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
    /// Days until the policies role expires.
    #[arg(long, default_value_t = POLICIES.days)]
    pub days: u32,
    #[command(flatten)]
    pub online: OnlineDays,
}

/// `policy publish`.
#[derive(Debug, Args)]
pub struct PolicyPublishArgs {
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Who publishes them, for the history of their rollouts.
    #[arg(long, default_value = "policy publish")]
    pub by: String,
    /// The repository.
    pub repo: PathBuf,
    /// Folders with *.yaml and *.yml, and files: all the policies that there are to be.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// A private key or signer file of the policies role; may be given more than once.
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub keys: Vec<PathBuf>,
    /// Holds the passphrase of encrypted keys.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
    /// Days until the policies role expires.
    #[arg(long, default_value_t = POLICIES.days)]
    pub days: u32,
}
