//! The agent's shell: it does what the core asks for, and reports what happened.
//!
//! The loop here never waits for anything but the next event: the stream, the store, the vault and credentials have
//! tasks of their own with deadlines, and protocol messages bypass it altogether. It decides nothing.

mod bus;
mod intake;
mod metrics;
mod slow;
mod start;
mod stream;
mod unwell;

use std::fs::File;
use std::time::{Duration, Instant};

use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, NodeIndex, UnixMillis};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::bus::Bus;
pub use self::bus::BusError;
use self::intake::Surplus;
use self::metrics::Metrics;
use self::slow::Slow;
use self::start::Ready;
pub use self::start::{StartError, charter_in_force, check, take_bundle};
use self::stream::LogStream;
pub use self::unwell::complain;
use crate::config::Config;
use crate::core::{Core, Effect, Event, Failure, Now, Pace, StoreOp, StreamError, TICK_MS, Ticket};
use crate::link::{self, EnclaveLink, LinkEvent, LinkState};
use crate::store::Store;
use crate::vault::Vault;

/// Events that may wait for the core; further senders wait.
const MAX_EVENTS: usize = 64;
/// Store operations that may wait; the core asks for one at a time where order matters.
const MAX_STORE_OPS: usize = 1024;
/// Requests of the stream that may wait: one that writes or reads, one that reads once more, and one that looks.
const MAX_STREAM_OPS: usize = 8;
/// Messages that may wait to be published; they are news, and answers that consoles ask for again.
const MAX_PUBLISHED: usize = 1024;
/// How long the store may take for one operation.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// How long after one log of the stream was read once more the next one is, in milliseconds: ten thousand ceremonies
/// take a day.
const RECHECK_MS: u64 = 10_000;

pub(crate) fn now() -> UnixMillis {
    UnixMillis(jiff::Timestamp::now().as_millisecond())
}

/// What the stream's task does.
enum StreamOp {
    Inspect(Option<crate::core::Mark>),
    Read(Option<CeremonyId>, u64),
    ReadLog(CeremonyId, u64),
    Append(CeremonyId, Option<u64>, u64, Vec<u8>),
}

/// A running agent.
pub struct Agent {
    node: NodeIndex,
    core: Core,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    store: mpsc::Sender<(Ticket, StoreOp)>,
    /// Keeps another agent from the same store as long as this one runs.
    _claim: Option<File>,
    stream: mpsc::Sender<StreamOp>,
    publish: mpsc::Sender<(String, Vec<u8>)>,
    link: EnclaveLink,
    slow: Slow,
    metrics: Option<Metrics>,
    tasks: JoinSet<()>,
    begun: Instant,
}

impl Agent {
    /// Opens the store, folds the node's own copy of all logs, and connects.
    ///
    /// # Errors
    /// [`StartError`]; a bus or enclave that is merely unreachable is not an error: the agent waits for it.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let begun = Instant::now();
        let Ready { identity, store, claim, remembered, vault } = start::ready(&config).await?;
        let node = identity.node;
        let cluster = identity.charter.cluster().clone();
        let mut tasks = JoinSet::new();
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        // No amendment makes a node that was not in the first charter.
        let peers = identity.charter.nodes().iter().map(|peer| peer.index);
        let surplus = Surplus::of(peers.filter(|peer| *peer != node));
        let bus = Bus::connect(&config.nats, node, &cluster, &surplus, sender.clone()).await?;
        bus.subscribe(node, &surplus, &sender, &mut tasks).await?;
        let (link, incoming) = link::start(config.enclave.clone(), config.kms.endpoint.clone(), &mut tasks);
        bus.relay(node, &surplus, link.clone(), incoming.to_peers, &mut tasks).await?;
        tasks.spawn(hear_enclave(incoming.events, sender.clone()));
        tasks.spawn(watch_link(link.clone(), sender.clone()));
        let (store_ops, queue) = mpsc::channel(MAX_STORE_OPS);
        tasks.spawn(keep_store(store, node, queue, sender.clone()));
        let (stream, queue) = mpsc::channel(MAX_STREAM_OPS);
        tasks.spawn(keep_stream(LogStream::new(bus.own.clone()), queue, sender.clone()));
        let (publish, queue) = mpsc::channel(MAX_PUBLISHED);
        tasks.spawn(keep_publishing(bus.own, queue));
        let check_every = |vault: &Vault| u64::try_from(vault.check_every().as_millis()).unwrap_or(u64::MAX);
        let pace = Pace {
            vault_check_ms: vault.as_ref().map(check_every),
            shelve_after_ms: u64::from(config.shelve_after_s) * 1000,
            recheck_ms: RECHECK_MS,
        };
        let metrics = config.metrics.as_ref();
        let metrics = metrics.and_then(|at| Metrics::serve(node, at.listen.address(), surplus, &mut tasks));
        let slow = Slow::new(config.kms.credentials.clone(), vault, sender.clone());
        let core = Core::new(identity, remembered, pace, steady(begun));
        let store = store_ops;
        Ok(Self {
            node,
            core,
            events,
            sender,
            store,
            _claim: claim,
            stream,
            publish,
            link,
            slow,
            metrics,
            tasks,
            begun,
        })
    }

    /// Works until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        info!(node = %self.node, "agent started");
        let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = self.events.recv() => event,
                _ = tick.tick() => Event::Tick,
            };
            self.slow.reap();
            for effect in self.core.handle(steady(self.begun), event) {
                self.perform(effect);
            }
        }
        self.tasks.abort_all();
        info!("agent stopped");
    }

    /// Hands an effect to the task that performs it, without waiting.
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::InspectStream(mark) => {
                // A look that finds no room is repeated later.
                let _ = self.stream.try_send(StreamOp::Inspect(mark));
            }
            Effect::ReadStream { of, after } => self.to_stream(StreamOp::Read(of, after)),
            Effect::ReadLog { ceremony, after } => self.to_stream(StreamOp::ReadLog(ceremony, after)),
            Effect::Append { ceremony, expected, read_to, entry } => {
                self.to_stream(StreamOp::Append(ceremony, expected, read_to, entry));
            }
            Effect::Publish { subject, payload } => {
                if self.publish.try_send((subject, payload)).is_err() {
                    warn!("the bus accepts no messages: one was lost");
                }
            }
            Effect::Measure(heartbeat) => {
                if let Some(metrics) = &self.metrics {
                    metrics.take(self.core.book().context().charter(), &heartbeat);
                }
            }
            Effect::Store(ticket, op) => {
                if self.store.try_send((ticket, *op)).is_err() {
                    self.tell(Event::Stored(ticket, Err("the store's queue is full".into())));
                }
            }
            Effect::ToEnclave(kind) => {
                if !self.link.try_send(*kind) {
                    error!("the enclave is not reading: an order was lost");
                }
            }
            Effect::FetchCredentials(ticket) => self.slow.fetch_credentials(ticket),
            Effect::Preflight => self.slow.preflight(),
            Effect::Put(ticket, objects, until) => self.slow.put(ticket, objects, until),
        }
    }

    fn to_stream(&self, op: StreamOp) {
        if let Err(refused) = self.stream.try_send(op) {
            let busy = || StreamError::Unavailable("the request queue is full".to_owned());
            match refused.into_inner() {
                StreamOp::Inspect(_) => {}
                StreamOp::Read(..) => self.tell(Event::StreamRead(Err(busy()))),
                StreamOp::ReadLog(..) => self.tell(Event::LogRead(Err(busy()))),
                StreamOp::Append(..) => self.tell(Event::Appended(Err(busy()))),
            }
        }
    }

    /// Tells the core something from here.
    fn tell(&self, event: Event) {
        let sender = self.sender.clone();
        tokio::spawn(async move { sender.send(event).await });
    }
}

fn steady(begun: Instant) -> Now {
    let steady = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    // Moment 0 stands for never: nothing happened then.
    Now { wall: now(), steady: steady + 1 }
}

async fn hear_enclave(mut messages: mpsc::Receiver<LinkEvent>, events: mpsc::Sender<Event>) {
    while let Some(message) = messages.recv().await {
        let event = match message {
            LinkEvent::Message(kind) => Event::Enclave(kind),
            LinkEvent::Kms(reached) => {
                Event::KmsReached(reached.map_err(|unreachable| Failure::of(&unreachable)))
            }
            LinkEvent::Lost => Event::EnclaveLost,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

async fn watch_link(mut link: EnclaveLink, events: mpsc::Sender<Event>) {
    loop {
        let state = match link.state() {
            LinkState::Up => Ok(()),
            LinkState::Down(why) => Err(why.into()),
        };
        if events.send(Event::LinkState(state)).await.is_err() || link.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_store(
    store: Store,
    node: NodeIndex,
    mut queue: mpsc::Receiver<(Ticket, StoreOp)>,
    events: mpsc::Sender<Event>,
) {
    while let Some((ticket, op)) = queue.recv().await {
        let done = tokio::time::timeout(STORE_PATIENCE, store.perform(node, op)).await;
        let result = match done {
            Ok(done) => done.map_err(|error| Failure::of(&error)),
            Err(_) => Err(format!("the store did not answer within {} s", STORE_PATIENCE.as_secs()).into()),
        };
        if events.send(Event::Stored(ticket, result)).await.is_err() {
            return;
        }
    }
}

async fn keep_stream(stream: LogStream, mut queue: mpsc::Receiver<StreamOp>, events: mpsc::Sender<Event>) {
    while let Some(op) = queue.recv().await {
        let event = match op {
            StreamOp::Inspect(mark) => Event::StreamSeen(stream.inspect(mark).await),
            StreamOp::Read(of, after) => {
                let subjects = of.map_or_else(|| subject::LOGS.to_owned(), |id| subject::log(&id));
                Event::StreamRead(stream.read(&subjects, after).await)
            }
            StreamOp::ReadLog(ceremony, after) => {
                Event::LogRead(stream.read(&subject::log(&ceremony), after).await)
            }
            StreamOp::Append(ceremony, expected, read_to, entry) => {
                Event::Appended(stream.append(&ceremony, expected, read_to, entry).await)
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

async fn keep_publishing(client: async_nats::Client, mut queue: mpsc::Receiver<(String, Vec<u8>)>) {
    while let Some((subject, payload)) = queue.recv().await {
        if let Err(error) = client.publish(subject, payload.into()).await {
            warn!(%error, "message not sent");
        }
    }
}
