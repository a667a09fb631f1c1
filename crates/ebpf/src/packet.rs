//! Reads IPv4 packets. Offsets are those of the IP header: 14, or 64 behind an outer VXLAN header.

use crate::maps::FRAGMENT;
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use core::ptr;
use isthmus_dataplane_common::{FragmentKey, FragmentValue, Reason, mapped};

pub const ETHERNET_BYTES: usize = 14;
pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

/// IPv4 header (RFC 791 section 3.1), as in a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_len: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

/// IPv4 without options, UDP (RFC 768), VXLAN (RFC 7348 section 5), as in a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tunnel {
    pub ip: Ipv4,
    pub source_port: u16,
    pub destination_port: u16,
    pub udp_len: u16,
    pub udp_checksum: u16,
    pub flags: u32,
    pub vni: u32,
}

/// What the programs need of a packet.
#[derive(Clone, Copy)]
pub struct Packet {
    /// As in the packet.
    pub source: u32,
    /// As in the packet.
    pub destination: u32,
    /// Host order; the identifier for ICMP echo.
    pub source_port: u16,
    /// Host order; the identifier for ICMP echo.
    pub destination_port: u16,
    /// Length of the IP packet without link layer, host order.
    pub total_len: u16,
    /// Of IP and transport headers, for packets with a GSO size.
    pub headers_len: u16,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub tos: u8,
    pub has_options: bool,
    pub dont_fragment: bool,
    /// An ICMP error: the addresses and ports of the connection are those that it quotes.
    pub icmp_error: bool,
    /// More fragments follow, or this is a later one.
    pub fragment: bool,
    /// For an ICMP error: source quoted, as in the packet.
    pub quoted_source: u32,
    /// For an ICMP error: destination quoted, as in the packet.
    pub quoted_destination: u32,
    /// For an ICMP error: protocol quoted.
    pub quoted_protocol: u8,
}

/// First byte of the packet's linear part. Always inlined: the verifier knows the pointer only where it is read.
#[inline(always)]
fn start(ctx: &TcContext) -> usize {
    // SAFETY: the context is valid for the program's whole run.
    unsafe { (*ctx.skb.skb).data as usize }
}

/// One behind the last byte of the packet's linear part.
#[inline(always)]
fn end(ctx: &TcContext) -> usize {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).data_end as usize }
}

/// The `T` at `offset`, if the packet is that long in its linear part.
#[inline(always)]
pub fn at<T>(ctx: &TcContext, offset: usize) -> Option<*mut T> {
    let start = start(ctx);
    if start + offset + size_of::<T>() > end(ctx) { None } else { Some((start + offset) as *mut T) }
}

/// Reads a `T` at `offset`, in one piece for each of its fields.
#[inline(always)]
pub fn read<T: Copy>(ctx: &TcContext, offset: usize) -> Option<T> {
    // SAFETY: `at` checked the bounds. Where the pointer is not aligned for `T`, the target does not care: IP headers lie at
    // multiples of 4 (NET_IP_ALIGN), or the processor reads words anywhere, else the verifier refuses the program.
    at::<T>(ctx, offset).map(|pointer| unsafe { pointer.read() })
}

/// Both addresses of an Ethernet header: destination, source, as in the packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Macs {
    /// Words of 4 bytes, because a frame is not aligned for more; the middle one has the end of one and the start of the other.
    words: [u32; 3],
}

impl Macs {
    /// Reads them.
    #[inline(always)]
    pub fn read(ctx: &TcContext) -> Option<Self> {
        Some(Self { words: read(ctx, 0)? })
    }

    #[inline(always)]
    pub const fn new(destination: Mac, source: Mac) -> Self {
        let middle = destination.tail >> 16 | (source.head as u32) << 16;
        Self { words: [destination.head as u32 | destination.tail << 16, middle, source.tail] }
    }

    #[inline(always)]
    pub const fn source(&self) -> Mac {
        Mac { head: (self.words[1] >> 16) as u16, tail: self.words[2] }
    }

    /// As they lie in a packet.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 3] {
        self.words
    }

    /// Whether the destination is a group of stations.
    #[inline(always)]
    pub const fn to_many(&self) -> bool {
        self.words[0] & 1 != 0
    }

    /// Writes them. Not through a pointer into the packet: a program that has one such write begins with a call that makes
    /// the packet its own, for each packet (`bpf_unclone_prologue` in net/core/filter.c).
    #[inline(always)]
    pub fn write(&self, ctx: &TcContext) -> bool {
        store(ctx, 0, &self.words, 12)
    }
}

/// A MAC address, in the words that it is read and compared by; as in a packet of a little-endian machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac {
    /// Its first two bytes.
    pub head: u16,
    /// The other four.
    pub tail: u32,
}

impl Mac {
    #[inline(always)]
    pub const fn of(mac: [u8; 6]) -> Self {
        Self {
            head: u16::from_le_bytes([mac[0], mac[1]]),
            tail: u32::from_le_bytes([mac[2], mac[3], mac[4], mac[5]]),
        }
    }
}

/// Writes the first `length` bytes of `value` at `offset`.
#[inline(always)]
pub fn store<T>(ctx: &TcContext, offset: usize, value: &T, length: usize) -> bool {
    if length > size_of::<T>() {
        return false;
    }
    // SAFETY: `length` is at most the value's; the context is valid. Pointers into the packet are read again afterwards.
    unsafe {
        bpf_skb_store_bytes(raw(ctx).cast(), offset as u32, ptr::from_ref(value).cast(), length as u32, 0)
            == 0
    }
}

/// Makes the first `length` bytes linear. Pointers into the packet are void afterwards.
#[inline(always)]
pub fn pull(ctx: &TcContext, length: usize) {
    if start(ctx) + length > end(ctx) {
        let length = if (ctx.len() as usize) < length { ctx.len() } else { length as u32 };
        let _ = ctx.pull_data(length);
    }
}

/// The EtherType at `offset`.
#[inline(always)]
pub fn ethertype(ctx: &TcContext, offset: usize) -> Option<u16> {
    read::<u16>(ctx, offset).map(u16::from_be)
}

/// Reads the IPv4 packet at `L3`. A later fragment gets its ports from what its first one left.
#[inline(always)]
pub fn parse<const L3: usize>(ctx: &TcContext, packet: &mut Packet) -> Result<(), Reason> {
    let ip: Ipv4 = read(ctx, L3).ok_or(Reason::Malformed)?;
    let ihl = usize::from(ip.version_ihl & 0x0f) << 2;
    let total_len = u16::from_be(ip.total_len);
    if ip.version_ihl >> 4 != 4 || ihl < 20 || usize::from(total_len) < ihl {
        return Err(Reason::Malformed);
    }
    if usize::from(total_len) + L3 > ctx.len() as usize {
        return Err(Reason::Malformed);
    }
    let fragment = u16::from_be(ip.fragment);
    *packet = Packet {
        source: ip.source,
        destination: ip.destination,
        total_len,
        headers_len: ihl as u16,
        protocol: ip.protocol,
        tos: ip.tos,
        has_options: ihl > 20,
        dont_fragment: fragment & 0x4000 != 0,
        fragment: fragment & 0x3fff != 0,
        ..NOBODY
    };
    if ihl == 20 {
        transport(ctx, packet, L3 + 20, fragment, &ip)?;
    } else {
        if routes_by_options::<L3>(ctx, ihl) {
            return Err(Reason::SourceRoute);
        }
        transport(ctx, packet, L3 + (ihl & 0x3c), fragment, &ip)?;
    }
    Ok(())
}

#[inline(always)]
fn transport(
    ctx: &TcContext,
    packet: &mut Packet,
    l4: usize,
    fragment: u16,
    ip: &Ipv4,
) -> Result<(), Reason> {
    if fragment & 0x1fff != 0 {
        return later_fragment(packet, ip);
    }
    if packet.protocol == TCP {
        // A first fragment must hold the whole header (RFC 1858 section 3.1).
        let header: [u16; 10] = read(ctx, l4).ok_or(Reason::Malformed)?;
        let data_offset = header[6].to_ne_bytes()[0] >> 4;
        packet.source_port = u16::from_be(header[0]);
        packet.destination_port = u16::from_be(header[1]);
        packet.tcp_flags = header[6].to_ne_bytes()[1];
        packet.headers_len += u16::from(data_offset) << 2;
    } else if packet.protocol == UDP {
        let header: [u16; 4] = read(ctx, l4).ok_or(Reason::Malformed)?;
        packet.source_port = u16::from_be(header[0]);
        packet.destination_port = u16::from_be(header[1]);
        packet.headers_len += 8;
    } else if packet.protocol == ICMP {
        icmp(ctx, packet, l4)?;
    }
    if packet.fragment {
        let ports =
            FragmentValue { source_port: packet.source_port, destination_port: packet.destination_port };
        if FRAGMENT.insert(fragment_key(ip), ports, 0).is_err() {
            return Err(Reason::MapFull);
        }
    }
    Ok(())
}

#[inline(always)]
fn icmp(ctx: &TcContext, packet: &mut Packet, l4: usize) -> Result<(), Reason> {
    let header: [u16; 4] = read(ctx, l4).ok_or(Reason::Malformed)?;
    packet.icmp_type = header[0].to_ne_bytes()[0];
    match packet.icmp_type {
        // Echo and its reply: the identifier stands for both ports, so that both directions find one entry.
        0 | 8 => {
            packet.source_port = u16::from_be(header[2]);
            packet.destination_port = packet.source_port;
        }
        // RFC 792: destination unreachable, time exceeded, parameter problem quote the header and 8 bytes.
        3 | 11 | 12 => {
            let quoted: Ipv4 = read(ctx, l4 + 8).ok_or(Reason::Malformed)?;
            let quoted_ihl = usize::from(quoted.version_ihl & 0x0f) << 2;
            if quoted_ihl < 20 {
                return Err(Reason::Malformed);
            }
            let ports: [u16; 4] = read(ctx, l4 + 8 + (quoted_ihl & 0x3c)).ok_or(Reason::Malformed)?;
            packet.icmp_error = true;
            packet.quoted_source = quoted.source;
            packet.quoted_destination = quoted.destination;
            packet.quoted_protocol = quoted.protocol;
            if quoted.protocol == ICMP {
                packet.source_port = u16::from_be(ports[2]);
                packet.destination_port = packet.source_port;
            } else if quoted.protocol == TCP || quoted.protocol == UDP {
                packet.source_port = u16::from_be(ports[0]);
                packet.destination_port = u16::from_be(ports[1]);
            }
        }
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn later_fragment(packet: &mut Packet, ip: &Ipv4) -> Result<(), Reason> {
    // SAFETY: values of an LRU map may be reused while they are read; a wrong pair of ports is judged like any other.
    let ports = unsafe { FRAGMENT.get(fragment_key(ip)) }.ok_or(Reason::FragmentLost)?;
    packet.source_port = ports.source_port;
    packet.destination_port = ports.destination_port;
    Ok(())
}

#[inline(always)]
fn fragment_key(ip: &Ipv4) -> FragmentKey {
    FragmentKey {
        source: mapped(ip.source),
        destination: mapped(ip.destination),
        id: u32::from(ip.id),
        protocol: ip.protocol,
        reserved: [0; 3],
    }
}

/// Whether an option chooses the route: loose (131) or strict (137) source route, RFC 791 section 3.1.
#[inline(never)]
fn routes_by_options<const L3: usize>(ctx: &TcContext, ihl: usize) -> bool {
    let mut options = [0_u8; 40];
    let length = ihl.wrapping_sub(20);
    if length == 0 || length > 40 {
        return true;
    }
    // SAFETY: `length` is at most the array's; the context is valid.
    let loaded = unsafe {
        bpf_skb_load_bytes(ctx.as_ptr().cast(), (L3 + 20) as u32, options.as_mut_ptr().cast(), length as u32)
    };
    if loaded != 0 {
        return true;
    }
    // A fixed index and a count of bytes to skip, because the verifier follows every value of a computed index.
    let mut skip = 0_u8;
    let mut index = 0;
    while index < 39 {
        let kind = options[index];
        let length = options[index + 1];
        index += 1;
        if skip > 0 {
            skip -= 1;
            continue;
        }
        match kind {
            // End of options; what was not loaded is zero too.
            0 => return false,
            1 => {}
            131 | 137 => return true,
            // A length that does not move on is malformed; such packets are no better than routed ones.
            _ if length < 2 => return true,
            _ => skip = (length - 1) & 0x3f,
        }
    }
    false
}

/// Length of the longest packet that leaves: the packet itself, or a segment cut from it.
#[inline(always)]
pub fn longest_len(ctx: &TcContext, packet: &Packet) -> u32 {
    let gso_size = gso_size(ctx);
    if gso_size == 0 { u32::from(packet.total_len) } else { gso_size + u32::from(packet.headers_len) }
}

#[inline(always)]
pub fn gso_size(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid for the program's whole run.
    unsafe { (*ctx.skb.skb).gso_size }
}

#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).ifindex }
}

#[inline(always)]
pub fn mark(ctx: &TcContext) -> u32 {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).mark }
}

/// Whether the packet has a VLAN tag.
#[inline(always)]
pub fn tagged(ctx: &TcContext) -> bool {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).vlan_present != 0 }
}

/// `PACKET_HOST` is 0: addressed to the interface's own MAC.
#[inline(always)]
pub fn addressed_to_us(ctx: &TcContext) -> bool {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).pkt_type == 0 }
}

/// The context by value, for a function that is not inlined: a reference would keep the pointer in memory.
#[inline(always)]
pub fn again(ctx: &TcContext) -> TcContext {
    TcContext::new(ctx.skb.skb)
}

/// The raw context, for helpers.
#[inline(always)]
pub fn raw(ctx: &TcContext) -> *mut aya_ebpf::bindings::__sk_buff {
    ctx.as_ptr().cast()
}

/// A packet of which nothing is known.
pub const NOBODY: Packet = Packet {
    source: 0,
    destination: 0,
    source_port: 0,
    destination_port: 0,
    total_len: 0,
    headers_len: 0,
    protocol: 0,
    tcp_flags: 0,
    icmp_type: 0,
    tos: 0,
    has_options: false,
    dont_fragment: false,
    icmp_error: false,
    fragment: false,
    quoted_source: 0,
    quoted_destination: 0,
    quoted_protocol: 0,
};
