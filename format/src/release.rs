//! Release: all bundles of one version, one for each variant, under one digest.
//!
//! A policy names a version, and each of its nodes takes the bundle of its own variant; so what a person approves is the whole
//! of them. The document is not a file that somebody has to sign: every line of it stands in the signed metadata of the role
//! `bundles`, of which the centre and each node make the same canonical bytes. Its digest is what `bundleRef.checksum` of a
//! policy may say. Another variant that is published later makes it another release, which nobody has approved yet.

use std::collections::BTreeMap;

use crate::API_VERSION;
use crate::digest::Sha256;
use crate::index::{Index, bundle_path, index_path};
use crate::json::Json;
use crate::metadata::{Blob, TargetFile};
use crate::name::{BundleVersion, Variant};

/// The `kind` of a release.
pub const KIND: &str = "Release";

/// All bundles of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The version.
    pub version: BundleVersion,
    /// Each variant's index and bundle file; at least one.
    pub bundles: BTreeMap<Variant, (Blob, Blob)>,
}

impl Release {
    /// The release of a version, out of what the role that lists its bundles has signed; none, if it lists none.
    pub fn of(targets: &BTreeMap<String, TargetFile>, version: &BundleVersion) -> Option<Release> {
        let bundle = |path: &str| {
            let variant = path.strip_prefix("bundles/")?.strip_suffix("/index.json")?;
            let variant: Variant = variant.strip_suffix(version.as_str())?.strip_suffix('/')?.parse().ok()?;
            let blob = |path: &str| targets.get(path)?.blob();
            let index = blob(index_path(&variant, version).ok()?.as_str())?;
            Some((variant.clone(), (index, blob(bundle_path(&variant, version).ok()?.as_str())?)))
        };
        let bundles: BTreeMap<_, _> = targets.keys().filter_map(|path| bundle(path)).collect();
        (!bundles.is_empty()).then(|| Release { version: version.clone(), bundles })
    }

    /// The document: canonical JSON.
    pub fn to_json(&self) -> Vec<u8> {
        use std::borrow::Cow;
        let text = |value: String| Json::String(Cow::Owned(value));
        let file = |blob: &Blob| {
            Json::Object(vec![
                ("length".into(), i64::try_from(blob.length).map_or(Json::Large(blob.length), Json::Integer)),
                ("sha256".into(), text(blob.sha256.to_string())),
            ])
        };
        let bundles = self.bundles.iter().map(|(variant, (index, bundle))| {
            Json::Object(vec![
                ("bundle".into(), file(bundle)),
                ("index".into(), file(index)),
                ("variant".into(), text(variant.to_string())),
            ])
        });
        Json::Object(vec![
            ("apiVersion".into(), text(API_VERSION.to_owned())),
            ("bundles".into(), Json::Array(bundles.collect())),
            ("kind".into(), text(KIND.to_owned())),
            ("version".into(), text(self.version.to_string())),
        ])
        .canonical()
    }

    /// The digest of the document.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.to_json())
    }

    /// Whether a bundle is one of it, these very bytes.
    pub fn has(&self, index: &Index) -> bool {
        self.version == index.version
            && self.bundles.get(&index.variant).is_some_and(|(_, bundle)| {
                (bundle.length, bundle.sha256) == (index.bundle.length, index.bundle.sha256)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Hashes;

    fn targets(paths: &[&str]) -> BTreeMap<String, TargetFile> {
        let file = |path: &&str| {
            let sha256 = Some(Sha256::of(path.as_bytes()));
            let hashes = Hashes { sha256, sha512: None };
            (path.to_string(), TargetFile { length: path.len() as u64, hashes, custom: Json::Null })
        };
        paths.iter().map(file).collect()
    }

    const DEBIAN: [&str; 2] =
        ["bundles/debian-12-amd64/42/index.json", "bundles/debian-12-amd64/42/bundle.tar.gz"];
    const ROCKY: [&str; 2] =
        ["bundles/rocky-9-x86_64/42/index.json", "bundles/rocky-9-x86_64/42/bundle.tar.gz"];

    #[test]
    fn a_release_is_every_variant_of_one_version_and_the_same_bytes_for_everybody() {
        let version: BundleVersion = "42".parse().unwrap();
        let others = ["bundles/debian-12-amd64/142/index.json", "bundles/debian-12-amd64/142/bundle.tar.gz"];
        let one = Release::of(&targets(&DEBIAN), &version).unwrap();
        let both = Release::of(&targets(&[DEBIAN, ROCKY, others].concat()), &version).unwrap();
        assert_eq!(
            both.bundles.keys().map(Variant::as_str).collect::<Vec<_>>(),
            ["debian-12-amd64", "rocky-9-x86_64"]
        );
        assert_ne!(one.digest(), both.digest());
        let golden = include_str!("../tests/data/release-v1.json").trim_end();
        assert_eq!(String::from_utf8(both.to_json()).unwrap(), golden);
        // An index without its bundle is nothing to have.
        assert_eq!(Release::of(&targets(&ROCKY[..1]), &version), None);
        assert_eq!(Release::of(&targets(&DEBIAN), &"43".parse().unwrap()), None);
    }
}
