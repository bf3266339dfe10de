//! What apt and dpkg print, and the Packages file of a bundle. Property: in `packages::apt::read_everything`.
#![no_main]

use prestage_fuzz::fuzz_target;

fuzz_target!(|text: &str| agent::fuzzing::apt(text));
