//! The words of the command line. Each area's own are beside what they do, in `commands`.

use crate::{
    commands::{
        app, bgp, cluster, daemon, endpoint, flows, ipam, network, node, policy, pool, status, version, why,
    },
    terminal::Color,
};
use clap::{Args, Parser, Subcommand};

/// One network for every container platform.
#[derive(Debug, Parser)]
#[command(
    name = "isthmus",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    after_help = "Examples:\n  isthmus status\n  isthmus why k8s:shop/web cf:acme/prod/cart tcp:8080\n\n\
        Exit status: 0 yes or done, 1 a true no, 2 bad words or file, 3 server or agent away,\n\
        4 not permitted, 5 not in time, 130 interrupted."
)]
pub struct Cli {
    /// What every command knows.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command knows.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Address of the server's REST API; else the context file's, a running demo's, 127.0.0.1:7480.
    #[arg(long, global = true, env = "ISTHMUS_SERVER", hide_env_values = true, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Words instead of marks.
    #[arg(long, global = true)]
    pub ascii: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows whether the network is well.
    Status(status::StatusArgs),
    /// Explains why one app may reach another, or may not.
    Why(why::WhyArgs),
    /// Allows one app to reach another: the same as 'policy allow'.
    Allow(policy::AllowArgs),
    /// Shows verdicts on packets and connections, by name.
    Flows(flows::FlowsArgs),
    /// Says who may reach whom.
    #[command(
        subcommand,
        after_help = "Examples:\n  isthmus policy allow web cart tcp:8080\n  isthmus policy list"
    )]
    Policy(policy::PolicyCommand),
    /// Shows what users have deployed.
    #[command(subcommand, after_help = "Examples:\n  isthmus app list\n  isthmus app show cart")]
    App(app::AppCommand),
    /// Shows instances on the network.
    #[command(subcommand, after_help = "Examples:\n  isthmus endpoint list\n  isthmus endpoint list --agent")]
    Endpoint(endpoint::EndpointCommand),
    /// Shows hosts, and cleans them up.
    #[command(subcommand, after_help = "Examples:\n  isthmus node list\n  isthmus node cleanup --yes")]
    Node(node::NodeCommand),
    /// Speaks BGP: with routers, as a route reflector.
    #[command(
        subcommand,
        after_help = "Examples:\n  isthmus bgp run -c gobgpd.conf\n  isthmus bgp summary\n  isthmus bgp peer list"
    )]
    Bgp(bgp::BgpCommand),
    /// Shows addresses: who has them, and how many are left.
    #[command(subcommand, after_help = "Examples:\n  isthmus ipam show\n  isthmus ipam show --blocks")]
    Ipam(ipam::IpamCommand),
    /// Makes and shows installations of platforms.
    #[command(
        subcommand,
        after_help = "Examples:\n  isthmus cluster create red --platform kubernetes\n  isthmus cluster list"
    )]
    Cluster(cluster::ClusterCommand),
    /// Shows and sets how packets travel between nodes.
    #[command(
        subcommand,
        after_help = "Examples:\n  isthmus network show\n  isthmus network set --encapsulation never"
    )]
    Network(network::NetworkCommand),
    /// Makes and shows address ranges.
    #[command(
        subcommand,
        after_help = "Examples:\n  isthmus pool create red --cluster red --cidr 10.64.0.0/16\n  isthmus pool list"
    )]
    Pool(pool::PoolCommand),
    /// Runs the server.
    Server(daemon::ServerArgs),
    /// Runs the agent of this node.
    Agent(daemon::AgentArgs),
    /// Plays three platforms on this machine: a network to look at, break and mend.
    #[command(after_help = "Examples:\n  sudo isthmus demo up\n  sudo isthmus demo tour")]
    Demo(isthmus_testbed::demo::DemoArgs),
    /// Measures this machine's network with Isthmus and with others.
    #[command(
        after_help = "Examples:\n  sudo isthmus bench\n  sudo isthmus bench --measures rr,crr --rounds 9"
    )]
    Bench(isthmus_testbed::bench::BenchArgs),
    /// Measures our BGP reflector beside others.
    #[command(
        hide = true,
        after_help = "Examples:\n  sudo isthmus bench-bgp\n  sudo isthmus bench-bgp --cases 1m,mesh300 --daemons isthmus,bird --rounds 1"
    )]
    BenchBgp(isthmus_testbed::bench_bgp::BenchBgpArgs),
    /// The apps of the demo.
    #[command(hide = true)]
    DemoApp(isthmus_testbed::app::AppArgs),
    /// Prints a completion script for a shell.
    #[command(
        after_help = "Examples:\n  isthmus completion bash > /etc/bash_completion.d/isthmus\n  isthmus completion zsh > ~/.zfunc/_isthmus"
    )]
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, or writes the pages of all commands.
    #[command(
        after_help = "Examples:\n  isthmus man | man -l -\n  isthmus man --directory /usr/local/share/man/man1"
    )]
    Man {
        /// Directory to write a page for each command into.
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<std::path::PathBuf>,
    },
    /// Prints the versions of this program and of what it speaks.
    Version(version::VersionArgs),
    /// Explains a command or an error code.
    #[command(after_help = "Examples:\n  isthmus help policy allow\n  isthmus help ISE-0102")]
    Help {
        /// A command, or a code such as ISE-0102.
        words: Vec<String>,
    },
    /// Prints the reference of the command line, for docs/reference/cli.md.
    #[command(hide = true)]
    Reference,
}
