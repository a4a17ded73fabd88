//! Backups of a new generation: written, proven to restore, and released to nodes that lost their shares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Ceremony, MAX_RELEASES, Rejection};
use crate::charter::BackupRules;
use crate::curve::Point;
use crate::ids::{Hash, NodeIndex, PersonName};
use crate::log::{EnclaveSignature, Entry};
use crate::manifest::Way;
use crate::script::Act;
use crate::statement::Release;
use crate::wallet::BackedUp;
use crate::wallet::{Wallet, backed_up_message, proved_message};

/// How much shorter a lock may be than the charter requires, to allow for clocks that differ.
const LOCK_SLACK_MS: i64 = 60 * 60 * 1000;

impl Ceremony {
    /// The charter's rules on backups, if it has any.
    pub(super) fn backup_rules(&self) -> Option<&BackupRules> {
        self.context.charter.backup()
    }

    /// Takes note of backups of the generation that it works on, written since it was opened.
    pub(crate) fn learn_backups(&mut self, wallet: &Arc<Wallet>) {
        let is_before = |before: &Wallet| before.record.digest() == wallet.record.digest();
        if self.before().is_some_and(is_before) {
            self.context = self.context.with_wallet(Some(Arc::clone(wallet)));
        }
    }

    /// Whether a step asks for the release of this node's backup.
    fn asks_release(&self, act: Act, node: NodeIndex) -> bool {
        // The backups of a generation that is known by its record alone were checked by those who committed the next.
        let unknown = act == Act::Recover
            && self.rests_on_a_record()
            && self.manifest.lost().get(&node) == Some(&Way::Backup)
            && !self.recovered.contains(&node);
        unknown || self.wanted_backup(act, node).is_some()
    }

    /// The backups that nodes have written here.
    #[must_use]
    pub fn backups(&self) -> &BTreeMap<NodeIndex, BackedUp> {
        &self.backups
    }

    /// The nodes whose backups are proven.
    #[must_use]
    pub fn proved_nodes(&self) -> &BTreeSet<NodeIndex> {
        &self.proved
    }

    fn is_open(&self, act: Act) -> bool {
        self.script.step_for(act).is_some_and(|step| self.missing_before(step).is_none())
    }

    pub(super) fn backup_is_due(&self, node: NodeIndex) -> bool {
        self.backup_rules().is_some() && self.is_open(Act::Backup) && !self.backups.contains_key(&node)
    }

    pub(super) fn backed_up(&mut self, entry: &Entry, backed_up: &BackedUp) -> Result<(), Rejection> {
        let node = backed_up.node;
        self.check_own(entry, node)?;
        if self.backups.contains_key(&node) {
            return Err(Rejection::SaidAlready(node));
        }
        let made = self.made().filter(|_| self.backup_is_due(node)).ok_or(Rejection::NoBackupDue(node))?;
        let (whole, root) = (&backed_up.whole, &backed_up.root);
        let message = backed_up_message(&made.record.digest(), node, &whole.digest, &root.digest);
        self.check_enclave(node, &message, &backed_up.signature)?;
        let lock = self.backup_rules().map_or(0, BackupRules::lock_ms);
        let least = entry.time.plus(lock - LOCK_SLACK_MS);
        if let Some(short) = [whole, root].into_iter().find(|object| object.locked_until < least) {
            return Err(Rejection::ShortLock { node, until: short.locked_until, least });
        }
        self.backups.insert(node, backed_up.clone());
        Ok(())
    }

    pub(super) fn proved(
        &mut self,
        node: NodeIndex,
        object: Hash,
        point: &Point,
        signature: &EnclaveSignature,
    ) -> Result<(), Rejection> {
        self.check_enclave(node, &proved_message(&self.manifest.hash(), node, &object, point), signature)?;
        let backup = self.backups.get(&node).filter(|backup| backup.whole.digest == object);
        if backup.is_none() || !self.is_open(Act::Prove) {
            return Err(Rejection::NotWritten(node));
        }
        if self.made().is_none_or(|made| made.record.public_shares.get(&node) != Some(point)) {
            return Err(Rejection::OtherBackup(node));
        }
        if self.proved.insert(node) { Ok(()) } else { Err(Rejection::SaidAlready(node)) }
    }

    /// The backup of this node whose release a step asks for: of the new generation to be proven, of the one before
    /// to be restored.
    #[must_use]
    pub fn wanted_backup(&self, act: Act, node: NodeIndex) -> Option<&BackedUp> {
        if act == Act::Prove {
            self.backups.get(&node).filter(|_| !self.proved.contains(&node))
        } else if act == Act::Recover && self.manifest.lost().get(&node) == Some(&Way::Backup) {
            let open = !self.recovered.contains(&node);
            self.before().filter(|_| open).and_then(|wallet| wallet.backups.get(&node))
        } else {
            None
        }
    }

    /// The nodes whose backups a person can release for a step and nobody has released.
    #[must_use]
    pub fn releases_wanted(&self, act: Act, person: &PersonName) -> Vec<NodeIndex> {
        let opens = |node: &&NodeIndex| self.backup_rules().is_some_and(|rules| rules.opens(person, **node));
        let wanted = |node: &&NodeIndex| {
            self.wanted_backup(act, **node).is_some() && self.release(act, **node).is_none()
        };
        self.manifest.roster.iter().filter(opens).filter(wanted).copied().collect()
    }

    /// The last release of this node's backup that was signed for a step of this act. A release sealed to an enclave
    /// that is gone does not count.
    #[must_use]
    pub fn release(&self, act: Act, node: NodeIndex) -> Option<&Release> {
        let step = self.script.step_for(act)?;
        let since = self.enclaves.get(&node)?.seq;
        let signed = self.signatures.iter().rev();
        signed
            .filter(|signed| signed.step == step.id && signed.seq > since)
            .filter_map(|signed| signed.answer.release())
            .find(|release| release.node == node)
    }

    /// Every release that was signed for a step of this act, whatever became of it.
    pub(crate) fn releases(&self, act: Act) -> impl Iterator<Item = &Release> {
        let step = self.script.step_for(act).map(|step| &step.id);
        let of_act = self.signatures.iter().filter(move |signed| Some(&signed.step) == step);
        of_act.filter_map(|signed| signed.answer.release())
    }

    pub(super) fn check_release(
        &self,
        act: Act,
        person: &PersonName,
        release: &Release,
    ) -> Result<(), Rejection> {
        let node = release.node;
        if !self.asks_release(act, node) {
            return Err(Rejection::NoReleaseDue(node));
        }
        if let Some(wanted) = self.wanted_backup(act, node) {
            let is_root = act == Act::Recover && wanted.root.digest == release.object;
            if is_root && self.needs_whole(node) {
                return Err(Rejection::RootHelpsNobody(node));
            }
            if wanted.whole.digest != release.object && !is_root {
                return Err(Rejection::OtherObject { node, object: release.object });
            }
        }
        if self.releases(act).filter(|known| known.node == node).count() >= MAX_RELEASES {
            return Err(Rejection::TooManyReleases(node));
        }
        if self.backup_rules().is_some_and(|rules| rules.opens(person, node)) {
            Ok(())
        } else {
            Err(Rejection::NotKeeper { person: person.clone(), node })
        }
    }

    /// Whether this restored node must help to repair another, which it cannot do with a root share: dkls23 masks a
    /// helper's term with what it shares with the other helpers.
    fn needs_whole(&self, node: NodeIndex) -> bool {
        let repairs = self.manifest.repaired().next().is_some();
        repairs && self.manifest.dealer().is_none() && self.helpers().contains(node)
    }

    /// Whether a step of this act waits for custodians.
    pub(super) fn asks_releases(&self, act: Act) -> bool {
        self.manifest.roster.iter().any(|node| self.asks_release(act, *node))
    }

    pub(super) fn backups_are_written(&self) -> bool {
        let written = |node: &NodeIndex| self.backups.contains_key(node);
        self.backup_rules().is_none() || self.manifest.roster.iter().all(written)
    }

    pub(super) fn backups_are_proven(&self) -> bool {
        let proved = |node: &NodeIndex| self.proved.contains(node);
        self.backup_rules().is_none() || self.manifest.roster.iter().all(proved)
    }
}
