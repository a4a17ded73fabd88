//! What must not look finished: a record that somebody disputes, and a wallet whose ceremony was not completed.

use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, Phase, StepSignature};
use ceremonies::ids::UnixMillis;
use ceremonies::listing::DISPUTED;
use ceremonies::statement::Answer;
use ceremonies::wallet::Record;

/// Who says that the record of a ceremony is wrong, and why.
#[must_use]
pub fn disputes(ceremony: &Ceremony) -> Vec<String> {
    let said = |signed: &StepSignature| format!("{} as {}: {}", signed.person, signed.role, signed.answer);
    ceremony.disagreements().map(said).collect()
}

/// Who says that the signed transaction was not sent, and why.
#[must_use]
pub fn withheld(ceremony: &Ceremony) -> Vec<String> {
    let withheld = |signed: &StepSignature| match &signed.answer {
        Answer::Withheld(reason) => Some(format!("{} as {}: {reason}", signed.person, signed.role)),
        _ => None,
    };
    ceremony.said_of_broadcast().filter_map(withheld).collect()
}

/// Where a ceremony stands, in one word, or two if somebody disputes its record.
#[must_use]
pub fn word(ceremony: &Ceremony, now: UnixMillis) -> String {
    let phase = ceremony.phase_at(now).to_string();
    let word = phase.split(':').next().unwrap_or_default();
    if ceremony.disagreements().next().is_some() { format!("{word}{DISPUTED}") } else { word.to_owned() }
}

/// Why a wallet should not be relied on yet, judging by the ceremony that made its generation, and by the one that made
/// its key; none if that was closed and nobody disagreed.
#[must_use]
pub fn unfinished(book: &Book, record: &Record, now: UnixMillis) -> Option<String> {
    let ceremony = &book.get(&record.ceremony)?.ceremony;
    let disputes = disputes(ceremony);
    let steps = ceremony.script().steps().iter().filter(|step| !ceremony.is_done(step));
    let missing: Vec<&str> = steps.map(|step| step.title.as_str()).collect();
    let (what, why) = match ceremony.phase_at(now) {
        Phase::Closed if disputes.is_empty() => return disputed_key(book, record),
        Phase::Closed => ("DISPUTED", disputes.join("; ")),
        Phase::Abandoned(reason) => ("ABANDONED", format!("{reason}; not done: {}", missing.join(", "))),
        Phase::Gathering | Phase::Authorised | Phase::Committed | Phase::Void(_) => {
            ("NOT FINISHED", format!("not done: {}", missing.join(", ")))
        }
    };
    Some(format!("{what}, do not fund it: {why}"))
}

/// Who disputed the record of the ceremony that made a wallet's key. New shares of it change nothing about that.
fn disputed_key(book: &Book, record: &Record) -> Option<String> {
    let makers = book.origins(&record.ceremony);
    let made = makers.iter().find(|chapter| chapter.ceremony.manifest().origin.is_none())?;
    let disputes = disputes(&made.ceremony);
    let id = &made.ceremony.manifest().ceremony;
    (!disputes.is_empty())
        .then(|| format!("DISPUTED, do not fund it: its key was made in {id}: {}", disputes.join("; ")))
}
