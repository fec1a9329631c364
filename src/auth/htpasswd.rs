//! The password file, as rest-server and Apache's htpasswd write it: bcrypt (`$2a$ $2b$ $2y$`) and `{SHA}`.
//!
//! A line that can't be used costs its user, never the others: it is named in the log with its number. Fields are read as
//! rest-server reads them (Go's `encoding/csv`), so that they may be in quotes and fields after the second mean nothing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::auth::edit::MAX_PASSWORD_BYTES;
use crate::auth::is_name;
use crate::io::records;

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
    /// It is no password file: it has lines, and none of them is one of a user.
    #[error("{}: line {line} is not of the form user:hash, nor is any other", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The first line.
        line: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Hash {
    Bcrypt(String),
    Sha1([u8; 20]),
}

/// The users of a password file.
#[derive(Default)]
pub struct Htpasswd {
    users: HashMap<String, Hash>,
    /// The dearest cost: any wrong password is to take as long, whoever it is for.
    highest: u32,
    /// The lines that can't be used, and why.
    problems: Vec<String>,
}

/// One line of a password file.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'l> {
    /// Empty, or a comment.
    Nothing,
    /// A user.
    Entry {
        /// The name.
        user: Cow<'l, str>,
        /// What the password hashes to.
        hash: Cow<'l, str>,
    },
    /// Anything else, and what is wrong with it.
    Malformed(&'static str),
}

impl<'l> Line<'l> {
    /// What a line says, which is bytes: a comment may be in any encoding.
    pub fn parse(line: &'l [u8]) -> Self {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return Self::Nothing;
        }
        let Some((user, Some(rest))) = field(line) else {
            return Self::Malformed("it is not of the form user:hash");
        };
        let Some((hash, _)) = field(rest) else {
            return Self::Malformed("the quotes around the hash do not match");
        };
        match (text(user), text(hash)) {
            (Some(user), _) if !is_name(&user) => {
                Self::Malformed("the name of the user is empty or has control characters")
            }
            (Some(user), Some(hash)) => Self::Entry { user, hash },
            (None, _) => Self::Malformed("the name of the user is no UTF-8"),
            (_, None) => Self::Malformed("the hash is no UTF-8"),
        }
    }
}

/// A field, and what follows its colon, if it has one.
type Field<'l> = (Cow<'l, [u8]>, Option<&'l [u8]>);

/// The first field of a line and what follows its colon, by the rules of Go's `encoding/csv`.
fn field(line: &[u8]) -> Option<Field<'_>> {
    let line = line.trim_ascii_start();
    let Some(quoted) = line.strip_prefix(b"\"") else {
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, rest) = line.split_at_checked(end)?;
        let is_plain = !field.contains(&b'"');
        return is_plain.then(|| (field.into(), rest.strip_prefix(b":")));
    };
    let (mut field, mut at) = (Vec::new(), 0);
    loop {
        match (quoted.get(at)?, quoted.get(at + 1)) {
            (b'"', Some(b'"')) => {
                field.push(b'"');
                at += 2;
            }
            (b'"', None) => return Some((field.into(), None)),
            (b'"', Some(b':')) => return Some((field.into(), quoted.get(at + 2..))),
            (b'"', Some(_)) => return None,
            (byte, _) => {
                field.push(*byte);
                at += 1;
            }
        }
    }
}

fn text(bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match bytes {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// The lines of a password file with their numbers.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Line<'_>)> {
    // A byte order mark, which editors of Windows write, is no part of a name.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|byte| *byte == b'\n').enumerate().map(|(index, line)| (index + 1, Line::parse(line)))
}

impl Htpasswd {
    /// Reads the file. Lines that can't be used are named in the log, and so is a file without any user.
    ///
    /// # Errors
    /// It can't be read, or is no password file at all.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = records::read(path).map_err(|cause| LoadError::Read { path: path.into(), cause })?;
        let (htpasswd, problems) =
            Self::parse(&text).map_err(|line| LoadError::Malformed { path: path.into(), line })?;
        let problems: Vec<_> =
            problems.into_iter().map(|problem| format!("{}: {problem}", path.display())).collect();
        for problem in &problems {
            log::warn!("{problem}");
        }
        Ok(Self { problems, ..htpasswd })
    }

    /// The users, and what is wrong with which lines. Of two entries for one user the last counts, as in rest-server.
    ///
    /// # Errors
    /// The number of the first line of a file that has lines, and none of a user.
    fn parse(text: &[u8]) -> Result<(Self, Vec<String>), usize> {
        let (mut all, mut problems) = (Self { highest: DEFAULT_COST, ..Self::default() }, Vec::new());
        let (mut entries, mut malformed) = (0, None);
        for (number, line) in lines(text) {
            let (user, hash) = match line {
                Line::Nothing => continue,
                Line::Malformed(why) => {
                    malformed.get_or_insert(number);
                    problems.push(format!("line {number} does not count: {why}"));
                    continue;
                }
                Line::Entry { user, hash } => (user, Hash::parse(&hash)),
            };
            entries += 1;
            let named = |problem: &str| format!("line {number}, user {}: {problem}", user.escape_debug());
            match hash {
                Err(problem) => {
                    // The last line counts, also one that lets nobody in.
                    all.users.remove(&*user);
                    problems.push(named(problem));
                }
                Ok(hash) => {
                    if let Hash::Bcrypt(hash) = &hash {
                        all.highest = all.highest.max(cost(hash));
                    }
                    if all.users.insert(user.clone().into_owned(), hash).is_some() {
                        problems.push(named("there is an earlier line for this user, which does not count"));
                    }
                }
            }
        }
        match malformed {
            Some(line) if entries == 0 => Err(line),
            _ => Ok((all, problems)),
        }
    }

    /// The lines that can't be used, and why.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Number of users that can log in.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody can.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether this user can.
    pub fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// The names of all that can.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The entry of a user in the password file.
    pub(super) fn entry(&self, user: &str) -> Option<impl std::hash::Hash> {
        self.users.get(user)
    }

    /// Cuts what bcrypt does not look at: with it one password would have any number of forms.
    pub(super) fn cut(&self, user: &str, password: &mut Vec<u8>) {
        if let Some(Hash::Bcrypt(_)) = self.users.get(user) {
            password.truncate(MAX_PASSWORD_BYTES);
        }
    }

    /// Whether a user has the same entry here and there.
    pub fn same_entry(&self, other: &Self, user: &str) -> bool {
        self.users.get(user) == other.users.get(user)
    }

    /// Takes as long as a wrong password of a user. Lets others in `between` its parts: a stranger makes no user wait.
    pub(super) fn verify_stranger(&self, password: &[u8], between: impl Fn()) {
        let part = Hash::stand_in(self.highest.min(PART_COST));
        for _ in 0..1_u32 << self.highest.saturating_sub(PART_COST) {
            between();
            part.matches(password);
        }
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

/// Characters of a bcrypt hash.
const BCRYPT_CHARS: usize = 60;
/// The dearest bcrypt hash that is checked: some twenty seconds. Every wrong password costs as much as the dearest in the file, and
/// one of cost 31 would let nobody in for days.
const MAX_COST: u32 = 17;
/// What a stranger's password is hashed with, over and over: four milliseconds.
const PART_COST: u32 = 6;
/// The cheapest: bcrypt has none below.
const MIN_COST: u32 = 4;

impl Hash {
    fn parse(text: &str) -> Result<Self, &'static str> {
        // `htpasswd` writes nothing behind a hash, but people write notes there, and rest-server takes them.
        let text = text.split_ascii_whitespace().next().unwrap_or_default();
        if let Some(encoded) = text.strip_prefix("{SHA}") {
            let digest = STANDARD.decode(encoded).ok().and_then(|bytes| bytes.try_into().ok());
            return digest.map(Self::Sha1).ok_or("the {SHA} hash is malformed");
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|scheme| text.starts_with(scheme)) {
            // What follows the sixty characters of a hash does not count in rest-server either.
            let text = text.get(..BCRYPT_CHARS).unwrap_or(text);
            let Ok(parts) = text.parse::<bcrypt::HashParts>() else {
                return Err("the bcrypt hash is malformed");
            };
            if !(MIN_COST..=MAX_COST).contains(&parts.get_cost()) {
                return Err(
                    "a bcrypt cost is 4 to 17 (above, a login would take minutes): `packhouse user passwd` makes another hash",
                );
            }
            return Ok(Self::Bcrypt(text.to_owned()));
        }
        let other = ["$apr1$", "$1$", "$5$", "$6$"].iter().any(|scheme| text.starts_with(scheme));
        Err(if other {
            "hashes of MD5 and SHA-crypt ($apr1$, $1$, $5$, $6$) are not taken: `packhouse user passwd` or `htpasswd -B` makes one of bcrypt"
        } else {
            "the hash is neither bcrypt nor {SHA}: `packhouse user passwd` or `htpasswd -B` makes one that is"
        })
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

    fn parse(text: &[u8]) -> (Htpasswd, Vec<String>) {
        Htpasswd::parse(text).unwrap_or_else(|line| panic!("line {line}"))
    }

    #[test]
    fn schemes_and_problems() {
        let hash = bcrypt::hash_with_result("pw", 4).expect("a hash");
        let text = format!(
            "# staff\n\na:{}\nb:{}\nc:{}\nsha:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\nmd5:$apr1$x$y\nold:{{SHA}}x\nbad:$2y$99$x\nsha512:$6$saltsalt$x\n",
            hash.format_for_version(bcrypt::Version::TwoA),
            hash.format_for_version(bcrypt::Version::TwoB),
            hash.format_for_version(bcrypt::Version::TwoY),
        );
        let (users, problems) = parse(text.as_bytes());
        assert_eq!(users.len(), 4);
        for user in ["a", "b", "c"] {
            assert!(users.verify(user, b"pw") && !users.verify(user, b"pW"), "{user}");
        }
        assert!(users.verify("sha", b"secret") && !users.verify("sha", b"Secret"));
        assert!(!users.verify("md5", b"x") && !users.verify("", b""));
        let lines: Vec<_> =
            problems.iter().map(|problem| problem.split([':', ',']).next().unwrap_or_default()).collect();
        assert_eq!(lines, ["line 7", "line 8", "line 9", "line 10"]);
    }

    /// What rest-server 0.14 makes of the same files was tried: see "Coming from rest-server" in the README.
    #[test]
    fn a_bad_line_costs_that_line_alone() {
        let hash = bcrypt::hash("pw", 4).expect("a hash");
        let can = |line: &[u8], user: &str| {
            let text = [line, b"\nbob:", hash.as_bytes(), b"\n"].concat();
            let (users, problems) = parse(&text);
            assert!(users.verify("bob", b"pw"), "{}", text.escape_ascii());
            (users.verify(user, b"pw"), problems.len())
        };
        for (line, wanted) in [
            (format!("alice:{hash}"), (true, 0)),
            (format!("alice:{hash}:third"), (true, 0)),
            (format!("alice:{hash} # note"), (true, 0)),
            (format!("\"alice\":\"{hash}\""), (true, 0)),
            (format!("\"alice\":{hash}:\"a third"), (true, 0)),
            (format!("  alice:{hash}\r"), (true, 0)),
            (format!("\"alice:{hash}"), (false, 1)),
            (format!("alice\":{hash}"), (false, 1)),
            (format!("\"alice\"x:{hash}"), (false, 1)),
            (format!(":{hash}"), (false, 1)),
            ("alice".into(), (false, 1)),
            ("alice:plain".into(), (false, 1)),
            ("alice:".into(), (false, 1)),
            ("\u{1}:x".into(), (false, 1)),
        ] {
            assert_eq!(can(line.as_bytes(), "alice"), wanted, "{line}");
        }
        assert_eq!(can(b"# caf\xe9", ""), (false, 0), "a comment in Latin-1");
        assert_eq!(can(b"caf\xe9:x", ""), (false, 1));
        for nobody in [&b""[..], b"# nothing\n", b"a:$apr1$x$y\n"] {
            assert!(parse(nobody).0.is_empty());
        }
        for other in [&b"nothing\n"[..], b"\x7fELF\n", b"# c\nnothing\nelse\n"] {
            assert!(Htpasswd::parse(other).is_err(), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn a_stranger_costs_as_much_as_the_dearest_entry() {
        let text = format!("a:{}\n", bcrypt::hash("pw", 6).expect("a hash"));
        let (users, _) = parse(text.as_bytes());
        assert_eq!(users.highest, 6);
        let Hash::Bcrypt(stand_in) = Hash::stand_in(6) else { panic!("not bcrypt") };
        assert_eq!(cost(&stand_in), 6);
        assert_eq!(bcrypt::verify("pw", &stand_in).ok(), Some(false));
        assert!(!users.verify("a", b"wrong") && !users.verify("b", b"pw"));
    }
}
