//! The exposure ledger: which copies of a wallet's shares are known to exist, generation by generation.
//!
//! A refresh does not change the key. As long as as many old copies survive as sign together, wherever they are, they
//! still rebuild it; what this module counts is how many, and until when. It knows what the log knows and no more.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Book, Chapter};
use crate::ceremony::Ceremony;
use crate::entry::Event;
use crate::ids::{Generation, Line, NodeIndex, UnixMillis, WalletName};
use crate::wallet::Object;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Where a copy of a share is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the node's store, under the KMS key.
    Store,
    /// Where backups are kept, encrypted to its keepers.
    Backup {
        /// Its name there.
        key: Line,
        /// Until then nobody can delete it; afterwards it counts as deleted.
        locked_until: UnixMillis,
    },
}

/// One known copy of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// Whose share.
    pub node: NodeIndex,
    /// Where it is.
    pub place: Place,
}

impl Copy {
    fn exists(&self, now: UnixMillis) -> bool {
        match self.place {
            Place::Store => true,
            Place::Backup { locked_until, .. } => now < locked_until,
        }
    }
}

/// The known copies of one generation's shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exposure {
    /// Which generation.
    pub generation: Generation,
    /// Whether it is the one in use. One that was given up never was.
    pub current: bool,
    /// How many of its shares rebuild the key.
    pub threshold: u8,
    /// Every copy ever known but those whose deletion the log shows.
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

    /// When so many locks have ended that fewer copies are left than rebuild the key. None while shares in stores
    /// alone are enough.
    #[must_use]
    pub fn clears(&self) -> Option<UnixMillis> {
        let mut until: BTreeMap<NodeIndex, UnixMillis> = BTreeMap::new();
        for copy in &self.copies {
            let end = match copy.place {
                Place::Store => UnixMillis(i64::MAX),
                Place::Backup { locked_until, .. } => locked_until,
            };
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

impl Book {
    /// Every generation of a wallet with the copies of its shares, the latest first.
    #[must_use]
    pub fn exposure(&self, wallet: &WalletName) -> Vec<Exposure> {
        let mut generations: Vec<&Chapter> =
            self.chapters.values().filter(|chapter| makes(chapter, wallet)).collect();
        generations.sort_by_key(|chapter| std::cmp::Reverse(chapter.ceremony.manifest().generation));
        let current = self.wallet(wallet).map(|wallet| wallet.record.generation);
        let mut deleted: BTreeSet<NodeIndex> = BTreeSet::new();
        let mut ledger = Vec::new();
        for chapter in generations {
            let ceremony = &chapter.ceremony;
            let stored = stored(ceremony).into_iter().filter(|node| !deleted.contains(node));
            let mut copies: Vec<Copy> = stored.map(|node| Copy { node, place: Place::Store }).collect();
            for (node, backup) in ceremony.backups() {
                copies.extend([&backup.whole, &backup.root].map(|object| backed_up(*node, object)));
            }
            ledger.push(Exposure {
                generation: ceremony.manifest().generation,
                current: Some(ceremony.manifest().generation) == current,
                threshold: ceremony.manifest().threshold,
                copies,
            });
            deleted.extend(ceremony.retired_nodes());
            // A lost store holds nothing of earlier generations; if it turns up again, the exposure runbook says so.
            deleted.extend(ceremony.manifest().lost.keys());
        }
        ledger
    }

    /// When a wallet's shares are to be refreshed: the charter's cadence after the generation in use was committed.
    #[must_use]
    pub fn refresh_due(&self, wallet: &WalletName) -> Option<UnixMillis> {
        let days = self.context().charter().backup()?.refresh_days;
        let made = self.chapters.get(&self.wallet(wallet)?.record.ceremony)?;
        let prepared = |entry: &&crate::entry::Entry| matches!(entry.event, Event::Prepared { .. });
        let committed = made.entries.iter().rev().find(prepared)?.time;
        Some(committed.plus(i64::from(days) * DAY_MS))
    }
}

/// Whether a ceremony has made shares of this wallet's key. One that was given up has too: what it staged and backed up
/// rebuilds the key as well.
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
    Copy { node, place: Place::Backup { key: object.key.clone(), locked_until: object.locked_until } }
}
