//! What every case begins with: the node with the agent's package and old packages, booted, settled and saved. The boot is
//! done once for each image, the agent's package installed once for each agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use format::digest::Sha256;
use lab::sandbox::{Sandbox, command, succeed};

use crate::log::Log;
use crate::machine::{By, Disks, Hardware, Machine, copy_disk};
use crate::packages::old;
use crate::world::STEP;

/// A node that is ready to be a case's: its disks, its memory, and what the centre needs to know of it.
pub struct Ready {
    /// Disks, memory, and the node's dpkg status and os-release.
    pub folder: PathBuf,
    /// Which: the digest of everything that went into it.
    pub key: String,
    /// Who runs it: a state that was saved under one is of no use to the other.
    pub by: By,
}

impl Ready {
    /// The node with the agent's package, the old packages and nothing configured; made once for each agent and kept, from a
    /// booted node without an agent, which is made once for each image.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn get(project: &Path, log_folder: &Path) -> Ready {
        let image = succeed_aloud(command(project.join("scripts/vm-image.sh")).env_remove("LC_ALL"));
        let image = PathBuf::from(image.trim());
        let cache = image.parent().expect("the image has a folder").to_owned();
        let by = who_runs(&cache, &image, log_folder);
        let sandbox = Sandbox::new();
        let old: Vec<PathBuf> = old().iter().map(|deb| deb.build(sandbox.path())).collect();
        let base = Ready::of("base", &cache, by, &format!("{} {by:?}", image.display()), &old);
        let agent = [agent_package(project, &sandbox)];
        let ready = Ready::of("node", &cache, by, &base.key, &agent);
        if !base.folder.exists() {
            forget_older(&cache, "base-");
            base.make(&image, None, &Log::begin(&log_folder.join("prepare-base"), false), |machine| {
                furnish(machine, &old);
            });
        }
        if !ready.folder.exists() {
            forget_older(&cache, "node-");
            let memory = Some(base.folder.join("memory"));
            ready.make(&base.folder, memory, &Log::begin(&log_folder.join("prepare"), false), |machine| {
                install(machine, &agent);
                // A case says when the agent runs, unless its timers are what it is about.
                machine.sh(
                    "systemctl disable --now prestage-fetch.timer prestage-install.timer prestage-report.timer",
                );
                machine.sh("systemctl is-active till && curl -sf http://localhost:8080/health");
            });
        }
        ready
    }

    /// The place of a state, named by the digest of all that it is made of.
    fn of(name: &str, cache: &Path, by: By, from: &str, debs: &[PathBuf]) -> Ready {
        let mut inputs = from.as_bytes().to_vec();
        inputs.extend_from_slice(include_bytes!("ready.rs"));
        for deb in debs {
            inputs.extend(fs::read(deb).expect("a package"));
        }
        let key = Sha256::of(&inputs).short();
        Ready { folder: cache.join(format!("{name}-{key}")), key, by }
    }

    /// Makes it of the disks in `from`, booted or taken up from `memory`.
    fn make(&self, from: &Path, memory: Option<PathBuf>, log: &Log, furnish: impl FnOnce(&mut Machine)) {
        eprintln!("== preparing the node: {}", log.folder().display());
        let new = self.folder.with_extension("new");
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new).expect("a folder for the node");
        copy_disk(&from.join("disk.raw"), &new.join("disk.raw"));
        let points = new.join("points.raw");
        if memory.is_some() {
            copy_disk(&from.join("points.raw"), &points);
        } else {
            // The disk for Timeshift's restore points.
            let file = fs::File::create(&points).expect("a disk");
            file.set_len(6 << 30).expect("a sparse disk");
            succeed(
                command("mke2fs").args(["-q", "-t", "ext4", "-L", "points", "-E", "nodiscard"]).arg(&points),
            );
        }
        let is_booted = memory.is_none();
        let hardware = hardware(&new, Disks::Durable, (9, 9), memory, self.by);
        let mut machine = Machine::start(&hardware, &new.join("run"), log);
        let answers = if is_booted { machine.wait_for_boot() } else { machine.wait_for_state() };
        answers.unwrap_or_else(|silence| panic!("the node does not boot: {silence}"));
        furnish(&mut machine);
        for path in ["/var/lib/dpkg/status", "/etc/os-release"] {
            let name = Path::new(path).file_name().expect("a file");
            fs::write(new.join(name), machine.get(path)).expect("a file");
        }
        // Settled, and with little in memory that would have to be saved.
        machine.sh("systemctl is-system-running --wait; sync; echo 3 >/proc/sys/vm/drop_caches");
        machine.save(&new.join("memory"));
        fs::rename(&new, &self.folder).expect("the node's folder");
    }
}

/// The agent's own package, as it is shipped.
fn agent_package(project: &Path, sandbox: &Sandbox) -> PathBuf {
    let mut package = command(project.join("scripts/packages.sh"));
    package.arg("agent").env("PACKAGES", sandbox.path().join("agent")).env_remove("LC_ALL");
    if let Some(other) = std::env::var_os("PRESTAGE_VM_AGENT") {
        fs::copy(other, sandbox.path().join("prestage")).expect("the agent of PRESTAGE_VM_AGENT");
        package.env("PRESTAGE_DIST", sandbox.path());
    }
    PathBuf::from(succeed_aloud(&mut package).trim())
}

/// What every node of the laboratory has beside the image and the agent: the till, and a console that shows what is logged,
/// from the first second of a boot to its end.
fn furnish(machine: &mut Machine, old: &[PathBuf]) {
    install(machine, old);
    for (path, content) in [
        (
            "/etc/systemd/journald.conf.d/lab.conf",
            "[Journal]\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\nMaxLevelConsole=info\n",
        ),
        (
            // systemd-networkd takes a quarter of an emulated boot. The name of the interface stays what the kernel called it.
            "/etc/systemd/system/lab-network.service",
            "[Unit]\nDescription=The laboratory's network\nAfter=systemd-udev-trigger.service\n\
             Before=network.target network-online.target\nWants=network.target\n\
             [Service]\nType=oneshot\nRemainAfterExit=yes\n\
             ExecStart=/bin/sh -c 'if ip address | grep -qw 10.0.2.15; then exit; fi; until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; \
             ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2'\n\
             [Install]\nWantedBy=multi-user.target network-online.target\n",
        ),
        (
            // The condition of the image's unit is looked at before udev has made the port, where a boot is lean.
            "/etc/systemd/system/lab-shell.service.d/lab.conf",
            "[Unit]\nConditionPathExists=\n[Service]\n\
             ExecStartPre=/bin/sh -c 'until [ -e /dev/virtio-ports/lab.shell ]; do sleep 0.2; done'\n",
        ),
        (
            "/etc/systemd/system/lab-booted.service",
            "[Unit]\nDescription=The laboratory is told that the boot has come to its end\n\
             After=multi-user.target prestage-recover.service\n\
             [Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo LAB booted >/dev/ttyS0'\n\
             [Install]\nWantedBy=multi-user.target\n",
        ),
    ] {
        machine.put(path, content.as_bytes());
    }
    machine.sh("systemctl --quiet enable lab-booted lab-network; systemctl restart systemd-journald; \
         ln -s /dev/null /etc/systemd/network/99-default.link; systemctl --quiet disable systemd-networkd systemd-networkd.socket systemd-networkd-wait-online");
    machine.sh(&format!("systemctl --quiet mask {NOT_NEEDED}"));
    // How each run of the agent ended, whether its unit is still known or not.
    machine.sh("for unit in fetch install report recover; do
            mkdir -p /etc/systemd/system/prestage-$unit.service.d
            printf '[Service]\\nExecStopPost=+/bin/sh -c \"echo $EXIT_STATUS >/run/lab-exit-%%N\"\\n' \\
                >/etc/systemd/system/prestage-$unit.service.d/lab.conf
        done");
}

/// What a till needs at no boot, and an emulated machine takes seconds for.
const NOT_NEEDED: &str = "dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service \
    systemd-pstore.service modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@fuse.service modprobe@loop.service kmod-static-nodes.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-network-generator.service dpkg-db-backup.timer \
    systemd-tmpfiles-clean.timer";

fn install(machine: &mut Machine, debs: &[PathBuf]) {
    for deb in debs {
        let name = deb.file_name().unwrap_or_default().to_string_lossy();
        machine.put(&format!("/var/tmp/debs/{name}"), &fs::read(deb).expect("a package"));
    }
    machine.sh_within("dpkg -i /var/tmp/debs/*.deb && rm -r /var/tmp/debs", STEP);
}

/// KVM where a node really boots under it: a host may offer /dev/kvm and still not get a kernel through its first second.
/// Tried once for each kind of host.
fn who_runs(cache: &Path, image: &Path, log_folder: &Path) -> By {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return By::Emulation;
    }
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find(|line| line.starts_with("model name")).unwrap_or_default().to_owned();
    let host = cpu + &fs::read_to_string("/proc/version").unwrap_or_default();
    let answer = cache.join(format!("kvm-{}", Sha256::of(host.as_bytes()).short()));
    let by = |is_kvm: bool| if is_kvm { By::Kvm } else { By::Emulation };
    if let Ok(text) = fs::read_to_string(&answer) {
        return by(text == "yes");
    }
    eprintln!("== trying whether machines run under KVM here");
    let tried = cache.join("kvm.raw");
    copy_disk(&image.join("disk.raw"), &tried);
    let hardware = Hardware {
        disks: vec![("ROOT", tried.clone())],
        kind: Disks::Durable,
        neighbours: vec![],
        state: None,
        by: By::Kvm,
    };
    let log = Log::begin(&log_folder.join("kvm"), false);
    let boots = std::panic::catch_unwind(|| {
        Machine::start(&hardware, &cache.join("kvm-run"), &log).wait_for_boot_within(KVM_BOOT).is_ok()
    });
    let _ = fs::remove_file(tried);
    let is_kvm = boots.unwrap_or(false);
    eprintln!("== {}", if is_kvm { "they do" } else { "they do not: QEMU emulates, and all takes longer" });
    fs::write(answer, if is_kvm { "yes" } else { "no" }).expect("the answer can be kept");
    by(is_kvm)
}

/// A node under KVM boots in a tenth of this.
const KVM_BOOT: Duration = Duration::from_secs(60);

/// States of older agents or images: a gigabyte each.
fn forget_older(cache: &Path, prefix: &str) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The hardware of a node: its disks in a folder, and the ports of its two neighbours on the host.
pub fn hardware(disks: &Path, kind: Disks, ports: (u16, u16), state: Option<PathBuf>, by: By) -> Hardware {
    Hardware {
        disks: vec![("ROOT", disks.join("disk.raw")), ("POINTS", disks.join("points.raw"))],
        kind,
        neighbours: vec![("10.0.2.100:80", ports.0), ("10.0.2.101:80", ports.1)],
        state,
        by,
    }
}

/// Runs a program whose stderr is for whoever watches.
fn succeed_aloud(command: &mut std::process::Command) -> String {
    let output = command.stderr(std::process::Stdio::inherit()).output().expect("a script of this project");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
