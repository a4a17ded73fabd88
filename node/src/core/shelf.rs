//! Finished ceremonies. One line of each stays in memory; its log stays in the store.
//!
//! A log is shelved when nothing can come of it any more and this node knows it to be recorded. It is recalled, whole,
//! when somebody asks for it or says something about it that differs from the line. A line decides nothing except
//! whether that is so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use ceremonies::ceremony::{self, Ceremony};
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, Generation, Hash, NodeIndex, UnixMillis, WalletName};
use ceremonies::log::Entry;
use ceremonies::record::{HOSTILE, Head, Lock, Memory, SignedHead, Standing, Tip, Tree};
use ceremonies::text::chain;
use ceremonies::wallet::Record;
use ceremonies::wire::{bus, log};
use tracing::{error, warn};

use super::append::Wish;
use super::peers::{MAX_RECALLS, MAX_UNKNOWN, Second};
use super::record::{Log, place_before};
use super::writer::{Work, Writer};
use super::{Core, Event, Failure, StoreOp, StoreReply, Waiting};

/// The version of the fold's judgement: a line written under another is not believed, and the log is folded again.
pub(crate) const FOLD: u32 = 3;
/// How many logs are shelved at one look.
const MAX_SHELVED_AT_ONCE: usize = 64;
/// How many recalled logs are kept in memory, if they can be shelved again.
const MAX_RECALLED: usize = 64;
/// How often other nodes are asked for their heads about one ceremony, in milliseconds.
const HEADS_AGAIN_MS: u64 = 30_000;
/// How often any node is asked for a head at one look: well below what it answers.
const MAX_HEADS_ASKED: usize = 64;
/// How many items may wait for one log to be recalled.
const MAX_WAITING: usize = 32;

/// What a node keeps in memory of a finished ceremony.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelved {
    /// Which ceremony.
    pub ceremony: CeremonyId,
    /// What it was for.
    pub kind: CeremonyKind,
    /// The wallet.
    pub wallet: WalletName,
    /// The generation of the wallet that it worked on.
    pub generation: Generation,
    /// How it ended, in words.
    pub phase: String,
    /// When it was opened, by its manifest.
    pub opened: UnixMillis,
    /// The charter under which it was held.
    pub charter: Hash,
    /// The time of its first entry.
    pub began: UnixMillis,
    /// Its last entry, on which this node is locked.
    pub head: ceremony::Head,
    /// The round in which this node is.
    pub round: u32,
    /// The round in which it locked the last entry.
    pub lock_round: u32,
}

impl Shelved {
    fn new(ceremony: &Ceremony, began: UnixMillis, memory: &Memory, now: UnixMillis) -> Option<Self> {
        let (manifest, head) = (ceremony.manifest(), ceremony.head());
        let lock = memory.lock.filter(|lock| (lock.tip.seq, lock.tip.hash) == (head.seq, head.hash))?;
        Some(Self {
            ceremony: manifest.ceremony.clone(),
            kind: manifest.kind,
            wallet: manifest.wallet.clone(),
            generation: manifest.generation,
            phase: ceremony.standing_at(now),
            opened: manifest.opened,
            charter: manifest.charter,
            began,
            head,
            round: memory.round,
            lock_round: lock.round,
        })
    }

    pub(super) fn tip(&self) -> Tip {
        Tip { seq: self.head.seq, hash: self.head.hash }
    }

    /// Whether a node stands where this one does. In a later round, or before it has voted, it might not stay there.
    pub(super) fn says_the_same(&self, head: &Head) -> bool {
        head.tip == self.tip() && head.votes && head.round <= self.round
    }

    pub(super) fn summary(&self) -> bus::Summary {
        bus::Summary {
            ceremony: self.ceremony.to_string(),
            last_seq: self.head.seq,
            last_hash: self.head.hash.as_bytes().to_vec(),
            kind: self.kind.to_string(),
            wallet: self.wallet.to_string(),
            generation: self.generation.0,
            phase: self.phase.clone(),
            opened_ms: self.opened.0,
            last_ms: self.head.time.0,
        }
    }
}

/// A log as the store has it, with what this node remembers about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredLog {
    /// Its entries, in order.
    pub entries: Vec<Entry>,
    /// Its ballot.
    pub memory: Memory,
    /// The entries of branches that this node does not stand on.
    pub aside: Vec<Entry>,
    /// The record that its opening names, if it names one.
    pub record: Option<Record>,
}

/// What is done once a log is there again.
#[derive(Debug)]
pub(super) enum Then {
    Handle(Event),
    Append(log::Event, Wish),
}

/// All ceremonies of which no more than a line is in memory.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    lines: BTreeMap<CeremonyId, Shelved>,
    /// Sum of the hashes of their heads.
    sum: Sum,
    /// Those of which the stream may have lost entries.
    short: BTreeSet<CeremonyId>,
    /// Those that are being recalled, and what waits for it.
    recalling: BTreeMap<CeremonyId, Vec<Then>>,
    /// Which node's statement made this one recall a log.
    because_of: BTreeMap<CeremonyId, NodeIndex>,
    /// How many were recalled for messages that the stream has of them.
    for_stream: Second,
}

impl Shelf {
    pub(super) fn new(lines: Vec<Shelved>, is_stream_known: bool) -> Self {
        let mut shelf = Self::default();
        for line in lines {
            if !is_stream_known {
                shelf.short.insert(line.ceremony.clone());
            }
            shelf.put(line);
        }
        shelf
    }

    fn put(&mut self, line: Shelved) {
        self.sum.add(&line.head.hash);
        self.because_of.remove(&line.ceremony);
        self.lines.insert(line.ceremony.clone(), line);
    }

    fn take(&mut self, id: &CeremonyId) -> Option<Shelved> {
        let line = self.lines.remove(id)?;
        self.sum.subtract(&line.head.hash);
        Some(line)
    }

    pub(super) fn get(&self, id: &CeremonyId) -> Option<&Shelved> {
        self.lines.get(id)
    }

    pub(super) fn has(&self, id: &CeremonyId) -> bool {
        self.lines.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Shelved> {
        self.lines.values()
    }

    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    /// The ceremony after this one of which the stream should have everything.
    pub(super) fn next_complete(&self, last: Option<&CeremonyId>) -> Option<&CeremonyId> {
        let after = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.lines.range::<CeremonyId, _>(after).map(|(id, _)| id).find(|id| !self.short.contains(*id))
    }

    /// The stream was replaced: nothing is known of what it has.
    pub(super) fn doubt_stream(&mut self) {
        self.short = self.lines.keys().cloned().collect();
    }

    /// Some of the ceremonies of which the stream may lack entries.
    pub(super) fn short(&self) -> Vec<CeremonyId> {
        self.short.iter().take(MAX_RECALLED).cloned().collect()
    }

    /// Some of those that made shares.
    fn makers(&self) -> Vec<CeremonyId> {
        let makers = self.lines.values().filter(|line| line.kind.makes_shares());
        makers.map(|line| line.ceremony.clone()).take(MAX_RECALLED).collect()
    }

    /// Whether the stream may lack entries of any that made shares.
    pub(super) fn is_short_of_makers(&self) -> bool {
        self.short.iter().any(|id| self.lines.get(id).is_some_and(|line| line.kind.makes_shares()))
    }

    fn is_blamed_too_often(&self, node: NodeIndex) -> bool {
        self.because_of.values().filter(|blamed| **blamed == node).count() >= MAX_UNKNOWN
    }
}

impl Core {
    /// Where this node stands in a ceremony of which it keeps a line; signed on request.
    pub(super) fn head_of_line(&self, line: &Shelved) -> Option<SignedHead> {
        let head = Head {
            cluster: self.identity.charter.cluster().clone(),
            ceremony: line.ceremony.clone(),
            node: self.node(),
            round: line.round,
            votes: true,
            tip: line.tip(),
            lock: Some(Lock { round: line.lock_round, tip: line.tip() }),
            time: self.now.wall,
        };
        SignedHead::create(head, |message| self.identity.sign(message)).ok()
    }

    /// Recalls a log from the store, and then does this.
    pub(super) fn recall(&mut self, id: &CeremonyId, then: Option<Then>) {
        let is_new = !self.shelf.recalling.contains_key(id);
        let waiting = self.shelf.recalling.entry(id.clone()).or_default();
        if waiting.len() < MAX_WAITING {
            waiting.extend(then);
        }
        if is_new {
            self.store(StoreOp::Recall(id.clone()), Waiting::Recalled(id.clone()));
        }
    }

    /// Whether an entry is worth a recall. One of a log that this node has whole, and knows to be recorded, can only repeat
    /// it or be refused; one that opens a ceremony must at least be by the node that it names.
    pub(super) fn is_worth_a_recall(&mut self, id: &CeremonyId, entry: &Entry) -> bool {
        if self.shelf.short.contains(id) {
            return true;
        }
        if entry.ceremony == *id {
            return self.shelf.for_stream.allows(self.now.steady, MAX_RECALLS);
        }
        let authored =
            self.charters_of(&entry.ceremony).into_iter().any(|charter| entry.is_by_its_node(charter));
        authored && self.may_recall_for(entry.node)
    }

    /// A node stands elsewhere in a ceremony that is shelved here.
    pub(super) fn hear_otherwise(&mut self, head: &SignedHead, event: Event) {
        let node = head.node;
        if self.shelf.is_blamed_too_often(node) || !self.may_recall_for(node) {
            return;
        }
        self.shelf.because_of.entry(head.ceremony.clone()).or_insert(node);
        self.recall(&head.ceremony, Some(Then::Handle(event)));
    }

    pub(super) fn recalled(&mut self, id: &CeremonyId, result: Result<StoreReply, Failure>) {
        match result {
            Ok(StoreReply::Log(stored)) => self.put_back(id, *stored),
            Ok(_) => warn!(ceremony = %id, "the store gave an answer of the wrong kind"),
            Err(trouble) => {
                warn!(ceremony = %id, %trouble, "log not recalled yet");
                return self.later(StoreOp::Recall(id.clone()), Waiting::Recalled(id.clone()));
            }
        }
        if matches!(&self.writer, Writer::Recalling(waiting) if waiting == id) {
            self.writer = Writer::Idle;
        }
        for then in self.shelf.recalling.remove(id).unwrap_or_default() {
            match then {
                Then::Handle(event) => self.take_event(event),
                Then::Append(event, wish) => self.append(id, event, wish),
            }
        }
    }

    fn put_back(&mut self, id: &CeremonyId, stored: StoredLog) {
        let Some(line) = self.shelf.take(id) else { return };
        let is_short = self.shelf.short.remove(id);
        let mut log = Log::new(self.node(), stored.memory);
        self.book.know_records(stored.record);
        if let Err((seq, refused)) = self.book.read(&stored.entries) {
            let why = format!("its own copy of {id} does not fold from entry {seq} on: {}", chain(&refused));
            error!(%why, "log not recalled: reading it again from the stream and from other nodes");
            self.observed.store.rose(&why, self.now);
            // Its ballot still binds.
            self.logs.insert(id.clone(), log);
            return;
        }
        log.tree = Tree::of(&stored.entries);
        log.have = if is_short { 0 } else { line.head.seq };
        log.last = None;
        log.changed_at = self.now.steady;
        log.recalled = Some((self.now.steady, line.tip()));
        for entry in stored.aside {
            if log.tree.knows(place_before(&entry)) {
                log.tree.put_aside(entry.seq, entry.hash(), entry.prev);
                log.aside.insert(entry.hash(), entry);
            }
        }
        self.logs.insert(id.clone(), log);
        self.state(id);
        self.plan(Work::Settle(id.clone()));
    }

    /// Recalls all that made shares, where that matters: who is banned is judged by all generations, and a stream is given
    /// back each of them after the one that it rests on.
    pub(super) fn recall_makers(&mut self) {
        if self.book.bans().next().is_some() || self.shelf.is_short_of_makers() {
            for id in self.shelf.makers() {
                self.recall(&id, None);
            }
        }
    }

    /// Shelves what is finished and has not changed for a while and, when too many logs have been recalled, the oldest
    /// of those.
    pub(super) fn shelve(&mut self) {
        let now = self.now.steady;
        let is_waiting = self.waiting.values().any(|waiting| matches!(waiting, Waiting::Shelved(_)));
        if is_waiting || !self.stream.is_read() {
            return;
        }
        let mut recalled: Vec<(u64, &CeremonyId)> =
            self.logs.iter().filter_map(|(id, log)| Some((log.recalled?.0, id))).collect();
        recalled.sort_unstable();
        let too_many = recalled.len().saturating_sub(MAX_RECALLED);
        let too_many: BTreeSet<&CeremonyId> = recalled.into_iter().take(too_many).map(|(_, id)| id).collect();
        let is_cold = |id: &CeremonyId, log: &Log| {
            now.saturating_sub(log.changed_at) >= self.pace.shelve_after_ms || too_many.contains(id)
        };
        let shelvable = self.book.shelvable(self.now.wall);
        let is_done =
            |id: &CeremonyId, log: &Log| is_cold(id, log) && shelvable.contains(id) && self.is_done_with(id);
        let done = self.logs.iter().filter(|(id, log)| is_done(id, log));
        let (recorded, others): (Vec<_>, Vec<_>) =
            done.map(|(id, _)| id.clone()).partition(|id| self.is_known_to_be_recorded(id));
        let lines: Vec<Shelved> =
            recorded.iter().take(MAX_SHELVED_AT_ONCE).filter_map(|id| self.line_of(id)).collect();
        for line in lines {
            self.store(StoreOp::Shelve(Box::new(line.clone())), Waiting::Shelved(Box::new(line)));
        }
        self.ask_for_heads(&others);
    }

    /// Whether a quorum has locked the last entry in one round, by the heads that were heard here or before it was shelved.
    /// A node that has since been led into another round must lock there too: otherwise it would be missed in that one.
    fn is_known_to_be_recorded(&self, id: &CeremonyId) -> bool {
        let Some(log) = self.logs.get(id) else { return false };
        let (members, tip) = (self.members(), log.tree.tip());
        let heads = log.ballot.heads().map(|(head, _)| head);
        log.is_locked()
            && (log.is_as_recalled() || Standing::new(&log.tree, heads, &members).recorded_to() == tip.seq)
    }

    fn line_of(&self, id: &CeremonyId) -> Option<Shelved> {
        let (chapter, log) = self.book.get(id).zip(self.logs.get(id))?;
        let began = chapter.entries.first()?.time;
        Shelved::new(&chapter.ceremony, began, log.ballot.memory(), self.now.wall)
    }

    /// Whether nothing is left to do, to report or to find out about a ceremony.
    fn is_done_with(&self, id: &CeremonyId) -> bool {
        let Some(log) = self.logs.get(id) else { return false };
        // One node alone may claim that there is more, or send what follows on nothing known.
        log.pending.is_empty()
            && (log.have == log.tree.tip().seq || log.is_full(self.now.steady))
            && log.ballot.needs(&log.tree).len() <= HOSTILE
            && self.is_settled(id)
            && !self.running.contains(id)
            && !self.work.iter().any(|work| work.ceremony() == Some(id))
            && self.writer.ceremony() != Some(id)
    }

    /// Asks other nodes where they stand in ceremonies of which this one does not know that they are recorded: it may have
    /// been started after they said so.
    pub(super) fn ask_for_heads(&mut self, ids: &[CeremonyId]) {
        let now = self.now.steady;
        let mut asks = Vec::new();
        for id in ids {
            let Some(log) = self.logs.get(id) else { continue };
            let next = log.tree.tip().seq + 1;
            let is_due = |node: &NodeIndex| {
                log.asked.get(node).is_none_or(|(at, _)| now.saturating_sub(*at) >= HEADS_AGAIN_MS)
            };
            let nodes = self.members().into_iter().filter(|node| *node != self.node()).filter(is_due);
            asks.extend(nodes.map(|node| (id.clone(), node, next)));
            if asks.len() >= MAX_HEADS_ASKED {
                break;
            }
        }
        for (id, node, next) in asks {
            self.log_of(&id).asked.insert(node, (now.max(1), next));
            self.ask(node, &id, next);
        }
    }

    /// The store has the line. Anything that happened in the meantime keeps the log in memory.
    pub(super) fn is_shelved(&mut self, line: Shelved, result: Result<(), Failure>) {
        let id = line.ceremony.clone();
        if let Err(trouble) = result {
            return warn!(ceremony = %id, %trouble, "log not shelved");
        }
        let is_same = self.line_of(&id).as_ref() == Some(&line);
        let may_go = is_same && self.is_done_with(&id) && self.is_known_to_be_recorded(&id);
        if may_go && self.book.shelvable(self.now.wall).contains(&id) {
            self.book.shelve(&id);
            self.logs.remove(&id);
            self.unsettled.remove(&id);
            // Whatever the enclave was ordered to do there can no longer have any effect.
            self.asked.retain(|_, asked| asked.ceremony() != Some(&id));
            self.shelf.put(line);
        }
    }

    /// Forgets what was opened too late, now that another charter is known to be in force.
    pub(super) fn drop_overdue_lines(&mut self) {
        let is_overdue = |line: &&Shelved| self.book.is_overdue(&line.charter, line.began);
        let overdue: Vec<CeremonyId> =
            self.shelf.iter().filter(is_overdue).map(|line| line.ceremony.clone()).collect();
        for id in overdue {
            warn!(ceremony = %id, "set aside: another charter is in force");
            let Some(line) = self.shelf.take(&id) else { continue };
            self.shelf.short.remove(&id);
            // A ballot binds even if this node no longer stands on anything.
            let lock = Some(Lock { round: line.lock_round, tip: line.tip() });
            let memory = Memory { round: line.round, lock, ..Memory::default() };
            self.logs.insert(id, Log::new(self.node(), memory));
        }
    }
}

/// A sum of hashes, modulo 2^256.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum([u8; 32]);

impl Sum {
    pub(super) fn add(&mut self, hash: &Hash) {
        self.add_all(hash.as_bytes(), 0);
    }

    fn subtract(&mut self, hash: &Hash) {
        self.add_all(&hash.as_bytes().map(|byte| !byte), 1);
    }

    fn add_all(&mut self, bytes: &[u8; 32], mut carry: u16) {
        for (digit, other) in self.0.iter_mut().zip(bytes).rev() {
            let total = u16::from(*digit) + u16::from(*other) + carry;
            [_, *digit] = total.to_be_bytes();
            carry = total >> 8;
        }
    }

    pub(super) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_off_a_sum_leaves_the_rest() {
        let hashes = [Hash::of_bytes(b"one"), Hash::of_bytes(b"two"), Hash::from([0xff; 32]), Hash::ZERO];
        let sum_of = |hashes: &[Hash]| {
            let mut sum = Sum::default();
            for hash in hashes {
                sum.add(hash);
            }
            sum
        };
        for (place, hash) in hashes.iter().enumerate() {
            let mut sum = sum_of(&hashes);
            sum.subtract(hash);
            let mut rest = hashes.to_vec();
            rest.remove(place);
            assert_eq!(sum, sum_of(&rest));
        }
    }
}
