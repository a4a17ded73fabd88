//! The agents of a schedule: how they start and die, what their cores ask for, and what they are told.

use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use ceremonies::log::Entry;
use enclave_link::message::Credentials;
use node::core::{Effect, Event, Object, StoreOp, StoreReply, StreamError, TICK_MS};

use super::charter::NODES;
use super::world::{Happening, Slip, World};
use crate::host::store::{Order, Store};
use crate::host::stream::{Stream, unavailable};
use crate::host::{Message, Published, StreamOp};
use crate::simulation::charter::node;

/// How long backups are locked by the charter, in milliseconds.
const LOCK_MS: i64 = 30 * 24 * 3_600_000;

impl World {
    pub(super) fn start(&mut self, at: usize) {
        if self.core(at).is_some() {
            return;
        }
        let time = (self.now, self.wall());
        let host = &mut self.nodes[at].host;
        host.start(at, (&self.context, Order::Lineage), self.pace, time);
        let boot = host.boot;
        let known = host.core.iter().flat_map(|core| core.book().iter());
        let known: Vec<CeremonyId> = known.map(|(id, _)| id.clone()).collect();
        self.note(|| format!("agent {} starts", node(at)));
        for id in known {
            self.note_commits(at, &id);
        }
        self.within(1..TICK_MS, Happening::Tick(at, boot));
        self.within(10..300, Happening::Link(at));
        if !self.nodes[at].is_cut {
            self.feed(at, Event::Connected);
        }
    }

    /// The agent's process ends.
    pub(super) fn crash(&mut self, at: usize) {
        if self.core(at).is_none() {
            return;
        }
        self.note(|| format!("agent {} dies", node(at)));
        self.tally.restarts += 1;
        // What the store was about to do may still be done.
        if self.below(2) == 0
            && let Some((_, op)) = self.nodes[at].host.store_ops.pop_front()
        {
            let _ = self.perform_in_store(at, op);
        }
        self.nodes[at].host.stop();
        self.nodes[at].to_agent.clear();
        self.disconnect_enclave(at);
        self.within(50..3000, Happening::Start(at));
    }

    pub(super) fn lose_store(&mut self, at: usize) {
        self.note(|| format!("the store of {} is lost", node(at)));
        self.tally.lost_stores += 1;
        self.crash(at);
        let node = &mut self.nodes[at];
        node.owes.extend(node.host.store.tips().into_iter().map(|(id, (seq, _))| (id, seq)));
        node.host.store = Store::default();
        node.excused = self.opened;
    }

    /// Whether a node still lacks what went with its store.
    pub(super) fn is_catching_up(&self, at: usize) -> bool {
        let tips = self.nodes[at].host.store.tips();
        self.nodes[at].owes.iter().any(|(id, seq)| tips.get(id).is_none_or(|(has, _)| has < seq))
    }

    /// The broker comes back with less than it had acknowledged.
    pub(super) fn lose_tail(&mut self, tail: u64) {
        self.note(|| format!("the broker loses {tail} messages"));
        self.tally.lost_tails += 1;
        self.stream.shorten(tail);
        for at in 0..NODES {
            self.disconnect(at);
        }
    }

    /// The broker comes back with an empty stream.
    pub(super) fn lose_stream(&mut self) {
        self.stream = Stream::new();
        for at in 0..NODES {
            self.disconnect(at);
        }
    }

    /// The broker is out of a node's reach for a while.
    pub(super) fn disconnect(&mut self, at: usize) {
        if self.nodes[at].is_cut {
            return;
        }
        self.note(|| format!("{} is cut off", node(at)));
        self.nodes[at].is_cut = true;
        self.feed(at, Event::Disconnected);
        self.within(50..3000, Happening::Connect(at));
    }

    pub(super) fn connect(&mut self, at: usize) {
        if std::mem::take(&mut self.nodes[at].is_cut) {
            self.feed(at, Event::Connected);
        }
    }

    /// Tells a core what happened and does what it asks for, unless the agent dies on the way.
    pub(super) fn feed(&mut self, at: usize, event: Event) {
        let moment = self.nodes[at].host.moment(self.now, self.wall());
        let _span = self.is_told.then(|| tracing::info_span!("agent", node = %node(at)).entered());
        let Some(core) = &mut self.nodes[at].host.core else { return };
        for effect in core.handle(moment, event) {
            let is_news = matches!(effect, Effect::Publish { .. } | Effect::Measure(_));
            let is_probe = matches!(&effect, Effect::Store(_, op) if matches!(**op, StoreOp::Probe(_) | StoreOp::ReadTo(_)));
            if !is_news && !is_probe && self.strikes(400) {
                return self.crash(at);
            }
            self.perform(at, effect);
        }
    }

    fn perform(&mut self, at: usize, effect: Effect) {
        let boot = self.nodes[at].host.boot;
        match effect {
            Effect::InspectStream(mark) => self.ask_stream(at, StreamOp::Inspect(mark)),
            Effect::ReadStream { of, after } => self.ask_stream(at, StreamOp::Read(of, after)),
            Effect::ReadLog { ceremony, after } => self.ask_stream(at, StreamOp::ReadLog(ceremony, after)),
            Effect::Append { ceremony, expected, read_to, entry } => {
                self.ask_stream(at, StreamOp::Append { ceremony, expected, read_to, entry });
            }
            Effect::Publish { subject, payload } => self.publish(at, &subject, payload),
            Effect::Measure(_) => {}
            Effect::Store(ticket, op) => {
                self.nodes[at].host.store_ops.push_back((ticket, *op));
                self.within(1..8, Happening::StoreStep(at, boot));
            }
            Effect::ToEnclave(kind) => {
                if self.nodes[at].is_linked {
                    self.nodes[at].to_enclave.push_back(*kind);
                    self.on_the_link(Happening::ToEnclave(at));
                }
            }
            Effect::FetchCredentials(ticket) => {
                let lent = Ok(Credentials::default());
                self.within(1..50, Happening::Done(at, boot, Event::Credentials(ticket, lent)));
            }
            Effect::Preflight => self.within(1..50, Happening::Done(at, boot, Event::Preflighted(Ok(())))),
            Effect::Put(ticket, objects, until) => {
                let put = objects.into_iter().map(|object| self.put(object, until)).collect();
                self.within(1..50, Happening::Done(at, boot, Event::Put(ticket, Ok(put))));
            }
        }
    }

    fn put(&mut self, object: Object, until: UnixMillis) -> (String, UnixMillis) {
        self.must(until >= self.wall().plus(LOCK_MS), || "a backup is not locked".to_owned());
        self.vault.insert(Hash::of_bytes(&object.bytes), object.bytes);
        ("1".to_owned(), until)
    }

    pub(super) fn store_step(&mut self, at: usize) {
        let Some((ticket, op)) = self.nodes[at].host.store_ops.pop_front() else { return };
        let log = match &op {
            StoreOp::Append(entry) => Some(entry.ceremony.clone()),
            StoreOp::Switch { ceremony, .. } => Some(ceremony.clone()),
            _ => None,
        };
        let done = self.perform_in_store(at, op);
        if log.is_some() && self.strikes(400) {
            return self.crash(at);
        }
        self.feed(at, Event::Stored(ticket, done.map_err(Into::into)));
        if let Some(id) = log {
            self.note_commits(at, &id);
        }
    }

    fn perform_in_store(&mut self, at: usize, op: StoreOp) -> Result<StoreReply, String> {
        let (mut promoted, mut pending, mut deletes) = (None, None, None);
        match &op {
            StoreOp::Switch { ceremony, keep, .. } => {
                self.tally.switches += 1;
                self.note(|| format!("{} switches {ceremony} behind {keep}", node(at)));
            }
            StoreOp::Shelve(line) => {
                self.tally.shelved += 1;
                self.note(|| format!("{} shelves {}", node(at), line.ceremony));
            }
            StoreOp::Promote(_, generation, _) => {
                promoted = Some(*generation);
                deletes = promoted.filter(|_| self.slip == Some(Slip::DeletesOnFirstAdoption));
            }
            StoreOp::PutPending(share) => pending = Some(share.record),
            StoreOp::DeleteBefore(_, generation) => self.check_deletion(at, *generation),
            StoreOp::DiscardPending(ceremony) => {
                let is_new = self.nodes[at].discarded.insert(ceremony.clone());
                if !is_new && self.slip == Some(Slip::DropsOnce) {
                    return Ok(StoreReply::Count(0));
                }
            }
            _ => {}
        }
        let done = self.nodes[at].host.store.perform(op);
        let shares = &mut self.nodes[at].host.store.shares;
        if let Some(record) = pending.filter(|_| self.slip == Some(Slip::PromotesWithoutCertificate)) {
            let _ = shares.promote(&record);
        }
        if let Some(generation) = promoted.filter(|_| done.is_ok()) {
            self.note(|| format!("{} makes generation {generation} current", node(at)));
            self.nodes[at].promoted.insert(generation.0);
        }
        if let Some(generation) = deletes {
            self.check_deletion(at, generation);
            self.nodes[at].host.store.shares.delete_before(generation);
        }
        done
    }

    fn ask_stream(&mut self, at: usize, op: StreamOp) {
        self.nodes[at].host.stream_ops.push_back(op);
        self.stream_on(at);
    }

    pub(super) fn stream_on(&mut self, at: usize) {
        if self.nodes[at].host.may_ask_stream() {
            let boot = self.nodes[at].host.boot;
            self.within(1..12, Happening::StreamStep(at, boot));
        }
    }

    pub(super) fn stream_step(&mut self, at: usize) {
        let Some(op) = self.nodes[at].host.stream_ops.pop_front() else { return };
        let is_cut = self.nodes[at].is_cut;
        let stream = if is_cut { Err(unavailable()) } else { Ok(&mut self.stream) };
        let event = match op {
            StreamOp::Inspect(mark) => Event::StreamSeen(stream.map(|stream| stream.seen(mark))),
            StreamOp::Read(of, after) => {
                Event::StreamRead(stream.map(|stream| stream.read(of.as_ref(), after)))
            }
            StreamOp::ReadLog(id, after) => {
                Event::LogRead(stream.map(|stream| stream.read(Some(&id), after)))
            }
            StreamOp::Append { ceremony, expected, read_to, entry } => {
                let decoded = Entry::decode(&entry).unwrap();
                let appended = stream.and_then(|stream| stream.append(&ceremony, expected, read_to, entry));
                Event::Appended(self.acknowledged(at, &decoded, appended))
            }
        };
        let boot = self.nodes[at].host.boot;
        self.within(1..12, Happening::Answer(at, boot, event));
    }

    /// What a node hears of an append: the acknowledgement may be lost.
    fn acknowledged(
        &mut self,
        at: usize,
        entry: &Entry,
        appended: Result<u64, StreamError>,
    ) -> Result<u64, StreamError> {
        if appended.is_ok() {
            self.note(|| {
                format!(
                    "{} appends {} {} {:.8}",
                    node(at),
                    entry.ceremony,
                    entry.seq,
                    entry.hash().to_string()
                )
            });
            self.note_entry(entry);
            if self.strikes(200) {
                return Err(unavailable());
            }
        }
        appended
    }

    fn publish(&mut self, from: usize, subject: &str, payload: Vec<u8>) {
        match Published::new(subject, payload) {
            Published::Others(message) => self.tell_others(from, &message),
            Published::Node(to, message) => self.send(from, to, message),
            // Whoever asked looks at the log.
            Published::Console(..) => {}
        }
    }

    fn tell_others(&mut self, from: usize, message: &Message) {
        for to in (0..NODES).filter(|to| *to != from) {
            self.send(from, to, message.clone());
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if self.nodes[from].is_cut || self.nodes[to].is_cut {
            return;
        }
        let delays = if self.strikes(50) { 100..3000 } else { 1..25 };
        self.within(delays, Happening::Deliver(to, message));
    }
}
