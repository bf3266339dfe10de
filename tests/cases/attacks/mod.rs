//! Every attack that must fail, and the table of how each of them ended: `make attacks`.
//!
//! An attack is one line of that table: everything is valid, one thing is broken, and one command of the agent must
//! refuse it with exit code 2 or 3 (or with another, where the attacker only withholds something: the reason stands in
//! the line), in words that name what was refused. The node's files, type, mode, owner, size, content, link targets and
//! device numbers, are the same before and after. They are by attacker, as in SECURITY.md.

mod builder; // whoever makes bundles, and all of whose signatures are right
mod fetcher; // the fetch step, in the hands of somebody else
mod fleet; // the centre's end of reports
mod local; // a user of the node
mod mirror; // whoever the node reads from, and whoever stands in between
mod thief; // of keys
mod wire; // who speaks HTTP as nobody should

/// Why what a mirror does not deliver is no matter of trust.
const DENIAL: &str = "only withheld: the next mirror or run goes on";

/// Worlds in which attacks are made at the same time: they mostly wait, for a mirror that does.
const LANES: usize = 3;

#[test]
fn every_attack_is_refused_and_leaves_the_node_as_it_was() {
    let groups = [
        ("A mirror, a CDN, a peer in the LAN, a USB stick: without any key", mirror::attacks()),
        ("The same, in the way it speaks", wire::attacks()),
        ("The thief of a key", thief::attacks()),
        ("Whoever makes bundles: all signatures are right", builder::attacks()),
        ("A user of the node without any rights", local::attacks()),
        ("The fetch step in other hands: all that the user prestage may do", fetcher::attacks()),
        ("The centre's end of reports", fleet::attacks()),
    ];
    lab::attack::hold(&groups, LANES);
}
