//! The versions of the CNI specification that the plugin speaks.

use std::fmt;

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0; also what a configuration without `cniVersion` means.
    V010,
    /// 0.2.0: the newest that Mesos reads.
    V020,
    /// 0.3.0: `interfaces` and `ips`.
    V030,
    /// 0.3.1.
    V031,
    /// 0.4.0: CHECK, and `prevResult` at DEL.
    V040,
    /// 1.0.0: no `version` in `ips`.
    V100,
    /// 1.1.0: GC, STATUS, and more in interfaces and routes.
    V110,
}

impl Version {
    /// All, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V010, Self::V020, Self::V030, Self::V031, Self::V040, Self::V100, Self::V110];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V010 => "0.1.0",
            Self::V020 => "0.2.0",
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// The version that is written like this, if the plugin speaks it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
