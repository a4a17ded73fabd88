//! What people do at a console: open a ceremony, sign a step, withdraw. Shared by the terminal, the
//! subcommands and whoever drives a ceremony from a program.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ceremonies::book::{Book, OpeningError};
use ceremonies::ceremony::{Ceremony, Rejection, opening_statement};
use ceremonies::charter::{CeremonyKind, Charter, CharterError, Role};
use ceremonies::ids::{CeremonyId, Generation, Line, NodeIndex, PersonName, StepId, UnixMillis, WalletName};
use ceremonies::inventory::Item;
use ceremonies::manifest::{CHARTER, Manifest, ManifestError, Origin, Proposal, Way};
use ceremonies::script::{Act, Script, ScriptError};
use ceremonies::statement::Answer;
use ceremonies::subsets::{Subset, subsets};
use ceremonies::transaction::{Transaction, TransactionError};
use ceremonies::wallet::{Record, Wallet};
use ceremonies::wire::log;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::client::{Client, ClientError, Receipt, SubmitError};
use crate::config::{Cluster, Me};
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
    /// The new charter is malformed, or may not follow the one in force.
    #[error("the new charter is refused")]
    Charter(#[from] CharterError),
    /// The transaction is refused.
    #[error("the transaction is refused")]
    Transaction(#[from] TransactionError),
    /// Bans and exclusions leave no signer set.
    #[error("bans and exclusions leave no signer set that could sign")]
    NobodySigns,
    /// The manifest would be refused.
    #[error("the manifest would be refused")]
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
    let names: Vec<String> = known.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => format!("there is no {what} yet"),
        [one] => format!("there is {what} {one}"),
        [first @ .., last] => format!("there are {what}s {} and {last}", first.join(", ")),
    }
}

/// The wallet of this name in the book.
///
/// # Errors
/// [`RoomError::NoWallet`] names those that there are.
pub fn wallet(book: &Book, name: &WalletName) -> Result<Wallet, RoomError> {
    let none = || RoomError::NoWallet { wallet: name.clone(), known: book.wallets().into_keys().collect() };
    book.wallet(name).ok_or_else(none)
}

/// Refuses a node that is none of these.
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
    let instead = match kind {
        CeremonyKind::TestSign => ": it tests every set of nodes that can sign together",
        _ => "",
    };
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
/// What is wrong with it, in words.
pub fn lost_node(text: &str) -> Result<(NodeIndex, Way), String> {
    let (node, way) = text.split_once('=').unwrap_or((text, "repair"));
    let number: u32 =
        node.trim().parse().map_err(|_| format!("`{node}` is not a node: write 4 or 4=repair"))?;
    Ok((NodeIndex::try_from(number).map_err(|error| error.to_string())?, way.trim().parse()?))
}

/// What a ceremony is to be about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The key of a new wallet.
    NewWallet(WalletName),
    /// Test signatures with a wallet.
    Wallet(WalletName),
    /// New shares of a wallet's key.
    Refresh(WalletName),
    /// Shares of a wallet for nodes that lost theirs, then new ones for all.
    Recovery(WalletName, BTreeMap<NodeIndex, Way>),
    /// The last resort: the shares of nodes that lost theirs, rebuilt in one enclave from root shares.
    Rebuild(WalletName, BTreeMap<NodeIndex, Way>),
    /// A transaction of a wallet, and the nodes that sign it.
    Transfer(WalletName, Arc<Transaction>, Vec<NodeIndex>),
    /// A new charter.
    Charter(Arc<Charter>),
    /// Which copies of one generation's shares exist or are gone.
    Inventory {
        /// The wallet.
        wallet: WalletName,
        /// The generation, in use or past.
        generation: Generation,
        /// The ceremony that made it.
        origin: Origin,
        /// What is entered.
        items: Vec<Item>,
    },
}

impl Subject {
    /// What a ceremony of this kind is about: a wallet, with the nodes that lost their shares for a recovery or rebuild; or,
    /// for an amendment, a charter file.
    ///
    /// # Errors
    /// [`RoomError::Subject`] when the other is given, both or none; [`RoomError::Charter`] for a malformed charter.
    pub fn new(
        kind: CeremonyKind,
        wallet: Option<WalletName>,
        charter: Option<&[u8]>,
        lost: BTreeMap<NodeIndex, Way>,
    ) -> Result<Self, RoomError> {
        if kind.recovers() == lost.is_empty() {
            return Err(RoomError::Lost);
        }
        match (kind, wallet, charter) {
            (CeremonyKind::Dkg, Some(wallet), None) => Ok(Self::NewWallet(wallet)),
            (CeremonyKind::TestSign, Some(wallet), None) => Ok(Self::Wallet(wallet)),
            (CeremonyKind::Refresh, Some(wallet), None) => Ok(Self::Refresh(wallet)),
            (CeremonyKind::Recover, Some(wallet), None) => Ok(Self::Recovery(wallet, lost)),
            (CeremonyKind::Rebuild, Some(wallet), None) => Ok(Self::Rebuild(wallet, lost)),
            (CeremonyKind::Amend, None, Some(charter)) => {
                Ok(Self::Charter(Arc::new(Charter::parse(charter)?)))
            }
            (CeremonyKind::Amend, _, _) => Err(RoomError::Subject(kind, "charter")),
            (CeremonyKind::Inventory, _, _) => Err(RoomError::Generation),
            (_, _, _) => Err(RoomError::Subject(kind, "wallet")),
        }
    }

    fn kind(&self) -> CeremonyKind {
        match self {
            Self::NewWallet(_) => CeremonyKind::Dkg,
            Self::Wallet(_) => CeremonyKind::TestSign,
            Self::Refresh(_) => CeremonyKind::Refresh,
            Self::Recovery(..) => CeremonyKind::Recover,
            Self::Rebuild(..) => CeremonyKind::Rebuild,
            Self::Transfer(..) => CeremonyKind::Transfer,
            Self::Charter(_) => CeremonyKind::Amend,
            Self::Inventory { .. } => CeremonyKind::Inventory,
        }
    }
}

/// A transfer of this transaction, signed by these nodes; if none are given, by the first that can sign together.
///
/// # Errors
/// [`RoomError`] for bytes that are not a transaction, or a wallet that is not known.
pub fn transfer(
    book: &Book,
    wallet: WalletName,
    transaction: &[u8],
    signers: Vec<NodeIndex>,
) -> Result<Subject, RoomError> {
    let transaction = Transaction::parse(transaction)?;
    let record = self::wallet(book, &wallet)?.record;
    let made = book.get(&record.ceremony).map(|chapter| chapter.ceremony.manifest());
    let bans = made.map(|made| book.bans_in(made)).unwrap_or_default();
    let apart = |a: NodeIndex, b: NodeIndex| bans.contains(&(a, b)) || bans.contains(&(b, a));
    let out = made.map(|made| book.out_of_use(made)).unwrap_or_default();
    let signs = |group: &Subset| !group.parties().iter().any(|party| out.contains(party));
    let together = |group: &Subset| signs(group) && group.pairs().all(|(a, b)| !apart(a, b));
    let signers = if signers.is_empty() {
        let found = subsets(&record.roster(), usize::from(record.threshold)).find(together);
        found.ok_or(RoomError::NobodySigns)?.parties().to_vec()
    } else {
        chosen(&record, signers)?
    };
    Ok(Subject::Transfer(wallet, Arc::new(transaction), signers))
}

/// The nodes that somebody chose to sign.
fn chosen(record: &Record, signers: Vec<NodeIndex>) -> Result<Vec<NodeIndex>, RoomError> {
    let (roster, threshold) = (record.roster(), record.threshold);
    for node in &signers {
        must_be_among(*node, &roster, "this wallet")?;
    }
    let signers = Subset::new(signers).parties().to_vec();
    if signers.len() != usize::from(threshold) {
        let example: Vec<String> = roster.iter().take(threshold.into()).map(ToString::to_string).collect();
        return Err(RoomError::Signers { threshold, given: signers.len(), example: example.join(",") });
    }
    Ok(signers)
}

/// What somebody wants to open.
#[derive(Debug, Clone)]
pub struct Opening {
    /// What it is to be about.
    pub subject: Subject,
    /// Why it is held.
    pub purpose: Line,
    /// Who leads it.
    pub administrator: PersonName,
    /// How long it may take, in milliseconds.
    pub lifetime_ms: i64,
}

/// The manifest for an opening, and the statement with which its administrator opens it.
///
/// # Errors
/// [`RoomError`] when it would be refused.
pub fn prepare(book: &Book, opening: &Opening) -> Result<(Manifest, String), RoomError> {
    let charter = book.context().charter();
    let person = charter.person(&opening.administrator);
    if !person.is_some_and(|person| person.roles.contains(&Role::Administrator)) {
        return Err(RoomError::NotAdministrator(opening.administrator.clone()));
    }
    let script = Script::builtin(opening.subject.kind())?;
    let opened = now();
    let current = |name: &WalletName| {
        let record = wallet(book, name)?.record;
        let origin = Origin { ceremony: record.ceremony.clone(), record: record.digest() };
        Ok::<_, RoomError>((record.generation, Some(origin)))
    };
    let must_be_its_nodes = |name: &WalletName, lost: &BTreeMap<NodeIndex, Way>| {
        let roster = wallet(book, name)?.record.roster();
        lost.keys().try_for_each(|node| must_be_among(*node, &roster, "this wallet"))
    };
    let next = |name: &WalletName| Ok::<_, RoomError>((book.next_generation(name, opened), current(name)?.1));
    let (mut lost, mut transaction, mut inventory) = (BTreeMap::new(), None, Vec::new());
    let (about, (generation, origin), amendment) = match &opening.subject {
        Subject::NewWallet(name) => (name.clone(), (Generation::FIRST, None), None),
        Subject::Wallet(name) => (name.clone(), current(name)?, None),
        Subject::Refresh(name) => (name.clone(), next(name)?, None),
        Subject::Recovery(name, nodes) | Subject::Rebuild(name, nodes) => {
            must_be_its_nodes(name, nodes)?;
            lost.clone_from(nodes);
            (name.clone(), next(name)?, None)
        }
        Subject::Transfer(name, read, signers) => {
            transaction = Some((Arc::clone(read), signers.clone()));
            (name.clone(), current(name)?, None)
        }
        Subject::Charter(next) => {
            charter.check_amendment(next)?;
            let name = CHARTER.parse().map_err(ManifestError::from)?;
            (name, (Generation::FIRST, None), Some(Arc::clone(next)))
        }
        Subject::Inventory { wallet: name, generation, origin, items } => {
            inventory.clone_from(items);
            (name.clone(), (*generation, Some(origin.clone())), None)
        }
    };
    let manifest = Proposal {
        kind: opening.subject.kind(),
        wallet: about,
        purpose: opening.purpose.clone(),
        administrator: opening.administrator.clone(),
        opened,
        lifetime_ms: opening.lifetime_ms,
        nonce: rand::random(),
        generation,
        origin,
        amendment,
        lost,
        transaction,
        inventory,
    }
    .manifest(charter, &script)?;
    book.check_opening(&manifest, opened)?;
    let statement = opening_statement(&manifest, charter, &script)?;
    Ok((manifest, statement))
}

/// The event that opens a ceremony.
#[must_use]
pub fn opened(manifest: &Manifest, signature: Vec<u8>) -> log::Event {
    let opened = log::Opened { manifest: manifest.as_bytes().to_vec(), signature };
    log::Event { kind: Some(log::event::Kind::Opened(opened)) }
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
        let (person, role) = (self.person.to_string(), self.role.to_string());
        let opinion = |verdict: log::Verdict, reason: &str| {
            let reason = reason.to_owned();
            Some(log::signed::Answer::Opinion(log::Opinion { verdict: verdict.into(), reason }))
        };
        let answer = match &self.answer {
            Answer::None => None,
            Answer::Words(words) => Some(log::signed::Answer::Words(words.clone())),
            Answer::Release(release) => Some(log::signed::Answer::Release(log::Release {
                node: release.node.into(),
                object: release.object.as_bytes().to_vec(),
                sealed: release.sealed.clone(),
            })),
            Answer::Broadcast(confirmation) => Some(log::signed::Answer::Broadcast(log::Confirmation {
                transaction: confirmation.transaction.to_string(),
                block: confirmation.block.as_bytes().to_vec(),
                height: confirmation.height,
            })),
            Answer::Withheld(reason) => Some(log::signed::Answer::Withheld(reason.to_string())),
            Answer::Agree => opinion(log::Verdict::Agree, ""),
            Answer::Disagree(reason) => opinion(log::Verdict::Disagree, reason.as_str()),
            Answer::Withdraw(reason) => {
                let withdrawn = log::Withdrawn { person, role, reason: reason.to_string(), signature };
                return log::Event { kind: Some(log::event::Kind::Withdrawn(withdrawn)) };
            }
        };
        let signed = log::Signed { step: self.step.to_string(), role, person, answer, signature };
        log::Event { kind: Some(log::event::Kind::Signed(signed)) }
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
