//! What nodes send, as the centre reads it: whole, or refused.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use format::digest::Sha256;
use format::envelope::{
    Answer, Document, Enrollment, MAX_ANSWER, MAX_BATCH, MAX_DOCUMENT, MAX_DOCUMENTS, MAX_LABELS, MAX_REASON,
    NodeInventory, Opened, Refusal, Refused, Sealed, SentStatus, Token, read_batch, write_batch,
};
use format::inventory::{Inventory, PackageId};
use format::name::NodeId;
use format::node_key::NodeKey;
use format::report::Report;
use format::time::UnixTime;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: UnixTime = UnixTime(1_795_411_753);

fn key() -> NodeKey {
    NodeKey::from_seed([1; 32])
}

fn node() -> NodeId {
    "store-0815-till-2".parse().unwrap()
}

fn open(envelope: &[u8]) -> Result<Opened, Refused> {
    Sealed::parse(envelope).map_err(|e| Refused::Content(e.to_string()))?.open(&node(), &key().public())
}

fn report() -> Report {
    Report::parse(include_bytes!("data/report-v1.json")).unwrap()
}

fn report_saying(message: &str) -> Report {
    let mut report = report();
    report.message = message.to_owned();
    report.id = Report::make_id(&report.node, report.at, report.transaction.as_deref(), report.step, message);
    report
}

fn sealed(document: &impl serde::Serialize) -> Vec<u8> {
    key().seal(&serde_json::to_vec(document).unwrap()).unwrap()
}

fn enrollment(labels: BTreeMap<String, String>) -> Enrollment {
    let token: Token = "secret-1".parse().unwrap();
    Enrollment::new(node(), key().public(), "debian-12-amd64".parse().unwrap(), labels, Some(token), NOW)
}

fn inventory() -> Inventory {
    let package =
        |name: &str| (PackageId { name: name.into(), arch: "amd64".into() }, "1:2.0~rc1".to_owned());
    Inventory(["bash", "libc6"].map(package).into())
}

fn status() -> Vec<u8> {
    SentStatus::write(include_bytes!("data/status-v1.json"), NOW, Some(inventory().digest())).unwrap()
}

#[test]
fn version_1_of_the_envelope_stays_readable_and_writable() {
    let golden = include_bytes!("data/envelope-v1.json");
    let golden = golden.strip_suffix(b"\n").unwrap();
    let enrollment = enrollment([("site".to_owned(), "store-0815".to_owned())].into());
    assert_eq!(sealed(&enrollment), golden);
    let (read, opened) = Sealed::parse(golden).unwrap().open_enrollment().unwrap();
    assert_eq!((read, opened.document), (enrollment.clone(), Document::Enrollment(enrollment)));
}

#[test]
fn every_kind_arrives_as_it_was_sent() {
    let opened = open(&sealed(&report())).unwrap();
    assert_eq!((opened.id, &opened.node), (report().id, &node()));
    assert_eq!(opened.document, Document::Report(Box::new(report())));
    assert!(key().public().verifies(&opened.message, &opened.signature), "it is evidence");

    let opened = open(&key().seal(&status()).unwrap()).unwrap();
    assert_eq!(opened.id, Sha256::of(&opened.message));
    let Document::Status(sent) = opened.document else { panic!("{opened:?}") };
    assert_eq!((sent.sent_at, sent.inventory), (NOW, Some(inventory().digest())));
    assert_eq!(sent.status.metadata.name, node());

    let packages = NodeInventory::new(node(), &inventory(), NOW);
    let opened = open(&sealed(&packages)).unwrap();
    assert_eq!(opened.document, Document::Inventory(packages.clone()));
    assert_eq!(packages.packages(), inventory());
}

#[test]
fn a_message_with_any_character_is_signed_as_it_is() {
    let odd = "a\u{0}b\n\t\"quoted\\\" \u{7f} é \u{1F600} </script>";
    let opened = open(&sealed(&report_saying(odd))).unwrap();
    assert_eq!(opened.document, Document::Report(Box::new(report_saying(odd))));
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_says_the_same() {
    for envelope in [sealed(&report()), sealed(&enrollment(BTreeMap::new()))] {
        let good = open(&envelope).unwrap();
        for bit in 0..envelope.len() * 8 {
            let mut bad = envelope.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(opened) = open(&bad) {
                assert_eq!(opened, good, "bit {bit}");
            }
        }
    }
}

#[test]
fn another_key_speaks_for_nobody_else() {
    let other = NodeKey::from_seed([2; 32]);
    let document = serde_json::to_vec(&report()).unwrap();
    let forged = other.seal(&document).unwrap();
    assert!(matches!(open(&forged), Err(Refused::Signature(_))));
    // Under the right key's id.
    let text = String::from_utf8(forged).unwrap();
    let renamed = text.replace(&other.public().id().0, &key().public().id().0);
    assert!(matches!(open(renamed.as_bytes()), Err(Refused::Signature(_))));
    // A stolen key, for another node.
    let till_3: NodeId = "store-0815-till-3".parse().unwrap();
    let stolen = Sealed::parse(&sealed(&report())).unwrap().open(&till_3, &key().public());
    assert!(matches!(stolen, Err(Refused::OtherNode(_))), "{stolen:?}");
}

#[test]
fn an_enrolment_is_signed_by_the_key_that_it_names() {
    let mut other = enrollment(BTreeMap::new());
    other.public_key = NodeKey::from_seed([2; 32]).public();
    let refused = Sealed::parse(&sealed(&other)).unwrap().open_enrollment().unwrap_err();
    assert!(matches!(refused, Refused::Signature(_)), "{refused}");
    let report = Sealed::parse(&sealed(&report())).unwrap().open_enrollment().unwrap_err();
    assert!(matches!(report, Refused::Content(_)), "{report}");
}

#[test]
fn nobody_takes_the_id_that_anothers_report_will_have() {
    let mut thief = report();
    thief.id = Sha256::of(b"another report");
    let refused = open(&sealed(&thief)).unwrap_err();
    assert!(matches!(refused, Refused::Content(_)), "{refused}");
    assert_eq!(Sealed::parse(&sealed(&thief)).unwrap().id(), thief.id, "and the refusal names it");
}

#[test]
fn what_is_no_document_is_refused_in_words() {
    let with = |document: Value, member: &str, value: Value| {
        let mut document = document;
        document[member] = value;
        document
    };
    let report = serde_json::to_value(report()).unwrap();
    let enrolment = serde_json::to_value(enrollment(BTreeMap::new())).unwrap();
    let packages = serde_json::to_value(NodeInventory::new(node(), &inventory(), NOW)).unwrap();
    let many: BTreeMap<String, String> = (0..=MAX_LABELS).map(|n| (format!("k{n}"), String::new())).collect();
    let package = &packages["packages"][0];
    let status: Value = serde_json::from_slice(&status()).unwrap();
    for bad in [
        with(report.clone(), "kind", json!("NodeRumour")),
        with(report.clone(), "apiVersion", json!("patchmgmt.io/v2")),
        with(report.clone(), "exitCode", json!(256)),
        with(report.clone(), "node", json!("../x")),
        with(report, "node", Value::Null),
        with(enrolment.clone(), "admin", json!(true)),
        with(enrolment.clone(), "site", json!("headquarters")),
        with(enrolment.clone(), "labels", json!(many)),
        with(enrolment.clone(), "labels", json!({"": "x"})),
        with(enrolment.clone(), "labels", json!({"x": "y".repeat(2000)})),
        with(enrolment, "token", json!("with a space")),
        with(packages.clone(), "packages", json!([])),
        with(packages.clone(), "packages", json!([package, package])),
        with(packages.clone(), "packages", json!([{"name": "a b", "arch": "amd64", "version": "1"}])),
        with(packages, "inventory", json!(Sha256::of(b"x").to_string())),
        with(status.clone(), "sentAt", json!("yesterday")),
        with(status, "sentAt", Value::Null),
        json!([]),
        json!("NodeReport"),
    ] {
        let refused = open(&sealed(&bad)).unwrap_err();
        assert!(matches!(refused, Refused::Content(_)), "{bad}: {refused}");
        assert!(!refused.to_string().is_empty());
    }
}

#[test]
fn an_envelope_has_exactly_one_signature() {
    let good = String::from_utf8(sealed(&report())).unwrap();
    let (from, to) = (good.find('[').unwrap() + 1, good.find(']').unwrap());
    let signature = &good[from..to];
    let other = signature.replace(&key().public().id().0, &"0".repeat(64));
    for bad in [
        good.replace(signature, ""),
        good.replace(signature, &format!("{signature},{other}")),
        good.replace(signature, &format!("{signature},{signature}")),
        good.replace(signature, "{}"),
        good.replace("\"signed\"", "\"sign\""),
        format!("{good}x"),
        format!("[{good}]"),
    ] {
        assert!(Sealed::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_is_read() {
    assert!(Sealed::parse(&sealed(&report_saying(&"x".repeat(MAX_DOCUMENT)))).is_err());
    assert!(Sealed::parse(&sealed(&report_saying(&"x".repeat(MAX_DOCUMENT - 2000)))).is_ok());
    assert!(read_batch(&vec![b' '; MAX_BATCH + 1]).is_err());
    assert!(Answer::parse(&vec![b' '; MAX_ANSWER + 1]).is_err());
    // One that comes in a batch, and is longer than it may be alone.
    let batch = write_batch(&[sealed(&report_saying(&"x".repeat(MAX_DOCUMENT)))]);
    assert!(Sealed::take(read_batch(&batch).unwrap().remove(0)).is_err());
}

#[test]
fn a_batch_is_read_document_by_document() {
    let envelopes = [sealed(&report()), b"{}".to_vec(), key().seal(&status()).unwrap()];
    let batch = write_batch(&envelopes);
    let read: Vec<_> = read_batch(&batch).unwrap().into_iter().map(Sealed::take).collect();
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert!(read_batch(&write_batch(&vec![b"{}".to_vec(); MAX_DOCUMENTS])).is_ok());
    assert!(read_batch(&write_batch(&vec![b"{}".to_vec(); MAX_DOCUMENTS + 1])).is_err());
    assert!(read_batch(&write_batch(&[])).unwrap().is_empty());
    for bad in ["", "[]", "{}", r#"{"documents":{}}"#, r#"{"documents":[],"documents":[]}"#] {
        assert!(read_batch(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn the_answer_to_a_whole_batch_can_be_read() {
    let refused = |n: usize| Refusal {
        id: Sha256::of(&n.to_le_bytes()),
        reason: "\u{1}".repeat(MAX_REASON / 6), // six bytes each, escaped
    };
    let answer = Answer { refused: (0..MAX_DOCUMENTS).map(refused).collect(), ..Answer::default() };
    assert_eq!(Answer::parse(&serde_json::to_vec(&answer).unwrap()), Ok(answer));
    let short = Answer::parse(br#"{"accepted":[],"later":1}"#).unwrap();
    assert_eq!(short, Answer::default());
    for bad in ["{}", r#"{"accepted":["x"]}"#, r#"{"accepted":[],"refused":[{"id":"x"}]}"#] {
        assert!(Answer::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_token_is_shown_nowhere() {
    assert!(!format!("{:?}", enrollment(BTreeMap::new())).contains("secret-1"));
}

proptest! {
    #[test]
    fn whatever_a_node_says_arrives(message in ".*", labels in proptest::collection::btree_map("[a-z/]{1,8}", ".{0,20}", 0..4)) {
        let report = report_saying(&message);
        prop_assert_eq!(open(&sealed(&report)).unwrap().document, Document::Report(Box::new(report)));
        let enrollment = enrollment(labels);
        let envelope = sealed(&enrollment);
        let (read, _) = Sealed::parse(&envelope).unwrap().open_enrollment().unwrap();
        prop_assert_eq!(read, enrollment);
    }
}
