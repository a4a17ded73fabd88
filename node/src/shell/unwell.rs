//! What an agent reports that cannot start because of its store: people see the reason in the cluster's health, not
//! only that the node is silent.

use std::time::Duration;

use ceremonies::deploy::subject;
use ceremonies::ids::UnixMillis;
use ceremonies::said::{self, Topic};
use ceremonies::text::chain;
use ceremonies::wire::{VERSION, bus};
use prost::Message as _;
use tokio::sync::mpsc;
use tracing::warn;

use super::start::{StartError, identity};
use super::{bus as connection, now};
use crate::config::Config;
use crate::core::Identity;

/// How many heartbeats are sent before the store is tried again, one a second.
const HEARTBEATS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How long the bus may take to accept one.
const PATIENCE: Duration = Duration::from_secs(3);

impl StartError {
    /// Whether the store is what keeps the agent from starting, so that it is worth trying again.
    #[must_use]
    pub fn is_about_the_store(&self) -> bool {
        match self {
            Self::Store(_) | Self::DamagedEntry { .. } => true,
            Self::Read { .. }
            | Self::Charter(_)
            | Self::Root(_)
            | Self::Foreign(_)
            | Self::NotInCharter(_)
            | Self::Excluded(_)
            | Self::Seed
            | Self::Bus(_)
            | Self::Vault(_)
            | Self::Bundle(_)
            | Self::Taken(_) => false,
        }
    }
}

fn heartbeat(identity: &Identity, trouble: &str, at: UnixMillis) -> bus::Heartbeat {
    let waits = "the agent has not started: its store cannot be used";
    bus::Heartbeat {
        version: VERSION,
        node: identity.node.into(),
        time_ms: at.0,
        build: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
        charter: identity.charter.hash().as_bytes().to_vec(),
        enclave: Some(bus::EnclaveHealth { trouble: waits.to_owned(), ..bus::EnclaveHealth::default() }),
        store_trouble: format!("{trouble} (at {at})"),
        stream_trouble: waits.to_owned(),
        ..bus::Heartbeat::default()
    }
}

/// Reports for some seconds why the agent does not start. A bus that does not accept that is no further trouble.
pub async fn complain(config: &Config, why: &StartError) {
    let trouble = chain(why);
    let Ok((identity, _)) = identity(config) else { return };
    let (events, _) = mpsc::channel(1);
    let cluster = identity.charter.cluster();
    let connected = connection::connect(&config.nats, identity.node, cluster, events).await;
    for _ in 0..HEARTBEATS {
        if let Ok(client) = &connected {
            let body = heartbeat(&identity, &trouble, now()).encode_to_vec();
            let sign = |message: &[u8]| identity.sign(message);
            if let Ok(payload) = said::say(cluster, Topic::Heartbeat, identity.node, body, sign) {
                let sent = async {
                    client.publish(subject::health(identity.node), payload.into()).await.ok()?;
                    client.flush().await.ok()
                };
                if !matches!(tokio::time::timeout(PATIENCE, sent).await, Ok(Some(()))) {
                    warn!("the bus did not accept a heartbeat");
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
