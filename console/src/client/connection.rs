//! The connections to the bus: one for each node, as what a node answers or says may be nothing that a client reads, at which
//! the connection ends; and one on which nobody says anything, by which the broker is known to be there.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{ConnectOptions, Event};
use bytes::Bytes;
use ceremonies::deploy::{allowance, reconnect, subject};
use ceremonies::ids::NodeIndex;
use futures_util::Stream;
use tokio::sync::watch;

use super::diagnosis::diagnose;
use super::listening::Listening;
use super::news::News;
use super::trouble::Trouble;
use super::{Bus, ClientError, Nodes};
use crate::config::Cluster;
use crate::file::{MAX_SETTINGS, read};
use crate::memory::Memory;

/// How long to wait for a connection before giving up a question.
const CONNECTING: Duration = Duration::from_secs(3);
/// How often the broker is asked for a sign of life. After two without an answer the connection counts as lost: a frozen
/// broker keeps it open.
const PING: Duration = Duration::from_secs(3);
/// How long to wait for any answer. Callers have shorter limits.
const ANSWERING: Duration = Duration::from_secs(10);

/// NATS, with this console's credentials.
#[derive(Clone)]
pub struct Nats {
    nodes: Arc<BTreeMap<NodeIndex, async_nats::Client>>,
    /// Kept for what it says of the broker.
    _broker: async_nats::Client,
    connected: watch::Receiver<bool>,
}

impl Bus for Nats {
    async fn ask(&self, subject: String, request: Vec<u8>) -> Result<Bytes, Trouble> {
        let mut connected = self.connected.clone();
        let up = tokio::time::timeout(CONNECTING, connected.wait_for(|connected| *connected)).await;
        let is_up = matches!(up, Ok(Ok(_)));
        drop(up);
        if !is_up {
            return Err(Trouble::NotConnected);
        }
        let node = subject.rsplit('.').next().and_then(|node| node.parse().ok());
        let Some(client) = node.and_then(|node: NodeIndex| self.nodes.get(&node)) else {
            return Err(Trouble::Absent);
        };
        let answer = client.request(subject, request.into()).await.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => Trouble::Silent(ANSWERING),
            RequestErrorKind::NoResponders => Trouble::Absent,
            RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded
            | RequestErrorKind::Other => Trouble::Bus(error),
        })?;
        Ok(answer.payload)
    }
}

/// A connection to the bus, with the nodes that can be asked over it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    nodes: Nodes<Nats>,
    nats: Nats,
    servers: Vec<String>,
    /// The outcome of the last connection attempt.
    trouble: watch::Receiver<Option<String>>,
}

impl Deref for Client {
    type Target = Nodes<Nats>;
    fn deref(&self) -> &Nodes<Nats> {
        &self.nodes
    }
}

impl Client {
    /// Connects, now or as soon as the broker is there.
    ///
    /// # Errors
    /// [`ClientError`] for anything that waiting would not cure.
    pub async fn connect(cluster: &Cluster) -> Result<Self, ClientError> {
        let seed_file = &cluster.nats.seed;
        let seed = zeroize::Zeroizing::new(read("console seed", seed_file, MAX_SETTINGS)?);
        let seed = std::str::from_utf8(&seed).map_err(|_| ClientError::Key)?.trim();
        let nkey = nkeys::KeyPair::from_seed(seed).map_err(|_| ClientError::Key)?.public_key();
        let consoles = cluster.charter().consoles();
        let console = consoles.iter().find(|console| console.nkey == nkey).ok_or(ClientError::Unknown)?;
        let (sender, connected) = watch::channel(false);
        let (teller, trouble) = watch::channel(None);
        // Of the libraries for TLS that are linked, this one; a second call changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let options = |purpose: &str| {
            let mut options = ConnectOptions::with_nkey(seed.to_string());
            if let Some(ca) = &cluster.nats.ca {
                options = options.add_root_certificates(ca.clone());
            }
            options
                .name(format!("console {}: {purpose}", console.name))
                .custom_inbox_prefix(subject::console_inbox(console.name.as_str()))
                .retry_on_initial_connect()
                .max_reconnects(None)
                .reconnect_delay_callback(reconnect::pauses())
                .request_timeout(Some(ANSWERING))
                .connection_timeout(CONNECTING)
                .ping_interval(PING)
        };
        let broker = options("the broker").event_callback(move |event| {
            let (sender, teller) = (sender.clone(), teller.clone());
            async move {
                if event == Event::Connected {
                    sender.send_replace(true);
                } else if matches!(event, Event::Disconnected | Event::Closed) {
                    sender.send_replace(false);
                } else if let Event::ClientError(async_nats::ClientError::Other(why)) = event {
                    teller.send_replace(Some(why));
                }
            }
        });
        let servers = &cluster.nats.servers;
        let broker = broker.connect(servers).await.map_err(ClientError::Connect)?;
        let mut nodes = BTreeMap::new();
        for node in cluster.charter().nodes().iter().map(|node| node.index) {
            let client = options(&format!("node {node}"))
                .event_callback(|_| std::future::ready(()))
                .connect(servers)
                .await
                .map_err(ClientError::Connect)?;
            nodes.insert(node, client);
        }
        let nats = Nats { nodes: Arc::new(nodes), _broker: broker, connected };
        let memory = Memory::of(cluster);
        let nodes = Nodes::new(nats.clone(), cluster.context.clone(), memory);
        Ok(Self { nodes, nats, servers: cluster.nats.servers.clone(), trouble })
    }

    /// Why the bus is not connected, server by server, as far as it can be found out.
    pub async fn why_not_connected(&self) -> String {
        let heard = self.trouble.borrow().clone();
        diagnose(&self.servers, heard.as_deref()).await
    }

    /// Whether the bus is connected, and when that changes.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.nats.connected.clone()
    }

    /// What nodes announce without being asked, if they have signed it, and no more of each than it may send.
    ///
    /// # Errors
    /// [`ClientError::Subscribe`].
    pub async fn news(&self) -> Result<impl Stream<Item = News> + Send + use<>, ClientError> {
        let mut listening = Listening::default();
        for (&node, client) in &*self.nats.nodes {
            for (subject, limit) in [
                (subject::head(node), allowance::HEADS),
                (subject::health(node), allowance::HEALTH),
                (subject::progress_of(node), allowance::PROGRESS),
            ] {
                let heard = client.subscribe(subject).await.map_err(ClientError::Subscribe)?;
                listening.to(node, limit, heard);
            }
        }
        Ok(listening.news(self.nodes.clone()))
    }
}
