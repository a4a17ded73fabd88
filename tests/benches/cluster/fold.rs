//! How fast a log is folded.

use std::time::{Duration, Instant};

use ceremonies::attestation::{self, Expectation};
use ceremonies::book::Book;
use ceremonies::ceremony::Ceremony;
use ceremonies::log::{Entry, Event};
use ceremonies::statement;

use crate::report::Report;

const ROUNDS: u32 = 50;

fn timed(work: impl Fn()) -> Duration {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    begun.elapsed() / ROUNDS
}

/// Folds a closed ceremony's log, and counts what its SSHSIGs and attestation documents cost apart.
pub(crate) fn fold(report: &mut Report, entries: &[Entry], book: &Book) {
    let context = book.context().clone();
    let encoded: Vec<Vec<u8>> = entries.iter().map(Entry::encode).collect();
    let ceremony = Ceremony::fold(context.clone(), entries).unwrap();
    let all = timed(|| {
        let decoded: Vec<Entry> = encoded.iter().map(|bytes| Entry::decode(bytes).unwrap()).collect();
        Ceremony::fold(context.clone(), &decoded).unwrap();
    });
    let people = timed(|| {
        for signed in ceremony.signatures() {
            let person = context.charter().person(&signed.person).unwrap();
            statement::verify(person, &signed.text, &signed.signature).unwrap();
        }
    });
    let documents = entries.iter().filter_map(|entry| match &entry.event {
        Event::Attested { document, .. } => Some((document, entry.time)),
        _ => None,
    });
    let rules = context.charter().attestation();
    let documents: Vec<_> = documents.collect();
    let attested = timed(|| {
        for (document, at) in &documents {
            let expected = Expectation {
                root: context.root(),
                allowed: &rules.measurements,
                nonce: None,
                at: *at,
                max_age_ms: u64::MAX,
            };
            attestation::check(document, &expected).unwrap();
        }
    });
    let rate = |time: Duration| entries.len() as f64 / time.as_secs_f64();
    let what = format!(
        "with everything ({} entries, {} of them with an SSHSIG, {} attestations)",
        entries.len(),
        ceremony.signatures().len(),
        documents.len()
    );
    report.put("fold", &what, rate(all), "entries/s");
    report.put("fold", "SSHSIG checks counted apart", rate(all.saturating_sub(people)), "entries/s");
    report.put_beside(
        "fold",
        "attestations (P-384 chains) counted apart as well",
        rate(all.saturating_sub(people + attested)),
        "entries/s",
        "≥ 10000",
    );
}
