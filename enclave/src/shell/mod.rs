//! What runs the signer in an enclave: one connection to its agent at a time, sessions on threads of their own, the KMS
//! and the security module over the agent's link, and the clock.
//!
//! One task feeds the signer and does what it wants done, in that order. It decides nothing: which order is followed, what
//! is signed and what is kept are the signer's to say. It must never reveal a secret.

mod backups;
mod protocols;
mod runner;
mod sealing;
mod tunnel;
mod work;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ceremonies::attestation::{self, AttestationError, EnclaveKeys, TrustRoot};
use ceremonies::text::chain;
use rustls::RootCertStore;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use self::runner::RunningSession;
use self::tunnel::Tunnel;
use crate::attest::{AttestError, SecurityModule};
use crate::clock::TrustedClock;
use crate::kms::{KeyError, KmsKeys};
use crate::scheme::dkls23::KeyShare;
use crate::session::BootKeys;
use crate::signer::{Effect, Input, News, OrderId, Signer, Work};
use enclave_link::message::{
    Attest, Attestation, FromEnclave, KmsTried, Refused, ToEnclave, TryKms, from_enclave, to_enclave,
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

/// What every part of the shell needs and nothing changes.
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
    signer: Signer<KeyShare>,
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
        let (keys, root) = (Arc::new(keys), Arc::new(root));
        let signer = Signer::new(Arc::clone(&keys), Arc::clone(&root));
        let kms_keys = Arc::new(kms_keys);
        Ok(Self { core: Arc::new(Core { keys, kms_keys, module, clock, root, tls_roots }), signer })
    }

    /// The public keys that its attestation documents vouch for.
    #[must_use]
    pub fn public_keys(&self) -> EnclaveKeys {
        self.signer.public_keys()
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
            running: BTreeMap::new(),
            trials: JoinSet::new(),
        };
        connection.feed(Input::Connected).await;
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
                Some((id, news)) = arrived.recv() => connection.feed(Input::News(id, news)).await,
                Some(Ok(Err(error))) = tasks.join_next() => break Err(error),
            }
        };
        connection.feed(Input::Lost).await;
        ended
    }
}

/// One connection to the agent, and the sessions it carries.
struct Connection<'a> {
    enclave: &'a mut Enclave,
    tunnel: Tunnel,
    out: mpsc::Sender<FromEnclave>,
    news: mpsc::Sender<(OrderId, News<KeyShare>)>,
    running: BTreeMap<OrderId, RunningSession>,
    /// The running trial of the KMS; it ends with the connection.
    trials: JoinSet<()>,
}

impl Connection<'_> {
    async fn send(&self, kind: from_enclave::Kind) {
        // A closed channel means a lost connection, which the loop in `serve` sees for itself.
        let _ = self.out.send(FromEnclave { kind: Some(kind) }).await;
    }

    /// Tells the signer what happened, and does what it wants done.
    async fn feed(&mut self, input: Input<KeyShare>) {
        let now = self.enclave.core.clock.now();
        for effect in self.enclave.signer.handle(input, now) {
            self.perform(effect).await;
        }
    }

    async fn perform(&mut self, effect: Effect<KeyShare>) {
        match effect {
            Effect::Tell(kind) => self.send(kind).await,
            Effect::Begin(id, begin) => {
                let session = protocols::session(*begin, Arc::clone(&self.enclave.core.keys));
                self.running.insert(id, runner::run(id, session, self.news.clone()));
            }
            Effect::Hand(id, message) => {
                if let Some(session) = self.running.get(&id) {
                    session.deliver(message);
                }
            }
            Effect::End(id) => drop(self.running.remove(&id)),
            Effect::Work(id, work) => self.work(id, *work),
        }
    }

    fn work(&self, id: OrderId, work: Work<KeyShare>) {
        let (core, tunnel, news) = (Arc::clone(&self.enclave.core), self.tunnel.clone(), self.news.clone());
        tokio::spawn(async move {
            let done = work::perform(&core, &tunnel, work).await;
            // The connection may be gone, and with it whoever would care.
            let _ = news.send((id, done)).await;
        });
    }

    async fn attest(&self, order: Attest) {
        let request = order.request;
        let answer = match self.enclave.core.attest(&order.nonce).await {
            Ok(document) => from_enclave::Kind::Attestation(Attestation { request, document }),
            Err(error) => {
                let reason = chain(&error);
                warn!(%reason, "no attestation");
                from_enclave::Kind::Refused(Refused { request, reason })
            }
        };
        self.send(answer).await;
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
            to_enclave::Kind::Attest(order) => self.attest(order).await,
            to_enclave::Kind::Start(start) => self.feed(Input::Start(Box::new(start))).await,
            to_enclave::Kind::Deliver(message) => self.feed(Input::Deliver(message)).await,
            to_enclave::Kind::Stored(stored) => self.feed(Input::Stored(stored)).await,
            to_enclave::Kind::Stop(stop) => self.feed(Input::Stop(stop.ceremony)).await,
            to_enclave::Kind::TryKms(order) => self.try_kms(order),
            to_enclave::Kind::StreamData(data) => self.tunnel.deliver(data),
            to_enclave::Kind::StreamClosed(closed) => self.tunnel.closed(closed.stream),
        }
    }
}
