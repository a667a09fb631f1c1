//! Endpoints: what the agents say runs where.

use super::{CommitError, Registry};
use crate::{
    kinds::{self, StoredEndpoint},
    problem::{Code, Fault},
};
use isthmus_core::NodeName;
use isthmus_store::{Compare, Operation, Txn};
use std::collections::BTreeMap;

/// Endpoints written in one transaction.
const CHUNK: usize = 250;

/// Why endpoints could not be recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("node {0} was deleted while its agent was connected; the agent must say hello again")]
    NodeGone(NodeName),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for EndpointError {
    fn code(&self) -> Code {
        match self {
            Self::NodeGone(_) => Code::Conflict,
            Self::Commit(error) => error.code(),
        }
    }

    fn retryable(&self) -> bool {
        true
    }
}

impl Registry {
    /// Makes the endpoints of a node exactly `wanted`.
    pub(crate) async fn sync_endpoints(
        &self,
        node: &NodeName,
        wanted: BTreeMap<String, StoredEndpoint>,
    ) -> Result<(), EndpointError> {
        let mut changes: BTreeMap<String, Option<StoredEndpoint>> =
            wanted.into_iter().map(|(id, endpoint)| (id, Some(endpoint))).collect();
        {
            let view = self.fresh_view().await?;
            for (name, _) in view.endpoints_on(node.as_str()) {
                let id = &name[node.as_str().len() + 1..];
                if !changes.contains_key(id) {
                    changes.insert(id.to_owned(), None);
                }
            }
        }
        self.change_endpoints(node, changes).await
    }

    /// Writes endpoints of a node, and deletes those that are `None`. What is so already is not written.
    pub(crate) async fn change_endpoints(
        &self,
        node: &NodeName,
        changes: BTreeMap<String, Option<StoredEndpoint>>,
    ) -> Result<(), EndpointError> {
        let operations: Vec<Operation> = {
            let view = self.fresh_view().await?;
            let differs = |id: &str, wanted: Option<&StoredEndpoint>| {
                view.endpoints.get(&format!("{node}/{id}")).map(|held| &held.value) != wanted
            };
            let changes = changes.iter().filter(|(id, wanted)| differs(id, wanted.as_ref()));
            changes.map(|(id, wanted)| operation(node, id, wanted.as_ref())).collect()
        };
        for chunk in operations.chunks(CHUNK) {
            let mut txn = Txn::new().when(Compare::exists(kinds::node_key(node.as_str())));
            txn.operations = chunk.to_vec();
            if self.commit(txn).await?.is_none() {
                return Err(EndpointError::NodeGone(node.clone()));
            }
        }
        Ok(())
    }
}

fn operation(node: &NodeName, id: &str, wanted: Option<&StoredEndpoint>) -> Operation {
    let key = kinds::endpoint_key(node.as_str(), id);
    match wanted {
        Some(endpoint) => Operation::put(key, kinds::encode(endpoint)),
        None => Operation::delete(key),
    }
}
