//! Entries: events in their order, each signed by the agent that appended it.

use prost::Message;
use thiserror::Error;

use super::Event;
use crate::charter::Charter;
use crate::ids::{CeremonyId, Hash, InvalidId, NodeIndex, UnixMillis};
use crate::manifest::ManifestError;
use crate::wire;

/// Largest accepted entry, in bytes; the largest event is an attestation document of at most 16 KiB.
pub const MAX_ENTRY: usize = 64 * 1024;
/// Why bytes are not an entry or event.
#[derive(Debug, Error)]
pub enum EntryError {
    /// Larger than [`MAX_ENTRY`].
    #[error("entry has {0} bytes; at most {MAX_ENTRY} are read")]
    TooLarge(usize),
    /// Not the message.
    #[error("entry cannot be decoded")]
    Encoding(#[source] prost::DecodeError),
    /// Another version.
    #[error("entry has version {0}; this build reads version 1")]
    Version(u32),
    /// No event, or one that this build does not know.
    #[error("entry has no event that this build knows")]
    NoEvent,
    /// A name, index or hash is malformed.
    #[error("entry contains a malformed name or value")]
    Field(#[from] InvalidId),
    /// A field has a value it cannot have.
    #[error("entry has a malformed {0}")]
    Value(&'static str),
    /// The manifest inside is refused.
    #[error("the entry's manifest is refused")]
    Manifest(#[from] ManifestError),
}

/// The last place that an entry or a head may name: no log comes near it, and the place after it is still a number.
pub const MAX_SEQ: u64 = u32::MAX as u64;

/// An entry whose shape is right; its author and meaning are not yet judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    raw: wire::log::Entry,
    hash: Hash,
    /// The ceremony whose chain it belongs to.
    pub ceremony: CeremonyId,
    /// Its place, from 1.
    pub seq: u64,
    /// Hash of the entry before.
    pub prev: Hash,
    /// The time, by the appending agent's clock.
    pub time: UnixMillis,
    /// The appending agent.
    pub node: NodeIndex,
    /// What happened.
    pub event: Event,
}

/// Where and by whom an entry is appended.
#[derive(Debug, Clone)]
pub struct Place {
    /// The ceremony whose chain it belongs to.
    pub ceremony: CeremonyId,
    /// Its place, from 1.
    pub seq: u64,
    /// Hash of the entry before.
    pub prev: Hash,
    /// Now.
    pub time: UnixMillis,
    /// The appending agent.
    pub node: NodeIndex,
}

impl Entry {
    /// Decodes an entry as received.
    ///
    /// # Errors
    /// [`EntryError`] for anything that is not one whole, known, well-formed entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        Self::from_wire(wire::log::Entry::decode(bytes).map_err(EntryError::Encoding)?)
    }

    /// As [`Self::decode`], for an entry that arrived inside another message.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn from_wire(raw: wire::log::Entry) -> Result<Self, EntryError> {
        let size = raw.body.len() + raw.signature.len();
        if size > MAX_ENTRY {
            return Err(EntryError::TooLarge(size));
        }
        let body = wire::log::EntryBody::decode(raw.body.as_slice()).map_err(EntryError::Encoding)?;
        if body.version != wire::VERSION {
            return Err(EntryError::Version(body.version));
        }
        if body.seq > MAX_SEQ {
            return Err(EntryError::Value("place in its log"));
        }
        Ok(Self {
            hash: Hash::of_parts("custody/entry/v1", &[&raw.body, &raw.signature]),
            ceremony: body.ceremony.try_into()?,
            seq: body.seq,
            prev: body.prev.as_slice().try_into()?,
            time: UnixMillis(body.time_ms),
            node: NodeIndex::try_from(body.node)?,
            event: Event::try_from(body.event.ok_or(EntryError::NoEvent)?)?,
            raw,
        })
    }

    /// Makes an entry: encodes it and has it signed by the agent's NKey.
    ///
    /// # Errors
    /// Whatever `sign` fails with, or an [`EntryError`] for an event that no reader would accept.
    pub fn create<E: From<EntryError>>(
        place: Place,
        event: wire::log::Event,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let body = wire::log::EntryBody {
            version: wire::VERSION,
            ceremony: place.ceremony.into(),
            seq: place.seq,
            prev: place.prev.as_bytes().to_vec(),
            time_ms: place.time.0,
            node: place.node.into(),
            event: Some(event),
        }
        .encode_to_vec();
        let signature = sign(Self::signed_message(&body).as_bytes())?;
        Ok(Self::from_wire(wire::log::Entry { body, signature })?)
    }

    fn signed_message(body: &[u8]) -> Hash {
        Hash::of_parts("custody/entry-author/v1", &[body])
    }

    /// Whether the charter's node of this index, which must not be excluded, signed it.
    #[must_use]
    pub fn is_by_its_node(&self, charter: &Charter) -> bool {
        let node = charter.node(self.node).filter(|node| !node.excluded);
        node.and_then(|node| nkeys::KeyPair::from_public_key(&node.nkey).ok()).is_some_and(|key| {
            key.verify(Self::signed_message(&self.raw.body).as_bytes(), &self.raw.signature).is_ok()
        })
    }

    /// Its hash, which the next entry names.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.raw.body.len() + self.raw.signature.len()
    }

    /// The entry as received.
    #[must_use]
    pub fn raw(&self) -> &wire::log::Entry {
        &self.raw
    }

    /// The entry as it travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.raw.encode_to_vec()
    }
}
