//! Everything that the stock client changes or watches, as a transcript: what it prints, and what it shows of it afterwards.

use super::{
    IPV4_ALL, bird,
    rig::{Daemon, Rig, without_times},
};

const OURS: &str = "[global.config]\nas = 64511\nrouter-id = \"10.99.0.1\"\n";

/// A daemon without any neighbour; BIRD waits to be added.
fn open(name: &str, rest: &str) -> Option<(Rig, Daemon, Daemon)> {
    let rig = Rig::open(name)?;
    let bird = Daemon::bird(&rig, &bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let ours = Daemon::isthmus(&rig, &format!("{OURS}{rest}"));
    rig.wait_ours("the API answers", || rig.gobgp("global"), |text| text.contains("64511"));
    Some((rig, bird, ours))
}

fn transcript(rig: &Rig, lines: &[&str]) -> String {
    transcript_by(|line| rig.gobgp(line), lines)
}

fn transcript_by(client: impl Fn(&str) -> String, lines: &[&str]) -> String {
    let mut transcript = String::new();
    for line in lines {
        transcript.extend(["$ gobgp ", line, "\n", &client(line)]);
    }
    without_times(&transcript)
}

fn wait_up(rig: &Rig) {
    rig.wait_ours("the session comes up", || rig.gobgp("neighbor"), |text| text.contains("Establ"));
    rig.wait_ours("its routes come", || rig.gobgp("global rib summary"), |text| text.contains("Path: 10"));
}

#[test]
fn neighbours_come_change_and_go_through_the_api() {
    let Some((rig, bird, daemon)) = open("sn", "") else { return };
    assert_eq!(rig.gobgp("neighbor add 10.99.0.2 as 65002"), "");
    wait_up(&rig);
    let text = transcript(
        &rig,
        &[
            "neighbor add 10.99.0.2 as 65002",
            "neighbor add 10.99.0.3 as 64511 route-reflector-client 10.99.0.77 allow-own-as 2",
            "neighbor update 10.99.0.3 as 64511 ebgp-multihop-ttl 4",
            "neighbor 10.99.0.3 disable",
            "neighbor 10.99.0.3 enable",
            "neighbor 10.99.0.9 enable",
            "neighbor 10.99.0.9 softreset",
            "neighbor 10.99.0.3 softresetin",
            "neighbor 10.99.0.2 softresetin",
            "neighbor 10.99.0.2 softresetout",
            "neighbor 10.99.0.2 softreset",
            "neighbor 10.99.0.2 local",
            "neighbor update 10.99.0.9 as 1",
            "neighbor add 10.99.0.4 as 1 vrf x",
            "neighbor add 10.99.0.4 as 1 route-server-client",
            "neighbor del 10.99.0.4",
            "neighbor del 10.99.0.4",
            "neighbor add interface eth9 as 1",
            "global as 1 router-id 1.1.1.1",
            "global del all",
            "log-level debug",
            "mrt inject global /nonexistent",
            "vrf add v rd 1:1 rt both 1:1",
            "rpki server 10.99.0.2 add",
            "rpki table",
        ],
    );
    insta::assert_snapshot!(text);
    let neighbor = rig.gobgp("neighbor 10.99.0.3");
    for part in ["route-reflector-client", "Allow Own AS: 2", "remote AS 64511"] {
        assert!(neighbor.contains(part), "an update keeps what it does not name: {neighbor}");
    }
    // What came through the API outlives a reload of the file; the session does not even notice.
    daemon.reload(&format!(
        "{OURS}[[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.99.0.4\"\npeer-as = 65004\n"
    ));
    rig.wait_ours("the file is read", || rig.gobgp("neighbor"), |text| text.contains("10.99.0.4"));
    let neighbor = rig.gobgp("neighbor 10.99.0.2");
    assert!(neighbor.contains("Flops = 0") && neighbor.contains("ESTABLISHED"), "{neighbor}");
    rig.gobgp("neighbor 10.99.0.2 shutdown");
    bird.wait("BIRD is told", "show protocols all ours", |text| text.contains("Administrative shutdown"));
    rig.gobgp("neighbor del 10.99.0.2");
    rig.wait_ours("it is gone", || rig.gobgp("neighbor"), |text| !text.contains("10.99.0.2"));
    rig.finish();
}

#[test]
fn paths_have_all_that_the_client_gives_them() {
    let Some((rig, bird, _daemon)) = open("sp", "") else { return };
    rig.gobgp("neighbor add 10.99.0.2 as 65002");
    wait_up(&rig);
    let text = transcript(
        &rig,
        &[
            "global rib add 10.1.0.0/24 origin igp aspath 65010,65011 nexthop 10.99.0.9 med 7 local-pref 200 \
             community 64511:1,no-peer large-community 1:2:3,4:5:6 aggregator 65010:192.0.2.1 identifier 5",
            "global rib add 10.1.0.0/24 origin egp identifier 6",
            "global rib add 10.1.1.0/24 rt 65000:1",
            "global rib add 10.1.2.0/24 color 5",
            "global rib add 10.1.3.0/24 encap vxlan",
            "global rib add 10.1.4.0/24 aigp metric 5",
            "global rib add 10.1.5.0/24 community 65535:65281",
            "global rib add -a ipv6 2001:db8::/32 nexthop 2001:db8::1",
            "global rib add -a ipv6 2001:db8:1::/48 nexthop 10.0.0.1",
            "global rib add -a evpn multicast 10.0.0.1 etag 1 rd 1:1",
            "global rib",
            "global rib -a ipv6",
            "global rib 10.1.0.0/16 longer-prefixes",
            "global rib 10.1.1.128/25 shorter-prefixes",
            "global rib summary",
            "neighbor 10.99.0.2 adj-in summary",
            "global rib del 10.1.0.0/24 identifier 6",
            "global rib del 10.1.0.0/24 identifier 6",
            "global rib del -a ipv6 all",
            "global rib -a ipv6",
        ],
    );
    insta::assert_snapshot!(text);
    bird.wait("BIRD has what goes out", "show route 10.1.0.0/24 all", |text| {
        ["BGP.as_path: 64511 65010 65011", "(64511,1)", "(1, 2, 3)", "BGP.aggregator: 192.0.2.1 AS65010"]
            .iter()
            .all(|part| text.contains(part))
    });
    bird.wait("NO_EXPORT stays here", "show route 10.1.5.0/24", |text| !text.contains("10.1.5.0/24"));
    rig.finish();
}

/// Makes a policy of every kind of set, condition and action, and takes some of it out again.
const POLICY: &[&str] = &[
    "policy prefix add ps 10.2.8.0/23 24..24",
    "policy prefix add ps 10.9.0.0/16",
    "policy neighbor add ns 10.99.0.2",
    "policy as-path add as ^65002",
    "policy community add cs 65000:1 ^65000:.*$",
    "policy ext-community add es rt:65000:1",
    "policy large-community add ls 1:2:3",
    "policy prefix",
    "policy neighbor",
    "policy as-path",
    "policy community",
    "policy ext-community",
    "policy large-community",
    "policy statement add s1",
    "policy statement s1 add condition prefix ps",
    "policy statement s1 add condition prefix ps",
    "policy statement s1 add condition neighbor ns",
    "policy statement s1 add condition as-path as",
    "policy statement s1 add condition community cs invert",
    "policy statement s1 add condition as-path-length 1 ge",
    "policy statement s1 add condition route-type external",
    "policy statement s1 add condition next-hop-in-list 10.99.0.0/24",
    "policy statement s1 add condition afi-safi-in ipv4-unicast",
    "policy statement s1 add condition rpki valid",
    "policy statement s1 add condition prefix nothing",
    "policy statement s1 add action reject",
    "policy statement s1 add action med add 10",
    "policy statement s1 add action local-pref 30",
    "policy statement s1 add action next-hop self",
    "policy statement s1 add action as-prepend 65100 3",
    "policy statement s1 add action community add 65000:5",
    "policy statement s1 add action large-community add 1:2:3",
    "policy statement s1 add action ext-community add rt:65000:5",
    "policy statement",
    "policy add p1 s1",
    "policy add p1 s9",
    "policy prefix del ps",
    "policy statement s1 del condition as-path as",
    "policy statement s1 del action community add 65000:5",
    "policy statement s1 del action as-prepend 65100 3",
    "policy",
    "global policy import add p1 default accept",
    "global policy import add p1",
    "global policy export set default reject",
    "global policy",
    "policy del p1",
    "neighbor 10.99.0.2 policy",
];

#[test]
fn policy_is_made_and_taken_apart_through_the_api() {
    let Some((rig, _bird, daemon)) = open("sy", "") else { return };
    rig.gobgp("neighbor add 10.99.0.2 as 65002");
    wait_up(&rig);
    let text = transcript(&rig, POLICY);
    insta::assert_snapshot!(text);
    // This client shows nothing as rejected, whoever it asks.
    rig.wait_ours(
        "two are rejected",
        || rig.gobgp("neighbor 10.99.0.2 accepted"),
        |text| {
            text.matches("10.2.").count() == 8
                && !text.contains("10.2.8.0/24")
                && !text.contains("10.2.9.0/24")
        },
    );
    // The same file again changes nothing of it, and a file with another policy replaces it, as gobgpd does.
    daemon.reload(OURS);
    let policies = "[[policy-definitions]]\nname = \"of-the-file\"\n";
    daemon.reload(&format!("{OURS}{policies}"));
    rig.wait_ours(
        "the file's policy is there",
        || rig.gobgp("policy"),
        |text| text.contains("of-the-file") && !text.contains("p1"),
    );
    rig.wait_ours(
        "all are accepted",
        || rig.gobgp("neighbor 10.99.0.2 accepted"),
        |text| text.matches("10.2.").count() == 10,
    );
    rig.finish();
}

/// What a later client is asked before [`POLICY`].
const LATER: &[&str] = &[
    "global",
    "neighbor",
    "neighbor 10.99.0.2",
    "neighbor add 10.99.0.3 as 64511 route-reflector-client 10.99.0.77 allow-own-as 2",
    "neighbor update 10.99.0.3 as 64511 ebgp-multihop-ttl 4",
    "neighbor 10.99.0.3 disable",
    "neighbor 10.99.0.3 enable",
    "neighbor 10.99.0.9 enable",
    "neighbor 10.99.0.2 softresetin",
    "neighbor 10.99.0.2 softresetout",
    "neighbor add 10.99.0.4 as 1 vrf x",
    "neighbor del 10.99.0.3",
    "neighbor del 10.99.0.3",
    "neighbor 10.99.0.2 adj-in",
    "neighbor 10.99.0.2 adj-out",
    "neighbor 10.99.0.2 accepted",
    "global rib add 10.1.0.0/24 origin igp aspath 65010,65011 nexthop 10.99.0.9 med 7 local-pref 200 \
     community 64511:1,no-peer large-community 1:2:3,4:5:6 aggregator 65010:192.0.2.1 identifier 5",
    "global rib add 10.1.1.0/24 rt 65000:1",
    "global rib add 10.1.4.0/24 aigp metric 5",
    "global rib add -a ipv6 2001:db8::/32 nexthop 2001:db8::1",
    "global rib add -a evpn multicast 10.0.0.1 etag 1 rd 1:1",
    "global rib",
    "global rib -a ipv6",
    "global rib 10.1.1.128/25 shorter-prefixes",
    "global rib summary",
    "global rib del 10.1.1.0/24",
    "global rib del 10.1.9.0/24",
    "global rib del -a ipv6 all",
    "bmp add 10.99.0.9:11019 both",
    "bmp",
    "vrf",
    "rpki server",
    "mrt inject global /nonexistent",
];

/// The client of GoBGP 3.36 and that of 4, whose API has other names and numbers, as Debian has them. Everything they do is
/// done; what they print of gobgpd they print of us.
fn later_client(name: &str, major: u8) {
    let Some((rig, bird, _daemon)) = open(name, "") else { return };
    let client = |line: &str| rig.later_gobgp(major, line);
    assert_eq!(client("neighbor add 10.99.0.2 as 65002"), "");
    rig.wait_ours("the session comes up", || client("neighbor"), |text| text.contains("Establ"));
    rig.wait_ours("its routes come", || client("global rib summary"), |text| text.contains("Path: 10"));
    let stream = rig.later_gobgp_stream(major, "monitor global rib --current");
    rig.wait_ours("all ten are told", || stream.text(), |text| text.matches("[ROUTE]").count() == 10);
    // Go's texts of messages have one space or two, as each build will have it.
    let text = transcript_by(client, &[LATER, POLICY].concat()).replace("AFI_IP  safi", "AFI_IP safi");
    insta::assert_snapshot!(format!("the_client_of_gobgp_{major}"), text);
    rig.wait_ours("routes of ours are told", || stream.text(), |text| text.contains("[ROUTE] 10.1.0.0/24"));
    // It prints only what changes: it is given some until it does.
    let neighbor = rig.later_gobgp_stream(major, "monitor neighbor 10.99.0.2");
    let bounce = || {
        client("neighbor 10.99.0.2 disable");
        client("neighbor 10.99.0.2 enable");
        neighbor.text()
    };
    rig.wait_ours("states are told", bounce, |text| text.contains("10.99.0.2 fsm:") && text.contains("DOWN"));
    rig.wait_ours(
        "that routes go is told",
        || stream.text(),
        |text| text.matches("[DELROUTE] 10.2.").count() >= 10,
    );
    assert_eq!(client("neighbor 10.99.0.2 disable"), "");
    bird.wait("BIRD is told", "show protocols all ours", |text| text.contains("Administrative shutdown"));
    rig.finish();
}

#[test]
fn the_client_of_gobgp_3_36_works() {
    later_client("l3", 3);
}

#[test]
fn the_client_of_gobgp_4_works() {
    later_client("l4", 4);
}

#[test]
fn what_happens_is_watched() {
    let Some((rig, bird, _daemon)) = open("sw", "") else { return };
    rig.gobgp("neighbor add 10.99.0.2 as 65002");
    rig.gobgp("neighbor add 10.99.0.3 as 65003");
    wait_up(&rig);
    // A stream that has printed what is there watches; one that prints only changes is given some until it does.
    let best = rig.gobgp_stream("monitor global rib --current");
    let adj_in = rig.gobgp_stream("monitor adj-in --current");
    for stream in [&best, &adj_in] {
        rig.wait_ours("all ten are told", || stream.text(), |text| text.matches("[ROUTE]").count() == 10);
    }
    bird.control("disable ten");
    rig.wait_ours("that they go is told", || best.text(), |text| text.matches("[DELROUTE]").count() == 10);
    rig.wait_ours("also as they came", || adj_in.text(), |text| text.matches("[DELROUTE]").count() == 10);
    let neighbor = rig.gobgp_stream("monitor neighbor 10.99.0.3");
    let bounce = || {
        rig.gobgp("neighbor 10.99.0.3 disable");
        rig.gobgp("neighbor 10.99.0.3 enable");
        neighbor.text()
    };
    rig.wait_ours("states are told", bounce, |text| {
        text.contains("10.99.0.3 fsm: IDLE admin: DOWN") && text.contains("10.99.0.3 fsm: CONNECT admin: UP")
    });
    rig.finish();
}
