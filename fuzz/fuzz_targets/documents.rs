//! Report and status: what is read can be written and read again, and is the same.
#![no_main]

use format::report::Report;
use format::status::NodeStatus;
use prestage_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = Report::parse(bytes) {
        let written = serde_json::to_vec_pretty(&report).expect("a report that was read cannot be written");
        assert_eq!(Report::parse(&written), Ok(report));
    }
    if let Ok(status) = NodeStatus::parse(bytes) {
        let written = serde_json::to_vec_pretty(&status).expect("a status that was read cannot be written");
        assert_eq!(NodeStatus::parse(&written), Ok(status));
    }
});
