//! What this program reads that somebody else may have written, each with the property that must hold whatever it is:
//! for the targets in `fuzz/`, and compiled for them alone. Each function panics where its property does not hold.

use format::time::UnixTime;
use format::window::Window;

use crate::config;
use crate::plan::Plan;
use crate::transaction::journal::Journal;
use crate::transaction::state::{Event, State, Step};
use host::schedule::{self, Gate};
use host::zone::Zone;

/// Configuration files, merged in order: valid or refused in words, and the same however often they are read. Of every
/// window that they name: if it is closed at `now`, it opens when it says.
pub fn config(files: &[&str], now: i64) {
    let read = config::from_texts(files);
    match &read {
        Ok(settings) => {
            for window in settings.windows.iter().flatten() {
                the_gate_keeps_its_word(window, now);
            }
        }
        Err(why) => assert!(!why.is_empty()),
    }
    assert_eq!(format!("{read:?}"), format!("{:?}", config::from_texts(files)));
}

fn the_gate_keeps_its_word(window: &Window, now: i64) {
    let again: Window = window.to_string().parse().expect("a window is written as it is read");
    assert_eq!(again, *window);
    for zone in ["UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"] {
        let zone = Zone::named(zone).unwrap_or(Zone::UTC);
        let windows = std::slice::from_ref(window);
        // Between 1970 and 2200, where the rules of zones are known or continued.
        let now = UnixTime(now.rem_euclid(230 * 365 * 86_400));
        match schedule::gate(Some(windows), &zone, now) {
            Gate::Open { until } => assert!(until.is_some_and(|until| until > now)),
            Gate::Closed { until } => {
                assert!(until > now);
                assert!(matches!(schedule::gate(Some(windows), &zone, until), Gate::Open { .. }));
            }
        }
    }
}

/// The journal of an install: what is read can be written and read again, and is the same; and from the state that it
/// names every event leads to another state or is refused.
pub fn journal(bytes: &[u8]) {
    let Ok(journal) = Journal::parse(bytes) else { return };
    let written = journal.to_bytes().expect("a journal that was read can be written");
    assert_eq!(Journal::parse(&written), Ok(journal.clone()));
    let followed = Event::ALL.iter().filter(|event| journal.state.next(**event).is_ok()).count();
    assert!(followed > 0, "{:?} leads nowhere", journal.state);
    let is_finished = matches!(journal.state, State::Finished { .. });
    assert_eq!(journal.state.step() == Step::Stop, is_finished);
}

/// The plan and the list of refused bundles, which the unprivileged step writes and root reads.
pub fn fetched_state(bytes: &[u8]) {
    if let Some(plan) = Plan::parse(bytes) {
        let written = serde_json::to_vec(&plan).expect("a plan that was read can be written");
        assert_eq!(Plan::parse(&written), Some(plan));
    }
    type List = Vec<format::status::Quarantined>;
    if let Ok(list) = serde_json::from_slice::<List>(bytes) {
        let written = serde_json::to_vec(&list).expect("a list that was read can be written");
        assert_eq!(serde_json::from_slice::<List>(&written).ok(), Some(list));
    }
}

/// What apt and dpkg print, and a Packages file.
pub fn apt(text: &str) {
    crate::packages::read_everything_of_apt(text);
}

/// What dnf, its planner and rpm print, and the node's dnf.conf.
pub fn dnf(text: &str) {
    crate::packages::read_everything_of_dnf(text);
}

/// What another node of the site, or a stranger, sends. A request that is accepted is within its bound, is the same
/// whatever follows it, and was incomplete one byte earlier; of a part that is asked nothing lies outside the file.
/// What a node says of its content is read as it was written.
pub fn share(bytes: &[u8]) {
    use crate::share::fuzzing::{
        MAX_ASKED, MAX_HEAD, Parsed, Request, parse, parse_head, parse_request, ports, write,
    };
    let parsed = parse_request(bytes);
    match &parsed {
        Parsed::Incomplete => assert!(bytes.len() < MAX_HEAD),
        Parsed::Refused(refusal) => assert!(refusal.status().len() > 3),
        Parsed::Request(asked) => {
            let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an end") + 4;
            assert!(end <= MAX_HEAD);
            assert_eq!(parse_request(&bytes[..end]), parsed);
            assert_eq!(parse_request(&bytes[..end - 1]), Parsed::Incomplete);
            match asked {
                Request::Have(asked) => assert!((1..=MAX_ASKED).contains(&asked.len())),
                Request::Content { part, .. } => {
                    for size in [0, 1, 1 << 20, u64::MAX] {
                        let range = part.and_then(|part| part.of(size));
                        assert!(range.is_none_or(|range| range.start < range.end && range.end <= size));
                    }
                }
            }
        }
    }
    assert!(!ports(bytes).contains(&0));
    if let Ok(head) = parse_head(bytes) {
        assert!(head.end <= bytes.len() && (200..600).contains(&head.status));
    }
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    if let Some((token, holdings)) = parse(bytes, lines.saturating_sub(1)) {
        assert_eq!(parse(write(token, &holdings).as_bytes(), holdings.len()), Some((token, holdings)));
    }
}
