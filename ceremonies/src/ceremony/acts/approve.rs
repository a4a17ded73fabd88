//! The approval: the charter says how many of which role must sign, whatever the script says.

use super::Rules;
use crate::ceremony::Ceremony;
use crate::charter::Quorum;
use crate::script::Step;

pub(super) struct Approve;

impl Rules for Approve {
    fn signers(&self, ceremony: &Ceremony, _: &Step) -> Quorum {
        ceremony.context.charter.quorum(ceremony.manifest.kind).cloned().unwrap_or_default()
    }
}
