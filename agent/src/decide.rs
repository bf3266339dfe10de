//! Which bundle this node should have. Pure: trusted metadata and the node's rule in, a choice with its reason out.

use format::digest::Sha256;
use format::index::IndexCustom;
use format::json::Json;
use format::name::{BundleVersion, TargetPath, Variant};
use format::report::BundleRef;
use format::trust::{Search, SearchStep, TrustedMetadataSet};

use crate::policy::Rule;

/// A bundle that the repository offers to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which.
    pub bundle: BundleRef,
    /// The index's target path.
    pub path: TargetPath,
    /// The index's exact length.
    pub length: u64,
}

/// What the repository means for this node.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Have this bundle.
    Take {
        /// The one to have.
        offer: Offer,
        /// Those that will do as long as it is not here, the best first.
        otherwise: Vec<Offer>,
    },
    /// There is none for it, and that is as it should be; why, in words for an operator.
    Nothing(String),
    /// It should have one that it cannot have yet; why, in words for an operator.
    Wait(String),
}

/// A target path that no bundle can have, but that every role that may speak of `variant`'s bundles covers: a version
/// never begins with an underscore.
pub fn probe(variant: &Variant) -> String {
    format!("bundles/{variant}/_/index.json")
}

/// What `rule` makes of the bundles for `variant`. Without a policy every bundle may be had, the newest first; a policy
/// names one.
pub fn decide(set: &TrustedMetadataSet, variant: &Variant, rule: &Rule) -> Decision {
    choose(offers(set, variant), variant, rule)
}

fn choose(mut offers: Vec<Offer>, variant: &Variant, rule: &Rule) -> Decision {
    match rule {
        Rule::Newest if offers.is_empty() => {
            Decision::Nothing(format!("the repository has no bundle for the variant {variant}"))
        }
        Rule::Newest => Decision::Take { offer: offers.remove(0), otherwise: offers },
        Rule::NotSelected => Decision::Nothing("no policy is for this node (see its labels)".to_owned()),
        Rule::Policy(policy) if policy.paused => Decision::Wait(format!("policy {} is paused", policy.id())),
        Rule::Policy(policy) => {
            let version = &policy.bundle.version;
            match offers.into_iter().find(|offer| offer.bundle.version == *version) {
                Some(offer) => Decision::Take { offer, otherwise: Vec::new() },
                None => Decision::Wait(format!(
                    "policy {} names the bundle {version}, and the repository has none of that name for the variant \
                     {variant}",
                    policy.id()
                )),
            }
        }
    }
}

/// All bundles for `variant`, the newest first: that with the highest serial.
pub fn offers(set: &TrustedMetadataSet, variant: &Variant) -> Vec<Offer> {
    let mut search = set.search(&probe(variant));
    let _ = search.step(set);
    let mut offers: Vec<Offer> =
        search.visited().iter().flat_map(|role| offers_of(set, role, variant)).collect();
    // What a role lists counts only if the search for that very path ends there (a delegation's paths, and priority).
    offers.retain(|offer| search_finds(&mut set.search(offer.path.as_str()), set, offer.bundle.index));
    // The serial orders bundles; of two with the same, which a centre never makes, the digest decides the same everywhere.
    offers.sort_by_key(|offer| std::cmp::Reverse((offer.bundle.serial, offer.bundle.index)));
    offers
}

fn search_finds(search: &mut Search, set: &TrustedMetadataSet, digest: Sha256) -> bool {
    matches!(search.step(set), SearchStep::Found(file) if file.hashes.sha256 == Some(digest))
}

fn offers_of<'s>(
    set: &'s TrustedMetadataSet,
    role: &str,
    variant: &'s Variant,
) -> impl Iterator<Item = Offer> + 's {
    let targets = set.targets(role).map(|t| &t.targets);
    targets.into_iter().flatten().filter_map(move |(path, file)| {
        let version = path
            .strip_prefix("bundles/")?
            .strip_prefix(variant.as_str())?
            .strip_prefix('/')?
            .strip_suffix("/index.json")?;
        let version: BundleVersion = version.parse().ok()?;
        let custom = custom_of(&file.custom)?;
        let index = file.blob()?;
        let bundle = BundleRef { version, cycle: custom.cycle, serial: custom.serial, index: index.sha256 };
        Some(Offer { bundle, path: path.parse().ok()?, length: index.length })
    })
}

/// Reads the `custom` of an index; another shape is not a bundle of ours.
fn custom_of(custom: &Json<'_>) -> Option<IndexCustom> {
    serde_json::from_slice(&custom.canonical()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_index_with_serial_and_cycle_is_a_bundle() {
        let read = |text: &str| custom_of(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(read(r#"{"serial":7,"cycle":"2026-11","more":1}"#).unwrap().serial, 7);
        for bad in [
            "null",
            "{}",
            r#"{"serial":"7","cycle":"2026-11"}"#,
            r#"{"serial":-1,"cycle":"c"}"#,
            r#"{"serial":1,"cycle":"../c"}"#,
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    fn offer(version: &str, serial: u64) -> Offer {
        let index = Sha256::of(version.as_bytes());
        let (version, cycle) = (version.parse().unwrap(), "c".parse().unwrap());
        let path = "bundles/v/1/index.json".parse().unwrap();
        Offer { bundle: BundleRef { version, cycle, serial, index }, path, length: 1 }
    }

    fn policy(version: &str, paused: bool) -> Rule {
        let text = format!(
            r#"{{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{{"name":"p"}},"spec":{{
            "bundleRef":{{"version":"{version}"}},"targets":{{"selector":{{}}}},"paused":{paused}}}}}"#
        );
        Rule::Policy(Box::new(format::policy::PatchPolicy::from_json(text.as_bytes()).unwrap()))
    }

    #[test]
    fn without_a_policy_the_newest_bundle_is_taken_and_with_one_the_bundle_that_it_names() {
        let variant: Variant = "v".parse().unwrap();
        let offers = || vec![offer("2", 2), offer("1", 1)];
        let chosen = |rule: &Rule| choose(offers(), &variant, rule);
        let take = |offer, otherwise| Decision::Take { offer, otherwise };
        assert_eq!(chosen(&Rule::Newest), take(offer("2", 2), vec![offer("1", 1)]));
        assert_eq!(chosen(&policy("1", false)), take(offer("1", 1), Vec::new()));
        assert!(
            matches!(chosen(&policy("3", false)), Decision::Wait(why) if why.contains("names the bundle 3"))
        );
        assert!(matches!(chosen(&policy("1", true)), Decision::Wait(why) if why.contains("paused")));
        assert!(matches!(chosen(&Rule::NotSelected), Decision::Nothing(_)));
        assert!(matches!(choose(Vec::new(), &variant, &Rule::Newest), Decision::Nothing(_)));
    }

    #[test]
    fn no_version_can_be_the_probe() {
        let variant: Variant = "debian-12-amd64".parse().unwrap();
        assert!(probe(&variant).split('/').nth(2).unwrap().parse::<BundleVersion>().is_err());
    }
}
