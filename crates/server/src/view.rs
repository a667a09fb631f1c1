//! The registry in memory, indexed: what the store holds, as of one revision.
//!
//! ```text
//! store --watch--> View::apply --> indexes, compiler --> Changes --> sessions of agents
//!                        \--> reads of the REST API, checks before writes
//! ```
//!
//! What is a node's own (how it speaks BGP, with whom) is in [`plan`].
//!
//! Only the follower task ([`crate::registry`]) changes a view. A view is never ahead of the store; who needs it to be
//! no older than a revision waits for it.

use crate::{
    kinds::{
        self, StoredBgpPeer, StoredBlock, StoredCluster, StoredEndpoint, StoredIdentity, StoredNetwork,
        StoredNode, StoredNodeStatus, StoredPolicy, StoredPool, StoredWorkload, prefix,
    },
    tables::Tables,
};
use ipnet::IpNet;
use isthmus_core::{Encapsulation, Identity, Labels, Platform, WorkloadKey, WorkloadName, WorkloadPattern};
use isthmus_store::{Entry, Event};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    net::IpAddr,
    ops::Bound,
    str::FromStr,
};
use uuid::Uuid;

pub(crate) mod plan;

/// A value and the revision of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) revision: u64,
}

/// What an agent can hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ViewKey {
    Cluster(String),
    /// Cluster, then name.
    Pool(String, String),
    Node(String),
    Block(IpNet),
    Workload(Identity),
    Table(Identity),
    Network,
    Bgp,
    BgpPeer(String),
    Foreign(IpNet),
    /// An endpoint of a peer that local rules name; only where packets travel without encapsulation.
    PeerAddress(IpAddr),
}

impl fmt::Display for ViewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "cluster/{name}"),
            Self::Pool(cluster, name) => write!(f, "pool/{cluster}/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Block(block) => write!(f, "block/{block}"),
            Self::Table(identity) => write!(f, "table/{identity}"),
            Self::Workload(identity) => write!(f, "workload/{identity}"),
            Self::Network => f.write_str("network"),
            Self::Bgp => f.write_str("bgp"),
            Self::BgpPeer(name) => write!(f, "bgp-peer/{name}"),
            Self::Foreign(cidr) => write!(f, "foreign/{cidr}"),
            Self::PeerAddress(address) => write!(f, "peer/{address}"),
        }
    }
}

impl FromStr for ViewKey {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        let unknown = || UnknownKey(text.to_owned());
        match text {
            "network" => return Ok(Self::Network),
            "bgp" => return Ok(Self::Bgp),
            _ => {}
        }
        let (kind, name) = text.split_once('/').ok_or_else(unknown)?;
        let identity = || name.parse::<Identity>().map_err(|_why| unknown());
        Ok(match kind {
            "cluster" => Self::Cluster(name.to_owned()),
            "pool" => {
                let (cluster, pool) = name.split_once('/').ok_or_else(unknown)?;
                Self::Pool(cluster.to_owned(), pool.to_owned())
            }
            "node" => Self::Node(name.to_owned()),
            "block" => Self::Block(name.parse().map_err(|_why| unknown())?),
            "table" => Self::Table(identity()?),
            "workload" => Self::Workload(identity()?),
            "bgp-peer" => Self::BgpPeer(name.to_owned()),
            "foreign" => Self::Foreign(name.parse().map_err(|_why| unknown())?),
            "peer" => Self::PeerAddress(name.parse().map_err(|_why| unknown())?),
            _ => return Err(unknown()),
        })
    }
}

/// A key that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no key of a view")]
pub(crate) struct UnknownKey(pub(crate) String);

/// What one step of the view changed, as far as agents can hold it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The revision of the step.
    pub(crate) revision: u64,
    /// The view was read anew: compare everything.
    pub(crate) all: bool,
    /// Keys that every agent holds.
    pub(crate) shared: BTreeSet<ViewKey>,
    /// Identities whose table changed.
    pub(crate) tables: HashSet<Identity>,
    /// Identities whose name or labels changed.
    pub(crate) workloads: HashSet<Identity>,
    /// Something that [`plan`] looks at changed.
    pub(crate) plans: bool,
    /// Addresses that an endpoint got or lost, with its identity; only without encapsulation.
    pub(crate) addresses: BTreeSet<(IpAddr, Identity)>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        !self.all
            && !self.plans
            && self.shared.is_empty()
            && self.tables.is_empty()
            && self.workloads.is_empty()
            && self.addresses.is_empty()
    }
}

/// How full a pool is. Large IPv6 pools count as 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolUsage {
    pub(crate) blocks_leased: u64,
    pub(crate) blocks_free: u64,
    pub(crate) addresses_used: u64,
    pub(crate) addresses_free: u64,
}

/// The registry as of one revision.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) revision: u64,
    /// Last revision that changed what agents can hold.
    pub(crate) network_revision: u64,
    pub(crate) clusters: BTreeMap<String, Versioned<StoredCluster>>,
    pub(crate) pools: BTreeMap<String, Versioned<StoredPool>>,
    pub(crate) nodes: BTreeMap<String, Versioned<StoredNode>>,
    pub(crate) node_status: BTreeMap<String, StoredNodeStatus>,
    pub(crate) blocks: BTreeMap<IpNet, Versioned<StoredBlock>>,
    pub(crate) identities: BTreeMap<Identity, Versioned<StoredIdentity>>,
    pub(crate) workloads: BTreeMap<Uuid, Versioned<StoredWorkload>>,
    /// By `NODE/ID`.
    pub(crate) endpoints: BTreeMap<String, Versioned<StoredEndpoint>>,
    pub(crate) policies: BTreeMap<String, Versioned<StoredPolicy>>,
    pub(crate) bgp_peers: BTreeMap<String, Versioned<StoredBgpPeer>>,
    /// `None` until somebody sets it: everything as its default.
    pub(crate) network: Option<Versioned<StoredNetwork>>,
    pub(crate) tables: Tables,
    app_names: HashMap<String, BTreeSet<Uuid>>,
    identities_of: HashMap<Uuid, BTreeSet<Identity>>,
    endpoints_of: HashMap<Uuid, BTreeSet<String>>,
    policies_of: HashMap<Uuid, BTreeSet<String>>,
    addresses: BTreeMap<IpAddr, String>,
}

impl View {
    /// Takes in entries of one snapshot; part of reading everything anew.
    pub(crate) fn load(&mut self, entries: &[Entry]) {
        let mut ignored = Changes::default();
        for entry in entries {
            self.put(entry, &mut ignored);
        }
    }

    /// Takes in the changes of one revision.
    pub(crate) fn apply(&mut self, revision: u64, events: &[Event]) -> Changes {
        let mut changes = Changes::default();
        for event in events {
            match event {
                Event::Put(entry) => self.put(entry, &mut changes),
                Event::Delete { key, .. } => self.delete(key, &mut changes),
            }
        }
        self.finish(revision, &mut changes);
        changes
    }

    /// Ends a step: compiles what it changed.
    pub(crate) fn finish(&mut self, revision: u64, changes: &mut Changes) {
        changes.tables.extend(self.tables.take_changed());
        self.revision = self.revision.max(revision);
        changes.revision = self.revision;
        if !changes.is_empty() {
            self.network_revision = self.revision;
        }
    }

    fn put(&mut self, entry: &Entry, changes: &mut Changes) {
        let key = entry.key.as_str();
        let Some((kind, name)) = split(key) else { return };
        match kind {
            prefix::CLUSTER => read(entry, |value| self.put_cluster(name, value, changes)),
            prefix::POOL => read(entry, |value: Versioned<StoredPool>| {
                changes.plans = true;
                let held = self.pools.insert(name.to_owned(), value.clone());
                for pool in held.iter().chain([&value]) {
                    changes.shared.insert(ViewKey::Pool(pool.value.cluster.clone(), name.to_owned()));
                }
            }),
            prefix::NODE => read(entry, |value| {
                changes.plans = true;
                self.nodes.insert(name.to_owned(), value);
                changes.shared.insert(ViewKey::Node(name.to_owned()));
            }),
            prefix::NODE_STATUS => read(entry, |status: Versioned<StoredNodeStatus>| {
                self.node_status.insert(name.to_owned(), status.value);
            }),
            prefix::BLOCK => read(entry, |value: Versioned<StoredBlock>| {
                changes.shared.insert(ViewKey::Block(value.value.cidr));
                self.blocks.insert(value.value.cidr, value);
            }),
            prefix::IDENTITY => read(entry, |value| {
                if let Ok(identity) = name.parse() {
                    self.put_identity(identity, value, changes);
                }
            }),
            prefix::WORKLOAD => read(entry, |value| {
                if let Ok(uuid) = name.parse() {
                    self.put_workload(uuid, value, changes);
                }
            }),
            prefix::ENDPOINT => read(entry, |value| self.put_endpoint(name, value, changes)),
            prefix::POLICY => read(entry, |value| self.put_policy(name, value)),
            prefix::BGP_PEER => read(entry, |value| {
                self.bgp_peers.insert(name.to_owned(), value);
                changes.plans = true;
            }),
            prefix::NETWORK if key == kinds::NETWORK_KEY => read(entry, |value| {
                self.network = Some(value);
                // Which addresses agents hold depends on it, too.
                changes.all = true;
            }),
            _ => {}
        }
    }

    fn delete(&mut self, key: &str, changes: &mut Changes) {
        let Some((kind, name)) = split(key) else { return };
        match kind {
            prefix::CLUSTER => {
                self.clusters.remove(name);
                changes.plans = true;
                self.tables.remove_cluster(name);
                changes.shared.insert(ViewKey::Cluster(name.to_owned()));
                self.touch_names(name, changes);
            }
            prefix::POOL => {
                changes.plans = true;
                if let Some(pool) = self.pools.remove(name) {
                    changes.shared.insert(ViewKey::Pool(pool.value.cluster, name.to_owned()));
                }
            }
            prefix::NODE => {
                changes.plans = true;
                self.nodes.remove(name);
                changes.shared.insert(ViewKey::Node(name.to_owned()));
            }
            prefix::NODE_STATUS => {
                self.node_status.remove(name);
            }
            prefix::BLOCK => {
                if let Some(block) = kinds::parse_block_name(name) {
                    self.blocks.remove(&block);
                    changes.shared.insert(ViewKey::Block(block));
                }
            }
            prefix::IDENTITY => {
                if let Ok(identity) = name.parse() {
                    self.forget_identity(identity, changes);
                    self.identities.remove(&identity);
                }
            }
            prefix::WORKLOAD => {
                if let Ok(uuid) = name.parse() {
                    self.delete_workload(uuid, changes);
                }
            }
            prefix::ENDPOINT => self.delete_endpoint(name, changes),
            prefix::POLICY => self.delete_policy(name),
            prefix::BGP_PEER => {
                self.bgp_peers.remove(name);
                changes.plans = true;
            }
            prefix::NETWORK if key == kinds::NETWORK_KEY => {
                self.network = None;
                changes.all = true;
            }
            _ => {}
        }
    }

    fn put_cluster(&mut self, name: &str, value: Versioned<StoredCluster>, changes: &mut Changes) {
        self.tables.put_cluster(name, value.value.default_verdict(), value.value.deny_answer());
        self.clusters.insert(name.to_owned(), value);
        changes.plans = true;
        // Ranges of another network are no pools for agents.
        let pools = self.pools.iter().filter(|(_, pool)| pool.value.cluster == name);
        changes.shared.extend(pools.map(|(pool, _)| ViewKey::Pool(name.to_owned(), pool.clone())));
        changes.shared.insert(ViewKey::Cluster(name.to_owned()));
        self.touch_names(name, changes);
    }

    /// The platform is part of the names of a cluster's workloads.
    fn touch_names(&self, cluster: &str, changes: &mut Changes) {
        for (uuid, workload) in &self.workloads {
            if workload.value.cluster == cluster {
                changes.workloads.extend(self.identities_of.get(uuid).into_iter().flatten());
            }
        }
    }

    fn put_identity(&mut self, identity: Identity, value: Versioned<StoredIdentity>, changes: &mut Changes) {
        self.forget_identity(identity, changes);
        if value.value.retired.is_none() {
            let workload = value.value.workload;
            self.identities_of.entry(workload).or_default().insert(identity);
            if let Some(held) = self.workloads.get(&workload) {
                self.tables.put_identity(identity, workload, &held.value.cluster);
                changes.plans |= self.is_external(&held.value.cluster);
            }
        }
        self.identities.insert(identity, value);
        changes.workloads.insert(identity);
    }

    /// Takes an identity out of the indexes.
    fn forget_identity(&mut self, identity: Identity, changes: &mut Changes) {
        let Some(held) = self.identities.get(&identity) else { return };
        if let Some(others) = self.identities_of.get_mut(&held.value.workload) {
            others.remove(&identity);
            if others.is_empty() {
                self.identities_of.remove(&held.value.workload);
            }
        }
        let external = self
            .workloads
            .get(&held.value.workload)
            .is_some_and(|workload| self.is_external(&workload.value.cluster));
        changes.plans |= external;
        self.tables.remove_identity(identity);
        changes.workloads.insert(identity);
    }

    fn put_workload(&mut self, uuid: Uuid, value: Versioned<StoredWorkload>, changes: &mut Changes) {
        if let Some(held) = self.workloads.get(&uuid) {
            let app = held.value.app.clone();
            self.forget_app(&app, uuid);
        }
        self.app_names.entry(value.value.app.clone()).or_default().insert(uuid);
        for identity in self.identities_of.get(&uuid).into_iter().flatten() {
            self.tables.put_identity(*identity, uuid, &value.value.cluster);
            changes.workloads.insert(*identity);
        }
        changes.plans |= self.is_external(&value.value.cluster);
        self.workloads.insert(uuid, value);
    }

    fn delete_workload(&mut self, uuid: Uuid, changes: &mut Changes) {
        let Some(held) = self.workloads.remove(&uuid) else { return };
        changes.plans |= self.is_external(&held.value.cluster);
        self.forget_app(&held.value.app, uuid);
        for identity in self.identities_of.get(&uuid).into_iter().flatten() {
            self.tables.remove_identity(*identity);
            changes.workloads.insert(*identity);
        }
    }

    fn forget_app(&mut self, app: &str, uuid: Uuid) {
        if let Some(uuids) = self.app_names.get_mut(app) {
            uuids.remove(&uuid);
            if uuids.is_empty() {
                self.app_names.remove(app);
            }
        }
    }

    fn put_endpoint(&mut self, name: &str, value: Versioned<StoredEndpoint>, changes: &mut Changes) {
        self.delete_endpoint(name, changes);
        self.note_addresses(&value.value, changes);
        self.endpoints_of.entry(value.value.workload).or_default().insert(name.to_owned());
        for address in &value.value.addresses {
            self.addresses.insert(*address, name.to_owned());
        }
        self.endpoints.insert(name.to_owned(), value);
    }

    fn note_addresses(&self, endpoint: &StoredEndpoint, changes: &mut Changes) {
        if self.is_native()
            && let Ok(identity) = Identity::new(endpoint.identity)
        {
            changes.addresses.extend(endpoint.addresses.iter().map(|address| (*address, identity)));
        }
    }

    fn delete_endpoint(&mut self, name: &str, changes: &mut Changes) {
        let Some(held) = self.endpoints.remove(name) else { return };
        self.note_addresses(&held.value, changes);
        remove_from(&mut self.endpoints_of, held.value.workload, name);
        for address in &held.value.addresses {
            if self.addresses.get(address).is_some_and(|holder| holder == name) {
                self.addresses.remove(address);
            }
        }
    }

    fn put_policy(&mut self, name: &str, value: Versioned<StoredPolicy>) {
        self.forget_policy(name);
        for uuid in named(&value.value) {
            self.policies_of.entry(uuid).or_default().insert(name.to_owned());
        }
        self.tables.put_policy(name, &value.value.rules);
        self.policies.insert(name.to_owned(), value);
    }

    fn delete_policy(&mut self, name: &str) {
        self.forget_policy(name);
        self.policies.remove(name);
        self.tables.remove_policy(name);
    }

    fn forget_policy(&mut self, name: &str) {
        let Some(held) = self.policies.get(name) else { return };
        for uuid in named(&held.value) {
            remove_from(&mut self.policies_of, uuid, name);
        }
    }

    /// Platform of a cluster; `standalone` if there is no such cluster.
    pub(crate) fn platform(&self, cluster: &str) -> Platform {
        self.clusters.get(cluster).map_or(Platform::Standalone, |cluster| cluster.value.platform())
    }

    /// Whether a cluster has no agents of ours.
    pub(crate) fn is_external(&self, cluster: &str) -> bool {
        self.clusters.get(cluster).is_some_and(|held| held.value.external)
    }

    /// The identity of what comes from an external cluster.
    pub(crate) fn external_identity(&self, cluster: &str) -> Option<Identity> {
        let cluster_name = cluster.parse().ok()?;
        let key = WorkloadKey { cluster: cluster_name, id: kinds::external_id(cluster) };
        self.identities_of(key.uuid()).next()
    }

    /// Whether packets travel without encapsulation, between some nodes at least.
    pub(crate) fn is_native(&self) -> bool {
        self.network.as_ref().is_some_and(|held| held.value.encapsulation() != Encapsulation::Always)
    }

    /// Addresses of the endpoints with an identity.
    pub(crate) fn addresses_of(&self, identity: Identity) -> impl Iterator<Item = IpAddr> + '_ {
        let workload = self.live_identity(identity).map(|held| held.workload);
        let endpoints = workload.into_iter().flat_map(|workload| self.endpoints_of(workload));
        endpoints
            .filter(move |(_, endpoint)| endpoint.identity == identity.number())
            .flat_map(|(_, endpoint)| endpoint.addresses.iter().copied())
    }

    /// Who has an address: the identity and the node.
    pub(crate) fn holder_of(&self, address: IpAddr) -> Option<(Identity, &str)> {
        let endpoint = &self.endpoints.get(self.addresses.get(&address)?)?.value;
        Some((Identity::new(endpoint.identity).ok()?, &endpoint.node))
    }

    /// Full name of a workload, if it is known.
    pub(crate) fn workload_name(&self, uuid: Uuid) -> Option<WorkloadName> {
        let workload = &self.workloads.get(&uuid)?.value;
        workload.name(self.platform(&workload.cluster))
    }

    /// What to print for a workload: its full name, else its UUID.
    pub(crate) fn workload_text(&self, uuid: Uuid) -> String {
        self.workload_name(uuid).map_or_else(|| uuid.to_string(), |name| name.to_string())
    }

    /// What to print for an identity: the reserved word, the workload's full name, or nothing.
    pub(crate) fn identity_text(&self, identity: Identity) -> String {
        if let Some(word) = identity.reserved_name() {
            return word.to_owned();
        }
        self.live_identity(identity).map_or_else(String::new, |held| self.workload_text(held.workload))
    }

    /// An identity that stands for somebody.
    pub(crate) fn live_identity(&self, identity: Identity) -> Option<&StoredIdentity> {
        self.identities.get(&identity).map(|held| &held.value).filter(|held| held.retired.is_none())
    }

    /// The workloads that a pattern means, in the order of their UUIDs.
    pub(crate) fn matching(&self, pattern: &WorkloadPattern) -> Vec<Uuid> {
        match pattern {
            WorkloadPattern::Uuid(uuid) => {
                self.workloads.contains_key(uuid).then_some(*uuid).into_iter().collect()
            }
            WorkloadPattern::Name { app, .. } => {
                let named = self.app_names.get(app).into_iter().flatten().copied();
                named
                    .filter(|uuid| {
                        self.workload_name(*uuid).is_some_and(|name| pattern.matches(&name, *uuid))
                    })
                    .collect()
            }
        }
    }

    /// Identities of a workload.
    pub(crate) fn identities_of(&self, workload: Uuid) -> impl Iterator<Item = Identity> + '_ {
        self.identities_of.get(&workload).into_iter().flatten().copied()
    }

    /// The number of a workload with these labels.
    pub(crate) fn identity_of(&self, workload: Uuid, labels: &Labels) -> Option<Identity> {
        self.identities_of(workload)
            .find(|identity| self.identities.get(identity).is_some_and(|held| held.value.labels == *labels))
    }

    /// Names (`NODE/ID`) of the endpoints of a workload.
    pub(crate) fn endpoints_of(&self, workload: Uuid) -> impl Iterator<Item = (&String, &StoredEndpoint)> {
        let names = self.endpoints_of.get(&workload).into_iter().flatten();
        names.filter_map(|name| self.endpoints.get(name).map(|endpoint| (name, &endpoint.value)))
    }

    /// How many endpoints a workload has.
    pub(crate) fn endpoint_count(&self, workload: Uuid) -> u64 {
        self.endpoints_of.get(&workload).map_or(0, |names| names.len() as u64)
    }

    /// Names of the policies with a rule from or to a workload.
    pub(crate) fn policies_of(&self, workload: Uuid) -> impl Iterator<Item = &String> {
        self.policies_of.get(&workload).into_iter().flatten()
    }

    /// Endpoints of a node, by `NODE/ID`.
    pub(crate) fn endpoints_on<'a>(
        &'a self,
        node: &str,
    ) -> impl Iterator<Item = (&'a String, &'a Versioned<StoredEndpoint>)> + use<'a> {
        let from = format!("{node}/");
        let to = format!("{node}0"); // '0' is the character after '/'.
        self.endpoints.range((Bound::Included(from), Bound::Excluded(to)))
    }

    /// Who has an address.
    pub(crate) fn endpoint_at(&self, address: IpAddr) -> Option<&String> {
        self.addresses.get(&address)
    }

    /// How many addresses of a block endpoints have.
    pub(crate) fn used(&self, block: IpNet) -> u64 {
        self.addresses.range(block.network()..=block.broadcast()).count() as u64
    }

    /// The lowest address of a block that an endpoint has.
    pub(crate) fn first_used(&self, block: IpNet) -> Option<IpAddr> {
        self.addresses.range(block.network()..=block.broadcast()).next().map(|(address, _)| *address)
    }

    /// The block that holds an address.
    pub(crate) fn block_of(&self, address: IpAddr) -> Option<&StoredBlock> {
        let host = IpNet::from(address);
        let before = self.blocks.range(..=host).next_back();
        // Blocks do not overlap, so the one that begins last before the address is the only one that can hold it; an
        // equal beginning sorts a longer prefix after a shorter one.
        before.map(|(_, held)| &held.value).filter(|held| held.cidr.contains(&address))
    }

    /// How full a pool is.
    pub(crate) fn usage(&self, name: &str, pool: &StoredPool) -> PoolUsage {
        let blocks = pool.cidrs.iter().map(|cidr| 1_u64 << (pool.block_len - cidr.prefix_len()).min(63));
        let blocks_all = blocks.fold(0_u64, u64::saturating_add);
        let leased = self.blocks.values().filter(|held| held.value.pool == name);
        let (count, used) =
            leased.fold((0, 0), |(count, used), held| (count + 1, used + self.used(held.value.cidr)));
        let bits = pool.cidrs.first().map_or(0, |cidr| cidr.max_prefix_len() - pool.block_len);
        let addresses_all = blocks_all.saturating_mul(1 << bits.min(63));
        PoolUsage {
            blocks_leased: count,
            blocks_free: blocks_all.saturating_sub(count),
            addresses_used: used,
            addresses_free: addresses_all.saturating_sub(used),
        }
    }

    /// The first block of a pool that nobody has and that is not in `taken`, in address order.
    pub(crate) fn free_block(&self, pool: &StoredPool, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
        let free = |block: &IpNet| !self.blocks.contains_key(block) && !taken.contains(block);
        pool.cidrs.iter().filter_map(|cidr| cidr.subnets(pool.block_len).ok()).flatten().find(free)
    }

    /// The cluster that unknown Cloud Foundry apps are taken to be of: the first one by name.
    pub(crate) fn first_cf_cluster(&self) -> Option<&String> {
        let cf = |cluster: &Versioned<StoredCluster>| cluster.value.platform() == Platform::CloudFoundry;
        self.clusters.iter().find(|(_, cluster)| cf(cluster)).map(|(name, _)| name)
    }

    /// How many Cloud Foundry clusters there are.
    pub(crate) fn cf_cluster_count(&self) -> usize {
        self.clusters.values().filter(|held| held.value.platform() == Platform::CloudFoundry).count()
    }

    /// Every key that all agents hold.
    pub(crate) fn shared_keys(&self) -> impl Iterator<Item = ViewKey> + '_ {
        let clusters = self.clusters.keys().cloned().map(ViewKey::Cluster);
        let pools = self
            .pools
            .iter()
            .filter(|(_, pool)| !self.is_external(&pool.value.cluster))
            .map(|(name, pool)| ViewKey::Pool(pool.value.cluster.clone(), name.clone()));
        let nodes = self.nodes.keys().cloned().map(ViewKey::Node);
        clusters.chain(pools).chain(nodes).chain(self.blocks.keys().copied().map(ViewKey::Block))
    }
}

/// Splits a key into its kind's prefix and the rest.
fn split(key: &str) -> Option<(&str, &str)> {
    let rest = key.strip_prefix(kinds::ROOT)?;
    let kind = rest.find('/')?;
    Some(key.split_at(kinds::ROOT.len() + kind + 1))
}

fn read<T: DeserializeOwned>(entry: &Entry, then: impl FnOnce(Versioned<T>)) {
    if let Some(value) = kinds::decode(&entry.key, &entry.value) {
        then(Versioned { value, revision: entry.mod_revision });
    }
}

/// The workloads that a policy names.
fn named(policy: &StoredPolicy) -> BTreeSet<Uuid> {
    policy.rules.iter().flat_map(|rule| [rule.from, rule.to]).collect()
}

fn remove_from(index: &mut HashMap<Uuid, BTreeSet<String>>, uuid: Uuid, name: &str) {
    if let Some(names) = index.get_mut(&uuid) {
        names.remove(name);
        if names.is_empty() {
            index.remove(&uuid);
        }
    }
}

#[cfg(test)]
mod tests;
