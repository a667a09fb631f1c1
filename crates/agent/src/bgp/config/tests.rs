use super::*;
use isthmus_api::stream::{Bgp, BgpPeer, Block, Network, Pool, PrefixMatch, Upsert, upsert};
use isthmus_bgp::{Asn, Candidate, Neighbor, Policy, Verdict};
use isthmus_speaker::route_policy::compile;

/// An address, and whether its AS is another.
type Who = (IpAddr, bool);

fn passes(policy: &dyn Policy, prefix: &str, source: Option<Who>, target: Option<Who>) -> bool {
    let neighbor = |(address, external)| Neighbor { address, asn: Asn(1), external };
    let prefix = prefix.parse().unwrap();
    let attributes = Attributes::default();
    let candidate = Candidate {
        prefix: &prefix,
        attributes: &attributes,
        source: source.map(neighbor),
        target: target.map(neighbor),
    };
    policy.verdict(&candidate) != Verdict::Reject
}

fn view(encapsulation: &str, peers: Vec<BgpPeer>) -> View {
    let mut view = View::default();
    let mut put = |key: &str, value| {
        view.upsert(Upsert { key: key.to_owned(), revision: 1, value: Some(value) }).unwrap();
    };
    let pool = Pool { cidrs: vec!["192.168.0.0/17".to_owned()], ..Pool::default() };
    put("pool/red/main", upsert::Value::Pool(pool));
    for (cidr, node) in [("192.168.0.0/26", "n1"), ("192.168.0.64/26", "n2")] {
        let block = Block { cidr: cidr.to_owned(), node: node.to_owned(), ..Block::default() };
        put(&format!("block/{cidr}"), upsert::Value::Block(block));
    }
    let network = Network { encapsulation: encapsulation.to_owned(), ..Network::default() };
    put("network", upsert::Value::Network(network));
    let bgp = Bgp { asn: 64_511, router_id: "172.16.18.11".to_owned(), ..Bgp::default() };
    put("bgp", upsert::Value::Bgp(bgp));
    for peer in peers {
        put(&format!("bgp-peer/{}", peer.name), upsert::Value::BgpPeer(peer));
    }
    view
}

fn outside() -> BgpPeer {
    BgpPeer { name: "tor".to_owned(), address: "172.16.18.1".to_owned(), asn: 65_001, ..BgpPeer::default() }
}

fn node() -> BgpPeer {
    BgpPeer {
        name: "node/n2".to_owned(),
        address: "172.16.18.12".to_owned(),
        asn: 64_511,
        node: "n2".to_owned(),
        restart_seconds: 120,
        ..BgpPeer::default()
    }
}

fn wanted_of(view: &View) -> Wanted {
    let node = "n1".parse().unwrap();
    let local = Local {
        node: &node,
        address: "172.16.18.11".parse().unwrap(),
        endpoints: &["192.168.0.5".parse().unwrap()],
    };
    wanted(view, local).unwrap()
}

fn is_taken(encapsulation: &str, peer: BgpPeer, prefix: &str) -> bool {
    let address = peer.address.parse().unwrap();
    let external = peer.asn != 64_511;
    let wanted = wanted_of(&view(encapsulation, vec![peer]));
    assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
    let (import, _) = compile(&wanted.config.policy);
    passes(&*import, prefix, Some((address, external)), None)
}

fn is_announced(peer: BgpPeer, prefix: &str, source: Option<(&str, bool)>) -> bool {
    is_announced_by(Bgp::default(), peer, prefix, source)
}

/// As by a speaker with these settings.
fn is_announced_by(bgp: Bgp, peer: BgpPeer, prefix: &str, source: Option<(&str, bool)>) -> bool {
    let target = (peer.address.parse().unwrap(), peer.asn != 64_511);
    let mut view = view("never", vec![peer]);
    let bgp = Bgp { asn: 64_511, router_id: "172.16.18.11".to_owned(), ..bgp };
    let value = Some(upsert::Value::Bgp(bgp));
    view.upsert(Upsert { key: "bgp".to_owned(), revision: 2, value }).unwrap();
    let wanted = wanted_of(&view);
    let (_, export) = compile(&wanted.config.policy);
    let source = source.map(|(address, external)| (address.parse().unwrap(), external));
    passes(&*export, prefix, source, Some(target))
}

#[test]
fn a_neighbour_outside_is_believed_nothing_that_is_not_listed() {
    for prefix in ["10.0.0.0/8", "0.0.0.0/0", "192.168.0.0/26", "192.168.0.64/26", "192.168.99.0/24"] {
        assert!(!is_taken("never", outside(), prefix), "{prefix}");
    }
    let list = vec![PrefixMatch { cidr: "0.0.0.0/0".to_owned(), len_min: 0, len_max: 32 }];
    let all = BgpPeer { import: list, ..outside() };
    assert!(is_taken("never", all.clone(), "10.0.0.0/8"));
    // Not even a list of everything has these in it.
    for prefix in ["0.0.0.0/0", "192.168.0.0/26", "192.168.0.64/26"] {
        assert!(!is_taken("never", all.clone(), prefix), "{prefix}");
    }
    assert!(is_taken("never", BgpPeer { import_default_route: true, ..outside() }, "0.0.0.0/0"));
    let pools = BgpPeer { import_own_pools: true, ..outside() };
    assert!(is_taken("never", pools.clone(), "192.168.0.64/26"));
    assert!(!is_taken("never", pools, "192.168.0.0/26"), "our own block is here, whoever says what");
}

#[test]
fn single_addresses_of_our_blocks_are_believed_to_be_elsewhere_if_who_says_it_is_trusted() {
    let list = vec![PrefixMatch { cidr: "0.0.0.0/0".to_owned(), len_min: 0, len_max: 32 }];
    let listed = BgpPeer { import: list, ..outside() };
    assert!(!is_taken("never", listed, "192.168.0.9/32"), "a list is no trust in our own pools");
    for trusted in [node(), BgpPeer { import_own_pools: true, ..outside() }] {
        assert!(is_taken("never", trusted.clone(), "192.168.0.9/32"));
        assert!(!is_taken("always", trusted.clone(), "192.168.0.9/32"), "the overlay asks no routes");
        for part in ["192.168.0.0/26", "192.168.0.0/27", "192.168.0.8/31"] {
            assert!(!is_taken("never", trusted.clone(), part), "{part}");
        }
    }
    // What a container here has is a route of our own, which wins against any that a neighbour has.
    let wanted = wanted_of(&view("never", vec![node()]));
    assert!(wanted.announced.contains_key(&"192.168.0.5/32".parse::<Prefix>().unwrap()));
}

#[test]
fn nodes_are_believed_what_is_within_pools_where_packets_go_by_routes() {
    assert!(is_taken("never", node(), "192.168.0.64/26"));
    assert!(is_taken("cross-subnet", node(), "192.168.0.64/26"));
    assert!(!is_taken("always", node(), "192.168.0.64/26"), "the overlay carries these");
    assert!(!is_taken("never", node(), "192.168.0.0/26"));
    assert!(!is_taken("never", node(), "10.0.0.0/8"));
    assert!(!is_taken("never", node(), "0.0.0.0/0"));
}

#[test]
fn only_our_blocks_are_announced_and_only_where_asked() {
    assert!(!is_announced(outside(), "192.168.0.0/26", None));
    let blocks = BgpPeer { export_blocks: true, ..outside() };
    assert!(is_announced(blocks.clone(), "192.168.0.0/26", None));
    assert!(!is_announced(blocks.clone(), "10.0.0.0/8", None));
    assert!(
        !is_announced(blocks.clone(), "192.168.0.64/26", Some(("172.16.18.12", false))),
        "that of another node"
    );
    assert!(is_announced(node(), "192.168.0.0/26", None));
    assert!(!is_announced(node(), "192.168.0.64/26", Some(("172.16.18.1", true))));
}

#[test]
fn what_a_node_would_refuse_is_not_sent_to_it() {
    let (prefix, tor) = ("10.0.0.0/8", Some(("172.16.18.1", true)));
    let list = vec![PrefixMatch { cidr: prefix.to_owned(), len_min: 0, len_max: 0 }];
    let (exporting, importing) =
        (BgpPeer { export: list.clone(), ..node() }, BgpPeer { import: list, ..node() });
    for (told, believed, goes) in [(node(), node(), false), (exporting, importing, true)] {
        assert_eq!(is_announced(told.clone(), prefix, tor), goes, "{told:?}");
        assert_eq!(is_taken("never", believed.clone(), prefix), goes, "{believed:?}");
        assert!(!is_announced(told, "11.0.0.0/8", tor), "it is not listed");
    }
}

#[test]
fn what_is_listed_from_outside_goes_to_nodes_with_us_as_next_hop() {
    let list = vec![PrefixMatch { cidr: "10.0.0.0/8".to_owned(), len_min: 0, len_max: 0 }];
    let peer = BgpPeer { export: list, ..node() };
    let wanted = wanted_of(&view("never", vec![peer]));
    let statements =
        &wanted.config.policy.policies.iter().find(|one| one.name == "export").unwrap().statements;
    let next_hops: Vec<_> = statements
        .iter()
        .filter(|one| one.name.contains(" export"))
        .map(|one| (one.conditions.route_type, one.actions.next_hop))
        .collect();
    assert_eq!(next_hops, [(Some(RouteType::External), Some(NextHopAction::Own)), (None, None)]);
}

#[test]
fn single_containers_are_announced_only_if_asked() {
    let blocks = BgpPeer { export_blocks: true, ..outside() };
    let list = vec![PrefixMatch { cidr: "192.168.0.0/16".to_owned(), len_min: 16, len_max: 32 }];
    let listed = BgpPeer { export: list, ..outside() };
    let asked = || Bgp { announce_endpoints: true, ..Bgp::default() };
    for peer in [node(), blocks, listed] {
        assert!(!is_announced(peer.clone(), "192.168.0.5/32", None), "{peer:?}");
        assert!(is_announced_by(asked(), peer.clone(), "192.168.0.5/32", None), "{peer:?}");
        assert!(is_announced(peer, "192.168.0.0/26", None));
    }
    assert!(!is_announced_by(asked(), outside(), "192.168.0.5/32", None));
}

#[test]
fn only_reflectors_tell_of_blocks_of_others() {
    let reflector = || Bgp { cluster_id: "10.0.0.1".to_owned(), ..Bgp::default() };
    let abroad = || BgpPeer { asn: 64_600, ..node() };
    let (inside, outside) = (Some(("172.16.18.13", false)), Some(("172.16.18.14", true)));
    for (bgp, peer, source, expected) in [
        // Of an AS without reflectors every node speaks for itself.
        (Bgp::default(), abroad(), inside, false),
        (Bgp::default(), abroad(), outside, false),
        (Bgp::default(), node(), outside, false),
        (reflector(), abroad(), inside, true),
        (reflector(), abroad(), outside, false),
        (reflector(), node(), outside, true),
        (reflector(), node(), inside, true),
    ] {
        let carried = is_announced_by(bgp.clone(), peer.clone(), "192.168.0.64/26", source);
        assert_eq!(carried, expected, "{bgp:?} {peer:?} {source:?}");
        assert!(!is_announced_by(bgp, peer, "10.0.0.0/8", outside), "what is no block goes to no node");
    }
}

#[test]
fn settings_are_those_of_the_server() {
    let peer =
        BgpPeer { hold_seconds: 9, ttl_security: true, password: "x".to_owned(), port: 1_790, ..outside() };
    let range = BgpPeer { name: "range".to_owned(), address: "172.16.0.0/16".to_owned(), ..outside() };
    let wanted = wanted_of(&view("never", vec![peer, node(), range]));
    let neighbors = &wanted.config.neighbors;
    let outside = &neighbors[&"172.16.18.1".parse().unwrap()];
    assert_eq!(
        (outside.timers.hold, outside.timers.keepalive),
        (Duration::from_secs(9), Duration::from_secs(3))
    );
    assert_eq!(
        (outside.distance, outside.transport.remote_port),
        (Distance::Secured { ttl_min: 255 }, 1_790)
    );
    assert!(outside.password.is_some() && outside.graceful_restart.is_none());
    let node = &neighbors[&"172.16.18.12".parse().unwrap()];
    assert_eq!(node.transport.local_address, Some("172.16.18.11".parse().unwrap()));
    assert_eq!(node.graceful_restart.unwrap().restart_time, Duration::from_mins(2));
    assert!(wanted.config.dynamic_neighbors[0].settings.transport.passive);
    assert!(node.third_party_next_hop && !outside.third_party_next_hop);
    let here: Vec<_> = wanted.announced.keys().map(ToString::to_string).collect();
    assert_eq!(here, ["192.168.0.0/26", "192.168.0.5/32"]);
}

#[test]
fn so_many_paths_are_used_as_the_server_says() {
    let paths = |paths_max| {
        let mut view = view("never", Vec::new());
        let bgp = Bgp { asn: 64_511, router_id: "172.16.18.11".to_owned(), paths_max, ..Bgp::default() };
        let value = Some(upsert::Value::Bgp(bgp));
        view.upsert(Upsert { key: "bgp".to_owned(), revision: 2, value }).unwrap();
        let multipath = wanted_of(&view).config.global.multipath.unwrap();
        (multipath.external_max, multipath.internal_max)
    };
    assert_eq!((paths(0), paths(4)), ((0, 0), (4, 4)));
}

#[test]
fn what_cannot_be_read_is_told_and_left_out() {
    let list = vec![PrefixMatch { cidr: "x".to_owned(), ..PrefixMatch::default() }];
    let wrong = BgpPeer { name: "wrong".to_owned(), address: "y".to_owned(), ..BgpPeer::default() };
    let peer = BgpPeer { import: list, communities: vec!["z".to_owned()], ..outside() };
    let wanted = wanted_of(&view("never", vec![peer, wrong]));
    assert_eq!((wanted.config.neighbors.len(), wanted.problems.len()), (1, 3), "{:?}", wanted.problems);
}
