//! The clients of a scenario, one thread a connection, with bodies that were made beforehand.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::http::{Answer, Conn, Target};
use crate::scenario::{Scenario, Work};

/// Different large bodies; every one is stored in many repositories, so that all objects are new. Small ones are all
/// different.
const LARGE_BODIES: usize = 4;
const LARGE: usize = 256 * 1024;
/// Objects that ranges are read from.
const PACK_BYTES: usize = 16 << 20;
/// What a session of a fleet's client stores, beside its packs.
const FLEET_PACKS: usize = 8;
const FLEET_CONNECTIONS: usize = 5;
const INDEX_BYTES: usize = 64 * 1024;
const SNAPSHOT_BYTES: usize = 500;
const LOCK_BYTES: usize = 200;
/// Who clients are where they log in.
pub const USER: &str = "perf";
pub const PASSWORD: &str = "correct horse";

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
    /// A header with the login, if there is one.
    login: String,
}

/// What a round took.
pub struct Outcome {
    pub seconds: f64,
    pub bytes: u64,
    /// Microseconds of every request.
    pub latencies: Histogram<u64>,
    /// Microseconds to the first byte of every answer.
    pub first: Histogram<u64>,
    pub failures: usize,
    /// Kept until the server was measured.
    pub conns: Vec<Conn>,
}

pub fn noise(len: usize, seed: u64) -> Vec<u8> {
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

fn post(path: &str, length: usize, login: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n{login}Content-Length: {length}\r\n\r\n"
    )
}

fn get(method: &str, path: &str, headers: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\nAccept: application/vnd.x.restic.rest.v2\r\n{headers}\r\n"
    )
}

fn ok(answer: Answer) -> io::Result<Answer> {
    if matches!(answer.status, 200 | 206) {
        Ok(answer)
    } else {
        Err(io::Error::other(format!("status {}", answer.status)))
    }
}

/// Makes bodies and stores what is to be read.
pub fn prepare(
    scenario: &Scenario,
    target: &Target,
    requests: usize,
    objects: usize,
    login: bool,
) -> io::Result<Prepared> {
    let login = if login {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        format!("Authorization: Basic {pair}\r\n")
    } else {
        String::new()
    };
    let mut conn = Conn::open(target)?;
    let mut stored = Vec::new();
    let different = if scenario.size < LARGE { requests } else { LARGE_BODIES };
    let repos = match scenario.work {
        Work::Put => requests.div_ceil(different),
        Work::Fleet => requests,
        // What is listed is there, and restic makes its own.
        Work::List | Work::Restic => 0,
        _ => 1,
    };
    for n in 0..repos {
        ok(conn.request(&post(&format!("/r{n}/?create=true"), 0, &login), b"", None)?)?;
    }
    let bodies: Vec<_> = match scenario.work {
        Work::Put => (0..different as u64).map(|n| body(scenario.size, n)).collect(),
        Work::Fleet => {
            let packs = (0..FLEET_PACKS as u64).map(|n| body(scenario.size, n));
            packs.chain([INDEX_BYTES, SNAPSHOT_BYTES, LOCK_BYTES].map(|size| body(size, 0))).collect()
        }
        _ => Vec::new(),
    };
    if let Work::Get | Work::Range | Work::Head | Work::Idle = scenario.work {
        let size = if scenario.work == Work::Range { PACK_BYTES } else { scenario.size };
        for n in 0..objects as u64 {
            let Body { bytes, id } = body(size, n);
            let path = format!("/r0/data/{id}");
            ok(conn.request(&post(&path, bytes.len(), &login), &bytes, None)?)?;
            if scenario.work != Work::Head {
                ok(conn.request(&get("GET", &path, &login), b"", None)?)?;
            }
            stored.push(path);
        }
    }
    Ok(Prepared { bodies, stored, login })
}

/// Makes a repository of many empty objects on disk, for lists.
pub fn make_objects(folder: &Path, objects: usize) -> io::Result<()> {
    let data = folder.join("r0/data");
    for shard in 0..=u8::MAX {
        std::fs::create_dir_all(data.join(format!("{shard:02x}")))?;
    }
    for n in 0..objects {
        let digest = ring::digest::digest(&ring::digest::SHA256, &n.to_le_bytes());
        let id: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(data.join(&id[..2]).join(&id), b"x")?;
    }
    for kind in ["index", "keys", "locks", "snapshots"] {
        std::fs::create_dir_all(folder.join("r0").join(kind))?;
    }
    std::fs::write(folder.join("r0/config"), b"x")
}

/// What the clients have measured so far.
struct Tally {
    latencies: Histogram<u64>,
    first: Histogram<u64>,
    bytes: u64,
    failures: usize,
}

impl Tally {
    fn new() -> Self {
        let histogram = || Histogram::<u64>::new(3).expect("valid");
        Self { latencies: histogram(), first: histogram(), bytes: 0, failures: 0 }
    }

    fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).expect("alike");
        self.first.add(&other.first).expect("alike");
        self.bytes += other.bytes;
        self.failures += other.failures;
    }
}

/// Runs one round.
pub fn run(
    scenario: &Scenario,
    target: &Target,
    prepared: &Prepared,
    requests: usize,
) -> io::Result<Outcome> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Tally::new(), Vec::new()));
    let clients = if scenario.work == Work::Idle { 8 } else { scenario.connections };
    let conns: io::Result<Vec<_>> = (0..clients).map(|_| Conn::open(target)).collect();
    let stalled: io::Result<Vec<_>> = (0..scenario.stalled).map(|n| stall(target, prepared, n)).collect();
    let _stalled = stalled?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for mut conn in conns? {
            let (next, all) = (&next, &all);
            scope.spawn(move || {
                let (mut tally, mut silent) = (Tally::new(), Vec::new());
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        break;
                    }
                    let begun = match scenario.rate {
                        None => Instant::now(),
                        Some(rate) => wait_until(start + Duration::from_secs_f64(n as f64 / rate)),
                    };
                    let done = one(scenario, target, prepared, &mut conn, n);
                    let failed = done.is_err();
                    match done {
                        Ok((bytes, first)) => {
                            tally.bytes += bytes;
                            tally.first.record(first.as_micros() as u64).ok();
                        }
                        Err(e) => {
                            tally.failures += 1;
                            eprintln!("request {n} failed: {e}");
                        }
                    }
                    tally.latencies.record(begun.elapsed().as_micros() as u64).ok();
                    if scenario.work == Work::Idle || failed {
                        match Conn::open(target) {
                            Ok(new) => silent.push(std::mem::replace(&mut conn, new)),
                            Err(_) => break,
                        }
                    }
                }
                let mut all = all.lock().expect("not poisoned");
                all.0.add(&tally);
                all.1.extend(silent);
            });
        }
        Ok::<_, io::Error>(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (Tally { latencies, first, bytes, failures }, conns) = all.into_inner().expect("not poisoned");
    Ok(Outcome { seconds, bytes, latencies, first, failures, conns })
}

/// Sends the first half of an object that nobody else sends.
fn stall(target: &Target, prepared: &Prepared, n: usize) -> io::Result<Conn> {
    let Body { bytes, .. } = &prepared.bodies[0];
    let mut conn = Conn::open(target)?;
    conn.send(post(&format!("/r0/data/{n:064x}"), bytes.len(), &prepared.login).as_bytes())?;
    conn.send(&bytes[..bytes.len() / 2])?;
    Ok(conn)
}

/// Waits until a request is to begin, and returns when that was to be, however late it is.
fn wait_until(due: Instant) -> Instant {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    due
}

fn one(
    scenario: &Scenario,
    target: &Target,
    prepared: &Prepared,
    conn: &mut Conn,
    n: usize,
) -> io::Result<(u64, Duration)> {
    let stored = || prepared.stored[n % prepared.stored.len()].as_str();
    let login = prepared.login.as_str();
    match scenario.work {
        Work::Put => {
            let different = prepared.bodies.len();
            let body = &prepared.bodies[n % different];
            let path = format!("/r{}/data/{}", n / different, body.id);
            let answer = ok(conn.request(&post(&path, body.bytes.len(), login), &body.bytes, None)?)?;
            Ok((body.bytes.len() as u64, answer.first))
        }
        Work::Get => {
            let headers = format!("{login}Range: bytes=0-\r\n");
            let answer = ok(conn.request(&get("GET", stored(), &headers), b"", None)?)?;
            Ok((answer.bytes, answer.first))
        }
        Work::Range => {
            // A sequence that looks random and is the same for every server.
            let at = (n.wrapping_mul(2_654_435_761) >> 3) % (PACK_BYTES - scenario.size);
            let headers = format!("{login}Range: bytes={at}-{}\r\n", at + scenario.size - 1);
            let answer = ok(conn.request(&get("GET", stored(), &headers), b"", None)?)?;
            Ok((answer.bytes, answer.first))
        }
        Work::Head | Work::Idle => {
            let answer = ok(conn.request(&get("HEAD", stored(), login), b"", None)?)?;
            Ok((0, answer.first))
        }
        Work::List => {
            let answer = ok(conn.request(&get("GET", "/r0/data/", login), b"", None)?)?;
            Ok((answer.bytes, answer.first))
        }
        Work::Fleet => session(target, prepared, conn, n),
        Work::Restic => Err(io::Error::other("restic is run elsewhere")),
    }
}

/// One backup of one client: what restic asks for, in its order.
fn session(target: &Target, prepared: &Prepared, conn: &mut Conn, n: usize) -> io::Result<(u64, Duration)> {
    let login = prepared.login.as_str();
    let [packs @ .., index, snapshot, lock] = prepared.bodies.as_slice() else {
        return Err(io::Error::other("not prepared"));
    };
    let store = |conn: &mut Conn, kind: &str, body: &Body| {
        let path = format!("/r{n}/{kind}/{}", body.id);
        ok(conn.request(&post(&path, body.bytes.len(), login), &body.bytes, None)?)
    };
    let first = store(conn, "locks", lock)?.first;
    for kind in ["locks", "index", "snapshots"] {
        ok(conn.request(&get("GET", &format!("/r{n}/{kind}/"), login), b"", None)?)?;
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let upload = || -> io::Result<()> {
            let mut conn = Conn::open(target)?;
            while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                store(&mut conn, "data", pack)?;
            }
            Ok(())
        };
        let uploads: Vec<_> = (0..FLEET_CONNECTIONS).map(|_| scope.spawn(upload)).collect();
        uploads.into_iter().try_for_each(|upload| upload.join().expect("no panic"))
    })?;
    store(conn, "index", index)?;
    store(conn, "snapshots", snapshot)?;
    let unlock = get("DELETE", &format!("/r{n}/locks/{}", lock.id), login);
    ok(conn.request(&unlock, b"", None)?)?;
    Ok((packs.iter().map(|pack| pack.bytes.len() as u64).sum(), first))
}
