//! What an inventory says of copies that only people know of, and of copies that are gone.
//!
//! An item is what somebody saw, in words that appear in every statement about it. Whether it counts must never be
//! decided here: that takes the other logs, and is for [`crate::book`].

use std::fmt;

use serde::Serialize;

use thiserror::Error;

use crate::ids::{InvalidId, Line, NodeIndex};
use crate::wire::log;

/// Most items of one inventory: as many as people can read aloud.
pub const MAX_ITEMS: usize = 64;

/// Why bytes are no item.
#[derive(Debug, Error)]
pub enum InvalidItem {
    /// A name or index is malformed.
    #[error("an item of the inventory contains a malformed name or value")]
    Field(#[from] InvalidId),
    /// Two things at once.
    #[error("an item of the inventory names both an identity and a node; an identity belongs to no node")]
    Both,
    /// Nothing that this build knows.
    #[error("an item of the inventory is of a kind that this build does not know")]
    Kind,
}

/// What happened to a copy of a node's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A sheet of paper with the root share's backup was printed, under the serial.
    SheetPrinted,
    /// The sheet of this serial was destroyed.
    SheetDestroyed,
    /// The backup of this name was deleted where backups are kept.
    BackupDeleted,
    /// The disk or machine that held the node's sealed share was destroyed.
    StoreDestroyed,
    /// A copy that nobody had counted exists.
    CopyFound,
    /// The copy that was found, in the same words, was destroyed.
    CopyDestroyed,
}

impl Change {
    /// Checks what names the copy: whatever is compared letter by letter is plain ASCII; people's own words may be any.
    ///
    /// # Errors
    /// [`InvalidId::NotAscii`].
    pub fn named(self, what: Line) -> Result<Line, InvalidId> {
        match self {
            Self::SheetPrinted | Self::SheetDestroyed | Self::BackupDeleted => what.ascii(),
            Self::StoreDestroyed | Self::CopyFound | Self::CopyDestroyed => Ok(what),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SheetPrinted => "sheet printed",
            Self::SheetDestroyed => "sheet destroyed",
            Self::BackupDeleted => "backup deleted",
            Self::StoreDestroyed => "store destroyed",
            Self::CopyFound => "copy found",
            Self::CopyDestroyed => "found copy destroyed",
        })
    }
}

/// One line of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// About a copy of a node's share.
    Copy {
        /// Whose share.
        node: NodeIndex,
        /// What happened to the copy.
        change: Change,
        /// Which copy: a serial, a backup's name, or people's own words.
        what: Line,
    },
    /// An age identity was destroyed: it can no longer open anything that was encrypted to its recipient.
    IdentityDestroyed {
        /// The recipient that belongs to it (`age1…`).
        recipient: Line,
    },
}

/// What people wrote comes last, so that it cannot imitate the rest of the line.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { node, change, what } => write!(f, "{change}, node {node}: {what}"),
            Self::IdentityDestroyed { recipient } => write!(f, "identity destroyed: {recipient}"),
        }
    }
}

impl Item {
    /// Whether it says that a copy is gone.
    #[must_use]
    pub fn strikes(&self) -> bool {
        match self {
            Self::Copy { change: Change::SheetPrinted | Change::CopyFound, .. } => false,
            Self::Copy {
                change:
                    Change::SheetDestroyed
                    | Change::BackupDeleted
                    | Change::StoreDestroyed
                    | Change::CopyDestroyed,
                ..
            }
            | Self::IdentityDestroyed { .. } => true,
        }
    }

    pub(crate) fn parse(wire: &log::Item) -> Result<Self, InvalidItem> {
        let what = Line::try_from(wire.what.clone())?;
        let change = match wire.kind() {
            log::ItemKind::SheetPrinted => Change::SheetPrinted,
            log::ItemKind::SheetDestroyed => Change::SheetDestroyed,
            log::ItemKind::BackupDeleted => Change::BackupDeleted,
            log::ItemKind::StoreDestroyed => Change::StoreDestroyed,
            log::ItemKind::CopyFound => Change::CopyFound,
            log::ItemKind::CopyDestroyed => Change::CopyDestroyed,
            log::ItemKind::IdentityDestroyed if wire.node == 0 => {
                return Ok(Self::IdentityDestroyed { recipient: what.ascii()? });
            }
            log::ItemKind::IdentityDestroyed => return Err(InvalidItem::Both),
            log::ItemKind::Unspecified => return Err(InvalidItem::Kind),
        };
        Ok(Self::Copy { node: wire.node.try_into()?, change, what: change.named(what)? })
    }

    pub(crate) fn wire(&self) -> log::Item {
        let (kind, node, what) = match self {
            Self::Copy { node, change, what } => {
                let kind = match change {
                    Change::SheetPrinted => log::ItemKind::SheetPrinted,
                    Change::SheetDestroyed => log::ItemKind::SheetDestroyed,
                    Change::BackupDeleted => log::ItemKind::BackupDeleted,
                    Change::StoreDestroyed => log::ItemKind::StoreDestroyed,
                    Change::CopyFound => log::ItemKind::CopyFound,
                    Change::CopyDestroyed => log::ItemKind::CopyDestroyed,
                };
                (kind, u32::from(*node), what)
            }
            Self::IdentityDestroyed { recipient } => (log::ItemKind::IdentityDestroyed, 0, recipient),
        };
        log::Item { kind: kind.into(), node, what: what.to_string() }
    }
}
