//! What reaches a running server from outside its protocol: signals, and commands on a unix socket in its state folder.
//!
//! A command is one line; the answer is a line `ok` or `failed`, and text for the operator behind it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use crate::io::signal::{self, Caught, Latch, Signal};
use crate::server::count::CountRequests;
use crate::store::health::Health;

/// The socket's name in the state folder.
const SOCKET: &str = "control.sock";
/// Time for a line to arrive, or to be taken.
const LINE_LIMIT: Duration = Duration::from_secs(5);
/// Time for a command: a reload reads files, and a disk may be slow.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);
/// Longest wait for what a server is doing: at a start, when it may be busy with a reload.
const STATE_LIMIT: Duration = Duration::from_secs(2);
/// Rest after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest command, and longest answer, in bytes.
const MAX_COMMAND: u64 = 1024;
const MAX_ANSWER: u64 = 64 << 10;
const OK: &str = "ok";
const FAILED: &str = "failed";

/// What an operator may tell a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Whether it is stopping.
    State,
    /// Take writes again after a failed flush.
    Resume,
    /// Read settings and files anew.
    Reload,
    /// Count what is stored anew.
    Recount,
    /// Whether it is still counting.
    Counting,
}

impl Command {
    const ALL: [(Self, &'static str); 5] = [
        (Self::State, "state"),
        (Self::Resume, "resume"),
        (Self::Reload, "reload"),
        (Self::Recount, "recount"),
        (Self::Counting, "counting"),
    ];

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == word).map(|(command, _)| command)
    }

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(known, _)| *known == self).map_or("", |(_, word)| word)
    }
}

/// What a command came to: text for the operator.
pub type Reply = Result<String, String>;

/// What the thread that waits for the end is told.
pub enum Event {
    /// A signal came.
    Signal(Signal),
    /// An operator wants a reload, and waits for what comes of it.
    Reload(Sender<Reply>),
    /// Files that the settings name have changed.
    FilesChanged,
    /// Files that could not be read may be readable by now.
    TryFilesAgain,
    /// A worker accepts connections.
    Ready,
    /// A worker has drained; so many connections were left.
    Drained(usize),
    /// A worker has failed.
    Failed(String),
}

/// Sends every signal as an event.
pub fn listen_for_signals(caught: Caught, events: Sender<Event>) -> io::Result<()> {
    signal::listen(caught, move |signal| {
        // Nobody listens any more once the process ends.
        events.send(Event::Signal(signal)).ok();
    })
}

/// What commands are about.
pub struct Commanded {
    /// Takes writes again.
    pub health: Arc<Health>,
    /// Tells whether the server is stopping.
    pub stopping: Arc<Latch>,
    /// Counts what is stored.
    pub counts: Arc<CountRequests>,
    /// Reloads.
    pub events: Sender<Event>,
}

/// Answers commands from the socket in `state_dir`, which this process holds, on a thread of its own.
pub fn listen_for_commands(state_dir: &Path, commanded: Commanded) -> io::Result<()> {
    let path = state_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (address, _folder) = short(&path)?;
    let listener = UnixListener::bind(address)?;
    thread::Builder::new().name("control".into()).spawn(move || {
        for connection in listener.incoming() {
            if let Err(e) = connection.and_then(|connection| commanded.answer(connection)) {
                log::debug!("a command on the control socket failed: {e}");
                // An accept that fails for want of descriptors would fail again at once.
                thread::sleep(PAUSE);
            }
        }
    })?;
    Ok(())
}

impl Commanded {
    fn answer(&self, mut connection: UnixStream) -> io::Result<()> {
        connection.set_read_timeout(Some(LINE_LIMIT))?;
        connection.set_write_timeout(Some(LINE_LIMIT))?;
        let mut line = String::new();
        BufReader::new((&connection).take(MAX_COMMAND)).read_line(&mut line)?;
        let reply = match Command::parse(line.trim()) {
            Some(command) => self.run(command),
            None => Err("this server does not know the command: is it of another version?".into()),
        };
        match reply {
            Ok(text) => writeln!(connection, "{OK}\n{text}"),
            Err(text) => writeln!(connection, "{FAILED}\n{text}"),
        }
    }

    fn run(&self, command: Command) -> Reply {
        match command {
            Command::State if self.stopping.is_raised() => Ok("stopping".into()),
            Command::State => Ok("running".into()),
            Command::Resume if self.health.resume() => {
                log::warn!("the store takes writes again: an operator said so");
                Ok("the store takes writes again".into())
            }
            Command::Resume => Ok("the store was taking writes already".into()),
            Command::Reload => {
                let (reply, replied) = bounded(1);
                self.events.send(Event::Reload(reply)).map_err(|_ended| "the server is ending")?;
                let too_late =
                    |_elapsed| "the reload takes long: see the log for what comes of it".to_owned();
                replied.recv_timeout(COMMAND_LIMIT).map_err(too_late)?
            }
            Command::Recount => {
                self.counts.ask();
                Ok("counting what is stored anew".into())
            }
            Command::Counting if self.counts.is_busy() => Ok("yes".into()),
            Command::Counting => Ok("no".into()),
        }
    }
}

/// Tells the server that holds `state_dir` something; returns its reply.
///
/// # Errors
/// No server answers there.
pub fn tell(state_dir: &Path, command: Command) -> io::Result<Reply> {
    tell_within(state_dir, command, COMMAND_LIMIT + LINE_LIMIT)
}

fn tell_within(state_dir: &Path, command: Command, limit: Duration) -> io::Result<Reply> {
    let (address, _folder) = short(&state_dir.join(SOCKET))?;
    let mut connection = UnixStream::connect(address)?;
    connection.set_read_timeout(Some(limit))?;
    writeln!(connection, "{}", command.word())?;
    let mut said = String::new();
    connection.take(MAX_ANSWER).read_to_string(&mut said)?;
    let (verdict, text) = said.split_once('\n').unwrap_or((&said, ""));
    let text = text.trim().to_owned();
    match verdict {
        OK => Ok(Ok(text)),
        FAILED => Ok(Err(text)),
        _ => Err(io::Error::other("the server ended without an answer")),
    }
}

/// Whether the server that holds `state_dir` is stopping; none if there is none that answers.
pub(super) fn is_stopping(state_dir: &Path) -> Option<bool> {
    tell_within(state_dir, Command::State, STATE_LIMIT).ok()?.ok().map(|state| state == "stopping")
}

/// The same path, short enough for a socket address: through a descriptor of its folder, which must stay open meanwhile.
fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    const MAX_SOCKET_PATH: usize = 107;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((path.into(), None));
    };
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok((path.into(), None));
    }
    let folder = File::open(folder)?;
    let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
    Ok((Path::new(&link).join(name), Some(folder)))
}
