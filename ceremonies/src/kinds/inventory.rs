//! The inventory: which copies of a generation's shares exist or are gone, as people know. No enclave takes part.

use super::{Carries, CeremonyKind, Outlasts, Rules, Shares, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) struct Inventory;

impl Rules for Inventory {
    fn name(&self) -> &'static str {
        "inventory"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Inventory
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/inventory.toml")
    }

    fn acts(&self) -> &'static [Act] {
        &[Act::Open, Act::Approve, Act::Agree, Act::Close]
    }

    fn shares(&self) -> Shares {
        Shares::Untouched
    }

    fn carries(&self) -> Carries {
        Carries::Inventory
    }

    /// Shares that were staged and given up rebuild the key like any others.
    fn may_speak_of_what_was_given_up(&self) -> bool {
        true
    }

    /// It moves no share: a second pair of eyes is enough, if they do not operate.
    fn needs_a_full_quorum(&self) -> bool {
        false
    }

    fn works_on(&self) -> WorksOn {
        WorksOn::Copies
    }

    fn waits_for(&self, other: CeremonyKind) -> bool {
        other == CeremonyKind::Inventory
    }

    fn outlasts_its_end(&self) -> Outlasts {
        Outlasts::Always
    }
}
