//! A node in a machine, a centre, a mirror and a receiver of reports on the host: what each case begins with.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use format::name::Variant;
use format::report::{Outcome, Report, Step};
use format::status::{NodeStatus, State};
use lab::debs::Deb;
use lab::receiver::Receiver;
use lab::repository::{Archive, Centre};
use lab::sandbox::{Sandbox, command, succeed};
use lab::server::Server;

use crate::log::Log;
use crate::machine::{By, Disks, Machine, SOON, Silence, copy_disk};
use crate::packages::HEALTH_URL;
use crate::ready::{Ready, hardware};

/// Where the node finds its mirror, and where its reports go.
const MIRROR: &str = "10.0.2.100";
const CENTRE: &str = "10.0.2.101";

/// What a step of the agent may take in a machine without KVM, on a busy host.
pub const STEP: Duration = Duration::from_secs(600);

/// The package's own timers, asked to come sooner: minutes of waiting show nothing more. They are enabled, as in every boot of
/// a node, and not started yet.
const SOONER: &str = "for unit in fetch report; do
    mkdir -p /etc/systemd/system/prestage-$unit.timer.d
    printf '[Timer]\\nOnBootSec=\\nOnActiveSec=1s\\nOnUnitInactiveSec=15s\\nRandomizedDelaySec=0\\nAccuracySec=1s\\n' \\
        >/etc/systemd/system/prestage-$unit.timer.d/lab.conf
done
mkdir -p /etc/systemd/system/prestage-install.timer.d
printf '[Timer]\\nOnCalendar=\\nOnCalendar=*:*:0/20\\nRandomizedDelaySec=0\\nAccuracySec=1s\\n' \\
    >/etc/systemd/system/prestage-install.timer.d/lab.conf
systemctl daemon-reload
systemctl --quiet enable prestage-fetch.timer prestage-install.timer prestage-report.timer";

/// What a boot, the kernel or the agent's own accounts change (as `lab-hashes` has it), and what the laboratory itself does.
const NOT_STAMPED: [&str; 15] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/mnt",
    "/lost+found",
    "/boot/lost+found",
    "/var/log",
    "/var/tmp",
    "/var/lib/prestage",
    "/var/lib/systemd",
    "/var/lib/private",
    "/etc/lvm",
    "/timeshift",
];

/// What Timeshift itself writes with each restore point (their number and size), beside what it is told to leave out.
const OF_TIMESHIFT: &str = " /etc/timeshift/timeshift.json";

/// Everything.
pub struct World {
    /// The node; none while it is off.
    machine: Option<Machine>,
    /// The mirror that the node reads.
    pub mirror: Server,
    /// Where its reports go.
    pub receiver: Receiver,
    /// The centre.
    pub centre: Centre,
    /// Where the centre's packages come from.
    pub archive: Archive,
    variant: Variant,
    status_file: PathBuf,
    disks: PathBuf,
    kind: Disks,
    by: By,
    /// The case's log.
    pub log: Log,
    sandbox: Sandbox,
}

/// What tells the laboratories apart that run at a time; nothing for the one.
pub fn slot() -> String {
    std::env::var("PRESTAGE_VM_SLOT").map_or_else(|_| String::new(), |slot| format!("-{slot}"))
}

/// Memory that must be left when a case's disks are in memory.
const LEFT_OF_MEMORY: u64 = 6 << 30;

/// Where a case's disks are: in memory where there is much of it, for a flush then costs nothing of the host's, and what was
/// flushed stays as it does in a file. (What was not is nbdkit's, and dies with it, wherever the file is.)
fn place_for_disks(otherwise: &Path) -> PathBuf {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = memory.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let folder = Path::new("/dev/shm");
    let free = nix::sys::statvfs::statvfs(folder).map_or(0, |f| f.blocks_available() * f.fragment_size());
    let room = free.min(available.unwrap_or(0) * 1024);
    let is_writable = nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok();
    // The disk of a full pool and Timeshift's.
    if is_writable && room > LEFT_OF_MEMORY + (8 << 30) {
        folder.join(format!("prestage-vm-run{}", slot()))
    } else {
        otherwise.to_owned()
    }
}

impl World {
    /// A node in its saved state, and a centre that has published nothing.
    pub fn new(ready: &Ready, kind: Disks, log: &Log) -> World {
        let sandbox = Sandbox::new();
        // At one place: what a laboratory that was killed has left there goes with the next case.
        let disks = place_for_disks(&ready.folder.with_file_name(format!("run{}", slot())));
        let _ = fs::remove_dir_all(&disks);
        fs::create_dir(&disks).expect("a folder for disks");
        for disk in ["disk.raw", "points.raw"] {
            copy_disk(&ready.folder.join(disk), &disks.join(disk));
        }
        let archive = Archive::new(&sandbox);
        let centre = Centre::new(&sandbox);
        let mirror = Server::start(&centre.repository()).expect("a port");
        let receiver = Receiver::start(Some(log.file("reports"))).expect("a port");
        let os_release = fs::read_to_string(ready.folder.join("os-release")).expect("os-release");
        let field = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let arch = succeed(command("dpkg").arg("--print-architecture"));
        let variant = format!("{}-{}-{}", field("ID"), field("VERSION_ID"), arch.trim());
        let mut world = World {
            machine: None,
            mirror,
            receiver,
            centre,
            archive,
            variant: variant.parse().expect("a variant"),
            status_file: ready.folder.join("status"),
            disks,
            kind,
            by: ready.by,
            log: log.clone(),
            sandbox,
        };
        world.switch_on(Some(ready.folder.join("memory")));
        let taken_up = world.node().wait_for_state();
        taken_up.unwrap_or_else(|silence| panic!("the saved node does not answer: {silence}"));
        world.configure("");
        let root = fs::read(world.centre.repository().join("metadata/1.root.json")).expect("a root");
        world.node().put("/etc/prestage/root.json", &root);
        world
    }

    /// The node.
    ///
    /// # Panics
    /// If it is off.
    pub fn node(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("the node is on")
    }

    fn switch_on(&mut self, state: Option<PathBuf>) {
        let ports = (self.mirror.address().port(), self.receiver.address().port());
        let hardware = hardware(&self.disks, self.kind, ports, state, self.by);
        self.machine = Some(Machine::start(&hardware, &self.sandbox.path().join("machine"), &self.log));
    }

    /// Cuts the node's power.
    pub fn cut_power(&mut self) {
        self.machine.take().expect("the node is on").cut_power();
    }

    /// Switches it on again.
    pub fn power_on(&mut self) {
        self.log.say("== the power is back");
        self.switch_on(None);
    }

    /// Switches it on again and waits until it has booted.
    ///
    /// # Errors
    /// If it does not boot.
    pub fn boot(&mut self) -> Result<(), Silence> {
        self.power_on();
        self.node().wait_for_boot()
    }

    /// Configures the agent; `more`: whatever else a case needs (TOML).
    pub fn configure(&mut self, more: &str) {
        self.configure_fetch("", more);
    }

    /// The same with more for `[fetch]`.
    pub fn configure_fetch(&mut self, fetch: &str, more: &str) {
        let text = format!(
            "[node]\nid = \"vm-node\"\n[repository]\nmirrors = [\"http://{MIRROR}/\"]\n\
             [fetch]\npaced = false\n{fetch}[report]\nurl = \"http://{CENTRE}{}\"\n\
             [health]\nurl = \"{HEALTH_URL}\"\ntimeout-seconds = 30\n{more}",
            lab::receiver::PATH
        );
        self.node().put("/etc/prestage/agent.toml", text.as_bytes());
    }

    /// Publishes a bundle of these packages, beside what was there.
    pub fn release(&mut self, version: &str, debs: &[Deb]) {
        self.archive.publish(debs);
        let collected = self.centre.collect(&self.archive, &self.variant, &[&self.status_file]);
        let bundle = self.centre.bundle(&collected, version);
        self.centre.publish(&bundle);
        self.log.say(&format!("== the centre has published {version}"));
    }

    /// Has the package's timers come sooner, from when they are started and from each boot on.
    pub fn hurry_timers(&mut self) {
        self.node().sh(SOONER);
    }

    /// Lets the timers fetch what was released.
    pub fn stage_by_timer(&mut self) {
        self.node().sh("systemctl start prestage-fetch.timer prestage-report.timer");
        self.wait("the bundle is staged", STEP, |world| {
            let status = world.node().quiet_shell("cat /var/lib/prestage/status.json", SOON);
            let status = status.ok().and_then(|said| NodeStatus::parse(said.text.as_bytes()).ok());
            status.is_some_and(|status| status.status.state == State::Staged)
        });
    }

    /// Pulls the plug of the network, and sees that nothing comes any more.
    pub fn cut_link(&mut self) {
        self.node().link(false);
        self.node().sh("! timeout 10 curl -sf http://10.0.2.100/metadata/timestamp.json");
    }

    /// Waits until the timer of the install has run it so often again.
    #[track_caller]
    pub fn wait_for_runs(&mut self, times: usize) {
        let mut seen = std::collections::BTreeSet::new();
        self.wait("the timer of the install", STEP, |world| {
            let script = "systemctl show --value -p InvocationID prestage-install.service";
            seen.extend(world.node().quiet_shell(script, SOON).map(|said| said.text));
            seen.len() > times
        });
    }

    /// Runs a verb of the agent as its unit does, waits for its end, and returns its exit code.
    ///
    /// # Errors
    /// If the machine went off or began anew meanwhile.
    pub fn step(&mut self, verb: &str) -> Result<i32, Silence> {
        let unit = format!("prestage-{verb}.service");
        // A unit that has ended well is forgotten by systemd, and 1 counts as well: ready.rs has it left in /run.
        let said = self.node().shell(
            &format!(
                "rm -f /run/lab-exit-prestage-{verb}; at=$(date +%s); systemctl start {unit}\n\
                 cat /run/lab-exit-prestage-{verb}; journalctl -q -o cat -u {unit} --since @$at"
            ),
            STEP,
        )?;
        let code = said.text.lines().find_map(|line| line.trim().parse().ok());
        Ok(code.unwrap_or_else(|| panic!("no exit code of {unit}: {}", said.text)))
    }

    /// What the agent has said in the journal in the last run of a verb.
    pub fn said(&mut self, verb: &str) -> String {
        self.node().sh(&format!("journalctl -q -o cat -n 20 -u prestage-{verb}.service"))
    }

    /// What the agent says of itself.
    pub fn status(&mut self) -> NodeStatus {
        let text = self.node().sh("cat /var/lib/prestage/status.json");
        NodeStatus::parse(text.as_bytes()).expect("a valid status")
    }

    /// Fails the case unless the till and its goods have this version, are whole, and answer.
    #[track_caller]
    pub fn assert_has(&mut self, version: &str) {
        let state = self.node().sh(
            "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n' till till-goods; dpkg --audit; \
             dpkg --verify till till-goods; curl -s http://localhost:8080/health",
        );
        let lines: Vec<&str> = state.lines().map(str::trim).collect();
        let expected =
            [format!("till {version} ii"), format!("till-goods {version} ii"), format!("till {version}")];
        assert_eq!(lines, expected, "the node does not have {version}, whole");
    }

    /// What is on the root volume and in /boot, by the times of its last changes, which no program can set: where nothing was
    /// to be brought back, this shows as much as [`World::files`], in a tenth of the time.
    pub fn stamps(&mut self, name: &str) -> Vec<String> {
        let script = format!(
            "sync; find / /boot -xdev {} -printf '%y %m %U:%G %s %C@ %p\\n' | sort -u >/run/lab-stamps",
            NOT_STAMPED.map(|path| format!("-path {path} -prune -o")).join(" ")
        );
        self.node().sh_within(&script, STEP);
        let bytes = self.node().get("/run/lab-stamps");
        self.log.keep(name, &bytes);
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }

    /// Fails the case unless no file was changed.
    #[track_caller]
    pub fn assert_stamps(&mut self, before: &[String], name: &str) {
        let now = self.stamps(name);
        assert_same(before, &now);
    }

    /// What is on the root volume and in /boot, a line for each file.
    pub fn files(&mut self, name: &str) -> Vec<String> {
        let text = self.node().sh_within("sync; lab-hashes >/run/lab-hashes; wc -l </run/lab-hashes", STEP);
        let bytes = self.node().get("/run/lab-hashes");
        self.log.say(&format!("{} files and folders: {name}", text.trim()));
        self.log.keep(name, &bytes);
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter(|line| !line.ends_with(OF_TIMESHIFT)).map(str::to_owned).collect()
    }

    /// Fails the case unless every file is as it was.
    #[track_caller]
    pub fn assert_files(&mut self, before: &[String], name: &str) {
        let now = self.files(name);
        assert_same(before, &now);
    }

    /// The reports of installs that the centre has.
    pub fn install_reports(&self) -> Vec<Report> {
        let accepted = self.receiver.accepted().into_iter();
        accepted.filter(|report| report.step == Step::Install).collect()
    }

    /// Whether the centre has heard of an install of this bundle that ended so.
    pub fn has_report(&self, version: &str, outcomes: &[Outcome]) -> bool {
        self.install_reports().iter().any(|report| {
            outcomes.contains(&report.outcome)
                && report.bundle.as_ref().is_some_and(|bundle| bundle.version.as_str() == version)
        })
    }

    /// Waits for something that comes by itself.
    #[track_caller]
    pub fn wait(&mut self, what: &str, limit: Duration, mut come: impl FnMut(&mut World) -> bool) {
        let deadline = Instant::now() + limit;
        self.log.say(&format!("== waiting for: {what}"));
        while !come(self) {
            assert!(Instant::now() < deadline, "it did not come in {} s: {what}", limit.as_secs());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Keeps what the node can tell of the case, as far as it still can.
    pub fn keep_accounts(&mut self) {
        let log = self.log.clone();
        let Some(machine) = &mut self.machine else { return };
        for (name, script) in [
            ("journal", "journalctl -q --no-pager -o short-precise"),
            ("status.json", "cat /var/lib/prestage/status.json"),
            ("dmesg", "dmesg"),
        ] {
            if let Ok(said) = machine.quiet_shell(script, SOON) {
                log.keep(name, said.text.as_bytes());
            }
        }
    }
}

/// Fails the case unless these are the same lines.
#[track_caller]
fn assert_same(before: &[String], now: &[String]) {
    let [before, after]: [std::collections::BTreeSet<&String>; 2] =
        [before.iter().collect(), now.iter().collect()];
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let come = after.difference(&before).map(|line| format!("+ {line}"));
    let different: Vec<String> = gone.chain(come).collect();
    assert!(different.is_empty(), "the node is not as it was:\n{}", different.join("\n"));
}

impl Drop for World {
    fn drop(&mut self) {
        self.keep_accounts();
        self.machine = None;
        let _ = fs::remove_dir_all(&self.disks);
    }
}
