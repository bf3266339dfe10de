//! Two things at once: one thread receives, another takes what was received. In bounded memory, and with few bytes in
//! between: what has been received and not yet written is lost when the agent is killed.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// So many full buffers may wait. One more is being filled, and one is being taken. With half of them each side waits for the
/// other a sixth of the time at full speed.
const WAITING: usize = 4;

/// How many buffers there are, at most.
pub(super) const BUFFERS: usize = WAITING + 2;

/// The end of the pipe that is filled.
pub(super) struct Pipe {
    size: usize,
    filling: Vec<u8>,
    full: SyncSender<(Vec<u8>, usize)>,
    empty: Receiver<Vec<u8>>,
}

impl Pipe {
    /// What to fill next.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        if self.filling.is_empty() {
            self.filling = self.empty.try_recv().unwrap_or_else(|_| vec![0; self.size]);
        }
        &mut self.filling
    }

    /// Passes on the first `n` bytes of it, as soon as there is room. False, if nobody takes them any more.
    pub(super) fn send(&mut self, n: usize) -> bool {
        self.full.send((std::mem::take(&mut self.filling), n)).is_ok()
    }
}

/// The end that is emptied.
pub(super) struct Portions {
    full: Receiver<(Vec<u8>, usize)>,
    empty: Sender<Vec<u8>>,
}

impl Portions {
    /// The next portion, when it has come; none, when no more will.
    pub(super) fn next(&self) -> Option<Portion<'_>> {
        let (buffer, length) = self.full.recv().ok()?;
        Some(Portion { buffer, length, empty: &self.empty })
    }
}

/// Some bytes. Their buffer goes back when it is dropped.
pub(super) struct Portion<'p> {
    buffer: Vec<u8>,
    length: usize,
    empty: &'p Sender<Vec<u8>>,
}

impl Portion<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Portion<'_> {
    fn drop(&mut self) {
        // Who receives may have ended; then nobody needs it.
        let _ = self.empty.send(std::mem::take(&mut self.buffer));
    }
}

/// Lets `fill` put portions of at most `size` bytes into a pipe, and `take` take them out on a thread of its own. Both
/// have ended when this returns: what they said.
///
/// # Errors
/// If no thread can be had.
pub(super) fn through<A, B: Send>(
    size: usize,
    fill: impl FnOnce(&mut Pipe) -> A,
    take: impl FnOnce(&Portions) -> B + Send,
) -> io::Result<(A, B)> {
    let (full, filled) = sync_channel(WAITING);
    let (back, empty) = channel();
    thread::scope(|scope| {
        let portions = Portions { full: filled, empty: back };
        // The ends are dropped with their sides, so that neither waits for one that has ended.
        let taker =
            thread::Builder::new().name("write".into()).spawn_scoped(scope, move || take(&portions))?;
        let mut pipe = Pipe { size, filling: Vec::new(), full, empty };
        let filled = fill(&mut pipe);
        drop(pipe);
        let taken = taker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((filled, taken))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_in_buffers_that_are_used_again() {
        let (sent, (taken, buffers)) = through(
            10,
            |pipe| {
                (0..100u8).all(|i| {
                    pipe.buffer()[..3].fill(i);
                    pipe.send(3)
                })
            },
            |portions| {
                let (mut taken, mut buffers) = (Vec::new(), std::collections::BTreeSet::new());
                while let Some(portion) = portions.next() {
                    taken.extend_from_slice(portion.bytes());
                    buffers.insert(portion.bytes().as_ptr() as usize);
                }
                (taken, buffers)
            },
        )
        .unwrap();
        assert!(sent);
        assert_eq!(taken, (0..100u8).flat_map(|i| [i; 3]).collect::<Vec<_>>());
        assert!(buffers.len() <= BUFFERS, "{}", buffers.len());
    }

    #[test]
    fn who_takes_no_more_stops_who_fills() {
        let (rounds, taken) = through(
            4,
            |pipe| {
                (0..1000)
                    .take_while(|_| {
                        pipe.buffer();
                        pipe.send(4)
                    })
                    .count()
            },
            |portions| portions.next().map(|portion| portion.bytes().len()),
        )
        .unwrap();
        assert_eq!(taken, Some(4));
        assert!(rounds <= BUFFERS, "{rounds}");
    }
}
