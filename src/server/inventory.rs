//! What is in a data folder, for an operator. Needs no running server.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::io::blocking::Pools;
use crate::io::dir::Dir;
use crate::io::flush::Flushes;
use crate::io::runtime::{Driver, block_on};
use crate::store::census::{self, Sum};
use crate::store::local::{LocalDisk, Modes};
use crate::types::{BlobType, DirectIo, RepoPath};

/// What is in one repository.
pub struct Inventory {
    /// Which.
    pub repo: RepoPath,
    /// `config` and the types, by name.
    pub parts: Vec<(&'static str, Sum)>,
    /// All of it.
    pub total: Sum,
}

/// All repositories of a data folder.
pub fn all(path: &Path, depth: usize) -> io::Result<Vec<Inventory>> {
    let disk = open(path, false)?;
    block_on(Driver::Epoll, async {
        let mut all = Vec::new();
        for repo in census::repositories(&disk, depth).await {
            all.push(look(&disk, repo).await?);
        }
        Ok(all)
    })?
}

/// The names of all repositories of a data folder.
pub fn repositories(path: &Path, depth: usize) -> io::Result<Vec<RepoPath>> {
    let disk = open(path, false)?;
    block_on(Driver::Epoll, census::repositories(&disk, depth))
}

/// One repository of a data folder, if it is there.
pub fn one(path: &Path, repo: &RepoPath) -> io::Result<Option<Inventory>> {
    let disk = open(path, false)?;
    block_on(Driver::Epoll, async {
        let known = census::repositories(&disk, repo.folders().len()).await;
        match known.into_iter().find(|known| known == repo) {
            Some(repo) => look(&disk, repo).await.map(Some),
            None => Ok(None),
        }
    })?
}

/// A data folder, with threads of its own. `alone` says that no other process writes there.
pub(super) fn open(path: &Path, alone: bool) -> io::Result<LocalDisk> {
    // The server has warned about missing flushes already.
    let root = Dir::open_root(path, Arc::new(Pools::new(2, 1, 64)?), Flushes::new(false), alone)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    Ok(LocalDisk::new(root, Modes::PRIVATE, DirectIo::Off))
}

async fn look(disk: &LocalDisk, repo: RepoPath) -> io::Result<Inventory> {
    let mut parts = vec![("config", census::config(disk, &repo).await?)];
    for kind in BlobType::ALL {
        let mut sum = Sum::default();
        if kind == BlobType::Data {
            for shard in 0..=u8::MAX {
                sum = sum.plus(census::folder(disk, &repo, kind, Some(shard)).await?);
            }
        } else {
            sum = census::folder(disk, &repo, kind, None).await?;
        }
        parts.push((kind.as_str(), sum));
    }
    let folders = census::folders(disk, &repo).await?;
    let total = parts.iter().fold(folders, |total, (_, sum)| total.plus(*sum));
    Ok(Inventory { repo, parts, total })
}
