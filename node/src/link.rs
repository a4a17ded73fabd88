//! The agent's end of the link to its enclave: one connection, kept alive, and the KMS streams on it.
//!
//! Messages are passed on, never judged. This task must never connect the enclave to anything but the KMS
//! endpoint of the configuration.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use enclave_link::message::{
    self, FromEnclave, StreamClosed, StreamData, ToEnclave, from_enclave, to_enclave,
};
use enclave_link::{MAX_CHUNK, SendError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::EnclaveAddress;

/// Messages that may wait for the enclave: two DKG rounds of the largest cluster, with room.
const MAX_OUTGOING: usize = 256;
/// Messages from the enclave that may wait for the agent; beyond it the enclave waits.
const MAX_INCOMING: usize = 256;
/// Chunks that may wait for one KMS connection.
const MAX_CHUNKS: usize = 16;
/// Longest answer of a virtual machine's monitor to `CONNECT`: `OK` and a 32-bit number.
const MAX_ANSWER: usize = 32;
/// How long connecting to the KMS endpoint may take.
const MAX_CONNECT: Duration = Duration::from_secs(5);
/// First and longest pause between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Whether the enclave answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Connected.
    Up,
    /// Not connected, and why.
    Down(String),
}

/// No connection to the KMS for the enclave.
#[derive(Debug, Error)]
#[error("this node cannot reach the KMS endpoint {endpoint}")]
pub struct KmsUnreachable {
    endpoint: String,
    source: io::Error,
}

/// What the link reports to the agent.
#[derive(Debug)]
pub enum LinkEvent {
    /// A message that is neither about a KMS stream nor for a peer.
    Message(from_enclave::Kind),
    /// Whether a connection for the enclave to the KMS endpoint came about, else why not. The enclave only sees a
    /// stream that ends.
    Kms(Result<(), KmsUnreachable>),
    /// The connection was lost: every session that the enclave had is over.
    Lost,
}

/// A handle to the link's task.
#[derive(Clone)]
pub struct EnclaveLink {
    outgoing: mpsc::Sender<to_enclave::Kind>,
    state: watch::Receiver<LinkState>,
}

impl EnclaveLink {
    /// Hands a message to the enclave. While the link is down, messages are dropped: what they were about is over, and
    /// the agent receives [`LinkEvent::Lost`].
    pub async fn send(&self, message: to_enclave::Kind) {
        // The task ends only with the agent.
        let _ = self.outgoing.send(message).await;
    }

    /// As [`Self::send`], without waiting. False if too much is already waiting for an enclave that does not read.
    #[must_use]
    pub fn try_send(&self, message: to_enclave::Kind) -> bool {
        !matches!(self.outgoing.try_send(message), Err(mpsc::error::TrySendError::Full(_)))
    }

    /// Waits until the state changes.
    ///
    /// # Errors
    /// If the link has ended.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.state.changed().await
    }

    /// Whether the enclave answers.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }
}

/// What the link brings.
pub struct Incoming {
    /// What is for the agent.
    pub events: mpsc::Receiver<LinkEvent>,
    /// Messages for peers, which the agent must not hold up.
    pub to_peers: mpsc::Receiver<message::Send>,
}

/// Where the link's task puts what arrives.
struct Outlets {
    events: mpsc::Sender<LinkEvent>,
    to_peers: mpsc::Sender<message::Send>,
}

/// Starts the link. Its task belongs to `tasks` and ends with it.
pub fn start(
    address: EnclaveAddress,
    kms_endpoint: String,
    tasks: &mut JoinSet<()>,
) -> (EnclaveLink, Incoming) {
    let (outgoing, queue) = mpsc::channel(MAX_OUTGOING);
    let (events, received) = mpsc::channel(MAX_INCOMING);
    let (peers, to_peers) = mpsc::channel(MAX_INCOMING);
    let (state, watched) = watch::channel(LinkState::Down("not connected yet".to_owned()));
    let outlets = Outlets { events, to_peers: peers };
    tasks.spawn(keep_up(address, kms_endpoint, queue, outlets, state));
    (EnclaveLink { outgoing, state: watched }, Incoming { events: received, to_peers })
}

async fn keep_up(
    address: EnclaveAddress,
    kms_endpoint: String,
    mut queue: mpsc::Receiver<to_enclave::Kind>,
    outlets: Outlets,
    state: watch::Sender<LinkState>,
) {
    let mut pause = BACKOFF.0;
    loop {
        while queue.try_recv().is_ok() {}
        let ended = match connect(&address).await {
            Ok(stream) => {
                info!("enclave connected");
                pause = BACKOFF.0;
                state.send_replace(LinkState::Up);
                let ended = converse(stream, &kms_endpoint, &mut queue, &outlets).await;
                if outlets.events.send(LinkEvent::Lost).await.is_err() {
                    return;
                }
                ended
            }
            Err(error) => Err(error),
        };
        let why = ended.err().map_or_else(|| "the enclave closed the link".to_owned(), |e| e.to_string());
        if state.borrow().clone() != LinkState::Down(why.clone()) {
            warn!(%why, "enclave not connected");
        }
        state.send_replace(LinkState::Down(why));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// A connection to the enclave, whatever carries it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(address: &EnclaveAddress) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        EnclaveAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
        EnclaveAddress::Vsock { cid, port } => {
            Box::new(tokio_vsock::VsockStream::connect(tokio_vsock::VsockAddr::new(*cid, *port)).await?)
        }
        EnclaveAddress::HybridVsock { socket, port } => {
            Box::new(through_monitor(UnixStream::connect(socket).await?, *port).await?)
        }
    })
}

/// Asks a virtual machine's monitor for a vsock port: `CONNECT port`, answered by `OK` and a number.
async fn through_monitor<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, port: u32) -> io::Result<S> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        if answer.len() == MAX_ANSWER {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the monitor's answer has no end of line",
            ));
        }
        // Byte by byte: what follows the line is the enclave's.
        answer.push(stream.read_u8().await?);
    }
    if answer.starts_with(b"OK ") {
        return Ok(stream);
    }
    let answer = String::from_utf8_lossy(&answer).trim().to_owned();
    Err(io::Error::other(format!("the monitor did not connect to vsock port {port}: {answer}")))
}

/// Passes messages both ways until either side ends.
async fn converse(
    stream: Box<dyn Stream>,
    kms_endpoint: &str,
    queue: &mut mpsc::Receiver<to_enclave::Kind>,
    outlets: &Outlets,
) -> io::Result<()> {
    let (mut receiver, mut sender) = enclave_link::split(stream);
    let (replies, mut from_streams) = mpsc::channel(MAX_CHUNKS);
    let mut proxy = KmsProxy {
        endpoint: kms_endpoint,
        streams: BTreeMap::new(),
        tasks: JoinSet::new(),
        replies,
        events: outlets.events.clone(),
    };
    // Reading has a task of its own: a receive dropped half way would lose the beginning of a frame, and with room for
    // what arrives in the meantime, neither side can wait for the other to read first.
    let (arrived, mut messages) = mpsc::channel(MAX_INCOMING);
    let mut reader = JoinSet::new();
    reader.spawn(async move {
        loop {
            let message = receiver.receive::<FromEnclave>().await;
            let last = !matches!(message, Ok(Some(_)));
            if arrived.send(message).await.is_err() || last {
                return;
            }
        }
    });
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(Ok(Some(FromEnclave { kind: Some(kind) }))) => {
                    let taken = match proxy.take(kind) {
                        Some(from_enclave::Kind::Send(send)) => outlets.to_peers.send(send).await.is_ok(),
                        Some(kind) => outlets.events.send(LinkEvent::Message(kind)).await.is_ok(),
                        None => true,
                    };
                    if !taken {
                        return Ok(());
                    }
                }
                Some(Ok(Some(FromEnclave { kind: None }))) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a message unknown to this agent"));
                }
                Some(Ok(None)) | None => return Ok(()),
                Some(Err(error)) => return Err(error),
            },
            Some(kind) = queue.recv() => send(&mut sender, kind).await?,
            Some(kind) = from_streams.recv() => send(&mut sender, kind).await?,
        }
    }
}

/// Sends a message. One that is too large for a frame is skipped and the link stays up: everything else depends on it.
async fn send<S: AsyncWrite>(sender: &mut enclave_link::Sender<S>, kind: to_enclave::Kind) -> io::Result<()> {
    match sender.send(&ToEnclave { kind: Some(kind) }).await {
        Ok(()) => Ok(()),
        Err(SendError::TooLarge(error)) => {
            warn!(%error, "not sent to the enclave");
            Ok(())
        }
        Err(SendError::Link(error)) => Err(error),
    }
}

/// The enclave's byte streams, each forwarded to the KMS endpoint.
struct KmsProxy<'a> {
    endpoint: &'a str,
    streams: BTreeMap<u64, mpsc::Sender<Vec<u8>>>,
    tasks: JoinSet<()>,
    replies: mpsc::Sender<to_enclave::Kind>,
    events: mpsc::Sender<LinkEvent>,
}

impl KmsProxy<'_> {
    /// Takes what concerns a stream; hands back everything else.
    fn take(&mut self, kind: from_enclave::Kind) -> Option<from_enclave::Kind> {
        match kind {
            from_enclave::Kind::StreamOpened(opened) => {
                let (chunks, queue) = mpsc::channel(MAX_CHUNKS);
                self.streams.insert(opened.stream, chunks);
                let (endpoint, replies) = (self.endpoint.to_owned(), self.replies.clone());
                self.tasks.spawn(forward(endpoint, opened.stream, queue, replies, self.events.clone()));
                None
            }
            from_enclave::Kind::StreamData(StreamData { stream, data }) => {
                // A stream that is not read is dropped rather than waited for.
                let gone = self.streams.get(&stream).is_some_and(|chunks| chunks.try_send(data).is_err());
                if gone {
                    self.streams.remove(&stream);
                }
                None
            }
            from_enclave::Kind::StreamClosed(StreamClosed { stream }) => {
                self.streams.remove(&stream);
                None
            }
            kind @ (from_enclave::Kind::Welcome(_)
            | from_enclave::Kind::Attestation(_)
            | from_enclave::Kind::Refused(_)
            | from_enclave::Kind::Send(_)
            | from_enclave::Kind::Progress(_)
            | from_enclave::Kind::Sealed(_)
            | from_enclave::Kind::Evidence(_)
            | from_enclave::Kind::KmsTried(_)
            | from_enclave::Kind::Backups(_)
            | from_enclave::Kind::Said(_)) => Some(kind),
        }
    }
}

async fn forward(
    endpoint: String,
    stream: u64,
    chunks: mpsc::Receiver<Vec<u8>>,
    replies: mpsc::Sender<to_enclave::Kind>,
    events: mpsc::Sender<LinkEvent>,
) {
    let (connection, reached) = match connect_kms(&endpoint).await {
        Ok(connection) => (Some(connection), Ok(())),
        Err(unreachable) => (None, Err(unreachable)),
    };
    // The agent learns why before the enclave is told that there is no stream. Where either is gone, there is nobody to
    // tell.
    let _ = events.send(LinkEvent::Kms(reached)).await;
    if let Some(connection) = connection
        && let Err(error) = carry(connection, stream, chunks, &replies).await
    {
        warn!(%endpoint, %error, "KMS stream ended");
    }
    let _ = replies.send(to_enclave::Kind::StreamClosed(StreamClosed { stream })).await;
}

async fn connect_kms(endpoint: &str) -> Result<TcpStream, KmsUnreachable> {
    let late = |_| io::Error::other(format!("no connection within {} s", MAX_CONNECT.as_secs()));
    let connected = tokio::time::timeout(MAX_CONNECT, TcpStream::connect(endpoint)).await;
    let connected = connected.map_err(late).flatten();
    connected.map_err(|source| KmsUnreachable { endpoint: endpoint.to_owned(), source })
}

async fn carry(
    connection: TcpStream,
    stream: u64,
    mut chunks: mpsc::Receiver<Vec<u8>>,
    replies: &mpsc::Sender<to_enclave::Kind>,
) -> io::Result<()> {
    let (mut read, mut write) = connection.into_split();
    let mut buffer = vec![0; MAX_CHUNK];
    loop {
        tokio::select! {
            chunk = chunks.recv() => match chunk {
                Some(data) => write.write_all(&data).await?,
                None => return Ok(()),
            },
            length = read.read(&mut buffer) => match length? {
                0 => return Ok(()),
                length => {
                    let data = StreamData { stream, data: buffer[..length].to_vec() };
                    if replies.send(to_enclave::Kind::StreamData(data)).await.is_err() {
                        return Ok(());
                    }
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]
    use enclave_link::MAX_FRAME;
    use enclave_link::message::Deliver;

    use super::*;

    #[tokio::test]
    async fn message_that_no_frame_holds_is_left_out_and_the_link_stays_up() {
        let (agent, enclave) = tokio::io::duplex(1024);
        let (_, mut sender) = enclave_link::split(agent);
        let (mut receiver, _) = enclave_link::split(enclave);
        let deliver = |length: usize| {
            let payload = vec![0; length];
            to_enclave::Kind::Deliver(Deliver { label: vec![1; 32], from: 1, payload })
        };
        send(&mut sender, deliver(MAX_FRAME)).await.unwrap();
        send(&mut sender, deliver(1)).await.unwrap();
        let arrived = receiver.receive::<ToEnclave>().await.unwrap().unwrap();
        assert_eq!(arrived.kind, Some(deliver(1)));
        drop(receiver);
        assert!(send(&mut sender, deliver(1)).await.is_err(), "a broken link is not an error of one message");
    }

    #[tokio::test]
    async fn agent_is_told_why_a_kms_stream_ended_before_the_enclave_is() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = free.local_addr().unwrap().to_string();
        drop(free);
        let ((_chunks, queue), (replies, mut to_enclave)) = (mpsc::channel(1), mpsc::channel(1));
        let (events, mut to_agent) = mpsc::channel(1);
        forward(endpoint.clone(), 7, queue, replies, events).await;
        let Some(LinkEvent::Kms(Err(why))) = to_agent.recv().await else { panic!("nothing was said") };
        assert!(why.to_string().contains(&endpoint), "{why}");
        assert_eq!(why.source.kind(), io::ErrorKind::ConnectionRefused);
        let closed = to_enclave::Kind::StreamClosed(StreamClosed { stream: 7 });
        assert_eq!(to_enclave.recv().await, Some(closed));
    }

    #[tokio::test]
    async fn monitor_is_asked_for_the_port_and_what_follows_its_answer_is_the_enclaves() {
        for (answer, connected) in [
            ("OK 1073741824\nhello", true),
            ("no such port\n", false),
            ("OK", false),
            ("", false),
            ("OK 1234567890123456789012345678901234567890\n", false),
        ] {
            let (agent, mut monitor) = tokio::io::duplex(128);
            monitor.write_all(answer.as_bytes()).await.unwrap();
            let asked = tokio::spawn(async move {
                let mut stream = through_monitor(agent, 5005).await?;
                let mut rest = [0; 5];
                stream.read_exact(&mut rest).await?;
                io::Result::Ok(rest)
            });
            let mut request = [0; 13];
            monitor.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT 5005\n");
            drop(monitor);
            match asked.await.unwrap() {
                Ok(rest) => assert!(connected && &rest == b"hello", "{answer}"),
                Err(_) => assert!(!connected, "{answer}"),
            }
        }
    }
}
