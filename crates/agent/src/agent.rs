//! The node's state, and what all parts of the agent use of each other.
//!
//! Nothing here holds a lock over a call to the kernel or the server. Calls for one attachment wait for each other
//! ([`Agent::busy`]), as do loads of one table; everything else runs side by side.

use crate::{
    addresses::{Addresses, OpenJournalError},
    apply::Pending,
    attachment::{Attachment, Detail, State, id},
    bgp::Bgp,
    blocks::Leases,
    config::Config,
    flows::Flows,
    kernel::{Kernel, KernelError},
    link::Link,
    locks::{KeyLocks, lock},
    metrics::Metrics,
    ports::Ports,
    tables::Tables,
    view::View,
};
use isthmus_api::adapter::{Failure, FailureKind};
use isthmus_core::{ClusterName, Identity};
use isthmus_dataplane::model::MappedPort;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, atomic::AtomicU64, atomic::Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::runtime::Handle;
use uuid::Uuid;

/// One node.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) addresses: Addresses,
    pub(crate) attachments: Mutex<BTreeMap<String, Attachment>>,
    /// Attachments that somebody works on.
    pub(crate) busy: KeyLocks,
    pub(crate) view: Mutex<View>,
    /// Tells who waits for something in the view, or for the link to break.
    pub(crate) view_changed: Condvar,
    pub(crate) tables: Tables,
    pub(crate) leases: Leases,
    pub(crate) ports: Ports,
    pub(crate) link: Link,
    pub(crate) pending: Pending,
    pub(crate) problems: Problems,
    pub(crate) metrics: Metrics,
    pub(crate) flows: Flows,
    pub(crate) bgp: Bgp,
    /// Connections that the last sweep left.
    pub(crate) connections: AtomicU64,
    /// Where blocking threads wait for the server.
    pub(crate) runtime: Handle,
    pub(crate) tunnel_address: IpAddr,
    pub(crate) instance: Uuid,
    pub(crate) started: Instant,
}

/// Endpoints that a problem names; more are counted.
const BROKEN_NAMED_MAX: usize = 3;
/// Problems that are kept; more are counted.
const PROBLEMS_MAX: usize = 256;

/// What is wrong with the node now, by where.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    texts: Mutex<BTreeMap<String, String>>,
}

impl Problems {
    /// Something is wrong, or right again (`None`).
    pub(crate) fn set(&self, place: &str, text: Option<String>) {
        let mut texts = lock(&self.texts);
        match text {
            Some(text) => {
                if texts.get(place) != Some(&text) {
                    tracing::warn!(place, problem = %text, "a problem came up");
                }
                if texts.len() < PROBLEMS_MAX || texts.contains_key(place) {
                    texts.insert(place.to_owned(), text);
                }
            }
            None => {
                if texts.remove(place).is_some() {
                    tracing::info!(place, "the problem is over");
                }
            }
        }
    }

    /// What is wrong at one place.
    pub(crate) fn at(&self, place: &str) -> Option<String> {
        lock(&self.texts).get(place).cloned()
    }

    /// What is wrong at places that begin like these.
    pub(crate) fn under(&self, places: &[&str]) -> Vec<String> {
        let texts = lock(&self.texts);
        let under = texts.iter().filter(|(place, _)| places.iter().any(|begin| place.starts_with(begin)));
        under.map(|(_, text)| text.clone()).collect()
    }

    /// Everything that is wrong, [`PROBLEMS_MAX`] at most.
    pub(crate) fn all(&self) -> Vec<String> {
        lock(&self.texts).values().cloned().collect()
    }
}

impl Agent {
    /// Reads what the last agent of the node left, and what the kernel has.
    pub(crate) fn open(
        config: Config,
        kernel: Arc<dyn Kernel>,
        runtime: Handle,
        tunnel_address: IpAddr,
    ) -> Result<Self, OpenJournalError> {
        let addresses = Addresses::open(&config.data_dir.join("addresses"))?;
        let problems = Problems::default();
        let view = read_view(&view_path(&config));
        let ports = Ports::new(config.garden_start_port, config.garden_total_ports);
        let attachments = recall(&addresses, &*kernel, &ports, &problems);
        Ok(Self {
            tables: Tables::default(),
            leases: Leases::default(),
            metrics: Metrics::new(),
            flows: Flows::new(),
            bgp: Bgp::default(),
            attachments: Mutex::new(attachments),
            busy: KeyLocks::default(),
            view: Mutex::new(view),
            view_changed: Condvar::new(),
            link: Link::new(),
            pending: Pending::default(),
            connections: AtomicU64::new(0),
            instance: Uuid::new_v4(),
            started: Instant::now(),
            config,
            kernel,
            addresses,
            ports,
            problems,
            runtime,
            tunnel_address,
        })
    }

    pub(crate) fn attachments(&self) -> MutexGuard<'_, BTreeMap<String, Attachment>> {
        lock(&self.attachments)
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// Everything that is wrong with the node.
    pub(crate) fn problem_texts(&self) -> Vec<String> {
        let mut texts = self.problems.all();
        texts.extend(self.broken_endpoints());
        texts
    }

    /// One sentence for all endpoints whose links are not as they were made.
    fn broken_endpoints(&self) -> Option<String> {
        let attachments = self.attachments();
        let is_broken = |attachment: &&Attachment| matches!(attachment.state, State::Broken { .. });
        let count = attachments.values().filter(is_broken).count();
        if count == 0 {
            return None;
        }
        let first = attachments.iter().filter(|(_, attachment)| is_broken(attachment)).take(BROKEN_NAMED_MAX);
        let names: Vec<_> = first.map(|(id, _)| id.as_str()).collect();
        let more = if count > names.len() { " and others" } else { "" };
        Some(format!(
            "{count} endpoint(s) have a link that is not as it was made, or none: {}{more}; \
             a restart of the container makes it anew",
            names.join(", ")
        ))
    }

    /// Identities that live here.
    pub(crate) fn live_identities(&self) -> BTreeSet<Identity> {
        self.attachments().values().map(|attachment| attachment.identity).collect()
    }

    /// The cluster that a call means.
    pub(crate) fn cluster(&self, name: &str) -> Result<ClusterName, Failure> {
        let clusters = &self.config.clusters;
        let found = match (name, clusters.as_slice()) {
            ("", [only]) => Some(only),
            ("", _) => None,
            (name, clusters) => clusters.iter().find(|cluster| cluster.as_str() == name),
        };
        found.cloned().ok_or_else(|| {
            let names: Vec<_> = clusters.iter().map(ClusterName::as_str).collect();
            let names = names.join(", ");
            let message = if name.is_empty() {
                format!(
                    "node {} serves several clusters ({names}), and the call names none",
                    self.config.node
                )
            } else {
                format!("node {} does not serve cluster \"{name}\", but {names}", self.config.node)
            };
            fail(FailureKind::Invalid, message, "name one of them in the adapter's configuration")
        })
    }

    /// Tells the kernel which ports of the node lead into containers. Calls that come meanwhile are covered by the next.
    pub(crate) fn publish_ports(&self) -> Result<(), KernelError> {
        let change = self.ports.change();
        let mut set = lock(&self.ports.set);
        if *set >= change {
            return Ok(());
        }
        let covered = self.ports.wanted.load(Ordering::SeqCst);
        let ports: Vec<MappedPort> = self.attachments().values().flat_map(Attachment::mapped_ports).collect();
        self.kernel.set_ports(&ports)?;
        *set = covered;
        Ok(())
    }
}

/// Where the view is kept.
pub(crate) fn view_path(config: &Config) -> PathBuf {
    config.data_dir.join("view")
}

fn read_view(path: &std::path::Path) -> View {
    let Ok(bytes) = std::fs::read(path) else { return View::default() };
    View::from_file(&bytes).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the kept view is not used; the server sends it again");
        View::default()
    })
}

/// The attachments of the journal. Whether their links are there is for the reconciler to say.
fn recall(
    addresses: &Addresses,
    kernel: &dyn Kernel,
    ports: &Ports,
    problems: &Problems,
) -> BTreeMap<String, Attachment> {
    let name = |key: &isthmus_api::adapter::AttachmentKey| {
        kernel.link_name(&key.runtime, &key.container, &key.interface)
    };
    let recalled: Vec<_> = addresses.read(|ipam| {
        let recall = |held: isthmus_ipam::Allocation<'_>| {
            let attachment = Detail::attachment(held.detail, held.cluster.clone(), held.address, name);
            (held.owner.clone(), attachment)
        };
        ipam.allocations().map(recall).collect()
    });
    let mut attachments = BTreeMap::new();
    for (owner, attachment) in recalled {
        let Some(attachment) = attachment else {
            problems.set(
                &format!("address of {owner}"),
                Some(format!("the journal's detail of {owner} cannot be read; its address stays reserved")),
            );
            continue;
        };
        if let Err(failure) = ports.reserve(owner.as_str(), &attachment.ports) {
            problems.set(&format!("ports of {owner}"), Some(failure.message));
        }
        attachments.insert(id(&attachment.request.key), attachment);
    }
    attachments
}

/// A failure with what to do.
pub(crate) fn fail(kind: FailureKind, message: impl Into<String>, help: impl Into<String>) -> Failure {
    Failure { kind, message: message.into(), help: help.into() }
}

/// The wall clock.
pub(crate) fn unix_now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whether an attachment is as it was made.
pub(crate) fn is_whole(attachment: &Attachment) -> bool {
    attachment.state == State::Whole
}
