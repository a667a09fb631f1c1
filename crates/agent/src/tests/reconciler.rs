//! What the looks at the kernel find and mend. The agent is opened without its tasks, so that the test says when it looks.

use super::*;
use crate::{
    agent::Agent,
    reconcile::INTERVAL,
    tables::SCOPE_GRACE,
    view::{Resolved, ResolvedKey},
};
use isthmus_api::adapter::FailureKind;
use isthmus_core::Identity;
use isthmus_dataplane::model::Link;
use std::{collections::BTreeMap, os::fd::OwnedFd};

/// An agent without a server that knows the workload `shop/web` and holds a block.
struct Still {
    agent: Arc<Agent>,
    kernel: FakeKernel,
    directory: tempfile::TempDir,
}

fn open(directory: &tempfile::TempDir, kernel: &FakeKernel) -> Arc<Agent> {
    let path = directory.path().display();
    let text = format!(
        "node = \"n1\"\nserver = \"127.0.0.1:1\"\nclusters = [\"red\"]\ndata_dir = \"{path}\"\nrun_dir = \"{path}\"\n"
    );
    let config = Config::from_toml(&text, "agent.toml").unwrap();
    let runtime = tokio::runtime::Handle::current();
    let address = "192.0.2.1".parse().unwrap();
    Arc::new(Agent::open(config, Arc::new(kernel.clone()), runtime, address).unwrap())
}

impl Still {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kernel = FakeKernel::new();
        let agent = open(&directory, &kernel);
        agent.adopt_block(&"red".parse().unwrap(), "10.64.0.0/26").unwrap();
        let key =
            ResolvedKey { cluster: "red".to_owned(), id: "shop/web".to_owned(), labels: BTreeMap::new() };
        let identity = Identity::new(256).unwrap();
        let resolved =
            Resolved { identity, uuid: "u".to_owned(), name: "k8s:shop/web@red".to_owned(), used_unix: 0 };
        agent.view().remember(key, resolved);
        Self { agent, kernel, directory }
    }

    /// A new agent over the same directory and kernel, as after a crash.
    fn crash(self) -> Self {
        let Self { agent, kernel, directory } = self;
        drop(agent);
        let agent = open(&directory, &kernel);
        agent.reconcile_at_start();
        Self { agent, kernel, directory }
    }

    async fn attach(&self, container: &str, netns: &Netns) -> Result<Attached, Failure> {
        let (agent, attach) = (Arc::clone(&self.agent), attach(container, "web"));
        let netns = OwnedFd::from(netns.file.try_clone().unwrap());
        tokio::task::spawn_blocking(move || agent.attach(attach, &netns)).await.unwrap()
    }

    async fn look(&self, now: Instant) {
        let agent = Arc::clone(&self.agent);
        tokio::task::spawn_blocking(move || agent.reconcile(now)).await.unwrap();
    }

    fn used(&self) -> usize {
        self.agent.addresses.read(|ipam| ipam.allocations().count())
    }
}

#[tokio::test]
async fn a_link_that_nobody_knows_is_removed() {
    let still = Still::new();
    let stray = Link {
        host_interface: "ist0123456789ab".to_owned(),
        host_ifindex: 9,
        address: "10.64.0.9".parse().unwrap(),
        mac: [2, 0, 0, 0, 0, 1],
        identity: Identity::new(256).unwrap(),
        whole: true,
    };
    still.kernel.add_link(stray);
    let still = still.crash();
    assert!(still.kernel.all_links().is_empty());
}

#[tokio::test]
async fn a_link_removed_behind_our_back_is_told_and_made_anew() {
    let still = Still::new();
    let netns = Netns::new();
    let attached = still.attach("c1", &netns).await.unwrap();
    still.kernel.remove_link(&attached.host_interface);
    still.look(Instant::now()).await;
    let problems = still.agent.agent_status().problems;
    assert!(problems.iter().any(|problem| problem.contains("cni:isthmus/c1/eth0")), "{problems:?}");
    still.look(Instant::now() + INTERVAL * 10).await;
    assert_eq!(still.used(), 1, "kept while its namespace lives");
    assert_eq!(still.attach("c1", &netns).await.unwrap().addresses, attached.addresses);
    still.look(Instant::now()).await;
    assert_eq!(still.agent.problem_texts(), Vec::<String>::new());
}

#[tokio::test]
async fn an_endpoint_whose_namespace_is_gone_is_released_at_the_second_look() {
    let still = Still::new();
    let netns = Netns::new();
    still.attach("c1", &netns).await.unwrap();
    still.attach("c2", &Netns::new()).await.unwrap();
    still.kernel.end_netns(netns.inode());
    let start = Instant::now();
    still.look(start).await;
    assert_eq!(still.used(), 2, "one look is not enough");
    still.look(start + Duration::from_secs(1)).await;
    assert_eq!(still.used(), 2, "nor are two at once");
    still.look(start + INTERVAL).await;
    assert_eq!(still.used(), 1);
    assert!(still.agent.attachments().contains_key("cni:isthmus/c2/eth0"));
}

#[tokio::test]
async fn a_reboot_releases_what_no_runtime_detached() {
    let still = Still::new();
    still.attach("c1", &Netns::new()).await.unwrap();
    still.kernel.reboot();
    let still = still.crash();
    assert_eq!(still.used(), 1);
    still.look(Instant::now() + INTERVAL).await;
    assert_eq!(still.used(), 0);
}

#[tokio::test]
async fn an_address_without_its_link_is_made_anew_by_the_same_call() {
    let still = Still::new();
    let netns = Netns::new();
    let attached = still.attach("c1", &netns).await.unwrap();
    still.kernel.remove_link(&attached.host_interface);
    let still = still.crash();
    let again = still.attach("c1", &netns).await.unwrap();
    assert_eq!(again, attached);
}

#[tokio::test]
async fn an_identity_that_differs_in_the_kernel_is_set_again() {
    let still = Still::new();
    let attached = still.attach("c1", &Netns::new()).await.unwrap();
    let mut link = still.kernel.link(&attached.host_interface).unwrap();
    link.identity = Identity::new(999).unwrap();
    still.kernel.add_link(link);
    still.look(Instant::now()).await;
    assert_eq!(still.kernel.link(&attached.host_interface).unwrap().identity, Identity::new(256).unwrap());
}

#[tokio::test]
async fn rules_of_an_identity_that_left_are_unloaded_after_a_grace() {
    let still = Still::new();
    still.attach("c1", &Netns::new()).await.unwrap();
    let identity = Identity::new(256).unwrap();
    still.agent.detach(&key("c1")).unwrap();
    let start = Instant::now();
    still.look(start).await;
    assert!(still.kernel.table(identity).is_some());
    still.look(start + SCOPE_GRACE).await;
    assert!(still.kernel.table(identity).is_none());
    assert_eq!(still.agent.tables.scope(), Vec::<u32>::new());
    still.attach("c2", &Netns::new()).await.unwrap();
    assert!(still.kernel.table(identity).is_some(), "and loaded again for the next");
}

#[tokio::test]
async fn a_full_disk_is_told_and_harmless() {
    let still = Still::new();
    // Without its directory the journal cannot be written anew, as on a full disk.
    let agent = Arc::clone(&still.agent);
    still.attach("c1", &Netns::new()).await.unwrap();
    agent.problems.set("journal", Some("the address journal is full".to_owned()));
    assert_eq!(agent.status("red").unwrap_err().kind, FailureKind::Unavailable);
    still.look(Instant::now()).await;
    assert!(agent.problems.at("journal").is_none(), "a look tries the disk again");
}
