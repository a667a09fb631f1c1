//! `isthmus bgp why`, beside BIRD.

use super::{
    IPV4_ALL, bird, ours,
    rig::{Daemon, Rig},
};

const POLICY: &str = "[global.apply-policy.config]\nimport-policy-list = [\"in\"]\nexport-policy-list = [\"out\"]\n\
    [[defined-sets.prefix-sets]]\nprefix-set-name = \"eight\"\nprefix-list = [{ ip-prefix = \"10.2.8.0/24\" }]\n\
    [[defined-sets.prefix-sets]]\nprefix-set-name = \"own\"\nprefix-list = [{ ip-prefix = \"10.1.1.0/24\" }]\n\
    [[policy-definitions]]\nname = \"in\"\n[[policy-definitions.statements]]\nname = \"no-eight\"\n\
    [policy-definitions.statements.conditions.match-prefix-set]\nprefix-set = \"eight\"\n\
    [policy-definitions.statements.actions]\nroute-disposition = \"reject-route\"\n\
    [[policy-definitions]]\nname = \"out\"\n[[policy-definitions.statements]]\nname = \"keep-own\"\n\
    [policy-definitions.statements.conditions.match-prefix-set]\nprefix-set = \"own\"\n\
    [policy-definitions.statements.actions]\nroute-disposition = \"reject-route\"\n";

#[test]
fn each_path_and_each_neighbour_has_its_reason() {
    let Some(rig) = Rig::open("wy") else { return };
    let _bird = Daemon::bird(&rig, &bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let other = "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"10.99.0.3\"\npeer-as = 65003\nadmin-down = true\n";
    let _ours = Daemon::isthmus(&rig, &format!("{}{other}{POLICY}", ours("peer-as = 65002\n")));
    rig.wait_ours("routes come", || rig.gobgp("global rib summary"), |text| text.contains("Path: 9"));
    rig.gobgp("global rib add 10.2.0.0/24");
    rig.gobgp("global rib add 10.1.0.0/24 community no-export");
    rig.gobgp("global rib add 10.1.1.0/24");
    rig.gobgp("global rib add 10.1.2.0/24");
    for (line, parts) in [
        ("10.2.0.0/24", &["best", "worse", "our own", "yes"] as &[&str]),
        ("10.2.3.4", &["10.2.3.0/24", "split horizon", "10.99.0.3", "shut down"]),
        ("10.2.8.0/24", &["excluded", "statement \"no-eight\" of policy \"in\"", "no path can be used"]),
        ("10.1.0.0/24", &["NO_EXPORT"]),
        ("10.1.1.0/24", &["statement \"keep-own\" of policy \"out\""]),
        ("10.1.2.0/24 --peer 10.99.0.2", &["there is no path to it from 10.99.0.2", "yes"]),
        ("203.0.113.0/24", &["203.0.113.0/24: there is no path to it"]),
        ("nonsense", &["neither a prefix nor an address"]),
        ("10.1.2.0/24 --peer 10.99.0.9", &["there is no neighbour 10.99.0.9"]),
        (
            "10.2.0.0/24 -o json",
            &["\"reason\": \"local-origin\"", "\"announced\": true", "\"as_path\": \"65002\""],
        ),
    ] {
        let text = rig.isthmus(&format!("bgp why {line}"));
        for part in parts {
            assert!(text.contains(part), "{line}: {part} is not in\n{text}");
        }
    }
    assert_eq!(rig.isthmus_status("bgp why 10.2.0.0/24"), 0);
    assert_eq!(rig.isthmus_status("bgp why 203.0.113.0/24"), 1, "nothing is known");
    assert_eq!(rig.isthmus_status("bgp why nonsense"), 2);
    rig.finish();
}
