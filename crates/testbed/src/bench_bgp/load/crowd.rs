//! All peers of the daemon under test, served by one thread.

use super::{
    peer::{Peer, Stage},
    table::Table,
    wire,
};
use anyhow::{Context as _, bail};
use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::OwnedFd,
    io::Errno,
};
use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes that are read of one peer before the next has its turn.
const READ_BYTES: usize = 64 << 10;
/// Pause before a session that failed while coming up is tried again: FRR refuses some right after its start.
const RETRY: Duration = Duration::from_millis(200);
/// Longest sleep, so that keepalives go out.
const NAP: Duration = Duration::from_millis(50);

/// What all peers have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    /// The daemon.
    pub(super) daemon: SocketAddrV4,
    /// Proposed hold time in seconds.
    pub(super) hold_s: u16,
}

/// All peers.
pub(super) struct Crowd<'a> {
    pub(super) peers: Vec<Peer>,
    pub(super) common: Common,
    table: &'a Table,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    keepalive_at: Instant,
    /// Sessions that fail are tried again; off once something is measured.
    pub(super) retries: bool,
    retry_at: Option<Instant>,
    /// Sessions that were lost while something was measured, with the reason of the first.
    pub(super) lost: u32,
    pub(super) lost_why: Option<String>,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(common: Common, table: &'a Table) -> anyhow::Result<Self> {
        Ok(Self {
            peers: Vec::new(),
            common,
            table,
            epoll: epoll::create(CreateFlags::CLOEXEC).context("cannot make an epoll instance")?,
            buffer: vec![0; READ_BYTES],
            keepalive_at: Instant::now(),
            retries: true,
            retry_at: None,
            lost: 0,
            lost_why: None,
        })
    }

    /// Adds a peer and connects it; its place is returned.
    pub(super) fn join(&mut self, address: Ipv4Addr, owner: Option<u32>) -> anyhow::Result<usize> {
        self.peers.push(Peer::new(address, owner, self.table.len()));
        let place = self.peers.len() - 1;
        self.connect(place)?;
        Ok(place)
    }

    fn connect(&mut self, place: usize) -> anyhow::Result<()> {
        let Some(peer) = self.peers.get_mut(place) else { return Ok(()) };
        peer.connect(self.common).with_context(|| format!("{} cannot connect", peer.address))?;
        if let Some(stream) = &peer.stream {
            let data = EventData::new_u64(place as u64);
            epoll::add(&self.epoll, stream, data, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    /// Sends bytes to the daemon, or as many as it takes now; the rest follows.
    pub(super) fn send(&mut self, place: usize, bytes: Arc<[u8]>) {
        if let Some(peer) = self.peers.get_mut(place) {
            peer.queue.push_back((bytes, 0));
            self.flush(place);
        }
    }

    /// Ends a session with a word of goodbye.
    pub(super) fn leave(&mut self, place: usize) {
        self.send(place, wire::cease().into());
        if let Some(peer) = self.peers.get_mut(place) {
            peer.end();
        }
    }

    /// Serves all until `done`; `false` if it was not within `limit`, or once a session is lost that must last.
    pub(super) fn until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<bool> {
        let end = Instant::now() + limit;
        while !done(self) {
            if Instant::now() >= end || self.lost > 0 {
                return Ok(false);
            }
            self.step()?;
        }
        Ok(true)
    }

    /// Serves all for some time.
    pub(super) fn idle(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        self.until(time * 2, |_| Instant::now() >= end).map(drop)
    }

    /// Waits for whatever comes next, a while at most, and takes it.
    fn step(&mut self) -> anyhow::Result<()> {
        let mut events = [std::mem::MaybeUninit::<Event>::uninit(); 256];
        let nap = Timespec { tv_sec: 0, tv_nsec: NAP.as_nanos() as i64 };
        let (ready, _) = match epoll::wait(&self.epoll, &mut events, Some(&nap)) {
            Ok(ready) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(why) => bail!("cannot wait for the daemon: {why}"),
        };
        let now = Instant::now();
        for event in ready.iter() {
            let (place, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(EventFlags::OUT) {
                self.flush(place);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(place, now);
            }
        }
        if now >= self.keepalive_at {
            self.keep_alive(now);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for place in 0..self.peers.len() {
                if self.peers[place].stage == Stage::Lost {
                    self.connect(place)?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, place: usize, now: Instant) {
        let Self { peers, buffer, table, common, .. } = self;
        let Some(peer) = peers.get_mut(place) else { return };
        match peer.read(buffer, table, *common.daemon.ip(), now) {
            Ok(()) => self.flush(place),
            Err(why) => self.lose(place, &why),
        }
    }

    fn lose(&mut self, place: usize, why: &str) {
        let Some(peer) = self.peers.get_mut(place) else { return };
        if peer.stage == Stage::Ended {
            return peer.end();
        }
        peer.lose();
        if self.retries {
            self.retry_at.get_or_insert(Instant::now() + RETRY);
        } else {
            self.lost += 1;
            let address = peer.address;
            self.lost_why.get_or_insert_with(|| format!("the session of {address} was lost: {why}"));
        }
    }

    fn flush(&mut self, place: usize) {
        let Some(peer) = self.peers.get_mut(place) else { return };
        let was_writing = peer.is_writing;
        if let Err(why) = peer.write() {
            return self.lose(place, &why.to_string());
        }
        if was_writing != peer.is_writing
            && let Some(stream) = &peer.stream
        {
            let out = if peer.is_writing { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(place as u64);
            // A stream that is gone is found when it is read.
            let _gone = epoll::modify(&self.epoll, stream, data, EventFlags::IN | out);
        }
    }

    /// Sends keepalives, and looks for sessions whose hold time is over.
    fn keep_alive(&mut self, now: Instant) {
        let hold = Duration::from_secs(self.common.hold_s.into());
        self.keepalive_at = now + hold / 3;
        let keepalive: Arc<[u8]> = wire::keepalive().into();
        for place in 0..self.peers.len() {
            let peer = &self.peers[place];
            if peer.stage == Stage::Established {
                let silence = now - peer.heard;
                if silence > hold {
                    self.lose(place, &format!("nothing heard for {:.1} s", silence.as_secs_f64()));
                } else if peer.queue.is_empty() {
                    self.send(place, keepalive.clone());
                }
            }
        }
    }
}
