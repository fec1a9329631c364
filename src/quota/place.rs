//! Where objects lie, as far as counting goes.

use crate::quota::bounds::Amount;
use crate::types::{BlobType, Object, on_disk};

/// A folder of a repository, as far as counting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The folders in a repository, one a type and the shards of `data`: a block each.
    Folders,
    /// `config`, in the repository's own folder.
    Config,
    /// A flat type's folder.
    Flat(BlobType),
    /// A shard of `data`.
    Shard(u8),
}

impl Place {
    /// Where an object lies.
    pub const fn of(object: Object) -> Self {
        match object {
            Object::Config => Self::Config,
            Object::Blob(BlobType::Data, id) => {
                let [first, ..] = *id.digest();
                Self::Shard(first)
            }
            Object::Blob(kind, _) => Self::Flat(kind),
        }
    }

    /// All places of a repository.
    pub fn all() -> impl Iterator<Item = Self> {
        let flat = BlobType::ALL.into_iter().filter(|kind| *kind != BlobType::Data).map(Self::Flat);
        flat.chain([Self::Folders, Self::Config]).chain((0..=u8::MAX).map(Self::Shard))
    }

    /// What is stored here with one object of `bytes` bytes; folders are no objects, and count as they are.
    pub(super) const fn amount(self, bytes: u64) -> Amount {
        match self {
            Self::Folders => Amount { bytes, objects: 0 },
            _ => Amount { bytes: on_disk(bytes), objects: 1 },
        }
    }

    pub(super) const fn is_locks(self) -> bool {
        matches!(self, Self::Flat(BlobType::Locks))
    }
}
