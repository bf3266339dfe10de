//! A folder of its own for each case, and the real programs run in it.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A program that has not ended by then hangs: it is killed and the case fails.
const DEADLINE: Duration = Duration::from_secs(900);

/// How a program ended.
#[derive(Debug, Default)]
pub struct Output {
    command: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Peak memory of the program itself, in KiB.
    pub own_kib: u64,
}

impl Output {
    /// Fails the case unless the program ended with this code.
    ///
    /// # Panics
    /// With everything that it wrote.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert!(self.code == Some(code), "expected exit code {code} of\n{self}");
        self
    }

    /// Fails the case unless each text is in what the program wrote.
    ///
    /// # Panics
    /// With everything that it wrote.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        let all = format!("{}{}", self.stdout, self.stderr).to_lowercase();
        for text in texts {
            assert!(all.contains(&text.to_lowercase()), "expected the words {text:?} of\n{self}");
        }
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "$ {}\nexit code {:?}, signal {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.signal, self.stdout, self.stderr
        )
    }
}

/// A case's own folder. Removed with the value, unless the case has failed and `PRESTAGE_KEEP` is set.
pub struct Sandbox {
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Sandbox {
    /// A new one.
    ///
    /// # Panics
    /// If not root: mounts and namespaces need it, and a case that did not run must not look like one that passed.
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the end-to-end tests need root (overlay mounts, chroot, network namespaces): run them with sudo, \
             or only the others with: cargo test --workspace --exclude prestage-tests"
        );
        // /var/tmp, for /tmp may be a small file system in memory.
        let folder = tempfile::Builder::new()
            .prefix("prestage-test.")
            .tempdir_in("/var/tmp")
            .expect("a temporary folder");
        let path = folder.path().to_owned();
        Sandbox { folder: Some(folder), path }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("PRESTAGE_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
            if let Some(folder) = self.folder.take() {
                let _ = folder.keep();
            }
        }
    }
}

/// The program of the build that this test belongs to.
///
/// # Panics
/// If it is not there and cannot be built.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = match std::env::var_os("PRESTAGE_BIN") {
            Some(folder) => folder.into(),
            None => {
                // target/debug/deps/e2e-… → target/debug
                let own = std::env::current_exe().expect("a test has a path");
                let deps = own.parent().unwrap_or(Path::new("."));
                deps.parent().unwrap_or(deps).to_owned()
            }
        };
        if !["prestage", "prestage-build"].iter().all(|p| folder.join(p).is_file()) {
            let status = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "-p", "prestage", "-p", "prestage-build"])
                .status();
            assert!(status.is_ok_and(|s| s.success()), "the programs could not be built");
        }
        folder
    });
    folder.join(name)
}

/// A program to run, with an environment that does not depend on who runs the tests.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

/// Runs a program to its end.
///
/// # Panics
/// If it cannot be started or hangs.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    Running::start(command).wait()
}

/// Runs a program that must succeed, and returns its standard output.
///
/// # Panics
/// If it does not, with everything that it wrote.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    run(command).expect(0).stdout
}

/// A program that is running.
pub struct Running {
    command: String,
    child: Child,
    pipes: Vec<std::thread::JoinHandle<String>>,
    own_kib: u64,
}

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Running {
        let line = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{line}: {error}"),
        };
        let mut pipes = Vec::new();
        pipes.extend(child.stdout.take().map(drain));
        pipes.extend(child.stderr.take().map(drain));
        Running { command: line, child, pipes, own_kib: 0 }
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(mut self) -> Output {
        let _ = self.child.kill();
        self.wait()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|s| s.is_some())
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it hangs.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let Some(status) = self.ends_within(DEADLINE) else {
            let _ = self.child.kill();
            panic!("{} hangs: killed after {DEADLINE:?}", self.command);
        };
        self.output(status)
    }

    /// Waits for its end, and kills it if it has not come in `time`: it then ended by a signal.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn wait_for(mut self, time: Duration) -> Output {
        match self.ends_within(time) {
            Some(status) => self.output(status),
            None => self.kill(),
        }
    }

    fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            self.own_kib = self.own_kib.max(crate::measure::peak_kib(&self.child));
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn output(mut self, status: ExitStatus) -> Output {
        let mut texts = self.pipes.drain(..).map(|p| p.join().unwrap_or_default());
        Output {
            code: status.code(),
            signal: status.signal(),
            stdout: texts.next().unwrap_or_default(),
            stderr: texts.next().unwrap_or_default(),
            own_kib: self.own_kib,
            command: self.command,
        }
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
