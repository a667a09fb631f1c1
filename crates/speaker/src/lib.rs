//! BGP's sockets, timers, configuration and API, around the engine of `isthmus-bgp`.
#![forbid(unsafe_code)]

pub mod config;

pub use config::Config;
