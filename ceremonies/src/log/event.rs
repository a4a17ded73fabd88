//! Events: what people, enclaves and agents say.

use crate::charter::Role;
use crate::curve::Point;
use crate::ids::{Hash, Line, NodeIndex, PersonName, StepId};
use crate::manifest::Manifest;
use crate::statement::Answer;
use crate::subsets::Subset;
use crate::wallet::BackedUp;

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
