//! Calls of a CNI plugin as a runtime makes them: a process for each, in the node's namespace.

use super::{PluginFound, median, netns_path};
use std::{
    fs, io,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Many containers, one plugin.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PluginJob {
    /// Directory of the plugins.
    #[arg(long)]
    directory: PathBuf,
    /// File with the plugin's configuration.
    #[arg(long)]
    config: PathBuf,
    /// What the names of the containers' namespaces begin with; a number follows.
    #[arg(long)]
    prefix: String,
    /// How many containers.
    #[arg(long)]
    count: usize,
    /// How many calls at once.
    #[arg(long, default_value_t = 1)]
    callers: usize,
    /// Which calls: ADD for all, DEL for all, or both.
    #[arg(long, value_enum, default_value_t = Calls::Both)]
    calls: Calls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Calls {
    Add,
    Del,
    Both,
}

/// ADD for all, then DEL for all, as far as wanted.
pub(super) fn run(job: &PluginJob) -> io::Result<PluginFound> {
    let config = fs::read(&job.config)?;
    let kind: serde_json::Value = serde_json::from_slice(&config)?;
    let plugin = job.directory.join(kind["type"].as_str().unwrap_or_default());
    let timed = |command: &str| -> io::Result<(f64, f64)> {
        let start = Instant::now();
        let mut times = all(job, |index| call(job, &plugin, &config, command, index))?;
        let rate = job.count as f64 / start.elapsed().as_secs_f64();
        Ok((median(&mut times).as_secs_f64() * 1e3, rate))
    };
    let mut found = PluginFound::default();
    if job.calls != Calls::Del {
        (found.add_p50_ms, found.add_rate) = timed("ADD")?;
    }
    if job.calls != Calls::Add {
        (found.del_p50_ms, found.del_rate) = timed("DEL")?;
    }
    Ok(found)
}

/// Does `work` for each container, several at once, and returns the time of each.
fn all(job: &PluginJob, work: impl Fn(usize) -> io::Result<Duration> + Sync) -> io::Result<Vec<Duration>> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let caller = || -> io::Result<Vec<Duration>> {
            let mut times = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= job.count {
                    return Ok(times);
                }
                times.push(work(index)?);
            }
        };
        let callers: Vec<_> = (0..job.callers).map(|_| scope.spawn(caller)).collect();
        let mut times = Vec::with_capacity(job.count);
        for caller in callers {
            times.extend(caller.join().or(Err(io::Error::other("a caller broke")))??);
        }
        Ok(times)
    })
}

fn call(
    job: &PluginJob,
    plugin: &PathBuf,
    config: &[u8],
    command: &str,
    index: usize,
) -> io::Result<Duration> {
    let start = Instant::now();
    let mut child = Command::new(plugin)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", format!("{}{index}", job.prefix))
        .env("CNI_NETNS", netns_path(&job.prefix, index))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", "IgnoreUnknown=1;NOMAD_NAMESPACE=bench;NOMAD_JOB_ID=churn;NOMAD_GROUP_NAME=churn")
        .env("CNI_PATH", &job.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(config)?;
    }
    let output = child.wait_with_output()?;
    let took = start.elapsed();
    if output.status.success() {
        return Ok(took);
    }
    let text = [output.stdout, output.stderr].concat();
    Err(io::Error::other(format!(
        "{command} of container {index} failed: {}",
        String::from_utf8_lossy(&text).trim()
    )))
}
