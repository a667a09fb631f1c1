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
