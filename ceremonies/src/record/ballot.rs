//! One node's part in deciding a ceremony's order: what it voted for, what it is locked on, where the others stand.
//!
//! Safety rests on a short rule: in one round a node votes for one growing branch, and it never votes for a branch
//! without its lock unless it is shown proof of a later lock that contradicts it. A later lock on less of the same
//! branch contradicts nothing: what a quorum may have locked beyond it must not be given up. Rounds, choices and
//! waiting only bring honest nodes together again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{HOSTILE, Lock, SignedHead, Standing, Tip, Tree, quorum};
use crate::ids::NodeIndex;

/// The part of a ballot that must survive a restart; it is stored before a head that follows from it is shown to
/// anyone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    /// The round.
    pub round: u32,
    /// Whether this node has left the round before this one but not voted in this one.
    pub undecided: bool,
    /// What it is locked on.
    pub lock: Option<Lock>,
    /// The votes that the lock rests on.
    pub proof: Vec<SignedHead>,
}

/// A branch that another node stands on, and of which this node lacks entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Who has it.
    pub node: NodeIndex,
    /// Where it ends.
    pub tip: Tip,
}

#[derive(Debug, Clone, PartialEq)]
struct Heard {
    head: SignedHead,
    proof: Vec<SignedHead>,
}

/// A node's ballot in one ceremony.
#[derive(Debug, Clone, PartialEq)]
pub struct Ballot {
    me: NodeIndex,
    memory: Memory,
    /// The latest statement of each node, this one included.
    heard: BTreeMap<NodeIndex, Heard>,
    /// Who voted for two branches in one round, the last such round, and with which heads. What they say in it counts for
    /// nothing: each node may have heard another part of it first.
    two_faced: BTreeMap<NodeIndex, (SignedHead, SignedHead)>,
}

impl Ballot {
    /// A node's ballot, from what it remembers.
    #[must_use]
    pub fn new(me: NodeIndex, memory: Memory) -> Self {
        Self { me, memory, heard: BTreeMap::new(), two_faced: BTreeMap::new() }
    }

    /// What must survive a restart.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whether this node votes in its round for the branch that it stands on.
    #[must_use]
    pub fn votes(&self) -> bool {
        !self.memory.undecided
    }

    /// The latest statement of each node, with the votes that its lock rests on.
    pub fn heads(&self) -> impl Iterator<Item = (&SignedHead, &[SignedHead])> {
        self.heard.values().map(|heard| (&heard.head, heard.proof.as_slice()))
    }

    /// The latest statement of a node.
    #[must_use]
    pub fn head_of(&self, node: NodeIndex) -> Option<&SignedHead> {
        self.heard.get(&node).map(|heard| &heard.head)
    }

    /// Who voted twice in one round, and the two votes.
    #[must_use]
    pub fn two_faced(&self) -> &BTreeMap<NodeIndex, (SignedHead, SignedHead)> {
        &self.two_faced
    }

    /// What the others must hear where nodes disagree: the latest statement of each node, and both votes of whoever voted
    /// twice in one round, so that all leave out the same ones.
    pub fn passed_on(&self) -> impl Iterator<Item = (&SignedHead, &[SignedHead])> {
        let both = self.two_faced.values().flat_map(|(one, other)| [one, other]);
        self.heads().chain(both.map(|vote| (vote, [].as_slice())))
    }

    /// Takes a node's statement, whose signature has been checked, with the votes that its lock rests on, checked
    /// likewise. Returns whether it is news: a proof for a statement that was known without one is.
    pub fn hear(
        &mut self,
        tree: &Tree,
        members: &BTreeSet<NodeIndex>,
        head: SignedHead,
        proof: Vec<SignedHead>,
    ) -> bool {
        let node = head.node;
        if let Some(known) = self.heard.get_mut(&node) {
            if known.head.head() == head.head() {
                let proves = |proof: &[SignedHead]| {
                    head.lock.is_some_and(|lock| Self::is_proven(lock, proof, tree, members))
                };
                let is_better = proves(&proof) && !proves(&known.proof);
                if is_better {
                    known.proof = proof;
                }
                return is_better;
            }
            let before = &known.head;
            let both_vote = before.votes && head.votes && before.round == head.round;
            if both_vote && node != self.me && tree.conflicts(before.tip, head.tip) == Some(true) {
                let is_known = self.two_faced.get(&node).is_some_and(|(vote, _)| vote.round >= head.round);
                if !is_known {
                    self.two_faced.insert(node, (before.clone(), head.clone()));
                }
            }
            let stage = |head: &SignedHead| (head.round, head.votes);
            let newer = if both_vote {
                (head.tip.seq, head.lock) > (before.tip.seq, before.lock) || node == self.me
            } else {
                stage(&head) >= stage(before)
            };
            if !newer {
                return false;
            }
        }
        self.heard.insert(node, Heard { head, proof });
        true
    }

    /// The branches that others stand on, are locked on, or prove their locks by, and that are not fully known here;
    /// one per node.
    #[must_use]
    pub fn needs(&self, tree: &Tree) -> Vec<Need> {
        let need = |heard: &Heard| {
            let lock = heard.head.lock.map(|lock| lock.tip);
            let proof = heard.proof.iter().map(|vote| vote.tip);
            let mut tips = [heard.head.tip].into_iter().chain(lock).chain(proof);
            let tip = tips.find(|tip| tree.shared(*tip).is_none())?;
            Some(Need { node: heard.head.node, tip })
        };
        self.heard.values().filter_map(need).collect()
    }

    fn is_counted(&self, node: NodeIndex, members: &BTreeSet<NodeIndex>) -> bool {
        let latest = self.head_of(node).map(|head| head.round);
        let is_two_faced = self.two_faced.get(&node).is_some_and(|(vote, _)| latest <= Some(vote.round));
        members.contains(&node) && !is_two_faced
    }

    /// Locks the last entry that a quorum votes for in this round on the branch that is stood on. Returns whether the lock
    /// is new; it must be stored before it is shown.
    pub fn lock(&mut self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> bool {
        if self.memory.undecided {
            return false;
        }
        let round = self.memory.round;
        let votes = self
            .heard
            .values()
            .map(|heard| &heard.head)
            .filter(|head| head.votes && head.round == round && self.is_counted(head.node, members));
        let mut votes: Vec<(u64, &SignedHead)> =
            votes.filter_map(|head| Some((tree.shared(head.tip)?, head))).collect();
        votes.sort_by_key(|(seq, _)| Reverse(*seq));
        let needed = quorum(members.len());
        let Some(&(seq, _)) = votes.get(needed - 1).filter(|(seq, _)| *seq > 0) else { return false };
        let Some(tip) = tree.at(seq) else { return false };
        let lock = Lock { round, tip };
        if self.memory.lock.is_some_and(|held| !Self::gives_way(held, lock, tree)) {
            return false;
        }
        let proof = votes.iter().take(needed).map(|(_, head)| (*head).clone()).collect();
        self.memory.lock = Some(lock);
        self.memory.proof = proof;
        true
    }

    /// Whether a lock gives way to another, on the branch that is stood on.
    fn gives_way(held: Lock, new: Lock, tree: &Tree) -> bool {
        let is_less = new.tip != held.tip && tree.contains(held.tip, new.tip) == Some(true);
        new > held && !is_less
    }

    /// Who stands on a branch that conflicts with this node's.
    #[must_use]
    pub fn opponents(&self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> Vec<NodeIndex> {
        let against = self.heard.values().map(|heard| &heard.head).filter(|head| {
            self.is_counted(head.node, members) && tree.conflicts(tree.tip(), head.tip) == Some(true)
        });
        against.map(|head| head.node).collect()
    }

    /// Whether the nodes agree about the log as far as this node knows: it votes, and nobody stands on another branch, or
    /// nobody's other branch can ever be recorded, since a quorum has locked all of this one. Otherwise one host could
    /// hold up a ceremony for good with a branch that it made up.
    #[must_use]
    pub fn is_settled(&self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> bool {
        self.votes()
            && (self.opponents(tree, members).is_empty() || self.recorded_to(tree, members) >= tree.tip().seq)
    }

    fn recorded_to(&self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> u64 {
        Standing::new(tree, self.heard.values().map(|heard| &heard.head), members).recorded_to()
    }

    /// Whether so many nodes stand on other branches that this node's can find no quorum in this round.
    #[must_use]
    pub fn is_outvoted(&self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> bool {
        let spare = members.len().saturating_sub(quorum(members.len()));
        self.opponents(tree, members).len() > spare
    }

    /// The latest round that more nodes have reached than may be hostile, if it is later than this node's.
    #[must_use]
    pub fn round_to_follow(&self, members: &BTreeSet<NodeIndex>) -> Option<u32> {
        let others = self.heard.values().map(|heard| &heard.head);
        let mut rounds: Vec<u32> = others
            .filter(|head| head.node != self.me && self.is_counted(head.node, members))
            .map(|head| head.round)
            .collect();
        rounds.sort_unstable_by_key(|round| Reverse(*round));
        rounds.get(HOSTILE).copied().filter(|round| *round > self.memory.round)
    }

    /// Whether any other node has gone on to a later round.
    #[must_use]
    pub fn somebody_went_on(&self, members: &BTreeSet<NodeIndex>) -> bool {
        let mut others = self.heard.values().map(|heard| &heard.head);
        others.any(|head| self.is_counted(head.node, members) && head.round > self.memory.round)
    }

    /// Whether the last entry of the branch that this node stands on is still waiting, for this node's lock or for the
    /// other locks that make it recorded, as far as a quorum that this node has heard can tell.
    fn waits(&self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> bool {
        let last = tree.tip().seq;
        let is_locked = self.memory.lock.is_some_and(|lock| lock.tip.seq >= last && tree.is_main(lock.tip));
        let heads = || self.heard.values().map(|heard| &heard.head);
        let can_tell = heads().filter(|head| members.contains(&head.node)).count() >= quorum(members.len());
        !is_locked || can_tell && self.recorded_to(tree, members) < last
    }

    /// The round to leave this one for, if any: the one to which an honest node has gone for certain; else the next,
    /// where this node's branch can find no quorum in this one, or where its last entry `is_overdue` and nodes
    /// disagree. That this node has locked the entry does not end the wait: where another left the round before it had,
    /// only a round in which both vote again brings their locks together. Nobody waits alone: a round with too few
    /// votes is left only once more than half of the nodes have reached it, so that the others catch up.
    #[must_use]
    pub fn next_round(&self, tree: &Tree, members: &BTreeSet<NodeIndex>, is_overdue: bool) -> Option<u32> {
        let is_contested = || !self.opponents(tree, members).is_empty() || self.somebody_went_on(members);
        let is_stuck = || is_overdue && self.waits(tree, members) && is_contested();
        let is_alone = 2 * self.arrived(members) <= members.len();
        let gives_up = self.is_outvoted(tree, members) || !is_alone && is_stuck();
        let next = gives_up.then(|| self.memory.round.saturating_add(1));
        self.round_to_follow(members).or(next).filter(|next| *next > self.memory.round)
    }

    /// Leaves this round for a later one: this node no longer votes in this one.
    pub fn leave(&mut self, round: u32) {
        if round > self.memory.round {
            self.memory.round = round;
            self.memory.undecided = true;
        }
    }

    /// How many nodes have come to this node's round or a later one, itself included.
    #[must_use]
    pub fn arrived(&self, members: &BTreeSet<NodeIndex>) -> usize {
        let heads = self.heard.values().map(|heard| &heard.head);
        let here =
            heads.filter(|head| self.is_counted(head.node, members) && head.round >= self.memory.round);
        here.count()
    }

    /// Votes in this round for the branch that is stood on, which must be the one that [`Self::choose`] names.
    pub fn vote(&mut self) {
        self.memory.undecided = false;
    }

    fn is_proven(lock: Lock, proof: &[SignedHead], tree: &Tree, members: &BTreeSet<NodeIndex>) -> bool {
        let voters: BTreeSet<NodeIndex> = proof
            .iter()
            .filter(|head| head.votes && head.round == lock.round && members.contains(&head.node))
            .filter(|head| tree.contains(head.tip, lock.tip) == Some(true))
            .map(|head| head.node)
            .collect();
        voters.len() >= quorum(members.len())
    }

    /// What the branch to stand on must contain: of the locks that are this node's own or proven to it, the latest, and
    /// what earlier ones add to its branch. One that contradicts a later one is given up.
    #[must_use]
    pub fn locked_branch(&self, tree: &Tree, members: &BTreeSet<NodeIndex>) -> Tip {
        let claimed = self.heard.values().filter_map(|heard| Some((heard.head.lock?, &heard.proof)));
        let proven = claimed.filter(|(lock, proof)| Self::is_proven(*lock, proof, tree, members));
        let known = |lock: &Lock| tree.shared(lock.tip).is_some();
        let mut locks: Vec<Lock> =
            proven.map(|(lock, _)| lock).chain(self.memory.lock).filter(known).collect();
        locks.sort_unstable_by_key(|lock| Reverse(*lock));
        locks.into_iter().fold(Tip::ROOT, |branch, lock| {
            if tree.contains(lock.tip, branch) == Some(true) { lock.tip } else { branch }
        })
    }

    /// The branch to stand on, of those that nodes stand on and that are known whole: one with the locks that hold; where
    /// they part, the one that commits a generation, else the one that more nodes stand on, else the one with the
    /// smaller hash.
    #[must_use]
    pub fn choose(&self, tree: &Tree, members: &BTreeSet<NodeIndex>, commits: impl Fn(Tip) -> bool) -> Tip {
        let base = self.locked_branch(tree, members);
        let stands = self.heard.values().map(|heard| (Some(heard.head.node), heard.head.tip));
        let mut branches: Vec<(Option<NodeIndex>, Vec<Tip>)> = stands
            .chain([(None, tree.tip())])
            .filter(|(_, tip)| tree.contains(*tip, base) == Some(true))
            .filter_map(|(node, tip)| Some((node, tree.branch(tip)?)))
            .collect();
        // Finding out takes folding a whole branch: once is enough.
        let mut known: BTreeMap<Tip, bool> = BTreeMap::new();
        let mut commits = |tip: Tip| *known.entry(tip).or_insert_with(|| commits(tip));
        let mut here = base;
        loop {
            let depth = usize::try_from(here.seq).unwrap_or(usize::MAX);
            branches.retain(|(_, branch)| branch.len() > depth);
            let mut ways: BTreeMap<Tip, BTreeSet<NodeIndex>> = BTreeMap::new();
            for (node, branch) in &branches {
                let voters = ways.entry(branch[depth]).or_default();
                voters.extend(node.filter(|node| self.is_counted(*node, members)));
            }
            let mut commits_there = |way: &Tip| {
                let mut ends = branches.iter().filter(|(_, branch)| branch[depth] == *way);
                ways.len() > 1 && ends.any(|(_, branch)| branch.last().is_some_and(|tip| commits(*tip)))
            };
            let best =
                ways.iter().max_by_key(|(way, voters)| (commits_there(way), voters.len(), Reverse(way.hash)));
            let Some((way, _)) = best else { return here };
            here = *way;
            branches.retain(|(_, branch)| branch[depth] == here);
        }
    }
}
