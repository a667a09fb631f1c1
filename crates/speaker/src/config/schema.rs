//! The keys of GoBGP's configuration: one table that says which there are, what they hold, and what we do with them.
//!
//! Key names and defaults are facts of GoBGP's file format (docs/sources/configuration.md there). A key that is not in
//! these tables is a fault; one that is [`Support::Later`] is read, checked, and told in a warning.

use super::{MonitoringPolicy, SentPolicy, stations::SENT_KEY};

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A text.
    Text,
    /// A text that is not empty.
    Name,
    /// A text, or a whole number that means the same as its text.
    Loose,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds.
    Number(i64, i64),
    /// Seconds, whole or with a fraction of zero, within bounds.
    Seconds(i64, i64),
    /// One of a few words.
    Word(&'static [&'static str]),
    /// An IP address.
    Address,
    /// An IPv4 address that is not 0.0.0.0.
    RouterId,
    /// A prefix such as 10.0.0.0/8.
    Prefix,
    /// A list of texts.
    Texts,
    /// A list of IP addresses.
    Addresses,
    /// A list of words.
    Words(&'static [&'static str]),
    /// A table.
    Table(&'static [Key]),
    /// A list of tables.
    Tables(&'static [Key]),
    /// Anything: a section that is not read.
    Anything,
}

/// What we do with a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Support {
    /// What it says.
    Full,
    /// Nothing yet; the text says what happens instead.
    Later(&'static str),
    /// As [`Support::Later`], but only where the value is not `false` or 0.
    LaterIfSet(&'static str),
    /// Nothing yet, and to go on without would be worse than not to start: a fault.
    Refused(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) support: Support,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, support: Support::Full }
}

const fn later(name: &'static str, kind: Kind, instead: &'static str) -> Key {
    Key { name, kind, support: Support::Later(instead) }
}

const fn later_if_set(name: &'static str, kind: Kind, instead: &'static str) -> Key {
    Key { name, kind, support: Support::LaterIfSet(instead) }
}

const fn refused(name: &'static str, why: &'static str) -> Key {
    Key { name, kind: Kind::Anything, support: Support::Refused(why) }
}

const ASN: Kind = Kind::Number(0, u32::MAX as i64);
const U32: Kind = Kind::Number(0, u32::MAX as i64);
const DEFAULT_ACTIONS: Kind = Kind::Word(&["accept-route", "reject-route"]);
const MATCH: Kind = Kind::Word(&["any", "all", "invert"]);
const MATCH_ANY: Kind = Kind::Word(&["any", "invert"]);
const PER_NEIGHBOR: &str = "has no effect: write it for each neighbour, or in a peer group";
/// GoBGP has no key for it; whoever writes one wants its protection.
const TCP_AO: &str = "is not done yet (RFC 5925), and many kernels lack it (CONFIG_TCP_AO): use auth-password, which is TCP MD5";
const NOT_YET: &str = "is not done yet and has no effect";

/// Names of address families, and those of them that we speak.
pub(super) const FAMILIES: &[&str] = &[
    "ipv4-unicast",
    "ipv6-unicast",
    "ipv4-multicast",
    "ipv6-multicast",
    "ipv4-labelled-unicast",
    "ipv6-labelled-unicast",
    "l3vpn-ipv4-unicast",
    "l3vpn-ipv6-unicast",
    "l3vpn-ipv4-multicast",
    "l3vpn-ipv6-multicast",
    "l2vpn-vpls",
    "l2vpn-evpn",
    "rtc",
    "ipv4-encap",
    "ipv6-encap",
    "ipv4-flowspec",
    "ipv6-flowspec",
    "l3vpn-ipv4-flowspec",
    "l3vpn-ipv6-flowspec",
    "l2vpn-flowspec",
    "ipv4-srpolicy",
    "ipv6-srpolicy",
    "opaque",
    "ls",
    "mup-ipv4",
    "mup-ipv6",
];

/// The whole file.
pub(super) const FILE: &[Key] = &[
    key("global", Kind::Table(GLOBAL)),
    key("isthmus", Kind::Table(&[key("config", Kind::Table(ISTHMUS))])),
    key("neighbors", Kind::Tables(NEIGHBOR)),
    key("peer-groups", Kind::Tables(PEER_GROUP)),
    key("dynamic-neighbors", Kind::Tables(DYNAMIC_NEIGHBOR)),
    key("defined-sets", Kind::Table(DEFINED_SETS)),
    key("policy-definitions", Kind::Tables(POLICY)),
    later("zebra", Kind::Anything, "is not used: Isthmus takes the kernel's routes itself"),
    later("netlink", Kind::Anything, "is not used: Isthmus takes the kernel's routes itself"),
    later("rpki-servers", Kind::Anything, "is not done yet: no route is validated"),
    key("bmp-servers", Kind::Tables(&[key("config", Kind::Table(BMP_SERVER))])),
    key("mrt-dump", Kind::Tables(&[key("config", Kind::Table(MRT_DUMP))])),
    later("vrfs", Kind::Anything, "is not done yet: there is only the global table"),
    later("collector", Kind::Anything, NOT_YET),
];

const GLOBAL: &[Key] = &[
    key(
        "config",
        Kind::Table(&[
            key("as", Kind::Number(1, u32::MAX as i64)),
            key("router-id", Kind::RouterId),
            key("port", Kind::Number(-1, 65_535)),
            key("local-address-list", Kind::Addresses),
        ]),
    ),
    key("apply-policy", Kind::Table(&[key("config", Kind::Table(APPLY_POLICY))])),
    key("use-multiple-paths", Kind::Table(MULTIPLE_PATHS)),
    key("graceful-restart", Kind::Table(&[key("config", Kind::Table(GLOBAL_GRACEFUL_RESTART))])),
    key("route-selection-options", Kind::Table(&[key("config", Kind::Table(ROUTE_SELECTION))])),
    later("afi-safis", Kind::Tables(AFI_SAFI), "has no effect: families are set for each neighbour"),
    later("default-route-distance", Kind::Anything, "is not used: routes carry no distance here"),
    later("confederation", Kind::Anything, "is not done yet: this speaker is in no confederation"),
];

// GoBGP raises intervals below 60 s; here they are taken as they are.
const MRT_INTERVAL: Kind = Kind::Number(0, 31_536_000);
const MRT_DUMP: &[Key] = &[
    key("dump-type", Kind::Word(&["updates", "table"])),
    key("file-name", Kind::Name),
    refused("table-name", "is not done yet: there is only the global table, of all neighbours; leave it out"),
    key("dump-interval", MRT_INTERVAL),
    key("rotation-interval", MRT_INTERVAL),
];

/// What GoBGP has no keys for. gobgpd refuses a file with this table.
const ISTHMUS: &[Key] =
    &[key("resolve-next-hops", Kind::Flag), key("client-to-client-reflection", Kind::Flag)];

const APPLY_POLICY: &[Key] = &[
    key("import-policy-list", Kind::Texts),
    key("default-import-policy", DEFAULT_ACTIONS),
    key("export-policy-list", Kind::Texts),
    key("default-export-policy", DEFAULT_ACTIONS),
];

const MULTIPLE_PATHS: &[Key] = &[
    key("config", Kind::Table(&[key("enabled", Kind::Flag)])),
    key(
        "ebgp",
        Kind::Table(&[key(
            "config",
            Kind::Table(&[
                later_if_set("allow-multiple-as", Kind::Flag, NOT_YET),
                key("maximum-paths", Kind::Number(0, 256)),
            ]),
        )]),
    ),
    key("ibgp", Kind::Table(&[key("config", Kind::Table(&[key("maximum-paths", Kind::Number(0, 256))]))])),
];

// RFC 4724 section 3: the restart time has 12 bits. RFC 9494 section 3.1: the stale time has 24.
const GLOBAL_GRACEFUL_RESTART: &[Key] = &[
    key("enabled", Kind::Flag),
    key("deferral-time", Kind::Seconds(0, 86_400)),
    later("restart-time", Kind::Seconds(0, 4_095), PER_NEIGHBOR),
    later("stale-routes-time", Kind::Seconds(0, 86_400), PER_NEIGHBOR),
    later_if_set("helper-only", Kind::Flag, PER_NEIGHBOR),
    later_if_set("notification-enabled", Kind::Flag, PER_NEIGHBOR),
    later_if_set("long-lived-enabled", Kind::Flag, PER_NEIGHBOR),
];

const GRACEFUL_RESTART: &[Key] = &[
    key("enabled", Kind::Flag),
    key("restart-time", Kind::Seconds(0, 4_095)),
    later("deferral-time", Kind::Seconds(0, 86_400), "has no effect: write it under global"),
    key("stale-routes-time", Kind::Seconds(0, 86_400)),
    key("helper-only", Kind::Flag),
    key("notification-enabled", Kind::Flag),
    key("long-lived-enabled", Kind::Flag),
];

const ROUTE_SELECTION: &[Key] = &[
    key("always-compare-med", Kind::Flag),
    key("ignore-as-path-length", Kind::Flag),
    key("external-compare-router-id", Kind::Flag),
    later_if_set("advertise-inactive-routes", Kind::Flag, NOT_YET),
    later_if_set("enable-aigp", Kind::Flag, NOT_YET),
    later_if_set("ignore-next-hop-igp-metric", Kind::Flag, "has no effect: no cost to a next hop is counted"),
    later_if_set("disable-best-path-selection", Kind::Flag, NOT_YET),
];

macro_rules! peer_tables {
    ($config:expr) => {
        &[
            key("config", Kind::Table($config)),
            key("as-path-options", Kind::Table(&[key("config", Kind::Table(AS_PATH_OPTIONS))])),
            key("timers", Kind::Table(&[key("config", Kind::Table(TIMERS))])),
            key("transport", Kind::Table(&[key("config", Kind::Table(TRANSPORT))])),
            key("ebgp-multihop", Kind::Table(&[key("config", Kind::Table(MULTIHOP))])),
            key("ttl-security", Kind::Table(&[key("config", Kind::Table(TTL_SECURITY))])),
            key("route-reflector", Kind::Table(&[key("config", Kind::Table(ROUTE_REFLECTOR))])),
            key("route-server", Kind::Table(&[key("config", Kind::Table(ROUTE_SERVER))])),
            key("add-paths", Kind::Table(&[key("config", Kind::Table(ADD_PATHS))])),
            key("graceful-restart", Kind::Table(&[key("config", Kind::Table(GRACEFUL_RESTART))])),
            key("apply-policy", Kind::Table(&[key("config", Kind::Table(APPLY_POLICY))])),
            key("afi-safis", Kind::Tables(AFI_SAFI)),
            later("use-multiple-paths", Kind::Anything, "has no effect: write it under global"),
            key("error-handling", Kind::Table(&[key("config", Kind::Table(ERROR_HANDLING))])),
            key("logging-options", Kind::Table(&[key("config", Kind::Table(LOGGING))])),
            key("bfd", Kind::Table(&[key("config", Kind::Table(BFD))])),
        ]
    };
}

const NEIGHBOR: &[Key] = peer_tables!(&[
    key("neighbor-address", Kind::Address),
    key("neighbor-interface", Kind::Name),
    key("peer-as", ASN),
    key("local-as", ASN),
    key("peer-group", Kind::Name),
    key("auth-password", Kind::Text),
    refused("tcp-ao", TCP_AO),
    key("description", Kind::Text),
    key("remove-private-as", REMOVE_PRIVATE),
    key("admin-down", Kind::Flag),
    key("peer-type", PEER_TYPE),
    later("vrf", Kind::Name, "is not done yet: the neighbour is in the global table"),
    later("send-community", SEND_COMMUNITY, "has no effect, as in gobgpd: communities are always sent"),
    later_if_set("send-software-version", Kind::Flag, NOT_YET),
    later_if_set("route-flap-damping", Kind::Flag, NOT_YET),
]);

const PEER_GROUP: &[Key] = peer_tables!(&[
    key("peer-group-name", Kind::Name),
    key("peer-as", ASN),
    key("local-as", ASN),
    key("auth-password", Kind::Text),
    refused("tcp-ao", TCP_AO),
    key("description", Kind::Text),
    key("remove-private-as", REMOVE_PRIVATE),
    key("peer-type", PEER_TYPE),
    later("send-community", SEND_COMMUNITY, "has no effect, as in gobgpd: communities are always sent"),
    later_if_set("send-software-version", Kind::Flag, NOT_YET),
    later_if_set("route-flap-damping", Kind::Flag, NOT_YET),
]);

const REMOVE_PRIVATE: Kind = Kind::Word(&["all", "replace"]);
const PEER_TYPE: Kind = Kind::Word(&["internal", "external"]);
const SEND_COMMUNITY: Kind = Kind::Word(&["standard", "extended", "both", "none"]);

const DYNAMIC_NEIGHBOR: &[Key] =
    &[key("config", Kind::Table(&[key("prefix", Kind::Prefix), key("peer-group", Kind::Name)]))];

// 1 to 14 s between reports are told apart with a better reason.
const BMP_SERVER: &[Key] = &[
    key("address", Kind::Address),
    key("port", Kind::Number(0, 65_535)),
    key("route-monitoring-policy", Kind::Word(MonitoringPolicy::WORDS)),
    key(SENT_KEY, Kind::Word(SentPolicy::WORDS)),
    key("statistics-timeout", Kind::Seconds(0, 65_535)),
    later_if_set("route-mirroring-enabled", Kind::Flag, "is not done yet: messages are not mirrored"),
    key("sys-name", Kind::Text),
    key("sys-descr", Kind::Text),
];

const AS_PATH_OPTIONS: &[Key] = &[
    key("allow-own-as", Kind::Number(0, 255)),
    key("replace-peer-as", Kind::Flag),
    // Ours, not GoBGP's (RFC 9774).
    key("refuse-as-sets", Kind::Flag),
    later_if_set("allow-as-path-loop-local", Kind::Flag, NOT_YET),
];

// RFC 4271 section 4.2: the hold time is 0 or at least 3 s, in 16 bits. 1 and 2 are told apart with a better reason.
const TIMERS: &[Key] = &[
    key("connect-retry", Kind::Seconds(1, 65_535)),
    key("hold-time", Kind::Seconds(0, 65_535)),
    key("keepalive-interval", Kind::Seconds(0, 21_845)),
    key("idle-hold-time-after-reset", Kind::Seconds(0, 65_535)),
    later_if_set(
        "minimum-advertisement-interval",
        Kind::Seconds(0, 65_535),
        "has no effect: changes are sent at once",
    ),
];

const TRANSPORT: &[Key] = &[
    key("passive-mode", Kind::Flag),
    key("local-address", Kind::Address),
    key("local-port", Kind::Number(0, 65_535)),
    key("remote-port", Kind::Number(1, 65_535)),
    key("bind-interface", Kind::Name),
    key("tcp-mss", Kind::Number(88, 65_495)),
    key("ttl", Kind::Number(1, 255)),
    later_if_set("ip-tos", Kind::Number(0, 255), "has no effect: packets have class selector 6 (RFC 4594)"),
    later_if_set("mtu-discovery", Kind::Flag, "has no effect: the kernel discovers the path MTU anyway"),
];

const MULTIHOP: &[Key] = &[key("enabled", Kind::Flag), key("multihop-ttl", Kind::Number(1, 255))];
const TTL_SECURITY: &[Key] = &[key("enabled", Kind::Flag), key("ttl-min", Kind::Number(1, 255))];
// Microseconds. RFC 5880 has no bounds; faster than this the pauses between two looks at the clock count.
const BFD_INTERVAL: Kind = Kind::Number(10_000, 60_000_000);
const BFD: &[Key] = &[
    key("enabled", Kind::Flag),
    key("port", Kind::Number(1, 65_535)),
    key("desired-minimum-tx-interval", BFD_INTERVAL),
    key("required-minimum-receive", BFD_INTERVAL),
    key("detection-multiplier", Kind::Number(1, 255)),
];
const ROUTE_REFLECTOR: &[Key] =
    &[key("route-reflector-client", Kind::Flag), key("route-reflector-cluster-id", Kind::RouterId)];
const ROUTE_SERVER: &[Key] = &[
    later_if_set(
        "route-server-client",
        Kind::Flag,
        "is not done yet: the neighbour is an ordinary one, so AS_PATH and next hop change on the way",
    ),
    later_if_set("secondary-route", Kind::Flag, NOT_YET),
];
const ADD_PATHS: &[Key] = &[key("receive", Kind::Flag), key("send-max", Kind::Number(0, 255))];
const ERROR_HANDLING: &[Key] =
    &[later("treat-as-withdraw", Kind::Flag, "has no effect: RFC 7606 is always kept")];
const LOGGING: &[Key] = &[later(
    "log-neighbor-state-changes",
    Kind::Flag,
    "has no effect: sessions that come and go are always logged",
)];

const AFI_SAFI: &[Key] = &[
    key("config", Kind::Table(&[key("afi-safi-name", Kind::Word(FAMILIES)), key("enabled", Kind::Flag)])),
    later(
        "mp-graceful-restart",
        Kind::Table(&[key("config", Kind::Table(&[key("enabled", Kind::Flag)]))]),
        "has no effect: graceful restart covers all families of the neighbour",
    ),
    key(
        "long-lived-graceful-restart",
        Kind::Table(&[key(
            "config",
            Kind::Table(&[
                key("enabled", Kind::Flag),
                later(
                    "restart-time",
                    Kind::Seconds(0, 16_777_215),
                    "counts for all families of the neighbour: the longest of them",
                ),
            ]),
        )]),
    ),
    key(
        "prefix-limit",
        Kind::Table(&[key(
            "config",
            Kind::Table(&[
                key("max-prefixes", U32),
                key("shutdown-threshold-pct", Kind::Number(0, 100)),
                later_if_set(
                    "restart-timer",
                    Kind::Seconds(0, 65_535),
                    "has no effect: enable the peer by hand",
                ),
            ]),
        )]),
    ),
    key("add-paths", Kind::Table(&[key("config", Kind::Table(ADD_PATHS))])),
    later("use-multiple-paths", Kind::Anything, "has no effect: write it under global"),
    later("apply-policy", Kind::Anything, "is not done yet: write the policy under global"),
    later("route-selection-options", Kind::Anything, "is not done yet: write the options under global"),
    later("route-target-membership", Kind::Anything, NOT_YET),
];

const DEFINED_SETS: &[Key] = &[
    key(
        "prefix-sets",
        Kind::Tables(&[
            key("prefix-set-name", Kind::Name),
            key(
                "prefix-list",
                Kind::Tables(&[key("ip-prefix", Kind::Prefix), key("masklength-range", Kind::Text)]),
            ),
        ]),
    ),
    key(
        "neighbor-sets",
        Kind::Tables(&[key("neighbor-set-name", Kind::Name), key("neighbor-info-list", Kind::Texts)]),
    ),
    later("tag-sets", Kind::Anything, NOT_YET),
    key(
        "bgp-defined-sets",
        Kind::Table(&[
            key(
                "community-sets",
                Kind::Tables(&[key("community-set-name", Kind::Name), key("community-list", Kind::Texts)]),
            ),
            key(
                "ext-community-sets",
                Kind::Tables(&[
                    key("ext-community-set-name", Kind::Name),
                    key("ext-community-list", Kind::Texts),
                ]),
            ),
            key(
                "large-community-sets",
                Kind::Tables(&[
                    key("large-community-set-name", Kind::Name),
                    key("large-community-list", Kind::Texts),
                ]),
            ),
            key(
                "as-path-sets",
                Kind::Tables(&[key("as-path-set-name", Kind::Name), key("as-path-list", Kind::Texts)]),
            ),
        ]),
    ),
];

const POLICY: &[Key] = &[
    key("name", Kind::Name),
    key(
        "statements",
        Kind::Tables(&[
            key("name", Kind::Name),
            key("conditions", Kind::Table(CONDITIONS)),
            key("actions", Kind::Table(ACTIONS)),
        ]),
    ),
];

const COMPARED: &[Key] = &[
    key("operator", Kind::Word(&["eq", "ge", "le", "attribute-eq", "attribute-ge", "attribute-le"])),
    key("value", Kind::Number(0, 65_535)),
];

const CONDITIONS: &[Key] = &[
    key(
        "match-prefix-set",
        Kind::Table(&[key("prefix-set", Kind::Name), key("match-set-options", MATCH_ANY)]),
    ),
    key(
        "match-neighbor-set",
        Kind::Table(&[key("neighbor-set", Kind::Name), key("match-set-options", MATCH_ANY)]),
    ),
    key("bgp-conditions", Kind::Table(BGP_CONDITIONS)),
];

const BGP_CONDITIONS: &[Key] = &[
    key(
        "match-community-set",
        Kind::Table(&[key("community-set", Kind::Name), key("match-set-options", MATCH)]),
    ),
    key(
        "match-ext-community-set",
        Kind::Table(&[key("ext-community-set", Kind::Name), key("match-set-options", MATCH)]),
    ),
    key(
        "match-large-community-set",
        Kind::Table(&[key("large-community-set", Kind::Name), key("match-set-options", MATCH)]),
    ),
    key("match-as-path-set", Kind::Table(&[key("as-path-set", Kind::Name), key("match-set-options", MATCH)])),
    key("as-path-length", Kind::Table(COMPARED)),
    key("community-count", Kind::Table(COMPARED)),
    later(
        "rpki-validation-result",
        Kind::Word(&["none", "not-found", "valid", "invalid"]),
        "is not done yet: the condition is never met",
    ),
    key("route-type", Kind::Word(&["internal", "external", "local"])),
    key("next-hop-in-list", Kind::Texts),
    key("afi-safi-in-list", Kind::Words(FAMILIES)),
    key("origin-eq", Kind::Word(&["igp", "egp", "incomplete"])),
    key("med-eq", U32),
    key("local-pref-eq", U32),
];

const ACTIONS: &[Key] =
    &[key("route-disposition", DEFAULT_ACTIONS), key("bgp-actions", Kind::Table(BGP_ACTIONS))];

const SET_HOW: Kind = Kind::Word(&["add", "remove", "replace"]);

const BGP_ACTIONS: &[Key] = &[
    key("set-med", Kind::Loose),
    key("set-local-pref", U32),
    key("set-next-hop", Kind::Text),
    key("set-route-origin", Kind::Word(&["igp", "egp", "incomplete"])),
    key("set-as-path-prepend", Kind::Table(&[key("as", Kind::Loose), key("repeat-n", Kind::Number(1, 255))])),
    key(
        "set-community",
        Kind::Table(&[
            key("options", SET_HOW),
            key("set-community-method", Kind::Table(&[key("communities-list", Kind::Texts)])),
        ]),
    ),
    key(
        "set-ext-community",
        Kind::Table(&[
            key("options", SET_HOW),
            key("set-ext-community-method", Kind::Table(&[key("communities-list", Kind::Texts)])),
        ]),
    ),
    key(
        "set-large-community",
        Kind::Table(&[
            key("options", SET_HOW),
            key("set-large-community-method", Kind::Table(&[key("communities-list", Kind::Texts)])),
        ]),
    ),
];
