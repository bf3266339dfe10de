//! What surrounds the fetching of one step: its rule, who watches it, and the mirrors in their order.

use std::io::{IsTerminal as _, Write as _};
use std::rc::Rc;
use std::time::Duration;

use format::rate::Rate;
use format::status::Status;

use crate::aside::Aside;
use crate::delays::{self, Delays};
use crate::error::Result;
use crate::fetch::{Background, Fetcher, Flow, LEAST_PROGRESS, Rule, Throttle, Transport};
use crate::node::Node;
use crate::progress::{self, Progress};
use crate::report::Said;
use crate::status;
use crate::store::Store;
use host::schedule::Hours;

/// A bar that moves oftener is not read any better.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// The status file is synced each time it is replaced: not too often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The service manager's line costs a datagram.
const NOTIFY_EVERY: Duration = Duration::from_secs(5);

/// Where delays are remembered.
const DELAYS: &str = "delays.json";

/// So long a mirror that served wrong bytes comes last: long enough for a person to repair a copy, short enough to come
/// back by itself. Not away: where every mirror is aside, all are asked.
const ASIDE_SECONDS: i64 = 6 * 3600;

/// The line that the bytes of one step come over.
pub struct Line<'n> {
    node: &'n Node,
    rule: Rc<Rule<'n>>,
    throttle: Throttle<'n>,
    progress: Progress<'n>,
    aside: Aside,
    /// What earlier runs know of the mirrors, for the background mode.
    delays: Delays,
}

impl<'n> Line<'n> {
    /// For a step that begins now. `is_hurried`: a person has called.
    pub fn new(node: &'n Node, is_hurried: bool) -> Self {
        let rule = Rc::new(Rule::new(&node.settings, node.zone(), node.now(), is_hurried));
        let asked = rule.clone();
        let throttle = Throttle::new(&node.clock, move |now| match node.is_install_waiting() {
            // What is here stays, and the next fetch goes on from there.
            true => Flow::Stop("an install waits for its turn, and the fetch makes way for it".into()),
            false => asked.flow(now),
        });
        let delays = delays::load(&node.fetched(DELAYS), node.now());
        let known = delays.iter().map(|least| (least.mirror.clone(), least.time()));
        let fetch = &node.settings.fetch;
        let background = fetch.background.then(|| Background::new(fetch.floor, known));
        let throttle = throttle.buffered(node.settings.receive_buffer).yielding(background);
        Line { node, rule, throttle, progress: progress(node), aside: aside(node), delays }
    }

    /// What the node's policy says counts too.
    pub fn obey(&self, hours: Option<Hours>, rate: Option<Rate>) {
        self.rule.obey(hours, rate);
    }

    /// What fetches from these mirrors into this store.
    pub fn fetcher<'f>(
        &'f self,
        mirrors: &'f [Box<dyn Transport + 'f>],
        store: &'f Store,
    ) -> Fetcher<'f, 'n> {
        let Line { node, throttle, progress, aside, .. } = self;
        Fetcher { mirrors, store, throttle, clock: &node.clock, progress, aside: Some(aside) }
    }

    /// Whether the step has brought anything worth the name.
    pub fn has_progressed(&self) -> bool {
        self.progress.done() >= LEAST_PROGRESS
    }

    /// The step has ended. That a mirror was put aside meanwhile is news, even where another one was good enough.
    pub fn close(&self, result: &mut Result<Said>, status: &mut Status) {
        if self.progress.done() > 0 && std::io::stderr().is_terminal() {
            // Takes the bar away, so that what is said next begins at the margin.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        if let Some(background) = self.throttle.background()
            && let Err(error) = delays::save(
                &self.node.fetched(DELAYS),
                self.delays.clone(),
                background.borrow().measured(),
                self.node.now(),
            )
        {
            host::detail!("{error}");
        }
        let before = std::mem::replace(&mut status.mirrors_aside, self.aside.list());
        status.transfer = None;
        if let Ok(said) = result {
            for new in status.mirrors_aside.iter().filter(|aside| !before.contains(aside)) {
                said.message
                    .push_str(&format!("; {} is put aside until {}: {}", new.name, new.until, new.why));
            }
        }
    }
}

/// The progress of a step, told to the terminal, the status file and the service manager.
fn progress(node: &Node) -> Progress<'_> {
    let progress = Progress::new(&node.clock)
        .watched(STATUS_EVERY, |transfer| {
            let mut status = status::load(node);
            status.status.transfer = Some(transfer.clone());
            if let Err(error) = status::save(node, &mut status) {
                host::detail!("{error}");
            }
        })
        .watched(NOTIFY_EVERY, |transfer| {
            if let Err(error) = host::notify::status(&progress::line(transfer)) {
                host::detail!("the service manager does not listen: {error}");
            }
        });
    if !std::io::stderr().is_terminal() {
        return progress;
    }
    progress.watched(BAR_EVERY, |transfer| {
        // Back to the margin, and nothing left of a longer line before.
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", progress::line(transfer));
    })
}

fn aside(node: &Node) -> Aside {
    Aside::open(node.fetched("mirrors.json"), ASIDE_SECONDS, node.now())
}

/// The mirrors in the operator's order, but those that are aside behind the others.
pub fn in_order<'t>(node: &Node, mut mirrors: Vec<Box<dyn Transport + 't>>) -> Vec<Box<dyn Transport + 't>> {
    let aside = aside(node);
    mirrors.sort_by_key(|mirror| aside.holds(mirror.name()));
    mirrors
}
