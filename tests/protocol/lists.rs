//! Cases 44–48: lists.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Server, V2, id_of, noise, on_both};

#[test]
fn case_44_forms() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let v1 = "application/vnd.x.restic.rest.v1";
        let v2 = "application/vnd.x.restic.rest.v2";
        let accept = |value: &str| format!("Accept: {value}\r\n");
        for (headers, media_type) in [
            (String::new(), v1),
            (accept(v1), v1),
            (accept(v2), v2),
            (accept("application/vnd.x.restic.rest.v9"), v1),
            (accept(&format!("{v2}, */*")), v1),
            (accept("*/*"), v1),
        ] {
            let list = server.request("GET", "/r1/locks/", &headers, b"");
            assert_eq!(
                (list.status, list.header("content-type"), list.body.as_slice()),
                (200, media_type, b"[]".as_slice()),
                "{headers}"
            );
            assert_eq!(list.header("content-length"), "2");
        }
        let path = server.store("/r1/", "locks", b"lock");
        let id = id_of(b"lock");
        assert_eq!(server.request("GET", "/r1/locks/", "", b"").text(), format!("[\"{id}\"]"));
        assert_eq!(
            server.request("GET", "/r1/locks/", V2, b"").text(),
            format!("[{{\"name\":\"{id}\",\"size\":4}}]")
        );
        assert_eq!(server.status("DELETE", &path, b""), 200);
        for method in ["HEAD", "POST", "DELETE", "PUT"] {
            let response = server.request(method, "/r1/locks/", "", b"");
            assert_eq!((response.status, response.header("allow")), (405, "GET"), "{method}");
        }
    });
}

#[test]
fn case_45_and_46_what_is_listed() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let data = server.data.join("r1/data");
        let mut ids: Vec<_> = (0..1000_u32).map(|n| id_of(&n.to_le_bytes())).collect();
        ids.sort();
        for (n, id) in ids.iter().enumerate() {
            std::fs::create_dir_all(data.join(&id[..2])).unwrap();
            std::fs::write(data.join(&id[..2]).join(id), vec![0; n]).unwrap();
        }
        // What does not belong there is not listed.
        let stray = id_of(b"stray");
        std::fs::write(data.join(&stray), "in no shard").unwrap();
        let wrong = if stray.starts_with("00") { "01" } else { "00" };
        std::fs::write(data.join(wrong).join(&stray), "in the wrong shard").unwrap();
        std::fs::write(data.join(&stray[..2]).join(format!("{stray}.rest-server-temp123")), "").unwrap();
        std::fs::write(data.join(&stray[..2]).join(format!("{stray}.packhouse-tmp-0123456789abcdef")), "")
            .unwrap();
        let keys = server.data.join("r1/keys");
        std::fs::create_dir(keys.join(&stray)).unwrap();
        std::fs::write(keys.join(".DS_Store"), "").unwrap();
        std::fs::write(keys.join(stray.to_uppercase()), "").unwrap();
        std::os::unix::fs::symlink("nowhere", keys.join(id_of(b"link"))).unwrap();
        let list = server.request("GET", "/r1/data/", V2, b"");
        assert_eq!((list.status, list.names()), (200, ids.clone()));
        let text = list.text();
        for (n, id) in ids.iter().enumerate() {
            assert!(text.contains(&format!("{{\"name\":\"{id}\",\"size\":{n}}}")));
        }
        assert_eq!(server.request("GET", "/r1/data/", "", b"").names(), ids);
        assert_eq!(server.request("GET", "/r1/keys/", V2, b"").body, b"[]");
        // A missing type folder of an existing repository is an empty list; a missing repository is none.
        std::fs::remove_dir(server.data.join("r1/index")).unwrap();
        assert_eq!(server.request("GET", "/r1/index/", "", b"").body, b"[]");
        std::fs::create_dir(server.data.join("bare")).unwrap();
        for repo in ["r2", "bare", "r2/sub"] {
            assert_eq!(server.status("GET", &format!("/{repo}/index/"), b""), 404, "{repo}");
        }
        std::fs::write(server.data.join("bare/config"), "c").unwrap();
        assert_eq!(server.request("GET", "/bare/data/", "", b"").body, b"[]");
    });
}

#[test]
fn case_45_a_long_list_is_streamed() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let keys = server.data.join("r1/keys");
        let mut ids: Vec<_> = (0..5000_u32).map(|n| id_of(&n.to_le_bytes())).collect();
        ids.sort();
        ids.iter().for_each(|id| std::fs::write(keys.join(id), "").unwrap());
        let mut conn = server.connect();
        let list = conn.request("GET", "/r1/keys/", V2, b"");
        assert_eq!((list.header("transfer-encoding"), list.names()), ("chunked", ids.clone()));
        assert_eq!(conn.request("GET", "/r1/keys/", "", b"").names(), ids);
        let mut conn = server.connect();
        conn.send("GET /r1/keys/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let list = conn.response();
        assert_eq!(
            (list.header("content-length"), list.header("transfer-encoding"), list.header("connection")),
            ("", "", "close")
        );
        assert_eq!(list.names(), ids);
        assert!(list.text().ends_with(']'));
    });
}

#[test]
fn case_47_lists_while_locks_come_and_go() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.store("/r1/", "locks", b"permanent");
        let permanent = id_of(b"permanent");
        let over = AtomicBool::new(false);
        let lists = std::thread::scope(|scope| {
            for writer in 0..4_u32 {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let mut conn = server.connect();
                    for n in 0_u32.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        let body = [writer.to_le_bytes(), n.to_le_bytes()].concat();
                        let path = format!("/r1/locks/{}", id_of(&body));
                        assert_eq!(conn.request("POST", &path, "", &body).status, 200);
                        assert_eq!(conn.request("DELETE", &path, "", b"").status, 200);
                    }
                });
            }
            let start = Instant::now();
            let mut conn = server.connect();
            let mut lists = 0;
            while start.elapsed() < Duration::from_secs(10) {
                let list = conn.request("GET", "/r1/locks/", V2, b"");
                assert!(
                    list.status == 200 && list.names().contains(&permanent),
                    "{} {}",
                    list.status,
                    list.text()
                );
                lists += 1;
            }
            over.store(true, Ordering::Relaxed);
            lists
        });
        assert!(lists > 100, "{lists} lists are too few to say anything");
    });
}

#[test]
fn case_48_a_list_of_many_blobs_takes_little_memory() {
    // A million on demand: TEST_BLOBS=1000000.
    let count: u32 = std::env::var("TEST_BLOBS").map_or(50_000, |count| count.parse().unwrap());
    on_both(|driver| {
        // One worker, for all of them.
        let server = Server::start(driver, &["--workers", "1"]);
        server.create("/r1/");
        let data = server.data.join("r1/data");
        for n in 0..count {
            let id = id_of(&n.to_le_bytes());
            std::fs::create_dir_all(data.join(&id[..2])).unwrap();
            std::fs::File::create(data.join(&id[..2]).join(id)).unwrap();
        }
        let path = server.store("/r1/", "keys", &noise(100, 1));
        let before = server.memory("VmRSS");
        let answered = std::thread::scope(|scope| {
            let list = scope.spawn(|| server.request("GET", "/r1/data/", V2, b""));
            let mut conn = server.connect();
            let mut answered = 0;
            while !list.is_finished() {
                assert_eq!(conn.request("GET", &path, "", b"").body.len(), 100);
                answered += 1;
            }
            assert_eq!(list.join().unwrap().names().len(), count as usize);
            answered
        });
        assert!(answered > 5, "others were served {answered} times meanwhile");
        let growth = server.memory("VmHWM").saturating_sub(before);
        assert!(growth < 64 << 20, "memory grew by {growth} bytes");
    });
}
