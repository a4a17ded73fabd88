//! A heartbeat as it was heard, and when.

use std::collections::BTreeMap;
#[cfg(target_os = "linux")]
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ceremonies::attestation::{self, AttestationError, Document};
use ceremonies::ceremony::Context;
use ceremonies::ids::{NodeIndex, UnixMillis};
use ceremonies::wire::bus::Heartbeat;
use thiserror::Error;

/// After this long without a heartbeat a node counts as lost, in milliseconds: they come every second.
pub const LOST_MS: i64 = 5_000;
/// For how long a heartbeat says how its node is now, in milliseconds. Between this and the above, nobody knows.
pub(super) const FRESH_MS: i64 = 3_000;
/// How long nodes that disagree about a log may take to settle that, in milliseconds: it is no trouble before.
const SETTLING_MS: i64 = crate::fork::SETTLING_MS;
/// How long it is shown that a node sent more than it may, in milliseconds: a flood need not be even.
const SURPLUS_MS: i64 = 10_000;
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
        Self { wall: crate::room::now(), steady: steady() }
    }
}

/// Now, on a clock that also runs while this machine sleeps. [`Instant::now`] stands still then, and what was heard before
/// would look new.
#[cfg(target_os = "linux")]
fn steady() -> Instant {
    static START: LazyLock<(Instant, Duration)> = LazyLock::new(|| (Instant::now(), since_boot()));
    let (start, booted) = *START;
    start + since_boot().saturating_sub(booted)
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(not(target_os = "linux"))]
fn steady() -> Instant {
    Instant::now()
}

/// What every heartbeat of a node has named lately, and since when.
#[derive(Debug)]
struct Named<T>(BTreeMap<T, Instant>);

impl<T: Ord> Named<T> {
    /// What is named now, by a node that has named some of it before.
    fn now(named: impl Iterator<Item = T>, at: Instant, before: Option<Self>) -> Self {
        let mut before = before.map(|before| before.0).unwrap_or_default();
        let since = |name: T| {
            let since = before.remove(&name).unwrap_or(at);
            (name, since)
        };
        Self(named.map(since).collect())
    }

    /// Whether it has been named for longer than nodes take to settle it.
    fn stays(&self, name: &T, now: Moment) -> bool {
        self.0.get(name).is_some_and(|since| millis(*since, now.steady) > SETTLING_MS)
    }
}

/// The ceremony in what a heartbeat says of a fork.
fn ceremony(forked: &str) -> String {
    forked.split(' ').next().unwrap_or_default().to_owned()
}

/// Why a node's enclave has not attested itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum NotAttested {
    /// Its heartbeats carry no document.
    #[error("no attestation document yet")]
    Yet,
    /// Its document is refused.
    #[error(transparent)]
    Refused(#[from] AttestationError),
}

/// A heartbeat whose document has been verified, once per document and not once per look.
#[derive(Debug)]
pub struct Heard {
    pub(super) heartbeat: Heartbeat,
    pub(super) received: Moment,
    pub(super) document: Result<Document, NotAttested>,
    /// When another one last came that is dated before this one.
    backdated: Option<Instant>,
    /// When more last came in its name than a node may send.
    surplus: Option<Instant>,
    /// When the node was heard again after a silence.
    returned: Option<Instant>,
    /// The ceremonies whose logs it says fork.
    forked: Named<String>,
    /// The nodes that it says stand elsewhere.
    elsewhere: Named<u32>,
}

impl Heard {
    /// Verifies a heartbeat's document, unless it is that of the heartbeat before.
    #[must_use]
    pub fn new(context: &Context, heartbeat: Heartbeat, received: Moment, before: Option<Self>) -> Self {
        let returned = before.as_ref().and_then(|before| {
            if before.age_ms(received) > LOST_MS { Some(received.steady) } else { before.returned }
        });
        let surplus = before.as_ref().and_then(|before| before.surplus);
        let (before, forked, elsewhere) = match before {
            Some(Self { heartbeat, document, forked, elsewhere, .. }) => {
                (Some((heartbeat, document)), Some(forked), Some(elsewhere))
            }
            None => (None, None, None),
        };
        let document = match before {
            Some((before, verified)) if document(&before) == document(&heartbeat) => verified,
            Some(_) | None => match document(&heartbeat) {
                [] => Err(NotAttested::Yet),
                bytes => attestation::parse_and_verify(bytes, context.root()).map_err(NotAttested::from),
            },
        };
        let at = received.steady;
        let forked = Named::now(heartbeat.forked.iter().map(|forked| ceremony(forked)), at, forked);
        let elsewhere = Named::now(heartbeat.elsewhere.iter().copied(), at, elsewhere);
        Self { heartbeat, received, document, backdated: None, surplus, returned, forked, elsewhere }
    }

    /// What it says of logs that fork and do not settle.
    pub(super) fn lasting_forks(&self, now: Moment) -> Vec<&str> {
        let stays = |forked: &&String| self.forked.stays(&ceremony(forked), now);
        self.heartbeat.forked.iter().filter(stays).map(String::as_str).collect()
    }

    /// Whether it keeps saying that a node stands on another branch of a log than a quorum.
    pub(super) fn keeps_elsewhere(&self, node: NodeIndex, now: Moment) -> bool {
        self.elsewhere.stays(&node.into(), now)
    }

    /// Notes that another heartbeat came that is dated before this one. It says nothing of how the node is now.
    pub fn came_backdated(&mut self, at: Instant) {
        self.backdated = Some(at);
    }

    /// Notes that more came in its name than a node may send.
    pub(super) fn came_in_surplus(&mut self, at: Instant) {
        self.surplus = Some(at);
    }

    /// Whether more came in its name lately than a node may send.
    pub(super) fn sends_too_much(&self, now: Moment) -> bool {
        self.surplus.is_some_and(|at| millis(at, now.steady) <= SURPLUS_MS)
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
