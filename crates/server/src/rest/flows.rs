//! `GET /api/v1/flows`: what agents decide, one line of JSON for each flow, while the reader reads.

use super::{Refusal, Shared, extract::Params};
use crate::flows::Watcher;
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::stream;
use http::header;
use isthmus_api::local::Flow;
use isthmus_core::{WorkloadName, WorkloadPattern};
use std::{convert::Infallible, str::FromStr, time::Duration};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long flows are collected without `?follow=true`.
const SECONDS: u64 = 2;
/// The longest.
const SECONDS_MAX: u64 = 3_600;
/// Bytes of lines sent in one piece.
const PIECE: usize = 32 << 10;
/// How often a quiet stream says that it lives: an empty line, so that a reader that left is noticed.
const QUIET: Duration = Duration::from_secs(15);

/// Which flows are wanted.
#[derive(Debug, Default)]
struct Filter {
    from: Option<Side>,
    to: Option<Side>,
    verdict: Option<String>,
}

/// A name, or the word of a reserved identity.
#[derive(Debug)]
enum Side {
    Word(String),
    Pattern(WorkloadPattern),
}

pub(super) async fn flows(State(app): Shared, params: Params) -> Result<Response, Refusal> {
    let params = params.only(&["follow", "seconds", "from", "to", "verdict"])?;
    let follow = params.switch("follow")?;
    let seconds = params.read::<u64>("seconds")?;
    if seconds.is_some_and(|seconds| seconds == 0 || seconds > SECONDS_MAX) {
        return Err(Refusal::bad(format!("seconds is not from 1 to {SECONDS_MAX}")));
    }
    let verdict = params.text("verdict").map(str::to_owned);
    if verdict.as_ref().is_some_and(|verdict| verdict != "allowed" && verdict != "denied") {
        return Err(Refusal::bad("verdict: write allowed or denied"));
    }
    let filter = Filter { from: side(params.text("from"))?, to: side(params.text("to"))?, verdict };
    let seconds = seconds.or((!follow).then_some(SECONDS));
    let lines = Lines {
        watcher: app.flows.watch(),
        filter,
        until: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        stop: app.stop.clone(),
    };
    let body = stream::unfold(lines, |mut lines| async move {
        let piece = lines.next().await?;
        Some((Ok::<_, Infallible>(piece), lines))
    });
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(body)).into_response())
}

fn side(text: Option<&str>) -> Result<Option<Side>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    if matches!(text, "host" | "remote-node" | "world" | "unknown" | "none") {
        return Ok(Some(Side::Word(text.to_owned())));
    }
    let pattern =
        text.parse().map_err(|why: isthmus_core::WorkloadNameError| Refusal::bad(why.to_string()))?;
    Ok(Some(Side::Pattern(pattern)))
}

struct Lines {
    watcher: Watcher,
    filter: Filter,
    until: Option<Instant>,
    stop: CancellationToken,
}

impl Lines {
    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        let quiet = Instant::now() + QUIET;
        loop {
            let end = self.until.unwrap_or(quiet).min(quiet);
            let flow = tokio::select! {
                flow = self.watcher.flows.recv() => flow,
                () = tokio::time::sleep_until(end) => {
                    if self.until.is_some_and(|until| Instant::now() >= until) {
                        return None;
                    }
                    return Some(b"\n".to_vec());
                }
                () = self.stop.cancelled() => return None,
            };
            match flow {
                Ok(flow) => self.write(&flow, &mut piece),
                Err(RecvError::Lagged(lost)) => tracing::debug!(lost, "a reader of flows is too slow"),
                Err(RecvError::Closed) => return None,
            }
            while piece.len() < PIECE
                && let Ok(flow) = self.watcher.flows.try_recv()
            {
                self.write(&flow, &mut piece);
            }
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }

    fn write(&self, flow: &Flow, piece: &mut Vec<u8>) {
        if self.filter.passes(flow) {
            piece.extend(crate::kinds::encode(flow));
            piece.push(b'\n');
        }
    }
}

impl Filter {
    fn passes(&self, flow: &Flow) -> bool {
        self.verdict.as_ref().is_none_or(|verdict| *verdict == flow.verdict)
            && self.from.as_ref().is_none_or(|side| side.is(&flow.from))
            && self.to.as_ref().is_none_or(|side| side.is(&flow.to))
    }
}

impl Side {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Word(word) => word == name,
            Self::Pattern(WorkloadPattern::Uuid(uuid)) => name == uuid.to_string(),
            Self::Pattern(pattern) => full_name(name).is_some_and(|name| pattern.matches(&name, Uuid::nil())),
        }
    }
}

/// Reads a full name; `None` for anything less.
fn full_name(text: &str) -> Option<WorkloadName> {
    match WorkloadPattern::from_str(text).ok()? {
        WorkloadPattern::Name { platform: Some(platform), group, app, cluster: Some(cluster) } => {
            Some(WorkloadName { platform, group: group.unwrap_or_default(), app, cluster })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_match_names_and_words() {
        for (pattern, name, expected) in [
            ("web", "k8s:shop/web@red", true),
            ("shop/web@red", "k8s:shop/web@red", true),
            ("web@blue", "k8s:shop/web@red", false),
            ("world", "world", true),
            ("world", "k8s:shop/world@red", false),
            ("web", "", false),
        ] {
            let side = side(Some(pattern)).unwrap().unwrap();
            assert_eq!(side.is(name), expected, "{pattern} {name}");
        }
    }
}
