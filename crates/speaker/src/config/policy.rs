//! Route policy as it is written: sets with names, policies of statements, and which apply.

use super::pattern::Pattern;
use ipnet::IpNet;
use isthmus_bgp::Family;
use std::{collections::BTreeMap, net::IpAddr};

/// All of it. Every name that is used is defined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Sets by name.
    pub sets: DefinedSets,
    /// Policies, in the file's order.
    pub policies: Vec<PolicyDefinition>,
    /// Statements that no policy has; they come through the API.
    pub spare: Vec<Statement>,
    /// What applies to routes that come in.
    pub import: Assignment,
    /// What applies to routes that go out.
    pub export: Assignment,
}

/// Policies that apply, and what becomes of a route that none of them decides about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Names, in order.
    pub policies: Vec<String>,
    /// The end. GoBGP accepts unless told, on external sessions too (unlike RFC 8212).
    pub default: Disposition,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// It passes.
    #[default]
    Accept,
    /// It does not pass.
    Reject,
}

/// Sets that conditions refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefinedSets {
    /// Prefixes with bounds of the length.
    pub prefixes: BTreeMap<String, Vec<PrefixRange>>,
    /// Neighbours, by address or network.
    pub neighbors: BTreeMap<String, Vec<IpNet>>,
    /// Communities (RFC 1997).
    pub communities: BTreeMap<String, Vec<Pattern>>,
    /// Extended communities (RFC 4360).
    pub ext_communities: BTreeMap<String, Vec<Pattern>>,
    /// Large communities (RFC 8092).
    pub large_communities: BTreeMap<String, Vec<Pattern>>,
    /// AS paths.
    pub as_paths: BTreeMap<String, Vec<Pattern>>,
}

/// A prefix and how long those within may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixRange {
    /// What holds them.
    pub prefix: IpNet,
    /// Shortest.
    pub len_min: u8,
    /// Longest.
    pub len_max: u8,
}

impl PrefixRange {
    /// Whether `prefix` is within.
    pub fn contains(&self, prefix: &IpNet) -> bool {
        (self.len_min..=self.len_max).contains(&prefix.prefix_len())
            && self.prefix.contains(&prefix.network())
    }
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDefinition {
    /// Its name.
    pub name: String,
    /// What it does, in order.
    pub statements: Vec<Statement>,
}

/// What is done if all conditions are met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Its name; GoBGP gives one where none is written.
    pub name: String,
    /// All of which must be met.
    pub conditions: Conditions,
    /// What is done then.
    pub actions: Actions,
}

/// How a set is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatchOption {
    /// Something of the route is in the set.
    #[default]
    Any,
    /// Every member of the set is met by something of the route.
    All,
    /// Nothing of the route is in the set.
    Invert,
}

/// A set in a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetMatch {
    /// Its name.
    pub set: String,
    /// How.
    pub option: MatchOption,
}

/// How a number is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The same.
    Equal(u32),
    /// At least.
    AtLeast(u32),
    /// At most.
    AtMost(u32),
}

impl Compared {
    /// Whether `number` meets it.
    pub fn is_met(self, number: u32) -> bool {
        match self {
            Self::Equal(value) => number == value,
            Self::AtLeast(value) => number >= value,
            Self::AtMost(value) => number <= value,
        }
    }
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteType {
    /// A neighbour in our AS.
    Internal,
    /// A neighbour in another AS.
    External,
    /// Ourselves.
    Local,
}

/// ORIGIN (RFC 4271 section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginWord {
    /// 0.
    Igp,
    /// 1.
    Egp,
    /// 2.
    Incomplete,
}

/// Conditions of a statement; what is absent is met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The prefix.
    pub prefix: Option<SetMatch>,
    /// The neighbour it comes from, or goes to.
    pub neighbor: Option<SetMatch>,
    /// Its communities.
    pub community: Option<SetMatch>,
    /// Its extended communities.
    pub ext_community: Option<SetMatch>,
    /// Its large communities.
    pub large_community: Option<SetMatch>,
    /// Its AS path.
    pub as_path: Option<SetMatch>,
    /// Length of the AS path.
    pub as_path_length: Option<Compared>,
    /// Number of communities.
    pub community_count: Option<Compared>,
    /// Where it comes from.
    pub route_type: Option<RouteType>,
    /// Its next hop; empty: any.
    pub next_hops: Vec<IpNet>,
    /// Its family; empty: any.
    pub families: Vec<Family>,
    /// ORIGIN.
    pub origin: Option<OriginWord>,
    /// MED; a route without has none.
    pub med: Option<u32>,
    /// `LOCAL_PREF`; a route without has 100.
    pub local_pref: Option<u32>,
    /// Something that is never met, because we cannot judge it.
    pub never: bool,
}

/// What a statement does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Decides; `None`: the next statement does.
    pub disposition: Option<Disposition>,
    /// MED.
    pub med: Option<MedAction>,
    /// `LOCAL_PREF`.
    pub local_pref: Option<u32>,
    /// Next hop.
    pub next_hop: Option<NextHopAction>,
    /// ORIGIN.
    pub origin: Option<OriginWord>,
    /// AS path.
    pub prepend: Option<Prepend>,
    /// Communities.
    pub community: Option<CommunityAction<u32>>,
    /// Extended communities.
    pub ext_community: Option<CommunityAction<u64>>,
    /// Large communities.
    pub large_community: Option<CommunityAction<(u32, u32, u32)>>,
}

/// What becomes of MED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MedAction {
    /// This value.
    Set(u32),
    /// More or less than it was; stays within 32 bits.
    Add(i64),
}

/// What becomes of the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopAction {
    /// This address.
    Address(IpAddr),
    /// Our own end of the session.
    Own,
    /// The neighbour's end of the session.
    Peer,
    /// As it came.
    Unchanged,
}

/// What goes in front of the AS path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepend {
    /// `None`: the path's leftmost.
    pub asn: Option<u32>,
    /// How often.
    pub repeat: u8,
}

/// What becomes of communities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommunityAction<C> {
    /// These are added.
    Add(Vec<C>),
    /// What fits is removed.
    Remove(Vec<Pattern>),
    /// These are all there is.
    Replace(Vec<C>),
}
