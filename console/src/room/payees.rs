//! Whom a transaction pays: a wallet of this cluster, or somebody else.

use ceremonies::chain::address::{Address, Network};
use ceremonies::chain::transaction::Transaction;
use ceremonies::curve::{Path, derive};
use ceremonies::wallet::Record;

use super::RoomError;

fn network(transaction: &Transaction) -> Network {
    match transaction {
        Transaction::Evm(transaction) => Network::Ethereum(transaction.transfer().chain),
        Transaction::Bitcoin(transaction) => Network::Bitcoin(transaction.network()),
    }
}

fn payees(transaction: &Transaction) -> Vec<Address> {
    match transaction {
        Transaction::Evm(transaction) => vec![Address::Ethereum(transaction.transfer().to)],
        Transaction::Bitcoin(transaction) => {
            transaction.outputs().iter().map(|output| Address::Bitcoin(output.address)).collect()
        }
    }
}

/// A wallet's addresses as far as a transaction tells of its keys: of its own one, and of those at the paths that sign.
fn addresses(record: &Record, transaction: &Transaction) -> Vec<Address> {
    let paths = transaction.paths().into_iter().chain([Path::default()]);
    let keys = paths.filter_map(|path| derive(&record.public_key, &record.chain_code, &path).ok());
    keys.filter_map(|key| Address::of(network(transaction), &key.public_key).ok()).collect()
}

/// Whether a transaction pays a wallet.
#[must_use]
pub fn pays(transaction: &Transaction, record: &Record) -> bool {
    let own = addresses(record, transaction);
    payees(transaction).iter().any(|payee| own.contains(payee))
}

/// Refuses a transaction of a wallet that pays nobody but that wallet.
///
/// # Errors
/// [`RoomError::PaysItself`].
pub fn must_pay_others(transaction: &Transaction, record: &Record) -> Result<(), RoomError> {
    let (own, payees) = (addresses(record, transaction), payees(transaction));
    match payees.first() {
        Some(first) if payees.iter().all(|payee| own.contains(payee)) => {
            Err(RoomError::PaysItself { wallet: record.wallet.clone(), address: *first })
        }
        Some(_) | None => Ok(()),
    }
}
