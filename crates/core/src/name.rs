//! Names of the things an operator makes: clusters, nodes, pools, policies.

use std::{fmt, str::FromStr};

/// Longest name, in bytes (RFC 1035 section 2.3.4: a label).
pub const NAME_BYTES_MAX: usize = 63;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("{kind} name is empty")]
    Empty {
        /// What was to be named.
        kind: &'static str,
    },
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("{kind} name \"{name}\" is longer than 63 bytes")]
    TooLong {
        /// What was to be named.
        kind: &'static str,
        /// The text.
        name: String,
    },
    /// A character that a name cannot have.
    #[error(
        "{kind} name \"{name}\" has '{character}': use letters, digits, '-', '_' and '.', and begin and end with a letter or digit"
    )]
    Character {
        /// What was to be named.
        kind: &'static str,
        /// The text.
        name: String,
        /// The first bad character.
        character: char,
    },
}

fn check(kind: &'static str, name: &str) -> Result<(), NameError> {
    let (Some(first), Some(last)) = (name.chars().next(), name.chars().next_back()) else {
        return Err(NameError::Empty { kind });
    };
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { kind, name: name.to_owned() });
    }
    let inner = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    let edge = [first, last].into_iter().find(|c| !c.is_ascii_alphanumeric());
    match inner.or(edge) {
        Some(character) => Err(NameError::Character { kind, name: name.to_owned(), character }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                check($kind, name)?;
                Ok(Self(name.to_owned()))
            }
        }
    };
}

name!(
    /// Name of one installation of a platform.
    ClusterName,
    "cluster"
);
name!(
    /// Name of a host with an agent.
    NodeName,
    "node"
);
name!(
    /// Name of an address range of a cluster.
    PoolName,
    "pool"
);
name!(
    /// Name of a list of rules.
    PolicyName,
    "policy"
);
name!(
    /// Name of a BGP neighbour that people declare.
    BgpPeerName,
    "bgpPeer"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_border() {
        assert!("red".parse::<ClusterName>().is_ok());
        assert!("diego-cell.0_a".parse::<NodeName>().is_ok());
        assert_eq!("".parse::<NodeName>(), Err(NameError::Empty { kind: "node" }));
        assert!(matches!("a/b".parse::<PoolName>(), Err(NameError::Character { character: '/', .. })));
        assert!(matches!("-a".parse::<PoolName>(), Err(NameError::Character { character: '-', .. })));
        assert!(matches!("a".repeat(64).parse::<PolicyName>(), Err(NameError::TooLong { .. })));
    }
}
