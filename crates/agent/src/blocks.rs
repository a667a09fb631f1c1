//! Blocks: leased when addresses run out, given back when they stay empty.

use crate::{
    agent::{Agent, fail},
    link::AskError,
    locks::{KeyLocks, lock},
};
use ipnet::IpNet;
use isthmus_api::{
    adapter::{Failure, FailureKind},
    stream::{LeaseBlock, ReturnBlock, reply, request},
};
use isthmus_core::ClusterName;
use isthmus_ipam::{FREE_MIN, Family};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

/// Requests for blocks.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// One request at a time for each cluster.
    asking: KeyLocks,
    /// How each cluster's last request ended, counted, so that who waited for it shares its failure.
    outcomes: Mutex<BTreeMap<ClusterName, (u64, Option<Failure>)>>,
    /// Blocks that were empty at the last look.
    empty: Mutex<BTreeSet<IpNet>>,
}

impl Leases {
    fn count(&self, cluster: &ClusterName) -> u64 {
        lock(&self.outcomes).get(cluster).map_or(0, |(count, _)| *count)
    }

    fn finish(&self, cluster: &ClusterName, outcome: &Result<(), Failure>) {
        let mut outcomes = lock(&self.outcomes);
        let entry = outcomes.entry(cluster.clone()).or_default();
        *entry = (entry.0 + 1, outcome.as_ref().err().cloned());
    }

    /// The failure of a request that ended after `count` of them had.
    fn failure_since(&self, cluster: &ClusterName, count: u64) -> Option<Failure> {
        let outcomes = lock(&self.outcomes);
        outcomes.get(cluster).filter(|(now, _)| *now > count).and_then(|(_, failure)| failure.clone())
    }
}

impl Agent {
    /// Leases a further block, or shares the request that is under way.
    pub(crate) fn lease_block(&self, cluster: &ClusterName) -> Result<(), Failure> {
        let count = self.leases.count(cluster);
        let _asking = self.leases.asking.lock(cluster.as_str());
        if self.free(cluster) > 0 {
            return Ok(());
        }
        if let Some(failure) = self.leases.failure_since(cluster, count) {
            return Err(failure);
        }
        let outcome = self.ask_block(cluster);
        self.leases.finish(cluster, &outcome);
        outcome
    }

    /// Leases a further block before the last address is gone; nobody waits for it.
    pub(crate) fn lease_ahead(self: &Arc<Self>, cluster: &ClusterName) {
        if !self.addresses.read(|ipam| ipam.wants_block(cluster, Family::V4)) || !self.link.is_up() {
            return;
        }
        let (agent, cluster) = (Arc::clone(self), cluster.clone());
        self.runtime.spawn_blocking(move || {
            let Some(_asking) = agent.leases.asking.try_lock(cluster.as_str()) else { return };
            if agent.free(&cluster) < FREE_MIN {
                let outcome = agent.ask_block(&cluster);
                agent.leases.finish(&cluster, &outcome);
            }
        });
    }

    fn free(&self, cluster: &ClusterName) -> u128 {
        self.addresses.read(|ipam| {
            let blocks = ipam.blocks().filter(|block| block.cluster() == cluster && is_v4(block.range()));
            blocks.map(|block| block.free()).sum()
        })
    }

    fn ask_block(&self, cluster: &ClusterName) -> Result<(), Failure> {
        let body = request::Body::LeaseBlock(LeaseBlock { cluster: cluster.to_string() });
        let answer = self.runtime.block_on(self.link.ask(body));
        let outcome = match answer {
            Ok(reply::Body::Block(block)) => self.adopt_block(cluster, &block.cidr),
            Ok(_) => Err(AskError::Unexpected.to_string()),
            Err(AskError::Refused { code, message, retryable: false }) => {
                let help = format!("see: isthmus help {code}");
                return Err(fail(FailureKind::Invalid, format!("{code}: {message}"), help));
            }
            Err(error) => Err(error.to_string()),
        };
        let place = format!("pool of cluster {cluster}");
        let outcome = outcome.map_err(|why| {
            let message =
                format!("cluster {cluster} has no free address on node {}: {why}", self.config.node);
            fail(FailureKind::TryAgain, message, format!("see: isthmus ipam show --cluster {cluster}"))
        });
        self.problems.set(&place, outcome.as_ref().err().map(|failure| failure.message.clone()));
        outcome
    }

    /// Takes over a block that the server leased to this node.
    pub(crate) fn adopt_block(&self, cluster: &ClusterName, cidr: &str) -> Result<(), String> {
        let block: IpNet =
            cidr.parse().map_err(|_source| format!("the server leased \"{cidr}\", which is no block"))?;
        let (leased, ticket) = self.addresses.change(|ipam| ipam.lease(cluster.clone(), block));
        leased.map_err(|error| error.to_string())?;
        ticket.wait().map_err(|error| error.to_string())?;
        tracing::info!(%block, %cluster, "block leased");
        Ok(())
    }

    /// Compares the blocks that the server says are this node's with those that it holds. For the first `synced` of each
    /// stream: later ones may cross with a lease or a return that is under way.
    pub(crate) fn compare_blocks(&self) {
        let node = self.config.node.as_str();
        let said: BTreeMap<String, String> = {
            let view = self.view();
            let own = view.blocks().filter(|block| block.node == node);
            own.map(|block| (block.cidr.clone(), block.cluster.clone())).collect()
        };
        for (cidr, cluster) in &said {
            let adopted = match cluster.parse() {
                Ok(cluster) => self.adopt_block(&cluster, cidr),
                Err(error) => Err(format!("block {cidr}: {error}")),
            };
            self.problems.set(&format!("block {cidr}"), adopted.err());
        }
        let foreign: Vec<(IpNet, usize)> = self.addresses.read(|ipam| {
            let foreign = ipam.blocks().filter(|block| !said.contains_key(&block.range().to_string()));
            foreign.map(|block| (block.range(), block.allocations().count())).collect()
        });
        for (block, used) in foreign {
            self.lose_block(block, used);
        }
    }

    /// The server does not say that a held block is ours: give it up if nobody lives in it, else say so.
    fn lose_block(&self, block: IpNet, used: usize) {
        let place = format!("block {block}");
        if used > 0 {
            let text = format!(
                "block {block} has {used} endpoints here, but the server does not lease it to this node: \
                 the server's store was lost or restored; see: isthmus help ISE-0506"
            );
            self.problems.set(&place, Some(text));
            return;
        }
        let (given, ticket) = self.addresses.change(|ipam| ipam.give_back(block));
        if given.is_ok() && ticket.wait().is_ok() {
            self.problems.set(&place, None);
            tracing::info!(%block, "block given up: the server leases it to this node no more");
        }
    }

    /// Gives back blocks that were empty at this look and at the one before.
    pub(crate) fn return_blocks(&self) {
        let surplus: BTreeSet<IpNet> = self.addresses.read(isthmus_ipam::Ipam::surplus).into_iter().collect();
        let before = std::mem::replace(&mut *lock(&self.leases.empty), surplus.clone());
        if !self.link.is_up() {
            return;
        }
        for block in surplus.intersection(&before) {
            self.return_block(*block);
        }
    }

    fn return_block(&self, block: IpNet) {
        // First here, then there: a crash in between leaves a block that the server says is ours, and we adopt it again.
        let (given, ticket) = self.addresses.change(|ipam| ipam.give_back(block));
        if given.is_err() {
            return; // Somebody moved in meanwhile.
        }
        if let Err(error) = ticket.wait() {
            self.problems.set("journal", Some(error.to_string()));
            return;
        }
        let body = request::Body::ReturnBlock(ReturnBlock { block: block.to_string() });
        match self.runtime.block_on(self.link.ask(body)) {
            Ok(_) => tracing::info!(%block, "block returned"),
            Err(error) => {
                tracing::warn!(%block, %error, "block not returned; the server will say again that it is ours");
            }
        }
    }
}

fn is_v4(block: IpNet) -> bool {
    matches!(block, IpNet::V4(_))
}
