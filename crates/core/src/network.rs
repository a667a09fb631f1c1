//! Words for how packets travel, and for who peers with whom.

use std::{fmt, str::FromStr};

/// A text that is none of a setting's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is \"{found}\": write {words}")]
pub struct NotAWord {
    /// The setting.
    pub what: &'static str,
    /// The text.
    pub found: String,
    /// What may be written.
    pub words: &'static str,
}

macro_rules! word {
    ($type:ident, $what:literal, $first:ident = $first_word:literal $(, $variant:ident = $word:literal)+) => {
        impl $type {
            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = NotAWord;

            fn from_str(text: &str) -> Result<Self, NotAWord> {
                match text {
                    $first_word => Ok(Self::$first),
                    $($word => Ok(Self::$variant),)+
                    _ => Err(NotAWord {
                        what: $what,
                        found: text.to_owned(),
                        words: concat!($first_word, $(" or ", $word),+),
                    }),
                }
            }
        }
    };
}

/// Whether packets between nodes go in a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encapsulation {
    /// Between all nodes.
    #[default]
    Always,
    /// Only between nodes that are not on one link.
    CrossSubnet,
    /// Never: the network between the nodes routes containers' addresses.
    Never,
}

word!(Encapsulation, "encapsulation", Always = "always", CrossSubnet = "cross-subnet", Never = "never");

/// By which interface a native packet may come in (RFC 3704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceCheck {
    /// Only by the one that answers leave by.
    #[default]
    Strict,
    /// By any, if there is a route back.
    Loose,
}

word!(SourceCheck, "source check", Strict = "strict", Loose = "loose");

/// Which nodes of a cluster are BGP neighbours by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topology {
    /// Every node of every other; where reflectors are, only with them.
    #[default]
    FullMesh,
    /// None: all neighbours are declared.
    None,
}

word!(Topology, "topology", FullMesh = "full-mesh", None = "none");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in [Encapsulation::Always, Encapsulation::CrossSubnet, Encapsulation::Never] {
            assert_eq!(word.as_str().parse(), Ok(word));
        }
        for word in [SourceCheck::Strict, SourceCheck::Loose] {
            assert_eq!(word.as_str().parse(), Ok(word));
        }
        for word in [Topology::FullMesh, Topology::None] {
            assert_eq!(word.as_str().parse(), Ok(word));
        }
        let why = "sometimes".parse::<Encapsulation>().unwrap_err().to_string();
        assert_eq!(why, "encapsulation is \"sometimes\": write always or cross-subnet or never");
    }
}
