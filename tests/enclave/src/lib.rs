//! The lab's security module as the lab's enclave program reaches it, in place of `/dev/nsm`.
//!
//! Over a unix socket from a process, over vsock from a virtual machine. Only the lab's own enclave program
//! has this driver.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use enclave::attest::{AttestError, SecurityModule};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

/// Largest request, in bytes; the Nitro device has the same limit.
pub const MAX_REQUEST: usize = 0x1000;
/// Largest answer, in bytes; the Nitro device has the same limit.
pub const MAX_ANSWER: usize = 0x3000;
/// Longest time that one request may take on either side.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Where a virtual machine finds the module on its host.
pub const MODULE_PORT: u32 = 9001;
/// Where an agent finds the enclave in its virtual machine.
pub const ENCLAVE_PORT: u32 = 5005;

/// An enclave's request to its security module: one per connection.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Request {
    /// At most 512 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub nonce: Vec<u8>,
    /// At most 512 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub user_data: Vec<u8>,
    /// At most 1024 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub public_key: Vec<u8>,
}

/// The answer: a document, or why there is none.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Answer {
    /// The document; empty where there is none.
    #[prost(bytes = "vec", tag = "1")]
    pub document: Vec<u8>,
    /// Why there is none.
    #[prost(string, tag = "2")]
    pub refusal: String,
}

/// Frames as on the enclave's other connections: a length of four big-endian bytes, then the message.
#[must_use]
pub fn codec(max_frame: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(max_frame).new_codec()
}

/// The lab's security module.
#[derive(Debug, Clone)]
pub enum LabModule {
    /// Behind a unix socket.
    Unix(PathBuf),
    /// On the host of this virtual machine, at [`MODULE_PORT`].
    Host,
}

impl LabModule {
    async fn ask(&self, request: Request) -> io::Result<Answer> {
        match self {
            Self::Unix(socket) => converse(UnixStream::connect(socket).await?, request).await,
            Self::Host => {
                let address = VsockAddr::new(VMADDR_CID_HOST, MODULE_PORT);
                converse(VsockStream::connect(address).await?, request).await
            }
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, request: Request) -> io::Result<Answer> {
    let mut frames = Framed::new(stream, codec(MAX_ANSWER));
    frames.send(Bytes::from(request.encode_to_vec())).await?;
    let frame = frames.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    Answer::decode(frame.freeze()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[async_trait]
impl SecurityModule for LabModule {
    async fn attest(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, AttestError> {
        let request =
            Request { nonce: nonce.to_vec(), user_data: user_data.to_vec(), public_key: public_key.to_vec() };
        let answer = timeout(DEADLINE, self.ask(request))
            .await
            .map_err(|_| AttestError::Unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(AttestError::Unreachable)?;
        if answer.document.is_empty() {
            return Err(AttestError::Refused(answer.refusal));
        }
        Ok(answer.document)
    }
}
