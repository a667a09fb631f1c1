//! Which container of this node has which address.
//!
//! [`Ipam`] is an engine without I/O and clock: the agent owns one, calls it, and appends the [`Record`]s that
//! [`Ipam::take_records`] yields to a file, in order, **before** it acts on an answer. [`Ipam::replay`] of any prefix of
//! those records is a state in which no address has two owners. What the file looks like is [`journal`]'s affair.
//!
//! ```text
//!  lease, allocate, release ──► Ipam ──► records ──► journal::encode ──► file, synced ──► answer
//!                                ▲                                        │
//!                                └──── replay ◄──── journal::read ◄───────┘  after a crash
//! ```
//!
//! Invariants: one owner has at most one address; one address has at most one owner; an address lies in a leased block;
//! a block with an address in use is never given back; blocks never overlap.
#![forbid(unsafe_code)]

mod block;
mod engine;
pub mod journal;
mod record;

pub use engine::{
    AllocateError, Allocation, BlockView, Family, Ipam, LeaseError, ReplayError, Request, ReturnError,
    UnknownOwner,
};
pub use record::{Record, RecordError};

use std::fmt;

/// Free addresses of a cluster below which a further block is wanted, before the last one is used up.
pub const FREE_MIN: u128 = 8;
/// Most blocks that one node can hold; a further lease is refused.
pub const BLOCKS_MAX: usize = 4_096;
/// Most bits of a block that number its addresses; a larger block is refused.
pub const HOST_BITS_MAX: u8 = 64;
/// Longest text of an owner, in bytes.
pub const OWNER_BYTES_MAX: usize = 1_024;
/// Most bytes that an owner can keep beside its address.
pub const DETAIL_BYTES_MAX: usize = 64 << 10;

/// Who has an address: the id of an attachment. The engine does not look into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(String);

impl Owner {
    /// The owner with this id.
    ///
    /// # Errors
    ///
    /// [`OwnerError`] for an empty text and for one longer than [`OWNER_BYTES_MAX`].
    pub fn new(id: impl Into<String>) -> Result<Self, OwnerError> {
        let id = id.into();
        match id.len() {
            0 => Err(OwnerError::Empty),
            1..=OWNER_BYTES_MAX => Ok(Self(id)),
            bytes => Err(OwnerError::TooLong { bytes }),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text names no owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// Nothing there.
    #[error("the id of an address's owner is empty")]
    Empty,
    /// Longer than [`OWNER_BYTES_MAX`].
    #[error("the id of an address's owner has {bytes} bytes, more than {OWNER_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests;
