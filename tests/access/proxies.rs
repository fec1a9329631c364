//! Case 59: users that a proxy names; clients' addresses behind proxies; the PROXY protocol.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use crate::common::{Conn, Server, login, on_both, users, wait_for};
use crate::pki::Pki;

/// A connection from another of this machine's addresses.
pub fn connect_from(source: &str, address: &str) -> Conn {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
    Conn::new(TcpStream::from(socket))
}

/// An address of this machine that is not loopback, if there is one.
pub fn own_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this only asks which way it would go.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[test]
fn case_59_the_proxy_names_the_user() {
    on_both(|driver| {
        let flags = ["--proxy-auth-username", "X-User", "--private-repos"];
        let server = Server::start(driver, &flags);
        let ask = |headers: &str, path: &str| server.request("POST", path, headers, b"").status;
        assert_eq!(ask("X-User: alice\r\n", "/alice/?create=true"), 200);
        assert_eq!(ask("x-user: alice\r\n", "/bob/?create=true"), 403);
        for headers in
            ["", "X-User: \r\n", "X-User: alice\r\nX-User: bob\r\n", &login("alice", "pw"), "X-User: a:b\r\n"]
        {
            assert_eq!(ask(headers, "/alice/?create=true"), 401, "{headers:?}");
        }
        server.wait_for_log("user=alice");
    });
}

#[test]
fn who_is_no_trusted_proxy_is_not_believed() {
    let Some(own) = own_address() else {
        eprintln!("*** SKIPPED: this machine has no address but loopback ***");
        return;
    };
    on_both(|driver| {
        let flags = ["--proxy-auth-username", "X-User", "--listen", "0.0.0.0:0"];
        for (trusted, status) in [(None, 401), (Some(own.as_str()), 404)] {
            let mut flags = flags.to_vec();
            flags.extend(trusted.iter().flat_map(|network| ["--trusted-proxy", network]));
            let server = Server::start(driver, &flags);
            let port = server.addresses[0].rsplit(':').next().unwrap();
            // A connection to our own address comes from it.
            let mut conn = Conn::new(TcpStream::connect(format!("{own}:{port}")).unwrap());
            assert_eq!(conn.request("GET", "/r1/config", "X-User: alice\r\n", b"").status, status);
            if trusted.is_none() {
                server.wait_for_log("--trusted-proxy");
            }
        }
    });
}

/// One header is believed, the one that is named, from proxies that are named: all else a client could have written.
#[test]
fn the_address_behind_a_proxy_is_told_by_one_named_header() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice"]);
        let (x_forwarded, forwarded) =
            ("X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.1.1.1\r\n", "Forwarded: for=198.51.100.8\r\n");
        for (flags, headers, told) in [
            (&[][..], x_forwarded, "127.0.0.1"),
            (
                &["--trusted-proxy", "10.0.0.0/8", "--proxy-header", "X-Forwarded-For"],
                x_forwarded,
                "127.0.0.1",
            ),
            (&["--trusted-proxy", "127.0.0.1"], x_forwarded, "127.0.0.1"),
            (
                &[
                    "--trusted-proxy",
                    "127.0.0.0/8",
                    "--trusted-proxy",
                    "10.0.0.0/8",
                    "--proxy-header",
                    "x-forwarded-for",
                ],
                x_forwarded,
                "198.51.100.7",
            ),
            (&["--trusted-proxy", "127.0.0.1", "--proxy-header", "Forwarded"], x_forwarded, "127.0.0.1"),
            (
                &["--trusted-proxy", "127.0.0.1", "--proxy-header", "Forwarded"],
                &format!("{x_forwarded}{forwarded}"),
                "198.51.100.8",
            ),
        ] {
            let server = Server::start(driver, &[&["--htpasswd-file", &file], flags].concat());
            let headers = format!("{headers}{}", login("alice", "no"));
            assert_eq!(server.request("GET", "/r1/config", &headers, b"").status, 401);
            server.wait_for_log(&format!("login failed: address={told} user=\"alice\""));
        }
    });
}

fn header(command: u8, source: [u8; 4]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, 0x11, 0, 12]);
    bytes.extend(source);
    bytes.extend([127, 0, 0, 1, 0x30, 0x39, 0x1f, 0x40]);
    bytes
}

#[test]
fn the_proxy_protocol() {
    on_both(|driver| {
        let flags = ["--proxy-protocol", "--trusted-proxy", "127.0.0.2", "--head-timeout", "500ms"];
        let server = Server::start(driver, &flags);
        let address = &server.addresses[0];
        let from_proxy = |first: &[u8]| {
            let mut conn = connect_from("127.0.0.2", address);
            conn.send(first);
            conn
        };
        let mut conn = from_proxy(&header(1, [203, 0, 113, 5]));
        assert_eq!(conn.request("GET", "/first/config", "", b"").status, 404);
        server.wait_for_log("203.0.113.5 user=- \"GET /first/config\"");
        // The proxy's own health check has its own address.
        let mut conn = from_proxy(&header(0, [9, 9, 9, 9]));
        assert_eq!(conn.request("GET", "/healthz", "", b"").status, 200);
        // A client behind a unix socket of the proxy's, or of a family that it does not know.
        for family in [0x00, 0x31, 0x12] {
            let mut header = header(1, [0, 0, 0, 0]);
            header[13] = family;
            let addresses = if family == 0x31 { 216 } else { 12 };
            header.resize(16 + addresses, 0);
            header[15] = u8::try_from(addresses).unwrap();
            let mut conn = from_proxy(&header);
            let status = conn.request("GET", &format!("/family-{family}/config"), "", b"").status;
            assert_eq!(status, 404, "{family}");
        }
        // In two pieces, with the request right behind it.
        let bytes = header(1, [203, 0, 113, 6]);
        let mut conn = from_proxy(&bytes[..9]);
        std::thread::sleep(std::time::Duration::from_millis(30));
        conn.send([&bytes[9..], b"GET /second/config HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        assert_eq!(conn.response().status, 404);
        // Version 1, as nginx's stream module and haproxy's `send-proxy` have it, in any pieces.
        for (n, line) in [
            ("203.0.113.9", "PROXY TCP4 203.0.113.9 2.2.2.2 1 2\r\n"),
            ("2001:db8::9", "PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n"),
            // No address, and no proxy whose word counts.
            ("0.0.0.0", "PROXY UNKNOWN\r\n"),
            // Its loopback is not ours.
            ("0.0.0.0", "PROXY TCP4 127.0.0.1 2.2.2.2 1 2\r\n"),
            ("0.0.0.0", "PROXY TCP6 ::1 2001:db8::1 1 2\r\n"),
            ("0.0.0.0", "PROXY TCP6 ::ffff:127.0.0.1 2001:db8::1 1 2\r\n"),
            ("0.0.0.0", "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"),
        ] {
            let path = format!("/v1-{}/config", line.len());
            let mut conn = from_proxy(&line.as_bytes()[..line.len() / 2]);
            std::thread::sleep(std::time::Duration::from_millis(30));
            conn.send(
                [
                    &line.as_bytes()[line.len() / 2..],
                    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(),
                ]
                .concat(),
            );
            assert_eq!(conn.response().status, 404, "{line}");
            server.wait_for_log(&format!("{n} user=- \"GET {path}\""));
        }
        // Anything else from there ends, and is told once.
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(120));
        let wrong = [
            &b"GET /r1/config HTTP/1.1\r\nHost: h\r\n\r\n"[..],
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"PROXY TCP4 2001:db8::9 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\nGET / HTTP/1.1\r\n\r\n",
            long.as_bytes(),
            b"",
            &bytes[..10],
        ];
        for wrong in wrong {
            assert!(from_proxy(wrong).is_ended(), "{}", wrong.escape_ascii());
        }
        let warnings = |what: &str| {
            let complaint = format!("not served: the PROXY header: it is {what}");
            server.text().lines().filter(|line| line.contains("WARN") && line.contains(&complaint)).count()
        };
        for what in ["missing", "malformed", "longer"] {
            assert_eq!(warnings(what), 1, "{what}: {}", server.text());
        }
        // Who is no proxy needs none, and has no use for one.
        assert_eq!(server.status("GET", "/third/config", b""), 404);
        let mut forger = server.connect();
        forger.send(header(1, [203, 0, 113, 7]));
        forger.send("GET /forged/config HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(forger.response().status, 400);
        assert!(!server.text().contains("203.0.113.7"));
    });
}

/// A proxy that sends a header to a server that expects none: the log says so, by either version and on TLS.
#[test]
fn a_header_that_is_not_expected_is_named() {
    on_both(|driver| {
        let pki = Pki::new();
        let plain = Server::start(driver, &[]);
        let (cert, key) = pki.server("server", &["localhost"]);
        let tls = Server::start(driver, &["--tls", "--tls-cert", &cert, "--tls-key", &key]);
        for server in [&plain, &tls] {
            for begin in [&b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n"[..], &header(1, [1, 1, 1, 1])] {
                let before = server.text().matches("--proxy-protocol").count();
                let mut conn = server.connect();
                conn.try_send([begin, b"GET /r1/config HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
                wait_for("the header to be named", || {
                    server.text().matches("--proxy-protocol").count() > before
                });
            }
        }
    });
}

#[test]
fn a_unix_socket_with_the_proxy_protocol() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listen = format!("unix:{}", socket.display());
        let _server = Server::start(driver, &["--listen", &listen, "--proxy-protocol"]);
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.write_all(&header(1, [203, 0, 113, 8])).unwrap();
        let mut conn = Conn::over(stream);
        assert_eq!(conn.request("GET", "/r1/config", "", b"").status, 404);
    });
}
