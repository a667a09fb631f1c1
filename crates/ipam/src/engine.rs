//! The engine: blocks, allocations, and the records of their changes.

use crate::{BLOCKS_MAX, DETAIL_BYTES_MAX, FREE_MIN, HOST_BITS_MAX, Owner, block::Block, record::Record};
use ipnet::IpNet;
use isthmus_core::ClusterName;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

/// Which of one node's addresses belong to whom.
///
/// Every method that changes something puts [`Record`]s into an outbox. The caller takes them with
/// [`Ipam::take_records`] before anybody else calls the engine, appends them to the journal in that order, and answers
/// only when they are durable. When the journal cannot be written, the caller goes on with the state as it is and writes
/// a [`Ipam::snapshot`] as soon as it can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipam {
    blocks: BTreeMap<IpNet, Block>,
    allocations: BTreeMap<Owner, Held>,
    outbox: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    block: IpNet,
    offset: u128,
    detail: Vec<u8>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn of(block: &IpNet) -> Self {
        match block {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

/// Asks for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who.
    pub owner: Owner,
    /// From whose pools.
    pub cluster: ClusterName,
    /// Of which family.
    pub family: Family,
    /// This one and no other.
    pub wanted: Option<IpAddr>,
    /// None of these: they are in use somewhere else, whatever the blocks say.
    pub avoid: BTreeSet<IpAddr>,
    /// What to keep beside it, at most [`DETAIL_BYTES_MAX`].
    pub detail: Vec<u8>,
}

/// An owner's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation<'a> {
    /// Who.
    pub owner: &'a Owner,
    /// Its address.
    pub address: IpAddr,
    /// Whose pool the address is from.
    pub cluster: &'a ClusterName,
    /// What it keeps beside it.
    pub detail: &'a [u8],
}

/// A block as people look at it.
#[derive(Clone, Copy, Debug)]
pub struct BlockView<'a> {
    block: &'a Block,
}

impl<'a> BlockView<'a> {
    /// The slice of a pool.
    pub fn range(&self) -> IpNet {
        self.block.range
    }

    /// Whose pool it is a slice of.
    pub fn cluster(&self) -> &'a ClusterName {
        &self.block.cluster
    }

    /// How many addresses could be given out now.
    pub fn free(&self) -> u128 {
        self.block.free()
    }

    /// Addresses in use, with their owners.
    pub fn allocations(&self) -> impl Iterator<Item = (IpAddr, &'a Owner)> + use<'a> {
        let block = self.block;
        block.held.iter().map(|(offset, owner)| (block.address(*offset), owner))
    }
}

/// Why no address was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// Every address of the cluster's blocks is in use, here or elsewhere: lease a further block and ask again.
    #[error("the blocks of cluster {cluster} on this node have no free {family} address")]
    NoRoom {
        /// Whose blocks.
        cluster: ClusterName,
        /// Of which family.
        family: Family,
    },
    /// The wanted address has another owner.
    #[error("address {address} is in use by {by}")]
    Taken {
        /// The wanted address.
        address: IpAddr,
        /// Who has it.
        by: Owner,
    },
    /// The wanted address is in use somewhere else.
    #[error("address {0} of this node's blocks is in use elsewhere: a route leads it to another host")]
    Elsewhere(IpAddr),
    /// The wanted address lies in no block of this node.
    #[error("address {address} lies in no block of cluster {cluster} that this node holds")]
    NotHere {
        /// The wanted address.
        address: IpAddr,
        /// Whose blocks were searched.
        cluster: ClusterName,
    },
    /// The owner has an address already.
    #[error("{owner} has the address {address} already")]
    Owned {
        /// Who.
        owner: Owner,
        /// What it has.
        address: IpAddr,
    },
    /// Too much to keep.
    #[error("what {owner} wants to keep has {bytes} bytes, more than {DETAIL_BYTES_MAX}")]
    DetailTooLong {
        /// Who.
        owner: Owner,
        /// Its length.
        bytes: usize,
    },
}

/// Why a block was not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Two blocks share addresses.
    #[error("block {block} overlaps with {other}, which this node holds for cluster {cluster}")]
    Overlaps {
        /// The new one.
        block: IpNet,
        /// The one that is held.
        other: IpNet,
        /// Whose that is.
        cluster: ClusterName,
    },
    /// More than [`BLOCKS_MAX`].
    #[error("this node holds {BLOCKS_MAX} blocks already: use larger blocks (blockLen of the pool)")]
    TooMany,
    /// More than [`HOST_BITS_MAX`] bits of addresses.
    #[error("block {0} is too large: use a prefix length of 64 or more")]
    TooLarge(IpNet),
}

/// Why a block was not given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReturnError {
    /// Somebody lives in it.
    #[error("block {block} has {used} addresses in use")]
    InUse {
        /// The block.
        block: IpNet,
        /// How many.
        used: usize,
    },
    /// Not held.
    #[error("this node does not hold block {0}")]
    Unknown(IpNet),
}

/// The owner has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} has no address on this node")]
pub struct UnknownOwner(pub Owner);

/// Why records are no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {index} of the journal contradicts those before it: {why}")]
pub struct ReplayError {
    /// Number of the record, from 0.
    pub index: usize,
    /// What it contradicts.
    pub why: String,
}

impl Ipam {
    /// The state after these records.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] for a sequence that no engine wrote.
    pub fn replay(records: &[Record]) -> Result<Self, ReplayError> {
        let mut ipam = Self::default();
        for (index, record) in records.iter().enumerate() {
            ipam.replay_one(record).map_err(|why| ReplayError { index, why })?;
        }
        ipam.outbox.clear();
        Ok(ipam)
    }

    fn replay_one(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Leased { block, cluster, fresh, released } => {
                if self.blocks.contains_key(block) {
                    return Err(format!("block {block} is leased already"));
                }
                self.lease(cluster.clone(), *block).map_err(|error| error.to_string())?;
                self.restore_order(*block, *fresh, released)
            }
            Record::Returned { block } => self.give_back(*block).map_err(|error| error.to_string()),
            Record::Allocated { owner, address, detail } => {
                let range = self.block_of(*address).ok_or_else(|| format!("no block has {address}"))?;
                let request = Request {
                    owner: owner.clone(),
                    cluster: self.blocks[&range].cluster.clone(),
                    family: Family::of(&range),
                    wanted: Some(*address),
                    avoid: BTreeSet::new(),
                    detail: detail.clone(),
                };
                self.allocate(request).map(drop).map_err(|error| error.to_string())
            }
            Record::Detailed { owner, detail } => {
                self.set_detail(owner, detail.clone()).map_err(|error| error.to_string())
            }
            Record::Released { owner } => {
                self.release(owner).map(drop).ok_or_else(|| UnknownOwner(owner.clone()).to_string())
            }
        }
    }

    fn restore_order(&mut self, range: IpNet, fresh: u128, released: &[u128]) -> Result<(), String> {
        let Some(block) = self.blocks.get_mut(&range) else { return Err(format!("block {range} is gone")) };
        let mut seen = BTreeSet::new();
        if released.iter().any(|offset| *offset >= block.size() || !seen.insert(*offset)) {
            return Err(format!("the released addresses of {range} are not addresses of it, each once"));
        }
        block.fresh = fresh.min(block.size());
        block.released = released.iter().copied().collect();
        Ok(())
    }

    /// What must be appended to the journal now, in this order.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.outbox)
    }

    /// The whole state as records: what compaction writes.
    pub fn snapshot(&self) -> Vec<Record> {
        let leased = self.blocks.values().map(|block| Record::Leased {
            block: block.range,
            cluster: block.cluster.clone(),
            fresh: block.fresh,
            released: block.released.iter().copied().collect(),
        });
        let allocated = self.allocations().map(|allocation| Record::Allocated {
            owner: allocation.owner.clone(),
            address: allocation.address,
            detail: allocation.detail.to_vec(),
        });
        leased.chain(allocated).collect()
    }

    /// Takes over a block that was leased to this node. Succeeds for one that it holds already.
    pub fn lease(&mut self, cluster: ClusterName, block: IpNet) -> Result<(), LeaseError> {
        let block = block.trunc();
        if self.blocks.get(&block).is_some_and(|held| held.cluster == cluster) {
            return Ok(());
        }
        let overlaps = |other: &&Block| other.range.contains(&block) || block.contains(&other.range);
        if let Some(other) = self.blocks.values().find(overlaps) {
            return Err(LeaseError::Overlaps { block, other: other.range, cluster: other.cluster.clone() });
        }
        if block.max_prefix_len() - block.prefix_len() > HOST_BITS_MAX {
            return Err(LeaseError::TooLarge(block));
        }
        if self.blocks.len() >= BLOCKS_MAX {
            return Err(LeaseError::TooMany);
        }
        self.blocks.insert(block, Block::new(block, cluster.clone()));
        self.outbox.push(Record::Leased { block, cluster, fresh: 0, released: Vec::new() });
        Ok(())
    }

    /// Gives an empty block up. Tell the server only when the record is durable.
    pub fn give_back(&mut self, block: IpNet) -> Result<(), ReturnError> {
        match self.blocks.get(&block) {
            None => Err(ReturnError::Unknown(block)),
            Some(held) if !held.held.is_empty() => Err(ReturnError::InUse { block, used: held.held.len() }),
            Some(_) => {
                self.blocks.remove(&block);
                self.outbox.push(Record::Returned { block });
                Ok(())
            }
        }
    }

    /// Gives an owner an address: the wanted one, or of the fullest block with room the one that was free for longest,
    /// so that other blocks become empty and can be given back.
    pub fn allocate(&mut self, request: Request) -> Result<IpAddr, AllocateError> {
        let Request { owner, cluster, family, wanted, avoid, detail } = request;
        if detail.len() > DETAIL_BYTES_MAX {
            return Err(AllocateError::DetailTooLong { owner, bytes: detail.len() });
        }
        if let Some(held) = self.allocation(&owner) {
            return Err(AllocateError::Owned { address: held.address, owner });
        }
        let (range, offset) = match wanted {
            Some(address) => {
                let place = self.place_of(address, &cluster)?;
                if avoid.contains(&address) {
                    return Err(AllocateError::Elsewhere(address));
                }
                place
            }
            None => self.place(&cluster, family, &avoid).ok_or(AllocateError::NoRoom { cluster, family })?,
        };
        let Some(block) = self.blocks.get_mut(&range) else {
            unreachable!("the place is in a block that is held")
        };
        block.hold(offset, owner.clone());
        let address = block.address(offset);
        self.allocations.insert(owner.clone(), Held { block: range, offset, detail: detail.clone() });
        self.outbox.push(Record::Allocated { owner, address, detail });
        Ok(address)
    }

    fn place_of(&self, address: IpAddr, cluster: &ClusterName) -> Result<(IpNet, u128), AllocateError> {
        let block = self.block_of(address).and_then(|range| self.blocks.get(&range));
        let block = block.filter(|block| block.cluster == *cluster);
        let place = block.and_then(|block| block.offset(address).map(|offset| (block, offset)));
        let (block, offset) =
            place.ok_or_else(|| AllocateError::NotHere { address, cluster: cluster.clone() })?;
        match block.held.get(&offset) {
            Some(by) => Err(AllocateError::Taken { address, by: by.clone() }),
            None => Ok((block.range, offset)),
        }
    }

    fn place(
        &self,
        cluster: &ClusterName,
        family: Family,
        avoid: &BTreeSet<IpAddr>,
    ) -> Option<(IpNet, u128)> {
        let with_room = self.of(cluster, family).filter(|block| block.free() > 0);
        let mut fullest: Vec<&Block> = with_room.collect();
        fullest.sort_by_key(|block| (block.free(), block.range));
        fullest.into_iter().find_map(|block| Some((block.range, block.next(avoid)?)))
    }

    fn of(&self, cluster: &ClusterName, family: Family) -> impl Iterator<Item = &Block> {
        self.blocks
            .values()
            .filter(move |block| block.cluster == *cluster && Family::of(&block.range) == family)
    }

    /// Replaces what an owner keeps beside its address.
    pub fn set_detail(&mut self, owner: &Owner, detail: Vec<u8>) -> Result<(), UnknownOwner> {
        let held = self.allocations.get_mut(owner).ok_or_else(|| UnknownOwner(owner.clone()))?;
        held.detail.clone_from(&detail);
        self.outbox.push(Record::Detailed { owner: owner.clone(), detail });
        Ok(())
    }

    /// Takes an owner's address back; `None` where it has none.
    pub fn release(&mut self, owner: &Owner) -> Option<IpAddr> {
        let held = self.allocations.remove(owner)?;
        let block = self.blocks.get_mut(&held.block)?;
        block.release(held.offset);
        self.outbox.push(Record::Released { owner: owner.clone() });
        Some(block.address(held.offset))
    }

    /// Whether a further block should be leased before the cluster's last address is gone.
    pub fn wants_block(&self, cluster: &ClusterName, family: Family) -> bool {
        let free = self.of(cluster, family).fold(0u128, |sum, block| sum.saturating_add(block.free()));
        free < FREE_MIN
    }

    /// Empty blocks that can be given back: of each cluster and family all but the first.
    pub fn surplus(&self) -> Vec<IpNet> {
        let mut kept = BTreeSet::new();
        let empty = self.blocks.values().filter(|block| block.held.is_empty());
        empty
            .filter(|block| !kept.insert((&block.cluster, Family::of(&block.range))))
            .map(|block| block.range)
            .collect()
    }

    /// The blocks, in address order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockView<'_>> {
        self.blocks.values().map(|block| BlockView { block })
    }

    /// All allocations, by owner.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation<'_>> {
        self.allocations.iter().filter_map(|(owner, held)| self.view(owner, held))
    }

    /// What an owner has.
    pub fn allocation(&self, owner: &Owner) -> Option<Allocation<'_>> {
        let (owner, held) = self.allocations.get_key_value(owner)?;
        self.view(owner, held)
    }

    fn view<'a>(&'a self, owner: &'a Owner, held: &'a Held) -> Option<Allocation<'a>> {
        let block = self.blocks.get(&held.block)?;
        Some(Allocation {
            owner,
            address: block.address(held.offset),
            cluster: &block.cluster,
            detail: &held.detail,
        })
    }

    /// Who has an address.
    pub fn owner_of(&self, address: IpAddr) -> Option<&Owner> {
        let block = self.blocks.get(&self.block_of(address)?)?;
        block.held.get(&block.offset(address)?)
    }

    /// The block that `address` lies in: the last that begins at or before it, because blocks do not overlap.
    fn block_of(&self, address: IpAddr) -> Option<IpNet> {
        let host = IpNet::from(address);
        let mut before = self.blocks.range(..=host).rev();
        before
            .find(|(range, _)| Family::of(range) == Family::of(&host))
            .map(|(range, _)| *range)
            .filter(|range| range.contains(&address))
    }
}
