//! Who fetches a content over the line, and who waits for whom: pure.
//!
//! Every node orders the nodes that want a content in the same way, without asking anybody: by highest random weight
//! (rendezvous hashing), a hash of node, content and bundle. The first fetches it; the next takes over when the first is
//! gone, or has not begun in time, and so on down the order. Nodes that see each other agree, nodes that do not cost
//! bytes and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use format::digest::{Hasher, Sha256};

use super::have::{Holding, Token};

/// If nothing at all has come for so many times the patience, no promise of a peer counts any more.
const LAST_RESORT: u32 = 30;

/// A peer's answer about one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Who it is.
    pub token: Token,
    /// What it has.
    pub holding: Holding,
    /// Whether anything that it has has grown within the patience.
    pub is_moving: bool,
}

/// For how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Nobody has been at work on this content.
    pub idle: Duration,
    /// Nothing has come here, from a peer or from a mirror.
    pub nothing_came: Duration,
}

/// What to do about one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Fetch it from the mirror.
    Wan,
    /// Take it from this peer, by its place in the list.
    Peer(usize),
    /// Look again, at the latest after this time.
    Wait(Duration),
}

/// Decides for one content of a bundle. `has_begun`: this node has said that it fetches it, and looks once more: then
/// only a node before it in the order keeps it from that, or two that began at once would make way for each other.
pub fn choose(
    me: Token,
    content: &Sha256,
    bundle: &Sha256,
    peers: &[View],
    waited: Waited,
    patience: Duration,
    has_begun: bool,
) -> Choice {
    // Among those that have it, each node asks another one first.
    let has = |(_, peer): &(usize, &View)| peer.holding == Holding::Whole;
    let mine = |(_, peer): &(usize, &View)| weight(peer.token, content, &Sha256(spread(me)));
    if let Some((place, _)) = peers.iter().enumerate().filter(has).max_by_key(mine) {
        return Choice::Peer(place);
    }
    if waited.nothing_came >= patience * LAST_RESORT {
        return Choice::Wan;
    }
    let own = weight(me, content, bundle);
    let is_before = |peer: &&View| weight(peer.token, content, bundle) > own;
    let is_coming = |peer: &&View| matches!(peer.holding, Holding::Coming(_)) && peer.is_moving;
    if peers.iter().filter(is_coming).any(|peer| !has_begun || is_before(&peer)) {
        return Choice::Wait(patience);
    }
    let wants = |peer: &&View| matches!(peer.holding, Holding::Coming(_) | Holding::Wanted);
    // A node with two addresses is in the list twice.
    let before: BTreeSet<Token> =
        peers.iter().filter(wants).filter(is_before).map(|peer| peer.token).collect();
    let turn = patience * u32::try_from(before.len()).unwrap_or(u32::MAX).min(LAST_RESORT);
    match turn.saturating_sub(waited.idle) {
        Duration::ZERO => Choice::Wan,
        left => Choice::Wait(left),
    }
}

/// The weight of a node for a content: the same wherever it is computed.
fn weight(node: Token, content: &Sha256, salt: &Sha256) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(&node.0.to_be_bytes());
    hasher.update(&content.0);
    hasher.update(&salt.0);
    hasher.finish().0
}

/// A token as long as a hash.
fn spread(token: Token) -> [u8; 32] {
    let mut out = [0; 32];
    out[..8].copy_from_slice(&token.0.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn content(n: u32) -> Sha256 {
        Sha256::of(&n.to_be_bytes())
    }

    fn view(n: u64, holding: Holding) -> View {
        View { token: Token(n), holding, is_moving: true }
    }

    fn decide(me: u64, n: u32, peers: &[View], idle: u64) -> Choice {
        let waited = Waited { idle: Duration::from_secs(idle), nothing_came: Duration::ZERO };
        choose(Token(me), &content(n), &content(u32::MAX), peers, waited, PATIENCE, false)
    }

    /// The nodes but `me`, all wanting everything.
    fn others(me: u64, nodes: u64) -> Vec<View> {
        (0..nodes).filter(|n| *n != me).map(|n| view(n, Holding::Wanted)).collect()
    }

    #[test]
    fn each_content_is_fetched_by_exactly_one_node_and_the_work_is_spread() {
        let mut load = [0; 10];
        for n in 0..1000 {
            let goes: Vec<u64> =
                (0..10).filter(|me| decide(*me, n, &others(*me, 10), 0) == Choice::Wan).collect();
            assert_eq!(goes.len(), 1, "{n}: {goes:?}");
            load[usize::try_from(goes[0]).unwrap()] += 1;
        }
        assert!(load.iter().all(|count| (60..=140).contains(count)), "{load:?}");
    }

    #[test]
    fn when_the_first_is_gone_the_next_takes_over_and_nothing_else_moves() {
        for n in 0..100 {
            let first = (0..10).find(|me| decide(*me, n, &others(*me, 10), 0) == Choice::Wan).unwrap();
            let without =
                |me: u64| others(me, 10).into_iter().filter(|v| v.token.0 != first).collect::<Vec<_>>();
            let goes: Vec<u64> = (0..10)
                .filter(|me| *me != first && decide(*me, n, &without(*me), 0) == Choice::Wan)
                .collect();
            assert_eq!(goes.len(), 1, "{n}");
            // If it is not known to be gone, it is waited for once, and the same one takes over.
            assert!(
                matches!(decide(goes[0], n, &others(goes[0], 10), 59), Choice::Wait(w) if w.as_secs() == 1)
            );
            assert_eq!(decide(goes[0], n, &others(goes[0], 10), 60), Choice::Wan);
        }
    }

    #[test]
    fn what_a_peer_has_is_taken_there_and_not_all_from_one() {
        let peers: Vec<View> = (0..4).map(|n| view(n, Holding::Whole)).collect();
        let mut load = [0; 4];
        for me in 10..110 {
            let Choice::Peer(place) = decide(me, 1, &peers, 0) else { panic!("they have it") };
            load[place] += 1;
        }
        assert!(load.iter().all(|count| *count >= 10), "{load:?}");
    }

    #[test]
    fn what_is_coming_is_waited_for_while_it_moves() {
        let mut peers = [view(1, Holding::Coming(5)), view(2, Holding::Nothing)];
        for n in 0..20 {
            assert_eq!(decide(9, n, &peers, 0), Choice::Wait(PATIENCE));
        }
        peers[0].is_moving = false;
        assert!((0..20).all(|n| decide(9, n, &peers, 60) == Choice::Wan));
    }

    #[test]
    fn two_that_began_at_once_agree_who_goes_on() {
        for n in 0..100 {
            let goes = |me: u64, other: u64| {
                let peers = [view(other, Holding::Coming(0))];
                let (content, bundle) = (content(n), content(u32::MAX));
                choose(Token(me), &content, &bundle, &peers, Waited::default(), PATIENCE, true) == Choice::Wan
            };
            assert_ne!(goes(1, 2), goes(2, 1), "{n}");
        }
    }

    #[test]
    fn promises_bound_the_wait_whatever_peers_say() {
        let liars: Vec<View> = (0..100).map(|n| view(n, Holding::Coming(1))).collect();
        let waited = Waited { idle: Duration::ZERO, nothing_came: PATIENCE * LAST_RESORT };
        for n in 0..20 {
            let choice =
                choose(Token(1000), &content(n), &content(u32::MAX), &liars, waited, PATIENCE, false);
            assert_eq!(choice, Choice::Wan);
        }
    }

    #[test]
    fn alone_one_goes_at_once() {
        assert_eq!(decide(1, 1, &[], 0), Choice::Wan);
        assert_eq!(decide(1, 1, &[view(2, Holding::Nothing)], 0), Choice::Wan);
    }
}
