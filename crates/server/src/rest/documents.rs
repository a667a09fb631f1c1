//! Between the API's documents and our words, both ways.

use super::Refusal;
use crate::{
    agents::Agents,
    kinds::{self as stored, StoredPolicy},
    problem::Code,
    registry::{ClusterDraft, PolicyDraft, PoolDraft, RuleDraft},
    view::View,
};
use isthmus_api::rest::{
    BlockSpec, ClusterSpec, Draft, EndpointSpec, IdentitySpec, NodeSpec, PolicySpec, PoolSpec, Resource,
    RuleSpec, WorkloadSpec,
};
use isthmus_core::{ClusterName, DefaultVerdict, DenyAnswer, Identity, Labels, PolicyName, PoolName};
use uuid::Uuid;

/// Labels of one object.
const LABELS_MAX: usize = 64;
/// Bytes of a label's name or value.
const LABEL_BYTES_MAX: usize = 512;

pub(super) fn name<T: std::str::FromStr>(text: &str) -> Result<T, Refusal>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|why: T::Err| Refusal::new(Code::BadName, why.to_string()))
}

fn labels(labels: &Labels) -> Result<Labels, Refusal> {
    if labels.len() > LABELS_MAX {
        return Err(Refusal::bad(format!("{} labels, at most {LABELS_MAX} are allowed", labels.len())));
    }
    let long =
        labels.iter().find(|(name, value)| name.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX);
    match long {
        Some((name, _)) => {
            let name: String = name.chars().take(40).collect();
            Err(Refusal::bad(format!("label {name} has more than {LABEL_BYTES_MAX} bytes")))
        }
        None => Ok(labels.clone()),
    }
}

/// One of two words, if any.
fn word(field: &str, value: Option<&String>, no: &str, yes: &str) -> Result<Option<bool>, Refusal> {
    match value.map(String::as_str) {
        None => Ok(None),
        Some(text) if text == yes => Ok(Some(true)),
        Some(text) if text == no => Ok(Some(false)),
        Some(text) => Err(Refusal::bad(format!("{field} is \"{text}\": write {no} or {yes}"))),
    }
}

pub(super) fn cluster_draft(draft: &Draft<ClusterSpec>) -> Result<ClusterDraft, Refusal> {
    let spec = &draft.spec;
    Ok(ClusterDraft {
        name: name::<ClusterName>(&draft.name)?,
        labels: labels(&draft.labels)?,
        platform: spec
            .platform
            .parse()
            .map_err(|why: isthmus_core::PlatformError| Refusal::bad(why.to_string()))?,
        closed: word("default", spec.default.as_ref(), "open", "closed")?,
        reject: word("deny", spec.deny.as_ref(), "drop", "reject")?,
    })
}

pub(super) fn pool_draft(draft: &Draft<PoolSpec>) -> Result<PoolDraft, Refusal> {
    Ok(PoolDraft {
        name: name::<PoolName>(&draft.name)?,
        labels: labels(&draft.labels)?,
        cluster: name::<ClusterName>(&draft.spec.cluster)?,
        cidrs: draft.spec.cidrs.clone(),
        block_len: draft.spec.block_len,
    })
}

pub(super) fn policy_draft(draft: &Draft<PolicySpec>) -> Result<PolicyDraft, Refusal> {
    let rule =
        |rule: &RuleSpec| RuleDraft { from: rule.from.clone(), to: rule.to.clone(), port: rule.port.clone() };
    Ok(PolicyDraft {
        name: name::<PolicyName>(&draft.name)?,
        labels: labels(&draft.labels)?,
        reason: draft.spec.reason.clone(),
        rules: draft.spec.rules.iter().map(rule).collect(),
    })
}

fn resource<S>(kind: &str, name: String, uuid: Uuid, revision: u64, labels: Labels, spec: S) -> Resource<S> {
    Resource { kind: kind.to_owned(), name, uuid, revision, labels, spec }
}

pub(super) fn cluster(view: &View, name: &str) -> Option<Resource<ClusterSpec>> {
    let held = view.clusters.get(name)?;
    let value = &held.value;
    let default = match value.default_verdict() {
        DefaultVerdict::Open => "open",
        DefaultVerdict::Closed => "closed",
    };
    let deny = match value.deny_answer() {
        DenyAnswer::Drop => "drop",
        DenyAnswer::Reject => "reject",
    };
    let spec = ClusterSpec {
        platform: value.platform().as_str().to_owned(),
        default: Some(default.to_owned()),
        deny: Some(deny.to_owned()),
    };
    Some(resource("cluster", name.to_owned(), value.uuid, held.revision, value.labels.clone(), spec))
}

pub(super) fn pool(view: &View, name: &str) -> Option<Resource<PoolSpec>> {
    let held = view.pools.get(name)?;
    let value = &held.value;
    let spec = PoolSpec {
        cluster: value.cluster.clone(),
        cidrs: value.cidrs.iter().map(ToString::to_string).collect(),
        block_len: Some(value.block_len),
    };
    Some(resource("pool", name.to_owned(), value.uuid, held.revision, value.labels.clone(), spec))
}

pub(super) fn node(view: &View, agents: &Agents, name: &str) -> Option<Resource<NodeSpec>> {
    let held = view.nodes.get(name)?;
    let value = &held.value;
    let life = agents.life(view, name);
    let spec = NodeSpec {
        number: value.number,
        addresses: value.addresses.clone(),
        clusters: value.clusters.clone(),
        agent_version: value.agent_version.clone(),
        vxlan_port: value.vxlan_port,
        mtu: value.mtu,
        connected: life.connected,
        revision_in_force: life.revision_in_force,
        problem: life.problem,
        last_seen_unix: life.last_seen_unix,
        endpoints: view.endpoints_on(name).count() as u64,
    };
    Some(resource("node", name.to_owned(), value.uuid, held.revision, Labels::new(), spec))
}

pub(super) fn block(view: &View, name: &str) -> Option<Resource<BlockSpec>> {
    let cidr = stored::parse_block_name(name)?;
    let held = view.blocks.get(&cidr)?;
    let spec = BlockSpec {
        cidr: cidr.to_string(),
        pool: held.value.pool.clone(),
        cluster: held.value.cluster.clone(),
        node: held.value.node.clone(),
        used: view.used(cidr),
    };
    let name = stored::block_name(cidr);
    let uuid = stored::object_uuid("block", &name);
    Some(resource("block", name, uuid, held.revision, Labels::new(), spec))
}

pub(super) fn identity(view: &View, name: &str) -> Option<Resource<IdentitySpec>> {
    let identity: Identity = name.parse().ok()?;
    let held = view.identities.get(&identity).filter(|held| held.value.retired.is_none())?;
    let spec = IdentitySpec {
        identity: identity.to_string(),
        workload: held.value.workload,
        workload_name: view.workload_text(held.value.workload),
        labels: held.value.labels.clone(),
    };
    let name = identity.to_string();
    let uuid = stored::object_uuid("identity", &name);
    Some(resource("identity", name, uuid, held.revision, held.value.labels.clone(), spec))
}

pub(super) fn workload(view: &View, uuid: Uuid) -> Option<Resource<WorkloadSpec>> {
    let held = view.workloads.get(&uuid)?;
    let full_name = view.workload_text(uuid);
    let spec = WorkloadSpec {
        cluster: held.value.cluster.clone(),
        id: held.value.id.clone(),
        full_name: full_name.clone(),
        identities: view.identities_of(uuid).map(|identity| identity.to_string()).collect(),
        endpoints: view.endpoint_count(uuid),
    };
    Some(resource("workload", full_name, uuid, held.revision, held.value.labels.clone(), spec))
}

pub(super) fn endpoint(view: &View, name: &str) -> Option<Resource<EndpointSpec>> {
    let held = view.endpoints.get(name)?;
    let value = &held.value;
    let identity = Identity::new(value.identity).unwrap_or(Identity::UNKNOWN);
    let spec = EndpointSpec {
        cluster: value.cluster.clone(),
        node: value.node.clone(),
        workload: value.workload,
        workload_name: view.workload_text(value.workload),
        identity: identity.to_string(),
        addresses: value.addresses.clone(),
        mac: value.mac.clone(),
        host_interface: value.host_interface.clone(),
        instance: value.instance.clone(),
        created_unix: value.created_unix,
    };
    let uuid = stored::object_uuid("endpoint", name);
    Some(resource("endpoint", name.to_owned(), uuid, held.revision, value.labels.clone(), spec))
}

/// A policy; with `names`, its apps by their full names.
pub(super) fn policy(view: &View, name: &str, names: bool) -> Option<Resource<PolicySpec>> {
    let held = view.policies.get(name)?;
    let spec = policy_spec(view, &held.value, names);
    Some(resource("policy", name.to_owned(), held.value.uuid, held.revision, held.value.labels.clone(), spec))
}

pub(super) fn policy_spec(view: &View, policy: &StoredPolicy, names: bool) -> PolicySpec {
    let app = |uuid: Uuid| if names { view.workload_text(uuid) } else { uuid.to_string() };
    let rules = policy.rules.iter().map(|rule| RuleSpec {
        from: app(rule.from),
        to: app(rule.to),
        port: rule.port.clone(),
    });
    PolicySpec { rules: rules.collect(), reason: policy.reason.clone() }
}
