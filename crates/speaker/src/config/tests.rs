use super::*;
use isthmus_bgp::Family;

const GLOBAL: &str = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\n";

fn config(text: &str) -> Config {
    let text = format!("{GLOBAL}{text}");
    Config::from_toml(&text, "f").unwrap_or_else(|faults| panic!("{faults}"))
}

/// Faults of what follows the three lines of the global section, as line and text.
fn faults(text: &str) -> Vec<(usize, String)> {
    let faults = Config::from_toml(&format!("{GLOBAL}{text}"), "f").unwrap_err().faults;
    faults.into_iter().map(|fault| (fault.line, format!("{}: {}", fault.key, fault.why))).collect()
}

fn check_fault(text: &str, line: usize, key: &str, why: &str) {
    let found = faults(text);
    assert!(
        found
            .iter()
            .any(|(at, text)| *at == line && text.starts_with(&format!("{key}: ")) && text.contains(why)),
        "{text}\n{found:#?}"
    );
    assert_eq!(found.len(), 1, "{found:#?}");
}

fn neighbor(rest: &str) -> PeerSettings {
    let config = config(&format!(
        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 64512\n{rest}"
    ));
    config.neighbors[&IpAddr::from([192, 0, 2, 2])].clone()
}

#[test]
fn the_least_file_has_defaults() {
    let config =
        config("[[neighbors]]\n[neighbors.config]\nneighbor-address = \"2001:db8::2\"\npeer-as = 65001\n");
    let listen: Vec<String> = config.global.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:179", "[::]:179"]);
    let peer = config.neighbors.values().next().unwrap();
    assert_eq!((peer.peer_as, peer.local_as), (Some(65_001), 64_512));
    assert_eq!(peer.timers.hold, Duration::from_secs(90));
    assert_eq!(peer.timers.keepalive, Duration::from_secs(30));
    assert_eq!(peer.timers.connect_retry, Duration::from_secs(30));
    assert_eq!(peer.timers.idle_hold, Duration::from_secs(5));
    assert_eq!((peer.transport.remote_port, peer.transport.passive), (179, false));
    let families: Vec<Family> = peer.families.iter().map(|settings| settings.family).collect();
    assert_eq!(families, [Family::Ipv6Unicast], "that of the address");
    assert_eq!(config.policy.import, Assignment { policies: vec![], default: Disposition::Accept });
    assert_eq!(config.warnings, []);
}

#[test]
fn all_faults_come_at_once_with_line_column_and_key() {
    let text = "[global.config]\nas = 0\nrouter-id = \"0.0.0.0\"\nprot = 179\n\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2\"\npeer-as = \"65001\"\n[neighbors.timers.config]\nhold-time = 70000\n";
    let faults = Config::from_toml(text, "gobgpd.conf").unwrap_err();
    let places: Vec<(usize, usize)> = faults.faults.iter().map(|fault| (fault.line, fault.column)).collect();
    assert_eq!(places, [(2, 6), (3, 13), (4, 1), (8, 20), (9, 11), (11, 13)], "{faults}");
    let text = faults.to_string();
    assert!(text.starts_with("error[ISE-0501]: gobgpd.conf cannot be used: 6 faults\n"), "{text}");
    assert!(
        text.contains("gobgpd.conf:4:1: global.config.prot: there is no such key; did you mean port?"),
        "{text}"
    );
}

#[test]
fn a_file_without_as_and_router_id_says_what_to_write() {
    let faults = Config::from_toml("", "f").unwrap_err().to_string();
    assert!(faults.contains("as = 64512") && faults.contains("router-id = \"192.0.2.1\""), "{faults}");
}

#[test]
fn broken_toml_names_the_line() {
    let faults = Config::from_toml("[global.config]\nas = \n", "f").unwrap_err();
    assert_eq!((faults.faults.len(), faults.faults[0].line), (1, 2), "{faults}");
}

#[test]
fn unknown_keys_are_faults_on_every_level() {
    check_fault("[[neighbours]]\n", 4, "neighbours", "did you mean neighbors?");
    check_fault(
        "[[neighbors]]\nneighbor-address = \"192.0.2.2\"\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 1\n",
        5,
        "neighbors.neighbor-address",
        "no such key",
    );
}

#[test]
fn a_neighbours_own_keys_win_over_its_group() {
    let config = config(
        "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\npeer-as = 65001\n\
         [peer-groups.timers.config]\nhold-time = 30\nconnect-retry = 7\n\
         [[peer-groups.afi-safis]]\n[peer-groups.afi-safis.config]\nafi-safi-name = \"ipv6-unicast\"\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-group = \"g\"\n\
         [neighbors.timers.config]\nhold-time = 9.0\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.3\"\npeer-group = \"g\"\npeer-as = 65002\n\
         [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n",
    );
    let (two, three) =
        (&config.neighbors[&IpAddr::from([192, 0, 2, 2])], &config.neighbors[&IpAddr::from([192, 0, 2, 3])]);
    assert_eq!((two.peer_as, three.peer_as), (Some(65_001), Some(65_002)));
    assert_eq!((two.timers.hold.as_secs(), three.timers.hold.as_secs()), (9, 30));
    assert_eq!((two.timers.keepalive.as_secs(), two.timers.connect_retry.as_secs()), (3, 7));
    assert_eq!(two.families[0].family, Family::Ipv6Unicast);
    assert_eq!(three.families[0].family, Family::Ipv4Unicast);
    assert_eq!(two.peer_group.as_deref(), Some("g"));
}

#[test]
fn a_dynamic_range_takes_its_groups_settings_and_waits() {
    let config = config(
        "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\npeer-as = 65001\n\
         [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"10.0.0.0/8\"\npeer-group = \"g\"\n\
         [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"10.1.0.0/16\"\npeer-group = \"g\"\n",
    );
    let prefixes: Vec<String> =
        config.dynamic_neighbors.iter().map(|range| range.prefix.to_string()).collect();
    assert_eq!(prefixes, ["10.1.0.0/16", "10.0.0.0/8"], "the narrowest first");
    let settings = &config.dynamic_neighbors[0].settings;
    assert!(settings.transport.passive);
    assert_eq!((settings.peer_as, settings.peer_group.as_deref()), (Some(65_001), Some("g")));
}

#[test]
fn names_that_do_not_exist_are_faults() {
    check_fault(
        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 1\npeer-group = \"x\"\n",
        8,
        "neighbors.config.peer-group",
        "no peer group \"x\"",
    );
    check_fault(
        "[[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"10.0.0.0/8\"\npeer-group = \"x\"\n",
        7,
        "dynamic-neighbors.config.peer-group",
        "no peer group \"x\"",
    );
    check_fault(
        "[global.apply-policy.config]\nexport-policy-list = [\"p\"]\n",
        5,
        "global.apply-policy.config.export-policy-list",
        "no policy \"p\"",
    );
    check_fault(
        "[[policy-definitions]]\nname = \"p\"\n[[policy-definitions.statements]]\n[policy-definitions.statements.conditions.match-prefix-set]\nprefix-set = \"s\"\n",
        8,
        "policy-definitions.statements.conditions.match-prefix-set.prefix-set",
        "no such prefix-set \"s\"",
    );
}

#[test]
fn what_is_given_twice_is_a_fault() {
    let twice =
        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 1\n".repeat(2);
    check_fault(&twice, 10, "neighbors.config.neighbor-address", "configured twice");
    let twice = "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\n".repeat(2);
    check_fault(&twice, 9, "peer-groups.config.peer-group-name", "defined twice");
    let twice = "[[policy-definitions]]\nname = \"p\"\n".repeat(2);
    check_fault(&twice, 7, "policy-definitions.name", "defined twice");
    let twice = "[[defined-sets.prefix-sets]]\nprefix-set-name = \"s\"\n".repeat(2);
    check_fault(&twice, 7, "defined-sets.prefix-sets.prefix-set-name", "defined twice");
}

#[test]
fn what_does_not_fit_together_is_a_fault() {
    let neighbor = "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 64512\n";
    for (rest, line, key, why) in [
        ("[neighbors.timers.config]\nhold-time = 2\n", 9, "timers.config.hold-time", "at least 3 s"),
        (
            "[neighbors.timers.config]\nhold-time = 9\nkeepalive-interval = 9\n",
            10,
            "timers.config.keepalive-interval",
            "not below the hold time",
        ),
        (
            "[neighbors.ebgp-multihop.config]\nenabled = true\n[neighbors.ttl-security.config]\nenabled = true\n",
            11,
            "ttl-security.config.enabled",
            "together",
        ),
        (
            "[neighbors.transport.config]\nlocal-address = \"::1\"\n",
            9,
            "transport.config.local-address",
            "family",
        ),
        ("remove-private-as = \"all\"\n", 8, "config.remove-private-as", "external"),
        (
            "[neighbors.as-path-options.config]\nreplace-peer-as = true\n",
            9,
            "as-path-options.config.replace-peer-as",
            "external",
        ),
        (
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n",
            13,
            "afi-safis.config.afi-safi-name",
            "twice",
        ),
    ] {
        check_fault(&format!("{neighbor}{rest}"), line, &format!("neighbors.{key}"), why);
    }
}

#[test]
fn a_neighbour_without_an_address_is_a_fault() {
    check_fault(
        "[[neighbors]]\n[neighbors.config]\npeer-as = 1\n",
        4,
        "neighbors.config.neighbor-address",
        "missing",
    );
}

#[test]
fn what_is_not_done_yet_is_a_warning_with_its_line() {
    let config = config(
        "[zebra.config]\nenabled = true\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\n\
         [neighbors.route-server.config]\nroute-server-client = true\nsecondary-route = false\n\
         [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"l2vpn-evpn\"\n\
         [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n",
    );
    let warnings: Vec<(usize, &str)> =
        config.warnings.iter().map(|warning| (warning.line, warning.key.as_str())).collect();
    assert_eq!(
        warnings,
        [
            (4, "zebra"),
            (7, "neighbors.config.peer-as"),
            (10, "neighbors.route-server.config.route-server-client"),
            (14, "neighbors.afi-safis.config.afi-safi-name"),
        ]
    );
    assert_eq!(config.neighbors.values().next().unwrap().families.len(), 1);
}

#[test]
fn settings_of_a_neighbour_are_all_read() {
    let peer = neighbor(
        "local-as = 64999\nauth-password = \"secret\"\ndescription = \"d\"\nadmin-down = true\n\
         [neighbors.as-path-options.config]\nallow-own-as = 3\n\
         [neighbors.transport.config]\npassive-mode = true\nlocal-address = \"192.0.2.1\"\nremote-port = 1179\ntcp-mss = 1400\nttl = 64\nbind-interface = \"eth0\"\nlocal-port = 7\n\
         [neighbors.ttl-security.config]\nenabled = true\nttl-min = 250\n\
         [neighbors.route-reflector.config]\nroute-reflector-client = true\n\
         [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\nnotification-enabled = true\nlong-lived-enabled = true\n\
         [neighbors.add-paths.config]\nsend-max = 4\n\
         [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
         [neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = 1000\nshutdown-threshold-pct = 80\n\
         [neighbors.afi-safis.add-paths.config]\nreceive = true\n\
         [neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = 3600\n\
         [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n",
    );
    assert_eq!((peer.local_as, peer.is_internal(), peer.admin_down), (64_999, false, true));
    assert_eq!(peer.password, Some(Password("secret".to_owned())));
    assert!(!format!("{peer:?}").contains("secret"));
    assert_eq!(peer.distance, Distance::Secured { ttl_min: 250 });
    assert_eq!(peer.reflector_client, Some(Ipv4Addr::new(192, 0, 2, 1)), "the router id");
    assert_eq!(
        peer.transport,
        Transport {
            passive: true,
            local_address: Some(IpAddr::from([192, 0, 2, 1])),
            local_port: 7,
            remote_port: 1179,
            bind_interface: Some("eth0".to_owned()),
            tcp_mss: Some(1400),
            ttl: Some(64),
        }
    );
    let restart = peer.graceful_restart.unwrap();
    assert_eq!((restart.restart_time.as_secs(), restart.notification, restart.long_lived), (60, true, true));
    assert_eq!(restart.deferral_time.as_secs(), 360);
    assert_eq!(
        peer.families,
        [FamilySettings {
            family: Family::Ipv4Unicast,
            prefix_limit: Some(PrefixLimit { max_prefixes: 1000, warn_percent: 80 }),
            add_paths: AddPaths { receive: true, send_max: 4 },
            graceful_restart: true,
            long_lived: Some(Duration::from_hours(1)),
        }]
    );
}

#[test]
fn a_password_is_one_that_the_kernel_takes() {
    let text = |bytes: usize| {
        let password = "p".repeat(bytes);
        format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 1\nauth-password = \"{password}\"\n"
        )
    };
    assert_eq!(config(&text(80)).warnings, []);
    check_fault(&text(81), 8, "neighbors.config.auth-password", "81 bytes");
    let shown = format!("{:?}{}", config(&text(80)), Config::from_toml(&text(81), "f").unwrap_err());
    assert!(!shown.contains("pp"), "passwords are not shown: {shown}");
    let group = "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\npeer-as = 1\nauth-password = \"p\"\n";
    let config = config(&format!(
        "{group}[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-group = \"g\"\n"
    ));
    assert_eq!(config.neighbors.values().next().unwrap().password, Some(Password("p".to_owned())));
}

#[test]
fn a_neighbour_without_a_password_in_a_range_with_one_is_told() {
    let text = "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\npeer-as = 1\nauth-password = \"p\"\n\
        [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"192.0.2.0/24\"\npeer-group = \"g\"\n\
        [[neighbors]]\n[neighbors.config]\npeer-as = 1\nneighbor-address = \"";
    let warnings = config(&format!("{text}192.0.2.2\"\n")).warnings;
    assert_eq!((warnings.len(), warnings[0].line), (1, 13), "{warnings:?}");
    assert!(warnings[0].why.contains("the range 192.0.2.0/24"), "{}", warnings[0].why);
    assert_eq!(config(&format!("{text}192.0.3.2\"\n")).warnings, []);
    assert_eq!(config(&format!("{text}192.0.2.2\"\nauth-password = \"q\"\n")).warnings, []);
}

#[test]
fn bfd_has_gobgps_keys_and_defaults() {
    assert_eq!(neighbor("").bfd, None);
    assert_eq!(neighbor("[neighbors.bfd.config]\ndetection-multiplier = 5\n").bfd, None, "it is not on");
    let on = "[neighbors.bfd.config]\nenabled = true\n";
    let bfd = neighbor(on).bfd.unwrap();
    let second = Duration::from_secs(1);
    let timing = isthmus_bgp::bfd::Timing { desired_min_tx: second, required_min_rx: second, multiplier: 3 };
    assert_eq!((bfd.timing, bfd.port), (timing, 3_784));
    let rest = "desired-minimum-tx-interval = 300000\nrequired-minimum-receive = 50000\ndetection-multiplier = 5\nport = 3785\n";
    let bfd = neighbor(&format!("{on}{rest}")).bfd.unwrap();
    let millis = Duration::from_millis;
    let timing =
        isthmus_bgp::bfd::Timing { desired_min_tx: millis(300), required_min_rx: millis(50), multiplier: 5 };
    assert_eq!((bfd.timing, bfd.port), (timing, 3_785));
    let text = "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 1\n";
    let fast = format!("{text}{on}desired-minimum-tx-interval = 9999\n");
    check_fault(&fast, 10, "neighbors.bfd.config.desired-minimum-tx-interval", "10000");
    let far = config(&format!("{text}{on}[neighbors.ebgp-multihop.config]\nenabled = true\n"));
    assert!(far.warnings[0].why.contains("RFC 5883"), "{:?}", far.warnings);
}

#[test]
fn protection_that_is_not_there_is_refused() {
    check_fault(
        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-as = 1\n[neighbors.config.tcp-ao]\nkey = 1\n",
        8,
        "neighbors.config.tcp-ao",
        "RFC 5925",
    );
}

#[test]
fn an_ipv4_address_in_ipv6_is_one_of_ipv4() {
    let config =
        config("[[neighbors]]\n[neighbors.config]\nneighbor-address = \"::ffff:192.0.2.2\"\npeer-as = 1\n");
    assert_eq!(config.neighbors.keys().collect::<Vec<_>>(), [&IpAddr::from([192, 0, 2, 2])]);
}

#[test]
fn policies_are_read_with_their_sets() {
    let config = config(
        "[global.apply-policy.config]\nimport-policy-list = [\"p\"]\ndefault-import-policy = \"reject-route\"\n\
         [[defined-sets.prefix-sets]]\nprefix-set-name = \"ps\"\nprefix-list = [{ ip-prefix = \"10.0.0.0/8\", masklength-range = \"24..32\" }, { ip-prefix = \"192.0.2.7/24\" }]\n\
         [[defined-sets.neighbor-sets]]\nneighbor-set-name = \"ns\"\nneighbor-info-list = [\"192.0.2.2\", \"192.0.2.0/24\"]\n\
         [[defined-sets.bgp-defined-sets.community-sets]]\ncommunity-set-name = \"cs\"\ncommunity-list = [\"65000:1\"]\n\
         [[defined-sets.bgp-defined-sets.as-path-sets]]\nas-path-set-name = \"as\"\nas-path-list = [\"^65001_\"]\n\
         [[policy-definitions]]\nname = \"p\"\n[[policy-definitions.statements]]\nname = \"s\"\n\
         [policy-definitions.statements.conditions.match-prefix-set]\nprefix-set = \"ps\"\n\
         [policy-definitions.statements.conditions.match-neighbor-set]\nneighbor-set = \"ns\"\nmatch-set-options = \"invert\"\n\
         [policy-definitions.statements.conditions.bgp-conditions.match-community-set]\ncommunity-set = \"cs\"\nmatch-set-options = \"all\"\n\
         [policy-definitions.statements.conditions.bgp-conditions.as-path-length]\noperator = \"ge\"\nvalue = 2\n\
         [policy-definitions.statements.actions]\nroute-disposition = \"accept-route\"\n\
         [policy-definitions.statements.actions.bgp-actions]\nset-med = \"-10\"\nset-local-pref = 200\nset-next-hop = \"self\"\n\
         [policy-definitions.statements.actions.bgp-actions.set-as-path-prepend]\nas = \"last-as\"\nrepeat-n = 3\n\
         [policy-definitions.statements.actions.bgp-actions.set-community]\noptions = \"add\"\n\
         [policy-definitions.statements.actions.bgp-actions.set-community.set-community-method]\ncommunities-list = [\"65000:9\", \"no-export\"]\n",
    );
    let policy = &config.policy;
    assert_eq!(policy.import, Assignment { policies: vec!["p".to_owned()], default: Disposition::Reject });
    let ranges: Vec<(u8, u8)> =
        policy.sets.prefixes["ps"].iter().map(|range| (range.len_min, range.len_max)).collect();
    assert_eq!(ranges, [(24, 32), (24, 24)]);
    let statement = &policy.policies[0].statements[0];
    assert_eq!(statement.conditions.neighbor.as_ref().unwrap().option, MatchOption::Invert);
    assert_eq!(statement.conditions.community.as_ref().unwrap().option, MatchOption::All);
    assert_eq!(statement.conditions.as_path_length, Some(Compared::AtLeast(2)));
    let actions = &statement.actions;
    assert_eq!((actions.disposition, actions.local_pref), (Some(Disposition::Accept), Some(200)));
    assert_eq!((actions.med, actions.next_hop), (Some(MedAction::Add(-10)), Some(NextHopAction::Own)));
    assert_eq!(actions.prepend, Some(Prepend { asn: None, repeat: 3 }));
    assert_eq!(actions.community, Some(CommunityAction::Add(vec![0xfde8_0009, 0xffff_ff01])));
}

#[test]
fn bad_members_of_sets_and_actions_are_faults() {
    check_fault(
        "[[defined-sets.prefix-sets]]\nprefix-set-name = \"s\"\nprefix-list = [{ ip-prefix = \"10.0.0.0/8\", masklength-range = \"24..33\" }]\n",
        6,
        "defined-sets.prefix-sets.prefix-list.masklength-range",
        "8..32",
    );
    check_fault(
        "[[defined-sets.bgp-defined-sets.as-path-sets]]\nas-path-set-name = \"s\"\nas-path-list = [\"(\"]\n",
        6,
        "defined-sets.as-path-sets.as-path-list",
        "regular expression",
    );
    check_fault(
        "[[defined-sets.neighbor-sets]]\nneighbor-set-name = \"s\"\nneighbor-info-list = [\"x\"]\n",
        6,
        "defined-sets.neighbor-sets.neighbor-info-list",
        "neither an address",
    );
    let action = "[[policy-definitions]]\nname = \"p\"\n[[policy-definitions.statements]]\n[policy-definitions.statements.actions.bgp-actions]\n";
    let key = "policy-definitions.statements.actions.bgp-actions";
    check_fault(&format!("{action}set-med = \"x\"\n"), 8, &format!("{key}.set-med"), "no MED");
    check_fault(&format!("{action}set-next-hop = \"x\"\n"), 8, &format!("{key}.set-next-hop"), "no next hop");
    check_fault(
        &format!(
            "{action}set-community = {{ options = \"add\", set-community-method = {{ communities-list = [\"x\"] }} }}\n"
        ),
        8,
        &format!("{key}.set-community.set-community-method.communities-list"),
        "no community",
    );
}

#[test]
fn port_minus_one_listens_nowhere() {
    let text = "[global.config]\nas = 1\nrouter-id = \"192.0.2.1\"\nport = -1\n";
    assert_eq!(Config::from_toml(text, "f").unwrap().global.listen, []);
    let text = "[global.config]\nas = 1\nrouter-id = \"192.0.2.1\"\nport = 1179\nlocal-address-list = [\"192.0.2.1\"]\n";
    let listen = Config::from_toml(text, "f").unwrap().global.listen;
    assert_eq!(listen, ["192.0.2.1:1179".parse().unwrap()]);
}

#[test]
fn dumps_are_read_with_what_gobgp_takes_for_granted() {
    let text = "[[mrt-dump]]\n[mrt-dump.config]\ndump-type = \"updates\"\nfile-name = \"/u/20060102.1504\"\nrotation-interval = 180\n\
        [[mrt-dump]]\n[mrt-dump.config]\ndump-type = \"table\"\nfile-name = \"/t\"\n\
        [[mrt-dump]]\n[mrt-dump.config]\ndump-type = \"table\"\nfile-name = \"/d/2006\"\nrotation-interval = 60\ndump-interval = 0\n";
    let dumps = config(text).mrt_dumps;
    let dump = |kind, file_name: &str, rotation: Option<u64>, interval: Option<u64>| MrtDump {
        kind,
        file_name: file_name.to_owned(),
        rotation: rotation.map(Duration::from_secs),
        interval: interval.map(Duration::from_secs),
    };
    let expected = [
        dump(MrtKind::Table, "/d/2006", Some(60), None),
        dump(MrtKind::Table, "/t", None, Some(60)),
        dump(MrtKind::Updates, "/u/20060102.1504", Some(180), None),
    ];
    assert_eq!(dumps.into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn dumps_that_cannot_be_are_refused() {
    let dump = |rest: &str| format!("[[mrt-dump]]\n[mrt-dump.config]\n{rest}");
    let table = |rest: &str| dump(&format!("dump-type = \"table\"\n{rest}"));
    check_fault(&dump("file-name = \"/t\"\n"), 4, "mrt-dump.config.dump-type", "is missing");
    check_fault(&table(""), 4, "mrt-dump.config.file-name", "is missing");
    check_fault(&table("file-name = \"/t/..\"\n"), 7, "mrt-dump.config.file-name", "names no file");
    check_fault(
        &table("file-name = \"/t\"\ndump-interval = 60\nrotation-interval = 60\n"),
        8,
        "mrt-dump.config.dump-interval",
        "exclude each other",
    );
    check_fault(
        &table("file-name = \"/t\"\ntable-name = \"192.0.2.2\"\n"),
        8,
        "mrt-dump.config.table-name",
        "not done yet",
    );
    let twice = format!("{0}{0}", table("file-name = \"/t\"\n"));
    check_fault(&twice, 11, "mrt-dump.config.file-name", "that of another dump");
    let ignored = dump("dump-type = \"updates\"\nfile-name = \"/u\"\ndump-interval = 60\n");
    assert!(config(&ignored).warnings[0].why.contains("has no effect"));
}

#[test]
fn a_neighbour_may_be_whoever_is_on_an_interface() {
    let on = |rest: &str| format!("[[neighbors]]\n[neighbors.config]\nneighbor-interface = \"eth0\"\n{rest}");
    let eth0 = crate::interface::neighbor_on("eth0").unwrap();
    let read = config(&on("peer-type = \"external\"\n"));
    let settings = &read.neighbors[&eth0];
    assert_eq!((settings.peer_as, settings.peer_kind), (None, Some(isthmus_bgp::PeerKind::External)));
    let families: Vec<Family> = settings.families.iter().map(|family| family.family).collect();
    assert_eq!(families, Family::ALL, "both, over link-local next hops");
    assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    let read = config(&on("peer-as = 65002\npeer-type = \"external\"\nneighbor-address = \"192.0.2.9\"\n"));
    assert_eq!(read.neighbors[&eth0].peer_kind, None);
    let keys: Vec<&str> = read.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(keys, ["neighbors.config.peer-type", "neighbors.config.neighbor-address"]);
    let read = config(&on("peer-as = 0\n[neighbors.bfd.config]\nenabled = true\n"));
    assert_eq!((read.neighbors[&eth0].bfd, read.warnings.len()), (None, 1), "not done, and told");
    let interface = "neighbors.config.neighbor-interface";
    check_fault(&on("peer-as = 1\n").replace("eth0", "eth0/1"), 6, interface, "no name of an interface");
    check_fault(&format!("{0}{0}", on("peer-as = 1\n")), 10, interface, "eth0 is configured twice");
    let local = on("peer-as = 1\n[neighbors.transport.config]\nlocal-address = \"fe80::1\"\n");
    check_fault(
        &local,
        9,
        "neighbors.transport.config.local-address",
        "is not for a neighbour on an interface",
    );
    let multicast = "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"ff65::1\"\npeer-as = 1\n";
    check_fault(multicast, 6, "neighbors.config.neighbor-address", "is a multicast address");
}

#[test]
fn what_gobgp_has_no_key_for_has_a_table_of_its_own() {
    let usual = config("").global;
    assert_eq!((usual.resolve_next_hops, usual.client_to_client), (None, true));
    let text = "[isthmus.config]\nresolve-next-hops = false\nclient-to-client-reflection = false\n";
    let said = config(text).global;
    assert_eq!((said.resolve_next_hops, said.client_to_client), (Some(false), false));
    check_fault("[isthmus.config]\nresolve = true\n", 5, "isthmus.config.resolve", "there is no such key");
}
