//! Several registries on one store: what must be given once is given once.

use super::{
    ClusterDraft, NodeDraft, PoolDraft, Registry, WorkloadDraft, clusters::ClusterError, pools::PoolError,
};
use crate::{
    kinds::{self, CfPolicy, StoredEndpoint, StoredIdentity, prefix},
    problem::Fault,
};
use isthmus_core::{Identity, Labels, NodeName, Platform};
use isthmus_store::{BoxFuture, Committed, LeaseId, MemoryStore, Store, StoreError, Txn};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

struct Rig {
    store: Arc<dyn Store>,
    registries: Vec<Arc<Registry>>,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rig {
    async fn start(count: usize) -> Self {
        // Commits take turns, so that what others do at once falls between a decision and its commit.
        let store: Arc<dyn Store> = Arc::new(Odd::new(How::Slow));
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let registries: Vec<_> =
            (0..count).map(|_| Registry::start(Arc::clone(&store), &tasks, stop.clone()).unwrap()).collect();
        let rig = Self { store, registries, stop };
        rig.cluster("red", Platform::Kubernetes).await;
        rig.cluster("green", Platform::CloudFoundry).await;
        rig
    }

    fn one(&self) -> &Arc<Registry> {
        &self.registries[0]
    }

    async fn cluster(&self, name: &str, platform: Platform) {
        let draft = ClusterDraft {
            name: name.parse().unwrap(),
            labels: Labels::new(),
            platform,
            closed: None,
            reject: None,
            asn: None,
            topology: None,
            announce_endpoints: false,
            paths_max: None,
            external: false,
        };
        self.one().create_cluster(&draft, false).await.unwrap();
    }

    async fn pool(&self, name: &str, cluster: &str, cidr: &str) {
        self.one().create_pool(&pool(name, cluster, cidr), false).await.unwrap();
    }

    async fn node(&self, name: &str, number: u8) -> NodeName {
        self.one().register_node(&node(name, number)).await.unwrap();
        name.parse().unwrap()
    }

    fn identities(&self) -> BTreeMap<String, StoredIdentity> {
        let range = self.store.range(prefix::IDENTITY, None, 0).unwrap();
        range
            .entries
            .into_iter()
            .map(|entry| (entry.key.clone(), kinds::decode(&entry.key, &entry.value).unwrap()))
            .collect()
    }
}

fn pool(name: &str, cluster: &str, cidr: &str) -> PoolDraft {
    PoolDraft {
        name: name.parse().unwrap(),
        labels: Labels::new(),
        cluster: cluster.parse().unwrap(),
        cidrs: vec![cidr.to_owned()],
        block_len: None,
        world: false,
    }
}

fn node(name: &str, number: u8) -> NodeDraft {
    NodeDraft {
        name: name.parse().unwrap(),
        addresses: vec![format!("192.0.2.{number}").parse().unwrap()],
        clusters: vec!["red".parse().unwrap()],
        agent_version: "test".to_owned(),
        vxlan_port: 4789,
        mtu: 1450,
    }
}

fn workload(cluster: &str, app: &str, label: &str) -> WorkloadDraft {
    let labels: Labels =
        if label.is_empty() { Labels::new() } else { Labels::from([("tier".to_owned(), label.to_owned())]) };
    WorkloadDraft {
        cluster: cluster.parse().unwrap(),
        id: format!("shop/{app}"),
        group: "shop".to_owned(),
        app: app.to_owned(),
        labels,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_allocations_give_one_number_to_one_and_none_to_two() {
    let rig = Rig::start(2).await;
    // 32 callers on two servers ask for the same 24 workloads with two sets of labels, each in its own order.
    let mut callers = Vec::new();
    for caller in 0..32_usize {
        let registry = Arc::clone(&rig.registries[caller % 2]);
        callers.push(tokio::spawn(async move {
            let mut found = BTreeMap::new();
            for step in 0..48_usize {
                let which = (step * 7 + caller * 5) % 48;
                let (app, label) = (which / 2, ["", "front"][which % 2]);
                let cluster = ["red", "green"][app % 2];
                let resolved =
                    registry.resolve_workload(&workload(cluster, &format!("app{app}"), label)).await.unwrap();
                found.insert((app, label), resolved.identity);
            }
            found
        }));
    }
    let mut agreed: Option<BTreeMap<(usize, &str), Identity>> = None;
    for caller in callers {
        let found = caller.await.unwrap();
        assert_eq!(*agreed.get_or_insert_with(|| found.clone()), found, "callers disagree");
    }
    let agreed = agreed.unwrap();
    let numbers: BTreeSet<Identity> = agreed.values().copied().collect();
    assert_eq!((agreed.len(), numbers.len()), (48, 48), "a number was given twice");
    assert_eq!(rig.identities().len(), 48, "a workload has a number too many");
    for ((app, _), identity) in agreed {
        assert_eq!(
            app % 2 == 1,
            identity.number() < Identity::TAG_LIMIT,
            "Cloud Foundry's are below the limit"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_leases_never_give_a_block_twice() {
    let rig = Rig::start(2).await;
    rig.pool("red-1", "red", "10.64.0.0/20").await;
    let mut callers = Vec::new();
    for caller in 0..16_usize {
        let name = rig.node(&format!("n{caller}"), caller as u8 + 1).await;
        let registry = Arc::clone(&rig.registries[caller % 2]);
        callers.push(tokio::spawn(async move {
            let cluster = "red".parse().unwrap();
            let mut blocks = Vec::new();
            for _ in 0..4 {
                blocks.push(registry.lease_block(&name, &cluster).await.unwrap().cidr);
            }
            blocks
        }));
    }
    let mut all = BTreeSet::new();
    for caller in callers {
        for block in caller.await.unwrap() {
            assert!(all.insert(block), "{block} was leased twice");
        }
    }
    // All 64 blocks of the pool, and not one more.
    assert_eq!(all.len(), 64);
    let late = rig.one().lease_block(&"n0".parse().unwrap(), &"red".parse().unwrap()).await.unwrap_err();
    assert!(late.to_string().contains("pool red-1 has no free block"), "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_registrations_give_each_node_its_number() {
    let rig = Rig::start(2).await;
    let mut callers = Vec::new();
    for number in 0..24_usize {
        let registry = Arc::clone(&rig.registries[number % 2]);
        callers.push(tokio::spawn(async move {
            registry.register_node(&node(&format!("n{number}"), number as u8 + 1)).await.unwrap()
        }));
    }
    let mut numbers = BTreeSet::new();
    for caller in callers {
        numbers.insert(caller.await.unwrap());
    }
    assert_eq!(numbers, (1..=24).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_is_not_deleted_under_a_lease() {
    for round in 0..20 {
        let rig = Rig::start(2).await;
        rig.pool("red-1", "red", "10.64.0.0/26").await;
        let name = rig.node("n1", 1).await;
        let (cluster, pool_name) = ("red".parse().unwrap(), "red-1".parse().unwrap());
        let leasing = rig.registries[0].lease_block(&name, &cluster);
        let deleting = rig.registries[1].delete_pool(&pool_name, None, false);
        // Either may begin.
        let (leased, deleted) = if round % 2 == 0 {
            tokio::join!(leasing, deleting)
        } else {
            let (deleted, leased) = tokio::join!(deleting, leasing);
            (leased, deleted)
        };
        assert!(leased.is_ok() != deleted.is_ok(), "{leased:?} {deleted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_is_not_deleted_under_a_new_pool() {
    for round in 0..20 {
        let rig = Rig::start(2).await;
        let name = "red".parse().unwrap();
        let draft = pool("red-1", "red", "10.64.0.0/24");
        let making = rig.registries[0].create_pool(&draft, false);
        let deleting = rig.registries[1].delete_cluster(&name, None, false);
        // Either may begin.
        let (made, deleted) = if round % 2 == 0 {
            tokio::join!(making, deleting)
        } else {
            let (deleted, made) = tokio::join!(deleting, making);
            (made, deleted)
        };
        match (made, deleted) {
            (Ok(()), Err(ClusterError::InUse { .. })) | (Err(PoolError::NoCluster(_)), Ok(())) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rule_numbers_are_never_given_twice() {
    let rig = Rig::start(2).await;
    let mut callers = Vec::new();
    for caller in 0..8_usize {
        let registry = Arc::clone(&rig.registries[caller % 2]);
        callers.push(tokio::spawn(async move { registry.rule_numbers(3_000).await.unwrap() }));
    }
    let mut all = HashSet::new();
    for caller in callers {
        for number in caller.await.unwrap() {
            assert!(number > 0 && all.insert(number), "{number} twice");
        }
    }
}

#[tokio::test]
async fn a_guid_that_was_named_first_moves_to_the_cluster_where_it_appears() {
    let rig = Rig::start(1).await;
    rig.cluster("grey", Platform::CloudFoundry).await;
    let guid = Uuid::from_u128(7).to_string();
    let policy = CfPolicy {
        source: guid.clone(),
        destination: guid.clone(),
        protocol: "tcp".to_owned(),
        start: 1,
        end: 1,
    };
    rig.one().create_cf_policies(BTreeSet::from([policy])).await.unwrap();
    let uuid = Uuid::from_u128(7);
    assert_eq!(rig.one().view().workloads[&uuid].value.cluster, "green");
    let draft = |cluster: &str| WorkloadDraft { id: guid.clone(), ..workload(cluster, "cart", "") };
    let resolved = rig.one().resolve_workload(&draft("grey")).await.unwrap();
    assert_eq!(rig.one().view().workloads[&uuid].value.cluster, "grey");
    // Where it runs, it stays.
    let name = rig.node("n1", 1).await;
    let endpoint = endpoint(&resolved.uuid, resolved.identity, "10.64.0.1");
    let changes = BTreeMap::from([("a/b/c".to_owned(), Some(endpoint))]);
    rig.one().change_endpoints(&name, changes).await.unwrap();
    let error = rig.one().resolve_workload(&draft("green")).await.unwrap_err();
    assert!(error.to_string().contains("runs on cluster grey"), "{error}");
}

fn endpoint(workload: &Uuid, identity: Identity, address: &str) -> StoredEndpoint {
    StoredEndpoint {
        node: "n1".to_owned(),
        cluster: "red".to_owned(),
        workload: *workload,
        identity: identity.number(),
        addresses: vec![address.parse().unwrap()],
        mac: String::new(),
        host_interface: String::new(),
        instance: String::new(),
        labels: Labels::new(),
        created_unix: 0,
    }
}

#[tokio::test]
async fn a_number_is_not_used_again_while_a_node_may_know_it() {
    let rig = Rig::start(1).await;
    let name = rig.node("n1", 1).await;
    let registry = rig.one();
    let first = registry.resolve_workload(&workload("green", "cart", "")).await.unwrap();
    registry.delete_workload(first.uuid).await.unwrap();
    let retired = rig.identities();
    let held = retired.values().next().unwrap().retired.as_ref().unwrap();
    assert_eq!(held.nodes, BTreeSet::from(["n1".to_owned()]));
    // The node has not said that it is up to date: nothing changes.
    assert_eq!(registry.sweep_identities(&BTreeSet::new()).await.unwrap(), 0);
    registry.sweep_identities(&BTreeSet::from(["n1".to_owned()])).await.unwrap();
    assert!(rig.identities().values().next().unwrap().retired.as_ref().unwrap().nodes.is_empty());
    // The same workload gets another number meanwhile.
    let again = registry.resolve_workload(&workload("green", "cart", "")).await.unwrap();
    assert_ne!(again.identity, first.identity);
    // A node that is deleted knows nothing any more.
    registry.delete_workload(again.uuid).await.unwrap();
    registry.delete_node(&name, false).await.unwrap();
    registry.sweep_identities(&BTreeSet::new()).await.unwrap();
    assert!(rig.identities().values().all(|held| held.retired.as_ref().unwrap().nodes.is_empty()));
}

#[tokio::test]
async fn idle_apps_are_forgotten_unless_something_needs_them() {
    let rig = Rig::start(1).await;
    let registry = rig.one();
    let name = rig.node("n1", 1).await;
    let mut uuids = BTreeMap::new();
    for app in ["idle", "running", "named", "scoped"] {
        let resolved = registry.resolve_workload(&workload("red", app, "")).await.unwrap();
        let old = crate::kinds::StoredWorkload { used_day: 0, ..resolved.workload };
        let key = kinds::workload_key(resolved.uuid);
        let txn = isthmus_store::Txn::new().then(isthmus_store::Operation::put(&key, kinds::encode(&old)));
        registry.commit(txn).await.unwrap();
        uuids.insert(app, (resolved.uuid, resolved.identity));
    }
    let (uuid, identity) = uuids["running"];
    let changes = BTreeMap::from([("a/b/c".to_owned(), Some(endpoint(&uuid, identity, "10.64.0.1")))]);
    registry.change_endpoints(&name, changes).await.unwrap();
    let rule = super::RuleDraft { from: "named".to_owned(), to: "named".to_owned(), port: "any".to_owned() };
    let policy = super::PolicyDraft {
        name: "p".parse().unwrap(),
        labels: Labels::new(),
        reason: None,
        rules: vec![rule],
    };
    registry.create_policy(&policy, false).await.unwrap();
    let scopes = HashSet::from([uuids["scoped"].1]);
    assert_eq!(registry.sweep_workloads(&scopes).await.unwrap(), 1);
    let view = registry.view();
    let left: Vec<&str> = uuids
        .iter()
        .filter(|(_, (uuid, _))| view.workloads.contains_key(uuid))
        .map(|(app, _)| *app)
        .collect();
    assert_eq!(left, ["named", "running", "scoped"]);
}

#[tokio::test]
async fn a_node_whose_deletion_was_cut_short_leaves_nothing() {
    let rig = Rig::start(1).await;
    rig.pool("red-1", "red", "10.64.0.0/24").await;
    let name = rig.node("n1", 1).await;
    rig.one().lease_block(&name, &"red".parse().unwrap()).await.unwrap();
    // As after a crash between the two steps: the node is gone, its block is not.
    let txn = isthmus_store::Txn::new().then(isthmus_store::Operation::delete(kinds::node_key("n1")));
    rig.one().commit(txn).await.unwrap();
    assert_eq!(rig.one().view().blocks.len(), 1);
    rig.one().delete_all_leftovers().await.unwrap();
    assert_eq!(rig.one().view().blocks.len(), 0);
}

#[tokio::test]
async fn a_view_that_fell_behind_is_read_anew() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_log_revisions(2));
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let registry = Registry::start(Arc::clone(&store), &tasks, stop.clone()).unwrap();
    let mut changes = registry.subscribe();
    // The follower gets no turn between these.
    for number in 0..10 {
        let value = br#"{"uuid":"00000000-0000-0000-0000-000000000000","platform":"nomad"}"#.to_vec();
        let put = isthmus_store::Operation::put(kinds::cluster_key(&format!("c{number}")), value);
        let committed = store.commit(isthmus_store::Txn::new().then(put)).await.unwrap();
        assert!(committed.is_done());
    }
    registry.caught_up(store.revision().unwrap()).await.unwrap();
    assert_eq!(registry.view().clusters.len(), 10);
    assert!(changes.try_recv().unwrap().all);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_view_that_does_not_follow_is_told_as_a_fault() {
    let rig = Rig::start(1).await;
    let revision = rig.store.revision().unwrap() + 1;
    let error = rig.one().caught_up(revision).await.unwrap_err();
    assert!(crate::problem::Fault::retryable(&error), "{error}");
}

#[tokio::test]
async fn names_that_change_meanwhile_are_corrected_once() {
    let rig = Rig::start(2).await;
    let first = rig.registries[0].resolve_workload(&workload("red", "web", "")).await.unwrap();
    let before = rig.store.revision().unwrap();
    // Known and equal: no write, from either server.
    for registry in &rig.registries {
        let again = registry.resolve_workload(&workload("red", "web", "")).await.unwrap();
        assert_eq!(again.identity, first.identity);
    }
    assert!(rig.store.revision().unwrap() <= before + 1);
    let renamed = WorkloadDraft { app: "shop-web".to_owned(), ..workload("red", "web", "") };
    rig.one().resolve_workload(&renamed).await.unwrap();
    assert_eq!(rig.one().view().workload_text(first.uuid), "k8s:shop/shop-web@red");
    let unknown = rig.one().resolve_workload(&workload("violet", "web", "")).await.unwrap_err();
    assert!(unknown.to_string().contains("no cluster violet"), "{unknown}");
}

/// A store whose commits are slow, or fail in one way.
struct Odd {
    store: MemoryStore,
    how: Mutex<How>,
}

/// Turns of others before a slow commit.
const TURNS: usize = 8;

#[derive(Clone, Copy, Debug)]
enum How {
    Not,
    /// Others get several turns before a commit is carried out.
    Slow,
    /// Somebody else is always faster.
    Refuses,
    /// The disk is full.
    Full,
}

impl Odd {
    fn new(how: How) -> Self {
        Self { store: MemoryStore::new(), how: Mutex::new(how) }
    }

    fn start() -> (Arc<Self>, Arc<Registry>) {
        let store = Arc::new(Self::new(How::Not));
        let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let registry = Registry::start(shared, &TaskTracker::new(), CancellationToken::new()).unwrap();
        (store, registry)
    }
}

impl Store for Odd {
    fn revision(&self) -> Result<u64, StoreError> {
        self.store.revision()
    }

    fn entry(&self, key: &str) -> Result<Option<isthmus_store::Entry>, StoreError> {
        self.store.entry(key)
    }

    fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<isthmus_store::Range, StoreError> {
        self.store.range(prefix, after, limit)
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, StoreError>> {
        let how = *super::lock(&self.how);
        match how {
            How::Not => self.store.commit(txn),
            How::Slow => Box::pin(async {
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
                self.store.commit(txn).await
            }),
            How::Refuses => Box::pin(async { Ok(Committed::Refused { revision: self.store.revision()? }) }),
            How::Full => Box::pin(async { Err(StoreError::Full { path: "/data/store.redb".into() }) }),
        }
    }

    fn watch(&self, prefix: &str, from: u64) -> Result<isthmus_store::Watch, isthmus_store::WatchError> {
        self.store.watch(prefix, from)
    }

    fn lease_grant(&self, ttl: Duration, now: Instant) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        self.store.lease_grant(ttl, now)
    }

    fn lease_keep_alive(&self, lease: LeaseId, now: Instant) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.lease_keep_alive(lease, now)
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.store.lease_revoke(lease)
    }

    fn expire_leases(&self, now: Instant) -> BoxFuture<'_, Result<Vec<LeaseId>, StoreError>> {
        self.store.expire_leases(now)
    }
}

/// Every write of the registry, as the code that it fails with; `-` where it succeeds.
async fn codes(registry: &Registry) -> Vec<&'static str> {
    fn code<T, E: Fault>(result: Result<T, E>) -> &'static str {
        result.err().map_or("-", |error| error.code().as_str())
    }
    let name = "n1".parse().unwrap();
    let cluster = "red".parse().unwrap();
    let rule = super::RuleDraft { from: "web".to_owned(), to: "web".to_owned(), port: "any".to_owned() };
    let policy = super::PolicyDraft {
        name: "new".parse().unwrap(),
        labels: Labels::new(),
        reason: None,
        rules: vec![rule],
    };
    let cf = CfPolicy {
        source: Uuid::from_u128(1).to_string(),
        destination: Uuid::from_u128(2).to_string(),
        protocol: "tcp".to_owned(),
        start: 1,
        end: 1,
    };
    let draft = |name: &str| ClusterDraft {
        name: name.parse().unwrap(),
        labels: Labels::from([("x".to_owned(), "y".to_owned())]),
        platform: Platform::Kubernetes,
        closed: None,
        reject: None,
        asn: None,
        topology: None,
        announce_endpoints: false,
        paths_max: None,
        external: false,
    };
    vec![
        code(registry.replace_cluster(&draft("red"), None, false).await),
        code(registry.create_pool(&pool("red-2", "red", "10.65.0.0/24"), false).await),
        code(registry.delete_pool(&"red-1".parse().unwrap(), None, false).await),
        code(registry.register_node(&node("n2", 2)).await),
        code(registry.lease_block(&name, &cluster).await),
        code(registry.resolve_workload(&workload("red", "new", "")).await),
        code(registry.create_policy(&policy, false).await),
        code(registry.delete_policy(&"old".parse().unwrap(), None, false).await),
        code(registry.create_cf_policies(BTreeSet::from([cf])).await),
        code(registry.delete_node(&name, false).await),
    ]
}

#[tokio::test]
async fn a_write_that_cannot_be_is_told_and_the_next_one_works() {
    let (store, registry) = Odd::start();
    let draft = ClusterDraft {
        name: "red".parse().unwrap(),
        labels: Labels::new(),
        platform: Platform::Kubernetes,
        closed: None,
        reject: None,
        asn: None,
        topology: None,
        announce_endpoints: false,
        paths_max: None,
        external: false,
    };
    registry.create_cluster(&draft, false).await.unwrap();
    registry.create_pool(&pool("red-1", "red", "10.64.0.0/24"), false).await.unwrap();
    registry.register_node(&node("n1", 1)).await.unwrap();
    registry.resolve_workload(&workload("red", "web", "")).await.unwrap();
    let rule = super::RuleDraft { from: "web".to_owned(), to: "web".to_owned(), port: "any".to_owned() };
    let old = super::PolicyDraft {
        name: "old".parse().unwrap(),
        labels: Labels::new(),
        reason: None,
        rules: vec![rule],
    };
    registry.create_policy(&old, false).await.unwrap();
    let before = store.revision().unwrap();
    for how in [How::Refuses, How::Full] {
        *super::lock(&store.how) = how;
        let found = codes(&registry).await;
        assert!(found.iter().all(|code| *code == "ISE-0005"), "{how:?}: {found:?}");
    }
    assert_eq!(store.revision().unwrap(), before);
    *super::lock(&store.how) = How::Not;
    let found = codes(&registry).await;
    assert!(found.iter().all(|code| *code == "-"), "{found:?}");
}

#[tokio::test]
async fn of_pools_that_overlap_and_are_made_at_once_one_wins() {
    let rig = Rig::start(2).await;
    let (one, other) = (pool("a", "red", "10.64.0.0/16"), pool("b", "green", "10.64.7.0/24"));
    let (first, second) = tokio::join!(
        rig.registries[0].create_pool(&one, false),
        rig.registries[1].create_pool(&other, false)
    );
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let refused = first.err().or(second.err()).unwrap();
    let text = refused.to_string();
    assert!(text.contains("pool a") && text.contains("pool b"), "{text}");
}
