//! From an order to a word for the log: starting sessions, delivering their messages, sealing and proving
//! new shares, and giving up.

use std::sync::Arc;

use ceremonies::ceremony::{Duty, test_digest};
use ceremonies::entry::{Aborted, TestSigned};
use ceremonies::ids::{Hash, Line, NodeIndex};
use ceremonies::subsets::Subset;
use ceremonies::wallet::Record;
use ceremonies::wire::log;
use prost::Message;
use tracing::{info, warn};

use super::orders::{Order, OrderError};
use super::runner::{self, Job, NewsKind, SessionNews};
use super::sealing::{self, SealingError, SealingNews};
use super::{Connection, News, chain};
use crate::session::{
    Factory, KeyGeneration, KeyShare, Millis, NewShare, Outcome, Product, Session, SessionFailure,
    SessionPlan, Signature, Signing,
};
use crate::wire::link::{self, Deliver, Start, Stored, from_enclave};

/// How long the parties of a session may take to be ready: agents learn of it through the log.
const BARRIER_MS: Millis = 30_000;
/// How long a round of a key generation may take: its heaviest phase takes a second natively and half a
/// minute in an emulated machine that shares two cores with four others.
const GENERATION_ROUND_MS: Millis = 120_000;
/// How long a round of a signature may take.
const SIGNATURE_ROUND_MS: Millis = 30_000;
/// Session messages that may wait for their session to be ordered: the other nodes can be quicker. They
/// are hellos, one of every peer in a handful of sessions; a hello that is lost is said again.
const MAX_EARLY: usize = 64;
/// Largest early message in bytes: a hello has a few hundred.
const MAX_EARLY_BYTES: usize = 4096;

/// A new share that is sealed and has yet to come back from the store.
pub(super) struct Unproven {
    job: Arc<Job>,
    record: Box<Record>,
    blob: Hash,
}

fn is_generation(job: &Job) -> bool {
    job.order.duty == Duty::Generate
}

impl Connection<'_> {
    /// Follows an order, if the log it comes with calls for it.
    pub(super) fn start(&mut self, start: Start) -> Result<(), OrderError> {
        let core = Arc::clone(&self.enclave.core);
        let ledger = &mut self.enclave.ledger;
        let order = Order::read(&start, ledger, &core.root, &core.keys.public(), core.clock.now())?;
        self.enclave.bans.extend(&order.bans);
        let meets = |party: &NodeIndex| order.spec.parties.contains_key(party);
        if self.enclave.bans.iter().any(|(by, banned)| meets(by) && meets(banned)) {
            return Err(OrderError::Banned);
        }
        if !self.enclave.started.insert(order.spec.label) {
            return Err(OrderError::StartedBefore);
        }
        info!(label = %order.spec.label, duty = ?order.duty, "session begins");
        let job = Arc::new(Job { order, credentials: start.credentials.unwrap_or_default() });
        self.open.insert(job.order.spec.label, Arc::clone(&job));
        match &job.order.wallet {
            Some(wallet) if !is_generation(&job) => {
                let record = wallet.record.clone();
                match self.enclave.shares.get(&record.digest()) {
                    Some(share) => self.sign(&job, share),
                    None => self.open_share(&job, record, wallet.blobs.get(&job.order.node), start.blob),
                }
            }
            Some(_) | None => self.generate(&job),
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

    fn generate(&mut self, job: &Arc<Job>) {
        let order = &job.order;
        let own = order.node;
        let parties: Vec<NodeIndex> = order.spec.parties.keys().copied().collect();
        let threshold = order.spec.threshold;
        let factory: Factory =
            Box::new(move |session| Ok(Box::new(KeyGeneration::new(own, parties, threshold, session)?)));
        self.run(job, GENERATION_ROUND_MS, factory);
    }

    fn sign(&mut self, job: &Arc<Job>, share: Arc<KeyShare>) {
        let order = &job.order;
        let (Some(wallet), Duty::TestSign { subset, attempt }) = (&order.wallet, &order.duty) else { return };
        let record = &wallet.record;
        let digest = test_digest(&order.ceremony.manifest().hash(), &record.digest(), subset, *attempt);
        let (own, parties, key) = (order.node, subset.parties().to_vec(), record.public_key);
        let factory: Factory =
            Box::new(move |session| Ok(Box::new(Signing::new(share, own, &parties, key, digest, session)?)));
        self.run(job, SIGNATURE_ROUND_MS, factory);
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
        let send = link::Send { label: label.as_bytes().to_vec(), to: to.into(), payload: envelope };
        self.send(from_enclave::Kind::Send(send)).await;
    }

    /// The agent hands back what it stored: it must open and be the share that was sealed.
    pub(super) fn stored(&mut self, stored: Stored) {
        let waiting = stored.ceremony.parse().ok().and_then(|ceremony| self.waiting.remove(&ceremony));
        let Some(Unproven { job, record, blob: expected }) = waiting else {
            warn!(ceremony = %stored.ceremony, "a stored share that was not waited for");
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
                self.send(from_enclave::Kind::Progress(link::Progress {
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
                    Product::Signature(signature) => self.signed(&job, session, &signature).await,
                }
            }
            NewsKind::Failed(failure, envelopes) => {
                self.running.remove(&label);
                if let Some(culprit) = failure.culprit.filter(|_| !envelopes.is_empty()) {
                    let ceremony = job.order.ceremony.manifest().ceremony.to_string();
                    let evidence = link::Evidence { ceremony, culprit: culprit.into(), envelopes };
                    self.enclave.voice.keep_evidence(evidence.clone());
                    self.send(from_enclave::Kind::Evidence(evidence)).await;
                }
                self.abort(&job, &failure).await;
            }
        }
    }

    async fn signed(&mut self, job: &Arc<Job>, session: Hash, signature: &Signature) {
        let Duty::TestSign { subset, attempt } = &job.order.duty else { return };
        let signed = TestSigned {
            node: job.order.node,
            subset: subset.clone(),
            attempt: *attempt,
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

    /// The public outcome as every party has it, then this party's share under seal.
    async fn seal_new(&mut self, job: Arc<Job>, session: Hash, transcript: Hash, new: NewShare) {
        let record = record_of(&job, session, transcript, &new);
        let share = new.share.encode();
        let (record, share) = match (Record::parse(&record), share) {
            (Ok(record), Ok(share)) => (record, share),
            (Err(error), _) => {
                let reason = format!("the key generation gave no one key: {}", chain(&error));
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
                let sealed = link::Sealed {
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
                match self.enclave.voice.prepared(job.order.node, &record, &blob) {
                    Ok(said) => {
                        info!(ceremony = %record.ceremony, "share sealed, stored and opened again");
                        self.enclave.shares.keep(record.digest(), share);
                        self.send(from_enclave::Kind::Said(said)).await;
                    }
                    Err(silence) => warn!(%silence, "no result is signed"),
                }
            }
            SealingNews::Opened { job, share } => {
                if let Some(wallet) = &job.order.wallet {
                    self.enclave.shares.keep(wallet.record.digest(), Arc::clone(&share));
                }
                self.sign(&job, share);
            }
            SealingNews::Failed { job, error } => {
                let failure = SessionFailure { reason: chain(&error), culprit: None, ban: None };
                self.abort(&job, &failure).await;
            }
        }
    }

    async fn abort(&mut self, job: &Arc<Job>, failure: &SessionFailure) {
        if let Some(said) = self.word_of_abort(job, failure) {
            self.send(from_enclave::Kind::Said(said)).await;
        }
    }

    fn word_of_abort(&mut self, job: &Job, failure: &SessionFailure) -> Option<link::Said> {
        warn!(reason = %failure.reason, "session given up");
        self.open.remove(&job.order.spec.label);
        self.enclave.bans.extend(failure.ban.map(|banned| (job.order.node, banned)));
        let manifest = job.order.ceremony.manifest();
        let (subset, attempt) = match &job.order.duty {
            Duty::TestSign { subset, attempt } => (subset.clone(), *attempt),
            Duty::Generate | Duty::Attest | Duty::Adopt | Duty::Fault => {
                (Subset::new(manifest.roster.iter().copied()), 1)
            }
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
        match self.enclave.voice.aborted(&ceremony, &manifest, is_generation(job), aborted) {
            Ok(said) => Some(said),
            Err(silence) => {
                warn!(%silence, "no abort is signed");
                None
            }
        }
    }

    /// Gives up everything that runs. What is said of it waits for the next connection.
    pub(super) fn give_up(&mut self, reason: &str) {
        let failure = SessionFailure { reason: reason.to_owned(), culprit: None, ban: None };
        self.running.clear();
        for job in self.open.values().cloned().collect::<Vec<_>>() {
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
