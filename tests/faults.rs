//! One worker over a disk that fails on demand, spoken to over TCP: what a failing disk, and a bug, do to clients.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

mod common;
#[path = "common/worker.rs"]
mod worker;

use std::net::TcpStream;

use common::{Conn, Response, id_of};
use packhouse::io::Fault;
use packhouse::store::faulty::Op;
use worker::Worker;

fn start() -> Worker {
    Worker::start(&"127.0.0.1:0".parse().unwrap())
}

impl Worker {
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

#[test]
fn a_failed_flush_is_500_then_507_for_writes_503_for_deletes_and_reads_go_on() {
    let worker = start();
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
    let worker = start();
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
    let worker = start();
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
    let worker = start();
    let body = common::noise(1 << 20, 1);
    assert_eq!(worker.put("data", &body).status, 200);
    worker.faults.fail_after(Op::Read, 3);
    let mut conn = worker.connect();
    conn.send(format!("GET /r1/data/{} HTTP/1.1\r\nHost: h\r\n\r\n", id_of(&body)));
    assert!(conn.try_response_to("GET").is_none(), "no whole response");
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    let worker = start();
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
