//! Sizes of objects, uploads and bytes a second of a user, connections of an address.

use std::time::{Duration, Instant};

use crate::common::mount::Mount;
use crate::common::{NO_SCRUB, Server, id_of, login, noise, on_both, skip, users, wait_for};
use crate::proxies::{connect_from, own_address};
use crate::rights::{as_user, configured};

#[test]
fn objects_have_a_largest_size() {
    on_both(|driver| {
        let flags = [
            "--max-data-size",
            "3000",
            "--max-index-size",
            "2000",
            "--max-key-size",
            "1000",
            "--max-lock-size",
            "700",
            "--max-config-size",
            "500",
        ];
        let server = Server::start(driver, &flags);
        server.create("/r1/");
        for (kind, most) in
            [("data", 3000), ("index", 2000), ("snapshots", 2000), ("keys", 1000), ("locks", 700)]
        {
            for (size, status) in [(most, 200), (most + 1, 413)] {
                let body = noise(size, size as u64);
                let path = format!("/r1/{kind}/{}", id_of(&body));
                let coded = [format!("{size:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
                let chunked = server.request("POST", &path, "Transfer-Encoding: chunked\r\n", &coded);
                assert_eq!(chunked.status, status, "{kind} {size}");
                assert_eq!(server.status("POST", &path, &body), status, "{kind} {size}");
            }
        }
        assert_eq!(server.status("POST", "/r1/config", &noise(501, 1)), 413);
        // From the head: before a byte of the body.
        let mut conn = server.connect();
        let path = format!("/r1/data/{}", id_of(b"x"));
        conn.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999\r\n\r\n"));
        assert_eq!(conn.response().status, 413);
        assert_eq!(server.files().len(), 5);
    });
}

#[test]
fn the_defaults() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        for (kind, most) in
            [("locks", 64u64 << 10), ("keys", 1 << 20), ("index", 256 << 20), ("data", (4 << 30) - 1)]
        {
            let mut conn = server.connect();
            let path = format!("/r1/{kind}/{}", id_of(b"x"));
            conn.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", most + 1));
            assert_eq!(conn.response().status, 413, "{kind}");
        }
    });
}

#[test]
fn a_user_has_so_many_uploads_and_the_others_theirs() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let server = configured(
            driver,
            dir.path(),
            &["alice", "bob"],
            "[users.bob]\nmax-uploads = 1\n",
            &["--max-uploads-per-user", "2"],
        );
        let body = noise(1000, 1);
        let begin = |user: &str, repo: &str| {
            let mut conn = server.connect();
            let path = format!("/{repo}/data/{}", id_of(&body));
            conn.send(format!(
                "POST {path} HTTP/1.1\r\nHost: h\r\n{}Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
                login(user, "pw")
            ));
            let status = conn.response().status;
            (conn, status)
        };
        for repo in ["r2", "r3", "r4"] {
            assert_eq!(as_user(&server, "alice", "POST", &format!("/{repo}/?create=true"), b""), 200);
        }
        let (mut first, status) = begin("alice", "r1");
        assert_eq!(status, 100);
        let (_second, status) = begin("alice", "r2");
        assert_eq!(status, 100);
        assert_eq!(begin("alice", "r3").1, 429);
        let (_third, status) = begin("bob", "r3");
        assert_eq!(status, 100);
        assert_eq!(begin("bob", "r4").1, 429);
        first.send(&body);
        assert_eq!(first.response().status, 200);
        assert_eq!(begin("alice", "r4").1, 100);
        assert_eq!(as_user(&server, "alice", "GET", "/r1/data/", b""), 200);
    });
}

#[test]
fn bytes_a_second_are_bounded_and_shared() {
    on_both(|driver| {
        // A megabyte at once, then half a megabyte a second: 2.5 MB take three seconds at the least.
        let server = Server::start(driver, &["--upload-rate-per-user", "500000"]);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for n in 0..5 {
                let server = &server;
                scope.spawn(move || {
                    let body = noise(500_000, n);
                    let path = format!("/r1/data/{}", id_of(&body));
                    assert_eq!(server.status("POST", &path, &body), 200);
                    let took = start.elapsed();
                    // Nobody was first by far: they took turns.
                    assert!(took > Duration::from_millis(2500), "upload {n} ended after {took:?}");
                });
            }
        });
        assert!(start.elapsed() < Duration::from_secs(15));
    });
}

#[test]
fn who_must_wait_for_a_rate_takes_no_memory_from_others() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let rates = "[users.alice]\nupload-rate = 100000\n";
        let server = configured(driver, dir.path(), &["alice", "bob"], rates, &["--workers", "1"]);
        // More than a worker has buffers, each of one piece, for a user who must wait a minute for the last answer.
        let uploads: Vec<_> = (0..80)
            .map(|n| {
                let (body, mut conn) = (noise(100_000, n), server.connect());
                let head = format!("POST /r1/data/{} HTTP/1.1\r\nHost: h\r\n", id_of(&body));
                let length = format!("{}Content-Length: {}\r\n\r\n", login("alice", "pw"), body.len());
                conn.send([head.as_bytes(), length.as_bytes(), &body].concat());
                conn
            })
            .collect();
        wait_for("all of them to be stored", || server.files().len() >= uploads.len());
        let body = noise(100_000, 100);
        assert_eq!(as_user(&server, "bob", "POST", &format!("/r1/data/{}", id_of(&body)), &body), 200);
    });
}

#[test]
fn connections_of_one_address() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice"]);
        let server = Server::start(
            driver,
            &["--htpasswd-file", &file, "--max-connections-per-address", "3", "--listen", "0.0.0.0:0"],
        );
        let address = server.addresses[0].replace("0.0.0.0", "127.0.0.1");
        let from = |source: &str, address: &str, headers: &str| {
            let mut conn = connect_from(source, address);
            let sent = conn.try_send(format!("GET /r1/config HTTP/1.1\r\nHost: h\r\n{headers}\r\n"));
            let status =
                if sent { conn.try_response_to("GET").map_or(0, |response| response.status) } else { 0 };
            (conn, status)
        };
        let many: Vec<_> = (0..6).map(|_| from("127.0.0.1", &address, "")).collect();
        assert!(many.iter().all(|(_, status)| *status == 401), "a whole fleet may come through this machine");
        let Some(own) = own_address() else { return skip("an address that is not loopback") };
        let address = server.addresses[0].replace("0.0.0.0", &own);
        let who = login("alice", "pw");
        let known: Vec<_> = (0..6).map(|_| from(&own, &address, &who)).collect();
        assert!(known.iter().all(|(_, status)| *status == 404), "who has logged in counts no more");
        let strangers: Vec<_> = (0..6).map(|_| from(&own, &address, "").1).collect();
        assert_eq!(strangers, [401; 6], "each ended before the next");
        let held: Vec<_> = (0..6).map(|_| from(&own, &address, "")).collect();
        let statuses: Vec<_> = held.iter().map(|(_, status)| *status).collect();
        assert_eq!(statuses, [401, 401, 401, 0, 0, 0]);
    });
}

/// Strangers that say nothing, or little, take all connections: whoever comes to log in gets in.
#[test]
fn silent_strangers_make_room() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice"]);
        let flags = ["--htpasswd-file", &file, "--workers", "1"];
        let server = Server::with_descriptors(200, &dir.path().join("data"), driver, &flags);
        let who = login("alice", "pw");
        let mut known = server.connect();
        assert_eq!(known.request("GET", "/r1/config", &who, b"").status, 404);
        let strangers: Vec<_> = (0..400)
            .map(|n| {
                let mut conn = server.connect();
                conn.try_send([&b""[..], b"GET / HT", b"GET /r1/config HTTP/1.1\r\nHost: h\r\n\r\n"][n % 3]);
                conn
            })
            .collect();
        for _ in 0..5 {
            assert_eq!(server.request("GET", "/r1/config", &who, b"").status, 404);
        }
        assert_eq!(
            known.request("GET", "/r1/config", &who, b"").status,
            404,
            "nobody who is known is closed"
        );
        drop(strangers);
    });
}

/// Nobody connects to say nothing: the first request has less time than the next ones.
#[test]
fn the_first_request_comes_soon() {
    on_both(|driver| {
        let server = Server::start(driver, &["--head-timeout", "300ms", "--idle-timeout", "1m"]);
        let (mut silent, mut asked) = (server.connect(), server.connect());
        assert_eq!(asked.request("GET", "/r1/config", "", b"").status, 404);
        assert!(silent.is_ended());
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(asked.request("GET", "/r1/config", "", b"").status, 404);
    });
}

/// A user with the right to read makes locks, too: they are bounded without any quota.
#[test]
fn locks_are_small_and_few() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let put = |body: &[u8]| server.status("POST", &format!("/r1/locks/{}", id_of(body)), body);
        assert_eq!((put(&noise(65_536, 1)), put(&noise(65_537, 2))), (200, 413));
        let locks = server.data.join("r1/locks");
        for n in 0..9_998_u32 {
            std::fs::write(locks.join(id_of(&n.to_be_bytes())), n.to_be_bytes()).unwrap();
        }
        assert_eq!((put(b"one"), put(b"two"), put(b"one")), (200, 507, 200));
        assert_eq!(server.status("DELETE", &format!("/r1/locks/{}", id_of(b"one")), b""), 200);
        assert_eq!(put(b"two"), 200);
        assert_eq!(server.status("POST", &format!("/r1/keys/{}", id_of(b"key")), b"key"), 200);
    });
}

/// Who may not remove the locks of others leaves half of the reserve to those who may.
#[test]
fn the_last_of_the_reserve_is_for_who_may_break_locks() {
    on_both(|driver| {
        let Some(mount) = Mount::tmpfs("size=48m") else { return };
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["admin", "reader"]);
        let config = dir.path().join("packhouse.toml");
        std::fs::write(
            &config,
            "[users.admin]\nrights = { \"/**\" = \"full\" }\n[users.reader]\nrights = { \"/**\" = \"read\" }\n",
        )
        .unwrap();
        let config = config.to_str().unwrap();
        let flags =
            [NO_SCRUB, &["--htpasswd-file", &file, "--config", config, "--min-free", "20MiB"]].concat();
        let server = Server::on(&mount.point, driver, &flags);
        assert_eq!(as_user(&server, "admin", "POST", "/r1/?create=true", b""), 200);
        let lock = |user: &str, n: u64| {
            let body = noise(100, n);
            as_user(&server, user, "POST", &format!("/r1/locks/{}", id_of(&body)), &body)
        };
        assert_eq!((lock("reader", 1), lock("admin", 2)), (200, 200));
        let filler = mount.point.join("filler");
        std::fs::write(&filler, vec![1; 32 << 20]).unwrap();
        assert_eq!((lock("reader", 3), lock("admin", 4)), (200, 200), "16 MiB are free");
        std::fs::write(mount.point.join("more"), vec![1; 8 << 20]).unwrap();
        assert_eq!((lock("reader", 5), lock("admin", 6)), (507, 200), "8 MiB are free");
        std::fs::remove_file(filler).unwrap();
        assert_eq!(lock("reader", 5), 200);
    });
}
