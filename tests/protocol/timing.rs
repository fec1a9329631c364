//! Case 68: clients that are slow, silent or many. The limits are set low; what they are by default is told by `--help`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use packhouse::io::limits::raise_descriptors;

use crate::common::{Conn, NO_SCRUB, Server, id_of, login, noise, on_both, place, skip, users, wait_for};

/// Seconds until the server ends the connection.
fn ended_after(conn: &mut Conn) -> f64 {
    let start = Instant::now();
    while !conn.is_ended() {
        conn.try_response_to("GET");
    }
    start.elapsed().as_secs_f64()
}

#[test]
fn case_68_silent_clients_are_closed() {
    on_both(|driver| {
        let server = Server::start(
            driver,
            &["--head-timeout", "700ms", "--idle-timeout", "1500ms", "--body-timeout", "1s"],
        );
        let path = server.store("/r1/", "keys", b"key");
        let head = format!("POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n", id_of(b"x"));
        let mut half_head = server.connect();
        half_head.send("GET / HTTP/1.1\r\nHo");
        assert_eq!(half_head.response().status, 408);
        let mut fresh = server.connect();
        let mut idle = server.connect();
        assert_eq!(idle.request("GET", &path, "", b"").status, 200);
        let mut half_body = server.connect();
        half_body.send(&head);
        half_body.send("some");
        let start = Instant::now();
        assert_eq!(half_body.response().status, 408);
        assert!((0.8..3.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
        assert!(ended_after(&mut idle) < 2.0 && ended_after(&mut fresh) < 2.0);
        assert!(start.elapsed().as_secs_f64() > 1.2, "idle connections have their time");
        assert_eq!(server.files().len(), 1);
    });
}

#[test]
fn case_68_a_trickle_is_too_slow_and_a_steady_stream_is_not() {
    on_both(|driver| {
        let server = Server::start(
            driver,
            &["--body-timeout", "1s", "--body-grace", "500ms", "--body-min-rate", "100"],
        );
        let body = noise(120, 1);
        let send = |pause: u64, piece: usize| {
            let mut conn = server.connect();
            conn.send(format!(
                "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
                id_of(&body),
                body.len()
            ));
            for part in body.chunks(piece) {
                if !conn.try_send(part) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(pause));
            }
            conn.response().status
        };
        assert_eq!(send(100, 3), 408, "30 bytes a second");
        assert_eq!(send(100, 12), 200, "120 bytes a second");
    });
}

#[test]
fn case_68_a_client_that_does_not_read_is_given_up() {
    on_both(|driver| {
        let server = Server::start(driver, &["--body-timeout", "1s"]);
        let path = server.store("/r1/", "data", &noise(40 << 20, 1));
        let mut conn = server.connect();
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        server.wait_for_log("aborted: the client was too slow");
        assert!(conn.try_response_to("GET").is_none(), "the body is cut short");
        assert_eq!(server.status("HEAD", &path, b""), 200);
    });
}

#[test]
fn case_68_a_slow_reader_is_not_one_that_does_not_read() {
    on_both(|driver| {
        let server = Server::start(driver, &["--body-timeout", "1s"]);
        let body = noise(8 << 20, 1);
        let path = server.store("/r1/", "data", &body);
        let mut conn = server.connect();
        rustix::net::sockopt::set_socket_recv_buffer_size(&conn.stream, 64 * 1024).unwrap();
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        // 200 KB a second for longer than the limit, then the rest.
        let mut begin = vec![0; 800_000];
        for piece in begin.chunks_mut(20_000) {
            conn.stream.read_exact(piece).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        let head = begin.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let mut rest = vec![0; body.len() + head - begin.len()];
        conn.stream.read_exact(&mut rest).unwrap();
        assert!([&begin[head..], &rest].concat() == body);
    });
}

#[test]
fn case_68_ten_thousand_idle_connections_cost_little() {
    const WANTED: usize = 10_000;
    const MOST_BYTES_EACH: usize = 6000;
    raise_descriptors();
    on_both(|driver| {
        let server = Server::start(driver, NO_SCRUB);
        let [connections, _] = limits(&server);
        let count = WANTED.min(connections);
        if count < WANTED {
            println!("*** only {count} idle connections: more need a higher hard limit on open files ***");
        }
        let path = server.store("/r1/", "keys", b"key");
        let before = (server.memory("VmRSS:"), server.descriptors());
        let mut idle = idle(&server, count, &path, "");
        let grown = server.memory("VmRSS:").saturating_sub(before.0);
        println!("{driver}: {count} idle connections, {} KiB more", grown >> 10);
        assert!(grown < count * MOST_BYTES_EACH, "{grown} bytes for {count} connections");
        for conn in idle.iter_mut().step_by(97) {
            assert_eq!(conn.request("GET", &path, "", b"").body, b"key");
        }
        drop(idle);
        wait_for("all descriptors to be given back", || server.descriptors() <= before.1);
    });
}

/// Connections that have asked something once.
fn idle(server: &Server, count: usize, path: &str, headers: &str) -> Vec<Conn> {
    let connect = |_| {
        let mut conn = server.connect();
        assert_eq!(conn.request("HEAD", path, headers, b"").status, 200);
        conn
    };
    (0..count).map(connect).collect()
}

/// How many connections and requests the server has room for, as it says itself.
fn limits(server: &Server) -> [usize; 2] {
    let text = server.text();
    let words: Vec<_> = text.split("at most ").nth(1).unwrap().split(' ').collect();
    [words[0], words[3]].map(|number| number.parse().unwrap())
}

#[test]
fn who_comes_when_all_places_are_taken_waits() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let users = users(dir.path(), &["u", "other"]);
        let flags = [NO_SCRUB, &["--workers", "1", "--htpasswd-file", &users]].concat();
        let server = Server::with_descriptors(80, &dir.path().join("data"), driver, &flags);
        let (auth, wrong) = (login("u", "pw"), login("u", "wrong"));
        let path = format!("/r1/keys/{}", id_of(b"key"));
        assert_eq!(server.request("POST", &path, &auth, b"key").status, 200);
        let [connections, requests] = limits(&server);
        let waits = |conn: &mut Conn| {
            std::thread::sleep(Duration::from_millis(200));
            conn.stream.set_nonblocking(true).unwrap();
            assert!(conn.stream.peek(&mut [0]).is_err(), "all places are taken");
            conn.stream.set_nonblocking(false).unwrap();
        };
        let ask = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{auth}\r\n");
        // Who does not get in takes no place: wrong logins wait for seconds.
        let strangers: Vec<_> = (0..2 * requests)
            .map(|_| {
                let mut conn = server.connect();
                conn.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{wrong}\r\n"));
                conn
            })
            .collect();
        assert_eq!(server.request("GET", &path, &auth, b"").body, b"key");
        drop(strangers);
        // Requests that do not come to their end: one user has half of the places, and another one finds room.
        let mut busy: Vec<_> = (0..requests / 2)
            .map(|n| {
                let mut conn = server.connect();
                let id = id_of(&n.to_le_bytes());
                conn.send(format!(
                    "POST /r1/data/{id} HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 8\r\n\r\n"
                ));
                conn
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        let mut late = server.connect();
        late.send(&ask);
        waits(&mut late);
        assert_eq!(server.request("GET", "/healthz", "", b"").status, 200, "health does not wait");
        for (method, path) in [("GET", path.as_str()), ("GET", "/r1/keys/"), ("POST", path.as_str())] {
            let body = if method == "POST" { &b"key"[..] } else { b"" };
            let response = server.request(method, path, &login("other", "pw"), body);
            assert_eq!(response.status, 200, "{method} {path}");
        }
        let mut first = busy.swap_remove(0);
        first.send(0_usize.to_le_bytes());
        assert_eq!((first.response().status, late.response().body), (200, b"key".to_vec()));
        drop((first, late, busy));
        // Connections that ask nothing.
        let mut idle = idle(&server, connections, &path, &auth);
        let mut late = server.connect();
        late.send(&ask);
        waits(&mut late);
        idle.pop();
        assert_eq!(late.response().body, b"key");
    });
}

/// libfaketime, which gives a program another clock.
fn other_clock() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let found =
        folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|file| file.exists());
    if found.is_none() {
        skip("libfaketime is not installed");
    }
    found
}

#[test]
fn a_clock_that_jumps_changes_nothing_but_the_date() {
    let Some(library) = other_clock() else { return };
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let (data, clock) = (dir.path().join("data"), dir.path().join("clock"));
        let users = users(dir.path(), &["u"]);
        std::fs::write(&clock, "+0").unwrap();
        let start = || {
            let flags = ["--sandbox=false", "--scrub-period", "1day", "--htpasswd-file", users.as_str()];
            let mut command = Server::command(&data, driver, &flags);
            command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &clock);
            command
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("NO_FAKE_STAT", "1");
            Server::launch(command, &data)
        };
        let mut server = start();
        server.wait_for_log("verified what is stored");
        let auth = login("u", "pw");
        let body = noise(300_000, 1);
        let (first, last) = body.split_at(100_000);
        let mut idle = server.connect();
        let year = |idle: &mut Conn| {
            let response = idle.request("GET", "/r1/keys/", &auth, b"");
            assert!(response.status == 200 || response.status == 404, "{}", response.text());
            response.header("date").split(' ').nth(3).unwrap().parse::<i32>().unwrap()
        };
        let now = year(&mut idle);
        let mut stored = Vec::new();
        for (n, jump) in ["+3653d", "-3653d", "+0"].into_iter().enumerate() {
            // One upload in flight, and what it has stored so far.
            let path = format!("/r{n}/data/{}", id_of(&body));
            std::fs::create_dir_all(server.data.join(format!("r{n}/keys"))).unwrap();
            let mut upload = server.connect();
            upload.send(format!(
                "POST {path} HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: {}\r\n\r\n",
                body.len()
            ));
            upload.send(first);
            std::thread::sleep(Duration::from_millis(100));
            std::fs::write(&clock, jump).unwrap();
            wait_for("another date", || year(&mut idle) == now + [10, -10, 0][n]);
            upload.send(last);
            assert_eq!(upload.response().status, 200);
            assert_eq!(server.request("GET", "/readyz", "", b"").status, 200);
            stored.push(path);
        }
        assert_eq!(server.request_count("verified what is stored"), 1, "a day is not over");
        assert!(server.stop().success());
        let mut names: Vec<_> =
            stored.iter().map(|path| place(Path::new(""), path).to_string_lossy().into_owned()).collect();
        names.sort();
        // What was written down by another clock keeps no server from its work.
        for jump in ["+3653d", "-3653d"] {
            std::fs::write(&clock, jump).unwrap();
            let mut server = start();
            for path in &stored {
                assert_eq!(server.request("GET", path, &auth, b"").body, body);
            }
            if jump.starts_with('+') {
                server.wait_for_log("verified what is stored: 3 objects");
            }
            assert!(server.stop().success());
            assert_eq!(server.files(), names, "nothing is left over");
        }
    });
}
