//! Our own small API beside GoBGP's, on the same port: why routes are as they are, here and in the kernel, all of them as a
//! file, and how dumps and monitoring stations are.

use crate::{
    Handle,
    gobgp::{show_path, status},
    interface,
    mrt::{DumpError, DumpStatus, TableWalk},
    view::{Lookup, PathVerdict, StationView, Table, WhyView},
};
use futures::{Stream, stream};
use isthmus_bgp::{Family, Prefix};
use std::{
    net::IpAddr,
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tonic::{Request, Response, Status};

/// Its messages.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto file has the documentation"
)]
pub mod proto {
    tonic::include_proto!("isthmus.bgp.v1");
}

/// Serves it.
#[derive(Clone, Debug)]
pub(crate) struct Explainer {
    speaker: Handle,
}

impl Explainer {
    pub(crate) fn server(speaker: Handle) -> proto::explainer_server::ExplainerServer<Self> {
        proto::explainer_server::ExplainerServer::new(Self { speaker })
    }
}

#[tonic::async_trait]
impl proto::explainer_server::Explainer for Explainer {
    async fn why(&self, request: Request<proto::WhyRequest>) -> Result<Response<proto::WhyResponse>, Status> {
        let request = request.into_inner();
        let lookup = lookup(&request.prefix)?;
        let neighbor =
            match request.neighbor.as_str() {
                "" => None,
                text => Some(interface::read(text).ok_or_else(|| {
                    Status::invalid_argument(format!("\"{text}\" is no neighbour's address"))
                })?),
            };
        let view = self.speaker.why(lookup, neighbor).await.map_err(|why| status(&why))?;
        let kernel = self.speaker.kernel_route(view.prefix).await;
        let kernel = kernel.map(|route| proto::KernelRoute { installed: route.installed, why: route.why });
        Ok(Response::new(proto::WhyResponse { kernel, ..show(view) }))
    }

    async fn kernel(
        &self,
        _request: Request<proto::KernelRequest>,
    ) -> Result<Response<proto::KernelResponse>, Status> {
        let status = self.speaker.kernel();
        let enabled = status.is_some();
        let status = status.unwrap_or_default();
        let problems = status.problems.into_iter().map(|problem| proto::KernelProblem {
            why: problem.why,
            routes: problem.routes as u64,
            example: problem.example.to_string(),
        });
        Ok(Response::new(proto::KernelResponse {
            enabled,
            installed: status.installed as u64,
            stale: status.stale as u64,
            problems: problems.collect(),
        }))
    }

    type DumpTableStream = Pin<Box<dyn Stream<Item = Result<proto::DumpTablePiece, Status>> + Send>>;

    async fn dump_table(
        &self,
        _: Request<proto::DumpTableRequest>,
    ) -> Result<Response<Self::DumpTableStream>, Status> {
        let (walk, first) = TableWalk::begin(self.speaker.clone()).await.map_err(|why| dump_status(&why))?;
        let pieces = stream::try_unfold((walk, Some(first)), |(mut walk, first)| async move {
            let content = match first {
                Some(first) => Some(first),
                None => walk.next_records().await.map_err(|why| dump_status(&why))?,
            };
            let piece = content.map(|content| proto::DumpTablePiece {
                content,
                records: walk.records(),
                left_out: walk.left_out(),
            });
            Ok(piece.map(|piece| (piece, (walk, None))))
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn list_dumps(
        &self,
        _: Request<proto::ListDumpsRequest>,
    ) -> Result<Response<proto::ListDumpsResponse>, Status> {
        let statuses = self.speaker.mrt_dumps().await.map_err(|why| status(&why))?;
        Ok(Response::new(proto::ListDumpsResponse { dumps: statuses.iter().map(show_dump).collect() }))
    }

    async fn stations(
        &self,
        _: Request<proto::StationsRequest>,
    ) -> Result<Response<proto::StationsResponse>, Status> {
        let views = self.speaker.stations().await.map_err(|why| status(&why))?;
        let stations = views.into_iter().map(show_station).collect();
        Ok(Response::new(proto::StationsResponse { stations }))
    }
}

fn dump_status(error: &DumpError) -> Status {
    match error {
        DumpError::Speaker(refusal) => status(refusal),
        other => Status::internal(other.to_string()),
    }
}

fn show_dump(status: &DumpStatus) -> proto::Dump {
    let seconds = |interval: Option<Duration>| interval.unwrap_or_default().as_secs();
    let written = status.written_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    proto::Dump {
        kind: status.dump.kind.word().to_owned(),
        file_name: status.dump.file_name.clone(),
        file: status.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
        written_unix: written.unwrap_or_default().as_secs(),
        records: status.records,
        bytes: status.bytes,
        lost: status.lost,
        problem: status.problem.clone().unwrap_or_default(),
        rotation_interval_seconds: seconds(status.dump.rotation),
        dump_interval_seconds: seconds(status.dump.interval),
    }
}

fn show_station(view: StationView) -> proto::Station {
    let unix = |at: Option<SystemTime>| {
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_secs())
    };
    let (settings, status) = (view.settings, view.status);
    let seconds = settings.statistics.map_or(0, |every| every.as_secs());
    proto::Station {
        address: view.address.to_string(),
        policy: settings.policy.word().to_owned(),
        statistics_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        up: status.is_up,
        current: status.is_current,
        up_unix: unix(status.up_at),
        down_unix: unix(status.down_at),
        why: status.why,
        messages: status.messages,
        bytes: status.bytes,
        losses: status.losses,
        left_out: status.left_out,
        adj_rib_out: settings.sent.word().to_owned(),
    }
}

/// A prefix, or the narrowest one around an address.
fn lookup(text: &str) -> Result<Lookup, Status> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let whole = Prefix::new(address, Family::of(address).bits());
        return whole
            .map(|_| Lookup::Covering(address))
            .ok_or_else(|| Status::invalid_argument("no address"));
    }
    let prefix = text.parse().map(Lookup::Exact);
    prefix.map_err(|_why| Status::invalid_argument(format!("\"{text}\" is neither a prefix nor an address")))
}

fn show(view: WhyView) -> proto::WhyResponse {
    use proto::path_reason::Verdict;
    let path = |reason: crate::view::PathReason| proto::PathReason {
        path: Some(show_path(&reason.path, Table::Global)),
        verdict: i32::from(match reason.verdict {
            PathVerdict::Best => Verdict::Best,
            PathVerdict::Used => Verdict::Used,
            PathVerdict::Worse => Verdict::Worse,
            PathVerdict::Excluded => Verdict::Excluded,
        }),
        reason: reason.reason.to_owned(),
        why: reason.why,
    };
    let announcement = |one: crate::view::AnnouncementView| proto::Announcement {
        neighbor: interface::shown(one.neighbor),
        announced: one.announced,
        reason: one.reason.to_owned(),
        why: one.why,
    };
    proto::WhyResponse {
        prefix: view.prefix.to_string(),
        paths: view.paths.into_iter().map(path).collect(),
        announcements: view.announcements.into_iter().map(announcement).collect(),
        kernel: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_or_an_address_is_asked_for() {
        assert!(matches!(lookup("10.0.0.0/8").unwrap(), Lookup::Exact(_)));
        assert!(matches!(lookup("2001:db8::1").unwrap(), Lookup::Covering(_)));
        assert!(lookup("nonsense").unwrap_err().message().contains("neither a prefix nor an address"));
    }
}
