//! The world of a schedule: stream, nodes, sessions, chance, and what must hold at every moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ceremonies::book::Book;
use ceremonies::ceremony::Context;
use ceremonies::entry::{Entry, Event};
use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::agent::Stop;
use super::charter::{NODES, THRESHOLD};
use super::node::{Agent, Enclave, Node, Share, ShareState, Store, ToAgent};
use crate::machine::NOW;

/// The last actions, which are shown with a failure.
const SHOWN: usize = 60;

/// The log's stream: acknowledged messages in one order, each with its sequence.
#[derive(Clone, Default)]
pub(super) struct Stream(Vec<(u64, Entry)>);

impl Stream {
    /// Appends, if the last message of the subject has this sequence.
    pub(super) fn append(&mut self, expected: u64, entry: Entry) -> Option<u64> {
        let last = self.0.iter().rev().find(|(_, other)| other.ceremony == entry.ceremony);
        if last.map_or(0, |(seq, _)| *seq) != expected {
            return None;
        }
        let seq = self.end().unwrap_or(0) + 1;
        self.0.push((seq, entry));
        Some(seq)
    }

    pub(super) fn after<'a>(
        &'a self,
        id: &'a CeremonyId,
        seq: u64,
    ) -> impl Iterator<Item = &'a (u64, Entry)> {
        let from = self.0.partition_point(|(at, _)| *at <= seq);
        self.0[from..].iter().filter(move |(_, entry)| entry.ceremony == *id)
    }

    pub(super) fn next(&self, position: u64) -> Option<&(u64, Entry)> {
        self.0.get(self.0.partition_point(|(at, _)| *at <= position))
    }

    pub(super) fn end(&self) -> Option<u64> {
        self.0.last().map(|(seq, _)| *seq)
    }

    pub(super) fn lose(&mut self, tail: usize) {
        self.0.truncate(self.0.len().saturating_sub(tail));
    }
}

/// A rule of agents, enclaves or people, broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    DeletesOnFirstAdoption,
    PromotesWithoutCertificate,
    StagesBeforeStored,
    /// A pending share that is stored after its ceremony was found hopeless stays for good.
    DropsOnce,
    /// A ceremony is opened through an agent that has not read the stream.
    OpensUnread,
}

/// A session of several enclaves.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) parties: Vec<usize>,
    /// The parties, each as a boot of an enclave with a view of what the session is about.
    pub(super) joined: Vec<(usize, String, Hash)>,
    pub(super) began: UnixMillis,
    /// There from the last round on.
    pub(super) outcome: Option<Hash>,
}

/// A generation that somebody has seen committed.
#[derive(Clone)]
pub(super) struct Committed {
    pub(super) record: Hash,
    pub(super) before: Option<u32>,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) seed: u64,
    chance: u64,
    pub(super) context: Context,
    pub(super) now: UnixMillis,
    pub(super) stream: Stream,
    pub(super) nodes: Vec<Node>,
    pub(super) sessions: BTreeMap<Hash, Session>,
    pub(super) committed: BTreeMap<u32, Committed>,
    /// What each boot of each enclave has been heard to say of each generation.
    words: BTreeMap<(CeremonyId, String), BTreeSet<String>>,
    /// The highest generation that a ceremony was opened for.
    pub(super) opened: u32,
    pub(super) requests: u64,
    pub(super) is_calm: bool,
    pub(super) slip: Option<Slip>,
    pub(super) forks: usize,
    pub(super) mended: usize,
    /// How often a book could let go of what made an old generation.
    pub(super) shelved: usize,
    pub(super) trace: VecDeque<String>,
}

impl World {
    pub(super) fn new(context: Context) -> Self {
        let node = |index: u8| Node {
            store: Store::default(),
            agent: Some(Agent::new(Book::new(context.clone()))),
            before_crash: Book::new(context.clone()),
            enclave: Enclave::new(format!("enclave {index}, boot 0")),
            boots: 0,
            is_linked: false,
            to_agent: VecDeque::new(),
            to_enclave: VecDeque::new(),
            excused: 0,
            promoted: BTreeSet::new(),
        };
        Self {
            seed: 0,
            chance: 0,
            nodes: (1..=NODES).map(node).collect(),
            context,
            now: NOW.plus(60_000),
            stream: Stream::default(),
            sessions: BTreeMap::new(),
            committed: BTreeMap::new(),
            words: BTreeMap::new(),
            opened: 1,
            requests: 0,
            is_calm: true,
            slip: None,
            forks: 0,
            mended: 0,
            shelved: 0,
            trace: VecDeque::new(),
        }
    }

    pub(super) fn seeded(&self, seed: u64) -> Self {
        Self { seed, chance: seed, is_calm: false, ..self.clone() }
    }

    /// Every draw has a generator of its own, so that a world can be copied.
    fn draw(&mut self) -> StdRng {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        StdRng::seed_from_u64(self.chance)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.draw().random_range(0..bound)
    }

    pub(super) fn nonce(&mut self) -> [u8; 16] {
        self.draw().random()
    }

    /// Whether something goes wrong that does so once in this many times.
    pub(super) fn strikes(&mut self, once_in: usize) -> bool {
        !self.is_calm && self.below(once_in) == 0
    }

    /// The clocks of the nodes differ by seconds.
    pub(super) fn clock(&self, at: usize) -> UnixMillis {
        self.now.plus(700 * i64::try_from(at).unwrap())
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        panic!("CUSTODY_SEED={}: {what}\nafter\n{}\n{self:?}", self.seed, trace.join("\n"));
    }

    pub(super) fn must(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(&what());
        }
    }

    pub(super) fn note(&mut self, action: String) {
        if self.trace.len() == SHOWN {
            self.trace.pop_front();
        }
        self.trace.push_back(action);
    }

    pub(super) fn kill_agent(&mut self, at: usize) {
        let Some(agent) = self.nodes[at].agent.take() else { return };
        self.nodes[at].before_crash = agent.book;
        self.nodes[at].to_agent.clear();
        self.unlink(at);
        self.note(format!("agent {} dies", at + 1));
    }

    /// Folds what a store holds, as the agent does it.
    fn fold(&self, store: &Store, mut book: Book) -> Book {
        let aside = book.take_logs(store.logs.values().cloned());
        self.must(aside.is_empty(), || format!("a node's own copy does not fold: {aside:?}"));
        book
    }

    pub(super) fn start_agent(&mut self, at: usize) {
        let book = self.fold(&self.nodes[at].store, self.nodes[at].before_crash.clone());
        self.nodes[at].agent = Some(Agent::new(book));
        let ids: Vec<CeremonyId> = self.nodes[at].store.logs.keys().cloned().collect();
        for id in ids {
            self.note_commits(at, &id);
        }
    }

    /// What a node would make of its store if it were started now.
    pub(super) fn fold_again(&self, at: usize) -> Book {
        self.fold(&self.nodes[at].store, Book::new(self.context.clone()))
    }

    pub(super) fn kill_enclave(&mut self, at: usize) {
        let was_linked = self.nodes[at].is_linked;
        let kept = self.below(self.nodes[at].to_agent.len() + 1);
        let node = &mut self.nodes[at];
        node.boots += 1;
        node.enclave = Enclave::new(format!("enclave {}, boot {}, seed {}", at + 1, node.boots, self.seed));
        node.to_agent.truncate(kept);
        self.unlink(at);
        if was_linked {
            self.nodes[at].to_agent.push_back(ToAgent::Lost);
        }
    }

    pub(super) fn link(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.is_linked = true;
        node.to_agent.push_back(ToAgent::Welcome(node.enclave.keys.keys(), node.enclave.said.clone()));
    }

    pub(super) fn lose_store(&mut self, at: usize) {
        self.kill_agent(at);
        let node = &mut self.nodes[at];
        node.store = Store::default();
        node.before_crash = Book::new(self.context.clone());
        node.excused = self.opened;
    }

    /// The broker comes back with less than it had acknowledged.
    pub(super) fn lose_tail(&mut self, tail: usize) {
        self.stream.lose(tail);
        for agent in self.nodes.iter_mut().filter_map(|node| node.agent.as_mut()) {
            agent.is_stale = true;
            agent.position = 0;
        }
    }

    pub(super) fn run(&mut self, at: usize, step: impl FnOnce(&mut Self) -> Result<(), Stop>) {
        if matches!(step(self), Err(Stop::Crash)) {
            self.kill_agent(at);
        }
    }

    /// Whether it can be decided that sessions over this label go on.
    pub(super) fn is_complete(&self, session: &Session, label: &Hash) -> bool {
        let takes_part = |party: &usize| {
            session.joined.iter().any(|(at, boot, context)| {
                let enclave = &self.nodes[*at].enclave;
                at == party
                    && enclave.boot == *boot
                    && enclave.open.contains_key(label)
                    && Some(context) == session.joined.first().map(|(_, _, context)| context)
            })
        };
        session.parties.iter().all(takes_part)
    }

    /// An entry that the stream has taken: what enclaves say in it must not contradict.
    pub(super) fn note_entry(&mut self, entry: &Entry) {
        let (at, word) = match &entry.event {
            Event::Prepared { node, record, blob, .. } => {
                (node, format!("prepared {} {blob}", Hash::of_bytes(record)))
            }
            Event::Aborted(aborted) if aborted.subset.parties().len() == usize::from(NODES) => {
                (&aborted.node, "aborted".to_owned())
            }
            _ => return,
        };
        let boot = self.nodes[usize::from(at.get()) - 1].enclave.boot.clone();
        let said = self.words.entry((entry.ceremony.clone(), boot)).or_default();
        said.insert(word);
        let said = said.clone();
        self.must(said.len() == 1, || format!("an enclave says {said:?} in {}", entry.ceremony));
    }

    /// Writes down what this node sees committed.
    pub(super) fn note_commits(&mut self, at: usize, id: &CeremonyId) {
        let Some(chapter) = self.nodes[at].agent.as_ref().and_then(|agent| agent.book.get(id)) else {
            return;
        };
        if chapter.ceremony.prepared_nodes().len() < usize::from(NODES) {
            return;
        }
        let Some(wallet) = chapter.ceremony.committed() else { return };
        let before = chapter.ceremony.before().map(|before| before.record.generation.0);
        let (generation, record) = (wallet.record.generation.0, wallet.record.digest());
        if let Some(known) = self.committed.get(&generation) {
            return self.must(known.record == record, || {
                format!("generation {generation} is committed twice, in {id} too")
            });
        }
        self.committed.insert(generation, Committed { record, before });
        for (index, blob) in &wallet.blobs {
            let node = &self.nodes[usize::from(index.get()) - 1];
            let share = node.store.share(&record);
            let is_there = share.is_some_and(|share| share.blob == *blob)
                || node.enclave.shares.contains_key(&record)
                || node.excused >= generation;
            self.must(is_there, || {
                format!("generation {generation} commits without a share at node {index}")
            });
        }
    }

    pub(super) fn all_have_promoted(&self, generation: u32) -> bool {
        self.nodes.iter().all(|node| node.promoted.contains(&generation))
    }

    /// The generations of which no share may be lost: the last that is committed and, until every node has made it its
    /// own, the one before.
    pub(super) fn needed(&self) -> Vec<(u32, Hash)> {
        let Some((last, committed)) = self.committed.last_key_value() else { return Vec::new() };
        let before = committed.before.filter(|_| !self.all_have_promoted(*last));
        let before = before.and_then(|before| Some((before, self.committed.get(&before)?.record)));
        std::iter::once((*last, committed.record)).chain(before).collect()
    }

    pub(super) fn holds(node: &Node, record: &Hash) -> bool {
        node.store.share(record).is_some() || node.enclave.shares.contains_key(record)
    }

    pub(super) fn check(&self) {
        let needed = self.needed();
        let mut most = 0;
        for (generation, record) in &needed {
            let holders = self.nodes.iter().filter(|node| Self::holds(node, record)).count();
            most = most.max(holders);
            for (index, node) in (1..).zip(&self.nodes) {
                let has = node.excused >= *generation || Self::holds(node, record);
                self.must(has, || format!("node {index} has no share of generation {generation} any more"));
            }
        }
        self.must(needed.is_empty() || most >= THRESHOLD, || "too few nodes can sign".to_owned());
        for (index, node) in (1..).zip(&self.nodes) {
            let current: Vec<&Share> =
                node.store.shares.iter().filter(|share| share.state == ShareState::Current).collect();
            self.must(current.len() < 2, || format!("node {index} has two current shares"));
            for share in current {
                let committed = self.committed.get(&share.generation);
                let is_committed = committed.is_some_and(|committed| committed.record == share.record);
                self.must(is_committed, || format!("node {index} signs with what is not committed"));
            }
        }
    }

    /// Asked before an agent deletes all its shares of the generations before this one.
    pub(super) fn check_deletion(&self, at: usize, generation: u32) {
        let goes = |share: &&Share| {
            share.generation < generation
                && self
                    .committed
                    .get(&share.generation)
                    .is_some_and(|committed| committed.record == share.record)
        };
        let deletes = self.nodes[at].store.shares.iter().find(goes);
        let may = self.all_have_promoted(generation);
        self.must(deletes.is_none() || may, || {
            format!("node {} deletes before all have adopted generation {generation}", at + 1)
        });
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "committed: {:?}",
            self.committed
                .iter()
                .map(|(generation, it)| format!("{generation}: {}", it.record))
                .collect::<Vec<_>>()
        )?;
        for (index, node) in (1..).zip(&self.nodes) {
            writeln!(f, "node {index}, {}, linked {}", node.enclave.boot, node.is_linked)?;
            for share in &node.store.shares {
                writeln!(f, "  share {} {:?} of {}", share.generation, share.state, share.ceremony)?;
            }
            let Some(agent) = &node.agent else { continue };
            for (id, chapter) in agent.book.iter() {
                let ceremony = &chapter.ceremony;
                writeln!(
                    f,
                    "  {id}: generation {}, {:?}, {}, at {} {:.8}, prepared {:?}, adopted {:?}, retired {:?}",
                    ceremony.manifest().generation,
                    ceremony.phase_at(self.now),
                    ceremony.current_step().map_or("-", |step| step.id.as_str()),
                    ceremony.head().seq,
                    ceremony.head().hash.to_string(),
                    ceremony.prepared_nodes(),
                    ceremony.adopted_nodes(),
                    ceremony.retired_nodes(),
                )?;
            }
        }
        Ok(())
    }
}
