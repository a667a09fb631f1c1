//! An agent's life: lock, kernel, journal, look, listen, ready, stream; and its end, which leaves the dataplane as it is.

use crate::{
    adapters,
    addresses::OpenJournalError,
    agent::Agent,
    bgp,
    config::Config,
    flows,
    host::{Lock, LockError, listen, notify, source_address},
    kernel::{Kernel, KernelError, dataplane},
    people, reconcile, stream,
};
use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

/// Time between two sweeps of the connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long calls that are under way may take at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an agent did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another agent runs here.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A directory cannot be made.
    #[error("directory {path} cannot be made: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node's address is not known.
    #[error(
        "the way to the server {server} is not known, so neither is this node's address ({source}): set `address`"
    )]
    Address {
        /// As configured.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// The dataplane did not start.
    #[error("error[{code}]: {source}")]
    Kernel {
        /// The runbook's code.
        code: &'static str,
        /// Why not.
        source: KernelError,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] OpenJournalError),
    /// A socket cannot be made.
    #[error("cannot listen on {place}: {source}")]
    Listen {
        /// Path or address.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Runs an agent on the node's dataplane until `shutdown` is done. What is in force stays in force.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let prepared = Prepared::new(&config)?;
    let kernel = dataplane::open(&config, prepared.tunnel_address).await?;
    prepared.run(config, kernel, shutdown).await
}

/// Runs an agent on any kernel, for tests.
pub async fn run_with(
    config: Config,
    kernel: Arc<dyn Kernel>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    Prepared::new(&config)?.run(config, kernel, shutdown).await
}

/// A node that no other agent serves.
struct Prepared {
    _lock: Lock,
    tunnel_address: IpAddr,
}

impl Prepared {
    fn new(config: &Config) -> Result<Self, RunError> {
        make_directory(&config.run_dir, 0o755)?;
        make_directory(&config.data_dir, 0o700)?;
        let lock = Lock::take(&config.run_dir.join("agent.pid"))?;
        let tunnel_address = match config.address {
            Some(address) => address,
            None => source_address(&config.server)
                .map_err(|source| RunError::Address { server: config.server.clone(), source })?,
        };
        Ok(Self { _lock: lock, tunnel_address })
    }

    async fn run(
        self,
        config: Config,
        kernel: Arc<dyn Kernel>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let started = Instant::now();
        let runtime = tokio::runtime::Handle::current();
        let agent = Arc::new(Agent::open(config, kernel, runtime, self.tunnel_address)?);
        // Nobody else works yet, so the first look may block here.
        agent.reconcile_at_start();
        agent.widen_network();
        if let Err(error) = agent.publish_ports() {
            agent.problems.set("ports", Some(format!("ports of the node are not the newest: {error}")));
        }
        let mut running = Running::start(&agent).await?;
        notify(std::env::var_os("NOTIFY_SOCKET").as_deref(), "READY=1\nSTATUS=serving\n");
        tracing::info!(
            node = %agent.config.node, address = %agent.tunnel_address, mtu = agent.kernel.mtu(),
            endpoints = agent.attachments().len(), took_ms = started.elapsed().as_millis() as u64, "agent ready"
        );
        running.tasks.spawn(stream::keep_open(Arc::clone(&agent)));
        shutdown.await;
        tracing::info!(node = %agent.config.node, "agent stops; what is in force stays in force");
        notify(std::env::var_os("NOTIFY_SOCKET").as_deref(), "STOPPING=1\n");
        running.stop(&agent).await;
        Ok(())
    }
}

/// What runs beside each other.
struct Running {
    tasks: JoinSet<()>,
    calls: Arc<Semaphore>,
    applier: Option<JoinHandle<()>>,
    /// Stops the speaker, and what to await then.
    speaker: (oneshot::Sender<()>, tokio::task::JoinHandle<()>),
    threads: Threads,
}

/// Ends the threads, also when the agent is dropped in the middle of its life.
struct Threads {
    agent: Arc<Agent>,
    stop: Arc<AtomicBool>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.agent.pending.stop();
    }
}

impl Running {
    async fn start(agent: &Arc<Agent>) -> Result<Self, RunError> {
        let threads = Threads { agent: Arc::clone(agent), stop: Arc::default() };
        let run_dir = &agent.config.run_dir;
        let socket = |name: &str, mode| {
            let path = run_dir.join(name);
            listen(&path, mode)
                .map_err(|source| RunError::Listen { place: path.display().to_string(), source })
        };
        let people = socket("agent.sock", 0o660)?;
        let adapters = socket("adapter.sock", 0o600)?;
        let mut tasks = JoinSet::new();
        if let Some(address) = agent.config.metrics {
            tasks.spawn(serve_metrics(Arc::clone(agent), address).await?);
        }
        let applying = Arc::clone(agent);
        let applier = std::thread::Builder::new()
            .name("apply".to_owned())
            .spawn(move || applying.apply_until_stopped())
            .map_err(RunError::Thread)?;
        match agent.kernel.events() {
            Ok(events) => flows::start(agent, events, Arc::clone(&threads.stop)).map_err(RunError::Thread)?,
            Err(error) => agent.problems.set("flows", Some(format!("verdicts cannot be seen: {error}"))),
        }
        let calls = Arc::new(Semaphore::new(adapters::CALLS_MAX));
        tasks.spawn(adapters::serve(Arc::clone(agent), adapters, Arc::clone(&calls)));
        let router = people::router(Arc::clone(agent));
        tasks.spawn(async move {
            // It ends only with the runtime.
            let _ = axum::serve(people, router).await;
        });
        tasks.spawn(every(Arc::clone(agent), reconcile::INTERVAL, |agent| agent.reconcile(Instant::now())));
        tasks.spawn(every(Arc::clone(agent), SWEEP_INTERVAL, Agent::sweep));
        let (stop, stopped) = oneshot::channel();
        let speaker = (stop, tokio::spawn(bgp::keep(Arc::clone(agent), stopped)));
        Ok(Self { tasks, calls, applier: Some(applier), speaker, threads })
    }

    /// Takes no more calls, lets those that are under way end, and keeps the view.
    async fn stop(mut self, agent: &Agent) {
        let (stop, speaker) = self.speaker;
        // It ends when it is told, or when nobody can tell it.
        let _ = stop.send(());
        drop(speaker.await);
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        let drained = self.calls.acquire_many(adapters::CALLS_MAX as u32);
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("calls of adapters were still under way at the end");
        }
        agent.link.close();
        let applier = self.applier.take();
        drop(self.threads);
        // A panic of the applier was told when it happened.
        drop(tokio::task::spawn_blocking(move || applier.map(JoinHandle::join)).await);
        for socket in ["agent.sock", "adapter.sock", bgp::SOCKET] {
            // The next agent removes what is left.
            drop(fs::remove_file(agent.config.run_dir.join(socket)));
        }
    }
}

impl Agent {
    fn sweep(&self) {
        match self.kernel.sweep() {
            Ok(sweep) => {
                self.connections.store(sweep.live, Ordering::Relaxed);
                self.problems.set("connections", None);
            }
            Err(error) => {
                self.problems.set("connections", Some(format!("connections cannot be swept: {error}")));
            }
        }
    }
}

/// Does something now and again beside the runtime's threads, never twice at once.
async fn every(agent: Arc<Agent>, interval: Duration, act: fn(&Agent)) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let agent = Arc::clone(&agent);
        if let Err(error) = tokio::task::spawn_blocking(move || act(&agent)).await {
            tracing::error!(%error, "a look at the node failed");
        }
    }
}

async fn serve_metrics(
    agent: Arc<Agent>,
    address: SocketAddr,
) -> Result<impl Future<Output = ()> + Send + 'static, RunError> {
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| RunError::Listen { place: address.to_string(), source })?;
    Ok(async move {
        let _ = axum::serve(listener, people::metrics_router(agent)).await;
    })
}

fn make_directory(path: &Path, mode: u32) -> Result<(), RunError> {
    let outcome = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    outcome.map_err(|source| RunError::Directory { path: path.to_owned(), source })
}
