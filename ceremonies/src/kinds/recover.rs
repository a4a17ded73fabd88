//! The recovery: nodes that lost their shares get them back, and then every node gets a new one.

use super::{Carries, CeremonyKind, Outlasts, Rules, Shares, WorksOn};
use crate::act::Act;
use crate::wire::log;

pub(super) struct Recover;

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

impl Rules for Recover {
    fn name(&self) -> &'static str {
        "recover"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Recover
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/recover.toml")
    }

    fn acts(&self) -> &'static [Act] {
        ACTS
    }

    fn shares(&self) -> Shares {
        Shares::Restored
    }

    fn carries(&self) -> Carries {
        Carries::Losses
    }

    fn works_on(&self) -> WorksOn {
        WorksOn::NextGeneration
    }

    /// A lost node may have left a ceremony behind that it will never finish: only another renewal stands against it.
    fn waits_for(&self, other: CeremonyKind) -> bool {
        other.renews()
    }

    fn outlasts_its_end(&self) -> Outlasts {
        Outlasts::WithItsGeneration
    }
}
