//! The world of a schedule: time, hosts with their cores, the stream, enclaves at the end of their links, and chance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use ceremonies::ceremony::Context;
use ceremonies::entry::Entry;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::subject;
use enclave_link::message::{Credentials, from_enclave, to_enclave};
use node::core::{
    Core, Effect, Event, Identity, Now, Object, Pace, Request, StoreOp, StoreReply, StreamError, TICK_MS,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::charter::NODES;
use super::checks::Committed;
use super::enclave::Enclave;
use super::keys::BEGIN;
use super::sessions::Session;
use crate::host::store::{Order, Store};
use crate::host::stream::{Stream, unavailable};
use crate::host::{Host, StreamOp};
use crate::simulation::charter::{node, node_key, place};

/// The last happenings, which are shown with a failure.
const SHOWN: usize = 80;
/// How long backups are locked.
const LOCK_MS: i64 = 31 * 24 * 3_600_000;

/// A rule of stores, enclaves or the shell, broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    /// A store that deletes the old shares when the new one is made current.
    DeletesOnFirstAdoption,
    /// A store that makes a share current when it is stored.
    PromotesWithoutCertificate,
    /// An enclave that stages a share that no store has.
    StagesBeforeStored,
    /// A store that discards the pending shares of a ceremony only once: one that is stored afterwards stays for good.
    DropsOnce,
}

#[derive(Clone)]
enum Message {
    Heads(Vec<u8>),
    Peer(NodeIndex, Vec<u8>),
    Heartbeat(Vec<u8>),
}

enum Happening {
    Tick(usize, u32),
    StoreStep(usize, u32),
    StreamStep(usize, u32),
    Answer(usize, u32, Event),
    /// What a service answers that is neither store nor stream.
    Done(usize, u32, Event),
    Deliver(usize, Message),
    Ask(usize, Request),
    ToEnclave(usize),
    FromEnclave(usize),
    Start(usize),
    Link(usize),
    Connect(usize),
    Sessions,
    People,
    Chaos,
}

/// What comes to an agent through the link.
pub(super) enum LinkNews {
    Message(from_enclave::Kind),
    Lost,
}

/// What a node consists of.
pub(super) struct Node {
    pub(super) host: Host,
    pub(super) enclave: Enclave,
    enclave_boots: u32,
    /// Whether the enclave refuses what was made of a log that it was shown before.
    pub(super) is_behind: bool,
    pub(super) is_linked: bool,
    to_agent: VecDeque<LinkNews>,
    to_enclave: VecDeque<to_enclave::Kind>,
    /// Whether it is not connected to the broker.
    is_cut: bool,
    /// The highest generation that may have gone with a lost store.
    pub(super) excused: u32,
    /// Where the logs ended that went with it, until they are there again.
    owes: BTreeMap<CeremonyId, u64>,
    /// Every generation that this node has ever made current.
    pub(super) promoted: BTreeSet<u32>,
    /// The ceremonies whose pending shares were discarded.
    discarded: BTreeSet<CeremonyId>,
}

impl Node {
    fn new(store: Store, enclave: Enclave) -> Self {
        Self {
            host: Host::with(store),
            enclave,
            enclave_boots: 0,
            is_behind: false,
            is_linked: false,
            to_agent: VecDeque::new(),
            to_enclave: VecDeque::new(),
            is_cut: false,
            excused: 0,
            owes: BTreeMap::new(),
            promoted: BTreeSet::new(),
            discarded: BTreeSet::new(),
        }
    }
}

/// How often something occurred.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    /// A node moved to another branch of a log.
    pub(super) switches: usize,
    /// A node shelved a log.
    pub(super) shelved: usize,
    /// A book could let go of what made an old generation.
    pub(super) let_go: usize,
    pub(super) restarts: usize,
    pub(super) lost_stores: usize,
    pub(super) lost_tails: usize,
    /// People restarted an enclave because it knew another branch than the one that stands.
    pub(super) mended: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.switches += other.switches;
        self.shelved += other.shelved;
        self.let_go += other.let_go;
        self.restarts += other.restarts;
        self.lost_stores += other.lost_stores;
        self.lost_tails += other.lost_tails;
        self.mended += other.mended;
    }
}

pub(super) struct World {
    seed: u64,
    pub(super) slip: Option<Slip>,
    pub(super) context: Context,
    pace: Pace,
    draw: StdRng,
    pub(super) now: u64,
    /// How far all clocks have gone on while nothing happened.
    slept: i64,
    queue: BTreeMap<(u64, u64), Happening>,
    counter: u64,
    pub(super) nodes: Vec<Node>,
    stream: Stream,
    /// What is in the vault, by digest.
    pub(super) vault: BTreeMap<Hash, Vec<u8>>,
    pub(super) sessions: BTreeMap<Hash, Session>,
    pub(super) committed: BTreeMap<u32, Committed>,
    /// What each boot of each enclave has been heard to say of each generation.
    pub(super) words: BTreeMap<(CeremonyId, String), BTreeSet<String>>,
    /// The highest generation that a ceremony was opened for.
    pub(super) opened: u32,
    pub(super) is_calm: bool,
    pub(super) tally: Tally,
    trace: VecDeque<String>,
    /// Whether what happens is printed.
    is_told: bool,
}

impl World {
    /// A cluster without any record, in which nothing goes wrong.
    pub(super) fn new(context: &Context) -> Self {
        let nodes = (0..NODES).map(|at| {
            Node::new(Store::default(), Enclave::new(format!("enclave {}, boot 0", node(at)), context))
        });
        let mut world = Self {
            seed: 0,
            slip: None,
            context: context.clone(),
            pace: Pace { vault_check_ms: Some(600_000), shelve_after_ms: 3_600_000 },
            draw: StdRng::seed_from_u64(0),
            now: 1,
            slept: 60_000,
            queue: BTreeMap::new(),
            counter: 0,
            nodes: nodes.collect(),
            stream: Stream::new(),
            vault: BTreeMap::new(),
            sessions: BTreeMap::new(),
            committed: BTreeMap::new(),
            words: BTreeMap::new(),
            opened: 1,
            is_calm: true,
            tally: Tally::default(),
            trace: VecDeque::new(),
            is_told: false,
        };
        world.begin();
        world
    }

    /// A schedule that begins with everything as it is here, except that all agents were restarted.
    pub(super) fn seeded(&self, seed: u64, slip: Option<Slip>, is_told: bool) -> Self {
        let nodes = self.nodes.iter().map(|node| {
            let again = Node::new(node.host.store.clone(), node.enclave.clone());
            Node { promoted: node.promoted.clone(), ..again }
        });
        let shelve_after_ms = if seed.is_multiple_of(2) { 1000 } else { 3_600_000 };
        let mut world = Self {
            seed,
            slip,
            context: self.context.clone(),
            pace: Pace { shelve_after_ms, ..self.pace },
            draw: StdRng::seed_from_u64(seed),
            now: self.now,
            slept: self.slept,
            queue: BTreeMap::new(),
            counter: 0,
            nodes: nodes.collect(),
            stream: self.stream.clone(),
            vault: self.vault.clone(),
            sessions: BTreeMap::new(),
            committed: self.committed.clone(),
            words: self.words.clone(),
            opened: self.opened,
            is_calm: false,
            tally: Tally::default(),
            trace: VecDeque::new(),
            is_told,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for at in 0..NODES {
            self.nodes[at].enclave.open.clear();
            self.start(at);
        }
        self.after(10, Happening::Sessions);
        self.after(50, Happening::People);
        self.after(400, Happening::Chaos);
    }

    pub(super) fn draw(&mut self) -> &mut StdRng {
        &mut self.draw
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.draw.random_range(0..bound)
    }

    /// Whether something goes wrong that does so once in this many times.
    pub(super) fn strikes(&mut self, once_in: usize) -> bool {
        !self.is_calm && self.below(once_in) == 0
    }

    pub(super) fn note(&mut self, note: impl FnOnce() -> String) {
        let note = format!("{:>6}.{:03} {}", self.now / 1000, self.now % 1000, note());
        if self.is_told {
            println!("{note}");
        }
        if self.trace.len() == SHOWN {
            self.trace.pop_front();
        }
        self.trace.push_back(note);
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

    fn after(&mut self, delay: u64, happening: Happening) {
        self.counter += 1;
        self.queue.insert((self.now + delay, self.counter), happening);
    }

    fn within(&mut self, delays: std::ops::Range<u64>, happening: Happening) {
        let delay = self.draw.random_range(delays);
        self.after(delay, happening);
    }

    /// The true time.
    pub(super) fn wall(&self) -> UnixMillis {
        BEGIN.plus(i64::try_from(self.now).unwrap() + self.slept)
    }

    /// The clocks of the nodes differ by seconds.
    pub(super) fn clock(&self, at: usize) -> UnixMillis {
        self.wall().plus(700 * i64::try_from(at).unwrap())
    }

    fn moment(&self, at: usize) -> Now {
        Now { wall: self.clock(at), steady: self.now - self.nodes[at].host.booted + 1 }
    }

    pub(super) fn core(&self, at: usize) -> Option<&Core> {
        self.nodes[at].host.core.as_ref()
    }

    /// Time passes in which nobody does anything.
    pub(super) fn sleep(&mut self) {
        self.note(|| "a minute passes".to_owned());
        self.slept += 60_000;
    }

    pub(super) fn start(&mut self, at: usize) {
        if self.core(at).is_some() {
            return;
        }
        let now = self.now;
        let host = &mut self.nodes[at].host;
        host.boot += 1;
        host.booted = now;
        let boot = host.boot;
        let remembered = host.store.start(&self.context, Order::Lineage);
        let charter = self.context.charter().clone();
        let identity = Identity { node: node(at), charter, nkey: node_key(at) };
        let core = Core::new(identity, remembered, self.pace, self.moment(at));
        let known: Vec<CeremonyId> = core.book().iter().map(|(id, _)| id.clone()).collect();
        self.nodes[at].host.core = Some(core);
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

    fn disconnect_enclave(&mut self, at: usize) {
        if std::mem::take(&mut self.nodes[at].is_linked) {
            self.nodes[at].to_enclave.clear();
            self.connection_ends(at);
        }
    }

    /// The link to the enclave breaks. Of what was on its way to the agent, the beginning may still arrive.
    pub(super) fn break_link(&mut self, at: usize) {
        if !self.nodes[at].is_linked {
            return;
        }
        self.note(|| format!("the link of {} breaks", node(at)));
        self.disconnect_enclave(at);
        let kept = self.below(self.nodes[at].to_agent.len() + 1);
        self.nodes[at].to_agent.truncate(kept);
        self.to_agent(at, LinkNews::Lost);
        self.within(100..3000, Happening::Link(at));
    }

    pub(super) fn kill_enclave(&mut self, at: usize) {
        self.note(|| format!("enclave {} dies", node(at)));
        self.break_link(at);
        let (seed, node) = (self.seed, &mut self.nodes[at]);
        node.enclave_boots += 1;
        node.is_behind = false;
        let boot = format!("enclave {}, boot {}, seed {seed}", at + 1, node.enclave_boots);
        node.enclave = Enclave::new(boot, &self.context);
    }

    fn link(&mut self, at: usize) {
        if self.core(at).is_none() || self.nodes[at].is_linked {
            return;
        }
        self.nodes[at].is_linked = true;
        self.feed(at, Event::LinkState(Ok(())));
        let welcome = self.nodes[at].enclave.welcome();
        self.from_enclave(at, welcome);
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

    fn connect(&mut self, at: usize) {
        if std::mem::take(&mut self.nodes[at].is_cut) {
            self.feed(at, Event::Connected);
        }
    }

    /// Tells a core what happened and does what it asks for, unless the agent dies on the way.
    fn feed(&mut self, at: usize, event: Event) {
        let moment = self.moment(at);
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
            Effect::ReadStream(after) => self.ask_stream(at, StreamOp::Read(after)),
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
                    self.within(1..30, Happening::ToEnclave(at));
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
        self.must(until >= self.wall().plus(LOCK_MS - 24 * 3_600_000), || {
            "a backup is not locked".to_owned()
        });
        self.vault.insert(Hash::of_bytes(&object.bytes), object.bytes);
        ("1".to_owned(), until)
    }

    pub(super) fn from_enclave(&mut self, at: usize, kind: from_enclave::Kind) {
        if self.nodes[at].is_linked {
            self.to_agent(at, LinkNews::Message(kind));
        }
    }

    fn to_agent(&mut self, at: usize, news: LinkNews) {
        self.nodes[at].to_agent.push_back(news);
        self.within(1..30, Happening::FromEnclave(at));
    }

    fn agent_hears(&mut self, at: usize) {
        match self.nodes[at].to_agent.pop_front() {
            Some(LinkNews::Message(kind)) => self.feed(at, Event::Enclave(kind)),
            Some(LinkNews::Lost) => {
                self.feed(at, Event::EnclaveLost);
                self.feed(at, Event::LinkState(Err("the enclave closed the link".to_owned())));
            }
            None => {}
        }
    }

    fn store_step(&mut self, at: usize) {
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
        self.feed(at, Event::Stored(ticket, done));
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

    fn stream_on(&mut self, at: usize) {
        let host = &mut self.nodes[at].host;
        if !host.is_streaming && !host.stream_ops.is_empty() {
            host.is_streaming = true;
            let boot = host.boot;
            self.within(1..12, Happening::StreamStep(at, boot));
        }
    }

    fn stream_step(&mut self, at: usize) {
        let Some(op) = self.nodes[at].host.stream_ops.pop_front() else { return };
        let is_cut = self.nodes[at].is_cut;
        let stream = if is_cut { Err(unavailable()) } else { Ok(&mut self.stream) };
        let event = match op {
            StreamOp::Inspect(mark) => Event::StreamSeen(stream.map(|stream| stream.seen(mark))),
            StreamOp::Read(after) => Event::StreamRead(stream.map(|stream| stream.read(after))),
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
        match subject.split('.').collect::<Vec<_>>().as_slice() {
            ["head", _] => self.tell_others(from, &Message::Heads(payload)),
            ["health", _] => self.tell_others(from, &Message::Heartbeat(payload)),
            ["record", to, _] => {
                let to = place(NodeIndex::new(to.parse().unwrap()).unwrap());
                self.send(from, to, Message::Peer(subject::node(subject).unwrap(), payload));
            }
            // Whoever asked looks at the log.
            ["console"] => {}
            other => panic!("a message on {other:?}"),
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

    pub(super) fn ask(&mut self, to: usize, request: Request) {
        self.within(1..15, Happening::Ask(to, request));
    }

    fn happens(&mut self, happening: Happening) {
        let is_alive = |world: &Self, at: usize, boot: u32| world.nodes[at].host.is_alive(boot);
        match happening {
            Happening::Tick(at, boot) if is_alive(self, at, boot) => {
                self.feed(at, Event::Tick);
                self.after(TICK_MS, Happening::Tick(at, boot));
            }
            Happening::StoreStep(at, boot) if is_alive(self, at, boot) => self.store_step(at),
            Happening::StreamStep(at, boot) if is_alive(self, at, boot) => self.stream_step(at),
            Happening::Answer(at, boot, event) if is_alive(self, at, boot) => {
                self.nodes[at].host.is_streaming = false;
                self.feed(at, event);
                self.stream_on(at);
            }
            Happening::Done(at, boot, event) if is_alive(self, at, boot) => self.feed(at, event),
            Happening::Tick(..)
            | Happening::StoreStep(..)
            | Happening::StreamStep(..)
            | Happening::Answer(..)
            | Happening::Done(..) => {}
            Happening::Deliver(to, message) => {
                let event = match message {
                    Message::Heads(bytes) => Event::Heads(bytes),
                    Message::Peer(from, bytes) => Event::FromPeer(from, bytes),
                    Message::Heartbeat(bytes) => Event::Heartbeat(bytes),
                };
                self.feed(to, event);
            }
            Happening::Ask(to, request) => self.feed(to, Event::Request(request)),
            Happening::ToEnclave(at) => {
                if let Some(message) = self.nodes[at].to_enclave.pop_front() {
                    self.enclave_hears(at, message);
                }
            }
            Happening::FromEnclave(at) => self.agent_hears(at),
            Happening::Start(at) => self.start(at),
            Happening::Link(at) => self.link(at),
            Happening::Connect(at) => self.connect(at),
            Happening::Sessions => {
                self.sessions_go_on();
                self.within(5..60, Happening::Sessions);
            }
            Happening::People => {
                if !self.is_calm {
                    self.people_act();
                    self.within(30..400, Happening::People);
                }
            }
            Happening::Chaos => {
                if !self.is_calm {
                    self.go_wrong();
                    // Some worlds are rougher than others.
                    let rest = 4000 * (1 + self.seed % 3);
                    self.within(200..rest, Happening::Chaos);
                }
            }
        }
        self.check();
    }

    /// Lets everything happen that is due within this time.
    pub(super) fn run_for(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(next) = self.queue.first_entry() {
            let (due, _) = *next.key();
            if due > end {
                break;
            }
            let happening = next.remove();
            self.now = due;
            self.happens(happening);
        }
        self.now = end;
    }

    /// Nothing goes wrong any more.
    pub(super) fn be_calm(&mut self) {
        self.is_calm = true;
        self.note(|| "calm".to_owned());
        for at in 0..NODES {
            self.connect(at);
            self.start(at);
        }
    }

    /// What changes whenever anything comes of what was done.
    pub(super) fn standing(&self) -> Vec<BTreeMap<CeremonyId, (u64, Hash)>> {
        self.nodes.iter().map(|node| node.host.store.tips()).collect()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let committed = self.committed.iter();
        let committed: Vec<String> =
            committed.map(|(generation, it)| format!("{generation}: {}", it.record)).collect();
        writeln!(f, "committed: {committed:?}")?;
        for (at, node) in self.nodes.iter().enumerate() {
            writeln!(f, "node {}, {}, linked {}", at + 1, node.enclave.boot, node.is_linked)?;
            for share in node.host.store.shares.iter() {
                writeln!(f, "  share {} {:?} of {}", share.generation, share.stored.state, share.ceremony)?;
            }
            let Some(core) = &node.host.core else { continue };
            for (id, chapter) in core.book().iter() {
                let ceremony = &chapter.ceremony;
                writeln!(
                    f,
                    "  {id}: generation {}, {:?}, {}, at {} {:.8}, prepared {:?}, adopted {:?}, retired {:?}",
                    ceremony.manifest().generation,
                    ceremony.phase_at(self.wall()),
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
