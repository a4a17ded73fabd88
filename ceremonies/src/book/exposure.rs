//! The exposure ledger: which copies of a wallet's shares are known to exist, generation by generation.
//!
//! A refresh does not change the key. As long as a threshold of old copies survives, wherever they are, they still
//! rebuild it; this module counts how many survive, and until when. It knows what the log knows and no more: what
//! people see of paper, disks and identities, they enter in an inventory.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Book, Chapter};
use crate::ceremony::Ceremony;
use crate::ids::{CeremonyId, Generation, Hash, Line, NodeIndex, UnixMillis, WalletName};
use crate::log::Event;
use crate::script::Act;
use crate::wallet::Object;

/// Where a copy of a share is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the node's store, under the KMS key.
    Store,
    /// Where backups are kept, encrypted to the share's keepers.
    Backup {
        /// Its name there.
        key: Line,
        /// Until then nobody can delete it; afterwards it counts as deleted.
        locked_until: UnixMillis,
    },
    /// On paper: the root share's backup, encrypted to its keepers.
    Sheet {
        /// The sheet's number.
        serial: Line,
    },
    /// Where nobody had counted one.
    Found {
        /// Elsewhere, in the words of those who found it.
        what: Line,
    },
}

/// One known copy of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// Whose share.
    pub node: NodeIndex,
    /// Where it is.
    pub place: Place,
    /// The recovery in which its keeper released it to an enclave. The copy still exists.
    pub released: Option<CeremonyId>,
    /// The inventory that says it is gone: the copy itself was destroyed, or every identity that opens it was.
    pub destroyed: Option<CeremonyId>,
}

impl Copy {
    pub(super) fn new(node: NodeIndex, place: Place) -> Self {
        Self { node, place, released: None, destroyed: None }
    }

    /// When it ends without anyone's doing: the last moment there is, for a copy that stays until it is destroyed.
    fn ends(&self) -> UnixMillis {
        match self.place {
            Place::Store | Place::Sheet { .. } | Place::Found { .. } => UnixMillis(i64::MAX),
            Place::Backup { locked_until, .. } => locked_until,
        }
    }

    fn exists(&self, now: UnixMillis) -> bool {
        self.destroyed.is_none() && now < self.ends()
    }
}

/// The known copies of one generation's shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exposure {
    /// Which generation.
    pub generation: Generation,
    /// The ceremony that made it. A generation that was given up may have the same number as a later one.
    pub ceremony: CeremonyId,
    /// Whether it is the generation in use. One that was given up never was.
    pub current: bool,
    /// How many of its shares rebuild the key.
    pub threshold: u8,
    /// Every copy ever known, except those whose deletion nodes have signed and the stores of nodes that lost theirs.
    /// What an inventory says is gone stays in the list.
    pub copies: Vec<Copy>,
}

impl Exposure {
    /// The nodes of whose shares a copy exists at this moment.
    #[must_use]
    pub fn exposed(&self, now: UnixMillis) -> BTreeSet<NodeIndex> {
        self.copies.iter().filter(|copy| copy.exists(now)).map(|copy| copy.node).collect()
    }

    /// Whether a generation that is not in use any more still rebuilds the key.
    #[must_use]
    pub fn warns(&self, now: UnixMillis) -> bool {
        !self.current && self.exposed(now).len() >= usize::from(self.threshold)
    }

    /// When enough locks have ended that the copies left are too few to rebuild the key. None while the copies that do
    /// not end by themselves (in stores, on paper, found) are enough.
    #[must_use]
    pub fn clears(&self) -> Option<UnixMillis> {
        let mut until: BTreeMap<NodeIndex, UnixMillis> = BTreeMap::new();
        for copy in self.copies.iter().filter(|copy| copy.destroyed.is_none()) {
            let end = copy.ends();
            let last = until.entry(copy.node).or_insert(end);
            *last = end.max(*last);
        }
        let mut ends: Vec<UnixMillis> = until.into_values().collect();
        ends.sort_unstable_by_key(|end| std::cmp::Reverse(*end));
        let last = ends.get(usize::from(self.threshold).saturating_sub(1)).copied();
        match last {
            None => Some(UnixMillis(0)),
            Some(UnixMillis(i64::MAX)) => None,
            Some(end) => Some(end),
        }
    }
}

/// A generation in the ledger, with the ceremony that made it.
pub(super) struct Page<'a> {
    pub(super) made: &'a Ceremony,
    pub(super) exposure: Exposure,
}

impl Book {
    /// Every generation of a wallet with the copies of its shares, the latest first.
    #[must_use]
    pub fn exposure(&self, wallet: &WalletName) -> Vec<Exposure> {
        self.ledger(wallet).into_exposures()
    }

    /// Every generation with the copies that nodes and enclaves have told of, the latest first.
    pub(super) fn pages(&self, wallet: &WalletName) -> Vec<Page<'_>> {
        let mut generations: Vec<&Chapter> =
            self.chapters.values().filter(|chapter| makes(chapter, wallet)).collect();
        generations.sort_by_key(|chapter| std::cmp::Reverse(chapter.ceremony.manifest().generation));
        let current = self.wallet(wallet).map(|wallet| wallet.record.ceremony);
        let (mut deleted, mut lost) = (BTreeSet::<NodeIndex>::new(), BTreeSet::<NodeIndex>::new());
        let mut pages = Vec::new();
        for chapter in generations {
            let ceremony = &chapter.ceremony;
            // A lost store counts as holding nothing of earlier generations, unless others may have it because the node
            // has been excluded since. If it turns up again, an inventory says so.
            let excluded = self.excluded_since(&ceremony.manifest().charter);
            let is_gone = |node: &NodeIndex| {
                deleted.contains(node) || (lost.contains(node) && !excluded.contains(node))
            };
            let stored = stored(ceremony).into_iter().filter(|node| !is_gone(node));
            let id = &ceremony.manifest().ceremony;
            let released = self.released(id);
            let mut copies: Vec<Copy> = stored.map(|node| Copy::new(node, Place::Store)).collect();
            for (node, backup) in ceremony.backups() {
                let objects = [&backup.whole, &backup.root];
                copies.extend(objects.map(|object| Copy {
                    released: released.get(&object.digest).cloned(),
                    ..backed_up(*node, object)
                }));
            }
            let exposure = Exposure {
                generation: ceremony.manifest().generation,
                ceremony: id.clone(),
                current: Some(id) == current.as_ref(),
                threshold: ceremony.manifest().threshold,
                copies,
            };
            pages.push(Page { made: ceremony, exposure });
            deleted.extend(ceremony.retired_nodes());
            if ceremony.committed().is_some() {
                for node in ceremony.manifest().lost().keys() {
                    // What a node has deleted since, it has deleted on the machine that replaced the lost one.
                    deleted.remove(node);
                    lost.insert(*node);
                }
            }
        }
        pages
    }

    /// The backups of a ceremony's generation that keepers have released in a recovery, by digest, each with the first.
    fn released(&self, made: &CeremonyId) -> BTreeMap<Hash, CeremonyId> {
        let recovers = |ceremony: &&Ceremony| {
            let manifest = ceremony.manifest();
            manifest.kind.recovers()
                && manifest.origin.as_ref().is_some_and(|origin| origin.ceremony == *made)
        };
        let ceremonies = self.chapters.values().map(|chapter| &chapter.ceremony);
        let mut recoveries: Vec<&Ceremony> = ceremonies.filter(recovers).collect();
        recoveries.sort_by_key(|ceremony| ceremony.manifest().opened);
        let mut released = BTreeMap::new();
        for ceremony in recoveries {
            for release in ceremony.releases(Act::Recover) {
                let first = || ceremony.manifest().ceremony.clone();
                released.entry(release.object).or_insert_with(first);
            }
        }
        released
    }

    /// When a wallet's shares are to be refreshed: the charter's cadence after the generation in use was committed.
    #[must_use]
    pub fn refresh_due(&self, wallet: &WalletName) -> Option<UnixMillis> {
        let cadence = self.context().charter().backup()?.refresh_ms();
        let made = self.chapters.get(&self.wallet(wallet)?.record.ceremony)?;
        let prepared = |entry: &&crate::log::Entry| matches!(entry.event, Event::Prepared { .. });
        let committed = made.entries.iter().rev().find(prepared)?.time;
        Some(committed.plus(cadence))
    }
}

/// Whether a ceremony has made shares of this wallet's key. A ceremony that was given up counts too: what it staged and
/// backed up rebuilds the key as well.
fn makes(chapter: &Chapter, wallet: &WalletName) -> bool {
    let ceremony = &chapter.ceremony;
    ceremony.manifest().wallet == *wallet
        && ceremony.manifest().kind.makes_shares()
        && ceremony.made().is_some()
}

/// The nodes that keep a share of the ceremony's generation. One that is proven never to commit is discarded.
fn stored(ceremony: &Ceremony) -> BTreeSet<NodeIndex> {
    if ceremony.committed().is_some() {
        ceremony.manifest().roster.iter().copied().collect()
    } else if ceremony.can_never_commit() {
        BTreeSet::new()
    } else {
        ceremony.staged_nodes()
    }
}

fn backed_up(node: NodeIndex, object: &Object) -> Copy {
    Copy::new(node, Place::Backup { key: object.key.clone(), locked_until: object.locked_until })
}
