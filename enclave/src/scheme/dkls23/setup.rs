//! What key generation and refresh have in common: fragments of polynomials, and what parties set up in pairs.
//! What is secret in it must never outlive its session: it is wiped when dropped.

use std::collections::BTreeMap;

use ceremonies::ids::NodeIndex;
use dkls23::protocols::dkg::{TransmitInitMulPhase3to4, TransmitInitZeroSharePhase3to4};
use k256::elliptic_curve::PrimeField;
use k256::{Scalar, Secp256k1};
use zeroize::{Zeroize, Zeroizing};

use super::messages::{check_parties, private_to};
use crate::session::{ProtocolAbort, Round, check_quiet, check_silent, decode};

type Letters = BTreeMap<NodeIndex, Zeroizing<Vec<u8>>>;

/// Each party's fragment of this party's own polynomial, to that party alone.
pub(super) fn fragment_letters(parties: &[NodeIndex], fragments: &[Scalar]) -> Letters {
    let letter =
        |(party, fragment): (&NodeIndex, &Scalar)| (*party, Zeroizing::new(fragment.to_repr().to_vec()));
    parties.iter().zip(fragments).map(letter).collect()
}

/// The fragments that all parties sent, in the order of the parties.
pub(super) fn take_fragments(messages: Round) -> Result<Zeroizing<Vec<Scalar>>, ProtocolAbort> {
    let mut fragments = Zeroizing::new(Vec::with_capacity(messages.len()));
    for (from, message) in messages {
        check_silent(from, &message.broadcast)?;
        fragments.push(scalar(from, &message.private)?);
    }
    Ok(fragments)
}

fn scalar(from: NodeIndex, bytes: &[u8]) -> Result<Scalar, ProtocolAbort> {
    let no_scalar = || ProtocolAbort::by(from, "a polynomial fragment is not a scalar");
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.try_into().map_err(|_| no_scalar())?);
    let scalar: Option<Scalar> = Scalar::from_repr((*bytes).into()).into();
    scalar.ok_or_else(no_scalar)
}

/// In an echo round, nobody sends anything: the driver has compared what every party saw.
pub(super) fn check_echoing(messages: &Round) -> Result<(), ProtocolAbort> {
    messages.iter().try_for_each(|(from, message)| check_quiet(*from, message))
}

/// What parties set up in pairs: one entry of each half per peer. The crate's types do not wipe themselves, and a
/// vector that grows leaves copies behind, so it is allocated large enough.
#[derive(Default)]
pub(super) struct SetUps {
    pub(super) zero: Vec<TransmitInitZeroSharePhase3to4>,
    pub(super) multiplication: Vec<TransmitInitMulPhase3to4<Secp256k1>>,
}

impl SetUps {
    pub(super) fn for_peers(count: usize) -> Self {
        Self { zero: Vec::with_capacity(count), multiplication: Vec::with_capacity(count) }
    }

    /// Both halves for each peer, in one message.
    pub(super) fn letters(&self) -> Result<Letters, ProtocolAbort> {
        let mut letters = BTreeMap::new();
        for zero in &self.zero {
            let receiver = zero.parties.receiver;
            let multiplication = self.multiplication.iter().find(|m| m.parties.receiver == receiver);
            let multiplication =
                multiplication.ok_or_else(|| ProtocolAbort::new("the protocol left a peer out"))?;
            let (to, bytes) = private_to(receiver, &(zero, multiplication))?;
            letters.insert(to, bytes);
        }
        Ok(letters)
    }

    /// Takes what a peer sent to this party.
    pub(super) fn take(
        &mut self,
        from: NodeIndex,
        own: NodeIndex,
        letter: &[u8],
    ) -> Result<(), ProtocolAbort> {
        let (zero, multiplication): (TransmitInitZeroSharePhase3to4, TransmitInitMulPhase3to4<_>) =
            decode(from, letter)?;
        check_parties((from, own), &zero.parties)?;
        check_parties((from, own), &multiplication.parties)?;
        self.zero.push(zero);
        self.multiplication.push(multiplication);
        Ok(())
    }
}

impl Drop for SetUps {
    fn drop(&mut self) {
        for zero in &mut self.zero {
            zero.seed.zeroize();
            zero.salt.zeroize();
        }
        for multiplication in &mut self.multiplication {
            multiplication.nonce.zeroize();
            multiplication.seed.zeroize();
        }
    }
}
