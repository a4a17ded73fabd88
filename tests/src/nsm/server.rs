//! One enclave's security module, on a unix socket.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use bytes::Bytes;
use ceremonies::attestation::{MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, Measurement};
use ceremonies::ids::UnixMillis;
use futures_util::{SinkExt as _, StreamExt as _};
use lab_enclave::{Answer, DEADLINE, MAX_ANSWER, MAX_REQUEST, Request, codec};
use prost::Message as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::codec::Framed;
use tracing::warn;

use super::{Clock, DocumentSpec, LabRoot};

/// Requests answered at a time; an enclave sends one after the other.
const MAX_CONNECTIONS: usize = 16;

/// A running security module of one enclave. It stops when dropped.
pub struct ModuleServer {
    module: Arc<Module>,
    task: JoinHandle<()>,
}

impl ModuleServer {
    /// Answers on `socket` (a file of that name is replaced) for the enclave that was measured.
    ///
    /// # Errors
    /// When it cannot listen on the socket.
    pub fn start(socket: &Path, root: Arc<LabRoot>, measurement: Measurement) -> anyhow::Result<Self> {
        let clock = Arc::new(|| UnixMillis(jiff::Timestamp::now().as_millisecond()));
        Self::start_at(socket, root, measurement, clock)
    }

    /// The same with a clock other than this machine's.
    ///
    /// # Errors
    /// When it cannot listen on the socket.
    pub fn start_at(
        socket: &Path,
        root: Arc<LabRoot>,
        measurement: Measurement,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("replacing {}", socket.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
        let module = Arc::new(Module { root, measurement, clock, process: OnceLock::new() });
        let task = tokio::spawn(accept(listener, Arc::clone(&module)));
        Ok(Self { module, task })
    }

    /// From now on only this process is answered, just as only the enclave reaches its `/dev/nsm`: call this after the
    /// enclave has started and before its agent does. The first call counts.
    pub fn admit_only(&self, process: u32) {
        self.module.process.get_or_init(|| process);
    }
}

impl Drop for ModuleServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, module: Arc<Module>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let module = Arc::clone(&module);
                connections.spawn(async move {
                    match timeout(DEADLINE, module.converse(stream)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => warn!(%error, "a request to the security module failed"),
                        Err(_) => warn!("a request to the security module took too long"),
                    }
                });
            }
            Err(error) => {
                warn!(%error, "the security module has stopped listening");
                return;
            }
        }
    }
}

struct Module {
    root: Arc<LabRoot>,
    measurement: Measurement,
    clock: Clock,
    process: OnceLock<u32>,
}

impl Module {
    async fn converse(&self, stream: UnixStream) -> anyhow::Result<()> {
        let peer = stream.peer_cred().context("reading the peer's credentials")?.pid();
        let mut frames = Framed::new(stream, codec(MAX_REQUEST));
        let Some(frame) = frames.next().await else { return Ok(()) };
        let request = Request::decode(frame?.freeze()).context("reading the request")?;
        let answer = match self.answer(peer, &request) {
            Ok(document) => Answer { document, refusal: String::new() },
            Err(error) => Answer { document: Vec::new(), refusal: format!("{error:#}") },
        };
        // The limit on frames holds for both directions of a codec, and answers may be larger.
        frames.codec_mut().set_max_frame_length(MAX_ANSWER);
        frames.send(Bytes::from(answer.encode_to_vec())).await.context("answering")
    }

    fn answer(&self, peer: Option<i32>, request: &Request) -> anyhow::Result<Vec<u8>> {
        let peer = peer.and_then(|pid| u32::try_from(pid).ok());
        let launched = self.process.get().is_none_or(|process| peer == Some(*process));
        anyhow::ensure!(launched, "this security module answers only the enclave it was started for");
        for (name, value, max) in [
            ("nonce", &request.nonce, MAX_NONCE),
            ("user data", &request.user_data, MAX_USER_DATA),
            ("public key", &request.public_key, MAX_PUBLIC_KEY),
        ] {
            anyhow::ensure!(value.len() <= max, "the {name} has {} bytes, more than {max}", value.len());
        }
        anyhow::ensure!(!request.public_key.is_empty(), "the public key is empty");
        let spec = DocumentSpec::new(&self.measurement, (self.clock)())
            .nonce(&request.nonce)
            .user_data(&request.user_data)
            .public_key(&request.public_key);
        self.root.sign(&spec)
    }
}
