//! One container of the demo: how its platform starts it, runs commands in it, and removes it.

use super::{
    CGROUP, RUN,
    plan::{Instance, Node, Platform, uuid},
    record::node_directory,
};
use crate::{
    app::HTTP_PORT,
    cni,
    command::Call,
    containerd::{Containerd, Pod},
    garden::{AppInstance, Networker},
    image::{BINARY, Content},
    nomad::Allocation,
    process::Process,
    runc::Runc,
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// A container that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Container {
    /// What it is.
    pub(super) instance: Instance,
    /// Its address.
    pub(super) address: IpAddr,
    /// Its network namespace.
    pub(super) netns: PathBuf,
    /// Its id: of the container, Garden's handle, or the allocation.
    pub(super) id: String,
    /// Its process, where no runtime looks after it.
    pub(super) task: Option<Process>,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) isthmus: PathBuf,
    pub(super) cni: PathBuf,
    pub(super) garden: PathBuf,
    pub(super) content: Content,
}

/// The agent's socket for adapters on a node.
pub(super) fn adapter_socket(node: &str) -> PathBuf {
    crate::daemon::adapter_socket(&node_directory(node))
}

pub(super) fn containerd(node: &Node) -> Containerd {
    Containerd::new(&node_directory(&node.name).join("containerd"), &node.namespace().path(), CGROUP)
}

pub(super) fn runc(node: &Node) -> Runc {
    Runc::new(&node_directory(&node.name).join("runc"), CGROUP)
}

/// Where the CNI plugins of a Nomad client are.
pub(super) fn plugins(node: &Node) -> PathBuf {
    node_directory(&node.name).join("plugins")
}

pub(super) fn networker(node: &Node, program: &Path) -> Networker {
    let config = node_directory(&node.name).join("garden.json");
    Networker { node: node.namespace().path(), program: program.to_owned(), config }
}

pub(super) fn allocation(instance: &Instance) -> Allocation {
    Allocation {
        id: instance.uuid().to_string(),
        namespace: instance.group.clone(),
        job: instance.app.clone(),
        group: instance.app.clone(),
    }
}

/// Starts a container as its platform does.
pub(super) fn start(instance: &Instance, node: &Node, programs: &Programs) -> anyhow::Result<Container> {
    let started = match node.cluster().platform {
        Platform::Kubernetes => start_pod(instance, node),
        Platform::CloudFoundry => start_app(instance, node, programs),
        Platform::Nomad => start_allocation(instance, node, programs),
    };
    started.with_context(|| format!("cannot start {} on {}", instance.full_name(), node.name))
}

fn start_pod(instance: &Instance, node: &Node) -> anyhow::Result<Container> {
    let annotations = HashMap::from([
        ("isthmus.dev/app".to_owned(), instance.app.clone()),
        ("isthmus.dev/labels".to_owned(), format!("app={},team={}", instance.app, instance.group)),
    ]);
    let pod = Pod {
        namespace: instance.group.clone(),
        name: instance.name.clone(),
        uid: instance.uuid().to_string(),
        annotations,
    };
    let running = containerd(node).connect()?.run_pod(&pod, &["--name", &instance.app])?;
    Ok(Container {
        instance: instance.clone(),
        address: running.address,
        netns: running.netns,
        id: running.container,
        task: None,
    })
}

fn start_app(instance: &Instance, node: &Node, programs: &Programs) -> anyhow::Result<Container> {
    let (organization, space) = instance.group.split_once('/').unwrap_or(("acme", &instance.group));
    let handle = instance.uuid().to_string();
    let app = AppInstance {
        handle: handle.clone(),
        app: instance.app_guid().to_string(),
        space: uuid(&instance.group).to_string(),
        organization: uuid(organization).to_string(),
        names: [instance.app.clone(), space.to_owned(), organization.to_owned()],
        index: instance.index,
        ports: vec![HTTP_PORT],
    };
    let bundle = node_directory(&node.name).join("bundles").join(&instance.name);
    let runc = runc(node);
    let arguments = ["demo-app", "serve", "--name", &instance.app];
    let container = runc.create(&handle, &bundle, &programs.content, &arguments)?;
    let networked = networker(node, &programs.garden).up(&app, container.pid)?;
    runc.start(&handle)?;
    let netns = format!("/proc/{}/ns/net", container.pid).into();
    Ok(Container { instance: instance.clone(), address: networked.address, netns, id: handle, task: None })
}

fn start_allocation(instance: &Instance, node: &Node, programs: &Programs) -> anyhow::Result<Container> {
    let allocation = allocation(instance);
    let config = cni::isthmus_config(&instance.cluster, &adapter_socket(&node.name));
    let address = allocation.attach(node.namespace().path(), plugins(node), &config)?;
    let log = Path::new(RUN).join("logs").join(format!("{}.log", instance.name));
    let call = allocation.task(&programs.isthmus).args(["demo-app", "serve", "--name", &instance.app]);
    let task = Process::start(&instance.name, &call, &log)?;
    Ok(Container {
        instance: instance.clone(),
        address,
        netns: allocation.netns().path(),
        id: allocation.id,
        task: Some(task),
    })
}

impl Container {
    /// A run of `arguments` inside the container, by the platform's own means. `name` tells it from others at the time.
    pub(super) fn exec(&self, node: &Node, name: &str, terminal: bool, arguments: &[&str]) -> Call {
        match node.cluster().platform {
            Platform::Kubernetes => containerd(node).exec(&self.id, name, terminal, arguments),
            Platform::CloudFoundry => runc(node).exec(&self.id, terminal, arguments),
            Platform::Nomad => {
                let (program, rest) = arguments.split_first().unwrap_or((&"true", &[]));
                allocation(&self.instance).task(program).args(rest)
            }
        }
    }

    /// Where our binary is for a process in the container.
    pub(super) fn client_binary<'a>(&self, binary: &'a Path) -> Cow<'a, str> {
        // A Nomad task of the exec driver sees the host's files; the others have the binary in their image.
        match self.instance.cluster().platform {
            Platform::Nomad => binary.to_string_lossy(),
            _ => BINARY.into(),
        }
    }

    /// A run of the demo's own client inside the container.
    pub(super) fn client(&self, node: &Node, binary: &Path, name: &str, arguments: &[&str]) -> Call {
        let binary = self.client_binary(binary);
        let words: Vec<_> = [&*binary, "demo-app"].into_iter().chain(arguments.iter().copied()).collect();
        self.exec(node, name, false, &words)
    }

    /// Removes it as its platform does. Containers of Kubernetes go with their containerd.
    pub(super) fn remove(&self, node: &Node, garden: &Path) -> anyhow::Result<()> {
        match node.cluster().platform {
            Platform::Kubernetes => {}
            Platform::CloudFoundry => {
                runc(node).delete(&self.id)?;
                networker(node, garden).down(&self.id)?;
            }
            Platform::Nomad => {
                self.task.as_ref().map_or(Ok(()), Process::stop)?;
                let config = cni::isthmus_config(&self.instance.cluster, &adapter_socket(&node.name));
                allocation(&self.instance).detach(node.namespace().path(), plugins(node), &config)?;
            }
        }
        Ok(())
    }

    /// Whether it answers HTTP to its own node.
    pub(super) fn answers(&self, node: &Node, binary: &Path) -> bool {
        let url = format!("http://{}:{HTTP_PORT}/", self.address);
        let get = node.namespace().call(binary).args(["demo-app", "get", &url, "--timeout-ms", "1000"]);
        get.run().is_ok_and(|text| text.contains(&format!("\"app\":\"{}\"", self.instance.app)))
    }
}
