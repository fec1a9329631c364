//! What is there at least and at most. Pure.

use std::collections::HashMap;

use thiserror::Error;

use crate::types::RepoPath;

/// How much may be stored. Bytes are those on disk: see [`on_disk`](crate::types::on_disk).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub total: Option<u64>,
    /// Below a first folder: a user's.
    pub users: HashMap<Vec<u8>, UserLimits>,
    /// In single repositories.
    pub repos: HashMap<RepoPath, u64>,
}

impl Limits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.total.is_none() && self.users.is_empty() && self.repos.is_empty()
    }
}

/// How much may be stored below a user's folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// Bytes on disk.
    pub bytes: Option<u64>,
    /// Objects, of any type: each takes an inode, of which a disk has only so many.
    pub objects: Option<u64>,
}

/// Bytes and objects that are stored, or are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes on disk.
    pub bytes: u64,
    /// Objects.
    pub objects: u64,
}

impl Amount {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            objects: self.objects.saturating_add(other.objects),
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            objects: self.objects.saturating_sub(other.objects),
        }
    }
}

/// Locks that fit beside a quota that is used up: a prune needs one before it can free anything. A sixteenth of the quota in
/// bytes, within these bounds, and so many in number.
pub(super) const LEAST_LOCK_ROOM: u64 = 256 << 10;
const LARGEST_LOCK_ROOM: u64 = 64 << 20;
const SPARE_LOCKS: u64 = 10_000;

/// A limit, and what it is a limit of.
pub(super) struct Constraint {
    /// How much is held. Of objects only the least is known.
    pub(super) held: Bounds,
    pub(super) limit: Option<u64>,
    pub(super) asked: u64,
    pub(super) unit: &'static str,
}

impl Constraint {
    /// Of bytes on disk.
    pub(super) fn of_bytes(held: Bounds, limit: Option<u64>, asked: u64, for_lock: bool) -> Self {
        let room =
            |limit: u64| if for_lock { (limit / 16).clamp(LEAST_LOCK_ROOM, LARGEST_LOCK_ROOM) } else { 0 };
        let limit = limit.map(|limit| limit.saturating_add(room(limit)));
        Self { held, limit, asked, unit: "bytes on disk" }
    }

    /// Of objects. After a crash their number begins at 0 until a count has ended: until then more is let in than the limit.
    pub(super) fn of_objects(held: u64, limit: Option<u64>, asked: u64, for_lock: bool) -> Self {
        let held = Bounds { lower: held, upper: Some(held) };
        let limit = limit.map(|limit| limit.saturating_add(if for_lock { SPARE_LOCKS } else { 0 }));
        Self { held, limit, asked, unit: "objects" }
    }

    pub(super) fn verdict(&self) -> Admission {
        match self.limit {
            Some(limit) if self.asked > 0 => self.held.admit(self.asked, limit),
            _ => Admission::Granted,
        }
    }
}

/// What one lease adds, in bytes: as much again as the repository holds, within these bounds. So a line of the journal is
/// good for a while, and after a crash no repository may hold more than twice what it does, or so.
const LEAST_LEASE: u64 = 64 << 10;
const LARGEST_LEASE: u64 = 256 << 20;

/// How far a lease goes for a repository that holds `bytes`.
pub(super) fn with_lease(bytes: u64) -> u64 {
    bytes.saturating_add(bytes.clamp(LEAST_LEASE, LARGEST_LEASE))
}

/// What is said to an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted,
    /// Not before more was written down.
    NeedsLease,
    /// It fits by the lower bound only.
    Counting,
    Full,
}

/// Why an upload does not fit: which quota it is, and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the quota of {of} is used up: {held} of {limit} {unit} are stored or reserved, and {asked} more do not fit"
)]
pub struct Shortage {
    /// Whose quota.
    pub of: String,
    /// The quota.
    pub limit: u64,
    /// How much is stored at least, or reserved.
    pub held: u64,
    /// How much was asked for.
    pub asked: u64,
    /// The unit of all three.
    pub unit: &'static str,
}

/// At least, and at most; none if that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) lower: u64,
    pub(super) upper: Option<u64>,
}

impl Bounds {
    pub(super) const ZERO: Self = Self { lower: 0, upper: Some(0) };
    pub(super) const UNKNOWN: Self = Self { lower: 0, upper: None };

    pub(super) fn add(&mut self, bytes: u64) {
        self.lower = self.lower.saturating_add(bytes);
        self.upper = self.upper.map(|upper| upper.saturating_add(bytes));
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.lower = self.lower.saturating_sub(bytes);
        self.upper = self.upper.map(|upper| upper.saturating_sub(bytes));
    }

    pub(super) fn admit(self, bytes: u64, limit: u64) -> Admission {
        let fits = |held: u64| held.checked_add(bytes).is_some_and(|sum| sum <= limit);
        match (self.upper.is_some_and(fits), fits(self.lower)) {
            (true, _) => Admission::Granted,
            (false, true) => Admission::Counting,
            (false, false) => Admission::Full,
        }
    }
}

/// What an account holds, with what is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) bytes: Bounds,
    /// At least.
    pub(super) objects: u64,
}

/// The sum of what many accounts hold, kept up to date so that an upload costs the same with ten thousand
/// repositories.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) lower: u64,
    /// Of those whose upper bound is known.
    pub(super) upper: u64,
    /// How many are not.
    pub(super) unknown: usize,
    pub(super) objects: u64,
}

impl Sum {
    pub(super) fn add(&mut self, Held { bytes: bounds, objects }: Held) {
        self.objects = self.objects.saturating_add(objects);
        self.lower = self.lower.saturating_add(bounds.lower);
        match bounds.upper {
            Some(upper) => self.upper = self.upper.saturating_add(upper),
            None => self.unknown += 1,
        }
    }

    pub(super) fn take(&mut self, Held { bytes: bounds, objects }: Held) {
        self.objects = self.objects.saturating_sub(objects);
        self.lower = self.lower.saturating_sub(bounds.lower);
        match bounds.upper {
            Some(upper) => self.upper = self.upper.saturating_sub(upper),
            None => self.unknown -= 1,
        }
    }

    pub(super) const fn is_known(&self) -> bool {
        self.unknown == 0
    }

    pub(super) const fn is_zero(&self) -> bool {
        self.lower == 0 && self.upper == 0 && self.unknown == 0 && self.objects == 0
    }

    pub(super) fn bounds(self) -> Bounds {
        Bounds { lower: self.lower, upper: (self.unknown == 0).then_some(self.upper) }
    }
}
