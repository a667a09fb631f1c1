//! CPU time and memory of processes, from `proc(5)`.

use std::{fs, time::Instant};

/// Clock ticks a second.
const TICKS: f64 = 100.0;

/// CPU time of processes since each started, in seconds.
pub(crate) fn cpu_s(pids: &[u32]) -> f64 {
    let ticks = |pid: &u32| -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Fields 14 and 15; the name in parentheses is field 2.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
    };
    pids.iter().map(ticks).sum::<u64>() as f64 / TICKS
}

/// The most memory that processes ever had, in MiB; `None` where one is gone.
pub(crate) fn peak_rss_mib(pids: &[u32]) -> Option<f64> {
    let peak = |pid: &u32| peak_kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?);
    let peaks: Option<Vec<u64>> = pids.iter().map(peak).collect();
    peaks.map(|peaks| peaks.iter().sum::<u64>() as f64 / 1024.0)
}

fn peak_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time of the machine's processes since boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    at: Instant,
    busy_ms: u64,
}

impl Cpu {
    /// Until now.
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self { at: Instant::now(), busy_ms: busy_ms(&text) }
    }

    /// What others used between two times, as part of one core.
    pub(crate) fn others(&self, after: &Self, own_ms: u64) -> f64 {
        let busy = (after.busy_ms - self.busy_ms).saturating_sub(own_ms);
        busy as f64 / (after.at - self.at).as_millis().max(1) as f64
    }
}

/// Time in user, nice, system and steal of `/proc/stat`; interrupts are the packets' own work and stay out.
fn busy_ms(stat: &str) -> u64 {
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|ticks| ticks.parse().unwrap_or(0))
        .collect();
    [0, 1, 2, 7].iter().filter_map(|index| fields.get(*index)).sum::<u64>() * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_time_and_memory_are_found() {
        let own = [std::process::id()];
        let before = cpu_s(&own);
        let began = Instant::now();
        // The kernel counts whole ticks only.
        while cpu_s(&own) - before < 0.02 {
            assert!(began.elapsed().as_secs() < 60);
        }
        assert!(peak_rss_mib(&own).is_some_and(|mib| mib > 1.0));
        assert_eq!(peak_rss_mib(&[u32::MAX]), None);
    }

    #[test]
    fn the_peak_is_read_from_its_line() {
        assert_eq!(peak_kib("VmRSS:\t 1 kB\nVmHWM:\t    2048 kB\n"), Some(2048));
        assert_eq!(peak_kib("VmRSS:\t 1 kB\n"), None);
    }

    #[test]
    fn busy_time_leaves_idle_and_interrupts_out() {
        assert_eq!(busy_ms("cpu  1 2 3 1000 5 600 700 8 0 0\ncpu0 9 9 9"), (1 + 2 + 3 + 8) * 10);
        assert_eq!(busy_ms(""), 0);
    }

    #[test]
    fn own_time_is_no_disturbance() {
        let before = Cpu { at: Instant::now(), busy_ms: 100 };
        let after = Cpu { at: before.at + std::time::Duration::from_secs(1), busy_ms: 2100 };
        assert!(before.others(&after, 2000) < 1e-9);
        assert!((before.others(&after, 1500) - 0.5).abs() < 1e-9);
    }
}
