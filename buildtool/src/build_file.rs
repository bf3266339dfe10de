//! The build file, `prestage.toml`: what a cycle is made of, for all variants of a fleet, so that one command makes the bundles
//! of all of them side by side.
//!
//! Nothing is signed here: who builds need not be who approves. Paths are relative to the file's own folder.

use std::path::{Path, PathBuf};

use format::index::{Family, Index};
use format::name::{BundleVersion, CycleId, Variant};

use crate::cli::{BASES, CollectAptArgs, CollectDnfArgs};
use crate::delta::{self, Fleet};
use crate::error::{AtPath, During, Error, Kind, Result};
use crate::progress::Progress;
use crate::{bundle, collect};

/// A build file has some lines for each variant; more is none.
const MAX_FILE: u64 = 1024 * 1024;

const WHAT: &str = "the build file cannot be used";

/// A build file as it is typed.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuildFile {
    /// Where everything goes: `VARIANT/collected` and `VARIANT/bundle`.
    output: PathBuf,
    /// Keeps metadata and downloads for the next cycle, a folder for each variant.
    cache: Option<PathBuf>,
    /// What is built.
    variant: Vec<VariantEntry>,
}

/// One variant.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct VariantEntry {
    name: Variant,
    family: Family,
    sources: PathBuf,
    /// apt: keyrings; RPM: vendors' keys.
    keys: Vec<PathBuf>,
    /// Paths; one that ends in `/*` stands for all that its folder has.
    inventories: Vec<String>,
    #[serde(default)]
    security_only: bool,
    /// apt: folders with packages of older versions, from which deltas are made.
    #[serde(default)]
    bases: Vec<PathBuf>,
}

/// What came of one variant.
#[derive(Debug)]
pub struct Built {
    /// Which.
    pub variant: Variant,
    /// Where its bundle is.
    pub bundle: PathBuf,
    /// Its index, or why there is none.
    pub result: Result<Index>,
}

impl BuildFile {
    /// Reads and checks a build file.
    ///
    /// # Errors
    /// If it is none, with line and column; or names a variant twice.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: &dyn std::fmt::Display| {
            Error::new(Kind::Config, WHAT, format!("{}: {why}", path.display()))
        };
        let bytes = host::file::read_limited(path, MAX_FILE)
            .during(WHAT)?
            .ok_or_else(|| wrong(&"there is no such file"))?;
        let text = String::from_utf8(bytes).map_err(|e| wrong(&e))?;
        let mut file: BuildFile =
            toml::from_str(&text).map_err(|e| wrong(&e.to_string().trim().replace('\n', " ")))?;
        let mut names: Vec<&Variant> = file.variant.iter().map(|v| &v.name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(wrong(&format_args!("it has the variant {} twice", twice[0])));
        }
        if names.is_empty() {
            return Err(wrong(&"it has no [[variant]]"));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        file.output = base.join(&file.output);
        file.cache = file.cache.map(|cache| base.join(cache));
        for variant in &mut file.variant {
            variant.sources = base.join(&variant.sources);
            variant.keys = variant.keys.iter().map(|key| base.join(key)).collect();
            variant.bases = variant.bases.iter().map(|folder| base.join(folder)).collect();
            variant.inventories =
                variant.inventories.iter().map(|i| base.join(i).to_string_lossy().into_owned()).collect();
        }
        Ok(file)
    }

    /// Builds every variant, as many at a time as this machine has cores. One that fails holds up no other.
    pub fn build(&self, version: &BundleVersion, cycle: &CycleId, progress: Progress) -> Vec<Built> {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let mut built = Vec::new();
        // In groups: variants cost about the same, and a queue would be more to read than it saves.
        for group in self.variant.chunks(at_once) {
            std::thread::scope(|scope| {
                let threads: Vec<_> = group
                    .iter()
                    .map(|variant| scope.spawn(|| self.build_one(variant, version, cycle, progress)))
                    .collect();
                for (variant, thread) in group.iter().zip(threads) {
                    let died = || {
                        Err(Error::new(
                            Kind::Data,
                            format!("{} was not built", variant.name),
                            "its thread died",
                        ))
                    };
                    built.push(Built {
                        variant: variant.name.clone(),
                        bundle: self.folder(variant).join("bundle"),
                        result: thread.join().unwrap_or_else(|_| died()),
                    });
                }
            });
        }
        built
    }

    fn folder(&self, variant: &VariantEntry) -> PathBuf {
        self.output.join(variant.name.as_str())
    }

    fn build_one(
        &self,
        entry: &VariantEntry,
        version: &BundleVersion,
        cycle: &CycleId,
        progress: Progress,
    ) -> Result<Index> {
        let output = self.folder(entry).join("collected");
        let (variant, sources, inventories) =
            (entry.name.clone(), entry.sources.clone(), expand(&entry.inventories)?);
        let cache = self.cache.as_ref().map(|cache| cache.join(entry.name.as_str()));
        let (nodes, delta_cache) = (inventories.clone(), cache.as_ref().map(|cache| cache.join("deltas")));
        let (security_only, architecture) = (entry.security_only, None);
        let collected = match entry.family {
            Family::Apt => {
                let keyrings = entry.keys.clone();
                let args = CollectAptArgs {
                    variant,
                    sources,
                    keyrings,
                    inventories,
                    security_only,
                    architecture,
                    output,
                    cache,
                };
                (collect::run::collect(&args, progress)?, args.output)
            }
            Family::Rpm => {
                let (keys, releasever) = (entry.keys.clone(), None);
                let args = CollectDnfArgs {
                    variant,
                    sources,
                    keys,
                    inventories,
                    security_only,
                    architecture,
                    releasever,
                    output,
                    cache,
                };
                (collect::dnf::collect(&args, progress)?, args.output)
            }
        };
        let options = delta::Options {
            bases: entry.bases.clone(),
            fleet: if entry.bases.is_empty() {
                Fleet::default()
            } else {
                Fleet::read(&nodes, &collected.0.architecture)?
            },
            cache: delta_cache,
            per_package: BASES,
        };
        bundle::write(
            &collected.0,
            &collected.1,
            version,
            cycle,
            &self.folder(entry).join("bundle"),
            &options,
            progress,
        )
    }
}

/// The inventories that a list of paths stands for, sorted.
fn expand(paths: &[String]) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for path in paths {
        let Some(folder) = path.strip_suffix("/*") else {
            out.push(path.into());
            continue;
        };
        let folder = Path::new(folder);
        let before = out.len();
        for entry in std::fs::read_dir(folder).at(WHAT, folder)? {
            out.push(entry.at(WHAT, folder)?.path());
        }
        if out.len() == before {
            return Err(Error::new(
                Kind::Config,
                WHAT,
                format!("{}: no inventory is there", folder.display()),
            ));
        }
        out[before..].sort();
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BuildFile> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("prestage.toml");
        std::fs::write(&path, text).unwrap();
        BuildFile::read(&path)
    }

    const VARIANT: &str = "[[variant]]\nname = 'debian-12-amd64'\nfamily = 'apt'\nsources = 'a.list'\nkeys = ['k']\ninventories = ['i/*']\n";

    #[test]
    fn paths_begin_where_the_file_is() {
        let file = read(&format!("output = 'out'\n{VARIANT}")).unwrap();
        assert!(file.output.is_absolute() && file.variant[0].sources.ends_with("a.list"));
        assert!(file.variant[0].sources.is_absolute());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, word) in [
            (format!("output = 'out'\n{VARIANT}secret = 1\n"), "line 8"),
            (format!("output = 'out'\n{VARIANT}{VARIANT}"), "twice"),
            ("output = 'out'\nvariant = []\n".into(), "[[variant]]"),
            (format!("output = 'out'\n{}", VARIANT.replace("'apt'", "'pacman'")), "pacman"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
