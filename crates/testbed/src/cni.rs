//! Calls of CNI plugins as a runtime makes them (CNI specification 1.1, section 3).

use crate::command::{Call, CommandError};
use serde_json::{Value, json};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

/// The plugins' directory of Debian's `containernetworking-plugins`.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";
/// Name of our network in every configuration: Nomad's jobs say `cni/isthmus`.
pub const NETWORK: &str = "isthmus";
/// Versions of the specification in our lists: old runtimes take the first key, new ones the highest of the second.
pub const VERSION: &str = "0.4.0";

/// One attachment of one container.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Network namespace of the node, where runtimes run plugins.
    pub node: PathBuf,
    /// Directory of the plugins.
    pub directory: PathBuf,
    /// The plugin's configuration, with `name`, `cniVersion` and `type`.
    pub config: Value,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`.
    pub arguments: String,
}

/// Why a plugin did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It answered something else than a result.
    #[error("the CNI plugin {plugin} answered no result: {text}")]
    Answer {
        /// Its `type`.
        plugin: String,
        /// What it wrote.
        text: String,
    },
}

impl Plugin {
    /// Attaches the container and returns the result.
    pub fn add(&self) -> Result<Value, PluginError> {
        let text = self.call("ADD", &self.config).run()?;
        serde_json::from_str(&text).or(Err(PluginError::Answer { plugin: self.kind().to_owned(), text }))
    }

    /// Detaches it. `result` is ADD's, where the runtime still has it.
    pub fn delete(&self, result: Option<&Value>) -> Result<(), PluginError> {
        let mut config = self.config.clone();
        if let Some(result) = result {
            config["prevResult"] = result.clone();
        }
        Ok(self.call("DEL", &config).run().map(drop)?)
    }

    /// The run of the plugin that `command` stands for.
    pub fn call(&self, command: &str, config: &Value) -> Call {
        Call::new(self.directory.join(self.kind()))
            .in_namespace(&self.node)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &self.container)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", &self.interface)
            .env("CNI_ARGS", &self.arguments)
            .env("CNI_PATH", &self.directory)
            .input(config.to_string())
    }

    fn kind(&self) -> &str {
        self.config["type"].as_str().unwrap_or_default()
    }
}

/// The configuration of our plugin for one cluster's endpoints, served by the agent at `socket`.
pub fn isthmus_config(cluster: &str, socket: &Path) -> Value {
    json!({"cniVersion": VERSION, "name": NETWORK, "type": "isthmus-cni", "cluster": cluster, "socket": socket})
}

/// Debian's bridge and host-local plugins with addresses of `subnet`; their state is below `directory`.
pub fn bridge_config(bridge: &str, subnet: &str, directory: &Path) -> Value {
    json!({"cniVersion": VERSION, "name": bridge, "type": "bridge", "bridge": bridge, "isGateway": true, "mtu": 1450,
        "ipam": {"type": "host-local", "subnet": subnet, "dataDir": directory, "routes": [{"dst": "0.0.0.0/0"}]}})
}

/// The list that a runtime reads from its configuration directory.
pub fn list(config: &Value) -> Value {
    let mut plugin = config.clone();
    if let Some(object) = plugin.as_object_mut() {
        object.remove("name");
        object.remove("cniVersion");
    }
    plugin["capabilities"] = json!({"portMappings": true, "io.kubernetes.cri.pod-annotations": true});
    json!({"cniVersion": VERSION, "cniVersions": [VERSION, "1.0.0", "1.1.0"], "name": config["name"],
        "plugins": [plugin]})
}

/// The first address of a CNI result.
pub fn address(result: &Value) -> Option<IpAddr> {
    let text = result["ips"][0]["address"].as_str().or_else(|| result["ip4"]["ip"].as_str())?;
    text.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_the_plugins_own_keys() {
        let list = list(&isthmus_config("red", Path::new("/run/x/adapter.sock")));
        assert_eq!(list["name"], "isthmus");
        assert_eq!(list["plugins"][0]["socket"], "/run/x/adapter.sock");
        assert!(list["plugins"][0].get("name").is_none());
        assert_eq!(list["cniVersions"][2], "1.1.0");
    }

    #[test]
    fn the_address_is_found_in_old_and_new_results() {
        let expected: IpAddr = "10.64.0.5".parse().unwrap();
        assert_eq!(address(&json!({"ips": [{"address": "10.64.0.5/32"}]})), Some(expected));
        assert_eq!(address(&json!({"ip4": {"ip": "10.64.0.5/32"}})), Some(expected));
        assert_eq!(address(&json!({})), None);
    }
}
