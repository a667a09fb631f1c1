//! The calls, once for both versions of the API: version 3 is served here, and `version4` translates to it.

use super::{
    api, mrt, paths, peers, policy, proto, read_family, read_peer, read_policy, stations, version3, watch,
};
use crate::{
    change::Change,
    config::{Assign, ChangeError},
    handle::{AdminAction, Handle, PAGE_MAX, Refusal, Withdrawal},
    interface,
    run::SetLogLevel,
    view::{DestinationView, Lookup, PeerView, Table},
};
use futures::{Stream, StreamExt, stream};
use isthmus_bgp::{Family, Prefix};
use proto::gobgp_api_server::GobgpApi;
use std::{net::IpAddr, pin::Pin, sync::Arc};
use tonic::{Request, Response, Status, Streaming};

/// Largest message that is taken: a path has at most what fits into an UPDATE, and a stream sends some at once.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Serves GoBGP's API, version 3.
#[derive(Clone, Debug)]
pub struct Service {
    pub(super) speaker: Handle,
    set_log_level: Option<SetLogLevel>,
    files: mrt::DumpFiles,
}

impl Service {
    /// Serves `speaker`.
    pub fn new(speaker: Handle, set_log_level: Option<SetLogLevel>, files: mrt::DumpFiles) -> Self {
        Self { speaker, set_log_level, files }
    }

    /// Whom it serves.
    pub(crate) fn speaker(&self) -> Handle {
        self.speaker.clone()
    }

    /// As what tonic's router takes.
    pub fn into_server(self) -> proto::gobgp_api_server::GobgpApiServer<Self> {
        proto::gobgp_api_server::GobgpApiServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(super) async fn announce(&self, table_type: i32, path: Option<api::Path>) -> Result<Vec<u8>, Status> {
        only_global(table_type)?;
        let path = path.ok_or_else(|| Status::invalid_argument("there is no path in the request"))?;
        if path.is_withdraw {
            let nlri = paths::read_nlri(&path)?;
            self.speaker.withdraw(Withdrawal::Path(nlri)).await.map_err(|why| status(&why))?;
            return Ok(Vec::new());
        }
        let (nlri, attributes) = paths::read(&path)?;
        let name = self.speaker.announce(nlri, attributes).await.map_err(|why| status(&why))?;
        Ok(name.as_bytes().to_vec())
    }

    pub(super) async fn withdraw(
        &self,
        table_type: i32,
        (uuid, path, family): (&[u8], Option<api::Path>, Option<proto::Family>),
    ) -> Result<(), Status> {
        only_global(table_type)?;
        let what = match (paths::read_uuid(uuid)?, &path) {
            (Some(name), _) => vec![Withdrawal::Name(name)],
            (None, Some(path)) => vec![Withdrawal::Path(paths::read_nlri(path)?)],
            (None, None) if family.is_some() => vec![Withdrawal::All(read_family(family)?)],
            (None, None) => Family::ALL.map(Withdrawal::All).to_vec(),
        };
        for what in what {
            self.speaker.withdraw(what).await.map_err(|why| status(&why))?;
        }
        Ok(())
    }

    pub(super) async fn list_paths(
        &self,
        request: &proto::ListPathRequest,
    ) -> Result<(Table, impl Stream<Item = Result<DestinationView, Status>> + use<>), Status> {
        if request.enable_nlri_binary || request.enable_attribute_binary || request.enable_only_binary {
            let text = "paths are not given in their binary form here: ask without enable_*_binary";
            return Err(Status::unimplemented(text));
        }
        let table = paths::read_table(request.table_type, &request.name)?;
        let lookups: Result<Vec<_>, _> = request.prefixes.iter().map(paths::read_lookup).collect();
        let family = read_family(request.family)?;
        Ok((table, self.routes(table, family, lookups?).await?))
    }

    async fn admin(&self, address: &str, action: AdminAction) -> Result<Response<proto::Empty>, Status> {
        let address = read_neighbor(address)?;
        self.speaker.admin(Some(address), action).await.map_err(|why| status(&why))?;
        Ok(Response::new(proto::Empty {}))
    }

    async fn change(&self, change: Change) -> Result<Response<proto::Empty>, Status> {
        self.speaker.change(change).await.map_err(|why| status(&why))?;
        Ok(Response::new(proto::Empty {}))
    }

    async fn assign(
        &self,
        assignment: Option<&proto::PolicyAssignment>,
        how: Assign,
    ) -> Result<Response<proto::Empty>, Status> {
        let read_policy::Assigned { direction, policies, default } = read_policy::assignment(assignment)?;
        self.change(Change::Assign { direction, how, policies, default }).await
    }

    /// Has policy applied once more; a session that is down will have it applied anyway.
    async fn soften(&self, address: Option<IpAddr>) -> Result<(), Status> {
        match self.speaker.admin(address, AdminAction::SoftIn).await {
            Ok(()) | Err(Refusal::NotEstablished(_)) => Ok(()),
            Err(why) => Err(status(&why)),
        }
    }

    pub(super) async fn views(&self, request: &proto::ListPeerRequest) -> Result<Vec<PeerView>, Status> {
        let address = (!request.address.is_empty()).then(|| read_neighbor(&request.address)).transpose()?;
        match self.speaker.peers(address, request.enable_advertised).await {
            // The stock client says itself that there is no such neighbour.
            Err(Refusal::NoPeer(_)) => Ok(Vec::new()),
            views => views.map_err(|why| status(&why)),
        }
    }

    pub(super) async fn policy(&self) -> Result<Arc<crate::config::RoutePolicy>, Status> {
        self.speaker.policy().await.map_err(|why| status(&why))
    }

    /// All routes that are meant, in parts. What goes meanwhile is left out, what comes meanwhile may be.
    pub(super) async fn routes(
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
}

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) fn answers<T: Send + 'static>(items: Vec<T>) -> Response<Answers<T>> {
    Response::new(Box::pin(stream::iter(items.into_iter().map(Ok))))
}

/// The one place where a refusal becomes a status.
pub(crate) fn status(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoPeer(_)
        | Refusal::NoPath(_)
        | Refusal::NoName(_)
        | Refusal::Change(ChangeError::Missing(_)) => Status::not_found(text),
        Refusal::Change(ChangeError::Faults(_)) => Status::invalid_argument(text),
        Refusal::Change(ChangeError::Exists(..)) => Status::already_exists(text),
        Refusal::NotEstablished(_) | Refusal::Change(ChangeError::InUse(..)) => {
            Status::failed_precondition(text)
        }
        Refusal::Stopping => Status::unavailable(text),
    }
}

pub(super) fn read_neighbor(text: &str) -> Result<IpAddr, Status> {
    let why = || format!("\"{text}\" is no neighbour's address, nor the name of an interface");
    interface::read(text).ok_or_else(|| Status::invalid_argument(why()))
}

pub(super) fn only_global(table_type: i32) -> Result<(), Status> {
    match paths::read_table(table_type, "")? {
        Table::Global => Ok(()),
        _ => Err(Status::invalid_argument("paths of our own are in the global table")),
    }
}

/// A call that this speaker does not answer, and what to do instead.
fn not_served<T>(text: &str) -> Result<T, Status> {
    Err(Status::unimplemented(text))
}

const NO_VRF: &str = "there is only the global table here: run a speaker for each table";
const NO_RPKI: &str =
    "no route is validated here (RPKI): let a validating neighbour do it, and match its communities";
const NO_ZEBRA: &str = "there is no Zebra here: the agent puts routes into the kernel itself";

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
    type ListRpkiTableStream = Answers<proto::NotServed>;

    async fn start_bgp(&self, _: Request<proto::StartBgpRequest>) -> Result<Response<proto::Empty>, Status> {
        let view = self.speaker.global().await.map_err(|why| status(&why))?;
        Err(Status::already_exists(format!(
            "this speaker runs already, as AS {} with router id {}: both are in its file, and change with a restart",
            view.asn, view.router_id
        )))
    }

    async fn stop_bgp(&self, _: Request<proto::StopBgpRequest>) -> Result<Response<proto::Empty>, Status> {
        Err(Status::failed_precondition(
            "this speaker was started with a file, and ends with its process: send it SIGTERM, or disable neighbours one by one",
        ))
    }

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
        let policy = self.policy().await?;
        let events = watch::watch(self, &request.into_inner()).await?;
        Ok(Response::new(Box::pin(events.map(move |event| event.map(|event| watch::show(event, &policy))))))
    }

    async fn add_peer(
        &self,
        request: Request<proto::AddPeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let table = read_peer::read(&request.into_inner().peer.unwrap_or_default())?;
        self.change(Change::SetNeighbor { table, replace: false }).await
    }

    async fn delete_peer(
        &self,
        request: Request<proto::DeletePeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        let name = if request.interface.is_empty() { request.address } else { request.interface };
        self.change(Change::RemoveNeighbor(read_neighbor(&name)?)).await
    }

    async fn update_peer(
        &self,
        request: Request<proto::UpdatePeerRequest>,
    ) -> Result<Response<proto::UpdatePeerResponse>, Status> {
        let proto::UpdatePeerRequest { peer, do_soft_reset_in } = request.into_inner();
        let peer = peer.unwrap_or_default();
        let name = |conf: &proto::PeerConf| match conf.neighbor_interface.as_str() {
            "" => conf.neighbor_address.clone(),
            interface => interface.to_owned(),
        };
        let address = peer.conf.as_ref().map(name).unwrap_or_default();
        let table = read_peer::read(&peer)?;
        self.change(Change::SetNeighbor { table, replace: true }).await?;
        if do_soft_reset_in {
            self.soften(Some(read_neighbor(&address)?)).await?;
        }
        // Policy is applied to what was sent before whenever it changes, so nobody needs to ask for that.
        Ok(Response::new(proto::UpdatePeerResponse { needs_soft_reset_in: false }))
    }

    async fn list_peer(
        &self,
        request: Request<proto::ListPeerRequest>,
    ) -> Result<Response<Self::ListPeerStream>, Status> {
        let request = request.into_inner();
        let (policy, views) = (self.policy().await?, self.views(&request).await?);
        let peer = |view| proto::ListPeerResponse {
            peer: Some(version3::peer(view, &policy, request.enable_advertised)),
        };
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
        // As in GoBGP the neighbour may come back; `DisablePeer` keeps it away.
        self.admin(&address, AdminAction::Shutdown(communication)).await
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

    async fn add_peer_group(
        &self,
        request: Request<proto::AddPeerGroupRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let table = read_peer::read_group(&request.into_inner().peer_group.unwrap_or_default())?;
        self.change(Change::SetGroup { table, replace: false }).await
    }

    async fn delete_peer_group(
        &self,
        request: Request<proto::DeletePeerGroupRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.change(Change::RemoveGroup(request.into_inner().name)).await
    }

    async fn update_peer_group(
        &self,
        request: Request<proto::UpdatePeerGroupRequest>,
    ) -> Result<Response<proto::UpdatePeerGroupResponse>, Status> {
        let proto::UpdatePeerGroupRequest { peer_group, do_soft_reset_in } = request.into_inner();
        let group = peer_group.unwrap_or_default();
        let name = group.conf.as_ref().map(|conf| conf.peer_group_name.clone());
        let table = read_peer::read_group(&group)?;
        self.change(Change::SetGroup { table, replace: true }).await?;
        if do_soft_reset_in {
            let views = self.speaker.peers(None, false).await.map_err(|why| status(&why))?;
            for view in views.iter().filter(|view| view.settings.peer_group == name) {
                self.soften(Some(view.address)).await?;
            }
        }
        Ok(Response::new(proto::UpdatePeerGroupResponse { needs_soft_reset_in: false }))
    }

    async fn list_peer_group(
        &self,
        request: Request<proto::ListPeerGroupRequest>,
    ) -> Result<Response<Self::ListPeerGroupStream>, Status> {
        let wanted = request.into_inner().peer_group_name;
        let (policy, groups) =
            (self.policy().await?, self.speaker.groups().await.map_err(|why| status(&why))?);
        let wanted = groups.iter().filter(|(name, _)| wanted.is_empty() || wanted == *name);
        let group = |(name, settings): &(String, _)| proto::ListPeerGroupResponse {
            peer_group: Some(peers::show_group(name, settings, &policy)),
        };
        Ok(answers(wanted.map(group).collect()))
    }

    async fn add_dynamic_neighbor(
        &self,
        request: Request<proto::AddDynamicNeighborRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let range = request.into_inner().dynamic_neighbor.unwrap_or_default();
        self.change(Change::AddRange { prefix: range.prefix, group: range.peer_group }).await
    }

    async fn delete_dynamic_neighbor(
        &self,
        request: Request<proto::DeleteDynamicNeighborRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let proto::DeleteDynamicNeighborRequest { prefix, peer_group } = request.into_inner();
        self.change(Change::RemoveRange { prefix, group: peer_group }).await
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
        let path = request.path.as_ref().map(version3::read_path).transpose()?;
        let uuid = self.announce(request.table_type, path).await?;
        Ok(Response::new(proto::AddPathResponse { uuid }))
    }

    async fn add_path_stream(
        &self,
        request: Request<Streaming<proto::AddPathStreamRequest>>,
    ) -> Result<Response<proto::Empty>, Status> {
        mrt::inject(self.speaker.clone(), request.into_inner(), |request: proto::AddPathStreamRequest| {
            (request.table_type, request.paths.iter().map(version3::read_path).collect())
        })
        .await
    }

    async fn delete_path(
        &self,
        request: Request<proto::DeletePathRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        let path = request.path.as_ref().map(version3::read_path).transpose()?;
        self.withdraw(request.table_type, (&request.uuid, path, request.family)).await?;
        Ok(Response::new(proto::Empty {}))
    }

    async fn list_path(
        &self,
        request: Request<proto::ListPathRequest>,
    ) -> Result<Response<Self::ListPathStream>, Status> {
        let (table, found) = self.list_paths(&request.into_inner()).await?;
        let shown = found.map(move |view| {
            let shown = paths::show_destination(&view?, table);
            let paths = shown.paths.into_iter().map(version3::path).collect();
            let destination = Some(proto::Destination { prefix: shown.prefix, paths });
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

    async fn add_policy(
        &self,
        request: Request<proto::AddPolicyRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        let policy = read_policy::policy(request.policy.as_ref())?;
        self.change(Change::AddPolicy { policy, refer: request.refer_existing_statements }).await
    }

    async fn delete_policy(
        &self,
        request: Request<proto::DeletePolicyRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        let policy = read_policy::policy(request.policy.as_ref())?;
        let (all, preserve) = (request.all, request.preserve_statements);
        self.change(Change::RemovePolicy { policy, all, preserve }).await
    }

    async fn set_policies(
        &self,
        request: Request<proto::SetPoliciesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.change(Change::SetPolicies(Box::new(read_policy::all(&request.into_inner())?))).await
    }

    async fn add_defined_set(
        &self,
        request: Request<proto::AddDefinedSetRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        let (name, members) = read_policy::set(&request.defined_set.unwrap_or_default())?;
        self.change(Change::AddSet { name, members, replace: request.replace }).await
    }

    async fn delete_defined_set(
        &self,
        request: Request<proto::DeleteDefinedSetRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        let (name, members) = read_policy::set(&request.defined_set.unwrap_or_default())?;
        self.change(Change::RemoveSet { name, members, all: request.all }).await
    }

    async fn add_statement(
        &self,
        request: Request<proto::AddStatementRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let statement = read_policy::statement(request.into_inner().statement.as_ref())?;
        self.change(Change::AddStatement(Box::new(statement))).await
    }

    async fn delete_statement(
        &self,
        request: Request<proto::DeleteStatementRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        let statement = Box::new(read_policy::statement(request.statement.as_ref())?);
        self.change(Change::RemoveStatement { statement, all: request.all }).await
    }

    async fn add_policy_assignment(
        &self,
        request: Request<proto::AddPolicyAssignmentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.assign(request.into_inner().assignment.as_ref(), Assign::Add).await
    }

    async fn set_policy_assignment(
        &self,
        request: Request<proto::SetPolicyAssignmentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.assign(request.into_inner().assignment.as_ref(), Assign::Set).await
    }

    async fn delete_policy_assignment(
        &self,
        request: Request<proto::DeletePolicyAssignmentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        let how = if request.all { Assign::Clear } else { Assign::Remove };
        self.assign(request.assignment.as_ref(), how).await
    }

    async fn list_policy(
        &self,
        request: Request<proto::ListPolicyRequest>,
    ) -> Result<Response<Self::ListPolicyStream>, Status> {
        let name = request.into_inner().name;
        let policy = self.policy().await?;
        let wanted = policy.policies.iter().filter(|policy| name.is_empty() || policy.name == name);
        let shown = wanted.map(|one| proto::ListPolicyResponse { policy: Some(policy::show(one)) });
        Ok(answers(shown.collect()))
    }

    async fn list_statement(
        &self,
        request: Request<proto::ListStatementRequest>,
    ) -> Result<Response<Self::ListStatementStream>, Status> {
        let name = request.into_inner().name;
        let policy = self.policy().await?;
        let statements = policy.statements().into_iter();
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
        let policy = self.policy().await?;
        let sets = policy::show_sets(&policy.sets, request.defined_type(), &request.name);
        let shown = sets.into_iter().map(|set| proto::ListDefinedSetResponse { defined_set: Some(set) });
        Ok(answers(shown.collect()))
    }

    async fn list_policy_assignment(
        &self,
        request: Request<proto::ListPolicyAssignmentRequest>,
    ) -> Result<Response<Self::ListPolicyAssignmentStream>, Status> {
        let request = request.into_inner();
        let policy = self.policy().await?;
        if !matches!(request.name.as_str(), "" | "global") {
            return Err(read_policy::not_a_client(&request.name));
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
        let stations = self.speaker.stations().await.map_err(|why| status(&why))?;
        Ok(answers(stations.iter().map(stations::show).collect()))
    }

    async fn add_vrf(&self, _: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        not_served(NO_VRF)
    }

    async fn delete_vrf(&self, _: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        not_served(NO_VRF)
    }

    async fn add_rpki(&self, _: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        not_served(NO_RPKI)
    }

    async fn delete_rpki(&self, _: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        not_served(NO_RPKI)
    }

    async fn enable_rpki(&self, _: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        not_served(NO_RPKI)
    }

    async fn disable_rpki(&self, _: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        not_served(NO_RPKI)
    }

    async fn reset_rpki(&self, _: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        not_served(NO_RPKI)
    }

    async fn list_rpki_table(
        &self,
        _: Request<proto::NotServed>,
    ) -> Result<Response<Self::ListRpkiTableStream>, Status> {
        Ok(answers(Vec::new()))
    }

    async fn enable_zebra(&self, _: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        not_served(NO_ZEBRA)
    }

    async fn enable_mrt(
        &self,
        request: Request<proto::EnableMrtRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.change(Change::AddMrtDump(mrt::read_dump(&request.into_inner(), &self.files)?)).await
    }

    async fn disable_mrt(
        &self,
        request: Request<proto::DisableMrtRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.change(Change::RemoveMrtDump(self.files.known(&request.into_inner().filename))).await
    }

    async fn add_bmp(
        &self,
        request: Request<proto::AddBmpRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let (address, settings) = stations::read(request.into_inner())?;
        self.change(Change::AddStation(address, settings)).await
    }

    async fn delete_bmp(
        &self,
        request: Request<proto::DeleteBmpRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let proto::DeleteBmpRequest { address, port } = request.into_inner();
        self.change(Change::RemoveStation(stations::read_address(&address, port)?)).await
    }

    async fn set_log_level(
        &self,
        request: Request<proto::SetLogLevelRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let level = match request.into_inner().level {
            // Nothing here is worse than an error.
            0..=2 => tracing::Level::ERROR,
            3 => tracing::Level::WARN,
            4 => tracing::Level::INFO,
            5 => tracing::Level::DEBUG,
            6 => tracing::Level::TRACE,
            other => {
                let text = format!("{other} is no log level: 2 is error, 6 is trace");
                return Err(Status::invalid_argument(text));
            }
        };
        let Some(set) = self.set_log_level else {
            return not_served(
                "the log level of this process is set where it is started: see its ISTHMUS_LOG",
            );
        };
        set(level).map_err(Status::internal)?;
        Ok(Response::new(proto::Empty {}))
    }
}
