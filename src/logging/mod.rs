//! The log: env_logger's formatting, one writer thread behind a bounded queue.
//!
//! Invariant: a worker never waits for whoever reads the log. When the queue is full, lines are dropped and counted, and
//! the count is written as soon as there is room.

use std::io::{self, Write};

use env_logger::{Builder, Target};
use log::{LevelFilter, Record};

pub mod access;
pub mod limit;
mod queue;

use queue::{Queue, Sink};

/// Lines with this target are written as they are, without time and level: `start server on …` is read by programs.
pub const PLAIN: &str = "plain";

/// Longest field of a line that a client has written, in bytes of the client's.
pub const MAX_FIELD_BYTES: usize = 256;

/// What a client has written, for a line of a log: printable ASCII without quotes and line ends, and cut.
pub fn shown(field: &[u8]) -> String {
    match field.get(..MAX_FIELD_BYTES) {
        Some(begin) if field.len() > MAX_FIELD_BYTES => format!("{}...", begin.escape_ascii()),
        _ => field.escape_ascii().to_string(),
    }
}

/// Keeps the log going; flushes it when dropped.
pub struct Guard(Queue);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging to stderr. Under systemd's journal, which adds its own, lines have no time.
///
/// # Errors
/// The writer thread can't be started.
pub fn init(debug: bool) -> io::Result<Guard> {
    let queue = Queue::start("log", Plain(io::stderr()))?;
    let timed = std::env::var_os("JOURNAL_STREAM").is_none();
    let level = if debug { LevelFilter::Debug } else { LevelFilter::Info };
    Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module(env!("CARGO_PKG_NAME"), level)
        .filter_module(PLAIN, LevelFilter::Info)
        .format(move |out, record| format(out, record, timed))
        .target(Target::Pipe(Box::new(Pipe(queue.clone()))))
        .init();
    Ok(Guard(queue))
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

/// What env_logger writes to.
struct Pipe(Queue);

impl Write for Pipe {
    /// env_logger writes a whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.line(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines as they are.
struct Plain<W>(W);

impl<W: Write + Send + 'static> Sink for Plain<W> {
    fn line(&mut self, line: &[u8]) {
        self.0.write_all(line).ok();
    }

    fn lost(&mut self, count: u64) {
        writeln!(self.0, "WARN  {count} log lines were dropped: nobody read them fast enough").ok();
    }
}
