//! Cloud Foundry's policy API: the recorded answers of the original that need no token, and what is ours.

use crate::rig::{Rig, draft, policy_spec, raw, unseen};
use http::StatusCode;
use isthmus_api::rest::{List, PolicySpec, Resource, WorkloadSpec};

struct Api {
    rig: Rig,
}

impl Api {
    async fn start() -> Self {
        Self { rig: Rig::with_clusters().await }
    }

    async fn call(&self, request: &str, body: &str) -> (StatusCode, String, String) {
        raw(self.rig.running.cf_addr.unwrap(), &format!("{request} HTTP/1.1"), body.as_bytes()).await
    }

    /// One row of the table: request, body, expected status and body.
    async fn check(&self, request: &str, body: &str, status: u16, expected: &str) {
        let (found_status, head, found) = self.call(request, body).await;
        assert_eq!((found_status.as_u16(), found.as_str()), (status, expected), "{request} {body}");
        assert!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
    }
}

const POLICIES: &str = "/networking/v1/external/policies";
const DELETE: &str = "/networking/v1/external/policies/delete";

fn policy(source: &str, destination: &str, protocol: &str, start: i64, end: i64) -> String {
    format!(
        r#"{{"source":{{"id":"{source}"}},"destination":{{"id":"{destination}","protocol":"{protocol}","ports":{{"start":{start},"end":{end}}}}}}}"#
    )
}

fn batch(policies: &[String]) -> String {
    format!(r#"{{"policies":[{}]}}"#, policies.join(","))
}

#[tokio::test]
async fn recorded_calls_get_the_recorded_answers() {
    let api = Api::start().await;
    let get = format!("GET {POLICIES}");
    let post = format!("POST {POLICIES}");
    let two = batch(&[policy("A", "B", "tcp", 8080, 8080), policy("A", "B", "udp", 9000, 9010)]);
    // The numbers are those of the reference's section 9.
    let rows: [(&str, &str, u16, &str); 8] = [
        /* 1 */ (&get, "", 200, r#"{"total_policies":0,"policies":[]}"#),
        /* 2 */ (&post, &two, 200, "{}"),
        /* 3 */
        (
            "GET /networking/v0/external/policies",
            "",
            200,
            r#"{"total_policies":1,"policies":[{"source":{"id":"A"},"destination":{"id":"B","protocol":"tcp","port":8080}}]}"#,
        ),
        /* 8 */
        ("GET /networking/v2/external/policies", "", 406, r#"{"error": "api version 'v2' not supported"}"#),
        /* 9 */
        (
            &post,
            r#"{"policies":[{"source":{"id":"A"},"destination":{"id":"B","protocol":"icmp","ports":{"start":1,"end":2}}}]}"#,
            400,
            r#"{"error": "mapper: validate policies: invalid destination protocol, specify either udp or tcp"}"#,
        ),
        /* 10 */
        (
            &post,
            r#"{"policies":[{"source":{"id":"A"},"destination":{"id":"B","protocol":"tcp","port":8080}}]}"#,
            400,
            r#"{"error": "mapper: validate policies: missing start port"}"#,
        ),
        /* 13 */
        (
            "POST /networking/v1/external/policies/delete",
            r#"{"policies":[{"source":{"id":"A"},"destination":{"id":"B","protocol":"tcp","ports":{"start":9999,"end":9999}}}]}"#,
            200,
            "{}",
        ),
        /* what 2 made is there */
        (
            &get,
            "",
            200,
            r#"{"total_policies":2,"policies":[{"source":{"id":"A"},"destination":{"id":"B","protocol":"tcp","ports":{"start":8080,"end":8080}}},{"source":{"id":"A"},"destination":{"id":"B","protocol":"udp","ports":{"start":9000,"end":9010}}}]}"#,
        ),
    ];
    for (request, body, status, expected) in rows {
        api.check(request, body, status, expected).await;
    }
}

#[tokio::test]
async fn each_rule_is_checked_in_the_originals_order_with_its_text() {
    let api = Api::start().await;
    let post = format!("POST {POLICIES}");
    for (source, destination, protocol, start, end, text) in [
        ("", "", "x", 9, 8, "missing source id"),
        ("A", "", "x", 9, 8, "missing destination id"),
        ("A", "B", "TCP", 9, 8, "invalid destination protocol, specify either udp or tcp"),
        ("A", "B", "tcp", 9, 8, "invalid port range 9-8, start must be less than or equal to end"),
        ("A", "B", "tcp", -1, 8, "invalid start port -1, must be in range 1-65535"),
        ("A", "B", "tcp", 0, 8, "missing start port"),
        ("A", "B", "tcp", 1, 70_000, "invalid end port 70000, must be in range 1-65535"),
    ] {
        // A good policy before it is not stored either.
        let body = batch(&[policy("A", "B", "tcp", 1, 1), policy(source, destination, protocol, start, end)]);
        let expected = format!(r#"{{"error": "mapper: validate policies: {text}"}}"#);
        api.check(&post, &body, 400, &expected).await;
    }
    let tagged = r#"{"policies":[{"source":{"id":"A","tag":"1"},"destination":{"id":"B","protocol":"tcp","ports":{"start":1,"end":1}}}]}"#;
    api.check(&post, tagged, 400, r#"{"error": "mapper: validate policies: tags may not be specified"}"#)
        .await;
    api.check(
        &post,
        r#"{"policies":[]}"#,
        400,
        r#"{"error": "mapper: validate policies: missing policies"}"#,
    )
    .await;
    api.check(&post, "null", 400, r#"{"error": "mapper: validate policies: missing policies"}"#).await;
    api.check(&post, "", 400, r#"{"error": "mapper: unmarshal json: unexpected end of JSON input"}"#).await;
    api.check(&format!("GET {POLICIES}"), "", 200, r#"{"total_policies":0,"policies":[]}"#).await;
}

#[tokio::test]
async fn version_0_has_one_port_and_no_upper_limit() {
    let api = Api::start().await;
    let post = "POST /networking/v0/external/policies";
    let body = |port: i64| {
        format!(
            r#"{{"policies":[{{"source":{{"id":"A"}},"destination":{{"id":"B","protocol":"tcp","port":{port}}}}}]}}"#
        )
    };
    let error = |text: &str| format!(r#"{{"error": "mapper: validate policies: {text}"}}"#);
    api.check(post, &body(-5), 400, &error("invalid port -5, must be in range 1-65535")).await;
    api.check(post, &body(0), 400, &error("missing port")).await;
    api.check(post, &body(70_000), 200, "{}").await;
    api.check(
        "GET /networking/v0/external/policies",
        "",
        200,
        r#"{"total_policies":1,"policies":[{"source":{"id":"A"},"destination":{"id":"B","protocol":"tcp","port":70000}}]}"#,
    )
    .await;
    api.check("POST /networking/v0/external/policies/delete", &body(70_000), 200, "{}").await;
    api.check("GET /networking/v1/external/policies", "", 200, r#"{"total_policies":0,"policies":[]}"#).await;
}

#[tokio::test]
async fn keys_are_read_without_regard_to_case_and_unknown_ones_are_ignored() {
    let api = Api::start().await;
    let body = r#"{"Total_Policies":7,"POLICIES":[{"Source":{"ID":"A","type":"app"},"destination":{"Id":"B","Protocol":"tcp","PORTS":{"Start":1,"END":2},"ips":null},"x":[]}]}"#;
    api.check(&format!("POST {POLICIES}"), body, 200, "{}").await;
    let (_, _, list) = api.call(&format!("GET {POLICIES}"), "").await;
    assert!(list.contains(r#""ports":{"start":1,"end":2}"#), "{list}");
    let (status, _, text) = api.call(&format!("POST {POLICIES}"), r#"{"policies":[{"source":"A"}]}"#).await;
    assert_eq!(status, 400);
    assert!(text.starts_with(r#"{"error": "mapper: unmarshal json: "#), "{text}");
}

#[tokio::test]
async fn filters_choose_by_either_end() {
    let api = Api::start().await;
    let all =
        batch(&[policy("A", "B", "tcp", 1, 1), policy("B", "C", "tcp", 2, 2), policy("C", "A", "tcp", 3, 3)]);
    api.check(&format!("POST {POLICIES}"), &all, 200, "{}").await;
    for (query, expected) in [
        ("", 3),
        ("?id=A", 2),
        ("?id=A%2CB", 3),
        ("?id=", 0),
        ("?id=A&source_id=B", 2),
        ("?source_id=A", 1),
        ("?source_id=A,B", 2),
        ("?dest_id=A", 1),
        ("?source_id=A&dest_id=A", 0),
        ("?source_id=C&dest_id=A", 1),
        ("?id=B&id=A", 2),
        ("?other=1", 3),
    ] {
        let (_, _, body) = api.call(&format!("GET {POLICIES}{query}"), "").await;
        assert!(body.starts_with(&format!(r#"{{"total_policies":{expected},"#)), "{query}: {body}");
    }
}

#[tokio::test]
async fn paths_methods_and_headers_are_the_originals() {
    let api = Api::start().await;
    api.check("GET /networking/v1/external/policies/", "", 404, "404 page not found\n").await;
    api.check("GET /nothing", "", 404, "404 page not found\n").await;
    api.check("PUT /networking/v1/external/policies", "", 405, "Method Not Allowed\n").await;
    let (status, head, _) = api.call("GET /networking/v1/external/policies/delete", "").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: post,options"), "{head}");
    let (status, head, body) = api.call(&format!("OPTIONS {POLICIES}"), "").await;
    assert_eq!((status.as_u16(), body.as_str()), (200, ""));
    assert!(head.contains("access-control-allow-methods: post,get,options"), "{head}");
    assert!(head.contains("access-control-allow-headers: authorization"), "{head}");
    assert!(!head.contains("x-vcap-request-id"), "{head}");
    let (_, head, _) = api.call(&format!("GET {POLICIES}"), "").await;
    for part in [
        "x-frame-options: deny",
        "content-security-policy: frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-xss-protection: 1; mode=block",
        "x-vcap-request-id: ",
    ] {
        assert!(head.contains(part), "{part}: {head}");
    }
    for path in ["/", "/networking"] {
        let (status, _, body) = api.call(&format!("GET {path}"), "").await;
        assert_eq!(status, 200);
        assert!(body.starts_with("Network policy server, up for ") && body.ends_with("s\n"), "{body}");
    }
    api.check("GET /health", "", 200, "").await;
    let (status, _, _) = api.call("HEAD /health", "").await;
    assert_eq!(status, 405);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_in_each_calls_own_words() {
    let api = Api::start().await;
    let big = " ".repeat((10 << 20) + 1);
    api.check(&format!("POST {POLICIES}"), &big, 400, r#"{"error": "failed reading request body"}"#).await;
    api.check(&format!("POST {DELETE}"), &big, 400, r#"{"error": "invalid request body"}"#).await;
}

#[tokio::test]
async fn creating_twice_is_once_and_deleting_needs_an_exact_match() {
    let api = Api::start().await;
    let one = batch(&[policy("A", "B", "tcp", 80, 90), policy("A", "B", "tcp", 80, 90)]);
    for _ in 0..2 {
        api.check(&format!("POST {POLICIES}"), &one, 200, "{}").await;
    }
    for miss in
        [policy("A", "B", "tcp", 80, 89), policy("A", "B", "udp", 80, 90), policy("B", "A", "tcp", 80, 90)]
    {
        api.check(&format!("POST {DELETE}"), &batch(&[miss]), 200, "{}").await;
    }
    let (_, _, list) = api.call(&format!("GET {POLICIES}"), "").await;
    assert!(list.starts_with(r#"{"total_policies":1,"#), "{list}");
    api.check(&format!("POST {DELETE}"), &one, 200, "{}").await;
    api.check(&format!("GET {POLICIES}"), "", 200, r#"{"total_policies":0,"policies":[]}"#).await;
}

#[tokio::test]
async fn a_policy_for_an_unseen_app_is_in_force_when_it_appears() {
    let api = Api::start().await;
    let (guid, pod) = (unseen(1), "k8s:shop/web@red");
    let mut agent = api.rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    let body = batch(&[policy(&web.uuid, &guid, "tcp", 8080, 8080)]);
    api.check(&format!("POST {POLICIES}"), &body, 200, "{}").await;
    let apps: List<Resource<WorkloadSpec>> =
        api.rig.client.get("/api/v1/workloads?cluster=green").await.unwrap();
    assert_eq!((apps.items.len(), apps.items[0].uuid.to_string()), (1, guid.clone()));
    let cart = agent.resolve("green", &guid).await;
    agent.scope(&[cart.identity]).await;
    agent.until("the rule", |agent| agent.rules(cart.identity) == 1).await;
    // The same policy over REST, by name and by UUID.
    let list: List<Resource<PolicySpec>> = api.rig.client.get("/api/v1/policies?names=true").await.unwrap();
    assert!(list.items[0].name.starts_with("cf-"), "{}", list.items[0].name);
    assert_eq!(list.items[0].spec.rules[0].from, pod);
    let list: List<Resource<PolicySpec>> = api.rig.client.get("/api/v1/policies").await.unwrap();
    assert_eq!(list.items[0].spec.rules[0].to, guid);
    api.check(&format!("POST {DELETE}"), &body, 200, "{}").await;
    agent.until("no rule", |agent| agent.rules(cart.identity) == 0).await;
}

#[tokio::test]
async fn rules_of_other_policies_are_listed_and_can_be_deleted() {
    let api = Api::start().await;
    let mut agent = api.rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    let db = agent.resolve("red", "shop/db").await;
    api.rig.allow("p", &[("web", "db", "tcp:1-9"), ("web", "db", "icmp"), ("web", "db", "udp")]).await;
    let (_, _, list) = api.call(&format!("GET {POLICIES}?source_id={}", web.uuid), "").await;
    assert!(list.starts_with(r#"{"total_policies":2,"#), "{list}");
    assert!(list.contains(r#""ports":{"start":1,"end":65535}"#), "{list}");
    let body = batch(&[policy(&web.uuid, &db.uuid, "tcp", 1, 9)]);
    api.check(&format!("POST {DELETE}"), &body, 200, "{}").await;
    let left: Resource<PolicySpec> = api.rig.client.get("/api/v1/policies/p?names=true").await.unwrap();
    let expected = policy_spec(&[
        ("k8s:shop/web@red", "k8s:shop/db@red", "icmp"),
        ("k8s:shop/web@red", "k8s:shop/db@red", "udp"),
    ]);
    assert_eq!(left.spec, expected);
}

#[tokio::test]
async fn without_a_cluster_for_it_an_app_that_is_no_uuid_is_refused() {
    let rig = Rig::start().await;
    let api = Api { rig };
    let post = format!("POST {POLICIES}");
    let body = batch(&[policy("A", "B", "tcp", 1, 1)]);
    api.check(&post, &body, 500, r#"{"error": "database create failed"}"#).await;
    let body = batch(&[policy(&unseen(1), &unseen(2), "tcp", 1, 1)]);
    api.check(&post, &body, 200, "{}").await;
}

#[tokio::test]
async fn a_policy_of_the_cf_api_is_not_replaced_over_rest() {
    let api = Api::start().await;
    let body = batch(&[policy("A", "B", "tcp", 1, 1)]);
    api.check(&format!("POST {POLICIES}"), &body, 200, "{}").await;
    let list: List<Resource<PolicySpec>> = api.rig.client.get("/api/v1/policies").await.unwrap();
    let name = &list.items[0].name;
    let path = format!("/api/v1/policies/{name}");
    let other = draft(name, policy_spec(&[("A", "B", "tcp:2")]));
    assert_eq!(api.rig.refusal(http::Method::PUT, &path, Some(&other)).await.code, "ISE-0003");
    api.rig.client.delete::<()>(&path).await.unwrap();
    api.check(&format!("GET {POLICIES}"), "", 200, r#"{"total_policies":0,"policies":[]}"#).await;
}

#[tokio::test]
async fn thousands_of_policies_go_in_one_call() {
    let api = Api::start().await;
    let many: Vec<String> =
        (0..2_000).map(|n| policy(&unseen(n % 50), &unseen(n % 40), "tcp", 1 + n as i64, 2_000)).collect();
    api.check(&format!("POST {POLICIES}"), &batch(&many), 200, "{}").await;
    let (_, _, list) = api.call(&format!("GET {POLICIES}"), "").await;
    assert!(list.starts_with(r#"{"total_policies":2000,"#));
    api.check(&format!("POST {DELETE}"), &batch(&many), 200, "{}").await;
    api.check(&format!("GET {POLICIES}"), "", 200, r#"{"total_policies":0,"policies":[]}"#).await;
}
