//! What a client watches: sessions, best paths, and what neighbours send before and after policy.

use super::{
    api, family, paths, peers, proto,
    service::{Service, status},
    shift, version3,
};
use crate::{
    config::RoutePolicy,
    handle::{PAGE_MAX, Watch},
    interface,
    view::{DestinationView, Event, PathView, PeerView, Table},
};
use futures::{Stream, StreamExt, stream};
use isthmus_bgp::Family;
use proto::watch_event_request::table::{Filter, filter::Type};
use std::{net::IpAddr, pin::Pin};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What goes to the client, in either version.
pub(super) enum Watched {
    /// A session changed.
    Peer(Box<PeerView>),
    /// Routes changed.
    Paths(Vec<api::Path>),
}

/// Which neighbours' routes are wanted of one kind; `None`: the kind is not.
type Wanted = Option<Option<IpAddr>>;

/// The events that a request asks for, what is there now first where it wants that.
pub(super) async fn watch(
    service: &Service,
    request: &proto::WatchEventRequest,
) -> Result<Pin<Box<dyn Stream<Item = Result<Watched, Status>> + Send>>, Status> {
    let filters = request.table.as_ref().map(|table| table.filters.as_slice()).unwrap_or_default();
    if filters.is_empty() && request.peer.is_none() {
        return Err(Status::invalid_argument("there is nothing to watch in the request"));
    }
    if filters.iter().any(|filter| !filter.peer_group.is_empty()) {
        return Err(Status::unimplemented("routes are watched by neighbour here, not by peer group"));
    }
    let wanted = |kind: Type| -> Result<Wanted, Status> {
        let Some(filter) = filters.iter().find(|filter| filter.r#type() == kind) else { return Ok(None) };
        read_address(filter).map(Some)
    };
    let (best, adj_in) = (wanted(Type::Best)?, wanted(Type::Adjin)?);
    let (accepted, end_of_rib) = (wanted(Type::PostPolicy)?, wanted(Type::Eor)?);
    let watch = Watch {
        peers: request.peer.is_some(),
        best: best.is_some(),
        adj_in: adj_in.is_some(),
        accepted: accepted.is_some(),
        end_of_rib: end_of_rib.is_some(),
    };
    let events = service.speaker.watch(watch).await.map_err(|why| status(&why))?;
    let later = ReceiverStream::new(events).filter_map(move |event| async move {
        let paths = |paths: Vec<PathView>, wanted: Wanted, table| {
            let is_from = |path: &PathView| match wanted.flatten() {
                None => true,
                address => path.source.map(|source| source.address) == address,
            };
            let shown: Vec<_> =
                paths.iter().filter(|path| is_from(path)).map(|path| paths::show(path, table)).collect();
            (!shown.is_empty()).then_some(Ok(Watched::Paths(shown)))
        };
        match event {
            Event::Peer(view) => Some(Ok(Watched::Peer(view))),
            Event::Best(changed) => paths(changed, best, Table::Global),
            Event::AdjIn(changed) => paths(changed, adj_in, Table::Global),
            Event::Accepted(changed) => paths(changed, accepted, Table::Global),
            Event::EndOfRib(address, of) => match end_of_rib.flatten() {
                Some(wanted) if wanted != address => None,
                _ => Some(Ok(Watched::Paths(vec![end_path(address, of)]))),
            },
        }
    });
    // What changes while the present table is sent comes once more behind it, never too early.
    let mut present = Vec::new();
    for filter in filters.iter().filter(|filter| filter.init) {
        present.extend(tables(service, filter).await?);
    }
    let service = service.clone();
    let present = stream::iter(present).then(move |(table, family)| {
        let service = service.clone();
        async move { page(&service, table, family).await }
    });
    let present = present.flat_map(|routes| match routes {
        Ok(routes) => routes,
        Err(why) => Box::pin(stream::iter([Err(why)])),
    });
    Ok(Box::pin(present.chain(later)))
}

fn read_address(filter: &Filter) -> Result<Option<IpAddr>, Status> {
    let text = &filter.peer_address;
    (!text.is_empty()).then(|| super::service::read_neighbor(text)).transpose()
}

/// The tables of which a filter wants the present content.
async fn tables(service: &Service, filter: &Filter) -> Result<Vec<(Table, Family)>, Status> {
    let kind: fn(IpAddr) -> Table = match filter.r#type() {
        Type::Best => return Ok(Family::ALL.map(|family| (Table::Global, family)).to_vec()),
        Type::Adjin => Table::AdjIn,
        Type::PostPolicy => Table::Accepted,
        Type::Eor => return Ok(Vec::new()),
    };
    let wanted = read_address(filter)?;
    let views = service.speaker.peers(wanted, false).await.map_err(|why| status(&why))?;
    let tables = views.iter().flat_map(|view| Family::ALL.map(|family| (kind(view.address), family)));
    Ok(tables.collect())
}

type Routes = Pin<Box<dyn Stream<Item = Result<Watched, Status>> + Send>>;

async fn page(service: &Service, table: Table, family: Family) -> Result<Routes, Status> {
    let routes = service.routes(table, family, Vec::new()).await?;
    Ok(Box::pin(routes.ready_chunks(PAGE_MAX).map(move |page| {
        let page: Result<Vec<DestinationView>, Status> = page.into_iter().collect();
        let paths = page?.into_iter().flat_map(|one| one.paths);
        let wanted = paths.filter(|path| table != Table::Global || path.best);
        Ok(Watched::Paths(wanted.map(|path| paths::show(&path, table)).collect()))
    })))
}

/// A path that only says that a neighbour has sent all of a family.
fn end_path(address: IpAddr, of: Family) -> api::Path {
    api::Path { family: Some(family(of)), neighbor_ip: interface::shown(address), ..api::Path::default() }
}

/// As version 3 has it.
pub(super) fn show(watched: Watched, policy: &RoutePolicy) -> proto::WatchEventResponse {
    use proto::watch_event_response::{Event, PeerEvent, TableEvent, peer_event};
    let event = match watched {
        Watched::Peer(view) => Event::Peer(PeerEvent {
            r#type: i32::from(peer_event::Type::State),
            peer: Some(version3::peer(&view, policy, false)),
        }),
        Watched::Paths(paths) => {
            Event::Table(TableEvent { paths: paths.into_iter().map(version3::path).collect() })
        }
    };
    proto::WatchEventResponse { event: Some(event) }
}

/// As version 4 has it.
pub(super) fn show_version4(watched: Watched, policy: &RoutePolicy) -> api::WatchEventResponse {
    use api::watch_event_response::{Event, PeerEvent, TableEvent};
    let event = match watched {
        Watched::Peer(view) => {
            let peer = shift::peer(peers::show(&view, policy, false), peers::capabilities(&view));
            let state = proto::watch_event_response::peer_event::Type::State;
            Event::Peer(PeerEvent { r#type: i32::from(state), peer: Some(peer) })
        }
        Watched::Paths(paths) => Event::Table(TableEvent { paths }),
    };
    api::WatchEventResponse { event: Some(event) }
}
