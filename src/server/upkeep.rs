//! What an operator does to a data folder by hand. Needs no running server, and disturbs none.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::io::affinity;
use crate::io::runtime::{Driver, block_on};
use crate::server::inventory::open;
use crate::server::scrub::{Pace, SECOND_LOOK};
use crate::store::scrub::{NotRenamed, Scrubber, Verdict};
use crate::store::sweep;
pub use crate::store::sweep::Report;
use crate::types::{RepoPath, escaped};

/// What is to be verified.
pub struct Verify {
    /// The data folder.
    pub path: PathBuf,
    /// One repository of it, or all.
    pub repo: Option<RepoPath>,
    /// Folders that a repository's path may have.
    pub depth: usize,
    /// Whether damaged objects are renamed.
    pub quarantine: bool,
    /// What somebody has written to since is not renamed.
    pub quiet: Duration,
    /// Bytes read a second at the most.
    pub rate: Option<u64>,
}

/// What happens meanwhile.
pub enum Step {
    /// So many bytes were read.
    Read(u64),
    /// An object is not right.
    Found {
        /// Below the data folder.
        path: PathBuf,
        /// What is wrong with it.
        verdict: Verdict,
        /// If it was to be renamed: where it is now, or why it stays.
        quarantine: Option<Result<PathBuf, NotRenamed>>,
    },
    /// Something could not be looked at.
    Failed(String),
}

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Objects whose bytes are lost.
    pub damaged: u64,
    /// Objects that lie where restic does not find them.
    pub misplaced: u64,
    /// Folders and objects that could not be looked at.
    pub failed: u64,
}

/// Reads objects back and compares them with their names.
///
/// # Errors
/// The folder can't be opened, or the repository is not there.
pub fn verify(what: &Verify, mut tell: impl FnMut(Step)) -> io::Result<Sums> {
    // Without it this is only less polite.
    affinity::idle().ok();
    let disk = open(&what.path, false)?;
    block_on(Driver::Epoll, async {
        let mut scrubber = Scrubber::new(disk, what.repo.as_ref(), what.depth, None).await;
        if let Some(repo) = &what.repo
            && scrubber.is_empty()
        {
            return Err(io::Error::other(format!(
                "there is no repository {repo} in {}",
                what.path.display()
            )));
        }
        let mut pace = Pace::new(what.rate);
        let mut sums = Sums::default();
        loop {
            let next = scrubber.next(|bytes| {
                tell(Step::Read(bytes as u64));
                pace.wait_after(bytes)
            });
            let checked = match next.await {
                Ok(Some(checked)) => checked,
                Ok(None) => return Ok(sums),
                Err(e) => {
                    sums.failed += 1;
                    tell(Step::Failed(e.to_string()));
                    continue;
                }
            };
            sums.bytes += checked.bytes;
            if checked.verdict == Verdict::Gone {
                continue;
            }
            sums.objects += 1;
            if checked.verdict == Verdict::Right {
                continue;
            }
            sums.damaged += u64::from(checked.verdict.is_loss());
            sums.misplaced += u64::from(checked.verdict == Verdict::Misplaced);
            let mut quarantine = None;
            if what.quarantine && checked.verdict.is_loss() && !checked.is_for_quarantine() {
                quarantine = Some(Err(NotRenamed::Needed));
            } else if what.quarantine && checked.is_for_quarantine() {
                match scrubber.quarantine(&checked, SECOND_LOOK, what.quiet).await {
                    Ok(done) => quarantine = Some(done.map(|done| done.path)),
                    Err(e) => {
                        sums.failed += 1;
                        tell(Step::Failed(format!("{}: {e}", escaped(&checked.place.path()))));
                    }
                }
            }
            tell(Step::Found { path: checked.place.path(), verdict: checked.verdict, quarantine });
        }
    })?
}

/// Removes what interrupted uploads left; of rest-server's what is older than `foreign_age`.
///
/// # Errors
/// The folder can't be opened.
pub fn sweep(path: &Path, depth: usize, foreign_age: Duration) -> io::Result<Report> {
    let disk = open(path, false)?;
    block_on(Driver::Epoll, sweep::sweep(&disk, depth, Some(foreign_age)))
}
