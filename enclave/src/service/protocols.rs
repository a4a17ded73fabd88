//! The protocol that does a duty: here an order and a scheme are put together. Nothing is looked at but the order and the
//! share that was opened for it; whether the order is to be followed must be settled before.

use std::sync::Arc;

use ceremonies::ceremony::{Duty, ToSign};
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{Hash, NodeIndex};

use super::orders::Order;
use crate::scheme::dkls23::{
    Factory, KeyGeneration, KeyShare, Product, Rebuilding, Refreshing, Repairing, Signing,
};
use crate::session::{Millis, Protocol, ProtocolAbort};

/// How long a round of a key generation, refresh or repair may take: its heaviest phase takes a second natively and half a
/// minute in an emulated machine that shares two cores with four others.
const GENERATION_ROUND_MS: Millis = 120_000;
/// How long a round of a signature may take.
const SIGNATURE_ROUND_MS: Millis = 30_000;

/// How long a round may take, and the protocol; none for a duty that needs no other enclave.
pub(super) fn for_duty(order: &Order, share: Option<Arc<KeyShare>>) -> Option<(Millis, Factory)> {
    let (own, manifest) = (order.node, order.ceremony.manifest());
    let parties: Vec<NodeIndex> = order.spec.parties.keys().copied().collect();
    let before = order.ceremony.before().map(|wallet| wallet.record.clone());
    let factory = match &order.duty {
        Duty::Generate if manifest.kind == CeremonyKind::Dkg => {
            let threshold = order.spec.threshold;
            boxed(move |session| KeyGeneration::new(own, parties, threshold, session))
        }
        Duty::Generate => {
            boxed(move |session| Refreshing::new(needed(share)?, own, &needed(before)?, session))
        }
        Duty::Repair { lost } => {
            let (lost, share) = (*lost, share.filter(|_| own != *lost));
            boxed(move |session| Repairing::new(share, own, lost, parties, needed(before)?, session))
        }
        Duty::Rebuild => {
            let rebuilt: Vec<NodeIndex> = manifest.repaired().collect();
            let share = share.filter(|_| !rebuilt.contains(&own));
            boxed(move |_| Rebuilding::new(share, own, rebuilt, parties, needed(before)?))
        }
        Duty::TestSign { subset, attempt, input } => {
            let to_sign = order.ceremony.to_sign(subset, *attempt, *input);
            let signing = boxed(move |session| {
                let ToSign { digest, key, path } = needed(to_sign)?;
                let share = Arc::new(needed(share)?.derive(&path).map_err(|_| no_key())?);
                Signing::new(share, own, &parties, key, digest, session)
            });
            return Some((SIGNATURE_ROUND_MS, signing));
        }
        Duty::Restore { .. }
        | Duty::Backup { .. }
        | Duty::Prove { .. }
        | Duty::Attest
        | Duty::Adopt
        | Duty::Fault
        | Duty::Prepare
        | Duty::Retire => return None,
    };
    Some((GENERATION_ROUND_MS, factory))
}

fn boxed<P: Protocol<Product = Product> + 'static>(
    new: impl FnOnce(Hash) -> Result<P, ProtocolAbort> + Send + 'static,
) -> Factory {
    Box::new(move |session| Ok(Box::new(new(session)?)))
}

fn no_key() -> ProtocolAbort {
    ProtocolAbort::new("the path does not lead to a key: choose another")
}

fn needed<T>(part: Option<T>) -> Result<T, ProtocolAbort> {
    part.ok_or_else(|| {
        ProtocolAbort::new("this enclave does not hold the share that the session needs: open a new ceremony")
    })
}
