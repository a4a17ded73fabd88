//! The subjects of the bus, written and read in one place.
//!
//! The sender is part of a subject, and the broker lets each node publish only under its own. That keeps honest
//! programs apart but stops no attacker: reply subjects make the broker deliver a node's bytes anywhere. Nothing that
//! matters rests on a subject.

use thiserror::Error;

use crate::ids::{CeremonyId, Hash, NodeIndex};
use crate::text::shortened;

/// The stream that orders all ceremonies' entries.
pub const STREAM: &str = "CEREMONIES";
/// The stream's subjects.
pub const LOGS: &str = "ceremony.log.*";
/// Requests to any node to submit an event to any ceremony.
pub const SUBMISSIONS: &str = "ceremony.submit.*.*";
/// Requests to any node to read any ceremony.
pub const READS: &str = "ceremony.read.*.*";
/// Requests to any node to list ceremonies.
pub const LISTS: &str = "ceremony.list.*";
/// Where every node says where it stands.
pub const HEADS: &str = "head.*";
/// Backups that are handed in for any node's enclave.
pub const BACKUPS: &str = "backup.*";
/// Every node's heartbeat.
pub const HEALTH: &str = "health.*";
/// Every node's progress in every ceremony.
pub const PROGRESS: &str = "progress.*.*";
/// Largest message on the bus, in bytes.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// A subject is none of ours.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a subject on this bus")]
pub struct UnknownSubject(String);

/// Where a ceremony's entries are.
#[must_use]
pub fn log(ceremony: &CeremonyId) -> String {
    format!("ceremony.log.{ceremony}")
}

/// Where events for a ceremony are submitted to a node.
#[must_use]
pub fn submit(ceremony: &CeremonyId, node: NodeIndex) -> String {
    format!("ceremony.submit.{ceremony}.{node}")
}

/// Where a node is asked for a ceremony's entries.
#[must_use]
pub fn read(ceremony: &CeremonyId, node: NodeIndex) -> String {
    format!("ceremony.read.{ceremony}.{node}")
}

/// Where a node is asked for a list of ceremonies.
#[must_use]
pub fn list(node: NodeIndex) -> String {
    format!("ceremony.list.{node}")
}

/// Everything that is submitted to a node.
#[must_use]
pub fn submissions_to(node: NodeIndex) -> String {
    format!("ceremony.submit.*.{node}")
}

/// Everything that a node is asked to read.
#[must_use]
pub fn reads_of(node: NodeIndex) -> String {
    format!("ceremony.read.*.{node}")
}

/// Where a node says where it stands.
#[must_use]
pub fn head(node: NodeIndex) -> String {
    format!("head.{node}")
}

/// Where one node asks another for what it lacks.
#[must_use]
pub fn peer(to: NodeIndex, from: NodeIndex) -> String {
    format!("record.{to}.{from}")
}

/// Everything that other nodes ask and answer a node.
#[must_use]
pub fn peers_to(node: NodeIndex) -> String {
    format!("record.{node}.*")
}

/// Where a node's session messages to another go.
#[must_use]
pub fn session(to: NodeIndex, label: &Hash, from: NodeIndex) -> String {
    format!("mpc.{to}.{label}.{from}")
}

/// All session messages to a node.
#[must_use]
pub fn sessions_to(node: NodeIndex) -> String {
    format!("mpc.{node}.>")
}

/// Where backups for a node's enclave are handed in.
#[must_use]
pub fn backup(node: NodeIndex) -> String {
    format!("backup.{node}")
}

/// A node's heartbeat.
#[must_use]
pub fn health(node: NodeIndex) -> String {
    format!("health.{node}")
}

/// A node's progress in a ceremony.
#[must_use]
pub fn progress(ceremony: &CeremonyId, node: NodeIndex) -> String {
    format!("progress.{ceremony}.{node}")
}

/// A node's progress in all ceremonies.
#[must_use]
pub fn progress_of(node: NodeIndex) -> String {
    format!("progress.*.{node}")
}

/// All session messages of one node to another.
#[must_use]
pub fn sessions_from(to: NodeIndex, from: NodeIndex) -> String {
    format!("mpc.{to}.*.{from}")
}

/// The inbox prefix of a node: nobody else may listen there.
#[must_use]
pub fn node_inbox(node: NodeIndex) -> String {
    format!("_INBOX_node_{node}")
}

/// The inbox prefix of a console.
#[must_use]
pub fn console_inbox(console: &str) -> String {
    format!("_INBOX_console_{console}")
}

fn unknown(subject: &str) -> UnknownSubject {
    UnknownSubject(shortened(subject, 160))
}

/// The ceremony that a `ceremony.…` subject names.
///
/// # Errors
/// [`UnknownSubject`].
pub fn ceremony(subject: &str) -> Result<CeremonyId, UnknownSubject> {
    let tokens: Vec<&str> = subject.split('.').collect();
    match tokens.as_slice() {
        ["ceremony", "log", id] | ["ceremony", "submit" | "read", id, _] => {
            id.parse().map_err(|_| unknown(subject))
        }
        _ => Err(unknown(subject)),
    }
}

/// Label and sender of a session message.
///
/// # Errors
/// [`UnknownSubject`].
pub fn parse_session(subject: &str) -> Result<(Hash, NodeIndex), UnknownSubject> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let parsed = match tokens.as_slice() {
        ["mpc", _, label, from] => label.parse().ok().zip(index(from)),
        _ => None,
    };
    parsed.ok_or_else(|| unknown(subject))
}

/// The node of a `health.<node>`, `head.<node>`, `progress.<ceremony>.<node>` or `record.<to>.<node>` subject.
///
/// # Errors
/// [`UnknownSubject`].
pub fn node(subject: &str) -> Result<NodeIndex, UnknownSubject> {
    let tokens: Vec<&str> = subject.split('.').collect();
    match tokens.as_slice() {
        ["health" | "head", node] | ["progress" | "record", _, node] => {
            index(node).ok_or_else(|| unknown(subject))
        }
        _ => Err(unknown(subject)),
    }
}

/// Only as it is written: two subjects must never be one to us.
fn index(token: &str) -> Option<NodeIndex> {
    let index = token.parse::<u8>().ok().and_then(|index| NodeIndex::new(index).ok());
    index.filter(|index| index.to_string() == token)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn subjects_say_what_was_put_into_them() {
        let (one, two) = (NodeIndex::new(1).unwrap(), NodeIndex::new(2).unwrap());
        let id: CeremonyId = "dkg-w-1".parse().unwrap();
        let label = Hash::of_bytes(b"label");
        assert_eq!(parse_session(&session(one, &label, two)), Ok((label, two)));
        assert_eq!(ceremony(&log(&id)), Ok(id.clone()));
        assert_eq!(node(&progress(&id, two)), Ok(two));
        assert_eq!(node(&health(one)), Ok(one));
        assert_eq!(node(&head(two)), Ok(two));
        assert_eq!(node(&peer(one, two)), Ok(two));
        assert_eq!(ceremony(&submit(&id, one)), Ok(id.clone()));
        assert_eq!(ceremony(&read(&id, two)), Ok(id.clone()));
    }

    #[test]
    fn other_subjects_are_refused() {
        for bad in ["", "ceremony.log", "ceremony.log.A", "ceremony.drop.a", "mpc.1.x.2", "mpc.1", "health.0"]
        {
            assert!(ceremony(bad).is_err() && parse_session(bad).is_err() && node(bad).is_err(), "{bad}");
        }
        let label = Hash::of_bytes(b"label");
        let others = [format!("{label}.02"), format!("{label}.+2"), format!("{label}.2").to_uppercase()];
        for other in others {
            assert!(parse_session(&format!("mpc.1.{other}")).is_err(), "{other}");
        }
    }
}
