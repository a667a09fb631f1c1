//! The state file: what was made, and where it is.

use super::{
    RUN,
    plan::{Container, Node},
};
use crate::{
    command::Call,
    process::Process,
    state::{self, Made, StateError},
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Everything known about the demo.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) made: Made,
    /// Whether `up` came to its end.
    pub(super) complete: bool,
    /// The program that made it, and runs in it.
    pub(super) binary: PathBuf,
    pub(super) nodes: Vec<Node>,
}

impl Record {
    fn path() -> PathBuf {
        Path::new(RUN).join("state.json")
    }

    /// Reads it; `None` if there is no demo.
    pub(super) fn load() -> Result<Option<Self>, StateError> {
        state::load(&Self::path())
    }

    /// Reads that of a demo that is up.
    pub(super) fn of_running() -> anyhow::Result<Self> {
        let record = Self::load()?.filter(|record| record.complete);
        record.context("the demo is not up: start it with `isthmus demo bgp up`")
    }

    pub(super) fn save(&self) -> Result<(), StateError> {
        state::save(&Self::path(), self)
    }

    /// Starts a process, which is in the record from then on.
    pub(super) fn start(&mut self, name: &str, call: &Call) -> anyhow::Result<Process> {
        let process = Process::start(name, call, &log(name))?;
        self.made.processes.push(process.clone());
        self.save()?;
        Ok(process)
    }

    /// The latest process of that name.
    pub(super) fn process(&self, name: &str) -> anyhow::Result<&Process> {
        let found = self.made.processes.iter().rev().find(|process| process.name == name);
        found.with_context(|| format!("the demo has no process called {name}"))
    }

    /// Takes an ended process out of the record.
    pub(super) fn forget(&mut self, process: &Process) -> Result<(), StateError> {
        self.made.processes.retain(|known| known != process);
        self.save()
    }

    pub(super) fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// A run of the demo's own client inside a container.
    pub(super) fn client(&self, container: &Container, arguments: &[&str]) -> Call {
        container.namespace().call(&self.binary).arg("demo-app").args(arguments)
    }
}

/// What a process writes.
pub(super) fn log(name: &str) -> PathBuf {
    Path::new(RUN).join("logs").join(format!("{name}.log"))
}
