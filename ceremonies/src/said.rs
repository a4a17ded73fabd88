//! What a node says outside the log (heartbeats, progress, answers), signed with its NKey.
//!
//! The subject on which a message arrives says nothing about its sender: the broker delivers a node's bytes wherever a
//! reply subject points. Nothing here may be believed before [`hear`] has returned it.

use prost::Message;
use thiserror::Error;

use crate::charter::Charter;
use crate::ids::{ClusterId, Hash, InvalidId, NodeIndex};
use crate::wire::{VERSION, record};

/// Why a node's message is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SaidError {
    /// Not the message.
    #[error("not a message signed by a node")]
    Encoding(#[from] prost::DecodeError),
    /// Another version.
    #[error("signed message has version {0}; this build reads version {VERSION}")]
    Version(u32),
    /// A malformed node.
    #[error("signed message names a malformed node")]
    Node(#[from] InvalidId),
    /// The charter lists no such node, or excludes it.
    #[error("the charter does not list node {0}, or excludes it")]
    Stranger(NodeIndex),
    /// Not signed by that node's key, for this cluster and topic.
    #[error("the message is not signed with node {0}'s key for this purpose")]
    Signature(NodeIndex),
}

/// What the message is about; a message on one topic means nothing on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A heartbeat.
    Heartbeat,
    /// Progress in a session.
    Progress,
    /// The answer to the request with this hash.
    Answer(Hash),
}

impl Topic {
    /// The topic of the answer to a request, as its bytes went out.
    #[must_use]
    pub fn answer_to(subject: &str, request: &[u8]) -> Self {
        Self::Answer(Hash::of_parts("custody/request/v1", &[subject.as_bytes(), request]))
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Heartbeat => b"heartbeat".to_vec(),
            Self::Progress => b"progress".to_vec(),
            Self::Answer(request) => [b"answer".as_slice(), request.as_bytes()].concat(),
        }
    }
}

fn message(cluster: &ClusterId, topic: Topic, node: NodeIndex, body: &[u8]) -> Hash {
    let parts: [&[u8]; 4] = [cluster.as_str().as_bytes(), &topic.bytes(), &[node.get()], body];
    Hash::of_parts("custody/said/v1", &parts)
}

/// Signs a node's message.
///
/// # Errors
/// Whatever `sign` fails with.
pub fn say<E>(
    cluster: &ClusterId,
    topic: Topic,
    node: NodeIndex,
    body: Vec<u8>,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let signature = sign(message(cluster, topic, node, &body).as_bytes())?;
    Ok(record::Said { version: VERSION, node: node.into(), body, signature }.encode_to_vec())
}

/// A node's message, if one of the charter's nodes that is not excluded signed it on this topic.
///
/// # Errors
/// [`SaidError`].
pub fn hear(charter: &Charter, topic: Topic, bytes: &[u8]) -> Result<(NodeIndex, Vec<u8>), SaidError> {
    let said = record::Said::decode(bytes)?;
    if said.version != VERSION {
        return Err(SaidError::Version(said.version));
    }
    let node = NodeIndex::try_from(said.node)?;
    let listed = charter.node(node).filter(|node| !node.excluded).ok_or(SaidError::Stranger(node))?;
    let message = message(charter.cluster(), topic, node, &said.body);
    let key = nkeys::KeyPair::from_public_key(&listed.nkey).map_err(|_| SaidError::Stranger(node))?;
    key.verify(message.as_bytes(), &said.signature).map_err(|_| SaidError::Signature(node))?;
    Ok((node, said.body))
}
