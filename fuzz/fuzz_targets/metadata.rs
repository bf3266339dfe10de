//! TUF metadata: no document panics in any role and any state; one that the trusted keys did not sign is never accepted;
//! and whatever signed targets say, the search for one ends.
//!
//! Input: 1 byte, whose lower bits are the role and whose highest bit says whether what follows is signed for the fuzzer
//! (else it is the whole file), then the document.
#![no_main]

use format::metadata::Envelope;
use format::name::TargetPath;
use format::trust::{MAX_DELEGATIONS, SearchStep, TrustError, TrustedMetadataSet};
use prestage_fuzz::{NOW, Role, TARGET, fuzz_target, sign};

const SIGNED: u8 = 0x80;

/// Feeds `document` as `role`, and what is well in every other role.
fn refresh(role: Role, document: &[u8]) -> Result<TrustedMetadataSet, TrustError> {
    let file = |of: Role| if of == role { document } else { of.file() };
    let mut set = TrustedMetadataSet::new(Role::Root.file(), NOW)?;
    set.finish_root()?;
    // As what was stored by an earlier run: refused or not, it does no harm.
    set.local_timestamp(file(Role::Timestamp));
    set.update_timestamp(file(Role::Timestamp))?;
    set.wanted_snapshot()?;
    if !set.local_snapshot(file(Role::Snapshot)) {
        set.update_snapshot(file(Role::Snapshot))?;
    }
    set.wanted_targets("targets")?;
    set.update_targets("targets", "root", file(Role::Targets))?;
    let mut search = set.search(TARGET);
    for loads in 0.. {
        assert!(loads <= 2 * MAX_DELEGATIONS, "the search does not end");
        match search.step(&set) {
            SearchStep::Load { role, delegator } => {
                set.wanted_targets(&role)?;
                set.update_targets(&role, &delegator, file(Role::Bundles))?;
            }
            SearchStep::Found(target) => {
                let path: TargetPath = TARGET.parse().expect("a path");
                target.hashes.sha256.map(|digest| set.target_file(&path, digest));
                set.any_target_file(TARGET, target);
                break;
            }
            SearchStep::NotFound => break,
        }
    }
    Ok(set)
}

fn root(document: &[u8]) -> Result<(), TrustError> {
    // As the first root, which is believed whoever signed it, and as the next one.
    if let Ok(mut set) = TrustedMetadataSet::new(document, NOW) {
        set.wanted_root();
        let _ = set.update_root(Role::Root.file());
        let _ = set.finish_root();
    }
    let mut set = TrustedMetadataSet::new(Role::Root.file(), NOW)?;
    set.update_root(document)?;
    set.wanted_root();
    let _ = set.finish_root();
    Ok(())
}

fuzz_target!(|input: &[u8]| {
    let Some((how, document)) = input.split_first() else { return };
    let role = Role::ALL[usize::from(how & !SIGNED) % Role::ALL.len()];
    let file = if how & SIGNED != 0 { sign(document) } else { document.to_vec() };
    let result = match role {
        Role::Root => root(&file),
        _ => refresh(role, &file).map(|_| ()),
    };
    if how & SIGNED == 0 && result.is_ok() {
        // Only spaces and unsigned members may differ from what was really signed.
        let signed = |file| Envelope::parse(file).map(|envelope| envelope.signed.canonical());
        assert_eq!(signed(&file), signed(role.file()), "accepted without a signature");
    }
});
