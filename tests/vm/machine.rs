//! One virtual machine: starting it from a disk or from a saved state, a root shell in it, files in and out, its link, and
//! its power. Knows QEMU; knows nothing of Prestage.
//!
//! Nothing outlives the value, nor the laboratory if that is killed (`setpriv --pdeathsig`).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::log::Log;

/// Memory of a machine, in MiB: Timeshift's Vala and dpkg together fit well, and a saved state stays small.
const MEMORY_MIB: u32 = 768;

/// How long a boot may take. Without KVM it is a minute, on a host that has other work too, several.
pub const BOOT: Duration = Duration::from_secs(600);

/// How long an ordinary command may take.
pub const SOON: Duration = Duration::from_secs(120);

/// How a machine's disks treat what is written to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    /// Whatever was written is there after the machine was killed.
    Durable,
    /// Whatever was not flushed is gone, as in a disk whose cache loses its power.
    Volatile,
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Its disks, by their serial number; the first is booted from.
    pub disks: Vec<(&'static str, PathBuf)>,
    /// How they treat what is written.
    pub kind: Disks,
    /// Neighbours in its network, 10.0.2.0/24: a machine's address and port, and the port of the host's loopback behind.
    pub neighbours: Vec<(&'static str, u16)>,
    /// Begin in this saved state instead of with the firmware.
    pub state: Option<PathBuf>,
    /// Who runs the machine's code.
    pub by: By,
}

/// Who runs a machine's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The processor.
    Kvm,
    /// QEMU, which is some twenty times slower.
    Emulation,
}

/// Why there is no answer from a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It was not in time.
    Late,
    /// The machine was started anew meanwhile.
    Rebooted,
    /// The machine is off.
    Off,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Silence::Late => "no answer in time",
            Silence::Rebooted => "it was started anew meanwhile",
            Silence::Off => "it is off",
        })
    }
}

/// What a command in the machine came to.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; 124 if it took too long, as timeout(1) has it.
    pub code: i32,
    /// What it wrote, to either stream.
    pub text: String,
}

/// A machine. It loses its power with the value.
pub struct Machine {
    qemu: Child,
    /// What stands between QEMU and volatile disks.
    caches: Vec<Child>,
    monitor: BufReader<UnixStream>,
    shell: Port,
    files: UnixStream,
    folder: PathBuf,
    tags: u64,
    boot_id: String,
    /// A boot was seen that nobody has waited for yet.
    has_rebooted: bool,
    log: Log,
}

/// The host's end of a virtio-serial port, read by line.
struct Port {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Machine {
    /// Switches a machine on. Its sockets and QEMU's own messages are in `folder`; the serial console is added to the
    /// log's folder.
    ///
    /// # Panics
    /// If QEMU does not start; with what it said.
    pub fn start(hardware: &Hardware, folder: &Path, log: &Log) -> Machine {
        fs::create_dir_all(folder).expect("a folder for a machine");
        for name in ["monitor", "shell", "files"] {
            let _ = fs::remove_file(folder.join(name));
        }
        let mut caches = Vec::new();
        let mut qemu = tied("qemu-system-x86_64");
        // Nehalem: of those that QEMU emulates, the one that boots soonest.
        let (accelerator, processor) = match hardware.by {
            By::Kvm => ("kvm", "host"),
            By::Emulation => ("tcg,thread=multi,tb-size=512", "Nehalem"),
        };
        qemu.args(["-machine", "q35", "-accel", accelerator, "-cpu", processor, "-smp", "2"]);
        qemu.args(["-m", &MEMORY_MIB.to_string()]);
        qemu.args(["-nodefaults", "-display", "none", "-rtc", "base=utc,clock=host"]);
        qemu.args(["-chardev", &format!("file,id=console,append=on,path={}", log.file("console").display())]);
        qemu.args([
            "-serial",
            "chardev:console",
            "-device",
            "virtio-rng-pci",
            "-device",
            "virtio-serial-pci",
        ]);
        qemu.arg("-qmp").arg(format!("unix:{}/monitor,server=on,wait=off", folder.display()));
        for port in ["shell", "files"] {
            let path = folder.join(port);
            qemu.arg("-chardev").arg(format!("socket,id={port},path={},server=on,wait=off", path.display()));
            qemu.args(["-device", &format!("virtserialport,chardev={port},name=lab.{port}")]);
        }
        for (number, (serial, path)) in hardware.disks.iter().enumerate() {
            let file = match hardware.kind {
                Disks::Durable => path.display().to_string(),
                Disks::Volatile => {
                    let socket = folder.join(format!("disk-{serial}"));
                    caches.push(volatile(path, &socket));
                    format!("nbd+unix:///?socket={}", socket.display())
                }
            };
            // Writeback: a flush of the machine's reaches the file (or the cache in front of it), and nothing else has to.
            let drive = format!("file={file},if=none,id=d{number},format=raw,cache=writeback,discard=unmap");
            qemu.args(["-drive", &drive]);
            qemu.args([
                "-device",
                &format!("virtio-blk-pci,drive=d{number},serial={serial},bootindex={number}"),
            ]);
        }
        let forward = |(address, port): &(&str, u16)| {
            format!(",guestfwd=tcp:{address}-cmd:socat STDIO TCP:127.0.0.1:{port}")
        };
        let neighbours: String = hardware.neighbours.iter().map(forward).collect();
        qemu.args(["-netdev", &format!("user,id=net,restrict=on{neighbours}")]);
        qemu.args(["-device", "virtio-net-pci,netdev=net,id=nic"]);
        if let Some(state) = &hardware.state {
            qemu.arg("-incoming").arg(format!("exec:cat '{}'", state.display()));
        }
        let messages = log.file("qemu");
        let output = File::options().create(true).append(true).open(&messages).expect("a log of QEMU's");
        qemu.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let mut qemu = qemu.spawn().expect("setpriv and QEMU, which scripts/vm-image.sh installs");

        let mut connect = |name: &str| {
            let deadline = Instant::now() + SOON;
            loop {
                match UnixStream::connect(folder.join(name)) {
                    Ok(stream) => return stream,
                    Err(error) => {
                        let ended = qemu.try_wait().is_ok_and(|status| status.is_some());
                        let said = fs::read_to_string(&messages).unwrap_or_default();
                        assert!(!ended, "QEMU ended at once: {said}");
                        assert!(Instant::now() < deadline, "QEMU has no {name}: {error}; {said}");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
        };
        let monitor = connect("monitor");
        monitor.set_read_timeout(Some(SOON)).expect("a time-out");
        let shell = Port { stream: connect("shell"), buffer: Vec::new() };
        let files = connect("files");
        files.set_read_timeout(Some(SOON)).expect("a time-out");
        files.set_write_timeout(Some(SOON)).expect("a time-out");
        let mut machine = Machine {
            qemu,
            caches,
            monitor: BufReader::new(monitor),
            shell,
            files,
            folder: folder.to_owned(),
            tags: 0,
            boot_id: String::new(),
            has_rebooted: false,
            log: log.clone(),
        };
        machine.answer(); // QEMU greets
        machine.tell("qmp_capabilities", json!({}));
        machine
    }

    // --- The shell ---------------------------------------------------------------------------------------------------

    /// Waits until the machine has booted and systemd has nothing more to start.
    ///
    /// # Errors
    /// If it has not in time, or goes off.
    pub fn wait_for_boot(&mut self) -> Result<(), Silence> {
        self.wait_for_boot_within(BOOT)
    }

    /// The same with another limit.
    ///
    /// # Errors
    /// If it has not in time, or goes off.
    pub fn wait_for_boot_within(&mut self, limit: Duration) -> Result<(), Silence> {
        let began = Instant::now();
        if !std::mem::take(&mut self.has_rebooted) {
            let known = self.boot_id.clone();
            let ready = self.line(limit, |line| line.strip_prefix("READY ").is_some_and(|id| id != known))?;
            self.boot_id = ready.trim_start_matches("READY ").to_owned();
        }
        let state = loop {
            match self.shell("systemctl is-system-running --wait", BOOT) {
                // A boot can be what a node does first at a boot.
                Err(Silence::Rebooted) if began.elapsed() < limit => {}
                other => break other?,
            }
        };
        self.has_rebooted = false;
        self.log.say(&format!("booted in {} s: {}", began.elapsed().as_secs(), state.text.trim()));
        Ok(())
    }

    /// Takes up a machine that has begun in a saved state, and sets its clock.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn wait_for_state(&mut self) -> Result<(), Silence> {
        let deadline = Instant::now() + SOON;
        loop {
            match self.tell("query-status", json!({}))["status"].as_str() {
                Some("running") => break,
                // As it was when it was saved.
                Some("paused") => drop(self.tell("cont", json!({}))),
                _ if Instant::now() > deadline => return Err(Silence::Late),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let script = format!("date --set=@{now} && hwclock --systohc && cat /proc/sys/kernel/random/boot_id");
        // The shell of the saved state may find its port hung up, and begins anew: then the first words are lost.
        let first = self.run(&script, Duration::from_secs(20));
        let said = match first {
            Err(Silence::Late | Silence::Rebooted) => self.run(&script, SOON)?,
            other => other?,
        };
        self.boot_id = said.text.lines().last().unwrap_or_default().to_owned();
        Ok(())
    }

    /// Runs a script as root and waits for its end.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn shell(&mut self, script: &str, limit: Duration) -> Result<Said, Silence> {
        let began = Instant::now();
        self.log.say(&format!("# {script}"));
        let said = self.run(script, limit);
        let seconds = began.elapsed().as_secs_f32();
        match &said {
            Ok(said) => {
                self.log.say(&format!("  [{} after {seconds:.1} s]\n{}", said.code, said.text.trim_end()))
            }
            Err(silence) => self.log.say(&format!("  [{silence}, after {seconds:.1} s]")),
        }
        said
    }

    /// Runs a script that must succeed, and returns what it wrote.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn sh(&mut self, script: &str) -> String {
        self.sh_within(script, SOON)
    }

    /// The same with more time.
    ///
    /// # Panics
    /// If it does not succeed.
    #[track_caller]
    pub fn sh_within(&mut self, script: &str, limit: Duration) -> String {
        match self.shell(script, limit) {
            Ok(Said { code: 0, text }) => text,
            Ok(said) => panic!("exit code {} of: {script}\n{}", said.code, said.text),
            Err(silence) => panic!("{silence}: {script}"),
        }
    }

    /// The same without a word in the log.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn quiet_shell(&mut self, script: &str, limit: Duration) -> Result<Said, Silence> {
        self.run(script, limit)
    }

    fn run(&mut self, script: &str, limit: Duration) -> Result<Said, Silence> {
        self.tags += 1;
        let tag = format!("c{}-{}", std::process::id(), self.tags);
        let line = format!("{tag} {} {}\n", limit.as_secs().max(1), base64(script.as_bytes()));
        self.shell.stream.set_write_timeout(Some(SOON)).map_err(|_| Silence::Off)?;
        self.shell.stream.write_all(line.as_bytes()).map_err(|_| Silence::Off)?;
        let known = self.boot_id.clone();
        let is_other_boot = |line: &str| line.strip_prefix("READY ").is_some_and(|id| id != known);
        let found = self.line(limit + Duration::from_secs(15), |line| {
            line.starts_with(&tag) || (!known.is_empty() && is_other_boot(line))
        })?;
        if is_other_boot(&found) {
            self.boot_id = found.trim_start_matches("READY ").to_owned();
            self.has_rebooted = true;
            return Err(Silence::Rebooted);
        }
        let mut words = found.split(' ').skip(1);
        let code = words.next().and_then(|code| code.parse().ok()).unwrap_or(-1);
        let text = unbase64(words.next().unwrap_or_default());
        Ok(Said { code, text: String::from_utf8_lossy(&text).into_owned() })
    }

    /// The next line that fits; others are passed over.
    fn line(&mut self, limit: Duration, fits: impl Fn(&str) -> bool) -> Result<String, Silence> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(line) = self.shell.next_line(Duration::from_millis(250)) {
                if fits(&line) {
                    return Ok(line);
                }
                continue;
            }
            if self.is_off() {
                return Err(Silence::Off);
            }
            if Instant::now() > deadline {
                return Err(Silence::Late);
            }
        }
    }

    // --- Files -------------------------------------------------------------------------------------------------------

    /// Puts a file into the machine.
    ///
    /// # Panics
    /// If it cannot.
    pub fn put(&mut self, path: &str, content: &[u8]) {
        let length = content.len();
        self.log.say(&format!("> {path} ({length} bytes)"));
        let script = format!(
            "mkdir -p \"$(dirname '{path}')\" && exec 4<>/dev/virtio-ports/lab.files && head -c {length} <&4 >'{path}'"
        );
        let mut files = self.files.try_clone().expect("a socket");
        let bytes = content.to_owned();
        // Side by side: what the port does not take at once waits for the machine to read.
        let writer = std::thread::spawn(move || files.write_all(&bytes));
        let said = self.run(&script, SOON).unwrap_or_else(|silence| panic!("{path}: {silence}"));
        assert_eq!(said.code, 0, "{path}: {}", said.text);
        writer.join().expect("no panic").expect("the port takes the file");
    }

    /// Gets a file from the machine.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&mut self, path: &str) -> Vec<u8> {
        // A copy, because files are replaced while one looks.
        let copy = "/dev/shm/lab-file";
        let size = self.run(&format!("cp -L '{path}' {copy} && stat -c %s {copy}"), SOON);
        let size = size.unwrap_or_else(|silence| panic!("{path}: {silence}"));
        assert_eq!(size.code, 0, "{path}: {}", size.text);
        let size: usize = size.text.trim().parse().expect("a size");
        let mut files = self.files.try_clone().expect("a socket");
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; size];
            files.read_exact(&mut bytes).map(|()| bytes)
        });
        let script = format!("exec 4<>/dev/virtio-ports/lab.files && cat {copy} >&4; rm {copy}");
        let said = self.run(&script, SOON).unwrap_or_else(|silence| panic!("{path}: {silence}"));
        assert_eq!(said.code, 0, "{path}: {}", said.text);
        reader.join().expect("no panic").expect("the file comes out of the port")
    }

    // --- Link and power ----------------------------------------------------------------------------------------------

    /// Puts the plug of the network in or out.
    pub fn link(&mut self, up: bool) {
        self.log.say(if up { "== the link is up" } else { "== the link is cut" });
        self.tell("set_link", json!({ "name": "nic", "up": up }));
    }

    /// Cuts the power: at once, and with volatile disks whatever they had not written is gone.
    pub fn cut_power(mut self) {
        self.log.say("== the power is cut");
        self.kill();
    }

    /// Starts it anew as a person does, and waits until it has booted.
    ///
    /// # Errors
    /// If it does not boot.
    pub fn reboot(&mut self) -> Result<(), Silence> {
        self.log.say("== reboot");
        let _ = self.run("systemctl reboot --no-block", SOON);
        self.wait_for_boot()
    }

    /// Saves the machine's memory and devices, beside its disks as they are now, and switches it off.
    ///
    /// # Panics
    /// If it cannot be saved.
    pub fn save(mut self, state: &Path) {
        self.tell("stop", json!({}));
        self.tell("migrate-set-parameters", json!({ "max-bandwidth": 8u64 << 30 }));
        self.tell("migrate", json!({ "uri": format!("exec:cat >'{}'", state.display()) }));
        let deadline = Instant::now() + BOOT;
        loop {
            let status = self.tell("query-migrate", json!({}));
            match status["status"].as_str() {
                Some("completed") => break,
                Some("failed" | "cancelled") => panic!("the machine cannot be saved: {status}"),
                _ => assert!(Instant::now() < deadline, "the machine is not saved in time: {status}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // `quit` writes what is left to the disks' files.
        let _ = self.send("quit", &json!({}));
        let _ = self.qemu.wait();
    }

    /// Whether QEMU has ended.
    pub fn is_off(&mut self) -> bool {
        self.qemu.try_wait().is_ok_and(|status| status.is_some())
    }

    fn kill(&mut self) {
        for child in std::iter::once(&mut self.qemu).chain(&mut self.caches) {
            let _ = child.kill();
        }
        for child in std::iter::once(&mut self.qemu).chain(&mut self.caches) {
            let _ = child.wait();
        }
    }

    // --- QEMU's monitor ----------------------------------------------------------------------------------------------

    fn send(&mut self, command: &str, arguments: &Value) -> io::Result<()> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.monitor.get_mut().write_all(line.as_bytes())
    }

    fn tell(&mut self, command: &str, arguments: Value) -> Value {
        self.send(command, &arguments).unwrap_or_else(|e| panic!("QEMU's monitor: {command}: {e}"));
        loop {
            let mut answer = self.answer();
            if let Some(error) = answer.get("error") {
                panic!("QEMU's monitor: {command}: {error}");
            }
            if let Some(result) = answer.get_mut("return") {
                return result.take();
            }
            // An event.
        }
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        let read = self.monitor.read_line(&mut line);
        assert!(
            read.is_ok_and(|n| n > 0),
            "QEMU's monitor is silent; see {}",
            self.log.file("qemu").display()
        );
        serde_json::from_str(&line).expect("QEMU's monitor speaks JSON")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Port {
    fn next_line(&mut self, limit: Duration) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim().to_owned());
            }
            self.stream.set_read_timeout(Some(limit)).ok()?;
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    std::thread::sleep(limit);
                    return None;
                }
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                Err(_) => return None,
            }
        }
    }
}

/// A program that is killed when the laboratory dies, and that leaves the rest of the host its share; `PRESTAGE_VM_NICE=0`:
/// as large a share as others have.
fn tied(program: &str) -> Command {
    let nice = std::env::var("PRESTAGE_VM_NICE").unwrap_or_else(|_| "10".to_owned());
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "nice", "-n", &nice, program]);
    command
}

/// A disk that keeps in memory what is written until it is flushed, and dies with its memory.
fn volatile(path: &Path, socket: &Path) -> Child {
    let _ = fs::remove_file(socket);
    let mut nbdkit = tied("nbdkit");
    nbdkit.arg("--foreground").arg("--unix").arg(socket).args(["--filter=cache", "file"]).arg(path);
    let child = nbdkit.arg("cache=writeback").stdin(Stdio::null()).spawn();
    let child = child.expect("setpriv and nbdkit, which scripts/vm-image.sh installs");
    let deadline = Instant::now() + SOON;
    while !socket.exists() {
        assert!(Instant::now() < deadline, "nbdkit does not serve {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// A copy of a disk, holes and all.
///
/// # Panics
/// If there is no room for it.
pub fn copy_disk(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} cannot be copied", from.display());
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, i| word << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn unbase64(text: &str) -> Vec<u8> {
    let (mut bytes, mut word, mut bits) = (Vec::with_capacity(text.len()), 0u32, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|d| *d == byte)) {
        word = word << 6 | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    bytes
}
