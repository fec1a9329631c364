//! Where objects lie, as far as counting goes.

use crate::types::{BlobType, Object};

/// A folder of a repository, as far as counting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
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
        flat.chain([Self::Config]).chain((0..=u8::MAX).map(Self::Shard))
    }

    pub(super) const fn is_locks(self) -> bool {
        matches!(self, Self::Flat(BlobType::Locks))
    }
}
