//! The agent over real sockets, with a kernel in memory and a server in the test.

mod flows;
mod life;
mod people;
mod reconciler;
mod server;

use crate::{Config, RunError, kernel::fake::FakeKernel, run_with};
use isthmus_api::adapter::{
    Attach, Attached, AttachmentKey, Failure, PortMapping, RequestBody, ResponseBody, Workload, call,
};
use server::FakeServer;
use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until something is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    while !so() {
        assert!(Instant::now() < end, "waited too long until {what}");
        ticks.tick().await;
    }
}

/// One node: its directories, its kernel, and the server that it uses. Outlives its agents.
struct Node {
    directory: tempfile::TempDir,
    kernel: FakeKernel,
    server: FakeServer,
}

impl Node {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, kernel: FakeKernel::new(), server: FakeServer::start().await }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> Config {
        let directory = self.directory.path().display();
        let text = format!(
            "node = \"n1\"\nserver = \"{}\"\naddress = \"192.0.2.1\"\nclusters = [\"red\"]\n\
             data_dir = \"{directory}/data\"\nrun_dir = \"{directory}/run\"\nflow_log = \"{directory}/flows.log\"\n",
            self.server.address()
        );
        Config::from_toml(&text, "agent.toml").unwrap()
    }

    /// Starts an agent and waits until it serves.
    async fn start(&self) -> RunningAgent {
        let agent = self.start_with(self.config());
        let socket = agent.socket.clone();
        until("the agent serves", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
        agent
    }

    /// Starts an agent and waits until the server heard of it.
    async fn start_connected(&self) -> RunningAgent {
        let before = self.server.joins();
        let agent = self.start().await;
        until("the agent is in sync", || self.server.joins() > before && self.server.in_force() > 0).await;
        agent
    }

    fn start_with(&self, config: Config) -> RunningAgent {
        let (stop, stopped) = oneshot::channel();
        let socket = config.run_dir.join("adapter.sock");
        let people = config.run_dir.join("agent.sock");
        let shutdown = async { drop(stopped.await) };
        let task = tokio::spawn(run_with(config, Arc::new(self.kernel.clone()), shutdown));
        RunningAgent { stop: Some(stop), task, socket, people }
    }
}

struct RunningAgent {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
    socket: PathBuf,
    people: PathBuf,
}

impl RunningAgent {
    /// Ends as a signal ends it.
    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
    }

    /// Ends in the middle of everything.
    async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }

    async fn call(&self, body: RequestBody, netns: Option<&Netns>) -> ResponseBody {
        call_agent(&self.socket, body, netns).await
    }

    async fn attach(&self, attach: Attach, netns: &Netns) -> Result<Attached, Failure> {
        match self.call(RequestBody::Attach(Box::new(attach)), Some(netns)).await {
            ResponseBody::Attached(attached) => Ok(attached),
            ResponseBody::Failed(failure) => Err(failure),
            ResponseBody::Done => panic!("an attach is not just done"),
        }
    }

    async fn detach(&self, container: &str) -> Result<(), Failure> {
        done(self.call(RequestBody::Detach(key(container)), None).await)
    }
}

async fn call_agent(socket: &Path, body: RequestBody, netns: Option<&Netns>) -> ResponseBody {
    let socket = socket.to_owned();
    let netns = netns.map(|netns| netns.file.try_clone().unwrap());
    let answer =
        tokio::task::spawn_blocking(move || call(&socket, body, netns.as_ref().map(AsFd::as_fd), DEADLINE));
    answer.await.unwrap().unwrap()
}

fn done(body: ResponseBody) -> Result<(), Failure> {
    match body {
        ResponseBody::Done => Ok(()),
        ResponseBody::Failed(failure) => Err(failure),
        ResponseBody::Attached(_) => panic!("nothing was to be attached"),
    }
}

/// Stands for a container's network namespace: a file with an inode of its own.
struct Netns {
    file: File,
}

impl Netns {
    fn new() -> Self {
        Self { file: tempfile::tempfile().unwrap() }
    }

    fn inode(&self) -> u64 {
        self.file.metadata().unwrap().ino()
    }
}

fn key(container: &str) -> AttachmentKey {
    AttachmentKey {
        runtime: "cni:isthmus".to_owned(),
        container: container.to_owned(),
        interface: "eth0".to_owned(),
    }
}

fn attach(container: &str, app: &str) -> Attach {
    Attach {
        key: key(container),
        cluster: String::new(),
        workload: Workload {
            id: format!("shop/{app}"),
            group: "shop".to_owned(),
            app: app.to_owned(),
            ..Workload::default()
        },
        instance: format!("{app}-0"),
        addresses: Vec::new(),
        mac: None,
        port_mappings: Vec::new(),
    }
}

fn mapping(host_port: u16) -> PortMapping {
    PortMapping { host_ip: None, host_port, container_port: 8080, protocol: "tcp".to_owned() }
}
