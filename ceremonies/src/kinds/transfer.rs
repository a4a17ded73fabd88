//! The transfer: a transaction, signed by as many nodes as sign together.

use super::{Carries, CeremonyKind, Outlasts, Rules, Shares, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) struct Transfer;

impl Rules for Transfer {
    fn name(&self) -> &'static str {
        "transfer"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Transfer
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/transfer.toml")
    }

    fn acts(&self) -> &'static [Act] {
        &[Act::Open, Act::Attest, Act::Approve, Act::Sign, Act::Broadcast, Act::Agree, Act::Close]
    }

    fn shares(&self) -> Shares {
        Shares::Used
    }

    fn carries(&self) -> Carries {
        Carries::Transaction
    }

    fn has_a_signer_set(&self) -> bool {
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
