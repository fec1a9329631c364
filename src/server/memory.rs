//! How the memory that the process may use is divided: fixed amounts, less where a cgroup or the machine has little.

use crate::io::buffer::BUFFER_BYTES;

/// Transfer buffers of all workers together take at most this much memory in each direction, unless that is too little for
/// each of them. Those for sending are filled with 128 KiB, so that the rest of them is never touched.
const TRANSFER_BYTES: u64 = 28 << 20;
/// A worker has at least this many buffers in each direction: one for every lane of SHA-256, and some that are written meanwhile.
const MIN_BUFFERS: usize = 20;
/// For what clients send before they log in.
const NEWCOMER_BYTES: u64 = 8 << 20;
/// For the pages of lists, and what one list takes: 58 KiB before it is known whether it is long, 26 KiB later. Only while less
/// than a quarter of the lists run do they read ahead, in larger pages, which is 250 KiB for each of them.
const LISTS_BYTES: u64 = 8 << 20;
const LIST_BYTES: u64 = 64 << 10;
const MIN_LISTS: usize = 16;
/// What a connection takes beside its bytes, where most of them upload: those take 20 KiB. It is 4.4 KiB while it is idle, 9 KiB
/// with TLS, and 10.3 KiB between `ClientHello` and login (measured on 2026-11-28). So 64 MiB have room for a thousand uploads.
const CONNECTION_BYTES: u64 = 16 << 10;

/// Who may have how much.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// Bytes of transfer buffers in each direction.
    transfer: u64,
    /// Bytes that all clients together may have sent before they log in.
    pub newcomers: usize,
    /// Lists at once.
    pub lists: usize,
    /// Connections at once.
    pub connections: u64,
}

impl MemoryPlan {
    /// For a process that may use `limit` bytes: a quarter for each direction's buffers, a quarter for connections, a sixteenth each
    /// for newcomers and lists.
    pub fn of(limit: u64) -> Self {
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            transfer: TRANSFER_BYTES.min(limit / 4),
            newcomers: count(NEWCOMER_BYTES.min(limit / 16)),
            lists: count(LISTS_BYTES.min(limit / 16) / LIST_BYTES).max(MIN_LISTS),
            connections: limit / 4 / CONNECTION_BYTES,
        }
    }

    /// Workers for whose least buffers a quarter of `limit` has room, at least one.
    pub fn most_workers(limit: u64) -> usize {
        let of_worker = MIN_BUFFERS * BUFFER_BYTES;
        (usize::try_from(limit / 4).unwrap_or(usize::MAX) / of_worker).max(1)
    }

    /// Transfer buffers that each of `workers` workers may have in each direction.
    pub fn buffers(&self, workers: usize) -> usize {
        let all = usize::try_from(self.transfer).unwrap_or(usize::MAX) / BUFFER_BYTES;
        (all / workers.max(1)).max(MIN_BUFFERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_memory_is_divided_and_much_is_not_used_up() {
        let little = MemoryPlan::of(64 << 20);
        assert_eq!((little.newcomers, little.lists, little.connections), (4 << 20, 64, 1024));
        assert_eq!((little.buffers(1), little.buffers(2)), (32, 20));
        assert_eq!([64, 256, 8192].map(|mib| MemoryPlan::most_workers(mib << 20)), [1, 6, 204]);
        let much = MemoryPlan::of(u64::MAX);
        assert_eq!((much.newcomers, much.lists, much.buffers(1)), (8 << 20, 128, 56));
    }
}
