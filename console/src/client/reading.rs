//! Reading a ceremony from several nodes: its entries, on all branches that they show, and their signed heads.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::charter::Charter;
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::log::{Entry, Event};
use ceremonies::record::{Tip, Verdict};
use ceremonies::said::SaidError;
use ceremonies::text::one_line;
use ceremonies::wire::record::HeadNews;
use ceremonies::wire::{VERSION, bus};
use prost::Message;

use super::answer::{self, Answer};
use super::branches::{Branches, Budget};
use super::failover::{self, Everyone, Pace};
use super::heads::Heads;
use super::receipt::Recorded;
use super::trouble::{Trouble, Troubles};
use super::voices::Voices;
use super::{Bus, ClientError, Nodes, PACE};
use ceremonies::deploy::subject;

/// The most entries of other branches that are read from one answer.
const MAX_ASIDE: usize = 256;

/// The charter that a log's first entry proposes, for an amendment: that entry may be anybody's.
pub(super) fn proposed(log: &[Entry]) -> Option<std::sync::Arc<Charter>> {
    let Event::Opened { manifest, .. } = &log.first()?.event else { return None };
    manifest.amendment().cloned()
}

/// What one node gave of a ceremony.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) entries: Vec<Entry>,
    pub(super) aside: Vec<Entry>,
    pub(super) heads: Vec<HeadNews>,
    /// Why it is nobody's word.
    pub(super) unverified: Option<SaidError>,
    /// What is left of what this node may give.
    pub(super) budget: Budget,
}

/// A ceremony as several nodes have it.
#[derive(Debug, Clone)]
pub struct Reading {
    ceremony: CeremonyId,
    branches: Branches,
    heads: Heads,
    members: BTreeSet<NodeIndex>,
    troubles: std::sync::Arc<Troubles>,
    proven: bool,
}

impl Reading {
    /// What branches and heads show, standing on the branch to be shown.
    #[must_use]
    pub fn new(
        ceremony: CeremonyId,
        branches: Branches,
        heads: Heads,
        members: BTreeSet<NodeIndex>,
        troubles: Troubles,
    ) -> Self {
        let proven = !heads.own().is_empty();
        let troubles = std::sync::Arc::new(troubles);
        let mut reading = Self { ceremony, branches, heads, members, troubles, proven };
        let tip = reading.heads.choose(reading.branches.tree(), &reading.members);
        reading.branches.stand_on(tip);
        reading
    }

    /// Which ceremony.
    #[must_use]
    pub fn ceremony(&self) -> &CeremonyId {
        &self.ceremony
    }

    /// The log to be shown.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        self.branches.main()
    }

    /// All entries, and how they chain.
    #[must_use]
    pub fn branches(&self) -> &Branches {
        &self.branches
    }

    /// The nodes' heads.
    #[must_use]
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Whether at least one node has signed where it stands.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// What became of the nodes that gave nothing.
    #[must_use]
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// What nodes have signed of the last entry.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        self.recorded_at(self.branches.tree().tip().seq)
    }

    /// What nodes have signed of an entry, as it is shown.
    #[must_use]
    pub fn recorded_at(&self, seq: u64) -> Recorded {
        Recorded::new(&self.verdict(seq), self.members.len())
    }

    /// What nodes have signed of an entry.
    #[must_use]
    pub fn verdict(&self, seq: u64) -> Verdict {
        self.heads.verdict(self.branches.tree(), &self.members, seq)
    }

    /// The last entry that is recorded.
    #[must_use]
    pub fn recorded_tip(&self) -> Option<Tip> {
        let seq = self.heads.recorded_to(self.branches.tree(), &self.members);
        self.branches.tree().at(seq).filter(|tip| tip.seq > 0)
    }

    /// Leaves the current branch, because its entry of this number does not verify: for another that nodes stand on,
    /// else for the part of it that does verify. False if nothing is left.
    pub(super) fn leave(&mut self, refused: &mut BTreeSet<Tip>, seq: u64) -> bool {
        let tree = self.branches.tree();
        refused.extend(tree.at(seq));
        let stands = self.heads.own().values().map(|head| head.tip);
        let holds = |tip: &Tip| {
            tree.branch(*tip).is_some() && !refused.iter().any(|bad| tree.contains(*tip, *bad) == Some(true))
        };
        let left = stands.chain(self.branches.ends()).filter(holds).max_by_key(|tip| tip.seq);
        let before = seq.checked_sub(1).and_then(|seq| tree.at(seq));
        let best = left.or(before).filter(|tip| tip.seq > 0);
        best.is_some_and(|best| self.branches.stand_on(best))
    }

    /// The nodes that stand on the current branch.
    pub(super) fn holders(&self) -> Vec<NodeIndex> {
        let tree = self.branches.tree();
        let on = self.heads.own().values().filter(|head| tree.contains(head.tip, tree.tip()) == Some(true));
        on.map(|head| head.node).collect()
    }
}

/// What is gathered about one ceremony while nodes are asked about it repeatedly.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) ceremony: CeremonyId,
    pub(super) voices: Voices,
    pub(super) branches: Branches,
    pub(super) heads: Heads,
    pub(super) troubles: Troubles,
    /// What each node may still give.
    budgets: BTreeMap<NodeIndex, Budget>,
    /// From which entry each node is read on.
    next: BTreeMap<NodeIndex, u64>,
    start: u64,
    /// What strangers gave, for when nobody else gives anything.
    strange: Vec<(NodeIndex, Vec<Entry>)>,
}

impl Gathering {
    pub(super) fn new(ceremony: CeremonyId, voices: Voices, known: &[Entry]) -> Self {
        Self {
            branches: Branches::new(ceremony.clone(), known),
            ceremony,
            voices,
            heads: Heads::default(),
            troubles: Troubles::default(),
            budgets: BTreeMap::new(),
            next: BTreeMap::new(),
            start: known.len() as u64 + 1,
            strange: Vec::new(),
        }
    }

    /// From which entry a node is read on.
    pub(super) fn from(&self, node: NodeIndex) -> u64 {
        self.next.get(&node).copied().unwrap_or(self.start)
    }

    pub(super) fn budget(&self, node: NodeIndex) -> Budget {
        self.budgets.get(&node).copied().unwrap_or_default()
    }

    /// Takes what a node gave. Returns whether it must be asked again from the first entry, because its log diverges
    /// from what is known.
    pub(super) fn take(&mut self, node: NodeIndex, given: Given) -> bool {
        self.budgets.insert(node, given.budget);
        if let Some(error) = given.unverified {
            self.troubles.add(node, Trouble::Unverified(error));
            self.strange.push((node, given.entries));
            return false;
        }
        self.heads.take(&self.voices, &self.ceremony, node, given.heads);
        let whole = self.from(node) == 1;
        let mut next = self.from(node);
        for entry in given.entries {
            let seq = entry.seq;
            match self.branches.add(entry) {
                Ok(_) => next = seq + 1,
                Err(_) if !whole => {
                    self.next.insert(node, 1);
                    return true;
                }
                Err(misfit) => {
                    self.troubles.add(node, misfit.into());
                    break;
                }
            }
        }
        let mut aside = given.aside;
        aside.sort_by_key(|entry| entry.seq);
        for entry in aside {
            // What follows nothing that is known here cannot be shown.
            let _ = self.branches.add(entry);
        }
        let stands = self.heads.own().get(&node).map(|head| head.tip);
        let unknown = stands.is_some_and(|tip| self.branches.tree().branch(tip).is_none());
        // It may have grown in the meantime; else the node stands on a branch that is not known here, which is read
        // whole.
        let ahead = stands.is_some_and(|tip| unknown && tip.seq >= next);
        next = if unknown && !ahead { 1 } else { next.min(self.branches.tree().tip().seq + 1) };
        self.next.insert(node, next);
        ahead || (unknown && !whole)
    }

    /// The log that a stranger gave, if no node that counts gave anything: it must prove itself.
    pub(super) fn take_strange(&mut self) -> bool {
        if self.branches.tree().tip().seq > 0 {
            return false;
        }
        for (_, entries) in std::mem::take(&mut self.strange) {
            let mut branches = Branches::new(self.ceremony.clone(), &[]);
            if !entries.is_empty() && entries.into_iter().all(|entry| branches.add(entry).is_ok()) {
                self.branches = branches;
                return true;
            }
        }
        false
    }

    pub(super) fn reading(self) -> Reading {
        Reading::new(self.ceremony, self.branches, self.heads, self.voices.members(), self.troubles)
    }
}

fn entries(raw: Vec<ceremonies::wire::log::Entry>) -> impl Iterator<Item = Result<Entry, Trouble>> {
    raw.into_iter().map(|entry| Ok(Entry::from_wire(entry)?))
}

impl<B: Bus> Nodes<B> {
    /// What one node has of a ceremony from this entry on, page by page, within its budget.
    pub(super) async fn pages(
        &self,
        voices: &Voices,
        ceremony: &CeremonyId,
        node: NodeIndex,
        from: u64,
        mut budget: Budget,
    ) -> Result<Given, Trouble> {
        let subject = subject::read(ceremony, node);
        let mut given =
            Given { entries: Vec::new(), aside: Vec::new(), heads: Vec::new(), unverified: None, budget };
        let mut next = from;
        loop {
            let request = bus::Read { version: VERSION, from_seq: next, nonce: answer::nonce() };
            let request = request.encode_to_vec();
            let bytes = self.ask(subject.clone(), request.clone()).await?;
            let Answer { body, unverified } =
                answer::read::<bus::ReadReply>(voices, node, (&subject, &request), &bytes)?;
            if !body.refusal.is_empty() {
                return Err(Trouble::Refused(one_line(&body.refusal)));
            }
            given.unverified = given.unverified.or(unverified);
            given.heads = body.heads;
            // With every page the same again: the last ones are enough, and no more than one answer holds.
            given.aside = entries(body.aside).take(MAX_ASIDE).collect::<Result<_, _>>()?;
            let before = next;
            for entry in entries(body.entries) {
                let entry = entry?;
                if entry.seq != next {
                    return Err(super::Misfit::Unchained(entry.seq).into());
                }
                if !budget.spend(&entry) {
                    return Err(Trouble::Overfull("a ceremony's log"));
                }
                next += 1;
                given.entries.push(entry);
            }
            if next == before || next > body.last_seq {
                given.budget = budget;
                return Ok(given);
            }
        }
    }

    /// Reads on from all nodes at once, and once more from those whose logs diverge from what is known.
    pub(super) async fn poll(&self, gathering: &mut Gathering, pace: Pace) {
        let mut nodes = gathering.voices.nodes();
        for _ in 0..2 {
            let everyone = self.poll_of(gathering, &nodes, pace).await;
            self.remember_quiet(&everyone.troubles);
            let again = everyone
                .answers
                .into_iter()
                .filter_map(|(node, given)| gathering.take(node, given).then_some(node));
            nodes = again.collect();
            for (node, trouble) in everyone.troubles.into_each() {
                gathering.troubles.add(node, trouble);
            }
            if nodes.is_empty() {
                return;
            }
        }
    }

    async fn poll_of(
        &self,
        gathering: &Gathering,
        nodes: &BTreeSet<NodeIndex>,
        pace: Pace,
    ) -> Everyone<Given> {
        let read = |node| {
            let (from, budget) = (gathering.from(node), gathering.budget(node));
            self.pages(&gathering.voices, &gathering.ceremony, node, from, budget)
        };
        failover::everyone(nodes, &self.quiet(), pace, read).await
    }

    /// Reads a ceremony: its entries from one node, in addition to those known, and then from every node where it
    /// stands. Nothing is folded here.
    ///
    /// # Errors
    /// [`ClientError::Nodes`] if no node gave anything usable.
    pub async fn read(&self, ceremony: &CeremonyId, known: &[Entry]) -> Result<Reading, ClientError> {
        let voices = self.voices_in(known);
        let mut gathering = Gathering::new(ceremony.clone(), voices, known);
        if known.is_empty() {
            // One gives it whole; of the others only the heads are needed.
            let order = self.order(&gathering.voices.nodes());
            let read = |node| async move {
                let voices = self.voices(None);
                let given = self.pages(&voices, ceremony, node, 1, Budget::default()).await?;
                // A stranger's answer is no answer while others may give one.
                match given.unverified {
                    None => Ok(given),
                    Some(error) => Err(Trouble::Unverified(error)),
                }
            };
            match failover::first(&order, PACE, read).await {
                Ok((node, given, troubles)) => {
                    self.remember_quiet(&troubles);
                    gathering.start = given.entries.len() as u64 + 1;
                    gathering.voices = self.voices_in(&given.entries);
                    gathering.next.insert(node, 1);
                    gathering.take(node, given);
                    gathering.start = gathering.branches.tree().tip().seq + 1;
                }
                Err(troubles) => self.remember_quiet(&troubles),
            }
        }
        self.poll(&mut gathering, PACE).await;
        if gathering.take_strange() {
            let log = gathering.branches.main();
            if self.opens(&log) {
                gathering.voices = self.voices_in(&log);
                gathering.start = log.len() as u64 + 1;
                gathering.troubles = Troubles::default();
                self.poll(&mut gathering, PACE).await;
            }
        }
        if gathering.branches.tree().tip().seq == 0 {
            return Err(ClientError::nodes(gathering.troubles));
        }
        Ok(gathering.reading())
    }
}
