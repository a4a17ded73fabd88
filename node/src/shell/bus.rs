//! The connections to the bus: what arrives becomes events. What each other node says comes over a connection of its own,
//! and is taken by a task of its own: whoever floods the bus, or sends what no client reads, at which the connection ends,
//! crowds out only itself, and costs no more than it may send.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Message};
use ceremonies::deploy::{allowance, reconnect, subject};
use ceremonies::ids::{ClusterId, Hash, NodeIndex};
use ceremonies::text::shortened;
use enclave_link::message::Deliver;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::intake::{Source, Surplus, pass_on};
use crate::config;
use crate::core::{Event, Request, RequestKind};
use crate::file::{self, MAX_SETTINGS};

/// Messages of one subscription that may wait before the newest are lost.
pub(super) const MAX_WAITING: usize = 256;

/// How often the broker is asked for a sign of life. After two without an answer the connection counts as lost: a frozen
/// broker keeps it open.
const PING: Duration = Duration::from_secs(3);
/// How much of what the broker says is logged, in characters, and how often.
const MAX_SAID: usize = 200;
const SAID_EVERY: Duration = Duration::from_secs(1);

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
}

/// The connections of a node.
pub(super) struct Bus {
    /// For what this node says, and for the stream.
    pub(super) own: Client,
    /// For what consoles ask.
    consoles: Client,
    /// For what each other node says.
    peers: BTreeMap<NodeIndex, Client>,
}

/// When something was last said that must not be said often.
#[derive(Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn may_say(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may_say = last.is_none_or(|last| last.elapsed() >= SAID_EVERY);
        if may_say {
            *last = Some(Instant::now());
        }
        may_say
    }
}

/// Who connects, and how.
struct Account<'a> {
    config: &'a config::Nats,
    node: NodeIndex,
    cluster: &'a ClusterId,
    seed: Zeroizing<String>,
}

impl<'a> Account<'a> {
    fn read(config: &'a config::Nats, node: NodeIndex, cluster: &'a ClusterId) -> Result<Self, BusError> {
        let unread = |error| BusError::Seed(config.seed.clone(), error);
        let seed = Zeroizing::new(file::read(&config.seed, MAX_SETTINGS).map_err(unread)?);
        let seed = std::str::from_utf8(&seed)
            .map_err(|error| unread(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        // Of the libraries for TLS that are linked, this one; a second call changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Ok(Self { config, node, cluster, seed: Zeroizing::new(seed.trim().to_owned()) })
    }

    fn options(&self, purpose: &str) -> ConnectOptions {
        let mut options = ConnectOptions::with_nkey(self.seed.to_string());
        if let Some(ca) = &self.config.ca {
            options = options.add_root_certificates(ca.clone());
        }
        options
            .name(format!("node {} of {}: {purpose}", self.node, self.cluster))
            .custom_inbox_prefix(subject::node_inbox(self.node))
            .subscription_capacity(MAX_WAITING)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect::pauses())
            .ping_interval(PING)
    }

    /// Connects, now or as soon as the broker is there, and says when that changes.
    async fn connect(&self, events: mpsc::Sender<Event>) -> Result<Client, BusError> {
        let seldom = Arc::new(Seldom::default());
        self.options("what it says")
            .event_callback(move |event| {
                let (events, seldom) = (events.clone(), Arc::clone(&seldom));
                async move {
                    // The agent may be gone; then nobody needs to know.
                    if event == async_nats::Event::Connected {
                        drop(events.send(Event::Connected).await);
                    } else if event == async_nats::Event::Disconnected {
                        drop(events.send(Event::Disconnected).await);
                    } else if seldom.may_say() {
                        warn!(event = %shortened(&event.to_string(), MAX_SAID), "bus");
                    }
                }
            })
            .connect(&self.config.servers)
            .await
            .map_err(BusError::Connect)
    }

    /// Connects to listen to somebody.
    async fn listen_to(&self, whom: &str) -> Result<Client, BusError> {
        let whom = whom.to_owned();
        self.options(&whom)
            .event_callback(move |event| {
                debug!(%whom, %event, "bus");
                std::future::ready(())
            })
            .connect(&self.config.servers)
            .await
            .map_err(BusError::Connect)
    }
}

/// Connects only to say something, now or as soon as the broker is there.
///
/// # Errors
/// [`BusError`] for anything that waiting would not cure.
pub(super) async fn connect(
    config: &config::Nats,
    node: NodeIndex,
    cluster: &ClusterId,
    events: mpsc::Sender<Event>,
) -> Result<Client, BusError> {
    Account::read(config, node, cluster)?.connect(events).await
}

impl Bus {
    /// Connects, now or as soon as the broker is there.
    ///
    /// # Errors
    /// [`BusError`] for anything that waiting would not cure.
    pub(super) async fn connect(
        config: &config::Nats,
        node: NodeIndex,
        cluster: &ClusterId,
        surplus: &Surplus,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, BusError> {
        let account = Account::read(config, node, cluster)?;
        let mut peers = BTreeMap::new();
        for peer in surplus.peers() {
            peers.insert(peer, account.listen_to(&format!("node {peer}")).await?);
        }
        Ok(Self {
            consoles: account.listen_to("consoles").await?,
            peers,
            own: account.connect(events).await?,
        })
    }

    /// Subscribes to all that concerns this node.
    ///
    /// # Errors
    /// [`BusError::Subscribe`].
    pub(super) async fn subscribe(
        &self,
        node: NodeIndex,
        surplus: &Surplus,
        events: &mpsc::Sender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), BusError> {
        let requests = [
            subject::submissions_to(node),
            subject::reads_of(node),
            subject::list(node),
            subject::backup(node),
        ];
        for subject in requests {
            let subscription = self.consoles.subscribe(subject).await.map_err(BusError::Subscribe)?;
            let source = Source::Consoles(allowance::REQUESTS);
            tasks.spawn(pass_on(subscription, source, read, events.clone()));
        }
        for (peer, client) in &self.peers {
            for (subject, limit) in [
                (subject::head(*peer), allowance::HEADS),
                (subject::health(*peer), allowance::HEALTH),
                (subject::peer(node, *peer), allowance::PEERS),
            ] {
                let subscription = client.subscribe(subject).await.map_err(BusError::Subscribe)?;
                let source = Source::Peer(*peer, limit, surplus.clone());
                tasks.spawn(pass_on(subscription, source, read, events.clone()));
            }
        }
        Ok(())
    }

    /// Passes protocol messages between bus and enclave, so that nothing else that the agent does holds them up.
    ///
    /// # Errors
    /// [`BusError::Subscribe`].
    pub(super) async fn relay(
        &self,
        node: NodeIndex,
        surplus: &Surplus,
        link: crate::link::EnclaveLink,
        mut outgoing: mpsc::Receiver<enclave_link::message::Send>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), BusError> {
        // Each sender waits for its turn; none waits behind what another has sent before.
        let (sender, mut incoming) = mpsc::channel(1);
        for (peer, client) in &self.peers {
            let from = subject::sessions_from(node, *peer);
            let subscription = client.subscribe(from).await.map_err(BusError::Subscribe)?;
            let source = Source::Peer(*peer, allowance::SESSIONS, surplus.clone());
            tasks.spawn(pass_on(subscription, source, |message| deliver(&message), sender.clone()));
        }
        tasks.spawn(async move {
            while let Some(deliver) = incoming.recv().await {
                link.send(enclave_link::message::to_enclave::Kind::Deliver(deliver)).await;
            }
        });
        let client = self.own.clone();
        tasks.spawn(async move {
            while let Some(send) = outgoing.recv().await {
                let address =
                    Hash::try_from(send.label.as_slice()).ok().zip(NodeIndex::try_from(send.to).ok());
                let Some((label, to)) = address else {
                    warn!("the enclave addressed a message to nobody");
                    continue;
                };
                // A message that the bus loses ends its session at the deadline, which the enclaves report.
                let sent = client.publish(subject::session(to, &label, node), send.payload.into()).await;
                if let Err(error) = sent {
                    warn!(%to, %error, "session message not sent");
                }
            }
        });
        Ok(())
    }
}

/// A message as an event; none for what nobody here can do anything with.
fn read(message: Message) -> Option<Event> {
    let Message { subject: name, payload, reply, .. } = message;
    let payload = payload.to_vec();
    let request = |kind, payload, reply: Option<async_nats::Subject>| {
        let reply = reply?.to_string();
        Some(Event::Request(Request { kind, subject: name.to_string(), payload, reply }))
    };
    match name.split('.').collect::<Vec<_>>().as_slice() {
        ["head", _] => allowance::is_news(&payload).then_some(Event::Heads(payload)),
        ["health", _] => Some(Event::Heartbeat(payload)),
        ["record", _, _] => Some(Event::FromPeer(subject::node(&name).ok()?, payload)),
        ["ceremony", "submit", ..] => {
            request(RequestKind::Submit(subject::ceremony(&name).ok()?), payload, reply)
        }
        ["ceremony", "read", ..] => {
            request(RequestKind::Read(subject::ceremony(&name).ok()?), payload, reply)
        }
        ["ceremony", "list", _] => request(RequestKind::List, payload, reply),
        ["backup", _] => request(RequestKind::Backup, payload, reply),
        _ => None,
    }
}

/// A protocol message, for the enclave.
fn deliver(message: &Message) -> Option<Deliver> {
    let (label, from) = subject::parse_session(&message.subject).ok()?;
    let label = label.as_bytes().to_vec();
    Some(Deliver { label, from: from.into(), payload: message.payload.to_vec() })
}
