//! What people enter in the exposure ledger, as they write it on a command line. Whether it can be true is for the
//! book.

use anyhow::{Context as _, Result, anyhow};
use ceremonies::book::Book;
use ceremonies::ids::{CeremonyId, Generation, Line, NodeIndex, WalletName};
use ceremonies::inventory::{Change, Item};
use ceremonies::manifest::Origin;
use clap::Args;

use crate::room::{RoomError, Topic};

/// A copy of a node's share: whose, and which.
type Named = (NodeIndex, Line);

/// The items of an inventory.
#[derive(Debug, Args)]
pub struct Entries {
    /// The generation that an inventory is about.
    #[arg(long)]
    generation: Option<u32>,
    /// The ceremony that made it, if two made a generation of this number.
    #[arg(long, value_name = "ID", requires = "generation")]
    made_by: Option<CeremonyId>,
    /// For an inventory: a sheet of paper that was printed. Repeat this option and those below for each item.
    #[arg(long, value_name = "NODE=SERIAL", value_parser = serial, requires = "generation")]
    sheet: Vec<Named>,
    /// A sheet that was destroyed.
    #[arg(long, value_name = "NODE=SERIAL", value_parser = serial, requires = "generation")]
    sheet_destroyed: Vec<Named>,
    /// A backup that was deleted after the end of its lock, by its name in `custody wallet show`.
    #[arg(long, value_name = "NODE=KEY", value_parser = serial, requires = "generation")]
    backup_deleted: Vec<Named>,
    /// A destroyed disk or machine that had the store of this node on it.
    #[arg(long, value_name = "NODE=WHAT", value_parser = named, requires = "generation")]
    store_destroyed: Vec<Named>,
    /// A copy that nobody had counted, such as a stolen disk.
    #[arg(long, value_name = "NODE=WHAT", value_parser = named, requires = "generation")]
    found: Vec<Named>,
    /// Such a copy that was destroyed, in the same words.
    #[arg(long, value_name = "NODE=WHAT", value_parser = named, requires = "generation")]
    found_destroyed: Vec<Named>,
    /// The recipient of an age identity that was destroyed.
    #[arg(long, value_name = "age1…", requires = "generation")]
    identity_destroyed: Vec<Line>,
}

/// Reads `4=S-0007`, where the part after `=` is compared letter by letter.
fn serial(text: &str) -> Result<Named> {
    let (node, what) = named(text)?;
    Ok((node, Change::SheetPrinted.named(what)?))
}

/// Reads `4=laptop stolen in May`.
fn named(text: &str) -> Result<Named> {
    let (node, what) = text.split_once('=').context("write the node and the item: 4=S-0007")?;
    let index = node.trim().parse().map_err(|_| anyhow!("`{node}` is not a node: write 4=S-0007"))?;
    Ok((index, what.trim().parse().map_err(|error| anyhow!("`{what}`: {error}"))?))
}

impl Entries {
    /// Whether no part of an inventory is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.generation.is_none()
    }

    /// An inventory of a wallet with these items.
    ///
    /// # Errors
    /// [`RoomError`] when no generation is given, or not exactly one ceremony made it.
    pub fn topic(self, book: &Book, wallet: WalletName) -> Result<Topic, RoomError> {
        let generation = Generation(self.generation.ok_or(RoomError::Generation)?);
        let origin = made(book, &wallet, generation, self.made_by.as_ref())?;
        let copies = [
            (Change::SheetPrinted, self.sheet),
            (Change::CopyFound, self.found),
            (Change::SheetDestroyed, self.sheet_destroyed),
            (Change::BackupDeleted, self.backup_deleted),
            (Change::StoreDestroyed, self.store_destroyed),
            (Change::CopyDestroyed, self.found_destroyed),
        ];
        let copies = copies.into_iter().flat_map(|(change, named)| {
            named.into_iter().map(move |(node, what)| Item::Copy { node, change, what })
        });
        let identities = self.identity_destroyed.into_iter();
        let identities = identities.map(|recipient| Item::IdentityDestroyed { recipient });
        Ok(Topic::copies(wallet, generation, origin, copies.chain(identities).collect()))
    }
}

/// The one ceremony that made this generation.
fn made(
    book: &Book,
    wallet: &WalletName,
    generation: Generation,
    by: Option<&CeremonyId>,
) -> Result<Origin, RoomError> {
    let mut ledger = book.exposure(wallet);
    ledger.retain(|made| made.generation == generation && by.is_none_or(|by| made.ceremony == *by));
    let none = || RoomError::NoGeneration { wallet: wallet.clone(), generation };
    match ledger.as_slice() {
        [] => Err(none()),
        [made] => {
            let chapter = book.get(&made.ceremony);
            let record = chapter.and_then(|chapter| chapter.ceremony.made()).ok_or_else(none)?.record;
            Ok(Origin { ceremony: made.ceremony.clone(), record: record.digest() })
        }
        several => {
            let by: Vec<&str> = several.iter().map(|made| made.ceremony.as_str()).collect();
            Err(RoomError::MadeTwice { generation, by: by.join(", ") })
        }
    }
}

/// The command that enters a sheet, for a shell.
#[must_use]
pub fn entering(wallet: &WalletName, generation: Generation, node: NodeIndex, serial: &Line) -> String {
    format!(
        "custody ceremony open inventory --wallet {wallet} --generation {generation} --sheet {} \
         --purpose 'A sheet was printed'",
        quoted(&format!("{node}={serial}")),
    )
}

/// Text as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=.,/:@".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
