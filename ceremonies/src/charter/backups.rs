//! How shares are backed up: who keeps which node's backups, for how long, and how often shares are refreshed.
//!
//! Nobody may keep the backups of so many nodes that they alone could sign; `check` sees to that.

use serde::{Deserialize, Serialize};

use crate::ids::{NodeIndex, PersonName};

/// The trustee who can open every node's backup when the firm cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keeper {
    /// A person of the charter, in the role of custodian.
    pub person: PersonName,
    /// Their age X25519 recipient (`age1…`).
    pub recipient: String,
}

/// Who keeps which nodes' backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// A person of the charter, in the role of custodian.
    pub person: PersonName,
    /// Their age X25519 recipient (`age1…`).
    pub recipient: String,
    /// The nodes, fewer than the threshold.
    pub nodes: Vec<NodeIndex>,
}

/// How shares are kept for the day on which their nodes are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRules {
    /// For how many days nobody can delete a backup.
    pub lock_days: u32,
    /// How often a wallet's shares are to be refreshed, in days.
    pub refresh_days: u32,
    /// The escrow trustee.
    pub escrow: Keeper,
    /// The custodians; every node has one.
    #[serde(rename = "custodian")]
    pub custodians: Vec<Custodian>,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl BackupRules {
    /// For how many milliseconds nobody can delete a backup.
    #[must_use]
    pub fn lock_ms(&self) -> i64 {
        i64::from(self.lock_days) * DAY_MS
    }

    /// How often a wallet's shares are to be refreshed, in milliseconds.
    #[must_use]
    pub fn refresh_ms(&self) -> i64 {
        i64::from(self.refresh_days) * DAY_MS
    }

    /// The custodian of a node's backups.
    #[must_use]
    pub fn custodian(&self, node: NodeIndex) -> Option<&Custodian> {
        self.custodians.iter().find(|custodian| custodian.nodes.contains(&node))
    }

    /// Whether this person can open this node's backups.
    #[must_use]
    pub fn opens(&self, person: &PersonName, node: NodeIndex) -> bool {
        self.escrow.person == *person
            || self.custodian(node).is_some_and(|custodian| custodian.person == *person)
    }

    /// The keys that a node's backups are encrypted to.
    pub fn recipients(&self, node: NodeIndex) -> impl Iterator<Item = &str> {
        let custodian = self.custodian(node).map(|custodian| custodian.recipient.as_str());
        custodian.into_iter().chain([self.escrow.recipient.as_str()])
    }
}
