//! Neighbours on an interface: beside FRR, and two of ours.

use crate::rig::{Daemon, Rig};

fn ours(asn: u32, id: u8, peer_type: &str) -> String {
    format!(
        "[global.config]\nas = {asn}\nrouter-id = \"10.99.0.{id}\"\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-interface = \"eth0\"\npeer-type = \"{peer_type}\"\n\
         [neighbors.timers.config]\nhold-time = 9\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n"
    )
}

/// A link whose ends have no addresses but link-local ones.
fn open(name: &str) -> Option<Rig> {
    let rig = Rig::open(name)?;
    for line in ["-4 addr flush dev eth0", "-6 addr del fd99::1/64 dev eth0"] {
        rig.ip(line);
    }
    for line in ["-4 addr flush dev eth0", "-6 addr del fd99::2/64 dev eth0"] {
        rig.ip_there(line);
    }
    Some(rig)
}

fn established(rig: &Rig, what: &str) {
    rig.wait_ours(
        what,
        || rig.isthmus("bgp summary --columns peer,state,why"),
        |text| text.contains("eth0") && text.contains("Established"),
    );
}

fn kernel(rig: &Rig) -> String {
    rig.ip("-o -4 route show proto 99") + &rig.ip("-o -6 route show proto 99")
}

fn link_local(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| word.starts_with("fe80::")).map(|word| word.trim_end_matches("/64"))
}

#[test]
fn frr_is_found_on_an_interface_and_its_routes_go_into_the_kernel() {
    if !std::path::Path::new("/usr/lib/frr/bgpd").exists() {
        assert!(std::env::var_os("CI").is_none(), "skipped in CI: needs FRR");
        return eprintln!("skipped: needs FRR");
    }
    let Some(rig) = open("uf") else { return };
    let theirs = "router bgp 65002\n bgp router-id 10.99.0.2\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
        neighbor eth0 interface remote-as external\n neighbor eth0 timers 3 9\n neighbor eth0 timers connect 1\n \
        address-family ipv4 unicast\n  network 10.3.0.0/24\n exit-address-family\n \
        address-family ipv6 unicast\n  neighbor eth0 activate\n  network 2001:db8:3::/64\n exit-address-family\n";
    let _frr = Daemon::frr(&rig, theirs);
    let ours = Daemon::isthmus_with(&rig, &["--kernel-table", "main"], &ours(64_511, 1, "external"));
    established(&rig, "FRR is found");
    let there = rig.ip_there("-6 -o addr show dev eth0 scope link");
    let there = link_local(&there).unwrap();
    rig.wait_ours(
        "its routes are in the kernel",
        || kernel(&rig),
        |text| {
            text.contains(&format!("10.3.0.0/24 via inet6 {there} dev eth0"))
                && text.contains(&format!("2001:db8:3::/64 via {there} dev eth0"))
        },
    );
    rig.gobgp("global rib add 10.4.0.0/24");
    rig.gobgp("global rib add -a ipv6 2001:db8:4::/64");
    let here = rig.ip("-6 -o addr show dev eth0 scope link");
    let here = link_local(&here).unwrap();
    for (family, prefix) in [("ipv4", "10.4.0.0/24"), ("ipv6", "2001:db8:4::/64")] {
        let line = format!("show bgp {family} unicast {prefix}");
        rig.wait_ours(
            "our routes are there, and can be used",
            || rig.vtysh(&line),
            |text| {
                text.contains(here)
                    && text.contains("64511")
                    && text.contains("best")
                    && !text.contains("inaccessible")
            },
        );
    }
    let shown = rig.gobgp("neighbor eth0");
    assert!(shown.contains("remote AS 65002") && shown.contains("ESTABLISHED"), "{shown}");
    let from = rig.isthmus("bgp routes --from eth0 --columns prefix,from --no-headers");
    assert!(from.contains("10.3.0.0/24  eth0"), "{from}");
    ours.terminate();
    rig.finish();
}

#[test]
fn a_neighbour_on_a_link_is_lost_with_it_and_found_again_also_elsewhere() {
    let Some(rig) = open("uu") else { return };
    let ours = Daemon::isthmus_with(&rig, &["--kernel-table", "main"], &ours(64_511, 1, "internal"));
    rig.wait_ours(
        "nobody is there yet",
        || rig.isthmus("bgp summary --columns peer,state,why"),
        |text| text.contains("no router is heard on eth0"),
    );
    let theirs = Daemon::isthmus_there(&rig, &self::ours(64_511, 2, "internal"));
    established(&rig, "they find each other");
    for n in 0..3 {
        rig.isthmus_there("bgp summary");
        rig.gobgp_there(&format!("global rib add 10.5.{n}.0/24"));
    }
    let there = |rig: &Rig| {
        let text = rig.ip_there("-6 -o addr show dev eth0 scope link");
        link_local(&text).unwrap().to_owned()
    };
    let via = |address: &str| format!("10.5.2.0/24 via inet6 {address} dev eth0");
    let first = there(&rig);
    rig.wait_ours("routes are in the kernel", || kernel(&rig), |text| text.contains(&via(&first)));
    rig.link("down");
    rig.wait_ours(
        "the link takes the session with it",
        || rig.isthmus("bgp summary --columns peer,state,why"),
        |text| text.contains("eth0 is down"),
    );
    rig.wait_ours("and the routes", || kernel(&rig), |text| !text.contains("10.5."));
    rig.link("up");
    established(&rig, "it comes back with the link");
    rig.wait_ours("so do the routes", || kernel(&rig), |text| text.contains(&via(&first)));
    rig.ip_there("-6 addr flush dev eth0 scope link");
    rig.ip_there("-6 addr add fe80::77/64 dev eth0 nodad");
    rig.wait_ours(
        "it is found at its other address",
        || kernel(&rig),
        |text| text.contains(&via("fe80::77")),
    );
    let why = rig.isthmus("bgp summary --columns peer,as,why -o wide");
    assert!(why.contains("64511"), "{why}");
    theirs.terminate();
    rig.wait_ours("its goodbye is heard", || kernel(&rig), |text| !text.contains("10.5."));
    ours.terminate();
    rig.finish();
}

#[test]
fn who_is_in_another_as_than_was_said_is_refused_on_an_interface_too() {
    let Some(rig) = open("ua") else { return };
    let _ours = Daemon::isthmus(&rig, &ours(64_511, 1, "internal"));
    let _theirs = Daemon::isthmus_there(&rig, &ours(65_002, 2, "external"));
    rig.wait_ours(
        "the reason is told",
        || rig.isthmus("bgp summary --columns peer,why"),
        |text| text.contains("refused: our own AS expected, 65002 came"),
    );
    rig.finish();
}
