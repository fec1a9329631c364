//! Cases 32 and 69, and hostile bytes: ambiguous requests get 400 and a close, and the server lives.

use crate::common::{Server, id_of, noise, on_both};

#[test]
fn case_32_ambiguous_requests_are_refused_and_the_connection_closed() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        server.create("/r1/");
        let id = id_of(b"abc");
        let smuggled = "GET /r1/keys/ HTTP/1.1\r\nHost: h\r\n\r\n";
        for head in [
            "Host: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Host: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Host: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
            "Host: h\r\nContent-Length: 3, 3\r\n",
            "Host: h\r\nContent-Length: -1\r\n",
            "Host: h\r\nContent-Length: +3\r\n",
            "Host: h\r\nContent-Length: abc\r\n",
            "Host: h\r\nContent-Length: 3x\r\n",
            "Host: h\r\nContent-Length: 0x3\r\n",
            "Host: h\r\nContent-Length: 100000000000000000000000\r\n",
            "Host: h\r\nContent-Length: 3 3\r\n",
            "Host: h\r\nContent-Length:\r\n",
            "Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Host: h\r\nTransfer-Encoding: \x0bchunked\r\n",
            "Host: h\r\nTransfer-Encoding : chunked\r\n",
            "Host: h\r\nContent-Length : 3\r\n",
            "Host: h\r\n Content-Length: 3\r\n",
            "Host: h\r\nX: a\r\n\tb\r\n",
            "Host: h\nContent-Length: 3\r\n",
            "Host: h\r\nX: a\rContent-Length: 3\r\n",
            "Host: h\r\nX: a\0b\r\n",
            "Host: h\r\nHost: g\r\n",
            "Host: a b\r\n",
            "Host: h\r\nX y: z\r\n",
            "Host: h\r\n: z\r\n",
            "Host: h\r\nno colon\r\n",
            "X: no host\r\n",
            "Host : h\r\n",
        ] {
            let mut conn = server.connect();
            conn.send(format!("POST /r1/data/{id} HTTP/1.1\r\n{head}\r\nabc{smuggled}"));
            assert_eq!(conn.response().status, 400, "{head:?}");
            assert!(conn.is_ended(), "closed after {head:?}");
        }
        // Codings that are not known here, as in rest-server.
        for coding in ["identity", "gzip, chunked", "chunked, chunked", "", "xchunked", "chunked;q=1"] {
            let mut conn = server.connect();
            conn.send(format!(
                "POST /r1/data/{id} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {coding}\r\n\r\nabc{smuggled}"
            ));
            assert_eq!(conn.response().status, 501, "{coding:?}");
            assert!(conn.is_ended(), "closed after {coding:?}");
        }
        for (line, status) in [
            ("POST /r1/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400),
            ("GET  /r1/ HTTP/1.1\r\nHost: h\r\n", 400),
            ("GET /r1/ x HTTP/1.1\r\nHost: h\r\n", 400),
            ("GET r1/ HTTP/1.1\r\nHost: h\r\n", 400),
            ("GET /r1/ HTTP/1.1\nHost: h\r\n", 400),
            ("G\x01T /r1/ HTTP/1.1\r\nHost: h\r\n", 400),
            ("GET /r1/\r\nHost: h\r\n", 400),
            ("GET /r1/ HTTP/2.0\r\nHost: h\r\n", 505),
            ("PRI * HTTP/2.0\r\n", 505),
            ("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n", 400),
            ("\x16\x03\x01\x02\r\n", 400),
        ] {
            let mut conn = server.connect();
            conn.send(format!("{line}\r\n"));
            assert_eq!(conn.response().status, status, "{line:?}");
            assert!(conn.is_ended(), "closed after {line:?}");
        }
        assert_eq!(server.files(), Vec::<String>::new());
    });
}

#[test]
fn case_69_requests_in_a_row() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let path = server.store("/r1/", "data", b"0123456789");
        let get = |headers: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let other = format!("/r1/keys/{}", id_of(b"pipelined"));
        let mut conn = server.connect();
        conn.send(
            [
                get("Range: bytes=0-0\r\n"),
                format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n"),
                get("Range: bytes=99-\r\n"),
                format!("POST {other} HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\npipelined"),
                format!("POST {other} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npipelined\r\n0\r\n\r\n"),
                format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
                "GET /r1/keys/foobar HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde".into(),
                "\r\nPUT /r1/config HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into(),
                get("Range: bytes=9-\r\nConnection: close\r\n"),
            ]
            .concat(),
        );
        assert_eq!(conn.response().body, b"0");
        let head = conn.response_to("HEAD");
        assert_eq!((head.status, head.header("content-length")), (200, "10"));
        for status in [416, 200, 200, 403, 404, 405] {
            assert_eq!(conn.response().status, status);
        }
        assert_eq!(conn.response().body, b"9");
        assert!(conn.is_ended());
    });
}

#[test]
fn hostile_bytes_do_no_harm() {
    on_both(|driver| {
        let server = Server::start(driver, &["--head-timeout", "1s"]);
        server.create("/r1/");
        let before = server.memory("VmRSS");
        let mut conn = server.connect();
        conn.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}: x\r\n\r\n", "n".repeat(70_000)));
        assert_eq!(conn.response().status, 431);
        let mut conn = server.connect();
        conn.send("GET / HTTP/1.1\r\nHost: h\r\nX: ");
        (0..16).all(|_| conn.try_send(vec![b'y'; 1 << 20]));
        assert_eq!(conn.response().status, 431);
        for n in 0..10_000_usize {
            let mut conn = server.connect();
            conn.try_send(noise(n % 200 + 1, n as u64));
            if n % 100 == 0 {
                conn.try_send("\r\n\r\n");
                conn.finish();
                while let Some(response) = conn.try_response_to("GET") {
                    assert!(response.status >= 400);
                }
            }
        }
        let mut conn = server.connect();
        conn.send(format!(
            "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;",
            id_of(b"x")
        ));
        (0..1000).all(|_| conn.try_send(vec![b'e'; 4096]));
        assert_eq!(conn.response().status, 400);
        let short = format!(
            "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nshort",
            id_of(b"short")
        );
        let mut conn = server.connect();
        conn.send(short);
        conn.finish();
        assert_eq!(conn.response().status, 400);
        let mut conn = server.connect();
        conn.send(format!(
            "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nlong!",
            id_of(b"long")
        ));
        conn.finish();
        assert_eq!(
            (conn.response().status, conn.response_to("GET").status),
            (200, 400),
            "the byte too many begins a bad request"
        );
        assert_eq!(server.request("GET", "/r1/keys/", "", b"").body, b"[]");
        assert!(!server.text().contains("panic"));
        let growth = server.memory("VmHWM").saturating_sub(before);
        assert!(growth < 48 << 20, "memory grew by {growth} bytes");
    });
}

#[test]
fn one_line_of_log_a_refusal_and_none_can_be_forged() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        assert_eq!(server.status("GET", "/r1%0a2026-01-01T00:00:00Z%20INFO/config", b""), 404);
        assert_eq!(server.status("GET", "/nothing/config", b""), 404);
        server.wait_for_log("/nothing/config");
        let text = server.text();
        let line = text.lines().find(|line| line.contains("/nothing/config")).unwrap();
        for part in [
            " 127.0.0.1 ",
            "user=-",
            "\"GET /nothing/config\"",
            "status=404",
            "id=",
            "reason=\"there is no such object\"",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        server.wait_for_log("/r1%0a2026");
    });
}
