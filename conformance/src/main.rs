//! The conformance front: the agent's own TUF client behind the command line of the official conformance suite
//! (tuf-conformance, CLIENT-CLI.md). For tests; never shipped.
//!
//! ```text
//! prestage-conformance --metadata-dir DIR init ROOTFILE
//! prestage-conformance --metadata-url URL --metadata-dir DIR refresh
//! prestage-conformance --metadata-url URL --metadata-dir DIR --target-name NAME... --target-dir DIR --target-base-url URL download
//! ```
//!
//! What is judged is `agent::client` and `format::trust`, as on a node. Only this is the front's own: where the files
//! are, target paths of any shape (a node has only those of its own repository), and keys of the kind ECDSA P-256.
//! Exit code 0 or 1, nothing else.

use std::io::Read;
use std::path::{Path, PathBuf};

use agent::client::{
    Changed, Client, HttpMirror, Keep, Range, Source, Traffic, Transport, TransportError, read_all, settings,
};
use format::digest::Sha256;
use format::metadata::TargetFile;
use format::name::encode_role;
use format::trust::{MAX_ROOT, SearchStep, TrustedMetadataSet};
use host::clock::{Clock as _, SystemClock};
use host::file;

/// What went wrong, in words.
type Failure = Box<dyn std::error::Error>;

fn main() {
    // A panic is a failure like any other, also where panics abort.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(1);
    }));
    if let Err(failure) = parse(std::env::args().skip(1)).and_then(|typed| run(&typed)) {
        eprintln!("error: {failure}");
        std::process::exit(1);
    }
}

/// What was typed: flags, then the verb.
#[derive(Debug, Default)]
struct Typed {
    metadata_url: Option<String>,
    metadata_dir: Option<PathBuf>,
    target_names: Vec<String>,
    target_dir: Option<PathBuf>,
    target_base_url: Option<String>,
    verb: String,
    /// What stands behind the verb.
    rest: Vec<String>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Typed, Failure> {
    let mut typed = Typed::default();
    while let Some(arg) = args.next() {
        if !arg.starts_with("--") {
            typed.verb = arg;
            typed.rest = args.collect();
            return Ok(typed);
        }
        let value = args.next().ok_or_else(|| format!("{arg} has no value"))?;
        match arg.as_str() {
            "--metadata-url" => typed.metadata_url = Some(value),
            "--metadata-dir" => typed.metadata_dir = Some(value.into()),
            "--target-name" => typed.target_names.push(value),
            "--target-dir" => typed.target_dir = Some(value.into()),
            "--target-base-url" => typed.target_base_url = Some(value),
            _ => return Err(format!("there is no flag {arg}").into()),
        }
    }
    Err("there is no verb: init, refresh or download".into())
}

/// The value of a flag that a verb needs.
fn needed<'t, T>(value: Option<&'t T>, flag: &str) -> Result<&'t T, Failure> {
    value.ok_or_else(|| format!("{flag} is missing").into())
}

fn run(typed: &Typed) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let folder = needed(typed.metadata_dir.as_ref(), "--metadata-dir")?;
    // Beside the roles, but not with the ending by which the suite knows them.
    let keep = Keep { folder: folder.clone(), initial_root: folder.join("initial-root") };
    if typed.verb == "init" {
        return init(&keep, Path::new(needed(typed.rest.first(), "the root file")?), &clock);
    }
    let metadata = needed(typed.metadata_url.as_ref(), "--metadata-url")?;
    let targets = typed.target_base_url.as_ref();
    let client = Client::new(
        &settings(folder, None)?,
        Path::new("/"),
        [Some(metadata), targets].into_iter().flatten().any(|url| url.starts_with("https://")),
    )?;
    let mirror = Split {
        metadata: HttpMirror::new(&client, metadata),
        targets: targets.map(|url| HttpMirror::new(&client, url)),
    };
    let source = Source { mirror: &mirror, keep: &keep, clock: &clock };
    // The one look at the clock (step 5.1).
    let mut set = source.refresh(clock.now()).map_err(|refusal| refusal.to_string())?;
    match typed.verb.as_str() {
        "refresh" => Ok(()),
        "download" => {
            let folder = needed(typed.target_dir.as_ref(), "--target-dir")?;
            typed.target_names.iter().try_for_each(|name| {
                download(&source, &mut set, name, folder)
                    .map_err(|failure| format!("{name:?}: {failure}").into())
            })
        }
        other => Err(format!("there is no verb {other:?}").into()),
    }
}

/// Enrols, as an operator does who copies the root to a node.
fn init(keep: &Keep, root: &Path, clock: &SystemClock) -> Result<(), Failure> {
    let bytes = file::read_limited(root, MAX_ROOT)?.ok_or("there is no such file")?;
    let put = |path: &Path| file::replace(path, &bytes, 0o644);
    file::make_folder(&keep.folder, 0o755)?;
    put(&keep.initial_root)?;
    // An enrolment begins with an empty folder, so the root has to be put there again.
    keep.trusted_root(clock.now())?;
    put(&keep.initial_root)?;
    put(&keep.folder.join("root.json"))?;
    Ok(())
}

/// Has the target `name` in `folder`; what is there already and right is left alone.
fn download(
    source: &Source<'_>,
    set: &mut TrustedMetadataSet,
    name: &str,
    folder: &Path,
) -> Result<(), Failure> {
    source.load_roles(set, name).map_err(|refusal| refusal.to_string())?;
    let SearchStep::Found(file) = set.search(name).step(set) else {
        return Err("no role lists it".into());
    };
    let place = folder.join(file_name(name));
    if file::read_limited(&place, file.length).is_ok_and(|bytes| is_it(file, bytes.as_deref())) {
        return Ok(());
    }
    let remote = set.any_target_file(name, file).ok_or("no digest of it is of a kind that is known")?;
    let bytes = read_all(source.mirror, &remote, file.length)
        .map_err(|error| error.to_string())?
        .map_err(|limit| format!("it is longer than {limit} bytes"))?;
    file.check(&bytes)?;
    Ok(file::replace(&place, &bytes, 0o644)?)
}

fn is_it(file: &TargetFile, bytes: Option<&[u8]>) -> bool {
    bytes.is_some_and(|bytes| file.check(bytes).is_ok())
}

/// One file name for one target path, visible and no folder.
fn file_name(target: &str) -> String {
    let encoded = encode_role(target);
    match encoded.strip_prefix('.') {
        _ if encoded.len() > format::name::MAX_NAME / 2 => Sha256::of(target.as_bytes()).to_string(),
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

/// The suite's two base URLs as the one repository that an agent knows.
struct Split<'c> {
    metadata: HttpMirror<'c>,
    targets: Option<HttpMirror<'c>>,
}

impl Split<'_> {
    fn place(&self, path: &str) -> Result<(&HttpMirror<'_>, String), TransportError> {
        if let Some(file) = path.strip_prefix("metadata/") {
            return Ok((&self.metadata, file.to_owned()));
        }
        match (path.strip_prefix("targets/"), &self.targets) {
            (Some(file), Some(targets)) => Ok((targets, in_url(file))),
            _ => Err(TransportError::failed("--target-base-url is missing")),
        }
    }
}

/// A mirror that breaks off gets more tries from the agent. The suite counts requests: here it gets one, and only a root
/// that is not there still differs from one that did not come, because the first is the end of the chain.
fn without_patience<T>(path: &str, result: Result<T, TransportError>) -> Result<T, TransportError> {
    result.map_err(|error| match error {
        TransportError::Failed { why, .. } if !path.ends_with(".root.json") => {
            eprintln!("{path}: {why}");
            TransportError::NotFound
        }
        other => other,
    })
}

impl Transport for Split<'_> {
    fn name(&self) -> &str {
        self.metadata.name()
    }

    fn get(&self, path: &str, range: Option<Range>) -> Result<Box<dyn Read + '_>, TransportError> {
        let (mirror, file) = self.place(path)?;
        without_patience(path, mirror.get(&file, range))
    }

    fn get_if_changed(
        &self,
        path: &str,
        validator: Option<&str>,
    ) -> Result<Option<Changed<'_>>, TransportError> {
        let (mirror, file) = self.place(path)?;
        without_patience(path, mirror.get_if_changed(&file, validator))
    }

    fn traffic(&self) -> Traffic {
        self.metadata.traffic()
    }

    fn is_remote(&self) -> bool {
        true
    }
}

/// A target path in a URL: what would end the path or cannot stand in it is percent-encoded, the rest stays as it is
/// (RFC 3986 section 3.3).
fn in_url(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(args: &[&str]) -> Result<Typed, Failure> {
        parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn flags_stand_before_the_verb() {
        let line = typed(&["--target-name", "a", "--target-name", "b", "download"]).unwrap();
        assert_eq!(
            (line.target_names.as_slice(), line.verb.as_str()),
            (&["a".into(), "b".into()][..], "download")
        );
        assert_eq!(typed(&["init", "--x"]).unwrap().rest, ["--x"]);
        for wrong in [&["--metadata-dir"][..], &["--unknown", "x", "init"], &[]] {
            assert!(typed(wrong).is_err());
        }
    }

    #[test]
    fn every_target_has_one_visible_file_name() {
        assert_eq!(file_name("a/b c"), "a%2Fb%20c");
        assert_eq!(file_name("../x"), "%2E.%2Fx");
        assert_eq!(file_name(&"x/".repeat(500)).len(), 64);
        assert_eq!(in_url("a b/ü?#%41"), "a%20b/%C3%BC%3F%23%41");
    }
}
