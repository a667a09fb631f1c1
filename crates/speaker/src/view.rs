//! What the speaker shows of itself: copies that its owner hands out, so that nobody else looks into the engine.

use crate::{
    BfdStatus,
    config::{PeerSettings, StationSettings},
};
use isthmus_bgp::{
    Asn, Attributes, Family, PathId, Prefix, RouterId, session::MessageCounts, wire::Capability,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::{Duration, SystemTime},
};
use uuid::Uuid;

/// The speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalView {
    /// Its AS.
    pub asn: u32,
    /// Its router id.
    pub router_id: Ipv4Addr,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Several equal paths are used for one prefix.
    pub multipath: bool,
}

/// State of a session (RFC 4271 section 8.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// Nothing is tried.
    #[default]
    Idle,
    /// TCP is being connected.
    Connect,
    /// Waiting for the neighbour, or for the next attempt.
    Active,
    /// Our OPEN is sent.
    OpenSent,
    /// The neighbour's OPEN is accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

/// What an administrator, or a limit, wants of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminState {
    /// It shall be up.
    #[default]
    Up,
    /// It is shut down.
    Down,
    /// It sent more prefixes than allowed, and waits for an administrator.
    PrefixLimit,
}

/// What the neighbour and we agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Its AS.
    pub peer_as: Asn,
    /// Its router id.
    pub peer_id: RouterId,
    /// Our end of the connection.
    pub local_address: IpAddr,
    /// Hold time; zero: none.
    pub hold: Duration,
    /// Between keepalives.
    pub keepalive: Duration,
    /// What we announced.
    pub local_capabilities: Vec<Capability>,
    /// What it announced.
    pub peer_capabilities: Vec<Capability>,
}

/// How a session is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its state.
    pub state: SessionState,
    /// What is wanted of it.
    pub admin: AdminState,
    /// While established.
    pub agreement: Option<Agreement>,
    /// Messages from the neighbour.
    pub received: MessageCounts,
    /// Messages to the neighbour.
    pub sent: MessageCounts,
    /// How often an established session ended.
    pub flaps: u32,
    /// When it was established last.
    pub up_at: Option<SystemTime>,
    /// When it ended last.
    pub down_at: Option<SystemTime>,
    /// Why it is not established; empty where it is.
    pub why: String,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Routes wait to be sent: its Adj-RIB-Out is ahead of what it knows.
    pub is_sending: bool,
    /// Where a neighbour on an interface was found, with the number of the link; the port is 0.
    pub location: Option<SocketAddrV6>,
    /// UPDATEs whose routes counted as withdrawn because of a fault (RFC 7606).
    pub treated_as_withdraw: u64,
}

/// Routes of one family of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyCounts {
    /// Which.
    pub family: Family,
    /// Received, with those that were refused.
    pub received: u64,
    /// Accepted.
    pub accepted: u64,
    /// Sent.
    pub advertised: u64,
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its address, or what names it if it is on an interface ([`crate::interface`]).
    pub address: IpAddr,
    /// What is set for it.
    pub settings: Arc<PeerSettings>,
    /// How the session is.
    pub status: PeerStatus,
    /// How BFD is, where it is configured.
    pub bfd: Option<BfdStatus>,
    /// Its routes.
    pub families: Vec<FamilyCounts>,
}

/// Who sent a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceView {
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// Its router id.
    pub router_id: RouterId,
    /// Whether the AS is another than ours.
    pub external: bool,
}

/// A path to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "marks that are shown beside a path, each for itself")]
pub struct PathView {
    /// Where it leads.
    pub prefix: Prefix,
    /// The sender's number of it (RFC 7911).
    pub path_id: PathId,
    /// What it carries.
    pub attributes: Arc<Attributes>,
    /// Who sent it; `None`: it is our own.
    pub source: Option<SourceView>,
    /// When it came, if that is kept.
    pub received_at: Option<SystemTime>,
    /// It is the best one.
    pub best: bool,
    /// It was refused.
    pub filtered: bool,
    /// Its next hop leads nowhere.
    pub unresolved: bool,
    /// Its sender is away, and it is kept nevertheless.
    pub stale: bool,
    /// It is gone: only in changes.
    pub withdrawn: bool,
    /// Name of a path that was put in through the API.
    pub uuid: Option<Uuid>,
}

/// A prefix and the paths to it, the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationView {
    /// The prefix.
    pub prefix: Prefix,
    /// The paths.
    pub paths: Vec<PathView>,
}

/// Some of all routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesPage {
    /// Prefixes and all paths to them, as they came.
    pub destinations: Vec<DestinationView>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<u32>,
}

/// What is thought of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathVerdict {
    /// It is the best.
    Best,
    /// It is used beside the best.
    Used,
    /// Another one is better.
    Worse,
    /// It cannot be used.
    Excluded,
}

/// A path, what is thought of it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReason {
    /// The path.
    pub path: PathView,
    /// What is thought of it.
    pub verdict: PathVerdict,
    /// Why, in one word for machines.
    pub reason: &'static str,
    /// Why, for people.
    pub why: String,
}

/// Whether a neighbour is told of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncementView {
    /// The neighbour.
    pub neighbor: IpAddr,
    /// It is.
    pub announced: bool,
    /// Why not, in one word for machines.
    pub reason: &'static str,
    /// Why not, for people.
    pub why: String,
}

/// Why the routes to a prefix are as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyView {
    /// The prefix.
    pub prefix: Prefix,
    /// All paths, the best first.
    pub paths: Vec<PathReason>,
    /// All neighbours by address.
    pub announcements: Vec<AnnouncementView>,
}

/// Which routes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// All eligible ones.
    Global,
    /// What this neighbour sent.
    AdjIn(IpAddr),
    /// What of that policy accepted, and as it left it.
    Accepted(IpAddr),
    /// What it was sent.
    AdjOut(IpAddr),
}

/// Which prefixes of a table are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This one.
    Exact(Prefix),
    /// This one and what is within.
    Longer(Prefix),
    /// This one and what it is within.
    Shorter(Prefix),
    /// The narrowest one with this address.
    Covering(IpAddr),
}

/// How many routes a table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Prefixes.
    pub destinations: u64,
    /// Paths.
    pub paths: u64,
    /// Accepted paths of what a neighbour sent.
    pub accepted: u64,
}

/// A monitoring station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationView {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is set for it.
    pub settings: StationSettings,
    /// How it is.
    pub status: StationStatus,
}

/// How a monitoring station is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StationStatus {
    /// It is being told.
    pub is_up: bool,
    /// It knows all that there is, as far as it took what was written.
    pub is_current: bool,
    /// When it was reached last.
    pub up_at: Option<SystemTime>,
    /// When it was lost last.
    pub down_at: Option<SystemTime>,
    /// Why it is not told; empty where it is.
    pub why: String,
    /// Messages to it, since the speaker has it.
    pub messages: u64,
    /// Bytes to it, since the speaker has it.
    pub bytes: u64,
    /// How often its connection was lost, since the speaker has it.
    pub losses: u64,
    /// Routes that it was not told, because no message holds them, since the speaker has it.
    pub left_out: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session changed its state.
    Peer(Box<PeerView>),
    /// Best paths changed.
    Best(Vec<PathView>),
    /// A neighbour sent paths.
    AdjIn(Vec<PathView>),
    /// What policy left of paths that a neighbour sent.
    Accepted(Vec<PathView>),
    /// A neighbour has sent all paths of a family.
    EndOfRib(IpAddr, Family),
}
