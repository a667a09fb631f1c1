//! BFD with BIRD: a link that is cut ends the session within the detection time. Without BFD nobody would notice before the
//! hold time of 90 s, which is more than these tests wait.

use super::{BIRD, IPV4_ALL, bird, ours};
use crate::rig::{Daemon, Rig};

const BFD: &str = "[neighbors.bfd.config]\nenabled = true\ndesired-minimum-tx-interval = 100000\nrequired-minimum-receive = 100000\n";
/// BIRD's pauses, which otherwise are as long as these tests wait.
const QUICK: &str = "connect delay time 1; connect retry time 1; error wait time 1, 2;\n  ";
const THEIR_BFD: &str = "protocol bfd { interface \"eth0\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }\n";

#[test]
fn a_cut_link_ends_the_session_with_bird_at_once() {
    let Some(rig) = Rig::open("bf") else { return };
    let theirs = bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  bfd on;\n  {QUICK}{IPV4_ALL}"));
    let bird = Daemon::bird(&rig, &format!("{theirs}{THEIR_BFD}"));
    let _ours = Daemon::isthmus(&rig, &ours(&format!("peer-as = 65002\n{BFD}")));
    let neighbor = || rig.isthmus("bgp neighbor 10.99.0.2 -o json");
    let is_up = |text: &str| text.contains("\"Established\"") && text.contains("\"up, silence of 300ms");
    rig.wait_ours("both sessions come up", neighbor, is_up);
    bird.wait("BIRD agrees on the pace", "show bfd sessions", |text| {
        text.lines().any(|line| line.contains("10.99.0.1") && line.contains("Up") && line.contains("0.300"))
    });
    rig.wait_ours("its routes come", || rig.gobgp("global rib"), |text| text.contains("10.2.9.0/24"));
    rig.link("down");
    rig.wait_ours("the session ends", neighbor, |text| {
        text.contains("6/10") && text.contains("nothing came for 300ms") && !text.contains("\"Established\"")
    });
    rig.wait_ours("its routes go", || rig.gobgp("global rib"), |text| !text.contains("10.2."));
    rig.link("up");
    rig.wait_ours("both come back", neighbor, is_up);
    rig.finish();
}

#[test]
fn bfd_runs_over_ipv6_and_a_stop_is_no_broken_path() {
    let Some(rig) = Rig::open("b6") else { return };
    let bird = format!(
        "{BIRD}{THEIR_BFD}protocol bgp ours {{\n  local fd99::2 as 65002;\n  neighbor fd99::1 as 64511;\n  bfd on;\n  \
         connect delay time 60; error wait time 60, 60;\n  ipv6 {{ import all; export all; }};\n}}\n"
    );
    let bird = Daemon::bird(&rig, &bird);
    let text = format!(
        "[global.config]\nas = 64511\nrouter-id = \"10.99.0.1\"\n[[neighbors]]\n[neighbors.config]\n\
         neighbor-address = \"fd99::2\"\npeer-as = 65002\n{BFD}"
    );
    let daemon = Daemon::isthmus(&rig, &text);
    let neighbor = || rig.isthmus("bgp neighbor fd99::2 -o json");
    rig.wait_ours("both sessions come up", neighbor, |text| {
        text.contains("\"Established\"") && text.contains("\"up, silence of 300ms")
    });
    daemon.terminate();
    // Until it dials again, which it does late, it says why the session ended.
    bird.wait("BIRD's session is told to end", "show protocols all ours", |text| {
        text.contains("Administrative shutdown") && !text.contains("BFD session down")
    });
    bird.wait("and so is its BFD", "show bfd sessions", |text| !text.contains("Up"));
    rig.finish();
}
