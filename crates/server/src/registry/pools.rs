//! Pools. No two of them share an address, whoever writes them at once.

use super::{CommitError, RETRIES_MAX, Registry};
use crate::{
    kinds::{self, POOLS_GUARD, StoredPool},
    problem::{Code, Fault},
    view::View,
};
use ipnet::IpNet;
use isthmus_core::{ClusterName, Labels, PoolName};
use isthmus_store::{Compare, Operation, Revision, StoreError, Txn};
use std::net::IpAddr;
use uuid::Uuid;

/// Prefix length of IPv4 blocks unless told otherwise: 64 addresses, a node's usual number of containers.
const BLOCK_LEN_V4: u8 = 26;
/// The same for IPv6.
const BLOCK_LEN_V6: u8 = 122;
/// CIDRs of one pool.
const CIDRS_MAX: usize = 64;
/// Largest block, in bits of the address that vary: what the agent's allocator keeps in memory.
const BLOCK_BITS_MAX: u8 = 16;

/// What a pool shall be.
#[derive(Clone, Debug)]
pub(crate) struct PoolDraft {
    pub(crate) name: PoolName,
    pub(crate) labels: Labels,
    pub(crate) cluster: ClusterName,
    pub(crate) cidrs: Vec<String>,
    pub(crate) block_len: Option<u8>,
    pub(crate) world: bool,
}

/// Why a pool could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    #[error("there is a pool {0} already")]
    Exists(PoolName),
    #[error("there is no pool {0}")]
    Missing(PoolName),
    #[error("there is no cluster {0}: create it first")]
    NoCluster(ClusterName),
    #[error("pool {name} is at revision {found}, not {wanted}: somebody changed it meanwhile")]
    Changed { name: PoolName, wanted: Revision, found: Revision },
    #[error("pool {name}: {why}")]
    BadRange { name: PoolName, why: String },
    #[error("{cidr} of pool {name} overlaps with {other_cidr} of pool {other}")]
    Overlap { name: PoolName, cidr: IpNet, other: String, other_cidr: IpNet },
    #[error("{cidr} of pool {name} holds {address}, which is node {node}'s own address")]
    NodeAddress { name: PoolName, cidr: IpNet, node: String, address: IpAddr },
    #[error("{blocks} blocks of pool {name} are leased, for example {example} to node {node}")]
    InUse { name: PoolName, blocks: usize, example: IpNet, node: String },
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for PoolError {
    fn code(&self) -> Code {
        match self {
            Self::Exists(_) | Self::Changed { .. } => Code::Conflict,
            Self::Missing(_) => Code::NotFound,
            Self::NoCluster(_) => Code::UnknownName,
            Self::BadRange { .. } => Code::BadRequest,
            Self::Overlap { .. } | Self::NodeAddress { .. } => Code::PoolsOverlap,
            Self::InUse { .. } => Code::PoolInUse,
            Self::Commit(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("read it again, and write with the new ETag".to_owned()),
            Self::NoCluster(name) => Some(format!("isthmus cluster create {name} --platform PLATFORM")),
            Self::Overlap { .. } | Self::NodeAddress { .. } => {
                Some("choose a range that nothing on this network uses".to_owned())
            }
            Self::InUse { .. } => Some(
                "blocks return when their last container is gone; see isthmus ipam show. The block length, the cluster \
                 and CIDRs with leased blocks stay until then"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl From<StoreError> for PoolError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl Registry {
    /// Makes a pool. With `dry`, only says whether it could.
    pub(crate) async fn create_pool(&self, draft: &PoolDraft, dry: bool) -> Result<(), PoolError> {
        let uuid = Uuid::new_v4();
        let key = kinds::pool_key(draft.name.as_str());
        for _ in 0..RETRIES_MAX {
            let guard = self.mod_revision(POOLS_GUARD)?;
            if self.store.entry(&key)?.is_some() {
                return Err(PoolError::Exists(draft.name.clone()));
            }
            let pool = self.checked_pool(draft, uuid).await?;
            if dry {
                return Ok(());
            }
            let txn = guarded(guard, draft)
                .when(Compare::absent(&key))
                .then(Operation::put(&key, kinds::encode(&pool)));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("pool {}", draft.name) }.into())
    }

    /// Replaces a pool, if it is at revision `wanted` where one is given. What leased blocks need must stay.
    pub(crate) async fn replace_pool(
        &self,
        draft: &PoolDraft,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<(), PoolError> {
        let name = &draft.name;
        let key = kinds::pool_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let guard = self.mod_revision(POOLS_GUARD)?;
            let Some((held, found)) = self.read::<StoredPool>(&key)? else {
                return Err(PoolError::Missing(name.clone()));
            };
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                return Err(PoolError::Changed { name: name.clone(), wanted, found });
            }
            let pool = self.checked_pool(draft, held.uuid).await?;
            let fixed = pool.cluster != held.cluster || pool.block_len != held.block_len;
            check_unused(&*self.fresh_view().await?, name, |block| {
                fixed || !pool.cidrs.iter().any(|cidr| cidr.contains(&block))
            })?;
            if dry || pool == held {
                return Ok(());
            }
            let txn = guarded(guard, draft)
                .when(Compare::unchanged(&key, found))
                .then(Operation::put(&key, kinds::encode(&pool)));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("pool {name}") }.into())
    }

    /// Deletes a pool of which no block is leased.
    pub(crate) async fn delete_pool(
        &self,
        name: &PoolName,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<(), PoolError> {
        let key = kinds::pool_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let guard = self.mod_revision(POOLS_GUARD)?;
            let Some((_, found)) = self.read::<StoredPool>(&key)? else {
                return Err(PoolError::Missing(name.clone()));
            };
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                return Err(PoolError::Changed { name: name.clone(), wanted, found });
            }
            check_unused(&*self.fresh_view().await?, name, |_| true)?;
            if dry {
                return Ok(());
            }
            // A lease that is made meanwhile changes the guard (see `lease_block`).
            let txn = Txn::new()
                .when(Compare::unchanged(&key, found))
                .when(Compare::unchanged(POOLS_GUARD, guard))
                .then(Operation::put(POOLS_GUARD, name.as_str()))
                .then(Operation::delete(&key));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("pool {name}") }.into())
    }

    /// The pool of a draft, if it may be beside what is there.
    async fn checked_pool(&self, draft: &PoolDraft, uuid: Uuid) -> Result<StoredPool, PoolError> {
        let view = self.fresh_view().await?;
        let Some(cluster) = view.clusters.get(draft.cluster.as_str()) else {
            return Err(PoolError::NoCluster(draft.cluster.clone()));
        };
        let pool = stored(draft, uuid, cluster.value.external)?;
        let name = || draft.name.clone();
        for cidr in &pool.cidrs {
            for (other, held) in view.pools.iter().filter(|(other, _)| *other != draft.name.as_str()) {
                if let Some(other_cidr) = held.value.cidrs.iter().find(|other| overlap(cidr, other)) {
                    return Err(PoolError::Overlap {
                        name: name(),
                        cidr: *cidr,
                        other: other.clone(),
                        other_cidr: *other_cidr,
                    });
                }
            }
            for (node, held) in &view.nodes {
                if let Some(address) = held.value.addresses.iter().find(|address| cidr.contains(*address)) {
                    let (node, address) = (node.clone(), *address);
                    return Err(PoolError::NodeAddress { name: name(), cidr: *cidr, node, address });
                }
            }
        }
        Ok(pool)
    }
}

fn guarded(guard: Revision, draft: &PoolDraft) -> Txn {
    Txn::new()
        .when(Compare::unchanged(POOLS_GUARD, guard))
        .when(Compare::exists(kinds::cluster_key(draft.cluster.as_str())))
        .then(Operation::put(POOLS_GUARD, draft.name.as_str()))
}

fn check_unused(view: &View, name: &PoolName, matters: impl Fn(IpNet) -> bool) -> Result<(), PoolError> {
    let leased = view.blocks.values().map(|held| &held.value).filter(|block| block.pool == name.as_str());
    let mut leased = leased.filter(|block| matters(block.cidr));
    let Some(first) = leased.next() else { return Ok(()) };
    Err(PoolError::InUse {
        name: name.clone(),
        blocks: 1 + leased.count(),
        example: first.cidr,
        node: first.node.clone(),
    })
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// Reads the ranges of a draft.
fn stored(draft: &PoolDraft, uuid: Uuid, external: bool) -> Result<StoredPool, PoolError> {
    let bad = |why| PoolError::BadRange { name: draft.name.clone(), why };
    if draft.world && !external {
        let why =
            format!("it is of cluster {}, which is ours: only an external one's can be world", draft.cluster);
        return Err(bad(why));
    }
    if draft.block_len.is_some() && external {
        return Err(bad(
            "it is of an external cluster, whose addresses are not ours to give: no block length".to_owned(),
        ));
    }
    // No block of a foreign range is ever leased; the longest length lets the range be as small as one address.
    let longest = |text: &String| text.parse::<IpNet>().ok().map(|cidr| cidr.max_prefix_len());
    let block_len = if external { draft.cidrs.first().and_then(longest) } else { draft.block_len };
    let (cidrs, block_len) = ranges(&draft.cidrs, block_len).map_err(bad)?;
    Ok(StoredPool {
        uuid,
        labels: draft.labels.clone(),
        cluster: draft.cluster.as_str().to_owned(),
        cidrs,
        block_len,
        world: draft.world,
    })
}

/// Checks CIDRs and the length of blocks; says what is wrong.
fn ranges(texts: &[String], block_len: Option<u8>) -> Result<(Vec<IpNet>, u8), String> {
    if texts.is_empty() {
        return Err("it has no CIDR: write at least one, for example 10.64.0.0/16".to_owned());
    }
    if texts.len() > CIDRS_MAX {
        return Err(format!("it has {} CIDRs, at most {CIDRS_MAX} are allowed", texts.len()));
    }
    let mut cidrs: Vec<IpNet> = Vec::new();
    for text in texts {
        let cidr = one_range(text)?;
        if let Some(other) = cidrs.iter().find(|other| overlap(&cidr, other)) {
            return Err(format!("its own {cidr} and {other} overlap"));
        }
        if cidrs.first().is_some_and(|first| first.max_prefix_len() != cidr.max_prefix_len()) {
            return Err("it has IPv4 and IPv6 ranges: make a pool for each".to_owned());
        }
        cidrs.push(cidr);
    }
    let bits = cidrs[0].max_prefix_len();
    let block_len = block_len.unwrap_or(if bits == 32 { BLOCK_LEN_V4 } else { BLOCK_LEN_V6 });
    if block_len > bits || bits - block_len > BLOCK_BITS_MAX {
        return Err(format!("block length {block_len} is not from {} to {bits}", bits - BLOCK_BITS_MAX));
    }
    if let Some(cidr) = cidrs.iter().find(|cidr| cidr.prefix_len() > block_len) {
        return Err(format!("{cidr} is smaller than one block of /{block_len}: use a larger block length"));
    }
    cidrs.sort_unstable();
    Ok((cidrs, block_len))
}

fn one_range(text: &str) -> Result<IpNet, String> {
    let cidr: IpNet =
        text.parse().map_err(|_why| format!("\"{text}\" is no CIDR: write one like 10.64.0.0/16"))?;
    if cidr.trunc() != cidr {
        return Err(format!("{cidr} has bits set behind its prefix: write {}", cidr.trunc()));
    }
    let address = cidr.network();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(format!("{cidr} cannot be given to containers: it is reserved"));
    }
    Ok(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[&str], block_len: Option<u8>) -> Result<(Vec<IpNet>, u8), String> {
        ranges(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), block_len)
    }

    #[test]
    fn good_ranges_are_sorted_and_get_a_block_length() {
        let (cidrs, block_len) = check(&["10.65.0.0/16", "10.64.0.0/16"], None).unwrap();
        assert_eq!(cidrs[0].to_string(), "10.64.0.0/16");
        assert_eq!(block_len, 26);
        assert_eq!(check(&["fd00:1::/64"], None).unwrap().1, 122);
    }

    #[test]
    fn bad_ranges_are_refused_with_what_to_write() {
        for (texts, block_len, part) in [
            (&[][..], None, "no CIDR"),
            (&["10.64.0.0"], None, "like 10.64.0.0/16"),
            (&["10.64.0.1/16"], None, "write 10.64.0.0/16"),
            (&["10.64.0.0/16", "10.64.128.0/17"], None, "overlap"),
            (&["10.64.0.0/16", "fd00::/64"], None, "a pool for each"),
            (&["10.64.0.0/28"], None, "smaller than one block"),
            (&["10.0.0.0/8"], Some(33), "not from 16 to 32"),
            (&["10.0.0.0/8"], Some(8), "not from 16 to 32"),
            (&["127.0.0.0/8"], None, "reserved"),
            (&["224.0.0.0/8"], None, "reserved"),
            (&["0.0.0.0/0"], None, "reserved"),
        ] {
            let why = check(texts, block_len).unwrap_err();
            assert!(why.contains(part), "{texts:?}: {why}");
        }
    }
}
