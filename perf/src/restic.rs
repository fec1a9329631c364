//! restic itself as the client: some of them, all backing up at once.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::load::{self, Outcome};
use crate::scenario::Scenario;

/// Makes what is backed up: files that nothing can compress and no two of which are alike.
pub fn make_source(folder: &Path, files: usize, bytes: usize) -> io::Result<()> {
    for n in 0..files {
        std::fs::write(folder.join(format!("file-{n}")), load::noise(bytes, 7 + n as u64))?;
    }
    Ok(())
}

fn restic(address: &str, client: usize, cache: &Path) -> Command {
    let mut command = Command::new("restic");
    command
        .env("RESTIC_PASSWORD", "perf")
        .env("RESTIC_REPOSITORY", format!("rest:http://{address}/c{client}/"))
        .env("RESTIC_CACHE_DIR", cache)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Makes the repositories.
pub fn prepare(scenario: &Scenario, address: &str, cache: &Path) -> io::Result<()> {
    for client in 0..scenario.connections {
        if !restic(address, client, cache).arg("init").status()?.success() {
            return Err(io::Error::other("restic could not make a repository"));
        }
    }
    Ok(())
}

/// One backup by every client.
pub fn run(scenario: &Scenario, address: &str, cache: &Path, source: &Path) -> io::Result<Outcome> {
    let start = Instant::now();
    let backup = |client| restic(address, client, cache).arg("backup").arg(source).spawn();
    let clients: io::Result<Vec<_>> = (0..scenario.connections).map(backup).collect();
    let mut failures = 0;
    let mut latencies = Histogram::<u64>::new(3).expect("valid");
    for mut client in clients? {
        failures += usize::from(!client.wait()?.success());
        latencies.record(start.elapsed().as_micros() as u64).ok();
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes = (scenario.connections * scenario.objects * scenario.size) as u64;
    let first = Histogram::<u64>::new(3).expect("valid");
    Ok(Outcome { seconds, bytes, latencies, first, failures, conns: Vec::new() })
}
