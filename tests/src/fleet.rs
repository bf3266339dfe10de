//! A fleet server that loses answers, forgets, revokes and refuses on order, which the real one (`fleet/`) does not. What it
//! is sent it verifies with the real reader, and it counts what comes again.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use format::digest::Sha256;
use format::envelope::{Answer, Document, NodeInventory, Refusal, Sealed, SentStatus, read_batch};
use format::name::NodeId;
use format::node_key::NodePublicKey;
use format::report::Report;

use crate::http::{self, Request};

/// What it does beside its work.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// Answers everything with this status and this Retry-After.
    pub down: Option<(u16, Option<String>)>,
    /// Does everything and then says nothing: the answer is lost on the way.
    pub loses_answers: bool,
    /// Refuses every report for good, with this reason.
    pub refuses: Option<String>,
    /// Wants to see every inventory that it hears of.
    pub wants_inventories: bool,
    /// Enrols only with this token; none: whoever comes.
    pub token: Option<String>,
    /// Has revoked every key.
    pub has_revoked: bool,
}

/// What it has been told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The key of each node that has enrolled.
    pub keys: BTreeMap<NodeId, NodePublicKey>,
    /// Requests to enrol.
    pub enrollments: u64,
    /// Reports by their id, so that each counts once.
    pub reports: BTreeMap<Sha256, Report>,
    /// How many reports have come, again and again.
    pub arrivals: u64,
    /// How a node was, each time that it said so.
    pub statuses: Vec<SentStatus>,
    /// What was installed.
    pub inventories: BTreeMap<Sha256, NodeInventory>,
    /// What it could not read or verify.
    pub wrong: Vec<String>,
}

/// The server, on loopback. Its thread ends with the process.
pub struct Fleet {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    orders: Mutex<Orders>,
    told: Mutex<Told>,
}

impl Fleet {
    /// Starts one.
    ///
    /// # Errors
    /// If there is no port.
    pub fn start() -> io::Result<Fleet> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, state) = (listener.local_addr()?, Arc::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.talk(stream));
            }
        });
        Ok(Fleet { address, state })
    }

    /// The URL to configure on a node.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub fn orders(&self, orders: Orders) {
        *held(&self.state.orders) = orders;
    }

    /// What it has been told so far.
    pub fn told(&self) -> Told {
        held(&self.state.told).clone()
    }

    /// Everything is forgotten, as after a restore of an old backup.
    pub fn forget(&self) {
        *held(&self.state.told) = Told::default();
    }

    /// Takes what was carried here, and answers as it would over the network.
    ///
    /// # Panics
    /// If it is no batch.
    pub fn import(&self, batch: &[u8]) -> Vec<u8> {
        let (status, answer) = self.state.batch(batch);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        answer
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with it")
}

fn problem(status: u16, detail: &str) -> (u16, Vec<u8>) {
    (status, serde_json::json!({ "title": "refused", "detail": detail }).to_string().into_bytes())
}

impl State {
    fn talk(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = Request::read(&mut reader)? {
            let orders = held(&self.orders).clone();
            let mut headers = Vec::new();
            let (status, body) = match &orders.down {
                Some((status, retry_after)) => {
                    headers.extend(retry_after.clone().map(|value| ("Retry-After", value)));
                    problem(*status, "not now")
                }
                None => self.judge(&request),
            };
            if orders.loses_answers {
                return Ok(()); // the connection ends without a word
            }
            headers.push(("Content-Length", body.len().to_string()));
            http::write_head(&mut stream, status, &headers)?;
            stream.write_all(&body)?;
        }
        Ok(())
    }

    fn judge(&self, request: &Request) -> (u16, Vec<u8>) {
        let body = match request.header("content-encoding") {
            // 10 bytes of header and 8 of trailer (RFC 1952).
            Some("gzip") if request.body.len() > 18 => {
                let deflated = &request.body[10..request.body.len() - 8];
                match miniz_oxide::inflate::decompress_to_vec(deflated) {
                    Ok(body) => body,
                    Err(_) => return problem(400, "no gzip"),
                }
            }
            None => request.body.clone(),
            _ => return problem(415, "not this encoding"),
        };
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/api/v1/enrollments") => self.enrollment(&body),
            ("POST", "/api/v1/reports") => self.batch(&body),
            ("PUT", path) if path.starts_with("/api/v1/inventories/") => self.inventory(&body),
            _ => problem(404, "there is nothing here"),
        }
    }

    fn enrollment(&self, body: &[u8]) -> (u16, Vec<u8>) {
        let opened = Sealed::parse(body).map_err(|e| e.to_string());
        let opened = opened.and_then(|sealed| sealed.open_enrollment().map_err(|e| e.to_string()));
        let mut told = held(&self.told);
        told.enrollments += 1;
        let (enrollment, _) = match opened {
            Ok(opened) => opened,
            Err(why) => {
                told.wrong.push(why.clone());
                return problem(400, &why);
            }
        };
        match told.keys.get(&enrollment.node) {
            Some(key) if *key == enrollment.public_key => return (200, b"{}".to_vec()),
            Some(_) => return problem(409, "another key is enrolled for this node"),
            None => {}
        }
        let token = held(&self.orders).token.clone();
        if token.is_some() && token.as_deref() != enrollment.token.as_ref().map(|token| token.as_str()) {
            return problem(403, "the token is wrong");
        }
        told.keys.insert(enrollment.node, enrollment.public_key);
        (201, b"{}".to_vec())
    }

    fn batch(&self, body: &[u8]) -> (u16, Vec<u8>) {
        let orders = held(&self.orders).clone();
        if orders.has_revoked {
            return problem(403, "the key is revoked");
        }
        let documents = match read_batch(body) {
            Ok(documents) => documents,
            Err(e) => return problem(400, &e.to_string()),
        };
        let mut told = held(&self.told);
        let mut answer = Answer::default();
        for document in documents {
            let opened = Sealed::take(document).map_err(|e| e.to_string()).and_then(|sealed| {
                let node = sealed.node().map_err(|e| e.to_string())?;
                let key = told.keys.get(&node).copied();
                let id = sealed.id();
                Ok((id, key.map(|key| sealed.open(&node, &key).map_err(|e| e.to_string()))))
            });
            match opened {
                Ok((_, None)) => return problem(401, "the key is unknown"),
                Ok((id, Some(Ok(opened)))) => match opened.document {
                    Document::Report(_) if orders.refuses.is_some() => {
                        let reason = orders.refuses.clone().unwrap_or_default();
                        answer.refused.push(Refusal { id, reason });
                    }
                    Document::Report(report) => {
                        told.arrivals += 1;
                        answer.wants_inventory.extend(report.inventory.filter(|_| orders.wants_inventories));
                        told.reports.insert(id, *report);
                        answer.accepted.push(id);
                    }
                    Document::Status(status) => {
                        answer.wants_inventory.extend(status.inventory.filter(|_| orders.wants_inventories));
                        told.statuses.push(*status);
                        answer.accepted.push(id);
                    }
                    Document::Inventory(inventory) => {
                        told.inventories.insert(inventory.inventory, inventory);
                        answer.accepted.push(id);
                    }
                    Document::Enrollment(_) => answer.refused.push(Refusal { id, reason: "not here".into() }),
                },
                Ok((id, Some(Err(why)))) => {
                    told.wrong.push(why.clone());
                    answer.refused.push(Refusal { id, reason: why });
                }
                Err(why) => told.wrong.push(why),
            }
        }
        (200, serde_json::to_vec(&answer).expect("an answer"))
    }

    fn inventory(&self, body: &[u8]) -> (u16, Vec<u8>) {
        let mut told = held(&self.told);
        let opened = Sealed::parse(body).map_err(|e| e.to_string()).and_then(|sealed| {
            let node = sealed.node().map_err(|e| e.to_string())?;
            let key = told.keys.get(&node).copied().ok_or("the key is unknown")?;
            sealed.open(&node, &key).map_err(|e| e.to_string())
        });
        match opened.map(|opened| opened.document) {
            Ok(Document::Inventory(inventory)) => {
                told.inventories.insert(inventory.inventory, inventory);
                (201, b"{}".to_vec())
            }
            Ok(_) => problem(400, "it is no inventory"),
            Err(why) => {
                told.wrong.push(why.clone());
                problem(400, &why)
            }
        }
    }
}
