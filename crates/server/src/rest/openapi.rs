//! `GET /api/v1/openapi.json`: the API's own description, OpenAPI 3.1.
//!
//! Schemas come from the documents' types; operations from the one table below, which a test holds against the router.

use axum::Json;
use isthmus_api::{
    local::{AgentStatus, Flow},
    rest::{
        BgpPeerSpec, BlockSpec, ClusterSpec, Draft, EndpointSpec, IdentitySpec, List, NetworkSpec,
        NetworkStatus, NodeSettings, NodeSpec, PolicySpec, PoolSpec, Problem, Resource, Rollout, Why,
        WorkloadSpec,
    },
};
use utoipa::{
    OpenApi,
    openapi::{
        Content, HttpMethod, PathItem, Ref, RefOr, Required, Schema,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        response::ResponseBuilder,
        schema::{ObjectBuilder, SchemaType, Type},
    },
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Isthmus", description = "One network for every container platform."),
    components(schemas(
        Resource<ClusterSpec>, List<Resource<ClusterSpec>>, Draft<ClusterSpec>,
        Resource<PoolSpec>, List<Resource<PoolSpec>>, Draft<PoolSpec>,
        Resource<PolicySpec>, List<Resource<PolicySpec>>, Draft<PolicySpec>,
        Resource<NodeSpec>, List<Resource<NodeSpec>>, Draft<NodeSettings>,
        Resource<NetworkSpec>, Draft<NetworkSpec>,
        Resource<BgpPeerSpec>, List<Resource<BgpPeerSpec>>, Draft<BgpPeerSpec>,
        Resource<BlockSpec>, List<Resource<BlockSpec>>,
        Resource<IdentitySpec>, List<Resource<IdentitySpec>>,
        Resource<WorkloadSpec>, List<Resource<WorkloadSpec>>,
        Resource<EndpointSpec>, List<Resource<EndpointSpec>>,
        NetworkStatus, Rollout, Why, Problem, Flow, AgentStatus,
    ))
)]
struct Schemas;

/// One operation of the API.
pub(super) struct Described {
    pub(super) method: HttpMethod,
    /// Below `/api/v1`.
    pub(super) path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    body: Option<&'static str>,
    status: &'static str,
    answer: Option<&'static str>,
}

const LIST: [&str; 3] = ["limit", "after", "labelSelector"];

const fn get(
    path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    answer: &'static str,
) -> Described {
    Described {
        method: HttpMethod::Get,
        path,
        summary,
        query,
        body: None,
        status: "200",
        answer: Some(answer),
    }
}

const fn write(
    method: HttpMethod,
    path: &'static str,
    summary: &'static str,
    body: &'static str,
    status: &'static str,
    answer: &'static str,
) -> Described {
    Described { method, path, summary, query: &["dryRun"], body: Some(body), status, answer: Some(answer) }
}

const fn delete(path: &'static str, summary: &'static str) -> Described {
    let query = &["dryRun"];
    Described { method: HttpMethod::Delete, path, summary, query, body: None, status: "204", answer: None }
}

use HttpMethod::{Post, Put};

/// Every operation.
pub(super) const OPERATIONS: [Described; 41] = [
    get("/clusters", "Lists clusters", &LIST, "List_Resource_ClusterSpec"),
    write(Post, "/clusters", "Makes a cluster", "Draft_ClusterSpec", "201", "Resource_ClusterSpec"),
    get("/clusters/{name}", "Reads a cluster", &[], "Resource_ClusterSpec"),
    write(Put, "/clusters/{name}", "Replaces a cluster", "Draft_ClusterSpec", "200", "Resource_ClusterSpec"),
    delete("/clusters/{name}", "Deletes a cluster that nothing needs"),
    get("/pools", "Lists pools", &["limit", "after", "labelSelector", "cluster"], "List_Resource_PoolSpec"),
    write(Post, "/pools", "Makes a pool", "Draft_PoolSpec", "201", "Resource_PoolSpec"),
    get("/pools/{name}", "Reads a pool", &["cluster"], "Resource_PoolSpec"),
    write(Put, "/pools/{name}", "Replaces a pool", "Draft_PoolSpec", "200", "Resource_PoolSpec"),
    delete("/pools/{name}", "Deletes a pool of which no block is leased"),
    get("/network", "Reads how packets travel in the whole network", &[], "Resource_NetworkSpec"),
    write(
        Put,
        "/network",
        "Replaces how packets travel in the whole network",
        "Draft_NetworkSpec",
        "200",
        "Resource_NetworkSpec",
    ),
    get(
        "/bgp/peers",
        "Lists BGP neighbours",
        &["limit", "after", "labelSelector", "cluster"],
        "List_Resource_BgpPeerSpec",
    ),
    write(Post, "/bgp/peers", "Makes a BGP neighbour", "Draft_BgpPeerSpec", "201", "Resource_BgpPeerSpec"),
    get(
        "/bgp/peers/{name}",
        "Reads a BGP neighbour, without its password",
        &["cluster"],
        "Resource_BgpPeerSpec",
    ),
    write(
        Put,
        "/bgp/peers/{name}",
        "Replaces a BGP neighbour",
        "Draft_BgpPeerSpec",
        "200",
        "Resource_BgpPeerSpec",
    ),
    delete("/bgp/peers/{name}", "Deletes a BGP neighbour"),
    get(
        "/policies",
        "Lists policies",
        &["limit", "after", "labelSelector", "names"],
        "List_Resource_PolicySpec",
    ),
    write(Post, "/policies", "Makes a policy", "Draft_PolicySpec", "201", "Resource_PolicySpec"),
    get("/policies/{name}", "Reads a policy", &["names"], "Resource_PolicySpec"),
    write(Put, "/policies/{name}", "Replaces a policy", "Draft_PolicySpec", "200", "Resource_PolicySpec"),
    delete("/policies/{name}", "Deletes a policy"),
    get("/policies/{name}/rollout", "Tells where a policy is in force", &["wait"], "Rollout"),
    get("/nodes", "Lists nodes", &["limit", "after", "labelSelector", "cluster"], "List_Resource_NodeSpec"),
    get("/nodes/{name}", "Reads a node", &["cluster"], "Resource_NodeSpec"),
    get("/nodes/{name}/agent", "Asks a node's agent how it is", &[], "AgentStatus"),
    write(
        Put,
        "/nodes/{name}",
        "Replaces what people set of a node: its labels, AS and reflector",
        "Draft_NodeSettings",
        "200",
        "Resource_NodeSpec",
    ),
    delete("/nodes/{name}", "Deletes a node whose agent is away, with its blocks and endpoints"),
    get(
        "/blocks",
        "Lists leased blocks",
        &["limit", "after", "labelSelector", "cluster", "node", "pool"],
        "List_Resource_BlockSpec",
    ),
    get("/blocks/{name}", "Reads a block", &["cluster", "node", "pool"], "Resource_BlockSpec"),
    get("/identities", "Lists identities", &LIST, "List_Resource_IdentitySpec"),
    get("/identities/{name}", "Reads an identity", &[], "Resource_IdentitySpec"),
    get(
        "/workloads",
        "Lists workloads",
        &["limit", "after", "labelSelector", "cluster"],
        "List_Resource_WorkloadSpec",
    ),
    get("/workloads/{name}", "Reads a workload by UUID or name", &["cluster"], "Resource_WorkloadSpec"),
    delete("/workloads/{name}", "Deletes a workload that neither runs nor is named by a policy"),
    get(
        "/endpoints",
        "Lists endpoints",
        &["limit", "after", "labelSelector", "cluster", "node", "workload"],
        "List_Resource_EndpointSpec",
    ),
    get("/endpoints/{name}", "Reads an endpoint", &["cluster", "node", "workload"], "Resource_EndpointSpec"),
    get("/status", "Tells how the network is", &[], "NetworkStatus"),
    get("/why", "Tells whether one app may reach another, and what says so", &["from", "to", "port"], "Why"),
    get(
        "/flows",
        "Streams flows, a line of JSON for each",
        &["follow", "seconds", "from", "to", "verdict"],
        "Flow",
    ),
    get("/openapi.json", "This document", &[], "Problem"),
];

pub(super) async fn serve() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

/// The whole document.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Schemas::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    document.info.license = None;
    document.info.contact = None;
    for described in &OPERATIONS {
        let path = format!("/api/v1{}", described.path);
        let item = PathItem::new(described.method.clone(), operation(described));
        match document.paths.paths.get_mut(&path) {
            Some(held) => held.merge_operations(item),
            None => {
                document.paths.paths.insert(path, item);
            }
        }
    }
    document
}

fn operation(described: &Described) -> OperationBuilder {
    let mut operation = OperationBuilder::new().summary(Some(described.summary));
    if described.path.contains("{name}") {
        let name =
            ParameterBuilder::new().name("name").parameter_in(ParameterIn::Path).required(Required::True);
        operation = operation.parameter(name.schema(Some(text())));
    }
    for name in described.query {
        let required = if described.path == "/why" { Required::True } else { Required::False };
        let parameter =
            ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query).required(required);
        operation = operation.parameter(parameter.schema(Some(text())));
    }
    if let Some(schema) = described.body {
        let body = RequestBodyBuilder::new().content("application/json", content(schema));
        operation = operation.request_body(Some(body.required(Some(Required::True)).build()));
    }
    let mut answer = ResponseBuilder::new().description(described.summary);
    if described.path == "/openapi.json" {
        answer = answer.content("application/json", Content::new(None::<RefOr<Schema>>));
    } else if let Some(schema) = described.answer {
        let kind = if described.path == "/flows" { "application/jsonl" } else { "application/json" };
        answer = answer.content(kind, content(schema));
    }
    let problem =
        ResponseBuilder::new().description("Refused").content("application/problem+json", content("Problem"));
    operation.response(described.status, answer.build()).response("default", problem.build())
}

fn content(schema: &str) -> Content {
    Content::new(Some(RefOr::<Schema>::Ref(Ref::from_schema_name(schema))))
}

fn text() -> RefOr<Schema> {
    RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).build()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_GOLDEN=1 cargo test -p isthmus-server` rewrites the file.
    #[test]
    fn the_document_is_the_golden_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/openapi.json");
        let found = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
            std::fs::write(path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(path).unwrap();
        assert!(
            found == expected,
            "the API changed: look at the difference, then rewrite with UPDATE_GOLDEN=1"
        );
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let json = serde_json::to_value(document()).unwrap();
        let text = json.to_string();
        let schemas = json["components"]["schemas"].as_object().unwrap();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
