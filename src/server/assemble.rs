//! Settings → parts → threads: the only place that knows them all.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Sender, unbounded};

use crate::api::Live;
use crate::auth::Authenticator;
use crate::http::Limits;
use crate::io::blocking::Pool;
use crate::io::buffer::BUFFER_BYTES;
use crate::io::dir::Dir;
use crate::io::listener::{self, Listener};
use crate::io::runtime::{self, Driver, block_on};
use crate::io::signal::Flag;
use crate::io::state::StateDir;
use crate::io::{Fault, affinity, limits};
use crate::metrics::Counters;
use crate::policy::Policy;
use crate::server::StartError;
use crate::server::banner::{self, Facts};
use crate::server::control::{self, Event};
use crate::server::drain::{Outcome, Watch};
use crate::server::gate::Gate;
use crate::server::shard::{Shard, Shared};
use crate::settings::{IoDriver, Settings, Timeouts, Workers};
use crate::store::fs::{FsStore, Options};
use crate::store::health::Health;
use crate::store::local::{LocalDisk, Modes};
use crate::store::sweep::sweep;

/// Transfer buffers of all workers together take at most this much memory in each direction.
const TRANSFER_BYTES: usize = 16 << 20;
/// A worker has at least so many buffers in each direction.
const MIN_BUFFERS: usize = 8;
/// Threads of the blocking pool: enough to keep a disk's queue filled.
const POOL_THREADS_PER_WORKER: usize = 8;
const MAX_POOL_THREADS: usize = 64;
/// Jobs that may wait for the blocking pool.
const POOL_QUEUE: usize = 4096;

/// Runs a server to its end.
///
/// # Errors
/// It could not be started.
pub fn run(settings: &Settings) -> Result<Outcome, StartError> {
    limits::set_umask(settings.group_accessible);
    let (events, happened) = unbounded();
    control::listen_for_signals(events.clone())
        .map_err(|cause| StartError::System { step: "listen for signals", cause })?;
    let driver = choose_driver(settings.io_driver)?;
    let workers = workers(&settings.workers)?;
    let auth = authenticator(settings)?;
    let disk = open_disk(settings, workers.len())?;
    let unnamed_temps = probe(&disk.root);
    let health = Arc::new(Health::new(settings.min_free));
    let _state = hold_state(settings, &health)?;
    let listeners = bind(settings)?;
    let gate = Arc::new(Gate::for_descriptors(workers.len(), 2 * workers.len() * listeners.len()));
    let shared = Arc::new(Shared { stopping: Flag::default(), gate, counters: Counters::default() });
    let facts = Facts {
        driver,
        workers: workers.len(),
        users: auth.as_ref().map(|auth| auth.users()),
        max_connections: shared.gate.limit(),
        unnamed_temps,
        volatile: disk.root.is_volatile(),
        listeners: &listeners,
    };
    banner::print(settings, &facts);
    let parts = Parts {
        driver,
        disk,
        options: Options { verify: settings.verify, unnamed_temps },
        health,
        auth: auth.clone(),
        policy: Policy { append_only: settings.append_only },
        max_folder_depth: settings.max_folder_depth,
        limits: limits_of(&settings.timeouts),
        buffers: (TRANSFER_BYTES / BUFFER_BYTES / workers.len()).max(MIN_BUFFERS),
        drain: settings.drain,
        shared: Arc::clone(&shared),
        events,
    };
    start(&parts, &workers, &listeners)?;
    let watch = Watch { happened, workers: workers.len(), listeners, shared, auth, drain: settings.drain };
    Ok(watch.until_the_end())
}

fn choose_driver(wanted: IoDriver) -> Result<Driver, StartError> {
    match (wanted, runtime::probe_uring()) {
        (IoDriver::Epoll, _) => Ok(Driver::Epoll),
        (_, Ok(())) => Ok(Driver::Uring),
        (IoDriver::Uring, Err(e)) => Err(e.into()),
        (IoDriver::Auto, Err(e)) => {
            log::warn!("{e} Running on epoll instead, with file work on threads: slower, and just as safe.");
            Ok(Driver::Epoll)
        }
    }
}

/// The processor each worker is pinned to, if any.
fn workers(wanted: &Workers) -> Result<Vec<Option<usize>>, StartError> {
    match wanted {
        Workers::Auto => Ok(vec![None; affinity::available()]),
        Workers::Count(count) => Ok(vec![None; *count]),
        Workers::Pinned(cpus) => {
            let forbidden = affinity::first_forbidden(cpus)
                .map_err(|cause| StartError::System { step: "ask for the processors", cause })?;
            forbidden
                .map_or_else(|| Ok(cpus.iter().copied().map(Some).collect()), |cpu| Err(StartError::Cpu(cpu)))
        }
    }
}

fn authenticator(settings: &Settings) -> Result<Option<Arc<Authenticator>>, StartError> {
    let Some(file) = &settings.htpasswd else { return Ok(None) };
    let auth = Authenticator::open(file)?;
    if auth.users() == 0 { Err(StartError::NoUsers(file.clone())) } else { Ok(Some(Arc::new(auth))) }
}

/// What every worker makes its own disk of.
#[derive(Clone)]
struct SharedDisk {
    root: Dir,
    modes: Modes,
}

fn open_disk(settings: &Settings, workers: usize) -> Result<SharedDisk, StartError> {
    let failed = |cause| StartError::DataFolder { path: settings.path.clone(), cause };
    let modes = if settings.group_accessible { Modes::GROUP } else { Modes::PRIVATE };
    if !settings.path.exists() {
        make_durably(&settings.path, modes).map_err(failed)?;
        log::info!("made the data folder {}", settings.path.display());
    }
    let threads = (POOL_THREADS_PER_WORKER * workers).min(MAX_POOL_THREADS);
    let pool = Pool::new("blocking", threads, POOL_QUEUE)
        .map_err(|cause| StartError::System { step: "start threads", cause })?;
    let root = Dir::open_root(&settings.path, Arc::new(pool)).map_err(failed)?;
    Ok(SharedDisk { root, modes })
}

/// Makes a folder and its parents as far as they are missing, and flushes their names.
fn make_durably(path: &Path, modes: Modes) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing = path.ancestors().take_while(|folder| !folder.exists()).count();
    std::fs::DirBuilder::new().recursive(true).mode(modes.dir).create(&path)?;
    for parent in path.ancestors().skip(1).take(missing) {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Whether a file without a name can be made and linked in the data folder.
fn probe(root: &Dir) -> bool {
    let name = format!(".packhouse-probe-{:016x}", runtime::random());
    let attempt = async {
        let file = root.create_unnamed(0o600).await?;
        root.link(&file, OsStr::new(&name)).await?;
        root.unlink(OsStr::new(&name)).await
    };
    match block_on(Driver::Epoll, attempt) {
        Ok(Ok(())) => true,
        // A disk that is full or read-only now says nothing about what the file system can.
        Ok(Err(e)) => matches!(Fault::of(&e), Fault::ReadOnly | Fault::NoSpace),
        Err(_) => false,
    }
}

fn hold_state(settings: &Settings, health: &Arc<Health>) -> Result<Option<StateDir>, StartError> {
    let failed = |cause| StartError::StateFolder { path: settings.state_dir.clone(), cause };
    let state = match StateDir::acquire(&settings.state_dir) {
        Err(e) if Fault::of(&e) == Fault::ReadOnly => {
            log::warn!("{}: read-only: running without a state folder", settings.state_dir.display());
            return Ok(None);
        }
        other => other.map_err(failed)?,
    };
    match &state {
        Some(state) => control::listen_for_commands(state.path(), Arc::clone(health)).map_err(failed)?,
        None => log::warn!(
            "{}: another packhouse holds this folder: running without one",
            settings.state_dir.display()
        ),
    }
    Ok(state)
}

fn bind(settings: &Settings) -> Result<Vec<Listener>, StartError> {
    let one = |address| {
        Listener::bind(address).map_err(|cause| StartError::Listen { address: Clone::clone(address), cause })
    };
    settings.listen.iter().map(one).collect()
}

const fn limits_of(timeouts: &Timeouts) -> Limits {
    let Timeouts { head, idle, stall, min_rate, grace } = *timeouts;
    Limits { head, idle, stall, min_rate, grace }
}

/// What a worker is made of.
#[derive(Clone)]
struct Parts {
    driver: Driver,
    disk: SharedDisk,
    options: Options,
    health: Arc<Health>,
    auth: Option<Arc<Authenticator>>,
    policy: Policy,
    max_folder_depth: usize,
    limits: Limits,
    buffers: usize,
    drain: Duration,
    shared: Arc<Shared>,
    events: Sender<Event>,
}

fn start(parts: &Parts, workers: &[Option<usize>], listeners: &[Listener]) -> Result<(), StartError> {
    for (number, cpu) in workers.iter().copied().enumerate() {
        let parts = parts.clone();
        let sockets: io::Result<Vec<_>> = listeners.iter().map(Listener::share).collect();
        let sockets = sockets.map_err(|cause| StartError::System { step: "share a socket", cause })?;
        let body = move || {
            // Should the worker panic, the process must hear of it.
            let _alarm = Alarm(parts.events.clone());
            let ran = cpu
                .map_or(Ok(()), affinity::pin)
                .and_then(|()| block_on(parts.driver, work(parts.clone(), sockets, number)));
            let why = ran.map_or_else(|e| e.to_string(), |e: io::Error| e.to_string());
            parts.events.send(Event::Failed(why)).ok();
        };
        let started = thread::Builder::new().name(format!("worker-{number}")).spawn(body);
        started.map_err(|cause| StartError::System { step: "start a worker", cause })?;
    }
    Ok(())
}

struct Alarm(Sender<Event>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send(Event::Failed("it panicked".into())).ok();
        }
    }
}

/// Tells this process's request ids from those of another.
fn random_prefix() -> u32 {
    let [a, b, c, d, ..] = runtime::random().to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// One worker. Returns only if it fails: the runtime must not end before the process does (see `block_on`).
async fn work(parts: Parts, sockets: Vec<listener::Shared>, number: usize) -> io::Error {
    let disk = LocalDisk::new(parts.disk.root, parts.disk.modes);
    if number == 0 {
        let disk = disk.clone();
        runtime::spawn(async move {
            let report = sweep(&disk, parts.max_folder_depth).await;
            log::debug!("the walk after the start has ended: {report:?}");
        });
    }
    let store = FsStore::new(disk, parts.options, parts.health);
    let live =
        Live { store, auth: parts.auth, policy: parts.policy, max_folder_depth: parts.max_folder_depth };
    let shard = Rc::new(Shard::new(live, parts.limits, parts.buffers, parts.shared, random_prefix()));
    parts.events.send(Event::Ready).ok();
    match shard.run(sockets, parts.drain).await {
        Ok(left) => {
            parts.events.send(Event::Drained(left)).ok();
            std::future::pending().await
        }
        Err(e) => e,
    }
}
