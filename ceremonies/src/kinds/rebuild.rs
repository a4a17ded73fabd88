//! The rebuild, the last resort: one enclave works lost shares out from root shares, and knows the key for a moment.

use super::{Carries, CeremonyKind, Outlasts, Rules, Shares, Special, WorksOn, recover};
use crate::wire::log;

/// Refused where a recovery would do.
fn flaw(wire: &log::Manifest) -> Option<&'static str> {
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

pub(super) const RULES: Rules = Rules {
    name: "rebuild",
    wire: log::Kind::Rebuild,
    script: include_bytes!("../../scripts/rebuild.toml"),
    acts: recover::ACTS,
    shares: Shares::Restored,
    works_on: WorksOn::NextGeneration,
    waits_for: CeremonyKind::renews,
    outlasts_its_end: Outlasts::WithItsGeneration,
    special: Special {
        carries: Carries::Losses,
        flaw,
        has_the_highest_quorum: Some("which must have the highest of all"),
        ..Special::NONE
    },
};
