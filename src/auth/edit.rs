//! Changes to a password file by an operator: all or nothing, one at a time, what else is in the file stays.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::auth::htpasswd::{Line, lines};
use crate::auth::is_name;
use crate::io::records;
use crate::io::state::lock_file;

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
    let text = std::fs::read(path).map_err(|cause| EditError::Io { path: path.into(), cause })?;
    let names = lines(&text).filter_map(|(_, line)| match line {
        Line::Entry { user, .. } => Some(user.into_owned()),
        Line::Nothing | Line::Malformed(_) => None,
    });
    Ok(names.collect())
}

/// Changes one user of a file. One that is missing is made for a new user, with mode 0600 and the owner of its folder; one
/// that is there keeps mode, owner and access control list.
pub fn edit(path: &Path, user: &str, change: &Change<'_>) -> Result<(), EditError> {
    if !is_name(user) || user.starts_with('#') || user.starts_with('"') || user.trim() != user {
        return Err(EditError::Name);
    }
    let failed = |cause| EditError::Io { path: path.into(), cause };
    let locked = lock_file(path, matches!(change, Change::Add(_)));
    let _one_at_a_time = match locked {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !matches!(change, Change::Add(_)) => {
            return Err(EditError::Missing(user.into()));
        }
        other => other.map_err(failed)?,
    };
    let old = std::fs::read(path).map_err(failed)?;
    records::replace(path, &changed(&old, user, change)?, 0o600).map_err(failed)
}

fn changed(old: &[u8], user: &str, change: &Change<'_>) -> Result<Vec<u8>, EditError> {
    let is_users =
        |line: &[u8]| matches!(Line::parse(line), Line::Entry { user: other, .. } if other == user);
    let lines = || old.strip_suffix(b"\n").unwrap_or(old).split(|byte| *byte == b'\n');
    let there = lines().any(is_users);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut replaced = false;
    for line in lines().filter(|_| !old.is_empty()) {
        match change {
            // Of two entries the last would count: none may be left.
            Change::Remove if is_users(line) => {}
            Change::Replace(_) if is_users(line) && replaced => {}
            Change::Replace(hash) if is_users(line) => {
                replaced = true;
                kept.push(format!("{user}:{hash}").into());
            }
            _ => kept.push(line.to_vec()),
        }
    }
    match change {
        Change::Add(_) if there => return Err(EditError::Exists(user.into())),
        Change::Replace(_) | Change::Remove if !there => return Err(EditError::Missing(user.into())),
        Change::Add(hash) => kept.push(format!("{user}:{hash}").into()),
        Change::Replace(_) | Change::Remove => {}
    }
    kept.push(Vec::new());
    Ok(kept.join(&b'\n'))
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
