//! Cases 63 to 65, and quotas under races, kills and restarts.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{NO_SCRUB, Server, id_of, login, noise, on_both, wait_for, walk};
use crate::rights::{as_user, configured};

/// In which quotas count.
const BLOCK: u64 = 4096;
/// Folders in a new repository, and with all shards of `data`.
const FOLDERS: u64 = 5;
const ALL_FOLDERS: u64 = FOLDERS + 256;

/// Blocks that all objects and all folders in repositories take.
pub fn stored(data: &Path) -> u64 {
    let ours = walk(data).into_iter().filter(|path| !path.to_str().unwrap().contains("/.packhouse"));
    let blocks = |path: &Path| match path.metadata().unwrap() {
        meta if meta.is_file() => meta.len().div_ceil(BLOCK).max(1),
        _ => 1,
    };
    let counts = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.is_file()
            || ["data", "index", "keys", "locks", "snapshots"].contains(&name)
            || name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    ours.filter(|path| path != data && counts(path)).map(|path| blocks(&path)).sum()
}

fn bytes(blocks: u64) -> String {
    (blocks * BLOCK).to_string()
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
        let server = Server::start(driver, &[&["--max-size", &bytes(32)][..], NO_SCRUB].concat());
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
        // To the block; config, keys and folders count, a lock fits even so, a repeat needs no room. The shards of `data`
        // come with the first pack where they fit, else one by one.
        assert_eq!(stored(&server.data), FOLDERS + 1 + 22);
        assert_eq!(server.status("POST", "/r1/config", &noise(4_000, 4)), 200);
        assert_eq!(put(&server, "/r1/", "keys", &noise(3 * 4096 + 1, 5)), 507);
        let fits = noise(3 * 4096, 6);
        let chunked = [format!("{:x}\r\n", fits.len()).as_bytes(), &fits, b"\r\n0\r\n\r\n"].concat();
        let path = format!("/r1/keys/{}", id_of(&fits));
        assert_eq!(server.request("POST", &path, "Transfer-Encoding: chunked\r\n", &chunked).status, 200);
        assert_eq!(stored(&server.data), 32);
        assert_eq!(put(&server, "/r1/", "index", b"x"), 507);
        assert_eq!(put(&server, "/r1/", "locks", &noise(5_000, 7)), 200);
        assert_eq!(put(&server, "/r1/", "data", &noise(90_000, 1)), 200, "a repeat");
        // A delete frees.
        assert_eq!(server.status("DELETE", &path, b""), 200);
        assert_eq!(server.status("DELETE", &path, b""), 200);
        assert_eq!(put(&server, "/r1/", "index", &noise(4097, 8)), 507);
        assert_eq!(put(&server, "/r1/", "index", &noise(4096, 8)), 200);
        assert_eq!(stored(&server.data), 32, "two blocks of the lock");
    });
}

#[test]
fn case_65_races_for_room_across_restarts_and_kills() {
    on_both(|driver| {
        const SIZE: usize = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        const ROOM: u64 = ALL_FOLDERS + 50 * 5;
        let quota = bytes(ROOM);
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
        assert_eq!(stored(&data), ROOM);
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
        assert_eq!(stored(&data), ROOM);
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
            assert!(stored(&data) <= ROOM);
            server = Server::on(&data, driver, &flags);
            counted(&server);
            let (_, refused) = race(&server, 100, 50_000_000 * (round + 1));
            assert!(refused > 0);
            assert_eq!(stored(&data), ROOM, "exactly what fits");
        }
        assert!(server.files().iter().all(|file| !file.contains("tmp")), "nothing is left over");
    });
}

#[test]
fn an_unclean_stop_is_not_trusted_and_does_not_block_the_start() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        // The pack takes 74 blocks, and leaves 170.
        let flags = ["--max-size", &bytes(ALL_FOLDERS + 244)];
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
        assert_eq!(put(&server, "/r1/", "data", &noise(170 * 4096 + 1, 2)), 507);
        assert_eq!(put(&server, "/r1/", "data", &noise(170 * 4096, 2)), 200);
        // Objects that came by other means are found at the next start.
        drop(server);
        std::fs::remove_file(
            data.join("r1/data").join(&id_of(&noise(170 * 4096, 2))[..2]).join(id_of(&noise(170 * 4096, 2))),
        )
        .unwrap();
        let server = Server::on(&data, driver, &flags);
        counted(&server);
        assert_eq!(put(&server, "/r1/", "data", &noise(170 * 4096, 3)), 200);
    });
}

#[test]
fn a_limit_that_goes_and_comes_back_has_missed_nothing() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("packhouse.toml");
        // The pack takes 220 blocks, and leaves 26; the next start finds a folder that the tests have made.
        let limited = &format!("max-size = {}\n", bytes(ALL_FOLDERS + 246));
        std::fs::write(&config, limited).unwrap();
        let data = dir.path().join("data");
        let flags = ["--config", config.to_str().unwrap()];
        let mut server = Server::on(&data, driver, &flags);
        counted(&server);
        server.create("/q1/");
        std::fs::write(&config, "").unwrap();
        server.signal("-HUP");
        server.wait_for_log("reloaded the settings");
        assert_eq!(put(&server, "/q1/", "data", &noise(900_000, 1)), 200);
        std::fs::write(&config, limited).unwrap();
        server.signal("-HUP");
        wait_for("the limit", || server.request_count("reloaded the settings") == 2);
        assert_eq!(put(&server, "/q1/", "data", &noise(26 * 4096 + 1, 2)), 507);
        server.signal("-KILL");
        server.wait();
        let server = Server::on(&data, driver, &flags);
        let early = put(&server, "/q1/", "data", &noise(26 * 4096 + 1, 2));
        assert!(early == 507 || early == 503, "{early}");
        counted(&server);
        assert_eq!(put(&server, "/q1/", "data", &noise(25 * 4096 + 1, 2)), 507);
        assert_eq!(put(&server, "/q1/", "data", &noise(25 * 4096, 2)), 200);
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
        let server = Server::on(&data, driver, &["--max-size", &bytes(4)]);
        counted(&server);
        // Three folders count: a link is none.
        assert_eq!(put(&server, "/good/", "keys", &noise(1000, 1)), 200);
        assert_eq!(put(&server, "/good/", "keys", &noise(1, 2)), 507);
    });
}

#[test]
fn users_and_repositories_have_quotas_of_their_own() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        // Folders, a shard of `data` each, and packs: 5 + 1 + 15 and 5 + 1 + 10; 5 + 1 + 13.
        let toml = format!(
            "[users.alice]\nmax-size = {}\n[repos.\"/shared/small/\"]\nmax-size = {}\n",
            bytes(37),
            bytes(19)
        );
        let server = configured(driver, dir.path(), &["alice", "bob"], &toml, &[]);
        counted(&server);
        let put = |user: &str, repo: &str, bytes: usize, seed: u64| {
            let body = noise(bytes, seed);
            assert_eq!(as_user(&server, user, "POST", &format!("{repo}?create=true"), b""), 200);
            as_user(&server, user, "POST", &format!("{repo}data/{}", id_of(&body)), &body)
        };
        assert_eq!(put("alice", "/alice/", 60_000, 1), 200);
        assert_eq!(put("alice", "/alice/two/", 10 * 4096 + 1, 2), 507);
        assert_eq!(put("bob", "/alice/", 10 * 4096 + 1, 2), 507, "whoever stores there");
        assert_eq!(put("alice", "/alice/two/", 10 * 4096, 2), 200);
        assert_eq!(put("alice", "/elsewhere/", 500_000, 3), 200);
        assert_eq!(put("bob", "/shared/small/", 13 * 4096 + 1, 4), 507);
        assert_eq!(put("bob", "/shared/small/", 13 * 4096, 4), 200);
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
        assert_eq!(bytes("/alice/two/"), Some(40_960.into()));
        assert_eq!(bytes("/shared/small/"), Some(53_248.into()));
        let output = std::process::Command::new(crate::common::program())
            .args(["repo", "stat", "/shared/small", "--path"])
            .arg(&server.data)
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("53248          1  data"));
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
        let mut server = Server::start(driver, &[&["--max-size", "300MiB"][..], NO_SCRUB].concat());
        counted(&server);
        for n in 0..100 {
            let repo = format!("/r{n}/");
            server.create(&repo);
            assert_eq!(put(&server, &repo, "data", &noise(1000, n)), 200);
        }
        server.signal("-KILL");
        server.wait();
        let again = Server::on(&server.data, driver, &[&["--max-size", "300MiB"][..], NO_SCRUB].concat());
        assert_eq!(put(&again, "/r1/", "data", &noise(50_000_000, 7)), 200, "before anything is counted");
    });
}

/// What a client can make a disk hold is bounded by its quota: repositories without a pack, empty objects, locks.
#[test]
fn nothing_is_outside_the_quota() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let toml = "[users.alice]\nmax-size = \"1MiB\"\nrights = { \"/alice/**\" = \"append\" }\n";
        let server = configured(driver, dir.path(), &["alice"], toml, NO_SCRUB);
        counted(&server);
        let as_alice = |method: &str, path: &str, body: &[u8]| as_user(&server, "alice", method, path, body);
        let mut refused = 0;
        for n in 0..100_u64 {
            let repo = format!("/alice/r{n}/");
            if as_alice("POST", &format!("{repo}?create=true"), b"") != 200 {
                refused += 1;
                assert_eq!(as_alice("GET", &format!("{repo}keys/"), b""), 404);
                continue;
            }
            for m in 0..4 {
                let lock = noise(60_000, n * 100 + m);
                as_alice("POST", &format!("{repo}locks/{}", id_of(&lock)), &lock);
            }
        }
        assert!(refused > 0);
        // A MiB, and a quarter of one for locks.
        assert!((256..=320).contains(&stored(&server.data)), "{}", stored(&server.data));
        assert_eq!(as_alice("POST", "/alice/r0/?create=true", b""), 200, "what is there is made again");
    });
}

#[test]
fn a_user_has_so_many_objects_and_repositories() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let toml = "max-repos-per-user = 3\n[users.alice]\nmax-objects = 5\n[users.bob]\nmax-repos = 4\n";
        let server = configured(driver, dir.path(), &["alice", "bob", "carol"], toml, NO_SCRUB);
        counted(&server);
        let make =
            |user: &str, repo: &str| as_user(&server, user, "POST", &format!("{repo}?create=true"), b"");
        let put = |user: &str, repo: &str, n: u8| {
            as_user(&server, user, "POST", &format!("{repo}keys/{}", id_of(&[n])), &[n])
        };
        assert_eq!(make("alice", "/alice/"), 200);
        for n in 0..5 {
            assert_eq!(put("alice", "/alice/", n), 200);
        }
        assert_eq!(put("alice", "/alice/", 5), 507);
        assert_eq!(put("alice", "/alice/", 4), 200, "a repeat");
        assert_eq!(as_user(&server, "alice", "DELETE", &format!("/alice/keys/{}", id_of(&[4])), b""), 200);
        assert_eq!(put("alice", "/alice/", 5), 200);
        // Below a folder, whoever makes them, and of a user, wherever.
        assert_eq!((make("carol", "/alice/b/"), make("alice", "/alice/c/")), (200, 200));
        assert_eq!((make("alice", "/alice/d/"), make("carol", "/alice/d/")), (507, 507));
        assert_eq!(make("alice", "/alice/"), 200, "one that is there");
        let made = (0..9).filter(|n| make("bob", &format!("/bob{n}/")) == 200);
        assert_eq!(made.count(), 4);
        // A new process counts what is there.
        std::fs::create_dir_all(server.data.join("dave/a/keys")).unwrap();
        std::fs::create_dir_all(server.data.join("dave/b/keys")).unwrap();
        assert_eq!(make("carol", "/dave/c/"), 200);
        wait_for("the count", || make("carol", "/dave/d/") == 507 && make("bob", "/dave/d/") == 507);
    });
}
