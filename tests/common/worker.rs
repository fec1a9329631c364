//! A worker in a thread of this process, on a model disk that fails on demand: for tests of faults and for fuzzing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use packhouse::api::rules::{MetricsFor, ObjectSizes};
use packhouse::api::status::Status;
use packhouse::api::{Live, Rules};
use packhouse::auth::Authenticator;
use packhouse::hash::Sha256;
use packhouse::io::listener::Listener;
use packhouse::io::runtime::{Driver, block_on, sleep};
use packhouse::metrics::Counters;
use packhouse::policy::Policy;
use packhouse::policy::rate::Allowances;
use packhouse::quota::{self, Ledger};
use packhouse::server::balance::Balance;
use packhouse::server::crowd::Crowd;
use packhouse::server::door::Door;
use packhouse::server::gate::Gates;
use packhouse::server::shard::{Shard, Shared};
use packhouse::store::faulty::{Faults, FaultyDisk};
use packhouse::store::fs::{FsStore, Options};
use packhouse::store::health::Health;
use packhouse::store::model::ModelDisk;
use packhouse::types::{BlobId, ListenAddress, Timeouts};

/// Nobody logs in and everybody may do everything.
fn rules() -> Rules {
    const MIB: u64 = 1 << 20;
    Rules {
        auth: Authenticator::Nobody,
        policy: Policy::default(),
        trusted: Vec::new(),
        client_header: None,
        proxy_protocol: false,
        sizes: ObjectSizes { config: MIB, key: MIB, lock: MIB, index: MIB, data: MIB },
        allowances: Allowances::default(),
        max_connections: None,
        metrics: MetricsFor::Nobody,
        hsts: None,
        limits: Timeouts::default(),
    }
}

/// A worker in a thread of this process, on a model disk.
pub struct Worker {
    pub address: String,
    pub faults: Faults,
    pub health: Arc<Health>,
    pub shared: Arc<Shared>,
    pub counters: Arc<Counters>,
    thread: Option<std::thread::JoinHandle<usize>>,
    /// A unix socket's file goes with it.
    _listener: Listener,
}

impl Worker {
    pub fn start(listen: &ListenAddress) -> Self {
        let faults = Faults::default();
        let health = Arc::new(Health::new(None));
        let gates = Gates::for_descriptors(1, 4);
        let (requests, lists) = (Arc::clone(&gates.requests), Arc::clone(&gates.lists));
        let shared = Arc::new(Shared {
            stopping: Arc::default(),
            crowd: Arc::new(Crowd::new(gates.memory.newcomers)),
            gates,
            mute_proxies: packhouse::server::door::MuteProxies::default(),
            balance: Arc::new(Balance::new(1, true)),
            access_log: None,
        });
        let counters = Arc::new(Counters::default());
        let listener = Listener::bind(listen, 0o700).unwrap();
        let (address, socket) = (listener.address(), listener.share().unwrap());
        let parts = (faults.clone(), Arc::clone(&health), Arc::clone(&shared), Arc::clone(&counters));
        let thread = std::thread::spawn(move || {
            let (faults, health, shared, counters) = parts;
            let work = async {
                let model = ModelDisk::default();
                model.make_repo("r1").await.unwrap();
                let disk = FaultyDisk::new(model.clone(), faults);
                let options =
                    Options { verify: true, hash_lanes: true, group_commit: true, unnamed_temps: true };
                let ledger = Arc::new(Ledger::open(quota::Limits::default(), None).unwrap());
                let status = Status {
                    workers: vec![Arc::clone(&counters)],
                    blobs: Vec::new(),
                    rows: Default::default(),
                    pages: packhouse::io::blocking::Pool::new("pages", 0, 16).unwrap(),
                    health: Arc::clone(&health),
                    ledger: Arc::clone(&ledger),
                    logins: Arc::default(),
                    scrub: Arc::default(),
                    stopping: Arc::clone(&shared.stopping),
                    tls: None,
                    reloads: packhouse::api::status::Reloads::default(),
                    cannot_store: None,
                    disk_look: Default::default(),
                };
                let live = Live {
                    store: FsStore::new(disk, options, health),
                    rules: Arc::new(ArcSwap::from_pointee(rules())),
                    ledger,
                    rates: Arc::default(),
                    repos: Arc::default(),
                    counters,
                    blobs: Rc::default(),
                    status: Arc::new(status),
                    requests,
                    parties: Rc::default(),
                    lists,
                    list_parties: Rc::default(),
                    max_folder_depth: 2,
                };
                let shard = Rc::new(Shard::new(live, 0, 8, shared, 0));
                let door = Door { admin: false, tls: None };
                let left = shard.run(vec![(socket, door)], Duration::from_secs(5)).await.unwrap();
                // A task that has not ended when its runtime does stays in memory, with all that it knows.
                sleep(Duration::from_millis(10)).await;
                assert_is_right(&model);
                left
            };
            block_on(Driver::Epoll, work).unwrap()
        });
        Self { address, faults, health, shared, counters, thread: Some(thread), _listener: listener }
    }
}

/// Whatever came, what is stored is what its name says.
fn assert_is_right(disk: &ModelDisk) {
    for (path, content) in disk.contents() {
        let name = path.rsplit('/').next().unwrap_or_default();
        if let Some(id) = BlobId::parse(name.as_bytes()) {
            assert_eq!(&Sha256::of(&content), id.digest(), "{path}");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stopping.raise();
        let left = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            assert_eq!(left.unwrap(), 0, "no connection was left");
        }
    }
}
