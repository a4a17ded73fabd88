//! The kinds of ceremonies: what each is for and what holds for it alone. A kind is read in one file.
//!
//! A new one is a variant of [`CeremonyKind`], its file and script, its line in [`CeremonyKind::rules`], its number on
//! the wire, and a form in the console. Nothing here looks at a book or a ceremony: those ask.

mod amend;
mod dkg;
mod inventory;
mod rebuild;
mod recover;
mod refresh;
mod test_sign;
mod transfer;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::ids::UnknownWord;
use crate::wire::log;

/// A kind of ceremony.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CeremonyKind {
    /// Makes a new wallet's key.
    Dkg,
    /// Signs worthless digests with a wallet's current generation, to prove that it can.
    TestSign,
    /// Puts an amended charter in force.
    Amend,
    /// Gives every node a new share of a wallet's key.
    Refresh,
    /// Restores the shares of nodes that lost them, then gives every node a new one.
    Recover,
    /// Signs a transaction with a wallet.
    Transfer,
    /// The last resort: one enclave rebuilds lost shares from root shares, then every node gets a new one.
    Rebuild,
    /// Enters in the exposure ledger which copies of a generation's shares exist or are gone.
    Inventory,
}

/// What a ceremony does to shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shares {
    /// Nothing: no enclave takes part.
    Untouched,
    /// It signs with them.
    Used,
    /// It makes those of a new key.
    Made,
    /// It makes new ones of a key that exists.
    Renewed,
    /// It restores lost ones, and then makes new ones.
    Restored,
}

/// What a manifest has that those of other kinds have not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    Nothing,
    Charter,
    Losses,
    Transaction,
    Copies,
}

/// What a ceremony works on, and so what must hold when one is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorksOn {
    /// A wallet whose name is free.
    NewWallet,
    /// The charter in force.
    Charter,
    /// The generation in use.
    GenerationInUse,
    /// The generation in use, after which it makes the next.
    NextGeneration,
    /// Copies of any generation's shares.
    Copies,
}

/// Whether something follows from a ceremony that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlasts {
    Never,
    /// If its charter came into force.
    IfInForce,
    /// As long as its generation is in use, or may be asked about.
    WithItsGeneration,
    Always,
}

/// What holds for a kind.
pub(crate) struct Rules {
    /// Its name in charters, ids and lists.
    pub(crate) name: &'static str,
    /// Its number on the wire.
    pub(crate) wire: log::Kind,
    /// The script that this build leads through it.
    pub(crate) script: &'static [u8],
    /// The acts that its script must have, each once, in this order.
    pub(crate) acts: &'static [Act],
    /// What it does to shares.
    pub(crate) shares: Shares,
    /// What it works on.
    pub(crate) works_on: WorksOn,
    /// Whether none may be opened while one of this other kind is under way with the same wallet.
    pub(crate) waits_for: fn(CeremonyKind) -> bool,
    /// Whether something follows from one that is over.
    pub(crate) outlasts_its_end: Outlasts,
    /// What holds for it and for few others.
    pub(crate) special: Special,
}

/// What holds for few kinds.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact about a kind, and none follows from another"
)]
pub(crate) struct Special {
    /// What its manifest has besides.
    pub(crate) carries: Carries,
    /// Whether its manifest names a generation that it works on, or speaks of.
    pub(crate) has_an_origin: bool,
    /// Whether that generation may have been given up before it was committed.
    pub(crate) may_speak_of_what_was_given_up: bool,
    /// Whether exactly a threshold of the nodes takes part, not all.
    pub(crate) has_a_signer_set: bool,
    /// What is wrong with its manifest besides.
    pub(crate) flaw: fn(&log::Manifest) -> Option<&'static str>,
    /// Whether a charter must have a quorum for it.
    pub(crate) is_indispensable: bool,
    /// Whether its quorum must have an administrator, a threshold of operators, a witness and an auditor.
    pub(crate) needs_a_full_quorum: bool,
    /// Why no other kind's quorum may be higher than this one's.
    pub(crate) has_the_highest_quorum: Option<&'static str>,
}

impl Special {
    /// For a kind like most.
    const NONE: Self = Self {
        carries: Carries::Nothing,
        has_an_origin: true,
        may_speak_of_what_was_given_up: false,
        has_a_signer_set: false,
        flaw: |_| None,
        is_indispensable: false,
        needs_a_full_quorum: true,
        has_the_highest_quorum: None,
    };
}

impl CeremonyKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Dkg,
        Self::TestSign,
        Self::Amend,
        Self::Refresh,
        Self::Recover,
        Self::Transfer,
        Self::Rebuild,
        Self::Inventory,
    ];

    /// What holds for it.
    pub(crate) fn rules(self) -> &'static Rules {
        match self {
            Self::Dkg => &dkg::RULES,
            Self::TestSign => &test_sign::RULES,
            Self::Amend => &amend::RULES,
            Self::Refresh => &refresh::RULES,
            Self::Recover => &recover::RULES,
            Self::Transfer => &transfer::RULES,
            Self::Rebuild => &rebuild::RULES,
            Self::Inventory => &inventory::RULES,
        }
    }

    /// The kind of this number on the wire; none where it is missing or unknown to this build.
    pub(crate) fn from_wire(number: log::Kind) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.rules().wire == number)
    }

    /// Whether it makes new shares of a key that exists.
    #[must_use]
    pub fn renews(self) -> bool {
        self.rules().shares >= Shares::Renewed
    }

    /// Whether it restores the shares of nodes that lost them.
    #[must_use]
    pub fn recovers(self) -> bool {
        self.rules().shares == Shares::Restored
    }

    /// Whether it makes a generation of shares.
    #[must_use]
    pub fn makes_shares(self) -> bool {
        self.rules().shares >= Shares::Made
    }

    /// Whether enclaves take part in it. Where none do, only people act, and no node has a duty.
    #[must_use]
    pub fn uses_enclaves(self) -> bool {
        self.rules().shares != Shares::Untouched
    }

    /// Its name in charters, ids and lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.rules().name
    }
}

impl fmt::Display for CeremonyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CeremonyKind {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        UnknownWord::read(text, "kind of ceremony", Self::ALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_on_the_wire_is_one_kind_and_every_kind_has_its_own() {
        let numbers = (1..).map_while(|number| log::Kind::try_from(number).ok());
        let kinds: Vec<Option<CeremonyKind>> = numbers.map(CeremonyKind::from_wire).collect();
        assert_eq!(kinds.len(), CeremonyKind::ALL.len());
        assert!(CeremonyKind::ALL.iter().all(|kind| kinds.contains(&Some(*kind))), "{kinds:?}");
        assert_eq!(CeremonyKind::from_wire(log::Kind::Unspecified), None);
    }
}
