//! dkls23's party indices and aborts in our terms. Nothing that the crate's messages say of their sender may be believed
//! before it is compared with the sender that the envelope proves.

use ceremonies::ids::NodeIndex;
use dkls23::protocols::{Abort, AbortKind, AbortReason, PartiesMessage, PartyIndex};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::session::{ProtocolAbort, encode};

pub(super) fn index(node: NodeIndex) -> Result<PartyIndex, ProtocolAbort> {
    PartyIndex::new(node.get()).map_err(|_| ProtocolAbort::new("a party's index is 0"))
}

fn node(index: PartyIndex) -> Option<NodeIndex> {
    NodeIndex::new(index.as_u8()).ok()
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
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's other reasons name nobody")]
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
