//! `isthmus flows`: verdicts, by name.

use super::Session;
use crate::{
    api::{AGENT_SOCKET, Agent, escape},
    failure::{Exit, Failure},
    output::{aligned, line},
    terminal::{Terminal, Tone},
};
use isthmus_api::local::Flow;
use std::{
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

/// Arguments of `flows`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus flows -f --to cart --verdict denied\n  isthmus flows --seconds 10 -o jsonl\n\n\
    Flows are seen while they are watched: nothing is kept from before."
)]
pub struct FlowsArgs {
    /// Goes on until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// How long to watch without --follow.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Ends after so many flows.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only flows from this app: a name, a part of one, or an address.
    #[arg(long, value_name = "APP")]
    from: Option<String>,
    /// Only flows to this app.
    #[arg(long, value_name = "APP")]
    to: Option<String>,
    /// Only flows with this verdict.
    #[arg(long, value_enum, value_name = "VERDICT")]
    verdict: Option<Verdict>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
    /// Leaves the headings out.
    #[arg(long)]
    no_headers: bool,
    /// Asks the agent of this node instead of the server.
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, default_missing_value = AGENT_SOCKET)]
    agent: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Verdict {
    /// Let through.
    Allowed,
    /// Dropped or answered with an error.
    Denied,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// A line for each flow.
    #[default]
    Table,
    /// A list, when all is over.
    Json,
    /// A JSON document on each line, at once.
    Jsonl,
}

/// Widths of the columns of a table whose rows are not known yet.
const WIDTHS: [usize; 7] = [13, 28, 28, 10, 8, 14, 0];

/// What is shown of the flows that come.
struct Shown<'a> {
    args: &'a FlowsArgs,
    out: &'a mut dyn Write,
    terminal: Terminal,
    kept: Vec<Flow>,
    count: u64,
    /// Why showing ended before the flows did.
    ended: Option<Failure>,
}

/// Shows flows.
pub async fn run(args: FlowsArgs, session: &mut Session) -> Result<Exit, Failure> {
    let agent = args.agent.as_deref().map(Agent::new).transpose()?;
    let server = if agent.is_some() { None } else { Some(session.server()?) };
    let terminal = session.terminal;
    let mut shown =
        Shown { args: &args, out: &mut *session.out, terminal, kept: Vec::new(), count: 0, ended: None };
    shown.begin()?;
    let watch = async {
        let show = |text: &str| shown.line(text);
        match (&agent, &server) {
            (Some(agent), _) => agent.lines("/flows", show).await,
            (None, Some(server)) => server.lines(&path(&args), show).await,
            (None, None) => Ok(()),
        }
    };
    if args.follow {
        watch.await?;
    } else if let Ok(ended) = tokio::time::timeout(Duration::from_secs(args.seconds), watch).await {
        ended?;
    }
    shown.end()?;
    Ok(Exit::Yes)
}

fn path(args: &FlowsArgs) -> String {
    let mut path = "flows?follow=true".to_owned();
    let verdict = args.verdict.map(|verdict| verdict.as_str().to_owned());
    for (key, value) in [("from", &args.from), ("to", &args.to), ("verdict", &verdict)] {
        if let Some(value) = value {
            path.extend(["&", key, "=", &escape(value)]);
        }
    }
    path
}

impl Shown<'_> {
    fn begin(&mut self) -> io::Result<()> {
        if self.args.output == Form::Table && !self.args.no_headers {
            let titles = ["TIME", "FROM", "TO", "PORT", "VERDICT", "REASON", "NODE"].map(str::to_owned);
            writeln!(self.out, "{}", padded(&titles))?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// Takes one line of the stream; whether more are wanted.
    fn line(&mut self, text: &str) -> bool {
        if text.trim().is_empty() {
            return true;
        }
        let shown = match serde_json::from_str::<Flow>(text) {
            Ok(flow) => self.flow(flow),
            // Whatever else comes in between (a heartbeat, a count of lost events) is for newer programs.
            Err(_other) => Ok(()),
        };
        self.ended = shown.err().map(Failure::from);
        self.ended.is_none() && self.args.limit.is_none_or(|limit| self.count < limit)
    }

    fn flow(&mut self, flow: Flow) -> io::Result<()> {
        if !self.wanted(&flow) {
            return Ok(());
        }
        self.count += 1;
        match self.args.output {
            Form::Json => self.kept.push(flow),
            Form::Jsonl => writeln!(self.out, "{}", line(&flow))?,
            Form::Table => {
                let tone = if flow.verdict == "denied" { Tone::Bad } else { Tone::Good };
                let row = padded(&cells(&flow));
                let painted = row.replacen(&flow.verdict, &self.terminal.paint(tone, &flow.verdict), 1);
                writeln!(self.out, "{painted}")?;
            }
        }
        self.out.flush()
    }

    /// The server has sorted out already; an agent knows no filters.
    fn wanted(&self, flow: &Flow) -> bool {
        if self.args.agent.is_none() {
            return true;
        }
        let meant = |wanted: &Option<String>, name: &str, address: String| {
            wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()) || *wanted == address)
        };
        meant(&self.args.from, &flow.from, flow.source.to_string())
            && meant(&self.args.to, &flow.to, flow.destination.to_string())
            && self.args.verdict.is_none_or(|verdict| verdict.as_str() == flow.verdict)
    }

    fn end(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.ended.take() {
            return Err(failure);
        }
        if self.args.output == Form::Json {
            writeln!(self.out, "{}", crate::output::pretty(&self.kept))?;
        }
        Ok(())
    }
}

fn cells(flow: &Flow) -> [String; 7] {
    // A packet that is no IPv4 has no addresses that could be told, and often no receiver.
    let end = |name: &str, address: IpAddr| match name {
        "" | "none" if address.is_unspecified() => "-".to_owned(),
        "" | "none" => address.to_string(),
        name => name.to_owned(),
    };
    [
        clock(flow.time_unix_ms),
        end(&flow.from, flow.source),
        end(&flow.to, flow.destination),
        port(flow),
        flow.verdict.clone(),
        flow.reason.clone(),
        flow.node.clone(),
    ]
}

/// Protocol and port as in a rule.
fn port(flow: &Flow) -> String {
    match flow.protocol {
        6 => format!("tcp:{}", flow.destination_port),
        17 => format!("udp:{}", flow.destination_port),
        1 | 58 => "icmp".to_owned(),
        0 => "-".to_owned(),
        other => format!("ip:{other}"),
    }
}

/// Time of day, UTC, in milliseconds.
fn clock(unix_ms: u64) -> String {
    let (seconds, milliseconds) = (unix_ms / 1000 % 86_400, unix_ms % 1000);
    format!("{:02}:{:02}:{:02}.{milliseconds:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn padded(cells: &[String; 7]) -> String {
    let cells = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:width$}")).collect();
    let mut line = Vec::new();
    // Writing to a Vec cannot fail; `aligned` also takes control characters out.
    let _ = aligned(&mut line, &[cells]);
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_one_line_by_name() {
        let flow = Flow {
            time_unix_ms: 1_700_000_000_123,
            node: "green-2".into(),
            verdict: "denied".into(),
            reason: "no-rule".into(),
            from_identity: "000100".into(),
            from: "k8s:shop/web@red".into(),
            to_identity: "000101".into(),
            to: String::new(),
            source: "10.64.0.2".parse().unwrap(),
            destination: "10.65.0.2".parse().unwrap(),
            protocol: 6,
            source_port: 40000,
            destination_port: 8080,
            rule: 0,
        };
        let line = padded(&cells(&flow));
        assert_eq!(
            line,
            "22:13:20.123Z  k8s:shop/web@red              10.65.0.2                     tcp:8080    denied    no-rule         green-2"
        );
        assert_eq!(port(&Flow { protocol: 1, ..flow.clone() }), "icmp");
        assert_eq!(port(&Flow { protocol: 47, ..flow.clone() }), "ip:47");
        let unknown =
            Flow { protocol: 0, to: "none".into(), destination: "0.0.0.0".parse().unwrap(), ..flow };
        assert_eq!((cells(&unknown)[2].as_str(), cells(&unknown)[3].as_str()), ("-", "-"));
    }
}
