//! What exclusions mean for shares: one that a node had when it was excluded is never used again.
//!
//! The fold of one ceremony sees one charter. Agents, consoles and enclaves ask here, where all charters in force one
//! after the other are known; the answer follows from the logs, in whatever order they came.

use std::collections::BTreeSet;

use super::{Book, OpeningError};
use crate::ids::{Hash, NodeIndex};
use crate::manifest::Manifest;

impl Book {
    /// The nodes that any charter after this one has excluded, whether or not they were taken back. Where this one was
    /// never in force here, by any charter at all.
    fn excluded_since(&self, charter: &Hash) -> BTreeSet<NodeIndex> {
        let charters = || self.amendments.iter().map(|(_, context)| context.charter());
        let place =
            std::iter::once(self.first.charter()).chain(charters()).position(|c| c.hash() == *charter);
        charters().skip(place.unwrap_or(0)).flat_map(|charter| charter.excluded()).collect()
    }

    /// The nodes whose shares are out of use in a ceremony of this manifest: a charter has excluded them since those
    /// shares were made, and the ceremony gives them no new ones. A recovery does that for a node that it names as
    /// lost, unless the node was excluded after the recovery's own charter.
    #[must_use]
    pub fn out_of_use(&self, manifest: &Manifest) -> BTreeSet<NodeIndex> {
        let origin = manifest.origin.as_ref().and_then(|origin| self.get(&origin.ceremony));
        let made_under = origin.map_or(&manifest.charter, |chapter| &chapter.ceremony.manifest().charter);
        let since_opening = self.excluded_since(&manifest.charter);
        let mut nodes = self.excluded_since(made_under);
        nodes.retain(|node| !manifest.lost.contains_key(node) || since_opening.contains(node));
        nodes
    }

    /// Checks that no node is excluded where all are needed, and that none takes part with a share that is out of use.
    pub(super) fn check_nodes(&self, manifest: &Manifest) -> Result<(), OpeningError> {
        self.context().charter().check_whole(manifest.kind)?;
        let out = self.out_of_use(manifest);
        match manifest.roster.iter().find(|node| out.contains(node)) {
            Some(node) => Err(OpeningError::OutOfUse(*node)),
            None => Ok(()),
        }
    }

    /// The other nodes that have banned this one, by bans that hold on a wallet's generation in use; where there is no
    /// wallet, by any ban.
    #[must_use]
    pub fn accusers(&self, node: NodeIndex) -> BTreeSet<NodeIndex> {
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
