//! The result of an ADD, in the form of the newest version, and its forms in the older ones.

use crate::{
    config::{folded, from_value, without_nulls},
    error::CniError,
    version::Version,
};
use isthmus_api::adapter::Attached;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// A result, ours or that of the plugin before us in a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Interfaces, on both sides.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Address>,
    /// Routes inside.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Dns,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU; from 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The namespace that it is in; empty on the host's side.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Of other plugins; from 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<String>,
    /// Of other plugins; from 1.1.0.
    #[serde(rename = "pciID", skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
}

/// One address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `4` or `6`; until 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// With its prefix length.
    pub address: String,
    /// Next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Index into the interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
}

/// One route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Destination, with its prefix length.
    pub dst: String,
    /// Next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
    /// `mtu`, `advmss`, `priority`, `table`, `scope` of other plugins; from 1.1.0.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Name servers for the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses.
    #[serde(alias = "servers", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Local domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains to search.
    #[serde(alias = "searches", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// `ip4` or `ip6` of 0.1.0 and 0.2.0.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Old {
    ip: String,
    gateway: Option<String>,
    routes: Vec<Route>,
}

impl Dns {
    /// Reads the configuration's `dns`, or the runtime's, which has other words and spellings.
    pub fn read(value: &Value) -> Result<Self, CniError> {
        from_value("dns", without_nulls(folded(value.clone())))
    }
}

impl Network {
    /// Reads a `prevResult`. Its form tells its version: `ip4` and `ip6` ended with 0.2.0.
    pub fn read(previous: &Value) -> Result<Self, CniError> {
        let mut previous = without_nulls(previous.clone());
        let Value::Object(map) = &mut previous else { return from_value("prevResult", previous) };
        let mut old = Vec::new();
        for key in ["ip4", "ip6"] {
            if let Some(value) = map.remove(key) {
                old.push(from_value::<Old>("prevResult", value)?);
            }
        }
        let mut network: Self = from_value("prevResult", previous)?;
        for family in old {
            network.ips.push(Address { address: family.ip, gateway: family.gateway, ..Address::default() });
            network.routes.extend(family.routes);
        }
        Ok(network)
    }

    /// Adds what the agent made. The container's side of the pair comes second, and the addresses point at it.
    pub fn add(&mut self, attached: &Attached, interface: &str, sandbox: &str) {
        let host = Interface {
            name: attached.host_interface.clone(),
            mac: attached.host_mac.clone(),
            ..Interface::default()
        };
        let inside = Interface {
            name: interface.to_owned(),
            mac: attached.mac.clone(),
            mtu: Some(attached.mtu),
            sandbox: sandbox.to_owned(),
            ..Interface::default()
        };
        self.interfaces.extend([host, inside]);
        let index = self.interfaces.len() as i64 - 1;
        for address in &attached.addresses {
            let gateway = (address.is_ipv4() == attached.gateway.is_ipv4()).then_some(attached.gateway);
            self.ips.push(Address {
                version: None,
                address: format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }),
                gateway: gateway.map(|gateway| gateway.to_string()),
                interface: Some(index),
            });
            if let Some(gateway) = gateway {
                let dst = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                self.routes.push(Route { dst: dst.into(), gw: Some(gateway.to_string()), more: Map::new() });
            }
        }
    }

    /// The addresses of `interface` inside the container: those that point at it, and those that point nowhere.
    pub fn addresses_of(&self, interface: &str) -> Vec<IpAddr> {
        let is_it = |found: &Interface| found.name == interface && !found.sandbox.is_empty();
        let ours = self.interfaces.iter().position(is_it).map(|index| index as i64);
        let of_it = self.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == ours);
        of_it.filter_map(|ip| host_part(&ip.address)).collect()
    }

    /// The document that runtimes read, in the form of `version`.
    pub fn render(&self, version: Version) -> Value {
        if version <= Version::V020 { self.render_old(version) } else { self.render_new(version) }
    }

    fn render_new(&self, version: Version) -> Value {
        let interface = |interface: &Interface| match version {
            Version::V110 => interface.clone(),
            _ => Interface { mtu: None, socket_path: None, pci_id: None, ..interface.clone() },
        };
        let address = |ip: &Address| {
            let family = if ip.address.contains(':') { "6" } else { "4" };
            Address { version: (version < Version::V100).then(|| family.to_owned()), ..ip.clone() }
        };
        let interfaces: Vec<_> = self.interfaces.iter().map(interface).collect();
        let ips: Vec<_> = self.ips.iter().map(address).collect();
        json!({
            "cniVersion": version.as_str(), "interfaces": interfaces, "ips": ips,
            "routes": self.routes_in(version), "dns": self.dns,
        })
    }

    /// One address of each family; interfaces have no place.
    fn render_old(&self, version: Version) -> Value {
        let mut document = json!({ "cniVersion": version.as_str(), "dns": self.dns });
        for (key, is_v6) in [("ip4", false), ("ip6", true)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.contains(':') == is_v6) else { continue };
            let routes = self.routes_in(version).into_iter().filter(|route| route.dst.contains(':') == is_v6);
            let mut family = json!({ "ip": ip.address, "routes": routes.collect::<Vec<_>>() });
            if let Some(gateway) = &ip.gateway {
                family["gateway"] = json!(gateway);
            }
            document[key] = family;
        }
        document
    }

    fn routes_in(&self, version: Version) -> Vec<Route> {
        let plain = |route: &Route| match version {
            Version::V110 => route.clone(),
            _ => Route { more: Map::new(), ..route.clone() },
        };
        self.routes.iter().map(plain).collect()
    }
}

fn host_part(address: &str) -> Option<IpAddr> {
    address.split_once('/').map_or(address, |(host, _length)| host).parse().ok()
}
