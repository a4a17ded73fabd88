//! The world of a schedule: time, hosts with their cores, the stream, enclaves at the end of their links, and chance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use ceremonies::ceremony::Context;
use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use enclave::signer::{News, OrderId};
use enclave_link::message::to_enclave;
use node::core::{Core, Event, Pace, Request, TICK_MS};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::charter::NODES;
use super::checks::Committed;
use super::enclave::{Enclave, Share};
use super::keys::BEGIN;
use super::links::LinkNews;
use super::sessions::Session;
use crate::host::store::Store;
use crate::host::stream::Stream;
use crate::host::{Host, Message};
use crate::simulation::charter::node;

/// The last happenings, which are shown with a failure.
const SHOWN: usize = 80;
/// A rule of stores, enclaves or the shell, broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    /// A store that deletes the old shares when the new one is made current.
    DeletesOnFirstAdoption,
    /// A store that makes a share current when it is stored.
    PromotesWithoutCertificate,
    /// An agent that hands a new share back to its enclave instead of storing it.
    HandsBackUnstored,
    /// A store that discards the pending shares of a ceremony only once: one that is stored afterwards stays for good.
    DropsOnce,
}

pub(super) enum Happening {
    Tick(usize, u32),
    StoreStep(usize, u32),
    StreamStep(usize, u32),
    Answer(usize, u32, Event),
    /// What a service answers that is neither store nor stream.
    Done(usize, u32, Event),
    /// What came of an enclave's work, for the connection with this number.
    Worked(usize, u32, OrderId, Box<News<Share>>),
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

/// What a node consists of.
pub(super) struct Node {
    pub(super) host: Host,
    pub(super) enclave: Enclave,
    pub(super) enclave_boots: u32,
    /// Whether the enclave refuses what was made of a log that it was shown before.
    pub(super) is_behind: bool,
    pub(super) is_linked: bool,
    /// How many connections the enclave has had.
    pub(super) links: u32,
    pub(super) to_agent: VecDeque<LinkNews>,
    pub(super) to_enclave: VecDeque<to_enclave::Kind>,
    /// Whether it is not connected to the broker.
    pub(super) is_cut: bool,
    /// The highest generation that may have gone with a lost store.
    pub(super) excused: u32,
    /// Where the logs ended that went with it, until they are there again.
    pub(super) owes: BTreeMap<CeremonyId, u64>,
    /// Every generation that this node has ever made current.
    pub(super) promoted: BTreeSet<u32>,
    /// The ceremonies whose pending shares were discarded.
    pub(super) discarded: BTreeSet<CeremonyId>,
}

impl Node {
    fn new(at: usize, store: Store, enclave: Enclave) -> Self {
        // The clocks of the nodes differ by seconds.
        let clock = 700 * i64::try_from(at).unwrap();
        Self {
            host: Host::with(store, clock),
            enclave,
            enclave_boots: 0,
            is_behind: false,
            is_linked: false,
            links: 0,
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
    pub(super) seed: u64,
    pub(super) slip: Option<Slip>,
    pub(super) context: Context,
    pub(super) pace: Pace,
    pub(super) draw: StdRng,
    pub(super) now: u64,
    /// How far all clocks have gone on while nothing happened.
    pub(super) slept: i64,
    pub(super) queue: BTreeMap<(u64, u64), Happening>,
    pub(super) counter: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) stream: Stream,
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
    pub(super) trace: VecDeque<String>,
    /// Whether what happens is printed.
    pub(super) is_told: bool,
}

impl World {
    /// A cluster without any record, in which nothing goes wrong.
    pub(super) fn new(context: &Context) -> Self {
        let nodes = (0..NODES).map(|at| {
            let boot = format!("enclave {}, boot 0", node(at));
            Node::new(at, Store::default(), Enclave::new(boot, context.root()))
        });
        let mut world = Self {
            seed: 0,
            slip: None,
            context: context.clone(),
            pace: Pace { vault_check_ms: Some(600_000), shelve_after_ms: 3_600_000, recheck_ms: 200 },
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

    /// A schedule that begins with everything as it is here, except that all agents and enclaves were restarted.
    pub(super) fn seeded(&self, seed: u64, slip: Option<Slip>, is_told: bool) -> Self {
        let nodes = self.nodes.iter().enumerate().map(|(at, node)| {
            let boot = format!("enclave {}, boot 0, seed {seed}", at + 1);
            let enclave = Enclave::new(boot, self.context.root());
            let again = Node::new(at, node.host.store.clone(), enclave);
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

    pub(super) fn after(&mut self, delay: u64, happening: Happening) {
        self.counter += 1;
        self.queue.insert((self.now + delay, self.counter), happening);
    }

    pub(super) fn within(&mut self, delays: std::ops::Range<u64>, happening: Happening) {
        let delay = self.draw.random_range(delays);
        self.after(delay, happening);
    }

    /// The true time.
    pub(super) fn wall(&self) -> UnixMillis {
        BEGIN.plus(i64::try_from(self.now).unwrap() + self.slept)
    }

    /// The time as a node has it.
    pub(super) fn clock(&self, at: usize) -> UnixMillis {
        self.wall().plus(self.nodes[at].host.clock)
    }

    pub(super) fn core(&self, at: usize) -> Option<&Core> {
        self.nodes[at].host.core.as_ref()
    }

    /// Time passes in which nobody does anything.
    pub(super) fn sleep(&mut self) {
        self.note(|| "a minute passes".to_owned());
        self.slept += 60_000;
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
            Happening::Worked(at, link, id, news) => self.worked(at, link, id, *news),
            Happening::Deliver(to, message) => self.feed(to, message.into()),
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
