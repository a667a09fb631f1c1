//! Flows of all agents, while somebody watches.

use crate::view::View;
use isthmus_api::local::Flow;
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, watch};

/// Flows that a watcher can lie behind; older ones are lost to it, and it is told how many.
const QUEUED: usize = 8_192;

/// Takes flows from agents and gives them to watchers.
pub(crate) struct Flows {
    queue: broadcast::Sender<Arc<Flow>>,
    /// Whether anybody watches, for the sessions.
    on: watch::Sender<bool>,
    watchers: Mutex<usize>,
    lost: Mutex<u64>,
}

/// Somebody who watches. Agents send flows as long as one lives.
pub(crate) struct Watcher {
    hub: Arc<Flows>,
    pub(crate) flows: broadcast::Receiver<Arc<Flow>>,
}

impl Flows {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: broadcast::Sender::new(QUEUED),
            on: watch::Sender::new(false),
            watchers: Mutex::default(),
            lost: Mutex::default(),
        })
    }

    /// Begins to watch.
    pub(crate) fn watch(self: &Arc<Self>) -> Watcher {
        let flows = self.queue.subscribe();
        *crate::registry::lock(&self.watchers) += 1;
        self.on.send_if_modified(|on| !std::mem::replace(on, true));
        Watcher { hub: Arc::clone(self), flows }
    }

    /// Whether anybody watches, now and whenever it changes.
    pub(crate) fn watched(&self) -> watch::Receiver<bool> {
        self.on.subscribe()
    }

    /// Gives flows to everybody who watches.
    pub(crate) fn publish(&self, flows: impl Iterator<Item = Flow>, lost: u64) {
        for flow in flows {
            // Nobody watches any more: the agent has not heard of it yet.
            let _ = self.queue.send(Arc::new(flow));
        }
        *crate::registry::lock(&self.lost) += lost;
    }

    /// Flows that agents could not send, since the start.
    pub(crate) fn lost(&self) -> u64 {
        *crate::registry::lock(&self.lost)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watchers = crate::registry::lock(&self.hub.watchers);
        *watchers -= 1;
        if *watchers == 0 {
            self.hub.on.send_replace(false);
        }
    }
}

/// Fills in the names that an agent did not know.
pub(crate) fn with_names(view: &View, mut flow: Flow) -> Flow {
    for (identity, name) in [(&flow.from_identity, &mut flow.from), (&flow.to_identity, &mut flow.to)] {
        if name.is_empty()
            && let Ok(identity) = identity.parse()
        {
            *name = view.identity_text(identity);
        }
    }
    flow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_send_while_somebody_watches() {
        let flows = Flows::new();
        let watched = flows.watched();
        let first = flows.watch();
        let second = flows.watch();
        assert!(*watched.borrow());
        drop(first);
        assert!(*watched.borrow());
        drop(second);
        assert!(!*watched.borrow());
    }
}
