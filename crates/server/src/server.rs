//! Puts the parts together: store, registry, the three listeners, and their end.

use crate::{
    agents::{Agents, Service},
    cf,
    config::Config,
    flows::Flows,
    http,
    metrics::Metrics,
    problem::chain,
    registry::{Registry, StartError},
    rest::{self, App},
};
use isthmus_api::stream::{MESSAGE_BYTES_MAX, agents_server::AgentsServer};
use isthmus_store::{OpenError, RedbStore, Store};
use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long open calls may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// An agent that is silent for this long is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(5);
/// One that does not answer is gone.
const PING_WAIT: Duration = Duration::from_secs(5);
/// How often leases of the store are looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How often apps and numbers are tidied.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address that plain text may not be used on.
    #[error("{0}")]
    Refused(String),
    /// The data directory.
    #[error("cannot make the data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The store's file.
    #[error("cannot open the store")]
    Open(#[from] OpenError),
    /// The registry.
    #[error("cannot start the registry")]
    Start(#[from] StartError),
    /// A listener.
    #[error(
        "cannot listen on {address} for {what}: is another server running? choose another address with the key {key}"
    )]
    Listen {
        /// What was to listen.
        what: &'static str,
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A server that is being started.
#[derive(Debug)]
pub struct Server;

/// A server that runs until [`Running::stop`] is called. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Running {
    /// Where the REST API listens.
    pub rest_addr: SocketAddr,
    /// Where agents connect.
    pub agents_addr: SocketAddr,
    /// Where Cloud Foundry's policy API listens.
    pub cf_addr: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
    follower: Follower,
}

/// What keeps the view as new as the store. It ends last, because whoever ends still writes.
#[derive(Clone, Debug, Default)]
struct Follower {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Starts a server on `store`. Ports may be 0; [`Running`] tells which they became.
    ///
    /// # Errors
    ///
    /// Nothing runs afterwards.
    pub async fn start(config: &Config, store: Arc<dyn Store>) -> Result<Running, RunError> {
        if let Err(refused) = config.refused_addresses() {
            let texts: Vec<String> = refused.into_iter().map(|(_, text)| text).collect();
            return Err(RunError::Refused(texts.join("; ")));
        }
        let rest = listen("the REST API", "listen", config.listen).await?;
        let agents = listen("agents", "agents", config.agents).await?;
        let cf = match config.cf_policy {
            Some(address) => Some(listen("Cloud Foundry's policy API", "cf_policy", address).await?),
            None => None,
        };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let follower = Follower::default();
        let running = Running {
            rest_addr: address(&rest, config.listen),
            agents_addr: address(&agents, config.agents),
            cf_addr: cf.as_ref().zip(config.cf_policy).map(|(listener, wanted)| address(listener, wanted)),
            stop: stop.clone(),
            tasks: tasks.clone(),
            follower: follower.clone(),
        };
        let parts = Parts::new(store, &tasks, &stop, &follower)?;
        parts.serve_rest(rest);
        parts.serve_agents(agents);
        if let Some(listener) = cf {
            parts.serve_cf(listener);
        }
        parts.keep_house();
        Ok(running)
    }
}

impl Running {
    /// Ends all calls and waits until everything has ended, five seconds at most.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "calls were still open when the server stopped");
        }
        self.follower.stop.cancel();
        self.follower.tasks.close();
        self.follower.tasks.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.follower.stop.cancel();
    }
}

/// Runs a server on the configured store until `shutdown` is ready.
///
/// # Errors
///
/// [`RunError`], before anything is served.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let path = &config.data_dir;
    std::fs::create_dir_all(path).map_err(|source| RunError::DataDir { path: path.clone(), source })?;
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(config.store_file())?);
    let running = Server::start(&config, store).await?;
    tracing::info!(
        rest = %running.rest_addr,
        agents = %running.agents_addr,
        cf_policy = running.cf_addr.map(|address| address.to_string()).unwrap_or_default(),
        "server is ready"
    );
    shutdown.await;
    tracing::info!("server is stopping");
    running.stop().await;
    Ok(())
}

async fn listen(what: &'static str, key: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { what, key, address, source })
}

/// What a listener is bound to.
fn address(listener: &TcpListener, wanted: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(wanted)
}

struct Parts {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    agents: Arc<Agents>,
    flows: Arc<Flows>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Parts {
    fn new(
        store: Arc<dyn Store>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        follower: &Follower,
    ) -> Result<Self, StartError> {
        let registry = Registry::start(Arc::clone(&store), &follower.tasks, follower.stop.clone())?;
        let flows = Flows::new();
        let metrics = Arc::new(Metrics::new());
        let agents = Agents::new(
            Arc::clone(&registry),
            Arc::clone(&flows),
            Arc::clone(&metrics),
            tasks.clone(),
            stop.clone(),
        );
        Ok(Self { store, registry, agents, flows, metrics, tasks: tasks.clone(), stop: stop.clone() })
    }

    fn serve_rest(&self, listener: TcpListener) {
        let app = Arc::new(App {
            registry: Arc::clone(&self.registry),
            agents: Arc::clone(&self.agents),
            flows: Arc::clone(&self.flows),
            metrics: Arc::clone(&self.metrics),
            stop: self.stop.clone(),
        });
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        self.tasks.spawn(http::serve(listener, rest::router(app), tasks, stop));
    }

    fn serve_cf(&self, listener: TcpListener) {
        let router = cf::router(Arc::clone(&self.registry), Arc::clone(&self.metrics));
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        self.tasks.spawn(http::serve(listener, router, tasks, stop));
    }

    fn serve_agents(&self, listener: TcpListener) {
        let service = AgentsServer::new(Service(Arc::clone(&self.agents)))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_WAIT))
            .tcp_nodelay(true)
            .add_service(service);
        let incoming = futures::StreamExt::inspect(TcpListenerStream::new(listener), |accepted| {
            if let Ok(stream) = accepted {
                let _ = stream.set_nodelay(true);
            }
        });
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let ended = server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
            if let Err(error) = ended {
                tracing::error!(error = %chain(&error), "the agents' listener ended");
            }
        });
        self.tasks.spawn(Arc::clone(&self.agents).record());
    }

    /// What is done from time to time.
    fn keep_house(&self) {
        let (store, stop) = (Arc::clone(&self.store), self.stop.clone());
        self.tasks.spawn(every(EXPIRE_EVERY, stop, move || {
            let store = Arc::clone(&store);
            async move {
                if let Err(error) = store.expire_leases(Instant::now()).await {
                    tracing::warn!(%error, "leases not looked at");
                }
            }
        }));
        let (registry, agents) = (Arc::clone(&self.registry), Arc::clone(&self.agents));
        self.tasks.spawn(every(SWEEP_EVERY, self.stop.clone(), move || {
            let (registry, agents) = (Arc::clone(&registry), Arc::clone(&agents));
            async move { sweep(&registry, &agents).await }
        }));
        let registry = Arc::clone(&self.registry);
        self.tasks.spawn(async move {
            if let Err(error) = registry.delete_all_leftovers().await {
                tracing::warn!(error = %chain(&error), "leftovers of deleted nodes stay until the next start");
            }
            if let Err(error) = registry.allocate_externals().await {
                tracing::warn!(error = %chain(&error), "an external cluster has no identity until the next start");
            }
        });
    }
}

async fn sweep(registry: &Registry, agents: &Agents) {
    let scopes = agents.scopes();
    registry.view().tables.keep(|identity| scopes.contains(&identity));
    let swept = async {
        registry.sweep_workloads(&scopes).await?;
        registry.sweep_identities(&agents.up_to_date()).await
    };
    if let Err(error) = swept.await {
        tracing::warn!(error = %chain(&error), "apps and identities not tidied");
    }
}

async fn every<F: Future<Output = ()>>(
    period: Duration,
    stop: CancellationToken,
    mut work: impl FnMut() -> F,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = stop.cancelled() => return,
        }
        work().await;
    }
}
