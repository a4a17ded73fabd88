//! What enclaves and agents report: attestations, results, adoptions, test signatures, aborts and faults.

use ed25519_dalek::VerifyingKey;

use super::{
    AttestedEnclave, Ceremony, Ending, MAX_ATTEMPTS, MAX_ATTESTATIONS, Phase, Rejection, TestSignature,
};
use crate::attestation::{self, Expectation};
use crate::curve::{Path, Point, Signature};
use crate::ids::{Hash, Line, NodeIndex};
use crate::log::{Aborted, EnclaveSignature, Entry, TestSigned};
use crate::script::Act;
use crate::subsets::Subset;

/// The digest that a test signature signs. It is domain-separated, so it is never a transaction's; the manifest (with
/// its nonce) and the attempt make it new for every ceremony and every try.
#[must_use]
pub fn test_digest(manifest: &Hash, record: &Hash, subset: &Subset, attempt: u32) -> Hash {
    let parties: Vec<u8> = subset.parties().iter().map(|party| party.get()).collect();
    Hash::of_parts(
        "custody/test-signature/v1",
        &[manifest.as_bytes(), record.as_bytes(), &parties, &attempt.to_be_bytes()],
    )
}

/// What a group signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToSign {
    /// The digest.
    pub digest: Hash,
    /// The key that the signature verifies under.
    pub key: Point,
    /// That key's path below the wallet's key.
    pub path: Path,
}

impl Ceremony {
    pub(super) fn check_member(&self, node: NodeIndex) -> Result<(), Rejection> {
        if self.manifest.roster.contains(&node) { Ok(()) } else { Err(Rejection::NoSuchNode(node)) }
    }

    /// Agents speak for themselves only.
    pub(super) fn check_own(&self, entry: &Entry, node: NodeIndex) -> Result<(), Rejection> {
        self.check_member(node)?;
        if entry.node == node {
            Ok(())
        } else {
            Err(Rejection::SpeaksForAnother { node: entry.node, about: node })
        }
    }

    /// Enclaves sign with the identity that their attestation bound to them.
    pub(super) fn check_enclave(
        &self,
        node: NodeIndex,
        message: &Hash,
        signature: &EnclaveSignature,
    ) -> Result<(), Rejection> {
        self.check_member(node)?;
        let enclave = self.enclaves.get(&node).ok_or(Rejection::NotAttested(node))?;
        VerifyingKey::from_bytes(&enclave.keys.identity)
            .and_then(|key| {
                key.verify_strict(message.as_bytes(), &ed25519_dalek::Signature::from_bytes(signature))
            })
            .map_err(|_| Rejection::EnclaveSignature(node))
    }

    pub(super) fn attested(
        &mut self,
        entry: &Entry,
        node: NodeIndex,
        document: &[u8],
    ) -> Result<(), Rejection> {
        match self.phase_at(entry.time) {
            Phase::Gathering | Phase::Authorised | Phase::Committed => {}
            Phase::Void(super::Void::Expired) => {
                return Err(Rejection::Expired { expired: self.manifest.expires });
            }
            phase @ (Phase::Closed | Phase::Abandoned(_) | Phase::Void(_)) => {
                return Err(Rejection::Over(phase.to_string()));
            }
        }
        self.check_own(entry, node)?;
        if !self.manifest.kind.uses_enclaves() {
            return Err(Rejection::NoEnclaves);
        }
        let rules = self.context.charter.attestation();
        let attested = attestation::check(
            document,
            &Expectation {
                root: &self.context.root,
                allowed: &rules.measurements,
                nonce: Some(self.manifest.hash().as_bytes()),
                at: entry.time,
                max_age_ms: u64::from(rules.max_age_s) * 1000,
            },
        )
        .map_err(|source| Rejection::Attestation { node, source })?;
        if self.enclaves.get(&node).is_some_and(|known| known.keys == attested.keys) {
            return Err(Rejection::AttestedAlready(node));
        }
        let times = self.enclaves.get(&node).map_or(0, |known| known.times) + 1;
        if times > MAX_ATTESTATIONS {
            return Err(Rejection::TooManyAttestations(node));
        }
        let shared = self.enclaves.iter().find(|(other, enclave)| {
            **other != node
                && (enclave.keys.identity == attested.keys.identity
                    || enclave.keys.sealing == attested.keys.sealing)
        });
        if let Some((other, _)) = shared {
            return Err(Rejection::SharedKeys { node, other: *other });
        }
        if self.replacing_voids(node) {
            // People signed for the enclave that is gone; its round state and its key went with it.
            self.ending = Some(Ending::Replaced { node });
            return Ok(());
        }
        self.enclaves.insert(
            node,
            AttestedEnclave {
                keys: attested.keys,
                measurement: attested.measurement,
                seq: entry.seq,
                at: attested.document.timestamp,
                document: document.to_vec(),
                times,
            },
        );
        Ok(())
    }

    /// Whether another enclave for this node ends the ceremony: it does once people have signed for the one before,
    /// until a generation exists whose share a fresh enclave can be given.
    pub(super) fn replacing_voids(&self, node: NodeIndex) -> bool {
        self.enclaves.contains_key(&node)
            && self.approved_enclaves.is_some()
            && self.manifest.kind.makes_shares()
            && self.committed().is_none()
    }

    pub(super) fn test_signed(&mut self, signed: &TestSigned) -> Result<(), Rejection> {
        self.check_enclave(signed.node, &signed.message(&self.manifest.hash()), &signed.signature)?;
        let due = self.test_step_is_open()
            && self.cover().contains(&signed.subset)
            && signed.subset.contains(signed.node)
            && self.has_been_due(&signed.subset, signed.attempt);
        let to_sign = self.to_sign(&signed.subset, signed.attempt, signed.input).filter(|_| due);
        let Some(ToSign { digest, key, .. }) = to_sign else {
            return Err(Rejection::NotDue(signed.subset.to_string()));
        };
        let of_this_try = |test: &TestSignature| {
            (&test.subset, test.attempt, test.input) == (&signed.subset, signed.attempt, signed.input)
        };
        let known = self.tests.iter().position(of_this_try);
        let same = known.and_then(|at| self.tests.get_mut(at)).filter(|test| test.agrees_with(signed));
        if let Some(test) = same {
            let is_new = test.reported_by.insert(signed.node);
            return if is_new { Ok(()) } else { Err(Rejection::SaidAlready(signed.node)) };
        }
        let signature = Signature { r: signed.r, s: signed.s, recovery_id: signed.recovery_id };
        if signature.check(&digest, &key).is_err() {
            return Err(Rejection::TestSignature);
        }
        if known.is_some() {
            return Err(Rejection::TestDiffers);
        }
        self.tests.push(TestSignature {
            subset: signed.subset.clone(),
            attempt: signed.attempt,
            input: signed.input,
            session: signed.session,
            digest,
            r: signed.r,
            s: signed.s,
            recovery_id: signed.recovery_id,
            reported_by: [signed.node].into(),
        });
        Ok(())
    }

    pub(super) fn aborted(&mut self, aborted: &Aborted) -> Result<(), Rejection> {
        let node = aborted.node;
        self.check_enclave(node, &aborted.message(&self.manifest.hash()), &aborted.signature)?;
        if let Some(approve) = self.unapproved() {
            return Err(Rejection::NotAuthorised(approve));
        }
        for peer in [aborted.culprit, aborted.banned].into_iter().flatten() {
            self.check_member(peer)?;
        }
        // Where all nodes sign, the signer set of a test signature is everyone as well.
        let generating = !self.test_step_is_open()
            && aborted.subset.contains(node)
            && self.makes_shares_among(&aborted.subset);
        if generating {
            if self.prepared.contains_key(&node) {
                return Err(Rejection::PreparedAndAborted(node));
            }
            if !self.aborted.insert(node) {
                return Err(Rejection::SaidAlready(node));
            }
            if self.ending.is_none() {
                self.ending = Some(Ending::Aborted { node, reason: aborted.reason.clone() });
            }
        } else {
            let due = self.cover().contains(&aborted.subset)
                && aborted.subset.contains(node)
                && self.has_been_due(&aborted.subset, aborted.attempt);
            if !due || !self.test_step_is_open() {
                return Err(Rejection::NotDue(aborted.subset.to_string()));
            }
            if !self.given_up.insert((aborted.subset.clone(), aborted.attempt, node)) {
                return Err(Rejection::SaidAlready(node));
            }
        }
        if let Some(peer) = aborted.banned {
            self.bans.insert((node, peer));
        }
        Ok(())
    }

    pub(super) fn faulted(&mut self, entry: &Entry, node: NodeIndex, reason: &Line) -> Result<(), Rejection> {
        self.check_own(entry, node)?;
        if let Some(approve) = self.unapproved() {
            return Err(Rejection::NotAuthorised(approve));
        }
        match self.phase_at(entry.time) {
            Phase::Authorised if self.manifest.kind.makes_shares() && self.made().is_none() => {
                self.ending = Some(Ending::Faulted { node, reason: reason.clone() });
                Ok(())
            }
            Phase::Authorised | Phase::Committed => {
                let due =
                    self.due_subset().filter(|subset| subset.contains(node) && !self.is_hopeless(subset));
                let subset = due.ok_or_else(|| Rejection::NotDue(format!("node {node}")))?;
                let attempt = self.attempt(&subset);
                self.given_up.insert((subset, attempt, node));
                Ok(())
            }
            phase @ (Phase::Gathering | Phase::Closed | Phase::Abandoned(_) | Phase::Void(_)) => {
                Err(Rejection::Over(phase.to_string()))
            }
        }
    }

    /// Which try of this signer set is due, from 1: one more than the tries that any signer gave up.
    #[must_use]
    pub fn attempt(&self, subset: &Subset) -> u32 {
        let failed = self.given_up.iter().filter(|(group, _, _)| group == subset);
        failed.map(|(_, attempt, _)| attempt + 1).max().unwrap_or(1).min(MAX_ATTEMPTS + 1)
    }

    /// Whether this try of this signer set is due or was due before: reports of an earlier one may arrive late.
    fn has_been_due(&self, subset: &Subset, attempt: u32) -> bool {
        (1..=self.attempt(subset).min(MAX_ATTEMPTS)).contains(&attempt)
    }

    /// Whether this signer set has been given up for good: too many tries, or a ban between two of its members.
    #[must_use]
    pub fn is_hopeless(&self, subset: &Subset) -> bool {
        let banned = |(a, b)| self.bans.contains(&(a, b)) || self.bans.contains(&(b, a));
        self.attempt(subset) > MAX_ATTEMPTS || subset.pairs().any(banned)
    }

    /// The signer sets that test-sign here: every node and every pair of nodes is in at least one.
    #[must_use]
    pub fn cover(&self) -> &[Subset] {
        &self.cover
    }

    /// The signer set whose test signature is due now.
    #[must_use]
    pub fn due_subset(&self) -> Option<Subset> {
        if !self.test_step_is_open() {
            return None;
        }
        self.cover().iter().find(|subset| !self.has_signed(subset)).cloned()
    }

    pub(super) fn has_signed(&self, subset: &Subset) -> bool {
        self.due_input(subset).is_none()
    }

    /// How many digests each signer set signs: those of the transaction, or the one of a test.
    fn inputs(&self) -> u32 {
        let digests = self.manifest.transaction().map_or(1, |transaction| transaction.digests().len());
        u32::try_from(digests).unwrap_or(u32::MAX)
    }

    /// Whether a signature counts: a test signature when every signer has reported it, since the signers are what is
    /// tested. A transaction's signature can move money from the first report on, whoever keeps silent.
    #[must_use]
    pub fn counts(&self, signature: &TestSignature) -> bool {
        self.manifest.transaction().is_some() || signature.is_complete()
    }

    /// The first digest that a signer set has not signed.
    #[must_use]
    pub fn due_input(&self, subset: &Subset) -> Option<u32> {
        let signed = |input: &u32| {
            self.tests.iter().any(|t| t.subset == *subset && t.input == *input && self.counts(t))
        };
        (0..self.inputs()).find(|input| !signed(input))
    }

    /// What a signer set signs in a try, and with which key: a test's digest with the wallet's own key, or one of the
    /// transaction's with the key that it belongs to.
    #[must_use]
    pub fn to_sign(&self, subset: &Subset, attempt: u32, input: u32) -> Option<ToSign> {
        let record = self.record()?;
        let Some(transaction) = self.manifest.transaction() else {
            let digest = test_digest(&self.manifest.hash(), &record.digest(), subset, attempt);
            return (input == 0).then(|| ToSign { digest, key: record.public_key, path: Path::default() });
        };
        let place = usize::try_from(input).ok()?;
        let keys = transaction.keys(&record.public_key, &record.chain_code).ok()?;
        Some(ToSign {
            digest: *transaction.digests().get(place)?,
            key: keys.get(place)?.public_key,
            path: transaction.paths().get(place)?.clone(),
        })
    }

    /// The transaction with its signatures, as the network takes it, once all are there.
    #[must_use]
    pub fn signed_transaction(&self) -> Option<Vec<u8>> {
        let transaction = self.manifest.transaction()?;
        let subset = self.cover.first()?;
        let record = self.record()?;
        let signatures: Vec<Signature> = (0..self.inputs())
            .map(|input| {
                let of = |t: &&TestSignature| t.subset == *subset && t.input == input && self.counts(t);
                let test = self.tests.iter().find(of)?;
                Some(Signature { r: test.r, s: test.s, recovery_id: test.recovery_id })
            })
            .collect::<Option<_>>()?;
        let keys = transaction.keys(&record.public_key, &record.chain_code).ok()?;
        let keys: Vec<Point> = keys.into_iter().map(|child| child.public_key).collect();
        transaction.signed(&signatures, &keys).ok()
    }

    pub(super) fn test_step_is_open(&self) -> bool {
        let step = self.script.step_for(Act::TestSign).or(self.script.step_for(Act::Sign));
        step.is_some_and(|step| self.missing_before(step).is_none())
    }
}
