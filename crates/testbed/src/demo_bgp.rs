//! `isthmus demo bgp`: two platforms in one AS find each other's containers through a route reflector, without tunnel or NAT.
//!
//! ```text
//!    Kubernetes, 192.168.0.0/17                 172.16.18.0/24                 DC/OS, 192.168.128.0/17
//!    k8s-1   .11   192.168.0.0/26    ─┐                                  ┌─  dcos-1  .14   192.168.128.0/26
//!    k8s-2   .12   192.168.0.64/26   ─┼── wire ── reflector .1 ── wire ──┼─  dcos-2  .15   192.168.128.64/26
//!    k8s-3   .13   192.168.0.128/26  ─┘                                  └─  dcos-3  .16   192.168.128.128/26
//! ```
//!
//! One server (.2) knows both clusters, and tells their agents of the reflector; the network does not encapsulate. Each node
//! is a network namespace with an agent, and a container behind it that CNI ADD attached; all of it is called `isb-…` and
//! below [`RUN`], and nothing of it is in the host's own namespace. What a node runs is in its module `node` alone.

mod calico;
mod down;
mod node;
mod plan;
mod record;
mod reflector;
mod server;
mod stage;
mod tour;
mod up;

use anyhow::{Context as _, bail};
use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

/// Directory of everything that the demo writes.
pub const RUN: &str = "/run/isthmus-demo-bgp";
/// What the names of its namespaces begin with.
pub const PREFIX: &str = "isb-";

/// What can be done with the demo.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BgpDemoCommand {
    /// Starts a reflector and six nodes. Does nothing if they are up.
    #[command(after_help = "Examples:\n  sudo isthmus demo bgp up")]
    Up,
    /// Tells the story: neighbours, routes, a page, the wire, a node of Calico's kind, a reflector that dies.
    #[command(after_help = "Examples:\n  sudo isthmus demo bgp tour\n  sudo isthmus demo bgp tour --check")]
    Tour {
        /// Asks nobody, compares everything with what must be, and fails on any difference.
        #[arg(long)]
        check: bool,
    },
    /// Removes everything that `up` made.
    Down,
}

/// Runs a command and returns its exit code: 0 done, 1 a difference, 2 a failure. Blocks.
pub fn run(command: &BgpDemoCommand) -> u8 {
    let outcome = match command {
        BgpDemoCommand::Up => up::up(),
        BgpDemoCommand::Tour { check } => tour::tour(*check),
        BgpDemoCommand::Down => down::down(),
    };
    outcome.unwrap_or_else(|error| {
        let _closed = writeln!(std::io::stderr(), "error: {error:#}");
        2
    })
}

/// Refuses whoever cannot make namespaces, and lets one command change things at a time.
fn lock() -> anyhow::Result<File> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demo makes network namespaces: run it as root (sudo)");
    }
    fs::create_dir_all(RUN).with_context(|| format!("cannot make {RUN}"))?;
    let path = Path::new(RUN).join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .context("another command of this demo is changing things: wait for its end")?;
    Ok(file)
}
