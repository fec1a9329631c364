//! Two tables: requests that two readers could take apart differently, each with all answers that may come back on its
//! connection; and paths that want to leave the data folder.

use std::path::PathBuf;

use crate::common::{Conn, NO_SCRUB, Server, id_of, noise, on_both, wait_for};

/// What comes behind every request: it must be answered as what it is, or not at all.
const NEXT: &str = "GET /next/keys/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// Statuses of all answers until the server closes.
fn statuses(conn: &mut Conn) -> Vec<u16> {
    let mut all = Vec::new();
    while let Some(response) = conn.try_response_to("GET") {
        all.push(response.status);
    }
    all
}

#[test]
fn no_vector_of_desynchronization_poisons_what_follows() {
    let id = id_of(b"abc");
    let long = "x".repeat(70_000);
    let many = "X: y\r\n".repeat(200);
    let post =
        |headers: &str, body: &str| format!("POST /r1/data/{id} HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}");
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let get =
        |headers: &str, body: &str| format!("GET /r1/data/{id} HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}");
    // Answered, and what follows too: the server and any reader agree where the request ends.
    let clear = [
        (post("Content-Length: 3\r\n", "abc"), 200),
        (post("content-length:3\r\n", "abc"), 200),
        (post("Content-Length: \t3 \t\r\n", "abc"), 200),
        (post("Transfer-Encoding: Chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"), 200),
        (chunked("3\r\nabc\r\n0\r\n\r\n"), 200),
        (chunked("0003\r\nabc\r\n0\r\n\r\n"), 200),
        (chunked("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), 200),
        (chunked("3;name=value\r\nabc\r\n0\r\n\r\n"), 200),
        (chunked("3\r\nabc\r\n0\r\nContent-Length: 900\r\n\r\n"), 200),
        (chunked("3\r\nabc\r\n0\r\nTransfer-Encoding: gzip\r\nX: y\r\n\r\n"), 200),
        (post("Content-Length: 3\r\nConnection: Content-Length\r\n", "abc"), 200),
        (post("Content-Length: 3\r\nX-Content-Length: 9\r\n", "abc"), 200),
        (post("Content-Length: 3\r\nContent_Length: 9\r\n", "abc"), 200),
        (post("Content-Length: 3\r\nX: Transfer-Encoding: chunked\r\n", "abc"), 200),
        (post("Content-Length: 3\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n", "abc"), 200),
        (post("Content-Length: 3\r\nX: \u{e9}\r\n", "abc"), 200),
        (format!("\r\n\r\n{}", post("Content-Length: 3\r\n", "abc")), 200),
        (get("", ""), 200),
        (get("Content-Length: 3\r\n", "abc"), 200),
        (get("Content-Length: 0\r\n", ""), 200),
        (get("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"), 200),
        (format!("GET http://h/r1/data/{id} HTTP/1.1\r\nHost: h\r\n\r\n"), 200),
        (
            format!("DELETE /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", id_of(b"none")),
            200,
        ),
    ];
    // Refused, and nothing that follows is a request any more.
    let refused = [
        (post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "abc"), 400),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"), 400),
        (post("Content-Length: 4\r\nContent-Length: 3\r\n", "abc"), 400),
        (post("Content-Length: 3, 4\r\n", "abc"), 400),
        (post("Content-Length: 3, 3\r\n", "abc"), 400),
        (post("Content-Length: -3\r\n", "abc"), 400),
        (post("Content-Length: +3\r\n", "abc"), 400),
        (post("Content-Length: 3.0\r\n", "abc"), 400),
        (post("Content-Length: 0x3\r\n", "abc"), 400),
        (post("Content-Length: 3a\r\n", "abc"), 400),
        (post("Content-Length: \"3\"\r\n", "abc"), 400),
        (post("Content-Length: \r\n", "abc"), 400),
        (post("Content-Length: 18446744073709551616\r\n", "abc"), 400),
        (post("Content-Length: 3\r\n\tX: y\r\n", "abc"), 400),
        (post("Content-Length : 3\r\n", "abc"), 400),
        (post("Content-Length\t: 3\r\n", "abc"), 400),
        (post(" Content-Length: 3\r\n", "abc"), 400),
        (post("Content-Length: 3\n", "abc"), 400),
        (post("X: y\rContent-Length: 3\r\n", "abc"), 400),
        (post("X: y\0\r\nContent-Length: 3\r\n", "abc"), 400),
        (post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: \x0cchunked\r\n", "0\r\n\r\n"), 400),
        (post("Host: other\r\nContent-Length: 3\r\n", "abc"), 400),
        (chunked("3 \r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("3 5\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked(" 3\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("+3\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("0x3\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("-1\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("3\nabc\r\n0\r\n\r\n"), 400),
        (chunked("3\r\nabc\n0\r\n\r\n"), 400),
        (chunked("3\r\nabcd\r\n0\r\n\r\n"), 400),
        (chunked("3\r\nabc0\r\n\r\n"), 400),
        (chunked("3;a\nb\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("3\r\nabc\r\n0\r\nX: y\n\r\n"), 400),
        (format!("POST /r1/data/{id} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /r1/data/{id}\r\n\r\nabc"), 400),
        (format!("POST  /r1/data/{id} HTTP/1.1\r\nHost: h\r\n\r\n"), 400),
        (format!("POST /r1/data/{id} HTTP/1.1 \r\nHost: h\r\n\r\n"), 400),
        (format!("POST /r1/data/{id} HTTP/1.1\r\nX: y\r\n\r\n"), 400),
        (format!("POST /r1/data/{id} HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"), 431),
        (format!("POST /r1/data/{id} HTTP/1.1\r\nHost: h\r\n{many}\r\n"), 431),
        (format!("POST /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
        (format!("POST /r1/data/{id} HTTP/3.0\r\nHost: h\r\n\r\n"), 505),
    ];
    assert!(clear.len() + refused.len() >= 60);
    on_both(|driver| {
        let server = Server::start(driver, &["--max-folder-depth", "1"]);
        server.create("/r1/");
        server.store("/r1/", "data", b"abc");
        for (request, status) in &clear {
            let mut conn = server.connect();
            conn.send([request, NEXT].concat());
            assert_eq!(statuses(&mut conn), [*status, 404], "{:?}", &request[..request.len().min(300)]);
        }
        for (request, status) in &refused {
            let mut conn = server.connect();
            conn.try_send([request, NEXT].concat());
            assert_eq!(statuses(&mut conn), [*status], "{:?}", &request[..request.len().min(300)]);
        }
        assert_eq!(server.files().len(), 1, "nothing was stored by any of them");
        assert_eq!(server.status("GET", "/next/keys/", b""), 404);
    });
}

#[test]
fn no_path_leaves_the_data_folder() {
    let up = [
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "..%00",
        "..%20",
        "..;",
        "...",
        "%c0%ae%c0%ae",
        "%e0%80%ae%e0%80%ae",
        "%ef%bc%8e%ef%bc%8e",
        "%e2%80%a5",
        "\u{ff0e}\u{ff0e}",
    ];
    let slash = [
        "/",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "%252f",
        "%c0%af",
        "//",
        "%ef%bc%8f",
        "%e2%88%95",
        "\u{ff0f}",
        "\u{2215}",
    ];
    // What lies outside and would be found, if one of them led there.
    let key = format!("keys/{}", id_of(b"canary"));
    let (mut paths, mut outside) = (Vec::new(), Vec::new());
    for up in up {
        for slash in slash {
            paths.push(format!("/{up}{slash}canary"));
            paths.push(format!("/r1/{up}{slash}{up}{slash}canary"));
            for there in ["config", &key, &key.replace('/', slash), "?create=true"] {
                outside.push(format!("/{up}{slash}{there}"));
                outside.push(format!("/r1/{up}{slash}{up}{slash}{there}"));
            }
        }
    }
    for name in [
        ".",
        "",
        "%00",
        "a%00b",
        "%0a",
        "%0d%0aX:%20y",
        "%7f",
        "%1b[31m",
        ".htpasswd",
        ".packhouse",
        ".git",
        "%2ehtpasswd",
        "%zz",
        "%",
        "%2",
        "config/config",
        "data/..",
        "keys/../config",
        "CON:/..",
        "~/..",
        "$HOME/..",
        "-rf/..",
        "*/..",
        &"a".repeat(256),
    ] {
        paths.push(format!("/{name}/config"));
        paths.push(format!("/r1/{name}/canary"));
    }
    assert!(paths.len() >= 100);
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let parent = server.data.parent().unwrap();
        std::fs::create_dir(parent.join("keys")).unwrap();
        for file in [parent.join("canary"), parent.join("config"), parent.join(&key)] {
            std::fs::write(file, "canary").unwrap();
        }
        let mut before = crate::common::walk(parent);
        before.sort();
        let ask = |method: &str, path: &str| {
            let mut conn = server.connect();
            let body = if method == "POST" { "Content-Length: 6\r\n\r\nforged" } else { "\r\n" };
            conn.send(format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{body}"));
            conn.response_to(method)
        };
        for path in &paths {
            for method in ["GET", "HEAD", "POST", "DELETE"] {
                let response = ask(method, path);
                assert!((400..500).contains(&response.status), "{method} {path}: {}", response.status);
                assert!(!response.text().contains("canary"), "{method} {path}");
            }
        }
        let sorted = || {
            let mut all = crate::common::walk(parent);
            all.sort();
            all
        };
        assert_eq!(sorted(), before, "nothing was made or removed");
        // Some of these are odd names of folders below the data folder, in which POST may make something.
        let outer = |mut all: Vec<PathBuf>| {
            all.retain(|path| !path.starts_with(&server.data));
            all
        };
        for path in &outside {
            for method in ["GET", "HEAD", "POST", "DELETE"] {
                let response = ask(method, path);
                assert!(response.status < 500, "{method} {path}: {}", response.status);
                let reads = ["GET", "HEAD"].contains(&method);
                assert!(!reads || response.status >= 400, "{method} {path}: {}", response.status);
                assert!(!response.text().contains("canary"), "{method} {path}");
            }
        }
        assert_eq!(outer(sorted()), outer(before), "nothing was made or removed outside");
        for file in [parent.join("canary"), parent.join("config"), parent.join(&key)] {
            assert_eq!(std::fs::read_to_string(file).unwrap(), "canary");
        }
    });
}

#[test]
fn churn_resets_and_half_closed_connections_leave_nothing() {
    const THREADS: usize = 8;
    const EACH: usize = 250;
    on_both(|driver| {
        let server = Server::start(driver, NO_SCRUB);
        server.create("/r1/");
        let large = noise(1 << 20, 1);
        let path = server.store("/r1/", "data", &large);
        let (before, files) = (server.descriptors(), server.files());
        let post = format!(
            "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n",
            id_of(b"never")
        );
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (server, path, post) = (&server, &path, &post);
                scope.spawn(move || {
                    for n in 0..EACH {
                        let mut conn = server.connect();
                        match (thread + n) % 6 {
                            0 => {}
                            1 => conn.reset(),
                            2 => conn.finish(),
                            3 => {
                                conn.try_send("GET /r1/ke");
                                conn.reset();
                            }
                            // In the middle of a body, and before an answer was read.
                            4 => {
                                conn.try_send(post);
                                conn.try_send([0; 70_000]);
                                conn.reset();
                            }
                            _ => {
                                conn.try_send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
                                conn.reset();
                            }
                        }
                    }
                });
            }
        });
        wait_for("all descriptors to be given back", || server.descriptors() <= before);
        wait_for("nothing to be left over", || server.files() == files);
        assert_eq!(server.request("GET", &path, "", b"").body, large);
    });
}
