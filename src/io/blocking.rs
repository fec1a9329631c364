//! A bounded pool of threads for what may block: path operations, and all file work when there is no ring.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam::channel::{Receiver, Sender, bounded};
use futures_channel::oneshot;

/// What nice(2) adds to a thread of low priority: about a tenth of a processor is left to it when all others are busy, so
/// that nobody who comes new waits for long.
const LOW_PRIORITY: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// Threads behind a bounded queue, shared by all workers. The threads end when the pool is dropped.
pub struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// Starts `threads` threads that are named `name`, behind a queue of at most `queue` jobs.
    pub fn new(name: &str, threads: usize, queue: usize) -> io::Result<Self> {
        Self::start(name, threads, queue, || ())
    }

    /// The same of threads that give way to others.
    pub fn low_priority(name: &str, threads: usize, queue: usize) -> io::Result<Self> {
        // On Linux this is a matter of the calling thread alone. Without it jobs are as fair as any.
        Self::start(name, threads, queue, || {
            rustix::process::nice(LOW_PRIORITY).ok();
        })
    }

    fn start(name: &str, threads: usize, queue: usize, prepare: fn()) -> io::Result<Self> {
        let (jobs, queued) = bounded::<Job>(queue);
        for _ in 0..threads {
            let queued = queued.clone();
            let body = move || {
                prepare();
                work(&queued);
            };
            thread::Builder::new().name(name.into()).spawn(body)?;
        }
        Ok(Self { jobs })
    }

    /// Leaves `job` to a thread of the pool.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full; the job will not run then.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.jobs.try_send(Box::new(job)).map_err(|_full| {
            io::Error::new(io::ErrorKind::WouldBlock, "the queue of the blocking pool is full")
        })
    }

    /// Runs `job` on a thread of the pool and waits for its result.
    ///
    /// A caller that is dropped meanwhile leaves the job to run to its end: it must own all it touches.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full; the job has not run then. `Other` when the job panicked.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        self.submit(move || drop(answer.send(job())))?;
        answered.await.map_err(|_canceled| io::Error::other("a job of the blocking pool panicked"))
    }
}

fn work(queued: &Receiver<Job>) {
    while let Ok(job) = queued.recv() {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            log::error!("a job of the blocking pool panicked; the pool goes on");
        }
    }
}
