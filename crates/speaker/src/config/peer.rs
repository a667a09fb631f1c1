//! What is set for a neighbour, or for all neighbours of a dynamic range.

use crate::BfdSettings;
use isthmus_bgp::{Family, PeerKind};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// The family that a configuration calls so, if it is one that we speak.
pub(super) fn family_named(name: &str) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family.to_string() == name)
}

/// A password, which is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What leaves the AS path towards an external neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovePrivateAs {
    /// Private AS numbers are left out.
    All,
    /// Private AS numbers become ours.
    Replace,
}

/// How far away the neighbour may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// As its kind wants: external neighbours on the link, internal ones anywhere.
    Usual,
    /// This many hops at most: the TTL of what we send.
    Hops(u8),
    /// Packets leave with TTL 255, and arrive with this one at least (RFC 5082).
    Secured {
        /// The least TTL.
        ttl_min: u8,
    },
}

/// Timers of a session (RFC 4271 section 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Between attempts to connect.
    pub connect_retry: Duration,
    /// Without a word from the neighbour the session ends; zero: never.
    pub hold: Duration,
    /// Between keepalives; a third of the hold time unless told.
    pub keepalive: Duration,
    /// How long to stay idle after an administrator's reset.
    pub idle_hold: Duration,
}

/// How the TCP connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// We wait for the neighbour.
    pub passive: bool,
    /// Our end; `None`: the kernel's choice.
    pub local_address: Option<IpAddr>,
    /// Our port; 0: the kernel's choice.
    pub local_port: u16,
    /// The neighbour's port.
    pub remote_port: u16,
    /// Interface that the connection is bound to.
    pub bind_interface: Option<String>,
    /// Maximum segment size.
    pub tcp_mss: Option<u16>,
    /// TTL of what we send, where the distance says none.
    pub ttl: Option<u8>,
}

/// Graceful restart (RFC 4724, 8538, 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long the neighbour shall wait for us.
    pub restart_time: Duration,
    /// How long best paths wait for end-of-RIB after a restart of ours.
    pub deferral_time: Duration,
    /// How long stale routes are kept at most after the neighbour is back.
    pub stale_routes_time: Duration,
    /// We only help others that restart.
    pub helper_only: bool,
    /// Also after a NOTIFICATION (RFC 8538).
    pub notification: bool,
    /// Also long-lived (RFC 9494), for families that set a time.
    pub long_lived: bool,
}

/// Limit on prefixes of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimit {
    /// More than this many end the session (RFC 4486 subcode 1).
    pub max_prefixes: u32,
    /// From this percentage on there is a warning; 0: none.
    pub warn_percent: u8,
}

/// More than one path for a prefix (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPaths {
    /// We take several.
    pub receive: bool,
    /// We send up to this many; 0: only the best.
    pub send_max: u8,
}

/// One family of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilySettings {
    /// Which.
    pub family: Family,
    /// Most prefixes taken.
    pub prefix_limit: Option<PrefixLimit>,
    /// Several paths.
    pub add_paths: AddPaths,
    /// Whether graceful restart covers it.
    pub graceful_restart: bool,
    /// How long stale routes live after the restart time (RFC 9494).
    pub long_lived: Option<Duration>,
}

impl FamilySettings {
    /// Nothing but the family.
    pub fn new(family: Family) -> Self {
        Self {
            family,
            prefix_limit: None,
            add_paths: AddPaths::default(),
            graceful_restart: false,
            long_lived: None,
        }
    }
}

/// What is set for a neighbour besides its address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is set by itself, as in the file")]
pub struct PeerSettings {
    /// The neighbour's AS; `None`: any.
    pub peer_as: Option<u32>,
    /// Where that says nothing: whether the neighbour must be in our AS, or must not.
    pub peer_kind: Option<PeerKind>,
    /// The AS that we show to it.
    pub local_as: u32,
    /// The group whose settings lie under its own.
    pub peer_group: Option<String>,
    /// For people.
    pub description: String,
    /// Password of TCP MD5 (RFC 2385).
    pub password: Option<Password>,
    /// What leaves the AS path.
    pub remove_private_as: Option<RemovePrivateAs>,
    /// Starts shut down.
    pub admin_down: bool,
    /// How often our own AS may be in a path from it.
    pub allow_own_as: u8,
    /// Its AS in a path to it becomes ours.
    pub replace_peer_as: bool,
    /// Routes with an `AS_SET` are not taken from another AS (RFC 9774). GoBGP's file has to ask for it.
    pub refuse_as_sets: bool,
    /// Timers.
    pub timers: Timers,
    /// How the connection is made.
    pub transport: Transport,
    /// How far away it may be.
    pub distance: Distance,
    /// BFD (RFC 5881).
    pub bfd: Option<BfdSettings>,
    /// It is a client of this cluster id (RFC 4456).
    pub reflector_client: Option<Ipv4Addr>,
    /// Routes of our own AS go to it with the next hop that they came with, if it is in another AS. GoBGP has no key for it.
    pub third_party_next_hop: bool,
    /// Graceful restart.
    pub graceful_restart: Option<GracefulRestart>,
    /// What routes are exchanged; not empty.
    pub families: Vec<FamilySettings>,
}

impl PeerSettings {
    /// Settings with what is usual (RFC 4271 section 10, bounded where it leaves a choice), and one family.
    pub fn new(local_as: u32, peer_as: Option<u32>, family: Family) -> Self {
        let hold = Duration::from_secs(90);
        Self {
            peer_as,
            peer_kind: None,
            local_as,
            peer_group: None,
            description: String::new(),
            password: None,
            remove_private_as: None,
            admin_down: false,
            allow_own_as: 0,
            replace_peer_as: false,
            refuse_as_sets: true,
            timers: Timers {
                connect_retry: Duration::from_secs(30),
                hold,
                keepalive: hold / 3,
                idle_hold: Duration::from_secs(5),
            },
            transport: Transport {
                passive: false,
                local_address: None,
                local_port: 0,
                remote_port: 179,
                bind_interface: None,
                tcp_mss: None,
                ttl: None,
            },
            distance: Distance::Usual,
            reflector_client: None,
            third_party_next_hop: false,
            graceful_restart: None,
            families: vec![FamilySettings::new(family)],
            bfd: None,
        }
    }

    /// Whether the neighbour is known to be in our own AS.
    pub fn is_internal(&self) -> bool {
        self.peer_as == Some(self.local_as) || self.peer_kind == Some(PeerKind::Internal)
    }
}
