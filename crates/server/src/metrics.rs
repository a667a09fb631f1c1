//! What Prometheus is told. Values that the view has are read when they are asked for.

use crate::{agents::Agents, flows::Flows, registry::Registry};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry as Metrics_,
};
use std::sync::{Mutex, atomic::AtomicU64};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolState {
    pool: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlatformLabel {
    platform: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RangeLabel {
    range: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    api: &'static str,
    code: u16,
}

/// Counters that grow as things happen, and gauges that are set when they are read.
pub(crate) struct Metrics {
    registry: Mutex<Metrics_>,
    pub(crate) resolves: Counter,
    answers: Family<Answer, Counter>,
    policy_revision: Gauge<u64, AtomicU64>,
    rules: Gauge<u64, AtomicU64>,
    agents: Gauge<u64, AtomicU64>,
    nodes: Family<ClusterLabel, Gauge<u64, AtomicU64>>,
    endpoints: Family<ClusterLabel, Gauge<u64, AtomicU64>>,
    workloads: Family<PlatformLabel, Gauge<u64, AtomicU64>>,
    identities: Family<RangeLabel, Gauge<u64, AtomicU64>>,
    addresses: Family<PoolState, Gauge<u64, AtomicU64>>,
    blocks: Family<PoolState, Gauge<u64, AtomicU64>>,
    flows_lost: Gauge<u64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Metrics_::with_prefix("isthmus")),
            resolves: Counter::default(),
            answers: Family::default(),
            policy_revision: Gauge::default(),
            rules: Gauge::default(),
            agents: Gauge::default(),
            nodes: Family::default(),
            endpoints: Family::default(),
            workloads: Family::default(),
            identities: Family::default(),
            addresses: Family::default(),
            blocks: Family::default(),
            flows_lost: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = crate::registry::lock(&self.registry);
        registry.register(
            "build",
            "What this server is",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register("workload_resolves", "Workloads that agents asked for", self.resolves.clone());
        registry.register("http_answers", "Answers by API and HTTP status", self.answers.clone());
        registry.register("policy_revision", "Newest revision of the network", self.policy_revision.clone());
        registry.register("policy_rules", "Rules of all policies", self.rules.clone());
        registry.register("agents_connected", "Agents with a live stream", self.agents.clone());
        registry.register("nodes", "Nodes that serve a cluster", self.nodes.clone());
        registry.register("endpoints", "Endpoints of a cluster", self.endpoints.clone());
        registry.register("workloads", "Workloads of a platform", self.workloads.clone());
        registry.register("identities", "Numbers in use or at rest", self.identities.clone());
        registry.register("ipam_addresses", "Addresses of a pool", self.addresses.clone());
        registry.register("ipam_blocks", "Blocks of a pool", self.blocks.clone());
        registry.register(
            "flow_events_lost_by_agents",
            "Flows that agents could not send, since the server's start",
            self.flows_lost.clone(),
        );
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, api: &'static str, code: u16) {
        self.answers.get_or_create(&Answer { api, code }).inc();
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self, registry: &Registry, agents: &Agents, flows: &Flows) -> String {
        self.agents.set(agents.connected() as u64);
        self.flows_lost.set(flows.lost());
        let (low, high) = registry.identities_in_use();
        self.identities.get_or_create(&RangeLabel { range: "cloudfoundry" }).set(low);
        self.identities.get_or_create(&RangeLabel { range: "others" }).set(high);
        for (platform, count) in registry.workloads_by_platform() {
            self.workloads.get_or_create(&PlatformLabel { platform: platform.as_str() }).set(count);
        }
        self.read_view(registry);
        let mut text = String::new();
        match encode(&mut text, &crate::registry::lock(&self.registry)) {
            Ok(()) => text,
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                String::new()
            }
        }
    }

    fn read_view(&self, registry: &Registry) {
        let view = registry.view();
        self.policy_revision.set(view.network_revision);
        self.rules.set(view.tables.rule_count() as u64);
        for family in [&self.nodes, &self.endpoints] {
            family.clear();
        }
        for name in view.clusters.keys() {
            let label = ClusterLabel { cluster: name.clone() };
            let nodes = view.nodes.values().filter(|held| held.value.clusters.contains(name)).count();
            self.nodes.get_or_create(&label).set(nodes as u64);
            let endpoints = view.endpoints.values().filter(|held| held.value.cluster == *name).count();
            self.endpoints.get_or_create(&label).set(endpoints as u64);
        }
        for family in [&self.addresses, &self.blocks] {
            family.clear();
        }
        for (name, pool) in &view.pools {
            let usage = view.usage(name, &pool.value);
            let set = |family: &Family<PoolState, Gauge<u64, AtomicU64>>, state, value| {
                family.get_or_create(&PoolState { pool: name.clone(), state }).set(value);
            };
            set(&self.blocks, "leased", usage.blocks_leased);
            set(&self.blocks, "free", usage.blocks_free);
            set(&self.addresses, "used", usage.addresses_used);
            set(&self.addresses, "free", usage.addresses_free);
        }
    }
}
