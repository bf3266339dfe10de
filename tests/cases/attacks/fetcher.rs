//! The fetch step in other hands: whoever broke into it may do whatever the user `prestage` may, at any time. He has all
//! that it writes (metadata, plan, store, staged repository, status, reports) and its lock; and root comes along later.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use format::digest::Sha256;
use lab::attack::{Act, Attack, Ended, HOOKS, Stage, VERSION};
use lab::node::User;
use lab::repository::Part;
use serde_json::json;

use super::local::try_each;

const FETCH: &str = "/var/lib/prestage/fetch";

/// Where the case puts what the attacker has made elsewhere: he may read it there.
const FORGED: &str = "/run/prestage/forged";

/// What a terminal obeys: it clears the screen, and changes its title.
const TERMINAL: &str = "\\u001b[2J\\u001b]0;all is well\\u0007";

/// Why nothing comes of it, where root only does not go on.
const SERVICE: &str = "he may refuse service, and no more";

/// Why the install does not go on where the attack is on what it does beside installing.
const WINDOW: &str = "the window is closed: what root does all the same is what is attacked";

/// The same where a hook of the operator's makes the attack in the middle of the install.
const HOOK: &str = "the hook that does it, as the fetch user, ends the install";

pub fn attacks() -> Vec<Attack> {
    let groups = [
        content_attacks(),
        hand_attacks(),
        metadata_attacks(),
        word_attacks(),
        place_attacks(),
        own_attacks(),
    ];
    groups.into_iter().flatten().collect()
}

/// The file of a package's content in the store.
fn content(stage: &Stage, package: &str) -> String {
    format!("{FETCH}/store/{}", stage.centre().member(package).sha256)
}

fn index_digest(stage: &Stage) -> Sha256 {
    Sha256::of(&fs::read(stage.centre().file(Part::Index)).expect("an index"))
}

/// He does something in the agent's state; then root installs, whatever the window says.
fn altered(stage: &Stage, script: &str) -> Ended {
    stage.attacker(User::Prestage, &format!("cd /var/lib/prestage && {script}"));
    stage.install()
}

/// The same in the window's time only: root looks at everything, and writes its status and its report.
fn outside_the_window(stage: &Stage, script: &str) -> Ended {
    stage.attacker(User::Prestage, &format!("cd /var/lib/prestage && {script}"));
    stage.agent(User::Root, &["install"])
}

/// He does something to the content of a package, as `$f`; then root installs.
fn swapped(stage: &Stage, script: &str) -> Ended {
    altered(stage, &format!("f={}; {script}", content(stage, "till-data")))
}

/// He does something to the index, as `$f`; then root installs.
fn index_swapped(stage: &Stage, script: &str) -> Ended {
    altered(stage, &format!("f={FETCH}/store/{}; {script}", index_digest(stage)))
}

/// A window that is open for a minute, three days from now.
fn closed(stage: &Stage) {
    let day = lab::sandbox::succeed(lab::sandbox::command("date").args(["-u", "-d", "+3 days", "+%a"]));
    stage.configure(&format!("[schedule]\nmaintenance-window = [\"{} 03:00-03:01\"]\n", day.trim()));
}

/// For how long an install waits for a fetch to make way hangs on this.
fn impatient(stage: &Stage) {
    stage.configure("[fetch]\nstall-timeout-seconds = 1\n");
}

/// A hook of the operator's, which shows what he can do while the install is at work: as the fetch user it runs `script`,
/// and the install goes no further.
fn hook(stage: &Stage, script: &str) {
    let id = User::Prestage.id();
    let path = format!("{HOOKS}/pre-install/attack");
    let user = format!("setpriv --reuid={id} --regid={id} --clear-groups sh -c");
    stage.node().write(&path, format!("#!/bin/sh\n{user} '{script}' >&2\nexit 1\n"));
    fs::set_permissions(stage.node().path(&path), fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// The centre has a policy for this node, and the fetch step has it.
fn with_a_policy(stage: &Stage) {
    let policy = json!({
        "apiVersion": "patchmgmt.io/v1",
        "kind": "PatchPolicy",
        "metadata": { "name": "tills", "namespace": "operations" },
        "spec": {
            "bundleRef": { "version": VERSION },
            "targets": { "selector": { "matchLabels": { "role": "till" } } },
        },
    });
    stage.forge().policy(&["policies", "policies-2"], &policy);
    stage.fetch();
}

/// What is in root's own files must not come out.
fn shows_no_secret(stage: &Stage, ended: Ended) -> Ended {
    let said = format!("{}{}", ended.all(), stage.node().read("/var/lib/prestage/status.json"));
    if said.contains("root:") {
        stage.fault("what is in /etc/shadow was shown");
    }
    ended
}

/// What root prints must be text.
fn obeys_no_terminal(stage: &Stage, ended: Ended) -> Ended {
    if ended.all().chars().any(|c| c.is_control() && c != '\n') {
        stage.fault(format!("control characters were printed: {:?}", ended.all()));
    }
    ended
}

/// What root installs from.
fn content_attacks() -> Vec<Attack> {
    let data = |name, how, act: Act| Attack::new(name, how, 2, &["till-data"], act).when_fetched();
    let index = |name, how, act: Act| Attack::new(name, how, 2, &["index"], act).when_fetched();
    vec![
        data("TOCTOU: another package", "swapped after it was staged", |s| {
            swapped(s, "head -c $(stat -c %s $f) /dev/urandom >$f.new && mv $f.new $f")
        }),
        data("TOCTOU: one byte", "in the file that the staged repository has a link to", |s| {
            swapped(s, "printf x | dd of=$f bs=1 seek=1000000 conv=notrunc 2>/dev/null")
        }),
        data("TOCTOU: a link to a secret", "the package is a link to /etc/shadow", |s| {
            let ended = swapped(s, "ln -sf /etc/shadow $f");
            shows_no_secret(s, ended)
        }),
        data("TOCTOU: a FIFO", "the package is a pipe at whose other end nobody is", |s| {
            swapped(s, "rm $f && mkfifo $f")
        }),
        data("TOCTOU: a folder", "the package is a folder with a file in it", |s| {
            swapped(s, "rm $f && mkdir $f && echo x >$f/x")
        }),
        data("TOCTOU: a file that grows", "the package and 1 TiB of zeros behind it", |s| {
            swapped(s, "truncate -s 1T $f")
        }),
        data("TOCTOU: a shorter file", "a third of the package", |s| swapped(s, "truncate -s 1M $f")),
        data("TOCTOU: a hole", "the second block is zeros", |s| {
            swapped(s, "dd if=/dev/zero of=$f bs=1M seek=1 count=1 conv=notrunc 2>/dev/null")
        }),
        data("TOCTOU: during the copy", "the end, when root has read the beginning", |s| {
            s.installing_when_read(&content(s, "till-data"), 256 * 1024, |path| {
                let package = fs::File::options().write(true).open(path).expect("the package");
                package.write_all_at(&[0; 4096], 2_000_000).expect("room for it");
            })
        }),
        Attack::new("TOCTOU: a lease", "which root's open(2) must wait for", 1, &["unavailable"], |s| {
            // F_SETLEASE is 1024 (fcntl(2)); he is told by SIGIO that somebody waits, and does not care.
            let script = format!(
                "use Fcntl; open my $h, '+<', '{}' or die; fcntl($h, 1024, F_WRLCK) or die; \
                 $SIG{{IO}} = 'IGNORE'; $| = 1; print \"held\\n\"; sleep 60 while 1",
                content(s, "till-data")
            );
            let _holder = s.holding("/usr/bin/perl", &script);
            s.install()
        })
        .when_fetched()
        .because(SERVICE),
        index("TOCTOU: another index", "one of his own", |s| {
            index_swapped(s, "sed -i s/till-new/till-old/ $f")
        }),
        index("TOCTOU: the index is a link", "to root's own journal", |s| {
            index_swapped(s, "ln -sf /var/lib/prestage/private/journal.json $f")
        }),
        index("TOCTOU: an endless index", "1 TiB of it", |s| index_swapped(s, "truncate -s 1T $f")),
        Attack::new("TOCTOU: root's own copy", "written while the install is at work", 1, &["denied"], |s| {
            s.install()
        })
        .when_fetched()
        .arranged(|s| {
            let own = "/var/lib/prestage/private";
            hook(
                s,
                &try_each(&format!("{own}/staged/Packages {own}/journal.json {own}/evil"), "echo x >>$1"),
            );
        })
        .because(HOOK),
        Attack::new(
            "wrong node: another variant's files",
            "all that a node of another variant has staged, signed",
            3,
            &["it is for the variant ubuntu-24.04-arm64"],
            |s| s.install(),
        )
        .arranged(|s| {
            s.forge().index(|index| index["variant"] = "ubuntu-24.04-arm64".into());
            // The fetch step refuses it; he puts it where an install looks, and says that nothing is wrong.
            s.fetch();
            let staged = format!("staged/{}", index_digest(s));
            s.attacker(
                User::Prestage,
                &format!("cd {FETCH} && mkdir -p {staged} && echo [] >quarantine.json"),
            );
        }),
    ]
}

/// What root writes where it does the fetch step's work by hand.
fn hand_attacks() -> Vec<Attack> {
    let link = |s: &Stage| {
        let partial = format!("{}.partial", content(s, "till-data"));
        s.attacker(
            User::Prestage,
            &format!("mkdir -p {FETCH}/store && ln -s /etc/prestage/root.json {partial}"),
        );
    };
    let by_hand = |name, act: Act| {
        Attack::new(name, "a link to where trust begins, in place of a partial file", 74, &["denied"], act)
            .arranged(link)
            .because("the kernel says no to whoever does the fetch user's work, as it does to the fetch user")
    };
    vec![
        by_hand("root's hand: fetch", |s| s.agent(User::Root, &["fetch", "--now"])),
        by_hand("root's hand: import", |s| {
            let (stick, there) = (s.stick(|_| {}), s.node().path("/root/stick"));
            lab::sandbox::succeed(lab::sandbox::command("cp").arg("-r").args([&stick, &there]));
            let ended = s.agent(User::Root, &["import", "/root/stick"]);
            fs::remove_dir_all(there).expect("a stick");
            ended
        }),
    ]
}

/// What root believes only if it is signed.
fn metadata_attacks() -> Vec<Attack> {
    let kept = |name, how, code, says, act: Act| Attack::new(name, how, code, says, act).when_fetched();
    vec![
        kept(
            "kept metadata: random",
            "random bytes as the timestamp",
            3,
            &["timestamp.json", "malformed"],
            |s| altered(s, "head -c 5000 /dev/urandom >fetch/metadata/timestamp.json"),
        ),
        kept("kept metadata: a root of his own", "2.root.json", 3, &["root.json", "signatures"], |s| {
            s.centre().make_key("thief");
            s.forge().next("root", &["thief"], |_| {});
            let root = fs::read(s.repository("metadata/2.root.json")).expect("a root");
            s.node().write(FORGED, root);
            let roots = "fetch/metadata/roots";
            altered(s, &format!("mkdir -p {roots} && cat {FORGED} >{roots}/2.root.json"))
        }),
        kept("kept metadata: endless", "1 TiB of bundles.json", 2, &["bundles.json", "larger than"], |s| {
            altered(s, "truncate -s 1T fetch/metadata/bundles.json")
        }),
        kept("kept metadata: a FIFO", "the timestamp is a pipe", 1, &[], |s| {
            altered(s, "rm fetch/metadata/timestamp.json && mkfifo fetch/metadata/timestamp.json")
        })
        .because(SERVICE),
        kept("kept metadata: a link to a secret", "the timestamp is a link to /etc/shadow", 1, &[], |s| {
            let ended = altered(s, "ln -sf /etc/shadow fetch/metadata/timestamp.json");
            shows_no_secret(s, ended)
        })
        .because(SERVICE),
        kept("a policy of his own", "in place of the signed one", 2, &["policy.json", "altered"], |s| {
            altered(s, "for policy in fetch/policies/*; do echo {} >$policy; done")
        })
        .arranged(with_a_policy),
        kept("a policy that is a link", "to root's own trust", 2, &["policy.json", "altered"], |s| {
            altered(s, "for policy in fetch/policies/*; do ln -sf /etc/prestage/root.json $policy; done")
        })
        .arranged(with_a_policy),
    ]
}

/// What nobody signs, and root reads all the same.
fn word_attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "a plan of his own",
            "nothing is staged, nor needed, it says",
            1,
            &["is not staged"],
            |s| {
                let empty = r#"s/"(packages|changes)":\[[^]]*\]/"\1":[]/g"#;
                altered(s, &format!("rm -r fetch/staged && sed -i -E '{empty}' fetch/plan.json"))
            },
        )
        .when_fetched()
        .because(SERVICE),
        Attack::new("a quarantine of his own", "with a terminal's commands in it", 2, &["refused"], |s| {
            let bundle =
                json!({ "version": VERSION, "cycle": "2026-11", "serial": 2, "index": index_digest(s) });
            let entry = json!([{
                "bundle": bundle,
                "step": "fetch",
                "since": "2026-11-23T00:00:00Z",
                "exitCode": 2,
                "reason": "REASON",
                "ends": "verified",
                "wayOut": "",
            }]);
            let reason = format!("{TERMINAL}\\nerror: none");
            s.node().write(FORGED, entry.to_string().replace("REASON", &reason));
            let ended = altered(s, &format!("cat {FORGED} >fetch/quarantine.json"));
            obeys_no_terminal(s, ended)
        })
        .when_fetched(),
        Attack::new("a status of his own", "with a terminal's commands in it, shown to root", 0, &[], |s| {
            let status = s.node().read("/var/lib/prestage/status.json");
            let summary = "\"summary\": \"";
            assert!(status.contains(summary), "the status has a summary: {status}");
            s.node().write(FORGED, status.replacen(summary, &format!("{summary}{TERMINAL}"), 1));
            s.attacker(User::Prestage, &format!("cat {FORGED} >/var/lib/prestage/status.json"));
            let ended = s.agent(User::Root, &["status"]);
            obeys_no_terminal(s, ended)
        })
        .when_fetched()
        .because("he may lie in the status; a terminal does not obey him"),
    ]
}

/// Where root writes in folders of his: what he puts there is followed nowhere.
fn place_attacks() -> Vec<Attack> {
    let quiet = |name, how, act: Act| {
        Attack::new(name, how, 1, &["window"], act).when_fetched().arranged(closed).because(WINDOW)
    };
    let refused = |name, how, act: Act| Attack::new(name, how, 3, &["is not a folder"], act).when_fetched();
    let meanwhile =
        |name, how| Attack::new(name, how, 1, &["hook"], |s| s.install()).when_fetched().because(HOOK);
    let deferred =
        |name, how, says, act: Act| Attack::new(name, how, 1, says, act).when_fetched().because(SERVICE);
    vec![
        refused(
            "reports/ is a link",
            "to root's hooks: root writes a file there, and gives it to him",
            |s| outside_the_window(s, "mv reports old && ln -s /etc/prestage/hooks.d/pre-install reports"),
        ),
        refused("fetch/ is a link", "to root's hooks: root makes folders there", |s| {
            outside_the_window(s, "mv fetch old && ln -s /etc/prestage/hooks.d/pre-install fetch")
        }),
        refused("reports/ is a file", "where root makes a folder", |s| {
            outside_the_window(s, "mv reports old && echo x >reports")
        }),
        meanwhile("reports/ becomes a link", "after root has looked at it, before it writes its report")
            .arranged(|s| {
                hook(
                    s,
                    "cd /var/lib/prestage && mv reports old && ln -s /etc/prestage/hooks.d/health reports",
                )
            }),
        meanwhile("fetch/ becomes a link", "after root has looked at it, before it writes its status")
            .arranged(|s| {
                hook(s, "cd /var/lib/prestage && mv fetch old && ln -s /etc/prestage/hooks.d/health fetch")
            }),
        deferred("store/ is a link", "to a folder of root's", &["not here any more"], |s| {
            altered(s, "mv fetch/store old && ln -s /etc/prestage fetch/store")
        }),
        deferred("metadata/ is a link", "to a folder of root's", &[], |s| {
            altered(s, "mv fetch/metadata old && ln -s /etc/prestage fetch/metadata")
        }),
        quiet("status.json is a link", "to /etc/shadow, which root reads and overwrites", |s| {
            let ended = outside_the_window(s, "ln -sf /etc/shadow status.json");
            shows_no_secret(s, ended)
        }),
        quiet("status.json is a folder", "which root cannot overwrite", |s| {
            outside_the_window(s, "rm status.json && mkdir status.json && echo x >status.json/x")
        }),
        quiet("status.json is a FIFO", "which root waits for", |s| {
            outside_the_window(s, "rm status.json && mkfifo status.json")
        }),
        quiet("the file aside is a link", "to /etc/passwd, which root writes through", |s| {
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
    ]
}

/// What is root's own.
fn own_attacks() -> Vec<Attack> {
    let denied = |name, how, act: Act| {
        Attack::new(name, how, 1, &["denied"], act).when_fetched().because("the kernel says so")
    };
    let refused = |name, how, act: Act| Attack::new(name, how, 3, &["root's alone"], act).when_fetched();
    vec![
        denied("private/: remove or rename", "and put a folder of his own there", |s| {
            let places = "/var/lib/prestage/private /var/lib/prestage";
            s.shell(User::Prestage, &try_each(places, "mv $1 $1.old || rmdir $1"))
        }),
        denied("private/: write or read", "into it and from it", |s| {
            let places = "/var/lib/prestage/private/evil /var/lib/prestage/private/journal.json";
            s.shell(User::Prestage, &try_each(places, "echo x >$1 || cat $1"))
        }),
        refused("private/ is his own", "made before root was ever there", |s| {
            s.attacker(User::Root, "rm -r /var/lib/prestage/private");
            altered(s, "mkdir -m 700 private")
        }),
        refused("private/ is a link", "to a folder of root's", |s| {
            s.attacker(User::Root, "rm -r /var/lib/prestage/private");
            altered(s, "ln -s /etc/prestage private")
        }),
        denied("hooks and configuration", "of root's, and a drop-in in /run/prestage/agent.d", |s| {
            let places = "/etc/prestage/agent.toml /etc/prestage/agent.d/x.toml /etc/prestage/hooks.d/health/x \
                /etc/prestage/templates/sources.list.j2 /usr/lib/prestage/agent.d/x.toml \
                /run/prestage/agent.d/x.toml";
            s.shell(User::Prestage, &try_each(places, "mkdir -p $(dirname $1) && echo [install] >>$1"))
        }),
        denied("the lock: replaced", "by a FIFO, which root waits for", |s| {
            s.shell(User::Prestage, &try_each("/run/prestage/lock", "rm -f $1 && mkfifo $1"))
        }),
        Attack::new("the lock: held", "for ever", 1, &["another prestage is at work"], |s| {
            let script = "exec 9>>/run/prestage/lock && flock 9 && echo held && exec sleep 60";
            let _holder = s.holding("/bin/sh", script);
            s.install()
        })
        .when_fetched()
        .arranged(impatient)
        .because(SERVICE),
        Attack::new("the sign that an install waits: held", "for ever", 1, &["another prestage is at work"], |s| {
            let script = "exec 8</run/prestage/install-waits && flock 8 && exec 9>>/run/prestage/lock && flock 9 \
                && echo held && exec sleep 60";
            let _holder = s.holding("/bin/sh", script);
            s.install()
        })
        .when_fetched()
        .arranged(|s| {
            impatient(s);
            s.shell(User::Root, "touch /run/prestage/install-waits && chmod 644 /run/prestage/install-waits");
        })
        .because(SERVICE),
    ]
}
