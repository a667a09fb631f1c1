//! The way from neighbours' tasks to the owner of the routes.
//!
//! What waits on it is bounded by the bytes that came from the network, all neighbours together, however many they are.
//! A task that finds no room waits for its turn, and reads nothing meanwhile.

use super::{FromPeer, PeerEvent, PeerKey};
use futures::{FutureExt, future::BoxFuture};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes of neighbours' messages that may wait. The routes in them take several times as much.
const ROOM_BYTES: u32 = 1 << 20;
/// What anything takes, however short it is.
const LEAST_BYTES: u32 = 256;

/// Room for something that is told; others have it again when the owner has dealt with that.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Where neighbours' tasks tell the owner what happened.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    told: mpsc::UnboundedSender<FromPeer>,
    room: Arc<Semaphore>,
}

impl Outlet {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<FromPeer>) {
        let (told, owner) = mpsc::unbounded_channel();
        (Self { told, room: Arc::new(Semaphore::new(ROOM_BYTES as usize)) }, owner)
    }

    /// Room for this many bytes, if there is some and nobody waits for it.
    pub(super) fn try_room(&self, bytes: usize) -> Option<Room> {
        let permit = Arc::clone(&self.room).try_acquire_many_owned(weight(bytes)).ok()?;
        Some(Room { _permit: Some(permit) })
    }

    /// Room for this many bytes, as soon as it is our turn. Who drops the future loses the turn.
    pub(super) fn room(&self, bytes: usize) -> BoxFuture<'static, Room> {
        let room = Arc::clone(&self.room);
        async move { Room { _permit: room.acquire_many_owned(weight(bytes)).await.ok() } }.boxed()
    }

    /// Tells the owner; nothing happens if it is gone.
    pub(super) fn tell(&self, peer: PeerKey, events: Vec<PeerEvent>, room: Room) {
        // The owner is gone when the speaker stops; then nobody wants to know.
        let _ = self.told.send(FromPeer { peer, events, _room: room });
    }

    /// Tells the owner that a task has ended, which takes no room.
    pub(super) fn tell_end(&self, peer: PeerKey, mut events: Vec<PeerEvent>) {
        events.push(PeerEvent::Ended);
        self.tell(peer, events, Room { _permit: None });
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).clamp(LEAST_BYTES, ROOM_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn however_many_wait_each_has_its_turn() {
        let (outlet, mut owner) = Outlet::new();
        let half = ROOM_BYTES as usize / 2;
        let tasks = (0..100).map(|peer| {
            let outlet = outlet.clone();
            tokio::spawn(async move {
                let room = match outlet.try_room(half) {
                    Some(room) => room,
                    None => outlet.room(half).await,
                };
                outlet.tell(peer, Vec::new(), room);
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let mut told = Vec::new();
        while told.len() < 100 {
            let one = owner.recv().await.unwrap();
            // Two at most fill the room, and what is told keeps it.
            assert!(owner.len() < 2);
            told.push(one.peer);
        }
        for task in tasks {
            task.await.unwrap();
        }
        told.sort_unstable();
        assert_eq!(told, (0..100).collect::<Vec<_>>());
        assert!(outlet.try_room(half * 2).is_some(), "all room is free again");
    }

    #[tokio::test]
    async fn who_waits_is_not_overtaken() {
        let (outlet, _owner) = Outlet::new();
        let most = outlet.try_room(ROOM_BYTES as usize - 1).unwrap();
        let mut waiting = outlet.room(ROOM_BYTES as usize);
        assert!((&mut waiting).now_or_never().is_none());
        drop(most);
        assert!(outlet.try_room(1).is_none(), "the one that waits has it all");
        drop(waiting.await);
        assert!(outlet.try_room(1).is_some());
    }
}
