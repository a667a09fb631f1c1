//! Routes that BIRD announces, in the kernel of our namespace.

use crate::rig::{Daemon, Rig};
use std::process::{Child, Stdio};

const TABLE: [&str; 2] = ["--kernel-table", "main"];

fn open(name: &str) -> Option<Rig> {
    let rig = Rig::open(name)?;
    rig.ip("addr add 10.99.0.4/24 dev eth0");
    Some(rig)
}

fn ours(rest: &str) -> String {
    // BIRD tells sessions apart by the neighbour's address.
    let neighbor = |address: &str, local: &str| {
        format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = 65002\n\
             [neighbors.transport.config]\nlocal-address = \"{local}\"\n{rest}"
        )
    };
    format!(
        "[global.config]\nas = 64511\nrouter-id = \"10.99.0.1\"\n[global.use-multiple-paths.config]\nenabled = true\n{}{}{}",
        neighbor("10.99.0.2", "10.99.0.1"),
        neighbor("10.99.0.3", "10.99.0.4"),
        neighbor("fd99::2", "fd99::1"),
    )
}

/// Three sessions: two that bring the same IPv4 routes over different next hops, and one for IPv6. `statics` may be
/// switched off one by one.
fn bird() -> String {
    let session = |name: &str, local: &str, neighbor: &str, channel: &str| {
        format!(
            "protocol bgp {name} {{\n  local {local} as 65002;\n  neighbor {neighbor} as 64511;\n  graceful restart on;\n  \
             connect delay time 1; connect retry time 1; error wait time 1, 2;\n  {channel}\n}}\n"
        )
    };
    let all = "{ import none; export all; next hop self; };";
    let table = |name: &str, kind: &str, routes: &[&str]| {
        let routes =
            routes.iter().map(|route| format!("  route {route} blackhole;\n")).collect::<Vec<_>>().concat();
        format!("protocol static {name} {{\n  {kind};\n{routes}}}\n")
    };
    format!(
        "router id 10.99.0.2;\nlog stderr all;\nprotocol device {{ }}\n{}{}{}{}{}{}",
        table("kept", "ipv4", &["10.2.0.0/24", "10.2.1.0/24"]),
        table("leaving", "ipv4", &["10.2.8.0/24", "10.2.9.0/24"]),
        table("six", "ipv6", &["2001:db8:2::/64"]),
        session("two", "10.99.0.2", "10.99.0.1", &format!("ipv4 {all}")),
        session("three", "10.99.0.3", "10.99.0.4", &format!("ipv4 {all}")),
        session("v6", "fd99::2", "fd99::1", &format!("ipv6 {all}")),
    )
}

/// Routes of ours in the kernel, one a line.
fn routes(rig: &Rig) -> String {
    let four = rig.ip("-o -4 route show proto 99");
    four + &rig.ip("-o -6 route show proto 99")
}

fn wait_all(rig: &Rig) {
    rig.wait_ours(
        "all routes are in the kernel",
        || routes(rig),
        |text| {
            let is_multipath = |prefix: &str| {
                text.lines().any(|line| {
                    line.starts_with(prefix)
                        && line.contains("nexthop via 10.99.0.2 dev eth0")
                        && line.contains("nexthop via 10.99.0.3 dev eth0")
                        && line.contains("metric 20")
                })
            };
            ["10.2.0.0/24", "10.2.1.0/24", "10.2.8.0/24", "10.2.9.0/24"].into_iter().all(is_multipath)
                && text.contains("2001:db8:2::/64 via fd99::2 dev eth0")
        },
    );
}

#[test]
fn paths_that_are_used_together_are_shown_beside_the_best() {
    let Some(rig) = open("km") else { return };
    let _bird = Daemon::bird(&rig, &bird());
    let _ours = Daemon::isthmus_with(&rig, &TABLE, &ours(""));
    wait_all(&rig);
    // Which of the two is the best is a matter of which session came first.
    let shown = |what: &str| {
        let text = rig.isthmus(&format!("bgp {what} 10.2.0.0/24 -o csv --no-headers"));
        let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
        rows.sort_unstable();
        rows
    };
    let used = "used,multipath,\"as good as the best, and used with it\"";
    assert_eq!(shown("why --columns verdict,reason,why"), ["best,best,it is the best", used]);
    assert_eq!(shown("routes --columns mark"), ["", "best"], "who is told hears of one");
    // Beside one of our own they are of no use, however good.
    rig.gobgp("global rib add 10.2.0.0/24");
    let verdicts = ["best,best", "worse,local-origin", "worse,local-origin"];
    assert_eq!(shown("why --columns verdict,reason"), verdicts);
    assert_eq!(shown("routes --columns mark"), ["", "", "best"]);
    rig.finish();
}

/// Everything that the kernel tells about routes of our namespace, until it is asked for.
struct Monitor(Child);

impl Monitor {
    fn start(rig: &Rig) -> Self {
        let child = rig.command("ip").args(["-o", "monitor", "route"]).stdout(Stdio::piped()).spawn();
        Self(child.unwrap())
    }

    fn end(mut self) -> String {
        self.0.kill().unwrap();
        let output = self.0.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn routes_are_in_the_kernel_and_stay_there_while_we_restart() {
    let Some(rig) = open("kr") else { return };
    let bird = Daemon::bird(&rig, &bird());
    let restarts = "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 120\n";
    let first = Daemon::isthmus_with(&rig, &TABLE, &ours(restarts));
    wait_all(&rig);
    // What we announce ourselves is no route to somewhere else.
    rig.gobgp("global rib add 10.2.0.0/24");
    rig.wait_ours("our own has no kernel route", || routes(&rig), |text| !text.contains("10.2.0.0/24"));
    rig.gobgp("global rib del 10.2.0.0/24");
    wait_all(&rig);
    // Killed: what is in the kernel stays, and BIRD takes routes back meanwhile.
    let monitor = Monitor::start(&rig);
    drop(first);
    bird.control("disable leaving");
    let text = routes(&rig);
    assert!(text.contains("10.2.8.0/24") && text.contains("10.2.0.0/24"), "{text}");
    let second = Daemon::isthmus_with(&rig, &[&TABLE[..], &["--restarted"]].concat(), &ours(restarts));
    rig.wait_ours(
        "what nobody announces goes, the rest stays",
        || routes(&rig),
        |text| !text.contains("10.2.8.0/24") && !text.contains("10.2.9.0/24"),
    );
    let text = routes(&rig);
    let told = monitor.end();
    assert!(text.contains("10.2.0.0/24") && text.contains("2001:db8:2::/64"), "{text}\n{told}");
    let is_kept =
        |line: &str| ["10.2.0.0/24", "10.2.1.0/24", "2001:db8:2::/64"].iter().any(|kept| line.contains(kept));
    assert!(!told.lines().any(|line| line.contains("Deleted") && is_kept(line)), "{told}");
    // Told to stop, with graceful restart: they stay.
    second.terminate();
    assert!(routes(&rig).contains("10.2.1.0/24"));
    assert!(rig.log().contains("kernel routes stay"), "{}", rig.log());
    rig.finish();
}

#[test]
fn routes_come_back_after_others_took_them_away_and_go_with_us() {
    let Some(rig) = open("kb") else { return };
    let _bird = Daemon::bird(&rig, &bird());
    // Another program's route with the same prefix and metric, and one of another protocol beside.
    rig.ip("route add 10.2.1.0/24 via 10.99.0.3 metric 20 proto static");
    rig.ip("route add 10.3.0.0/24 via 10.99.0.3 proto static");
    let ours = Daemon::isthmus_with(&rig, &TABLE, &ours(""));
    rig.wait_ours(
        "the conflict is told",
        || rig.log(),
        |log| {
            log.contains("another program's route has the same prefix and metric")
                && log.contains("10.2.1.0/24")
        },
    );
    assert!(!routes(&rig).contains("10.2.1.0/24"), "{}", routes(&rig));
    let watched = rig.isthmus_stream("bgp summary --watch");
    let conflict = "1 route(s) are not in the kernel, for example 10.2.1.0/24: another program's route";
    rig.wait_ours("who watches hears of it", || watched.text(), |text| text.contains(conflict));
    rig.ip("route del 10.2.1.0/24 proto static");
    wait_all(&rig);
    let end = "no route has this problem in the kernel any longer: another program's route";
    rig.wait_ours("and of its end", || watched.text(), |text| text.contains(end));
    assert_eq!(watched.text().matches(conflict).count(), 1, "{}", watched.text());
    drop(watched);
    // As systemd-networkd does at its restart.
    rig.ip("route flush proto 99");
    rig.ip("-6 route flush proto 99");
    wait_all(&rig);
    let text = rig.ip("route show proto static");
    assert!(text.contains("10.3.0.0/24"), "another program's stay: {text}");
    // The kernel forgets IPv4 routes without a word when their interface goes down.
    rig.ip("link set eth0 down");
    rig.wait_ours("no routes without a link", || routes(&rig), str::is_empty);
    rig.ip("link set eth0 up");
    // It forgets IPv6 addresses too.
    rig.ip("addr add fd99::1/64 dev eth0 nodad");
    wait_all(&rig);
    ours.terminate();
    assert_eq!(routes(&rig), "", "without graceful restart they go");
    rig.finish();
}

#[test]
fn next_hops_beyond_a_router_are_resolved_and_what_leads_nowhere_is_told() {
    let Some(rig) = open("kn") else { return };
    rig.ip_there("addr add 10.98.0.1/32 dev lo");
    rig.ip("route add 10.98.0.0/24 via 10.99.0.2");
    let _ours =
        Daemon::isthmus_with(&rig, &["--kernel-table", "1099", "--kernel-protocol", "123"], &ours(""));
    rig.wait_ours("the API answers", || rig.gobgp("global"), |text| text.contains("64511"));
    let theirs = bird();
    // A route whose next hop is two hops away, one whose next hop is our own address, and one that leads nowhere.
    let extra = "protocol static far {\n  ipv4;\n  route 10.4.0.0/24 blackhole { bgp_next_hop = 10.98.0.1; };\n  \
        route 10.4.1.0/24 blackhole { bgp_next_hop = 10.97.0.1; };\n  \
        route 10.4.2.0/24 blackhole { bgp_next_hop = 10.98.0.1; };\n}\n";
    let theirs = theirs.replace(
        "ipv4 { import none; export all; next hop self; }",
        "ipv4 { import none; export all; next hop keep; }",
    ) + extra;
    let _bird = Daemon::bird(&rig, &theirs);
    let table = || rig.ip("-o route show table 1099 proto 123");
    rig.wait_ours("the far next hop is reached over the router", table, |text| {
        text.contains("10.4.0.0/24 via 10.99.0.2 dev eth0") && text.contains("10.4.2.0/24")
    });
    rig.wait_ours(
        "what leads nowhere is told",
        || rig.log(),
        |log| log.contains("the kernel has no route to the next hop") && log.contains("next_hop=10.97.0.1"),
    );
    let why = rig.isthmus("bgp why 10.4.1.0/24");
    assert!(why.contains("excluded") && why.contains("no route to its next hop 10.97.0.1"), "{why}");
    assert!(!table().contains("10.4.1.0/24"));
    // The other session may have brought it first.
    let sent = |more: &str| rig.isthmus(&format!("bgp routes 10.4.1.0/24 --from 10.99.0.2 {more}"));
    rig.wait_ours(
        "it is not taken for a path that was refused",
        || sent("--columns prefix,mark"),
        |text| text.contains("unresolved next hop") && !text.contains("refused"),
    );
    let document = sent("-o json");
    assert!(
        document.contains("\"unresolved\": true") && document.contains("\"filtered\": false"),
        "{document}"
    );
    let why = rig.isthmus("bgp why 10.4.1.0/24 -o json");
    assert!(why.contains("\"reason\": \"unresolved\"") && why.contains("\"unresolved\": true"), "{why}");
    rig.ip("route add 10.97.0.0/16 via 10.99.0.3");
    rig.wait_ours("it comes with a route to its next hop", table, |text| {
        text.contains("10.4.1.0/24 via 10.99.0.3 dev eth0")
    });
    rig.ip("route del 10.97.0.0/16 via 10.99.0.3");
    rig.wait_ours("it goes with it", table, |text| !text.contains("10.4.1.0/24"));
    rig.wait_ours(
        "and nobody is told of it",
        || rig.isthmus("bgp routes 10.4.1.0/24"),
        |text| text.contains("there is no route to 10.4.1.0/24"),
    );
    rig.finish();
}
