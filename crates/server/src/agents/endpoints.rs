//! Writes the endpoints of one node: what comes while a write is under way is written together.

use super::{session::Shared, wire};
use crate::{kinds::StoredEndpoint, problem::chain, registry::EndpointError};
use isthmus_api::stream::from_agent;
use isthmus_core::NodeName;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// Changes that wait for the store; then the agent waits.
pub(super) const QUEUED: usize = 4_096;
/// Pause after a failure of the store.
const RETRY: Duration = Duration::from_millis(500);

/// Something about endpoints.
#[derive(Debug)]
pub(super) enum Change {
    /// These are all.
    Sync(BTreeMap<String, StoredEndpoint>),
    /// One appeared, changed or went.
    One(String, Option<StoredEndpoint>),
    /// Tell when everything before is written.
    Barrier(oneshot::Sender<()>),
}

/// Reads a message about endpoints.
pub(super) fn read(node: &NodeName, body: from_agent::Body) -> Result<Change, wire::WireError> {
    Ok(match body {
        from_agent::Body::Endpoint(endpoint) => {
            let stored = wire::endpoint(node, &endpoint)?;
            Change::One(endpoint.id, Some(stored))
        }
        from_agent::Body::EndpointGone(gone) => {
            wire::endpoint_id(&gone.id)?;
            Change::One(gone.id, None)
        }
        from_agent::Body::EndpointSync(sync) => {
            let stored = sync.endpoints.into_iter().map(|endpoint| {
                let stored = wire::endpoint(node, &endpoint)?;
                Ok((endpoint.id, stored))
            });
            Change::Sync(stored.collect::<Result<_, _>>()?)
        }
        _ => return Err(wire::WireError::Missing("endpoint")),
    })
}

/// What is to be written.
#[derive(Default)]
struct Pending {
    all: Option<BTreeMap<String, StoredEndpoint>>,
    changes: BTreeMap<String, Option<StoredEndpoint>>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Pending {
    fn add(&mut self, change: Change) {
        match change {
            Change::Sync(all) => {
                self.all = Some(all);
                self.changes.clear();
            }
            Change::One(id, endpoint) => match &mut self.all {
                Some(all) => {
                    match endpoint {
                        Some(endpoint) => all.insert(id, endpoint),
                        None => all.remove(&id),
                    };
                }
                None => {
                    self.changes.insert(id, endpoint);
                }
            },
            Change::Barrier(done) => self.waiting.push(done),
        }
    }
}

/// Writes until the node is gone or the call is cut; what is being written then is still written, so that nothing of an
/// old call comes after the first word of the next one. What still waits is dropped: the agent says everything again.
pub(super) async fn write(shared: Arc<Shared>, mut queue: mpsc::Receiver<Change>) -> Status {
    let mut pending = Pending::default();
    let cut = &shared.live.cut;
    loop {
        let change = tokio::select! {
            change = queue.recv() => change,
            () = cut.cancelled() => None,
        };
        let Some(change) = change else { return ended() };
        pending.add(change);
        loop {
            while let Ok(change) = queue.try_recv() {
                pending.add(change);
            }
            match write_once(&shared, &pending).await {
                Ok(()) => break,
                Err(error @ EndpointError::NodeGone(_)) => return Status::aborted(chain(&error)),
                Err(error) => {
                    tracing::warn!(node = %shared.node, error = %chain(&error), "endpoints not recorded; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = cut.cancelled() => return ended(),
                    }
                }
            }
        }
        for done in std::mem::take(&mut pending).waiting {
            let _ = done.send(());
        }
    }
}

fn ended() -> Status {
    Status::cancelled("the call ended")
}

async fn write_once(shared: &Shared, pending: &Pending) -> Result<(), EndpointError> {
    let registry = &shared.agents.registry;
    match &pending.all {
        Some(all) => registry.sync_endpoints(&shared.node, all.clone()).await,
        None => registry.change_endpoints(&shared.node, pending.changes.clone()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_core::Labels;
    use uuid::Uuid;

    fn endpoint(mac: &str) -> StoredEndpoint {
        StoredEndpoint {
            node: "n".to_owned(),
            cluster: "red".to_owned(),
            workload: Uuid::nil(),
            identity: 256,
            addresses: Vec::new(),
            mac: mac.to_owned(),
            host_interface: String::new(),
            instance: String::new(),
            labels: Labels::new(),
            created_unix: 0,
        }
    }

    #[test]
    fn of_several_changes_the_last_one_counts() {
        let mut pending = Pending::default();
        pending.add(Change::One("a".to_owned(), Some(endpoint("1"))));
        pending.add(Change::One("a".to_owned(), None));
        assert_eq!(pending.changes.get("a"), Some(&None));
        pending.add(Change::Sync(BTreeMap::from([("b".to_owned(), endpoint("2"))])));
        pending.add(Change::One("c".to_owned(), Some(endpoint("3"))));
        pending.add(Change::One("b".to_owned(), None));
        assert!(pending.changes.is_empty());
        assert_eq!(pending.all.unwrap().keys().collect::<Vec<_>>(), ["c"]);
    }
}
