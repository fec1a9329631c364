//! What the file system of the data folder can do is found out by doing it, at the start: also the ways that are taken where
//! the best one can't be.

use std::ffi::OsStr;
use std::io;

use crate::io::Fault;
use crate::io::dir::Dir;
use crate::io::runtime::{self, Driver, block_on};
use crate::types::DirectIo;

/// What a file system can do.
#[derive(Debug, Default)]
pub struct Abilities {
    /// A file without a name can be made and linked: uploads have no name until they are whole.
    pub unnamed_temps: bool,
    /// A file can have an owner of its own: locks are kept with theirs.
    pub owners: bool,
    /// A file can be written past the page cache, if that was to be found out.
    pub direct_io: bool,
    /// Why this user can't list the folder or make entries in it, if so.
    pub no_access: Option<io::Error>,
    /// Why nothing can be stored here at all, if so.
    pub cannot_store: Option<io::Error>,
    /// A flush failed, which is worse than none.
    pub failed_flush: Option<io::Error>,
}

/// Tries all of it in `root`, and leaves nothing there.
pub fn probe(root: &Dir, direct: DirectIo) -> Abilities {
    let all = async {
        let name = format!(".packhouse-probe-{:016x}", runtime::random());
        let mut found = Abilities {
            unnamed_temps: can(try_unnamed(root, &name).await),
            no_access: root.check_access().await.err(),
            ..Abilities::default()
        };
        if let Err(e) = try_named(root, &name, direct, &mut found).await {
            if is_excused(&e) {
                Abilities { unnamed_temps: true, owners: true, direct_io: direct == DirectIo::Auto, ..found }
            } else {
                Abilities { cannot_store: Some(e), ..found }
            }
        } else {
            found
        }
    };
    block_on(Driver::Epoll, all)
        .unwrap_or_else(|e| Abilities { cannot_store: Some(e), ..Abilities::default() })
}

/// A disk that is full or read-only now, or a folder that this user may not write to, says nothing about what the file
/// system can: below it there may be folders where all of it works.
fn is_excused(e: &io::Error) -> bool {
    matches!(Fault::of(e), Fault::ReadOnly | Fault::NoSpace | Fault::Denied)
}

fn can(done: io::Result<bool>) -> bool {
    done.unwrap_or_else(|e| matches!(Fault::of(&e), Fault::ReadOnly | Fault::NoSpace))
}

async fn try_unnamed(root: &Dir, name: &str) -> io::Result<bool> {
    let file = root.create_unnamed(0o600).await?;
    root.link(&file, OsStr::new(name)).await?;
    root.unlink(OsStr::new(name)).await?;
    Ok(true)
}

/// Stores a file as an upload with a temporary name is stored.
async fn try_named(root: &Dir, name: &str, direct: DirectIo, found: &mut Abilities) -> io::Result<()> {
    const SOMEBODY: &str = "packhouse";
    let temp = format!("{name}-named");
    let file = root.create_locked(OsStr::new(&temp), 0o600).await?;
    let noted = file.set_owner(SOMEBODY).await;
    let owned = match noted {
        Ok(()) => file.owner().await.map(|owner| owner.as_deref() == Some(SOMEBODY)),
        Err(e) => Err(e),
    };
    found.owners = can(owned);
    found.direct_io = direct == DirectIo::Auto && can(file.probe_direct_io().await);
    let flushed = file.sync_data().await;
    let renamed = root.rename(OsStr::new(&temp), OsStr::new(name)).await;
    let left = if renamed.is_ok() { name } else { &temp };
    let removed = root.unlink(OsStr::new(left)).await;
    let names_flushed = root.sync().await;
    if let Err(e) = flushed.and(names_flushed) {
        // One that the disk lacks is told by `io::flush`; with --require-durable it comes here, and ends the start.
        found.failed_flush = Some(e).filter(|e| Fault::of(e) != Fault::Unsupported);
    }
    renamed?;
    removed.map(drop)
}
