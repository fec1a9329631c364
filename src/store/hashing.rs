//! The hashing of one worker's uploads, side by side: pieces wait for each other, but not for long.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use crate::hash::{Digest, Engine, Sha256};
use crate::io::runtime::{now, sleep, spawn, turn};
use crate::io::{Buffer, BufferPool};
use crate::store::disk::Disk;

/// Shorter pieces are hashed at once: faster than others could come.
const MIN_PIECE: usize = 64 * 1024;
/// Turns of the worker that a piece waits for others at the most, as long as few send.
const MAX_TURNS: usize = 2;
/// From so many on that send at once, waiting for all of them pays: then so long at the most. A piece takes as long to come
/// at 1 Gbit/s.
const MANY: usize = 8;
const MAX_WAIT: Duration = Duration::from_millis(4);
/// Whoever sent within a span of this length is taken to go on.
const SPAN: Duration = Duration::from_millis(16);

/// The pieces of a worker that are to be hashed.
pub(super) struct Hashing {
    engine: Engine,
    /// Uploads that are being hashed, and those of them that send.
    uploads: Cell<usize>,
    senders: Senders,
    start: Instant,
    waiting: RefCell<Vec<Waiting>>,
    /// How often all that waited was hashed.
    rounds: Cell<u64>,
}

struct Waiting {
    hash: Sha256,
    piece: Buffer,
    answer: oneshot::Sender<(Sha256, Buffer)>,
}

impl Hashing {
    pub(super) fn new(engine: Engine) -> Rc<Self> {
        let (uploads, senders, start) = (Cell::new(0), Senders::default(), now());
        let (waiting, rounds) = (RefCell::default(), Cell::new(0));
        Rc::new(Self { engine, uploads, senders, start, waiting, rounds })
    }

    async fn update(self: &Rc<Self>, mut hash: Sha256, piece: Buffer) -> io::Result<(Sha256, Buffer)> {
        let enough = self.engine.lanes().min(self.uploads.get()).min(self.senders.count());
        if enough < self.engine.pays_from() {
            hash.update(&piece);
            return Ok((hash, piece));
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().push(Waiting { hash, piece, answer });
        let waiting = self.waiting.borrow().len();
        if waiting >= enough {
            self.run();
        } else if waiting == 1 {
            spawn(Rc::clone(self).run_soon(enough));
        }
        answered.await.map_err(|_canceled| io::Error::other("the hashing ended without an answer"))
    }

    /// Hashes what has come after a while, unless that was done before.
    async fn run_soon(self: Rc<Self>, enough: usize) {
        let round = self.rounds.get();
        if enough >= MANY {
            sleep(MAX_WAIT).await;
        } else {
            for _ in 0..MAX_TURNS {
                turn().await;
            }
        }
        if self.rounds.get() == round {
            self.run();
        }
    }

    fn run(&self) {
        self.rounds.set(self.rounds.get() + 1);
        let mut all = self.waiting.take();
        self.engine.update(all.iter_mut().map(|one| (&mut one.hash, &*one.piece)));
        for Waiting { hash, piece, answer } in all {
            // Who has gone needs no answer.
            answer.send((hash, piece)).ok();
        }
    }
}

/// How many uploads send, of all those that may be slow or silent. Counted in spans of time, which have numbers.
#[derive(Debug, Default)]
struct Senders {
    /// The span in which the last piece came, who has sent in it, and who did in the one before.
    span: Cell<u128>,
    now: Cell<usize>,
    before: Cell<usize>,
}

impl Senders {
    /// Counts an upload that sends, whose last piece came in the span `last`.
    fn note(&self, span: u128, last: &mut Option<u128>) {
        let passed = span - self.span.replace(span);
        if passed > 0 {
            self.before.set(if passed == 1 { self.now.get() } else { 0 });
            self.now.set(0);
        }
        if last.replace(span) != Some(span) {
            self.now.set(self.now.get() + 1);
        }
    }

    fn count(&self) -> usize {
        self.now.get().max(self.before.get())
    }
}

/// Reads a file back through one of `buffers`: how many bytes could be read, and their SHA-256 if those were all. `pause` is
/// told the bytes of every piece and says how long to wait.
pub(super) async fn read_back<D: Disk>(
    disk: &D,
    file: &D::File,
    buffers: &BufferPool,
    pause: &mut impl FnMut(usize) -> Duration,
) -> (u64, io::Result<Digest>) {
    let mut hasher = Sha256::new();
    let mut buffer = buffers.take().await;
    let mut offset = 0;
    loop {
        let (read, back) = disk.read_at(file, buffer, offset).await;
        buffer = back;
        match read {
            Ok(0) => return (offset, Ok(hasher.finish())),
            Ok(count) => {
                hasher.update(&buffer);
                offset += count as u64;
                let wait = pause(count);
                if !wait.is_zero() {
                    sleep(wait).await;
                }
            }
            Err(e) => return (offset, Err(e)),
        }
    }
}

/// The hash of one upload.
pub(super) struct Hasher {
    hashing: Rc<Hashing>,
    /// Gone while a piece is being hashed, and for ever if that was given up.
    hash: Option<Sha256>,
    /// The span in which its last piece came.
    sent: Option<u128>,
}

impl Hasher {
    pub(super) fn new(hashing: &Rc<Hashing>) -> Self {
        hashing.uploads.set(hashing.uploads.get() + 1);
        Self { hashing: Rc::clone(hashing), hash: Some(Sha256::new()), sent: None }
    }

    /// Takes the next piece, and gives it back.
    pub(super) async fn update(&mut self, piece: Buffer) -> io::Result<Buffer> {
        let gone = || io::Error::other("the hashing was given up before");
        if piece.len() < MIN_PIECE {
            // Nobody waits for one that only sends such.
            self.hash.as_mut().ok_or_else(gone)?.update(&piece);
            return Ok(piece);
        }
        let span = self.hashing.start.elapsed().as_millis() / SPAN.as_millis();
        self.hashing.senders.note(span, &mut self.sent);
        let (hash, piece) = self.hashing.update(self.hash.take().ok_or_else(gone)?, piece).await?;
        self.hash = Some(hash);
        Ok(piece)
    }

    /// The digest of all that was taken.
    pub(super) fn finish(mut self) -> Option<Digest> {
        self.hash.take().map(Sha256::finish)
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.hashing.uploads.set(self.hashing.uploads.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_is_counted_once_a_span_and_forgotten_after_the_next() {
        let senders = Senders::default();
        let [mut one, mut other] = [None, None];
        senders.note(7, &mut one);
        senders.note(7, &mut other);
        senders.note(7, &mut one);
        assert_eq!(senders.count(), 2);
        senders.note(8, &mut one);
        assert_eq!(senders.count(), 2, "the other one may still come");
        senders.note(9, &mut one);
        assert_eq!(senders.count(), 1);
        senders.note(9, &mut other);
        senders.note(11, &mut one);
        assert_eq!(senders.count(), 1, "nobody sent for a whole span");
    }
}
