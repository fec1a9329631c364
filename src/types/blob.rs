//! Objects of a repository: the `config` file and the five types of blob files.
//!
//! Source of the rules: restic's REST backend reference, and the repository layout in its design document.

use std::fmt;

use data_encoding::HEXLOWER;

use crate::types::RepoPath;

/// The five types of files that restic names by the SHA-256 of their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlobType {
    /// Packs, in 256 shard folders.
    Data,
    /// Encrypted key files.
    Keys,
    /// Lock files.
    Locks,
    /// Snapshot files.
    Snapshots,
    /// Index files.
    Index,
}

impl BlobType {
    /// All five, in the order in which a new repository's folders are made.
    pub const ALL: [Self; 5] = [Self::Data, Self::Index, Self::Keys, Self::Locks, Self::Snapshots];

    /// The name in a URL and on disk.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Keys => "keys",
            Self::Locks => "locks",
            Self::Snapshots => "snapshots",
            Self::Index => "index",
        }
    }

    /// The type that is called `name`, byte for byte (`KEYS` is no type).
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str().as_bytes() == name)
    }
}

impl fmt::Display for BlobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A blob's name: the SHA-256 of its content, written as 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The id with this digest.
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Parses exactly 64 lower-case hex digits; anything else is no id.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let mut digest = [0; 32];
        if name.len() != 64 {
            return None;
        }
        HEXLOWER.decode_mut(name, &mut digest).ok()?;
        Some(Self(digest))
    }

    /// The digest.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without a heap allocation.
    pub fn hex(&self) -> HexId {
        let mut text = [0; 64];
        HEXLOWER.encode_mut(&self.0, &mut text);
        HexId(text)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

/// The 64 hex digits of a [`BlobId`], on the stack.
#[derive(Clone, Copy)]
pub struct HexId([u8; 64]);

impl HexId {
    /// The digits as text.
    pub fn as_str(&self) -> &str {
        // The encoder writes ASCII only, so the fallback is never taken.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What a repository holds under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// The repository's `config` file, the only one not named by its hash.
    Config,
    /// A file named by its hash.
    Blob(BlobType, BlobId),
}

impl Object {
    /// The SHA-256 that the content must have; none for `config`.
    pub const fn digest(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Config => None,
            Self::Blob(_, id) => Some(id.digest()),
        }
    }

    /// Whether it is a lock.
    pub const fn is_lock(&self) -> bool {
        matches!(self, Self::Blob(BlobType::Locks, _))
    }
}

/// One object of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// The repository.
    pub repo: RepoPath,
    /// The object in it.
    pub object: Object,
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object {
            Object::Config => write!(f, "{}config", self.repo),
            Object::Blob(kind, id) => write!(f, "{}{kind}/{id}", self.repo),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_lower_case_hex_digits() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let id = BlobId::parse(hex.as_bytes()).expect("a valid id");
        assert_eq!(id.to_string(), hex);
        for bad in [&hex[1..], &format!("{hex}0"), &hex.to_uppercase(), "foobar", "", &hex.replace('e', "g")]
        {
            assert_eq!(BlobId::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn type_names_are_exact() {
        for kind in BlobType::ALL {
            assert_eq!(BlobType::parse(kind.as_str().as_bytes()), Some(kind));
        }
        for bad in ["KEYS", "key", "config", "data ", ""] {
            assert_eq!(BlobType::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
