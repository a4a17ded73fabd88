//! The refresh: new shares of a wallet's key at every node, and the old ones deleted.

use super::{CeremonyKind, Outlasts, Rules, Shares, Special, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) const RULES: Rules = Rules {
    name: "refresh",
    wire: log::Kind::Refresh,
    script: include_bytes!("../../scripts/refresh.toml"),
    acts: &[
        Act::Open,
        Act::Attest,
        Act::Approve,
        Act::Generate,
        Act::ReadBack,
        Act::TestSign,
        Act::Backup,
        Act::Prove,
        Act::Commit,
        Act::Retire,
        Act::Agree,
        Act::Close,
    ],
    shares: Shares::Renewed,
    works_on: WorksOn::NextGeneration,
    waits_for: CeremonyKind::uses_enclaves,
    outlasts_its_end: Outlasts::WithItsGeneration,
    special: Special::NONE,
};
