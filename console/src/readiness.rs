//! Whether each wallet can sign: the shares that its nodes show now, against the threshold.
//!
//! A share counts if its node reports it in its store and has an enclave that attests and gets data keys. It must never
//! count what a node has not said: that is unknown, and unknown is not good.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::book::Book;
use ceremonies::ceremony::Phase;
use ceremonies::ids::{Generation, Hash, NodeIndex, UnixMillis, WalletName};
use ceremonies::log::Event;
use ceremonies::wallet::Record;
use serde::Serialize;

use crate::checks::Check;
use crate::health::{Blind, Level, NodeStatus};
use crate::sentence::joined;
use crate::standing::{self, Flaw};

/// How long after its word that it took up a share a node may still send a heartbeat from before, in milliseconds.
const SETTLED_MS: i64 = 3_000;

/// What a node says of the shares in its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When, by its own clock.
    pub at: UnixMillis,
    /// The digests of the generation records whose shares it has in use; none if its store cannot be read.
    pub in_use: Option<BTreeSet<Hash>>,
    /// The latest generation of each wallet of which it has a share in use.
    pub latest: BTreeMap<String, Generation>,
    /// Whether its enclave gets data keys, without which it opens no share.
    pub opens: bool,
}

/// How one node's share of a wallet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// Its store has it, and its enclave can open it.
    Present,
    /// Its store does not have it, though the node once took it up.
    Lost,
    /// The node cannot use it now: its store, enclave, KMS or attestation fails, or others have banned it.
    Unusable,
    /// The node has stopped sending heartbeats.
    Silent,
    /// The node sends heartbeats that are dated before earlier ones: they say nothing of now.
    Backdated,
    /// The charter excludes the node.
    Excluded,
    /// The node was not heard yet, or has not said yet that it took the share up.
    Unknown,
}

/// Whether a wallet can sign, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// With every share present, and its ceremony finished.
    Yes,
    /// It can, but something of it is missing.
    Degraded,
    /// What is known does not reach the threshold; what is unknown might.
    Unknown,
    /// The threshold is not reached.
    No,
}

impl Answer {
    /// The mark that stands for it beside any colour.
    #[must_use]
    pub fn mark(self) -> &'static str {
        match self {
            Self::Yes => "✓",
            Self::Degraded => "!",
            Self::Unknown => "?",
            Self::No => "✗",
        }
    }

    /// Which check fails, if any.
    #[must_use]
    pub fn check(self) -> Option<Check> {
        match self {
            Self::Yes => None,
            Self::Degraded => Some(Check::WalletDegraded),
            Self::Unknown => Some(Check::WalletNotKnown),
            Self::No => Some(Check::WalletCannotSign),
        }
    }

    /// The level in whose colour it is shown.
    #[must_use]
    pub fn level(self) -> Level {
        self.check().map_or(Level::Good, Check::level)
    }
}

/// Whether a wallet can sign, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The wallet.
    pub wallet: WalletName,
    /// The generation in use.
    pub generation: Generation,
    /// How many shares sign (t).
    pub threshold: u8,
    /// How each node's share is.
    pub shares: BTreeMap<NodeIndex, Share>,
    /// The nodes whose shares a recovery that is under way replaces.
    pub recovering: BTreeSet<NodeIndex>,
    /// What is wrong with the ceremony that made the generation or its key, if anything is.
    pub unfinished: Option<Flaw>,
    /// Whether everything that nodes say comes late, so that rounds may fail.
    pub late: bool,
    /// Why nothing is known of any share, if that is so.
    pub blind: Option<Blind>,
    /// The answer.
    pub can_sign: Answer,
}

impl Readiness {
    pub(crate) fn of(generation: &InUse, nodes: &[NodeStatus]) -> Self {
        let record = &generation.record;
        let share = |node: &NodeIndex| {
            let status = nodes.iter().find(|status| status.node == *node);
            (*node, status.map_or(Share::Unknown, |status| generation.share(status)))
        };
        let shares: BTreeMap<NodeIndex, Share> = record.public_shares.keys().map(share).collect();
        let count = |kind| shares.values().filter(|share| **share == kind).count();
        let (present, unknown) = (count(Share::Present), count(Share::Unknown));
        let threshold = usize::from(record.threshold);
        let can_sign = if present + unknown < threshold {
            Answer::No
        } else if present < threshold {
            Answer::Unknown
        } else if present + count(Share::Excluded) < shares.len() || generation.unfinished.is_some() {
            Answer::Degraded
        } else {
            Answer::Yes
        };
        Self {
            wallet: record.wallet.clone(),
            generation: record.generation,
            threshold: record.threshold,
            shares,
            recovering: generation.recovering.clone(),
            unfinished: generation.unfinished,
            late: false,
            blind: None,
            can_sign,
        }
    }

    /// The same while everything that nodes say comes late.
    pub(crate) fn while_late(self) -> Self {
        let can_sign = self.can_sign.max(Answer::Degraded);
        Self { late: true, can_sign, ..self }
    }

    /// The same while nothing is known of any node.
    pub(crate) fn while_blind(self, blind: Blind) -> Self {
        Self { blind: Some(blind), ..self }
    }

    fn nodes(&self, kind: Share) -> Vec<NodeIndex> {
        self.shares.iter().filter(|(_, share)| **share == kind).map(|(node, _)| *node).collect()
    }

    /// Why it cannot sign with each of these nodes now, as far as that is known; none if it can.
    #[must_use]
    pub fn lacking<'n>(&self, signers: impl IntoIterator<Item = &'n NodeIndex>) -> Option<String> {
        let is_there = |node| matches!(self.shares.get(node), Some(Share::Present | Share::Excluded));
        let lacks = !signers.into_iter().all(is_there);
        lacks.then(|| format!("not every signer's share is known to be there: {}", self.text()))
    }

    /// The answer in words, after its mark: what there is against what is needed, then what is missing and where.
    #[must_use]
    pub fn text(&self) -> String {
        let answer = match self.can_sign {
            Answer::Yes | Answer::Degraded => "can sign",
            Answer::Unknown => "not known whether it can sign",
            Answer::No => "CANNOT SIGN",
        };
        let mut text = match self.blind.filter(|_| self.can_sign == Answer::Unknown) {
            Some(blind) => format!("{answer}: {}", blind.why()),
            None => format!("{answer}: {}", self.counted()),
        };
        if self.late {
            text += "; but every node's word comes late, and ceremonies may fail";
        }
        if let Some(flaw) = self.unfinished {
            text += &format!("; {flaw} (see the wallet)");
        }
        text
    }

    /// The shares that are there against those that are needed, then what is missing and where.
    fn counted(&self) -> String {
        let (present, all) = (self.nodes(Share::Present).len(), self.shares.len());
        let mut text = format!("{present} of {all} shares, {} needed", self.threshold);
        let of = |kind| self.nodes(kind);
        let (recovering, lost): (Vec<_>, Vec<_>) =
            of(Share::Lost).into_iter().partition(|node| self.recovering.contains(node));
        for (nodes, one, more) in [
            // What comes back fastest is named first.
            (of(Share::Silent), "is silent", "are silent"),
            (of(Share::Backdated), "sends heartbeats dated in the past", "send heartbeats dated in the past"),
            (of(Share::Unusable), "cannot use its share", "cannot use their shares"),
            (recovering, "is being recovered", "are being recovered"),
            (lost, "lost its share and needs a recovery", "lost their shares and need a recovery"),
            (of(Share::Unknown), "is not known to have its share", "are not known to have their shares"),
            (of(Share::Excluded), "is excluded", "are excluded"),
        ] {
            match nodes.as_slice() {
                [] => {}
                [node] => text += &format!("; node {node} {one}"),
                nodes => text += &format!("; {} {more}", named(nodes)),
            }
        }
        text
    }
}

/// Several nodes in words.
pub(crate) fn named(nodes: &[NodeIndex]) -> String {
    match nodes {
        [] => "no node".to_owned(),
        [one] => format!("node {one}"),
        several => format!("nodes {}", joined(several)),
    }
}

/// A generation in use: its record, and when each node said that it took its share up.
#[derive(Debug)]
pub(crate) struct InUse {
    record: Record,
    adopted: BTreeMap<NodeIndex, UnixMillis>,
    recovering: BTreeSet<NodeIndex>,
    unfinished: Option<Flaw>,
}

/// The generation in use of every wallet.
pub(crate) fn in_use(book: &Book, now: UnixMillis) -> Vec<InUse> {
    let of = |record: Record| {
        let entries = book.get(&record.ceremony).map(|chapter| chapter.entries.as_slice());
        let adopted = entries.unwrap_or_default().iter().filter_map(|entry| {
            let Event::Adopted { node, .. } = &entry.event else { return None };
            Some((*node, entry.time))
        });
        let adopted = adopted.collect();
        let recovering = recovering(book, &record.wallet, now);
        let unfinished = standing::unfinished(book, &record, now).map(|unfinished| unfinished.flaw);
        InUse { record, adopted, recovering, unfinished }
    };
    book.wallets().into_values().map(|wallet| of(wallet.record.clone())).collect()
}

/// The nodes of a wallet whose shares are to be replaced by a ceremony that has not made its generation yet.
fn recovering(book: &Book, wallet: &WalletName, now: UnixMillis) -> BTreeSet<NodeIndex> {
    let ceremonies = book.iter().map(|(_, chapter)| &chapter.ceremony);
    let under_way = ceremonies.filter(|ceremony| {
        ceremony.manifest().wallet == *wallet
            && matches!(ceremony.phase_at(now), Phase::Gathering | Phase::Authorised)
    });
    under_way.flat_map(|ceremony| ceremony.manifest().lost().keys().copied()).collect()
}

/// Whether each wallet can sign, by what is known of the nodes.
#[must_use]
pub fn readiness(book: &Book, nodes: &[NodeStatus], now: UnixMillis) -> Vec<Readiness> {
    in_use(book, now).iter().map(|generation| Readiness::of(generation, nodes)).collect()
}

/// Whether a node can use none of its shares. That it has lost another wallet's says nothing of this one's.
fn is_unwell(status: &NodeStatus) -> bool {
    status.level == Level::Bad && status.check != Some(Check::ShareLost)
}

impl InUse {
    fn share(&self, status: &NodeStatus) -> Share {
        if status.level == Level::Excluded {
            return Share::Excluded;
        }
        match status.check {
            Some(Check::Silent | Check::Unheard) => return Share::Silent,
            Some(Check::Backdated) => return Share::Backdated,
            _ if status.level == Level::Unknown => return Share::Unknown,
            _ => {}
        }
        let Some(held) = &status.held else { return Share::Unknown };
        match held.in_use.as_ref().map(|shares| shares.contains(&self.record.digest())) {
            None => Share::Unusable,
            Some(true) if is_unwell(status) || status.accused.is_some() || !held.opens => Share::Unusable,
            Some(true) => Share::Present,
            Some(false) => self.missing(status.node, held),
        }
    }

    /// A share that is not in its store: lost, unless the node may only not have taken it up yet, or has one of a later
    /// generation, which this console has not read.
    fn missing(&self, node: NodeIndex, held: &Held) -> Share {
        let latest = held.latest.get(self.record.wallet.as_str());
        if latest.is_some_and(|latest| *latest > self.record.generation) {
            return Share::Unknown;
        }
        let settled = self.adopted.get(&node).is_some_and(|at| held.at.since(*at) >= SETTLED_MS);
        if settled { Share::Lost } else { Share::Unknown }
    }

    /// The generation, if this node has lost its share of it.
    pub(crate) fn lost_by(&self, status: &NodeStatus) -> Option<String> {
        let holds = self.record.public_shares.contains_key(&status.node);
        let is_lost = holds && self.share(status) == Share::Lost;
        is_lost.then(|| format!("{} g{}", self.record.wallet, self.record.generation))
    }
}
