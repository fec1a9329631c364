//! Taking new settings and files while connections go on: on SIGHUP and `packhouse reload` everything or nothing; when a
//! file has changed, that file.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use crossbeam::channel::{Sender, unbounded};
use sd_notify::NotifyState;

use crate::api::Rules;
use crate::api::status::{Part, Status};
use crate::io::affinity;
use crate::io::user::is_root;
use crate::logging::access::AccessLog;
use crate::quota::Ledger;
use crate::server::confine::Sandbox;
use crate::server::control::Reply;
use crate::server::count::CountRequests;
use crate::server::notify::notify;
use crate::server::rules::{self, Held};
use crate::server::warnings;
use crate::server::watch::Watched;
use crate::settings::{Loaded, Settings, Workers};

/// Reads the settings from where they came from.
pub type Again = Box<dyn Fn() -> Result<Loaded, Vec<String>> + Send>;

/// Takes new settings.
pub struct Reloader {
    /// The settings that hold.
    pub loaded: Loaded,
    /// Reads them anew.
    pub again: Again,
    /// What lives on.
    pub held: Held,
    /// What requests see.
    pub rules: Arc<ArcSwap<Rules>>,
    /// The files that are watched.
    pub watched: Arc<ArcSwap<Watched>>,
    /// What is stored.
    pub ledger: Arc<Ledger>,
    /// The log of requests.
    pub access_log: Option<Arc<AccessLog>>,
    /// Counts what is stored.
    pub counts: Arc<CountRequests>,
    /// What is within reach.
    pub sandbox: Sandbox,
    /// Tells what came of a reload.
    pub status: Arc<Status>,
}

/// A job of the thread that reloads.
pub enum Job {
    /// Read everything, and tell whoever waits for it.
    Reload(Option<Sender<Reply>>),
    /// Read the watched files.
    Files,
    /// Read those that could not be read.
    FailedFiles,
    /// The log was rotated.
    Reopen,
}

/// Starts the thread that reloads. Jobs that have come while it was busy are done together: a thousand signals are one reload.
pub fn start(mut reloader: Reloader) -> io::Result<Sender<Job>> {
    let (jobs, waiting) = unbounded();
    thread::Builder::new().name("reload".into()).spawn(move || {
        while let Ok(first) = waiting.recv() {
            reloader.work([first].into_iter().chain(waiting.try_iter()).collect());
        }
    })?;
    Ok(jobs)
}

impl Reloader {
    fn work(&mut self, jobs: Vec<Job>) {
        let has = |wanted: fn(&Job) -> bool| jobs.iter().any(wanted);
        self.status.reloads.note_begin();
        if has(|job| matches!(job, Job::Reopen)) {
            self.reopen();
        }
        if has(|job| matches!(job, Job::Reload(_))) {
            notify(&[NotifyState::Reloading]);
            let done = self.reload().map_err(|problems| problems.join("\n"));
            if !self.status.stopping.is_raised() {
                notify(&[NotifyState::Ready]);
            }
            for job in jobs {
                if let Job::Reload(Some(reply)) = job {
                    // The operator may have gone.
                    reply.send(done.clone()).ok();
                }
            }
        } else if has(|job| matches!(job, Job::Files)) {
            self.reload_files(|_all| true);
        } else if has(|job| matches!(job, Job::FailedFiles)) {
            self.try_files_again();
        }
        self.status.reloads.note_end();
    }

    /// Takes all that can change, if all of it is right. Returns what to tell the operator.
    ///
    /// # Errors
    /// All mistakes. The old settings and the old users stay.
    pub fn reload(&mut self) -> Result<String, Vec<String>> {
        self.reopen();
        let done = self.take_all();
        match &done {
            Ok(text) => {
                self.status.reloads.note_all_right();
                log::info!("{text}");
            }
            Err(problems) => {
                self.status.reloads.note_failed(Part::Settings, &problems.join("; "));
                for problem in problems {
                    log::error!("not reloaded, the old settings and the old users stay: {problem}");
                }
            }
        }
        done
    }

    fn take_all(&mut self) -> Result<String, Vec<String>> {
        let loaded = (self.again)()?;
        let fixed = loaded.unchangeable(&self.loaded, in_effect);
        if !fixed.is_empty() {
            // Half of it could be worse than either: no logins, say, on an address that is not the new one.
            let fixed = fixed.join(", ");
            return Err(vec![format!("these settings have changed and need a restart: {fixed}")]);
        }
        let outside = self.sandbox.outside(&rules::files(&loaded.settings));
        if !outside.is_empty() {
            return Err(outside);
        }
        let watched = Watched::of(rules::files(&loaded.settings));
        let prepared = rules::prepare(&loaded.settings)?;
        let expired = prepared.newly_expired(&self.held);
        if !expired.is_empty() {
            return Err(expired);
        }
        for warning in prepared.warnings().into_iter().chain(warnings::of_settings(&loaded)) {
            log::warn!("{warning}");
        }
        let users = prepared.user_count();
        let rules = prepared.take(&mut self.held).map_err(|e| vec![e.to_string()])?;
        self.rules.store(Arc::new(rules));
        let quotas = rules::quotas(&loaded.settings);
        let has_quotas = !quotas.is_empty();
        self.ledger.set_limits(quotas);
        self.status.health.set_min_free(loaded.settings.min_free);
        if has_quotas {
            // What somebody has removed or copied in by hand counts from now on, too.
            self.counts.ask();
        }
        self.watched.store(Arc::new(watched));
        self.loaded = loaded;
        Ok(match users {
            Some(users) => format!("reloaded the settings and the password file: {users} users"),
            None => "reloaded the settings".into(),
        })
    }

    /// Opens the log of requests anew, which was rotated.
    fn reopen(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Reads the files again that could not be read, and no others.
    pub fn try_files_again(&mut self) {
        let failed = self.status.reloads.parts();
        self.reload_files(|part| failed.contains(&part));
    }

    /// Reads every watched file that is `wanted` on its own: a broken password file does not block new certificates.
    pub fn reload_files(&mut self, wanted: impl Fn(Part) -> bool) {
        if wanted(Part::Users) {
            self.reload_users();
        }
        if wanted(Part::Certificates) {
            self.reload_certificates();
        }
        if wanted(Part::Rights) {
            self.reload_rights();
        }
    }

    fn reload_users(&self) {
        let settings = &self.loaded.settings;
        let reloads = &self.status.reloads;
        match (rules::users(settings), &self.held.passwords) {
            (Ok(Some(users)), Some(passwords)) => {
                log::info!("reloaded the password file: {} users", users.len());
                passwords.replace(users, rules::login_options(settings));
                reloads.note_right(Part::Users);
            }
            (Err(e), _) => reloads.note_failed_file(Part::Users, "the old users stay", &e),
            _ => {}
        }
    }

    fn reload_certificates(&self) {
        let settings = &self.loaded.settings;
        let reloads = &self.status.reloads;
        match (rules::material(settings), &self.held.tls) {
            (Ok(Some(material)), Some(tls)) => {
                if let Some(problem) = material.problems().into_iter().next() {
                    reloads.note_failed_file(Part::Certificates, "the old certificates stay", &problem);
                } else {
                    if let Some(list) = material.stale_list() {
                        log::warn!("{list}");
                    }
                    tls.replace(material);
                    log::info!("reloaded the certificates");
                    reloads.note_right(Part::Certificates);
                }
            }
            (Err(e), _) => reloads.note_failed_file(Part::Certificates, "the old certificates stay", &e),
            _ => {}
        }
    }

    fn reload_rights(&self) {
        let settings = &self.loaded.settings;
        let reloads = &self.status.reloads;
        match rules::rights(&settings.access) {
            Ok(rights) => {
                let mut rules = Rules::clone(&self.rules.load());
                rules.policy.rights = rights;
                self.rules.store(Arc::new(rules));
                reloads.note_right(Part::Rights);
            }
            Err(e) => reloads.note_failed_file(Part::Rights, "the old rights stay", &e),
        }
    }
}

/// Settings as they take effect, so that two ways to say the same are the same.
fn in_effect(mut settings: Settings) -> Settings {
    let real = |path: &Path| path.canonicalize().or_else(|_missing| std::path::absolute(path));
    for path in [&mut settings.path, &mut settings.state_dir] {
        if let Ok(real) = real(path) {
            *path = real;
        }
    }
    if settings.workers == Workers::Auto {
        settings.workers = Workers::Count(affinity::available());
    }
    // Other names can't be looked up any more: the sandbox has put the list of users out of reach.
    if is_root() && settings.user.as_deref().is_some_and(|user| ["root", "0"].contains(&user)) {
        settings.user = None;
    }
    settings
}
