//! Kubernetes's part: a containerd of its own for each node, used through its CRI as the kubelet does.

use crate::{
    cni,
    command::{Call, CommandError},
    process::{DaemonError, Process},
};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxPodSandboxConfig,
    ListPodSandboxRequest, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StatusRequest,
    StopPodSandboxRequest, runtime_service_client::RuntimeServiceClient,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// The image of sandboxes.
pub const PAUSE_IMAGE: &str = "isthmus.local/pause:demo";
/// The image of apps.
pub const APP_IMAGE: &str = "isthmus.local/app:demo";
/// Longest time that containerd may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// File system magic of overlayfs (`linux/magic.h`), on which another overlay does not go.
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

/// Where a node's containerd keeps its things.
#[derive(Clone, Debug)]
pub struct Containerd {
    directory: PathBuf,
    node: PathBuf,
    cgroup: String,
}

/// A pod as the kubelet asks for it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Namespace (Kubernetes's word).
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Annotations; containerd hands them to CNI because our list asks for them.
    pub annotations: HashMap<String, String>,
}

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct RunningPod {
    /// Id of the sandbox.
    pub sandbox: String,
    /// Id of its container.
    pub container: String,
    /// Its address.
    pub address: IpAddr,
    /// Path of its network namespace.
    pub netns: PathBuf,
}

/// Why containerd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// Its files could not be written.
    #[error("cannot prepare {path} for containerd: {source}")]
    File {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not start.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// `ctr` failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It cannot be reached.
    #[error("cannot reach containerd at {socket}: {source}")]
    Away {
        /// Its socket.
        socket: PathBuf,
        /// What gRPC said.
        source: tonic::transport::Error,
    },
    /// It refused.
    #[error("containerd refused {what}: {}", status.message())]
    Refused {
        /// What was asked for.
        what: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// It answered without what was asked for.
    #[error("containerd's status of sandbox {sandbox} lacks {what}")]
    Incomplete {
        /// The sandbox.
        sandbox: String,
        /// What is missing.
        what: &'static str,
    },
}

impl Containerd {
    /// The containerd of the node whose network namespace is `node`, with everything below `directory`.
    pub fn new(directory: &Path, node: &Path, cgroup: &str) -> Self {
        Self { directory: directory.to_owned(), node: node.to_owned(), cgroup: cgroup.to_owned() }
    }

    /// Writes its configuration and the CNI list, and copies plugins into its directory.
    pub fn prepare(&self, config: &Value, plugins: &[PathBuf]) -> Result<(), ContainerdError> {
        let (bin, conf) = (self.plugins(), self.directory.join("net.d"));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| ContainerdError::File { path, source }
        };
        for directory in [&bin, &conf, &self.directory.join("fifo")] {
            fs::create_dir_all(directory).map_err(at(directory))?;
        }
        for plugin in plugins {
            let to = bin.join(plugin.file_name().unwrap_or_default());
            fs::copy(plugin, &to).map_err(at(&to))?;
        }
        let list = conf.join("10-isthmus.conflist");
        fs::write(&list, cni::list(config).to_string()).map_err(at(&list))?;
        let file = self.directory.join("config.toml");
        fs::write(&file, self.config()).map_err(at(&file))
    }

    fn config(&self) -> String {
        let directory = self.directory.display();
        let snapshotter = self.snapshotter();
        format!(
            r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{directory}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE the kernel refuses the negative score of a sandbox.
restrict_oom_score_adj = true
disable_apparmor = true
# Network namespaces are found again after a crash where everything else of this containerd is.
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{directory}/plugins"
conf_dir = "{directory}/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
        )
    }

    fn snapshotter(&self) -> &'static str {
        let on_overlay =
            rustix::fs::statfs(&self.directory).is_ok_and(|stat| stat.f_type as u64 == OVERLAYFS_MAGIC);
        let known = fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("overlay"));
        if known && !on_overlay { "overlayfs" } else { "native" }
    }

    /// Starts it in its node's namespace. [`Containerd::wait_ready`] says when it answers.
    pub fn start(&self, name: &str, log: &Path) -> Result<Process, ContainerdError> {
        let call = Call::new("containerd")
            .in_namespace(&self.node)
            .arg("--config")
            .arg(self.directory.join("config.toml"));
        Ok(Process::start(name, &call, log)?)
    }

    /// Waits until it answers and has read the CNI list.
    pub fn wait_ready(&self, process: &Process) -> Result<Cri, ContainerdError> {
        process.wait_ready(READY, || {
            self.socket().exists() && self.connect().is_ok_and(|mut cri| cri.is_ready())
        })?;
        self.connect()
    }

    /// Puts the images of an archive into its store.
    pub fn import(&self, archive: &Path) -> Result<(), CommandError> {
        self.ctr()
            .args(["images", "import", "--snapshotter", self.snapshotter()])
            .arg(archive)
            .run()
            .map(drop)
    }

    /// A run of `arguments` in a container; `name` tells it from others at the same time.
    pub fn exec(&self, container: &str, name: &str, terminal: bool, arguments: &[&str]) -> Call {
        let call = self
            .ctr()
            .args(["tasks", "exec", "--exec-id", name, "--fifo-dir"])
            .arg(self.directory.join("fifo"));
        let call = if terminal { call.arg("--tty") } else { call };
        call.arg(container).args(arguments)
    }

    fn ctr(&self) -> Call {
        Call::new("ctr").arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"])
    }

    /// Opens its CRI.
    pub fn connect(&self) -> Result<Cri, ContainerdError> {
        let at = self.socket();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| ContainerdError::File { path: at.clone(), source })?;
        let away = |source| ContainerdError::Away { socket: at.clone(), source };
        let endpoint = Endpoint::from_shared(format!("unix://{}", at.display())).map_err(away)?;
        let channel = runtime.block_on(endpoint.connect()).map_err(away)?;
        Ok(Cri { runtime, client: RuntimeServiceClient::new(channel), cgroup: self.cgroup.clone() })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// Where it looks for CNI plugins.
    pub fn plugins(&self) -> PathBuf {
        self.directory.join("plugins")
    }
}

/// A connection to one containerd's CRI.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    client: RuntimeServiceClient<Channel>,
    cgroup: String,
}

impl Cri {
    /// Whether the runtime and its network are ready.
    pub fn is_ready(&mut self) -> bool {
        let answer = self.runtime.block_on(self.client.status(StatusRequest { verbose: false }));
        let Some(status) = answer.ok().and_then(|answer| answer.into_inner().status) else { return false };
        !status.conditions.is_empty() && status.conditions.iter().all(|condition| condition.status)
    }

    /// Runs a pod of one container of our image with `arguments`.
    pub fn run_pod(&mut self, pod: &Pod, arguments: &[&str]) -> Result<RunningPod, ContainerdError> {
        let config = self.sandbox_config(pod);
        let what = format!("pod {}/{}", pod.namespace, pod.name);
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let sandbox = self.runtime.block_on(self.client.run_pod_sandbox(request)).map_err(refused(&what))?;
        let sandbox = sandbox.into_inner().pod_sandbox_id;
        let container = self.run_container(&sandbox, config, arguments).map_err(refused(&what))?;
        let (address, netns) = self.network(&sandbox)?;
        Ok(RunningPod { sandbox, container, address, netns })
    }

    fn sandbox_config(&self, pod: &Pod) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                namespace: pod.namespace.clone(),
                attempt: 0,
            }),
            hostname: pod.name.clone(),
            annotations: pod.annotations.clone(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.cgroup),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn run_container(
        &mut self,
        sandbox: &str,
        config: PodSandboxConfig,
        arguments: &[&str],
    ) -> Result<String, tonic::Status> {
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "app".to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: APP_IMAGE.to_owned(), ..Default::default() }),
            args: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let id = self.runtime.block_on(self.client.create_container(request))?.into_inner().container_id;
        let request = StartContainerRequest { container_id: id.clone() };
        self.runtime.block_on(self.client.start_container(request))?;
        Ok(id)
    }

    fn network(&mut self, sandbox: &str) -> Result<(IpAddr, PathBuf), ContainerdError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose: true };
        let answer =
            self.runtime.block_on(self.client.pod_sandbox_status(request)).map_err(refused("a status"))?;
        let answer = answer.into_inner();
        let incomplete = |what| ContainerdError::Incomplete { sandbox: sandbox.to_owned(), what };
        let address = answer.status.and_then(|status| status.network?.ip.parse().ok());
        let info: Value =
            answer.info.get("info").and_then(|info| serde_json::from_str(info).ok()).unwrap_or(json!({}));
        let spaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        let netns =
            spaces.iter().find(|space| space["type"] == "network").and_then(|space| space["path"].as_str());
        Ok((
            address.ok_or_else(|| incomplete("an address"))?,
            netns.ok_or_else(|| incomplete("a network namespace"))?.into(),
        ))
    }

    /// Stops and removes all pods.
    pub fn remove_all(&mut self) -> Result<(), ContainerdError> {
        let list = self.client.list_pod_sandbox(ListPodSandboxRequest { filter: None });
        let pods = self.runtime.block_on(list).map_err(refused("a list of pods"))?.into_inner().items;
        for pod in pods {
            let what = format!("to remove pod {}", pod.id);
            let request = StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
            self.runtime.block_on(self.client.stop_pod_sandbox(request)).map_err(refused(&what))?;
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id };
            self.runtime.block_on(self.client.remove_pod_sandbox(request)).map_err(refused(&what))?;
        }
        Ok(())
    }
}

fn refused(what: &str) -> impl FnOnce(tonic::Status) -> ContainerdError {
    let what = what.to_owned();
    move |status| ContainerdError::Refused { what, status: Box::new(status) }
}
