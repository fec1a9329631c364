//! Settings → parts → threads: the only place that knows them all.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::api::status::{Reloads, Status};
use crate::api::{Live, Rules};
use crate::io::blocking::{Pool, Pools};
use crate::io::dir::Dir;
use crate::io::flush::Flushes;
use crate::io::listener;
use crate::io::runtime::{self, Driver, block_on};
use crate::io::signal::{Caught, Latch, Signal};
use crate::io::state::StateDir;
use crate::io::{Fault, affinity, limits, syscalls};
use crate::logging::access::AccessLog;
use crate::metrics::Counters;
use crate::metrics::blobs::BlobCounters;
use crate::policy::rate::Rates;
use crate::policy::repos::RepoCounts;
use crate::quota::Ledger;
use crate::server::StartError;
use crate::server::balance::Balance;
use crate::server::banner::{self, Facts};
use crate::server::confine::Confined;
use crate::server::control::{self, Commanded, Event};
use crate::server::count::{self, CountRequests};
use crate::server::crowd::Crowd;
use crate::server::door::{Door, MuteProxies};
use crate::server::drain::{Outcome, Supervisor};
use crate::server::folders;
use crate::server::gate::Gates;
use crate::server::listen::Listening;
use crate::server::memory::MemoryPlan;
use crate::server::probe::{Abilities, probe};
use crate::server::reload::{self, Again, Reloader};
use crate::server::rules::{self, Held};
use crate::server::scrub::{self, Scrub};
use crate::server::shard::{Shard, Shared};
use crate::server::warnings;
use crate::server::watch::{self, Watched};
use crate::settings::{IoDriver, Loaded, LogTarget, Settings, Workers};
use crate::store::disk::Disk;
use crate::store::fs::{FsStore, Options};
use crate::store::health::Health;
use crate::store::local::{LocalDisk, Modes};
use crate::store::sweep::sweep;
use crate::types::DirectIo;

/// Threads that write: enough that the journal of a file system has many files to commit at once. And a few that read.
const WRITERS_PER_WORKER: usize = 32;
const MAX_WRITERS: usize = 128;
const READERS_PER_WORKER: usize = 8;
const MAX_READERS: usize = 64;
/// Jobs that may wait for each.
const POOL_QUEUE: usize = 4096;
/// Pages of metrics that may wait to be rendered.
const MAX_PAGES: usize = 16;

/// Runs a server to its end, in a process that can do no more than it needs. `again` reads its settings anew.
///
/// # Errors
/// It could not be started.
pub fn run(loaded: Loaded, confined: Confined, again: Again, caught: Caught) -> Result<Outcome, StartError> {
    let settings = &loaded.settings.clone();
    let Confined { sockets, sandbox, told, warnings } = confined;
    let (events, happened) = listen_for_events(caught)?;
    let Some(data_lock) = folders::hold_data(settings, || is_stop(&happened, &events))? else {
        return Ok(Outcome::Stopped);
    };
    let driver = choose_driver(settings.io_driver)?;
    let workers = workers(&settings.workers)?;
    // Before they are read, so that a change meanwhile is seen.
    let watched = Arc::new(ArcSwap::from_pointee(Watched::of(rules::files(settings))));
    let (rules, held) = first_rules(settings)?;
    let health = Arc::new(Health::new(settings.min_free));
    let (disk, abilities) = open_disk(settings, workers.len(), &health)?;
    let state = folders::hold_state(settings)?;
    let ledger = open_ledger(settings, state.as_ref())?;
    let access_log = open_access_log(settings)?;
    let listeners: Vec<_> = sockets.into_iter().map(|socket| socket.listening(held.tls.as_ref())).collect();
    let shared = share(workers.len(), listeners.len(), settings.balance, access_log.clone());
    let facts = Facts {
        driver,
        workers: workers.len(),
        users: held.passwords.as_ref().map(|passwords| passwords.users()),
        max_connections: shared.gates.connections.limit(),
        max_requests: shared.gates.requests.limit(),
        abilities: &abilities,
        volatile: disk.root().is_volatile(),
        listeners: &listeners,
        told,
        warnings,
    };
    banner::print(settings, &facts);
    let counters: Vec<Arc<Counters>> = workers.iter().map(|_| Arc::default()).collect();
    let status = status(&counters, &health, &ledger, &held, &shared, abilities.cannot_store)?;
    let counts = CountRequests::new(!rules::quotas(settings).is_empty());
    listen_for_commands(state.as_ref(), (&health, &shared.stopping, &counts, &events));
    start_scrub(settings, state.as_ref(), &status)?;
    folders::watch_place(disk.root().place(), Arc::clone(&health)).map_err(no_thread)?;
    let parts = Parts {
        driver,
        disk,
        options: options(settings, abilities.unnamed_temps),
        health,
        rules: Arc::clone(&rules),
        ledger: Arc::clone(&ledger),
        rates: Arc::default(),
        repos: Arc::default(),
        status: Arc::clone(&status),
        counts: Arc::clone(&counts),
        shared_folder: settings.shared_folder,
        max_folder_depth: settings.max_folder_depth,
        buffers: shared.gates.memory.buffers(workers.len()),
        sendfile: settings.sendfile,
        drain: settings.drain,
        shared: Arc::clone(&shared),
        events: events.clone(),
    };
    start(&parts, &workers, &listeners)?;
    watch::start(Arc::clone(&watched), Arc::clone(&status), events).map_err(no_thread)?;
    let (kept, drain) = (Arc::clone(&ledger), settings.drain);
    let reloader =
        Reloader { loaded, again, held, rules, watched, ledger, access_log, counts, sandbox, status };
    let reloads = reload::start(reloader).map_err(no_thread)?;
    let supervisor =
        Supervisor { happened, listeners, shared, counters, reloads, drain, ledger: kept, data_lock };
    Ok(supervisor.run(settings.sandbox))
}

/// Whether a stop has come. What else has come waits on.
fn is_stop(happened: &Receiver<Event>, events: &Sender<Event>) -> bool {
    let (stops, others): (Vec<_>, Vec<_>) =
        happened.try_iter().partition(|event| matches!(event, Event::Signal(Signal::Stop)));
    for event in others {
        // Both ends are this process's.
        events.send(event).ok();
    }
    !stops.is_empty()
}

const fn no_thread(cause: io::Error) -> StartError {
    StartError::System { step: "start threads", cause }
}

fn listen_for_events(caught: Caught) -> Result<(Sender<Event>, Receiver<Event>), StartError> {
    let (events, happened) = unbounded();
    control::listen_for_signals(caught, events.clone())
        .map_err(|cause| StartError::System { step: "listen for signals", cause })?;
    if !syscalls::found().openat2 {
        return Err(StartError::NoOpenat2(io::Error::other("a system call filter forbids it")));
    }
    Ok((events, happened))
}

/// What the workers share.
fn share(workers: usize, listeners: usize, balance: bool, access_log: Option<Arc<AccessLog>>) -> Arc<Shared> {
    let gates = Gates::for_descriptors(workers, 2 * workers * listeners);
    Arc::new(Shared {
        stopping: Arc::default(),
        crowd: Arc::new(Crowd::new(gates.memory.newcomers)),
        gates,
        mute_proxies: MuteProxies::default(),
        balance: Arc::new(Balance::new(workers, balance)),
        access_log,
    })
}

/// Takes commands of the operator, if there is a state folder for the socket, and its disk takes sockets.
fn listen_for_commands(
    state: Option<&StateDir>,
    (health, stopping, counts, events): (&Arc<Health>, &Arc<Latch>, &Arc<CountRequests>, &Sender<Event>),
) {
    let Some(state) = state else { return };
    let commanded = Commanded {
        health: Arc::clone(health),
        stopping: Arc::clone(stopping),
        counts: Arc::clone(counts),
        events: events.clone(),
    };
    if let Err(e) = control::listen_for_commands(state.path(), commanded) {
        log::warn!(
            "{}: no control socket can be made here: {e}: `packhouse reload`, `repo resume` and `repo recount` do not reach this server; SIGHUP and a restart do the same",
            state.path().display()
        );
    }
}

fn status(
    counters: &[Arc<Counters>],
    health: &Arc<Health>,
    ledger: &Arc<Ledger>,
    held: &Held,
    shared: &Shared,
    cannot_store: Option<io::Error>,
) -> Result<Arc<Status>, StartError> {
    Ok(Arc::new(Status {
        workers: counters.to_vec(),
        blobs: counters.iter().map(|_| Arc::default()).collect(),
        rows: Arc::default(),
        health: Arc::clone(health),
        ledger: Arc::clone(ledger),
        logins: Arc::clone(&held.logins),
        scrub: Arc::default(),
        stopping: Arc::clone(&shared.stopping),
        tls: held.tls.clone(),
        reloads: Reloads::default(),
        cannot_store: cannot_store.map(|e| e.to_string()),
        pages: Pool::low_priority("pages", 1, MAX_PAGES).map_err(no_thread)?,
        disk_look: Mutex::default(),
    }))
}

fn first_rules(settings: &Settings) -> Result<(Arc<ArcSwap<Rules>>, Held), StartError> {
    let prepared = rules::prepare(settings).map_err(StartError::Files)?;
    for warning in prepared.warnings() {
        log::warn!("{warning}");
    }
    for problem in prepared.expired() {
        log::error!("{problem}");
    }
    let mut held = Held::default();
    let rules =
        prepared.take(&mut held).map_err(|cause| StartError::System { step: "start threads", cause })?;
    Ok((Arc::new(ArcSwap::from_pointee(rules)), held))
}

fn open_ledger(settings: &Settings, state: Option<&StateDir>) -> Result<Arc<Ledger>, StartError> {
    let limits = rules::quotas(settings);
    if !limits.is_empty() && state.is_none() {
        log::warn!(
            "without a state folder of its own this server counts what is stored anew at every start, and knows nothing of what others store"
        );
    }
    let failed = |cause| StartError::System { step: "start threads", cause };
    let ledger = match Ledger::open(limits.clone(), state.map(StateDir::path)) {
        Err(e) if state.is_some() => {
            log::warn!(
                "{}: the journal of the quota can't be used: {e}: going on without it, what is stored is counted anew at every start. Remove the file `quota` there, or give this user the right to",
                settings.state_dir.display()
            );
            Ledger::open(limits, None).map_err(failed)?
        }
        opened => opened.map_err(failed)?,
    };
    Ok(Arc::new(ledger))
}

/// One process verifies what is stored: the one that holds the state folder.
fn start_scrub(settings: &Settings, state: Option<&StateDir>, status: &Status) -> Result<(), StartError> {
    if settings.scrub_period.is_zero() {
        return Ok(());
    }
    let Some(state) = state else {
        log::warn!("without a state folder of its own this server does not verify what is stored");
        return Ok(());
    };
    let scrub = Scrub {
        path: settings.path.clone(),
        depth: settings.max_folder_depth,
        state_dir: state.path().into(),
        period: settings.scrub_period,
        alone: !settings.shared_folder,
        quarantine: settings.scrub_quarantine,
        health: Arc::clone(&status.health),
        ledger: Arc::clone(&status.ledger),
        counters: Arc::clone(&status.scrub),
    };
    scrub::start(scrub).map_err(|cause| StartError::System { step: "start threads", cause })
}

fn open_access_log(settings: &Settings) -> Result<Option<Arc<AccessLog>>, StartError> {
    let path = match &settings.access_log {
        None => return Ok(None),
        Some(LogTarget::Stdout) => None,
        Some(LogTarget::File(path)) => Some(path.as_path()),
    };
    let opened = AccessLog::open(path);
    let log =
        opened.map_err(|cause| StartError::Log { path: path.unwrap_or(Path::new("-")).into(), cause })?;
    Ok(Some(Arc::new(log)))
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
pub(super) fn workers(wanted: &Workers) -> Result<Vec<Option<usize>>, StartError> {
    match wanted {
        // Each has buffers of its own, of which a small container has no room for many.
        Workers::Auto => {
            Ok(vec![None; affinity::available().min(MemoryPlan::most_workers(limits::memory_limit()))])
        }
        Workers::Count(count) => Ok(vec![None; *count]),
        Workers::Pinned(_) if !syscalls::found().pin => Err(StartError::NoPinning),
        Workers::Pinned(cpus) => {
            let forbidden = affinity::first_forbidden(cpus)
                .map_err(|cause| StartError::System { step: "ask for the processors", cause })?;
            forbidden
                .map_or_else(|| Ok(cpus.iter().copied().map(Some).collect()), |cpu| Err(StartError::Cpu(cpu)))
        }
    }
}

fn options(settings: &Settings, unnamed_temps: bool) -> Options {
    let Settings { verify, hash_lanes, group_commit, .. } = *settings;
    Options { verify, hash_lanes, group_commit, unnamed_temps }
}

fn open_disk(
    settings: &Settings,
    workers: usize,
    health: &Health,
) -> Result<(LocalDisk, Abilities), StartError> {
    let readers = (READERS_PER_WORKER * workers).min(MAX_READERS);
    let writers = (WRITERS_PER_WORKER * workers).min(MAX_WRITERS);
    let pools = Pools::new(readers, writers, POOL_QUEUE).map_err(no_thread)?;
    let flushes = Flushes::new(settings.require_durable);
    let root = Dir::open_root(&settings.path, Arc::new(pools), flushes, !settings.shared_folder)
        .map_err(|cause| StartError::DataFolder { path: settings.path.clone(), cause })?;
    let abilities = probe(&root, settings.direct_io);
    if let Some(why) = not_durable(&root).filter(|_| settings.require_durable) {
        return Err(StartError::NotDurable { path: settings.path.clone(), why });
    }
    let lacks_renames = |e: &io::Error| Fault::of(e) == Fault::Unsupported;
    if settings.shared_folder && abilities.cannot_store.as_ref().is_some_and(lacks_renames) {
        return Err(StartError::NotShareable(settings.path.clone()));
    }
    if let Some(e) = &abilities.failed_flush {
        health.note_flush(e);
    }
    let modes = if settings.group_accessible { Modes::GROUP } else { Modes::PRIVATE };
    // Another file system below the folder is asked anew, file by file.
    let direct = if abilities.direct_io { DirectIo::On } else { settings.direct_io };
    Ok((LocalDisk::new(root, modes, direct), abilities))
}

/// Why nothing is durable below a folder, if so.
fn not_durable(root: &Dir) -> Option<&'static str> {
    if root.is_volatile() {
        return Some("is in memory (tmpfs)");
    }
    root.lacks_flushes().then_some("lies on a disk that can't flush")
}

/// What a worker is made of.
#[derive(Clone)]
struct Parts {
    driver: Driver,
    disk: LocalDisk,
    options: Options,
    health: Arc<Health>,
    rules: Arc<ArcSwap<Rules>>,
    ledger: Arc<Ledger>,
    rates: Arc<Rates>,
    repos: Arc<RepoCounts>,
    status: Arc<Status>,
    counts: Arc<CountRequests>,
    shared_folder: bool,
    max_folder_depth: usize,
    buffers: usize,
    sendfile: bool,
    drain: Duration,
    shared: Arc<Shared>,
    events: Sender<Event>,
}

fn start(parts: &Parts, workers: &[Option<usize>], listeners: &[Listening]) -> Result<(), StartError> {
    for (number, cpu) in workers.iter().copied().enumerate() {
        let parts = parts.clone();
        let share = |l: &Listening| Ok((l.listener.share()?, l.door.clone()));
        let sockets: io::Result<Vec<_>> = listeners.iter().map(share).collect();
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
async fn work(parts: Parts, sockets: Vec<(listener::Shared, Door)>, number: usize) -> io::Error {
    let disk = parts.disk;
    if number == 0 {
        let swept = disk.clone();
        runtime::spawn(async move {
            let report = sweep(&swept, parts.max_folder_depth, None).await;
            log::debug!("the walk after the start has ended: {report:?}");
        });
        let rules = Arc::clone(&parts.rules);
        runtime::spawn(warnings::tell_unruled(disk.clone(), rules, parts.max_folder_depth));
        let (ledger, counts) = (Arc::clone(&parts.ledger), Arc::clone(&parts.counts));
        let shared = parts.shared_folder;
        runtime::spawn(count::serve(disk.clone(), ledger, counts, parts.max_folder_depth, shared));
    }
    let store = FsStore::new(disk, parts.options, parts.health);
    let blobs = parts.status.blobs.get(number).map(Arc::clone).unwrap_or_default();
    let live = Live {
        store,
        rules: parts.rules,
        ledger: parts.ledger,
        rates: parts.rates,
        repos: parts.repos,
        counters: parts.status.workers.get(number).map(Arc::clone).unwrap_or_default(),
        blobs: Rc::new(BlobCounters::new(blobs, Arc::clone(&parts.status.rows))),
        status: parts.status,
        requests: Arc::clone(&parts.shared.gates.requests),
        parties: Rc::default(),
        lists: Arc::clone(&parts.shared.gates.lists),
        list_parties: Rc::default(),
        max_folder_depth: parts.max_folder_depth,
    };
    let mut shard = Shard::new(live, number, parts.buffers, parts.shared, random_prefix());
    shard.sendfile = parts.sendfile;
    let shard = Rc::new(shard);
    parts.events.send(Event::Ready).ok();
    match shard.run(sockets, parts.drain).await {
        Ok(left) => {
            parts.events.send(Event::Drained(left)).ok();
            std::future::pending().await
        }
        Err(e) => e,
    }
}
