//! Tells the service manager what the server does (`sd_notify(3)`), by a socket that is connected at the start: a running server
//! connects to nothing.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

use sd_notify::NotifyState;

static MANAGER: OnceLock<UnixDatagram> = OnceLock::new();

/// Connects to the manager that the environment names, if it does. Before Landlock, which would keep an abstract socket out of
/// reach; what is connected stays so.
///
/// # Errors
/// There is no such socket, or unix sockets are forbidden.
pub(super) fn connect() -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A second start in one process tells the first one's manager, which is the same.
    MANAGER.set(socket).ok();
    Ok(())
}

/// Tells the manager, if there is one.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    let Some(manager) = MANAGER.get() else { return };
    let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
    if let Err(e) = manager.send(lines.join("\n").as_bytes()) {
        log::debug!("systemd can't be told: {e}");
    }
}
