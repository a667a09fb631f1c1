//! What is configured, as the engine takes it.

use crate::config::{self, Config, PeerSettings};
use isthmus_bgp::{
    Asn, Family, FamilySet, GracefulRestart, PeerConfig, Policy, PrefixLimit, RemovePrivateAs, SessionConfig,
    Timers,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

/// Longest pause after failures in a row (RFC 4271 section 8.1.1, `DampPeerOscillations`).
const IDLE_HOLD_MAX: Duration = Duration::from_mins(1);
/// Paths that are sent where an add-path neighbour sets no number: as many as there are.
const SEND_MAX: u8 = u8::MAX;

/// The session with the neighbour at `address`. `restarted` tells it that we were here before (RFC 4724); `send_hold` is
/// [`Timers::send_hold`].
pub(crate) fn session(
    settings: &PeerSettings,
    address: IpAddr,
    router_id: Ipv4Addr,
    restarted: bool,
    send_hold: Option<Duration>,
) -> SessionConfig {
    let families = |wanted: fn(&config::FamilySettings) -> bool| -> FamilySet {
        settings.families.iter().filter(|family| wanted(family)).map(|family| family.family).collect()
    };
    let timers = settings.timers;
    let mut session = SessionConfig::new(Asn(settings.local_as), router_id.into(), settings.peer_as.map(Asn));
    session.peer_kind = settings.peer_kind;
    session.families = families(|_| true);
    session.timers = Timers {
        hold: timers.hold,
        keepalive: (timers.keepalive != timers.hold / 3).then_some(timers.keepalive),
        connect_retry: timers.connect_retry,
        idle_hold: timers.idle_hold,
        idle_hold_max: IDLE_HOLD_MAX.max(timers.idle_hold),
        send_hold,
    };
    session.passive = settings.transport.passive;
    session.refuse_as_sets = settings.refuse_as_sets;
    session.admin_down = settings.admin_down;
    session.add_path_receive = families(|family| family.add_paths.receive);
    session.add_path_send = families(|family| family.add_paths.send_max > 0);
    // RFC 8950: over IPv6 we have no other next hop for IPv4 prefixes than our end of the session.
    session.extended_next_hop = address.is_ipv6() && session.families.contains(Family::Ipv4Unicast);
    session.graceful_restart =
        settings.graceful_restart.map(|restart| graceful_restart(settings, restart, restarted));
    session
}

fn graceful_restart(
    settings: &PeerSettings,
    restart: config::GracefulRestart,
    restarted: bool,
) -> GracefulRestart {
    let long_lived = settings.families.iter().filter_map(|family| family.long_lived).max();
    GracefulRestart {
        restart_time: restart.restart_time,
        helper_only: restart.helper_only,
        restarting: restarted,
        // A speaker without a data path of its own stops no traffic when it restarts.
        forwarding: true,
        notification: restart.notification,
        stale_path_time: restart.stale_routes_time,
        long_lived: long_lived.filter(|_| restart.long_lived),
    }
}

/// What happens to the routes of a neighbour.
pub(crate) fn peer(settings: &PeerSettings, policies: &(Arc<dyn Policy>, Arc<dyn Policy>)) -> PeerConfig {
    let mut peer = PeerConfig::new(policies.0.clone(), policies.1.clone());
    peer.reflector_client = settings.reflector_client.is_some();
    peer.cluster_id = settings.reflector_client.map(Into::into);
    peer.third_party_next_hop = settings.third_party_next_hop;
    peer.allow_own_as = settings.allow_own_as;
    peer.replace_peer_as = settings.replace_peer_as;
    peer.remove_private_as = settings.remove_private_as.map(|how| match how {
        config::RemovePrivateAs::All => RemovePrivateAs::All,
        config::RemovePrivateAs::Replace => RemovePrivateAs::Replace,
    });
    let send_max = settings.families.iter().map(|family| family.add_paths.send_max).max();
    peer.add_path_send_max = send_max.filter(|max| *max > 0).unwrap_or(SEND_MAX);
    peer.prefix_limits = settings
        .families
        .iter()
        .filter_map(|family| Some((family.family, limit(family.prefix_limit?))))
        .collect::<std::collections::BTreeMap<Family, PrefixLimit>>();
    peer
}

fn limit(limit: config::PrefixLimit) -> PrefixLimit {
    PrefixLimit { max: limit.max_prefixes, warn_percent: limit.warn_percent }
}

/// Whether a running speaker can become what `config` says without a restart.
pub(crate) fn is_same_speaker(before: &Config, after: &Config) -> bool {
    before.global == after.global
}
