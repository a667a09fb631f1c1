//! Instruments that run beside the story: followed flows, a capture, a long-lived connection.

use super::scene::Scene;
use crate::{app::ECHO_PORT, running::Running, wait};
use anyhow::Context as _;
use serde_json::Value;
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// `isthmus flows`, followed.
#[derive(Debug)]
pub(super) struct Flows(Running);

impl Flows {
    pub(super) fn follow(scene: &Scene<'_>) -> anyhow::Result<Self> {
        Ok(Self(Running::start(&scene.isthmus(&["flows", "--follow", "--output", "jsonl"]))?))
    }

    /// The first flow with this verdict, reason and port; provokes one again and again until it is seen.
    pub(super) fn find(
        &mut self,
        limit: Duration,
        verdict: &str,
        reason: &str,
        port: u16,
        mut provoke: impl FnMut() -> Option<String>,
    ) -> Option<Value> {
        let fits = |flow: &Value| {
            flow["verdict"] == verdict && flow["reason"] == reason && flow["destinationPort"] == port
        };
        let found = wait::until("a flow", limit, || {
            let lines = self.0.lines.with(|lines| lines.clone());
            let flows = lines.iter().filter_map(|(_, line)| serde_json::from_str::<Value>(line).ok());
            let found = flows.into_iter().find(fits);
            if found.is_none() {
                provoke();
            }
            if found.is_none() && self.0.has_ended() {
                let last = lines.last().map_or("nothing", |(_, line)| line);
                return Err(format!("`isthmus flows` ended: {last}"));
            }
            Ok(found)
        });
        found.ok()
    }
}

/// The ends of a flow, by name.
pub(super) fn edge(flow: &Value) -> String {
    let name = |key: &str| flow[key].as_str().unwrap_or("-").to_owned();
    format!("{} → {}", name("from"), name("to"))
}

/// tcpdump on a node's port of the underlay.
#[derive(Debug)]
pub(super) struct Capture(Running);

/// What a capture showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Captured {
    /// VNI of the packets in the asked direction.
    pub(super) forth: Option<u32>,
    /// VNI of the answers.
    pub(super) back: Option<u32>,
    /// Two packets as tcpdump prints them.
    pub(super) text: String,
}

impl Capture {
    pub(super) fn start(scene: &Scene<'_>, node: &str) -> anyhow::Result<Self> {
        let place = scene.record().underlay();
        let filter = ["udp", "port", "4789"];
        let call = place.namespace().call("tcpdump").args(["-i", node, "-n", "-l", "-t"]).args(filter);
        let running = Running::start(&call).context("the tour captures packets with tcpdump")?;
        let up = || running.lines.with(|lines| lines.iter().any(|(_, line)| line.contains("listening on")));
        wait::until_true("tcpdump to listen", Duration::from_secs(10), up)?;
        Ok(Self(running))
    }

    /// Packets between two containers.
    pub(super) fn find(
        &mut self,
        limit: Duration,
        from: IpAddr,
        to: IpAddr,
        mut provoke: impl FnMut() -> Option<String>,
    ) -> Captured {
        let mut captured = Captured::default();
        // An expired wait leaves what was found.
        let _found = wait::until_true("both directions", limit, || {
            let lines =
                self.0.lines.with(|lines| lines.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>());
            captured = read(&lines, from, to);
            let whole = captured.forth.is_some() && captured.back.is_some();
            if !whole {
                provoke();
            }
            whole
        });
        captured
    }
}

/// Looks in tcpdump's lines: the outer packet with its VNI, then the inner one.
fn read(lines: &[String], from: IpAddr, to: IpAddr) -> Captured {
    let mut captured = Captured::default();
    for pair in lines.windows(2) {
        let Some(vni) = vni(&pair[0]) else { continue };
        let between = |from: IpAddr, to: IpAddr| {
            let mut ends = pair[1].trim_start_matches("IP ").split(" > ");
            let has = |end: Option<&str>, address: IpAddr| {
                end.is_some_and(|end| end.starts_with(&format!("{address}.")))
            };
            has(ends.next(), from) && has(ends.next(), to)
        };
        let place = if between(from, to) {
            &mut captured.forth
        } else if between(to, from) {
            &mut captured.back
        } else {
            continue;
        };
        if place.is_none() {
            *place = Some(vni);
            captured.text.extend([&pair[0], "\n    ", &pair[1], "\n"]);
        }
    }
    captured
}

fn vni(line: &str) -> Option<u32> {
    line.split(" vni ").nth(1)?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// A connection that keeps talking.
#[derive(Debug)]
pub(super) struct Talk(Running);

impl Talk {
    pub(super) fn start(scene: &Scene<'_>, from: &str, to: &str) -> anyhow::Result<Self> {
        let address = format!("{}:{ECHO_PORT}", scene.container(to)?.address);
        Ok(Self(Running::start(&scene.client(from, &["talk", &address])?)?))
    }

    /// Lines that came back.
    pub(super) fn lines(&self) -> usize {
        self.0.lines.with(|lines| lines.iter().filter(|(_, line)| is_echo(line)).count())
    }

    pub(super) fn wait_for_lines(&self, count: usize, limit: Duration) -> bool {
        wait::until_true("lines", limit, || self.lines() >= count).is_ok()
    }

    /// Waits until it gave up and returns how it says so.
    pub(super) fn wait_for_end(&mut self, limit: Duration) -> String {
        let ended = wait::until("its end", limit, || {
            Ok::<_, String>(
                self.0
                    .lines
                    .with(|lines| lines.iter().map(|(_, line)| line).find(|line| is_end(line)).cloned()),
            )
        });
        ended.unwrap_or_else(|_| "still talking".to_owned())
    }

    /// When the last line came back.
    pub(super) fn last_line(&self) -> Option<Instant> {
        self.0.lines.with(|lines| lines.iter().rev().find(|(_, line)| is_echo(line)).map(|(time, _)| *time))
    }
}

fn is_echo(line: &str) -> bool {
    line.parse::<u64>().is_ok()
}

fn is_end(line: &str) -> bool {
    ["silent", "closed", "broken", "cannot"].iter().any(|word| line.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vni_of_each_direction_is_read_from_tcpdumps_lines() {
        let text = "IP 10.200.0.13.51234 > 10.200.0.11.4789: VXLAN, flags [I] (0x08), vni 288\n\
            IP 10.80.0.1.48224 > 10.64.0.1.8080: Flags [S], seq 1\n\
            IP 10.200.0.11.51234 > 10.200.0.13.4789: VXLAN, flags [I] (0x08), vni 65540\n\
            IP 10.64.0.1.8080 > 10.80.0.1.48224: Flags [S.], seq 2";
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let captured = read(&lines, "10.80.0.1".parse().unwrap(), "10.64.0.1".parse().unwrap());
        assert_eq!((captured.forth, captured.back), (Some(288), Some(65540)));
        let other = read(&lines, "10.80.0.10".parse().unwrap(), "10.64.0.1".parse().unwrap());
        assert_eq!((other.forth, other.back), (None, None));
    }
}
