//! What the core is told, and what it asks for.

use std::ops::Deref;

use ceremonies::ids::{CeremonyId, Generation, Hash, NodeIndex, UnixMillis, WalletName};
use ceremonies::log::Entry;
use ceremonies::record::Memory;
use ceremonies::text::chain;
use ceremonies::wire::bus;
use enclave_link::message::{self, from_enclave, to_enclave};
use serde_json::Value;
use thiserror::Error;

use super::shelf::{Shelved, StoredLog};
use crate::store::{Claim, PendingShare, StoredShare};
use crate::vault::ObjectKey;

/// The time as the shell reads it with every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For people and for the log.
    pub wall: UnixMillis,
    /// Milliseconds since some moment, never running back: for waiting.
    pub steady: u64,
}

/// Names the answer to an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// The ceremony that its subject names, if any.
    pub ceremony: Option<CeremonyId>,
    /// Its sequence in the stream.
    pub seq: u64,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl StreamEntry {
    /// How the message is recognised later.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let subject = self.ceremony.as_ref().map(CeremonyId::as_str).unwrap_or_default();
        let hash = Hash::of_parts("custody/stream-mark/v1", &[subject.as_bytes(), &self.payload]);
        Mark { seq: self.seq, hash }
    }
}

/// A message that was read from the stream: a stream that has another in its place is another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its sequence.
    pub seq: u64,
    /// What it is recognised by.
    pub hash: Hash,
}

/// The stream as the broker describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSeen {
    /// Its configuration, as JetStream's API gives it.
    pub config: Value,
    /// The sequence of its first message; one more than the last where it has none.
    pub first: u64,
    /// The sequence of its last message.
    pub last: u64,
    /// Whether it has the message that was asked about, if one was: the mark may have moved on since.
    pub has_mark: bool,
}

/// Why the stream did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Another entry was appended first.
    #[error("the ceremony's log has grown in the meantime")]
    Conflict,
    /// There is no stream.
    #[error("the broker has no stream for the log: its keeper makes one with custody charter make-stream")]
    Absent,
    /// The broker says that it accepted the entry, but does not have it.
    #[error("the broker acknowledged an entry that is not in the stream")]
    Forged,
    /// This ceremony's place in the stream is full.
    #[error("the broker takes no more messages of this ceremony")]
    Full,
    /// The broker does not answer, or refuses.
    #[error("the broker failed: {0}")]
    Unavailable(String),
}

/// What the store is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreOp {
    /// Store the next entry of a log.
    Append(Entry),
    /// Put the entries after a number aside, and store others in their place.
    Switch {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The last number that stays.
        keep: u64,
        /// What follows it now.
        entries: Vec<Entry>,
        /// The node's ballot with it.
        memory: Memory,
    },
    /// Keep an entry of a branch that this node does not stand on.
    PutAside(Entry),
    /// Remember a ballot.
    Remember(CeremonyId, Memory),
    /// Remember how far the stream was read.
    ReadTo(Mark),
    /// From now on, start without this log and with this line in its place.
    Shelve(Box<Shelved>),
    /// Read a log that is shelved.
    Recall(CeremonyId),
    /// Store a new share as pending, and read it back.
    PutPending(PendingShare),
    /// Read a share.
    Share(WalletName, Generation, Hash),
    /// Make a share current.
    Promote(WalletName, Generation, Hash),
    /// Forget the pending share of a ceremony.
    DiscardPending(CeremonyId),
    /// Delete the shares of the generations before.
    DeleteBefore(WalletName, Generation),
    /// Claim a test signature, once and for all.
    ClaimSigning {
        /// The request's id.
        request: String,
        /// What is signed.
        digest: Hash,
        /// With which key of the wallet.
        path: String,
    },
    /// Keep a backup that its keeper handed in.
    KeepReleased(CeremonyId, Vec<u8>),
    /// Read such a backup.
    Released(Hash),
    /// Forget such backups.
    DropReleased(CeremonyId),
    /// Record a ban.
    RecordBan {
        /// Whom it bans.
        peer: NodeIndex,
        /// In which ceremony.
        ceremony: CeremonyId,
        /// Why.
        reason: String,
    },
    /// Keep envelopes on which an accusation rests.
    KeepEvidence(CeremonyId, NodeIndex, Vec<Vec<u8>>),
    /// List the first shares, and show that the store can be written to.
    Probe(u32),
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreReply {
    /// Done.
    Done,
    /// So many were affected.
    Count(u64),
    /// The log.
    Log(Box<StoredLog>),
    /// The share that is stored, if one is.
    Share(Option<StoredShare>),
    /// What came of a claim.
    Claim(Claim),
    /// The backup, if it was handed in.
    Object(Option<Vec<u8>>),
    /// The shares.
    Held(Vec<bus::HeldShare>),
}

/// A request of a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it is about.
    pub kind: RequestKind,
    /// The subject on which it came.
    pub subject: String,
    /// The request's bytes.
    pub payload: Vec<u8>,
    /// Where the answer goes.
    pub reply: String,
}

/// What a console's request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestKind {
    /// Submit an event.
    Submit(CeremonyId),
    /// Read a log.
    Read(CeremonyId),
    /// List ceremonies.
    List,
    /// Hand in a backup for this node's enclave.
    Backup,
}

/// A file for the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: ObjectKey,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Why the shell could not do something, in words for people: nothing is decided by them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// An error with its causes.
    #[must_use]
    pub fn of(error: &dyn std::error::Error) -> Self {
        Self(chain(error))
    }
}

impl Deref for Failure {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self(why)
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The bus is connected (again).
    Connected,
    /// The bus is no longer connected.
    Disconnected,
    /// How the stream is.
    StreamSeen(Result<StreamSeen, StreamError>),
    /// What follows in the stream, in order; nothing at its end.
    StreamRead(Result<Vec<StreamEntry>, StreamError>),
    /// What follows in one ceremony's log, in order; nothing at its end.
    LogRead(Result<Vec<StreamEntry>, StreamError>),
    /// What became of an entry: its sequence in the stream.
    Appended(Result<u64, StreamError>),
    /// A message on another node's `head` subject.
    Heads(Vec<u8>),
    /// What another node asks or answers.
    FromPeer(NodeIndex, Vec<u8>),
    /// A message on another node's `health` subject.
    Heartbeat(Vec<u8>),
    /// A console asks.
    Request(Request),
    /// The enclave sent something that is not for a peer.
    Enclave(from_enclave::Kind),
    /// The link to the enclave is lost: every session that it had is over.
    EnclaveLost,
    /// Whether a connection for the enclave to the KMS endpoint came about, else why not.
    KmsReached(Result<(), Failure>),
    /// Whether the enclave is linked, and why not.
    LinkState(Result<(), Failure>),
    /// What the store did.
    Stored(Ticket, Result<StoreReply, Failure>),
    /// AWS credentials, or why there are none.
    Credentials(Ticket, Result<message::Credentials, Failure>),
    /// Whether the vault can be written to.
    Preflighted(Result<(), Failure>),
    /// Where the files are now: version and end of the lock of each.
    Put(Ticket, Result<Vec<(String, UnixMillis)>, Failure>),
}

/// What the shell is to do. Effects on the stream and on the store are done in order, one at a time; all others at
/// once.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Look at the stream, and at the message at a mark.
    InspectStream(Option<Mark>),
    /// Read what follows in the stream.
    ReadStream {
        /// Only what is on this ceremony's subject.
        of: Option<CeremonyId>,
        /// The sequence after which to read.
        after: u64,
    },
    /// Read what follows in one ceremony's log.
    ReadLog {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The sequence after which to read.
        after: u64,
    },
    /// Append to a ceremony's log in the stream, if the last message of its subject has this sequence. Where it is not
    /// given, it is looked up first, and an entry that this node has not read (behind `read_to`) is a conflict.
    Append {
        /// The ceremony.
        ceremony: CeremonyId,
        /// The sequence of the last message of its subject, 0 for none.
        expected: Option<u64>,
        /// How far this node has read.
        read_to: u64,
        /// The entry.
        entry: Vec<u8>,
    },
    /// Publish without waiting for anybody.
    Publish {
        /// On which subject.
        subject: String,
        /// What.
        payload: Vec<u8>,
    },
    /// Say on this host what the heartbeat says.
    Measure(Box<bus::Heartbeat>),
    /// Have the store do something.
    Store(Ticket, Box<StoreOp>),
    /// Say something to the enclave.
    ToEnclave(Box<to_enclave::Kind>),
    /// Fetch AWS credentials for the KMS.
    FetchCredentials(Ticket),
    /// Find out whether the vault can be written to.
    Preflight,
    /// Put files into the vault under lock.
    Put(Ticket, Vec<Object>, UnixMillis),
}
