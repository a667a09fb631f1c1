//! Bidirectional Forwarding Detection (RFC 5880, asynchronous mode) of one peer, without sockets or clocks.
//!
//! ```text
//!            hears Down              hears Init or Up
//!   Down ───────────────► Init ─────────────────────────► Up
//!    ▲ │                    │                              │
//!    │ └──── hears Init ────┼─────────────────────────────►│
//!    └── silence, or the peer says Down or AdminDown ──────┘
//! ```
//!
//! Each side sends small packets all the time, slowly while the session is not up; who misses a few in a row knows that
//! the path is broken. Authentication and the echo function are not done. Demand mode is never asked for; a peer that asks
//! for it gets it.

mod packet;
#[cfg(test)]
mod tests;

pub use packet::{Diagnostic, PACKET_BYTES, Packet, PacketError, State};

use crate::timers::{Jitter, earliest};
use std::{collections::VecDeque, fmt, num::NonZeroU32, time::Duration};

/// RFC 5880 section 6.8.3: no faster than this while the session is not up.
const SLOW_TX: Duration = Duration::from_secs(1);

/// How often packets go, and how many may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// We send no more often than this, once the session is up.
    pub desired_min_tx: Duration,
    /// We want to receive no more often than this.
    pub required_min_rx: Duration,
    /// The peer takes us for dead when so many of our packets are missing. Not zero.
    pub multiplier: u8,
}

/// What happens to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A packet of this peer came.
    Received(&'a Packet),
    /// The time that [`Session::poll_timeout`] named has come.
    Timer,
    /// Somebody keeps it down; the peer is told, and does not take the path for broken.
    Stop,
    /// Somebody lets it come up.
    Start,
}

/// What the caller shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a packet.
    Send(Packet),
    /// Both hear each other.
    Up,
    /// It was up, and is not any more.
    Down(Reason),
}

/// Why a session is no longer up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing came for so long.
    Silence(Duration),
    /// The peer says that its side went down, for this reason: it does not hear us, or started anew.
    Peer(Diagnostic),
    /// Somebody stopped it on the peer's side: nothing is known of the path (RFC 5882 section 3.2).
    PeerStopped,
    /// Somebody stopped it here.
    Stopped,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence(time) => write!(f, "nothing came for {time:?}"),
            Self::Peer(Diagnostic::NONE) => f.write_str("peer started anew"),
            Self::Peer(why) => write!(f, "peer says: {why}"),
            Self::PeerStopped => f.write_str("stopped by the peer"),
            Self::Stopped => f.write_str("stopped here"),
        }
    }
}

/// What the peer said last (RFC 5880 section 6.8.1, `bfd.Remote…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its number of the session.
    pub discriminator: NonZeroU32,
    /// Its state.
    pub state: State,
    /// It would like to send no more often than this.
    pub desired_min_tx: Duration,
    /// It takes packets no more often than this; zero: none.
    pub required_min_rx: Duration,
    /// So many of its packets must be missing.
    pub multiplier: u8,
    /// It wants no periodic packets while the session is up.
    pub is_demand: bool,
    /// Its BFD goes on while its control plane restarts.
    pub is_independent: bool,
}

/// The session with one peer. Call [`Session::handle`], then [`Session::poll_output`] until it says `None`, then wait for
/// something to happen or for [`Session::poll_timeout`].
#[derive(Debug)]
pub struct Session {
    timing: Timing,
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    /// `None`: it was never heard, or not for a detection time.
    remote: Option<Remote>,
    /// The peer has not yet answered that it knows our times.
    is_polling: bool,
    /// When the last packet went, other than in answer to a poll.
    sent_at: Duration,
    /// Pause behind it, and how often the peer took packets when it was chosen.
    pause: Option<Duration>,
    interval: Option<Duration>,
    detect_at: Option<Duration>,
    jitter: Jitter,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session that starts with the first [`Input::Timer`]. `discriminator` is no other session's; `seed` makes its pauses
    /// differ from those of others.
    pub fn new(timing: Timing, discriminator: NonZeroU32, seed: u64, now: Duration) -> Self {
        Self {
            timing,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: None,
            is_polling: false,
            sent_at: now,
            pause: Some(Duration::ZERO),
            interval: Some(SLOW_TX.max(timing.desired_min_tx)),
            detect_at: None,
            jitter: Jitter::new(seed),
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input. `now` counts from any fixed moment and must never go back.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) {
        match input {
            Input::Received(packet) => self.received(now, packet),
            Input::Timer => self.timer(now),
            Input::Stop if self.state != State::AdminDown => {
                self.fall(now, State::AdminDown, Diagnostic::ADMIN_DOWN, Reason::Stopped);
                self.detect_at = None;
            }
            Input::Start if self.state == State::AdminDown => {
                self.change(now, State::Down, Diagnostic::NONE);
            }
            Input::Stop | Input::Start => {}
        }
    }

    /// When to call [`Session::handle`] with [`Input::Timer`] at the latest.
    pub fn poll_timeout(&self) -> Option<Duration> {
        earliest(self.send_at(), self.detect_at)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Our number of the session.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// What the peer said last.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// How long silence lasts until the peer is taken for dead (RFC 5880 section 6.8.4).
    pub fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote?;
        Some(self.timing.required_min_rx.max(remote.desired_min_tx) * u32::from(remote.multiplier))
    }

    /// The rest of RFC 5880 section 6.8.6, behind what [`Packet::decode`] checks.
    fn received(&mut self, now: Duration, packet: &Packet) {
        let is_ours = match packet.your_discriminator {
            Some(yours) => yours == self.discriminator,
            None => matches!(packet.state, State::Down | State::AdminDown),
        };
        if !is_ours {
            return;
        }
        self.remote = Some(Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            multiplier: packet.multiplier,
            is_demand: packet.is_demand,
            is_independent: packet.is_independent,
        });
        if packet.is_final {
            self.is_polling = false;
        }
        if self.state == State::AdminDown {
            return;
        }
        self.detect_at = self.detection_time().map(|time| now + time);
        let neighbor_down = Diagnostic::NEIGHBOR_DOWN;
        match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) => {
                self.fall(now, State::Down, neighbor_down, Reason::PeerStopped);
            }
            (State::Up, State::Down) => {
                self.fall(now, State::Down, neighbor_down, Reason::Peer(packet.diagnostic));
            }
            (State::Down, State::Down) => self.change(now, State::Init, Diagnostic::NONE),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => self.rise(now),
            _ => {}
        }
        if packet.is_poll {
            let answer = Packet { is_poll: false, is_final: true, ..self.packet() };
            self.outputs.push_back(Output::Send(answer));
        }
        self.reschedule();
    }

    fn timer(&mut self, now: Duration) {
        if self.detect_at.is_some_and(|at| at <= now) {
            self.detect_at = None;
            let reason = Reason::Silence(self.detection_time().unwrap_or_default());
            // RFC 5880 section 6.8.1: who was silent for so long may come back with another number.
            self.remote = None;
            if matches!(self.state, State::Init | State::Up) {
                self.fall(now, State::Down, Diagnostic::DETECTION_TIME_EXPIRED, reason);
            }
            self.reschedule();
        }
        if self.send_at().is_some_and(|at| at <= now) {
            self.send(now);
        }
    }

    fn rise(&mut self, now: Duration) {
        // RFC 5880 section 6.8.3: a poll sequence tells that packets come at another pace from now on.
        self.is_polling = self.timing.desired_min_tx < SLOW_TX;
        self.outputs.push_back(Output::Up);
        self.change(now, State::Up, Diagnostic::NONE);
    }

    fn fall(&mut self, now: Duration, state: State, diagnostic: Diagnostic, reason: Reason) {
        self.is_polling = false;
        if self.state == State::Up {
            self.outputs.push_back(Output::Down(reason));
        }
        self.change(now, state, diagnostic);
    }

    /// Becomes something else, and tells the peer at once.
    fn change(&mut self, now: Duration, state: State, diagnostic: Diagnostic) {
        (self.state, self.diagnostic) = (state, diagnostic);
        self.send(now);
    }

    /// Sends the packet that is due, or one out of turn because there is something new.
    fn send(&mut self, now: Duration) {
        self.outputs.push_back(Output::Send(self.packet()));
        self.sent_at = now;
        self.interval = self.interval_now();
        self.draw_pause();
    }

    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            is_poll: self.is_polling,
            is_final: false,
            // The routes' fate is ours: both are in one process.
            is_independent: false,
            is_demand: false,
            multiplier: self.timing.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map(|remote| remote.discriminator),
            desired_min_tx: self.desired_min_tx(),
            required_min_rx: self.timing.required_min_rx,
        }
    }

    fn desired_min_tx(&self) -> Duration {
        match self.state {
            State::Up => self.timing.desired_min_tx,
            _ => self.timing.desired_min_tx.max(SLOW_TX),
        }
    }

    fn send_at(&self) -> Option<Duration> {
        Some(self.sent_at + self.pause?)
    }

    /// Draws another pause where the peer, or the state, wants packets at another pace than when the last one went.
    fn reschedule(&mut self) {
        let interval = self.interval_now();
        if interval != self.interval {
            self.interval = interval;
            self.draw_pause();
        }
    }

    /// RFC 5880 section 6.8.7: how often to send; `None`: the peer wants nothing, or only answers.
    fn interval_now(&self) -> Option<Duration> {
        let Some(remote) = &self.remote else { return Some(self.desired_min_tx()) };
        let is_demand = remote.is_demand && remote.state == State::Up && self.state == State::Up;
        if remote.required_min_rx.is_zero() || (is_demand && !self.is_polling) {
            return None;
        }
        Some(self.desired_min_tx().max(remote.required_min_rx))
    }

    /// RFC 5880 section 6.8.7: up to a quarter shorter, and where one missing packet counts, at least a tenth.
    fn draw_pause(&mut self) {
        let most = if self.timing.multiplier == 1 { 90 } else { 100 };
        let jitter = &mut self.jitter;
        self.pause = self.interval.map(|every| jitter.between(every * 3 / 4, every * most / 100));
    }
}
