//! The outcome of a step: the real ballot, tree and standing, given every set of statements that could have been heard.
//!
//! Signatures are for the agents, which check every one; here nobody signs. Answers are remembered, because many states
//! ask the same.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Mutex;

use super::super::{Ballot, Head, Lock, Memory, SignedHead, Standing, Tip, Tree, Verdict};
use super::state::{Entries, Entry, Locked, Node, Remembered};
use crate::ids::{Hash, NodeIndex, UnixMillis};

/// A question about a lock, and about votes: the round, the tip, the lock, and what else there is.
type Asked<T> = (u8, Option<Entry>, Option<Locked>, Vec<T>);

/// How many nodes are a quorum.
#[derive(Clone, Copy)]
pub(super) enum Quorum {
    AsItIs,
    /// Broken on purpose: the quorum of two members is both, and any two count as all.
    AnyTwo,
}

/// The entries, the nodes, and the answers so far.
pub(super) struct Steps {
    /// The end of each entry's branch.
    tips: Vec<Tip>,
    /// The tree of a node that stands on none of them, and on each.
    trees: Vec<Tree>,
    /// How many nodes the charter lists.
    nodes: usize,
    /// How many of them, the last ones, are hostile and say anything.
    hostile: usize,
    /// Whose statements count; of several sets any may be taken.
    members: Vec<BTreeSet<NodeIndex>>,
    locks: Mutex<HashMap<Asked<Entries>, Vec<Locked>>>,
    provable: Mutex<HashMap<Vec<Entries>, Entries>>,
    ways: Mutex<HashMap<Asked<Locked>, Entries>>,
    recorded: Mutex<HashMap<Vec<Entries>, Entries>>,
    pub(super) healed: Mutex<HashMap<Vec<Remembered>, bool>>,
}

/// Answers once and for all.
pub(super) fn remembered<K: Eq + std::hash::Hash + Clone, V: Clone>(
    memo: &Mutex<HashMap<K, V>>,
    key: K,
    answer: impl FnOnce(&K) -> V,
) -> V {
    if let Some(known) = memo.lock().unwrap().get(&key) {
        return known.clone();
    }
    let new = answer(&key);
    memo.lock().unwrap().insert(key, new.clone());
    new
}

pub(super) fn index(at: usize) -> NodeIndex {
    NodeIndex::new(u8::try_from(at + 1).unwrap()).unwrap()
}

pub(super) fn signed(head: Head) -> SignedHead {
    SignedHead::create(head, |_| Ok::<_, Infallible>(Vec::new())).unwrap()
}

/// Every choice of one of each.
fn combinations<T: Clone>(choices: &[Vec<T>]) -> Vec<Vec<T>> {
    choices.iter().fold(vec![Vec::new()], |all, choice| {
        let longer = |begun: &Vec<T>| {
            let begun = begun.clone();
            choice.iter().map(move |next| [begun.clone(), vec![next.clone()]].concat()).collect::<Vec<_>>()
        };
        all.iter().flat_map(longer).collect()
    })
}

/// None of them, or one.
fn at_most_one(entries: Entries) -> Vec<Option<Entry>> {
    std::iter::once(None).chain(entries.iter().map(Some)).collect()
}

impl Steps {
    /// Nodes that could have these entries, each with the one before it.
    pub(super) fn new(before: &[Option<u8>], nodes: usize, hostile: usize, quorum: Quorum) -> Self {
        let mut tips: Vec<Tip> = Vec::new();
        let mut whole = Tree::default();
        for (number, before) in (0_u8..).zip(before) {
            let before = before.map_or(Tip::ROOT, |before| tips[usize::from(before)]);
            let tip = Tip { seq: before.seq + 1, hash: Hash::of_bytes(&[number]) };
            whole.put_aside(tip.seq, tip.hash, before.hash);
            tips.push(tip);
        }
        let on = |tip: &Tip| {
            let mut tree = whole.clone();
            assert!(tree.stand_on(*tip));
            tree
        };
        let trees = std::iter::once(whole.clone()).chain(tips.iter().map(on)).collect();
        let all: BTreeSet<NodeIndex> = (0..nodes).map(index).collect();
        let pairs = |one: usize| (0..one).map(move |other| BTreeSet::from([index(one), index(other)]));
        let members = match quorum {
            Quorum::AsItIs => vec![all],
            Quorum::AnyTwo => (0..nodes).flat_map(pairs).collect(),
        };
        Self {
            tips,
            trees,
            nodes,
            hostile,
            members,
            locks: Mutex::default(),
            provable: Mutex::default(),
            ways: Mutex::default(),
            recorded: Mutex::default(),
            healed: Mutex::default(),
        }
    }

    fn all(&self) -> impl Iterator<Item = Entry> {
        (0..).take(self.tips.len()).map(Entry)
    }

    fn tip(&self, entry: Option<Entry>) -> Tip {
        entry.map_or(Tip::ROOT, |entry| self.tips[usize::from(entry.0)])
    }

    fn entry(&self, tip: Tip) -> Entry {
        self.all().find(|entry| self.tip(Some(*entry)) == tip).unwrap()
    }

    fn tree(&self, stood_on: Option<Entry>) -> &Tree {
        &self.trees[stood_on.map_or(0, |entry| usize::from(entry.0) + 1)]
    }

    pub(super) fn following(&self, tip: Option<Entry>) -> Entries {
        let follows = |entry: &Entry| self.trees[0].before(self.tip(Some(*entry))) == Some(self.tip(tip));
        self.all().filter(follows).collect()
    }

    /// Whether the branch that ends at one entry contains another.
    pub(super) fn contains(&self, branch: Entry, entry: Entry) -> bool {
        self.trees[0].contains(self.tip(Some(branch)), self.tip(Some(entry))).unwrap()
    }

    pub(super) fn conflict(&self, one: Entry, other: Entry) -> bool {
        self.trees[0].conflicts(self.tip(Some(one)), self.tip(Some(other))).unwrap()
    }

    fn lock(&self, lock: Locked) -> Lock {
        Lock { round: lock.round.into(), tip: self.tip(Some(lock.entry)) }
    }

    /// Of this node: in which round it stands where, whether it votes for that, and its lock.
    fn head(&self, node: usize, place: (u8, Option<Entry>), votes: bool, lock: Option<Locked>) -> SignedHead {
        signed(Head {
            round: place.0.into(),
            votes,
            tip: self.tip(place.1),
            lock: lock.map(|lock| self.lock(lock)),
            ..Self::nowhere(node)
        })
    }

    /// A node that has said nothing yet.
    pub(super) fn nowhere(node: usize) -> Head {
        Head {
            cluster: "cluster".parse().unwrap(),
            ceremony: "ceremony".parse().unwrap(),
            node: index(node),
            round: 0,
            votes: true,
            tip: Tip::ROOT,
            lock: None,
            time: UnixMillis(0),
        }
    }

    /// A node as it remembers itself. That its lock is proven is known: these stand for the votes that prove it.
    pub(super) fn stored(&self, at: usize, (round, tip, lock): Remembered) -> (Ballot, Tree) {
        let proof = lock.map(|lock| self.stand_in(lock)).unwrap_or_default();
        let lock = lock.map(|lock| self.lock(lock));
        let memory = Memory { round: round.into(), undecided: false, lock, proof };
        (Ballot::new(index(at), memory), self.tree(tip).clone())
    }

    /// Votes that prove a lock.
    fn stand_in(&self, lock: Locked) -> Vec<SignedHead> {
        (0..self.nodes).map(|at| self.head(at, (lock.round, Some(lock.entry)), true, None)).collect()
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// The ballot of the first node, as if it had just been started.
    fn ballot(&self, round: u8, lock: Option<Locked>) -> Ballot {
        let lock = lock.map(|lock| self.lock(lock));
        Ballot::new(index(0), Memory { round: round.into(), lock, ..Memory::default() })
    }

    fn hear(&self, ballot: &mut Ballot, tree: &Tree, head: SignedHead, proof: Vec<SignedHead>) {
        ballot.hear(tree, &self.members[0], head, proof);
    }

    /// What a node may lock, whatever of the votes that others cast in its round it has heard.
    pub(super) fn locks(&self, node: &Node, lock: Option<Locked>, mut others: Vec<Entries>) -> Vec<Locked> {
        others.sort_unstable();
        remembered(&self.locks, (node.round, node.tip, lock, others), |(_, _, _, others)| {
            let hostile = std::iter::repeat_n(self.all().collect(), self.hostile);
            let heard: Vec<_> = others.iter().copied().chain(hostile).map(at_most_one).collect();
            let lock_of = |votes: &Vec<Option<Entry>>| {
                let tree = self.tree(node.tip);
                let mut ballot = self.ballot(node.round, lock);
                self.hear(&mut ballot, tree, self.head(0, (node.round, node.tip), true, lock), Vec::new());
                for (at, vote) in (1..).zip(votes).filter(|(_, vote)| vote.is_some()) {
                    self.hear(&mut ballot, tree, self.head(at, (node.round, *vote), true, None), Vec::new());
                }
                let locked = |members| {
                    let mut ballot = ballot.clone();
                    let lock = ballot.lock(tree, members).then(|| ballot.memory().lock).flatten()?;
                    assert_eq!(lock.round, u32::from(node.round));
                    Some(Locked { round: node.round, entry: self.entry(lock.tip) })
                };
                self.members.iter().filter_map(locked).collect::<BTreeSet<_>>()
            };
            let locks: BTreeSet<Locked> = combinations(&heard).iter().flat_map(lock_of).collect();
            locks.into_iter().collect()
        })
    }

    /// Votes of one round that prove as much as can be proven of an entry: these, by honest nodes, and the hostile ones'.
    fn proof(&self, lock: Locked, votes: &[Entries]) -> Vec<SignedHead> {
        let for_it = |votes: &Entries| votes.iter().find(|vote| self.contains(*vote, lock.entry));
        let honest = (0..).zip(votes).filter_map(|(at, votes)| Some((at, for_it(votes)?)));
        let hostile = (self.nodes - self.hostile..self.nodes).map(|at| (at, lock.entry));
        honest.chain(hostile).map(|(at, vote)| self.head(at, (lock.round, Some(vote)), true, None)).collect()
    }

    /// What the votes that honest nodes cast in one round prove, with the hostile ones'.
    pub(super) fn provable(&self, round: u8, mut votes: Vec<Entries>) -> Entries {
        votes.sort_unstable();
        remembered(&self.provable, votes, |votes| {
            let is_provable = |entry: &Entry| {
                let lock = Locked { round, entry: *entry };
                let tree = self.tree(None);
                let mut ballot = self.ballot(round, None);
                let claim = self.head(self.nodes - 1, (round, Some(*entry)), true, Some(lock));
                self.hear(&mut ballot, tree, claim, self.proof(lock, votes));
                self.members
                    .iter()
                    .any(|members| ballot.locked_branch(tree, members) == self.tip(Some(*entry)))
            };
            self.all().filter(is_provable).collect()
        })
    }

    /// The branches that a node may vote for in a later round, whatever locks have been proven to it and wherever it has
    /// heard the others stand.
    pub(super) fn ways(&self, node: &Node, lock: Option<Locked>, proven: &[Locked]) -> Entries {
        let key = (node.round, node.tip, lock, proven.to_vec());
        remembered(&self.ways, key, |(_, _, _, proven)| {
            let claim: Vec<_> = std::iter::once(None).chain(proven.iter().copied().map(Some)).collect();
            let mut claims = combinations(&vec![claim; self.nodes - 1]);
            claims.retain(|claims| claims.is_sorted());
            let stands = self.all().collect();
            let heard =
                claims.iter().flat_map(|claims| at_most_one(stands).into_iter().map(move |at| (claims, at)));
            heard.flat_map(|(claims, stand)| self.ways_of(node, lock, claims, stand)).collect()
        })
    }

    fn ways_of(
        &self,
        node: &Node,
        lock: Option<Locked>,
        claims: &[Option<Locked>],
        stand: Option<Entry>,
    ) -> Vec<Entry> {
        let mut ballot = self.ballot(node.round, lock);
        let next = node.round + 1;
        ballot.leave(next.into());
        for (at, claim) in (1..).zip(claims) {
            let proof = claim.map(|lock| self.stand_in(lock));
            let head = self.head(at, (next, stand.or(node.tip)), false, *claim);
            self.hear(&mut ballot, self.tree(node.tip), head, proof.unwrap_or_default());
        }
        let way = |members| {
            let (mut ballot, mut tree) = (ballot.clone(), self.tree(node.tip).clone());
            let tip = ballot.choose(&tree, members, |_| false);
            assert!(tree.stand_on(tip));
            ballot.vote();
            assert!(ballot.votes());
            self.entry(tree.tip())
        };
        self.members.iter().map(way).collect()
    }

    /// What a reader may hold to be recorded, given any of what honest nodes said to have locked in one round, and
    /// whatever hostile ones say.
    pub(super) fn recorded(&self, mut locks: Vec<Entries>) -> Entries {
        locks.sort_unstable();
        remembered(&self.recorded, locks, |locks| {
            let on_branch = |leaf: Entry| {
                let last = |locks: &Entries| {
                    let on_it = locks.iter().filter(|lock| self.contains(leaf, *lock));
                    on_it.max_by_key(|lock| self.tip(Some(*lock)).seq)
                };
                let honest = (0..).zip(locks).filter_map(|(at, locks)| Some((at, last(locks)?)));
                let hostile = (self.nodes - self.hostile..self.nodes).map(|at| (at, leaf));
                let heads: Vec<SignedHead> = honest
                    .chain(hostile)
                    .map(|(at, entry)| self.head(at, (0, Some(leaf)), true, Some(Locked { round: 0, entry })))
                    .collect();
                let is_recorded = move |entry: &Entry| {
                    let seq = self.tip(Some(*entry)).seq;
                    self.members.iter().any(|members| {
                        let standing = Standing::new(self.tree(Some(leaf)), &heads, members);
                        matches!(standing.verdict(seq), Verdict::Recorded { .. })
                    })
                };
                self.all().filter(move |entry| self.contains(leaf, *entry)).filter(is_recorded)
            };
            self.all().flat_map(on_branch).collect()
        })
    }
}
