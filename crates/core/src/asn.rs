//! Numbers of autonomous systems.

use std::{fmt, str::FromStr};

/// The number of an autonomous system (RFC 6793: 32 bits) that a speaker can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(u32);

/// Stands for numbers that do not fit 16 bits (RFC 6793 section 9).
const AS_TRANS: u32 = 23_456;

impl Asn {
    /// The AS with this number.
    ///
    /// # Errors
    ///
    /// Nobody can have the number: 0 (RFC 7607), 23456 (RFC 6793), 65535 and 4294967295 (RFC 7300).
    pub const fn new(number: u32) -> Result<Self, AsnError> {
        match number {
            0 | AS_TRANS | 65_535 | u32::MAX => Err(AsnError::Reserved(number)),
            _ => Ok(Self(number)),
        }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Asn {
    type Err = AsnError;

    fn from_str(text: &str) -> Result<Self, AsnError> {
        text.parse().map_err(|_why| AsnError::NotANumber(text.to_owned())).and_then(Self::new)
    }
}

/// Why something is no AS number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsnError {
    /// Reserved for other uses.
    #[error(
        "AS {0} is reserved: take one from 64512 to 65534 or 4200000000 to 4294967294, which are private"
    )]
    Reserved(u32),
    /// Not digits, or too large.
    #[error("\"{0}\" is no AS number: write one like 64512")]
    NotANumber(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_numbers_are_nobodys() {
        assert_eq!("64512".parse().map(Asn::number), Ok(64_512));
        assert_eq!("4200000000".parse().map(Asn::number), Ok(4_200_000_000));
        for number in [0, 23_456, 65_535, u32::MAX] {
            assert_eq!(Asn::new(number), Err(AsnError::Reserved(number)));
        }
        assert!("4294967296".parse::<Asn>().is_err());
        assert!("AS1".parse::<Asn>().is_err());
    }
}
