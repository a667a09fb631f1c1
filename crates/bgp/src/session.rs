//! The state machine of one peer (RFC 4271 section 8) without sockets or clocks.
//!
//! ```text
//!           Start              Connected             OPEN                 KEEPALIVE
//!   Idle ─────────► Connect/Active ─────► OpenSent ─────► OpenConfirm ─────► Established
//!    ▲  pause ends                                                                │
//!    └──────────────────────── anything that goes wrong, Stop ───────────────────┘
//! ```
//!
//! A peer may have two connections for a moment, one that each side opened; a [`Session`] owns both, settles which one
//! stays (section 6.8), and has at most one that is established.

mod connection;
mod negotiate;
#[cfg(test)]
mod tests;

pub use negotiate::{Negotiated, PeerGraceful, PeerKind};

use crate::{
    config::SessionConfig,
    number::{Asn, Family, RouterId},
    timers::{Jitter, earliest},
    wire::{
        Disposition, Frame, Message, MessageKind, Notification, Open, RefreshKind, RouteRefresh,
        ShutdownText, Update, encode_keepalive, frame,
    },
};
use connection::{Connection, Stage};
use negotiate::{local_open, negotiate};
use std::{collections::VecDeque, fmt, net::IpAddr, sync::Arc, time::Duration};

/// Hold time until the OPEN has come (RFC 4271 section 8.2.2 suggests four minutes).
const OPEN_HOLD: Duration = Duration::from_mins(4);
/// Attempts to connect that come after 1 to 5 s, before the configured time counts.
const QUICK_RETRIES: u32 = 3;

/// Names a TCP connection. The caller chooses it and never uses one twice for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// We did.
    Outgoing,
    /// The peer did.
    Incoming,
}

/// What happens to a session. In brackets the events of RFC 4271 section 8.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Somebody wants the session (1, 4).
    Start,
    /// Somebody does not want it (2), or not as it is.
    Stop(StopReason),
    /// A connection is there (16, 17).
    Connected {
        /// Its name from now on.
        connection: ConnectionId,
        /// Who opened it.
        side: Side,
        /// Our end.
        local: IpAddr,
        /// The peer's end.
        peer: IpAddr,
    },
    /// What [`Output::Connect`] wanted did not succeed (18).
    ConnectFailed,
    /// Bytes came (19 to 28).
    Received {
        /// On which connection.
        connection: ConnectionId,
        /// In their order.
        bytes: &'a [u8],
    },
    /// Bytes came that are not read yet, because what came before waits. The peer is not silent.
    Unread {
        /// On which connection.
        connection: ConnectionId,
    },
    /// A connection ended, or broke (18).
    Closed {
        /// Which one.
        connection: ConnectionId,
    },
    /// The peer took nothing for as long as [`Session::send_hold`] says (29, RFC 9687), and the caller dropped the
    /// connection.
    Stalled {
        /// Which one.
        connection: ConnectionId,
    },
    /// The time that [`Session::poll_timeout`] named has come (9 to 13).
    Timer,
    /// All routes of a family are wanted again (RFC 2918).
    SendRefresh(Family),
}

/// Why somebody stops a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It shall stay down. The text goes to the other operator (RFC 9003).
    AdminShutdown(ShutdownText),
    /// It shall start anew.
    AdminReset(ShutdownText),
    /// The peer is no longer configured; it stays down.
    Deconfigured,
    /// Its configuration changed; it starts anew.
    ConfigChanged,
    /// The path to the peer is down (RFC 5882); it starts anew.
    BfdDown,
    /// The peer sent more prefixes than this; it stays down.
    PrefixLimit {
        /// Of which family.
        family: Family,
        /// How many were allowed.
        max: u32,
    },
    /// Something ran out; it starts anew.
    OutOfResources,
}

impl StopReason {
    /// Whether the session stays down until [`Input::Start`].
    fn stays_down(&self) -> bool {
        matches!(self, Self::AdminShutdown(_) | Self::Deconfigured | Self::PrefixLimit { .. })
    }

    /// What is said to the peer. RFC 8538 section 3: what shall end the session for good is a Hard Reset to a peer that
    /// survives soft ones.
    pub fn said(&self, is_survived: bool) -> Notification {
        let notification = self.notification();
        if is_survived && self.stays_down() { notification.hard() } else { notification }
    }

    fn notification(&self) -> Notification {
        match self {
            Self::AdminShutdown(text) => Notification::admin_shutdown(text),
            Self::AdminReset(text) => Notification::admin_reset(text),
            Self::Deconfigured => Notification::deconfigured(),
            Self::ConfigChanged => Notification::config_changed(),
            Self::BfdDown => Notification::bfd_down(),
            Self::PrefixLimit { family, max } => {
                let numbers = family.afi_safi();
                Notification::max_prefixes(numbers.afi, numbers.safi, *max)
            }
            Self::OutOfResources => Notification::out_of_resources(),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrefixLimit { family, max } => write!(f, "more than {max} prefixes of {family}"),
            other => other.notification().fmt(f),
        }
    }
}

/// What the caller shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection; answer with [`Input::Connected`] or [`Input::ConnectFailed`]. An earlier attempt that has
    /// no answer yet is void.
    Connect,
    /// Write these bytes, before an [`Output::Close`] that follows.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// A whole message.
        bytes: Vec<u8>,
    },
    /// Close a connection once its bytes are written. Nothing more is expected of it.
    Close {
        /// Which one.
        connection: ConnectionId,
    },
    /// The session is there; the routes may go out on this connection.
    Up {
        /// On which connection.
        connection: ConnectionId,
        /// What both sides agreed on.
        negotiated: Arc<Negotiated>,
        /// What they agreed by.
        opens: Opens,
    },
    /// The session is gone.
    Down(Down),
    /// An UPDATE came, and these are its bytes; only while [`Session::record_updates`] wants that. What it means follows.
    Recorded(Vec<u8>),
    /// The peer's routes changed.
    Update(Box<Update>),
    /// The peer wants routes again, or says that it sends them again.
    Refresh(RouteRefresh),
    /// The state is another one.
    StateChanged(State),
}

/// The OPENs of a session, whole messages as they were on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opens {
    /// Ours.
    pub sent: Arc<[u8]>,
    /// The peer's.
    pub received: Arc<[u8]>,
}

/// A session that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    /// Why.
    pub cause: DownCause,
    /// Its routes are kept for a while (RFC 4724, 8538).
    pub graceful: bool,
    /// What was said at its end: by the peer if the cause is [`DownCause::Received`], else by us.
    pub notification: Option<Notification>,
}

/// Why a session, or the attempt at one, is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownCause {
    /// The connection ended without a word.
    ConnectionLost,
    /// The peer ended it.
    Received(Notification),
    /// The peer did something wrong, or was silent for too long.
    Sent(Notification),
    /// The peer is in another AS than it should be.
    WrongAs {
        /// Where it should be.
        expected: ExpectedAs,
        /// Where it is.
        came: Asn,
    },
    /// The peer took nothing of what we sent for so long (RFC 9687). It is not told, as it would not hear it.
    SendHold(Duration),
    /// Somebody here stopped it.
    Stopped(StopReason),
    /// The peer restarted and opened a new one (RFC 4724 section 4.2).
    Replaced,
}

impl fmt::Display for DownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionLost => f.write_str("connection lost"),
            Self::Received(notification) => write!(f, "peer says: {notification}"),
            Self::Sent(notification) => write!(f, "we said: {notification}"),
            Self::WrongAs { expected, came } => {
                write!(f, "refused: {expected} expected, {came} came ({})", Notification::bad_peer_as())
            }
            Self::SendHold(time) => {
                write!(
                    f,
                    "send hold timer expired: peer took nothing of what we sent for {} s (RFC 9687)",
                    time.as_secs()
                )
            }
            Self::Stopped(reason) => write!(f, "stopped: {reason}"),
            Self::Replaced => f.write_str("peer restarted and opened a new connection"),
        }
    }
}

/// In which AS a peer should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedAs {
    /// In this one.
    Of(Asn),
    /// In ours, or in any but ours.
    Kind(PeerKind),
    /// In any; but 0 is none (RFC 7607).
    Any,
}

impl fmt::Display for ExpectedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(asn) => write!(f, "AS {asn}"),
            Self::Kind(PeerKind::Internal) => f.write_str("our own AS"),
            Self::Kind(PeerKind::External) => f.write_str("another AS than ours"),
            Self::Any => f.write_str("an AS"),
        }
    }
}

/// States of RFC 4271 section 8.2.2. With two connections it is the further one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Wants nothing, or pauses.
    Idle,
    /// Opens a connection.
    Connect,
    /// Waits for a connection, or until it opens one again.
    Active,
    /// Waits for the peer's OPEN.
    OpenSent,
    /// Waits for the KEEPALIVE that answers our OPEN.
    OpenConfirm,
    /// Exchanges routes.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
        })
    }
}

/// How many messages went in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub refresh: u64,
}

impl MessageCounts {
    /// All together.
    pub const fn total(&self) -> u64 {
        self.open + self.update + self.notification + self.keepalive + self.refresh
    }

    fn count(&mut self, kind: MessageKind) {
        *match kind {
            MessageKind::Open => &mut self.open,
            MessageKind::Update => &mut self.update,
            MessageKind::Notification => &mut self.notification,
            MessageKind::Keepalive => &mut self.keepalive,
            MessageKind::RouteRefresh => &mut self.refresh,
        } += 1;
    }
}

/// What a session counts, for as long as it is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages from the peer.
    pub received: MessageCounts,
    /// Messages to the peer; UPDATEs are counted by [`Session::count_sent_updates`].
    pub sent: MessageCounts,
    /// UPDATEs whose routes counted as withdrawn because of a fault.
    pub treated_as_withdraw: u64,
    /// Attributes that were dropped because of a fault.
    pub discarded_attributes: u64,
    /// Times that the session went down.
    pub downs: u64,
}

/// What a session wants to be when it has no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Will {
    /// Down until somebody starts it.
    Down,
    /// Down until then, for so long.
    Pause { until: Duration, lasts: Duration },
    /// Up. `retry_at` is when to open a connection; `None` while one is being opened or there is one.
    Up { retry_at: Option<Duration>, dialing: bool },
}

/// The session with one peer. Call [`Session::handle`], then [`Session::poll_output`] until it says `None`, then wait
/// for something to happen or for [`Session::poll_timeout`].
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    jitter: Jitter,
    will: Will,
    connections: Vec<Connection>,
    outputs: VecDeque<Output>,
    told_state: State,
    counters: Counters,
    last_down: Option<Down>,
    /// Failures in a row, which make the pauses longer.
    failures: u32,
    /// Connections in a row that could not be opened.
    failed_dials: u32,
    /// When the session was last established.
    established_at: Option<Duration>,
    /// Somebody wants the bytes of UPDATEs.
    records_updates: bool,
}

impl Session {
    /// A session that starts with the first [`Input::Timer`], unless it is configured to be down. `seed` makes its
    /// random pauses differ from those of others.
    pub fn new(config: SessionConfig, seed: u64, now: Duration) -> Self {
        let will =
            if config.admin_down { Will::Down } else { Will::Pause { until: now, lasts: Duration::ZERO } };
        Self {
            config,
            jitter: Jitter::new(seed),
            will,
            connections: Vec::new(),
            outputs: VecDeque::new(),
            told_state: State::Idle,
            counters: Counters::default(),
            last_down: None,
            failures: 0,
            failed_dials: 0,
            established_at: None,
            records_updates: false,
        }
    }

    /// Takes one input. `now` counts from any fixed moment and must never go back.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) {
        match input {
            Input::Start => self.start(now),
            Input::Stop(reason) => self.stop(now, &reason),
            Input::Connected { connection, side, local, peer } => {
                self.connected(now, connection, side, local, peer);
            }
            Input::ConnectFailed => self.retry(now),
            Input::Received { connection, bytes } => self.received(now, connection, bytes),
            Input::Unread { connection } => self.unread(now, connection),
            Input::Closed { connection } => self.lost(now, connection, DownCause::ConnectionLost),
            Input::Stalled { connection } => {
                let time = self.send_hold().unwrap_or_default();
                self.lost(now, connection, DownCause::SendHold(time));
            }
            Input::Timer => self.timer(now),
            Input::SendRefresh(family) => self.send_refresh(family),
        }
        let state = self.state();
        if state != self.told_state {
            self.told_state = state;
            self.outputs.push_back(Output::StateChanged(state));
        }
    }

    /// When to call [`Session::handle`] with [`Input::Timer`] at the latest.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let will = match self.will {
            Will::Down => None,
            Will::Pause { until, .. } => Some(until),
            Will::Up { retry_at, .. } => retry_at,
        };
        self.connections.iter().map(Connection::timeout).fold(will, earliest)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The state.
    pub fn state(&self) -> State {
        let connected = self.connections.iter().map(|connection| connection.stage.state()).max();
        connected.unwrap_or(match self.will {
            Will::Down | Will::Pause { .. } => State::Idle,
            Will::Up { dialing: true, .. } => State::Connect,
            Will::Up { dialing: false, .. } => State::Active,
        })
    }

    /// Whether it stays down until somebody starts it.
    pub fn is_stopped(&self) -> bool {
        self.will == Will::Down
    }

    /// How long it waits in [`State::Idle`] before it tries again, from the beginning of this pause.
    pub fn waits(&self) -> Option<Duration> {
        match self.will {
            Will::Pause { lasts, .. } => Some(lasts),
            _ => None,
        }
    }

    /// What was agreed on, and since when, while the session is established.
    pub fn established(&self) -> Option<(&Arc<Negotiated>, Duration)> {
        let negotiated = self.connections.iter().find_map(|connection| match &connection.stage {
            Stage::Established { negotiated, .. } => Some(negotiated),
            _ => None,
        })?;
        Some((negotiated, self.established_at?))
    }

    /// How long the peer may take nothing of what is to be written while the session is established (RFC 9687). Then
    /// the caller drops the connection without a word, and says [`Input::Stalled`]. `None`: for ever.
    pub fn send_hold(&self) -> Option<Duration> {
        self.established()?.0.send_hold(&self.config.timers)
    }

    /// Says whether UPDATEs are wanted as they come, byte by byte.
    pub fn record_updates(&mut self, is_wanted: bool) {
        self.records_updates = is_wanted;
    }

    /// What it was made with.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// What it counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Why it was down last.
    pub fn last_down(&self) -> Option<&Down> {
        self.last_down.as_ref()
    }

    /// Counts UPDATEs that the caller wrote.
    pub fn count_sent_updates(&mut self, count: u64) {
        self.counters.sent.update += count;
    }

    fn start(&mut self, now: Duration) {
        if matches!(self.will, Will::Down | Will::Pause { .. }) {
            self.failures = 0;
            self.begin(now);
        }
    }

    /// Leaves Idle.
    fn begin(&mut self, now: Duration) {
        self.failed_dials = 0;
        let retry_at = (!self.config.passive).then_some(now);
        self.will = Will::Up { retry_at, dialing: false };
        self.dial(now);
    }

    fn stop(&mut self, now: Duration, reason: &StopReason) {
        let cause = DownCause::Stopped(reason.clone());
        for connection in std::mem::take(&mut self.connections) {
            let said = reason.said(connection.stage.survives_notification());
            self.send_notification(&connection, &said);
            if connection.stage.state() == State::Established {
                self.went_down(Down { cause: cause.clone(), graceful: false, notification: Some(said) });
            }
        }
        if reason.stays_down() {
            self.will = Will::Down;
            self.last_down = Some(Down { cause, graceful: false, notification: None });
        } else if self.will != Will::Down {
            self.pause(now, false);
        }
    }

    fn connected(&mut self, now: Duration, id: ConnectionId, side: Side, local: IpAddr, peer: IpAddr) {
        if side == Side::Outgoing
            && let Will::Up { retry_at, dialing } = &mut self.will
        {
            (*retry_at, *dialing) = (None, false);
        }
        let mut new = Connection::new(id, side, local, peer, now + OPEN_HOLD);
        let wanted = matches!(self.will, Will::Up { .. });
        // RFC 4724 section 4.2: a peer that restarted may be back before we know that it was away.
        let replaces = |connection: &Connection| match &connection.stage {
            Stage::Established { negotiated, .. } => negotiated.graceful.is_some() && side == Side::Incoming,
            _ => true,
        };
        if self.will == Will::Down {
            return self.send_notification(&new, &Notification::rejected());
        }
        if !wanted {
            // Without a word: the peer shall soon try again, and not take it for a failure.
            return self.outputs.push_back(Output::Close { connection: id });
        }
        if !self.connections.iter().all(replaces) {
            return self.send_notification(&new, &Notification::collision());
        }
        let same = |connection: &Connection| {
            connection.side == side && connection.stage.state() != State::Established
        };
        if let Some(older) = self.connections.iter().position(same) {
            let older = self.connections.remove(older);
            self.send_notification(&older, &Notification::collision());
        }
        let open = local_open(&self.config).encode();
        new.sent_open = open.as_slice().into();
        self.send(id, MessageKind::Open, open);
        self.connections.push(new);
    }

    fn received(&mut self, now: Duration, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connection(id) else { return };
        let mut buffer = std::mem::take(&mut connection.buffer);
        let mut rest = if buffer.is_empty() {
            bytes
        } else {
            buffer.extend(bytes);
            &buffer
        };
        loop {
            let Some(connection) = self.connection(id) else { return };
            match frame(rest, connection.message_bytes_max()) {
                Err(notification) => return self.fail(now, id, notification),
                Ok(None) => {
                    connection.buffer = rest.to_vec();
                    return;
                }
                Ok(Some(frame)) => {
                    let (message, after) = rest.split_at(frame.len());
                    rest = after;
                    if frame.kind == MessageKind::Open {
                        connection.received_open = Some(message.into());
                    }
                    self.counters.received.count(frame.kind);
                    self.message(now, id, frame);
                }
            }
        }
    }

    /// What each state does with each message: RFC 4271 section 8.2.2 from `OpenSent` on, RFC 6608.
    fn message(&mut self, now: Duration, id: ConnectionId, frame: Frame<'_>) {
        let Some(connection) = self.connection(id) else { return };
        let unexpected = frame.kind as u8;
        match (connection.stage.state(), frame.kind) {
            (_, MessageKind::Notification) => {
                self.lost(now, id, DownCause::Received(Notification::decode(frame.body)));
            }
            (State::OpenSent, MessageKind::Open) => match Open::decode(frame.body) {
                Ok(open) => self.opened(now, id, open),
                Err(notification) => self.fail(now, id, notification),
            },
            (State::OpenConfirm, MessageKind::Keepalive) => self.establish(now, id),
            (State::Established, MessageKind::Keepalive) => connection.heard(now),
            (State::Established, MessageKind::Update | MessageKind::RouteRefresh) => {
                connection.heard(now);
                self.routes(now, id, frame);
            }
            (State::OpenConfirm, _) => {
                self.fail(now, id, Notification::unexpected_in_open_confirm(unexpected));
            }
            (State::Established, _) => {
                self.fail(now, id, Notification::unexpected_in_established(unexpected));
            }
            _ => self.fail(now, id, Notification::unexpected_in_open_sent(unexpected)),
        }
    }

    /// The peer's OPEN came.
    fn opened(&mut self, now: Duration, id: ConnectionId, open: Open) {
        let Some(connection) = self.connections.iter().find(|connection| connection.id == id) else { return };
        let negotiated = match negotiate(&self.config, open, connection.local, connection.peer) {
            Ok(negotiated) => Arc::new(negotiated),
            Err((notification, cause)) => return self.refuse(now, id, &notification, cause),
        };
        if !self.survives_collision(now, id, connection.side, &negotiated) {
            return;
        }
        self.send(id, MessageKind::Keepalive, encode_keepalive());
        let jitter = &mut self.jitter;
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            connection.start_timers(now, &negotiated, jitter);
            connection.stage = Stage::OpenConfirm { negotiated };
        }
    }

    /// Settles which of several connections stays (RFC 4271 section 6.8), and whether it is this one.
    fn survives_collision(
        &mut self,
        now: Duration,
        id: ConnectionId,
        side: Side,
        negotiated: &Negotiated,
    ) -> bool {
        let stays = collision_winner(self.config.local_id, negotiated);
        let others: Vec<_> = self
            .connections
            .iter()
            .filter(|connection| connection.id != id)
            .map(|connection| (connection.id, connection.stage.state()))
            .collect();
        for (other, state) in others {
            match state {
                // Only a peer that may have restarted gets here.
                State::Established => {
                    self.lost(now, other, DownCause::Replaced);
                    self.outputs.push_back(Output::Close { connection: other });
                }
                State::OpenConfirm if side == stays => {
                    self.fail(now, other, Notification::collision());
                }
                State::OpenConfirm => {
                    self.fail(now, id, Notification::collision());
                    return false;
                }
                _ => {}
            }
        }
        true
    }

    fn establish(&mut self, now: Duration, id: ConnectionId) {
        let config = &self.config;
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) else {
            return;
        };
        let Stage::OpenConfirm { negotiated } = &connection.stage else { return };
        let negotiated = Arc::clone(negotiated);
        let context = negotiated.update_context(config);
        let opens = Opens {
            sent: Arc::clone(&connection.sent_open),
            received: connection.received_open.clone().unwrap_or_default(),
        };
        connection.stage = Stage::Established { negotiated: Arc::clone(&negotiated), context };
        connection.heard(now);
        self.established_at = Some(now);
        if let Will::Up { retry_at, .. } = &mut self.will {
            *retry_at = None;
        }
        let rest: Vec<_> =
            self.connections.iter().map(|connection| connection.id).filter(|other| *other != id).collect();
        self.outputs.push_back(Output::Up { connection: id, negotiated, opens });
        for other in rest {
            self.fail(now, other, Notification::collision());
        }
    }

    /// UPDATE and ROUTE-REFRESH of an established session.
    fn routes(&mut self, now: Duration, id: ConnectionId, frame: Frame<'_>) {
        let connection = self.connections.iter().find(|connection| connection.id == id);
        let Some(Stage::Established { context, .. }) = connection.map(|connection| &connection.stage) else {
            return;
        };
        if self.records_updates && frame.kind == MessageKind::Update {
            self.outputs.push_back(Output::Recorded(frame.to_bytes()));
        }
        match Message::decode(frame, context) {
            Ok(Message::Update(update)) => {
                self.counters.treated_as_withdraw += u64::from(update.is_treated_as_withdraw());
                let discarded =
                    update.faults.iter().filter(|fault| fault.disposition == Disposition::Discard).count();
                self.counters.discarded_attributes += discarded as u64;
                self.outputs.push_back(Output::Update(Box::new(update)));
            }
            Ok(Message::RouteRefresh(refresh)) => self.outputs.push_back(Output::Refresh(refresh)),
            Ok(_) => {}
            Err(notification) => self.fail(now, id, notification),
        }
    }

    /// The hold time of an established session starts anew, as if what waits were read.
    fn unread(&mut self, now: Duration, id: ConnectionId) {
        if let Some(connection) = self.connection(id)
            && connection.stage.state() == State::Established
        {
            connection.heard(now);
        }
    }

    /// Ends a connection because of the peer.
    fn fail(&mut self, now: Duration, id: ConnectionId, notification: Notification) {
        self.refuse(now, id, &notification.clone(), DownCause::Sent(notification));
    }

    /// Ends a connection with a word to the peer, and a cause for our own people.
    fn refuse(&mut self, now: Duration, id: ConnectionId, notification: &Notification, cause: DownCause) {
        let Some(connection) = self.connections.iter().position(|connection| connection.id == id) else {
            return;
        };
        let connection = self.connections.remove(connection);
        self.send_notification(&connection, notification);
        self.after_loss(now, &connection, cause);
    }

    /// Ends a connection that the peer or the network ended.
    fn lost(&mut self, now: Duration, id: ConnectionId, cause: DownCause) {
        let Some(connection) = self.connections.iter().position(|connection| connection.id == id) else {
            return;
        };
        let connection = self.connections.remove(connection);
        if matches!(cause, DownCause::Received(_)) {
            self.outputs.push_back(Output::Close { connection: id });
        }
        self.after_loss(now, &connection, cause);
    }

    /// What follows when a connection is gone.
    fn after_loss(&mut self, now: Duration, connection: &Connection, cause: DownCause) {
        let silent = cause == DownCause::ConnectionLost;
        if let Stage::Established { negotiated, .. } = &connection.stage {
            let graceful = negotiated.is_graceful(&cause);
            let notification = match &cause {
                DownCause::Received(notification) | DownCause::Sent(notification) => {
                    Some(notification.clone())
                }
                _ => None,
            };
            self.went_down(Down { cause, graceful, notification });
        } else if self.connections.is_empty() {
            // A collision is nobody's fault, and a better cause is not overwritten by what follows from it.
            if !silent {
                self.last_down = Some(Down { cause, graceful: false, notification: None });
            }
        }
        if !self.connections.is_empty() || !matches!(self.will, Will::Up { .. }) {
            return;
        }
        if silent && connection.stage.state() == State::OpenSent {
            self.retry(now);
        } else {
            self.pause(now, true);
        }
    }

    /// Tells that the session is gone.
    fn went_down(&mut self, down: Down) {
        self.counters.downs += 1;
        self.last_down = Some(down.clone());
        self.outputs.push_back(Output::Down(down));
    }

    /// Pauses in Idle; longer each time if something went wrong.
    fn pause(&mut self, now: Duration, failed: bool) {
        let timers = &self.config.timers;
        let lasted = self.established_at.take().map(|since| now.saturating_sub(since));
        if !failed || lasted.is_some_and(|lasted| lasted >= timers.idle_hold_max) {
            self.failures = 0;
        }
        let pause = timers.idle_hold.saturating_mul(1 << self.failures.min(16)).min(timers.idle_hold_max);
        if failed {
            self.failures += 1;
        }
        let lasts = self.jitter.shorten(pause);
        self.will = Will::Pause { until: now + lasts, lasts };
    }

    /// Waits before the next connection is opened.
    fn retry(&mut self, now: Duration) {
        let Will::Up { retry_at, dialing } = &mut self.will else { return };
        *dialing = false;
        if self.config.passive {
            return;
        }
        let pause = if self.failed_dials < QUICK_RETRIES {
            self.jitter.between(Duration::from_secs(1), Duration::from_secs(5))
        } else {
            self.jitter.shorten(self.config.timers.connect_retry)
        };
        self.failed_dials += 1;
        *retry_at = Some(now + pause.min(self.config.timers.connect_retry));
    }

    /// Opens a connection if it is time.
    fn dial(&mut self, now: Duration) {
        let Will::Up { retry_at, dialing } = &mut self.will else { return };
        if retry_at.is_none_or(|at| at > now) || *dialing {
            return;
        }
        *retry_at = None;
        if self.connections.is_empty() {
            *dialing = true;
            self.outputs.push_back(Output::Connect);
        }
    }

    fn timer(&mut self, now: Duration) {
        if let Will::Pause { until, .. } = self.will
            && until <= now
        {
            self.begin(now);
        }
        self.dial(now);
        let ids: Vec<_> = self.connections.iter().map(|connection| connection.id).collect();
        for id in ids {
            let jitter = &mut self.jitter;
            let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) else {
                continue;
            };
            if connection.hold_at.is_some_and(|at| at <= now) {
                self.fail(now, id, Notification::hold_timer_expired());
            } else if connection.wants_keepalive(now, jitter) {
                self.send(id, MessageKind::Keepalive, encode_keepalive());
            }
        }
    }

    fn send_refresh(&mut self, family: Family) {
        let target = self.connections.iter().find_map(|connection| match &connection.stage {
            Stage::Established { negotiated, .. } => {
                (negotiated.refresh && negotiated.families.contains(family)).then_some(connection.id)
            }
            _ => None,
        });
        if let Some(id) = target {
            let refresh = RouteRefresh { family: family.afi_safi(), kind: RefreshKind::Request };
            self.send(id, MessageKind::RouteRefresh, refresh.encode());
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn send(&mut self, connection: ConnectionId, kind: MessageKind, bytes: Vec<u8>) {
        self.counters.sent.count(kind);
        self.outputs.push_back(Output::Send { connection, bytes });
    }

    /// Says why, and closes.
    fn send_notification(&mut self, connection: &Connection, notification: &Notification) {
        let bytes = notification.encode();
        self.send(connection.id, MessageKind::Notification, bytes);
        self.outputs.push_back(Output::Close { connection: connection.id });
    }
}

/// Whose connection stays when each side opened one (RFC 4271 section 6.8): that of the higher router id, of the higher
/// AS where the ids are equal (RFC 6286 section 2.3).
pub fn collision_winner(local_id: RouterId, negotiated: &Negotiated) -> Side {
    let ours = (local_id, negotiated.local_as);
    if ours > (negotiated.peer_id, negotiated.peer_as) { Side::Outgoing } else { Side::Incoming }
}
