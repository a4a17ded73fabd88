//! The refresh: new shares of a wallet's key at every node, and the old ones deleted.

use super::{CeremonyKind, Outlasts, Rules, Shares, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) struct Refresh;

impl Rules for Refresh {
    fn name(&self) -> &'static str {
        "refresh"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Refresh
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/refresh.toml")
    }

    fn acts(&self) -> &'static [Act] {
        &[
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
        ]
    }

    fn shares(&self) -> Shares {
        Shares::Renewed
    }

    fn works_on(&self) -> WorksOn {
        WorksOn::NextGeneration
    }

    fn waits_for(&self, other: CeremonyKind) -> bool {
        other.uses_enclaves()
    }

    fn outlasts_its_end(&self) -> Outlasts {
        Outlasts::WithItsGeneration
    }
}
