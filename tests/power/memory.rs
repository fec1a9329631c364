//! Memory in sum: clients that take memory and give nothing back, all at once, and lists of what lies in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use packhouse::io::limits::raise_descriptors;
use rustls::ClientConfig;

use crate::common::{Conn, NO_SCRUB, Server, V2, id_of, is_root, noise, on_both, skip};
use crate::faults::{group, launch_in};
use crate::pki::{Pki, TlsConn, connect_shared, handshake};

const READERS: usize = 300;
const LISTS: usize = 100;
const HALF_HELLOS: usize = 1500;
const HALF_HEADS: usize = 500;
const UPLOADS: usize = 1000;

/// Makes empty objects in the `data` folder of a repository.
fn fill(repo: &Path, count: u32) {
    for shard in 0..=u8::MAX {
        std::fs::create_dir_all(repo.join(format!("data/{shard:02x}"))).unwrap();
    }
    std::fs::create_dir_all(repo.join("keys")).unwrap();
    for n in 0..count {
        let id = id_of(&n.to_le_bytes());
        std::fs::write(repo.join("data").join(&id[..2]).join(id), "").unwrap();
    }
}

/// Most of a `ClientHello` of 64 KiB, the longest that rustls takes, in records.
fn half_hello() -> Vec<u8> {
    let message = [&[1, 0, 255, 255, 3, 3][..], &[0; 65_000]].concat();
    let record = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], piece].concat()
    };
    message.chunks(16_000).flat_map(record).collect()
}

/// Clients that ask for something long and read nothing of it.
fn slow(address: &str, config: &Arc<ClientConfig>, path: &str, count: usize) -> Vec<TlsConn> {
    let ask = |_| {
        let mut conn = connect_shared(address, Arc::clone(config), "localhost");
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{V2}\r\n"));
        conn
    };
    (0..count).map(ask).collect()
}

/// Uploads, and tries again for two minutes, as restic does: a connection may have had to make room before its request came.
fn upload(address: &str, config: &Arc<ClientConfig>, n: usize) -> bool {
    let body = noise(1 << 20, n as u64);
    let head = format!(
        "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        id_of(&body),
        body.len()
    );
    let start = Instant::now();
    while start.elapsed() < Duration::from_mins(2) {
        let mut conn = connect_shared(address, Arc::clone(config), "localhost");
        conn.stream.sock.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        conn.stream.sock.set_write_timeout(Some(Duration::from_mins(1))).unwrap();
        if conn.try_send(&head) && conn.try_send(&body) {
            let mut status = [0; 12];
            if conn.stream.read_exact(&mut status).is_ok() && &status == b"HTTP/1.1 200" {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    false
}

#[test]
fn floods_of_all_kinds_together_fit_into_64_mib() {
    if !is_root() {
        return skip("a memory cgroup needs root");
    }
    if raise_descriptors() < 5000 {
        return skip("thousands of connections need a higher limit on open files");
    }
    on_both(|driver| {
        let Some(group) = group() else { return };
        // On a real disk: what lies in tmpfs would count as the server's memory.
        let dir = tempfile::Builder::new().tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = dir.path().join("data");
        fill(&data.join("r1"), 100_000);
        let pki = Pki::new();
        let (cert, key) = pki.server("server", &["localhost"]);
        // Every worker has transfer buffers for its lanes of SHA-256, which is more than 64 MiB on many processors.
        let tls = ["--workers", "2", "--tls", "--tls-cert", &cert, "--tls-key", &key];
        let mut server = launch_in(&group, &data, driver, &[NO_SCRUB, &tls].concat());
        let (address, config) = (server.addresses[0].clone(), Arc::new(pki.client(None)));
        let large = noise(16 << 20, 1);
        let id = id_of(&large);
        std::fs::write(data.join("r1/data").join(&id[..2]).join(&id), &large).unwrap();

        let mut known = slow(&address, &config, &format!("/r1/data/{id}"), READERS);
        known.extend(slow(&address, &config, "/r1/data/", LISTS));
        let hello = half_hello();
        let mut strangers = Vec::new();
        for _ in 0..HALF_HELLOS {
            let mut conn = TcpStream::connect(&address).unwrap();
            conn.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            // The server may have closed it already.
            conn.write_all(&hello).ok();
            strangers.push(conn);
        }
        let head = format!("GET /r1/keys/ HTTP/1.1\r\nHost: h\r\nX: {}", "a".repeat(15_900));
        let mut halves = Vec::new();
        for _ in 0..HALF_HEADS {
            let mut conn = connect_shared(&address, Arc::clone(&config), "localhost");
            if handshake(&mut conn).is_ok() {
                conn.try_send(&head);
            }
            halves.push(conn);
        }
        let stored = std::thread::scope(|scope| {
            let begin = |n| {
                let (address, config) = (&address, &config);
                let thread = std::thread::Builder::new().stack_size(512 * 1024);
                thread.spawn_scoped(scope, move || upload(address, config, n)).unwrap()
            };
            let uploads: Vec<_> = (0..UPLOADS).map(begin).collect();
            uploads.into_iter().filter_map(|upload| upload.join().ok()).filter(|stored| *stored).count()
        });
        let killed = server.child.try_wait().unwrap();
        assert!(killed.is_none(), "the server was killed: {killed:?}");
        println!("{driver}: {stored} of {UPLOADS} stored, at most {} MiB", server.memory("VmHWM:") >> 20);
        assert_eq!(stored, UPLOADS);
        let mut late = connect_shared(&address, Arc::clone(&config), "localhost");
        assert_eq!(late.request("GET", "/healthz", "", b"").status, 200);
        drop((known, strangers, halves, late));
        assert!(server.stop().success());
        std::fs::remove_dir(&group).ok();
    });
}

#[test]
fn lists_of_what_lies_in_memory_keep_nobody_waiting() {
    const MANY: usize = 200;
    let Ok(dir) = tempfile::Builder::new().tempdir_in("/dev/shm") else {
        return skip("there is no tmpfs at /dev/shm");
    };
    let data = dir.path().join("data");
    fill(&data.join("r1"), 300_000);
    on_both(|driver| {
        let server = Server::on(&data, driver, &[NO_SCRUB, &["--workers", "2"]].concat());
        server.wait_for_log("tmpfs");
        let over = AtomicBool::new(false);
        let longest = std::thread::scope(|scope| {
            for _ in 0..MANY {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let mut conn = server.connect();
                    conn.send(format!("GET /r1/data/ HTTP/1.1\r\nHost: h\r\n{V2}\r\n"));
                    let mut piece = vec![0; 64 * 1024];
                    while !over.load(Ordering::SeqCst)
                        && conn.stream.read(&mut piece).is_ok_and(|count| count > 0)
                    {}
                });
            }
            std::thread::sleep(Duration::from_secs(1));
            let probe = |_| {
                let start = Instant::now();
                let mut conn = Conn::new(TcpStream::connect(&server.addresses[0]).unwrap());
                conn.stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
                assert_eq!(conn.request("GET", "/healthz", "", b"").status, 200);
                start.elapsed()
            };
            let longest = (0..20).map(probe).max().unwrap();
            over.store(true, Ordering::SeqCst);
            longest
        });
        println!("{driver}: {longest:?} at most beside {MANY} lists");
        assert!(longest < Duration::from_secs(3), "{longest:?}");
    });
}
