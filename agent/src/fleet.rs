//! What this node tells prestage-fleet, and what that answers: enrolment, status, reports, inventory.
//!
//! Each document is signed by the node's key and has an id. What the server has accepted goes from the queue, what it
//! refuses is kept aside, and of everything else it is told again: at least once, which the server counts once. When the
//! node tells is its own time, by the functions that spread a fleet's fetches ([`crate::spread`], [`crate::backoff`]).
//!
//! Everything here but the key is the fetch user's, and done as him.

use std::path::Path;
use std::time::Duration;

use format::container::gzip;
use format::digest::Sha256;
use format::envelope::{Answer, Enrollment, NodeInventory, SentStatus};
use format::inventory::Inventory;
use format::json::{self, JsonError};
use format::name::NodeId;
use format::node_key::NodeKey;
use format::status::FleetStatus;
use format::time::UnixTime;
use host::file::{self, Lock};
use host::rights::with_own_rights;

use crate::config::FleetSettings;
use crate::error::{Error, Exit, Result, one_line};
use crate::fetch::{Client, Reply};
use crate::node::Node;
use crate::spread::{Decision, Pace, State, Why, place};
use crate::{key, queue, status};

/// Bytes of one batch, about: what is in memory at a time.
const BATCH: usize = 256 * 1024;

/// For one request and its answer, over the thinnest line.
const PATIENCE: Duration = Duration::from_secs(300);

/// The longest answer that is shown.
const SHOWN: usize = 300;

/// What is kept from one run to the next. Losing it costs an enrolment that is there already.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Kept {
    /// The server and the key that know each other: `URL KEYID`.
    enrolled: Option<String>,
    accepted_at: Option<UnixTime>,
    problem: Option<String>,
    pace: State,
    /// What the package manager's database was, and the inventory that it had then.
    inventory: Option<(Sha256, Sha256)>,
}

impl Kept {
    fn load(node: &Node) -> Kept {
        let bytes = file::read_limited(&node.fetched("fleet.json"), 64 * 1024).ok().flatten();
        let kept: Option<Kept> = bytes.and_then(|bytes| json::read(&bytes).ok());
        kept.filter(|kept| kept.pace.is_current()).unwrap_or_default()
    }

    /// On a full disk it is not kept: what was told is told, and comes to nothing when it is told again.
    fn save(&self, node: &Node) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::io("fleet", &e.into()))?;
        match file::replace_like(&node.fetched("fleet.json"), &bytes, 0o644, &node.fetched("")) {
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                ) =>
            {
                log::warn!("{e}");
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// How it stands with the server, for status.json; none, if there is none.
pub fn standing(node: &Node) -> Option<FleetStatus> {
    let fleet = node.settings.fleet.as_ref()?;
    let kept = Kept::load(node);
    Some(FleetStatus {
        url: fleet.url.clone(),
        accepted_at: kept.accepted_at,
        problem: kept.problem,
        next: kept.pace.retry_at.or(kept.pace.next_poll).filter(|_| fleet.paced),
        refused: queue::refused(node),
    })
}

/// Tells the server what there is to tell, if it is this node's time; `now`: whatever the time. Says how many reports were
/// accepted.
///
/// # Errors
/// Unavailable, if the server cannot be reached or does not take what this node says; what was not accepted stays.
pub fn report(node: &Node, fleet: &FleetSettings, now: bool) -> Result<u64> {
    let key = key::of(node)?;
    node.make_folders()?;
    node.as_fetch_user(|| {
        let path = node.fetched("report.lock");
        let Some(_lock) = Lock::take(&path)? else {
            return Err(Error::deferred("another `prestage report` is at work"));
        };
        let mut kept = Kept::load(node);
        if fleet.paced && !now && !is_time(node, fleet, &mut kept)? {
            return Ok(0);
        }
        let mut talk =
            Talk { node, fleet, key: &key, kept, client: client(node, fleet)?, accepted: 0, asked: None };
        let result = talk.enrol().and_then(|()| talk.tell());
        talk.close(&result)?;
        result.map(|()| talk.accepted)
    })
}

/// Whether it is this node's time.
fn is_time(node: &Node, fleet: &FleetSettings, kept: &mut Kept) -> Result<bool> {
    let now = node.now();
    kept.pace = std::mem::take(&mut kept.pace).awake(&node.id, &fleet.pace, now);
    let Some((at, why)) = wait(&kept.pace, &node.id, &fleet.pace, queue::newest(node), now) else {
        return Ok(true);
    };
    log::debug!("this node tells the fleet server at {at}: {why}; `prestage report --now` does not wait");
    kept.save(node)?;
    Ok(false)
}

/// Until when a node waits, and why; none: it does not. `newest`: when the newest outcome was that nobody has heard of, in
/// seconds. It does not wait for the next turn, but a little, so that nodes whose windows open together do not all tell it in
/// the same minute; after a failure it waits as everything does.
fn wait(
    state: &State,
    node: &NodeId,
    pace: &Pace,
    newest: Option<i64>,
    now: UnixTime,
) -> Option<(UnixTime, Why)> {
    let Decision::Wait { until, why } = state.poll(now) else { return None };
    let soon = newest.filter(|_| state.retry_at.is_none());
    let soon = soon.map(|at| UnixTime(at + place(node, &format!("tell {at}"), pace.poll_every / 3)));
    match soon {
        Some(soon) if soon <= now => None,
        Some(soon) if soon < until => Some((soon, Why::Turn)),
        _ => Some((until, why)),
    }
}

fn client(node: &Node, fleet: &FleetSettings) -> Result<Client> {
    let ca_file = fleet.ca_file.as_ref().or(node.settings.ca_file.as_ref()).map(|file| file.as_path());
    Client::trusting(&node.settings, ca_file, &node.root, fleet.url.starts_with("https://"))
}

/// One conversation with the server.
struct Talk<'n> {
    node: &'n Node,
    fleet: &'n FleetSettings,
    key: &'n NodeKey,
    kept: Kept,
    client: Client,
    /// Reports that were accepted.
    accepted: u64,
    /// How long the server wants to be left alone.
    asked: Option<Duration>,
}

impl Talk<'_> {
    /// The server and the key, as they are remembered when they know each other.
    fn pair(&self) -> String {
        format!("{} {}", self.fleet.url, self.key.public().id())
    }

    /// Makes this node's key known to the server, if it is not.
    fn enrol(&mut self) -> Result<()> {
        if self.kept.enrolled == Some(self.pair()) {
            return Ok(());
        }
        let node = self.node;
        let token = key::token(&key::below(&node.root, &self.fleet.token_file))?;
        let enrollment = Enrollment::new(
            node.id.clone(),
            self.key.public(),
            node.variant.clone(),
            node.settings.labels.clone(),
            token,
            node.now(),
        );
        let document = self.key.seal(&to_json(&enrollment)?).map_err(invalid)?;
        let reply = self.send(false, "/api/v1/enrollments", &document)?;
        match reply.status {
            200 | 201 => {
                log::info!("this node is known to {} by the key {}", self.fleet.url, self.key.public().id());
                self.kept.enrolled = Some(self.pair());
                Ok(())
            }
            403 | 409 => Err(Error::new(
                Exit::Config,
                self.says(&reply, "does not enrol this node"),
                "ask the operator for a token (prestage enroll --token-file) or to register this node's key \
                 (prestage enroll --key-only shows it)",
            )),
            _ => Err(self.refused(&reply)),
        }
    }

    /// Status and reports, in batches; then the inventory, if the server asks for it.
    fn tell(&mut self) -> Result<()> {
        let status = self.status()?;
        let mut files = queue::files(self.node).into_iter();
        let mut batch = Batch::new();
        batch.add(None, self.key.seal(&status).map_err(invalid)?);
        let mut wanted = Vec::new();
        loop {
            let next = files.next();
            let waiting = next.map(|path| queue::take(self.node, path)).transpose()?;
            let is_last = waiting.is_none();
            if let Some(Some(waiting)) = waiting {
                let envelope = self.key.seal(&waiting.bytes).map_err(invalid)?;
                if !batch.has_room(envelope.len()) {
                    wanted.extend(self.tell_batch(std::mem::take(&mut batch))?);
                }
                batch.add(Some((waiting.report.id, waiting.path)), envelope);
            }
            if is_last {
                break;
            }
        }
        if !batch.envelopes.is_empty() {
            wanted.extend(self.tell_batch(batch)?);
        }
        self.tell_inventory(&wanted)
    }

    /// The status as it is now, and what is installed now.
    fn status(&mut self) -> Result<Vec<u8>> {
        let mut said = status::load(self.node);
        said.status.reports_queued = queue::files(self.node).len() as u64;
        said.status.fleet = standing(self.node);
        let now = self.node.now();
        SentStatus::write(&to_json(&said)?, now, self.inventory_digest()).map_err(invalid)
    }

    /// One batch, and what becomes of each of its reports; the inventories that the server would like to have.
    fn tell_batch(&mut self, batch: Batch) -> Result<Vec<Sha256>> {
        let reply = self.send(false, "/api/v1/reports", &format::envelope::write_batch(&batch.envelopes))?;
        match reply.status {
            200 => {}
            401 => {
                // Its database is an older one, perhaps. The next call enrols anew.
                self.kept.enrolled = None;
                return Err(Error::new(
                    Exit::Unavailable,
                    self.says(&reply, "does not know this node's key"),
                    "everything is kept; the next report asks it to enrol this node again",
                ));
            }
            403 => {
                return Err(Error::new(
                    Exit::Unavailable,
                    self.says(&reply, "has revoked this node's key"),
                    "everything is kept; ask the operator why, and to register a key for this node again",
                ));
            }
            _ => return Err(self.refused(&reply)),
        }
        let answer = Answer::parse(&reply.body).map_err(|e| self.unavailable(&format!("its answer: {e}")))?;
        for (id, path) in batch.reports {
            if answer.accepted.contains(&id) {
                queue::remove(self.node, &path)?;
                self.accepted += 1;
            } else if let Some(refusal) = answer.refused.iter().find(|refusal| refusal.id == id) {
                queue::put_aside(self.node, &path, &refusal.reason)?;
            }
        }
        self.kept.accepted_at = Some(self.node.now());
        Ok(answer.wants_inventory)
    }

    /// The installed packages, if it is them that are asked for.
    fn tell_inventory(&mut self, wanted: &[Sha256]) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let inventory = self.node.package_manager()?.inventory()?;
        let digest = inventory.digest();
        if !wanted.contains(&digest) {
            log::debug!("the server asks for an inventory that this node has no more");
            return Ok(());
        }
        let document = self.key.seal(&inventory_document(self.node, &inventory)?).map_err(invalid)?;
        let reply = self.send(true, &format!("/api/v1/inventories/{digest}"), &document)?;
        match reply.status {
            200 | 201 | 204 => Ok(()),
            _ => Err(self.refused(&reply)),
        }
    }

    /// The digest of what is installed: asked of the package manager when its database has changed. A node whose package
    /// manager cannot be asked tells the rest.
    fn inventory_digest(&mut self) -> Option<Sha256> {
        let ask = || {
            let packages = self.node.package_manager()?;
            let fingerprint = packages.fingerprint()?;
            match self.kept.inventory {
                Some((known, digest)) if known == fingerprint => Ok((fingerprint, digest)),
                _ => Ok((fingerprint, packages.inventory()?.digest())),
            }
        };
        let known: Result<(Sha256, Sha256)> = ask();
        self.kept.inventory = known.inspect_err(|error| log::debug!("{error}")).ok();
        self.kept.inventory.map(|(_, digest)| digest)
    }

    fn send(&mut self, is_put: bool, path: &str, body: &[u8]) -> Result<Reply> {
        let url = format!("{}{path}", self.fleet.url);
        let packed = gzip(body).map_err(|e| Error::io("gzip", &e))?;
        let reply = self.client.send(is_put, &url, ("Content-Encoding", "gzip"), &packed, PATIENCE);
        let reply = reply.map_err(|why| self.unavailable(&why))?;
        self.asked = self.asked.max(reply.retry_after);
        Ok(reply)
    }

    fn unavailable(&self, why: &str) -> Error {
        let what = format!("{}: {why}", self.fleet.url);
        Error::new(Exit::Unavailable, what, "what was not accepted stays in the queue and is sent again")
    }

    fn refused(&self, reply: &Reply) -> Error {
        self.unavailable(&format!("it answered {}{}", reply.status, problem(&reply.body)))
    }

    fn says(&self, reply: &Reply, what: &str) -> String {
        format!("{} {what} ({}{})", self.fleet.url, reply.status, problem(&reply.body))
    }

    /// Keeps how it went.
    fn close(&mut self, result: &Result<()>) -> Result<()> {
        let (node, now) = (self.node, self.node.now());
        let asked = self.asked.map(|asked| i64::try_from(asked.as_secs()).unwrap_or(i64::MAX));
        let pace = std::mem::take(&mut self.kept.pace);
        self.kept.pace = match result {
            Ok(()) => pace.polled(&node.id, &self.fleet.pace, None, now),
            Err(_) => pace.failed(&node.id, &self.fleet.pace, asked, self.accepted > 0, now),
        };
        self.kept.problem = result.as_ref().err().map(ToString::to_string);
        self.kept.save(node)
    }
}

/// Envelopes that go together, with the reports among them.
#[derive(Default)]
struct Batch {
    envelopes: Vec<Vec<u8>>,
    bytes: usize,
    reports: Vec<(Sha256, std::path::PathBuf)>,
}

impl Batch {
    fn new() -> Self {
        Batch::default()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.envelopes.is_empty()
            || (self.bytes + bytes <= BATCH && self.envelopes.len() < format::envelope::MAX_DOCUMENTS)
    }

    fn add(&mut self, report: Option<(Sha256, std::path::PathBuf)>, envelope: Vec<u8>) {
        self.bytes += envelope.len();
        self.envelopes.push(envelope);
        self.reports.extend(report);
    }
}

/// `report --export`: status and all that waits, signed, as one batch in a file; nothing is removed. Says how many reports.
///
/// # Errors
/// If there is no key, or the file cannot be written.
pub fn export(node: &Node, to: &Path) -> Result<u64> {
    let key = key::of(node)?;
    node.make_folders()?;
    // Of a node whose package manager cannot be asked, the rest is told.
    let inventory = node.package_manager().and_then(|packages| packages.inventory());
    let inventory = inventory.map(|it| it.digest()).inspect_err(|error| log::debug!("{error}")).ok();
    let status = SentStatus::write(&to_json(&status::load(node))?, node.now(), inventory).map_err(invalid)?;
    let mut envelopes = vec![key.seal(&status).map_err(invalid)?];
    for path in queue::files(node) {
        if let Some(waiting) = node.as_fetch_user(|| queue::take(node, path))? {
            envelopes.push(key.seal(&waiting.bytes).map_err(invalid)?);
        }
    }
    file::replace(to, &format::envelope::write_batch(&envelopes), 0o644)?;
    Ok((envelopes.len() - 1) as u64)
}

/// `report --import`: obeys the server's answer to an export. Says how many reports were accepted.
///
/// # Errors
/// If it is no answer, or something cannot be removed.
pub fn import(node: &Node, receipt: &Path) -> Result<u64> {
    let limit = format::envelope::MAX_ANSWER as u64;
    let bytes = with_own_rights(|| file::read_limited(receipt, limit))?
        .ok_or_else(|| Error::file(receipt, &std::io::ErrorKind::NotFound.into()))?;
    let answer = Answer::parse(&bytes).map_err(|e| {
        let what = format!("{}: it is no receipt of prestage-fleet: {e}", receipt.display());
        Error::new(
            Exit::Usage,
            what,
            "nothing was changed; use the file that `prestage-fleet import` has written",
        )
    })?;
    node.as_fetch_user(|| {
        let mut accepted = 0;
        for path in queue::files(node) {
            let Some(waiting) = queue::take(node, path)? else { continue };
            let id = waiting.report.id;
            if answer.accepted.contains(&id) {
                queue::remove(node, &waiting.path)?;
                accepted += 1;
            } else if let Some(refusal) = answer.refused.iter().find(|refusal| refusal.id == id) {
                queue::put_aside(node, &waiting.path, &refusal.reason)?;
            }
        }
        Ok(accepted)
    })
}

/// `enroll`: makes this node's key known to the server at once.
///
/// # Errors
/// As [`report`]; with exit code 78, if the server does not enrol it.
pub fn enroll(node: &Node, fleet: &FleetSettings) -> Result<()> {
    let key = key::of(node)?;
    let kept = Kept::load(node);
    let client = client(node, fleet)?;
    let mut talk = Talk { node, fleet, key: &key, kept, client, accepted: 0, asked: None };
    // Asked for by a person: what was believed before does not count.
    talk.kept.enrolled = None;
    let result = talk.enrol();
    talk.kept.problem = result.as_ref().err().map(ToString::to_string);
    // Before the first start there is no folder, and it is not known here whose it is to be.
    if node.fetched("").exists() {
        talk.kept.save(node)?;
    }
    result
}

fn inventory_document(node: &Node, inventory: &Inventory) -> Result<Vec<u8>> {
    to_json(&NodeInventory::new(node.id.clone(), inventory, node.now()))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::io("report", &e.into()))
}

fn invalid(error: JsonError) -> Error {
    Error::io("report", &std::io::Error::other(error))
}

/// What a server says of a refusal (RFC 9457), in one line.
fn problem(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        detail: Option<String>,
        title: Option<String>,
    }
    let said: Option<Problem> = json::read(body).ok();
    let said = said.and_then(|problem| problem.detail.or(problem.title));
    said.map_or_else(String::new, |text| {
        format!(": {}", one_line(&text).chars().take(SHOWN).collect::<String>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime(1_795_000_000);

    const PACE: Pace =
        Pace { poll_every: 900, spread_over: 0, retry_first: 90, retry_cap: 3600, tries_per_day: 200 };

    /// When each of so many nodes tells the server, in seconds after `START`; asked every ten seconds.
    fn told(nodes: usize, state: impl Fn(&NodeId) -> State, newest: Option<i64>) -> Vec<i64> {
        let first = |n: usize| {
            let node: NodeId = format!("node-{n}").parse().unwrap();
            let state = state(&node);
            (0..)
                .map(|step| step * 10)
                .find(|at| wait(&state, &node, &PACE, newest, START.plus(*at)).is_none())
        };
        (0..nodes).filter_map(first).collect()
    }

    fn most_in_a_minute(times: &[i64]) -> usize {
        let mut minutes = std::collections::BTreeMap::new();
        times.iter().for_each(|at| *minutes.entry(at / 60).or_insert(0) += 1);
        minutes.into_values().max().unwrap_or(0)
    }

    #[test]
    fn ten_thousand_nodes_with_an_outcome_of_the_same_second_do_not_tell_it_in_the_same_minute() {
        let polled = |node: &NodeId| State::new().polled(node, &PACE, None, START);
        let times = told(10_000, polled, Some(START.0));
        assert_eq!(times.len(), 10_000);
        assert!(times.iter().all(|at| *at <= 310), "an outcome does not wait for long");
        // Five minutes, evenly, and chance.
        assert!(most_in_a_minute(&times) < 2_500, "{}", most_in_a_minute(&times));
    }

    #[test]
    fn a_server_that_was_away_does_not_hear_from_all_at_once_whatever_there_is_to_tell() {
        let failed = |asked| move |node: &NodeId| State::new().failed(node, &PACE, asked, false, START);
        for (asked, longest) in [(None, 270), (Some(1800), 1800 + 450)] {
            let times = told(10_000, failed(asked), Some(START.0 - 600));
            assert!(times.iter().all(|at| *at >= asked.unwrap_or(90) && *at <= longest + 10), "{asked:?}");
            let most = most_in_a_minute(&times);
            assert!(most <= 10_000 * 60 / 180 * 3 / 2, "{most} in a minute after {asked:?}");
        }
    }
}
