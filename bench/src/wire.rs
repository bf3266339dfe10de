//! A long wire: it brings every frame from one end to the other, late by a delay, and loses some.
//!
//! The ends are macvtap devices, which give and take whole frames, so TCP on both sides is the kernel's own. This is
//! what `netem` does, for kernels that have none. Frames stay in order: a delay is the same for all, as on a real line.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use lab::random::Random;

use crate::Result;

/// The largest frame that a macvtap device hands out, its header included: a segment that was not cut.
const FRAME: usize = 66 * 1024;

/// Joins two devices, for as long as the process lives.
///
/// # Errors
/// If one cannot be opened.
pub fn join(ends: [PathBuf; 2], delay: Duration, loss_ppm: u32, seed: u64) -> Result<()> {
    let open = |path: &PathBuf| File::options().read(true).write(true).open(path);
    let (near, far) = (open(&ends[0])?, open(&ends[1])?);
    let ways = [(near.try_clone()?, far.try_clone()?), (far, near)];
    for (way, (from, to)) in (0u64..).zip(ways) {
        let (sender, receiver) = channel();
        let mut chance = Chance { random: Random::new(seed.wrapping_mul(2).wrapping_add(way)), loss_ppm };
        let name = |end| Builder::new().name(format!("wire-{end}-{way}"));
        name("in").spawn(move || take(from, delay, &mut chance, &sender))?;
        name("out").spawn(move || give(to, &receiver))?;
    }
    Ok(())
}

/// Draws which frames are lost.
struct Chance {
    random: Random,
    loss_ppm: u32,
}

impl Chance {
    fn loses(&mut self) -> bool {
        self.random.below(1_000_000) < u64::from(self.loss_ppm)
    }
}

fn take(mut from: File, delay: Duration, chance: &mut Chance, to: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; FRAME];
    while let Ok(n) = from.read(&mut buffer) {
        if !chance.loses() && to.send((Instant::now() + delay, buffer[..n].to_vec())).is_err() {
            return;
        }
    }
}

fn give(mut to: File, from: &Receiver<(Instant, Vec<u8>)>) {
    for (due, frame) in from {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // What the other end does not take is lost, as everywhere.
        let _ = to.write(&frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_as_many_as_ordered_and_the_same_for_the_same_seed() {
        let losses = |seed| {
            let mut chance = Chance { random: Random::new(seed), loss_ppm: 10_000 };
            (0..100_000).filter(|_| chance.loses()).count()
        };
        assert_eq!(losses(3), losses(3));
        assert!((900..1100).contains(&losses(3)), "{}", losses(3));
    }
}
