//! What is wrong with a configuration.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line in the file, from 1; 0 where a key is missing.
    pub line: usize,
    /// What is wrong and what is expected.
    pub text: String,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFaults {
    /// The file's name.
    pub origin: String,
    /// The faults, by line.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(
            f,
            "error[ISE-0501]: {} cannot be used: {count} fault{}",
            self.origin,
            if count == 1 { "" } else { "s" }
        )?;
        for fault in &self.faults {
            match fault.line {
                0 => write!(f, "\n  {}: {}", self.origin, fault.text)?,
                line => write!(f, "\n  {}:{line}: {}", self.origin, fault.text)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}
