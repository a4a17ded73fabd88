//! The test signing: worthless digests, signed with the generation in use, to prove that it can.

use super::{CeremonyKind, Outlasts, Rules, Shares, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) struct TestSign;

impl Rules for TestSign {
    fn name(&self) -> &'static str {
        "test-sign"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::TestSign
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/test-sign.toml")
    }

    fn acts(&self) -> &'static [Act] {
        &[Act::Open, Act::Attest, Act::Approve, Act::TestSign, Act::Agree, Act::Close]
    }

    fn shares(&self) -> Shares {
        Shares::Used
    }

    fn is_indispensable(&self) -> bool {
        true
    }

    fn works_on(&self) -> WorksOn {
        WorksOn::GenerationInUse
    }

    fn waits_for(&self, other: CeremonyKind) -> bool {
        other == CeremonyKind::Refresh
    }

    fn outlasts_its_end(&self) -> Outlasts {
        Outlasts::Never
    }
}
