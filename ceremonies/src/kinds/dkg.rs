//! The key generation: the first generation of a new wallet.

use super::{Outlasts, Rules, Shares, Special, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) const RULES: Rules = Rules {
    name: "dkg",
    wire: log::Kind::Dkg,
    script: include_bytes!("../../scripts/dkg.toml"),
    acts: &[
        Act::Open,
        Act::Attest,
        Act::Approve,
        Act::Generate,
        Act::ReadBack,
        Act::TestSign,
        Act::Backup,
        Act::Prove,
        Act::Agree,
        Act::Close,
    ],
    shares: Shares::Made,
    works_on: WorksOn::NewWallet,
    outlasts_its_end: Outlasts::WithItsGeneration,
    waits_for: |_| false,
    special: Special { has_an_origin: false, is_indispensable: true, ..Special::NONE },
};
