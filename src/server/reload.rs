//! Taking new settings and files while connections go on: on SIGHUP everything or nothing; when a file has changed, that
//! file.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use crossbeam::channel::Sender;

use crate::api::Rules;
use crate::logging::access::AccessLog;
use crate::quota::Ledger;
use crate::server::confine::Sandbox;
use crate::server::control::Event;
use crate::server::rules::{self, Held};
use crate::settings::{Loaded, Settings, keys};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

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
    /// What is looked after.
    pub files: Arc<ArcSwap<Vec<PathBuf>>>,
    /// What is stored.
    pub ledger: Arc<Ledger>,
    /// The log of requests.
    pub access_log: Option<Arc<AccessLog>>,
    /// Asks for a count of what is stored.
    pub count: Box<dyn Fn() + Send>,
    /// What is within reach.
    pub sandbox: Sandbox,
}

impl Reloader {
    /// SIGHUP: all that can change, if all of it is right.
    pub fn reload(&mut self) {
        self.reopen();
        let loaded = match (self.again)() {
            Ok(loaded) => loaded,
            Err(problems) => return refuse(&problems),
        };
        let fixed = unchangeable(&self.loaded, &loaded);
        if !fixed.is_empty() {
            // Half of it could be worse than either: no logins, say, on an address that is not the new one.
            let fixed = fixed.join(", ");
            return refuse(&[format!("these settings have changed and need a restart: {fixed}")]);
        }
        let outside = self.sandbox.outside(&rules::files(&loaded.settings));
        if !outside.is_empty() {
            return refuse(&outside);
        }
        let prepared = match rules::prepare(&loaded.settings) {
            Ok(prepared) => prepared,
            Err(problems) => return refuse(&problems),
        };
        let expired = prepared.newly_expired(&self.held);
        if !expired.is_empty() {
            return refuse(&expired);
        }
        if let Some(problem) = prepared.nobody() {
            log::warn!("{problem}");
        }
        let users = prepared.user_count();
        match prepared.take(&mut self.held) {
            Ok(rules) => self.rules.store(Arc::new(rules)),
            Err(e) => return refuse(&[e.to_string()]),
        }
        if self.ledger.set_limits(rules::quotas(&loaded.settings)) {
            (self.count)();
        }
        match users {
            Some(users) => log::info!("reloaded the settings and the password file: {users} users"),
            None => log::info!("reloaded the settings"),
        }
        self.files.store(Arc::new(rules::files(&loaded.settings)));
        self.loaded = loaded;
    }

    /// SIGUSR1: the log was rotated.
    pub fn reopen(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// A file has changed. What is broken does not keep back what is not.
    pub fn reload_files(&mut self) {
        let settings = &self.loaded.settings;
        match (rules::users(settings), &self.held.passwords) {
            (Ok(Some(users)), Some(passwords)) => {
                log::info!("reloaded the password file: {} users", users.len());
                passwords.replace(users, rules::login_options(settings));
            }
            (Err(e), _) => log::error!("the old users stay: {e}"),
            _ => {}
        }
        match (rules::material(settings), &self.held.tls) {
            (Ok(Some(material)), Some(tls)) => {
                if let Some(problem) = material.problems().first() {
                    log::error!("the old certificates stay: {problem}");
                } else {
                    tls.replace(material);
                    log::info!("reloaded the certificates");
                }
            }
            (Err(e), _) => log::error!("the old certificates stay: {e}"),
            _ => {}
        }
        match rules::rights(&settings.access) {
            Ok(rights) => {
                let mut rules = Rules::clone(&self.rules.load());
                rules.policy.rights = rights;
                self.rules.store(Arc::new(rules));
            }
            Err(e) => log::error!("the old rights stay: {e}"),
        }
    }

    /// The settings that hold.
    pub const fn settings(&self) -> &Settings {
        &self.loaded.settings
    }
}

fn refuse(problems: &[String]) {
    for problem in problems {
        log::error!("not reloaded, the old settings and the old users stay: {problem}");
    }
}

/// The settings that differ and can't change in a running server.
fn unchangeable(old: &Loaded, new: &Loaded) -> Vec<&'static str> {
    let texts = |loaded: &Loaded, name: &str| {
        loaded.origins.iter().find(|(key, ..)| key.name == name).map(|(_, texts, _)| texts.clone())
    };
    let fixed = keys::all().filter(|key| !key.live);
    fixed.map(|key| key.name).filter(|name| texts(old, name) != texts(new, name)).collect()
}

/// What a file looked like.
type Stamps = HashMap<PathBuf, (SystemTime, u64)>;

/// Looks after files on a thread of its own, and tells when one has changed. `known` is how they were when they were read.
pub fn watch(
    files: Arc<ArcSwap<Vec<PathBuf>>>,
    mut known: Stamps,
    events: Sender<Event>,
) -> std::io::Result<()> {
    thread::Builder::new().name("watch".into()).spawn(move || {
        let mut last = known.clone();
        loop {
            thread::sleep(LOOK_EVERY);
            let now = look(&files.load());
            // What looks different at every look is being written: half of it is no news.
            let quiet = now == std::mem::replace(&mut last, now.clone());
            if !quiet {
                continue;
            }
            // A file that is looked after since a reload was read then.
            let changed = now.iter().any(|(file, stamp)| known.get(file).is_some_and(|old| old != stamp));
            let vanished = known.keys().any(|file| !now.contains_key(file) && files.load().contains(file));
            known = now;
            if (changed || vanished) && events.send(Event::FilesChanged).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// How files look now.
pub fn look(files: &[PathBuf]) -> Stamps {
    let seen = files.iter().filter_map(|file| {
        let meta = std::fs::metadata(file).ok()?;
        Some((file.clone(), (meta.modified().ok()?, meta.len())))
    });
    seen.collect()
}
