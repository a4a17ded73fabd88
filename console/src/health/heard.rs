//! A heartbeat as it was heard, and when.

use std::time::{Duration, Instant};

use ceremonies::attestation::{self, Document};
use ceremonies::ceremony::Context;
use ceremonies::ids::UnixMillis;
use ceremonies::wire::bus::Heartbeat;

/// After this long without a heartbeat a node counts as lost, in milliseconds: three are missed.
pub const LOST_MS: i64 = 5_000;
/// How long others may take to say that they hear a node again which this console does: two heartbeats.
const RETURN: Duration = Duration::from_secs(4);

/// A moment by the console's clocks: for people, and for measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The time that is shown.
    pub wall: UnixMillis,
    /// What durations are measured with; nobody can set it.
    pub steady: Instant,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { wall: crate::room::now(), steady: Instant::now() }
    }
}

/// A heartbeat whose document has been verified, once per document and not once per look.
#[derive(Debug)]
pub struct Heard {
    pub(super) heartbeat: Heartbeat,
    pub(super) received: Moment,
    pub(super) document: Result<Document, String>,
    /// When another one last came that is dated before this one.
    backdated: Option<Instant>,
    /// When the node was heard again after a silence.
    returned: Option<Instant>,
}

impl Heard {
    /// Verifies a heartbeat's document, unless it is that of the heartbeat before.
    #[must_use]
    pub fn new(context: &Context, heartbeat: Heartbeat, received: Moment, before: Option<Self>) -> Self {
        let returned = before.as_ref().and_then(|before| {
            if before.age_ms(received) > LOST_MS { Some(received.steady) } else { before.returned }
        });
        let document = match before {
            Some(before) if document(&before.heartbeat) == document(&heartbeat) => before.document,
            Some(_) | None => match document(&heartbeat) {
                [] => Err("no attestation document yet".to_owned()),
                bytes => {
                    attestation::parse_and_verify(bytes, context.root()).map_err(|error| error.to_string())
                }
            },
        };
        Self { heartbeat, received, document, backdated: None, returned }
    }

    /// Notes that another heartbeat came that is dated before this one. It says nothing of how the node is now.
    pub fn came_backdated(&mut self, at: Instant) {
        self.backdated = Some(at);
    }

    /// Whether others lately came that are dated before it: why there is no later one.
    pub(super) fn is_repeated(&self, now: Moment) -> bool {
        self.backdated.is_some_and(|at| millis(at, now.steady) <= LOST_MS)
    }

    /// How much later it came than it is dated, in milliseconds.
    pub(super) fn offset_ms(&self) -> i64 {
        self.received.wall.since(UnixMillis(self.heartbeat.time_ms))
    }

    /// Whether the node was silent until a moment ago, so that others may not have heard it again yet.
    pub(super) fn has_just_returned(&self, now: Moment) -> bool {
        self.returned.is_some_and(|at| now.steady.saturating_duration_since(at) <= RETURN)
    }

    /// How long ago it came, in milliseconds.
    pub(super) fn age_ms(&self, now: Moment) -> i64 {
        millis(self.received.steady, now.steady)
    }
}

/// From one moment to another, in milliseconds.
pub(super) fn millis(from: Instant, to: Instant) -> i64 {
    i64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn document(heartbeat: &Heartbeat) -> &[u8] {
    heartbeat.enclave.as_ref().map(|enclave| enclave.document.as_slice()).unwrap_or_default()
}
