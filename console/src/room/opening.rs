//! Opening a ceremony: what it is to be about, and the manifest and statement that follow from that.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, Phase, opening_statement};
use ceremonies::chain::transaction::{Transaction, TransactionError};
use ceremonies::charter::{CeremonyKind, Charter, Role};
use ceremonies::ids::{CeremonyId, Generation, Line, NodeIndex, PersonName, WalletName};
use ceremonies::inventory::{Change, Item};
use ceremonies::manifest::{Manifest, Origin, Proposal, Subject, Way};
use ceremonies::script::Script;
use ceremonies::subsets::{Subset, subsets};
use ceremonies::wallet::Record;

use super::{RoomError, must_be_among, must_pay_others, no_wallet, now, wallet};

/// What a ceremony is to be about: the part of its manifest that somebody chooses.
#[derive(Debug, Clone)]
pub struct Topic {
    /// What kind of ceremony.
    pub kind: CeremonyKind,
    /// The wallet; for an amendment, what stands in its place.
    pub wallet: WalletName,
    /// What it is about besides.
    pub subject: Subject,
    /// Who signs a transfer; in all others every node takes part.
    pub signers: Option<Vec<NodeIndex>>,
    /// The generation that an inventory speaks of, and what made it; for all others it follows from the record.
    pub past: Option<(Generation, Origin)>,
}

impl Topic {
    /// A wallet, and nothing besides.
    #[must_use]
    pub fn of(kind: CeremonyKind, wallet: WalletName) -> Self {
        Self { kind, wallet, subject: Subject::Wallet, signers: None, past: None }
    }

    /// A wallet, and the nodes that lost their shares of it.
    #[must_use]
    pub fn losses(kind: CeremonyKind, wallet: WalletName, lost: BTreeMap<NodeIndex, Way>) -> Self {
        Self { subject: Subject::Losses(lost), ..Self::of(kind, wallet) }
    }

    /// A new charter.
    #[must_use]
    pub fn charter(next: Arc<Charter>) -> Self {
        let subject = Subject::Charter(next);
        Self { subject, ..Self::of(CeremonyKind::Amend, WalletName::of_the_charter()) }
    }

    /// Which copies of one generation's shares exist or are gone: of the one in use, or a past one.
    #[must_use]
    pub fn copies(wallet: WalletName, generation: Generation, origin: Origin, items: Vec<Item>) -> Self {
        let past = Some((generation, origin));
        Self { subject: Subject::Copies(items), past, ..Self::of(CeremonyKind::Inventory, wallet) }
    }

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
            (CeremonyKind::Amend, None, Some(charter)) => {
                Ok(Self::charter(Arc::new(Charter::parse(charter)?)))
            }
            (CeremonyKind::Amend, _, _) => Err(RoomError::Subject(kind, "charter")),
            (CeremonyKind::Inventory, _, _) => Err(RoomError::Generation),
            (CeremonyKind::Transfer, _, _) => Err(RoomError::NoTransaction),
            (_, Some(wallet), None) if lost.is_empty() => Ok(Self::of(kind, wallet)),
            (_, Some(wallet), None) => Ok(Self::losses(kind, wallet, lost)),
            (_, _, _) => Err(RoomError::Subject(kind, "wallet")),
        }
    }
}

/// The ceremony in which this very transaction was signed, or may yet be: with whichever wallet, a second signature moves
/// the same payment again, or another wallet's.
fn carried_by<'a>(book: &'a Book, transaction: &Transaction) -> Option<&'a CeremonyId> {
    let digests = transaction.digests();
    let carries = |ceremony: &Ceremony| {
        let carried = ceremony.manifest().transaction();
        let is_over = matches!(ceremony.phase_at(now()), Phase::Void(_) | Phase::Abandoned(_));
        carried.is_some_and(|carried| carried.digests() == digests)
            && (ceremony.transaction_id().is_some() || !is_over)
    };
    book.iter().find(|(_, chapter)| carries(&chapter.ceremony)).map(|(id, _)| id)
}

/// What bytes are instead of a transaction as `custody sweep` writes it, as far as they tell.
fn seems(bytes: &[u8]) -> Option<&'static str> {
    let text = std::str::from_utf8(bytes).ok().map(str::trim);
    let text = text.filter(|text| !text.contains(|c: char| c.is_control() && !c.is_whitespace()));
    Some(match text {
        Some("") => "empty",
        Some(text) if text.starts_with('{') || text.starts_with('[') => "JSON",
        Some(text) if text.starts_with("-----BEGIN ") => "a key, signature or certificate",
        Some(text) if text.starts_with("0x") || text.bytes().all(|c| c.is_ascii_hexdigit()) => {
            "a transaction or hash in hexadecimal digits"
        }
        Some(_) => "text",
        None if bytes.starts_with(b"PK") => "a zip archive, such as an evidence bundle",
        None if Manifest::parse(bytes).is_ok() => "the manifest of a ceremony",
        // The type of EIP-1559, then a list.
        None if matches!(bytes, [2, 0xc0..=0xff, ..]) => "the bare bytes of an Ethereum transaction",
        None => return None,
    })
}

/// Reads the file of a transaction. One of another kind is refused with what it is, and not with what its first byte would
/// stand for.
fn read_transaction(bytes: &[u8]) -> Result<Transaction, RoomError> {
    Transaction::parse(bytes).map_err(|error| match seems(bytes) {
        Some(seems) if !matches!(error, TransactionError::TooLarge(_)) => RoomError::NotATransaction(seems),
        Some(_) | None => error.into(),
    })
}

/// A transfer of this transaction, signed by these nodes; if none are given, by the first that can sign together.
///
/// # Errors
/// [`RoomError`] for bytes that are not a transaction, one that pays the wallet itself or was signed before, or a wallet
/// that is not known.
pub fn transfer(
    book: &Book,
    wallet: WalletName,
    transaction: &[u8],
    signers: Vec<NodeIndex>,
) -> Result<Topic, RoomError> {
    let transaction = read_transaction(transaction)?;
    if let Some(id) = carried_by(book, &transaction) {
        return Err(RoomError::SignedBefore(id.clone()));
    }
    let record = super::wallet(book, &wallet)?.record;
    must_pay_others(&transaction, &record)?;
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
    let subject = Subject::Transaction(Arc::new(transaction));
    Ok(Topic { subject, signers: Some(signers), ..Topic::of(CeremonyKind::Transfer, wallet) })
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

/// Refuses an inventory that would cross out a store from which its node signs.
fn must_strike_no_store_in_use(in_use: &Record, origin: &Origin, items: &[Item]) -> Result<(), RoomError> {
    let struck = items.iter().find_map(|item| match item {
        Item::Copy { node, change: Change::StoreDestroyed, .. } => Some(*node),
        Item::Copy { .. } | Item::IdentityDestroyed { .. } => None,
    });
    match struck {
        Some(node) if in_use.ceremony == origin.ceremony => {
            Err(RoomError::StoreInUse { wallet: in_use.wallet.clone(), generation: in_use.generation, node })
        }
        Some(_) | None => Ok(()),
    }
}

/// What somebody wants to open.
#[derive(Debug, Clone)]
pub struct Opening {
    /// What it is to be about.
    pub topic: Topic,
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
    let Topic { kind, wallet: name, subject, signers, past } = &opening.topic;
    let script = Script::builtin(*kind)?;
    let opened = now();
    match subject {
        Subject::Losses(lost) => {
            let roster = wallet(book, name)?.record.roster();
            lost.keys().try_for_each(|node| must_be_among(*node, &roster, "this wallet"))?;
        }
        Subject::Charter(next) => charter.check_amendment(next)?,
        Subject::Wallet | Subject::Transaction(_) | Subject::Copies(_) => {}
    }
    let (generation, origin) = match past {
        Some((generation, origin)) => (*generation, Some(origin.clone())),
        None => book.works_on(*kind, name, opened).ok_or_else(|| no_wallet(book, name))?,
    };
    let manifest = Proposal {
        kind: *kind,
        wallet: name.clone(),
        purpose: opening.purpose.clone(),
        administrator: opening.administrator.clone(),
        opened,
        lifetime_ms: opening.lifetime_ms,
        nonce: rand::random(),
        generation,
        origin,
        subject: subject.clone(),
        signers: signers.clone(),
    }
    .manifest(charter, &script)?;
    book.check_opening(&manifest, opened)?;
    if let (Subject::Copies(items), Some((_, origin))) = (subject, past) {
        must_strike_no_store_in_use(&wallet(book, name)?.record, origin, items)?;
    }
    let statement = opening_statement(&manifest, charter, &script)?;
    Ok((manifest, statement))
}
