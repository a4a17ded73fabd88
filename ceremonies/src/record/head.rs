//! A node's signed statement of where it stands in a ceremony's log.

use prost::Message;
use thiserror::Error;

use crate::charter::Charter;
use crate::ids::{CeremonyId, ClusterId, Hash, InvalidId, NodeIndex, UnixMillis};
use crate::log::MAX_SEQ;
use crate::wire::{VERSION, record};

/// Largest accepted head, in bytes: two ids of 64 characters, two hashes and numbers, with room.
const MAX_HEAD: usize = 512;

/// An entry by its place and hash; number 0 with the zero hash stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tip {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Tip {
    /// Where every log begins.
    pub const ROOT: Self = Self { seq: 0, hash: Hash::ZERO };
}

/// The last entry that a quorum voted for in one round, as far as a node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lock {
    /// In which round they voted.
    pub round: u32,
    /// For what.
    pub tip: Tip,
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Head {
    /// The cluster.
    pub cluster: ClusterId,
    /// The ceremony.
    pub ceremony: CeremonyId,
    /// Whose statement.
    pub node: NodeIndex,
    /// The round.
    pub round: u32,
    /// Whether it votes in this round for the branch that ends here, or has only left the previous round.
    pub votes: bool,
    /// The end of the branch that it stands on.
    pub tip: Tip,
    /// What it is locked on.
    pub lock: Option<Lock>,
    /// The time by its own clock, for people.
    pub time: UnixMillis,
}

/// Why bytes are not a head.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HeadError {
    /// Longer than any head.
    #[error("head has {0} bytes; at most {MAX_HEAD} are read")]
    TooLarge(usize),
    /// Not the message.
    #[error("not a head")]
    Encoding(#[from] prost::DecodeError),
    /// Another version.
    #[error("head has version {0}; this build reads version {VERSION}")]
    Version(u32),
    /// A place that no log reaches.
    #[error("head names entry {0}; no log has more than {MAX_SEQ}")]
    Place(u64),
    /// A malformed field.
    #[error("head has a malformed field")]
    Field(#[from] InvalidId),
}

/// A head with its node's signature, not yet checked against any key.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedHead {
    raw: record::Head,
    head: Head,
}

impl std::ops::Deref for SignedHead {
    type Target = Head;
    fn deref(&self) -> &Head {
        &self.head
    }
}

impl SignedHead {
    /// Signs a head.
    ///
    /// # Errors
    /// Whatever `sign` fails with.
    pub fn create<E>(head: Head, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        let lock = head.lock.map(|lock| record::Lock {
            round: lock.round,
            seq: lock.tip.seq,
            hash: lock.tip.hash.as_bytes().to_vec(),
        });
        let body = record::HeadBody {
            version: VERSION,
            cluster: head.cluster.to_string(),
            ceremony: head.ceremony.to_string(),
            node: head.node.into(),
            round: head.round,
            votes: head.votes,
            seq: head.tip.seq,
            hash: head.tip.hash.as_bytes().to_vec(),
            lock,
            time_ms: head.time.0,
        }
        .encode_to_vec();
        let signature = sign(signed_message(&body).as_bytes())?;
        Ok(Self { raw: record::Head { body, signature }, head })
    }

    /// Reads a head as received.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn from_wire(raw: record::Head) -> Result<Self, HeadError> {
        let size = raw.body.len() + raw.signature.len();
        if size > MAX_HEAD {
            return Err(HeadError::TooLarge(size));
        }
        let body = record::HeadBody::decode(raw.body.as_slice())?;
        if body.version != VERSION {
            return Err(HeadError::Version(body.version));
        }
        let tip = |seq, hash: &[u8]| {
            if seq > MAX_SEQ {
                return Err(HeadError::Place(seq));
            }
            Ok(Tip { seq, hash: hash.try_into()? })
        };
        let lock = |lock: record::Lock| {
            Ok::<Lock, HeadError>(Lock { round: lock.round, tip: tip(lock.seq, &lock.hash)? })
        };
        let head = Head {
            cluster: body.cluster.try_into()?,
            ceremony: body.ceremony.try_into()?,
            node: body.node.try_into()?,
            round: body.round,
            votes: body.votes,
            tip: tip(body.seq, &body.hash)?,
            lock: body.lock.map(lock).transpose()?,
            time: UnixMillis(body.time_ms),
        };
        Ok(Self { raw, head })
    }

    /// Whether the charter's node of this index, which must not be excluded, signed it for the charter's cluster.
    #[must_use]
    pub fn is_by_its_node(&self, charter: &Charter) -> bool {
        let listed = charter.node(self.head.node).filter(|node| !node.excluded);
        let key = listed.and_then(|node| nkeys::KeyPair::from_public_key(&node.nkey).ok());
        self.head.cluster == *charter.cluster()
            && key.is_some_and(|key| {
                key.verify(signed_message(&self.raw.body).as_bytes(), &self.raw.signature).is_ok()
            })
    }

    /// The head as it travels.
    #[must_use]
    pub fn raw(&self) -> &record::Head {
        &self.raw
    }

    /// What it says, without the signature.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }
}

fn signed_message(body: &[u8]) -> Hash {
    Hash::of_parts("custody/head/v1", &[body])
}
