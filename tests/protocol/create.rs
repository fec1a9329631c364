//! Cases 1–15: repositories and their config.

use crate::common::{Server, noise, on_both};

#[test]
fn case_01_to_06_creating() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let head = server.request("HEAD", "/new/config", "", b"");
        assert_eq!(head.status, 404);
        assert!(head.headers.contains_key("content-length"));
        for query in ["", "?create=false", "?create=1", "?create=True", "?x=create=true"] {
            assert_eq!(server.status("POST", &format!("/new/{query}"), b""), 400, "{query}");
        }
        assert!(!server.data.join("new").exists());
        let made = server.request("POST", "/new/?create=true", "", b"");
        assert_eq!((made.status, made.body.len()), (200, 0));
        for folder in ["", "/data", "/index", "/keys", "/locks", "/snapshots"] {
            assert_eq!(server.mode(&format!("new{folder}")), 0o700, "{folder}");
        }
        server.create("/new/");
        assert_eq!(server.status("POST", "/new/?x=1&create=true", b""), 200);
        assert_eq!(server.status("POST", "/new?create=true", b""), 404);
        assert_eq!(server.files(), Vec::<String>::new());
        // The shards come with the first pack; where one is there, a missing one is made alone.
        let shards = || std::fs::read_dir(server.data.join("new/data")).unwrap().count();
        assert_eq!(shards(), 0);
        server.store("/new/", "data", b"first");
        for shard in ["00", "a7", "ff"] {
            assert_eq!(server.mode(&format!("new/data/{shard}")), 0o700, "{shard}");
        }
        assert_eq!(shards(), 256);
        for shard in 1..=0xff_u8 {
            std::fs::remove_dir(server.data.join(format!("new/data/{shard:02x}"))).ok();
        }
        server.store("/new/", "data", b"second");
        assert!(shards() <= 3, "{}", shards());
    });
}

#[test]
fn case_03_creating_with_an_empty_chunked_body() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let mut conn = server.connect();
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(conn.request("POST", "/r1/?create=true", chunked, b"0\r\n\r\n").status, 200);
        assert_eq!(conn.request("HEAD", "/r1/config", "", b"").status, 404);
        // The end of the body may come late.
        conn.send(format!("POST /r1/?create=true HTTP/1.1\r\nHost: h\r\n{chunked}\r\n"));
        assert_eq!(conn.response().status, 200);
        conn.send("0\r\n\r\n");
        assert_eq!(conn.request("HEAD", "/r1/config", "", b"").status, 404);
    });
}

#[test]
fn case_07_depth() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        for (path, status) in [("/", 200), ("/a/b/", 200), ("/a/b/c/", 404)] {
            assert_eq!(server.status("POST", &format!("{path}?create=true"), b""), status, "{path}");
        }
        assert!(server.data.join("keys").is_dir() && server.data.join("a/b/keys").is_dir());
        let server = Server::start(driver, &["--max-folder-depth", "3"]);
        server.create("/a/b/c/");
        assert_eq!(server.status("POST", "/a/b/c/d/?create=true", b""), 404);
    });
}

#[test]
fn case_08_methods_on_a_repository() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let response = server.request(method, "/r1/", "", b"");
            assert_eq!((response.status, response.header("allow")), (405, "POST"), "{method}");
        }
        assert!(server.data.join("r1/keys").is_dir());
    });
}

#[test]
fn case_09_to_11_config() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let body = noise(155, 1);
        // Storing makes the folders that are missing.
        assert_eq!(server.status("POST", "/r1/config", &body), 200);
        assert_eq!(server.mode("r1/config"), 0o600);
        let head = server.request("HEAD", "/r1/config", "", b"");
        assert_eq!((head.status, head.header("content-length")), (200, "155"));
        assert_eq!(server.request("GET", "/r1/config", "", b"").body, body);
        let full = server.request("GET", "/r1/config", "Range: bytes=0-\r\n", b"");
        assert_eq!((full.status, full.header("content-range"), &full.body), (206, "bytes 0-154/155", &body));
        assert_eq!(server.status("POST", "/r1/config", &noise(155, 2)), 403);
        assert_eq!(server.status("POST", "/r1/config", &noise(154, 1)), 403);
        assert_eq!(server.status("POST", "/r1/config", &body), 200);
        assert_eq!(
            server
                .request("POST", "/r1/config", "Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n0\r\n\r\n")
                .status,
            403
        );
        assert_eq!(std::fs::read(server.data.join("r1/config")).unwrap(), body);
    });
}

#[test]
fn case_12_half_a_config_is_no_config() {
    on_both(|driver| {
        let server = Server::start(driver, &["--append-only"]);
        let half = b"POST /r1/config HTTP/1.1\r\nHost: h\r\nContent-Length: 155\r\n\r\nhalf of";
        let mut conn = server.connect();
        conn.send(half);
        conn.finish();
        assert_eq!(conn.response().status, 400);
        let mut conn = server.connect();
        conn.send(half);
        std::thread::sleep(std::time::Duration::from_millis(50));
        conn.reset();
        assert_eq!(server.status("HEAD", "/r1/config", b""), 404);
        assert_eq!(server.status("POST", "/r1/config", &noise(155, 1)), 200);
        assert_eq!(server.files(), ["r1/config"]);
    });
}

#[test]
fn case_14_deleting_a_config() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        assert_eq!(server.status("POST", "/r1/config", b"c"), 200);
        for _ in 0..2 {
            assert_eq!(server.status("DELETE", "/r1/config", b""), 200);
        }
        assert_eq!(server.status("GET", "/r1/config", b""), 404);
        let server = Server::start(driver, &["--append-only"]);
        assert_eq!(server.status("DELETE", "/r1/config", b""), 403);
        assert_eq!(server.status("POST", "/r1/config", b"c"), 200);
        assert_eq!(server.status("DELETE", "/r1/config", b""), 403);
        assert_eq!(server.request("GET", "/r1/config", "", b"").body, b"c");
    });
}

#[test]
fn case_15_methods_on_a_config() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        for method in ["PUT", "PATCH", "OPTIONS"] {
            let response = server.request(method, "/r1/config", "", b"");
            assert_eq!(
                (response.status, response.header("allow")),
                (405, "HEAD, GET, POST, DELETE"),
                "{method}"
            );
        }
        assert_eq!(server.status("GET", "/r1/config/", b""), 404);
    });
}
