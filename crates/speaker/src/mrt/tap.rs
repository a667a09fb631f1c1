//! The way from neighbours' tasks to dumps of updates. Nobody waits: what a full queue does not take is counted as lost.

use isthmus_bgp::mrt::{SessionMessage, StateChange, Time};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes of records that may wait for one dump.
const ROOM_BYTES: u32 = 16 << 20;
/// What a record takes beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// A record that waits.
#[derive(Debug)]
pub(super) struct Tapped {
    pub(super) bytes: Arc<[u8]>,
    _room: OwnedSemaphorePermit,
}

/// Where neighbours' tasks put what comes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_open: AtomicBool,
    outlets: Mutex<Vec<Outlet>>,
}

#[derive(Clone, Debug)]
struct Outlet {
    records: mpsc::UnboundedSender<Tapped>,
    room: Arc<Semaphore>,
    lost: Arc<AtomicU64>,
}

/// Where a dump takes it.
#[derive(Debug)]
pub(super) struct Inlet {
    records: mpsc::UnboundedReceiver<Tapped>,
    lost: Arc<AtomicU64>,
    tap: Tap,
}

impl Tap {
    /// Whether anybody wants to have anything.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_open.load(Ordering::Relaxed)
    }

    /// An UPDATE came.
    pub(crate) fn message(&self, message: &SessionMessage) {
        let mut bytes = Vec::with_capacity(message.bytes.len() + 64);
        // No message is longer than a record can hold.
        if message.encode(now(), &mut bytes).is_ok() {
            self.give(&bytes.into());
        }
    }

    /// A session changed its state.
    pub(crate) fn state(&self, change: &StateChange) {
        let mut bytes = Vec::new();
        change.encode(now(), &mut bytes);
        self.give(&bytes.into());
    }

    fn give(&self, bytes: &Arc<[u8]>) {
        let weight = u32::try_from(bytes.len() + RECORD_OVERHEAD_BYTES).unwrap_or(ROOM_BYTES);
        for outlet in self.outlets().iter() {
            match Arc::clone(&outlet.room).try_acquire_many_owned(weight) {
                // Its dump may be ending: then nobody misses it.
                Ok(room) => drop(outlet.records.send(Tapped { bytes: Arc::clone(bytes), _room: room })),
                Err(_full) => drop(outlet.lost.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    /// Lets somebody have what comes from now on.
    pub(super) fn open(&self) -> Inlet {
        let (sender, records) = mpsc::unbounded_channel();
        let lost = Arc::new(AtomicU64::new(0));
        let room = Arc::new(Semaphore::new(ROOM_BYTES as usize));
        self.outlets().push(Outlet { records: sender, room, lost: Arc::clone(&lost) });
        self.0.is_open.store(true, Ordering::Relaxed);
        Inlet { records, lost, tap: self.clone() }
    }

    fn outlets(&self) -> std::sync::MutexGuard<'_, Vec<Outlet>> {
        self.0.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inlet {
    /// Takes up to `most` records, at least one as soon as there is one.
    pub(super) async fn take(&mut self, into: &mut Vec<Tapped>, most: usize) {
        self.records.recv_many(into, most).await;
    }

    /// Takes a record if there is one.
    pub(super) fn try_take(&mut self) -> Option<Tapped> {
        self.records.try_recv().ok()
    }

    /// How many were lost since this was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut outlets = self.tap.outlets();
        outlets.retain(|outlet| !Arc::ptr_eq(&outlet.lost, &self.lost));
        self.tap.0.is_open.store(!outlets.is_empty(), Ordering::Relaxed);
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { seconds: since.as_secs() as u32, micros: Some(since.subsec_micros()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_loses_what_comes_and_has_room_again() {
        let tap = Tap::default();
        assert!(!tap.is_open());
        let mut slow = tap.open();
        let mut quick = tap.open();
        let record: Arc<[u8]> = vec![7; 1 << 20].into();
        for _ in 0..20 {
            tap.give(&record);
            assert!(quick.try_take().is_some());
        }
        assert_eq!((quick.take_lost(), slow.take_lost()), (0, 5), "15 and what is beside them fill 16 MiB");
        assert_eq!(slow.take_lost(), 0, "each is told once");
        assert_eq!(slow.try_take().unwrap().bytes.len(), 1 << 20);
        tap.give(&record);
        assert_eq!(slow.take_lost(), 0);
        assert_eq!(std::iter::from_fn(|| slow.try_take()).count(), 15);
        drop(slow);
        assert!(tap.is_open());
        drop(quick);
        assert!(!tap.is_open());
    }
}
