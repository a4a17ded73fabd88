//! The amendment: a new charter, which people put in force. No enclave takes part.

use super::{Carries, Outlasts, Rules, Shares, WorksOn};
use crate::act::Act;
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

    fn works_on(&self) -> WorksOn {
        WorksOn::Charter
    }

    fn outlasts_its_end(&self) -> Outlasts {
        Outlasts::IfInForce
    }
}
