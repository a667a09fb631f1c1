//! `isthmus bgp run` beside BIRD and gobgpd, each in a network namespace of its own, watched by the stock `gobgp`.
//!
//! Needs root, iproute2, bird2, gobgpd, frr and bgpdump.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod broken_path;
#[path = "../frr/daemons.rs"]
mod frr_daemons;
mod full_table;
mod kernel;
mod mrt;
mod rig;
mod secured;
mod stations;
mod stock_client;
mod unnumbered;
mod why;

use rig::{Daemon, Rig};

/// What both sides need in every test; `rest` goes behind the neighbour's config.
fn ours(rest: &str) -> String {
    format!(
        "[global.config]\nas = 64511\nrouter-id = \"10.99.0.1\"\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.99.0.2\"\n{rest}"
    )
}

const BIRD: &str = "router id 10.99.0.2;\nlog stderr all;\nprotocol device { }\n";

/// Ten static routes, and a session with ours.
fn bird(protocol: &str) -> String {
    let routes = (0..10).map(|n| format!("  route 10.2.{n}.0/24 blackhole;\n")).collect::<Vec<_>>().concat();
    format!(
        "{BIRD}protocol static ten {{\n  ipv4;\n{routes}}}\nprotocol bgp ours {{\n  local 10.99.0.2 as {protocol}\n}}\n"
    )
}

const IPV4_ALL: &str = "ipv4 { import all; export all; next hop self; };";

#[test]
fn routes_go_both_ways_with_bird_as_an_external_neighbour() {
    let Some(rig) = Rig::open("eb") else { return };
    let theirs = bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}"));
    let bird = Daemon::bird(&rig, &theirs);
    let ours = Daemon::isthmus(&rig, &ours("peer-as = 65002\n"));
    exchange_with_bird(&rig, &bird, "65002");
    // A table that is taken back is taken back there too.
    bird.control("disable ten");
    rig.wait_ours(
        "routes go when BIRD takes them back",
        || rig.gobgp("global rib"),
        |text| !text.contains("10.2."),
    );
    bird.control("enable ten");
    rig.wait_ours("routes come back", || rig.gobgp("global rib"), |text| text.contains("10.2.9.0/24"));
    ours.terminate();
    bird.wait("BIRD is told goodbye", "show protocols all ours", |text| {
        !text.contains("Established") && text.contains("Administrative shutdown")
    });
    rig.finish();
}

#[test]
fn routes_go_both_ways_with_bird_as_a_client_of_our_reflector() {
    let Some(rig) = Rig::open("rr") else { return };
    let theirs = bird(&format!("64511;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}"));
    let bird = Daemon::bird(&rig, &theirs);
    let client = "peer-as = 64511\n[neighbors.route-reflector.config]\nroute-reflector-client = true\n";
    let _ours = Daemon::isthmus(&rig, &ours(client));
    exchange_with_bird(&rig, &bird, "");
    let neighbor = rig.gobgp("neighbor 10.99.0.2");
    assert!(neighbor.contains("remote AS 64511, route-reflector-client"), "{neighbor}");
    rig.finish();
}

#[test]
fn ipv6_routes_go_both_ways_with_bird_over_an_ipv6_session() {
    let Some(rig) = Rig::open("v6") else { return };
    let routes =
        (0..10).map(|n| format!("  route 2001:db8:2:{n}::/64 blackhole;\n")).collect::<Vec<_>>().concat();
    let theirs = format!(
        "{BIRD}protocol static ten {{\n  ipv6;\n{routes}}}\nprotocol bgp ours {{\n  local fd99::2 as 65002;\n  \
         neighbor fd99::1 as 64511;\n  ipv6 {{ import all; export all; next hop self; }};\n}}\n"
    );
    let bird = Daemon::bird(&rig, &theirs);
    let ours_text = "[global.config]\nas = 64511\nrouter-id = \"10.99.0.1\"\n[[neighbors]]\n[neighbors.config]\n\
        neighbor-address = \"fd99::2\"\npeer-as = 65002\n";
    let _ours = Daemon::isthmus(&rig, ours_text);
    rig.wait_ours(
        "ten routes come",
        || rig.gobgp("global rib -a ipv6"),
        |text| {
            (0..10).all(|n| text.contains(&format!("*> 2001:db8:2:{n}::/64")) || n == 0)
                && text.contains("fd99::2")
        },
    );
    for n in 0..10 {
        rig.gobgp(&format!("global rib add -a ipv6 2001:db8:1:{n}::/64"));
    }
    bird.wait("BIRD has ten of ours", "show route protocol ours", |text| {
        text.matches("2001:db8:1:").count() == 10
    });
    rig.finish();
}

fn exchange_with_bird(rig: &Rig, bird: &Daemon, path: &str) {
    rig.wait_ours(
        "the session comes up",
        || rig.gobgp("neighbor"),
        |text| text.lines().any(|line| line.starts_with("10.99.0.2") && line.contains("Establ")),
    );
    rig.wait_ours(
        "ten routes come",
        || rig.gobgp("global rib"),
        |text| {
            (0..10).all(|n| {
                text.lines().any(|line| {
                    line.starts_with("*>") && line.contains(&format!("10.2.{n}.0/24")) && line.contains(path)
                })
            })
        },
    );
    let adj_in = rig.gobgp("neighbor 10.99.0.2 adj-in");
    assert_eq!(adj_in.matches("10.2.").count(), 10, "{adj_in}");
    for n in 0..10 {
        rig.gobgp(&format!("global rib add 10.1.{n}.0/24 med 7 community 64511:{n}"));
    }
    bird.wait("BIRD has ten of ours", "show route protocol ours", |text| text.matches("10.1.").count() == 10);
    bird.wait("with what was said of them", "show route 10.1.3.0/24 all", |text| {
        text.contains("(64511,3)") && text.contains("BGP.next_hop: 10.99.0.1")
    });
    let adj_out = rig.gobgp("neighbor 10.99.0.2 adj-out");
    assert_eq!(adj_out.matches("10.1.").count(), 10, "{adj_out}");
    for n in 0..5 {
        rig.gobgp(&format!("global rib del 10.1.{n}.0/24"));
    }
    bird.wait("BIRD has five of ours", "show route protocol ours", |text| text.matches("10.1.").count() == 5);
    rig.gobgp("global rib del all");
    bird.wait("BIRD has none of ours", "show route protocol ours", |text| !text.contains("10.1."));
}

#[test]
fn routes_go_both_ways_with_gobgpd() {
    let Some(rig) = Rig::open("go") else { return };
    let theirs = "[global.config]\nas = 65002\nrouter-id = \"10.99.0.2\"\n[[neighbors]]\n[neighbors.config]\n\
        neighbor-address = \"10.99.0.1\"\npeer-as = 64511\n[neighbors.timers.config]\nconnect-retry = 1\n";
    let _theirs = Daemon::gobgpd(&rig, theirs);
    let _ours = Daemon::isthmus(&rig, &ours("peer-as = 65002\n"));
    rig.wait_ours("the session comes up", || rig.gobgp("neighbor"), |text| text.contains("Establ"));
    for n in 0..10 {
        rig.gobgp_there(&format!("global rib add 10.2.{n}.0/24"));
        rig.gobgp(&format!("global rib add 10.1.{n}.0/24"));
    }
    let has_ten = |text: &str, net: &str| text.matches(net).count() == 10;
    rig.wait_ours("ten of theirs come", || rig.gobgp("global rib"), |text| has_ten(text, "10.2."));
    rig.wait_ours("ten of ours go", || rig.gobgp_there("global rib"), |text| has_ten(text, "10.1."));
    rig.gobgp_there("global rib del all");
    rig.wait_ours("theirs go", || rig.gobgp("global rib"), |text| !text.contains("10.2."));
    rig.gobgp("global rib del all");
    rig.wait_ours("ours go", || rig.gobgp_there("global rib"), |text| !text.contains("10.1."));
    rig.finish();
}

#[test]
fn our_reflector_passes_routes_between_bird_and_gobgpd() {
    let Some(rig) = Rig::open("rf") else { return };
    let bird = Daemon::bird(&rig, &bird(&format!("64511;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let theirs = "[global.config]\nas = 64511\nrouter-id = \"10.99.0.3\"\nport = -1\n\
        [[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.99.0.1\"\npeer-as = 64511\n\
        [neighbors.timers.config]\nconnect-retry = 1\n\
        [neighbors.transport.config]\nlocal-address = \"10.99.0.3\"\n";
    let _gobgpd = Daemon::gobgpd(&rig, theirs);
    let client = |address: &str| {
        format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = 64511\n\
             [neighbors.route-reflector.config]\nroute-reflector-client = true\n\
             route-reflector-cluster-id = \"10.99.0.100\"\n"
        )
    };
    let global = "[global.config]\nas = 64511\nrouter-id = \"10.99.0.1\"\n";
    let _ours = Daemon::isthmus(&rig, &format!("{global}{}{}", client("10.99.0.2"), client("10.99.0.3")));
    // RFC 4456 section 8: the next hop stays, who announced it and our cluster are added.
    rig.wait_ours(
        "BIRD's routes reach gobgpd",
        || rig.gobgp_there("global rib"),
        |text| {
            let reflected =
                text.lines().filter(|line| line.contains("10.2.") && line.contains(" 10.99.0.2 "));
            reflected
                .filter(|line| line.contains("{Originator: 10.99.0.2} {ClusterList: [10.99.0.100]}"))
                .count()
                == 10
        },
    );
    rig.gobgp_there("global rib add 10.3.0.0/24 nexthop 10.99.0.3");
    bird.wait("gobgpd's route reaches BIRD", "show route 10.3.0.0/24 all", |text| {
        text.contains("BGP.next_hop: 10.99.0.3") && text.contains("BGP.originator_id: 10.99.0.3")
    });
    rig.finish();
}

#[test]
fn an_administrator_shuts_down_lets_up_and_resets_with_the_stock_client() {
    let Some(rig) = Rig::open("ad") else { return };
    let bird = Daemon::bird(&rig, &bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let _ours = Daemon::isthmus(&rig, &ours("peer-as = 65002\n"));
    let neighbor = || rig.gobgp("neighbor");
    rig.wait_ours("the session comes up", neighbor, |text| text.contains("Establ"));
    rig.gobgp("neighbor 10.99.0.2 disable");
    rig.wait_ours("it is shut down", neighbor, |text| text.contains("Idle(Admin)"));
    rig.wait_ours("its routes are gone", || rig.gobgp("global rib"), |text| !text.contains("10.2."));
    let summary = rig.isthmus("bgp summary");
    assert!(summary.contains("Idle(Admin)") && summary.contains("dministrative"), "{summary}");
    rig.gobgp("neighbor 10.99.0.2 enable");
    rig.wait_ours("it comes back", neighbor, |text| text.contains("Establ"));
    rig.gobgp("neighbor 10.99.0.2 softreset");
    rig.wait_ours(
        "its routes are back",
        || rig.isthmus("bgp summary"),
        |text| text.contains("Established") && text.contains("10/10/"),
    );
    bird.wait("still up", "show protocols ours", |text| text.contains("Established"));
    rig.finish();
}

#[test]
fn a_reload_keeps_what_did_not_change() {
    let Some(rig) = Rig::open("re") else { return };
    let _bird = Daemon::bird(&rig, &bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let text = ours("peer-as = 65002\n");
    let daemon = Daemon::isthmus(&rig, &text);
    rig.wait_ours("the session comes up", || rig.gobgp("neighbor"), |text| text.contains("Establ"));
    let policy = "[global.apply-policy.config]\ndefault-import-policy = \"reject-route\"\n";
    let other = "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.99.0.3\"\npeer-as = 65003\n";
    daemon.reload(&format!("{text}{policy}{other}"));
    rig.wait_ours("the new neighbour is there", || rig.gobgp("neighbor"), |text| text.contains("10.99.0.3"));
    rig.wait_ours("the new policy refuses", || rig.gobgp("global rib"), |text| !text.contains("10.2."));
    daemon.reload("[global.config]\nnonsense = 1\n");
    daemon.reload(&text);
    rig.wait_ours("the neighbour is gone", || rig.gobgp("neighbor"), |text| !text.contains("10.99.0.3"));
    rig.wait_ours("the routes are back", || rig.gobgp("global rib"), |text| text.contains("10.2.9.0/24"));
    let neighbor = rig.gobgp("neighbor 10.99.0.2");
    assert!(neighbor.contains("Flops = 0"), "the session never went down: {neighbor}");
    rig.finish();
}

#[test]
fn a_neighbour_may_come_from_a_range() {
    let Some(rig) = Rig::open("dy") else { return };
    let bird = Daemon::bird(&rig, &bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let text = "[global.config]\nas = 64511\nrouter-id = \"10.99.0.1\"\n\
        [[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"racks\"\npeer-as = 65002\n\
        [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"10.99.0.0/24\"\npeer-group = \"racks\"\n";
    let _ours = Daemon::isthmus(&rig, text);
    rig.wait_ours("it comes by itself", || rig.gobgp("neighbor"), |text| text.contains("Establ"));
    drop(bird);
    rig.wait_ours("it is forgotten", || rig.gobgp("neighbor"), |text| !text.contains("10.99.0.2"));
    rig.finish();
}

#[test]
fn why_a_session_is_not_up_is_told() {
    let Some(rig) = Rig::open("wh") else { return };
    let _ours = Daemon::isthmus(&rig, &ours("peer-as = 65002\n"));
    rig.wait_ours(
        "a refusal is told",
        || rig.isthmus("bgp summary"),
        |text| text.contains("TCP to 10.99.0.2:179 refused"),
    );
    let _bird = Daemon::bird(&rig, &bird(&format!("65009;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    rig.wait_ours("a wrong AS is told", || rig.isthmus("bgp summary"), |text| text.contains("(2/2)"));
    rig.finish();
}

/// What the stock client prints, to be read in the snapshot. Times and counts of messages are not the same twice.
#[test]
fn the_stock_client_prints_what_it_prints_of_gobgpd() {
    let Some(rig) = Rig::open("tr") else { return };
    let bird = Daemon::bird(&rig, &bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let policy = "[global.apply-policy.config]\nimport-policy-list = [\"p\"]\n\
        [[defined-sets.prefix-sets]]\nprefix-set-name = \"ps\"\nprefix-list = [{ ip-prefix = \"10.2.8.0/23\", masklength-range = \"24..24\" }]\n\
        [[policy-definitions]]\nname = \"p\"\n\
        [[policy-definitions.statements]]\nname = \"no-eight\"\n\
        [policy-definitions.statements.conditions.match-prefix-set]\nprefix-set = \"ps\"\n\
        [policy-definitions.statements.actions]\nroute-disposition = \"reject-route\"\n";
    let _ours = Daemon::isthmus(&rig, &format!("{}{policy}", ours("peer-as = 65002\n")));
    rig.wait_ours("the routes come", || rig.gobgp("global rib summary"), |text| text.contains("Path: 8"));
    rig.gobgp("global rib add 10.1.0.0/24 med 7 community 64511:1 large-community 1:2:3");
    bird.wait("ours goes", "show route protocol ours", |text| text.contains("10.1.0.0/24"));
    let mut transcript = String::new();
    for line in [
        "global",
        "neighbor",
        "neighbor 10.99.0.2",
        "neighbor 10.99.0.9",
        "neighbor 10.99.0.2 adj-in",
        "neighbor 10.99.0.2 adj-out",
        "neighbor 10.99.0.2 accepted",
        "global rib",
        "global rib 10.2.3.4",
        "global rib 10.2.0.0/22 longer-prefixes",
        "global rib summary",
        "global policy",
        "policy",
        "policy prefix",
        "vrf",
        "bmp",
        "rpki server",
    ] {
        transcript.extend(["$ gobgp ", line, "\n", &rig.gobgp(line)]);
    }
    insta::assert_snapshot!(rig::without_times(&transcript));
    rig.finish();
}
