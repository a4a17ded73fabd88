//! What a heartbeat is worth: the console forms its own verdict on every node.

use std::collections::BTreeSet;
use std::time::Instant;

use ceremonies::attestation::{self, Document, Expectation, Measurement};
use ceremonies::book::Book;
use ceremonies::ceremony::Context;
use ceremonies::ids::{Hash, NodeIndex, UnixMillis};
use ceremonies::text::one_line;
use ceremonies::wire::bus::{Heartbeat, HeldShare};
use serde::Serialize;

use crate::readiness::{self, Held, InUse, Readiness, named};

/// After this long without a heartbeat a node counts as lost, in milliseconds: three are missed.
pub const LOST_MS: i64 = 5_000;
/// How far a node's clock may be from this console's before that is reported, in milliseconds.
const CLOCK_MS: i64 = 2_000;

/// A node's health, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Its enclave is not the one the charter allows, or it is not there at all.
    Bad,
    /// Nothing is known of it: there is no bus.
    Unknown,
    /// Something needs attention.
    Warn,
    /// All is proved.
    Good,
    /// The charter excludes it: nothing is asked of it.
    Excluded,
}

impl Level {
    /// The mark that stands for it, whatever the colour.
    #[must_use]
    pub fn mark(self) -> &'static str {
        match self {
            Self::Bad => "✗",
            Self::Unknown => "?",
            Self::Warn => "!",
            Self::Good => "✓",
            Self::Excluded => "⊘",
        }
    }
}

/// A node as the console sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Which node.
    pub node: NodeIndex,
    /// How it is.
    pub level: Level,
    /// The worst trouble, or what is proven.
    pub summary: String,
    /// The verdict on its attestation document.
    pub attestation: String,
    /// The enclave's measured image, as the charter allows it, while the verdict is good.
    pub image: Option<Measurement>,
    /// The shares it holds: wallet, generation, state; none if that is not known.
    pub shares: Option<Vec<String>>,
    /// Milliseconds since its last heartbeat.
    pub heard_ms_ago: Option<i64>,
    /// The programs it runs.
    pub build: String,
    /// Who has banned it and who decides what follows, if several others have.
    pub accused: Option<String>,
    /// What it says of its shares; none where it was never heard, or is not asked.
    #[serde(skip)]
    pub held: Option<Held>,
}

/// A cluster as the console sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether each wallet can sign.
    pub wallets: Vec<Readiness>,
    /// Every node of the charter.
    pub nodes: Vec<NodeStatus>,
}

/// How many others must have banned a node before its exclusion is suggested: one alone may be the culprit.
const ACCUSERS: usize = 2;

fn accusation(book: &Book, node: NodeIndex) -> Option<String> {
    let accusers: Vec<String> = book.accusers(node).iter().map(ToString::to_string).collect();
    (accusers.len() >= ACCUSERS).then(|| {
        format!("banned by {}; operators may exclude it: runbooks/compromise.md", accusers.join(", "))
    })
}

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
    heartbeat: Heartbeat,
    received: Moment,
    document: Result<Document, String>,
}

impl Heard {
    /// Verifies a heartbeat's document, unless it is that of the heartbeat before.
    #[must_use]
    pub fn new(context: &Context, heartbeat: Heartbeat, received: Moment, before: Option<Self>) -> Self {
        let document = match before {
            Some(before) if document(&before.heartbeat) == document(&heartbeat) => before.document,
            Some(_) | None => match document(&heartbeat) {
                [] => Err("no attestation document yet".to_owned()),
                bytes => {
                    attestation::parse_and_verify(bytes, context.root()).map_err(|error| error.to_string())
                }
            },
        };
        Self { heartbeat, received, document }
    }
}

impl Heard {
    /// How long ago it came, in milliseconds.
    fn age_ms(&self, now: Moment) -> i64 {
        let age = now.steady.saturating_duration_since(self.received.steady);
        i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
    }
}

fn document(heartbeat: &Heartbeat) -> &[u8] {
    heartbeat.enclave.as_ref().map(|enclave| enclave.document.as_slice()).unwrap_or_default()
}

fn verdict(
    context: &Context,
    node: NodeIndex,
    heard: &Heard,
    now: UnixMillis,
) -> Result<attestation::Attested, String> {
    let nonce = attestation::heartbeat_nonce(context.charter().cluster(), node);
    let rules = context.charter().attestation();
    let expected = Expectation {
        root: context.root(),
        allowed: &rules.measurements,
        nonce: Some(nonce.as_bytes()),
        at: now,
        max_age_ms: u64::from(rules.max_age_s) * 1000,
    };
    attestation::judge(heard.document.clone()?, &expected).map_err(|error| error.to_string())
}

/// How the cluster is, by the last heartbeat of each node.
#[must_use]
pub fn health<'a>(book: &Book, heard: impl Fn(NodeIndex) -> Option<&'a Heard>, now: Moment) -> Health {
    let in_use = readiness::in_use(book, now.wall);
    let roster = book.context().charter().roster();
    let is_silent = |node: &NodeIndex| heard(*node).is_none_or(|heard| heard.age_ms(now) > LOST_MS);
    let silent: BTreeSet<NodeIndex> = roster.iter().copied().filter(is_silent).collect();
    let status = |node| with_losses(&in_use, judged(book, node, heard(node), &silent, now));
    let nodes: Vec<NodeStatus> = roster.into_iter().map(status).collect();
    Health { wallets: in_use.iter().map(|generation| Readiness::of(generation, &nodes)).collect(), nodes }
}

/// How a cluster is while there is no bus: nobody can tell, and the nodes are not to blame.
#[must_use]
pub fn without_bus(health: Health) -> Health {
    let unknown = |status: NodeStatus| match status.level {
        Level::Excluded => status,
        Level::Bad | Level::Unknown | Level::Warn | Level::Good => NodeStatus {
            level: Level::Unknown,
            summary: "not known: this console has no bus".to_owned(),
            attestation: "unknown".to_owned(),
            image: None,
            shares: None,
            ..status
        },
    };
    Health { nodes: health.nodes.into_iter().map(unknown).collect(), ..health }
}

/// A node that has lost a share is not well, however well it runs.
fn with_losses(in_use: &[InUse], status: NodeStatus) -> NodeStatus {
    let lost: Vec<String> = in_use.iter().filter_map(|generation| generation.lost_by(&status)).collect();
    if lost.is_empty() || status.level == Level::Bad {
        return status;
    }
    let summary = format!("lost its share of {}: open a recovery", lost.join(", "));
    NodeStatus { level: Level::Bad, summary, ..status }
}

/// What a heartbeat says of the shares in its node's store.
fn held(heartbeat: &Heartbeat) -> Held {
    let in_use = heartbeat.shares.iter().filter(|share| share.state == "current");
    let in_use: BTreeSet<Hash> =
        in_use.filter_map(|share| Hash::try_from(share.record.as_slice()).ok()).collect();
    Held {
        at: UnixMillis(heartbeat.time_ms),
        in_use: heartbeat.store_trouble.is_empty().then_some(in_use),
        opens: heartbeat.kms_trouble.is_empty(),
    }
}

/// The status of one node by its last heartbeat.
#[must_use]
pub fn status(book: &Book, node: NodeIndex, heard: Option<&Heard>, now: Moment) -> NodeStatus {
    with_losses(&readiness::in_use(book, now.wall), judged(book, node, heard, &BTreeSet::new(), now))
}

/// How a node is, its shares aside, unless the charter excludes it: then its word counts for nothing.
fn judged(
    book: &Book,
    node: NodeIndex,
    heard: Option<&Heard>,
    silent_nodes: &BTreeSet<NodeIndex>,
    now: Moment,
) -> NodeStatus {
    let context = book.context();
    let unasked = |level, summary: &str, accused| NodeStatus {
        node,
        level,
        summary: summary.to_owned(),
        attestation: "unknown".to_owned(),
        image: None,
        shares: None,
        heard_ms_ago: None,
        build: String::new(),
        accused,
        held: None,
    };
    if context.charter().excludes(node) {
        return unasked(Level::Excluded, "EXCLUDED: takes part in nothing", None);
    }
    let accused = accusation(book, node);
    let Some(heard) = heard else { return unasked(Level::Bad, "not heard from", accused) };
    let heartbeat = &heard.heartbeat;
    let verdict = verdict(context, node, heard, now.wall);
    let heard_ms_ago = heard.age_ms(now);
    let silent = heard_ms_ago > LOST_MS;
    let offset_ms = heard.received.wall.since(UnixMillis(heartbeat.time_ms));
    let enclave_trouble =
        heartbeat.enclave.as_ref().map(|enclave| enclave.trouble.clone()).unwrap_or_default();
    let (level, summary) = match judge(
        context,
        heartbeat,
        &verdict,
        &enclave_trouble,
        (heard_ms_ago, offset_ms),
        silent_nodes,
    ) {
        (Level::Warn | Level::Good, _) if accused.is_some() => {
            (Level::Warn, "banned by other nodes".to_owned())
        }
        judged => judged,
    };
    NodeStatus {
        node,
        level,
        summary,
        attestation: match &verdict {
            _ if silent => "unknown".to_owned(),
            Ok(_) => "accepted".to_owned(),
            Err(why) if document(heartbeat).is_empty() => why.clone(),
            Err(why) => format!("REFUSED: {why}"),
        },
        image: verdict.ok().filter(|_| !silent).map(|attested| attested.measurement),
        shares: (!silent && heartbeat.store_trouble.is_empty()).then(|| {
            let share = |share: &HeldShare| {
                one_line(&format!("{} g{} {}", share.wallet, share.generation, share.state))
            };
            heartbeat.shares.iter().map(share).collect()
        }),
        heard_ms_ago: Some(heard_ms_ago),
        build: one_line(&heartbeat.build),
        accused,
        held: Some(held(heartbeat)),
    }
}

/// How this console's clock and a node's differ, if its heartbeat came this much later than it is dated.
fn clock_trouble(late_ms: i64) -> String {
    let by = match late_ms.unsigned_abs() {
        ms @ ..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => format!("{} min", (ms + 30_000) / 60_000),
    };
    if late_ms < 0 {
        format!("its clock is {by} ahead of this console's")
    } else {
        format!("its clock is {by} behind this console's, or its heartbeats arrive that late")
    }
}

fn judge(
    context: &Context,
    heartbeat: &Heartbeat,
    verdict: &Result<attestation::Attested, String>,
    enclave_trouble: &str,
    (heard, offset): (i64, i64),
    silent: &BTreeSet<NodeIndex>,
) -> (Level, String) {
    if heard > LOST_MS {
        return (Level::Bad, format!("not heard from for {} s", heard / 1000));
    }
    // First of all: a node whose store cannot be used may not even have started.
    if !heartbeat.store_trouble.is_empty() {
        return (Level::Bad, format!("store: {}", one_line(&heartbeat.store_trouble)));
    }
    if heartbeat.charter != context.charter().hash().as_bytes() {
        return (Level::Bad, "works under another charter".to_owned());
    }
    if !enclave_trouble.is_empty() {
        return (Level::Bad, format!("enclave: {}", one_line(enclave_trouble)));
    }
    if let Err(why) = verdict {
        return (Level::Bad, format!("attestation: {why}"));
    }
    for (part, trouble) in [
        ("KMS", &heartbeat.kms_trouble),
        ("backups", &heartbeat.vault_trouble),
        ("stream", &heartbeat.stream_trouble),
    ] {
        if !trouble.is_empty() {
            return (Level::Warn, format!("{part}: {}", one_line(trouble)));
        }
    }
    if let Some(forked) = heartbeat.forked.first() {
        let more = heartbeat.forked.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" and of {more} others") };
        return (Level::Warn, format!("the log of {}{more} forks", one_line(forked)));
    }
    if offset.abs() > CLOCK_MS {
        return (Level::Warn, clock_trouble(offset));
    }
    if let Some(until) = verdict.as_ref().ok().and_then(|attested| attested.measurement.until) {
        return (Level::Warn, format!("its image is refused from {until} on: start its successor"));
    }
    let heard: BTreeSet<u32> = heartbeat.peers.iter().map(|peer| peer.node).collect();
    let others = context.charter().members().into_iter().filter(|node| u32::from(*node) != heartbeat.node);
    let (heard, unheard): (Vec<NodeIndex>, Vec<NodeIndex>) =
        others.partition(|node| heard.contains(&u32::from(*node)));
    // A peer that this console does not hear either is that peer's trouble alone.
    let missed: Vec<NodeIndex> = unheard.into_iter().filter(|node| !silent.contains(node)).collect();
    if missed.is_empty() {
        (Level::Good, format!("healthy, hears {} peers", heard.len()))
    } else {
        (Level::Warn, format!("does not hear {}", named(&missed)))
    }
}
