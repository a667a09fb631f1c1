//! Cloud Foundry's part: runs Garden's external networker as Guardian does (between a container's making and its start).

use crate::command::{Call, CommandError};
use serde_json::{Value, json};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

/// An app instance as Diego starts it.
#[derive(Clone, Debug)]
pub struct AppInstance {
    /// Garden's handle: the instance's GUID.
    pub handle: String,
    /// The app's GUID.
    pub app: String,
    /// GUIDs of its space and organization.
    pub space: String,
    /// GUID of its organization.
    pub organization: String,
    /// Names of the app, the space and the organization.
    pub names: [String; 3],
    /// Number of the instance.
    pub index: u32,
    /// Ports in the container that the router must reach through the cell.
    pub ports: Vec<u16>,
}

/// The external networker of a cell.
#[derive(Clone, Debug)]
pub struct Networker {
    /// Network namespace of the cell.
    pub node: PathBuf,
    /// `isthmus-garden`, or what stands in for it.
    pub program: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
}

/// What the networker said about a container.
#[derive(Clone, Debug)]
pub struct Networked {
    /// The container's address.
    pub address: IpAddr,
    /// Everything it printed.
    pub answer: Value,
}

/// Why a container did not get its network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkerError {
    /// The program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It did not say the container's address.
    #[error("the external networker did not say garden.network.container-ip: {text}")]
    Answer {
        /// What it printed.
        text: String,
    },
}

impl Networker {
    /// Puts the container whose first process is `pid` on the network.
    pub fn up(&self, instance: &AppInstance, pid: u32) -> Result<Networked, NetworkerError> {
        let text = self.call("up", &instance.handle).input(request(instance, pid).to_string()).run()?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let address =
            answer["properties"]["garden.network.container-ip"].as_str().and_then(|text| text.parse().ok());
        match address {
            Some(address) => Ok(Networked { address, answer }),
            None => Err(NetworkerError::Answer { text }),
        }
    }

    /// Takes it off again.
    pub fn down(&self, handle: &str) -> Result<(), NetworkerError> {
        Ok(self.call("down", handle).input("null").run().map(drop)?)
    }

    fn call(&self, action: &str, handle: &str) -> Call {
        let config = format!("--configFile={}", self.config.display());
        Call::new(&self.program)
            .in_namespace(&self.node)
            .arg(config)
            .args(["--action", action, "--handle", handle])
    }
}

/// The keys that the original's configuration has, plus ours.
pub fn config(cluster: &str, socket: &Path, directory: &Path) -> Value {
    json!({"cni_plugin_dir": directory.join("plugins"), "cni_config_dir": directory.join("config"),
        "bind_mount_dir": directory.join("mounts"), "state_file": directory.join("ports.json"),
        "start_port": 61000, "total_ports": 5000, "log_prefix": "cfnetworking", "search_domains": ["apps.internal"],
        "isthmus_socket": socket, "cluster": cluster})
}

/// What Guardian writes on the networker's standard input.
fn request(instance: &AppInstance, pid: u32) -> Value {
    let [app, space, organization] = &instance.names;
    let tags = json!({"app_id": instance.app, "app_name": app, "space_id": instance.space, "space_name": space,
        "organization_id": instance.organization, "organization_name": organization,
        "process_type": "web", "instance_id": instance.index.to_string()});
    let log_config =
        json!({"guid": instance.app, "index": instance.index, "source_name": "CELL", "tags": tags});
    let ports: Vec<_> = instance.ports.iter().map(u16::to_string).collect();
    let netin: Vec<_> =
        instance.ports.iter().map(|port| json!({"host_port": 0, "container_port": port})).collect();
    json!({"Pid": pid,
        "Properties": {"policy_group_id": instance.app, "app_id": instance.app, "space_id": instance.space,
            "org_id": instance.organization, "ports": ports.join(","), "container_workload": "app",
            "log_config": log_config.to_string()},
        "netin": netin})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_guardians_shape() {
        let instance = AppInstance {
            handle: "h".into(),
            app: "a".into(),
            space: "s".into(),
            organization: "o".into(),
            names: ["cart".into(), "prod".into(), "acme".into()],
            index: 1,
            ports: vec![8080, 9000],
        };
        let request = request(&instance, 42);
        assert_eq!(request["Pid"], 42);
        assert_eq!(request["Properties"]["ports"], "8080,9000");
        assert_eq!(request["netin"][1], json!({"host_port": 0, "container_port": 9000}));
        let log_config: Value =
            serde_json::from_str(request["Properties"]["log_config"].as_str().unwrap()).unwrap();
        assert_eq!(log_config["tags"]["organization_name"], "acme");
    }

    #[test]
    fn a_networker_that_says_no_address_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let networker = Networker {
            node: "/proc/self/ns/net".into(),
            program: "true".into(),
            config: directory.path().join("c"),
        };
        let instance = AppInstance {
            handle: "h".into(),
            app: String::new(),
            space: String::new(),
            organization: String::new(),
            names: Default::default(),
            index: 0,
            ports: Vec::new(),
        };
        let error = networker.up(&instance, 1).unwrap_err().to_string();
        assert!(error.contains("container-ip") || error.contains("nsenter"), "{error}");
    }
}
