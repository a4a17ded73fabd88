//! Building a transaction from a wallet: a dust transfer, or a sweep to a wallet whose key is safe.
//!
//! No network is asked: balances, nonces and fees are given, and everything is shown before anyone signs.

mod link;

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use ceremonies::book::Book;
use ceremonies::chain::address::{
    Address, BitcoinAddress, BitcoinNetwork, BitcoinRecipient, ChainId, EthereumAddress, Network,
};
use ceremonies::chain::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output as Payment, Txid};
use ceremonies::chain::transaction::evm::{Evm, Transfer};
use ceremonies::chain::transaction::{Sats, Transaction, Wei};
use ceremonies::curve::{Path, derive};
use ceremonies::ids::WalletName;
use ceremonies::text::one_line;
use ceremonies::wallet::Record;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use self::link::{must_ask_for, not_taken};
use super::{Desk, Output, note};
use crate::client::Scope;
use crate::file::{Readers, write_new};
use crate::room::{self, now};
use crate::standing::unfinished;

#[derive(Args)]
#[command(group = ArgGroup::new("payee").required(true).args(["to_wallet", "to"]))]
pub(super) struct SweepArguments {
    /// The wallet that pays.
    #[arg(long)]
    wallet: WalletName,
    /// The wallet that is paid, at the same path.
    #[arg(long)]
    to_wallet: Option<WalletName>,
    /// The address that is paid, or a payment link that contains it (BIP-21, EIP-681). If the link names an amount, it must
    /// be the one that is paid.
    #[arg(long)]
    to: Option<String>,
    /// The path of the paying key.
    #[arg(long, default_value = "m")]
    path: Path,
    /// The file to write; an existing file is not overwritten.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(subcommand)]
    chain: Chain,
}

#[derive(Subcommand)]
enum Chain {
    /// On Ethereum or another EVM chain.
    #[command(group = ArgGroup::new("amount").required(true).args(["balance", "value"]))]
    Evm {
        /// The chain id.
        #[arg(long)]
        chain: u64,
        /// The account's nonce: how many transactions it has sent.
        #[arg(long)]
        nonce: u64,
        /// The account's balance, in wei: all of it is sent, less the fees.
        #[arg(long)]
        balance: Option<u128>,
        /// The value to send, in wei.
        #[arg(long)]
        value: Option<u128>,
        /// The maximum fee per gas, in wei.
        #[arg(long)]
        max_fee: u128,
        /// The maximum priority fee per gas, in wei.
        #[arg(long)]
        tip: u128,
        /// The gas limit.
        #[arg(long, default_value_t = 21_000)]
        gas: u64,
    },
    /// On Bitcoin, from P2WPKH addresses to any kind of address.
    Bitcoin {
        /// bitcoin, bitcoin-testnet or bitcoin-regtest.
        #[arg(long, default_value = "bitcoin")]
        network: Network,
        /// An output to spend, as TXID:INDEX:SATOSHI; repeat it for each output.
        #[arg(long = "input", required = true)]
        inputs: Vec<String>,
        /// The fee in satoshi; the rest is sent.
        #[arg(long)]
        fee: u64,
    },
}

impl Chain {
    fn network(&self) -> Result<Network> {
        Ok(match self {
            Self::Evm { chain, .. } => Network::Ethereum(ChainId::new(*chain)?),
            Self::Bitcoin { network, .. } => *network,
        })
    }
}

/// Who is paid, on a network.
fn paid(arguments: &SweepArguments, to: Option<&Record>, network: Network) -> Result<Address> {
    match (to, &arguments.to) {
        (Some(record), _) => address(record, &arguments.path, network),
        (None, Some(text)) => Ok(Address::parse(network, text)?),
        (None, None) => bail!("no recipient: give --to-wallet or --to"),
    }
}

fn address(record: &Record, path: &Path, network: Network) -> Result<Address> {
    Ok(Address::of(network, &derive(&record.public_key, &record.chain_code, path)?.public_key)?)
}

fn ethereum(address: Address) -> Result<EthereumAddress> {
    match address {
        Address::Ethereum(address) => Ok(address),
        Address::Bitcoin(_) => bail!("that is a Bitcoin address"),
    }
}

fn bitcoin(address: Address) -> Result<BitcoinRecipient> {
    match address {
        Address::Bitcoin(address) => Ok(address),
        Address::Ethereum(_) => bail!("that is an Ethereum address"),
    }
}

fn build(arguments: &SweepArguments, from: &Record, to: Option<&Record>) -> Result<Transaction> {
    match &arguments.chain {
        Chain::Evm { chain, nonce, balance, value, max_fee, tip, gas } => {
            let chain = ChainId::new(*chain)?;
            let fees =
                max_fee.checked_mul(u128::from(*gas)).context("the fees are too large to be counted")?;
            let value = match (value, balance) {
                (Some(value), _) => *value,
                (None, Some(balance)) => {
                    balance.checked_sub(fees).context("the balance does not cover the fees")?
                }
                (None, None) => bail!("no amount: give --balance or --value"),
            };
            let transfer = Transfer {
                chain,
                nonce: *nonce,
                max_priority_fee: Wei(*tip),
                max_fee: Wei(*max_fee),
                gas_limit: *gas,
                to: ethereum(paid(arguments, to, Network::Ethereum(chain))?)?,
                value: Wei(value),
            };
            Ok(Transaction::Evm(Evm::new(arguments.path.clone(), transfer)?))
        }
        Chain::Bitcoin { network, inputs, fee } => {
            let Network::Bitcoin(bitcoin_network) = *network else {
                bail!("{network} is not a Bitcoin network")
            };
            let own = derive(&from.public_key, &from.chain_code, &arguments.path)?.public_key;
            let own = BitcoinAddress::of(bitcoin_network, &own);
            let inputs: Vec<Input> =
                inputs.iter().map(|text| input(text, &own, &arguments.path)).collect::<Result<_>>()?;
            let total = inputs.iter().try_fold(0_u64, |sum, input| sum.checked_add(input.amount.0));
            let total = total.context("the inputs exceed all the bitcoin there can be")?;
            let amount = Sats(total.checked_sub(*fee).context("the fee exceeds the sum of the inputs")?);
            let output = Payment { amount, address: bitcoin(paid(arguments, to, *network)?)? };
            on_bitcoin(bitcoin_network, inputs, output)
        }
    }
}

fn on_bitcoin(network: BitcoinNetwork, inputs: Vec<Input>, output: Payment) -> Result<Transaction> {
    Ok(Transaction::Bitcoin(Bitcoin::new(network, inputs, vec![output])?))
}

fn input(text: &str, own: &BitcoinAddress, path: &Path) -> Result<Input> {
    let wrong = |what: String| anyhow!("--input {}: {what}", one_line(text));
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let [txid, index, amount] = parts.as_slice() else {
        return Err(wrong("that is not TXID:INDEX:SATOSHI".to_owned()));
    };
    let mut id = [0; 32];
    hex::decode_to_slice(txid, &mut id)
        .map_err(|_| wrong(format!("`{txid}` is not a transaction id: 64 hexadecimal digits")))?;
    // People write a transaction's id with its bytes reversed.
    id.reverse();
    let index = index.parse().map_err(|_| {
        wrong(format!(
            "`{index}` is not the place of an output: a whole number from 0, as your node lists it"
        ))
    })?;
    let amount = amount.parse().map_err(|_| {
        wrong(format!(
            "`{amount}` is not an amount in satoshi: a whole number, where 1 bitcoin is 100000000 satoshi"
        ))
    })?;
    Ok(Input {
        outpoint: Outpoint { txid: Txid(id), index },
        amount: Sats(amount),
        address: *own,
        path: path.clone(),
    })
}

/// Which of this cluster's own wallets is paid, if one is.
///
/// # Errors
/// It is the one that is swept, or it is not finished.
fn own_wallet_paid(
    book: &Book,
    transaction: &Transaction,
    paying: &WalletName,
) -> Result<Option<WalletName>> {
    let wallets = book.wallets().into_values().map(|wallet| wallet.record);
    let Some(record) = wallets.into_iter().find(|record| room::pays(transaction, record)) else {
        return Ok(None);
    };
    if record.wallet == *paying {
        room::must_pay_others(transaction, &record).context("nothing was written")?;
    }
    if let Some(why) = unfinished(book, &record, now()) {
        bail!("wallet {} is paid, and it is {why}; nothing was written", record.wallet);
    }
    Ok(Some(record.wallet))
}

/// How much a transaction of this command pays.
fn amount(transaction: &Transaction) -> u128 {
    match transaction {
        Transaction::Evm(transaction) => transaction.transfer().value.0,
        Transaction::Bitcoin(transaction) => {
            transaction.outputs().iter().map(|output| u128::from(output.amount.0)).sum()
        }
    }
}

pub(super) async fn run(path: Option<PathBuf>, output: Output, arguments: SweepArguments) -> Result<()> {
    let desk = Desk::open(path, Scope::Current).await?;
    let from = desk.wallet(&arguments.wallet)?.record;
    let to = arguments.to_wallet.as_ref().map(|name| desk.wallet(name)).transpose()?;
    let transaction = build(&arguments, &from, to.map(|wallet| wallet.record).as_ref())?;
    let own = own_wallet_paid(&desk.book, &transaction, &arguments.wallet)?;
    transaction.keys(&from.public_key, &from.chain_code)?;
    if let Some(link) = &arguments.to {
        let network = arguments.chain.network()?;
        must_ask_for(link, network, amount(&transaction))?;
        if let Some(left) = not_taken(link, network) {
            note(&left);
        }
    }
    note(&match &own {
        Some(wallet) => format!("note: what is paid goes to this cluster's wallet {wallet}"),
        None => "note: what is paid goes to none of this cluster's wallets at this path".to_owned(),
    });
    for rival in room::rivals(&desk.book, &arguments.wallet, &transaction, now()) {
        note(&format!("WARNING: {rival}"));
    }
    write_new(&arguments.output, &transaction.encode(), Readers::Anyone)?;
    let text = format!(
        "{}\n\nwritten to {}; open its ceremony with\n  custody ceremony open transfer --wallet {} --transaction {} \
         --purpose TEXT",
        transaction.words().join("\n"),
        arguments.output.display(),
        arguments.wallet,
        arguments.output.display()
    );
    output.print(&json!({ "words": transaction.words(), "file": arguments.output, "own_wallet": own }), &text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use clap::Parser;

    use super::super::recorded::{CLOSED, book};
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: SweepArguments,
    }

    /// Arguments to pay with another wallet than the recorded one.
    fn arguments(paid: &[&str], chain: &[&str]) -> SweepArguments {
        let from = ["sweep", "--wallet", "old", "-o", "t.bin"];
        Line::try_parse_from([&from, paid, chain].concat()).unwrap().arguments
    }

    const EVM: [&str; 11] = [
        "evm",
        "--chain",
        "1",
        "--nonce",
        "0",
        "--value",
        "5",
        "--max-fee",
        "2000000000",
        "--tip",
        "1000000000",
    ];
    const BITCOIN: [&str; 5] = [
        "bitcoin",
        "--input",
        "0101010101010101010101010101010101010101010101010101010101010101:0:50000",
        "--fee",
        "500",
    ];

    fn refused(book: &Book, arguments: &SweepArguments) -> Option<String> {
        let record = book.wallets().into_values().next().unwrap().record;
        let transaction = build(arguments, &record, arguments.to_wallet.as_ref().map(|_| &record)).unwrap();
        let paid = own_wallet_paid(book, &transaction, &arguments.wallet);
        paid.err().map(|refused| format!("{refused:#}"))
    }

    #[test]
    fn wallet_of_ones_own_is_paid_only_when_it_is_finished_however_it_is_named() {
        let (unfinished, finished) = (book(CLOSED - 1), book(CLOSED));
        let record = finished.wallets().into_values().next().unwrap().record;
        let own =
            |network: &str| address(&record, &Path::default(), network.parse().unwrap()).unwrap().to_string();
        for (network, chain) in [("ethereum-1", &EVM[..]), ("bitcoin", &BITCOIN)] {
            for paid in [["--to-wallet", record.wallet.as_str()], ["--to", &own(network)]] {
                let arguments = arguments(&paid, chain);
                let said = refused(&unfinished, &arguments).unwrap();
                assert!(said.contains("NOT FINISHED, do not fund it: not done: "), "{said}");
                assert!(
                    said.contains(record.wallet.as_str()) && said.ends_with("nothing was written"),
                    "{said}"
                );
                assert_eq!(refused(&finished, &arguments), None, "{network} {paid:?}");
            }
        }
    }

    #[test]
    fn nobody_is_paid_at_a_reserved_address_and_strangers_are() {
        let book = book(CLOSED - 1);
        let record = book.wallets().into_values().next().unwrap().record;
        for last in ["00", "01", "11", "ff"] {
            let nobody = format!("0x{}{last}", "0".repeat(38));
            let nobody =
                EthereumAddress::from(<[u8; 20]>::try_from(hex::decode(&nobody[2..]).unwrap()).unwrap());
            for to in [nobody.to_string(), format!("ethereum:{nobody}@1?value=1")] {
                let said = build(&arguments(&["--to", &to], &EVM), &record, None).unwrap_err().to_string();
                assert!(said.contains("is nobody's") && said.contains("lost"), "{to}: {said}");
            }
        }
        let stranger = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        assert_eq!(refused(&book, &arguments(&["--to", stranger], &EVM)), None);
        let stranger = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
        assert_eq!(refused(&book, &arguments(&["--to", stranger], &BITCOIN)), None);
    }

    #[test]
    fn wallet_that_is_emptied_is_not_paid_however_it_is_named() {
        let book = book(CLOSED);
        let record = book.wallets().into_values().next().unwrap().record;
        let own = address(&record, &Path::default(), "ethereum-1".parse().unwrap()).unwrap().to_string();
        for paid in [["--to-wallet", record.wallet.as_str()], ["--to", &own]] {
            let arguments = SweepArguments { wallet: record.wallet.clone(), ..arguments(&paid, &EVM) };
            let said = refused(&book, &arguments).unwrap();
            assert!(said.contains("nothing would leave it") && said.contains(&own), "{said}");
        }
    }

    #[test]
    fn input_that_is_none_is_refused_with_the_part_that_is_wrong() {
        let record = book(CLOSED).wallets().into_values().next().unwrap().record;
        let id = "01".repeat(32);
        for (text, why) in [
            (format!("{id}:0"), "not TXID:INDEX:SATOSHI"),
            (format!("{id}:0:1:2"), "not TXID:INDEX:SATOSHI"),
            (format!("{}:0:50000", &id[2..]), "not a transaction id"),
            (format!("0x{}:0:50000", &id[2..]), "not a transaction id"),
            (format!("{id}:-1:50000"), "`-1` is not the place of an output"),
            (format!("{id}:4294967296:50000"), "not the place of an output"),
            (format!("{id}:0:0.5"), "`0.5` is not an amount in satoshi"),
            (format!("{id}:0:-5"), "not an amount in satoshi"),
            (format!("{id}:0:18446744073709551616"), "not an amount in satoshi"),
            (format!("{}:0:50000", "00".repeat(32)), "cannot exist"),
        ] {
            let chain = ["bitcoin", "--input", &text, "--fee", "500"];
            let own = ["--to", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"];
            let said = build(&arguments(&own, &chain), &record, None).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn amount_in_a_payment_link_is_the_one_that_is_paid() {
        let record = book(CLOSED).wallets().into_values().next().unwrap().record;
        let address = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
        let ether = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        let taken = |to: &str, chain: &[&str]| {
            let arguments = arguments(&["--to", to], chain);
            let paid = amount(&build(&arguments, &record, None).unwrap());
            must_ask_for(to, arguments.chain.network().unwrap(), paid).map_err(|refused| refused.to_string())
        };
        for link in [
            address.to_owned(),
            format!("bitcoin:{address}?label=rent"),
            format!("bitcoin:{address}?amount=0.000495&label=rent"),
            format!("BITCOIN:{address}?AMOUNT=.00049500"),
        ] {
            assert_eq!(taken(&link, &BITCOIN), Ok(()), "{link}");
        }
        let said = taken(&format!("bitcoin:{address}?amount=20.3"), &BITCOIN).unwrap_err();
        assert!(said.contains("asks for 2030000000 sat") && said.contains("would pay 49500 sat"), "{said}");
        for link in ["", "@1", "?value=5", "@1?gas=1&value=5e0", "?value=0.5e1"] {
            assert_eq!(taken(&format!("ethereum:{ether}{link}"), &EVM), Ok(()), "{link}");
        }
        let said = taken(&format!("ethereum:{ether}@1?value=2.014e18"), &EVM).unwrap_err();
        assert!(
            said.contains("asks for 2014000000000000000 wei") && said.contains("would pay 5 wei"),
            "{said}"
        );
    }
}
