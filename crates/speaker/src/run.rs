//! Starts a speaker and runs it until it is told to stop.

use crate::{
    Config, Handle, KernelRoutes,
    explain::Explainer,
    gobgp::{DumpFiles, Service, Version4},
    handle::REQUESTS_MAX,
    kernel::{Kernel, Reach},
    listeners::{Listeners, Required},
    owner::{self, Inlets, Setup},
    socket::ListenError,
};
use isthmus_bgp::{Attributes, Prefix};
use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::mpsc,
    task::JoinSet,
    time::{Duration, sleep},
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

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
    #[error("cannot listen on {address} for GoBGP's API")]
    Api {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket for the API cannot be had.
    #[error("cannot listen on {path} for GoBGP's API")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's routes cannot be kept.
    #[error("cannot watch the kernel's routes")]
    Kernel(#[source] io::Error),
}

impl RunError {
    fn cause(&self) -> &io::Error {
        match self {
            Self::Listen(listen) => &listen.source,
            Self::Api { source, .. } | Self::Socket { source, .. } | Self::Kernel(source) => source,
        }
    }

    /// Whether whoever started it may not do that.
    pub fn is_forbidden(&self) -> bool {
        self.cause().kind() == io::ErrorKind::PermissionDenied
    }

    /// What to do.
    pub fn remedy(&self) -> String {
        match (self, self.cause().kind()) {
            (Self::Listen(listen), io::ErrorKind::PermissionDenied) => format!(
                "start it as root, or with CAP_NET_BIND_SERVICE, or write a port above 1023 in place of {} ([global.config] port)",
                listen.address.port()
            ),
            (Self::Listen(listen), io::ErrorKind::AddrInUse) => format!(
                "`ss -ltnp sport = {}` shows which process has it: end that one, or write another port or local-address-list under [global.config]",
                listen.address.port()
            ),
            (Self::Listen(_), io::ErrorKind::AddrNotAvailable) => {
                "give the address to an interface first, or correct local-address-list under [global.config]"
                    .to_owned()
            }
            (Self::Api { address, .. }, io::ErrorKind::AddrInUse) => format!(
                "`isthmus bgp summary --api {address}` asks who is there; --api names another address, or with \"\" none"
            ),
            (Self::Api { .. }, _) => "name another address with --api, or \"\" for none".to_owned(),
            (Self::Kernel(_), io::ErrorKind::PermissionDenied) => {
                "start it as root, or with CAP_NET_ADMIN, or without --kernel-table".to_owned()
            }
            _ => String::new(),
        }
    }
}

/// Sets what the process logs.
pub type SetLogLevel = fn(tracing::Level) -> Result<(), String>;

/// What a speaker has besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where GoBGP's API is served; plain text, and whoever reaches it may do everything.
    pub api: Option<SocketAddr>,
    /// The speaker was here before, and its neighbours keep its routes: nothing is announced before they have sent theirs
    /// (RFC 4724 section 4.1).
    pub restarted: bool,
    /// Best routes are kept in the kernel. They stay there when the speaker stops if a neighbour has graceful restart,
    /// because traffic goes on then, and are removed otherwise, because nobody would know when they go wrong.
    pub kernel: Option<KernelRoutes>,
    /// What GoBGP's API does when the level of the log is set; `None`: it cannot be.
    pub set_log_level: Option<SetLogLevel>,
    /// Routes of our own, announced from the start on: so a neighbour that kept them over a restart never hears that all
    /// was said without them.
    pub routes: Vec<(Prefix, Attributes)>,
    /// At the end, neighbours with graceful restart are left without a word, and keep our routes until we are back.
    pub leaves_quietly: bool,
    /// Where GoBGP's API is served beside [`Options::api`]: a Unix socket for its owner alone. What is there is replaced.
    pub socket: Option<PathBuf>,
    /// How long a neighbour may take nothing of what we send before its connection is dropped; `None`: twice the hold
    /// time, at least 8 minutes (RFC 9687).
    pub send_hold: Option<Duration>,
    /// Where clients of [`Options::api`] may have MRT files written; `None`: nowhere, for they need no password.
    pub mrt_directory: Option<PathBuf>,
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
    let (_, running) = start(config, options, reloads, shutdown).await?;
    running.await;
    Ok(())
}

/// Starts a speaker: how to ask it, and what to await for as long as it shall live.
///
/// # Errors
///
/// [`RunError`] before anything was started.
pub async fn start(
    config: Config,
    options: Options,
    reloads: mpsc::Receiver<Config>,
    shutdown: impl Future<Output = ()>,
) -> Result<(Handle, impl Future<Output = ()>), RunError> {
    let listeners = Listeners::open(&config.global.listen, &Required::of(&config, &BTreeMap::new()))?;
    let api = match options.api {
        None => None,
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|source| RunError::Api { address, source })?)
        }
    };
    let socket = options.socket.as_deref().map(listen_locally).transpose()?;
    let kernel = options.kernel.as_ref().map(Kernel::start).transpose().map_err(RunError::Kernel)?;
    // What goes into the kernel shall not be chosen where the kernel cannot follow.
    let resolves = config.global.resolve_next_hops.unwrap_or(kernel.is_some());
    let own_routes = options.kernel.clone().unwrap_or_default();
    let reach = resolves.then(|| Reach::start(&own_routes)).transpose().map_err(RunError::Kernel)?;
    let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
    let (accepted_in, accepted) = mpsc::channel(ACCEPTED_MAX);
    let handle = Handle::new(requests_in, kernel.as_ref().map(Kernel::asker));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for listener in listeners.sockets() {
        tasks.spawn(accept(listener, accepted_in.clone()));
    }
    drop(accepted_in);
    if let Some(api) = api {
        let files = options.mrt_directory.clone().map_or(DumpFiles::Nowhere, DumpFiles::Within);
        let service = Service::new(handle.clone(), options.set_log_level, files);
        tasks.spawn(serve(api, service, stop.clone()));
    }
    if let Some(socket) = socket {
        // Only who runs the speaker gets through.
        let service = Service::new(handle.clone(), options.set_log_level, DumpFiles::Anywhere);
        tasks.spawn(serve_locally(socket, service, stop.clone()));
    }
    let (asn, router_id) = (config.global.asn, config.global.router_id);
    tracing::info!(asn, %router_id, neighbors = config.neighbors.len(), "speaker started");
    let stale_time = options.kernel.map(|kernel| kernel.stale_time).unwrap_or_default();
    let setup = Setup {
        config,
        restarted: options.restarted,
        kernel,
        reach,
        stale_time,
        routes: options.routes,
        leaves_quietly: options.leaves_quietly,
        send_hold: options.send_hold,
        handle: handle.clone(),
    };
    let inlets = Inlets { listeners, requests, accepted, reloads };
    // A task beside the neighbours' tasks: what one of them tells the owner is then mostly taken by the same thread,
    // at once. A future that is blocked on would be woken on a thread of its own.
    let ending = CancellationToken::new();
    let owner = owner::run(setup, inlets, ending.clone().cancelled_owned());
    let mut owner = AbortOnDropHandle::new(tokio::spawn(owner));
    let running = async move {
        let outcome = tokio::select! {
            outcome = &mut owner => outcome,
            () = shutdown => {
                ending.cancel();
                owner.await
            }
        };
        stop.cancel();
        tasks.shutdown().await;
        if let Some(path) = options.socket {
            // What is left is replaced by the next speaker.
            let _ = fs::remove_file(path);
        }
        if let Err(failed) = outcome
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
    };
    Ok((handle, running))
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

/// A Unix socket that only its owner may use, from its first moment on.
fn listen_locally(path: &Path) -> Result<UnixListener, RunError> {
    let listen = || {
        let new = path.with_extension("new");
        for old in [&new, path] {
            match fs::remove_file(old) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                _ => {}
            }
        }
        // Nobody knows the name before the mode is set.
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(&new, path)?;
        Ok(listener)
    };
    listen().map_err(|source| RunError::Socket { path: path.to_owned(), source })
}

async fn serve_locally(listener: UnixListener, service: Service, stop: CancellationToken) {
    let incoming = UnixListenerStream::new(listener);
    if let Err(why) = router(service).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await {
        tracing::error!(%why, "GoBGP's API on its socket ended");
    }
}

/// All that is served on one port.
fn router(service: Service) -> tonic::transport::server::Router {
    tonic::transport::Server::builder()
        .add_service(Explainer::server(service.speaker()))
        .add_service(Version4::server(service.clone()))
        .add_service(service.into_server())
}

async fn serve(listener: TcpListener, service: Service, stop: CancellationToken) {
    let server = router(service);
    let ended = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned());
    if let Err(why) = ended.await {
        tracing::error!(%why, "GoBGP's API ended");
    }
}
