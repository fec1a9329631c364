//! Watches the files that settings name (password file, certificates, rights), and tells when one has changed.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::Sender;

use crate::api::status::Status;
use crate::server::control::Event;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Looks after which a file that could not be read is tried again, whether or not it looks different.
const RETRY_AFTER: u32 = 10;

/// What tells one state of a file from another. A copy that keeps size and time (`cp -p`, a new generation of a package) is
/// another inode, and everything that is done to an inode, chmod(2) too, changes its ctime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

/// What files look like; none of a file that is not there, or can't be looked at.
type Stamps = HashMap<PathBuf, Option<Stamp>>;

/// The files that are watched, and how they looked before they were read.
#[derive(Debug)]
pub struct Watched {
    stamps: Stamps,
}

impl Watched {
    /// These files, as they are now. To be called before they are read: what changes meanwhile is seen then.
    pub fn of(files: Vec<PathBuf>) -> Self {
        let stamps = files.into_iter().map(|file| {
            let stamp = look(&file);
            (file, stamp)
        });
        Self { stamps: stamps.collect() }
    }

    fn look(&self) -> Stamps {
        self.stamps.keys().map(|file| (file.clone(), look(file))).collect()
    }
}

fn look(file: &PathBuf) -> Option<Stamp> {
    let meta = std::fs::metadata(file).ok()?;
    Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.ctime(), meta.ctime_nsec()),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

/// Watches files on a thread of its own. `watched` is replaced when settings name others; `status` knows whether the last
/// reload failed.
pub fn start(watched: Arc<ArcSwap<Watched>>, status: Arc<Status>, events: Sender<Event>) -> io::Result<()> {
    thread::Builder::new().name("watch".into()).spawn(move || {
        let mut changes = Changes::new(watched.load_full());
        loop {
            thread::sleep(LOOK_EVERY);
            let due = changes.look(watched.load_full(), status.reloads.has_failed_files());
            if due.is_some_and(|event| events.send(event).is_err()) {
                return;
            }
        }
    })?;
    Ok(())
}

/// What was seen of files, look by look.
struct Changes {
    watched: Arc<Watched>,
    /// How they were when they were read.
    known: Stamps,
    /// How they were at the last look.
    last: Stamps,
    /// Looks since the last reload.
    looks: u32,
}

impl Changes {
    fn new(watched: Arc<Watched>) -> Self {
        let stamps = watched.stamps.clone();
        Self { watched, known: stamps.clone(), last: stamps, looks: 0 }
    }

    /// Looks once. What to tell if files are to be read anew.
    fn look(&mut self, watched: Arc<Watched>, has_failed: bool) -> Option<Event> {
        if !Arc::ptr_eq(&watched, &self.watched) {
            // A reload has read them.
            *self = Self::new(watched);
        }
        let now = self.watched.look();
        self.looks += 1;
        // A file that still changes between two looks is being written: it waits until it is whole, and others do not wait for
        // it.
        let last = std::mem::replace(&mut self.last, now.clone());
        let whole = now.into_iter().filter(|(file, stamp)| last.get(file) == Some(stamp));
        let mut has_changed = false;
        for (file, stamp) in whole {
            has_changed |= self.known.insert(file, stamp) != Some(stamp);
        }
        let try_again = has_failed && self.looks >= RETRY_AFTER;
        if !has_changed && !try_again {
            return None;
        }
        self.looks = 0;
        Some(if has_changed { Event::FilesChanged } else { Event::TryFilesAgain })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_change_is_seen_once_and_only_when_it_has_ended() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("users");
        std::fs::write(&file, "one").expect("written");
        let watched = Arc::new(Watched::of(vec![file.clone()]));
        let mut changes = Changes::new(Arc::clone(&watched));
        let seen = |changes: &mut Changes| {
            (0..4).map(|_| u32::from(changes.look(Arc::clone(&watched), false).is_some())).collect::<Vec<_>>()
        };
        assert_eq!(seen(&mut changes), [0, 0, 0, 0]);
        // Vanished for two looks, and back.
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(seen(&mut changes), [0, 1, 0, 0]);
        std::fs::write(&file, "one").expect("written");
        assert_eq!(seen(&mut changes), [0, 1, 0, 0]);
        // Another file with the same size and the same time.
        let time = std::fs::metadata(&file).and_then(|meta| meta.modified()).expect("a time");
        let new = dir.path().join("new");
        std::fs::write(&new, "two").expect("written");
        std::fs::File::options().write(true).open(&new).and_then(|f| f.set_modified(time)).expect("set");
        std::fs::rename(&new, &file).expect("renamed");
        assert_eq!(seen(&mut changes), [0, 1, 0, 0]);
        // The same in place.
        std::fs::write(&file, "six").expect("written");
        std::fs::File::options().write(true).open(&file).and_then(|f| f.set_modified(time)).expect("set");
        assert_eq!(seen(&mut changes), [0, 1, 0, 0]);
        // Readable again.
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("changed");
        assert_eq!(seen(&mut changes), [0, 1, 0, 0]);
        // What could not be read is tried again although it looks the same.
        let tries: u32 =
            (0..RETRY_AFTER * 3).map(|_| u32::from(changes.look(Arc::clone(&watched), true).is_some())).sum();
        assert_eq!(tries, 3);
        // One that changes all the time does not hold up another.
        let busy = dir.path().join("busy");
        let both = Arc::new(Watched::of(vec![file.clone(), busy.clone()]));
        let mut looked = Changes::new(Arc::clone(&both));
        std::fs::write(&file, "seven").expect("written");
        let told = (1..5).map(|size| {
            std::fs::write(&busy, vec![0; size]).expect("written");
            u32::from(looked.look(Arc::clone(&both), false).is_some())
        });
        assert_eq!(told.collect::<Vec<_>>(), [0, 1, 0, 0]);
        // A reload has read other files.
        let other = Arc::new(Watched::of(vec![dir.path().join("other")]));
        assert!(changes.look(Arc::clone(&other), false).is_none());
        std::fs::write(dir.path().join("other"), "x").expect("written");
        assert!(changes.look(Arc::clone(&other), false).is_none() && changes.look(other, false).is_some());
    }
}
