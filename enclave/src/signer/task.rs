//! What the parties of a session compute for a duty. Nothing is looked at but the order and the share that was opened for
//! it; whether the order is to be followed must be settled before.

use std::sync::Arc;

use ceremonies::ceremony::Duty;
use ceremonies::charter::CeremonyKind;

use super::Task;
use super::orders::Order;

/// What is computed; none for a duty that needs no other enclave.
pub(super) fn for_duty<S>(order: &Order, share: Option<Arc<S>>) -> Option<Task<S>> {
    let (own, manifest) = (order.node, order.ceremony.manifest());
    let before = order.ceremony.before().map(|wallet| wallet.record.clone());
    Some(match &order.duty {
        Duty::Generate if manifest.kind == CeremonyKind::Dkg => {
            Task::Generate { threshold: order.spec.threshold }
        }
        Duty::Generate => Task::Refresh { share, before },
        Duty::Repair { lost } => Task::Repair { lost: *lost, share: share.filter(|_| own != *lost), before },
        Duty::Rebuild => {
            let lost: Vec<_> = manifest.repaired().collect();
            let share = share.filter(|_| !lost.contains(&own));
            Task::Rebuild { lost, share, before }
        }
        Duty::TestSign { subset, attempt, input } => {
            Task::Sign { share, to_sign: order.ceremony.to_sign(subset, *attempt, *input) }
        }
        Duty::Restore { .. }
        | Duty::Backup { .. }
        | Duty::Prove { .. }
        | Duty::Attest
        | Duty::Adopt
        | Duty::Fault
        | Duty::Prepare
        | Duty::Retire => return None,
    })
}
