//! The load generator: plays all peers of a reflector in one thread, measures, and checks every route that comes back.
//!
//! It is a process of its own in a namespace of its own. It must never be what is waited for: a table's messages are
//! made before anything is measured, and what comes is read once.

mod crowd;
mod peer;
mod table;
mod wire;

use super::{
    case::{self, Case, Shape},
    cpu,
};
use crate::load::median;
use crowd::{Common, Crowd};
use peer::Stage;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Write as _},
    net::SocketAddrV4,
    time::{Duration, Instant},
};
use table::Table;

pub(super) use wire::AS;

/// Port of BGP.
const PORT: u16 = 179;
/// How long sessions may take to come up before anything is measured.
const UP: Duration = Duration::from_mins(1);
/// Sessions that come up at the same time before anything is measured: the kernel holds no more for BIRD.
const UP_AT_ONCE: usize = 8;
/// How long is waited for the word that all routes were sent; not everybody says it.
const END_OF_RIB: Duration = Duration::from_secs(2);
/// Silence before the next thing is measured.
const REST: Duration = Duration::from_millis(300);
/// Changes, one after the other, of which the median counts.
const CHANGES: usize = 101;
/// Time after which no further change is made.
const CHANGES_TIME: Duration = Duration::from_secs(3);
/// Fewer changes than this have no median that says anything.
const CHANGES_MIN: usize = 3;

/// Arguments of `demo-app bgp-load`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// What to measure.
    #[arg(long)]
    case: Case,
    /// Processes of the daemon.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Proposed hold time in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..))]
    hold: u16,
    /// Seconds that one step may take.
    #[arg(long, default_value_t = 120)]
    limit: u64,
}

/// What was found. `None` where it is not measured in this case, or did not come to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Found {
    /// Until everybody had everything.
    pub(super) wall_s: Option<f64>,
    /// CPU time of the daemon until then.
    pub(super) cpu_s: Option<f64>,
    /// The most memory that the daemon ever had.
    pub(super) peak_rss_mib: Option<f64>,
    /// One changed route to the slowest receiver, median.
    pub(super) change_p50_ms: Option<f64>,
    /// The same while somebody who came late is fed.
    pub(super) change_fed_p50_ms: Option<f64>,
    /// From the connection of one who comes late until it has everything.
    pub(super) late_join_s: Option<f64>,
    /// From the loss of all routes until nobody has any.
    pub(super) withdraw_s: Option<f64>,
    /// What was wrong: unknown prefixes, attributes that are not as sent.
    pub(super) bad: u64,
    /// Routes that came again though nothing had changed.
    pub(super) repeats: u64,
    /// Sessions that were lost.
    pub(super) lost: u32,
    /// Why it ended before its time.
    pub(super) ended: Option<String>,
    /// CPU time of the load generator.
    pub(super) own_cpu_s: f64,
}

/// Runs the load generator and returns its exit code.
pub(crate) fn run(args: &LoadArgs) -> u8 {
    match measure(args) {
        Ok(found) => {
            let json = serde_json::to_string(&found).unwrap_or_default();
            u8::from(writeln!(io::stdout(), "{json}").is_err())
        }
        Err(why) => {
            let _closed = writeln!(io::stderr(), "bgp-load: {why:#}");
            1
        }
    }
}

fn measure(args: &LoadArgs) -> anyhow::Result<Found> {
    let table = match args.case.shape() {
        Shape::Feed { prefixes, .. } => Table::full(prefixes, case::SENDER),
        Shape::Mesh { clients, blocks } | Shape::Arrival { clients, blocks } => {
            Table::blocks((0..clients).map(case::client).collect(), blocks)
        }
    };
    let common = Common { daemon: SocketAddrV4::new(case::REFLECTOR, PORT), hold_s: args.hold };
    let mut run = Run {
        args,
        table: &table,
        crowd: Crowd::new(common, &table)?,
        receivers: Vec::new(),
        med: 0,
        found: Found::default(),
    };
    let outcome = run.steps()?;
    let Run { crowd, mut found, .. } = run;
    if let Err(Unfinished(step)) = outcome {
        let why = crowd.lost_why.clone().unwrap_or_else(|| format!("not within {} s", args.limit));
        found.ended = Some(format!("{step}: {why}"));
    }
    found.bad = crowd.peers.iter().map(|peer| peer.bad).sum();
    found.lost = crowd.lost;
    found.peak_rss_mib = cpu::peak_rss_mib(&args.pids);
    found.own_cpu_s = cpu::cpu_s(&[std::process::id()]);
    Ok(found)
}

/// A step that did not come to its end.
struct Unfinished(&'static str);

/// One run through all steps of a case.
struct Run<'a> {
    args: &'a LoadArgs,
    table: &'a Table,
    crowd: Crowd<'a>,
    /// Places of those who shall have everything but their own.
    receivers: Vec<usize>,
    /// Number of the last change.
    med: u32,
    found: Found,
}

/// What a step says: errors of the system end everything, an unfinished step ends this run.
type Step<T = ()> = anyhow::Result<Result<T, Unfinished>>;

/// Goes on if the step came to its end.
macro_rules! finish {
    ($step:expr) => {
        match $step? {
            Ok(value) => value,
            Err(unfinished) => return Ok(Err(unfinished)),
        }
    };
}

impl Run<'_> {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.args.limit)
    }

    fn steps(&mut self) -> Step {
        if let Shape::Arrival { clients, .. } = self.args.case.shape() {
            return self.arrive(clients);
        }
        finish!(self.come_up());
        finish!(self.converge());
        self.crowd.idle(REST)?;
        self.found.repeats = self.crowd.peers.iter().map(|peer| peer.repeats).sum();
        let began = Instant::now();
        let is_enough = |taken: usize| taken >= CHANGES || began.elapsed() > CHANGES_TIME;
        self.found.change_p50_ms = finish!(self.changes(|_, taken| is_enough(taken)));
        if self.args.case.has_late_joiner() {
            finish!(self.join_late());
        }
        finish!(self.withdraw());
        Ok(Ok(()))
    }

    /// All sessions up, nothing announced.
    fn come_up(&mut self) -> Step {
        let clients = match self.args.case.shape() {
            Shape::Feed { receivers, .. } => {
                self.crowd.join(case::SENDER, Some(0))?;
                receivers
            }
            Shape::Mesh { clients, .. } | Shape::Arrival { clients, .. } => clients,
        };
        let has_sender = !self.crowd.peers.is_empty();
        for number in 0..clients {
            let place = self.crowd.join(case::client(number), (!has_sender).then_some(number))?;
            self.receivers.push(place);
            self.crowd.until(UP, |crowd| opening(crowd) < UP_AT_ONCE)?;
        }
        if !self.crowd.until(UP, are_established)? {
            return Ok(Err(Unfinished("sessions up")));
        }
        self.crowd.until(END_OF_RIB, |crowd| crowd.peers.iter().all(|peer| peer.is_told_all))?;
        self.crowd.retries = false;
        Ok(Ok(()))
    }

    /// Waits until all receivers have as many prefixes as they shall.
    fn wait_for(&mut self, step: &'static str, count: usize) -> Step {
        let (limit, receivers) = (self.limit(), &self.receivers);
        let has = |crowd: &Crowd<'_>| receivers.iter().all(|place| crowd.peers[*place].count == count);
        Ok(if self.crowd.until(limit, has)? { Ok(()) } else { Err(Unfinished(step)) })
    }

    /// How many prefixes a receiver gets: of a mesh all but its own.
    fn expected(&self) -> usize {
        match self.args.case.shape() {
            Shape::Feed { prefixes, .. } => prefixes as usize,
            Shape::Mesh { clients, blocks } | Shape::Arrival { clients, blocks } => {
                (clients as usize - 1) * blocks as usize
            }
        }
    }

    /// Those who announce something: place and what.
    fn owners(&self) -> std::ops::Range<u32> {
        match self.args.case.shape() {
            Shape::Feed { .. } => 0..1,
            Shape::Mesh { clients, .. } | Shape::Arrival { clients, .. } => 0..clients,
        }
    }

    fn converge(&mut self) -> Step {
        let updates: Vec<_> = self.owners().map(|owner| self.table.announcements(owner).into()).collect();
        let (began, cpu_s) = (Instant::now(), cpu::cpu_s(&self.args.pids));
        for (place, bytes) in updates.into_iter().enumerate() {
            self.crowd.send(place, bytes);
        }
        finish!(self.wait_for("all routes", self.expected()));
        self.found.wall_s = Some(began.elapsed().as_secs_f64());
        self.found.cpu_s = Some(cpu::cpu_s(&self.args.pids) - cpu_s);
        Ok(Ok(()))
    }

    /// Changes one route after the other, and says how long the slowest receiver had to wait for one.
    fn changes(&mut self, mut is_enough: impl FnMut(&Crowd<'_>, usize) -> bool) -> Step<Option<f64>> {
        let mut waits_ms: Vec<f64> = Vec::new();
        while !is_enough(&self.crowd, waits_ms.len()) {
            self.med += 1;
            let med = self.med;
            let number = med * 7 % self.table.len() as u32;
            let sender = self.table.owner(number) as usize;
            let update = self.table.change(number, med).into();
            let limit = self.limit();
            let began = Instant::now();
            self.crowd.send(sender, update);
            let receivers = &self.receivers;
            let has = |crowd: &Crowd<'_>| {
                receivers.iter().all(|place| *place == sender || crowd.peers[*place].med >= med)
            };
            if !self.crowd.until(limit, has)? {
                return Ok(Err(Unfinished("a changed route")));
            }
            waits_ms.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(Ok((waits_ms.len() >= CHANGES_MIN).then(|| median(&mut waits_ms))))
    }

    /// One client comes late, and another one while routes change.
    fn join_late(&mut self) -> Step {
        let all = self.table.len();
        let limit = self.limit();
        let next = self.receivers.len() as u32;
        let began = Instant::now();
        let place = self.crowd.join(case::client(next), None)?;
        if !self.crowd.until(limit, |crowd| crowd.peers[place].count == all)? {
            return Ok(Err(Unfinished("all routes of a late joiner")));
        }
        self.found.late_join_s = Some(began.elapsed().as_secs_f64());
        self.crowd.leave(place);
        self.crowd.idle(REST)?;
        let place = self.crowd.join(case::client(next + 1), None)?;
        if !self.crowd.until(limit, |crowd| crowd.peers[place].count > 0)? {
            return Ok(Err(Unfinished("the first route of a late joiner")));
        }
        self.found.change_fed_p50_ms = finish!(self.changes(|crowd, _| crowd.peers[place].count == all));
        self.receivers.push(place);
        Ok(Ok(()))
    }

    /// Everything is taken back: the sender of a full table leaves, clients withdraw their blocks.
    fn withdraw(&mut self) -> Step {
        let withdrawals: Vec<_> = match self.args.case.shape() {
            Shape::Feed { .. } => Vec::new(),
            _ => self.owners().map(|owner| self.table.withdrawals(owner).into()).collect(),
        };
        let began = Instant::now();
        if withdrawals.is_empty() {
            self.crowd.leave(0);
        }
        for (place, bytes) in withdrawals.into_iter().enumerate() {
            self.crowd.send(place, bytes);
        }
        finish!(self.wait_for("all routes gone", 0));
        self.found.withdraw_s = Some(began.elapsed().as_secs_f64());
        Ok(Ok(()))
    }

    /// All clients come at once, each with its blocks, until all know all.
    fn arrive(&mut self, clients: u32) -> Step {
        let (began, cpu_s) = (Instant::now(), cpu::cpu_s(&self.args.pids));
        for number in 0..clients {
            let place = self.crowd.join(case::client(number), Some(number))?;
            self.crowd.peers[place].greeting = Some(self.table.announcements(number).into());
            self.receivers.push(place);
        }
        if !self.crowd.until(self.limit(), are_established)? {
            return Ok(Err(Unfinished("all sessions up")));
        }
        finish!(self.wait_for("all routes", self.expected()));
        self.found.wall_s = Some(began.elapsed().as_secs_f64());
        self.found.cpu_s = Some(cpu::cpu_s(&self.args.pids) - cpu_s);
        Ok(Ok(()))
    }
}

fn opening(crowd: &Crowd<'_>) -> usize {
    crowd.peers.iter().filter(|peer| peer.stage != Stage::Established).count()
}

fn are_established(crowd: &Crowd<'_>) -> bool {
    opening(crowd) == 0
}
