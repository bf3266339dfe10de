//! Whoever makes bundles, whose machine is the attacker's: everything is signed by all who must, and is still no bundle.

use lab::attack::{Attack, Ended, Stage};
use lab::forge::{RECORD, deflated, entry, field, header, stored};
use lab::node::User;
use serde_json::{Value, json};

/// The fields of a tar header (POSIX.1-2017, pax, "ustar Interchange Format").
const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const OWNER: std::ops::Range<usize> = 108..116;
const SIZE: std::ops::Range<usize> = 124..136;
const TYPE: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const PREFIX: std::ops::Range<usize> = 345..500;

/// A package that the node needs, and where it stands in the bundle.
const PACKAGE: &str = "pool/till-new";

/// The metadata that every node reads first.
const METADATA: &str = "Packages";

/// The package's tar header says something else.
fn with_header(stage: &Stage, edit: fn(&mut [u8])) -> Ended {
    stage.forge().member(PACKAGE, |mut tar, _| {
        header(&mut tar, edit);
        stored(&tar)
    });
    stage.fetch()
}

/// A tar entry of the attacker's own stands before that of the first member.
fn with_entry(stage: &Stage, entry: &[u8]) -> Ended {
    stage.forge().member(METADATA, |tar, _| stored(&[entry, &tar].concat()));
    stage.fetch()
}

/// The index says something else of the package.
fn with_index(stage: &Stage, edit: fn(&mut Value)) -> Ended {
    stage.forge().index(|index| {
        let members = index["members"].as_array_mut().expect("members");
        let package = members.iter_mut().find(|m| m["path"].as_str().is_some_and(|p| p.starts_with(PACKAGE)));
        edit(package.expect("the package"));
    });
    stage.fetch()
}

/// The text of a member becomes another; the index agrees with it.
fn with_text(stage: &Stage, path: &str, edit: impl FnOnce(String) -> String) {
    stage.forge().member(path, |tar, member| {
        let size = member["size"].as_u64().expect("a size") as usize;
        let text = edit(String::from_utf8(tar[RECORD..RECORD + size].to_vec()).expect("text"));
        let mut changed = tar[..RECORD].to_vec();
        header(&mut changed, |h| field(h, SIZE, &format!("{:011o}", text.len())));
        changed.extend(text.as_bytes());
        changed.resize(changed.len().next_multiple_of(RECORD), 0);
        member["size"] = text.len().into();
        member["sha256"] = json!(format::digest::Sha256::of(text.as_bytes()));
        deflated(&changed)
    });
}

/// `Packages` says something else, and all that vouches for it agrees.
fn with_packages(stage: &Stage, edit: impl FnOnce(String) -> String) {
    let mut now = String::new();
    with_text(stage, METADATA, |text| {
        now = edit(text);
        now.clone()
    });
    with_text(stage, "Release", |text| {
        let (head, _) = text.split_once("SHA256:").expect("digests");
        format!("{head}SHA256:\n {} {} Packages\n", format::digest::Sha256::of(now.as_bytes()), now.len())
    });
}

pub fn attacks() -> Vec<Attack> {
    let mut attacks = container();
    attacks.extend(index());
    attacks.extend(repository());
    attacks
}

/// The bundle file.
fn container() -> Vec<Attack> {
    let damaged = |name, how, act| Attack::new(name, how, 2, &["till-new", "tar header"], act);
    let at_first = |name, how, act| Attack::new(name, how, 2, &["Packages", "tar header"], act);
    vec![
        damaged("tar: path with ..", "the header says ../../etc/cron.d/evil", |s| {
            with_header(s, |h| field(h, NAME, "../../etc/cron.d/evil"))
        }),
        damaged("tar: absolute path", "the header says /etc/cron.d/evil", |s| {
            with_header(s, |h| field(h, NAME, "/etc/cron.d/evil"))
        }),
        damaged("tar: absolute prefix", "the prefix field says /etc", |s| {
            with_header(s, |h| field(h, PREFIX, "/etc"))
        }),
        damaged("tar: symbolic link", "type 2, to /etc/shadow", |s| {
            with_header(s, |h| {
                h[TYPE] = b'2';
                field(h, LINK, "/etc/shadow");
            })
        }),
        damaged("tar: hard link", "type 1, to /etc/shadow", |s| {
            with_header(s, |h| {
                h[TYPE] = b'1';
                field(h, LINK, "/etc/shadow");
            })
        }),
        damaged("tar: device", "type 4, the first disk", |s| {
            with_header(s, |h| {
                h[TYPE] = b'4';
                field(h, 329..337, "0000010");
            })
        }),
        damaged("tar: FIFO", "type 6", |s| with_header(s, |h| h[TYPE] = b'6')),
        damaged("tar: folder", "type 5", |s| with_header(s, |h| h[TYPE] = b'5')),
        damaged("tar: set-user-id", "mode 4755", |s| with_header(s, |h| field(h, MODE, "0004755"))),
        damaged("tar: another owner", "user 1000", |s| with_header(s, |h| field(h, OWNER, "0001750"))),
        damaged("tar: sparse", "type S, of GNU tar", |s| with_header(s, |h| h[TYPE] = b'S')),
        damaged("tar: a size that lies", "the header says a byte more", |s| {
            with_header(s, |h| h[134] = if h[134] == b'7' { b'6' } else { h[134] + 1 })
        }),
        at_first("tar: GNU long name", "a type L entry before the first member", |s| {
            with_entry(s, &entry(b'L', "././@LongLink", b"../../etc/cron.d/evil\0"))
        }),
        at_first("tar: GNU long link", "a type K entry before the first member", |s| {
            with_entry(s, &entry(b'K', "././@LongLink", b"/etc/shadow\0"))
        }),
        at_first("tar: pax override", "a type x entry with path=/etc/cron.d/evil", |s| {
            with_entry(s, &entry(b'x', "PaxHeaders/x", b"30 path=/etc/cron.d/evil-job1\n"))
        }),
        at_first("tar: global pax override", "a type g entry with linkpath=/etc/shadow", |s| {
            with_entry(s, &entry(b'g', "PaxHeaders/g", b"24 linkpath=/etc/shadow\n"))
        }),
        at_first("tar: one more file", "an entry that the index does not list", |s| {
            with_entry(s, &entry(b'0', "pool/evil_1_all.deb", b"evil"))
        }),
        Attack::new(
            "gzip bomb",
            "a member that inflates to 64 MiB and not to what the index says",
            2,
            &["Packages", "more data"],
            |s| {
                s.forge().member(METADATA, |tar, _| deflated(&[tar, vec![0; 64 << 20]].concat()));
                let ended = s.fetch();
                if ended.own_kib() > MEMORY_KIB {
                    s.fault(format!("the agent needed {} KiB", ended.own_kib()));
                }
                ended
            },
        ),
        Attack::new(
            "gzip bomb: all of it announced",
            "an index of 4 GiB of metadata, on a disk of 100 MiB",
            1,
            &["free"],
            |s| {
                s.node().small_disk("/var/lib/prestage/fetch", 100 << 20);
                s.attacker(User::Root, "chown prestage: /var/lib/prestage/fetch");
                s.forge().member(METADATA, |mut tar, member| {
                    let size: u64 = 4 << 30;
                    header(&mut tar, |h| field(h, SIZE, &format!("{size:011o}")));
                    member["size"] = size.into();
                    member["blocks"] = json!(vec![format::digest::Sha256::of(b""); 4096]);
                    deflated(&[&tar[..RECORD], &vec![0; 200 << 20]].concat())
                });
                let ended = s.fetch();
                let free = host_free(&s.node().path("/var/lib/prestage/fetch"));
                if free < 32 << 20 {
                    s.fault(format!("{free} bytes are free on the node's disk"));
                }
                s.node().normal_disk("/var/lib/prestage/fetch");
                ended
            },
        )
        .because("a disk that is too small is no attack: nothing was written to it"),
        Attack::new(
            "trailing garbage in a member",
            "16 bytes behind its gzip trailer",
            2,
            &["Packages", "more data"],
            |s| {
                s.forge().member(METADATA, |tar, _| [stored(&tar), vec![0; 16]].concat());
                s.fetch()
            },
        ),
        Attack::new("two gzip members in one", "the same entry twice", 2, &["Packages", "more data"], |s| {
            s.forge().member(METADATA, |tar, _| stored(&tar).repeat(2));
            s.fetch()
        }),
        Attack::new("gzip: flags", "a header with a file name in it", 2, &["Packages", "gzip header"], |s| {
            s.forge().member(METADATA, |tar, _| {
                let mut member = stored(&tar);
                member[3] = 8;
                member
            });
            s.fetch()
        }),
        Attack::new(
            "gzip: a wrong checksum",
            "of content that has the right sha256",
            2,
            &["Packages", "checksum"],
            |s| {
                s.forge().member(METADATA, |tar, _| {
                    let mut member = stored(&tar);
                    let at = member.len() - 8;
                    member[at] ^= 1;
                    member
                });
                s.fetch()
            },
        ),
        Attack::new(
            "other content than the index says",
            "an evil package, well packed",
            2,
            &["till-new", "sha256"],
            |s| {
                s.forge().member(PACKAGE, |mut tar, _| {
                    tar[RECORD + 100] ^= 1;
                    stored(&tar)
                });
                s.fetch()
            },
        ),
        Attack::new(
            "something in the padding",
            "a byte behind the content",
            2,
            &["till-new", "padding"],
            |s| {
                s.forge().member(PACKAGE, |mut tar, member| {
                    let end = RECORD + member["size"].as_u64().expect("a size") as usize;
                    assert!(end < tar.len(), "the package has padding");
                    tar[end] = 1;
                    stored(&tar)
                });
                s.fetch()
            },
        ),
    ]
}

/// What the agent may take where a bomb of 64 MiB goes off. It is the agent as it is built for tests, whose code alone is
/// several MiB in memory; what is shipped is held to its promise by `make bench`.
const MEMORY_KIB: u64 = 14 * 1024;

fn host_free(path: &std::path::Path) -> u64 {
    let stat = nix::sys::statvfs::statvfs(path).expect("a file system");
    stat.blocks_available() * stat.fragment_size()
}

/// The index.
fn index() -> Vec<Attack> {
    let refused = |name, how, says, act| Attack::new(name, how, 2, says, act);
    vec![
        refused("index: path with ..", "../../../../etc/cron.d/evil", &["member path"], |s| {
            with_index(s, |m| m["path"] = "../../../../etc/cron.d/evil".into())
        }),
        refused("index: absolute path", "/etc/cron.d/evil", &["member path"], |s| {
            with_index(s, |m| m["path"] = "/etc/cron.d/evil".into())
        }),
        refused("index: hidden path", "pool/.evil", &["member path"], |s| {
            with_index(s, |m| m["path"] = "pool/.evil".into())
        }),
        refused(
            "index: a path with a newline",
            "a line of its own in the log",
            &["control character"],
            |s| with_index(s, |m| m["path"] = "pool/x\nerror: all is well".into()),
        ),
        refused("index: one path twice", "Packages is a package, too", &["listed twice"], |s| {
            with_index(s, |m| m["path"] = METADATA.into())
        }),
        refused(
            "index: a file as a folder",
            "Packages/evil beside Packages",
            &["would be its folder"],
            |s| with_index(s, |m| m["path"] = "Packages/evil".into()),
        ),
        refused("index: overlap", "a member begins within the one before", &["overlaps"], |s| {
            with_index(s, |m| {
                let offset = m["sources"][0]["offset"].as_u64().expect("an offset");
                m["sources"][0]["offset"] = (offset - 1).into();
            })
        }),
        refused("index: overflow", "an offset of 2^64-1", &["beyond 2^64"], |s| {
            with_index(s, |m| m["sources"][0]["offset"] = u64::MAX.into())
        }),
        refused("index: behind the end", "an offset of 2^62", &["behind the bundle"], |s| {
            with_index(s, |m| m["sources"][0]["offset"] = (1u64 << 62).into())
        }),
        refused("index: a negative offset", "-1", &["invalid value"], |s| {
            with_index(s, |m| m["sources"][0]["offset"] = (-1).into())
        }),
        refused("index: a size of 2^64-1", "of a deflated member", &["beyond 2^63"], |s| {
            with_index(s, |m| {
                m["size"] = u64::MAX.into();
                m["sources"][0]["encoding"] = "deflate".into();
            })
        }),
        refused(
            "index: a size that lies",
            "a byte more than there is",
            &["not that of a stored member"],
            |s| with_index(s, |m| m["size"] = (m["size"].as_u64().expect("a size") + RECORD as u64).into()),
        ),
        refused(
            "index: no length",
            "a member of no bytes in the file",
            &["not that of a stored member"],
            |s| with_index(s, |m| m["sources"][0]["length"] = 0.into()),
        ),
        refused("index: no way to get it", "a member of sources that nobody knows", &["no source"], |s| {
            with_index(s, |m| m["sources"] = json!([{ "kind": "magic" }]))
        }),
        refused(
            "index: block digests of nothing",
            "a digest for a block that there is not",
            &["digest for each block"],
            |s| with_index(s, |m| m["blocks"] = json!([format::digest::Sha256::of(b"")])),
        ),
        refused("index: too many members", "50,001 of them", &["limit"], |s| {
            s.forge().index_bytes(|text| {
                let index: Value = serde_json::from_str(&text).expect("JSON");
                let member = index["members"][0].to_string();
                let path = index["members"][0]["path"].to_string();
                let members = (0..=50_000).map(|n| member.replacen(&path, &format!("\"x{n}\""), 1));
                let list = index["members"].to_string();
                index
                    .to_string()
                    .replacen(&list, &format!("[{}]", members.collect::<Vec<_>>().join(",")), 1)
                    .into_bytes()
            });
            s.fetch()
        }),
        refused("index: JSON, a key twice", "two lists of members", &["twice"], |s| {
            s.forge().index_bytes(|text| text.replacen('{', "{\"members\":[],", 1).into_bytes());
            s.fetch()
        }),
        refused("index: JSON, deep nesting", "100,000 brackets", &["recursion"], |s| {
            s.forge().index_bytes(|text| {
                text.replacen('{', &format!("{{\"x\":{},", "[".repeat(100_000)), 1).into_bytes()
            });
            s.fetch()
        }),
        refused("index: JSON, a number without end", "a size of 10^15000", &["out of range"], |s| {
            s.forge().index_bytes(|text| {
                text.replacen("\"size\":", &format!("\"size\":1{}", "0".repeat(15_000)), 1).into_bytes()
            });
            s.fetch()
        }),
        refused("index: another format", "apiVersion v99", &["v99"], |s| {
            s.forge().index(|index| index["apiVersion"] = "patchmgmt.io/v99".into());
            s.fetch()
        }),
        Attack::new(
            "wrong variant",
            "the index of another variant, signed for this one's path",
            3,
            &["it is for the variant ubuntu-24.04-arm64"],
            |s| {
                s.forge().index(|index| index["variant"] = "ubuntu-24.04-arm64".into());
                s.fetch()
            },
        ),
        Attack::new(
            "another bundle's index",
            "an index that says another version",
            3,
            &["it says that it is version"],
            |s| {
                s.forge().index(|index| index["version"] = "20270101-1".into());
                s.fetch()
            },
        ),
        Attack::new(
            "another bundle's file",
            "an index that names the bundle file before",
            3,
            &["not the one in the signed metadata"],
            |s| {
                s.forge().index(|index| {
                    let path = index["bundle"]["path"].as_str().expect("a path");
                    index["bundle"]["path"] = path.replace(lab::attack::VERSION, lab::world::VERSION).into();
                });
                s.fetch()
            },
        ),
        Attack::new(
            "a bundle file of another length",
            "an index that says a byte more",
            3,
            &["not the one in the signed metadata"],
            |s| {
                s.forge().index(|index| {
                    let length = index["bundle"]["length"].as_u64().expect("a length");
                    index["bundle"]["length"] = (length + 1).into();
                });
                s.fetch()
            },
        ),
    ]
}

/// The package repository that is in the bundle.
fn repository() -> Vec<Attack> {
    vec![
        Attack::new(
            "a package that the index does not list",
            "Packages gives it another sha256",
            2,
            &["does not list"],
            |s| {
                with_packages(s, |text| {
                    let digest = s.centre().member("till-new").sha256.to_string();
                    text.replace(&digest, &"e".repeat(64))
                });
                s.fetch()
            },
        ),
        Attack::new(
            "a package under another name",
            "Packages has it at another path than the index",
            2,
            &["its index has it elsewhere"],
            |s| {
                with_packages(s, |text| {
                    text.replace("pool/till-new_1.0-3_all.deb", "pool/till-other_1.0-3_all.deb")
                });
                s.fetch()
            },
        ),
        Attack::new(
            "a package from elsewhere",
            "Filename: ../../../../etc/shadow",
            2,
            &["../../etc/shadow"],
            |s| {
                with_packages(s, |text| {
                    text.replace("pool/till-new_1.0-3_all.deb", "../../../../../../etc/shadow")
                });
                s.fetch()
            },
        ),
        Attack::new("a package list that is none", "random text as Packages", 1, &["cannot read"], |s| {
            let noise = lab::random::Random::new(6).bytes(5000);
            with_packages(s, |_| noise.iter().map(|b| char::from(b' ' + b % 90)).collect());
            s.fetch()
        })
        .because("whose fault it is, bundle's or apt's, is not told apart; nothing was touched"),
        Attack::new(
            "a package list without its digest",
            "Packages is not the one of Release",
            2,
            &["not the one of its Release"],
            |s| {
                with_text(s, METADATA, |text| text.replace("till-new", "till-old"));
                s.fetch()
            },
        ),
    ]
}
