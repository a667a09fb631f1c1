//! Version 3 packs prefixes, attributes, communities and capabilities into `Any`; version 4, which the modules beside this
//! one build, has a choice of messages in their place.

use super::{
    api::{self, attribute::Attr, capability::Cap, extended_community::Extcom, nlri::Nlri},
    proto,
};
use super::{attributes, paths, peers};
use crate::{
    config::RoutePolicy,
    view::{PathView, PeerView, Table},
};
use isthmus_bgp::Attributes;
use prost::Message;
use tonic::Status;

/// What stands before the name of a message.
const URL: &str = "type.googleapis.com/apipb.";

fn pack(name: &str, message: &impl Message) -> proto::Any {
    proto::Any { type_url: format!("{URL}{name}"), value: message.encode_to_vec() }
}

/// Which message it is; clients may write another host, or none.
fn name(any: &proto::Any) -> &str {
    let last = any.type_url.rsplit('/').next().unwrap_or_default();
    last.strip_prefix("apipb.").unwrap_or(&any.type_url)
}

fn unpack<M: Message + Default>(any: &proto::Any) -> Result<M, Status> {
    M::decode(any.value.as_slice())
        .map_err(|why| Status::invalid_argument(format!("{} cannot be read: {why}", name(any))))
}

/// The messages of a choice that have the same form in both versions, both ways or only packed.
macro_rules! choice {
    ($pack:ident, $choice:ident { $($variant:ident = $name:literal,)* }) => {
        fn $pack(choice: &$choice) -> Option<proto::Any> {
            match choice {
                $($choice::$variant(message) => Some(pack($name, message)),)*
                #[allow(unreachable_patterns, reason = "not every choice has messages of another form")]
                _ => None,
            }
        }
    };
    ($pack:ident, $unpack:ident, $choice:ident { $($variant:ident = $name:literal,)* }) => {
        choice!($pack, $choice { $($variant = $name,)* });

        fn $unpack(any: &proto::Any) -> Result<Option<$choice>, Status> {
            Ok(Some(match name(any) {
                $($name => $choice::$variant(unpack(any)?),)*
                _ => return Ok(None),
            }))
        }
    };
}

choice!(pack_attr, unpack_attr, Attr {
    Unknown = "UnknownAttribute",
    Origin = "OriginAttribute",
    AsPath = "AsPathAttribute",
    NextHop = "NextHopAttribute",
    MultiExitDisc = "MultiExitDiscAttribute",
    LocalPref = "LocalPrefAttribute",
    AtomicAggregate = "AtomicAggregateAttribute",
    Aggregator = "AggregatorAttribute",
    Communities = "CommunitiesAttribute",
    OriginatorId = "OriginatorIdAttribute",
    ClusterList = "ClusterListAttribute",
    LargeCommunities = "LargeCommunitiesAttribute",
});

choice!(pack_extcom, unpack_extcom, Extcom {
    Unknown = "UnknownExtended",
    TwoOctetAsSpecific = "TwoOctetAsSpecificExtended",
    Ipv4AddressSpecific = "IPv4AddressSpecificExtended",
    FourOctetAsSpecific = "FourOctetAsSpecificExtended",
    LinkBandwidth = "LinkBandwidthExtended",
    Validation = "ValidationExtended",
    Color = "ColorExtended",
    Encap = "EncapExtended",
    DefaultGateway = "DefaultGatewayExtended",
    Opaque = "OpaqueExtended",
});

choice!(pack_cap, Cap {
    Unknown = "UnknownCapability",
    MultiProtocol = "MultiProtocolCapability",
    RouteRefresh = "RouteRefreshCapability",
    ExtendedNexthop = "ExtendedNexthopCapability",
    GracefulRestart = "GracefulRestartCapability",
    FourOctetAsn = "FourOctetASNCapability",
    AddPath = "AddPathCapability",
    EnhancedRouteRefresh = "EnhancedRouteRefreshCapability",
    LongLivedGracefulRestart = "LongLivedGracefulRestartCapability",
    RouteRefreshCisco = "RouteRefreshCiscoCapability",
    Fqdn = "FqdnCapability",
});

/// A prefix.
pub(super) fn nlri(shown: &api::Nlri) -> Option<proto::Any> {
    let Nlri::Prefix(prefix) = shown.nlri.as_ref()?;
    Some(pack("IPAddressPrefix", prefix))
}

/// Reads a prefix.
pub(super) fn read_nlri(any: &proto::Any) -> Result<api::Nlri, Status> {
    match name(any) {
        "IPAddressPrefix" => Ok(api::Nlri { nlri: Some(Nlri::Prefix(unpack(any)?)) }),
        name => Err(Status::unimplemented(format!("{name} is not spoken here: only IP prefixes are"))),
    }
}

/// An attribute.
pub(super) fn attribute(shown: &api::Attribute) -> Option<proto::Any> {
    match shown.attr.as_ref()? {
        Attr::MpReach(reach) => {
            let nlris = reach.nlris.iter().filter_map(nlri).collect();
            let next_hops = reach.next_hops.clone();
            let packed = proto::MpReachNlriAttribute { family: reach.family, next_hops, nlris };
            Some(pack("MpReachNLRIAttribute", &packed))
        }
        Attr::ExtendedCommunities(communities) => {
            let communities = communities.communities.iter();
            let communities = communities.filter_map(|one| pack_extcom(one.extcom.as_ref()?)).collect();
            Some(pack("ExtendedCommunitiesAttribute", &proto::ExtendedCommunitiesAttribute { communities }))
        }
        other => pack_attr(other),
    }
}

/// Reads an attribute.
pub(super) fn read_attribute(any: &proto::Any) -> Result<api::Attribute, Status> {
    let attr = match name(any) {
        "MpReachNLRIAttribute" => {
            let reach: proto::MpReachNlriAttribute = unpack(any)?;
            let nlris = reach.nlris.iter().map(read_nlri).collect::<Result<_, _>>()?;
            Attr::MpReach(api::MpReachNlriAttribute {
                family: reach.family,
                next_hops: reach.next_hops,
                nlris,
            })
        }
        "ExtendedCommunitiesAttribute" => {
            let shown: proto::ExtendedCommunitiesAttribute = unpack(any)?;
            let mut communities = Vec::with_capacity(shown.communities.len());
            for one in &shown.communities {
                let extcom = unpack_extcom(one)?.ok_or_else(|| {
                    Status::unimplemented(format!("extended community {} cannot be added here", name(one)))
                })?;
                communities.push(api::ExtendedCommunity { extcom: Some(extcom) });
            }
            Attr::ExtendedCommunities(api::ExtendedCommunitiesAttribute { communities })
        }
        name => unpack_attr(any)?
            .ok_or_else(|| Status::unimplemented(format!("attribute {name} cannot be added here")))?,
    };
    Ok(api::Attribute { attr: Some(attr) })
}

/// A capability. Those that version 3 has no message for are shown by their number.
pub(super) fn capability(shown: &api::Capability) -> Option<proto::Any> {
    let unknown = |code, value| pack("UnknownCapability", &proto::UnknownCapability { code, value });
    match shown.cap.as_ref()? {
        Cap::ExtendedMessage(_) => Some(unknown(6, Vec::new())),
        Cap::SoftwareVersion(version) => Some(unknown(75, version.software_version.clone().into_bytes())),
        other => pack_cap(other),
    }
}

/// A path.
pub(super) fn path(shown: api::Path) -> proto::Path {
    proto::Path {
        nlri: shown.nlri.as_ref().and_then(nlri),
        pattrs: shown.pattrs.iter().filter_map(attribute).collect(),
        age: shown.age,
        best: shown.best,
        is_withdraw: shown.is_withdraw,
        no_implicit_withdraw: shown.no_implicit_withdraw,
        family: shown.family,
        source_asn: shown.source_asn,
        source_id: shown.source_id,
        filtered: shown.filtered,
        stale: shown.stale,
        is_from_external: shown.is_from_external,
        neighbor_ip: shown.neighbor_ip,
        uuid: shown.uuid,
        is_nexthop_invalid: shown.is_nexthop_invalid,
        identifier: shown.identifier,
        local_identifier: shown.local_identifier,
    }
}

/// A neighbour.
pub(super) fn peer(view: &PeerView, policy: &RoutePolicy, advertised: bool) -> proto::Peer {
    let (local, remote) = peers::capabilities(view);
    let mut shown = peers::show(view, policy, advertised);
    if let Some(state) = &mut shown.state {
        state.local_cap = local.iter().filter_map(capability).collect();
        state.remote_cap = remote.iter().filter_map(capability).collect();
    }
    shown
}

/// A path of a table.
pub(crate) fn show_path(view: &PathView, table: Table) -> proto::Path {
    path(paths::show(view, table))
}

/// Reads the attributes of a path.
pub(crate) fn read_attributes(shown: &[proto::Any]) -> Result<Attributes, Status> {
    let shown = shown.iter().map(read_attribute).collect::<Result<Vec<_>, _>>()?;
    attributes::read(&shown)
}

/// Reads what of a path a client may say.
pub(super) fn read_path(path: &proto::Path) -> Result<api::Path, Status> {
    Ok(api::Path {
        nlri: path.nlri.as_ref().map(read_nlri).transpose()?,
        pattrs: path.pattrs.iter().map(read_attribute).collect::<Result<_, _>>()?,
        is_withdraw: path.is_withdraw,
        family: path.family,
        identifier: path.identifier,
        source_asn: path.source_asn,
        source_id: path.source_id.clone(),
        ..api::Path::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_without_a_message_are_shown_by_their_number() {
        let version = api::SoftwareVersionCapability { software_version: "x".to_owned() };
        let packed = capability(&api::Capability { cap: Some(Cap::SoftwareVersion(version)) }).unwrap();
        assert_eq!(name(&packed), "UnknownCapability");
        let expected = proto::UnknownCapability { code: 75, value: b"x".to_vec() };
        assert_eq!(unpack::<proto::UnknownCapability>(&packed).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_says_its_name() {
        let any = |name: &str| proto::Any { type_url: format!("{URL}{name}"), value: vec![] };
        let communities = proto::ExtendedCommunitiesAttribute { communities: vec![any("ESILabelExtended")] };
        let status = read_attribute(&pack("ExtendedCommunitiesAttribute", &communities)).unwrap_err();
        assert!(status.message().contains("ESILabelExtended"), "{status}");
        assert!(read_attribute(&any("AigpAttribute")).unwrap_err().message().contains("AigpAttribute"));
        assert!(read_nlri(&any("EVPNIPPrefixRoute")).unwrap_err().message().contains("EVPNIPPrefixRoute"));
        let broken = proto::Any { value: vec![0xff], ..any("OriginAttribute") };
        assert!(read_attribute(&broken).unwrap_err().message().contains("OriginAttribute cannot be read"));
    }

    #[test]
    fn a_message_is_known_by_the_end_of_its_address() {
        let any = |type_url: &str| proto::Any { type_url: type_url.to_owned(), value: vec![] };
        for url in ["apipb.OriginAttribute", "example.org/apipb.OriginAttribute"] {
            assert!(read_attribute(&any(url)).is_ok(), "{url}");
        }
    }
}
