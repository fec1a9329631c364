//! How the server is: health for load balancers, numbers for Prometheus.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::ACCEPT;
use http::{HeaderValue, Method, StatusCode};

use crate::api::{Answer, Content, Error};
use crate::http::head::Target;
use crate::http::{Head, ResponseHead};
use crate::io::blocking::Pool;
use crate::io::limits::process_figures;
use crate::io::runtime::{Elapsed, now, timeout};
use crate::io::signal::Latch;
use crate::metrics::blobs::{Known, SharedRows, sum};
use crate::metrics::render::{Format, Snapshot};
use crate::metrics::{Counter, Counters, LoginCounters, ScrubCounters};
use crate::quota::Ledger;
use crate::store::health::Health;
use crate::store::{self, Store};
use crate::tls::{Acceptor, StaleList};

/// How long a disk may take to answer whether it takes uploads.
const READY_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to tell its free space beside that: Prometheus waits for ten seconds.
const SPACE_LIMIT: Duration = Duration::from_secs(2);

/// How long a reload may take until an operator is told.
const RELOAD_LIMIT: Duration = Duration::from_secs(20);

/// Where all parts of the server tell how they are.
pub struct Status {
    /// What the workers count.
    pub workers: Vec<Arc<Counters>>,
    /// What the workers count of objects.
    pub blobs: Vec<SharedRows>,
    /// Which of these have rows of their own.
    pub rows: Known,
    /// The store's health.
    pub health: Arc<Health>,
    /// What is stored.
    pub ledger: Arc<Ledger>,
    /// Logins.
    pub logins: Arc<LoginCounters>,
    /// The verification of what is stored.
    pub scrub: Arc<ScrubCounters>,
    /// Raised when the server is to end.
    pub stopping: Arc<Latch>,
    /// Whose certificates end some day.
    pub tls: Option<Arc<Acceptor>>,
    /// What came of reloads.
    pub reloads: Reloads,
    /// Why the disk stores nothing at all, found at the start. It holds until something is stored.
    pub cannot_store: Option<String>,
    /// Renders what may be long.
    pub pages: Pool,
    /// When the look at the disk that is under way ends at the latest, and what the last one found.
    pub disk_look: Mutex<Option<(Instant, Result<(), String>)>>,
}

/// What a reload reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything, on SIGHUP and `packhouse reload`.
    Settings,
    /// The password file.
    Users,
    /// Certificates, keys, authorities, revocations.
    Certificates,
    /// The file of rights.
    Rights,
}

/// What came of the last reloads. Written by the supervisor, read by `/readyz` and `/metrics`.
#[derive(Debug, Default)]
pub struct Reloads {
    /// What failed and has not succeeded since, and why.
    failed: Mutex<Vec<(Part, String)>>,
    /// Reloads that failed.
    failures: Counter,
    /// When the one began that is under way.
    begun: Mutex<Option<Instant>>,
}

impl Reloads {
    fn failed(&self) -> MutexGuard<'_, Vec<(Part, String)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> MutexGuard<'_, Option<Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reload begins.
    pub fn note_begin(&self) {
        *self.begun() = Some(now());
    }

    /// It has ended.
    pub fn note_end(&self) {
        *self.begun() = None;
    }

    /// Whether one does not end: a file that it reads may lie on a disk that does not answer.
    fn hangs(&self) -> bool {
        self.begun().is_some_and(|begun| begun.elapsed() > RELOAD_LIMIT)
    }

    /// A part was read and holds.
    pub fn note_right(&self, part: Part) {
        self.failed().retain(|(other, _)| *other != part);
    }

    /// Everything was read and holds.
    pub fn note_all_right(&self) {
        self.failed().clear();
    }

    /// A part could not be read, or is wrong. True if that is news.
    pub fn note_failed(&self, part: Part, why: &str) -> bool {
        self.failures.increment();
        let mut failed = self.failed();
        let is_news = !failed.iter().any(|(known, text)| *known == part && text == why);
        failed.retain(|(other, _)| *other != part);
        failed.push((part, why.to_owned()));
        is_news
    }

    /// The same of a watched file, which is tried again and again: told in the log when it is news.
    pub fn note_failed_file(&self, part: Part, consequence: &str, why: &str) {
        if self.note_failed(part, why) {
            log::error!("{consequence}: {why}");
        }
    }

    /// Whether a watched file could not be read and may be readable by now.
    pub fn has_failed_files(&self) -> bool {
        self.failed().iter().any(|(part, _)| *part != Part::Settings)
    }

    /// The parts that failed.
    pub fn parts(&self) -> Vec<Part> {
        self.failed().iter().map(|(part, _)| *part).collect()
    }
}

impl Part {
    /// What strangers may know of its failure: no path. The log has the rest.
    const fn public_text(self) -> &'static str {
        match self {
            Self::Settings => "the last reload was refused, the old settings hold: see the log",
            Self::Users => "the password file can't be read or is wrong, the old users hold: see the log",
            Self::Certificates => {
                "the certificates can't be read or are wrong, the old ones hold: see the log"
            }
            Self::Rights => "the file of rights can't be read or is wrong, the old rights hold: see the log",
        }
    }
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
    status: &Arc<Status>,
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
            let (code, text) = status.readiness(store).await;
            (ResponseHead::text(code), format!("{text}\n"))
        }
        Page::Metrics => {
            let format = Format::asked_for(head.headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes));
            let writable = status.is_ready(store).await.is_ok();
            let space = timeout(SPACE_LIMIT, store.space()).await.ok().and_then(Result::ok);
            let head = ResponseHead::new(StatusCode::OK).with("Content-Type", format.media_type());
            // Not by a worker: with many repositories it takes a while.
            let all = Arc::clone(status);
            let rendered = status.pages.run(move || all.metrics(format, writable, space)).await;
            (head, rendered.map_err(|_full| store::Error::Busy)?)
        }
    };
    Ok(Answer::new(head.with("Cache-Control", "no-store"), Content::Text(text.into())))
}

impl Status {
    /// The answer of `/readyz`: 200 if uploads are taken, and what an operator should know all the same.
    async fn readiness<S: Store>(&self, store: &S) -> (StatusCode, String) {
        if let Err(why) = self.is_ready(store).await {
            return (StatusCode::SERVICE_UNAVAILABLE, why);
        }
        let mut text = String::from("ok");
        if !store.is_durable() {
            text.push_str(
                "\nacknowledged objects may not survive a power cut here: the disk can't flush, or is memory",
            );
        }
        if self.reloads.hangs() {
            text.push_str("\na reload does not end: a file that the settings name may lie on a disk that does not answer");
        }
        if self.stale_list().is_some() {
            text.push('\n');
            text.push_str(StaleList::PUBLIC_TEXT);
        }
        for part in self.reloads.parts() {
            text.push('\n');
            text.push_str(part.public_text());
        }
        (StatusCode::OK, text)
    }

    /// Fails, with the reason, if this server takes no uploads, or lets users in by a password file that it can't read.
    async fn is_ready<S: Store>(&self, store: &S) -> Result<(), String> {
        if self.stopping.is_raised() {
            return Err("the server is stopping".into());
        }
        if let Some(why) = self.cannot_store.as_ref().filter(|_| !self.has_stored()) {
            return Err(format!("the disk of the data folder stores nothing: {why}"));
        }
        self.health.check_writable().map_err(|e| e.to_string())?;
        self.look_at_disk(store).await?;
        if self.stale_list().is_some_and(|list| !list.is_ready) {
            Err(StaleList::PUBLIC_TEXT.into())
        } else if self.reloads.parts().contains(&Part::Users) {
            Err(Part::Users.public_text().into())
        } else {
            Ok(())
        }
    }

    fn stale_list(&self) -> Option<StaleList> {
        self.tls.as_ref().and_then(|tls| tls.stale_list())
    }

    /// Whether this process has stored anything.
    fn has_stored(&self) -> bool {
        sum(&self.blobs).iter().any(|(_, [stored, ..])| *stored > 0)
    }

    /// What a look at the disk finds. Strangers may ask, so that there is one look at a time: whoever asks meanwhile is told
    /// what the last one found.
    async fn look_at_disk<S: Store>(&self, store: &S) -> Result<(), String> {
        {
            let mut last = self.disk_look.lock().unwrap_or_else(PoisonError::into_inner);
            let (until, found) = last.get_or_insert_with(|| (now(), Ok(())));
            if now() < *until {
                return found.clone();
            }
            // A look may be given up with its connection: by then the next one may begin.
            *until = now() + READY_LIMIT;
        }
        let found = match timeout(READY_LIMIT, store.check_ready()).await {
            Ok(looked) => looked.map_err(|e| e.to_string()),
            Err(Elapsed) => Err("the disk of the data folder does not answer".into()),
        };
        let mut last = self.disk_look.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((now(), found.clone()));
        found
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus has floating-point numbers only")]
    fn metrics(&self, format: Format, writable: bool, space: Option<(u64, u64)>) -> String {
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
        all.value("packhouse_writable", "1 if the store takes uploads", f64::from(u8::from(writable)));
        let reloaded = f64::from(u8::from(self.reloads.failed().is_empty()));
        let help = "1 if settings and watched files were read without an error when they were last read";
        all.value("packhouse_reload_success", help, reloaded);
        all.count("packhouse_reload_failures", "Reloads that failed", self.reloads.failures.get());
        if let Some((free, bytes)) = space {
            all.value("packhouse_disk_free_bytes", "Bytes free on the disk of the data folder", free as f64);
            all.value("packhouse_disk_size_bytes", "Bytes of the disk of the data folder", bytes as f64);
        }
        self.quotas(&mut all);
        let ends =
            self.tls.iter().flat_map(|tls| tls.ends()).map(|(file, end)| (vec![("file", file)], end as f64));
        let help = "When a certificate ends, in seconds since 1970";
        all.gauge("packhouse_certificate_end_seconds", help, ends.collect());
        let lists = self.tls.iter().filter_map(|tls| tls.list_end());
        let help = "When the list of revoked client certificates is to be replaced, in seconds since 1970";
        let lists = lists.map(|(file, end)| (vec![("file", file)], end as f64)).collect();
        all.gauge("packhouse_crl_end_seconds", help, lists);
        process(&mut all);
        all.text(format)
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
        let help = "Bytes on disk, in whole blocks, stored and reserved where there is a quota";
        all.gauge("packhouse_quota_used_bytes", help, used);
        all.gauge("packhouse_quota_limit_bytes", "Quotas in bytes", limits);
        let (mut used, mut limits) = (Vec::new(), Vec::new());
        for (user, held, limit) in usage.objects {
            let labels = vec![("scope", "user".into()), ("name", user)];
            used.push((labels.clone(), held as f64));
            limits.push((labels, limit as f64));
        }
        all.gauge("packhouse_quota_used_objects", "Objects where their number is limited, those known", used);
        all.gauge("packhouse_quota_limit_objects", "Most objects", limits);
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
