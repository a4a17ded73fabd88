//! What must not look finished: a record that somebody disputes, a transaction that was not sent, and a wallet whose ceremony
//! was not completed.

use std::fmt;

use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, Phase, StepSignature};
use ceremonies::ids::UnixMillis;
use ceremonies::listing::DISPUTED;
use ceremonies::statement::Answer;
use ceremonies::wallet::Record;
use serde::Serialize;

/// What a list has behind the phase of a ceremony whose transaction was not sent.
pub const NOT_SENT: &str = " NOT SENT";

/// Who says that the record of a ceremony is wrong, and why.
#[must_use]
pub fn disputes(ceremony: &Ceremony) -> Vec<String> {
    let said = |signed: &StepSignature| format!("{} as {}: {}", signed.person, signed.role, signed.answer);
    ceremony.disagreements().map(said).collect()
}

/// Who says that the signed transaction was not sent, and why.
#[must_use]
pub fn withheld(ceremony: &Ceremony) -> Vec<String> {
    let withheld = |signed: &StepSignature| {
        let Answer::Withheld(reason) = &signed.answer else { return None };
        Some(format!("{} as {}: {reason}", signed.person, signed.role))
    };
    ceremony.said_of_broadcast().filter_map(withheld).collect()
}

/// Whether somebody says that the signed transaction was not sent, and nobody that it is in a block.
#[must_use]
pub fn is_unsent(ceremony: &Ceremony) -> bool {
    let is_confirmed = |signed: &StepSignature| matches!(signed.answer, Answer::Broadcast(_));
    !withheld(ceremony).is_empty() && !ceremony.said_of_broadcast().any(is_confirmed)
}

/// Where a ceremony stands, in one word, and more if somebody disputes its record or its transaction was not sent.
#[must_use]
pub fn word(ceremony: &Ceremony, now: UnixMillis) -> String {
    let phase = ceremony.phase_at(now).to_string();
    let word = phase.split(':').next().unwrap_or_default();
    let disputed = if ceremony.disagreements().next().is_some() { DISPUTED } else { "" };
    let unsent = if is_unsent(ceremony) { NOT_SENT } else { "" };
    format!("{word}{disputed}{unsent}")
}

/// What is wrong with the ceremony that made a wallet or its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// It is under way, or void.
    NotFinished,
    /// It was ended after its commit.
    Abandoned,
    /// Somebody disagrees with its record.
    Disputed,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flaw = match self {
            Self::NotFinished => "NOT FINISHED",
            Self::Abandoned => "ABANDONED",
            Self::Disputed => "DISPUTED",
        };
        write!(f, "{flaw}, do not fund it")
    }
}

/// Why a wallet should not be relied on yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// In a few words, the same on every screen.
    pub flaw: Flaw,
    why: String,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.flaw, self.why)
    }
}

/// Why a wallet should not be relied on yet, judging by the ceremony that made its generation, and by the one that made
/// its key; none if that was closed and nobody disagreed.
#[must_use]
pub fn unfinished(book: &Book, record: &Record, now: UnixMillis) -> Option<Unfinished> {
    let ceremony = &book.get(&record.ceremony)?.ceremony;
    let disputes = disputes(ceremony);
    let steps = ceremony.script().steps().iter().filter(|step| !ceremony.is_done(step));
    let missing: Vec<&str> = steps.map(|step| step.title.as_str()).collect();
    let (flaw, why) = match ceremony.phase_at(now) {
        Phase::Closed if disputes.is_empty() => return disputed_key(book, record),
        Phase::Closed => (Flaw::Disputed, disputes.join("; ")),
        Phase::Abandoned(reason) => (Flaw::Abandoned, format!("{reason}; not done: {}", missing.join(", "))),
        Phase::Gathering | Phase::Authorised | Phase::Committed | Phase::Void(_) => {
            (Flaw::NotFinished, format!("not done: {}", missing.join(", ")))
        }
    };
    Some(Unfinished { flaw, why })
}

/// Who disputed the record of the ceremony that made a wallet's key. New shares of it change nothing about that.
fn disputed_key(book: &Book, record: &Record) -> Option<Unfinished> {
    let makers = book.origins(&record.ceremony);
    let made = makers.iter().find(|chapter| chapter.ceremony.manifest().origin.is_none())?;
    let disputes = disputes(&made.ceremony);
    let id = &made.ceremony.manifest().ceremony;
    let why = format!("its key was made in {id}: {}", disputes.join("; "));
    (!disputes.is_empty()).then_some(Unfinished { flaw: Flaw::Disputed, why })
}
