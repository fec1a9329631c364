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

/// Entries read at a time: about 200 KiB of JSON.
const PAGE_ENTRIES: usize = 2000;
/// Folders whose first pages are read ahead: the sizes of many files are asked for on several threads.
const FOLDERS_AHEAD: usize = 4;

/// A listing of one type's folder, or of the shard folders of `data`.
pub struct FsListing<D: Disk> {
    disk: D,
    sizes: bool,
    /// Folders still to be begun, the next one last.
    dirs: Vec<PathBuf>,
    /// Folders that are being read, in their order.
    begun: VecDeque<Reading<D>>,
    sharded: bool,
}

/// A folder that is being read.
struct Reading<D: Disk> {
    /// The two hex digits that names in it must start with.
    shard: Option<String>,
    page: Begun<Result<Option<Page<D>>, Error>>,
}

/// Some entries, and who reads those after them.
type Page<D> = (Vec<Entry>, <D as Disk>::Reader);

impl<D: Disk> FsListing<D> {
    pub(super) fn flat(disk: D, dir: PathBuf, sizes: bool) -> Self {
        Self { disk, sizes, dirs: vec![dir], begun: VecDeque::new(), sharded: false }
    }

    pub(super) fn sharded(disk: D, dir: &Path, sizes: bool) -> Self {
        let mut dirs: Vec<_> = layout::shards().map(|shard| dir.join(shard)).collect();
        dirs.reverse();
        Self { disk, sizes, dirs, begun: VecDeque::new(), sharded: true }
    }

    pub(super) fn empty(disk: D) -> Self {
        Self { disk, sizes: false, dirs: Vec::new(), begun: VecDeque::new(), sharded: false }
    }

    /// Begins to read a folder.
    fn open(&self, path: PathBuf) -> Reading<D> {
        let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shard = self.sharded.then(name);
        let (disk, sizes) = (self.disk.clone(), self.sizes);
        let page = begin(async move {
            let dir = match disk.open_dir(&path).await.step("open a folder") {
                Err(Error::NotFound) => return Ok(None),
                Err(Error::NotDir) => return Err(Error::NoFolder { path }),
                other => other?,
            };
            let reader = disk.read_dir(&dir).await.step("read a folder")?;
            next_page(disk, reader, sizes).await
        });
        Reading { shard, page }
    }
}

async fn next_page<D: Disk>(disk: D, mut reader: D::Reader, sizes: bool) -> Result<Option<Page<D>>, Error> {
    let wanted = |name: &[u8]| BlobId::parse(name).is_some();
    let entries = disk.next_page(&mut reader, PAGE_ENTRIES, sizes, wanted).await.step("read a folder")?;
    Ok(Some((entries, reader)).filter(|(entries, _)| !entries.is_empty()))
}

impl<D: Disk> Listing for FsListing<D> {
    async fn page(&mut self) -> Result<Vec<Listed>, Error> {
        loop {
            while self.begun.len() < FOLDERS_AHEAD
                && let Some(path) = self.dirs.pop()
            {
                self.begun.push_back(self.open(path));
            }
            let Some(first) = self.begun.front_mut() else { return Ok(Vec::new()) };
            let Some((entries, reader)) = first.page.end().await.step("read a folder")?? else {
                self.begun.pop_front();
                continue;
            };
            // While this page is sent.
            first.page = begin(next_page(self.disk.clone(), reader, self.sizes));
            let in_place =
                |id: &BlobId| first.shard.as_ref().is_none_or(|shard| layout::shard(*id) == *shard);
            let files = entries.iter().filter(|entry| entry.meta.kind == Kind::File);
            let listed = files.filter_map(|entry| {
                let id = BlobId::parse(entry.name.as_encoded_bytes()).filter(in_place)?;
                Some(Listed { id, size: entry.meta.size })
            });
            let page: Vec<_> = listed.collect();
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }
}
