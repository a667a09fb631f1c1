//! The 24-bit number that stands for one workload with one set of labels.

use std::{fmt, str::FromStr};

/// The number of one workload with one set of labels; the VXLAN VNI of every packet that its endpoints send.
///
/// 24 bits, printed as six hex digits. Numbers below [`Identity::FIRST_WORKLOAD`] are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(u32);

impl Identity {
    /// Nobody; in a rule: everybody.
    pub const NONE: Self = Self(0);
    /// The node itself, towards its own containers.
    pub const HOST: Self = Self(2);
    /// Another node of the network.
    pub const REMOTE_NODE: Self = Self(3);
    /// An address that is neither a container's nor a node's.
    pub const WORLD: Self = Self(4);
    /// The sender could not be told.
    pub const UNKNOWN: Self = Self(0x00ff_ffff);
    /// The first number given to a workload. 1 is never used (flannel's and Silk's VNI), 5 to 255 are kept free.
    pub const FIRST_WORKLOAD: u32 = 256;
    /// One more than the last number that fits Silk's 16-bit tag; Cloud Foundry's workloads stay below it while they last.
    pub const TAG_LIMIT: u32 = 0x1_0000;
    /// One more than the last number given to a workload.
    pub const WORKLOAD_LIMIT: u32 = 0x00ff_ffff;

    /// The identity with this number.
    ///
    /// # Errors
    ///
    /// [`IdentityError::TooLarge`] for a number of more than 24 bits, [`IdentityError::NeverUsed`] for 1.
    pub const fn new(number: u32) -> Result<Self, IdentityError> {
        match number {
            1 => Err(IdentityError::NeverUsed),
            0..=0x00ff_ffff => Ok(Self(number)),
            _ => Err(IdentityError::TooLarge(number)),
        }
    }

    /// The number, below 2^24.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether this is the number of a workload, not a reserved one.
    pub const fn is_workload(self) -> bool {
        self.0 >= Self::FIRST_WORKLOAD && self.0 < Self::WORKLOAD_LIMIT
    }

    /// The word for a reserved number.
    pub const fn reserved_name(self) -> Option<&'static str> {
        match self {
            Self::NONE => Some("none"),
            Self::HOST => Some("host"),
            Self::REMOTE_NODE => Some("remote-node"),
            Self::WORLD => Some("world"),
            Self::UNKNOWN => Some("unknown"),
            _ => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    /// Reads hex digits, with or without `0x`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u32::from_str_radix(digits, 16)
            .map_err(|_source| IdentityError::NotHex(text.to_owned()))
            .and_then(Self::new)
    }
}

/// Why something is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// More than 24 bits.
    #[error("identity {0:#x} does not fit 24 bits")]
    TooLarge(u32),
    /// The number 1.
    #[error("identity 000001 is never used, because flannel and Silk send it as their VNI")]
    NeverUsed,
    /// Not hex digits.
    #[error("identity \"{0}\" is not a number of up to six hex digits")]
    NotHex(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_prints_six_digits_and_reads_them_back() {
        let identity = Identity::new(0x11f).unwrap();
        assert_eq!(identity.to_string(), "00011f");
        assert_eq!("00011f".parse(), Ok(identity));
        assert_eq!("0x11f".parse(), Ok(identity));
    }

    #[test]
    fn numbers_that_no_packet_can_carry_are_refused() {
        assert_eq!(Identity::new(1), Err(IdentityError::NeverUsed));
        assert_eq!(Identity::new(1 << 24), Err(IdentityError::TooLarge(1 << 24)));
        assert!("xyz".parse::<Identity>().is_err());
    }

    #[test]
    fn unknown_is_not_a_workload() {
        assert!(!Identity::UNKNOWN.is_workload());
        assert!(!Identity::WORLD.is_workload());
        assert!(Identity::new(256).unwrap().is_workload());
    }
}
