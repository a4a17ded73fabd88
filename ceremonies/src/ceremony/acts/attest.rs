//! The attestation: every enclave of the roster shows which image it runs, and its keys.

use super::{Rules, nodes_without};
use crate::ceremony::Ceremony;
use crate::script::Step;

/// Which node has to attest does not follow from this step alone: an enclave that was restarted attests again.
pub(super) struct Attest;

impl Rules for Attest {
    fn is_for_people(&self) -> bool {
        false
    }

    fn is_done(&self, ceremony: &Ceremony, _: &Step) -> bool {
        ceremony.manifest.roster.iter().all(|node| ceremony.enclaves.contains_key(node))
    }

    fn waiting_for(&self, ceremony: &Ceremony, _: &Step) -> String {
        format!("attestation of {}", nodes_without(ceremony, |node| ceremony.enclaves.contains_key(node)))
    }
}
