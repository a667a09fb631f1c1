//! `isthmus help`, `man` and `completion`: what the program says of itself.

use super::Session;
use crate::{
    args::Cli,
    failure::{Exit, Failure},
    pages,
};
use clap::{Command, CommandFactory};
use std::{fs, path::Path};

/// Explains a command, or an error code.
pub fn run(words: &[String], session: &mut Session) -> Result<Exit, Failure> {
    if let [word] = words
        && let Some(code) = code(word)
    {
        let page = pages::page(&code).ok_or_else(|| {
            let known: Vec<_> = pages::codes().collect();
            Failure::usage(format!("there is no page for {code}"), format!("there are {}", known.join(", ")))
        })?;
        write!(session.out, "{page}")?;
        return Ok(Exit::Yes);
    }
    let mut command = Cli::command();
    command.build();
    for word in words {
        let Some(below) = command.find_subcommand(word) else {
            let names: Vec<_> =
                command.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
            let message = format!("there is no command \"{word}\" below {}", command.get_name());
            return Err(Failure::usage(message, format!("there are {}", names.join(", "))));
        };
        command = below.clone();
    }
    write!(session.out, "{}", command.render_long_help())?;
    Ok(Exit::Yes)
}

/// `ISE-0102`, however it is written.
fn code(word: &str) -> Option<String> {
    let upper = word.to_ascii_uppercase();
    let digits = upper.strip_prefix("ISE-")?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| upper.clone())
}

/// Prints a completion script.
pub fn completion(shell: clap_complete::Shell, session: &mut Session) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isthmus", &mut script);
    session.out.write_all(&script)?;
    Ok(Exit::Yes)
}

/// Prints the manual page, or writes one for each command.
pub fn man(directory: Option<&Path>, session: &mut Session) -> Result<Exit, Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        session.out.write_all(&page)?;
        return Ok(Exit::Yes);
    };
    let count = write_pages(&command, "isthmus", directory).map_err(|why| {
        Failure::usage(
            format!("{} cannot be written: {why}", directory.display()),
            "name a directory that exists",
        )
    })?;
    session.done(&format!("{count} pages written to {}", directory.display()), "");
    Ok(Exit::Yes)
}

fn write_pages(command: &Command, name: &str, directory: &Path) -> std::io::Result<usize> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    fs::write(directory.join(format!("{name}.1")), page)?;
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    below
        .map(|below| write_pages(below, &format!("{name}-{}", below.get_name()), directory))
        .try_fold(1, |sum, count| Ok(sum + count?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_known_however_they_are_written() {
        assert_eq!(code("ise-0102").as_deref(), Some("ISE-0102"));
        assert_eq!(code("policy"), None);
        assert_eq!(code("ISE-"), None);
    }
}
