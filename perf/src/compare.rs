//! Every scenario against every server, in turns.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;

use crate::http::{Conn, Target};
use crate::load;
use crate::process::{Process, free_port, machine};
use crate::report;
use crate::rivals::{Pem, Rival, YARDSTICK, find};
use crate::scenario::{self, Disk, Scenario, Transport};

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
    pub peak_mib: f64,
    pub switches: u64,
    pub failures: usize,
}

/// All rounds of one scenario, by server.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub scenario: Scenario,
    pub rounds: BTreeMap<String, Vec<Round>>,
}

/// Runs the plan; true if every goal was met.
pub fn run(plan: &Plan) -> io::Result<bool> {
    let scenarios = scenario::load(&plan.scenarios, &plan.only)?;
    if scenarios.is_empty() {
        return Err(io::Error::other(format!(
            "no scenario in {} is called like `{}`",
            plan.scenarios.display(),
            plan.only
        )));
    }
    let mut rivals = find(&plan.packhouse);
    rivals.retain(|rival| {
        ["packhouse", YARDSTICK].contains(&rival.name)
            || plan.rivals.iter().any(|wanted| rival.name.contains(wanted.as_str()))
    });
    let tls = Tls::new()?;
    let mut all = Vec::new();
    for scenario in scenarios {
        eprintln!("{}: {}", scenario.name, scenario.title);
        let mut rounds: BTreeMap<String, Vec<Round>> = BTreeMap::new();
        for round in 0..plan.rounds {
            // In turns, and not always the same one first: what disturbs the machine disturbs all.
            for n in 0..rivals.len() {
                let rival = &rivals[(n + round) % rivals.len()];
                let measured = measure(plan, &scenario, rival, &tls)
                    .map_err(|e| io::Error::other(format!("{} with {}: {e}", scenario.name, rival.name)))?;
                eprintln!(
                    "  {:13} {:8.0}/s  cpu {:7.3}  p99 {:8.2} ms  peak {:6.1} MiB",
                    rival.name, measured.throughput, measured.cpu, measured.p99_ms, measured.peak_mib
                );
                rounds.entry(rival.name.to_owned()).or_default().push(measured);
            }
        }
        all.push(Measured { scenario, rounds });
    }
    report::write(&plan.out, &machine(&plan.disk), plan.rounds, &all)
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

fn measure(plan: &Plan, scenario: &Scenario, rival: &Rival, tls: &Tls) -> io::Result<Round> {
    let base = match scenario.disk {
        Disk::Disk => plan.disk.clone(),
        Disk::Tmpfs => PathBuf::from("/dev/shm"),
    };
    let data = tempfile::Builder::new().prefix("perf-").tempdir_in(base)?;
    let requests = if plan.quick { scenario.quick_requests } else { scenario.requests };
    let address = format!("127.0.0.1:{}", free_port()?);
    let (cert, key) = (tls.dir.path().join("cert.pem"), tls.dir.path().join("key.pem"));
    let pem = Pem { cert: &cert, key: &key };
    let mut server = Process::start(rival.command(data.path(), &address, scenario.transport, &pem))?;
    let address = address.parse().map_err(io::Error::other)?;
    let target = match scenario.transport {
        Transport::Tcp => Target::Tcp(address),
        Transport::Tls => Target::Tls(address, Arc::clone(&tls.client)),
    };
    server.wait_until(|| Conn::open(&Target::Tcp(address)).is_ok())?;
    let prepared = load::prepare(scenario, &target, requests)?;
    flush(data.path());
    let before = server.figures()?;
    let outcome = load::run(scenario, &target, &prepared, requests)?;
    let after = server.figures()?;
    let unit = if scenario.moves_bytes() {
        outcome.bytes as f64 / (1u64 << 30) as f64
    } else {
        requests as f64 / 1000.0
    };
    let rate = if scenario.moves_bytes() { outcome.bytes as f64 / (1 << 20) as f64 } else { requests as f64 };
    let ms = |quantile| outcome.latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Round {
        throughput: rate / outcome.seconds,
        cpu: (after.cpu - before.cpu) / unit,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        peak_mib: after.peak as f64 / f64::from(1 << 20),
        switches: after.switches.saturating_sub(before.switches),
        failures: outcome.failures,
    })
}

/// What was prepared is not to be written while something else is measured.
fn flush(folder: &Path) {
    std::process::Command::new("sync").arg("-f").arg(folder).status().ok();
}
