//! Distributed key generation (Protocol 9.1 of eprint 2023/765), in five rounds.
//!
//! Nothing may be opened before every party's commitments are in and echoed.

use std::collections::BTreeMap;

use ceremonies::ids::{Hash, NodeIndex};
use dkls23::protocols::Parameters;
use dkls23::protocols::dkg::{
    BroadcastDerivationPhase2to4, BroadcastDerivationPhase3to4, ProofCommitment,
    TransmitInitZeroSharePhase2to4,
};
use dkls23::protocols::dkg_session::DkgSession;
use k256::Secp256k1;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::messages::{abort, check_parties, index, private_to};
use super::product::Product;
use super::setup::{SetUps, check_echoing, fragment_letters, take_fragments};
use super::share::NewShare;
use crate::session::{Outgoing, Protocol, ProtocolAbort, Round, Step, check_senders, decode, encode};

const ROUNDS: [&str; 5] = [
    "share the polynomials",
    "commit",
    "echo the commitments",
    "open, set up multiplication",
    "echo the openings",
];

/// A party's commitment to its proof, without the proof.
#[derive(Serialize, Deserialize)]
struct Committed {
    proof: [u8; 32],
    derivation: BroadcastDerivationPhase2to4,
}

/// What a party opens to all parties once all commitments are in and echoed.
#[derive(Serialize, Deserialize)]
struct Opened {
    proof: ProofCommitment<Secp256k1>,
    derivation: BroadcastDerivationPhase3to4,
}

/// One party's key generation.
pub struct KeyGeneration {
    own: NodeIndex,
    parties: Vec<NodeIndex>,
    session: Option<DkgSession<Secp256k1>>,
    /// This party's own proof, from the commitment until it is opened.
    proof: Option<ProofCommitment<Secp256k1>>,
    commitments: BTreeMap<NodeIndex, Committed>,
    zero_commitments: Vec<TransmitInitZeroSharePhase2to4>,
    opened: BTreeMap<NodeIndex, Opened>,
    set_up: SetUps,
}

impl KeyGeneration {
    /// Prepares a key generation among parties 1 to n.
    ///
    /// # Errors
    /// [`ProtocolAbort`] unless the parties are 1 to n, this one among them, and the threshold is possible.
    pub fn new(
        own: NodeIndex,
        parties: Vec<NodeIndex>,
        threshold: u8,
        session: Hash,
    ) -> Result<Self, ProtocolAbort> {
        let count = u8::try_from(parties.len()).unwrap_or(0);
        let in_order = (1..=count).zip(&parties).all(|(place, party)| place == party.get());
        let possible = in_order && parties.contains(&own);
        let parameters = Parameters::new(threshold, count).ok().filter(|_| possible).ok_or_else(|| {
            ProtocolAbort::new(
                "the parties are not 1 to n including this node, or the threshold is impossible: check the order",
            )
        })?;
        let session = DkgSession::new(parameters, index(own)?, session.as_bytes().to_vec());
        Ok(Self {
            own,
            parties,
            session: Some(session),
            proof: None,
            commitments: BTreeMap::new(),
            zero_commitments: Vec::new(),
            opened: BTreeMap::new(),
            set_up: SetUps::for_peers(usize::from(count)),
        })
    }

    fn session(&mut self) -> Result<&mut DkgSession<Secp256k1>, ProtocolAbort> {
        self.session.as_mut().ok_or_else(|| ProtocolAbort::new("the key generation has ended"))
    }

    fn commit(&mut self, messages: Round) -> Result<Outgoing, ProtocolAbort> {
        let fragments = take_fragments(messages)?;
        let (proof, zero, derivation) = self.session()?.phase2(&fragments).map_err(abort)?;
        let committed = Committed { proof: proof.commitment, derivation };
        self.proof = Some(proof);
        let private = zero.iter().map(|message| private_to(message.parties.receiver, message));
        Ok(Outgoing { broadcast: encode(&committed)?.to_vec(), private: private.collect::<Result<_, _>>()? })
    }

    fn take_commitments(&mut self, messages: Round) -> Result<(), ProtocolAbort> {
        for (from, message) in messages {
            let committed: Committed = decode(from, &message.broadcast)?;
            if committed.derivation.sender_index != index(from)? {
                return Err(ProtocolAbort::by(from, "a commitment names another sender"));
            }
            self.commitments.insert(from, committed);
            if from != self.own {
                let zero: TransmitInitZeroSharePhase2to4 = decode(from, &message.private)?;
                check_parties((from, self.own), &zero.parties)?;
                self.zero_commitments.push(zero);
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let (zero, multiplication, derivation) = self.session()?.phase3().map_err(abort)?;
        let proof = self.proof.take().ok_or_else(|| ProtocolAbort::new("there is no proof to open"))?;
        let private = SetUps { zero, multiplication }.letters()?;
        Ok(Outgoing { broadcast: encode(&Opened { proof, derivation })?.to_vec(), private })
    }

    fn take_openings(&mut self, messages: Round) -> Result<(), ProtocolAbort> {
        for (from, message) in messages {
            let opened: Opened = decode(from, &message.broadcast)?;
            let named = [opened.proof.index, opened.derivation.sender_index];
            if named != [index(from)?; 2] {
                return Err(ProtocolAbort::by(from, "an opening names another sender"));
            }
            let committed = self.commitments.get(&from).map(|committed| committed.proof);
            if committed != Some(opened.proof.commitment) {
                return Err(ProtocolAbort::by(from, "an opened proof was not committed to"));
            }
            self.opened.insert(from, opened);
            if from != self.own {
                self.set_up.take(from, self.own, &message.private)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<NewShare, ProtocolAbort> {
        let session =
            self.session.take().ok_or_else(|| ProtocolAbort::new("the key generation has ended"))?;
        let mut proofs = Vec::new();
        let (mut commitments, mut openings) = (BTreeMap::new(), BTreeMap::new());
        for party in &self.parties {
            let (Some(committed), Some(opened)) = (self.commitments.remove(party), self.opened.remove(party))
            else {
                return Err(ProtocolAbort::new(format!("node {party} opened nothing")));
            };
            proofs.push(opened.proof);
            commitments.insert(index(*party)?, committed.derivation);
            openings.insert(index(*party)?, opened.derivation);
        }
        let SetUps { zero, multiplication } = &std::mem::take(&mut self.set_up);
        let (party, package) = session
            .phase4(&proofs, &self.zero_commitments, zero, multiplication, &commitments, &openings, |_| {
                String::new()
            })
            .map_err(abort)?;
        NewShare::new(party, &package)
    }
}

impl Protocol for KeyGeneration {
    type Product = Product;

    fn rounds(&self) -> &'static [&'static str] {
        &ROUNDS
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let fragments = Zeroizing::new(self.session()?.phase1());
        Ok(Outgoing { broadcast: Vec::new(), private: fragment_letters(&self.parties, &fragments) })
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Product>, ProtocolAbort> {
        check_senders(&self.parties, &messages)?;
        match number {
            1 => self.commit(messages).map(Step::Next),
            2 => self.take_commitments(messages).map(|()| Step::Next(Outgoing::default())),
            3 => check_echoing(&messages).and_then(|()| self.open()).map(Step::Next),
            4 => self.take_openings(messages).map(|()| Step::Next(Outgoing::default())),
            5 => check_echoing(&messages)
                .and_then(|()| self.finish())
                .map(|share| Step::Done(Product::Share(Box::new(share)))),
            _ => Err(ProtocolAbort::new("a key generation has five rounds")),
        }
    }
}
