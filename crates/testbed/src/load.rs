//! The benchmark's load generator: one server and one client process, each pinned to a core, in two namespaces.
//!
//! The server prints `ready`, both print one JSON object at the end. What counts is what arrived: rates are taken where
//! the bytes and packets are received, latencies at the client.

mod client;
mod plugin;
mod server;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Bytes of a small UDP packet's payload.
const SMALL_BYTES: usize = 18;
/// Bytes of one read or write of a stream.
const CHUNK_BYTES: usize = 128 << 10;

/// Arguments of `demo-app load`.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    #[command(subcommand)]
    side: Side,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Side {
    /// Receives.
    Serve(Job),
    /// Sends.
    Drive(Job),
    /// Calls a CNI plugin for many containers.
    Cni(plugin::PluginJob),
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// One byte there and back on one TCP connection.
    Rr,
    /// A connection, one byte there and back, and its end.
    Crr,
    /// TCP streams.
    Tcp,
    /// Small UDP packets.
    Udp,
}

/// One measurement, as both sides are told.
#[derive(Clone, Debug, clap::Args)]
struct Job {
    /// What to measure.
    #[arg(long)]
    kind: Kind,
    /// Where the server listens.
    #[arg(long)]
    address: SocketAddr,
    /// Core to stay on.
    #[arg(long)]
    core: usize,
    /// How many streams at once.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Time that does not count.
    #[arg(long, default_value_t = 150)]
    warm_ms: u64,
    /// Time that counts.
    #[arg(long, default_value_t = 1000)]
    time_ms: u64,
}

impl Job {
    fn warm(&self) -> Duration {
        Duration::from_millis(self.warm_ms)
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.time_ms)
    }

    fn window(&self) -> Window {
        let start = Instant::now() + self.warm();
        Window { start, end: start + self.time() }
    }
}

/// The time that counts.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: Instant,
    end: Instant,
}

/// What one side found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Bytes, packets or exchanges a second.
    pub(crate) rate: f64,
    /// Median latency in microseconds; 0 where none is measured.
    pub(crate) p50_us: f64,
    /// CPU time of this process, in milliseconds.
    pub(crate) cpu_ms: u64,
}

/// Runs one side and returns its exit code.
pub(crate) fn run(args: LoadArgs) -> u8 {
    let outcome = match args.side {
        Side::Serve(job) => pin(job.core).and_then(|()| server::serve(&job)).and_then(|found| print(&found)),
        Side::Drive(job) => pin(job.core).and_then(|()| client::drive(&job)).and_then(|found| print(&found)),
        Side::Cni(job) => plugin::run(&job).and_then(|found| print(&found)),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "load: {error}");
            1
        }
    }
}

fn print<T: Serialize>(found: &T) -> io::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(found)?)
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// CPU time of this process so far, from `proc(5)`: clock ticks, 100 a second.
fn cpu_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10
}

/// The middle of values that are put in order.
pub(crate) fn median<T: Copy + PartialOrd + Default>(values: &mut [T]) -> T {
    values.sort_by(|left, right| left.partial_cmp(right).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// What calls of a plugin took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PluginFound {
    /// Median of ADD, in milliseconds.
    pub(crate) add_p50_ms: f64,
    /// ADDs a second, all callers together.
    pub(crate) add_rate: f64,
    /// Median of DEL, in milliseconds.
    pub(crate) del_p50_ms: f64,
    /// DELs a second, all callers together.
    pub(crate) del_rate: f64,
}

/// Where the plugins' job finds its containers.
fn netns_path(prefix: &str, index: usize) -> PathBuf {
    PathBuf::from(format!("/run/netns/{prefix}{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    fn check(kind: Kind, streams: usize) -> (Found, Found) {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let job = Job { kind, address: free, core: 0, streams, warm_ms: 20, time_ms: 100 };
        let other = job.clone();
        let server = thread::spawn(move || server::serve(&other).unwrap());
        let found =
            crate::wait::until("the server", Duration::from_secs(10), || client::drive(&job).map(Some));
        (server.join().unwrap(), found.unwrap())
    }

    #[test]
    fn request_and_response_have_a_latency() {
        let (_, found) = check(Kind::Rr, 1);
        assert!(found.p50_us > 0.0 && found.rate > 0.0, "{found:?}");
    }

    #[test]
    fn connections_have_a_latency() {
        let (_, found) = check(Kind::Crr, 1);
        assert!(found.p50_us > 0.0 && found.rate > 0.0, "{found:?}");
    }

    #[test]
    fn streams_have_a_rate_at_the_receiver() {
        let (found, _) = check(Kind::Tcp, 4);
        assert!(found.rate > 1e6, "{found:?}");
    }

    #[test]
    fn packets_have_a_rate_at_the_receiver() {
        let (found, _) = check(Kind::Udp, 1);
        assert!(found.rate > 100.0, "{found:?}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0_f64).abs() < f64::EPSILON);
        assert_eq!(median::<u32>(&mut []), 0);
    }
}
