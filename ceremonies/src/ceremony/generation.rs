//! A generation of shares, from its results to the certificate that commits it, its adoption, and the end of the one
//! before.
//!
//! n matching `Prepared` are the certificate, for a key generation as for a refresh or recovery. In a key generation,
//! an enclave says it as soon as a share is sealed. Where a key exists, shares are staged first, and an enclave says
//! `Prepared` only when the staged ones have signed and people have let them replace the old ones.

use std::collections::BTreeMap;

use super::{Before, Ceremony, Rejection};
use crate::ids::{Hash, NodeIndex};
use crate::log::{EnclaveSignature, Entry};
use crate::manifest::Way;
use crate::subsets::Subset;
use crate::wallet::{Record, Wallet, prepared_message, recovered_message, retired_message, staged_message};

impl Ceremony {
    /// Accepted even after an abort or the expiry: n of these are the certificate, whatever the log's order.
    pub(super) fn prepared(
        &mut self,
        node: NodeIndex,
        record: &[u8],
        blob: Hash,
        signature: &EnclaveSignature,
    ) -> Result<(), Rejection> {
        let digest = Record::digest_of(record);
        self.check_enclave(node, &prepared_message(&digest, node, &blob), signature)?;
        self.check_result(node, self.prepared.contains_key(&node))?;
        if self.manifest.kind.renews() {
            if self.staged.get(&node) != Some(&(digest, blob)) {
                return Err(Rejection::NotStaged(node));
            }
        } else {
            self.note_record(node, record, digest)?;
        }
        self.prepared.insert(node, (digest, blob));
        Ok(())
    }

    pub(super) fn staged(
        &mut self,
        node: NodeIndex,
        record: &[u8],
        blob: Hash,
        signature: &EnclaveSignature,
    ) -> Result<(), Rejection> {
        if !self.manifest.kind.renews() {
            return Err(Rejection::NothingToStage);
        }
        let digest = Record::digest_of(record);
        self.check_enclave(node, &staged_message(&digest, node, &blob), signature)?;
        self.check_result(node, self.staged.contains_key(&node))?;
        self.note_record(node, record, digest)?;
        self.staged.insert(node, (digest, blob));
        Ok(())
    }

    /// Whether this enclave may report a result and has not done so.
    fn check_result(&self, node: NodeIndex, said: bool) -> Result<(), Rejection> {
        if !self.manifest.kind.makes_shares() {
            return Err(Rejection::NoGeneration);
        }
        if let Some(approve) = self.unapproved() {
            return Err(Rejection::NotAuthorised(approve));
        }
        if self.aborted.contains(&node) {
            return Err(Rejection::PreparedAndAborted(node));
        }
        if said { Err(Rejection::SaidAlready(node)) } else { Ok(()) }
    }

    fn note_record(&mut self, node: NodeIndex, record: &[u8], digest: Hash) -> Result<(), Rejection> {
        if self.record.as_ref().is_none_or(|known| known.digest() != digest) {
            let record = self.own_record(node, record)?;
            self.record.get_or_insert(record);
        }
        Ok(())
    }

    /// A generation record of this very ceremony: of a new key, or of the key it is about with every share new.
    fn own_record(&self, node: NodeIndex, record: &[u8]) -> Result<Record, Rejection> {
        let record = Record::parse(record).map_err(|source| Rejection::Record { node, source })?;
        let expected = &self.manifest;
        let same = record.manifest == expected.hash()
            && record.ceremony == expected.ceremony
            && record.cluster == expected.cluster
            && record.wallet == expected.wallet
            && record.generation == expected.generation
            && record.threshold == expected.threshold
            && record.roster() == expected.roster
            && Some(record.enclaves) == self.approved_enclaves;
        if !same {
            return Err(Rejection::OtherRecord(node));
        }
        let before = self.before_record().filter(|_| expected.kind.renews());
        let Some(before) = before else { return Ok(record) };
        let key = |record: &Record| (record.scheme, record.public_key, record.chain_code);
        if key(&record) != key(before) {
            return Err(Rejection::OtherKey(node));
        }
        match record.public_shares.iter().find(|(of, share)| before.public_shares.get(of) == Some(*share)) {
            Some((of, _)) => Err(Rejection::SameShare { node, of: *of }),
            None => Ok(record),
        }
    }

    pub(super) fn adopted(&mut self, entry: &Entry, node: NodeIndex, record: Hash) -> Result<(), Rejection> {
        self.check_own(entry, node)?;
        if self.committed().is_none_or(|wallet| wallet.record.digest() != record) {
            return Err(Rejection::NothingToAdopt(node));
        }
        if self.adopted.insert(node) { Ok(()) } else { Err(Rejection::SaidAlready(node)) }
    }

    pub(super) fn recovered(
        &mut self,
        node: NodeIndex,
        signature: &EnclaveSignature,
    ) -> Result<(), Rejection> {
        self.check_enclave(node, &recovered_message(&self.manifest.hash(), node), signature)?;
        if let Some(approve) = self.unapproved() {
            return Err(Rejection::NotAuthorised(approve));
        }
        if !self.manifest.lost().contains_key(&node) {
            return Err(Rejection::NotLost(node));
        }
        if self.recovered.insert(node) { Ok(()) } else { Err(Rejection::SaidAlready(node)) }
    }

    /// Old shares go only when every node has adopted the new ones.
    pub(super) fn retired(
        &mut self,
        node: NodeIndex,
        record: Hash,
        signature: &EnclaveSignature,
    ) -> Result<(), Rejection> {
        self.check_enclave(node, &retired_message(&record, node), signature)?;
        let committed = self.committed().filter(|_| self.manifest.kind.renews());
        if !self.all_adopted() || committed.is_none_or(|wallet| wallet.record.digest() != record) {
            return Err(Rejection::NothingToRetire(node));
        }
        if self.retired.insert(node) { Ok(()) } else { Err(Rejection::SaidAlready(node)) }
    }

    /// The record, where all of the roster have signed it.
    fn signed_by_all(&self, results: &BTreeMap<NodeIndex, (Hash, Hash)>) -> Option<&Record> {
        let record = self.record.as_ref()?;
        let digest = record.digest();
        let has_signed = |node| results.get(node).is_some_and(|(signed, _)| *signed == digest);
        self.manifest.roster.iter().all(has_signed).then_some(record)
    }

    /// The certificate, where all of the roster have signed one record.
    fn certificate(&self, results: &BTreeMap<NodeIndex, (Hash, Hash)>) -> Option<Wallet> {
        Some(Wallet {
            record: self.signed_by_all(results)?.clone(),
            blobs: results.iter().map(|(node, (_, blob))| (*node, *blob)).collect(),
            backups: self.backups.clone(),
        })
    }

    /// Whether its enclaves have committed a generation.
    #[must_use]
    pub fn has_committed(&self) -> bool {
        self.signed_by_all(&self.prepared).is_some()
    }

    /// The wallet that its enclaves have committed, from the moment all n have signed.
    #[must_use]
    pub fn committed(&self) -> Option<Wallet> {
        self.certificate(&self.prepared)
    }

    /// The generation that all enclaves have staged beside the one in use.
    #[must_use]
    pub fn staged_wallet(&self) -> Option<Wallet> {
        self.certificate(&self.staged)
    }

    /// The generation that this ceremony makes, from the moment it can sign tests.
    #[must_use]
    pub fn made(&self) -> Option<Wallet> {
        if self.manifest.kind.renews() { self.staged_wallet() } else { self.committed() }
    }

    /// The wallet before this ceremony: what it signs with, refreshes, recovers or is about. None if only its record is
    /// known; then nothing may be done here.
    #[must_use]
    pub fn before(&self) -> Option<&Wallet> {
        match self.context.before.as_ref()? {
            Before::Whole(wallet) => Some(wallet),
            Before::Record(_) => None,
        }
    }

    /// The record of the wallet before this ceremony.
    #[must_use]
    pub fn before_record(&self) -> Option<&Record> {
        self.context.before.as_ref().map(Before::record)
    }

    /// Whether it works on a generation of which only the record is known here.
    #[must_use]
    pub fn rests_on_a_record(&self) -> bool {
        matches!(self.context.before, Some(Before::Record(_)))
    }

    pub(super) fn all_adopted(&self) -> bool {
        self.manifest.roster.iter().all(|node| self.adopted.contains(node))
    }

    /// The lost node whose share comes back next, and the way.
    #[must_use]
    pub fn due_recovery(&self) -> Option<(NodeIndex, Way)> {
        let open = self.manifest.lost().iter().filter(|(node, _)| !self.recovered.contains(node));
        open.map(|(node, way)| (*node, *way)).min_by_key(|(node, way)| (*way, *node))
    }

    /// The nodes that rebuild a lost share: the first t that hold their own share, or got it from a backup.
    #[must_use]
    pub fn helpers(&self) -> Subset {
        let lost = self.manifest.lost();
        let whole = self.manifest.roster.iter().copied().filter(|node| lost.get(node) != Some(&Way::Repair));
        // Those that lost nothing come first: a share restored from paper cannot help.
        let (restored, kept): (Vec<_>, Vec<_>) = whole.partition(|node| lost.contains_key(node));
        Subset::new(kept.into_iter().chain(restored).take(usize::from(self.manifest.threshold)))
    }

    /// Whether these are the parties of a session that gives shares: all nodes, a repaired node and its helpers, or the
    /// parties of a rebuild.
    pub(super) fn makes_shares_among(&self, parties: &Subset) -> bool {
        let repair =
            |(lost, way): (&NodeIndex, &Way)| *way == Way::Repair && *parties == self.repairing(*lost);
        let rebuild = self.manifest.dealer().is_some() && *parties == self.rebuilding();
        self.manifest.kind.makes_shares()
            && (parties.parties() == self.manifest.roster
                || self.manifest.lost().iter().any(repair)
                || rebuild)
    }

    /// The parties of a lost node's repair.
    #[must_use]
    pub fn repairing(&self, lost: NodeIndex) -> Subset {
        Subset::new(self.helpers().parties().iter().copied().chain([lost]))
    }

    /// The parties of a rebuild: those that hand over their root shares, and those whose shares are rebuilt.
    #[must_use]
    pub fn rebuilding(&self) -> Subset {
        Subset::new(self.helpers().parties().iter().copied().chain(self.manifest.repaired()))
    }

    /// The generation record it made or works on, as soon as one is known.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        if self.manifest.kind.makes_shares() { self.record.as_ref() } else { self.before_record() }
    }
}
