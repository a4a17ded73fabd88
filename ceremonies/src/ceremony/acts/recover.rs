//! The recovery: nodes that lost their shares get them back, from backups first, and then by repair or rebuild.

use super::{Refused, Rules};
use crate::ceremony::{Ceremony, Duty, Phase};
use crate::charter::{Quorum, Role};
use crate::ids::{NodeIndex, PersonName};
use crate::manifest::Way;
use crate::script::{Act, Step};
use crate::statement::Answer;

pub(super) struct Recover;

impl Rules for Recover {
    fn asks_people(&self, ceremony: &Ceremony) -> bool {
        ceremony.asks_releases(Act::Recover)
    }

    fn signers(&self, ceremony: &Ceremony, step: &Step) -> Quorum {
        if self.asks_people(ceremony) { Quorum::from([(Role::Custodian, 1)]) } else { step.signers.clone() }
    }

    fn check_answer(&self, ceremony: &Ceremony, person: &PersonName, answer: &Answer) -> Result<(), Refused> {
        let asks = Refused::Asks("the release of a backup: custody backup prove, or restore");
        Ok(ceremony.check_release(Act::Recover, person, answer.release().ok_or(asks)?)?)
    }

    fn is_done(&self, ceremony: &Ceremony, _: &Step) -> bool {
        ceremony.due_recovery().is_none()
    }

    fn waiting_for(&self, ceremony: &Ceremony, _: &Step) -> String {
        ceremony.due_recovery().map_or_else(String::new, |(node, way)| {
            format!("the share of node {node}, {}", ceremony.manifest.way_in_words(way))
        })
    }

    fn duty(&self, ceremony: &Ceremony, node: NodeIndex, phase: &Phase) -> Option<Duty> {
        let manifest = &ceremony.manifest;
        let (lost, way) = ceremony.due_recovery().filter(|_| *phase == Phase::Authorised)?;
        match way {
            Way::Repair if manifest.dealer().is_some() => {
                let has_got = manifest.lost().get(&node) == Some(&way) && ceremony.recovered.contains(&node);
                (ceremony.rebuilding().contains(node) && !has_got).then_some(Duty::Rebuild)
            }
            Way::Repair => ceremony.repairing(lost).contains(node).then_some(Duty::Repair { lost }),
            // Each when its own backup is released, in any order.
            Way::Backup => {
                ceremony.wanted_backup(Act::Recover, node)?;
                ceremony.release(Act::Recover, node).map(|_| Duty::Restore { node })
            }
        }
    }
}
