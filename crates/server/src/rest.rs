//! The REST API under `/api/v1`.
//!
//! Reads come from the view, writes go through the registry, questions about what is loaded go to the agents. Every
//! refusal is RFC 9457's document with a code, for unknown paths and methods too.

mod documents;
mod extract;
mod flows;
mod kinds;
mod openapi;
mod status;
mod why;
mod writes;

use crate::{
    agents::Agents,
    flows::Flows,
    http::BODY_BYTES_MAX,
    metrics::Metrics,
    problem::{Code, Fault, document, problem},
    registry::Registry,
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use isthmus_api::rest;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Longest work on one request, streams excepted.
const WORK_MAX: Duration = Duration::from_mins(1);

/// What handlers need.
pub(crate) struct App {
    pub(crate) registry: Arc<Registry>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) flows: Arc<Flows>,
    pub(crate) metrics: Arc<Metrics>,
    /// Ends streams.
    pub(crate) stop: CancellationToken,
}

type Shared = State<Arc<App>>;

/// An answer that says no.
#[derive(Debug)]
struct Refusal(Box<rest::Problem>);

impl Refusal {
    fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(document(code, detail, None)))
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    fn missing(kind: &str, name: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {kind} {name}"))
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status.as_u16();
        self
    }
}

impl<F: Fault> From<F> for Refusal {
    fn from(fault: F) -> Self {
        let problem = problem(&fault);
        if problem.status >= 500 {
            tracing::warn!(code = problem.code, detail = problem.detail, "request failed");
        }
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(*self.0)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// The API's router.
pub(crate) fn router(app: Arc<App>) -> Router {
    use kinds::{BgpPeers, Blocks, Clusters, Endpoints, Identities, Nodes, Policies, Pools, Workloads};
    let v1 = Router::new()
        .route("/clusters", get(kinds::list::<Clusters>).post(writes::create_cluster))
        .route(
            "/clusters/{name}",
            get(kinds::one::<Clusters>).put(writes::replace_cluster).delete(writes::delete_cluster),
        )
        .route("/pools", get(kinds::list::<Pools>).post(writes::create_pool))
        .route(
            "/pools/{name}",
            get(kinds::one::<Pools>).put(writes::replace_pool).delete(writes::delete_pool),
        )
        .route("/network", get(kinds::network).put(writes::replace_network))
        .route("/bgp/peers", get(kinds::list::<BgpPeers>).post(writes::create_bgp_peer))
        .route(
            "/bgp/peers/{name}",
            get(kinds::one::<BgpPeers>).put(writes::replace_bgp_peer).delete(writes::delete_bgp_peer),
        )
        .route("/policies", get(kinds::list::<Policies>).post(writes::create_policy))
        .route(
            "/policies/{name}",
            get(kinds::one::<Policies>).put(writes::replace_policy).delete(writes::delete_policy),
        )
        .route("/policies/{name}/rollout", get(status::rollout))
        .route("/nodes", get(kinds::list::<Nodes>))
        .route(
            "/nodes/{name}",
            get(kinds::one::<Nodes>).put(writes::replace_node).delete(writes::delete_node),
        )
        .route("/nodes/{name}/agent", get(status::agent))
        .route("/blocks", get(kinds::list::<Blocks>))
        .route("/blocks/{*name}", get(kinds::one::<Blocks>))
        .route("/identities", get(kinds::list::<Identities>))
        .route("/identities/{name}", get(kinds::one::<Identities>))
        .route("/workloads", get(kinds::list::<Workloads>))
        .route("/workloads/{*name}", get(kinds::one::<Workloads>).delete(writes::delete_workload))
        .route("/endpoints", get(kinds::list::<Endpoints>))
        .route("/endpoints/{*name}", get(kinds::one::<Endpoints>))
        .route("/status", get(status::network))
        .route("/why", get(why::why))
        .route("/openapi.json", get(openapi::serve));
    let flows = Router::new().route("/flows", get(flows::flows));
    Router::new()
        .nest("/api/v1", v1)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        .layer(middleware::from_fn(limit_time))
        // Streams have no end to wait for.
        .nest("/api/v1", flows)
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), count))
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no path {}", uri.path()))
        .with_help("GET /api/v1/openapi.json lists all paths")
}

async fn unknown_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(Code::Method, format!("{} does not know the method {method}", uri.path()))
        .with_help("GET /api/v1/openapi.json lists all methods")
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(WORK_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_late) => {
            Refusal::new(Code::Unavailable, "the request took longer than 60 seconds").into_response()
        }
    }
}

async fn count(State(app): Shared, path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let response = next.run(request).await;
    let status = response.status();
    app.metrics.answered("rest", status.as_u16());
    tracing::debug!(%method, path = path.as_ref().map(MatchedPath::as_str), status = status.as_u16(), "answered");
    response
}
