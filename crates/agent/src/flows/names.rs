//! What people call the identities of a flow: from the view, else asked of the server and remembered for a while.

use crate::agent::Agent;
use futures::stream::{FuturesUnordered, StreamExt};
use isthmus_api::stream::{NameIdentity, reply, request};
use isthmus_core::Identity;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// Names that are remembered.
const REMEMBERED_MAX: usize = 4_096;
/// Questions at once.
const ASKING_MAX: usize = 64;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a name is remembered: names may change.
const NAMED_FOR: Duration = Duration::from_mins(1);
/// How long it is remembered that there is none.
const NAMELESS_FOR: Duration = Duration::from_secs(5);

type Asking = Pin<Box<dyn Future<Output = (Identity, Option<String>)> + Send>>;

/// Names of identities.
pub(super) struct Names {
    agent: Arc<Agent>,
    remembered: BTreeMap<Identity, (String, Instant)>,
    asking: BTreeSet<Identity>,
    questions: FuturesUnordered<Asking>,
}

impl Names {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self {
            agent,
            remembered: BTreeMap::new(),
            asking: BTreeSet::new(),
            questions: FuturesUnordered::new(),
        }
    }

    /// Whether all that can be known of a name is known; if not, it is being asked for.
    pub(super) fn know(&mut self, identity: Identity) -> bool {
        if self.agent.name_of(identity).is_some() || !self.agent.link.is_up() {
            return true;
        }
        if self.remembered.get(&identity).is_some_and(|(_, until)| *until > Instant::now()) {
            return true;
        }
        if !self.asking.contains(&identity) {
            if self.asking.len() >= ASKING_MAX {
                return true;
            }
            self.asking.insert(identity);
            self.questions.push(Box::pin(ask(Arc::clone(&self.agent), identity)));
        }
        false
    }

    /// Whether a name is being asked for.
    pub(super) fn is_asking(&self, identity: Identity) -> bool {
        self.asking.contains(&identity)
    }

    /// Waits for the next answer; for ever if nothing was asked.
    pub(super) async fn answered(&mut self) {
        match self.questions.next().await {
            Some((identity, name)) => self.remember(identity, name),
            None => std::future::pending().await,
        }
    }

    fn remember(&mut self, identity: Identity, name: Option<String>) {
        self.asking.remove(&identity);
        let now = Instant::now();
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.retain(|_, (_, until)| *until > now);
        }
        if self.remembered.len() < REMEMBERED_MAX {
            let until = now + if name.is_some() { NAMED_FOR } else { NAMELESS_FOR };
            self.remembered.insert(identity, (name.unwrap_or_default(), until));
        }
    }

    /// The name; empty where it is not known.
    pub(super) fn name(&self, identity: Identity) -> String {
        let remembered = || self.remembered.get(&identity).map(|(name, _)| name.clone());
        self.agent.name_of(identity).or_else(remembered).unwrap_or_default()
    }
}

async fn ask(agent: Arc<Agent>, identity: Identity) -> (Identity, Option<String>) {
    let body = request::Body::NameIdentity(NameIdentity { identity: identity.number() });
    let answer = tokio::time::timeout(PATIENCE, agent.link.ask(body)).await;
    match answer {
        Ok(Ok(reply::Body::Workload(workload))) => (identity, Some(workload.name)),
        _ => (identity, None),
    }
}
