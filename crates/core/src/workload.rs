//! What a user deploys: its immutable key, its UUID, and the name that people read.

use crate::{ClusterName, NameError, Platform, PlatformError};
use std::{collections::BTreeMap, fmt, str::FromStr};
use uuid::Uuid;

/// Labels of a workload or endpoint.
pub type Labels = BTreeMap<String, String>;

/// Namespace of the version-5 UUIDs of workloads.
const WORKLOAD_UUID_NAMESPACE: Uuid = Uuid::from_u128(0x6973_7468_6d75_7300_8000_776f_726b_6c64);

/// What tells one workload of a cluster from another, for good: the platform's own id (a Cloud Foundry app's GUID),
/// or its path of names where there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// The cluster that runs it.
    pub cluster: ClusterName,
    /// The id within the cluster, not empty.
    pub id: String,
}

impl WorkloadKey {
    /// The UUID that every API accepts: the id itself where it is one, else made from cluster and id (RFC 9562, version 5).
    pub fn uuid(&self) -> Uuid {
        Uuid::try_parse(&self.id).unwrap_or_else(|_| {
            Uuid::new_v5(&WORKLOAD_UUID_NAMESPACE, format!("{}\0{}", self.cluster, self.id).as_bytes())
        })
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.id)
    }
}

/// The full name of a workload: `platform:group/app@cluster`, for example `cf:acme/prod/cart@green`.
///
/// The group may have several parts, or none (`host:db1@lab`). Display names may change while a workload lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadName {
    /// Kind of orchestrator.
    pub platform: Platform,
    /// Namespace, or organization and space; empty where the platform has none.
    pub group: String,
    /// Name within the group, not empty.
    pub app: String,
    /// The cluster that runs it.
    pub cluster: ClusterName,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.platform.prefix())?;
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        write!(f, "{}@{}", self.app, self.cluster)
    }
}

/// A workload as a person writes it: any of platform, group and cluster may be left out (`cart`, `cf:acme/prod/cart`,
/// `web@red`), or it is a UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadPattern {
    /// A UUID, of any workload.
    Uuid(Uuid),
    /// Parts of a name.
    Name {
        /// Kind of orchestrator, if written.
        platform: Option<Platform>,
        /// Group, if written.
        group: Option<String>,
        /// Name within the group.
        app: String,
        /// Cluster, if written.
        cluster: Option<ClusterName>,
    },
}

impl WorkloadPattern {
    /// Whether the workload with this name and UUID is meant.
    pub fn matches(&self, name: &WorkloadName, uuid: Uuid) -> bool {
        match self {
            Self::Uuid(wanted) => *wanted == uuid,
            Self::Name { platform, group, app, cluster } => {
                platform.is_none_or(|wanted| wanted == name.platform)
                    && group.as_ref().is_none_or(|wanted| *wanted == name.group)
                    && *app == name.app
                    && cluster.as_ref().is_none_or(|wanted| *wanted == name.cluster)
            }
        }
    }
}

impl FromStr for WorkloadPattern {
    type Err = WorkloadNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(uuid) = Uuid::try_parse(text) {
            return Ok(Self::Uuid(uuid));
        }
        let (rest, cluster) = match text.rsplit_once('@') {
            Some((rest, cluster)) => (rest, Some(cluster.parse()?)),
            None => (text, None),
        };
        let (platform, path) = match rest.split_once(':') {
            Some((platform, path)) => (Some(platform.parse()?), path),
            None => (None, rest),
        };
        let (group, app) = match path.rsplit_once('/') {
            Some((group, app)) => (Some(group.to_owned()), app),
            None => (None, path),
        };
        if app.is_empty() {
            return Err(WorkloadNameError::NoApp(text.to_owned()));
        }
        Ok(Self::Name { platform, group, app: app.to_owned(), cluster })
    }
}

/// Why a text names no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadNameError {
    /// The part before the colon.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The part after the at sign.
    #[error(transparent)]
    Cluster(#[from] NameError),
    /// Nothing that names the app.
    #[error(
        "\"{0}\" names no app: write platform:group/app@cluster, for example k8s:shop/web@red, or just web"
    )]
    NoApp(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkloadName {
        let WorkloadPattern::Name { platform, group, app, cluster } = text.parse().unwrap() else {
            unreachable!()
        };
        WorkloadName {
            platform: platform.unwrap(),
            group: group.unwrap_or_default(),
            app,
            cluster: cluster.unwrap(),
        }
    }

    #[test]
    fn full_names_print_as_they_are_written() {
        for text in
            ["k8s:shop/web@red", "cf:acme/prod/cart@green", "nomad:default/ledger@blue", "host:db1@lab"]
        {
            assert_eq!(name(text).to_string(), text);
        }
    }

    #[test]
    fn short_patterns_match_full_names() {
        let cart = name("cf:acme/prod/cart@green");
        let uuid = Uuid::from_u128(7);
        for text in ["cart", "cf:acme/prod/cart", "cart@green", "acme/prod/cart", "cf:cart"] {
            assert!(text.parse::<WorkloadPattern>().unwrap().matches(&cart, uuid), "{text}");
        }
        for text in ["k8s:cart", "cart@red", "prod/cart", "car"] {
            assert!(!text.parse::<WorkloadPattern>().unwrap().matches(&cart, uuid), "{text}");
        }
        assert!(uuid.to_string().parse::<WorkloadPattern>().unwrap().matches(&cart, uuid));
    }

    #[test]
    fn a_cloud_foundry_guid_is_the_uuid_itself() {
        let guid = "bc6f229d-5e4a-4c41-a63f-e8795496c283";
        let key = WorkloadKey { cluster: "green".parse().unwrap(), id: guid.to_owned() };
        assert_eq!(key.uuid().to_string(), guid);
    }

    #[test]
    fn the_same_path_on_two_clusters_is_two_uuids() {
        let key =
            |cluster: &str| WorkloadKey { cluster: cluster.parse().unwrap(), id: "shop/web".to_owned() };
        assert_ne!(key("red").uuid(), key("blue").uuid());
        assert_eq!(key("red").uuid(), key("red").uuid());
    }
}
