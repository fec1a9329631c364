//! The hashing of one worker's uploads, side by side: a piece waits for others, but its upload does not wait for it. It
//! receives the next piece meanwhile, and once it has that, the one before is hashed with whatever is there.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_channel::oneshot;

use crate::hash::{Digest, Engine, Sha256};
use crate::io::runtime::{sleep, spawn};
use crate::io::{Buffer, BufferPool};
use crate::store::disk::Disk;

/// Shorter pieces are hashed at once and alone: faster than others could come.
const MIN_PIECE: usize = 64 * 1024;
/// How long a piece, which holds a buffer, waits at the most. It takes as long to come at 1 Gbit/s.
const MAX_WAIT: Duration = Duration::from_millis(4);

/// More pieces in a row are those of an upload beside which no other one sends. Fewer come so where many send in turns.
const MAX_IN_A_ROW: usize = 3;

/// The pieces of a worker that are to be hashed.
pub(super) struct Hashing {
    engine: Engine,
    /// Uploads that are being hashed.
    uploads: Cell<usize>,
    /// Whose piece came last, and how many came in a row.
    latest: RefCell<Weak<RefCell<Sha256>>>,
    in_a_row: Cell<usize>,
    waiting: RefCell<Vec<Waiting>>,
    /// How often all that waited was hashed.
    rounds: Cell<u64>,
}

struct Waiting {
    hash: Rc<RefCell<Sha256>>,
    piece: Buffer,
    answer: oneshot::Sender<Buffer>,
}

impl Hashing {
    pub(super) fn new(engine: Engine) -> Rc<Self> {
        let (uploads, in_a_row, rounds) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let (latest, waiting) = (RefCell::default(), RefCell::default());
        Rc::new(Self { engine, uploads, latest, in_a_row, waiting, rounds })
    }

    /// How many pieces can come together, as far as they can be hashed at once.
    fn enough(&self) -> usize {
        self.engine.lanes().min(self.uploads.get())
    }

    /// Lets a piece wait until enough of them do.
    fn wait(self: &Rc<Self>, hash: &Rc<RefCell<Sha256>>, piece: Buffer) -> oneshot::Receiver<Buffer> {
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().push(Waiting { hash: Rc::clone(hash), piece, answer });
        let waiting = self.waiting.borrow().len();
        if waiting >= self.enough() {
            self.run(None);
        } else if waiting == 1 {
            spawn(Rc::clone(self).run_soon());
        }
        answered
    }

    /// Hashes what waits after a while, unless that was done before.
    async fn run_soon(self: Rc<Self>) {
        let round = self.rounds.get();
        sleep(MAX_WAIT).await;
        if self.rounds.get() == round {
            self.run(None);
        }
    }

    /// Hashes all that waits, and a piece more.
    fn run(&self, more: Option<(&mut Sha256, &[u8])>) {
        self.rounds.set(self.rounds.get() + 1);
        let all = self.waiting.take();
        let mut hashes: Vec<_> = all.iter().map(|one| one.hash.borrow_mut()).collect();
        let pieces = all.iter().map(|one| &*one.piece);
        self.engine.update(hashes.iter_mut().map(|hash| &mut **hash).zip(pieces).chain(more));
        drop(hashes);
        for Waiting { piece, answer, .. } in all {
            // Who has gone needs no answer.
            answer.send(piece).ok();
        }
    }
}

/// A piece that is being hashed.
pub(super) enum Hashed {
    /// It was.
    Done(Buffer),
    /// It comes back when it was.
    Soon(oneshot::Receiver<Buffer>),
}

impl Hashed {
    /// Waits until it is hashed, and gives it back.
    pub(super) async fn end(self) -> io::Result<Buffer> {
        match self {
            Self::Done(piece) => Ok(piece),
            Self::Soon(piece) => {
                piece.await.map_err(|_canceled| io::Error::other("the hashing ended without an answer"))
            }
        }
    }
}

/// The hash of one upload.
pub(super) struct Hasher {
    hashing: Rc<Hashing>,
    hash: Rc<RefCell<Sha256>>,
}

impl Hasher {
    pub(super) fn new(hashing: &Rc<Hashing>) -> Self {
        hashing.uploads.set(hashing.uploads.get() + 1);
        Self { hashing: Rc::clone(hashing), hash: Rc::default() }
    }

    /// Takes the next piece, which may wait for those of others, if others send.
    pub(super) fn begin(&self, piece: Buffer) -> Hashed {
        // Whoever else has begun: no other one seems to send.
        let alone = self.count_in_a_row() > MAX_IN_A_ROW;
        if alone || piece.len() < MIN_PIECE || self.hashing.enough() < self.hashing.engine.pays_from() {
            self.update(&piece);
            return Hashed::Done(piece);
        }
        self.hurry();
        Hashed::Soon(self.hashing.wait(&self.hash, piece))
    }

    /// Counts a piece, and returns how many of this upload have come in a row.
    fn count_in_a_row(&self) -> usize {
        let Hashing { latest, in_a_row, .. } = &*self.hashing;
        let before = latest.replace(Rc::downgrade(&self.hash));
        // Who has ended sends nothing beside this one.
        let again = before.as_ptr() == Rc::as_ptr(&self.hash) || before.strong_count() == 0;
        in_a_row.set(if again { in_a_row.get() + 1 } else { 1 });
        in_a_row.get()
    }

    /// Takes the next piece at once.
    pub(super) fn update(&self, piece: &[u8]) {
        self.hurry();
        let hash = &mut *self.hash.borrow_mut();
        if piece.len() < MIN_PIECE {
            hash.update(piece);
        } else {
            self.hashing.run(Some((hash, piece)));
        }
    }

    /// Hashes the piece that waits, if one does.
    fn hurry(&self) {
        if self.hashing.waiting.borrow().iter().any(|one| Rc::ptr_eq(&one.hash, &self.hash)) {
            self.hashing.run(None);
        }
    }

    /// The digest of all that was taken.
    pub(super) fn finish(self) -> Digest {
        self.hurry();
        self.hash.take().finish()
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.hashing.uploads.set(self.hashing.uploads.get() - 1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::buffer::BUFFER_BYTES;
    use crate::io::runtime::{Driver, block_on};

    /// A full buffer of one byte.
    async fn piece(pool: &BufferPool, byte: u8) -> Buffer {
        let mut piece = pool.take().await;
        piece.append(&vec![byte; BUFFER_BYTES]);
        piece
    }

    /// Whether it is hashed already.
    fn is_done(hashed: &mut Hashed) -> bool {
        match hashed {
            Hashed::Done(_) => true,
            Hashed::Soon(piece) => piece.try_recv().is_ok_and(|piece| piece.is_some()),
        }
    }

    async fn wait_for_each_other(engine: Engine) {
        let (lanes, pool) = (engine.lanes(), BufferPool::new(20));
        let hashing = Hashing::new(engine);
        let uploads: Vec<_> = (0..lanes).map(|_| Hasher::new(&hashing)).collect();
        let (one, others) = uploads.split_first().expect("at least two");

        let mut first = one.begin(piece(&pool, 1).await);
        assert!(!is_done(&mut first), "others may come");
        let mut next = one.begin(piece(&pool, 2).await);
        assert!(is_done(&mut first) && !is_done(&mut next), "its upload has the next piece");
        for other in others {
            assert!(!is_done(&mut next));
            drop(other.begin(piece(&pool, 3).await));
        }
        assert!(is_done(&mut next), "as many as can be hashed at once");
        let one_more = one.begin(piece(&pool, 4).await);
        assert!(
            one_more.end().await.is_ok_and(|piece| *piece.last().expect("full") == 4),
            "nobody else comes"
        );
        let mut next = others[0].begin(piece(&pool, 5).await);
        one.update(b"end");
        assert!(!is_done(&mut next), "what is short takes nobody along");

        let whole = [[1, 2, 4].map(|byte| vec![byte; BUFFER_BYTES]).concat(), b"end".to_vec()].concat();
        let mut digests = uploads.into_iter().map(Hasher::finish);
        assert_eq!(digests.next(), Some(Sha256::of(&whole)));
        let second = [3, 5].map(|byte| vec![byte; BUFFER_BYTES]).concat();
        assert_eq!(digests.next(), Some(Sha256::of(&second)));
        assert!(digests.all(|other| other == Sha256::of(&vec![3; BUFFER_BYTES])));
        assert_eq!(hashing.uploads.get(), 0);
    }

    async fn send_alone(engine: Engine) {
        let pool = BufferPool::new(4);
        let hashing = Hashing::new(engine);
        let (one, stalled) = (Hasher::new(&hashing), Hasher::new(&hashing));
        for _ in 0..MAX_IN_A_ROW {
            assert!(!is_done(&mut one.begin(piece(&pool, 1).await)));
        }
        for _ in 0..2 {
            assert!(is_done(&mut one.begin(piece(&pool, 1).await)), "nobody else sends");
        }
        assert_eq!(one.finish(), Sha256::of(&vec![1; (MAX_IN_A_ROW + 2) * BUFFER_BYTES]));
        let next = Hasher::new(&hashing);
        assert!(is_done(&mut next.begin(piece(&pool, 2).await)), "nor beside the next one");
        assert!(!is_done(&mut stalled.begin(piece(&pool, 3).await)));
        assert!(is_done(&mut next.begin(piece(&pool, 4).await)), "as many as send");
    }

    async fn go_away(engine: Engine) {
        let pool = BufferPool::new(3);
        let hashing = Hashing::new(engine);
        let (one, other) = (Hasher::new(&hashing), Hasher::new(&hashing));
        let gone = Hasher::new(&hashing);
        let waits = other.begin(piece(&pool, 1).await);
        drop(gone.begin(piece(&pool, 2).await));
        drop(gone);
        assert!(waits.end().await.is_ok());
        drop(one.begin(piece(&pool, 3).await));
        let buffers = [pool.take().await, pool.take().await, pool.take().await];
        assert_eq!(one.finish(), Sha256::of(&vec![3; BUFFER_BYTES]));
        assert_eq!(other.finish(), Sha256::of(&vec![1; BUFFER_BYTES]));
        drop(buffers);
    }

    #[test]
    fn a_piece_waits_for_others_and_its_upload_does_not() {
        for engine in Engine::each() {
            block_on(Driver::Epoll, wait_for_each_other(engine)).expect("a runtime");
        }
    }

    #[test]
    fn who_sends_beside_one_that_does_not_is_not_held_up() {
        for engine in Engine::each() {
            block_on(Driver::Epoll, send_alone(engine)).expect("a runtime");
        }
    }

    #[test]
    fn who_goes_away_leaves_no_buffer_behind_and_others_unharmed() {
        for engine in Engine::each() {
            block_on(Driver::Epoll, go_away(engine)).expect("a runtime");
        }
    }
}
