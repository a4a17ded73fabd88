//! Printing: text for people, JSON for programs. Nothing that nodes, files or logs say can command a terminal from
//! here.

use std::io::{self, Write};

use anyhow::{Context as _, Result};
use ceremonies::text::{printable, unseen};
use serde_json::Value;
use thiserror::Error;

/// The reader of the output has stopped reading, as `head` does: not a failure.
#[derive(Debug, Error)]
#[error("nobody reads the output any more")]
pub(super) struct NobodyReads;

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints one result in the form that was asked for.
    pub(super) fn print(self, value: &Value, text: &str) -> Result<()> {
        let line = if self.json { json_line(value)? } else { printable(text) + "\n" };
        written(line.as_bytes())
    }

    /// Prints a text whose every byte counts, because it is hashed or signed. Such text was checked when it was read.
    pub(super) fn print_exactly(self, value: &Value, text: &str) -> Result<()> {
        if self.json { self.print(value, text) } else { written(text.as_bytes()) }
    }
}

/// A value as one line of JSON.
pub(super) fn json_line(value: &Value) -> Result<String> {
    Ok(escaped(&serde_json::to_string(value)?) + "\n")
}

/// Prints output that a program takes whole.
pub(super) fn written(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        done => done.context("standard output cannot be written"),
    }
}

/// Reports something besides the result, on standard error; if nobody reads that, it is dropped.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// JSON with escapes for what could command a terminal or hide on it: such characters occur within its strings alone.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\u{7f}' || (!c.is_ascii() && unseen(c.encode_utf8(&mut [0; 4])).is_some()) {
            text.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn json_says_the_same_and_commands_no_terminal(text in any::<String>()) {
            let text = format!("{text}\u{1b}\u{7f}\u{9b}\u{202e}\u{e0041}");
            let json = escaped(&json!({ "said": text }).to_string());
            let commands = json.chars().any(|c| c.is_control() || c == '\u{202e}');
            prop_assert!(!commands);
            let value: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["said"].as_str().unwrap(), text);
        }
    }
}
