//! The server's REST API for callers that block.

use anyhow::Context as _;
use isthmus_api::{
    client::{Client, Place},
    rest::{BlockSpec, ClusterSpec, Draft, EndpointSpec, List, PoolSpec, Resource, WorkloadSpec},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::runtime::Runtime;

/// Objects of a page; the demo has fewer of each kind.
const PAGE: usize = 500;

/// A connection to one API.
pub(crate) struct Rest {
    runtime: Runtime,
    client: Client,
}

impl Rest {
    /// The server at `address`.
    pub(crate) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        Self::at(Place::Tcp(address))
    }

    /// Whoever is at `place`.
    pub(crate) fn at(place: Place) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { runtime: runtime.context("cannot start a runtime")?, client: Client::new(place) })
    }

    /// Whether anybody answers.
    pub(crate) fn is_up(&self) -> bool {
        self.get::<Value>("/api/v1/status").is_ok()
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(self.client.get(path))?)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        Ok(self.runtime.block_on(self.client.post(path, body))?)
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        Ok(self.runtime.block_on(self.client.put(path, body))?)
    }

    pub(crate) fn delete(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.runtime.block_on(self.client.delete(path))?)
    }

    pub(crate) fn create_cluster(&self, name: &str, platform: &str) -> anyhow::Result<Value> {
        let default = Some("closed".to_owned());
        let spec = ClusterSpec { platform: platform.to_owned(), default, ..ClusterSpec::default() };
        self.create("/api/v1/clusters", name, spec)
    }

    pub(crate) fn create_pool(&self, name: &str, cluster: &str, cidr: &str) -> anyhow::Result<Value> {
        let spec =
            PoolSpec { cluster: cluster.to_owned(), cidrs: vec![cidr.to_owned()], ..PoolSpec::default() };
        self.create("/api/v1/pools", name, spec)
    }

    pub(crate) fn create<S: serde::Serialize>(
        &self,
        path: &str,
        name: &str,
        spec: S,
    ) -> anyhow::Result<Value> {
        let draft = Draft { name: name.to_owned(), labels: BTreeMap::new(), spec };
        Ok(self.runtime.block_on(self.client.post(path, &draft))?)
    }

    pub(crate) fn endpoints(&self) -> anyhow::Result<Vec<Resource<EndpointSpec>>> {
        self.list("endpoints")
    }

    pub(crate) fn blocks(&self) -> anyhow::Result<Vec<Resource<BlockSpec>>> {
        self.list("blocks")
    }

    pub(crate) fn workloads(&self) -> anyhow::Result<Vec<Resource<WorkloadSpec>>> {
        self.list("workloads")
    }

    fn list<S: DeserializeOwned>(&self, kind: &str) -> anyhow::Result<Vec<Resource<S>>> {
        let list: List<Resource<S>> = self.get(&format!("/api/v1/{kind}?limit={PAGE}"))?;
        Ok(list.items)
    }
}
