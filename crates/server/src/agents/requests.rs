//! Answers an agent's requests.

use super::{
    WireError, endpoints,
    session::{Shared, send},
    wire,
};
use crate::problem::{Code, Fault, stream_problem};
use ipnet::IpNet;
use isthmus_api::stream::{self, reply, request, to_agent};
use isthmus_core::{ClusterName, Identity};
use tokio::sync::oneshot;

impl Fault for WireError {
    fn code(&self) -> Code {
        Code::BadRequest
    }
}

/// Works on one request and sends its reply.
pub(super) async fn answer(shared: &Shared, request: stream::Request) {
    let work = async {
        let reply = match request.body {
            Some(body) => reply(shared, body).await,
            None => Err(stream_problem(&WireError::Missing("request"))),
        };
        let body = Some(reply.unwrap_or_else(reply::Body::Problem));
        // An agent that hung up needs no reply.
        let _ = send(shared, to_agent::Body::Reply(stream::Reply { id: request.id, body })).await;
    };
    tokio::select! {
        () = work => {}
        // A block that was leased for a call that ended is in the view that the next call sends.
        () = shared.live.cut.cancelled() => {}
    }
}

async fn reply(shared: &Shared, body: request::Body) -> Result<reply::Body, stream::Problem> {
    match body {
        request::Body::LeaseBlock(lease) => lease_block(shared, &lease).await,
        request::Body::ReturnBlock(block) => return_block(shared, &block).await,
        request::Body::ResolveWorkload(workload) => resolve(shared, &workload).await,
        request::Body::NameIdentity(name) => name_identity(shared, name),
    }
}

async fn lease_block(shared: &Shared, lease: &stream::LeaseBlock) -> Result<reply::Body, stream::Problem> {
    let cluster: ClusterName = read("cluster", &lease.cluster)?;
    let leased = shared.agents.registry.lease_block(&shared.node, &cluster).await;
    let block = leased.map_err(|error| stream_problem(&error))?;
    Ok(reply::Body::Block(wire::block_message(&block)))
}

async fn return_block(
    shared: &Shared,
    request: &stream::ReturnBlock,
) -> Result<reply::Body, stream::Problem> {
    let block: IpNet = read("block", &request.block)?;
    // The endpoints that the agent took out of the block before this request must be out of the registry too.
    let (done, written) = oneshot::channel();
    if shared.endpoints.send(endpoints::Change::Barrier(done)).await.is_ok() {
        let _ = written.await;
    }
    let returned = shared.agents.registry.return_block(&shared.node, block).await;
    returned.map_err(|error| stream_problem(&error))?;
    Ok(reply::Body::Empty(stream::Empty {}))
}

async fn resolve(shared: &Shared, request: &stream::ResolveWorkload) -> Result<reply::Body, stream::Problem> {
    let draft = wire::workload(request).map_err(|error| stream_problem(&error))?;
    let resolved = shared.agents.registry.resolve_workload(&draft).await;
    let resolved = resolved.map_err(|error| stream_problem(&error))?;
    shared.agents.metrics.resolves.inc();
    Ok(reply::Body::Workload(wire::resolved(&resolved)))
}

fn name_identity(shared: &Shared, request: stream::NameIdentity) -> Result<reply::Body, stream::Problem> {
    let unknown = |text: String| stream::Problem {
        code: Code::NotFound.as_str().to_owned(),
        message: text,
        retryable: false,
    };
    let identity = Identity::new(request.identity).map_err(|error| unknown(error.to_string()))?;
    let workload = wire::identity(&shared.agents.registry.view(), identity);
    workload
        .map(reply::Body::Workload)
        .ok_or_else(|| unknown(format!("identity {identity} stands for nobody")))
}

fn read<T: std::str::FromStr>(field: &'static str, value: &str) -> Result<T, stream::Problem>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|why: T::Err| {
        let value = value.chars().take(80).collect();
        stream_problem(&WireError::Field { field, value, why: why.to_string() })
    })
}
