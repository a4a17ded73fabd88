//! What the protocols have in common: indices, encodings, and dkls23's aborts in our words.

use ceremonies::ids::NodeIndex;
use dkls23::protocols::{Abort, AbortKind, AbortReason, PartyIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::protocol::ProtocolAbort;

pub(super) fn index(node: NodeIndex) -> Result<PartyIndex, ProtocolAbort> {
    PartyIndex::new(node.get()).map_err(|_| ProtocolAbort::new("a party's index is 0"))
}

fn node(index: PartyIndex) -> Option<NodeIndex> {
    NodeIndex::new(index.as_u8()).ok()
}

pub(super) fn encode<T: Serialize>(message: &T) -> Result<Zeroizing<Vec<u8>>, ProtocolAbort> {
    postcard::to_allocvec(message)
        .map(Zeroizing::new)
        .map_err(|_| ProtocolAbort::new("a message could not be encoded"))
}

/// Exactly one message, with nothing behind it.
pub(super) fn decode<T: DeserializeOwned>(from: NodeIndex, bytes: &[u8]) -> Result<T, ProtocolAbort> {
    match postcard::take_from_bytes::<T>(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(ProtocolAbort::by(from, "a message of the protocol is malformed")),
    }
}

pub(super) fn private_to<T: Serialize>(
    receiver: PartyIndex,
    message: &T,
) -> Result<(NodeIndex, Zeroizing<Vec<u8>>), ProtocolAbort> {
    let to = node(receiver).ok_or_else(|| ProtocolAbort::new("the protocol addressed nobody"))?;
    Ok((to, encode(message)?))
}

/// An abort of the crate: whom it names, and whether it is a ban.
#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
pub(super) fn abort(abort: Abort) -> ProtocolAbort {
    let ban = match abort.kind {
        AbortKind::BanCounterparty(peer) => node(peer),
        AbortKind::Recoverable => None,
    };
    let named = match &abort.reason {
        AbortReason::ProofVerificationFailed { counterparty }
        | AbortReason::CommitmentMismatch { counterparty }
        | AbortReason::TrivialInstancePoint { counterparty }
        | AbortReason::SessionBindingMismatch { counterparty }
        | AbortReason::OtConsistencyCheckFailed { counterparty }
        | AbortReason::MultiplicationVerificationFailed { counterparty, .. }
        | AbortReason::GammaUInconsistency { counterparty }
        | AbortReason::ZeroShareDecommitFailed { counterparty } => node(*counterparty),
        AbortReason::ChainCodeCommitmentFailed { party }
        | AbortReason::MissingCommittedPoint { party }
        | AbortReason::MissingMessageFromParty { party } => node(*party),
        _ => None,
    };
    ProtocolAbort { reason: abort.description(), culprit: ban.or(named), ban }
}
