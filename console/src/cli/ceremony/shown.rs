//! A ceremony as it is shown, and line by line as it goes on.

use anyhow::{Result, bail};
use ceremonies::ceremony::{Ceremony, Phase, StepState};
use ceremonies::ids::{CeremonyId, UnixMillis};
use ceremonies::manifest::Manifest;
use ceremonies::script::{Act, Step};
use ceremonies::statement::Answer;
use ceremonies::words;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::super::{Desk, Output, note};
use crate::client::{News, Reading, Recorded};
use crate::fork::{Fork, fork};
use crate::room::now;
use crate::standing::{disputes, is_unsent, withheld};

/// How far a step is, for programs and for people: its mark, and what there is to say. Once the ceremony has ended, nobody
/// is waited for any more.
fn progress(ceremony: &Ceremony, step: &Step, at: UnixMillis) -> (Value, &'static str, String) {
    let is_over = match ceremony.phase_at(at) {
        Phase::Gathering | Phase::Authorised | Phase::Committed => false,
        Phase::Closed | Phase::Abandoned(_) | Phase::Void(_) => true,
    };
    match ceremony.step_state(step) {
        StepState::Done if step.act == Act::Broadcast && is_unsent(ceremony) => {
            (json!("not sent"), "[!]", ": NOT SENT from here".to_owned())
        }
        StepState::Done if step.act == Act::Agree && !disputes(ceremony).is_empty() => {
            (json!("disputed"), "[!]", ": not all agree".to_owned())
        }
        StepState::Done => (json!("done"), "[x]", String::new()),
        StepState::Open { .. } | StepState::Blocked { .. } if is_over => {
            (json!("not reached"), "[ ]", ": not reached".to_owned())
        }
        StepState::Open { waiting_for } => {
            (json!({ "open": waiting_for }), "[>]", format!(": waiting for {waiting_for}"))
        }
        StepState::Blocked { by } => (json!({ "blocked_by": by }), "[ ]", String::new()),
    }
}

/// The head in words for paper: only once it is recorded.
pub(in crate::cli) fn head_words(ceremony: &Ceremony, recorded: &Recorded) -> Option<String> {
    recorded.recorded.then(|| words::spoken(&ceremony.head().hash))
}

pub(super) fn rendered(ceremony: &Ceremony, reading: &Reading) -> Value {
    let recorded = reading.recorded();
    let manifest = ceremony.manifest();
    let steps: Vec<Value> = ceremony
        .script()
        .steps()
        .iter()
        .map(|step| {
            let (state, _, _) = progress(ceremony, step, now());
            let signed: Vec<Value> = ceremony
                .signed(&step.id)
                .map(|s| json!({ "person": s.person, "role": s.role, "time": s.time.to_string(), "answer": s.answer.to_string(), "presence": s.presence }))
                .collect();
            json!({ "id": step.id, "state": state, "signed": signed })
        })
        .collect();
    json!({
        "id": manifest.ceremony,
        "kind": manifest.kind,
        "wallet": manifest.wallet,
        "charter": manifest.amendment().map(|charter| charter.hash()),
        "inventory": manifest.inventory(),
        "lost": manifest.lost(),
        "transaction": manifest.transaction().map(|transaction| transaction.words()),
        "transaction_id": ceremony.transaction_id().map(|id| id.to_string()),
        "signing_nodes": manifest.transaction().is_some().then_some(&manifest.roster),
        "disputes": disputes(ceremony),
        "withheld": withheld(ceremony),
        "purpose": manifest.purpose,
        "phase": ceremony.phase_at(now()).to_string(),
        "manifest": manifest.hash(),
        "expires": manifest.expires.to_string(),
        "head": ceremony.head().hash,
        "entry": ceremony.head().seq,
        "head_words": head_words(ceremony, &recorded),
        "record": recorded,
        "recorded_to": reading.recorded_tip().map(|tip| tip.seq),
        "fork": fork(reading).map(|fork| forked(&fork)),
        "words": ceremony.spoken_words(),
        "steps": steps,
    })
}

fn forked(fork: &Fork) -> Value {
    let mut value = json!(fork);
    value["settling"] = json!(fork.is_settling(now()));
    value
}

/// What a ceremony is about, in a few words.
fn about(manifest: &Manifest) -> String {
    match manifest.amendment() {
        None => {
            let lost: Vec<_> = manifest
                .lost()
                .iter()
                .map(|(node, way)| format!(", node {node} lost, {}", manifest.way_in_words(*way)))
                .collect();
            format!("wallet {}, generation {}{}", manifest.wallet, manifest.generation, lost.concat())
        }
        Some(charter) => format!("charter {}", charter.hash()),
    }
}

pub(super) fn described(ceremony: &Ceremony, reading: &Reading) -> String {
    let manifest = ceremony.manifest();
    let recorded = reading.recorded();
    let mut text = format!(
        "{} of {}: {}\nphase    {}\nrecord   entry {}, {recorded}\nmanifest {}\nexpires  {}\n",
        manifest.ceremony,
        about(manifest),
        manifest.purpose,
        ceremony.phase_at(now()),
        ceremony.head().seq,
        manifest.hash(),
        manifest.expires
    );
    if !reading.is_proven() {
        text += "         NO NODE HAS SIGNED THIS: each entry is proven, but nothing shows that none is missing\n";
    }
    for dispute in disputes(ceremony) {
        text += &format!("         DISPUTED by {dispute}\n");
    }
    for who in withheld(ceremony) {
        text += &format!("         NOT SENT from here, says {who}\n");
    }
    for line in fork(reading).iter().flat_map(|fork| fork.lines(now())) {
        text += &format!("{line}\n");
    }
    for change in manifest.amendment().into_iter().flat_map(|charter| ceremony.charter().changes(charter)) {
        text += &format!("  {change}\n");
    }
    for item in manifest.inventory() {
        text += &format!("  {item}\n");
    }
    for said in manifest.transaction().into_iter().flat_map(|transaction| transaction.words()) {
        text += &format!("  {said}\n");
    }
    if let Some(id) = ceremony.transaction_id() {
        text += &format!("  signed as {id}\n");
    }
    for step in ceremony.script().steps() {
        let (_, mark, more) = progress(ceremony, step, now());
        text += &format!("{mark} {} ({}){more}\n", step.title, step.id);
        for signed in ceremony.signed(&step.id) {
            text +=
                &format!("      {} as {}, {}: {}\n", signed.person, signed.role, signed.time, signed.answer);
        }
    }
    text += &match head_words(ceremony, &recorded) {
        Some(words) => format!("head     {words}"),
        None => "head     no words for paper yet: too few nodes have recorded the head".to_owned(),
    };
    text
}

pub(super) async fn follow(desk: &mut Desk, output: Output, id: &CeremonyId) -> Result<()> {
    let mut news = Box::pin(desk.client.news().await?);
    let mut told = 0;
    loop {
        if let Some(chapter) = desk.book.get(id) {
            for entry in chapter.entries.iter().skip(told) {
                let what = event_line(&entry.event);
                output.print(
                    &json!({ "seq": entry.seq, "time": entry.time.to_string(), "event": what }),
                    &format!("{} {:>3} {what}", entry.time, entry.seq),
                )?;
            }
            told = chapter.entries.len();
            let phase = chapter.ceremony.phase_at(now());
            match phase {
                Phase::Gathering | Phase::Authorised | Phase::Committed => {}
                end @ (Phase::Closed | Phase::Abandoned(_) | Phase::Void(_)) => {
                    return output.print(
                        &json!({ "end": end.to_string() }),
                        &format!("the ceremony has ended: {end}"),
                    );
                }
            }
        }
        match tokio::time::timeout(std::time::Duration::from_secs(2), news.next()).await {
            Ok(Some(News::Progress(progress))) if progress.ceremony == id.as_str() => {
                let waiting: Vec<String> = progress.waiting_for.iter().map(ToString::to_string).collect();
                let what = format!(
                    "node {} at {} ({} of {}), waiting for {}",
                    progress.node,
                    progress.phase,
                    progress.phase_number,
                    progress.phase_count,
                    if waiting.is_empty() { "nobody".to_owned() } else { waiting.join(", ") }
                );
                output.print(&json!({ "progress": what }), &what)?;
            }
            Ok(None) => bail!("the connection to the bus is closed"),
            Ok(Some(_)) | Err(_) => {}
        }
        // Nodes may be silent for a while; what they say then is what counts.
        if let Err(error) = desk.catch_up(id).await {
            note(&format!("note: {error:#}"));
        }
    }
}

/// An event in one line.
pub(crate) fn event_line(event: &ceremonies::log::Event) -> String {
    use ceremonies::log::Event;
    match event {
        Event::Opened { manifest, .. } => {
            format!("opened by {}: {}", manifest.administrator, manifest.purpose)
        }
        Event::Attested { node, .. } => format!("enclave {node} attested"),
        // Narrow screens cut the end, and this must not be cut.
        Event::Signed { step, role, person, answer: Answer::Disagree(reason), .. } => {
            format!("DISAGREES: {person} as {role}, {step}: {reason}")
        }
        Event::Signed { step, role, person, answer, .. } => format!("{person} as {role}, {step}: {answer}"),
        Event::BackedUp(backed_up) => format!("node {} wrote its backups", backed_up.node),
        Event::Proved { node, .. } => format!("the backup of node {node} holds its share"),
        Event::Recovered { node, .. } => format!("enclave {node} has its share again"),
        Event::Staged { node, .. } => format!("enclave {node} sealed a new share alongside the one in use"),
        Event::Retired { node, .. } => format!("node {node} deleted its old shares"),
        Event::Prepared { node, .. } => format!("enclave {node} sealed its share and signed the result"),
        Event::Adopted { node, .. } => format!("node {node} adopted the generation"),
        Event::TestSigned(signed) => format!("enclave {} signed with {}", signed.node, signed.subset),
        Event::Aborted(aborted) => format!("enclave {} gave up: {}", aborted.node, aborted.reason),
        Event::Faulted { node, reason } => format!("node {node} gave up: {reason}"),
        Event::Withdrawn { person, reason, .. } => format!("{person} ended the ceremony: {reason}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::super::super::recorded::{CLOSED, book, book_of};
    use super::*;

    /// What is said of each step of the recorded ceremony after so many entries.
    fn said(entries: usize, is_late: bool) -> Vec<(Value, String)> {
        let book = book(entries);
        let steps = book.iter().flat_map(|(_, chapter)| {
            let ceremony = &chapter.ceremony;
            let at = if is_late { ceremony.manifest().expires.plus(1) } else { ceremony.head().time };
            ceremony.script().steps().iter().map(move |step| {
                let (state, mark, more) = progress(ceremony, step, at);
                (state, format!("{mark}{more}"))
            })
        });
        steps.collect()
    }

    #[test]
    fn steps_of_a_void_ceremony_are_not_reached_and_wait_for_nobody() {
        let (running, void) = (said(6, false), said(6, true));
        assert_eq!(running[2], (json!({ "open": "1 witness" }), "[>]: waiting for 1 witness".to_owned()));
        assert!(running[3].0["blocked_by"].is_string() && running[3].1 == "[ ]", "{:?}", running[3]);
        assert_eq!(void[..2], running[..2], "what was done stays done");
        for step in &void[2..] {
            assert_eq!(*step, (json!("not reached"), "[ ]: not reached".to_owned()));
        }
    }

    #[test]
    fn every_step_of_a_closed_ceremony_is_done_however_late_it_is() {
        for is_late in [false, true] {
            let closed = said(CLOSED, is_late);
            assert!(
                closed.iter().all(|(state, text)| *state == json!("done") && text == "[x]"),
                "{closed:?}"
            );
        }
    }
    #[test]
    fn broadcast_of_a_transaction_that_was_not_sent_is_not_done_and_all_else_of_it_is() {
        let book = book_of("withheld");
        let transfer = book.iter().map(|(_, chapter)| &chapter.ceremony);
        let transfer =
            transfer.filter(|ceremony| ceremony.manifest().transaction().is_some()).last().unwrap();
        for step in transfer.script().steps() {
            let (state, mark, more) = progress(transfer, step, transfer.head().time);
            let is_unsent = step.act == Act::Broadcast;
            let not_sent = (json!("not sent"), "[!]", ": NOT SENT from here");
            let expected = if is_unsent { not_sent } else { (json!("done"), "[x]", "") };
            assert_eq!((state, mark, more.as_str()), expected, "{}", step.id);
        }
    }
}
