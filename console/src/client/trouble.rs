//! Why nodes gave nothing usable: one reason per node, the first true one kept. The texts fit one node and several.

use std::fmt;
use std::time::Duration;

use ceremonies::ids::NodeIndex;
use ceremonies::log::EntryError;
use ceremonies::said::SaidError;
use ceremonies::text::chain;
use thiserror::Error;

use super::branches::Misfit;

/// Nodes as people read them: `2, 5`.
#[must_use]
pub fn named(nodes: &[NodeIndex]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Nodes and what is said of them: `node 2 silent`.
#[must_use]
pub fn those(nodes: &[NodeIndex], what: &str) -> String {
    match nodes {
        [node] => format!("node {node} {what}"),
        nodes => format!("nodes {} {what}", named(nodes)),
    }
}

/// Why one node gave nothing usable.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The question was never sent.
    #[error("could not be asked: the bus cannot be reached")]
    NotConnected,
    /// Nobody listens under its name.
    #[error("did not answer: not on the bus")]
    Absent,
    /// No answer in time.
    #[error("did not answer within {:.1} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The bus failed.
    #[error("could not be asked")]
    Bus(#[source] async_nats::RequestError),
    /// An answer that the node has not signed.
    #[error("gave an answer that cannot be verified")]
    Unverified(#[source] SaidError),
    /// An answer that another node has signed.
    #[error("did not answer: node {0} answered instead")]
    Another(NodeIndex),
    /// An answer that is none.
    #[error("gave an answer that cannot be read")]
    Unreadable(#[source] prost::DecodeError),
    /// An answer over the limit.
    #[error("gave an answer that is too large ({0} bytes)")]
    TooLarge(usize),
    /// A malformed entry.
    #[error("gave a malformed entry")]
    Entry(#[from] EntryError),
    /// Entries that do not form a log of the ceremony.
    #[error("gave entries that do not form a log")]
    Misfit(#[from] Misfit),
    /// A log other than the one that most nodes list.
    #[error("gave a different log from the one that most nodes list")]
    Elsewhere,
    /// A log or a list that does not end.
    #[error("sent more than is read from one node: {0}")]
    Overfull(&'static str),
    /// It says no.
    #[error("refused: {0}")]
    Refused(String),
}

/// What became of several nodes, in the order in which it was found out.
#[derive(Debug, Default)]
pub struct Troubles(Vec<(NodeIndex, Trouble)>);

impl Troubles {
    /// Notes a node's trouble. The first of several stays: it is the cause, and later ones follow from it.
    pub fn add(&mut self, node: NodeIndex, trouble: Trouble) {
        if self.of(node).is_none() {
            self.0.push((node, trouble));
        }
    }

    /// A node's trouble.
    #[must_use]
    pub fn of(&self, node: NodeIndex) -> Option<&Trouble> {
        self.0.iter().find(|(index, _)| *index == node).map(|(_, trouble)| trouble)
    }

    /// The nodes in trouble.
    pub fn nodes(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.0.iter().map(|(node, _)| *node)
    }

    /// Every trouble with its node, by value.
    pub fn into_each(self) -> impl Iterator<Item = (NodeIndex, Trouble)> {
        self.0.into_iter()
    }

    /// Every trouble with its node.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Trouble)> {
        self.0.iter().map(|(node, trouble)| (*node, trouble))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no question was ever sent.
    #[must_use]
    pub fn is_not_connected(&self) -> bool {
        !self.is_empty() && self.0.iter().all(|(_, trouble)| matches!(trouble, Trouble::NotConnected))
    }
}

impl fmt::Display for Troubles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_not_connected() {
            return f.write_str("the bus cannot be reached");
        }
        if self.is_empty() {
            return f.write_str("no node could be asked");
        }
        // Nodes in the same trouble are named together.
        let mut groups: Vec<(String, Vec<NodeIndex>)> = Vec::new();
        for (node, trouble) in self.iter() {
            let text = chain(trouble);
            match groups.iter_mut().find(|(known, _)| *known == text) {
                Some((_, nodes)) => nodes.push(node),
                None => groups.push((text, vec![node])),
            }
        }
        let said: Vec<String> = groups.into_iter().map(|(text, nodes)| those(&nodes, &text)).collect();
        f.write_str(&said.join("; "))
    }
}

impl std::error::Error for Troubles {}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    fn node(index: u8) -> NodeIndex {
        NodeIndex::new(index).unwrap()
    }

    #[test]
    fn first_trouble_of_a_node_stays() {
        let mut troubles = Troubles::default();
        troubles.add(node(3), Trouble::Silent(Duration::from_secs(1)));
        troubles.add(node(3), Trouble::Absent);
        troubles.add(node(1), Trouble::Refused("not now".to_owned()));
        assert_eq!(troubles.to_string(), "node 3 did not answer within 1.0 s; node 1 refused: not now");
        assert!(!troubles.is_not_connected());
    }

    #[test]
    fn missing_bus_is_said_once_and_not_blamed_on_nodes() {
        let mut troubles = Troubles::default();
        troubles.add(node(1), Trouble::NotConnected);
        troubles.add(node(2), Trouble::NotConnected);
        assert_eq!(troubles.to_string(), "the bus cannot be reached");
        troubles.add(node(3), Trouble::Absent);
        assert!(!troubles.is_not_connected());
    }
}
