//! What the agent keeps of an install, and what the unprivileged step leaves for root to read. Properties: in
//! `agent::fuzzing`.
#![no_main]

use prestage_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    agent::fuzzing::journal(bytes);
    agent::fuzzing::fetched_state(bytes);
});
