//! What exclusions mean for shares: one that a node had when it was excluded is never used again.
//!
//! The fold of one ceremony sees one charter. Agents, consoles and enclaves ask here, where the whole succession of
//! charters is known; the answer follows from the logs, in whatever order they arrived.

use std::collections::BTreeSet;

use super::{Book, OpeningError};
use crate::charter::Charter;
use crate::ids::{Hash, NodeIndex};
use crate::manifest::Manifest;

impl Book {
    /// The nodes that any charter after this one has excluded, whether or not they were taken back. If this one was
    /// never in force here, the nodes that any charter at all has excluded.
    pub(super) fn excluded_since(&self, charter: &Hash) -> BTreeSet<NodeIndex> {
        // A charter that was never in force here counts as older than all others.
        let place = self.contexts().position(|known| known.charter().hash() == *charter).unwrap_or(0);
        let after = self.amendments.iter().skip(place);
        after.flat_map(|amendment| amendment.context.charter().excluded()).collect()
    }

    /// Checks that an amended charter leaves every wallet a threshold of shares in use: a share that was once excluded
    /// stays out of use when its node is taken back.
    pub(super) fn check_enough_left(&self, next: &Charter) -> Result<(), OpeningError> {
        for (wallet, held) in self.wallets() {
            let record = &held.record;
            let made = self.get(&record.ceremony).map(|chapter| chapter.ceremony.manifest().charter);
            let mut out = made.map(|charter| self.excluded_since(&charter)).unwrap_or_default();
            out.extend(next.excluded());
            let left = record.public_shares.keys().filter(|node| !out.contains(node)).count();
            if left < usize::from(record.threshold) && !next.excluded().is_empty() {
                return Err(OpeningError::TooFewLeft { wallet, left });
            }
        }
        Ok(())
    }

    /// The nodes whose shares are out of use in a ceremony of this manifest: a charter has excluded them since those
    /// shares were made, and the ceremony gives them no new ones. A recovery does give one to a node that it names as
    /// lost, unless the node was excluded after the recovery's own charter.
    #[must_use]
    pub fn out_of_use(&self, manifest: &Manifest) -> BTreeSet<NodeIndex> {
        // Where it is not known who made the shares, they count as made under the first charter.
        let first = self.first.charter().hash();
        let made_under = manifest.origin.as_ref().map_or(manifest.charter, |origin| {
            self.maker(origin).map_or(first, |chapter| chapter.ceremony.manifest().charter)
        });
        let since_opening = self.excluded_since(&manifest.charter);
        let mut nodes = self.excluded_since(&made_under);
        nodes.retain(|node| !manifest.lost().contains_key(node) || since_opening.contains(node));
        nodes
    }

    /// Checks that no node is excluded where all are needed, and that none takes part with a share that is out of use.
    pub(super) fn check_nodes(&self, manifest: &Manifest) -> Result<(), OpeningError> {
        let charter = self.context().charter();
        charter.check_whole(manifest.kind)?;
        if let Some(node) = manifest.roster.iter().find(|node| charter.excludes(**node)) {
            return Err(OpeningError::Excluded(*node));
        }
        let out = self.out_of_use(manifest);
        match manifest.roster.iter().find(|node| out.contains(node)) {
            Some(node) => Err(OpeningError::OutOfUse(*node)),
            None => Ok(()),
        }
    }

    /// The other nodes whose bans of this one hold on a wallet's generation in use; where there is no wallet, any ban
    /// counts.
    #[must_use]
    pub fn accusers(&self, node: NodeIndex) -> BTreeSet<NodeIndex> {
        if self.bans().next().is_none() {
            return BTreeSet::new();
        }
        let wallets = self.wallets();
        let made = wallets.values().filter_map(|wallet| self.get(&wallet.record.ceremony));
        let standing: BTreeSet<_> = if wallets.is_empty() {
            self.bans().collect()
        } else {
            made.flat_map(|chapter| self.bans_in(chapter.ceremony.manifest())).collect()
        };
        standing.into_iter().filter(|(_, banned)| *banned == node).map(|(by, _)| by).collect()
    }
}
