//! The fetch step in other hands: whoever broke into it may do whatever the user `prestage` may, at any time. He has all
//! that it writes (metadata, plan, store, staged repository, status, reports) and its lock; root comes along later.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use format::digest::Sha256;
use lab::attack::{Attack, Ended, HOOKS, Stage};
use lab::node::User;
use lab::repository::Part;

use super::local::try_each;

const FETCH: &str = "/var/lib/prestage/fetch";

/// Why nothing comes of it, where root only does not go on.
const SERVICE: &str = "he may refuse service, and no more";

/// Why the install does not go on where the attack is on what it does beside installing.
const WINDOW: &str = "the window is closed: what root does all the same is what is attacked";

/// The file of a package's content in the store.
fn content(stage: &Stage, package: &str) -> String {
    format!("{FETCH}/store/{}", stage.centre().member(package).sha256)
}

/// The index's.
fn index_file(stage: &Stage) -> String {
    format!("{FETCH}/store/{}", index_digest(stage))
}

fn index_digest(stage: &Stage) -> Sha256 {
    Sha256::of(&fs::read(stage.centre().file(Part::Index)).expect("an index"))
}

/// He does something to the content of a package, as `$f`; then root installs.
fn swapped(stage: &Stage, script: &str) -> Ended {
    stage.attacker(User::Prestage, &format!("f={}; {script}", content(stage, "till-data")));
    stage.install()
}

/// He does something in the agent's state; then root installs.
fn altered(stage: &Stage, script: &str) -> Ended {
    stage.attacker(User::Prestage, &format!("cd /var/lib/prestage && {script}"));
    stage.install()
}

/// The same outside the maintenance window: root looks at everything, and writes its status and its report.
fn outside_the_window(stage: &Stage, script: &str) -> Ended {
    stage.attacker(User::Prestage, &format!("cd /var/lib/prestage && {script}"));
    stage.agent(User::Root, &["install"])
}

/// A window that is open for a minute, three days from now.
fn closed(stage: &Stage) {
    let day = lab::sandbox::succeed(lab::sandbox::command("date").args(["-u", "-d", "+3 days", "+%a"]));
    let window = format!("maintenance-window = [\"{} 03:00-03:01\"]", day.trim());
    stage.configure(&format!("[schedule]\n{window}\n"));
}

/// A hook of the operator's, which shows what he can do while the install is at work: as the fetch user, it runs `script`,
/// and the install goes no further.
fn hook(stage: &Stage, script: &str) {
    let id = User::Prestage.id();
    let path = format!("{HOOKS}/pre-install/attack");
    let user = format!("setpriv --reuid={id} --regid={id} --clear-groups sh -c");
    stage.node().write(&path, format!("#!/bin/sh\n{user} '{script}' >&2\nexit 1\n"));
    fs::set_permissions(stage.node().path(&path), fs::Permissions::from_mode(0o755)).expect("a mode");
}

pub fn attacks() -> Vec<Attack> {
    let mut attacks = content_attacks();
    attacks.extend(metadata_attacks());
    attacks.extend(place_attacks());
    attacks
}

/// What root installs from.
fn content_attacks() -> Vec<Attack> {
    let data =
        |name, how, act: fn(&Stage) -> Ended| Attack::new(name, how, 2, &["till-data"], act).when_fetched();
    vec![
        data("TOCTOU: another package", "swapped after it was staged", |s| {
            swapped(s, "head -c $(stat -c %s $f) /dev/urandom >$f.new && mv $f.new $f")
        }),
        data("TOCTOU: one byte", "written into the verified file, whose links are the staged repository", |s| {
            swapped(s, "printf x | dd of=$f bs=1 seek=1000000 conv=notrunc 2>/dev/null")
        }),
        data("TOCTOU: a link to a secret", "the package is a link to /etc/shadow", |s| {
            let ended = swapped(s, "ln -sf /etc/shadow $f");
            if ended.all().contains("root:") {
                s.fault("what is in /etc/shadow was shown");
            }
            ended
        }),
        data("TOCTOU: a FIFO", "the package is a pipe at whose other end nobody is", |s| swapped(s, "rm $f && mkfifo $f")),
        data("TOCTOU: a folder", "the package is a folder with a file in it", |s| {
            swapped(s, "rm $f && mkdir $f && echo x >$f/x")
        }),
        data("TOCTOU: a file that grows", "the package and 1 TiB of zeros behind it", |s| swapped(s, "truncate -s 1T $f")),
        data("TOCTOU: a shorter file", "half of the package", |s| swapped(s, "truncate -s 1M $f")),
        data("TOCTOU: a hole", "the second block is zeros", |s| swapped(s, "fallocate -p -o 1048576 -l 1048576 $f || dd if=/dev/zero of=$f bs=1M seek=1 count=1 conv=notrunc")),
        data("TOCTOU: during the copy", "the second half, when root has read the first", |s| {
            let file = content(s, "till-data");
            s.installing_when_read(&file, 256 * 1024, |path| {
                use std::os::unix::fs::FileExt as _;
                let package = fs::File::options().write(true).open(path).expect("the package");
                package.write_all_at(&[0; 4096], 2_000_000).expect("room for it");
            })
        }),
        Attack::new("TOCTOU: a lease", "a lease on the package, which root's open must wait for", 1, &["unavailable"], |s| {
            // F_SETLEASE is 1024 (fcntl(2)); he is told by SIGIO that somebody waits, and does not care.
            let lease = format!(
                "use Fcntl; open my $h, '+<', '{}' or die; fcntl($h, 1024, F_WRLCK) or die; $SIG{{IO}} = 'IGNORE'; $| = 1; \
                 print \"held\\n\"; sleep 60 while 1",
                content(s, "till-data")
            );
            let holder = s.holding("/usr/bin/perl", &lease);
            let ended = s.install();
            drop(holder);
            ended
        })
        .when_fetched()
        .because(SERVICE),
        Attack::new("TOCTOU: another index", "the index is one of his own", 2, &["index"], |s| {
            let file = index_file(s);
            s.attacker(User::Prestage, &format!("sed -i s/till-new/till-old/ {file}"));
            s.install()
        })
        .when_fetched(),
        Attack::new("TOCTOU: the index is a link", "to root's own journal", 2, &["index"], |s| {
            let file = index_file(s);
            s.attacker(User::Prestage, &format!("ln -sf /var/lib/prestage/private/journal.json {file}"));
            s.install()
        })
        .when_fetched(),
        Attack::new("TOCTOU: an endless index", "1 TiB of it", 2, &["index"], |s| {
            let file = index_file(s);
            s.attacker(User::Prestage, &format!("truncate -s 1T {file}"));
            s.install()
        })
        .when_fetched(),
        Attack::new("TOCTOU: root's own copy", "written while the install is at work", 1, &["denied"], |s| s.install())
            .when_fetched()
            .arranged(|s| {
                let places = "/var/lib/prestage/private/staged/Packages /var/lib/prestage/private/journal.json /var/lib/prestage/private/evil";
                hook(s, &try_each(places, "echo evil >>$1"));
            })
            .because("the hook that tries it as the fetch user ends the install"),
        Attack::new("wrong node: another variant's files", "all that a node of another variant has staged, signed", 3, &["variant"], |s| s.install())
            .arranged(|s| {
                s.forge().index(|index| index["variant"] = "ubuntu-24.04-arm64".into());
                // The fetch step refuses it; he puts it where an install looks, and says that nothing is wrong.
                s.fetch();
                let digest = index_digest(s);
                s.attacker(User::Prestage, &format!("cd {FETCH} && mkdir -p staged/{digest} && echo [] >quarantine.json"));
            }),
    ]
}

/// What root believes, and does not.
fn metadata_attacks() -> Vec<Attack> {
    let metadata = |name, how, code, says, act: fn(&Stage) -> Ended| {
        Attack::new(name, how, code, says, act).when_fetched()
    };
    vec![
        metadata("kept metadata: random", "random bytes as the kept timestamp", 3, &["timestamp.json", "malformed"], |s| {
            altered(s, "head -c 5000 /dev/urandom >fetch/metadata/timestamp.json")
        }),
        metadata("kept metadata: a root of his own", "2.root.json with his keys", 3, &["root.json", "signatures"], |s| {
            s.centre().make_key("thief");
            s.forge().next("root", &["thief"], |_| {});
            let root = fs::read(s.repository("metadata/2.root.json")).expect("a root");
            s.node().write("/run/prestage/forged", root);
            altered(s, "mkdir -p fetch/metadata/roots && cat /run/prestage/forged >fetch/metadata/roots/2.root.json")
        }),
        metadata("kept metadata: endless", "1 TiB of bundles.json", 2, &["bundles.json", "larger than"], |s| {
            altered(s, "truncate -s 1T fetch/metadata/bundles.json")
        }),
        metadata("kept metadata: a FIFO", "the timestamp is a pipe", 1, &[], |s| {
            altered(s, "rm fetch/metadata/timestamp.json && mkfifo fetch/metadata/timestamp.json")
        })
        .because(SERVICE),
        metadata("kept metadata: a link to a secret", "the timestamp is a link to /etc/shadow", 1, &[], |s| {
            altered(s, "ln -sf /etc/shadow fetch/metadata/timestamp.json")
        })
        .because(SERVICE),
        metadata("a plan of his own", "nothing is staged, and the plan says that nothing is needed", 0, &[], |s| {
            let empty = "sed -i -E \"s/\\\"(packages|changes)\\\":\\[[^]]*\\]/\\\"\\1\\\":[]/g\" fetch/plan.json";
            altered(s, &format!("rm -r fetch/staged && {empty}"))
        })
        .because("he may refuse service and lie; nothing is installed"),
        metadata("a quarantine of his own", "every bundle is refused, for a reason with a terminal's commands in it", 2, &["refused"], |s| {
            let index = index_digest(s);
            let version = lab::attack::VERSION;
            let entry = format!(
                "[{{\"bundle\":{{\"version\":\"{version}\",\"cycle\":\"2026-11\",\"serial\":2,\"index\":\"{index}\"}},\"step\":\"fetch\",\
                 \"since\":\"2026-11-23T00:00:00Z\",\"exitCode\":2,\"reason\":\"\\u001b[2J\\u001b]0;all is well\\u0007\\nerror: none\",\
                 \"ends\":\"verified\",\"wayOut\":\"\"}}]");
            s.node().write("/run/prestage/forged", entry);
            let ended = altered(s, "cat /run/prestage/forged >fetch/quarantine.json");
            without_control_characters(s, ended)
        }),
        metadata("a status of his own", "a status with a terminal's commands in it, shown to root", 0, &[], |s| {
            s.attacker(User::Prestage, "cd /var/lib/prestage && sed -i -E 's/(\"summary\": \")/\\1\\\\u001b[2J\\\\u001b]0;all is well\\\\u0007/' status.json && grep -q u001b status.json");
            let ended = s.agent(User::Root, &["status"]);
            without_control_characters(s, ended)
        })
        .because("he may lie in the status; a terminal does not obey him"),
    ]
}

/// What root prints must be text.
fn without_control_characters(stage: &Stage, ended: Ended) -> Ended {
    if ended.all().chars().any(|c| c.is_control() && c != '\n') {
        stage.fault(format!("control characters were printed: {:?}", ended.all()));
    }
    ended
}

/// Where root writes.
fn place_attacks() -> Vec<Attack> {
    let quiet = |name, how, act: fn(&Stage) -> Ended| {
        Attack::new(name, how, 1, &["window"], act).when_fetched().arranged(closed).because(WINDOW)
    };
    let refused = |name, how, act: fn(&Stage) -> Ended| {
        Attack::new(name, how, 3, &["not a folder"], act).when_fetched()
    };
    let denied = |name, how, act: fn(&Stage) -> Ended| {
        Attack::new(name, how, 1, &["denied"], act).when_fetched().because("the kernel says so")
    };
    vec![
        refused(
            "reports/ is a link to root's hooks",
            "root would write a file there, and give it to him: he makes it a hook",
            |s| outside_the_window(s, "mv reports old && ln -s /etc/prestage/hooks.d/pre-install reports"),
        ),
        refused("fetch/ is a link to root's hooks", "root would make folders there", |s| {
            outside_the_window(s, "mv fetch old && ln -s /etc/prestage/hooks.d/pre-install fetch")
        }),
        refused("reports/ is a file", "where root makes a folder", |s| {
            outside_the_window(s, "mv reports old && echo x >reports")
        }),
        Attack::new(
            "reports/ becomes a link during the install",
            "after root has looked at it, before it writes the report",
            1,
            &["hook"],
            |s| s.install(),
        )
        .when_fetched()
        .arranged(|s| {
            hook(s, "cd /var/lib/prestage && mv reports old && ln -s /etc/prestage/hooks.d/health reports")
        })
        .because("the hook that does it as the fetch user ends the install"),
        Attack::new(
            "fetch/ becomes a link during the install",
            "after root has looked at it",
            1,
            &["hook"],
            |s| s.install(),
        )
        .when_fetched()
        .arranged(|s| {
            hook(s, "cd /var/lib/prestage && mv fetch old && ln -s /etc/prestage/hooks.d/health fetch")
        })
        .because("the hook that does it as the fetch user ends the install"),
        Attack::new("store/ is a link", "to a folder of root's", 1, &["not here any more"], |s| {
            altered(s, "mv fetch/store old && ln -s /etc/prestage fetch/store")
        })
        .when_fetched()
        .because(SERVICE),
        Attack::new("metadata/ is a link", "to a folder of root's", 1, &[], |s| {
            altered(s, "mv fetch/metadata old && ln -s /etc/prestage fetch/metadata")
        })
        .when_fetched()
        .because(SERVICE),
        quiet("status.json is a link", "to /etc/shadow, which root would read and overwrite", |s| {
            let ended = outside_the_window(s, "ln -sf /etc/shadow status.json");
            let said = format!("{}{}", ended.all(), s.node().read("/var/lib/prestage/status.json"));
            if said.contains("root:") {
                s.fault("what is in /etc/shadow was shown");
            }
            ended
        }),
        quiet("status.json is a folder", "that root cannot overwrite", |s| {
            outside_the_window(s, "rm status.json && mkdir status.json && echo x >status.json/x")
        }),
        quiet("status.json is a FIFO", "that root would wait for", |s| {
            outside_the_window(s, "rm status.json && mkfifo status.json")
        }),
        quiet("the file aside is a link", "to /etc/passwd, which root would write through", |s| {
            outside_the_window(
                s,
                "ln -s /etc/passwd .status.json.new && ln -s /etc/passwd .prestage.prom.new",
            )
        }),
        quiet("the file aside is a folder", "where root writes before it renames", |s| {
            outside_the_window(s, "mkdir .status.json.new && echo x >.status.json.new/x")
        }),
        quiet("a report of number 2^63-1", "after which there is no number", |s| {
            outside_the_window(s, "echo x >reports/9223372036854775807-x.json")
        }),
        quiet("600 reports", "of which root removes what is too much: all of them folders", |s| {
            outside_the_window(s, "cd reports && seq -f %.0f-x.json 600 | xargs mkdir")
        }),
        denied("private/: remove or rename", "and put a folder of his own there", |s| {
            s.shell(
                User::Prestage,
                &try_each("/var/lib/prestage/private /var/lib/prestage", "mv $1 $1.old || rmdir $1"),
            )
        }),
        denied("private/: write or read", "into it and from it", |s| {
            s.shell(
                User::Prestage,
                &try_each(
                    "/var/lib/prestage/private/evil /var/lib/prestage/private/journal.json",
                    "echo x >$1 || cat $1",
                ),
            )
        }),
        Attack::new(
            "private/ is his own",
            "made before root was ever there",
            3,
            &["not a folder of root's alone"],
            |s| {
                s.attacker(User::Root, "rm -r /var/lib/prestage/private");
                altered(s, "mkdir -m 700 private")
            },
        )
        .when_fetched(),
        Attack::new(
            "private/ is a link",
            "to a folder of root's",
            3,
            &["not a folder of root's alone"],
            |s| {
                s.attacker(User::Root, "rm -r /var/lib/prestage/private");
                altered(s, "ln -s /etc/prestage private")
            },
        )
        .when_fetched(),
        denied("hooks and configuration", "of root's, and a drop-in in /run/prestage/agent.d", |s| {
            let places = "/etc/prestage/agent.toml /etc/prestage/agent.d/evil.toml /etc/prestage/hooks.d/health/evil /etc/prestage/templates/sources.list.j2 \
                /usr/lib/prestage/agent.d/evil.toml /run/prestage/agent.d/evil.toml";
            s.shell(User::Prestage, &try_each(places, "mkdir -p $(dirname $1) && echo [install] >>$1"))
        }),
        denied("the lock: replaced", "by a FIFO, which root would wait for", |s| {
            s.shell(User::Prestage, &try_each("/run/prestage/lock", "rm -f $1 && mkfifo $1"))
        }),
        Attack::new("the lock: held", "for ever", 1, &["another prestage is at work"], |s| {
            let holder =
                s.holding("/bin/sh", "exec 9>>/run/prestage/lock && flock 9 && echo held && exec sleep 60");
            let ended = s.install();
            drop(holder);
            ended
        })
        .when_fetched()
        .because(SERVICE),
    ]
}
