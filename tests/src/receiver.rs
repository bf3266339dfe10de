//! The centre's end of reports: accepts what is a report, refuses what is not, and keeps it.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use format::report::Report;

use crate::http::{self, Request};

/// Where reports go.
pub const PATH: &str = "/api/v1/reports";

/// A receiver on loopback. Its thread ends with the process.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    accepted: Mutex<Vec<Report>>,
    refused: Mutex<Vec<String>>,
    /// Answer 503 to everything.
    down: AtomicBool,
    /// Also write each report here.
    folder: Option<PathBuf>,
}

impl Receiver {
    /// Starts one; accepted reports are also written to `folder`, a file each, if it is given.
    ///
    /// # Errors
    /// If there is no port, or the folder cannot be made.
    pub fn start(folder: Option<PathBuf>) -> io::Result<Receiver> {
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder)?;
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { folder, ..State::default() });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.talk(stream));
            }
        });
        Ok(Receiver { address, state })
    }

    /// The URL to configure on a node.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was accepted so far.
    pub fn accepted(&self) -> Vec<Report> {
        self.state.accepted.lock().expect("no thread panics with it").clone()
    }

    /// What was refused so far, and why.
    pub fn refused(&self) -> Vec<String> {
        self.state.refused.lock().expect("no thread panics with it").clone()
    }

    /// Whether to answer 503 from now on.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }
}

impl State {
    fn talk(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = Request::read(&mut reader)? {
            let status = self.judge(&request);
            http::write_head(&mut stream, status, &[("Content-Length", "0".into())])?;
        }
        Ok(())
    }

    fn judge(&self, request: &Request) -> u16 {
        if self.down.load(Ordering::SeqCst) {
            return 503;
        }
        if request.method != "POST" || request.path != PATH {
            return 404;
        }
        let report = match Report::parse(&request.body) {
            Ok(report) => report,
            Err(why) => {
                self.refused.lock().expect("no thread panics with it").push(why);
                return 400;
            }
        };
        if let Some(folder) = &self.folder {
            let name = format!("{}.json", report.id);
            if std::fs::write(folder.join(name), &request.body).is_err() {
                return 500;
            }
        }
        self.accepted.lock().expect("no thread panics with it").push(report);
        202
    }
}
