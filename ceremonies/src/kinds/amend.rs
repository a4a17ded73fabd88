//! The amendment: a new charter, which people put in force. No enclave takes part.

use super::{Carries, Outlasts, Rules, Shares, Special, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) const RULES: Rules = Rules {
    name: "amend",
    wire: log::Kind::Amend,
    script: include_bytes!("../../scripts/amend.toml"),
    acts: &[Act::Open, Act::Approve, Act::Agree, Act::Close],
    shares: Shares::Untouched,
    works_on: WorksOn::Charter,
    outlasts_its_end: Outlasts::IfInForce,
    waits_for: |_| false,
    special: Special {
        carries: Carries::Charter,
        has_an_origin: false,
        has_the_highest_quorum: Some("which could lower it"),
        ..Special::NONE
    },
};
