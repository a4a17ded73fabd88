//! Which ceremonies may be taken out of a book by whoever keeps their logs elsewhere, to be put back on request.
//!
//! Nothing that the book says of any other ceremony may depend on one that is taken out: generations, what may yet become
//! one, bans, inventories and charters stay.

use super::{Book, Chapter};
use crate::ceremony::Phase;
use crate::charter::CeremonyKind;
use crate::ids::{CeremonyId, Hash, UnixMillis};

impl Book {
    /// Whether a ceremony is over and nothing else follows from it.
    #[must_use]
    pub fn may_be_shelved(&self, id: &CeremonyId, now: UnixMillis) -> bool {
        let Some(Chapter { ceremony, .. }) = self.get(id) else { return false };
        let phase = ceremony.phase_at(now);
        let is_over = match ceremony.manifest().kind {
            CeremonyKind::TestSign | CeremonyKind::Transfer => {
                matches!(phase, Phase::Closed | Phase::Void(_))
            }
            CeremonyKind::Amend => matches!(phase, Phase::Void(_)) && ceremony.amended().is_none(),
            CeremonyKind::Dkg
            | CeremonyKind::Refresh
            | CeremonyKind::Recover
            | CeremonyKind::Rebuild
            | CeremonyKind::Inventory => false,
        };
        is_over && ceremony.bans().is_empty()
    }

    /// Takes a ceremony out.
    pub fn shelve(&mut self, id: &CeremonyId) -> Option<Chapter> {
        self.chapters.remove(id)
    }

    /// Whether a ceremony opened under a charter at this time was opened too late: another had been in force for so
    /// long that it does not count as a ceremony.
    #[must_use]
    pub fn is_overdue(&self, charter: &Hash, opened: UnixMillis) -> bool {
        self.named(charter, opened).charter().hash() != *charter
    }
}
