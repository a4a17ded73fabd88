//! Why an entry changes nothing.

use thiserror::Error;

use super::{MAX_APPENDED, MAX_ATTESTATIONS, MAX_RELEASES};
use crate::attestation::AttestationError;
use crate::chain::transaction::TransactionId;
use crate::charter::Role;
use crate::ids::{CeremonyId, Hash, NodeIndex, PersonName, StepId, UnixMillis};
use crate::manifest::ManifestError;
use crate::script::ScriptError;
use crate::statement::SignatureError;
use crate::wallet::RecordError;
use crate::words::FINGERPRINT_WORDS;

/// Why the fold refuses an entry. The ceremony is as it was before.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "every variant's text is its documentation")]
pub enum Rejection {
    #[error("the entry belongs to ceremony {theirs}, not to {ours}")]
    OtherCeremony { theirs: CeremonyId, ours: CeremonyId },
    #[error("the entry is number {got}; the next one in this ceremony is {expected}")]
    Sequence { got: u64, expected: u64 },
    #[error("the entry follows {got}, but the head is {expected}: the log forks here")]
    Chain { got: Hash, expected: Hash },
    #[error("the entry's time {got} is earlier than that of the entry before it, {last}")]
    TimeRunsBack { got: UnixMillis, last: UnixMillis },
    #[error("the entry is not signed by node {0}'s key in the charter")]
    Author(NodeIndex),
    #[error("the charter excludes node {0}: nothing from it is accepted")]
    Excluded(NodeIndex),
    #[error("a ceremony starts with its opening, and is opened once")]
    Opening,
    #[error("the manifest is refused")]
    Manifest(#[source] ManifestError),
    #[error("the script is refused")]
    Script(#[source] ScriptError),
    #[error("the manifest was opened at {opened}, too far from the entry's time, {at}: check the clocks")]
    OpenedElsewhen { opened: UnixMillis, at: UnixMillis },
    #[error("the manifest expired at {expired}; open a new ceremony")]
    Expired { expired: UnixMillis },
    #[error("the ceremony is over ({0}); open a new one")]
    Over(String),
    #[error("the generation record of enclave {node} is refused")]
    Record { node: NodeIndex, source: RecordError },
    #[error("the wallet to sign with is unknown here, or not the one that the manifest names")]
    Wallet,
    #[error("`{0}` is not a step of this script that people sign")]
    NoSuchStep(StepId),
    #[error("step `{0}` asks nobody for the release of a backup, or no longer does")]
    NoReleases(StepId),
    #[error("step `{step}` is not open: `{missing}` must be done first")]
    NotOpen { step: StepId, missing: StepId },
    #[error("{0} is not in the charter")]
    NoSuchPerson(PersonName),
    #[error("{person} may not act as {role}: the charter does not give that role")]
    NotInRole { person: PersonName, role: Role },
    #[error("{person} already acts as {role} in this ceremony; one person fills one role")]
    TwoRoles { person: PersonName, role: Role },
    #[error("the administrator of this ceremony is {0}")]
    OtherAdministrator(PersonName),
    #[error("the role {role} does not sign step `{step}`")]
    NotSignedBy { step: StepId, role: Role },
    #[error("{person} has already signed step `{step}`")]
    SignedAlready { person: PersonName, step: StepId },
    #[error("step `{step}` requires {asked}")]
    Answer { step: StepId, asked: &'static str },
    #[error("the transaction is signed, and that cannot be undone: record what became of it, then close")]
    Signed,
    #[error("this ceremony has not signed its transaction yet, so it cannot be in a block")]
    NotSigned,
    #[error("the confirmation is for transaction {confirmed}, but this ceremony signed {signed}")]
    OtherTransaction { confirmed: TransactionId, signed: TransactionId },
    #[error("word {place} is not that of this wallet: listen again; the step stays open")]
    WrongWords { place: usize },
    #[error(
        "the fingerprint has {FINGERPRINT_WORDS} words, and {0} were given: say all of them; the step stays open"
    )]
    CountOfWords(usize),
    #[error("the signature is refused")]
    Signature(#[from] SignatureError),
    #[error("node {0} is not part of this ceremony")]
    NoSuchNode(NodeIndex),
    #[error("node {node} may not speak for node {about}")]
    SpeaksForAnother { node: NodeIndex, about: NodeIndex },
    #[error("the attestation of node {node} is refused")]
    Attestation { node: NodeIndex, source: AttestationError },
    #[error("nodes {node} and {other} attested the same enclave keys")]
    SharedKeys { node: NodeIndex, other: NodeIndex },
    #[error("node {0} has already attested with these keys")]
    AttestedAlready(NodeIndex),
    #[error("node {0} has no attested enclave")]
    NotAttested(NodeIndex),
    #[error("the ceremony is not authorised: {0} must be done first")]
    NotAuthorised(StepId),
    #[error("this kind of ceremony makes no key")]
    NoGeneration,
    #[error("this kind of ceremony stages no share: none is in use")]
    NothingToStage,
    #[error("node {0} commits to a result that it has not staged")]
    NotStaged(NodeIndex),
    #[error("node {0}'s result has a different scheme, public key or chain code from the generation before")]
    OtherKey(NodeIndex),
    #[error("node {node}'s result leaves the public share of node {of} unchanged: it was not refreshed")]
    SameShare { node: NodeIndex, of: NodeIndex },
    #[error("node {0} is not one of those that lost their shares")]
    NotLost(NodeIndex),
    #[error("no backup of node {0} is due")]
    NoBackupDue(NodeIndex),
    #[error("node {node}'s backup is locked until {until}; the charter requires {least} or later")]
    ShortLock { node: NodeIndex, until: UnixMillis, least: UnixMillis },
    #[error("node {0} proves a backup that it did not write in this ceremony")]
    NotWritten(NodeIndex),
    #[error("the backup of node {0} does not hold its share of this generation")]
    OtherBackup(NodeIndex),
    #[error("no release of node {0}'s backup is due")]
    NoReleaseDue(NodeIndex),
    #[error(
        "object {object} is not the backup of node {node} that is due: it is damaged, or of another generation"
    )]
    OtherObject { node: NodeIndex, object: Hash },
    /// A root share where a whole one is needed.
    #[error(
        "node {0} has to help to repair another node, which it cannot do with a root share: release its whole backup, \
         or withdraw and open a rebuild"
    )]
    RootHelpsNobody(NodeIndex),
    /// More attestations than anybody needs.
    #[error(
        "node {0} has attested {MAX_ATTESTATIONS} times in this ceremony: withdraw the ceremony, and find out why its \
         enclave keeps restarting"
    )]
    TooManyAttestations(NodeIndex),
    /// More releases than anybody needs.
    #[error(
        "the backup of node {0} has been released {MAX_RELEASES} times in this step: withdraw the ceremony, and find \
         out why it does not open"
    )]
    TooManyReleases(NodeIndex),
    /// More bytes than an honest node appends.
    #[error("node {0} has appended {MAX_APPENDED} bytes to this ceremony: continue through another node")]
    TooMuch(NodeIndex),
    /// An attestation where no enclave takes part.
    #[error("no enclave takes part in this ceremony")]
    NoEnclaves,
    #[error("{person} does not keep the backups of node {node}")]
    NotKeeper { person: PersonName, node: NodeIndex },
    #[error("node {0} deleted old shares before every node had adopted the new ones")]
    NothingToRetire(NodeIndex),
    #[error("node {0}'s result is for another manifest, wallet, generation, roster or set of enclaves")]
    OtherRecord(NodeIndex),
    #[error("the signature of node {0}'s enclave does not verify")]
    EnclaveSignature(NodeIndex),
    #[error("node {0} has already reported this")]
    SaidAlready(NodeIndex),
    #[error("node {0}'s enclave has signed both a result and an abort of one session: keep both as evidence")]
    PreparedAndAborted(NodeIndex),
    #[error("there is nothing committed for node {0} to adopt")]
    NothingToAdopt(NodeIndex),
    #[error("no test signature by {0} is due")]
    NotDue(String),
    #[error("the test signature does not verify under the wallet's public key")]
    TestSignature,
    #[error("the test signature differs from the one that another of its signers reported")]
    TestDiffers,
}
