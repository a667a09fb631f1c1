//! The dataplane of one node.

pub mod model;
