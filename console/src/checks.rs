//! The checks that a console makes of nodes and wallets: one table, from which screens, `custody status`, the page
//! `runbooks/checks.md` and the tests take what a check is called, how bad it is, how soon it turns, and what to do.
//!
//! Nothing is judged here: `health` and `readiness` find which check fails.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::health::Level;

/// The runbook for all of them.
const RUNBOOK: &str = include_str!("../../runbooks/something-is-wrong.md");

/// Something that is found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// No share set of the wallet reaches the threshold.
    WalletCannotSign,
    /// Too few nodes have shown their shares to tell.
    WalletNotKnown,
    /// The wallet can sign, but not with every node, or it is not finished.
    WalletDegraded,
    /// This console has no bus.
    NoBus,
    /// All nodes fell silent.
    AllSilent,
    /// This console itself stood still.
    Paused,
    /// What all nodes say comes late, or this console's clock is wrong.
    Late,
    /// The node fell silent.
    Silent,
    /// The node was never heard here.
    Unheard,
    /// Its heartbeats are older than one that came earlier.
    Backdated,
    /// Its store cannot be written to.
    Store,
    /// It has a charter in force, with several others, that this console has not read.
    Unread,
    /// It has another charter in force.
    Charter,
    /// Its agent cannot use its enclave.
    Enclave,
    /// Its enclave does not prove that it runs an allowed image.
    Attestation,
    /// Its store no longer has a share in use.
    ShareLost,
    /// Others have banned it.
    Banned,
    /// More comes in its name than a node may send.
    Surplus,
    /// The KMS gives its enclave no data key.
    Kms,
    /// It cannot write backups.
    Backups,
    /// It cannot read or use the stream of the log.
    Stream,
    /// Several others name it as standing on another branch of a log than a quorum.
    Elsewhere,
    /// It sees two branches of a log.
    Fork,
    /// Its logs are not those of others, and stay so.
    Record,
    /// Its clock is wrong.
    Clock,
    /// Its image is soon refused.
    ImageEnds,
    /// It does not hear a node that this console hears.
    Peers,
    /// The charter excludes it.
    Excluded,
}

/// A line of the table.
struct Row {
    /// Whose trouble it is, and what it is called by programs.
    id: &'static str,
    level: Level,
    /// How long after its cause it is shown at the latest, in seconds; none where no clock starts it.
    within_s: Option<u32>,
    /// When it is shown.
    when: &'static str,
    /// How its place in the runbook begins.
    symptom: &'static str,
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        let named = Self::ALL.into_iter().find(|check| check.id() == id);
        named.ok_or_else(|| serde::de::Error::custom(format!("`{id}` is not in runbooks/checks.md")))
    }
}

impl Check {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [Self; 28] = [
        Self::WalletCannotSign,
        Self::WalletNotKnown,
        Self::WalletDegraded,
        Self::NoBus,
        Self::AllSilent,
        Self::Paused,
        Self::Late,
        Self::Silent,
        Self::Unheard,
        Self::Backdated,
        Self::Store,
        Self::Unread,
        Self::Charter,
        Self::Enclave,
        Self::Attestation,
        Self::ShareLost,
        Self::Banned,
        Self::Surplus,
        Self::Kms,
        Self::Backups,
        Self::Stream,
        Self::Elsewhere,
        Self::Fork,
        Self::Record,
        Self::Clock,
        Self::ImageEnds,
        Self::Peers,
        Self::Excluded,
    ];

    #[expect(clippy::too_many_lines, reason = "it is the table: an arm for each check, and nothing else")]
    fn row(self) -> Row {
        use Level::{Bad, Excluded, Unknown, Warn};
        let (id, level, within_s, when, symptom) = match self {
            Self::WalletCannotSign => (
                "wallet-cannot-sign",
                Bad,
                Some(10),
                "fewer shares can be there than the threshold",
                "`✗ CANNOT SIGN",
            ),
            Self::WalletNotKnown => (
                "wallet-not-known",
                Unknown,
                Some(10),
                "fewer shares than the threshold were shown, and others may be there",
                "`? not known whether",
            ),
            Self::WalletDegraded => (
                "wallet-degraded",
                Warn,
                Some(10),
                "a share is missing, everything comes late, or the wallet is not finished",
                "`! can sign`",
            ),
            Self::NoBus => ("no-bus", Unknown, Some(10), "this console has lost the broker", "`NO BUS`"),
            Self::AllSilent => (
                "all-silent",
                Unknown,
                Some(10),
                "no node at all was heard for 5 s",
                "`not known: no node has been heard",
            ),
            Self::Paused => (
                "paused",
                Unknown,
                None,
                "this console was stopped or asleep for more than 3 s, until it has listened for 5 s again",
                "`not known: this console stood still",
            ),
            Self::Late => (
                "late",
                Warn,
                Some(10),
                "every node's clock is off by more than 2 s in the same direction",
                "`heartbeats of every node",
            ),
            Self::Silent => (
                "node-silent",
                Bad,
                Some(10),
                "no heartbeat for 5 s, while others are heard",
                "`not heard from for",
            ),
            Self::Unheard => (
                "node-unheard",
                Bad,
                Some(10),
                "no heartbeat since this console listens, for 5 s, while others are heard",
                "`not heard from for",
            ),
            Self::Backdated => (
                "node-backdated",
                Bad,
                Some(10),
                "no heartbeat for 5 s but such as are dated before one that came earlier",
                "`its heartbeats are dated",
            ),
            Self::Store => (
                "node-store",
                Bad,
                Some(10),
                "a write to the store failed: one is tried every second",
                "`store: …`",
            ),
            Self::Unread => (
                "charter-unread",
                Unknown,
                Some(10),
                "at least three nodes say that the same other charter is in force: this console could not read the record",
                "`works, as others do, under a charter that this console has not read`",
            ),
            Self::Charter => (
                "node-charter",
                Bad,
                Some(10),
                "the node says that another charter is in force",
                "`works under another charter`",
            ),
            Self::Enclave => (
                "node-enclave",
                Bad,
                Some(15),
                "no link to the enclave, or no answer to a question for 10 s: it may be busy for that long",
                "`enclave: …`",
            ),
            Self::Attestation => (
                "node-attestation",
                Bad,
                Some(15),
                "the attestation document is missing, too old, or of an image that the charter does not allow",
                "`attestation: …PCR0…`",
            ),
            Self::ShareLost => (
                "node-share-lost",
                Bad,
                Some(10),
                "the store of a node that runs lacks a share of a generation in use",
                "`lost its share of",
            ),
            Self::Banned => (
                "node-banned",
                Warn,
                Some(10),
                "the enclaves of two other nodes have banned it",
                "`⊘ … EXCLUDED`",
            ),
            Self::Surplus => (
                "node-surplus",
                Warn,
                Some(10),
                "more came in its name than a node may send, in the last 10 s: the surplus is dropped unread",
                "`sends more than a node may",
            ),
            Self::Kms => (
                "node-kms",
                Warn,
                Some(35),
                "the enclave asked for a data key and got none; it asks every 30 s, for each time is paid",
                "`KMS: …`",
            ),
            Self::Backups => (
                "node-backups",
                Warn,
                Some(15),
                "the vault cannot be written to: a folder is tried every 10 s, a bucket every 10 min",
                "`backups: …`",
            ),
            Self::Stream => (
                "node-stream",
                Warn,
                Some(10),
                "the stream cannot be read, is not set as it must be, or has lost its beginning",
                "`stream: …`",
            ),
            Self::Elsewhere => (
                "node-elsewhere",
                Warn,
                Some(10),
                "two other nodes say for 5 s that it signs another branch of a log than a quorum has locked",
                "`signs another branch",
            ),
            Self::Fork => (
                "node-fork",
                Warn,
                Some(10),
                "a log has two branches for 5 s, and this node sees no quorum that has locked its own",
                "`FORK after entry",
            ),
            Self::Record => (
                "node-record",
                Warn,
                Some(30),
                "its record has differed from those of two other nodes for 20 s, by its word or by theirs",
                "`has another record than",
            ),
            Self::Clock => {
                ("node-clock", Warn, Some(10), "its clock is off by more than 2 s", "`its clock is")
            }
            Self::ImageEnds => (
                "node-image-ends",
                Warn,
                None,
                "the charter refuses its image from a day on",
                "`its image is refused from",
            ),
            Self::Peers => (
                "node-peers",
                Warn,
                Some(15),
                "it has not heard a node for 8 s that this console hears",
                "`does not hear node",
            ),
            Self::Excluded => ("node-excluded", Excluded, None, "the charter excludes it", "`⊘ … EXCLUDED`"),
        };
        Row { id, level, within_s, when, symptom }
    }

    /// What programs call it.
    #[must_use]
    pub fn id(self) -> &'static str {
        self.row().id
    }

    /// Whether what it finds is no single node's or wallet's trouble, though each shows it: the bus's, or this console's.
    #[must_use]
    pub fn is_everyones(self) -> bool {
        matches!(self, Self::NoBus | Self::AllSilent | Self::Paused | Self::Late)
    }

    /// How bad it is.
    #[must_use]
    pub fn level(self) -> Level {
        self.row().level
    }

    /// When it is shown.
    #[must_use]
    pub fn when(self) -> &'static str {
        self.row().when
    }

    /// How long after its cause it is shown at the latest, in seconds.
    #[must_use]
    pub fn within_s(self) -> Option<u32> {
        self.row().within_s
    }

    /// What to do, as the runbook says it, in plain text.
    #[must_use]
    pub fn what_to_do(self) -> String {
        let begins = format!("**{}", self.row().symptom);
        let place = RUNBOOK.split("\n\n").find(|paragraph| paragraph.trim_start().starts_with(&begins));
        plain(place.unwrap_or("See runbooks/something-is-wrong.md."))
    }
}

/// A paragraph of a runbook without its marks. A link becomes its words and the page.
fn plain(paragraph: &str) -> String {
    let mut text = String::new();
    let mut rest = paragraph;
    while let Some((before, link)) = rest.split_once('[') {
        text += before;
        rest = match link.split_once("](").and_then(|(words, at)| Some((words, at.split_once(')')?))) {
            Some((words, (page, after))) => {
                text += &format!("{words} (runbooks/{page})");
                after
            }
            None => link,
        };
    }
    let text = (text + rest).replace(['*', '`'], "");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The page `runbooks/checks.md`.
#[must_use]
pub fn page() -> String {
    let mut text = "# What is checked\n\n\
        The console and `custody status` look for these, in this order, and show the first that they find of each node. \
        `custody --json status` gives the first column as `check`. What to do is in [Something is \
        wrong](something-is-wrong.md); Enter on a node's line shows it.\n\n\
        | check | mark | shown within | when |\n|---|---|---|---|\n"
        .to_owned();
    for Row { id, level, within_s, when, .. } in Check::ALL.map(Check::row) {
        let within = within_s.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds} s"));
        text += &format!("| {id} | {} | {within} | {when} |\n", level.mark());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_a_place_in_the_runbook() {
        let ids: BTreeSet<&str> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        for check in Check::ALL {
            let text = check.what_to_do();
            assert!(text.len() > 60 && !text.starts_with("See runbooks"), "{}: {text}", check.id());
            assert!(!text.contains(['[', '`', '*']), "{text}");
        }
    }

    #[test]
    fn page_of_checks_is_what_is_checked() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks/checks.md");
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert_eq!(written, page(), "write it anew: custody status --checks > runbooks/checks.md");
    }
}
