//! Why a packet was let through or dropped: one closed list, in the kernel, in flows, in metrics and in `why`.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $allowed:literal, $word:literal;)*) => {
        /// Why a packet was let through or dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $number,)*
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// Whether a packet with this reason went through.
            pub const fn allowed(self) -> bool {
                match self {
                    $(Self::$name => $allowed,)*
                }
            }
        }
    };
}

reasons! {
    /// A rule allows it.
    Rule = 1, true, "rule";
    /// No rule decides, and the destination's cluster is open.
    DefaultOpen = 2, true, "default-open";
    /// Belongs to a connection that was allowed.
    Established = 3, true, "established";
    /// An ICMP error about a connection that was allowed.
    Related = 4, true, "related";
    /// From a node to its own container, or to a node.
    Node = 5, true, "node";
    /// From outside through a mapped port.
    MappedPort = 6, true, "mapped-port";
    /// From a container towards another node or the outside; the receiver decides.
    Outbound = 7, true, "outbound";

    /// No rule allows it, and the destination's cluster is closed.
    NoRule = 32, false, "no-rule";
    /// A rule denies it.
    RuleDeny = 33, false, "rule-deny";
    /// The rule that allowed the connection was removed.
    Revoked = 34, false, "revoked";
    /// Sent with a MAC address that is not the container's.
    SpoofedMac = 35, false, "spoofed-mac";
    /// Sent with a source address that is not the container's.
    SpoofedAddress = 36, false, "spoofed-address";
    /// ARP that claims an address or MAC that is not the container's.
    SpoofedArp = 37, false, "spoofed-arp";
    /// IPv6, which containers do not get yet.
    Ipv6 = 38, false, "ipv6";
    /// Neither IP nor ARP, or tagged with a VLAN.
    NotIp = 39, false, "not-ip";
    /// Headers that contradict themselves or the packet's length.
    Malformed = 40, false, "malformed";
    /// Broadcast or multicast, which is never flooded.
    Multicast = 41, false, "multicast";
    /// A container's own VXLAN towards a node.
    OverlayFromContainer = 42, false, "overlay-from-container";
    /// VXLAN from a host that is no node of the network.
    UnknownNode = 43, false, "unknown-node";
    /// From a node that does not own the inner source address.
    ForeignSource = 44, false, "foreign-source";
    /// VXLAN header without a valid VNI, or one that the sender cannot use.
    BadVni = 45, false, "bad-vni";
    /// To an address of this node that no container has.
    UnknownEndpoint = 46, false, "unknown-endpoint";
    /// A later fragment whose first was not seen.
    FragmentLost = 47, false, "fragment-lost";
    /// From outside, not through a mapped port.
    NotMapped = 48, false, "not-mapped";
    /// An ICMP error about a connection that nobody has.
    NoConnection = 49, false, "no-connection";
    /// The destination's rules are not loaded.
    NoTable = 50, false, "no-table";
    /// Longer than the path, with DF set; the sender was told.
    TooLong = 51, false, "too-long";
    /// Into a pool, but to no node's block.
    NoRoute = 52, false, "no-route";
    /// IP options that choose a route.
    SourceRoute = 53, false, "source-route";
    /// A table in the kernel is full or refused the packet.
    MapFull = 54, false, "map-full";
    /// The sender's endpoint is not known; it is being attached or detached.
    UnknownSender = 55, false, "unknown-sender";
    /// To another node or network without encapsulation, and the kernel has no route; the sender was told.
    Unrouted = 56, false, "unrouted";
    /// Arrived without encapsulation by an interface that no route back to its source leaves by.
    ReversePath = 57, false, "reverse-path";
    /// Arrived without encapsulation from a block or node that is reached through the overlay alone.
    NotEncapsulated = 58, false, "not-encapsulated";
    /// Arrived by wire with a source address of this node or of its own block.
    OwnSource = 59, false, "own-source";
}

/// Numbers below this one let a packet through.
const FIRST_DENIAL: u32 = 32;

/// Whether a packet with the reason of this number went through.
#[inline(always)]
pub const fn reason_allows(number: u32) -> bool {
    number < FIRST_DENIAL
}

/// One more than the highest number of a reason; size of the counters' map.
pub const REASONS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_word() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
            assert!((*reason as u32) < REASONS_MAX);
            assert_eq!(reason.allowed(), reason_allows(*reason as u32));
            for other in &Reason::ALL[index + 1..] {
                assert_ne!(reason.as_str(), other.as_str());
            }
        }
    }
}
