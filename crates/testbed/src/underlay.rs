//! The wire between the nodes: a bridge in a namespace of its own, a veth pair to each node, and one to the host.
//!
//! All of it lives in namespaces but one interface, through which the server and the CLI on the host reach the nodes.

use crate::{
    command::{Call, CommandError},
    namespace::Namespace,
};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Ranges for the nodes' addresses; the first that the host does not use already is taken.
const RANGES: [&str; 4] = ["10.200.0.0/24", "10.201.0.0/24", "172.31.200.0/24", "198.18.200.0/24"];
/// The bridge in the underlay's namespace.
const BRIDGE: &str = "bridge";
/// Name of a node's interface to the underlay.
pub const UPLINK: &str = "eth0";

/// Why the underlay could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// All ranges are taken.
    #[error("the host has routes into all of {}: none is left for the demo's nodes", RANGES.join(", "))]
    NoRange,
    /// The kernel refused.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// The wire.
#[derive(Clone, Debug)]
pub struct Underlay {
    namespace: Namespace,
    range: Ipv4Net,
    host_link: String,
}

impl Underlay {
    /// The underlay in `namespace`, with nodes in `range`, seen by the host as the interface `host_link`.
    pub fn new(namespace: Namespace, range: Ipv4Net, host_link: &str) -> Self {
        Self { namespace, range, host_link: host_link.to_owned() }
    }

    /// Makes the bridge and the host's way in. What exists stays.
    pub fn create(&self) -> Result<(), CommandError> {
        self.namespace.create()?;
        // No router solicitations between the packets that a capture shows.
        self.namespace.sysctl("ipv6.conf.all.disable_ipv6", "1")?;
        self.namespace.sysctl("ipv6.conf.default.disable_ipv6", "1")?;
        self.namespace.ip(&format!("link add {BRIDGE} type bridge"))?;
        self.namespace.ip(&format!("link set {BRIDGE} up"))?;
        let (link, name) = (&self.host_link, self.namespace.name());
        let ip = |line: String| Call::new("ip").words(&line).run();
        ip(format!("link add {link} type veth peer name host netns {name}"))?;
        ip(format!("address add {}/{} dev {link}", self.host_address(), self.range.prefix_len()))?;
        ip(format!("link set {link} up"))?;
        self.plug("host")
    }

    /// Joins `node`'s namespace to the wire; `number` from 1 gives the last part of its address.
    pub fn join(&self, node: &Namespace, port: &str, number: u8) -> Result<Ipv4Addr, CommandError> {
        let address = self.address(number);
        let name = node.name();
        self.namespace.ip(&format!("link add {port} type veth peer name {UPLINK} netns {name}"))?;
        self.plug(port)?;
        node.ip(&format!("address add {address}/{} dev {UPLINK}", self.range.prefix_len()))?;
        node.ip(&format!("link set {UPLINK} up"))?;
        node.ip(&format!("route replace default via {}", self.host_address()))?;
        Ok(address)
    }

    fn plug(&self, port: &str) -> Result<(), CommandError> {
        self.namespace.ip(&format!("link set {port} master {BRIDGE}"))?;
        self.namespace.ip(&format!("link set {port} up")).map(drop)
    }

    /// The host's address on the wire.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + 1)
    }

    /// Address of the node with a number from 1.
    pub fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + 10 + u32::from(number))
    }

    /// Its range.
    pub fn range(&self) -> Ipv4Net {
        self.range
    }

    /// Its namespace, where all packets between nodes can be seen.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// The first of the ranges that the host has no route into.
pub fn free_range() -> Result<Ipv4Net, UnderlayError> {
    let routes = Call::new("ip").words("-4 route show table all").run()?;
    first_free(&routes).ok_or(UnderlayError::NoRange)
}

/// The first range that overlaps with no destination of `routes`, as `ip route` prints them; default routes do not count.
fn first_free(routes: &str) -> Option<Ipv4Net> {
    let words = routes.lines().flat_map(|line| line.split_whitespace().take(2));
    let taken: Vec<Ipv4Net> =
        words.filter_map(|word| word.parse().ok().or_else(|| host_route(word))).collect();
    RANGES.iter().filter_map(|range| range.parse::<Ipv4Net>().ok()).find(|range| {
        taken
            .iter()
            .filter(|net| net.prefix_len() > 0)
            .all(|net| !net.contains(range) && !range.contains(net))
    })
}

fn host_route(word: &str) -> Option<Ipv4Net> {
    word.parse::<Ipv4Addr>().ok().map(Ipv4Net::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(routes: &str, expected: Option<&str>) {
        assert_eq!(first_free(routes), expected.map(|range| range.parse().unwrap()), "{routes}");
    }

    #[test]
    fn a_range_that_the_host_uses_is_not_taken() {
        check("default via 192.0.2.1 dev eth0\n192.0.2.0/24 dev eth0 scope link", Some("10.200.0.0/24"));
        check("10.0.0.0/8 via 192.0.2.1 dev eth0", Some("172.31.200.0/24"));
        check("local 10.200.0.7 dev eth0 table local", Some("10.201.0.0/24"));
        check("10.0.0.0/8 dev a\n172.16.0.0/12 dev b\n198.18.0.0/15 dev c", None);
    }

    #[test]
    fn addresses_follow_the_number() {
        let underlay = Underlay::new(Namespace::named("x"), "10.200.0.0/24".parse().unwrap(), "y");
        assert_eq!(underlay.host_address(), Ipv4Addr::new(10, 200, 0, 1));
        assert_eq!(underlay.address(3), Ipv4Addr::new(10, 200, 0, 13));
    }
}
