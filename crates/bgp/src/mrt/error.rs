//! What is wrong with a file, and where.

use super::RecordType;
use crate::number::Family;
use std::{fmt, io};

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// It ends too early.
    #[error("it ends within this: {0}")]
    Short(&'static str),
    /// Something is left that nobody expects, so the rest may have been misread.
    #[error("{0} bytes are left over behind its end")]
    Rest(usize),
    /// A prefix of more bits than its family has.
    #[error("a prefix of {len} bits is none of {family}")]
    PrefixLen {
        /// How many.
        len: u8,
        /// Of which family.
        family: Family,
    },
    /// Addresses that are neither IPv4 nor IPv6.
    #[error("address family {0} is neither IPv4 (1) nor IPv6 (2)")]
    Afi(u16),
    /// A path of somebody who is not in the peer index.
    #[error("a path of peer {peer}, and the PEER_INDEX_TABLE before it has {peers}")]
    NoPeer {
        /// Its number, from 0.
        peer: u16,
        /// How many there are.
        peers: usize,
    },
    /// Paths before anybody said whose.
    #[error("it comes before any PEER_INDEX_TABLE, so nobody knows whose paths these are")]
    NoPeerIndex,
    /// It is longer than is taken.
    #[error("it says that it has {bytes} bytes, and at most {bytes_max} are taken")]
    TooLong {
        /// Without the header.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
}

/// What went wrong while a file was read.
#[derive(Debug)]
pub enum What {
    /// The record is wrong; the next one can be read.
    Record(RecordFault),
    /// The file starts with something that is no record.
    NotMrt,
    /// The file ends within a record: bytes that are there, and that should be.
    Truncated {
        /// There.
        bytes: u64,
        /// Should be.
        expected: u64,
    },
    /// The file cannot be read.
    Io(io::Error),
}

/// A record that cannot be read, and where.
#[derive(Debug)]
pub struct ReadError {
    /// Bytes of the file before the record; of what is in it, if it is compressed.
    pub offset: u64,
    /// What the record says that it is, if that could be read.
    pub kind: Option<RecordType>,
    /// What is wrong.
    pub what: What,
}

impl ReadError {
    /// Whether the next record can be read.
    pub fn can_go_on(&self) -> bool {
        matches!(self.what, What::Record(_))
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record at byte {}", self.offset)?;
        if let Some(kind) = self.kind {
            write!(f, " ({kind})")?;
        }
        match &self.what {
            What::Record(fault) => write!(f, ": {fault}"),
            What::NotMrt => f.write_str(": there is no such type, so this is no MRT file"),
            What::Truncated { bytes, expected } => {
                write!(f, ": the file ends after {bytes} of its {expected} bytes: it was cut off")
            }
            What::Io(_) => f.write_str(": the file cannot be read"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.what {
            What::Io(why) => Some(why),
            What::Record(_) | What::NotMrt | What::Truncated { .. } => None,
        }
    }
}

/// Why a record cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Its count has two bytes.
    #[error("{count} {what} are more than the 65535 that a record holds")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// Their length has two bytes.
    #[error("attributes of {0} bytes are more than the 65535 that a record holds")]
    Attributes(usize),
    /// No next hop that the family can have.
    #[error(transparent)]
    NextHop(#[from] crate::wire::EncodeError),
}
