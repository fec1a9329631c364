//! Counts what is stored, folder by folder, for the quotas and for people.

use std::io;
use std::path::{Path, PathBuf};

use crate::io::Fault;
use crate::io::dir::Kind;
use crate::store::disk::Disk;
use crate::store::layout;
use crate::types::{BLOCK_BYTES, BlobId, BlobType, FolderName, RepoPath, on_disk};

/// Entries read at a time.
const PAGE_ENTRIES: usize = 1000;

/// Objects and their bytes, or folders and theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub objects: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What they take on a disk: whole blocks.
    pub on_disk: u64,
}

impl Sum {
    /// A folder: a block, and no object.
    const FOLDER: Self = Self { objects: 0, bytes: 0, on_disk: BLOCK_BYTES };

    const fn of_object(bytes: u64) -> Self {
        Self { objects: 1, bytes, on_disk: on_disk(bytes) }
    }

    /// Both of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            objects: self.objects + other.objects,
            bytes: self.bytes + other.bytes,
            on_disk: self.on_disk + other.on_disk,
        }
    }
}

/// All repositories, which are at most `depth` folders deep. A folder that can't be read is named in the log.
pub async fn repositories<D: Disk>(disk: &D, depth: usize) -> Vec<RepoPath> {
    find_repositories(disk, depth, |failed| log::warn!("{failed}")).await
}

/// The same; `failed` is told of every folder that can't be read.
pub async fn find_repositories<D: Disk>(disk: &D, depth: usize, failed: impl FnMut(String)) -> Vec<RepoPath> {
    let mut found = Vec::new();
    walk(disk, Vec::new(), depth, |repo| found.push(repo), failed).await;
    found.sort();
    found
}

/// How many repositories lie below a first folder, itself among them.
pub async fn count_below<D: Disk>(disk: &D, first: &FolderName, depth: usize) -> u64 {
    let mut count = 0;
    walk(disk, vec![first.clone()], depth, |_repo| count += 1, |failed| log::warn!("{failed}")).await;
    count
}

/// Finds the repositories at and below a folder.
async fn walk<D: Disk>(
    disk: &D,
    start: Vec<FolderName>,
    depth: usize,
    mut found: impl FnMut(RepoPath),
    mut failed: impl FnMut(String),
) {
    let mut folders = vec![start];
    while let Some(path) = folders.pop() {
        let repo = RepoPath::new(path.clone());
        let (is_repo, below) = match look(disk, &layout::repo_dir(&repo)).await {
            Ok(seen) => seen,
            Err(e) if Fault::of(&e) == Fault::Missing => continue,
            Err(e) => {
                failed(format!("{repo}: this folder can't be read, its objects are not counted: {e}"));
                continue;
            }
        };
        if is_repo {
            found(repo);
        }
        if path.len() < depth {
            folders.extend(below.into_iter().map(|name| [path.as_slice(), &[name]].concat()));
        }
    }
}

/// Whether a folder is a repository, and the folders in it that could be.
async fn look<D: Disk>(disk: &D, path: &Path) -> io::Result<(bool, Vec<FolderName>)> {
    let dir = disk.open_dir(path).await?;
    let mut reader = disk.read_dir(&dir).await?;
    let (mut is_repo, mut below) = (false, Vec::new());
    loop {
        let page = disk.next_page(&mut reader, PAGE_ENTRIES, false, |_| true).await?;
        if page.is_empty() {
            return Ok((is_repo, below));
        }
        for entry in page {
            let name = entry.name.as_encoded_bytes();
            if FolderName::is_reserved(name) {
                is_repo = true;
            } else if entry.meta.kind == Kind::Dir {
                below.extend(FolderName::parse(name));
            }
        }
    }
}

/// The `config` of a repository.
pub async fn config<D: Disk>(disk: &D, repo: &RepoPath) -> io::Result<Sum> {
    let look = async {
        let dir = disk.open_dir(&layout::repo_dir(repo)).await?;
        let meta = disk.stat(&dir, "config".as_ref()).await?;
        Ok(if meta.kind == Kind::File { Sum::of_object(meta.size) } else { Sum::default() })
    };
    or_nothing(repo, look.await)
}

/// The folders of a repository, one a type and the shards of `data`: a block each, and no objects. What they lie in is nobody's.
pub async fn folders<D: Disk>(disk: &D, repo: &RepoPath) -> io::Result<Sum> {
    let is_type = |name: &[u8]| BlobType::parse(name).is_some();
    let types = sum(disk, &layout::repo_dir(repo), Kind::Dir, is_type).await;
    let shards = sum(disk, &layout::type_dir(repo, BlobType::Data), Kind::Dir, layout::is_shard).await;
    Ok(or_nothing(repo, types)?.plus(or_nothing(repo, shards)?))
}

/// The objects of one flat type, or of one shard of `data`.
pub async fn folder<D: Disk>(
    disk: &D,
    repo: &RepoPath,
    kind: BlobType,
    shard: Option<u8>,
) -> io::Result<Sum> {
    let mut path: PathBuf = layout::type_dir(repo, kind);
    path.extend(shard.map(|shard| format!("{shard:02x}")));
    or_nothing(repo, sum(disk, &path, Kind::File, |name| BlobId::parse(name).is_some()).await)
}

/// What of one kind is in a folder under names that are `wanted`: files, which are objects, or folders.
async fn sum<D: Disk>(disk: &D, path: &Path, kind: Kind, wanted: fn(&[u8]) -> bool) -> io::Result<Sum> {
    let dir = disk.open_dir(path).await?;
    let mut reader = disk.read_dir(&dir).await?;
    let mut sum = Sum::default();
    loop {
        let page = disk.next_page(&mut reader, PAGE_ENTRIES, kind == Kind::File, wanted).await?;
        if page.is_empty() {
            return Ok(sum);
        }
        let found = page.iter().filter(|entry| entry.meta.kind == kind);
        sum = found.fold(sum, |sum, entry| {
            sum.plus(if kind == Kind::File { Sum::of_object(entry.meta.size) } else { Sum::FOLDER })
        });
    }
}

/// What is not there, or can't be reached through this server, is nothing: nothing can be stored there either.
fn or_nothing(repo: &RepoPath, counted: io::Result<Sum>) -> io::Result<Sum> {
    let Err(e) = counted else { return counted };
    match Fault::of(&e) {
        Fault::Missing => Ok(Sum::default()),
        Fault::Symlink | Fault::Denied | Fault::NotDir => {
            log::warn!("{repo}: a folder that this server can't use is not counted: {e}");
            Ok(Sum::default())
        }
        _ => Err(e),
    }
}
