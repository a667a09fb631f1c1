//! Neighbours and groups that a client adds, as the tables that would stand in the file. What they hold is judged where the
//! file is.
//!
//! Zero and empty mean "not said", as proto3 cannot tell them apart, so that a group's settings show through.

use super::{proto, read_family};
use toml::{Table, Value};
use tonic::Status;

/// The tables of a neighbour.
pub(super) fn read(peer: &proto::Peer) -> Result<Table, Status> {
    let conf = peer.conf.clone().unwrap_or_default();
    // In the file this is a warning, which a client would not see.
    if !conf.vrf.is_empty() {
        let text = format!("vrf \"{}\": there is only the global table here", conf.vrf);
        return Err(Status::unimplemented(text));
    }
    let mut table = common(&Parts {
        multihop: peer.ebgp_multihop,
        reflector: peer.route_reflector.as_ref(),
        timers: peer.timers,
        transport: peer.transport.as_ref(),
        route_server: peer.route_server,
        graceful_restart: peer.graceful_restart,
        afi_safis: &peer.afi_safis,
        ttl_security: peer.ttl_security,
        bfd: peer.bfd,
    })?;
    let mut config = Table::new();
    // Whoever is on the interface: what is shown as its address is where it was found.
    if conf.neighbor_interface.is_empty() {
        text(&mut config, "neighbor-address", &conf.neighbor_address);
    }
    text(&mut config, "neighbor-interface", &conf.neighbor_interface);
    text(&mut config, "peer-group", &conf.peer_group);
    flag(&mut config, "admin-down", conf.admin_down);
    number(&mut config, "peer-as", conf.peer_asn);
    number(&mut config, "local-as", conf.local_asn);
    text(&mut config, "auth-password", &conf.auth_password);
    text(&mut config, "description", &conf.description);
    remove_private(&mut config, conf.remove_private)?;
    let mut options = Table::new();
    number(&mut options, "allow-own-as", conf.allow_own_asn);
    flag(&mut options, "replace-peer-as", conf.replace_peer_asn);
    put_config(&mut table, "as-path-options", options);
    table.insert("config".to_owned(), config.into());
    Ok(table)
}

/// The tables of a group.
pub(super) fn read_group(group: &proto::PeerGroup) -> Result<Table, Status> {
    let conf = group.conf.clone().unwrap_or_default();
    let mut table = common(&Parts {
        multihop: group.ebgp_multihop,
        reflector: group.route_reflector.as_ref(),
        timers: group.timers,
        transport: group.transport.as_ref(),
        route_server: group.route_server,
        graceful_restart: group.graceful_restart,
        afi_safis: &group.afi_safis,
        ttl_security: group.ttl_security,
        bfd: group.bfd,
    })?;
    let mut config = Table::new();
    text(&mut config, "peer-group-name", &conf.peer_group_name);
    number(&mut config, "peer-as", conf.peer_asn);
    number(&mut config, "local-as", conf.local_asn);
    text(&mut config, "auth-password", &conf.auth_password);
    text(&mut config, "description", &conf.description);
    remove_private(&mut config, conf.remove_private)?;
    table.insert("config".to_owned(), config.into());
    Ok(table)
}

/// What neighbours and groups have alike.
struct Parts<'p> {
    multihop: Option<proto::EbgpMultihop>,
    reflector: Option<&'p proto::RouteReflector>,
    timers: Option<proto::Timers>,
    transport: Option<&'p proto::Transport>,
    route_server: Option<proto::RouteServer>,
    graceful_restart: Option<proto::GracefulRestart>,
    afi_safis: &'p [proto::AfiSafi],
    ttl_security: Option<proto::TtlSecurity>,
    bfd: Option<proto::BfdPeerConfig>,
}

fn common(parts: &Parts<'_>) -> Result<Table, Status> {
    let mut table = Table::new();
    let multihop = parts.multihop.unwrap_or_default();
    let mut config = Table::new();
    flag(&mut config, "enabled", multihop.enabled);
    number(&mut config, "multihop-ttl", multihop.multihop_ttl);
    put_config(&mut table, "ebgp-multihop", config);
    let security = parts.ttl_security.unwrap_or_default();
    let mut config = Table::new();
    flag(&mut config, "enabled", security.enabled);
    number(&mut config, "ttl-min", security.ttl_min);
    put_config(&mut table, "ttl-security", config);
    put_config(&mut table, "bfd", parts.bfd.map(bfd).unwrap_or_default());
    let mut config = Table::new();
    if let Some(reflector) = parts.reflector {
        flag(&mut config, "route-reflector-client", reflector.route_reflector_client);
        text(&mut config, "route-reflector-cluster-id", &reflector.route_reflector_cluster_id);
    }
    put_config(&mut table, "route-reflector", config);
    if parts.route_server.is_some_and(|server| server.route_server_client) {
        return Err(Status::unimplemented("route server clients are not served yet"));
    }
    put_config(
        &mut table,
        "timers",
        timers(parts.timers.and_then(|timers| timers.config).unwrap_or_default()),
    );
    put_config(&mut table, "transport", parts.transport.map(transport).unwrap_or_default());
    put_config(&mut table, "graceful-restart", graceful_restart(parts.graceful_restart.unwrap_or_default()));
    let families = parts.afi_safis.iter().map(afi_safi).collect::<Result<Vec<_>, _>>()?;
    if !families.is_empty() {
        table.insert("afi-safis".to_owned(), Value::Array(families.into_iter().map(Value::Table).collect()));
    }
    Ok(table)
}

/// That it is off is written too: what is not said stays as it was, because version 3 cannot say it.
fn bfd(shown: proto::BfdPeerConfig) -> Table {
    let mut config = Table::from_iter([("enabled".to_owned(), shown.enabled.into())]);
    number(&mut config, "port", shown.port);
    number(&mut config, "desired-minimum-tx-interval", shown.desired_minimum_tx_interval);
    number(&mut config, "required-minimum-receive", shown.required_minimum_receive);
    number(&mut config, "detection-multiplier", shown.detection_multiplier);
    config
}

fn timers(shown: proto::TimersConfig) -> Table {
    let mut config = Table::new();
    number(&mut config, "connect-retry", shown.connect_retry);
    number(&mut config, "hold-time", shown.hold_time);
    number(&mut config, "keepalive-interval", shown.keepalive_interval);
    number(&mut config, "minimum-advertisement-interval", shown.minimum_advertisement_interval);
    number(&mut config, "idle-hold-time-after-reset", shown.idle_hold_time_after_reset);
    config
}

fn transport(shown: &proto::Transport) -> Table {
    let mut config = Table::new();
    flag(&mut config, "passive-mode", shown.passive_mode);
    text(&mut config, "local-address", &shown.local_address);
    number(&mut config, "local-port", shown.local_port);
    number(&mut config, "remote-port", shown.remote_port);
    number(&mut config, "tcp-mss", shown.tcp_mss);
    text(&mut config, "bind-interface", &shown.bind_interface);
    config
}

fn graceful_restart(shown: proto::GracefulRestart) -> Table {
    let mut config = Table::new();
    flag(&mut config, "enabled", shown.enabled);
    number(&mut config, "restart-time", shown.restart_time);
    flag(&mut config, "helper-only", shown.helper_only);
    number(&mut config, "stale-routes-time", shown.stale_routes_time);
    flag(&mut config, "notification-enabled", shown.notification_enabled);
    flag(&mut config, "long-lived-enabled", shown.longlived_enabled);
    config
}

fn afi_safi(shown: &proto::AfiSafi) -> Result<Table, Status> {
    let given = shown.config.unwrap_or_default();
    let family = read_family(given.family)?;
    let mut table = Table::new();
    let mut config = Table::new();
    text(&mut config, "afi-safi-name", &family.to_string());
    config.insert("enabled".to_owned(), given.enabled.into());
    table.insert("config".to_owned(), config.into());
    let mut config = Table::new();
    if let Some(limit) = shown.prefix_limits {
        number(&mut config, "max-prefixes", limit.max_prefixes);
        number(&mut config, "shutdown-threshold-pct", limit.shutdown_threshold_pct);
    }
    put_config(&mut table, "prefix-limit", config);
    let mut config = Table::new();
    if let Some(long_lived) = shown.long_lived_graceful_restart.and_then(|long_lived| long_lived.config) {
        flag(&mut config, "enabled", long_lived.enabled);
        number(&mut config, "restart-time", long_lived.restart_time);
    }
    put_config(&mut table, "long-lived-graceful-restart", config);
    let mut config = Table::new();
    if let Some(add_paths) = shown.add_paths.and_then(|add_paths| add_paths.config) {
        flag(&mut config, "receive", add_paths.receive);
        number(&mut config, "send-max", add_paths.send_max);
    }
    put_config(&mut table, "add-paths", config);
    Ok(table)
}

fn remove_private(config: &mut Table, number: i32) -> Result<(), Status> {
    let word = match number {
        0 => return Ok(()),
        1 => "all",
        2 => "replace",
        other => {
            let why = format!("remove_private: {other} is not 0 (nothing), 1 (all) or 2 (replace)");
            return Err(Status::invalid_argument(why));
        }
    };
    text(config, "remove-private-as", word);
    Ok(())
}

fn put_config(table: &mut Table, name: &str, config: Table) {
    if !config.is_empty() {
        table.insert(name.to_owned(), Table::from_iter([("config".to_owned(), Value::Table(config))]).into());
    }
}

fn text(config: &mut Table, key: &str, value: &str) {
    if !value.is_empty() {
        config.insert(key.to_owned(), value.into());
    }
}

fn flag(config: &mut Table, key: &str, value: bool) {
    if value {
        config.insert(key.to_owned(), true.into());
    }
}

fn number(config: &mut Table, key: &str, value: impl Into<u64>) {
    let value = value.into();
    if value != 0 {
        config.insert(key.to_owned(), Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::peers, *};
    use crate::{
        Config,
        view::{PeerStatus, PeerView},
    };
    use std::sync::Arc;

    const FILE: &str = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\n\
        [[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 65002\ndescription = \"d\"\n\
        remove-private-as = \"replace\"\nlocal-as = 64513\n\
        [neighbors.as-path-options.config]\nallow-own-as = 2\nreplace-peer-as = true\n\
        [neighbors.timers.config]\nhold-time = 30\nconnect-retry = 7\n\
        [neighbors.transport.config]\npassive-mode = true\nlocal-address = \"192.0.2.1\"\nremote-port = 1790\n\
        [neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 9\n\
        [neighbors.bfd.config]\nenabled = true\ndesired-minimum-tx-interval = 300000\ndetection-multiplier = 5\n\
        [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 11\nlong-lived-enabled = true\n\
        [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv6-unicast\"\n\
        [neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = 10\nshutdown-threshold-pct = 80\n\
        [neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = 100\n\
        [neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 3\n";

    /// The stock client updates a neighbour by sending back what it was shown, with its change.
    #[test]
    fn what_is_shown_of_a_neighbour_is_read_back_as_the_same_settings() {
        let mut config = Config::from_toml(FILE, "f").unwrap();
        let (address, settings) = config.neighbors.clone().into_iter().next().unwrap();
        let view = PeerView {
            address,
            settings: Arc::new(settings.clone()),
            status: PeerStatus::default(),
            families: vec![],
            bfd: None,
        };
        let shown = peers::show(&view, &config.policy, false);
        config.set_neighbor(read(&shown).unwrap(), true).unwrap();
        assert_eq!(config.neighbors[&address], settings);
    }

    #[test]
    fn what_is_not_said_is_not_written() {
        let conf = proto::PeerConf { neighbor_address: "192.0.2.2".to_owned(), ..proto::PeerConf::default() };
        let peer = proto::Peer { conf: Some(conf), ..proto::Peer::default() };
        let table = read(&peer).unwrap();
        assert_eq!(Value::Table(table).to_string(), "{ config = { neighbor-address = \"192.0.2.2\" } }");
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let none = proto::PeerConf::default;
        for (conf, why) in [
            (proto::PeerConf { remove_private: 7, ..none() }, "remove_private: 7"),
            (proto::PeerConf { vrf: "x".to_owned(), ..none() }, "vrf \"x\""),
        ] {
            let peer = proto::Peer { conf: Some(conf), ..proto::Peer::default() };
            assert!(read(&peer).unwrap_err().message().contains(why));
        }
        let server = proto::RouteServer { route_server_client: true, secondary_route: false };
        let peer = proto::Peer { route_server: Some(server), ..proto::Peer::default() };
        assert!(read(&peer).unwrap_err().message().contains("route server"));
        let evpn = proto::AfiSafiConfig { family: Some(proto::Family { afi: 25, safi: 70 }), enabled: true };
        let family = proto::AfiSafi { config: Some(evpn), ..proto::AfiSafi::default() };
        let peer = proto::Peer { afi_safis: vec![family], ..proto::Peer::default() };
        assert!(read(&peer).unwrap_err().message().contains("25/70"));
    }
}
