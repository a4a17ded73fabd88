//! What inventories enter in the exposure ledger.
//!
//! Whether an item can be true is decided here once, for those who open an inventory and for the ledger. An opening is
//! refused for an item that does not fit. In the ledger such an item has no effect: it was overtaken, and the ledger
//! must follow from the logs alone, in whatever order they arrived. No item may ever take a copy off the list.

use thiserror::Error;

use super::Book;
use super::exposure::{Copy, Exposure, Page, Place};
use crate::ceremony::{Ceremony, Phase};
use crate::charter::{BackupRules, CeremonyKind, Charter};
use crate::ids::{CeremonyId, Generation, Line, NodeIndex, UnixMillis, WalletName};
use crate::inventory::{Change, Item};
use crate::manifest::Manifest;

/// Why an item of an inventory cannot be true.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ItemError {
    /// Nothing that the inventory could speak of.
    #[error("the ceremony that the inventory names is not known to have made generation {0} of this wallet")]
    Generation(Generation),
    /// No such node.
    #[error("this wallet has no node {0}")]
    Node(NodeIndex),
    /// Two sheets with one number.
    #[error("another sheet of this wallet already has serial {0}: give every printed sheet its own serial")]
    Serial(Line),
    /// Nothing that could be on paper.
    #[error("the log has no backup of node {0} for this generation, so no sheet can hold one")]
    NoBackup(NodeIndex),
    /// A second copy in the words of the first.
    #[error("a found copy of node {node}'s share is already described as `{what}`: say how this one differs")]
    Words {
        /// Whose share.
        node: NodeIndex,
        /// The words.
        what: Line,
    },
    /// No such copy.
    #[error("`{0}`: the ledger has no such copy of this generation; `custody wallet show` lists its copies")]
    Unknown(Item),
    /// It is gone already.
    #[error("`{item}`: already entered by {by}")]
    Known {
        /// The item.
        item: Item,
        /// The inventory that said it.
        by: CeremonyId,
    },
    /// Nobody could delete it.
    #[error("`{item}`: locked until {until}; nobody can have deleted it")]
    Locked {
        /// The item.
        item: Item,
        /// The end of the lock.
        until: UnixMillis,
    },
    /// Not an identity that opens anything.
    #[error("no backup of this generation is encrypted to {0}")]
    Recipient(Line),
    /// Backups to come need it.
    #[error(
        "backups of the generation in use, or of a later one, are encrypted to {0}: before its identity is destroyed, \
         amend the charter to another recipient and refresh"
    )]
    InForce(Line),
}

/// A wallet's ledger while inventories are entered.
pub(super) struct Ledger<'a> {
    pages: Vec<Page<'a>>,
    /// The recipients whose identities were destroyed, in the order in which that was entered.
    identities: Vec<(&'a Line, &'a CeremonyId)>,
}

impl Book {
    /// A wallet's ledger with everything that closed inventories say, in the order in which they were closed.
    pub(super) fn ledger(&self, wallet: &WalletName) -> Ledger<'_> {
        let mut ledger = Ledger { pages: self.pages(wallet), identities: Vec::new() };
        let counts = |ceremony: &&Ceremony| {
            let manifest = ceremony.manifest();
            manifest.kind == CeremonyKind::Inventory
                && manifest.wallet == *wallet
                && ceremony.phase() == Phase::Closed
        };
        let mut inventories: Vec<&Ceremony> =
            self.chapters.values().map(|chapter| &chapter.ceremony).filter(counts).collect();
        // Those of one moment stay in the order of their ids.
        inventories.sort_by_key(|ceremony| ceremony.head().time);
        for inventory in inventories {
            // If somebody disagreed, nothing counts as gone.
            let agreed = inventory.disagreements().next().is_none();
            let manifest = inventory.manifest();
            for item in manifest.inventory().iter().filter(|item| agreed || !item.strikes()) {
                // An item that no longer fits has no effect.
                let _ = ledger.enter(manifest, item);
            }
        }
        ledger
    }

    /// Checks that every item of a new inventory can be true.
    pub(super) fn check_inventory(&self, manifest: &Manifest) -> Result<(), ItemError> {
        let mut ledger = self.ledger(&manifest.wallet);
        let charters: Vec<&Charter> = self.charters_of_backups(manifest).collect();
        let is_needed = |recipient: &Line| {
            charters.iter().any(|charter| {
                charter.backup().is_some_and(|rules| is_recipient(rules, &charter.roster(), recipient))
            })
        };
        for item in manifest.inventory() {
            ledger.enter(manifest, item)?;
            if let Item::IdentityDestroyed { recipient } = item
                && is_needed(recipient)
            {
                return Err(ItemError::InForce(recipient.clone()));
            }
        }
        Ok(())
    }

    /// The charters by which backups are encrypted that the wallet needs: the one in force, that of the generation in use,
    /// and those of ceremonies that may yet make another.
    fn charters_of_backups(&self, inventory: &Manifest) -> impl Iterator<Item = &Charter> {
        let (wallet, now) = (inventory.wallet.clone(), inventory.opened);
        let current = self.wallet(&wallet).map(|wallet| wallet.record.ceremony);
        let needs = move |ceremony: &&Ceremony| {
            let manifest = ceremony.manifest();
            let may_yet = matches!(ceremony.phase_at(now), Phase::Gathering | Phase::Authorised);
            manifest.wallet == wallet
                && manifest.kind.makes_shares()
                && (may_yet || Some(&manifest.ceremony) == current.as_ref())
        };
        let ceremonies = self.chapters.values().map(|chapter| &chapter.ceremony).filter(needs);
        std::iter::once(&**self.context().charter()).chain(ceremonies.map(Ceremony::charter))
    }
}

fn is_recipient(rules: &BackupRules, nodes: &[NodeIndex], recipient: &Line) -> bool {
    nodes.iter().any(|node| rules.recipients(*node).any(|known| known == recipient.as_str()))
}

impl<'a> Ledger<'a> {
    fn enter(&mut self, inventory: &'a Manifest, item: &'a Item) -> Result<(), ItemError> {
        let origin = inventory.origin.as_ref().map(|origin| &origin.ceremony);
        let is_meant = |page: &Page<'_>| Some(&page.exposure.ceremony) == origin;
        let place = self.pages.iter().position(is_meant);
        let is_taken = |serial: &Line| {
            let mut copies = self.pages.iter().flat_map(|page| &page.exposure.copies);
            copies.any(|copy| matches!(&copy.place, Place::Sheet { serial: known } if known == serial))
        };
        if let Item::Copy { change: Change::SheetPrinted, what, .. } = item
            && is_taken(what)
        {
            return Err(ItemError::Serial(what.clone()));
        }
        let page = place.and_then(|place| self.pages.get_mut(place));
        let page = page.ok_or(ItemError::Generation(inventory.generation))?;
        match item {
            Item::IdentityDestroyed { recipient } => {
                let rules = page.made.charter().backup();
                if !rules.is_some_and(|rules| is_recipient(rules, &page.made.manifest().roster, recipient)) {
                    return Err(ItemError::Recipient(recipient.clone()));
                }
                if let Some((_, by)) = self.identities.iter().find(|(known, _)| *known == recipient) {
                    return Err(ItemError::Known { item: item.clone(), by: (*by).clone() });
                }
                self.identities.push((recipient, &inventory.ceremony));
                Ok(())
            }
            Item::Copy { node, .. } if !page.made.manifest().roster.contains(node) => {
                Err(ItemError::Node(*node))
            }
            Item::Copy { node, change, what } => match change {
                Change::SheetPrinted => page.print(*node, what),
                Change::CopyFound => page.find(*node, what),
                Change::SheetDestroyed
                | Change::BackupDeleted
                | Change::StoreDestroyed
                | Change::CopyDestroyed => page.strike(inventory, item),
            },
        }
    }

    /// The ledger as it is shown: copies that no identity opens any more are crossed out as well.
    pub(super) fn into_exposures(self) -> Vec<Exposure> {
        let identities = self.identities;
        // By the last of them, where all identities that open a node's backups are destroyed.
        let closed_by = |rules: &BackupRules, node: NodeIndex| {
            let place =
                |recipient: &str| identities.iter().position(|(known, _)| known.as_str() == recipient);
            let places: Option<Vec<usize>> = rules.recipients(node).map(place).collect();
            let last = places?.into_iter().max()?;
            identities.get(last).map(|(_, by)| (*by).clone())
        };
        let cross_out = |mut page: Page<'_>| {
            let rules = page.made.charter().backup();
            let encrypted = |copy: &&mut Copy| {
                copy.destroyed.is_none() && matches!(copy.place, Place::Backup { .. } | Place::Sheet { .. })
            };
            for copy in page.exposure.copies.iter_mut().filter(encrypted) {
                copy.destroyed = rules.and_then(|rules| closed_by(rules, copy.node));
            }
            page.exposure
        };
        self.pages.into_iter().map(cross_out).collect()
    }
}

impl Page<'_> {
    fn print(&mut self, node: NodeIndex, serial: &Line) -> Result<(), ItemError> {
        let root = self.made.backups().get(&node).map(|backup| &backup.root.key);
        let copies = &mut self.exposure.copies;
        let is_root = |copy: &&Copy| matches!(&copy.place, Place::Backup { key, .. } if Some(key) == root);
        let printed = copies.iter().find(is_root).ok_or(ItemError::NoBackup(node))?;
        let place = Place::Sheet { serial: serial.clone() };
        let sheet = Copy { node, place, released: printed.released.clone(), destroyed: None };
        copies.push(sheet);
        Ok(())
    }

    fn find(&mut self, node: NodeIndex, what: &Line) -> Result<(), ItemError> {
        let place = Place::Found { what: what.clone() };
        let copies = &mut self.exposure.copies;
        if copies.iter().any(|copy| copy.node == node && copy.place == place) {
            return Err(ItemError::Words { node, what: what.clone() });
        }
        copies.push(Copy::new(node, place));
        Ok(())
    }

    fn strike(&mut self, inventory: &Manifest, item: &Item) -> Result<(), ItemError> {
        let is_meant = |copy: &&mut Copy| is_about(item, copy);
        let copy = self.exposure.copies.iter_mut().find(is_meant);
        let copy = copy.ok_or_else(|| ItemError::Unknown(item.clone()))?;
        if let Some(by) = &copy.destroyed {
            return Err(ItemError::Known { item: item.clone(), by: by.clone() });
        }
        match copy.place {
            Place::Backup { locked_until, .. } if inventory.opened < locked_until => {
                Err(ItemError::Locked { item: item.clone(), until: locked_until })
            }
            Place::Store | Place::Backup { .. } | Place::Sheet { .. } | Place::Found { .. } => {
                copy.destroyed = Some(inventory.ceremony.clone());
                Ok(())
            }
        }
    }
}

/// Whether an item says that this very copy is gone.
fn is_about(item: &Item, copy: &Copy) -> bool {
    let Item::Copy { node, change, what } = item else { return false };
    *node == copy.node
        && match (change, &copy.place) {
            (Change::SheetDestroyed, Place::Sheet { serial: known })
            | (Change::BackupDeleted, Place::Backup { key: known, .. })
            | (Change::CopyDestroyed, Place::Found { what: known }) => known == what,
            // A node has one store; the words say which disk or machine it was on.
            (Change::StoreDestroyed, Place::Store) => true,
            _ => false,
        }
}
