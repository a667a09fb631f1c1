//! The agent's place on the host: its lock, its sockets, its address, and the supervisor that started it.

use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::{SocketAddr as UnixAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::net::UnixListener;

/// How long a lock that somebody holds is waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(1_500);
/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Group of people who may ask the agent.
const GROUP: &str = "isthmus";

/// Why this agent may not run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another one does.
    #[error(
        "error[ISE-0504]: another agent (process {pid}) runs on this node: it holds {path}; stop it, or give this one a run_dir of its own on another node"
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Its process id, as it wrote it.
        pid: String,
    },
    /// The file.
    #[error("the lock {path} cannot be taken: {source}")]
    File {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes sure that one agent runs on a node. Held until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock and writes the process id into it.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut file = options.open(path).map_err(failed)?;
        match flock_patiently(&file) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut pid);
                return Err(LockError::Held { path: path.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Takes the lock of a file. A killed process holds its locks until the kernel has taken it apart, which its supervisor
/// does not wait for; so this waits a moment for whoever holds it.
fn flock_patiently(file: &File) -> rustix::io::Result<()> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            outcome => return outcome,
        }
    }
}

/// Listens on a Unix socket with the given mode; a socket that a dead agent left is removed (the lock is held).
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    if mode & 0o070 != 0
        && let Some(group) = group_number(&fs::read_to_string("/etc/group").unwrap_or_default())
    {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    Ok(listener)
}

/// The number of our group in `group(5)`.
fn group_number(groups: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.first() == Some(&GROUP)).and_then(|fields| fields.get(2)?.parse().ok())
}

/// The address that this host uses towards the server. Nothing is sent.
pub(crate) fn source_address(server: &str) -> io::Result<IpAddr> {
    let server = server.to_socket_addrs()?.next();
    let server = server.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.local_addr().map(|address| address.ip())
}

/// Tells the supervisor something (`sd_notify(3)`), if there is one that listens.
pub(crate) fn notify(socket: Option<&std::ffi::OsStr>, state: &str) {
    let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(socket, state) {
        tracing::warn!(%error, "the supervisor cannot be told that the agent is ready");
    }
}

fn send(socket: &std::ffi::OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::from_abstract_name(name)?,
        None => UnixAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_first_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.pid");
        let first = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err().to_string();
        assert!(error.contains("ISE-0504") && error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        assert!(Lock::take(&path).is_ok());
    }

    #[test]
    fn the_supervisor_hears_that_the_agent_is_ready() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        notify(Some(path.as_os_str()), "READY=1");
        let mut heard = [0; 32];
        let count = supervisor.recv(&mut heard).unwrap();
        assert_eq!(&heard[..count], b"READY=1");
        notify(None, "READY=1");
    }

    #[test]
    fn the_way_to_loopback_has_a_loopback_address() {
        assert!(source_address("127.0.0.1:7443").unwrap().is_loopback());
        assert!(source_address("nonsense").is_err());
    }

    #[test]
    fn our_group_is_found_among_others() {
        assert_eq!(group_number("root:x:0:\nisthmus:x:987:anna\n"), Some(987));
        assert_eq!(group_number("root:x:0:\n"), None);
    }

    #[tokio::test]
    async fn a_socket_that_was_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        drop(listen(&path, 0o600).unwrap());
        assert!(path.exists());
        listen(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
