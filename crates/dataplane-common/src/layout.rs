//! Keys and values of the maps.

use core::mem::size_of;

/// Version of every layout in this file, kept in a pinned map. Pins of another version are never read.
pub const LAYOUT_VERSION: u32 = 4;

/// Next hop of every container's default route; answered by the programs, owned by nobody.
pub const GATEWAY: [u8; 4] = [169, 254, 1, 1];
/// MAC address of the host side of every veth pair, hence of the gateway, and of VXLAN devices. Locally administered.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x69, 0x73, 0x74, 0x68, 0x6d];
/// Source of inner frames. Not [`GATEWAY_MAC`]: a device takes a frame from its own address for a loop (`vxlan_set_mac` in
/// drivers/net/vxlan).
pub const OVERLAY_MAC: [u8; 6] = [0x02, 0x69, 0x73, 0x74, 0x68, 0x6c];

/// Bits of `skb->mark` that are ours; none of kube-proxy's 0xc000 nor Silk's 0xffff0000.
pub const MARK_MASK: u32 = 0x0f00;
/// Sent by a process of the node itself (set by our nftables chain in OUTPUT).
pub const MARK_NODE: u32 = 0x0100;
/// Comes through a mapped port (set by our nftables chain in FORWARD).
pub const MARK_MAPPED: u32 = 0x0200;
/// Has its tunnel key already; the program on the VXLAN device lets it pass.
pub const MARK_KEYED: u32 = 0x0400;
/// Sent by a container and judged; on its way through the host's stack.
pub const MARK_CONTAINER: u32 = 0x0800;

/// Identities that programs name.
pub mod identity {
    /// Nobody; in a rule: everybody.
    pub const NONE: u32 = 0;
    /// The node, towards its own containers.
    pub const HOST: u32 = 2;
    /// Another node.
    pub const REMOTE_NODE: u32 = 3;
    /// Outside.
    pub const WORLD: u32 = 4;
    /// First number of a workload.
    pub const FIRST_WORKLOAD: u32 = 256;
    /// Cannot be told.
    pub const UNKNOWN: u32 = 0x00ff_ffff;
}

/// An IPv6 address, or an IPv4 address mapped into one (RFC 4291 section 2.5.5.2), as in a packet.
pub type Address = [u32; 4];

/// Maps an IPv4 address, given as it is in a packet.
#[inline(always)]
pub const fn mapped(ipv4_network_order: u32) -> Address {
    [0, 0, 0x0000_ffff_u32.to_be(), ipv4_network_order]
}

/// Value of `ENDPOINT_BY_IFINDEX` and `ENDPOINT_BY_ADDRESS`: a container of this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointValue {
    /// Its address.
    pub address: Address,
    /// What it is; the VNI of what it sends. 24 bits, host order.
    pub identity: u32,
    /// Slot of its identity in `SLOT`.
    pub slot: u32,
    /// Host side of the veth pair, in the node's network namespace.
    pub host_ifindex: u32,
    /// Counts up at each attach, so that a reused address never meets old connections.
    pub birth: u32,
    /// MAC address inside the container.
    pub mac: [u8; 6],
    /// Zero; room for flags.
    pub flags: u16,
    /// Zero; room for what comes.
    pub reserved: [u32; 2],
}
const _: () = assert!(size_of::<EndpointValue>() == 48, "padding would reach the kernel uninitialised");

/// Key data of `BLOCK` behind the prefix length: scope 0 in the first word, then the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockKey {
    /// Zero; room for tenants with overlapping ranges.
    pub scope: u32,
    /// The address.
    pub address: Address,
}
const _: () = assert!(size_of::<BlockKey>() == 20, "the prefix length counts these bits");

/// Bits of a [`BlockKey`] before an IPv4 address.
pub const BLOCK_PREFIX_IPV4: u32 = 32 + 96;
/// Bits of a [`BlockKey`].
pub const BLOCK_PREFIX_MAX: u32 = 32 + 128;

/// Value of `BLOCK`: who has the addresses of a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockValue {
    /// Number of the node; 0: a pool's range that nobody has leased, or a network that is not ours.
    pub node: u32,
    /// `BLOCK_*`.
    pub flags: u32,
    /// The node's tunnel address, IPv4, as in a packet.
    pub tunnel: u32,
    /// Next hop towards it, as in a packet; itself where it is on the link.
    pub next_hop: u32,
    /// Interface towards it.
    pub ifindex: u32,
    /// With [`BLOCK_FOREIGN`]: who sends from it.
    pub identity: u32,
    /// Zero.
    pub reserved: [u32; 2],
}
const _: () = assert!(size_of::<BlockValue>() == 32, "padding would reach the kernel uninitialised");

/// [`BlockValue::flags`]: leased to this node.
pub const BLOCK_LOCAL: u32 = 1;
/// [`BlockValue::flags`]: packets go as they are, by the kernel's routes, and come so.
pub const BLOCK_NATIVE: u32 = 2;
/// [`BlockValue::flags`]: of a network that is not ours.
pub const BLOCK_FOREIGN: u32 = 4;
/// [`BlockValue::flags`], with [`BLOCK_NATIVE`]: where the kernel has no route of its own, the overlay is the way.
pub const BLOCK_OVERLAY_ELSE: u32 = 8;
/// [`BlockValue::flags`], with [`BLOCK_FOREIGN`]: one address of a block of this node, which somebody elsewhere borrowed. The
/// kernel's routes say so, not the server.
pub const BLOCK_BORROWED: u32 = 16;

/// Value of `NODE`, keyed by each address of each node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeValue {
    /// The way to it, as in a block's value.
    pub way: BlockValue,
    /// 1 if the address is this node's own.
    pub own: u32,
    /// Zero; room for the flag of a gateway.
    pub flags: u32,
}
const _: () = assert!(size_of::<NodeValue>() == 40, "padding would reach the kernel uninitialised");

/// Value of `MULTIPATH`, keyed by the prefixes of routes with several next hops, and of those within them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MultipathValue {
    /// Interfaces that the route leaves by; 0: no more.
    pub ifindexes: [u32; MULTIPATH_MAX],
}

/// Interfaces of one route that are known.
pub const MULTIPATH_MAX: usize = 8;

/// Value of `PATH_MTU`, keyed by a node's tunnel address: what a router told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtuValue {
    /// Longest inner packet that the path carries.
    pub mtu: u32,
    /// When it was told, in ticks; forgotten after ten minutes (RFC 1191 section 6.3).
    pub learned: u32,
}

/// Value of `SLOT`: the rules towards one local identity.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotValue {
    /// Which kinds of keys its table has: bit of [`crate::verdict::TUPLES`].
    pub tuples: u64,
    /// Counts up with every change; connections judged under another are judged again.
    pub generation: u32,
    /// First part of its keys in `POLICY`; 0: no table, deny.
    pub table: u32,
    /// The identity.
    pub identity: u32,
    /// [`SLOT_CLOSED`], [`SLOT_REJECT`].
    pub flags: u32,
    /// Rules in the table.
    pub rules: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<SlotValue>() == 32, "padding would reach the kernel uninitialised");

/// [`SlotValue::flags`]: what no rule allows is denied.
pub const SLOT_CLOSED: u32 = 1;
/// [`SlotValue::flags`]: denied packets are answered.
pub const SLOT_REJECT: u32 = 2;
/// No slot: somebody else decides.
pub const SLOT_NONE: u32 = u32::MAX;

/// Key of `POLICY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// The table; a new number for each version of a table that is swapped whole.
    pub table: u32,
    /// Sender's identity; 0: everybody.
    pub peer: u32,
    /// Destination port less its last `16 - port_bits` bits, host order.
    pub port: u16,
    /// IP protocol; 0: any.
    pub protocol: u8,
    /// How many leading bits of the port count.
    pub port_bits: u8,
}
const _: () = assert!(size_of::<PolicyKey>() == 12, "padding would reach the kernel uninitialised");

/// Value of `POLICY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyValue {
    /// Number of the rule.
    pub rule: u32,
    /// The higher one wins.
    pub precedence: u16,
    /// 1: deny.
    pub deny: u8,
    /// Zero.
    pub reserved: u8,
}
const _: () = assert!(size_of::<PolicyValue>() == 8, "padding would reach the kernel uninitialised");

/// Key of the connection tables: both ends, the lower first, so that both directions find one entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// Lower end's address.
    pub low: Address,
    /// Higher end's address.
    pub high: Address,
    /// Lower end's port, host order; the identifier for ICMP echo.
    pub low_port: u16,
    /// Higher end's port.
    pub high_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero; room for tenants.
    pub scope: u8,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<ConnectionKey>() == 40, "padding would reach the kernel uninitialised");

impl ConnectionKey {
    /// Tells entries apart: see [`ConnectionValue::check`].
    #[inline(always)]
    pub const fn check(low: u32, high: u32, ports: u32) -> u32 {
        // Fibonacci hashing between, so that no two of the three can cancel out.
        (low.wrapping_mul(0x9e37_79b1) ^ high).wrapping_mul(0x9e37_79b1) ^ ports
    }
}

/// Value of the connection tables. What each packet needs comes first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionValue {
    /// [`ConnectionKey::check`] of its key. The kernel may give the memory of an old entry to a new one while a program
    /// reads it; this is written first and read last, so that a mixture is seen to be one.
    pub check: u32,
    /// [`ConfigValue::epoch`] under which all the rest was true; under another it is judged and learnt again,
    /// into an entry that replaces this one.
    pub epoch: u32,
    /// `CONNECTION_*`.
    pub flags: u32,
    /// When it was last seen, in [`TICK_SHIFT`] ticks; wraps.
    pub seen: u32,
    /// When a program last asked the clock whether `seen` is old, in jiffies; wraps.
    pub asked: u32,
    /// Number of the node at the far end; 0: none.
    pub node: u32,
    /// Where the lower end is.
    pub low: Side,
    /// Where the higher end is.
    pub high: Side,
    /// Who sent the first packet.
    pub from: u32,
    /// Who got it.
    pub to: u32,
    /// Slot that decided; [`SLOT_NONE`]: another node decides, or no rule is needed.
    pub slot: u32,
    /// Generation of the slot when it was last judged.
    pub generation: u32,
    /// Birth of the lower end's endpoint; 0: not of this node.
    pub low_birth: u32,
    /// Birth of the higher end's endpoint; 0: not of this node.
    pub high_birth: u32,
    /// Number of the rule that allowed it; 0: the default.
    pub rule: u32,
    /// Zero; room for a service.
    pub service: u32,
    /// Zero; room for a translated address.
    pub translated: Address,
    /// Destination port of the first packet, host order.
    pub port: u16,
    /// Zero; room for a translated port.
    pub translated_port: u16,
}
const _: () = assert!(size_of::<ConnectionValue>() == 124, "padding would reach the kernel uninitialised");

/// Where an end of a connection is, as far as packets need it. See [`Side::native`] for what the fields of a
/// [`SIDE_NATIVE`] hold.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// A container: host side of its pair. A node: interface towards it.
    pub ifindex: u32,
    /// A container: what it is.
    pub identity: u32,
    /// A container: its MAC address but for the first two bytes, as in a packet.
    pub mac_tail: u32,
    /// A container: the first two bytes of its MAC address.
    pub mac_head: u16,
    /// [`SIDE_STACK`], [`SIDE_CONTAINER`], [`SIDE_NODE`], [`SIDE_NATIVE`].
    pub kind: u16,
    /// A node: its tunnel address, IPv4, as in a packet.
    pub tunnel: u32,
    /// A node: next hop towards it, as in a packet.
    pub next_hop: u32,
}
const _: () = assert!(size_of::<Side>() == 24, "padding would reach the kernel uninitialised");

impl Side {
    /// An end that is reached without encapsulation: the way to it, and the interface that its packets come by.
    #[inline(always)]
    pub const fn native(ifindex: u32, next_hop: u32, mtu: u32, arrival: u32) -> Self {
        Self {
            ifindex,
            identity: 0,
            mac_tail: arrival,
            mac_head: 0,
            kind: SIDE_NATIVE,
            tunnel: mtu,
            next_hop,
        }
    }

    /// [`SIDE_NATIVE`]: longest packet that the way carries.
    #[inline(always)]
    pub const fn mtu(&self) -> u32 {
        self.tunnel
    }

    /// [`SIDE_NATIVE`]: interface that its packets may come by.
    #[inline(always)]
    pub const fn arrival(&self) -> u32 {
        self.mac_tail
    }
}

/// [`Side::kind`]: the host's stack knows.
pub const SIDE_STACK: u16 = 0;
/// [`Side::kind`]: a container of this node.
pub const SIDE_CONTAINER: u16 = 1;
/// [`Side::kind`]: another node, through the overlay.
pub const SIDE_NODE: u16 = 2;
/// [`Side::kind`]: another node or network, without encapsulation.
pub const SIDE_NATIVE: u16 = 3;

/// [`ConnectionValue::epoch`]: never true.
pub const EPOCH_NONE: u32 = 0;

/// [`ConnectionValue::flags`]: the lower end sent the first packet.
pub const CONNECTION_FROM_LOW: u32 = 1;
/// The other end answered.
pub const CONNECTION_ANSWERED: u32 = 2;
/// FIN from the side that began.
pub const CONNECTION_FIN_FROM: u32 = 4;
/// FIN from the side that answered.
pub const CONNECTION_FIN_TO: u32 = 8;
/// RST from either side.
pub const CONNECTION_RESET: u32 = 16;
/// No longer allowed; both directions are dropped until it is forgotten or allowed again.
pub const CONNECTION_REVOKED: u32 = 32;
/// TCP's handshake is complete.
pub const CONNECTION_ESTABLISHED: u32 = 64;

/// Began through the host's stack, and is answered through it.
pub const CONNECTION_BY_STACK: u32 = 128;

/// A tick of [`ConnectionValue::seen`] is 2^24 ns, about 17 ms; wraps after two years.
pub const TICK_SHIFT: u32 = 24;
/// About one second in ticks: how old `seen` may get before a packet touches it.
pub const TOUCH_TICKS: u32 = 60;

/// Key of `FRAGMENT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// Identification of the datagram, as in the packet.
    pub id: u32,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
const _: () = assert!(size_of::<FragmentKey>() == 40, "padding would reach the kernel uninitialised");

/// Value of `FRAGMENT`: what only the first fragment says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentValue {
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
}

/// Key of `SAMPLE`: what is told at most once a second.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// Sender.
    pub from: u32,
    /// Receiver.
    pub to: u32,
    /// Destination port.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// [`crate::Reason`].
    pub reason: u8,
}
const _: () = assert!(size_of::<SampleKey>() == 12, "padding would reach the kernel uninitialised");

/// Value of `SAMPLE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleValue {
    /// Packets, told or not.
    pub packets: u64,
    /// When it was last told, in ticks.
    pub told: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the ring buffer carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventValue {
    /// `bpf_ktime_get_ns`.
    pub time_ns: u64,
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// Sender.
    pub from: u32,
    /// Receiver.
    pub to: u32,
    /// Number of the deciding rule.
    pub rule: u32,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, or ICMP type.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// [`crate::Reason`].
    pub reason: u8,
    /// Zero.
    pub reserved: [u8; 6],
}
const _: () = assert!(size_of::<EventValue>() == 64, "padding would reach userspace uninitialised");

/// Value of `CONFIG`, an array of one: what may change while programs run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigValue {
    /// [`LAYOUT_VERSION`].
    pub layout: u32,
    /// Longest packet that a container can send through the overlay.
    pub mtu: u32,
    /// Smallest of all paths' MTUs; longer packets must look up theirs. Never above `mtu`.
    pub path_mtu_floor: u32,
    /// Number of this node.
    pub node: u32,
    /// Counts up behind every change of endpoints, rules, nodes, blocks and routes; never [`EPOCH_NONE`].
    pub epoch: u32,
    /// `NATIVE_*`; 0: every packet for a container comes encapsulated or through the stack.
    pub native: u32,
    /// Lowest address of this node's blocks, host order: what the wire brings below it is no container's.
    pub local_low: u32,
    /// Highest one.
    pub local_high: u32,
}

/// [`ConfigValue::native`]: packets without encapsulation come for containers.
pub const NATIVE_ACCEPTED: u32 = 1;
/// [`ConfigValue::native`]: only by the interface that the route back leaves by (RFC 3704 section 2.2).
pub const NATIVE_STRICT: u32 = 2;
