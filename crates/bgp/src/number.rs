//! Numbers with a meaning: autonomous systems, router ids, address families.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    num::ParseIntError,
    str::FromStr,
};

/// Number of an autonomous system (RFC 6793: 32 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(pub u32);

impl Asn {
    /// Stands for a number that does not fit into two bytes (RFC 6793 section 9).
    pub const TRANS: Self = Self(23_456);
    /// Must not appear anywhere (RFC 7607).
    pub const ZERO: Self = Self(0);

    /// What stands for this number where only two bytes are.
    pub fn two_bytes(self) -> u16 {
        u16::try_from(self.0).unwrap_or(Self::TRANS.0 as u16)
    }

    /// Whether the number is for private use (RFC 6996).
    pub fn is_private(self) -> bool {
        matches!(self.0, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Asn {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Names a speaker: any number but 0, unique within its AS (RFC 6286). Written like an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub u32);

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from(self.0).fmt(f)
    }
}

impl From<Ipv4Addr> for RouterId {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.into())
    }
}

impl From<RouterId> for Ipv4Addr {
    fn from(id: RouterId) -> Self {
        id.0.into()
    }
}

impl FromStr for RouterId {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Ipv4Addr>().map(Self::from)
    }
}

/// An address family as two numbers on the wire, known to us or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier (IANA): 1 IPv4, 2 IPv6.
    pub afi: u16,
    /// Subsequent address family identifier: 1 unicast.
    pub safi: u8,
}

/// An address family that this engine carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4 unicast, 1/1.
    Ipv4Unicast,
    /// IPv6 unicast, 2/1.
    Ipv6Unicast,
}

impl Family {
    /// All families, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The numbers on the wire.
    pub fn afi_safi(self) -> AfiSafi {
        match self {
            Self::Ipv4Unicast => AfiSafi { afi: 1, safi: 1 },
            Self::Ipv6Unicast => AfiSafi { afi: 2, safi: 1 },
        }
    }

    /// The family with these numbers, if it is one of ours.
    pub fn from_afi_safi(numbers: AfiSafi) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.afi_safi() == numbers)
    }

    /// The unicast family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4Unicast } else { Self::Ipv6Unicast }
    }

    /// Bits of an address of this family.
    pub fn bits(self) -> u8 {
        match self {
            Self::Ipv4Unicast => 32,
            Self::Ipv6Unicast => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

/// Some of the families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilySet(u8);

impl FamilySet {
    /// No family.
    pub const NONE: Self = Self(0);

    /// Whether `family` is in the set.
    pub fn contains(self, family: Family) -> bool {
        self.0 & (1 << family as u8) != 0
    }

    /// Adds `family`.
    pub fn insert(&mut self, family: Family) {
        self.0 |= 1 << family as u8;
    }

    /// Takes `family` out.
    pub fn remove(&mut self, family: Family) {
        self.0 &= !(1 << family as u8);
    }

    /// Whether no family is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The families, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::NONE;
        families.into_iter().for_each(|family| set.insert(family));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_fit_become_as_trans() {
        assert_eq!(Asn(64_512).two_bytes(), 64_512);
        assert_eq!(Asn(65_536).two_bytes(), 23_456);
    }

    #[test]
    fn private_numbers_are_known() {
        for (asn, private) in [(64_511, false), (64_512, true), (65_534, true), (65_535, false)] {
            assert_eq!(Asn(asn).is_private(), private, "{asn}");
        }
        assert!(Asn(4_200_000_000).is_private());
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set: FamilySet = [Family::Ipv6Unicast].into_iter().collect();
        assert!(set.contains(Family::Ipv6Unicast) && !set.contains(Family::Ipv4Unicast));
        set.insert(Family::Ipv4Unicast);
        assert_eq!(set.iter().collect::<Vec<_>>(), Family::ALL);
        set.remove(Family::Ipv6Unicast);
        set.remove(Family::Ipv4Unicast);
        assert!(set.is_empty());
    }

    #[test]
    fn families_are_found_by_their_numbers() {
        for family in Family::ALL {
            assert_eq!(Family::from_afi_safi(family.afi_safi()), Some(family));
        }
        assert_eq!(Family::from_afi_safi(AfiSafi { afi: 1, safi: 2 }), None);
    }
}
