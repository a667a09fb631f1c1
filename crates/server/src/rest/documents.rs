//! Between the API's documents and our words, both ways.

use super::Refusal;
use crate::{
    agents::Agents,
    kinds::{self as stored, StoredBgpPeer, StoredPolicy, StoredPrefixMatch},
    problem::Code,
    registry::{
        BgpPeerDraft, ClusterDraft, NetworkDraft, NodeSettingsDraft, PolicyDraft, PoolDraft, RuleDraft,
    },
    view::View,
};
use isthmus_api::rest::{
    BgpPeerSpec, BlockSpec, ClusterSpec, Draft, EndpointSpec, IdentitySpec, NetworkSpec, NodeSettings,
    NodeSpec, PolicySpec, PoolSpec, PrefixMatch, Resource, RuleSpec, WorkloadSpec,
};
use isthmus_core::{
    Asn, BgpPeerName, ClusterName, DefaultVerdict, DenyAnswer, Encapsulation, Identity, Labels, NodeName,
    PolicyName, PoolName, SourceCheck,
};
use std::net::Ipv4Addr;
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

/// A text that is read by `FromStr`, if any; what it is not says its error.
fn read<T: std::str::FromStr>(value: Option<&String>) -> Result<Option<T>, Refusal>
where
    T::Err: std::fmt::Display,
{
    value.map(|text| text.parse().map_err(|why: T::Err| Refusal::bad(why.to_string()))).transpose()
}

fn asn(number: Option<u32>) -> Result<Option<Asn>, Refusal> {
    number.map(|number| Asn::new(number).map_err(|why| Refusal::bad(format!("asn: {why}")))).transpose()
}

fn paths_max(paths: Option<u8>) -> Result<Option<u8>, Refusal> {
    match paths {
        Some(0) => Err(Refusal::bad(
            "pathsMax is 0: write 1 or more, or leave it out for as many as the kernel takes",
        )),
        paths => Ok(paths),
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
        asn: asn(spec.asn)?,
        topology: read(spec.topology.as_ref())?,
        announce_endpoints: spec.announce_endpoints,
        paths_max: paths_max(spec.paths_max)?,
        external: spec.external,
    })
}

pub(super) fn node_settings_draft(draft: &Draft<NodeSettings>) -> Result<NodeSettingsDraft, Refusal> {
    let id = |text: &String| {
        let id = text.parse::<Ipv4Addr>().ok().filter(|id| !id.is_unspecified());
        // RFC 4456 section 8: the cluster id is four octets; 0.0.0.0 is nobody's.
        id.ok_or_else(|| {
            Refusal::bad(format!("reflector is \"{text}\", which is no cluster id: write one like 10.0.0.1"))
        })
    };
    Ok(NodeSettingsDraft {
        name: name::<NodeName>(&draft.name)?,
        labels: labels(&draft.labels)?,
        asn: asn(draft.spec.asn)?,
        reflector: draft.spec.reflector.as_ref().map(id).transpose()?,
    })
}

pub(super) fn network_draft(draft: &Draft<NetworkSpec>) -> Result<NetworkDraft, Refusal> {
    Ok(NetworkDraft {
        labels: labels(&draft.labels)?,
        encapsulation: read(draft.spec.encapsulation.as_ref())?.unwrap_or_default(),
        source_check: read(draft.spec.source_check.as_ref())?.unwrap_or_default(),
    })
}

pub(super) fn bgp_peer_draft(draft: Draft<BgpPeerSpec>) -> Result<BgpPeerDraft, Refusal> {
    Ok(BgpPeerDraft {
        name: name::<BgpPeerName>(&draft.name)?,
        labels: labels(&draft.labels)?,
        spec: draft.spec,
    })
}

pub(super) fn pool_draft(draft: &Draft<PoolSpec>) -> Result<PoolDraft, Refusal> {
    Ok(PoolDraft {
        name: name::<PoolName>(&draft.name)?,
        labels: labels(&draft.labels)?,
        cluster: name::<ClusterName>(&draft.spec.cluster)?,
        cidrs: draft.spec.cidrs.clone(),
        block_len: draft.spec.block_len,
        world: draft.spec.world,
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
        asn: value.asn().map(Asn::number),
        topology: value.asn().map(|_asn| value.topology().as_str().to_owned()),
        announce_endpoints: value.announce_endpoints,
        paths_max: value.paths_max,
        external: value.external,
    };
    Some(resource("cluster", name.to_owned(), value.uuid, held.revision, value.labels.clone(), spec))
}

pub(super) fn pool(view: &View, name: &str) -> Option<Resource<PoolSpec>> {
    let held = view.pools.get(name)?;
    let value = &held.value;
    let spec = PoolSpec {
        cluster: value.cluster.clone(),
        cidrs: value.cidrs.iter().map(ToString::to_string).collect(),
        block_len: (!view.is_external(&value.cluster)).then_some(value.block_len),
        world: value.world,
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
        asn: value.settings.asn,
        reflector: value.settings.reflector.map(|id| id.to_string()),
    };
    let labels = value.settings.labels.clone();
    Some(resource("node", name.to_owned(), value.uuid, held.revision, labels, spec))
}

/// The network's setting, with its defaults where nobody has set it.
pub(super) fn network(view: &View) -> Resource<NetworkSpec> {
    let held = view.network.as_ref();
    let encapsulation = held.map_or(Encapsulation::default(), |held| held.value.encapsulation());
    let source_check = held.map_or(SourceCheck::default(), |held| held.value.source_check());
    let spec = NetworkSpec {
        encapsulation: Some(encapsulation.as_str().to_owned()),
        source_check: Some(source_check.as_str().to_owned()),
    };
    let uuid = stored::object_uuid("network", "network");
    let labels = held.map(|held| held.value.labels.clone()).unwrap_or_default();
    resource("network", "network".to_owned(), uuid, held.map_or(0, |held| held.revision), labels, spec)
}

pub(super) fn bgp_peer(view: &View, name: &str) -> Option<Resource<BgpPeerSpec>> {
    let held = view.bgp_peers.get(name)?;
    let spec = bgp_peer_spec(&held.value);
    Some(resource(
        "bgpPeer",
        name.to_owned(),
        held.value.uuid,
        held.revision,
        held.value.labels.clone(),
        spec,
    ))
}

/// A neighbour without its password.
pub(super) fn bgp_peer_spec(peer: &StoredBgpPeer) -> BgpPeerSpec {
    BgpPeerSpec {
        address: peer.address.to_string(),
        asn: peer.asn,
        cluster: peer.cluster.clone(),
        nodes: peer.nodes.clone(),
        node_labels: peer.node_labels.clone(),
        password: None,
        password_set: peer.password.is_some(),
        hold_seconds: peer.hold_seconds,
        passive: peer.passive,
        multihop_ttl: peer.multihop_ttl,
        ttl_security: peer.ttl_security,
        bfd: peer.bfd,
        restart_seconds: Some(peer.restart_seconds),
        reflector_client: peer.reflector_client,
        import: prefixes(&peer.import),
        import_own_pools: peer.import_own_pools,
        import_default_route: peer.import_default_route,
        export: prefixes(&peer.export),
        export_blocks: Some(peer.export_blocks),
        communities: peer.communities.clone(),
        prefixes_max: Some(peer.prefixes_max),
        families: peer.families.clone(),
        local_pref: peer.local_pref,
        port: peer.port,
    }
}

fn prefixes(matches: &[StoredPrefixMatch]) -> Vec<PrefixMatch> {
    let prefix = |entry: &StoredPrefixMatch| PrefixMatch {
        cidr: entry.cidr.to_string(),
        len_min: Some(entry.len_min),
        len_max: Some(entry.len_max),
    };
    matches.iter().map(prefix).collect()
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
