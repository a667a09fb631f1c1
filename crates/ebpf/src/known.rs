//! Packets of known connections: one look-up each, or none.
//!
//! Nearly every packet is one of a connection that was judged before. Its entry holds all that the packet needs: who may
//! send it from where, and the way out. It is believed under the epoch alone that it was written under: userspace begins
//! another behind each change of endpoints, rules, nodes and blocks. What is not plain (options, fragments, other protocols
//! than TCP and UDP, a new connection, anything that does not fit) takes the long way, which judges it and tells why.
//!
//! A packet finds caches, branch predictors and TLB cold, because sender and receiver work between any two: what counts is
//! how little is executed and touched. Hence no passage here, no writes through packet pointers (they make the verifier put
//! a call before the whole program), and what is asked first lies first in the entry. Of connections whose handshake is
//! over, each CPU keeps the flows that it saw last, a cache line each, and asks their entries only now and then ([`Flow`]).

use crate::{
    SHOT,
    connection::tcp_flags,
    deliver::{self, Outbound},
    event::{count, jiffies, now},
    maps::{CONNECTION_OTHER, CONNECTION_TCP, FLOW, config},
    packet::{
        ETHERNET_BYTES, ETHERTYPE_IPV4, Ipv4, Mac, Macs, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Tunnel,
        UDP, at, ethertype, gso_size, ifindex, read, store, tagged,
    },
};
use aya_ebpf::programs::TcContext;
use isthmus_dataplane_common::{
    CONNECTION_ANSWERED, CONNECTION_ESTABLISHED, CONNECTION_FROM_LOW, ConnectionKey, ConnectionValue,
    GATEWAY_MAC, Reason, SIDE_CONTAINER, SIDE_NATIVE, SIDE_NODE, Side, TOUCH_TICKS, mapped,
};

/// A plain packet: IPv4 without options, whole, TCP or UDP.
struct Plain {
    ip: Ipv4,
    /// As in the packet: source, destination.
    ports: u32,
    tcp_flags: u8,
    /// Of the transport header, in bytes.
    transport_len: u8,
    from_low: bool,
    /// See [`deliver::entropy`].
    entropy: u16,
}

/// A [`ConnectionKey`] as it lies in memory of a little-endian machine.
#[repr(C, align(8))]
struct Words([u32; 10]);
const _: () = assert!(size_of::<Words>() == size_of::<ConnectionKey>(), "one is read as the other");

/// Instead of an action: the connection is not in the table.
pub const NEW: i32 = -1000;
/// Instead of an action: the connection may be known, and the packet takes the long way all the same.
pub const OTHER: i32 = -1001;

/// What a container sends.
#[inline(always)]
pub fn from_container(ctx: &TcContext) -> i32 {
    let Some(macs) = Macs::read(ctx) else { return OTHER };
    if ethertype(ctx, 12) != Some(ETHERTYPE_IPV4) || macs.to_many() || tagged(ctx) {
        return OTHER;
    }
    let Some(plain) = Plain::read::<ETHERNET_BYTES>(ctx) else { return OTHER };
    let config = config();
    let ifindex = ifindex(ctx);
    let origin = Origin { place: ifindex, tail: macs.source().tail, head: u32::from(macs.source().head) };
    let Some(flow) = plain.flow() else { return OTHER };
    let exit = if plain.is_of(flow, &origin, config.epoch) {
        flow.exit
    } else {
        let Some(entry) = plain.look_up() else { return NEW };
        let from = plain.sides(entry).0;
        // The key has the source address: an entry of this epoch knows whose it is.
        if entry.epoch != config.epoch
            || from.kind != SIDE_CONTAINER
            || from.ifindex != ifindex
            || from.mac_tail != origin.tail
            || u32::from(from.mac_head) != origin.head
        {
            return OTHER;
        }
        match plain.follow(entry, flow, &origin) {
            Some(exit) => exit,
            None => return OTHER,
        }
    };
    if exit.kind == u32::from(SIDE_CONTAINER) {
        count(Reason::Established);
        return into_container(ctx, &exit);
    }
    if exit.kind == u32::from(SIDE_NODE) {
        if plain.longest_len(ctx) > config.path_mtu_floor {
            return OTHER;
        }
        count(Reason::Established);
        let outbound = Outbound {
            tunnel: exit.headers[0],
            next_hop: exit.headers[1],
            ifindex: exit.ifindex,
            identity: exit.headers[2],
            total_len: u16::from_be(plain.ip.total_len),
            tos: plain.ip.tos,
            entropy: plain.entropy,
        };
        return deliver::encapsulate(ctx, &outbound);
    }
    if exit.kind == u32::from(SIDE_NATIVE) {
        if plain.longest_len(ctx) > exit.headers[0] {
            return OTHER;
        }
        count(Reason::Established);
        return deliver::to_next_hop(exit.ifindex, exit.headers[1]);
    }
    count(Reason::Established);
    deliver::to_stack(ctx)
}

/// What comes by wire without encapsulation.
#[inline(always)]
pub fn from_wire_native(ctx: &TcContext) -> i32 {
    let Some(plain) = Plain::read::<ETHERNET_BYTES>(ctx) else { return OTHER };
    let epoch = config().epoch;
    let ifindex = ifindex(ctx);
    let origin = Origin { place: ifindex, tail: 0, head: FROM_WIRE_NATIVE };
    let Some(flow) = plain.flow() else { return OTHER };
    let exit = if plain.is_of(flow, &origin, epoch) {
        flow.exit
    } else {
        let Some(entry) = plain.look_up() else { return NEW };
        let (from, to) = plain.sides(entry);
        // The key has the source address: an entry of this epoch knows whose it is, and by which interface it may come.
        if entry.epoch != epoch
            || from.kind != SIDE_NATIVE
            || from.arrival() != ifindex
            || to.kind != SIDE_CONTAINER
        {
            return OTHER;
        }
        match plain.follow(entry, flow, &origin) {
            Some(exit) => exit,
            None => return OTHER,
        }
    };
    count(Reason::Established);
    into_container(ctx, &exit)
}

/// What another node sends, in the overlay's clothes.
#[inline(always)]
pub fn from_wire(ctx: &TcContext, tunnel: &Tunnel) -> i32 {
    const INNER: usize = ETHERNET_BYTES + deliver::OVERLAY_BYTES;
    let Some(plain) = Plain::read::<INNER>(ctx) else { return OTHER };
    // Merged datagrams, and congestion that is to be told, are for the long way.
    if tunnel.ip.tos & 3 != plain.ip.tos & 3 || (gso_size(ctx) != 0 && plain.ip.protocol != TCP) {
        return OTHER;
    }
    let epoch = config().epoch;
    let vni = u32::from_be(tunnel.vni) >> 8;
    let origin = Origin { place: tunnel.ip.source, tail: vni, head: FROM_WIRE };
    let Some(flow) = plain.flow() else { return OTHER };
    let exit = if plain.is_of(flow, &origin, epoch) {
        flow.exit
    } else {
        let Some(entry) = plain.look_up() else { return NEW };
        let (from, to) = plain.sides(entry);
        if entry.epoch != epoch
            || from.kind != SIDE_NODE
            || from.tunnel != tunnel.ip.source
            || to.kind != SIDE_CONTAINER
            // Who answers is not known here, but its node is; who began may not become another.
            || (plain.forward(entry) && entry.from != vni)
        {
            return OTHER;
        }
        match plain.follow(entry, flow, &origin) {
            Some(exit) => exit,
            None => return OTHER,
        }
    };
    count(Reason::Established);
    if deliver::decapsulate(ctx) { into_container(ctx, &exit) } else { SHOT }
}

#[inline(always)]
fn into_container(ctx: &TcContext, exit: &Exit) -> i32 {
    if !store(ctx, 0, &exit.headers, size_of_val(&exit.headers)) {
        return SHOT;
    }
    deliver::redirect(ctx, exit.ifindex)
}

/// What a packet's sender cannot choose, or has to prove.
struct Origin {
    /// The interface that it came by, or the tunnel address.
    place: u32,
    /// The rest of its MAC address, or the identity that its node vouches for.
    tail: u32,
    /// The first two bytes of its MAC address, or [`FROM_WIRE`], or [`FROM_WIRE_NATIVE`].
    head: u32,
}

/// No first two bytes of a MAC address.
const FROM_WIRE: u32 = u32::MAX;
/// Nor these.
const FROM_WIRE_NATIVE: u32 = u32::MAX - 1;

/// One direction of a settled connection, as this CPU saw it last: what a packet needs in one cache line. It lies where its
/// addresses and ports say, until another takes the place.
#[repr(C, align(64))]
pub struct Flow {
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u32,
    place: u32,
    tail: u32,
    head: u32,
    epoch: u32,
    /// When its connection wants to be seen again, in jiffies.
    until: u32,
    exit: Exit,
}

/// The way out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Exit {
    /// [`Side::kind`] of where it leads.
    kind: u32,
    /// Interface that it leaves by.
    ifindex: u32,
    /// Into a container: both MAC addresses. To a node: tunnel address, next hop, sender's identity; without
    /// encapsulation MTU and next hop.
    headers: [u32; 3],
}

/// Flows that a CPU remembers: as many as its nearer caches hold beside all else, and a per-CPU value may be long.
const FLOWS: usize = 256;
/// The flows of a CPU, as one value: found without a look at a table of pointers.
#[repr(C)]
pub struct Flows([Flow; FLOWS]);
/// How long a flow is believed without a look at its connection: between 0.1 s and 1 s, as the kernel's clock is set.
const FLOW_JIFFIES: u32 = 100;

impl Plain {
    #[inline(always)]
    fn read<const L3: usize>(ctx: &TcContext) -> Option<Self> {
        let ip: Ipv4 = read(ctx, L3)?;
        let ports: u32 = read(ctx, L3 + 20)?;
        if ip.version_ihl != 0x45
            || ip.fragment & 0x3fff_u16.to_be() != 0
            || usize::from(u16::from_be(ip.total_len)) + L3 > ctx.len() as usize
            || ip.source == ip.destination
        {
            return None;
        }
        let (transport_len, tcp_flags) = match ip.protocol {
            // A whole header (RFC 9293 section 3.1): the 13th byte has its length in words, the 14th the flags.
            TCP => {
                at::<[u8; 20]>(ctx, L3 + 20)?;
                let word = u16::from_be(read(ctx, L3 + 20 + 12)?);
                (((word >> 12) << 2) as u8, word as u8)
            }
            UDP => at::<[u8; 8]>(ctx, L3 + 20).map(|_| (8, 0))?,
            _ => return None,
        };
        let entropy = deliver::entropy(ip.source, ip.destination, ports);
        Some(Self { from_low: ip.source < ip.destination, ip, ports, tcp_flags, transport_len, entropy })
    }

    /// Length of the longest packet that leaves: the packet itself, or a segment cut from it.
    #[inline(always)]
    fn longest_len(&self, ctx: &TcContext) -> u32 {
        match gso_size(ctx) {
            0 => u32::from(u16::from_be(self.ip.total_len)),
            size => size + 20 + u32::from(self.transport_len),
        }
    }

    /// Where this CPU remembers the packet's flow, or will.
    #[inline(always)]
    fn flow(&self) -> Option<&'static mut Flow> {
        let flows = FLOW.get_ptr_mut(0)?;
        // SAFETY: a per-CPU value that nobody else uses while the program runs; made of integers. The index is masked.
        Some(unsafe { &mut (*flows).0[usize::from(self.entropy) % FLOWS] })
    }

    /// Whether nothing can happen to a settled connection by the packet.
    #[inline(always)]
    fn changes_nothing(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0
    }

    /// Whether the flow is the packet's.
    #[inline(always)]
    fn is_of(&self, flow: &Flow, origin: &Origin, epoch: u32) -> bool {
        self.changes_nothing()
            && flow.source == self.ip.source
            && flow.destination == self.ip.destination
            && flow.ports == self.ports
            && flow.protocol == u32::from(self.ip.protocol)
            && flow.place == origin.place
            && flow.tail == origin.tail
            && flow.head == origin.head
            && flow.epoch == epoch
            && (flow.until.wrapping_sub(jiffies()) as i32) > 0
    }

    /// Both ends in the order of the connection's key: addresses as in the packet, ports as in the key's word of both.
    #[inline(always)]
    fn ends(&self) -> (u32, u32, u32) {
        let (source, destination) = (self.ip.source, self.ip.destination);
        // Both ports in host order: the whole word in host order has them the other way round.
        let swapped = u32::from_be(self.ports);
        if self.from_low {
            (source, destination, swapped.rotate_left(16))
        } else {
            (destination, source, swapped)
        }
    }

    #[inline(always)]
    fn look_up(&self) -> Option<&'static mut ConnectionValue> {
        let (low, high, ports) = self.ends();
        // By words, as the hash reads it: a processor waits where it reads more than was written at once.
        let prefix = mapped(0)[2];
        let key = Words([0, 0, prefix, low, 0, 0, prefix, high, ports, u32::from(self.ip.protocol)]);
        // SAFETY: of the same size and alignment, and every pattern of bits is a key.
        let key = unsafe { &*(&raw const key).cast::<ConnectionKey>() };
        let entry = if self.ip.protocol == TCP {
            CONNECTION_TCP.get_ptr_mut(key)
        } else {
            CONNECTION_OTHER.get_ptr_mut(key)
        };
        // SAFETY: as in `connection::look_up`.
        entry.map(|entry| unsafe { &mut *entry })
    }

    /// Where the packet comes from, and where it leads.
    #[inline(always)]
    fn sides<'a>(&self, entry: &'a ConnectionValue) -> (&'a Side, &'a Side) {
        if self.from_low { (&entry.low, &entry.high) } else { (&entry.high, &entry.low) }
    }

    /// Whether it goes the way of the first packet.
    #[inline(always)]
    fn forward(&self, entry: &ConnectionValue) -> bool {
        (entry.flags & CONNECTION_FROM_LOW != 0) == self.from_low
    }

    /// Moves the connection on, and remembers the flow of one that has settled; not for a SYN, which may begin another.
    #[inline(always)]
    fn follow(&self, entry: &mut ConnectionValue, flow: &mut Flow, origin: &Origin) -> Option<Exit> {
        let forward = self.forward(entry);
        let mut flags = entry.flags;
        if self.ip.protocol == TCP {
            if self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
                return None;
            }
            flags |= tcp_flags(flags, self.tcp_flags, forward);
        } else if !forward {
            flags |= CONNECTION_ANSWERED;
        }
        // Shared cache lines are written rarely: flags when they change, times once in a while. And the clock costs more than
        // a look-up in a warm table: it is asked as often as flows are renewed.
        if flags != entry.flags {
            entry.flags = flags;
        }
        let jiffies = jiffies();
        if jiffies.wrapping_sub(entry.asked) > FLOW_JIFFIES {
            let now = now();
            if now.wrapping_sub(entry.seen) > TOUCH_TICKS {
                // The long way asks the kernel's routes again, and touches.
                if entry.low.kind == SIDE_NATIVE || entry.high.kind == SIDE_NATIVE {
                    return None;
                }
                entry.seen = now;
            }
            entry.asked = jiffies;
        }
        let (from, to) = self.sides(entry);
        let exit = Exit {
            kind: u32::from(to.kind),
            ifindex: to.ifindex,
            headers: if to.kind == SIDE_CONTAINER {
                Macs::new(Mac { head: to.mac_head, tail: to.mac_tail }, Mac::of(GATEWAY_MAC)).words()
            } else {
                [to.tunnel, to.next_hop, from.identity]
            },
        };
        let (low, high, ports) = self.ends();
        // SAFETY: a valid reference; volatile, because others write what it refers to.
        if unsafe { (&raw const entry.check).read_volatile() } != ConnectionKey::check(low, high, ports) {
            return None;
        }
        // All that packets of this direction can say has been said, but for an end. Short connections too: of the nine
        // packets of one with a request and its answer, the cache spares four the look-up.
        let settled = self.ip.protocol != TCP || !forward || flags & CONNECTION_ESTABLISHED != 0;
        if settled && self.changes_nothing() {
            *flow = Flow {
                source: self.ip.source,
                destination: self.ip.destination,
                ports: self.ports,
                protocol: u32::from(self.ip.protocol),
                place: origin.place,
                tail: origin.tail,
                head: origin.head,
                epoch: entry.epoch,
                until: jiffies.wrapping_add(FLOW_JIFFIES),
                exit,
            };
        }
        Some(exit)
    }
}
