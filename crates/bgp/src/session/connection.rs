//! One TCP connection of a session.

use super::{ConnectionId, Negotiated, Side, State};
use crate::{
    timers::{Jitter, earliest},
    wire::{EXTENDED_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, UpdateContext},
};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Our OPEN went out.
    OpenSent,
    /// The peer's OPEN came, and was answered.
    OpenConfirm { negotiated: Arc<Negotiated> },
    /// Routes flow.
    Established { negotiated: Arc<Negotiated>, context: UpdateContext },
}

impl Stage {
    pub(super) fn state(&self) -> State {
        match self {
            Self::OpenSent => State::OpenSent,
            Self::OpenConfirm { .. } => State::OpenConfirm,
            Self::Established { .. } => State::Established,
        }
    }

    /// Whether the peer keeps our routes over a NOTIFICATION (RFC 8538).
    pub(super) fn survives_notification(&self) -> bool {
        match self {
            Self::Established { negotiated, .. } => {
                negotiated.graceful.as_ref().is_some_and(|graceful| graceful.notification)
            }
            _ => false,
        }
    }
}

/// One TCP connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) side: Side,
    pub(super) local: IpAddr,
    pub(super) peer: IpAddr,
    pub(super) stage: Stage,
    /// The OPENs so far, as they are on the wire: ours, and the peer's.
    pub(super) sent_open: Arc<[u8]>,
    pub(super) received_open: Option<Arc<[u8]>>,
    /// The start of a message.
    pub(super) buffer: Vec<u8>,
    /// When silence has lasted too long; `None` where it may last for ever.
    pub(super) hold_at: Option<Duration>,
    hold: Duration,
    keepalive_at: Option<Duration>,
    keepalive: Duration,
}

impl Connection {
    /// A connection whose OPEN goes out now.
    pub(super) fn new(id: ConnectionId, side: Side, local: IpAddr, peer: IpAddr, hold_at: Duration) -> Self {
        Self {
            id,
            side,
            local,
            peer,
            stage: Stage::OpenSent,
            sent_open: Arc::default(),
            received_open: None,
            buffer: Vec::new(),
            hold_at: Some(hold_at),
            hold: Duration::ZERO,
            keepalive_at: None,
            keepalive: Duration::ZERO,
        }
    }

    /// Longest message that may come.
    pub(super) fn message_bytes_max(&self) -> usize {
        match &self.stage {
            Stage::Established { negotiated, .. } if negotiated.extended_message => {
                EXTENDED_MESSAGE_BYTES_MAX
            }
            _ => MESSAGE_BYTES_MAX,
        }
    }

    /// Takes the agreed times; 0 is never (RFC 4271 section 4.4).
    pub(super) fn start_timers(&mut self, now: Duration, negotiated: &Negotiated, jitter: &mut Jitter) {
        self.hold = negotiated.hold;
        self.keepalive = negotiated.keepalive;
        self.heard(now);
        self.keepalive_at = (!self.keepalive.is_zero()).then(|| now + jitter.shorten(self.keepalive));
    }

    /// The peer said something.
    pub(super) fn heard(&mut self, now: Duration) {
        self.hold_at = (!self.hold.is_zero()).then(|| now + self.hold);
    }

    /// Whether a KEEPALIVE is due; if so, sets the time of the next one.
    pub(super) fn wants_keepalive(&mut self, now: Duration, jitter: &mut Jitter) -> bool {
        let due = self.keepalive_at.is_some_and(|at| at <= now);
        if due {
            self.keepalive_at = Some(now + jitter.shorten(self.keepalive));
        }
        due
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        earliest(self.hold_at, self.keepalive_at)
    }
}
