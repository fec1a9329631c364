//! Cases 34, 35, 66 and 71: start, stop, kill, addresses, descriptors, and a machine without io_uring.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::common::{Conn, NO_SCRUB, Server, id_of, noise, on_both, program, wait_for};

fn upload_head(body: &[u8]) -> String {
    format!("POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", id_of(body), body.len())
}

/// Runs the program to its end; for what ends by itself.
fn ends(args: &[&str]) -> Output {
    Command::new(program()).args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn case_34_killed_in_mid_upload() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let body = noise(1 << 20, 1);
        let mut server = Server::on(&data, driver, &[]);
        server.create("/r1/");
        let mut conn = server.connect();
        conn.send(upload_head(&body));
        conn.send(&body[..600_000]);
        std::thread::sleep(Duration::from_millis(100));
        server.child.kill().unwrap();
        server.wait();
        // What an upload with a temporary name leaves, and what rest-server leaves.
        let id = id_of(&body);
        let shard = data.join("r1/data").join(&id[..2]);
        std::fs::create_dir_all(&shard).unwrap();
        std::fs::write(shard.join(format!("{id}.packhouse-tmp-0123456789abcdef")), "half").unwrap();
        std::fs::write(shard.join(format!("{id}.rest-server-temp42")), "half").unwrap();
        let server = Server::on(&data, driver, &[]);
        server.wait_for_log("removed 1 leftovers");
        server.wait_for_log("1 leftovers of rest-server");
        assert_eq!(server.request("GET", "/r1/data/", "", b"").body, b"[]");
        server.store("/r1/", "data", &body);
        assert_eq!(server.files().len(), 2);
    });
}

#[test]
fn case_35_a_stop_lets_an_upload_finish() {
    on_both(|driver| {
        let mut server = Server::start(driver, &[]);
        server.create("/r1/");
        let body = noise(1 << 20, 2);
        let mut idle = server.connect();
        assert_eq!(idle.request("GET", "/r1/keys/", "", b"").status, 200);
        let mut conn = server.connect();
        conn.send(upload_head(&body));
        conn.send(&body[..500_000]);
        std::thread::sleep(Duration::from_millis(50));
        server.signal("-TERM");
        assert!(idle.is_ended(), "idle connections are closed at once");
        wait_for("new ones to be refused", || std::net::TcpStream::connect(&server.addresses[0]).is_err());
        std::thread::sleep(Duration::from_millis(100));
        conn.send(&body[500_000..]);
        let response = conn.response();
        assert_eq!((response.status, response.header("connection")), (200, "close"));
        assert_eq!(server.wait().code(), Some(0));
        assert!(server.text().contains("shutdown cleanly"));
        assert_eq!(server.files().len(), 1);
    });
}

#[test]
fn case_35_a_stop_does_not_wait_for_ever_and_a_second_signal_not_at_all() {
    on_both(|driver| {
        for (drain, signals, code) in [("300ms", 1, 0), ("60s", 2, 1)] {
            let mut server = Server::start(driver, &["--drain-timeout", drain]);
            server.create("/r1/");
            let mut conn = server.connect();
            conn.send(upload_head(&noise(1 << 20, 3)));
            std::thread::sleep(Duration::from_millis(100));
            let start = Instant::now();
            for _ in 0..signals {
                server.signal("-INT");
                std::thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(server.wait().code(), Some(code));
            assert!(start.elapsed() < Duration::from_secs(5));
            assert_eq!(server.files(), Vec::<String>::new());
        }
    });
}

/// What bounds a stop is what was in flight, and no client that is slow to close.
#[test]
fn case_35_a_stop_ends_once_what_was_in_flight_is_answered() {
    on_both(|driver| {
        let mut server = Server::start(driver, &["--drain-timeout", "60s"]);
        server.create("/r1/");
        let body = noise(1 << 20, 5);
        let mut upload = server.connect();
        upload.send(upload_head(&body));
        upload.send(&body[..500_000]);
        // A head that never ends, and a body that was refused and is still being sent.
        let mut half = server.connect();
        half.send("GET /r1/keys/ HTTP/1.1\r\nHo");
        let mut refused = server.connect();
        refused.send("POST /r1/data/nonsense HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nab");
        assert!(matches!(refused.response().status, 400..=499));
        std::thread::sleep(Duration::from_millis(100));
        server.signal("-TERM");
        std::thread::sleep(Duration::from_millis(300));
        assert!(server.child.try_wait().unwrap().is_none(), "the upload may go on");
        upload.send(&body[500_000..]);
        assert_eq!(upload.response().status, 200);
        let answered = Instant::now();
        assert_eq!(server.wait().code(), Some(0));
        assert!(answered.elapsed() < Duration::from_millis(1500), "{:?}", answered.elapsed());
        drop((half, refused, upload));
    });
}

#[test]
fn case_66_out_of_descriptors() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let flags = [NO_SCRUB, &["--workers", "1"]].concat();
        let server = Server::with_descriptors(40, &dir.path().join("data"), driver, &flags);
        server.create("/r1/");
        let kept = server.store("/r2/", "keys", b"kept");
        let before = server.descriptors();
        let codes = std::thread::scope(|scope| {
            let upload = |n: u64| {
                let server = &server;
                move || {
                    let body = noise(200_000, n);
                    let path = format!("/r1/data/{}", id_of(&body));
                    let response = server.request("POST", &path, "", &body);
                    assert!(response.status == 200 || !response.header("retry-after").is_empty());
                    response.status
                }
            };
            let uploads: Vec<_> = (0..200).map(|n| scope.spawn(upload(n))).collect();
            let mut codes = BTreeMap::new();
            for upload in uploads {
                *codes.entry(upload.join().unwrap()).or_insert(0) += 1;
            }
            codes
        });
        assert!(codes.keys().all(|code| matches!(code, 200 | 503)), "{codes:?}");
        assert!(codes[&200] > 100, "{codes:?}");
        server.store("/r1/", "data", b"afterwards");
        assert_eq!(server.request("GET", &kept, "", b"").body, b"kept");
        assert_eq!(server.files().len(), codes[&200] + 2, "nothing is left over");
        wait_for("all descriptors to be given back", || server.descriptors() <= before);
    });
}

#[test]
fn case_71_addresses() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.sock");
        let unix = format!("unix:{}", socket.display());
        let start = Instant::now();
        let mut server =
            Server::start(driver, &["--listen", "[::1]:0", "--listen", &unix, "--listen=localhost:0"]);
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(server.addresses.len(), 3);
        assert!(server.addresses[0].starts_with("[::1]:") && !server.addresses[0].ends_with(":0"));
        assert_eq!(server.addresses[1], unix);
        server.create("/r1/");
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"GET /r1/keys/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("[]"), "{answer}");
        let mut conn = Conn::new(std::net::TcpStream::connect(&server.addresses[2]).unwrap());
        assert_eq!(conn.request("GET", "/r1/keys/", "", b"").status, 200);
        assert_eq!(server.stop().code(), Some(0));
        wait_for("the farewell", || server.text().contains("shutdown cleanly"));
        assert!(server.text().contains(" 0 failed accepts"), "the end is no failure:\n{}", server.text());
        assert!(!socket.exists(), "the socket's file is removed");
        // What a killed server left is replaced; what another one uses is not.
        let mut killed = Server::start(driver, &["--listen", &unix]);
        killed.child.kill().unwrap();
        killed.wait();
        assert!(socket.exists());
        let _running = Server::start(driver, &["--listen", &unix]);
        let data = dir.path().join("other");
        let taken = Server::command(&data, driver, &["--listen", &unix]).output().unwrap();
        assert_eq!(taken.status.code(), Some(3));
    });
}

#[test]
fn case_71_a_port_has_one_server() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let dir = tempfile::tempdir().unwrap();
        let second =
            Server::command(dir.path(), driver, &["--listen", &server.addresses[0]]).output().unwrap();
        assert_eq!(second.status.code(), Some(3));
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(said.contains("in use") && said.contains("--listen"), "{said}");
    });
}

#[test]
fn a_start_that_fails_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "alice:plain\n").unwrap();
    let file = file.to_str().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = port.local_addr().unwrap().to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["serve"], 2, "--path"),
        (&["serve", "--path", path, "--nonsense"], 2, "--nonsense"),
        (&["serve", "--path", path, "--listen", "nowhere"], 2, "HOST:PORT"),
        (&["serve", "--path", path, "--listen", "127.0.0.1:0"], 3, "packhouse user add"),
        (&["serve", "--path", file, "--no-auth", "--listen", "127.0.0.1:0"], 3, "--path"),
        (
            &["serve", "--path", path, "--no-auth", "--listen", "127.0.0.1:0", "--state-dir", file],
            3,
            "--state-dir",
        ),
        (&["serve", "--path", path, "--no-auth", "--listen", &taken], 3, "in use"),
        (&["serve", "--path", path, "--no-auth", "--listen", "no-such-host.invalid:1"], 3, "resolve"),
        (&["serve", "--path", path, "--no-auth", "--listen", "127.0.0.1:0", "--cpus", "4000"], 3, "taskset"),
        (&["repo", "resume", "--path", path], 1, "Is it running"),
    ];
    for (args, code, hint) in cases {
        let output = ends(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {said}");
        assert!(said.contains(hint), "{args:?}: {said}");
    }
    let version = ends(&["--version"]);
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("packhouse {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert!(String::from_utf8_lossy(&ends(&["serve", "--help"]).stdout).contains("Examples:"));
}

#[test]
fn called_as_rest_server_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("rest-server");
    std::os::unix::fs::symlink(program(), &link).unwrap();
    let mut command = Command::new(&link);
    let data = dir.path().join("data");
    command
        .args([
            "--no-auth=true",
            "--append-only=1",
            "--append-only=false",
            "--listen",
            "127.0.0.1:0",
            "--path",
        ])
        .arg(&data);
    let server = Server::launch(command, &data);
    server.create("/r1/");
    assert!(server.text().contains("Append only mode disabled"));
    assert!(Command::new(&link).arg("--version").output().unwrap().status.success());
}

#[test]
fn one_process_holds_the_state_folder_and_takes_commands() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        // A path too long for a socket's address.
        let data = dir.path().join("x".repeat(120));
        let first = Server::on(&data, driver, &["--shared-folder"]);
        let second = Server::on(&data, driver, &["--shared-folder"]);
        assert!(second.text().contains("another packhouse holds it"));
        let path = first.store("/r1/", "keys", b"key");
        assert_eq!(second.request("GET", &path, "", b"").body, b"key");
        let resumed = ends(&["repo", "resume", "--path", data.to_str().unwrap()]);
        assert!(
            resumed.status.success()
                && String::from_utf8_lossy(&resumed.stdout).contains("taking writes already")
        );
    });
}

#[test]
fn nobody_reads_the_log_and_nothing_stops() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", dir.path().join("s").display());
        let mut command = Server::command(&dir.path().join("data"), driver, &["--listen", &listen]);
        // The pipe is never read: it holds 64 KiB.
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        wait_for("the socket", || {
            dir.path().join("s").exists() && UnixStream::connect(dir.path().join("s")).is_ok()
        });
        let mut stream = UnixStream::connect(dir.path().join("s")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for _ in 0..20_000 {
            stream.write_all(b"HEAD /nothing/config HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 404");
            let mut end = Vec::new();
            while !end.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                end.push(byte[0]);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn without_io_uring_it_says_so_and_runs_on_epoll() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let io_uring_setup: i64 = 425;
    let rules = BTreeMap::from([(io_uring_setup, vec![])]);
    let arch: TargetArch = std::env::consts::ARCH.try_into().unwrap();
    // As Docker's default profile does it.
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(1), arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    let commands = ["auto", "uring"].map(|driver| Server::command(&data, driver, &[]));
    // The filter holds for this thread and for the processes that it starts.
    let (server, refused) = std::thread::spawn(move || {
        let [auto, mut uring] = commands;
        seccompiler::apply_filter(&filter).unwrap();
        let refused = uring.stderr(Stdio::piped()).output().unwrap();
        (Server::launch(auto, &data), refused)
    })
    .join()
    .unwrap();
    let text = server.text();
    assert!(
        text.contains("I/O driver: epoll")
            && text.contains("seccomp profile")
            && text.contains("io_uring_setup"),
        "{text}"
    );
    server.store("/r1/", "data", &noise(1 << 20, 1));
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--io-driver epoll"));
}

#[test]
fn workers_can_be_counted_and_pinned() {
    on_both(|driver| {
        let server = Server::start(driver, &["--workers", "3"]);
        assert!(server.text().contains("3 workers"));
        let server = Server::start(driver, &["--cpus", "0"]);
        assert!(server.text().contains("1 workers"));
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let pinned = tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
            .find(|status| status.contains("worker-0"))
            .unwrap();
        assert!(pinned.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{pinned}");
        server.store("/r1/", "keys", b"key");
    });
}

#[test]
fn many_uploads_at_once_take_little_memory() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let body = noise(16 << 20, 1);
        std::thread::scope(|scope| {
            for n in 0..64_u64 {
                let (server, mut body) = (&server, body.clone());
                scope.spawn(move || {
                    body[..8].copy_from_slice(&n.to_le_bytes());
                    server.store("/r1/", "data", &body);
                });
            }
        });
        let peak = server.memory("VmHWM");
        assert!(peak < 64 << 20, "64 uploads of 16 MiB took {peak} bytes at the most");
    });
}

#[test]
fn connections_go_where_there_is_least_to_do() {
    on_both(|driver| {
        let server = Server::start(driver, &["--workers", "2"]);
        let mut conns: Vec<_> = (0..8).map(|_| server.connect()).collect();
        wait_for("four with each worker", || server.workers_of(&mut conns) == [4, 4]);
        // One of them loses all of its own.
        let mut kept = Vec::new();
        let first = worker(&server, &mut conns[0]);
        for mut conn in conns {
            if worker(&server, &mut conn) == first {
                kept.push(conn);
            }
        }
        wait_for("two with each worker", || server.workers_of(&mut kept) == [2, 2]);
        // And they are as good as before.
        for (n, conn) in kept.iter_mut().enumerate() {
            let body = noise(700_000, n as u64);
            let path = format!("/r1/data/{}", id_of(&body));
            assert_eq!(conn.request("POST", &path, "", &body).status, 200);
            assert!(conn.request("GET", &path, "", b"").body == body);
        }
        let server = Server::start(driver, &["--workers", "2", "--balance=false"]);
        let mut conn = server.connect();
        let before = worker(&server, &mut conn);
        let _others: Vec<_> = (0..8).map(|_| server.connect()).collect();
        assert!((0..20).all(|_| worker(&server, &mut conn) == before), "it stays");
    });
}

/// The worker that serves a connection.
fn worker(server: &Server, conn: &mut Conn) -> String {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let path = format!("/asked{}/config", ASKED.fetch_add(1, Ordering::Relaxed));
    assert_eq!(conn.request("HEAD", &path, "", b"").status, 404);
    server.worker_of(&path)
}

#[test]
fn more_uploads_than_buffers_end_all() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let head = |body: &[u8]| {
            let (id, length) = (id_of(body), body.len());
            format!("POST /r1/data/{id} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")
        };
        let bodies: Vec<_> = (0..300).map(|n| noise(1_200_000, n)).collect();
        let mut conns: Vec<_> = bodies.iter().map(|_| server.connect()).collect();
        // Piece by piece, so that all of them are under way at once.
        for (conn, body) in conns.iter_mut().zip(&bodies) {
            conn.send(head(body));
            conn.send(&body[..400_000]);
        }
        for (conn, body) in conns.iter_mut().zip(&bodies) {
            conn.send(&body[400_000..]);
        }
        for conn in &mut conns {
            assert_eq!(conn.response().status, 200);
        }
        assert_eq!(server.files().len(), 300);
    });
}

#[test]
fn many_requests_leak_nothing() {
    let count: usize = std::env::var("TEST_REQUESTS").map_or(100_000, |count| count.parse().unwrap());
    on_both(|driver| {
        let server = Server::start(driver, NO_SCRUB);
        let path = server.store("/r1/", "keys", &noise(3000, 1));
        let mixed = |requests: usize| {
            std::thread::scope(|scope| {
                for client in 0..4_usize {
                    let (server, path) = (&server, &path);
                    scope.spawn(move || mixed_requests(server, path, client, requests / 4));
                }
            });
        };
        mixed(count / 4);
        wait_for("idle", || server.descriptors() < 60);
        let (descriptors, memory) = (server.descriptors(), server.memory("VmRSS"));
        mixed(count);
        wait_for("all descriptors to be closed", || server.descriptors() <= descriptors);
        let growth = server.memory("VmRSS").saturating_sub(memory);
        assert!(growth < 4 << 20, "memory grew by {growth} bytes in {count} requests");
        assert_eq!(server.files().len(), 1);
    });
}

fn mixed_requests(server: &Server, path: &str, client: usize, count: usize) {
    let mut conn = server.connect();
    for n in 0..count {
        let lock = format!("{client} {n}");
        let lock_path = format!("/r1/locks/{}", id_of(lock.as_bytes()));
        let status = match n % 10 {
            0 => conn.request("POST", &lock_path, "", lock.as_bytes()).status,
            1 => {
                conn.request(
                    "DELETE",
                    &format!("/r1/locks/{}", id_of(format!("{client} {}", n - 1).as_bytes())),
                    "",
                    b"",
                )
                .status
            }
            2 | 3 => conn.request("HEAD", path, "", b"").status,
            4 | 5 => conn.request("GET", path, "Range: bytes=5-\r\n", b"").status - 6,
            6 => conn.request("GET", "/r1/keys/", crate::common::V2, b"").status,
            7 => conn.request("GET", "/r1/keys/foobar", "", b"").status - 204,
            8 => conn.request("POST", "/r1/keys/foobar", "", b"body").status - 204,
            _ => {
                if n % 50 == 9 {
                    conn = server.connect();
                }
                conn.request("GET", path, "", b"").status
            }
        };
        assert_eq!(status, 200, "request {n}");
    }
}
