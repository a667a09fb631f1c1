//! The state file of the demo: what was made, and where everything is.

use super::{RUN, instance::Container, plan::Node};
use crate::{
    process::Process,
    state::{self, Made, StateError},
    underlay::Underlay,
};
use anyhow::Context as _;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// Everything known about a demo.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// What is on the host.
    pub(super) made: Made,
    /// Whether `up` came to its end.
    pub(super) complete: bool,
    /// The program that made it, and runs in it.
    pub(super) binary: PathBuf,
    /// The nodes' addresses.
    pub(super) range: Ipv4Net,
    /// The server's REST API.
    pub(super) rest: SocketAddr,
    /// The server's Cloud Foundry policy API.
    pub(super) cf_policy: SocketAddr,
    /// The nodes.
    pub(super) nodes: Vec<Node>,
    /// The containers that run.
    pub(super) containers: Vec<Container>,
}

impl Record {
    pub(super) fn path() -> PathBuf {
        Path::new(RUN).join("state.json")
    }

    /// Reads it; `None` if there is no demo.
    pub(super) fn load() -> Result<Option<Self>, StateError> {
        state::load(&Self::path())
    }

    /// Reads that of a demo that is up.
    pub(super) fn of_running() -> anyhow::Result<Self> {
        let record = Self::load()?.filter(|record| record.complete);
        record.context("the demo is not up: start it with `isthmus demo up`")
    }

    pub(super) fn save(&self) -> Result<(), StateError> {
        state::save(&Self::path(), self)
    }

    pub(super) fn underlay(&self) -> Underlay {
        Underlay::new(super::up::underlay_namespace(), self.range, super::HOST_LINK)
    }

    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// A node's address on the underlay.
    pub(super) fn address(&self, node: &Node) -> Ipv4Addr {
        self.underlay().address(node.number)
    }

    /// The process that `up` called `name`.
    pub(super) fn process(&self, name: &str) -> Option<&Process> {
        self.made.processes.iter().find(|process| process.name == name)
    }

    /// The first instance of an app, or the instance of that name.
    pub(super) fn container(&self, name: &str) -> anyhow::Result<&Container> {
        let mut all = self.containers.iter();
        let found = all.find(|container| container.instance.name == name || container.instance.app == name);
        found.with_context(|| {
            let names: Vec<_> =
                self.containers.iter().map(|container| container.instance.name.as_str()).collect();
            format!("the demo has no app called {name}: it has {}", names.join(", "))
        })
    }
}

/// Where a node keeps its files.
pub(super) fn node_directory(node: &str) -> PathBuf {
    Path::new(RUN).join(node)
}
