//! The adapters' socket: one request and one answer for each connection, from root only.

use crate::agent::{Agent, fail};
use isthmus_api::adapter::{
    Failure, FailureKind, Request, RequestBody, Response, ResponseBody, VERSION, read_frame, write_frame,
};
use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::UnixListener, sync::Semaphore};

/// Calls that are worked on at once; more wait.
pub(crate) const CALLS_MAX: usize = 32;
/// Longest time for a caller to say what it wants, and to take its answer.
const CALLER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system refused a connection, so that a full table of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves adapters, for ever. Each call runs to its end even if this is dropped.
pub(crate) async fn serve(agent: Arc<Agent>, listener: UnixListener, calls: Arc<Semaphore>) {
    loop {
        let Ok(call) = Arc::clone(&calls).acquire_owned().await else { return };
        let stream = match listener.accept().await.and_then(|(stream, _)| checked(stream)) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "an adapter's connection was refused");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let agent = Arc::clone(&agent);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = answer(&agent, stream) {
                tracing::warn!(%error, "an adapter left before its answer");
            }
            drop(call);
        });
    }
}

/// A blocking stream whose other end is root, or whoever runs the agent.
fn checked(stream: tokio::net::UnixStream) -> io::Result<UnixStream> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {uid} is not root")));
    }
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(CALLER_TIMEOUT))?;
    stream.set_write_timeout(Some(CALLER_TIMEOUT))?;
    Ok(stream)
}

fn answer(agent: &Arc<Agent>, mut stream: UnixStream) -> io::Result<()> {
    let body = match read_frame::<Request>(&stream) {
        Ok((request, netns)) => respond(agent, request, netns),
        Err(error) if error.kind() == io::ErrorKind::InvalidData || error.is_json() => failed(fail(
            FailureKind::Invalid,
            format!("the message cannot be understood: {error}"),
            "upgrade the older of adapter and agent",
        )),
        Err(error) => return Err(error),
    };
    write_frame(&mut stream, &Response { version: VERSION, body }, None)
}

/// Errors that come from decoding.
trait IsJson {
    fn is_json(&self) -> bool;
}

impl IsJson for io::Error {
    fn is_json(&self) -> bool {
        self.get_ref().is_some_and(|inner| inner.downcast_ref::<serde_json::Error>().is_some())
    }
}

fn respond(agent: &Arc<Agent>, request: Request, netns: Option<OwnedFd>) -> ResponseBody {
    if request.version != VERSION {
        return failed(fail(
            FailureKind::Invalid,
            format!("the adapter speaks version {} of the protocol, the agent {VERSION}", request.version),
            "upgrade the older of the two",
        ));
    }
    match request.body {
        RequestBody::Attach(attach) => attached(agent, *attach, netns),
        RequestBody::Detach(key) => {
            let started = Instant::now();
            let done = agent.detach(&key);
            agent.metrics.detach_seconds.observe(started.elapsed().as_secs_f64());
            outcome(done)
        }
        RequestBody::Check(check) => outcome(agent.check(&check)),
        RequestBody::Collect(collect) => outcome(agent.collect(&collect)),
        RequestBody::Status { cluster } => outcome(agent.status(&cluster)),
    }
}

fn attached(
    agent: &Arc<Agent>,
    attach: isthmus_api::adapter::Attach,
    netns: Option<OwnedFd>,
) -> ResponseBody {
    let Some(netns) = netns else {
        let message = "the call came without the descriptor of the container's network namespace";
        return failed(fail(FailureKind::Invalid, message, "this is a fault of the adapter: report it"));
    };
    let started = Instant::now();
    match agent.attach(attach, &netns) {
        Ok(attached) => {
            agent.metrics.attach_seconds.observe(started.elapsed().as_secs_f64());
            ResponseBody::Attached(attached)
        }
        Err(failure) => {
            agent.metrics.attach_failures.inc();
            failed(failure)
        }
    }
}

fn outcome(done: Result<(), Failure>) -> ResponseBody {
    done.map_or_else(failed, |()| ResponseBody::Done)
}

fn failed(failure: Failure) -> ResponseBody {
    if failure.kind != FailureKind::Unknown {
        tracing::warn!(kind = ?failure.kind, error = %failure.message, "an adapter's call failed");
    }
    ResponseBody::Failed(failure)
}
