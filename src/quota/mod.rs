//! How much is stored, and how much may be: reserve → publish, or give back.
//!
//! What counts is what objects and folders take on a disk, in blocks. Locks count, and fit a little beyond a quota that is used
//! up, so that a prune can begin in a repository that is full. The [`book`] is pure arithmetic on bounds: after a crash the
//! most that can be there is known from the [`journal`], which is always ahead of what was admitted; a count in the background
//! finds out the rest.
//!
//! Invariant: an upload is admitted only if it fits by the upper bound; what would fit by the lower one may try again.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use event_listener::Event;
use thiserror::Error;

use crate::io::blocking::Pool;
use crate::io::sync::{Mutex, MutexGuard};
use crate::io::wake::until;
use crate::types::{BLOCK_BYTES, Handle, RepoPath};

pub mod book;
mod bounds;
mod claim;
pub mod journal;
pub mod place;
mod sums;

pub use book::{Ticket, Usage};
pub use bounds::{Amount, Limits, Shortage, UserLimits};
pub use claim::{Changing, Claim};
pub use place::Place;

use book::Book;
use bounds::Admission;
use journal::Journal;

/// Why an upload is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuotaError {
    /// It does not fit.
    #[error(transparent)]
    Full(Box<Shortage>),
    /// Whether it fits is not known yet.
    #[error("what is stored is still being counted, and this may or may not fit the quota")]
    Counting,
    /// The journal can't be written.
    #[error("the journal of the quota can't be written")]
    Journal,
}

/// What is stored and reserved. Shared by all shards.
pub struct Ledger {
    book: Mutex<Book>,
    journal: Option<Arc<Journal>>,
    writer: Pool,
    /// A lease was written, or could not be.
    leased: Event,
}

impl Ledger {
    /// A ledger with these limits, which keeps its journal in `folder`, if it has one.
    ///
    /// # Errors
    /// The journal can't be read, or the thread that writes it not started.
    pub fn open(limits: Limits, folder: Option<&Path>) -> io::Result<Self> {
        Self::with(limits, folder.map(|folder| Journal::new(folder.to_owned())), 1)
    }

    /// One that has so many threads to write its journal; without any, whoever needs a line of it writes it.
    ///
    /// # Errors
    /// The journal can't be read, or the threads not started.
    pub fn with(limits: Limits, journal: Option<Journal>, writers: usize) -> io::Result<Self> {
        let journal = journal.map(Arc::new);
        let mut book = Book::new(limits);
        if let Some(journal) = &journal {
            if book.limits().is_empty() {
                // What is stored from now on is not written down: an old journal would be wrong later.
                journal.remove()?;
            } else if let Some((entries, clean)) = journal.read()? {
                book.restore(entries, clean);
                let leases = book.leases();
                if let Err(e) = journal.rewrite(&leases, false) {
                    // A full disk must not keep anybody from pruning.
                    log::warn!("the journal of the quota can't be written: {e}: counting anew");
                    book = Book::new(book.limits().clone());
                    journal.remove()?;
                } else {
                    book.note_leases(&leases);
                    book.set_journaling(true);
                }
            }
        }
        let writer = Pool::new("quota", writers, 4096)?;
        Ok(Self { book: Mutex::new(book), journal, writer, leased: Event::new() })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limits. True if what is stored must be counted now.
    pub fn set_limits(&self, limits: Limits) -> bool {
        let mut book = self.book();
        book.set_limits(limits);
        !book.limits().is_empty() && !book.is_complete()
    }

    /// Reserves room for an object, of `length` bytes if that is known.
    pub async fn claim(self: &Arc<Self>, handle: &Handle, length: Option<u64>) -> Result<Claim, QuotaError> {
        let mut claim = self.no_claim(&handle.repo, Place::of(handle.object));
        claim.grow_to(length.unwrap_or(0)).await?;
        Ok(claim)
    }

    /// Reserves room for `count` folders of a repository.
    pub async fn claim_folders(self: &Arc<Self>, repo: &RepoPath, count: u64) -> Result<Claim, QuotaError> {
        let mut claim = self.no_claim(repo, Place::Folders);
        claim.grow_to(count * BLOCK_BYTES).await?;
        Ok(claim)
    }

    /// No room, for what is there already.
    pub fn no_claim(self: &Arc<Self>, repo: &RepoPath, place: Place) -> Claim {
        Claim::new(self, repo, place)
    }

    /// Whether something of a repository is known. If not, it may be that there is none.
    pub fn knows(&self, repo: &RepoPath) -> bool {
        self.book().knows(repo)
    }

    /// Fails if an object of `length` bytes does not fit. Nothing is reserved.
    ///
    /// # Errors
    /// It does not fit, or that is not known yet.
    pub fn check_fits(&self, handle: &Handle, length: u64) -> Result<(), QuotaError> {
        let (book, place) = (self.book(), Place::of(handle.object));
        let asked = place.amount(length);
        match book.verdict(&handle.repo, place, asked) {
            Admission::Full => Err(QuotaError::Full(Box::new(book.shortage(&handle.repo, place, asked)))),
            Admission::Counting => Err(QuotaError::Counting),
            Admission::Granted | Admission::NeedsLease => Ok(()),
        }
    }

    /// Announces that an object is about to be published or removed, until the ticket is dropped.
    pub fn changing(self: &Arc<Self>, handle: &Handle) -> Changing {
        self.begin_change(&handle.repo, Place::of(handle.object))
    }

    /// Announces that folders of a repository are about to be made.
    pub fn changing_folders(self: &Arc<Self>, repo: &RepoPath) -> Changing {
        self.begin_change(repo, Place::Folders)
    }

    fn begin_change(self: &Arc<Self>, repo: &RepoPath, place: Place) -> Changing {
        Changing::new(self, repo, place)
    }

    async fn reserve(&self, repo: &RepoPath, place: Place, asked: Amount) -> Result<(), QuotaError> {
        let mut unwritten = false;
        loop {
            let admission = {
                let mut book = self.book();
                match book.admit(repo, place, asked, unwritten) {
                    Admission::Full => Err(QuotaError::Full(Box::new(book.shortage(repo, place, asked)))),
                    other => Ok(other),
                }
            };
            match admission? {
                Admission::Granted => return Ok(()),
                Admission::Counting => return Err(QuotaError::Counting),
                // `Full` has ended this already.
                Admission::NeedsLease | Admission::Full => {}
            }
            match self.lease(repo, asked.bytes).await {
                // A full disk takes no line, and must take a lock: a prune needs one before it can free anything.
                Err(QuotaError::Journal) if place.is_locks() => unwritten = true,
                leased => leased?,
            }
        }
    }

    /// Writes down that a repository may hold more, before it does.
    async fn lease(&self, repo: &RepoPath, bytes: u64) -> Result<(), QuotaError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        // One lease of a repository at a time; who waits looks again afterwards.
        let Some(upto) = self.book().begin_lease(repo, bytes) else {
            until(&self.leased, || (!self.book().is_leasing(repo)).then_some(())).await;
            return Ok(());
        };
        let (journal, path) = (Arc::clone(journal), repo.clone());
        // Objects are written down exactly, at a clean stop, or not at all.
        let line = Amount { bytes: upto, objects: 0 };
        let written = self.writer.run(move || journal.append(&path, line)).await.and_then(|written| written);
        self.book().end_lease(repo, written.is_ok().then_some(upto));
        self.leased.notify(usize::MAX);
        written.map_err(|e| {
            log::error!("the journal of the quota can't be written: {e}");
            QuotaError::Journal
        })
    }

    /// What is in the repositories, and the limits that hold for them.
    pub fn usage(&self) -> Usage {
        self.book().usage()
    }

    /// The repositories that are to be counted although no folder of theirs was found: what was known of them is old.
    pub fn uncounted(&self) -> BTreeSet<RepoPath> {
        self.book().uncounted()
    }

    /// All repositories of which anything is known.
    pub fn known(&self) -> BTreeSet<RepoPath> {
        self.book().known()
    }

    /// Begins to count a repository.
    pub fn begin_count(&self, repo: &RepoPath) {
        self.book().begin_count(repo);
    }

    /// Begins to count one folder of it; none while an object in it is being published or removed.
    pub fn begin_folder(&self, repo: &RepoPath, place: Place) -> Option<Ticket> {
        self.book().begin_folder(repo, place)
    }

    /// Takes the sum of a folder. False if something in it changed meanwhile: count it again.
    pub fn end_folder(&self, repo: &RepoPath, ticket: Ticket, found: Amount) -> bool {
        self.book().end_folder(repo, ticket, found)
    }

    /// Ends the count of a repository: from now on its size is known exactly.
    pub fn end_count(&self, repo: &RepoPath) {
        self.book().end_count(repo);
    }

    /// Ends the count of the whole store. False if repositories came that were not counted yet.
    pub async fn end_counts(self: &Arc<Self>) -> bool {
        if !self.book().is_counted() {
            return false;
        }
        if let Some(journal) = &self.journal {
            let (journal, ledger) = (Arc::clone(journal), Arc::clone(self));
            // The writer does one thing after the other: what is asked for from now on is appended behind this.
            self.book().set_journaling(true);
            let job = move || {
                let leases = ledger.book().leases();
                journal.rewrite(&leases, false)?;
                ledger.book().note_leases(&leases);
                Ok(())
            };
            if let Err(e) = self.writer.run(job).await.and_then(|written: io::Result<()>| written) {
                log::warn!("the journal of the quota can't be written: {e}: the next start counts anew");
                self.give_up_journal().await;
            }
        }
        // Others may have come meanwhile of which nothing is known.
        let mut book = self.book();
        let counted = book.is_counted();
        if counted {
            book.set_complete();
        }
        counted
    }

    /// Goes on without a journal: none is better than one that is behind.
    async fn give_up_journal(&self) {
        self.book().set_journaling(false);
        let Some(journal) = self.journal.clone() else { return };
        let removed = self.writer.run(move || journal.remove()).await.and_then(|removed| removed);
        if let Err(e) = removed {
            log::error!(
                "the old journal of the quota can't be removed: {e}: remove it before the next start"
            );
        }
    }

    /// Writes down what is stored, for the next start. Blocks: for the end of the process, when nothing is in flight.
    pub fn close(&self) {
        let Some(journal) = &self.journal else { return };
        if let Some(exact) = self.book().exact()
            && let Err(e) = journal.rewrite(&exact, true)
        {
            log::warn!("the journal of the quota can't be written: {e}: the next start counts anew");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Driver, block_on};
    use crate::types::{BlobId, BlobType, Object};

    fn handle(n: u8) -> Handle {
        Handle {
            repo: "/a/".parse().expect("a path"),
            object: Object::Blob(BlobType::Data, BlobId::from_digest([n; 32])),
        }
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        block_on(Driver::Epoll, work).expect("a runtime")
    }

    /// A limit of `blocks` blocks for all together.
    fn total(blocks: u64) -> Limits {
        Limits { total: Some(blocks * BLOCK_BYTES), ..Limits::default() }
    }

    /// A ledger of an empty store, counted.
    fn counted(limits: Limits, folder: &Path) -> Arc<Ledger> {
        let ledger = Arc::new(Ledger::open(limits, Some(folder)).expect("opens"));
        assert!(run(ledger.end_counts()));
        ledger
    }

    /// The limit and the use that a refusal names.
    fn full(limit: u64, held: u64, asked: u64) -> Result<(), QuotaError> {
        Err(QuotaError::Full(Box::new(Shortage {
            of: "all repositories together".into(),
            limit: limit * BLOCK_BYTES,
            held: held * BLOCK_BYTES,
            asked: asked * BLOCK_BYTES,
            unit: "bytes on disk",
        })))
    }

    /// Stores an object of so many blocks, the last one not full.
    fn store(ledger: &Arc<Ledger>, n: u8, blocks: u64) -> Result<(), QuotaError> {
        let bytes = blocks * BLOCK_BYTES - 1;
        let mut claim = run(ledger.claim(&handle(n), Some(bytes)))?;
        claim.published(bytes);
        Ok(())
    }

    #[test]
    fn what_fits_is_admitted_to_the_block_and_survives_a_stop() {
        let dir = tempfile::tempdir().expect("a folder");
        let ledger = counted(total(100), dir.path());
        assert_eq!(store(&ledger, 1, 60), Ok(()));
        assert_eq!(store(&ledger, 2, 41), full(100, 60, 41));
        let held = run(ledger.claim(&handle(3), Some(40 * BLOCK_BYTES))).expect("fits");
        assert_eq!(store(&ledger, 4, 1), full(100, 100, 1));
        drop(held);
        assert_eq!(store(&ledger, 4, 40), Ok(()));
        ledger.changing(&handle(4)).removed(40 * BLOCK_BYTES);
        assert_eq!(store(&ledger, 5, 30), Ok(()));
        ledger.close();
        let ledger = Arc::new(Ledger::open(total(100), Some(dir.path())).expect("opens"));
        assert_eq!(store(&ledger, 6, 11), full(100, 90, 11));
        assert_eq!(store(&ledger, 6, 10), Ok(()));
    }

    #[test]
    fn after_a_crash_the_upper_bound_holds_until_it_was_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let ledger = counted(total(100), dir.path());
        assert_eq!(store(&ledger, 1, 60), Ok(()));
        drop(ledger);
        let ledger = Arc::new(Ledger::open(total(100), Some(dir.path())).expect("opens"));
        assert_eq!(store(&ledger, 2, 10), Err(QuotaError::Counting), "the lease went up to the limit");
        assert_eq!(store(&ledger, 2, 101), full(100, 0, 101));
        let repo = handle(1).repo;
        assert!(ledger.uncounted().contains(&repo));
        ledger.begin_count(&repo);
        for place in Place::all() {
            let ticket = ledger.begin_folder(&repo, place).expect("nothing changes");
            let bytes = if place == Place::of(handle(1).object) { 60 * BLOCK_BYTES } else { 0 };
            assert!(ledger.end_folder(&repo, ticket, Amount { bytes, objects: 1 }));
        }
        ledger.end_count(&repo);
        assert!(run(ledger.end_counts()));
        assert_eq!(store(&ledger, 2, 41), full(100, 60, 41));
        assert_eq!(store(&ledger, 2, 40), Ok(()));
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        counted(total(1000), dir.path()).close();
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1);
        let ledger = Arc::new(Ledger::open(Limits::default(), Some(dir.path())).expect("opens"));
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0);
        assert_eq!(store(&ledger, 1, 9), Ok(()));
        assert!(ledger.set_limits(total(10)), "now it must be counted");
        assert_eq!(store(&ledger, 2, 1), Err(QuotaError::Counting));
        assert_eq!(store(&ledger, 2, 2), full(10, 9, 2));
    }

    #[test]
    fn who_asks_for_what_is_not_there_leaves_no_trace() {
        let dir = tempfile::tempdir().expect("a folder");
        let journaled = counted(total(100_000), dir.path());
        let open = |limits| Arc::new(Ledger::open(limits, None).expect("opens"));
        for ledger in [open(Limits::default()), open(total(100)), journaled] {
            for n in 0..100 {
                let handle = Handle { repo: format!("/x{n}/").parse().expect("a path"), ..handle(1) };
                drop(ledger.changing(&handle));
                drop(run(ledger.claim(&handle, Some(0))));
            }
            assert!(ledger.uncounted().is_empty() && ledger.known().is_empty());
            assert!(run(ledger.end_counts()), "nothing is unknown");
        }
    }

    #[test]
    fn many_threads_never_get_more_than_there_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let ledger = counted(total(1000), dir.path());
        let admitted: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u8)
                .map(|n| {
                    let ledger = Arc::clone(&ledger);
                    scope.spawn(move || (0..50).filter(|_| store(&ledger, n, 7).is_ok()).count() as u64)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(admitted, 1000 / 7);
    }

    #[test]
    fn empty_objects_folders_and_locks_count() {
        let lock = |n: u8| Handle {
            object: Object::Blob(BlobType::Locks, BlobId::from_digest([n; 32])),
            ..handle(n)
        };
        let ledger = Arc::new(Ledger::open(total(1000), None).expect("opens"));
        assert!(run(ledger.end_counts()));
        let empty = |n: u8| run(ledger.claim(&handle(n), Some(0))).map(|mut claim| claim.published(0));
        assert_eq!(empty(1), Ok(()));
        assert_eq!(ledger.usage().total.0, Some(BLOCK_BYTES));
        let mut folders = run(ledger.claim_folders(&handle(1).repo, 6)).expect("fits");
        folders.made(2);
        folders.made(1);
        assert_eq!(store(&ledger, 2, 994), full(1000, 7, 994), "all that was asked for is held");
        drop(folders);
        assert_eq!(store(&ledger, 2, 997), full(1000, 4, 997), "and what was not made is given back");
        assert_eq!(store(&ledger, 2, 996), Ok(()));
        assert_eq!(empty(3), full(1000, 1000, 1));
        // Locks have a sixteenth more, or 64 blocks.
        let locks = (0..100).take_while(|n| {
            run(ledger.claim(&lock(*n), Some(100))).map(|mut claim| claim.published(100)).is_ok()
        });
        assert_eq!(locks.count(), 64);
        assert_eq!(ledger.usage().total.0, Some(1064 * BLOCK_BYTES));
    }

    #[test]
    fn objects_have_a_limit_that_a_clean_stop_keeps() {
        let dir = tempfile::tempdir().expect("a folder");
        let user = UserLimits { bytes: None, objects: Some(3) };
        let limits = Limits { users: [(b"a".to_vec(), user)].into(), ..Limits::default() };
        let ledger = counted(limits.clone(), dir.path());
        for n in 0..3 {
            assert_eq!(store(&ledger, n, 1), Ok(()));
        }
        let refused = store(&ledger, 3, 1).expect_err("one too many");
        let wanted = "the quota of the user a is used up: 3 of 3 objects are stored or reserved, and 1 more do not fit";
        assert_eq!(refused.to_string(), wanted);
        ledger.changing(&handle(0)).removed(1);
        assert_eq!(store(&ledger, 4, 1), Ok(()));
        ledger.close();
        let ledger = Arc::new(Ledger::open(limits, Some(dir.path())).expect("opens"));
        assert!(store(&ledger, 5, 1).is_err(), "the journal has the number");
        assert!(run(ledger.claim(&handle(1), None)).is_err(), "also before bytes come");
        assert_eq!(ledger.usage().objects, [("a".to_owned(), 3, 3)]);
    }
}
