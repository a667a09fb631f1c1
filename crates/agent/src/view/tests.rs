//! The view keeps what belongs together, and its file what the view holds.

use super::{file::ViewFileError, *};
use isthmus_api::stream::Rule;

fn upsert(key: &str, revision: u64, value: upsert::Value) -> Upsert {
    Upsert { key: key.to_owned(), revision, value: Some(value) }
}

fn node(name: &str) -> upsert::Value {
    upsert::Value::Node(Node { name: name.to_owned(), number: 1, addresses: vec!["10.0.0.1".to_owned()] })
}

fn table(identity: u32) -> upsert::Value {
    let rule = Rule { peer: 257, protocol: 6, first_port: 80, last_port: 80, number: 4, ..Rule::default() };
    upsert::Value::Table(VerdictTable { identity, closed: true, reject: false, rules: vec![rule] })
}

fn full_view() -> View {
    let mut view = View { revision: 12, node_number: 3, ..View::default() };
    assert_eq!(view.upsert(upsert("node/n1", 4, node("n1"))), Ok(Change::Network));
    let identity = Identity::new(256).unwrap();
    assert_eq!(view.upsert(upsert("table/000100", 5, table(256))), Ok(Change::Table(identity)));
    let cluster =
        Cluster { name: "red".to_owned(), platform: "kubernetes".to_owned(), closed: true, reject: false };
    assert_eq!(view.upsert(upsert("cluster/red", 6, upsert::Value::Cluster(cluster))), Ok(Change::Names));
    let key = ResolvedKey { cluster: "red".to_owned(), id: "shop/web".to_owned(), labels: BTreeMap::new() };
    let resolved =
        Resolved { identity, uuid: "u".to_owned(), name: "k8s:shop/web@red".to_owned(), used_unix: 9 };
    view.remember(key, resolved);
    view
}

#[test]
fn a_view_is_read_as_it_was_written() {
    let view = full_view();
    assert_eq!(View::from_file(&view.to_file()), Ok(view.clone()));
    assert_eq!(view.table(Identity::new(256).unwrap()).unwrap().rules.len(), 1);
    assert!(view.cluster("red").unwrap().closed);
    assert_eq!(view.nodes().count(), 1);
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let file = full_view().to_file();
    for index in 0..file.len() {
        let mut changed = file.clone();
        changed[index] ^= 1;
        assert!(View::from_file(&changed).is_err(), "byte {index}");
    }
    assert!(View::from_file(&file[..file.len() - 1]).is_err());
    assert_eq!(View::from_file(b"hello"), Err(ViewFileError::Foreign));
}

#[test]
fn a_value_that_does_not_belong_to_its_key_is_refused() {
    let mut view = View::default();
    for (key, value) in
        [("node/n2", node("n1")), ("pool/x", node("n1")), ("table/000101", table(256)), ("odd", node("odd"))]
    {
        assert_eq!(view.upsert(upsert(key, 1, value)), Err(ViewError::Mismatch(key.to_owned())));
    }
    let empty = Upsert { key: "node/n1".to_owned(), revision: 1, value: None };
    assert!(view.upsert(empty).is_err());
    assert_eq!(view, View::default());
}

#[test]
fn what_is_deleted_says_what_it_was() {
    let mut view = full_view();
    assert_eq!(view.delete("table/000100"), Some(Change::Table(Identity::new(256).unwrap())));
    assert_eq!(view.delete("node/n1"), Some(Change::Network));
    assert_eq!(view.delete("node/n1"), None);
    assert_eq!(view.held().len(), 1);
}

#[test]
fn the_workload_that_was_unused_for_longest_is_forgotten() {
    let mut view = View::default();
    let key =
        |n: usize| ResolvedKey { cluster: "red".to_owned(), id: n.to_string(), labels: BTreeMap::new() };
    let resolved = |n: usize| Resolved {
        identity: Identity::new(256).unwrap(),
        uuid: String::new(),
        name: String::new(),
        used_unix: n as u64,
    };
    for n in 0..=RESOLVED_MAX {
        view.remember(key(n), resolved(n));
    }
    assert!(view.resolved(&key(0)).is_none());
    assert!(view.resolved(&key(1)).is_some());
}
