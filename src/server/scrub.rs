//! Reads everything that is stored back, once in a period, on a thread that has only what nobody else wants. Goes on after
//! a restart where it was.

use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use crate::io::affinity;
use crate::io::records;
use crate::io::runtime::{Driver, block_on, now, sleep};
use crate::metrics::ScrubCounters;
use crate::quota::Ledger;
use crate::server::inventory::open;
use crate::store::disk::Disk;
use crate::store::health::Health;
use crate::store::scrub::{Checked, Place, Quarantined, Scrubber, Verdict};
use crate::types::escaped;

/// Where in the state folder it remembers how far it is, and how often it writes that down.
const FILE: &str = "scrub.json";
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// A store that is small is read faster than its period asks for. Bytes a second.
const MIN_RATE: u64 = 1 << 20;
/// Time until a damaged object is looked at again, before it goes into quarantine.
pub const SECOND_LOOK: Duration = Duration::from_millis(100);
/// What somebody has written to since may still be copied in.
const QUIET: Duration = Duration::from_hours(1);
/// Faster than the period asks for, because nobody reads all the time.
const HEADROOM: u64 = 4;
/// Rest after something could not be done, or so many things in a row could not be read: then it is not they that are damaged.
const PAUSE: Duration = Duration::from_mins(1);
const MOST_TROUBLES: u32 = 8;
/// What is not read now may be read at once later, up to this.
const BURST: Duration = Duration::from_millis(100);

/// Holds reading to a rate.
pub struct Pace {
    rate: Option<u64>,
    due: Instant,
}

impl Pace {
    /// So many bytes a second, or as many as can be had.
    pub fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), due: now() }
    }

    /// How long to wait after so many bytes.
    pub fn wait_after(&mut self, bytes: usize) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let micros = (bytes as u64).saturating_mul(1_000_000) / rate;
        let now = now();
        self.due = self.due.max(now.checked_sub(BURST).unwrap_or(now)) + Duration::from_micros(micros);
        self.due.saturating_duration_since(now)
    }
}

/// What the scrubber needs.
pub struct Scrub {
    /// The data folder.
    pub path: PathBuf,
    /// Folders that a repository's path may have.
    pub depth: usize,
    /// The server's own folder, which this process holds.
    pub state_dir: PathBuf,
    /// In which everything is read once.
    pub period: Duration,
    /// Whether no other process writes there.
    pub alone: bool,
    /// Whether damaged objects are renamed.
    pub quarantine: bool,
    /// Hears of damage.
    pub health: Arc<Health>,
    /// Hears of what is not there any more.
    pub ledger: Arc<Ledger>,
    /// Counts.
    pub counters: Arc<ScrubCounters>,
}

/// How far a pass is.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct Progress {
    /// When it began, in seconds since 1970.
    began: u64,
    /// The path of the last object that was looked at, percent-encoded; none once the pass has ended.
    after: Option<String>,
    /// The pass has ended, and the next one waits for its time.
    ended: bool,
    objects: u64,
    bytes: u64,
    damaged: u64,
    /// Bytes of the pass before.
    before: u64,
    /// It could not be written down.
    #[serde(skip)]
    unsaved: bool,
}

impl Progress {
    fn new() -> Self {
        Self { began: seconds(), ..Self::default() }
    }

    /// The pass after this one.
    fn next(&self) -> Self {
        Self { before: self.bytes, unsaved: self.unsaved, ..Self::new() }
    }

    /// What was written down, if it can be understood.
    fn load(file: &Path) -> Self {
        match std::fs::read(file).map(|text| serde_json::from_slice(&text)) {
            Ok(Ok(progress)) => progress,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::new(),
            other => {
                log::warn!("{}: can't be used, the verification begins anew: {other:?}", file.display());
                Self::new()
            }
        }
    }

    /// Writes down how far it is. Where that can't be done, on a full disk or a read-only one, the rest is to be read all the
    /// same.
    fn save(&mut self, file: &Path) {
        let write = || records::replace(file, &serde_json::to_vec(self)?, 0o600);
        let written: io::Result<()> = write();
        if let Err(e) = &written
            && !self.unsaved
        {
            let file = file.display();
            log::warn!(
                "{file}: can't be written: after a restart the verification goes on further back: {e}"
            );
        }
        self.unsaved = written.is_err();
    }

    fn place(&self) -> Option<Place> {
        let bytes: Vec<u8> = percent_decode_str(self.after.as_ref()?).collect();
        Place::of(&PathBuf::from(std::ffi::OsString::from_vec(bytes)))
    }

    fn note<F>(&mut self, checked: &Checked<F>) {
        self.after =
            Some(percent_encode(checked.place.path().as_os_str().as_bytes(), NON_ALPHANUMERIC).to_string());
        self.objects += u64::from(checked.verdict != Verdict::Gone);
        self.bytes += checked.bytes;
        self.damaged += u64::from(checked.verdict.is_loss());
    }
}

fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// Begins, on a thread of its own.
///
/// # Errors
/// The thread can't be started.
pub fn start(scrub: Scrub) -> io::Result<()> {
    thread::Builder::new().name("scrub".into()).spawn(move || {
        if let Err(e) = affinity::idle() {
            log::warn!("the verification of what is stored runs at ordinary priority: {e}");
        }
        // Its threads are as idle as this one.
        let ran = open(&scrub.path, scrub.alone).and_then(|disk| block_on(Driver::Epoll, scrub.run(disk)));
        if let Err(e) = ran {
            log::error!("what is stored is not verified: {e}");
        }
    })?;
    Ok(())
}

impl Scrub {
    /// Verifies what is stored, pass after pass, for ever.
    pub async fn run<D: Disk>(&self, disk: D) {
        let file = self.state_dir.join(FILE);
        let mut progress = Progress::load(&file);
        loop {
            if progress.ended {
                // A clock that was set back must not stop it.
                let since = Duration::from_secs(seconds().saturating_sub(progress.began));
                sleep(self.period.saturating_sub(since)).await;
                progress = progress.next();
            }
            if let Err(e) = self.pass(&disk, &mut progress, &file).await {
                log::warn!(
                    "the verification of what is stored was interrupted, and goes on in a minute: {e}"
                );
                sleep(PAUSE).await;
            }
        }
    }

    /// One pass to its end.
    async fn pass<D: Disk>(&self, disk: &D, progress: &mut Progress, file: &Path) -> io::Result<()> {
        let space = disk.space(&disk.root()).await?;
        let used = space.bytes.saturating_sub(space.free_bytes);
        // What is mounted below the data folder shows only in what was read.
        let rate = used.max(progress.before) / self.period.as_secs().max(1);
        let mut pace = Pace::new(Some((rate + rate / HEADROOM).max(MIN_RATE)));
        let mut scrubber = Scrubber::new(disk.clone(), None, self.depth, progress.place()).await;
        let (mut saved, mut failed, mut troubles) = (now(), 0_u64, 0);
        progress.save(file);
        loop {
            let is_trouble = match scrubber.next(|bytes| pace.wait_after(bytes)).await {
                Ok(Some(checked)) => {
                    progress.note(&checked);
                    self.note(&scrubber, &checked).await;
                    checked.verdict == Verdict::Unreadable
                }
                Ok(None) => break,
                Err(e) => {
                    failed += 1;
                    log::warn!("not verified: {e}");
                    true
                }
            };
            troubles = if is_trouble { troubles + 1 } else { 0 };
            if troubles == MOST_TROUBLES {
                troubles = 0;
                log::warn!("what is stored can't be read: the verification rests for a minute");
                sleep(PAUSE).await;
            }
            if now().duration_since(saved) >= SAVE_EVERY {
                progress.save(file);
                saved = now();
            }
        }
        let Progress { objects, bytes, damaged, .. } = *progress;
        log::info!(
            "verified what is stored: {objects} objects, {bytes} bytes, {damaged} damaged, {failed} folders or objects could not be looked at"
        );
        (progress.ended, progress.after) = (true, None);
        if failed == 0 {
            self.counters.pass_ended(seconds());
        }
        progress.save(file);
        Ok(())
    }

    async fn note<D: Disk>(&self, scrubber: &Scrubber<D>, checked: &Checked<D::File>) {
        self.counters.objects.increment();
        self.counters.bytes.add(checked.bytes);
        let shown = escaped(&checked.place.path());
        match checked.verdict {
            Verdict::Right | Verdict::Gone => return,
            Verdict::Misplaced => {
                log::error!("{shown}: an object that restic does not find here");
                return;
            }
            Verdict::Damaged => log::error!("{shown}: damaged: its content is not what its name says"),
            Verdict::Unreadable => log::error!("{shown}: damaged: the disk does not give it back"),
        }
        self.health.note_damaged();
        if !self.quarantine || !checked.is_for_quarantine() || self.health.check_not_suspended().is_err() {
            return;
        }
        let handle = checked.place.handle();
        let changing = handle.as_ref().map(|handle| self.ledger.changing(handle));
        match scrubber.quarantine(checked, SECOND_LOOK, QUIET).await {
            Ok(Ok(Quarantined { path, synced })) => {
                if let Err(e) = synced {
                    self.health.note_flush(&e);
                }
                self.counters.quarantined.increment();
                log::warn!("{shown}: in quarantine as {}", escaped(&path));
                if let Some(changing) = changing {
                    changing.removed(checked.size);
                }
            }
            Ok(Err(why)) => log::warn!("{shown}: stays: {}", why.text(QUIET)),
            Err(e) => log::error!("{shown}: can't be put into quarantine: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_holds_to_its_rate() {
        let mut pace = Pace::new(Some(1000));
        let waits: Vec<_> = (0..4).map(|_| pace.wait_after(1000)).collect();
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(
            waits.last().is_some_and(|last| (Duration::from_secs(3)..=Duration::from_secs(4)).contains(last))
        );
        assert_eq!(Pace::new(None).wait_after(usize::MAX), Duration::ZERO);
    }

    #[test]
    fn progress_is_remembered() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(FILE);
        assert_eq!(Progress::load(&file).after, None);
        let place =
            Place::of(Path::new(std::ffi::OsStr::from_bytes(b"a\xff b/keys/config"))).expect("a place");
        let after = percent_encode(place.path().as_os_str().as_bytes(), NON_ALPHANUMERIC).to_string();
        let mut progress = Progress { after: Some(after), objects: 5, ..Progress::new() };
        progress.save(&file);
        let loaded = Progress::load(&file);
        assert_eq!(loaded, progress);
        assert_eq!(loaded.place(), Some(place));
        std::fs::write(&file, "{").expect("written");
        assert_eq!(Progress::load(&file).after, None);
    }
}
