//! `isthmus demo`: three clusters of two nodes each on one machine, a guided story, and drills.
//!
//! Everything it makes is below [`RUN`], in namespaces called `isd-…`, in the cgroup [`CGROUP`], or is the interface
//! [`HOST_LINK`]; `down` takes all of it away. Standard output is for answers, standard error for progress.

mod down;
mod drill;
mod instance;
mod plan;
mod record;
mod shell;
mod status;
mod tour;
mod up;

use crate::demo_bgp::{self, BgpDemoCommand};
use anyhow::{Context as _, bail};
use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

/// Directory of everything that the demo writes.
pub const RUN: &str = "/run/isthmus-demo";
/// What the names of its namespaces begin with.
pub const PREFIX: &str = "isd-";
/// Its one interface in the host's own namespace.
pub const HOST_LINK: &str = "isd-host";
/// Its containers' cgroup, in every hierarchy.
pub const CGROUP: &str = "isthmus-demo";
/// File with the server's REST address while the demo is up.
pub const SERVER_FILE: &str = "/run/isthmus-demo/server";

/// Arguments of `isthmus demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    #[command(subcommand)]
    command: DemoCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum DemoCommand {
    /// Starts three clusters with their nodes, agents and apps. Does nothing if they are up.
    #[command(after_help = "Examples:\n  sudo isthmus demo up\n  sudo isthmus demo up --small")]
    Up {
        /// One node and one app for each cluster.
        #[arg(long)]
        small: bool,
    },
    /// Shows nodes and apps, and whether they answer.
    Status,
    /// Tells the story of one connection: denied, allowed, seen on the wire, revoked.
    #[command(after_help = "Examples:\n  sudo isthmus demo tour\n  sudo isthmus demo tour --check")]
    Tour {
        /// Asks nobody, compares everything with what must be, and fails on any difference.
        #[arg(long)]
        check: bool,
    },
    /// Opens a shell in an app's container, or runs a command there.
    #[command(
        after_help = "Examples:\n  sudo isthmus demo shell cart\n  sudo isthmus demo shell web-1 -- ip address"
    )]
    Shell {
        /// The app: `web`, or `web-1` for its second instance.
        app: String,
        /// Command to run instead of a shell.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Breaks something on purpose and counts what was lost.
    Drill {
        #[command(subcommand)]
        drill: Drill,
    },
    /// Another demo: two platforms find each other through a BGP reflector, without tunnel or NAT.
    Bgp {
        #[command(subcommand)]
        command: BgpDemoCommand,
    },
    /// Removes everything that `up` made.
    Down,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Drill {
    /// Kills every agent with SIGKILL and starts it again, under traffic across nodes.
    #[command(after_help = "Examples:\n  sudo isthmus demo drill agent-kill\n  \
        sudo isthmus demo drill agent-kill --seconds 60 -o json\n\nExit status: 0 nothing lost, 1 something, 2 a failure.")]
    AgentKill(drill::AgentKillArgs),
}

/// Runs a demo command and returns its exit code: 0 done, 1 a difference or a loss, 2 a failure.
///
/// Blocks; starts its own async runtimes, so it must not be called from inside one.
pub fn run(args: DemoArgs) -> u8 {
    let outcome = match args.command {
        DemoCommand::Up { small } => up::up(small),
        DemoCommand::Status => status::status(),
        DemoCommand::Tour { check } => tour::tour(check),
        DemoCommand::Shell { app, command } => shell::shell(&app, &command),
        DemoCommand::Drill { drill: Drill::AgentKill(args) } => drill::agent_kill(&args),
        DemoCommand::Bgp { command } => return demo_bgp::run(&command),
        DemoCommand::Down => down::down(),
    };
    outcome.unwrap_or_else(|error| {
        let _closed = writeln!(std::io::stderr(), "error: {error:#}");
        2
    })
}

/// Refuses whoever cannot make namespaces, and lets one demo command change things at a time.
fn lock() -> anyhow::Result<File> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demo makes network namespaces and loads programs into the kernel: run it as root (sudo)");
    }
    fs::create_dir_all(RUN).with_context(|| format!("cannot make {RUN}"))?;
    let path = Path::new(RUN).join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .context("another demo command is changing things: wait for its end")?;
    Ok(file)
}
