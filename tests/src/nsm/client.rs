//! The security module as the lab's enclave program reaches it, in place of `/dev/nsm`.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use enclave::attest::{AttestError, SecurityModule};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::{Answer, DEADLINE, MAX_ANSWER, Request, codec};

/// The lab's security module behind a unix socket. Only the lab's own enclave program has this driver.
#[derive(Debug, Clone)]
pub struct LabModule {
    socket: PathBuf,
}

impl LabModule {
    /// The module that listens on `socket`. Nothing is asked yet.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    async fn ask(&self, request: Request) -> io::Result<Answer> {
        let stream = UnixStream::connect(&self.socket).await?;
        let mut frames = Framed::new(stream, codec(MAX_ANSWER));
        frames.send(Bytes::from(request.encode_to_vec())).await?;
        let frame = frames.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
        Answer::decode(frame.freeze()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
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
