//! Apache's password file: bcrypt (`$2a$ $2b$ $2y$`) and `{SHA}`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::auth::is_name;

/// Largest password file read, in bytes: half a million users.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// The cost of the stand-in hash when the file has no bcrypt entry.
const DEFAULT_COST: u32 = 5;

/// The password file can't be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It can't be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is no password file.
    #[error("{}: line {line} is not of the form user:hash", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The first bad line.
        line: usize,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Hash {
    Bcrypt(String),
    Sha1([u8; 20]),
}

/// The users of a password file.
pub struct Htpasswd {
    users: HashMap<String, Hash>,
    /// The dearest cost: any wrong password is to take as long, whoever it is for.
    highest: u32,
}

/// One line of a password file.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'l> {
    /// Empty, or a comment.
    Nothing,
    /// A user.
    Entry {
        /// The name.
        user: &'l str,
        /// What the password hashes to.
        hash: &'l str,
    },
    /// Anything else.
    Malformed,
}

impl<'l> Line<'l> {
    /// What a line says.
    pub fn parse(line: &'l str) -> Self {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Self::Nothing;
        }
        match line.split_once(':') {
            Some((user, hash)) if is_name(user) && !hash.contains(':') => Self::Entry { user, hash },
            _ => Self::Malformed,
        }
    }
}

/// The lines of a password file with their numbers.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, Line::parse(line)))
}

impl Htpasswd {
    /// Reads the file. Users whose hash can't be used are named in the log; they can't log in.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let read = || {
            if std::fs::metadata(path)?.len() > MAX_FILE_BYTES {
                return Err(io::Error::other("the password file is larger than 64 MiB"));
            }
            std::fs::read_to_string(path)
        };
        let text = read().map_err(|cause| LoadError::Read { path: path.into(), cause })?;
        let (htpasswd, problems) =
            Self::parse(&text).map_err(|line| LoadError::Malformed { path: path.into(), line })?;
        for problem in problems {
            log::warn!("{}: {problem}", path.display());
        }
        Ok(htpasswd)
    }

    /// The users, and what is wrong with which lines. Of two entries for one user the last counts, as in rest-server.
    ///
    /// # Errors
    /// The number of a line that is not of the form `user:hash`: as for rest-server, the whole file is not to be trusted.
    fn parse(text: &str) -> Result<(Self, Vec<String>), usize> {
        let (mut users, mut problems, mut highest) = (HashMap::new(), Vec::new(), DEFAULT_COST);
        for (number, line) in lines(text) {
            let (user, hash) = match line {
                Line::Nothing => continue,
                Line::Malformed => return Err(number),
                Line::Entry { user, hash } => (user, Hash::parse(hash)),
            };
            let named = |problem: &str| format!("line {number}, user {}: {problem}", user.escape_debug());
            match hash {
                Err(problem) => {
                    // The last line counts, also one that lets nobody in.
                    users.remove(user);
                    problems.push(named(problem));
                }
                Ok(hash) => {
                    if let Hash::Bcrypt(hash) = &hash {
                        highest = highest.max(cost(hash));
                    }
                    if users.insert(user.to_owned(), hash).is_some() {
                        problems.push(named("there is an earlier line for this user, which does not count"));
                    }
                }
            }
        }
        Ok((Self { users, highest }, problems))
    }

    /// Number of users that can log in.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody can.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether a user has the same entry here and there.
    pub fn same_entry(&self, other: &Self, user: &str) -> bool {
        self.users.get(user) == other.users.get(user)
    }

    /// Whether this is the user's password. Slow on purpose: not for a worker.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        let costs = match self.users.get(user) {
            Some(hash) if hash.matches(password) => return true,
            // Each costs twice as much as the one before: together with what it took, as much as the dearest.
            Some(Hash::Bcrypt(hash)) => cost(hash)..self.highest,
            Some(Hash::Sha1(_)) | None => self.highest..self.highest + 1,
        };
        for cost in costs {
            Hash::stand_in(cost).matches(password);
        }
        false
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(encoded) = text.strip_prefix("{SHA}") {
            let digest = STANDARD.decode(encoded).ok().and_then(|bytes| bytes.try_into().ok());
            return digest.map(Self::Sha1).ok_or("the {SHA} hash is malformed");
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|scheme| text.starts_with(scheme)) {
            let parts: Result<bcrypt::HashParts, _> = text.parse();
            return parts
                .map(|_| Self::Bcrypt(text.to_owned()))
                .map_err(|_bcrypt| "the bcrypt hash is malformed");
        }
        Err("the hash is neither bcrypt nor {SHA}: `htpasswd -B` makes one that is")
    }

    /// One that no password has.
    fn stand_in(cost: u32) -> Self {
        Self::Bcrypt(format!("$2b${cost:02}$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01232"))
    }

    fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Sha1(wanted) => {
                digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password).as_ref().ct_eq(wanted).into()
            }
        }
    }
}

fn cost(bcrypt: &str) -> u32 {
    bcrypt.parse().map_or(0, |parts: bcrypt::HashParts| parts.get_cost())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_and_problems() {
        let hash = bcrypt::hash_with_result("pw", 4).expect("a hash");
        let text = format!(
            "# staff\n\na:{}\nb:{}\nc:{}\nsha:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\nmd5:$apr1$x$y\nold:{{SHA}}x\nbad:$2y$99$x\n",
            hash.format_for_version(bcrypt::Version::TwoA),
            hash.format_for_version(bcrypt::Version::TwoB),
            hash.format_for_version(bcrypt::Version::TwoY),
        );
        let (users, problems) = Htpasswd::parse(&text).unwrap_or_else(|line| panic!("line {line}"));
        assert_eq!(users.len(), 4);
        for user in ["a", "b", "c"] {
            assert!(users.verify(user, b"pw") && !users.verify(user, b"pW"), "{user}");
        }
        assert!(users.verify("sha", b"secret") && !users.verify("sha", b"Secret"));
        assert!(!users.verify("md5", b"x") && !users.verify("", b""));
        let lines: Vec<_> =
            problems.iter().map(|problem| problem.split([':', ',']).next().unwrap_or_default()).collect();
        assert_eq!(lines, ["line 7", "line 8", "line 9"]);
        for broken in ["a:{SHA}x\nnothing\n", "a:{SHA}x\na:b:c\n", "a:x\n\u{1}:x\n", "a:x\n:x\n"] {
            assert_eq!(Htpasswd::parse(broken).err(), Some(2), "{broken:?}");
        }
    }

    #[test]
    fn a_stranger_costs_as_much_as_the_dearest_entry() {
        let text = format!("a:{}\n", bcrypt::hash("pw", 6).expect("a hash"));
        let (users, _) = Htpasswd::parse(&text).unwrap_or_else(|line| panic!("line {line}"));
        assert_eq!(users.highest, 6);
        let Hash::Bcrypt(stand_in) = Hash::stand_in(6) else { panic!("not bcrypt") };
        assert_eq!(cost(&stand_in), 6);
        assert_eq!(bcrypt::verify("pw", &stand_in).ok(), Some(false));
        assert!(!users.verify("a", b"wrong") && !users.verify("b", b"pw"));
    }
}
