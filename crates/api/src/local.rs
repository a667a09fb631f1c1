//! What the agent tells people's tools on its socket (`/run/isthmus/agent.sock`), and the server when it asks.
//!
//! HTTP on a Unix socket: `GET /status`, `GET /endpoints`, `GET /ipam`, `GET /tables/IDENTITY`,
//! `GET /why?from=&to=&protocol=&port=`, `GET /flows` (a line of JSON for each event, until the reader leaves),
//! `GET /counters`, `GET /metrics`.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// One verdict on one packet, or on the first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Milliseconds since 1970.
    pub time_unix_ms: u64,
    /// Where it was decided.
    pub node: String,
    /// `allowed` or `denied`.
    pub verdict: String,
    /// A word of the closed list of reasons.
    pub reason: String,
    /// Sender's identity, six hex digits.
    pub from_identity: String,
    /// Sender's name: a workload's full name, or the word of a reserved identity; empty while it is not known.
    pub from: String,
    /// Receiver's identity.
    pub to_identity: String,
    /// Receiver's name.
    pub to: String,
    /// Source address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub source: IpAddr,
    /// Destination address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port, or ICMP type.
    pub destination_port: u16,
    /// Number of the deciding rule; 0 where none decided.
    pub rule: u32,
}

/// `GET /status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Name of the node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Whether the stream to the server is up.
    pub connected: bool,
    /// Revision in force.
    pub revision: u64,
    /// `tcx` or `clsact`.
    pub attach_mode: String,
    /// Endpoints.
    pub endpoints: u64,
    /// Connections tracked.
    pub connections: u64,
    /// Rules loaded.
    pub rules: u64,
    /// Seconds since start.
    pub uptime_s: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// Programs of others on our hooks: `interface: name`.
    pub foreign_programs: Vec<String>,
}

/// `GET /endpoints`: one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalEndpoint {
    /// runtime/container/interface
    pub id: String,
    /// Full name of the workload.
    pub workload: String,
    /// Six hex digits.
    pub identity: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Host side of the veth pair.
    pub host_interface: String,
    /// What people call the instance.
    pub instance: String,
}

/// `GET /ipam`: one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalBlock {
    /// The block.
    pub cidr: String,
    /// Its cluster.
    pub cluster: String,
    /// Addresses in use, with the endpoint's id.
    pub allocations: BTreeMap<IpAddr, String>,
    /// Addresses that could be given out now.
    pub free: u64,
}

/// `GET /why`: how the loaded tables judge a new connection to an endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalWhy {
    /// Whether a table for the destination is loaded here.
    pub known: bool,
    /// The verdict.
    pub allowed: bool,
    /// A word of the closed list of reasons.
    pub reason: String,
    /// Number of the deciding rule; 0 where the default decided.
    pub rule: u32,
    /// Rules in the table.
    pub rules: u64,
    /// Packets from this source that the node denied, since its start.
    pub denied_packets: u64,
}

/// `GET /tables/IDENTITY`: the rules towards an identity of this node, as the server sent them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalTable {
    /// Six hex digits.
    pub identity: String,
    /// Full name of the workload; empty while it is not known.
    pub name: String,
    /// Whether the dataplane has a table of this identity.
    pub loaded: bool,
    /// `open` or `closed`: where no rule decides.
    pub default: String,
    /// `drop` or `reject`: how a denied packet is answered.
    pub deny: String,
    /// The rules.
    pub rules: Vec<LocalRule>,
}

/// One rule of a [`LocalTable`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalRule {
    /// Number that flows and counters name.
    pub number: u32,
    /// Sender's identity, six hex digits; `000000` is everybody.
    pub peer: String,
    /// Sender's name; empty while it is not known.
    pub peer_name: String,
    /// `tcp:8080`, `udp:8000-8010`, `icmp`, `any`.
    pub port: String,
    /// Whether it denies.
    pub deny: bool,
    /// The higher one wins; of equals the denying one.
    pub precedence: u16,
}
