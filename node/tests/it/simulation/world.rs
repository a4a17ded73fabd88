//! Simulated time, five hosts with their cores and stores, and the messages between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ceremonies::deploy::broker::stream_differences;
use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use ceremonies::log::Entry;
use node::core::{Effect, Event, Pace, Request, StoreOp, TICK_MS};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::charter::{CONTEXT, NODES, node};
use super::people::Question;
use super::properties::{Ledger, Property};
use crate::host::store::Order;
use crate::host::stream::Stream;
use crate::host::{Host, Message, Published, StreamOp};

/// When a schedule begins.
pub(super) const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);
/// Ceremonies that are over leave memory within a schedule.
const PACE: Pace = Pace { vault_check_ms: None, shelve_after_ms: 500, recheck_ms: 200 };
/// How many messages can be replayed.
const REMEMBERED: usize = 400;

/// A defence that is taken out on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    /// Receipts for what a quorum votes for, not for what it has locked.
    CountsVotes,
    /// Nodes that hear of the record from the stream alone.
    DeafToPeers,
    /// Stores that do not keep the branch that was left, and a power cut when one is.
    ForgetsWhatWasLeft,
    /// Stores that do not keep ballots, and power cuts when there are new locks.
    ForgetsBallots,
    /// A start that orders logs by their claimed times.
    StartsByTheClock,
    /// A shell that says that every stream has the required settings.
    TakesAnyStream,
    /// A shell that reads no log once more.
    NeverRechecks,
    /// A shell that moreover says that the stream is the one that was read before.
    NoticesNoLoss,
}

enum Happening {
    Tick(usize, u32),
    Deliver(usize, Message),
    Ask(usize, Request),
    Answer(usize, u32, Event),
    StoreStep(usize, u32),
    StreamStep(usize, u32),
    Start(usize),
    People,
    Chaos,
    Hostile,
}

#[expect(clippy::struct_excessive_bools, reason = "each is one way in which this world is bad")]
pub(super) struct World {
    pub(super) slip: Option<Slip>,
    /// The one property that is checked; if none, all are.
    pub(super) only: Option<Property>,
    draw: StdRng,
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    counter: u64,
    pub(super) hosts: Vec<Host>,
    /// The hostile host.
    pub(super) hostile: usize,
    pub(super) is_calm: bool,
    /// Whether the hostile host goes on.
    pub(super) is_hostile_active: bool,
    pub(super) is_broker_hostile: bool,
    /// Whether what nodes tell each other is lost, but for heartbeats.
    pub(super) is_deaf: bool,
    /// From here on only messages between cores pass.
    pub(super) is_without_stream: bool,
    pub(super) streams: Vec<Option<Stream>>,
    pub(super) views: [usize; NODES],
    pub(super) is_lied_to: [bool; NODES],
    pub(super) is_cut: [bool; NODES],
    /// Which nodes were told that the stream is not to be used, or nothing yet.
    is_stream_refused: [bool; NODES],
    pub(super) history: VecDeque<Message>,
    /// Every entry that anybody has made, by ceremony.
    pub(super) pool: BTreeMap<CeremonyId, Vec<Entry>>,
    pub(super) pooled: BTreeSet<Hash>,
    pub(super) ledger: Ledger,
    pub(super) questions: Vec<Question>,
    pub(super) feeds: BTreeMap<(CeremonyId, usize), Hash>,
    /// How often a node moved to another branch.
    pub(super) switches: usize,
    /// How often a node shelved a log, and had one come back.
    pub(super) shelved: usize,
    pub(super) recalled: usize,
    /// Whether what happens is printed.
    is_told: bool,
}

impl World {
    pub(super) fn new(seed: u64, slip: Option<Slip>, is_told: bool) -> Self {
        let mut draw = StdRng::seed_from_u64(seed);
        let hostile = draw.random_range(0..NODES);
        let is_broker_hostile = draw.random_range(0..4) > 0;
        let hosts = (0..NODES).map(|_| Host::default());
        let mut world = Self {
            slip,
            only: None,
            draw,
            now: 1,
            queue: BTreeMap::new(),
            counter: 0,
            hosts: hosts.collect(),
            hostile,
            is_calm: false,
            is_hostile_active: true,
            is_broker_hostile,
            is_deaf: slip == Some(Slip::DeafToPeers),
            is_without_stream: false,
            streams: vec![Some(Stream::new())],
            views: [0; NODES],
            is_lied_to: [false; NODES],
            is_cut: [false; NODES],
            is_stream_refused: [true; NODES],
            history: VecDeque::new(),
            pool: BTreeMap::new(),
            pooled: BTreeSet::new(),
            ledger: Ledger::default(),
            questions: Vec::new(),
            feeds: BTreeMap::new(),
            switches: 0,
            shelved: 0,
            recalled: 0,
            is_told,
        };
        for at in 0..NODES {
            world.hosts[at].clock = i64::try_from(world.below(4000)).unwrap() - 2000;
            // A hostile host may run the agent beside what else it does.
            if at != hostile || seed.is_multiple_of(2) {
                world.start(at);
            }
        }
        world.after(50, Happening::People);
        world.after(400, Happening::Chaos);
        world.after(300, Happening::Hostile);
        world
    }

    pub(super) fn draw(&mut self) -> &mut StdRng {
        &mut self.draw
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.draw.random_range(0..bound)
    }

    pub(super) fn strikes(&mut self, once_in: usize) -> bool {
        self.below(once_in) == 0
    }

    /// One of these.
    pub(super) fn any<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.below(of.len())].clone()) }
    }

    pub(super) fn note(&self, note: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>6}.{:03} {}", self.now / 1000, self.now % 1000, note());
        }
    }

    pub(super) fn is_honest(&self, at: usize) -> bool {
        at != self.hostile
    }

    pub(super) fn honest(&self) -> Vec<usize> {
        (0..NODES).filter(|at| self.is_honest(*at)).collect()
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.counter += 1;
        self.queue.insert((self.now + delay, self.counter), happening);
    }

    pub(super) fn clock(&self, at: usize) -> UnixMillis {
        self.truth().plus(self.hosts[at].clock)
    }

    fn truth(&self) -> UnixMillis {
        BEGIN.plus(i64::try_from(self.now).unwrap())
    }

    /// How a start orders logs.
    pub(super) fn start_order(&self) -> Order {
        if self.slip == Some(Slip::StartsByTheClock) { Order::Clock } else { Order::Lineage }
    }

    pub(super) fn start(&mut self, at: usize) {
        if self.hosts[at].core.is_some() {
            return;
        }
        let (order, time) = (self.start_order(), (self.now, self.truth()));
        self.hosts[at].start(at, (&CONTEXT, order), PACE, time);
        let boot = self.hosts[at].boot;
        let phase = self.draw.random_range(1..TICK_MS);
        self.after(phase, Happening::Tick(at, boot));
        self.note(|| format!("{} starts", node(at)));
        self.feed(at, Event::Connected);
    }

    pub(super) fn crash(&mut self, at: usize) {
        if self.hosts[at].core.take().is_none() {
            return;
        }
        self.note(|| format!("{} crashes", node(at)));
        // What the store was about to do may still be done.
        if self.strikes(2)
            && let Some((_, op)) = self.hosts[at].store_ops.pop_front()
        {
            let _ = self.perform_in_store(at, op);
        }
        self.stop(at);
        let rest = self.draw.random_range(50..2500);
        self.after(rest, Happening::Start(at));
    }

    fn stop(&mut self, at: usize) {
        self.hosts[at].stop();
        self.is_stream_refused[at] = true;
        self.forget_questions(at);
    }

    fn perform_in_store(&mut self, at: usize, op: StoreOp) -> Result<node::core::StoreReply, String> {
        if self.now < self.hosts[at].store.refuses_until {
            return Err("the disk is full".to_owned());
        }
        match &op {
            StoreOp::Append(entry) => {
                self.note(|| {
                    format!(
                        "{} stores {} {} {:.8}",
                        node(at),
                        entry.ceremony,
                        entry.seq,
                        entry.hash().to_string()
                    )
                });
                self.pool(entry);
            }
            StoreOp::PutAside(entry) => self.pool(entry),
            StoreOp::Switch { ceremony, keep, entries, .. } => {
                self.switches += 1;
                let tip = entries.last().map(|entry| (entry.seq, entry.hash().to_string()));
                self.note(|| format!("{} switches {ceremony} behind {keep} to {tip:.8?}", node(at)));
                for entry in entries {
                    self.pool(entry);
                }
            }
            StoreOp::Shelve(line) => {
                self.shelved += 1;
                self.note(|| format!("{} shelves {}", node(at), line.ceremony));
            }
            StoreOp::Recall(id) => {
                self.recalled += 1;
                self.note(|| format!("{} recalls {id}", node(at)));
            }
            StoreOp::Remember(ceremony, memory) => {
                let lock = memory.lock.map(|lock| (lock.round, lock.tip.seq, lock.tip.hash.to_string()));
                let (round, votes) = (memory.round, !memory.undecided);
                self.note(|| {
                    format!("{} remembers {ceremony}: round {round}, votes {votes}, {lock:.8?}", node(at))
                });
            }
            _ => {}
        }
        let has_left = matches!(op, StoreOp::Switch { .. });
        let has_locked = matches!(&op, StoreOp::Remember(_, memory) if memory.lock.is_some());
        let done = self.hosts[at].store.perform(op);
        let is_cut_off = match self.slip {
            Some(Slip::ForgetsWhatWasLeft) => has_left && self.is_honest(at),
            Some(Slip::ForgetsBallots) => has_locked && self.strikes(20),
            _ => false,
        };
        if is_cut_off {
            self.cut_power();
        }
        done
    }

    /// All machines stop at once, and what a slip has them forget is gone.
    fn cut_power(&mut self) {
        for at in self.honest() {
            match self.slip {
                Some(Slip::ForgetsWhatWasLeft) => self.hosts[at].store.forget_branches(),
                Some(Slip::ForgetsBallots) => self.hosts[at].store.forget_ballots(),
                _ => {}
            }
            self.stop(at);
            self.after(10, Happening::Start(at));
        }
    }

    pub(super) fn pool(&mut self, entry: &Entry) {
        if self.pooled.insert(entry.hash()) {
            self.pool.entry(entry.ceremony.clone()).or_default().push(entry.clone());
        }
    }

    pub(super) fn any_ceremony(&mut self) -> Option<CeremonyId> {
        let ids: Vec<CeremonyId> = self.pool.keys().cloned().collect();
        self.any(&ids)
    }

    pub(super) fn any_entry(&mut self) -> Option<Entry> {
        let id = self.any_ceremony()?;
        let entries = self.pool[&id].clone();
        self.any(&entries)
    }

    /// Tells a core what happened and does what it asks for.
    fn feed(&mut self, at: usize, event: Event) {
        let moment = self.hosts[at].moment(self.now, self.truth());
        let _span = self.is_told.then(|| tracing::info_span!("agent", node = %node(at)).entered());
        let Some(core) = &mut self.hosts[at].core else { return };
        for effect in core.handle(moment, event) {
            self.perform(at, effect);
        }
    }

    fn perform(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::InspectStream(mark) => self.ask_stream(at, StreamOp::Inspect(mark)),
            Effect::ReadStream { of, after } => self.ask_stream(at, StreamOp::Read(of, after)),
            Effect::ReadLog { ceremony, after } => self.ask_stream(at, StreamOp::ReadLog(ceremony, after)),
            Effect::Append { ceremony, expected, read_to, entry } => {
                if self.is_honest(at) && self.is_stream_refused[at] {
                    self.breaks(Property::Stream, || {
                        format!("{} writes to a stream that it must not use", node(at))
                    });
                }
                self.ask_stream(at, StreamOp::Append { ceremony, expected, read_to, entry });
            }
            Effect::Publish { subject, payload } => self.publish(at, &subject, payload),
            Effect::Store(ticket, op) => {
                self.hosts[at].store_ops.push_back((ticket, *op));
                if self.hosts[at].store_ops.len() == 1 {
                    let (boot, delay) = (self.hosts[at].boot, self.draw.random_range(1..4));
                    self.after(delay, Happening::StoreStep(at, boot));
                }
            }
            // No enclave takes part.
            Effect::ToEnclave(_)
            | Effect::FetchCredentials(_)
            | Effect::Preflight
            | Effect::Put(..)
            | Effect::Measure(_) => {}
        }
    }

    fn ask_stream(&mut self, at: usize, op: StreamOp) {
        self.hosts[at].stream_ops.push_back(op);
        self.stream_on(at);
    }

    fn stream_on(&mut self, at: usize) {
        if self.hosts[at].may_ask_stream() {
            let (boot, delay) = (self.hosts[at].boot, self.draw.random_range(1..12));
            self.after(delay, Happening::StreamStep(at, boot));
        }
    }

    fn stream_step(&mut self, at: usize) {
        let Some(op) = self.hosts[at].stream_ops.pop_front() else { return };
        let event = match op {
            StreamOp::Inspect(mark) => {
                let mut seen = self.inspect(at, mark);
                if let Ok(seen) = &mut seen {
                    if self.slip == Some(Slip::TakesAnyStream) {
                        self.is_stream_refused[at] = !stream_differences(&seen.config).is_empty();
                        seen.config = Stream::new().config;
                    }
                    if self.slip == Some(Slip::NoticesNoLoss) {
                        seen.has_mark = true;
                    }
                }
                Event::StreamSeen(seen)
            }
            StreamOp::Read(of, after) => Event::StreamRead(self.read_stream(at, of.as_ref(), after)),
            StreamOp::ReadLog(id, after) => {
                let is_read = !matches!(self.slip, Some(Slip::NeverRechecks | Slip::NoticesNoLoss));
                let never = Err(crate::host::stream::unavailable());
                Event::LogRead(if is_read { self.read_stream(at, Some(&id), after) } else { never })
            }
            StreamOp::Append { ceremony, expected, read_to, entry } => {
                let appended = self.append_to_stream(at, &ceremony, expected, read_to, entry);
                self.note(|| format!("{} appends to {ceremony}: {appended:?}", node(at)));
                Event::Appended(appended)
            }
        };
        let (boot, delay) = (self.hosts[at].boot, self.draw.random_range(1..12));
        self.after(delay, Happening::Answer(at, boot, event));
    }

    fn answered(&mut self, at: usize, event: Event) {
        self.hosts[at].is_streaming = false;
        if let Event::StreamSeen(seen) = &event
            && self.slip != Some(Slip::TakesAnyStream)
        {
            let refused = seen.as_ref().map_or(true, |seen| !stream_differences(&seen.config).is_empty());
            self.is_stream_refused[at] = refused;
        }
        self.feed(at, event);
        self.stream_on(at);
    }

    fn publish(&mut self, from: usize, subject: &str, payload: Vec<u8>) {
        if self.is_honest(from) {
            self.note_heads(from, subject, &payload);
        }
        match Published::new(subject, payload) {
            Published::Others(message) => self.tell_all(from, &message),
            Published::Node(to, message) => self.send(from, to, message),
            Published::Console(number, payload) => self.console_hears(number.parse().unwrap(), &payload),
        }
    }

    pub(super) fn tell_all(&mut self, from: usize, message: &Message) {
        for to in (0..NODES).filter(|to| *to != from) {
            self.send(from, to, message.clone());
        }
    }

    /// Hands a message to the broker.
    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        if self.is_cut[from] || self.is_cut[to] {
            return;
        }
        if !matches!(message, Message::Heartbeat(_)) || self.strikes(8) {
            self.history.push_back(message.clone());
            if self.history.len() > REMEMBERED {
                self.history.pop_front();
            }
        }
        let mut delay = self.draw.random_range(1..25);
        if self.is_broker_hostile && !self.is_calm {
            match self.below(20) {
                0 | 1 => return,
                2 => delay = self.draw.random_range(25..4000),
                3 => {
                    let again = self.draw.random_range(1..2000);
                    self.after(again, Happening::Deliver(to, message.clone()));
                }
                4 => {
                    let (to, again) = (self.below(NODES), self.draw.random_range(1..500));
                    let other = self.disguised(message.clone());
                    self.after(again, Happening::Deliver(to, other));
                }
                _ => {}
            }
        }
        self.after(delay, Happening::Deliver(to, message));
    }

    /// A node's bytes where another's are expected.
    pub(super) fn disguised(&mut self, message: Message) -> Message {
        let (Message::Heads(bytes) | Message::Peer(_, bytes) | Message::Heartbeat(bytes)) = message;
        match self.below(3) {
            0 => Message::Heads(bytes),
            1 => Message::Peer(node(self.below(NODES)), bytes),
            _ => Message::Heartbeat(bytes),
        }
    }

    /// Hands a message straight to a node, as a hostile broker can.
    pub(super) fn inject(&mut self, to: usize, message: Message) {
        let delay = self.draw.random_range(1..40);
        self.after(delay, Happening::Deliver(to, message));
    }

    pub(super) fn ask(&mut self, to: usize, request: Request) {
        let delay = self.draw.random_range(1..15);
        self.after(delay, Happening::Ask(to, request));
    }

    fn deliver(&mut self, to: usize, message: Message) {
        if to == self.hostile
            && let Message::Peer(from, bytes) = &message
        {
            self.hostile_hears(*from, bytes);
        }
        if self.is_deaf && !matches!(message, Message::Heartbeat(_)) {
            return;
        }
        self.feed(to, message.into());
    }

    pub(super) fn reconnect(&mut self, at: usize) {
        if self.hosts[at].core.is_some() {
            self.note(|| format!("{} is connected anew", node(at)));
            self.feed(at, Event::Disconnected);
            self.feed(at, Event::Connected);
        }
    }

    fn happens(&mut self, happening: Happening) {
        let is_alive = |world: &Self, at: usize, boot: u32| world.hosts[at].is_alive(boot);
        match happening {
            Happening::Tick(at, boot) if is_alive(self, at, boot) => {
                self.feed(at, Event::Tick);
                self.after(TICK_MS, Happening::Tick(at, boot));
            }
            Happening::Answer(at, boot, event) if is_alive(self, at, boot) => self.answered(at, event),
            Happening::StreamStep(at, boot) if is_alive(self, at, boot) => self.stream_step(at),
            Happening::StoreStep(at, boot) if is_alive(self, at, boot) => {
                let Some((ticket, op)) = self.hosts[at].store_ops.pop_front() else { return };
                let done = self.perform_in_store(at, op);
                if is_alive(self, at, boot) && !self.hosts[at].store_ops.is_empty() {
                    let delay = self.draw.random_range(1..4);
                    self.after(delay, Happening::StoreStep(at, boot));
                }
                self.feed(at, Event::Stored(ticket, done.map_err(Into::into)));
            }
            Happening::Tick(..)
            | Happening::Answer(..)
            | Happening::StreamStep(..)
            | Happening::StoreStep(..) => {}
            Happening::Deliver(to, message) => self.deliver(to, message),
            Happening::Ask(to, request) => {
                if self.hosts[to].core.is_some() {
                    self.is_asked(to, &request);
                    self.feed(to, Event::Request(request));
                }
            }
            Happening::Start(at) => self.start(at),
            Happening::People => {
                if !self.is_calm {
                    self.people_act();
                    let delay = self.draw.random_range(40..700);
                    self.after(delay, Happening::People);
                }
            }
            Happening::Chaos => {
                if !self.is_calm {
                    self.go_wrong();
                    let delay = self.draw.random_range(100..1800);
                    self.after(delay, Happening::Chaos);
                }
            }
            Happening::Hostile => {
                if self.is_hostile_active {
                    self.be_hostile();
                    let delay = self.draw.random_range(20..400);
                    self.after(delay, Happening::Hostile);
                }
            }
        }
    }

    /// Lets everything happen up to this moment.
    pub(super) fn run_until(&mut self, moment: u64) {
        while let Some(next) = self.queue.first_entry() {
            let (due, _) = *next.key();
            if due > moment {
                break;
            }
            let happening = next.remove();
            self.now = due;
            self.happens(happening);
        }
        self.now = moment;
    }

    /// Nothing goes wrong any more, except what the hostile host does.
    pub(super) fn heal(&mut self) {
        self.is_calm = true;
        self.is_cut = [false; NODES];
        self.is_lied_to = [false; NODES];
        self.is_without_stream = self.is_broker_hostile && self.strikes(8);
        self.note(|| "healed".to_owned());
        self.mend_stream();
        for at in 0..NODES {
            self.hosts[at].clock = i64::try_from(self.below(4000)).unwrap() - 2000;
            self.hosts[at].store.refuses_until = 0;
            if at != self.hostile {
                self.start(at);
                self.reconnect(at);
            }
        }
    }
}
