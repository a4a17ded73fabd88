//! The agent's side of the bus: NATS core for sessions and news, one JetStream stream for the log.
//!
//! The log is read by sequence, not by a consumer: what is live on its subject is only a hint that there is
//! something to read, because the broker shows a message before it has accepted it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream::{
    Config as StreamConfig, DirectGetError, DirectGetErrorKind, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{
    self, context::PublishErrorKind, message::PublishMessage, stream::DiscardPolicy,
};
use async_nats::{Client, ConnectOptions, Event, Message};
use bytes::Bytes;
use ceremonies::ids::{CeremonyId, ClusterId, Hash, NodeIndex};
use ceremonies::subject;
use futures_util::StreamExt;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config;

/// Messages that may wait for the agent: two rounds of the largest cluster, with room.
const MAX_WAITING: usize = 512;
/// How often the stream is looked at when nothing hints at news.
const LOOK: Duration = Duration::from_secs(1);
/// How long the broker may take to acknowledge.
const ACK: Duration = Duration::from_secs(3);
/// The group of agents of which one answers a console.
const QUEUE: &str = "agents";

/// Why the bus cannot be set up.
#[derive(Debug, Error)]
pub enum BusError {
    /// The seed cannot be read.
    #[error("NKey seed {0} cannot be read")]
    Seed(std::path::PathBuf, #[source] std::io::Error),
    /// The servers' addresses are malformed, or the client cannot start.
    #[error("the NATS client cannot be started")]
    Connect(#[source] async_nats::ConnectError),
    /// A subscription failed.
    #[error("a subscription failed")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// A message could not be sent.
    #[error("the bus did not take a message")]
    Publish(#[source] async_nats::PublishError),
}

/// Why an entry is not in the stream.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Somebody else appended first.
    #[error("the ceremony's log has grown meanwhile")]
    Conflict,
    /// The broker does not answer.
    #[error("the broker does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the bus brings.
#[derive(Debug)]
pub enum BusEvent {
    /// The connection is there (again).
    Connected,
    /// The stream's next entry.
    Entry(StreamEntry),
    /// A session message.
    Session {
        /// The session's label.
        label: Hash,
        /// The sender, as the broker has it.
        from: NodeIndex,
        /// The envelope.
        payload: Bytes,
    },
    /// Another node's heartbeat.
    Health {
        /// Whose.
        from: NodeIndex,
    },
    /// A console asks.
    Request(Request),
}

/// An entry of the stream.
#[derive(Debug)]
pub struct StreamEntry {
    /// The ceremony that its subject names.
    pub ceremony: CeremonyId,
    /// Its sequence in the stream.
    pub stream_seq: u64,
    /// The entry's bytes.
    pub payload: Bytes,
}

/// What a console asks.
#[derive(Debug)]
pub struct Request {
    /// What it is about.
    pub kind: RequestKind,
    /// The request's bytes.
    pub payload: Bytes,
    reply: async_nats::Subject,
}

/// What a console's request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestKind {
    /// Submit an event.
    Submit(CeremonyId),
    /// Read a log.
    Read(CeremonyId),
    /// List ceremonies.
    List,
    /// Hand in a backup for this node's enclave.
    Backup,
}

/// The agent's connection to the bus.
pub struct Bus {
    node: NodeIndex,
    client: Client,
    jetstream: jetstream::Context,
    events: mpsc::Receiver<BusEvent>,
}

/// The stream as every node makes it: whoever comes first makes the same.
fn stream_config() -> StreamConfig {
    StreamConfig {
        name: subject::STREAM.to_owned(),
        subjects: vec![subject::LOGS.to_owned()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_message_size: i32::try_from(subject::MAX_PAYLOAD).unwrap_or(i32::MAX),
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        ..StreamConfig::default()
    }
}

impl Bus {
    /// Connects, now or as soon as the broker is there, and subscribes to all that concerns this node.
    ///
    /// # Errors
    /// [`BusError`] for what waiting would not mend.
    pub async fn connect(
        config: &config::Nats,
        node: NodeIndex,
        cluster: &ClusterId,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, BusError> {
        let seed = tokio::fs::read_to_string(&config.seed)
            .await
            .map_err(|error| BusError::Seed(config.seed.clone(), error))?;
        let (sender, events) = mpsc::channel(MAX_WAITING);
        let woken = Arc::new(Notify::new());
        let anew = Arc::new(AtomicBool::new(false));
        let (on_event, wake, read_anew) = (sender.clone(), Arc::clone(&woken), Arc::clone(&anew));
        let client = ConnectOptions::with_nkey(seed.trim().to_owned())
            .name(format!("node {node} of {cluster}"))
            .custom_inbox_prefix(subject::node_inbox(node))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(100u64.saturating_mul(1 << attempt.min(6)))
            })
            .event_callback(move |event| {
                let (on_event, wake, read_anew) =
                    (on_event.clone(), Arc::clone(&wake), Arc::clone(&read_anew));
                async move {
                    match event {
                        Event::Connected => {
                            read_anew.store(true, Ordering::Relaxed);
                            wake.notify_one();
                            let _ = on_event.send(BusEvent::Connected).await;
                        }
                        event => warn!(%event, "bus"),
                    }
                }
            })
            .connect(&config.servers)
            .await
            .map_err(BusError::Connect)?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ACK);
        let bus = Self { node, client, jetstream, events };
        bus.subscribe(&sender, &woken, tasks).await?;
        tasks.spawn(follow(bus.jetstream.clone(), sender, woken, anew));
        Ok(bus)
    }

    async fn subscribe(
        &self,
        sender: &mpsc::Sender<BusEvent>,
        woken: &Arc<Notify>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), BusError> {
        let client = &self.client;
        let failed = BusError::Subscribe;
        let plain = [subject::sessions_to(self.node), subject::HEALTH.to_owned(), subject::backup(self.node)];
        for subject in plain {
            let subscription = client.subscribe(subject).await.map_err(failed)?;
            tasks.spawn(pass_on(subscription, sender.clone()));
        }
        for subject in [subject::SUBMISSIONS, subject::READS, subject::LIST] {
            let subscription = client.queue_subscribe(subject, QUEUE.to_owned()).await.map_err(failed)?;
            tasks.spawn(pass_on(subscription, sender.clone()));
        }
        let mut hints = client.subscribe(subject::LOGS).await.map_err(failed)?;
        let wake = Arc::clone(woken);
        tasks.spawn(async move {
            while hints.next().await.is_some() {
                wake.notify_one();
            }
        });
        Ok(())
    }

    /// What the bus brings next.
    pub async fn next(&mut self) -> Option<BusEvent> {
        self.events.recv().await
    }

    /// Appends to a ceremony's log, if the last message of its subject has this sequence (0 for none).
    /// Returns the new message's sequence in the stream.
    ///
    /// # Errors
    /// [`AppendError::Conflict`] if it has not.
    pub async fn append(
        &self,
        ceremony: &CeremonyId,
        expected: u64,
        entry: Vec<u8>,
    ) -> Result<u64, AppendError> {
        let message = PublishMessage::build().payload(entry.into()).expected_last_subject_sequence(expected);
        let sent = self.jetstream.send_publish(subject::log(ceremony), message).await;
        let acknowledged = match sent {
            Ok(acknowledged) => acknowledged.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(acknowledged) => Ok(acknowledged.sequence),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Err(AppendError::Conflict),
            Err(error) => Err(AppendError::Unavailable(Box::new(error))),
        }
    }

    /// The stream's first entry behind this sequence; none at its end.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`] when the broker does not answer.
    pub async fn entry_after(&self, stream_seq: u64) -> Result<Option<StreamEntry>, AppendError> {
        let stream = self
            .jetstream
            .get_stream_no_info(subject::STREAM)
            .await
            .map_err(|error| AppendError::Unavailable(Box::new(error)))?;
        entry_after(&stream, stream_seq).await.map_err(|error| AppendError::Unavailable(Box::new(error)))
    }

    /// Sends a session message.
    ///
    /// # Errors
    /// [`BusError::Publish`].
    pub async fn send_session(&self, to: NodeIndex, label: &Hash, envelope: Vec<u8>) -> Result<(), BusError> {
        self.publish(subject::session(to, label, self.node), envelope).await
    }

    /// Says how this node is.
    ///
    /// # Errors
    /// [`BusError::Publish`].
    pub async fn publish_health(&self, heartbeat: Vec<u8>) -> Result<(), BusError> {
        self.publish(subject::health(self.node), heartbeat).await
    }

    /// Says how far this node is in a ceremony.
    ///
    /// # Errors
    /// [`BusError::Publish`].
    pub async fn publish_progress(&self, ceremony: &CeremonyId, news: Vec<u8>) -> Result<(), BusError> {
        self.publish(subject::progress(ceremony, self.node), news).await
    }

    /// Answers a console.
    ///
    /// # Errors
    /// [`BusError::Publish`].
    pub async fn answer(&self, request: Request, answer: Vec<u8>) -> Result<(), BusError> {
        self.client.publish(request.reply, answer.into()).await.map_err(BusError::Publish)
    }

    async fn publish(&self, subject: String, payload: Vec<u8>) -> Result<(), BusError> {
        self.client.publish(subject, payload.into()).await.map_err(BusError::Publish)
    }
}

async fn pass_on(mut subscription: async_nats::Subscriber, events: mpsc::Sender<BusEvent>) {
    while let Some(message) = subscription.next().await {
        if let Some(event) = read(message)
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// A message as an event; none for what nobody here can do anything with.
fn read(message: Message) -> Option<BusEvent> {
    let Message { subject: name, payload, reply, .. } = message;
    let request = |kind| {
        let payload = payload.clone();
        reply.clone().map(|reply| BusEvent::Request(Request { kind, payload, reply }))
    };
    if name.starts_with("mpc.") {
        let (label, from) = subject::parse_session(&name).ok()?;
        Some(BusEvent::Session { label, from, payload })
    } else if name.starts_with("health.") {
        Some(BusEvent::Health { from: subject::node(&name).ok()? })
    } else if name.starts_with("ceremony.submit.") {
        request(RequestKind::Submit(subject::ceremony(&name).ok()?))
    } else if name.starts_with("ceremony.read.") {
        request(RequestKind::Read(subject::ceremony(&name).ok()?))
    } else if name.as_str() == subject::LIST {
        request(RequestKind::List)
    } else if name.starts_with("backup.") {
        request(RequestKind::Backup)
    } else {
        None
    }
}

/// Reads the stream from its beginning and on, and makes it where there is none.
async fn follow(
    jetstream: jetstream::Context,
    events: mpsc::Sender<BusEvent>,
    woken: Arc<Notify>,
    anew: Arc<AtomicBool>,
) {
    let mut position = 0;
    loop {
        // A read that was asked for before an interruption may be answered after it, by another or a shorter stream.
        if anew.swap(false, Ordering::Relaxed) {
            position = 0;
        }
        match read_on(&jetstream, &mut position, &events).await {
            Ok(()) => {}
            Err(Stopped::Agent) => return,
            Err(Stopped::Bus(error)) => {
                // After an interruption the stream may be another, or shorter: everything is read again.
                position = 0;
                info!(%error, "stream not readable now");
            }
        }
        let _ = tokio::time::timeout(LOOK, woken.notified()).await;
    }
}

enum Stopped {
    Agent,
    Bus(Box<dyn std::error::Error + Send + Sync>),
}

async fn read_on(
    jetstream: &jetstream::Context,
    position: &mut u64,
    events: &mpsc::Sender<BusEvent>,
) -> Result<(), Stopped> {
    let stream = if *position == 0 {
        jetstream.create_stream(stream_config()).await.map_err(|error| Stopped::Bus(Box::new(error)))?;
        jetstream.get_stream_no_info(subject::STREAM).await
    } else {
        jetstream.get_stream_no_info(subject::STREAM).await
    }
    .map_err(|error| Stopped::Bus(Box::new(error)))?;
    while let Some(entry) =
        entry_after(&stream, *position).await.map_err(|error| Stopped::Bus(Box::new(error)))?
    {
        *position = entry.stream_seq;
        if events.send(BusEvent::Entry(entry)).await.is_err() {
            return Err(Stopped::Agent);
        }
    }
    Ok(())
}

/// The first message behind this sequence that is on a ceremony's subject; none at the stream's end.
async fn entry_after<I>(stream: &Stream<I>, stream_seq: u64) -> Result<Option<StreamEntry>, DirectGetError> {
    let mut after = stream_seq;
    loop {
        let message = match stream.direct_get_next_for_subject(subject::LOGS, Some(after + 1)).await {
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
            answer => answer?,
        };
        let (stream_seq, payload) = (message.sequence, message.payload);
        if let Ok(ceremony) = subject::ceremony(&message.subject) {
            return Ok(Some(StreamEntry { ceremony, stream_seq, payload }));
        }
        after = stream_seq;
    }
}
