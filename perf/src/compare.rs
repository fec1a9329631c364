//! Every scenario against every server, in turns.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;

use crate::http::{Conn, Target};
use crate::process::{Process, free_port, machine};
use crate::report::{About, Verdict};
use crate::rivals::{Pem, Rival, YARDSTICK, find, prepare};
use crate::scenario::{self, Disk, Scenario, Transport, Work};
use crate::{load, report, restic};

/// What is to be compared.
pub struct Plan {
    pub packhouse: PathBuf,
    pub scenarios: PathBuf,
    /// Scenarios whose names contain this.
    pub only: String,
    /// Servers whose names contain one of these; packhouse and rest-server always.
    pub rivals: Vec<String>,
    pub rounds: usize,
    pub quick: bool,
    /// packhouse also without what makes it fast.
    pub variants: bool,
    /// A folder on a real disk.
    pub disk: PathBuf,
    pub out: PathBuf,
}

/// One round of one server.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// MiB or requests a second.
    pub throughput: f64,
    /// Seconds of the server per GiB or per 1,000 requests.
    pub cpu: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    /// To the first byte of an answer, in the middle.
    pub first_ms: f64,
    /// Most memory of the server while it was measured.
    pub peak_mib: f64,
    /// Its memory when all requests were answered.
    pub steady_mib: f64,
    pub switches: u64,
    pub failures: usize,
}

/// All rounds of one scenario, by server.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub scenario: Scenario,
    pub rounds: BTreeMap<String, Vec<Round>>,
}

/// Runs the plan.
pub fn run(plan: &Plan) -> io::Result<Verdict> {
    let scenarios = scenario::load(&plan.scenarios, &plan.only)?;
    if scenarios.is_empty() {
        return Err(io::Error::other(format!(
            "no scenario in {} is called like `{}`",
            plan.scenarios.display(),
            plan.only
        )));
    }
    let mut rivals = find(&plan.packhouse);
    if !rivals.iter().any(|rival| rival.name == YARDSTICK) {
        prepare();
        rivals = find(&plan.packhouse);
    }
    rivals.retain(|rival| {
        ["packhouse", YARDSTICK].contains(&rival.name.as_str())
            || plan.rivals.iter().any(|wanted| wanted == "all" || rival.name.contains(wanted.as_str()))
    });
    let tls = Tls::new()?;
    let about = About {
        date: told("date", &["-u", "+%F %H:%M UTC"]),
        machine: machine(&plan.disk),
        commit: told("git", &["describe", "--always", "--dirty"]),
        servers: rivals.iter().map(Rival::version).collect::<Vec<_>>().join("; "),
        rounds: plan.rounds,
    };
    let (mut all, mut verdict) = (Vec::new(), Verdict::default());
    // Removed at the very end: a file system that has just lost many files makes new ones slowly.
    let mut kept = Vec::new();
    for scenario in scenarios {
        eprintln!("{}: {}", scenario.name, scenario.title);
        let site = Site::new(plan, &scenario, &tls)?;
        let mut servers = rivals.clone();
        servers.retain(|rival| rival.can(scenario.work));
        if plan.variants {
            servers.extend(scenario.variants.iter().map(|variant| rivals[0].variant(variant)));
        }
        let mut rounds: BTreeMap<String, Vec<Round>> = BTreeMap::new();
        for round in 0..plan.rounds {
            // In turns, and not always the same one first: what disturbs the machine disturbs all.
            for n in 0..servers.len() {
                let rival = &servers[(n + round) % servers.len()];
                let (measured, data) = match measure(&site, rival) {
                    Ok(Some(round)) => round,
                    Ok(None) => continue,
                    Err(e) if rival.is_needed() => {
                        return Err(io::Error::other(format!("{} with {}: {e}", scenario.name, rival.name)));
                    }
                    Err(e) => {
                        eprintln!("*** {} FAILED: {e}: left out of this round ***", rival.name);
                        continue;
                    }
                };
                kept.extend(data);
                eprintln!(
                    "  {:24} {:8.0}/s  cpu {:7.3}  p99 {:8.2} ms  peak {:6.1} MiB",
                    rival.name, measured.throughput, measured.cpu, measured.p99_ms, measured.peak_mib
                );
                rounds.entry(rival.name.clone()).or_default().push(measured);
            }
        }
        all.push(Measured { scenario, rounds });
        // After every scenario: a run that is broken off is not for nothing.
        verdict = report::write(&plan.out, &about, &all)?;
    }
    Ok(verdict)
}

/// What a program prints.
fn told(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

struct Tls {
    dir: tempfile::TempDir,
    client: Arc<ClientConfig>,
}

impl Tls {
    fn new() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
        std::fs::write(dir.path().join("cert.pem"), made.cert.pem())?;
        std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { dir, client: Arc::new(client) })
    }
}

/// What all rounds of a scenario share.
struct Site<'p> {
    scenario: &'p Scenario,
    tls: &'p Tls,
    base: PathBuf,
    requests: usize,
    objects: usize,
    /// What is listed or backed up.
    source: Option<tempfile::TempDir>,
    passwords: PathBuf,
}

impl<'p> Site<'p> {
    fn new(plan: &Plan, scenario: &'p Scenario, tls: &'p Tls) -> io::Result<Self> {
        let base = match scenario.disk {
            Disk::Disk => plan.disk.clone(),
            Disk::Tmpfs => PathBuf::from("/dev/shm"),
        };
        let requests = if plan.quick { scenario.quick_requests } else { scenario.requests };
        let objects = scenario.quick_objects.filter(|_| plan.quick).unwrap_or(scenario.objects);
        let folder = || tempfile::Builder::new().prefix("perf-source-").tempdir_in(&base);
        let source = match scenario.work {
            Work::List => {
                let source = folder()?;
                load::make_objects(source.path(), objects)?;
                Some(source)
            }
            Work::Restic => {
                let source = folder()?;
                restic::make_source(source.path(), objects, scenario.size)?;
                Some(source)
            }
            _ => None,
        };
        let passwords = tls.dir.path().join("htpasswd");
        let hash = bcrypt::hash(load::PASSWORD, 8).map_err(io::Error::other)?;
        std::fs::write(&passwords, format!("{}:{hash}\n", load::USER))?;
        Ok(Self { scenario, tls, base, requests, objects, source, passwords })
    }
}

/// One round of one server, and the folder it filled; none if it can't be reached so.
fn measure(site: &Site<'_>, rival: &Rival) -> io::Result<Option<(Round, Option<tempfile::TempDir>)>> {
    let Site { scenario, tls, requests, .. } = *site;
    let data = tempfile::Builder::new().prefix("perf-").tempdir_in(&site.base)?;
    let (folder, source) = match (&site.source, scenario.work) {
        (Some(source), Work::List) => (source.path(), None),
        (source, _) => (data.path(), source.as_ref().map(tempfile::TempDir::path)),
    };
    let tcp = format!("127.0.0.1:{}", free_port()?);
    let socket = tls.dir.path().join("socket");
    std::fs::remove_file(&socket).ok();
    let address = match scenario.transport {
        Transport::Unix => format!("unix:{}", socket.display()),
        Transport::Tcp | Transport::Tls => tcp.clone(),
    };
    let (cert, key) = (tls.dir.path().join("cert.pem"), tls.dir.path().join("key.pem"));
    let pem = Pem { cert: &cert, key: &key };
    let Some(command) = rival.command(folder, &address, scenario.transport, &pem, &site.passwords) else {
        return Ok(None);
    };
    rival.prepare(folder)?;
    let mut server = Process::start(command)?;
    let parsed = tcp.parse().map_err(io::Error::other)?;
    let target = match scenario.transport {
        Transport::Tcp => Target::Tcp(parsed),
        Transport::Tls => Target::Tls(parsed, Arc::clone(&tls.client)),
        Transport::Unix => Target::Unix(socket),
    };
    let knock = match &target {
        Target::Tls(address, _) => Target::Tcp(*address),
        other => other.clone(),
    };
    server.wait_until(|| Conn::open(&knock).is_ok())?;
    let cache = tempfile::tempdir()?;
    let prepared = load::prepare(scenario, &target, requests, site.objects, rival.login)?;
    if scenario.work == Work::Restic {
        restic::prepare(scenario, &tcp, cache.path())?;
    }
    flush(folder);
    if scenario.cold {
        std::fs::write("/proc/sys/vm/drop_caches", "1")?;
    }
    server.forget_peak();
    let before = server.figures()?;
    let outcome = match source {
        Some(source) => restic::run(scenario, &tcp, cache.path(), source)?,
        None => load::run(scenario, &target, &prepared, requests)?,
    };
    let after = server.figures()?;
    drop(outcome.conns);
    drop(server);
    let moves_bytes = scenario.moves_bytes();
    let mut count = (outcome.latencies.len() as usize - outcome.failures) as f64;
    let mut unit = if moves_bytes { outcome.bytes as f64 / (1u64 << 30) as f64 } else { count / 1000.0 };
    if scenario.work == Work::List {
        count *= site.objects as f64;
        unit = count / 1_000_000.0;
    }
    let rate = if moves_bytes { outcome.bytes as f64 / (1 << 20) as f64 } else { count };
    let ms = |histogram: &hdrhistogram::Histogram<u64>, quantile| {
        histogram.value_at_quantile(quantile) as f64 / 1000.0
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let round = Round {
        throughput: rate / outcome.seconds,
        cpu: (after.cpu - before.cpu) / unit,
        p50_ms: ms(&outcome.latencies, 0.5),
        p99_ms: ms(&outcome.latencies, 0.99),
        p999_ms: ms(&outcome.latencies, 0.999),
        first_ms: ms(&outcome.first, 0.5),
        peak_mib: mib(after.peak),
        steady_mib: mib(after.steady),
        switches: after.switches.saturating_sub(before.switches),
        failures: outcome.failures,
    };
    empty(data.path());
    Ok(Some((round, Some(data))))
}

/// Frees the room of large files and leaves their names.
fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => empty(&path),
            Ok(meta) if meta.len() > 100_000 => {
                std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0)).ok();
            }
            _ => {}
        }
    }
}

/// What was prepared is not to be written while something else is measured.
fn flush(folder: &Path) {
    std::process::Command::new("sync").arg("-f").arg(folder).status().ok();
}
