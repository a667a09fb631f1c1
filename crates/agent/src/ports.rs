//! Ports of the node that lead into containers: who has which.

use crate::locks::lock;
use isthmus_api::adapter::{Failure, FailureKind, PortMapping};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most port mappings of one attachment.
pub(crate) const MAPPINGS_MAX: usize = 1_024;

/// The node's ports.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    last: u16,
    held: Mutex<Held>,
    /// Counts changes that the kernel must hear of.
    pub(crate) wanted: AtomicU64,
    /// The change that the kernel last heard of; its lock makes calls wait for each other.
    pub(crate) set: Mutex<u64>,
}

type Held = BTreeMap<(&'static str, u16), Vec<(Option<IpAddr>, String)>>;

impl Ports {
    /// Ports where those that the agent chooses begin at `start` and are `total`, as far as there are ports.
    pub(crate) fn new(start: u16, total: u16) -> Self {
        let last = start.saturating_add(total.saturating_sub(1));
        Self { first: start, last, held: Mutex::default(), wanted: AtomicU64::new(0), set: Mutex::new(0) }
    }

    /// Holds ports for an attachment: those that it names, and the lowest free one where it names none.
    ///
    /// # Errors
    ///
    /// A [`Failure`]; then nothing is held.
    pub(crate) fn reserve(&self, id: &str, asked: &[PortMapping]) -> Result<Vec<PortMapping>, Failure> {
        if asked.len() > MAPPINGS_MAX {
            return Err(invalid(format!("{} port mappings are more than {MAPPINGS_MAX}", asked.len())));
        }
        let mut held = lock(&self.held);
        let mut got = Vec::with_capacity(asked.len());
        for mapping in asked {
            match self.reserve_one(&mut held, id, mapping) {
                Ok(mapping) => got.push(mapping),
                Err(failure) => {
                    release(&mut held, id);
                    return Err(failure);
                }
            }
        }
        Ok(got)
    }

    fn reserve_one(&self, held: &mut Held, id: &str, mapping: &PortMapping) -> Result<PortMapping, Failure> {
        let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
            "tcp" => "tcp",
            "udp" => "udp",
            other => {
                return Err(invalid(format!(
                    "protocol \"{other}\" of a port mapping is neither tcp nor udp"
                )));
            }
        };
        if mapping.container_port == 0 {
            return Err(invalid("a port mapping leads to port 0 of the container".to_owned()));
        }
        let host_port = match mapping.host_port {
            0 => self.lowest_free(held, protocol)?,
            port => port,
        };
        let holders = held.entry((protocol, host_port)).or_default();
        let clash = |(address, _): &&(Option<IpAddr>, String)| {
            address.is_none() || mapping.host_ip.is_none() || *address == mapping.host_ip
        };
        if let Some((_, other)) = holders.iter().find(clash) {
            let message = format!("{protocol} port {host_port} of this node leads into {other} already");
            let remedy = "use another host port, or remove the other container".to_owned();
            return Err(Failure { kind: FailureKind::Invalid, message, help: remedy });
        }
        holders.push((mapping.host_ip, id.to_owned()));
        Ok(PortMapping { host_port, protocol: protocol.to_owned(), ..mapping.clone() })
    }

    fn lowest_free(&self, held: &Held, protocol: &'static str) -> Result<u16, Failure> {
        let free = |port: &u16| held.get(&(protocol, *port)).is_none_or(Vec::is_empty);
        (self.first..=self.last).find(free).ok_or_else(|| Failure {
            kind: FailureKind::TryAgain,
            // Begins with the words of Cloud Foundry's own networker, which operators search for.
            message: format!(
                "allocating port: acquire port: port pool exhausted: all {protocol} ports from {} to {} of this node are in use",
                self.first, self.last
            ),
            help: "raise garden_total_ports in agent.toml, or remove containers".to_owned(),
        })
    }

    /// Gives an attachment's ports back.
    pub(crate) fn release(&self, id: &str) {
        release(&mut lock(&self.held), id);
    }

    /// A change that the kernel must hear of; see [`crate::agent::Agent::publish_ports`].
    pub(crate) fn change(&self) -> u64 {
        self.wanted.fetch_add(1, Ordering::SeqCst) + 1
    }
}

fn release(held: &mut Held, id: &str) {
    held.retain(|_, holders| {
        holders.retain(|(_, holder)| holder != id);
        !holders.is_empty()
    });
}

fn invalid(message: String) -> Failure {
    let help = "correct the port mappings of the container".to_owned();
    Failure { kind: FailureKind::Invalid, message, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_port: u16, protocol: &str) -> PortMapping {
        PortMapping { host_ip: None, host_port, container_port: 8080, protocol: protocol.to_owned() }
    }

    fn host_ports(mappings: &[PortMapping]) -> Vec<u16> {
        mappings.iter().map(|mapping| mapping.host_port).collect()
    }

    #[test]
    fn the_lowest_free_port_is_chosen_and_comes_again_after_release() {
        let ports = Ports::new(61_000, 3);
        let got = ports.reserve("a", &[mapping(0, "tcp"), mapping(0, "TCP")]).unwrap();
        assert_eq!(host_ports(&got), [61_000, 61_001]);
        assert_eq!(host_ports(&ports.reserve("b", &[mapping(0, "tcp")]).unwrap()), [61_002]);
        assert_eq!(ports.reserve("c", &[mapping(0, "tcp")]).unwrap_err().kind, FailureKind::TryAgain);
        ports.release("a");
        assert_eq!(host_ports(&ports.reserve("c", &[mapping(0, "tcp")]).unwrap()), [61_000]);
    }

    #[test]
    fn a_port_leads_into_one_container_for_each_address() {
        let ports = Ports::new(61_000, 5_000);
        let on =
            |address: &str| PortMapping { host_ip: Some(address.parse().unwrap()), ..mapping(80, "tcp") };
        ports.reserve("a", &[on("192.0.2.1")]).unwrap();
        ports.reserve("b", &[on("192.0.2.2")]).unwrap();
        ports.reserve("c", &[mapping(80, "udp")]).unwrap();
        for clash in [on("192.0.2.1"), mapping(80, "tcp")] {
            assert!(ports.reserve("d", &[clash]).unwrap_err().message.contains("port 80"));
        }
    }

    #[test]
    fn a_refused_list_holds_nothing() {
        let ports = Ports::new(61_000, 5_000);
        ports.reserve("a", &[mapping(81, "tcp")]).unwrap();
        assert!(ports.reserve("b", &[mapping(80, "tcp"), mapping(81, "tcp")]).is_err());
        assert!(ports.reserve("c", &[mapping(80, "tcp")]).is_ok());
        assert!(ports.reserve("d", &[mapping(82, "sctp")]).is_err());
        let to_zero = PortMapping { container_port: 0, ..mapping(83, "tcp") };
        assert!(ports.reserve("d", &[to_zero]).is_err());
        assert!(ports.reserve("d", &vec![mapping(0, "tcp"); MAPPINGS_MAX + 1]).is_err());
    }

    #[test]
    fn chosen_ports_end_where_ports_end() {
        let ports = Ports::new(65_535, 5_000);
        assert_eq!(host_ports(&ports.reserve("a", &[mapping(0, "udp")]).unwrap()), [65_535]);
        assert!(ports.reserve("b", &[mapping(0, "udp")]).is_err());
    }
}
