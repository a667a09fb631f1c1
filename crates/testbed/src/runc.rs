//! Containers made by runc, as Garden's Guardian makes them: the network comes between `create` and `start`.

use crate::{
    command::{Call, CommandError},
    image::{BINARY, Content, ImageError},
    process::Process,
};
use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

/// A runc of its own root directory.
#[derive(Clone, Debug)]
pub struct Runc {
    root: PathBuf,
    cgroup: String,
}

/// A container that runc made.
#[derive(Clone, Debug)]
pub struct RuncContainer {
    /// Its id.
    pub id: String,
    /// Its first process, in the host's numbering.
    pub pid: u32,
}

/// Why a container could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RuncError {
    /// Its files could not be written.
    #[error("cannot write the bundle of {id}: {source}")]
    Bundle {
        /// The container.
        id: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its root file system could not be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// runc failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// runc failed at making it.
    #[error("runc cannot create {id}: {text}")]
    Create {
        /// The container.
        id: String,
        /// The end of its log.
        text: String,
    },
}

impl Runc {
    /// A runc that keeps its state in `root` and its containers' cgroups below `cgroup`.
    pub fn new(root: &Path, cgroup: &str) -> Self {
        Self { root: root.to_owned(), cgroup: cgroup.to_owned() }
    }

    /// Makes a container of our binary with `arguments`; its process waits for [`Runc::start`]. `bundle` becomes its directory.
    pub fn create(
        &self,
        id: &str,
        bundle: &Path,
        content: &Content,
        arguments: &[&str],
    ) -> Result<RuncContainer, RuncError> {
        let file = |source| RuncError::Bundle { id: id.to_owned(), source };
        let rootfs = bundle.join("rootfs");
        fs::create_dir_all(&rootfs).map_err(file)?;
        content.unpack(&rootfs)?;
        fs::write(bundle.join("config.json"), self.spec(id, arguments).to_string()).map_err(file)?;
        let pid_file = bundle.join("pid");
        let log = bundle.join("log");
        let output = fs::File::create(&log).map_err(file)?;
        let errors = output.try_clone().map_err(file)?;
        // The container keeps these descriptors, so they must be files: a pipe would keep us waiting.
        let status = self
            .call("create")
            .arg("--bundle")
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(id)
            .command()
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .map_err(file)?;
        let pid = fs::read_to_string(&pid_file).ok().and_then(|pid| pid.trim().parse().ok());
        match (status.success(), pid) {
            (true, Some(pid)) => Ok(RuncContainer { id: id.to_owned(), pid }),
            _ => Err(RuncError::Create { id: id.to_owned(), text: crate::process::tail(&log) }),
        }
    }

    /// Lets its process run.
    pub fn start(&self, id: &str) -> Result<(), CommandError> {
        self.call("start").arg(id).run().map(drop)
    }

    /// Ends and removes a container; one that is not there is fine.
    pub fn delete(&self, id: &str) -> Result<(), CommandError> {
        self.call("delete").args(["--force", id]).run().map(drop)
    }

    /// A run of `arguments` inside the container.
    pub fn exec(&self, id: &str, terminal: bool, arguments: &[&str]) -> Call {
        let call = self.call("exec");
        let call = if terminal { call.arg("--tty") } else { call };
        call.arg(id).args(arguments)
    }

    /// The container's first process as one to be watched.
    pub fn process(container: &RuncContainer, bundle: &Path) -> Option<Process> {
        Process::adopt(&container.id, container.pid, &bundle.join("log"))
    }

    fn call(&self, command: &str) -> Call {
        Call::new("runc").arg("--root").arg(&self.root).arg(command)
    }

    fn spec(&self, id: &str, arguments: &[&str]) -> Value {
        let entry: Vec<_> = std::iter::once(BINARY).chain(arguments.iter().copied()).collect();
        let capabilities = ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"];
        json!({
            "ociVersion": "1.0.2",
            "hostname": id,
            "root": {"path": "rootfs", "readonly": true},
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": entry, "env": ["PATH=/bin"],
                "noNewPrivileges": true,
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=16m"]}],
            "linux": {
                "cgroupsPath": format!("/{}/{id}", self.cgroup),
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]}
        })
    }
}
