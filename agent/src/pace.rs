//! This node's own time to fetch: keeps what [`crate::spread`] and [`crate::backoff`] decide from, and tells people.
//!
//! A file that cannot be read is begun anew: it costs a poll.

use std::path::PathBuf;
use std::time::Duration;

use format::digest::Sha256;
use format::status::NextFetch;
use format::time::UnixTime;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::spread::{Decision, State};
use host::schedule::Hours;

/// The pacing of one run.
pub struct Keeper<'n> {
    node: &'n Node,
    path: PathBuf,
    state: State,
    /// Whether the decisions count; not for `--now`.
    is_obeyed: bool,
    /// When this run is to go on, if it has stopped for that.
    turn: Option<UnixTime>,
}

impl<'n> Keeper<'n> {
    /// Reads what is kept. `now`: a person has called, who does not wait.
    pub fn open(node: &'n Node, now: bool) -> Self {
        let path = node.fetched("pace.json");
        let state = load(node);
        Keeper { node, path, state, is_obeyed: node.settings.fetch.paced && !now, turn: None }
    }

    /// Whether to begin at all.
    ///
    /// # Errors
    /// If the decision cannot be kept.
    pub fn poll(&mut self) -> Result<Decision> {
        if !self.is_obeyed {
            return Ok(Decision::Go);
        }
        let before = self.state.clone();
        let (node, now) = (self.node, self.node.now());
        self.state = before.clone().awake(&node.id, &node.settings.fetch.pace, now);
        if self.state != before {
            self.save()?;
        }
        Ok(self.state.poll(now))
    }

    /// Whether a person has called, or nobody wants to wait.
    pub fn is_hurried(&self) -> bool {
        !self.is_obeyed
    }

    /// What this run was doing goes on as soon as the node is asked again: it has made way for an install.
    pub fn soon(&mut self) {
        self.turn = Some(self.node.now());
    }

    /// Whether to fetch this bundle now. `policy`: the transfer windows of the node's policy; its own come before them,
    /// and bytes need both.
    ///
    /// # Errors
    /// Deferred, with the time; or if the decision cannot be kept.
    pub fn turn(&mut self, index: Sha256, policy: Option<&Hours>) -> Result<()> {
        let (node, settings, now) = (self.node, &self.node.settings.fetch, self.node.now());
        let own = settings.transfer_windows.as_deref().map(|windows| (windows, node.zone()));
        let by_policy = policy.map(|hours| (hours.windows(), hours.zone().clone()));
        let (windows, zone) =
            own.or(by_policy).map_or((None, node.zone()), |(windows, zone)| (Some(windows), zone));
        self.state = std::mem::take(&mut self.state).sees(index, now);
        if self.is_obeyed
            && let Decision::Wait { until, why } =
                self.state.turn(&node.id, &settings.pace, windows, &zone, now)
        {
            self.turn = Some(until);
            self.save()?;
            return Err(Error::new(
                Exit::Deferred,
                format!("this node begins to fetch its bundle at {until}: {why}"),
                "`prestage fetch --now` does not wait",
            ));
        }
        self.state = std::mem::take(&mut self.state).takes_turn(windows, &zone, now);
        self.save()
    }

    /// The run has ended. `asked`: how long a server wants to be left alone. `progress`: whether it brought anything.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn close<T>(&mut self, result: &Result<T>, asked: Option<Duration>, progress: bool) -> Result<()> {
        let asked = asked.map(|asked| i64::try_from(asked.as_secs()).unwrap_or(i64::MAX));
        let (node, pace, now) = (self.node, &self.node.settings.fetch.pace, self.node.now());
        let state = std::mem::take(&mut self.state);
        self.state = match result {
            // What this machine puts off has nothing to do with the mirrors.
            Ok(_) => state.polled(&node.id, pace, None, now),
            Err(error) if matches!(error.exit, Exit::Deferred | Exit::Config | Exit::Io) => {
                state.polled(&node.id, pace, self.turn, now)
            }
            Err(_) => state.failed(&node.id, pace, asked, progress, now),
        };
        self.save()
    }

    /// When the node comes again, for status.json.
    pub fn next(&self) -> Option<NextFetch> {
        next(self.node, &self.state)
    }

    fn save(&self) -> Result<()> {
        let bytes = format::json::pretty(&self.state).map_err(|e| Error::io("pace", &e.into()))?;
        // A person's `sudo prestage fetch --now` must not take the file away from the unprivileged service.
        Ok(host::file::replace_like(&self.path, &bytes, 0o644, &self.node.fetched(""))?)
    }
}

/// When the node looks or fetches next, and why not before; none if the next call will.
pub fn next_fetch(node: &Node) -> Option<NextFetch> {
    next(node, &load(node))
}

fn next(node: &Node, state: &State) -> Option<NextFetch> {
    match state.poll(node.now()) {
        Decision::Wait { until, why } if node.settings.fetch.paced => {
            Some(NextFetch { at: until, why: why.to_string() })
        }
        _ => None,
    }
}

fn load(node: &Node) -> State {
    let bytes = host::file::read_limited(&node.fetched("pace.json"), 64 * 1024).ok().flatten();
    let state = bytes.and_then(|bytes| format::json::read(&bytes).ok());
    state.filter(State::is_current).unwrap_or_default()
}
