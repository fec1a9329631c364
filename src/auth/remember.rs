//! Credentials that were checked: right ones in a table that is read without a lock, and a few wrong ones.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::{Duration, Instant};

use crate::auth::Options;
use crate::io::sync::atomic::{AtomicU64, Ordering};
use crate::io::sync::{ArcSwap, Mutex, MutexGuard};
use crate::types::UserName;

/// A MAC of user and password.
pub(super) type Mac = [u8; 32];

/// Wrong credentials that are kept, and for how long: a client that tries again and again costs one hash in that time.
const MAX_WRONG: usize = 1024;
const WRONG_FOR: Duration = Duration::from_secs(10);

/// Milliseconds of the monotonic clock since the process began to ask.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
}

struct Login {
    user: UserName,
    since: u64,
    used: AtomicU64,
}

impl Login {
    fn holds(&self, now: u64, options: &Options) -> bool {
        let idle = Duration::from_millis(now.saturating_sub(self.used.load(Ordering::Relaxed)));
        let age = Duration::from_millis(now.saturating_sub(self.since));
        idle <= options.remember && age <= options.remember_max
    }
}

/// How long credentials that were right come first when they are hashed again, after they were last: nightly clients, and
/// those that were switched off for a while.
const FIRST_FOR: Duration = Duration::from_hours(28 * 24);

/// What is known of credentials.
#[derive(Default)]
pub(super) struct Remembered {
    right: ArcSwap<HashMap<Mac, Arc<Login>>>,
    /// Those that were right at all, and when last. One for each user at the most: equal passwords have one form.
    before: Mutex<HashMap<Mac, (UserName, u64)>>,
    /// Until when. Asked only when a hash is due otherwise.
    wrong: Mutex<HashMap<Mac, u64>>,
}

impl Remembered {
    /// The user of credentials that were verified, if that is not too long ago.
    pub(super) fn find(&self, mac: &Mac, options: &Options) -> Option<UserName> {
        let now = now();
        let right = self.right.load();
        let login = right.get(mac).filter(|login| login.holds(now, options))?;
        // Not at every request: the line would wander between cores.
        if login.used.load(Ordering::Relaxed) + 1000 < now {
            login.used.store(now, Ordering::Relaxed);
        }
        Some(login.user.clone())
    }

    /// Remembers right credentials.
    pub(super) fn add(&self, mac: Mac, user: UserName, options: &Options) {
        let now = now();
        lock(&self.before).insert(mac, (user.clone(), now));
        let login = Arc::new(Login { user, since: now, used: AtomicU64::new(now) });
        self.right.rcu(|right| {
            let held = right.iter().filter(|(_, login)| login.holds(now, options));
            let mut right: HashMap<_, _> = held.map(|(mac, login)| (*mac, Arc::clone(login))).collect();
            right.insert(mac, Arc::clone(&login));
            right
        });
    }

    /// Remembers wrong credentials.
    pub(super) fn add_wrong(&self, mac: Mac) {
        let now = now();
        let mut wrong = lock(&self.wrong);
        if wrong.len() >= MAX_WRONG {
            wrong.retain(|_, until| *until > now);
        }
        if wrong.len() < MAX_WRONG {
            wrong.insert(mac, now + 1000 * WRONG_FOR.as_secs());
        }
    }

    /// Whether credentials were wrong a moment ago.
    pub(super) fn is_wrong(&self, mac: &Mac) -> bool {
        lock(&self.wrong).get(mac).is_some_and(|until| *until > now())
    }

    /// Whether credentials were right, be it weeks ago.
    pub(super) fn was_right(&self, mac: &Mac) -> bool {
        let since = |last: u64| Duration::from_millis(now().saturating_sub(last));
        lock(&self.before).get(mac).is_some_and(|(_, last)| since(*last) <= FIRST_FOR)
    }

    /// The logins of those users whom `keep` accepts.
    pub(super) fn keep(&self, keep: impl Fn(&UserName) -> bool) -> Self {
        let right = self.right.load();
        let kept = right.iter().filter(|(_, login)| keep(&login.user));
        let kept: HashMap<_, _> = kept.map(|(mac, login)| (*mac, Arc::clone(login))).collect();
        let before = lock(&self.before)
            .iter()
            .filter(|(_, (user, _))| keep(user))
            .map(|(mac, of)| (*mac, of.clone()))
            .collect();
        Self { right: ArcSwap::from_pointee(kept), before: Mutex::new(before), wrong: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.right.load().len()
    }
}

/// Locks, whatever became of whoever held the lock before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_end_when_they_are_idle_or_old() {
        let options = Options {
            remember: Duration::from_millis(100),
            remember_max: Duration::from_millis(250),
            throttle: false,
        };
        let login = Login { user: UserName::new("a"), since: 1000, used: AtomicU64::new(1000) };
        assert!(login.holds(1100, &options) && !login.holds(1101, &options));
        login.used.store(1240, Ordering::Relaxed);
        assert!(login.holds(1250, &options) && !login.holds(1251, &options));
    }

    #[test]
    fn wrong_ones_are_few() {
        let remembered = Remembered::default();
        for n in 0..2 * MAX_WRONG as u64 {
            let mut mac = [0; 32];
            mac[..8].copy_from_slice(&n.to_ne_bytes());
            remembered.add_wrong(mac);
        }
        assert_eq!(remembered.wrong.lock().expect("not poisoned").len(), MAX_WRONG);
        assert!(remembered.is_wrong(&[0; 32]) && !remembered.is_wrong(&[9; 32]));
    }
}
