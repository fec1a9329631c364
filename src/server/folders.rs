//! The folders that a server works in: made if they are missing, held against a second server, and compared with what they
//! were at the last start.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::io::dir::Identity;
use crate::io::place::Place;
use crate::io::state::{Lock, StateDir};
use crate::io::user::ServiceUser;
use crate::io::{Fault, flush, records};
use crate::server::{StartError, control};
use crate::settings::Settings;
use crate::settings::resolve::default_state_dir;
use crate::store::health::Health;
use crate::store::local::Modes;

/// How often a data folder that another process holds is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How often the path of the data folder is looked at.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// How often a state folder that another process holds is tried again.
const STATE_LOCK_TRIES: u32 = 20;
/// The file in a state folder that lies elsewhere, with the identity of the data folder.
const RECORD: &str = "data-folder.json";

/// Makes the data folder and the state folder where they are missing: later they could not be made. Never a parent of them:
/// where that is missing, a disk is most likely not mounted.
pub(super) fn make(
    settings: &Settings,
    user: Option<&ServiceUser>,
    told: &mut Vec<String>,
) -> Result<(), StartError> {
    let Settings { path, state_dir, .. } = settings;
    let modes = if settings.group_accessible { Modes::GROUP } else { Modes::PRIVATE };
    if let Some(why) = is_for_clients(settings) {
        let cause = io::Error::other(why);
        return Err(StartError::StateFolder { path: state_dir.clone(), cause });
    }
    let data = |cause| StartError::DataFolder { path: path.clone(), cause };
    if settings.require_mount && is_on_root(path).map_err(data)? {
        return Err(StartError::NotMounted(path.clone()));
    }
    if let Some(target) = dangling(path) {
        return Err(data(io::Error::other(format!(
            "it is a symbolic link to {}, which is not there: is its disk mounted?",
            target.display()
        ))));
    }
    if is_missing(path) {
        if state_dir.join(RECORD).exists() && !is_inside(state_dir, path) {
            return Err(StartError::OtherFolder { path: path.clone(), record: state_dir.join(RECORD) });
        }
        make_durably(path, modes.dir, user).map_err(|cause| missing_parent(path, cause))?;
        told.push(format!("Made the data folder {}", path.display()));
    }
    if is_missing(state_dir) {
        match make_durably(state_dir, Modes::PRIVATE.dir, user) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(StartError::StateFolder { path: state_dir.clone(), cause: no_parent(state_dir) });
            }
            // Without one it runs too, where the file system is read-only: `hold_state` says so.
            _ => {}
        }
    }
    Ok(())
}

fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// Where a symbolic link leads, if nothing is there.
fn dangling(path: &Path) -> Option<PathBuf> {
    std::fs::read_link(path).ok().filter(|_| is_missing(path))
}

/// What to warn of if a folder around `path` has a state folder of packhouse's.
pub(super) fn nested(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let outer = path.ancestors().skip(1).find(|outer| default_state_dir(outer).join("lock").is_file())?;
    Some(format!(
        "the data folder {} lies inside {}, which another packhouse has served: to that one it is a repository, and it counts there, too",
        path.display(),
        outer.display()
    ))
}

fn missing_parent(path: &Path, cause: io::Error) -> StartError {
    let is_parent = cause.kind() == io::ErrorKind::NotFound;
    let cause = if is_parent { no_parent(path) } else { cause };
    StartError::DataFolder { path: path.into(), cause }
}

fn no_parent(path: &Path) -> io::Error {
    let parent = path.parent().unwrap_or(path).display().to_string();
    io::Error::other(format!(
        "there is no folder {parent}: is its disk mounted? If it is to be made, make it yourself"
    ))
}

/// Makes one folder and flushes its name.
fn make_durably(path: &Path, mode: u32, user: Option<&ServiceUser>) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    std::fs::DirBuilder::new().mode(mode).create(&path)?;
    if let Some(user) = user {
        user.own(&path)?;
    }
    path.parent().map_or(Ok(()), flush::folder)
}

/// Whether a folder, or the one that it is to be made in, lies on the root's file system.
pub(super) fn is_on_root(path: &Path) -> io::Result<bool> {
    let path = std::path::absolute(path)?;
    let nearest = path.ancestors().find_map(|folder| std::fs::metadata(folder).ok());
    let device = |meta: Metadata| meta.dev();
    Ok(nearest.map(device) == Some(std::fs::metadata("/").map(device)?))
}

/// Looks after the data folder: what is stored in one that was mounted over is lost with the next mount.
pub(super) fn watch_place(place: Arc<Place>, health: Arc<Health>) -> io::Result<()> {
    std::thread::Builder::new().name("place".into()).spawn(move || {
        loop {
            std::thread::sleep(LOOK_PAUSE);
            health.note_place(place.check());
        }
    })?;
    Ok(())
}

/// Why a state folder inside the data folder can't be one: clients would take it for a repository.
pub(super) fn is_for_clients(settings: &Settings) -> Option<String> {
    let Settings { path, state_dir, .. } = settings;
    let (data, state) = (real(path)?, real(state_dir)?);
    let inside = state.strip_prefix(&data).ok()?;
    let is_hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    (!inside.iter().any(is_hidden)).then(|| {
        format!(
            "it lies in the data folder {}, where clients would take it for a repository: give it a name with a leading dot, or another place",
            path.display()
        )
    })
}

/// The path without symbolic links, also of a folder that is to be made.
fn real(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let made = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(made).or(Some(path.clone()))
}

fn is_inside(folder: &Path, other: &Path) -> bool {
    real(folder).zip(real(other)).is_some_and(|(folder, other)| folder.starts_with(other))
}

/// The data folder, held by this process. The lock ends when this is dropped.
pub struct DataLock(#[expect(dead_code, reason = "held, not read")] Option<File>);

/// Holds the data folder against other servers. One that is stopping is waited for, as long as its requests in flight may
/// take, so that a new version can be started while a backup runs. None if `is_stopped` meanwhile.
pub(super) fn hold_data(
    settings: &Settings,
    is_stopped: impl Fn() -> bool,
) -> Result<Option<DataLock>, StartError> {
    let path = &settings.path;
    let failed = |cause| StartError::DataFolder { path: path.clone(), cause };
    let deadline = Instant::now() + settings.drain;
    let mut is_told = false;
    loop {
        match Lock::folder(path, settings.shared_folder).map_err(failed)? {
            Lock::Held(file) => return Ok(Some(DataLock(Some(file)))),
            Lock::Unsupported => {
                log::warn!(
                    "{}: this disk has no locks (flock): a second server on this folder would not be noticed",
                    path.display()
                );
                return Ok(Some(DataLock(None)));
            }
            Lock::Taken => {}
        }
        let stopping = control::is_stopping(&settings.state_dir);
        if stopping == Some(false) || Instant::now() >= deadline {
            return Err(StartError::InUse(path.clone()));
        }
        if !is_told {
            let most = settings.drain.as_secs();
            log::warn!("another packhouse serves {}: waiting up to {most} s for its end", path.display());
            is_told = true;
        }
        if is_stopped() {
            return Ok(None);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// Holds the state folder. Without one the server goes on, and the operator is told what is missing and why.
///
/// # Errors
/// The data folder is not that of the last start; what `--state-dir` names is no folder, or another server holds it: locks of
/// folders hold on one machine only (NFS), those of files on all.
pub(super) fn hold_state(settings: &Settings) -> Result<Option<StateDir>, StartError> {
    let path = &settings.state_dir;
    let mut acquired = StateDir::acquire(path);
    // A server that ends gives back one lock after the other.
    for _ in 0..STATE_LOCK_TRIES {
        if settings.shared_folder || !matches!(acquired, Ok(None)) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        acquired = StateDir::acquire(path);
    }
    let why = match acquired {
        Ok(Some(state)) => {
            if !state.is_locked() {
                log::warn!(
                    "{}: this disk has no locks (flock): another server would not be noticed",
                    path.display()
                );
            }
            compare_with_last(settings, &state)?;
            return Ok(Some(state));
        }
        Ok(None) if !settings.shared_folder => return Err(StartError::InUse(path.clone())),
        Ok(None) => "another packhouse holds it".into(),
        Err(cause) if path.exists() && !path.is_dir() && *path != settings.path.join(".packhouse") => {
            return Err(StartError::StateFolder { path: path.clone(), cause });
        }
        Err(e) if Fault::of(&e) == Fault::ReadOnly => "it is read-only".into(),
        Err(e) => e.to_string(),
    };
    log::warn!(
        "no state folder: {}: {why}: going on without `packhouse reload` and `repo resume`, without verification in the background, and with quotas counted anew at every start. Give --state-dir a folder that this user may write",
        path.display()
    );
    Ok(None)
}

/// What a data folder was at the last start.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    path: PathBuf,
    #[serde(flatten)]
    identity: Identity,
}

/// Compares the data folder with that of the last start, where the state folder lies elsewhere and can remember it: where a
/// disk is not mounted there is another folder, and an empty store would be served.
fn compare_with_last(settings: &Settings, state: &StateDir) -> Result<(), StartError> {
    let path = &settings.path;
    if is_inside(state.path(), path) {
        return Ok(());
    }
    let failed = |cause| StartError::DataFolder { path: path.clone(), cause };
    let now = Record { path: path.clone(), identity: Identity::of(path).map_err(failed)? };
    let file = state.path().join(RECORD);
    let before = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
    match before {
        Some(before) if before == now => return Ok(()),
        Some(before) if !before.identity.may_be(&now.identity) => {
            return Err(StartError::OtherFolder { path: path.clone(), record: file });
        }
        _ => {}
    }
    let text = serde_json::to_vec(&now).map_err(|e| failed(e.into()))?;
    if let Err(e) = records::replace(&file, &text, 0o600) {
        log::warn!(
            "{}: can't be written: a disk that is not mounted will not be noticed: {e}",
            file.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_never_made_and_the_root_is_no_mount() {
        let dir = tempfile::tempdir().expect("a folder");
        let (made, deep) = (dir.path().join("data"), dir.path().join("disk/data"));
        make_durably(&made, 0o700, None).expect("made");
        assert!(make_durably(&deep, 0o700, None).is_err() && !deep.exists());
        assert!(is_on_root(Path::new("/")).expect("there is a root"));
        assert!(!is_on_root(Path::new("/proc/no/such")).expect("proc is a mount"));
        assert!(is_inside(&made.join("x"), &made) && !is_inside(dir.path(), &made));
    }
}
