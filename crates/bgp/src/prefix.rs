//! What a route leads to.

use crate::number::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An address range of IPv4 or IPv6. Bits behind the length are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    family: Family,
    /// The address from the left; IPv4 uses the first four bytes.
    address: [u8; 16],
    len: u8,
}

impl Prefix {
    /// The range of `len` bits that holds `address`; `None` where the family has fewer bits.
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes = v6.octets(),
        }
        Self::masked(Family::of(address), bytes, len)
    }

    /// The range that starts with these bytes, host bits cleared; `None` where the family has fewer than `len` bits.
    pub(crate) fn masked(family: Family, mut address: [u8; 16], len: u8) -> Option<Self> {
        if len > family.bits() {
            return None;
        }
        let (whole, rest) = (usize::from(len / 8), len % 8);
        if let Some(byte) = address.get_mut(whole) {
            *byte &= !(0xff_u8.checked_shr(u32::from(rest)).unwrap_or(0));
            address[whole + 1..].fill(0);
        }
        Some(Self { family, address, len })
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// How many bits are fixed.
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix is no count of things")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        let [a, b, c, d, ..] = self.address;
        match self.family {
            Family::Ipv4Unicast => Ipv4Addr::new(a, b, c, d).into(),
            Family::Ipv6Unicast => Ipv6Addr::from(self.address).into(),
        }
    }

    /// The bytes that go over the wire (RFC 4271 section 4.3): as many as the length needs.
    pub(crate) fn wire_bytes(&self) -> &[u8] {
        &self.address[..usize::from(self.len).div_ceil(8)]
    }

    /// Whether all of `other` lies in this range.
    pub fn contains(&self, other: &Self) -> bool {
        self.family == other.family
            && self.len <= other.len
            && Self::masked(other.family, other.address, self.len)
                .is_some_and(|cut| cut.address == self.address)
    }
}

impl Hash for Prefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, ..] = self.address;
        match self.family {
            Family::Ipv4Unicast => {
                let key = u64::from(u32::from_be_bytes([a, b, c, d])) << 8 | u64::from(self.len);
                state.write_u64(key);
            }
            Family::Ipv6Unicast => {
                state.write_u128(u128::from_be_bytes(self.address));
                state.write_u8(self.len);
            }
        }
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => net.into(),
            IpNet::V6(net) => net.into(),
        }
    }
}

impl From<Ipv4Net> for Prefix {
    fn from(net: Ipv4Net) -> Self {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&net.network().octets());
        Self { family: Family::Ipv4Unicast, address, len: net.prefix_len() }
    }
}

impl From<Ipv6Net> for Prefix {
    fn from(net: Ipv6Net) -> Self {
        Self { family: Family::Ipv6Unicast, address: net.network().octets(), len: net.prefix_len() }
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        IpNet::new_assert(prefix.address(), prefix.len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpNet>().map(Self::from)
    }
}

/// Tells several paths to one prefix apart (RFC 7911); 0 where the session has no path ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

/// A prefix as it stands in an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// Which range.
    pub prefix: Prefix,
    /// Which of the sender's paths to it.
    pub path_id: PathId,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Self { prefix, path_id: PathId(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cleared() {
        for (text, expected) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.255/25", "10.1.2.128/25"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("255.1.2.3/0", "0.0.0.0/0"),
            ("2001:db8:ffff::1/33", "2001:db8:8000::/33"),
            ("2001:db8::1/128", "2001:db8::1/128"),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), expected);
            let net: IpNet = text.parse().unwrap();
            assert_eq!(Prefix::new(net.addr(), net.prefix_len()), Some(prefix));
            assert_eq!(IpNet::from(prefix), net.trunc());
        }
    }

    #[test]
    fn too_many_bits_are_refused() {
        assert_eq!(Prefix::new("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(Prefix::new("::".parse().unwrap(), 129), None);
    }

    #[test]
    fn a_range_contains_what_is_longer_and_starts_alike() {
        let range: Prefix = "10.128.0.0/9".parse().unwrap();
        for (other, inside) in
            [("10.128.0.0/9", true), ("10.200.1.0/24", true), ("10.0.0.0/8", false), ("10.1.0.0/16", false)]
        {
            assert_eq!(range.contains(&other.parse().unwrap()), inside, "{other}");
        }
        assert!(!"::/0".parse::<Prefix>().unwrap().contains(&range));
    }

    #[test]
    fn wire_bytes_are_as_many_as_needed() {
        for (text, bytes) in [("0.0.0.0/0", 0), ("128.0.0.0/1", 1), ("10.1.0.0/16", 2), ("10.1.128.0/17", 3)]
        {
            assert_eq!(text.parse::<Prefix>().unwrap().wire_bytes().len(), bytes);
        }
    }
}
