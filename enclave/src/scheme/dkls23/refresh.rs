//! Complete refresh, in five rounds: new shares of the same key, and new multiplication state between every
//! pair.
//!
//! All n parties take part, each with its share of one generation; a repaired or restored share will do. The fast
//! refresh is never used: it would carry over the state that a ban or a repair has spoilt.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::wallet::Record;
use dkls23::protocols::PartyIndex;
use dkls23::protocols::dkg::{
    KeepInitMulPhase3to4, KeepInitZeroSharePhase2to3, KeepInitZeroSharePhase3to4, ProofCommitment,
    TransmitInitZeroSharePhase2to4,
};
use dkls23::secp256k1::PublicKeyPackage;
use k256::elliptic_curve::zeroize::Zeroize;
use k256::{Scalar, Secp256k1};
use zeroize::Zeroizing;

use super::messages::{abort, check_parties, index, private_to};
use super::product::Product;
use super::setup::{SetUps, check_echoing, fragment_letters, take_fragments};
use super::share::{KeyShare, NewShare, package};
use crate::session::{Outgoing, Protocol, ProtocolAbort, Round, Step, check_senders, decode, encode};

const ROUNDS: [&str; 5] = [
    "share the corrections",
    "commit",
    "echo the commitments",
    "open, set up multiplication",
    "echo the openings",
];

type Proof = ProofCommitment<Secp256k1>;

/// Seeds from the second phase to the third. The crate's type does not wipe itself.
#[derive(Default)]
struct Seeds(BTreeMap<PartyIndex, KeepInitZeroSharePhase2to3>);

impl Drop for Seeds {
    fn drop(&mut self) {
        for kept in self.0.values_mut() {
            kept.seed.zeroize();
            kept.salt.zeroize();
        }
    }
}

/// What is kept from the third phase to the fourth.
#[derive(Default)]
struct Kept {
    zero: BTreeMap<PartyIndex, KeepInitZeroSharePhase3to4>,
    multiplication: BTreeMap<PartyIndex, KeepInitMulPhase3to4<Secp256k1>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for kept in self.zero.values_mut() {
            kept.seed.zeroize();
        }
        for kept in self.multiplication.values_mut() {
            kept.nonce.zeroize();
            kept.correlation.zeroize();
            for scalar in &mut kept.vec_r {
                scalar.zeroize();
            }
        }
    }
}

/// One party's part in a refresh.
pub struct Refreshing {
    share: Arc<KeyShare>,
    own: NodeIndex,
    parties: Vec<NodeIndex>,
    package: PublicKeyPackage,
    session: Hash,
    /// The round whose messages come next; 0 before the start.
    next: usize,
    correction: Zeroizing<Scalar>,
    /// This party's own proof, from the commitment until it is opened.
    proof: Option<Proof>,
    commitments: BTreeMap<NodeIndex, [u8; 32]>,
    zero_commitments: Vec<TransmitInitZeroSharePhase2to4>,
    proofs: BTreeMap<NodeIndex, Proof>,
    seeds: Seeds,
    kept: Kept,
    set_up: SetUps,
}

impl Refreshing {
    /// Prepares a refresh of the recorded generation among all its parties.
    ///
    /// # Errors
    /// [`ProtocolAbort`] unless the share is this party's of that generation.
    pub fn new(
        share: Arc<KeyShare>,
        own: NodeIndex,
        record: &Record,
        session: Hash,
    ) -> Result<Self, ProtocolAbort> {
        if !share.belongs_to(record, own) {
            return Err(ProtocolAbort::new(
                "the share is not this node's share of the generation to be refreshed: check which share was opened",
            ));
        }
        let parties = record.roster();
        Ok(Self {
            own,
            package: package(record)?,
            session,
            next: 0,
            correction: Zeroizing::new(Scalar::ZERO),
            proof: None,
            commitments: BTreeMap::new(),
            zero_commitments: Vec::new(),
            proofs: BTreeMap::new(),
            seeds: Seeds::default(),
            kept: Kept::default(),
            set_up: SetUps::for_peers(parties.len()),
            parties,
            share,
        })
    }

    /// Each round runs once and in order: dkls23's refresh keeps no state that would ensure that.
    fn take_turn(&mut self, number: usize) -> Result<(), ProtocolAbort> {
        if number == self.next {
            self.next += 1;
            Ok(())
        } else {
            Err(ProtocolAbort::new("a round of the refresh was run twice or out of order"))
        }
    }

    fn commit(&mut self, messages: Round) -> Result<Outgoing, ProtocolAbort> {
        let fragments = take_fragments(messages)?;
        let party = &self.share.0;
        let (correction, proof, seeds, zero) =
            party.refresh_complete_phase2(self.session.as_bytes(), &fragments);
        self.correction = Zeroizing::new(correction);
        self.seeds = Seeds(seeds);
        let private = zero.iter().map(|message| private_to(message.parties.receiver, message));
        let private = private.collect::<Result<_, _>>()?;
        let broadcast = encode(&proof.commitment)?.to_vec();
        self.proof = Some(proof);
        Ok(Outgoing { broadcast, private })
    }

    fn take_commitments(&mut self, messages: Round) -> Result<(), ProtocolAbort> {
        for (from, message) in messages {
            self.commitments.insert(from, decode(from, &message.broadcast)?);
            if from != self.own {
                let zero: TransmitInitZeroSharePhase2to4 = decode(from, &message.private)?;
                check_parties((from, self.own), &zero.parties)?;
                self.zero_commitments.push(zero);
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let proof = self.proof.take().ok_or_else(|| ProtocolAbort::new("there is no proof to open"))?;
        let seeds = std::mem::take(&mut self.seeds);
        let (zero_kept, zero, multiplication_kept, multiplication) =
            self.share.0.refresh_complete_phase3(self.session.as_bytes(), &seeds.0);
        self.kept = Kept { zero: zero_kept, multiplication: multiplication_kept };
        let private = SetUps { zero, multiplication }.letters()?;
        Ok(Outgoing { broadcast: encode(&proof)?.to_vec(), private })
    }

    fn take_openings(&mut self, messages: Round) -> Result<(), ProtocolAbort> {
        for (from, message) in messages {
            let proof: Proof = decode(from, &message.broadcast)?;
            if proof.index != index(from)? {
                return Err(ProtocolAbort::by(from, "an opening names another sender"));
            }
            if self.commitments.get(&from) != Some(&proof.commitment) {
                return Err(ProtocolAbort::by(from, "an opened proof was not committed to"));
            }
            self.proofs.insert(from, proof);
            if from != self.own {
                self.set_up.take(from, self.own, &message.private)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<NewShare, ProtocolAbort> {
        let proofs: Vec<Proof> = std::mem::take(&mut self.proofs).into_values().collect();
        if proofs.len() != self.parties.len() {
            return Err(ProtocolAbort::new("the refresh has ended, or not every party has opened"));
        }
        let (kept, set_up) = (std::mem::take(&mut self.kept), std::mem::take(&mut self.set_up));
        let session = self.session.as_bytes();
        let party = self
            .share
            .0
            .refresh_complete_phase4(
                session,
                &self.correction,
                &proofs,
                &kept.zero,
                &self.zero_commitments,
                &set_up.zero,
                &kept.multiplication,
                &set_up.multiplication,
            )
            .map_err(abort)?;
        let package = self.package.refresh(session, &proofs).map_err(|reason| {
            ProtocolAbort::new(format!("the corrections do not refresh the public shares: {reason:?}"))
        })?;
        NewShare::new(party, &package)
    }
}

impl Protocol for Refreshing {
    type Product = Product;

    fn rounds(&self) -> &'static [&'static str] {
        &ROUNDS
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        self.take_turn(0)?;
        let fragments = Zeroizing::new(self.share.0.refresh_complete_phase1());
        Ok(Outgoing { broadcast: Vec::new(), private: fragment_letters(&self.parties, &fragments) })
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Product>, ProtocolAbort> {
        check_senders(&self.parties, &messages)?;
        self.take_turn(number)?;
        match number {
            1 => self.commit(messages).map(Step::Next),
            2 => self.take_commitments(messages).map(|()| Step::Next(Outgoing::default())),
            3 => check_echoing(&messages).and_then(|()| self.open()).map(Step::Next),
            4 => self.take_openings(messages).map(|()| Step::Next(Outgoing::default())),
            5 => check_echoing(&messages)
                .and_then(|()| self.finish())
                .map(|share| Step::Done(Product::Share(Box::new(share)))),
            _ => Err(ProtocolAbort::new("a refresh has five rounds")),
        }
    }
}
