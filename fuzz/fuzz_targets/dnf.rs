//! What dnf, its planner and rpm print, and the node's dnf.conf.
#![no_main]

use prestage_fuzz::fuzz_target;

fuzz_target!(|text: &str| agent::fuzzing::dnf(text));
