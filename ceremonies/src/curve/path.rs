//! The path from a wallet's key to a key below it (BIP-32), without hardened steps: those need the private key, which
//! nobody has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::shortened;

/// The most levels in a path. Wallets use two to five; each costs a step whenever an address is checked.
pub const MAX_LEVELS: usize = 8;
/// From here on indices are hardened.
const HARDENED: u32 = 1 << 31;

/// Why something is not a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPath {
    /// Not written as a path.
    #[error("`{0}` is not a key path: write m followed by levels, such as m/0/5")]
    Form(String),
    /// A step that only a private key can take.
    #[error(
        "key path `{0}` has a hardened level, which a shared key cannot derive: use indices below 2147483648"
    )]
    Hardened(String),
    /// Too many steps.
    #[error("key path has {0} levels; at most {MAX_LEVELS} are allowed")]
    Levels(usize),
}

/// A non-hardened BIP-32 path below the wallet's key, such as `m/0/5`; `m` is the wallet's key itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(Vec<u32>);

impl Path {
    /// Checks the number of levels and that none is hardened.
    pub fn new(levels: Vec<u32>) -> Result<Self, InvalidPath> {
        if levels.len() > MAX_LEVELS {
            return Err(InvalidPath::Levels(levels.len()));
        }
        let path = Self(levels);
        if path.0.iter().any(|index| *index >= HARDENED) {
            return Err(InvalidPath::Hardened(path.to_string()));
        }
        Ok(path)
    }

    /// The index at each level, from the wallet's key downwards.
    #[must_use]
    pub fn levels(&self) -> &[u32] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels = self.0.iter().map(|index| format!("/{index}"));
        f.pad(&std::iter::once("m".to_owned()).chain(levels).collect::<String>())
    }
}

/// Written in one form only: no leading zeros, no signs, `m` in lower case.
impl FromStr for Path {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let form = || InvalidPath::Form(shortened(text, 80));
        let mut parts = text.split('/');
        if parts.next() != Some("m") {
            return Err(form());
        }
        let mut levels = Vec::new();
        for part in parts {
            if part.ends_with(['\'', 'h', 'H']) {
                return Err(InvalidPath::Hardened(shortened(text, 80)));
            }
            levels.push(part.parse().map_err(|_| form())?);
        }
        let path = Self::new(levels)?;
        if path.to_string() == text { Ok(path) } else { Err(form()) }
    }
}

impl TryFrom<String> for Path {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<Path> for String {
    fn from(path: Path) -> String {
        path.to_string()
    }
}
