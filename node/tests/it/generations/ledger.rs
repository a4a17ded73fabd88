//! What an enclave makes of the logs that it is shown, after `enclave/src/service/orders.rs`.

use std::collections::BTreeSet;

use ceremonies::attestation::EnclaveKeys;
use ceremonies::book::{Book, NotTaken};
use ceremonies::ceremony::{Ceremony, Context, Duty, Phase, SessionSpec};
use ceremonies::entry::Entry;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::wallet::{Record, Wallet};
use enclave_link::message::Start;

/// Why an enclave does not follow an order.
#[derive(Debug)]
pub(super) enum Refusal {
    Plain(String),
    /// It was shown a log before that forks from the one that stands: people restart it.
    Fork(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Plain(why)
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Self::Plain(why.to_owned())
    }
}

/// What an order comes to.
pub(super) enum Due {
    Session(Box<Order>),
    Prepare(Box<Ceremony>),
    Retire(Box<Wallet>),
}

/// What the fold calls for.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) ceremony: Ceremony,
    pub(super) duty: Duty,
    pub(super) spec: SessionSpec,
    /// The generation whose share is needed, where one is and this node has not lost it.
    pub(super) wallet: Option<Wallet>,
}

/// Every log that an enclave was ever shown, folded.
#[derive(Clone)]
pub(super) struct Ledger {
    book: Book,
    /// The ceremonies in which this enclave has followed an order.
    begun: BTreeSet<CeremonyId>,
}

fn is_over(ceremony: &Ceremony, now: UnixMillis) -> bool {
    matches!(ceremony.phase_at(now), Phase::Closed | Phase::Abandoned(_) | Phase::Void(_))
}

impl Ledger {
    pub(super) fn new(context: &Context) -> Self {
        Self { book: Book::new(context.clone()), begun: BTreeSet::new() }
    }

    /// Folds what the agent handed in and finds out what is due from the enclave with these keys.
    pub(super) fn read(&mut self, start: &Start, own: &EnclaveKeys, now: UnixMillis) -> Result<Due, Refusal> {
        let node = NodeIndex::try_from(start.node).unwrap();
        let records = start.records.iter().map(|record| Record::parse(record).unwrap());
        self.book.rest_on(records.collect::<Vec<_>>());
        for other in &start.others {
            self.take(&other.entries, now)?;
        }
        let id = self.take(&start.log, now)?;
        let ceremony = self.ceremony(&id)?;
        let due = self.due(&start.blob, node, ceremony, own, now)?;
        self.begun.insert(id);
        Ok(due)
    }

    fn take(&mut self, log: &[Vec<u8>], now: UnixMillis) -> Result<CeremonyId, Refusal> {
        let entries: Vec<Entry> = log.iter().map(|bytes| Entry::decode(bytes).unwrap()).collect();
        for entry in &entries {
            match self.book.take(entry.clone()) {
                Ok(_) => {}
                Err(NotTaken::Fork { .. }) => {
                    self.take_branch(&entries, now)?;
                    break;
                }
                Err(refused) => return Err(format!("a log is refused: {refused:?}").into()),
            }
        }
        Ok(entries.last().ok_or("no log")?.ceremony.clone())
    }

    /// Takes a log that forks from the known one, if this enclave has nothing under way.
    fn take_branch(&mut self, log: &[Entry], now: UnixMillis) -> Result<(), Refusal> {
        let id = &log[0].ceremony;
        let branch = self.book.with_branch(log);
        let is_over = |book: &Book| book.get(id).is_some_and(|chapter| is_over(&chapter.ceremony, now));
        if self.begun.contains(id) && !branch.as_ref().is_ok_and(is_over) {
            return Err(Refusal::Fork(format!("{id} forks from what was shown before")));
        }
        self.book = branch.map_err(|error| Refusal::Fork(format!("another branch of {id}: {error}")))?;
        Ok(())
    }

    fn ceremony(&mut self, id: &CeremonyId) -> Result<Ceremony, Refusal> {
        self.book.fold_again(id).map_err(|refused| format!("under its origin: {refused:?}"))?;
        let ceremony = self.book.get(id).ok_or("no log")?.ceremony.clone();
        if ceremony.manifest().origin.is_some() && ceremony.before().is_none() {
            return Err("the log of the origin is missing".into());
        }
        Ok(ceremony)
    }

    fn due(
        &self,
        blob: &[u8],
        node: NodeIndex,
        ceremony: Ceremony,
        own: &EnclaveKeys,
        now: UnixMillis,
    ) -> Result<Due, Refusal> {
        let nothing = || format!("nothing is due ({})", ceremony.phase_at(now));
        let duty = ceremony.duty(node, own, now).ok_or_else(nothing)?;
        if let Some(rival) = self.book.rival(&ceremony, now).filter(|_| ceremony.committed().is_none()) {
            // The branch on which that one was given up may be shown no more.
            return Err(Refusal::Fork(format!("{rival} may make this generation")));
        }
        match &duty {
            Duty::Prepare => return Ok(Due::Prepare(Box::new(ceremony))),
            Duty::Retire => {
                return Ok(Due::Retire(Box::new(ceremony.committed().ok_or_else(nothing)?)));
            }
            _ => {}
        }
        self.check_not_superseded(&ceremony)?;
        let spec = ceremony.session(&duty).ok_or_else(nothing)?;
        let out = self.book.out_of_use(ceremony.manifest());
        if spec.parties.get(&node) != Some(own) || spec.parties.keys().any(|party| out.contains(party)) {
            return Err(nothing().into());
        }
        let wallet = ceremony.share_for(&duty, node);
        if let Some(wallet) = &wallet {
            self.check_generation(wallet, node, blob)?;
        }
        Ok(Due::Session(Box::new(Order { ceremony, duty, spec, wallet })))
    }

    /// Nothing more is done with a generation that another has replaced.
    fn check_not_superseded(&self, ceremony: &Ceremony) -> Result<(), Refusal> {
        let wallet = self.book.wallet(&ceremony.manifest().wallet);
        let (Some(before), Some(current)) = (ceremony.before(), wallet) else { return Ok(()) };
        let (named, current) = (before.record.generation, current.record.generation);
        if current <= named || ceremony.committed().is_some_and(|made| made.record.generation == current) {
            return Ok(());
        }
        Err(format!("the wallet is at generation {current} already").into())
    }

    /// The share of another generation is not taken for a damaged one.
    fn check_generation(&self, needed: &Wallet, node: NodeIndex, blob: &[u8]) -> Result<(), Refusal> {
        let digest = Hash::of_bytes(blob);
        if needed.blobs.get(&node) == Some(&digest) {
            return Ok(());
        }
        let mut committed = self.book.iter().filter_map(|(_, chapter)| chapter.ceremony.committed());
        if committed.any(|other| other.blobs.get(&node) == Some(&digest)) {
            return Err("the share of another generation".into());
        }
        Ok(())
    }
}
