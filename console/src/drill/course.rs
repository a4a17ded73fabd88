//! The course of one drill: from what is observed, when each of its stages was over.
//!
//! Durations are measured by a clock that nobody can set. Beside them stand the times in the heartbeats that nodes signed,
//! between which each stage lies, whatever this console's clocks are worth.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ceremonies::ids::{NodeIndex, UnixMillis, WalletName};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Drill, seconds};
use crate::checks::Check;
use crate::health::{Health, Level, NodeStatus};
use crate::readiness::{Answer, Readiness};

/// After how many times its target a stage is given up.
const SEVERAL: u32 = 4;
/// For how long everything must stay as well as before, until it counts: several heartbeats.
const STEADY: Duration = Duration::from_secs(3);

/// How soon, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// From the fault until its check is shown.
    pub detect: u32,
    /// From the fault until every wallet can sign again; 0 where none may stop being able to.
    pub service: u32,
    /// From the beginning of mending until everything is as well as before.
    pub redundancy: u32,
}

/// How long a drill is waited for, whatever its targets.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The least limit of a stage.
    pub least: Duration,
    /// How long it may take until mending begins.
    pub decide: Duration,
}

impl Patience {
    /// With a lab, which does at once what it is told.
    pub const LAB: Self = Self { least: Duration::from_secs(30), decide: Duration::from_mins(1) };
    /// With people, who walk to machines.
    pub const PEOPLE: Self = Self { least: Duration::from_mins(20), decide: Duration::from_hours(1) };
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// That the check is shown.
    Detect,
    /// That mending begins.
    Decide,
    /// That every wallet can sign.
    Service,
    /// That everything is as well as before.
    Redundancy,
}

/// What makes a cluster unfit for a drill.
#[derive(Debug, Error)]
#[error("the cluster is not well, and a drill begins only when it is: {0}")]
pub struct Unwell(String);

/// A cluster that is well, before anything breaks.
#[derive(Debug, Clone)]
pub struct Start {
    nodes: BTreeMap<NodeIndex, Level>,
    wallets: BTreeMap<WalletName, Answer>,
    heard: BTreeMap<NodeIndex, UnixMillis>,
}

/// A trouble of a node, which is not accused of what every node shows.
fn of_node(status: &NodeStatus) -> String {
    if status.check.is_some_and(Check::is_everyones) {
        return format!("every node: {}", status.summary);
    }
    format!("node {}: {}", status.node, status.summary)
}

fn of_wallet(readiness: &Readiness) -> String {
    format!("wallet {}: {}", readiness.wallet, readiness.text())
}

fn can_sign(readiness: &Readiness) -> bool {
    match readiness.can_sign {
        Answer::Yes | Answer::Degraded => true,
        Answer::Unknown | Answer::No => false,
    }
}

/// The times in the latest heartbeats.
fn heard(health: &Health) -> impl Iterator<Item = (NodeIndex, UnixMillis)> {
    health.nodes.iter().filter_map(|status| Some((status.node, status.held.as_ref()?.at)))
}

impl Start {
    /// The cluster, if it is well.
    ///
    /// # Errors
    /// [`Unwell`] says what is wrong.
    pub fn of(health: &Health) -> Result<Self, Unwell> {
        let is_well = |status: &&NodeStatus| matches!(status.level, Level::Good | Level::Excluded);
        let nodes = health.nodes.iter().filter(|status| !is_well(status)).map(of_node);
        let wallets = health.wallets.iter().filter(|wallet| !can_sign(wallet)).map(of_wallet);
        let mut wrong: Vec<String> = nodes.chain(wallets).collect();
        wrong.dedup();
        if !wrong.is_empty() {
            return Err(Unwell(wrong.join("; ")));
        }
        Ok(Self {
            nodes: health.nodes.iter().map(|status| (status.node, status.level)).collect(),
            wallets: health.wallets.iter().map(|of| (of.wallet.clone(), of.can_sign)).collect(),
            heard: heard(health).collect(),
        })
    }

    /// The wallets, all of which can sign.
    pub fn wallets(&self) -> impl Iterator<Item = &WalletName> {
        self.wallets.keys()
    }

    /// What is not as well as before.
    fn worse(&self, health: &Health) -> Option<String> {
        let node = self.nodes.iter().find_map(|(node, level)| {
            let status = health.nodes.iter().find(|status| status.node == *node);
            match status {
                Some(status) if status.level >= *level => None,
                Some(status) => Some(of_node(status)),
                None => Some(format!("node {node} is gone")),
            }
        });
        node.or_else(|| self.wallet(health, |before, now| now.can_sign > before))
    }

    /// A wallet that cannot sign any more.
    fn out_of_service(&self, health: &Health) -> Option<String> {
        self.wallet(health, |_, now| !can_sign(now))
    }

    fn wallet(&self, health: &Health, is_worse: impl Fn(Answer, &Readiness) -> bool) -> Option<String> {
        self.wallets.iter().find_map(|(name, before)| {
            match health.wallets.iter().find(|readiness| readiness.wallet == *name) {
                Some(now) if is_worse(*before, now) => Some(of_wallet(now)),
                Some(_) => None,
                None => Some(format!("wallet {name} is gone")),
            }
        })
    }
}

/// A moment of the course, and the time in the last heartbeat of each node until then.
#[derive(Debug, Clone)]
struct Mark {
    at: Instant,
    heard: BTreeMap<NodeIndex, UnixMillis>,
}

/// Whether wallets can sign.
#[derive(Debug)]
enum Service {
    Kept,
    Lost(String),
    Back(Mark),
}

/// What showed the fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// The check's name in `runbooks/checks.md`.
    pub check: String,
    /// Of which node, if it was one's.
    pub node: Option<NodeIndex>,
    /// In which words.
    pub words: String,
}

/// What an observation changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The check is shown.
    Shown(Shown),
    /// A wallet can no longer sign.
    ServiceLost(String),
    /// Every wallet can sign again.
    ServiceBack,
    /// Everything is as well as before, and has stayed so since so long after the fault.
    Whole(Duration),
    /// The drill is given up.
    Failed(String),
}

/// How long a stage took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// Which.
    pub stage: Stage,
    /// How long, in milliseconds; none if it never ended.
    pub ms: Option<u64>,
    /// How long it may take, in seconds, if that matters.
    pub target_s: Option<u32>,
    /// Whether it took no longer.
    pub met: bool,
    /// The time in each node's last signed heartbeat before it began.
    pub heard_before: BTreeMap<NodeIndex, UnixMillis>,
    /// The time in each node's last signed heartbeat when it ended.
    pub heard_at_end: BTreeMap<NodeIndex, UnixMillis>,
}

/// A drill that has begun.
#[derive(Debug)]
pub struct Course {
    check: Check,
    node: Option<NodeIndex>,
    targets: Targets,
    patience: Patience,
    start: Start,
    heard: BTreeMap<NodeIndex, UnixMillis>,
    last: Instant,
    injected: Mark,
    detected: Option<(Mark, Shown)>,
    mending: Option<Mark>,
    service: Service,
    /// Since when everything is as well as before.
    whole: Option<Mark>,
    end: Option<End>,
}

/// How a drill ended.
#[derive(Debug)]
enum End {
    Whole,
    GivenUp(String),
}

impl Course {
    /// Begins at the moment at which the fault is injected.
    #[must_use]
    pub fn begin(drill: &Drill, patience: Patience, start: Start, injected: Instant) -> Self {
        Self {
            check: drill.check,
            node: drill.node,
            targets: drill.target_s,
            patience,
            heard: start.heard.clone(),
            last: injected,
            injected: Mark { at: injected, heard: start.heard.clone() },
            start,
            detected: None,
            mending: None,
            service: Service::Kept,
            whole: None,
            end: None,
        }
    }

    /// What is waited for; none once the drill is over.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        if self.end.is_some() {
            return None;
        }
        Some(match (&self.detected, &self.mending, &self.service) {
            (None, _, _) => Stage::Detect,
            (Some(_), None, _) => Stage::Decide,
            (Some(_), Some(_), Service::Lost(_)) => Stage::Service,
            (Some(_), Some(_), Service::Kept | Service::Back(_)) => Stage::Redundancy,
        })
    }

    /// Notes that mending begins. Before the fault was shown, nobody would have begun.
    pub fn mending_begins(&mut self, at: Instant) {
        if self.stage() == Some(Stage::Decide) {
            self.mending = Some(self.mark(at));
            self.last = self.last.max(at);
        }
    }

    /// Takes in how the cluster is. What is older than the fault, or than what was taken in before, does not count.
    pub fn observe(&mut self, at: Instant, health: &Health) -> Vec<Turn> {
        if self.end.is_some() || at < self.last {
            return Vec::new();
        }
        self.last = at;
        self.heard.extend(heard(health));
        let mut turns: Vec<Turn> = self.look_at_service(at, health).into_iter().collect();
        let turn = match (&self.detected, &self.mending) {
            (None, _) => self.look_for_check(at, health),
            (Some((detected, _)), None) if since(detected, at) > self.patience.decide => {
                Some(self.give_up("nobody began to mend it".to_owned()))
            }
            (Some(_), None) => None,
            (Some(_), Some(mending)) => {
                let late = since(mending, at) > self.limit(self.targets.redundancy);
                self.look_at_everything(at, health, late)
            }
        };
        turns.extend(turn);
        if let Service::Lost(words) = &self.service
            && self.end.is_none()
            && since(&self.injected, at) > self.limit(self.targets.service)
        {
            let why = format!("not every wallet could sign again: {words}");
            turns.push(self.give_up(why));
        }
        turns
    }

    /// Ends the drill as failed.
    pub fn give_up(&mut self, why: String) -> Turn {
        self.end.get_or_insert_with(|| End::GivenUp(why.clone()));
        Turn::Failed(why)
    }

    fn look_at_service(&mut self, at: Instant, health: &Health) -> Option<Turn> {
        match (self.start.out_of_service(health), &self.service) {
            (Some(words), Service::Kept | Service::Back(_)) => {
                self.service = Service::Lost(words.clone());
                Some(Turn::ServiceLost(words))
            }
            (Some(words), Service::Lost(_)) => {
                self.service = Service::Lost(words);
                None
            }
            (None, Service::Lost(_)) => {
                self.service = Service::Back(self.mark(at));
                Some(Turn::ServiceBack)
            }
            (None, Service::Kept | Service::Back(_)) => None,
        }
    }

    fn look_for_check(&mut self, at: Instant, health: &Health) -> Option<Turn> {
        if let Some(shown) = self.shown_in(health) {
            self.detected = Some((self.mark(at), shown.clone()));
            return Some(Turn::Shown(shown));
        }
        let limit = self.limit(self.targets.detect);
        (since(&self.injected, at) > limit).then(|| {
            let of = self.node.map_or_else(String::new, |node| format!(" of node {node}"));
            self.give_up(format!("{}{of} was not shown within {} s", self.check.id(), limit.as_secs()))
        })
    }

    fn look_at_everything(&mut self, at: Instant, health: &Health, is_late: bool) -> Option<Turn> {
        let Some(worse) = self.start.worse(health) else {
            let whole = self.whole.take().unwrap_or_else(|| self.mark(at));
            let (is_steady, is_whole) = (since(&whole, at) >= STEADY, since(&self.injected, whole.at));
            self.whole = Some(whole);
            return is_steady.then(|| {
                self.end = Some(End::Whole);
                Turn::Whole(is_whole)
            });
        };
        self.whole = None;
        is_late.then(|| self.give_up(format!("not everything is as well as before: {worse}")))
    }

    /// Where the check is shown, if it is.
    fn shown_in(&self, health: &Health) -> Option<Shown> {
        let shown = |node, words| Shown { check: self.check.id().to_owned(), node, words };
        let is_sought = |status: &&NodeStatus| {
            status.check == Some(self.check) && self.node.is_none_or(|node| node == status.node)
        };
        let whose = |status: &NodeStatus| (!self.check.is_everyones()).then_some(status.node);
        let node = health.nodes.iter().find(is_sought).map(|status| shown(whose(status), of_node(status)));
        let mut wallets = health.wallets.iter().filter(|_| self.node.is_none());
        let wallet = wallets.find(|wallet| wallet.can_sign.check() == Some(self.check));
        node.or_else(|| wallet.map(|wallet| shown(None, of_wallet(wallet))))
    }

    fn limit(&self, target_s: u32) -> Duration {
        (Duration::from_secs(target_s.into()) * SEVERAL).max(self.patience.least)
    }

    fn mark(&self, at: Instant) -> Mark {
        Mark { at, heard: self.heard.clone() }
    }

    /// What showed the fault.
    #[must_use]
    pub fn shown(&self) -> Option<&Shown> {
        self.detected.as_ref().map(|(_, shown)| shown)
    }

    /// Why the drill failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match self.end.as_ref()? {
            End::Whole => None,
            End::GivenUp(why) => Some(why),
        }
    }

    /// How long ago the fault was injected.
    #[must_use]
    pub fn elapsed(&self, now: Instant) -> Duration {
        since(&self.injected, now)
    }

    /// How long each stage took.
    #[must_use]
    pub fn timed(&self) -> [Timed; 4] {
        let (detected, mending) = (self.detected.as_ref().map(|(mark, _)| mark), self.mending.as_ref());
        let whole = self.whole.as_ref().filter(|_| matches!(self.end, Some(End::Whole)));
        let service = match &self.service {
            Service::Kept => whole.map(|_| &self.injected),
            Service::Lost(_) => None,
            Service::Back(back) => Some(back),
        };
        let Targets { detect, service: serve, redundancy } = self.targets;
        [
            timed(Stage::Detect, Some(detect), Some(&self.injected), detected),
            timed(Stage::Decide, None, detected, mending),
            timed(Stage::Service, Some(serve), Some(&self.injected), service),
            timed(Stage::Redundancy, Some(redundancy), mending, whole),
        ]
    }

    /// Whether every target was met.
    #[must_use]
    pub fn met(&self) -> bool {
        matches!(self.end, Some(End::Whole)) && self.timed().iter().all(|timed| timed.met)
    }
}

fn since(mark: &Mark, at: Instant) -> Duration {
    at.saturating_duration_since(mark.at)
}

fn timed(stage: Stage, target_s: Option<u32>, begin: Option<&Mark>, end: Option<&Mark>) -> Timed {
    let heard = |mark: Option<&Mark>| mark.map(|mark| mark.heard.clone()).unwrap_or_default();
    let took = begin.zip(end).map(|(begin, end)| since(begin, end.at));
    let in_time = |took: Duration| target_s.is_none_or(|target| took <= Duration::from_secs(target.into()));
    Timed {
        stage,
        ms: took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        target_s,
        met: took.is_some_and(in_time),
        heard_before: heard(begin),
        heard_at_end: heard(end),
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Detect => "detect",
            Self::Decide => "decide",
            Self::Service => "service",
            Self::Redundancy => "redundancy",
        })
    }
}

impl std::fmt::Display for Timed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let took = self.ms.map_or_else(|| "–".to_owned(), seconds);
        write!(f, "{:<10} {took:>8}", self.stage)?;
        match self.target_s {
            Some(target) => write!(f, "  target {target} s: {}", if self.met { "met" } else { "NOT MET" }),
            None => Ok(()),
        }
    }
}
