//! `isthmus why A B PORT`: which layer, which node, which rule, and which command opens the path.

use super::Session;
use crate::{
    api::escape,
    failure::{Exit, Failure},
    output::{clean, pretty},
    terminal::Tone,
};
use isthmus_api::rest::{Why, WhyStep};
use isthmus_core::PortMatch;

/// Arguments of `why`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus why web cart tcp:8080\n  isthmus why k8s:shop/web@red cf:acme/prod/cart tcp:8080 -o json\n\n\
    Exit status 0: allowed; 1: denied."
)]
pub struct WhyArgs {
    /// The app that opens the connection: platform:group/app@cluster, a unique part of that, or a UUID.
    #[arg(value_name = "FROM")]
    from: String,
    /// The app that is to be reached.
    #[arg(value_name = "TO")]
    to: String,
    /// Protocol and port: tcp:8080, udp:53, icmp.
    #[arg(value_name = "PORT", value_parser = port)]
    port: PortMatch,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Reads what a person writes for protocol and port.
pub fn port(text: &str) -> Result<PortMatch, String> {
    text.parse().map_err(|why: isthmus_core::PortError| why.to_string())
}

/// Explains one connection.
pub async fn run(args: WhyArgs, session: &mut Session) -> Result<Exit, Failure> {
    let path = format!(
        "why?from={}&to={}&port={}",
        escape(&args.from),
        escape(&args.to),
        escape(&args.port.to_string())
    );
    let why: Why = session.server()?.get(&path).await?;
    match args.output {
        Form::Json => writeln!(session.out, "{}", pretty(&why))?,
        Form::Text => text(&why, session)?,
    }
    Ok(if why.allowed { Exit::Yes } else { Exit::No })
}

fn text(why: &Why, session: &mut Session) -> Result<(), Failure> {
    let terminal = session.terminal;
    let (tone, word) = if why.allowed { (Tone::Good, "ALLOWED") } else { (Tone::Bad, "DENIED") };
    let verdict = terminal.paint(tone, word);
    let arrow = terminal.arrow();
    writeln!(
        session.out,
        "{verdict}   reason: {}   {} {arrow} {} {}",
        clean(&why.reason),
        clean(&why.from),
        clean(&why.to),
        clean(&why.port)
    )?;
    let width = why.steps.iter().map(|step| step.step.chars().count()).max().unwrap_or_default();
    for (number, WhyStep { step, text, ok }) in why.steps.iter().enumerate() {
        let mark = terminal.paint(if *ok { Tone::Good } else { Tone::Bad }, terminal.mark(*ok));
        writeln!(session.out, "  {} {step:width$}  {mark} {}", number + 1, clean(text))?;
    }
    if let Some(fix) = &why.fix {
        writeln!(session.out, "  fix: {}", clean(fix))?;
    }
    Ok(())
}
