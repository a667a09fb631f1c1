//! The kinds of orchestrator.

use crate::{DefaultVerdict, DenyAnswer};
use std::{fmt, str::FromStr};

/// A kind of orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// Kubernetes, or a container runtime used the way the kubelet does.
    Kubernetes,
    /// Cloud Foundry.
    CloudFoundry,
    /// Nomad.
    Nomad,
    /// Docker Swarm.
    Swarm,
    /// Mesos, with Marathon or DC/OS.
    Mesos,
    /// Containers and virtual machines without an orchestrator.
    Standalone,
}

impl Platform {
    /// Every platform, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Kubernetes, Self::CloudFoundry, Self::Nomad, Self::Swarm, Self::Mesos, Self::Standalone];

    /// The long word, as in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::CloudFoundry => "cloudfoundry",
            Self::Nomad => "nomad",
            Self::Swarm => "swarm",
            Self::Mesos => "mesos",
            Self::Standalone => "standalone",
        }
    }

    /// The short word that begins a workload's name.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Kubernetes => "k8s",
            Self::CloudFoundry => "cf",
            Self::Nomad => "nomad",
            Self::Swarm => "swarm",
            Self::Mesos => "mesos",
            Self::Standalone => "host",
        }
    }

    /// What the platform's users expect between apps that no rule names.
    pub const fn default_verdict(self) -> DefaultVerdict {
        match self {
            Self::CloudFoundry => DefaultVerdict::Closed,
            _ => DefaultVerdict::Open,
        }
    }

    /// How the platform's users expect a denied packet to be answered.
    pub const fn deny_answer(self) -> DenyAnswer {
        match self {
            Self::CloudFoundry => DenyAnswer::Reject,
            _ => DenyAnswer::Drop,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads the long or the short word.
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.as_str() == word || platform.prefix() == word)
            .ok_or_else(|| PlatformError(word.to_owned()))
    }
}

/// The word is no platform's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no platform: write kubernetes, cloudfoundry, nomad, swarm, mesos or standalone")]
pub struct PlatformError(pub String);
