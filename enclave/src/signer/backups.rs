//! What an enclave does with backups: writing its new share's, proving one, and restoring from one. Each is done as
//! often as it is ordered, and whatever goes wrong is told to the agent alone.

use std::sync::Arc;

use ceremonies::ceremony::Duty;
use ceremonies::curve::Point;
use ceremonies::ids::Hash;
use ceremonies::script::Act;
use ceremonies::wallet::{Record, release_info};
use enclave_link::message::{self, from_enclave};
use thiserror::Error;

use super::life::{Job, Stage};
use super::{BackUp, OrderId, Released, Signer, Work};

/// Why a backup is not handled.
#[derive(Debug, Error)]
enum Failure {
    #[error("nothing is due that concerns a backup")]
    NotDue,
    #[error("the backup handed in has SHA-256 {found}, but {released} was released")]
    OtherBackup { found: Hash, released: Hash },
}

/// What is to be done about a backup, and what the order waits for meanwhile.
fn work<S>(job: &Job, share: Option<Arc<S>>) -> Result<(Stage, Work<S>), Failure> {
    let (ceremony, node) = (&job.order.ceremony, job.order.node);
    let made = || ceremony.made().map(|wallet| wallet.record).ok_or(Failure::NotDue);
    match &job.order.duty {
        Duty::Backup { .. } => {
            let record = made()?;
            let share = share.ok_or(Failure::NotDue)?;
            let rules = ceremony.charter().backup().ok_or(Failure::NotDue)?;
            let recipients = rules.recipients(node).map(str::to_owned).collect();
            let stage = Stage::BackingUp(Box::new(record.clone()));
            Ok((stage, Work::BackUp(BackUp { record, node, share, recipients })))
        }
        Duty::Prove { .. } => {
            let released = released(job, Act::Prove, made()?)?;
            Ok((Stage::Proving(Hash::of_bytes(&job.backup)), Work::Prove(released)))
        }
        Duty::Restore { .. } => {
            let record = ceremony.before().map(|wallet| wallet.record.clone()).ok_or(Failure::NotDue)?;
            let stage = Stage::Restoring(Box::new(record.clone()));
            Ok((stage, Work::Restore(released(job, Act::Recover, record)?)))
        }
        Duty::Attest
        | Duty::Fault
        | Duty::Repair { .. }
        | Duty::Rebuild
        | Duty::Generate
        | Duty::Prepare
        | Duty::Retire
        | Duty::Adopt
        | Duty::TestSign { .. } => Err(Failure::NotDue),
    }
}

/// The backup that was released to this enclave.
fn released(job: &Job, act: Act, record: Record) -> Result<Released, Failure> {
    let (ceremony, node) = (&job.order.ceremony, job.order.node);
    let release = ceremony.release(act, node).ok_or(Failure::NotDue)?;
    let found = Hash::of_bytes(&job.backup);
    if found != release.object {
        return Err(Failure::OtherBackup { found, released: release.object });
    }
    let info = release_info(&ceremony.manifest().hash(), node, &release.object);
    Ok(Released { record, node, backup: job.backup.clone(), key: release.sealed.clone(), info })
}

impl<S> Signer<S> {
    /// Has done what concerns a backup, or says why not.
    pub(super) fn with_backup(&mut self, id: OrderId, job: &Job, share: Option<Arc<S>>) -> Option<Stage> {
        match work(job, share) {
            Ok((stage, work)) => {
                self.work(id, work);
                Some(stage)
            }
            Err(failure) => {
                self.refuse_backup(id, job, &failure.to_string());
                None
            }
        }
    }

    pub(super) fn refuse_backup(&mut self, id: OrderId, job: &Job, failure: &str) {
        self.refuse(id.request, format!("backup of node {}: {failure}", job.order.node));
    }

    pub(super) fn backed_up(&mut self, job: &Job, record: &Record, whole: Vec<u8>, root: Vec<u8>) {
        let digests = (Hash::of_bytes(&whole), Hash::of_bytes(&root));
        let signature = self.voice.backed_up(job.order.node, record, digests).to_vec();
        let ceremony = job.order.ceremony.manifest().ceremony.to_string();
        self.tell(from_enclave::Kind::Backups(message::Backups { ceremony, whole, root, signature }));
    }

    pub(super) fn proved(&mut self, job: &Job, object: &Hash, point: &Point) {
        let manifest = job.order.ceremony.manifest();
        let said = self.voice.proved(&manifest.ceremony, &manifest.hash(), job.order.node, object, point);
        self.say(said);
    }

    /// The lost share has been restored. It is kept in memory for the refresh that follows.
    pub(super) fn recovered(&mut self, job: &Job, record: &Record, share: Arc<S>) {
        self.shares.keep(record, share);
        let manifest = job.order.ceremony.manifest();
        let said = self.voice.recovered(&manifest.ceremony, &manifest.hash(), job.order.node);
        self.say(said);
    }
}
