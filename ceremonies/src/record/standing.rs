//! What signed heads say of an entry: the answer to "is it recorded?", for whoever holds the log.

use std::collections::{BTreeMap, BTreeSet};

use super::{SignedHead, Tip, Tree, quorum};
use crate::ids::NodeIndex;

/// Whether an entry is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A quorum has locked it: it stays.
    Recorded {
        /// Which nodes.
        by: Vec<NodeIndex>,
    },
    /// A majority has it, no other branch was seen, and the rest is silent.
    Majority {
        /// Which nodes have it.
        by: Vec<NodeIndex>,
        /// Which are silent.
        silent: Vec<NodeIndex>,
    },
    /// Neither: it may still be recorded, or not.
    Unknown {
        /// Which nodes have it.
        by: Vec<NodeIndex>,
        /// Which stand on another branch.
        elsewhere: Vec<NodeIndex>,
        /// Which are silent or behind.
        silent: Vec<NodeIndex>,
    },
}

/// The heads of a ceremony's nodes, held against one branch of its log.
#[derive(Debug, Clone)]
pub struct Standing<'a> {
    tree: &'a Tree,
    heads: BTreeMap<NodeIndex, &'a SignedHead>,
    members: &'a BTreeSet<NodeIndex>,
}

impl<'a> Standing<'a> {
    /// Holds heads, whose signatures have been checked, against the tree's main branch. Of several heads of one node the
    /// last counts.
    #[must_use]
    pub fn new(
        tree: &'a Tree,
        heads: impl IntoIterator<Item = &'a SignedHead>,
        members: &'a BTreeSet<NodeIndex>,
    ) -> Self {
        let heads = heads.into_iter().filter(|head| members.contains(&head.node));
        Self { tree, heads: heads.map(|head| (head.node, head)).collect(), members }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.members.len()
    }

    /// The nodes of the largest group that locked this entry or a later one in one round.
    fn lockers(&self, seq: u64) -> Vec<NodeIndex> {
        let mut rounds: BTreeMap<u32, Vec<NodeIndex>> = BTreeMap::new();
        for (node, head) in &self.heads {
            if let Some(lock) = head.lock.filter(|lock| lock.tip.seq >= seq && self.tree.is_main(lock.tip)) {
                rounds.entry(lock.round).or_default().push(*node);
            }
        }
        rounds.into_values().max_by_key(Vec::len).unwrap_or_default()
    }

    /// The number up to which a quorum has locked the branch; 0 for none.
    #[must_use]
    pub fn recorded_to(&self) -> u64 {
        let mut seqs: BTreeSet<u64> =
            self.heads.values().filter_map(|head| Some(head.lock?.tip.seq)).collect();
        while let Some(seq) = seqs.pop_last() {
            if self.lockers(seq).len() >= quorum(self.members.len()) {
                return seq;
            }
        }
        0
    }

    /// The verdict on the main branch's entry of this number.
    #[must_use]
    pub fn verdict(&self, seq: u64) -> Verdict {
        let lockers = self.lockers(seq);
        if lockers.len() >= quorum(self.members.len()) {
            return Verdict::Recorded { by: lockers };
        }
        let (mut by, mut elsewhere, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for node in self.members {
            match self.heads.get(node).map(|head| self.place(head, seq)) {
                Some(Place::Has) => by.push(*node),
                Some(Place::Elsewhere) => elsewhere.push(*node),
                Some(Place::Behind) | None => silent.push(*node),
            }
        }
        if elsewhere.is_empty() && 2 * by.len() > self.members.len() && self.heads.len() == by.len() {
            Verdict::Majority { by, silent }
        } else {
            Verdict::Unknown { by, elsewhere, silent }
        }
    }

    fn place(&self, head: &SignedHead, seq: u64) -> Place {
        match self.tree.shared(head.tip) {
            Some(shared) if shared >= seq => Place::Has,
            Some(shared) if shared < head.tip.seq => Place::Elsewhere,
            Some(_) => Place::Behind,
            // Entries that are not known here: another branch, or ones that follow this one.
            None if head.lock.is_some_and(|lock| lock.tip.seq >= seq && self.tree.is_main(lock.tip)) => {
                Place::Has
            }
            None => Place::Elsewhere,
        }
    }

    /// The ends of the branches other than the main one that nodes stand on, each with its nodes. An unknown tip counts
    /// as one.
    #[must_use]
    pub fn other_branches(&self) -> BTreeMap<Tip, Vec<NodeIndex>> {
        let mut branches: BTreeMap<Tip, Vec<NodeIndex>> = BTreeMap::new();
        for (node, head) in &self.heads {
            let parts = |shared| shared < head.tip.seq && shared < self.tree.tip().seq;
            if self.tree.shared(head.tip).is_none_or(parts) {
                branches.entry(head.tip).or_default().push(*node);
            }
        }
        branches
    }
}

/// Where a node stands, seen from an entry.
enum Place {
    Has,
    Behind,
    Elsewhere,
}
