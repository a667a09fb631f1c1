//! The incremental compiler: takes what is, remembers whose table is another one now.

use crate::{
    rules::{PlacedRule, Rules},
    table::{Table, TableRule},
    workloads::{Slot, Workloads},
};
use isthmus_core::{ClusterName, DefaultVerdict, DenyAnswer, Identity, PolicyName, PortMatch};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Rules of all policies together; a policy that would exceed it is refused.
pub const RULES_MAX: usize = 1 << 22;

/// Allows a path from one workload to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What flows and counters name; not 0.
    pub number: u32,
    /// The workload that may send.
    pub from: Uuid,
    /// The workload that it may send to.
    pub to: Uuid,
    /// Protocol and destination ports.
    pub port: PortMatch,
}

/// What holds towards all workloads of a cluster where no rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterDefault {
    /// The verdict.
    pub verdict: DefaultVerdict,
    /// How a denied packet is answered.
    pub answer: DenyAnswer,
}

impl ClusterDefault {
    /// Of a cluster that is not known: nothing passes, silently.
    const UNKNOWN: Self = Self { verdict: DefaultVerdict::Closed, answer: DenyAnswer::Drop };
}

/// Compiles policies into tables, one for each identity.
///
/// Feed it in any order; `upsert_*` replaces what was there, and saying the same again changes nothing. Afterwards
/// [`take_changed`](Self::take_changed) tells whose tables to fetch with [`table`](Self::table).
///
/// A rule costs about 60 bytes, and a change of one a few searches in ordered maps, however many there are.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    workloads: Workloads,
    policies: BTreeMap<PolicyName, StoredPolicy>,
    /// Numbers of removed policies.
    free_policies: Vec<u32>,
    rules: Rules,
    identities: BTreeMap<Identity, IdentityRecord>,
    clusters: BTreeMap<ClusterName, ClusterDefault>,
    changed: BTreeSet<Identity>,
}

#[derive(Clone, Debug)]
struct StoredPolicy {
    number: u32,
    /// Sorted, each once.
    rules: Box<[PlacedRule]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct IdentityRecord {
    workload: Slot,
    cluster: ClusterName,
}

impl Compiler {
    /// A compiler that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the rules of a policy.
    ///
    /// # Errors
    ///
    /// Nothing has changed; see [`PolicyError`].
    pub fn upsert_policy(&mut self, name: &PolicyName, rules: &[Rule]) -> Result<(), PolicyError> {
        let held = self.policies.get(name).map_or(0, |policy| policy.rules.len());
        let total = self.rules.len() - held + rules.len();
        if total > RULES_MAX {
            return Err(PolicyError::TooManyRules { policy: name.clone(), total });
        }
        if rules.iter().any(|rule| rule.number == 0) {
            return Err(PolicyError::NumberZero { policy: name.clone() });
        }
        let number = match self.policies.get(name) {
            Some(policy) => policy.number,
            None => self.free_policies.pop().unwrap_or(self.policies.len() as u32),
        };
        let new = self.place(rules, number);
        let old = self.policies.insert(name.clone(), StoredPolicy { number, rules: new.clone() });
        self.replace(&old.map(|policy| policy.rules).unwrap_or_default(), &new);
        Ok(())
    }

    /// Forgets a policy. One that is not there is passed over.
    pub fn remove_policy(&mut self, name: &PolicyName) {
        if let Some(policy) = self.policies.remove(name) {
            self.replace(&policy.rules, &[]);
            self.free_policies.push(policy.number);
        }
    }

    /// Sets the workload and the cluster that an identity belongs to.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] for a reserved number; nothing has changed.
    pub fn upsert_identity(
        &mut self,
        identity: Identity,
        workload: Uuid,
        cluster: &ClusterName,
    ) -> Result<(), IdentityError> {
        if !identity.is_workload() {
            return Err(IdentityError { identity });
        }
        let held = self.identities.get(&identity);
        if held.is_some_and(|held| held.cluster == *cluster && self.workloads.uuid(held.workload) == workload)
        {
            return Ok(());
        }
        self.remove_identity(identity);
        let slot = self.workloads.add_identity(workload, identity);
        self.identities.insert(identity, IdentityRecord { workload: slot, cluster: cluster.clone() });
        self.mark_identity(slot, identity);
        Ok(())
    }

    /// Forgets an identity. One that is not there is passed over.
    pub fn remove_identity(&mut self, identity: Identity) {
        if let Some(record) = self.identities.remove(&identity) {
            self.mark_identity(record.workload, identity);
            self.workloads.remove_identity(record.workload, identity);
        }
    }

    /// Sets what holds in a cluster where no rule decides.
    pub fn upsert_cluster(&mut self, name: &ClusterName, default: ClusterDefault) {
        let before = self.default_of(name);
        self.clusters.insert(name.clone(), default);
        self.mark_cluster(name, before);
    }

    /// Forgets a cluster: what still belongs to it is closed. One that is not there is passed over.
    pub fn remove_cluster(&mut self, name: &ClusterName) {
        let before = self.default_of(name);
        self.clusters.remove(name);
        self.mark_cluster(name, before);
    }

    /// The identities whose tables may be others than at the last call, those that are gone too.
    pub fn take_changed(&mut self) -> BTreeSet<Identity> {
        std::mem::take(&mut self.changed)
    }

    /// The table of an identity; `None` when the identity is not known.
    pub fn table(&self, identity: Identity) -> Option<Table> {
        let record = self.identities.get(&identity)?;
        let default = self.default_of(&record.cluster);
        let mut rules = Vec::new();
        for rule in self.rules.towards(record.workload) {
            rules.extend(self.workloads.identities(rule.from).iter().map(|peer| TableRule {
                peer: *peer,
                port: rule.port,
                deny: false,
                precedence: 0,
                number: rule.number,
            }));
        }
        rules.sort_unstable();
        Some(Table { identity, default: default.verdict, answer: default.answer, rules })
    }

    /// The identities that the table of `identity` names, itself only if a rule says so.
    pub fn peers(&self, identity: Identity) -> BTreeSet<Identity> {
        let Some(record) = self.identities.get(&identity) else { return BTreeSet::new() };
        let senders: BTreeSet<Slot> = self.rules.towards(record.workload).map(|rule| rule.from).collect();
        senders.into_iter().flat_map(|sender| self.workloads.identities(sender)).copied().collect()
    }

    /// All identities that are known, in order.
    pub fn identities(&self) -> impl Iterator<Item = Identity> {
        self.identities.keys().copied()
    }

    /// Rules of all policies together.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Rules with their workloads held, sorted, each once.
    fn place(&mut self, rules: &[Rule], policy: u32) -> Box<[PlacedRule]> {
        let mut placed: Vec<_> = rules
            .iter()
            .map(|rule| PlacedRule {
                to: self.workloads.hold(rule.to),
                from: self.workloads.hold(rule.from),
                port: rule.port,
                number: rule.number,
                policy,
            })
            .collect();
        placed.sort_unstable();
        placed.dedup_by(|again, first| {
            let same = again == first;
            if same {
                self.release(*again);
            }
            same
        });
        placed.into_boxed_slice()
    }

    fn release(&mut self, rule: PlacedRule) {
        self.workloads.release(rule.to);
        self.workloads.release(rule.from);
    }

    /// Replaces sorted rules by others that are held already, and marks the tables that see a difference.
    fn replace(&mut self, old: &[PlacedRule], new: &[PlacedRule]) {
        for rule in old.iter().filter(|rule| new.binary_search(rule).is_err()) {
            if self.rules.remove(*rule) {
                self.mark_rule(*rule);
            }
        }
        for rule in new.iter().filter(|rule| old.binary_search(rule).is_err()) {
            if self.rules.insert(*rule) {
                self.mark_rule(*rule);
            }
        }
        for rule in old {
            self.release(*rule);
        }
    }

    /// A rule appeared or went: the tables of its destination are others, if anybody can be named in them.
    fn mark_rule(&mut self, rule: PlacedRule) {
        if !self.workloads.identities(rule.from).is_empty() {
            self.changed.extend(self.workloads.identities(rule.to));
        }
    }

    /// An identity appeared or goes: its own table, and those that name it, are others.
    fn mark_identity(&mut self, workload: Slot, identity: Identity) {
        self.changed.insert(identity);
        for to in self.rules.destinations(workload) {
            self.changed.extend(self.workloads.identities(to));
        }
    }

    fn mark_cluster(&mut self, name: &ClusterName, before: ClusterDefault) {
        if self.default_of(name) != before {
            let of_cluster = self.identities.iter().filter(|(_, record)| record.cluster == *name);
            self.changed.extend(of_cluster.map(|(identity, _)| *identity));
        }
    }

    fn default_of(&self, cluster: &ClusterName) -> ClusterDefault {
        self.clusters.get(cluster).copied().unwrap_or(ClusterDefault::UNKNOWN)
    }
}

/// Why a policy cannot be compiled. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More rules than [`RULES_MAX`].
    #[error(
        "with policy {policy} there would be {total} rules, at most {RULES_MAX} are allowed: remove policies that are not needed"
    )]
    TooManyRules {
        /// The policy.
        policy: PolicyName,
        /// Rules that there would be.
        total: usize,
    },
    /// A rule without a number.
    #[error("policy {policy} has a rule with the number 0, which stands for no rule")]
    NumberZero {
        /// The policy.
        policy: PolicyName,
    },
}

/// A reserved number cannot belong to a workload. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity {identity} is reserved and cannot belong to a workload")]
pub struct IdentityError {
    /// The number.
    pub identity: Identity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_takes_no_memory() {
        let mut compiler = Compiler::new();
        let name = |n: u32| format!("p{n}").parse::<PolicyName>().unwrap();
        let rule = |number, from, to| Rule {
            number,
            from: Uuid::from_u128(from),
            to: Uuid::from_u128(to),
            port: PortMatch::ANY,
        };
        let identity = Identity::new(256).unwrap();
        compiler.upsert_identity(identity, Uuid::from_u128(1), &"red".parse().unwrap()).unwrap();
        // A rule twice, the same again, another instead of it, and one that only names.
        compiler.upsert_policy(&name(0), &[rule(1, 1, 2), rule(1, 1, 2), rule(2, 3, 4)]).unwrap();
        compiler.upsert_policy(&name(0), &[rule(1, 1, 2), rule(3, 1, 1)]).unwrap();
        compiler.upsert_policy(&name(1), &[rule(4, 5, 1)]).unwrap();
        compiler.upsert_identity(identity, Uuid::from_u128(2), &"red".parse().unwrap()).unwrap();
        compiler.remove_identity(identity);
        compiler.remove_policy(&name(0));
        compiler.remove_policy(&name(1));
        assert!(compiler.workloads.is_empty());
        assert!(compiler.rules.is_empty());
    }
}
