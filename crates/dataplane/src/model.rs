//! What the agent asks of the dataplane, and what it hears back. No kernel types here.

use ipnet::IpNet;
use isthmus_core::{DefaultVerdict, DenyAnswer, Identity, NodeName, PortMatch};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Next hop of every container's default route; answered by the dataplane, owned by nobody.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::from_octets(isthmus_dataplane_common::GATEWAY);
pub use isthmus_dataplane_common::GATEWAY_MAC;
/// Bytes that the overlay adds on an IPv4 underlay.
pub const OVERHEAD_IPV4: u32 = 50;
/// Smallest MTU a container can have (RFC 791: 576; and the ICMP errors that we send must fit).
pub const CONTAINER_MTU_MIN: u32 = 576;

/// How the node's dataplane is set up. Cannot change while it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the node; its pins live in `bpffs/NODE`.
    pub node: NodeName,
    /// Directory of a mounted BPF file system, normally `/sys/fs/bpf/isthmus`.
    pub bpffs: PathBuf,
    /// Address of the node that the overlay uses.
    pub tunnel_address: IpAddr,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// How programs are attached.
    pub attach_mode: AttachMode,
    /// MTU of containers; `None`: the uplink's less the overlay's overhead.
    pub mtu: Option<u32>,
    /// Sizes of the maps.
    pub limits: Limits,
}

/// How programs are attached to interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// tcx where the kernel has it (6.6), else clsact.
    #[default]
    Auto,
    /// tcx or an error.
    Tcx,
    /// A clsact qdisc with a filter of a fixed priority and handle.
    Clsact,
}

/// Sizes of the maps; what happens at each limit is said with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers on the node; one more is refused.
    pub endpoints: u32,
    /// Entries of all verdict tables of the node, twice during a swap; a table that does not fit is refused and the old one stays.
    pub policy_entries: u32,
    /// TCP connections; the least recently used gives way.
    pub connections_tcp: u32,
    /// Other flows; the least recently used gives way.
    pub connections_other: u32,
    /// Blocks of the whole network; one more is refused.
    pub blocks: u32,
    /// Nodes of the whole network; one more is refused.
    pub nodes: u32,
    /// Addresses on other nodes that rules of this node name, where packets are not encapsulated; one more is refused.
    pub peers: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            endpoints: 4_096,
            policy_entries: 1 << 20,
            connections_tcp: 262_144,
            connections_other: 131_072,
            blocks: 65_536,
            nodes: 16_384,
            peers: 65_536,
        }
    }
}

/// What the node must know of the network. The dataplane compares it with what the kernel has and changes the difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Ranges of all clusters' pools.
    pub pools: Vec<IpNet>,
    /// All nodes, this one too.
    pub nodes: Vec<NodeEntry>,
    /// All leased blocks, this node's too.
    pub blocks: Vec<BlockEntry>,
    /// How packets travel to other nodes' containers.
    pub encapsulation: Encapsulation,
    /// How the source of a packet without encapsulation is checked.
    pub source_check: SourceCheck,
    /// Ranges of networks that are not ours, reached by the kernel's routes and without NAT.
    pub foreign: Vec<ForeignEntry>,
    /// Who has which address on other nodes: the members that rules of this node name. Packets without encapsulation
    /// carry no identity.
    pub peers: Vec<PeerEntry>,
}

/// How packets travel to containers of other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// Overlay: VXLAN, the VNI is the sender's identity.
    #[default]
    Always,
    /// Overlay only where a router lies between the nodes; native on one link.
    CrossSubnet,
    /// Native: as they are, by the kernel's routes.
    Never,
}

/// How the source of a packet without encapsulation is checked (RFC 3704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceCheck {
    /// It comes by the interface that the route back to its source leaves by.
    #[default]
    Strict,
    /// There is a route back to its source, by whatever interface.
    Loose,
}

/// A range of a network that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignEntry {
    /// The range; the longest that holds an address counts.
    pub prefix: IpNet,
    /// Who sends from it: its cluster's identity, or [`Identity::WORLD`].
    pub identity: Identity,
}

/// An address on another node and who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub identity: Identity,
}

/// A node of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its number, not 0.
    pub number: u32,
    /// Its addresses; the first is the tunnel's.
    pub addresses: Vec<IpAddr>,
}

/// A block and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// The slice of a pool.
    pub block: IpNet,
    /// Number of the node.
    pub node: u32,
}

/// All rules towards one identity; applied whole and atomically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The destination.
    pub identity: Identity,
    /// Where no rule decides.
    pub default: DefaultVerdict,
    /// How a denied packet is answered.
    pub answer: DenyAnswer,
    /// The rules, in any order.
    pub rules: Vec<TableRule>,
}

/// One rule of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableRule {
    /// Sender; [`Identity::NONE`] is everybody.
    pub peer: Identity,
    /// Protocol and destination ports.
    pub port: PortMatch,
    /// Whether it denies.
    pub deny: bool,
    /// The higher one wins; of equals the denying one.
    pub precedence: u16,
    /// What flows and counters name; not 0.
    pub number: u32,
}

/// Asks for a container's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRequest {
    /// Name of the host side of the pair, at most 15 bytes; [`crate::link_name`] makes it from the attachment.
    pub host_interface: String,
    /// Name inside the container.
    pub interface: String,
    /// Address inside, a /32.
    pub address: IpAddr,
    /// MAC address inside; `None`: made from the address.
    pub mac: Option<[u8; 6]>,
    /// What the container is. Its table must be set before.
    pub identity: Identity,
}

/// A container's link as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name of the host side of the pair.
    pub host_interface: String,
    /// Index of the host side.
    pub host_ifindex: u32,
    /// Address inside.
    pub address: IpAddr,
    /// MAC address inside.
    pub mac: [u8; 6],
    /// What the container is.
    pub identity: Identity,
    /// Whether the interface exists, with its programs, and the maps agree. If not, detach it.
    pub whole: bool,
}

/// A port of the node that leads into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MappedPort {
    /// Address of the node; `None`: every one.
    pub host_address: Option<IpAddr>,
    /// Port of the node.
    pub host_port: u16,
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
    /// Address and port in the container.
    pub target: SocketAddr,
}

/// How the loaded tables judge a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub allowed: bool,
    /// The word for it: [`isthmus_dataplane_common`]'s reason as text.
    pub reason: &'static str,
    /// Number of the deciding rule; 0 where the default decided.
    pub rule: u32,
    /// Rules in the table.
    pub rules: u64,
}

/// One verdict, from the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Sender.
    pub from: Identity,
    /// Receiver; [`Identity::NONE`] where it is not known.
    pub to: Identity,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port, or ICMP type.
    pub destination_port: u16,
    /// Whether the packet was let through.
    pub allowed: bool,
    /// A word of the closed list of reasons.
    pub reason: &'static str,
    /// Number of the deciding rule; 0 where none decided.
    pub rule: u32,
}

/// What a sweep of the connection tables found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Connections that stay.
    pub live: u64,
    /// Connections whose time was over.
    pub expired: u64,
}
