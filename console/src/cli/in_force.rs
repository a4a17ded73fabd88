//! The charter in force, as the nodes have it, and those that may follow it: written here so that nobody edits one by
//! hand in an emergency.

use std::borrow::Cow;

use anyhow::Result;
use ceremonies::ids::NodeIndex;
use clap::Subcommand;
use serde_json::json;

use super::{Desk, Output};
use crate::room::must_be_among;

#[derive(Subcommand)]
pub(super) enum InForce {
    /// Print the charter in force.
    Show,
    /// Print the charter that follows the one in force when a node is excluded.
    Exclude {
        /// The node.
        node: NodeIndex,
    },
    /// Print the charter that follows the one in force when an excluded node is taken back.
    Readmit {
        /// The node.
        node: NodeIndex,
        /// The public half of its new NKey (`U…`); others may have the seed of its old one.
        #[arg(long)]
        nkey: String,
    },
}

pub(super) fn run(desk: &Desk, output: Output, command: InForce) -> Result<()> {
    let charter = desk.book.context().charter();
    if let InForce::Exclude { node } | InForce::Readmit { node, .. } = &command {
        must_be_among(*node, &charter.roster(), "the charter")?;
    }
    let charter = match command {
        InForce::Show => Cow::Borrowed(charter.as_ref()),
        InForce::Exclude { node } => Cow::Owned(charter.excluding(node)?),
        InForce::Readmit { node, nkey } => Cow::Owned(charter.readmitting(node, &nkey)?),
    };
    output.print_exactly(&json!({ "charter": charter.text(), "hash": charter.hash() }), charter.text())
}
