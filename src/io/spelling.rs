//! How folders are spelled on disks that take several names for one folder.
//!
//! FAT, exFAT, NTFS, many network mounts and folders with the casefold attribute (ext4, f2fs, tmpfs) find `alice` under `ALICE`.
//! Some disks find a composed `é` under `e` and an accent, a long name under a short one (`ALICEB~1`), or a name with dots
//! behind it under the name without. Casefold is an attribute of a folder, and other disks are mounted below the data folder:
//! every folder is asked by itself.
//!
//! The kernel does not tell how an open folder is stored. `/proc/self/fd` shows the name by which it was looked up, and on
//! FUSE each spelling may have an inode number of its own (both seen with exfat-fuse on Linux 6.18). The entries of the folder
//! above do tell. They are read only where there is a reason to: elsewhere one lookup of the other case finds nothing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;

use crate::io::dir::{BENEATH, Dir};
use crate::io::names::probe_name;
use crate::types::FolderName;

/// A folder to look names up in: the right to list it is not needed.
const PASS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

/// How a path is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As it is stored.
    Stored,
    /// One of its folders is not there; those above it are spelled as they are stored.
    Missing,
    /// One of its folders is there under another name only, or stands for a word of restic's protocol on this disk.
    Other,
}

impl Dir {
    /// How `path`, which has plain components only, is spelled.
    ///
    /// # Errors
    /// `NotDir` and `Symlink` of a component that is no folder.
    pub async fn spelling(&self, path: &Path) -> io::Result<Spelling> {
        match spelling_of(&self.node.fd, path, BENEATH | ResolveFlags::CACHED) {
            // INVAL: Linux before 5.12 does not know RESOLVE_CACHED.
            Err(Errno::AGAIN | Errno::INVAL) => {
                let path = path.to_owned();
                self.node.reading_apart(move |root| Ok(spelling_of(root, &path, BENEATH)?)).await
            }
            told => Ok(told?),
        }
    }

    /// Whether folders of these names, made in this directory, would be stored as they are spelled, and none of them be found
    /// under a word of restic's protocol. Names of small letters need no trial: a disk that changes those is noticed afterwards.
    pub async fn keeps_names(&self, names: Vec<OsString>) -> io::Result<bool> {
        let doubtful: Vec<_> = names.into_iter().filter(|name| needs_trial(name.as_bytes())).collect();
        if doubtful.is_empty() {
            return Ok(true);
        }
        let trial = probe_name();
        let job = move |fd: &OwnedFd| {
            in_trial(fd, &trial, |folder| {
                for name in &doubtful {
                    if !keeps_name(folder, name)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
        };
        self.node.writing(job).await
    }

    /// Whether two names are one here that differ by case, or by the form of an accented letter.
    pub async fn folds_names(&self) -> io::Result<bool> {
        let trial = probe_name();
        let job = move |fd: &OwnedFd| {
            in_trial(fd, &trial, |folder| {
                // A disk that can't store an accented letter has no two forms of it.
                Ok(are_one(folder, "case", "CASE")?
                    || are_one(folder, "\u{e9}", "e\u{301}").unwrap_or_default())
            })
        };
        self.node.writing(job).await
    }
}

/// How a path is spelled; `AGAIN` if it is to be told from memory, and the disk must be asked.
fn spelling_of(root: &OwnedFd, path: &Path, how: ResolveFlags) -> Result<Spelling, Errno> {
    let mut reached: Option<OwnedFd> = None;
    for name in path {
        let folder = reached.as_ref().unwrap_or(root);
        let next = match openat2(folder, name, PASS, Mode::empty(), how) {
            Err(Errno::NOENT) => return Ok(Spelling::Missing),
            opened => opened?,
        };
        if !is_stored(folder, name.as_bytes(), how)? {
            return Ok(Spelling::Other);
        }
        reached = Some(next);
    }
    Ok(Spelling::Stored)
}

/// Whether `name`, under which something is found in `folder`, is stored there in this spelling, and stands for itself.
fn is_stored(folder: &OwnedFd, name: &[u8], how: ResolveFlags) -> Result<bool, Errno> {
    let other = in_other_case(name);
    let found_as_other = other != name && is_found(folder, &other, how)?;
    if !found_as_other && tells_by_case(name) {
        return Ok(true);
    }
    if how.contains(ResolveFlags::CACHED) {
        return Err(Errno::AGAIN);
    }
    let (has_name, has_other) = match entries(folder, name, &other) {
        // A folder that may be entered and not listed.
        Err(Errno::ACCESS) if !found_as_other => return Ok(true),
        read => read?,
    };
    let folds = found_as_other && !has_other;
    Ok(has_name && !(folds && is_word(name)))
}

/// Whether both names are entries of a folder.
fn entries(folder: &OwnedFd, name: &[u8], other: &[u8]) -> Result<(bool, bool), Errno> {
    let (mut has_name, mut has_other) = (false, false);
    // Not through the descriptor at hand: it may be one that can't be read from.
    for entry in rustix::fs::Dir::new(openat(folder, ".", LIST, Mode::empty())?)? {
        let entry = entry?;
        has_name |= entry.file_name().to_bytes() == name;
        has_other |= entry.file_name().to_bytes() == other;
    }
    Ok((has_name, has_other))
}

/// Whether a lookup finds something. Whatever another error means, the entries tell.
fn is_found(folder: &OwnedFd, name: &[u8], how: ResolveFlags) -> Result<bool, Errno> {
    match openat2(folder, name, LOOK, Mode::empty(), how) {
        Err(Errno::NOENT) => Ok(false),
        Err(e @ Errno::AGAIN) => Err(e),
        _ => Ok(true),
    }
}

fn in_other_case(name: &[u8]) -> Vec<u8> {
    let swap = |byte: &u8| {
        if byte.is_ascii_lowercase() { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() }
    };
    name.iter().map(swap).collect()
}

/// Whether a disk on which `name` is found under another spelling would find it in the other case, too. All disks that fold
/// anything fold the case of ASCII letters, but for some that only compose and decompose: to those a Kelvin sign is a `K`, a
/// Greek question mark is a `;`, and a Greek varia is a grave accent.
fn tells_by_case(name: &[u8]) -> bool {
    name.is_ascii()
        && name.iter().any(u8::is_ascii_alphabetic)
        && !name.iter().any(|byte| matches!(byte, b'K' | b';' | b'`'))
}

/// Whether a name is a word of restic's protocol where case does not count.
fn is_word(name: &[u8]) -> bool {
    FolderName::is_reserved(&name.to_ascii_lowercase())
}

/// Whether a disk might store a name otherwise than it is spelled (lowntfs-3g lists `Alice` as `alice` if told to ignore case), or
/// find it under a word of restic's protocol: `KEYS`, `keyſ` with a long s, `conﬁg` with a ligature, `keys.`.
fn needs_trial(name: &[u8]) -> bool {
    let has_upper = name.iter().any(u8::is_ascii_uppercase);
    !tells_by_case(name) || has_upper || name.ends_with(b".") || name.ends_with(b" ")
}

/// Tries something in a folder of its own, which behaves as the one that it is made in.
fn in_trial(
    dir: &OwnedFd,
    trial: &str,
    attempt: impl FnOnce(&OwnedFd) -> io::Result<bool>,
) -> io::Result<bool> {
    mkdirat(dir, trial, Mode::RWXU)?;
    let folder = openat2(dir, trial, PASS, Mode::empty(), BENEATH);
    let tried = folder.map_err(io::Error::from).and_then(|folder| attempt(&folder));
    let removed = unlinkat(dir, trial, AtFlags::REMOVEDIR);
    // Why the trial failed is more than that its folder is not empty then.
    tried.and_then(|tried| Ok(removed.map(|()| tried)?))
}

/// Does something while there is a file of this name.
fn with_file<T>(folder: &OwnedFd, name: &OsStr, look: impl FnOnce() -> Result<T, Errno>) -> io::Result<T> {
    drop(openat(folder, name, NEW_FILE, Mode::RUSR | Mode::WUSR)?);
    let seen = look();
    unlinkat(folder, name, AtFlags::empty())?;
    Ok(seen?)
}

fn keeps_name(folder: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    with_file(folder, name, || {
        for word in FolderName::reserved() {
            if is_found(folder, word.as_bytes(), BENEATH)? {
                return Ok(false);
            }
        }
        entries(folder, name.as_bytes(), &[]).map(|(has_name, _)| has_name)
    })
}

fn are_one(folder: &OwnedFd, name: &str, other: &str) -> io::Result<bool> {
    with_file(folder, OsStr::new(name), || is_found(folder, other.as_bytes(), BENEATH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &Path) -> OwnedFd {
        std::fs::File::open(path).expect("a folder").into()
    }

    #[test]
    fn an_ordinary_disk_tells_all_names_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let names = ["alice", "ALICE", "2024", "K", "\u{e9}", "e\u{301}", "KEYS", "keys", "Config", "a."];
        for name in names {
            std::fs::create_dir_all(dir.path().join(name).join("b")).expect("a folder");
        }
        let root = folder(dir.path());
        for name in names {
            let path = Path::new(name).join("b");
            assert_eq!(spelling_of(&root, &path, BENEATH).expect("it is there"), Spelling::Stored, "{name}");
        }
        assert!(keeps_name(&folder(&dir.path().join("2024/b")), OsStr::new("KEYS")).expect("writable"));
        for missing in ["Alice", "alice/B", "alice/b/c", "2025", "\u{c9}"] {
            assert_eq!(spelling_of(&root, Path::new(missing), BENEATH).expect("no error"), Spelling::Missing);
        }
        assert!(!are_one(&root, "case", "CASE").expect("writable"));
        std::fs::write(dir.path().join("file"), "").expect("writable");
        assert!(spelling_of(&root, Path::new("file/b"), BENEATH).is_err());
        let left = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(left, names.len() + 1, "the trials leave nothing");
    }

    #[test]
    fn which_names_are_looked_at_closely() {
        assert_eq!(in_other_case(b"Alice-2\xff"), b"aLICE-2\xff");
        for plain in ["alice", "backup of 2024", "r1", "aliceb~1"] {
            assert!(tells_by_case(plain.as_bytes()) && !needs_trial(plain.as_bytes()), "{plain}");
        }
        for close in ["2024", "2024.", "Kelvin", "caf\u{e9}", "\u{200b}.packhouse", "key\u{17f}"] {
            assert!(!tells_by_case(close.as_bytes()) && needs_trial(close.as_bytes()), "{close}");
        }
        for doubtful in ["Data", "CONFIG", "sNapshots", "Alice", "bob.", "bob "] {
            assert!(tells_by_case(doubtful.as_bytes()) && needs_trial(doubtful.as_bytes()), "{doubtful}");
        }
    }
}
