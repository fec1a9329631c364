//! Reading a directory page by page, with bounded memory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use crate::io::dir::{Dir, Meta};

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it is.
    pub meta: Meta,
}

/// Reads a directory page by page.
pub struct DirReader {
    dir: Dir,
    entries: Entries,
}

enum Entries {
    ToBeOpened,
    Open(rustix::fs::Dir),
    Ended,
}

impl DirReader {
    pub(super) const fn new(dir: Dir) -> Self {
        Self { dir, entries: Entries::ToBeOpened }
    }

    /// The next entries whose names `wanted` accepts, about `limit` of them; none at the end. `sizes` asks for sizes
    /// too. An entry that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// The directory could not be read to its end: what came before is then not the whole list.
    pub async fn page(
        &mut self,
        limit: usize,
        sizes: bool,
        wanted: fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Entry>> {
        let entries = std::mem::replace(&mut self.entries, Entries::Ended);
        if matches!(entries, Entries::Ended) {
            return Ok(Vec::new());
        }
        let job = move |fd: &OwnedFd| {
            let mut page = Vec::new();
            let mut entries = match entries {
                Entries::ToBeOpened => rustix::fs::Dir::read_from(fd)?,
                Entries::Open(entries) => entries,
                Entries::Ended => return Ok((page, Entries::Ended)),
            };
            while page.len() < limit {
                match entries.read() {
                    None => return Ok((page, Entries::Ended)),
                    Some(entry) => page.extend(examine(fd, &entry?, sizes, wanted)?),
                }
            }
            Ok((page, Entries::Open(entries)))
        };
        let (page, rest) = self.dir.node.reading_apart(job).await?;
        self.entries = rest;
        Ok(page)
    }
}

fn examine(
    dir: &OwnedFd,
    entry: &rustix::fs::DirEntry,
    sizes: bool,
    wanted: fn(&[u8]) -> bool,
) -> io::Result<Option<Entry>> {
    let name = entry.file_name();
    if matches!(name.to_bytes(), b"." | b"..") || !wanted(name.to_bytes()) {
        return Ok(None);
    }
    let mut kind = entry.file_type();
    let mut size = 0;
    if kind == FileType::Unknown || (sizes && kind == FileType::RegularFile) {
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                kind = FileType::from_raw_mode(stat.st_mode);
                size = stat.st_size.unsigned_abs();
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    let name = OsStr::from_bytes(name.to_bytes()).to_owned();
    Ok(Some(Entry { name, meta: Meta { kind: kind.into(), size, inode: entry.ino() } }))
}
