//! From an order to an event for the log: starting sessions, delivering their messages, sealing and proving new shares,
//! and giving up.

use std::sync::Arc;

use ceremonies::ceremony::{Ceremony, Duty};
use ceremonies::entry::{Aborted, TestSigned};
use ceremonies::ids::{Hash, Line, NodeIndex};
use ceremonies::subsets::Subset;
use ceremonies::text::chain;
use ceremonies::wallet::Record;
use ceremonies::wire::log;
use prost::Message;
use tracing::{info, warn};

use super::orders::{Due, Order, OrderError};
use super::protocols;
use super::runner::{self, Job, NewsKind, SessionNews};
use super::sealing::{self, SealingError, SealingNews};
use super::{Connection, News};
use crate::scheme::dkls23::{Factory, KeyShare, NewShare, Product, Signature};
use crate::session::{Millis, Outcome, Session, SessionFailure, SessionPlan};
use enclave_link::message::{self, Deliver, Start, Stored, from_enclave};

/// How long the parties of a session may take to be ready: their agents learn of it through the log.
const BARRIER_MS: Millis = 30_000;
/// Session messages that may wait for their session to be ordered, since other nodes can be quicker. They are hellos,
/// one from every peer in a handful of sessions; a lost hello is repeated.
const MAX_EARLY: usize = 64;
/// Largest early message in bytes: a hello has a few hundred.
const MAX_EARLY_BYTES: usize = 4096;

/// A new share that is sealed and must still come back from the store.
pub(super) struct Unproven {
    job: Arc<Job>,
    record: Box<Record>,
    blob: Hash,
}

/// Whether giving the session up ends the ceremony.
fn gives_shares(job: &Job) -> bool {
    matches!(job.order.duty, Duty::Generate | Duty::Repair { .. } | Duty::Rebuild)
}

impl Connection<'_> {
    /// Follows an order, if the log it comes with calls for it.
    pub(super) async fn start(&mut self, start: Start) -> Result<(), OrderError> {
        let core = Arc::clone(&self.enclave.core);
        let ledger = &mut self.enclave.ledger;
        match Order::read(&start, ledger, &core.root, &core.keys.public(), core.clock.now())? {
            Due::Session(order) => self.start_session(*order, start).await,
            Due::Prepare(node, ceremony) => self.prepare(node, &ceremony).await,
            Due::Retire(node, wallet) => {
                self.enclave.shares.forget_before(&wallet.record);
                let said = self.enclave.voice.retired(node, &wallet.record);
                self.send(from_enclave::Kind::Said(said)).await;
                Ok(())
            }
        }
    }

    async fn start_session(&mut self, order: Order, start: Start) -> Result<(), OrderError> {
        // What is in the log is judged by the log; what is not in it yet still holds.
        self.enclave.bans.retain(|ban| !order.logged_bans.contains(ban));
        let meets = |party: &NodeIndex| order.spec.parties.contains_key(party);
        let apart = |(by, banned): &(NodeIndex, NodeIndex)| meets(by) && meets(banned);
        if order.bans.iter().any(apart) || self.enclave.bans.iter().any(apart) {
            return Err(OrderError::Banned);
        }
        // Backup duties are done as often as requested.
        if order.spec.parties.len() > 1 && !self.enclave.started.insert(order.spec.label) {
            return Err(OrderError::StartedBefore);
        }
        info!(label = %order.spec.label, duty = ?order.duty, "session begins");
        let credentials = start.credentials.unwrap_or_default();
        let job = Arc::new(Job { order, credentials, backup: start.backup, request: start.request });
        self.open.insert(job.order.spec.label, Arc::clone(&job));
        // A recovered share is in no store: it serves only the refresh that follows.
        let record = job.order.wallet.as_ref().or(job.order.ceremony.before()).map(|wallet| &wallet.record);
        let open = record.and_then(|record| self.enclave.shares.get(&record.digest()));
        match &job.order.wallet {
            Some(wallet) if open.is_none() => {
                let (record, blob) = (wallet.record.clone(), wallet.blobs.get(&job.order.node));
                self.open_share(&job, record, blob, start.blob);
            }
            Some(_) | None => self.begin(&job, open).await,
        }
        Ok(())
    }

    /// Signs the certificate for a staged share, if this enclave holds it.
    async fn prepare(&mut self, node: NodeIndex, ceremony: &Ceremony) -> Result<(), OrderError> {
        let id = &ceremony.manifest().ceremony;
        let staged = ceremony.staged_wallet().map(|wallet| wallet.record.digest());
        let own = self.enclave.staged.get(id).filter(|(record, _)| Some(record.digest()) == staged);
        let Some((record, blob)) = own.cloned() else { return Err(OrderError::NotStaged(id.clone())) };
        match self.enclave.voice.prepared(node, &record, &blob) {
            Ok(said) => {
                self.enclave.staged.remove(id);
                self.send(from_enclave::Kind::Said(said)).await;
            }
            Err(silence) => warn!(%silence, "no result is signed"),
        }
        Ok(())
    }

    fn open_share(&self, job: &Arc<Job>, record: Record, expected: Option<&Hash>, blob: Vec<u8>) {
        let (core, tunnel) = (Arc::clone(&self.enclave.core), self.tunnel.clone());
        let (job, news, expected) = (Arc::clone(job), self.news.clone(), expected.copied());
        tokio::spawn(async move {
            let node = job.order.node;
            let opened = match expected {
                Some(expected) => {
                    let sealed = sealing::SealedShare { record: &record, node, blob, expected: &expected };
                    sealing::open(&core, &tunnel, &job.order.charter, &job.credentials, sealed).await
                }
                None => Err(SealingError::NoBlob(node)),
            };
            let opened = match opened {
                Ok(share) => SealingNews::Opened { job, share: Arc::new(share) },
                Err(error) => SealingNews::Failed { job, error },
            };
            // The connection may be gone, and with it whoever would care.
            let _ = news.send(News::Sealing(opened)).await;
        });
    }

    /// Does the duty: in a session with other enclaves, or else with a backup.
    async fn begin(&mut self, job: &Arc<Job>, share: Option<Arc<KeyShare>>) {
        match protocols::for_duty(&job.order, share.clone()) {
            Some((round_ms, factory)) => self.run(job, round_ms, factory),
            None => self.with_backup(job, share).await,
        }
    }

    fn run(&mut self, job: &Arc<Job>, round_ms: Millis, factory: Factory) {
        let spec = &job.order.spec;
        let plan = SessionPlan {
            label: spec.label,
            context: spec.context,
            own: job.order.node,
            parties: spec.parties.clone(),
            barrier_ms: BARRIER_MS,
            round_ms,
        };
        let keys = Arc::clone(&self.enclave.core.keys);
        let session = Session::new(plan, keys, rand::random(), factory);
        let running = runner::run(job, session, self.news.clone());
        let label = spec.label;
        self.early.retain(|message| {
            let of_this = message.label == label.as_bytes();
            if of_this {
                running.deliver(message.payload.clone());
            }
            !of_this
        });
        self.running.insert(label, running);
    }

    pub(super) async fn deliver(&mut self, message: Deliver) {
        let Ok(label) = Hash::try_from(message.label.as_slice()) else { return };
        if let Some(session) = self.running.get(&label) {
            session.deliver(message.payload);
        } else if let Ok(from) = NodeIndex::try_from(message.from)
            && let Some(envelope) = self.finished.answer(&label, from)
        {
            self.say(&label, from, envelope).await;
        } else if message.payload.len() <= MAX_EARLY_BYTES {
            if self.early.len() >= MAX_EARLY {
                self.early.pop_front();
            }
            self.early.push_back(message);
        }
    }

    async fn say(&self, label: &Hash, to: NodeIndex, envelope: Vec<u8>) {
        let send = message::Send { label: label.as_bytes().to_vec(), to: to.into(), payload: envelope };
        self.send(from_enclave::Kind::Send(send)).await;
    }

    /// The agent hands back what it stored: it must open and be the share that was sealed.
    pub(super) fn stored(&mut self, stored: Stored) {
        let waiting = stored.ceremony.parse().ok().and_then(|ceremony| self.waiting.remove(&ceremony));
        let Some(Unproven { job, record, blob: expected }) = waiting else {
            warn!(ceremony = %stored.ceremony, "the agent stored a share that was not expected");
            return;
        };
        let (core, tunnel, news) = (Arc::clone(&self.enclave.core), self.tunnel.clone(), self.news.clone());
        tokio::spawn(async move {
            let credentials = stored.credentials.unwrap_or_default();
            let sealed = sealing::SealedShare {
                record: &record,
                node: job.order.node,
                blob: stored.blob,
                expected: &expected,
            };
            let opened = sealing::open(&core, &tunnel, &job.order.charter, &credentials, sealed).await;
            let reopened = match opened {
                Ok(share) => SealingNews::Reopened { job, record, blob: expected, share: Arc::new(share) },
                Err(error) => SealingNews::Failed { job, error },
            };
            let _ = news.send(News::Sealing(reopened)).await;
        });
    }

    pub(super) async fn hear(&mut self, news: News) {
        match news {
            News::Session(SessionNews { job, kind }) => self.session_news(job, kind).await,
            News::Sealing(news) => self.sealing_news(news).await,
        }
    }

    async fn session_news(&mut self, job: Arc<Job>, kind: NewsKind) {
        let label = job.order.spec.label;
        match kind {
            NewsKind::Send { to, bytes } => self.say(&label, to, bytes).await,
            NewsKind::Progress(progress) => {
                self.send(from_enclave::Kind::Progress(message::Progress {
                    ceremony: job.order.ceremony.manifest().ceremony.to_string(),
                    label: label.as_bytes().to_vec(),
                    phase: progress.phase.to_owned(),
                    phase_number: progress.number,
                    phase_count: progress.count,
                    waiting_for: progress.waiting_for.into_iter().map(u32::from).collect(),
                    parties: job.order.spec.parties.keys().map(|party| u32::from(*party)).collect(),
                }))
                .await;
            }
            NewsKind::Finished(outcome) => {
                self.running.remove(&label);
                let Outcome { session, transcript, product, last_letters } = *outcome;
                self.finished.keep(label, last_letters);
                match product {
                    Product::Share(share) => self.seal_new(job, session, transcript, *share).await,
                    Product::Repaired(share) => self.recovered(&job, *share).await,
                    Product::Helped => drop(self.open.remove(&label)),
                    Product::Signature(signature) => self.signed(&job, session, &signature).await,
                }
            }
            NewsKind::Failed(failure, envelopes) => {
                self.running.remove(&label);
                if let Some(culprit) = failure.culprit.filter(|_| !envelopes.is_empty()) {
                    let ceremony = job.order.ceremony.manifest().ceremony.to_string();
                    let evidence = message::Evidence { ceremony, culprit: culprit.into(), envelopes };
                    self.enclave.voice.keep_evidence(evidence.clone());
                    self.send(from_enclave::Kind::Evidence(evidence)).await;
                }
                self.abort(&job, &failure).await;
            }
        }
    }

    /// The lost share has been restored. It is kept in memory for the refresh that follows.
    async fn recovered(&mut self, job: &Arc<Job>, share: KeyShare) {
        self.open.remove(&job.order.spec.label);
        let ceremony = &job.order.ceremony;
        let Some(before) = ceremony.before() else { return };
        self.enclave.shares.keep(&before.record, Arc::new(share));
        let manifest = ceremony.manifest();
        let said = self.enclave.voice.recovered(&manifest.ceremony, &manifest.hash(), job.order.node);
        self.send(from_enclave::Kind::Said(said)).await;
    }

    async fn signed(&mut self, job: &Arc<Job>, session: Hash, signature: &Signature) {
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
        self.open.remove(&job.order.spec.label);
        let manifest = job.order.ceremony.manifest();
        let said = self.enclave.voice.test_signed(&manifest.ceremony, &manifest.hash(), signed);
        self.send(from_enclave::Kind::Said(said)).await;
    }

    /// First the public outcome, which every party has; then this party's sealed share.
    async fn seal_new(&mut self, job: Arc<Job>, session: Hash, transcript: Hash, new: NewShare) {
        let record = record_of(&job, session, transcript, &new);
        let share = new.share.encode();
        let (record, share) = match (Record::parse(&record), share) {
            (Ok(record), Ok(share)) => (record, share),
            (Err(error), _) => {
                let reason = format!("the key generation did not give one key: {}", chain(&error));
                return self.abort(&job, &SessionFailure { reason, culprit: None, ban: None }).await;
            }
            (_, Err(error)) => {
                let reason = chain(&error);
                return self.abort(&job, &SessionFailure { reason, culprit: None, ban: None }).await;
            }
        };
        let (core, tunnel, news) = (Arc::clone(&self.enclave.core), self.tunnel.clone(), self.news.clone());
        tokio::spawn(async move {
            let sealed = sealing::seal(&core, &tunnel, &job, &share, &record).await;
            let sealed = match sealed {
                Ok(blob) => SealingNews::Sealed { job, record: Box::new(record), blob },
                Err(error) => SealingNews::Failed { job, error },
            };
            let _ = news.send(News::Sealing(sealed)).await;
        });
    }

    async fn sealing_news(&mut self, news: SealingNews) {
        match news {
            SealingNews::Sealed { job, record, blob } => {
                let sealed = message::Sealed {
                    ceremony: record.ceremony.to_string(),
                    wallet: record.wallet.to_string(),
                    generation: record.generation.0,
                    record: record.digest().as_bytes().to_vec(),
                    blob: blob.bytes().to_vec(),
                };
                let unproven = Unproven { job, blob: blob.digest(), record };
                self.waiting.insert(unproven.record.ceremony.clone(), unproven);
                self.send(from_enclave::Kind::Sealed(sealed)).await;
            }
            SealingNews::Reopened { job, record, blob, share } => {
                self.open.remove(&job.order.spec.label);
                self.enclave.shares.keep(&record, share);
                self.proven(&job, *record, blob).await;
            }
            SealingNews::Opened { job, share } => {
                if let Some(wallet) = &job.order.wallet {
                    self.enclave.shares.keep(&wallet.record, Arc::clone(&share));
                }
                self.begin(&job, Some(share)).await;
            }
            SealingNews::Failed { job, error } => {
                let failure = SessionFailure { reason: chain(&error), culprit: None, ban: None };
                self.abort(&job, &failure).await;
            }
        }
    }

    /// The stored share has opened again: for a new key, the enclave commits; for an existing key, the share waits
    /// alongside the one in use.
    async fn proven(&mut self, job: &Job, record: Record, blob: Hash) {
        let node = job.order.node;
        let said = if job.order.ceremony.manifest().kind.renews() {
            let said = self.enclave.voice.staged(node, &record, &blob);
            self.enclave.staged.insert(record.ceremony.clone(), (record, blob));
            said
        } else {
            match self.enclave.voice.prepared(node, &record, &blob) {
                Ok(said) => said,
                Err(silence) => return warn!(%silence, "no result is signed"),
            }
        };
        info!(ceremony = %job.order.ceremony.manifest().ceremony, "share sealed, stored and opened again");
        self.send(from_enclave::Kind::Said(said)).await;
    }

    async fn abort(&mut self, job: &Arc<Job>, failure: &SessionFailure) {
        if job.order.spec.parties.len() == 1 {
            self.open.remove(&job.order.spec.label);
            return self.refuse_for(job.request, failure.reason.clone()).await;
        }
        if let Some(said) = self.word_of_abort(job, failure) {
            self.send(from_enclave::Kind::Said(said)).await;
        }
    }

    fn word_of_abort(&mut self, job: &Job, failure: &SessionFailure) -> Option<message::Said> {
        warn!(reason = %failure.reason, "session given up");
        self.open.remove(&job.order.spec.label);
        self.enclave.bans.extend(failure.ban.map(|banned| (job.order.node, banned)));
        let manifest = job.order.ceremony.manifest();
        let (subset, attempt) = match &job.order.duty {
            Duty::TestSign { subset, attempt, .. } => (subset.clone(), *attempt),
            Duty::Repair { lost } => (job.order.ceremony.repairing(*lost), 1),
            Duty::Rebuild => (job.order.ceremony.rebuilding(), 1),
            _ => (Subset::new(manifest.roster.iter().copied()), 1),
        };
        let aborted = Aborted {
            node: job.order.node,
            subset,
            attempt,
            reason: Line::lossy(&failure.reason),
            culprit: failure.culprit,
            banned: failure.ban,
            signature: [0; 64],
        };
        let (ceremony, manifest) = (manifest.ceremony.clone(), manifest.hash());
        match self.enclave.voice.aborted(&ceremony, &manifest, gives_shares(job), aborted) {
            Ok(said) => Some(said),
            Err(silence) => {
                warn!(%silence, "no abort is signed");
                None
            }
        }
    }

    /// Gives up every running session. What is said about that waits for the next connection.
    pub(super) fn give_up(&mut self, reason: &str) {
        let failure = SessionFailure { reason: reason.to_owned(), culprit: None, ban: None };
        self.running.clear();
        let sessions = self.open.values().filter(|job| job.order.spec.parties.len() > 1);
        for job in sessions.cloned().collect::<Vec<_>>() {
            self.word_of_abort(&job, &failure);
        }
    }
}

fn record_of(job: &Job, session: Hash, transcript: Hash, new: &NewShare) -> Vec<u8> {
    let manifest = job.order.ceremony.manifest();
    log::GenerationRecord {
        version: ceremonies::wire::VERSION,
        cluster: manifest.cluster.to_string(),
        ceremony: manifest.ceremony.to_string(),
        manifest: manifest.hash().as_bytes().to_vec(),
        wallet: manifest.wallet.to_string(),
        generation: manifest.generation.0,
        threshold: manifest.threshold.into(),
        public_key: new.public_key.as_bytes().to_vec(),
        chain_code: new.chain_code.as_bytes().to_vec(),
        public_shares: new
            .public_shares
            .iter()
            .map(|(node, point)| log::PublicShare { node: (*node).into(), point: point.as_bytes().to_vec() })
            .collect(),
        session: session.as_bytes().to_vec(),
        transcript: transcript.as_bytes().to_vec(),
        enclaves: job.order.ceremony.approved_or_current_enclaves().as_bytes().to_vec(),
    }
    .encode_to_vec()
}
