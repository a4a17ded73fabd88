//! The protocol that computes what a session is held for: here a task and a scheme are put together. Whether the session
//! is to be held must be settled before.

use std::sync::Arc;

use ceremonies::ceremony::ToSign;
use ceremonies::ids::{Hash, NodeIndex};

use crate::scheme::dkls23::{
    Factory, KeyGeneration, KeyShare, Product, Rebuilding, Refreshing, Repairing, Signing,
};
use crate::session::{BootKeys, Millis, Protocol, ProtocolAbort, Session, SessionPlan};
use crate::signer::{Begin, Task};

/// How long the parties of a session may take to be ready: their agents learn of it through the log.
const BARRIER_MS: Millis = 30_000;
/// How long a round of a key generation, refresh or repair may take: its heaviest phase takes a second natively and half a
/// minute in an emulated machine that shares two cores with four others.
const GENERATION_ROUND_MS: Millis = 120_000;
/// How long a round of a signature may take.
const SIGNATURE_ROUND_MS: Millis = 30_000;

/// The session, not yet begun.
pub(super) fn session(begin: Begin<KeyShare>, keys: Arc<BootKeys>) -> Session<Product> {
    let Begin { label, context, own, parties, task } = begin;
    let indices = parties.keys().copied().collect();
    let (round_ms, factory) = for_task(own, indices, task);
    let plan = SessionPlan { label, context, own, parties, barrier_ms: BARRIER_MS, round_ms };
    Session::new(plan, keys, rand::random(), factory)
}

/// How long a round may take, and the protocol.
fn for_task(own: NodeIndex, parties: Vec<NodeIndex>, task: Task<KeyShare>) -> (Millis, Factory) {
    match task {
        Task::Generate { threshold } => {
            let generation = boxed(move |session| KeyGeneration::new(own, parties, threshold, session));
            (GENERATION_ROUND_MS, generation)
        }
        Task::Refresh { share, before } => {
            let refreshing =
                boxed(move |session| Refreshing::new(needed(share)?, own, &needed(before)?, session));
            (GENERATION_ROUND_MS, refreshing)
        }
        Task::Repair { lost, share, before } => {
            let repairing =
                boxed(move |session| Repairing::new(share, own, lost, parties, needed(before)?, session));
            (GENERATION_ROUND_MS, repairing)
        }
        Task::Rebuild { lost, share, before } => {
            let rebuilding = boxed(move |_| Rebuilding::new(share, own, lost, parties, needed(before)?));
            (GENERATION_ROUND_MS, rebuilding)
        }
        Task::Sign { share, to_sign } => {
            let signing = boxed(move |session| {
                let ToSign { digest, key, path } = needed(to_sign)?;
                let share = Arc::new(needed(share)?.derive(&path).map_err(|_| no_key())?);
                Signing::new(share, own, &parties, key, digest, session)
            });
            (SIGNATURE_ROUND_MS, signing)
        }
    }
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
