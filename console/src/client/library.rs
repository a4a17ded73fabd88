//! As much of the record as a command shows: the ceremonies it is about, what they rest on, and the amendments.
//!
//! Which ceremonies there are is the nodes' word; what is in the book was folded here. Logs that were folded before
//! come from the console's own folder and are folded again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ceremonies::book::{Book, NotTaken, SetAside};
use ceremonies::ceremony::Rejection;
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, NodeIndex, WalletName};
use ceremonies::listing::{Standing, Wanted};
use ceremonies::log::{Entry, Event};
use ceremonies::record::{HOSTILE, Tip};
use futures_util::{StreamExt, stream};

use super::branches::{Branches, Budget};
use super::catalogue::{Catalogue, Row};
use super::failover;
use super::failover::Pace;
use super::reading::{Reading, proposed};
use super::trouble::{Trouble, Troubles};
use super::{Bus, ClientError, Nodes, PACE};
use crate::memory::{Seen, SetBack, set_back_in, set_back_in_list};
use crate::room::now;

/// How many ceremonies are read at once.
const AT_ONCE: usize = 8;
/// How many of the ceremonies that only one node lists are read while others are heard.
const MAX_LONELY: usize = 32;

/// How many ceremonies are read that no more than one node lists.
const MAX_UNVOUCHED: usize = 4 * MAX_LONELY;

/// For how long a chain of them is followed: whoever makes one up gives each link as late as it can.
const UNVOUCHED_FOR: Duration = Duration::from_secs(10);

/// How many finished test signings and transactions are read besides what the wallets rest on.
const RECENT: u32 = 50;
/// How many of the ceremonies that this console last saw recorded are checked again each time: whoever rolls the whole
/// cluster back takes away the latest.
const LOOKED_AT_AGAIN: usize = 32;

/// Which ceremonies are read, besides the amendments.
#[derive(Debug, Clone)]
pub enum Scope {
    /// None.
    Amendments,
    /// None; these are listed.
    Listed(Wanted),
    /// These, with all that they rest on.
    Ceremonies(Vec<CeremonyId>),
    /// What made this wallet and its copies, and its latest ceremonies.
    Wallet(WalletName),
    /// What made all wallets and their copies, what is under way, and the latest ceremonies.
    Current,
}

/// The kinds of ceremony that determine what a wallet is, and where copies of its shares are.
fn lasting() -> Wanted {
    let lasts = |kind: &CeremonyKind| kind.makes_shares() || *kind == CeremonyKind::Inventory;
    Wanted::of_kinds(CeremonyKind::ALL.into_iter().filter(lasts))
}

impl Scope {
    /// Whether it asks for this very ceremony.
    pub(crate) fn names(&self, id: &CeremonyId) -> bool {
        matches!(self, Self::Ceremonies(ids) if ids.contains(id))
    }

    fn wanted(&self) -> Vec<Wanted> {
        let mut wanted = vec![Wanted::of_kinds([CeremonyKind::Amend])];
        match self {
            Self::Amendments => {}
            Self::Listed(listed) => wanted.push(listed.clone()),
            Self::Ceremonies(ids) => wanted.extend(ids.iter().cloned().map(Wanted::one)),
            Self::Wallet(wallet) => {
                let wallet = Some(wallet.clone());
                wanted.push(Wanted { wallet: wallet.clone(), ..lasting() });
                wanted.push(Wanted { wallet, most: Some(RECENT), ..Wanted::default() });
            }
            Self::Current => {
                wanted.push(lasting());
                wanted.push(Wanted { standing: Some(Standing::Running), ..Wanted::default() });
                wanted.push(Wanted { most: Some(RECENT), ..Wanted::default() });
            }
        }
        wanted
    }
}

/// What was read.
#[derive(Debug)]
pub struct Library {
    /// All that folds.
    pub book: Book,
    /// What does not fold. Of a log that folds only up to some entry, the book has the entries before it.
    pub aside: Vec<SetAside>,
    /// What nodes list.
    pub catalogue: Catalogue,
    /// The ceremonies that no node gave, each with why.
    pub missing: BTreeMap<CeremonyId, Troubles>,
    /// The ceremonies of which nodes show less than this console has seen.
    pub set_back: Vec<SetBack>,
}

impl Library {
    /// Whether any of the record that nodes list could be read: if not, nobody can tell what is in it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.book.iter().next().is_some() || (self.aside.is_empty() && self.missing.is_empty())
    }
}

/// The ceremony that a log's ceremony works on, and the wallet.
fn origin(log: &[Entry]) -> Option<(CeremonyId, WalletName)> {
    let Event::Opened { manifest, .. } = &log.first()?.event else { return None };
    Some((manifest.origin.as_ref()?.ceremony.clone(), manifest.wallet.clone()))
}

/// The ceremonies of a list to read. Those that only one node lists are not read without limit.
fn chosen<'a>(catalogue: &'a Catalogue, wanted: impl Fn(&Row) -> bool + 'a) -> Vec<CeremonyId> {
    let mut lonely: BTreeMap<NodeIndex, usize> = BTreeMap::new();
    let mut is_read = |row: &&Row| {
        let mut by = row.said.keys();
        let (Some(node), None) = (by.next(), by.next()) else { return true };
        let count = lonely.entry(*node).or_default();
        *count += 1;
        catalogue.heard.len() <= HOSTILE || *count <= MAX_LONELY
    };
    let rows = catalogue.rows.iter().filter(|row| wanted(row));
    rows.filter(|row| is_read(row)).map(|row| row.id.clone()).collect()
}

fn is_amendment(row: &Row) -> bool {
    row.said.values().any(|summary| summary.kind == CeremonyKind::Amend.to_string())
}

impl<B: Bus> Nodes<B> {
    /// A log as most nodes list it or, if none does, as one of them gives it; chained but not folded.
    async fn fetch(
        &self,
        id: &CeremonyId,
        row: Option<&Row>,
        proven: bool,
        pace: Pace,
    ) -> Result<Vec<Entry>, Troubles> {
        let cached = self.memory().log(id);
        let head = row.and_then(Row::head).map(|(tip, _)| tip);
        if let Some(log) = head.and_then(|tip| up_to(&cached, tip)) {
            return Ok(log);
        }
        let has_it =
            |node: &NodeIndex| row.and_then(|row| row.said.get(node)).is_some_and(|s| Some(s.tip) == head);
        let mut order = self.order(&self.voices(None).nodes());
        let quiet = self.quiet();
        order.sort_by_key(|node| (quiet.contains(node), !has_it(node)));
        let known_well = order.iter().filter(|node| !quiet.contains(node)).count();
        if pace.limit < PACE.limit && known_well > 0 {
            order.truncate(known_well);
        }
        let read = |node| self.log_of(id, node, &cached, head, proven);
        let given = failover::first(&order, pace, read).await;
        let (Ok((.., troubles)) | Err(troubles)) = &given;
        self.remember_quiet(troubles);
        given.map(|(_, log, _)| log)
    }

    /// One node's whole log, which must have the entry that the most nodes list last. While nodes are heard, anything
    /// unsigned is ignored.
    async fn log_of(
        &self,
        id: &CeremonyId,
        node: NodeIndex,
        cached: &[Entry],
        head: Option<Tip>,
        proven: bool,
    ) -> Result<Vec<Entry>, Trouble> {
        let voices = self.voices_in(cached);
        for known in [cached, &[]] {
            let given = self.pages(&voices, id, node, known.len() as u64 + 1, Budget::default()).await?;
            if let Some(error) = given.unverified.filter(|_| proven) {
                return Err(Trouble::Unverified(error));
            }
            let mut branches = Branches::new(id.clone(), known);
            let follows = given.entries.into_iter().all(|entry| {
                let before = branches.tree().tip().seq;
                branches.add(entry).is_ok() && branches.tree().tip().seq > before
            });
            let log = branches.main();
            if follows && !log.is_empty() && head.is_none_or(|head| up_to(&log, head).is_some()) {
                return Ok(log);
            }
        }
        Err(Trouble::Elsewhere)
    }

    async fn fetch_all(
        &self,
        catalogue: &Catalogue,
        ids: BTreeSet<CeremonyId>,
        into: &mut BTreeMap<CeremonyId, Vec<Entry>>,
        missing: &mut BTreeMap<CeremonyId, Troubles>,
    ) {
        let proven = !catalogue.heard.is_empty();
        let rows: BTreeMap<&CeremonyId, &Row> = catalogue.rows.iter().map(|row| (&row.id, row)).collect();
        let rows = &rows;
        let fetch = |id: CeremonyId| async move {
            // Whoever alone lists a ceremony must not hold up everything else by not giving it.
            let pace = if catalogue.is_vouched(&id) { PACE } else { Pace { limit: PACE.patience, ..PACE } };
            let log = self.fetch(&id, rows.get(&id).copied(), proven, pace).await;
            (id, log)
        };
        let mut fetched = stream::iter(ids).map(fetch).buffer_unordered(AT_ONCE);
        while let Some((id, log)) = fetched.next().await {
            match log {
                Ok(log) => drop(into.insert(id, log)),
                Err(troubles) => drop(missing.insert(id, troubles)),
            }
        }
    }

    /// Reads and folds as much of the record as asked for.
    ///
    /// # Errors
    /// [`ClientError`] where no node gave a list. What cannot be read or does not fold is in the library, with why.
    pub async fn library(&self, scope: &Scope) -> Result<Library, ClientError> {
        let recent = self.memory().last_seen(LOOKED_AT_AGAIN);
        let mut wanted = scope.wanted();
        wanted.extend(recent.iter().map(|(id, _)| Wanted::one(id.clone())));
        let mut catalogue = self.catalogue(&wanted).await?;
        let (mut logs, mut missing) = (BTreeMap::new(), BTreeMap::new());
        let first = || self.shared.first.clone();
        // Whose words count follows from the amendments: if that has changed, the list is requested again.
        loop {
            let known = self.charter().hash();
            let amendments = chosen(&catalogue, is_amendment).into_iter();
            let unread: BTreeSet<CeremonyId> = amendments.filter(|id| !logs.contains_key(id)).collect();
            if unread.is_empty() {
                break;
            }
            self.fetch_all(&catalogue, unread, &mut logs, &mut missing).await;
            let (book, _) = Book::gather(first(), logs.values().cloned());
            self.learn(book);
            if self.charter().hash() == known {
                break;
            }
            catalogue = self.catalogue(&wanted).await?;
        }
        let wanted = match scope {
            Scope::Amendments | Scope::Listed(_) => Vec::new(),
            Scope::Ceremonies(ids) => ids.clone(),
            Scope::Wallet(wallet) => {
                let wallet = Wanted { wallet: Some(wallet.clone()), ..Wanted::default() };
                chosen(&catalogue, |row| row.is_wanted(&wallet))
            }
            Scope::Current => chosen(&catalogue, |_| true),
        };
        let mut unread: BTreeSet<CeremonyId> = wanted.into_iter().collect();
        let mut asked: BTreeSet<WalletName> = BTreeSet::new();
        let (mut unvouched, begun) = (0, Instant::now());
        loop {
            // What a log says that it rests on is read though nobody lists it, but not without end: one node can make up
            // a chain of such logs as it is read.
            unread.retain(|id| {
                let vouched = catalogue.is_vouched(id);
                unvouched += usize::from(!vouched && !logs.contains_key(id) && !missing.contains_key(id));
                vouched || (unvouched <= MAX_UNVOUCHED && begun.elapsed() < UNVOUCHED_FOR)
            });
            unread.retain(|id| !logs.contains_key(id) && !missing.contains_key(id));
            if unread.is_empty() {
                break;
            }
            self.fetch_all(&catalogue, std::mem::take(&mut unread), &mut logs, &mut missing).await;
            let origins: BTreeMap<CeremonyId, WalletName> =
                logs.values().filter_map(|log| origin(log)).collect();
            let unlisted = origins.iter().filter(|(id, _)| catalogue.row(id).is_none());
            let wallets: BTreeSet<WalletName> = unlisted.map(|(_, wallet)| wallet.clone()).collect();
            let new: Vec<WalletName> =
                wallets.into_iter().filter(|wallet| asked.insert(wallet.clone())).collect();
            let made = |wallet| Wanted { wallet: Some(wallet), ..lasting() };
            let made: Vec<Wanted> = new.into_iter().map(made).collect();
            if !made.is_empty() {
                catalogue.extend(self.catalogue(&made).await?);
            }
            unread.extend(origins.into_keys());
        }
        let (book, aside) = Book::gather(first(), logs.into_values());
        let broken: BTreeSet<&CeremonyId> = aside.iter().map(|log| &log.ceremony).collect();
        for (id, chapter) in book.iter().filter(|(id, _)| !broken.contains(id)) {
            if self.memory().log(id).len() != chapter.entries.len() {
                self.memory().keep(id, &chapter.entries);
            }
        }
        let set_back = Self::set_back(&recent, &catalogue);
        Ok(Library { book, aside, catalogue, missing, set_back })
    }

    /// The ceremonies of which nodes list less than this console has seen recorded.
    fn set_back(seen: &[(CeremonyId, Seen)], catalogue: &Catalogue) -> Vec<SetBack> {
        let heard: Vec<NodeIndex> = catalogue.heard.iter().copied().collect();
        let set_back =
            |(id, seen): &(CeremonyId, Seen)| set_back_in_list(id, seen, catalogue.row(id), &heard, now());
        seen.iter().filter_map(set_back).collect()
    }

    /// Brings a ceremony in the book up to where the nodes stand, and returns where they stand. What is recorded is
    /// remembered.
    ///
    /// # Errors
    /// [`ClientError`] if no node gave a log that verifies.
    pub async fn catch_up(&self, book: &mut Book, id: &CeremonyId) -> Result<Reading, ClientError> {
        let known = book.get(id).map(|chapter| chapter.entries.clone()).unwrap_or_default();
        let mut reading = self.read(id, &known).await?;
        settle(book, &mut reading)?;
        self.remember(&reading);
        Ok(reading)
    }

    /// Remembers how much of a ceremony is recorded, and its log, to save reading it again. An amendment changes at
    /// once whose words count.
    pub fn remember(&self, reading: &Reading) {
        if let Some(tip) = reading.recorded_tip() {
            self.memory().saw(reading.ceremony(), tip);
        }
        let log = reading.log();
        if self.memory().log(reading.ceremony()).last().map(Entry::hash) != log.last().map(Entry::hash) {
            self.memory().keep(reading.ceremony(), &log);
        }
        if proposed(&log).is_some() {
            let mut amendments = Book::clone(&self.amendments());
            if amendments.read(&log).is_ok() {
                self.learn(amendments);
            }
        }
    }

    /// Whether nodes show less of a ceremony than this console has seen recorded.
    #[must_use]
    pub fn set_back_of(&self, reading: &Reading) -> Option<SetBack> {
        set_back_in(&self.memory().seen(reading.ceremony())?, reading, now())
    }
}

/// The cached log as far as this entry, where it contains it.
fn up_to(cached: &[Entry], tip: Tip) -> Option<Vec<Entry>> {
    let last = usize::try_from(tip.seq).ok()?.checked_sub(1)?;
    (cached.get(last)?.hash() == tip.hash).then(|| cached[..=last].to_vec())
}

/// Takes the log of a reading into the book. If it does not verify, the reading then stands on another branch that
/// does.
///
/// # Errors
/// [`ClientError::Refuted`] if no branch verifies, with the first reason.
pub fn settle(book: &mut Book, reading: &mut Reading) -> Result<(), ClientError> {
    let mut bad = BTreeSet::new();
    let mut first = None;
    while let Err((seq, source)) = take(book, reading) {
        let refuted = ClientError::Refuted {
            ceremony: reading.ceremony().clone(),
            seq,
            nodes: super::those(&reading.holders(), "").trim_end().to_owned(),
            source,
        };
        let cause = first.take().unwrap_or(refuted);
        if !reading.leave(&mut bad, seq) {
            return Err(cause);
        }
        first = Some(cause);
    }
    Ok(())
}

/// Takes a reading's log into the book, in place of another branch if there is one.
///
/// # Errors
/// The entry that does not verify, and why.
fn take(book: &mut Book, reading: &Reading) -> Result<(), (u64, Box<Rejection>)> {
    let log = reading.log();
    let known = book.get(reading.ceremony()).map(|chapter| chapter.entries.as_slice()).unwrap_or_default();
    if !log.starts_with(known) {
        return book.read(&log).map(drop).map_err(|(seq, source)| (seq, Box::new(source)));
    }
    for entry in log.into_iter().skip(known.len()) {
        let seq = entry.seq;
        match book.take(entry) {
            Ok(_) => {}
            Err(NotTaken::Rejected { source, .. }) => return Err((seq, source)),
            // The branches chain, so that neither can be.
            Err(NotTaken::Gap { .. } | NotTaken::Fork { .. }) => {
                return Err((seq, Box::new(Rejection::Opening)));
            }
        }
    }
    Ok(())
}
