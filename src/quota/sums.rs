//! What all accounts hold together, and those of each user.

use std::collections::{HashMap, hash_map};

use crate::quota::bounds::{Held, Sum};
use crate::types::RepoPath;

/// The sums of all accounts.
#[derive(Default)]
pub(super) struct Sums {
    /// By first folder.
    pub(super) users: HashMap<Vec<u8>, Sum>,
    pub(super) total: Sum,
}

impl Sums {
    pub(super) fn add(&mut self, repo: &RepoPath, held: Held) {
        self.users.entry(first_folder(repo)).or_default().add(held);
        self.total.add(held);
    }

    pub(super) fn take(&mut self, repo: &RepoPath, held: Held) {
        if let hash_map::Entry::Occupied(mut user) = self.users.entry(first_folder(repo)) {
            user.get_mut().take(held);
            if user.get().is_zero() {
                user.remove();
            }
        }
        self.total.take(held);
    }

    pub(super) fn of_user(&self, folder: &[u8]) -> Sum {
        self.users.get(folder).copied().unwrap_or_default()
    }
}

/// The folder in which a repository lies: a user's.
pub(super) fn first_folder(repo: &RepoPath) -> Vec<u8> {
    repo.folders().first().map(|folder| folder.as_bytes().to_vec()).unwrap_or_default()
}
