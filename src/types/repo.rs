//! Repository paths: zero or more folder names below the data folder.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use crate::types::BlobType;

/// Longest folder name in bytes: `NAME_MAX` of every Linux file system.
pub const MAX_FOLDER_BYTES: usize = 255;
/// Most folders of a path: what fits into `PATH_MAX` with the longest names.
pub const MAX_FOLDERS: usize = 12;

/// Why a folder name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFolder {
    /// Longer than [`MAX_FOLDER_BYTES`].
    TooLong,
    /// Empty, with a leading dot, or with a NUL, a slash or a control character in it.
    Forbidden,
}

/// One folder of a repository's path: 1–255 bytes, not necessarily UTF-8, none of them NUL, `/` or a control
/// character, no leading dot (so `..`, `.htpasswd` and the state folder can't be named).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FolderName(Box<[u8]>);

impl FolderName {
    /// Checks and takes one decoded path segment.
    pub fn parse(name: &[u8]) -> Result<Self, BadFolder> {
        if name.len() > MAX_FOLDER_BYTES {
            return Err(BadFolder::TooLong);
        }
        let clean = !name.starts_with(b".") && !name.iter().any(|b| b.is_ascii_control() || *b == b'/');
        if name.is_empty() || !clean { Err(BadFolder::Forbidden) } else { Ok(Self(name.into())) }
    }

    /// The name as it stands in the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as a file name.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The words to which restic's protocol gives a meaning of their own in a path.
    pub fn reserved() -> impl Iterator<Item = &'static str> {
        BlobType::ALL.into_iter().map(BlobType::as_str).chain(["config"])
    }

    /// Whether a name is one of these words.
    pub fn is_reserved(name: &[u8]) -> bool {
        Self::reserved().any(|word| word.as_bytes() == name)
    }
}

/// A repository's place below the data folder. No folder at all is the root repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoPath(Vec<FolderName>);

impl RepoPath {
    /// The path made of these folders.
    pub const fn new(folders: Vec<FolderName>) -> Self {
        Self(folders)
    }

    /// The folders, outermost first.
    pub fn folders(&self) -> &[FolderName] {
        &self.0
    }
}

impl FromStr for RepoPath {
    type Err = &'static str;

    /// Takes `/`, `/a/b/` and `a/b`, as an operator writes them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix('/').unwrap_or(text);
        if path.is_empty() {
            return Ok(Self::default());
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let folders = path.split('/').map(|folder| FolderName::parse(folder.as_bytes()));
        folders.collect::<Result<_, _>>().map(Self).map_err(|_bad| "write a path such as /alice/laptop/")
    }
}

impl fmt::Display for RepoPath {
    /// `/`, or `/a/b/`, with every byte outside printable ASCII escaped: safe in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for folder in &self.0 {
            write!(f, "/{}", folder.0.escape_ascii())?;
        }
        f.write_str("/")
    }
}

/// A path with every byte outside printable ASCII escaped: safe in a log line and on a terminal.
pub fn escaped(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names() {
        for good in [&b"r1"[..], b"a b", b"\xff\xfe", b"back\\slash", b"a..b", &[b'x'; 255]] {
            assert!(FolderName::parse(good).is_ok(), "{}", good.escape_ascii());
        }
        for bad in [&b""[..], b".", b"..", b".htpasswd", b"a/b", b"a\nb", b"a\0b", b"\x7f"] {
            assert_eq!(FolderName::parse(bad), Err(BadFolder::Forbidden), "{}", bad.escape_ascii());
        }
        assert_eq!(FolderName::parse(&[b'x'; 256]), Err(BadFolder::TooLong));
    }

    #[test]
    fn a_path_prints_escaped() {
        let path = RepoPath::new(vec![
            FolderName::parse(b"a\xff").expect("valid"),
            FolderName::parse(b"b").expect("valid"),
        ]);
        assert_eq!(path.to_string(), "/a\\xff/b/");
        assert_eq!(RepoPath::default().to_string(), "/");
    }
}
