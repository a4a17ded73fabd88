//! What nodes tell each other outside the stream: where they stand, and the entries that one of them lacks.
//!
//! This is how a record that the broker lost, changed or withheld comes back. Everything accepted here carries its own
//! signatures; the sender of a message decides only how often it is answered.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::log::Entry;
use ceremonies::record::{Ballot, SignedHead};
use ceremonies::said::{self, Topic};
use ceremonies::wire::record::{self, to_peer};
use ceremonies::wire::{VERSION, bus};
use prost::Message;

use super::append::Wish;
use super::settle::{MAX_HEADS, news};
use super::shelf::Then;
use super::writer::Work;
use super::{Core, Event, requests};

/// The most ceremonies known only from one node's heads.
pub(super) const MAX_UNKNOWN: usize = 64;
/// How long to wait for an answer before asking the same again, in milliseconds.
const ASK_AGAIN_MS: u64 = 1000;
/// The most logs that one node is asked for at one look.
const MAX_ASKS: usize = 16;
/// The most entries that one node may hand over in a second: each costs a signature to check.
const MAX_GIVEN: usize = 1024;
/// The most requests of one node that are answered in a second.
const MAX_ANSWERS: usize = 64;
/// The most finished logs that are recalled in a second for what one node says, and for what the stream repeats: each is
/// read from the store and folded.
pub(super) const MAX_RECALLS: usize = 4;
/// How far ahead of this node's clock another's may be, in milliseconds.
const MAX_AHEAD_MS: i64 = 2000;
/// How long two nodes' records must differ before their heads are compared, and how long until that is repeated, in
/// milliseconds.
const COMPARE_MS: u64 = 3000;

/// A statement that no honest node sends.
struct Junk;

/// The most votes of unknown voters in one proof: an amendment may have changed every node's key.
const MAX_STRANGERS: usize = 16;

/// What is known of another node.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// When its last heartbeat came, and what time it said.
    pub(super) heard: Option<u64>,
    pub(super) time_ms: i64,
    /// Since when its record has differed from this node's.
    pub(super) differs_since: Option<u64>,
    compared_at: Option<u64>,
    /// How many of its requests were answered.
    answered: Second,
    /// How many entries it handed over.
    given: Second,
    /// How many logs were recalled for what it said.
    recalled: Second,
}

/// How much was done in the second that began then.
#[derive(Debug, Default)]
pub(super) struct Second {
    began: u64,
    done: usize,
}

impl Second {
    /// How much more may be done now.
    fn left(&mut self, now: u64, limit: usize) -> usize {
        if now.saturating_sub(self.began) >= 1000 {
            *self = Self { began: now, done: 0 };
        }
        limit.saturating_sub(self.done)
    }

    /// Whether one more may be done now; if so, it is counted.
    pub(super) fn allows(&mut self, now: u64, limit: usize) -> bool {
        let allows = self.left(now, limit) > 0;
        self.done += usize::from(allows);
        allows
    }
}

pub(super) type Peers = BTreeMap<NodeIndex, Peer>;

/// Whether a ballot already has this very statement, as a node's latest or among its proofs.
fn has_heard(ballot: &Ballot, head: &SignedHead) -> bool {
    ballot.heads().any(|(known, proof)| known == head || proof.contains(head))
}

impl Core {
    /// A head about this ceremony by a node that may speak in it. A head that was checked before is not checked again:
    /// heads are repeated often.
    fn checked(&self, raw: record::Head, id: &CeremonyId) -> Option<SignedHead> {
        let head = SignedHead::from_wire(raw).ok().filter(|head| head.ceremony == *id)?;
        if self.logs.get(id).is_some_and(|log| has_heard(&log.ballot, &head)) {
            return Some(head);
        }
        let known = self.charters_of(id).into_iter().any(|charter| head.is_by_its_node(charter));
        known.then_some(head)
    }

    /// A head and the votes that its lock rests on. What no node of the cluster has signed is left out; after too much
    /// of that, the rest of the message is not worth checking.
    fn hear(&mut self, told: record::HeadNews) -> Result<(), Junk> {
        let raw = told.head.ok_or(Junk)?;
        let head = SignedHead::from_wire(raw.clone()).map_err(|_| Junk)?;
        let id = head.ceremony.clone();
        if head.node == self.node() {
            return Ok(());
        }
        if let Some(line) = self.shelf.get(&id) {
            if line.says_the_same(&head) {
                return Ok(());
            }
            self.checked(raw.clone(), &id).ok_or(Junk)?;
            let told = record::HeadNews { head: Some(raw), proof: told.proof };
            let again = record::News { heads: vec![told] }.encode_to_vec();
            self.hear_otherwise(&head, Event::Heads(again));
            return Ok(());
        }
        // One node's talk of ceremonies that nobody else knows must not drown what the others say.
        let is_its_word =
            |log: &&super::Log| log.tree.tip().seq == 0 && log.ballot.head_of(head.node).is_some();
        if !self.logs.contains_key(&id) && self.logs.values().filter(is_its_word).count() >= MAX_UNKNOWN {
            return Ok(());
        }
        let head = self.checked(raw, &id).ok_or(Junk)?;
        let (mut proof, mut voters) = (Vec::new(), BTreeSet::new());
        let mut unsigned = 0;
        for raw in told.proof.into_iter().take(MAX_HEADS) {
            // One vote of each counts: what else one node has signed is not worth checking.
            if !SignedHead::from_wire(raw.clone()).is_ok_and(|vote| voters.insert(vote.node)) {
                continue;
            }
            match self.checked(raw, &id) {
                Some(vote) => proof.push(vote),
                // A node that has not read an amendment yet does not know every voter.
                None if unsigned < MAX_STRANGERS => unsigned += 1,
                None => return Err(Junk),
            }
        }
        let (members, now) = (self.members(), self.now.steady);
        let log = self.log_of(&id);
        let lacks = !log.tree.knows(head.tip);
        let is_new = log.is_new(now);
        // Whoever stands elsewhere and still says so may have missed where this node stands.
        if (head.tip, head.lock) != (log.tree.tip(), log.ballot.memory().lock) {
            log.missed_at = now;
        }
        if log.ballot.hear(&log.tree, &members, head, proof) {
            if lacks && self.running.contains(&id) {
                self.plan_log(&id);
            }
            if lacks {
                self.plan(Work::Read);
            }
            self.plan(Work::Settle(id));
            self.duties_due |= is_new;
        }
        Ok(())
    }

    pub(super) fn heads(&mut self, bytes: &[u8]) {
        let Ok(news) = record::News::decode(bytes) else { return };
        self.hear_all(news);
    }

    fn hear_all(&mut self, news: record::News) {
        let mut junk = 0;
        for told in news.heads.into_iter().take(2 * MAX_HEADS) {
            if self.hear(told).is_err() {
                self.observed.junk += 1;
                junk += 1;
            }
            if junk > MAX_STRANGERS {
                return;
            }
        }
    }

    pub(super) fn tell(&mut self, to: NodeIndex, kind: to_peer::Kind) {
        let payload = record::ToPeer { version: VERSION, kind: Some(kind) }.encode_to_vec();
        self.publish(subject::peer(to, self.node()), payload);
    }

    /// Asks for the entries on which other nodes stand and that neither the stream nor any node has given yet; of each
    /// node, those that have waited longest.
    pub(super) fn ask_peers(&mut self) {
        let now = self.now.steady;
        let mut due: BTreeMap<NodeIndex, BTreeSet<(u64, CeremonyId, u64)>> = BTreeMap::new();
        for (id, log) in &self.logs {
            for need in log.ballot.needs(&log.tree) {
                let next = log.tree.tip().seq + 1;
                let first = if need.tip.seq >= next { next } else { 1 };
                let (at, from) = log.asked.get(&need.node).copied().unwrap_or((0, first));
                if at == 0 || now.saturating_sub(at) >= ASK_AGAIN_MS {
                    due.entry(need.node).or_default().insert((at, id.clone(), from));
                }
            }
        }
        for (node, logs) in due {
            for (_, id, from_seq) in logs.into_iter().take(MAX_ASKS) {
                // If what was asked for did not help, it is asked for from the beginning.
                self.log_of(&id).asked.insert(node, (now.max(1), 1));
                self.ask(node, &id, from_seq);
            }
        }
        self.compare();
    }

    /// Asks a node for its head in a ceremony, and for the entries from this number on.
    pub(super) fn ask(&mut self, node: NodeIndex, id: &CeremonyId, from_seq: u64) {
        self.tell(node, to_peer::Kind::Ask(record::Ask { ceremony: id.to_string(), from_seq }));
    }

    fn may_answer(&mut self, node: NodeIndex) -> bool {
        let now = self.now.steady;
        self.observed.peers.entry(node).or_default().answered.allows(now, MAX_ANSWERS)
    }

    /// Whether one more finished log may be recalled for what this node says.
    pub(super) fn may_recall_for(&mut self, node: NodeIndex) -> bool {
        let now = self.now.steady;
        self.observed.peers.entry(node).or_default().recalled.allows(now, MAX_RECALLS)
    }

    pub(super) fn hear_peer(&mut self, from: NodeIndex, bytes: &[u8]) {
        let Ok(record::ToPeer { version: VERSION, kind: Some(kind) }) = record::ToPeer::decode(bytes) else {
            return;
        };
        match kind {
            to_peer::Kind::Ask(_) | to_peer::Kind::AskList(_) | to_peer::Kind::Withdrawal(_)
                if !self.may_answer(from) => {}
            to_peer::Kind::Ask(ask) => self.give(from, ask),
            to_peer::Kind::Entries(entries) => self.given(from, entries),
            to_peer::Kind::AskList(ask) => self.give_list(from, &ask),
            to_peer::Kind::List(list) => self.listed(from, list),
            to_peer::Kind::Withdrawal(withdrawal) => self.hear_of_withdrawal(withdrawal),
        }
    }

    /// Somebody has withdrawn a ceremony at another node: it counts for what the person has signed.
    fn hear_of_withdrawal(&mut self, told: record::Withdrawal) {
        let (Ok(id), Some(event)) = (told.ceremony.parse::<CeremonyId>(), told.event) else { return };
        if self.is_on_its_way(&id, |pending| pending.event == event) {
            return;
        }
        if self.would_end(&id, &event) {
            self.append(&id, event, Wish::Console(None));
        }
    }

    fn give(&mut self, to: NodeIndex, ask: record::Ask) {
        let Ok(id) = ask.ceremony.parse::<CeremonyId>() else { return };
        if let Some(line) = self.shelf.get(&id) {
            if ask.from_seq > line.head.seq {
                let head = self.head_of_line(line).map(|head| news(&head, &[]));
                let answer = record::Entries { ceremony: ask.ceremony, entries: Vec::new(), head };
                return self.tell(to, to_peer::Kind::Entries(answer));
            }
            if !self.may_recall_for(to) {
                return;
            }
            let kind = Some(to_peer::Kind::Ask(ask));
            let again = record::ToPeer { version: VERSION, kind }.encode_to_vec();
            return self.recall(&id, Some(Then::Handle(Event::FromPeer(to, again))));
        }
        let Some((chapter, log)) = self.book.get(&id).zip(self.logs.get(&id)) else { return };
        let mut entries = requests::that_fit(&chapter.entries, ask.from_seq);
        // A node that asks from the beginning was not helped by this branch: what proves a lock may be on others.
        if ask.from_seq <= 1 && entries.len() == chapter.entries.len() {
            entries.extend(requests::that_fit_aside(&log.aside));
        }
        let head = log.shown.as_ref().map(|shown| news(shown, &log.ballot.memory().proof));
        let entries = record::Entries { ceremony: ask.ceremony.clone(), entries, head };
        self.tell(to, to_peer::Kind::Entries(entries));
    }

    fn given(&mut self, from: NodeIndex, given: record::Entries) {
        let Ok(id) = given.ceremony.parse::<CeremonyId>() else { return };
        let (now, peer) = (self.now.steady, self.observed.peers.entry(from).or_default());
        // Only what was asked for is accepted; what is too much at once is asked for again.
        let asked = self.logs.get_mut(&id).and_then(|log| log.asked.get_mut(&from));
        let Some(asked) = asked else { return };
        let entries: Vec<Entry> = given
            .entries
            .into_iter()
            .take(peer.given.left(now, MAX_GIVEN))
            .map_while(|raw| Entry::from_wire(raw).ok())
            .take_while(|entry| entry.ceremony == id)
            .collect();
        peer.given.done += entries.len();
        if let Some(last) = entries.last() {
            *asked = (asked.0, last.seq.saturating_add(1));
        }
        for entry in entries {
            self.plan(Work::Take(Box::new(entry)));
        }
        if given.head.is_some_and(|head| self.hear(head).is_err()) {
            self.observed.junk += 1;
        }
        self.plan(Work::Settle(id));
    }

    /// A heartbeat tells that a node lives, and whether it has the same record.
    pub(super) fn peer_heartbeat(&mut self, bytes: &[u8]) {
        let charter = self.book.context().charter();
        let Ok((node, body)) = said::hear(charter, Topic::Heartbeat, bytes) else { return };
        let Ok(heartbeat) = bus::Heartbeat::decode(body.as_slice()) else { return };
        if node == self.node() || heartbeat.node != u32::from(node) {
            return;
        }
        let (now, same) = (self.now.steady, heartbeat.record_digest == self.record_digest());
        let latest = self.now.wall.plus(MAX_AHEAD_MS);
        let peer = self.observed.peers.entry(node).or_default();
        // Differing records are followed up whatever the heartbeat's time: a clock may have been set back.
        peer.differs_since = if same { None } else { peer.differs_since.or(Some(now)) };
        // One that was heard before is a replay, not a sign of life. A clock that was far ahead must not make all that
        // follows look like one.
        if heartbeat.time_ms > peer.time_ms {
            (peer.heard, peer.time_ms) = (Some(now), heartbeat.time_ms.min(latest.0));
        }
    }

    /// Compares heads with nodes whose record has differed for a while.
    fn compare(&mut self) {
        let now = self.now.steady;
        let old = |at: Option<u64>| at.is_some_and(|at| now.saturating_sub(at) >= COMPARE_MS);
        let mut differ = Vec::new();
        for (node, peer) in &mut self.observed.peers {
            if old(peer.differs_since) && (peer.compared_at.is_none() || old(peer.compared_at)) {
                peer.compared_at = Some(now);
                differ.push(*node);
            }
        }
        for node in differ {
            self.tell(node, to_peer::Kind::AskList(record::AskList { after: String::new() }));
        }
    }

    fn give_list(&mut self, to: NodeIndex, ask: &record::AskList) {
        let follows = |id: &CeremonyId| id.as_str() > ask.after.as_str();
        let shown = self.logs.iter().filter(|(id, log)| follows(id) && log.shown.is_some());
        let lines = self.shelf.iter().map(|line| &line.ceremony).filter(|id| follows(id));
        let mut ids: BTreeSet<&CeremonyId> = shown.map(|(id, _)| id).take(MAX_HEADS).collect();
        ids.extend(lines.take(MAX_HEADS));
        let head = |id: &CeremonyId| match self.shelf.get(id) {
            Some(line) => self.head_of_line(line),
            None => self.logs.get(id)?.shown.clone(),
        };
        let heads = ids.into_iter().take(MAX_HEADS).filter_map(head).map(|head| news(&head, &[]));
        let list = record::News { heads: heads.collect() };
        self.tell(to, to_peer::Kind::List(list));
    }

    fn listed(&mut self, from: NodeIndex, page: record::News) {
        let end = page.heads.last().and_then(|told| told.head.clone());
        let end = end.and_then(|raw| SignedHead::from_wire(raw).ok()).map(|head| head.ceremony.to_string());
        let is_full = page.heads.len() >= MAX_HEADS;
        let was_asked = self.observed.peers.get(&from).is_some_and(|peer| peer.compared_at.is_some());
        if !was_asked {
            return;
        }
        self.hear_all(page);
        if let Some(after) = end.filter(|_| is_full) {
            self.tell(from, to_peer::Kind::AskList(record::AskList { after }));
        }
    }

    /// Sum of the hashes of all heads, modulo 2^256. A hint: two nodes whose sums differ compare their heads.
    pub(super) fn record_digest(&self) -> Vec<u8> {
        let mut sum = self.shelf.sum();
        for log in self.logs.values() {
            sum.add(&log.tree.tip().hash);
        }
        sum.to_vec()
    }
}
