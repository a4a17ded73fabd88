//! Which ceremonies may be taken out of a book by whoever keeps their logs elsewhere, to be put back on request.
//!
//! Nothing that the book says of any other ceremony may depend on one that is taken out: the generation in use and the one
//! before it, what may yet become one, bans, inventories and charters stay. What only an exposure ledger would show of
//! older generations is missing from it until they are put back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Book, Chapter};
use crate::ceremony::{Ceremony, Phase};
use crate::ids::{CeremonyId, Hash, UnixMillis, WalletName};
use crate::kinds::Outlasts;
use crate::log::{Entry, Event};
use crate::manifest::{Manifest, Origin};
use crate::wallet::Record;

impl Book {
    /// The ceremonies that are over and from which nothing else follows.
    #[must_use]
    pub fn shelvable(&self, now: UnixMillis) -> BTreeSet<CeremonyId> {
        let old = self.superseded(now);
        let is_idle = |ceremony: &Ceremony| {
            let manifest = ceremony.manifest();
            let phase = ceremony.phase_at(now);
            let is_needed = match manifest.kind.rules().outlasts_its_end {
                Outlasts::Never => false,
                Outlasts::IfInForce => phase == Phase::Closed || ceremony.amended().is_some(),
                Outlasts::WithItsGeneration => !old.contains(&manifest.ceremony),
                Outlasts::Always => true,
            };
            is_over(&phase) && !is_needed && ceremony.bans().is_empty()
        };
        let idle = self.ceremonies().filter(|ceremony| is_idle(ceremony));
        idle.map(|ceremony| ceremony.manifest().ceremony.clone()).collect()
    }

    /// The ceremonies that made, or were to make, generations before the one in use, except the one before and what the
    /// others in the book work on. A generation that is complete does not work on the one before any more: its log [rests
    /// on](Self::rest_on) that one's record. Where anybody is banned, all stay: who may take part is judged by all
    /// generations.
    fn superseded(&self, now: UnixMillis) -> BTreeSet<CeremonyId> {
        if self.bans().next().is_some() {
            return BTreeSet::new();
        }
        let is_maker = |ceremony: &&Ceremony| ceremony.manifest().kind.makes_shares();
        let makers = || self.ceremonies().filter(is_maker);
        let mut in_use: BTreeMap<&WalletName, &Manifest> = BTreeMap::new();
        for made in makers().filter(|ceremony| ceremony.has_committed()).map(Ceremony::manifest) {
            let newest = in_use.entry(&made.wallet).or_insert(made);
            if made.generation > newest.generation {
                *newest = made;
            }
        }
        let is_complete = |ceremony: &Ceremony| ceremony.has_committed() && is_over(&ceremony.phase_at(now));
        let at_work = || self.ceremonies().filter(|ceremony| !is_complete(ceremony));
        let attempts = at_work().filter(is_maker).flat_map(|ceremony| self.earlier_attempts(ceremony));
        let before = |manifest, count| self.makers_back_from(manifest).take(count);
        let needed: BTreeSet<&CeremonyId> = at_work()
            .flat_map(|ceremony| before(ceremony.manifest(), 2))
            .chain(in_use.values().flat_map(|manifest| before(manifest, 1)))
            .chain(attempts)
            .map(|chapter| &chapter.ceremony.manifest().ceremony)
            .collect();
        let is_old = |manifest: &&Manifest| {
            let newest = in_use.get(&manifest.wallet);
            newest.is_some_and(|newest| manifest.generation < newest.generation)
                && !needed.contains(&manifest.ceremony)
        };
        makers().map(Ceremony::manifest).filter(is_old).map(|manifest| manifest.ceremony.clone()).collect()
    }

    /// Takes a ceremony out. The record of the generation that it made stays, for what rests on it.
    pub fn shelve(&mut self, id: &CeremonyId) -> Option<Chapter> {
        let chapter = self.chapters.remove(id)?;
        let made = chapter.ceremony.committed();
        self.know_records(made.map(|wallet| wallet.record));
        Some(chapter)
    }

    /// Whether a ceremony opened under a charter at this time was opened too late: another had been in force for so
    /// long that it does not count as a ceremony.
    #[must_use]
    pub fn is_overdue(&self, charter: &Hash, opened: UnixMillis) -> bool {
        self.named(charter, opened).charter().hash() != *charter
    }
}

fn is_over(phase: &Phase) -> bool {
    matches!(phase, Phase::Closed | Phase::Void(_))
}

/// The ceremony that a log works on, by its opening.
#[must_use]
pub fn origin_of(log: &[Entry]) -> Option<&Origin> {
    let Event::Opened { manifest, .. } = &log.first()?.event else { return None };
    manifest.origin.as_ref()
}

/// The record of this digest, if it is in a log. Whether anybody vouches for it is not looked at.
#[must_use]
pub fn record_in(log: &[Entry], digest: &Hash) -> Option<Record> {
    let mut records = log.iter().filter_map(|entry| {
        let (Event::Prepared { record, .. } | Event::Staged { record, .. }) = &entry.event else {
            return None;
        };
        Some(record)
    });
    Record::parse(records.find(|record| Record::digest_of(record) == *digest)?).ok()
}
