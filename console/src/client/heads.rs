//! Signed heads of one ceremony, as nodes gave them: what they say of an entry, and on which branch to stand.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::record::{HOSTILE, SignedHead, Standing, Tip, Tree, Verdict};
use ceremonies::wire::record::HeadNews;

use super::voices::Voices;

/// The most heads that are read from one answer: two for each node of the largest cluster.
const MAX_HEADS: usize = 64;

/// The heads of a ceremony's nodes. A node's own answer is fresh; what others relay of it may be old.
#[derive(Debug, Clone, Default)]
pub struct Heads {
    own: BTreeMap<NodeIndex, SignedHead>,
    relayed: BTreeMap<NodeIndex, SignedHead>,
}

impl Heads {
    /// Takes the heads in a node's answer, as far as they are signed and of this ceremony.
    pub fn take(&mut self, voices: &Voices, ceremony: &CeremonyId, from: NodeIndex, heads: Vec<HeadNews>) {
        for head in heads.into_iter().take(MAX_HEADS).filter_map(|news| news.head) {
            let Ok(head) = SignedHead::from_wire(head) else { continue };
            if head.ceremony != *ceremony || !voices.signed(&head) {
                continue;
            }
            if head.node == from {
                self.own.insert(from, head);
                continue;
            }
            let place = |head: &SignedHead| (head.lock, head.round, head.votes, head.tip.seq);
            match self.relayed.get(&head.node) {
                Some(known) if place(known) >= place(&head) => {}
                Some(_) | None => {
                    self.relayed.insert(head.node, head);
                }
            }
        }
    }

    /// The nodes' own heads.
    #[must_use]
    pub fn own(&self) -> &BTreeMap<NodeIndex, SignedHead> {
        &self.own
    }

    /// The latest that is known of each node: its own word, else what others relayed.
    #[must_use]
    pub fn latest(&self) -> BTreeMap<NodeIndex, &SignedHead> {
        self.relayed.iter().chain(&self.own).map(|(node, head)| (*node, head)).collect()
    }

    /// All heads, of each node its own and what others relayed.
    pub fn all(&self) -> impl Iterator<Item = &SignedHead> {
        self.relayed.values().chain(self.own.values())
    }

    /// The heads that count for a verdict on the branch that the tree stands on. What others relay of a silent node
    /// counts if it cannot have become untrue: a lock, or a vote for another branch. That the node once stood further
    /// back says nothing.
    fn counted(&self, tree: &Tree) -> impl Iterator<Item = &SignedHead> {
        let silent = self.relayed.iter().filter(|(node, _)| !self.own.contains_key(node));
        let lasting = silent.map(|(_, head)| head).filter(|head| {
            let locked = head.lock.is_some_and(|lock| tree.is_main(lock.tip));
            locked || !tree.is_main(head.tip)
        });
        self.own.values().chain(lasting)
    }

    /// The verdict on the entry of this number on the branch that the tree stands on.
    #[must_use]
    pub fn verdict(&self, tree: &Tree, members: &BTreeSet<NodeIndex>, seq: u64) -> Verdict {
        Standing::new(tree, self.counted(tree), members).verdict(seq)
    }

    /// The number up to which the branch that the tree stands on is recorded.
    #[must_use]
    pub fn recorded_to(&self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> u64 {
        Standing::new(tree, self.counted(tree), members).recorded_to()
    }

    /// The branch to show, among those that nodes stand on and that are fully known: a recorded one; else the one with
    /// which most nodes agree. A branch held by no more nodes than may be hostile is not shown while others say less.
    #[must_use]
    pub fn choose(&self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> Tip {
        let stands: Vec<Tip> =
            self.own.values().filter(|head| members.contains(&head.node)).map(|head| head.tip).collect();
        let holders =
            |tip: Tip| stands.iter().filter(|stand| tree.contains(**stand, tip) == Some(true)).count();
        let known: BTreeSet<Tip> = stands.iter().copied().filter(|tip| tree.branch(*tip).is_some()).collect();
        let believed: BTreeSet<Tip> = known.iter().copied().filter(|tip| holders(*tip) > HOSTILE).collect();
        let candidates = if believed.is_empty() { known } else { believed };
        let place = |tip: &Tip| {
            let mut there = tree.clone();
            there.stand_on(*tip);
            let agreeing = stands.iter().filter(|stand| tree.conflicts(**stand, *tip) == Some(false)).count();
            (self.recorded_to(&there, members), agreeing, tip.seq, *tip)
        };
        candidates.into_iter().max_by_key(place).unwrap_or_else(|| tree.tip())
    }
}
