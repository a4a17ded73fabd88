//! The console's side of the bus. It asks and listens; it believes nothing that it has not folded itself.

use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use bytes::Bytes;
use ceremonies::book::{Book, NotTaken};
use ceremonies::entry::{Entry, EntryError};
use ceremonies::ids::{CeremonyId, NodeIndex, UnixMillis};
use ceremonies::subject;
use ceremonies::wire::{VERSION, bus, log};
use futures_util::{Stream, StreamExt};
use prost::Message;
use thiserror::Error;
use tokio::sync::watch;

use crate::config::Cluster;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the bus did not give what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The seed cannot be read.
    #[error("console seed {0} cannot be read")]
    Seed(std::path::PathBuf, #[source] std::io::Error),
    /// The seed is none.
    #[error("the console's NKey seed cannot be used")]
    Key,
    /// The charter does not list this console.
    #[error("this console's NKey is not in the charter")]
    Unknown,
    /// No connection.
    #[error("the bus cannot be reached")]
    Connect(#[source] async_nats::ConnectError),
    /// No subscription.
    #[error("the bus refused a subscription")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// No answer.
    #[error("no node answered")]
    Request(#[source] async_nats::RequestError),
    /// An answer that is none.
    #[error("a node answered with something unreadable")]
    Answer(#[source] prost::DecodeError),
    /// The answer holds a malformed entry.
    #[error("a node answered with a malformed entry")]
    Entry(#[from] EntryError),
    /// The answer holds an entry that does not fold.
    #[error("a node answered with a log that does not hold")]
    Log(#[from] NotTaken),
    /// The node says no.
    #[error("refused: {0}")]
    Refused(String),
}

/// What the bus tells without being asked.
#[derive(Debug, Clone)]
pub enum News {
    /// There may be a new entry.
    Log(CeremonyId),
    /// A node's heartbeat.
    Health(Box<bus::Heartbeat>),
    /// A node's progress in a session.
    Progress(Box<bus::Progress>),
}

/// A connection to the bus. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    nats: async_nats::Client,
    connected: watch::Receiver<bool>,
}

impl Client {
    /// Connects, now or as soon as the broker is there.
    ///
    /// # Errors
    /// [`ClientError`] for what waiting would not mend.
    pub async fn connect(cluster: &Cluster) -> Result<Self, ClientError> {
        let seed_file = &cluster.nats.seed;
        let seed = std::fs::read_to_string(seed_file)
            .map_err(|error| ClientError::Seed(seed_file.clone(), error))?;
        let seed = zeroize::Zeroizing::new(seed.trim().to_owned());
        let nkey = nkeys::KeyPair::from_seed(&seed).map_err(|_| ClientError::Key)?.public_key();
        let consoles = cluster.charter().consoles();
        let console = consoles.iter().find(|console| console.nkey == nkey).ok_or(ClientError::Unknown)?;
        let (sender, connected) = watch::channel(false);
        let nats = ConnectOptions::with_nkey(seed.to_string())
            .name(format!("console {}", console.name))
            .custom_inbox_prefix(subject::console_inbox(console.name.as_str()))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(100u64.saturating_mul(1 << attempt.min(5)))
            })
            .request_timeout(Some(PATIENCE))
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    match event {
                        Event::Connected => {
                            sender.send_replace(true);
                        }
                        Event::Disconnected | Event::Closed => {
                            sender.send_replace(false);
                        }
                        _ => {}
                    }
                }
            })
            .connect(&cluster.nats.servers)
            .await
            .map_err(ClientError::Connect)?;
        Ok(Self { nats, connected })
    }

    /// Whether the bus is connected, and when that changes.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    async fn ask(&self, subject: String, request: Vec<u8>) -> Result<Bytes, ClientError> {
        let answer = self.nats.request(subject, request.into()).await.map_err(ClientError::Request)?;
        Ok(answer.payload)
    }

    /// All ceremonies that the answering node knows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self) -> Result<Vec<CeremonyId>, ClientError> {
        let answer = self.ask(subject::LIST.to_owned(), Vec::new()).await?;
        let list = bus::ListReply::decode(answer).map_err(ClientError::Answer)?;
        list.heads
            .into_iter()
            .map(|head| {
                head.ceremony.try_into().map_err(|error| ClientError::Entry(EntryError::Field(error)))
            })
            .collect()
    }

    /// Brings a ceremony in the book up to what the answering node knows.
    ///
    /// # Errors
    /// [`ClientError::Log`] when the node's log contradicts the book or does not fold.
    pub async fn catch_up(&self, book: &mut Book, ceremony: &CeremonyId) -> Result<(), ClientError> {
        for entry in self.read(ceremony, book.get(ceremony).map_or(0, |c| c.ceremony.head().seq)).await? {
            book.take(entry)?;
        }
        Ok(())
    }

    /// A ceremony's entries behind number `after`: those that the log had when the node was asked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read(&self, ceremony: &CeremonyId, after: u64) -> Result<Vec<Entry>, ClientError> {
        let mut entries = Vec::new();
        let mut after = after;
        loop {
            let request = bus::Read { version: VERSION, from_seq: after + 1 }.encode_to_vec();
            let answer = self.ask(subject::read(ceremony), request).await?;
            let answer = bus::ReadReply::decode(answer).map_err(ClientError::Answer)?;
            if !answer.refusal.is_empty() {
                return Err(ClientError::Refused(answer.refusal));
            }
            let got = answer.entries.len();
            for entry in answer.entries {
                entries.push(Entry::from_wire(entry)?);
            }
            after += got as u64;
            if got == 0 || after >= answer.last_seq {
                return Ok(entries);
            }
        }
    }

    /// A book of all ceremonies. Those that were opened first come first: a test signing follows what it
    /// signs with.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn book(&self, cluster: &Cluster) -> Result<Book, ClientError> {
        let mut book = Book::new(cluster.context.clone());
        let mut logs: Vec<(UnixMillis, Vec<Entry>)> = Vec::new();
        for ceremony in self.list().await? {
            let entries = self.read(&ceremony, 0).await?;
            logs.extend(entries.first().map(|first| first.time).map(|time| (time, entries)));
        }
        logs.sort_by_key(|(time, _)| *time);
        for entry in logs.into_iter().flat_map(|(_, entries)| entries) {
            book.take(entry)?;
        }
        Ok(book)
    }

    /// Submits an event and returns its number in the ceremony.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the node's reason.
    pub async fn submit(&self, ceremony: &CeremonyId, event: log::Event) -> Result<u64, ClientError> {
        let request = bus::Submit { version: VERSION, event: Some(event) }.encode_to_vec();
        let answer = self.ask(subject::submit(ceremony), request).await?;
        let reply = bus::SubmitReply::decode(answer).map_err(ClientError::Answer)?;
        match reply.outcome {
            Some(bus::submit_reply::Outcome::Seq(seq)) => Ok(seq),
            Some(bus::submit_reply::Outcome::Rejection(why)) => Err(ClientError::Refused(why)),
            None => Err(ClientError::Refused("the node gave no reason".to_owned())),
        }
    }

    /// Hands a backup in for a node's enclave.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the node's reason.
    pub async fn hand_in(
        &self,
        node: NodeIndex,
        ceremony: &CeremonyId,
        object: Vec<u8>,
    ) -> Result<(), ClientError> {
        let backup = bus::Backup { version: VERSION, ceremony: ceremony.to_string(), object };
        let answer = self.ask(subject::backup(node), backup.encode_to_vec()).await?;
        let reply = bus::BackupReply::decode(answer).map_err(ClientError::Answer)?;
        if reply.refusal.is_empty() { Ok(()) } else { Err(ClientError::Refused(reply.refusal)) }
    }

    /// What the bus tells: live entries (as hints), heartbeats and progress.
    ///
    /// # Errors
    /// [`ClientError::Subscribe`].
    pub async fn news(&self) -> Result<impl Stream<Item = News> + Send + use<>, ClientError> {
        let mut all = Vec::new();
        for name in [subject::LOGS, subject::HEALTH, subject::PROGRESS] {
            all.push(self.nats.subscribe(name).await.map_err(ClientError::Subscribe)?);
        }
        Ok(futures_util::stream::select_all(all).filter_map(|message| async move { news(&message) }))
    }
}

/// A message as news; none for what is malformed or not by the node that its subject names.
fn news(message: &async_nats::Message) -> Option<News> {
    let name = message.subject.as_str();
    if let Ok(ceremony) = subject::ceremony(name) {
        return Some(News::Log(ceremony));
    }
    let node = u32::from(subject::node(name).ok()?);
    if name.starts_with("health.") {
        let heartbeat = bus::Heartbeat::decode(message.payload.clone()).ok()?;
        (heartbeat.node == node).then(|| News::Health(Box::new(heartbeat)))
    } else {
        let progress = bus::Progress::decode(message.payload.clone()).ok()?;
        (progress.node == node).then(|| News::Progress(Box::new(progress)))
    }
}
