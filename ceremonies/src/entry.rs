//! Entries and events as types: what the log says, decoded but not yet judged.
//!
//! An entry's hash covers its bytes as received, signature included; nothing is ever re-encoded. Decoding
//! checks shape and size only. Whether an entry is allowed is for [`crate::ceremony`] alone.

use prost::Message;
use thiserror::Error;

use crate::charter::{Charter, Role};
use crate::ids::{CeremonyId, Hash, InvalidId, Line, NodeIndex, PersonName, StepId, UnixMillis};
use crate::manifest::{Manifest, ManifestError};
use crate::sshsig::MAX_SIGNATURE;
use crate::statement::{Answer, Release};
use crate::subsets::Subset;
use crate::transaction::Confirmation;
use crate::wallet::{BackedUp, Object, Point};
use crate::wire;
use crate::words;

/// Largest accepted entry, in bytes; the largest event is an attestation document of at most 16 KiB.
pub const MAX_ENTRY: usize = 64 * 1024;
/// Largest accepted generation record, in bytes; that of 20 nodes has some 1,300.
const MAX_RECORD: usize = 16 * 1024;
/// Longest accepted run of read-back words, in bytes.
const MAX_WORDS: usize = 512;
/// Longest sealed file key: HPKE's encapsulated key, the 16 bytes of age's file key and a tag, with room.
const MAX_SEALED_KEY: usize = 128;

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

/// A signature made in an enclave.
pub type EnclaveSignature = [u8; 64];

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The administrator opened the ceremony.
    Opened {
        /// What it is about.
        manifest: Box<Manifest>,
        /// Armoured SSHSIG over the opening statement.
        signature: Vec<u8>,
    },
    /// A node's enclave attested.
    Attested {
        /// Whose.
        node: NodeIndex,
        /// The document, at most 16 KiB.
        document: Vec<u8>,
    },
    /// A person signed a step.
    Signed {
        /// Which step.
        step: StepId,
        /// In which role.
        role: Role,
        /// Who.
        person: PersonName,
        /// What the step asks for.
        answer: Answer,
        /// Armoured SSHSIG over the step's statement.
        signature: Vec<u8>,
    },
    /// An enclave sealed its share, opened it again, and would commit.
    Prepared {
        /// Whose.
        node: NodeIndex,
        /// The encoded [`crate::wallet::Record`], the same for all and not yet judged: its points are checked
        /// once a ceremony, not once an entry.
        record: Vec<u8>,
        /// SHA-256 of its sealed share.
        blob: Hash,
        /// By the enclave.
        signature: EnclaveSignature,
    },
    /// An enclave's new share is stored where backups are kept.
    BackedUp(Box<BackedUp>),
    /// A backup was opened in the node's enclave and holds its share.
    Proved {
        /// Whose.
        node: NodeIndex,
        /// SHA-256 of the backup.
        object: Hash,
        /// The share's public point, as computed from the backup.
        point: Point,
        /// By the enclave.
        signature: EnclaveSignature,
    },
    /// A node that had lost its share has it again.
    Recovered {
        /// Whose.
        node: NodeIndex,
        /// By the enclave.
        signature: EnclaveSignature,
    },
    /// An enclave sealed a new share of a known key and opened it again; the old one is still in use.
    Staged {
        /// Whose.
        node: NodeIndex,
        /// As in [`Event::Prepared`].
        record: Vec<u8>,
        /// SHA-256 of its sealed share.
        blob: Hash,
        /// By the enclave.
        signature: EnclaveSignature,
    },
    /// Enclave and agent have deleted their shares of the generations before.
    Retired {
        /// Whose.
        node: NodeIndex,
        /// Digest of the record that replaces them.
        record: Hash,
        /// By the enclave.
        signature: EnclaveSignature,
    },
    /// An agent made the committed share its current one.
    Adopted {
        /// Whose.
        node: NodeIndex,
        /// Digest of the record.
        record: Hash,
    },
    /// An enclave took part in a test signature.
    TestSigned(Box<TestSigned>),
    /// An enclave gave a session up.
    Aborted(Box<Aborted>),
    /// An agent lost its enclave in the middle of a session.
    Faulted {
        /// Whose.
        node: NodeIndex,
        /// What happened.
        reason: Line,
    },
    /// A person ended the ceremony.
    Withdrawn {
        /// Who.
        person: PersonName,
        /// In which role.
        role: Role,
        /// Why.
        reason: Line,
        /// Armoured SSHSIG over the withdrawal statement.
        signature: Vec<u8>,
    },
}

/// One enclave's word that its group made this signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestSigned {
    /// Whose word.
    pub node: NodeIndex,
    /// The group.
    pub subset: Subset,
    /// Which try of this group, from 1.
    pub attempt: u32,
    /// Which of a transaction's digests, from 0; 0 for a test.
    pub input: u32,
    /// The protocol session.
    pub session: Hash,
    /// r, big-endian.
    pub r: [u8; 32],
    /// s, big-endian, in the lower half.
    pub s: [u8; 32],
    /// 0 to 3.
    pub recovery_id: u8,
    /// By the enclave.
    pub signature: EnclaveSignature,
}

/// An enclave's word that it gave a session up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aborted {
    /// Whose word.
    pub node: NodeIndex,
    /// The group of a test signature; all nodes for a key generation.
    pub subset: Subset,
    /// Which try, from 1.
    pub attempt: u32,
    /// Why.
    pub reason: Line,
    /// The peer at fault, where one is known.
    pub culprit: Option<NodeIndex>,
    /// The peer this enclave never works with again.
    pub banned: Option<NodeIndex>,
    /// By the enclave.
    pub signature: EnclaveSignature,
}

impl TestSigned {
    /// What the enclave signs.
    #[must_use]
    pub fn message(&self, manifest: &Hash) -> Hash {
        let subset: Vec<u8> = self.subset.parties().iter().map(|party| party.get()).collect();
        Hash::of_parts(
            "custody/test-signed/v2",
            &[
                manifest.as_bytes(),
                &[self.node.get()],
                &subset,
                &self.attempt.to_be_bytes(),
                &self.input.to_be_bytes(),
                self.session.as_bytes(),
                &self.r,
                &self.s,
                &[self.recovery_id],
            ],
        )
    }
}

impl Aborted {
    /// What the enclave signs.
    #[must_use]
    pub fn message(&self, manifest: &Hash) -> Hash {
        let subset: Vec<u8> = self.subset.parties().iter().map(|party| party.get()).collect();
        let index = |party: Option<NodeIndex>| [party.map_or(0, NodeIndex::get)];
        Hash::of_parts(
            "custody/aborted/v1",
            &[
                manifest.as_bytes(),
                &[self.node.get()],
                &subset,
                &self.attempt.to_be_bytes(),
                self.reason.as_str().as_bytes(),
                &index(self.culprit),
                &index(self.banned),
            ],
        )
    }
}

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

fn bounded(bytes: Vec<u8>, most: usize, what: &'static str) -> Result<Vec<u8>, EntryError> {
    if bytes.is_empty() || bytes.len() > most { Err(EntryError::Value(what)) } else { Ok(bytes) }
}

fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], EntryError> {
    bytes.try_into().map_err(|_| EntryError::Value(what))
}

fn role(text: &str) -> Result<Role, EntryError> {
    text.parse().map_err(|_| EntryError::Value("role"))
}

fn optional_node(index: u32) -> Result<Option<NodeIndex>, EntryError> {
    if index == 0 { Ok(None) } else { Ok(Some(NodeIndex::try_from(index)?)) }
}

/// Parties in strictly ascending order, so that one group has one encoding.
fn subset(indices: &[u32]) -> Result<Subset, EntryError> {
    let parties = indices.iter().map(|i| NodeIndex::try_from(*i)).collect::<Result<Vec<_>, _>>()?;
    let subset = Subset::new(parties.iter().copied());
    if subset.parties() == parties { Ok(subset) } else { Err(EntryError::Value("subset")) }
}

fn object(object: Option<wire::log::Object>) -> Result<Object, EntryError> {
    let object = object.ok_or(EntryError::Value("object"))?;
    Ok(Object {
        key: object.key.try_into()?,
        version: object.version.try_into()?,
        digest: object.digest.as_slice().try_into()?,
        locked_until: UnixMillis(object.locked_until_ms),
    })
}

impl TryFrom<wire::log::Event> for Event {
    type Error = EntryError;

    fn try_from(event: wire::log::Event) -> Result<Self, EntryError> {
        use wire::log::event::Kind;
        Ok(match event.kind.ok_or(EntryError::NoEvent)? {
            Kind::Opened(opened) => Self::Opened {
                manifest: Box::new(Manifest::parse(&opened.manifest)?),
                signature: bounded(opened.signature, MAX_SIGNATURE, "signature")?,
            },
            Kind::Attested(attested) => Self::Attested {
                node: attested.node.try_into()?,
                document: bounded(attested.document, crate::attestation::MAX_DOCUMENT, "document")?,
            },
            Kind::Signed(signed) => Self::signed(signed)?,
            Kind::BackedUp(backed_up) => Self::BackedUp(Box::new(BackedUp {
                node: backed_up.node.try_into()?,
                whole: object(backed_up.whole)?,
                root: object(backed_up.root)?,
                signature: fixed(&backed_up.signature, "signature")?,
            })),
            Kind::Proved(proved) => Self::Proved {
                node: proved.node.try_into()?,
                object: proved.object.as_slice().try_into()?,
                point: Point::decode(&proved.point).map_err(|_| EntryError::Value("point"))?,
                signature: fixed(&proved.signature, "signature")?,
            },
            Kind::Recovered(recovered) => Self::Recovered {
                node: recovered.node.try_into()?,
                signature: fixed(&recovered.signature, "signature")?,
            },
            Kind::Staged(staged) => Self::Staged {
                node: staged.node.try_into()?,
                record: bounded(staged.record, MAX_RECORD, "generation record")?,
                blob: staged.blob.as_slice().try_into()?,
                signature: fixed(&staged.signature, "signature")?,
            },
            Kind::Retired(retired) => Self::Retired {
                node: retired.node.try_into()?,
                record: retired.record.as_slice().try_into()?,
                signature: fixed(&retired.signature, "signature")?,
            },
            Kind::Prepared(prepared) => Self::Prepared {
                node: prepared.node.try_into()?,
                record: bounded(prepared.record, MAX_RECORD, "generation record")?,
                blob: prepared.blob.as_slice().try_into()?,
                signature: fixed(&prepared.signature, "signature")?,
            },
            Kind::Adopted(adopted) => Self::Adopted {
                node: adopted.node.try_into()?,
                record: adopted.record.as_slice().try_into()?,
            },
            Kind::TestSigned(signed) => Self::TestSigned(Box::new(TestSigned {
                node: signed.node.try_into()?,
                subset: subset(&signed.subset)?,
                attempt: signed.attempt,
                input: signed.input,
                session: signed.session.as_slice().try_into()?,
                r: fixed(&signed.r, "r")?,
                s: fixed(&signed.s, "s")?,
                recovery_id: u8::try_from(signed.recovery_id)
                    .ok()
                    .filter(|id| *id < 4)
                    .ok_or(EntryError::Value("recovery id"))?,
                signature: fixed(&signed.signature, "signature")?,
            })),
            Kind::Aborted(aborted) => Self::Aborted(Box::new(Aborted {
                node: aborted.node.try_into()?,
                subset: subset(&aborted.subset)?,
                attempt: aborted.attempt,
                reason: aborted.reason.try_into()?,
                culprit: optional_node(aborted.culprit)?,
                banned: optional_node(aborted.banned)?,
                signature: fixed(&aborted.signature, "signature")?,
            })),
            Kind::Faulted(faulted) => {
                Self::Faulted { node: faulted.node.try_into()?, reason: faulted.reason.try_into()? }
            }
            Kind::Withdrawn(withdrawn) => Self::Withdrawn {
                person: withdrawn.person.try_into()?,
                role: role(&withdrawn.role)?,
                reason: withdrawn.reason.try_into()?,
                signature: bounded(withdrawn.signature, MAX_SIGNATURE, "signature")?,
            },
        })
    }
}

impl Event {
    fn signed(signed: wire::log::Signed) -> Result<Self, EntryError> {
        use wire::log::signed::Answer as Wire;
        let answer = match signed.answer {
            None => Answer::None,
            Some(Wire::Words(typed)) => {
                let normal = words::normalise(&typed);
                let plain = normal.bytes().all(|b| b.is_ascii_lowercase() || b == b' ');
                if typed != normal || !plain || typed.is_empty() || typed.len() > MAX_WORDS {
                    return Err(EntryError::Value("read-back: words are not normalised"));
                }
                Answer::Words(typed)
            }
            Some(Wire::Release(release)) => Answer::Release(Release {
                node: release.node.try_into()?,
                object: release.object.as_slice().try_into()?,
                sealed: bounded(release.sealed, MAX_SEALED_KEY, "sealed file key")?,
            }),
            Some(Wire::Broadcast(confirmation)) => Answer::Broadcast(Confirmation {
                transaction: confirmation
                    .transaction
                    .parse()
                    .map_err(|_| EntryError::Value("transaction id"))?,
                block: confirmation.block.as_slice().try_into()?,
                height: confirmation.height,
            }),
            Some(Wire::Withheld(reason)) => Answer::Withheld(reason.try_into()?),
            Some(Wire::Opinion(opinion)) => match opinion.verdict() {
                wire::log::Verdict::Agree if opinion.reason.is_empty() => Answer::Agree,
                wire::log::Verdict::Disagree => Answer::Disagree(opinion.reason.try_into()?),
                wire::log::Verdict::Agree | wire::log::Verdict::Unspecified => {
                    return Err(EntryError::Value("verdict"));
                }
            },
        };
        Ok(Self::Signed {
            step: signed.step.try_into()?,
            role: role(&signed.role)?,
            person: signed.person.try_into()?,
            answer,
            signature: bounded(signed.signature, MAX_SIGNATURE, "signature")?,
        })
    }
}
