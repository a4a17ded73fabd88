//! The proof: keepers release every backup to its node's enclave, which shows that it holds the share.

use super::{Refused, Rules, nodes_without};
use crate::ceremony::{Ceremony, Duty, Phase};
use crate::charter::{Quorum, Role};
use crate::ids::{NodeIndex, PersonName};
use crate::script::{Act, Step};
use crate::statement::Answer;

pub(super) struct Prove;

impl Rules for Prove {
    fn asks_people(&self, ceremony: &Ceremony) -> bool {
        ceremony.asks_releases(Act::Prove)
    }

    fn signers(&self, ceremony: &Ceremony, step: &Step) -> Quorum {
        if self.asks_people(ceremony) { Quorum::from([(Role::Custodian, 1)]) } else { step.signers.clone() }
    }

    fn check_answer(&self, ceremony: &Ceremony, person: &PersonName, answer: &Answer) -> Result<(), Refused> {
        let asks = Refused::Asks("the release of a backup: custody backup prove, or restore");
        Ok(ceremony.check_release(Act::Prove, person, answer.release().ok_or(asks)?)?)
    }

    fn is_done(&self, ceremony: &Ceremony, _: &Step) -> bool {
        ceremony.backups_are_proven()
    }

    fn waiting_for(&self, ceremony: &Ceremony, _: &Step) -> String {
        let missing = nodes_without(ceremony, |node| ceremony.proved.contains(node));
        format!("release and proof of the backup of {missing}")
    }

    fn duty(&self, ceremony: &Ceremony, node: NodeIndex, _: &Phase) -> Option<Duty> {
        ceremony.wanted_backup(Act::Prove, node)?;
        ceremony.release(Act::Prove, node).map(|_| Duty::Prove { node })
    }
}
