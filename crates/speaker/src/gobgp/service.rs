//! The calls.

use super::{paths, peers, policy, proto, read_family};
use crate::{
    handle::{AdminAction, Handle, PAGE_MAX, Refusal, Watch, Withdrawal},
    view::{DestinationView, Event, Lookup, PathView, Table},
};
use futures::{Stream, StreamExt, stream};
use isthmus_bgp::{Family, Prefix};
use proto::gobgp_api_server::GobgpApi;
use std::{net::IpAddr, pin::Pin};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Largest message that is taken: a path has at most what fits into an UPDATE, and a stream sends some at once.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Serves GoBGP's API, version 3.
#[derive(Clone, Debug)]
pub struct Service {
    speaker: Handle,
}

impl Service {
    /// Serves `speaker`.
    pub fn new(speaker: Handle) -> Self {
        Self { speaker }
    }

    /// As what tonic's router takes.
    pub fn into_server(self) -> proto::gobgp_api_server::GobgpApiServer<Self> {
        proto::gobgp_api_server::GobgpApiServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn add_path(&self, table_type: i32, path: Option<proto::Path>) -> Result<Vec<u8>, Status> {
        only_global(table_type)?;
        let path = path.ok_or_else(|| Status::invalid_argument("there is no path in the request"))?;
        if path.is_withdraw {
            let prefix = paths::read_prefix(&path)?;
            self.speaker.withdraw(Withdrawal::Prefix(prefix)).await.map_err(|why| status(&why))?;
            return Ok(Vec::new());
        }
        let (prefix, attributes) = paths::read(&path)?;
        let name = self.speaker.announce(prefix, attributes).await.map_err(|why| status(&why))?;
        Ok(name.as_bytes().to_vec())
    }

    async fn admin(&self, address: &str, action: AdminAction) -> Result<Response<proto::Empty>, Status> {
        let address = read_neighbor(address)?;
        self.speaker.admin(Some(address), action).await.map_err(|why| status(&why))?;
        Ok(Response::new(proto::Empty {}))
    }

    /// All routes that are meant, in parts. What goes meanwhile is left out, what comes meanwhile may be.
    async fn routes(
        &self,
        table: Table,
        family: Family,
        lookups: Vec<Lookup>,
    ) -> Result<impl Stream<Item = Result<DestinationView, Status>> + use<>, Status> {
        let prefixes = self.speaker.prefixes(table, family, lookups).await.map_err(|why| status(&why))?;
        // The paths to a neighbour are not found by prefix, so its table is one page.
        let page = if matches!(table, Table::AdjOut(_)) { prefixes.len().max(1) } else { PAGE_MAX };
        let pages: Vec<Vec<Prefix>> = prefixes.chunks(page).map(<[Prefix]>::to_vec).collect();
        let speaker = self.speaker.clone();
        let pages = stream::iter(pages).then(move |page| {
            let speaker = speaker.clone();
            async move {
                match speaker.paths(table, page).await {
                    Ok(found) => found.into_iter().map(Ok).collect(),
                    Err(why) => vec![Err(status(&why))],
                }
            }
        });
        Ok(pages.flat_map(stream::iter))
    }

    /// The best paths there are now, in batches, as events.
    async fn present(
        &self,
    ) -> Result<impl Stream<Item = Result<proto::WatchEventResponse, Status>> + use<>, Status> {
        let four = self.routes(Table::Global, Family::Ipv4Unicast, Vec::new()).await?;
        let six = self.routes(Table::Global, Family::Ipv6Unicast, Vec::new()).await?;
        Ok(four.chain(six).ready_chunks(PAGE_MAX).map(|page| {
            let page: Result<Vec<_>, Status> = page.into_iter().collect();
            let paths = page?.into_iter().filter_map(|mut one| {
                let best = one.paths.iter().position(|path| path.best)?;
                Some(one.paths.swap_remove(best))
            });
            Ok(best_event(&paths.collect::<Vec<_>>()))
        }))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn answers<T: Send + 'static>(items: Vec<T>) -> Response<Answers<T>> {
    Response::new(Box::pin(stream::iter(items.into_iter().map(Ok))))
}

/// The one place where a refusal becomes a status.
fn status(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoPeer(_) | Refusal::NoPath(_) | Refusal::NoName(_) => Status::not_found(text),
        Refusal::NotEstablished(_) => Status::failed_precondition(text),
        Refusal::Stopping => Status::unavailable(text),
    }
}

fn read_neighbor(text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_why| Status::invalid_argument(format!("\"{text}\" is no neighbour's address")))
}

fn only_global(table_type: i32) -> Result<(), Status> {
    match paths::read_table(table_type, "")? {
        Table::Global => Ok(()),
        _ => Err(Status::invalid_argument("paths of our own are in the global table")),
    }
}

fn best_event(paths: &[PathView]) -> proto::WatchEventResponse {
    use proto::watch_event_response::{Event, TableEvent};
    let paths = paths.iter().map(|path| paths::show(path, Table::Global)).collect();
    proto::WatchEventResponse { event: Some(Event::Table(TableEvent { paths })) }
}

#[tonic::async_trait]
impl GobgpApi for Service {
    type WatchEventStream = Answers<proto::WatchEventResponse>;
    type ListPeerStream = Answers<proto::ListPeerResponse>;
    type ListPeerGroupStream = Answers<proto::ListPeerGroupResponse>;
    type ListDynamicNeighborStream = Answers<proto::ListDynamicNeighborResponse>;
    type ListPathStream = Answers<proto::ListPathResponse>;
    type ListPolicyStream = Answers<proto::ListPolicyResponse>;
    type ListStatementStream = Answers<proto::ListStatementResponse>;
    type ListDefinedSetStream = Answers<proto::ListDefinedSetResponse>;
    type ListPolicyAssignmentStream = Answers<proto::ListPolicyAssignmentResponse>;
    type ListVrfStream = Answers<proto::ListVrfResponse>;
    type ListRpkiStream = Answers<proto::ListRpkiResponse>;
    type ListBmpStream = Answers<proto::ListBmpResponse>;

    async fn get_bgp(
        &self,
        _: Request<proto::GetBgpRequest>,
    ) -> Result<Response<proto::GetBgpResponse>, Status> {
        let view = self.speaker.global().await.map_err(|why| status(&why))?;
        Ok(Response::new(proto::GetBgpResponse { global: Some(peers::show_global(&view)) }))
    }

    async fn watch_event(
        &self,
        request: Request<proto::WatchEventRequest>,
    ) -> Result<Response<Self::WatchEventStream>, Status> {
        use proto::watch_event_request::table::filter::Type;
        use proto::watch_event_response as shown;
        let request = request.into_inner();
        let filters = request.table.unwrap_or_default().filters;
        if filters.iter().any(|filter| filter.r#type() != Type::Best) {
            return Err(Status::unimplemented("only best paths and neighbours can be watched here"));
        }
        let watch = Watch { peers: request.peer.is_some(), best: !filters.is_empty() };
        let events = self.speaker.watch(watch).await.map_err(|why| status(&why))?;
        let policy = self.speaker.policy().await.map_err(|why| status(&why))?;
        let later = ReceiverStream::new(events).map(move |event| {
            Ok(match event {
                Event::Best(paths) => best_event(&paths),
                Event::Peer(view) => proto::WatchEventResponse {
                    event: Some(shown::Event::Peer(shown::PeerEvent {
                        r#type: i32::from(shown::peer_event::Type::State),
                        peer: Some(peers::show(&view, &policy, false)),
                    })),
                },
            })
        });
        // What changes while the present table is sent comes once more behind it, never too early.
        if filters.iter().any(|filter| filter.init) {
            return Ok(Response::new(Box::pin(self.present().await?.chain(later))));
        }
        Ok(Response::new(Box::pin(later)))
    }

    async fn list_peer(
        &self,
        request: Request<proto::ListPeerRequest>,
    ) -> Result<Response<Self::ListPeerStream>, Status> {
        let proto::ListPeerRequest { address, enable_advertised } = request.into_inner();
        let address = (!address.is_empty()).then(|| read_neighbor(&address)).transpose()?;
        let policy = self.speaker.policy().await.map_err(|why| status(&why))?;
        let views = match self.speaker.peers(address, enable_advertised).await {
            // The stock client says itself that there is no such neighbour.
            Err(Refusal::NoPeer(_)) => Vec::new(),
            views => views.map_err(|why| status(&why))?,
        };
        let peer =
            |view| proto::ListPeerResponse { peer: Some(peers::show(view, &policy, enable_advertised)) };
        Ok(answers(views.iter().map(peer).collect()))
    }

    async fn reset_peer(
        &self,
        request: Request<proto::ResetPeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        use proto::reset_peer_request::Direction;
        let request = request.into_inner();
        let direction = request.direction();
        // GoBGP takes "all" for every neighbour.
        let address = match request.address.as_str() {
            "all" => None,
            address => Some(read_neighbor(address)?),
        };
        let actions = match (request.soft, direction) {
            (false, _) => vec![AdminAction::Reset(request.communication)],
            (true, Direction::In) => vec![AdminAction::SoftIn],
            (true, Direction::Out) => vec![AdminAction::SoftOut],
            (true, Direction::Both) => vec![AdminAction::SoftIn, AdminAction::SoftOut],
        };
        for action in actions {
            self.speaker.admin(address, action).await.map_err(|why| status(&why))?;
        }
        Ok(Response::new(proto::Empty {}))
    }

    async fn shutdown_peer(
        &self,
        request: Request<proto::ShutdownPeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let proto::ShutdownPeerRequest { address, communication } = request.into_inner();
        // As in GoBGP the neighbour may come back; `DisablePeer` keeps it away. It is told a reset (6/4), not a shutdown.
        self.admin(&address, AdminAction::Reset(communication)).await
    }

    async fn enable_peer(
        &self,
        request: Request<proto::EnablePeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.admin(&request.into_inner().address, AdminAction::Enable).await
    }

    async fn disable_peer(
        &self,
        request: Request<proto::DisablePeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let proto::DisablePeerRequest { address, communication } = request.into_inner();
        self.admin(&address, AdminAction::Disable(communication)).await
    }

    async fn list_peer_group(
        &self,
        request: Request<proto::ListPeerGroupRequest>,
    ) -> Result<Response<Self::ListPeerGroupStream>, Status> {
        let wanted = request.into_inner().peer_group_name;
        let views = self.speaker.peers(None, false).await.map_err(|why| status(&why))?;
        let ranges = self.speaker.ranges().await.map_err(|why| status(&why))?;
        let settings =
            views.iter().map(|view| &*view.settings).chain(ranges.iter().map(|range| &range.settings));
        let mut groups: Vec<proto::PeerGroupConf> = Vec::new();
        for settings in settings {
            let Some(name) = settings.peer_group.clone() else { continue };
            let known = groups.iter().any(|group| group.peer_group_name == name);
            if !known && (wanted.is_empty() || wanted == name) {
                groups.push(proto::PeerGroupConf {
                    description: settings.description.clone(),
                    local_asn: settings.local_as,
                    peer_asn: settings.peer_as.unwrap_or(0),
                    peer_group_name: name,
                });
            }
        }
        let group =
            |conf| proto::ListPeerGroupResponse { peer_group: Some(proto::PeerGroup { conf: Some(conf) }) };
        Ok(answers(groups.into_iter().map(group).collect()))
    }

    async fn list_dynamic_neighbor(
        &self,
        request: Request<proto::ListDynamicNeighborRequest>,
    ) -> Result<Response<Self::ListDynamicNeighborStream>, Status> {
        let wanted = request.into_inner().peer_group;
        let ranges = self.speaker.ranges().await.map_err(|why| status(&why))?;
        let shown = ranges.into_iter().map(|range| {
            let peer_group = range.settings.peer_group.unwrap_or_default();
            let dynamic_neighbor =
                Some(proto::DynamicNeighbor { prefix: range.prefix.to_string(), peer_group });
            proto::ListDynamicNeighborResponse { dynamic_neighbor }
        });
        let shown = shown.filter(|shown| {
            let group = shown.dynamic_neighbor.as_ref().map(|neighbor| neighbor.peer_group.as_str());
            wanted.is_empty() || group == Some(&wanted)
        });
        Ok(answers(shown.collect()))
    }

    async fn add_path(
        &self,
        request: Request<proto::AddPathRequest>,
    ) -> Result<Response<proto::AddPathResponse>, Status> {
        let request = request.into_inner();
        let uuid = self.add_path(request.table_type, request.path).await?;
        Ok(Response::new(proto::AddPathResponse { uuid }))
    }

    async fn add_path_stream(
        &self,
        request: Request<Streaming<proto::AddPathStreamRequest>>,
    ) -> Result<Response<proto::Empty>, Status> {
        let mut requests = request.into_inner();
        while let Some(request) = requests.message().await? {
            for path in request.paths {
                self.add_path(request.table_type, Some(path)).await?;
            }
        }
        Ok(Response::new(proto::Empty {}))
    }

    async fn delete_path(
        &self,
        request: Request<proto::DeletePathRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        only_global(request.table_type)?;
        let what = match (paths::read_uuid(&request.uuid)?, &request.path) {
            (Some(name), _) => vec![Withdrawal::Name(name)],
            (None, Some(path)) => vec![Withdrawal::Prefix(paths::read_prefix(path)?)],
            (None, None) if request.family.is_some() => vec![Withdrawal::All(read_family(request.family)?)],
            (None, None) => Family::ALL.map(Withdrawal::All).to_vec(),
        };
        for what in what {
            self.speaker.withdraw(what).await.map_err(|why| status(&why))?;
        }
        Ok(Response::new(proto::Empty {}))
    }

    async fn list_path(
        &self,
        request: Request<proto::ListPathRequest>,
    ) -> Result<Response<Self::ListPathStream>, Status> {
        let request = request.into_inner();
        if request.enable_nlri_binary || request.enable_attribute_binary || request.enable_only_binary {
            return Err(Status::unimplemented("paths are not given in their binary form here"));
        }
        let table = paths::read_table(request.table_type, &request.name)?;
        let lookups: Result<Vec<_>, _> = request.prefixes.iter().map(paths::read_lookup).collect();
        let family = read_family(request.family)?;
        let shown = self.routes(table, family, lookups?).await?.map(move |view| {
            let destination = Some(paths::show_destination(&view?, table));
            Ok(proto::ListPathResponse { destination })
        });
        Ok(Response::new(Box::pin(shown)))
    }

    async fn get_table(
        &self,
        request: Request<proto::GetTableRequest>,
    ) -> Result<Response<proto::GetTableResponse>, Status> {
        let request = request.into_inner();
        let table = paths::read_table(request.table_type, &request.name)?;
        let family = read_family(request.family)?;
        let counts = self.speaker.counts(table, family).await.map_err(|why| status(&why))?;
        Ok(Response::new(proto::GetTableResponse {
            num_destination: counts.destinations,
            num_path: counts.paths,
            num_accepted: counts.accepted,
        }))
    }

    async fn list_policy(
        &self,
        request: Request<proto::ListPolicyRequest>,
    ) -> Result<Response<Self::ListPolicyStream>, Status> {
        let name = request.into_inner().name;
        let policy = self.speaker.policy().await.map_err(|why| status(&why))?;
        let wanted = policy.policies.iter().filter(|policy| name.is_empty() || policy.name == name);
        let shown = wanted.map(|one| proto::ListPolicyResponse { policy: Some(policy::show(one)) });
        Ok(answers(shown.collect()))
    }

    async fn list_statement(
        &self,
        request: Request<proto::ListStatementRequest>,
    ) -> Result<Response<Self::ListStatementStream>, Status> {
        let name = request.into_inner().name;
        let policy = self.speaker.policy().await.map_err(|why| status(&why))?;
        let statements = policy.policies.iter().flat_map(|policy| &policy.statements);
        let wanted = statements.filter(|statement| name.is_empty() || statement.name == name);
        let shown =
            wanted.map(|one| proto::ListStatementResponse { statement: Some(policy::show_statement(one)) });
        Ok(answers(shown.collect()))
    }

    async fn list_defined_set(
        &self,
        request: Request<proto::ListDefinedSetRequest>,
    ) -> Result<Response<Self::ListDefinedSetStream>, Status> {
        let request = request.into_inner();
        let policy = self.speaker.policy().await.map_err(|why| status(&why))?;
        let sets = policy::show_sets(&policy.sets, request.defined_type(), &request.name);
        let shown = sets.into_iter().map(|set| proto::ListDefinedSetResponse { defined_set: Some(set) });
        Ok(answers(shown.collect()))
    }

    async fn list_policy_assignment(
        &self,
        request: Request<proto::ListPolicyAssignmentRequest>,
    ) -> Result<Response<Self::ListPolicyAssignmentStream>, Status> {
        let request = request.into_inner();
        let policy = self.speaker.policy().await.map_err(|why| status(&why))?;
        if !matches!(request.name.as_str(), "" | "global") {
            let text = format!("{} has no policy of its own: only route server clients do", request.name);
            return Err(Status::invalid_argument(text));
        }
        let shown = policy::show_assignments(&policy, request.direction);
        let shown =
            shown.into_iter().map(|one| proto::ListPolicyAssignmentResponse { assignment: Some(one) });
        Ok(answers(shown.collect()))
    }

    async fn list_vrf(
        &self,
        _: Request<proto::ListVrfRequest>,
    ) -> Result<Response<Self::ListVrfStream>, Status> {
        Ok(answers(Vec::new()))
    }

    async fn list_rpki(
        &self,
        _: Request<proto::ListRpkiRequest>,
    ) -> Result<Response<Self::ListRpkiStream>, Status> {
        Ok(answers(Vec::new()))
    }

    async fn list_bmp(
        &self,
        _: Request<proto::ListBmpRequest>,
    ) -> Result<Response<Self::ListBmpStream>, Status> {
        Ok(answers(Vec::new()))
    }
}
