//! What a node consists of: a store that survives, an agent and an enclave that do not, and the link between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ceremonies::attestation::EnclaveKeys;
use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, Duty, SessionSpec};
use ceremonies::entry::Entry;
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::wallet::Record;
use ceremonies::wire::log::event::Kind;

use crate::keys;

/// Where a stored share stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShareState {
    Pending,
    Current,
    Retired,
}

#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) generation: u32,
    pub(super) ceremony: CeremonyId,
    pub(super) record: Hash,
    pub(super) state: ShareState,
    /// Stands for the sealed share: its digest.
    pub(super) blob: Hash,
}

/// The database, after `node/src/store`.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pub(super) logs: BTreeMap<CeremonyId, Vec<Entry>>,
    pub(super) shares: Vec<Share>,
    pub(super) claims: BTreeSet<(CeremonyId, String)>,
}

impl Store {
    pub(super) fn share(&self, record: &Hash) -> Option<&Share> {
        self.shares.iter().find(|share| share.record == *record)
    }

    pub(super) fn current(&self) -> Option<&Share> {
        self.shares.iter().find(|share| share.state == ShareState::Current)
    }

    pub(super) fn put_pending(&mut self, share: Share) {
        if self.share(&share.record).is_none() {
            self.shares.push(share);
        }
    }

    /// One transaction: all of it or nothing.
    pub(super) fn promote(&mut self, record: &Hash) -> bool {
        let promotable = |share: &&Share| share.record == *record && share.state != ShareState::Retired;
        if !self.shares.iter().any(|share| promotable(&share)) {
            return false;
        }
        for share in &mut self.shares {
            if share.record == *record {
                share.state = ShareState::Current;
            } else if share.state == ShareState::Current {
                share.state = ShareState::Retired;
            }
        }
        true
    }
}

/// Where the stream's copy of a ceremony ends, as far as an agent knows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tail {
    pub(super) stream: u64,
    pub(super) entry: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Asked {
    Attestation(CeremonyId),
    Start(CeremonyId, Duty),
}

/// The agent's memory.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub(super) book: Book,
    pub(super) tails: BTreeMap<CeremonyId, Tail>,
    pub(super) own: Option<EnclaveKeys>,
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) ordered: BTreeSet<Hash>,
    pub(super) unsaid: VecDeque<(CeremonyId, Kind)>,
    pub(super) dropped: BTreeSet<CeremonyId>,
    /// The broker is back and this agent has not looked at what it may have lost.
    pub(super) is_stale: bool,
    /// How far the stream has been read.
    pub(super) position: u64,
}

impl Agent {
    pub(super) fn new(book: Book) -> Self {
        Self {
            book,
            tails: BTreeMap::new(),
            own: None,
            asked: BTreeMap::new(),
            ordered: BTreeSet::new(),
            unsaid: VecDeque::new(),
            dropped: BTreeSet::new(),
            is_stale: true,
            position: 0,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum ToAgent {
    Lost,
    Welcome(EnclaveKeys, Vec<(CeremonyId, Kind)>),
    Attestation(u64, Vec<u8>),
    Refused(u64),
    Sealed { record: Box<Record>, blob: Hash },
    BackedUp { ceremony: CeremonyId, whole: Hash, root: Hash, signature: Vec<u8> },
    Said(CeremonyId, Kind),
}

/// A log as an enclave is shown it: the hashes of its entries, and their fold.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) hashes: Vec<Hash>,
    pub(super) ceremony: Ceremony,
}

#[derive(Debug, Clone)]
pub(super) enum ToEnclave {
    Attest { request: u64, nonce: Hash },
    Start { request: u64, log: Box<Shown>, others: Vec<Shown>, blob: Option<Hash> },
    Stored { ceremony: CeremonyId, blob: Hash },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Prepared,
    Aborted,
}

#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) ceremony: Ceremony,
    pub(super) duty: Duty,
    pub(super) spec: SessionSpec,
    pub(super) has_share: bool,
}

/// The enclave's memory.
#[derive(Clone)]
pub(super) struct Enclave {
    pub(super) boot: String,
    pub(super) keys: keys::Enclave,
    pub(super) ledger: BTreeMap<CeremonyId, Shown>,
    pub(super) started: BTreeSet<Hash>,
    /// Open shares by their record, with the generation.
    pub(super) shares: BTreeMap<Hash, u32>,
    pub(super) staged: BTreeMap<CeremonyId, (Record, Hash)>,
    pub(super) decided: BTreeMap<CeremonyId, Word>,
    pub(super) said: Vec<(CeremonyId, Kind)>,
    /// Of this connection alone.
    pub(super) open: BTreeMap<Hash, Job>,
    pub(super) waiting: BTreeMap<CeremonyId, (Hash, Record, Hash)>,
}

impl Enclave {
    pub(super) fn new(boot: String) -> Self {
        Self {
            keys: keys::Enclave::new(&boot),
            boot,
            ledger: BTreeMap::new(),
            started: BTreeSet::new(),
            shares: BTreeMap::new(),
            staged: BTreeMap::new(),
            decided: BTreeMap::new(),
            said: Vec::new(),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) store: Store,
    pub(super) agent: Option<Agent>,
    /// The book of the agent that ran last: folding its entries again gives the same, and takes longer.
    pub(super) before_crash: Book,
    pub(super) enclave: Enclave,
    pub(super) boots: u32,
    pub(super) is_linked: bool,
    pub(super) to_agent: VecDeque<ToAgent>,
    pub(super) to_enclave: VecDeque<ToEnclave>,
    /// The highest generation that may have gone with a lost store.
    pub(super) excused: u32,
    /// Every generation that this node has ever made current.
    pub(super) promoted: BTreeSet<u32>,
}
