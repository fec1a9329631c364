//! Transfer buffers: a fixed number of them a worker, which is the bound on the memory that bodies take.
//!
//! A buffer is taken only once there is something to put into it, so that an idle connection holds none.

#![expect(unsafe_code, reason = "monoio's buffer traits are unsafe to implement")]

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use event_listener::Event;
use monoio::buf::{IoBuf, IoBufMut};

use crate::io::wake::until;

/// Bytes a buffer holds. 64 KiB costs more system calls, 1 MiB spills the level-2 cache.
pub const BUFFER_BYTES: usize = 128 * 1024;

/// The buffers of one worker.
#[derive(Clone)]
pub struct BufferPool(Rc<Shared>);

struct Shared {
    free: RefCell<Vec<Vec<u8>>>,
    /// How many more buffers may be taken.
    available: Cell<usize>,
    returned: Event,
}

impl BufferPool {
    /// A pool of at most `count` buffers. Memory is allocated when a buffer is first needed.
    pub fn new(count: usize) -> Self {
        Self(Rc::new(Shared {
            free: RefCell::default(),
            available: Cell::new(count),
            returned: Event::new(),
        }))
    }

    /// Takes an empty buffer; waits while all are in use.
    pub async fn take(&self) -> Buffer {
        until(&self.0.returned, || self.try_take()).await
    }

    fn try_take(&self) -> Option<Buffer> {
        let left = self.0.available.get().checked_sub(1)?;
        self.0.available.set(left);
        let free = self.0.free.borrow_mut().pop();
        let bytes = free.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        Some(Buffer { bytes, pool: Rc::clone(&self.0) })
    }
}

/// One buffer. It goes back to its pool when it is dropped, wherever that is: also when the kernel lets go of it
/// after a cancelled operation.
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Rc<Shared>,
}

impl Buffer {
    /// Hands the memory out, for a job on another thread; give it back with [`Self::restore`]. If that never
    /// happens the pool allocates anew.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Takes back what [`Self::lend`] gave.
    pub(super) fn restore(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() == BUFFER_BYTES {
            bytes.clear();
            self.pool.free.borrow_mut().push(bytes);
        }
        self.pool.available.set(self.pool.available.get() + 1);
        // Not `notify(1)`: that does nothing while another waiter that was woken has not run yet.
        self.pool.returned.notify_additional(1);
    }
}

// SAFETY: the vector's heap block stays where it is for as long as the buffer lives, however the buffer moves, and
// `bytes_init` is the vector's own length.
unsafe impl IoBuf for Buffer {
    fn read_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes.len()
    }
}

// SAFETY: as above; all of the capacity may be written, and monoio calls `set_init` only with a number of bytes
// that the kernel has written from the start of the block.
unsafe impl IoBufMut for Buffer {
    fn write_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.bytes.capacity()
    }

    unsafe fn set_init(&mut self, count: usize) {
        // SAFETY: the caller vouches for `count` initialized bytes.
        unsafe { self.bytes.set_len(count) };
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
