//! What is there at least and at most. Pure.

use std::collections::HashMap;

use thiserror::Error;

use crate::types::RepoPath;

/// How much may be stored, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub total: Option<u64>,
    /// Below a first folder: a user's.
    pub users: HashMap<Vec<u8>, u64>,
    /// In single repositories.
    pub repos: HashMap<RepoPath, u64>,
}

impl Limits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.total.is_none() && self.users.is_empty() && self.repos.is_empty()
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
    "the quota of {of} is used up: {held} of {limit} bytes are stored or reserved, and {asked} more do not fit"
)]
pub struct Shortage {
    /// Whose quota.
    pub of: String,
    /// The quota, in bytes.
    pub limit: u64,
    /// Bytes that are stored at least, or reserved.
    pub held: u64,
    /// Bytes that were asked for.
    pub asked: u64,
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

    pub(super) fn admit(self, bytes: u64, limit: Option<u64>) -> Admission {
        let Some(limit) = limit else { return Admission::Granted };
        let fits = |held: u64| held.checked_add(bytes).is_some_and(|sum| sum <= limit);
        match (self.upper.is_some_and(fits), fits(self.lower)) {
            (true, _) => Admission::Granted,
            (false, true) => Admission::Counting,
            (false, false) => Admission::Full,
        }
    }
}

/// The sum of the bounds of many accounts, kept up to date so that an upload costs the same with ten thousand
/// repositories.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) lower: u64,
    /// Of those whose upper bound is known.
    pub(super) upper: u64,
    /// How many are not.
    pub(super) unknown: usize,
}

impl Sum {
    pub(super) fn add(&mut self, bounds: Bounds) {
        self.lower = self.lower.saturating_add(bounds.lower);
        match bounds.upper {
            Some(upper) => self.upper = self.upper.saturating_add(upper),
            None => self.unknown += 1,
        }
    }

    pub(super) fn take(&mut self, bounds: Bounds) {
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
        self.lower == 0 && self.upper == 0 && self.unknown == 0
    }

    pub(super) fn bounds(self) -> Bounds {
        Bounds { lower: self.lower, upper: (self.unknown == 0).then_some(self.upper) }
    }
}
