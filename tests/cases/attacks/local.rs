//! A user of the node without any rights: what is fetched he may read, and nothing else is his.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};

use lab::attack::{Attack, Ended, HOOKS, Stage};
use lab::node::User;

/// Every place that the agent writes or believes, where nobody else may write. The last two are of root's own folder.
const PLACES: &str = "/var/lib/prestage/evil /var/lib/prestage/status.json /var/lib/prestage/fetch/evil \
    /var/lib/prestage/fetch/plan.json /var/lib/prestage/fetch/metadata/timestamp.json /var/lib/prestage/fetch/store/evil \
    /var/lib/prestage/fetch/staged/evil /var/lib/prestage/reports/evil.json /run/prestage/evil /run/prestage/lock \
    /etc/prestage/agent.toml /etc/prestage/root.json /etc/prestage/hooks.d/health/evil /etc/evil /usr/bin/prestage \
    /var/lib/prestage/private/journal.json /var/lib/prestage/private/staged/evil";

/// Why the exit code is not the agent's.
const KERNEL: &str = "the kernel says so; every place was tried";

/// Tries `script` with `$1` for each place, and ends with 0 if one of them let it.
pub fn try_each(places: &str, script: &str) -> String {
    format!(
        "for place in {places}; do set -- $place; if {script}; then echo \"done: $1\"; exit 0; fi; done 2>/dev/null; echo denied >&2; exit 1"
    )
}

pub fn attacks() -> Vec<Attack> {
    let denied = |name, how, act: fn(&Stage) -> Ended| {
        Attack::new(name, how, 1, &["denied"], act).when_fetched().because(KERNEL)
    };
    vec![
        denied("local: write", "into every place that the agent reads or writes", |s| {
            s.shell(User::Nobody, &try_each(PLACES, "echo evil >>$1"))
        }),
        denied("local: remove or rename", "the same places, and the folders above them", |s| {
            let places = format!(
                "{PLACES} /var/lib/prestage/fetch /var/lib/prestage/reports /var/lib/prestage/private /var/lib/prestage /run/prestage {HOOKS}"
            );
            s.shell(User::Nobody, &try_each(&places, "mv $1 $1.old || rm $1 || rmdir $1"))
        }),
        denied("local: plant a link", "beside them, to what root would overwrite", |s| {
            let places = "/var/lib/prestage/.status.json.new /var/lib/prestage/fetch/.quarantine.json.new /var/lib/prestage/reports/x /run/prestage/lock.new /var/lib/prestage/private2";
            s.shell(User::Nobody, &try_each(places, "ln -s /etc/passwd $1"))
        }),
        denied("local: look into private/", "its list, and files that are known to be in it", |s| {
            let places = "/var/lib/prestage/private /var/lib/prestage/private/. /var/lib/prestage/private/metadata/root.json";
            s.shell(User::Nobody, &try_each(places, "ls $1 || cat $1"))
        }),
        denied("local: hold the lock", "/run/prestage/lock, for ever", |s| {
            // To open it for reading is enough for flock(2).
            s.shell(User::Nobody, &try_each("/run/prestage/lock", "flock -n $1 true"))
        }),
        Attack::new("local: run the fetch step", "as somebody else", 74, &["permission denied"], |s| {
            s.agent(User::Nobody, &["fetch"])
        })
        .because("no right to write the agent's state"),
        Attack::new("local: run the install step", "as somebody else", 74, &["root"], |s| {
            s.agent(User::Nobody, &["install", "--now"])
        })
        .when_fetched()
        .because("no right to install"),
        Attack::new("local: release a bundle", "as somebody else", 74, &["root"], |s| {
            s.agent(User::Nobody, &["release", lab::attack::VERSION])
        })
        .when_fetched()
        .because("no right to release"),
        Attack::new(
            "local: a link in a folder of everybody's",
            "where `verify` makes its own folder, to a folder of root's",
            74,
            &["prestage-verify-1", "exists"],
            |s| {
                let folder = s.world.sandbox.path().join("tmp");
                let _ = fs::remove_dir_all(&folder);
                fs::create_dir_all(&folder).expect("a folder");
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).expect("a mode");
                // Its name has the process id in it, which is 1 in a process namespace of its own.
                let link = folder.join("prestage-verify-1");
                symlink(s.node().path(HOOKS).join("pre-install"), &link).expect("a link");
                lchown(&link, Some(User::Nobody.id()), None).expect("an owner");
                let stick = s.stick(|_| {});
                s.alone(&["verify", &stick.to_string_lossy()], &folder)
            },
        )
        .because("he may keep `verify` from its work, and no more: the link is not followed"),
    ]
}
