//! Where this node stands in each ceremony: announcing it, locking what a quorum votes for, and healing forks.

use ceremonies::deploy::subject;
use ceremonies::ids::CeremonyId;
use ceremonies::record::{Head, SignedHead, quorum};
use ceremonies::wire::record;
use prost::Message;
use tracing::{error, warn};

use super::writer::{Then, Work};
use super::{Core, Log, StoreOp};

/// How long an entry may stay without being recorded while nodes disagree, before this node leaves the round, in
/// milliseconds: some ten times what votes take to get round.
const STUCK_MS: u64 = 2000;
/// How long a node that has left a round waits for the others before it votes without them, in milliseconds.
const GATHER_MS: u64 = 1000;
/// How long a head is repeated after a change, and after another node stood elsewhere, in milliseconds.
const WARM_MS: u64 = 60_000;
/// Most heads in one message.
pub(super) const MAX_HEADS: usize = 64;

impl Core {
    /// Signs and shows where this node stands, if that has changed. What it says has already been stored.
    pub(super) fn state(&mut self, id: &CeremonyId) {
        let Some(log) = self.logs.get(id).filter(|log| log.tree.tip().seq > 0) else { return };
        let memory = log.ballot.memory();
        let head = Head {
            cluster: self.identity.charter.cluster().clone(),
            ceremony: id.clone(),
            node: self.node(),
            round: memory.round,
            votes: !memory.undecided,
            tip: log.tree.tip(),
            lock: memory.lock,
            time: self.now.wall,
        };
        let same = |shown: &SignedHead| Head { time: head.time, ..shown.head().clone() } == head;
        if log.shown.as_ref().is_some_and(same) {
            return;
        }
        let signed = match SignedHead::create(head, |message| self.identity.sign(message)) {
            Ok(signed) => signed,
            Err(error) => {
                error!(ceremony = %id, %error, "head not signed");
                return;
            }
        };
        let (members, now) = (self.members(), self.now.steady);
        let log = self.log_of(id);
        let proof = log.ballot.memory().proof.clone();
        log.ballot.hear(&log.tree, &members, signed.clone(), proof);
        log.shown = Some(signed);
        log.changed_at = now;
        self.show(std::slice::from_ref(id));
    }

    /// Announces where this node stands in these ceremonies and, if nodes disagree, where it heard that the others
    /// stand.
    pub(super) fn show(&mut self, ids: &[CeremonyId]) {
        let mut heads = Vec::new();
        for log in ids.iter().filter_map(|id| self.logs.get(id)) {
            let contested = !log.ballot.votes() || !log.aside.is_empty();
            if contested {
                heads.extend(log.ballot.passed_on().map(|(head, proof)| news(head, proof)));
            } else {
                heads.extend(log.ballot.head_of(self.node()).map(|head| news(head, &[])));
            }
        }
        for part in heads.chunks(MAX_HEADS) {
            let payload = record::News { heads: part.to_vec() }.encode_to_vec();
            self.publish(subject::head(self.node()), payload);
        }
    }

    /// What follows from a ballot now: one step at a time, each stored before the next.
    pub(super) fn settle(&mut self, id: &CeremonyId) {
        self.unsettled.insert(id.clone());
        self.state(id);
        let (members, now) = (self.members(), self.now.steady);
        let Some(log) = self.logs.get_mut(id).filter(|log| log.tree.tip().seq > 0) else { return };
        if log.ballot.lock(&log.tree, &members) {
            log.unlocked_since = now;
            return self.remember_ballot(id);
        }
        if log.ballot.votes() {
            // What was recorded before it was shelved is so still, whatever old heads somebody repeats since.
            let is_overdue = now.saturating_sub(log.unlocked_since) > STUCK_MS && !log.is_as_recalled();
            if let Some(next) = log.ballot.next_round(&log.tree, &members, is_overdue) {
                let opponents = log.ballot.opponents(&log.tree, &members);
                warn!(ceremony = %id, round = next, ?opponents, "the nodes disagree about the log: starting a new \
                    round");
                log.ballot.leave(next);
                log.left_at = now;
                self.remember_ballot(id);
            }
            return;
        }
        self.choose(id);
    }

    fn choose(&mut self, id: &CeremonyId) {
        let (members, now) = (self.members(), self.now.steady);
        let Some(log) = self.logs.get(id) else { return };
        let commits = |tip| {
            let folded = self.entries_of(id, tip).map(|entries| self.book.fold_branch(&entries));
            folded.is_some_and(|folded| folded.is_ok_and(|ceremony| ceremony.committed().is_some()))
        };
        let tip = log.ballot.choose(&log.tree, &members, commits);
        if tip != log.tree.tip() {
            // A branch that is incomplete here, or does not fold, would replace one that does.
            let folds = |entries: &Vec<_>| self.book.fold_branch(entries).is_ok();
            let whole = self.entries_of(id, tip).filter(folds);
            let Some((keep, entries)) = log.tree.shared(tip).zip(whole) else {
                return warn!(ceremony = %id, seq = tip.seq, "the branch to switch to does not fold here");
            };
            let entries: Vec<_> = entries.into_iter().filter(|entry| entry.seq > keep).collect();
            let op =
                StoreOp::Switch { ceremony: id.clone(), keep, entries, memory: log.ballot.memory().clone() };
            return self.write(op, Then::Switched(id.clone(), tip));
        }
        let all_here = log.ballot.arrived(&members) >= quorum(members.len());
        if all_here || now.saturating_sub(log.left_at) > GATHER_MS {
            let log = self.log_of(id);
            log.ballot.vote();
            log.unlocked_since = now;
            self.remember_ballot(id);
        }
    }

    fn remember_ballot(&mut self, id: &CeremonyId) {
        let Some(log) = self.logs.get(id) else { return };
        let op = StoreOp::Remember(id.clone(), log.ballot.memory().clone());
        self.write(op, Then::Settle(id.clone()));
    }

    /// Whether the nodes agree about a log, as far as this one knows: nothing is done on a log about which they do not.
    pub(super) fn is_settled(&self, id: &CeremonyId) -> bool {
        self.logs.get(id).is_some_and(|log| log.ballot.is_settled(&log.tree, &self.members()))
    }

    /// What only time moves: rounds that nobody ends. A log that would not move however long nothing arrives is not
    /// looked at again until something does, so that history costs nothing here.
    pub(super) fn settle_again(&mut self) {
        let members = self.members();
        let moves = |log: &Log| {
            let would_be_overdue = !log.is_as_recalled();
            !log.ballot.votes() || log.ballot.next_round(&log.tree, &members, would_be_overdue).is_some()
        };
        let logs = &self.logs;
        self.unsettled.retain(|id| logs.get(id).is_some_and(moves));
        for id in self.unsettled.clone() {
            self.plan(Work::Settle(id));
        }
    }

    /// Heads are news and may be lost: they are repeated until this node has locked its log, and for a while longer if not
    /// every node shares them. Where there are many, all have their turn.
    pub(super) fn repeat_heads(&mut self) {
        let (now, members) = (self.now.steady, self.members().len());
        let differs = |log: &Log| {
            let mine = (log.tree.tip(), log.ballot.memory().lock);
            log.ballot.heads().filter(|(head, _)| (head.tip, head.lock) == mine).count() < members
        };
        let is_warm =
            |log: &Log| now.saturating_sub(log.changed_at.max(log.missed_at)) < WARM_MS && differs(log);
        let is_due = |(_, log): &(&CeremonyId, &Log)| {
            log.shown.is_some() && (!log.ballot.votes() || !log.is_locked() || is_warm(log))
        };
        let last = self.repeated_to.take();
        let (turn, others): (Vec<_>, Vec<_>) =
            self.logs.iter().filter(is_due).map(|(id, _)| id).partition(|id| Some(*id) > last.as_ref());
        let ids: Vec<CeremonyId> = turn.into_iter().chain(others).take(MAX_HEADS).cloned().collect();
        if !ids.is_empty() {
            self.show(&ids);
        }
        self.repeated_to = ids.into_iter().last();
    }
}

pub(super) fn news(head: &SignedHead, proof: &[SignedHead]) -> record::HeadNews {
    record::HeadNews {
        head: Some(head.raw().clone()),
        proof: proof.iter().map(|head| head.raw().clone()).collect(),
    }
}
