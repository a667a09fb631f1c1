//! What somebody decides about a peer. All of it can hold only what makes sense together, or is checked where it is used.
#![expect(clippy::struct_excessive_bools, reason = "each is a switch that somebody sets by itself")]

use crate::{
    number::{Asn, Family, FamilySet, RouterId},
    policy::Policy,
    session::PeerKind,
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

/// What the session needs to know. A change of any of it needs a new session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Our AS towards this peer.
    pub local_as: Asn,
    /// Our router id.
    pub local_id: RouterId,
    /// The peer's AS; `None` takes any.
    pub peer_as: Option<Asn>,
    /// Whether the peer must be in our AS, or must not, where [`Self::peer_as`] says nothing.
    pub peer_kind: Option<PeerKind>,
    /// Families to offer.
    pub families: FamilySet,
    /// Times.
    pub timers: Timers,
    /// Waits for the peer to connect, and never does so itself.
    pub passive: bool,
    /// Starts in [`crate::session::State::Idle`] and stays there until [`crate::session::Input::Start`].
    pub admin_down: bool,
    /// Families for which several paths to one prefix are taken (RFC 7911).
    pub add_path_receive: FamilySet,
    /// Families for which several paths to one prefix are sent, if the peer takes them.
    pub add_path_send: FamilySet,
    /// Offers messages of up to 65,535 bytes (RFC 8654).
    pub extended_message: bool,
    /// Offers IPv4 prefixes with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Offers graceful restart (RFC 4724); `None` sends no such capability.
    pub graceful_restart: Option<GracefulRestart>,
    /// Paths from another AS must start with that AS.
    pub enforce_first_as: bool,
    /// Paths with sets are not taken from other ASes (RFC 9774).
    pub refuse_as_sets: bool,
    /// Told to the peer as our name (capability 73), at most 255 bytes of it.
    pub host_name: Option<String>,
    /// Told to the peer as our software (capability 75), at most 255 bytes of it.
    pub software_version: Option<String>,
}

impl SessionConfig {
    /// A session with what is usual: both ends try to connect, IPv4 unicast, no graceful restart.
    pub fn new(local_as: Asn, local_id: RouterId, peer_as: Option<Asn>) -> Self {
        Self {
            local_as,
            local_id,
            peer_as,
            peer_kind: None,
            families: [Family::Ipv4Unicast].into_iter().collect(),
            timers: Timers::default(),
            passive: false,
            admin_down: false,
            add_path_receive: FamilySet::NONE,
            add_path_send: FamilySet::NONE,
            extended_message: true,
            extended_next_hop: false,
            graceful_restart: None,
            enforce_first_as: true,
            refuse_as_sets: true,
            host_name: None,
            software_version: None,
        }
    }
}

/// Times of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Silence after which the peer is taken for dead; 0 for never, else at least 3 s. Whole seconds.
    pub hold: Duration,
    /// Between two KEEPALIVEs; `None` is a third of the negotiated hold time, which is also the most.
    pub keepalive: Option<Duration>,
    /// Between two attempts to connect.
    pub connect_retry: Duration,
    /// Pause after the first failure of a session; it doubles with each further one.
    pub idle_hold: Duration,
    /// Longest pause after failures.
    pub idle_hold_max: Duration,
    /// How long a peer may take nothing of what is to be written; `None` is twice the negotiated hold time, at least
    /// 8 minutes (RFC 9687 section 3.1).
    pub send_hold: Option<Duration>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(90),
            keepalive: None,
            connect_retry: Duration::from_secs(30),
            idle_hold: Duration::from_secs(5),
            idle_hold_max: Duration::from_mins(1),
            send_hold: None,
        }
    }
}

/// Graceful restart (RFC 4724, 8538, 9494), what we offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long the peer shall keep our routes; at most 4,095 s.
    pub restart_time: Duration,
    /// Only help a peer that restarts: offer no family of our own.
    pub helper_only: bool,
    /// We have just restarted: sets the R bit.
    pub restarting: bool,
    /// Our data path went on working meanwhile: sets the F bits.
    pub forwarding: bool,
    /// Also after NOTIFICATION and hold timer (RFC 8538, N bit).
    pub notification: bool,
    /// Longest time that a peer's routes are kept as stale after it is back.
    pub stale_path_time: Duration,
    /// Keep routes for this long after the restart time (RFC 9494); `None` does not offer it.
    pub long_lived: Option<Duration>,
}

impl Default for GracefulRestart {
    fn default() -> Self {
        Self {
            restart_time: Duration::from_mins(2),
            helper_only: false,
            restarting: false,
            forwarding: true,
            notification: true,
            stale_path_time: Duration::from_mins(6),
            long_lived: None,
        }
    }
}

/// What happens to the routes of a peer.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The peer is our client (RFC 4456). Only for iBGP.
    pub reflector_client: bool,
    /// Our cluster towards this peer; `None` is the router's.
    pub cluster_id: Option<RouterId>,
    /// Puts ourselves as next hop into what iBGP peers get from eBGP ones. Reflected routes keep theirs.
    pub next_hop_self: bool,
    /// What iBGP peers told us keeps its next hop towards this eBGP peer, which can reach it as we do (RFC 4271
    /// section 5.1.3, a third party's).
    pub third_party_next_hop: bool,
    /// Our next hop for IPv4 prefixes where the session's own address is not the one.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 prefixes where the session's own address is not the one.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// How often our own AS may stand in a path that is taken.
    pub allow_own_as: u8,
    /// Replaces the peer's AS in paths by ours when sending.
    pub replace_peer_as: bool,
    /// What becomes of private AS numbers when sending to eBGP peers.
    pub remove_private_as: Option<RemovePrivateAs>,
    /// Transparent towards this eBGP peer (RFC 7947): path, next hop and MED stay as they are.
    pub route_server_client: bool,
    /// Most paths to one prefix that are sent with path ids.
    pub add_path_send_max: u8,
    /// How many prefixes are taken.
    pub prefix_limits: BTreeMap<Family, PrefixLimit>,
    /// What is taken from the peer.
    pub import: Arc<dyn Policy>,
    /// What is sent to the peer. Peers share what is encoded for them only if they have the very same `Arc`.
    pub export: Arc<dyn Policy>,
}

impl PeerConfig {
    /// Takes and sends everything under these policies, with no limit.
    pub fn new(import: Arc<dyn Policy>, export: Arc<dyn Policy>) -> Self {
        Self {
            reflector_client: false,
            cluster_id: None,
            next_hop_self: false,
            third_party_next_hop: false,
            next_hop_v4: None,
            next_hop_v6: None,
            allow_own_as: 0,
            replace_peer_as: false,
            remove_private_as: None,
            route_server_client: false,
            add_path_send_max: 8,
            prefix_limits: BTreeMap::new(),
            import,
            export,
        }
    }
}

/// What becomes of private AS numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemovePrivateAs {
    /// They are taken out.
    All,
    /// Our own stands in their place.
    Replace,
}

/// How many prefixes of a family a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimit {
    /// One more ends the session with Cease 1.
    pub max: u32,
    /// Per cent of the limit at which one is warned; 0 never does.
    pub warn_percent: u8,
}
