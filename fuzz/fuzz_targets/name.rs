//! Names and times: what is accepted is harmless in a path, a URL, a log line and a shell, and is written as it was read.
#![no_main]

use std::path::{Component, Path};

use format::container::Entry;
use format::digest::Sha256;
use format::name::{BundleVersion, MemberPath, NodeId, TargetPath, Variant, encode_role};
use format::time::UnixTime;
use prestage_fuzz::fuzz_target;

fn assert_word(text: &str) {
    assert!((1..=255).contains(&text.len()) && !text.starts_with(['.', '-', '~']), "{text:?}");
    assert!(text.bytes().all(|c| c.is_ascii_alphanumeric() || b"._+~-".contains(&c)), "{text:?}");
}

fn assert_path(text: &str) {
    let below = Path::new("/top").join(text);
    assert!(
        below.starts_with("/top") && text.split('/').count() == below.components().count() - 2,
        "{text:?}"
    );
    assert!(Path::new(text).components().all(|part| matches!(part, Component::Normal(_))), "{text:?}");
    text.split('/').for_each(assert_word);
}

fuzz_target!(|text: &str| {
    if let Ok(path) = text.parse::<MemberPath>() {
        assert_eq!(path.as_str(), text);
        assert_path(text);
        if Entry::fits(&path) {
            // The tar entry is of this path and no other.
            let mut header = tar::Header::new_ustar();
            header.set_path(text).expect("it fits");
            assert_eq!(*header.path_bytes(), *text.as_bytes());
        }
    }
    if let Ok(path) = text.parse::<TargetPath>() {
        assert_eq!(path.as_str(), text);
        assert_path(text);
        assert_path(&path.with_digest(&Sha256::of(b"").to_string()));
    }
    for word in [
        text.parse::<Variant>().map(|name| name.to_string()),
        text.parse::<BundleVersion>().map(|name| name.to_string()),
        text.parse::<NodeId>().map(|name| name.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        assert_eq!(word, text);
        assert_word(text);
    }
    let role = encode_role(text);
    assert!(role.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~%".contains(&c)), "{role:?}");
    if let Ok(time) = text.parse::<UnixTime>() {
        assert_eq!(time.to_string(), text);
    }
    if let Ok(digest) = text.parse::<Sha256>() {
        assert_eq!(digest.to_string(), text);
    }
});
