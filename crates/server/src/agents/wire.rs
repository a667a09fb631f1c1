//! Between the stream's messages and our words.

use crate::{
    kinds::{StoredEndpoint, StoredPool},
    registry::{NodeDraft, Resolved, WorkloadDraft},
    tables::Compiled,
    view::{View, ViewKey},
};
use isthmus_api::stream::{self, upsert::Value};
use isthmus_core::{ClusterName, DefaultVerdict, DenyAnswer, Identity, Labels, NodeName};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};
use uuid::Uuid;

/// Bytes of an endpoint's texts each: an interface's name, an instance's.
const TEXT_BYTES_MAX: usize = 512;
/// Addresses of an endpoint.
const ADDRESSES_MAX: usize = 8;

/// Why a message of an agent cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{field} \"{value}\" cannot be read: {why}")]
    Field { field: &'static str, value: String, why: String },
    #[error("{0} is missing")]
    Missing(&'static str),
}

fn field<T: std::str::FromStr>(field: &'static str, value: &str) -> Result<T, WireError>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|why: T::Err| WireError::Field {
        field,
        value: value.chars().take(80).collect(),
        why: why.to_string(),
    })
}

/// What an agent said first, in our words.
#[derive(Clone, Debug)]
pub(crate) struct HelloWords {
    pub(crate) node: NodeDraft,
    pub(crate) instance: String,
    pub(crate) scope: BTreeSet<Identity>,
}

/// Reads a hello, but not what it holds.
pub(crate) fn hello(hello: &stream::Hello) -> Result<HelloWords, WireError> {
    let name: NodeName = field("node", &hello.node)?;
    if hello.instance.is_empty() || hello.instance.len() > TEXT_BYTES_MAX {
        return Err(WireError::Missing("instance"));
    }
    let addresses = hello.addresses.iter().take(crate::registry::ADDRESSES_MAX);
    let addresses = addresses.map(|address| field("address", address)).collect::<Result<Vec<IpAddr>, _>>()?;
    let clusters = hello.clusters.iter().map(|name| field("cluster", name));
    let vxlan_port = u16::try_from(hello.vxlan_port).map_err(|why| WireError::Field {
        field: "vxlan_port",
        value: hello.vxlan_port.to_string(),
        why: why.to_string(),
    })?;
    Ok(HelloWords {
        node: NodeDraft {
            name,
            addresses,
            clusters: clusters.collect::<Result<Vec<ClusterName>, _>>()?,
            agent_version: hello.agent_version.chars().take(TEXT_BYTES_MAX).collect(),
            vxlan_port,
            mtu: hello.mtu,
        },
        instance: hello.instance.clone(),
        scope: scope(&hello.identities),
    })
}

/// Identities of workloads among numbers.
pub(crate) fn scope(numbers: &[u32]) -> BTreeSet<Identity> {
    numbers
        .iter()
        .filter_map(|number| Identity::new(*number).ok())
        .filter(|identity| identity.is_workload())
        .collect()
}

/// Reads an endpoint of a node.
pub(crate) fn endpoint(node: &NodeName, endpoint: &stream::Endpoint) -> Result<StoredEndpoint, WireError> {
    endpoint_id(&endpoint.id)?;
    let cluster: ClusterName = field("cluster", &endpoint.cluster)?;
    let workload: Uuid = field("workload", &endpoint.workload)?;
    let identity = Identity::new(endpoint.identity).map_err(|why| WireError::Field {
        field: "identity",
        value: endpoint.identity.to_string(),
        why: why.to_string(),
    })?;
    let addresses = endpoint.addresses.iter().take(ADDRESSES_MAX).map(|address| field("address", address));
    let short = |text: &str| text.chars().take(TEXT_BYTES_MAX).collect::<String>();
    Ok(StoredEndpoint {
        node: node.as_str().to_owned(),
        cluster: cluster.as_str().to_owned(),
        workload,
        identity: identity.number(),
        addresses: addresses.collect::<Result<_, _>>()?,
        mac: short(&endpoint.mac),
        host_interface: short(&endpoint.host_interface),
        instance: short(&endpoint.instance),
        labels: endpoint.labels.iter().map(|(name, value)| (short(name), short(value))).take(64).collect(),
        created_unix: endpoint.created_unix,
    })
}

/// Checks the id of an endpoint, which becomes part of a key.
pub(crate) fn endpoint_id(id: &str) -> Result<(), WireError> {
    if id.is_empty() {
        return Err(WireError::Missing("endpoint id"));
    }
    if id.len() > TEXT_BYTES_MAX || id.chars().any(char::is_control) {
        let why = format!("it has control characters or more than {TEXT_BYTES_MAX} bytes");
        return Err(WireError::Field { field: "endpoint id", value: id.chars().take(80).collect(), why });
    }
    Ok(())
}

/// Reads a request for a workload.
pub(crate) fn workload(request: &stream::ResolveWorkload) -> Result<WorkloadDraft, WireError> {
    Ok(WorkloadDraft {
        cluster: field("cluster", &request.cluster)?,
        id: request.id.clone(),
        group: request.group.clone(),
        app: request.app.clone(),
        labels: request.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    })
}

/// Writes a resolved workload.
pub(crate) fn resolved(resolved: &Resolved) -> stream::Workload {
    let name = resolved.workload.name(resolved.platform).map(|name| name.to_string());
    workload_message(
        resolved.identity,
        resolved.uuid,
        name.unwrap_or_default(),
        (&resolved.workload.cluster, &resolved.workload.id),
        &resolved.labels,
    )
}

/// The names of an identity; nothing for one that stands for nobody.
pub(crate) fn identity(view: &View, identity: Identity) -> Option<stream::Workload> {
    let held = view.live_identity(identity)?;
    let workload = &view.workloads.get(&held.workload)?.value;
    Some(workload_message(
        identity,
        held.workload,
        view.workload_text(held.workload),
        (&workload.cluster, &workload.id),
        &held.labels,
    ))
}

fn workload_message(
    identity: Identity,
    uuid: Uuid,
    name: String,
    (cluster, id): (&String, &String),
    labels: &Labels,
) -> stream::Workload {
    stream::Workload {
        identity: identity.number(),
        uuid: uuid.to_string(),
        name,
        cluster: cluster.clone(),
        id: id.clone(),
        labels: labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

/// The version of what a key holds, without making the message; `None` if the view does not have it.
pub(crate) fn version(view: &View, key: &ViewKey) -> Option<u64> {
    match key {
        ViewKey::Cluster(name) => view.clusters.get(name).map(|held| held.revision),
        ViewKey::Pool(cluster, name) => {
            let ours = |pool: &StoredPool| pool.cluster == *cluster && !view.is_external(cluster);
            view.pools.get(name).filter(|held| ours(&held.value)).map(|held| held.revision)
        }
        ViewKey::Node(name) => view.nodes.get(name).map(|held| held.revision),
        ViewKey::Block(block) => view.blocks.get(block).map(|held| held.revision),
        ViewKey::Table(identity) => view.tables.compiled(*identity).map(|compiled| compiled.version),
        ViewKey::Workload(identity) => workload_version(view, *identity),
        // The same whenever the address is the same identity's, wherever the endpoint is.
        ViewKey::PeerAddress(address) => {
            view.holder_of(*address).map(|(identity, _)| u64::from(identity.number()))
        }
        // What is a node's own has its version in the node's plan.
        ViewKey::Network | ViewKey::Bgp | ViewKey::BgpPeer(_) | ViewKey::Foreign(_) => None,
    }
}

fn workload_version(view: &View, identity: Identity) -> Option<u64> {
    let held = view.live_identity(identity)?;
    let workload = &view.workloads.get(&held.workload)?.value;
    let mut hasher = DefaultHasher::new();
    (held.workload, view.workload_text(held.workload), &workload.cluster, &workload.id).hash(&mut hasher);
    held.labels.hash(&mut hasher);
    Some(hasher.finish())
}

/// The message for a key.
pub(crate) fn upsert(view: &View, key: &ViewKey) -> Option<stream::Upsert> {
    let value = match key {
        ViewKey::Cluster(name) => {
            let held = &view.clusters.get(name)?.value;
            Value::Cluster(stream::Cluster {
                name: name.clone(),
                platform: held.platform().as_str().to_owned(),
                closed: held.default_verdict() == DefaultVerdict::Closed,
                reject: held.deny_answer() == DenyAnswer::Reject,
            })
        }
        ViewKey::Pool(cluster, name) => {
            let held = &view.pools.get(name)?.value;
            Value::Pool(stream::Pool {
                cluster: cluster.clone(),
                name: name.clone(),
                cidrs: held.cidrs.iter().map(ToString::to_string).collect(),
                block_len: u32::from(held.block_len),
            })
        }
        ViewKey::Node(name) => {
            let held = &view.nodes.get(name)?.value;
            Value::Node(stream::Node {
                name: name.clone(),
                number: held.number,
                addresses: held.addresses.iter().map(ToString::to_string).collect(),
            })
        }
        ViewKey::Block(block) => {
            let held = &view.blocks.get(block)?.value;
            Value::Block(block_message(held))
        }
        ViewKey::Table(identity) => Value::Table(table(&*view.tables.compiled(*identity)?)),
        ViewKey::Workload(number) => Value::Workload(identity(view, *number)?),
        ViewKey::PeerAddress(address) => Value::PeerAddress(stream::PeerAddress {
            address: address.to_string(),
            identity: view.holder_of(*address)?.0.number(),
        }),
        ViewKey::Network | ViewKey::Bgp | ViewKey::BgpPeer(_) | ViewKey::Foreign(_) => return None,
    };
    Some(stream::Upsert { key: key.to_string(), revision: version(view, key)?, value: Some(value) })
}

/// Writes a block.
pub(crate) fn block_message(block: &crate::kinds::StoredBlock) -> stream::Block {
    stream::Block {
        cidr: block.cidr.to_string(),
        cluster: block.cluster.clone(),
        pool: block.pool.clone(),
        node: block.node.clone(),
    }
}

fn table(compiled: &Compiled) -> stream::VerdictTable {
    let table = &compiled.table;
    let rule = |rule: &isthmus_policy::TableRule| stream::Rule {
        peer: rule.peer.number(),
        protocol: u32::from(rule.port.protocol().number()),
        first_port: u32::from(rule.port.ports().first()),
        last_port: u32::from(rule.port.ports().last()),
        deny: rule.deny,
        precedence: u32::from(rule.precedence),
        number: rule.number,
    };
    stream::VerdictTable {
        identity: table.identity.number(),
        closed: table.default == DefaultVerdict::Closed,
        reject: table.answer == DenyAnswer::Reject,
        rules: table.rules.iter().map(rule).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for text in [
            "cluster/red",
            "pool/red/red-1",
            "node/n1",
            "block/10.64.0.0/26",
            "table/00011f",
            "workload/010000",
            "network",
            "bgp",
            "bgp-peer/tor",
            "bgp-peer/node/n1",
            "foreign/192.168.128.0/17",
            "peer/10.64.0.2",
        ] {
            assert_eq!(text.parse::<ViewKey>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "cluster",
            "bgp/x",
            "pool/red",
            "block/red",
            "foreign/x",
            "peer/x",
            "table/xyz",
            "table/1000000",
        ] {
            assert!(text.parse::<ViewKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn reserved_numbers_are_no_scope() {
        assert_eq!(scope(&[0, 1, 2, 4, 255, 256, 0x00ff_ffff, 0x0100_0000]), scope(&[256]));
    }

    #[test]
    fn a_bad_endpoint_is_told_by_field() {
        let node: NodeName = "n1".parse().unwrap();
        let good = stream::Endpoint {
            id: "cni:net/c1/eth0".to_owned(),
            cluster: "red".to_owned(),
            identity: 256,
            workload: Uuid::nil().to_string(),
            addresses: vec!["10.64.0.1".to_owned()],
            ..stream::Endpoint::default()
        };
        assert!(endpoint(&node, &good).is_ok());
        let bad = [
            (stream::Endpoint { id: String::new(), ..good.clone() }, "endpoint id"),
            (stream::Endpoint { id: "a\u{0}".to_owned(), ..good.clone() }, "endpoint id"),
            (stream::Endpoint { cluster: "a/b".to_owned(), ..good.clone() }, "cluster"),
            (stream::Endpoint { workload: "x".to_owned(), ..good.clone() }, "workload"),
            (stream::Endpoint { identity: 1 << 24, ..good.clone() }, "identity"),
            (stream::Endpoint { addresses: vec!["x".to_owned()], ..good.clone() }, "address"),
        ];
        for (message, part) in bad {
            assert!(endpoint(&node, &message).unwrap_err().to_string().contains(part));
        }
    }
}
