//! What a book says without the ceremonies that may be shelved: the same as with them.

use std::collections::BTreeSet;
use std::mem::discriminant;

use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use ceremonies::log::Entry;

use super::charter::NODES;
use super::world::World;
use crate::simulation::charter::node;

/// What an enclave would be shown: logs and records.
fn shown(book: &Book, id: &CeremonyId, now: UnixMillis) -> (Vec<CeremonyId>, Vec<Hash>) {
    let needed = book.needed_for(id, now);
    let logs = needed.logs.iter().map(|log| log.ceremony.manifest().ceremony.clone());
    (logs.collect(), needed.records.iter().map(|record| record.digest()).collect())
}

fn is_under_way(ceremony: &Ceremony, now: UnixMillis) -> bool {
    !matches!(ceremony.phase_at(now), Phase::Closed | Phase::Void(_))
}

impl World {
    /// Checks that an agent that lets go of all that may be shelved judges like one that keeps everything, also after a
    /// restart. Without another book, what the agent has in memory is everything. Returns how many ceremonies were let
    /// go that made shares.
    pub(super) fn check_shelf(&self, at: usize, whole: Option<&Book>) -> usize {
        let Some(whole) = whole.or(self.core(at).map(node::core::Core::book)) else { return 0 };
        let now = self.clock(at);
        let (mut rest, mut gone) = (whole.clone(), BTreeSet::new());
        loop {
            let more = rest.shelvable(now);
            if more.is_empty() {
                break;
            }
            for id in &more {
                rest.shelve(id);
            }
            gone.extend(more);
        }
        let must = |same: bool, what: &str, id: &CeremonyId| {
            self.must(same, || format!("{what} {id} is judged otherwise without {gone:?}"));
        };
        for (id, chapter) in whole.iter() {
            let manifest = chapter.ceremony.manifest();
            // Which of several ceremonies it names that stand against it makes no difference.
            let opening = |book: &Book| book.check_opening(manifest, now).map_err(|why| discriminant(&why));
            must(opening(whole) == opening(&rest), "opening", id);
            let next = |book: &Book| book.next_generation(&manifest.wallet, now);
            must(next(whole) == next(&rest), "next generation in", id);
            let in_use = |book: &Book| book.wallet(&manifest.wallet);
            must(in_use(whole) == in_use(&rest), "wallet of", id);
            if is_under_way(&chapter.ceremony, now) {
                must(rest.get(id).is_some(), "course of", id);
                must(whole.bans_in(manifest) == rest.bans_in(manifest), "ban in", id);
                must(whole.out_of_use(manifest) == rest.out_of_use(manifest), "share in", id);
                let rival = |book: &Book| book.rival(&chapter.ceremony, now).cloned();
                must(rival(whole).is_some() == rival(&rest).is_some(), "rival of", id);
                must(shown(whole, id, now) == shown(&rest, id, now), "order in", id);
            }
        }
        for other in 0..NODES {
            let same = whole.accusers(node(other)) == rest.accusers(node(other));
            self.must(same, || format!("node {} is accused otherwise without {gone:?}", node(other)));
        }
        self.check_restart(at, &rest);
        let makes = |id: &&CeremonyId| {
            whole.get(id).is_some_and(|chapter| chapter.ceremony.manifest().kind.makes_shares())
        };
        gone.iter().filter(makes).count()
    }

    /// An agent that starts with these logs folds them as they were, on the records that are in the logs of the others.
    fn check_restart(&self, at: usize, rest: &Book) {
        let logs: Vec<Vec<Entry>> = rest.iter().map(|(_, chapter)| chapter.entries.clone()).collect();
        let mut again = Book::new(self.context.clone());
        for log in &logs {
            again.know_records(self.nodes[at].host.store.record_before(log));
        }
        let aside = again.take_logs(logs);
        self.must(aside.is_empty(), || format!("a log does not fold on a record alone: {aside:?}"));
        for (id, chapter) in again.iter() {
            let rests = chapter.ceremony.rests_on_a_record();
            let is_over = !is_under_way(&chapter.ceremony, self.clock(at));
            self.must(is_over || !rests, || format!("{id} is under way and rests on a record alone"));
        }
    }
}
