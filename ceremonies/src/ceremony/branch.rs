//! What others build on in a ceremony, and what must therefore still follow when its log continues on another branch.
//!
//! What people and enclaves sign does not depend on an entry's place. When a fork heals, the events of the abandoned
//! branch are appended again to the other; somebody may have built on one that cannot be. Nothing here decides which
//! branch stands.

use std::collections::BTreeMap;

use super::Ceremony;
use crate::ids::NodeIndex;

/// Whether every node's word is unchanged; more may have been said since.
fn holds<T: PartialEq>(now: &BTreeMap<NodeIndex, T>, before: &BTreeMap<NodeIndex, T>) -> bool {
    before.iter().all(|(node, word)| now.get(node) == Some(word))
}

impl Ceremony {
    /// Whether this branch still gives everything that others may have built on from the branch shown before: the
    /// certificate and the results that may yet become one, the words of enclaves that gave up, bans, backups, the
    /// amended charter, and what people have approved and let through. Both are logs of one ceremony.
    #[must_use]
    pub fn upholds(&self, before: &Self) -> bool {
        let record = |ceremony: &Self| ceremony.record.as_ref().map(super::Record::digest);
        let committed = before.committed().is_none() || record(self) == record(before);
        let amended = match (before.amended(), self.amended()) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((before, _)), Some((now, _))) => before.hash() == now.hash(),
        };
        committed
            && amended
            && self.manifest.hash() == before.manifest.hash()
            && before.bans.is_subset(&self.bans)
            && holds(&self.staged, &before.staged)
            && holds(&self.prepared, &before.prepared)
            && holds(&self.backups, &before.backups)
            && before.aborted.is_subset(&self.aborted)
            && (before.unapproved().is_some() || self.unapproved().is_none())
            && (!before.is_let_through() || self.is_let_through())
    }
}
