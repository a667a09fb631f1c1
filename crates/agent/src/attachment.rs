//! One container on the network, as the agent knows it.

use isthmus_api::{
    adapter::{Attach, Attached, AttachmentKey, Failure, FailureKind, PortMapping},
    stream,
};
use isthmus_core::{ClusterName, Identity};
use isthmus_dataplane::model::{GATEWAY, GATEWAY_MAC, MappedPort};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

/// Longest part of a key.
const KEY_PART_BYTES_MAX: usize = 256;

/// One container on the network.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    /// As it was asked for.
    pub(crate) request: Attach,
    /// Its cluster.
    pub(crate) cluster: ClusterName,
    /// Address inside.
    pub(crate) address: IpAddr,
    /// What it is.
    pub(crate) identity: Identity,
    /// UUID of the workload.
    pub(crate) uuid: String,
    /// Whether the server said so, or only the agent's memory.
    pub(crate) confirmed: bool,
    /// Host side of the pair.
    pub(crate) host_interface: String,
    /// MAC address inside.
    pub(crate) mac: [u8; 6],
    /// Inode of its network namespace.
    pub(crate) netns: u64,
    /// Port mappings with their ports of the node.
    pub(crate) ports: Vec<PortMapping>,
    /// Seconds since 1970.
    pub(crate) created_unix: u64,
    /// How it is now.
    pub(crate) state: State,
}

/// How an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Being made.
    Attaching,
    /// As it was made.
    Whole,
    /// Its link is not as it was made.
    Broken {
        /// When its network namespace was first seen gone.
        gone_since: Option<Instant>,
    },
}

/// What is kept in the journal beside the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Detail {
    request: Attach,
    identity: u32,
    uuid: String,
    confirmed: bool,
    netns: u64,
    ports: Vec<PortMapping>,
    created_unix: u64,
}

impl Detail {
    /// The bytes for the journal.
    pub(crate) fn of(attachment: &Attachment) -> Vec<u8> {
        let detail = Self {
            request: attachment.request.clone(),
            identity: attachment.identity.number(),
            uuid: attachment.uuid.clone(),
            confirmed: attachment.confirmed,
            netns: attachment.netns,
            ports: attachment.ports.clone(),
            created_unix: attachment.created_unix,
        };
        // Texts, numbers and lists always have a JSON form.
        serde_json::to_vec(&detail).unwrap_or_default()
    }

    /// The attachment that bytes of the journal stand for.
    pub(crate) fn attachment(
        bytes: &[u8],
        cluster: ClusterName,
        address: IpAddr,
        host_interface: impl FnOnce(&AttachmentKey) -> String,
    ) -> Option<Attachment> {
        let detail: Self = serde_json::from_slice(bytes).ok()?;
        Some(Attachment {
            cluster,
            address,
            identity: Identity::new(detail.identity).ok()?,
            uuid: detail.uuid,
            confirmed: detail.confirmed,
            host_interface: host_interface(&detail.request.key),
            mac: [0; 6],
            netns: detail.netns,
            ports: detail.ports,
            created_unix: detail.created_unix,
            state: State::Broken { gone_since: None },
            request: detail.request,
        })
    }
}

impl Attachment {
    /// What the adapter is told.
    pub(crate) fn answer(&self, mtu: u32, node_address: IpAddr) -> Attached {
        Attached {
            host_interface: self.host_interface.clone(),
            host_mac: mac_text(GATEWAY_MAC),
            mac: mac_text(self.mac),
            addresses: vec![self.address],
            gateway: GATEWAY.into(),
            mtu,
            workload: self.uuid.clone(),
            node_address,
            port_mappings: self.ports.clone(),
        }
    }

    /// What the server is told.
    pub(crate) fn endpoint(&self) -> stream::Endpoint {
        stream::Endpoint {
            id: id(&self.request.key),
            cluster: self.cluster.to_string(),
            identity: self.identity.number(),
            workload: self.uuid.clone(),
            addresses: vec![self.address.to_string()],
            mac: mac_text(self.mac),
            host_interface: self.host_interface.clone(),
            labels: self.request.workload.labels.clone().into_iter().collect(),
            instance: self.request.instance.clone(),
            created_unix: self.created_unix,
        }
    }

    /// Its port mappings as the kernel takes them.
    pub(crate) fn mapped_ports(&self) -> impl Iterator<Item = MappedPort> {
        self.ports.iter().map(|mapping| MappedPort {
            host_address: mapping.host_ip,
            host_port: mapping.host_port,
            protocol: if mapping.protocol == "udp" { 17 } else { 6 },
            target: SocketAddr::new(self.address, mapping.container_port),
        })
    }
}

/// `runtime/container/interface`: what an attachment is known by everywhere.
pub(crate) fn id(key: &AttachmentKey) -> String {
    format!("{}/{}/{}", key.runtime, key.container, key.interface)
}

/// Checks a key at the border.
pub(crate) fn check_key(key: &AttachmentKey) -> Result<(), Failure> {
    for (part, text) in
        [("runtime", &key.runtime), ("container", &key.container), ("interface", &key.interface)]
    {
        let slash = part != "runtime" && text.contains('/');
        if text.is_empty() || text.len() > KEY_PART_BYTES_MAX || slash || text.contains('\0') {
            let message = format!("the {part} of an attachment is \"{text}\"");
            let help = format!("use 1 to {KEY_PART_BYTES_MAX} bytes, without '/'");
            return Err(Failure { kind: FailureKind::Invalid, message, help });
        }
    }
    Ok(())
}

/// Whether the server is told of an attachment: not before its container has it.
pub(crate) fn is_announced(attachment: &Attachment) -> bool {
    attachment.state != State::Attaching
}

/// Six bytes as people write them.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads a unicast MAC address as people write it.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let unicast = mac[0] & 1 == 0 && mac != [0; 6];
    (parts.next().is_none() && unicast).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_as_they_are_written() {
        assert_eq!(parse_mac("02:00:0a:40:00:01").map(mac_text).as_deref(), Some("02:00:0a:40:00:01"));
        for bad in [
            "",
            "02:00:0a:40:00",
            "02:00:0a:40:00:01:02",
            "01:00:5e:00:00:01",
            "0:0:0:0:0:1",
            "zz:00:00:00:00:01",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }

    #[test]
    fn keys_that_could_be_mistaken_for_others_are_refused() {
        let key = |container: &str, interface: &str| AttachmentKey {
            runtime: "cni:a/b".to_owned(),
            container: container.to_owned(),
            interface: interface.to_owned(),
        };
        assert!(check_key(&key("c1", "eth0")).is_ok());
        assert!(check_key(&key("", "eth0")).is_err());
        assert!(check_key(&key("c/1", "eth0")).is_err());
        assert!(check_key(&key("c1", &"e".repeat(300))).is_err());
    }
}
