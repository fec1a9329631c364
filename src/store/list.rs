//! Lists: folder by folder, page by page, so that memory does not grow with the repository.

use std::path::{Path, PathBuf};

use crate::io::dir::Kind;
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::{Error, Listed, Listing, layout};
use crate::types::BlobId;

/// Entries read at a time: about 100 KiB of JSON.
const PAGE_ENTRIES: usize = 1000;

/// A listing of one type's folder, or of the shard folders of `data`.
pub struct FsListing<D: Disk> {
    disk: D,
    sizes: bool,
    /// Folders still to be read, the next one last.
    dirs: Vec<PathBuf>,
    reader: Option<D::Reader>,
    /// The two hex digits that names in the current folder must start with.
    shard: Option<String>,
    sharded: bool,
}

impl<D: Disk> FsListing<D> {
    pub(super) fn flat(disk: D, dir: PathBuf, sizes: bool) -> Self {
        Self { disk, sizes, dirs: vec![dir], reader: None, shard: None, sharded: false }
    }

    pub(super) fn sharded(disk: D, dir: &Path, sizes: bool) -> Self {
        let mut dirs: Vec<_> = layout::shards().map(|shard| dir.join(shard)).collect();
        dirs.reverse();
        Self { disk, sizes, dirs, reader: None, shard: None, sharded: true }
    }

    pub(super) fn empty(disk: D) -> Self {
        Self { disk, sizes: false, dirs: Vec::new(), reader: None, shard: None, sharded: false }
    }

    /// Opens the next folder that is there; false if there is none.
    async fn next_dir(&mut self) -> Result<bool, Error> {
        while let Some(path) = self.dirs.pop() {
            let dir = match self.disk.open_dir(&path).await.step("open a folder") {
                Err(Error::NotFound) => continue,
                other => other?,
            };
            self.reader = Some(self.disk.read_dir(&dir).await.step("read a folder")?);
            self.shard =
                self.sharded.then(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            return Ok(true);
        }
        Ok(false)
    }

    fn is_in_place(&self, id: BlobId) -> bool {
        self.shard.as_ref().is_none_or(|shard| layout::shard(id) == *shard)
    }
}

impl<D: Disk> Listing for FsListing<D> {
    async fn page(&mut self) -> Result<Vec<Listed>, Error> {
        loop {
            let Some(reader) = &mut self.reader else {
                if self.next_dir().await? {
                    continue;
                }
                return Ok(Vec::new());
            };
            let entries = self
                .disk
                .next_page(reader, PAGE_ENTRIES, self.sizes, |name| BlobId::parse(name).is_some())
                .await;
            let entries = entries.step("read a folder")?;
            if entries.is_empty() {
                self.reader = None;
                continue;
            }
            let files = entries.iter().filter(|entry| entry.meta.kind == Kind::File);
            let ids = files.filter_map(|e| {
                Some(Listed { id: BlobId::parse(e.name.as_encoded_bytes())?, size: e.meta.size })
            });
            let page: Vec<_> = ids.filter(|listed| self.is_in_place(listed.id)).collect();
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }
}
