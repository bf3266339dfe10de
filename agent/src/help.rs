//! What is said about each verb, option and exit code: by `--help`, in the manual pages and by the completions, which are
//! all made of these tables (`manual/`). No I/O.

use std::fmt::Write as _;

/// A verb.
pub struct Verb {
    /// As it is typed.
    pub name: &'static str,
    /// What may follow, in short.
    pub arguments: &'static str,
    /// One line.
    pub summary: &'static str,
    /// What else is to be known.
    pub text: &'static str,
    /// What may follow: `--flag`, `--option VALUE` or `VALUE`, and what it means.
    pub options: &'static [(&'static str, &'static str)],
}

/// What the program is for.
pub const ABOUT: &str = "patches this node from a signed, staged bundle, with the network cut off";

/// All verbs, in the order in which somebody who begins needs them.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "enroll",
        arguments: "--repository URL --root-fingerprint sha256:… [--label K=V]… [--fleet URL]",
        summary: "begin: which repository this node belongs to, and where trust begins",
        text: "Gets the repository's first root and pins it, if it is the one that the fingerprint is of (prestage-build \
               root show prints it). Makes the key that this node signs its reports with, and has it enrolled by the fleet \
               server. Writes /etc/prestage/root.json, node.key, agent.d/50-enrolled.toml and 51-fleet.toml; nothing, if \
               anything is wrong. Needs root. Done twice it does no harm; another root is refused while one is there.",
        options: &[
            ("--repository URL", "where it is: http(s) or a folder"),
            (
                "--root-fingerprint DIGEST",
                "SHA-256 of its metadata/1.root.json, brought over a way that you trust",
            ),
            ("--label KEY=VALUE", "what policies select this node by; may be given more than once"),
            ("--id ID", "the node's name; otherwise made from /etc/machine-id"),
            ("--ca-file FILE", "PEM certificates for https, instead of the system's"),
            ("--fleet URL", "the fleet server to report to; alone, on a node that is enrolled already"),
            (
                "--token-file FILE",
                "what its operator gave for that; not needed where he has registered the key",
            ),
            ("--key-only", "make the key, if there is none, show its public half, and do nothing else"),
        ],
    },
    Verb {
        name: "run",
        arguments: "",
        summary: "whatever is due: fetch, then install if the window is open, then report",
        text: "For nodes without systemd timers, from cron say. An install does not wait for a mirror, and a report is \
               sent whatever happened. On a node that is not configured it says so and ends with 0.",
        options: &[],
    },
    Verb {
        name: "fetch",
        arguments: "[--now]",
        summary: "get what this node needs of its bundle: resumable, throttled, verified",
        text: "Asks the mirrors for news, lets the node's own package manager say what it needs, fetches only that, by \
               ranges, and stages it as a local package repository. Run it as the user prestage. It may be called as often \
               as one likes: the node keeps its own time ([fetch] poll-every, spread-over, transfer-windows).",
        options: &[("--now", "whatever turn, backoff and transfer windows say")],
    },
    Verb {
        name: "install",
        arguments: "[--now]",
        summary: "install what is staged, in the maintenance window",
        text: "Verifies every byte again while it copies it where only root can write, cuts the package manager off from \
               the network, installs, checks health and inventory. Needs root. An install that was interrupted goes on.",
        options: &[("--now", "whatever the maintenance window says")],
    },
    Verb {
        name: "recover",
        arguments: "",
        summary: "go on with an install that a power cut or a boot interrupted; at boot",
        text: "What prestage-recover.service calls. Nothing was interrupted: nothing is done. Needs root.",
        options: &[],
    },
    Verb {
        name: "rollback",
        arguments: "[--now]",
        summary: "take this node back to before the last install",
        text: "To its restore point, or where there is none by the packages that were kept. Needs root.",
        options: &[("--now", "boot at once if that is needed")],
    },
    Verb {
        name: "import",
        arguments: "PATH|--incoming [--everything]",
        summary: "as fetch, from an export: a folder, one .tar file, or what was pushed here",
        text: "What was carried or pushed here is believed no more than a mirror.",
        options: &[
            ("PATH", "the export that prestage-build export wrote: a folder or a .tar file"),
            ("--incoming", "what was pushed to [import] incoming"),
            ("--everything", "stage every member of the bundle, needed here or not"),
        ],
    },
    Verb {
        name: "share",
        arguments: "[--listen ADDRESS]",
        summary: "give what is here to the other nodes of the site ([share] serve)",
        text: "Started by prestage-share.socket; by hand it listens itself, until it is ended.",
        options: &[("--listen ADDRESS", "address and port, whatever is configured")],
    },
    Verb {
        name: "verify",
        arguments: "PATH",
        summary: "check an export or repository to the last byte; changes nothing",
        text: "With this node's own root of trust, as a fetch would.",
        options: &[("PATH", "a folder or a .tar file")],
    },
    Verb {
        name: "release",
        arguments: "VERSION",
        summary: "have a bundle again that this node refuses (quarantine)",
        text: "Needs root. The whole fleet's nodes are released by a policy (spec.release), not one by one.",
        options: &[("VERSION", "the bundle's name, such as 20261123-42")],
    },
    Verb {
        name: "report",
        arguments: "[--now|--export FILE|--import RECEIPT]",
        summary: "tell the centre how this node is, and what it has done",
        text: "To [fleet] url: signed, and when it is this node's time; or to [report] url. What is not accepted waits for the \
               next time.",
        options: &[
            ("--now", "whatever turn and backoff say"),
            ("--export FILE", "write it to a file, to be carried to prestage-fleet import"),
            ("--import RECEIPT", "what that has answered: accepted reports need not be kept any more"),
        ],
    },
    Verb {
        name: "status",
        arguments: "[--json|--check]",
        summary: "how this node is",
        text: "What /var/lib/prestage/status.json says, in words.",
        options: &[
            ("--json", "for machines: NodeStatus of patchmgmt.io/v1"),
            (
                "--check",
                "one line and a code as Nagios' plug-ins have: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN",
            ),
        ],
    },
    Verb {
        name: "doctor",
        arguments: "",
        summary: "what is configured, what is missing, what comes next",
        text: "Never fails, changes nothing and asks nobody over the network.",
        options: &[],
    },
    Verb {
        name: "config",
        arguments: "check|show",
        summary: "whether the configuration is right; what counts, and from which file",
        text: "agent.toml and its drop-ins, as every verb reads them. Nothing is changed.",
        options: &[(
            "ACTION",
            "check: say what is wrong, of all files; show: each key that is set, and where",
        )],
    },
];

/// Options that every verb has.
pub const OPTIONS: &[(&str, &str)] = &[
    ("--root DIR", "put everything below DIR, and use the package manager there"),
    ("--config FILE", "read this file instead of /etc/prestage/agent.toml and its drop-ins"),
    ("-v, --verbose", "say more on stderr"),
    ("-h, --help", "print this; after a verb, more about it"),
    ("-V, --version", "print the version"),
];

/// Exit codes: what each means, and what somebody does who sees it.
pub const EXIT_CODES: &[(u8, &str, &str)] = &[
    (0, "done, or nothing to do", "Nothing."),
    (
        1,
        "deferred",
        "Nothing: bundle missing or incomplete, outside the window, not this node's turn, too little space, another package \
         manager at work. It is tried again by itself; the message says which it is.",
    ),
    (
        2,
        "integrity",
        "Bytes do not match what was signed; the bundle is quarantined. Damaged on a mirror: mend the mirror, the next fetch \
         that verifies all of it ends the quarantine. Altered on the node: find out by whom before `prestage release`.",
    ),
    (
        3,
        "trust",
        "A signature, threshold, expiry or version was refused. Look at the centre first: is timestamp.json renewed in time \
         (prestage-build check)? Then at the node's clock and its /etc/prestage/root.json.",
    ),
    (
        4,
        "install failed (node as before)",
        "The message names the package. Mend it in the next bundle; this one is not tried here again unless you insist \
         (prestage release, install --now).",
    ),
    (
        5,
        "rolled back",
        "The health check failed. Look at what the health hooks and [health] url said; the node is as before.",
    ),
    (
        6,
        "needs a person",
        "The node could not be proved to be as before. Log in, read `prestage status` and the journal, repair what the package \
         manager complains of.",
    ),
    (64, "usage", "`prestage --help`."),
    (
        69,
        "unavailable",
        "No mirror or centre answered. Nothing, if the line is down; it is tried again by itself.",
    ),
    (74, "I/O", "A file could not be read or written: look at the disk, its space and the kernel's log."),
    (78, "configuration", "`prestage doctor` and `prestage config check` say which key and why."),
];

/// Where the summaries of a list begin.
const COLUMN: usize = 17;

/// The widest line.
const WIDTH: usize = 100;

/// `prestage --help`.
pub fn program() -> String {
    let mut out = format!("prestage: {ABOUT}\n\nUsage: prestage [OPTION]… VERB\n\nVerbs:\n");
    for verb in VERBS {
        item(&mut out, format!("{} {}", verb.name, verb.arguments).trim_end(), verb.summary);
    }
    out.push_str("\nOptions:\n");
    for (option, text) in OPTIONS {
        item(&mut out, option, text);
    }
    let codes: Vec<String> = EXIT_CODES.iter().map(|(code, word, _)| format!("{code} {word}")).collect();
    paragraph(&mut out, &format!("\nExit codes: {}.", codes.join(", ")), 0);
    out
}

/// `prestage VERB --help`; that of the program, if there is no such verb.
pub fn verb(name: &str) -> String {
    let Some(verb) = VERBS.iter().find(|v| v.name == name) else { return program() };
    let usage = format!("prestage {} {}", verb.name, verb.arguments);
    let mut out = format!("{}\n\nUsage: {}\n\n", verb.summary, usage.trim_end());
    paragraph(&mut out, verb.text, 0);
    if !verb.options.is_empty() {
        out.push('\n');
    }
    for (option, text) in verb.options {
        item(&mut out, option, text);
    }
    out.push_str("\n`prestage --help` lists options that every verb has, and the exit codes.\n");
    out
}

// Writing to a String cannot fail.
fn item(out: &mut String, head: &str, text: &str) {
    let _ = write!(out, "  {head}");
    let width = head.chars().count() + 2;
    if width + 2 > COLUMN + 2 {
        out.push('\n');
    }
    let begun = if width + 2 > COLUMN + 2 { 0 } else { width };
    let _ = write!(out, "{:1$}", "", COLUMN + 2 - begun);
    paragraph(out, text, COLUMN + 2);
}

/// The text in lines of at most [`WIDTH`], all but the first indented.
fn paragraph(out: &mut String, text: &str, indent: usize) {
    let mut column = indent;
    for (i, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && column + 1 + length > WIDTH {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn help_fits_one_screen() {
        let texts = VERBS.iter().map(|v| verb(v.name)).chain([program()]);
        for text in texts {
            assert!(text.lines().count() <= 48, "{text}");
            assert!(text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
        }
    }

    #[test]
    fn every_exit_code_is_explained() {
        let all = [
            Exit::Done,
            Exit::Deferred,
            Exit::Integrity,
            Exit::Trust,
            Exit::InstallFailed,
            Exit::RolledBack,
            Exit::NeedsPerson,
            Exit::Usage,
            Exit::Unavailable,
            Exit::Io,
            Exit::Config,
        ];
        let codes: Vec<u8> = EXIT_CODES.iter().map(|(code, ..)| *code).collect();
        assert_eq!(codes, all.map(|e| e as u8));
    }
}
