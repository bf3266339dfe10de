//! A PostgreSQL server of our own, from the distribution's package: an unprivileged cluster in a folder that goes away, on a
//! socket in it and on no network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The user of the distribution's package, for tests that run as root, as which PostgreSQL does not.
const USER: &str = "postgres";

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster.
pub struct Cluster {
    folder: TempDir,
    server: Option<Child>,
}

fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL: run scripts/setup.sh")
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|path| path.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL: run scripts/setup.sh")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout.trim_ascii() == b"0"
}

/// A program of PostgreSQL, as a user that it accepts, which dies with this process.
fn program(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
    }
    command.arg("--").arg(programs().join(name)).env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}

impl Cluster {
    /// Makes and starts one.
    pub fn start() -> Cluster {
        let folder = tempfile::Builder::new().prefix("prestage-pg-").tempdir().expect("a folder");
        if is_root() {
            let owned = Command::new("chown").arg(USER).arg(folder.path()).status().expect("chown");
            assert!(owned.success());
        }
        let made = program("initdb")
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--username", USER, "-D"])
            .arg(folder.path().join("data"))
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut cluster = Cluster { folder, server: None };
        cluster.up();
        cluster
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::create(self.path().join("log")).expect("a log");
        program("postgres")
            .arg("-D")
            .arg(self.path().join("data"))
            .args(["-c", "listen_addresses=", "-c", "shared_buffers=64MB", "-c", "max_connections=60", "-k"])
            .arg(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres")
    }

    /// Starts the server, and waits until it answers. It writes to the disk as in earnest.
    pub fn up(&mut self) {
        let end = Instant::now() + PATIENCE;
        let mut server = self.spawn();
        loop {
            let ready = Command::new(programs().join("pg_isready"))
                .args(["-q", "-U", USER, "-h"])
                .arg(self.path())
                .status()
                .expect("pg_isready");
            if ready.success() {
                self.server = Some(server);
                return;
            }
            let log = || std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "PostgreSQL did not start: {}", log());
            // The children of one that was killed may need a moment to notice, and then there can be no other.
            if server.try_wait().expect("wait").is_some() {
                server = self.spawn();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The server's process.
    pub fn id(&self) -> u32 {
        self.server.as_ref().expect("a server").id()
    }

    /// Kills the server as a power cut would, children and all.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The postmaster's children die when it does.
            server.kill().expect("kill");
            server.wait().expect("wait");
        }
    }

    /// Runs a statement with psql; what it printed.
    pub fn psql(&self, database: &str, statement: &str) -> String {
        let output = Command::new(programs().join("psql"))
            .args(["-X", "-A", "-t", "-q", "-U", USER, "-d", database, "-c", statement, "-h"])
            .arg(self.path())
            .output()
            .expect("psql");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes a database; its URL.
    pub fn database(&self, name: &str) -> String {
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        let socket = self.path().to_str().expect("UTF-8").replace('/', "%2F");
        format!("postgres://{USER}@{socket}/{name}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}
