//! Credentials that were checked: right ones in a table that is read without a lock, and a few wrong ones.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::{Duration, Instant};

use crate::auth::Options;
use crate::io::sync::atomic::{AtomicU64, Ordering};
use crate::io::sync::{ArcSwap, Mutex};
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

/// What is known of credentials.
#[derive(Default)]
pub(super) struct Remembered {
    right: ArcSwap<HashMap<Mac, Arc<Login>>>,
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
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= MAX_WRONG {
            wrong.retain(|_, until| *until > now);
        }
        if wrong.len() < MAX_WRONG {
            wrong.insert(mac, now + 1000 * WRONG_FOR.as_secs());
        }
    }

    /// Whether credentials were wrong a moment ago.
    pub(super) fn is_wrong(&self, mac: &Mac) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.get(mac).is_some_and(|until| *until > now())
    }

    /// The logins of those users whom `keep` accepts.
    pub(super) fn keep(&self, keep: impl Fn(&UserName) -> bool) -> Self {
        let right = self.right.load();
        let kept = right.iter().filter(|(_, login)| keep(&login.user));
        let kept: HashMap<_, _> = kept.map(|(mac, login)| (*mac, Arc::clone(login))).collect();
        Self { right: ArcSwap::from_pointee(kept), wrong: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.right.load().len()
    }
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
