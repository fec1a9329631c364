//! Counts the store in the background while it is used, so that quotas are exact again after a crash or after somebody
//! else has changed the folder.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_listener::Event;

use crate::io::runtime::sleep;
use crate::io::spelling::Spelling;
use crate::io::wake::until;
use crate::quota::{Amount, Ledger, Place};
use crate::store::census::{self, Sum};
use crate::store::disk::Disk;
use crate::store::layout;
use crate::types::{BlobType, RepoPath};

/// How often, and after what pause each, a folder is tried whose objects change all the time.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);
/// How often, and after what pause at the most, what could not be counted is counted again.
const ROUNDS: u32 = 1000;
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Asks for counts, from any thread.
pub struct CountRequests {
    wanted: AtomicBool,
    /// One is under way.
    counting: AtomicBool,
    event: Event,
}

impl CountRequests {
    /// One is wanted from the beginning, or not.
    pub fn new(wanted: bool) -> Arc<Self> {
        let counting = AtomicBool::new(false);
        Arc::new(Self { wanted: AtomicBool::new(wanted), counting, event: Event::new() })
    }

    /// Whether one is asked for or under way.
    pub fn is_busy(&self) -> bool {
        // In the order in which `next` sets them, so that one that begins meanwhile is seen.
        self.wanted.load(Ordering::SeqCst) || self.counting.load(Ordering::SeqCst)
    }

    /// Asks for one.
    pub fn ask(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.event.notify(usize::MAX);
    }

    /// Waits until one is asked for.
    async fn next(&self) {
        until(&self.event, || self.wanted.load(Ordering::SeqCst).then_some(())).await;
        // In this order, so that there is no moment in which neither is set.
        self.counting.store(true, Ordering::SeqCst);
        self.wanted.store(false, Ordering::SeqCst);
    }
}

/// Counts whenever it is asked for. Where the folder is `shared`, what other servers store is not known.
pub async fn serve<D: Disk>(
    disk: D,
    ledger: Arc<Ledger>,
    requests: Arc<CountRequests>,
    depth: usize,
    shared: bool,
) {
    loop {
        requests.next().await;
        count(&disk, &ledger, depth, shared).await;
        requests.counting.store(false, Ordering::SeqCst);
    }
}

/// Counts everything once; what could not be counted, again and again for a while.
pub async fn count<D: Disk>(disk: &D, ledger: &Arc<Ledger>, depth: usize, shared: bool) {
    let mut repos: BTreeSet<RepoPath> = census::repositories(disk, depth).await.into_iter().collect();
    let found = repos.len();
    // Also those that the ledger knows and that have no folder: they may have been removed by hand.
    repos.extend(ledger.known());
    let mut pause = PAUSE;
    for _ in 0..ROUNDS {
        for repo in &repos {
            if let Err(e) = count_repo(disk, ledger, repo).await {
                log::warn!("{repo}: can't be counted: {e}");
            }
        }
        repos = ledger.uncounted();
        if ledger.end_counts().await && repos.is_empty() {
            if shared {
                log::info!(
                    "counted what {found} repositories hold: what other servers store from now on is not known"
                );
            } else {
                log::info!("counted what {found} repositories hold: the quotas are exact");
            }
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    log::error!("the quotas are not exact: {} repositories could not be counted", repos.len());
}

async fn count_repo<D: Disk>(disk: &D, ledger: &Ledger, repo: &RepoPath) -> io::Result<()> {
    ledger.begin_count(repo);
    // What was refused may have left an account. Where the disk finds the folder of another repository under its name, what lies
    // there is that one's.
    let is_alias = matches!(disk.spelling(&layout::repo_dir(repo)).await, Ok(Spelling::Other));
    for place in Place::all() {
        count_place(disk, ledger, repo, place, is_alias).await?;
    }
    ledger.end_count(repo);
    Ok(())
}

async fn count_place<D: Disk>(
    disk: &D,
    ledger: &Ledger,
    repo: &RepoPath,
    place: Place,
    is_alias: bool,
) -> io::Result<()> {
    for _ in 0..TRIES {
        if let Some(ticket) = ledger.begin_folder(repo, place) {
            let sum = match place {
                _ if is_alias => Sum::default(),
                Place::Folders => census::folders(disk, repo).await?,
                Place::Config => census::config(disk, repo).await?,
                Place::Flat(kind) => census::folder(disk, repo, kind, None).await?,
                Place::Shard(shard) => census::folder(disk, repo, BlobType::Data, Some(shard)).await?,
            };
            if ledger.end_folder(repo, ticket, Amount { bytes: sum.on_disk, objects: sum.objects }) {
                return Ok(());
            }
        }
        sleep(PAUSE).await;
    }
    Err(io::Error::other("it changes all the time"))
}
