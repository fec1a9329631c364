//! A file on its way to its name: without any name where the file system can, else under a temporary one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::io::Fault;
use crate::io::runtime::{Begun, begin, random, sleep, spawn};
use crate::store::disk::Disk;
use crate::store::fs::Shared;
use crate::store::hashing::Hashed;
use crate::store::layout;
use crate::types::Object;

/// How often, and after what pause each, a temporary name is to be removed from a disk that is too busy.
const UNLINK_TRIES: usize = 20;
const UNLINK_PAUSE: Duration = Duration::from_millis(100);

/// A new file. Dropped before it is published, it leaves nothing behind.
pub(super) struct Temp<D: Disk> {
    pub file: Rc<D::File>,
    /// What comes of the last write, if it goes on.
    writing: Option<Begun<io::Result<()>>>,
    shared: Rc<Shared<D>>,
    dir: D::Dir,
    /// The temporary name, if it has one.
    name: Option<OsString>,
    published: bool,
}

impl<D: Disk> Temp<D> {
    /// Makes a file in `dir`, which is to become `object`.
    pub(super) async fn create(shared: &Rc<Shared<D>>, dir: &D::Dir, object: Object) -> io::Result<Self> {
        let (file, name) = if let Some(file) = unnamed(shared, dir).await? {
            (file, None)
        } else {
            let name = layout::temp_name(object, random());
            (shared.disk.create_locked(dir, &name).await?, Some(name))
        };
        let (shared, dir) = (Rc::clone(shared), dir.clone());
        Ok(Self { file: Rc::new(file), writing: None, published: false, shared, dir, name })
    }

    /// Whether it has no name until it is published.
    pub(super) const fn is_unnamed(&self) -> bool {
        self.name.is_none()
    }

    /// The folder in which it had a name.
    pub(super) fn left(&self) -> Option<&D::Dir> {
        self.name.as_ref().map(|_| &self.dir)
    }

    /// Begins to write a piece, once it is hashed. It goes on while other things are done, and gives its buffer back when it
    /// ends, whether or not anybody waits. The one before must have been waited for.
    pub(super) fn begin_write(&mut self, piece: Hashed, offset: u64) {
        let (disk, file) = (self.shared.disk.clone(), Rc::clone(&self.file));
        self.writing = Some(begin(async move {
            let (written, piece) = disk.write_all_at(&file, piece.end().await?, offset).await;
            // Who waits is to be the last to let go of the file.
            drop((piece, file));
            written
        }));
    }

    /// Waits for the write that was begun, if there is one.
    pub(super) async fn settle(&mut self) -> io::Result<()> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let written = writing.end().await;
        self.writing = None;
        written?
    }

    /// Gives the file its name in `dir`, for good: the folder that it was made in, or one below it that was missing.
    ///
    /// # Errors
    /// `Exists` if the name is taken; the file is still there then.
    pub(super) async fn publish(&mut self, dir: &D::Dir, name: &OsStr) -> io::Result<()> {
        let disk = &self.shared.disk;
        match &self.name {
            None => {
                if let Err(e) = disk.link(&self.file, dir, name).await {
                    self.shared.note_link(dir, &e).await;
                    return Err(e);
                }
            }
            Some(temp) => disk.rename(&self.dir, temp, dir, name).await?,
        }
        self.published = true;
        Ok(())
    }
}

/// A file without a name; none where there are none.
async fn unnamed<D: Disk>(shared: &Shared<D>, dir: &D::Dir) -> io::Result<Option<D::File>> {
    if !shared.links_unnamed(dir)? {
        return Ok(None);
    }
    match shared.disk.create_unnamed(dir).await {
        // EOPNOTSUPP, or EISDIR from a kernel that does not know the flag. Where this user may not write at all, a file with
        // a name says so next.
        Err(e) if matches!(Fault::of(&e), Fault::Unsupported | Fault::Other | Fault::Denied) => Ok(None),
        other => other.map(Some),
    }
}

impl<D: Disk> Drop for Temp<D> {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let (file, writing) = (Rc::clone(&self.file), self.writing.take());
        let (disk, dir, name) = (self.shared.disk.clone(), self.dir.clone(), self.name.take());
        spawn(async move {
            if let Some(mut writing) = writing {
                // Nobody asks any more what came of it.
                writing.end().await.ok();
            }
            if let Some(name) = name
                && let Err(e) = unlink(&disk, &dir, &name).await
            {
                log::warn!("{}: a temporary file stays until the next start: {e}", name.to_string_lossy());
            }
            if let Some(file) = Rc::into_inner(file) {
                // An error of a close that nobody waits for changes nothing.
                disk.close(file).await.ok();
            }
        });
    }
}

/// Removes a temporary name, also when the disk's queue is full just now.
async fn unlink<D: Disk>(disk: &D, dir: &D::Dir, name: &OsStr) -> io::Result<()> {
    for _ in 0..UNLINK_TRIES {
        match disk.unlink(dir, name).await {
            Err(e) if Fault::of(&e) == Fault::Busy => sleep(UNLINK_PAUSE).await,
            other => return other.map(drop),
        }
    }
    disk.unlink(dir, name).await.map(drop)
}
