//! What nodes announce without being asked: heartbeats, progress, and that a log may have grown.

use std::collections::BTreeMap;

use ceremonies::ids::{CeremonyId, NodeIndex, UnixMillis};
use ceremonies::record::SignedHead;
use ceremonies::said::Topic;
use ceremonies::wire::{bus, record};
use futures_util::{Stream, StreamExt};
use prost::Message;

use super::voices::Voices;
use super::{Bus, Nodes};

/// What a node tells.
#[derive(Debug, Clone)]
pub enum News {
    /// There may be a new entry.
    Log(CeremonyId),
    /// A node's heartbeat.
    Health(Box<bus::Heartbeat>),
    /// A node's progress in a session.
    Progress(Box<bus::Progress>),
}

/// Most heads that are looked at in one message.
const MAX_HEADS: usize = 64;

/// What tells news from messages that no node signed, or that were heard before.
#[derive(Debug, Default)]
pub struct Ear {
    /// The time in the latest heartbeat of each node.
    heartbeats: BTreeMap<NodeIndex, UnixMillis>,
    /// The time in the latest progress of each node.
    progress: BTreeMap<NodeIndex, UnixMillis>,
}

/// Whether this is no older than what was heard from that node and, if it may not repeat, not from the same moment.
fn is_news(
    heard: &mut BTreeMap<NodeIndex, UnixMillis>,
    node: NodeIndex,
    time: UnixMillis,
    twice: bool,
) -> bool {
    let last = heard.get(&node).copied();
    let news = last.is_none_or(|last| time > last || (twice && time == last));
    if news {
        heard.insert(node, time);
    }
    news
}

impl Ear {
    /// A message as news. None if its node has not signed it, if it is about another node, and for a heartbeat that is
    /// not later than one heard before.
    pub fn hear(&mut self, voices: &Voices, subject: &str, payload: &[u8]) -> Option<News> {
        match subject.split('.').next()? {
            "health" => {
                let (node, body) = voices.hear(Topic::Heartbeat, payload).ok()?;
                let heartbeat = bus::Heartbeat::decode(body.as_slice()).ok()?;
                let own = heartbeat.node == u32::from(node);
                let later = own && is_news(&mut self.heartbeats, node, UnixMillis(heartbeat.time_ms), false);
                later.then(|| News::Health(Box::new(heartbeat)))
            }
            "progress" => {
                let (node, body) = voices.hear(Topic::Progress, payload).ok()?;
                let progress = bus::Progress::decode(body.as_slice()).ok()?;
                let own = progress.node == u32::from(node);
                let later = own && is_news(&mut self.progress, node, UnixMillis(progress.time_ms), true);
                later.then(|| News::Progress(Box::new(progress)))
            }
            "head" => {
                let news = record::News::decode(payload).ok()?;
                let heads = news.heads.into_iter().take(MAX_HEADS).filter_map(|news| news.head);
                let mut heads = heads.filter_map(|head| SignedHead::from_wire(head).ok());
                heads.find(|head| voices.signed(head)).map(|head| News::Log(head.ceremony.clone()))
            }
            _ => None,
        }
    }
}

/// The messages that are news.
pub(super) fn heard<B: Bus>(
    nodes: Nodes<B>,
    messages: impl Stream<Item = async_nats::Message> + Send,
) -> impl Stream<Item = News> + Send {
    let hear = move |ear: &mut Ear, message: async_nats::Message| {
        let news = ear.hear(&nodes.voices(None), message.subject.as_str(), &message.payload);
        std::future::ready(Some(news))
    };
    messages.scan(Ear::default(), hear).filter_map(std::future::ready)
}
