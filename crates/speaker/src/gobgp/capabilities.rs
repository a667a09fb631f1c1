//! Capabilities as the API shows them.

use super::{
    api::{self, capability::Cap},
    proto,
};
use isthmus_bgp::{AfiSafi, wire::Capability};

/// One capability.
pub(super) fn show(capability: &Capability) -> api::Capability {
    api::Capability { cap: Some(cap(capability)) }
}

fn cap(capability: &Capability) -> Cap {
    match capability {
        Capability::Multiprotocol(family) => {
            Cap::MultiProtocol(proto::MultiProtocolCapability { family: Some(numbers(*family)) })
        }
        Capability::RouteRefresh => Cap::RouteRefresh(proto::RouteRefreshCapability {}),
        Capability::RouteRefreshOld => Cap::RouteRefreshCisco(proto::RouteRefreshCiscoCapability {}),
        Capability::ExtendedNextHop(tuples) => {
            let tuple = |(family, next_hop): &(AfiSafi, u16)| proto::ExtendedNexthopCapabilityTuple {
                nlri_family: Some(numbers(*family)),
                nexthop_family: Some(proto::Family { afi: i32::from(*next_hop), safi: 1 }),
            };
            Cap::ExtendedNexthop(proto::ExtendedNexthopCapability {
                tuples: tuples.iter().map(tuple).collect(),
            })
        }
        Capability::GracefulRestart { restarting, notification, restart_time, families } => {
            let tuple = |(family, forwarding): &(AfiSafi, bool)| proto::GracefulRestartCapabilityTuple {
                family: Some(numbers(*family)),
                flags: flag(*forwarding, 0x80),
            };
            Cap::GracefulRestart(proto::GracefulRestartCapability {
                flags: flag(*restarting, 0x8) | flag(*notification, 0x4),
                time: u32::from(*restart_time),
                tuples: families.iter().map(tuple).collect(),
            })
        }
        Capability::FourByteAs(asn) => Cap::FourOctetAsn(proto::FourOctetAsnCapability { asn: asn.0 }),
        Capability::AddPath(families) => {
            let tuples = families.iter().map(|(family, mode)| proto::AddPathCapabilityTuple {
                family: Some(numbers(*family)),
                mode: *mode as i32,
            });
            Cap::AddPath(proto::AddPathCapability { tuples: tuples.collect() })
        }
        Capability::EnhancedRefresh => Cap::EnhancedRouteRefresh(proto::EnhancedRouteRefreshCapability {}),
        Capability::LongLived(families) => {
            let tuples = families.iter().map(|family| proto::LongLivedGracefulRestartCapabilityTuple {
                family: Some(numbers(family.family)),
                flags: flag(family.forwarding, 0x80),
                time: family.stale_time,
            });
            Cap::LongLivedGracefulRestart(proto::LongLivedGracefulRestartCapability {
                tuples: tuples.collect(),
            })
        }
        Capability::HostName { host, domain } => {
            Cap::Fqdn(proto::FqdnCapability { host_name: host.clone(), domain_name: domain.clone() })
        }
        Capability::ExtendedMessage => Cap::ExtendedMessage(api::ExtendedMessageCapability {}),
        Capability::SoftwareVersion(version) => {
            Cap::SoftwareVersion(api::SoftwareVersionCapability { software_version: version.clone() })
        }
        Capability::Unknown { code, value } => {
            Cap::Unknown(proto::UnknownCapability { code: u32::from(*code), value: value.clone() })
        }
    }
}

fn numbers(family: AfiSafi) -> proto::Family {
    proto::Family { afi: i32::from(family.afi), safi: i32::from(family.safi) }
}

fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}
