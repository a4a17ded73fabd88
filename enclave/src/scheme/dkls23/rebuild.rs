//! The last resort, in two rounds: t nodes hand their root shares to one enclave, the dealer's, which works out
//! the lost shares and gives each to its node alone.
//!
//! Root shares without multiplication state cannot mask each other's terms, so the crate's repair cannot be used. What
//! the dealer holds between its two rounds is as good as the key: it must never leave this module except as the shares
//! that were asked for, each of which is checked against the recorded generation on both sides. The result can be
//! refreshed, and nothing else; the refresh that follows makes shares that the dealer does not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::ids::NodeIndex;
use ceremonies::wallet::Record;
use k256::Scalar;

use super::messages::index;
use super::product::Product;
use super::share::KeyShare;
use crate::session::{
    Outgoing, Protocol, ProtocolAbort, Round, Step, check_quiet, check_senders, check_silent,
};

/// One party's part in a rebuild: a node that has its root share, one that lost it, or the dealer.
pub struct Rebuilding {
    own: NodeIndex,
    dealer: NodeIndex,
    /// The nodes that lost their shares, the dealer among them.
    lost: Vec<NodeIndex>,
    /// All who take part, in order.
    parties: Vec<NodeIndex>,
    record: Record,
    /// The share of a node that has one.
    share: Option<Arc<KeyShare>>,
}

impl Rebuilding {
    /// Prepares a rebuild of the recorded generation's shares of the `lost` nodes, the first of which deals.
    ///
    /// # Errors
    /// [`ProtocolAbort`] unless this party has its share of that generation, or has lost it, and a threshold of parties
    /// have theirs.
    pub fn new(
        share: Option<Arc<KeyShare>>,
        own: NodeIndex,
        mut lost: Vec<NodeIndex>,
        mut parties: Vec<NodeIndex>,
        record: Record,
    ) -> Result<Self, ProtocolAbort> {
        lost.sort_unstable();
        parties.sort_unstable();
        let fits = match &share {
            Some(share) => !lost.contains(&own) && share.belongs_to(&record, own),
            None => lost.contains(&own),
        };
        let all_take_part = parties.contains(&own) && lost.iter().all(|node| parties.contains(node));
        let enough = parties.len().checked_sub(lost.len()) == Some(usize::from(record.threshold));
        match lost.first().copied() {
            Some(dealer) if fits && all_take_part && enough => {
                Ok(Self { own, dealer, lost, parties, record, share })
            }
            _ => Err(ProtocolAbort::new(
                "a rebuild needs shares from a threshold of nodes, none of which lost its own: check the order",
            )),
        }
    }

    /// What a node that lost its share is sent must be its share, whoever sent it.
    fn read(&self, of: NodeIndex, from: NodeIndex, bytes: &[u8]) -> Result<KeyShare, ProtocolAbort> {
        let share = KeyShare::decode(bytes).ok().filter(|share| share.belongs_to(&self.record, of));
        // Nothing vouches for the rest of what was sent.
        share.map(|share| share.root()).ok_or_else(|| {
            ProtocolAbort::by(
                from,
                format!("what it sent is not node {of}'s share of the recorded generation"),
            )
        })
    }

    /// The dealer's second round, from every party's first.
    fn deal(&self, messages: &Round) -> Result<Outgoing, ProtocolAbort> {
        let mut roots = Vec::with_capacity(messages.len());
        for (from, message) in messages {
            if self.lost.contains(from) {
                check_quiet(*from, message)?;
            } else {
                check_silent(*from, &message.broadcast)?;
                roots.push((*from, self.read(*from, *from, &message.private)?));
            }
        }
        let mut private = BTreeMap::new();
        for node in &self.lost {
            let share = interpolate(&roots, *node)?;
            if !share.belongs_to(&self.record, *node) {
                return Err(ProtocolAbort::new(format!(
                    "the shares handed over do not lead to node {node}'s public share: the recorded shares do not lie \
                     on one polynomial"
                )));
            }
            private.insert(*node, share.encode().map_err(|error| ProtocolAbort::new(error.to_string()))?);
        }
        Ok(Outgoing { broadcast: Vec::new(), private })
    }

    fn take(&self, messages: &Round) -> Result<Product, ProtocolAbort> {
        let is_lost = self.lost.contains(&self.own);
        let mut product = Product::Helped;
        for (from, message) in messages {
            if *from == self.dealer && is_lost {
                check_silent(*from, &message.broadcast)?;
                product = Product::Repaired(Box::new(self.read(self.own, *from, &message.private)?));
            } else {
                check_quiet(*from, message)?;
            }
        }
        Ok(product)
    }
}

/// Another node's share on the polynomial that these lie on (Lagrange), with what all shares have in common.
fn interpolate(roots: &[(NodeIndex, KeyShare)], at: NodeIndex) -> Result<KeyShare, ProtocolAbort> {
    let scalar = |node: NodeIndex| Scalar::from(u64::from(node.get()));
    let (_, first) = roots.first().ok_or_else(|| ProtocolAbort::new("nobody handed over a share"))?;
    let mut share = first.root();
    share.0.party_index = index(at)?;
    share.0.poly_point = Scalar::ZERO;
    for (node, root) in roots {
        let mut weight = Scalar::ONE;
        for (other, _) in roots.iter().filter(|(other, _)| other != node) {
            let apart = Option::<Scalar>::from((scalar(*node) - scalar(*other)).invert());
            let apart = apart.ok_or_else(|| ProtocolAbort::new("two parties have the same index"))?;
            weight *= (scalar(at) - scalar(*other)) * apart;
        }
        share.0.poly_point += root.0.poly_point * weight;
    }
    // The crate keeps a second copy of the share, for derived keys.
    share.0.derivation_data.poly_point = share.0.poly_point;
    Ok(share)
}

impl Protocol for Rebuilding {
    type Product = Product;

    fn rounds(&self) -> &'static [&'static str] {
        &["hand over the root shares", "deal the lost shares"]
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let Some(share) = &self.share else { return Ok(Outgoing::default()) };
        let root = share.root().encode().map_err(|error| ProtocolAbort::new(error.to_string()))?;
        Ok(Outgoing { broadcast: Vec::new(), private: BTreeMap::from([(self.dealer, root)]) })
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Product>, ProtocolAbort> {
        check_senders(&self.parties, &messages)?;
        match number {
            1 if self.own == self.dealer => self.deal(&messages).map(Step::Next),
            1 => {
                messages.iter().try_for_each(|(from, message)| check_quiet(*from, message))?;
                Ok(Step::Next(Outgoing::default()))
            }
            2 => self.take(&messages).map(Step::Done),
            _ => Err(ProtocolAbort::new("a rebuild has two rounds")),
        }
    }
}
