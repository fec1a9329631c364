//! A bounded pool of threads for what may block: path operations, and all file work when there is no ring.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use futures_channel::oneshot;

use crate::io::sync::{Condvar, Mutex, MutexGuard, thread};
use crate::io::{affinity, syscalls};

type Job = Box<dyn FnOnce() + Send>;

/// Threads behind a bounded queue, shared by all workers. The threads end when the pool is dropped.
pub struct Pool(Arc<Shared>);

/// Threads for what may wait for a disk. Who reads does not wait behind all who write.
pub struct Pools {
    pub(super) reads: Pool,
    pub(super) writes: Pool,
}

impl Pools {
    /// Starts so many threads for each, behind queues of at most `queue` jobs.
    pub fn new(reads: usize, writes: usize, queue: usize) -> io::Result<Self> {
        Ok(Self { reads: Pool::new("reads", reads, queue)?, writes: Pool::new("writes", writes, queue)? })
    }
}

/// A channel of crossbeam would do, but its idle receivers spin before they sleep, which costs more than the jobs do.
struct Shared {
    threads: usize,
    queue: Mutex<Queue>,
    most: usize,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job.
    idle: usize,
    ended: bool,
}

impl Pool {
    /// Starts `threads` threads that are named `name`, behind a queue of at most `queue` jobs.
    pub fn new(name: &str, threads: usize, queue: usize) -> io::Result<Self> {
        Self::start(name, threads, queue, || ())
    }

    /// The same of threads that give way to others.
    pub fn low_priority(name: &str, threads: usize, queue: usize) -> io::Result<Self> {
        Self::start(name, threads, queue, || {
            // Without it jobs are as fair as any.
            if syscalls::found().nice {
                affinity::give_way().ok();
            }
        })
    }

    fn start(name: &str, threads: usize, most: usize, prepare: fn()) -> io::Result<Self> {
        let pool = Self(Arc::new(Shared { threads, queue: Mutex::default(), most, changed: Condvar::new() }));
        for _ in 0..threads {
            let shared = Arc::clone(&pool.0);
            let body = move || {
                prepare();
                while let Some(job) = shared.next() {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        log::error!("a job of the blocking pool panicked; the pool goes on");
                    }
                }
            };
            thread::Builder::new().name(name.into()).spawn(body)?;
        }
        Ok(pool)
    }

    /// Leaves `job` to a thread of the pool; of one without threads the caller runs it.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full; the job will not run then.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        if self.0.threads == 0 {
            job();
            return Ok(());
        }
        let queue = self.0.lock();
        // Idle threads are as good as places.
        if queue.jobs.len() >= self.0.most + queue.idle {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the queue of the blocking pool is full"));
        }
        self.0.append(queue, Box::new(job));
        Ok(())
    }

    /// Lets go of something on a thread of the pool, however long the queue is: what waits so has a bound of its own.
    pub fn discard(&self, thing: impl Send + 'static) {
        if self.0.threads > 0 {
            self.0.append(self.0.lock(), Box::new(move || drop(thing)));
        }
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job into the queue.
    fn append(&self, mut queue: MutexGuard<'_, Queue>, job: Job) {
        queue.jobs.push_back(job);
        let asleep = queue.idle > 0;
        drop(queue);
        if asleep {
            self.changed.notify_one();
        }
    }

    /// Waits for a job; none once there will be no more.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.ended {
                return None;
            }
            queue.idle += 1;
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}
