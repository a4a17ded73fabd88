//! What an enclave that has just been started must be shown to do what is due in a ceremony.
//!
//! History adds nothing: the certificate of the generation in use vouches for those before it, see
//! `decisions/0008-the-newest-certificate-vouches.md`. What is left does not grow with the number of generations, nor
//! with the number of ceremonies that failed. Nothing here is secret or trusted: an enclave judges what it is shown.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::lineage::Ban;
use super::{Book, Chapter};
use crate::ceremony::Ceremony;
use crate::ids::{CeremonyId, Hash, UnixMillis};
use crate::manifest::Manifest;
use crate::wallet::Record;

/// How many ceremonies that failed to make the generation are shown, the latest first. An enclave that knows one only
/// as it was before it ended takes it for a rival, until it hears of the end or is restarted.
const MAX_FAILED: usize = 8;

/// What an enclave needs besides a ceremony's own log.
#[derive(Debug, Default)]
pub struct Needed<'a> {
    /// The records of generations whose ceremonies are not shown.
    pub records: Vec<&'a Record>,
    /// Other ceremonies, each after those that it rests on.
    pub logs: Vec<&'a Chapter>,
}

fn id(chapter: &Chapter) -> &CeremonyId {
    &chapter.ceremony.manifest().ceremony
}

/// Ceremonies by id, none of them twice.
#[derive(Default)]
struct Shown<'a>(BTreeMap<&'a CeremonyId, &'a Chapter>);

impl<'a> Shown<'a> {
    fn add(&mut self, chapters: impl IntoIterator<Item = &'a Chapter>) {
        self.0.extend(chapters.into_iter().map(|chapter| (id(chapter), chapter)));
    }
}

impl Book {
    /// What an enclave must be shown besides the log of this ceremony: the amendments; the ceremony that made the
    /// generation it works on, and the one before, which tells a store that was rolled back from a damaged one; the
    /// ceremony that made the newest generation; those that were to make the same generation; and those whose bans may
    /// hold.
    #[must_use]
    pub fn needed_for(&self, id: &CeremonyId, now: UnixMillis) -> Needed<'_> {
        let Some(chapter) = self.get(id) else { return Needed::default() };
        let manifest = chapter.ceremony.manifest();
        let mut shown = Shown::default();
        shown.add(self.makers_back_from(manifest).take(2));
        let newest = self.wallet(&manifest.wallet).map(|wallet| wallet.record.ceremony);
        shown.add(newest.and_then(|newest| self.get(&newest)));
        shown.add(self.rivals(&chapter.ceremony, now));
        shown.add(self.with_bans(manifest));

        let amendments: Vec<&Chapter> = self.amendments().collect();
        let mut others: Vec<&Chapter> = shown.0.into_values().collect();
        others.retain(|other| {
            self::id(other) != id
                && !amendments.iter().any(|amendment| self::id(amendment) == self::id(other))
        });
        others.sort_by_key(|other| {
            let manifest = other.ceremony.manifest();
            (manifest.generation, !manifest.kind.makes_shares(), manifest.opened, &manifest.ceremony)
        });
        let logs: Vec<&Chapter> = amendments.into_iter().chain(others).collect();
        let known: BTreeSet<&CeremonyId> = logs.iter().map(|log| self::id(log)).collect();
        let worked_on = logs.iter().filter_map(|log| log.ceremony.before_record());
        let records: BTreeMap<Hash, &Record> = worked_on
            .filter(|record| !known.contains(&record.ceremony))
            .map(|record| (record.digest(), record))
            .collect();
        Needed { records: records.into_values().collect(), logs }
    }

    /// What has made or may yet make this ceremony's generation, and what failed to.
    fn rivals(&self, ceremony: &Ceremony, now: UnixMillis) -> Vec<&Chapter> {
        let mut attempts: Vec<&Chapter> = self.earlier_attempts(ceremony).collect();
        attempts.sort_by_key(|attempt| Reverse(attempt.ceremony.manifest().opened));
        attempts.truncate(MAX_FAILED);
        attempts.extend(self.rival(ceremony, now).and_then(|rival| self.get(rival)));
        attempts
    }

    /// For each ban that holds on the generation that a ceremony works on, the ceremony in which it will end last; and,
    /// where other bans of those have ended, the recoveries that ended them, with all that rests on these.
    fn with_bans(&self, manifest: &Manifest) -> Vec<&Chapter> {
        let makers = self.makers_before(manifest);
        let lineage = self.lineage(makers.last().map_or(manifest, |maker| maker.ceremony.manifest()));
        let mut holding: BTreeMap<Ban, (UnixMillis, &Chapter)> = BTreeMap::new();
        for (chapter, opened, ban) in self.banning() {
            let later = holding.get(&ban).is_none_or(|(known, _)| *known < opened);
            if later && lineage.end(opened, ban).is_none() {
                holding.insert(ban, (opened, chapter));
            }
        }
        let shown: BTreeMap<&CeremonyId, &Chapter> =
            holding.into_values().map(|(_, chapter)| (id(chapter), chapter)).collect();
        let of_shown = self.banning().filter(|(chapter, _, _)| shown.contains_key(id(chapter)));
        let oldest = of_shown.filter_map(|(_, opened, ban)| lineage.end(opened, ban)).min();
        let enders = makers.into_iter().skip(oldest.unwrap_or(usize::MAX));
        enders.chain(shown.into_values()).collect()
    }
}
