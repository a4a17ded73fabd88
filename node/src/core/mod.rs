//! The agent's core: events go in, effects come out.
//!
//! It keeps the node's book of ceremonies, its part in deciding their order, and what its enclave was asked. It decides
//! nothing that matters: its enclave and the other nodes refuse whatever it does wrong. It must never act on an entry
//! before the store has it, never show a head before the store remembers it, and never append what its own fold
//! refuses. No clock, no I/O and no waiting: the shell and the simulations run the same code.

mod append;
mod backups;
mod duties;
mod effect;
mod enclave;
mod health;
mod past;
mod peers;
mod recheck;
mod record;
mod requests;
mod settle;
mod shelf;
mod stream;
mod trials;
mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ceremonies::attestation::EnclaveKeys;
use ceremonies::book::Book;
use ceremonies::ceremony::Duty;
use ceremonies::charter::Charter;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex};
use ceremonies::log::Entry;
use ceremonies::record::Memory;
use ceremonies::wire::log;
use enclave_link::message::{self, to_enclave};
use tracing::warn;

pub use self::effect::{
    Effect, Event, Failure, Mark, Now, Object, Request, RequestKind, StoreOp, StoreReply, StreamEntry,
    StreamError, StreamSeen, Ticket,
};
use self::health::Observed;
use self::past::Past;
use self::recheck::Recheck;
use self::record::Log;
pub(crate) use self::shelf::FOLD;
use self::shelf::Shelf;
pub use self::shelf::{Shelved, StoredLog};
use self::stream::Stream;
use self::trials::Trials;
use self::writer::{Work, Writer};

/// How often the shell reports that time has passed.
pub const TICK_MS: u64 = 200;
/// How often the core sees to what nothing reminds it of, and reports its health.
const LOOK_MS: u64 = 1000;

/// Who this node is.
pub struct Identity {
    /// Its index.
    pub node: NodeIndex,
    /// The cluster's first charter.
    pub charter: Arc<Charter>,
    /// Its NKey.
    pub nkey: nkeys::KeyPair,
}

impl Identity {
    pub(crate) fn is_listed(&self, charter: &Charter) -> bool {
        charter.node(self.node).is_some_and(|node| node.nkey == self.nkey.public_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, nkeys::error::Error> {
        self.nkey.sign(message)
    }
}

/// What a node remembers from before it started.
pub struct Remembered {
    /// The logs that are not shelved, folded.
    pub book: Book,
    /// The ceremonies that are shelved.
    pub shelf: Vec<Shelved>,
    /// Its ballots in the others.
    pub ballots: BTreeMap<CeremonyId, Memory>,
    /// The entries of branches that it does not stand on.
    pub aside: Vec<Entry>,
    /// How far it had read the stream.
    pub read_to: Option<Mark>,
}

/// What differs between nodes and between a cluster and a simulation.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often a vault that works is tried again, in milliseconds; none where this node has no vault.
    pub vault_check_ms: Option<u64>,
    /// How long a finished ceremony stays in memory after its last change, in milliseconds.
    pub shelve_after_ms: u64,
    /// How long after one log was read once more the next one is, in milliseconds.
    pub recheck_ms: u64,
}

/// What the enclave was asked and has not answered.
#[derive(Debug)]
enum Asked {
    /// A document for a ceremony.
    Attestation(CeremonyId),
    /// A document for the heartbeat.
    Health,
    /// A data key of the KMS, for a trial.
    Kms,
    /// Something to do in a ceremony.
    Start(CeremonyId, Duty),
}

impl Asked {
    fn ceremony(&self) -> Option<&CeremonyId> {
        match self {
            Self::Attestation(id) | Self::Start(id, _) => Some(id),
            Self::Health | Self::Kms => None,
        }
    }
}

/// Why an answer of the store or of a slow service is awaited.
#[derive(Debug)]
enum Waiting {
    /// The writer of the record; see [`Writer`].
    Record,
    /// Nothing depends on it; a failure is logged.
    Nothing(&'static str),
    /// The share to be made current.
    Promoted(CeremonyId),
    /// The claim of a test signature.
    Claimed(Box<duties::Order>),
    /// The share or backup for an order.
    OrderRead(Box<duties::Order>),
    /// The credentials for a trial of the KMS.
    TrialCredentials,
    /// The credentials for an order.
    OrderCredentials(Box<duties::Order>),
    /// A new share, to be shown to the enclave as it was read back.
    SealedStored(CeremonyId),
    /// The credentials for reopening a new share.
    SealedCredentials(CeremonyId, Vec<u8>),
    /// A ban, before the abort that reports it is appended.
    BanStored(CeremonyId, Box<log::event::Kind>),
    /// The old shares, before their deletion is reported.
    RetiredDeleted(CeremonyId, Box<log::event::Kind>),
    /// A log that comes back.
    Recalled(CeremonyId),
    /// A line in the place of a log.
    Shelved(Box<Shelved>),
    /// The shares that the heartbeat lists.
    Probed,
    /// A released backup that was handed in.
    ReleasedKept(CeremonyId, Box<Request>),
    /// A pending share that never commits.
    Discarded(CeremonyId),
    /// Backups that are put into the vault.
    Put(CeremonyId, Box<message::Backups>, Vec<Object>),
}

/// The agent's state.
pub struct Core {
    identity: Identity,
    now: Now,
    effects: Vec<Effect>,
    book: Book,
    logs: BTreeMap<CeremonyId, Log>,
    shelf: Shelf,
    /// Logs that were opened under a charter that is the wrong one as this node sees it now.
    not_allowed: BTreeMap<CeremonyId, Vec<Entry>>,
    stream: Stream,
    recheck: Recheck,
    writer: Writer,
    /// What the writer does next.
    work: VecDeque<Work>,
    /// Requests for the enclave and their answers.
    own: Option<EnclaveKeys>,
    enclave_build: String,
    asked: BTreeMap<u64, Asked>,
    next_request: u64,
    /// Sessions ordered on this connection, by label.
    ordered: BTreeSet<Hash>,
    pace: Pace,
    trials: Trials,
    vault_rests_until: u64,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: u64,
    observed: Observed,
    past: Past,
    /// Ceremonies that are not over.
    running: BTreeSet<CeremonyId>,
    /// Of these, the ones in which this node does not attest, and why, as was last reported.
    declined: BTreeMap<CeremonyId, String>,
    /// Ceremonies whose ballot an event or time may move.
    unsettled: BTreeSet<CeremonyId>,
    /// Whether anything happened that may have given this node something to do.
    duties_due: bool,
    /// The last log of which this node's head was repeated, where there were more.
    repeated_to: Option<CeremonyId>,
    /// What the store failed to do and is asked to do again.
    retries: Vec<(StoreOp, Waiting)>,
    /// When the core last saw to everything.
    looked_at: u64,
}

impl Core {
    /// The core of a node that remembers this.
    #[must_use]
    pub fn new(identity: Identity, remembered: Remembered, pace: Pace, now: Now) -> Self {
        let Remembered { book, shelf, ballots, aside, read_to } = remembered;
        let mut core = Self {
            identity,
            now,
            effects: Vec::new(),
            book,
            logs: BTreeMap::new(),
            shelf: Shelf::new(shelf, read_to.is_some()),
            not_allowed: BTreeMap::new(),
            stream: Stream::new(read_to),
            recheck: Recheck::default(),
            writer: Writer::Idle,
            work: VecDeque::new(),
            own: None,
            enclave_build: String::new(),
            asked: BTreeMap::new(),
            next_request: 1,
            ordered: BTreeSet::new(),
            pace,
            trials: Trials::default(),
            vault_rests_until: 0,
            waiting: BTreeMap::new(),
            next_ticket: 1,
            observed: Observed::default(),
            past: Past::new(now),
            running: BTreeSet::new(),
            declined: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            duties_due: true,
            repeated_to: None,
            retries: Vec::new(),
            looked_at: 0,
        };
        core.remember(ballots, aside);
        core
    }

    /// The book of the ceremonies that are not shelved, as this node has them.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The ceremonies that are shelved.
    pub fn shelf(&self) -> impl Iterator<Item = &Shelved> {
        self.shelf.iter()
    }

    fn node(&self) -> NodeIndex {
        self.identity.node
    }

    /// Takes an event, and returns what is to be done.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        self.now = now;
        self.take_event(event);
        self.write_on();
        self.do_duties();
        std::mem::take(&mut self.effects)
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Tick => self.tick(),
            Event::Connected => self.connected(),
            Event::Disconnected => self.stream.lost(),
            Event::StreamSeen(seen) => self.stream_seen(seen),
            Event::StreamRead(read) => self.stream_read(read),
            Event::LogRead(read) => self.log_read(read),
            Event::Appended(appended) => self.appended(appended),
            Event::Heads(bytes) => self.heads(&bytes),
            Event::FromPeer(from, bytes) => self.hear_peer(from, &bytes),
            Event::Heartbeat(bytes) => self.peer_heartbeat(&bytes),
            Event::Request(request) => self.request(request),
            Event::Enclave(kind) => self.enclave_says(kind),
            Event::KmsReached(reached) => self.trials.kms_reached(reached),
            Event::EnclaveLost => self.enclave_lost(),
            Event::LinkState(state) => {
                self.observed.link = state;
                self.observed.linked_at = self.now.steady;
                self.note_troubles();
            }
            Event::Stored(ticket, result) => self.stored(ticket, result),
            Event::Credentials(ticket, result) => self.credentials(ticket, result),
            Event::Preflighted(result) => self.vault_tried(result),
            Event::Put(ticket, result) => self.put(ticket, result),
        }
    }

    fn tick(&mut self) {
        self.retry_store();
        self.settle_again();
        self.recheck();
        if self.now.steady.saturating_sub(self.looked_at) >= LOOK_MS || self.looked_at == 0 {
            self.looked_at = self.now.steady;
            self.note_troubles();
            self.duties_due = true;
            for (op, waiting) in std::mem::take(&mut self.retries) {
                self.store(op, waiting);
            }
            self.look_at_stream();
            self.ask_peers();
            self.recall_makers();
            self.append_again();
            self.shelve();
            self.drop_what_never_commits();
            self.try_again();
            self.report_health();
            self.repeat_heads();
        }
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn publish(&mut self, subject: String, payload: Vec<u8>) {
        self.effect(Effect::Publish { subject, payload });
    }

    fn tell_enclave(&mut self, kind: to_enclave::Kind) {
        self.effect(Effect::ToEnclave(Box::new(kind)));
    }

    fn ticket(&mut self, waiting: Waiting) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, waiting);
        ticket
    }

    fn store(&mut self, op: StoreOp, waiting: Waiting) {
        let ticket = self.ticket(waiting);
        self.effect(Effect::Store(ticket, Box::new(op)));
    }

    /// Has the store do something again with the next look.
    fn later(&mut self, op: StoreOp, waiting: Waiting) {
        self.retries.push((op, waiting));
    }

    fn stored(&mut self, ticket: Ticket, result: Result<StoreReply, Failure>) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        match (&waiting, &result) {
            (Waiting::Record, Ok(_)) => self.observed.record.cleared(),
            (Waiting::Record, Err(trouble)) => self.observed.record.rose(trouble, self.now),
            // That something else can be read or written says nothing of what could not be.
            (Waiting::Probed, Ok(_)) => self.observed.store.cleared(),
            (_, Ok(_)) => {}
            (_, Err(trouble)) => self.observed.store.rose(trouble, self.now),
        }
        match waiting {
            Waiting::Record => self.record_stored(result.map(|_| ())),
            Waiting::Nothing(what) => {
                if let Err(trouble) = result {
                    warn!(what, %trouble, "the store failed");
                }
            }
            Waiting::Promoted(ceremony) => self.promoted(&ceremony, result.map(|_| ())),
            Waiting::Claimed(order) => self.claimed(order, result),
            Waiting::OrderRead(order) => self.order_read(order, result),
            Waiting::SealedStored(ceremony) => self.sealed_stored(ceremony, result),
            Waiting::BanStored(ceremony, kind) => self.ban_stored(&ceremony, *kind, result.map(|_| ())),
            Waiting::RetiredDeleted(ceremony, kind) => {
                self.retired_deleted(&ceremony, *kind, result.map(|_| ()));
            }
            Waiting::Recalled(ceremony) => self.recalled(&ceremony, result),
            Waiting::Shelved(line) => self.is_shelved(*line, result.map(|_| ())),
            Waiting::Probed => self.probed(result),
            Waiting::ReleasedKept(ceremony, request) => {
                self.released_kept(&ceremony, &request, result.map(|_| ()));
            }
            Waiting::Discarded(ceremony) => self.discarded(&ceremony, result.map(|_| ())),
            Waiting::OrderCredentials(_)
            | Waiting::SealedCredentials(..)
            | Waiting::TrialCredentials
            | Waiting::Put(..) => {
                warn!("the store gave an answer of the wrong kind");
            }
        }
    }
}
