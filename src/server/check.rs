//! What `packhouse config check` finds beyond the settings themselves: files and folders that a server could not use, and
//! rules that can't do what they seem to.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::io::Fault;
use crate::io::dir::{check_access, room};
use crate::io::listener::Listener;
use crate::io::records::folder_of;
use crate::policy::Policy;
use crate::server::{StartError, assemble, folders, inventory, rules, warnings};
use crate::settings::{Loaded, LogTarget, Settings};
use crate::store::census::Sum;

/// In which quotas are counted.
const BYTES: &str = "bytes on disk";

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What keeps a server from starting, or from what it is for.
    pub problems: Vec<String>,
    /// What works, and perhaps not as it is meant.
    pub warnings: Vec<String>,
}

/// Looks at everything that settings name, as the user that calls it.
pub fn check(loaded: &Loaded) -> Findings {
    let settings = &loaded.settings;
    let mut found = Findings::default();
    found.warnings.extend(loaded.notes.iter().map(ToString::to_string));
    found.files(loaded);
    found.folders(settings);
    found.machine(settings);
    found.warnings.extend(warnings::of_settings(loaded));
    found.limits(settings);
    found.quotas(settings);
    found
}

impl Findings {
    fn files(&mut self, loaded: &Loaded) {
        let settings = &loaded.settings;
        match rules::prepare(settings) {
            Ok(prepared) => {
                self.problems.extend(prepared.expired());
                self.warnings.extend(prepared.warnings());
                self.warnings.extend(prepared.bad_lines().map(ToOwned::to_owned));
                self.repositories(settings, prepared.policy());
            }
            Err(problems) => self.problems.extend(problems),
        }
        if let Some(file) = &loaded.file
            && let Err(e) = std::fs::File::open(file)
        {
            self.warnings.push(format!("{}: {e}: a reload will not be able to read it", file.display()));
        }
        if let Some(LogTarget::File(log)) = &settings.access_log {
            let opened = match std::fs::metadata(log) {
                Ok(_) => std::fs::File::options().append(true).open(log).map(drop),
                Err(_) => check_access(folder_of(log)),
            };
            self.problems
                .extend(opened.err().map(|e| format!("log: {} can't be written: {e}", log.display())));
        }
    }

    fn folders(&mut self, settings: &Settings) {
        let Settings { path, state_dir, .. } = settings;
        match std::fs::metadata(path) {
            Ok(meta) if !meta.is_dir() => {
                self.problems.push(format!("path: {} is no folder", path.display()));
            }
            Ok(_) => {
                let denied = check_access(path).err();
                self.problems.extend(denied.map(|e| format!("path: {} can't be used: {e}", path.display())));
            }
            Err(_) => self.problems.extend(cannot_make(path).map(|why| format!("path: {why}"))),
        }
        self.warnings.extend(folders::nested(path));
        self.problems.extend(folders::is_for_clients(settings).map(|why| format!("state-dir: {why}")));
        match std::fs::metadata(state_dir) {
            Ok(meta) if !meta.is_dir() => {
                self.problems.push(format!("state-dir: {} is no folder", state_dir.display()));
            }
            Ok(_) => {
                let denied = check_access(state_dir).err();
                let why = |e| {
                    format!(
                        "state-dir: {} can't be used: {e}: the server goes on without one",
                        state_dir.display()
                    )
                };
                self.warnings.extend(denied.map(why));
            }
            Err(_) if state_dir.starts_with(path) => {}
            Err(_) => self.problems.extend(cannot_make(state_dir).map(|why| format!("state-dir: {why}"))),
        }
    }

    fn machine(&mut self, settings: &Settings) {
        let all: Vec<_> = settings.listen.iter().chain(&settings.admin_listen).collect();
        for (index, address) in all.iter().enumerate() {
            if all.iter().take(index).any(|other| other == address) {
                self.problems.push(format!("listen: {address} is given twice"));
            }
            // The sockets are bound as root, before the server becomes another user.
            let is_for_root = |e: &io::Error| settings.user.is_some() && Fault::of(e) == Fault::Denied;
            if let Err(cause) = Listener::check(address)
                && !is_for_root(&cause)
            {
                let problem = StartError::Listen { address: (*address).clone(), cause };
                self.problems.push(problem.to_string());
            }
        }
        self.problems.extend(assemble::workers(&settings.workers).err().map(|e| e.to_string()));
        if settings.require_mount && folders::is_on_root(&settings.path).unwrap_or(false) {
            self.problems.push(StartError::NotMounted(settings.path.clone()).to_string());
        }
    }

    /// What the ACL file says nothing about.
    fn repositories(&mut self, settings: &Settings, policy: &Policy) {
        if settings.access.acl_file.is_none() || !settings.path.is_dir() {
            return;
        }
        match inventory::repositories(&settings.path, settings.max_folder_depth) {
            Ok(repos) => self.warnings.extend(warnings::unruled(policy, &repos)),
            Err(e) => self.warnings.push(format!("the repositories can't be compared with acl-file: {e}")),
        }
    }

    /// Limits that leave room for nothing.
    fn limits(&mut self, settings: &Settings) {
        let limits = &settings.limits;
        for (name, most, what) in [
            ("max-config-size", limits.config, "no repository can be made"),
            ("max-key-size", limits.key, "no repository can be made"),
            ("max-lock-size", limits.lock, "nobody can lock a repository"),
            ("max-index-size", limits.index, "no backup can end"),
            ("max-data-size", limits.data, "nothing can be stored"),
        ] {
            if most == 0 {
                self.problems.push(format!("{name} is 0: {what}"));
            }
        }
        if let Some(reserve) = settings.min_free
            && let Ok(room) = room(&settings.path)
            && room.bytes > 0
            && reserve >= room.bytes
        {
            self.problems.push(format!(
                "min-free: the reserve of {reserve} bytes is more than the disk of {} has ({} bytes): nothing can be stored",
                settings.path.display(),
                room.bytes
            ));
        }
    }

    /// A quota that is used up before the server starts.
    fn quotas(&mut self, settings: &Settings) {
        let limits = rules::quotas(settings);
        if limits.is_empty() || !settings.path.is_dir() {
            return;
        }
        let all = match inventory::all(&settings.path, settings.max_folder_depth) {
            Ok(all) => all,
            Err(e) => {
                self.warnings.push(format!("what is stored can't be counted for the quotas: {e}"));
                return;
            }
        };
        let (mut total, mut users) = (0, HashMap::<Vec<u8>, Sum>::new());
        for one in &all {
            let held = one.total.on_disk;
            total += held;
            if let Some(folder) = one.repo.folders().first() {
                let user = users.entry(folder.as_bytes().to_vec()).or_default();
                *user = user.plus(one.total);
            }
            self.used_up(&one.repo.to_string(), held, limits.repos.get(&one.repo).copied(), BYTES);
        }
        self.used_up("all repositories together", total, limits.total, BYTES);
        for (user, limits) in &limits.users {
            let name = format!("user {}", user.escape_ascii());
            let held = users.get(user).copied().unwrap_or_default();
            self.used_up(&name, held.on_disk, limits.bytes, BYTES);
            self.used_up(&name, held.objects, limits.objects, "objects");
        }
    }

    fn used_up(&mut self, whose: &str, held: u64, limit: Option<u64>, unit: &str) {
        if let Some(limit) = limit.filter(|limit| held > *limit) {
            self.warnings.push(format!(
                "the quota of {whose} is {limit} {unit}, and {held} are stored already: nothing more can be stored"
            ));
        }
    }
}

/// Why a folder that is missing can't be made at the start, if so.
fn cannot_make(path: &Path) -> Option<String> {
    let parent = std::path::absolute(path).ok()?.parent()?.to_owned();
    (!parent.is_dir()).then(|| format!("there is no folder {}: is its disk mounted?", parent.display()))
}
