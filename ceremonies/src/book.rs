//! All ceremonies known to one program, each as its log and its fold.
//!
//! Agents and consoles keep one. It takes entries in any order between ceremonies, in sequence within one, and tells a
//! gap (ask for what is missing) from a fork (two logs that claim one place). What it holds must follow from the logs
//! alone, never from the order in which they arrived or from anyone's clock.

mod branch;
mod clock;
mod exclusion;
mod exposure;
mod gather;
mod inventory;
mod lineage;
#[cfg(test)]
mod model;
mod needed;
mod opening;
mod shelf;

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::ceremony::{Ceremony, Context, Rejection};
use crate::ids::{CeremonyId, Hash, UnixMillis, WalletName};
use crate::log::{Entry, Event};
use crate::wallet::{Record, Wallet};

pub use self::branch::BranchError;
pub use self::clock::{Ahead, MAX_AHEAD_MS, check_clock};
pub use self::exposure::{Copy, Exposure, Place};
pub use self::gather::{SetAside, WhySetAside};
pub use self::inventory::ItemError;
pub use self::needed::Needed;
pub use self::opening::OpeningError;
pub use self::shelf::{origin_of, record_in};

/// One ceremony: its log and what follows from it.
#[derive(Debug, Clone)]
pub struct Chapter {
    /// The entries in order; the first is number 1.
    pub entries: Vec<Entry>,
    /// The fold over all of them.
    pub ceremony: Ceremony,
}

impl Chapter {
    /// Whether an entry follows the head, or is known.
    fn place(&self, entry: &Entry) -> Result<Taken, NotTaken> {
        let (ceremony, seq) = (entry.ceremony.clone(), entry.seq);
        let known = usize::try_from(seq).ok().and_then(|seq| self.entries.get(seq.wrapping_sub(1)));
        let expected = self.ceremony.head().seq + 1;
        match known {
            Some(known) if known.hash() == entry.hash() => Ok(Taken::Known),
            Some(known) => Err(NotTaken::Fork { ceremony, seq, ours: known.hash(), theirs: entry.hash() }),
            None if seq == expected => Ok(Taken::New),
            None => Err(NotTaken::Gap { ceremony, got: seq, expected }),
        }
    }
}

/// A charter that an amendment has put in force.
#[derive(Debug, Clone)]
struct Amendment {
    at: UnixMillis,
    context: Context,
    ceremony: CeremonyId,
}

/// How long after an amendment ceremonies may still be opened under the previous charter, in milliseconds. It is longer
/// than clocks differ, so that no entry depends on whether the amendment was known when it arrived.
const OPENING_AFTER_AMENDMENT_MS: i64 = 15 * 60 * 1000;

/// All ceremonies of a cluster, from its first charter on.
#[derive(Debug, Clone)]
pub struct Book {
    first: Context,
    /// The charters that amendments have put in force, in order.
    amendments: Vec<Amendment>,
    chapters: BTreeMap<CeremonyId, Chapter>,
    /// Records of generations whose ceremonies may be unknown here.
    records: BTreeMap<Hash, Arc<Record>>,
}

/// What became of an entry that was taken without complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is the ceremony's new head.
    New,
    /// It was there already, to the byte.
    Known,
}

/// An entry that has been examined and can be taken.
#[derive(Debug)]
pub enum Examined {
    /// It is in the book already.
    Known,
    /// It follows the head, and the fold accepts it.
    New(Box<Next>),
}

/// An accepted entry and the ceremony as it is with it.
#[derive(Debug)]
pub struct Next {
    entry: Entry,
    ceremony: Ceremony,
}

impl Next {
    /// The entry.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The ceremony as it is with it.
    #[must_use]
    pub fn ceremony(&self) -> &Ceremony {
        &self.ceremony
    }
}

/// Why an entry is not in the book now.
#[derive(Debug, Error)]
pub enum NotTaken {
    /// Entries before it are missing.
    #[error("entry {got} of {ceremony} arrived, but entry {expected} comes next")]
    Gap {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// The number it has.
        got: u64,
        /// The number that is missing.
        expected: u64,
    },
    /// Another entry claims its place.
    #[error("ceremony {ceremony} forks at entry {seq}: {ours} here, {theirs} there; keep both as evidence")]
    Fork {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// Where.
        seq: u64,
        /// The hash of the entry here.
        ours: Hash,
        /// The hash of the other.
        theirs: Hash,
    },
    /// The fold refuses it.
    #[error("entry {seq} of {ceremony} is refused")]
    Rejected {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// Its number.
        seq: u64,
        /// Why.
        #[source]
        source: Box<Rejection>,
    },
}

impl Book {
    /// An empty book of a cluster with this first charter.
    #[must_use]
    pub fn new(first: Context) -> Self {
        Self { first, amendments: Vec::new(), chapters: BTreeMap::new(), records: BTreeMap::new() }
    }

    /// The cluster's first charter, and its root.
    #[must_use]
    pub fn first(&self) -> &Context {
        &self.first
    }

    /// The charter in force, and its root.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.amendments.last().map_or(&self.first, |amendment| &amendment.context)
    }

    /// Every charter that was ever in force, in order.
    fn contexts(&self) -> impl DoubleEndedIterator<Item = &Context> {
        std::iter::once(&self.first).chain(self.amendments.iter().map(|amendment| &amendment.context))
    }

    /// The amendment ceremonies that have put a charter in force, in their order.
    pub fn amendments(&self) -> impl Iterator<Item = &Chapter> {
        self.amendments.iter().filter_map(|amendment| self.get(&amendment.ceremony))
    }

    /// Finds out which charters came into force one after the other: of several amendments of one charter, the first to
    /// be approved counts. Ceremonies opened too late under another charter are taken out, so that it makes no
    /// difference whether the amendment or the opening was known first.
    fn follow_amendments(&mut self) -> Vec<SetAside> {
        let mut amending: BTreeMap<Hash, (UnixMillis, Hash, &Chapter)> = BTreeMap::new();
        for chapter in self.chapters.values() {
            let Some((charter, at)) = chapter.ceremony.amended() else { continue };
            let (before, new) = (chapter.ceremony.charter().hash(), (at, charter.hash(), chapter));
            let is_first = |(at, hash, _): &(UnixMillis, Hash, &Chapter)| (new.0, new.1) < (*at, *hash);
            if amending.get(&before).is_none_or(is_first) {
                amending.insert(before, new);
            }
        }
        let mut amendments: Vec<Amendment> = Vec::new();
        let mut context = &self.first;
        while let Some((at, _, chapter)) = amending.remove(&context.charter().hash()) {
            let Some(charter) = chapter.ceremony.manifest().amendment() else { break };
            let ceremony = chapter.ceremony.manifest().ceremony.clone();
            amendments.push(Amendment { at, context: context.amended(Arc::clone(charter)), ceremony });
            context = amendments.last().map_or(&self.first, |amendment| &amendment.context);
        }
        self.amendments = amendments;
        self.take_out_overdue()
    }

    /// The ceremony of this id.
    #[must_use]
    pub fn get(&self, id: &CeremonyId) -> Option<&Chapter> {
        self.chapters.get(id)
    }

    /// All ceremonies, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&CeremonyId, &Chapter)> {
        self.chapters.iter()
    }

    /// The committed generation of a wallet.
    #[must_use]
    pub fn wallet(&self, name: &WalletName) -> Option<Wallet> {
        let of_wallet = self.chapters.values().filter(|chapter| chapter.ceremony.manifest().wallet == *name);
        of_wallet
            .filter_map(|chapter| chapter.ceremony.committed())
            .max_by_key(|wallet| wallet.record.generation)
    }

    /// Every committed wallet, each at its latest generation.
    #[must_use]
    pub fn wallets(&self) -> BTreeMap<WalletName, Wallet> {
        let mut wallets: BTreeMap<WalletName, Wallet> = BTreeMap::new();
        for wallet in self.chapters.values().filter_map(|chapter| chapter.ceremony.committed()) {
            let known = wallets.get(&wallet.record.wallet);
            if known.is_none_or(|known| known.record.generation < wallet.record.generation) {
                wallets.insert(wallet.record.wallet.clone(), wallet);
            }
        }
        wallets
    }

    /// The context under which a ceremony with this opening is folded: the charter that it names, unless another
    /// has been in force for too long, and the wallet of the ceremony that it works on, where it names one.
    fn context_of(&self, first: &Entry) -> Context {
        let Event::Opened { manifest, .. } = &first.event else { return self.context().clone() };
        let origin = manifest.origin.as_ref().and_then(|origin| self.get(&origin.ceremony));
        let made = |ceremony: &Ceremony| {
            let rules = manifest.kind.rules();
            if rules.special.may_speak_of_what_was_given_up { ceremony.made() } else { ceremony.committed() }
        };
        let wallet = origin.and_then(|chapter| made(&chapter.ceremony)).map(Arc::new);
        let record = manifest.origin.as_ref().and_then(|origin| self.records.get(&origin.record));
        let context = self.named(&manifest.charter, first.time);
        match (wallet, record) {
            (None, Some(record)) => context.with_record(Arc::clone(record)),
            (wallet, _) => context.with_wallet(wallet),
        }
    }

    /// From now on folds a ceremony whose origin is not known here if one of these is the record that its manifest
    /// names. The caller must begin nothing in a ceremony that [rests on a record](Ceremony::rests_on_a_record): a
    /// generation counts for what its own certificate proves, and the certificate of the one before is not checked.
    pub fn rest_on(&mut self, records: impl IntoIterator<Item = Record>) {
        self.records.clear();
        self.know_records(records);
    }

    /// The same, besides the records that it folds on already.
    pub fn know_records(&mut self, records: impl IntoIterator<Item = Record>) {
        self.records.extend(records.into_iter().map(|record| (record.digest(), Arc::new(record))));
    }

    /// Folds a ceremony again that rests on a record, now that its origin may be known.
    ///
    /// # Errors
    /// [`Rejection`] of the first entry that is refused, with its number; the book is as it was.
    pub fn fold_again(&mut self, id: &CeremonyId) -> Result<(), (u64, Rejection)> {
        let log = self.get(id).filter(|chapter| chapter.ceremony.rests_on_a_record());
        match log.map(|chapter| chapter.entries.clone()) {
            Some(log) => self.read(&log).map(drop),
            None => Ok(()),
        }
    }

    /// The charter of this hash, if a ceremony could be opened under it at this time; else the one in force. The
    /// opening's own time is compared with the amendment's, so everyone who knows both logs finds the same.
    fn named(&self, charter: &Hash, opened: UnixMillis) -> &Context {
        let until = self.amendments.iter().map(|amendment| amendment.at.plus(OPENING_AFTER_AMENDMENT_MS));
        let mut past = self.contexts().zip(until);
        let named = past.find(|(context, until)| context.charter().hash() == *charter && opened <= *until);
        named.map_or(self.context(), |(context, _)| context)
    }

    /// Finds out what an entry would make of its ceremony without adding it, so that it can be stored, or appended to a
    /// stream, before anything is built on it.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn examine(&self, entry: Entry) -> Result<Examined, NotTaken> {
        let (id, seq) = (entry.ceremony.clone(), entry.seq);
        let rejected = |source| NotTaken::Rejected { ceremony: id.clone(), seq, source: Box::new(source) };
        let Some(chapter) = self.chapters.get(&id) else {
            if seq != 1 {
                return Err(NotTaken::Gap { ceremony: id, got: seq, expected: 1 });
            }
            let ceremony = Ceremony::open(self.context_of(&entry), &entry).map_err(rejected)?;
            return Ok(Examined::New(Box::new(Next { entry, ceremony })));
        };
        if chapter.place(&entry)? == Taken::Known {
            return Ok(Examined::Known);
        }
        let mut ceremony = chapter.ceremony.clone();
        ceremony.apply(&entry).map_err(rejected)?;
        Ok(Examined::New(Box::new(Next { entry, ceremony })))
    }

    /// Reads and adds the whole log of one ceremony, which replaces what was known of that ceremony.
    ///
    /// # Errors
    /// [`Rejection`] of the first entry that is refused, with its number; the book is as it was.
    pub fn read(&mut self, log: &[Entry]) -> Result<Ceremony, (u64, Rejection)> {
        let ceremony = self.fold_branch(log)?;
        self.put(log, ceremony.clone());
        Ok(ceremony)
    }

    /// The same, and returns what is taken out of the book because this puts another charter in force.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn replace(&mut self, log: &[Entry]) -> Result<Vec<SetAside>, (u64, Rejection)> {
        let ceremony = self.fold_branch(log)?;
        Ok(self.put(log, ceremony))
    }

    fn put(&mut self, log: &[Entry], ceremony: Ceremony) -> Vec<SetAside> {
        let id = ceremony.manifest().ceremony.clone();
        self.chapters.insert(id.clone(), Chapter { entries: log.to_vec(), ceremony });
        self.tell_of_backups(&id);
        self.follow_amendments()
    }

    /// Adds what was examined. Nothing may have been added to that ceremony in between; what no longer follows the head
    /// is left out.
    ///
    /// If it puts a charter in force, ceremonies opened too late under the one before are taken out of the book and
    /// returned; nothing else is ever returned.
    pub fn commit(&mut self, next: Next) -> Vec<SetAside> {
        let Next { entry, ceremony } = next;
        let head = self.chapters.get(&entry.ceremony).map_or(0, |chapter| chapter.ceremony.head().seq);
        if entry.seq != head + 1 {
            return Vec::new();
        }
        let amends = ceremony.amended().is_some();
        let id = entry.ceremony.clone();
        let backs_up = matches!(entry.event, Event::BackedUp(_));
        if let Some(chapter) = self.chapters.get_mut(&entry.ceremony) {
            chapter.ceremony = ceremony;
            chapter.entries.push(entry);
        } else {
            self.chapters.insert(entry.ceremony.clone(), Chapter { entries: vec![entry], ceremony });
        }
        if backs_up {
            self.tell_of_backups(&id);
        }
        if amends { self.follow_amendments() } else { Vec::new() }
    }

    /// A recovery may be opened before the last backup of the generation that it recovers is written: what can be
    /// released in it must follow from the logs, not from the order in which they arrived.
    fn tell_of_backups(&mut self, origin: &CeremonyId) {
        let Some(wallet) = self.get(origin).and_then(|chapter| chapter.ceremony.made()) else { return };
        let wallet = Arc::new(wallet);
        for chapter in self.chapters.values_mut() {
            chapter.ceremony.learn_backups(&wallet);
        }
    }

    /// Takes an entry.
    ///
    /// # Errors
    /// [`NotTaken`]; the book is as it was.
    pub fn take(&mut self, entry: Entry) -> Result<Taken, NotTaken> {
        Ok(match self.examine(entry)? {
            Examined::Known => Taken::Known,
            Examined::New(next) => {
                self.commit(*next);
                Taken::New
            }
        })
    }
}
