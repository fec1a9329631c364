//! Directory syncs shared by all who wait for the same directory, and the memory of which directories are durable.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::rc::Rc;

use futures_channel::oneshot;

use crate::io::dir::DirId;
use crate::io::runtime::spawn;
use crate::store::disk::Disk;

/// Directories remembered as durable before the memory starts anew: about 8 MiB.
const MAX_KNOWN: usize = 100_000;

type Answer = Result<(), Rc<io::Error>>;
/// Per directory with a sync under way: who waits for the next one.
type Waiting = Rc<RefCell<HashMap<DirId, Vec<oneshot::Sender<Answer>>>>>;

/// The directory syncs of one worker.
#[derive(Clone)]
pub struct DirSyncs<D: Disk> {
    disk: D,
    waiting: Waiting,
    /// Directories whose own entries, up to the root, were synced in this process's life.
    known: Rc<RefCell<HashSet<DirId>>>,
}

impl<D: Disk> DirSyncs<D> {
    /// None are under way.
    pub fn new(disk: D) -> Self {
        Self { disk, waiting: Rc::default(), known: Rc::default() }
    }

    /// Makes the entries of `dir` durable. Callers that come while a sync of the same directory runs share the one after
    /// it: a sync counts only for those who came before it started. If it fails, all who share it fail.
    pub async fn sync(&self, dir: &D::Dir) -> io::Result<()> {
        let id = self.disk.dir_id(dir)?;
        let (answer, answered) = oneshot::channel();
        if self.enqueue(id, answer) {
            let round = Round { id, waiting: Rc::clone(&self.waiting) };
            spawn(round.run(self.disk.clone(), dir.clone()));
        }
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(copy(&cause)),
            Err(oneshot::Canceled) => Err(io::Error::other("a directory sync ended without an answer")),
        }
    }

    /// Adds a caller to those who wait for the next sync. True if none runs yet.
    fn enqueue(&self, id: DirId, answer: oneshot::Sender<Answer>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let idle = !waiting.contains_key(&id);
        waiting.entry(id).or_default().push(answer);
        idle
    }

    /// Makes sure that the directory `dir` at `path` is itself durable, whoever made it: syncs its parents up to the root,
    /// unless that was done since the process started.
    pub async fn ensure_durable(&self, path: &Path, dir: &D::Dir) -> io::Result<()> {
        let mut unknown = vec![self.disk.dir_id(dir)?];
        for parent in path.ancestors().skip(1) {
            if unknown.last().is_some_and(|id| self.known.borrow().contains(id)) {
                break;
            }
            let parent = self.disk.open_dir(parent).await?;
            self.sync(&parent).await?;
            unknown.push(self.disk.dir_id(&parent)?);
        }
        let mut known = self.known.borrow_mut();
        if known.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(unknown);
        Ok(())
    }
}

/// The rounds of syncs of one directory. Its entry in the map goes when it ends, however it ends.
struct Round {
    id: DirId,
    waiting: Waiting,
}

impl Round {
    async fn run<D: Disk>(self, disk: D, dir: D::Dir) {
        loop {
            let batch = self.take_batch();
            if batch.is_empty() {
                return;
            }
            let answer = disk.sync_dir(&dir).await.map_err(Rc::new);
            // The kernel tells an error once: it may belong to those who came meanwhile.
            let late = if answer.is_err() { self.take_batch() } else { Vec::new() };
            for waiter in batch.into_iter().chain(late) {
                // A caller that has gone needs no answer.
                waiter.send(answer.clone()).ok();
            }
        }
    }
}

impl Round {
    fn take_batch(&self) -> Vec<oneshot::Sender<Answer>> {
        self.waiting.borrow_mut().get_mut(&self.id).map(std::mem::take).unwrap_or_default()
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.waiting.borrow_mut().remove(&self.id);
    }
}

fn copy(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}
