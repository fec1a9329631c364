//! One walk through the store, after the start in the background, or when an operator asks for it: removes what interrupted
//! uploads left, and names what an operator should know about.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::io::Fault;
use crate::io::dir::Kind;
use crate::io::listing::Entry;
use crate::store::disk::Disk;
use crate::store::layout;
use crate::types::escaped;

/// Entries read at a time.
const PAGE_ENTRIES: usize = 1000;
/// Symbolic links named in the log; the rest is counted.
const NAMED_LINKS: u64 = 20;
/// Levels below the deepest repository's folder: a type and a shard.
const LEVELS_IN_REPO: usize = 2;

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Temporary files removed.
    pub removed: u64,
    /// Temporary files of rest-server, which stay.
    pub foreign: u64,
    /// Objects in quarantine, which stay.
    pub damaged: u64,
    /// Symbolic links, which answer 403.
    pub links: u64,
    /// Folders that could not be read and files that could not be removed.
    pub failed: u64,
}

/// Walks through all folders, repositories being at most `depth` deep. Leftovers of rest-server, which holds no lock on
/// what it is still writing, go only if they are older than `foreign_age`, if at all.
pub async fn sweep<D: Disk>(disk: &D, depth: usize, foreign_age: Option<Duration>) -> Report {
    let mut report = Report::default();
    let mut folders = vec![PathBuf::new()];
    while let Some(path) = folders.pop() {
        let deeper = path.components().count() < depth + LEVELS_IN_REPO;
        match walk(disk, &path, foreign_age, &mut report).await {
            Ok(found) if deeper => folders.extend(found),
            Ok(_) => {}
            // Gone meanwhile.
            Err(e) if Fault::of(&e) == Fault::Missing => {}
            Err(e) => {
                report.failed += 1;
                log::warn!("{}: this folder can't be read: {e}", escaped(&path));
            }
        }
    }
    summary(&report);
    report
}

/// Looks at one folder; returns those in it.
async fn walk<D: Disk>(
    disk: &D,
    path: &Path,
    foreign_age: Option<Duration>,
    report: &mut Report,
) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let dir = disk.open_dir(path).await?;
    let mut reader = disk.read_dir(&dir).await?;
    loop {
        let page = disk.next_page(&mut reader, PAGE_ENTRIES, false, |name| !name.starts_with(b".")).await?;
        if page.is_empty() {
            return Ok(folders);
        }
        for Entry { name, meta } in page {
            let full = path.join(&name);
            match meta.kind {
                Kind::Dir => folders.push(full),
                Kind::Symlink => note_link(&full, report),
                Kind::File if layout::is_temp(&name) => {
                    let gone = disk.unlink_if_unlocked(&dir, &name).await;
                    report.removed += u64::from(is_gone(gone, &full, &mut report.failed));
                }
                Kind::File if layout::is_rest_server_temp(&name) => {
                    let gone = match foreign_age {
                        Some(age) => {
                            is_gone(disk.unlink_if_old(&dir, &name, age).await, &full, &mut report.failed)
                        }
                        None => false,
                    };
                    report.removed += u64::from(gone);
                    report.foreign += u64::from(!gone);
                }
                Kind::File if layout::is_quarantined(&name) => report.damaged += 1,
                Kind::File | Kind::Other if layout::is_folder(path, &name) => {
                    report.failed += 1;
                    log::error!("{}: a file stands where a folder must be: move it away", escaped(&full));
                }
                Kind::File | Kind::Other => {}
            }
        }
    }
}

fn is_gone(removed: io::Result<bool>, path: &Path, failed: &mut u64) -> bool {
    removed.unwrap_or_else(|e| {
        *failed += 1;
        log::warn!("{}: this leftover of an upload can't be removed: {e}", escaped(path));
        false
    })
}

fn note_link(path: &Path, report: &mut Report) {
    report.links += 1;
    if report.links <= NAMED_LINKS {
        log::warn!(
            "{}: a symbolic link: packhouse follows none and answers 403 there; use a bind mount",
            escaped(path)
        );
    }
}

fn summary(report: &Report) {
    if report.removed > 0 {
        log::info!("removed {} leftovers of interrupted uploads", report.removed);
    }
    if report.foreign > 0 {
        log::warn!(
            "{} leftovers of rest-server (*.rest-server-temp*) stay: they are never listed, and `packhouse repo sweep` removes them",
            report.foreign
        );
    }
    if report.damaged > 0 {
        log::warn!(
            "{} damaged objects (*.packhouse-damaged-*) are in quarantine: look at them, then delete them by hand",
            report.damaged
        );
    }
    if report.links > NAMED_LINKS {
        log::warn!("{} symbolic links in all below the data folder", report.links);
    }
}
