//! Where others decide which routes come in and go out.

use crate::{attributes::Attributes, number::Asn, prefix::Prefix};
use std::{fmt, net::IpAddr};

/// What becomes of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes as it is.
    Accept,
    /// It passes with these attributes.
    Change(Box<Attributes>),
    /// It does not pass.
    Reject,
}

/// Whose route is decided about, or to whom it would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// Whether the AS is another than ours.
    pub external: bool,
}

/// A route before a policy.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Where it leads.
    pub prefix: &'a Prefix,
    /// What it carries. On export: before next hop, path and reflection are changed for the neighbour.
    pub attributes: &'a Attributes,
    /// Who sent it to us; `None` for a route of our own.
    pub source: Option<Neighbor>,
    /// Who would get it; `None` on import.
    pub target: Option<Neighbor>,
}

/// Decides about routes. The answer may depend on nothing but the candidate.
pub trait Policy: fmt::Debug + Send + Sync {
    /// What becomes of this route.
    fn verdict(&self, candidate: &Candidate<'_>) -> Verdict;

    /// Which part of the policy decides about this route, in words for people; `None` where it has no parts.
    fn decided_by(&self, _: &Candidate<'_>) -> Option<String> {
        None
    }

    /// Whether the answer on export depends on who the target is. If not, peers share what is encoded for them.
    fn needs_target(&self) -> bool {
        true
    }
}

/// Lets every route pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptAll;

impl Policy for AcceptAll {
    fn verdict(&self, _: &Candidate<'_>) -> Verdict {
        Verdict::Accept
    }

    fn needs_target(&self) -> bool {
        false
    }
}

/// Lets no route pass: what RFC 8212 wants for eBGP until somebody says otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct RejectAll;

impl Policy for RejectAll {
    fn verdict(&self, _: &Candidate<'_>) -> Verdict {
        Verdict::Reject
    }

    fn needs_target(&self) -> bool {
        false
    }
}
