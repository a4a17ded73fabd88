//! What arrives on the bus, one sender at a time: no more than it may send is read, and no more than that waits. The rest
//! is dropped unread, counted, and said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use ceremonies::deploy::allowance::{Intake, Limit, Offered};
use ceremonies::ids::NodeIndex;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tracing::warn;

/// How long until it is said again that a sender sends too much.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// The bytes of each other node that were dropped because it had sent more than it may.
#[derive(Debug, Clone)]
pub(super) struct Surplus(Arc<BTreeMap<NodeIndex, AtomicU64>>);

impl Surplus {
    pub(super) fn of(peers: impl IntoIterator<Item = NodeIndex>) -> Self {
        Self(Arc::new(peers.into_iter().map(|peer| (peer, AtomicU64::default())).collect()))
    }

    /// The other nodes.
    pub(super) fn peers(&self) -> impl Iterator<Item = NodeIndex> {
        self.0.keys().copied()
    }

    fn add(&self, peer: NodeIndex, bytes: usize) {
        if let Some(dropped) = self.0.get(&peer) {
            dropped.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// What was dropped of each so far.
    pub(super) fn so_far(&self) -> impl Iterator<Item = (NodeIndex, u64)> {
        self.0.iter().map(|(peer, dropped)| (*peer, dropped.load(Ordering::Relaxed)))
    }
}

/// Whose messages arrive, and how much it may send.
#[derive(Debug)]
pub(super) enum Source {
    /// Another node's.
    Peer(NodeIndex, Limit, Surplus),
    /// Those of all consoles.
    Consoles(Limit),
}

impl Source {
    fn limit(&self) -> Limit {
        match self {
            Self::Peer(_, limit, _) | Self::Consoles(limit) => *limit,
        }
    }
}

/// Passes on what arrives, read, as fast as it is taken. Nothing is kept in the subscription meanwhile: that counts
/// messages, and not their bytes.
pub(super) async fn pass_on<T>(
    mut subscription: Subscriber,
    source: Source,
    read: impl Fn(Message) -> Option<T>,
    to: mpsc::Sender<T>,
) {
    let mut intake = Intake::new(source.limit(), Instant::now());
    let mut said: Option<Instant> = None;
    loop {
        tokio::select! {
            message = subscription.next() => {
                let Some(message) = message else { return };
                let (now, bytes) = (Instant::now(), message.payload.len());
                let subject = message.subject.clone();
                match intake.offer(message, bytes, now) {
                    Offered::Taken | Offered::NoRoom => {}
                    Offered::TooMuch => {
                        if let Source::Peer(peer, _, surplus) = &source {
                            surplus.add(*peer, bytes);
                        }
                        if said.is_none_or(|at| now.duration_since(at) >= SAY_AGAIN) {
                            said = Some(now);
                            warn!(%subject, "more arrives than may be sent there: the surplus is dropped unread");
                        }
                    }
                }
            }
            permit = to.reserve(), if !intake.is_empty() => {
                let Ok(permit) = permit else { return };
                if let Some(message) = intake.take().and_then(&read) {
                    permit.send(message);
                }
            }
        }
    }
}
