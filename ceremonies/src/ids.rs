//! The vocabulary of everything else: indices, names, hashes and times as types of their own.
//!
//! Nothing between rooms is a bare integer or string, so a node's index cannot be taken for a generation
//! or a wallet's name for a ceremony's id. This module must never learn what any of them is used for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::text::{Flaw, seen, shortened, unseen};

/// Longest accepted wallet name or ceremony id, in bytes; both become NATS subject tokens and file names.
pub const MAX_NAME: usize = 64;
/// Longest accepted free text (purpose, reason, title), in characters.
pub const MAX_TEXT: usize = 240;

/// A word that has no meaning where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{word}` is not a {what}: use one of {list}", list = .known.join(", "))]
pub struct UnknownWord {
    word: String,
    what: &'static str,
    known: Vec<String>,
}

impl UnknownWord {
    /// Reads one of these values as it is shown.
    pub(crate) fn read<T: ToString>(
        word: &str,
        what: &'static str,
        all: impl IntoIterator<Item = T>,
    ) -> Result<T, Self> {
        let mut known = Vec::new();
        for value in all {
            let name = value.to_string();
            if name == word {
                return Ok(value);
            }
            known.push(name);
        }
        Err(Self { word: shortened(word, MAX_TEXT), what, known })
    }
}

/// Why a value is not what its type promises.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// A node index of zero.
    #[error("node index must be between 1 and 255, got 0")]
    NodeIndex,
    /// Text in the place of a node.
    #[error("`{0}` is not a node: write its number, from 1 to 255")]
    NotANode(String),
    /// A name that cannot be a subject token and a file name.
    #[error("`{0}` is not a name: use 1 to 64 characters of a-z, 0-9 and -, not starting or ending with -")]
    Name(String),
    /// Text that is too long, empty, or has spaces around it.
    #[error("text must be one line of 1 to {MAX_TEXT} characters without leading or trailing spaces")]
    Text,
    /// A character that a person would not see for what it is.
    #[error("character {place} is U+{:04X}, {flaw}: leave it out or write another", u32::from(*.character))]
    Character {
        /// Its place, from 1.
        place: usize,
        /// The character.
        character: char,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A serial, name or recipient that two keyboards could write differently.
    #[error("`{0}` has a character outside ASCII: write serials, backup names and recipients in plain ASCII")]
    NotAscii(Line),
    /// Not 32 bytes of hexadecimal.
    #[error("expected 64 hexadecimal digits in lower case (SHA-256), got `{0}`")]
    Hash(String),
    /// Bytes that are not the length of a hash.
    #[error("expected 32 bytes (SHA-256), got {0}")]
    HashLength(usize),
}

/// A node's (and its share's) index in the cluster: 1 to 255, the x-coordinate of its Shamir share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct NodeIndex(u8);

impl NodeIndex {
    /// Checks that the index is not zero.
    ///
    /// # Errors
    /// [`InvalidId::NodeIndex`] for 0: it is the secret's own coordinate.
    pub const fn new(index: u8) -> Result<Self, InvalidId> {
        if index == 0 { Err(InvalidId::NodeIndex) } else { Ok(Self(index)) }
    }

    /// The index as a number, 1 to 255.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for NodeIndex {
    type Error = InvalidId;
    fn try_from(index: u8) -> Result<Self, InvalidId> {
        Self::new(index)
    }
}

impl std::str::FromStr for NodeIndex {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let index = text.parse().ok().and_then(|index| Self::new(index).ok());
        index.ok_or_else(|| InvalidId::NotANode(text.to_owned()))
    }
}

impl TryFrom<u32> for NodeIndex {
    type Error = InvalidId;
    fn try_from(index: u32) -> Result<Self, InvalidId> {
        u8::try_from(index).map_err(|_| InvalidId::NodeIndex).and_then(Self::new)
    }
}

impl From<NodeIndex> for u8 {
    fn from(index: NodeIndex) -> u8 {
        index.0
    }
}

impl From<NodeIndex> for u32 {
    fn from(index: NodeIndex) -> u32 {
        u32::from(index.0)
    }
}

impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A generation of a wallet's shares: DKG makes 1, every refresh or recovery the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation a DKG makes.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_name(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId::Name(shortened(text, 80))) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A wallet's name: a subject token and a file name (`a-z`, `0-9`, `-`).
    WalletName
);

impl WalletName {
    /// What an amendment has in place of a wallet's name; no wallet may have it.
    #[must_use]
    pub fn of_the_charter() -> Self {
        Self("charter".to_owned())
    }
}

name!(
    /// A ceremony's id, such as `dkg-treasury-1f9c03ab`: the last token of its subjects.
    CeremonyId
);
name!(
    /// A cluster's id: two clusters with one id would accept each other's records.
    ClusterId
);
name!(
    /// The name of a person in the charter, as `ssh-keygen -I` takes it.
    PersonName
);
name!(
    /// The id of a step in a ceremony's script.
    StepId
);

/// One line of text that a person reads and signs: seen whole, trimmed, at most [`MAX_TEXT`] characters.
///
/// What [`unseen`] finds is refused, so that text can neither imitate another line of a statement nor hold anything
/// that nobody sees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Line(String);

impl Line {
    /// Makes a line of any text, for reasons that programs give: what cannot be seen becomes a space,
    /// what is too long is cut, and nothing at all becomes `unspecified`.
    #[must_use]
    pub fn lossy(text: &str) -> Self {
        let clean = shortened(seen(text.trim()).trim(), MAX_TEXT);
        match clean.trim() {
            "" => Self("unspecified".to_owned()),
            clean => Self(clean.to_owned()),
        }
    }

    /// This line, if it is plain ASCII.
    ///
    /// # Errors
    /// [`InvalidId::NotAscii`].
    pub fn ascii(self) -> Result<Self, InvalidId> {
        if self.0.is_ascii() { Ok(self) } else { Err(InvalidId::NotAscii(self)) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Line {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if !(1..=MAX_TEXT).contains(&text.chars().take(MAX_TEXT + 1).count()) {
            return Err(InvalidId::Text);
        }
        match unseen(text) {
            Some((place, character, flaw)) => Err(InvalidId::Character { place, character, flaw }),
            None if text.trim() != text => Err(InvalidId::Text),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Line {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Line> for String {
    fn from(line: Line) -> String {
        line.0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A SHA-256 hash. Printed, parsed and serialised as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first entry of a log names as its predecessor.
    pub const ZERO: Self = Self([0; 32]);

    /// SHA-256 of plain bytes: for files, which anyone checks with `sha256sum`.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// SHA-256 over a domain tag and parts, each prefixed with its length as eight big-endian bytes, so
    /// that no two lists of parts are hashed alike.
    #[must_use]
    pub fn of_parts(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = InvalidId;
    fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
        bytes.try_into().map(Self).map_err(|_| InvalidId::HashLength(bytes.len()))
    }
}

/// In lower case, the one way in which it is written.
impl FromStr for Hash {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 32];
        let is_lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if is_lower => Ok(Self(bytes)),
            Ok(()) | Err(_) => Err(InvalidId::Hash(shortened(text, 80))),
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A moment in UTC, in milliseconds since 1970. Wall time, for people; never for measuring durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This moment, later by `millis`.
    #[must_use]
    pub const fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment; negative when it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time of day, in UTC: `22:41:07`.
    #[must_use]
    pub fn clock(self) -> String {
        self.to_string().chars().skip(11).take(8).collect()
    }
}

impl fmt::Display for UnixMillis {
    /// `2026-11-20T22:41:07Z`; milliseconds are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0.div_euclid(1000)) {
            Ok(time) => f.pad(&time.to_string()),
            Err(_) => write!(f, "{} ms since 1970", self.0),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn line_of_any_text_is_one(text in any::<String>()) {
            let line = Line::lossy(&text);
            prop_assert_eq!(line.as_str().parse::<Line>(), Ok(line.clone()));
        }
    }

    #[test]
    fn names_refuse_what_a_subject_or_a_path_would_read_differently() {
        for bad in ["", "A", "a.b", "a*", "a>", "../a", "-a", "a-", "a b", "é"] {
            assert!(bad.parse::<WalletName>().is_err(), "{bad:?}");
        }
        assert!("treasury-2".parse::<WalletName>().is_ok());
        assert!("a".repeat(65).parse::<WalletName>().is_err());
    }

    #[test]
    fn lines_refuse_text_that_imitates_another_line() {
        let long = "x".repeat(MAX_TEXT + 1);
        for bad in
            ["", " a", "a ", "a\nrole: auditor", "a\u{202e}b", "\u{7}", "a\u{200b}b", "\u{301}a", &long]
        {
            assert!(bad.parse::<Line>().is_err(), "{bad:?}");
        }
        let refused = "ab\u{2066}c".parse::<Line>().unwrap_err().to_string();
        assert_eq!(refused, "character 3 is U+2066, invisible: leave it out or write another");
        let refused = "\u{a0}c".parse::<Line>().unwrap_err().to_string();
        assert!(refused.contains("character 1 is U+00A0, a look-alike of the space"), "{refused}");
        assert!("First key of the treasury, año 2026".parse::<Line>().is_ok());
        for any in ["", " \n ", "a\nrole: auditor", "\u{202e}", &"long ".repeat(100)] {
            assert!(Line::lossy(any).as_str().parse::<Line>().is_ok(), "{any:?}");
        }
        assert!(Line::lossy(&"long ".repeat(100)).as_str().ends_with('…'));
    }

    #[test]
    fn hashed_parts_do_not_run_into_each_other() {
        assert_ne!(Hash::of_parts("t", &[b"ab", b"c"]), Hash::of_parts("t", &[b"a", b"bc"]));
        assert_ne!(Hash::of_parts("t", &[b"a"]), Hash::of_parts("ta", &[]));
    }
}
