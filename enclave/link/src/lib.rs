//! The link between agent and enclave: frames of a big-endian u32 length, each with one protobuf message.
//!
//! All that an agent knows of the enclave's program. It holds no key, no protocol and no rule: what a message
//! means is decided on either side, and neither trusts what the other says.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use prost::Message;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// The messages (`proto/link.proto`).
#[expect(missing_docs, reason = "generated from the .proto file, which is documented")]
pub mod message {
    include!(concat!(env!("OUT_DIR"), "/custody.link.rs"));
}

impl std::fmt::Debug for message::Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// The version that both sides of the link must speak.
pub const VERSION: u32 = 2;
/// Largest frame in bytes: an order of the largest cluster with a sealed share and a backup, with room.
pub const MAX_FRAME: usize = 8 * 1024 * 1024;
/// Largest piece of a forwarded byte stream, in bytes.
pub const MAX_CHUNK: usize = 16 * 1024;

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec()
}

/// A message that is too large for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the message has {bytes} bytes; a frame between agent and enclave holds at most {MAX_FRAME}")]
pub struct TooLarge {
    /// How many it has.
    pub bytes: usize,
}

/// Checks that a frame can hold this message.
///
/// # Errors
/// [`TooLarge`].
pub fn check_size(message: &impl Message) -> Result<(), TooLarge> {
    let bytes = message.encoded_len();
    if bytes > MAX_FRAME { Err(TooLarge { bytes }) } else { Ok(()) }
}

/// Why a message is not sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// No part of it was sent, and the link is unaffected.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The link is broken.
    #[error(transparent)]
    Link(#[from] io::Error),
}

/// The receiving end of a link.
pub struct Receiver<S>(FramedRead<ReadHalf<S>, LengthDelimitedCodec>);

/// The sending end of a link.
pub struct Sender<S>(FramedWrite<WriteHalf<S>, LengthDelimitedCodec>);

/// Splits a stream into the two ends of a link.
pub fn split<S: AsyncRead + AsyncWrite>(stream: S) -> (Receiver<S>, Sender<S>) {
    let (read, write) = tokio::io::split(stream);
    (Receiver(FramedRead::new(read, codec())), Sender(FramedWrite::new(write, codec())))
}

impl<S: AsyncRead> Receiver<S> {
    /// The next message; none when the other side has closed.
    ///
    /// # Errors
    /// For a frame over [`MAX_FRAME`], bytes that are not the message, and any failure of the stream.
    pub async fn receive<M: Message + Default>(&mut self) -> io::Result<Option<M>> {
        let Some(frame) = self.0.next().await else { return Ok(None) };
        decode(&frame?).map(Some)
    }
}

fn decode<M: Message + Default>(frame: &BytesMut) -> io::Result<M> {
    M::decode(frame.as_ref()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl<S: AsyncWrite> Sender<S> {
    /// Sends one message.
    ///
    /// # Errors
    /// [`SendError`]; after [`SendError::TooLarge`] the next message can be sent.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), SendError> {
        check_size(message)?;
        Ok(self.0.send(Bytes::from(message.encode_to_vec())).await?)
    }
}
