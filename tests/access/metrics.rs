//! Case 62, health, the admin listener, and the log of requests.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Conn, Response, Server, id_of, login, on_both, users, wait_for};

fn metrics(server: &Server, headers: &str) -> Response {
    server.request("GET", "/metrics", headers, b"")
}

#[test]
fn case_62_metrics_and_for_whom_they_are() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice", "metrics"]);
        let (alice, special) = (login("alice", "pw"), login("metrics", "pw"));
        // By flags: without credentials, alice, the user metrics.
        for (flags, wanted) in [
            (&[][..], [401, 404, 404]),
            (&["--prometheus"], [401, 200, 200]),
            (&["--prometheus", "--private-repos"], [401, 403, 200]),
            (&["--prometheus", "--prometheus-no-auth"], [200, 200, 200]),
            (&["--prometheus", "--prometheus-no-auth", "--private-repos"], [200, 200, 200]),
        ] {
            let mut all = vec!["--htpasswd-file", &file];
            all.extend(flags);
            let server = Server::start(driver, &all);
            let got = ["", &alice, &special].map(|headers| metrics(&server, headers).status);
            assert_eq!(got, wanted, "{flags:?}");
        }
        let server = Server::start(driver, &["--htpasswd-file", &file, "--prometheus"]);
        let ask = |method: &str, path: &str, headers: &str, body: &[u8]| {
            server.request(method, path, &format!("{headers}{alice}"), body).status
        };
        let path = |body: &[u8]| format!("/a/b/data/{}", id_of(body));
        assert_eq!(ask("POST", "/a/b/?create=true", "", b""), 200);
        assert_eq!(ask("POST", "/a/b/config", "", b"config"), 200);
        assert_eq!(ask("POST", &path(b"one"), "", b"one"), 200);
        assert_eq!(ask("POST", &path(b"three"), "", b"three"), 200);
        assert_eq!(ask("POST", &path(b"three"), "", b"three"), 200, "a repeat is no write");
        assert_eq!(ask("POST", &path(b"four"), "", b"wrong"), 400);
        assert_eq!(ask("GET", &path(b"three"), "", b""), 200);
        assert_eq!(ask("GET", &path(b"three"), "Range: bytes=0-1\r\n", b""), 206);
        assert_eq!(ask("HEAD", &path(b"three"), "", b""), 200);
        assert_eq!(ask("DELETE", &path(b"one"), "", b""), 200);
        assert_eq!(ask("DELETE", &path(b"one"), "", b""), 200);
        assert_eq!(ask("GET", "/a/b/config", "", b""), 200);
        let response = metrics(&server, &alice);
        assert!(response.header("content-type").starts_with("text/plain; version=0.0.4"));
        let text = response.text();
        let labels = "{repo=\"a/b\",type=\"data\",user=\"alice\"}";
        for (name, value) in [
            ("rest_server_blob_write_total", 2),
            ("rest_server_blob_write_bytes_total", 8),
            ("rest_server_blob_read_total", 2),
            ("rest_server_blob_read_bytes_total", 7),
            ("rest_server_blob_delete_total", 1),
            ("rest_server_blob_delete_bytes_total", 3),
        ] {
            let line = format!("{name}{labels} {value}");
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        for part in [
            "packhouse_verification_failures_total 1",
            "packhouse_refusals_total{reason=\"content\"} 1",
            "packhouse_logins_total{result=\"right\"} 1",
            "packhouse_requests_total{method=\"POST\",code=\"200\"}",
            "packhouse_disk_free_bytes ",
            "packhouse_writable 1",
            "process_cpu_seconds_total ",
            "process_open_fds ",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("go_") && !text.contains("# EOF"));
    });
}

#[test]
fn health_and_the_door_of_the_operator() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice"]);
        let flags = ["--htpasswd-file", &file, "--admin-listen", "127.0.0.1:0", "--max-size", "1GB"];
        let server = Server::start(driver, &flags);
        let log = server.text();
        let admin = log.lines().find_map(|line| line.strip_prefix("start admin server on ")).unwrap();
        for path in ["/healthz", "/readyz"] {
            let answer = server.request("GET", path, "", b"");
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
            assert_eq!(server.status("POST", path, b""), 405);
        }
        let mut conn = Conn::new(std::net::TcpStream::connect(admin).unwrap());
        for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/r1/config", 404)] {
            assert_eq!(conn.request("GET", path, "", b"").status, status, "{path}");
        }
        let text = conn.request("GET", "/metrics", "", b"").text();
        assert!(text.contains("packhouse_quota_limit_bytes{scope=\"total\",name=\"\"} 1000000000"), "{text}");
        assert_eq!(server.status("GET", "/metrics", b""), 401);
    });
}

#[test]
fn the_log_of_requests_is_apaches_and_survives_rotation() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice"]);
        let (log, rotated) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let server = Server::start(driver, &["--htpasswd-file", &file, "--log", log.to_str().unwrap()]);
        let alice =
            format!("User-Agent: restic/0.19 \"x\"\r\nReferer: http://r/\r\n{}", login("alice", "pw"));
        let lines = |path: &std::path::Path| -> Vec<String> {
            std::fs::read_to_string(path).unwrap_or_default().lines().map(Into::into).collect()
        };
        // Two workers log in no order of their own: one request after the line of the other.
        let asked = [
            ("/r1/config", alice.as_str(), 404),
            ("/%0aforged%22/config", &alice, 404),
            ("/r1/config", "", 401),
        ];
        for (n, (path, headers, status)) in asked.into_iter().enumerate() {
            assert_eq!(server.request("GET", path, headers, b"").status, status);
            wait_for("a line", || lines(&log).len() == n + 1);
        }
        let got = lines(&log);
        let (first, rest) = got[0].split_once(" [").unwrap();
        assert_eq!(first, "127.0.0.1 - alice");
        let (date, rest) = rest.split_once("] ").unwrap();
        assert!(date.len() == 26 && date.ends_with(" +0000") && date.matches('/').count() == 2, "{date}");
        assert_eq!(rest, r#""GET /r1/config HTTP/1.1" 404 24 "http://r/" "restic/0.19 \"x\"""#);
        assert!(got[1].contains("\"GET /%0aforged%22/config HTTP/1.1\" 404"));
        assert!(got[2].starts_with("127.0.0.1 - - [") && got[2].ends_with("\"\" \"\""));
        assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        // Rotated under load: not a line is lost.
        let all = 200;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut conn = server.connect();
                for _ in 0..all {
                    assert_eq!(conn.request("HEAD", "/r1/config", &alice, b"").status, 404);
                }
            });
            for (n, signal) in ["-USR1", "-HUP"].into_iter().enumerate() {
                std::thread::sleep(std::time::Duration::from_millis(15));
                std::fs::rename(&log, rotated.with_extension(n.to_string())).unwrap();
                server.signal(signal);
                wait_for("a new log", || log.exists());
            }
        });
        let count = || -> usize {
            ["0", "1"].iter().map(|n| lines(&rotated.with_extension(n)).len()).sum::<usize>()
                + lines(&log).len()
        };
        wait_for("all lines", || count() == all + 3);
    });
}
