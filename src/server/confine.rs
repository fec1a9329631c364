//! What a server does while it may still do everything, and then gives up: folders are made, sockets bound; then it becomes
//! the service user, keeps within reach only what the settings name, and of root's capabilities those to files. On the main
//! thread, before there are others. Once it runs, it gives up the system calls that only a start needs.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::io::sandbox::{Enforced, Reach, restrict};
use crate::io::user::{ServiceUser, is_root};
use crate::io::{filter, limits, privileges, ring, syscalls};
use crate::logging::PLAIN;
use crate::server::StartError;
use crate::server::listen::{self, Bound};
use crate::server::rules;
use crate::server::warnings::of_settings;
use crate::server::{folders, notify};
use crate::settings::{Loaded, LogTarget, Settings};
use crate::types::ListenAddress;

/// What is read beside what the settings name: the process's own figures, and how much of the machine it may use.
const SYSTEM: [&str; 5] =
    ["/proc/self", "/proc/uptime", "/proc/meminfo", "/proc/sys/kernel/io_uring_disabled", "/sys/fs/cgroup"];

/// A process that can do no more than it needs.
pub struct Confined {
    /// The sockets.
    pub sockets: Vec<Bound>,
    /// What it may reach.
    pub sandbox: Sandbox,
    /// What there is to tell about it, once there is a log.
    pub told: Vec<String>,
    /// What the operator should not leave so.
    pub warnings: Vec<String>,
}

/// The folders within reach, or no limits.
#[derive(Debug, Default)]
pub struct Sandbox {
    within: Option<Vec<PathBuf>>,
    /// The process's own folder. What is allowed of it is forgotten when the kernel forgets it, which it may if nobody has it open.
    _own: Option<File>,
}

impl Sandbox {
    /// Why files that new settings name can't be read, if they can't.
    pub fn outside(&self, files: &[PathBuf]) -> Vec<String> {
        let Some(within) = &self.within else { return Vec::new() };
        let outside = files.iter().filter(|file| {
            let folders = folders_of(file);
            folders.is_empty()
                || folders.iter().any(|folder| !within.iter().any(|known| folder.starts_with(known)))
        });
        let why = |file: &PathBuf| {
            format!(
                "{}: outside of the folders that the sandbox keeps within reach since the start: restart the server, or put the file where the old one is",
                file.display()
            )
        };
        outside.map(why).collect()
    }
}

/// Makes, binds, and gives up the rest. `more` are files that are read beside those that the settings name.
///
/// # Errors
/// Something that was asked for can't be had.
pub fn confine(loaded: &Loaded, more: Vec<PathBuf>) -> Result<Confined, StartError> {
    let settings = &loaded.settings;
    let (mut told, mut warnings) = (Vec::new(), Vec::new());
    // Before there is another thread.
    let forbidden = syscalls::find_out().forbidden();
    if !forbidden.is_empty() {
        let forbidden = forbidden.join(", ");
        warnings.push(format!("a system call filter forbids {forbidden}: going on without"));
    }
    limits::set_umask(settings.group_accessible);
    if let Err(e) = notify::connect() {
        warnings.push(format!("systemd can't be told of the start and the end (NOTIFY_SOCKET): {e}"));
    }
    let user = service_user(settings)?;
    folders::make(settings, user.as_ref(), &mut told)?;
    warnings.extend(folders::nested(&settings.path));
    warnings.extend(of_settings(loaded));
    let sockets = listen::bind(settings)?;
    if let Some(user) = &user {
        let failed = |cause| StartError::User { name: user.to_string(), cause };
        sockets.iter().filter_map(Bound::file).try_for_each(|path| user.own(path)).map_err(failed)?;
        user.become_it().map_err(failed)?;
        told.push(format!("Running as {user}"));
        // They were read as root. What else is read is opened again below, and an error there ends the start.
        warnings.extend(loaded.file.iter().chain(&more).filter_map(|file| {
            let e = File::open(file).err()?;
            Some(format!(
                "{}: {e}: SIGHUP will not be able to read it: give {user} the right to",
                file.display()
            ))
        }));
    } else if is_root() {
        warnings.push("running as root: a flaw in this server would have root's rights to all that the sandbox leaves within reach; --user NAME gives that up once the sockets are bound".into());
    }
    let sandbox = if settings.sandbox {
        give_up_capabilities(&mut warnings);
        enter(&reach(loaded, more), &mut told, &mut warnings)
    } else {
        warnings.push(
            "no sandbox (--sandbox=false): a flaw in this server would reach all files of its user".into(),
        );
        Sandbox::default()
    };
    Ok(Confined { sockets, sandbox, told, warnings })
}

/// The user that a server with these settings becomes, unless it is that user already.
///
/// # Errors
/// There is no such user, or this process can't become it.
pub fn service_user(settings: &Settings) -> Result<Option<ServiceUser>, StartError> {
    let Some(name) = &settings.user else { return Ok(None) };
    let failed = |cause| StartError::User { name: name.clone(), cause };
    let user = ServiceUser::find(name).map_err(failed)?;
    match (user.is_current(), is_root()) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(user)),
        (false, false) => Err(failed(io::Error::other("only root can become another user"))),
    }
}

/// What the settings name. Files are replaced by others, so that it is their folders that stay within reach.
fn reach(loaded: &Loaded, more: Vec<PathBuf>) -> Reach {
    let settings = &loaded.settings;
    let mut write = vec![settings.path.clone(), settings.state_dir.clone()];
    if let Some(LogTarget::File(log)) = &settings.access_log {
        write.extend(folders_of(log));
    }
    let files = rules::files(settings).into_iter().chain(loaded.file.clone()).chain(more);
    let read = files.flat_map(|file| folders_of(&file)).chain(SYSTEM.map(PathBuf::from)).collect();
    let sockets = settings.listen.iter().chain(&settings.admin_listen).filter_map(|address| match address {
        ListenAddress::Unix(path) => folders_of(path).into_iter().next(),
        _ => None,
    });
    Reach { write, sockets: sockets.collect(), read }
}

/// The folder that a file is in, and that in which it really is should it be a link.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let named = std::path::absolute(file).ok().and_then(|file| file.parent()?.canonicalize().ok());
    let real = file.canonicalize().ok().and_then(|file| Some(file.parent()?.to_owned()));
    let mut folders: Vec<_> = named.into_iter().chain(real).collect();
    folders.dedup();
    folders
}

fn give_up_capabilities(warnings: &mut Vec<String>) {
    limits::lift_locked_memory();
    // If a filter kills for it, that was told above.
    if syscalls::found().capset
        && let Err(e) = privileges::give_up()
    {
        warnings.push(format!("capabilities can't be given up: {e}"));
    }
}

/// Gives up, in all threads, the system calls that only a start needs. To be called when every worker has its ring, and there is
/// nothing more to bind or to connect to.
pub(super) fn seal() {
    // If a filter kills for it, that was told at the start.
    if syscalls::found().seccomp {
        match filter::install() {
            Ok(()) => log::info!(target: PLAIN, "Sandbox: seccomp"),
            Err(e) => log::warn!(
                "no seccomp filter: {e}: a flaw in this server could connect to other servers and to services of this machine"
            ),
        }
    }
    if !ring::are_limited() {
        log::warn!(
            "the rings of io_uring can't be held to the operations in use (Linux 5.10, /proc): a flaw in this server could make connections by them. --io-driver epoll has none"
        );
    }
}

fn enter(reach: &Reach, told: &mut Vec<String>, warnings: &mut Vec<String>) -> Sandbox {
    let within =
        reach.write.iter().chain(&reach.read).filter_map(|folder| folder.canonicalize().ok()).collect();
    if !syscalls::found().landlock {
        // Which filter it is was told above.
        return Sandbox::default();
    }
    let own = File::open("/proc/self").ok();
    match restrict(reach) {
        Ok(Enforced::Fully) => told.push("Sandbox: Landlock".into()),
        Ok(Enforced::Partly) => told.push("Sandbox: Landlock, as far as this kernel knows it".into()),
        Ok(Enforced::Not) => {
            warnings.push("no sandbox: this kernel has no Landlock (Linux 5.13, lsm=landlock), or a system call filter hides it".into());
            return Sandbox::default();
        }
        Err(e) => {
            warnings.push(format!("no sandbox: {e}"));
            return Sandbox::default();
        }
    }
    Sandbox { within: Some(within), _own: own }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::args::given;
    use crate::settings::load;
    use crate::settings::merge::Variables;

    #[test]
    fn what_the_settings_do_not_name_is_out_of_reach() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().canonicalize().expect("it is there");
        for folder in ["data", "keys", "logs", "run"] {
            std::fs::create_dir(dir.join(folder)).expect("made");
        }
        let path = |name: &str| dir.join(name).display().to_string();
        let (data, users, log) = (path("data"), path("keys/users"), path("logs/log"));
        let socket = format!("unix:{}", path("run/socket"));
        let flags = ["--path", &data, "--htpasswd-file", &users, "--log", &log, "--listen", &socket];
        let given = given(&flags).expect("flags");
        let reach = reach(&load(&given, &Variables::new()).expect("settings"), Vec::new());
        assert_eq!(reach.write, ["data", "data/.packhouse", "logs"].map(|name| dir.join(name)));
        assert_eq!(reach.sockets, [dir.join("run")]);
        let (system, named): (Vec<_>, Vec<_>) =
            reach.read.into_iter().partition(|path| SYSTEM.iter().any(|known| path == Path::new(known)));
        assert_eq!((system.len(), named), (SYSTEM.len(), vec![dir.join("keys")]));
    }
}
