//! The log: env_logger's formatting, one writer thread behind a bounded queue.
//!
//! Invariant: a worker never waits for whoever reads the log. When the queue is full, lines are dropped and counted, and
//! the count is written as soon as there is room.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use env_logger::{Builder, Target};
use log::{LevelFilter, Record};

pub mod access;

/// Lines that may wait for the writer: about 1 MiB.
const QUEUE_LINES: usize = 8192;
/// How long the end of the process waits for the writer.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Lines with this target are written as they are, without time and level: `start server on …` is read by programs.
pub const PLAIN: &str = "plain";

enum Message {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// Keeps the log going; flushes it when dropped.
pub struct Guard(Sender<Message>);

impl Drop for Guard {
    fn drop(&mut self) {
        let (done, flushed) = bounded(1);
        if self.0.send_timeout(Message::Flush(done), FLUSH_LIMIT).is_ok() {
            flushed.recv_timeout(FLUSH_LIMIT).ok();
        }
    }
}

/// Starts logging to stderr. Under systemd's journal, which adds its own, lines have no time.
///
/// # Errors
/// The writer thread can't be started.
pub fn init(debug: bool) -> io::Result<Guard> {
    let (lines, queued) = bounded(QUEUE_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = Queue { lines: lines.clone(), dropped: Arc::clone(&dropped) };
    thread::Builder::new()
        .name("log".into())
        .spawn(move || write_out(&queued, &dropped, &mut io::stderr()))?;
    let timed = std::env::var_os("JOURNAL_STREAM").is_none();
    let level = if debug { LevelFilter::Debug } else { LevelFilter::Info };
    Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module(env!("CARGO_PKG_NAME"), level)
        .filter_module(PLAIN, LevelFilter::Info)
        .format(move |out, record| format(out, record, timed))
        .target(Target::Pipe(Box::new(queue)))
        .init();
    Ok(Guard(lines))
}

fn format(out: &mut env_logger::fmt::Formatter, record: &Record<'_>, timed: bool) -> io::Result<()> {
    if record.target() == PLAIN {
        return writeln!(out, "{}", record.args());
    }
    if timed {
        let time = out.timestamp_millis();
        write!(out, "{time} ")?;
    }
    writeln!(out, "{:<5} {}", record.level(), record.args())
}

struct Queue {
    lines: Sender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Write for Queue {
    /// env_logger writes a whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Message::Line(line.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_out(queued: &Receiver<Message>, dropped: &AtomicU64, out: &mut impl Write) {
    while let Ok(message) = queued.recv() {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            writeln!(out, "WARN  {lost} log lines were dropped: nobody read them fast enough").ok();
        }
        // A log that can't be written has nowhere to complain.
        match message {
            Message::Line(line) => out.write_all(&line).ok(),
            Message::Flush(done) => done.send(()).ok(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (lines, queued) = bounded(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut queue = Queue { lines, dropped: Arc::clone(&dropped) };
        for n in 0..5 {
            queue.write_all(format!("line {n}\n").as_bytes()).expect("never fails");
        }
        drop(queue);
        let mut out = Vec::new();
        write_out(&queued, &dropped, &mut out);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text, "WARN  3 log lines were dropped: nobody read them fast enough\nline 0\nline 1\n");
    }
}
