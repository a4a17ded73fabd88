//! A ceremony's branches as people read them: who stood or stands on which, and what became of the abandoned one.

use ceremonies::entry::Entry;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::record::Tip;
use serde::Serialize;

use crate::cli::event_line;
use crate::client::{Reading, named};

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
    /// The branch that is shown.
    pub shown: Branch,
    /// The others.
    pub others: Vec<Branch>,
}

fn line(entry: &Entry, fate: Option<Fate>) -> Line {
    Line { seq: entry.seq, node: entry.node, event: event_line(&entry.event), fate }
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
    let after = ends.iter().filter_map(|end| tree.shared(*end)).min().unwrap_or(tree.tip().seq);
    let on = |test: &dyn Fn(Tip) -> bool| -> Vec<Stand> {
        let there = latest.values().filter(|head| test(head.tip));
        there.map(|head| Stand { node: head.node, round: head.round, votes: head.votes }).collect()
    };
    let is_on =
        |end: Tip, tip: Tip| tip == end || (!tree.is_main(tip) && tree.contains(end, tip) == Some(true));
    let healed = !ends.iter().any(|end| latest.values().any(|head| is_on(*end, head.tip)));
    let main = reading.log();
    let fate = |entry: &Entry| match main.iter().find(|taken| taken.event == entry.event) {
        Some(taken) => Fate::TakenAgain(taken.seq),
        None if healed => Fate::NotTaken,
        None => Fate::Undecided,
    };
    let other = |end: Tip| {
        let shared = tree.shared(end).unwrap_or(after);
        let log = branches.log(end).unwrap_or_default();
        let own = log.iter().filter(|entry| entry.seq > shared);
        Branch {
            seq: end.seq,
            hash: end.hash,
            nodes: on(&|tip| is_on(end, tip)),
            entries: own.map(|entry| line(entry, Some(fate(entry)))).collect(),
        }
    };
    let others = ends.into_iter().map(other).collect();
    let shown = Branch {
        seq: tree.tip().seq,
        hash: tree.tip().hash,
        nodes: on(&|tip| tree.is_main(tip) && tip.seq > after),
        entries: main.iter().filter(|entry| entry.seq > after).map(|entry| line(entry, None)).collect(),
    };
    Some(Fork { after, healed, shown, others })
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
    /// In lines: what an operator reads during a fork, and after it.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![if self.healed {
            format!("forked after entry {}; healed: no node stands on another branch", self.after)
        } else {
            format!("FORK after entry {}: sign nothing in this ceremony until it has healed", self.after)
        }];
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
            branch(if self.healed { "the abandoned branch" } else { "another branch" }, other);
        }
        lines
    }
}
