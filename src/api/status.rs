//! How the server is: health for load balancers, numbers for Prometheus.

use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};

use crate::api::{Answer, Content, Error};
use crate::http::head::Target;
use crate::http::{Head, ResponseHead};
use crate::io::limits::process_figures;
use crate::io::signal::Flag;
use crate::metrics::blobs::SharedRows;
use crate::metrics::render::{MEDIA_TYPE, Snapshot};
use crate::metrics::{Counters, LoginCounters, ScrubCounters};
use crate::quota::Ledger;
use crate::store::Store;
use crate::store::health::Health;
use crate::tls::Acceptor;

/// Where all parts of the server tell how they are.
pub struct Status {
    /// What the workers count.
    pub workers: Vec<Arc<Counters>>,
    /// What the workers count of objects.
    pub blobs: Vec<SharedRows>,
    /// The store's health.
    pub health: Arc<Health>,
    /// What is stored.
    pub ledger: Arc<Ledger>,
    /// Logins.
    pub logins: Arc<LoginCounters>,
    /// The verification of what is stored.
    pub scrub: Arc<ScrubCounters>,
    /// Raised when the server is to end.
    pub stopping: Arc<Flag>,
    /// Whose certificates end some day.
    pub tls: Option<Arc<Acceptor>>,
}

/// A path that is not restic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/healthz`: the process answers.
    Health,
    /// `/readyz`: it can take uploads.
    Ready,
    /// `/metrics`
    Metrics,
}

impl Page {
    /// The page that a target means.
    pub fn of(target: &Target) -> Option<Self> {
        match target {
            Target::Path { path, .. } => match path.as_slice() {
                b"/healthz" => Some(Self::Health),
                b"/readyz" => Some(Self::Ready),
                b"/metrics" => Some(Self::Metrics),
                _ => None,
            },
            Target::Asterisk => None,
        }
    }
}

/// Answers with a page.
pub(super) async fn respond<S: Store>(
    status: &Status,
    store: &S,
    page: Page,
    head: &Head,
) -> Result<Answer<S>, Error> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(Error::Method("GET, HEAD"));
    }
    let (head, text) = match page {
        Page::Health => (ResponseHead::text(StatusCode::OK), "ok\n".into()),
        Page::Ready => {
            let (code, text) = status.readiness();
            (ResponseHead::text(code), format!("{text}\n"))
        }
        Page::Metrics => {
            let head = ResponseHead::new(StatusCode::OK).with("Content-Type", MEDIA_TYPE);
            (head, status.metrics(store.space().await.ok()))
        }
    };
    Ok(Answer::new(head.with("Cache-Control", "no-store"), Content::Text(text.into())))
}

impl Status {
    fn readiness(&self) -> (StatusCode, String) {
        if self.stopping.is_raised() {
            return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping".into());
        }
        match self.health.check_writable() {
            Ok(()) => (StatusCode::OK, "ok".into()),
            Err(e) => (StatusCode::SERVICE_UNAVAILABLE, e.to_string()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus has floating-point numbers only")]
    fn metrics(&self, space: Option<(u64, u64)>) -> String {
        let mut all = Snapshot::default();
        all.blobs(&self.blobs);
        all.workers(&self.workers);
        let LoginCounters { right, wrong, overloaded } = &*self.logins;
        let logins = [("right", right), ("wrong", wrong), ("overloaded", overloaded)];
        let logins = logins.map(|(result, counter)| (vec![("result", result.to_owned())], counter.get()));
        all.counter("packhouse_logins", "Logins checked; remembered ones are not among them", logins.into());
        all.count("packhouse_damaged_objects", "Stored objects found damaged", self.health.damaged());
        let help = "Objects read back and compared with their names, in the background";
        all.count("packhouse_scrub_objects", help, self.scrub.objects.get());
        all.count("packhouse_scrub_bytes", "Bytes of these", self.scrub.bytes.get());
        all.count("packhouse_scrub_quarantined", "Damaged objects renamed", self.scrub.quarantined.get());
        let help =
            "When everything had last been read back, in seconds since 1970; 0 if never in this process";
        all.value("packhouse_scrub_end_seconds", help, self.scrub.last_end() as f64);
        let writable = f64::from(u8::from(self.health.check_writable().is_ok()));
        all.value("packhouse_writable", "1 if the store takes uploads", writable);
        if let Some((free, bytes)) = space {
            all.value("packhouse_disk_free_bytes", "Bytes free on the disk of the data folder", free as f64);
            all.value("packhouse_disk_size_bytes", "Bytes of the disk of the data folder", bytes as f64);
        }
        self.quotas(&mut all);
        let ends =
            self.tls.iter().flat_map(|tls| tls.ends()).map(|(file, end)| (vec![("file", file)], end as f64));
        let help = "When a certificate ends, in seconds since 1970";
        all.gauge("packhouse_certificate_end_seconds", help, ends.collect());
        process(&mut all);
        all.text()
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus has floating-point numbers only")]
    fn quotas(&self, all: &mut Snapshot) {
        let usage = self.ledger.usage();
        let (mut used, mut limits) = (Vec::new(), Vec::new());
        let mut add = |labels: [(&'static str, String); 2], held: Option<u64>, limit: u64| {
            limits.push((labels.to_vec(), limit as f64));
            if let Some(held) = held {
                used.push((labels.to_vec(), held as f64));
            }
        };
        if let (held, Some(limit)) = usage.total {
            add([("scope", "total".into()), ("name", String::new())], held, limit);
        }
        for (user, held, limit) in usage.users {
            add([("scope", "user".into()), ("name", user)], held, limit);
        }
        for (repo, held, limit) in usage.repos {
            add([("scope", "repo".into()), ("name", repo.to_string())], held, limit);
        }
        all.gauge("packhouse_quota_used_bytes", "Bytes stored and reserved where there is a quota", used);
        all.gauge("packhouse_quota_limit_bytes", "Quotas in bytes", limits);
    }
}

/// The usual numbers of a process.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has floating-point numbers only")]
fn process(all: &mut Snapshot) {
    let Some(figures) = process_figures() else { return };
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let start = since_1970.saturating_sub(figures.age).as_secs_f64();
    all.seconds("process_cpu_seconds", "Processor time of the process in seconds", figures.cpu.as_secs_f64());
    all.value("process_open_fds", "Open descriptors", figures.open_descriptors as f64);
    all.value("process_max_fds", "Most open descriptors", figures.max_descriptors as f64);
    all.value("process_resident_memory_bytes", "Resident memory in bytes", figures.resident as f64);
    all.value("process_virtual_memory_bytes", "Virtual memory in bytes", figures.virtual_memory as f64);
    all.value("process_start_time_seconds", "Start of the process in seconds since 1970", start);
}
