//! The messages between the thin adapters (CNI, Garden) and the agent, on a root-only Unix stream socket.
//!
//! A frame is a length (4 bytes, big-endian, at most [`FRAME_BYTES_MAX`]) and that much JSON. A connection carries one
//! request and one response. The network namespace of the container comes along as one descriptor (`SCM_RIGHTS`) with
//! the first byte of the frame, because a path means different things in different mount namespaces.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

/// Version of the messages; both sides send it, and each refuses another major version.
pub const VERSION: u32 = 1;
/// Largest frame. A longer one is refused before it is read.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Where the agent listens unless told otherwise.
pub const SOCKET: &str = "/run/isthmus/adapter.sock";

/// What an adapter sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What to do.
    pub body: RequestBody,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum RequestBody {
    /// Put a container on the network. Needs the namespace's descriptor.
    Attach(Box<Attach>),
    /// Take it off again. Succeeds when there is nothing.
    Detach(AttachmentKey),
    /// Is it as it was made?
    Check(Check),
    /// Detach everything of `runtime` and `network` that is not in `valid`.
    Collect(Collect),
    /// Could an attach succeed now?
    Status {
        /// The cluster that would be attached to; empty: the node's only one.
        cluster: String,
    },
}

/// What one attachment is known by, for good: DEL comes with nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentKey {
    /// Who runs the container: `cni:NETWORK` or `garden`.
    pub runtime: String,
    /// The container's id as the runtime says it.
    pub container: String,
    /// Name of the interface inside.
    pub interface: String,
}

/// Puts a container on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attach {
    /// What it is known by.
    pub key: AttachmentKey,
    /// Cluster; empty: the node's only one.
    pub cluster: String,
    /// What it is an instance of.
    pub workload: Workload,
    /// What people call the instance: the pod's name, the container's.
    pub instance: String,
    /// Addresses that must be given, or the attach refused.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// MAC address that must be given, or the attach refused.
    #[serde(default)]
    pub mac: Option<String>,
    /// Ports of the node that lead into the container.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
}

/// Where a workload's name and labels come from is the adapter's affair; this is what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The platform's own id of the app, or its path of names: never changes.
    pub id: String,
    /// Namespace, or organization and space; may be empty.
    pub group: String,
    /// Name within the group.
    pub app: String,
    /// Labels that policies may select on.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A port of the node that leads into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Address of the node; absent: all.
    #[serde(default)]
    pub host_ip: Option<IpAddr>,
    /// Port of the node; 0: the agent chooses one, as Garden asks for.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// Asks whether an attachment is as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What it is known by.
    pub key: AttachmentKey,
    /// Addresses that it must have.
    pub addresses: Vec<IpAddr>,
}

/// Names the attachments that a runtime still has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collect {
    /// As in [`AttachmentKey`].
    pub runtime: String,
    /// Container id and interface of each that stays.
    pub valid: Vec<(String, String)>,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// [`VERSION`].
    pub version: u32,
    /// The answer.
    pub body: ResponseBody,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "did")]
pub enum ResponseBody {
    /// The container is on the network, and what policy forbids is forbidden.
    Attached(Attached),
    /// Done.
    Done,
    /// Not done; nothing was left behind.
    Failed(Failure),
}

/// What a container got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// Host side of the veth pair.
    pub host_interface: String,
    /// MAC address of the host side.
    pub host_mac: String,
    /// MAC address inside.
    pub mac: String,
    /// Address inside, a /32 or /128.
    pub addresses: Vec<IpAddr>,
    /// Next hop of the default route, link-local.
    pub gateway: IpAddr,
    /// MTU inside.
    pub mtu: u32,
    /// UUID of the workload.
    pub workload: String,
    /// Address of the node that mapped ports are reached at.
    pub node_address: IpAddr,
    /// Port mappings, each with its port of the node.
    pub port_mappings: Vec<PortMapping>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What, where, why.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// What kind of failure; adapters turn it into their platform's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The same call may succeed later: the server is away, the pool is exhausted for now.
    TryAgain,
    /// The call can never succeed as it is.
    Invalid,
    /// There is no such attachment.
    Unknown,
    /// An attachment is not as it was made.
    Differs,
    /// The node cannot serve anybody now.
    Unavailable,
    /// The kernel or the disk refused.
    System,
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error(
        "the Isthmus agent does not answer on {socket}: is isthmus-agent running on this node? ({source})"
    )]
    Away {
        /// The socket's path.
        socket: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or took too long.
    #[error("the Isthmus agent gave no answer within {} s ({source})", timeout.as_secs())]
    Broken {
        /// How long was waited.
        timeout: Duration,
        /// What the system said.
        source: io::Error,
    },
    /// Another version.
    #[error(
        "the Isthmus agent speaks version {theirs} of the adapters' protocol, this program {VERSION}: upgrade the older"
    )]
    Version {
        /// The agent's.
        theirs: u32,
    },
}

/// Calls the agent: one request, one response. `netns` goes along as a descriptor.
///
/// # Errors
///
/// [`CallError`]; after [`CallError::Broken`] the agent may have done what was asked, so detach.
pub fn call(
    socket: &Path,
    body: RequestBody,
    netns: Option<BorrowedFd<'_>>,
    timeout: Duration,
) -> Result<ResponseBody, CallError> {
    let away = |source| CallError::Away { socket: socket.display().to_string(), source };
    let broken = |source| CallError::Broken { timeout, source };
    let mut stream = UnixStream::connect(socket).map_err(away)?;
    stream.set_read_timeout(Some(timeout)).map_err(broken)?;
    stream.set_write_timeout(Some(timeout)).map_err(broken)?;
    write_frame(&mut stream, &Request { version: VERSION, body }, netns).map_err(broken)?;
    let (response, _descriptor): (Response, _) = read_frame(&stream).map_err(broken)?;
    if response.version != VERSION {
        return Err(CallError::Version { theirs: response.version });
    }
    Ok(response.body)
}

/// Writes one frame, with a descriptor if given.
pub fn write_frame<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length as usize <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("message of {} bytes is too long", json.len()))
    })?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let header = length.to_be_bytes();
    let sent = rustix::net::sendmsg(&*stream, &[IoSlice::new(&header)], &mut ancillary, SendFlags::NOSIGNAL)?;
    stream.write_all(&header[sent..])?;
    stream.write_all(&json)
}

/// Reads one frame, and the descriptor that came with it.
pub fn read_frame<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut header = [0; 4];
    let (read, descriptor) = receive(stream, &mut header)?;
    let mut reader = stream;
    reader.read_exact(&mut header[read..])?;
    let length = u32::from_be_bytes(header) as usize;
    if length > FRAME_BYTES_MAX {
        let text = format!("frame of {length} bytes is longer than {FRAME_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut json = vec![0; length];
    reader.read_exact(&mut json)?;
    Ok((serde_json::from_slice(&json)?, descriptor))
}

fn receive(stream: &UnixStream, header: &mut [u8; 4]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(header)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut descriptors| descriptors.next());
    Ok((received.bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsRawFd};

    fn request() -> Request {
        let key =
            AttachmentKey { runtime: "cni:isthmus".into(), container: "c1".into(), interface: "eth0".into() };
        Request { version: VERSION, body: RequestBody::Detach(key) }
    }

    #[test]
    fn a_frame_and_its_descriptor_arrive() {
        let (mut left, right) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        write_frame(&mut left, &request(), Some(file.as_fd())).unwrap();
        let (read, descriptor): (Request, _) = read_frame(&right).unwrap();
        assert_eq!(read, request());
        assert!(descriptor.is_some_and(|descriptor| descriptor.as_raw_fd() != file.as_raw_fd()));
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_read() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(read_frame::<Request>(&right).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_peer_that_leaves_is_an_end_of_file() {
        let (left, right) = UnixStream::pair().unwrap();
        drop(left);
        assert_eq!(read_frame::<Request>(&right).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_absent_agent_is_named_with_its_socket() {
        let error =
            call(Path::new("/nonexistent/a.sock"), request().body, None, Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/a.sock"), "{error}");
    }
}
