//! Transactions that stand in each other's way: of all that have the same nonce of an account, or spend the same output, a
//! network carries out one. Which one is for people to know: nothing here asks a network.

use std::collections::BTreeSet;
use std::fmt;

use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::chain::transaction::Transaction;
use ceremonies::chain::transaction::bitcoin::Outpoint;
use ceremonies::chain::transaction::evm::Evm;
use ceremonies::ids::{CeremonyId, UnixMillis, WalletName};
use ceremonies::statement::Answer;

/// What only one of two transactions can use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shared {
    Nonce(u64),
    Output(Outpoint),
}

impl Shared {
    /// What both transactions of one wallet would use up, if there is any of it.
    fn by(one: &Transaction, other: &Transaction) -> Option<Self> {
        match (one, other) {
            (Transaction::Evm(one), Transaction::Evm(other)) => {
                let account = |evm: &Evm| (evm.path().clone(), evm.transfer().chain, evm.transfer().nonce);
                (account(one) == account(other)).then_some(Self::Nonce(one.transfer().nonce))
            }
            (Transaction::Bitcoin(one), Transaction::Bitcoin(other)) if one.network() == other.network() => {
                let spent: BTreeSet<Outpoint> = other.inputs().iter().map(|input| input.outpoint).collect();
                let mut ours = one.inputs().iter().map(|input| input.outpoint);
                ours.find(|output| spent.contains(output)).map(Self::Output)
            }
            (Transaction::Bitcoin(_), Transaction::Bitcoin(_) | Transaction::Evm(_))
            | (Transaction::Evm(_), Transaction::Bitcoin(_)) => None,
        }
    }
}

/// Another transfer that can be carried out only in the place of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    ceremony: CeremonyId,
    shared: Shared,
    /// The height of the block that it is in, by the word of whoever sent it.
    block: Option<u64>,
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ceremony, shared, block } = self;
        match shared {
            Shared::Nonce(nonce) => write!(f, "same nonce {nonce} as transfer {ceremony}")?,
            Shared::Output(output) => write!(f, "spends {output}, as transfer {ceremony} does")?,
        }
        match block {
            Some(height) => {
                write!(f, ", which is in block {height}: this transaction can no longer be carried out")
            }
            None => f.write_str("; only one of the two can be carried out"),
        }
    }
}

/// The block that a ceremony's transaction is in, by the word of whoever sent it.
fn block(ceremony: &Ceremony) -> Option<u64> {
    ceremony.said_of_broadcast().find_map(|signed| {
        let Answer::Broadcast(confirmation) = &signed.answer else { return None };
        Some(confirmation.height)
    })
}

/// Whether a ceremony's transaction is signed, or may be yet. What was not sent can be sent by whoever has the record.
fn may_be_sent(ceremony: &Ceremony, now: UnixMillis) -> bool {
    let is_over = matches!(ceremony.phase_at(now), Phase::Void(_) | Phase::Abandoned(_));
    ceremony.transaction_id().is_some() || !is_over
}

/// The other transfers of a wallet that can be carried out only in the place of this transaction; those alone that are in
/// a block, if there are any.
#[must_use]
pub fn rivals(book: &Book, wallet: &WalletName, transaction: &Transaction, now: UnixMillis) -> Vec<Rival> {
    let rival = |ceremony: &Ceremony| {
        let manifest = ceremony.manifest();
        let other = manifest.transaction().filter(|_| manifest.wallet == *wallet)?;
        let shared = Shared::by(transaction, other)?;
        let is_another = other.digests() != transaction.digests() && may_be_sent(ceremony, now);
        is_another.then(|| Rival { ceremony: manifest.ceremony.clone(), shared, block: block(ceremony) })
    };
    let rivals: Vec<Rival> = book.iter().filter_map(|(_, chapter)| rival(&chapter.ceremony)).collect();
    let sent: Vec<Rival> = rivals.iter().filter(|rival| rival.block.is_some()).cloned().collect();
    if sent.is_empty() { rivals } else { sent }
}

/// The rivals of a ceremony's own transaction, unless that is in a block or can never be sent.
#[must_use]
pub fn rivals_of(book: &Book, ceremony: &Ceremony, now: UnixMillis) -> Vec<Rival> {
    let manifest = ceremony.manifest();
    match manifest.transaction() {
        Some(transaction) if block(ceremony).is_none() && may_be_sent(ceremony, now) => {
            rivals(book, &manifest.wallet, transaction, now)
        }
        Some(_) | None => Vec::new(),
    }
}
