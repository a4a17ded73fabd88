//! The backup: every enclave encrypts its new share for its keepers, and its agent puts it under lock.

use super::{Rules, nodes_without};
use crate::ceremony::{Ceremony, Duty, Phase};
use crate::ids::NodeIndex;
use crate::script::Step;

pub(super) struct Backup;

impl Rules for Backup {
    fn is_for_people(&self) -> bool {
        false
    }

    fn is_done(&self, ceremony: &Ceremony, _: &Step) -> bool {
        ceremony.backups_are_written()
    }

    fn waiting_for(&self, ceremony: &Ceremony, _: &Step) -> String {
        format!("backup of {}", nodes_without(ceremony, |node| ceremony.backups.contains_key(node)))
    }

    fn duty(&self, ceremony: &Ceremony, node: NodeIndex, _: &Phase) -> Option<Duty> {
        ceremony.backup_is_due(node).then_some(Duty::Backup { node })
    }
}
