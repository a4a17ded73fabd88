//! A simulated host: a real core with its store and its place at the broker, for whichever world wants to run it.

pub(crate) mod seeds;
mod shares;
pub(crate) mod store;
pub(crate) mod stream;

use std::collections::VecDeque;

use ceremonies::ceremony::Context;
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, NodeIndex, UnixMillis};
use node::core::{Core, Event, Identity, Mark, Now, Pace, StoreOp, Ticket};

use self::store::{Order, Store};
use crate::simulation::charter::{node, node_key, place};

/// What one core publishes for others.
#[derive(Clone)]
pub(crate) enum Message {
    Heads(Vec<u8>),
    Peer(NodeIndex, Vec<u8>),
    Heartbeat(Vec<u8>),
}

impl From<Message> for Event {
    fn from(message: Message) -> Self {
        match message {
            Message::Heads(bytes) => Self::Heads(bytes),
            Message::Peer(from, bytes) => Self::FromPeer(from, bytes),
            Message::Heartbeat(bytes) => Self::Heartbeat(bytes),
        }
    }
}

/// Whom something is published for.
pub(crate) enum Published {
    Others(Message),
    Node(usize, Message),
    /// What a request named as the place for its answer.
    Console(String, Vec<u8>),
}

impl Published {
    pub(crate) fn new(on: &str, payload: Vec<u8>) -> Self {
        match on.split('.').collect::<Vec<_>>().as_slice() {
            ["head", _] => Self::Others(Message::Heads(payload)),
            ["health", _] => Self::Others(Message::Heartbeat(payload)),
            ["record", to, _] => {
                let to = place(NodeIndex::new(to.parse().unwrap()).unwrap());
                Self::Node(to, Message::Peer(subject::node(on).unwrap(), payload))
            }
            ["console", name] => Self::Console((*name).to_owned(), payload),
            other => panic!("a message on {other:?}"),
        }
    }
}

/// What a core asked of the stream.
pub(crate) enum StreamOp {
    Inspect(Option<Mark>),
    Read(Option<CeremonyId>, u64),
    ReadLog(CeremonyId, u64),
    Append { ceremony: CeremonyId, expected: Option<u64>, read_to: u64, entry: Vec<u8> },
}

/// A host. Its store survives; the core and what it has asked for do not.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) core: Option<Core>,
    /// How often a core was started here.
    pub(crate) boot: u32,
    /// When the last one was.
    booted: u64,
    /// How far its clock is off.
    pub(crate) clock: i64,
    pub(crate) store: Store,
    pub(crate) store_ops: VecDeque<(Ticket, StoreOp)>,
    pub(crate) stream_ops: VecDeque<StreamOp>,
    pub(crate) is_streaming: bool,
}

impl Host {
    pub(crate) fn with(store: Store, clock: i64) -> Self {
        Self { clock, store, ..Self::default() }
    }

    /// The time as a core here is told it, when this much of the schedule has passed and the true time is this.
    pub(crate) fn moment(&self, passed: u64, wall: UnixMillis) -> Now {
        Now { wall: wall.plus(self.clock), steady: passed - self.booted + 1 }
    }

    /// A core that remembers what the store has.
    pub(crate) fn start(
        &mut self,
        at: usize,
        (context, order): (&Context, Order),
        pace: Pace,
        (passed, wall): (u64, UnixMillis),
    ) {
        self.boot += 1;
        self.booted = passed;
        let remembered = self.store.start(context, order);
        let identity = Identity { node: node(at), charter: context.charter().clone(), nkey: node_key(at) };
        self.core = Some(Core::new(identity, remembered, pace, self.moment(passed, wall)));
    }

    pub(crate) fn is_alive(&self, boot: u32) -> bool {
        self.boot == boot && self.core.is_some()
    }

    /// Whether the stream can be asked something now; from then on it is busy.
    pub(crate) fn may_ask_stream(&mut self) -> bool {
        let may = !self.is_streaming && !self.stream_ops.is_empty();
        self.is_streaming |= may;
        may
    }

    /// The core is gone, with all that it had asked for.
    pub(crate) fn stop(&mut self) {
        self.core = None;
        self.store_ops.clear();
        self.stream_ops.clear();
        self.is_streaming = false;
    }
}
