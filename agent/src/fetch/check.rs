//! The check of each block as it comes, on a thread of its own: hashing and writing the same bytes take about the same time,
//! and need not wait for each other. What is written before its block is found wrong is dropped by whoever is told.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use format::container::StoredFraming;
use format::digest::{Hasher, Sha256};
use format::index::BLOCK;

use super::pipe::Portion;

/// So many portions may wait for their check, so that a disk that pauses and a processor that is wanted elsewhere do not stop
/// each other.
pub(super) const WAITING: usize = 4;

/// Checks content block by block as it comes, so that a damaged block costs a block and not the member behind it.
pub(super) struct BlockCheck {
    blocks: Vec<Sha256>,
    /// Content bytes seen.
    seen: u64,
    hasher: Hasher,
}

impl BlockCheck {
    /// For a member of these blocks, of which `have` bytes are in `path`.
    pub(super) fn resume(blocks: &[Sha256], have: u64, path: &Path) -> io::Result<Self> {
        let mut check =
            BlockCheck { blocks: blocks.to_vec(), seen: have / BLOCK * BLOCK, hasher: Hasher::new() };
        if check.seen < have {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(check.seen))?;
            let mut rest = Vec::new();
            file.take(have - check.seen).read_to_end(&mut rest)?;
            check.hasher.update(&rest);
        }
        check.seen = have;
        Ok(check)
    }

    /// Takes the next content; an error at the end of the first block that is wrong.
    fn push(&mut self, mut content: &[u8]) -> Result<(), String> {
        while !content.is_empty() {
            let left = BLOCK - self.seen % BLOCK;
            let (part, rest) =
                content.split_at(content.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            self.hasher.update(part);
            self.seen += part.len() as u64;
            if part.len() as u64 == left {
                self.compare()?;
            }
            content = rest;
        }
        Ok(())
    }

    /// Compares the block that has ended.
    fn compare(&mut self) -> Result<(), String> {
        let block = (self.seen.div_ceil(BLOCK) - 1) as usize; // no larger than the number of blocks in memory
        let digest = std::mem::take(&mut self.hasher).finish();
        let is_right = self.blocks.get(block) == Some(&digest);
        if is_right { Ok(()) } else { Err(format!("block {block} does not have its sha256")) }
    }

    /// Compares the last block, if it is shorter than the others.
    fn finish(mut self) -> Result<(), String> {
        if self.seen.is_multiple_of(BLOCK) { Ok(()) } else { self.compare() }
    }
}

/// What the thread is told.
enum Work<'p> {
    /// Another member begins, or goes on.
    Begin(Box<(StoredFraming, BlockCheck)>),
    /// The next bytes of it, in their framing.
    Bytes(Arc<Portion<'p>>),
    /// It ends: what is to be said of it?
    End,
}

/// Whoever checks, as seen by whoever writes.
pub(super) struct Checker<'p> {
    work: SyncSender<Work<'p>>,
    verdicts: Receiver<Result<(), String>>,
    is_wrong: Arc<AtomicBool>,
}

impl<'p> Checker<'p> {
    /// The next member.
    pub(super) fn begin(&self, framing: StoredFraming, blocks: BlockCheck) {
        self.tell(Work::Begin(Box::new((framing, blocks))));
    }

    /// The next bytes of it.
    ///
    /// # Errors
    /// What is wrong with those that came before.
    pub(super) fn push(&self, portion: Arc<Portion<'p>>) -> Result<(), String> {
        if self.is_wrong.load(Ordering::Relaxed) {
            return self.finish();
        }
        self.tell(Work::Bytes(portion));
        Ok(())
    }

    /// What there is to say of the member.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn finish(&self) -> Result<(), String> {
        self.tell(Work::End);
        // The thread ends after this does, unless it panics; then so does whoever waits for it.
        self.verdicts.recv().unwrap_or_else(|_| Err("nobody has checked it".into()))
    }

    fn tell(&self, work: Work<'p>) {
        // Said at the end, by `finish`, if nobody listens any more.
        let _ = self.work.send(work);
    }
}

/// Does `act` with a checker beside it.
///
/// # Errors
/// If no thread can be had.
pub(super) fn beside<'p, T>(act: impl FnOnce(&Checker<'p>) -> T) -> io::Result<T> {
    let (work, told) = sync_channel(WAITING);
    let (verdict, verdicts) = channel();
    let is_wrong = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let wrong = is_wrong.clone();
        let check = move || check(&told, &verdict, &wrong);
        thread::Builder::new().name("check".into()).spawn_scoped(scope, check)?;
        let checker = Checker { work, verdicts, is_wrong };
        Ok(act(&checker))
    })
}

fn check(told: &Receiver<Work<'_>>, verdict: &Sender<Result<(), String>>, is_wrong: &AtomicBool) {
    let mut member: Option<Box<(StoredFraming, BlockCheck)>> = None;
    let mut wrong: Option<String> = None;
    while let Ok(work) = told.recv() {
        match work {
            Work::Begin(begins) => member = Some(begins),
            Work::Bytes(portion) => {
                let Some((framing, blocks)) = member.as_deref_mut() else { continue };
                let mut sink = |content: &[u8]| blocks.push(content).map_err(io::Error::other);
                if let Err(error) = framing.push(portion.bytes(), &mut sink) {
                    (wrong, member) = (Some(error.to_string()), None);
                    is_wrong.store(true, Ordering::Relaxed);
                }
            }
            Work::End => {
                let ended = member.take().map_or(Ok(()), |member| member.1.finish());
                let said = wrong.take().map_or(ended, Err);
                is_wrong.store(false, Ordering::Relaxed);
                if verdict.send(said).is_err() {
                    return;
                }
            }
        }
    }
}
