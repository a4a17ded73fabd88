//! The life of an order, from when it is taken up until something is said about it. An order that is over is in no map,
//! so that whatever news of it comes late has no effect.

use std::sync::Arc;

use ceremonies::ceremony::{Ceremony, Duty};
use ceremonies::ids::{CeremonyId, Hash, Line, NodeIndex};
use ceremonies::log::{Aborted, TestSigned};
use ceremonies::subsets::Subset;
use ceremonies::text::chain;
use ceremonies::wallet::{Record, Scheme, Sharing, Wallet};
use enclave_link::message::{self, Credentials, Start, Stored, from_enclave};
use tracing::{info, warn};

use super::orders::{Order, OrderError};
use super::{Begin, Effect, News, Open, OrderId, Seal, Signer, Work, task};
use crate::scheme::dkls23::{NewShare, Product, Signature};
use crate::session::{Outcome, SessionFailure, SessionProgress};

/// An order that was taken up, and what came with it.
pub(super) struct Job {
    pub(super) order: Order,
    credentials: Credentials,
    /// The backup that was released, where one is.
    pub(super) backup: Vec<u8>,
}

/// What an order waits for.
pub(super) enum Stage {
    /// Its share is being opened.
    Opening,
    /// Its session is held.
    Running,
    /// The new share is being sealed.
    Sealing(Box<Record>),
    /// The agent has been given the sealed share to store; its digest.
    Storing(Box<Record>, Hash),
    /// The stored share is being opened again.
    Reopening(Box<Record>, Hash),
    /// The share is being encrypted for its keepers.
    BackingUp(Box<Record>),
    /// The backup with this digest is being opened, to prove that it holds the share.
    Proving(Hash),
    /// The backup is being opened for its share.
    Restoring(Box<Record>),
}

/// An order that is under way.
pub(super) struct Life {
    job: Job,
    stage: Stage,
}

impl Job {
    /// Whether other enclaves take part.
    fn is_shared(&self) -> bool {
        self.order.spec.parties.len() > 1
    }

    /// Whether giving it up ends the ceremony.
    fn gives_shares(&self) -> bool {
        matches!(self.order.duty, Duty::Generate | Duty::Repair { .. } | Duty::Rebuild)
    }

    fn ceremony(&self) -> &Ceremony {
        &self.order.ceremony
    }

    /// Which parties try to do the duty, and which try it is.
    fn attempt(&self) -> (Subset, u32) {
        let ceremony = &self.order.ceremony;
        match &self.order.duty {
            Duty::TestSign { subset, attempt, .. } => (subset.clone(), *attempt),
            Duty::Repair { lost } => (ceremony.repairing(*lost), 1),
            Duty::Rebuild => (ceremony.rebuilding(), 1),
            Duty::Generate
            | Duty::Restore { .. }
            | Duty::Backup { .. }
            | Duty::Prove { .. }
            | Duty::Attest
            | Duty::Fault
            | Duty::Prepare
            | Duty::Retire
            | Duty::Adopt => (Subset::new(ceremony.manifest().roster.iter().copied()), 1),
        }
    }

    fn begin<S>(&self, task: super::Task<S>) -> Begin<S> {
        let spec = &self.order.spec;
        let (label, context, parties) = (spec.label, spec.context, spec.parties.clone());
        Begin { label, context, own: self.order.node, parties, task }
    }

    /// That a sealed share is to be opened.
    fn open(&self, credentials: Credentials, record: Record, blob: Vec<u8>, expected: Hash) -> Open {
        let (charter, node) = (Arc::clone(&self.order.charter), self.order.node);
        Open { charter, credentials, record, node, blob, expected }
    }
}

impl Stage {
    /// The digest of the sealed share that the store is to hand back for this ceremony.
    fn expects(&self, ceremony: &CeremonyId) -> Option<(&Record, Hash)> {
        match self {
            Self::Storing(record, blob) if record.ceremony == *ceremony => Some((record, *blob)),
            Self::Storing(..)
            | Self::Opening
            | Self::Running
            | Self::Sealing(_)
            | Self::Reopening(..)
            | Self::BackingUp(_)
            | Self::Proving(_)
            | Self::Restoring(_) => None,
        }
    }
}

fn failure(reason: String) -> SessionFailure {
    SessionFailure { reason, culprit: None, ban: None }
}

impl<S> Signer<S> {
    pub(super) fn work(&mut self, id: OrderId, work: Work<S>) {
        self.effects.push(Effect::Work(id, Box::new(work)));
    }

    /// The order whose session runs under this label.
    pub(super) fn running(&self, label: &Hash) -> Option<OrderId> {
        let named = |request| OrderId { label: *label, request };
        let mut lives = self.lives.range(named(0)..=named(u64::MAX));
        lives.find(|(_, life)| matches!(life.stage, Stage::Running)).map(|(id, _)| *id)
    }

    /// Begins what an order calls for.
    pub(super) fn take_up(&mut self, order: Order, start: Start) -> Result<(), OrderError> {
        // What is in the log is judged by the log; what is not in it yet still holds.
        self.bans.retain(|ban| !order.logged_bans.contains(ban));
        let meets = |party: &NodeIndex| order.spec.parties.contains_key(party);
        let apart = |(by, banned): &(NodeIndex, NodeIndex)| meets(by) && meets(banned);
        if order.bans.iter().any(apart) || self.bans.iter().any(apart) {
            return Err(OrderError::Banned);
        }
        // Backup duties are done as often as requested.
        if order.spec.parties.len() > 1 && !self.begun.insert(order.spec.label) {
            return Err(OrderError::StartedBefore);
        }
        info!(label = %order.spec.label, duty = ?order.duty, "session begins");
        let id = OrderId { label: order.spec.label, request: start.request };
        let credentials = start.credentials.unwrap_or_default();
        let job = Job { order, credentials, backup: start.backup };
        // A recovered share is in no store: it serves only the refresh that follows.
        let record = job.order.wallet.as_ref().or(job.ceremony().before()).map(|wallet| &wallet.record);
        let share = record.and_then(|record| self.shares.get(&record.digest()));
        let stage = match &job.order.wallet {
            Some(wallet) if share.is_none() => self.open_share(id, &job, wallet, start.blob),
            Some(_) | None => self.begin(id, &job, share),
        };
        self.go_on(id, job, stage);
        Ok(())
    }

    /// The order waits for what comes next, or is over.
    fn go_on(&mut self, id: OrderId, job: Job, stage: Option<Stage>) {
        if let Some(stage) = stage {
            self.lives.insert(id, Life { job, stage });
        }
    }

    fn open_share(&mut self, id: OrderId, job: &Job, wallet: &Wallet, blob: Vec<u8>) -> Option<Stage> {
        let node = job.order.node;
        let Some(expected) = wallet.blobs.get(&node) else {
            self.abort(id, job, &failure(format!("the certificate names no sealed share of node {node}")));
            return None;
        };
        let open = job.open(job.credentials.clone(), wallet.record.clone(), blob, *expected);
        self.work(id, Work::Open(open));
        Some(Stage::Opening)
    }

    /// Does the duty: in a session with other enclaves, or else with a backup.
    fn begin(&mut self, id: OrderId, job: &Job, share: Option<Arc<S>>) -> Option<Stage> {
        let Some(task) = task::for_duty(&job.order, share.clone()) else {
            return self.with_backup(id, job, share);
        };
        self.effects.push(Effect::Begin(id, Box::new(job.begin(task))));
        self.hand_early(id);
        Some(Stage::Running)
    }

    /// The agent hands back what it stored: it must open and be the share that was sealed.
    pub(super) fn stored(&mut self, stored: Stored) {
        let ceremony = stored.ceremony.parse::<CeremonyId>();
        let awaited = self.lives.iter_mut().find_map(|(id, life)| {
            let (record, blob) = life.stage.expects(ceremony.as_ref().ok()?)?;
            Some((*id, record.clone(), blob, life))
        });
        let Some((id, record, expected, life)) = awaited else {
            warn!(ceremony = %stored.ceremony, "the agent stored a share that was not expected");
            return;
        };
        life.stage = Stage::Reopening(Box::new(record.clone()), expected);
        let open = life.job.open(stored.credentials.unwrap_or_default(), record, stored.blob, expected);
        self.work(id, Work::Open(open));
    }

    /// Something has come of an order. News that its stage does not wait for changes nothing.
    pub(super) fn hear(&mut self, id: OrderId, news: News<S>) {
        let Some(Life { job, stage }) = self.lives.remove(&id) else { return };
        let stage = match (stage, news) {
            (Stage::Running, News::Send { to, bytes }) => {
                self.send(&id.label, to, bytes);
                Some(Stage::Running)
            }
            (Stage::Running, News::Progress(progress)) => {
                self.tell_progress(&job, progress);
                Some(Stage::Running)
            }
            (Stage::Running, News::Finished(outcome)) => self.finished(id, &job, *outcome),
            (Stage::Running, News::Failed(failure, envelopes)) => {
                self.failed(id, &job, &failure, envelopes);
                None
            }
            (Stage::Opening, News::Opened(share)) => {
                if let Some(wallet) = &job.order.wallet {
                    self.shares.keep(&wallet.record, Arc::clone(&share));
                }
                self.begin(id, &job, Some(share))
            }
            (Stage::Sealing(record), News::Sealed(blob)) => Some(self.sealed(record, blob)),
            (Stage::Reopening(record, blob), News::Opened(share)) => {
                self.shares.keep(&record, share);
                self.proven(&job, *record, blob);
                None
            }
            (Stage::BackingUp(record), News::BackedUp { whole, root }) => {
                self.backed_up(&job, &record, whole, root);
                None
            }
            (Stage::Proving(object), News::Proved(point)) => {
                self.proved(&job, &object, &point);
                None
            }
            (Stage::Restoring(record), News::Restored(share)) => {
                self.recovered(&job, &record, share);
                None
            }
            (Stage::Opening | Stage::Sealing(_) | Stage::Reopening(..), News::Undone(reason)) => {
                self.abort(id, &job, &failure(reason));
                None
            }
            (Stage::BackingUp(_) | Stage::Proving(_) | Stage::Restoring(_), News::Undone(reason)) => {
                self.refuse_backup(id, &job, &reason);
                None
            }
            (
                stage,
                News::Send { .. }
                | News::Progress(_)
                | News::Finished(_)
                | News::Failed(..)
                | News::Opened(_)
                | News::Sealed(_)
                | News::BackedUp { .. }
                | News::Proved(_)
                | News::Restored(_)
                | News::Undone(_),
            ) => {
                warn!(label = %id.label, "news of an order that does not wait for it");
                Some(stage)
            }
        };
        self.go_on(id, job, stage);
    }

    fn tell_progress(&mut self, job: &Job, progress: SessionProgress) {
        self.tell(from_enclave::Kind::Progress(message::Progress {
            ceremony: job.ceremony().manifest().ceremony.to_string(),
            label: job.order.spec.label.as_bytes().to_vec(),
            phase: progress.phase.to_owned(),
            phase_number: progress.number,
            phase_count: progress.count,
            waiting_for: progress.waiting_for.into_iter().map(u32::from).collect(),
            parties: job.order.spec.parties.keys().map(|party| u32::from(*party)).collect(),
        }));
    }

    fn finished(&mut self, id: OrderId, job: &Job, outcome: Outcome<Product<S>>) -> Option<Stage> {
        let Outcome { session, transcript, product, last_letters } = outcome;
        self.effects.push(Effect::End(id));
        self.post.finished.keep(id.label, last_letters);
        match product {
            Product::Share(new) => {
                return self.seal(id, job, &record_of(job, session, transcript, &new), *new);
            }
            Product::Repaired(share) => {
                if let Some(before) = job.ceremony().before() {
                    self.recovered(job, &before.record, Arc::from(share));
                }
            }
            Product::Helped => {}
            Product::Signature(signature) => self.signed(job, session, &signature),
        }
        None
    }

    fn failed(&mut self, id: OrderId, job: &Job, failure: &SessionFailure, envelopes: Vec<Vec<u8>>) {
        self.effects.push(Effect::End(id));
        if let Some(culprit) = failure.culprit.filter(|_| !envelopes.is_empty()) {
            let ceremony = job.ceremony().manifest().ceremony.to_string();
            let evidence = message::Evidence { ceremony, culprit: culprit.into(), envelopes };
            self.voice.keep_evidence(evidence.clone());
            self.tell(from_enclave::Kind::Evidence(evidence));
        }
        self.abort(id, job, failure);
    }

    fn signed(&mut self, job: &Job, session: Hash, signature: &Signature) {
        let Duty::TestSign { subset, attempt, input } = &job.order.duty else { return };
        let signed = TestSigned {
            node: job.order.node,
            subset: subset.clone(),
            attempt: *attempt,
            input: *input,
            session,
            r: signature.r,
            s: signature.s,
            recovery_id: signature.recovery_id,
            signature: [0; 64],
        };
        let manifest = job.ceremony().manifest();
        let said = self.voice.test_signed(&manifest.ceremony, &manifest.hash(), signed);
        self.say(said);
    }

    /// First the public outcome, which every party has; then this party's sealed share.
    fn seal(&mut self, id: OrderId, job: &Job, record: &[u8], new: NewShare<S>) -> Option<Stage> {
        let record = match Record::parse(record) {
            Ok(record) => record,
            Err(error) => {
                let reason = format!("the key generation did not give one key: {}", chain(&error));
                self.abort(id, job, &failure(reason));
                return None;
            }
        };
        let stage = Stage::Sealing(Box::new(record.clone()));
        let (charter, credentials) = (Arc::clone(&job.order.charter), job.credentials.clone());
        let seal = Seal { charter, credentials, record, node: job.order.node, share: new.share };
        self.work(id, Work::Seal(seal));
        Some(stage)
    }

    /// The agent gets the sealed share to store.
    fn sealed(&mut self, record: Box<Record>, blob: Vec<u8>) -> Stage {
        let digest = Hash::of_bytes(&blob);
        self.tell(from_enclave::Kind::Sealed(message::Sealed {
            ceremony: record.ceremony.to_string(),
            wallet: record.wallet.to_string(),
            generation: record.generation.0,
            record: record.digest().as_bytes().to_vec(),
            blob,
        }));
        Stage::Storing(record, digest)
    }

    /// The stored share has opened again: for a new key, the enclave commits; for an existing key, the share waits
    /// alongside the one in use.
    fn proven(&mut self, job: &Job, record: Record, blob: Hash) {
        let node = job.order.node;
        info!(ceremony = %record.ceremony, "share sealed, stored and opened again");
        if job.ceremony().manifest().kind.renews() {
            let said = self.voice.staged(node, &record, &blob);
            self.staged.insert(record.ceremony.clone(), (record, blob));
            self.say(said);
        } else {
            self.say_prepared(node, &record, &blob);
        }
    }

    fn abort(&mut self, id: OrderId, job: &Job, failure: &SessionFailure) {
        if !job.is_shared() {
            return self.refuse(id.request, failure.reason.clone());
        }
        if let Some(said) = self.word_of_abort(job, failure) {
            self.say(said);
        }
    }

    fn word_of_abort(&mut self, job: &Job, failure: &SessionFailure) -> Option<message::Said> {
        warn!(reason = %failure.reason, "session given up");
        self.bans.extend(failure.ban.map(|banned| (job.order.node, banned)));
        let manifest = job.ceremony().manifest();
        let (subset, attempt) = job.attempt();
        let aborted = Aborted {
            node: job.order.node,
            subset,
            attempt,
            reason: Line::lossy(&failure.reason),
            culprit: failure.culprit,
            banned: failure.ban,
            signature: [0; 64],
        };
        let said = self.voice.aborted(&manifest.ceremony, &manifest.hash(), job.gives_shares(), aborted);
        said.inspect_err(|silence| warn!(%silence, "no abort is signed")).ok()
    }

    /// A ceremony is over. Somebody may have withdrawn it while its session waits for a party that others are stalling:
    /// nothing may come of that session any more.
    pub(super) fn stop(&mut self, ceremony: &str) {
        let is_over = |life: &Life| life.job.ceremony().manifest().ceremony.as_str() == ceremony;
        for (id, Life { job, stage }) in
            self.lives.extract_if(.., |_, life| is_over(life)).collect::<Vec<_>>()
        {
            if matches!(stage, Stage::Running) {
                self.effects.push(Effect::End(id));
            }
            self.abort(id, &job, &failure("the ceremony is over".to_owned()));
        }
    }

    /// The connection has ended, and with it every order. What is said about that waits for the next connection.
    pub(super) fn give_up(&mut self) {
        let failure = failure("the link to the agent was lost".to_owned());
        for (id, Life { job, stage }) in std::mem::take(&mut self.lives) {
            if matches!(stage, Stage::Running) {
                self.effects.push(Effect::End(id));
            }
            if job.is_shared() {
                self.word_of_abort(&job, &failure);
            }
        }
        self.post = super::Post::default();
    }
}

fn record_of<S>(job: &Job, session: Hash, transcript: Hash, new: &NewShare<S>) -> Vec<u8> {
    let sharing = Sharing {
        scheme: Scheme::Dkls23Secp256k1,
        public_key: new.public_key,
        chain_code: new.chain_code,
        public_shares: new.public_shares.clone(),
        session,
        transcript,
    };
    sharing.record(job.ceremony().manifest(), &job.ceremony().approved_or_current_enclaves())
}
