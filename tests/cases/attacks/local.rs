//! A user of the node without any rights: what is fetched he may read, and nothing else is his.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};

use lab::attack::{Act, Attack, HOOKS, Stage, VERSION};
use lab::node::User;

/// Places that the agent writes or believes: where there is a file, and where one could be.
const PLACES: &str = "/var/lib/prestage/x /var/lib/prestage/status.json /var/lib/prestage/reports/x.json \
    /var/lib/prestage/fetch/x /var/lib/prestage/fetch/plan.json /var/lib/prestage/fetch/metadata/timestamp.json \
    /var/lib/prestage/fetch/store/x /var/lib/prestage/fetch/staged/x /var/lib/prestage/private/journal.json \
    /run/prestage/x /run/prestage/lock /etc/prestage/agent.toml /etc/prestage/root.json \
    /etc/prestage/hooks.d/health/x /usr/bin/prestage";

/// Their folders.
const FOLDERS: &str = "/var/lib/prestage /var/lib/prestage/fetch /var/lib/prestage/reports /var/lib/prestage/private \
    /run/prestage /etc/prestage /etc/prestage/hooks.d";

/// Why the exit code is not the agent's.
const KERNEL: &str = "the kernel says so, for every place that was tried";

/// A script that tries another one with `$1` for each place, and ends with 0 if one of them let it.
pub fn try_each(places: &str, script: &str) -> String {
    format!(
        "for place in {places}; do set -- $place; if {script}; then echo \"done: $1\"; exit 0; fi; done 2>/dev/null; \
         echo denied >&2; exit 1"
    )
}

pub fn attacks() -> Vec<Attack> {
    let denied =
        |name, how, act: Act| Attack::new(name, how, 1, &["denied"], act).when_fetched().because(KERNEL);
    let refused = |name, how, says, act: Act| {
        Attack::new(name, how, 74, says, act).when_fetched().because("he has no right to it")
    };
    vec![
        denied("local: write", "where the agent reads or writes", |s| {
            s.shell(User::Nobody, &try_each(PLACES, "echo x >>$1"))
        }),
        denied("local: remove or rename", "the same, and the folders above", |s| {
            let places = format!("{PLACES} {FOLDERS}");
            s.shell(User::Nobody, &try_each(&places, "mv $1 $1.old || rm $1 || rmdir $1"))
        }),
        denied("local: plant a link", "to /etc/passwd, beside what root writes", |s| {
            let places = "/var/lib/prestage/.status.json.new /var/lib/prestage/fetch/.quarantine.json.new \
                /var/lib/prestage/reports/x /run/prestage/x";
            s.shell(User::Nobody, &try_each(places, "ln -s /etc/passwd $1"))
        }),
        denied("local: look into private/", "its list, and a file that is known to be in it", |s| {
            let private = "/var/lib/prestage/private";
            let places = format!("{private} {private}/metadata/root.json");
            s.shell(User::Nobody, &try_each(&places, "ls $1 || cat $1"))
        }),
        denied("local: hold the lock", "/run/prestage/lock, for ever", |s| {
            // To open it for reading is enough for flock(2).
            s.shell(User::Nobody, &try_each("/run/prestage/lock", "flock -n $1 true"))
        }),
        refused("local: run the fetch step", "as somebody else", &["permission denied"], |s| {
            s.agent(User::Nobody, &["fetch"])
        }),
        refused("local: run the install step", "as somebody else", &["needs root"], |s| {
            s.agent(User::Nobody, &["install", "--now"])
        }),
        refused("local: release a bundle", "as somebody else", &["needs root"], |s| {
            s.agent(User::Nobody, &["release", VERSION])
        }),
        Attack::new(
            "local: a link in everybody's folder",
            "where `verify` makes a folder of its own",
            74,
            &["prestage-verify-1", "exists"],
            |s| {
                let folder = everybodys_folder(s);
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

/// A folder as /tmp is.
fn everybodys_folder(stage: &Stage) -> std::path::PathBuf {
    let folder = stage.world.sandbox.path().join("tmp");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).expect("a mode");
    folder
}
