//! Cases 56 and 57, floods of wrong passwords, and malformed credentials.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Server, login, noise, on_both, users, wait_for};

fn ask(server: &Server, header: &str) -> u16 {
    server.request("HEAD", "/r1/config", header, b"").status
}

#[test]
fn case_56_changes_of_the_file_are_seen() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice", "bob"]);
        let server = Server::start(driver, &["--htpasswd-file", &file]);
        assert_eq!((ask(&server, &login("alice", "pw")), ask(&server, &login("bob", "pw"))), (404, 404));
        // Without a signal: alice is gone, carol is new.
        let hash = bcrypt::hash("pw", 4).unwrap();
        let bob = std::fs::read_to_string(&file).unwrap().lines().nth(1).unwrap().to_owned();
        std::fs::write(&file, format!("{bob}\ncarol:{hash}\n# a comment\n")).unwrap();
        wait_for("carol", || ask(&server, &login("carol", "pw")) == 404);
        assert_eq!(ask(&server, &login("alice", "pw")), 401);
        // A broken file changes nothing and is named with its line.
        for broken in ["what is this\n", "\u{0}\n", "# one\nand this\nand that\n"] {
            let before = server.request_count("not reloaded, the old settings and the old users stay");
            std::fs::write(&file, broken).unwrap();
            server.signal("-HUP");
            wait_for("the complaint", || {
                server.request_count("not reloaded, the old settings and the old users stay") > before
            });
            assert!(server.text().contains("line "));
            assert_eq!(ask(&server, &login("carol", "pw")), 404);
        }
        // A scheme that is not known is named, with its line.
        std::fs::write(&file, format!("{bob}\neve:$apr1$x$y\n")).unwrap();
        server.signal("-HUP");
        server.wait_for_log("line 2, user eve: hashes of MD5 and SHA-crypt");
        wait_for("carol to be out", || ask(&server, &login("carol", "pw")) == 401);
        assert_eq!((ask(&server, &login("bob", "pw")), ask(&server, &login("eve", "y"))), (404, 401));
    });
}

#[test]
fn case_57_one_hash_for_equal_logins_and_none_for_a_remembered_one() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        std::fs::write(&file, format!("alice:{}\n", bcrypt::hash("pw", 10).unwrap())).unwrap();
        let flags = ["--htpasswd-file", file.to_str().unwrap(), "--admin-listen", "127.0.0.1:0"];
        let server = Server::start(driver, &flags);
        // The queue would refuse the seventeenth attempt of one address: these are one attempt.
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| assert_eq!(ask(&server, &login("alice", "pw")), 404));
            }
        });
        let start = Instant::now();
        for _ in 0..300 {
            assert_eq!(ask(&server, &login("alice", "pw")), 404);
        }
        // Three hundred hashes at this cost would take a quarter of a minute at the least.
        assert!(start.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn case_54_what_is_no_login() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        let odd = [
            ("colon", "a:b:c"),
            ("umlaut", "pässwörd"),
            ("space", " x "),
            ("long", "0123456789012345678901234567890123456789012345678901234567890123456789ab"),
        ];
        let lines = odd.map(|(user, password)| format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap()));
        std::fs::write(&file, lines.concat()).unwrap();
        let server =
            Server::start(driver, &["--htpasswd-file", file.to_str().unwrap(), "--login-throttle=false"]);
        for (user, password) in odd {
            assert_eq!(ask(&server, &login(user, password)), 404, "{user}");
            assert_eq!(ask(&server, &login(user, &password[1..])), 401, "{user}");
        }
        let long = "x".repeat(8 * 1024);
        for header in [
            login("colon", &long),
            login(&long, "x"),
            login("col\0on", "a:b:c"),
            login("colon\n", "a:b:c"),
            login("", ""),
            "Authorization: Basic\r\n".into(),
            "Authorization: \r\n".into(),
            "Authorization: Basic ====\r\n".into(),
            "Authorization: Basic /w==\r\n".into(),
            "Authorization: Digest username=\"colon\"\r\n".into(),
            format!("Authorization: {}\r\n", "Basic ".repeat(50)),
        ] {
            assert_eq!(ask(&server, &header), 401, "{}", &header[..header.len().min(60)]);
        }
        // The line that fail2ban reads, and that nobody can forge.
        server.wait_for_log("login failed: address=127.0.0.1 user=\"umlaut\"");
        server.wait_for_log("user=\"colon\\n\"");
        assert!(!server.text().contains("a:b:c"));
    });
}

#[test]
fn wrong_logins_are_slowed_down_and_right_ones_are_not() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice", "bob"]);
        let server = Server::start(driver, &["--htpasswd-file", &file]);
        let timed = |header: &str| {
            let start = Instant::now();
            (ask(&server, header), start.elapsed())
        };
        for n in 0..5 {
            assert_eq!(ask(&server, &login("alice", &format!("wrong {n}"))), 401);
        }
        let (status, took) = timed(&login("alice", "wrong again"));
        assert!(status == 401 && took >= Duration::from_millis(900), "{took:?}");
        // While others of the same address wait for their refusal, right logins pass: known and not known yet.
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    let mut round = 0;
                    while !stop.load(Ordering::Relaxed) && round < 3 {
                        round += 1;
                        assert_eq!(ask(server, &login("alice", &format!("flood {n} {round}"))), 401);
                    }
                });
            }
            let (status, took) = timed(&login("bob", "pw"));
            assert!(status == 404 && took < Duration::from_millis(900), "{took:?}");
            let (status, took) = timed(&login("alice", "pw"));
            assert!(status == 404 && took < Duration::from_millis(900), "{took:?}");
            stop.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_flood_is_refused_and_does_not_stop_who_is_logged_in() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        std::fs::write(&file, format!("alice:{}\n", bcrypt::hash("pw", 10).unwrap())).unwrap();
        let server =
            Server::start(driver, &["--htpasswd-file", file.to_str().unwrap(), "--login-throttle=false"]);
        assert_eq!(ask(&server, &login("alice", "pw")), 404);
        let refused = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..48u64 {
                let (server, refused) = (&server, &refused);
                scope.spawn(move || {
                    let mut conn = server.connect();
                    for round in 0..4 {
                        let password = String::from_utf8_lossy(&noise(8, thread * 100 + round)).into_owned();
                        let response = conn.request("HEAD", "/r1/config", &login("alice", &password), b"");
                        match response.status {
                            401 => {}
                            429 => {
                                assert_eq!(response.header("retry-after"), "5");
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                            other => panic!("{other}"),
                        }
                    }
                });
            }
            for _ in 0..50 {
                assert_eq!(ask(&server, &login("alice", "pw")), 404);
            }
        });
        assert!(refused.into_inner() > 0, "the queue has an end");
    });
}

/// Strangers ask from the same address as users who log in for the first time, and go away: all users get in, and soon.
#[test]
fn a_flood_of_strangers_keeps_no_user_out() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        let names: Vec<_> = (0..20).map(|n| format!("u{n}")).collect();
        let hash = bcrypt::hash("pw", 10).unwrap();
        std::fs::write(&file, names.iter().map(|name| format!("{name}:{hash}\n")).collect::<String>())
            .unwrap();
        let server = Server::start(driver, &["--htpasswd-file", file.to_str().unwrap()]);
        let stop = AtomicBool::new(false);
        let late = std::thread::scope(|scope| {
            for thread in 0..4 {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    let mut held = std::collections::VecDeque::new();
                    for n in (0..20_000).take_while(|_| !stop.load(Ordering::Relaxed)) {
                        let mut conn = server.connect();
                        let who = login(&format!("x{thread}-{n}"), "pw");
                        conn.send(format!("GET /r1/config HTTP/1.1\r\nHost: h\r\n{who}\r\n"));
                        held.push_back(conn);
                        if held.len() > 40 {
                            held.pop_front();
                        }
                        std::thread::sleep(Duration::from_millis(4));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(500));
            let late: Vec<_> = names
                .iter()
                .filter_map(|name| {
                    let start = Instant::now();
                    let status = ask(&server, &login(name, "pw"));
                    let took = start.elapsed();
                    (status != 404 || took > Duration::from_secs(2)).then_some((name, status, took))
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            late
        });
        assert!(late.len() <= names.len() / 20, "{late:?}");
    });
}
