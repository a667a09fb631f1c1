//! Finds all that we put on a host, and removes it.

use crate::{firewall, host::LINK_PREFIX, netlink::Netlink, program::remove_filters};
use isthmus_core::NodeName;
use std::{fs, io, path::Path};

/// What was removed, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanupReport {
    /// Removed, by name.
    pub removed: Vec<String>,
    /// Not removed, and why.
    pub failed: Vec<String>,
}

/// Removes interfaces, filters, routes, neighbours, the nftables table and the pins of a node, in the thread's network namespace. Goes on
/// past what fails. Settings (`ip_forward`) stay: others may need them.
pub fn cleanup(bpffs: &Path, node: &NodeName) -> CleanupReport {
    let mut report = CleanupReport::default();
    let removed = remove_links(&mut report);
    report.note("interfaces", removed);
    match firewall::remove() {
        Ok(()) => report.removed.push(format!("nftables table ip {}", firewall::TABLE)),
        Err(error) => report.failed.push(error.to_string()),
    }
    let pins = bpffs.join(node.as_str());
    if pins.exists() {
        report.note(&pins.display().to_string(), fs::remove_dir_all(&pins));
    }
    // Gone with the last node's pins.
    let _ = fs::remove_dir(bpffs);
    report
}

impl CleanupReport {
    fn note(&mut self, what: &str, result: io::Result<()>) {
        match result {
            Ok(()) => self.removed.push(what.to_owned()),
            Err(error) => self.failed.push(format!("{what}: {error}")),
        }
    }
}

fn remove_links(report: &mut CleanupReport) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    for interface in netlink.interfaces()? {
        if interface.name.starts_with(LINK_PREFIX) {
            match netlink.remove_link(&interface.name) {
                Ok(_) => report.removed.push(interface.name),
                Err(error) => report.failed.push(format!("{}: {error}", interface.name)),
            }
        } else {
            remove_filters(&interface.name);
        }
    }
    for block in netlink.our_unreachable()? {
        match netlink.remove_unreachable(block) {
            Ok(()) => report.removed.push(format!("route unreachable {block}")),
            Err(error) => report.failed.push(format!("route unreachable {block}: {error}")),
        }
    }
    for (ifindex, address) in netlink.our_neighbours()? {
        match netlink.forget_neighbour(ifindex, address) {
            Ok(()) => report.removed.push(format!("neighbour {address}")),
            Err(error) => report.failed.push(format!("neighbour {address}: {error}")),
        }
    }
    Ok(())
}
