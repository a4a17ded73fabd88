//! A threshold signature (Protocol 3.6 of eprint 2023/765), in three rounds among t parties.
//!
//! What is kept between phases is moved, never copied: it is used once. No result may leave before it is verified here.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::curve::{Point, verifies};
use ceremonies::ids::{Hash, NodeIndex};
use dkls23::protocols::signing::{
    Broadcast3to4, KeepPhase1to2, KeepPhase2to3, SignData, TransmitPhase1to2, TransmitPhase2to3,
    UniqueKeep1to2, UniqueKeep2to3,
};
use dkls23::protocols::{PartiesMessage, PartyIndex};
use k256::Secp256k1;
use k256::ecdsa::{RecoveryId, VerifyingKey};
use k256::elliptic_curve::group::GroupEncoding;
use serde::de::DeserializeOwned;

use super::messages::{abort, check_parties, index, private_to};
use super::product::{Product, Signature};
use super::share::KeyShare;
use crate::session::{
    Outgoing, Protocol, ProtocolAbort, Round, Step, check_senders, check_silent, decode, encode,
};

const ROUNDS: [&str; 3] = ["commit to nonces", "multiply", "open the signature shares"];

type KeptAfter1 = (UniqueKeep1to2<Secp256k1>, BTreeMap<PartyIndex, KeepPhase1to2<Secp256k1>>);
type KeptAfter2 = (UniqueKeep2to3<Secp256k1>, BTreeMap<PartyIndex, KeepPhase2to3<Secp256k1>>);

/// What is kept from one phase to the next.
enum Kept {
    Nothing,
    After1(Box<KeptAfter1>),
    After2(Box<KeptAfter2>),
    After3 { x: String },
}

/// One party's part in a signature.
pub struct Signing {
    share: Arc<KeyShare>,
    own: NodeIndex,
    /// The signers in order, this one included.
    parties: Vec<NodeIndex>,
    public_key: Point,
    digest: Hash,
    data: SignData,
    kept: Kept,
}

impl Signing {
    /// Prepares a signature of `digest` by exactly these parties. The session's id becomes the sign id,
    /// which is fresh for every attempt.
    ///
    /// # Errors
    /// [`ProtocolAbort`] unless the share is this party's share of that key and it is one of the parties. The first
    /// phase checks that their number is the threshold.
    pub fn new(
        share: Arc<KeyShare>,
        own: NodeIndex,
        parties: &[NodeIndex],
        public_key: Point,
        digest: Hash,
        session: Hash,
    ) -> Result<Self, ProtocolAbort> {
        if !share.is_for(own, &public_key) {
            return Err(ProtocolAbort::new(
                "the share belongs to another node or another key: check which share was opened",
            ));
        }
        let mut parties = parties.to_vec();
        parties.sort_unstable();
        if !parties.contains(&own) {
            return Err(ProtocolAbort::new("this node is not one of the signers: check the order"));
        }
        let counterparties = parties
            .iter()
            .filter(|party| **party != own)
            .map(|party| index(*party))
            .collect::<Result<_, _>>()?;
        let data = SignData {
            sign_id: session.as_bytes().to_vec(),
            counterparties,
            message_hash: *digest.as_bytes(),
        };
        Ok(Self { share, own, parties, public_key, digest, data, kept: Kept::Nothing })
    }

    /// The private messages of a round in which nobody broadcasts.
    fn private<T: DeserializeOwned>(
        &self,
        messages: Round,
        parties_of: impl Fn(&T) -> &PartiesMessage,
    ) -> Result<Vec<T>, ProtocolAbort> {
        let mut received = Vec::with_capacity(messages.len());
        for (from, message) in messages {
            check_silent(from, &message.broadcast)?;
            if from != self.own {
                let transmit: T = decode(from, &message.private)?;
                check_parties((from, self.own), parties_of(&transmit))?;
                received.push(transmit);
            }
        }
        Ok(received)
    }

    fn multiply(&mut self, messages: Round) -> Result<Outgoing, ProtocolAbort> {
        let Kept::After1(kept) = std::mem::replace(&mut self.kept, Kept::Nothing) else {
            return Err(ProtocolAbort::new("the signature's phases are out of order"));
        };
        let received = self.private(messages, |transmit: &TransmitPhase1to2| &transmit.parties)?;
        let (unique, each) = *kept;
        let (unique, each, transmit) =
            self.share.0.sign_phase2(&self.data, unique, each, &received).map_err(abort)?;
        self.kept = Kept::After2(Box::new((unique, each)));
        let private = transmit.iter().map(|message| private_to(message.parties.receiver, message));
        Ok(Outgoing { broadcast: Vec::new(), private: private.collect::<Result<_, _>>()? })
    }

    fn open(&mut self, messages: Round) -> Result<Outgoing, ProtocolAbort> {
        let Kept::After2(kept) = std::mem::replace(&mut self.kept, Kept::Nothing) else {
            return Err(ProtocolAbort::new("the signature's phases are out of order"));
        };
        let received = self.private(messages, |transmit: &TransmitPhase2to3<Secp256k1>| &transmit.parties)?;
        let (unique, each) = *kept;
        let (x, broadcast) = self.share.0.sign_phase3(&self.data, unique, each, &received).map_err(abort)?;
        self.kept = Kept::After3 { x };
        Ok(Outgoing { broadcast: encode(&broadcast)?.to_vec(), private: BTreeMap::new() })
    }

    fn finish(&mut self, messages: Round) -> Result<Signature, ProtocolAbort> {
        let Kept::After3 { x } = std::mem::replace(&mut self.kept, Kept::Nothing) else {
            return Err(ProtocolAbort::new("the signature's phases are out of order"));
        };
        let shares = messages
            .into_iter()
            .map(|(from, message)| {
                check_silent(from, &message.private)?;
                decode::<Broadcast3to4<Secp256k1>>(from, &message.broadcast)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (s, recovery_id) = self.share.0.sign_phase4(&self.data, &x, &shares, true).map_err(abort)?;
        let scalar = |text: &str| -> Result<[u8; 32], ProtocolAbort> {
            text.parse::<Hash>()
                .map(|bytes| *bytes.as_bytes())
                .map_err(|_| ProtocolAbort::new("the signature is malformed"))
        };
        let signature = Signature { r: scalar(&x)?, s: scalar(&s)?, recovery_id };
        if verifies(&self.public_key, &self.digest, &signature.r, &signature.s)
            && recovers(&self.public_key, &self.digest, &signature)
        {
            Ok(signature)
        } else {
            Err(ProtocolAbort::new("the signature does not verify under the wallet's key"))
        }
    }
}

/// Whether the recovery id recovers this key: chains that recover the sender depend on it.
fn recovers(key: &Point, digest: &Hash, signature: &Signature) -> bool {
    let (Some(id), Ok(scalars)) = (
        RecoveryId::from_byte(signature.recovery_id),
        k256::ecdsa::Signature::from_scalars(signature.r, signature.s),
    ) else {
        return false;
    };
    VerifyingKey::recover_from_prehash(digest.as_bytes(), &scalars, id)
        .is_ok_and(|recovered| recovered.as_affine().to_bytes().as_slice() == key.as_bytes())
}

impl Protocol for Signing {
    type Product = Product;

    fn rounds(&self) -> &'static [&'static str] {
        &ROUNDS
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let (unique, each, transmit) = self.share.0.sign_phase1(&self.data).map_err(abort)?;
        self.kept = Kept::After1(Box::new((unique, each)));
        let private = transmit.iter().map(|message| private_to(message.parties.receiver, message));
        Ok(Outgoing { broadcast: Vec::new(), private: private.collect::<Result<_, _>>()? })
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Product>, ProtocolAbort> {
        check_senders(&self.parties, &messages)?;
        match number {
            1 => self.multiply(messages).map(Step::Next),
            2 => self.open(messages).map(Step::Next),
            3 => self.finish(messages).map(|signature| Step::Done(Product::Signature(signature))),
            _ => Err(ProtocolAbort::new("a signature has three rounds")),
        }
    }
}
