//! A repository answers to the spelling that its folders are stored in, and to no other.
//!
//! On a disk that folds names, user `Alice` would else read and delete what is alice's, and `/SHARED/` would escape the quota
//! of `/shared/`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::io::runtime::now;
use crate::io::spelling::Spelling;
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fs::FsStore;
use crate::store::{Error, layout};
use crate::types::RepoPath;

/// How long a path counts as spelled right once it was. Only who renames folders by hand could change that.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// Paths that are remembered.
const MAX_KNOWN: usize = 10_000;

/// Paths of repositories that are spelled as they are stored. Those that are not are looked at each time.
#[derive(Default)]
pub(super) struct Spellings(RefCell<HashMap<RepoPath, Instant>>);

impl Spellings {
    fn knows(&self, repo: &RepoPath) -> bool {
        self.0.borrow().get(repo).is_some_and(|seen| now().duration_since(*seen) < GOOD_FOR)
    }

    fn remember(&self, repo: &RepoPath) {
        let mut known = self.0.borrow_mut();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(repo.clone(), now());
    }
}

impl<D: Disk> FsStore<D> {
    /// Fails unless the path of a repository is spelled as it is stored. Before all else: what is found by another spelling
    /// must have no effect, and none on the answer.
    ///
    /// # Errors
    /// [`Error::NotFound`] if a folder is missing. The caller must not go on to look for it: somebody may make it meanwhile
    /// in another spelling.
    pub(super) async fn check_spelling(&self, repo: &RepoPath) -> Result<(), Error> {
        if repo.folders().is_empty() || self.0.spellings.knows(repo) {
            return Ok(());
        }
        Box::pin(self.check_spelling_anew(repo)).await
    }

    /// The same, whatever is remembered.
    pub(super) async fn check_spelling_anew(&self, repo: &RepoPath) -> Result<(), Error> {
        let Self(shared) = self;
        match shared.disk.spelling(&layout::repo_dir(repo)).await.step("look at a folder") {
            Ok(Spelling::Stored) => {
                shared.spellings.remember(repo);
                Ok(())
            }
            Ok(Spelling::Missing) => Err(Error::NotFound),
            Ok(Spelling::Other) => Err(Error::OtherSpelling),
            // A file or a link has nothing in it. The step that needs a folder there tells what is wrong.
            Err(Error::NotDir | Error::Symlink) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Fails if the folders of a repository that are missing can't be made in this spelling. Nothing of them is made.
    pub(super) async fn check_new_spelling(
        &self,
        dir: &D::Dir,
        repo: &RepoPath,
        missing: u64,
    ) -> Result<(), Error> {
        let shared = &*self.0;
        let there = repo.folders().len().saturating_sub(usize::try_from(missing).unwrap_or(usize::MAX));
        let names = repo.folders().iter().skip(there).map(|name| name.as_os_str().to_owned()).collect();
        let kept = shared.wrote(shared.disk.keeps_names(dir, names).await).step("try a name")?;
        if kept { Ok(()) } else { Err(Error::OtherSpelling) }
    }
}
