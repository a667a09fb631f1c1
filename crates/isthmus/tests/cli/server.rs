//! Against a real server.

use super::rig::{Real, run};

const CART: &str = "bc6f229d-5e4a-4c41-a63f-e8795496c283";
const WEB: &str = "11111111-2222-4333-8444-555555555555";

#[test]
fn clusters_and_pools_are_made_shown_and_deleted() {
    let server = Real::new();
    let ran = server.run("cluster create red --platform kubernetes --default closed --label team=a");
    assert_eq!((ran.exit, ran.out.as_str()), (Some(0), "red\n"), "{}", ran.err);
    assert_eq!(ran.err, "✔ cluster red created at revision 1   undo: isthmus cluster delete red\n");
    assert_eq!(server.run("cluster list -o name -l team=b").out, "");
    assert_eq!(
        server.run("cluster list").out,
        "CLUSTER  PLATFORM    DEFAULT  DENY\nred      kubernetes  closed   drop\n"
    );
    assert_eq!(server.run("pool create red --cluster red --cidr 10.64.0.0/16 --ascii").exit, Some(0));
    assert_eq!(
        server.run("ipam show").out,
        "POOL  CLUSTER  CIDRS         BLOCKS  USED  FREE\nred   red      10.64.0.0/16  0/1024  0     65536\n"
    );
    let ran = server.run("cluster delete red");
    assert_eq!(ran.exit, Some(1));
    assert!(ran.err.starts_with("error[ISE-0204]: cluster red is in use"), "{}", ran.err);
    let ran = server.run("pool delete red");
    assert_eq!(
        ran.err,
        "✔ pool red deleted   undo: isthmus pool create red --cluster red --cidr 10.64.0.0/16 --block-len 26\n"
    );
    assert_eq!(server.run("cluster delete red").exit, Some(0));
    assert_eq!(server.run("cluster show red").exit, Some(2));
}

#[test]
fn a_dry_run_changes_nothing() {
    let server = Real::new();
    let ran = server.run("cluster create red --platform k8s --dry-run");
    assert_eq!(
        (ran.exit, ran.err.as_str()),
        (Some(0), "✔ cluster red could be created; nothing was changed\n")
    );
    assert_eq!(server.run("cluster list -o name").out, "");
    server.run("cluster create green --platform cf");
    assert_eq!(server.run(&format!("policy allow {CART} {WEB} tcp:80 --dry-run")).exit, Some(0));
    assert_eq!(server.run("policy list -o name").out, "");
    assert_eq!(server.run("cluster delete green --dry-run").exit, Some(0));
    assert_eq!(server.run("cluster list -o name").out, "green\n");
}

#[test]
fn a_policy_is_written_explained_and_taken_back() {
    let server = Real::new();
    server.run("cluster create green --platform cf");
    let ran = server.run(&format!("policy allow {CART} {WEB} tcp:8080 --name p1 --reason CHG-881"));
    assert_eq!((ran.exit, ran.out.as_str()), (Some(0), "p1\n"), "{}", ran.err);
    assert!(ran.err.starts_with("✔ policy p1 created at revision "), "{}", ran.err);
    assert!(ran.err.ends_with("undo: isthmus policy remove p1\n"), "{}", ran.err);
    let ran = server.run("policy list --no-headers --columns policy,from,to,port,reason");
    assert_eq!(ran.out, format!("p1  cf:{CART}@green  cf:{WEB}@green  tcp:8080  CHG-881\n"));
    assert_eq!(server.run("policy show p1 -o json").exit, Some(0));
    let ran = server.run(&format!("policy allow {CART} {WEB} tcp:8080 --name p1"));
    assert_eq!(ran.exit, Some(1));
    assert!(ran.err.starts_with("error[ISE-0003]"), "{}", ran.err);
    assert_eq!(server.run(&format!("why {CART} {WEB} tcp:8080")).exit, Some(1), "neither app runs");
    let ran = server.run("policy remove p1");
    let undo = format!("isthmus policy allow {CART} {WEB} tcp:8080 --name p1 --reason CHG-881");
    assert_eq!(ran.err, format!("✔ policy p1 removed   undo: {undo}\n"));
    assert_eq!(server.run("policy remove p1").exit, Some(2));
}

#[test]
fn a_policy_without_a_name_gets_one_that_tells_what_it_does() {
    let server = Real::new();
    server.run("cluster create green --platform cf");
    let ran = server.run(&format!("allow {CART} {WEB} udp:53"));
    assert!(ran.out.starts_with("bc6f229d-to-11111111-udp-53-"), "{}", ran.out);
}

#[test]
fn apps_are_found_by_part_of_their_name() {
    let server = Real::new();
    server.run("cluster create green --platform cf");
    server.run(&format!("policy allow {CART} {WEB} any"));
    let ran = server.run(&format!("app show {CART}"));
    assert!(ran.out.contains(&format!("uuid       {CART}\n")), "{}", ran.out);
    let ran = server.run("app show nothing-like-it -o json");
    assert_eq!((ran.exit, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.starts_with("error[ISE-0101]"), "{}", ran.err);
    assert!(server.run("why nothing-like-it cart tcp:1").err.contains("ISE-0101"));
}

#[test]
fn an_empty_network_is_well() {
    let server = Real::new();
    let ran = server.run("status");
    assert_eq!(ran.exit, Some(0));
    assert!(
        ran.out.starts_with(concat!("isthmus ", env!("CARGO_PKG_VERSION"), "   revision 0\nPLATFORM")),
        "{}",
        ran.out
    );
    assert_eq!(server.run("node list -o json").out, "[]\n");
    assert_eq!(server.run("endpoint list").out, "ADDRESS  APP  INSTANCE  IDENTITY  NODE\n");
    assert_eq!(server.run("flows --seconds 1 -o json").out, "[]\n");
}

#[test]
fn a_server_that_is_away_is_status_three() {
    let ran = run(Some("127.0.0.1:1"), "app list");
    assert_eq!((ran.exit, ran.out.as_str()), (Some(3), ""));
    assert!(
        ran.err.starts_with("error[ISE-0601]: cannot reach the server at http://127.0.0.1:1"),
        "{}",
        ran.err
    );
    assert_eq!(run(Some("nonsense"), "app list").exit, Some(2));
}

#[test]
fn the_flag_comes_before_the_environment() {
    let server = Real::new();
    let ran = server.run("--server 127.0.0.1:1 app list");
    assert_eq!(ran.exit, Some(3), "{}", ran.err);
}

#[test]
fn the_networks_setting_is_shown_set_and_taken_back() {
    let server = Real::new();
    assert_eq!(
        server.run("network show").out,
        "encapsulation  always\nsource-check   strict\nrevision       0\n"
    );
    let ran = server.run("network set --encapsulation never --source-check loose");
    assert_eq!(
        ran.err,
        "✔ network: encapsulation always -> never, source check strict -> loose   \
         undo: isthmus network set --encapsulation always --source-check strict\n"
    );
    let ran = server.run("network set --encapsulation never");
    assert_eq!(ran.err, "✔ network is so already; nothing was changed\n");
    assert!(server.run("network set --source-check strict --dry-run").err.ends_with("nothing was changed\n"));
    assert!(server.run("network show -o json").out.contains("\"sourceCheck\": \"loose\""));
    assert_eq!(server.run("network set").exit, Some(2));
    assert_eq!(server.run("network set --encapsulation maybe").exit, Some(2));
}

#[test]
fn a_cluster_gets_an_as_and_loses_it() {
    let server = Real::new();
    assert_eq!(server.run("cluster create red --platform k8s --as 64512").exit, Some(0));
    let ran = server.run("cluster set red --topology none");
    assert_eq!(
        ran.err,
        "✔ cluster red: topology full-mesh -> none   undo: isthmus cluster set red --as 64512 --topology full-mesh\n"
    );
    assert!(server.run("cluster show red -o json").out.contains("\"asn\": 64512"));
    let ran = server.run("cluster set red --as none");
    assert!(ran.err.starts_with("✔ cluster red: AS 64512 -> none"), "{}", ran.err);
    let ran = server.run("cluster create blue --platform k8s --as 23456");
    assert_eq!(ran.exit, Some(2));
    assert!(ran.err.contains("reserved"), "{}", ran.err);
    let ran = server.run("cluster create dcos --platform mesos --external");
    assert_eq!(ran.exit, Some(0), "{}", ran.err);
    assert_eq!(server.run("pool create dcos --cluster dcos --cidr 192.168.128.0/17").exit, Some(0));
    assert!(server.run("app list").out.contains("mesos:external/dcos@dcos"));
    let ran = server.run("node set nobody --label rack=a");
    assert_eq!(ran.exit, Some(2));
    assert!(ran.err.starts_with("error[ISE-0002]: there is no node nobody"), "{}", ran.err);
}

#[test]
fn what_happens_without_a_rule_and_what_nodes_announce_can_be_set() {
    let server = Real::new();
    assert_eq!(server.run("cluster create red --platform k8s").exit, Some(0));
    let ran = server.run("cluster set red --default closed --deny reject");
    assert_eq!(
        ran.err,
        "✔ cluster red: default open -> closed, deny drop -> reject   \
         undo: isthmus cluster set red --default open --deny drop\n"
    );
    let ran = server.run("cluster set red --announce-endpoints yes --paths-max 4 --dry-run");
    assert_eq!(
        ran.err,
        "✔ cluster red could be set: announce endpoints no -> yes, paths none -> 4; nothing was changed\n"
    );
    let ran = server.run("cluster set red --announce-endpoints yes --paths-max 4");
    assert_eq!(
        ran.err,
        "✔ cluster red: announce endpoints no -> yes, paths none -> 4   \
         undo: isthmus cluster set red --announce-endpoints no --paths-max none\n"
    );
    let shown = server.run("cluster show red -o json").out;
    for part in ["\"default\": \"closed\"", "\"announceEndpoints\": true", "\"pathsMax\": 4"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // What is not said stays.
    for said in ["no", "yes"] {
        assert_eq!(server.run(&format!("cluster set red --announce-endpoints {said}")).exit, Some(0));
    }
    let ran = server.run("cluster delete red");
    assert!(
        ran.err.ends_with("--default closed --deny reject --announce-endpoints --paths-max 4\n"),
        "{}",
        ran.err
    );
    server.run("cluster create red --platform k8s --announce-endpoints --paths-max 4");
    let ran = server.run("cluster set red --announce-endpoints no --paths-max none");
    assert!(
        ran.err.starts_with("✔ cluster red: announce endpoints yes -> no, paths 4 -> none"),
        "{}",
        ran.err
    );
    for wrong in ["", "--paths-max 0", "--default maybe", "--announce-endpoints maybe"] {
        assert_eq!(server.run(&format!("cluster set red {wrong}")).exit, Some(2), "{wrong}");
    }
}

#[test]
fn a_bgp_peer_is_made_without_its_password_in_sight() {
    let server = Real::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "sesame-street\n").unwrap();
    let line = format!(
        "bgp peer create tor --address 192.0.2.1 --as 65000 --node-label rack=a --import 10.0.0.0/8=8..24 --ttl-security --password-file {}",
        file.display()
    );
    let ran = server.run(&line);
    assert_eq!((ran.exit, ran.out.as_str()), (Some(0), "tor\n"), "{}", ran.err);
    assert_eq!(ran.err, "✔ bgp peer tor created at revision 1   undo: isthmus bgp peer delete tor\n");
    assert_eq!(
        server.run("bgp peer list").out,
        "PEER  ADDRESS    AS     NODES   IMPORT            EXPORT\n\
         tor   192.0.2.1  65000  rack=a  10.0.0.0/8=8..24  blocks\n"
    );
    for line in ["bgp peer show tor -o wide", "bgp peer list -o wide", "bgp peer show tor -o json"] {
        let ran = server.run(line);
        assert_eq!(ran.exit, Some(0));
        assert!(!ran.out.contains("sesame"), "{}", ran.out);
    }
    assert!(server.run("bgp peer show tor -o json").out.contains("\"passwordSet\": true"));
    let ran = server.run("bgp peer create bad --address 192.0.2.256 --hold 2 --dry-run");
    assert_eq!(ran.exit, Some(2));
    assert!(ran.err.starts_with("error[ISE-0801]: bgpPeer bad cannot be:\n  address: "), "{}", ran.err);
    assert!(ran.err.contains("\n  holdSeconds: 2 is not from 3 to 65535\n"), "{}", ran.err);
    assert_eq!(
        server.run("bgp peer create x --address 192.0.2.9 --password-file /nonexistent").exit,
        Some(2)
    );
    let set = "bgp peer set tor --hold 9 --bfd yes --import 10.0.0.0/8=8..24,192.0.2.0/24 --node-label none --as none";
    let told = "as 65000 -> none, node-label rack=a -> none, hold none -> 9, bfd no -> yes, import 10.0.0.0/8=8..24 -> \
        10.0.0.0/8=8..24,192.0.2.0/24";
    let back =
        "bgp peer set tor --as 65000 --node-label rack=a --hold none --bfd no --import 10.0.0.0/8=8..24";
    let ran = server.run(&format!("{set} --dry-run"));
    assert_eq!(ran.err, format!("✔ bgp peer tor could be set: {told}; nothing was changed\n"));
    let ran = server.run(set);
    assert_eq!(ran.err, format!("✔ bgp peer tor: {told}   undo: isthmus {back}\n"));
    assert!(
        server.run("bgp peer show tor -o json").out.contains("\"passwordSet\": true"),
        "the password stays"
    );
    assert_eq!(server.run(back).exit, Some(0), "what is told takes it back");
    assert_eq!(server.run(back).err, "✔ bgp peer tor is so already; nothing was changed\n");
    let ran = server.run("bgp peer set tor --no-password");
    assert!(
        ran.err.contains("password set -> none   undo:") && ran.err.contains("--password-file FILE"),
        "{}",
        ran.err
    );
    let ran = server.run(&format!("bgp peer set tor --password-file {}", file.display()));
    assert!(ran.err.contains("password none -> another") && !ran.err.contains("sesame"), "{}", ran.err);
    let ran = server.run("bgp peer set tor --hold 2 --community x");
    assert!(ran.exit == Some(2) && ran.err.contains("holdSeconds: 2 is not from 3"), "{}", ran.err);
    assert_eq!(server.run("bgp peer set nobody --hold 9").exit, Some(2));
    let ran = server.run("bgp peer delete tor");
    assert_eq!(
        ran.err,
        "✔ bgp peer tor deleted   undo: isthmus bgp peer create tor --address 192.0.2.1 --as 65000 \
         --node-label rack=a --password-file FILE --import 10.0.0.0/8=8..24 --ttl-security\n"
    );
    assert_eq!(server.run("bgp peer show tor").exit, Some(2));
}

#[test]
fn each_setting_of_a_bgp_peer_is_set_told_and_taken_back() {
    let server = Real::new();
    server.run("cluster create red --platform k8s --as 64512");
    server.run("bgp peer create tor --address 192.0.2.1 --as 65000 --node-label rack=a");
    for (flag, before, after) in [
        ("address", "192.0.2.1", "192.0.2.2"),
        ("as", "65000", "none"),
        ("cluster", "none", "red"),
        ("nodes", "none", "n1,n2"),
        ("node-label", "rack=a", "rack=b"),
        ("hold", "none", "9"),
        ("passive", "no", "yes"),
        ("multihop", "none", "5"),
        ("ttl-security", "no", "yes"),
        ("bfd", "no", "yes"),
        ("restart", "120", "60"),
        ("reflector-client", "no", "yes"),
        ("import", "none", "10.0.0.0/8=8..24"),
        ("import-own-pools", "no", "yes"),
        ("import-default-route", "no", "yes"),
        ("export", "none", "10.0.0.0/8,192.0.2.0/24"),
        ("export-blocks", "yes", "no"),
        ("community", "none", "65000:1"),
        ("prefixes-max", "10000", "100"),
        ("family", "none", "ipv4-unicast"),
        ("local-pref", "none", "200"),
        ("port", "none", "1790"),
        ("label", "none", "team=a"),
    ] {
        let set = |value: &str| server.run(&format!("bgp peer set tor --{flag} {value}")).err;
        let told = |before: &str, after: &str| {
            format!(
                "✔ bgp peer tor: {flag} {before} -> {after}   undo: isthmus bgp peer set tor --{flag} {before}\n"
            )
        };
        assert_eq!(set(after), told(before, after));
        assert_eq!(set(after), "✔ bgp peer tor is so already; nothing was changed\n", "{flag}");
        assert_eq!(set(before), told(after, before));
    }
}
