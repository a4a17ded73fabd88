//! The generation of shares: of a new key, which takes effect at once, or of a wallet's key, staged beside those in use.

use super::{Rules, commit, nodes_without};
use crate::ceremony::{Ceremony, Duty, Phase};
use crate::ids::NodeIndex;
use crate::script::Step;

pub(super) struct Generate;

impl Rules for Generate {
    fn is_for_people(&self) -> bool {
        false
    }

    fn is_done(&self, ceremony: &Ceremony, _: &Step) -> bool {
        if ceremony.manifest.kind.renews() {
            ceremony.staged_wallet().is_some()
        } else {
            commit::is_adopted(ceremony)
        }
    }

    fn waiting_for(&self, ceremony: &Ceremony, _: &Step) -> String {
        if ceremony.manifest.kind.renews() {
            format!("new share of {}", nodes_without(ceremony, |node| ceremony.staged.contains_key(node)))
        } else {
            commit::waiting_for_adoption(ceremony)
        }
    }

    fn duty(&self, ceremony: &Ceremony, node: NodeIndex, phase: &Phase) -> Option<Duty> {
        let said = if ceremony.manifest.kind.renews() { &ceremony.staged } else { &ceremony.prepared };
        let is_due = *phase == Phase::Authorised
            && ceremony.manifest.kind.makes_shares()
            && ceremony.due_recovery().is_none()
            && !said.contains_key(&node);
        is_due.then_some(Duty::Generate)
    }
}
