//! What a heartbeat is worth: the console forms its own verdict on every node.

mod around;
mod heard;
mod hearing;
mod past;

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::attestation::{self, Expectation, Measurement};
use ceremonies::book::Book;
use ceremonies::ceremony::Context;
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{Generation, Hash, NodeIndex, UnixMillis};
use ceremonies::manifest::Manifest;
use ceremonies::text::one_line;
use ceremonies::wire::bus::{Heartbeat, HeldShare};
use serde::Serialize;

use self::around::{ACCUSERS, Around};
use self::heard::{FRESH_MS, NotAttested, millis};
pub use self::heard::{Heard, LOST_MS, Moment};
pub use self::hearing::Hearing;
use self::hearing::Voice;
pub use self::past::PastTrouble;
use self::past::lately;
use crate::checks::Check;
use crate::readiness::{self, Held, InUse, Readiness, Share, named};

/// How far a node's clock may be from this console's before that is reported, in milliseconds.
const CLOCK_MS: i64 = 2_000;

/// A node's health, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Its enclave is not the one the charter allows, or it is not there at all.
    Bad,
    /// Nothing is known of it: there is no bus, or nothing comes over it.
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
    /// Which check fails, if any.
    pub check: Option<Check>,
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
    /// When its agent was started, if that is known.
    pub started: Option<UnixMillis>,
    /// What was wrong in the last hour and is over, the last first.
    pub lately: Vec<PastTrouble>,
    /// Who has banned it and who decides what follows, if several others have.
    pub accused: Option<String>,
    /// What it says of its shares; none where it was never heard, or is not asked.
    #[serde(skip)]
    pub held: Option<Held>,
}

impl NodeStatus {
    /// Whether this console has not listened long enough to tell whether the node is silent.
    fn is_awaited(&self) -> bool {
        self.level == Level::Unknown && self.check.is_none()
    }
}

/// A cluster as the console sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether each wallet can sign.
    pub wallets: Vec<Readiness>,
    /// Every node of the charter.
    pub nodes: Vec<NodeStatus>,
}

impl Health {
    /// The nodes that could not do their part in a ceremony as they are. A lost share counts where it is this wallet's, and
    /// the ceremony needs it and does not give it back.
    pub fn in_the_way_of<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = &'a NodeStatus> {
        let takes_part = |node| manifest.kind.uses_enclaves() && manifest.roster.contains(&node);
        let stands = |status: &NodeStatus| match status.check {
            Some(Check::ShareLost) => self.lacks_a_share_for(manifest, status.node),
            Some(_) | None => status.level == Level::Bad || status.is_awaited(),
        };
        self.nodes.iter().filter(move |status| takes_part(status.node) && stands(status))
    }

    fn lacks_a_share_for(&self, manifest: &Manifest, node: NodeIndex) -> bool {
        let wallet = self.wallets.iter().find(|readiness| readiness.wallet == manifest.wallet);
        let is_lost = wallet.is_some_and(|wallet| wallet.shares.get(&node) == Some(&Share::Lost));
        is_lost && manifest.kind != CeremonyKind::Dkg && !manifest.lost().contains_key(&node)
    }
}

fn accusation(book: &Book, node: NodeIndex) -> Option<String> {
    let accusers: Vec<String> = book.accusers(node).iter().map(ToString::to_string).collect();
    (accusers.len() >= ACCUSERS).then(|| {
        format!("banned by {}; operators may exclude it: runbooks/compromise.md", accusers.join(", "))
    })
}

fn verdict(
    context: &Context,
    node: NodeIndex,
    heard: &Heard,
    now: UnixMillis,
) -> Result<attestation::Attested, NotAttested> {
    let nonce = attestation::heartbeat_nonce(context.charter().cluster(), node);
    let rules = context.charter().attestation();
    let expected = Expectation {
        root: context.root(),
        allowed: &rules.measurements,
        nonce: Some(nonce.as_bytes()),
        at: now,
        max_age_ms: u64::from(rules.max_age_s) * 1000,
    };
    Ok(attestation::judge(heard.document.clone()?, &expected)?)
}

/// How the cluster is, by what is heard of each node.
fn each<'a>(book: &Book, voice: impl Fn(NodeIndex) -> Voice<'a>, now: Moment) -> Health {
    let in_use = readiness::in_use(book, now.wall);
    let roster = book.context().charter().roster();
    let around = Around::of(&roster, &voice, now);
    let late = around.all_are_off.is_some_and(|offset| offset > 0);
    let status = |node| with_losses(&in_use, judged(book, node, voice(node), &around, now));
    let nodes: Vec<NodeStatus> = roster.into_iter().map(status).collect();
    let wallet = |generation: &InUse| {
        let readiness = Readiness::of(generation, &nodes);
        if late { readiness.while_late() } else { readiness }
    };
    Health { wallets: in_use.iter().map(wallet).collect(), nodes }
}

/// Why nothing is known of any node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blind {
    /// This console has lost the broker.
    NoBus,
    /// No node is heard.
    AllSilent,
    /// This console stood still, and has not listened for long enough since.
    Paused,
}

impl Blind {
    fn check(self) -> Check {
        match self {
            Self::NoBus => Check::NoBus,
            Self::AllSilent => Check::AllSilent,
            Self::Paused => Check::Paused,
        }
    }

    /// In words.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::NoBus => "the bus cannot be reached",
            Self::AllSilent => "no node is heard",
            Self::Paused => "this console stood still, and listens again",
        }
    }
}

/// How a cluster is of which nothing was heard for so many milliseconds, or yet: nobody can tell.
fn all_silent(book: &Book, silent_ms: Option<i64>, now: Moment) -> Health {
    let silence = silent_ms.map_or_else(|| "yet".to_owned(), |ms| format!("for {} s", ms / 1000));
    let why = format!("no node has been heard {silence}: see to the broker and the way to it");
    not_known(book, now, Blind::AllSilent, &why)
}

/// How a cluster is while there is no bus: nobody can tell, and the nodes are not to blame.
fn without_bus(book: &Book, now: Moment) -> Health {
    not_known(book, now, Blind::NoBus, Blind::NoBus.why())
}

/// How a cluster is after this console itself was paused: what waited for it is old, and no node is silent yet.
fn paused(book: &Book, now: Moment) -> Health {
    not_known(book, now, Blind::Paused, Blind::Paused.why())
}

fn not_known(book: &Book, now: Moment, blind: Blind, why: &str) -> Health {
    let health = each(book, |_| Voice::NotYet(None), now);
    let unknown = |status: NodeStatus| match status.level {
        Level::Excluded => status,
        Level::Bad | Level::Unknown | Level::Warn | Level::Good => NodeStatus {
            level: blind.check().level(),
            check: Some(blind.check()),
            summary: format!("not known: {why}"),
            attestation: "unknown".to_owned(),
            image: None,
            shares: None,
            ..status
        },
    };
    Health {
        wallets: health.wallets.into_iter().map(|wallet| wallet.while_blind(blind)).collect(),
        nodes: health.nodes.into_iter().map(unknown).collect(),
    }
}

/// A node that has lost a share is not well, however well it runs.
fn with_losses(in_use: &[InUse], status: NodeStatus) -> NodeStatus {
    let lost: Vec<String> = in_use.iter().filter_map(|generation| generation.lost_by(&status)).collect();
    if lost.is_empty() || status.level == Level::Bad {
        return status;
    }
    let summary = format!("lost its share of {}: a recovery is needed", lost.join(", "));
    let check = Check::ShareLost;
    NodeStatus { level: check.level(), check: Some(check), summary, ..status }
}

/// What a heartbeat says of the shares in its node's store.
fn held(heartbeat: &Heartbeat) -> Held {
    let current = || heartbeat.shares.iter().filter(|share| share.state == "current");
    let in_use: BTreeSet<Hash> =
        current().filter_map(|share| Hash::try_from(share.record.as_slice()).ok()).collect();
    let mut latest = BTreeMap::<String, Generation>::new();
    for share in current() {
        let generation = Generation(share.generation);
        let known = latest.entry(share.wallet.clone()).or_insert(generation);
        *known = generation.max(*known);
    }
    Held {
        latest,
        at: UnixMillis(heartbeat.time_ms),
        in_use: heartbeat.store_trouble.is_empty().then_some(in_use),
        opens: heartbeat.kms_trouble.is_empty(),
    }
}

/// The status of one node by its last heartbeat.
#[must_use]
pub fn status(book: &Book, node: NodeIndex, heard: Option<&Heard>, now: Moment) -> NodeStatus {
    let voice = heard.map_or(Voice::NotYet(None), Voice::Heard);
    with_losses(&readiness::in_use(book, now.wall), judged(book, node, voice, &Around::default(), now))
}

/// How a node is, its shares aside, unless the charter excludes it: then its word counts for nothing.
fn judged(book: &Book, node: NodeIndex, voice: Voice<'_>, around: &Around<'_>, now: Moment) -> NodeStatus {
    let context = book.context();
    let unheard = |(check, summary): (Option<Check>, String), accused| NodeStatus {
        node,
        level: check.map_or(Level::Unknown, Check::level),
        check,
        summary,
        attestation: "unknown".to_owned(),
        image: None,
        shares: None,
        heard_ms_ago: None,
        build: String::new(),
        started: None,
        lately: Vec::new(),
        accused,
        held: None,
    };
    if context.charter().excludes(node) {
        let summary = "EXCLUDED: takes part in nothing".to_owned();
        return unheard((Some(Check::Excluded), summary), None);
    }
    let accused = accusation(book, node);
    let Some(heard) = voice.last() else { return unheard(silence(voice, now), accused) };
    let heartbeat = &heard.heartbeat;
    let verdict = verdict(context, node, heard, now.wall);
    let heard_ms_ago = heard.age_ms(now);
    let silent = voice.now().is_none();
    let lately = lately(heartbeat, now.wall);
    let (level, (check, summary)) = if silent {
        let silence = silence(voice, now);
        (silence.0.map_or(Level::Unknown, Check::level), silence)
    } else {
        let judged = judge(context, node, heard, &verdict, around, now);
        let is_bad = matches!(&judged, Err((check, _)) if check.level() == Level::Bad);
        let found = match judged {
            _ if accused.is_some() && !is_bad => (Some(Check::Banned), "banned by other nodes".to_owned()),
            Err((check, why)) => (Some(check), why),
            Ok(well) => {
                let last = lately.first().map(|past| format!("; had trouble until {}", past.until.clock()));
                (None, well + &last.unwrap_or_default())
            }
        };
        (found.0.map_or(Level::Good, Check::level), found)
    };
    NodeStatus {
        node,
        level,
        check,
        summary,
        attestation: match &verdict {
            _ if silent => "unknown".to_owned(),
            Ok(_) => "accepted".to_owned(),
            Err(NotAttested::Yet) => NotAttested::Yet.to_string(),
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
        started: (heartbeat.started_ms > 0).then_some(UnixMillis(heartbeat.started_ms)),
        lately,
        accused,
        held: Some(held(heartbeat)),
    }
}

/// What is said of a node that is not heard: whose silence it is, as far as that is known.
fn silence(voice: Voice<'_>, now: Moment) -> (Option<Check>, String) {
    match voice {
        Voice::Silent(Some(heard), _) if heard.is_repeated(now) => {
            let why = "its heartbeats are dated before one that came earlier: its clock was set back, or somebody repeats \
                       old ones";
            (Some(Check::Backdated), why.to_owned())
        }
        Voice::Silent(heard, ms) => {
            let check = if heard.is_some() { Check::Silent } else { Check::Unheard };
            (Some(check), format!("not heard from for {} s", ms / 1000))
        }
        // Its last word is too old to count, and nobody has spoken for long enough since to blame it for that.
        Voice::NotYet(Some(heard)) | Voice::Heard(heard) => {
            let ago = heard.age_ms(now) / 1000;
            (None, format!("last heard {ago} s ago: too soon to say whether it is silent"))
        }
        Voice::NotYet(None) => (None, "not heard yet since this console listens".to_owned()),
    }
}

/// How this console's clock and a node's differ, if its heartbeat came this much later than it is dated.
fn clock_trouble(late_ms: i64, all_are_off: bool) -> String {
    let by = match late_ms.unsigned_abs() {
        ms @ ..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => format!("{} min", (ms + 30_000) / 60_000),
    };
    if all_are_off && late_ms < 0 {
        format!("this console's clock is {by} behind every node's")
    } else if all_are_off {
        format!("heartbeats of every node come {by} late: see to the bus, or to this console's clock")
    } else if late_ms < 0 {
        format!("its clock is {by} ahead of this console's")
    } else {
        format!("its clock is {by} behind this console's, or its heartbeats arrive that late")
    }
}

/// What is proven or, if anything is wrong, the first check that fails.
fn judge(
    context: &Context,
    node: NodeIndex,
    heard: &Heard,
    verdict: &Result<attestation::Attested, NotAttested>,
    around: &Around<'_>,
    now: Moment,
) -> Result<String, (Check, String)> {
    let (heartbeat, offset) = (&heard.heartbeat, heard.offset_ms());
    let enclave_trouble =
        heartbeat.enclave.as_ref().map(|enclave| enclave.trouble.as_str()).unwrap_or_default();
    // First of all: a node whose store cannot be used may not even have started.
    if !heartbeat.store_trouble.is_empty() {
        return Err((Check::Store, format!("store: {}", one_line(&heartbeat.store_trouble))));
    }
    if heartbeat.charter != context.charter().hash().as_bytes() {
        if around.share_a_charter(&heartbeat.charter) {
            let why = "works, as others do, under a charter that this console has not read";
            return Err((Check::Unread, why.to_owned()));
        }
        return Err((Check::Charter, "works under another charter".to_owned()));
    }
    if !enclave_trouble.is_empty() {
        return Err((Check::Enclave, format!("enclave: {}", one_line(enclave_trouble))));
    }
    if let Err(why) = verdict {
        return Err((Check::Attestation, format!("attestation: {why}")));
    }
    if heard.sends_too_much(now) {
        let why = "sends more than a node may: the surplus is dropped unread";
        return Err((Check::Surplus, why.to_owned()));
    }
    let broken = |check, part, trouble: &str| {
        if trouble.is_empty() { Ok(()) } else { Err((check, format!("{part}: {}", one_line(trouble)))) }
    };
    broken(Check::Kms, "KMS", &heartbeat.kms_trouble)?;
    broken(Check::Backups, "backups", &heartbeat.vault_trouble)?;
    // On a slow bus the stream answers too late as well: the cause is named, not what follows from it.
    if let Some(offset) = around.all_are_off {
        return Err((Check::Late, clock_trouble(offset, true)));
    }
    broken(Check::Stream, "stream", &heartbeat.stream_trouble)?;
    if around.is_elsewhere(node) {
        let why = "signs another branch of a log than the others have recorded";
        return Err((Check::Elsewhere, why.to_owned()));
    }
    if let [forked, more @ ..] = heard.lasting_forks(now).as_slice() {
        let more = more.len();
        let more = if more == 0 { String::new() } else { format!(" and of {more} others") };
        return Err((Check::Fork, format!("the log of {}{more} forks", one_line(forked))));
    }
    let apart = around.apart(node);
    if !apart.is_empty() {
        return Err((Check::Record, format!("has another record than {}", named(&apart))));
    }
    if offset.abs() > CLOCK_MS {
        return Err((Check::Clock, clock_trouble(offset, false)));
    }
    if let Some(until) = verdict.as_ref().ok().and_then(|attested| attested.measurement.until) {
        let why = format!("its image is refused from {until} on: start its successor");
        return Err((Check::ImageEnds, why));
    }
    let heard: BTreeSet<u32> = heartbeat.peers.iter().map(|peer| peer.node).collect();
    let others = context.charter().members().into_iter().filter(|other| *other != node);
    let (heard, unheard): (Vec<NodeIndex>, Vec<NodeIndex>) =
        others.partition(|node| heard.contains(&u32::from(*node)));
    // A peer that this console does not hear either is that peer's trouble alone.
    let missed: Vec<NodeIndex> = unheard.into_iter().filter(|node| !around.missed.contains(node)).collect();
    if missed.is_empty() {
        // It counts a peer for longer after its last word than this console does, which has one judgement of silence.
        let count = heard.iter().filter(|node| !around.silent.contains(node)).count();
        let peers = if count == 1 { "peer" } else { "peers" };
        Ok(format!("healthy, hears {count} {peers}"))
    } else {
        Err((Check::Peers, format!("does not hear {}", named(&missed))))
    }
}
