//! Case 68: clients that are slow, silent or many. The limits are set low; what they are by default is told by `--help`.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::common::{Conn, Server, id_of, noise, on_both};

/// Seconds until the server ends the connection.
fn ended_after(conn: &mut Conn) -> f64 {
    let start = Instant::now();
    while !conn.is_ended() {
        conn.try_response_to("GET");
    }
    start.elapsed().as_secs_f64()
}

#[test]
fn case_68_silent_clients_are_closed() {
    on_both(|driver| {
        let server = Server::start(
            driver,
            &["--head-timeout", "700ms", "--idle-timeout", "1500ms", "--body-timeout", "1s"],
        );
        let path = server.store("/r1/", "keys", b"key");
        let head = format!("POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n", id_of(b"x"));
        let mut half_head = server.connect();
        half_head.send("GET / HTTP/1.1\r\nHo");
        assert_eq!(half_head.response().status, 408);
        let mut fresh = server.connect();
        let mut idle = server.connect();
        assert_eq!(idle.request("GET", &path, "", b"").status, 200);
        let mut half_body = server.connect();
        half_body.send(&head);
        half_body.send("some");
        let start = Instant::now();
        assert_eq!(half_body.response().status, 408);
        assert!((0.8..3.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
        assert!(ended_after(&mut idle) < 2.0 && ended_after(&mut fresh) < 2.0);
        assert!(start.elapsed().as_secs_f64() > 1.2, "idle connections have their time");
        assert_eq!(server.files().len(), 1);
    });
}

#[test]
fn case_68_a_trickle_is_too_slow_and_a_steady_stream_is_not() {
    on_both(|driver| {
        let server = Server::start(
            driver,
            &["--body-timeout", "1s", "--body-grace", "500ms", "--body-min-rate", "100"],
        );
        let body = noise(120, 1);
        let send = |pause: u64, piece: usize| {
            let mut conn = server.connect();
            conn.send(format!(
                "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
                id_of(&body),
                body.len()
            ));
            for part in body.chunks(piece) {
                if !conn.try_send(part) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(pause));
            }
            conn.response().status
        };
        assert_eq!(send(100, 3), 408, "30 bytes a second");
        assert_eq!(send(100, 12), 200, "120 bytes a second");
    });
}

#[test]
fn case_68_a_client_that_does_not_read_is_given_up() {
    on_both(|driver| {
        let server = Server::start(driver, &["--body-timeout", "1s"]);
        let path = server.store("/r1/", "data", &noise(40 << 20, 1));
        let mut conn = server.connect();
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        server.wait_for_log("aborted: the client was too slow");
        assert!(conn.try_response_to("GET").is_none(), "the body is cut short");
        assert_eq!(server.status("HEAD", &path, b""), 200);
    });
}

#[test]
fn case_68_a_slow_reader_is_not_one_that_does_not_read() {
    on_both(|driver| {
        let server = Server::start(driver, &["--body-timeout", "1s"]);
        let body = noise(8 << 20, 1);
        let path = server.store("/r1/", "data", &body);
        let mut conn = server.connect();
        rustix::net::sockopt::set_socket_recv_buffer_size(&conn.stream, 64 * 1024).unwrap();
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        // 200 KB a second for longer than the limit, then the rest.
        let mut begin = vec![0; 800_000];
        for piece in begin.chunks_mut(20_000) {
            conn.stream.read_exact(piece).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        let head = begin.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let mut rest = vec![0; body.len() + head - begin.len()];
        conn.stream.read_exact(&mut rest).unwrap();
        assert!([&begin[head..], &rest].concat() == body);
    });
}

#[test]
fn case_68_idle_connections_cost_little() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let path = server.store("/r1/", "keys", b"key");
        let open = |count: usize| -> Vec<Conn> {
            let mut conns: Vec<_> = (0..count).map(|_| server.connect()).collect();
            conns.iter_mut().for_each(|conn| assert_eq!(conn.request("GET", &path, "", b"").status, 200));
            conns
        };
        let _warm = open(50);
        let before = server.memory("VmRSS");
        let mut idle = open(1000);
        let each = server.memory("VmRSS").saturating_sub(before) / 1000;
        assert!(each < 10_000, "{each} bytes an idle connection");
        assert_eq!(server.status("GET", &path, b""), 200);
        for conn in &mut idle {
            assert_eq!(conn.request("HEAD", &path, "", b"").status, 200);
        }
    });
}
