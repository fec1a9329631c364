//! Lines on their way to a writer thread of their own, behind a bounded queue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

/// Lines that may wait for the writer, and their bytes.
const QUEUE_LINES: usize = 8192;
const QUEUE_BYTES: usize = 1 << 20;
/// How long the end of the process waits for the writer.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    Reopen,
    Flush(Sender<()>),
}

/// Where lines end.
pub(super) trait Sink: Send + 'static {
    /// Writes a line. One that can't be written has nowhere to complain.
    fn line(&mut self, line: &[u8]);
    /// So many lines were dropped before the next one.
    fn lost(&mut self, count: u64);
    /// Opens anew what the lines are written to.
    fn reopen(&mut self) {}
}

/// The queue. Clones are the same queue.
#[derive(Clone)]
pub(super) struct Queue {
    messages: Sender<Message>,
    state: Arc<State>,
}

/// What both ends of the queue count.
#[derive(Default)]
struct State {
    /// Lines that did not fit, since the last line that was written.
    dropped: AtomicU64,
    /// Bytes that wait.
    bytes: AtomicUsize,
}

impl Queue {
    /// Starts a writer.
    pub(super) fn start(name: &str, mut sink: impl Sink) -> io::Result<Self> {
        let (queue, queued) = Self::new(QUEUE_LINES);
        let state = Arc::clone(&queue.state);
        thread::Builder::new().name(name.into()).spawn(move || write_out(&queued, &state, &mut sink))?;
        Ok(queue)
    }

    fn new(lines: usize) -> (Self, Receiver<Message>) {
        let (messages, queued) = bounded(lines);
        (Self { messages, state: Arc::default() }, queued)
    }

    /// Writes a line without waiting: when the queue is full it is dropped and counted.
    pub(super) fn line(&self, line: Vec<u8>) {
        let (length, State { dropped, bytes }) = (line.len(), &*self.state);
        let fits = bytes.fetch_add(length, Ordering::Relaxed) + length <= QUEUE_BYTES;
        if fits && !matches!(self.messages.try_send(Message::Line(line)), Err(TrySendError::Full(_))) {
            return;
        }
        bytes.fetch_sub(length, Ordering::Relaxed);
        dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Has the sink open anew what it writes to, behind all lines so far.
    pub(super) fn reopen(&self) {
        self.messages.send_timeout(Message::Reopen, FLUSH_LIMIT).ok();
    }

    /// Waits until all lines so far are written: for the end of the process.
    pub(super) fn flush(&self) {
        let (done, flushed) = bounded(1);
        if self.messages.send_timeout(Message::Flush(done), FLUSH_LIMIT).is_ok() {
            flushed.recv_timeout(FLUSH_LIMIT).ok();
        }
    }
}

fn write_out(queued: &Receiver<Message>, state: &State, sink: &mut impl Sink) {
    while let Ok(message) = queued.recv() {
        let lost = state.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            sink.lost(lost);
        }
        match message {
            Message::Line(line) => {
                state.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                sink.line(&line);
            }
            Message::Reopen => sink.reopen(),
            Message::Flush(done) => {
                done.send(()).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::Plain;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, queued) = Queue::new(2);
        for n in 0..5 {
            queue.line(format!("line {n}\n").into_bytes());
        }
        let state = Arc::clone(&queue.state);
        drop(queue);
        let mut out = Plain(Vec::new());
        write_out(&queued, &state, &mut out);
        assert_eq!(state.bytes.load(Ordering::Relaxed), 0);
        let text = String::from_utf8(out.0).expect("text");
        let (queue, _queued) = Queue::new(8192);
        for _ in 0..8192 {
            queue.line(vec![b'x'; 1000]);
        }
        assert_eq!(
            queue.state.dropped.load(Ordering::Relaxed),
            8192 - (QUEUE_BYTES / 1000) as u64,
            "of long lines fewer"
        );
        assert_eq!(text, "WARN  3 log lines were dropped: nobody read them fast enough\nline 0\nline 1\n");
    }
}
