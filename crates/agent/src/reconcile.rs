//! Compares what the journal says with what the kernel has, at the start and then now and again.
//!
//! | the journal has | the kernel has | then |
//! | --- | --- | --- |
//! | nothing | a link | removed: nobody was told of it |
//! | an attachment | its link, whole | whole |
//! | an attachment | its link, of another identity | the identity is set |
//! | an attachment | no link, or a part of one | broken, and told; made anew by the next attach of the same key |
//! | an attachment | no link, and its namespace is gone, at two looks | released: nobody sent a detach |

use crate::{
    agent::Agent,
    attach::is_link_of,
    attachment::{Attachment, State},
};
use isthmus_dataplane::model::Link;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Time between two looks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between the two looks that find a namespace gone.
const GONE_FOR: Duration = Duration::from_secs(25);

/// What one look found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// Links that no attachment has.
    orphans: Vec<(String, IpAddr)>,
    /// Attachments whose link is as it was made, with the link's MAC address and whether the identity differs.
    whole: Vec<(String, [u8; 6], bool)>,
    /// Attachments whose link is not.
    broken: Vec<String>,
}

/// Compares, without changing anything. `attachments` must be read after `links`, so that a link which is being made has
/// its attachment.
fn compare(links: &[Link], attachments: &BTreeMap<String, Attachment>) -> Findings {
    let mut findings = Findings::default();
    let (named, nameless): (Vec<&Link>, Vec<&Link>) =
        links.iter().partition(|link| !link.host_interface.is_empty());
    let mut by_name: BTreeMap<&str, &Link> =
        named.into_iter().map(|link| (link.host_interface.as_str(), link)).collect();
    for (id, attachment) in attachments {
        let link = by_name.remove(attachment.host_interface.as_str());
        match link.filter(|link| link.whole && is_link_of(link, attachment)) {
            Some(link) => findings.whole.push((id.clone(), link.mac, link.identity != attachment.identity)),
            None => findings.broken.push(id.clone()),
        }
    }
    // What only the maps know has no name; it is an attachment's if the address is.
    let used: BTreeSet<IpAddr> = attachments.values().map(|attachment| attachment.address).collect();
    let lost = nameless.into_iter().filter(|link| !used.contains(&link.address));
    let orphans = by_name.into_values().chain(lost);
    findings.orphans = orphans.map(|link| (link.host_interface.clone(), link.address)).collect();
    findings
}

impl Agent {
    /// The look at the start, when nobody else works: adopts what is whole and removes what nobody was told of.
    pub(crate) fn reconcile_at_start(&self) {
        let links = match self.kernel.links() {
            Ok(links) => links,
            Err(error) => {
                self.problems.set("links", Some(format!("the node's links cannot be read: {error}")));
                return;
            }
        };
        self.tables.adopt(self.kernel.tables());
        let findings = compare(&links, &self.attachments());
        self.remove_orphans(&findings.orphans);
        self.adopt_whole(&findings.whole);
        self.note_broken(&findings.broken, Instant::now());
    }

    /// The look now and again.
    pub(crate) fn reconcile(&self, now: Instant) {
        let links = match self.kernel.links() {
            Ok(links) => {
                self.problems.set("links", None);
                links
            }
            Err(error) => {
                self.problems.set("links", Some(format!("the node's links cannot be read: {error}")));
                return;
            }
        };
        let findings = compare(&links, &self.attachments());
        self.remove_orphans(&findings.orphans);
        self.adopt_whole(&findings.whole);
        // A second look at these alone: they may have been made after the links were read.
        let broken = self.still_broken(&findings.broken);
        self.note_broken(&broken, now);
        self.pending.network();
        self.unload_tables(now);
        if self.problems.at("journal").is_some() && self.addresses.nudge().wait().is_ok() {
            self.problems.set("journal", None);
        }
        self.return_blocks();
        self.confirm_workloads_if_up();
    }

    fn confirm_workloads_if_up(&self) {
        if self.link.is_up() {
            self.confirm_workloads();
        }
    }

    fn still_broken(&self, ids: &[String]) -> Vec<String> {
        if ids.is_empty() {
            return Vec::new();
        }
        let links = self.kernel.links().unwrap_or_default();
        let mut known = self.attachments().clone();
        known.retain(|id, attachment| ids.contains(id) && attachment.state != State::Attaching);
        compare(&links, &known).broken
    }

    fn remove_orphans(&self, orphans: &[(String, IpAddr)]) {
        for (name, address) in orphans {
            let place = format!("link {name}");
            // Removing the link would take the address from its owner.
            if self.attachments().values().any(|other| other.address == *address) {
                let text = format!(
                    "link {name} belongs to no attachment, but has {address}, which one has: remove it by hand"
                );
                self.problems.set(&place, Some(text));
                continue;
            }
            match self.kernel.detach(name, *address) {
                Ok(()) => {
                    self.problems.set(&place, None);
                    tracing::info!(link = %name, %address, "a link that no attachment has was removed");
                }
                Err(error) => {
                    self.problems.set(&place, Some(format!("link {name} belongs to no attachment: {error}")));
                }
            }
        }
    }

    fn adopt_whole(&self, whole: &[(String, [u8; 6], bool)]) {
        for (id, mac, identity_differs) in whole {
            let mended = {
                let mut attachments = self.attachments();
                let Some(attachment) = attachments.get_mut(id) else { continue };
                if attachment.state == State::Attaching {
                    continue;
                }
                attachment.mac = *mac;
                attachment.state = State::Whole;
                attachment.clone()
            };
            self.problems.set(&place(id), None);
            if *identity_differs {
                self.set_identity_again(id, &mended);
            }
        }
    }

    fn set_identity_again(&self, id: &str, attachment: &Attachment) {
        let table = self.ensure_table(attachment.identity, attachment.cluster.as_str());
        let set = table.map_err(|failure| failure.message).and_then(|()| {
            let name = &attachment.host_interface;
            let set = self.kernel.set_identity(name, attachment.address, attachment.identity);
            set.map_err(|error| error.to_string())
        });
        let text = set.err().map(|why| format!("{id} has another identity in the kernel: {why}"));
        self.problems.set(&format!("identity of {id}"), text);
    }

    fn note_broken(&self, broken: &[String], now: Instant) {
        if broken.is_empty() {
            return;
        }
        let live = self.kernel.live_netns();
        for id in broken {
            let alive = live.as_ref().map_or(true, |live| {
                self.attachments().get(id).is_none_or(|attachment| live.contains(&attachment.netns))
            });
            self.note_one_broken(id, alive, now);
        }
    }

    fn note_one_broken(&self, id: &str, netns_alive: bool, now: Instant) {
        // Whoever works on it now leaves it whole, or gone.
        let Some(busy) = self.busy.try_lock(id) else { return };
        let over = {
            let mut attachments = self.attachments();
            let Some(attachment) = attachments.get_mut(id) else { return };
            let since = match attachment.state {
                _ if netns_alive => None,
                State::Broken { gone_since } => gone_since.or(Some(now)),
                _ => Some(now),
            };
            if attachment.state == State::Whole {
                tracing::warn!(endpoint = %id, "the endpoint's link is not as it was made");
            }
            attachment.state = State::Broken { gone_since: since };
            since
                .filter(|since| now.duration_since(*since) >= GONE_FOR)
                .map(|_| attachment.request.key.clone())
        };
        drop(busy);
        if let Some(key) = over {
            tracing::info!(endpoint = %id, "the endpoint's namespace is gone and nobody detached it: released");
            let problem = self.detach(&key).err().map(|failure| failure.message);
            self.problems.set(&place(id), problem);
        }
    }
}

/// Where problems of an endpoint are told.
pub(crate) fn place(endpoint: &str) -> String {
    format!("endpoint {endpoint}")
}
