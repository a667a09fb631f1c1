//! What is wrong with a configuration, and what is not done of it.

use std::fmt;

/// One thing to tell about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line in the file, from 1; 0 where none can be told.
    pub line: usize,
    /// Column, from 1; 0 where none can be told.
    pub column: usize,
    /// The key with its path, such as `neighbors.config.peer-as`; empty for faults of the syntax.
    pub key: String,
    /// What is wrong and what is expected.
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => {}
            (line, 0) => write!(f, "{line}: ")?,
            (line, column) => write!(f, "{line}:{column}: ")?,
        }
        if self.key.is_empty() { f.write_str(&self.why) } else { write!(f, "{}: {}", self.key, self.why) }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigFaults {
    /// The file's name.
    pub origin: String,
    /// The faults, by place.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "error[ISE-0501]: {} cannot be used: {count} fault{plural}", self.origin)?;
        for fault in &self.faults {
            let join = if fault.line == 0 { ": " } else { ":" };
            write!(f, "\n  {}{join}{fault}", self.origin)?;
        }
        Ok(())
    }
}
