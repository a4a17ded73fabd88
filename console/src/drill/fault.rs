//! What a drill orders a lab to break or mend, in the words of `cargo lab fault`.

use std::fmt;

use ceremonies::ids::NodeIndex;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use thiserror::Error;

/// One order about a fault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Fault {
    words: String,
    order: Value,
}

/// Why an order about a fault is not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAFault {
    /// A word in the place of a node.
    #[error("`{0}` is not a node")]
    Node(String),
    /// A word in the place of a number.
    #[error("`{0}` is not a number")]
    Number(String),
    /// None of the orders.
    #[error("`{0}` is not a fault that a drill knows")]
    Unknown(String),
}

fn node(text: &str) -> Result<NodeIndex, NotAFault> {
    let index = text.parse::<u8>().ok().and_then(|index| NodeIndex::new(index).ok());
    index.ok_or_else(|| NotAFault::Node(text.to_owned()))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, NotAFault> {
    text.parse().map_err(|_| NotAFault::Number(text.to_owned()))
}

impl TryFrom<String> for Fault {
    type Error = NotAFault;
    fn try_from(words: String) -> Result<Self, NotAFault> {
        let order = match words.split(' ').collect::<Vec<_>>().as_slice() {
            [what @ ("stop-node" | "start-node" | "stop-enclave" | "break-store"), of] => {
                json!({ *what: { "node": node(of)? } })
            }
            ["partition", of] => {
                let nodes = of.split(',').map(node).collect::<Result<Vec<_>, _>>()?;
                json!({ "partition": { "nodes": nodes } })
            }
            ["skew-clock", of, by] => {
                json!({ "skew-clock": { "node": node(of)?, "seconds": number::<i64>(by)? } })
            }
            ["slow-bus", by] => json!({ "slow-bus": { "milliseconds": number::<u64>(by)? } }),
            [what @ ("stop-broker" | "break-kms" | "break-backup" | "heal")] => json!(what),
            _ => return Err(NotAFault::Unknown(words)),
        };
        Ok(Self { words, order })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.words)
    }
}

impl Fault {
    /// The line for the lab's supervisor.
    #[must_use]
    pub fn order(&self) -> String {
        format!("fault {}", self.order)
    }
}
