//! Lists: folder by folder, page by page, so that memory does not grow with the repository.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::io::dir::Kind;
use crate::io::listing::Entry;
use crate::io::runtime::{Begun, begin};
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::{Error, Listed, Listing, layout};
use crate::types::BlobId;

/// Entries read at a time, where few lists run: about 100 KiB of JSON, and 40 KiB before they are JSON. A page is a job for a thread:
/// smaller ones cost time.
const PAGE_ENTRIES: usize = 1024;
/// Where many run: a list whose client does not read is to hold little.
const SMALL_PAGE_ENTRIES: usize = 256;
/// Folders whose first pages are read ahead: the sizes of many files are asked for on several threads.
const FOLDERS_AHEAD: usize = 4;

/// A listing of one type's folder, or of the shard folders of `data`.
pub struct FsListing<D: Disk> {
    disk: D,
    sizes: bool,
    dir: PathBuf,
    /// Folders still to be begun: the shards in `dir`, or `dir` itself. 256 paths would take more room than a page.
    folders: Box<dyn Iterator<Item = Option<String>>>,
    /// Folders that are being read, in their order.
    begun: VecDeque<Reading<D>>,
    /// Whether pages are read before they are asked for.
    is_ahead: bool,
}

/// A folder that is being read.
struct Reading<D: Disk> {
    /// The two hex digits that names in it must start with.
    shard: Option<String>,
    next: Next<D>,
}

/// The next page of a folder.
enum Next<D: Disk> {
    Begun(Begun<Result<Option<Page<D>>, Error>>),
    /// It is to be begun when it is asked for.
    Waits(D::Reader),
}

/// Some entries, without what a list does not need of them, and the reader for those after them.
type Page<D> = (Vec<Listed>, <D as Disk>::Reader);

impl<D: Disk> FsListing<D> {
    pub(super) fn flat(disk: D, dir: PathBuf, sizes: bool) -> Self {
        Self::new(disk, dir, sizes, std::iter::once(None))
    }

    pub(super) fn sharded(disk: D, dir: &Path, sizes: bool) -> Self {
        Self::new(disk, dir.to_owned(), sizes, layout::shards().map(Some))
    }

    pub(super) fn empty(disk: D) -> Self {
        Self::new(disk, PathBuf::new(), false, std::iter::empty())
    }

    fn new(
        disk: D,
        dir: PathBuf,
        sizes: bool,
        folders: impl Iterator<Item = Option<String>> + 'static,
    ) -> Self {
        let folders = Box::new(folders);
        Self { disk, sizes, dir, folders, begun: VecDeque::new(), is_ahead: true }
    }

    const fn page_entries(&self) -> usize {
        if self.is_ahead { PAGE_ENTRIES } else { SMALL_PAGE_ENTRIES }
    }

    /// Begins to read a folder.
    fn open(&self, shard: Option<String>) -> Reading<D> {
        let path = shard.as_ref().map_or_else(|| self.dir.clone(), |shard| self.dir.join(shard));
        let (disk, sizes, entries, only) =
            (self.disk.clone(), self.sizes, self.page_entries(), shard.clone());
        let page = begin(async move {
            let dir = match disk.open_dir(&path).await.step("open a folder") {
                Err(Error::NotFound) => return Ok(None),
                Err(Error::NotDir) => return Err(Error::NoFolder { path }),
                other => other?,
            };
            let reader = disk.read_dir(&dir).await.step("read a folder")?;
            next_page(disk, reader, (sizes, entries), only).await
        });
        Reading { shard, next: Next::Begun(page) }
    }
}

async fn next_page<D: Disk>(
    disk: D,
    mut reader: D::Reader,
    (sizes, most): (bool, usize),
    shard: Option<String>,
) -> Result<Option<Page<D>>, Error> {
    let wanted = |name: &[u8]| BlobId::parse(name).is_some();
    let entries = disk.next_page(&mut reader, most, sizes, wanted).await.step("read a folder")?;
    if entries.is_empty() {
        return Ok(None);
    }
    let page = entries.iter().filter_map(|entry| listed(entry, shard.as_deref())).collect();
    Ok(Some((page, reader)))
}

/// An entry of the list, if it is one and stands in the right folder.
fn listed(entry: &Entry, shard: Option<&str>) -> Option<Listed> {
    if entry.meta.kind != Kind::File {
        return None;
    }
    let name = entry.name.as_encoded_bytes();
    let id = BlobId::parse(name)?;
    let is_in_place = shard.is_none_or(|shard| name.starts_with(shard.as_bytes()));
    is_in_place.then_some(Listed { id, size: entry.meta.size })
}

impl<D: Disk> Listing for FsListing<D> {
    fn read_ahead(&mut self, is_ahead: bool) {
        self.is_ahead = is_ahead;
    }

    async fn page(&mut self) -> Result<Vec<Listed>, Error> {
        loop {
            let folders = if self.is_ahead { FOLDERS_AHEAD } else { 1 };
            while self.begun.len() < folders
                && let Some(shard) = self.folders.next()
            {
                self.begun.push_back(self.open(shard));
            }
            let Some(Reading { shard, next }) = self.begun.pop_front() else { return Ok(Vec::new()) };
            let how = (self.sizes, self.page_entries());
            let begin_next = |reader| begin(next_page(self.disk.clone(), reader, how, shard.clone()));
            let mut page = match next {
                Next::Begun(page) => page,
                Next::Waits(reader) => begin_next(reader),
            };
            let Some((page, reader)) = page.end().await.step("read a folder")?? else { continue };
            // Ahead: while this page is sent.
            let next = if self.is_ahead { Next::Begun(begin_next(reader)) } else { Next::Waits(reader) };
            self.begun.push_front(Reading { shard, next });
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }
}
