//! One task for each neighbour: it owns the session and its connections, and never waits for the owner of the routes, so
//! that keepalives go out and hold timers are kept however long the routes take.
//!
//! ```text
//!  sockets ─▶ Links ─▶ Session ─▶ events ─▶ owner of the routes
//!     ▲                  │                        │
//!     └──── keepalives ──┘◀──── commands: UPDATEs, stop, start, accepted connections
//! ```
//!
//! While the owner takes no events, nothing is read: TCP slows the neighbour down. UPDATEs are sent by credit: the owner
//! gives one batch when the task says that it is ready, and the task is ready again when little is left of it. A small batch
//! the owner writes itself where nothing else waits ([`Shortcut`]).

mod connection;
mod link;
mod outlet;

use crate::{
    bfd::{BfdStatus, Watched},
    config::PeerSettings,
    interface,
    listeners::ttl_min,
    mrt::Tap,
    netstat::Md5Drops,
    socket,
    unnumbered::Location,
    view::{AdminState, Agreement, PeerStatus, SessionState},
};
use connection::Piece;
pub(crate) use connection::{Shortcut, Written};
use futures::{FutureExt, future::BoxFuture};
use isthmus_bgp::{
    Asn, SessionConfig, bfd,
    mrt::{Ends, SessionMessage, StateChange},
    session::{
        ConnectionId, Counters, Down, DownCause, Input, Negotiated, Opens, Output, Session, Side, State,
        StopReason,
    },
    wire::{RouteRefresh, ShutdownText, Update},
};
use link::{LinkEvent, Links, READ_BYTES_MAX};
pub(crate) use outlet::Outlet;
use outlet::Room;
use std::{
    future::{pending, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

/// Commands that may wait for a task. It takes them at once, so more means that it hangs.
pub(crate) const COMMANDS_MAX: usize = 64;
/// What is left in the queue when the next batch of UPDATEs is asked for.
const QUEUE_LOW_BYTES: usize = 256 << 10;
/// Connections of one neighbour: two while it is settled which stays, and some that just end.
const LINKS_MAX: usize = 8;
/// How long TCP may try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Names a neighbour's task for as long as the speaker runs.
pub(crate) type PeerKey = u64;

/// What a task tells the owner of the routes.
#[derive(Debug)]
pub(crate) struct FromPeer {
    pub(crate) peer: PeerKey,
    pub(crate) events: Vec<PeerEvent>,
    /// Free again when this is dropped.
    _room: Room,
}

/// One thing that happened in a session.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// It is established, for this many-th time.
    Up { epoch: u64, negotiated: Arc<Negotiated>, established: Arc<Established>, shortcut: Shortcut },
    /// It is gone.
    Down(Box<Down>),
    /// The neighbour's routes changed.
    Update(Box<Update>),
    /// The neighbour wants our routes again, or says so of its own.
    Refresh(RouteRefresh),
    /// The next batch of UPDATEs may come.
    Ready { epoch: u64 },
    /// A neighbour on an interface is there now, or it is not known where.
    Located(Option<Ipv6Addr>),
    /// The state is this one.
    State(SessionState),
    /// The task has ended.
    Ended,
}

/// A session as it began.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) opens: Opens,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) at: SystemTime,
}

/// What the owner tells a task.
#[derive(Debug)]
pub(crate) enum Command {
    Start,
    Stop(StopReason),
    /// A connection that the neighbour opened.
    Accepted(TcpStream),
    /// Messages with routes, of the session with this number.
    Updates {
        epoch: u64,
        messages: Vec<Arc<[u8]>>,
    },
    /// Wants all routes of the neighbour once more.
    Refresh,
    /// Says this, and ends.
    End(StopReason),
    /// Ends without a word, so that the neighbour takes it for a restart and keeps our routes (RFC 4724 section 4.2).
    Leave,
}

/// What a task is made of.
#[derive(Debug)]
pub(crate) struct PeerSetup {
    pub(crate) key: PeerKey,
    pub(crate) address: IpAddr,
    /// Where it is, if it is a neighbour on an interface.
    pub(crate) location: Option<watch::Receiver<Location>>,
    pub(crate) settings: Arc<PeerSettings>,
    pub(crate) session: SessionConfig,
    /// It came by itself, and ends with its connection.
    pub(crate) is_dynamic: bool,
    /// Its BFD session, where it has one.
    pub(crate) bfd: Option<Watched>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: Outlet,
    /// Where dumps take what it sends.
    pub(crate) tap: Tap,
    pub(crate) status: watch::Sender<PeerStatus>,
}

/// Runs a neighbour until it is told to end, or for a dynamic one until its connection ends.
pub(crate) async fn run(setup: PeerSetup) {
    let task = Task::new(setup);
    task.run().await;
}

struct Task {
    setup: PeerSetup,
    /// How it is called in the log.
    name: String,
    session: Session,
    links: Links,
    dial: Option<BoxFuture<'static, io::Result<TcpStream>>>,
    started: Instant,
    next_connection: u64,
    /// The connection that routes go out on.
    established: Option<ConnectionId>,
    epoch: u64,
    /// A batch was asked for.
    is_ready_told: bool,
    /// What the owner does not know yet. While there is something, nothing is read.
    pending: Vec<PeerEvent>,
    /// Bytes that it came from.
    pending_bytes: usize,
    /// Our turn to tell it.
    room: Option<BoxFuture<'static, Room>>,
    dial_error: Option<String>,
    /// What the kernel had dropped when a connection last got no answer.
    md5_drops: Option<Md5Drops>,
    /// How often BFD had found the path broken.
    bfd_failures: u64,
    /// Of the session that is established, or was last.
    negotiated: Option<Arc<Negotiated>>,
    /// As it was told last.
    state: State,
    had_connection: bool,
    is_ending: bool,
}

/// What woke the task.
enum Woken {
    Command(Option<Command>),
    Dialed(io::Result<TcpStream>),
    Link(LinkEvent),
    /// BFD is another.
    Bfd,
    /// It is elsewhere, or it is not known where.
    Located,
    /// The owner has room.
    Room(Room),
    Timer,
}

impl Task {
    fn new(setup: PeerSetup) -> Self {
        // Differs among neighbours, which is all that it is for.
        let seed = setup.key ^ u64::from(std::process::id()) << 32;
        let session = Session::new(setup.session.clone(), seed, Duration::ZERO);
        Self {
            name: interface::shown(setup.address),
            setup,
            session,
            links: Links::default(),
            dial: None,
            started: Instant::now(),
            next_connection: 0,
            established: None,
            epoch: 0,
            is_ready_told: false,
            pending: Vec::new(),
            pending_bytes: 0,
            room: None,
            dial_error: None,
            md5_drops: None,
            bfd_failures: 0,
            negotiated: None,
            state: State::Idle,
            had_connection: false,
            is_ending: false,
        }
    }

    async fn run(mut self) {
        let mut buffer = vec![0; READ_BYTES_MAX];
        // The first timer starts the session: a connection that is there already finds it waiting.
        self.session.handle(self.started.elapsed(), Input::Timer);
        self.outputs();
        self.publish();
        loop {
            let woken = self.wait(&mut buffer).await;
            self.handle(woken, &buffer);
            self.links.sweep(Instant::now());
            self.drop_stalled();
            self.outputs();
            self.ask_for_updates();
            // Whoever is told that something happened finds it published.
            self.publish();
            self.tell();
            let is_done = self.is_ending || (self.setup.is_dynamic && self.had_connection);
            if is_done && self.links.is_empty() {
                break;
            }
        }
        self.setup.events.tell_end(self.setup.key, self.pending);
    }

    async fn wait(&mut self, buffer: &mut [u8]) -> Woken {
        let may_read = self.pending.is_empty();
        let until = [
            self.session.poll_timeout().map(|at| self.started + at),
            self.links.deadline(),
            self.stalls_at(),
        ];
        let until = until.into_iter().flatten().min();
        let (links, dial, room) = (&mut self.links, &mut self.dial, &mut self.room);
        let (bfd, location) = (&mut self.setup.bfd, &mut self.setup.location);
        tokio::select! {
            biased;
            command = self.setup.commands.recv(), if !self.is_ending => Woken::Command(command),
            () = async { match until { Some(at) => sleep_until(at).await, None => pending().await } } => Woken::Timer,
            () = bfd_changed(bfd) => Woken::Bfd,
            () = location_changed(location) => Woken::Located,
            stream = async { match dial { Some(dial) => dial.await, None => pending().await } } => Woken::Dialed(stream),
            event = poll_fn(|cx| links.poll_next(cx, may_read, buffer)) => Woken::Link(event),
            room = async { match room { Some(room) => room.await, None => pending().await } } => Woken::Room(room),
        }
    }

    fn handle(&mut self, woken: Woken, buffer: &[u8]) {
        let now = self.started.elapsed();
        match woken {
            Woken::Command(Some(command)) => self.command(now, command),
            // The owner is gone: the process ends.
            Woken::Command(None) => self.end(now, StopReason::AdminShutdown(ShutdownText::default())),
            Woken::Dialed(result) => {
                self.dial = None;
                match result {
                    Ok(stream) => {
                        self.dial_error = None;
                        self.connected(now, stream, Side::Outgoing);
                    }
                    Err(why) => {
                        tracing::debug!(peer = %self.name, %why, "cannot connect");
                        self.dial_error = Some(self.dial_failure(&why));
                        self.session.handle(now, Input::ConnectFailed);
                    }
                }
            }
            Woken::Link(LinkEvent::Read(connection, bytes)) => {
                self.pending_bytes += bytes;
                let bytes = buffer.get(..bytes).unwrap_or_default();
                self.session.record_updates(self.setup.tap.is_open());
                self.session.handle(now, Input::Received { connection, bytes });
            }
            Woken::Link(LinkEvent::Closed(connection)) => {
                self.session.handle(now, Input::Closed { connection });
            }
            Woken::Bfd => self.bfd_changed(now),
            Woken::Located => self.located(now),
            Woken::Link(LinkEvent::Wrote) => {}
            Woken::Room(room) => {
                self.room = None;
                self.hand_over(room);
            }
            Woken::Timer => {
                // While the owner has no room, a neighbour is not silent because we do not listen.
                for connection in self.links.unread() {
                    self.session.handle(now, Input::Unread { connection });
                }
                self.session.handle(now, Input::Timer);
            }
        }
    }

    fn command(&mut self, now: Duration, command: Command) {
        match command {
            Command::Start => self.session.handle(now, Input::Start),
            Command::Stop(reason) => self.session.handle(now, Input::Stop(reason)),
            Command::Refresh => {
                for settings in &self.setup.settings.families {
                    self.session.handle(now, Input::SendRefresh(settings.family));
                }
            }
            Command::End(reason) => self.end(now, reason),
            Command::Leave => {
                self.is_ending = true;
                self.dial = None;
                self.links.abort_all();
            }
            Command::Accepted(stream) => {
                let peer = &self.name;
                if self.links.len() >= LINKS_MAX {
                    tracing::debug!(peer, "connection dropped: the neighbour has too many");
                    return;
                }
                let tuned = stream.peer_addr().and_then(|from| {
                    socket::tune_accepted(&stream, from.ip().to_canonical(), &self.setup.settings)
                });
                if let Err(why) = tuned {
                    tracing::debug!(peer, %why, "an accepted connection cannot be set up");
                    return;
                }
                self.connected(now, stream, Side::Incoming);
            }
            Command::Updates { epoch, messages } => {
                let Some(connection) = self.established.filter(|_| epoch == self.epoch) else { return };
                self.is_ready_told = false;
                self.session.count_sent_updates(messages.iter().map(|bytes| count_messages(bytes)).sum());
                for bytes in messages {
                    self.links.send(connection, Piece::Shared(bytes));
                }
            }
        }
    }

    /// RFC 5882 section 3.2: a broken path ends the session at once; a BFD session that is stopped says nothing of the path.
    fn bfd_changed(&mut self, now: Duration) {
        let Some(status) = self.bfd_status() else { return };
        let is_broken = status.failures > self.bfd_failures;
        self.bfd_failures = status.failures;
        if is_broken && self.established.is_some() {
            self.session.handle(now, Input::Stop(StopReason::BfdDown));
        } else if is_broken && status.is_peer_independent {
            // RFC 5882 section 4.3.2: BFD that outlives a restart tells that this is none. Routes that are kept for it go.
            let cause = DownCause::Stopped(StopReason::BfdDown);
            let down = Down { cause, graceful: false, notification: None };
            self.pending.push(PeerEvent::Down(Box::new(down)));
        }
    }

    /// A link that is down, or gone, has taken its connections with it.
    fn located(&mut self, now: Duration) {
        let Some(location) = &mut self.setup.location else { return };
        let address = location.borrow_and_update().address;
        if address.is_none() {
            for connection in self.links.ids() {
                self.links.reset(connection);
                self.session.handle(now, Input::Closed { connection });
            }
        }
        // What was tried, or is being opened, was where it was.
        self.dial_error = None;
        if self.dial.is_some() {
            self.connect();
        }
        self.pending.push(PeerEvent::Located(address.map(|address| *address.ip())));
    }

    fn bfd_status(&mut self) -> Option<BfdStatus> {
        Some(self.setup.bfd.as_mut()?.status.borrow_and_update().clone())
    }

    fn end(&mut self, now: Duration, reason: StopReason) {
        self.is_ending = true;
        self.dial = None;
        // BFD ends with the task: a neighbour that hears its goodbye before our last word takes the path for broken.
        self.session.handle(now, Input::Stop(reason));
    }

    fn connected(&mut self, now: Duration, stream: TcpStream, side: Side) {
        let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
            // Gone between accept and here.
            if side == Side::Outgoing {
                self.session.handle(now, Input::ConnectFailed);
            }
            return;
        };
        self.had_connection = true;
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.links.add(connection, stream);
        let (local, peer) = (local.ip().to_canonical(), peer.ip().to_canonical());
        self.session.handle(now, Input::Connected { connection, side, local, peer });
    }

    fn outputs(&mut self) {
        // Nothing may come behind our last word.
        if let Some(connection) = self.established.filter(|_| self.session.state() != State::Established) {
            self.links.end_updates(connection);
        }
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Connect => self.connect(),
                Output::Send { connection, bytes } => self.links.send(connection, Piece::Own(bytes)),
                Output::Close { connection } => self.links.close(connection),
                Output::Up { connection, negotiated, opens } => {
                    self.established = Some(connection);
                    self.epoch += 1;
                    self.is_ready_told = false;
                    self.dial_error = None;
                    let established = Arc::new(self.went_up(&negotiated, connection, opens));
                    self.negotiated = Some(Arc::clone(&negotiated));
                    let shortcut = self.links.take_updates(connection);
                    let epoch = self.epoch;
                    self.pending.push(PeerEvent::Up { epoch, negotiated, established, shortcut });
                }
                Output::Down(down) => {
                    self.established = None;
                    self.went_down(&down.cause);
                    self.pending.push(PeerEvent::Down(Box::new(down)));
                }
                Output::Recorded(bytes) => {
                    if let Some(negotiated) = &self.negotiated {
                        self.setup.tap.message(&SessionMessage::received(negotiated, bytes));
                    }
                }
                Output::Update(update) => self.pending.push(PeerEvent::Update(update)),
                Output::Refresh(refresh) => self.pending.push(PeerEvent::Refresh(refresh)),
                Output::StateChanged(state) => {
                    tracing::debug!(peer = %self.name, %state, "session changed its state");
                    self.tap_state(state);
                    self.pending.push(PeerEvent::State(shown_state(state)));
                }
            }
        }
    }

    /// Dumps have each change of the state; before there was a session, with what is configured.
    fn tap_state(&mut self, state: State) {
        let old = std::mem::replace(&mut self.state, state);
        if !self.setup.tap.is_open() {
            return;
        }
        let (settings, negotiated) = (&self.setup.settings, self.negotiated.as_deref());
        let ends = Ends {
            peer_as: negotiated.map_or(Asn(settings.peer_as.unwrap_or(0)), |negotiated| negotiated.peer_as),
            local_as: negotiated.map_or(Asn(settings.local_as), |negotiated| negotiated.local_as),
            interface: 0,
            peer: negotiated.map_or_else(|| self.known_address(), |negotiated| negotiated.peer_address),
            local: negotiated.map_or(Ipv4Addr::UNSPECIFIED.into(), |negotiated| negotiated.local_address),
        };
        self.setup.tap.state(&StateChange { ends, as4: true, old: old.into(), new: state.into() });
    }

    /// The neighbour's address as far as it is known before a session: one on an interface may have any.
    fn known_address(&self) -> IpAddr {
        match interface::of(self.setup.address) {
            Some(_) => Ipv6Addr::UNSPECIFIED.into(),
            None => self.setup.address,
        }
    }

    fn connect(&mut self) {
        let (address, settings) = (self.setup.address, self.setup.settings.clone());
        let location = self.setup.location.clone();
        self.dial = Some(
            async move {
                let target = match location {
                    None => SocketAddr::new(address, settings.transport.remote_port),
                    Some(location) => until_located(location, settings.transport.remote_port).await?,
                };
                match timeout(CONNECT_TIMEOUT, socket::connect(target, &settings)).await {
                    Ok(result) => result,
                    Err(_late) => Err(io::ErrorKind::TimedOut.into()),
                }
            }
            .boxed(),
        );
    }

    fn went_up(&self, negotiated: &Negotiated, connection: ConnectionId, opens: Opens) -> Established {
        let (asn, at) = (negotiated.peer_as, SystemTime::now());
        tracing::info!(peer = %self.name, %asn, router_id = %negotiated.peer_id, "session established");
        self.setup.status.send_modify(|status| {
            status.up_at = Some(at);
            status.agreement = Some(Agreement {
                peer_as: negotiated.peer_as,
                peer_id: negotiated.peer_id,
                local_address: negotiated.local_address,
                hold: negotiated.hold,
                keepalive: negotiated.keepalive,
                local_capabilities: negotiated.local_capabilities.clone(),
                peer_capabilities: negotiated.peer_capabilities.clone(),
            });
        });
        let (local_port, remote_port) = self.links.ports(connection);
        Established { opens, local_port, remote_port, at }
    }

    fn went_down(&self, cause: &DownCause) {
        tracing::info!(peer = %self.name, why = %cause, "session ended");
        self.setup.status.send_modify(|status| {
            status.down_at = Some(SystemTime::now());
            status.agreement = None;
        });
    }

    /// RFC 9687: who takes nothing for long is dropped without a word, which would wait in the queue too.
    fn stalls_at(&self) -> Option<Instant> {
        Some(self.links.stalled_since(self.established?)? + self.session.send_hold()?)
    }

    fn drop_stalled(&mut self) {
        let is_stalled = self.stalls_at().is_some_and(|at| at <= Instant::now());
        if let Some(connection) = self.established.filter(|_| is_stalled) {
            let queued_bytes = self.links.queued_bytes(connection);
            tracing::warn!(peer = %self.name, queued_bytes, "neighbour takes nothing of what we send: connection dropped");
            self.links.reset(connection);
            self.session.handle(self.started.elapsed(), Input::Stalled { connection });
        }
    }

    fn ask_for_updates(&mut self) {
        let Some(connection) = self.established.filter(|_| !self.is_ready_told) else { return };
        if self.links.queued_bytes(connection) < QUEUE_LOW_BYTES {
            self.is_ready_told = true;
            self.pending.push(PeerEvent::Ready { epoch: self.epoch });
        }
    }

    /// Hands over what happened, if the owner has room; else waits for our turn.
    fn tell(&mut self) {
        if self.pending.is_empty() || self.room.is_some() {
            return;
        }
        match self.setup.events.try_room(self.pending_bytes) {
            Some(room) => self.hand_over(room),
            None => self.room = Some(self.setup.events.room(self.pending_bytes)),
        }
    }

    fn hand_over(&mut self, room: Room) {
        self.pending_bytes = 0;
        self.setup.events.tell(self.setup.key, std::mem::take(&mut self.pending), room);
    }

    fn publish(&self) {
        let why = self.why();
        let location = self.setup.location.as_ref().and_then(|location| location.borrow().address);
        let queued = self.established.map_or(0, |connection| self.links.queued_bytes(connection));
        let counters: Counters = *self.session.counters();
        let down = self.session.last_down().map(|down| &down.cause);
        let admin = match down {
            Some(DownCause::Stopped(StopReason::PrefixLimit { .. })) if self.session.is_stopped() => {
                AdminState::PrefixLimit
            }
            _ if self.session.is_stopped() => AdminState::Down,
            _ => AdminState::Up,
        };
        self.setup.status.send_modify(|status| {
            status.state = shown_state(self.session.state());
            status.admin = admin;
            status.received = counters.received;
            status.sent = counters.sent;
            status.flaps = u32::try_from(counters.downs).unwrap_or(u32::MAX);
            status.queued_bytes = queued;
            status.location = location;
            status.treated_as_withdraw = counters.treated_as_withdraw;
            if status.why != why {
                status.why = why;
            }
        });
    }

    /// Why the session is not established, for people.
    fn why(&self) -> String {
        let state = self.session.state();
        if state == State::Established {
            return String::new();
        }
        let last = self.session.last_down().map(|down| down.cause.to_string());
        if self.session.is_stopped() {
            return last.unwrap_or_else(|| "shut down by configuration (admin-down)".to_owned());
        }
        let now = match (state, &self.dial_error) {
            (State::OpenSent, _) => Some(format!("waiting for its OPEN{}", self.distance_hint())),
            (State::OpenConfirm, _) => Some("waiting for its KEEPALIVE".to_owned()),
            _ if self.missing_why().is_some() => self.missing_why(),
            (State::Idle, None) if last.is_some() => None,
            (_, Some(error)) => Some(error.clone()),
            (_, None) if self.setup.settings.transport.passive => {
                let password =
                    self.setup.settings.password.as_ref().map_or("", |_| " with our auth-password");
                Some(format!("waiting for it to connect{password} (passive-mode)"))
            }
            _ => Some("connecting".to_owned()),
        };
        let why = match (now, last) {
            (None, Some(last)) => format!("{last}; tries again {} s after that", self.pause_seconds()),
            (now, last) => [now, last].into_iter().flatten().collect::<Vec<_>>().join("; last: "),
        };
        match &self.setup.bfd {
            Some(bfd) if bfd.status.borrow().state != bfd::State::Up => {
                format!("{why}; BFD: {}", *bfd.status.borrow())
            }
            _ => why,
        }
    }

    /// Why it is not known where a neighbour on an interface is.
    fn missing_why(&self) -> Option<String> {
        let location = self.setup.location.as_ref()?.borrow();
        location.address.is_none().then(|| location.why.clone())
    }

    /// Whole seconds of the pause; at least one, so that nobody reads that there is none.
    fn pause_seconds(&self) -> u64 {
        self.session.waits().unwrap_or_default().as_millis().div_ceil(1_000).max(1) as u64
    }

    fn dial_failure(&mut self, why: &io::Error) -> String {
        let what = match why.kind() {
            io::ErrorKind::ConnectionRefused => "refused".to_owned(),
            io::ErrorKind::TimedOut => format!("without an answer{}", self.silence()),
            io::ErrorKind::HostUnreachable => {
                "failed: no route to host, or nobody there has this address".to_owned()
            }
            io::ErrorKind::NetworkUnreachable => "failed: the kernel has no route to it".to_owned(),
            io::ErrorKind::AddrNotAvailable => {
                let local = self.setup.settings.transport.local_address;
                let local = local.map(|local| format!(" ({local})")).unwrap_or_default();
                format!("failed: no interface has our address{local}: correct local-address")
            }
            _ => format!("failed: {why}"),
        };
        let (address, port) = (self.setup.address, self.setup.settings.transport.remote_port);
        let located = self.setup.location.as_ref().and_then(|location| location.borrow().address);
        match located {
            Some(located) => format!("TCP to [{}%{}]:{port} {what}", located.ip(), self.name),
            None => format!("TCP to {} {what}", SocketAddr::new(address, port)),
        }
    }

    /// Why a neighbour may not answer, as far as can be told: who has another password drops segments without a word.
    fn silence(&mut self) -> String {
        let has_password = self.setup.settings.password.is_some();
        let drops = Md5Drops::read();
        let before = std::mem::replace(&mut self.md5_drops, drops);
        let hint = drops.zip(before).and_then(|(now, before)| now.hint(before, has_password));
        let general = has_password.then(|| "its password may differ from our auth-password".to_owned());
        let reasons = [general, hint].into_iter().flatten().map(|reason| format!("; {reason}"));
        reasons.collect::<String>() + &self.distance_hint()
    }

    /// What a neighbour whose TTL is checked may do wrong.
    fn distance_hint(&self) -> String {
        match ttl_min(&self.setup.settings) {
            0 => String::new(),
            least => format!("; what it sends may come with a TTL below {least} (ttl-security)"),
        }
    }
}

/// Ends when it is known where a neighbour on an interface is.
async fn until_located(mut location: watch::Receiver<Location>, port: u16) -> io::Result<SocketAddr> {
    let found = location.wait_for(|location| location.address.is_some()).await;
    let found = found.ok().and_then(|location| location.address);
    let mut found = found.ok_or_else(|| io::Error::other("nobody looks for it any longer"))?;
    found.set_port(port);
    Ok(found.into())
}

async fn location_changed(location: &mut Option<watch::Receiver<Location>>) {
    match location {
        Some(location) => match location.changed().await {
            Ok(()) => {}
            Err(_gone) => pending().await,
        },
        None => pending().await,
    }
}

async fn bfd_changed(bfd: &mut Option<Watched>) {
    match bfd {
        // Its thread is gone: there will be no more news.
        Some(watched) => match watched.status.changed().await {
            Ok(()) => {}
            Err(_gone) => pending().await,
        },
        None => pending().await,
    }
}

/// Messages in a row, each with its length in bytes 16 and 17 (RFC 4271 section 4.1).
pub(crate) fn count_messages(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(&[high, low]) = bytes.get(16..18) {
        count += 1;
        let length = usize::from(u16::from_be_bytes([high, low]));
        bytes = bytes.get(length.max(1)..).unwrap_or_default();
    }
    count
}

fn shown_state(state: State) -> SessionState {
    match state {
        State::Idle => SessionState::Idle,
        State::Connect => SessionState::Connect,
        State::Active => SessionState::Active,
        State::OpenSent => SessionState::OpenSent,
        State::OpenConfirm => SessionState::OpenConfirm,
        State::Established => SessionState::Established,
    }
}

#[cfg(test)]
mod tests;
