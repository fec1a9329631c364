//! How many repositories lie below a user's folder, and how many a user has made anywhere. Pure but for a lock.
//!
//! What lies below a folder is counted once, when the first repository is made there: until that count has ended only those
//! that this process made are known. So no start waits for a count.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::types::{FolderName, Principal, RepoPath};

/// Repositories may have been removed by hand: a folder that is full is counted again, but not more often than this.
const COUNT_AGAIN: Duration = Duration::from_mins(1);

/// The counts of repositories, by first folder and by user. Shared by all shards.
#[derive(Default)]
pub struct RepoCounts(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Below first folders.
    folders: HashMap<FolderName, Count>,
    /// Made by users since the start, wherever: who may make first folders is not held by what lies below one.
    made: HashMap<Principal, u64>,
}

#[derive(Default)]
struct Count {
    /// By the last count, and those made since.
    known: u64,
    /// Made since the count began that is under way.
    since: u64,
    /// Being made: a count may find them or not.
    making: u64,
    counted: Option<Instant>,
    counting: bool,
    /// Some were made during the last count, which may have found them: they may be known twice.
    is_doubtful: bool,
}

impl Count {
    const fn all(&self) -> u64 {
        self.known.saturating_add(self.since).saturating_add(self.making)
    }
}

impl RepoCounts {
    fn all(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to make a repository, if the user may have so many. It counts from now on, until it is dropped without having
    /// been made.
    pub fn begin(self: &Arc<Self>, who: &Principal, repo: &RepoPath, most: u64) -> Option<Making> {
        let Some(folder) = repo.folders().first() else {
            // There is only one of it.
            return Some(Making { counts: Arc::clone(self), what: None });
        };
        let mut all = self.all();
        let Counts { folders, made } = &mut *all;
        let by_user = made.get(who).copied().unwrap_or(0);
        let there = folders.get(folder).map_or(0, Count::all);
        if there >= most || by_user >= most {
            return None;
        }
        let below = folders.entry(folder.clone()).or_default();
        below.making += 1;
        made.insert(who.clone(), by_user + 1);
        Some(Making { counts: Arc::clone(self), what: Some((who.clone(), folder.clone())) })
    }

    /// Whether a folder is to be counted now, of which `most` repositories may be. Then a count is under way until
    /// [`end_count`](Self::end_count).
    pub fn begin_count(&self, folder: &FolderName, most: u64, now: Instant) -> bool {
        let mut all = self.all();
        let Some(count) = all.folders.get_mut(folder).filter(|count| !count.counting) else { return false };
        let is_due = match count.counted {
            None => true,
            Some(counted) => {
                let is_old = now.duration_since(counted) >= COUNT_AGAIN;
                count.known >= most && (is_old || count.is_doubtful)
            }
        };
        if is_due {
            (count.counting, count.counted) = (true, Some(now));
        }
        is_due
    }

    /// A count has ended: `found` repositories lie below a folder.
    pub fn end_count(&self, folder: &FolderName, found: u64) {
        if let Entry::Occupied(mut entry) = self.all().folders.entry(folder.clone()) {
            let count = entry.get_mut();
            count.is_doubtful = count.since + count.making > 0;
            (count.known, count.since, count.counting) = (found + count.since, 0, false);
            if count.all() == 0 {
                entry.remove();
            }
        }
    }
}

/// A repository that is being made.
pub struct Making {
    counts: Arc<RepoCounts>,
    what: Option<(Principal, FolderName)>,
}

impl Making {
    /// It is there.
    pub fn made(mut self) {
        let Some((_, folder)) = self.what.take() else { return };
        if let Some(count) = self.counts.all().folders.get_mut(&folder) {
            count.making -= 1;
            *(if count.counting { &mut count.since } else { &mut count.known }) += 1;
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let Some((who, folder)) = self.what.take() else { return };
        let mut all = self.counts.all();
        if let Entry::Occupied(mut count) = all.folders.entry(folder) {
            count.get_mut().making -= 1;
            // What was asked for and is not there leaves no trace.
            if count.get().all() == 0 && !count.get().counting {
                count.remove();
            }
        }
        if let Entry::Occupied(mut made) = all.made.entry(who) {
            *made.get_mut() -= 1;
            if *made.get() == 0 {
                made.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UserName;

    #[test]
    fn a_user_has_and_makes_so_many() {
        let (counts, start) = (Arc::new(RepoCounts::default()), Instant::now());
        let user = |name: &str| Principal::User(UserName::new(name));
        let make = |who: &str, path: &str| {
            let repo: RepoPath = path.parse().expect("a path");
            counts.begin(&user(who), &repo, 5).map(Making::made).is_some()
        };
        let alice = FolderName::parse(b"alice").expect("a name");
        let is_due = |seconds| counts.begin_count(&alice, 5, start + Duration::from_secs(seconds));
        assert!(make("alice", "/alice/a/") && is_due(0) && !is_due(0), "one count at a time");
        assert!(make("alice", "/alice/b/"));
        counts.end_count(&alice, 3);
        assert!(make("bob", "/alice/c/"), "a third one beside the count's and the one made meanwhile");
        assert!(!make("bob", "/alice/d/") && !make("alice", "/alice/d/"), "whoever makes it");
        assert!(is_due(1), "the count may have found the one made meanwhile");
        counts.end_count(&alice, 5);
        assert!(!make("bob", "/alice/d/"));
        assert!(!is_due(60) && is_due(61), "some may have been removed");
        counts.end_count(&alice, 1);
        assert!(make("alice", "/alice/d/"));
        drop(counts.begin(&user("alice"), &"/alice/e/".parse().expect("a path"), 5));
        for n in 0..2 {
            assert!(make("alice", &format!("/x{n}/")), "one that was not made does not count");
        }
        assert!(!make("alice", "/x3/"), "in all folders together");
        assert!(make("bob", "/x3/") && make("bob", "/"));
    }
}
