//! The index: what is read can be written and read again, is written the same way twice, and keeps what it promises of
//! paths and extents; and a node reads what the centre reads, but for the advisories.
#![no_main]

use std::collections::BTreeMap;
use std::io::Cursor;

use format::container::Encoding;
use format::index::Index;
use prestage_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let for_node = Index::read_for_node(Cursor::new(bytes));
    let Ok(index) = Index::parse(bytes) else { return };
    assert_eq!(for_node, Ok(Index { advisories: BTreeMap::new(), ..index.clone() }));
    let written = index.to_bytes().expect("an index that was read cannot be written");
    let again = Index::parse(&written).expect("an index that was written cannot be read");
    assert_eq!(again, index);
    assert_eq!(again.to_bytes().as_ref(), Ok(&written));

    let mut free_from = 0;
    for member in &index.members {
        let extent = member.whole().expect("a member without a place");
        assert!(extent.offset >= free_from, "extents overlap");
        free_from = extent.offset.checked_add(extent.length).expect("an extent beyond 2^64");
        assert!(free_from <= index.bundle.length, "an extent leaves the file");
        let path = member.path.as_str();
        assert!(!path.starts_with('/') && !path.split('/').any(|part| part.starts_with('.')), "{path}");
        let end = index.entry(member).stored_position(member.size);
        assert!(extent.encoding != Encoding::Stored || end < extent.length);
    }
});
