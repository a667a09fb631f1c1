//! Network namespaces under `/run/netns`, as `ip netns` makes them.

use crate::command::{Call, CommandError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where `ip netns` and the container runtimes keep them.
const DIRECTORY: &str = "/run/netns";

/// A network namespace with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace called `name`, whether it exists or not.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Makes it, with its loopback interface up. A namespace of that name that exists is taken as it is.
    pub fn create(&self) -> Result<(), CommandError> {
        if !self.exists() {
            Call::new("ip").args(["netns", "add", &self.name]).run()?;
        }
        self.ip("link set lo up").map(drop)
    }

    /// Removes it. Interfaces in it go when its last process ends; a namespace that is not there is fine.
    pub fn delete(&self) -> Result<(), CommandError> {
        if self.exists() {
            Call::new("ip").args(["netns", "delete", &self.name]).run()?;
        }
        Ok(())
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `ip` in it with the words of `line`.
    pub fn ip(&self, line: &str) -> Result<String, CommandError> {
        Call::new("ip").args(["-n", &self.name]).words(line).run()
    }

    /// A run of `program` in it.
    pub fn call(&self, program: impl AsRef<std::ffi::OsStr>) -> Call {
        Call::new(program).in_namespace(&self.path())
    }

    /// Sets a variable below `/proc/sys/net`, which belongs to the namespace: `ipv4.ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), CommandError> {
        let path = format!("/proc/sys/net/{}", name.replace('.', "/"));
        self.call("tee").arg(path).input(value).run().map(drop)
    }

    /// Process ids in it.
    pub fn processes(&self) -> Vec<u32> {
        let pids = Call::new("ip").args(["netns", "pids", &self.name]).run().unwrap_or_default();
        pids.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }
}

/// Names of all namespaces that begin with `prefix`.
pub fn with_prefix(prefix: &str) -> Vec<Namespace> {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .map(Namespace::named)
        .collect();
    names.sort();
    names
}
