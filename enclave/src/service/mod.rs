//! The enclave as a service: one connection to its agent at a time, orders in, messages and signed words
//! out.
//!
//! One task owns everything, and puts schemes and sessions together (`protocols`, `runner`). It must never act on the
//! agent's word alone (`orders`), sign both a result and an abort of one session (`voice`), or reveal a secret.

mod backups;
mod orders;
mod protocols;
mod runner;
mod sealing;
mod sessions;
mod tunnel;
mod voice;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use ceremonies::attestation::{self, AttestationError, EnclaveKeys, TrustRoot};
use ceremonies::ids::{CeremonyId, Hash, NodeIndex};
use ceremonies::text::chain;
use ceremonies::wallet::Record;
use rustls::RootCertStore;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use self::orders::Ledger;
pub use self::orders::OrderError;
use self::runner::{Job, RunningSession, SessionNews};
use self::sealing::{SealingNews, Shares};
use self::sessions::Unproven;
use self::tunnel::Tunnel;
use self::voice::Voice;
use crate::attest::{AttestError, SecurityModule};
use crate::clock::TrustedClock;
use crate::kms::{KeyError, KmsKeys};
use crate::session::{BootKeys, Finished};
use enclave_link::VERSION;
use enclave_link::message::{
    Attestation, Deliver, FromEnclave, KmsTried, Refused, ToEnclave, TryKms, Welcome, from_enclave,
    to_enclave,
};

/// Messages that may wait for the agent; beyond that, the enclave's tasks wait.
const MAX_OUTGOING: usize = 256;

/// Why an enclave cannot boot.
#[derive(Debug, Error)]
pub enum BootError {
    /// No RSA key.
    #[error("the RSA key for KMS could not be made")]
    Rsa(#[from] KeyError),
    /// The boot was cancelled.
    #[error("the boot was interrupted")]
    Interrupted,
    /// The security module does not answer.
    #[error("the security module gave no document")]
    Module(#[from] AttestError),
    /// The security module's document does not verify under this enclave's root.
    #[error("the security module's document does not verify under this enclave's trust root")]
    Document(#[from] AttestationError),
}

/// What every part of the service needs and nothing changes.
struct Core {
    keys: Arc<BootKeys>,
    kms_keys: Arc<KmsKeys>,
    module: Arc<dyn SecurityModule>,
    clock: TrustedClock,
    root: Arc<TrustRoot>,
    tls_roots: RootCertStore,
}

impl Core {
    /// A fresh document for this nonce, which also sets the clock.
    async fn attest(&self, nonce: &[u8]) -> Result<Vec<u8>, BootError> {
        let user_data = self.keys.public().encode();
        let document = self.module.attest(nonce, &user_data, self.kms_keys.spki_der()).await?;
        let read = attestation::parse_and_verify(&document, &self.root)?;
        self.clock.set(read.timestamp);
        Ok(document)
    }
}

/// A booted enclave. Its keys live as long as it does.
pub struct Enclave {
    core: Arc<Core>,
    build: String,
    ledger: Ledger,
    /// Sessions ever started: none is started twice.
    started: BTreeSet<Hash>,
    /// The peers that this enclave has banned and no log has shown yet.
    bans: BTreeSet<(NodeIndex, NodeIndex)>,
    shares: Shares,
    /// New shares that are sealed and proven alongside the ones in use, with the digests of their sealed bytes.
    staged: BTreeMap<CeremonyId, (Record, Hash)>,
    voice: Voice,
}

impl Enclave {
    /// Makes the keys and gets the time from the security module.
    ///
    /// # Errors
    /// [`BootError`]; without keys or trusted time there is no enclave.
    pub async fn boot(
        module: Arc<dyn SecurityModule>,
        root: TrustRoot,
        tls_roots: RootCertStore,
    ) -> Result<Self, BootError> {
        let keys = BootKeys::generate();
        let kms_keys =
            tokio::task::spawn_blocking(KmsKeys::generate).await.map_err(|_| BootError::Interrupted)??;
        let first = module.attest(&[], &keys.public().encode(), kms_keys.spki_der()).await?;
        let clock = TrustedClock::new(attestation::parse_and_verify(&first, &root)?.timestamp);
        let keys = Arc::new(keys);
        let voice = Voice::new(Arc::clone(&keys));
        Ok(Self {
            core: Arc::new(Core {
                keys,
                kms_keys: Arc::new(kms_keys),
                module,
                clock,
                root: Arc::new(root),
                tls_roots,
            }),
            build: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            ledger: Ledger::default(),
            started: BTreeSet::new(),
            bans: BTreeSet::new(),
            shares: Shares::default(),
            staged: BTreeMap::new(),
            voice,
        })
    }

    /// The public keys that its attestation documents vouch for.
    #[must_use]
    pub fn public_keys(&self) -> EnclaveKeys {
        self.core.keys.public()
    }

    /// Serves the agent on one connection until it ends. Sessions still running then are given up.
    ///
    /// # Errors
    /// The connection's failure; the enclave can serve another.
    pub async fn serve<S>(&mut self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut receiver, mut sender) = enclave_link::split(stream);
        let (out, mut queue) = mpsc::channel(MAX_OUTGOING);
        let (news, mut arrived) = mpsc::channel(MAX_OUTGOING);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(message) = queue.recv().await {
                match sender.send(&message).await {
                    Ok(()) => {}
                    // The agent hears nothing of it and carries on with everything else.
                    Err(enclave_link::SendError::TooLarge(error)) => warn!(%error, "not sent to the agent"),
                    Err(enclave_link::SendError::Link(error)) => return Err(error),
                }
            }
            Ok::<(), io::Error>(())
        });
        let mut connection = Connection {
            enclave: self,
            tunnel: Tunnel::new(out.clone()),
            out,
            news,
            open: BTreeMap::new(),
            running: BTreeMap::new(),
            finished: Finished::default(),
            waiting: BTreeMap::new(),
            early: VecDeque::new(),
            trials: JoinSet::new(),
        };
        connection.welcome().await;
        // Reading has a task of its own: a receive dropped half way would lose the beginning of a frame.
        let (orders, mut ordered) = mpsc::channel(MAX_OUTGOING);
        tasks.spawn(async move {
            while let Some(message) = receiver.receive::<ToEnclave>().await? {
                if orders.send(message).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        let ended = loop {
            tokio::select! {
                order = ordered.recv() => match order {
                    Some(ToEnclave { kind: Some(kind) }) => connection.order(kind).await,
                    Some(ToEnclave { kind: None }) => {
                        break Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown order"));
                    }
                    None => break Ok(()),
                },
                Some(news) = arrived.recv() => connection.hear(news).await,
                Some(Ok(Err(error))) = tasks.join_next() => break Err(error),
            }
        };
        connection.give_up("the link to the agent was lost");
        ended
    }
}

/// What the service's own tasks report to it.
enum News {
    Session(SessionNews),
    Sealing(SealingNews),
}

/// One connection to the agent, and the sessions it carries.
struct Connection<'a> {
    enclave: &'a mut Enclave,
    tunnel: Tunnel,
    out: mpsc::Sender<FromEnclave>,
    news: mpsc::Sender<News>,
    /// What has been ordered and has not yet produced an event for the log.
    open: BTreeMap<Hash, Arc<Job>>,
    running: BTreeMap<Hash, RunningSession>,
    finished: Finished,
    /// Key generations whose sealed share the agent has been given to store.
    waiting: BTreeMap<CeremonyId, Unproven>,
    early: VecDeque<Deliver>,
    /// The running trial of the KMS; it ends with the connection.
    trials: JoinSet<()>,
}

impl Connection<'_> {
    async fn send(&self, kind: from_enclave::Kind) {
        // A closed channel means a lost connection, which the loop in `serve` sees for itself.
        let _ = self.out.send(FromEnclave { kind: Some(kind) }).await;
    }

    async fn welcome(&self) {
        let keys = self.enclave.public_keys();
        self.send(from_enclave::Kind::Welcome(Welcome {
            version: VERSION,
            build: self.enclave.build.clone(),
            identity: keys.identity.to_vec(),
            sealing: keys.sealing.to_vec(),
            said: self.enclave.voice.said().collect(),
        }))
        .await;
        for evidence in self.enclave.voice.evidence() {
            self.send(from_enclave::Kind::Evidence(evidence)).await;
        }
    }

    async fn refuse(&self, request: u64, reason: &dyn std::error::Error) {
        let reason = chain(reason);
        warn!(%reason, "refused");
        self.send(from_enclave::Kind::Refused(Refused { request, reason })).await;
    }

    /// Answers when the KMS has answered, which may take until its deadline; everything else goes on in the meantime.
    fn try_kms(&mut self, order: TryKms) {
        // One at a time: an agent that asks again has given up on the previous one.
        self.trials = JoinSet::new();
        let (core, tunnel, out) = (Arc::clone(&self.enclave.core), self.tunnel.clone(), self.out.clone());
        self.trials.spawn(async move {
            let request = order.request;
            let tried = sealing::try_kms(&core, &tunnel, order).await;
            let trouble = tried.err().map(|error| chain(&error)).unwrap_or_default();
            let tried = from_enclave::Kind::KmsTried(KmsTried { request, trouble });
            // A closed channel means a lost connection, so nobody waits.
            let _ = out.send(FromEnclave { kind: Some(tried) }).await;
        });
    }

    async fn order(&mut self, kind: to_enclave::Kind) {
        match kind {
            to_enclave::Kind::Attest(attest) => match self.enclave.core.attest(&attest.nonce).await {
                Ok(document) => {
                    let request = attest.request;
                    self.send(from_enclave::Kind::Attestation(Attestation { request, document })).await;
                }
                Err(error) => self.refuse(attest.request, &error).await,
            },
            to_enclave::Kind::Start(start) => {
                let request = start.request;
                if let Err(error) = self.start(start).await {
                    self.refuse(request, &error).await;
                }
            }
            to_enclave::Kind::Deliver(deliver) => self.deliver(deliver).await,
            to_enclave::Kind::Stored(stored) => self.stored(stored),
            to_enclave::Kind::TryKms(order) => self.try_kms(order),
            to_enclave::Kind::StreamData(data) => self.tunnel.deliver(data),
            to_enclave::Kind::StreamClosed(closed) => self.tunnel.closed(closed.stream),
        }
    }
}
