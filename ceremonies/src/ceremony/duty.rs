//! What each node has to do next, with which share, and in which session. This follows from the state alone, so a node
//! that was down finds it too.

use std::collections::BTreeMap;

use super::{Ceremony, MAX_ATTESTATIONS, Phase};
use crate::attestation::EnclaveKeys;
use crate::ids::{Hash, NodeIndex, UnixMillis};
use crate::subsets::Subset;
use crate::wallet::Wallet;

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
    /// Take part in the rebuild of the lost shares, by handing over a root share or as one of those that lost theirs.
    Rebuild,
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
    /// Whether it is about a backup, which one node handles alone, as often as it takes.
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
        if !self.manifest.roster.contains(&node) || !self.manifest.kind.uses_enclaves() {
            return None;
        }
        if let Some(adopt) = self.adoption(node) {
            return Some(adopt);
        }
        if self.is_signed() {
            return None;
        }
        if self.enclaves.get(&node).is_none_or(|known| known.keys != *own) {
            let is_void = phase == Phase::Authorised && self.replacing_voids(node) && self.made().is_none();
            return if is_void { Some(Duty::Fault) } else { self.may_attest(node).then_some(Duty::Attest) };
        }
        self.script.steps().iter().find_map(|step| step.act.rules().duty(self, node, &phase))
    }

    /// Whether this node may still attest here.
    fn may_attest(&self, node: NodeIndex) -> bool {
        self.enclaves.get(&node).is_none_or(|known| known.times < MAX_ATTESTATIONS)
    }

    /// The generation whose share this node needs for a duty; none where it needs none, or has lost it.
    #[must_use]
    pub fn share_for(&self, duty: &Duty, node: NodeIndex) -> Option<Wallet> {
        match duty {
            Duty::Generate | Duty::Repair { .. } | Duty::Rebuild
                if self.manifest.lost().contains_key(&node) =>
            {
                None
            }
            Duty::TestSign { .. } | Duty::Backup { .. } if self.manifest.kind.makes_shares() => self.made(),
            Duty::Generate | Duty::Repair { .. } | Duty::Rebuild | Duty::TestSign { .. } => {
                self.before().cloned()
            }
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

    /// The session in which this duty is done; a backup duty has no other party. None for duties that need no keys, and
    /// while a party has not attested.
    #[must_use]
    pub fn session(&self, duty: &Duty) -> Option<SessionSpec> {
        let (purpose, parties, attempt) = match duty {
            Duty::Repair { lost } => ("repair", self.repairing(*lost), 1),
            Duty::Rebuild => ("rebuild", self.rebuilding(), 1),
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
        let record = self.record().or(self.before_record());
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
