//! Sessions with BIRD that only the right one can have: a password (RFC 2385), a TTL that only near ones reach (RFC 5082).

use super::{BIRD, IPV4_ALL, bird, ours};
use crate::rig::{Daemon, Rig};

const SECURED: &str = "[neighbors.ttl-security.config]\nenabled = true\n";

/// BIRD with a password, that takes nothing from afar.
fn theirs(password: &str) -> String {
    bird(&format!(
        "65002;\n  neighbor 10.99.0.1 as 64511;\n  password \"{password}\";\n  ttl security on;\n  connect delay time 1;\n  {IPV4_ALL}"
    ))
}

fn with_password(password: &str) -> String {
    ours(&format!("peer-as = 65002\nauth-password = \"{password}\"\n{SECURED}"))
}

#[test]
fn bird_is_spoken_to_with_the_right_password_alone() {
    let Some(rig) = Rig::open("pw") else { return };
    let bird = Daemon::bird(&rig, &theirs("right"));
    let daemon = Daemon::isthmus(&rig, &with_password("wrong"));
    let summary = || rig.isthmus("bgp summary");
    rig.wait_ours("a wrong password is told", summary, |text| {
        text.contains("may differ") && text.contains("with another password")
    });
    assert!(!bird.control("show protocols ours").contains("Established"));
    daemon.reload(&with_password("right"));
    rig.wait_ours("the right one gets through", summary, |text| text.contains("10/10/"));
    daemon.reload(&ours("peer-as = 65002\n"));
    rig.wait_ours("none is not enough", summary, |text| text.contains("auth-password"));
    daemon.reload(&with_password("right"));
    rig.wait_ours("it comes back", summary, |text| text.contains("10/10/"));
    rig.finish();
}

#[test]
fn passwords_and_ttls_are_checked_over_ipv6_too() {
    let Some(rig) = Rig::open("p6") else { return };
    let bird = format!(
        "{BIRD}protocol bgp ours {{\n  local fd99::2 as 65002;\n  neighbor fd99::1 as 64511;\n  password \"right\";\n  \
         ttl security on;\n  ipv6 {{ import all; export all; }};\n}}\n"
    );
    let bird = Daemon::bird(&rig, &bird);
    let range = "[global.config]\nas = 64511\nrouter-id = \"10.99.0.1\"\n\
        [[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"racks\"\npeer-as = 65002\nauth-password = \"right\"\n\
        [peer-groups.ttl-security.config]\nenabled = true\n\
        [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"fd99::/64\"\npeer-group = \"racks\"\n";
    let daemon = Daemon::isthmus(&rig, range);
    bird.wait("it comes from the range", "show protocols ours", |text| text.contains("Established"));
    daemon.reload(&range.replace("\"right\"", "\"wrong\""));
    rig.wait_ours("a wrong one does not", || rig.isthmus("bgp summary"), |text| !text.contains("fd99::2"));
    rig.finish();
}
