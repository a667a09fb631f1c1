//! Bodies of requests and answers.

use super::json::{Object, TypeError};
use crate::kinds::CfPolicy;
use serde_json::Value;
use std::collections::BTreeSet;

/// Version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// One port.
    V0,
    /// A range of ports.
    V1,
}

/// Why a body is refused; the texts are the original's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("unmarshal json: {0}")]
    Json(String),
    #[error("unmarshal json: {0}")]
    Type(#[from] TypeError),
    #[error("validate policies: {0}")]
    Invalid(#[from] Invalid),
}

/// The first rule that a policy breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("missing policies")]
    NoPolicies,
    #[error("missing source id")]
    NoSource,
    #[error("missing destination id")]
    NoDestination,
    #[error("invalid destination protocol, specify either udp or tcp")]
    Protocol,
    #[error("invalid port range {0}-{1}, start must be less than or equal to end")]
    Reversed(i64, i64),
    #[error("invalid start port {0}, must be in range 1-65535")]
    Start(i64),
    #[error("missing start port")]
    NoStart,
    #[error("invalid end port {0}, must be in range 1-65535")]
    End(i64),
    #[error("invalid port {0}, must be in range 1-65535")]
    Port(i64),
    #[error("missing port")]
    NoPort,
    #[error("tags may not be specified")]
    Tags,
}

/// Reads and checks a body. Equal policies are one.
pub(super) fn policies(version: Version, bytes: &[u8]) -> Result<BTreeSet<CfPolicy>, BodyError> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| BodyError::Json(parser_text(&error, bytes)))?;
    let root = Object::root(&value, "policies")?;
    let mut found = Vec::new();
    for item in root.list("policies")? {
        found.push(read(version, item)?);
    }
    // The original reads the whole body before it judges any of it.
    if found.is_empty() {
        return Err(Invalid::NoPolicies.into());
    }
    for policy in &found {
        check(version, policy)?;
    }
    Ok(found.into_iter().map(|found| found.policy).collect())
}

struct Found {
    policy: CfPolicy,
    tagged: bool,
}

fn read(version: Version, item: &Value) -> Result<Found, TypeError> {
    let policy = Object::root(item, "policies")?;
    let source = policy.object("source", "source")?;
    let destination = policy.object("destination", "destination")?;
    let (start, end) = match version {
        Version::V0 => {
            let port = destination.number("port")?;
            (port, port)
        }
        Version::V1 => {
            let ports = destination.object("ports", "ports")?;
            (ports.number("start")?, ports.number("end")?)
        }
    };
    let tagged = !source.text("tag")?.is_empty() || !destination.text("tag")?.is_empty();
    let policy = CfPolicy {
        source: source.text("id")?,
        destination: destination.text("id")?,
        protocol: destination.text("protocol")?,
        start,
        end,
    };
    Ok(Found { policy, tagged })
}

fn check(version: Version, found: &Found) -> Result<(), Invalid> {
    let CfPolicy { source, destination, protocol, start, end } = &found.policy;
    let (start, end) = (*start, *end);
    if source.is_empty() {
        return Err(Invalid::NoSource);
    }
    if destination.is_empty() {
        return Err(Invalid::NoDestination);
    }
    if protocol != "tcp" && protocol != "udp" {
        return Err(Invalid::Protocol);
    }
    match version {
        // The original has no upper limit here.
        Version::V0 if start < 0 => return Err(Invalid::Port(start)),
        Version::V0 if start == 0 => return Err(Invalid::NoPort),
        Version::V1 if start > end => return Err(Invalid::Reversed(start, end)),
        Version::V1 if start < 0 => return Err(Invalid::Start(start)),
        Version::V1 if start == 0 => return Err(Invalid::NoStart),
        Version::V1 if end > 65_535 => return Err(Invalid::End(end)),
        Version::V0 | Version::V1 => {}
    }
    if found.tagged { Err(Invalid::Tags) } else { Ok(()) }
}

/// The parser's text. That of an empty body is the original's; of the others clients only show it.
fn parser_text(error: &serde_json::Error, bytes: &[u8]) -> String {
    if error.is_eof() || bytes.is_empty() {
        "unexpected end of JSON input".to_owned()
    } else {
        error.to_string()
    }
}

/// Writes a list, keys in the original's order. Version 0 leaves out ranges and does not count them.
pub(super) fn list(version: Version, policies: &BTreeSet<CfPolicy>) -> String {
    let shown: Vec<&CfPolicy> =
        policies.iter().filter(|policy| version == Version::V1 || policy.start == policy.end).collect();
    let text = |text: &str| Value::from(text).to_string();
    let items: Vec<String> = shown
        .iter()
        .map(|policy| {
            let ports = match version {
                Version::V0 => format!("\"port\":{}", policy.start),
                Version::V1 => format!("\"ports\":{{\"start\":{},\"end\":{}}}", policy.start, policy.end),
            };
            format!(
                "{{\"source\":{{\"id\":{}}},\"destination\":{{\"id\":{},\"protocol\":{},{ports}}}}}",
                text(&policy.source),
                text(&policy.destination),
                text(&policy.protocol)
            )
        })
        .collect();
    format!("{{\"total_policies\":{},\"policies\":[{}]}}", shown.len(), items.join(","))
}
