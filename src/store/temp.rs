//! A file on its way to its name: without any name where the file system can, else under a temporary one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::rc::Rc;

use crate::io::Fault;
use crate::io::runtime::{random, spawn};
use crate::store::disk::Disk;
use crate::store::fs::Shared;
use crate::store::layout;
use crate::types::Object;

/// A new file. Dropped before it is published, it leaves nothing behind.
pub(super) struct Temp<D: Disk> {
    pub file: D::File,
    shared: Rc<Shared<D>>,
    dir: D::Dir,
    /// The temporary name, if it has one.
    name: Option<OsString>,
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
        Ok(Self { file, shared: Rc::clone(shared), dir: dir.clone(), name })
    }

    /// Gives the file its name, for good.
    ///
    /// # Errors
    /// `Exists` if the name is taken; the file is still there then.
    pub(super) async fn publish(&mut self, name: &OsStr) -> io::Result<()> {
        let disk = &self.shared.disk;
        match &self.name {
            None => {
                let linked = disk.link(&self.file, &self.dir, name).await;
                linked.inspect_err(|e| self.learn(e))
            }
            Some(temp) => {
                disk.rename(&self.dir, temp, name).await?;
                self.name = None;
                Ok(())
            }
        }
    }
}

impl<D: Disk> Temp<D> {
    /// A file system below the root may be another one than the root's, which was probed at the start: from now on
    /// uploads there have temporary names.
    fn learn(&self, error: &io::Error) {
        if Fault::of(error) == Fault::CrossDevice
            && let Ok(id) = self.shared.disk.dir_id(&self.dir)
        {
            log::warn!(
                "a file system below the data folder can't link files without a name: using temporary names there"
            );
            self.shared.cannot_link.borrow_mut().insert(id.device);
        }
    }
}

/// A file without a name; none where there are none.
async fn unnamed<D: Disk>(shared: &Shared<D>, dir: &D::Dir) -> io::Result<Option<D::File>> {
    let device = shared.disk.dir_id(dir)?.device;
    if !shared.options.unnamed_temps || shared.cannot_link.borrow().contains(&device) {
        return Ok(None);
    }
    match shared.disk.create_unnamed(dir).await {
        // EOPNOTSUPP, or EISDIR from a kernel that does not know the flag.
        Err(e) if Fault::of(&e) == Fault::Other => Ok(None),
        other => other.map(Some),
    }
}

impl<D: Disk> Drop for Temp<D> {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else { return };
        let (disk, dir) = (self.shared.disk.clone(), self.dir.clone());
        spawn(async move {
            if let Err(e) = disk.unlink(&dir, &name).await {
                log::warn!("{}: a temporary file stays until the next start: {e}", name.to_string_lossy());
            }
        });
    }
}
