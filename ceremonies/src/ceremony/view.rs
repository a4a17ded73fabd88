//! What follows from the state: phase and steps. Nothing here changes it.

use std::fmt;

use super::{Ceremony, Ending, StepSignature};
use crate::charter::Role;
use crate::ids::{Hash, Line, NodeIndex, PersonName, StepId, UnixMillis, WalletName};
use crate::listing::DISPUTED;
use crate::script::{Act, Step};

/// Where a ceremony stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Attestations and approvals are being gathered.
    Gathering,
    /// The quorum has approved; the enclaves may act.
    Authorised,
    /// All enclaves have signed one result, or the new charter is in force. That cannot be undone.
    Committed,
    /// The record is sealed.
    Closed,
    /// It ended after the commit: the wallet or charter stands, but the script was not completed.
    Abandoned(Line),
    /// It never had an effect and never will, unless all enclaves turn out to have signed one result.
    Void(Void),
}

/// Why a ceremony is void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Void {
    /// Its deadline passed.
    Expired,
    /// An enclave gave up the session.
    Aborted {
        /// Whose.
        node: NodeIndex,
        /// Why.
        reason: Line,
    },
    /// An agent gave up: its enclave was lost, or refused, or could not be given what it needs.
    Faulted {
        /// Whose.
        node: NodeIndex,
        /// Why.
        reason: Line,
    },
    /// A node came back with another enclave than the approved one.
    Replaced(NodeIndex),
    /// A person ended it.
    Withdrawn {
        /// Who.
        person: PersonName,
        /// Why.
        reason: Line,
    },
    /// Two enclaves signed different results.
    ResultsDiffer,
}

impl fmt::Display for Void {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("its deadline passed"),
            Self::Aborted { node, reason } => write!(f, "enclave {node} gave up: {reason}"),
            Self::Faulted { node, reason } => write!(f, "node {node} gave up: {reason}"),
            Self::Replaced(node) => write!(f, "node {node} came back with another enclave than approved"),
            Self::Withdrawn { person, reason } => write!(f, "withdrawn by {person}: {reason}"),
            Self::ResultsDiffer => f.write_str("two enclaves signed different results"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gathering => f.write_str("gathering"),
            Self::Authorised => f.write_str("authorised"),
            Self::Committed => f.write_str("committed"),
            Self::Closed => f.write_str("closed"),
            Self::Abandoned(reason) => write!(f, "abandoned after the commit: {reason}"),
            Self::Void(why) => write!(f, "void: {why}"),
        }
    }
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepState {
    /// Everything it asks for is there.
    Done,
    /// It can be taken now; the text says what is waited for.
    Open {
        /// For people: what is missing and from whom.
        waiting_for: String,
    },
    /// A step before it is not done.
    Blocked {
        /// That step.
        by: StepId,
    },
}

impl Ceremony {
    /// Where it stood when its last entry was taken.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase_at(self.head.time)
    }

    /// Where it stands at this moment: like [`Self::phase`], but the deadline may have passed.
    #[must_use]
    pub fn phase_at(&self, now: UnixMillis) -> Phase {
        if self.is_closed() {
            return Phase::Closed;
        }
        if self.committed().is_some() || self.amended().is_some() || self.is_signed() {
            return match &self.ending {
                Some(Ending::Withdrawn { reason, .. }) => Phase::Abandoned(reason.clone()),
                Some(Ending::Aborted { .. } | Ending::Faulted { .. } | Ending::Replaced { .. }) | None => {
                    Phase::Committed
                }
            };
        }
        if let Some(void) = self.void() {
            return Phase::Void(void);
        }
        if now > self.manifest.expires && !self.is_let_through() {
            return Phase::Void(Void::Expired);
        }
        if self.unapproved().is_none() { Phase::Authorised } else { Phase::Gathering }
    }

    /// Where it stands at this moment, for a list, which tells a disputed record from one that all agree to.
    #[must_use]
    pub fn standing_at(&self, now: UnixMillis) -> String {
        let phase = self.phase_at(now);
        let disputed = self.disagreements().next().is_some();
        if disputed { format!("{phase}{DISPUTED}") } else { phase.to_string() }
    }

    fn void(&self) -> Option<Void> {
        let first = self.record.as_ref().map(super::Record::digest);
        if self.staged.values().chain(self.prepared.values()).any(|(digest, _)| Some(*digest) != first) {
            return Some(Void::ResultsDiffer);
        }
        Some(match self.ending.as_ref()? {
            Ending::Aborted { node, reason } => Void::Aborted { node: *node, reason: reason.clone() },
            Ending::Faulted { node, reason } => Void::Faulted { node: *node, reason: reason.clone() },
            Ending::Replaced { node } => Void::Replaced(*node),
            Ending::Withdrawn { person, reason } => {
                Void::Withdrawn { person: person.clone(), reason: reason.clone() }
            }
        })
    }

    /// Whether it is proven that the key generation can never commit: an enclave signed that it gave up, or
    /// two signed different results. Only then may a pending share be thrown away.
    #[must_use]
    pub fn can_never_commit(&self) -> bool {
        let void = self.void();
        let differ = matches!(void, Some(Void::ResultsDiffer));
        // No enclave prepares what people have not let through, and nobody signs after the end.
        let held_back = self.manifest.kind.renews() && void.is_some() && !self.is_let_through();
        self.committed().is_none() && (differ || held_back || !self.aborted.is_empty())
    }

    /// Whether a transaction has all its signatures. That cannot be undone: it can be sent at any time, and people can
    /// say what became of it.
    pub(crate) fn is_signed(&self) -> bool {
        self.script.step_for(Act::Sign).is_some_and(|step| self.is_done(step))
    }

    /// Whether people have let the staged generation replace the one in use. From then on it is in the enclaves' hands:
    /// some may have committed.
    pub(super) fn is_let_through(&self) -> bool {
        self.script.step_for(Act::Commit).is_some_and(|step| self.has_quorum(step))
    }

    /// Whether this ceremony has given the wallet a generation of shares, or still may. One that was authorised
    /// may commit in spite of a fault, a withdrawal or its expiry: its results may be on their way.
    #[must_use]
    pub fn may_give_shares(&self, wallet: &WalletName, now: UnixMillis) -> bool {
        let never_authorised = matches!(self.phase_at(now), Phase::Void(_)) && self.unapproved().is_some();
        self.manifest.kind.makes_shares()
            && self.manifest.wallet == *wallet
            && !self.can_never_commit()
            && !never_authorised
    }

    pub(super) fn is_closed(&self) -> bool {
        self.script.steps().iter().any(|step| step.act == Act::Close && self.has_quorum(step))
    }

    /// The approval that is still missing, if it is.
    pub(super) fn unapproved(&self) -> Option<StepId> {
        let approve = self.script.step_for(Act::Approve)?;
        (!self.is_done(approve)).then(|| approve.id.clone())
    }

    /// When the last approval that was needed was taken.
    pub(super) fn approved_at(&self) -> Option<UnixMillis> {
        let approve = self.script.step_for(Act::Approve)?;
        let mut missing = self.signers(approve);
        self.signed(&approve.id).find_map(|signed| {
            if let Some(count) = missing.get_mut(&signed.role) {
                *count = count.saturating_sub(1);
            }
            missing.values().all(|count| *count == 0).then_some(signed.time)
        })
    }

    /// The signatures that a step has, by role.
    pub fn signed(&self, step: &StepId) -> impl Iterator<Item = &StepSignature> {
        let step = step.clone();
        self.signatures.iter().filter(move |signed| signed.step == step)
    }

    fn missing_signers(&self, step: &Step) -> Vec<(Role, u32)> {
        let has = |role: Role| self.signed(&step.id).filter(|signed| signed.role == role).count();
        self.signers(step)
            .into_iter()
            .map(|(role, count)| (role, count.saturating_sub(u32::try_from(has(role)).unwrap_or(u32::MAX))))
            .filter(|(_, missing)| *missing > 0)
            .collect()
    }

    pub(super) fn has_quorum(&self, step: &Step) -> bool {
        self.missing_signers(step).is_empty()
    }

    /// Whether everything the step asks for is there.
    #[must_use]
    pub fn is_done(&self, step: &Step) -> bool {
        step.act.rules().is_done(self, step)
    }

    /// The first step that this one needs and that is not done.
    pub(super) fn missing_before(&self, step: &Step) -> Option<&Step> {
        step.needs.iter().filter_map(|id| self.script.step(id)).find_map(|needed| {
            self.missing_before(needed).or_else(|| (!self.is_done(needed)).then_some(needed))
        })
    }

    /// How far a step is.
    #[must_use]
    pub fn step_state(&self, step: &Step) -> StepState {
        if let Some(missing) = self.missing_before(step) {
            return StepState::Blocked { by: missing.id.clone() };
        }
        if self.is_done(step) {
            return StepState::Done;
        }
        StepState::Open { waiting_for: self.waiting_for(step) }
    }

    fn waiting_for(&self, step: &Step) -> String {
        step.act.rules().waiting_for(self, step)
    }

    pub(super) fn missing_people(&self, step: &Step) -> String {
        let missing = self.missing_signers(step).into_iter();
        let of = |(role, count): (Role, u32)| format!("{count} {role}{}", if count == 1 { "" } else { "s" });
        missing.map(of).collect::<Vec<_>>().join(", ")
    }

    /// The first step that is open, in the script's order.
    #[must_use]
    pub fn current_step(&self) -> Option<&Step> {
        self.script.steps().iter().find(|step| matches!(self.step_state(step), StepState::Open { .. }))
    }

    /// Hash of the enclaves that have attested so far.
    pub(super) fn current_enclaves(&self) -> Hash {
        let parts: Vec<Vec<u8>> = self
            .enclaves
            .iter()
            .map(|(node, enclave)| {
                [&[node.get()][..], &enclave.keys.identity, &enclave.keys.sealing].concat()
            })
            .collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Hash::of_parts("custody/enclaves/v1", &parts)
    }

    /// Hash of the enclaves for which people have signed, or would.
    #[must_use]
    pub fn approved_or_current_enclaves(&self) -> Hash {
        self.approved_enclaves.unwrap_or_else(|| self.current_enclaves())
    }

    /// Hash over the signatures that count.
    pub(super) fn signatures_hash(&self) -> Hash {
        let parts: Vec<Vec<u8>> = self
            .tests
            .iter()
            .filter(|test| self.counts(test))
            .map(|test| [&test.digest.as_bytes()[..], &test.r, &test.s].concat())
            .collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Hash::of_parts("custody/test-signatures/v1", &parts)
    }
}
