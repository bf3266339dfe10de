//! The packages as an administrator meets them: real dpkg, real rpm, real systemd. `make test-packages` makes them, a
//! second time as a rebuild to upgrade to, and runs these.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use format::digest::Sha256;
use lab::container::Booted;
use lab::debs::Deb;
use lab::node::Node;
use lab::repository::{Archive, Centre, Part};
use lab::rpms::Rpm;
use lab::sandbox::{Sandbox, run, succeed};

const TIMERS: [&str; 3] = ["prestage-fetch.timer", "prestage-install.timer", "prestage-report.timer"];

/// Which of the two builds.
#[derive(Clone, Copy)]
enum Build {
    First,
    Rebuild,
}

/// A package that `make test-packages` has made.
fn package(build: Build, beginning: &str, extension: &str) -> PathBuf {
    let variable = match build {
        Build::First => "PRESTAGE_PACKAGES",
        Build::Rebuild => "PRESTAGE_PACKAGES_REBUILT",
    };
    let folder = std::env::var(variable).expect("run make test-packages, which says where the packages are");
    let entries = fs::read_dir(&folder).expect("the folder of packages").flatten().map(|e| e.path());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(beginning) && name.ends_with(extension)
    };
    entries.into_iter().find(is_it).unwrap_or_else(|| panic!("no {beginning}*{extension} in {folder}"))
}

fn deb(build: Build) -> PathBuf {
    package(build, "prestage_", ".deb")
}

/// Puts a package where the node sees it; that path.
fn give(node: &Node, package: &Path) -> String {
    let inside = format!("/var/cache/{}", package.file_name().unwrap_or_default().to_string_lossy());
    node.write(&inside, fs::read(package).expect("a package"));
    inside
}

fn dpkg(node: &Node, args: &[&str]) {
    succeed(node.chroot("dpkg").args(args));
}

fn is_enabled(node: &Node, unit: &str) -> bool {
    let folders = ["timers.target.wants", "sockets.target.wants", "paths.target.wants"];
    folders
        .iter()
        .any(|f| fs::symlink_metadata(node.path(&format!("/etc/systemd/system/{f}/{unit}"))).is_ok())
}

/// What holds for a node on which the package was just installed, whatever installed it.
fn assert_fresh(node: &Node) {
    run(node.chroot("prestage").arg("run")).expect(0).says(&["doctor"]);
    run(node.chroot("prestage").arg("doctor")).expect(0).says(&["mirrors", "root.json", "enroll"]);
    run(node.chroot("prestage").args(["config", "check"])).expect(0).says(&["/etc/prestage/agent.toml"]);
    for timer in TIMERS {
        assert!(is_enabled(node, timer), "{timer} is on, by preset");
    }
    assert!(!is_enabled(node, "prestage-share.socket") && !is_enabled(node, "prestage-incoming.path"));
    let user: Vec<String> =
        node.read("/etc/passwd").lines().filter(|l| l.starts_with("prestage:")).map(str::to_owned).collect();
    let [user] = &user[..] else { panic!("one user prestage: {user:?}") };
    assert!(user.ends_with("nologin"), "{user}");
    let id: u32 = user.split(':').nth(2).and_then(|id| id.parse().ok()).expect("a user id");
    let owner =
        |path: &str| fs::metadata(node.path(path)).map(|m| (m.uid(), m.mode() & 0o7777)).expect("a folder");
    assert_eq!(owner("/var/lib/prestage"), (0, 0o1775));
    assert_eq!(owner("/var/lib/prestage/fetch"), (id, 0o755));
    assert_eq!(owner("/var/lib/prestage/private"), (0, 0o700));
    // Static: nothing of the node is needed to start it.
    run(lab::sandbox::command("readelf").arg("--dynamic").arg(node.path("/usr/bin/prestage")))
        .says(&["There is no dynamic section"]);
}

/// What an administrator has done to it since.
fn live_with(node: &Node) {
    let shipped = node.read("/etc/prestage/agent.toml");
    let lived = shipped.replacen("[repository]", "[repository]\nmirrors = [\"/srv/repository\"]", 1);
    assert_ne!(lived, shipped);
    node.write("/etc/prestage/agent.toml", lived);
    node.write("/etc/prestage/hooks.d/health/10-till", "#!/bin/sh\n");
    node.write("/var/lib/prestage/fetch/store/kept", "of value");
    succeed(node.chroot("systemctl").args(["disable", "prestage-report.timer"]));
}

fn assert_lived_with(node: &Node) {
    assert!(node.read("/etc/prestage/agent.toml").contains("/srv/repository"));
    assert_eq!(node.read("/var/lib/prestage/fetch/store/kept"), "of value");
    assert!(!is_enabled(node, "prestage-report.timer"), "what was switched off stays off");
    assert!(is_enabled(node, "prestage-fetch.timer"));
    run(node.chroot("prestage").args(["config", "check"])).expect(0);
}

#[test]
#[ignore = "make test-packages"]
fn a_deb_is_installed_upgraded_downgraded_removed_and_purged_as_policy_wants() {
    let sandbox = Sandbox::new();
    let node = Node::of_systemd(&sandbox, "node").with_proc();
    let before = node.image();
    let (first, rebuild) = (give(&node, &deb(Build::First)), give(&node, &deb(Build::Rebuild)));
    dpkg(&node, &["-i", &first]);
    assert_fresh(&node);
    live_with(&node);
    let installed = node.version("prestage");

    dpkg(&node, &["-i", &rebuild]);
    assert_ne!(node.version("prestage"), installed);
    assert_lived_with(&node);
    dpkg(&node, &["--force-downgrade", "-i", &first]);
    assert_eq!(node.version("prestage"), installed);
    assert_lived_with(&node);

    dpkg(&node, &["-r", "prestage"]);
    assert!(!node.path("/usr/bin/prestage").exists());
    assert_eq!(node.read("/var/lib/prestage/fetch/store/kept"), "of value", "state stays");
    assert!(node.read("/etc/prestage/agent.toml").contains("/srv/repository"), "so does configuration");
    dpkg(&node, &["-i", &rebuild]);
    assert_lived_with(&node);

    dpkg(&node, &["-P", "prestage"]);
    assert!(!node.path("/var/lib/prestage").exists(), "state goes");
    assert_eq!(
        node.read("/etc/prestage/hooks.d/health/10-till"),
        "#!/bin/sh\n",
        "an administrator's own file is his"
    );
    fs::remove_dir_all(node.path("/etc/prestage")).expect("what is his");
    // The user stays, so that no other gets his number; dpkg and systemd keep their books.
    let expected = [
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/.pwd.lock",
        "/var/lib/dpkg/",
        "/var/log/",
        "/var/cache/",
    ];
    let after = node.image();
    let left: Vec<_> = before
        .differences(&after)
        .into_iter()
        .filter(|d| !expected.iter().any(|e| d.starts_with(e)))
        .collect();
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
}

#[test]
#[ignore = "make test-packages"]
fn an_rpm_is_installed_upgraded_downgraded_and_erased_as_the_guidelines_want() {
    let sandbox = Sandbox::new();
    let node = Node::of_rpm_and_systemd(&sandbox, "node").with_proc();
    // The root has systemd and its useradd from the distribution, so rpm has to be told.
    let stub = Rpm::new("lab-systemd", "252").tag("Provides", "systemd shadow-utils ca-certificates");
    let stub = give(&node, &stub.build(&sandbox.path().join("rpms")));
    let of = |build| give(&node, &package(build, "prestage-0", ".rpm"));
    let (first, rebuild) = (of(Build::First), of(Build::Rebuild));
    let rpm = |args: &[&str]| succeed(node.chroot("rpm").args(args));
    rpm(&["-i", &stub]);
    rpm(&["-i", &first]);
    assert_fresh(&node);
    assert_eq!(rpm(&["-V", "prestage"]), "", "every file is as packaged");
    live_with(&node);
    let version = || rpm(&["-q", "prestage"]);
    let installed = version();

    rpm(&["-U", &rebuild]);
    assert_ne!(version(), installed);
    assert_lived_with(&node);
    rpm(&["-U", "--oldpackage", &first]);
    assert_eq!(version(), installed);
    assert_lived_with(&node);

    rpm(&["-e", "prestage"]);
    assert!(!node.path("/usr/bin/prestage").exists());
    assert!(TIMERS.iter().all(|timer| !is_enabled(&node, timer)), "no link to a unit that is gone");
    assert_eq!(node.read("/var/lib/prestage/fetch/store/kept"), "of value", "state stays; rpm has no purge");
    assert!(
        node.read("/etc/prestage/agent.toml.rpmsave").contains("/srv/repository"),
        "so does configuration"
    );
}

/// What stands in the first line that the fleet server answers to this question, on the machine itself.
fn fleet_says(machine: &Booted, path: &str) -> String {
    let ask = format!(
        "exec 3<>/dev/tcp/127.0.0.1/8470 && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3"
    );
    machine.run("bash", &["-c", &ask]).stdout.trim_end().to_owned()
}

#[test]
#[ignore = "make test-packages"]
fn the_fleet_server_is_served_by_its_unit_and_its_data_outlives_upgrade_and_removal() {
    let sandbox = Sandbox::new();
    let node = Node::of_systemd(&sandbox, "centre");
    let of = |build| give(&node, &package(build, "prestage-fleet_", ".deb"));
    let (first, rebuild) = (of(Build::First), of(Build::Rebuild));
    let machine = Booted::start(&node, &[]);
    machine.run("dpkg", &["-i", &first]).expect(0);
    let unit = "prestage-fleet.service";
    let is_ready = || fleet_says(&machine, "/readyz").contains("200");
    lab::wait::until("the server answers", PATIENCE, is_ready);
    assert_eq!(machine.property(unit, "User"), "prestage-fleet");
    let verified = machine.run("systemd-analyze", &["verify", "--man=no", unit]).expect(0);
    assert_eq!(verified.stderr, "");
    let figure = exposure(&machine, unit);
    assert!(figure <= 1.5, "{figure}");

    // What it is told is still there after an upgrade, which begins it anew.
    let tokens = |args: &[&str]| {
        let mut all = vec!["-u", "prestage-fleet", "--", "prestage-fleet", "token"];
        all.extend(args);
        machine.run("runuser", &all).expect(0).stdout
    };
    tokens(&["new", "--name", "till-watch", "--role", "viewer"]);
    let before = machine.property(unit, "MainPID");
    machine.run("dpkg", &["-i", &rebuild]).expect(0);
    lab::wait::until("the new server answers", PATIENCE, is_ready);
    assert_ne!(machine.property(unit, "MainPID"), before);
    assert!(tokens(&["list"]).contains("till-watch"));

    machine.run("dpkg", &["-r", "prestage-fleet"]).expect(0);
    assert_eq!(fleet_says(&machine, "/readyz"), "", "nobody listens any more");
    assert!(node.path("/var/lib/prestage-fleet/fleet.db").exists(), "its data stays");
    machine.run("dpkg", &["-P", "prestage-fleet"]).expect(0);
    assert!(!node.path("/var/lib/prestage-fleet").exists(), "until the package is purged");
    assert!(!node.path("/etc/prestage/fleet.toml").exists());
}

#[test]
#[ignore = "make test-packages"]
fn the_fleet_servers_rpm_is_installed_upgraded_and_erased() {
    let sandbox = Sandbox::new();
    let node = Node::of_rpm_and_systemd(&sandbox, "centre").with_proc();
    let stub = Rpm::new("lab-systemd", "252").tag("Provides", "systemd shadow-utils ca-certificates");
    let stub = give(&node, &stub.build(&sandbox.path().join("rpms")));
    let of = |build| give(&node, &package(build, "prestage-fleet-0", ".rpm"));
    let (first, rebuild) = (of(Build::First), of(Build::Rebuild));
    let rpm = |args: &[&str]| succeed(node.chroot("rpm").args(args));
    rpm(&["-i", &stub]);
    rpm(&["-i", &first]);
    assert_eq!(rpm(&["-V", "prestage-fleet"]), "", "every file is as packaged");
    assert!(node.read("/etc/passwd").lines().any(|line| line.starts_with("prestage-fleet:")));
    run(node.chroot("prestage-fleet").args(["config", "check"])).expect(0);
    let shipped = node.read("/etc/prestage/fleet.toml");
    node.write(
        "/etc/prestage/fleet.toml",
        shipped.replacen("[nodes]", "[nodes]\nsilent-after-hours = 50", 1),
    );
    rpm(&["-U", &rebuild]);
    assert!(node.read("/etc/prestage/fleet.toml").contains("silent-after-hours = 50"));
    rpm(&["-e", "prestage-fleet"]);
    assert!(!node.path("/usr/bin/prestage-fleet").exists());
    assert!(node.read("/etc/prestage/fleet.toml.rpmsave").contains("silent-after-hours = 50"));
}

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `systemd-analyze security` makes of a unit: 0 is locked, 10 is open.
fn exposure(machine: &Booted, unit: &str) -> f64 {
    let out = machine.run("systemd-analyze", &["security", "--no-pager", unit]).stdout;
    let line = out.lines().find(|l| l.contains("Overall exposure level")).unwrap_or_else(|| panic!("{out}"));
    let figure = line
        .split(':')
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|f| f.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    println!("{unit}: {figure}");
    figure
}

/// A booted node with the first build of the package installed by dpkg, and a repository in a folder of its own.
struct Shop {
    booted: Booted,
    node: Node,
    centre: Centre,
    archive: Archive,
    sandbox: Sandbox,
}

impl Shop {
    /// Not enrolled yet. The repository has an update of `till-app`.
    fn open() -> Shop {
        let sandbox = Sandbox::new();
        let node = Node::of_systemd(&sandbox, "node");
        node.install(&[Deb::new("till-app", "1.0")]);
        let archive = Archive::new(&sandbox);
        archive.publish(&[Deb::new("till-app", "2.0")]);
        let centre = Centre::new(&sandbox);
        let booted = Booted::start(&node, &[]);
        let inside = give(&node, &deb(Build::First));
        booted.run("dpkg", &["-i", &inside]).expect(0);
        Shop { booted, node, centre, archive, sandbox }
    }

    /// Publishes a bundle of what the archive has, and carries the repository to the node.
    fn release(&self, version: &str) {
        let status = self.node.path("/var/lib/dpkg/status");
        let collected = self.centre.collect(&self.archive, &self.node.variant(), &[&status]);
        self.centre.publish(&self.centre.bundle(&collected, version));
        self.carry();
    }

    fn carry(&self) {
        let there = self.node.path("/srv/repository");
        let _ = fs::remove_dir_all(&there);
        fs::create_dir_all(self.node.path("/srv")).expect("/srv");
        succeed(lab::sandbox::command("cp").arg("-r").arg(self.centre.repository()).arg(there));
    }

    fn enrol(&self, more: &[&str]) -> lab::sandbox::Output {
        let root = fs::read(self.centre.repository().join("metadata/1.root.json")).expect("a root");
        let fingerprint = format!("sha256:{}", Sha256::of(&root));
        let args = ["enroll", "--repository", "/srv/repository", "--root-fingerprint", &fingerprint];
        self.booted.run("prestage", &[&args, more].concat())
    }

    /// Starts a service and waits for its end; how it ended.
    fn service(&self, name: &str) -> (String, String) {
        let unit = format!("{name}.service");
        let _ = self.booted.run("systemctl", &["start", &unit]);
        (self.booted.property(&unit, "Result"), self.booted.property(&unit, "ExecMainStatus"))
    }

    fn failed(&self) -> String {
        self.booted.run("systemctl", &["--failed", "--no-legend", "--plain"]).stdout
    }
}

const OK: (&str, &str) = ("success", "0");

#[test]
#[ignore = "make test-packages"]
fn a_node_that_nobody_configured_is_quiet_under_systemd() {
    let shop = Shop::open();
    for timer in TIMERS {
        assert_eq!(shop.booted.property(timer, "ActiveState"), "active", "{timer} runs at once");
    }
    // As its timer would start it, twice: nothing is done, and nothing has failed.
    for _ in 0..2 {
        for step in ["prestage-fetch", "prestage-install", "prestage-report"] {
            let (result, _) = shop.service(step);
            assert_eq!(result, "success", "{step}");
            assert_eq!(shop.booted.property(&format!("{step}.service"), "ConditionResult"), "no", "{step}");
        }
    }
    assert_eq!(shop.failed(), "");
    for timer in TIMERS {
        assert_eq!(shop.booted.property(timer, "ActiveState"), "active", "{timer} comes again");
    }
    // The start rate limit of systemd is for services that fail in a loop: none has begun at all.
    let journal = shop.booted.journal("prestage-*");
    assert!(!journal.contains("error") && !journal.contains("Failed"), "{journal}");
}

#[test]
#[ignore = "make test-packages"]
fn the_units_patch_a_node_and_a_deferral_is_no_failed_unit() {
    let shop = Shop::open();
    shop.release("20261123-1");
    shop.enrol(&["--label", "role=till"]).expect(0).says(&["trust begins"]);
    // The same again does no harm; another root is refused, and nothing changes.
    shop.enrol(&["--label", "role=till"]).expect(0);
    let root = shop.node.read("/etc/prestage/root.json");
    let other = Centre::with_signers(&shop.sandbox, "other", 1);
    let other_root = fs::read(other.repository().join("metadata/1.root.json")).expect("a root");
    let fingerprint = format!("sha256:{}", Sha256::of(&other_root));
    let refused = ["enroll", "--repository", "/srv/repository", "--root-fingerprint", &fingerprint];
    shop.booted.run("prestage", &refused).expect(3).says(&["fingerprint"]);
    assert_eq!(shop.node.read("/etc/prestage/root.json"), root);

    // Nothing is staged, so the install is put off: exit code 1, and no failed unit.
    assert_eq!(shop.service("prestage-install"), ("success".into(), "1".into()));
    // The timer fires by itself: the unit's own, only sooner.
    shop.node.write(
        "/etc/systemd/system/prestage-fetch.timer.d/soon.conf",
        "[Timer]\nOnActiveSec=1\nAccuracySec=1\nRandomizedDelaySec=0\n",
    );
    shop.booted.run("systemctl", &["daemon-reload"]).expect(0);
    shop.booted.run("systemctl", &["restart", "prestage-fetch.timer"]).expect(0);
    shop.booted.until("the fetch timer fires, and the bundle is staged", |_| {
        shop.node.path("/var/lib/prestage/status.json").exists()
            && shop.node.status().status.plan.is_some_and(|plan| plan.complete)
    });
    // Outside the window: deferred, until it is opened.
    shop.node.write(
        "/etc/prestage/agent.d/70-window.toml",
        format!("[schedule]\nmaintenance-window = [{:?}]\n", shop.node.not_today()),
    );
    assert_eq!(shop.service("prestage-install"), ("success".into(), "1".into()));
    assert_eq!(shop.node.version("till-app"), "1.0");
    fs::remove_file(shop.node.path("/etc/prestage/agent.d/70-window.toml")).expect("a window");
    assert_eq!(shop.service("prestage-install"), (OK.0.into(), OK.1.into()));
    assert_eq!(shop.node.version("till-app"), "2.0");
    assert_eq!(shop.service("prestage-report"), (OK.0.into(), OK.1.into()));
    assert_eq!(shop.failed(), "");
    // A person can read it, and a machine can sort it.
    let journal = shop.booted.journal("prestage-install.service");
    assert!(journal.contains("20261123-1") && journal.contains("maintenance window"), "{journal}");
    let json = ["--unit", "prestage-install.service", "--output", "json", "--no-pager"];
    let levels = shop.booted.run("journalctl", &json).stdout;
    assert!(
        levels.lines().any(|l| l.contains("\"PRIORITY\":\"6\"") && l.contains("prestage[")
            || l.contains("\"SYSLOG_IDENTIFIER\":\"prestage\"")),
        "{levels}"
    );

    // Damage is a failed unit: somebody must look.
    shop.archive.publish(&[Deb::new("till-app", "3.0").payload(100_000)]);
    shop.release("20261124-1");
    shop.centre.flip(Part::BundleData, shop.centre.offset_of("till-app", 5000));
    shop.carry();
    assert_eq!(shop.service("prestage-fetch"), ("exit-code".into(), "2".into()));
    assert!(shop.failed().contains("prestage-fetch.service"));
}

#[test]
#[ignore = "make test-packages"]
fn the_agent_patches_itself_while_it_runs() {
    let shop = Shop::open();
    // What runs while dpkg has just replaced it: looked at by a hook of apt's, from inside.
    shop.node.write(
        "/etc/apt/apt.conf.d/99-look",
        "DPkg::Post-Invoke { \"readlink /proc/[0-9]*/exe | grep prestage >/var/log/running; true\"; };\n",
    );
    shop.archive.add(&deb(Build::Rebuild));
    shop.archive.publish(&[]);
    shop.release("20261123-2");
    shop.enrol(&[]).expect(0);
    let (version, inode) = (shop.node.version("prestage"), || {
        fs::metadata(shop.node.path("/usr/bin/prestage")).map(|m| m.ino()).ok()
    });
    let first = inode();
    assert_eq!(shop.service("prestage-fetch"), (OK.0.into(), OK.1.into()));
    assert_eq!(
        shop.service("prestage-install"),
        (OK.0.into(), OK.1.into()),
        "{}",
        shop.booted.journal("prestage-install.service")
    );
    assert_ne!(shop.node.version("prestage"), version);
    assert!(!shop.node.version("prestage").contains(' '), "configured to the end");
    assert_ne!(inode(), first, "the program was replaced");
    assert!(shop.node.read("/var/log/running").contains("/usr/bin/prestage (deleted)"), "while it ran");
    assert_eq!(shop.node.version("till-app"), "2.0", "and it went on");
    let installed = shop.node.status().status.installed.expect("an installed bundle");
    assert_eq!(installed.bundle.version.as_str(), "20261123-2");
    // The new one takes over, and finds nothing to do.
    assert_eq!(shop.service("prestage-fetch"), (OK.0.into(), OK.1.into()));
    assert!(matches!(shop.service("prestage-install").1.as_str(), "0" | "1"));
    for timer in TIMERS {
        assert_eq!(shop.booted.property(timer, "ActiveState"), "active", "{timer}");
    }
    assert_eq!(shop.failed(), "");
}

#[test]
#[ignore = "make test-packages"]
fn the_units_are_locked_down_and_verified() {
    let shop = Shop::open();
    let units = ["fetch", "install", "recover", "report", "share", "incoming"]
        .map(|u| format!("prestage-{u}.service"));
    let mut verify = vec!["verify", "--man=no"];
    verify.extend(units.iter().map(String::as_str).chain(TIMERS));
    let verified = shop.booted.run("systemd-analyze", &verify).expect(0);
    assert_eq!(verified.stderr, "");
    for unit in &units {
        let figure = exposure(&shop.booted, unit);
        let limit = if unit.contains("install") || unit.contains("recover") { 5.0 } else { 1.5 };
        assert!(figure <= limit, "{unit}: {figure} of at most {limit}");
    }
}
