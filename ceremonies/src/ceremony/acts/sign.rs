//! Signatures of enclaves: of worthless digests, by every signer set of the cover, or of a transaction, by its signers.

use super::Rules;
use crate::ceremony::{Ceremony, Duty, Phase, TestSignature};
use crate::ids::NodeIndex;
use crate::script::Step;

pub(super) struct Sign;

impl Rules for Sign {
    fn is_for_people(&self) -> bool {
        false
    }

    fn is_done(&self, ceremony: &Ceremony, _: &Step) -> bool {
        ceremony.cover().iter().all(|subset| ceremony.has_signed(subset))
    }

    fn waiting_for(&self, ceremony: &Ceremony, _: &Step) -> String {
        match ceremony.due_subset() {
            Some(subset) if ceremony.is_hopeless(&subset) => {
                format!("nothing: signer set {subset} failed for good; withdraw the ceremony")
            }
            Some(subset) => format!("signature of {subset}, try {}", ceremony.attempt(&subset)),
            None => String::new(),
        }
    }

    fn duty(&self, ceremony: &Ceremony, node: NodeIndex, _: &Phase) -> Option<Duty> {
        let subset = ceremony.due_subset()?;
        if !subset.contains(node) || ceremony.is_hopeless(&subset) {
            return None;
        }
        let attempt = ceremony.attempt(&subset);
        let input = ceremony.due_input(&subset)?;
        let same =
            |test: &TestSignature| (&test.subset, test.attempt, test.input) == (&subset, attempt, input);
        let reported = ceremony.tests.iter().any(|test| same(test) && test.reported_by.contains(&node));
        (!reported).then_some(Duty::TestSign { subset, attempt, input })
    }
}
