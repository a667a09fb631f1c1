//! One leased block: which of its addresses are free, and which was free for longest.

use crate::Owner;
use ipnet::IpNet;
use isthmus_core::ClusterName;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A block and its addresses, numbered from 0.
///
/// Addresses that nobody ever had are given out first, in order; then the one that was released longest ago, so that
/// whoever still sends to the former owner of an address meets nobody for as long as possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) range: IpNet,
    pub(crate) cluster: ClusterName,
    /// Offsets from here on were never given out, but for those in `held` and `released`.
    pub(crate) fresh: u128,
    /// Released offsets, the oldest first.
    pub(crate) released: VecDeque<u128>,
    pub(crate) held: BTreeMap<u128, Owner>,
}

impl Block {
    pub(crate) fn new(range: IpNet, cluster: ClusterName) -> Self {
        Self { range, cluster, fresh: 0, released: VecDeque::new(), held: BTreeMap::new() }
    }

    /// How many addresses the block has.
    pub(crate) fn size(&self) -> u128 {
        1u128 << (self.range.max_prefix_len() - self.range.prefix_len())
    }

    pub(crate) fn free(&self) -> u128 {
        self.size().saturating_sub(self.held.len() as u128)
    }

    /// The offset that should be given out next, but for addresses to `avoid`.
    pub(crate) fn next(&self, avoid: &BTreeSet<IpAddr>) -> Option<u128> {
        let may = |offset: &u128| !avoid.contains(&self.address(*offset));
        let mut offset = self.fresh;
        while offset < self.size() {
            if !self.held.contains_key(&offset) && !self.released.contains(&offset) && may(&offset) {
                return Some(offset);
            }
            offset += 1;
        }
        self.released.iter().copied().find(may)
    }

    /// Gives `offset`, which is free, to `owner`.
    pub(crate) fn hold(&mut self, offset: u128, owner: Owner) {
        self.released.retain(|free| *free != offset);
        self.held.insert(offset, owner);
        while self.fresh < self.size()
            && (self.held.contains_key(&self.fresh) || self.released.contains(&self.fresh))
        {
            self.fresh += 1;
        }
    }

    pub(crate) fn release(&mut self, offset: u128) {
        if self.held.remove(&offset).is_some() {
            self.released.push_back(offset);
        }
    }

    pub(crate) fn offset(&self, address: IpAddr) -> Option<u128> {
        self.range.contains(&address).then(|| bits(address) - bits(self.range.network()))
    }

    pub(crate) fn address(&self, offset: u128) -> IpAddr {
        match self.range.network() {
            IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + offset as u32)),
            IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() + offset)),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}
