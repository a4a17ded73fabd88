//! Exclusion of nodes: which of them take part, and what an amendment may change about that.
//!
//! An excluded node keeps its index and whatever it holds, and takes part in nothing. What it held must never count
//! again: others may have it by now.

use thiserror::Error;

use super::{CeremonyKind, Charter, CharterDraft, CharterError, Node};
use crate::ids::NodeIndex;

/// A ceremony needs all nodes, and the charter excludes some.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "a {kind} needs every node, and the charter excludes {}: amend the charter to take it back with a new NKey and \
     recover it on a newly attested enclave, or sweep with the others (runbooks/compromise.md)",
    words(excluded)
)]
pub struct Incomplete {
    kind: CeremonyKind,
    excluded: Vec<NodeIndex>,
}

fn words(nodes: &[NodeIndex]) -> String {
    nodes.iter().map(|node| format!("node {node}")).collect::<Vec<_>>().join(" and ")
}

fn refused(text: String) -> CharterError {
    CharterError::Rule(text)
}

impl CharterDraft {
    /// A cluster begins with all of its nodes, and a threshold of them is always left.
    pub(super) fn check_exclusions(&self) -> Result<(), CharterError> {
        let excluded: Vec<&Node> = self.nodes.iter().filter(|node| node.excluded).collect();
        if let Some(node) = excluded.first().filter(|_| self.amends.is_none()) {
            return Err(refused(format!(
                "node {} is excluded in a cluster's first charter: exclude it by an amendment, or found the cluster \
                 without it",
                node.index
            )));
        }
        let left = self.nodes.len() - excluded.len();
        if left < usize::from(self.threshold) {
            return Err(refused(format!(
                "exclusions leave {left} nodes, and the threshold is {}: nothing could be signed any more",
                self.threshold
            )));
        }
        Ok(())
    }

    fn change_node(&mut self, index: NodeIndex, change: impl FnOnce(&mut Node)) -> Result<(), CharterError> {
        let node = self.nodes.iter_mut().find(|node| node.index == index);
        node.map(change).ok_or_else(|| refused(format!("node {index} is not in the charter")))
    }
}

impl Charter {
    /// Whether the node is excluded.
    #[must_use]
    pub fn excludes(&self, node: NodeIndex) -> bool {
        self.node(node).is_some_and(|node| node.excluded)
    }

    /// The nodes that are excluded.
    #[must_use]
    pub fn excluded(&self) -> Vec<NodeIndex> {
        self.roster().into_iter().filter(|node| self.excludes(*node)).collect()
    }

    /// The nodes that take part: all that are not excluded.
    #[must_use]
    pub fn members(&self) -> Vec<NodeIndex> {
        self.roster().into_iter().filter(|node| !self.excludes(*node)).collect()
    }

    /// Checks that every node takes part where a ceremony of this kind needs all.
    ///
    /// # Errors
    /// [`Incomplete`] names the excluded nodes and what to do about them.
    pub fn check_whole(&self, kind: CeremonyKind) -> Result<(), Incomplete> {
        let excluded = self.excluded();
        if kind.makes_shares() && !excluded.is_empty() { Err(Incomplete { kind, excluded }) } else { Ok(()) }
    }

    /// The charter that follows this one when a node is excluded.
    ///
    /// # Errors
    /// As [`Charter::parse`] and [`Self::check_amendment`].
    pub fn excluding(&self, node: NodeIndex) -> Result<Self, CharterError> {
        let mut draft = self.draft();
        draft.change_node(node, |node| node.excluded = true)?;
        self.followed_by(draft)
    }

    /// The charter that follows this one when an excluded node is taken back with another NKey.
    ///
    /// # Errors
    /// As [`Charter::parse`] and [`Self::check_amendment`], and for a node that is not excluded.
    pub fn readmitting(&self, node: NodeIndex, nkey: &str) -> Result<Self, CharterError> {
        if !self.excludes(node) {
            return Err(refused(format!("node {node} is not excluded: there is nothing to take back")));
        }
        let mut draft = self.draft();
        draft.change_node(node, |node| {
            node.excluded = false;
            nkey.clone_into(&mut node.nkey);
        })?;
        self.followed_by(draft)
    }

    /// An excluded node may have lost its NKey to others: it does not come back with the one it had then.
    pub(super) fn check_exclusion_changes(&self, next: &Self) -> Result<(), CharterError> {
        for (before, after) in self.nodes().iter().zip(next.nodes()) {
            let (index, same) = (before.index, before.nkey == after.nkey);
            if before.excluded && !after.excluded && same {
                return Err(refused(format!(
                    "node {index} is taken back with the NKey that it had when it was excluded, whose seed others may \
                     have: give it a new one"
                )));
            }
            if after.excluded && !same {
                return Err(refused(format!(
                    "node {index} is excluded but its NKey changes: leave the NKey as it is until the node is taken \
                     back"
                )));
            }
        }
        Ok(())
    }

    /// What a statement says of excluded nodes: a name and value for each. An amendment's statement says what becomes
    /// of them.
    pub(crate) fn exclusion_lines(&self, amendment: Option<&Self>) -> Vec<(&'static str, String)> {
        let next = amendment.unwrap_or(self);
        let line = |node: NodeIndex| match (self.excludes(node), next.excludes(node)) {
            (false, true) => Some(("excludes", format!("node {node}, which takes part in nothing any more"))),
            (true, false) => Some((
                "takes back",
                format!("node {node}, with another NKey; its old shares stay out of use"),
            )),
            (true, true) => Some(("excluded", format!("node {node}"))),
            (false, false) => None,
        };
        self.roster().into_iter().filter_map(line).collect()
    }
}
