//! What the file system of the data folder can do is found out by doing it, at the start.

use std::ffi::OsStr;
use std::io;

use crate::io::Fault;
use crate::io::dir::Dir;
use crate::io::runtime::{self, Driver, block_on};
use crate::types::DirectIo;

/// What a file system can do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// A file without a name can be made and linked: uploads have no name until they are whole.
    pub unnamed_temps: bool,
    /// A file can have an owner of its own: locks are kept with theirs.
    pub owners: bool,
    /// A file can be written past the page cache, if that was to be found out.
    pub direct_io: bool,
}

/// Tries all of it in `root`, and leaves nothing there.
pub fn probe(root: &Dir, direct: DirectIo) -> Abilities {
    const SOMEBODY: &str = "packhouse";
    let name = format!(".packhouse-probe-{:016x}", runtime::random());
    let named = format!("{name}-named");
    // A disk that is full or read-only now says nothing about what the file system can.
    let excused = |e: &io::Error| matches!(Fault::of(e), Fault::ReadOnly | Fault::NoSpace);
    let can = |done: io::Result<bool>| done.unwrap_or_else(|e| excused(&e));
    let link = async {
        let file = root.create_unnamed(0o600).await?;
        root.link(&file, OsStr::new(&name)).await?;
        root.unlink(OsStr::new(&name)).await?;
        Ok(true)
    };
    let own_and_bypass = async {
        let file = root.create_locked(OsStr::new(&named), 0o600).await?;
        let noted = file.set_owner(SOMEBODY).await;
        let bypassed = if direct == DirectIo::Auto { file.probe_direct_io().await } else { Ok(false) };
        root.unlink(OsStr::new(&named)).await?;
        let owned = match noted {
            Ok(()) => file.owner().await.map(|owner| owner.as_deref() == Some(SOMEBODY)),
            Err(e) => Err(e),
        };
        Ok((can(owned), can(bypassed)))
    };
    let all = async {
        let unnamed_temps = can(link.await);
        let (owners, direct_io) = own_and_bypass.await.unwrap_or_else(|e| (excused(&e), excused(&e)));
        Abilities { unnamed_temps, owners, direct_io: direct == DirectIo::Auto && direct_io }
    };
    block_on(Driver::Epoll, all).unwrap_or(Abilities {
        unnamed_temps: false,
        owners: false,
        direct_io: false,
    })
}
