//! Appending to the log: first the fold, then the stream, then this node's store.

use ceremonies::book::{Examined, NotTaken};
use ceremonies::ceremony::{Phase, Rejection};
use ceremonies::ids::{CeremonyId, Hash, Line};
use ceremonies::log::{Entry, EntryError, Event, Place};
use ceremonies::text::chain;
use ceremonies::wire::record::{self, to_peer};
use ceremonies::wire::{bus, log};
use thiserror::Error;
use tracing::{info, warn};

use super::writer::{Then, Work, Writer};
use super::{Core, Effect, Request, StoreOp, StreamError, shelf};

/// How often an append gives way to entries that other agents appended first. If five agents all answer one entry at
/// once, the last gets through on the fifth try.
const MAX_TRIES: u32 = 24;
/// The most events that may wait in one ceremony: what its people and this node's enclave say at once, with room.
const MAX_PENDING: usize = 64;
/// How long an event that does not get through rests before it is tried again, in milliseconds.
const REST_MS: u64 = 800;
/// How long until the stream is asked again whether it has room for a log, in milliseconds; and where the ceremony is over.
/// It has room once it is made anew, which is noticed otherwise, or if the broker lied.
const FULL_MS: u64 = 8000;
const FULL_AND_OVER_MS: u64 = 10 * 60 * 1000;
/// How long a node lets each of those before it append first, where the stream orders nothing, in milliseconds: what one
/// appends is with the others sooner.
const TURN_MS: u64 = 1500;
/// How long an event that nobody waits for any more is kept although the fold refuses it, in milliseconds: what it
/// follows from may be in other nodes' logs, and arrives when the broker or they give it.
const REFUSED_MS: u64 = 60_000;

/// What a console is told of a withdrawal that is not in the log yet.
const HELD: &str = "not appended yet, but this node does nothing more in it";

/// Whose wish an append is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// A console's event, for which it awaits an answer; none once it has been answered.
    Console(Option<Box<Request>>),
    /// The same, of one that ends the ceremony: a withdrawal that the fold accepts.
    Withdrawal(Option<Box<Request>>),
    /// This node's own: the fold finds it again if it does not get through.
    Own,
    /// Said once, by the enclave or about it: no duty finds it again.
    Once,
    /// An event of an abandoned branch.
    Again,
}

/// An event that is to be appended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pending {
    pub(super) event: log::Event,
    pub(super) wish: Wish,
    /// How often it gave way to others.
    tries: u32,
    /// Whether the stream was read to its end since the fold refused it.
    has_read: bool,
    /// Whether messages that were passed over have been read once more for its sake: a flood must not put it off for
    /// ever.
    has_reread: bool,
    /// Whether it has waited for its turn, where the stream orders nothing.
    has_queued: bool,
    /// When it may be tried again.
    rests_until: u64,
    /// When the fold first refused it.
    refused_at: Option<u64>,
}

impl Pending {
    /// Whether it ends the ceremony.
    fn ends(&self) -> bool {
        matches!(self.wish, Wish::Withdrawal(_))
    }

    /// Nobody waits for an answer any more.
    fn is_answered(&mut self) {
        if let Wish::Console(request) | Wish::Withdrawal(request) = &mut self.wish {
            *request = None;
        }
    }
}

#[derive(Debug, Error)]
enum MakeError {
    #[error("the event is malformed")]
    Malformed(#[from] EntryError),
    #[error("the entry could not be signed")]
    Signing(#[from] nkeys::error::Error),
}

/// Whether the fold has the same event already, so that nothing is left to do.
fn is_known(refused: &NotTaken) -> bool {
    let NotTaken::Rejected { source, .. } = refused else { return false };
    matches!(
        **source,
        Rejection::SaidAlready(_) | Rejection::AttestedAlready(_) | Rejection::SignedAlready { .. }
    )
}

impl Core {
    /// Plans an append. An event that is already waiting is not planned again.
    pub(super) fn append(&mut self, id: &CeremonyId, event: log::Event, wish: Wish) {
        if self.shelf.has(id) {
            return self.recall(id, Some(shelf::Then::Append(event, wish)));
        }
        let waits = self.log_of(id).pending.iter().any(|pending| pending.event == event);
        let is_console = matches!(wish, Wish::Console(_));
        if waits && !is_console {
            return;
        }
        let wish = if self.would_end(id, &event) { self.hold(id, wish) } else { wish };
        let waiting = self.log_of(id).pending.len();
        let pending = Pending {
            event,
            wish,
            tries: 0,
            has_read: false,
            has_reread: false,
            has_queued: false,
            rests_until: 0,
            refused_at: None,
        };
        // What nodes and people have signed already must not be lost; a console can ask again.
        let may_wait = match &pending.wish {
            Wish::Console(_) => waiting < MAX_PENDING,
            Wish::Withdrawal(_) => waiting < 2 * MAX_PENDING,
            Wish::Own | Wish::Once | Wish::Again => true,
        };
        if !may_wait {
            self.is_unknown(&pending, "too many events are waiting to be appended here");
            return;
        }
        self.log_of(id).pending.push_back(pending);
        self.plan(Work::Append(id.clone()));
    }

    /// Whether an event ends its ceremony: a withdrawal that is valid as far as this node's log goes.
    pub(super) fn would_end(&self, id: &CeremonyId, event: &log::Event) -> bool {
        if !matches!(event.kind, Some(log::event::Kind::Withdrawn(_))) || self.book.get(id).is_none() {
            return false;
        }
        let examined = self.make_entry(id, event.clone()).map(|entry| self.book.examine(entry));
        let Ok(Ok(Examined::New(next))) = examined else { return false };
        matches!(next.ceremony().phase_at(self.now.wall), Phase::Void(_))
    }

    /// Whether a withdrawal of this ceremony is on its way into the log.
    pub(super) fn is_being_ended(&self, id: &CeremonyId) -> bool {
        self.is_on_its_way(id, Pending::ends)
    }

    /// Whoever withdraws a ceremony does not wait until the withdrawal is recorded, which the broker or a host may put off:
    /// this node's enclave gives up at once what it does in it. The other nodes hear of it at the next look, if it is not
    /// recorded by then.
    fn hold(&mut self, id: &CeremonyId, wish: Wish) -> Wish {
        if !self.is_being_ended(id) {
            info!(ceremony = %id, "withdrawn: nothing more is done in it until that is recorded");
            if self.own.is_some() {
                self.stop_enclave(id);
            }
        }
        match wish {
            Wish::Console(request) | Wish::Withdrawal(request) => Wish::Withdrawal(request),
            Wish::Own | Wish::Once | Wish::Again => Wish::Withdrawal(None),
        }
    }

    /// What could not be appended at once: whoever waits for an answer learns that the withdrawal is heeded all the same, and
    /// the other nodes are told of it.
    fn report_withdrawals(&mut self, id: &CeremonyId) {
        let Some(log) = self.logs.get_mut(id) else { return };
        let mut waiting: Vec<Pending> = Vec::new();
        for pending in log.pending.iter_mut().filter(|pending| pending.ends()) {
            waiting.push(pending.clone());
            pending.is_answered();
        }
        let mut others = self.members();
        others.remove(&self.node());
        for pending in &waiting {
            self.is_unknown(pending, HELD);
        }
        let Some(pending) = waiting.into_iter().next() else { return };
        let withdrawal = record::Withdrawal { ceremony: id.to_string(), event: Some(pending.event) };
        for node in others {
            self.tell(node, to_peer::Kind::Withdrawal(withdrawal.clone()));
        }
    }

    pub(super) fn append_own(&mut self, id: &CeremonyId, event: Event) {
        self.append(id, event.into(), Wish::Own);
    }

    pub(super) fn append_once(&mut self, id: &CeremonyId, kind: log::event::Kind) {
        self.append(id, log::Event { kind: Some(kind) }, Wish::Once);
    }

    pub(super) fn fault(&mut self, id: &CeremonyId, reason: &str) {
        let faulted = Event::Faulted { node: self.node(), reason: Line::lossy(reason) };
        self.append(id, faulted.into(), Wish::Once);
    }

    pub(super) fn append_what_was_left(&mut self, id: &CeremonyId, left: &[Entry]) {
        let stands: Vec<log::Event> = self
            .book
            .get(id)
            .map(|chapter| chapter.entries.iter().filter_map(Self::event_of).collect())
            .unwrap_or_default();
        for event in left.iter().filter_map(Self::event_of).filter(|event| !stands.contains(event)) {
            self.append(id, event, Wish::Again);
        }
    }

    /// Tries everything that is waiting again.
    pub(super) fn append_again(&mut self) {
        let waiting: Vec<CeremonyId> =
            self.logs.iter().filter(|(_, log)| !log.pending.is_empty()).map(|(id, _)| id.clone()).collect();
        for id in waiting {
            self.report_withdrawals(&id);
            self.plan(Work::Append(id));
        }
        if self.stream.is_read() {
            let short: Vec<CeremonyId> = self
                .logs
                .iter()
                .filter(|(_, log)| {
                    log.have < log.tree.tip().seq && log.ballot.votes() && !log.is_full(self.now.steady)
                })
                .map(|(id, _)| id.clone())
                .collect();
            for id in &short {
                self.log_of(id).conflicts = 0;
            }
            if !self.shelf.is_short_of_makers() {
                for id in self.in_order(short).into_iter().chain(self.shelf.short()) {
                    self.plan(Work::Restore(id));
                }
            }
        }
    }

    fn make_entry(&self, id: &CeremonyId, event: log::Event) -> Result<Entry, MakeError> {
        let head = self.book.get(id).map(|chapter| chapter.ceremony.head());
        let place = Place {
            ceremony: id.clone(),
            seq: head.map_or(1, |head| head.seq + 1),
            prev: head.map_or(Hash::ZERO, |head| head.hash),
            time: head.map_or(self.now.wall, |head| self.now.wall.max(head.time)),
            node: self.node(),
        };
        Entry::create(place, event, |message| self.identity.sign(message).map_err(MakeError::from))
    }

    /// Tries to append what has waited longest, and plans the next.
    pub(super) fn append_next(&mut self, id: &CeremonyId) {
        let now = self.now.steady;
        let Some(log) = self.logs.get_mut(id) else { return };
        let is_ending = log.pending.iter().any(Pending::ends);
        // Nothing is appended before what ends the ceremony.
        let is_next = |pending: &Pending| pending.rests_until <= now && (pending.ends() || !is_ending);
        let next = log.pending.iter().position(is_next);
        let Some(mut pending) = next.and_then(|next| log.pending.remove(next)) else { return };
        if !log.pending.is_empty() {
            self.plan(Work::Append(id.clone()));
        }
        let Some(log) = self.logs.get(id) else { return };
        // A withdrawal follows from its own log alone, and the broker refuses it if this node has not read that to its end.
        let is_whole = pending.ends() && self.stream.is_usable() && log.have == log.tree.tip().seq;
        if !log.ballot.votes() || !(self.stream.is_read() || is_whole) {
            let why = self.stream.trouble().unwrap_or_else(|| "the nodes disagree about this log".to_owned());
            let yet = if pending.ends() { HELD } else { "not appended yet" };
            self.is_unknown(&pending, &format!("{yet}: {why}"));
            return self.wait_on(id, pending);
        }
        if log.is_full(now) && !pending.has_queued {
            return self.queue(id, pending);
        }
        if !pending.has_reread && self.reread(id) {
            pending.has_reread = true;
            self.log_of(id).pending.push_front(pending);
            return self.plan(Work::Append(id.clone()));
        }
        let entry = match self.make_entry(id, pending.event.clone()) {
            Ok(entry) => entry,
            Err(error) => return self.is_dropped(id, &pending, &chain(&error)),
        };
        match self.book.examine(entry) {
            Ok(Examined::New(next)) => self.send_to_stream(id, next, pending),
            Ok(Examined::Known) => self.wait_on(id, pending),
            Err(refused) if is_known(&refused) || self.place_of(id, &pending.event).is_some() => {
                self.is_there_already(id, &pending, &refused);
            }
            // What this node has not read yet may make the event valid.
            Err(_) if !pending.has_read => {
                pending.has_read = true;
                self.log_of(id).pending.push_front(pending);
                self.plan_log(id);
                self.plan(Work::Read);
                self.plan(Work::Append(id.clone()));
            }
            Err(refused) => self.is_refused(id, pending, &chain(&refused)),
        }
    }

    /// Reads once more the messages that were passed over, if there are any: one may be an entry that was damaged on
    /// its way here, and appending after it without having it would fork the log.
    fn reread(&mut self, id: &CeremonyId) -> bool {
        let read_to = self.log_read_to(id);
        let log = self.log_of(id);
        let Some(first) = log.doubted.take() else { return false };
        log.reread_to = read_to;
        self.plan_first(Work::ReadLog(id.clone(), first.saturating_sub(1)));
        true
    }

    fn send_to_stream(&mut self, id: &CeremonyId, next: Box<ceremonies::book::Next>, pending: Pending) {
        let (read_to, now) = (self.log_read_to(id), self.now.steady);
        let log = self.log_of(id);
        if log.is_full(now) {
            return self.keep_without_stream(next, pending);
        }
        if log.have + 1 < next.entry().seq {
            // The stream has lost entries that this node has.
            log.pending.push_front(pending);
            self.plan(Work::Restore(id.clone()));
            self.plan(Work::Append(id.clone()));
            return;
        }
        let expected = log.last;
        let entry = next.entry().encode();
        self.writer = Writer::Appending(next, Box::new(pending));
        self.effect(Effect::Append { ceremony: id.clone(), expected, read_to, entry });
    }

    /// What became of the entry that was on its way into the stream.
    pub(super) fn appended(&mut self, result: Result<u64, StreamError>) {
        match std::mem::replace(&mut self.writer, Writer::Idle) {
            Writer::Appending(next, pending) => self.own_appended(next, *pending, result),
            Writer::Restoring(id, seq) => self.restored(&id, seq, result),
            other @ (Writer::Idle | Writer::Reading(_) | Writer::Recalling(_) | Writer::Storing { .. }) => {
                self.writer = other;
            }
        }
    }

    fn own_appended(
        &mut self,
        next: Box<ceremonies::book::Next>,
        mut pending: Pending,
        result: Result<u64, StreamError>,
    ) {
        let id = next.entry().ceremony.clone();
        match result {
            Ok(stream) => {
                let op = StoreOp::Append(next.entry().clone());
                self.write(op, Then::Commit(next, Some(stream), Some(Box::new(pending))));
            }
            Err(StreamError::Full) => {
                self.found_full(&id);
                self.log_of(&id).pending.push_front(pending);
                self.plan_first(Work::Append(id));
            }
            Err(StreamError::Conflict) => {
                // What the broker said earlier about this subject's last message may have been wrong.
                let log = self.log_of(&id);
                (log.last, log.read_to) = (None, 0);
                pending.tries += 1;
                if pending.tries > MAX_TRIES {
                    self.is_unknown(&pending, "the log grew faster than this node could append");
                    pending.tries = 0;
                    return self.wait_on(&id, pending);
                }
                self.log_of(&id).pending.push_front(pending);
                self.plan_first(Work::Append(id.clone()));
                self.plan_log_first(&id);
            }
            Err(error) => {
                self.stream.failed(&error);
                self.is_unknown(&pending, &error.to_string());
                self.wait_on(&id, pending);
                self.plan(Work::Read);
            }
        }
    }

    /// Without the stream to order them, nodes append one after another, and have the entries from each other: those that
    /// append at once would have to settle between themselves which comes first.
    fn queue(&mut self, id: &CeremonyId, mut pending: Pending) {
        let before = self.members().range(..self.node()).count();
        pending.has_queued = true;
        pending.rests_until =
            self.now.steady + u64::try_from(before).unwrap_or(u64::MAX).saturating_mul(TURN_MS);
        self.log_of(id).pending.push_back(pending);
        self.plan(Work::Append(id.clone()));
    }

    fn keep_without_stream(&mut self, next: Box<ceremonies::book::Next>, pending: Pending) {
        let op = StoreOp::Append(next.entry().clone());
        self.write(op, Then::Commit(next, None, Some(Box::new(pending))));
    }

    fn found_full(&mut self, id: &CeremonyId) {
        let now = self.now.steady;
        let rests = if self.running.contains(id) { FULL_MS } else { FULL_AND_OVER_MS };
        let log = self.log_of(id);
        if log.full_until == 0 {
            warn!(ceremony = %id, "somebody has filled its place in the stream: nodes keep the rest of its log among themselves");
        }
        log.full_until = now + rests;
    }

    /// Gives the stream the next entry of a log that it lacks.
    pub(super) fn restore(&mut self, id: &CeremonyId) {
        let read_to = self.log_read_to(id);
        let now = self.now.steady;
        let Some(log) = self.logs.get(id).filter(|log| self.stream.is_read() && !log.is_full(now)) else {
            return;
        };
        let lost = usize::try_from(log.have).ok().zip(self.book.get(id));
        let Some(entry) = lost.and_then(|(have, chapter)| chapter.entries.get(have)) else { return };
        let effect =
            Effect::Append { ceremony: id.clone(), expected: log.last, read_to, entry: entry.encode() };
        self.writer = Writer::Restoring(id.clone(), entry.seq);
        self.effect(effect);
    }

    fn restored(&mut self, id: &CeremonyId, seq: u64, result: Result<u64, StreamError>) {
        match result {
            Ok(stream) => {
                info!(ceremony = %id, seq, "appended again an entry that the stream lacked");
                let log = self.log_of(id);
                (log.last, log.conflicts) = (Some(stream), 0);
                log.have = log.have.max(seq);
                self.plan_first(Work::Restore(id.clone()));
            }
            Err(StreamError::Full) => self.found_full(id),
            // Another node was quicker; what it appended is read now. Nothing that rests on this log goes on before it.
            Err(StreamError::Conflict) => {
                let log = self.log_of(id);
                log.last = None;
                log.conflicts += 1;
                if log.conflicts <= MAX_TRIES {
                    self.plan_first(Work::Restore(id.clone()));
                }
                self.plan_log_first(id);
            }
            Err(error) => {
                self.stream.failed(&error);
                warn!(ceremony = %id, %error, "could not append an entry that the stream lacks");
            }
        }
    }

    /// Puts an event back at the end of the queue, to be tried at the next look.
    fn wait_on(&mut self, id: &CeremonyId, mut pending: Pending) {
        pending.is_answered();
        pending.rests_until = self.now.steady + REST_MS;
        if pending.wish != Wish::Own {
            self.log_of(id).pending.push_back(pending);
        }
    }

    fn answer_submit(&mut self, pending: &Pending, outcome: bus::submit_reply::Outcome) {
        if let Wish::Console(Some(request)) | Wish::Withdrawal(Some(request)) = &pending.wish {
            let request = request.clone();
            self.answer(&request, &bus::SubmitReply { outcome: Some(outcome) });
        }
    }

    pub(super) fn is_appended(&mut self, pending: &Pending, seq: u64) {
        self.answer_submit(pending, bus::submit_reply::Outcome::Seq(seq));
    }

    /// A console is told that this node cannot tell.
    pub(super) fn is_unknown(&mut self, pending: &Pending, why: &str) {
        self.answer_submit(pending, bus::submit_reply::Outcome::Unknown(why.to_owned()));
    }

    /// The number of the entry that holds this very event.
    fn place_of(&self, id: &CeremonyId, event: &log::Event) -> Option<u64> {
        let entries = &self.book.get(id)?.entries;
        entries.iter().find(|entry| Self::event_of(entry).as_ref() == Some(event)).map(|entry| entry.seq)
    }

    /// That very event may be there, or another that says the same.
    fn is_there_already(&mut self, id: &CeremonyId, pending: &Pending, refused: &NotTaken) {
        match self.place_of(id, &pending.event) {
            Some(seq) => self.is_appended(pending, seq),
            None => self.is_dropped(id, pending, &chain(refused)),
        }
    }

    /// Whoever waits for an answer is told at once. An event that nobody waits for any more was accepted in somebody's
    /// name: it is kept while what it follows from may yet arrive.
    fn is_refused(&mut self, id: &CeremonyId, mut pending: Pending, why: &str) {
        let now = self.now.steady;
        let at = *pending.refused_at.get_or_insert(now);
        if let Wish::Withdrawal(request) = pending.wish {
            pending.wish = Wish::Console(request);
        }
        let may_be_right = now.saturating_sub(at) < REFUSED_MS || !self.is_settled(id);
        let is_kept = match &pending.wish {
            Wish::Console(request) | Wish::Withdrawal(request) => request.is_none(),
            Wish::Own => false,
            Wish::Once | Wish::Again => true,
        };
        if is_kept && may_be_right {
            pending.has_read = false;
            return self.wait_on(id, pending);
        }
        self.is_dropped(id, &pending, why);
    }

    fn is_dropped(&mut self, id: &CeremonyId, pending: &Pending, why: &str) {
        match &pending.wish {
            Wish::Console(_) | Wish::Withdrawal(_) => {
                self.answer_submit(pending, bus::submit_reply::Outcome::Rejection(why.to_owned()));
            }
            Wish::Own | Wish::Once => warn!(ceremony = %id, %why, "not appended"),
            Wish::Again => warn!(ceremony = %id, %why, "event of the other branch refused"),
        }
    }
}
