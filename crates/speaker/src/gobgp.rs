//! GoBGP's gRPC API, version 3 (package `apipb`) and 4 (package `api`), so that the stock `gobgp` and its scripts work with
//! this speaker.
//!
//! [`proto`] is generated from `proto/gobgp.proto`, and what differs in version 4 from `proto/gobgp4.proto`; the modules
//! beside them turn views into messages of version 4 and back, `version3` packs those as version 3 has them, and
//! `shift` knows where enumerations count otherwise. All of
//! the 55 calls are answered; those that this speaker does not do say what to do instead.

mod attributes;
mod capabilities;
mod mrt;
mod paths;
mod peers;
mod policy;
mod read_peer;
mod read_policy;
mod service;
mod shift;
mod stations;
mod version3;
mod version4;
mod watch;

pub use mrt::DumpFiles;
pub(crate) use mrt::show_injected;
pub use service::Service;
pub(crate) use service::status;
pub(crate) use version3::{read_attributes, show_path};
pub(crate) use version4::Version4;

/// GoBGP's messages.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto file has the documentation"
)]
pub mod proto {
    tonic::include_proto!("apipb");
}

/// What differs in version 4.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto file has the documentation"
)]
pub mod api {
    tonic::include_proto!("api");
}

use std::time::{SystemTime, UNIX_EPOCH};

/// A time as the API has it; what is before 1970 is 1970.
fn timestamp(time: SystemTime) -> proto::Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    proto::Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

/// A family as the API has it.
fn family(family: isthmus_bgp::Family) -> proto::Family {
    let numbers = family.afi_safi();
    proto::Family { afi: i32::from(numbers.afi), safi: i32::from(numbers.safi) }
}

/// The family that is meant; IPv4 unicast where none is given, as GoBGP does.
///
/// # Errors
///
/// A family that this speaker does not carry.
fn read_family(family: Option<proto::Family>) -> Result<isthmus_bgp::Family, tonic::Status> {
    let Some(proto::Family { afi, safi }) = family else { return Ok(isthmus_bgp::Family::Ipv4Unicast) };
    let numbers = u16::try_from(afi).ok().zip(u8::try_from(safi).ok());
    numbers
        .and_then(|(afi, safi)| isthmus_bgp::Family::from_afi_safi(isthmus_bgp::AfiSafi { afi, safi }))
        .ok_or_else(|| {
            let text =
                format!("address family {afi}/{safi} is not spoken here: only IPv4 and IPv6 unicast are");
            tonic::Status::invalid_argument(text)
        })
}
