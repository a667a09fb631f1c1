//! BGP neighbours. A neighbour is checked as a whole: whoever wrote it hears of all its faults at once.

use super::{CommitError, RETRIES_MAX, Registry};
use crate::{
    kinds::{self, PeerAddress, StoredBgpPeer, StoredPrefixMatch},
    problem::{Code, Fault},
    view::View,
};
use ipnet::IpNet;
use isthmus_api::rest::{BgpPeerSpec, PrefixMatch, Secret};
use isthmus_core::{Asn, BgpPeerName, ClusterName, Labels, NodeName};
use isthmus_store::{Compare, Operation, Revision, StoreError, Txn};
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

/// Graceful restart unless told otherwise, in seconds.
const RESTART_SECONDS: u32 = 120;
/// The longest one that an OPEN can carry (RFC 4724 section 3: 12 bits).
const RESTART_SECONDS_MAX: u32 = 4_095;
/// Prefixes from one neighbour unless told otherwise.
const PREFIXES_MAX: u32 = 10_000;
/// Longest key that the kernel takes (`TCP_MD5SIG_MAXKEYLEN`).
const PASSWORD_BYTES_MAX: usize = 80;
/// Entries of each list of a neighbour.
const ENTRIES_MAX: usize = 1_000;
/// Communities of a neighbour.
const COMMUNITIES_MAX: usize = 32;
/// Neighbours of the whole network.
const PEERS_MAX: usize = 10_000;

/// What a neighbour shall be.
#[derive(Clone, Debug)]
pub(crate) struct BgpPeerDraft {
    pub(crate) name: BgpPeerName,
    pub(crate) labels: Labels,
    pub(crate) spec: BgpPeerSpec,
}

/// Why a neighbour could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BgpPeerError {
    #[error("there is a bgpPeer {0} already")]
    Exists(BgpPeerName),
    #[error("there is no bgpPeer {0}")]
    Missing(BgpPeerName),
    #[error("bgpPeer {name} is at revision {found}, not {wanted}: somebody changed it meanwhile")]
    Changed { name: BgpPeerName, wanted: Revision, found: Revision },
    #[error("bgpPeer {name} cannot be:\n{}", .faults.join("\n"))]
    Faults { name: BgpPeerName, faults: Vec<String> },
    #[error("there are {PEERS_MAX} bgpPeers already, and no more are allowed")]
    TooMany,
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for BgpPeerError {
    fn code(&self) -> Code {
        match self {
            Self::Exists(_) | Self::Changed { .. } => Code::Conflict,
            Self::Missing(_) => Code::NotFound,
            Self::Faults { .. } => Code::BadPeer,
            Self::TooMany => Code::TooLarge,
            Self::Commit(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("read it again, and write with the new ETag".to_owned()),
            Self::Faults { .. } => Some("correct all of these; nothing was changed".to_owned()),
            Self::TooMany => Some("use a CIDR: all who connect from there are one bgpPeer".to_owned()),
            _ => None,
        }
    }
}

impl From<StoreError> for BgpPeerError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl Registry {
    /// Makes a neighbour. With `dry`, only says whether it could. Returns what it is with all defaults.
    pub(crate) async fn create_bgp_peer(
        &self,
        draft: &BgpPeerDraft,
        dry: bool,
    ) -> Result<StoredBgpPeer, BgpPeerError> {
        let key = kinds::bgp_peer_key(draft.name.as_str());
        let exists = || BgpPeerError::Exists(draft.name.clone());
        if self.store.entry(&key)?.is_some() {
            return Err(exists());
        }
        let peer = self.checked(draft, Uuid::new_v4(), None).await?;
        if dry {
            return Ok(peer);
        }
        let txn = Txn::new().when(Compare::absent(&key)).then(Operation::put(&key, kinds::encode(&peer)));
        self.commit(txn).await?.map(|_revision| peer).ok_or_else(exists)
    }

    /// Replaces a neighbour, if it is at revision `wanted` where one is given.
    pub(crate) async fn replace_bgp_peer(
        &self,
        draft: &BgpPeerDraft,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<StoredBgpPeer, BgpPeerError> {
        let key = kinds::bgp_peer_key(draft.name.as_str());
        for _ in 0..RETRIES_MAX {
            let (held, found) = self.held_bgp_peer(&draft.name, wanted)?;
            let peer = self.checked(draft, held.uuid, held.password.as_ref()).await?;
            if dry || peer == held {
                return Ok(peer);
            }
            let txn = Txn::new()
                .when(Compare::unchanged(&key, found))
                .then(Operation::put(&key, kinds::encode(&peer)));
            if self.commit(txn).await?.is_some() {
                return Ok(peer);
            }
        }
        Err(CommitError::Contended { what: format!("bgpPeer {}", draft.name) }.into())
    }

    /// Deletes a neighbour.
    pub(crate) async fn delete_bgp_peer(
        &self,
        name: &BgpPeerName,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<(), BgpPeerError> {
        let key = kinds::bgp_peer_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let (_, found) = self.held_bgp_peer(name, wanted)?;
            if dry {
                return Ok(());
            }
            let txn = Txn::new().when(Compare::unchanged(&key, found)).then(Operation::delete(&key));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("bgpPeer {name}") }.into())
    }

    fn held_bgp_peer(
        &self,
        name: &BgpPeerName,
        wanted: Option<Revision>,
    ) -> Result<(StoredBgpPeer, Revision), BgpPeerError> {
        let held = self.read::<StoredBgpPeer>(&kinds::bgp_peer_key(name.as_str()))?;
        let (held, found) = held.ok_or_else(|| BgpPeerError::Missing(name.clone()))?;
        match wanted.filter(|wanted| *wanted != found) {
            Some(wanted) => Err(BgpPeerError::Changed { name: name.clone(), wanted, found }),
            None => Ok((held, found)),
        }
    }

    async fn checked(
        &self,
        draft: &BgpPeerDraft,
        uuid: Uuid,
        password: Option<&Secret>,
    ) -> Result<StoredBgpPeer, BgpPeerError> {
        let mut faults = Vec::new();
        let peer = stored(draft, uuid, password, &mut faults);
        let view = self.fresh_view().await?;
        if view.bgp_peers.len() >= PEERS_MAX && !view.bgp_peers.contains_key(draft.name.as_str()) {
            return Err(BgpPeerError::TooMany);
        }
        if let Some(cluster) = &draft.spec.cluster
            && !view.clusters.contains_key(cluster)
        {
            faults.push(format!("cluster: there is no cluster {cluster}"));
        }
        if let Some(peer) = &peer {
            beside_others(&view, draft.name.as_str(), peer, &mut faults);
        }
        match peer {
            Some(peer) if faults.is_empty() => Ok(peer),
            _ => Err(BgpPeerError::Faults { name: draft.name.clone(), faults }),
        }
    }
}

/// No node has two neighbours at one address.
fn beside_others(view: &View, name: &str, peer: &StoredBgpPeer, faults: &mut Vec<String>) {
    let same =
        view.bgp_peers.iter().filter(|(other, held)| *other != name && held.value.address == peer.address);
    for (other, held) in same {
        let both = view.nodes.iter().find(|(node, node_held)| {
            let (clusters, labels) = (&node_held.value.clusters, &node_held.value.settings.labels);
            peer.selects(node, clusters, labels) && held.value.selects(node, clusters, labels)
        });
        if let Some((node, _)) = both {
            faults.push(format!(
                "address: {} is bgpPeer {other}'s already on node {node}: choose other nodes for one of them",
                peer.address
            ));
        }
    }
}

/// Reads a draft; what is wrong goes to `faults`. `None` only if the address cannot be read.
fn stored(
    draft: &BgpPeerDraft,
    uuid: Uuid,
    held: Option<&Secret>,
    faults: &mut Vec<String>,
) -> Option<StoredBgpPeer> {
    let spec = &draft.spec;
    let address = address(&spec.address).map_err(|why| faults.push(format!("address: {why}"))).ok();
    let range = matches!(address, Some(PeerAddress::Range(_)));
    if let Some(Err(why)) = spec.asn.map(Asn::new) {
        faults.push(format!("asn: {why}"));
    }
    if let Some(Err(why)) = spec.cluster.as_ref().map(|name| name.parse::<ClusterName>()) {
        faults.push(format!("cluster: {why}"));
    }
    for name in &spec.nodes {
        if let Err(why) = name.parse::<NodeName>() {
            faults.push(format!("nodes: {why}"));
        }
    }
    numbers(spec, range, faults);
    let families = lists(spec, faults);
    let import = prefixes("import", &spec.import, faults);
    if !spec.import_default_route
        && import.iter().any(|prefix| prefix.cidr.prefix_len() == 0 && prefix.len_min == 0)
    {
        faults.push("import: it has a default route: say so with importDefaultRoute".to_owned());
    }
    let export = prefixes("export", &spec.export, faults);
    let password = password(spec, held, faults);
    Some(StoredBgpPeer {
        uuid,
        labels: draft.labels.clone(),
        address: address?,
        asn: spec.asn,
        cluster: spec.cluster.clone(),
        nodes: spec.nodes.clone(),
        node_labels: spec.node_labels.clone(),
        password,
        hold_seconds: spec.hold_seconds,
        passive: spec.passive || range,
        multihop_ttl: spec.multihop_ttl,
        ttl_security: spec.ttl_security,
        bfd: spec.bfd,
        restart_seconds: spec.restart_seconds.unwrap_or(RESTART_SECONDS),
        reflector_client: spec.reflector_client,
        import,
        import_own_pools: spec.import_own_pools,
        import_default_route: spec.import_default_route,
        export,
        export_blocks: spec.export_blocks.unwrap_or(true),
        communities: spec.communities.clone(),
        prefixes_max: spec.prefixes_max.unwrap_or(PREFIXES_MAX),
        families: families.into_iter().collect(),
        local_pref: spec.local_pref,
        port: spec.port,
    })
}

/// Checks how long the lists are, and reads those of words. Returns the families, each once.
fn lists(spec: &BgpPeerSpec, faults: &mut Vec<String>) -> BTreeSet<String> {
    for (what, found, max) in [
        ("nodes", spec.nodes.len(), ENTRIES_MAX),
        ("nodeLabels", spec.node_labels.len(), ENTRIES_MAX),
        ("import", spec.import.len(), ENTRIES_MAX),
        ("export", spec.export.len(), ENTRIES_MAX),
        ("communities", spec.communities.len(), COMMUNITIES_MAX),
    ] {
        if found > max {
            faults.push(format!("{what}: {found} entries, at most {max} are allowed"));
        }
    }
    for community in spec.communities.iter().take(COMMUNITIES_MAX) {
        if !is_community(community) {
            faults.push(format!("communities: \"{community}\" is none: write a:b, two numbers up to 65535"));
        }
    }
    let mut families = BTreeSet::new();
    for family in &spec.families {
        if !["ipv4-unicast", "ipv6-unicast"].contains(&family.as_str()) {
            faults.push(format!("families: \"{family}\" is none: write ipv4-unicast or ipv6-unicast"));
        }
        families.insert(family.clone());
    }
    families
}

fn address(text: &str) -> Result<PeerAddress, String> {
    let read = match text.parse::<IpAddr>() {
        Ok(address) => PeerAddress::One(address),
        Err(_) => match text.parse::<IpNet>() {
            Ok(range) if range.trunc() != range => {
                return Err(format!("{range} has bits set behind its prefix: write {}", range.trunc()));
            }
            Ok(range) if range.prefix_len() == 0 => {
                return Err(format!("{range} is everybody: write the range that neighbours are in"));
            }
            Ok(range) => PeerAddress::Range(range),
            Err(_) => return Err(format!("\"{text}\" is no address and no CIDR: write one like 192.0.2.1")),
        },
    };
    let first = match read {
        PeerAddress::One(address) => address,
        PeerAddress::Range(range) => range.network(),
    };
    let link_local = matches!(first, IpAddr::V6(address) if address.is_unicast_link_local());
    if first.is_loopback() || first.is_multicast() || first.is_unspecified() || link_local {
        return Err(format!("{text} cannot be a neighbour's address"));
    }
    Ok(read)
}

fn numbers(spec: &BgpPeerSpec, range: bool, faults: &mut Vec<String>) {
    let mut within = |what: &str, value: Option<u32>, min: u32, max: u32| {
        if let Some(value) = value.filter(|value| !(min..=max).contains(value)) {
            faults.push(format!("{what}: {value} is not from {min} to {max}"));
        }
    };
    // RFC 4271 section 4.2: a hold time of 1 or 2 seconds cannot be; none at all would never notice a dead neighbour.
    within("holdSeconds", spec.hold_seconds, 3, 65_535);
    within("multihopTtl", spec.multihop_ttl, 2, 255);
    within("restartSeconds", spec.restart_seconds, 0, RESTART_SECONDS_MAX);
    within("prefixesMax", spec.prefixes_max, 1, 10_000_000);
    within("localPref", spec.local_pref, 1, u32::MAX);
    within("port", spec.port, 1, 65_535);
    if spec.multihop_ttl.is_some() && spec.ttl_security {
        faults.push(
            "multihopTtl and ttlSecurity exclude each other: a far neighbour's TTL is not 255".to_owned(),
        );
    }
    if range && spec.port.is_some() {
        faults.push("port: neighbours of a range connect to us, so there is no port to choose".to_owned());
    }
}

fn password(spec: &BgpPeerSpec, held: Option<&Secret>, faults: &mut Vec<String>) -> Option<Secret> {
    let Some(Secret(text)) = &spec.password else {
        if spec.password_set && held.is_none() {
            faults.push("passwordSet: there is no password to keep: write password".to_owned());
        }
        return held.filter(|_| spec.password_set).cloned();
    };
    if text.is_empty() || text.len() > PASSWORD_BYTES_MAX {
        faults.push(format!("password: it has {} bytes, not 1 to {PASSWORD_BYTES_MAX}", text.len()));
    } else if text.chars().any(char::is_control) {
        faults.push("password: it has control characters, perhaps the end of a line".to_owned());
    }
    Some(Secret(text.clone()))
}

fn prefixes(what: &str, matches: &[PrefixMatch], faults: &mut Vec<String>) -> Vec<StoredPrefixMatch> {
    let mut read = Vec::new();
    for entry in matches.iter().take(ENTRIES_MAX) {
        match prefix(entry) {
            Ok(prefix) => read.push(prefix),
            Err(why) => faults.push(format!("{what}: {why}")),
        }
    }
    read
}

fn prefix(entry: &PrefixMatch) -> Result<StoredPrefixMatch, String> {
    let text = &entry.cidr;
    let cidr: IpNet =
        text.parse().map_err(|_why| format!("\"{text}\" is no CIDR: write one like 10.0.0.0/8"))?;
    if cidr.trunc() != cidr {
        return Err(format!("{cidr} has bits set behind its prefix: write {}", cidr.trunc()));
    }
    let len_min = entry.len_min.unwrap_or(cidr.prefix_len());
    let len_max = entry.len_max.unwrap_or(len_min);
    if len_min < cidr.prefix_len() || len_max < len_min || len_max > cidr.max_prefix_len() {
        let (least, most) = (cidr.prefix_len(), cidr.max_prefix_len());
        return Err(format!("{cidr}: lengths {len_min} to {len_max} are not within {least} to {most}"));
    }
    Ok(StoredPrefixMatch { cidr, len_min, len_max })
}

/// RFC 1997: two numbers of 16 bits.
fn is_community(text: &str) -> bool {
    text.split_once(':').is_some_and(|(high, low)| high.parse::<u16>().is_ok() && low.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(spec: BgpPeerSpec) -> BgpPeerDraft {
        BgpPeerDraft { name: "tor".parse().unwrap(), labels: Labels::new(), spec }
    }

    fn read(spec: BgpPeerSpec, held: Option<&Secret>) -> Result<StoredBgpPeer, Vec<String>> {
        let mut faults = Vec::new();
        let peer = stored(&draft(spec), Uuid::nil(), held, &mut faults);
        peer.filter(|_| faults.is_empty()).ok_or(faults)
    }

    fn plain(address: &str) -> BgpPeerSpec {
        BgpPeerSpec { address: address.to_owned(), ..BgpPeerSpec::default() }
    }

    #[test]
    fn what_is_left_out_is_safe() {
        let peer = read(plain("192.0.2.1"), None).unwrap();
        assert_eq!((peer.restart_seconds, peer.prefixes_max, peer.export_blocks), (120, 10_000, true));
        assert!(peer.import.is_empty() && !peer.import_own_pools && !peer.import_default_route);
        assert!(!peer.passive);
        assert!(read(plain("192.0.2.0/24"), None).unwrap().passive, "a range is waited for");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let spec = BgpPeerSpec {
            address: "192.0.2.1/24".to_owned(),
            asn: Some(23_456),
            nodes: vec!["a/b".to_owned()],
            password: Some(Secret("x".repeat(81))),
            hold_seconds: Some(2),
            multihop_ttl: Some(1),
            ttl_security: true,
            restart_seconds: Some(4_096),
            import: vec![
                PrefixMatch { cidr: "10.0.0.1/8".to_owned(), len_min: None, len_max: None },
                PrefixMatch { cidr: "0.0.0.0/0".to_owned(), len_min: None, len_max: Some(8) },
            ],
            export: vec![PrefixMatch { cidr: "10.0.0.0/8".to_owned(), len_min: Some(4), len_max: None }],
            communities: vec!["65536:1".to_owned()],
            prefixes_max: Some(0),
            families: vec!["l2vpn".to_owned()],
            local_pref: Some(0),
            port: Some(65_536),
            ..BgpPeerSpec::default()
        };
        let faults = read(spec, None).unwrap_err();
        for part in [
            "address: 192.0.2.1/24 has bits set",
            "asn: AS 23456",
            "nodes: node name \"a/b\"",
            "password: it has 81 bytes",
            "holdSeconds: 2",
            "multihopTtl: 1",
            "multihopTtl and ttlSecurity",
            "restartSeconds: 4096",
            "import: 10.0.0.1/8",
            "import: it has a default route",
            "export: 10.0.0.0/8: lengths 4 to 4",
            "communities: \"65536:1\"",
            "prefixesMax: 0",
            "families: \"l2vpn\"",
            "localPref: 0",
            "port: 65536",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(part)), "{part}: {faults:#?}");
        }
        assert!(!format!("{faults:?}").contains("xxx"), "a password is not repeated");
        for address in ["", "router", "0.0.0.0/0", "127.0.0.1", "224.0.0.1", "fe80::1"] {
            assert!(read(plain(address), None).is_err(), "{address}");
        }
        let ranged = BgpPeerSpec { port: Some(1_179), ..plain("192.0.2.0/24") };
        assert!(read(ranged, None).unwrap_err()[0].starts_with("port: "));
    }

    #[test]
    fn a_password_is_kept_only_if_told() {
        let held = Secret("old".to_owned());
        let of = |spec: BgpPeerSpec, held: Option<&Secret>| read(spec, held).map(|peer| peer.password);
        let kept = BgpPeerSpec { password_set: true, ..plain("192.0.2.1") };
        assert_eq!(of(kept.clone(), Some(&held)), Ok(Some(held.clone())));
        assert_eq!(of(plain("192.0.2.1"), Some(&held)), Ok(None));
        assert!(of(kept, None).unwrap_err()[0].starts_with("passwordSet: "));
        let new = BgpPeerSpec { password: Some(Secret("new".to_owned())), ..plain("192.0.2.1") };
        assert_eq!(of(new, Some(&held)), Ok(Some(Secret("new".to_owned()))));
        assert!(!format!("{held:?}").contains("old"));
    }
}
