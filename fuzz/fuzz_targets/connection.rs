//! A whole connection: any bytes go in, well-formed answers come out, the connection ends, nothing panics, and the next client
//! is served as if nothing had been.
#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use packhouse::types::ListenAddress;

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/common/worker.rs"]
mod worker;

use worker::Worker;

/// Connections of one worker: what they store stays in memory.
const CONNECTIONS: u32 = 500;
const PATIENCE: Duration = Duration::from_secs(10);

struct Site {
    worker: Worker,
    socket: PathBuf,
    connections: u32,
}

impl Site {
    fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("packhouse-fuzz-{}-{n}", std::process::id()));
        Self { worker: Worker::start(&ListenAddress::Unix(socket.clone())), socket, connections: 0 }
    }

    fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        // It may have heard enough before the end.
        if stream.write_all(bytes).is_ok() {
            stream.shutdown(Shutdown::Write).ok();
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection does not end"),
            _ => answer,
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        std::fs::remove_file(&self.socket).ok();
    }
}

/// Never dropped at the end: a thread that is ending wakes nobody any more.
static SITE: Mutex<Option<Site>> = Mutex::new(None);

fuzz_target!(|data: &[u8]| {
    let mut site = SITE.lock().expect("no panic before");
    if site.as_ref().is_some_and(|site| site.connections >= CONNECTIONS) {
        *site = None;
    }
    let site = site.get_or_insert_with(Site::new);
    site.connections += 1;
    let answer = site.exchange(data);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{:?}", answer.escape_ascii().to_string());
    assert_eq!(site.worker.counters.panics.get(), 0, "a connection panicked");
    if site.connections.is_multiple_of(16) {
        let next = site.exchange(b"HEAD /r/config HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let status = next.get(9..12);
        assert!(
            matches!(status, Some(b"404" | b"200")),
            "the next client is told {:?}",
            next.escape_ascii().to_string()
        );
    }
});
