//! What is open, a file or a directory: its descriptor, and the threads on which waits for its disk are spent.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::fstat;

use crate::io::blocking::{Pool, Pools};
use crate::io::flush::Flushes;
use crate::io::place::Place;

/// What the files and directories of one tree share.
pub(super) struct Site {
    pub pools: Arc<Pools>,
    /// The device of the tree's root if what is stored there is in memory and nowhere else.
    pub volatile: Option<u64>,
    /// What its flushes are worth.
    pub flushes: Arc<Flushes>,
    /// How many inodes are free is not to be believed: the root has none left by its own word, and makes files.
    pub inodes_unknown: AtomicBool,
    /// No other process writes below the root: a name that is free stays free until this process takes it.
    pub alone: bool,
    /// Where the root is.
    pub place: Arc<Place>,
}

/// An open file or directory of a tree.
#[derive(Clone)]
pub(super) struct Node {
    /// Shared with the jobs of the pools, which may outlive this.
    pub fd: Arc<OwnedFd>,
    pub site: Arc<Site>,
    /// It is in memory and nowhere else: nothing waits for a disk.
    pub volatile: bool,
}

impl Node {
    pub(super) fn new(fd: OwnedFd, site: Arc<Site>) -> io::Result<Self> {
        let volatile = match site.volatile {
            Some(device) => fstat(&fd)?.st_dev == device,
            None => false,
        };
        Ok(Self { fd: Arc::new(fd), site, volatile })
    }

    /// Runs a job that may wait for a disk to read.
    pub(super) async fn reading<T: Send + 'static>(
        &self,
        job: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.elsewhere(&self.site.pools.reads, job).await
    }

    /// Runs a job that takes long, disk or not: reading a folder asks for the size of every file in it. 200 lists of a folder in
    /// memory, read on the worker, kept new connections waiting for 15 s.
    pub(super) async fn reading_apart<T: Send + 'static>(
        &self,
        job: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let fd = Arc::clone(&self.fd);
        self.site.pools.reads.run(move || job(&fd)).await?
    }

    /// Runs a job that may wait for a disk to write.
    pub(super) async fn writing<T: Send + 'static>(
        &self,
        job: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.elsewhere(&self.site.pools.writes, job).await
    }

    /// Where that holds up nobody; at once, if there is no disk.
    async fn elsewhere<T: Send + 'static>(
        &self,
        pool: &Pool,
        job: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.volatile {
            return job(&self.fd);
        }
        let fd = Arc::clone(&self.fd);
        pool.run(move || job(&fd)).await?
    }
}
