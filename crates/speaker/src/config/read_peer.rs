//! Turns a neighbour's tables into its settings, and tells what does not fit together.

use super::{
    check::Checker,
    node::Node,
    peer::{
        AddPaths, Distance, FamilySettings, GracefulRestart, Password, PeerSettings, PrefixLimit,
        RemovePrivateAs, Timers, Transport, family_named,
    },
};
use crate::{
    bfd::{self, BfdSettings},
    interface,
    sys::MD5_PASSWORD_BYTES_MAX,
};
use isthmus_bgp::{Family, PeerKind, bfd::Timing};
use std::{net::IpAddr, net::Ipv4Addr, time::Duration};

/// GoBGP's default, and RFC 4271's.
const HOLD: Duration = Duration::from_secs(90);
/// GoBGP waits for two minutes, and for half a minute after a reset: a peer that comes back is seen sooner here.
const CONNECT_RETRY: Duration = Duration::from_secs(30);
const IDLE_HOLD: Duration = Duration::from_secs(5);
/// GoBGP's default.
const DEFERRAL: Duration = Duration::from_mins(6);
/// GoBGP keeps stale routes until end-of-RIB, however late; a bound must be there (RFC 4724 section 4.2).
const STALE_ROUTES: Duration = Duration::from_mins(6);
/// GoBGP's defaults.
const BFD_INTERVAL: Duration = Duration::from_secs(1);
const BFD_MULTIPLIER: u8 = 3;
/// IANA's port of BGP.
const PORT: u16 = 179;

/// What of the global section settings depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) asn: u32,
    pub(super) router_id: Ipv4Addr,
}

/// One neighbour's or group's tables while they are read.
pub(super) struct PeerReader<'r, 'a, 't> {
    pub(super) checker: &'r mut Checker<'a>,
    /// The neighbour's tables over those of its group.
    pub(super) node: Node<'t>,
    /// `neighbors` or `dynamic-neighbors`, for faults.
    pub(super) path: &'static str,
    pub(super) defaults: Defaults,
}

impl PeerReader<'_, '_, '_> {
    /// Reads all. `address` is that of the neighbour, or one of a dynamic range; it decides the family where none is given.
    pub(super) fn settings(&mut self, address: IpAddr) -> PeerSettings {
        let config = self.node.table("config");
        if !config.has("peer-as") && !config.has("peer-type") {
            self.warn(
                &config,
                "",
                "config.peer-as",
                "is not written: any AS is accepted; write 0 to mean it",
            );
        }
        let peer_as = config.number::<u32>("peer-as").filter(|asn| *asn != 0);
        let settings = PeerSettings {
            peer_as,
            peer_kind: self.peer_kind(&config).filter(|_| peer_as.is_none()),
            local_as: config.number("local-as").filter(|asn| *asn != 0).unwrap_or(self.defaults.asn),
            peer_group: config.text("peer-group"),
            description: config.text("description").unwrap_or_default(),
            password: self.password(&config),
            remove_private_as: config.text("remove-private-as").map(|word| match word.as_str() {
                "all" => RemovePrivateAs::All,
                _ => RemovePrivateAs::Replace,
            }),
            admin_down: config.flag("admin-down").unwrap_or(false),
            allow_own_as: self.node.config("as-path-options").number("allow-own-as").unwrap_or(0),
            replace_peer_as: self.node.config("as-path-options").flag("replace-peer-as").unwrap_or(false),
            // gobgpd takes them.
            refuse_as_sets: self.node.config("as-path-options").flag("refuse-as-sets").unwrap_or(false),
            timers: self.timers(),
            transport: self.transport(address),
            distance: self.distance(),
            bfd: self.bfd(address),
            reflector_client: self.reflector_client(),
            third_party_next_hop: false,
            graceful_restart: self.graceful_restart(),
            families: self.families(address),
        };
        self.internal(&settings);
        settings
    }

    /// `peer-type`: what the AS must be where none is written.
    fn peer_kind(&mut self, config: &Node<'_>) -> Option<PeerKind> {
        let kind = match config.text("peer-type")?.as_str() {
            "internal" => PeerKind::Internal,
            _ => PeerKind::External,
        };
        if config.number::<u32>("peer-as").is_some_and(|asn| asn != 0) {
            self.warn(config, "peer-type", "config.peer-type", "has no effect: peer-as says it");
        }
        Some(kind)
    }

    fn password(&mut self, config: &Node<'_>) -> Option<Password> {
        let password = config.text("auth-password")?;
        if password.len() > MD5_PASSWORD_BYTES_MAX {
            let why = format!(
                "has {} bytes, and TCP MD5 (RFC 2385) takes {MD5_PASSWORD_BYTES_MAX} at most",
                password.len()
            );
            self.fault(config, "auth-password", "config.auth-password", &why);
        }
        Some(Password(password))
    }

    fn timers(&mut self) -> Timers {
        let config = self.node.config("timers");
        let hold = config.seconds("hold-time").unwrap_or(HOLD);
        // RFC 4271 section 4.2.
        if matches!(hold.as_secs(), 1 | 2) {
            self.fault(&config, "hold-time", "timers.config.hold-time", "must be 0 or at least 3 s");
        }
        let keepalive = config.seconds("keepalive-interval").filter(|every| !every.is_zero());
        if keepalive.is_some_and(|every| !hold.is_zero() && every >= hold) {
            let why = format!("is not below the hold time of {} s, so the session would end", hold.as_secs());
            self.fault(&config, "keepalive-interval", "timers.config.keepalive-interval", &why);
        }
        Timers {
            connect_retry: config.seconds("connect-retry").unwrap_or(CONNECT_RETRY),
            hold,
            keepalive: keepalive.unwrap_or(hold / 3),
            idle_hold: config.seconds("idle-hold-time-after-reset").unwrap_or(IDLE_HOLD),
        }
    }

    fn transport(&mut self, address: IpAddr) -> Transport {
        let config = self.node.config("transport");
        // GoBGP writes 0.0.0.0 and :: for "the kernel's choice".
        let local = config.address("local-address").filter(|local| !local.is_unspecified());
        if interface::of(address).is_some() {
            for key in ["local-address", "bind-interface"] {
                if config.has(key) {
                    let why = "is not for a neighbour on an interface, where both have link-local addresses";
                    self.fault(&config, key, &format!("transport.config.{key}"), why);
                }
            }
        } else if local.is_some_and(|local| local.is_ipv4() != address.is_ipv4()) {
            let why = format!("is of another family than {address}");
            self.fault(&config, "local-address", "transport.config.local-address", &why);
        }
        Transport {
            passive: config.flag("passive-mode").unwrap_or(false),
            local_address: local,
            local_port: config.number("local-port").unwrap_or(0),
            remote_port: config.number("remote-port").unwrap_or(PORT),
            bind_interface: config.text("bind-interface"),
            tcp_mss: config.number("tcp-mss"),
            ttl: config.number("ttl"),
        }
    }

    fn distance(&mut self) -> Distance {
        let multihop = self.node.config("ebgp-multihop");
        let security = self.node.config("ttl-security");
        match (multihop.flag("enabled"), security.flag("enabled")) {
            (Some(true), Some(true)) => {
                let why =
                    "cannot be on together with ebgp-multihop: ttl-min says how far the neighbour may be";
                self.fault(&security, "enabled", "ttl-security.config.enabled", why);
                Distance::Usual
            }
            (Some(true), _) => Distance::Hops(multihop.number("multihop-ttl").unwrap_or(255)),
            (_, Some(true)) => Distance::Secured { ttl_min: security.number("ttl-min").unwrap_or(255) },
            _ => Distance::Usual,
        }
    }

    fn bfd(&mut self, address: IpAddr) -> Option<BfdSettings> {
        let config = self.node.config("bfd");
        if !config.flag("enabled").unwrap_or(false) {
            return None;
        }
        if interface::of(address).is_some() {
            let why = "is not done yet for a neighbour on an interface: a broken path is found by the link or the hold time";
            self.warn(&config, "enabled", "bfd.config.enabled", why);
            return None;
        }
        if self.node.config("ebgp-multihop").flag("enabled") == Some(true) {
            let why = "never comes up with a neighbour that is not on the link: multihop BFD (RFC 5883) is not done";
            self.warn(&config, "enabled", "bfd.config.enabled", why);
        }
        let micros = |key| config.number(key).map_or(BFD_INTERVAL, Duration::from_micros);
        Some(BfdSettings {
            timing: Timing {
                desired_min_tx: micros("desired-minimum-tx-interval"),
                required_min_rx: micros("required-minimum-receive"),
                multiplier: config.number("detection-multiplier").unwrap_or(BFD_MULTIPLIER),
            },
            port: config.number("port").unwrap_or(bfd::PORT),
        })
    }

    fn reflector_client(&mut self) -> Option<Ipv4Addr> {
        let config = self.node.config("route-reflector");
        let cluster_id = config.router_id("route-reflector-cluster-id").unwrap_or(self.defaults.router_id);
        config.flag("route-reflector-client").unwrap_or(false).then_some(cluster_id)
    }

    fn graceful_restart(&mut self) -> Option<GracefulRestart> {
        let config = self.node.config("graceful-restart");
        if !config.flag("enabled").unwrap_or(false) {
            return None;
        }
        let hold = self.node.config("timers").seconds("hold-time").unwrap_or(HOLD);
        Some(GracefulRestart {
            // RFC 4724 section 3: 12 bits.
            restart_time: config.seconds("restart-time").unwrap_or(hold).min(Duration::from_secs(4_095)),
            deferral_time: config.seconds("deferral-time").unwrap_or(DEFERRAL),
            stale_routes_time: config.seconds("stale-routes-time").unwrap_or(STALE_ROUTES),
            helper_only: config.flag("helper-only").unwrap_or(false),
            notification: config.flag("notification-enabled").unwrap_or(false),
            long_lived: config.flag("long-lived-enabled").unwrap_or(false),
        })
    }

    fn families(&mut self, address: IpAddr) -> Vec<FamilySettings> {
        let mut families: Vec<FamilySettings> = Vec::new();
        let whole = AddPathsNode(self.node.config("add-paths"));
        let tables = self.node.tables("afi-safis");
        for table in &tables {
            let config = table.table("config");
            let Some(name) = config.text("afi-safi-name") else {
                self.fault(
                    table,
                    "config",
                    "afi-safis.config.afi-safi-name",
                    "is missing: write \"ipv4-unicast\"",
                );
                continue;
            };
            match family_named(&name) {
                _ if config.flag("enabled") == Some(false) => {}
                None => {
                    let why = format!("{name} is not spoken yet, and left out");
                    self.warn(&config, "afi-safi-name", "afi-safis.config.afi-safi-name", &why);
                }
                Some(family) if families.iter().any(|settings| settings.family == family) => {
                    let why = format!("{name} is given twice");
                    self.fault(&config, "afi-safi-name", "afi-safis.config.afi-safi-name", &why);
                }
                Some(family) => families.push(family_settings(family, table, &whole)),
            }
        }
        if tables.is_empty() {
            // The next hops of both are link-local there (RFC 8950).
            let of_address =
                |family: &Family| interface::of(address).is_some() || *family == Family::of(address);
            let usual = Family::ALL.into_iter().filter(of_address);
            families.extend(usual.map(|family| family_settings(family, &Node::default(), &whole)));
        } else if families.is_empty() {
            let why = "has no family that is on and spoken: write ipv4-unicast or ipv6-unicast";
            self.fault(&self.node.clone(), "afi-safis", "afi-safis", why);
        }
        families
    }

    /// What only makes sense towards one kind of neighbour.
    fn internal(&mut self, settings: &PeerSettings) {
        let config = self.node.table("config");
        if settings.is_internal() {
            if settings.remove_private_as.is_some() {
                let why = "is for external neighbours, and this one is internal";
                self.fault(&config, "remove-private-as", "config.remove-private-as", why);
            }
            if settings.replace_peer_as {
                let why = "is for external neighbours, and this one is internal";
                let options = self.node.config("as-path-options");
                self.fault(&options, "replace-peer-as", "as-path-options.config.replace-peer-as", why);
            }
        } else if settings.peer_as.is_some() && settings.reflector_client.is_some() {
            let why = "has no effect: routes of external neighbours are not reflected (RFC 4456 section 6)";
            let reflector = self.node.config("route-reflector");
            let key = "route-reflector.config.route-reflector-client";
            self.warn(&reflector, "route-reflector-client", key, why);
        }
        // GoBGP lays policies of a neighbour only over route server clients.
        let policy = self.node.config("apply-policy");
        for key in
            ["import-policy-list", "default-import-policy", "export-policy-list", "default-export-policy"]
        {
            if policy.has(key) {
                let why =
                    "has no effect, as in gobgpd for what is no route server client: write it under global";
                self.warn(&policy, key, &format!("apply-policy.config.{key}"), why);
            }
        }
    }

    fn fault(&mut self, node: &Node<'_>, key: &str, path: &str, why: &str) {
        self.checker.fault(self.place(node, key), &format!("{}.{path}", self.path), why);
    }

    fn warn(&mut self, node: &Node<'_>, key: &str, path: &str, why: &str) {
        self.checker.warn(self.place(node, key), &format!("{}.{path}", self.path), why);
    }

    /// Where the value stands, else where the neighbour's own table does.
    fn place(&self, node: &Node<'_>, key: &str) -> std::ops::Range<usize> {
        if node.has(key) { node.place(key) } else { self.node.place("config") }
    }
}

struct AddPathsNode<'t>(Node<'t>);

impl AddPathsNode<'_> {
    /// A family's own keys win over the neighbour's.
    fn under(&self, own: &Node<'_>) -> AddPaths {
        AddPaths {
            receive: own.flag("receive").or_else(|| self.0.flag("receive")).unwrap_or(false),
            send_max: own.number("send-max").or_else(|| self.0.number("send-max")).unwrap_or(0),
        }
    }
}

fn family_settings(family: Family, table: &Node<'_>, whole: &AddPathsNode<'_>) -> FamilySettings {
    let limit = table.config("prefix-limit");
    let long_lived = table.config("long-lived-graceful-restart");
    FamilySettings {
        family,
        prefix_limit: limit.number::<u32>("max-prefixes").filter(|max| *max != 0).map(|max_prefixes| {
            PrefixLimit { max_prefixes, warn_percent: limit.number("shutdown-threshold-pct").unwrap_or(0) }
        }),
        add_paths: whole.under(&table.config("add-paths")),
        graceful_restart: table.config("mp-graceful-restart").flag("enabled").unwrap_or(false),
        long_lived: long_lived
            .seconds("restart-time")
            .filter(|_| long_lived.flag("enabled").unwrap_or(false)),
    }
}
