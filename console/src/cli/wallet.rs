//! Wallets from the command line: keys, addresses, and which copies of their shares exist.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ceremonies::chain::address::{Address, BitcoinNetwork, ChainId, Network};
use ceremonies::charter::ClusterKind;
use ceremonies::curve::{Path, derive};
use ceremonies::ids::{UnixMillis, WalletName};
use ceremonies::wallet::{Record, Wallet};
use ceremonies::words;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Desk, Output, status};
use crate::client::Scope;
use crate::ledger;
use crate::readiness::Readiness;
use crate::room::now;
use crate::standing::unfinished;
use crate::watch::{LISTEN, Watch};

#[derive(Subcommand)]
pub(super) enum WalletCommand {
    /// List every committed wallet.
    List,
    /// Show one wallet: its key, addresses, refresh cadence, and the copies of its shares.
    Show {
        /// Its name.
        name: WalletName,
        /// The path of the key whose addresses to show.
        #[arg(long, default_value = "m")]
        path: Path,
    },
}

pub(super) async fn run(path: Option<PathBuf>, output: Output, command: WalletCommand) -> Result<()> {
    match command {
        WalletCommand::List => list(&Desk::open(path, Scope::Current).await?, output),
        WalletCommand::Show { name, path: below } => {
            show(&Desk::open_wallet(path, &name).await?, output, &name, &below).await
        }
    }
}

fn render(desk: &Desk, wallet: &Wallet) -> Value {
    let record = &wallet.record;
    json!({
        "wallet": record.wallet,
        "generation": record.generation,
        "threshold": record.threshold,
        "nodes": record.roster(),
        "scheme": record.scheme.to_string(),
        "public_key": record.public_key.to_string(),
        "words": words::spoken(&record.fingerprint()),
        "ceremony": record.ceremony,
        "unfinished": unfinished(&desk.book, record, now()).map(|why| why.to_string()),
    })
}

fn list(desk: &Desk, output: Output) -> Result<()> {
    desk.must_be_read()?;
    let wallets = desk.book.wallets();
    let line = |wallet: &Wallet| {
        let record = &wallet.record;
        let due = match desk.book.refresh_due(&record.wallet) {
            Some(due) if due < now() => "  REFRESH OVERDUE",
            _ => "",
        };
        let exposed = desk.book.exposure(&record.wallet).iter().any(|exposure| exposure.warns(now()));
        let exposed = if exposed { "  OLD COPIES REBUILD THE KEY" } else { "" };
        let unfinished = unfinished(&desk.book, record, now()).map(|why| format!("\n  ! {why}"));
        format!(
            "{:<20} generation {}  {}{due}{exposed}{}",
            record.wallet,
            record.generation,
            record.public_key,
            unfinished.unwrap_or_default()
        )
    };
    let lines: Vec<String> = wallets.values().map(line).collect();
    let text =
        if lines.is_empty() { "no wallet has been committed yet".to_owned() } else { lines.join("\n") };
    output.print(&json!(wallets.values().map(|wallet| render(desk, wallet)).collect::<Vec<_>>()), &text)
}

/// The addresses of a key below a wallet's, on the networks that clusters of this kind are for.
fn addresses(record: &Record, kind: ClusterKind, path: &Path) -> Result<Vec<(Network, Address)>> {
    let key = derive(&record.public_key, &record.chain_code, path)?.public_key;
    let bitcoin = match kind {
        ClusterKind::Production => BitcoinNetwork::Main,
        ClusterKind::Rehearsal => BitcoinNetwork::Testnet,
        ClusterKind::Lab => BitcoinNetwork::Regtest,
    };
    let networks = [Network::Ethereum(ChainId::new(1)?), Network::Bitcoin(bitcoin)];
    networks.into_iter().map(|network| Ok((network, Address::of(network, &key)?))).collect()
}

fn refresh_line(due: Option<UnixMillis>) -> String {
    match due {
        None => "the charter sets no refresh cadence".to_owned(),
        Some(due) if due < now() => format!(
            "OVERDUE since {due}: an attacker who gathers shares slowly has had longer than the charter allows"
        ),
        Some(due) => format!("due at {due}"),
    }
}

/// Whether a wallet can sign, by what its nodes say of their shares now: as `custody status` has it.
async fn readiness(desk: &Desk, wallet: &Wallet) -> Result<Readiness> {
    let mut watch = Watch::begin(desk.client.clone(), desk.book.clone()).await?;
    let health = status::settled(&mut watch, &wallet.record.roster(), LISTEN).await?;
    let of = health.wallets.into_iter().find(|readiness| readiness.wallet == wallet.record.wallet);
    of.context("the wallet is not in the record any more")
}

async fn show(desk: &Desk, output: Output, name: &WalletName, path: &Path) -> Result<()> {
    let wallet = desk.wallet(name)?;
    let readiness = readiness(desk, &wallet).await?;
    let record = &wallet.record;
    let kind = desk.book.context().charter().kind();
    let addresses = addresses(record, kind, path)?;
    let exposure = desk.book.exposure(name);
    let due = desk.book.refresh_due(name);
    let mut text = format!(
        "wallet      {}\ngeneration  {}\nsigned by   {} of {}\nscheme      {}\npublic key  {}\nwords       {}\nmade by     {}\n\
         refresh     {}\n",
        record.wallet,
        record.generation,
        record.threshold,
        record.public_shares.len(),
        record.scheme,
        record.public_key,
        words::spoken(&record.fingerprint()),
        record.ceremony,
        refresh_line(due),
    );
    text += &format!("signing     {} {}\n", readiness.can_sign.mark(), readiness.text());
    if let Some(why) = unfinished(&desk.book, record, now()) {
        text += &format!("standing    ! {why}\n");
    }
    for (network, address) in &addresses {
        text += &format!("address     {address}  ({path}, {network})\n");
    }
    for row in exposure.iter().rev().flat_map(|exposure| ledger::rows(exposure, now())) {
        text += &format!("{}\n", row.text);
    }
    let mut value = render(desk, &wallet);
    value["signing"] = status::wallet(&readiness);
    value["path"] = json!(path);
    value["addresses"] =
        addresses.iter().map(|(network, address)| (network.to_string(), address.to_string())).collect();
    value["refresh_due"] = json!(due.map(|due| due.to_string()));
    value["exposure"] = json!(exposure);
    output.print(&value, text.trim_end())
}
