//! What follows from the state: phase, steps, and what each node has to do next. Nothing here changes it.

use std::collections::BTreeMap;
use std::fmt;

use super::{Ceremony, Ending, StepSignature, TestSignature};
use crate::attestation::EnclaveKeys;
use crate::charter::{CeremonyKind, Role};
use crate::ids::{Hash, Line, NodeIndex, PersonName, StepId, UnixMillis, WalletName};
use crate::manifest::Way;
use crate::script::{Act, Step};
use crate::subsets::Subset;
use crate::wallet::Wallet;

/// Where a ceremony stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Attestations and approvals are being gathered.
    Gathering,
    /// The quorum has approved; the enclaves may act.
    Authorised,
    /// All enclaves have signed one result, or the new charter is in force. Nothing takes that back.
    Committed,
    /// The record is sealed.
    Closed,
    /// It ended after the commit: wallet or charter stand, the script was not completed.
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
    /// An agent lost its enclave in the session.
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
            Self::Faulted { node, reason } => write!(f, "node {node} lost its enclave: {reason}"),
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

/// What a node has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// Have the enclave attest, with the manifest's hash as nonce.
    Attest,
    /// Report that the approved enclave is gone.
    Fault,
    /// Take part in the repair of a lost node's share, as the node itself or as one of its helpers.
    Repair {
        /// The lost node.
        lost: NodeIndex,
    },
    /// Take part in the key generation or the refresh.
    Generate,
    /// Restore the node's share from its backup, which has been released to its enclave.
    Restore {
        /// Whose: the node's own.
        node: NodeIndex,
    },
    /// Encrypt the new share for its keepers, and put it under lock.
    Backup {
        /// Whose: the node's own.
        node: NodeIndex,
    },
    /// Open the released backup and show that it holds the share.
    Prove {
        /// Whose: the node's own.
        node: NodeIndex,
    },
    /// Sign the certificate: the staged share takes the old one's place.
    Prepare,
    /// Forget and delete the shares of the generations before.
    Retire,
    /// Make the committed share the current one.
    Adopt,
    /// Take part in a test signature.
    TestSign {
        /// The group.
        subset: Subset,
        /// Which try.
        attempt: u32,
        /// Which of a transaction's digests, from 0; 0 for a test.
        input: u32,
    },
}

impl Duty {
    /// Whether it is about a backup: done by one node alone, as often as it takes.
    #[must_use]
    pub fn concerns_a_backup(&self) -> bool {
        matches!(self, Self::Restore { .. } | Self::Backup { .. } | Self::Prove { .. })
    }
}

/// A protocol session as the log defines it: the same for every party that folds the same log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSpec {
    /// Names the session on the bus before its parties have agreed on a session id.
    pub label: Hash,
    /// Hash of everything that must be the same for all parties.
    pub context: Hash,
    /// The parties and the keys their enclaves attested.
    pub parties: BTreeMap<NodeIndex, EnclaveKeys>,
    /// How many shares sign (t).
    pub threshold: u8,
    /// Which try, from 1.
    pub attempt: u32,
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
        if self.committed().is_some() || self.amended().is_some() {
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
        // What people have let through is in the enclaves' hands: some may have committed.
        if now > self.manifest.expires && !self.is_let_through() {
            return Phase::Void(Void::Expired);
        }
        if self.unapproved().is_none() { Phase::Authorised } else { Phase::Gathering }
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
        // No enclave prepares what people have not let through, and after the end nobody signs.
        let held_back = self.manifest.kind.renews() && void.is_some() && !self.is_let_through();
        self.committed().is_none() && (differ || held_back || !self.aborted.is_empty())
    }

    /// Whether people have let the staged generation take the place of the one in use.
    fn is_let_through(&self) -> bool {
        self.step_of(Act::Commit).is_some_and(|step| self.has_quorum(step))
    }

    pub(super) fn step_of(&self, act: Act) -> Option<&Step> {
        self.script.steps().iter().find(|step| step.act == act)
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

    /// Whether the quorum has approved it, whatever came of it.
    #[must_use]
    pub fn is_approved(&self) -> bool {
        self.unapproved().is_none()
    }

    /// The approval that is still missing, if it is.
    pub(super) fn unapproved(&self) -> Option<StepId> {
        let approve = self.script.steps().iter().find(|step| step.act == Act::Approve)?;
        (!self.is_done(approve)).then(|| approve.id.clone())
    }

    /// When the last approval that was needed was taken.
    pub(super) fn approved_at(&self) -> Option<UnixMillis> {
        let approve = self.script.steps().iter().find(|step| step.act == Act::Approve)?;
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

    fn has_quorum(&self, step: &Step) -> bool {
        self.missing_signers(step).is_empty()
    }

    /// Whether everything the step asks for is there.
    #[must_use]
    pub fn is_done(&self, step: &Step) -> bool {
        let roster = &self.manifest.roster;
        match step.act {
            Act::Attest => roster.iter().all(|node| self.enclaves.contains_key(node)),
            Act::Recover => self.due_recovery().is_none(),
            Act::Generate if self.manifest.kind.renews() => self.staged_wallet().is_some(),
            Act::Generate => self.committed().is_some() && self.all_adopted(),
            Act::Backup => self.backups_are_written(),
            Act::Prove => self.backups_are_proven(),
            Act::Commit => self.has_quorum(step) && self.committed().is_some() && self.all_adopted(),
            Act::Retire => roster.iter().all(|node| self.retired.contains(node)),
            Act::TestSign | Act::Sign => self.cover().iter().all(|subset| self.has_signed(subset)),
            Act::Open | Act::Confirm | Act::Approve | Act::ReadBack | Act::Agree | Act::Close => {
                self.has_quorum(step)
            }
        }
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
        let nodes = |done: &dyn Fn(&NodeIndex) -> bool| {
            let missing = self.manifest.roster.iter().filter(|node| !done(node));
            let missing: Vec<_> = missing.map(|node| format!("node {node}")).collect();
            missing.join(", ")
        };
        match step.act {
            Act::Attest => format!("attestation of {}", nodes(&|node| self.enclaves.contains_key(node))),
            Act::Recover => match self.due_recovery() {
                Some((node, way)) => format!("the share of node {node}, by {way}"),
                None => String::new(),
            },
            Act::Generate if self.manifest.kind.renews() => {
                format!("new share of {}", nodes(&|node| self.staged.contains_key(node)))
            }
            Act::Commit if !self.has_quorum(step) => self.missing_people(step),
            Act::Generate | Act::Commit if self.committed().is_none() => {
                format!("result of {}", nodes(&|node| self.prepared.contains_key(node)))
            }
            Act::Generate | Act::Commit => {
                format!("adoption by {}", nodes(&|node| self.adopted.contains(node)))
            }
            Act::Backup => format!("backup of {}", nodes(&|node| self.backups.contains_key(node))),
            Act::Prove => {
                format!("release and proof of the backup of {}", nodes(&|node| self.proved.contains(node)))
            }
            Act::Retire => format!("deletion by {}", nodes(&|node| self.retired.contains(node))),
            Act::TestSign | Act::Sign => match self.due_subset() {
                Some(subset) if self.is_hopeless(&subset) => {
                    format!("nothing: group {subset} failed for good; withdraw the ceremony")
                }
                Some(subset) => format!("signature of {subset}, try {}", self.attempt(&subset)),
                None => String::new(),
            },
            Act::Open | Act::Confirm | Act::Approve | Act::ReadBack | Act::Agree | Act::Close => {
                self.missing_people(step)
            }
        }
    }

    fn missing_people(&self, step: &Step) -> String {
        let missing = self.missing_signers(step).into_iter();
        missing.map(|(role, count)| format!("{count} {role}")).collect::<Vec<_>>().join(", ")
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

    /// Hash over the complete test signatures.
    pub(super) fn signatures_hash(&self) -> Hash {
        let parts: Vec<Vec<u8>> = self
            .tests
            .iter()
            .filter(|test| test.is_complete())
            .map(|test| [&test.digest.as_bytes()[..], &test.r, &test.s].concat())
            .collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Hash::of_parts("custody/test-signatures/v1", &parts)
    }

    /// What this node, whose enclave has these keys, has to do now. Doing it changes the log, and with it
    /// the duty; a node that was down finds out here what it missed.
    #[must_use]
    pub fn duty(&self, node: NodeIndex, own: &EnclaveKeys, now: UnixMillis) -> Option<Duty> {
        let phase = self.phase_at(now);
        match phase {
            Phase::Gathering | Phase::Authorised | Phase::Committed => {}
            Phase::Abandoned(_) => return self.adoption(node),
            Phase::Closed | Phase::Void(_) => return None,
        }
        if !self.manifest.roster.contains(&node) || self.manifest.kind == CeremonyKind::Amend {
            return None;
        }
        if let Some(adopt) = self.adoption(node) {
            return Some(adopt);
        }
        if self.enclaves.get(&node).is_none_or(|known| known.keys != *own) {
            return match phase {
                Phase::Authorised if self.replacing_voids(node) && self.made().is_none() => Some(Duty::Fault),
                _ => Some(Duty::Attest),
            };
        }
        let making = (phase == Phase::Authorised).then(|| self.share_duty(node)).flatten();
        making
            .or_else(|| self.test_duty(node))
            .or_else(|| self.backup_duty(node))
            .or_else(|| self.retirement(node))
    }

    /// What a node does for a generation that is being made.
    fn share_duty(&self, node: NodeIndex) -> Option<Duty> {
        if !self.manifest.kind.makes_shares() {
            return None;
        }
        if let Some((lost, way)) = self.due_recovery() {
            return match way {
                Way::Repair => self.repairing(lost).contains(node).then_some(Duty::Repair { lost }),
                // Each when its own backup is released, in any order.
                Way::Backup => {
                    self.wanted_backup(Act::Recover, node)?;
                    self.release(Act::Recover, node).map(|_| Duty::Restore { node })
                }
            };
        }
        if self.manifest.kind.renews() {
            let lets_through = self.is_let_through() && !self.prepared.contains_key(&node);
            return if self.staged.contains_key(&node) {
                lets_through.then_some(Duty::Prepare)
            } else {
                Some(Duty::Generate)
            };
        }
        (!self.prepared.contains_key(&node)).then_some(Duty::Generate)
    }

    fn backup_duty(&self, node: NodeIndex) -> Option<Duty> {
        if self.backup_is_due(node) {
            return Some(Duty::Backup { node });
        }
        self.wanted_backup(Act::Prove, node)?;
        self.release(Act::Prove, node).map(|_| Duty::Prove { node })
    }

    fn retirement(&self, node: NodeIndex) -> Option<Duty> {
        let due = self.manifest.kind.renews() && self.all_adopted() && !self.retired.contains(&node);
        due.then_some(Duty::Retire)
    }

    /// The generation whose share this node needs for a duty; none where it needs none, or has lost it.
    #[must_use]
    pub fn share_for(&self, duty: &Duty, node: NodeIndex) -> Option<Wallet> {
        match duty {
            Duty::Generate | Duty::Repair { .. } if self.manifest.lost.contains_key(&node) => None,
            Duty::TestSign { .. } | Duty::Backup { .. } if self.manifest.kind.makes_shares() => self.made(),
            Duty::Generate | Duty::Repair { .. } | Duty::TestSign { .. } => self.before().cloned(),
            Duty::Attest
            | Duty::Fault
            | Duty::Restore { .. }
            | Duty::Backup { .. }
            | Duty::Prove { .. }
            | Duty::Prepare
            | Duty::Adopt
            | Duty::Retire => None,
        }
    }

    fn adoption(&self, node: NodeIndex) -> Option<Duty> {
        (self.committed().is_some() && !self.adopted.contains(&node)).then_some(Duty::Adopt)
    }

    fn test_duty(&self, node: NodeIndex) -> Option<Duty> {
        let subset = self.due_subset()?;
        if !subset.contains(node) || self.is_hopeless(&subset) {
            return None;
        }
        let attempt = self.attempt(&subset);
        let input = self.due_input(&subset)?;
        let same =
            |test: &TestSignature| (&test.subset, test.attempt, test.input) == (&subset, attempt, input);
        let reported = self.tests.iter().any(|test| same(test) && test.reported_by.contains(&node));
        (!reported).then_some(Duty::TestSign { subset, attempt, input })
    }

    /// The session in which this duty is done, with no other party for what concerns a backup. None for duties that
    /// need no keys, and while a party has not attested.
    #[must_use]
    pub fn session(&self, duty: &Duty) -> Option<SessionSpec> {
        let (purpose, parties, attempt) = match duty {
            Duty::Repair { lost } => ("repair", self.repairing(*lost), 1),
            Duty::Restore { node } => ("restore", Subset::new([*node]), 1),
            Duty::Backup { node } => ("backup", Subset::new([*node]), 1),
            Duty::Prove { node } => ("prove", Subset::new([*node]), 1),
            Duty::Generate => ("generate", Subset::new(self.manifest.roster.iter().copied()), 1),
            Duty::TestSign { subset, attempt, .. } => ("test-sign", subset.clone(), *attempt),
            Duty::Attest | Duty::Adopt | Duty::Fault | Duty::Prepare | Duty::Retire => return None,
        };
        let keys = parties
            .parties()
            .iter()
            .map(|party| Some((*party, self.enclaves.get(party)?.keys)))
            .collect::<Option<BTreeMap<NodeIndex, EnclaveKeys>>>()?;
        let indices: Vec<u8> = parties.parties().iter().map(|party| party.get()).collect();
        let attempt_bytes = attempt.to_be_bytes();
        let input = if let Duty::TestSign { input, .. } = duty { *input } else { 0 };
        let label = Hash::of_parts(
            "custody/session-label/v2",
            &[
                self.manifest.hash().as_bytes(),
                purpose.as_bytes(),
                &indices,
                &attempt_bytes,
                &input.to_be_bytes(),
            ],
        );
        let record = self.record().or(self.before().map(|wallet| &wallet.record));
        let record = record.map_or(Hash::ZERO, super::Record::digest);
        let mut context: Vec<Vec<u8>> =
            vec![label.as_bytes().to_vec(), self.manifest.as_bytes().to_vec(), record.as_bytes().to_vec()];
        for (party, keys) in &keys {
            let registers = self.enclaves.get(party).map(|enclave| enclave.measurement.registers());
            let registers = registers.into_iter().flatten();
            let nkey = self.context.charter.node(*party).map(|node| node.nkey.clone());
            context.push(vec![party.get()]);
            context.push(keys.identity.to_vec());
            context.push(keys.sealing.to_vec());
            context
                .push(registers.flat_map(|(index, pcr)| [&[index][..], pcr.as_bytes()].concat()).collect());
            context.push(nkey.unwrap_or_default().into_bytes());
        }
        let parts: Vec<&[u8]> = context.iter().map(Vec::as_slice).collect();
        Some(SessionSpec {
            label,
            context: Hash::of_parts("custody/session-context/v1", &parts),
            parties: keys,
            threshold: self.manifest.threshold,
            attempt,
        })
    }
}
