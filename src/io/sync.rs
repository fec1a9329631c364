//! What threads meet at. With `--cfg loom` it is loom's, which runs a test in every order that threads can take: see
//! `src/interleavings.rs`.

#[cfg(not(loom))]
pub use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(not(loom))]
pub use arc_swap::ArcSwap;
#[cfg(loom)]
pub use loom::{
    sync::{Arc, Condvar, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(loom)]
pub use model::ArcSwap;

/// What `arc_swap` promises: every operation is one step.
#[cfg(loom)]
#[expect(missing_docs, unnameable_types, reason = "as `arc_swap` has them")]
mod model {
    use std::ops::Deref;
    use std::sync::{Arc, PoisonError};

    use super::{Mutex, MutexGuard};

    pub struct ArcSwap<T>(Mutex<Arc<T>>);

    pub struct Guard<T>(Arc<T>);

    impl<T> Deref for Guard<T> {
        type Target = Arc<T>;

        fn deref(&self) -> &Arc<T> {
            &self.0
        }
    }

    impl<T> ArcSwap<T> {
        pub fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub fn load(&self) -> Guard<T> {
            Guard(self.load_full())
        }

        pub fn load_full(&self) -> Arc<T> {
            Arc::clone(&self.lock())
        }

        pub fn store(&self, value: Arc<T>) {
            *self.lock() = value;
        }

        pub fn rcu(&self, mut change: impl FnMut(&Arc<T>) -> T) {
            let mut held = self.lock();
            *held = Arc::new(change(&held));
        }

        fn lock(&self) -> MutexGuard<'_, Arc<T>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T: Default> Default for ArcSwap<T> {
        fn default() -> Self {
            Self::from_pointee(T::default())
        }
    }
}
