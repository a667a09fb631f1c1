//! What a network of a column consists of, in nobody's configuration language.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// AS of the subject, and of whoever is internal to it.
pub(crate) const OURS: u32 = 64_511;
/// AS of an external peer: it does not fit into two bytes.
pub(crate) const THEIRS: u32 = 4_200_000_002;
/// AS of the source.
pub(crate) const SOURCE: u32 = 65_009;
/// An AS that was in a path before.
pub(crate) const BEFORE: u32 = 4_200_000_001;
/// Large communities of the route that needs an extended message: 12 bytes each.
pub(crate) const MANY: u32 = 400;

/// What the peer is to the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// A client of the subject, which reflects.
    Client,
    /// A neighbour in another AS.
    External,
    /// A neighbour in the same AS that is no client.
    Internal,
    /// The subject is its client.
    Reflector,
}

impl Role {
    pub(crate) const ALL: [Self; 4] = [Self::Client, Self::External, Self::Internal, Self::Reflector];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::External => "eBGP",
            Self::Internal => "iBGP",
            Self::Reflector => "reflector",
        }
    }

    pub(crate) fn peer_as(self) -> u32 {
        if self == Self::External { THEIRS } else { OURS }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Addresses of a node, from 1, on one of the subnets of the wire.
pub(crate) fn v4(link: u8, node: u8) -> IpAddr {
    Ipv4Addr::new(10, 99, link, node).into()
}

pub(crate) fn v6(link: u8, node: u8) -> IpAddr {
    Ipv6Addr::new(0xfd99, 0, 0, link.into(), 0, 0, 0, node.into()).into()
}

/// A neighbour that a speaker has.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is tried by itself")]
pub(crate) struct Session {
    /// One word; the same at both ends.
    pub(crate) name: &'static str,
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) remote_as: u32,
    /// What is exchanged; IPv4 over IPv6 needs [`Session::extended_next_hop`].
    pub(crate) families: Vec<Family>,
    /// The other end is our client.
    pub(crate) client: bool,
    /// Does not connect.
    pub(crate) passive: bool,
    /// Known by its range alone.
    pub(crate) dynamic: bool,
    pub(crate) password: Option<&'static str>,
    /// RFC 5082.
    pub(crate) secured: bool,
    pub(crate) bfd: bool,
    pub(crate) add_path: bool,
    pub(crate) extended_next_hop: bool,
    /// Restart time in seconds.
    pub(crate) graceful: Option<u16>,
    /// Stale time in seconds.
    pub(crate) long_lived: Option<u32>,
    pub(crate) prefixes_max: Option<u32>,
}

impl Session {
    /// A session over `link` between two nodes with nothing special.
    pub(crate) fn new(name: &'static str, local: IpAddr, remote: IpAddr, remote_as: u32) -> Self {
        Self {
            name,
            local,
            remote,
            remote_as,
            families: vec![if local.is_ipv4() { Family::V4 } else { Family::V6 }],
            client: false,
            passive: false,
            dynamic: false,
            password: None,
            secured: false,
            bfd: false,
            add_path: false,
            extended_next_hop: false,
            graceful: None,
            long_lived: None,
            prefixes_max: None,
        }
    }
}

/// A route of a speaker's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    pub(crate) prefix: String,
    /// Everything that a route can carry, from [`Carried::full`].
    pub(crate) full: bool,
    /// RFC 1997's word that keeps it within the AS.
    pub(crate) no_export: bool,
    /// [`MANY`] large communities.
    pub(crate) many: bool,
    /// Paths by their next hops, where it is not the speaker itself.
    pub(crate) next_hops: Vec<Ipv4Addr>,
}

impl Own {
    pub(crate) fn plain(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    pub(crate) fn family(&self) -> Family {
        family_of(&self.prefix)
    }
}

pub(crate) fn family_of(prefix: &str) -> Family {
    if prefix.contains(':') { Family::V6 } else { Family::V4 }
}

/// A speaker's whole configuration.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// From 1; the last part of its addresses, and its router id.
    pub(crate) node: u8,
    pub(crate) asn: u32,
    pub(crate) sessions: Vec<Session>,
    pub(crate) own: Vec<Own>,
    /// Equal paths go into the kernel as one route.
    pub(crate) multipath: bool,
}

impl Plan {
    pub(crate) fn router_id(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.node)
    }

    pub(crate) fn session(&self, name: &str) -> &Session {
        self.sessions.iter().find(|session| session.name == name).unwrap()
    }

    pub(crate) fn has(&self, of: fn(&Session) -> bool) -> bool {
        self.sessions.iter().any(of)
    }
}

/// A path as a speaker shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// Who told it; `None`: the speaker itself.
    pub(crate) from: Option<IpAddr>,
    pub(crate) next_hop: Option<IpAddr>,
    pub(crate) carried: Carried,
    pub(crate) originator: Option<Ipv4Addr>,
    pub(crate) cluster_list: Vec<Ipv4Addr>,
    pub(crate) stale: bool,
}

/// What a route carries end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) as_path: Vec<u32>,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    /// `A:B`, sorted.
    pub(crate) communities: BTreeSet<String>,
    /// `A:B` of route targets.
    pub(crate) targets: BTreeSet<String>,
    /// `A:B:C`.
    pub(crate) large: BTreeSet<String>,
}

impl Carried {
    /// What a speaker of AS `asn` tells of [`Own::full`] to one of AS `to`.
    pub(crate) fn full(asn: u32, to: u32) -> Self {
        let one = |text: &str| BTreeSet::from([text.to_owned()]);
        let external = asn != to;
        Self {
            as_path: if external { vec![asn, BEFORE] } else { vec![BEFORE] },
            med: Some(7),
            local_pref: (!external).then_some(200),
            communities: one("64511:1"),
            targets: one("64511:9"),
            large: one("4200000001:2:3"),
        }
    }
}

/// RFC 9494.
pub(crate) const LLGR_STALE: &str = "65535:6";
/// RFC 1997.
pub(crate) const NO_EXPORT: &str = "65535:65281";
