//! Policies: what is read is written in one form and read again as the same; two selectors overlap exactly where a node
//! would have two policies. The input is one policy, or two with a NUL between them.
#![no_main]

use std::collections::BTreeMap;

use format::policy::{PatchPolicy, select};
use prestage_fuzz::fuzz_target;

fn read(bytes: &[u8]) -> Option<PatchPolicy> {
    let policy = PatchPolicy::from_json(bytes).map_err(|error| error.to_string()).ok()?;
    let written = policy.to_json();
    let again = PatchPolicy::from_json(&written).expect("a policy that was written cannot be read");
    assert_eq!(again, policy);
    assert_eq!(again.to_json(), written);
    let path = policy.target_path().expect("a policy that was read has no place");
    assert_eq!(path.as_str(), format!("policies/{}/policy.json", policy.id()));
    Some(policy)
}

/// That both match what is said to be an overlap, and that it has a node's one policy refused.
fn check_overlap(policies: &[PatchPolicy; 2]) {
    let [a, b] = policies;
    let overlap = a.selector.overlap(&b.selector);
    assert_eq!(overlap.is_some(), b.selector.overlap(&a.selector).is_some());
    if let Some(labels) = overlap {
        assert!(a.selector.matches(&labels) && b.selector.matches(&labels), "{labels:?}");
        assert_eq!(select(policies, &labels).map_err(|error| error.names.len()), Err(2));
    } else {
        // Whatever a node is called, it has one policy: with the labels of either of them, and with none.
        for labels in
            [a.selector.overlap(&a.selector), b.selector.overlap(&b.selector), Some(BTreeMap::new())]
        {
            assert!(labels.is_none_or(|labels| select(policies, &labels).is_ok()));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (first, second) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    let Some(first) = read(first) else {
        return;
    };
    let second = read(second).unwrap_or_else(|| first.clone());
    check_overlap(&[first, second]);
});
