//! `isthmus bgp summary`: all neighbours, and why a session is not up; once, or until interrupted.

use super::{SpeakerArgs, refused};
use crate::{
    commands::{Session, node::span},
    failure::{Exit, Failure},
    live::{self, Ended, Screen},
    output::{Column, Format, OutputArgs, View},
};
use isthmus_speaker::{
    Client,
    explain::proto::KernelProblem,
    gobgp::proto::{self, peer_state::AdminState, peer_state::SessionState},
};
use serde::Serialize;
use std::{
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What stands for the state of a neighbour that is configured no longer, while it is watched.
const REMOVED: &str = "Removed";

/// Arguments of `bgp summary`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus bgp summary\n  isthmus bgp summary --watch\n  isthmus bgp summary --watch=5 -o jsonl\n  isthmus bgp summary -o json --api 192.0.2.1:50051\n\n\
    Exit status 0: every session is up that shall be; 1: one is not. With --watch it is 130 once interrupted."
)]
pub struct SummaryArgs {
    /// Goes on until interrupted, and looks every so many seconds: on a terminal one table that is kept current; else
    /// the table whenever it is another, and with -o jsonl, csv or name the neighbours that are. Why routes are not in
    /// the kernel is told whenever it is another.
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    watch: Option<u64>,
    /// Which speaker.
    #[command(flatten)]
    speaker: SpeakerArgs,
    /// Form of the output.
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows all neighbours. Yes if every session is up that shall be.
pub(super) async fn run(args: &SummaryArgs, session: &mut Session) -> Result<Exit, Failure> {
    if let Some(seconds) = args.watch {
        return watch(args, Duration::from_secs(seconds), session).await;
    }
    let mut client = args.speaker.client().await?;
    let Seen { rows, problems } = ask(&mut client).await?;
    let is_well = rows.iter().all(Neighbor::is_well);
    if rows.is_empty() {
        session.tell(NOBODY);
    }
    neighbors().list(&mut *session.out, &args.output, rows)?;
    for problem in &problems {
        session.tell(&sentence(problem));
    }
    Ok(if is_well { Exit::Yes } else { Exit::No })
}

const NOBODY: &str = "there are no neighbours: add one to the file ([[neighbors]]) and send SIGHUP, or use gobgp neighbor add ADDRESS as AS";

/// What a speaker says when it is asked once.
#[derive(Clone, Debug, Default)]
struct Seen {
    rows: Vec<Neighbor>,
    /// Why routes are not in the kernel.
    problems: Vec<KernelProblem>,
}

async fn ask(client: &mut Client) -> Result<Seen, Failure> {
    let global = client.global().await.map_err(refused)?;
    let peers = client.peers(None).await.map_err(refused)?;
    let kernel = client.kernel().await.map_err(refused)?.unwrap_or_default();
    let rows = peers.iter().map(|peer| Neighbor::of(&global, peer)).collect();
    Ok(Seen { rows, problems: kernel.problems })
}

fn sentence(problem: &KernelProblem) -> String {
    let KernelProblem { routes, example, why } = problem;
    format!("{routes} route(s) are not in the kernel, for example {example}: {why}")
}

/// Looks again and again. A speaker that is there at first and then is not is waited for: it may be restarting.
async fn watch(args: &SummaryArgs, every: Duration, session: &mut Session) -> Result<Exit, Failure> {
    if args.output.output == Format::Json {
        let text = "--watch has no end, and a JSON document has one";
        return Err(Failure::usage(text, "use -o jsonl: a document for each neighbour that changed"));
    }
    let is_table = matches!(args.output.output, Format::Table | Format::Wide);
    let mut shown = Shown {
        args,
        screen: (is_table && session.terminal.is_live()).then(Screen::default),
        last: None,
        is_away: false,
    };
    let mut client = args.speaker.client().await?;
    let mut signals = live::Signals::listen()?;
    loop {
        let asked = match ask(&mut client).await {
            Ok(seen) => Ok(seen),
            Err(why) if why.exit() == Exit::Unreachable => Err(why),
            Err(why) => return Err(why),
        };
        let is_away = asked.is_err();
        shown.take(asked, session)?;
        if let Ended::By(signal) = signals.wait(every).await {
            shown.end(session)?;
            return Ok(Exit::Signal(signal));
        }
        if is_away && let Ok(again) = args.speaker.client().await {
            client = again;
        }
    }
}

/// What is shown while it is watched.
struct Shown<'a> {
    args: &'a SummaryArgs,
    /// The terminal; `None`: what comes is written one after the other.
    screen: Option<Screen>,
    last: Option<Seen>,
    is_away: bool,
}

impl Shown<'_> {
    fn take(&mut self, asked: Result<Seen, Failure>, session: &mut Session) -> Result<(), Failure> {
        let (seen, away) = match asked {
            Ok(seen) => (seen, None),
            Err(why) => (self.last.clone().unwrap_or_default(), Some(why.render())),
        };
        if self.screen.is_some() {
            return self.draw(seen, away.as_deref(), session);
        }
        match &away {
            Some(why) if !self.is_away => session.tell(&format!("{}  it is tried again", why.trim_end())),
            _ => {}
        }
        self.is_away = away.is_some();
        if away.is_none() { self.write(seen, session) } else { Ok(()) }
    }

    /// The whole terminal.
    fn draw(&mut self, seen: Seen, away: Option<&str>, session: &mut Session) -> Result<(), Failure> {
        let text = page(&seen, away, &self.args.output)?;
        self.last = Some(seen);
        if let Some(screen) = &mut self.screen {
            screen.draw(&mut *session.out, &text)?;
        }
        Ok(())
    }

    /// What is new, behind what was before.
    fn write(&mut self, seen: Seen, session: &mut Session) -> Result<(), Failure> {
        let before = self.last.replace(seen.clone());
        let is_first = before.is_none();
        let before = before.unwrap_or_default();
        let changed = changes(&before.rows, &seen.rows);
        if !changed.is_empty() || is_first {
            let is_table = matches!(self.args.output.output, Format::Table | Format::Wide);
            let mut output = self.args.output.clone();
            output.no_headers |= !is_first && !is_table;
            if is_table && !is_first {
                writeln!(session.out)?;
            }
            neighbors().list(&mut *session.out, &output, if is_table { seen.rows } else { changed })?;
            session.out.flush()?;
        }
        for text in changed_problems(&before.problems, &seen.problems) {
            session.tell(&text);
        }
        Ok(())
    }

    /// Leaves the terminal as it was, with the last table.
    fn end(&mut self, session: &mut Session) -> Result<(), Failure> {
        let Some(screen) = self.screen.take() else { return Ok(()) };
        screen.close(&mut *session.out)?;
        let Seen { rows, problems } = self.last.take().unwrap_or_default();
        neighbors().list(&mut *session.out, &self.args.output, rows)?;
        for problem in &problems {
            session.tell(&sentence(problem));
        }
        Ok(())
    }
}

/// What fills a terminal. Problems stand above the table, which may be longer than the terminal.
fn page(seen: &Seen, away: Option<&str>, output: &OutputArgs) -> Result<String, Failure> {
    let mut text = Vec::new();
    let Seen { rows, problems } = seen;
    let up = rows.iter().filter(|row| row.state == ESTABLISHED).count();
    writeln!(text, "{up} of {} sessions are up   {}   Ctrl-C ends", rows.len(), live::clock(now_unix()))?;
    writeln!(text, "{}", away.unwrap_or_default().trim_end())?;
    for problem in problems {
        writeln!(text, "{}", sentence(problem))?;
    }
    if !problems.is_empty() {
        writeln!(text)?;
    }
    if rows.is_empty() && away.is_none() {
        writeln!(text, "{NOBODY}")?;
    }
    neighbors().list(&mut text, output, rows.clone())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Neighbours that are others than before, also those that are gone. That time goes by is no change.
fn changes(before: &[Neighbor], now: &[Neighbor]) -> Vec<Neighbor> {
    let of = |rows: &[Neighbor], name: &str| rows.iter().find(|row| row.name() == name).cloned();
    let is_new = |row: &&Neighbor| of(before, row.name()).is_none_or(|old| old.timeless() != row.timeless());
    let gone = before.iter().filter(|row| of(now, row.name()).is_none());
    let gone = gone.map(|row| Neighbor { state: REMOVED.to_owned(), why: String::new(), ..row.clone() });
    now.iter().filter(is_new).cloned().chain(gone).collect()
}

/// What is to be told of problems that are others than before, also of those that are gone.
fn changed_problems(before: &[KernelProblem], now: &[KernelProblem]) -> Vec<String> {
    let is_new = |problem: &&KernelProblem| !before.contains(problem);
    let is_gone = |old: &&KernelProblem| now.iter().all(|problem| problem.why != old.why);
    let gone = before.iter().filter(is_gone);
    let gone = gone.map(|old| format!("no route has this problem in the kernel any longer: {}", old.why));
    now.iter().filter(is_new).map(sentence).chain(gone).collect()
}

const ESTABLISHED: &str = "Established";

/// A neighbour, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Neighbor {
    local_as: u32,
    /// Where it is; empty: it is on an interface, and not found yet.
    address: String,
    /// The interface that it is known by, instead of an address.
    interface: Option<String>,
    /// 0: any, and none is known yet.
    peer_as: u32,
    router_id: String,
    state: String,
    /// In this state of being up or down, in seconds; `None`: it was never up.
    for_seconds: Option<u64>,
    received: u64,
    accepted: u64,
    sent: u64,
    why: String,
    /// Empty where it is not configured.
    bfd: String,
    description: String,
    peer_group: String,
    local_address: String,
    hold_seconds: u64,
    keepalive_seconds: u64,
    reflector_client: bool,
    flaps: u32,
    messages_received: u64,
    messages_sent: u64,
    #[serde(skip)]
    is_wanted: bool,
}

impl Neighbor {
    /// What it is known by.
    fn name(&self) -> &str {
        self.interface.as_deref().unwrap_or(&self.address)
    }

    fn is_well(&self) -> bool {
        self.state == ESTABLISHED || !self.is_wanted
    }

    /// Without what changes by itself.
    fn timeless(&self) -> Self {
        Self { for_seconds: None, messages_received: 0, messages_sent: 0, ..self.clone() }
    }

    pub(super) fn of(global: &proto::Global, peer: &proto::Peer) -> Self {
        let (conf, state) = (peer.conf.clone().unwrap_or_default(), peer.state.clone().unwrap_or_default());
        let times = peer.timers.unwrap_or_default().state.unwrap_or_default();
        let transport = peer.transport.clone().unwrap_or_default();
        let messages = state.messages.unwrap_or_default();
        let is_up = state.session_state() == SessionState::Established;
        let since = if is_up { times.uptime } else { times.downtime };
        let sum = |of: fn(&proto::AfiSafiState) -> u64| {
            peer.afi_safis.iter().filter_map(|one| one.state.as_ref()).map(of).sum()
        };
        Self {
            local_as: if conf.local_asn == 0 { global.asn } else { conf.local_asn },
            // As long as it is not found, its name stands there.
            address: if conf.neighbor_address == conf.neighbor_interface {
                String::new()
            } else {
                conf.neighbor_address
            },
            interface: Some(conf.neighbor_interface).filter(|name| !name.is_empty()),
            peer_as: state.peer_asn,
            state: state_name(&state).to_owned(),
            for_seconds: since
                .map(|since| now_unix().saturating_sub(u64::try_from(since.seconds).unwrap_or_default())),
            received: sum(|state| state.received),
            accepted: sum(|state| state.accepted),
            sent: sum(|state| state.advertised),
            description: conf.description,
            peer_group: conf.peer_group,
            local_address: transport.local_address,
            hold_seconds: times.negotiated_hold_time,
            keepalive_seconds: times.keepalive_interval,
            reflector_client: peer
                .route_reflector
                .as_ref()
                .is_some_and(|reflector| reflector.route_reflector_client),
            flaps: state.flops,
            messages_received: messages.received.unwrap_or_default().total,
            messages_sent: messages.sent.unwrap_or_default().total,
            is_wanted: state.admin_state() != AdminState::Down,
            router_id: state.router_id,
            why: state.why,
            bfd: state.bfd,
        }
    }
}

/// What a neighbour is known by.
pub(super) fn name(conf: &proto::PeerConf) -> &str {
    if conf.neighbor_interface.is_empty() { &conf.neighbor_address } else { &conf.neighbor_interface }
}

pub(super) fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|now| now.as_secs()).unwrap_or_default()
}

fn state_name(state: &proto::PeerState) -> &'static str {
    match (state.admin_state(), state.session_state()) {
        (AdminState::Down, _) => "Idle(Admin)",
        (AdminState::PfxCt, _) => "Idle(PfxCt)",
        (_, SessionState::Unknown) => "Unknown",
        (_, SessionState::Idle) => "Idle",
        (_, SessionState::Connect) => "Connect",
        (_, SessionState::Active) => "Active",
        (_, SessionState::Opensent) => "OpenSent",
        (_, SessionState::Openconfirm) => "OpenConfirm",
        (_, SessionState::Established) => "Established",
    }
}

pub(super) fn neighbors() -> View<Neighbor> {
    View {
        columns: vec![
            Column::new("LOCAL AS", |row: &Neighbor| row.local_as.to_string()),
            Column::new("PEER", |row| row.name().to_owned()),
            Column::new(
                "AS",
                |row| if row.peer_as == 0 { "any".to_owned() } else { row.peer_as.to_string() },
            ),
            Column::new("STATE", |row| row.state.clone()),
            Column::new("FOR", |row| row.for_seconds.map_or_else(|| "never".to_owned(), span)),
            Column::new("RECV/ACCEPT/SENT", |row| format!("{}/{}/{}", row.received, row.accepted, row.sent)),
            Column::new("WHY", |row| row.why.clone()),
            Column::wide("ROUTER ID", |row| row.router_id.clone()),
            Column::wide("ADDRESS", |row| row.address.clone()),
            Column::wide("LOCAL ADDRESS", |row| row.local_address.clone()),
            Column::wide("HOLD", |row| format!("{}s", row.hold_seconds)),
            Column::wide("KEEPALIVE", |row| format!("{}s", row.keepalive_seconds)),
            Column::wide("CLIENT", |row| if row.reflector_client { "yes" } else { "no" }.to_owned()),
            Column::wide("FLAPS", |row| row.flaps.to_string()),
            Column::wide("MESSAGES IN/OUT", |row| format!("{}/{}", row.messages_received, row.messages_sent)),
            Column::wide("BFD", |row| row.bfd.clone()),
            Column::wide("GROUP", |row| row.peer_group.clone()),
            Column::wide("DESCRIPTION", |row| row.description.clone()),
        ],
        name: |row| row.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Terminal;
    use clap::Parser as _;
    use std::{cell::RefCell, io, rc::Rc};

    fn row(address: &str, state: &str) -> Neighbor {
        let conf = proto::PeerConf { neighbor_address: address.to_owned(), ..proto::PeerConf::default() };
        let peer = proto::Peer { conf: Some(conf), ..proto::Peer::default() };
        let global = proto::Global::default();
        Neighbor { state: state.to_owned(), ..Neighbor::of(&global, &peer) }
    }

    #[test]
    fn only_what_is_another_is_told_again() {
        let before = [row("a", "Active"), row("b", ESTABLISHED), row("c", "Idle")];
        let later = Neighbor { for_seconds: Some(9), messages_received: 7, ..row("b", ESTABLISHED) };
        let now = [row("a", ESTABLISHED), later, row("d", "Idle")];
        let told = changes(&before, &now);
        let told: Vec<_> = told.iter().map(|row| (row.address.as_str(), row.state.as_str())).collect();
        assert_eq!(told, [("a", ESTABLISHED), ("d", "Idle"), ("c", REMOVED)]);
        assert!(changes(&now, &now).is_empty());
    }

    /// Standard output that is looked at.
    #[derive(Clone, Default)]
    struct Out(Rc<RefCell<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SummaryArgs,
    }

    /// What each look at these writes.
    fn looks(form: &str, looks: &[&[Neighbor]]) -> Vec<String> {
        let line = ["x", "--watch", "--columns", "peer,state", "-o", form];
        let (args, out) = (Line::parse_from(line).args, Out::default());
        let mut session = Session { out: Box::new(out.clone()), terminal: Terminal::plain(), server: None };
        let mut shown = Shown { args: &args, screen: None, last: None, is_away: false };
        let looks = looks.iter().map(|rows| {
            let seen = Seen { rows: rows.to_vec(), problems: Vec::new() };
            shown.take(Ok(seen), &mut session).unwrap();
            String::from_utf8(out.0.take()).unwrap()
        });
        looks.collect()
    }

    #[test]
    fn through_a_pipe_comes_what_is_another_and_nothing_where_nothing_is() {
        let (a, b) = (row("a", "Idle"), row("b", "Idle"));
        let later = Neighbor { for_seconds: Some(9), ..a.clone() };
        let (before, now) = ([a.clone(), b.clone()], [a.clone(), row("b", "Active")]);
        let all = [&before[..], &[later, b], &now, &now, &[a]];
        let both = "PEER  STATE\na     Idle\nb     ";
        let tables =
            [&format!("{both}Idle\n"), "", &format!("\n{both}Active\n"), "", "\nPEER  STATE\na     Idle\n"];
        assert_eq!(looks("table", &all), tables);
        assert_eq!(looks("csv", &all), ["peer,state\na,Idle\nb,Idle\n", "", "b,Active\n", "", "b,Removed\n"]);
        // That there is nobody is told once too.
        assert_eq!(looks("table", &[&[], &[]]), ["PEER  STATE\n", ""]);
    }

    fn problem(routes: u64, why: &str) -> KernelProblem {
        KernelProblem { routes, example: "10.2.0.0/24".to_owned(), why: why.to_owned() }
    }

    #[test]
    fn a_problem_in_the_kernel_is_told_when_it_comes_changes_and_ends() {
        let first = changed_problems(&[], &[problem(1, "full"), problem(2, "foreign")]);
        let full = "1 route(s) are not in the kernel, for example 10.2.0.0/24: full";
        assert!(first.len() == 2 && first[0] == full, "{first:?}");
        let same = changed_problems(&[problem(1, "full")], &[problem(1, "full")]);
        assert!(same.is_empty(), "{same:?}");
        let before = [problem(1, "full"), problem(2, "foreign")];
        let later = changed_problems(&before, &[problem(9, "full")]);
        let told = [
            "9 route(s) are not in the kernel, for example 10.2.0.0/24: full",
            "no route has this problem in the kernel any longer: foreign",
        ];
        assert_eq!(later, told);
    }

    #[test]
    fn a_terminal_shows_problems_above_the_table() {
        let output = OutputArgs::default();
        let seen = Seen { rows: vec![row("192.0.2.2", ESTABLISHED)], problems: vec![problem(1, "full")] };
        let text = page(&seen, None, &output).unwrap();
        let (problem, table) = (text.find("10.2.0.0/24: full"), text.find("LOCAL AS"));
        assert!(problem.is_some() && problem < table, "{text}");
    }
}
