//! The lab's S3: a server on this machine that the unmodified AWS SDK takes for a bucket with locks.
//!
//! It is as strict as the real one about versions, COMPLIANCE locks, checksums, conditional writes and
//! credentials, so that what the lab shows about a backup's safety holds in production. It offers what a
//! vault and its attackers ask for; all else is refused. For the lab only: it keeps everything in memory.

mod access;
mod objects;
mod operations;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::kms::Clock;
use access::Access;
use operations::Operations;

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Puts objects, and reads whether the bucket has versions and locks.
    Writer,
    /// Reads objects, their versions and their locks.
    Reader,
    /// The account's root: may do whatever the server offers, but no lock gives way to it.
    Owner,
}

/// An access key of the lab.
#[derive(Clone)]
pub struct Credential {
    /// The access key's id.
    pub access_key_id: String,
    /// The secret that requests are signed with.
    pub secret_access_key: String,
    /// What it is for.
    pub role: Role,
}

/// A bucket, as it was made.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Whether it keeps versions.
    pub versioned: bool,
    /// Whether it has object locks.
    pub locks: bool,
}

/// What the lab's S3 is started with.
pub struct S3Config {
    /// The region that requests must be signed for.
    pub region: String,
    /// The buckets there are.
    pub buckets: Vec<Bucket>,
    /// The access keys it knows.
    pub credentials: Vec<Credential>,
    /// The clock by which locks are judged. The age of signatures is judged by the system's.
    pub clock: Clock,
}

/// A running server on a free port of this machine. It stops, and its objects go, when dropped.
pub struct S3Server {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl S3Server {
    /// Starts a server.
    ///
    /// # Errors
    /// When nothing can listen on this machine.
    pub async fn start(config: S3Config) -> anyhow::Result<Self> {
        let access = Access { credentials: config.credentials, region: config.region };
        let mut service = S3ServiceBuilder::new(Operations::new(config.buckets, config.clock));
        service.set_auth(access.clone());
        service.set_access(access);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listening on 127.0.0.1")?;
        let addr = listener.local_addr()?;
        Ok(Self { addr, task: tokio::spawn(accept(listener, service.build())) })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops, and returns once nobody listens any more.
    pub async fn stop(mut self) {
        self.task.abort();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            tracing::error!("the lab's S3 panicked");
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, service.clone()));
                }
                Err(error) => tracing::warn!(%error, "the lab's S3 could not accept a connection"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, service: S3Service) {
    let http = hyper::server::conn::http1::Builder::new();
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("the lab's S3 lost a connection: {error}");
    }
}
