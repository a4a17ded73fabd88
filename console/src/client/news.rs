//! What nodes announce without being asked: heartbeats, progress, and that a log may have grown.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ceremonies::deploy::allowance;
use ceremonies::ids::{CeremonyId, NodeIndex, UnixMillis};
use ceremonies::record::SignedHead;
use ceremonies::said::Topic;
use ceremonies::wire::{bus, record};
use prost::Message;

use super::voices::Voices;

/// What a node tells.
#[derive(Debug, Clone)]
pub enum News {
    /// There may be a new entry.
    Log(CeremonyId),
    /// A node's heartbeat.
    Health(Box<bus::Heartbeat>),
    /// A node's heartbeat that is dated before one heard earlier: its clock was set back, or somebody repeats an old one.
    Backdated(NodeIndex),
    /// More comes in a node's name than a node may send: the surplus was dropped unread.
    Surplus(NodeIndex),
    /// A node's progress in a session.
    Progress(Box<bus::Progress>),
}

/// The most bytes of a heartbeat or of progress: many times what honest nodes say.
const MAX_SAID: usize = 128 * 1024;
/// The most shares, and the most of everything else, that one heartbeat tells.
const MAX_SHARES: usize = 100;
const MAX_TOLD: usize = 64;

/// What counts of a heartbeat: what is too much would fill memory and screens.
fn within_bounds(mut heartbeat: bus::Heartbeat) -> bus::Heartbeat {
    heartbeat.shares.truncate(MAX_SHARES);
    heartbeat.peers.truncate(MAX_TOLD);
    heartbeat.forked.truncate(MAX_TOLD);
    heartbeat.elsewhere.truncate(MAX_TOLD);
    heartbeat.differs.truncate(MAX_TOLD);
    heartbeat.past.truncate(MAX_TOLD);
    heartbeat
}

/// The most heads in one message of which nobody may know the node: of an amendment that this console has yet to read.
const MAX_STRANGERS: usize = 16;

/// What tells news from messages that no node signed, or that were heard before.
#[derive(Debug, Default)]
pub struct Ear {
    /// The time in the latest heartbeat of each node.
    heartbeats: BTreeMap<NodeIndex, UnixMillis>,
    /// The time in the latest progress of each node.
    progress: BTreeMap<NodeIndex, UnixMillis>,
}

/// How the time in a message compares to the latest of its node, which it becomes if it is later.
fn against_latest(
    latest: &mut BTreeMap<NodeIndex, UnixMillis>,
    node: NodeIndex,
    time: UnixMillis,
) -> Ordering {
    match latest.entry(node) {
        Entry::Vacant(first) => {
            first.insert(time);
            Ordering::Greater
        }
        Entry::Occupied(mut latest) => {
            let order = time.cmp(latest.get());
            latest.insert(time.max(*latest.get()));
            order
        }
    }
}

impl Ear {
    /// A message as news. None if its node has not signed it, if it is about another node, and for what was heard before.
    pub fn hear(&mut self, voices: &Voices, subject: &str, payload: &[u8]) -> Option<News> {
        match subject.split('.').next()? {
            "health" | "progress" if payload.len() > MAX_SAID => None,
            "health" => {
                let (node, body) = voices.hear(Topic::Heartbeat, payload).ok()?;
                let heartbeat = bus::Heartbeat::decode(body.as_slice()).ok()?;
                if heartbeat.node != u32::from(node) {
                    return None;
                }
                match against_latest(&mut self.heartbeats, node, UnixMillis(heartbeat.time_ms)) {
                    Ordering::Greater => Some(News::Health(Box::new(within_bounds(heartbeat)))),
                    Ordering::Equal => None,
                    Ordering::Less => Some(News::Backdated(node)),
                }
            }
            "progress" => {
                let (node, body) = voices.hear(Topic::Progress, payload).ok()?;
                let progress = bus::Progress::decode(body.as_slice()).ok()?;
                if progress.node != u32::from(node) {
                    return None;
                }
                let order = against_latest(&mut self.progress, node, UnixMillis(progress.time_ms));
                order.is_ge().then(|| News::Progress(Box::new(progress)))
            }
            "head" => {
                if !allowance::is_news(payload) {
                    return None;
                }
                let news = record::News::decode(payload).ok()?;
                let heads = news.heads.into_iter().filter_map(|news| news.head);
                let mut heads = heads.filter_map(|head| SignedHead::from_wire(head).ok()).take(MAX_STRANGERS);
                heads.find(|head| voices.signed(head)).map(|head| News::Log(head.ceremony.clone()))
            }
            _ => None,
        }
    }
}
