//! Against a server that says what it is told.

use super::rig::Fake;
use axum::{
    Json, Router,
    extract::RawQuery,
    http::{StatusCode, header},
    routing::get,
};
use serde_json::{Value, json};

fn status() -> Value {
    json!({ "version": "0.3.0", "revision": 418, "clusters": [
        { "platform": "k8s", "cluster": "fra1", "nodesConnected": 40, "nodes": 40, "apps": 212, "endpoints": 1890,
          "revisionLowest": 418, "revisionHighest": 418, "state": "ok" },
        { "platform": "cf", "cluster": "fra2", "nodesConnected": 20, "nodes": 21, "apps": 96, "endpoints": 611,
          "revisionLowest": 417, "revisionHighest": 418, "state": "degraded" } ],
      "problems": [{ "place": "node diego-13", "text": "silent for 3m12s; its rules stay in force",
                     "help": "isthmus node show diego-13" }] })
}

#[test]
fn a_degraded_network_is_status_one_with_the_command_that_helps() {
    let server = Fake::new(Router::new().route("/api/v1/status", get(|| async { Json(status()) })));
    let ran = server.run("status");
    assert_eq!((ran.exit, ran.err.as_str()), (Some(1), ""));
    insta::assert_snapshot!(ran.out, @r"
    isthmus 0.3.0   revision 418
    PLATFORM  CLUSTER  NODES  APPS  ENDPOINTS  REVISION  STATE
    k8s       fra1     40/40  212   1890       418       ok
    cf        fra2     20/21  96    611        417..418  degraded
    ! node diego-13: silent for 3m12s; its rules stay in force   → isthmus node show diego-13
    ");
    let ran = server.run("status -o json");
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), status());
    assert!(server.run("status --ascii").out.contains("   -> isthmus node show"));
}

#[test]
fn why_tells_the_steps_and_answers_by_its_status() {
    async fn why(RawQuery(query): RawQuery) -> Json<Value> {
        let denied = query.unwrap() != "from=k8s%3Aweb&to=cart&port=tcp%3A8080";
        Json(json!({ "allowed": !denied, "reason": if denied { "no-rule" } else { "rule" },
            "from": "k8s:shop/web@red", "to": "cf:acme/prod/cart@green", "port": "tcp:8080",
            "steps": [{ "step": "source", "text": "id 00001f", "ok": true },
                      { "step": "ingress", "text": "two\u{1b}[2J rules", "ok": !denied }],
            "fix": if denied { json!("isthmus policy allow web cart tcp:80") } else { Value::Null } }))
    }
    let server = Fake::new(Router::new().route("/api/v1/why", get(why)));
    let ran = server.run("why k8s:web cart tcp:80");
    assert_eq!(ran.exit, Some(1));
    insta::assert_snapshot!(ran.out, @r"
    DENIED   reason: no-rule   k8s:shop/web@red → cf:acme/prod/cart@green tcp:8080
      1 source   ✔ id 00001f
      2 ingress  ✖ two?[2J rules
      fix: isthmus policy allow web cart tcp:80
    ");
    let ran = server.run("why k8s:web cart tcp:8080 --color always");
    assert_eq!(ran.exit, Some(0));
    assert!(ran.out.starts_with("\u{1b}[32mALLOWED\u{1b}[0m   reason: rule"), "{}", ran.out);
    assert_eq!(server.run("why a b sctp:1").exit, Some(2));
}

#[test]
fn lists_are_read_page_by_page() {
    async fn page(RawQuery(query): RawQuery) -> Json<Value> {
        let item = |name: &str| {
            json!({ "kind": "node", "name": name, "uuid": "00000000-0000-0000-0000-000000000001", "revision": 1,
                "spec": { "number": 1, "addresses": ["192.0.2.1"], "clusters": ["red"], "agentVersion": "0.1.0",
                    "vxlanPort": 4789, "mtu": 1450, "connected": true, "revisionInForce": 7, "lastSeenUnix": 0,
                    "endpoints": 3 } })
        };
        Json(if query.unwrap().contains("after=a%2F1") {
            json!({ "revision": 1, "items": [item("b")] })
        } else {
            json!({ "revision": 1, "items": [item("a")], "next": "a/1" })
        })
    }
    let server = Fake::new(Router::new().route("/api/v1/nodes", get(page)));
    assert_eq!(server.run("node list -o name").out, "a\nb\n");
    assert_eq!(
        server.run("node list --sort -node -o csv --columns node,state,revision").out,
        "node,state,revision\nb,ok,7\na,ok,7\n"
    );
    assert_eq!(server.run("node list --columns nope").exit, Some(2));
}

fn flow(verdict: &str) -> Value {
    json!({ "timeUnixMs": 1_700_000_000_123_u64, "node": "green-1", "verdict": verdict, "reason": "no-rule",
        "fromIdentity": "000100", "from": "k8s:shop/web@red", "toIdentity": "000101", "to": "cf:acme/prod/cart@green",
        "source": "10.64.0.2", "destination": "10.65.0.2", "protocol": 6, "sourcePort": 40000,
        "destinationPort": 8080, "rule": 0 })
}

#[test]
fn flows_are_shown_as_they_come() {
    async fn flows(RawQuery(query): RawQuery) -> String {
        assert_eq!(query.unwrap(), "follow=true&from=web&to=cart&verdict=denied");
        format!("{}\n\n{{\"lost\":3}}\n{}\n", flow("denied"), flow("denied"))
    }
    let server = Fake::new(Router::new().route("/api/v1/flows", get(flows)));
    let line = "flows -f --from web --to cart --verdict denied";
    let ran = server.run(line);
    assert_eq!(ran.exit, Some(0), "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r"
    TIME           FROM                          TO                            PORT        VERDICT   REASON          NODE
    22:13:20.123Z  k8s:shop/web@red              cf:acme/prod/cart@green       tcp:8080    denied    no-rule         green-1
    22:13:20.123Z  k8s:shop/web@red              cf:acme/prod/cart@green       tcp:8080    denied    no-rule         green-1
    ");
    let ran = server.run(&format!("{line} -o jsonl --limit 1"));
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), flow("denied"));
    let ran = server.run(&format!("{line} -o json"));
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), json!([flow("denied"), flow("denied")]));
}

#[test]
fn a_problem_of_the_server_is_told_with_its_code_and_status() {
    let problem = |status: u16, code: &'static str| {
        let body = json!({ "type": "x", "code": code, "title": "t", "status": status, "detail": "what, where, why",
            "help": "do this" });
        get(move || async move {
            (
                StatusCode::from_u16(status).unwrap(),
                [(header::CONTENT_TYPE, "application/problem+json")],
                body.to_string(),
            )
        })
    };
    let router = Router::new()
        .route("/api/v1/nodes/a", problem(403, "ISE-0009"))
        .route("/api/v1/nodes/b", problem(503, "ISE-0005"))
        .route("/api/v1/nodes/c", get(|| async { (StatusCode::BAD_GATEWAY, "<html>") }));
    let server = Fake::new(router);
    for (name, exit) in [("a", 4), ("b", 3), ("c", 3)] {
        assert_eq!(server.run(&format!("node show {name}")).exit, Some(exit));
    }
    assert_eq!(server.run("node show b").err, "error[ISE-0005]: what, where, why\n  help: do this\n");
    assert!(server.run("node show c").err.starts_with("error[ISE-0602]"));
}

#[test]
fn waiting_that_was_asked_for_and_took_too_long_is_status_five() {
    let policy = || {
        json!({ "kind": "policy", "name": "p", "uuid": "00000000-0000-0000-0000-000000000001", "revision": 9,
        "spec": { "rules": [{ "from": "a", "to": "b", "port": "any" }] } })
    };
    let rollout = || json!({ "revision": 9, "nodes": 3, "loaded": 2, "waiting": ["diego-13"] });
    let router = Router::new()
        .route(
            "/api/v1/policies",
            axum::routing::post(move || async move { (StatusCode::CREATED, Json(policy())) }),
        )
        .route("/api/v1/policies/p/rollout", get(move || async move { Json(rollout()) }));
    let server = Fake::new(router);
    let ran = server.run("policy allow a b any --name p --wait 1");
    assert_eq!(ran.exit, Some(5));
    assert!(
        ran.err.contains("loaded on 2/3 nodes that need it") && ran.err.contains("not yet: diego-13"),
        "{}",
        ran.err
    );
    assert_eq!(server.run("policy allow a b any --name p").exit, Some(0));
}
