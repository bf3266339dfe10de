//! What a node sends and what the centre answers, twice: as it arrives, signed by nobody knows whom; and as the document of
//! somebody who has a node's key and writes what he likes. What is opened is of that node, and can be written and read
//! again as the same.
#![no_main]

use format::envelope::{
    Answer, Document, MAX_DOCUMENTS, Opened, Sealed, SentStatus, read_batch, write_batch,
};
use format::node_key::NodeKey;
use prestage_fuzz::fuzz_target;

fn open(key: &NodeKey, document: &[u8]) -> Option<Opened> {
    let envelope = key.seal(document).ok()?;
    let sealed = Sealed::parse(&envelope).ok()?;
    let (node, id) = (sealed.node().ok()?, sealed.id());
    let opened = sealed.open(&node, &key.public()).ok()?;
    assert_eq!((&opened.node, opened.id), (&node, id));
    assert!(key.public().verifies(&opened.message, &opened.signature));
    let batch = write_batch(std::slice::from_ref(&envelope));
    let in_batch = read_batch(&batch).expect("what is read alone is read in a batch");
    let in_batch: Vec<_> = in_batch.into_iter().map(Sealed::take).collect();
    assert!(matches!(in_batch.as_slice(), [Ok(sealed)] if sealed.id() == id));
    Some(opened)
}

fuzz_target!(|bytes: &[u8]| {
    let key = NodeKey::from_seed([1; 32]);
    if let Some(opened) = open(&key, bytes) {
        let written = match &opened.document {
            Document::Report(report) => serde_json::to_vec(report),
            Document::Enrollment(enrollment) => serde_json::to_vec(enrollment),
            Document::Inventory(inventory) => serde_json::to_vec(inventory),
            Document::Status(sent) => serde_json::to_vec(&sent.status).map(|status| {
                SentStatus::write(&status, sent.sent_at, sent.inventory).expect("a status is an object")
            }),
        };
        let again = open(&key, &written.expect("what was read can be written")).expect("and read again");
        assert_eq!(again.document, opened.document);
    }
    let stranger = NodeKey::from_seed([2; 32]).public();
    if let Ok(sealed) = Sealed::parse(bytes)
        && let Ok(node) = sealed.node()
    {
        assert!(sealed.open(&node, &stranger).is_err(), "nothing was ever signed with this key");
    }
    if let Ok(documents) = read_batch(bytes) {
        assert!(documents.len() <= MAX_DOCUMENTS);
    }
    if let Ok(answer) = Answer::parse(bytes) {
        let written = serde_json::to_vec(&answer).expect("what was read can be written");
        assert_eq!(Answer::parse(&written), Ok(answer));
    }
});
