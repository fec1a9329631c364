//! Transfer buffers: a fixed number of them a worker, which is the bound on the memory that bodies take.
//!
//! A buffer is taken only once there is something to put into it, so that an idle connection holds none.

#![expect(unsafe_code, reason = "monoio's buffer traits are unsafe to implement")]

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;

use event_listener::Event;
use monoio::buf::{IoBuf, IoBufMut};

use crate::io::wake::until;

/// Bytes a buffer holds, and a write to disk has: telling the disk costs as much as some hundred KiB.
pub const BUFFER_BYTES: usize = 512 * 1024;
/// Buffers begin at multiples of this: direct I/O asks for no more on any disk that is in use.
pub const ALIGNMENT: usize = 4096;

/// The buffers of one worker.
#[derive(Clone)]
pub struct BufferPool(Rc<Shared>);

struct Shared {
    free: RefCell<Vec<Memory>>,
    /// How many there may be, and how many more may be taken.
    count: usize,
    available: Cell<usize>,
    returned: Event,
}

impl BufferPool {
    /// A pool of at most `count` buffers. Memory is allocated when a buffer is first needed.
    pub fn new(count: usize) -> Self {
        let (free, available) = (RefCell::default(), Cell::new(count));
        Self(Rc::new(Shared { free, count, available, returned: Event::new() }))
    }

    /// Takes an empty buffer; waits while all are in use.
    pub async fn take(&self) -> Buffer {
        until(&self.0.returned, || self.try_take()).await
    }

    /// Whether more than half of the buffers are free: then one may be held for a moment that is not full.
    pub fn has_plenty(&self) -> bool {
        self.0.available.get() > self.0.count / 2
    }

    fn try_take(&self) -> Option<Buffer> {
        let left = self.0.available.get().checked_sub(1)?;
        self.0.available.set(left);
        let memory = self.0.free.borrow_mut().pop().unwrap_or_else(Memory::new);
        Some(Buffer { memory, pool: Rc::clone(&self.0) })
    }
}

/// The memory of a buffer. It may visit other threads.
pub(super) struct Memory {
    /// All of it is initialized. It is longer than a buffer, so that one can begin at an aligned place.
    bytes: Box<[u8]>,
    start: usize,
    length: usize,
    /// How much it takes at the most.
    room: usize,
}

impl Memory {
    /// None: what stands in for memory that was lent.
    fn none() -> Self {
        Self { bytes: Box::default(), start: 0, length: 0, room: 0 }
    }

    fn new() -> Self {
        let bytes = vec![0; BUFFER_BYTES + ALIGNMENT].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start, length: 0, room: BUFFER_BYTES }
    }

    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.start + self.length).unwrap_or_default()
    }

    /// What is not filled yet.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start + self.length..self.start + self.room).unwrap_or_default()
    }

    /// Counts `count` bytes of what was spare as filled.
    pub(super) fn advance(&mut self, count: usize) {
        self.length = (self.length + count).min(self.room);
    }

    pub(super) const fn truncate(&mut self, length: usize) {
        if length < self.length {
            self.length = length;
        }
    }
}

/// One buffer. It goes back to its pool when it is dropped, wherever that is: also when the kernel lets go of it
/// after a cancelled operation.
pub struct Buffer {
    memory: Memory,
    pool: Rc<Shared>,
}

impl Buffer {
    /// Hands the memory out, for a job on another thread; give it back with [`Self::restore`]. If that never
    /// happens the pool allocates anew.
    pub(super) fn lend(&mut self) -> Memory {
        std::mem::replace(&mut self.memory, Memory::none())
    }

    /// Takes back what [`Self::lend`] gave.
    pub(super) fn restore(&mut self, memory: Memory) {
        self.memory = memory;
    }

    /// Lets it take no more than `bytes` bytes in all.
    pub fn limit(&mut self, bytes: usize) {
        self.memory.room = self.memory.room.min(bytes);
    }

    /// What is not filled yet.
    pub fn spare(&mut self) -> &mut [u8] {
        self.memory.spare()
    }

    /// Counts `count` bytes of what was spare as filled.
    pub fn advance(&mut self, count: usize) {
        self.memory.advance(count);
    }

    /// Forgets all but the first `length` bytes.
    pub const fn truncate(&mut self, length: usize) {
        self.memory.truncate(length);
    }

    /// Fills in what has room of `bytes`; returns how much that is.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let count = copy(bytes, self.spare());
        self.advance(count);
        count
    }

    /// What is filled, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        let Memory { bytes, start, length, .. } = &mut self.memory;
        bytes.get_mut(*start..*start + *length).unwrap_or_default()
    }
}

/// Copies as many bytes as there are and as there is room for; returns how many.
pub fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
        to.copy_from_slice(from);
    }
    count
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.filled()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut memory = std::mem::replace(&mut self.memory, Memory::none());
        if !memory.bytes.is_empty() {
            (memory.length, memory.room) = (0, BUFFER_BYTES);
            self.pool.free.borrow_mut().push(memory);
        }
        self.pool.available.set(self.pool.available.get() + 1);
        // Not `notify(1)`: that does nothing while another waiter that was woken has not run yet.
        self.pool.returned.notify_additional(1);
    }
}

// SAFETY: the heap block stays where it is for as long as the buffer lives, however the buffer moves, and
// `bytes_init` bytes of it from `read_ptr` on are inside it and initialized.
unsafe impl IoBuf for Buffer {
    fn read_ptr(&self) -> *const u8 {
        self.memory.filled().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.memory.length
    }
}

// SAFETY: as above; `room` bytes, which are `BUFFER_BYTES` at the most, may be written from `write_ptr` on, all of which are
// initialized whatever the kernel did.
unsafe impl IoBufMut for Buffer {
    fn write_ptr(&mut self) -> *mut u8 {
        self.memory.bytes.get_mut(self.memory.start..).unwrap_or_default().as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.memory.room
    }

    unsafe fn set_init(&mut self, count: usize) {
        self.memory.length = count.min(self.memory.room);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    #[test]
    fn two_returned_buffers_wake_two_waiters() {
        let pool = BufferPool::new(2);
        let woken = || {
            let count = Arc::new(Wakes(AtomicUsize::new(0)));
            (Arc::clone(&count), Waker::from(count))
        };
        let held = (pool.try_take(), pool.try_take());
        let ((wakes, one), (more_wakes, other)) = (woken(), woken());
        let (mut first, mut second) = (pin!(pool.take()), pin!(pool.take()));
        assert!(first.as_mut().poll(&mut Context::from_waker(&one)).is_pending());
        assert!(second.as_mut().poll(&mut Context::from_waker(&other)).is_pending());
        drop(held);
        assert_eq!((wakes.0.load(Ordering::SeqCst), more_wakes.0.load(Ordering::SeqCst)), (1, 1));
    }

    #[test]
    fn a_limit_lasts_until_the_buffer_goes_back() {
        let pool = BufferPool::new(1);
        let mut buffer = pool.try_take().expect("the only one");
        buffer.limit(3);
        assert_eq!((buffer.bytes_total(), buffer.append(b"more"), &*buffer), (3, 3, &b"mor"[..]));
        drop(buffer);
        assert_eq!(pool.try_take().expect("the same").spare().len(), BUFFER_BYTES);
    }

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_pool_is_bounded_and_a_returned_buffer_wakes_one_waiter() {
        let pool = BufferPool::new(1);
        let mut cx = Context::from_waker(Waker::noop());
        let first = pool.try_take().expect("the only one");
        assert!(pool.try_take().is_none());
        let mut second = pin!(pool.take());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(matches!(second.as_mut().poll(&mut cx), Poll::Ready(b) if b.is_empty()));
    }
}
