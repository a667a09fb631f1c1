//! The demo's apps: what runs in the containers, as a server and as a client.
//!
//! One hidden command of the binary, so that an image needs no other file. Clients print what they find on standard
//! output and say by their exit code how it went: 0 as hoped, 1 a refusal by the app, 3 not reachable, 5 timed out.

mod client;
pub(crate) mod probe;
mod serve;

use crate::{
    bench_bgp,
    load::{self, LoadArgs},
};
use std::{net::SocketAddr, time::Duration};

/// Port of the apps' HTTP service.
pub const HTTP_PORT: u16 = 8080;
/// Port of the apps' UDP echo.
pub const UDP_PORT: u16 = 9000;
/// Port of the apps' TCP echo, for connections that stay.
pub const ECHO_PORT: u16 = 7000;

/// As hoped.
const DONE: u8 = 0;
/// The app said no, or something was lost.
const REFUSED: u8 = 1;
/// Nobody was reached.
const UNREACHABLE: u8 = 3;
/// Nobody answered in time.
const TIMED_OUT: u8 = 5;

/// Arguments of `isthmus demo-app`.
#[derive(Clone, Debug, clap::Args)]
pub struct AppArgs {
    #[command(subcommand)]
    command: AppCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum AppCommand {
    /// Answers HTTP on 8080, echoes TCP on 7000 and UDP on 9000.
    Serve {
        /// Name that the app answers with.
        #[arg(long)]
        name: String,
    },
    /// Does nothing, as the first process of a pod.
    Pause,
    /// Fetches a URL of the form `http://ADDRESS:PORT/PATH`.
    Get {
        /// The URL.
        url: String,
        /// How long to wait for the connection and for the answer.
        #[arg(long, default_value_t = 2000)]
        timeout_ms: u64,
    },
    /// Sends one datagram to an echo service and waits for it.
    Udp {
        /// Address and port.
        address: SocketAddr,
        /// How long to wait.
        #[arg(long, default_value_t = 2000)]
        timeout_ms: u64,
    },
    /// Opens one TCP connection to an echo service and keeps talking until it falls silent.
    Talk {
        /// Address and port.
        address: SocketAddr,
        /// Time between two lines.
        #[arg(long, default_value_t = 20)]
        every_ms: u64,
        /// Time without an answer after which it gives up.
        #[arg(long, default_value_t = 1500)]
        silence_ms: u64,
    },
    /// Sends datagrams at a steady rate to an echo service and counts those that come back.
    Probe {
        /// Address and port.
        address: SocketAddr,
        /// Datagrams a second.
        #[arg(long, default_value_t = 1000)]
        rate: u32,
        /// For how long.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// Echoes UDP on a port of its own, with room for many datagrams while the machine is busy.
    Echo {
        /// Address and port.
        address: SocketAddr,
    },
    /// Opens TCP connections to an echo service, leaves them idle until a line comes on standard input, then tries each.
    Flows {
        /// Address and port.
        address: SocketAddr,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        count: usize,
    },
    /// Makes load for the benchmark.
    Load(LoadArgs),
    /// Plays the peers of a BGP speaker for its benchmark.
    BgpLoad(bench_bgp::LoadArgs),
}

/// Runs an app's command and returns its exit code.
pub fn run(args: AppArgs) -> u8 {
    match args.command {
        AppCommand::Serve { name } => serve::serve(&name),
        AppCommand::Pause => serve::pause(),
        AppCommand::Get { url, timeout_ms } => client::get(&url, Duration::from_millis(timeout_ms)),
        AppCommand::Udp { address, timeout_ms } => client::udp(address, Duration::from_millis(timeout_ms)),
        AppCommand::Talk { address, every_ms, silence_ms } => {
            client::talk(address, Duration::from_millis(every_ms), Duration::from_millis(silence_ms))
        }
        AppCommand::Probe { address, rate, seconds } => probe::probe(address, rate, seconds),
        AppCommand::Echo { address } => probe::echo(address),
        AppCommand::Flows { address, count } => probe::flows(address, count),
        AppCommand::Load(args) => load::run(args),
        AppCommand::BgpLoad(args) => bench_bgp::load(&args),
    }
}

/// Prints a line for whoever reads; a reader that is gone is no error.
fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Says on standard error what went wrong and returns the exit code for it.
fn fail(what: &str, error: &std::io::Error) -> u8 {
    use std::io::{ErrorKind, Write as _};
    // A read that waits too long says that the resource is unavailable, which helps nobody.
    let late = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
    let why = if late { "no answer in time".to_owned() } else { error.to_string() };
    let _closed = writeln!(std::io::stderr(), "{what}: {why}");
    if late { TIMED_OUT } else { UNREACHABLE }
}

/// Lets this process open as many files as the system allows it at all.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused the old limit holds, and opening too many says so.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
