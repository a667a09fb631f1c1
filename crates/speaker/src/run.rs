//! Starts a speaker and runs it until it is told to stop.

use crate::{
    Config, Handle,
    gobgp::Service,
    handle::REQUESTS_MAX,
    listeners::{Listeners, Required},
    owner::{self, Inlets},
    socket::ListenError,
};
use std::{future::Future, io, net::SocketAddr, sync::Arc};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Duration, sleep},
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

/// Accepted connections that may wait for the owner; the kernel holds further ones.
const ACCEPTED_MAX: usize = 256;
/// Pause after accept fails, which is when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A speaker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address for BGP cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The address for the API cannot be had.
    #[error("cannot listen on {address} for GoBGP's API: is another speaker running there?")]
    Api {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a speaker has besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where GoBGP's API is served; plain text, and whoever reaches it may do everything.
    pub api: Option<SocketAddr>,
    /// The speaker was here before, and its neighbours keep its routes: nothing is announced before they have sent theirs
    /// (RFC 4724 section 4.1).
    pub restarted: bool,
}

/// Runs a speaker until `shutdown`. Configurations from `reloads` take effect as they come.
///
/// # Errors
///
/// [`RunError`] before anything was started.
pub async fn run(
    config: Config,
    options: Options,
    reloads: mpsc::Receiver<Config>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let listeners = Listeners::open(&config.global.listen, &Required::of(&config))?;
    let api = match options.api {
        None => None,
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|source| RunError::Api { address, source })?)
        }
    };
    let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
    let (accepted_in, accepted) = mpsc::channel(ACCEPTED_MAX);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for listener in listeners.sockets() {
        tasks.spawn(accept(listener, accepted_in.clone()));
    }
    drop(accepted_in);
    if let Some(api) = api {
        tasks.spawn(serve(api, Handle::new(requests_in.clone()), stop.clone()));
    }
    let (asn, router_id) = (config.global.asn, config.global.router_id);
    tracing::info!(asn, %router_id, neighbors = config.neighbors.len(), "speaker started");
    let inlets = Inlets { listeners, requests, accepted, reloads };
    owner::run(config, options.restarted, inlets, shutdown).await;
    stop.cancel();
    tasks.shutdown().await;
    Ok(())
}

async fn accept(listener: Arc<TcpListener>, accepted: mpsc::Sender<(TcpStream, SocketAddr)>) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(why) => {
                tracing::warn!(%why, "connections cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(listener: TcpListener, speaker: Handle, stop: CancellationToken) {
    let server = tonic::transport::Server::builder().add_service(Service::new(speaker).into_server());
    let ended = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned());
    if let Err(why) = ended.await {
        tracing::error!(%why, "GoBGP's API ended");
    }
}
