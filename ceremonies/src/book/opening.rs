//! Which ceremonies may be opened alongside the known ones.
//!
//! The fold of one ceremony cannot see the others. Agents ask here before they append an opening, and consoles before
//! anybody signs one.

use thiserror::Error;

use super::{Book, Chapter, ItemError};
use crate::ceremony::{Ceremony, Phase};
use crate::charter::{CeremonyKind, Incomplete};
use crate::ids::{CeremonyId, Generation, NodeIndex, UnixMillis, WalletName};
use crate::kinds::WorksOn;
use crate::log::{Entry, Event};
use crate::manifest::{Manifest, Origin, Way};

/// Why a ceremony cannot be opened now.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OpeningError {
    /// The wallet's name is taken.
    #[error("{rival} has given, or may yet give, wallet {wallet} a key; choose another name")]
    Taken {
        /// The wallet.
        wallet: WalletName,
        /// The ceremony that gives it a key.
        rival: CeremonyId,
    },
    /// The charter that it amends is not in force.
    #[error("another amendment has come into force since; amend the charter now in force")]
    Amended,
    /// Another amendment is open.
    #[error("{0} may yet amend the charter; end it first")]
    Amending(CeremonyId),
    /// The wallet has gone on to another generation.
    #[error("wallet {wallet} is at generation {current}; the generation that {origin} made is not in use")]
    Superseded {
        /// The wallet.
        wallet: WalletName,
        /// Its generation in use.
        current: Generation,
        /// The ceremony that made the generation that the manifest works on.
        origin: CeremonyId,
    },
    /// Another ceremony has made or may yet make a generation of this number.
    #[error("generation {0} may already exist; this wallet's next generation is {1}")]
    Generation(Generation, Generation),
    /// A ban stands between two nodes that would have to work together.
    #[error(
        "nodes {0} and {1} never work together again for this wallet, because of a ban: sweep it to a new one, or \
         recover one of the nodes on a newly attested enclave"
    )]
    Banned(NodeIndex, NodeIndex),
    /// All nodes are needed, but some are excluded.
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    /// A node's share is out of use.
    #[error(
        "node {0} was excluded after its share was made, and that share is never used again: recover the node on a \
         newly attested enclave, with --lost {0}"
    )]
    OutOfUse(NodeIndex),
    /// A node takes part in nothing.
    #[error("node {0} is excluded from the cluster and takes part in nothing: leave it out")]
    Excluded(NodeIndex),
    /// An exclusion too many.
    #[error(
        "wallet {wallet} would be left with {left} shares in use, fewer than the threshold: the shares of nodes that \
         were excluded and taken back do not count until a recovery has replaced them; hold that recovery first"
    )]
    TooFewLeft {
        /// The wallet.
        wallet: WalletName,
        /// How many of its shares would be in use.
        left: usize,
    },
    /// Nothing to restore from.
    #[error("the log has no backup of node {0} for the generation in use: have its share repaired")]
    NoBackup(NodeIndex),
    /// Another ceremony of the wallet is under way.
    #[error("{0} is under way with this wallet; close or withdraw it first")]
    UnderWay(CeremonyId),
    /// An item of an inventory cannot be true.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// It would be dated earlier than what it works on.
    #[error(
        "it would be dated {now}, but by the clock of node {by}, {origin} made the generation that it works on only at \
         {made}: check that clock and the one here, or wait until {made}"
    )]
    BeforeOrigin {
        /// The ceremony that made what it works on.
        origin: CeremonyId,
        /// When that says it did.
        made: UnixMillis,
        /// The first node to write a date after the time here: times in a log never run back, so others followed it.
        by: NodeIndex,
        /// The time here.
        now: UnixMillis,
    },
}

impl Book {
    /// The number of the generation that a refresh or recovery of this wallet makes: higher than any that exists or
    /// may yet come to exist, so that one number is never two generations.
    #[must_use]
    pub fn next_generation(&self, wallet: &WalletName, now: UnixMillis) -> Generation {
        let possible = self.ceremonies().filter(|ceremony| ceremony.may_give_shares(wallet, now));
        let last = possible.map(|ceremony| ceremony.manifest().generation.0).max();
        Generation(last.unwrap_or(0) + 1)
    }

    /// The generation that a ceremony of this kind would make or work on if it were opened now, and what made the one that
    /// is there; none if there is no such wallet. An inventory may speak of another.
    #[must_use]
    pub fn works_on(
        &self,
        kind: CeremonyKind,
        wallet: &WalletName,
        now: UnixMillis,
    ) -> Option<(Generation, Option<Origin>)> {
        let in_use = || {
            let record = self.wallet(wallet)?.record;
            let origin = Origin { ceremony: record.ceremony.clone(), record: record.digest() };
            Some((record.generation, Some(origin)))
        };
        match kind.rules().works_on {
            WorksOn::NewWallet | WorksOn::Charter => Some((Generation::FIRST, None)),
            WorksOn::GenerationInUse | WorksOn::Copies => in_use(),
            WorksOn::NextGeneration => Some((self.next_generation(wallet, now), in_use()?.1)),
        }
    }

    pub(super) fn ceremonies(&self) -> impl Iterator<Item = &Ceremony> {
        self.chapters.values().map(|chapter| &chapter.ceremony)
    }

    /// Checks that a ceremony of this manifest may be opened now.
    ///
    /// # Errors
    /// [`OpeningError`] says what stands against it.
    pub fn check_opening(&self, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        if manifest.kind.uses_enclaves() {
            self.check_nodes(manifest)?;
        }
        match manifest.kind.rules().works_on {
            WorksOn::NewWallet => self.check_new_wallet(&manifest.wallet, now),
            WorksOn::Charter => self.check_amending(manifest, now),
            WorksOn::GenerationInUse => self.check_current(manifest),
            WorksOn::NextGeneration => self.check_generation(manifest, now),
            WorksOn::Copies => Ok(self.check_inventory(manifest)?),
        }?;
        self.check_free(manifest, now)?;
        self.check_date(manifest, now)
    }

    /// Checks that the ceremony is not dated before the one that made what it works on.
    ///
    /// Checked only when somebody opens one, while a clock can still be set. The fold accepts such an opening: no order
    /// follows from its date, and refusing it would be worse than the wrong date. An opening already in the log may
    /// have made the generation in use, and nothing tells a reader whether an entry is old or new: those who read it
    /// earlier would have a wallet that those who read it later do not.
    fn check_date(&self, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        let Some(origin) = &manifest.origin else { return Ok(()) };
        let entries = self.get(&origin.ceremony).map(|chapter| &*chapter.entries).unwrap_or_default();
        // The last of them completed the wallet.
        let makes = |entry: &&Entry| matches!(entry.event, Event::Prepared { .. } | Event::Staged { .. });
        let made = entries.iter().rev().find(makes).map(|made| made.time);
        match (made, entries.iter().find(|entry| now < entry.time)) {
            (Some(made), Some(first)) if now < made => {
                Err(OpeningError::BeforeOrigin { origin: origin.ceremony.clone(), made, by: first.node, now })
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// The ceremonies that were to make the generation that this one makes, and were opened before it.
    pub(super) fn earlier_attempts(&self, ceremony: &Ceremony) -> impl Iterator<Item = &Chapter> {
        let own = ceremony.manifest();
        let place = |manifest: &Manifest| (manifest.opened, manifest.ceremony.clone());
        let (makes, wallet, generation) = (own.kind.makes_shares(), own.wallet.clone(), own.generation);
        let own = place(own);
        self.chapters.values().filter(move |other| {
            let other = other.ceremony.manifest();
            makes
                && other.kind.makes_shares()
                && other.wallet == wallet
                && other.generation == generation
                && place(other) < own
        })
    }

    /// Another ceremony that has made or may yet make the generation that this one is about, and was opened before it;
    /// or the one that made a later generation, which is in use. An opening is checked by a single agent, which may not
    /// have known the other: whoever knows both holds back.
    #[must_use]
    pub fn rival(&self, ceremony: &Ceremony, now: UnixMillis) -> Option<&CeremonyId> {
        let wallet = &ceremony.manifest().wallet;
        let mut attempts = self.earlier_attempts(ceremony).map(|chapter| &chapter.ceremony);
        let rival = attempts.find(|other| other.may_give_shares(wallet, now));
        Some(&rival.or_else(|| self.later_than(ceremony))?.manifest().ceremony)
    }

    /// The ceremony that made the generation in use, if this one would make an earlier one.
    fn later_than(&self, ceremony: &Ceremony) -> Option<&Ceremony> {
        let own = ceremony.manifest();
        let is_later = |made: &&Ceremony| {
            let manifest = made.manifest();
            manifest.wallet == own.wallet && manifest.generation > own.generation && made.has_committed()
        };
        let later = self.ceremonies().filter(|_| own.kind.makes_shares()).filter(is_later);
        later.max_by_key(|made| made.manifest().generation)
    }

    fn check_new_wallet(&self, wallet: &WalletName, now: UnixMillis) -> Result<(), OpeningError> {
        match self.ceremonies().find(|ceremony| ceremony.may_give_shares(wallet, now)) {
            Some(rival) => {
                Err(OpeningError::Taken { wallet: wallet.clone(), rival: rival.manifest().ceremony.clone() })
            }
            None => Ok(()),
        }
    }

    fn check_amending(&self, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        if manifest.charter != self.context().charter().hash() {
            return Err(OpeningError::Amended);
        }
        if let Some(next) = manifest.amendment() {
            self.check_enough_left(next)?;
        }
        let gathers = |ceremony: &&Ceremony| {
            ceremony.manifest().kind == CeremonyKind::Amend && ceremony.phase_at(now) == Phase::Gathering
        };
        match self.ceremonies().find(gathers) {
            Some(open) => Err(OpeningError::Amending(open.manifest().ceremony.clone())),
            None => Ok(()),
        }
    }

    /// Checks that it works on the generation in use.
    fn check_current(&self, manifest: &Manifest) -> Result<(), OpeningError> {
        match (&manifest.origin, self.wallet(&manifest.wallet)) {
            (Some(origin), Some(wallet)) if wallet.record.digest() != origin.record => {
                Err(OpeningError::Superseded {
                    wallet: manifest.wallet.clone(),
                    current: wallet.record.generation,
                    origin: origin.ceremony.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    fn check_generation(&self, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        self.check_current(manifest)?;
        let next = self.next_generation(&manifest.wallet, now);
        if manifest.generation < next {
            return Err(OpeningError::Generation(manifest.generation, next));
        }
        let lost = manifest.lost();
        let bans = self.bans_in(manifest);
        let stands =
            |(by, banned): &&(NodeIndex, NodeIndex)| !lost.contains_key(by) && !lost.contains_key(banned);
        if let Some((by, banned)) = bans.iter().find(stands) {
            return Err(OpeningError::Banned(*by, *banned));
        }
        let backups = self.wallet(&manifest.wallet).map(|wallet| wallet.backups).unwrap_or_default();
        let missing = |(node, way): &(&NodeIndex, &Way)| **way == Way::Backup && !backups.contains_key(*node);
        match lost.iter().find(missing) {
            Some((node, _)) => Err(OpeningError::NoBackup(*node)),
            None => Ok(()),
        }
    }

    /// Checks that no ceremony for which this one must wait is under way with its wallet.
    fn check_free(&self, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        let under_way = |ceremony: &&Ceremony| {
            let other = ceremony.manifest();
            let phase = ceremony.phase_at(now);
            other.wallet == manifest.wallet
                && (manifest.kind.rules().waits_for)(other.kind)
                && !ceremony.is_signed()
                && matches!(phase, Phase::Gathering | Phase::Authorised | Phase::Committed)
        };
        match self.ceremonies().find(under_way) {
            Some(open) => Err(OpeningError::UnderWay(open.manifest().ceremony.clone())),
            None => Ok(()),
        }
    }
}
