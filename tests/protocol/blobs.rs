//! Cases 16–33: storing, reading and deleting blobs.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::common::{NO_SCRUB, Server, id_of, noise, on_both, wait_for, walk};

const KINDS: [&str; 5] = ["data", "index", "keys", "locks", "snapshots"];

#[test]
fn case_16_to_18_storing() {
    on_both(|driver| {
        let server = Server::start(driver, &["--max-lock-size", "1GiB"]);
        for (seed, kind) in KINDS.into_iter().enumerate() {
            let body = noise(100_000 * seed + 7, seed as u64);
            let id = id_of(&body);
            let path = server.store("/a/b/", kind, &body);
            let place = if kind == "data" {
                format!("a/b/data/{}/{id}", &id[..2])
            } else {
                format!("a/b/{kind}/{id}")
            };
            assert_eq!(server.mode(&place), 0o600);
            let accessed =
                |place: &str| std::fs::metadata(server.data.join(place)).unwrap().accessed().unwrap();
            let before = accessed(&place);
            assert_eq!(server.request("GET", &path, "", b"").body, body);
            assert_eq!(accessed(&place), before, "reading writes nothing");
            assert_eq!(std::fs::read(server.data.join(&place)).unwrap(), body);
        }
        assert_eq!(server.files().len(), 5);
    });
}

#[test]
fn case_19_and_20_repeating() {
    on_both(|driver| {
        for flags in [&[][..], &["--append-only"], &["--no-verify-upload"]] {
            let server = Server::start(driver, &[flags, &["--max-lock-size", "1GiB"]].concat());
            for kind in KINDS {
                let body = noise(300_000, 5);
                let path = server.store("/r1/", kind, &body);
                let file =
                    server.data.join(server.files().into_iter().find(|file| file.contains(kind)).unwrap());
                let before = std::fs::metadata(&file).unwrap();
                assert_eq!(server.status("POST", &path, &body), 200);
                let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
                assert_eq!(
                    server.request("POST", &path, "Transfer-Encoding: chunked\r\n", &chunked).status,
                    200
                );
                let mut wrong = body.clone();
                wrong[299_999] ^= 1;
                assert_eq!(server.status("POST", &path, &wrong), 403);
                let after = std::fs::metadata(&file).unwrap();
                assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
                assert_eq!(std::fs::read(&file).unwrap(), body);
            }
        }
    });
}

#[test]
fn case_20_another_length_is_refused_from_the_head() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let path = server.store("/r1/", "keys", b"key");
        let mut conn = server.connect();
        conn.send(format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        ));
        assert_eq!(conn.response().status, 403, "and no 100 before it");
    });
}

#[test]
fn case_20_a_damaged_object_is_kept_and_told() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let body = noise(50_000, 3);
        let path = server.store("/r1/", "snapshots", &body);
        let file = server.data.join(&server.files()[0]);
        let mut damaged = body.clone();
        damaged[17] ^= 4;
        std::fs::write(&file, &damaged).unwrap();
        assert_eq!(server.status("POST", &path, &body), 403);
        server.wait_for_log("the stored object is damaged");
        assert_eq!(std::fs::read(&file).unwrap(), damaged);
    });
}

#[test]
fn case_21_and_22_wrong_bytes() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let trusting = Server::start(driver, &["--no-verify-upload"]);
        assert!(trusting.text().contains("UPLOADS ARE NOT VERIFIED"));
        for kind in KINDS {
            let path = format!("/r1/{kind}/{}", id_of(b"right"));
            assert_eq!(server.status("POST", &path, b"wrong"), 400);
            assert_eq!(server.status("HEAD", &path, b""), 404);
            assert_eq!(trusting.status("POST", &path, b"wrong"), 200);
            assert_eq!(trusting.request("GET", &path, "", b"").body, b"wrong");
        }
        assert_eq!(server.files(), Vec::<String>::new());
    });
}

#[test]
fn case_23_to_25_reading_and_deleting() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let absent = format!("/r1/data/{}", id_of(b"absent"));
        for method in ["GET", "HEAD"] {
            assert_eq!(server.status(method, &absent, b""), 404);
        }
        let body = noise(1_234_567, 1);
        let path = server.store("/r1/", "data", &body);
        let head = server.request("HEAD", &path, "", b"");
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "1234567", 0));
        let get = server.request("GET", &path, "", b"");
        assert_eq!(
            (get.status, get.header("accept-ranges"), get.header("content-type")),
            (200, "bytes", "application/octet-stream")
        );
        assert!(get.header("server").starts_with("packhouse/") && get.header("date").ends_with(" GMT"));
        assert_eq!(get.body, body);
        for path in [&path, &path, &absent, &format!("/none/data/{}", id_of(b"x"))] {
            let deleted = server.request("DELETE", path, "", b"");
            assert_eq!((deleted.status, deleted.body.len()), (200, 0));
        }
        assert_eq!(server.status("GET", &path, b""), 404);
        assert!(!server.data.join("none").exists());
    });
}

#[test]
fn case_26_uploads_at_once() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let body = noise(3_000_000, 9);
        let path = format!("/r1/data/{}", id_of(&body));
        let mut conns: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for conn in &mut conns {
            conn.send(
                [
                    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len())
                        .as_bytes(),
                    &body[..1_000_000],
                ]
                .concat(),
            );
        }
        assert_eq!(server.status("HEAD", &path, b""), 404);
        assert_eq!(server.request("GET", "/r1/data/", "", b"").body, b"[]");
        for conn in &mut conns {
            conn.send(&body[1_000_000..]);
        }
        for conn in &mut conns {
            assert_eq!(conn.response().status, 200);
        }
        assert_eq!(server.request("GET", &path, "", b"").body, body);
        assert_eq!(server.files().len(), 1);
    });
}

#[test]
fn case_27_and_28_uploads_that_end_early() {
    on_both(|driver| {
        let server = Server::start(driver, NO_SCRUB);
        server.create("/r1/");
        server.store("/r1/", "keys", b"key");
        wait_for("idle", || server.descriptors() < 60);
        std::thread::sleep(Duration::from_millis(100));
        let before = server.descriptors();
        let head =
            format!("POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n", id_of(b"x"));
        for _ in 0..20 {
            let mut conn = server.connect();
            conn.send(&head);
            conn.send(noise(1_000_000, 1));
            conn.reset();
            let mut conn = server.connect();
            conn.send(&head);
            conn.send(noise(400_000, 1));
            conn.finish();
            assert_eq!(conn.response().status, 400);
        }
        wait_for("all descriptors to be closed", || server.descriptors() <= before);
        assert_eq!(server.files().len(), 1);
        assert!(walk(&server.data).iter().all(|path| !path.to_string_lossy().contains("packhouse-tmp")));
    });
}

#[test]
fn case_29_chunked_uploads() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let body = noise(700_000, 2);
        let path = format!("/r1/data/{}", id_of(&body));
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        let coded: Vec<u8> = body
            .chunks(65_537)
            .flat_map(|part| [format!("{:x};ext=1\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())
            .collect();
        for (end, status) in [
            ("", 400),
            ("zz\r\n", 400),
            ("2\r\nabc\r\n", 400),
            ("-1\r\n", 400),
            ("0\r\nTrailer: x\r\n\r\n", 200),
        ] {
            let mut conn = server.connect();
            conn.send(&head);
            conn.send(&coded);
            conn.send(end);
            if end.is_empty() {
                conn.finish();
            }
            assert_eq!(conn.response().status, status, "{end:?}");
            if status == 400 {
                assert!(conn.is_ended(), "closed after {end:?}");
            } else {
                assert_eq!(conn.request("GET", &path, "", b"").body, body);
            }
        }
    });
}

#[test]
fn case_30_no_body() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        for (body, status) in [("x", 400), ("", 200)] {
            let mut conn = server.connect();
            conn.send(format!("POST /r1/data/{} HTTP/1.1\r\nHost: h\r\n\r\n", id_of(body.as_bytes())));
            assert_eq!(conn.response().status, status);
        }
        let empty = format!("/r1/data/{}", id_of(b""));
        let get = server.request("GET", &empty, "Range: bytes=0-\r\n", b"");
        assert_eq!((get.status, get.header("content-length")), (200, "0"));
        assert_eq!(server.status("POST", &empty, b""), 200);
    });
}

#[test]
fn case_31_expectations() {
    on_both(|driver| {
        let server = Server::start(driver, &["--append-only"]);
        let path = server.store("/r1/", "keys", b"key");
        let ask = |method: &str, path: &str, length: usize, expect: &str| {
            let mut conn = server.connect();
            conn.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\nExpect: {expect}\r\n\r\n"
            ));
            let first = conn.response();
            (conn, first.status)
        };
        let new = format!("/r1/keys/{}", id_of(b"new"));
        for (path, body, status) in [(&new, b"new", 200), (&path, b"key", 200), (&path, b"yek", 403)] {
            let (mut conn, first) = ask("POST", path, 3, "100-continue");
            assert_eq!(first, 100);
            conn.send(body);
            assert_eq!(conn.response().status, status);
        }
        for (method, path, length, status) in [
            ("POST", path.as_str(), 4, 403),
            ("POST", "/r1/keys/foobar", 4, 404),
            ("PUT", "/r1/config", 4, 405),
            ("DELETE", "/r1/config", 4, 403),
        ] {
            assert_eq!(ask(method, path, length, "100-continue").1, status, "{method} {path}");
        }
        assert_eq!(ask("POST", &new, 3, "200-ok").1, 417);
    });
}

#[test]
fn case_33_the_answer_to_a_refused_body_can_be_read() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let path = server.store("/r1/", "data", b"pack");
        let key = format!("/r1/keys/{}", id_of(b"key"));
        let body = noise(17 << 20, 1);
        for (path, status) in [(path.as_str(), 403), (&key, 413), ("/r1/keys/foobar", 404), ("/r1/", 400)] {
            let mut conn = server.connect();
            conn.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()));
            conn.send(&body);
            let response = conn.response();
            assert_eq!((response.status, response.header("connection")), (status, "close"));
            assert!(conn.is_ended());
        }
    });
}
