//! The recovery: nodes that lost their shares get them back, and then every node gets a new one.

use super::{Carries, CeremonyKind, Outlasts, Rules, Shares, Special, WorksOn};
use crate::act::Act;
use crate::wire::log;

/// The acts of a ceremony that brings lost shares back.
pub(super) const ACTS: &[Act] = &[
    Act::Open,
    Act::Attest,
    Act::Approve,
    Act::Recover,
    Act::Generate,
    Act::ReadBack,
    Act::TestSign,
    Act::Backup,
    Act::Prove,
    Act::Commit,
    Act::Retire,
    Act::Agree,
    Act::Close,
];

pub(super) const RULES: Rules = Rules {
    name: "recover",
    wire: log::Kind::Recover,
    script: include_bytes!("../../scripts/recover.toml"),
    acts: ACTS,
    shares: Shares::Restored,
    works_on: WorksOn::NextGeneration,
    // A lost node may have left a ceremony behind that it will never finish: only another renewal stands against it.
    waits_for: CeremonyKind::renews,
    outlasts_its_end: Outlasts::WithItsGeneration,
    special: Special { carries: Carries::Losses, ..Special::NONE },
};
