//! Which crate may use which: dependencies point down a tier, engines do not know each other.

use crate::{Fault, tree::Metadata};
use std::collections::{BTreeMap, BTreeSet};

/// Each crate and those that it may use. Tests may use more.
const MAY_USE: [(&str, &[&str]); 17] = [
    // Words.
    ("isthmus-core", &[]),
    ("isthmus-api", &["isthmus-core"]),
    ("isthmus-dataplane-common", &[]),
    // Engines.
    ("isthmus-policy", &["isthmus-core"]),
    ("isthmus-ipam", &["isthmus-core"]),
    ("isthmus-bgp", &["isthmus-core"]),
    // Shells.
    ("isthmus-store", &["isthmus-core"]),
    ("isthmus-dataplane", &["isthmus-core", "isthmus-dataplane-common"]),
    // Owners.
    ("isthmus-server", &["isthmus-api", "isthmus-core", "isthmus-ipam", "isthmus-policy", "isthmus-store"]),
    (
        "isthmus-agent",
        &["isthmus-api", "isthmus-core", "isthmus-dataplane", "isthmus-ipam", "isthmus-speaker"],
    ),
    ("isthmus-speaker", &["isthmus-api", "isthmus-bgp", "isthmus-core"]),
    // Edges.
    ("isthmus-cni", &["isthmus-api", "isthmus-core"]),
    ("isthmus-garden", &["isthmus-api", "isthmus-core"]),
    (
        "isthmus",
        &[
            "isthmus-agent",
            "isthmus-api",
            "isthmus-core",
            "isthmus-dataplane",
            "isthmus-server",
            "isthmus-speaker",
            "isthmus-store",
            "isthmus-testbed",
        ],
    ),
    // Aside.
    ("isthmus-testbed", &["isthmus-api", "isthmus-core"]),
    ("isthmus-ebpf", &["isthmus-dataplane-common"]),
    ("xtask", &[]),
];

/// Crates that do I/O, which nothing under an engine or under the words may use.
const IO: &[&str] = &[
    "async-std",
    "axum",
    "aya",
    "etcd-client",
    "hyper",
    "kube",
    "mio",
    "netlink-sys",
    "redb",
    "reqwest",
    "rtnetlink",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tonic",
];

/// Async runtimes, which the thin programs do without.
const RUNTIMES: &[&str] = &["async-std", "axum", "hyper", "mio", "smol", "tokio", "tonic"];

/// Crates, and what they may not use however indirectly.
const MAY_NOT_USE: [(&str, &[&str]); 7] = [
    ("isthmus-core", IO),
    ("isthmus-policy", IO),
    ("isthmus-ipam", IO),
    ("isthmus-bgp", IO),
    ("isthmus-dataplane-common", IO),
    ("isthmus-cni", RUNTIMES),
    ("isthmus-garden", RUNTIMES),
];

/// Finds edges that the table does not have.
pub(crate) fn check(metadata: &Metadata) -> Vec<Fault> {
    let table: BTreeMap<_, _> = MAY_USE.into_iter().collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let place = package.manifest_path.display().to_string();
        let Some(allowed) = table.get(package.name.as_str()) else {
            let what =
                format!("{} has no row in crates/xtask/src/edges.rs: say what it may use", package.name);
            faults.push(Fault::new(place, what));
            continue;
        };
        for used in package.own_dependencies().filter(|used| !allowed.contains(&used.name.as_str())) {
            let what = format!("{} may not use {}: dependencies point down a tier", package.name, used.name);
            faults.push(Fault::new(place.clone(), what));
        }
    }
    faults
}

/// Finds crates that are used although they may not be, at any depth. `dependencies` lists what a package uses.
pub(crate) fn check_forbidden(
    dependencies: impl Fn(&str) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for (package, forbidden) in MAY_NOT_USE {
        let used: BTreeSet<_> = dependencies(package)?.into_iter().collect();
        for name in forbidden.iter().filter(|name| used.contains(**name)) {
            let what = format!(
                "{package} may not use {name}, not even through another crate: cargo tree -p {package} -i {name}"
            );
            faults.push(Fault::new(package, what));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Dependency, Package};

    fn package(name: &str, uses: &[(&str, Option<&str>)]) -> Metadata {
        let dependencies = uses
            .iter()
            .map(|(name, kind)| Dependency {
                name: (*name).to_owned(),
                kind: kind.map(str::to_owned),
                path: Some("x".into()),
            })
            .collect();
        let package =
            Package { name: name.to_owned(), manifest_path: "m".into(), dependencies, targets: Vec::new() };
        Metadata { packages: vec![package] }
    }

    #[test]
    fn edges_that_point_up_or_aside_are_found() {
        assert!(check(&package("isthmus-policy", &[("isthmus-core", None)])).is_empty());
        assert_eq!(check(&package("isthmus-policy", &[("isthmus-ipam", None)])).len(), 1);
        assert_eq!(check(&package("isthmus-core", &[("isthmus-api", Some("build"))])).len(), 1);
        assert!(check(&package("isthmus-policy", &[("isthmus-store", Some("dev"))])).is_empty());
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert!(check(&package("isthmus-new", &[]))[0].what.contains("no row"));
    }

    #[test]
    fn io_under_an_engine_is_found_at_any_depth() {
        let found = check_forbidden(|name| {
            Ok(if name == "isthmus-ipam" { vec!["uuid".to_owned(), "tokio".to_owned()] } else { Vec::new() })
        });
        let found = found.unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].what.starts_with("isthmus-ipam may not use tokio"));
    }
}
