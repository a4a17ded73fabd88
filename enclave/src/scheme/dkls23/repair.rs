//! Share repair, in one round: t helpers rebuild the share of a node that lost it, for that node alone.
//!
//! The resulting share has no multiplication state: it can take part in a complete refresh and in nothing else. That
//! the target is the right one is up to the ceremony, in which its enclave is attested and approved.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::wallet::Record;
use dkls23::protocols::PartyIndex;
use dkls23::protocols::repair::{RepairTerm, repair_assemble};
use k256::Secp256k1;

use super::messages::index;
use super::product::Product;
use super::share::{KeyShare, package};
use crate::session::{
    Inbound, Outgoing, Protocol, ProtocolAbort, Round, Step, check_quiet, check_senders, check_silent,
    decode, encode,
};

/// One party's part in a repair: a helper's, or the target's.
pub struct Repairing {
    own: NodeIndex,
    target: NodeIndex,
    /// Helpers and target, in order.
    parties: Vec<NodeIndex>,
    record: Record,
    session: Hash,
    /// A helper's share; the target has none.
    share: Option<Arc<KeyShare>>,
}

impl Repairing {
    /// Prepares a repair of the target's share of the recorded generation. The parties are the target and its
    /// helpers.
    ///
    /// # Errors
    /// [`ProtocolAbort`] unless a helper holds its share of that generation, and the target none.
    pub fn new(
        share: Option<Arc<KeyShare>>,
        own: NodeIndex,
        target: NodeIndex,
        mut parties: Vec<NodeIndex>,
        record: Record,
        session: Hash,
    ) -> Result<Self, ProtocolAbort> {
        parties.sort_unstable();
        let fits = match &share {
            Some(share) => own != target && share.belongs_to(&record, own),
            None => own == target,
        };
        if fits && parties.contains(&own) && parties.contains(&target) {
            Ok(Self { own, target, parties, record, session, share })
        } else {
            Err(ProtocolAbort::new(
                "a helper must hold its share of the generation to be repaired, and the target must hold none: check \
                 the order",
            ))
        }
    }

    fn helpers(&self) -> Result<Vec<PartyIndex>, ProtocolAbort> {
        self.parties.iter().filter(|party| **party != self.target).map(|party| index(*party)).collect()
    }

    fn term(from: NodeIndex, message: &Inbound) -> Result<RepairTerm<Secp256k1>, ProtocolAbort> {
        check_silent(from, &message.broadcast)?;
        let term: RepairTerm<Secp256k1> = decode(from, &message.private)?;
        if term.helper == index(from)? {
            Ok(term)
        } else {
            Err(ProtocolAbort::by(from, "a term names another helper"))
        }
    }

    fn assemble(&self, messages: &Round) -> Result<Product, ProtocolAbort> {
        let helpers = messages.iter().filter(|(from, _)| **from != self.own);
        let terms: Vec<_> =
            helpers.map(|(from, message)| Self::term(*from, message)).collect::<Result<_, _>>()?;
        let party = repair_assemble(&package(&self.record)?, index(self.target)?, &terms, |_| String::new())
            .map_err(|error| {
                ProtocolAbort::new(format!(
                    "{error}: open a new ceremony, with other helpers if this happens again"
                ))
            })?;
        let share = KeyShare(party);
        if share.belongs_to(&self.record, self.own) {
            Ok(Product::Repaired(Box::new(share)))
        } else {
            Err(ProtocolAbort::new("the repaired share is not this node's share of the recorded generation"))
        }
    }
}

impl Protocol for Repairing {
    type Product = Product;

    fn rounds(&self) -> &'static [&'static str] {
        &["send the terms"]
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let Some(share) = &self.share else { return Ok(Outgoing::default()) };
        let term = share
            .0
            .repair_term(&self.helpers()?, index(self.target)?, self.session.as_bytes())
            .map_err(|error| ProtocolAbort::new(error.to_string()))?;
        Ok(Outgoing { broadcast: Vec::new(), private: BTreeMap::from([(self.target, encode(&term)?)]) })
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Product>, ProtocolAbort> {
        check_senders(&self.parties, &messages)?;
        if number != 1 {
            return Err(ProtocolAbort::new("a repair has one round"));
        }
        if self.own == self.target {
            return self.assemble(&messages).map(Step::Done);
        }
        for (from, message) in messages.iter().filter(|(from, _)| **from != self.own) {
            check_quiet(*from, message)?;
        }
        Ok(Step::Done(Product::Helped))
    }
}
