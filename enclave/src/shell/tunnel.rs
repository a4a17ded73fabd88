//! Byte streams from the enclave to the KMS endpoint, carried as frames over the link to the agent.
//!
//! The agent sees only TLS records. This module must never inspect what it carries.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::kms::{Dial, Stream};
use enclave_link::MAX_CHUNK;
use enclave_link::message::{FromEnclave, StreamClosed, StreamData, StreamOpened, from_enclave::Kind};

/// Chunks from the agent that may wait for one stream's reader. A KMS answer is a few kilobytes; whoever sends more
/// than this unread is not the KMS.
const MAX_WAITING: usize = 64;
/// Streams open at once: one call at a time for each of a few sessions.
const MAX_STREAMS: usize = 16;

#[derive(Default)]
struct Streams {
    next: u64,
    open: BTreeMap<u64, mpsc::Sender<Vec<u8>>>,
}

/// The enclave's end of all forwarded streams of one connection.
#[derive(Clone)]
pub(super) struct Tunnel {
    streams: Arc<Mutex<Streams>>,
    out: mpsc::Sender<FromEnclave>,
}

impl Tunnel {
    pub(super) fn new(out: mpsc::Sender<FromEnclave>) -> Self {
        Self { streams: Arc::default(), out }
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        // The map is valid after every statement, so a panic elsewhere cannot have left it half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes from the agent for a stream. A stream that nobody reads any more is dropped.
    pub(super) fn deliver(&self, data: StreamData) {
        let mut streams = self.streams();
        let gone = streams.open.get(&data.stream).is_some_and(|reader| reader.try_send(data.data).is_err());
        if gone {
            streams.open.remove(&data.stream);
        }
    }

    /// The agent closed a stream.
    pub(super) fn closed(&self, stream: u64) {
        self.streams().open.remove(&stream);
    }

    fn open(&self) -> io::Result<(u64, mpsc::Receiver<Vec<u8>>)> {
        let mut streams = self.streams();
        streams.open.retain(|_, reader| !reader.is_closed());
        if streams.open.len() >= MAX_STREAMS {
            return Err(io::Error::other("too many streams to KMS are open"));
        }
        streams.next += 1;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let stream = streams.next;
        streams.open.insert(stream, sender);
        Ok((stream, receiver))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the link to the agent is closed")
}

#[async_trait]
impl Dial for Tunnel {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let (stream, from_agent) = self.open()?;
        let opened = FromEnclave { kind: Some(Kind::StreamOpened(StreamOpened { stream })) };
        self.out.send(opened).await.map_err(|_| broken())?;
        let (near, far) = tokio::io::duplex(MAX_CHUNK);
        let (read, write) = tokio::io::split(far);
        tokio::spawn(to_agent(stream, read, self.out.clone()));
        tokio::spawn(to_enclave(from_agent, write));
        Ok(Box::new(near))
    }
}

async fn to_agent(stream: u64, mut read: ReadHalf<DuplexStream>, out: mpsc::Sender<FromEnclave>) {
    let mut buffer = vec![0; MAX_CHUNK];
    while let Ok(length @ 1..) = read.read(&mut buffer).await {
        let data = StreamData { stream, data: buffer[..length].to_vec() };
        if out.send(FromEnclave { kind: Some(Kind::StreamData(data)) }).await.is_err() {
            return;
        }
    }
    // The agent may be gone already; then there is nobody to tell.
    let _ = out.send(FromEnclave { kind: Some(Kind::StreamClosed(StreamClosed { stream })) }).await;
}

async fn to_enclave(mut from_agent: mpsc::Receiver<Vec<u8>>, mut write: WriteHalf<DuplexStream>) {
    while let Some(data) = from_agent.recv().await {
        if write.write_all(&data).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
}
