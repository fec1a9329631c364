//! Cases 50–53: ranges, of an object of 18 bytes.

use std::io::Read;

use crate::common::{Server, noise, on_both};

const BODY: &[u8] = b"0123456789abcdefgh";

#[test]
fn case_50_to_52_ranges() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let path = server.store("/r1/", "data", BODY);
        let mut conn = server.connect();
        for (range, first, last) in [
            ("0-4", 0, 4),
            ("6-", 6, 17),
            ("0-", 0, 17),
            ("-4", 14, 17),
            ("-400", 0, 17),
            ("10-9999", 10, 17),
            ("17-17", 17, 17),
        ] {
            let part = conn.request("GET", &path, &format!("Range: bytes={range}\r\n"), b"");
            assert_eq!(
                (part.status, part.header("content-range")),
                (206, format!("bytes {first}-{last}/18").as_str()),
                "{range}"
            );
            assert_eq!(part.body, &BODY[first..=last], "{range}");
        }
        // A number that no integer holds is a number.
        let big = conn.request("GET", &path, "Range: bytes=0-99999999999999999999\r\n", b"");
        assert_eq!((big.status, big.header("content-range")), (206, "bytes 0-17/18"));
        for range in ["18-", "1000-1010", "-0", "99999999999999999999-"] {
            let none = conn.request("GET", &path, &format!("Range: bytes={range}\r\n"), b"");
            assert_eq!((none.status, none.header("content-range")), (416, "bytes */18"), "{range}");
        }
        for range in ["bytes=5-2", "bytes=abc", "abc", "items=0-1", "bytes=0-1,4-5", "bytes="] {
            let full = conn.request("GET", &path, &format!("Range: {range}\r\n"), b"");
            assert_eq!((full.status, full.body.as_slice()), (200, BODY), "{range}");
        }
        let head = conn.request("HEAD", &path, "Range: bytes=0-4\r\n", b"");
        assert_eq!((head.status, head.header("content-length")), (200, "18"));
    });
}

#[test]
fn case_50_ranges_of_a_large_object() {
    on_both(|driver| {
        // Straight from the file, and read.
        for flags in [&[][..], &["--sendfile=false"]] {
            let server = Server::start(driver, flags);
            let body = noise(2_000_003, 4);
            let path = server.store("/r1/", "data", &body);
            let mut conn = server.connect();
            for (first, last) in [
                (0, 2_000_002),
                (131_071, 131_072),
                (131_072, 262_143),
                (524_287, 524_288),
                (1_999_999, 2_000_002),
                (7, 1_500_000),
                // The longest that goes with the head of its answer, and those that are a little longer.
                (4_095, 20_478),
                (4_095, 20_479),
                (131_071, 150_000),
                (524_287, 545_000),
                (1_980_000, 2_000_002),
            ] {
                let part = conn.request("GET", &path, &format!("Range: bytes={first}-{last}\r\n"), b"");
                assert!(part.status == 206 && part.body == body[first..=last], "{first}-{last}");
            }
            assert!(conn.request("GET", &path, "", b"").body == body);
        }
    });
}

#[test]
fn an_object_that_is_not_in_memory_is_read() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    on_both(|driver| {
        let server = Server::on(&dir.path().join(driver), driver, &[]);
        // The short one would go with the head of its answer.
        for length in [3_000_000, 3_000_000, 3_000_000, 12_000] {
            let body = noise(length, 5);
            let path = server.store("/r1/", "data", &body);
            let file = server.data.join("r1/data").join(&path[9..11]).join(&path[9..]);
            // All of it, then its second half only, is thrown out of memory.
            for from in [0, body.len() / 2] {
                let file = std::fs::File::open(&file).unwrap();
                file.sync_all().unwrap();
                let length = std::num::NonZeroU64::new((body.len() - from) as u64);
                rustix::fs::fadvise(&file, from as u64, length, rustix::fs::Advice::DontNeed).unwrap();
                assert!(server.request("GET", &path, "", b"").body == body);
            }
        }
    });
}

#[test]
fn case_53_an_object_deleted_while_it_is_sent() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        let body = noise(30 << 20, 4);
        let path = server.store("/r1/", "data", &body);
        let mut conn = server.connect();
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        let mut start = [0; 1000];
        conn.stream.read_exact(&mut start).unwrap();
        assert_eq!(server.status("DELETE", &path, b""), 200);
        let mut all = start.to_vec();
        conn.stream.read_to_end(&mut all).unwrap();
        let head = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(all[head..] == body);
        assert_eq!(server.status("GET", &path, b""), 404);
    });
}
