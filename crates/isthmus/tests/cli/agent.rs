//! Against an agent's socket that says what it is told.

use super::rig::{Fake, run};
use axum::{Json, Router, routing::get};
use serde_json::json;

#[test]
fn a_node_is_shown_from_its_own_agent() {
    let status = || {
        json!({ "node": "red-1", "version": "0.1.0", "connected": false, "revision": 7, "attachMode": "tcx",
        "endpoints": 2, "connections": 3, "rules": 4, "uptimeS": 3700, "problems": ["veth ist1 is gone"],
        "foreignPrograms": ["eth0: other"] })
    };
    let server = Fake::new(Router::new().route("/status", get(move || async move { Json(status()) })));
    let ran = server.run_local("status --agent SOCKET");
    assert_eq!(ran.exit, Some(1));
    insta::assert_snapshot!(ran.out, @r"
    node         red-1
    version      0.1.0
    server       away
    revision     7
    endpoints    2
    connections  3
    rules        4
    hook         tcx
    uptime       1h01m
    ! veth ist1 is gone
    ! a program of somebody else is on our hook: eth0: other
    ");
}

#[test]
fn endpoints_addresses_and_flows_come_from_the_node() {
    let endpoints = || {
        json!([{ "id": "cni:isthmus/c1/eth0", "workload": "k8s:shop/web@red", "identity": "000100",
        "addresses": ["10.64.0.2"], "hostInterface": "ist0", "instance": "web-1" }])
    };
    let blocks = || {
        json!([{ "cidr": "10.64.0.0/26", "cluster": "red", "allocations": { "10.64.0.2": "cni:isthmus/c1/eth0" },
        "free": 60 }])
    };
    let flow = |from: &str, verdict: &str| {
        json!({ "timeUnixMs": 1, "node": "red-1", "verdict": verdict, "reason": "rule",
        "fromIdentity": "000100", "from": from, "toIdentity": "000101", "to": "b", "source": "10.64.0.2",
        "destination": "10.64.0.3", "protocol": 17, "sourcePort": 1, "destinationPort": 53, "rule": 1 })
    };
    let lines = format!("{}\n{}\n{}\n", flow("a", "allowed"), flow("a", "denied"), flow("c", "denied"));
    let router = Router::new()
        .route("/endpoints", get(move || async move { Json(endpoints()) }))
        .route("/ipam", get(move || async move { Json(blocks()) }))
        .route("/flows", get(move || async move { lines }));
    let agent = Fake::new(router);
    assert_eq!(
        agent.run_local("endpoint list --agent SOCKET").out,
        "ADDRESS    APP               INSTANCE  IDENTITY  INTERFACE\n10.64.0.2  k8s:shop/web@red  web-1     000100    ist0\n"
    );
    assert_eq!(agent.run_local("endpoint list --app cart --agent SOCKET -o name").out, "");
    assert_eq!(
        agent.run_local("ipam show --agent SOCKET").out,
        "BLOCK         CLUSTER  USED  FREE\n10.64.0.0/26  red      1     60\n"
    );
    let ran = agent.run_local("flows -f --verdict denied --from a --agent SOCKET -o jsonl");
    assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
}

#[test]
fn an_agent_that_is_away_is_status_three() {
    for line in ["status", "endpoint list", "ipam show", "flows"] {
        let ran = run(None, &format!("{line} --agent /nonexistent/agent.sock"));
        assert_eq!((ran.exit, ran.out.as_str()), (Some(3), ""), "{line}");
        assert!(
            ran.err.starts_with("error[ISE-0607]: no agent answers on /nonexistent/agent.sock"),
            "{}",
            ran.err
        );
    }
}
