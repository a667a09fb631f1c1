//! One suite for every backend: what `Store` promises, and random histories against a naive model.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint only knows functions marked as tests")]

use isthmus_store::{
    Committed, Compare, Entry, Event, LeaseId, MemoryStore, Operation, RedbStore, Revision, Store,
    StoreError, Target, Txn, Watch, WatchError, limits,
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A store and what must outlive it.
struct Subject {
    store: Arc<dyn Store>,
    directory: Option<tempfile::TempDir>,
}

fn memory() -> Subject {
    Subject { store: Arc::new(MemoryStore::new()), directory: None }
}

fn redb() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path().join("store.redb")).unwrap();
    Subject { store: Arc::new(store), directory: Some(directory) }
}

macro_rules! conformance {
    ($($case:ident)*) => {
        mod memory_store {
            $(#[tokio::test] async fn $case() { super::$case(super::memory().store).await; })*
        }
        mod redb_store {
            $(#[tokio::test] async fn $case() {
                let super::Subject { store, directory } = super::redb();
                super::$case(store).await;
                drop(directory);
            })*
        }
    };
}

conformance! {
    an_empty_store_is_at_revision_zero
    each_transaction_takes_one_revision
    an_entry_keeps_its_create_revision_until_it_is_deleted
    compares_decide_about_the_whole_transaction
    transactions_without_effect_take_no_revision
    ranges_go_by_prefix_in_the_order_of_bytes_and_in_pages
    limits_are_refused_and_change_nothing
    a_key_with_two_operations_is_refused
    one_of_many_that_race_for_a_key_wins
    a_watch_gives_later_changes_once_and_in_order
    a_watch_sees_only_its_prefix
    a_watch_waits_until_something_happens
    a_watch_from_the_future_is_refused
    a_slow_watch_is_told_that_it_is_compacted
    a_watch_ends_with_its_store
    an_acknowledged_commit_is_in_every_read_and_watch
    a_lease_that_ends_deletes_its_entries_in_one_revision
    a_lease_that_is_kept_alive_stays
    a_revoked_lease_cannot_be_used
    a_put_moves_an_entry_between_leases
    a_lease_has_room_for_so_many_keys
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.commit(Txn::new().then(Operation::put(key, value))).await.unwrap().revision()
}

async fn put_under(store: &dyn Store, key: &str, lease: LeaseId) -> Result<Committed, StoreError> {
    let put = Operation::Put { key: key.to_owned(), value: Vec::new(), lease: Some(lease) };
    store.commit(Txn::new().then(put)).await
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn an_empty_store_is_at_revision_zero(store: Arc<dyn Store>) {
    assert_eq!(store.revision().unwrap(), 0);
    assert_eq!(store.entry("a").unwrap(), None);
    let range = store.range("", None, 10).unwrap();
    assert_eq!((range.revision, range.entries.len(), range.more), (0, 0, false));
}

async fn each_transaction_takes_one_revision(store: Arc<dyn Store>) {
    let txn = Txn::new().then(Operation::put("a", "1")).then(Operation::put("b", "2"));
    assert_eq!(store.commit(txn).await.unwrap(), Committed::Done(1));
    assert_eq!(put(&*store, "c", "3").await, 2);
    assert_eq!(store.revision().unwrap(), 2);
    assert_eq!(store.entry("b").unwrap().unwrap().mod_revision, 1);
}

async fn an_entry_keeps_its_create_revision_until_it_is_deleted(store: Arc<dyn Store>) {
    put(&*store, "a", "1").await;
    put(&*store, "a", "2").await;
    let entry = store.entry("a").unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.value.as_slice()), (1, 2, b"2".as_slice()));
    assert!(store.commit(Txn::new().then(Operation::delete("a"))).await.unwrap().is_done());
    assert_eq!(store.entry("a").unwrap(), None);
    put(&*store, "a", "3").await;
    assert_eq!(store.entry("a").unwrap().unwrap().create_revision, 4);
}

async fn compares_decide_about_the_whole_transaction(store: Arc<dyn Store>) {
    let held = put(&*store, "a", "1").await;
    let cases = [
        (Compare::absent("a"), false),
        (Compare::exists("a"), true),
        (Compare::unchanged("a", held), true),
        (Compare::unchanged("a", held + 1), false),
        (Compare::unchanged("a", 0), false),
        (Compare::absent("b"), true),
        (Compare::exists("b"), false),
        (Compare::unchanged("b", 0), true),
        (Compare::unchanged("b", held), false),
    ];
    for (compare, holds) in cases {
        let before = store.revision().unwrap();
        let txn = Txn::new()
            .when(Compare::exists("a"))
            .when(compare.clone())
            .then(Operation::put("x", "1"))
            .then(Operation::put("y", "1"));
        let committed = store.commit(txn).await.unwrap();
        assert_eq!(committed.is_done(), holds, "{compare:?}");
        assert_eq!(store.revision().unwrap(), before + u64::from(holds));
        assert_eq!(committed.revision(), store.revision().unwrap());
    }
}

async fn transactions_without_effect_take_no_revision(store: Arc<dyn Store>) {
    put(&*store, "a", "1").await;
    assert_eq!(store.commit(Txn::new()).await.unwrap(), Committed::Done(1));
    assert_eq!(store.commit(Txn::new().then(Operation::delete("b"))).await.unwrap(), Committed::Done(1));
    assert_eq!(
        store.commit(Txn::new().when(Compare::absent("a"))).await.unwrap(),
        Committed::Refused { revision: 1 }
    );
    assert_eq!(store.revision().unwrap(), 1);
}

async fn ranges_go_by_prefix_in_the_order_of_bytes_and_in_pages(store: Arc<dyn Store>) {
    for key in ["b/2", "b/10", "b", "b/1", "b0", "a", "c", "b/é"] {
        put(&*store, key, key).await;
    }
    let all = store.range("b/", None, 0).unwrap();
    assert_eq!(keys(&all.entries), ["b/1", "b/10", "b/2", "b/é"]);
    assert_eq!((all.revision, all.more), (8, false));
    assert_eq!(store.range("", None, usize::MAX).unwrap().entries.len(), 8);

    let first = store.range("b/", None, 2).unwrap();
    assert_eq!((keys(&first.entries), first.more), (vec!["b/1", "b/10"], true));
    let second = store.range("b/", Some("b/10"), 2).unwrap();
    assert_eq!((keys(&second.entries), second.more), (vec!["b/2", "b/é"], false));
    assert_eq!(keys(&store.range("b/", Some("a"), 1).unwrap().entries), ["b/1"]);
    assert!(store.range("b/", Some("c"), 1).unwrap().entries.is_empty());
    assert_eq!(keys(&store.range("b/", Some("b/11"), 1).unwrap().entries), ["b/2"]);
}

async fn limits_are_refused_and_change_nothing(store: Arc<dyn Store>) {
    let long = "k".repeat(limits::KEY_BYTES_MAX + 1);
    let many = |make: &dyn Fn(String) -> Txn| {
        (0..=limits::OPERATIONS_MAX).map(|n| make(n.to_string())).fold(Txn::new(), |mut all, mut one| {
            all.compares.append(&mut one.compares);
            all.operations.append(&mut one.operations);
            all
        })
    };
    let heavy = (0..5).map(|n| Operation::put(n.to_string(), vec![0; limits::VALUE_BYTES_MAX]));
    let refused = [
        Txn::new().then(Operation::put(long.clone(), "")),
        Txn::new().then(Operation::delete(long.clone())),
        Txn::new().when(Compare::absent(long)),
        Txn::new().then(Operation::put("a", vec![0; limits::VALUE_BYTES_MAX + 1])),
        many(&|key| Txn::new().then(Operation::put(key, ""))),
        many(&|key| Txn::new().when(Compare { key, target: Target::Absent })),
        Txn { compares: Vec::new(), operations: heavy.collect() },
    ];
    for txn in refused {
        assert!(matches!(store.commit(txn).await, Err(StoreError::TooLarge { .. })));
    }
    assert!(matches!(
        store.commit(Txn::new().then(Operation::put("", "x"))).await,
        Err(StoreError::EmptyKey)
    ));
    assert!(matches!(store.commit(Txn::new().when(Compare::exists(""))).await, Err(StoreError::EmptyKey)));
    assert_eq!(store.revision().unwrap(), 0);

    let key = "k".repeat(limits::KEY_BYTES_MAX);
    let largest = Txn::new().then(Operation::put(key.clone(), vec![7; limits::VALUE_BYTES_MAX]));
    assert!(store.commit(largest).await.unwrap().is_done());
    assert_eq!(store.entry(&key).unwrap().unwrap().value.len(), limits::VALUE_BYTES_MAX);
}

async fn a_key_with_two_operations_is_refused(store: Arc<dyn Store>) {
    let txn = Txn::new().then(Operation::put("a", "1")).then(Operation::delete("a"));
    assert!(matches!(store.commit(txn).await, Err(StoreError::DuplicateKey { key }) if key == "a"));
    assert_eq!(store.revision().unwrap(), 0);
}

async fn one_of_many_that_race_for_a_key_wins(store: Arc<dyn Store>) {
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..50 {
        let store = Arc::clone(&store);
        racers.spawn(async move {
            let txn =
                Txn::new().when(Compare::absent("prize")).then(Operation::put("prize", racer.to_string()));
            (racer, store.commit(txn).await.unwrap().is_done())
        });
    }
    let winners: Vec<i32> =
        racers.join_all().await.into_iter().filter(|(_, won)| *won).map(|(n, _)| n).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(store.entry("prize").unwrap().unwrap().value, winners[0].to_string().into_bytes());
    assert_eq!(store.revision().unwrap(), 1);
}

async fn a_watch_gives_later_changes_once_and_in_order(store: Arc<dyn Store>) {
    put(&*store, "a", "1").await;
    put(&*store, "a", "2").await;
    let mut watch = store.watch("", 1).unwrap();
    let txn = Txn::new().then(Operation::delete("a")).then(Operation::put("b", "3"));
    assert!(store.commit(txn).await.unwrap().is_done());

    let second = watch.next().await.unwrap().unwrap();
    assert_eq!(second.revision, 2);
    assert!(
        matches!(&second.events[..], [Event::Put(entry)] if entry.value == b"2" && entry.create_revision == 1)
    );
    let third = watch.next().await.unwrap().unwrap();
    assert_eq!(third.revision, 3);
    assert!(matches!(
        &third.events[..],
        [Event::Delete { key, mod_revision: 3 }, Event::Put(entry)] if key == "a" && entry.key == "b"
    ));
    assert!(watch.try_next().is_none());
    assert_eq!(watch.seen(), 3);
}

async fn a_watch_sees_only_its_prefix(store: Arc<dyn Store>) {
    let mut watch = store.watch("b/", 0).unwrap();
    put(&*store, "a/1", "").await;
    let txn = Txn::new().then(Operation::put("a/2", "")).then(Operation::put("b/1", ""));
    assert!(store.commit(txn).await.unwrap().is_done());
    put(&*store, "c", "").await;
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len(), batch.events[0].key()), (2, 1, "b/1"));
    assert!(watch.try_next().is_none());
    assert_eq!(watch.seen(), 3);
}

async fn a_watch_waits_until_something_happens(store: Arc<dyn Store>) {
    let mut watch = store.watch("a", 0).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    tokio::task::yield_now().await;
    put(&*store, "b", "").await;
    put(&*store, "a", "").await;
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().revision, 2);
}

async fn a_watch_from_the_future_is_refused(store: Arc<dyn Store>) {
    put(&*store, "a", "").await;
    assert!(store.watch("", 1).is_ok());
    assert_eq!(store.watch("", 2).unwrap_err(), WatchError::Ahead { from: 2, revision: 1 });
}

async fn a_slow_watch_is_told_that_it_is_compacted(store: Arc<dyn Store>) {
    let mut slow = store.watch("", 0).unwrap();
    // Each change is a quarter of what the log keeps.
    for n in 0..5 {
        let value = vec![0; limits::LOG_BYTES_MAX / 4];
        let parts = value.chunks(limits::VALUE_BYTES_MAX).enumerate();
        let puts = parts.map(|(part, value)| Operation::put(format!("{n}/{part}"), value)).collect();
        assert!(store.commit(Txn { compares: Vec::new(), operations: puts }).await.unwrap().is_done());
    }
    let compacted = slow.next().await.unwrap().unwrap_err();
    assert!(compacted.oldest > 0 && compacted.oldest < 5);
    assert_eq!(slow.next().await.unwrap().unwrap_err(), compacted);
    assert_eq!(store.watch("", 0).unwrap_err(), WatchError::Compacted(compacted));
    let mut fresh = store.watch("", compacted.oldest).unwrap();
    assert_eq!(fresh.next().await.unwrap().unwrap().revision, compacted.oldest + 1);
}

async fn a_watch_ends_with_its_store(store: Arc<dyn Store>) {
    let mut watch = store.watch("", 0).unwrap();
    put(&*store, "a", "").await;
    drop(store);
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 1);
    assert!(watch.next().await.is_none());
}

async fn an_acknowledged_commit_is_in_every_read_and_watch(store: Arc<dyn Store>) {
    let mut watch = store.watch("", 0).unwrap();
    for n in 1..=50 {
        let revision = put(&*store, "a", &n.to_string()).await;
        assert_eq!(store.revision().unwrap(), revision);
        assert_eq!(store.entry("a").unwrap().unwrap().mod_revision, revision);
        assert_eq!(store.range("a", None, 1).unwrap().revision, revision);
        assert_eq!(watch.try_next().unwrap().unwrap().revision, revision);
    }
}

async fn a_lease_that_ends_deletes_its_entries_in_one_revision(store: Arc<dyn Store>) {
    let start = Instant::now();
    let lease = store.lease_grant(Duration::from_secs(10), start).await.unwrap();
    assert!(put_under(&*store, "a", lease).await.unwrap().is_done());
    assert!(put_under(&*store, "b", lease).await.unwrap().is_done());
    put(&*store, "c", "").await;
    assert!(store.expire_leases(start + Duration::from_secs(9)).await.unwrap().is_empty());
    assert_eq!(store.revision().unwrap(), 3);

    let mut watch = store.watch("", 3).unwrap();
    assert_eq!(store.expire_leases(start + Duration::from_secs(10)).await.unwrap(), [lease]);
    assert_eq!(keys(&store.range("", None, 0).unwrap().entries), ["c"]);
    let batch = watch.try_next().unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (4, 2));
    assert!(store.expire_leases(start + Duration::from_secs(99)).await.unwrap().is_empty());
}

async fn a_lease_that_is_kept_alive_stays(store: Arc<dyn Store>) {
    let start = Instant::now();
    let lease = store.lease_grant(Duration::from_secs(10), start).await.unwrap();
    assert!(put_under(&*store, "a", lease).await.unwrap().is_done());
    for beat in 1..5 {
        let now = start + Duration::from_secs(9 * beat);
        store.lease_keep_alive(lease, now).await.unwrap();
        assert!(store.expire_leases(now + Duration::from_secs(9)).await.unwrap().is_empty());
    }
    assert!(store.entry("a").unwrap().is_some());
}

async fn a_revoked_lease_cannot_be_used(store: Arc<dyn Store>) {
    let now = Instant::now();
    let lease = store.lease_grant(Duration::from_secs(10), now).await.unwrap();
    assert!(put_under(&*store, "a", lease).await.unwrap().is_done());
    assert_eq!(store.lease_revoke(lease).await.unwrap(), 2);
    assert_eq!(store.entry("a").unwrap(), None);
    assert!(matches!(put_under(&*store, "a", lease).await, Err(StoreError::NoLease { .. })));
    assert!(matches!(store.lease_keep_alive(lease, now).await, Err(StoreError::NoLease { .. })));
    assert_eq!(store.lease_revoke(lease).await.unwrap(), 2);
    assert_ne!(store.lease_grant(Duration::from_secs(10), now).await.unwrap(), lease);
}

async fn a_put_moves_an_entry_between_leases(store: Arc<dyn Store>) {
    let now = Instant::now();
    let first = store.lease_grant(Duration::from_secs(10), now).await.unwrap();
    let second = store.lease_grant(Duration::from_secs(10), now).await.unwrap();
    for key in ["a", "b", "c"] {
        assert!(put_under(&*store, key, first).await.unwrap().is_done());
    }
    assert!(put_under(&*store, "a", second).await.unwrap().is_done());
    put(&*store, "b", "free").await;
    assert!(store.commit(Txn::new().then(Operation::delete("c"))).await.unwrap().is_done());
    put(&*store, "c", "new").await;
    store.lease_revoke(first).await.unwrap();
    assert_eq!(keys(&store.range("", None, 0).unwrap().entries), ["a", "b", "c"]);
    assert_eq!(store.entry("a").unwrap().unwrap().lease, Some(second));
    store.lease_revoke(second).await.unwrap();
    assert_eq!(keys(&store.range("", None, 0).unwrap().entries), ["b", "c"]);
}

async fn a_lease_has_room_for_so_many_keys(store: Arc<dyn Store>) {
    let lease = store.lease_grant(Duration::from_secs(10), Instant::now()).await.unwrap();
    for group in 0..limits::LEASE_KEYS_MAX / limits::OPERATIONS_MAX {
        let puts = (0..limits::OPERATIONS_MAX)
            .map(|n| Operation::Put { key: format!("{group}/{n}"), value: Vec::new(), lease: Some(lease) })
            .collect();
        assert!(store.commit(Txn { compares: Vec::new(), operations: puts }).await.unwrap().is_done());
    }
    assert!(matches!(put_under(&*store, "more", lease).await, Err(StoreError::TooLarge { .. })));
    assert!(put_under(&*store, "0/0", lease).await.unwrap().is_done());
    store.lease_revoke(lease).await.unwrap();
    assert!(store.range("", None, 0).unwrap().entries.is_empty());
}

/// The naive store: a map, rebuilt from nothing but the definition.
#[derive(Debug, Default)]
struct Model {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    leases: BTreeMap<LeaseId, Instant>,
    history: Vec<(Revision, BTreeMap<String, Option<Entry>>)>,
}

/// A value, and which lease.
type Put = (u8, Option<u8>);

#[derive(Clone, Debug)]
enum Step {
    Commit { compares: Vec<(u8, u8)>, operations: Vec<(u8, Option<Put>)> },
    Grant(u8),
    KeepAlive(u8),
    Revoke(u8),
    Pass(u8),
}

const TTL: Duration = Duration::from_secs(10);

fn step() -> impl Strategy<Value = Step> {
    let put = prop::option::weighted(0.7, (any::<u8>(), prop::option::weighted(0.4, 0u8..4)));
    let operations = prop::collection::vec((0u8..8, put), 0..4);
    let compares = prop::collection::vec((0u8..8, 0u8..6), 0..2);
    prop_oneof![
        8 => (compares, operations).prop_map(|(compares, operations)| Step::Commit { compares, operations }),
        1 => (0u8..4).prop_map(Step::Grant),
        1 => (0u8..4).prop_map(Step::KeepAlive),
        1 => (0u8..4).prop_map(Step::Revoke),
        2 => (0u8..8).prop_map(Step::Pass),
    ]
}

impl Model {
    fn change(&mut self, changes: BTreeMap<String, Option<Entry>>) {
        if changes.is_empty() {
            return;
        }
        self.revision += 1;
        for (key, entry) in &changes {
            match entry {
                Some(entry) => drop(self.entries.insert(key.clone(), entry.clone())),
                None => drop(self.entries.remove(key)),
            }
        }
        self.history.push((self.revision, changes));
    }

    fn end(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_some() {
            let gone = self.entries.values().filter(|entry| entry.lease == Some(lease));
            self.change(gone.map(|entry| (entry.key.clone(), None)).collect());
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let held = self.entries.get(&compare.key);
        match compare.target {
            Target::Absent | Target::ModRevision(0) => held.is_none(),
            Target::Exists => held.is_some(),
            Target::ModRevision(revision) => held.is_some_and(|entry| entry.mod_revision == revision),
        }
    }

    fn commit(&mut self, txn: &Txn) -> Option<Committed> {
        let mut changes = BTreeMap::new();
        if !txn.compares.iter().all(|compare| self.holds(compare)) {
            return Some(Committed::Refused { revision: self.revision });
        }
        for operation in &txn.operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    if lease.is_some_and(|lease| !self.leases.contains_key(&lease)) {
                        return None;
                    }
                    let next = self.revision + 1;
                    let create_revision = self.entries.get(key).map_or(next, |held| held.create_revision);
                    let (value, lease) = (value.clone(), *lease);
                    let entry = Entry { key: key.clone(), value, create_revision, mod_revision: next, lease };
                    changes.insert(key.clone(), Some(entry));
                }
                Operation::Delete { key } if self.entries.contains_key(key) => {
                    drop(changes.insert(key.clone(), None));
                }
                Operation::Delete { .. } => {}
            }
        }
        self.change(changes);
        Some(Committed::Done(self.revision))
    }
}

/// Carries out one step on both and compares what they say.
async fn check_step(
    store: &dyn Store,
    model: &mut Model,
    leases: &mut [LeaseId; 4],
    now: &mut Instant,
    step: Step,
) {
    match step {
        Step::Commit { compares, operations } => {
            let mut txn = Txn::new();
            for (key, target) in compares {
                let target = match target {
                    0 => Target::Absent,
                    1 => Target::Exists,
                    2 => Target::ModRevision(0),
                    _ => Target::ModRevision(
                        model.entries.get(&key.to_string()).map_or(1, |held| held.mod_revision),
                    ),
                };
                txn = txn.when(Compare { key: key.to_string(), target });
            }
            let operations: BTreeMap<u8, _> = operations.into_iter().collect();
            for (key, put) in operations {
                let key = key.to_string();
                txn = txn.then(match put {
                    Some((value, lease)) => Operation::Put {
                        key,
                        value: vec![value],
                        lease: lease.map(|n| leases[usize::from(n)]),
                    },
                    None => Operation::Delete { key },
                });
            }
            let expected = model.commit(&txn);
            match (store.commit(txn).await, expected) {
                (Ok(committed), Some(expected)) => assert_eq!(committed, expected),
                (Err(StoreError::NoLease { .. }), None) => {}
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
        Step::Grant(n) => {
            let lease = store.lease_grant(TTL, *now).await.unwrap();
            assert!(model.leases.insert(lease, *now + TTL).is_none(), "a lease is used again");
            leases[usize::from(n)] = lease;
        }
        Step::KeepAlive(n) => {
            let lease = leases[usize::from(n)];
            let kept = store.lease_keep_alive(lease, *now).await.is_ok();
            assert_eq!(kept, model.leases.contains_key(&lease));
            model.leases.entry(lease).and_modify(|ends| *ends = *now + TTL);
        }
        Step::Revoke(n) => {
            model.end(leases[usize::from(n)]);
            assert_eq!(store.lease_revoke(leases[usize::from(n)]).await.unwrap(), model.revision);
        }
        Step::Pass(seconds) => {
            *now += Duration::from_secs(seconds.into());
            let over: Vec<_> =
                model.leases.iter().filter(|(_, ends)| **ends <= *now).map(|(id, _)| *id).collect();
            assert_eq!(store.expire_leases(*now).await.unwrap(), over);
            for lease in over {
                model.end(lease);
            }
        }
    }
    assert_eq!(store.revision().unwrap(), model.revision);
    assert_eq!(
        store.range("", None, 0).unwrap().entries,
        model.entries.values().cloned().collect::<Vec<_>>()
    );
}

fn check_history(mut watch: Watch, model: &Model) {
    for (revision, changes) in &model.history {
        let batch = watch.try_next().unwrap().unwrap();
        assert_eq!(batch.revision, *revision);
        let events = batch.events.into_iter().map(|event| match event {
            Event::Put(entry) => (entry.key.clone(), Some(entry)),
            Event::Delete { key, .. } => (key, None),
        });
        assert_eq!(&events.collect::<BTreeMap<_, _>>(), changes);
    }
    assert!(watch.try_next().is_none());
}

fn check_steps(store: &dyn Store, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut model = Model::default();
        let mut leases = [LeaseId(u64::MAX); 4];
        let mut now = Instant::now();
        let watch = store.watch("", 0).unwrap();
        for step in steps {
            check_step(store, &mut model, &mut leases, &mut now, step).await;
        }
        check_history(watch, &model);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn memory_store_equals_the_naive_model(steps in prop::collection::vec(step(), 1..60)) {
        check_steps(&*memory().store, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn redb_store_equals_the_naive_model(steps in prop::collection::vec(step(), 1..40)) {
        check_steps(&*redb().store, steps);
    }
}
