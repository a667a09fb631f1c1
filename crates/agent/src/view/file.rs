//! The view's file: a magic, a check sum, and length-delimited messages.

use super::{MAGIC, Resolved, ResolvedKey, Value, View};
use isthmus_api::stream::{Upsert, VerdictTable, upsert};
use isthmus_core::Identity;
use prost::Message;
use std::collections::BTreeMap;

/// Why a file is not a view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ViewFileError {
    /// Another file.
    #[error("it does not begin like an Isthmus view of version 1")]
    Foreign,
    /// Its check sum is wrong, or its contents cannot be read.
    #[error("it is damaged")]
    Damaged,
}

/// The file's messages. Only this file reads or writes them.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(uint32, tag = "2")]
    node_number: u32,
    #[prost(uint64, tag = "3")]
    entries: u64,
    #[prost(uint64, tag = "4")]
    resolved: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredTable {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    revision: u64,
    /// An `Upsert`, or empty and `table` is set.
    #[prost(bytes = "vec", tag = "3")]
    upsert: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    table: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredResolved {
    #[prost(string, tag = "1")]
    cluster: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
    #[prost(uint32, tag = "4")]
    identity: u32,
    #[prost(string, tag = "5")]
    uuid: String,
    #[prost(string, tag = "6")]
    name: String,
    #[prost(uint64, tag = "7")]
    used_unix: u64,
}

impl View {
    /// The view as a file.
    pub(crate) fn to_file(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let head = Head {
            revision: self.revision,
            node_number: self.node_number,
            entries: self.entries.len() as u64,
            resolved: self.resolved.len() as u64,
        };
        write(&head, &mut body);
        for (key, (revision, value)) in &self.entries {
            write(&stored(key, *revision, value), &mut body);
        }
        for (key, resolved) in &self.resolved {
            write(&stored_resolved(key, resolved), &mut body);
        }
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&sum(&body).to_le_bytes());
        file.extend_from_slice(&body);
        file
    }

    /// Reads a file.
    pub(crate) fn from_file(bytes: &[u8]) -> Result<Self, ViewFileError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(ViewFileError::Foreign)?;
        let (expected, body) = rest.split_first_chunk::<8>().ok_or(ViewFileError::Damaged)?;
        if sum(body) != u64::from_le_bytes(*expected) {
            return Err(ViewFileError::Damaged);
        }
        Self::from_body(body).ok_or(ViewFileError::Damaged)
    }

    fn from_body(mut body: &[u8]) -> Option<Self> {
        let head = Head::decode_length_delimited(&mut body).ok()?;
        let mut view = Self { revision: head.revision, node_number: head.node_number, ..Self::default() };
        for _ in 0..head.entries {
            let stored = StoredTable::decode_length_delimited(&mut body).ok()?;
            if stored.upsert.is_empty() {
                VerdictTable::decode(&*stored.table).ok()?;
                view.entries.insert(stored.key, (stored.revision, Value::Table(stored.table.into())));
            } else {
                view.upsert(Upsert::decode(&*stored.upsert).ok()?).ok()?;
            }
        }
        for _ in 0..head.resolved {
            let (key, resolved) = resolved(StoredResolved::decode_length_delimited(&mut body).ok()?)?;
            view.resolved.insert(key, resolved);
        }
        body.is_empty().then_some(view)
    }
}

fn write(message: &impl Message, out: &mut Vec<u8>) {
    // A vector has room for whatever a message needs.
    let _ = message.encode_length_delimited(out);
}

fn stored(key: &str, revision: u64, value: &Value) -> StoredTable {
    let value = match value {
        Value::Table(table) => {
            return StoredTable { key: key.to_owned(), revision, upsert: Vec::new(), table: table.to_vec() };
        }
        Value::Cluster(cluster) => upsert::Value::Cluster(cluster.clone()),
        Value::Pool(pool) => upsert::Value::Pool(pool.clone()),
        Value::Node(node) => upsert::Value::Node(node.clone()),
        Value::Block(block) => upsert::Value::Block(block.clone()),
        Value::Workload(workload) => upsert::Value::Workload(workload.clone()),
        Value::Network(network) => upsert::Value::Network(network.clone()),
        Value::Bgp(bgp) => upsert::Value::Bgp(bgp.clone()),
        Value::BgpPeer(peer) => upsert::Value::BgpPeer((**peer).clone()),
        Value::Foreign(foreign) => upsert::Value::Foreign(foreign.clone()),
        Value::PeerAddress(peer) => upsert::Value::PeerAddress(peer.clone()),
    };
    let upsert = Upsert { key: key.to_owned(), revision, value: Some(value) };
    StoredTable { key: String::new(), revision: 0, upsert: upsert.encode_to_vec(), table: Vec::new() }
}

fn stored_resolved(key: &ResolvedKey, resolved: &Resolved) -> StoredResolved {
    StoredResolved {
        cluster: key.cluster.clone(),
        id: key.id.clone(),
        labels: key.labels.clone(),
        identity: resolved.identity.number(),
        uuid: resolved.uuid.clone(),
        name: resolved.name.clone(),
        used_unix: resolved.used_unix,
    }
}

fn resolved(stored: StoredResolved) -> Option<(ResolvedKey, Resolved)> {
    let identity = Identity::new(stored.identity).ok()?;
    let key = ResolvedKey { cluster: stored.cluster, id: stored.id, labels: stored.labels };
    Some((key, Resolved { identity, uuid: stored.uuid, name: stored.name, used_unix: stored.used_unix }))
}

/// FNV-1a: finds what a disk does by accident.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
