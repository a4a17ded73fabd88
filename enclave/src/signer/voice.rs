//! What the enclave signs for the log, and the rule that it never signs both a result and an abort of one
//! key generation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ceremonies::curve::Point;
use ceremonies::ids::{CeremonyId, Generation, Hash, NodeIndex, WalletName};
use ceremonies::log::{Aborted, EnclaveSignature, Event, TestSigned};
use ceremonies::wallet::{
    Record, backed_up_message, prepared_message, proved_message, recovered_message, retired_message,
    staged_message,
};
use ceremonies::wire::log;
use prost::Message;

use crate::session::BootKeys;
use enclave_link::message::{Evidence, Said};

/// Statements kept for repetition. A ceremony has a handful; older ones are in the log by then.
const MAX_SAID: usize = 1024;
/// Accusations whose envelopes are kept for repetition: each may be some hundred kilobytes.
const MAX_EVIDENCE: usize = 8;

/// Why an enclave stays silent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Silence {
    #[error("this enclave has already given up this key generation")]
    Aborted,
    #[error("this enclave has already signed a result of this key generation")]
    Prepared,
    #[error("this enclave has already signed this or a later generation of the wallet")]
    Later,
}

/// How a key generation ended for this enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Prepared,
    Aborted,
}

/// What would end one.
#[derive(Clone, Copy)]
enum Word<'a> {
    Result(&'a Record),
    Abort(&'a CeremonyId),
}

/// The enclave's signing identity and what it has said with it.
pub(super) struct Voice {
    keys: Arc<BootKeys>,
    /// How each key generation ended for this enclave: once, and for good.
    generations: BTreeMap<CeremonyId, End>,
    /// The latest generation of each wallet that it signed, and in which ceremony.
    latest: BTreeMap<WalletName, (Generation, CeremonyId)>,
    said: VecDeque<Said>,
    evidence: VecDeque<Evidence>,
}

impl Voice {
    pub(super) fn new(keys: Arc<BootKeys>) -> Self {
        Self {
            keys,
            generations: BTreeMap::new(),
            latest: BTreeMap::new(),
            said: VecDeque::new(),
            evidence: VecDeque::new(),
        }
    }

    /// Everything said, for an agent that may have lost it.
    pub(super) fn said(&self) -> impl Iterator<Item = Said> + '_ {
        self.said.iter().cloned()
    }

    /// The evidence for accusations of peers, for an agent that may have lost it.
    pub(super) fn evidence(&self) -> impl Iterator<Item = Evidence> + '_ {
        self.evidence.iter().cloned()
    }

    pub(super) fn keep_evidence(&mut self, evidence: Evidence) {
        if self.evidence.len() >= MAX_EVIDENCE {
            self.evidence.pop_front();
        }
        self.evidence.push_back(evidence);
    }

    fn sign(&self, message: &Hash) -> [u8; 64] {
        self.keys.sign(message)
    }

    fn say(&mut self, ceremony: &CeremonyId, event: Event) -> Said {
        let event = log::Event::from(event).encode_to_vec();
        let said = Said { ceremony: ceremony.to_string(), event };
        self.said.push_back(said.clone());
        if self.said.len() > MAX_SAID {
            self.said.pop_front();
        }
        said
    }

    /// Decides how a key generation ends for this enclave: the first statement stands, and no result is signed once this
    /// or a later generation was made by another ceremony.
    fn decide(&mut self, word: Word<'_>) -> Result<(), Silence> {
        let ceremony = match word {
            Word::Result(record) => &record.ceremony,
            Word::Abort(ceremony) => ceremony,
        };
        let end = match (self.generations.get(ceremony).copied(), word) {
            (Some(End::Prepared), Word::Result(_) | Word::Abort(_)) => return Err(Silence::Prepared),
            (Some(End::Aborted), Word::Result(_) | Word::Abort(_)) => return Err(Silence::Aborted),
            (None, Word::Result(record)) if self.has_signed_later(record) => return Err(Silence::Later),
            (None, Word::Result(record)) => {
                self.latest.insert(record.wallet.clone(), (record.generation, record.ceremony.clone()));
                End::Prepared
            }
            (None, Word::Abort(_)) => End::Aborted,
        };
        self.generations.insert(ceremony.clone(), end);
        Ok(())
    }

    fn has_signed_later(&self, record: &Record) -> bool {
        let latest = self.latest.get(&record.wallet);
        latest.is_some_and(|(generation, by)| *generation >= record.generation && *by != record.ceremony)
    }

    /// Signs that this node's share is sealed, was opened again, and belongs to this record.
    pub(super) fn prepared(
        &mut self,
        node: NodeIndex,
        record: &Record,
        blob: &Hash,
    ) -> Result<Said, Silence> {
        self.decide(Word::Result(record))?;
        let signature = self.sign(&prepared_message(&record.digest(), node, blob));
        let (bytes, blob) = (record.as_bytes().to_vec(), *blob);
        Ok(self.say(&record.ceremony, Event::Prepared { node, record: bytes, blob, signature }))
    }

    /// Signs that this node's new share is sealed and was opened again, alongside the one in use.
    pub(super) fn staged(&mut self, node: NodeIndex, record: &Record, blob: &Hash) -> Said {
        let signature = self.sign(&staged_message(&record.digest(), node, blob));
        let (bytes, blob) = (record.as_bytes().to_vec(), *blob);
        self.say(&record.ceremony, Event::Staged { node, record: bytes, blob, signature })
    }

    /// Signs the digests of this node's backups: the whole share's and the root share's. The agent adds where they are
    /// stored.
    pub(super) fn backed_up(
        &self,
        node: NodeIndex,
        record: &Record,
        (whole, root): (Hash, Hash),
    ) -> EnclaveSignature {
        self.sign(&backed_up_message(&record.digest(), node, &whole, &root))
    }

    /// Signs that a backup holds this node's share.
    pub(super) fn proved(
        &mut self,
        ceremony: &CeremonyId,
        manifest: &Hash,
        node: NodeIndex,
        object: &Hash,
        point: &Point,
    ) -> Said {
        let signature = self.sign(&proved_message(manifest, node, object, point));
        self.say(ceremony, Event::Proved { node, object: *object, point: *point, signature })
    }

    /// Signs that this node has its lost share again.
    pub(super) fn recovered(&mut self, ceremony: &CeremonyId, manifest: &Hash, node: NodeIndex) -> Said {
        let signature = self.sign(&recovered_message(manifest, node));
        self.say(ceremony, Event::Recovered { node, signature })
    }

    /// Signs that this enclave has forgotten its shares of the generations before this record.
    pub(super) fn retired(&mut self, node: NodeIndex, record: &Record) -> Said {
        let digest = record.digest();
        let signature = self.sign(&retired_message(&digest, node));
        self.say(&record.ceremony, Event::Retired { node, record: digest, signature })
    }

    /// Signs that this enclave gave a session up. For a key generation this holds for good.
    pub(super) fn aborted(
        &mut self,
        ceremony: &CeremonyId,
        manifest: &Hash,
        generating: bool,
        mut aborted: Aborted,
    ) -> Result<Said, Silence> {
        if generating {
            self.decide(Word::Abort(ceremony))?;
        }
        aborted.signature = self.sign(&aborted.message(manifest));
        Ok(self.say(ceremony, Event::Aborted(Box::new(aborted))))
    }

    /// Signs that this enclave took part in a test signature.
    pub(super) fn test_signed(
        &mut self,
        ceremony: &CeremonyId,
        manifest: &Hash,
        mut signed: TestSigned,
    ) -> Said {
        signed.signature = self.sign(&signed.message(manifest));
        self.say(ceremony, Event::TestSigned(Box::new(signed)))
    }
}
