//! Changes to a password file by an operator: all or nothing, one at a time, what else is in the file stays.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::auth::htpasswd::{Line, lines};
use crate::auth::is_name;
use crate::io::state::lock_folder;

/// Longest password that bcrypt takes into account, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 72;

/// Why a password file was not changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// It can't be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The user is there already.
    #[error("there is a user {0} already: `packhouse user passwd` changes the password")]
    Exists(String),
    /// The user is not there.
    #[error("there is no user {0}")]
    Missing(String),
    /// The name can't be a user's.
    #[error(
        "a user's name is 1 to 255 bytes without colons and control characters, and does not begin with #"
    )]
    Name,
    /// The password can't be used.
    #[error("a password is 1 to {MAX_PASSWORD_BYTES} bytes without NUL: bcrypt looks at no more")]
    Password,
}

/// A change.
pub enum Change<'c> {
    /// Adds a user with this hash.
    Add(&'c str),
    /// Gives a user this hash.
    Replace(&'c str),
    /// Removes a user.
    Remove,
}

/// A bcrypt hash of a password, as `htpasswd -B` makes it.
pub fn hash(password: &str, cost: u32) -> Result<String, EditError> {
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES || password.contains('\0') {
        return Err(EditError::Password);
    }
    let parts = bcrypt::hash_with_result(password, cost).map_err(|_bcrypt| EditError::Password)?;
    Ok(parts.format_for_version(bcrypt::Version::TwoY))
}

/// The names of all users of a file, in its order.
pub fn users(path: &Path) -> Result<Vec<String>, EditError> {
    let text = std::fs::read_to_string(path).map_err(|cause| EditError::Io { path: path.into(), cause })?;
    let names = lines(&text).filter_map(|(_, line)| match line {
        Line::Entry { user, .. } => Some(user.to_owned()),
        Line::Nothing | Line::Malformed => None,
    });
    Ok(names.collect())
}

/// Changes one user of a file, which is made if it is missing (0600).
pub fn edit(path: &Path, user: &str, change: &Change<'_>) -> Result<(), EditError> {
    if !is_name(user) || user.starts_with('#') || user.trim() != user {
        return Err(EditError::Name);
    }
    let failed = |cause| EditError::Io { path: path.into(), cause };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let _one_at_a_time = lock_folder(folder).map_err(failed)?;
    let old = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(failed)?,
    };
    replace(path, folder, &changed(&old, user, change)?).map_err(failed)
}

fn changed(old: &str, user: &str, change: &Change<'_>) -> Result<String, EditError> {
    let is_users = |line: &str| matches!(Line::parse(line), Line::Entry { user: other, .. } if other == user);
    let there = old.lines().any(is_users);
    let mut kept: Vec<String> = Vec::new();
    let mut replaced = false;
    for line in old.lines() {
        match change {
            // Of two entries the last would count: none may be left.
            Change::Remove if is_users(line) => {}
            Change::Replace(_) if is_users(line) && replaced => {}
            Change::Replace(hash) if is_users(line) => {
                replaced = true;
                kept.push(format!("{user}:{hash}"));
            }
            _ => kept.push(line.to_owned()),
        }
    }
    match change {
        Change::Add(_) if there => return Err(EditError::Exists(user.into())),
        Change::Replace(_) | Change::Remove if !there => return Err(EditError::Missing(user.into())),
        Change::Add(hash) => kept.push(format!("{user}:{hash}")),
        Change::Replace(_) | Change::Remove => {}
    }
    kept.push(String::new());
    Ok(kept.join("\n"))
}

/// Puts `text` in the place of the file: a reader sees the old one or the new one. The server's user goes on owning it.
fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    // Through a symbolic link the file behind it is meant, not the link.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_missing| path.to_owned());
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temp = target.with_file_name(name);
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temp)?;
        if let Ok(old) = std::fs::metadata(&target) {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temp, &target)?;
        File::open(target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(folder))?.sync_all()
    })();
    if written.is_err() {
        std::fs::remove_file(&temp).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn edits_keep_the_rest() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("users");
        edit(&path, "alice", &Change::Add("{SHA}a")).expect("added");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "# staff\nalice:{SHA}a\n\nbob:$2y$x\nalice:{SHA}b\n").expect("written");
        edit(&path, "carol", &Change::Add("{SHA}c")).expect("added");
        edit(&path, "alice", &Change::Replace("{SHA}new")).expect("replaced");
        let text = || std::fs::read_to_string(&path).expect("read");
        assert_eq!(text(), "# staff\nalice:{SHA}new\n\nbob:$2y$x\ncarol:{SHA}c\n");
        edit(&path, "bob", &Change::Remove).expect("removed");
        assert_eq!(text(), "# staff\nalice:{SHA}new\n\ncarol:{SHA}c\n");
        assert_eq!(users(&path).expect("read"), ["alice", "carol"]);
        assert!(matches!(edit(&path, "alice", &Change::Add("x")), Err(EditError::Exists(_))));
        assert!(matches!(edit(&path, "bob", &Change::Replace("x")), Err(EditError::Missing(_))));
        for bad in ["", "a:b", "a\nb", "#a", " a", &"x".repeat(256)] {
            assert!(matches!(edit(&path, bad, &Change::Add("x")), Err(EditError::Name)), "{bad:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1, "nothing left over");
    }

    #[test]
    fn passwords() {
        let hashed = hash("pässword", 8).expect("hashed");
        assert!(hashed.starts_with("$2y$08$") && bcrypt::verify("pässword", &hashed).expect("valid"));
        for bad in ["", "a\0b", &"x".repeat(73)] {
            assert!(hash(bad, 8).is_err());
        }
    }
}
