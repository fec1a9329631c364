//! One history: clients of two workers on one disk, in an order that the seed decides, and a power cut after every step.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use packhouse::hash::Sha256;
use packhouse::io::runtime::{begin, turn};
use packhouse::io::{BufferPool, Fault};
use packhouse::quota::{Amount, Ledger, Limits};
use packhouse::server::count::count;
use packhouse::store::disk::Disk;
use packhouse::store::faulty::{FaultyDisk, Op, Watch};
use packhouse::store::fs::{FsStore, Options};
use packhouse::store::health::Health;
use packhouse::store::model::{Flaw, ModelDisk};
use packhouse::store::scrub::Scrubber;
use packhouse::store::{Change, Error, Store, Upload, census, layout, sweep};
use packhouse::types::{BLOCK_BYTES, BlobId, BlobType, Handle, Object, RepoPath};

use crate::oracle::{Oracle, counted_bytes, handle};
use crate::paper::Paper;

/// Processes in one history: a power cut ends each but the last.
const LIVES: u32 = 3;
const CLIENTS: usize = 4;
const REQUESTS: u64 = 4;
/// Steps within which the power goes off for good.
const STEPS: u64 = 120;
/// Levels of folders that a repository may lie deep.
const DEPTH: usize = 3;
/// What tasks that go on when nobody waits any more need to end.
const TURNS_TO_END: usize = 300;
/// Blocks that may be stored where there is a quota: so few that they do not always do, without room for all shards and with.
const QUOTAS: [u64; 2] = [12, 280];
/// Locks fit beside it, so many bytes.
const LOCK_ROOM: u64 = 256 << 10;
const REPOS: [&str; 2] = ["/a/", "/b/c/"];
const KINDS: [BlobType; 4] = [BlobType::Data, BlobType::Data, BlobType::Snapshots, BlobType::Locks];

/// Numbers that look random (SplitMix64).
pub struct Random(Cell<u64>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(mix(seed)))
    }

    pub fn below(&self, end: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        mix(self.0.get()) % end
    }

    pub fn once_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

fn mix(mut n: u64) -> u64 {
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// What became of a history, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Cuts that were survived.
    pub cuts: u64,
    /// Of every operation on the disk, in their order, and of all that lies there in the end.
    pub digest: u64,
}

/// What all lives of a history share.
struct World {
    disk: ModelDisk,
    random: Random,
    seed: u64,
    /// Whether clients make repositories, or everything is verified meanwhile, which takes many steps.
    makes_repos: bool,
    scrubs: bool,
    oracle: RefCell<Oracle>,
    /// Bytes that may be stored, if there is a quota.
    quota: Option<u64>,
    paper: Paper,
    step: Cell<u64>,
    /// Checks of a disk after a cut, and what was done so far.
    end: Cell<End>,
    failure: RefCell<Option<String>>,
}

/// One process: its operations reach the disk until the power goes.
#[derive(Clone)]
struct Life {
    world: Rc<World>,
    ends_at: u64,
    is_over: Rc<Cell<bool>>,
}

impl Watch for Life {
    async fn before(&self, op: Op) -> io::Result<()> {
        // Others may come first.
        for _ in 0..self.world.random.below(4) {
            turn().await;
        }
        if !self.is_over.get() {
            self.world.note(op as u64);
            self.world.cut();
            let step = self.world.step.get() + 1;
            self.world.step.set(step);
            if step >= self.ends_at || self.world.failure.borrow().is_some() {
                self.is_over.set(true);
            }
        }
        if self.is_over.get() { Err(Fault::Device.to_error()) } else { Ok(()) }
    }
}

impl World {
    fn fail(&self, what: String) {
        self.failure.borrow_mut().get_or_insert(what);
    }

    fn note(&self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.end.get().digest, what).hash(&mut hasher);
        self.end.set(End { digest: hasher.finish(), ..self.end.get() });
    }

    /// Cuts the power of a copy of the disk and looks at what is left; and at what clients see now.
    fn cut(&self) {
        let step = self.step.get();
        if let Some(wrong) = self.oracle.borrow().verdict(&self.disk, false) {
            self.fail(format!("step {step}, before any cut: {wrong}"));
        }
        if let Some(limit) = self.quota
            && REPOS.iter().map(|repo| held(&self.disk, repo, true)).sum::<u64>() > limit + LOCK_ROOM
        {
            self.fail(format!("step {step}: more is stored than the quota of {limit} lets in"));
        }
        let copy = self.disk.fork();
        self.crash(&copy);
        at_once(sweep::sweep(&copy, DEPTH, None));
        if let Some(wrong) = self.oracle.borrow().verdict(&copy, true) {
            self.fail(format!("step {step}, after a cut: {wrong}"));
        }
        self.judge_journals(&copy);
    }

    /// What the journal of the quota says after a cut is never less than what is there, and exactly that if it says so.
    fn judge_journals(&self, disk: &ModelDisk) {
        if self.quota.is_none() {
            return;
        }
        let stored = REPOS.map(|repo| (repo, held(disk, repo, false), held(disk, repo, true)));
        for journal in self.paper.after_a_crash() {
            let Some((entries, clean)) = journal.read().expect("it can be read") else { continue };
            // Locks may be ahead of it.
            for (repo, stored, with_locks) in stored {
                let of_repo = |(path, _): &&(RepoPath, Amount)| path.to_string() == repo;
                let bound = entries.iter().find(of_repo).map_or(0, |(_, bound)| bound.bytes);
                if stored > bound || (clean && with_locks != bound) {
                    let step = self.step.get();
                    self.fail(format!(
                        "step {step}, after a cut: {stored} bytes are in {repo}, and the journal says {bound}"
                    ));
                }
            }
        }
    }

    /// Of what was not synced, nothing, all or a part survives.
    fn crash(&self, disk: &ModelDisk) {
        let cut = mix(self.seed) ^ self.step.get();
        self.end.set(End { cuts: self.end.get().cuts + 1, ..self.end.get() });
        disk.crash_with(|inode, part| match cut % 4 {
            0 => false,
            1 => true,
            _ => mix(mix(cut) ^ mix(inode) ^ part.rotate_left(32)).is_multiple_of(2),
        });
    }
}

/// What counts towards a quota in a repository: objects and folders.
fn held(disk: &ModelDisk, repo: &str, with_locks: bool) -> u64 {
    let path = repo.parse().expect("a path");
    let folders = at_once(census::folders(disk, &path)).expect("they can be read").on_disk;
    let locks = if with_locks { counted_bytes(disk, repo, true) } else { 0 };
    folders + locks + counted_bytes(disk, repo, false)
}

/// A future that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("the model disk makes nobody wait"),
    }
}

type SimDisk = FaultyDisk<ModelDisk, Life>;
type SimStore = FsStore<SimDisk>;

/// A worker of a process.
#[derive(Clone)]
struct Worker {
    world: Rc<World>,
    verify: bool,
    disk: SimDisk,
    store: SimStore,
    ledger: Arc<Ledger>,
    buffers: Rc<BufferPool>,
}

/// Runs the history of a seed on a disk that may be flawed.
///
/// # Errors
/// What was promised and not kept.
pub async fn history(seed: u64, flaw: Option<Flaw>) -> Result<End, String> {
    let random = Random::new(seed);
    let disk = ModelDisk::default();
    let makes_repos = random.once_in(20);
    for repo in REPOS.iter().take(if makes_repos { 1 } else { REPOS.len() }) {
        disk.make_repo(repo.trim_matches('/')).await.map_err(|e| e.to_string())?;
    }
    if let Some(flaw) = flaw {
        disk.set_flaw(flaw);
    }
    let options = Options {
        verify: !random.once_in(5),
        hash_lanes: false,
        group_commit: random.once_in(2),
        unnamed_temps: !random.once_in(3),
    };
    let quota = random.once_in(3).then(|| random.pick(&QUOTAS) * BLOCK_BYTES);
    let paper = Paper::new(seed, random.once_in(2).then_some(8));
    let world = Rc::new(World {
        disk,
        makes_repos,
        scrubs: random.once_in(20),
        random,
        seed,
        oracle: RefCell::default(),
        quota,
        paper,
        step: Cell::new(0),
        end: Cell::default(),
        failure: RefCell::new(None),
    });
    for life in 1..=LIVES {
        live(&world, options, life == LIVES).await;
        if let Some(wrong) = world.failure.borrow_mut().take() {
            return Err(format!("seed {seed}, life {life}: {wrong}"));
        }
    }
    world.note(world.disk.contents());
    Ok(world.end.get())
}

async fn live(world: &Rc<World>, options: Options, is_last: bool) {
    // Some lives end as they should.
    let stops = is_last || world.random.once_in(5);
    let ends_at = if stops { u64::MAX } else { world.step.get() + 1 + world.random.below(STEPS) };
    let life = Life { world: Rc::clone(world), ends_at, is_over: Rc::default() };
    let limits = Limits { total: world.quota, ..Limits::default() };
    let ledger = Arc::new(Ledger::with(limits, Some(world.paper.journal()), 0).expect("opens"));
    // While the store is counted the upper bounds hold; here that may take a whole life.
    let counts = world.quota.is_none() || !world.random.once_in(3);
    if counts {
        count(&world.disk, &ledger, DEPTH, false).await;
    }
    let health = Arc::new(Health::new(Some(0)));
    let disk = FaultyDisk::new(world.disk.clone(), life);
    let workers: Vec<_> = (0..2)
        .map(|_| Worker {
            world: Rc::clone(world),
            verify: options.verify,
            disk: disk.clone(),
            store: FsStore::new(disk.clone(), options, Arc::clone(&health)),
            ledger: Arc::clone(&ledger),
            buffers: Rc::new(BufferPool::new(8)),
        })
        .collect();
    let mut clients: Vec<_> = (0..CLIENTS).map(|n| begin(client(workers[n % 2].clone()))).collect();
    for client in &mut clients {
        client.end().await.expect("no panic");
    }
    for _ in 0..TURNS_TO_END {
        turn().await;
    }
    if is_last && !counts {
        count(&world.disk, &ledger, DEPTH, false).await;
    }
    if stops {
        ledger.close();
        world.judge_journals(&world.disk);
        world.paper.end();
    } else {
        world.crash(&world.disk);
        world.paper.crash();
        sweep::sweep(&world.disk, DEPTH, None).await;
    }
    let mut oracle = world.oracle.borrow_mut();
    if let Some(wrong) = oracle.verdict(&world.disk, true) {
        world.fail(format!("step {}, at the end: {wrong}", world.step.get()));
    }
    let stored = REPOS.iter().map(|repo| held(&world.disk, repo, true)).sum::<u64>();
    if is_last
        && let (Some(known), Some(_)) = ledger.usage().total
        && known != stored
    {
        world.fail(format!("{stored} bytes are stored, and {known} are known to be"));
    }
    oracle.begin_anew(&world.disk);
}

async fn client(worker: Worker) {
    let random = &worker.world.random;
    for _ in 0..REQUESTS {
        let repo = random.pick(&REPOS);
        let object = match random.below(6) {
            0 => Object::Config,
            _ => {
                // Few names, so that clients meet; long ones are stored in several pieces.
                let content = content(random.below(6));
                Object::Blob(*random.pick(&KINDS), BlobId::from_digest(Sha256::of(&content)))
            }
        };
        let handle = handle(repo, object);
        match random.below(20) {
            0 | 8..=10 if worker.world.makes_repos => {
                let Ok(missing) = worker.store.missing_folders(&handle.repo).await else { continue };
                let Ok(mut claim) = worker.ledger.claim_folders(&handle.repo, missing).await else {
                    continue;
                };
                let changing = worker.ledger.changing_folders(&handle.repo);
                let made = worker.store.create_repo(&handle.repo, |count| claim.made(count)).await;
                drop(changing);
                if made.is_ok() {
                    worker.world.oracle.borrow_mut().made(repo.trim_matches('/'));
                }
            }
            1..=4 => delete(&worker, &handle).await,
            5 if worker.world.quota.is_none() => copied_by_others(&worker, &handle).await,
            6 if worker.world.scrubs => scrub(&worker).await,
            7 => {
                sweep::sweep(&worker.world.disk, DEPTH, None).await;
            }
            _ => {
                put(&worker, &handle).await.ok();
            }
        }
    }
}

fn content(n: u64) -> Vec<u8> {
    (0..=n * 7).map(|at| (at * 31 + n) as u8).collect()
}

/// What is stored under a name: of a config anything, else what hashes to it.
fn content_of(random: &Random, object: Object) -> Vec<u8> {
    match object {
        Object::Config => content(random.below(3)),
        Object::Blob(_, id) => (0..6)
            .map(content)
            .find(|content| Sha256::of(content) == *id.digest())
            .expect("a name of some content"),
    }
}

/// As the server stores an object.
async fn put(worker: &Worker, handle: &Handle) -> Result<(), Error> {
    let random = &worker.world.random;
    let mut content = content_of(random, handle.object);
    let pending = worker.world.oracle.borrow_mut().begin_put(handle, &content);
    if worker.verify && random.once_in(8) && handle.object != Object::Config {
        // Not what its name says. Without verification that would be the client's own fault.
        content.truncate(content.len() / 2);
    }
    let length = random.once_in(2).then_some(content.len() as u64);
    let done = async {
        let mut claim = worker.ledger.claim(handle, length).await.map_err(|_| Error::NoSpace)?;
        let mut upload = worker.store.upload(handle, length, None).await?;
        let is_new = upload.is_new();
        if !is_new {
            claim.give_back();
        }
        let mut received = 0;
        let most = 1 + random.below(20) as usize;
        for piece in content.chunks(most) {
            received += piece.len() as u64;
            if is_new {
                claim.grow_to(received).await.map_err(|_| Error::NoSpace)?;
            }
            let mut buffer = worker.buffers.take().await;
            buffer.append(piece);
            upload.write(buffer).await?;
        }
        if random.once_in(10) {
            // The client goes away.
            return Err(Error::NotFound);
        }
        if upload.folders() > 1 && !worker.world.random.once_in(8) {
            upload.spare_folders();
        }
        let all = worker.ledger.claim_folders(&handle.repo, upload.folders()).await;
        let mut folders = match all {
            Ok(folders) => folders,
            Err(_) => {
                upload.spare_folders();
                let some = worker.ledger.claim_folders(&handle.repo, upload.folders()).await;
                some.map_err(|_| Error::NoSpace)?
            }
        };
        let changing = (worker.ledger.changing(handle), worker.ledger.changing_folders(&handle.repo));
        let changed = |change| match change {
            Change::Folders(count) => folders.made(count),
            Change::Published => claim.published(received),
        };
        let committed = upload.commit(changed).await;
        drop(changing);
        committed
    };
    let done = done.await;
    worker.world.oracle.borrow_mut().end(&pending, done.is_ok());
    done
}

async fn delete(worker: &Worker, handle: &Handle) {
    let pending = worker.world.oracle.borrow_mut().begin_delete(handle);
    let changing = worker.ledger.changing(handle);
    let removed = worker.store.delete(handle, None).await;
    if let Ok(Some(bytes)) = removed {
        changing.removed(bytes);
    }
    drop(changing);
    worker.world.oracle.borrow_mut().end(&pending, removed.is_ok());
}

/// Everything is read back, and what is damaged goes into quarantine.
async fn scrub(worker: &Worker) {
    let mut scrubber = Scrubber::new(worker.disk.clone(), None, DEPTH, None).await;
    while let Ok(Some(checked)) = scrubber.next(|_| Duration::ZERO).await {
        if checked.is_for_quarantine() {
            let handle = checked.place.handle().expect("an object");
            let changing = worker.ledger.changing(&handle);
            if let Ok(Ok(_)) = scrubber.quarantine(&checked, Duration::ZERO, Duration::ZERO).await {
                changing.removed(checked.size);
            }
        }
    }
}

/// Somebody copies an object into the folder, and syncs nothing.
async fn copied_by_others(worker: &Worker, handle: &Handle) {
    let (disk, path) = (&worker.world.disk, layout::object_path(handle));
    let mut dir = disk.root();
    for name in path.parent().expect("below the root") {
        disk.make_dir(&dir, name).await.ok();
        dir = disk.open_file(&dir, Path::new(name)).await.expect("it is there").0;
    }
    let name = path.file_name().expect("a name");
    if disk.stat(&dir, name.as_ref()).await.is_ok() {
        return;
    }
    let mut buffer = worker.buffers.take().await;
    buffer.append(&content_of(&worker.world.random, handle.object));
    worker.world.oracle.borrow_mut().foreign(handle);
    let file = disk.create_unnamed(&dir).await.expect("made");
    disk.write_all_at(&file, buffer, 0).await.0.expect("written");
    disk.link(&file, &dir, name).await.expect("linked");
}
