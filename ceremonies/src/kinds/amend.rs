//! The amendment: a new charter, which people put in force. No enclave takes part.

use super::{Carries, Rules, Shares};
use crate::book::{Book, OpeningError};
use crate::ceremony::{Ceremony, Phase};
use crate::ids::UnixMillis;
use crate::manifest::Manifest;
use crate::script::Act;
use crate::wire::log;

pub(super) struct Amend;

impl Rules for Amend {
    fn name(&self) -> &'static str {
        "amend"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Amend
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/amend.toml")
    }

    fn acts(&self) -> &'static [Act] {
        &[Act::Open, Act::Approve, Act::Agree, Act::Close]
    }

    fn shares(&self) -> Shares {
        Shares::Untouched
    }

    fn carries(&self) -> Carries {
        Carries::Charter
    }

    fn has_an_origin(&self) -> bool {
        false
    }

    fn has_the_highest_quorum(&self) -> Option<&'static str> {
        Some("which could lower it")
    }

    fn check_opening(&self, book: &Book, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        book.check_amending(manifest, now)
    }

    fn outlasts_its_end(&self, ceremony: &Ceremony, phase: &Phase) -> bool {
        *phase == Phase::Closed || ceremony.amended().is_some()
    }
}
