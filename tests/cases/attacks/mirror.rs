//! Whoever the node reads from, and whoever stands in between: he has every byte that was ever published, and no key.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use lab::attack::{Attack, Stage, VERSION};
use lab::forge::{RECORD, entry, field, header};
use lab::random::Random;
use lab::repository::{Centre, Part};
use lab::server::Behaviour;
use lab::site::{False, FalsePeer};
use serde_json::json;

/// The first repository, where a file of it was published under a later version: as the second one's.
fn replay_as(stage: &Stage, role: &str) {
    let newest = stage.forge().file(role);
    let version: u64 = version_of(&newest);
    fs::copy(stage.first().join(format!("metadata/{}.{role}.json", version - 1)), newest)
        .expect("an older version");
}

fn version_of(file: &std::path::Path) -> u64 {
    let name = file.file_name().expect("a name").to_string_lossy();
    name.split('.').next().and_then(|v| v.parse().ok()).expect("a version")
}

/// Sends `bytes` instead of the timestamp, which no other file names the digest of: whatever it is, it is looked at.
fn timestamp_is(stage: &Stage, bytes: impl Into<Vec<u8>>) {
    fs::write(stage.repository("metadata/timestamp.json"), bytes.into()).expect("a file of the repository");
}

/// Overwrites the content of a package in the bundle file.
fn overwrite(stage: &Stage, package: &str, at: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(stage.centre().file(Part::BundleData)).expect("a bundle");
    file.write_all_at(bytes, stage.centre().offset_of(package, at)).expect("room for it");
}

pub fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "arbitrary package",
            "the mirror puts a package of its own into the bundle",
            2,
            &["till-new"],
            |s| {
                let size = s.centre().member("till-new").size;
                overwrite(s, "till-new", 1, &Random::new(1).bytes(size as usize - 1));
                s.fetch()
            },
        ),
        Attack::new(
            "one flipped bit in a package",
            "one bit of a package of 3 MiB",
            2,
            &["till-data"],
            |s| {
                s.centre().flip(Part::BundleData, s.centre().offset_of("till-data", 2_000_000));
                s.fetch()
            },
        ),
        Attack::new("arbitrary index", "an index that was changed and not signed", 2, &["index.json"], |s| {
            let index = s.centre().file(Part::Index);
            let text = fs::read_to_string(&index).expect("an index").replace("till-new", "till-old");
            fs::write(index, text).expect("an index");
            s.fetch()
        }),
        Attack::new(
            "another repository",
            "a valid repository, whose root has other keys",
            3,
            &["signatures"],
            |s| {
                let other = Centre::with_signers(&s.world.sandbox, "other-centre", 1);
                other.publish(&s.world.sandbox.path().join(format!("centre/bundle-{VERSION}")));
                fs::copy(other.file(Part::Timestamp), s.centre().file(Part::Timestamp)).expect("a timestamp");
                let _ = fs::remove_dir_all(s.world.sandbox.path().join("other-centre"));
                s.fetch()
            },
        ),
        Attack::new(
            "unsigned metadata",
            "timestamp.json without its signature",
            3,
            &["timestamp.json", "signatures"],
            |s| {
                let mut file = s.forge().read("timestamp");
                file["signatures"] = json!([]);
                s.forge().write("timestamp", &file);
                s.fetch()
            },
        ),
        Attack::new(
            "rollback of the timestamp",
            "the timestamp of the bundle before",
            3,
            &["timestamp.json", "older"],
            |s| {
                s.replay("metadata/timestamp.json");
                s.fetch()
            },
        )
        .when_fetched(),
        Attack::new(
            "rollback of the whole repository",
            "all files of the bundle before",
            3,
            &["older"],
            |s| {
                lab::attack::copy(&s.first(), &s.centre().repository());
                s.fetch()
            },
        )
        .when_fetched(),
        Attack::new(
            "rollback of the root",
            "the first root as 2.root.json",
            3,
            &["root.json", "version"],
            |s| {
                fs::copy(s.repository("metadata/1.root.json"), s.repository("metadata/2.root.json"))
                    .expect("a root");
                s.fetch()
            },
        ),
        Attack::new(
            "mix and match: snapshot",
            "an older snapshot where the newest should be",
            2,
            &["snapshot.json"],
            |s| {
                replay_as(s, "snapshot");
                s.fetch()
            },
        ),
        Attack::new(
            "mix and match: bundles",
            "an older bundles.json where the newest should be",
            2,
            &["bundles.json"],
            |s| {
                replay_as(s, "bundles");
                s.fetch()
            },
        ),
        Attack::new(
            "mix and match: targets",
            "bundles.json where targets.json should be",
            2,
            &["targets.json"],
            |s| {
                fs::copy(s.forge().file("bundles"), s.forge().file("targets")).expect("a role");
                s.fetch()
            },
        ),
        Attack::new(
            "mix and match: index",
            "the index of the bundle before under the name of this one's",
            2,
            &["index.json"],
            |s| {
                let mut first = Vec::new();
                lab::repository::find(&s.first().join("targets"), ".index.json", &mut first);
                fs::copy(&first[0], s.centre().file(Part::Index)).expect("an index");
                s.fetch()
            },
        ),
        Attack::new(
            "wrong variant: a file in the wrong place",
            "another variant's bundle under this node's path",
            2,
            &["index.json"],
            |s| {
                let index = s.centre().file(Part::Index);
                let variant = s.node().variant();
                let text = fs::read_to_string(&index)
                    .expect("an index")
                    .replace(variant.as_str(), "ubuntu-24.04-arm64");
                fs::write(index, text).expect("an index");
                s.fetch()
            },
        ),
        Attack::new(
            "endless metadata",
            "timestamp.json that never ends",
            2,
            &["timestamp.json", "larger than"],
            |s| {
                s.mirror(Behaviour {
                    raw: Some(super::wire::endless("timestamp.json")),
                    ..Behaviour::default()
                });
                s.fetch()
            },
        ),
        Attack::new("endless root", "2.root.json that never ends", 2, &["root.json", "larger than"], |s| {
            s.mirror(Behaviour { raw: Some(super::wire::endless("2.root.json")), ..Behaviour::default() });
            s.fetch()
        }),
        Attack::new(
            "endless snapshot",
            "snapshot.json that never ends",
            2,
            &["snapshot.json", "larger than"],
            |s| {
                s.mirror(Behaviour {
                    raw: Some(super::wire::endless(".snapshot.json")),
                    ..Behaviour::default()
                });
                s.fetch()
            },
        ),
        Attack::new("oversized index", "a gigabyte behind the index", 2, &["index.json"], |s| {
            let index = s.centre().file(Part::Index);
            let file = fs::File::options().write(true).open(index).expect("an index");
            file.write_all_at(b"[", 0).expect("an index");
            file.set_len(1 << 30).expect("a sparse file");
            s.fetch()
        }),
        Attack::new(
            "JSON: a key twice",
            "two signed objects in timestamp.json",
            3,
            &["timestamp.json", "twice"],
            |s| {
                let text = fs::read_to_string(s.centre().file(Part::Timestamp)).expect("a timestamp");
                timestamp_is(s, text.replacen('{', "{\"signed\":{},", 1));
                s.fetch()
            },
        ),
        Attack::new("JSON: deep nesting", "16,000 brackets", 3, &["timestamp.json", "recursion"], |s| {
            timestamp_is(s, "[".repeat(16_000));
            s.fetch()
        }),
        Attack::new("JSON: a number without end", "version: 10^15000", 3, &["timestamp.json"], |s| {
            timestamp_is(
                s,
                format!("{{\"signatures\":[],\"signed\":{{\"version\":1{}}}}}", "0".repeat(15_000)),
            );
            s.fetch()
        }),
        Attack::new("JSON: not UTF-8", "a byte that no character has", 3, &["timestamp.json"], |s| {
            timestamp_is(s, b"{\"signed\":\"\xff\"}".to_vec());
            s.fetch()
        }),
        Attack::new(
            "JSON: something behind it",
            "trailing garbage after timestamp.json",
            3,
            &["timestamp.json", "trailing"],
            |s| {
                let text = fs::read_to_string(s.centre().file(Part::Timestamp)).expect("a timestamp");
                timestamp_is(s, format!("{text}{{}}"));
                s.fetch()
            },
        ),
        Attack::new("random bytes as metadata", "10,000 of them", 3, &["timestamp.json", "malformed"], |s| {
            timestamp_is(s, Random::new(3).bytes(10_000));
            s.fetch()
        }),
        Attack::new("random bytes as a bundle", "as many as the bundle has", 2, &["bundle.tar.gz"], |s| {
            let bundle = s.centre().file(Part::BundleData);
            let length = fs::metadata(&bundle).expect("a bundle").len();
            fs::write(bundle, Random::new(4).bytes(length as usize)).expect("a bundle");
            s.fetch()
        }),
        Attack::new("truncated bundle", "half of it", 69, &["bundle.tar.gz"], |s| {
            let bundle =
                fs::File::options().write(true).open(s.centre().file(Part::BundleData)).expect("a bundle");
            let length = bundle.metadata().expect("a bundle").len();
            bundle.set_len(length / 2).expect("a shorter bundle");
            s.fetch()
        })
        .because(super::DENIAL),
        Attack::new("peer: garbage", "a node of the site gives other bytes", 0, &["staged"], |s| {
            let index = s.centre().index();
            let sizes: BTreeMap<String, u64> =
                index.members.iter().map(|m| (m.sha256.to_string(), m.size)).collect();
            let size = move |digest: &str| sizes.get(digest).copied().unwrap_or_default();
            let peer = FalsePeer::start(False::Garbage, size);
            let config = s.configuration(&format!("[share]\npeers = [\"{}\"]\n", peer.address));
            let ended = s.outside(&["--config", &config.to_string_lossy(), "fetch", "--now"]);
            if peer.asked.load(Ordering::Relaxed) == 0 {
                s.fault("the peer was not asked for anything");
            }
            ended
        })
        .stages_what_is_right("he costs a question; what is right comes from the mirror"),
        Attack::new(
            "stick: a pipe for a file",
            "timestamp.json is a FIFO",
            69,
            &["timestamp.json", "regular file"],
            |s| {
                let stick = s.stick(|stick| {
                    let file = stick.join("metadata/timestamp.json");
                    fs::remove_file(&file).expect("a timestamp");
                    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
                });
                s.carried("import", &stick)
            },
        )
        .because(super::DENIAL),
        Attack::new(
            "stick: a link to a secret",
            "timestamp.json is a link to /etc/shadow",
            3,
            &["timestamp.json", "malformed"],
            |s| {
                let stick = s.stick(|stick| {
                    let file = stick.join("metadata/timestamp.json");
                    fs::remove_file(&file).expect("a timestamp");
                    std::os::unix::fs::symlink(s.node().path("/etc/shadow"), &file).expect("a link");
                });
                let ended = s.carried("import", &stick);
                if ended.all().contains("root:") {
                    s.fault("what is in /etc/shadow was shown");
                }
                ended
            },
        ),
        Attack::new(
            "stick: a damaged package",
            "one bit, found before it is carried on",
            2,
            &["till-data"],
            |s| {
                s.centre().flip(Part::BundleData, s.centre().offset_of("till-data", 1_000_000));
                let stick = s.stick(|_| {});
                s.carried("verify", &stick)
            },
        ),
        Attack::new(
            "stick: links in its tar file",
            "timestamp.json is a symbolic link",
            2,
            &["stick.tar"],
            |s| s.carried("import", &tar(s, &[entry(b'2', "metadata/timestamp.json", b"")])),
        ),
        Attack::new(
            "stick: a path with .. in its tar file",
            "../../etc/cron.d/evil",
            69,
            &["stick.tar", "not found"],
            |s| s.carried("import", &tar(s, &[entry(b'0', "../../etc/cron.d/evil", b"* * * * * root evil")])),
        )
        .because("nothing is unpacked: what has no name of a repository's is not looked at"),
        Attack::new(
            "stick: a size beyond its tar file",
            "an entry of 8 GiB in a file of 1 KiB",
            2,
            &["stick.tar"],
            |s| {
                let mut entry = entry(b'0', "metadata/timestamp.json", b"");
                header(&mut entry, |h| field(h, 124..136, "77777777777"));
                s.carried("import", &tar(s, &[entry]))
            },
        ),
    ]
}

/// An export of these entries.
fn tar(stage: &Stage, entries: &[Vec<u8>]) -> std::path::PathBuf {
    let path = stage.world.sandbox.path().join("stick.tar");
    fs::write(&path, [entries.concat(), vec![0; 2 * RECORD]].concat()).expect("a tar file");
    path
}
