//! Capabilities as the API shows them.

use super::{any::Packed, proto};
use isthmus_bgp::{AfiSafi, wire::Capability};

/// One capability.
pub(super) fn show(capability: &Capability) -> proto::Any {
    match capability {
        Capability::Multiprotocol(family) => {
            proto::MultiProtocolCapability { family: Some(numbers(*family)) }.pack()
        }
        Capability::RouteRefresh => proto::RouteRefreshCapability {}.pack(),
        Capability::RouteRefreshOld => proto::RouteRefreshCiscoCapability {}.pack(),
        Capability::ExtendedNextHop(tuples) => {
            let tuple = |(family, next_hop): &(AfiSafi, u16)| proto::ExtendedNexthopCapabilityTuple {
                nlri_family: Some(numbers(*family)),
                nexthop_family: Some(proto::Family { afi: i32::from(*next_hop), safi: 1 }),
            };
            proto::ExtendedNexthopCapability { tuples: tuples.iter().map(tuple).collect() }.pack()
        }
        Capability::GracefulRestart { restarting, notification, restart_time, families } => {
            let tuple = |(family, forwarding): &(AfiSafi, bool)| proto::GracefulRestartCapabilityTuple {
                family: Some(numbers(*family)),
                flags: flag(*forwarding, 0x80),
            };
            proto::GracefulRestartCapability {
                flags: flag(*restarting, 0x8) | flag(*notification, 0x4),
                time: u32::from(*restart_time),
                tuples: families.iter().map(tuple).collect(),
            }
            .pack()
        }
        Capability::FourByteAs(asn) => proto::FourOctetAsnCapability { asn: asn.0 }.pack(),
        Capability::AddPath(families) => {
            let tuples = families.iter().map(|(family, mode)| proto::AddPathCapabilityTuple {
                family: Some(numbers(*family)),
                mode: *mode as i32,
            });
            proto::AddPathCapability { tuples: tuples.collect() }.pack()
        }
        Capability::EnhancedRefresh => proto::EnhancedRouteRefreshCapability {}.pack(),
        Capability::LongLived(families) => {
            let tuples = families.iter().map(|family| proto::LongLivedGracefulRestartCapabilityTuple {
                family: Some(numbers(family.family)),
                flags: flag(family.forwarding, 0x80),
                time: family.stale_time,
            });
            proto::LongLivedGracefulRestartCapability { tuples: tuples.collect() }.pack()
        }
        Capability::HostName { host, domain } => {
            proto::FqdnCapability { host_name: host.clone(), domain_name: domain.clone() }.pack()
        }
        // The 3.10 client knows neither of them by name.
        Capability::ExtendedMessage => proto::UnknownCapability { code: 6, value: Vec::new() }.pack(),
        Capability::SoftwareVersion(version) => {
            proto::UnknownCapability { code: 75, value: version.clone().into_bytes() }.pack()
        }
        Capability::Unknown { code, value } => {
            proto::UnknownCapability { code: u32::from(*code), value: value.clone() }.pack()
        }
    }
}

fn numbers(family: AfiSafi) -> proto::Family {
    proto::Family { afi: i32::from(family.afi), safi: i32::from(family.safi) }
}

fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}
