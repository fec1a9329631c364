//! What holds room in the ledger while something is stored, and keeps a count from what changes meanwhile.

use std::sync::Arc;

use crate::quota::bounds::Amount;
use crate::quota::place::Place;
use crate::quota::{Ledger, QuotaError};
use crate::types::{BLOCK_BYTES, RepoPath};

/// Room for one upload. Dropped before the object is published, it is given back.
pub struct Claim {
    ledger: Arc<Ledger>,
    repo: RepoPath,
    place: Place,
    reserved: Amount,
}

impl Claim {
    /// Of no room as yet.
    pub(super) fn new(ledger: &Arc<Ledger>, repo: &RepoPath, place: Place) -> Self {
        Self { ledger: Arc::clone(ledger), repo: repo.clone(), place, reserved: Amount::default() }
    }

    /// Reserves up to `bytes` in all.
    pub async fn grow_to(&mut self, bytes: u64) -> Result<(), QuotaError> {
        let missing = self.place.amount(bytes).minus(self.reserved);
        if missing.bytes > 0 {
            self.ledger.reserve(&self.repo, self.place, missing).await?;
            self.reserved = self.reserved.plus(missing);
        }
        Ok(())
    }

    /// The same for bytes that have come: up to `ahead` of them, if that fits.
    pub async fn grow_ahead(&mut self, bytes: u64, ahead: u64) -> Result<(), QuotaError> {
        if ahead > bytes && self.grow_to(ahead).await.is_ok() {
            return Ok(());
        }
        self.grow_to(bytes).await
    }

    /// Gives back what it has beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let kept = self.place.amount(bytes);
        self.release(self.reserved.minus(kept));
    }

    /// Needs no room after all.
    pub fn give_back(&mut self) {
        self.release(self.reserved);
    }

    fn release(&mut self, amount: Amount) {
        if amount != Amount::default() {
            self.reserved = self.reserved.minus(amount);
            self.ledger.book().release(&self.repo, self.place, amount);
        }
    }

    /// The object is there, with `bytes` bytes.
    pub fn published(&mut self, bytes: u64) {
        let (reserved, stored) = (std::mem::take(&mut self.reserved), self.place.amount(bytes));
        self.ledger.book().publish(&self.repo, self.place, reserved, stored);
    }

    /// Folders were made, `count` of them.
    pub fn made(&mut self, count: u64) {
        let made = self.place.amount(count * BLOCK_BYTES);
        let rest = self.reserved.minus(made);
        self.ledger.book().publish(&self.repo, self.place, self.reserved.minus(rest), made);
        self.reserved = rest;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// An object is being published or removed.
pub struct Changing {
    ledger: Arc<Ledger>,
    repo: RepoPath,
    place: Place,
}

impl Changing {
    pub(super) fn new(ledger: &Arc<Ledger>, repo: &RepoPath, place: Place) -> Self {
        ledger.book().begin_change(repo, place);
        Self { ledger: Arc::clone(ledger), repo: repo.clone(), place }
    }

    /// The object is gone, with `bytes` bytes.
    pub fn removed(&self, bytes: u64) {
        self.ledger.book().remove(&self.repo, self.place, self.place.amount(bytes));
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.ledger.book().end_change(&self.repo, self.place);
    }
}
