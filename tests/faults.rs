//! One worker over a disk that fails on demand, spoken to over TCP: what a failing disk, and a bug, do to clients.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

mod common;

use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use common::{Conn, Response, id_of};
use packhouse::api::rules::{MetricsFor, ObjectSizes};
use packhouse::api::status::Status;
use packhouse::api::{Live, Rules};
use packhouse::auth::Authenticator;
use packhouse::io::Fault;
use packhouse::io::listener::Listener;
use packhouse::io::runtime::{Driver, block_on};
use packhouse::metrics::Counters;
use packhouse::policy::Policy;
use packhouse::policy::rate::Allowances;
use packhouse::quota::{self, Ledger};
use packhouse::server::balance::Balance;
use packhouse::server::door::Door;
use packhouse::server::gate::Gate;
use packhouse::server::shard::{Shard, Shared};
use packhouse::store::faulty::{Faults, FaultyDisk, Op};
use packhouse::store::fs::{FsStore, Options};
use packhouse::store::health::Health;
use packhouse::store::model::ModelDisk;
use packhouse::types::Timeouts;

/// Nobody logs in and everybody may do everything.
fn rules() -> Rules {
    const MIB: u64 = 1 << 20;
    Rules {
        auth: Authenticator::Nobody,
        policy: Policy::default(),
        trusted: Vec::new(),
        proxy_protocol: false,
        sizes: ObjectSizes { config: MIB, key: MIB, index: MIB, data: MIB },
        allowances: Allowances::default(),
        max_connections: None,
        metrics: MetricsFor::Nobody,
        hsts: None,
        limits: Timeouts::default(),
    }
}

/// A worker in a thread of this process, on a model disk.
struct Worker {
    address: String,
    faults: Faults,
    health: Arc<Health>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Worker {
    fn start() -> Self {
        let faults = Faults::default();
        let health = Arc::new(Health::new(None));
        let gate = Arc::new(Gate::for_descriptors(1, 4));
        let shared = Arc::new(Shared {
            stopping: Arc::default(),
            gate,
            crowd: Arc::default(),
            balance: Arc::new(Balance::new(1, true)),
            access_log: None,
        });
        let counters = Arc::new(Counters::default());
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), None).unwrap();
        let (address, socket) = (listener.address(), listener.share().unwrap());
        let parts = (faults.clone(), Arc::clone(&health), Arc::clone(&shared), Arc::clone(&counters));
        let thread = std::thread::spawn(move || {
            let (faults, health, shared, counters) = parts;
            let work = async {
                let disk = FaultyDisk::new(ModelDisk::default(), faults);
                let options =
                    Options { verify: true, hash_lanes: true, group_commit: true, unnamed_temps: true };
                let ledger = Arc::new(Ledger::open(quota::Limits::default(), None).unwrap());
                let status = Status {
                    workers: vec![Arc::clone(&counters)],
                    blobs: Vec::new(),
                    health: Arc::clone(&health),
                    ledger: Arc::clone(&ledger),
                    logins: Arc::default(),
                    scrub: Arc::default(),
                    stopping: Arc::clone(&shared.stopping),
                    tls: None,
                };
                let live = Live {
                    store: FsStore::new(disk, options, health),
                    rules: Arc::new(ArcSwap::from_pointee(rules())),
                    ledger,
                    rates: Arc::default(),
                    counters,
                    blobs: Rc::default(),
                    status: Arc::new(status),
                    max_folder_depth: 2,
                };
                let shard = Rc::new(Shard::new(live, 0, 8, shared, 0));
                let door = Door { admin: false, tls: None };
                shard.run(vec![(socket, door)], Duration::from_secs(5)).await.unwrap()
            };
            block_on(Driver::Epoll, work).unwrap()
        });
        Self { address, faults, health, shared, counters, thread: Some(thread) }
    }

    fn connect(&self) -> Conn {
        Conn::new(TcpStream::connect(&self.address).unwrap())
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> Response {
        self.connect().request(method, path, "", body)
    }

    fn put(&self, kind: &str, body: &[u8]) -> Response {
        self.request("POST", &format!("/r1/{kind}/{}", id_of(body)), body)
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

#[test]
fn a_failed_flush_is_500_then_507_for_writes_503_for_deletes_and_reads_go_on() {
    let worker = Worker::start();
    assert_eq!(worker.put("keys", b"key").status, 200);
    let path = format!("/r1/keys/{}", id_of(b"key"));
    worker.faults.fail(Some((Op::SyncData, Fault::Device)));
    let failed = worker.put("data", b"x");
    assert_eq!((failed.status, failed.text().as_str()), (500, "Internal Server Error\n"));
    worker.faults.fail(None);
    for _ in 0..2 {
        assert_eq!(worker.put("data", b"x").status, 507);
        assert_eq!(worker.put("locks", b"x").status, 507);
        assert_eq!(worker.request("POST", "/r2/?create=true", b"").status, 507);
        let deleted = worker.request("DELETE", &path, b"");
        assert_eq!((deleted.status, deleted.header("retry-after")), (503, "5"));
        assert_eq!(worker.request("GET", &path, b"").body, b"key");
        assert_eq!(worker.request("GET", "/r1/keys/", b"").names(), [id_of(b"key")]);
    }
    assert!(worker.health.resume());
    assert_eq!(worker.put("data", b"x").status, 200);
    assert_eq!(worker.request("DELETE", &path, b"").status, 200);
}

#[test]
fn every_fault_has_its_status() {
    let worker = Worker::start();
    assert_eq!(worker.put("keys", b"key").status, 200);
    let get = format!("/r1/keys/{}", id_of(b"key"));
    for (op, fault, put, read) in [
        (Op::Create, Fault::NoSpace, 507, 200),
        (Op::Write, Fault::NoSpace, 507, 200),
        (Op::SyncDir, Fault::NoSpace, 507, 200),
        (Op::Publish, Fault::NoSpace, 507, 200),
        (Op::Write, Fault::Device, 500, 200),
        (Op::Create, Fault::NoDescriptors, 503, 200),
        (Op::Open, Fault::NoDescriptors, 503, 503),
        (Op::Open, Fault::Busy, 503, 503),
        (Op::Open, Fault::Symlink, 403, 403),
        (Op::Open, Fault::Denied, 500, 500),
        (Op::Open, Fault::Device, 500, 500),
    ] {
        worker.faults.fail(Some((op, fault)));
        let stored = worker.put("data", format!("{op:?} {fault:?}").as_bytes());
        assert_eq!(stored.status, put, "{op:?} {fault:?}");
        assert_eq!(stored.header("retry-after").is_empty(), put != 503);
        assert_eq!(worker.request("GET", &get, b"").status, read, "{op:?} {fault:?}");
        worker.faults.fail(None);
    }
    assert_eq!(worker.put("data", b"another").status, 200);
}

#[test]
fn a_list_that_fails_midway_has_no_end() {
    let worker = Worker::start();
    for n in 0..3000_u32 {
        assert_eq!(worker.put("keys", &n.to_le_bytes()).status, 200);
    }
    worker.faults.take_calls();
    assert_eq!(worker.request("GET", "/r1/keys/", b"").names().len(), 3000);
    let reads = worker.faults.take_calls().iter().filter(|op| **op == Op::ReadDir).count();
    assert!(reads > 3, "the list comes in pages");
    // Nothing was sent yet: 500.
    worker.faults.fail(Some((Op::ReadDir, Fault::Device)));
    assert_eq!(worker.request("GET", "/r1/keys/", b"").status, 500);
    // Something was: the connection ends without the end of the list.
    worker.faults.fail_after(Op::ReadDir, reads - 1);
    let mut conn = worker.connect();
    conn.send("GET /r1/keys/ HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(conn.try_response_to("GET").is_none(), "no whole response");
    worker.faults.fail(None);
    assert_eq!(worker.request("GET", "/r1/keys/", b"").names().len(), 3000);
}

#[test]
fn a_read_that_fails_midway_cuts_the_connection() {
    let worker = Worker::start();
    let body = common::noise(1 << 20, 1);
    assert_eq!(worker.put("data", &body).status, 200);
    worker.faults.fail_after(Op::Read, 3);
    let mut conn = worker.connect();
    conn.send(format!("GET /r1/data/{} HTTP/1.1\r\nHost: h\r\n\r\n", id_of(&body)));
    assert!(conn.try_response_to("GET").is_none(), "no whole response");
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    let worker = Worker::start();
    let mut other = worker.connect();
    assert_eq!(other.request("GET", "/r1/config", "", b"").status, 404);
    worker.faults.panic_once(Op::Create);
    let mut conn = worker.connect();
    conn.send(format!("POST /r1/keys/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nkey", id_of(b"key")));
    assert!(conn.try_response_to("POST").is_none(), "the connection ends");
    assert_eq!(other.request("GET", "/r1/config", "", b"").status, 404);
    assert_eq!(worker.put("keys", b"key").status, 200);
    assert_eq!(worker.counters.panics.get(), 1);
    // Also while others wait for the same directory sync.
    worker.faults.panic_once(Op::SyncDir);
    let key = format!("/r1/keys/{}", id_of(b"key"));
    assert_eq!(other.request("DELETE", &key, "", b"").status, 500);
    assert_eq!(other.request("DELETE", &key, "", b"").status, 200);
}
