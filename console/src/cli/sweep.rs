//! Building a transaction from a wallet: a dust transfer, or a sweep to a wallet whose key is safe.
//!
//! No network is asked: balances, nonces and fees are given, and everything is shown before anyone signs.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use ceremonies::address::{
    Address, BitcoinAddress, BitcoinNetwork, BitcoinRecipient, ChainId, EthereumAddress, Network, Path,
    derive,
};
use ceremonies::ids::WalletName;
use ceremonies::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output as Payment, Txid};
use ceremonies::transaction::evm::{Evm, Transfer};
use ceremonies::transaction::{Sats, Transaction, Wei};
use ceremonies::wallet::{Record, Wallet};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Desk, Output};
use crate::client::Scope;
use crate::file::{Readers, write_new};

#[derive(Args)]
pub(super) struct SweepArguments {
    /// The wallet that pays.
    #[arg(long)]
    wallet: WalletName,
    /// The wallet that is paid, at the same path.
    #[arg(long, required_unless_present = "to", conflicts_with = "to")]
    to_wallet: Option<WalletName>,
    /// The address that is paid, or a payment link that contains it (BIP-21, EIP-681).
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
    Evm {
        /// The chain id.
        #[arg(long)]
        chain: u64,
        /// The account's nonce: how many transactions it has sent.
        #[arg(long)]
        nonce: u64,
        /// The account's balance, in wei: all of it is sent, less the fees.
        #[arg(long, required_unless_present = "value", conflicts_with = "value")]
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
    let parts: Vec<&str> = text.split(':').collect();
    let [txid, index, amount] = parts.as_slice() else { bail!("`{text}` is not TXID:INDEX:SATOSHI") };
    // People write a transaction's id with its bytes reversed.
    let mut id: [u8; 32] = hex::decode(txid)?.try_into().ok().context("a transaction id has 32 bytes")?;
    id.reverse();
    Ok(Input {
        outpoint: Outpoint { txid: Txid(id), index: index.parse()? },
        amount: Sats(amount.parse()?),
        address: *own,
        path: path.clone(),
    })
}

pub(super) async fn run(path: Option<PathBuf>, output: Output, arguments: SweepArguments) -> Result<()> {
    let desk = Desk::open(path, Scope::Current).await?;
    let wallet = |name: &WalletName| -> Result<Wallet> {
        desk.book.wallet(name).with_context(|| format!("wallet `{name}` is not committed"))
    };
    let from = wallet(&arguments.wallet)?.record;
    let to = arguments.to_wallet.as_ref().map(wallet).transpose()?.map(|wallet| wallet.record);
    let transaction = build(&arguments, &from, to.as_ref())?;
    transaction.keys(&from.public_key, &from.chain_code)?;
    write_new(&arguments.output, &transaction.encode(), Readers::Anyone)?;
    let text = format!(
        "{}\n\nwritten to {}; open its ceremony with\n  custody ceremony open transfer --wallet {} --transaction {} \
         --purpose TEXT",
        transaction.words().join("\n"),
        arguments.output.display(),
        arguments.wallet,
        arguments.output.display()
    );
    output.print(&json!({ "words": transaction.words(), "file": arguments.output }), &text)
}
