//! Whether the store takes writes, and how much room it keeps free. Shared by all workers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::io::Fault;
use crate::io::dir::Space;
use crate::io::runtime::now;
use crate::store::Error;

/// How long the store counts as read-only after a write found it so.
const READ_ONLY_PAUSE: Duration = Duration::from_secs(10);
/// How long an answer about free space is good for.
const SPACE_IS_FRESH: Duration = Duration::from_millis(50);
/// Default reserve: at most this much, at most one hundredth of the file system.
const RESERVE_BYTES: u64 = 64 << 20;
/// Inodes kept for locks.
const RESERVE_INODES: u64 = 1024;

/// In place of a `--min-free`: the default.
const USUAL: u64 = u64::MAX;

/// The store's state, and counters of what went wrong.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    suspended: AtomicBool,
    /// The data folder is not where it was.
    displaced: AtomicBool,
    /// Milliseconds after `started` until which a file system counts as read-only.
    read_only_until: AtomicU64,
    /// Bytes that `--min-free` asks for; [`USUAL`] means the default.
    min_free: AtomicU64,
    /// By device: when its room was asked for, and what is left of the answer.
    spaces: Mutex<HashMap<u64, (Instant, Space)>>,
    damaged: AtomicU64,
}

impl Health {
    /// A store that takes writes while `min_free` bytes (default: the smaller of 64 MiB and 1 %) stay free.
    pub fn new(min_free: Option<u64>) -> Self {
        let started = now();
        Self {
            started,
            suspended: AtomicBool::new(false),
            displaced: AtomicBool::new(false),
            read_only_until: AtomicU64::new(0),
            min_free: AtomicU64::new(min_free.unwrap_or(USUAL)),
            spaces: Mutex::default(),
            damaged: AtomicU64::new(0),
        }
    }

    /// Takes another `--min-free`.
    pub fn set_min_free(&self, min_free: Option<u64>) {
        self.min_free.store(min_free.unwrap_or(USUAL), Ordering::Relaxed);
    }

    /// Fails if a flush has failed, or if what is stored would not be found again.
    pub fn check_not_suspended(&self) -> Result<(), Error> {
        match (self.suspended.load(Ordering::SeqCst), self.displaced.load(Ordering::SeqCst)) {
            (true, _) => Err(Error::Suspended),
            (false, true) => Err(Error::Displaced),
            (false, false) => Ok(()),
        }
    }

    /// Takes what a look at the data folder's path found.
    pub fn note_place(&self, found: std::io::Result<()>) {
        let displaced = found.is_err();
        match (self.displaced.swap(displaced, Ordering::SeqCst), found) {
            (false, Err(e)) => log::error!("{e}: nothing is stored meanwhile"),
            (true, Ok(())) => {
                log::warn!("the data folder is back in its place: the store takes writes again");
            }
            _ => {}
        }
    }

    /// Fails if a write failed of late because nothing can be written. To be told, not to be asked before a write: only one
    /// of the file systems below the data folder may be read-only, or be so no more.
    pub fn check_writable(&self) -> Result<(), Error> {
        self.check_not_suspended()?;
        let elapsed = self.elapsed();
        if elapsed < self.read_only_until.load(Ordering::Relaxed) { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Takes the answer about the room on a device.
    pub fn set_space(&self, device: u64, space: Space) {
        self.spaces().insert(device, (now(), space));
    }

    /// Takes room for `inodes` new files or folders of `length` bytes in all out of the last answer, which all workers share.
    ///
    /// # Errors
    /// That would eat into the reserve, or the answer is not fresh: ask anew and try again.
    pub fn take_space(&self, device: u64, length: u64, inodes: u64) -> Result<(), Error> {
        let mut spaces = self.spaces();
        let fresh =
            spaces.get_mut(&device).filter(|(asked, _)| now().duration_since(*asked) < SPACE_IS_FRESH);
        let (_, space) = fresh.ok_or(Error::Reserved)?;
        self.check_space(space, length, inodes)?;
        space.free_bytes = space.free_bytes.saturating_sub(length);
        space.free_inodes = space.free_inodes.saturating_sub(inodes);
        Ok(())
    }

    fn spaces(&self) -> MutexGuard<'_, HashMap<u64, (Instant, Space)>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if not even an empty object fits above the reserve.
    pub fn check_room(&self, space: &Space) -> Result<(), Error> {
        self.check_space(space, 0, 1)
    }

    /// Fails in the last half of the reserve.
    pub fn check_lock_room(&self, space: &Space) -> Result<(), Error> {
        has_free(space, self.reserve(space) / 2, RESERVE_INODES / 2)
    }

    fn check_space(&self, space: &Space, length: u64, inodes: u64) -> Result<(), Error> {
        let bytes = length.saturating_add(self.reserve(space));
        has_free(space, bytes, inodes.saturating_add(RESERVE_INODES))
    }

    fn reserve(&self, space: &Space) -> u64 {
        match self.min_free.load(Ordering::Relaxed) {
            USUAL => RESERVE_BYTES.min(space.bytes / 100),
            asked => asked,
        }
    }

    /// Looks at an error of any step that writes.
    pub fn note_write(&self, error: &std::io::Error) {
        if Fault::of(error) == Fault::ReadOnly {
            let elapsed = self.elapsed();
            let until = elapsed + milliseconds(READ_ONLY_PAUSE);
            if self.read_only_until.swap(until, Ordering::Relaxed) <= elapsed {
                log::error!("the file system is read-only: what is to be written there is refused");
            }
        }
    }

    /// Looks at an error of a flush. After one of the device, or of the way to it, the kernel has thrown the dirty pages away
    /// and the next flush would report success: nothing may be acknowledged any more.
    pub fn note_flush(&self, error: &std::io::Error) {
        self.note_write(error);
        // A flush that the disk does not have (`Unsupported`) has lost nothing: see `io::flush`.
        let lost = match Fault::of(error) {
            Fault::Device => true,
            // What is not the system's comes of this process (a panic): the kernel has thrown nothing away.
            Fault::Other => error.raw_os_error().is_some(),
            _ => false,
        };
        if lost && !self.suspended.swap(true, Ordering::SeqCst) {
            log::error!(
                "a flush to disk failed ({error}): the store takes no writes until `packhouse repo resume` or a restart"
            );
        }
    }

    /// Takes writes again. True if it did not before.
    pub fn resume(&self) -> bool {
        self.read_only_until.store(0, Ordering::Relaxed);
        self.suspended.swap(false, Ordering::SeqCst)
    }

    /// Counts an object found damaged.
    pub fn note_damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// Objects found damaged since the start.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> u64 {
        milliseconds(now().duration_since(self.started))
    }
}

fn has_free(space: &Space, bytes: u64, inodes: u64) -> Result<(), Error> {
    let has_bytes = space.bytes == 0 || space.free_bytes >= bytes;
    let has_inodes = space.inodes == 0 || space.free_inodes >= inodes;
    if has_bytes && has_inodes { Ok(()) } else { Err(Error::Reserved) }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_keeps_bytes_and_inodes() {
        let health = Health::new(None);
        let space =
            |free_bytes, free_inodes| Space { bytes: 1 << 30, free_bytes, inodes: 1 << 20, free_inodes };
        let reserve = (1 << 30) / 100;
        assert!(health.check_space(&space(reserve + 5, 5000), 5, 1).is_ok());
        assert!(health.check_space(&space(reserve + 5, 5000), 6, 1).is_err());
        assert!(health.check_space(&space(1 << 29, 1024), 6, 1).is_err());
        assert!(health.check_space(&space(1 << 29, 1286), 6, 262).is_ok());
        assert!(health.check_space(&space(1 << 29, 1285), 6, 262).is_err());
        assert!(health.check_space(&space(u64::MAX - 1, 5000), u64::MAX, 1).is_err());
        let none = Health::new(Some(0));
        assert!(none.check_space(&space(5, 5000), 6, 1).is_err());
        assert!(none.check_space(&Space { inodes: 0, free_inodes: 0, ..space(6, 0) }, 6, 1).is_ok());
        let uncounted = Space { bytes: 0, free_bytes: 0, inodes: 0, free_inodes: 0 };
        assert!(health.check_space(&uncounted, 1 << 40, 1).is_ok(), "a disk that counts nothing is not full");
    }

    #[test]
    fn a_failed_flush_suspends_until_resumed() {
        let health = Health::new(None);
        health.note_write(&Fault::Device.to_error());
        assert!(health.check_writable().is_ok());
        health.note_flush(&Fault::Device.to_error());
        assert!(matches!(health.check_writable(), Err(Error::Suspended)));
        assert!(health.resume());
        assert!(!health.resume());
        health.note_write(&Fault::ReadOnly.to_error());
        assert!(matches!(health.check_writable(), Err(Error::ReadOnly)));
    }
}
