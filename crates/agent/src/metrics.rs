//! What Prometheus reads. Names as in the design: `isthmus_` first, base units, `_total` for counters.

use crate::{agent::Agent, locks::lock};
use isthmus_speaker::view::StationView;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};
use std::{
    sync::{Mutex, atomic::Ordering},
    time::Duration,
};

/// Reasons that let a packet through; all others of the closed list deny.
const ALLOWING: [&str; 7] =
    ["rule", "default-open", "established", "related", "node", "mapped-port", "outbound"];

/// Whether a reason denies.
pub(crate) fn denies(reason: &str) -> bool {
    !ALLOWING.contains(&reason)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowLabels {
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddressLabels {
    cluster: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    peer: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StationLabels {
    station: String,
}

/// What is counted of monitoring stations (BMP). They come through the API of the agent's speaker.
#[derive(Debug, Default)]
struct StationMetrics {
    up: Family<StationLabels, Gauge>,
    messages: Family<StationLabels, Counter>,
    bytes: Family<StationLabels, Counter>,
    losses: Family<StationLabels, Counter>,
    left_out: Family<StationLabels, Counter>,
}

impl StationMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("bgp_station_up", "Whether a monitoring station is being told", self.up.clone());
        let messages = "Messages that a monitoring station was sent";
        registry.register("bgp_station_messages", messages, self.messages.clone());
        let bytes = "What a monitoring station was sent";
        registry.register_with_unit("bgp_station", bytes, Unit::Bytes, self.bytes.clone());
        let losses = "Connections to a monitoring station that were lost";
        registry.register("bgp_station_losses", losses, self.losses.clone());
        let left_out = "Routes that a monitoring station was not told: no message holds them";
        registry.register("bgp_station_routes_left_out", left_out, self.left_out.clone());
    }

    fn collect(&self, stations: &[StationView]) {
        self.up.clear();
        let counters = [&self.messages, &self.bytes, &self.losses, &self.left_out];
        counters.into_iter().for_each(Family::clear);
        for StationView { address, status, .. } in stations {
            let labels = StationLabels { station: address.to_string() };
            self.up.get_or_create(&labels).set(i64::from(status.is_up));
            let values = [status.messages, status.bytes, status.losses, status.left_out];
            for (counter, value) in counters.into_iter().zip(values) {
                counter.get_or_create(&labels).inner().store(value, Ordering::Relaxed);
            }
        }
    }
}

/// The agent's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    flows: Family<FlowLabels, Counter>,
    drops: Family<ReasonLabels, Counter>,
    addresses: Family<AddressLabels, Gauge>,
    sessions: Family<PeerLabels, Gauge>,
    routes: Family<RouteLabels, Gauge>,
    kernel_routes: Family<StateLabels, Gauge>,
    stations: StationMetrics,
    endpoints: Gauge,
    connections: Gauge,
    rules: Gauge,
    problems: Gauge,
    connected: Gauge,
    revision: Gauge,
    apply_seconds: Histogram,
    pub(crate) attach_seconds: Histogram,
    pub(crate) detach_seconds: Histogram,
    pub(crate) attach_failures: Counter,
    lost: Counter,
}

impl Metrics {
    /// All metrics, at zero.
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("isthmus")),
            flows: Family::default(),
            drops: Family::default(),
            addresses: Family::default(),
            sessions: Family::default(),
            routes: Family::default(),
            kernel_routes: Family::default(),
            stations: StationMetrics::default(),
            endpoints: Gauge::default(),
            connections: Gauge::default(),
            rules: Gauge::default(),
            problems: Gauge::default(),
            connected: Gauge::default(),
            revision: Gauge::default(),
            apply_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
            attach_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
            detach_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
            attach_failures: Counter::default(),
            lost: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = lock(&self.registry);
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the agent", build);
        registry.register("flows", "Sampled verdicts", self.flows.clone());
        registry.register("drops", "Packets that were dropped", self.drops.clone());
        registry.register("ipam_addresses", "Addresses of this node's blocks", self.addresses.clone());
        registry.register(
            "bgp_session_up",
            "Whether the session with a neighbour is up",
            self.sessions.clone(),
        );
        registry.register("bgp_routes", "Routes that a neighbour sent", self.routes.clone());
        registry.register("bgp_kernel_routes", "Routes of BGP in the kernel", self.kernel_routes.clone());
        self.stations.register(&mut registry);
        registry.register("endpoints", "Endpoints on this node", self.endpoints.clone());
        registry.register("connections", "Connections tracked", self.connections.clone());
        registry.register("policy_rules", "Rules loaded", self.rules.clone());
        registry.register("problems", "Things that a person should look at", self.problems.clone());
        registry.register(
            "server_connected",
            "Whether the stream to the server is up",
            self.connected.clone(),
        );
        registry.register("policy_revision", "Revision in force", self.revision.clone());
        let text = "Time from a change that arrived to its being in force";
        registry.register("policy_apply_seconds", text, self.apply_seconds.clone());
        registry.register("attach_seconds", "Time of an attach in the agent", self.attach_seconds.clone());
        registry.register("detach_seconds", "Time of a detach in the agent", self.detach_seconds.clone());
        registry.register("attach_failures", "Attaches that failed", self.attach_failures.clone());
        registry.register(
            "flow_events_lost",
            "Verdicts that did not fit the ring or a queue",
            self.lost.clone(),
        );
    }

    /// Something was brought into force.
    pub(crate) fn applied(&self, took: Duration) {
        self.apply_seconds.observe(took.as_secs_f64());
    }

    /// A revision is in force.
    pub(crate) fn revision_in_force(&self, revision: u64) {
        self.revision.set(revision as i64);
    }

    /// A sampled verdict.
    pub(crate) fn flow(&self, allowed: bool, reason: &'static str) {
        let verdict = if allowed { "allowed" } else { "denied" };
        self.flows.get_or_create(&FlowLabels { verdict, reason }).inc();
    }

    /// Verdicts that were lost, in all.
    pub(crate) fn lost(&self, total: u64) {
        self.lost.inner().store(total, Ordering::Relaxed);
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self, agent: &Agent) -> String {
        self.collect(agent);
        let mut text = String::new();
        // Writing into a text cannot fail.
        let _ = encode(&mut text, &lock(&self.registry));
        text
    }

    fn collect(&self, agent: &Agent) {
        self.endpoints.set(agent.attachments().len() as i64);
        self.connections.set(agent.connections.load(Ordering::Relaxed) as i64);
        self.rules.set(agent.kernel.rules() as i64);
        self.problems.set(agent.problem_texts().len() as i64);
        self.connected.set(i64::from(agent.link.is_up()));
        self.lost(agent.flows.lost());
        for (reason, packets) in agent.kernel.counters().unwrap_or_default() {
            if denies(reason) {
                self.drops.get_or_create(&ReasonLabels { reason }).inner().store(packets, Ordering::Relaxed);
            }
        }
        self.collect_bgp(agent);
        self.addresses.clear();
        agent.addresses.read(|ipam| {
            for block in ipam.blocks() {
                let gauge = |state| {
                    let labels = AddressLabels { cluster: block.cluster().to_string(), state };
                    self.addresses.get_or_create_owned(&labels)
                };
                gauge("used").inc_by(block.allocations().count() as i64);
                gauge("free").inc_by(i64::try_from(block.free()).unwrap_or(i64::MAX));
            }
        });
    }

    fn collect_bgp(&self, agent: &Agent) {
        let seen = agent.bgp.seen();
        self.sessions.clear();
        self.routes.clear();
        self.kernel_routes.clear();
        self.stations.collect(&seen.stations);
        for session in seen.sessions {
            let labels = PeerLabels { peer: session.peer.clone() };
            self.sessions.get_or_create(&labels).set(i64::from(session.is_up));
            for (state, routes) in [("received", session.received), ("accepted", session.accepted)] {
                let labels = RouteLabels { peer: session.peer.clone(), state };
                self.routes.get_or_create(&labels).inc_by(i64::try_from(routes).unwrap_or(i64::MAX));
            }
        }
        if let Some(kernel) = seen.kernel {
            let missing = kernel.problems.iter().map(|problem| problem.routes).sum();
            let states = [("installed", kernel.installed), ("stale", kernel.stale), ("missing", missing)];
            for (state, routes) in states {
                self.kernel_routes.get_or_create(&StateLabels { state }).set(routes as i64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_speaker::{config::StationSettings, view::StationStatus};

    fn station(last: u8, messages: u64) -> StationView {
        let settings = StationSettings {
            policy: isthmus_speaker::config::MonitoringPolicy::PrePolicy,
            sent: isthmus_speaker::config::SentPolicy::None,
            statistics: None,
            sys_name: None,
            sys_descr: None,
        };
        let status =
            StationStatus { is_up: true, messages, bytes: 512, losses: 2, ..StationStatus::default() };
        StationView { address: ([192, 0, 2, last], 11_019).into(), settings, status }
    }

    #[test]
    fn stations_are_counted_for_as_long_as_they_are_there() {
        let (mut registry, metrics) = (Registry::with_prefix("isthmus"), StationMetrics::default());
        metrics.register(&mut registry);
        metrics.collect(&[station(1, 7), station(2, 8)]);
        metrics.collect(&[station(2, 9)]);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "isthmus_bgp_station_up{station=\"192.0.2.2:11019\"} 1",
            "isthmus_bgp_station_messages_total{station=\"192.0.2.2:11019\"} 9",
            "isthmus_bgp_station_bytes_total{station=\"192.0.2.2:11019\"} 512",
            "isthmus_bgp_station_losses_total{station=\"192.0.2.2:11019\"} 2",
            "isthmus_bgp_station_routes_left_out_total{station=\"192.0.2.2:11019\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("192.0.2.1:"), "{text}");
    }
}
