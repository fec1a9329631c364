//! The arithmetic of quotas: bounds of what is stored, reservations, leases and counts. Pure: no clock, no file.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::quota::bounds::{
    Admission, Amount, Bounds, Constraint, Held, LEAST_LOCK_ROOM, Limits, Shortage, with_lease,
};
use crate::quota::place::Place;
use crate::quota::sums::{Sums, first_folder};
use crate::types::RepoPath;

/// What is known of one repository.
struct Account {
    stored: Bounds,
    /// Stored at least.
    objects: u64,
    reserved: Amount,
    /// Bytes of locks among these, as far as they are known.
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
            objects: 0,
            reserved: Amount::default(),
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
            && self.objects == 0
            && self.reserved == Amount::default()
            && self.leasing.is_none()
            && self.changing.is_empty()
            && self.counting.is_none()
    }

    const fn take_locks(&mut self, place: Place, amount: Amount) {
        if place.is_locks() {
            self.locks = self.locks.saturating_sub(amount.bytes);
        }
    }

    /// What a count under way has found in a place.
    fn counted_at(&mut self, place: Place) -> Option<&mut Amount> {
        self.counting.as_mut()?.known.get_mut(&place)
    }

    /// With what is reserved.
    fn held(&self) -> Held {
        let mut bytes = self.stored;
        bytes.add(self.reserved.bytes);
        Held { bytes, objects: self.objects.saturating_add(self.reserved.objects) }
    }
}

/// A count under way.
#[derive(Default)]
struct Count {
    /// How many changes have begun in each place since the count did.
    begun: HashMap<Place, u64>,
    known: HashMap<Place, Amount>,
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
    /// Objects, at least those that are there, and the limit: of users with one.
    pub objects: Vec<(String, u64, u64)>,
    /// Of repositories with a quota.
    pub repos: Vec<(RepoPath, Option<u64>, u64)>,
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
    pub(super) fn restore(&mut self, entries: Vec<(RepoPath, Amount)>, clean: bool) {
        for (repo, Amount { bytes: upper, objects }) in entries {
            let lower = if clean { upper } else { 0 };
            // What was not known when it was written.
            let upper = Some(upper).filter(|upper| *upper != u64::MAX);
            let mut account = Account::new(Bounds { lower, upper });
            account.uncounted = true;
            account.objects = if clean { objects } else { 0 };
            self.sums.add(&repo, account.held());
            self.repos.insert(repo, account);
        }
        self.complete = true;
    }

    /// What is known of a repository without an account.
    const fn unseen(&self) -> Bounds {
        if self.complete { Bounds::ZERO } else { Bounds::UNKNOWN }
    }

    /// The same, as what is held.
    const fn unseen_held(&self) -> Held {
        Held { bytes: self.unseen(), objects: 0 }
    }

    /// The account of a repository; a new one if it has none.
    fn account(&mut self, repo: &RepoPath) -> &mut Account {
        let unseen = self.unseen_held();
        match self.repos.entry(repo.clone()) {
            Entry::Occupied(account) => account.into_mut(),
            Entry::Vacant(slot) => {
                self.sums.add(repo, unseen);
                slot.insert(Account::new(unseen.bytes))
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
    pub(super) fn verdict(&self, repo: &RepoPath, place: Place, asked: Amount) -> Admission {
        let answers = self.constraints(repo, place, asked).map(|constraint| constraint.verdict());
        match answers {
            answers if answers.contains(&Admission::Full) => Admission::Full,
            // Without a lock nothing can be freed: it is refused if it does not fit for certain.
            answers if answers.contains(&Admission::Counting) && !place.is_locks() => Admission::Counting,
            _ => Admission::Granted,
        }
    }

    /// Reserves room if there is some. What is `unwritten` needs no lease: its line could not be written.
    pub(super) fn admit(
        &mut self,
        repo: &RepoPath,
        place: Place,
        asked: Amount,
        unwritten: bool,
    ) -> Admission {
        let verdict = self.verdict(repo, place, asked);
        if verdict == Admission::Granted {
            let (upper, leased) =
                self.repos.get(repo).map_or((Some(0), 0), |a| (a.held().bytes.upper, a.leased));
            // Also while there is no limit: one may come back, and the journal must not have fallen behind.
            if self.journaling
                && !unwritten
                && upper.is_none_or(|upper| upper.saturating_add(asked.bytes) > leased)
            {
                return Admission::NeedsLease;
            }
            self.change(repo, |account| {
                account.reserved = account.reserved.plus(asked);
                account.locks += if place.is_locks() { asked.bytes } else { 0 };
            });
        }
        verdict
    }

    /// Which quota an upload that is not admitted does not fit into: the narrowest.
    pub(super) fn shortage(&self, repo: &RepoPath, place: Place, asked: Amount) -> Shortage {
        let user = format!("the user {}", String::from_utf8_lossy(&first_folder(repo)).escape_debug());
        let names = [repo.to_string(), user.clone(), "all repositories together".into(), user];
        let full =
            self.constraints(repo, place, asked).into_iter().zip(names).find_map(|(constraint, of)| {
                let is_full = constraint.verdict() == Admission::Full;
                let Constraint { held, limit, asked, unit } = constraint;
                is_full.then(|| Shortage { of, limit: limit.unwrap_or(0), held: held.lower, asked, unit })
            });
        full.unwrap_or_else(|| Shortage { of: repo.to_string(), limit: 0, held: 0, asked: 0, unit: "bytes" })
    }

    /// What is held where a limit may be, and the limits.
    fn constraints(&self, repo: &RepoPath, place: Place, asked: Amount) -> [Constraint; 4] {
        let folder = first_folder(repo);
        let known = |mut held: Bounds| {
            held.upper = held.upper.filter(|_| self.complete);
            held
        };
        let of_repo = self.repos.get(repo).map_or(self.unseen_held(), Account::held).bytes;
        let of_user = self.sums.of_user(&folder);
        let limits = self.limits.users.get(&folder).copied().unwrap_or_default();
        let is_lock = place.is_locks();
        // What others store, locks included, keeps nobody from a few locks of a repository.
        let locks = self.repos.get(repo).map_or(0, |account| account.locks);
        let of_all = self.limits.total.filter(|_| !is_lock || locks + asked.bytes > LEAST_LOCK_ROOM);
        let bytes = |held, limit| Constraint::of_bytes(held, limit, asked.bytes, is_lock);
        [
            bytes(of_repo, self.limits.repos.get(repo).copied()),
            bytes(known(of_user.bounds()), limits.bytes),
            bytes(known(self.sums.total.bounds()), of_all),
            Constraint::of_objects(of_user.objects, limits.objects, asked.objects, is_lock),
        ]
    }

    pub(super) fn release(&mut self, repo: &RepoPath, place: Place, amount: Amount) {
        self.change(repo, |account| {
            account.reserved = account.reserved.minus(amount);
            account.take_locks(place, amount);
        });
        self.forget_if_idle(repo);
    }

    /// A reservation became something stored.
    pub(super) fn publish(&mut self, repo: &RepoPath, place: Place, reserved: Amount, stored: Amount) {
        self.release(repo, place, reserved);
        self.change(repo, |account| {
            account.stored.add(stored.bytes);
            account.objects = account.objects.saturating_add(stored.objects);
            account.locks += if place.is_locks() { stored.bytes } else { 0 };
            if let Some(known) = account.counted_at(place) {
                *known = known.plus(stored);
            }
        });
    }

    pub(super) fn remove(&mut self, repo: &RepoPath, place: Place, amount: Amount) {
        self.change(repo, |account| {
            account.stored.take(amount.bytes);
            account.objects = account.objects.saturating_sub(amount.objects);
            account.take_locks(place, amount);
            if let Some(known) = account.counted_at(place) {
                *known = known.minus(amount);
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

    pub(super) fn knows(&self, repo: &RepoPath) -> bool {
        self.repos.contains_key(repo)
    }

    /// Lets go of an account that says nothing: whoever asks for repositories that are not there leaves no trace.
    fn forget_if_idle(&mut self, repo: &RepoPath) {
        let unseen = self.unseen_held();
        if self.repos.get(repo).is_some_and(|account| account.is_idle(unseen.bytes)) {
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
        account.leasing =
            Some(with_lease(account.held().bytes.upper.unwrap_or(u64::MAX).saturating_add(bytes)));
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
        // With a line, what it was asked for comes next.
        if upto.is_none() {
            self.forget_if_idle(repo);
        }
    }

    /// What a journal of now is to say: bounds with room for a while, and never less than it says already.
    pub(super) fn leases(&self) -> Vec<(RepoPath, Amount)> {
        let leased = |account: &Account| {
            let upper = account.held().bytes.upper.unwrap_or(u64::MAX);
            // Bounds that come from a journal have their room already.
            let bytes = (if account.uncounted { upper } else { with_lease(upper) })
                .max(account.leased)
                .max(account.leasing.unwrap_or(0));
            Amount { bytes, objects: account.objects }
        };
        self.repos.iter().map(|(repo, account)| (repo.clone(), leased(account))).collect()
    }

    /// The journal says this now.
    pub(super) fn note_leases(&mut self, leases: &[(RepoPath, Amount)]) {
        for (repo, upto) in leases {
            if let Some(account) = self.repos.get_mut(repo) {
                account.leased = account.leased.max(upto.bytes);
            }
        }
    }

    /// The exact sizes of all repositories, if they are known.
    pub(super) fn exact(&self) -> Option<Vec<(RepoPath, Amount)>> {
        let exact = |account: &Account| {
            let Bounds { lower, upper } = account.stored;
            let is_exact = upper == Some(lower) && account.reserved == Amount::default();
            is_exact.then_some(Amount { bytes: lower, objects: account.objects })
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

    pub(super) fn end_folder(&mut self, repo: &RepoPath, ticket: Ticket, found: Amount) -> bool {
        let Some(count) = self.repos.get_mut(repo).and_then(|account| account.counting.as_mut()) else {
            return false;
        };
        let same = count.begun.get(&ticket.place).copied().unwrap_or(0) == ticket.begun;
        if same {
            count.known.insert(ticket.place, found);
        }
        same
    }

    pub(super) fn end_count(&mut self, repo: &RepoPath) {
        self.change(repo, |account| {
            let Some(count) = account.counting.take() else { return };
            if Place::all().any(|place| !count.known.contains_key(&place)) {
                return;
            }
            let Amount { bytes, objects } =
                count.known.values().copied().fold(Amount::default(), Amount::plus);
            account.stored = Bounds { lower: bytes, upper: Some(bytes) };
            account.objects = objects;
            let of_locks = count.known.iter().filter(|(place, _)| place.is_locks());
            account.locks = account.locks.max(of_locks.map(|(_, found)| found.bytes).sum());
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
        let of_users = || {
            let users = self.limits.users.iter();
            users.map(|(folder, limits)| {
                (folder.escape_ascii().to_string(), self.sums.of_user(folder), limits)
            })
        };
        let repos = self.limits.repos.iter().map(|(repo, limit)| {
            let held = self.repos.get(repo).map_or(Bounds::ZERO, |account| account.held().bytes);
            (repo.clone(), upper(held), *limit)
        });
        Usage {
            total: (upper(self.sums.total.bounds()), self.limits.total),
            users: of_users()
                .filter_map(|(user, held, limits)| Some((user, upper(held.bounds()), limits.bytes?)))
                .collect(),
            objects: of_users()
                .filter_map(|(user, held, limits)| Some((user, held.objects, limits.objects?)))
                .collect(),
            repos: repos.collect(),
        }
    }
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
