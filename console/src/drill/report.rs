//! The report of one drill: a JSON file, and beside it the signature of somebody who was there, which anyone can check
//! with `ssh-keygen`.

use std::collections::BTreeMap;
use std::fmt;

use ceremonies::charter::{ClusterKind, Person};
use ceremonies::ids::{ClusterId, NodeIndex, PersonName, UnixMillis, WalletName};
use ceremonies::statement::{SignatureError, verify_in};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Shown, Stage, Timed};

/// What a signature under a report is for; it can be under nothing else.
pub const NAMESPACE: &str = "custody-drill";
/// Largest report that is read.
pub const MAX_REPORT: usize = 64 * 1024;

/// What happened in one drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Which drill.
    pub drill: String,
    /// What happened, in a few words.
    pub title: String,
    /// Where.
    pub cluster: ClusterId,
    /// What the cluster is for.
    pub kind: ClusterKind,
    /// Whether people broke and mended it.
    pub by_hand: bool,
    /// When it began, by this console's clock.
    pub began: UnixMillis,
    /// What ran.
    pub programs: Programs,
    /// The wallets that could sign before.
    pub wallets: Vec<WalletName>,
    /// How long each stage took.
    pub stages: Vec<Timed>,
    /// What showed the fault.
    pub shown: Option<Shown>,
    /// Why the drill failed, if it did.
    pub failed: Option<String>,
    /// Whether every target was met.
    pub met: bool,
}

/// The versions of the programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Programs {
    /// Of this console.
    pub console: String,
    /// Of each node, by its own word.
    pub nodes: BTreeMap<NodeIndex, String>,
}

impl Report {
    /// The bytes that are written and signed.
    ///
    /// # Errors
    /// When it has no form in JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// How long a stage took, in milliseconds, if it ended.
    #[must_use]
    pub fn took(&self, stage: Stage) -> Option<u64> {
        self.stages.iter().find(|timed| timed.stage == stage)?.ms
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for timed in &self.stages {
            writeln!(f, "{timed}")?;
        }
        match (&self.failed, self.met) {
            (Some(why), _) => write!(f, "FAILED: {why}"),
            (None, true) => write!(f, "every target was met"),
            (None, false) => write!(f, "NOT every target was met"),
        }
    }
}

/// Why nobody has signed a report.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotSigned {
    /// By whomever.
    #[error("signed with a key that the charter does not list")]
    Stranger,
    /// The report is not text.
    #[error("the report is not text")]
    NotText,
    /// Over other bytes.
    #[error("{0}'s signature is not over this report: the report was changed, or the signature is damaged")]
    Changed(PersonName),
    /// No signature file, or for another purpose.
    #[error(transparent)]
    Signature(SignatureError),
}

/// Who of the charter's people has signed exactly these bytes as a report.
///
/// # Errors
/// [`NotSigned`] if nobody has.
pub fn signer<'a>(
    people: &'a [Person],
    report: &[u8],
    signature: &[u8],
) -> Result<&'a PersonName, NotSigned> {
    let text = std::str::from_utf8(report).map_err(|_| NotSigned::NotText)?;
    for person in people {
        match verify_in(NAMESPACE, person, text, signature) {
            Ok(_) => return Ok(&person.name),
            Err(SignatureError::Key { .. }) => {}
            Err(SignatureError::Text(person) | SignatureError::Resaved { person, .. }) => {
                return Err(NotSigned::Changed(person));
            }
            Err(error) => return Err(NotSigned::Signature(error)),
        }
    }
    Err(NotSigned::Stranger)
}

/// Milliseconds as people read them.
#[must_use]
pub fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// A line of bars, as high as each of these times is against the longest; a cross for one that never came.
#[must_use]
pub fn chart(times: &[Option<u64>]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let longest = times.iter().flatten().copied().max().unwrap_or(0).max(1);
    let bar = |ms: u64| {
        let height = u128::from(ms) * (BARS.len() as u128 - 1) / u128::from(longest);
        BARS[usize::try_from(height).unwrap_or(0).min(BARS.len() - 1)]
    };
    times.iter().map(|time| time.map_or('✗', bar)).collect()
}
