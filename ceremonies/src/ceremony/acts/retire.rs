//! The retirement: every node deletes its shares of the generations before, once all have adopted the new one.

use super::{Rules, nodes_without};
use crate::ceremony::{Ceremony, Duty, Phase};
use crate::ids::NodeIndex;
use crate::script::Step;

pub(super) struct Retire;

impl Rules for Retire {
    fn is_for_people(&self) -> bool {
        false
    }

    fn is_done(&self, ceremony: &Ceremony, _: &Step) -> bool {
        ceremony.manifest.roster.iter().all(|node| ceremony.retired.contains(node))
    }

    fn waiting_for(&self, ceremony: &Ceremony, _: &Step) -> String {
        format!("deletion by {}", nodes_without(ceremony, |node| ceremony.retired.contains(node)))
    }

    fn duty(&self, ceremony: &Ceremony, node: NodeIndex, _: &Phase) -> Option<Duty> {
        let is_due = ceremony.all_adopted() && !ceremony.retired.contains(&node);
        is_due.then_some(Duty::Retire)
    }
}
