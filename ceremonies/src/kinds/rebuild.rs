//! The rebuild, the last resort: one enclave works lost shares out from root shares, and knows the key for a moment.

use super::{Carries, CeremonyKind, Outlasts, Rules, Shares, WorksOn, recover};
use crate::act::Act;
use crate::wire::log;

pub(super) struct Rebuild;

impl Rules for Rebuild {
    fn name(&self) -> &'static str {
        "rebuild"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Rebuild
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/rebuild.toml")
    }

    fn acts(&self) -> &'static [Act] {
        recover::ACTS
    }

    fn shares(&self) -> Shares {
        Shares::Restored
    }

    fn carries(&self) -> Carries {
        Carries::Losses
    }

    /// Refused where a recovery would do.
    fn flaw(&self, wire: &log::Manifest) -> Option<&'static str> {
        if !wire.lost.iter().any(|lost| lost.way() == log::Way::Repair) {
            return Some(
                "every lost node has a backup: open a recovery instead, which brings the key into no single enclave",
            );
        }
        let whole = u32::try_from(wire.roster.len().saturating_sub(wire.lost.len())).unwrap_or(u32::MAX);
        (whole >= wire.threshold).then_some(
            "enough nodes have their shares: recover the others by repair, which brings the key into no single enclave",
        )
    }

    fn has_the_highest_quorum(&self) -> Option<&'static str> {
        Some("which must have the highest of all")
    }

    fn works_on(&self) -> WorksOn {
        WorksOn::NextGeneration
    }

    fn waits_for(&self, other: CeremonyKind) -> bool {
        other.renews()
    }

    fn outlasts_its_end(&self) -> Outlasts {
        Outlasts::WithItsGeneration
    }
}
