//! What we offer, whether we take the peer's OPEN (RFC 4271 section 6.2), and what follows from both.

use super::{DownCause, ExpectedAs};
use crate::{
    config::{GracefulRestart, SessionConfig, Timers},
    number::{AfiSafi, Asn, Family, FamilySet, RouterId},
    wire::{
        AddPathMode, Capability, EXTENDED_MESSAGE_BYTES_MAX, EncodeContext, LongLivedFamily,
        MESSAGE_BYTES_MAX, Notification, Open, UpdateContext,
    },
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// AFI of IPv6, as next hop of IPv4 prefixes.
const AFI_IPV6: u16 = 2;
/// Least time for which a peer may take nothing before it is given up (RFC 9687 section 3.1).
const SEND_HOLD_MIN: Duration = Duration::from_mins(8);

/// Whether a peer is in our AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// It is: iBGP.
    Internal,
    /// It is not: eBGP.
    External,
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each was agreed on by itself")]
pub struct Negotiated {
    /// Whether the peer is in our AS.
    pub kind: PeerKind,
    /// Our AS towards it.
    pub local_as: Asn,
    /// Its AS.
    pub peer_as: Asn,
    /// Its router id.
    pub peer_id: RouterId,
    /// Our end of the connection.
    pub local_address: IpAddr,
    /// Its end of the connection.
    pub peer_address: IpAddr,
    /// Families that both carry.
    pub families: FamilySet,
    /// The smaller hold time; zero for none.
    pub hold: Duration,
    /// Between two KEEPALIVEs; zero for none.
    pub keepalive: Duration,
    /// AS numbers have four bytes.
    pub as4: bool,
    /// Families of which the peer sends path ids.
    pub add_path_receive: FamilySet,
    /// Families of which we send path ids.
    pub add_path_send: FamilySet,
    /// Messages may have 65,535 bytes.
    pub extended_message: bool,
    /// IPv4 prefixes may have IPv6 next hops.
    pub extended_next_hop: bool,
    /// The peer sends its routes again when asked.
    pub refresh: bool,
    /// Both say where routes that are sent again begin and end.
    pub enhanced_refresh: bool,
    /// Graceful restart, if both do it.
    pub graceful: Option<PeerGraceful>,
    /// What we offered.
    pub local_capabilities: Vec<Capability>,
    /// What the peer offered.
    pub peer_capabilities: Vec<Capability>,
}

/// What the peer says about its restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerGraceful {
    /// It has just restarted.
    pub restarting: bool,
    /// Also after NOTIFICATION and hold timer: both said so (RFC 8538).
    pub notification: bool,
    /// How long to wait for it.
    pub restart_time: Duration,
    /// Longest time that stale routes are kept after it is back.
    pub stale_path_time: Duration,
    /// Families whose routes are kept.
    pub families: FamilySet,
    /// Families whose forwarding went on during its last restart.
    pub forwarding: FamilySet,
    /// For how long after the restart time routes are kept, where both do that (RFC 9494).
    pub long_lived: BTreeMap<Family, Duration>,
}

impl Negotiated {
    /// How UPDATEs of the peer are read.
    pub fn update_context(&self, config: &SessionConfig) -> UpdateContext {
        let external = self.kind == PeerKind::External;
        UpdateContext {
            external,
            as4: self.as4,
            families: self.families,
            add_path: self.add_path_receive,
            extended_next_hop: self.extended_next_hop,
            first_as: (external && config.enforce_first_as).then_some(self.peer_as),
            refuse_as_sets: config.refuse_as_sets,
            local_address: Some(self.local_address),
        }
    }

    /// How UPDATEs for the peer are written.
    pub fn encode_context(&self) -> EncodeContext {
        let message_bytes_max =
            if self.extended_message { EXTENDED_MESSAGE_BYTES_MAX } else { MESSAGE_BYTES_MAX };
        EncodeContext { as4: self.as4, add_path: self.add_path_send, message_bytes_max }
    }

    /// How long the peer may take nothing (RFC 9687); `None` where there is no hold time.
    pub(super) fn send_hold(&self, timers: &Timers) -> Option<Duration> {
        let usual = (self.hold * 2).max(SEND_HOLD_MIN);
        (!self.hold.is_zero()).then(|| timers.send_hold.unwrap_or(usual))
    }

    /// Whether the peer's routes are kept although the session is gone (RFC 4724 section 4.2, RFC 8538 section 4).
    pub(super) fn is_graceful(&self, cause: &DownCause) -> bool {
        self.graceful.as_ref().is_some_and(|graceful| match cause {
            DownCause::ConnectionLost | DownCause::Replaced => true,
            DownCause::Received(notification) | DownCause::Sent(notification) => {
                graceful.notification && !notification.is_hard_reset()
            }
            // As when the hold timer expires: the peer is there, and does not work.
            DownCause::SendHold(_) => graceful.notification,
            DownCause::Stopped(_) | DownCause::WrongAs { .. } => false,
        })
    }
}

/// Our OPEN.
pub(super) fn local_open(config: &SessionConfig) -> Open {
    Open {
        as_field: config.local_as.two_bytes(),
        hold_time: u16::try_from(config.timers.hold.as_secs()).unwrap_or(u16::MAX),
        router_id: config.local_id.0,
        capabilities: local_capabilities(config),
    }
}

fn local_capabilities(config: &SessionConfig) -> Vec<Capability> {
    let mut offered: Vec<_> =
        config.families.iter().map(|family| Capability::Multiprotocol(family.afi_safi())).collect();
    offered.push(Capability::RouteRefresh);
    let v4 = Family::Ipv4Unicast;
    if config.extended_next_hop && config.families.contains(v4) {
        offered.push(Capability::ExtendedNextHop(vec![(v4.afi_safi(), AFI_IPV6)]));
    }
    if config.extended_message {
        offered.push(Capability::ExtendedMessage);
    }
    if let Some(graceful) = &config.graceful_restart {
        offered.push(graceful_capability(config, graceful));
    }
    offered.push(Capability::FourByteAs(config.local_as));
    let add_path: Vec<_> =
        config.families.iter().filter_map(|family| add_path_mode(config, family)).collect();
    if !add_path.is_empty() {
        offered.push(Capability::AddPath(add_path));
    }
    offered.push(Capability::EnhancedRefresh);
    if let Some(stale) = config.graceful_restart.as_ref().and_then(|graceful| graceful.long_lived) {
        let stale_time = u32::try_from(stale.as_secs()).unwrap_or(u32::MAX).min(0x00ff_ffff);
        let families = config.families.iter().map(|family| LongLivedFamily {
            family: family.afi_safi(),
            forwarding: true,
            stale_time,
        });
        offered.push(Capability::LongLived(families.collect()));
    }
    if let Some(host) = &config.host_name {
        offered.push(Capability::HostName { host: host.clone(), domain: String::new() });
    }
    if let Some(version) = &config.software_version {
        offered.push(Capability::SoftwareVersion(version.clone()));
    }
    offered
}

fn graceful_capability(config: &SessionConfig, graceful: &GracefulRestart) -> Capability {
    let families = config.families.iter().filter(|_| !graceful.helper_only);
    Capability::GracefulRestart {
        restarting: graceful.restarting,
        notification: graceful.notification,
        restart_time: graceful.restart_time.as_secs().min(0x0fff) as u16,
        families: families.map(|family| (family.afi_safi(), graceful.forwarding)).collect(),
    }
}

fn add_path_mode(config: &SessionConfig, family: Family) -> Option<(AfiSafi, AddPathMode)> {
    let receive = config.add_path_receive.contains(family);
    let mode = match (receive, config.add_path_send.contains(family)) {
        (true, true) => AddPathMode::Both,
        (true, false) => AddPathMode::Receive,
        (false, true) => AddPathMode::Send,
        (false, false) => return None,
    };
    Some((family.afi_safi(), mode))
}

/// Judges the peer's OPEN, in the order of RFC 4271 section 6.2: what to say to the peer, and why.
pub(super) fn negotiate(
    config: &SessionConfig,
    open: Open,
    local_address: IpAddr,
    peer_address: IpAddr,
) -> Result<Negotiated, (Notification, DownCause)> {
    let peer_as = open.asn();
    let kind = kind(config, peer_as).map_err(|cause| (Notification::bad_peer_as(), cause))?;
    agree(config, open, kind, (local_address, peer_address))
        .map_err(|notification| (notification.clone(), DownCause::Sent(notification)))
}

/// Whether a peer of this AS is in ours, and may be where it is.
fn kind(config: &SessionConfig, peer_as: Asn) -> Result<PeerKind, DownCause> {
    let kind = if peer_as == config.local_as { PeerKind::Internal } else { PeerKind::External };
    let expected = match (config.peer_as, config.peer_kind) {
        (Some(asn), _) => ExpectedAs::Of(asn),
        (None, Some(kind)) => ExpectedAs::Kind(kind),
        (None, None) => ExpectedAs::Any,
    };
    let is_so = match expected {
        ExpectedAs::Of(asn) => asn == peer_as,
        ExpectedAs::Kind(expected) => expected == kind,
        ExpectedAs::Any => true,
    };
    // RFC 7607: AS 0 is nobody's.
    if is_so && peer_as != Asn::ZERO { Ok(kind) } else { Err(DownCause::WrongAs { expected, came: peer_as }) }
}

fn agree(
    config: &SessionConfig,
    open: Open,
    kind: PeerKind,
    (local_address, peer_address): (IpAddr, IpAddr),
) -> Result<Negotiated, Notification> {
    let peer_as = open.asn();
    // RFC 6286 section 2.2.
    let own = kind == PeerKind::Internal && open.router_id == config.local_id.0;
    if open.router_id == 0 || own {
        return Err(Notification::bad_router_id());
    }
    if matches!(open.hold_time, 1 | 2) {
        return Err(Notification::bad_hold_time());
    }
    let offers = Offers::read(&open.capabilities);
    let families = config.families.and(offers.families());
    if families.is_empty() {
        let mut wanted = Vec::new();
        for family in config.families.iter() {
            Capability::Multiprotocol(family.afi_safi()).encode(&mut wanted);
        }
        return Err(Notification::missing_capability(&wanted));
    }
    let hold = config.timers.hold.min(Duration::from_secs(open.hold_time.into()));
    let keepalive = config.timers.keepalive.map_or(hold / 3, |keepalive| keepalive.min(hold / 3));
    Ok(Negotiated {
        kind,
        local_as: config.local_as,
        peer_as,
        peer_id: RouterId(open.router_id),
        local_address,
        peer_address,
        families,
        hold,
        keepalive,
        as4: offers.as4,
        add_path_receive: config.add_path_receive.and(offers.add_path_sends).and(families),
        add_path_send: config.add_path_send.and(offers.add_path_receives).and(families),
        extended_message: config.extended_message && offers.extended_message,
        extended_next_hop: config.extended_next_hop && offers.extended_next_hop,
        refresh: offers.refresh,
        enhanced_refresh: offers.enhanced_refresh,
        graceful: config.graceful_restart.as_ref().and_then(|ours| offers.graceful(ours, families)),
        local_capabilities: local_capabilities(config),
        peer_capabilities: open.capabilities,
    })
}

/// What a capability of RFC 4724 says.
struct GracefulOffer<'a> {
    restarting: bool,
    notification: bool,
    restart_time: u16,
    families: &'a [(AfiSafi, bool)],
}

/// The peer's capabilities by what they allow.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a capability of its own")]
struct Offers<'a> {
    multiprotocol: Option<FamilySet>,
    refresh: bool,
    enhanced_refresh: bool,
    as4: bool,
    extended_message: bool,
    extended_next_hop: bool,
    add_path_sends: FamilySet,
    add_path_receives: FamilySet,
    graceful: Option<GracefulOffer<'a>>,
    long_lived: &'a [LongLivedFamily],
}

impl<'a> Offers<'a> {
    fn read(capabilities: &'a [Capability]) -> Self {
        let mut offers = Self::default();
        for capability in capabilities {
            offers.take(capability);
        }
        offers
    }

    fn take(&mut self, capability: &'a Capability) {
        match capability {
            Capability::Multiprotocol(family) => {
                let families = self.multiprotocol.get_or_insert(FamilySet::NONE);
                if let Some(family) = Family::from_afi_safi(*family) {
                    families.insert(family);
                }
            }
            Capability::RouteRefresh | Capability::RouteRefreshOld => self.refresh = true,
            Capability::EnhancedRefresh => self.enhanced_refresh = true,
            Capability::FourByteAs(_) => self.as4 = true,
            Capability::ExtendedMessage => self.extended_message = true,
            Capability::ExtendedNextHop(families) => {
                let v4 = Family::Ipv4Unicast.afi_safi();
                self.extended_next_hop |= families.contains(&(v4, AFI_IPV6));
            }
            Capability::AddPath(families) => {
                for (family, mode) in families {
                    let Some(family) = Family::from_afi_safi(*family) else { continue };
                    if mode.sends() {
                        self.add_path_sends.insert(family);
                    }
                    if mode.receives() {
                        self.add_path_receives.insert(family);
                    }
                }
            }
            Capability::GracefulRestart { restarting, notification, restart_time, families } => {
                self.graceful = Some(GracefulOffer {
                    restarting: *restarting,
                    notification: *notification,
                    restart_time: *restart_time,
                    families,
                });
            }
            Capability::LongLived(families) => self.long_lived = families,
            Capability::HostName { .. } | Capability::SoftwareVersion(_) | Capability::Unknown { .. } => {}
        }
    }

    /// Without a word about families it is IPv4 unicast (RFC 4760 section 8).
    fn families(&self) -> FamilySet {
        self.multiprotocol.unwrap_or_else(|| [Family::Ipv4Unicast].into_iter().collect())
    }

    fn graceful(&self, ours: &GracefulRestart, carried: FamilySet) -> Option<PeerGraceful> {
        let offer = self.graceful.as_ref()?;
        let known = |(family, forwarding): &(AfiSafi, bool)| {
            Some((Family::from_afi_safi(*family).filter(|family| carried.contains(*family))?, *forwarding))
        };
        let families: Vec<_> = offer.families.iter().filter_map(known).collect();
        let long_lived = self.long_lived.iter().filter_map(|offer| {
            let family = Family::from_afi_safi(offer.family).filter(|family| carried.contains(*family))?;
            Some((family, ours.long_lived?.min(Duration::from_secs(offer.stale_time.into()))))
        });
        Some(PeerGraceful {
            restarting: offer.restarting,
            notification: offer.notification && ours.notification,
            restart_time: Duration::from_secs(offer.restart_time.into()),
            stale_path_time: ours.stale_path_time,
            families: families.iter().map(|(family, _)| *family).collect(),
            forwarding: families.iter().filter(|(_, kept)| *kept).map(|(family, _)| *family).collect(),
            long_lived: long_lived.collect(),
        })
    }
}
