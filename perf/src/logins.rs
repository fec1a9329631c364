//! What wrong passwords cost a user who is logged in, and whether users can be told from strangers by time.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use hdrhistogram::Histogram;

use crate::http::{Conn, Target};
use crate::process::{Process, free_port};

/// Connections that flood, from so many addresses.
const FLOODERS: u64 = 64;
const ADDRESSES: u8 = 8;

fn head(user: &str, password: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("HEAD /r1/config HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {text}\r\n\r\n")
}

fn start(server: &Path, folder: &Path, cost: u32, flags: &[&str]) -> io::Result<(Process, Target)> {
    let hash = bcrypt::hash("right", cost).map_err(io::Error::other)?;
    let users = folder.join("users");
    std::fs::write(&users, format!("alice:{hash}\n"))?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut command = Command::new(server);
    command.args(["serve", "--listen", &address, "--htpasswd-file"]).arg(users);
    command.arg("--path").arg(folder.join("data")).args(flags);
    let target = Target::Tcp(address.parse().map_err(io::Error::other)?);
    let mut process = Process::start(command)?;
    process.wait_until(|| Conn::open(&target).is_ok())?;
    Ok((process, target))
}

/// Microseconds that requests of a remembered login take, for `time`.
fn watch(target: &Target, time: Duration) -> io::Result<Histogram<u64>> {
    let mut conn = Conn::open(target)?;
    let ask = head("alice", "right");
    conn.request(&ask, b"", None)?;
    let mut histogram = Histogram::new(3).map_err(io::Error::other)?;
    let start = Instant::now();
    while start.elapsed() < time {
        let begun = Instant::now();
        let answer = conn.request(&ask, b"", None)?;
        if answer.status != 404 {
            return Err(io::Error::other(format!("status {} for the right login", answer.status)));
        }
        histogram.record(begun.elapsed().as_micros() as u64).map_err(io::Error::other)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(histogram)
}

/// A remembered user's latencies, quiet and while others send wrong passwords for a user of bcrypt cost 12.
pub fn flood(server: &Path, seconds: u64) -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let (_process, target) = start(server, dir.path(), 12, &[])?;
    let quiet = watch(&target, Duration::from_secs(seconds))?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let flooded = std::thread::scope(|scope| {
        for n in 0..FLOODERS {
            let (target, stop, sent) = (&target, &stop, &sent);
            scope.spawn(move || {
                let source = IpAddr::from([127, 0, 0, 2 + (n % u64::from(ADDRESSES)) as u8]);
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    // After every answer on a new connection: who attacks does not wait for a slow one.
                    let Ok(mut conn) = Conn::open_from(target, Some(source)) else { continue };
                    round += 1;
                    if conn.request(&head("alice", &format!("wrong {n} {round}")), b"", None).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let flooded = watch(&target, Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        flooded
    })?;
    let at = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "a remembered user's HEAD, {seconds} s each; {} wrong logins were answered meanwhile",
        sent.into_inner()
    );
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let (quiet, flooded) = (at(&quiet, quantile), at(&flooded, quantile));
        println!("{name}: {quiet:.3} ms quiet, {flooded:.3} ms flooded, ratio {:.2}", flooded / quiet);
    }
    Ok(())
}

/// Medians of wrong logins of a user and of strangers, in turns, with the throttle off.
pub fn enumeration(server: &Path, rounds: u64) -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let (_process, target) = start(server, dir.path(), 10, &["--login-throttle=false"])?;
    let mut conn = Conn::open(&target)?;
    let mut both =
        [Histogram::<u64>::new(3).map_err(io::Error::other)?, Histogram::new(3).map_err(io::Error::other)?];
    for round in 0..rounds {
        for (at, user) in ["alice", "stranger"].iter().enumerate() {
            let begun = Instant::now();
            let answer = conn.request(&head(user, &format!("wrong {round}")), b"", None)?;
            if answer.status != 401 {
                return Err(io::Error::other(format!("status {} for a wrong login", answer.status)));
            }
            both[at].record(begun.elapsed().as_micros() as u64).map_err(io::Error::other)?;
        }
    }
    let [known, unknown] = both.map(|histogram| histogram.value_at_quantile(0.5) as f64 / 1000.0);
    let difference = 100.0 * (known - unknown).abs() / known.max(unknown);
    println!(
        "{rounds} wrong logins each, medians: a user {known:.2} ms, a stranger {unknown:.2} ms, {difference:.1} % apart"
    );
    Ok(())
}
