//! What reaches a running server from outside its protocol: signals, and commands on a unix socket in its state folder.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::io::signal::{self, Signal};
use crate::store::health::Health;

/// The socket's name in the state folder.
const SOCKET: &str = "control.sock";
/// The command of `packhouse repo resume`.
const RESUME: &str = "resume";
/// Time for one exchange.
const LIMIT: Duration = Duration::from_secs(5);
/// Rest after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest command or answer in bytes.
const MAX_LINE: u64 = 1024;

/// What the thread that waits for the end is told.
pub enum Event {
    /// A signal came.
    Signal(Signal),
    /// A file that the settings name has changed.
    FilesChanged,
    /// A worker accepts connections.
    Ready,
    /// A worker has drained; so many connections were left.
    Drained(usize),
    /// A worker has failed.
    Failed(String),
}

/// Sends every signal as an event.
pub fn listen_for_signals(events: Sender<Event>) -> io::Result<()> {
    signal::listen(move |signal| {
        // Nobody listens any more once the process ends.
        events.send(Event::Signal(signal)).ok();
    })
}

/// Answers commands from the socket in `state_dir`, which this process holds, on a thread of its own.
pub fn listen_for_commands(state_dir: &Path, health: Arc<Health>) -> io::Result<()> {
    let path = state_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (address, _folder) = short(&path)?;
    let listener = UnixListener::bind(address)?;
    thread::Builder::new().name("control".into()).spawn(move || {
        for connection in listener.incoming() {
            if let Err(e) = connection.and_then(|connection| answer(connection, &health)) {
                log::debug!("a command on the control socket failed: {e}");
                // An accept that fails for want of descriptors would fail again at once.
                thread::sleep(PAUSE);
            }
        }
    })?;
    Ok(())
}

fn answer(mut connection: UnixStream, health: &Health) -> io::Result<()> {
    connection.set_read_timeout(Some(LIMIT))?;
    connection.set_write_timeout(Some(LIMIT))?;
    let mut line = String::new();
    BufReader::new((&connection).take(MAX_LINE)).read_line(&mut line)?;
    let said = match line.trim() {
        RESUME if health.resume() => {
            log::warn!("the store takes writes again: an operator said so");
            "the store takes writes again"
        }
        RESUME => "the store was taking writes already",
        _ => "unknown command",
    };
    writeln!(connection, "{said}")
}

/// Tells the server that holds `state_dir` to take writes again; returns its answer.
///
/// # Errors
/// No server runs there.
pub fn resume(state_dir: &Path) -> io::Result<String> {
    let (address, _folder) = short(&state_dir.join(SOCKET))?;
    let mut connection = UnixStream::connect(address)?;
    connection.set_read_timeout(Some(LIMIT))?;
    writeln!(connection, "{RESUME}")?;
    let mut said = String::new();
    connection.take(MAX_LINE).read_to_string(&mut said)?;
    Ok(said.trim().to_owned())
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
