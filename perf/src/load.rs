//! The clients of a scenario: closed loop, one thread a connection, bodies made beforehand.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::http::{Conn, Target};
use crate::scenario::{Scenario, Work};

/// Different large bodies; every one is stored in many repositories, so that all objects are new. Small ones are all
/// different.
const LARGE_BODIES: usize = 4;
const LARGE: usize = 256 * 1024;
/// Objects that ranges are read from.
const PACK_BYTES: usize = 16 << 20;

/// A body with its name.
pub struct Body {
    pub bytes: Vec<u8>,
    pub id: String,
}

/// What a round of a scenario needs.
pub struct Prepared {
    bodies: Vec<Body>,
    /// Paths of what is read.
    stored: Vec<String>,
}

/// What a round took.
pub struct Outcome {
    pub seconds: f64,
    pub bytes: u64,
    /// Microseconds of every request.
    pub latencies: Histogram<u64>,
    /// Microseconds to the first byte that matters: only lists tell it.
    pub failures: usize,
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn body(len: usize, seed: u64) -> Body {
    let bytes = noise(len, seed);
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let id = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Body { bytes, id }
}

fn post(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
}

fn get(method: &str, path: &str, headers: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\nAccept: application/vnd.x.restic.rest.v2\r\n{headers}\r\n"
    )
}

fn ok(status: u16) -> io::Result<()> {
    if matches!(status, 200 | 206) { Ok(()) } else { Err(io::Error::other(format!("status {status}"))) }
}

/// Makes bodies and stores what is to be read.
pub fn prepare(scenario: &Scenario, target: &Target, requests: usize) -> io::Result<Prepared> {
    let mut conn = Conn::open(target)?;
    let mut stored = Vec::new();
    let different = if scenario.size < LARGE { requests } else { LARGE_BODIES };
    let repos = if scenario.work == Work::Put { requests.div_ceil(different) } else { 1 };
    for n in 0..repos {
        let answer = conn.request(&post(&format!("/r{n}/?create=true"), 0), b"", None)?;
        ok(answer.status)?;
    }
    let bodies: Vec<_> = match scenario.work {
        Work::Put => (0..different as u64).map(|n| body(scenario.size, n)).collect(),
        _ => Vec::new(),
    };
    if scenario.work != Work::Put {
        let size = if scenario.work == Work::Range { PACK_BYTES } else { scenario.size };
        for n in 0..scenario.objects as u64 {
            let Body { bytes, id } = body(size, n);
            let path = format!("/r0/data/{id}");
            ok(conn.request(&post(&path, bytes.len()), &bytes, None)?.status)?;
            if scenario.work == Work::Get || scenario.work == Work::Range {
                ok(conn.request(&get("GET", &path, ""), b"", None)?.status)?;
            }
            stored.push(path);
        }
    }
    Ok(Prepared { bodies, stored })
}

/// Runs one round.
pub fn run(
    scenario: &Scenario,
    target: &Target,
    prepared: &Prepared,
    requests: usize,
) -> io::Result<Outcome> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Histogram::<u64>::new(3).map_err(io::Error::other)?, 0u64, 0usize));
    let conns: io::Result<Vec<_>> = (0..scenario.connections).map(|_| Conn::open(target)).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for mut conn in conns? {
            let (next, all) = (&next, &all);
            scope.spawn(move || {
                let mut latencies = Histogram::<u64>::new(3).expect("valid");
                let (mut bytes, mut failures) = (0, 0);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        break;
                    }
                    let begun = Instant::now();
                    match one(scenario, prepared, &mut conn, n) {
                        Ok(count) => bytes += count,
                        Err(e) => {
                            failures += 1;
                            eprintln!("request {n} failed: {e}");
                            match Conn::open(target) {
                                Ok(new) => conn = new,
                                Err(_) => break,
                            }
                        }
                    }
                    latencies.record(begun.elapsed().as_micros() as u64).ok();
                }
                let mut all = all.lock().expect("not poisoned");
                all.0.add(latencies).ok();
                all.1 += bytes;
                all.2 += failures;
            });
        }
        Ok::<_, io::Error>(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (latencies, bytes, failures) = all.into_inner().expect("not poisoned");
    Ok(Outcome { seconds, bytes, latencies, failures })
}

fn one(scenario: &Scenario, prepared: &Prepared, conn: &mut Conn, n: usize) -> io::Result<u64> {
    let stored = || prepared.stored[n % prepared.stored.len()].as_str();
    match scenario.work {
        Work::Put => {
            let different = prepared.bodies.len();
            let body = &prepared.bodies[n % different];
            let path = format!("/r{}/data/{}", n / different, body.id);
            let answer = conn.request(&post(&path, body.bytes.len()), &body.bytes, None)?;
            ok(answer.status)?;
            Ok(body.bytes.len() as u64)
        }
        Work::Get => {
            let answer = conn.request(&get("GET", stored(), "Range: bytes=0-\r\n"), b"", None)?;
            ok(answer.status)?;
            Ok(answer.bytes)
        }
        Work::Range => {
            // A sequence that looks random and is the same for every server.
            let at = (n.wrapping_mul(2_654_435_761) >> 3) % (PACK_BYTES - scenario.size);
            let range = format!("Range: bytes={at}-{}\r\n", at + scenario.size - 1);
            let answer = conn.request(&get("GET", stored(), &range), b"", None)?;
            ok(answer.status)?;
            Ok(answer.bytes)
        }
        Work::Head => {
            ok(conn.request(&get("HEAD", stored(), ""), b"", None)?.status)?;
            Ok(0)
        }
        Work::List => {
            let answer = conn.request(&get("GET", "/r0/data/", ""), b"", None)?;
            ok(answer.status)?;
            Ok(answer.bytes)
        }
    }
}
