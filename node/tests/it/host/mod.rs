//! A simulated host: a real core with its store and its place at the broker, for whichever world wants to run it.

pub(crate) mod seeds;
mod shares;
pub(crate) mod store;
pub(crate) mod stream;

use std::collections::VecDeque;

use ceremonies::ids::CeremonyId;
use node::core::{Core, Mark, StoreOp, Ticket};

use self::store::Store;

/// What a core asked of the stream.
pub(crate) enum StreamOp {
    Inspect(Option<Mark>),
    Read(u64),
    Append { ceremony: CeremonyId, expected: Option<u64>, read_to: u64, entry: Vec<u8> },
}

/// A host. Its store survives; the core and what it has asked for do not.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) core: Option<Core>,
    /// How often a core was started here.
    pub(crate) boot: u32,
    /// When the last one was.
    pub(crate) booted: u64,
    /// How far its clock is off.
    pub(crate) clock: i64,
    pub(crate) store: Store,
    pub(crate) store_ops: VecDeque<(Ticket, StoreOp)>,
    pub(crate) stream_ops: VecDeque<StreamOp>,
    pub(crate) is_streaming: bool,
}

impl Host {
    pub(crate) fn with(store: Store) -> Self {
        Self { store, ..Self::default() }
    }

    pub(crate) fn is_alive(&self, boot: u32) -> bool {
        self.boot == boot && self.core.is_some()
    }

    /// The core is gone, with all that it had asked for.
    pub(crate) fn stop(&mut self) {
        self.core = None;
        self.store_ops.clear();
        self.stream_ops.clear();
        self.is_streaming = false;
    }
}
