//! Neighbours as the API shows them.
//!
//! The Go client dereferences parts without asking whether they are there, so every part is always filled.

use super::{api, capabilities, family, policy, proto, timestamp};
use crate::{
    config::{Distance, FamilySettings, PeerSettings, RemovePrivateAs, RoutePolicy},
    interface,
    view::{AdminState, Agreement, FamilyCounts, GlobalView, PeerStatus, PeerView, SessionState},
};
use isthmus_bgp::{session::MessageCounts, wire::Capability};
use std::time::Duration;

/// What the session offered to the neighbour, and what it offered to us.
pub(super) fn capabilities(view: &PeerView) -> (Vec<api::Capability>, Vec<api::Capability>) {
    let Some(agreement) = &view.status.agreement else { return Default::default() };
    let shown = |capabilities: &[Capability]| capabilities.iter().map(capabilities::show).collect();
    (shown(&agreement.local_capabilities), shown(&agreement.peer_capabilities))
}

/// A neighbour, without its capabilities. `advertised` says whether to show how many routes it was sent, as the client asks.
pub(super) fn show(view: &PeerView, policy: &RoutePolicy, advertised: bool) -> proto::Peer {
    let settings = &*view.settings;
    let (status, name) = (&view.status, interface::shown(view.address));
    let address = match status.location {
        Some(location) => format!("{}%{name}", location.ip()),
        None => name.clone(),
    };
    proto::Peer {
        apply_policy: Some(policy::show_applied(policy, &name)),
        conf: Some(conf(settings, &address, interface::of(view.address).unwrap_or_default())),
        ebgp_multihop: Some(multihop(settings)),
        route_reflector: Some(reflector(settings)),
        state: Some(state(view, address.clone())),
        timers: Some(timers(settings, status)),
        transport: Some(transport(settings, status.agreement.as_ref(), address)),
        route_server: Some(proto::RouteServer::default()),
        graceful_restart: Some(graceful_restart(settings)),
        afi_safis: settings
            .families
            .iter()
            .map(|family| afi_safi(family, &view.families, advertised))
            .collect(),
        ttl_security: Some(ttl_security(settings)),
        bfd: Some(bfd(settings)),
    }
}

/// A group, with what its members have unless they say otherwise.
pub(super) fn show_group(name: &str, settings: &PeerSettings, policy: &RoutePolicy) -> proto::PeerGroup {
    let peer_asn = settings.peer_as.unwrap_or(0);
    proto::PeerGroup {
        apply_policy: Some(policy::show_applied(policy, name)),
        conf: Some(proto::PeerGroupConf {
            auth_password: String::new(),
            description: settings.description.clone(),
            local_asn: settings.local_as,
            peer_asn,
            peer_group_name: name.to_owned(),
            r#type: i32::from(!settings.is_internal()),
            remove_private: remove_private(settings),
        }),
        ebgp_multihop: Some(multihop(settings)),
        route_reflector: Some(reflector(settings)),
        info: Some(proto::PeerGroupState { peer_asn, peer_group_name: name.to_owned() }),
        timers: Some(proto::Timers { config: Some(timers_config(settings)), state: None }),
        transport: Some(transport(settings, None, String::new())),
        route_server: Some(proto::RouteServer::default()),
        graceful_restart: Some(graceful_restart(settings)),
        afi_safis: settings.families.iter().map(|family| afi_safi(family, &[], false)).collect(),
        ttl_security: Some(ttl_security(settings)),
        bfd: Some(bfd(settings)),
    }
}

/// The speaker.
pub(super) fn show_global(view: &GlobalView) -> proto::Global {
    proto::Global {
        asn: view.asn,
        router_id: view.router_id.to_string(),
        listen_port: view.listen.first().map_or(-1, |listen| i32::from(listen.port())),
        listen_addresses: view.listen.iter().map(|listen| listen.ip().to_string()).collect(),
        families: Vec::new(),
        use_multiple_paths: view.multipath,
    }
}

fn conf(settings: &PeerSettings, address: &str, interface: String) -> proto::PeerConf {
    proto::PeerConf {
        // Whoever may ask need not know it.
        auth_password: String::new(),
        description: settings.description.clone(),
        local_asn: settings.local_as,
        neighbor_address: address.to_owned(),
        peer_asn: settings.peer_as.unwrap_or(0),
        peer_group: settings.peer_group.clone().unwrap_or_default(),
        r#type: i32::from(!settings.is_internal()),
        remove_private: remove_private(settings),
        neighbor_interface: interface,
        vrf: String::new(),
        allow_own_asn: u32::from(settings.allow_own_as),
        replace_peer_asn: settings.replace_peer_as,
        admin_down: settings.admin_down,
    }
}

fn remove_private(settings: &PeerSettings) -> i32 {
    match settings.remove_private_as {
        None => 0,
        Some(RemovePrivateAs::All) => 1,
        Some(RemovePrivateAs::Replace) => 2,
    }
}

fn state(view: &PeerView, address: String) -> proto::PeerState {
    use proto::peer_state as shown;
    let (settings, status) = (&*view.settings, &view.status);
    let agreement = status.agreement.as_ref();
    let peer_as = agreement.map_or(settings.peer_as.unwrap_or(0), |agreement| agreement.peer_as.0);
    proto::PeerState {
        description: settings.description.clone(),
        local_asn: settings.local_as,
        messages: Some(proto::Messages {
            received: Some(messages(&status.received)),
            sent: Some(messages(&status.sent)),
        }),
        neighbor_address: address,
        peer_asn: peer_as,
        peer_group: settings.peer_group.clone().unwrap_or_default(),
        r#type: i32::from(peer_as != settings.local_as),
        queues: Some(proto::Queues { input: 0, output: status.queued_bytes as u32 }),
        remove_private: remove_private(settings),
        session_state: match status.state {
            SessionState::Idle => shown::SessionState::Idle,
            SessionState::Connect => shown::SessionState::Connect,
            SessionState::Active => shown::SessionState::Active,
            SessionState::OpenSent => shown::SessionState::Opensent,
            SessionState::OpenConfirm => shown::SessionState::Openconfirm,
            SessionState::Established => shown::SessionState::Established,
        }
        .into(),
        admin_state: match status.admin {
            AdminState::Up => shown::AdminState::Up,
            AdminState::Down => shown::AdminState::Down,
            AdminState::PrefixLimit => shown::AdminState::PfxCt,
        }
        .into(),
        out_q: status.queued_bytes as u32,
        flops: status.flaps,
        remote_cap: Vec::new(),
        local_cap: Vec::new(),
        router_id: agreement.map(|agreement| agreement.peer_id.to_string()).unwrap_or_default(),
        why: status.why.clone(),
        bfd: view.bfd.as_ref().map(ToString::to_string).unwrap_or_default(),
        sending: status.is_sending,
    }
}

fn messages(counts: &MessageCounts) -> proto::Message {
    proto::Message {
        notification: counts.notification,
        update: counts.update,
        open: counts.open,
        keepalive: counts.keepalive,
        refresh: counts.refresh,
        total: counts.total(),
        ..proto::Message::default()
    }
}

fn timers_config(settings: &PeerSettings) -> proto::TimersConfig {
    let timers = settings.timers;
    proto::TimersConfig {
        connect_retry: timers.connect_retry.as_secs(),
        hold_time: timers.hold.as_secs(),
        keepalive_interval: timers.keepalive.as_secs(),
        minimum_advertisement_interval: 0,
        idle_hold_time_after_reset: timers.idle_hold.as_secs(),
    }
}

fn timers(settings: &PeerSettings, status: &PeerStatus) -> proto::Timers {
    let timers = settings.timers;
    let agreed = |of: fn(&crate::view::Agreement) -> Duration| {
        status.agreement.as_ref().map_or(0, |agreement| of(agreement).as_secs())
    };
    proto::Timers {
        config: Some(timers_config(settings)),
        state: Some(proto::TimersState {
            connect_retry: timers.connect_retry.as_secs(),
            hold_time: timers.hold.as_secs(),
            keepalive_interval: agreed(|agreement| agreement.keepalive),
            minimum_advertisement_interval: 0,
            negotiated_hold_time: agreed(|agreement| agreement.hold),
            uptime: status.up_at.map(timestamp),
            downtime: status.down_at.map(timestamp),
        }),
    }
}

fn multihop(settings: &PeerSettings) -> proto::EbgpMultihop {
    match settings.distance {
        Distance::Hops(ttl) => proto::EbgpMultihop { enabled: true, multihop_ttl: u32::from(ttl) },
        _ => proto::EbgpMultihop::default(),
    }
}

fn ttl_security(settings: &PeerSettings) -> proto::TtlSecurity {
    match settings.distance {
        Distance::Secured { ttl_min } => proto::TtlSecurity { enabled: true, ttl_min: u32::from(ttl_min) },
        _ => proto::TtlSecurity::default(),
    }
}

fn bfd(settings: &PeerSettings) -> proto::BfdPeerConfig {
    let Some(bfd) = settings.bfd else { return proto::BfdPeerConfig::default() };
    let micros = |interval: Duration| u32::try_from(interval.as_micros()).unwrap_or(u32::MAX);
    proto::BfdPeerConfig {
        enabled: true,
        port: u32::from(bfd.port),
        desired_minimum_tx_interval: micros(bfd.timing.desired_min_tx),
        required_minimum_receive: micros(bfd.timing.required_min_rx),
        detection_multiplier: u32::from(bfd.timing.multiplier),
    }
}

fn reflector(settings: &PeerSettings) -> proto::RouteReflector {
    proto::RouteReflector {
        route_reflector_client: settings.reflector_client.is_some(),
        route_reflector_cluster_id: settings.reflector_client.map(|id| id.to_string()).unwrap_or_default(),
    }
}

fn transport(settings: &PeerSettings, agreement: Option<&Agreement>, address: String) -> proto::Transport {
    let transport = &settings.transport;
    let agreed = agreement.map(|agreement| agreement.local_address);
    proto::Transport {
        local_address: transport.local_address.or(agreed).map(|local| local.to_string()).unwrap_or_default(),
        local_port: u32::from(transport.local_port),
        mtu_discovery: true,
        passive_mode: transport.passive,
        remote_address: address,
        remote_port: u32::from(transport.remote_port),
        tcp_mss: u32::from(transport.tcp_mss.unwrap_or(0)),
        bind_interface: transport.bind_interface.clone().unwrap_or_default(),
    }
}

fn graceful_restart(settings: &PeerSettings) -> proto::GracefulRestart {
    let Some(restart) = settings.graceful_restart else { return proto::GracefulRestart::default() };
    proto::GracefulRestart {
        enabled: true,
        restart_time: restart.restart_time.as_secs() as u32,
        helper_only: restart.helper_only,
        deferral_time: restart.deferral_time.as_secs() as u32,
        notification_enabled: restart.notification,
        longlived_enabled: restart.long_lived,
        stale_routes_time: restart.stale_routes_time.as_secs() as u32,
    }
}

fn afi_safi(settings: &FamilySettings, counts: &[FamilyCounts], advertised: bool) -> proto::AfiSafi {
    let shown = Some(family(settings.family));
    let counts = counts.iter().find(|counts| counts.family == settings.family);
    proto::AfiSafi {
        mp_graceful_restart: Some(proto::MpGracefulRestart {
            config: Some(proto::MpGracefulRestartConfig { enabled: settings.graceful_restart }),
        }),
        config: Some(proto::AfiSafiConfig { family: shown, enabled: true }),
        state: Some(proto::AfiSafiState {
            family: shown,
            enabled: counts.is_some(),
            received: counts.map_or(0, |counts| counts.received),
            accepted: counts.map_or(0, |counts| counts.accepted),
            advertised: counts.filter(|_| advertised).map_or(0, |counts| counts.advertised),
        }),
        prefix_limits: settings.prefix_limit.map(|limit| proto::PrefixLimit {
            family: shown,
            max_prefixes: limit.max_prefixes,
            shutdown_threshold_pct: u32::from(limit.warn_percent),
        }),
        long_lived_graceful_restart: settings.long_lived.map(|time| proto::LongLivedGracefulRestart {
            config: Some(proto::LongLivedGracefulRestartConfig {
                enabled: true,
                restart_time: time.as_secs() as u32,
            }),
        }),
        add_paths: Some(proto::AddPaths {
            config: Some(proto::AddPathsConfig {
                receive: settings.add_paths.receive,
                send_max: u32::from(settings.add_paths.send_max),
            }),
        }),
    }
}
