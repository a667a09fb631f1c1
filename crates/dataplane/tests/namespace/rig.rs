//! Two nodes on an underlay, as network namespaces, each with a dataplane; containers as more namespaces.
//!
//! Everything is removed when the rig is dropped, also after a failed test, and `Rig::finish` checks that nothing is left.
#![allow(dead_code, missing_docs, reason = "a rig of tests, of which not all is used yet")]
#![expect(clippy::unwrap_used, reason = "a rig of tests")]

use isthmus_core::{DefaultVerdict, DenyAnswer, Identity, PortMatch};
use isthmus_dataplane::{
    AttachMode, BlockEntry, Dataplane, Event, EventReader, Limits, Link, LinkRequest, Network, NodeEntry,
    Options, Table, TableRule,
};
use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

static RIGS: AtomicU32 = AtomicU32::new(0);

/// How long anything may take that works at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for what must not happen.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

pub(crate) fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs `f` on a thread inside a network namespace.
pub(crate) fn inside<T: Send>(namespace: &str, f: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::scope(|scope| {
        let running = scope.spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).unwrap();
            f()
        });
        match running.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

pub(crate) fn identity(number: u32) -> Identity {
    Identity::new(number).unwrap()
}

pub(crate) struct Node {
    pub(crate) number: u32,
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) block: ipnet::Ipv4Net,
    pub(crate) options: Options,
    pub(crate) dataplane: Option<Dataplane>,
    pub(crate) events: Option<EventReader>,
}

pub(crate) struct Container {
    pub(crate) namespace: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) identity: Identity,
    pub(crate) node: usize,
    pub(crate) link: Link,
}

pub(crate) struct Rig {
    prefix: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) containers: Vec<Container>,
    namespaces: Vec<String>,
    bpffs: PathBuf,
    /// What [`Rig::network`] says beside nodes and blocks.
    pub(crate) rest: Network,
}

impl Rig {
    /// `count` nodes at 192.0.2.1…, blocks 10.64.0.0/26, 10.64.0.64/26….
    pub(crate) fn new(count: u32, mode: AttachMode) -> Self {
        Self::with_mtu(count, mode, 1500)
    }

    pub(crate) fn with_mtu(count: u32, mode: AttachMode, mtu: u32) -> Self {
        let serial = RIGS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("dp{}-{serial}", std::process::id());
        let bpffs = PathBuf::from(format!("/sys/fs/bpf/isthmus-test-{prefix}"));
        let mut rig = Self {
            prefix,
            nodes: Vec::new(),
            containers: Vec::new(),
            namespaces: Vec::new(),
            bpffs,
            rest: Network { pools: vec!["10.64.0.0/16".parse().unwrap()], ..Network::default() },
        };
        let underlay = rig.namespace("u");
        sh(&format!(
            "ip -n {underlay} link add br0 type bridge && ip -n {underlay} link set br0 mtu {mtu} up && ip -n {underlay} address add 192.0.2.254/24 dev br0"
        ));
        for number in 1..=count {
            let namespace = rig.namespace(&format!("n{number}"));
            let address = Ipv4Addr::new(192, 0, 2, number as u8);
            sh(&format!(
                "ip -n {namespace} link add eth0 mtu {mtu} type veth peer name p{number} netns {underlay} mtu {mtu} && \
                 ip -n {underlay} link set p{number} master br0 up && \
                 ip -n {namespace} address add {address}/24 dev eth0 && ip -n {namespace} link set eth0 up && \
                 ip -n {namespace} route add default via 192.0.2.254"
            ));
            rig.open_node(namespace, number, address, mode);
        }
        rig.set_network();
        rig
    }

    pub(crate) fn namespace(&mut self, name: &str) -> String {
        let namespace = format!("{}{name}", self.prefix);
        sh(&format!("ip netns add {namespace} && ip -n {namespace} link set lo up"));
        self.namespaces.push(namespace.clone());
        namespace
    }

    /// The namespace of the underlay, which stands for the outside: 192.0.2.254.
    pub(crate) fn underlay(&self) -> String {
        format!("{}u", self.prefix)
    }

    /// A node behind a router (the underlay's namespace) of its own link: 198.51.100.NUMBER.
    pub(crate) fn add_routed_node(&mut self, number: u32, mode: AttachMode) -> usize {
        let (namespace, underlay) = (self.namespace(&format!("n{number}")), self.underlay());
        let address = Ipv4Addr::new(198, 51, 100, number as u8);
        sh(&format!(
            "ip -n {namespace} link add eth0 type veth peer name p{number} netns {underlay} && \
             ip -n {underlay} address add 198.51.100.254/24 dev p{number} && ip -n {underlay} link set p{number} up && \
             ip -n {namespace} address add {address}/24 dev eth0 && ip -n {namespace} link set eth0 up && \
             ip -n {namespace} route add default via 198.51.100.254 && \
             ip netns exec {underlay} sysctl -qw net.ipv4.ip_forward=1"
        ));
        self.open_node(namespace, number, address, mode);
        self.set_network();
        self.nodes.len() - 1
    }

    fn open_node(&mut self, namespace: String, number: u32, address: Ipv4Addr, mode: AttachMode) {
        let options = Options {
            node: format!("n{number}").parse().unwrap(),
            bpffs: self.bpffs.clone(),
            tunnel_address: address.into(),
            vxlan_port: 4789,
            attach_mode: mode,
            mtu: None,
            limits: Limits {
                connections_tcp: 4096,
                connections_other: 4096,
                policy_entries: 65536,
                ..Limits::default()
            },
        };
        let dataplane = inside(&namespace, || Dataplane::open(options.clone()).unwrap());
        let events = dataplane.events().unwrap();
        let block = format!("10.64.0.{}/26", (number - 1) * 64).parse().unwrap();
        self.nodes.push(Node {
            number,
            namespace,
            address,
            block,
            options,
            dataplane: Some(dataplane),
            events: Some(events),
        });
    }

    pub(crate) fn network(&self) -> Network {
        Network {
            nodes: self
                .nodes
                .iter()
                .map(|node| NodeEntry { number: node.number, addresses: vec![node.address.into()] })
                .collect(),
            blocks: self
                .nodes
                .iter()
                .map(|node| BlockEntry { block: node.block.into(), node: node.number })
                .collect(),
            ..self.rest.clone()
        }
    }

    pub(crate) fn set_network(&self) {
        let network = self.network();
        for index in 0..self.nodes.len() {
            self.on(index, |dataplane| dataplane.set_network(&network).unwrap());
        }
    }

    /// Calls the dataplane of a node in its namespace.
    pub(crate) fn on<T: Send>(&self, node: usize, f: impl FnOnce(&Dataplane) -> T + Send) -> T {
        let node = &self.nodes[node];
        let dataplane = node.dataplane.as_ref().unwrap();
        inside(&node.namespace, || f(dataplane))
    }

    /// A second start of the node's dataplane, as after a crash of the agent.
    pub(crate) fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.events = None;
        // Forgotten, not dropped: as `kill -9` does.
        std::mem::forget(node.dataplane.take());
        let options = node.options.clone();
        let started = Instant::now();
        let dataplane = inside(&node.namespace, || Dataplane::open(options).unwrap());
        println!("opened again in {:?}", started.elapsed());
        node.events = Some(dataplane.events().unwrap());
        node.dataplane = Some(dataplane);
    }

    /// Adds a container with an identity; its table must be set.
    pub(crate) fn container(&mut self, node: usize, number: u32) -> usize {
        let index = self.containers.len();
        let namespace = self.namespace(&format!("c{index}"));
        let base = u32::from(self.nodes[node].block.network());
        let address = Ipv4Addr::from(base + 2 + index as u32);
        let request = LinkRequest {
            host_interface: format!("istc{index}"),
            interface: "eth0".into(),
            address: address.into(),
            mac: None,
            identity: identity(number),
        };
        let netns = File::open(format!("/run/netns/{namespace}")).unwrap();
        let link = self.on(node, |dataplane| dataplane.attach(netns.as_fd(), &request).unwrap());
        self.containers.push(Container { namespace, address, identity: identity(number), node, link });
        index
    }

    pub(crate) fn table(
        &self,
        node: usize,
        to: u32,
        default: DefaultVerdict,
        answer: DenyAnswer,
        rules: &[(u32, &str)],
    ) {
        let rules = rules.iter().enumerate().map(|(index, (from, port))| TableRule {
            peer: identity(*from),
            port: port.parse::<PortMatch>().unwrap(),
            deny: false,
            precedence: 100,
            number: index as u32 + 1,
        });
        let table = Table { identity: identity(to), default, answer, rules: rules.collect() };
        self.on(node, |dataplane| dataplane.set_table(&table).unwrap());
    }

    /// Two nodes, a container 300 on the first, 400 on the second and 500 on the first, all open.
    pub(crate) fn open_trio(mode: AttachMode) -> Self {
        let mut rig = Self::new(2, mode);
        for node in 0..2 {
            for to in [300, 400, 500] {
                rig.table(node, to, DefaultVerdict::Open, DenyAnswer::Drop, &[]);
            }
        }
        rig.container(0, 300);
        rig.container(1, 400);
        rig.container(0, 500);
        rig
    }

    pub(crate) fn address(&self, container: usize) -> IpAddr {
        self.containers[container].address.into()
    }

    pub(crate) fn ns(&self, container: usize) -> &str {
        &self.containers[container].namespace
    }

    #[expect(clippy::unused_self, reason = "reads like the rig's other steps")]
    pub(crate) fn ping(&self, from: &str, to: IpAddr) -> bool {
        Command::new("ip")
            .args(["netns", "exec", from, "ping", "-c1", "-W1", &to.to_string()])
            .output()
            .unwrap()
            .status
            .success()
    }

    /// Verdicts of a node so far.
    pub(crate) fn events(&mut self, node: usize) -> Vec<Event> {
        self.nodes[node].events.as_mut().unwrap().collect()
    }

    /// Waits for a verdict on a node.
    pub(crate) fn wait_event(&mut self, node: usize, what: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            for event in self.events(node) {
                if what(&event) {
                    return event;
                }
                seen.push(event);
            }
            thread::yield_now();
        }
        panic!("no such verdict among {seen:#?}");
    }

    pub(crate) fn counter(&self, node: usize, reason: &str) -> u64 {
        let counters = self.on(node, |dataplane| dataplane.counters().unwrap());
        counters.into_iter().find(|(name, _)| *name == reason).unwrap().1
    }

    /// Removes all, and checks that nothing of the dataplane was left in the node namespaces.
    pub(crate) fn finish(self) {
        for node in &self.nodes {
            let report =
                inside(&node.namespace, || isthmus_dataplane::cleanup(&self.bpffs, &node.options.node));
            assert_eq!(report.failed, Vec::<String>::new());
            let links = output(&format!("ip -n {} -o link", node.namespace));
            assert!(!links.contains(" ist"), "{links}");
            let rules = output(&format!("ip netns exec {} nft list ruleset", node.namespace));
            assert!(rules.trim().is_empty(), "{rules}");
            let routes = output(&format!("ip -n {} route show proto 98", node.namespace));
            assert!(routes.trim().is_empty(), "{routes}");
        }
        assert!(!self.bpffs.exists(), "pins are left in {}", self.bpffs.display());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.events = None;
            node.dataplane = None;
            if self.bpffs.exists() {
                let _ =
                    inside(&node.namespace, || isthmus_dataplane::cleanup(&self.bpffs, &node.options.node));
            }
        }
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
        }
    }
}

/// A TCP server in a namespace that answers each line with the same line, until dropped.
pub(crate) struct Echo {
    address: SocketAddr,
    namespace: String,
}

impl Echo {
    pub(crate) fn start(namespace: &str, address: IpAddr, port: u16) -> Self {
        let address = SocketAddr::new(address, port);
        let listener = inside(namespace, || TcpListener::bind(address).unwrap());
        let udp = inside(namespace, || UdpSocket::bind(address).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || echo(stream));
            }
        });
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..length], peer);
            }
        });
        Self { address, namespace: namespace.to_owned() }
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 65536];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 || stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Opens a connection from a namespace.
pub(crate) fn connect(
    namespace: &str,
    to: IpAddr,
    port: u16,
    patience: Duration,
) -> std::io::Result<TcpStream> {
    inside(namespace, || {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(to, port), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// Whether a connection carries bytes both ways.
pub(crate) fn carries(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut buffer).is_ok() && &buffer == b"hello"
}

/// Sends a datagram and waits for its echo.
pub(crate) fn udp_echo(
    namespace: &str,
    to: IpAddr,
    port: u16,
    payload: &[u8],
    patience: Duration,
) -> std::io::Result<usize> {
    UdpEcho::connect(namespace, to, port).echo(payload, patience)
}

/// Datagrams that come back, from one port.
pub(crate) struct UdpEcho(UdpSocket);

impl UdpEcho {
    pub(crate) fn connect(namespace: &str, to: IpAddr, port: u16) -> Self {
        inside(namespace, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(SocketAddr::new(to, port)).unwrap();
            Self(socket)
        })
    }

    pub(crate) fn echo(&self, payload: &[u8], patience: Duration) -> std::io::Result<usize> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.send(payload)?;
        self.0.recv(&mut vec![0; 65536])
    }

    pub(crate) fn carries(&self, patience: Duration) -> bool {
        self.echo(b"hello", patience).is_ok()
    }
}
