//! The inventory: which copies of a generation's shares exist or are gone, as people know. No enclave takes part.

use super::{Carries, CeremonyKind, Rules, Shares};
use crate::book::{Book, OpeningError};
use crate::ceremony::{Ceremony, Phase};
use crate::ids::UnixMillis;
use crate::manifest::Manifest;
use crate::script::Act;
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

    fn check_opening(&self, book: &Book, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        book.check_inventory(manifest)?;
        book.check_free(manifest, now, |kind| kind == CeremonyKind::Inventory)
    }

    fn outlasts_its_end(&self, _: &Ceremony, _: &Phase) -> bool {
        true
    }
}
