//! Entity tags and preconditions, and what HTTP says about versions and codings.

use crate::common::*;

const BODY: &[u8] = b"0123456789abcdefgh";

#[test]
fn what_is_stored_has_a_tag_and_preconditions_are_heeded() {
    on_both(|driver| {
        // What cannot be verified may differ from its name, but nobody can replace it: its name is a tag all the same.
        for flags in [&[][..], &["--sendfile=false"], &["--no-verify-upload"]] {
            let server = Server::start(driver, flags);
            server.create("/r1/");
            assert_eq!(server.status("POST", "/r1/config", BODY), 200);
            let object = server.store("/r1/", "snapshots", BODY);
            let mut conn = server.connect();
            for path in [object.as_str(), "/r1/config"] {
                let tag = format!("\"{}\"", id_of(BODY));
                for method in ["GET", "HEAD"] {
                    let plain = conn.request(method, path, "", b"");
                    assert_eq!((plain.status, plain.header("etag")), (200, tag.as_str()), "{method} {path}");
                    assert_eq!(plain.header("x-content-type-options"), "nosniff");
                    for (headers, status) in [
                        (format!("If-Match: {tag}\r\n"), 200),
                        (format!("If-Match: \"x\", {tag}\r\n"), 200),
                        ("If-Match: *\r\n".into(), 200),
                        ("If-Match: \"x\"\r\n".into(), 412),
                        (format!("If-Match: W/{tag}\r\n"), 412),
                        (format!("If-None-Match: {tag}\r\n"), 304),
                        (format!("If-None-Match: W/{tag}\r\n"), 304),
                        (format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n"), 304),
                        ("If-None-Match: *\r\n".into(), 304),
                        ("If-None-Match: \"x\"\r\n".into(), 200),
                        // A precondition comes before a range.
                        (format!("If-None-Match: {tag}\r\nRange: bytes=99-\r\n"), 304),
                        ("If-Match: \"x\"\r\nRange: bytes=99-\r\n".into(), 412),
                    ] {
                        let answer = conn.request(method, path, &headers, b"");
                        assert_eq!(answer.status, status, "{method} {path} {headers}");
                        let body = if status == 200 && method == "GET" { BODY } else { b"" };
                        assert!(answer.body == body || status == 412, "{method} {path} {headers}");
                        if status != 412 {
                            assert_eq!(answer.header("etag"), tag, "{headers}");
                        }
                    }
                }
                for (condition, status) in [
                    (format!("If-Range: {tag}\r\n"), 206),
                    (format!("If-Range: W/{tag}\r\n"), 200),
                    ("If-Range: \"x\"\r\n".into(), 200),
                    ("If-Range: Mon, 01 Jan 2035 00:00:00 GMT\r\n".into(), 200),
                    (String::new(), 206),
                ] {
                    let part = conn.request("GET", path, &format!("Range: bytes=2-4\r\n{condition}"), b"");
                    let body = if status == 206 { &BODY[2..=4] } else { BODY };
                    assert_eq!((part.status, part.body.as_slice()), (status, body), "{path} {condition}");
                    assert_eq!(part.header("etag"), tag);
                }
                // Behind a tag that does not match, a range past the end is no range.
                let full = conn.request("GET", path, "Range: bytes=99-\r\nIf-Range: \"x\"\r\n", b"");
                assert_eq!((full.status, full.body.as_slice()), (200, BODY));
            }
            // An object that is missing has no tag that could match or differ.
            let missing = format!("/r1/keys/{}", id_of(b"missing"));
            for headers in ["If-Match: *\r\n", "If-None-Match: *\r\n", "If-Match: \"x\"\r\n"] {
                assert_eq!(conn.request("GET", &missing, headers, b"").status, 404, "{headers}");
            }
            // Nor do lists and requests that write heed them.
            assert_eq!(conn.request("GET", "/r1/keys/", "If-None-Match: *\r\n", b"").status, 200);
            assert_eq!(conn.request("DELETE", "/r1/config", "If-Match: \"x\"\r\n", b"").status, 200);
        }
    });
}

#[test]
fn versions_codings_and_the_preface_of_http_2() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        for minor in 0..=9 {
            let mut conn = server.connect();
            for _ in 0..2 {
                conn.send(format!(
                    "GET /r1/keys/ HTTP/1.{minor}\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"
                ));
                let answer = conn.response();
                assert_eq!(
                    (answer.status, answer.body.as_slice()),
                    (200, b"[]".as_slice()),
                    "HTTP/1.{minor}"
                );
                if minor == 0 {
                    break;
                }
            }
        }
        for version in ["HTTP/0.9", "HTTP/2.0", "HTTP/3.0", "HTTP/1.10", "HTTP/1", "http/1.1"] {
            let mut conn = server.connect();
            conn.send(format!("GET /r1/keys/ {version}\r\nHost: h\r\n\r\n"));
            assert!(matches!(conn.response().status, 400 | 505), "{version}");
        }
        for coding in ["gzip", "br", "deflate", "identity", "chunked, gzip", "gzip, chunked", "x"] {
            let mut conn = server.connect();
            let id = id_of(BODY);
            conn.send(format!(
                "POST /r1/keys/{id} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"
            ));
            assert_eq!(conn.response().status, 501, "{coding}");
        }
        let mut conn = server.connect();
        conn.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(conn.response().status, 505);
        server.wait_for_log("status=505");
        assert!(!server.text().contains("ERROR"), "{}", server.text());
    });
}
