//! Policies as Cloud Foundry's policy API writes and lists them.
//!
//! Each is a policy of one rule, named after what it says, so that writing one twice is one. Ids are apps' GUIDs, or the
//! UUID of any workload of any platform. An id that nobody has seen is taken to be of the first Cloud Foundry cluster, so
//! that its policy is in force when the app appears.
//!
//! The list also shows rules of other policies between two workloads for ports of TCP or UDP. Deleting such an entry
//! takes the rule out of its policy: what is listed can be deleted.

use super::{
    CommitError, RETRIES_MAX, Registry,
    policies::{self, PolicyError},
};
use crate::{
    kinds::{self, CfPolicy, StoredPolicy, StoredRule, StoredWorkload},
    problem::{Code, Fault},
    view::View,
};
use isthmus_core::{Labels, Platform, PortMatch, PortRange, Protocol, WorkloadKey};
use isthmus_store::{Compare, Operation, StoreError, Txn};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Policies written in one transaction: each can bring two apps with it.
const CHUNK: usize = 128;
/// Bytes of an id, as in the column of the original's database.
const ID_BYTES_MAX: usize = 255;

/// Why policies could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CfError {
    #[error(
        "id \"{0}\" is no UUID and no known app, and there is no Cloud Foundry cluster that it could be of: isthmus cluster create NAME --platform cloudfoundry"
    )]
    NoCluster(String),
    #[error("an id is {0} bytes long, at most {ID_BYTES_MAX} are allowed")]
    LongId(usize),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for CfError {
    fn code(&self) -> Code {
        match self {
            Self::NoCluster(_) => Code::UnknownName,
            Self::LongId(_) => Code::TooLarge,
            Self::Policy(error) => error.code(),
            Self::Commit(error) => error.code(),
        }
    }
}

impl From<StoreError> for CfError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// One policy to be made, with its rule's ends.
struct Wanted {
    policy: CfPolicy,
    /// Nothing where no packet can match, as for a port above 65535, which version 0 of the API stores.
    rule: Option<(Uuid, Uuid, PortMatch)>,
}

impl Registry {
    /// All policies that the API can say, in a fixed order.
    pub(crate) async fn list_cf_policies(&self) -> Result<BTreeSet<CfPolicy>, CfError> {
        let view = self.fresh_view().await?;
        let mut policies = BTreeSet::new();
        for held in view.policies.values() {
            match &held.value.cf {
                Some(policy) => {
                    policies.insert(policy.clone());
                }
                None => policies.extend(held.value.rules.iter().filter_map(|rule| as_cf_policy(&view, rule))),
            }
        }
        Ok(policies)
    }

    /// Makes policies; those that are there stay.
    ///
    /// # Errors
    ///
    /// A store's failure can leave the first of several hundred policies written; the same call again writes the rest.
    pub(crate) async fn create_cf_policies(&self, policies: BTreeSet<CfPolicy>) -> Result<(), CfError> {
        let policies: Vec<CfPolicy> = policies.into_iter().collect();
        for chunk in policies.chunks(CHUNK) {
            let mut written = false;
            for _ in 0..RETRIES_MAX {
                written = self.try_create_cf(chunk).await?;
                if written {
                    break;
                }
            }
            if !written {
                return Err(CommitError::Contended { what: "policies of Cloud Foundry".to_owned() }.into());
            }
        }
        Ok(())
    }

    async fn try_create_cf(&self, policies: &[CfPolicy]) -> Result<bool, CfError> {
        let mut new = BTreeMap::new();
        let wanted = {
            let view = self.fresh_view().await?;
            let missing = policies.iter().filter(|policy| !view.policies.contains_key(&policy.policy_name()));
            missing.map(|policy| wanted(&view, policy, &mut new)).collect::<Result<Vec<_>, _>>()?
        };
        if wanted.is_empty() {
            return Ok(true);
        }
        let numbers = self.rule_numbers(wanted.len()).await?;
        let mut txn = policies::with_workloads(Txn::new(), &new);
        for (wanted, number) in wanted.into_iter().zip(numbers) {
            let key = kinds::policy_key(&wanted.policy.policy_name());
            let rules =
                wanted.rule.map(|(from, to, port)| StoredRule { from, to, port: port.to_string(), number });
            let policy = StoredPolicy {
                uuid: Uuid::new_v4(),
                labels: Labels::new(),
                reason: None,
                rules: rules.into_iter().collect(),
                cf: Some(wanted.policy),
            };
            txn = txn.when(Compare::absent(&key)).then(Operation::put(key, kinds::encode(&policy)));
        }
        Ok(self.commit(txn).await?.is_some())
    }

    /// Deletes policies that are exactly equal, wherever they came from. What is not there is no error.
    pub(crate) async fn delete_cf_policies(&self, policies: BTreeSet<CfPolicy>) -> Result<(), CfError> {
        let (own, others) = {
            let view = self.fresh_view().await?;
            let names = policies.iter().map(CfPolicy::policy_name);
            let own: Vec<String> = names.filter(|name| view.policies.contains_key(name)).collect();
            let mut others = BTreeSet::new();
            for policy in &policies {
                let Some(to) = known_workload(&view, &policy.destination) else { continue };
                others
                    .extend(view.policies_of(to).filter(|name| has_equal_rule(&view, name, policy)).cloned());
            }
            (own, others)
        };
        for chunk in own.chunks(CHUNK) {
            let txn = chunk
                .iter()
                .fold(Txn::new(), |txn, name| txn.then(Operation::delete(kinds::policy_key(name))));
            self.commit(txn).await?;
        }
        for name in others {
            self.remove_rules(&name, &policies).await?;
        }
        Ok(())
    }

    /// Takes equal rules out of a policy that was not made here; one without rules is deleted.
    async fn remove_rules(&self, name: &str, policies: &BTreeSet<CfPolicy>) -> Result<(), CfError> {
        let key = kinds::policy_key(name);
        for _ in 0..RETRIES_MAX {
            let Some((mut held, revision)) = self.read::<StoredPolicy>(&key)? else { return Ok(()) };
            let before = held.rules.len();
            {
                let view = self.fresh_view().await?;
                held.rules.retain(|rule| {
                    as_cf_policy(&view, rule).is_none_or(|policy| !policies.contains(&policy))
                });
            }
            if held.rules.len() == before {
                return Ok(());
            }
            let operation = if held.rules.is_empty() {
                Operation::delete(&key)
            } else {
                Operation::put(&key, kinds::encode(&held))
            };
            let txn = Txn::new().when(Compare::unchanged(&key, revision)).then(operation);
            if self.commit(txn).await?.is_some() {
                tracing::info!(policy = name, "rules removed through cloud foundry's policy API");
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("policy {name}") }.into())
    }
}

fn wanted(
    view: &View,
    policy: &CfPolicy,
    new: &mut BTreeMap<Uuid, StoredWorkload>,
) -> Result<Wanted, CfError> {
    let from = workload(view, &policy.source, new)?;
    let to = workload(view, &policy.destination, new)?;
    Ok(Wanted { rule: port(policy).map(|port| (from, to, port)), policy: policy.clone() })
}

/// The workload that an id means; one that nobody has seen is added to `new` where there is a cluster for it.
fn workload(view: &View, id: &str, new: &mut BTreeMap<Uuid, StoredWorkload>) -> Result<Uuid, CfError> {
    if id.len() > ID_BYTES_MAX {
        return Err(CfError::LongId(id.len()));
    }
    if let Some(uuid) = known_workload(view, id) {
        return Ok(uuid);
    }
    let parsed = Uuid::try_parse(id).ok();
    let Some(cluster) = view.first_cf_cluster() else {
        return parsed.ok_or_else(|| CfError::NoCluster(id.to_owned()));
    };
    let id = parsed.map_or_else(|| id.to_owned(), |uuid| uuid.to_string());
    let workload = policies::unseen_workload(cluster, &id);
    let uuid = workload.uuid().ok_or_else(|| CfError::NoCluster(id.clone()))?;
    new.insert(uuid, workload);
    Ok(uuid)
}

fn known_workload(view: &View, id: &str) -> Option<Uuid> {
    if let Ok(uuid) = Uuid::try_parse(id) {
        return view.workloads.contains_key(&uuid).then_some(uuid);
    }
    let clusters = view.clusters.iter().filter(|(_, held)| held.value.platform() == Platform::CloudFoundry);
    clusters
        .filter_map(|(cluster, _)| {
            Some(WorkloadKey { cluster: cluster.parse().ok()?, id: id.to_owned() }.uuid())
        })
        .find(|uuid| view.workloads.contains_key(uuid))
}

/// Protocol and ports, where packets can have them.
fn port(policy: &CfPolicy) -> Option<PortMatch> {
    let protocol: Protocol = policy.protocol.parse().ok()?;
    let ports = PortRange::new(u16::try_from(policy.start).ok()?, u16::try_from(policy.end).ok()?).ok()?;
    PortMatch::new(protocol, ports).ok()
}

/// A rule as the API says it; nothing for what it cannot say.
fn as_cf_policy(view: &View, rule: &StoredRule) -> Option<CfPolicy> {
    let port = rule.port()?;
    if !port.protocol().has_ports() {
        return None;
    }
    Some(CfPolicy {
        source: id_of(view, rule.from),
        destination: id_of(view, rule.to),
        protocol: port.protocol().as_str().to_owned(),
        // The API has no port 0.
        start: i64::from(port.ports().first().max(1)),
        end: i64::from(port.ports().last()),
    })
}

/// What Cloud Foundry calls a workload: its GUID, or the UUID of one of another platform.
fn id_of(view: &View, uuid: Uuid) -> String {
    let held = view.workloads.get(&uuid).map(|held| &held.value);
    let own = held.filter(|held| view.platform(&held.cluster) == Platform::CloudFoundry);
    own.map_or_else(|| uuid.to_string(), |held| held.id.clone())
}

fn has_equal_rule(view: &View, name: &str, policy: &CfPolicy) -> bool {
    let Some(held) = view.policies.get(name) else { return false };
    held.value.cf.is_none()
        && held.value.rules.iter().any(|rule| as_cf_policy(view, rule).as_ref() == Some(policy))
}
