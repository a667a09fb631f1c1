//! Types that cross a network or a socket.
//!
//! | module | between | encoding |
//! | --- | --- | --- |
//! | [`rest`] | people, the CLI, orchestrators and the server | JSON over HTTP, `/api/v1` |
//! | [`local`] | people's tools and the agent's socket; answers of agents to the server | JSON over HTTP on a Unix socket |
//! | [`adapter`] | CNI and Garden programs and the agent | length-prefixed JSON and descriptors on a root-only socket |
//! | `stream` (feature) | agents and the server | gRPC |
//!
//! Nothing computes with these types; whoever receives one turns it into words of `isthmus-core` at once.
#![forbid(unsafe_code)]

pub mod adapter;
#[cfg(feature = "client")]
pub mod client;
pub mod local;
pub mod rest;

/// The stream between agents and the server, generated from `proto/agent.proto`.
#[cfg(feature = "stream")]
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto file has the documentation"
)]
pub mod stream {
    tonic::include_proto!("isthmus.agent.v1");

    /// Version of the protocol, in `Hello` and `Welcome`.
    pub const PROTOCOL: u32 = 1;
    /// Largest message either side accepts: a table of 1,000,000 rules.
    pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

    impl std::fmt::Debug for BgpPeer {
        /// What tells one neighbour from another, and never its password.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("BgpPeer")
                .field("name", &self.name)
                .field("address", &self.address)
                .field("asn", &self.asn)
                .field("node", &self.node)
                .field("password_set", &!self.password.is_empty())
                .finish_non_exhaustive()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_password_is_never_printed() {
            let peer = BgpPeer {
                name: "tor".to_owned(),
                password: "correct horse".to_owned(),
                ..BgpPeer::default()
            };
            let upsert = Upsert {
                key: "bgp-peer/tor".to_owned(),
                value: Some(upsert::Value::BgpPeer(peer)),
                ..Upsert::default()
            };
            let text = format!("{upsert:?}");
            assert!(text.contains("password_set: true"), "{text}");
            assert!(!text.contains("correct horse"), "{text}");
        }
    }
}
