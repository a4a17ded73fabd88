//! A ceremony's branches as people read them: who stood or stands on which, and what became of the abandoned one.

use ceremonies::ids::{Hash, NodeIndex, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::record::{HOSTILE, SignedHead, Tip, Tree};
use serde::Serialize;

use crate::cli::event_line;
use crate::client::{Branches, Heads, Reading, named, those};

/// How long two entries for one place are ordinary, in milliseconds: nodes leave a round that is stuck after two seconds,
/// and wait for each other for one.
pub const SETTLING_MS: i64 = 5_000;
/// How far a node's clock may be ahead of this console's, in milliseconds.
const AHEAD_MS: i64 = 2_000;

/// Whether what began at this moment may be two entries at once, between which nodes are about to settle.
#[must_use]
pub fn is_settling(began: UnixMillis, now: UnixMillis) -> bool {
    (-AHEAD_MS..=SETTLING_MS).contains(&now.since(began))
}

/// What became of an entry of an abandoned branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Nodes still stand on its branch.
    Undecided,
    /// Its event was appended again, as this entry.
    TakenAgain(u64),
    /// Its event is not in the log: the fold refused it, or it is still to be appended.
    NotTaken,
}

/// An entry of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number.
    pub seq: u64,
    /// Who appended it.
    pub node: NodeIndex,
    /// What happened.
    pub event: String,
    /// What became of it; none on the branch that is shown.
    pub fate: Option<Fate>,
}

/// A node on a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stand {
    /// Which.
    pub node: NodeIndex,
    /// In which round.
    pub round: u32,
    /// Whether it votes for the branch in that round.
    pub votes: bool,
}

/// One of the branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// The number of its last entry.
    pub seq: u64,
    /// That entry's hash.
    pub hash: Hash,
    /// Who stands on it.
    pub nodes: Vec<Stand>,
    /// Its entries behind the last one that the branches share; none where no node shows them.
    pub entries: Vec<Line>,
}

/// Where a log parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fork {
    /// The last entry that the branches share, where all of them are known.
    pub after: u64,
    /// Whether no node that was heard stands on another branch any more.
    pub healed: bool,
    /// Whether a quorum has locked all of the branch that is shown, and nothing stands in its way: the others part from it
    /// before its end, or are the word of no more nodes than may be hostile, of which nobody shows an entry.
    pub decided: bool,
    /// When the first of the entries was appended between which nodes settle; none where nothing is left to be settled, or
    /// where this is no ordinary contention: a node has voted for two branches in one round, or shows none of its entries.
    pub began: Option<UnixMillis>,
    /// The branch that is shown.
    pub shown: Branch,
    /// The others.
    pub others: Vec<Branch>,
}

fn line(entry: &Entry, fate: Option<Fate>) -> Line {
    Line { seq: entry.seq, node: entry.node, event: event_line(&entry.event), fate }
}

/// Whether a node has voted for two branches in one round, which no honest node does.
fn is_two_faced(heads: &Heads, tree: &Tree) -> bool {
    let contradicts = |one: &SignedHead, other: &SignedHead| {
        one.node == other.node
            && one.round == other.round
            && one.votes
            && other.votes
            && tree.conflicts(one.tip, other.tip) == Some(true)
    };
    heads.all().any(|one| heads.all().any(|other| contradicts(one, other)))
}

/// Whether branches are the word of no more nodes than may be hostile, of which nobody shows an entry.
fn is_mere_word(branches: &[Branch]) -> bool {
    let live = || branches.iter().filter(|branch| !branch.nodes.is_empty());
    live().all(|branch| branch.entries.is_empty())
        && live().map(|branch| branch.nodes.len()).sum::<usize>() <= HOSTILE
}

/// When the first of two entries was appended that stand in each other's way: the one with which another branch leaves the
/// main one, and the one that the main one has there. None where no node shows it.
fn began(branches: &Branches, main: &[Entry], end: Tip) -> Option<UnixMillis> {
    let place = branches.tree().shared(end)? + 1;
    let at = |log: &[Entry]| log.iter().find(|entry| entry.seq == place).map(|entry| entry.time);
    let own = at(&branches.log(end)?)?;
    Some(at(main).map_or(own, |rival| rival.min(own)))
}

/// Where the log of a reading forks; none if nobody knows of another branch.
#[must_use]
pub fn fork(reading: &Reading) -> Option<Fork> {
    let (branches, tree) = (reading.branches(), reading.branches().tree());
    let latest = reading.heads().latest();
    let mut ends: Vec<Tip> = branches.ends().into_iter().filter(|end| !tree.is_main(*end)).collect();
    let unknown = latest.values().map(|head| head.tip).filter(|tip| !tree.knows(*tip) && *tip != Tip::ROOT);
    ends.extend(unknown);
    ends.sort_unstable();
    ends.dedup();
    if ends.is_empty() {
        return None;
    }
    let is_on =
        |end: Tip, tip: Tip| tip == end || (!tree.is_main(tip) && tree.contains(end, tip) == Some(true));
    let is_live = |end: Tip| latest.values().any(|head| is_on(end, head.tip));
    let live: Vec<Tip> = ends.iter().copied().filter(|end| is_live(*end)).collect();
    let healed = live.is_empty();
    // What was abandoned before has nothing to do with where nodes part now.
    let parting = if healed { &ends } else { &live };
    let after = parting.iter().filter_map(|end| tree.shared(*end)).min().unwrap_or(tree.tip().seq);
    let on = |test: &dyn Fn(Tip) -> bool| -> Vec<Stand> {
        let there = latest.values().filter(|head| test(head.tip));
        there.map(|head| Stand { node: head.node, round: head.round, votes: head.votes }).collect()
    };
    let main = reading.log();
    let began: Option<Vec<UnixMillis>> = live.iter().map(|end| began(branches, &main, *end)).collect();
    let began = began.filter(|_| !is_two_faced(reading.heads(), tree)).and_then(|all| all.into_iter().min());
    let fate = |entry: &Entry, is_live: bool| match main.iter().find(|taken| taken.event == entry.event) {
        Some(taken) => Fate::TakenAgain(taken.seq),
        None if is_live => Fate::Undecided,
        None => Fate::NotTaken,
    };
    let other = |end: Tip| {
        let shared = tree.shared(end).unwrap_or(after);
        let log = branches.log(end).unwrap_or_default();
        let own = log.iter().filter(|entry| entry.seq > shared);
        Branch {
            seq: end.seq,
            hash: end.hash,
            nodes: on(&|tip| is_on(end, tip)),
            entries: own.map(|entry| line(entry, Some(fate(entry, is_live(end))))).collect(),
        }
    };
    let others: Vec<Branch> = ends.iter().map(|end| other(*end)).collect();
    let shown = Branch {
        seq: tree.tip().seq,
        hash: tree.tip().hash,
        nodes: on(&|tip| tree.is_main(tip) && tip.seq > after),
        entries: main.iter().filter(|entry| entry.seq > after).map(|entry| line(entry, None)).collect(),
    };
    let decided = reading.recorded().recorded && (!shown.entries.is_empty() || is_mere_word(&others));
    Some(Fork { after, healed, decided, began, shown, others })
}

fn stands(stands: &[Stand]) -> String {
    if stands.is_empty() {
        return "no node stands on it".to_owned();
    }
    let mut rounds: Vec<u32> = stands.iter().map(|stand| stand.round).collect();
    rounds.sort_unstable();
    rounds.dedup();
    let of = |round: u32| {
        let here = stands.iter().filter(|stand| stand.round == round);
        let (votes, waits): (Vec<&Stand>, Vec<&Stand>) = here.partition(|stand| stand.votes);
        let nodes = |stands: Vec<&Stand>, what: &str| {
            let nodes: Vec<NodeIndex> = stands.into_iter().map(|stand| stand.node).collect();
            (!nodes.is_empty()).then(|| format!("{what} {}", named(&nodes)))
        };
        let said = [nodes(votes, "votes of nodes"), nodes(waits, "not voting yet: nodes")];
        format!("round {round}: {}", said.into_iter().flatten().collect::<Vec<_>>().join(", "))
    };
    rounds.into_iter().map(of).collect::<Vec<_>>().join("; ")
}

impl Fork {
    /// Whether this is how two appends at once look, or one that not every node has yet: nodes settle that by themselves
    /// within seconds.
    #[must_use]
    pub fn is_settling(&self, now: UnixMillis) -> bool {
        !self.healed && self.began.is_some_and(|began| is_settling(began, now))
    }

    /// Whether nodes are on two branches, nothing decides between them, and they do not settle that as usual.
    #[must_use]
    pub fn is_alarm(&self, now: UnixMillis) -> bool {
        !self.healed && !self.decided && !self.is_settling(now)
    }

    /// The same by somebody who has seen an earlier fork: what lasts is not made new by another entry in the same place.
    #[must_use]
    pub fn seen_after(self, before: Option<&Self>) -> Self {
        match before.filter(|before| !before.healed && !self.healed && before.after == self.after) {
            Some(before) => Self { began: before.began.min(self.began), ..self },
            None => self,
        }
    }

    fn heading(&self, now: UnixMillis) -> String {
        let after = self.after;
        if self.healed {
            format!("forked after entry {after}; healed: no node stands on another branch")
        } else if self.is_alarm(now) {
            format!("FORK after entry {after}: sign nothing in this ceremony until it has healed")
        } else if self.decided && !self.is_settling(now) {
            let elsewhere = self.others.iter().flat_map(|branch| &branch.nodes);
            let elsewhere: Vec<_> = elsewhere.map(|stand| stand.node).collect();
            let who = those(&elsewhere, "on another branch");
            let why = match self.shown.entries.as_slice() {
                [] => "of which no node shows an entry",
                [..] => "which can never be recorded",
            };
            format!("{who} after entry {after}, {why}: the others go on")
        } else if self.shown.entries.is_empty() {
            format!("an entry after entry {after} that not every node has yet")
        } else {
            format!("two entries at once after entry {after}: nodes are settling which comes first")
        }
    }

    /// In lines: what an operator reads during a fork, and after it.
    #[must_use]
    pub fn lines(&self, now: UnixMillis) -> Vec<String> {
        let mut lines = vec![self.heading(now)];
        let mut branch = |name: &str, branch: &Branch| {
            let short: String = branch.hash.to_string().chars().take(8).collect();
            lines.push(format!("{name}, to entry {} ({short}): {}", branch.seq, stands(&branch.nodes)));
            for entry in &branch.entries {
                let fate = match entry.fate {
                    None | Some(Fate::Undecided) => String::new(),
                    Some(Fate::TakenAgain(seq)) => format!(": appended again as entry {seq}"),
                    Some(Fate::NotTaken) => ": not appended again".to_owned(),
                };
                lines.push(format!("  {} by node {}: {}{fate}", entry.seq, entry.node, entry.event));
            }
            if branch.entries.is_empty() {
                lines.push("  no node shows its entries".to_owned());
            }
        };
        if !self.healed && !self.shown.entries.is_empty() {
            branch("the branch shown", &self.shown);
        }
        for other in &self.others {
            branch(if other.nodes.is_empty() { "the abandoned branch" } else { "another branch" }, other);
        }
        lines
    }
}
