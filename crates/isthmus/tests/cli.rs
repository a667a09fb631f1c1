//! The command line as a process: against a real server in this process, and against ones that say what they are told.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod cli {
    pub(crate) mod agent;
    pub(crate) mod bgp;
    pub(crate) mod daemon;
    pub(crate) mod help;
    pub(crate) mod rig;
    pub(crate) mod server;
    pub(crate) mod told;
}
