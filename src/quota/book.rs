//! The arithmetic of quotas: bounds of what is stored, reservations, leases and counts. Pure: no clock, no file.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};

use crate::quota::bounds::{Admission, Bounds, Limits, Shortage, Sum, with_lease};
use crate::quota::place::Place;
use crate::types::RepoPath;

/// Room for the locks of a repository, beside its quota. A lock has about 200 bytes.
const LOCK_ROOM: u64 = 16 << 20;

/// What is known of one repository.
struct Account {
    stored: Bounds,
    reserved: u64,
    /// Bytes of locks, as far as they are known, and reserved ones.
    locks: u64,
    /// The upper bound that the journal has.
    leased: u64,
    /// What it is about to have.
    leasing: Option<u64>,
    /// Changes under way.
    changing: HashMap<Place, u32>,
    counting: Option<Box<Count>>,
    /// Nothing is known from before this process, or not exactly.
    uncounted: bool,
}

impl Account {
    fn new(stored: Bounds) -> Self {
        Self {
            stored,
            reserved: 0,
            locks: 0,
            leased: 0,
            leasing: None,
            changing: HashMap::new(),
            counting: None,
            uncounted: stored.upper != Some(stored.lower),
        }
    }

    /// Whether it says no more than an account that there is not.
    fn is_idle(&self, unseen: Bounds) -> bool {
        self.stored == unseen
            && self.reserved == 0
            && self.locks == 0
            && self.leased == 0
            && self.leasing.is_none()
            && self.changing.is_empty()
            && self.counting.is_none()
    }

    /// Where reservations for objects of a place are kept: those of locks with the locks.
    const fn reserved_at(&mut self, place: Place) -> &mut u64 {
        if place.is_locks() { &mut self.locks } else { &mut self.reserved }
    }

    /// What a count under way has found in a place.
    fn counted_at(&mut self, place: Place) -> Option<&mut u64> {
        self.counting.as_mut()?.known.get_mut(&place)
    }

    /// With what is reserved.
    fn held(&self) -> Bounds {
        let mut held = self.stored;
        held.add(self.reserved);
        held
    }
}

/// A count under way.
#[derive(Default)]
struct Count {
    /// How many changes have begun in each place since the count did.
    begun: HashMap<Place, u64>,
    known: HashMap<Place, u64>,
}

/// The state of a place when its count began.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    place: Place,
    begun: u64,
}

/// What is stored, for people and metrics.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Bytes at most, or none while they are not known, and the limit: in all.
    pub total: (Option<u64>, Option<u64>),
    /// Of users with a quota.
    pub users: Vec<(String, Option<u64>, u64)>,
    /// Of repositories with a quota.
    pub repos: Vec<(RepoPath, Option<u64>, u64)>,
}

/// The sums of all accounts.
#[derive(Default)]
struct Sums {
    /// By first folder.
    users: HashMap<Vec<u8>, Sum>,
    total: Sum,
}

impl Sums {
    fn add(&mut self, repo: &RepoPath, held: Bounds) {
        self.users.entry(first_folder(repo)).or_default().add(held);
        self.total.add(held);
    }

    fn take(&mut self, repo: &RepoPath, held: Bounds) {
        if let hash_map::Entry::Occupied(mut user) = self.users.entry(first_folder(repo)) {
            user.get_mut().take(held);
            if user.get().is_zero() {
                user.remove();
            }
        }
        self.total.take(held);
    }

    fn of_user(&self, folder: &[u8]) -> Bounds {
        self.users.get(folder).copied().unwrap_or_default().bounds()
    }
}

/// All accounts.
pub(super) struct Book {
    limits: Limits,
    repos: BTreeMap<RepoPath, Account>,
    sums: Sums,
    /// Every repository that there is has an account, or holds nothing.
    complete: bool,
    /// What is admitted is written down before.
    journaling: bool,
}

impl Book {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, repos: BTreeMap::new(), sums: Sums::default(), complete: false, journaling: false }
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes what the journal says: exact sizes after a clean stop, else upper bounds.
    pub(super) fn restore(&mut self, entries: Vec<(RepoPath, u64)>, clean: bool) {
        for (repo, upper) in entries {
            let lower = if clean { upper } else { 0 };
            // What was not known when it was written.
            let upper = Some(upper).filter(|upper| *upper != u64::MAX);
            let mut account = Account::new(Bounds { lower, upper });
            account.uncounted = true;
            self.sums.add(&repo, account.held());
            self.repos.insert(repo, account);
        }
        self.complete = true;
    }

    /// What is known of a repository without an account.
    const fn unseen(&self) -> Bounds {
        if self.complete { Bounds::ZERO } else { Bounds::UNKNOWN }
    }

    /// The account of a repository; a new one if it has none.
    fn account(&mut self, repo: &RepoPath) -> &mut Account {
        let unseen = self.unseen();
        match self.repos.entry(repo.clone()) {
            Entry::Occupied(account) => account.into_mut(),
            Entry::Vacant(slot) => {
                self.sums.add(repo, unseen);
                slot.insert(Account::new(unseen))
            }
        }
    }

    /// Changes what an account holds, and the sums with it.
    fn change(&mut self, repo: &RepoPath, change: impl FnOnce(&mut Account)) {
        let account = self.account(repo);
        let before = account.held();
        change(account);
        let after = account.held();
        self.sums.take(repo, before);
        self.sums.add(repo, after);
    }

    /// Whether there is room.
    pub(super) fn verdict(&self, repo: &RepoPath, place: Place, bytes: u64) -> Admission {
        if place.is_locks() {
            let held = self.repos.get(repo).map_or(0, |account| account.locks);
            let is_full = !self.limits.is_empty() && held.saturating_add(bytes) > LOCK_ROOM;
            return if is_full { Admission::Full } else { Admission::Granted };
        }
        let answers = self.constraints(repo).map(|(held, limit)| held.admit(bytes, limit));
        match answers {
            answers if answers.contains(&Admission::Full) => Admission::Full,
            answers if answers.contains(&Admission::Counting) => Admission::Counting,
            _ => Admission::Granted,
        }
    }

    /// Reserves room if there is some.
    pub(super) fn admit(&mut self, repo: &RepoPath, place: Place, bytes: u64) -> Admission {
        let verdict = self.verdict(repo, place, bytes);
        if verdict == Admission::Granted && place.is_locks() {
            self.reserve(repo, place, bytes);
        } else if verdict == Admission::Granted {
            let (upper, leased) = self.repos.get(repo).map_or((Some(0), 0), |a| (a.held().upper, a.leased));
            // Also while there is no limit: one may come back, and the journal must not have fallen behind.
            if self.journaling && upper.is_none_or(|upper| upper.saturating_add(bytes) > leased) {
                return Admission::NeedsLease;
            }
            self.reserve(repo, place, bytes);
        }
        verdict
    }

    /// Which quota an upload that is not admitted does not fit into: the narrowest.
    pub(super) fn shortage(&self, repo: &RepoPath, place: Place, asked: u64) -> Shortage {
        if place.is_locks() {
            let held = self.repos.get(repo).map_or(0, |account| account.locks);
            return Shortage { of: format!("the locks of {repo}"), limit: LOCK_ROOM, held, asked };
        }
        let user = String::from_utf8_lossy(&first_folder(repo)).escape_debug().to_string();
        let names = [repo.to_string(), format!("the user {user}"), "all repositories together".into()];
        let full = self.constraints(repo).into_iter().zip(names).find_map(|((held, limit), of)| {
            let is_full = held.admit(asked, limit) == Admission::Full;
            is_full.then(|| Shortage { of, limit: limit.unwrap_or(0), held: held.lower, asked })
        });
        full.unwrap_or_else(|| Shortage { of: repo.to_string(), limit: 0, held: 0, asked })
    }

    /// What is held where a limit may be, and the limits.
    fn constraints(&self, repo: &RepoPath) -> [(Bounds, Option<u64>); 3] {
        let folder = first_folder(repo);
        let known = |mut held: Bounds| {
            held.upper = held.upper.filter(|_| self.complete);
            held
        };
        let of_repo = self.repos.get(repo).map_or(self.unseen(), Account::held);
        let of_user = known(self.sums.of_user(&folder));
        [
            (of_repo, self.limits.repos.get(repo).copied()),
            (of_user, self.limits.users.get(&folder).copied()),
            (known(self.sums.total.bounds()), self.limits.total),
        ]
    }

    fn reserve(&mut self, repo: &RepoPath, place: Place, bytes: u64) {
        self.change(repo, |account| {
            let reserved = account.reserved_at(place);
            *reserved = reserved.saturating_add(bytes);
        });
    }

    pub(super) fn release(&mut self, repo: &RepoPath, place: Place, bytes: u64) {
        self.change(repo, |account| {
            let reserved = account.reserved_at(place);
            *reserved = reserved.saturating_sub(bytes);
        });
        self.forget_if_idle(repo);
    }

    /// A reservation became an object of `bytes` bytes.
    pub(super) fn publish(&mut self, repo: &RepoPath, place: Place, reserved: u64, bytes: u64) {
        self.release(repo, place, reserved);
        self.change(repo, |account| {
            if place.is_locks() {
                account.locks = account.locks.saturating_add(bytes);
            } else {
                account.stored.add(bytes);
            }
            if let Some(known) = account.counted_at(place) {
                *known = known.saturating_add(bytes);
            }
        });
    }

    pub(super) fn remove(&mut self, repo: &RepoPath, place: Place, bytes: u64) {
        self.change(repo, |account| {
            if place.is_locks() {
                account.locks = account.locks.saturating_sub(bytes);
            } else {
                account.stored.take(bytes);
            }
            if let Some(known) = account.counted_at(place) {
                *known = known.saturating_sub(bytes);
            }
        });
    }

    pub(super) fn begin_change(&mut self, repo: &RepoPath, place: Place) {
        let account = self.account(repo);
        *account.changing.entry(place).or_default() += 1;
        if let Some(count) = &mut account.counting {
            *count.begun.entry(place).or_default() += 1;
        }
    }

    /// Lets go of an account that says nothing: whoever asks for repositories that are not there leaves no trace.
    fn forget_if_idle(&mut self, repo: &RepoPath) {
        let unseen = self.unseen();
        if self.repos.get(repo).is_some_and(|account| account.is_idle(unseen)) {
            self.repos.remove(repo);
            self.sums.take(repo, unseen);
        }
    }

    pub(super) fn end_change(&mut self, repo: &RepoPath, place: Place) {
        if let Some(account) = self.repos.get_mut(repo)
            && let Some(under_way) = account.changing.get_mut(&place)
        {
            *under_way -= 1;
            if *under_way == 0 {
                account.changing.remove(&place);
            }
        }
        self.forget_if_idle(repo);
    }

    /// How far the journal is to go for `bytes` more; none if another lease is being written.
    pub(super) fn begin_lease(&mut self, repo: &RepoPath, bytes: u64) -> Option<u64> {
        let account = self.account(repo);
        if account.leasing.is_some() {
            return None;
        }
        account.leasing = Some(with_lease(account.held().upper.unwrap_or(u64::MAX).saturating_add(bytes)));
        account.leasing
    }

    pub(super) fn is_leasing(&self, repo: &RepoPath) -> bool {
        self.repos.get(repo).is_some_and(|account| account.leasing.is_some())
    }

    pub(super) fn end_lease(&mut self, repo: &RepoPath, upto: Option<u64>) {
        if let Some(account) = self.repos.get_mut(repo) {
            account.leasing = None;
            account.leased = upto.unwrap_or(account.leased).max(account.leased);
        }
    }

    /// What a journal of now is to say: bounds with room for a while, and never less than it says already.
    pub(super) fn leases(&self) -> Vec<(RepoPath, u64)> {
        let leased = |account: &Account| {
            let upper = account.held().upper.unwrap_or(u64::MAX);
            // Bounds that come from a journal have their room already.
            (if account.uncounted { upper } else { with_lease(upper) })
                .max(account.leased)
                .max(account.leasing.unwrap_or(0))
        };
        self.repos.iter().map(|(repo, account)| (repo.clone(), leased(account))).collect()
    }

    /// The journal says this now.
    pub(super) fn note_leases(&mut self, leases: &[(RepoPath, u64)]) {
        for (repo, upto) in leases {
            if let Some(account) = self.repos.get_mut(repo) {
                account.leased = account.leased.max(*upto);
            }
        }
    }

    /// The exact sizes of all repositories, if they are known.
    pub(super) fn exact(&self) -> Option<Vec<(RepoPath, u64)>> {
        let exact = |account: &Account| {
            account.stored.upper.filter(|upper| *upper == account.stored.lower && account.reserved == 0)
        };
        let all: Option<Vec<_>> =
            self.repos.iter().map(|(repo, account)| Some((repo.clone(), exact(account)?))).collect();
        all.filter(|_| self.complete && self.journaling)
    }

    pub(super) fn uncounted(&self) -> BTreeSet<RepoPath> {
        self.repos.iter().filter(|(_, a)| a.uncounted).map(|(repo, _)| repo.clone()).collect()
    }

    pub(super) fn known(&self) -> BTreeSet<RepoPath> {
        self.repos.keys().cloned().collect()
    }

    pub(super) fn begin_count(&mut self, repo: &RepoPath) {
        self.account(repo).counting = Some(Box::default());
    }

    pub(super) fn begin_folder(&self, repo: &RepoPath, place: Place) -> Option<Ticket> {
        let account = self.repos.get(repo)?;
        let count = account.counting.as_ref()?;
        let quiet = !account.changing.contains_key(&place);
        quiet.then(|| Ticket { place, begun: count.begun.get(&place).copied().unwrap_or(0) })
    }

    pub(super) fn end_folder(&mut self, repo: &RepoPath, ticket: Ticket, bytes: u64) -> bool {
        let Some(count) = self.repos.get_mut(repo).and_then(|account| account.counting.as_mut()) else {
            return false;
        };
        let same = count.begun.get(&ticket.place).copied().unwrap_or(0) == ticket.begun;
        if same {
            count.known.insert(ticket.place, bytes);
        }
        same
    }

    pub(super) fn end_count(&mut self, repo: &RepoPath) {
        self.change(repo, |account| {
            let Some(count) = account.counting.take() else { return };
            if Place::all().any(|place| !place.is_locks() && !count.known.contains_key(&place)) {
                return;
            }
            let sum = |locks: bool| {
                let parts = count.known.iter().filter(|(place, _)| place.is_locks() == locks);
                parts.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes))
            };
            // Reserved locks are not told apart: they are too small to matter.
            account.locks = account.locks.max(sum(true));
            account.stored = Bounds { lower: sum(false), upper: Some(sum(false)) };
            account.uncounted = false;
        });
        self.forget_if_idle(repo);
    }

    /// Whether all that was found is counted.
    pub(super) const fn is_counted(&self) -> bool {
        self.sums.total.is_known()
    }

    /// From now on every admission is written down before.
    pub(super) const fn set_journaling(&mut self, on: bool) {
        self.journaling = on;
    }

    /// Every repository has an account.
    pub(super) const fn set_complete(&mut self) {
        self.complete = true;
    }

    pub(super) fn usage(&self) -> Usage {
        let upper = |held: Bounds| held.upper.filter(|_| self.complete);
        let users = self.limits.users.iter().map(|(folder, limit)| {
            (folder.escape_ascii().to_string(), upper(self.sums.of_user(folder)), *limit)
        });
        let repos = self.limits.repos.iter().map(|(repo, limit)| {
            let held = self.repos.get(repo).map_or(Bounds::ZERO, Account::held);
            (repo.clone(), upper(held), *limit)
        });
        Usage {
            total: (upper(self.sums.total.bounds()), self.limits.total),
            users: users.collect(),
            repos: repos.collect(),
        }
    }
}

fn first_folder(repo: &RepoPath) -> Vec<u8> {
    repo.folders().first().map(|folder| folder.as_bytes().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_forgotten() {
        let mut book = Book::new(Limits::default());
        let repo: RepoPath = "/a/b/".parse().expect("a path");
        let place = Place::all().next().expect("one");
        for complete in [false, true] {
            book.complete = complete;
            book.begin_change(&repo, place);
            assert_eq!((book.repos.len(), book.sums.users.len()), (1, 1));
            book.end_change(&repo, place);
            assert_eq!((book.repos.len(), book.sums.users.len()), (0, 0));
        }
    }
}
