//! The data centre's HTTP server: nginx, with the repository, the bare bundle and the apt archive.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::machine::Machine;
use crate::network::{CENTRE, Namespace};
use crate::stock::Stock;

/// The server answers by then, or something is wrong with it.
const READY: Duration = Duration::from_secs(10);

/// What it serves, and where it keeps what it must write.
pub struct Server {
    configuration: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Writes its configuration into `folder`.
    ///
    /// # Errors
    /// If it cannot.
    pub fn new(stock: &Stock, folder: &Path) -> Result<Server> {
        fs::create_dir_all(folder)?;
        let (log, configuration) = (folder.join("error.log"), folder.join("nginx.conf"));
        let folder = folder.display();
        let text = format!(
            "daemon off; user root; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
             access_log off; sendfile on; default_type application/octet-stream;\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
             server {{ listen {CENTRE}:80;\n\
             location / {{ root {}; }}\n\
             location /apt/ {{ alias {}/; }}\n\
             location = /bundle.tar.gz {{ alias {}; }}\n\
             }}\n}}\n",
            stock.repository.display(),
            stock.archive.display(),
            stock.bundle.display(),
        );
        fs::write(&configuration, text)?;
        Ok(Server { configuration, log })
    }

    /// Serves on this machine, which is in the data centre, until the bench is over; starts anew when the power is back.
    ///
    /// # Errors
    /// If nginx cannot be started, or ends by itself.
    pub fn serve(&self, machine: &Machine) -> Result<()> {
        while machine.boot() {
            let mut nginx = Command::new("nginx");
            nginx.arg("-c").arg(&self.configuration).arg("-e").arg(&self.log);
            nginx.stdout(Stdio::null()).stderr(Stdio::null());
            if let crate::machine::Ended::Code(code) = machine.run(&mut nginx)? {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("nginx ended with code {code}: {log}").into());
            }
        }
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// If it does not.
    pub fn wait(&self, centre: &Namespace) -> Result<()> {
        let end = Instant::now() + READY;
        loop {
            match centre.within(|| TcpStream::connect((CENTRE, 80)))? {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(e) => {
                    let log = fs::read_to_string(&self.log).unwrap_or_default();
                    return Err(format!("nginx does not answer: {e}; its log: {log}").into());
                }
            }
        }
    }
}
