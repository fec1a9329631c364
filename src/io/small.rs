//! A small file, stored whole in one go: made, written, flushed, named, and its name flushed.
//!
//! Many of these run at once, each on its thread, and the journal of the file system commits them together: measured on
//! ext4, that is as fast as batches of our own, and simpler.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::fsync;

use crate::io::buffer::Buffer;
use crate::io::dir::Dir;
use crate::io::file;
use crate::io::flush::Flushed;
use crate::io::names;
use crate::io::node::Site;

/// How far the storing of a small file came.
#[derive(Debug)]
pub enum SmallError {
    /// It could not be made: there is nothing.
    Make(io::Error),
    /// Nor written.
    Write(io::Error),
    /// Nor flushed.
    Flush(io::Error),
    /// It did not get its name: there is nothing.
    Name(io::Error),
    /// It has its name, which may be lost if the power is cut.
    FlushName(io::Error),
}

impl Dir {
    /// Stores a file. Never replaces: `Name` with `Exists` if the name is taken.
    pub async fn store_small(
        &self,
        name: &OsStr,
        mut content: Buffer,
        mode: u32,
        owner: Option<&str>,
    ) -> (Result<(), SmallError>, Buffer) {
        let (name, owner) = (name.to_owned(), owner.map(str::to_owned));
        let memory = content.lend();
        let site = Arc::clone(&self.node.site);
        let job = move |dir: &OwnedFd| {
            let stored = store(&site, dir, &name, memory.filled(), mode, owner.as_deref());
            Ok((stored, memory))
        };
        match self.node.writing(job).await {
            Ok((stored, memory)) => {
                content.restore(memory);
                (stored, content)
            }
            // Not `Make`: the job may have ended with a panic, and with it the content.
            Err(e) => (Err(SmallError::Write(e)), content),
        }
    }
}

fn store(
    site: &Site,
    dir: &OwnedFd,
    name: &OsStr,
    content: &[u8],
    mode: u32,
    owner: Option<&str>,
) -> Result<(), SmallError> {
    let file = File::from(names::make_unnamed(dir, mode).map_err(SmallError::Make)?);
    if let Some(owner) = owner {
        file::note_owner(&file, owner).map_err(SmallError::Write)?;
    }
    file.write_all_at(content, 0).map_err(SmallError::Write)?;
    site.flushes.run(Flushed::File, || file.sync_data()).map_err(SmallError::Flush)?;
    names::link_unnamed(&file, dir, name).map_err(SmallError::Name)?;
    site.flushes.run(Flushed::Folder, || fsync(dir)).map_err(SmallError::FlushName)
}
