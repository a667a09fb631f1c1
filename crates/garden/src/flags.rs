//! The command line, read as Go's package `flag` reads one: one dash or two, `=` or the next argument, in any order.

/// What Guardian asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--configFile`.
    pub config_file: String,
    /// `--action`.
    pub action: String,
    /// `--handle`.
    pub handle: String,
}

/// Why the command line cannot be used. The texts are those of the original, which operators search for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// A flag that does not exist.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// A dash too many, or no name.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// The last argument is a flag that needs a value.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// Words that belong to no flag.
    #[error("unexpected extra args: [{0}]")]
    Extra(String),
    /// A flag that must be there is not.
    #[error("missing required flag '{0}'")]
    Missing(&'static str),
}

impl Flags {
    /// Reads the arguments after the program's name.
    pub fn parse(args: &[String]) -> Result<Self, FlagError> {
        let mut flags = Self::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some(name) = arg.strip_prefix('-').filter(|_| arg != "-" && arg != "--") else {
                let from = if arg == "--" { None } else { Some(arg) };
                let extra: Vec<_> = from.into_iter().chain(rest.by_ref()).map(String::as_str).collect();
                if extra.is_empty() {
                    break;
                }
                return Err(FlagError::Extra(extra.join(" ")));
            };
            let name = name.strip_prefix('-').unwrap_or(name);
            if name.starts_with(['-', '=']) {
                return Err(FlagError::Syntax(arg.clone()));
            }
            let (name, value) =
                name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
            let place = match name {
                "configFile" => &mut flags.config_file,
                "action" => &mut flags.action,
                "handle" => &mut flags.handle,
                _ => return Err(FlagError::Unknown(name.to_owned())),
            };
            let next = || rest.next().cloned();
            *place = value.or_else(next).ok_or_else(|| FlagError::NoValue(name.to_owned()))?;
        }
        if flags.handle.is_empty() {
            return Err(FlagError::Missing("handle"));
        }
        if flags.config_file.is_empty() {
            return Err(FlagError::Missing("configFile"));
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, FlagError> {
        Flags::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_way_to_write_the_flags_means_the_same() {
        let expected = Flags { config_file: "c".into(), action: "up".into(), handle: "h".into() };
        for line in [
            "--configFile=c --action up --handle h",
            "-handle h -action=up -configFile c",
            "--action=up --handle=h --configFile c --",
        ] {
            assert_eq!(parse(line), Ok(expected.clone()), "{line}");
        }
    }

    #[test]
    fn each_fault_has_the_text_of_the_original() {
        for (line, text) in [
            ("--configFile=c --action up --handle h --banana", "flag provided but not defined: -banana"),
            (
                "--configFile=c --action up --handle h something-else x",
                "unexpected extra args: [something-else x]",
            ),
            ("--configFile=c --action up", "missing required flag 'handle'"),
            ("--handle h --action up", "missing required flag 'configFile'"),
            ("--handle", "flag needs an argument: -handle"),
            ("---handle h", "bad flag syntax: ---handle"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), text);
        }
    }
}
