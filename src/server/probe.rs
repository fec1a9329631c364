//! What the file system of the data folder can do is found out by doing it, at the start: also the ways that are taken where
//! the best one can't be.

use std::ffi::OsStr;
use std::io;

use crate::io::Fault;
use crate::io::dir::Dir;
use crate::io::file::File;
use crate::io::names::probe_name;
use crate::io::runtime::{Driver, block_on};
use crate::types::DirectIo;

/// What a file system can do.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an ability of its own")]
pub struct Abilities {
    /// A file without a name can be made and linked: uploads have no name until they are whole.
    pub unnamed_temps: bool,
    /// A file can have an owner of its own: locks are kept with theirs.
    pub owners: bool,
    /// A file can be written past the page cache, if that was to be found out.
    pub direct_io: bool,
    /// Names that differ by case, or by the form of an accented letter, are one, if that could be found out.
    pub folds_names: bool,
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
        let name = probe_name();
        let mut found = Abilities {
            unnamed_temps: can(try_unnamed(root, &name).await),
            folds_names: root.folds_names().await.unwrap_or_default(),
            no_access: root.check_access().await.err(),
            ..Abilities::default()
        };
        let temp = format!("{name}-named");
        match root.create_locked(OsStr::new(&temp), 0o600).await {
            Ok(file) => {
                if root.space().await.is_ok_and(|space| space.inodes > 0 && space.free_inodes == 0) {
                    root.doubt_free_inodes();
                }
                let named = try_named(root, &file, (&temp, &name), direct, &mut found).await;
                found.cannot_store = named.err().filter(|_| !found.unnamed_temps);
                found
            }
            Err(e) if is_excused(&e) => {
                Abilities { unnamed_temps: true, owners: true, direct_io: direct == DirectIo::Auto, ..found }
            }
            Err(e) => Abilities { cannot_store: Some(e), ..found },
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

/// Stores a file, which is called `temp`, under its `name`, as an upload with a temporary name is stored.
async fn try_named(
    root: &Dir,
    file: &File,
    (temp, name): (&str, &str),
    direct: DirectIo,
    found: &mut Abilities,
) -> io::Result<()> {
    const SOMEBODY: &str = "packhouse";
    let noted = file.set_owner(SOMEBODY).await;
    let owned = match noted {
        Ok(()) => file.owner().await.map(|owner| owner.as_deref() == Some(SOMEBODY)),
        Err(e) => Err(e),
    };
    found.owners = can(owned);
    found.direct_io = direct == DirectIo::Auto && can(file.probe_direct_io().await);
    let flushed = file.sync_data().await;
    let renamed = root.rename(OsStr::new(temp), root, OsStr::new(name)).await;
    let left = if renamed.is_ok() { name } else { temp };
    let removed = root.unlink(OsStr::new(left)).await;
    let names_flushed = root.sync().await;
    if let Err(e) = flushed.and(names_flushed) {
        // One that the disk lacks is told by `io::flush`; with --require-durable it comes here, and ends the start.
        found.failed_flush = Some(e).filter(|e| Fault::of(e) != Fault::Unsupported);
    }
    match renamed.and(removed.map(drop)) {
        // It filled up, or was made read-only, just now.
        Err(e) if matches!(Fault::of(&e), Fault::ReadOnly | Fault::NoSpace) => Ok(()),
        other => other,
    }
}
