//! What became of a submitted event: decided by what nodes have signed, never by one node's word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ceremonies::ids::{CeremonyId, Hash, NodeIndex};
use ceremonies::record::{HOSTILE, Tip, Verdict};
use ceremonies::text::{chain, one_line};
use serde::Serialize;
use thiserror::Error;

use super::branches::Branches;
use super::heads::Heads;
use super::trouble::{Trouble, those};

/// A verdict as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Whether it stays, whatever a single host does.
    pub recorded: bool,
    /// Whether a majority holds it while all others are silent.
    pub majority: bool,
    /// The nodes that have it.
    pub by: Vec<NodeIndex>,
    /// Those on another branch.
    pub elsewhere: Vec<NodeIndex>,
    /// Those that are silent or behind.
    pub silent: Vec<NodeIndex>,
    /// How many there are.
    pub nodes: usize,
}

impl Recorded {
    /// A verdict among this many nodes.
    #[must_use]
    pub fn new(verdict: &Verdict, nodes: usize) -> Self {
        let none = Vec::new;
        let (recorded, majority) =
            (matches!(verdict, Verdict::Recorded { .. }), matches!(verdict, Verdict::Majority { .. }));
        let (by, elsewhere, silent) = match verdict.clone() {
            Verdict::Recorded { by } => (by, none(), none()),
            Verdict::Majority { by, silent } => (by, none(), silent),
            Verdict::Unknown { by, elsewhere, silent } => (by, elsewhere, silent),
        };
        Self { recorded, majority, by, elsewhere, silent, nodes }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, nodes) = (self.by.len(), self.nodes);
        if self.recorded {
            return write!(f, "recorded by {by} of {nodes}");
        }
        let missing = [
            (&self.elsewhere, "on another branch"),
            (&self.silent, if self.majority { "silent" } else { "silent or behind" }),
        ];
        let missing: Vec<String> = missing
            .into_iter()
            .filter(|(nodes, _)| !nodes.is_empty())
            .map(|(nodes, what)| those(nodes, what))
            .collect();
        let missing = if missing.is_empty() { "not agreed yet".to_owned() } else { missing.join(", ") };
        write!(f, "held by {by} of {nodes} ({missing})")
    }
}

/// Where an event stands in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// In which ceremony.
    pub ceremony: CeremonyId,
    /// The entry's number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// What nodes have signed: recorded, or held by a majority while all others are silent.
    pub verdict: Verdict,
    /// How many nodes there are.
    pub nodes: usize,
}

impl Receipt {
    /// The verdict as it is shown.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        Recorded::new(&self.verdict, self.nodes)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}, {}", self.seq, self.recorded())
    }
}

/// Why the event is not known to be recorded: it may be, now or later.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("outcome unknown, do not sign again: {standing}; check with `custody ceremony show {ceremony}`")]
pub struct Outcome {
    /// In which ceremony.
    pub ceremony: CeremonyId,
    /// What is known.
    pub standing: String,
}

/// Which nodes refuse an event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("refused by {}: {why}", those(.by, "").trim_end())]
pub struct Refusal {
    /// Which nodes.
    pub by: Vec<NodeIndex>,
    /// The first one's reason.
    pub why: String,
}

/// A node's answer to an event.
#[derive(Debug)]
pub(super) enum Reply {
    /// It says that it has the entry.
    Taken,
    /// It refuses the event.
    Rejected(String),
    /// It cannot tell.
    Unknown(String),
    /// No answer of its own came. It may have got the event all the same, unless the bus was never reached.
    Unreached(Trouble),
}

/// What came of submitting an event, so far.
pub(super) enum Decision {
    /// Nothing can be said yet.
    Open,
    Receipt(Receipt),
    Refused(Refusal),
    /// It was never sent.
    NotSent,
}

/// The state of a submitted event.
#[derive(Debug)]
pub(super) struct Tally {
    ceremony: CeremonyId,
    nodes: BTreeSet<NodeIndex>,
    members: BTreeSet<NodeIndex>,
    replies: BTreeMap<NodeIndex, Reply>,
    /// Whether it may have left this machine: only what never did is known not to have arrived.
    may_be_sent: bool,
    /// How many times in a row nodes were read and a majority had it while all others were silent.
    majorities: u32,
    /// Whether nodes were read since the last refusal.
    read_since: bool,
}

/// How many times in a row only a majority must be seen before that counts as all there is to see.
const MAJORITIES: u32 = 2;

impl Tally {
    pub(super) fn new(
        ceremony: CeremonyId,
        nodes: BTreeSet<NodeIndex>,
        members: BTreeSet<NodeIndex>,
    ) -> Self {
        Self {
            ceremony,
            nodes,
            members,
            replies: BTreeMap::new(),
            may_be_sent: false,
            majorities: 0,
            read_since: false,
        }
    }

    /// Notes a node's reply. The last one counts.
    pub(super) fn replied(&mut self, node: NodeIndex, reply: Reply) {
        if matches!(reply, Reply::Rejected(_)) {
            self.read_since = false;
        }
        self.may_be_sent |= !matches!(reply, Reply::Unreached(Trouble::NotConnected));
        self.replies.insert(node, reply);
    }

    /// The best place of the event among the branches, and what nodes have signed of it.
    fn place(&self, branches: &Branches, found: &[Tip], heads: &Heads) -> Option<Receipt> {
        let weigh = |tip: &Tip| {
            let ends = branches.ends().into_iter();
            let on = ends.filter(|end| branches.tree().contains(*end, *tip) == Some(true));
            let verdicts = on.map(|end| {
                let mut there = branches.tree().clone();
                there.stand_on(end);
                heads.verdict(&there, &self.members, tip.seq)
            });
            let verdict = verdicts.max_by_key(rank)?;
            Some(Receipt {
                ceremony: self.ceremony.clone(),
                seq: tip.seq,
                hash: tip.hash,
                verdict,
                nodes: self.members.len(),
            })
        };
        found.iter().filter_map(weigh).max_by_key(|receipt| rank(&receipt.verdict))
    }

    /// Notes that nodes were read.
    pub(super) fn read(&mut self, branches: &Branches, found: &[Tip], heads: &Heads) {
        self.read_since = true;
        let place = self.place(branches, found, heads);
        let majority = place.is_some_and(|receipt| matches!(receipt.verdict, Verdict::Majority { .. }));
        self.majorities = if majority { self.majorities + 1 } else { 0 };
    }

    /// What is decided. At the `end`, waiting is over.
    pub(super) fn decide(&self, branches: &Branches, found: &[Tip], heads: &Heads, end: bool) -> Decision {
        if let Some(receipt) = self.place(branches, found, heads) {
            return match receipt.verdict {
                Verdict::Recorded { .. } => Decision::Receipt(receipt),
                Verdict::Majority { .. } if end || self.majorities >= MAJORITIES => {
                    Decision::Receipt(receipt)
                }
                Verdict::Majority { .. } | Verdict::Unknown { .. } => Decision::Open,
            };
        }
        let rejected = self.replies.iter().filter_map(|(node, reply)| match reply {
            Reply::Rejected(why) => Some((*node, why.clone())),
            Reply::Taken | Reply::Unknown(_) | Reply::Unreached(_) => None,
        });
        let (by, reasons): (Vec<NodeIndex>, Vec<String>) = rejected.unzip();
        let refusal = |by| Refusal { by, why: reasons.first().cloned().unwrap_or_default() };
        let all_replied = self.nodes.iter().all(|node| self.replies.contains_key(node));
        // The word of as many nodes as may be hostile decides nothing, whoever else is silent: what those were sent may
        // reach them later, and they may take it.
        if by.len() > HOSTILE && self.read_since {
            return Decision::Refused(refusal(by));
        }
        // Who is there is only the broker's word.
        if all_replied && !self.may_be_sent {
            return Decision::NotSent;
        }
        Decision::Open
    }

    /// What is known if nothing was decided.
    pub(super) fn outcome(&self, branches: &Branches, found: &[Tip], heads: &Heads) -> Outcome {
        let standing = if let Some(receipt) = self.place(branches, found, heads) {
            receipt.to_string()
        } else {
            let replies = self.nodes.iter().map(|node| match self.replies.get(node) {
                Some(Reply::Taken) => format!("node {node} says that it has the event but does not show it"),
                Some(Reply::Rejected(why)) => format!("only node {node} refuses it: {}", one_line(why)),
                Some(Reply::Unknown(why)) => format!("node {node}: {}", one_line(why)),
                Some(Reply::Unreached(trouble)) => format!("node {node} {}", chain(trouble)),
                None => format!("node {node} did not answer"),
            });
            format!("not in any node's log yet; {}", replies.collect::<Vec<_>>().join("; "))
        };
        Outcome { ceremony: self.ceremony.clone(), standing }
    }
}

/// How much a verdict says.
fn rank(verdict: &Verdict) -> (u8, usize) {
    match verdict {
        Verdict::Recorded { by } => (2, by.len()),
        Verdict::Majority { by, .. } => (1, by.len()),
        Verdict::Unknown { by, .. } => (0, by.len()),
    }
}
