//! Protocols and ports, as rules and people write them: `tcp:8080`, `udp:8000-8010`, `icmp`, `any`.

use std::{fmt, str::FromStr};

/// What a rule says of the IP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Every protocol.
    Any,
    /// TCP, 6.
    Tcp,
    /// UDP, 17.
    Udp,
    /// ICMP, 1 (and 58 for IPv6).
    Icmp,
}

impl Protocol {
    /// IP protocol number; 0 stands for any.
    pub const fn number(self) -> u8 {
        match self {
            Self::Any => 0,
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The protocol with this number; 0 is any.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Any),
            1 => Some(Self::Icmp),
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// Whether packets of this protocol have ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = PortError;

    fn from_str(word: &str) -> Result<Self, PortError> {
        [Self::Any, Self::Tcp, Self::Udp, Self::Icmp]
            .into_iter()
            .find(|protocol| protocol.as_str() == word)
            .ok_or_else(|| PortError::Protocol(word.to_owned()))
    }
}

/// Ports from `first` to `last`, both included. Port 0 is part of the full range only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    ///
    /// [`PortError::Reversed`] when `first` is above `last`; [`PortError::Zero`] when `first` is 0.
    pub const fn new(first: u16, last: u16) -> Result<Self, PortError> {
        if first > last {
            return Err(PortError::Reversed { first, last });
        }
        if first == 0 {
            return Err(PortError::Zero);
        }
        Ok(Self { first, last })
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether the range holds `port`.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether the range is every port.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let number = |part: &str| part.parse::<u16>().map_err(|_source| PortError::Port(part.to_owned()));
        match text.split_once('-') {
            Some((first, last)) => Self::new(number(first)?, number(last)?),
            None => number(text).and_then(|port| Self::new(port, port)),
        }
    }
}

/// What a rule says of protocol and destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMatch {
    protocol: Protocol,
    ports: PortRange,
}

impl PortMatch {
    /// Every packet.
    pub const ANY: Self = Self { protocol: Protocol::Any, ports: PortRange::ALL };

    /// Matches `ports` of `protocol`.
    ///
    /// # Errors
    ///
    /// [`PortError::NoPorts`] when the protocol has no ports and `ports` is not the full range.
    pub fn new(protocol: Protocol, ports: PortRange) -> Result<Self, PortError> {
        if protocol.has_ports() || ports.is_all() {
            Ok(Self { protocol, ports })
        } else {
            Err(PortError::NoPorts(protocol))
        }
    }

    /// The protocol.
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The ports; the full range for protocols without ports.
    pub const fn ports(self) -> PortRange {
        self.ports
    }

    /// Whether a packet of `protocol` (a number) to `port` matches.
    pub const fn matches(self, protocol: u8, port: u16) -> bool {
        match self.protocol {
            Protocol::Any => true,
            Protocol::Icmp => protocol == 1 || protocol == 58,
            Protocol::Tcp => protocol == 6 && self.ports.contains(port),
            Protocol::Udp => protocol == 17 && self.ports.contains(port),
        }
    }
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ports.is_all() {
            write!(f, "{}", self.protocol)
        } else {
            write!(f, "{}:{}", self.protocol, self.ports)
        }
    }
}

impl FromStr for PortMatch {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.split_once(':') {
            Some((protocol, ports)) => Self::new(protocol.parse()?, ports.parse()?),
            None => Self::new(text.parse()?, PortRange::ALL),
        }
    }
}

/// Why a text is no protocol and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Unknown protocol.
    #[error("\"{0}\" is no protocol: write tcp, udp, icmp or any, for example tcp:8080")]
    Protocol(String),
    /// Not a port number.
    #[error("\"{0}\" is no port: write a number from 1 to 65535, or a range such as 8000-8010")]
    Port(String),
    /// A range that ends before it begins.
    #[error("port range {first}-{last} ends before it begins")]
    Reversed {
        /// Lower end as written.
        first: u16,
        /// Upper end as written.
        last: u16,
    },
    /// Port 0.
    #[error("port 0 cannot be used: write a number from 1 to 65535")]
    Zero,
    /// Ports for a protocol without ports.
    #[error("{0} has no ports: write {0} alone")]
    NoPorts(Protocol),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_people_write_are_read() {
        for text in ["tcp:8080", "udp:8000-8010", "icmp", "any", "tcp"] {
            assert_eq!(text.parse::<PortMatch>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        assert_eq!("tcp:9-8".parse::<PortMatch>(), Err(PortError::Reversed { first: 9, last: 8 }));
        assert_eq!("tcp:0".parse::<PortMatch>(), Err(PortError::Zero));
        assert_eq!("icmp:8".parse::<PortMatch>(), Err(PortError::NoPorts(Protocol::Icmp)));
        assert!(matches!("sctp:1".parse::<PortMatch>(), Err(PortError::Protocol(_))));
        assert!(matches!("tcp:70000".parse::<PortMatch>(), Err(PortError::Port(_))));
    }

    proptest! {
        #[test]
        fn a_range_prints_and_parses_to_itself(first in 1u16.., last in 1u16..) {
            if let Ok(range) = PortRange::new(first, last) {
                prop_assert_eq!(range.to_string().parse::<PortRange>(), Ok(range));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = text.parse::<PortMatch>();
        }
    }
}
