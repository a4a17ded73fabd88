//! What a ceremony is about besides its wallet: of each kind one thing, and no other.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{ManifestError, value};
use crate::chain::transaction::Transaction;
use crate::charter::{CeremonyKind, Charter};
use crate::ids::{NodeIndex, UnknownWord};
use crate::inventory::{Item, MAX_ITEMS};
use crate::kinds::Carries;
use crate::wire::log;

/// What a ceremony is about, besides its wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Nothing besides.
    Wallet,
    /// The nodes that have lost their shares, and how each gets its own back.
    Losses(BTreeMap<NodeIndex, Way>),
    /// What is to be signed.
    Transaction(Arc<Transaction>),
    /// The new charter.
    Charter(Arc<Charter>),
    /// Which copies of the generation's shares exist or are gone.
    Copies(Vec<Item>),
}

/// How a node that lost its share gets it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Its custodian, or the escrow trustee, releases its backup.
    Backup,
    /// t other nodes rebuild it; in a rebuild, one enclave does, from their root shares.
    Repair,
}

impl FromStr for Way {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        UnknownWord::read(text, "way of recovery", [Self::Repair, Self::Backup])
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Backup => "backup",
            Self::Repair => "repair",
        })
    }
}

impl Subject {
    /// What a manifest of this kind is about.
    pub(super) fn read(kind: CeremonyKind, wire: &log::Manifest) -> Result<Self, ManifestError> {
        let carries = kind.rules().special.carries;
        for (part, is_there, rule) in [
            (
                Carries::Charter,
                !wire.amendment.is_empty(),
                "an amendment must carry a new charter, and no other ceremony may",
            ),
            (
                Carries::Losses,
                !wire.lost.is_empty(),
                "a recovery or rebuild must name the nodes that lost their shares, and no other ceremony may",
            ),
            (
                Carries::Transaction,
                !wire.transaction.is_empty(),
                "a transfer must carry a transaction, and no other ceremony may",
            ),
            (
                Carries::Copies,
                !wire.inventory.is_empty(),
                "an inventory must have items, and no other ceremony may",
            ),
        ] {
            value(is_there != (part == carries), rule)?;
        }
        Ok(match carries {
            Carries::Nothing => Self::Wallet,
            Carries::Charter => Self::Charter(Arc::new(Charter::parse(&wire.amendment)?)),
            Carries::Losses => Self::Losses(losses(wire)?),
            Carries::Transaction => {
                Self::Transaction(Arc::new(Transaction::parse(&wire.transaction).map_err(Box::new)?))
            }
            Carries::Copies => Self::Copies(copies(wire)?),
        })
    }

    /// Adds it to a manifest that is being written.
    pub(super) fn write(&self, wire: &mut log::Manifest) {
        match self {
            Self::Wallet => {}
            Self::Losses(nodes) => wire.lost = nodes.iter().map(lost).collect(),
            Self::Transaction(transaction) => wire.transaction = transaction.encode(),
            Self::Charter(charter) => wire.amendment = charter.text().into(),
            Self::Copies(items) => wire.inventory = items.iter().map(Item::wire).collect(),
        }
    }
}

fn lost((node, way): (&NodeIndex, &Way)) -> log::Lost {
    let way = match way {
        Way::Backup => log::Way::Backup,
        Way::Repair => log::Way::Repair,
    };
    log::Lost { node: (*node).into(), way: way.into() }
}

/// The lost nodes; where one is repaired, enough others must have their shares, or get them from backups.
fn losses(wire: &log::Manifest) -> Result<BTreeMap<NodeIndex, Way>, ManifestError> {
    let mut lost = BTreeMap::new();
    for entry in &wire.lost {
        let way = match entry.way() {
            log::Way::Backup => Way::Backup,
            log::Way::Repair => Way::Repair,
            log::Way::Unspecified => {
                return Err(ManifestError::Value("a lost node has no known way of recovery".into()));
            }
        };
        value(!wire.roster.contains(&entry.node), "a lost node is not one of the wallet's nodes")?;
        value(lost.insert(NodeIndex::try_from(entry.node)?, way).is_some(), "a lost node is named twice")?;
    }
    let repaired = lost.values().filter(|way| **way == Way::Repair).count();
    let too_few = |nodes: usize| u32::try_from(nodes).is_ok_and(|nodes| nodes < wire.threshold);
    value(
        too_few(wire.roster.len() - repaired),
        "fewer nodes than the threshold have their shares or a backup: the other shares cannot be restored",
    )?;
    Ok(lost)
}

fn copies(wire: &log::Manifest) -> Result<Vec<Item>, ManifestError> {
    value(wire.inventory.len() > MAX_ITEMS, "it has more than 64 items; open another for the rest")?;
    let mut items = Vec::new();
    for item in &wire.inventory {
        let item = Item::parse(item)?;
        value(items.contains(&item), "an item is listed twice")?;
        items.push(item);
    }
    Ok(items)
}
