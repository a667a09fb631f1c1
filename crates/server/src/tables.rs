//! The policy compiler between the view and the agents: fed with stored types, asked for tables.

use crate::{kinds::StoredRule, registry::lock};
use isthmus_core::{DefaultVerdict, DenyAnswer, Identity};
use isthmus_policy::{ClusterDefault, Compiler, Rule, Table};
use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// A compiled table, the same for every agent that needs it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compiled {
    pub(crate) table: Table,
    /// Equal for equal tables, over restarts of the server too, so that an agent keeps what it holds.
    pub(crate) version: u64,
    /// The identities that it names, in order.
    pub(crate) peers: Arc<[Identity]>,
}

/// Tables of all identities; each is compiled when somebody first asks for it, and kept until it changes.
#[derive(Default)]
pub(crate) struct Tables {
    compiler: Compiler,
    compiled: Mutex<HashMap<Identity, Arc<Compiled>>>,
}

impl Tables {
    pub(crate) fn put_cluster(&mut self, name: &str, verdict: DefaultVerdict, answer: DenyAnswer) {
        if let Ok(name) = name.parse() {
            self.compiler.upsert_cluster(&name, ClusterDefault { verdict, answer });
        }
    }

    pub(crate) fn remove_cluster(&mut self, name: &str) {
        if let Ok(name) = name.parse() {
            self.compiler.remove_cluster(&name);
        }
    }

    pub(crate) fn put_identity(&mut self, identity: Identity, workload: Uuid, cluster: &str) {
        let Ok(cluster) = cluster.parse() else { return };
        if let Err(error) = self.compiler.upsert_identity(identity, workload, &cluster) {
            tracing::error!(%error, "stored identity is passed over");
        }
    }

    pub(crate) fn remove_identity(&mut self, identity: Identity) {
        self.compiler.remove_identity(identity);
    }

    pub(crate) fn put_policy(&mut self, name: &str, rules: &[StoredRule]) {
        let Ok(name) = name.parse() else { return };
        let rule = |rule: &StoredRule| {
            Some(Rule { number: rule.number, from: rule.from, to: rule.to, port: rule.port()? })
        };
        let rules: Vec<Rule> = rules.iter().filter_map(rule).collect();
        if let Err(error) = self.compiler.upsert_policy(&name, &rules) {
            tracing::error!(%error, "stored policy is passed over");
        }
    }

    pub(crate) fn remove_policy(&mut self, name: &str) {
        if let Ok(name) = name.parse() {
            self.compiler.remove_policy(&name);
        }
    }

    /// Identities whose table changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Identity> {
        let changed = self.compiler.take_changed();
        let mut compiled = lock(&self.compiled);
        for identity in &changed {
            compiled.remove(identity);
        }
        changed
    }

    /// Rules of all policies together.
    pub(crate) fn rule_count(&self) -> usize {
        self.compiler.rule_count()
    }

    /// The table of an identity; `None` if the identity stands for nobody.
    pub(crate) fn compiled(&self, identity: Identity) -> Option<Arc<Compiled>> {
        if let Some(held) = lock(&self.compiled).get(&identity) {
            return Some(Arc::clone(held));
        }
        // Compiled without the lock: two that ask at once both compile, which costs time and nothing else.
        let table = self.compiler.table(identity)?;
        let mut peers: Vec<Identity> = table.rules.iter().map(|rule| rule.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        let compiled = Arc::new(Compiled { version: version(&table), peers: peers.into(), table });
        lock(&self.compiled).insert(identity, Arc::clone(&compiled));
        Some(compiled)
    }

    /// Forgets tables that nobody in `scopes` needs.
    pub(crate) fn keep(&self, scopes: impl Fn(Identity) -> bool) {
        lock(&self.compiled).retain(|identity, _| scopes(*identity));
    }
}

fn version(table: &Table) -> u64 {
    let mut hasher = DefaultHasher::new();
    (table.identity, table.default, table.answer).hash(&mut hasher);
    table.rules.hash(&mut hasher);
    hasher.finish()
}
