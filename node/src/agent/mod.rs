//! The agent: one task that owns the node's book of ceremonies and moves bytes between bus, enclave and
//! store.
//!
//! It decides nothing that matters: whatever it does wrong, its enclave and the other nodes refuse. It must
//! never act before its own copy of the log is stored, and never append what its own fold refuses.

mod append;
mod backups;
mod duties;
mod enclave;
mod health;
mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ::enclave::wire::link::to_enclave;
use ceremonies::attestation::{EnclaveKeys, InvalidRoot, TrustRoot};
use ceremonies::book::{Book, Examined, Next, NotTaken};
use ceremonies::ceremony::{Context, Duty, ForeignRoot};
use ceremonies::charter::{Charter, CharterError};
use ceremonies::entry::{Entry, EntryError};
use ceremonies::evidence::{self, Expected, VerifyError};
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::text::chain;
use ceremonies::wire::log;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::health::Observed;
use crate::bus::{Bus, BusError, BusEvent, StreamEntry};
use crate::config::Config;
use crate::link::{self, EnclaveLink, LinkEvent};
use crate::store::{Store, StoreError};
use crate::vault::{Vault, VaultError};

/// How often the agent looks after what nothing reminds it of, and says how it is.
const TICK: Duration = Duration::from_secs(1);

/// Why an agent does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A file of the configuration cannot be read.
    #[error("{what} {path} cannot be read")]
    Read {
        /// What it should be.
        what: &'static str,
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The charter is refused.
    #[error("the charter is refused")]
    Charter(#[from] CharterError),
    /// The root is no certificate.
    #[error("the attestation root is refused")]
    Root(#[from] InvalidRoot),
    /// The root is not the charter's.
    #[error("charter and attestation root do not belong together")]
    Foreign(#[from] ForeignRoot),
    /// The charter lists no such node, or the one in force another key for it.
    #[error("node {0} stands in the charter with another NKey than the seed's, or not at all")]
    NotInCharter(NodeIndex),
    /// The charter in force excludes the node.
    #[error(
        "node {0} is excluded by the charter in force, and takes part in nothing until an amendment takes it back with \
         a new NKey"
    )]
    Excluded(NodeIndex),
    /// The seed is none.
    #[error("the NKey seed cannot be used")]
    Seed,
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// The bus cannot be set up.
    #[error("the bus cannot be set up")]
    Bus(#[from] BusError),
    /// The vault cannot be used.
    #[error("the vault cannot be used")]
    Vault(#[from] VaultError),
    /// The bundle does not verify.
    #[error("the bundle is refused")]
    Bundle(#[from] VerifyError),
    /// The own copy of an entry cannot be read.
    #[error("entry {seq} of {ceremony} in this node's store is damaged; restore the store from a copy")]
    DamagedEntry {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// Which entry.
        seq: u64,
        /// Why.
        source: EntryError,
    },
    /// The bundle and the own logs contradict each other.
    #[error("the bundle holds an entry that does not follow this node's own copy of its log")]
    Contradicted(#[from] NotTaken),
}

fn read(what: &'static str, path: &std::path::Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::Read { what, path: path.to_owned(), source })
}

/// What identifies this node, read and checked before anything is connected.
pub struct Identity {
    node: NodeIndex,
    charter: Arc<Charter>,
    context: Context,
    nkey: nkeys::KeyPair,
}

impl Identity {
    /// Reads charter, root and seed, and checks that they belong together.
    ///
    /// # Errors
    /// [`StartError`] names what does not fit.
    pub fn load(config: &Config) -> Result<Self, StartError> {
        let charter = Arc::new(Charter::parse(&read("the charter", &config.charter)?)?);
        let root = TrustRoot::from_pem(&read("the attestation root", &config.root)?)?;
        let context = Context::new(Arc::clone(&charter), Arc::new(root))?;
        let seed = zeroize::Zeroizing::new(read("the NKey seed", &config.nats.seed)?);
        let seed = std::str::from_utf8(&seed).map_err(|_| StartError::Seed)?;
        let nkey = nkeys::KeyPair::from_seed(seed.trim()).map_err(|_| StartError::Seed)?;
        if charter.node(config.node).is_none() {
            return Err(StartError::NotInCharter(config.node));
        }
        Ok(Self { node: config.node, charter, context, nkey })
    }

    fn is_listed(&self, charter: &Charter) -> bool {
        charter.node(self.node).is_some_and(|node| node.nkey == self.nkey.public_key())
    }
}

/// Where the stream's copy of a ceremony ends.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    /// The stream's sequence of the ceremony's last message.
    stream: u64,
    /// The number of that entry.
    entry: u64,
}

/// The agent's state. Owned by [`Agent::run`].
pub struct Agent {
    identity: Identity,
    config: Config,
    book: Book,
    tails: BTreeMap<CeremonyId, Tail>,
    /// The stream's sequence up to which this node has read everything.
    read_to: u64,
    store: Store,
    bus: Bus,
    link: EnclaveLink,
    link_events: mpsc::Receiver<LinkEvent>,
    tasks: JoinSet<()>,
    /// The keys of the enclave that is connected now.
    own: Option<EnclaveKeys>,
    enclave_build: String,
    /// Requests to the enclave that it has not answered.
    asked: BTreeMap<u64, Asked>,
    next_request: u64,
    /// Sessions ordered on this connection, by label.
    ordered: BTreeSet<Hash>,
    /// What was said once and could not be appended: no duty finds it again.
    unsaid: VecDeque<(CeremonyId, log::event::Kind)>,
    /// Where backups go.
    vault: Option<Vault>,
    /// Ceremonies for which the vault was found ready.
    preflighted: BTreeSet<CeremonyId>,
    vault_rests_until: UnixMillis,
    observed: Observed,
}

/// What the agent is waiting for from the enclave.
enum Asked {
    /// A document for a ceremony.
    Attestation(CeremonyId),
    /// A document for the heartbeat.
    Health,
    /// Something to do in a ceremony.
    Start(CeremonyId, Duty),
}

fn now() -> UnixMillis {
    UnixMillis(jiff::Timestamp::now().as_millisecond())
}

/// The charter that is in force by this node's own copy of the logs.
///
/// # Errors
/// [`StartError`].
pub async fn charter_in_force(config: &Config) -> Result<Arc<Charter>, StartError> {
    let book = own_book(&Identity::load(config)?, &Store::open(&config.store).await?).await?;
    Ok(Arc::clone(book.context().charter()))
}

/// Checks that the charter in force, by this node's own copy of the logs, lists the node with its key and does not
/// exclude it.
///
/// # Errors
/// [`StartError`].
pub async fn check(config: &Config) -> Result<(), StartError> {
    let identity = Identity::load(config)?;
    let charter = charter_in_force(config).await?;
    if charter.excludes(config.node) {
        return Err(StartError::Excluded(config.node));
    }
    if identity.is_listed(&charter) { Ok(()) } else { Err(StartError::NotInCharter(config.node)) }
}

/// Puts the logs of an evidence bundle into the store of a node that has none: how a cluster that lost everything begins
/// to know again. Returns how many ceremonies the store knows then.
///
/// # Errors
/// [`StartError`], with the store as it was for the first log that is refused and those after it.
pub async fn take_bundle(config: &Config, bundle: &[u8]) -> Result<usize, StartError> {
    let identity = Identity::load(config)?;
    let store = Store::open(&config.store).await?;
    let mut book = own_book(&identity, &store).await?;
    let expected = Expected { charter: Some(identity.charter.hash()), ..Expected::default() };
    for entry in evidence::logs(bundle, &expected)?.into_iter().flatten() {
        if let Examined::New(next) = book.examine(entry)? {
            store.append_entry(next.entry()).await?;
            book.commit(*next);
        }
    }
    Ok(book.iter().count())
}

/// The book of all logs in the store. What does not fold never keeps the agent from starting: it is said, and left out.
async fn own_book(identity: &Identity, store: &Store) -> Result<Book, StartError> {
    let (book, aside) = Book::gather(identity.context.clone(), own_copies(store).await?);
    for log in aside {
        let (ceremony, from, why) = (&log.ceremony, log.from(), chain(&log.why));
        error!(%ceremony, from, %why, "own copy of a log does not fold: set aside");
    }
    Ok(book)
}

async fn own_copies(store: &Store) -> Result<Vec<Vec<Entry>>, StartError> {
    let mut logs = Vec::new();
    for ceremony in store.ceremonies().await? {
        let mut log = Vec::new();
        for (seq, raw) in (1..).zip(store.entries_from(&ceremony, 1).await?) {
            let damaged = |source| StartError::DamagedEntry { ceremony: ceremony.clone(), seq, source };
            log.push(Entry::from_wire(raw).map_err(damaged)?);
        }
        logs.push(log);
    }
    Ok(logs)
}

impl Agent {
    /// Opens the store, folds the node's own copy of all logs, and connects.
    ///
    /// # Errors
    /// [`StartError`]; a bus or enclave that is only unreachable is no error, it is waited for.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let identity = Identity::load(&config)?;
        let store = Store::open(&config.store).await?;
        let book = own_book(&identity, &store).await?;
        let charter = book.context().charter();
        if charter.excludes(identity.node) {
            warn!(node = %identity.node, "the charter in force excludes this node: it takes part in nothing");
        } else if !identity.is_listed(charter) {
            warn!(node = %identity.node, "the charter in force lists another NKey for this node: amend it");
        }
        let vault = config.vault.as_ref().map(Vault::open).transpose()?;
        let mut tasks = JoinSet::new();
        let bus = Bus::connect(&config.nats, identity.node, identity.charter.cluster(), &mut tasks).await?;
        let (link, link_events) =
            link::start(config.enclave.clone(), config.kms.endpoint.clone(), &mut tasks);
        Ok(Self {
            identity,
            config,
            book,
            tails: BTreeMap::new(),
            read_to: 0,
            store,
            bus,
            link,
            link_events,
            tasks,
            own: None,
            enclave_build: String::new(),
            asked: BTreeMap::new(),
            next_request: 1,
            ordered: BTreeSet::new(),
            unsaid: VecDeque::new(),
            vault,
            preflighted: BTreeSet::new(),
            vault_rests_until: UnixMillis(0),
            observed: Observed::default(),
        })
    }

    fn node(&self) -> NodeIndex {
        self.identity.node
    }

    /// Works until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        info!(node = %self.node(), cluster = %self.identity.charter.cluster(), "agent started");
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = self.bus.next() => self.bus_event(event).await,
                Some(event) = self.link_events.recv() => self.link_event(event).await,
                _ = tick.tick() => self.look_after().await,
            }
        }
        self.tasks.shutdown().await;
        info!("agent stopped");
    }

    async fn bus_event(&mut self, event: BusEvent) {
        match event {
            BusEvent::Entry(entry) => {
                let seq = entry.stream_seq;
                match self.streamed(entry).await {
                    // Nothing is deleted from the stream, so its sequences have no gaps.
                    Ok(()) if seq == self.read_to + 1 => self.read_to = seq,
                    Ok(()) => {}
                    Err(error) => error!(error = %chain(&error), "entry not stored"),
                }
                self.do_duties().await;
            }
            BusEvent::Request(request) => {
                self.request(request).await;
                self.do_duties().await;
            }
            BusEvent::Session { label, from, payload } => {
                self.observed.heard(from);
                let deliver = ::enclave::wire::link::Deliver {
                    label: label.as_bytes().to_vec(),
                    from: from.into(),
                    payload: payload.to_vec(),
                };
                self.link.send(to_enclave::Kind::Deliver(deliver)).await;
            }
            BusEvent::Health { from } if from == self.node() => {}
            BusEvent::Health { from } => self.observed.heard(from),
            BusEvent::Connected => {
                info!("bus connected");
                // What this node knew of the stream may not hold any more.
                self.tails.clear();
                self.read_to = 0;
                self.restore_stream().await;
                self.say_what_was_not_taken().await;
            }
        }
    }

    /// An entry from the stream: into the own store first, then into the fold. What is no entry of its ceremony, or one
    /// that the fold refuses, is passed over.
    async fn streamed(&mut self, entry: StreamEntry) -> Result<(), StoreError> {
        let StreamEntry { ceremony, stream_seq, payload } = entry;
        let entry = match Entry::decode(&payload) {
            Ok(entry) if entry.ceremony == ceremony => entry,
            Ok(entry) => {
                self.passes_over(&ceremony, stream_seq);
                warn!(%ceremony, found = %entry.ceremony, "entry on another ceremony's subject ignored");
                return Ok(());
            }
            Err(error) => {
                self.passes_over(&ceremony, stream_seq);
                warn!(%ceremony, error = %chain(&error), "unreadable entry ignored");
                return Ok(());
            }
        };
        let seq = entry.seq;
        match self.take(entry).await {
            Ok(()) => {
                let tail = self.tails.entry(ceremony).or_default();
                if stream_seq > tail.stream {
                    *tail = Tail { stream: stream_seq, entry: seq };
                }
            }
            Err(TakeError::Store(error)) => return Err(error),
            Err(TakeError::Book(refused)) => {
                self.passes_over(&ceremony, stream_seq);
                warn!(%ceremony, refused = %chain(&refused), "entry in the stream not taken");
            }
        }
        Ok(())
    }

    /// A message that is no entry holds a place in the stream all the same; what follows it must name it.
    fn passes_over(&mut self, ceremony: &CeremonyId, stream_seq: u64) {
        let tail = self.tails.entry(ceremony.clone()).or_default();
        tail.stream = tail.stream.max(stream_seq);
    }

    /// Takes an entry: judged first, so that the store holds only what folds, and stored before anything
    /// is built on it.
    async fn take(&mut self, entry: Entry) -> Result<(), TakeError> {
        if let Examined::New(next) = self.book.examine(entry)? {
            self.store.append_entry(next.entry()).await?;
            self.commit(*next);
        }
        Ok(())
    }

    /// What was opened too late under the charter before an amendment leaves the book; its log stays in the store.
    fn commit(&mut self, next: Next) {
        for log in self.book.commit(next) {
            warn!(ceremony = %log.ceremony, why = %chain(&log.why), "set aside: another charter is in force");
        }
        self.observed.entries += 1;
    }
}

/// Why an entry is not taken.
#[derive(Debug, Error)]
enum TakeError {
    #[error("the store did not take it")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Book(#[from] NotTaken),
}
