//! What the protocols have in common: indices, encodings, and dkls23's aborts in our terms.

use ceremonies::ids::NodeIndex;
use dkls23::protocols::{Abort, AbortKind, AbortReason, PartiesMessage, PartyIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::protocol::{ProtocolAbort, Round};

pub(super) fn index(node: NodeIndex) -> Result<PartyIndex, ProtocolAbort> {
    PartyIndex::new(node.get()).map_err(|_| ProtocolAbort::new("a party's index is 0"))
}

fn node(index: PartyIndex) -> Option<NodeIndex> {
    NodeIndex::new(index.as_u8()).ok()
}

/// Postcard in a buffer of the right size from the start: a buffer that grows leaves copies of secrets behind.
pub(super) fn to_postcard<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, postcard::Error> {
    let mut bytes = Zeroizing::new(vec![0; postcard::experimental::serialized_size(value)?]);
    postcard::to_slice(value, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn encode<T: Serialize>(message: &T) -> Result<Zeroizing<Vec<u8>>, ProtocolAbort> {
    to_postcard(message).map_err(|_| ProtocolAbort::new("a message could not be encoded"))
}

/// Exactly one message from each party, this one included. The driver sees to that, but dkls23 accepts four of five
/// fragments without complaint, so a driver and a protocol with different rosters must be caught here.
pub(super) fn check_senders(parties: &[NodeIndex], messages: &Round) -> Result<(), ProtocolAbort> {
    if messages.keys().eq(parties.iter()) {
        Ok(())
    } else {
        Err(ProtocolAbort::new(
            "there is not exactly one message from each party: the order and its plan differ",
        ))
    }
}

/// Sender and receiver inside a message must be those whom the envelope proves.
pub(super) fn check_parties(
    (from, to): (NodeIndex, NodeIndex),
    named: &PartiesMessage,
) -> Result<(), ProtocolAbort> {
    if named.sender == index(from)? && named.receiver == index(to)? {
        Ok(())
    } else {
        Err(ProtocolAbort::by(from, "the body of a message names another sender or receiver"))
    }
}

/// In a round in which the protocol sends nothing, nothing may be sent.
pub(super) fn check_silent(from: NodeIndex, bytes: &[u8]) -> Result<(), ProtocolAbort> {
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(ProtocolAbort::by(from, "a message holds more than the protocol sends in this round"))
    }
}

/// Exactly one message, with nothing after it.
pub(super) fn decode<T: DeserializeOwned>(from: NodeIndex, bytes: &[u8]) -> Result<T, ProtocolAbort> {
    match postcard::take_from_bytes::<T>(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(ProtocolAbort::by(from, "a protocol message is malformed")),
    }
}

pub(super) fn private_to<T: Serialize>(
    receiver: PartyIndex,
    message: &T,
) -> Result<(NodeIndex, Zeroizing<Vec<u8>>), ProtocolAbort> {
    let to = node(receiver).ok_or_else(|| ProtocolAbort::new("the protocol addressed nobody"))?;
    Ok((to, encode(message)?))
}

/// An abort of the crate: which party it names, and whether it is a ban. A message of another signing session names no
/// culprit: our own share may be of another generation.
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
        | AbortReason::OtConsistencyCheckFailed { counterparty }
        | AbortReason::MultiplicationVerificationFailed { counterparty, .. }
        | AbortReason::GammaUInconsistency { counterparty }
        | AbortReason::ZeroShareDecommitFailed { counterparty } => node(*counterparty),
        AbortReason::ChainCodeCommitmentFailed { party }
        | AbortReason::MissingCommittedPoint { party }
        | AbortReason::MissingMessageFromParty { party } => node(*party),
        _ => None,
    };
    let named = named.filter(|named| node(abort.index) != Some(*named));
    let reason = match ban {
        Some(peer) => format!(
            "{}: node {peer} is banned from every session for good; follow the runbook for a compromised share",
            abort.description()
        ),
        None => abort.description(),
    };
    ProtocolAbort { reason, culprit: ban.or(named), ban }
}
