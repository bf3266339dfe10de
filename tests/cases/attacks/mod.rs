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

use std::path::Path;

use lab::node::Node;
use lab::sandbox::{Sandbox, command, succeed};

/// Why what a mirror does not deliver is no matter of trust.
const DENIAL: &str = "only withheld: the next mirror or run goes on";

/// Worlds in which attacks are made at the same time: they mostly wait, for a mirror that does.
const LANES: usize = 3;

#[test]
fn no_unit_gives_away_the_folder_of_lock_and_configuration() {
    // RuntimeDirectory= of a unit with a User= makes /run/prestage that user's (systemd.exec(5)): the table below, in
    // which it is as prestage.tmpfiles says, would hold for nobody.
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    for unit in std::fs::read_dir(units).expect("the units").flatten() {
        let text = std::fs::read_to_string(unit.path()).expect("a unit");
        assert!(!text.contains("RuntimeDirectory="), "{}: leave it to tmpfiles", unit.path().display());
    }
}

#[test]
fn whatever_changes_on_a_node_is_seen() {
    let sandbox = Sandbox::new();
    let node = Node::new(&sandbox, "node");
    node.write("/etc/file", "content");
    let mut before = node.image();
    assert_eq!(before.differences(&node.image()), Vec::<String>::new());
    let changes = [
        (
            "content, size and time as they were",
            "cp -p etc/issue t; tr n x <t >etc/issue; touch -r t etc/issue; rm t",
        ),
        ("mode", "chmod 4644 etc/file"),
        ("owner", "chown 1 etc/file"),
        ("group", "chgrp 1 etc/file"),
        ("type", "ln -sf other etc/file"),
        ("where a link leads to", "ln -sf third etc/file"),
        ("a device", "rm etc/file && mknod etc/file c 1 3"),
        ("its number", "rm etc/file && mknod etc/file c 1 5"),
        ("a FIFO", "rm etc/file && mkfifo etc/file"),
        ("one file less", "rm etc/file"),
        ("one file more", "echo >usr/share/evil"),
        ("one folder more", "mkdir etc/evil"),
        ("a file of everybody's", "echo >tmp/evil"),
        ("dpkg's own", "echo >>var/lib/dpkg/status"),
    ];
    for (what, script) in changes {
        succeed(command("sh").args(["-ec", script]).current_dir(node.root()));
        let after = node.image();
        let seen = before.differences(&after);
        assert_eq!(seen.len(), 1, "{what}: {seen:?}");
        before = after;
    }
}

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
