//! Cases 63 to 65, and quotas under races, kills and restarts.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{NO_SCRUB, Server, id_of, login, noise, on_both, wait_for, walk};
use crate::rights::{as_user, configured};

/// Bytes of all objects but locks.
fn stored(data: &Path) -> u64 {
    let files = walk(data).into_iter().filter(|path| path.is_file());
    let ours = files.filter(|path| {
        let text = path.to_str().unwrap();
        !text.contains("/.packhouse") && !text.contains("/locks/")
    });
    ours.map(|path| path.metadata().unwrap().len()).sum()
}

fn put(server: &Server, repo: &str, kind: &str, body: &[u8]) -> u16 {
    server.status("POST", &format!("{repo}{kind}/{}", id_of(body)), body)
}

/// A store that was counted.
fn counted(server: &Server) {
    server.wait_for_log("the quotas are exact");
}

#[test]
fn case_63_and_64_over_the_quota() {
    on_both(|driver| {
        let server = Server::start(driver, &[&["--max-size", "100000"][..], NO_SCRUB].concat());
        counted(&server);
        server.create("/r1/");
        assert_eq!(put(&server, "/r1/", "data", &noise(90_000, 1)), 200);
        let (files, descriptors) = (server.files(), server.descriptors());
        let body = noise(20_000, 2);
        let path = format!("/r1/data/{}", id_of(&body));
        // From the head: the body is never sent.
        let mut conn = server.connect();
        for _ in 0..500 {
            conn.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n"));
            conn.send(&body);
            assert_eq!(conn.response().status, 507);
        }
        conn.send(format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\nExpect: 100-continue\r\n\r\n"
        ));
        assert_eq!(conn.response().status, 507);
        drop(conn);
        // In chunks: when it does not fit any more.
        let coded = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        for _ in 0..20 {
            let response = server.request("POST", &path, "Transfer-Encoding: chunked\r\n", &coded);
            assert_eq!(response.status, 507);
        }
        assert_eq!(server.files(), files);
        wait_for("the descriptors", || server.descriptors() <= descriptors);
        assert_eq!(server.request("GET", "/r1/data/", "", b"").names().len(), 1);
        // What fails gives its room back: wrong bytes, a cut body.
        let wrong = format!("/r1/data/{}", id_of(b"something else"));
        for _ in 0..5 {
            assert_eq!(server.status("POST", &wrong, &noise(10_000, 3)), 400);
            let mut cut = server.connect();
            cut.send(format!("POST {wrong} HTTP/1.1\r\nHost: h\r\nContent-Length: 10000\r\n\r\nhalf"));
            cut.finish();
            assert_eq!(cut.response().status, 400);
        }
        // To the byte; config and keys count, locks do not, a repeat needs no room.
        assert_eq!(server.status("POST", "/r1/config", &noise(4_000, 4)), 200);
        assert_eq!(put(&server, "/r1/", "keys", &noise(6_001, 5)), 507);
        let fits = noise(6_000, 6);
        let chunked = [format!("{:x}\r\n", fits.len()).as_bytes(), &fits, b"\r\n0\r\n\r\n"].concat();
        let path = format!("/r1/keys/{}", id_of(&fits));
        assert_eq!(server.request("POST", &path, "Transfer-Encoding: chunked\r\n", &chunked).status, 200);
        assert_eq!(stored(&server.data), 100_000);
        assert_eq!(put(&server, "/r1/", "index", b"x"), 507);
        assert_eq!(put(&server, "/r1/", "locks", &noise(5_000, 7)), 200);
        assert_eq!(put(&server, "/r1/", "data", &noise(90_000, 1)), 200, "a repeat");
        // A delete frees.
        assert_eq!(server.status("DELETE", &path, b""), 200);
        assert_eq!(server.status("DELETE", &path, b""), 200);
        assert_eq!(put(&server, "/r1/", "index", &noise(6_001, 8)), 507);
        assert_eq!(put(&server, "/r1/", "index", &noise(6_000, 8)), 200);
    });
}

#[test]
fn case_65_races_for_room_across_restarts_and_kills() {
    on_both(|driver| {
        const SIZE: usize = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let quota = (50 * SIZE).to_string();
        let flags = [&["--max-size", quota.as_str()][..], NO_SCRUB].concat();
        let mut server = Server::on(&data, driver, &flags);
        counted(&server);
        server.create("/r1/");
        let race = |server: &Server, count: usize, seed: u64| {
            let (stored, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for thread in 0..20 {
                    let (stored, refused) = (&stored, &refused);
                    scope.spawn(move || {
                        for n in 0..count / 20 {
                            let body = noise(SIZE, seed + (thread * 1000 + n) as u64);
                            match put(server, "/r1/", "data", &body) {
                                200 => stored.fetch_add(1, Ordering::Relaxed),
                                507 => refused.fetch_add(1, Ordering::Relaxed),
                                other => panic!("{other}"),
                            };
                        }
                    });
                }
            });
            (stored.into_inner(), refused.into_inner())
        };
        let descriptors = server.descriptors();
        assert_eq!(race(&server, 200, 1), (50, 150));
        assert_eq!(stored(&data), 50 * SIZE as u64);
        wait_for("the descriptors", || server.descriptors() <= descriptors);
        // A clean stop: exact at once.
        assert!(server.stop().success());
        let mut server = Server::on(&data, driver, &flags);
        assert_eq!(put(&server, "/r1/", "data", &noise(SIZE, 77)), 507);
        let names = server.request("GET", "/r1/data/", "", b"").names();
        for name in &names[..10] {
            assert_eq!(server.status("DELETE", &format!("/r1/data/{name}"), b""), 200);
        }
        assert_eq!(race(&server, 40, 100_000), (10, 30));
        assert_eq!(stored(&data), 50 * SIZE as u64);
        // A kill while uploads race: never a byte over, whatever was in flight, nothing left over.
        for round in 0..4u64 {
            for name in server.request("GET", "/r1/data/", "", b"").names().iter().take(25) {
                assert_eq!(server.status("DELETE", &format!("/r1/data/{name}"), b""), 200);
            }
            std::thread::scope(|scope| {
                for thread in 0..8u64 {
                    let address = server.addresses[0].clone();
                    scope.spawn(move || {
                        for n in 0..20 {
                            let body = noise(SIZE, 1_000_000 * (round + 1) + thread * 1000 + n);
                            let Ok(tcp) = std::net::TcpStream::connect(&address) else { return };
                            let mut conn = crate::common::Conn::new(tcp);
                            let path = format!("/r1/data/{}", id_of(&body));
                            let head =
                                format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n");
                            if !conn.try_send(head)
                                || !conn.try_send(&body)
                                || conn.try_response_to("POST").is_none()
                            {
                                return;
                            }
                        }
                    });
                }
                std::thread::sleep(std::time::Duration::from_millis(20 + 15 * round));
                server.signal("-KILL");
            });
            server.wait();
            assert!(stored(&data) <= 50 * SIZE as u64);
            server = Server::on(&data, driver, &flags);
            counted(&server);
            let (_, refused) = race(&server, 100, 50_000_000 * (round + 1));
            assert!(refused > 0);
            assert_eq!(stored(&data), 50 * SIZE as u64, "exactly what fits");
        }
        assert!(server.files().iter().all(|file| !file.contains("tmp")), "nothing is left over");
    });
}

#[test]
fn an_unclean_stop_is_not_trusted_and_does_not_block_the_start() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let flags = ["--max-size", "1000000"];
        let mut server = Server::on(&data, driver, &flags);
        counted(&server);
        server.create("/r1/");
        assert_eq!(put(&server, "/r1/", "data", &noise(300_000, 1)), 200);
        server.signal("-KILL");
        server.wait();
        // The journal of that server is the only thing that the next one knows at first.
        let journal = std::fs::read_to_string(data.join(".packhouse/quota")).unwrap();
        assert!(
            journal.lines().any(|line| line.ends_with(" r1 .")) && !journal.contains("clean"),
            "{journal}"
        );
        let server = Server::on(&data, driver, &flags);
        counted(&server);
        assert_eq!(put(&server, "/r1/", "data", &noise(700_001, 2)), 507);
        assert_eq!(put(&server, "/r1/", "data", &noise(700_000, 2)), 200);
        // Objects that came by other means are found at the next start.
        drop(server);
        std::fs::remove_file(
            data.join("r1/data").join(&id_of(&noise(700_000, 2))[..2]).join(id_of(&noise(700_000, 2))),
        )
        .unwrap();
        let server = Server::on(&data, driver, &flags);
        counted(&server);
        assert_eq!(put(&server, "/r1/", "data", &noise(700_000, 3)), 200);
    });
}

#[test]
fn a_limit_that_goes_and_comes_back_has_missed_nothing() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("packhouse.toml");
        let limited = "max-size = 1_000_000\n";
        std::fs::write(&config, limited).unwrap();
        let data = dir.path().join("data");
        let flags = ["--config", config.to_str().unwrap()];
        let mut server = Server::on(&data, driver, &flags);
        counted(&server);
        server.create("/r1/");
        std::fs::write(&config, "").unwrap();
        server.signal("-HUP");
        server.wait_for_log("reloaded the settings");
        assert_eq!(put(&server, "/r1/", "data", &noise(900_000, 1)), 200);
        std::fs::write(&config, limited).unwrap();
        server.signal("-HUP");
        wait_for("the limit", || server.request_count("reloaded the settings") == 2);
        assert_eq!(put(&server, "/r1/", "data", &noise(100_001, 2)), 507);
        server.signal("-KILL");
        server.wait();
        let server = Server::on(&data, driver, &flags);
        let early = put(&server, "/r1/", "data", &noise(100_001, 2));
        assert!(early == 507 || early == 503, "{early}");
        counted(&server);
        assert_eq!(put(&server, "/r1/", "data", &noise(100_001, 2)), 507);
        assert_eq!(put(&server, "/r1/", "data", &noise(100_000, 2)), 200);
    });
}

#[test]
fn what_can_not_be_counted_blocks_nobody() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        for folder in ["odd/keys", "odd/index", "good/keys"] {
            std::fs::create_dir_all(data.join(folder)).unwrap();
        }
        std::os::unix::fs::symlink("/tmp", data.join("odd/data")).unwrap();
        std::fs::write(data.join("odd/snapshots"), b"no folder").unwrap();
        let server = Server::on(&data, driver, &["--max-size", "1000"]);
        counted(&server);
        assert_eq!(put(&server, "/good/", "keys", &noise(1000, 1)), 200);
        assert_eq!(put(&server, "/good/", "keys", &noise(1, 2)), 507);
    });
}

#[test]
fn users_and_repositories_have_quotas_of_their_own() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let toml = "[users.alice]\nmax-size = \"100KB\"\n[repos.\"/shared/small/\"]\nmax-size = 50_000\n";
        let server = configured(driver, dir.path(), &["alice", "bob"], toml, &[]);
        counted(&server);
        let put = |user: &str, repo: &str, bytes: usize, seed: u64| {
            let body = noise(bytes, seed);
            assert_eq!(as_user(&server, user, "POST", &format!("{repo}?create=true"), b""), 200);
            as_user(&server, user, "POST", &format!("{repo}data/{}", id_of(&body)), &body)
        };
        assert_eq!(put("alice", "/alice/", 60_000, 1), 200);
        assert_eq!(put("alice", "/alice/two/", 40_001, 2), 507);
        assert_eq!(put("bob", "/alice/", 40_001, 2), 507, "whoever stores there");
        assert_eq!(put("alice", "/alice/two/", 40_000, 2), 200);
        assert_eq!(put("alice", "/elsewhere/", 500_000, 3), 200);
        assert_eq!(put("bob", "/shared/small/", 50_001, 4), 507);
        assert_eq!(put("bob", "/shared/small/", 50_000, 4), 200);
        assert_eq!(put("bob", "/shared/large/", 60_000, 5), 200);
        // What an operator sees.
        let output = std::process::Command::new(crate::common::program())
            .args(["repo", "list", "--json", "--path"])
            .arg(&server.data)
            .output()
            .unwrap();
        let repos: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let bytes = |name: &str| {
            repos
                .as_array()
                .unwrap()
                .iter()
                .find(|repo| repo["repo"] == name)
                .map(|repo| repo["bytes"].clone())
        };
        assert_eq!(bytes("/alice/"), Some(60_000.into()));
        assert_eq!(bytes("/alice/two/"), Some(40_000.into()));
        assert_eq!(bytes("/shared/small/"), Some(50_000.into()));
        let output = std::process::Command::new(crate::common::program())
            .args(["repo", "stat", "/shared/small", "--path"])
            .arg(&server.data)
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("50000          1  data"));
    });
}

#[test]
fn with_a_login_in_the_name_nothing_leaks() {
    // A user's name with a slash is no folder, and its quota concerns nobody else.
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let server = configured(
            driver,
            dir.path(),
            &["a/b"],
            "[users.\"a/b\"]\nmax-size = 10\n",
            &["--private-repos"],
        );
        let header = login("a/b", "pw");
        assert_eq!(server.request("POST", "/a/b/?create=true", &header, b"").status, 403);
    });
}

/// Bytes on disk of the files without a name that a server has open.
fn room_held(server: &Server) -> u64 {
    let folder = format!("/proc/{}/fd", server.pid());
    let open = std::fs::read_dir(folder).unwrap().flatten().filter_map(|entry| entry.path().metadata().ok());
    open.filter(|meta| meta.is_file() && meta.nlink() == 0).map(|meta| meta.blocks() * 512).sum()
}

/// Who announces much and sends little holds little, of the quota and of the disk, and after half a minute next to nothing.
#[test]
fn announcing_holds_no_room() {
    let launch = |driver| Server::start(driver, &[&["--max-size", "200MiB"][..], NO_SCRUB].concat());
    let servers = ["uring", "epoll"].map(launch);
    let mut held = Vec::new();
    for server in &servers {
        counted(server);
        server.create("/r1/");
        for n in 0..5_u64 {
            let mut conn = server.connect();
            let id = id_of(&n.to_le_bytes());
            conn.send(format!("POST /r1/data/{id} HTTP/1.1\r\nHost: h\r\nContent-Length: 60000000\r\n\r\n"));
            conn.send([0; 64]);
            held.push(conn);
        }
        wait_for("the uploads to begin", || room_held(server) > 0);
        assert_eq!(put(server, "/r1/", "data", &noise(20_000_000, 1)), 200, "most of the quota is left");
        assert!(room_held(server) <= 5 * (32 << 20) + (1 << 20), "{}", room_held(server));
        // What does not fit at all is refused before its body.
        let mut conn = server.connect();
        conn.send(format!(
            "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 300000000\r\n\r\n",
            id_of(b"x")
        ));
        assert_eq!(conn.response().status, 507);
    }
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_secs(32) {
        std::thread::sleep(std::time::Duration::from_secs(4));
        // Two of each go on sending a little.
        for conn in [0, 1, 5, 6] {
            held[conn].send([0; 256]);
        }
    }
    for server in &servers {
        wait_for("the room to be given back", || room_held(server) < 1 << 20);
        assert_eq!(put(server, "/r1/", "data", &noise(150_000_000, 2)), 200);
    }
}

/// After a crash with many small repositories most of a quota can be used at once.
#[test]
fn small_repositories_have_small_leases() {
    on_both(|driver| {
        let mut server = Server::start(driver, &[&["--max-size", "100MiB"][..], NO_SCRUB].concat());
        counted(&server);
        for n in 0..100 {
            let repo = format!("/r{n}/");
            server.create(&repo);
            assert_eq!(put(&server, &repo, "data", &noise(1000, n)), 200);
        }
        server.signal("-KILL");
        server.wait();
        let again = Server::on(&server.data, driver, &[&["--max-size", "100MiB"][..], NO_SCRUB].concat());
        assert_eq!(put(&again, "/r1/", "data", &noise(50_000_000, 7)), 200, "before anything is counted");
    });
}
