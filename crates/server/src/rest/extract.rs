//! What handlers take: bodies and queries that are refused with a problem document.

use super::Refusal;
use crate::{
    http::{BODY_BYTES_MAX, BODY_WAIT},
    problem::Code,
};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX);
        let body = tokio::time::timeout(BODY_WAIT, body).await;
        let bytes = body.map_err(|_late| Refusal::bad("the body did not come within 30 seconds"))?;
        let bytes = bytes.map_err(|error| {
            let limit = std::error::Error::source(&error)
                .is_some_and(|source| source.downcast_ref::<http_body_util::LengthLimitError>().is_some());
            if limit {
                Refusal::new(Code::TooLarge, format!("the body has more than {BODY_BYTES_MAX} bytes"))
            } else {
                Refusal::bad(format!("the body cannot be read: {error}"))
            }
        })?;
        if bytes.is_empty() {
            return Err(Refusal::bad("the body is empty: send a JSON document"));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Refusal::bad(format!("the body is not as expected: {error}")))
    }
}

/// The query, each parameter once, and none that the handler does not know.
pub(super) struct Params(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) =
            pairs.map_err(|error| Refusal::bad(format!("the query cannot be read: {error}")))?;
        let mut params = BTreeMap::new();
        for (name, value) in pairs {
            if params.insert(name.clone(), value).is_some() {
                return Err(Refusal::bad(format!("the parameter {name} is there twice")));
            }
        }
        Ok(Self(params))
    }
}

impl Params {
    /// Refuses parameters that are not among `names`.
    pub(super) fn only(self, names: &[&str]) -> Result<Self, Refusal> {
        match self.0.keys().find(|name| !names.contains(&name.as_str())) {
            None => Ok(self),
            Some(name) if names.is_empty() => {
                Err(Refusal::bad(format!("parameter {name}: this path takes none")))
            }
            Some(name) => {
                Err(Refusal::bad(format!("unknown parameter {name}: this path takes {}", names.join(", "))))
            }
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name).ok_or_else(|| Refusal::bad(format!("the parameter {name} is missing")))
    }

    /// A parameter that is read by `FromStr`.
    pub(super) fn read<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|why: T::Err| Refusal::bad(format!("{name}={text}: {why}")))
    }

    /// A switch: `true` or `false`; absent is `false`.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Refusal> {
        Ok(self.read::<bool>(name)?.unwrap_or(false))
    }
}

/// The revision that `If-Match` demands.
pub(super) fn wanted_revision(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    digits.and_then(|digits| digits.parse().ok()).map(Some).ok_or_else(|| {
        Refusal::bad(format!(
            "If-Match: {text} is no ETag of this API: send the one of the last read, like \"17\""
        ))
    })
}

/// RFC 9110 section 13.1.1: a precondition that fails is answered by 412.
pub(super) fn precondition(refusal: Refusal, wanted: Option<u64>) -> Refusal {
    if wanted.is_some() && refusal.0.code == Code::Conflict.as_str() {
        refusal.with_status(StatusCode::PRECONDITION_FAILED)
    } else {
        refusal
    }
}
