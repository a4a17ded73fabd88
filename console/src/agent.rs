//! The SSH agent: asked for one signature, and waited for no longer than a person needs to touch a security key.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use ssh_agent_client_rs::{Client, Error};
use ssh_key::{PublicKey, Signature};
use thiserror::Error;

use crate::waiting::Waiting;

/// Why an agent did not sign.
#[derive(Debug, Error)]
pub enum AgentError {
    /// There is no connection.
    #[error("{0}")]
    Unreachable(PathBuf, #[source] io::Error),
    /// It took the question and did not answer.
    #[error("{socket} did not answer within {} seconds", limit.as_secs())]
    Silent {
        /// Where it listens.
        socket: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It answered something else than a signature.
    #[error(transparent)]
    Refused(Error),
}

/// An SSH agent at a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent(PathBuf);

impl Agent {
    /// The agent at this socket.
    #[must_use]
    pub fn at(socket: PathBuf) -> Self {
        Self(socket)
    }

    /// The agent that `SSH_AUTH_SOCK` names.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        std::env::var_os("SSH_AUTH_SOCK")
            .filter(|socket| !socket.is_empty())
            .map(|socket| Self(socket.into()))
    }

    /// Has a message signed with the private half of this key.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn sign(
        &self,
        key: &PublicKey,
        message: &[u8],
        waiting: Waiting<'_>,
    ) -> Result<Signature, AgentError> {
        let until = Instant::now() + waiting.limit;
        let failed = |error| {
            if let Error::AgentCommunicationError(error) = &error
                && error.kind() == io::ErrorKind::TimedOut
            {
                return AgentError::Silent { socket: self.0.clone(), limit: waiting.limit };
            }
            AgentError::Refused(error)
        };
        let stream =
            self.connect(waiting.limit).map_err(|error| AgentError::Unreachable(self.0.clone(), error))?;
        (waiting.tell)(&format!(
            "waiting at most {} seconds for the SSH agent: touch the security key, or answer what the agent asks",
            waiting.limit.as_secs()
        ));
        Client::with_read_write(Box::new(Timed { stream, until })).sign(key, message).map_err(failed)
    }

    /// An agent that has stopped takes no connection, and would block one that is made without a limit.
    fn connect(&self, limit: Duration) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.connect_timeout(&SockAddr::unix(&self.0)?, limit)?;
        Ok(OwnedFd::from(socket).into())
    }
}

/// A connection on which nothing is waited for beyond a moment, however slowly bytes trickle in.
struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

/// The system reports a wait that was too long as one that would block.
fn timed<T>(done: io::Result<T>) -> io::Result<T> {
    let is_wait = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    done.map_err(|error| if is_wait(&error) { io::ErrorKind::TimedOut.into() } else { error })
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        timed(self.stream.read(bytes))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        timed(self.stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
