//! What nodes of a site send each other: a request, an answer's head, an answer. Property: in `agent::fuzzing::share`.
#![no_main]

use prestage_fuzz::fuzz_target;

fuzz_target!(|bytes: &[u8]| agent::fuzzing::share(bytes));
