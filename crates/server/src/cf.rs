//! Cloud Foundry's external policy API, versions 0 and 1, on a listener of its own.
//!
//! `cf add-network-policy` and other clients parse what the original policy server answers, so paths, texts, headers and
//! the order of checks are its own: router, version, body and validation, store. Tokens come with a later issue; until
//! then the listener is on loopback and everybody on the node is an admin. `whoami` and `tags` tell of a token and of
//! tags of Silk, and `cleanup` asks the Cloud Controller: none of the three can be answered, so they are not there.

mod body;
mod json;

use crate::{
    http::{BODY_BYTES_MAX, BODY_WAIT},
    kinds::CfPolicy,
    metrics::Metrics,
    problem::chain,
    registry::Registry,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use body::Version;
use http::{HeaderValue, Method, StatusCode, header};
use std::{collections::BTreeSet, fmt::Write as _, sync::Arc, time::Instant};
use uuid::Uuid;

/// What handlers need.
pub(crate) struct Api {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    started: Instant,
}

/// A path that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path<'a> {
    Root,
    Health,
    Policies(&'a str),
    Delete(&'a str),
}

/// An answer before it has its headers.
struct Answer {
    status: StatusCode,
    body: String,
    /// Which methods a path knows, for 405 and for preflight requests.
    allow: Option<&'static str>,
    /// Whether a handler was reached, which adds the security headers.
    handled: bool,
    preflight: bool,
}

impl Answer {
    fn new(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), allow: None, handled: true, preflight: false }
    }

    fn error(status: StatusCode, text: &str) -> Self {
        // The original does not escape the text.
        Self::new(status, format!("{{\"error\": \"{text}\"}}"))
    }

    fn router(status: StatusCode, body: &str) -> Self {
        Self { handled: false, ..Self::new(status, body) }
    }
}

/// The API's router: one handler, because paths and methods are refused in the original's own way.
pub(crate) fn router(registry: Arc<Registry>, metrics: Arc<Metrics>) -> Router {
    let api = Arc::new(Api { registry, metrics, started: Instant::now() });
    Router::new().fallback(handle).with_state(api)
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer =
        answer(&api, &parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default(), body).await;
    api.metrics.answered("cf", answer.status.as_u16());
    respond(answer)
}

async fn answer(api: &Api, method: &Method, path: &str, query: &str, body: Body) -> Answer {
    let Some(path) = known_path(path) else {
        return Answer::router(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let allow = match path {
        Path::Root | Path::Health => "GET,OPTIONS",
        Path::Policies(_) => "POST,GET,OPTIONS",
        Path::Delete(_) => "POST,OPTIONS",
    };
    if method == Method::OPTIONS {
        return Answer { allow: Some(allow), preflight: true, ..Answer::new(StatusCode::OK, "") };
    }
    if !allow.split(',').any(|known| known == method.as_str()) {
        return Answer {
            allow: Some(allow),
            ..Answer::router(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
        };
    }
    let version = match path {
        Path::Root => {
            let up = go_duration(api.started.elapsed());
            return Answer::new(StatusCode::OK, format!("Network policy server, up for {up}\n"));
        }
        Path::Health => return health(api),
        Path::Policies(version) | Path::Delete(version) => match version {
            "v0" => Version::V0,
            "v1" => Version::V1,
            other => {
                let text = format!("api version '{other}' not supported");
                return Answer::error(StatusCode::NOT_ACCEPTABLE, &text);
            }
        },
    };
    match (path, method) {
        (Path::Delete(_), _) => write(api, version, body, true).await,
        (_, &Method::POST) => write(api, version, body, false).await,
        _ => list(api, version, query).await,
    }
}

fn known_path(path: &str) -> Option<Path<'_>> {
    match path {
        "/" | "/networking" => return Some(Path::Root),
        "/health" => return Some(Path::Health),
        _ => {}
    }
    let (version, rest) = path.strip_prefix("/networking/")?.split_once('/')?;
    match rest {
        "external/policies" => Some(Path::Policies(version)),
        "external/policies/delete" => Some(Path::Delete(version)),
        _ => None,
    }
}

fn health(api: &Api) -> Answer {
    match api.registry.store_revision() {
        Ok(_) => Answer::new(StatusCode::OK, ""),
        Err(error) => {
            tracing::warn!(%error, "store cannot be read");
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "check database failed")
        }
    }
}

async fn write(api: &Api, version: Version, body: Body, delete: bool) -> Answer {
    let Some(bytes) = read(body).await else {
        let text = if delete { "invalid request body" } else { "failed reading request body" };
        return Answer::error(StatusCode::BAD_REQUEST, text);
    };
    let policies = match body::policies(version, &bytes) {
        Ok(policies) => policies,
        Err(error) => return Answer::error(StatusCode::BAD_REQUEST, &format!("mapper: {error}")),
    };
    let count = policies.len();
    let done = if delete {
        api.registry.delete_cf_policies(policies).await
    } else {
        api.registry.create_cf_policies(policies).await
    };
    match done {
        Ok(()) => {
            let what = if delete { "deleted" } else { "created" };
            tracing::info!(policies = count, what, "cloud foundry policies written");
            Answer::new(StatusCode::OK, "{}")
        }
        Err(error) => {
            tracing::warn!(error = %chain(&error), "cloud foundry policies not written");
            let text = if delete { "database delete failed" } else { "database create failed" };
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

async fn read(body: Body) -> Option<Bytes> {
    let bytes = axum::body::to_bytes(body, BODY_BYTES_MAX);
    tokio::time::timeout(BODY_WAIT, bytes).await.ok()?.ok()
}

async fn list(api: &Api, version: Version, query: &str) -> Answer {
    let policies = match api.registry.list_cf_policies().await {
        Ok(policies) => policies,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "cloud foundry policies not read");
            return Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "database read failed");
        }
    };
    let filter = Filter::read(query);
    let wanted: BTreeSet<CfPolicy> = policies.into_iter().filter(|policy| filter.passes(policy)).collect();
    Answer::new(StatusCode::OK, body::list(version, &wanted))
}

/// `id` wins over the others; an empty value matches nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    id: Option<Vec<String>>,
    source: Option<Vec<String>>,
    destination: Option<Vec<String>>,
}

impl Filter {
    /// Reads a query; of a parameter that comes several times the first counts.
    fn read(query: &str) -> Self {
        let mut filter = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let side = match unescape(name).as_str() {
                "id" => &mut filter.id,
                "source_id" => &mut filter.source,
                "dest_id" => &mut filter.destination,
                _ => continue,
            };
            if side.is_none() {
                *side = Some(unescape(value).split(',').map(str::to_owned).collect());
            }
        }
        filter
    }

    fn passes(&self, policy: &CfPolicy) -> bool {
        if let Some(ids) = &self.id {
            return ids.contains(&policy.source) || ids.contains(&policy.destination);
        }
        let passes = |ids: &Option<Vec<String>>, id: &String| ids.as_ref().is_none_or(|ids| ids.contains(id));
        passes(&self.source, &policy.source) && passes(&self.destination, &policy.destination)
    }
}

/// Undoes the escapes of a query (`%2C`, `+`). What is no escape stays.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => {
                        bytes.push(byte);
                        rest = &behind[2..];
                    }
                    None => bytes.push(b'%'),
                }
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn respond(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if answer.handled {
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("deny"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("frame-ancestors 'none'"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block"));
    }
    if answer.preflight {
        if let Some(allow) = answer.allow {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(allow));
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization"));
    } else {
        if let Some(allow) = answer.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if answer.handled
            && let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string())
        {
            headers.insert("x-vcap-request-id", id);
        }
    }
    response
}

/// A duration as Go prints it: `2.019281517s`, `1m0.5s`, `3h2m1s`, `12.5ms`.
fn go_duration(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    let decimal = |value: u128, unit: u128| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let whole = value / unit;
        if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
    };
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => return format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {}
    }
    let seconds = duration.as_secs();
    let mut text = String::new();
    if seconds >= 3_600 {
        let _ = write!(text, "{}h", seconds / 3_600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m", seconds / 60 % 60);
    }
    let rest = u128::from(seconds % 60) * 1_000_000_000 + u128::from(duration.subsec_nanos());
    let _ = write!(text, "{}s", decimal(rest, 1_000_000_000));
    text
}

#[cfg(test)]
mod tests;
