//! One change of the engine's state, and its bytes.

use crate::{DETAIL_BYTES_MAX, Owner};
use ipnet::IpNet;
use isthmus_core::ClusterName;
use std::net::IpAddr;

/// One change. A list of them, from the first on, is the engine's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A block was leased to this node, or is still (in a snapshot).
    Leased {
        /// The block.
        block: IpNet,
        /// Whose pool it is a slice of.
        cluster: ClusterName,
        /// Offsets below this were given out at least once.
        fresh: u128,
        /// Offsets that were released, the oldest first.
        released: Vec<u128>,
    },
    /// A block was given back.
    Returned {
        /// The block.
        block: IpNet,
    },
    /// An owner got an address.
    Allocated {
        /// Who.
        owner: Owner,
        /// Its address.
        address: IpAddr,
        /// What it keeps beside it.
        detail: Vec<u8>,
    },
    /// An owner keeps something else beside its address.
    Detailed {
        /// Who.
        owner: Owner,
        /// What it keeps.
        detail: Vec<u8>,
    },
    /// An owner has no address any more.
    Released {
        /// Who.
        owner: Owner,
    },
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end in the middle.
    #[error("the record ends in the middle of its {field}")]
    Short {
        /// What was read.
        field: &'static str,
    },
    /// A value that no version writes.
    #[error("the record's {field} cannot be read")]
    Invalid {
        /// What was read.
        field: &'static str,
    },
    /// Bytes after the end.
    #[error("the record has {bytes} bytes too many")]
    Long {
        /// How many.
        bytes: usize,
    },
}

const LEASED: u8 = 1;
const RETURNED: u8 = 2;
const ALLOCATED: u8 = 3;
const DETAILED: u8 = 4;
const RELEASED: u8 = 5;

impl Record {
    /// Appends the record's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Leased { block, cluster, fresh, released } => {
                out.push(LEASED);
                write_block(out, *block);
                write_bytes(out, cluster.as_str().as_bytes());
                out.extend_from_slice(&fresh.to_le_bytes());
                out.extend_from_slice(&(released.len() as u32).to_le_bytes());
                for offset in released {
                    out.extend_from_slice(&offset.to_le_bytes());
                }
            }
            Self::Returned { block } => {
                out.push(RETURNED);
                write_block(out, *block);
            }
            Self::Allocated { owner, address, detail } => {
                out.push(ALLOCATED);
                write_bytes(out, owner.as_str().as_bytes());
                write_address(out, *address);
                write_bytes(out, detail);
            }
            Self::Detailed { owner, detail } => {
                out.push(DETAILED);
                write_bytes(out, owner.as_str().as_bytes());
                write_bytes(out, detail);
            }
            Self::Released { owner } => {
                out.push(RELEASED);
                write_bytes(out, owner.as_str().as_bytes());
            }
        }
    }

    /// The record that is exactly `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader { rest: bytes };
        let record = match reader.byte("kind")? {
            LEASED => reader.leased()?,
            RETURNED => Self::Returned { block: reader.block()? },
            ALLOCATED => Self::Allocated {
                owner: reader.owner()?,
                address: reader.address()?,
                detail: reader.detail()?,
            },
            DETAILED => Self::Detailed { owner: reader.owner()?, detail: reader.detail()? },
            RELEASED => Self::Released { owner: reader.owner()? },
            _ => return Err(RecordError::Invalid { field: "kind" }),
        };
        if reader.rest.is_empty() { Ok(record) } else { Err(RecordError::Long { bytes: reader.rest.len() }) }
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend_from_slice(&address.octets());
        }
    }
}

fn write_block(out: &mut Vec<u8>, block: IpNet) {
    write_address(out, block.network());
    out.push(block.prefix_len());
}

/// Reads fields from the front of a slice.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordError::Short { field })?;
        self.rest = rest;
        Ok(*head)
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, RecordError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn bytes(&mut self, field: &'static str) -> Result<Vec<u8>, RecordError> {
        let length = u32::from_le_bytes(self.array(field)?) as usize;
        if length > self.rest.len() {
            return Err(RecordError::Short { field });
        }
        let (head, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(head.to_vec())
    }

    fn text(&mut self, field: &'static str) -> Result<String, RecordError> {
        String::from_utf8(self.bytes(field)?).map_err(|_source| RecordError::Invalid { field })
    }

    fn owner(&mut self) -> Result<Owner, RecordError> {
        Owner::new(self.text("owner")?).map_err(|_source| RecordError::Invalid { field: "owner" })
    }

    fn detail(&mut self) -> Result<Vec<u8>, RecordError> {
        let detail = self.bytes("detail")?;
        if detail.len() > DETAIL_BYTES_MAX {
            Err(RecordError::Invalid { field: "detail" })
        } else {
            Ok(detail)
        }
    }

    fn address(&mut self) -> Result<IpAddr, RecordError> {
        match self.byte("address family")? {
            4 => Ok(IpAddr::from(self.array::<4>("address")?)),
            6 => Ok(IpAddr::from(self.array::<16>("address")?)),
            _ => Err(RecordError::Invalid { field: "address family" }),
        }
    }

    fn block(&mut self) -> Result<IpNet, RecordError> {
        let network = self.address()?;
        let block = IpNet::new(network, self.byte("prefix length")?);
        let block = block.map_err(|_source| RecordError::Invalid { field: "prefix length" })?;
        if block.network() == network { Ok(block) } else { Err(RecordError::Invalid { field: "block" }) }
    }

    fn leased(&mut self) -> Result<Record, RecordError> {
        let block = self.block()?;
        let cluster =
            self.text("cluster")?.parse().map_err(|_source| RecordError::Invalid { field: "cluster" })?;
        let fresh = u128::from_le_bytes(self.array("fresh")?);
        let count = u32::from_le_bytes(self.array("count of released addresses")?) as usize;
        if count > self.rest.len() / 16 {
            return Err(RecordError::Short { field: "released addresses" });
        }
        let mut released = Vec::with_capacity(count);
        for _ in 0..count {
            released.push(u128::from_le_bytes(self.array("released addresses")?));
        }
        Ok(Record::Leased { block, cluster, fresh, released })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> Vec<Record> {
        let owner = Owner::new("cni:net/c1/eth0").unwrap();
        vec![
            Record::Leased {
                block: "10.64.0.0/26".parse().unwrap(),
                cluster: "red".parse().unwrap(),
                fresh: 3,
                released: vec![1, 0],
            },
            Record::Returned { block: "fd00::/64".parse().unwrap() },
            Record::Allocated {
                owner: owner.clone(),
                address: "fd00::7".parse().unwrap(),
                detail: vec![1, 2],
            },
            Record::Detailed { owner: owner.clone(), detail: Vec::new() },
            Record::Released { owner },
        ]
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        for record in records() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(Record::decode(&bytes), Ok(record));
        }
    }

    #[test]
    fn a_record_that_is_cut_or_longer_is_refused() {
        for record in records() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            for length in 0..bytes.len() {
                assert!(Record::decode(&bytes[..length]).is_err(), "{record:?} cut at {length}");
            }
            bytes.push(0);
            assert_eq!(Record::decode(&bytes), Err(RecordError::Long { bytes: 1 }));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }
    }
}
