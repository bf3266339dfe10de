//! Real servers for the good cases: nginx, with and without TLS, and tinyproxy, each with a configuration and a port of
//! its own; and an authority that issues what they need, made by openssl.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::sandbox::{Running, Sandbox, command, program, succeed};
use crate::server::PATIENCE;

/// A server process. It ends with the value.
pub(crate) struct Service {
    process: Option<Running>,
    port: u16,
    log: PathBuf,
}

impl Service {
    /// Starts what `configure` has been told a port for, and waits until it listens.
    pub(crate) fn start(folder: &Path, configure: impl Fn(u16) -> std::process::Command) -> Service {
        fs::create_dir_all(folder).expect("a folder for a service");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut process = Running::start(&mut configure(port));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if process.has_ended() || Instant::now() > deadline {
                panic!("it does not listen: {}", process.kill());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Service { process: Some(process), port, log: folder.join("log") }
    }

    /// Where it listens, on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}

/// nginx over a folder.
pub struct Nginx {
    service: Service,
    scheme: &'static str,
}

impl Nginx {
    /// Over plain http.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(sandbox: &Sandbox, root: &Path) -> Nginx {
        Nginx::configured(&sandbox.path().join("nginx"), root, "", "")
    }

    /// The same, at this address of the network that it is started in as well.
    ///
    /// # Panics
    /// If it does not start.
    pub fn also_at(sandbox: &Sandbox, root: &Path, address: &str) -> Nginx {
        Nginx::configured(&sandbox.path().join("nginx"), root, "", address)
    }

    /// Over TLS, with a certificate by `authority`; `asks`: for clients that have one too, and no others.
    ///
    /// # Panics
    /// If it does not start.
    pub fn tls(authority: &Authority, root: &Path, asks: bool) -> Nginx {
        let (certificate, key) = authority.issue("server");
        let mut lines =
            format!("ssl_certificate {};\nssl_certificate_key {};\n", certificate.display(), key.display());
        if asks {
            let ca = authority.certificate();
            lines.push_str(&format!("ssl_client_certificate {};\nssl_verify_client on;\n", ca.display()));
        }
        Nginx::configured(&authority.folder.join("nginx"), root, &lines, "")
    }

    fn configured(folder: &Path, root: &Path, tls: &str, address: &str) -> Nginx {
        let service = Service::start(folder, |port| {
            // Its workers must enter a folder that only root can.
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
                .concat();
            let more = if address.is_empty() { String::new() } else { format!("listen {address}:{port};") };
            let text = format!(
                "user root;\nworker_processes 1;\ndaemon off;\nmaster_process off;\npid {folder}/pid;\n\
                 error_log stderr;\nevents {{ }}\nhttp {{\n{temporary}\
                 log_format plain '$request $status $http_range $request_time $body_bytes_sent';\n\
                 access_log {folder}/log plain;\n\
                 server {{ listen 127.0.0.1:{port}{ssl}; {more} root {root};\n{tls} }} }}\n",
                folder = folder.display(),
                root = root.display(),
                ssl = if tls.is_empty() { "" } else { " ssl" },
            );
            fs::write(folder.join("nginx.conf"), text).expect("a configuration");
            let mut nginx = command("/usr/sbin/nginx");
            nginx.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
            nginx
        });
        Nginx { service, scheme: if tls.is_empty() { "http" } else { "https" } }
    }

    /// Its URL, with a `/` at the end.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}/", self.scheme, self.service.port)
    }

    /// Its URL at another address.
    pub fn url_at(&self, address: &str) -> String {
        format!("{}://{address}:{}/", self.scheme, self.service.port)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.service.port))
    }

    /// What it has logged: a line for each request, with the status and at the end the body bytes sent.
    pub fn log(&self) -> Vec<String> {
        self.service.log().lines().map(str::to_owned).collect()
    }
}

/// The fleet server over a published repository, which it reads each second; its database is SQLite.
pub struct FleetServer {
    service: Service,
    config: PathBuf,
}

impl FleetServer {
    /// One with a folder of its own, and this in its configuration.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(sandbox: &Sandbox, repository: &Path, more: &str) -> FleetServer {
        let folder = sandbox.path().join("fleet-server");
        let config = folder.join("fleet.toml");
        let service = Service::start(&folder, |port| {
            let text = format!(
                "[server]\nlisten = \"127.0.0.1:{port}\"\n[database]\nurl = \"sqlite:{}\"\n\
                 [repository]\nlocation = {repository:?}\nroot = {:?}\nevery-seconds = 1\n{more}",
                folder.join("fleet.db").display(),
                repository.join("metadata/1.root.json"),
            );
            fs::write(&config, text).expect("a configuration");
            let mut server = command(program("prestage-fleet"));
            server.arg("--config").arg(&config).arg("serve");
            server
        });
        FleetServer { service, config }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.service.port)
    }

    /// Kills it as a power cut would.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(&self) {
        let id = self.service.process.as_ref().expect("a server").id();
        succeed(command("kill").args(["-KILL", &id.to_string()]));
    }

    /// A command of its administrator, that must succeed; what it printed.
    pub fn administer(&self, arguments: &[&str]) -> String {
        let mut command = command(program("prestage-fleet"));
        succeed(command.arg("--config").arg(&self.config).args(arguments)).trim().to_owned()
    }
}

/// A forward proxy.
pub struct Tinyproxy(Service);

impl Tinyproxy {
    /// One that lets in whom it knows, by user and password.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(sandbox: &Sandbox, (user, password): (&str, &str)) -> Tinyproxy {
        let folder = sandbox.path().join("tinyproxy");
        let service = Service::start(&folder, |port| {
            let text = format!(
                "User root\nGroup root\nPort {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\n\
                 LogFile \"{}\"\nLogLevel Connect\nBasicAuth {user} {password}\n",
                folder.join("log").display()
            );
            fs::write(folder.join("conf"), text).expect("a configuration");
            let mut proxy = command("/usr/bin/tinyproxy");
            proxy.arg("-d").arg("-c").arg(folder.join("conf"));
            proxy
        });
        Tinyproxy(service)
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.0.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.0.log()
    }
}

/// Avahi, which says on the links of the network that it is started in that a node shares. It has folders of its own in
/// place of the machine's, and nothing of it is seen outside.
pub struct Avahi(Option<Running>);

impl Avahi {
    /// Starts it, for a node that shares at `port`, by the file that the project ships.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(sandbox: &Sandbox, port: u16) -> Avahi {
        let folder = sandbox.path().join("avahi");
        fs::create_dir_all(folder.join("services")).expect("a folder");
        let service = include_str!("../../packaging/examples/avahi-prestage.service");
        let service = service.replace("8571", &port.to_string());
        fs::write(folder.join("services/prestage.service"), service).expect("a file");
        let text = "[server]\nhost-name=till-1\nuse-ipv6=no\nenable-dbus=no\n[rlimits]\n";
        fs::write(folder.join("avahi-daemon.conf"), text).expect("a file");
        let mut unshare = command("unshare");
        let script = "mount --bind \"$1\" /etc/avahi && mount -t tmpfs none /run && mkdir /run/avahi-daemon && \
                      exec avahi-daemon --no-drop-root --no-chroot --no-proc-title --no-rlimits";
        unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(&folder);
        Avahi(Some(Running::start(&mut unshare)))
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        if let Some(process) = self.0.take() {
            process.kill();
        }
    }
}

/// A private certificate authority.
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// If openssl cannot make it.
    pub fn new(sandbox: &Sandbox, name: &str) -> Authority {
        let authority = Authority { folder: sandbox.path().join(name) };
        fs::create_dir_all(&authority.folder).expect("a folder for an authority");
        let (key, certificate) = (authority.folder.join("ca.key"), authority.certificate());
        let subject = format!("/CN={name}");
        succeed(
            request(&subject).args(["-x509", "-days", "2", "-keyout"]).arg(key).arg("-out").arg(certificate),
        );
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues a certificate for 127.0.0.1, good for servers and clients: its file and that of its key.
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue_to(name, &format!("/CN={name}"))
    }

    /// The same, for whoever is called so (`/O=…/CN=…`).
    pub fn issue_to(&self, name: &str, subject: &str) -> (PathBuf, PathBuf) {
        let file = |ending: &str| self.folder.join(format!("{name}.{ending}"));
        let (csr, key, certificate, extensions) = (file("csr"), file("key"), file("crt"), file("ext"));
        succeed(request(subject).arg("-keyout").arg(&key).arg("-out").arg(&csr));
        fs::write(
            &extensions,
            "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
        )
        .expect("a file");
        let mut issue = command("openssl");
        issue.args(["x509", "-req", "-days", "2", "-in"]).arg(&csr).arg("-extfile").arg(&extensions);
        issue.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.folder.join("ca.key"));
        succeed(issue.arg("-CAcreateserial").arg("-out").arg(&certificate));
        (certificate, key)
    }
}

fn request(subject: &str) -> std::process::Command {
    let mut request = command("openssl");
    request.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    request.args(["-subj", subject]);
    request
}
