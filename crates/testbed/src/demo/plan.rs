//! What the demo consists of: clusters, nodes, apps. Plain values.

use crate::namespace::Namespace;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Namespace of the version-5 UUIDs of what the demo's orchestrators would have made up.
const UUIDS: Uuid = Uuid::from_u128(0x6973_7468_6d75_7300_8000_6465_6d6f_0001);

/// A kind of platform that the demo plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Platform {
    Kubernetes,
    CloudFoundry,
    Nomad,
}

impl Platform {
    /// As the API calls it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::CloudFoundry => "cloudfoundry",
            Self::Nomad => "nomad",
        }
    }

    /// As names of workloads begin.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Kubernetes => "k8s",
            Self::CloudFoundry => "cf",
            Self::Nomad => "nomad",
        }
    }
}

/// One cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster {
    pub(super) name: &'static str,
    pub(super) platform: Platform,
    pub(super) pool: &'static str,
}

/// All clusters.
pub(super) const CLUSTERS: [Cluster; 3] = [
    Cluster { name: "red", platform: Platform::Kubernetes, pool: "10.64.0.0/16" },
    Cluster { name: "green", platform: Platform::CloudFoundry, pool: "10.80.0.0/16" },
    Cluster { name: "blue", platform: Platform::Nomad, pool: "10.96.0.0/16" },
];

/// Group, app, and the nodes of its instances. The first three are the small demo.
const APPS: [(&str, &str, &[&str]); 9] = [
    ("shop", "web", &["red-1", "red-2"]),
    ("acme/prod", "cart", &["green-1", "green-2"]),
    ("default", "ledger", &["blue-1", "blue-2"]),
    ("shop", "api", &["red-2"]),
    ("batch", "report", &["red-1"]),
    ("acme/prod", "search", &["green-2"]),
    ("acme/prod", "orders", &["green-1"]),
    ("default", "audit", &["blue-2"]),
    ("default", "mail", &["blue-1"]),
];

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    /// `red-1`.
    pub(super) name: String,
    /// Its cluster.
    pub(super) cluster: String,
    /// From 1; gives its address.
    pub(super) number: u8,
}

impl Node {
    pub(super) fn namespace(&self) -> Namespace {
        Namespace::named(format!("{}{}", super::PREFIX, self.name))
    }

    pub(super) fn cluster(&self) -> Cluster {
        cluster(&self.cluster)
    }
}

/// One container that is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instance {
    /// `web-0`.
    pub(super) name: String,
    /// `web`.
    pub(super) app: String,
    /// Kubernetes's namespace, organization and space, or Nomad's namespace.
    pub(super) group: String,
    /// Its cluster.
    pub(super) cluster: String,
    /// Its node.
    pub(super) node: String,
    /// Among the instances of its app.
    pub(super) index: u32,
}

impl Instance {
    pub(super) fn cluster(&self) -> Cluster {
        cluster(&self.cluster)
    }

    /// `k8s:shop/web@red`.
    pub(super) fn full_name(&self) -> String {
        format!("{}:{}/{}@{}", self.cluster().platform.prefix(), self.group, self.app, self.cluster)
    }

    /// The instance's own UUID: pod UID, Garden's handle, or allocation id.
    pub(super) fn uuid(&self) -> Uuid {
        uuid(&format!("{}/{}/{}", self.cluster, self.group, self.name))
    }

    /// The GUID that Cloud Foundry would give to its app.
    pub(super) fn app_guid(&self) -> Uuid {
        uuid(&format!("{}/{}/{}/app", self.cluster, self.group, self.app))
    }
}

fn cluster(name: &str) -> Cluster {
    // Names come from CLUSTERS alone, or from a state file that holds such names; then the first is as good as any.
    CLUSTERS.into_iter().find(|cluster| cluster.name == name).unwrap_or(CLUSTERS[0])
}

/// The UUID that stands for `what`.
pub(super) fn uuid(what: &str) -> Uuid {
    Uuid::new_v5(&UUIDS, what.as_bytes())
}

/// Nodes and containers of the demo.
pub(super) fn plan(small: bool) -> (Vec<Node>, Vec<Instance>) {
    let each = if small { 1 } else { 2 };
    let names = CLUSTERS.iter().flat_map(|cluster| (1..=each).map(|number| (cluster.name, number)));
    let nodes: Vec<_> = names
        .zip(1..)
        .map(|((cluster, index), number)| Node {
            name: format!("{cluster}-{index}"),
            cluster: cluster.to_owned(),
            number,
        })
        .collect();
    let apps = if small { &APPS[..CLUSTERS.len()] } else { &APPS[..] };
    let lives = |place: &&&str| nodes.iter().any(|node| node.name == **place);
    let instances = apps.iter().flat_map(|(group, app, places)| {
        places.iter().filter(lives).zip(0..).map(move |(node, index)| Instance {
            name: format!("{app}-{index}"),
            app: (*app).to_owned(),
            group: (*group).to_owned(),
            cluster: node.split('-').next().unwrap_or_default().to_owned(),
            node: (*node).to_owned(),
            index,
        })
    });
    let instances = instances.collect();
    (nodes, instances)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_has_a_node_of_its_cluster() {
        for small in [false, true] {
            let (nodes, instances) = plan(small);
            for instance in instances {
                let node = nodes.iter().find(|node| node.name == instance.node).unwrap();
                assert_eq!(node.cluster, instance.cluster);
            }
        }
    }

    #[test]
    fn the_small_demo_has_one_of_each() {
        let (nodes, instances) = plan(true);
        let clusters: Vec<_> = instances.iter().map(|instance| instance.cluster.as_str()).collect();
        assert_eq!((nodes.len(), clusters), (3, vec!["red", "green", "blue"]));
    }

    #[test]
    fn full_names_are_as_the_cli_prints_them() {
        let (_, instances) = plan(false);
        let cart = instances.iter().find(|instance| instance.name == "cart-1").unwrap();
        assert_eq!(cart.full_name(), "cf:acme/prod/cart@green");
    }
}
