//! Cases 36–43: names and paths.

use crate::common::{Server, id_of, noise, on_both};

const KINDS: [&str; 5] = ["data", "index", "keys", "locks", "snapshots"];

#[test]
fn case_36_and_37_names() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let id = id_of(b"x");
        let temp = format!("{id}.rest-server-temp1");
        let names = [
            &id.to_uppercase(),
            &id[1..],
            &format!("{id}0"),
            "abc",
            "foobar",
            "x.rest-server-temp1",
            &temp,
            "a",
            "%E2%82%AC",
            "%2fetc%2fpasswd",
        ];
        for kind in KINDS {
            for name in names {
                for method in ["HEAD", "GET", "POST", "DELETE"] {
                    let status = server.status(method, &format!("/r1/{kind}/{name}"), b"");
                    assert!(
                        status == 404 || (status == 400 && name.contains("%2f")),
                        "{method} {kind}/{name}: {status}"
                    );
                }
            }
        }
        for (path, status) in [
            ("/r1/data/00/", 404),
            (&format!("/r1/data/xx/{id}"), 404),
            ("/r1/KEYS/", 405),
            ("/r1/%6beys/", 200),
            ("/r1/keys", 404),
        ] {
            assert_eq!(server.status("GET", path, b""), status, "{path}");
        }
        assert_eq!(server.files(), Vec::<String>::new());
    });
}

#[test]
fn case_38_to_40_unclean_paths() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let canary = server.data.parent().unwrap().join("canary");
        std::fs::write(&canary, "canary").unwrap();
        let before = server.files();
        let id = id_of(b"");
        for path in [
            "/../canary",
            "/../../etc/passwd",
            "/%2e%2e/keys/",
            "/..%2f..%2f/keys/",
            "/r1/keys/..%2fconfig",
            "/./keys/",
            "//keys/",
            "/r1//keys/",
            "/r1/../r1/keys/",
            "/r1/./config",
            "/r1/keys/../config",
            "/%2e/config",
            "/..%00/config",
            "/a%00/config",
            "/%zz/config",
            "/r1/%/config",
            "/.htpasswd/config",
            "/.packhouse/config",
            "/..;/config",
            "/r1/%2e%2e%2fconfig",
            "/..%5c..%5cconfig",
            "/%c0%ae%c0%ae/..",
            "/a%0ab/config",
            "/\u{7f}/config",
            "http://h/../config",
            "http://h//config",
        ] {
            for method in ["HEAD", "GET", "POST", "DELETE"] {
                for path in [path.to_owned(), format!("{path}/keys/{id}"), format!("{path}/?create=true")] {
                    let response = server.request(method, &path, "", b"");
                    assert!((400..500).contains(&response.status), "{method} {path}: {}", response.status);
                    assert!(!response.text().contains("canary") && response.header("location").is_empty());
                }
            }
        }
        assert_eq!(server.files(), before);
        assert_eq!(std::fs::read_to_string(canary).unwrap(), "canary");
        let folders: Vec<_> =
            std::fs::read_dir(&server.data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(folders.len(), 2, "{folders:?}");
    });
}

#[test]
fn case_40_symbolic_links_are_not_followed() {
    on_both(|driver| {
        let server = Server::start(driver, &["--shared-folder"]);
        server.create("/r1/");
        let path = server.store("/r1/", "keys", b"key");
        let outside = server.data.parent().unwrap().join("outside");
        std::fs::create_dir_all(outside.join("keys")).unwrap();
        std::fs::write(outside.join("config"), "secret").unwrap();
        let link = |name: &str, to: &std::path::Path| {
            std::os::unix::fs::symlink(to, server.data.join(name)).unwrap()
        };
        link("r2", &outside);
        link("r1/config", &outside.join("config"));
        let id = id_of(b"linked");
        link(&format!("r1/locks/{id}"), &outside.join("config"));
        link(&format!("r1/snapshots/{id}"), &outside.join("nowhere"));
        for path in [
            "/r2/config",
            "/r2/keys/",
            "/r1/config",
            &format!("/r1/locks/{id}"),
            &format!("/r1/snapshots/{id}"),
            &format!("/r2/keys/{id}"),
        ] {
            for method in ["HEAD", "GET", "POST"] {
                let status = server.status(method, path, b"linked");
                let list = path.ends_with('/');
                assert!(status == 403 || (list && status == 405), "{method} {path}: {status}");
            }
        }
        for path in ["/r1/config", &format!("/r1/locks/{id}"), "/r2/config"] {
            assert_eq!(server.status("DELETE", path, b""), 403, "{path}");
        }
        assert!(server.data.join("r1/config").is_symlink());
        server.wait_for_log("bind mount");
        assert_eq!(server.status("POST", "/r2/?create=true", b""), 403);
        assert_eq!(server.request("GET", "/r1/locks/", "", b"").body, b"[]");
        assert_eq!(server.request("GET", &path, "", b"").body, b"key");
        assert_eq!(std::fs::read_to_string(outside.join("config")).unwrap(), "secret");
        // The data folder itself may be a link.
        let linked = server.data.parent().unwrap().join("linked");
        std::os::unix::fs::symlink(&server.data, &linked).unwrap();
        let second = Server::on(&linked, driver, &["--shared-folder"]);
        assert_eq!(second.request("GET", &path, "", b"").body, b"key");
        second.wait_for_log("a symbolic link");
    });
}

#[test]
fn case_41_to_43_odd_targets() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        assert_eq!(server.status("POST", "/keys/?create=true", b""), 405);
        assert_eq!(server.status("POST", "/config/?create=true", b""), 404);
        assert_eq!(server.status("POST", "/.htpasswd/?create=true", b""), 404);
        assert_eq!(server.status("POST", &format!("/{}/?create=true", "x".repeat(300)), b""), 414);
        assert_eq!(server.status("POST", &format!("/{}/?create=true", "x".repeat(255)), b""), 200);
        assert_eq!(server.status("POST", &format!("/{}/?create=true", "x".repeat(9000)), b""), 414);
        assert_eq!(
            server.request("GET", "/r1/keys/", &format!("X: {}\r\n", "y".repeat(64 * 1024)), b"").status,
            431
        );
        assert_eq!(server.status("OPTIONS", "*", b""), 200);
        // Any bytes but a few make a folder.
        for name in ["a%20b", "%ff%fe", "a%5cb", "%C3%A4", "a..b"] {
            server.create(&format!("/{name}/"));
            server.store(&format!("/{name}/"), "keys", &noise(10, 1));
        }
        server.create("/r1/");
        assert_eq!(server.request("GET", "http://example.org/r1/keys/", "", b"").body, b"[]");
        let mut conn = server.connect();
        conn.send("GET /r1/keys/ HTTP/1.0\r\n\r\n");
        let response = conn.response();
        assert_eq!(
            (response.status, response.header("connection"), response.body.as_slice()),
            (200, "close", b"[]".as_slice())
        );
        assert!(conn.is_ended());
    });
}
