//! The fetch of a node that has a site: asks the peers for what it needs, takes from the mirror what is its own to take,
//! and waits a bounded time for the rest. What to do is decided in [`super::choose`]; here it is done.
//!
//! What a peer gives is hashed to its end before it gets its name, and is kept apart from what came from mirrors
//! meanwhile: a peer can waste bytes of the LAN, never one of the line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use format::digest::{Hasher, Sha256};
use format::index::Member;
use format::status::Aside as AsideEntry;
use host::clock::Clock as _;
use host::file;

use super::choose::{Choice, View, Waited, choose};
use super::discover;
use super::have::{Holding, Token};
use super::peer::{self, PeerError};
use super::request::MAX_ASKED;
use super::wanted::{Announcement, Want};
use crate::aside::Aside;
use crate::error::{Error, Exit, Result};
use crate::fetch::Transport;
use crate::node::Node;
use crate::store::Store;

/// Fetched from a mirror before the site is looked at again, in bytes, and never less than one member: so that a node
/// that comes later finds something left to share, and what a node has got is taken from it before it may die.
const BATCH: u64 = 2 * 1024 * 1024;

/// Read from a peer at once.
const CHUNK: usize = 64 * 1024;

/// More addresses than a site has nodes.
const MAX_PEERS: usize = 100;

/// So long a peer that lied or stalled is not asked: this run and the next ones, and back by itself before the next cycle.
const ASIDE_SECONDS: i64 = 15 * 60;

/// The longest pause between two looks at the site; the shortest, for a patience of seconds, is a thirtieth of it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A peer that cannot be reached is asked again after this time, doubled for each time that it could not.
const AWAY: Duration = Duration::from_secs(2);

/// How often a peer may not have what it said it has.
const BROKEN_PROMISES: u32 = 3;

/// The site of a node, for one fetch.
pub struct Site<'n> {
    node: &'n Node,
    store: &'n Store,
    me: Token,
    bundle: Sha256,
    peers: Vec<Peer>,
    aside: Aside,
    received: u64,
    /// Since when nobody has been at work on a content.
    idle_since: BTreeMap<Sha256, Duration>,
    /// When something came last, from anywhere.
    came: Duration,
}

/// A peer, as it is known in this fetch.
struct Peer {
    address: SocketAddr,
    /// Who it says it is; none: it has not answered yet, or not for a while.
    token: Option<Token>,
    holdings: BTreeMap<Sha256, Holding>,
    /// When anything that it has has grown last.
    moved: Duration,
    /// Not asked before this time.
    not_before: Duration,
    /// How often it could not be reached, in a row.
    failures: u32,
    broken_promises: u32,
}

/// How a peer's giving ended.
enum Given {
    Whole,
    /// Something else is to be tried.
    Not,
}

impl<'n> Site<'n> {
    /// The site of `node`; without peers for mirrors that cost nothing, as a stick.
    pub fn new(
        node: &'n Node,
        store: &'n Store,
        bundle: Sha256,
        mirrors: &[Box<dyn Transport + '_>],
    ) -> Self {
        let now = node.clock.instant();
        let aside = Aside::open(node.fetched("peers.json"), ASIDE_SECONDS, node.now());
        let mut site = Site {
            node,
            store,
            me: Token::of(&node.id),
            bundle,
            peers: Vec::new(),
            aside,
            received: 0,
            idle_since: BTreeMap::new(),
            came: now,
        };
        if mirrors.iter().any(|mirror| mirror.is_remote()) {
            site.find_peers(now);
        }
        site
    }

    /// The addresses of all peers that are not aside.
    fn find_peers(&mut self, now: Duration) {
        let mut addresses = BTreeSet::new();
        for name in &self.node.settings.share.peers {
            match (name.host.as_str(), name.port).to_socket_addrs() {
                Ok(found) => addresses.extend(found),
                Err(error) => log::warn!("peer {name}: {error}"),
            }
        }
        if self.node.settings.share.discover {
            let found = discover::peers(&self.node.clock);
            host::detail!("{} nodes of the site were found", found.len());
            addresses.extend(found);
        }
        let asked =
            addresses.into_iter().filter(|address| !self.aside.holds(&address.to_string())).take(MAX_PEERS);
        self.peers = asked
            .map(|address| Peer {
                address,
                token: None,
                holdings: BTreeMap::new(),
                moved: now,
                not_before: Duration::ZERO,
                failures: 0,
                broken_promises: 0,
            })
            .collect();
    }

    /// Bytes that peers have sent.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The peers that are aside.
    pub fn aside(&self) -> Vec<AsideEntry> {
        self.aside.list()
    }

    /// Gets `needed`: from peers, and by `wan` from the mirrors.
    ///
    /// # Errors
    /// Those of `wan`, when the site cannot help; this machine's.
    pub fn members(
        &mut self,
        needed: &[&Member],
        wan: &mut dyn FnMut(&[&Member]) -> Result<()>,
    ) -> Result<()> {
        if self.peers.is_empty() {
            return wan(needed);
        }
        let announcement = Announcement::open(self.node.fetched("wanted"))?;
        let mut line_down: Option<Error> = None;
        self.came = self.node.clock.instant();
        loop {
            let missing: Vec<&Member> =
                needed.iter().copied().filter(|m| !self.store.has(&m.sha256, m.size)).collect();
            if missing.is_empty() {
                return self.store.sync();
            }
            announcement.say(missing.iter().map(|m| (m.sha256, Want::Wanted)))?;
            self.look(&missing)?;
            if self.take_from_peers(&missing)? {
                continue;
            }
            let mine: Vec<&Member> =
                batch(missing.iter().copied().filter(|m| self.choice(m, false) == Choice::Wan));
            if mine.is_empty() {
                self.node.clock.sleep(self.pause(&missing));
                continue;
            }
            // The line is down, and nobody else will get this either.
            if let Some(error) = line_down {
                return Err(error);
            }
            // Said, then looked once more: of two that begin at the same moment one makes way.
            let taken: BTreeSet<Sha256> = mine.iter().map(|m| m.sha256).collect();
            let want = |m: &&Member| if taken.contains(&m.sha256) { Want::Coming } else { Want::Wanted };
            announcement.say(missing.iter().map(|m| (m.sha256, want(m))))?;
            self.look(&missing)?;
            let mine: Vec<&Member> =
                mine.into_iter().filter(|m| self.choice(m, true) == Choice::Wan).collect();
            let taken: BTreeSet<Sha256> = mine.iter().map(|m| m.sha256).collect();
            let want = |m: &&Member| if taken.contains(&m.sha256) { Want::Coming } else { Want::Wanted };
            announcement.say(missing.iter().map(|m| (m.sha256, want(m))))?;
            match wan(&mine) {
                Ok(()) => self.came = self.node.clock.instant(),
                // Another node may get what this one cannot.
                Err(error) if error.exit == Exit::Unavailable => {
                    log::warn!("{error}");
                    line_down = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// How long until the site is looked at again. More questions, longer pauses.
    fn pause(&self, missing: &[&Member]) -> Duration {
        let every = LOOK_EVERY.min(self.node.settings.share.patience / 30);
        every * u32::try_from(missing.len().div_ceil(MAX_ASKED)).unwrap_or(1)
    }

    /// What to do about one member, as far as is known.
    fn choice(&self, member: &Member, has_begun: bool) -> Choice {
        let now = self.node.clock.instant();
        let patience = self.node.settings.share.patience;
        let (places, views) = self.views(&member.sha256, now);
        let since = self.idle_since.get(&member.sha256).copied().unwrap_or(now);
        let waited = Waited { idle: now.saturating_sub(since), nothing_came: now.saturating_sub(self.came) };
        match choose(self.me, &member.sha256, &self.bundle, &views, waited, patience, has_begun) {
            Choice::Peer(place) => Choice::Peer(places[place]),
            other => other,
        }
    }

    /// What those peers that answer say of a content, and their places in the list.
    fn views(&self, digest: &Sha256, now: Duration) -> (Vec<usize>, Vec<View>) {
        let patience = self.node.settings.share.patience;
        let view = |(place, peer): (usize, &Peer)| {
            let holding = peer.holdings.get(digest).copied().unwrap_or(Holding::Nothing);
            let is_moving = now.saturating_sub(peer.moved) < patience;
            Some((place, View { token: peer.token?, holding, is_moving }))
        };
        self.peers.iter().enumerate().filter_map(view).unzip()
    }

    /// Asks every peer what it has of `missing`.
    fn look(&mut self, missing: &[&Member]) -> Result<()> {
        for place in 0..self.peers.len() {
            self.look_at(place, missing)?;
        }
        // The same list of peers is good for all nodes of a site, so this one may be in it.
        let me = self.me;
        self.peers.retain(|peer| peer.token != Some(me));
        let now = self.node.clock.instant();
        for member in missing {
            let (_, views) = self.views(&member.sha256, now);
            let is_busy = |v: &View| match v.holding {
                Holding::Whole => true,
                Holding::Coming(_) => v.is_moving,
                Holding::Wanted | Holding::Nothing => false,
            };
            if views.iter().any(is_busy) {
                self.idle_since.insert(member.sha256, now);
            } else {
                self.idle_since.entry(member.sha256).or_insert(now);
            }
        }
        Ok(())
    }

    fn look_at(&mut self, place: usize, missing: &[&Member]) -> Result<()> {
        for asked in missing.chunks(MAX_ASKED) {
            let now = self.node.clock.instant();
            let peer = &mut self.peers[place];
            if now < peer.not_before {
                return Ok(());
            }
            let digests: Vec<Sha256> = asked.iter().map(|m| m.sha256).collect();
            match peer::have(peer.address, &digests, &mut self.received, &self.node.clock) {
                Ok((token, holdings)) => {
                    peer.failures = 0;
                    if peer.token.replace(token) != Some(token) {
                        peer.moved = now;
                    }
                    for (digest, holding) in digests.into_iter().zip(holdings) {
                        let before = peer.holdings.insert(digest, holding);
                        if has_grown(before, holding) {
                            peer.moved = now;
                        }
                    }
                }
                // It may have ended between two requests: what it has said does not count until it answers again.
                Err(error) => {
                    self.failed(place, error)?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes whatever a peer has whole, one member after the other. Says whether anything was tried.
    fn take_from_peers(&mut self, missing: &[&Member]) -> Result<bool> {
        let mut has_tried = false;
        for member in missing {
            let Choice::Peer(place) = self.choice(member, false) else { continue };
            has_tried = true;
            match self.take(place, member) {
                Ok(Given::Whole) => self.came = self.node.clock.instant(),
                Ok(Given::Not) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(has_tried)
    }

    /// Takes one member from a peer, going on where an earlier try stopped.
    fn take(&mut self, place: usize, member: &Member) -> Result<Given> {
        let path = self.store.peer_partial(&member.sha256);
        let mut out = self.store.open_partial(&path)?;
        let (mut hasher, mut have) = (Hasher::new(), 0);
        let mut buffer = vec![0; CHUNK];
        // What is here already may be from another peer, or torn: then it is nobody's fault.
        let mut early = std::fs::File::open(&path).map_err(|e| Error::file(&path, &e))?;
        loop {
            match early.read(&mut buffer).map_err(|e| Error::file(&path, &e))? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    have += n as u64;
                }
            }
        }
        let address = self.peers[place].address;
        let is_resumed = have > 0;
        if have < member.size {
            let mut body = match peer::content(address, &member.sha256, have, &self.node.clock) {
                Ok(body) => body,
                Err(error) => return self.not_given(place, member, error),
            };
            if body.from != have {
                out.set_len(0).map_err(|e| Error::file(&path, &e))?;
                (hasher, have) = (Hasher::new(), 0);
            }
            if body.length != member.size - have {
                let what =
                    format!("it offers {} bytes of {}, not {}", body.length, member.path, member.size - have);
                return self.not_given(place, member, PeerError::Nonsense(what));
            }
            while have < member.size {
                let wanted = buffer.len().min(usize::try_from(member.size - have).unwrap_or(usize::MAX));
                let n = match body.read(&mut buffer[..wanted]) {
                    Ok(0) => {
                        let end = std::io::ErrorKind::UnexpectedEof.into();
                        return self.not_given(place, member, PeerError::Away(end));
                    }
                    Ok(n) => n,
                    Err(error) => return self.not_given(place, member, error.into()),
                };
                out.write_all(&buffer[..n]).map_err(|e| Error::file(&path, &e))?;
                hasher.update(&buffer[..n]);
                have += n as u64;
                self.received += n as u64;
            }
        }
        let digest = hasher.finish();
        if digest != member.sha256 {
            file::remove(&path)?;
            if !is_resumed {
                let what = format!("it gave {} with the sha256 {digest}", member.path);
                return self.not_given(place, member, PeerError::Nonsense(what));
            }
            return Ok(Given::Not);
        }
        self.store.finish(&out, &path, &member.sha256)?;
        // What a mirror had begun to send is not needed any more.
        file::remove(&self.store.partial(&member.sha256))?;
        host::detail!("complete: {} from {address}", member.path);
        Ok(Given::Whole)
    }

    /// A peer has not given what it said it has.
    fn not_given(&mut self, place: usize, member: &Member, error: PeerError) -> Result<Given> {
        match error {
            // It has it, so it is waited for as for what is coming.
            PeerError::Busy => {
                self.peers[place].holdings.insert(member.sha256, Holding::Coming(member.size));
            }
            PeerError::NotFound => {
                let peer = &mut self.peers[place];
                peer.holdings.insert(member.sha256, Holding::Nothing);
                peer.broken_promises += 1;
                if peer.broken_promises >= BROKEN_PROMISES {
                    let what = "it does not have what it says it has".to_owned();
                    self.failed(place, PeerError::Nonsense(what))?;
                }
            }
            other => self.failed(place, other)?,
        }
        Ok(Given::Not)
    }

    /// A peer does not answer, or not as a peer does.
    fn failed(&mut self, place: usize, error: PeerError) -> Result<()> {
        let now = self.node.clock.instant();
        let patience = self.node.settings.share.patience;
        let peer = &mut self.peers[place];
        let why = match error {
            // One that has no time is still at work, and may be in a moment.
            PeerError::Busy => {
                peer.not_before = now + AWAY.min(patience);
                return Ok(());
            }
            PeerError::Away(error) => {
                host::detail!("peer {}: {error}", peer.address);
                peer.token = None;
                peer.holdings.clear();
                peer.failures += 1;
                peer.not_before = now + (AWAY * 2u32.pow(peer.failures.min(8) - 1)).min(patience);
                return Ok(());
            }
            PeerError::NotFound => "it does not know what it has".to_owned(),
            PeerError::Stalled(why) | PeerError::Nonsense(why) => why,
        };
        log::warn!("peer {} is put aside: {why}", peer.address);
        peer.token = None;
        peer.holdings.clear();
        // Not again in this run; the list is for the next ones.
        peer.not_before = Duration::MAX;
        self.aside.put(&peer.address.to_string(), &why, self.node.now())
    }
}

/// As many members as are fetched before the site is looked at again.
fn batch<'m>(members: impl Iterator<Item = &'m Member>) -> Vec<&'m Member> {
    let mut bytes = 0;
    members
        .take_while(|member| {
            let fits = bytes < BATCH;
            bytes += member.size;
            fits
        })
        .collect()
}

/// Whether a peer has more of a content than it had.
fn has_grown(before: Option<Holding>, now: Holding) -> bool {
    match (before, now) {
        (Some(Holding::Whole), Holding::Whole) => false,
        (_, Holding::Whole) => true,
        (Some(Holding::Coming(before)), Holding::Coming(now)) => now > before,
        (_, Holding::Coming(_)) => true,
        _ => false,
    }
}
