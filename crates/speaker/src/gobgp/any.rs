//! Messages in `Any`: their name and their bytes.

use super::proto;
use prost::Message;

/// What stands before the name.
const URL: &str = "type.googleapis.com/apipb.";

/// A message that travels in `Any`.
pub(super) trait Packed: Message + Default {
    /// Its name within the package.
    const NAME: &'static str;

    /// Packs it.
    fn pack(&self) -> proto::Any {
        proto::Any { type_url: format!("{URL}{}", Self::NAME), value: self.encode_to_vec() }
    }
}

/// Which message `any` has; `None` where it is none of the package's.
pub(super) fn name(any: &proto::Any) -> Option<&str> {
    // Clients may write another host, or none.
    any.type_url.rsplit('/').next()?.strip_prefix("apipb.")
}

/// Unpacks a message of which the name is known.
pub(super) fn unpack<M: Packed>(any: &proto::Any) -> Result<M, tonic::Status> {
    M::decode(any.value.as_slice())
        .map_err(|why| tonic::Status::invalid_argument(format!("{} cannot be read: {why}", M::NAME)))
}

macro_rules! packed {
    ($($message:ident = $name:literal,)*) => {
        $(impl Packed for proto::$message {
            const NAME: &'static str = $name;
        })*
    };
}

packed! {
    IpAddressPrefix = "IPAddressPrefix",
    OriginAttribute = "OriginAttribute",
    AsPathAttribute = "AsPathAttribute",
    NextHopAttribute = "NextHopAttribute",
    MultiExitDiscAttribute = "MultiExitDiscAttribute",
    LocalPrefAttribute = "LocalPrefAttribute",
    AtomicAggregateAttribute = "AtomicAggregateAttribute",
    AggregatorAttribute = "AggregatorAttribute",
    CommunitiesAttribute = "CommunitiesAttribute",
    OriginatorIdAttribute = "OriginatorIdAttribute",
    ClusterListAttribute = "ClusterListAttribute",
    MpReachNlriAttribute = "MpReachNLRIAttribute",
    ExtendedCommunitiesAttribute = "ExtendedCommunitiesAttribute",
    TwoOctetAsSpecificExtended = "TwoOctetAsSpecificExtended",
    IPv4AddressSpecificExtended = "IPv4AddressSpecificExtended",
    FourOctetAsSpecificExtended = "FourOctetAsSpecificExtended",
    UnknownExtended = "UnknownExtended",
    LargeCommunitiesAttribute = "LargeCommunitiesAttribute",
    UnknownAttribute = "UnknownAttribute",
    MultiProtocolCapability = "MultiProtocolCapability",
    RouteRefreshCapability = "RouteRefreshCapability",
    ExtendedNexthopCapability = "ExtendedNexthopCapability",
    GracefulRestartCapability = "GracefulRestartCapability",
    FourOctetAsnCapability = "FourOctetASNCapability",
    AddPathCapability = "AddPathCapability",
    EnhancedRouteRefreshCapability = "EnhancedRouteRefreshCapability",
    LongLivedGracefulRestartCapability = "LongLivedGracefulRestartCapability",
    RouteRefreshCiscoCapability = "RouteRefreshCiscoCapability",
    FqdnCapability = "FqdnCapability",
    UnknownCapability = "UnknownCapability",
}
