//! A hostile host: everything that one node's NATS credentials allow on the bus, with or without its agent.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::{Client, ConnectOptions, Event};
use ceremonies::charter::Charter;
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::log::{Entry, Place};
use ceremonies::record::{Head, Lock, SignedHead, Tip};
use ceremonies::said::{self, Topic};
use ceremonies::wire::{bus, log, record};
use console::room::now;
use enclave::session::BootKeys;
use futures_util::StreamExt;
use nkeys::KeyPair;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::nsm::{DocumentSpec, LabRoot};

/// `JetStream`'s request for messages of the stream.
const DIRECT_GET: &str = "$JS.API.DIRECT.GET.CEREMONIES";
/// How long the broker may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An attacker with one node's NATS credentials.
pub struct Host {
    node: NodeIndex,
    charter: Arc<Charter>,
    key: KeyPair,
    client: Client,
    complaints: mpsc::Receiver<String>,
}

impl Host {
    /// Connects with a node's credentials. Its agent may keep running.
    ///
    /// # Errors
    /// When the seed cannot be read, or the broker refuses it.
    pub async fn with_credentials_of(cluster: &Cluster, node: NodeIndex) -> Result<Self> {
        let layout = cluster.layout();
        let seed = std::fs::read_to_string(layout.node(node).join("nats.seed"))?;
        let (sender, complaints) = mpsc::channel(64);
        let client = ConnectOptions::with_nkey(seed.trim().to_owned())
            .custom_inbox_prefix(subject::node_inbox(node))
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    if let Event::ServerError(error) = event {
                        // Nobody may be listening.
                        let _ = sender.try_send(error.to_string());
                    }
                }
            })
            .connect(cluster.nats_url())
            .await?;
        Ok(Self {
            node,
            charter: Arc::new(Charter::parse(&std::fs::read(layout.charter())?)?),
            key: KeyPair::from_seed(seed.trim())?,
            client,
            complaints,
        })
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the broker refuses a subscription to this subject.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn may_not_listen_to(&mut self, subject: &str) -> Result<bool> {
        while self.complaints.try_recv().is_ok() {}
        let _subscription = self.client.subscribe(subject.to_owned()).await?;
        self.client.flush().await?;
        let complaint = tokio::time::timeout(PATIENCE, self.complaints.recv()).await;
        Ok(complaint.is_ok_and(|complaint| complaint.is_some_and(|complaint| complaint.contains(subject))))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        Ok(self.key.sign(message)?)
    }

    /// An entry that this node has signed, at any place.
    ///
    /// # Errors
    /// When no reader would accept it.
    pub fn entry(&self, log: &[Entry], event: log::Event, time: UnixMillis) -> Result<Entry> {
        let last = log.last().context("a log without entries")?;
        let place = Place {
            ceremony: last.ceremony.clone(),
            seq: last.seq + 1,
            prev: last.hash(),
            time,
            node: self.node,
        };
        Entry::create(place, event, |message| self.sign(message))
    }

    /// The first entry of a log, with any date.
    ///
    /// # Errors
    /// When no reader would accept it.
    pub fn opening(&self, ceremony: &CeremonyId, event: log::Event, time: UnixMillis) -> Result<Entry> {
        let place = Place { ceremony: ceremony.clone(), seq: 1, prev: Hash::ZERO, time, node: self.node };
        Entry::create(place, event, |message| self.sign(message))
    }

    /// An attestation for a ceremony, by an allowed image that has just been started with new keys.
    ///
    /// # Errors
    /// When the lab's attestation root cannot be read.
    pub fn attestation(&self, cluster: &Cluster, manifest: &Hash) -> Result<log::Event> {
        let image = self.charter.attestation().measurements.first().context("no image is allowed")?;
        let spec = DocumentSpec::new(image, now())
            .public_key(&[1; 294])
            .user_data(&BootKeys::generate().public().encode())
            .nonce(manifest.as_bytes());
        let document = LabRoot::open(&cluster.layout().nsm())?.sign(&spec)?;
        let attested = log::Attested { node: self.node.into(), document };
        Ok(log::Event { kind: Some(log::event::Kind::Attested(attested)) })
    }

    /// Puts bytes on a ceremony's subject in the stream, and returns their sequence.
    ///
    /// # Errors
    /// When the broker does not accept them.
    pub async fn put(&self, ceremony: &CeremonyId, bytes: Vec<u8>) -> Result<u64> {
        let stream = async_nats::jetstream::new(self.client.clone());
        Ok(stream.publish(subject::log(ceremony), bytes.into()).await?.await?.sequence)
    }

    /// Floods a ceremony's subject with messages of one byte, without waiting for acknowledgements.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn flood(&self, ceremony: &CeremonyId, messages: u32) -> Result<()> {
        for _ in 0..messages {
            self.client.publish(subject::log(ceremony), "x".into()).await?;
        }
        Ok(self.client.flush().await?)
    }

    /// Has the broker deliver a message of the stream on any subject, as the answer to a direct read.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn deliver(&self, sequence: u64, on: &str) -> Result<()> {
        let request = format!("{{\"seq\":{sequence}}}");
        self.client.publish_with_reply(DIRECT_GET, on.to_owned(), request.into()).await?;
        Ok(self.client.flush().await?)
    }

    /// Has the broker deliver as much of the stream as it gives at once on any subject, again and again, so many times a
    /// second, until the returned task is aborted.
    #[must_use]
    pub fn flood_answers(&self, on: &str, per_second: u32) -> JoinHandle<()> {
        let request = r#"{"seq":1,"next_by_subj":"ceremony.log.*","batch":1000,"max_bytes":1048576}"#;
        let (client, on) = (self.client.clone(), on.to_owned());
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        tokio::spawn(async move {
            loop {
                pace.tick().await;
                if client.publish_with_reply(DIRECT_GET, on.clone(), request.into()).await.is_err() {
                    return;
                }
            }
        })
    }

    /// A message signed with this node's key.
    ///
    /// # Errors
    /// When they cannot be signed.
    pub fn say(&self, topic: Topic, body: Vec<u8>) -> Result<Vec<u8>> {
        said::say(self.charter.cluster(), topic, self.node, body, |message| self.sign(message))
    }

    /// A head signed with this node's key.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn head(
        &self,
        ceremony: &CeremonyId,
        round: u32,
        tip: Tip,
        lock: Option<Lock>,
    ) -> Result<SignedHead> {
        let head = Head {
            cluster: self.charter.cluster().clone(),
            ceremony: ceremony.clone(),
            node: self.node,
            round,
            votes: true,
            tip,
            lock,
            time: UnixMillis(0),
        };
        SignedHead::create(head, |message| self.sign(message))
    }

    /// Says where this node stands.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn show(&self, head: &SignedHead) -> Result<()> {
        let told = record::HeadNews { head: Some(head.raw().clone()), proof: Vec::new() };
        let news = record::News { heads: vec![told] };
        self.client.publish(subject::head(self.node), news.encode_to_vec().into()).await?;
        Ok(self.client.flush().await?)
    }

    /// Floods the bus with a head of a ceremony, so many times in a message, and so many messages a second, until the
    /// returned task is aborted.
    ///
    /// # Errors
    /// When the head cannot be signed.
    pub fn flood_heads(
        &self,
        ceremony: &CeremonyId,
        heads: usize,
        per_second: u32,
    ) -> Result<JoinHandle<()>> {
        let tip = Tip { seq: 1, hash: Hash::of_bytes(b"made up") };
        let told = record::HeadNews {
            head: Some(self.head(ceremony, 0, tip, None)?.raw().clone()),
            proof: Vec::new(),
        };
        let news = bytes::Bytes::from(record::News { heads: vec![told; heads] }.encode_to_vec());
        let (client, subject) = (self.client.clone(), subject::head(self.node));
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        Ok(tokio::spawn(async move {
            loop {
                pace.tick().await;
                if client.publish(subject.clone(), news.clone()).await.is_err() {
                    return;
                }
            }
        }))
    }

    /// Answers every submission to this node with a receipt for entry `seq`, and records nothing. Its own agent must be
    /// stopped.
    ///
    /// # Errors
    /// When the subscription fails.
    pub async fn hand_out_receipts(&self, seq: u64) -> Result<JoinHandle<()>> {
        let mut submissions = self.client.subscribe(subject::submissions_to(self.node)).await?;
        self.client.flush().await?;
        let seed = self.key.seed()?;
        let (key, client, node) = (KeyPair::from_seed(&seed)?, self.client.clone(), self.node);
        let cluster = self.charter.cluster().clone();
        Ok(tokio::spawn(async move {
            while let Some(request) = submissions.next().await {
                let Some(reply) = request.reply else { continue };
                let outcome = bus::submit_reply::Outcome::Seq(seq);
                let body = bus::SubmitReply { outcome: Some(outcome) }.encode_to_vec();
                let topic = Topic::answer_to(&request.subject, &request.payload);
                let Ok(answer) = said::say(&cluster, topic, node, body, |message| key.sign(message)) else {
                    return;
                };
                if client.publish(reply, answer.into()).await.is_err() {
                    return;
                }
            }
        }))
    }

    /// Answers every read of this node with entries without end. Its own agent must be stopped.
    ///
    /// # Errors
    /// When the subscription fails.
    pub async fn answer_without_end(&self, entry: &Entry) -> Result<JoinHandle<()>> {
        let mut reads = self.client.subscribe(subject::reads_of(self.node)).await?;
        self.client.flush().await?;
        let seed = self.key.seed()?;
        let (key, client, node) = (KeyPair::from_seed(&seed)?, self.client.clone(), self.node);
        let cluster = self.charter.cluster().clone();
        let entries = vec![entry.raw().clone(); 500];
        Ok(tokio::spawn(async move {
            while let Some(request) = reads.next().await {
                let Some(reply) = request.reply else { continue };
                let reply_body =
                    bus::ReadReply { entries: entries.clone(), last_seq: u64::MAX, ..Default::default() };
                let topic = Topic::answer_to(&request.subject, &request.payload);
                let body = reply_body.encode_to_vec();
                let Ok(answer) = said::say(&cluster, topic, node, body, |message| key.sign(message)) else {
                    return;
                };
                if client.publish(reply, answer.into()).await.is_err() {
                    return;
                }
            }
        }))
    }
}
