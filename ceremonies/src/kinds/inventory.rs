//! The inventory: which copies of a generation's shares exist or are gone, as people know. No enclave takes part.

use super::{Carries, CeremonyKind, Outlasts, Rules, Shares, Special, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) const RULES: Rules = Rules {
    name: "inventory",
    wire: log::Kind::Inventory,
    script: include_bytes!("../../scripts/inventory.toml"),
    acts: &[Act::Open, Act::Approve, Act::Agree, Act::Close],
    shares: Shares::Untouched,
    works_on: WorksOn::Copies,
    waits_for: |other| other == CeremonyKind::Inventory,
    outlasts_its_end: Outlasts::Always,
    special: Special {
        carries: Carries::Copies,
        // Shares that were staged and given up rebuild the key like any others.
        may_speak_of_what_was_given_up: true,
        // It moves no share: a second pair of eyes is enough, if they do not operate.
        needs_a_full_quorum: false,
        ..Special::NONE
    },
};
