//! The test signing: worthless digests, signed with the generation in use, to prove that it can.

use super::{CeremonyKind, Outlasts, Rules, Shares, Special, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) const RULES: Rules = Rules {
    name: "test-sign",
    wire: log::Kind::TestSign,
    script: include_bytes!("../../scripts/test-sign.toml"),
    acts: &[Act::Open, Act::Attest, Act::Approve, Act::TestSign, Act::Agree, Act::Close],
    shares: Shares::Used,
    works_on: WorksOn::GenerationInUse,
    waits_for: |other| other == CeremonyKind::Refresh,
    outlasts_its_end: Outlasts::Never,
    special: Special { is_indispensable: true, ..Special::NONE },
};
