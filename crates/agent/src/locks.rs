//! Locks by name, and locks that survive a panic of their holder.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Locks a mutex. A panic of another holder is not passed on: each holder leaves what it guards valid at every point.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes calls with the same key wait for each other, and no others.
#[derive(Debug, Default)]
pub(crate) struct KeyLocks {
    held: Mutex<BTreeSet<String>>,
    freed: Condvar,
}

/// Holds a key until it is dropped.
#[derive(Debug)]
pub(crate) struct KeyGuard<'a> {
    locks: &'a KeyLocks,
    key: String,
}

impl KeyLocks {
    /// Waits until nobody holds the key, then holds it.
    pub(crate) fn lock(&self, key: &str) -> KeyGuard<'_> {
        let held = lock(&self.held);
        let mut held =
            self.freed.wait_while(held, |held| held.contains(key)).unwrap_or_else(PoisonError::into_inner);
        held.insert(key.to_owned());
        KeyGuard { locks: self, key: key.to_owned() }
    }

    /// Holds the key if nobody does.
    pub(crate) fn try_lock(&self, key: &str) -> Option<KeyGuard<'_>> {
        let new = lock(&self.held).insert(key.to_owned());
        new.then(|| KeyGuard { locks: self, key: key.to_owned() })
    }
}

impl Drop for KeyGuard<'_> {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.key);
        self.locks.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_held_once_and_others_are_free() {
        let locks = KeyLocks::default();
        let first = locks.lock("a");
        assert!(locks.try_lock("a").is_none());
        assert!(locks.try_lock("b").is_some());
        drop(first);
        assert!(locks.try_lock("a").is_some());
    }

    #[test]
    fn who_waits_for_a_key_gets_it() {
        let locks = KeyLocks::default();
        let held = locks.lock("a");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| drop(locks.lock("a")));
            drop(held);
            waiter.join().unwrap();
        });
    }
}
