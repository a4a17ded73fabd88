//! Printing: text for people, JSON for programs.

use anyhow::Result;
use serde_json::Value;

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints one result in the form that was asked for.
    pub(super) fn print(self, value: &Value, text: &str) -> Result<()> {
        use std::io::Write as _;
        let line = if self.json { serde_json::to_string(value)? } else { text.to_owned() };
        writeln!(std::io::stdout().lock(), "{line}")?;
        Ok(())
    }

    /// Prints a text whose every byte counts, because it is hashed or signed.
    pub(super) fn print_exactly(self, value: &Value, text: &str) -> Result<()> {
        if self.json {
            return self.print(value, text);
        }
        Ok(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?)
    }
}
