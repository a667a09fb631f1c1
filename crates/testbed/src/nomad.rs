//! Nomad's part: an allocation of the exec driver with `network { mode = "cni/isthmus" }`.
//!
//! Nomad makes the namespace, named after the allocation, calls the plugin with the arguments of `NOMAD_*`, and starts
//! the task in it; the task is a plain process.

use crate::{
    cni::{Plugin, PluginError},
    command::{Call, CommandError},
    namespace::Namespace,
};
use serde_json::{Value, json};
use std::{net::IpAddr, path::PathBuf};

/// What runs where.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// UUID of the allocation; also the container's id and the namespace's name.
    pub id: String,
    /// Namespace of the job (Nomad's word; not the kernel's).
    pub namespace: String,
    /// The job.
    pub job: String,
    /// The task group.
    pub group: String,
}

/// Why an allocation did not get its network.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    /// Its namespace could not be made.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The plugin's result has no address.
    #[error("the CNI result for allocation {id} has no address: {result}")]
    Address {
        /// The allocation.
        id: String,
        /// What the plugin said.
        result: Value,
    },
}

impl Allocation {
    /// The kernel's namespace of its tasks.
    pub fn netns(&self) -> Namespace {
        Namespace::named(&self.id)
    }

    /// Makes its namespace and puts it on the network.
    pub fn attach(&self, node: PathBuf, plugins: PathBuf, config: &Value) -> Result<IpAddr, AllocationError> {
        self.netns().create()?;
        let result = self.plugin(node, plugins, config, true).add()?;
        crate::cni::address(&result).ok_or_else(|| AllocationError::Address { id: self.id.clone(), result })
    }

    /// Takes it off the network. Nomad's DEL has no arguments and no previous result.
    pub fn detach(&self, node: PathBuf, plugins: PathBuf, config: &Value) -> Result<(), AllocationError> {
        self.plugin(node, plugins, config, false).delete(None)?;
        Ok(self.netns().delete()?)
    }

    /// A run of `program` as a task of it.
    pub fn task(&self, program: impl AsRef<std::ffi::OsStr>) -> Call {
        self.netns().call(program).env("NOMAD_ALLOC_ID", &self.id).env("NOMAD_JOB_NAME", &self.job)
    }

    fn plugin(&self, node: PathBuf, directory: PathBuf, config: &Value, add: bool) -> Plugin {
        let mut config = config.clone();
        // As go-cni spells it.
        config["runtimeConfig"] = json!({"portMappings": []});
        Plugin {
            node,
            directory,
            config,
            container: self.id.clone(),
            netns: format!("/var/run/netns/{}", self.id),
            interface: "eth0".to_owned(),
            arguments: if add { self.arguments() } else { String::new() },
        }
    }

    fn arguments(&self) -> String {
        format!(
            "IgnoreUnknown=true;NOMAD_REGION=global;NOMAD_NAMESPACE={};NOMAD_JOB_ID={};NOMAD_GROUP_NAME={};NOMAD_ALLOC_ID={}",
            self.namespace, self.job, self.group, self.id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_carries_nomads_arguments_at_add_only() {
        let allocation = Allocation {
            id: "5d3c0e2a-0000-4000-8000-000000000001".into(),
            namespace: "default".into(),
            job: "ledger".into(),
            group: "ledger".into(),
        };
        let config = json!({"type": "isthmus-cni"});
        let add = allocation.plugin("/n".into(), "/p".into(), &config, true);
        assert!(add.arguments.contains("NOMAD_JOB_ID=ledger;NOMAD_GROUP_NAME=ledger"), "{}", add.arguments);
        assert!(add.netns.starts_with("/var/run/netns/5d3c0e2a"));
        assert_eq!(allocation.plugin("/n".into(), "/p".into(), &config, false).arguments, "");
    }
}
