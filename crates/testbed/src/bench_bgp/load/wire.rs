//! As much of BGP as the load generator speaks: written here once more, so that it judges our own crates from outside.

use std::net::Ipv4Addr;

/// AS of everybody.
pub(in crate::bench_bgp) const AS: u32 = 64_512;
/// Bytes of marker, length and type.
const HEADER: usize = 19;
const MESSAGE_MAX: usize = 4096;

pub(super) const OPEN: u8 = 1;
pub(super) const UPDATE: u8 = 2;
pub(super) const NOTIFICATION: u8 = 3;
pub(super) const KEEPALIVE: u8 = 4;

/// Types of attributes.
pub(super) mod kind {
    pub(in crate::bench_bgp) const ORIGIN: u8 = 1;
    pub(in crate::bench_bgp) const AS_PATH: u8 = 2;
    pub(in crate::bench_bgp) const NEXT_HOP: u8 = 3;
    pub(in crate::bench_bgp) const MED: u8 = 4;
    pub(in crate::bench_bgp) const LOCAL_PREF: u8 = 5;
    pub(in crate::bench_bgp) const COMMUNITIES: u8 = 8;
    pub(in crate::bench_bgp) const ORIGINATOR_ID: u8 = 9;
    pub(in crate::bench_bgp) const CLUSTER_LIST: u8 = 10;
}

/// An IPv4 prefix as it goes over the wire: the address with host bits zero, and how many bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) address: u32,
    pub(super) len: u8,
}

/// One message in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u8,
    pub(super) body: &'a [u8],
}

/// Takes the first message off `bytes`; `None` while it is incomplete.
pub(super) fn take_message<'a>(bytes: &mut &'a [u8]) -> Option<Message<'a>> {
    let &[.., high, low, kind] = bytes.first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_be_bytes([high, low])).max(HEADER);
    let (message, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Message { kind, body: &message[HEADER..] })
}

/// The three parts of an UPDATE; `None` where its lengths make no sense.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update<'a> {
    pub(super) withdrawn: &'a [u8],
    pub(super) attributes: &'a [u8],
    pub(super) announced: &'a [u8],
}

impl<'a> Update<'a> {
    pub(super) fn of(body: &'a [u8]) -> Option<Self> {
        let mut rest = body;
        let withdrawn = take_block(&mut rest)?;
        let attributes = take_block(&mut rest)?;
        Some(Self { withdrawn, attributes, announced: rest })
    }

    /// Whether it says that everything was sent (RFC 4724 section 2).
    pub(super) fn is_end_of_rib(&self) -> bool {
        self.withdrawn.is_empty() && self.attributes.is_empty() && self.announced.is_empty()
    }
}

/// Takes bytes with their length in two bytes before them.
fn take_block<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (block, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    Some(block)
}

/// Prefixes of a list; it ends early where something makes no sense.
pub(super) fn prefixes(mut bytes: &[u8]) -> impl Iterator<Item = Prefix> {
    std::iter::from_fn(move || {
        let (&len, rest) = bytes.split_first()?;
        let (significant, rest) = rest.split_at_checked(usize::from(len).div_ceil(8))?;
        let mut address = [0; 4];
        address.get_mut(..significant.len())?.copy_from_slice(significant);
        bytes = rest;
        Some(Prefix { address: u32::from_be_bytes(address), len })
    })
}

/// Type and value of each attribute; it ends early where something makes no sense.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[flags, kind], rest) = bytes.split_first_chunk::<2>()?;
        let (length, rest) = if flags & 0x10 == 0 {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        } else {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        };
        let (value, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((kind, value))
    })
}

/// Appends an attribute. All that we send is short.
pub(super) fn put_attribute(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let flags = match kind {
        kind::MED | kind::ORIGINATOR_ID | kind::CLUSTER_LIST => 0x80,
        kind::COMMUNITIES => 0xc0,
        _ => 0x40,
    };
    out.extend([flags, kind, value.len() as u8]);
    out.extend(value);
}

pub(super) fn put_prefix(out: &mut Vec<u8>, prefix: Prefix) {
    out.push(prefix.len);
    out.extend(&prefix.address.to_be_bytes()[..usize::from(prefix.len).div_ceil(8)]);
}

fn put_message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0xff; 16]);
    out.extend([0, 0, kind]);
    body(out);
    let length = (out.len() - start) as u16;
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

/// Appends an UPDATE that announces prefixes, which must fit in one message.
pub(super) fn put_update(out: &mut Vec<u8>, attributes: &[u8], prefixes: impl Iterator<Item = Prefix>) {
    put_message(out, UPDATE, |out| {
        out.extend([0; 2]);
        out.extend((attributes.len() as u16).to_be_bytes());
        out.extend(attributes);
        prefixes.for_each(|prefix| put_prefix(out, prefix));
    });
}

/// Appends UPDATEs that withdraw prefixes.
pub(super) fn put_withdrawals(out: &mut Vec<u8>, prefixes: &[Prefix]) {
    for part in prefixes.chunks((MESSAGE_MAX - HEADER - 4) / 5) {
        put_message(out, UPDATE, |out| {
            let at = out.len();
            out.extend([0; 2]);
            for prefix in part {
                put_prefix(out, *prefix);
            }
            let length = (out.len() - at - 2) as u16;
            out[at..at + 2].copy_from_slice(&length.to_be_bytes());
            out.extend([0; 2]);
        });
    }
}

/// An OPEN with IPv4 routes, route refresh and four-byte AS numbers.
pub(super) fn open(id: Ipv4Addr, hold_s: u16) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, OPEN, |out| {
        out.push(4);
        out.extend((AS as u16).to_be_bytes());
        out.extend(hold_s.to_be_bytes());
        out.extend(id.octets());
        let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
        capabilities.extend(AS.to_be_bytes());
        out.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
        out.extend(capabilities);
    });
    out
}

pub(super) fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, KEEPALIVE, |_| {});
    out
}

/// Cease, administrative shutdown (RFC 4486).
pub(super) fn cease() -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, NOTIFICATION, |out| out.extend([6, 2]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let all = [(0x1401_0000, 16), (0x1401_8000, 17), (0x1401_0203, 32), (0, 0)];
        let all = all.map(|(address, len)| Prefix { address, len });
        let mut block = Vec::new();
        put_attribute(&mut block, kind::MED, &7_u32.to_be_bytes());
        let mut stream = keepalive();
        put_update(&mut stream, &block, all.into_iter());
        put_withdrawals(&mut stream, &all);
        let mut rest = &stream[..stream.len() - 1];
        assert_eq!(take_message(&mut rest), Some(Message { kind: KEEPALIVE, body: &[] }));
        let update = Update::of(take_message(&mut rest).unwrap().body).unwrap();
        assert_eq!(prefixes(update.announced).collect::<Vec<_>>(), all);
        assert_eq!(attributes(update.attributes).collect::<Vec<_>>(), [(kind::MED, &[0, 0, 0, 7][..])]);
        assert!(!update.is_end_of_rib());
        assert_eq!(take_message(&mut rest), None, "its last byte is missing");
        let mut rest = &stream[stream.len() - rest.len() - 1..];
        let update = Update::of(take_message(&mut rest).unwrap().body).unwrap();
        assert_eq!(prefixes(update.withdrawn).collect::<Vec<_>>(), all);
    }

    #[test]
    fn nonsense_ends_lists_early() {
        assert_eq!(prefixes(&[33, 1, 2, 3, 4, 5]).count(), 0);
        assert_eq!(prefixes(&[24, 1, 2]).count(), 0);
        assert_eq!(attributes(&[0x40, 1, 9, 0]).count(), 0);
        assert!(Update::of(&[0, 9, 0, 0]).is_none());
    }
}
