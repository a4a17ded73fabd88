//! What an enclave does with backups: writing its new share's, proving one, and restoring from one.

use std::sync::Arc;

use ceremonies::ceremony::{Ceremony, Duty};
use ceremonies::ids::Hash;
use ceremonies::script::Act;
use ceremonies::wallet::{Record, release_info};
use thiserror::Error;

use super::Connection;
use super::runner::Job;
use crate::backup::{self, BackupError};
use crate::scheme::dkls23::{KeyShare, ShareError};
use enclave_link::message::{self, from_enclave};

/// Why a backup is not handled.
#[derive(Debug, Error)]
enum Failure {
    #[error("nothing is due that concerns a backup")]
    NotDue,
    #[error("the backup handed in has SHA-256 {found}, but {released} was released")]
    OtherBackup { found: Hash, released: Hash },
    #[error("the released key was sealed for another enclave or ceremony: have it released again")]
    Sealed,
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// The generation that a backup is of, as the ceremony has it.
fn record_of(ceremony: &Ceremony, duty: &Duty) -> Option<Record> {
    match duty {
        Duty::Restore { .. } => ceremony.before().map(|wallet| wallet.record.clone()),
        _ => ceremony.made().map(|wallet| wallet.record),
    }
}

impl Connection<'_> {
    /// Does what concerns a backup, or says why not.
    pub(super) async fn with_backup(&mut self, job: &Arc<Job>, share: Option<Arc<KeyShare>>) {
        self.open.remove(&job.order.spec.label);
        match self.backup_word(job, share) {
            Ok(kind) => self.send(kind).await,
            Err(failure) => {
                let node = job.order.node;
                self.refuse_for(job.request, format!("backup of node {node}: {failure}")).await;
            }
        }
    }

    fn backup_word(
        &mut self,
        job: &Job,
        share: Option<Arc<KeyShare>>,
    ) -> Result<from_enclave::Kind, Failure> {
        let (ceremony, node) = (&job.order.ceremony, job.order.node);
        let record = record_of(ceremony, &job.order.duty).ok_or(Failure::NotDue)?;
        let manifest = ceremony.manifest();
        match &job.order.duty {
            Duty::Backup { .. } => {
                let share = share.ok_or(Failure::NotDue)?;
                let rules = ceremony.charter().backup().ok_or(Failure::NotDue)?;
                let whole = backup::write(&share, &record, node, rules.recipients(node))?;
                let root = backup::write(&share.root(), &record, node, rules.recipients(node))?;
                let digests = (Hash::of_bytes(&whole), Hash::of_bytes(&root));
                let signature = self.enclave.voice.backed_up(node, &record, digests).to_vec();
                let ceremony = manifest.ceremony.to_string();
                Ok(from_enclave::Kind::Backups(message::Backups { ceremony, whole, root, signature }))
            }
            Duty::Prove { .. } => {
                let share = self.open_backup(job, Act::Prove, &record)?;
                let (point, object) = (share.public_point()?, Hash::of_bytes(&job.backup));
                let said =
                    self.enclave.voice.proved(&manifest.ceremony, &manifest.hash(), node, &object, &point);
                Ok(from_enclave::Kind::Said(said))
            }
            Duty::Restore { .. } => {
                let share = self.open_backup(job, Act::Recover, &record)?;
                self.enclave.shares.keep(&record, Arc::new(share));
                let said = self.enclave.voice.recovered(&manifest.ceremony, &manifest.hash(), node);
                Ok(from_enclave::Kind::Said(said))
            }
            _ => Err(Failure::NotDue),
        }
    }

    /// Opens the backup that was released to this enclave.
    fn open_backup(&self, job: &Job, act: Act, record: &Record) -> Result<KeyShare, Failure> {
        let (ceremony, node) = (&job.order.ceremony, job.order.node);
        let release = ceremony.release(act, node).ok_or(Failure::NotDue)?;
        let found = Hash::of_bytes(&job.backup);
        if found != release.object {
            return Err(Failure::OtherBackup { found, released: release.object });
        }
        let info = release_info(&ceremony.manifest().hash(), node, &release.object);
        let key = self.enclave.core.keys.unseal(&info, &release.sealed).ok_or(Failure::Sealed)?;
        Ok(backup::open(&job.backup, backup::file_key(&key)?, record, node)?)
    }

    /// Tells the agent why an order came to nothing, without an event for the log.
    pub(super) async fn refuse_for(&self, request: u64, reason: String) {
        tracing::warn!(%reason, "refused");
        self.send(from_enclave::Kind::Refused(message::Refused { request, reason })).await;
    }
}
