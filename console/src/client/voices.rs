//! Whose words count: the nodes of the charter in force, and for an amendment those that its charter lists.

use std::collections::BTreeSet;
use std::sync::Arc;

use ceremonies::charter::Charter;
use ceremonies::ids::NodeIndex;
use ceremonies::record::SignedHead;
use ceremonies::said::{self, SaidError, Topic};

/// The charters whose nodes are heard.
#[derive(Debug, Clone)]
pub struct Voices {
    in_force: Arc<Charter>,
    proposed: Option<Arc<Charter>>,
}

impl Voices {
    /// The nodes of the charter in force; for an amendment also those of the charter that it proposes.
    #[must_use]
    pub fn new(in_force: Arc<Charter>, proposed: Option<Arc<Charter>>) -> Self {
        Self { in_force, proposed }
    }

    /// The charter in force.
    #[must_use]
    pub fn in_force(&self) -> &Arc<Charter> {
        &self.in_force
    }

    /// A node's words on a topic, as [`said::hear`].
    ///
    /// # Errors
    /// [`SaidError`], as it is under the charter in force.
    pub fn hear(&self, topic: Topic, bytes: &[u8]) -> Result<(NodeIndex, Vec<u8>), SaidError> {
        said::hear(&self.in_force, topic, bytes).or_else(|error| {
            let proposed = self.proposed.as_ref().and_then(|charter| said::hear(charter, topic, bytes).ok());
            proposed.ok_or(error)
        })
    }

    /// Whether a head is signed by a node that is heard.
    #[must_use]
    pub fn signed(&self, head: &SignedHead) -> bool {
        head.is_by_its_node(&self.in_force)
            || self.proposed.as_ref().is_some_and(|charter| head.is_by_its_node(charter))
    }

    /// The nodes that record: those of the charter in force that it does not exclude.
    #[must_use]
    pub fn members(&self) -> BTreeSet<NodeIndex> {
        self.in_force.members().into_iter().collect()
    }

    /// The nodes that can be asked.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeIndex> {
        let proposed = self.proposed.iter().flat_map(|charter| charter.members());
        self.in_force.members().into_iter().chain(proposed).collect()
    }
}
