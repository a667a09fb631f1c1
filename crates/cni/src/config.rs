//! The configuration on standard input.
//!
//! It is read in two steps. [`Base`] is what every command needs and what DEL must get by with; [`Details`] is the rest,
//! read for ADD alone, so that a fault in it can never keep a container from being removed.
//!
//! Runtimes written in Go send the keys inside `runtimeConfig` in two spellings (`hostPort`, `HostPort`), because Go
//! reads them without regard to case. So do we: see [`folded`].

use crate::{
    environment::Environment,
    error::{CniError, Code},
    network::Dns,
    version::Version,
};
use isthmus_api::adapter::{PortMapping, SOCKET};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the agent may take, unless the configuration says otherwise. The kubelet gives a pod 4 minutes.
const TIMEOUT_SECONDS: u64 = 30;
/// Longest that the configuration may let the agent take.
const TIMEOUT_SECONDS_MAX: u64 = 600;

/// What every command needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Name of the network: part of what an attachment is known by.
    pub network: String,
    /// Cluster; empty: the node's only one.
    pub cluster: String,
    /// The agent's socket.
    pub socket: PathBuf,
    /// How long it may take.
    pub timeout: Duration,
}

/// What an ADD asks for beyond a plain attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Addresses that are wanted, without repetitions.
    pub addresses: Vec<IpAddr>,
    /// MAC address that is wanted.
    pub mac: Option<String>,
    /// Ports of the node that lead into the container.
    pub port_mappings: Vec<PortMapping>,
    /// What the runtime knows of the container, other than `CNI_ARGS`: annotations, `args.cni.labels`, Mesos's labels.
    pub metadata: Metadata,
    /// Name servers for the container, passed on in the result.
    pub dns: Dns,
}

/// Words about the container, by where they came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// `args.cni.labels`.
    pub labels: BTreeMap<String, String>,
    /// Labels of Mesos's network info; absent where Mesos is not the caller.
    pub mesos: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawVersion {
    #[serde(rename = "cniVersion", default)]
    version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBase {
    name: Option<String>,
    cluster: Option<String>,
    socket: Option<PathBuf>,
    timeout_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDetails {
    runtime_config: Option<RawRuntime>,
    args: Option<RawArgs>,
    dns: Option<Value>,
    ipam: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRuntime {
    port_mappings: Option<Vec<Value>>,
    ips: Option<Vec<String>>,
    mac: Option<String>,
    dns: Option<Value>,
    /// containerd and CRI-O send them if the configuration declares this capability.
    #[serde(rename = "io.kubernetes.cri.pod-annotations")]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct RawArgs {
    cni: Option<RawCniArgs>,
    #[serde(rename = "org.apache.mesos")]
    mesos: Option<RawMesos>,
}

#[derive(Default, Deserialize)]
struct RawCniArgs {
    ips: Option<Vec<String>>,
    mac: Option<String>,
    labels: Option<Vec<RawLabel>>,
}

#[derive(Default, Deserialize)]
struct RawMesos {
    network_info: Option<RawNetworkInfo>,
}

/// `NetworkInfo` of mesos.proto, as JSON.
#[derive(Default, Deserialize)]
struct RawNetworkInfo {
    ip_addresses: Option<Vec<RawMesosAddress>>,
    labels: Option<RawMesosLabels>,
    port_mappings: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct RawMesosAddress {
    ip_address: Option<String>,
}

#[derive(Deserialize)]
struct RawMesosLabels {
    labels: Option<Vec<RawLabel>>,
}

#[derive(Deserialize)]
struct RawLabel {
    key: String,
    /// A Mesos label may have none.
    value: Option<String>,
}

/// Keys after [`folded`].
#[derive(Deserialize)]
struct RawPortMapping {
    #[serde(alias = "host_port")]
    hostport: Option<i64>,
    #[serde(alias = "container_port")]
    containerport: Option<i64>,
    protocol: Option<String>,
    hostip: Option<String>,
}

/// The version that the configuration is written in; as [`read_version`] but for the VERSION command, which answers any.
pub fn version_text(input: &[u8]) -> Result<Option<String>, CniError> {
    if input.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    Ok(decode::<RawVersion>(input)?.version.filter(|text| !text.is_empty()))
}

/// The version that the configuration is written in. A missing one means 0.1.0.
pub fn read_version(input: &[u8]) -> Result<Version, CniError> {
    if input.iter().all(u8::is_ascii_whitespace) {
        let message = "standard input is empty: it must carry the network's configuration";
        return Err(CniError::new(Code::Decode, message, "the runtime that calls the plugin must send it"));
    }
    let Some(text) = version_text(input)? else { return Ok(Version::V010) };
    Version::parse(&text).ok_or_else(|| {
        let spoken: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
        let message = format!("cniVersion {text:?} is not spoken by this plugin");
        CniError::new(
            Code::Version,
            message,
            format!("write one of {} into the configuration", spoken.join(", ")),
        )
    })
}

impl Base {
    /// Reads what every command needs.
    pub fn read(input: &[u8]) -> Result<Self, CniError> {
        let raw: RawBase = decode(input)?;
        let seconds = raw.timeout_seconds.unwrap_or(TIMEOUT_SECONDS);
        if seconds == 0 || seconds > TIMEOUT_SECONDS_MAX {
            let message = format!("timeoutSeconds is {seconds}: it must be from 1 to {TIMEOUT_SECONDS_MAX}");
            return Err(config(message, "correct the CNI configuration file"));
        }
        Ok(Self {
            network: network_name(raw.name.unwrap_or_default())?,
            cluster: raw.cluster.unwrap_or_default(),
            socket: raw.socket.filter(|path| path != Path::new("")).unwrap_or_else(|| PathBuf::from(SOCKET)),
            timeout: Duration::from_secs(seconds),
        })
    }

    /// What attachments of this network are known by, beside container and interface.
    pub fn runtime(&self) -> String {
        format!("cni:{}", self.network)
    }
}

impl Details {
    /// Reads what an ADD asks for. `args` beats `CNI_ARGS`, and what the runtime was told at run time beats both.
    pub fn read(input: &[u8], environment: &Environment) -> Result<Self, CniError> {
        let raw: RawDetails = decode(input)?;
        refuse_ipam(raw.ipam.as_ref())?;
        let cni_args = environment.args()?;
        let runtime = raw.runtime_config.unwrap_or_default();
        let args = raw.args.unwrap_or_default();
        let cni = args.cni.unwrap_or_default();
        let mesos = args.mesos.and_then(|mesos| mesos.network_info);
        let (mesos_ips, mesos_ports, mesos_labels) = mesos.map_or((None, None, None), RawNetworkInfo::take);
        let asked = [runtime.ips, cni.ips, mesos_ips, cni_args.get("IP").map(|ip| vec![(*ip).to_owned()])];
        let asked = asked.into_iter().flatten().find(|ips| !ips.is_empty()).unwrap_or_default();
        let macs = [runtime.mac, cni.mac, cni_args.get("MAC").map(|mac| (*mac).to_owned())];
        let mac = macs.into_iter().flatten().find(|mac| !mac.is_empty());
        let mut ports = runtime.port_mappings.unwrap_or_default();
        ports.extend(mesos_ports.unwrap_or_default());
        let dns = [runtime.dns, raw.dns].into_iter().flatten().find(|dns| !dns.is_null());
        Ok(Self {
            addresses: addresses(&asked)?,
            mac: mac.map(|mac| mac_address(&mac)).transpose()?,
            port_mappings: port_mappings(ports)?,
            metadata: Metadata {
                annotations: runtime.annotations.unwrap_or_default(),
                labels: cni.labels.map(labels).unwrap_or_default(),
                mesos: mesos_labels,
            },
            dns: dns.map_or_else(|| Ok(Dns::default()), |dns| Dns::read(&dns))?,
        })
    }
}

impl RawNetworkInfo {
    #[expect(clippy::type_complexity, reason = "three fields, taken apart at once by the only caller")]
    fn take(self) -> (Option<Vec<String>>, Option<Vec<Value>>, Option<BTreeMap<String, String>>) {
        let ips =
            self.ip_addresses.unwrap_or_default().into_iter().filter_map(|item| item.ip_address).collect();
        let found = self.labels.and_then(|labels| labels.labels).map(labels).unwrap_or_default();
        (Some(ips), self.port_mappings, Some(found))
    }
}

/// The `valid` list of a GC: container id and interface of each attachment that stays.
///
/// # Errors
///
/// The key is missing: to take that for an empty list would detach every container of the network. A `null` is an empty
/// list, as Go writes one.
pub fn valid_attachments(input: &[u8]) -> Result<Vec<(String, String)>, CniError> {
    #[derive(Deserialize)]
    struct Attachment {
        #[serde(rename = "containerID")]
        container: String,
        ifname: String,
    }
    let document: BTreeMap<String, Value> = decode(input)?;
    // libcni also sends the key that an early text of the specification had.
    let list = ["cni.dev/valid-attachments", "cni.dev/attachments"].iter().find_map(|key| document.get(*key));
    let Some(list) = list else {
        let message = "GC came without cni.dev/valid-attachments: nothing was removed";
        return Err(config(message, "the runtime must list the attachments that stay"));
    };
    let list: Option<Vec<Attachment>> = from_value("cni.dev/valid-attachments", list.clone())?;
    Ok(list.unwrap_or_default().into_iter().map(|item| (item.container, item.ifname)).collect())
}

/// The `prevResult` of a chain, if there is one.
pub fn previous_result(input: &[u8]) -> Result<Option<Value>, CniError> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(rename = "prevResult")]
        previous: Option<Value>,
    }
    Ok(decode::<Raw>(input)?.previous)
}

/// `value` with the keys of its objects in lower case.
pub fn folded(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), folded(value))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(folded).collect()),
        other => other,
    }
}

/// `value` without the keys of its objects that are `null`, which is how Go writes an empty list.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_key, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Reads `value`, the value of `key`.
pub fn from_value<T: DeserializeOwned>(key: &str, value: Value) -> Result<T, CniError> {
    serde_json::from_value(value).map_err(|why| {
        CniError::new(Code::Decode, format!("{key} in the configuration cannot be read: {why}"), "")
    })
}

fn decode<T: DeserializeOwned>(input: &[u8]) -> Result<T, CniError> {
    let refuse = |why: &dyn std::fmt::Display| {
        let message = format!("the configuration on standard input cannot be read: {why}");
        CniError::new(Code::Decode, message, "correct the CNI configuration file")
    };
    // serde would take a list for a struct.
    if input.trim_ascii_start().first() != Some(&b'{') {
        return Err(refuse(&"it is no JSON object"));
    }
    serde_json::from_slice(input).map_err(|why| refuse(&why))
}

fn config(message: impl Into<String>, details: &str) -> CniError {
    CniError::new(Code::Config, message, details)
}

fn network_name(name: String) -> Result<String, CniError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() {
        return Err(config(
            "the configuration has no name",
            "give the network a name in the CNI configuration file",
        ));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(good) {
        let message =
            format!("the network's name is {name:?}: only letters, digits, '_', '.' and '-' can be in it");
        return Err(config(message, "correct the CNI configuration file"));
    }
    Ok(name)
}

/// Isthmus gives the addresses itself; another source of addresses beside it would be a lie to whoever wrote it.
fn refuse_ipam(ipam: Option<&Value>) -> Result<(), CniError> {
    let kind = ipam.and_then(|ipam| ipam.get("type")).and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() || kind == "isthmus" {
        return Ok(());
    }
    let message =
        format!("the configuration asks for addresses from {kind:?} (ipam), but Isthmus gives them itself");
    Err(config(message, "remove ipam, and make a pool: isthmus pool create"))
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>, CniError> {
    let mut addresses = Vec::new();
    for text in texts {
        let host = text.split_once('/').map_or(text.as_str(), |(host, _length)| host);
        let address: IpAddr = host.trim().parse().map_err(|_source| {
            config(format!("the address {text:?} that is asked for is none"), "ask for one such as 10.64.0.9")
        })?;
        // podman network reload names the same address as asked for and as given before.
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn mac_address(text: &str) -> Result<String, CniError> {
    let refuse = |why: &str| config(format!("the MAC address {text:?} that is asked for {why}"), "");
    let parts: Vec<_> = text.split([':', '-']).collect();
    let octet = |part: &&str| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None };
    let octets: Option<Vec<u8>> = parts.iter().map(octet).collect();
    let Some(octets) = octets.filter(|octets| octets.len() == 6) else {
        return Err(refuse("is none: write six pairs of hex digits, such as 02:11:22:33:44:55"));
    };
    if octets[0] & 1 == 1 || octets.iter().all(|octet| *octet == 0) {
        return Err(refuse("is not one of a single interface: the lowest bit of its first byte must be 0"));
    }
    let words: Vec<_> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    Ok(words.join(":"))
}

/// Host port 0 asks for no mapping, as in Kubernetes: a CNI result could not tell anybody which port was chosen.
fn port_mappings(items: Vec<Value>) -> Result<Vec<PortMapping>, CniError> {
    let mut mappings = Vec::new();
    for item in items {
        let raw: RawPortMapping = from_value("portMappings", folded(item))?;
        let host_port = port("hostPort", raw.hostport.unwrap_or_default(), 0)?;
        let container_port = port("containerPort", raw.containerport.unwrap_or_default(), 1)?;
        let protocol =
            raw.protocol.filter(|word| !word.is_empty()).map_or("tcp".into(), |word| word.to_lowercase());
        if !matches!(protocol.as_str(), "tcp" | "udp") {
            let message = format!("portMappings has protocol {protocol:?} for port {container_port}");
            return Err(CniError::new(Code::Unsupported, message, "only tcp and udp ports can be mapped"));
        }
        let host_ip = raw.hostip.filter(|text| !text.is_empty()).map(|text| {
            let refuse =
                |_source| config(format!("portMappings has hostIP {text:?}, which is no address"), "");
            text.parse::<IpAddr>().map_err(refuse)
        });
        let host_ip = host_ip.transpose()?.filter(|address| !address.is_unspecified());
        if host_port != 0 {
            mappings.push(PortMapping { host_ip, host_port, container_port, protocol });
        }
    }
    Ok(mappings)
}

fn port(key: &str, number: i64, lowest: u16) -> Result<u16, CniError> {
    u16::try_from(number).ok().filter(|port| *port >= lowest).ok_or_else(|| {
        config(format!("portMappings has {key} {number}: it must be from {lowest} to 65535"), "")
    })
}

fn labels(items: Vec<RawLabel>) -> BTreeMap<String, String> {
    items.into_iter().map(|label| (label.key, label.value.unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests;
