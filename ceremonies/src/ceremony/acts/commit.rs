//! The commit: people let the staged generation take the place of the one in use, enclaves sign it, agents adopt it.

use super::{Rules, nodes_without};
use crate::ceremony::{Ceremony, Duty, Phase};
use crate::ids::NodeIndex;
use crate::script::Step;

pub(super) struct Commit;

/// Whether all enclaves have signed one result, and all agents have made it current.
pub(super) fn is_adopted(ceremony: &Ceremony) -> bool {
    ceremony.committed().is_some() && ceremony.all_adopted()
}

pub(super) fn waiting_for_adoption(ceremony: &Ceremony) -> String {
    if ceremony.committed().is_none() {
        format!("result of {}", nodes_without(ceremony, |node| ceremony.prepared.contains_key(node)))
    } else {
        format!("adoption by {}", nodes_without(ceremony, |node| ceremony.adopted.contains(node)))
    }
}

impl Rules for Commit {
    fn is_done(&self, ceremony: &Ceremony, step: &Step) -> bool {
        ceremony.has_quorum(step) && is_adopted(ceremony)
    }

    fn waiting_for(&self, ceremony: &Ceremony, step: &Step) -> String {
        if ceremony.has_quorum(step) { waiting_for_adoption(ceremony) } else { ceremony.missing_people(step) }
    }

    fn duty(&self, ceremony: &Ceremony, node: NodeIndex, phase: &Phase) -> Option<Duty> {
        let is_due = *phase == Phase::Authorised
            && ceremony.is_let_through()
            && ceremony.staged.contains_key(&node)
            && !ceremony.prepared.contains_key(&node);
        is_due.then_some(Duty::Prepare)
    }
}
