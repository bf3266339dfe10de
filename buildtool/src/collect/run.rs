//! The order of a collection: read what is given → ask the archive → resolve for each inventory → download the union →
//! describe each package → write.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use format::API_VERSION;
use format::digest::Sha256;
use format::index::Family;
use format::name::{MemberPath, Variant};

use super::apt::{AptRoot, Wanted};
use super::control::Stanza;
use super::inventory::{self, Content, InventoryFile};
use super::sources::Sources;
use super::{Collected, CollectedPackage, KIND, Release, ResolvedInventory, advisories, file_name};
use crate::cli::CollectAptArgs;
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::progress::Progress;

/// Names of architectures that os-release and apt spell differently.
const SPELLINGS: [(&str, &str); 3] = [("x86_64", "amd64"), ("aarch64", "arm64"), ("i686", "i386")];

/// Collects and writes `args.output`.
///
/// # Errors
/// If an input is wrong, the archive cannot be trusted or reached, or an inventory has no solution.
pub fn collect(args: &CollectAptArgs, progress: Progress) -> Result<Collected> {
    let architecture = architecture(args);
    let sources = Sources::read(&args.sources)?;
    let files = args.inventories.iter().map(|p| InventoryFile::read(p)).collect::<Result<Vec<_>>>()?;
    let foreign = files.iter().flat_map(InventoryFile::architectures).collect();

    let work = Work::begin(&args.output, args.cache.as_deref(), ".apt")?;
    let apt = AptRoot::prepare(&work.folder, &sources, &args.keyrings, &architecture, &foreign)?;
    progress.say("reading the archive's metadata ...");
    apt.update()?;
    let releases = apt.releases()?;
    if args.security_only {
        apt.only_security(&releases)?;
    }

    let mut inventories = Vec::new();
    let mut wanted: BTreeSet<Wanted> = BTreeSet::new();
    let mut statuses = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let text = status_text(file, &apt, &architecture)?;
        let path = work.folder.join(format!("status.{number}"));
        fs::write(&path, &text).at("the inventory cannot be copied", &path)?;
        let resolution = apt.resolve(&path, &file.name)?;
        let needed = resolution.wanted.len();
        progress.say(&format!("{}: {needed} packages needed", file.name));
        if needed > 0 {
            apt.download(&path, progress, needed as u64)?;
        }
        wanted.extend(resolution.wanted);
        inventories.push(ResolvedInventory {
            name: file.name.clone(),
            sha256: file.sha256,
            installed: inventory::installed(&text).len(),
            needed,
            kept_back: resolution.kept_back,
            removed: resolution.removed,
        });
        statuses.push(text);
    }

    let wanted: Vec<Wanted> = wanted.into_iter().collect();
    let described = apt.describe(&wanted)?;
    let oldest = inventory::oldest_sources(statuses.iter().map(String::as_str));
    let packages = fill_pool(&apt, &described, &oldest, &args.output, progress)?;

    let asked = Asked {
        variant: &args.variant,
        family: Family::Apt,
        architecture,
        security_only: args.security_only,
        sources: &args.sources,
        output: &args.output,
    };
    work.finish(asked, Found { releases, inventories, packages, modules: Vec::new() })
}

fn architecture(args: &CollectAptArgs) -> String {
    if let Some(architecture) = &args.architecture {
        return architecture.clone();
    }
    let last = args.variant.as_str().rsplit('-').next().unwrap_or_default();
    let known = SPELLINGS.iter().find(|(theirs, _)| *theirs == last);
    known.map_or(last, |(_, apts)| apts).to_owned()
}

/// Where the package manager works: the cache that was given, or a folder that goes away at the end.
pub struct Work {
    /// The folder.
    pub folder: PathBuf,
    keep: bool,
}

/// What a collection was asked for.
pub struct Asked<'a> {
    /// For whom.
    pub variant: &'a Variant,
    /// Of which kind its packages are.
    pub family: Family,
    /// As the family spells it.
    pub architecture: String,
    /// Whether only security updates count.
    pub security_only: bool,
    /// The file that names the repositories.
    pub sources: &'a Path,
    /// Where it goes.
    pub output: &'a Path,
}

/// What came of it.
pub struct Found {
    /// The repositories, as they call themselves.
    pub releases: Vec<Release>,
    /// For whom it was resolved.
    pub inventories: Vec<ResolvedInventory>,
    /// The packages, in order.
    pub packages: Vec<CollectedPackage>,
    /// Documents of module metadata.
    pub modules: Vec<String>,
}

impl Work {
    /// Begins a collection in `output`; without a `cache`, works in `own` there.
    ///
    /// # Errors
    /// If the folders cannot be made.
    pub fn begin(output: &Path, cache: Option<&Path>, own: &str) -> Result<Self> {
        let what = "the collection cannot be written";
        host::file::make_folder(output, 0o755).during(what)?;
        // Without it, a folder is no collection: an interrupted one is not taken for a whole one.
        host::file::remove(&output.join(super::FILE)).during(what)?;
        let (folder, keep) = match cache {
            Some(cache) => (cache.to_owned(), true),
            None => (output.join(own), false),
        };
        host::file::make_folder(&folder, 0o755).during(what)?;
        let folder = fs::canonicalize(&folder).at(what, &folder)?;
        Ok(Work { folder, keep })
    }

    /// Writes the collection, and takes away what is not kept.
    ///
    /// # Errors
    /// If the sources name no repository, or a file cannot be written or removed.
    pub fn finish(self, asked: Asked<'_>, found: Found) -> Result<Collected> {
        let created = found.releases.iter().map(|r| r.date).max().ok_or_else(|| {
            let why = format!("{} enables no repository", asked.sources.display());
            Error::new(Kind::Config, "nothing was collected", why)
        })?;
        let collected = Collected {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            variant: asked.variant.clone(),
            family: asked.family,
            architecture: asked.architecture,
            created,
            security_only: asked.security_only,
            releases: found.releases,
            inventories: found.inventories,
            packages: found.packages,
            modules: found.modules,
        };
        collected.write(asked.output)?;
        if !self.keep {
            host::file::remove(&self.folder).during("the collection's own folder cannot be removed")?;
        }
        Ok(collected)
    }
}

fn status_text(file: &InventoryFile, apt: &AptRoot, architecture: &str) -> Result<String> {
    match &file.content {
        Content::Status(text) => Ok(text.clone()),
        Content::List(list) => {
            let stanzas = apt.stanzas_of(list, architecture)?;
            let known = |l: &inventory::Listed| {
                stanzas.get(&(l.name.clone(), l.arch.clone().unwrap_or_default())).cloned()
            };
            Ok(inventory::synthesise(list, architecture, &known))
        }
    }
}

/// Brings each package into `output/pool`, verified, and takes away what does not belong there.
fn fill_pool(
    apt: &AptRoot,
    described: &BTreeMap<Wanted, (Stanza, String)>,
    oldest: &BTreeMap<String, String>,
    output: &Path,
    progress: Progress,
) -> Result<Vec<CollectedPackage>> {
    let what = "a package cannot be collected";
    let pool = output.join("pool");
    host::file::make_folder(&pool, 0o755).during(what)?;
    // Other programs are given these paths, and run elsewhere.
    let pool = fs::canonicalize(&pool).at(what, &pool)?;
    let mut packages = Vec::new();
    let mut names = BTreeSet::new();
    let bar = progress.items("verifying", described.len() as u64);
    for (wanted, (stanza, origin)) in described {
        let file = file_name(&wanted.name, &wanted.version, &wanted.arch);
        if !names.insert(file.clone()) {
            return Err(Error::new(
                Kind::Data,
                what,
                format!("two versions of {} differ only in their epoch", wanted.name),
            )
            .cure("collect for the inventories one by one"));
        }
        // The archive chose the name; it must be one that a bundle can have, and none that leads elsewhere.
        if let Err(error) = format!("pool/{file}").parse::<MemberPath>() {
            return Err(Error::new(Kind::Data, what, error));
        }
        let to = pool.join(&file);
        bring(&apt.file_of(wanted), &to, Some(wanted.sha256), wanted.size)?;
        let (source, source_version) = inventory::source_of(stanza);
        packages.push(CollectedPackage {
            file,
            name: wanted.name.clone(),
            version: wanted.version.clone(),
            arch: wanted.arch.clone(),
            source,
            source_version,
            origin: origin.clone(),
            size: wanted.size,
            sha256: wanted.sha256,
            advisories: Vec::new(), // see below
            stanza: stanza.to_string(),
            files: String::new(),
        });
        bar.add(1);
    }
    bar.done();
    for entry in fs::read_dir(&pool).at(what, &pool)? {
        let entry = entry.at(what, &pool)?;
        if !names.contains(entry.file_name().to_string_lossy().as_ref()) {
            host::file::remove(&entry.path()).during(what)?;
        }
    }
    add_advisories(&mut packages, &pool, oldest, progress);
    Ok(packages)
}

/// Links or copies a package and verifies it, whoever has verified it before. Its digest and size.
///
/// # Errors
/// If it is not what the archive says, where that says a SHA-256.
pub fn bring(from: &Path, to: &Path, wanted: Option<Sha256>, length: u64) -> Result<(Sha256, u64)> {
    let what = "a package cannot be collected";
    host::file::remove(to).during(what)?;
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).at(what, from)?;
    }
    let mut file = fs::File::open(to).at(what, to)?;
    let (sha256, size) = Sha256::of_reader(&mut file).at(what, to)?;
    let wanted = wanted.unwrap_or(sha256);
    if (sha256, size) == (wanted, length) {
        return Ok((sha256, size));
    }
    host::file::remove(to).during(what)?;
    Err(Error::new(
        Kind::Data,
        what,
        format!("{}: its sha256 is {sha256}, but the archive signed {wanted}", from.display()),
    )
    .cure("it was damaged on its way; run it again"))
}

/// Looks up what the packages repair. The binary packages of a source have one changelog between them; the smallest that
/// carries it is unpacked.
fn add_advisories(
    packages: &mut [CollectedPackage],
    pool: &Path,
    oldest: &BTreeMap<String, String>,
    progress: Progress,
) {
    let mut by_source: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (at, package) in packages.iter().enumerate() {
        let source = (package.source.clone(), package.source_version.clone());
        by_source.entry(source).or_default().push(at);
    }
    let bar = progress.items("reading changelogs", by_source.len() as u64);
    for ((source, _), mut of_source) in by_source {
        bar.add(1);
        let Some(oldest) = oldest.get(&source) else { continue };
        of_source.sort_by_key(|at| packages[*at].size);
        // A package whose documentation is a link to another's has none of its own.
        let mut changelogs = of_source
            .iter()
            .map(|at| advisories::changelog(&pool.join(&packages[*at].file), &packages[*at].name));
        let Some(changelog) = changelogs.find(|text| !text.is_empty()) else { continue };
        let found = advisories::advisories(&changelog, &source, oldest);
        for at in of_source {
            packages[at].advisories.clone_from(&found);
        }
    }
    bar.done();
}
