//! What people do at a console: open a ceremony, sign a step, withdraw. Shared by the terminal, the
//! subcommands and whoever drives a ceremony from a program.

mod opening;
mod payees;
mod rivals;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use ceremonies::book::{Book, OpeningError};
use ceremonies::ceremony::{Ceremony, Rejection};
use ceremonies::chain::address::Address;
use ceremonies::chain::transaction::TransactionError;
use ceremonies::charter::{CeremonyKind, CharterError, Role};
use ceremonies::ids::{
    CeremonyId, Generation, InvalidId, NodeIndex, PersonName, StepId, UnixMillis, UnknownWord, WalletName,
};
use ceremonies::log::Event;
use ceremonies::manifest::{Manifest, ManifestError, Way};
use ceremonies::script::{Act, ScriptError};
use ceremonies::statement::Answer;
use ceremonies::wallet::Wallet;
use ceremonies::wire::log;
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::opening::{Opening, Topic, prepare, transfer};
pub use self::payees::{must_pay_others, pays};
pub use self::rivals::{Rival, rivals, rivals_of};
use crate::client::{Client, ClientError, Receipt, SubmitError};
use crate::config::{Cluster, Me};
use crate::sentence::joined;
use crate::signer::{self, SignError};

/// How long a ceremony may take from its opening to its authorisation and commit, unless told otherwise.
pub const LIFETIME_MS: i64 = 2 * 60 * 60 * 1000;

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum RoomError {
    /// No such ceremony.
    #[error("ceremony `{0}` is not known")]
    NoCeremony(CeremonyId),
    /// Not for this one to open.
    #[error("{0} is not an administrator of the charter in force, and opens no ceremony")]
    NotAdministrator(PersonName),
    /// No such wallet.
    #[error("wallet `{wallet}` is not committed: {}", there_are("wallet", .known))]
    NoWallet {
        /// The name that was given.
        wallet: WalletName,
        /// Those that there are.
        known: Vec<WalletName>,
    },
    /// No such node.
    #[error("there is no node {node} in {whose}: {}", there_are("node", .known))]
    NoNode {
        /// The number that was given.
        node: NodeIndex,
        /// Where it was looked for.
        whose: &'static str,
        /// Those that there are.
        known: Vec<NodeIndex>,
    },
    /// More or fewer signers of a transaction than sign together.
    #[error(
        "a transaction is signed by exactly {threshold} nodes together, as in --signers {example}; {given} were given"
    )]
    Signers {
        /// How many sign together.
        threshold: u8,
        /// How many different ones were given.
        given: usize,
        /// As many as are needed.
        example: String,
    },
    /// Signers where nobody chooses any.
    #[error(
        "--signers chooses who signs the transaction of a transfer, as in `open transfer --transaction FILE --signers \
         1,2,3`; a ceremony of kind {0} takes none{1}"
    )]
    NoSigners(CeremonyKind, &'static str),
    /// The built-in script is damaged.
    #[error("the script cannot be used")]
    Script(#[from] ScriptError),
    /// Given something that such a ceremony is not about.
    #[error("a ceremony of kind {0} is about a {1}: give --{1} and nothing else")]
    Subject(CeremonyKind, &'static str),
    /// A transfer of nothing.
    #[error(
        "a transfer is about a wallet and a transaction: give --wallet and --transaction, a file as `custody sweep` \
         writes it"
    )]
    NoTransaction,
    /// A recovery without a loss, or a loss without a recovery.
    #[error(
        "a recovery or rebuild needs the nodes that lost their shares, as in --lost 4, and no other ceremony takes \
         them"
    )]
    Lost,
    /// An inventory of no generation, or the generation of something else.
    #[error(
        "an inventory needs one generation and its items, as in --generation 1, and no other ceremony takes them"
    )]
    Generation,
    /// No such generation.
    #[error(
        "no ceremony made generation {generation} of {wallet}; `custody wallet show {wallet}` lists what there is"
    )]
    NoGeneration {
        /// The wallet.
        wallet: WalletName,
        /// The number.
        generation: Generation,
    },
    /// A generation number that was given up and used again.
    #[error("generation {generation} was made by {by}: say which with --made-by")]
    MadeTwice {
        /// The number.
        generation: Generation,
        /// The ceremonies.
        by: String,
    },
    /// A store that holds a share in use, entered as destroyed.
    #[error(
        "node {node}'s store cannot be entered as destroyed: generation {generation} of {wallet} is in use, and its store \
         holds a share of it. If a disk of the node is gone, recover the share: `custody ceremony open recover --wallet \
         {wallet} --lost {node}`, which makes the disk's share worthless alone. If the disk turns up, or may have been \
         copied, enter it as found in this generation: --found {node}=WORDS"
    )]
    StoreInUse {
        /// The wallet.
        wallet: WalletName,
        /// Its generation in use.
        generation: Generation,
        /// The node.
        node: NodeIndex,
    },
    /// The new charter is malformed, or may not follow the one in force.
    #[error("the new charter is refused")]
    Charter(#[from] CharterError),
    /// The transaction is refused.
    #[error("the transaction is refused")]
    Transaction(#[from] TransactionError),
    /// A file of another kind.
    #[error(
        "the file is not a transaction as `custody sweep` writes it: it seems to be {0}; give the file that `custody sweep \
         -o FILE` wrote"
    )]
    NotATransaction(&'static str),
    /// Another ceremony carries the same transaction.
    #[error(
        "{0} carries this very transaction, and it is signed once: take that ceremony to its end, and send what it \
         signed with `custody broadcast {0}`"
    )]
    SignedBefore(CeremonyId),
    /// Nothing would move.
    #[error(
        "the transaction pays {address}, which is an address of {wallet} itself, and nobody else: nothing would leave it"
    )]
    PaysItself {
        /// The wallet that pays.
        wallet: WalletName,
        /// Its address, the first of those that are paid.
        address: Address,
    },
    /// Bans and exclusions leave no signer set.
    #[error("bans and exclusions leave no signer set that could sign")]
    NobodySigns,
    /// A node is named more than once among those that lost their shares.
    #[error("node {0} is named twice: name it once, with the way in which it gets its share back")]
    NamedTwice(NodeIndex),
    /// The manifest would be refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another ceremony stands against it.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// The ceremony would refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// This person has signed it before.
    #[error(
        "{person} has already signed step `{step}`: that signature has been on record since entry {seq}, {time}; the \
         ceremony is {phase}; nothing was signed or sent now"
    )]
    OnRecord {
        /// Who.
        person: PersonName,
        /// Which step.
        step: StepId,
        /// In which entry.
        seq: u64,
        /// When that was taken.
        time: UnixMillis,
        /// Where the ceremony stands now.
        phase: String,
    },
    /// No signature.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The nodes.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It is refused, or not known to be recorded.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// What there is, for whoever named something else.
fn there_are<T: Display>(what: &str, known: &[T]) -> String {
    match known {
        [] => format!("there is no {what} yet"),
        [one] => format!("there is {what} {one}"),
        several => format!("there are {what}s {}", joined(several)),
    }
}

/// The wallet of this name in the book.
///
/// # Errors
/// [`RoomError::NoWallet`] names those that there are.
pub fn wallet(book: &Book, name: &WalletName) -> Result<Wallet, RoomError> {
    book.wallet(name).ok_or_else(|| no_wallet(book, name))
}

fn no_wallet(book: &Book, name: &WalletName) -> RoomError {
    RoomError::NoWallet { wallet: name.clone(), known: book.wallets().into_keys().collect() }
}

/// Refuses a node that is not among these.
///
/// # Errors
/// [`RoomError::NoNode`] names those that there are.
pub fn must_be_among(node: NodeIndex, known: &[NodeIndex], whose: &'static str) -> Result<(), RoomError> {
    if known.contains(&node) {
        return Ok(());
    }
    Err(RoomError::NoNode { node, whose, known: known.to_vec() })
}

/// Refuses signers in a ceremony whose signers nobody chooses.
///
/// # Errors
/// [`RoomError::NoSigners`].
pub fn must_choose_no_signers(kind: CeremonyKind, signers: &[NodeIndex]) -> Result<(), RoomError> {
    if signers.is_empty() || kind == CeremonyKind::Transfer {
        return Ok(());
    }
    let tests_all = kind == CeremonyKind::TestSign;
    let instead = if tests_all { ": it tests every set of nodes that can sign together" } else { "" };
    Err(RoomError::NoSigners(kind, instead))
}

/// Now, for people.
#[must_use]
pub fn now() -> UnixMillis {
    UnixMillis(jiff::Timestamp::now().as_millisecond())
}

/// Reads a lost node as people write it: `4`, or `4=repair`.
///
/// # Errors
/// [`NotALoss`].
pub fn lost_node(text: &str) -> Result<(NodeIndex, Way), NotALoss> {
    let (node, way) = text.split_once('=').unwrap_or((text, "repair"));
    let number: u32 = node.trim().parse().map_err(|_| NotALoss::Form(node.to_owned()))?;
    Ok((NodeIndex::try_from(number)?, way.trim().parse()?))
}

/// Why what somebody wrote is not a lost node.
#[derive(Debug, Error)]
pub enum NotALoss {
    /// It does not begin with a number.
    #[error("`{0}` is not a node: write 4 or 4=repair")]
    Form(String),
    /// There can be no such node.
    #[error(transparent)]
    Node(#[from] InvalidId),
    /// There is no such way back.
    #[error(transparent)]
    Way(#[from] UnknownWord),
}

/// Those nodes, each with the one way in which it gets its share back.
///
/// # Errors
/// [`RoomError::NamedTwice`].
pub fn lost_nodes(named: Vec<(NodeIndex, Way)>) -> Result<BTreeMap<NodeIndex, Way>, RoomError> {
    let mut nodes = BTreeMap::new();
    for (node, way) in named {
        if nodes.insert(node, way).is_some() {
            return Err(RoomError::NamedTwice(node));
        }
    }
    Ok(nodes)
}

/// The event that opens a ceremony.
#[must_use]
pub fn opened(manifest: &Manifest, signature: Vec<u8>) -> log::Event {
    Event::Opened { manifest: Box::new(manifest.clone()), signature }.into()
}

/// Refuses what a person has signed before: an equal signature would be one entry with the first, and its receipt would
/// read as if it had been taken only now.
///
/// # Errors
/// [`RoomError::OnRecord`] says since when, also of a ceremony that is over.
pub fn must_be_new(
    ceremony: &Ceremony,
    step: &StepId,
    person: &PersonName,
    answer: &Answer,
    now: UnixMillis,
) -> Result<(), RoomError> {
    match ceremony.on_record(step, person, answer) {
        // Who ended a ceremony that was committed all the same may end it once more.
        Some(signed) if !matches!(answer, Answer::Withdraw(_)) => Err(RoomError::OnRecord {
            person: person.clone(),
            step: step.clone(),
            seq: signed.seq,
            time: signed.time,
            phase: ceremony.phase_at(now).to_string(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// A signature of a person under a step.
#[derive(Debug, Clone)]
pub struct Signature {
    /// Which step.
    pub step: StepId,
    /// In which role.
    pub role: Role,
    /// Who.
    pub person: PersonName,
    /// What is answered.
    pub answer: Answer,
}

impl Signature {
    /// What this person answers to a step.
    #[must_use]
    pub fn by(me: &Me, step: StepId, answer: Answer) -> Self {
        Self { step, role: me.role, person: me.person.clone(), answer }
    }

    /// The text to be signed, for the first time.
    ///
    /// # Errors
    /// [`RoomError`] when it is on record already, or the ceremony would refuse it at this time.
    pub fn statement(&self, ceremony: &Ceremony, now: UnixMillis) -> Result<String, RoomError> {
        let Self { step, role, person, answer } = self;
        must_be_new(ceremony, step, person, answer, now)?;
        match answer {
            Answer::Withdraw(reason) => {
                ceremony.may_withdraw(*role, person, now)?;
                Ok(ceremony.withdrawal(*role, person, reason)?)
            }
            Answer::None
            | Answer::Words(_)
            | Answer::Agree
            | Answer::Disagree(_)
            | Answer::Release(_)
            | Answer::Broadcast(_)
            | Answer::Withheld(_) => {
                ceremony.check_not_over(now)?;
                Ok(ceremony.statement(step, *role, person, answer)?)
            }
        }
    }

    /// The event that carries it.
    #[must_use]
    pub fn event(&self, signature: Vec<u8>) -> log::Event {
        let (person, role) = (self.person.clone(), self.role);
        let event = match &self.answer {
            Answer::Withdraw(reason) => Event::Withdrawn { person, role, reason: reason.clone(), signature },
            answer @ (Answer::None
            | Answer::Words(_)
            | Answer::Agree
            | Answer::Disagree(_)
            | Answer::Release(_)
            | Answer::Broadcast(_)
            | Answer::Withheld(_)) => {
                Event::Signed { step: self.step.clone(), role, person, answer: answer.clone(), signature }
            }
        };
        event.into()
    }
}

/// Signs and submits the opening of a ceremony.
///
/// # Errors
/// [`RoomError`].
pub async fn open(
    client: &Client,
    book: &Book,
    opening: &Opening,
    key: &Path,
    passphrase: Option<&Zeroizing<String>>,
) -> Result<CeremonyId, RoomError> {
    let (manifest, statement) = prepare(book, opening)?;
    let signature = signer::sign(key, &statement, passphrase)?;
    client.submit(&[], &manifest.ceremony, opened(&manifest, signature)).await?;
    Ok(manifest.ceremony)
}

/// Signs a step with a key and submits it.
///
/// # Errors
/// [`RoomError`].
pub async fn sign(
    client: &Client,
    book: &Book,
    ceremony: &CeremonyId,
    signature: &Signature,
    key: &Path,
    passphrase: Option<&Zeroizing<String>>,
) -> Result<Receipt, RoomError> {
    let chapter = book.get(ceremony).ok_or_else(|| RoomError::NoCeremony(ceremony.clone()))?;
    let statement = signature.statement(&chapter.ceremony, now())?;
    let armoured = signer::sign(key, &statement, passphrase)?;
    Ok(client.submit(&chapter.entries, ceremony, signature.event(armoured)).await?)
}

/// Where this machine has the backup that a step of this act asks for: in the cluster file's backup folder, under its
/// name in the log.
#[must_use]
pub fn backup_file(cluster: &Cluster, ceremony: &Ceremony, act: Act, node: NodeIndex) -> Option<PathBuf> {
    Some(cluster.backups.as_ref()?.join(ceremony.wanted_backup(act, node)?.whole.key.as_str()))
}

/// Signs the release of a backup with a key, hands the backup in at its node, and submits the release.
///
/// # Errors
/// [`RoomError`].
pub async fn release(
    client: &Client,
    book: &Book,
    ceremony: &CeremonyId,
    (signature, object): (&Signature, Vec<u8>),
    key: &Path,
    passphrase: Option<&Zeroizing<String>>,
) -> Result<Receipt, RoomError> {
    if let Answer::Release(release) = &signature.answer {
        client.hand_in(release.node, ceremony, object).await?;
    }
    sign(client, book, ceremony, signature, key, passphrase).await
}
