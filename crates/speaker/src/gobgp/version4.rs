//! Version 4 of the API (package `api`), on the same port: its calls are those of version 3 with other numbers in some
//! enumerations, and with choices of messages in place of `Any`.

use super::{
    api::{self, go_bgp_service_server::GoBgpService},
    mrt, paths, peers, proto,
    service::{Answers, MESSAGE_BYTES_MAX, Service, answers},
    shift, watch,
};
use futures::StreamExt;
use proto::gobgp_api_server::GobgpApi;
use tonic::{Request, Response, Status, Streaming};

/// Serves GoBGP's API, version 4.
#[derive(Clone, Debug)]
pub(crate) struct Version4(Service);

impl Version4 {
    /// Serves what `service` does.
    pub(crate) fn server(service: Service) -> api::go_bgp_service_server::GoBgpServiceServer<Self> {
        let server = api::go_bgp_service_server::GoBgpServiceServer::new(Self(service));
        server.max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn translated<T: Send + 'static>(shown: Response<Answers<T>>, up: fn(&mut T)) -> Response<Answers<T>> {
    let shown = shown.into_inner().map(move |answer| {
        answer.map(|mut answer| {
            up(&mut answer);
            answer
        })
    });
    Response::new(Box::pin(shown))
}

fn read<T>(request: Request<T>, down: fn(&mut T)) -> Request<T> {
    request.map(|mut message| {
        down(&mut message);
        message
    })
}

#[tonic::async_trait]
impl GoBgpService for Version4 {
    type WatchEventStream = Answers<api::WatchEventResponse>;
    type ListPeerStream = Answers<api::ListPeerResponse>;
    type ListPeerGroupStream = Answers<proto::ListPeerGroupResponse>;
    type ListDynamicNeighborStream = Answers<proto::ListDynamicNeighborResponse>;
    type ListPathStream = Answers<api::ListPathResponse>;
    type ListPolicyStream = Answers<proto::ListPolicyResponse>;
    type ListStatementStream = Answers<proto::ListStatementResponse>;
    type ListDefinedSetStream = Answers<proto::ListDefinedSetResponse>;
    type ListPolicyAssignmentStream = Answers<proto::ListPolicyAssignmentResponse>;
    type ListVrfStream = Answers<proto::ListVrfResponse>;
    type ListRpkiStream = Answers<proto::ListRpkiResponse>;
    type ListRpkiTableStream = Answers<proto::NotServed>;
    type ListBmpStream = Answers<proto::ListBmpResponse>;

    async fn start_bgp(
        &self,
        request: Request<proto::StartBgpRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::start_bgp(&self.0, request).await
    }

    async fn stop_bgp(
        &self,
        request: Request<proto::StopBgpRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::stop_bgp(&self.0, request).await
    }

    async fn get_bgp(
        &self,
        request: Request<proto::GetBgpRequest>,
    ) -> Result<Response<proto::GetBgpResponse>, Status> {
        GobgpApi::get_bgp(&self.0, request).await
    }

    async fn watch_event(
        &self,
        request: Request<proto::WatchEventRequest>,
    ) -> Result<Response<Self::WatchEventStream>, Status> {
        let policy = self.0.policy().await?;
        let events = watch::watch(&self.0, &read(request, shift::watch_request).into_inner()).await?;
        let shown = events.map(move |event| event.map(|event| watch::show_version4(event, &policy)));
        Ok(Response::new(Box::pin(shown)))
    }

    async fn add_peer(
        &self,
        request: Request<api::AddPeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let peer = request.into_inner().peer.map(shift::read_peer);
        GobgpApi::add_peer(&self.0, Request::new(proto::AddPeerRequest { peer })).await
    }

    async fn update_peer(
        &self,
        request: Request<api::UpdatePeerRequest>,
    ) -> Result<Response<proto::UpdatePeerResponse>, Status> {
        let api::UpdatePeerRequest { peer, do_soft_reset_in } = request.into_inner();
        let peer = peer.map(shift::read_peer);
        GobgpApi::update_peer(&self.0, Request::new(proto::UpdatePeerRequest { peer, do_soft_reset_in }))
            .await
    }

    async fn list_peer(
        &self,
        request: Request<proto::ListPeerRequest>,
    ) -> Result<Response<Self::ListPeerStream>, Status> {
        let request = request.into_inner();
        let (policy, views) = (self.0.policy().await?, self.0.views(&request).await?);
        let peer = |view| {
            let shown = peers::show(view, &policy, request.enable_advertised);
            api::ListPeerResponse { peer: Some(shift::peer(shown, peers::capabilities(view))) }
        };
        Ok(answers(views.iter().map(peer).collect()))
    }

    async fn delete_peer(
        &self,
        request: Request<proto::DeletePeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_peer(&self.0, request).await
    }

    async fn reset_peer(
        &self,
        request: Request<proto::ResetPeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::reset_peer(&self.0, read(request, shift::reset_request)).await
    }

    async fn shutdown_peer(
        &self,
        request: Request<proto::ShutdownPeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::shutdown_peer(&self.0, request).await
    }

    async fn enable_peer(
        &self,
        request: Request<proto::EnablePeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::enable_peer(&self.0, request).await
    }

    async fn disable_peer(
        &self,
        request: Request<proto::DisablePeerRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::disable_peer(&self.0, request).await
    }

    async fn add_peer_group(
        &self,
        request: Request<proto::AddPeerGroupRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_peer_group(&self.0, read(request, shift::add_group_request)).await
    }

    async fn delete_peer_group(
        &self,
        request: Request<proto::DeletePeerGroupRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_peer_group(&self.0, request).await
    }

    async fn update_peer_group(
        &self,
        request: Request<proto::UpdatePeerGroupRequest>,
    ) -> Result<Response<proto::UpdatePeerGroupResponse>, Status> {
        GobgpApi::update_peer_group(&self.0, read(request, shift::update_group_request)).await
    }

    async fn list_peer_group(
        &self,
        request: Request<proto::ListPeerGroupRequest>,
    ) -> Result<Response<Self::ListPeerGroupStream>, Status> {
        Ok(translated(GobgpApi::list_peer_group(&self.0, request).await?, shift::group_response))
    }

    async fn add_dynamic_neighbor(
        &self,
        request: Request<proto::AddDynamicNeighborRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_dynamic_neighbor(&self.0, request).await
    }

    async fn list_dynamic_neighbor(
        &self,
        request: Request<proto::ListDynamicNeighborRequest>,
    ) -> Result<Response<Self::ListDynamicNeighborStream>, Status> {
        GobgpApi::list_dynamic_neighbor(&self.0, request).await
    }

    async fn delete_dynamic_neighbor(
        &self,
        request: Request<proto::DeleteDynamicNeighborRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_dynamic_neighbor(&self.0, request).await
    }

    async fn add_path(
        &self,
        request: Request<api::AddPathRequest>,
    ) -> Result<Response<proto::AddPathResponse>, Status> {
        let api::AddPathRequest { table_type, path, .. } = request.into_inner();
        let uuid = self.0.announce(shift::down(table_type), path).await?;
        Ok(Response::new(proto::AddPathResponse { uuid }))
    }

    async fn add_path_stream(
        &self,
        request: Request<Streaming<api::AddPathStreamRequest>>,
    ) -> Result<Response<proto::Empty>, Status> {
        mrt::inject(self.0.speaker(), request.into_inner(), |request: api::AddPathStreamRequest| {
            (shift::down(request.table_type), request.paths.into_iter().map(Ok).collect())
        })
        .await
    }

    async fn delete_path(
        &self,
        request: Request<api::DeletePathRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let api::DeletePathRequest { table_type, family, path, uuid, .. } = request.into_inner();
        self.0.withdraw(shift::down(table_type), (&uuid, path, family)).await?;
        Ok(Response::new(proto::Empty {}))
    }

    async fn list_path(
        &self,
        request: Request<proto::ListPathRequest>,
    ) -> Result<Response<Self::ListPathStream>, Status> {
        let (table, found) = self.0.list_paths(&read(request, shift::list_path_request).into_inner()).await?;
        let shown = found.map(move |view| {
            Ok(api::ListPathResponse { destination: Some(paths::show_destination(&view?, table)) })
        });
        Ok(Response::new(Box::pin(shown)))
    }

    async fn get_table(
        &self,
        request: Request<proto::GetTableRequest>,
    ) -> Result<Response<proto::GetTableResponse>, Status> {
        GobgpApi::get_table(&self.0, read(request, shift::table_request)).await
    }

    async fn add_policy(
        &self,
        request: Request<proto::AddPolicyRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_policy(&self.0, read(request, shift::add_policy_request)).await
    }

    async fn delete_policy(
        &self,
        request: Request<proto::DeletePolicyRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_policy(&self.0, read(request, shift::delete_policy_request)).await
    }

    async fn list_policy(
        &self,
        request: Request<proto::ListPolicyRequest>,
    ) -> Result<Response<Self::ListPolicyStream>, Status> {
        Ok(translated(GobgpApi::list_policy(&self.0, request).await?, shift::policy_response))
    }

    async fn set_policies(
        &self,
        request: Request<proto::SetPoliciesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::set_policies(&self.0, read(request, shift::policies_request)).await
    }

    async fn add_defined_set(
        &self,
        request: Request<proto::AddDefinedSetRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_defined_set(&self.0, read(request, shift::add_set_request)).await
    }

    async fn delete_defined_set(
        &self,
        request: Request<proto::DeleteDefinedSetRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_defined_set(&self.0, read(request, shift::delete_set_request)).await
    }

    async fn list_defined_set(
        &self,
        request: Request<proto::ListDefinedSetRequest>,
    ) -> Result<Response<Self::ListDefinedSetStream>, Status> {
        Ok(translated(
            GobgpApi::list_defined_set(&self.0, read(request, shift::list_set_request)).await?,
            shift::set_response,
        ))
    }

    async fn add_statement(
        &self,
        request: Request<proto::AddStatementRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_statement(&self.0, read(request, shift::add_statement_request)).await
    }

    async fn delete_statement(
        &self,
        request: Request<proto::DeleteStatementRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_statement(&self.0, read(request, shift::delete_statement_request)).await
    }

    async fn list_statement(
        &self,
        request: Request<proto::ListStatementRequest>,
    ) -> Result<Response<Self::ListStatementStream>, Status> {
        Ok(translated(GobgpApi::list_statement(&self.0, request).await?, shift::statement_response))
    }

    async fn add_policy_assignment(
        &self,
        request: Request<proto::AddPolicyAssignmentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_policy_assignment(&self.0, request).await
    }

    async fn delete_policy_assignment(
        &self,
        request: Request<proto::DeletePolicyAssignmentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_policy_assignment(&self.0, request).await
    }

    async fn set_policy_assignment(
        &self,
        request: Request<proto::SetPolicyAssignmentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::set_policy_assignment(&self.0, request).await
    }

    async fn list_policy_assignment(
        &self,
        request: Request<proto::ListPolicyAssignmentRequest>,
    ) -> Result<Response<Self::ListPolicyAssignmentStream>, Status> {
        Ok(translated(GobgpApi::list_policy_assignment(&self.0, request).await?, shift::assignment_response))
    }

    async fn add_vrf(&self, request: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_vrf(&self.0, request).await
    }

    async fn delete_vrf(&self, request: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_vrf(&self.0, request).await
    }

    async fn list_vrf(
        &self,
        request: Request<proto::ListVrfRequest>,
    ) -> Result<Response<Self::ListVrfStream>, Status> {
        GobgpApi::list_vrf(&self.0, request).await
    }

    async fn add_rpki(&self, request: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_rpki(&self.0, request).await
    }

    async fn delete_rpki(
        &self,
        request: Request<proto::NotServed>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_rpki(&self.0, request).await
    }

    async fn enable_rpki(
        &self,
        request: Request<proto::NotServed>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::enable_rpki(&self.0, request).await
    }

    async fn disable_rpki(
        &self,
        request: Request<proto::NotServed>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::disable_rpki(&self.0, request).await
    }

    async fn reset_rpki(&self, request: Request<proto::NotServed>) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::reset_rpki(&self.0, request).await
    }

    async fn list_rpki(
        &self,
        request: Request<proto::ListRpkiRequest>,
    ) -> Result<Response<Self::ListRpkiStream>, Status> {
        GobgpApi::list_rpki(&self.0, request).await
    }

    async fn list_rpki_table(
        &self,
        request: Request<proto::NotServed>,
    ) -> Result<Response<Self::ListRpkiTableStream>, Status> {
        GobgpApi::list_rpki_table(&self.0, request).await
    }

    async fn enable_zebra(
        &self,
        request: Request<proto::NotServed>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::enable_zebra(&self.0, request).await
    }

    async fn enable_mrt(
        &self,
        request: Request<proto::EnableMrtRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::enable_mrt(&self.0, read(request, shift::enable_mrt)).await
    }

    async fn disable_mrt(
        &self,
        request: Request<proto::DisableMrtRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::disable_mrt(&self.0, request).await
    }

    async fn add_bmp(
        &self,
        request: Request<proto::AddBmpRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::add_bmp(&self.0, read(request, shift::bmp_request)).await
    }

    async fn delete_bmp(
        &self,
        request: Request<proto::DeleteBmpRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::delete_bmp(&self.0, request).await
    }

    async fn list_bmp(
        &self,
        request: Request<proto::ListBmpRequest>,
    ) -> Result<Response<Self::ListBmpStream>, Status> {
        GobgpApi::list_bmp(&self.0, request).await
    }

    async fn set_log_level(
        &self,
        request: Request<proto::SetLogLevelRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        GobgpApi::set_log_level(&self.0, read(request, shift::level_request)).await
    }
}
