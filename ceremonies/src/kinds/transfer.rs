//! The transfer: a transaction, signed by as many nodes as sign together.

use super::{Carries, CeremonyKind, Outlasts, Rules, Shares, Special, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) const RULES: Rules = Rules {
    name: "transfer",
    wire: log::Kind::Transfer,
    script: include_bytes!("../../scripts/transfer.toml"),
    acts: &[Act::Open, Act::Attest, Act::Approve, Act::Sign, Act::Broadcast, Act::Agree, Act::Close],
    shares: Shares::Used,
    works_on: WorksOn::GenerationInUse,
    waits_for: |other| other == CeremonyKind::Refresh,
    outlasts_its_end: Outlasts::Never,
    special: Special { carries: Carries::Transaction, has_a_signer_set: true, ..Special::NONE },
};
